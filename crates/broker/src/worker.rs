//! One worker of the broker as a pure state machine: bytes, mail and time in; bytes, mail and engine operations out.
//!
//! A worker owns its connections and the sessions of their clients; nothing else touches them, so there is no lock
//! and no shared counter on the way of a message. What needs other workers goes out as [`Mail`] at the
//! [end of the turn](Worker::end_turn), what needs memory goes to the engine as operations with tokens.
//! Acknowledgements and engine operations have files of their own below. The steps live in files named after them: `connect`, `publish`, `subscribe`, `deliver`, `replay`, `disconnect`.
//!
//! Must not know: sockets, tasks, tokio. `driver` does.

mod acknowledge;
mod operations;
mod unsettled;

use std::sync::Arc;
use std::task::Waker;
use std::time::{Duration, Instant};

use engine::{EngineError, Op, Port, Pos, Shard, Token};
use hashbrown::HashMap;
use mqtt::codec::decode::{Role, decode, packet_len};
use mqtt::codec::plain::{Plain, plain};
use mqtt::codec::{Decoded, encode};
use mqtt::packet::Packet;
use mqtt::{PacketId, ReasonCode, Version};
use runtime::timer_wheel::Wheel;
use slab::Slab;

use crate::buffers::Buffers;
use crate::caller::Caller;
use crate::config::BrokerConfig;
use crate::connection::{AckRef, Conn, ConnId, End, Origin, Phase};
use crate::delayed::{Publishing, Writing};
use crate::deliver::Templates;
use crate::door::{Limit, Told};
use crate::handover::{Given, Handover};
use crate::log::Log;
use crate::message::Spare;
use crate::metrics::{Drop, WorkerMetrics};
use crate::registry::Owner;
use crate::router::{GroupId, RouteCache};
use crate::share::Share;
use crate::shared::{Mail, Shared};
use crate::subscribe::{Granted, RetainedFor};
use crate::system_topics::CLIENT_EVENTS_PER_SECOND;
use crate::throttle::{Flow, Paused};
use crate::topic_rewrite::Rewriter;
use crate::under_way::UnderWay;
use unsettled::Unsettled;

/// Now, read once for each entry into the worker.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Now {
    pub(crate) instant: Instant,
    /// Unix milliseconds.
    pub(crate) unix_ms: u64,
}

