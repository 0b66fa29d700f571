//! From the log to durable sessions: live frames to those that are at the tail, reads for those that catch up.
//!
//! A session is *live* in a shard while it is where the worker's tail is; one that cannot take a message falls back to
//! catching up from its cursor, and becomes live again when a read brings it to the tail. Both use the same positions
//! and change between two frames, so there is no gap and no duplicate.

use std::rc::Rc;

use engine::{EngineError, LogFrame, Op, Pos, Reply, Shard};
use mqtt::QoS;
use mqtt::inflight::InFlight as Flight;
use smallvec::SmallVec;

use crate::connection::{ConnId, Phase};
use crate::deliver::Form;
use crate::message::View;
use crate::metrics::Drop;
use crate::record::Reader;
use crate::router::{Routes, SessionKey};
use crate::session::{InFlight, Session};
use crate::share::{Source, is_shared};
use crate::worker::{Waiting, Worker};

/// Bytes of frames that a session that catches up reads at once.
const READ_BYTES: usize = 256 * 1024;

impl Worker {
    /// Submits the next frame of every shard that has none under way.
    pub(crate) fn submit_appends(&mut self) {
        for (shard, frame, id) in self.log.ready() {
            self.metrics.log_appends.inc();
            self.submit(Op::Append { shard, frame, id, fence: None }, Waiting::Append(shard));
        }
    }

    /// A frame is in the log, or was refused for good.
    pub(crate) fn appended(&mut self, shard: Shard, result: Result<Reply, EngineError>) {
        let failed = result.err().map(crate::worker::reason_of);
        for ack in self.log.finished(shard) {
            self.ack_done(ack, failed);
        }
        self.wake_flush();
    }

    /// New frames at the end of the log.
    pub(crate) fn on_frames(&mut self, shard: Shard, frames: &[LogFrame]) {
        for frame in frames {
            let Some(mut reader) = Reader::versioned(&frame.bytes) else {
                tracing::error!(shard = shard.0, seq = frame.seq, "a frame of the log is damaged");
                continue;
            };
            let mut index = 0u16;
            while !reader.is_empty() {
                let Some(stored) = reader.message() else {
                    tracing::error!(
                        shard = shard.0,
                        seq = frame.seq,
                        index,
                        "a message of the log is damaged"
                    );
                    break;
                };
                self.offer_live(shard, Pos::new(frame.seq, index), stored.view());
                self.offer_groups(shard, Pos::new(frame.seq, index), &stored);
                index = index.saturating_add(1);
            }
            self.log.set_tail(shard, Pos::end_of(frame.seq));
        }
    }

    /// Gives one message at the tail to the live sessions here that want it.
    fn offer_live(&mut self, shard: Shard, pos: Pos, view: View<'_>) {
        let routes = self.lookup(&view.publish.topic);
        if !routes.durable {
            return;
        }
        let Some(part) = routes.workers.iter().find(|p| p.worker == self.id) else { return };
        for hit in &part.hits {
            let Some((qos, rap, identifiers)) = hit.form(view.publisher) else { continue };
            let qos = qos.min(view.publish.qos);
            if !hit.durable || qos == QoS::AtMostOnce {
                continue;
            }
            let Some(id) = self.receiver_conn(hit) else { continue };
            let max_outbound = self.config.max_outbound_bytes;
            let Some(conn) = self.conn_mut(id) else { continue };
            let full = conn.unsent() >= max_outbound;
            let Some(session) = conn.session.as_mut() else { continue };
            let room = !full && session.resuming.is_none() && session.outbound.quota() > 0;
            let Some(cursor) = session.cursors.get_mut(usize::from(shard.0)) else { continue };
            if !cursor.live || pos <= cursor.at {
                continue;
            }
            if !room {
                // falls back: this message and all after it are read again when there is room
                cursor.live = false;
                cursor.at = Pos(pos.0 - 1);
                conn.stalled |= full;
                continue;
            }
            cursor.at = pos;
            let form = Form { qos, retain: rap && view.publish.retain, identifiers };
            let left = view.left(self.now.unix_ms);
            self.put_inflight(id, view, left, &form, InFlight::Logged { shard, pos }, false);
        }
    }

    /// The engine lost frames before this worker got them: live sessions go on behind the gap.
    pub(crate) fn on_truncated(&mut self, shard: Shard, first: Pos) {
        tracing::error!(shard = shard.0, %first, "the log was trimmed before its frames were delivered");
        self.metrics.drop_message(Drop::LogTrimmed, 1);
        self.log.set_tail(shard, first);
    }

