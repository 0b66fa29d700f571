//! The end of a connection: the only way out of every phase.
//!
//! A will is published or waits for its delay, a durable session is written back, the client id becomes free, and
//! whoever waits for it is told — in this order, so that two connections never serve one client id.

use std::sync::Arc;

use engine::{Op, Write};
use mqtt::ReasonCode;
use mqtt::packet::{Disconnect, DisconnectProperties, Packet};
use runtime::events::{Event, Text};

use crate::caller::Caller;
use crate::connection::{Conn, ConnId, End, Leaving, Phase};
use crate::message::{Message, NEVER, View, expiry_of};
use crate::record;
use crate::session_store::{self, Due, Offline};
use crate::worker::{Waiting, Worker};

impl Worker {
    pub(crate) fn on_disconnect(&mut self, id: ConnId, disconnect: &Disconnect<'_>) {
        if let Some(expiry) = disconnect.properties.session_expiry_interval {
            let max = self.config.max_session_expiry;
            let Some(session) = self.conn_mut(id).and_then(|c| c.session.as_mut()) else { return };
            if session.expiry == 0 && expiry > 0 {
                self.violation(
                    id,
                    ReasonCode::ProtocolError,
                    "3.14.2.2.2",
                    "a session expiry of 0 in CONNECT cannot be raised in DISCONNECT",
                );
                return;
            }
            session.expiry = expiry.min(max);
        }
        self.end(id, End::Goodbye { with_will: disconnect.reason == ReasonCode::DisconnectWithWill });
    }

    /// Ends a connection, whatever it is doing.
    pub(crate) fn end(&mut self, id: ConnId, end: End) {
        let Some(conn) = self.conn_mut(id) else { return };
        conn.linger |= !matches!(end, End::Goodbye { .. } | End::Lost(_));
        conn.farewell.get_or_insert_with(|| end.farewell());
        match &mut conn.phase {
            Phase::Connect => {
                conn.phase = Phase::Over;
                self.metrics.refused.inc();
                // a refusal was told already, with the client id
                if !matches!(end, End::Refused(..)) {
                    self.tell_refused(id, Caller::default(), &end);
                }
                self.close(id);
                self.reap(id);
            }
            Phase::Authenticating(waiting) => {
                let caller = waiting.caller();
                conn.phase = Phase::Over;
                self.metrics.refused.inc();
                if !matches!(end, End::Refused(..)) {
                    self.tell_refused(id, caller, &end);
                }
                self.close(id);
                self.reap(id);
            }
            Phase::Claiming(claiming) => {
                // what it waits for will still arrive: it goes then
                let caller = claiming.caller();
                if claiming.ended.is_none() {
                    claiming.ended = Some(end.clone());
                    self.tell_refused(id, caller, &end);
                }
                self.close(id);
            }
            Phase::Connected => self.leave(id, end),
            Phase::Leaving(_) | Phase::Over => self.close(id),
        }
    }

    pub(crate) fn tell_refused(&self, id: ConnId, caller: Caller, end: &End) {
        let Some(conn) = self.conn(id) else { return };
        let peer = conn.origin.peer;
        let Caller { client_id, username } = caller;
        match end {
            End::Violation { reason, clause, detail } => {
                self.metrics.violations.inc();
                self.shared.events.emit(Event::ProtocolViolation {
                    clientid: client_id,
                    peer,
                    reason: reason.name().into(),
                    clause: Some((*clause).into()),
                    detail: (*detail).into(),
                });
            }
            // a health check that connects and goes is no news
            End::Lost(_) if conn.recv_oct == 0 => {}
            _ => {
                self.shared.events.emit(Event::ClientRefused {
                    clientid: client_id,
                    username,
                    peer,
                    reason: end.word().into(),
                    detail: end.detail().into(),
                });
            }
        }
    }

    fn leave(&mut self, id: ConnId, end: End) {
        let tails = self.tails().to_vec();
        let Some(conn) = self.conn_mut(id) else { return };
        if conn.version.is_v5()
            && let Some(reason) = end.reason_code()
        {
            // [MQTT-4.13.1-1]
            let mut disconnect = Disconnect { reason, properties: DisconnectProperties::default() };
            disconnect.properties.reason_string =
                Some(end.detail()).filter(|d| !d.is_empty()).map(Into::into);
            if !self.send(id, &Packet::Disconnect(disconnect.clone())) {
                // without the explanation it may fit; otherwise the closed door says it
                disconnect.properties.reason_string = None;
                let _ = self.send(id, &Packet::Disconnect(disconnect));
            }
        }
        let Some(conn) = self.conn_mut(id) else { return };
        if conn.greeted {
            self.metrics.disconnects.inc();
            self.tell_disconnected(id, &end);
            self.publish_client_event(id, Some(end.word()));
        }
        let Some(conn) = self.conn_mut(id) else { return };
        if end == End::Kicked
            && let Some(session) = &mut conn.session
        {
            session.expiry = 0;
        }
        if let Some(session) = &mut conn.session {
            // from here on nothing is sent: what the tail still passes is for the next connection
            session.stop_at(&tails);
        }
        conn.phase = Phase::Leaving(Box::new(Leaving { end, writing: false, offline: None }));
        self.close(id);
        self.leave_groups(id);
        self.go_on_leaving(id);
    }