/// What an engine operation was for.
pub(crate) enum Waiting {
    /// An acknowledgement.
    Ack(AckRef),
    /// A frame of the log.
    Append(Shard),
    /// The records of a returning session.
    Load(ConnId),
    /// A frame that unacknowledged messages of a returning session lie in.
    Resume(ConnId, Shard),
    /// What a CONNECT must have written before it is answered.
    Opened(ConnId),
    /// What a DISCONNECT must have written before the client id is free.
    Closed(ConnId),
    /// Subscriptions of a durable session.
    Subscribed(ConnId, Box<Granted>),
    /// Their end.
    Unsubscribed(ConnId, PacketId, Vec<ReasonCode>),
    /// The barrier before retained messages are looked up.
    Retained(ConnId, Vec<RetainedFor>),
    /// Frames for a session that catches up.
    Replay(ConnId, Shard),
    /// Frames for a group that catches up.
    Group(GroupId, Shard),
    /// A retained message that has expired, as the register has it.
    Expired,
    /// The removal of records of a client id that nobody has: it is free then.
    Removed(Arc<str>),
    /// The record of a message that is published later.
    Delayed(Writing),
    /// Such a record, when it is due: its time and its number.
    DelayedDue(u64, u64),
    /// The removal of such a record.
    DelayedGone,
    /// Nobody waits; only errors matter.
    Nobody(&'static str),
}

struct InEngine {
    op: Op,
    waiting: Waiting,
    /// Since when the engine has had no room for it.
    busy_since: Option<Instant>,
    /// Its outcome was unknown once: it may have happened, so it cannot be refused any more.
    perhaps_done: bool,
}

/// How long an operation that may be repeated waits before it is.
const RETRY_AFTER: Duration = Duration::from_millis(50);
/// How long what a client waits for may find no room in the engine: a crowd that comes at once is over by then, a
/// register that is full is not.
const BUSY_PATIENCE: Duration = Duration::from_secs(2);
/// Bytes of log frames that may wait for the engine before connections are not read any more.
pub(crate) const MAX_LOG_BACKLOG: usize = 8 << 20;
/// How long a closed connection may take to take its last bytes.
const LINGER: Duration = Duration::from_secs(2);

/// See the module.
pub(crate) struct Worker {
    pub(crate) id: u16,
    pub(crate) shared: Arc<Shared>,
    pub(crate) config: Arc<BrokerConfig>,
    pub(crate) now: Now,
    pub(crate) conns: Slab<Conn>,
    pub(crate) routes: RouteCache,
    pub(crate) log: Log,
    pub(crate) metrics: Arc<WorkerMetrics>,
    pub(crate) templates: Templates,
    pub(crate) spare_messages: Spare,
    pub(crate) share: Share,
    port: Port,
    next_generation: u32,
    in_engine: Slab<InEngine>,
    ops: Vec<(Token, Op)>,
    retries: Vec<(Instant, Token)>,
    unsettled: Unsettled,
    /// By worker; what groups have for this one too.
    pub(crate) outgoing: Vec<Handover>,
    /// What the other workers have not delivered yet.
    pub(crate) under_way: Arc<UnderWay>,
    /// Slots with bytes to write or a socket to close.
    pub(crate) dirty: Vec<u32>,
    pub(crate) flush_waker: Option<Waker>,
    wheel: Wheel<ConnId>,
    fired: Vec<ConnId>,
    pub(crate) buffers: Buffers,
    congested: bool,
    /// Sessions whose search of the retained store goes on next turn.
    searching: Vec<ConnId>,
    /// Connected sessions that outlive their connection: while there are none, nothing is asked of the log.
    pub(crate) durable_sessions: usize,
    /// The rules of `topic_rewrite`.
    pub(crate) rewriter: Rewriter,
    /// Whose sockets rest because they sent too fast.
    pub(crate) paused: Paused,
    /// Open connections that came too fast.
    pub(crate) late: usize,
    pub(crate) told: [Told; Limit::ALL.len()],
    /// Delayed messages that are being published, and how many are read, published or removed.
    pub(crate) delayed_publishing: HashMap<u64, Publishing>,
    pub(crate) delayed_under_way: usize,
    /// When `$SYS` is published next (Unix milliseconds), and how many messages about clients may be until the next second.
    pub(crate) system_due: u64,
    pub(crate) client_events_left: u32,
    turn_wanted: bool,
    ticks: u64,
    /// Whoever still comes is sent away at once.
    stopping: bool,
}

impl Worker {
    pub(crate) fn new(id: u16, shared: Arc<Shared>, port: Port, tails: Vec<Pos>, now: Now) -> Self {
        let metrics = Arc::clone(&shared.metrics[usize::from(id)]);
        let workers = shared.mailboxes.len();
        Self {
            id,
            config: shared.config.load_full(),
            now,
            conns: Slab::new(),
            routes: RouteCache::new(65_536),
            log: Log::new(tails),
            metrics,
            templates: Templates::default(),
            spare_messages: Spare::default(),
            share: Share::new(id, shared.started_at),
            port,
            next_generation: 0,
            in_engine: Slab::new(),
            ops: Vec::new(),
            retries: Vec::new(),
            unsettled: Unsettled::default(),
            outgoing: (0..workers).map(|_| Handover::default()).collect(),
            under_way: Arc::default(),
            dirty: Vec::new(),
            flush_waker: None,
            wheel: Wheel::new(now.instant, Duration::from_secs(1)),
            fired: Vec::new(),
            buffers: Buffers::default(),
            congested: false,
            searching: Vec::new(),
            durable_sessions: 0,
            delayed_publishing: HashMap::new(),
            delayed_under_way: 0,
            system_due: 0,
            client_events_left: CLIENT_EVENTS_PER_SECOND,
            rewriter: Rewriter::new(&shared.config.load().topic_rewrite),
            paused: Paused::default(),
            late: 0,
            told: Default::default(),
            turn_wanted: false,
            ticks: 0,
            stopping: false,
            shared,
        }
    }