    /// Moves a session on in every shard in which it is behind.
    pub(crate) fn catch_up_all(&mut self, id: ConnId) {
        let Some(session) = self.conn_mut(id).and_then(|c| c.session.as_mut()) else { return };
        let Ok(shards) = u16::try_from(session.cursors.len()) else { return };
        let first = session.first_shard;
        session.first_shard = if first + 1 < shards { first + 1 } else { 0 };
        for shard in (first..shards).chain(0..first) {
            let behind = self
                .conn(id)
                .and_then(|c| c.session.as_ref())
                .and_then(|s| s.cursors.get(usize::from(shard)))
                .is_some_and(|c| !c.live);
            if behind {
                self.catch_up(id, Shard(shard));
            }
        }
    }

    /// Sends what was read, reads on, or goes live.
    fn catch_up(&mut self, id: ConnId, shard: Shard) {
        let index = usize::from(shard.0);
        loop {
            let tail = self.tails().get(index).copied().unwrap_or_default();
            let Some(conn) = self.conn_mut(id).filter(|c| matches!(c.phase, Phase::Connected)) else {
                return;
            };
            let Some(session) = conn.session.as_mut() else { return };
            let Some(cursor) = session.cursors.get_mut(index) else { return };
            if cursor.live || cursor.reading {
                return;
            }
            if let Some(frame) = cursor.ahead.front().cloned() {
                if !self.replay_frame(id, shard, &frame) {
                    return;
                }
                let Some(session) = self.conn_mut(id).and_then(|c| c.session.as_mut()) else { return };
                let Some(cursor) = session.cursors.get_mut(index) else { return };
                cursor.at = cursor.at.max(Pos::end_of(frame.seq));
                cursor.ahead.pop_front();
                session.dirty = true;
                continue;
            }
            if cursor.at >= tail {
                cursor.live = true;
                cursor.ahead = std::collections::VecDeque::new();
                return;
            }
            cursor.reading = true;
            // reads go by whole frames: the one the cursor stands in is read again, unless it is gone through
            let seq = cursor.at.seq();
            let after =
                if cursor.at == Pos::end_of(seq) { cursor.at } else { Pos::end_of(seq.saturating_sub(1)) };
            self.submit(Op::Read { shard, after, max_bytes: READ_BYTES }, Waiting::Replay(id, shard));
            return;
        }
    }

    /// Frames for a session that catches up have come.
    pub(crate) fn replayed(&mut self, id: ConnId, shard: Shard, result: Result<Reply, EngineError>) {
        let tail = self.tails().get(usize::from(shard.0)).copied().unwrap_or_default();
        let Some(session) = self.conn_mut(id).and_then(|c| c.session.as_mut()) else { return };
        let Some(cursor) = session.cursors.get_mut(usize::from(shard.0)) else { return };
        cursor.reading = false;
        match result {
            Ok(Reply::Frames(frames)) => {
                if frames.is_empty() {
                    // nothing after the cursor: everything up to the tail has been trimmed or never was
                    cursor.at = cursor.at.max(tail);
                }
                cursor.ahead.extend(frames);
            }
            Err(EngineError::Truncated { first }) => {
                cursor.at = cursor.at.max(first);
                let client_id = std::sync::Arc::clone(&session.client_id);
                session.dropped += 1;
                self.metrics.drop_message(Drop::LogTrimmed, 1);
                self.tell_dropped(Some(&client_id), "", Drop::LogTrimmed.name(), 1);
            }
            Ok(_) | Err(_) => return,
        }
        self.pump(id);
    }

    /// Sends the messages of a frame that lie behind the cursor; `false`: there is no room for the next one.
    fn replay_frame(&mut self, id: ConnId, shard: Shard, frame: &LogFrame) -> bool {
        let max_outbound = self.config.max_outbound_bytes;
        let Some(mut reader) = Reader::versioned(&frame.bytes) else { return true };
        let mut index = 0u16;
        while !reader.is_empty() {
            let pos = Pos::new(frame.seq, index);
            index = index.saturating_add(1);
            let Some(stored) = reader.message() else { return true };
            let view = stored.view();
            let Some(conn) = self.conn_mut(id) else { return false };
            let full = conn.unsent() >= max_outbound;
            let Some(session) = conn.session.as_mut() else { return false };
            let room = session.outbound.quota() > 0;
            let Some(cursor) = session.cursors.get_mut(usize::from(shard.0)) else { return false };
            if pos <= cursor.at {
                continue;
            }
            let routes = self.lookup(&view.publish.topic);
            let Some(session) = self.conn_mut(id).and_then(|c| c.session.as_mut()) else { return false };
            let Some(wanted) = wanted(session, &routes, shard, pos, view) else { continue };
            if full || !room {
                if let Some(conn) = self.conn_mut(id) {
                    conn.stalled |= full;
                }
                return false;
            }
            if let Some(cursor) = session.cursors.get_mut(usize::from(shard.0)) {
                cursor.at = pos;
            }
            self.metrics.replayed.inc();
            let form =
                Form { qos: wanted.0, retain: wanted.1 && view.publish.retain, identifiers: &wanted.2 };
            let left = view.left(self.now.unix_ms);
            self.put_inflight(id, view, left, &form, InFlight::Logged { shard, pos }, false);
        }
        true
    }