    fn tell_disconnected(&self, id: ConnId, end: &End) {
        let Some(conn) = self.conn(id) else { return };
        let Some(session) = &conn.session else { return };
        let client_id = &session.client_id;
        if let End::Violation { reason, clause, detail } = end {
            self.metrics.violations.inc();
            self.shared.events.emit(Event::ProtocolViolation {
                clientid: Some(Arc::clone(client_id)),
                peer: conn.origin.peer,
                reason: reason.name().into(),
                clause: Some((*clause).into()),
                detail: (*detail).into(),
            });
        }
        if *end == End::TakenOver {
            self.metrics.takeovers.inc();
            if let Some(new_peer) = conn.waiter().map(|w| w.1) {
                self.shared.events.emit(Event::SessionTakenOver {
                    clientid: Arc::clone(client_id),
                    old_peer: conn.origin.peer,
                    new_peer,
                });
            }
        }
        self.shared.events.emit(Event::ClientDisconnected {
            clientid: Arc::clone(client_id),
            peer: conn.origin.peer,
            reason: end.word().into(),
            detail: end.detail().into(),
        });
    }

    /// The next step of leaving, as soon as no acknowledgement and no subscription is under way any more.
    pub(crate) fn go_on_leaving(&mut self, id: ConnId) {
        let now = self.now.unix_ms;
        let tails = self.tails().to_vec();
        let Some(conn) = self.conn_mut(id) else { return };
        let Phase::Leaving(leaving) = &mut conn.phase else { return };
        if leaving.writing || conn.busy || conn.acks.iter().any(|a| a.waits > 0) {
            return;
        }
        leaving.writing = true;
        let Some(session) = &mut conn.session else { return };
        let will = if leaving.end.discards_will() { None } else { conn.will.take() };
        let had_will = will.is_some() || conn.will.take().is_some();
        let key = session.key;
        let client_id = Arc::clone(&session.client_id);
        if session.expiry == 0 {
            let filters: Vec<Box<str>> = session.subscriptions.filters().map(Into::into).collect();
            let mut writes = if session.durable {
                session_store::removal(&client_id, filters.iter().map(|f| &**f), session.incoming.ids())
            } else {
                Vec::new()
            };
            if had_will && writes.is_empty() {
                writes.push(Write::delete(record::will_key(&client_id)));
            }
            for filter in &filters {
                self.shared.router.unsubscribe(filter, key);
            }
            self.shared.exclusive.release_all(key);
            // the session ends now: a will delay does not outlive it [MQTT-3.1.3-9]
            if let Some(will) = will {
                self.publish_will(&will.message);
            }
            if writes.is_empty() {
                self.left(id);
            } else {
                self.submit(Op::Put { writes }, Waiting::Closed(id));
            }
            return;
        }
        let expires_at = match session.expiry {
            u32::MAX => NEVER,
            seconds => now.saturating_add(u64::from(seconds) * 1_000),
        };
        let Some(about) = conn.about.clone() else { return };
        let origin = Box::new(conn.origin.clone());
        let record = session_store::encode(session, &about, &origin, now, &tails);
        let delayed = will
            .as_ref()
            .filter(|w| w.delay > 0)
            .map(|w| (now.saturating_add(u64::from(w.delay) * 1_000), Arc::clone(&w.message)));
        let offline = Offline {
            key,
            client_id: Arc::clone(&client_id),
            created_at: session.created_at,
            disconnected_at: now,
            expiry: session.expiry,
            expires_at,
            floors: session
                .cursors
                .iter()
                .enumerate()
                .zip(&tails)
                .map(|((s, _), &t)| session.floor(s, t))
                .collect(),
            subscriptions: std::mem::take(&mut session.subscriptions),
            incoming: session.incoming.ids().collect(),
            inflight: session.outbound.len(),
            dropped: session.dropped,
            about,
            origin,
            will: delayed,
        };
        self.shared.router.relocate(offline.filters(), key, None);
        let mut writes = vec![Write::put(record::session_key(&client_id), record)];
        if had_will && offline.will.is_none() {
            writes.push(Write::delete(record::will_key(&client_id)));
        }
        let waits = offline.will.is_some();
        if let Some(conn) = self.conn_mut(id)
            && let Phase::Leaving(leaving) = &mut conn.phase
        {
            leaving.offline = Some(Box::new(offline));
        }
        if let Some(will) = will.filter(|_| !waits) {
            self.publish_will(&will.message);
        }
        self.submit(Op::Put { writes }, Waiting::Closed(id));
    }