    // ---- what the driver calls ----

    /// A connection was accepted, above `accept_rate` if it is `late`; its slot.
    pub(crate) fn open(&mut self, origin: Origin, late: bool) -> ConnId {
        self.next_generation = self.next_generation.wrapping_add(1);
        let generation = self.next_generation;
        self.late += usize::from(late);
        let slot = self.conns.insert(Conn::new(generation, origin, late, self.now.instant));
        self.metrics.accepted.inc();
        self.metrics.connections.inc();
        let id = ConnId { slot: slot_number(slot), generation };
        self.wheel.arm(id, self.now.instant + self.config.connect_timeout);
        if self.stopping {
            // it was accepted, or still said whose it is, when everybody else was told
            self.end(id, End::Shutdown);
        }
        id
    }

    /// Bytes came.
    pub(crate) fn received(&mut self, id: ConnId, bytes: &[u8]) {
        let Some(conn) = self.conn_mut(id) else { return };
        conn.recv_oct += bytes.len() as u64;
        self.metrics.received_bytes.add(bytes.len() as u64);
        let now = self.now.instant;
        let Some(conn) = self.conn_mut(id).filter(|c| !c.closing) else { return };
        conn.last_received = now;
        let rest = match conn.tail.take() {
            None => bytes,
            Some(tail) => self.finish_tail(id, tail, bytes),
        };
        let used = self.process(id, rest);
        self.keep_tail(id, &rest[used..]);
        if self.conn(id).is_some_and(|c| c.throttle().is_some()) {
            self.charge(id, Flow::Bytes, bytes.len() as u64);
        }
    }

    /// The socket is closed or broken: nothing can be written to it any more.
    pub(crate) fn socket_closed(&mut self, id: ConnId, why: &'static str) {
        let Some(conn) = self.conn_mut(id) else { return };
        conn.socket_open = false;
        conn.waker = None;
        self.discard_unsent(id);
        self.end(id, End::Lost(why));
        self.reap(id);
    }

    /// Whether the driver should read from the socket now.
    pub(crate) fn wants_read(&self, id: ConnId) -> bool {
        !self.congested && self.conn(id).is_some_and(|c| c.processes() && c.unsent() < self.most_unsent())
    }

    /// Bytes that wait for one socket above which its connection is not read: a client that takes no answers can ask no more.
    /// Messages alone never come this far, so a slow subscriber is read on and its keep alive is seen.
    fn most_unsent(&self) -> usize {
        self.config.max_outbound_bytes.saturating_add(self.config.max_packet_size as usize)
    }

    /// Mail of other workers, of the engine and of the admin side.
    pub(crate) fn mail(&mut self, mail: Mail) {
        match mail {
            Mail::Forward(mut batch) => {
                self.share_mails(batch.take_mails());
                let unreadable = batch.deliver(|given| match given {
                    Given::One(view) => self.deliver_direct(view),
                    Given::Run(publisher, run) => self.deliver_run(publisher, &run),
                });
                if unreadable > 0 {
                    tracing::error!(unreadable, "messages of another worker could not be read");
                    self.metrics.drop_message(Drop::Handover, unreadable as u64);
                }
            }
            Mail::Release { owner, by, new_peer } => self.release(owner, by, new_peer),
            Mail::Released { to } => {
                self.released(ConnId { slot: to.slot, generation: to.generation });
            }
            Mail::Verified { to, right } => self.verified(to, right),
            Mail::Engine(batch) => {
                for arrival in batch {
                    self.arrival(arrival);
                }
            }
            Mail::Ask(ask) => ask(self),
        }
    }