    /// A frame that unacknowledged messages of a returning session lie in.
    pub(crate) fn resume_frame(&mut self, id: ConnId, shard: Shard, result: Result<Reply, EngineError>) {
        let Some(session) = self.conn_mut(id).and_then(|c| c.session.as_mut()) else { return };
        let Some(resuming) = session.resuming.as_mut() else { return };
        resuming.reads = resuming.reads.saturating_sub(1);
        if let Ok(Reply::Frames(frames)) = result {
            resuming.frames.extend(frames.into_iter().map(|f| ((shard, f.seq), f)));
        }
        if resuming.reads == 0 {
            self.resend(id);
        }
    }

    /// Sends everything unacknowledged again, in its old order [MQTT-4.4.0-1], [MQTT-4.6.0-1], then goes on with the log.
    ///
    /// As many as the client's Receive Maximum allows at once, the rest as they are acknowledged [MQTT-3.3.4-9].
    pub(crate) fn resend(&mut self, id: ConnId) {
        let max_outbound = self.config.max_outbound_bytes;
        loop {
            let Some(conn) = self.conn_mut(id).filter(|c| c.is_connected()) else { return };
            let (version, full) = (conn.version, conn.unsent() >= max_outbound);
            let Some(session) = conn.session.as_mut() else { return };
            let Some(resuming) = session.resuming.as_mut().filter(|r| r.reads == 0) else { return };
            let outbound = &session.outbound;
            let waiting = resuming.waiting.get_or_insert_with(|| {
                let flights = outbound.iter().map(|f| match f {
                    Flight::Publish { id, qos, item } => Flight::Publish { id, qos, item: item.clone() },
                    Flight::Pubrel { id } => Flight::Pubrel { id },
                });
                flights.collect()
            });
            let under_way = outbound.len().saturating_sub(waiting.len());
            if !waiting.is_empty() && (full || under_way >= resuming.window) {
                conn.stalled |= full;
                return;
            }
            match waiting.pop_front() {
                None => {
                    session.resuming = None;
                    break;
                }
                Some(Flight::Pubrel { id: packet_id }) => self.write(id, |out| {
                    mqtt::codec::encode::pubrel(version, packet_id, mqtt::ReasonCode::Success, out);
                }),
                Some(Flight::Publish { id: packet_id, qos, item }) => {
                    if !self.resend_publish(id, packet_id, qos, &item) {
                        self.metrics.drop_message(Drop::LogTrimmed, 1);
                        self.abandon(id, packet_id, qos);
                    }
                }
            }
        }
        self.pump(id);
    }

    /// `false`: it cannot be sent again.
    fn resend_publish(&mut self, id: ConnId, packet_id: mqtt::PacketId, qos: QoS, item: &InFlight) -> bool {
        match item {
            InFlight::Transient => false,
            InFlight::Kept(found) => {
                let Some(message) = found.kept.message() else { return false };
                self.put_again(id, message.view(), &found.form(), packet_id)
            }
            InFlight::Logged { shard, pos } => {
                let Some(session) = self.conn(id).and_then(|c| c.session.as_ref()) else { return false };
                let key = session.key;
                self.resend_logged(id, *shard, *pos, qos, packet_id, |worker, view| {
                    let routes = worker.lookup(&view.publish.topic);
                    own_hit(&routes, key)
                        .and_then(|hit| hit.form(view.publisher))
                        .map(|(_, rap, identifiers)| (rap, SmallVec::from_slice(identifiers)))
                })
            }
            InFlight::Dealt(dealt) => {
                // as that subscription asks for it, which may have ended
                let session = self.conn(id).and_then(|c| c.session.as_ref());
                let subscription = session.and_then(|s| s.subscriptions.get(&dealt.group.name));
                let form = subscription.map(|s| {
                    let identifiers: SmallVec<[u32; 1]> =
                        Some(s.identifier).filter(|&i| i != 0).into_iter().collect();
                    (s.options.retain_as_published, identifiers)
                });
                match &dealt.from {
                    Source::Memory(message) => {
                        let (rap, identifiers) = form.unwrap_or_default();
                        let retain = rap && message.publish.retain;
                        let form = Form { qos, retain, identifiers: &identifiers };
                        self.put_again(id, message.view(), &form, packet_id)
                    }
                    Source::Log { shard, pos } => {
                        self.resend_logged(id, *shard, *pos, qos, packet_id, |_, _| form)
                    }
                }
            }
        }
    }