    /// The engine has no room for the last state of a session. What it wrote before is older: going on from there would send
    /// again what the client has acknowledged, so the session ends, and the client learns it from Session Present.
    pub(crate) fn not_written_back(&mut self, id: ConnId) {
        let offline = self.conn_mut(id).and_then(|c| match &mut c.phase {
            Phase::Leaving(leaving) => leaving.offline.take(),
            _ => None,
        });
        let Some(mut offline) = offline else {
            self.left(id);
            return;
        };
        tracing::error!(client_id = &*offline.client_id, "a session could not be written back and ends");
        self.forget_routes(&offline);
        // the session ends now: a will delay does not outlive it [MQTT-3.1.3-9]
        if let Some((_, will)) = offline.will.take() {
            self.publish_will(&will);
        }
        self.submit(Op::Put { writes: offline.removal() }, Waiting::Closed(id));
    }

    /// What had to be written is written: the client id is free.
    pub(crate) fn left(&mut self, id: ConnId) {
        let owner = self.owner(id);
        let Some(conn) = self.conn_mut(id) else { return };
        let Phase::Leaving(leaving) = std::mem::replace(&mut conn.phase, Phase::Over) else { return };
        let Some(session) = conn.session.take() else { return };
        self.keeps_what_was_begun(&session);
        self.durable_sessions -= usize::from(session.durable);
        let Some(conn) = self.conn_mut(id) else { return };
        conn.acks.clear();
        if let Some(offline) = leaving.offline {
            self.shared.store.insert(*offline);
        }
        // first what it published: its next connection may be on any worker
        for to in 0..self.outgoing.len() {
            self.hand_over(to);
        }
        self.shared.registry.release(&session.client_id, owner);
        self.tell_waiter(id);
        self.reap(id);
    }

    /// Writes the cursors of durable sessions that moved: after a crash they are repeated from there.
    pub(crate) fn checkpoint(&mut self) {
        if self.durable_sessions == 0 {
            return;
        }
        let now = self.now.unix_ms;
        let tails = self.tails().to_vec();
        let mut writes = Vec::new();
        for (_, conn) in &mut self.conns {
            let Conn { phase: Phase::Connected, session: Some(session), about: Some(about), origin, .. } =
                conn
            else {
                continue;
            };
            if session.durable_now() && std::mem::take(&mut session.dirty) {
                let record = session_store::encode(session, about, origin, now, &tails);
                writes.push(Write::put(record::session_key(&session.client_id), record));
            }
        }
        for write in writes {
            self.submit(Op::Put { writes: vec![write] }, Waiting::Nobody("checkpoint"));
        }
    }

    /// What one worker does for all: sessions and wills that are due, the log's unneeded end.
    pub(crate) fn housekeeping(&mut self, ticks: u64) {
        for due in self.shared.store.due(self.now.unix_ms, 10_000) {
            match due {
                Due::Will(client_id, message) => self.publish_owed_will(client_id, &message),
                Due::Expired(offline) => {
                    self.metrics.sessions_expired.inc();
                    self.shared
                        .events
                        .emit(Event::SessionExpired { clientid: Arc::clone(&offline.client_id) });
                    self.remove_session(&offline);
                }
            }
        }
        if ticks.is_multiple_of(10) {
            self.trim_log();
        }
        if ticks.is_multiple_of(60) {
            self.sweep_retained();
        }
    }

    /// Removes a session that nobody is connected for; its client id is held until that is done.
    pub(crate) fn remove_session(&mut self, offline: &Offline) {
        self.forget_routes(offline);
        let client_id = Arc::clone(&offline.client_id);
        self.submit(Op::Put { writes: offline.removal() }, Waiting::Removed(client_id));
    }

    /// Publishes a will. Its Message Expiry Interval begins now (3.1.3.2.4).
    pub(crate) fn publish_will(&mut self, message: &Message) {
        let publish = &message.publish;
        let expires_at = expiry_of(publish, self.now.unix_ms);
        self.distribute(View { publisher: message.publisher, expires_at, publish, plain: None }, None, None);
    }

    /// Publishes a will whose connection is long gone, and forgets it; its client id is held until that is done.
    pub(crate) fn publish_owed_will(&mut self, client_id: Arc<str>, message: &Message) {
        self.publish_will(message);
        let writes = vec![Write::delete(record::will_key(&client_id))];
        self.submit(Op::Put { writes }, Waiting::Removed(client_id));
    }

    /// Tells of dropped messages once for a batch, never once a message.
    pub(crate) fn tell_dropped(&self, client_id: Option<&Arc<str>>, topic: &str, rule: &str, count: u64) {
        self.shared.events.emit(Event::MessageDropped {
            clientid: client_id.cloned(),
            topic: Text::from(topic),
            rule: Text::from(rule),
            count,
        });
    }
}