    /// About once a second.
    pub(crate) fn tick(&mut self) {
        self.ticks += 1;
        self.config = self.shared.config.load_full();
        if !self.rewriter.is_of(&self.config.topic_rewrite) {
            self.rewriter = Rewriter::new(&self.config.topic_rewrite);
        }
        let mut fired = std::mem::take(&mut self.fired);
        self.wheel.advance(self.now.instant, &mut fired);
        for id in fired.drain(..) {
            self.timer(id);
        }
        self.fired = fired;
        self.tend_groups();
        self.client_events_left = CLIENT_EVENTS_PER_SECOND;
        self.buffers.ebb();
        self.spare_messages.ebb();
        self.publish_floors();
        if self.ticks.is_multiple_of(60) {
            self.sweep_groups();
        }
        if self.ticks.is_multiple_of(5) {
            self.checkpoint();
            self.checkpoint_groups();
        }
        if self.id == 0 {
            self.publish_delayed();
            self.publish_system_topics();
            self.housekeeping(self.ticks);
        }
    }

    /// Hands over what gathered: messages for other workers, operations for the engine. Cheap when there is nothing.
    pub(crate) fn end_turn(&mut self) {
        self.submit_appends();
        if !self.ops.is_empty() {
            self.shared.engine.submit(self.port, std::mem::take(&mut self.ops));
        }
        for to in 0..self.outgoing.len() {
            self.hand_over(to);
        }
        // a batch in this turn may have been one too many: `hand_over` has said so
        let congested = self.log.backlog() > MAX_LOG_BACKLOG
            || self.congested && self.under_way.rests(self.flush_waker.as_ref());
        if self.congested && !congested {
            for (_, conn) in &self.conns {
                conn.wake();
            }
        }
        self.congested = congested;
    }

    /// Sends what gathered for another worker: it is under way then, and when that is too much nothing more is read, from now on.
    pub(crate) fn hand_over(&mut self, to: usize) {
        let batch = &mut self.outgoing[to];
        if to == usize::from(self.id) || batch.is_empty() {
            return;
        }
        batch.depart(&self.under_way);
        self.congested |= self.under_way.is_too_much();
        // bounded by what is under way; a worker that has stopped delivers nothing any more
        let _ = self.shared.mailboxes[to].force(Mail::Forward(std::mem::take(batch)));
    }

    /// When [`Self::end_turn`] must be called again although nothing came: another worker's mailbox was full or an operation
    /// is to be repeated.
    pub(crate) fn needs_turn(&self) -> bool {
        !self.retries.is_empty()
            || !self.paused.is_empty()
            || self.congested
            || self.outgoing.iter().any(|o| !o.is_empty())
    }

    /// Submits again what the engine could not do before.
    pub(crate) fn retry(&mut self) {
        let now = self.now.instant;
        self.end_pauses();
        let mut due = Vec::new();
        self.retries.retain(|(at, token)| {
            let wait = *at > now;
            if !wait {
                due.push(*token);
            }
            wait
        });
        for token in due {
            self.repeat(token);
        }
    }

    /// Bytes that the driver writes: all that waits for `slot`.
    pub(crate) fn unsent(&self, slot: u32) -> &[u8] {
        self.conns.get(slot as usize).map_or(&[], |c| &c.out[c.sent..])
    }

    /// Nothing can be written to this socket any more: what waits for it is forgotten, so that it keeps nobody from reading.
    pub(crate) fn discard_unsent(&mut self, id: ConnId) {
        let Some(conn) = self.conn_mut(id) else { return };
        conn.out = Vec::new();
        conn.sent = 0;
    }

    /// The driver has written `n` of the bytes.
    pub(crate) fn written(&mut self, slot: u32, n: usize) {
        let (most, room_at) = (self.most_unsent(), self.config.max_outbound_bytes / 2);
        let Some(conn) = self.conns.get_mut(slot as usize) else { return };
        let unread = conn.unsent() >= most;
        conn.sent += n;
        conn.send_oct += n as u64;
        self.metrics.sent_bytes.add(n as u64);
        if unread && conn.unsent() < most {
            conn.wake();
        }
        let id = ConnId { slot, generation: conn.generation };
        // half of the buffer is enough to go on: a client that reads slowly may never take the last byte
        let room = conn.stalled && !conn.closing && conn.unsent() <= room_at;
        conn.stalled &= !room;
        if conn.sent >= conn.out.len() {
            let buffer = std::mem::take(&mut conn.out);
            conn.sent = 0;
            self.buffers.give_back(buffer);
        }
        if room {
            self.pump(id);
        }
    }