    fn resend_logged(
        &mut self,
        id: ConnId,
        shard: Shard,
        pos: Pos,
        qos: QoS,
        packet_id: mqtt::PacketId,
        form: impl FnOnce(&mut Self, View<'_>) -> Option<(bool, SmallVec<[u32; 1]>)>,
    ) -> bool {
        let Some(session) = self.conn(id).and_then(|c| c.session.as_ref()) else { return false };
        let frames = session.resuming.as_ref().map(|r| &r.frames);
        let Some(frame) = frames.and_then(|f| f.get(&(shard, pos.seq()))).cloned() else { return false };
        let Some(mut reader) = Reader::versioned(&frame.bytes) else { return false };
        for _ in 0..pos.index() {
            if reader.message().is_none() {
                return false;
            }
        }
        let Some(stored) = reader.message() else { return false };
        let view = stored.view();
        let (rap, identifiers) = form(self, view).unwrap_or_default();
        let form = Form { qos, retain: rap && view.publish.retain, identifiers: &identifiers };
        self.put_again(id, view, &form, packet_id)
    }

    /// Tells the log's housekeeping from where this worker's sessions need it.
    pub(crate) fn publish_floors(&self) {
        let shards = self.tails().len();
        // sessions that are being opened or read count too
        let needed = self.durable_sessions > 0 || self.is_opening();
        for (shard, &tail) in self.tails().iter().enumerate() {
            let conns = self.conns.iter().take(if needed { usize::MAX } else { 0 });
            let floor = conns
                .filter_map(|(_, c)| match (&c.session, &c.phase) {
                    (Some(session), _) if session.durable => Some(session.floor(shard, tail)),
                    (None, Phase::Claiming(claiming)) => {
                        let loading = claiming.stored.as_ref().and_then(|s| s.floors.get(shard).copied());
                        loading.or_else(|| claiming.session.as_ref().map(|s| s.floor(shard, tail)))
                    }
                    _ => None,
                })
                .min()
                .unwrap_or(Pos(u64::MAX));
            // what this worker has not been given yet may still be wanted here
            let floor = floor.min(tail).min(self.groups_floor(shard, tail));
            let at = usize::from(self.id) * shards + shard;
            if let Some(cell) = self.shared.floors.get(at) {
                cell.store(floor.0, std::sync::atomic::Ordering::Release);
            }
        }
    }

    fn is_opening(&self) -> bool {
        self.conns.iter().any(|(_, c)| matches!(c.phase, Phase::Claiming(_)))
    }

    /// Forgets what no session needs any more.
    pub(crate) fn trim_log(&mut self) {
        for shard in 0..self.tails().len() {
            let floor = self.shared.log_floor(shard);
            if floor.seq() > 1 && floor.0 != u64::MAX {
                let shard = Shard(u16::try_from(shard).unwrap_or(u16::MAX));
                // the frame the floor lies in is kept: a floor is the last position that was gone through
                self.submit(Op::Trim { shard, before: Pos::new(floor.seq(), 0) }, Waiting::Nobody("trim"));
            }
        }
    }
}

fn own_hit(routes: &Rc<Routes>, key: SessionKey) -> Option<&crate::router::Hit> {
    routes.workers.iter().flat_map(|w| &w.hits).find(|h| h.session == key)
}

/// Whether and how a session gets the message at `pos`.
fn wanted(
    session: &Session,
    routes: &Rc<Routes>,
    shard: Shard,
    pos: Pos,
    view: View<'_>,
) -> Option<(QoS, bool, SmallVec<[u32; 1]>)> {
    let hit = own_hit(routes, session.key)?;
    if !session.subscriptions.has_late() {
        let (qos, rap, identifiers) = hit.form(view.publisher)?;
        let qos = qos.min(view.publish.qos);
        return (qos > QoS::AtMostOnce).then(|| (qos, rap, SmallVec::from_slice(identifiers)));
    }
    // some filter is younger than the position: each is asked by itself
    let own = view.publisher == session.key;
    let mut best: Option<(QoS, bool, SmallVec<[u32; 1]>)> = None;
    for (filter, subscription) in session.subscriptions.iter() {
        let begun = subscription
            .starts
            .as_ref()
            .and_then(|s| s.get(usize::from(shard.0)))
            .is_none_or(|&start| pos > start);
        if !begun
            || is_shared(filter)
            || (own && subscription.options.no_local)
            || !mqtt::filter::matches(filter, &view.publish.topic)
        {
            continue;
        }
        let entry = best.get_or_insert_with(|| (QoS::AtMostOnce, false, SmallVec::new()));
        entry.0 = entry.0.max(subscription.options.qos);
        entry.1 |= subscription.options.retain_as_published;
        if subscription.identifier != 0 {
            entry.2.push(subscription.identifier);
        }
    }
    let (qos, rap, identifiers) = best?;
    let qos = qos.min(view.publish.qos);
    (qos > QoS::AtMostOnce).then_some((qos, rap, identifiers))
}