    /// Stops serving: every client gets its DISCONNECT and every durable session is written back.
    pub(crate) fn shut_down(&mut self) {
        self.stopping = true;
        let ids: Vec<_> = self.ids().collect();
        for id in ids {
            self.end(id, End::Shutdown);
        }
        // what members had not acknowledged is in it, wherever it is on its way back
        self.checkpoint_groups();
    }

    /// Nothing is left to write, to wait for or to close.
    pub(crate) fn is_idle(&self) -> bool {
        self.conns.is_empty() && self.log.is_idle()
    }

    /// The next turn has something to do whatever comes.
    #[cfg(test)]
    pub(crate) fn is_searching(&self) -> bool {
        !self.searching.is_empty()
    }

    /// Operations that the engine has not answered.
    #[cfg(any(test, feature = "bench"))]
    pub(crate) fn operations(&self) -> usize {
        self.in_engine.len()
    }

    // ---- connections ----

    pub(crate) fn ids(&self) -> impl Iterator<Item = ConnId> + '_ {
        self.conns.iter().map(|(slot, c)| ConnId { slot: slot_number(slot), generation: c.generation })
    }

    pub(crate) fn conn(&self, id: ConnId) -> Option<&Conn> {
        self.conns.get(id.slot as usize).filter(|c| c.generation == id.generation)
    }

    pub(crate) fn conn_mut(&mut self, id: ConnId) -> Option<&mut Conn> {
        self.conns.get_mut(id.slot as usize).filter(|c| c.generation == id.generation)
    }

    pub(crate) fn owner(&self, id: ConnId) -> Owner {
        Owner { worker: self.id, slot: id.slot, generation: id.generation }
    }

    /// Frees the slot once the connection is over and its socket closed.
    pub(crate) fn reap(&mut self, id: ConnId) {
        if self.conn(id).is_some_and(|c| !c.socket_open && matches!(c.phase, Phase::Over)) {
            let conn = self.conns.remove(id.slot as usize);
            self.late -= usize::from(conn.late);
            self.metrics.connections.dec();
        }
    }

    /// Appends bytes to what waits for the connection.
    pub(crate) fn write(&mut self, id: ConnId, encode: impl FnOnce(&mut Vec<u8>)) {
        self.write_sized(id, 0, encode);
    }

    /// The same where it is known that `len` bytes come.
    pub(crate) fn write_sized(&mut self, id: ConnId, len: usize, encode: impl FnOnce(&mut Vec<u8>)) {
        let Some(conn) = self.conns.get_mut(id.slot as usize).filter(|c| c.generation == id.generation)
        else {
            return;
        };
        let Some(out) = conn.outbox(&mut self.buffers, len) else { return };
        encode(out);
        self.metrics.packets_sent.inc();
        if !std::mem::replace(&mut conn.dirty, true) {
            self.dirty.push(id.slot);
            self.wake_flush();
        }
    }

    /// Encodes a packet for the connection's version. `false`: the client takes none that large [MQTT-3.1.2-24], nothing was
    /// written.
    #[must_use]
    pub(crate) fn send(&mut self, id: ConnId, packet: &Packet<'_>) -> bool {
        let Some(conn) = self.conn(id) else { return true };
        let (version, max) = (conn.version, conn.max_packet);
        if encode::encoded_len(packet, version) > max as usize {
            return false;
        }
        self.write(id, |out| {
            if let Err(error) = encode::encode(packet, version, out) {
                tracing::error!(packet = packet.name(), %error, "a packet of our own could not be encoded");
            }
        });
        true
    }

    /// Sends an answer that its client waits for. One that it does not take [MQTT-3.1.2-24] ends the connection: it would wait
    /// for ever.
    pub(crate) fn answer(&mut self, id: ConnId, packet: &Packet<'_>) {
        if !self.send(id, packet) {
            let detail = "the answer is larger than the client's Maximum Packet Size";
            self.violation(id, ReasonCode::PacketTooLarge, "MQTT-3.1.2-24", detail);
        }
    }

    pub(crate) fn mark_dirty(&mut self, slot: u32) {
        if let Some(conn) = self.conns.get_mut(slot as usize)
            && !conn.dirty
        {
            conn.dirty = true;
            self.dirty.push(slot);
            self.wake_flush();
        }
    }

    /// A session's search of the retained store goes on when the others have had their turn.
    pub(crate) fn search_on(&mut self, id: ConnId) {
        self.searching.push(id);
        self.wake_flush();
    }

    /// The slots that have something to write, for the driver to go through.
    pub(crate) fn begin_flush(&mut self) -> Vec<u32> {
        self.turn_wanted = false;
        self.own_share_mail();
        for id in std::mem::take(&mut self.searching) {
            self.pump(id);
        }
        std::mem::take(&mut self.dirty)
    }

    /// Gives the emptied list back, so that its memory is used again.
    pub(crate) fn end_flush(&mut self, emptied: Vec<u32>) {
        if self.dirty.is_empty() {
            self.dirty = emptied;
        }
    }

    /// The driver looks at the slot now.
    pub(crate) fn clean(&mut self, slot: u32) {
        if let Some(conn) = self.conns.get_mut(slot as usize) {
            conn.dirty = false;
        }
    }

    pub(crate) fn is_closing(&self, slot: u32) -> bool {
        self.conns.get(slot as usize).is_some_and(|c| c.closing)
    }

    pub(crate) fn wake_slot(&self, slot: u32) {
        if let Some(conn) = self.conns.get(slot as usize) {
            conn.wake();
        }
    }

    /// The socket is closed as soon as what waits is written, and in any case after [`LINGER`].
    pub(crate) fn close(&mut self, id: ConnId) {
        let now = self.now.instant;
        let Some(conn) = self.conn_mut(id) else { return };
        if !conn.closing {
            conn.last_received = now;
        }
        conn.closing = true;
        conn.tail = None;
        conn.wake();
        let waits = conn.linger || conn.unsent() > 0;
        self.mark_dirty(id.slot);
        if waits {
            self.wheel.arm(id, self.now.instant + LINGER);
        }
    }

    pub(crate) fn arm(&mut self, id: ConnId, at: Instant) {
        self.wheel.arm(id, at);
    }

    fn timer(&mut self, id: ConnId) {
        let (now, congested) = (self.now.instant, self.congested);
        let Some(conn) = self.conn_mut(id) else { return };
        if conn.closing {
            // the entry may be one of the time before
            if conn.socket_open && now >= conn.last_received + LINGER {
                // it did not take its last bytes in time
                conn.killed = true;
                conn.wake();
            }
            return;
        }
        match conn.phase {
            // armed once, at accept: bytes that trickle in give no more time
            Phase::Connect => self.end(id, End::ConnectTimeout),
            Phase::Authenticating(_) => self.not_verified_in_time(id),
            Phase::Connected if conn.keep_alive_ms > 0 => {
                if congested || !conn.processes() {
                    // what it sends is not read: its silence is ours
                    conn.last_received = now;
                }
                let due = conn.last_received + Duration::from_millis(u64::from(conn.keep_alive_ms));
                if now >= due {
                    // [MQTT-3.1.2-22]
                    self.end(id, End::KeepAlive);
                } else {
                    self.wheel.arm(id, due);
                }
            }
            // it is still being opened: keep alive will need the timer
            Phase::Claiming(_) => self.wheel.arm(id, now + Duration::from_secs(1)),
            _ => {}
        }
    }

    // ---- packets ----

    /// Handles every whole packet at the front of `input`; how many bytes were used.
    fn process(&mut self, id: ConnId, input: &[u8]) -> usize {
        let mut used = 0;
        let mut known = self.routes.last_topic();
        // until another topic comes; that it was not so once is not found out again for each message
        let mut in_runs = true;
        loop {
            let Some(conn) = self.conn(id) else { return input.len() };
            if conn.closing {
                return input.len();
            }
            if !conn.processes() || used == input.len() {
                return used;
            }
            let rest = &input[used..];
            if matches!(conn.phase, Phase::Connect) && rest[0] >> 4 != 1 {
                self.violation(
                    id,
                    ReasonCode::ProtocolError,
                    "MQTT-3.1.0-1",
                    "the first packet is not CONNECT",
                );
                return input.len();
            }
            if conn.is_connected() && rest[0] >> 4 == 1 {
                // whatever it says: its own faults have Reason Codes that only CONNACK can carry
                self.violation(id, ReasonCode::ProtocolError, "MQTT-3.1.0-2", "a second CONNECT");
                return input.len();
            }
            let (version, max) = (conn.version, self.max_packet(conn));
            if conn.is_connected()
                && let Some((packet, len)) = plain(rest, version, max, &known)
            {
                if let Plain::Publish(first) = &packet
                    && in_runs
                    // where the one before had another topic, so has the next
                    && std::ptr::eq(first.topic(), &*known)
                    && let Some(run) = first.run(rest, max)
                {
                    if self.take_run(id, &run) {
                        used += run.as_bytes().len();
                        continue;
                    }
                    in_runs = false;
                }
                used += len;
                self.plain_packet(id, &packet);
                if !self.routes.is_last_topic(&known) {
                    known = self.routes.last_topic();
                    in_runs = true;
                }
                continue;
            }
            match decode(rest, version, Role::Client, max) {
                Ok(Decoded::Packet(packet, len)) => {
                    used += len;
                    self.packet(id, packet);
                }
                Ok(Decoded::Incomplete(_)) => return used,
                Err(error) if error.reason == ReasonCode::UnsupportedProtocolVersion => {
                    // in the form of 3.1.1, the only one that every client can read [v3 MQTT-3.1.2-2]
                    self.refuse(id, Caller::default(), error.reason, error.detail);
                    return input.len();
                }
                Err(error) => {
                    self.violation(id, error.reason, error.clause, error.detail);
                    return input.len();
                }
            }
        }
    }

    /// Bytes of the largest packet taken now: somebody who has not said who it is may not make us hold much.
    fn max_packet(&self, conn: &Conn) -> u32 {
        let most = self.config.max_packet_size;
        if conn.is_connected() { most } else { most.min(self.config.limits.max_connect_size) }
    }

    /// Completes the packet that was not whole, and gives what comes behind it: that is read where it lies, not copied.
    #[expect(clippy::box_collection, reason = "it goes back to where it was")]
    fn finish_tail<'b>(&mut self, id: ConnId, mut tail: Box<Vec<u8>>, mut bytes: &'b [u8]) -> &'b [u8] {
        loop {
            let missing = packet_len(&tail).map_or(1, |len| len.saturating_sub(tail.len()));
            let (part, rest) = bytes.split_at(missing.min(bytes.len()));
            if part.is_empty() {
                // it is whole and may not be looked at now, or nothing more has come: what there is waits
                if let Some(conn) = self.conn_mut(id) {
                    tail.extend_from_slice(bytes);
                    conn.tail = Some(tail);
                }
                return &[];
            }
            bytes = rest;
            // a large packet grows as it arrives; nothing is reserved on the word of a length
            self.buffers.grow(&mut tail, part.len());
            tail.extend_from_slice(part);
            let used = self.process(id, &tail);
            if used == tail.len() {
                self.buffers.give_back_large(*tail);
                return bytes;
            }
            tail.drain(..used);
        }
    }

    #[expect(clippy::box_collection, reason = "it goes back to where it was")]
    fn process_owned(&mut self, id: ConnId, mut bytes: Box<Vec<u8>>) {
        let used = self.process(id, &bytes);
        bytes.drain(..used);
        if let Some(conn) = self.conn_mut(id)
            && !conn.closing
            && !bytes.is_empty()
        {
            conn.tail = Some(bytes);
        }
    }

    fn keep_tail(&mut self, id: ConnId, rest: &[u8]) {
        if rest.is_empty() {
            return;
        }
        if let Some(conn) = self.conn_mut(id)
            && !conn.closing
        {
            conn.tail.get_or_insert_default().extend_from_slice(rest);
        }
    }

    /// Goes on with what was kept while the connection could not be processed.
    pub(crate) fn unpause(&mut self, id: ConnId) {
        let Some(conn) = self.conn_mut(id).filter(|c| c.processes()) else { return };
        if let Some(tail) = conn.tail.take() {
            self.process_owned(id, tail);
        }
        if let Some(conn) = self.conn(id) {
            conn.wake();
        }
    }

    /// The short way of what makes up nearly all traffic.
    fn plain_packet(&mut self, id: ConnId, packet: &Plain<'_>) {
        self.metrics.packets_received.inc();
        match packet {
            Plain::Publish(publish) => self.on_publish(id, publish.to_publish(), Some(publish)),
            Plain::Puback(packet_id) => self.on_puback(id, *packet_id),
            Plain::Pubrec(packet_id) => self.on_pubrec(id, *packet_id, ReasonCode::Success),
            Plain::Pubrel(packet_id) => self.on_pubrel(id, *packet_id),
            Plain::Pubcomp(packet_id) => self.on_pubcomp(id, *packet_id),
        }
    }

    fn packet(&mut self, id: ConnId, packet: Packet<'_>) {
        self.metrics.packets_received.inc();
        match packet {
            Packet::Publish(publish) => self.on_publish(id, publish, None),
            Packet::Puback(ack) => self.on_puback(id, ack.packet_id),
            Packet::Pubrec(ack) => self.on_pubrec(id, ack.packet_id, ack.reason),
            Packet::Pubrel(ack) => self.on_pubrel(id, ack.packet_id),
            Packet::Pubcomp(ack) => self.on_pubcomp(id, ack.packet_id),
            Packet::Pingreq => self.write(id, encode::pingresp),
            Packet::Subscribe(subscribe) => self.on_subscribe(id, &subscribe),
            Packet::Unsubscribe(unsubscribe) => self.on_unsubscribe(id, &unsubscribe),
            Packet::Disconnect(disconnect) => self.on_disconnect(id, &disconnect),
            Packet::Connect(connect) => self.on_connect(id, *connect),
            Packet::Auth(_) => {
                // no extended authentication was begun [MQTT-4.12.0-6]
                self.violation(id, ReasonCode::ProtocolError, "MQTT-4.12.0-6", "AUTH without an exchange");
            }
            Packet::Connack(_) | Packet::Suback(_) | Packet::Unsuback(_) | Packet::Pingresp => {
                self.violation(id, ReasonCode::ProtocolError, "2.1.2", "a packet only servers send");
            }
        }
    }

    pub(crate) fn violation(
        &mut self,
        id: ConnId,
        reason: ReasonCode,
        clause: &'static str,
        detail: &'static str,
    ) {
        self.end(id, End::Violation { reason, clause, detail });
    }
}

/// What an MQTT 5 client is told when the engine could not do it.
pub(crate) fn reason_of(error: EngineError) -> ReasonCode {
    match error {
        EngineError::TooLarge => ReasonCode::PacketTooLarge,
        EngineError::Busy | EngineError::Full => ReasonCode::QuotaExceeded,
        EngineError::Unavailable
        | EngineError::Unknown
        | EngineError::Fenced { .. }
        | EngineError::Conflict { .. }
        | EngineError::Truncated { .. }
        | EngineError::Corrupt => ReasonCode::ImplementationSpecificError,
    }
}

fn slot_number(slot: usize) -> u32 {
    // descriptors run out long before four billion connections of one worker
    u32::try_from(slot).unwrap_or(u32::MAX)
}

fn token_index(token: Token) -> usize {
    usize::try_from(token).unwrap_or(usize::MAX)
}

/// Versions differ in what can be said at all.
pub(crate) fn speaks_reasons(version: Version) -> bool {
    version.is_v5()
}
