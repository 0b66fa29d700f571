//! MQTT as a small sequential program: what each client must see after each thing that a client does.
//!
//! It knows the specification and nothing of the broker. Where the specification leaves a choice, what is allowed is said here:
//! a delivery may be `optional` (it may come or not) or `loose` (its QoS and identifiers may be of before or after a change).

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use mqtt::filter::matches;
use mqtt::packet::{Connect, Packet, Publish, RetainHandling, Subscribe, SubscriptionOptions, Unsubscribe};
use mqtt::{PacketId, QoS, ReasonCode, Version};

/// How far time may be from a moment before what happens then is certain: the broker looks at its clock once a second.
pub(super) const VAGUE_MS: u64 = 3_000;

/// What the broker under test was told in its configuration.
#[derive(Clone, Copy)]
pub(super) struct Limits {
    pub(super) receive_maximum: usize,
    pub(super) max_inflight: usize,
}

/// A message as its publisher sent it.
pub(super) struct Message {
    publish: Publish<'static>,
    publisher: u64,
    expires_at: Option<u64>,
}

/// A message that a session is to get.
#[derive(Clone)]
struct Delivery {
    message: Rc<Message>,
    qos: QoS,
    retain: bool,
    identifiers: Vec<u32>,
    /// Because of a SUBSCRIBE, not of a PUBLISH.
    retained: bool,
    loose: bool,
    /// Subscriptions have changed since: when it is sent again, they may be those of then or of now.
    aged: bool,
    optional: bool,
}

/// A message that was sent with QoS 1 or 2 and is not finished.
struct Flight {
    id: PacketId,
    delivery: Delivery,
    /// PUBREC came: PUBREL is what would be repeated.
    released: bool,
    /// Sent on this connection.
    sent: bool,
}

struct Incoming {
    /// Handed on when it is released.
    message: Option<Rc<Message>>,
    /// Of a connection before: the quota begins anew with each (4.9).
    carried: bool,
}

#[derive(Default)]
struct Session {
    /// Never used again for another.
    key: u64,
    expiry: u32,
    expires_at: Option<u64>,
    subscriptions: BTreeMap<String, (SubscriptionOptions, u32)>,
    flights: Vec<Flight>,
    pending: Vec<Delivery>,
    /// QoS 2 of the client that it has not released, and the message, if it is handed on only then.
    incoming: BTreeMap<PacketId, Incoming>,
    /// It began with an expiry: what it receives with QoS 2 is handed on at PUBREL (4.3.3, either way is right).
    durable: bool,
    link: Option<usize>,
    will: Option<(u64, Rc<Message>)>,
}

struct Conn {
    client: String,
    version: Version,
    window: usize,
    keep_alive_ms: u64,
    last: u64,
    will: Option<(Rc<Message>, u32)>,
}

/// What a client must be told, in this order; publications come between.
#[derive(Debug, PartialEq)]
enum Answer {
    Connack { present: bool, reason: ReasonCode },
    Puback(PacketId, ReasonCode),
    Pubrec(PacketId, ReasonCode),
    Pubrel(PacketId, ReasonCode),
    Pubcomp(PacketId, ReasonCode),
    Suback(PacketId, Vec<ReasonCode>),
    Unsuback(PacketId, Vec<ReasonCode>),
    Pingresp,
    Disconnect(ReasonCode),
}

#[derive(Default)]
struct Expected {
    answers: VecDeque<Answer>,
    closed: bool,
    /// Whose connection it was: messages may have been on their way before the door was closed.
    client: Option<String>,
}

/// See the module.
pub(super) struct Reference {
    limits: Limits,
    now: u64,
    sessions: BTreeMap<String, Session>,
    retained: BTreeMap<String, Rc<Message>>,
    conns: BTreeMap<usize, Conn>,
    expected: BTreeMap<usize, Expected>,
    next_key: u64,
    pub(super) delivered: u64,
}

type Verdict = Result<(), String>;

impl Reference {
    pub(super) fn new(limits: Limits, now: u64) -> Self {
        Self {
            limits,
            now,
            sessions: BTreeMap::new(),
            retained: BTreeMap::new(),
            conns: BTreeMap::new(),
            expected: BTreeMap::new(),
            next_key: 0,
            delivered: 0,
        }
    }

    // ---- what play asks, to choose what to do ----

    pub(super) fn version(&self, link: usize) -> Version {
        self.conns.get(&link).map_or(Version::V311, |c| c.version)
    }

    pub(super) fn is_connected(&self, link: usize) -> bool {
        self.conns.contains_key(&link)
    }

    /// Sent on this connection and not finished: id, QoS, whether PUBREC was sent.
    pub(super) fn flights(&self, link: usize) -> Vec<(PacketId, QoS, bool)> {
        let session = self.session_of(link);
        session.map_or_else(Vec::new, |s| {
            let sent = s.flights.iter().filter(|f| f.sent);
            sent.map(|f| (f.id, f.delivery.qos, f.released)).collect()
        })
    }

    pub(super) fn unreleased(&self, link: usize) -> Vec<PacketId> {
        self.session_of(link).map_or_else(Vec::new, |s| s.incoming.keys().copied().collect())
    }

    pub(super) fn filters(&self, link: usize) -> Vec<String> {
        self.session_of(link).map_or_else(Vec::new, |s| s.subscriptions.keys().cloned().collect())
    }

    pub(super) fn expiry(&self, link: usize) -> u32 {
        self.session_of(link).map_or(0, |s| s.expiry)
    }

    fn session_of(&self, link: usize) -> Option<&Session> {
        self.sessions.get(&self.conns.get(&link)?.client)
    }

    fn session_mut(&mut self, link: usize) -> Option<&mut Session> {
        self.sessions.get_mut(&self.conns.get(&link)?.client)
    }

    // ---- what clients do ----

    /// A link was opened: only an answer to CONNECT or a closed door can come.
    pub(super) fn opened(&mut self, link: usize) {
        self.expected.insert(link, Expected::default());
    }

    fn answer(&mut self, link: usize, answer: Answer) {
        self.expected.entry(link).or_default().answers.push_back(answer);
    }

    fn will_close(&mut self, link: usize) {
        self.expected.entry(link).or_default().closed = true;
    }

    /// The client may say nothing more: DISCONNECT with this reason, where the version has one, then the door.
    pub(super) fn illegal(&mut self, link: usize, reason: ReasonCode) {
        if self.version(link).is_v5() && self.is_connected(link) {
            self.answer(link, Answer::Disconnect(reason)); // [MQTT-4.13.1-1]
        }
        self.will_close(link);
        self.ended(link, true);
    }

    pub(super) fn connect(&mut self, link: usize, connect: &Connect<'static>, client: &str) {
        // [MQTT-3.1.4-3]: who is here already goes
        let before = self.sessions.get(client).and_then(|s| s.link);
        if let Some(before) = before {
            self.illegal(before, ReasonCode::SessionTakenOver);
        }
        let v5 = connect.version.is_v5();
        let expiry = match (v5, connect.clean_start) {
            (true, _) => connect.properties.session_expiry_interval.unwrap_or(0),
            (false, true) => 0,
            (false, false) => u32::MAX,
        };
        if connect.clean_start
            && let Some(old) = self.sessions.remove(client)
        {
            // [MQTT-3.1.2-4]; the session's end is the end of the will's delay [MQTT-3.1.3-9]
            if let Some((_, will)) = old.will {
                self.distribute(&will);
            }
        }
        let present = self.sessions.contains_key(client);
        if !present {
            self.next_key += 1;
            let session = Session { key: self.next_key, durable: expiry > 0, ..Session::default() };
            self.sessions.insert(client.to_owned(), session);
        }
        let asked = connect.properties.receive_maximum.unwrap_or(u16::MAX);
        let now = self.now;
        let Some(session) = self.sessions.get_mut(client) else { return };
        (session.expiry, session.expires_at, session.link) = (expiry, None, Some(link));
        session.will = None;
        for incoming in session.incoming.values_mut() {
            incoming.carried = true;
        }
        for flight in &mut session.flights {
            flight.sent = false;
        }
        let publisher = session.key;
        let will = connect.will.as_ref().map(|w| {
            let publish = Publish {
                dup: false,
                qos: w.qos,
                retain: w.retain,
                topic: w.topic.clone(),
                packet_id: None,
                properties: w.properties.clone().into(),
                payload: w.payload.clone(),
            };
            (Rc::new(Message { publish, publisher, expires_at: None }), w.delay_interval.unwrap_or(0))
        });
        let conn = Conn {
            client: client.to_owned(),
            version: connect.version,
            window: usize::from(asked).min(self.limits.max_inflight),
            keep_alive_ms: u64::from(connect.keep_alive) * 1_500,
            last: now,
            will,
        };
        self.conns.insert(link, conn);
        // 3.1 has no Session Present
        let present = present && connect.version != Version::V31;
        self.answer(link, Answer::Connack { present, reason: ReasonCode::Success });
    }

    /// A CONNECT that is not taken.
    pub(super) fn refused(&mut self, link: usize, reason: ReasonCode) {
        self.answer(link, Answer::Connack { present: false, reason });
        self.will_close(link);
    }

    /// The client wrote something: its keep alive begins anew.
    pub(super) fn heard(&mut self, link: usize) {
        let now = self.now;
        if let Some(conn) = self.conns.get_mut(&link) {
            conn.last = now;
        }
    }

    pub(super) fn publish(&mut self, link: usize, publish: &Publish<'static>) {
        let v5 = self.version(link).is_v5();
        let now = self.now;
        let limit = if v5 { self.limits.receive_maximum } else { usize::MAX };
        let Some(session) = self.session_mut(link) else { return };
        let expires_at =
            publish.properties.message_expiry_interval().map(|s| now.saturating_add(u64::from(s) * 1_000));
        let message = Rc::new(Message { publish: publish.clone(), publisher: session.key, expires_at });
        let forbidden = publish.topic.starts_with("$SYS/");
        let Some(id) = publish.packet_id else {
            if !forbidden {
                self.distribute(&message);
            }
            return;
        };
        let full = session.incoming.values().filter(|i| !i.carried).count() >= limit;
        if publish.qos == QoS::AtLeastOnce {
            if full {
                self.illegal(link, ReasonCode::ReceiveMaximumExceeded); // [MQTT-3.3.4-9]
                return;
            }
            let reason = if forbidden { ReasonCode::NotAuthorized } else { self.distribute(&message) };
            self.answer(link, Answer::Puback(id, spoken(v5, reason)));
            return;
        }
        if session.incoming.contains_key(&id) {
            // [MQTT-4.3.3-10]
            self.answer(link, Answer::Pubrec(id, ReasonCode::Success));
            return;
        }
        if full {
            self.illegal(link, ReasonCode::ReceiveMaximumExceeded); // [MQTT-3.3.4-9]
            return;
        }
        if forbidden {
            self.answer(link, Answer::Pubrec(id, spoken(v5, ReasonCode::NotAuthorized)));
            if !v5 {
                // before version 5 nothing can be refused: the exchange goes on
                let incoming = Incoming { message: None, carried: false };
                self.session_mut(link).map(|s| s.incoming.insert(id, incoming));
            }
            return;
        }
        let waits = session.durable;
        let kept = waits.then(|| Rc::clone(&message));
        session.incoming.insert(id, Incoming { message: kept, carried: false });
        let reason = if waits { ReasonCode::Success } else { self.distribute(&message) };
        self.answer(link, Answer::Pubrec(id, spoken(v5, reason)));
    }

    pub(super) fn pubrel(&mut self, link: usize, id: PacketId) {
        let v5 = self.version(link).is_v5();
        let Some(session) = self.session_mut(link) else { return };
        let reason = match session.incoming.remove(&id) {
            Some(incoming) => {
                if let Some(message) = incoming.message {
                    self.distribute(&message);
                }
                ReasonCode::Success
            }
            None => ReasonCode::PacketIdentifierNotFound,
        };
        self.answer(link, Answer::Pubcomp(id, spoken(v5, reason)));
    }

    pub(super) fn puback(&mut self, link: usize, id: PacketId) {
        let Some(session) = self.session_mut(link) else { return };
        session.flights.retain(|f| !(f.id == id && f.delivery.qos == QoS::AtLeastOnce));
    }

    pub(super) fn pubrec(&mut self, link: usize, id: PacketId, reason: ReasonCode) {
        let v5 = self.version(link).is_v5();
        let Some(session) = self.session_mut(link) else { return };
        let at = session.flights.iter().position(|f| f.id == id && f.delivery.qos == QoS::ExactlyOnce);
        match at {
            Some(at) if reason.is_error() && v5 => {
                session.flights.remove(at);
            }
            Some(at) => {
                session.flights[at].released = true;
                self.answer(link, Answer::Pubrel(id, ReasonCode::Success));
            }
            None if reason.is_error() => {}
            None => {
                let reason = spoken(v5, ReasonCode::PacketIdentifierNotFound);
                self.answer(link, Answer::Pubrel(id, reason));
            }
        }
    }

    pub(super) fn pubcomp(&mut self, link: usize, id: PacketId) {
        let Some(session) = self.session_mut(link) else { return };
        session.flights.retain(|f| !(f.id == id && f.released));
    }

    pub(super) fn ping(&mut self, link: usize) {
        self.answer(link, Answer::Pingresp); // [MQTT-3.12.4-1]
    }

    pub(super) fn subscribe(&mut self, link: usize, subscribe: &Subscribe<'static>) {
        let v5 = self.version(link).is_v5();
        let now = self.now;
        let retained: Vec<Rc<Message>> = self.retained.values().map(Rc::clone).collect();
        let Some(session) = self.session_mut(link) else { return };
        let mut reasons = Vec::new();
        let mut wanted: Vec<(String, SubscriptionOptions, bool)> = Vec::new();
        for asked in &subscribe.filters {
            let filter = asked.filter.to_string();
            if mqtt::filter::Filter::parse(&filter).is_err() {
                let invalid = ReasonCode::TopicFilterInvalid;
                reasons.push(if v5 { invalid } else { ReasonCode::UnspecifiedError });
                continue;
            }
            reasons.push(match asked.options.qos {
                QoS::AtMostOnce => ReasonCode::Success,
                QoS::AtLeastOnce => ReasonCode::GrantedQos1,
                QoS::ExactlyOnce => ReasonCode::GrantedQos2,
            });
            match wanted.iter_mut().find(|w| w.0 == filter) {
                Some(earlier) => earlier.1 = asked.options,
                None => {
                    let new = !session.subscriptions.contains_key(&filter);
                    wanted.push((filter, asked.options, new));
                }
            }
        }
        let identifier = subscribe.subscription_identifier.unwrap_or(0);
        for (filter, options, new) in &wanted {
            session.subscriptions.insert(filter.clone(), (*options, identifier));
            session.loosen(filter, !new);
        }
        for (filter, options, new) in wanted {
            let sends = match options.retain_handling {
                RetainHandling::Send => true,       // [MQTT-3.3.1-9]
                RetainHandling::SendIfNew => new,   // [MQTT-3.3.1-10]
                RetainHandling::DoNotSend => false, // [MQTT-3.3.1-11]
            };
            if !sends {
                continue;
            }
            for message in &retained {
                if !matches(&filter, &message.publish.topic) || message.is_gone(now) {
                    continue;
                }
                session.pending.push(Delivery {
                    qos: options.qos.min(message.publish.qos),
                    retain: true,
                    identifiers: if identifier == 0 { vec![] } else { vec![identifier] },
                    retained: true,
                    loose: false,
                    aged: false,
                    // whether No Local is about retained messages too is not said
                    optional: options.no_local && message.publisher == session.key,
                    message: Rc::clone(message),
                });
            }
        }
        self.answer(link, Answer::Suback(subscribe.packet_id, reasons));
    }

    pub(super) fn unsubscribe(&mut self, link: usize, unsubscribe: &Unsubscribe<'static>) {
        let v5 = self.version(link).is_v5();
        let Some(session) = self.session_mut(link) else { return };
        let mut reasons = Vec::new();
        for filter in &unsubscribe.filters {
            let known = session.subscriptions.remove(&**filter).is_some();
            if known {
                session.loosen(filter, true);
            }
            reasons.push(if known { ReasonCode::Success } else { ReasonCode::NoSubscriptionExisted });
        }
        // before version 5 UNSUBACK says nothing
        let reasons = if v5 { reasons } else { Vec::new() };
        self.answer(link, Answer::Unsuback(unsubscribe.packet_id, reasons));
    }

    /// DISCONNECT.
    pub(super) fn goodbye(&mut self, link: usize, with_will: bool, expiry: Option<u32>) {
        if let Some(expiry) = expiry {
            let Some(session) = self.session_mut(link) else { return };
            if session.expiry == 0 && expiry > 0 {
                self.illegal(link, ReasonCode::ProtocolError); // 3.14.2.2.2
                return;
            }
            session.expiry = expiry;
        }
        self.will_close(link);
        self.ended(link, with_will);
    }

    /// The connection broke.
    pub(super) fn lost(&mut self, link: usize) {
        self.expected.remove(&link);
        self.ended(link, true);
    }

    fn ended(&mut self, link: usize, with_will: bool) {
        let now = self.now;
        let Some(conn) = self.conns.remove(&link) else { return };
        if let Some(expected) = self.expected.get_mut(&link) {
            expected.client = Some(conn.client.clone());
        }
        let Some(session) = self.sessions.get_mut(&conn.client) else { return };
        session.link = None;
        let will = conn.will.filter(|_| with_will);
        if session.expiry == 0 {
            self.sessions.remove(&conn.client);
            if let Some((will, _)) = will {
                self.distribute(&will); // [MQTT-3.1.2-8]
            }
            return;
        }
        session.expires_at = (session.expiry != u32::MAX).then(|| now + u64::from(session.expiry) * 1_000);
        session.pending.retain(|d| d.qos > QoS::AtMostOnce || d.optional);
        for delivery in session.pending.iter_mut().filter(|d| d.retained) {
            delivery.optional = true;
        }
        match will {
            Some((will, 0)) => {
                self.distribute(&will);
            }
            Some((will, delay)) => {
                let at = now + u64::from(delay.min(session.expiry)) * 1_000;
                session.will = Some((at, will));
            }
            None => {}
        }
    }

    // ---- time ----

    /// Moments at which something happens by itself.
    pub(super) fn moments(&self) -> Vec<u64> {
        let mut moments = Vec::new();
        for session in self.sessions.values() {
            moments.extend(session.expires_at);
            moments.extend(session.will.as_ref().map(|(at, _)| *at));
            moments.extend(session.pending.iter().filter_map(|d| d.message.expires_at));
        }
        moments.extend(self.retained.values().filter_map(|m| m.expires_at));
        for conn in self.conns.values().filter(|c| c.keep_alive_ms > 0) {
            moments.push(conn.last + conn.keep_alive_ms);
        }
        moments
    }

    /// It is so late now; no moment is near.
    pub(super) fn time_is(&mut self, now: u64) {
        loop {
            let silent = self.conns.iter().filter(|(_, c)| c.keep_alive_ms > 0);
            let mut due: Vec<(u64, Due)> =
                silent.map(|(&link, c)| (c.last + c.keep_alive_ms, Due::KeepAlive(link))).collect();
            for (client, session) in &self.sessions {
                due.extend(session.will.as_ref().map(|(at, _)| (*at, Due::Will(client.clone()))));
                due.extend(session.expires_at.map(|at| (at, Due::Expiry(client.clone()))));
            }
            let next = due.into_iter().filter(|(at, _)| *at <= now).min();
            let Some((at, due)) = next else { break };
            self.now = at;
            match due {
                Due::KeepAlive(link) => self.illegal(link, ReasonCode::KeepAliveTimeout), // [MQTT-3.1.2-22]
                Due::Will(client) => {
                    let will = self.sessions.get_mut(&client).and_then(|s| s.will.take());
                    if let Some((_, will)) = will {
                        self.distribute(&will);
                    }
                }
                Due::Expiry(client) => {
                    self.sessions.remove(&client);
                }
            }
        }
        self.now = now;
        self.retained.retain(|_, m| !m.is_gone(now));
    }

    // ---- messages ----

    /// Hands a message to every session that wants it.
    fn distribute(&mut self, message: &Rc<Message>) -> ReasonCode {
        let publish = &message.publish;
        let mut message = Rc::clone(message);
        if message.expires_at.is_none()
            && let Some(seconds) = publish.properties.message_expiry_interval()
        {
            // of a will: it begins when it is published
            let expires_at = Some(self.now.saturating_add(u64::from(seconds) * 1_000));
            let (publish, publisher) = (publish.clone(), message.publisher);
            message = Rc::new(Message { publish, publisher, expires_at });
        }
        let publish = &message.publish;
        if publish.retain {
            // [MQTT-3.3.1-5], [MQTT-3.3.1-6], [MQTT-3.3.1-7]
            if publish.payload.is_empty() {
                self.retained.remove(&*publish.topic);
            } else {
                self.retained.insert(publish.topic.to_string(), Rc::clone(&message));
            }
            for session in self.sessions.values_mut() {
                // one that waits for its turn is not sent any more: the newer one is
                for waiting in session.pending.iter_mut().filter(|d| d.retained) {
                    waiting.optional |= waiting.message.publish.topic == publish.topic;
                }
            }
        }
        let mut matched = false;
        for session in self.sessions.values_mut() {
            let own = session.key == message.publisher;
            let all: Vec<_> =
                session.subscriptions.iter().filter(|(f, _)| matches(f, &publish.topic)).collect();
            let best = all.iter().map(|(_, (o, _))| o.qos).max();
            matched |= best.is_some_and(|q| session.link.is_some() || q > QoS::AtMostOnce);
            // [MQTT-3.8.3-3]
            let wanted: Vec<_> = all.into_iter().filter(|(_, (o, _))| !(own && o.no_local)).collect();
            let granted = wanted.iter().map(|(_, (o, _))| o.qos).max();
            let logged = granted.is_some_and(|q| q > QoS::AtMostOnce);
            if best.is_some() && !logged && publish.qos > QoS::AtMostOnce && session.durable {
                // if the subscription is replaced by one that takes it, while the session is behind, it may come
                session.pending.push(Delivery {
                    message: Rc::clone(&message),
                    qos: QoS::AtMostOnce,
                    retain: false,
                    identifiers: Vec::new(),
                    retained: false,
                    loose: true,
                    aged: true,
                    optional: true,
                });
            }
            let Some(granted) = granted else { continue };
            let qos = granted.min(publish.qos);
            if session.link.is_none() && qos == QoS::AtMostOnce {
                continue;
            }
            let as_published = wanted.iter().any(|(_, (o, _))| o.retain_as_published);
            let mut identifiers: Vec<u32> = wanted.iter().map(|(_, (_, i))| *i).filter(|&i| i != 0).collect();
            identifiers.sort_unstable();
            identifiers.dedup();
            let retain = publish.retain && as_published; // [MQTT-3.3.1-12], [MQTT-3.3.1-13]
            session.pending.push(Delivery {
                message: Rc::clone(&message),
                qos,
                retain,
                identifiers,
                retained: false,
                loose: false,
                aged: false,
                optional: false,
            });
        }
        if matched { ReasonCode::Success } else { ReasonCode::NoMatchingSubscribers }
    }

    // ---- what clients see ----

    /// What a link showed since the last time; `closed`: nothing more will come.
    pub(super) fn saw(&mut self, link: usize, packets: &[Packet<'static>], closed: bool) -> Verdict {
        let mut said_goodbye = false;
        for packet in packets {
            if said_goodbye {
                return Err(format!("{packet:?} after DISCONNECT [MQTT-3.14.4-1]"));
            }
            said_goodbye = matches!(packet, Packet::Disconnect(_));
            match packet {
                Packet::Publish(publish) => self.saw_publish(link, publish)?,
                Packet::Pubrel(ack) if self.repeats_pubrel(link, ack.packet_id) => {}
                other => self.saw_answer(link, other)?,
            }
        }
        let expected = self.expected.entry(link).or_default();
        if let Some(missing) = expected.answers.front() {
            return Err(format!("{missing:?} did not come"));
        }
        match (expected.closed, closed) {
            (true, false) => Err("the connection is still open".into()),
            (false, true) => Err("the connection was closed".into()),
            _ => Ok(()),
        }
    }

    fn saw_answer(&mut self, link: usize, packet: &Packet<'static>) -> Verdict {
        let v5 = self.version(link).is_v5();
        let got = match packet {
            Packet::Connack(c) => Answer::Connack { present: c.session_present, reason: c.reason },
            Packet::Puback(a) => Answer::Puback(a.packet_id, a.reason),
            Packet::Pubrec(a) => Answer::Pubrec(a.packet_id, a.reason),
            Packet::Pubrel(a) => Answer::Pubrel(a.packet_id, a.reason),
            Packet::Pubcomp(a) => Answer::Pubcomp(a.packet_id, a.reason),
            Packet::Suback(s) => Answer::Suback(s.packet_id, s.reasons.clone()),
            Packet::Unsuback(s) => {
                Answer::Unsuback(s.packet_id, if v5 { s.reasons.clone() } else { Vec::new() })
            }
            Packet::Pingresp => Answer::Pingresp,
            Packet::Disconnect(d) => Answer::Disconnect(d.reason),
            other => return Err(format!("{other:?} is nothing that a server sends")),
        };
        let wanted = self.expected.entry(link).or_default().answers.pop_front();
        if wanted.as_ref() == Some(&got) { Ok(()) } else { Err(format!("{got:?} and not {wanted:?}")) }
    }

    /// Whether this PUBREL is the next thing to be repeated for a session that came back [MQTT-4.4.0-1].
    fn repeats_pubrel(&mut self, link: usize, id: PacketId) -> bool {
        let Some(session) = self.session_mut(link) else { return false };
        match session.flights.iter_mut().find(|f| !f.sent) {
            Some(next) if next.id == id && next.released => {
                next.sent = true;
                true
            }
            _ => false,
        }
    }

    fn saw_publish(&mut self, link: usize, got: &Publish<'static>) -> Verdict {
        let (now, v5) = (self.now, self.version(link).is_v5());
        self.delivered += 1;
        let Some(conn) = self.conns.get(&link) else {
            return self.saw_publish_while_closing(link, got);
        };
        let window = conn.window;
        let Some(session) = self.session_mut(link) else { return Err("no session".into()) };
        if let Some(next) = session.flights.iter_mut().find(|f| !f.sent) {
            if got.qos == QoS::AtMostOnce {
                return session.take(got, now, v5).map(|_| ());
            }
            let repeated = got.dup && got.packet_id == Some(next.id) && !next.released;
            if !repeated {
                let id = next.id;
                return Err(format!("{got:?} before {id:?} was repeated [MQTT-4.4.0-1], [MQTT-4.6.0-1]"));
            }
            next.delivery.loose |= next.delivery.aged;
            next.delivery.is(got, now, v5)?;
            next.sent = true;
        } else {
            if got.dup {
                return Err(format!("DUP without need: {got:?} [MQTT-3.3.1-2]"));
            }
            let delivery = session.take(got, now, v5)?;
            if let Some(id) = got.packet_id {
                if session.flights.iter().any(|f| f.id == id) {
                    return Err(format!("{id:?} is in use [MQTT-2.2.1-4]"));
                }
                session.flights.push(Flight { id, delivery, released: false, sent: true });
            }
        }
        let under_way = session.flights.iter().filter(|f| f.sent).count();
        if under_way > window {
            return Err(format!("{under_way} messages under way and not {window} [MQTT-3.3.4-9]"));
        }
        Ok(())
    }

    /// On the way before the door was closed.
    fn saw_publish_while_closing(&mut self, link: usize, got: &Publish<'static>) -> Verdict {
        let now = self.now;
        let client = self.expected.get(&link).and_then(|e| e.client.clone());
        let Some(client) = client else { return Err(format!("{got:?} for nobody")) };
        if let Some(session) = self.sessions.get_mut(&client)
            && let Some(id) = got.packet_id
            && !got.dup
        {
            // as of a version before 5, whose properties are not looked at
            let delivery = session.take(got, now, false)?;
            session.flights.push(Flight { id, delivery, released: false, sent: false });
        }
        Ok(())
    }

    /// Whether somebody still waits for what could have come.
    pub(super) fn check_rest(&mut self) -> Verdict {
        let now = self.now;
        for (client, session) in &mut self.sessions {
            let Some(conn) = session.link.and_then(|l| self.conns.get(&l)) else { continue };
            let under_way = session.flights.iter().filter(|f| f.sent).count();
            let room = under_way < conn.window;
            if room && session.flights.iter().any(|f| !f.sent) {
                return Err(format!("{client}: what was under way is not sent again [MQTT-4.4.0-1]"));
            }
            let must = session.pending.iter().find(|d| {
                let live_0 = d.qos == QoS::AtMostOnce && !d.retained;
                d.is_required(now) && (room || live_0)
            });
            if let Some(missing) = must {
                let publish = &missing.message.publish;
                return Err(format!("{client} did not get {publish:?}"));
            }
            if room {
                // whatever could come has come
                session.pending.clear();
            }
        }
        Ok(())
    }
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Due {
    KeepAlive(usize),
    Will(String),
    Expiry(String),
}

/// What of a reason a version can say.
fn spoken(v5: bool, reason: ReasonCode) -> ReasonCode {
    if v5 { reason } else { ReasonCode::Success }
}

impl Message {
    fn is_gone(&self, now: u64) -> bool {
        self.expires_at.is_some_and(|at| at <= now)
    }
}

impl Session {
    /// A subscription was made, replaced or ended; if it is not new, what waits may be of before or after (3.10.4).
    fn loosen(&mut self, filter: &str, known: bool) {
        let flights = self.flights.iter_mut().map(|f| &mut f.delivery);
        for delivery in self.pending.iter_mut().chain(flights) {
            if matches(filter, &delivery.message.publish.topic) {
                delivery.aged = true;
                delivery.loose |= known && !delivery.retained;
                // the search is given up or begins anew
                delivery.optional |= known && delivery.retained;
            }
        }
    }

    /// Takes what `got` is out of what waits.
    fn take(&mut self, got: &Publish<'static>, now: u64, v5: bool) -> Result<Delivery, String> {
        let same =
            |d: &Delivery| d.message.publish.payload == got.payload && d.message.publish.topic == got.topic;
        let exact = |d: &Delivery| same(d) && d.is(got, now, v5).is_ok();
        let must = self.pending.iter().position(|d| d.is_required(now) && exact(d));
        let exact = must.or_else(|| self.pending.iter().position(exact));
        let Some(at) = exact else {
            let near = self.pending.iter().find(|d| same(d));
            let why = match near {
                Some(near) => near.is(got, now, v5).err().unwrap_or_default(),
                None => "nobody sent it to this client".into(),
            };
            return Err(format!("{got:?}: {why}"));
        };
        let may: usize = self.pending.iter().filter(|d| same(d) && !d.is_required(now)).count();
        let mut taken = if may > 1 && !self.pending[at].is_required(now) {
            // which of them it was nobody can tell
            self.pending[at].clone()
        } else {
            self.pending.remove(at)
        };
        (taken.qos, taken.retain) = (got.qos, got.retain);
        let key = |d: &Delivery| {
            (d.message.publisher, d.message.publish.topic.clone(), d.message.publish.qos, d.qos)
        };
        let late = self.pending.iter().take(at).find(|d| {
            !taken.retained && !d.retained && d.is_required(now) && !taken.loose && key(d) == key(&taken)
        });
        match late {
            Some(late) => {
                let late = &late.message.publish;
                Err(format!("{got:?} came before {late:?} [MQTT-4.6.0-6]"))
            }
            None => Ok(taken),
        }
    }
}

impl Delivery {
    /// It must come as soon as there is room.
    fn is_required(&self, now: u64) -> bool {
        let expires = self.message.expires_at.is_some_and(|at| at <= now + VAGUE_MS);
        !self.optional && !self.loose && !expires
    }

    /// Whether a packet is this delivery.
    fn is(&self, got: &Publish<'static>, now: u64, v5: bool) -> Verdict {
        let sent = &self.message.publish;
        let differs = |what: &str| Err(format!("its {what} is not that of {sent:?}"));
        if sent.topic != got.topic || sent.payload != got.payload {
            return differs("topic or payload");
        }
        if got.retain != self.retain && !self.loose {
            return differs("RETAIN flag");
        }
        let qos = if self.loose { got.qos <= sent.qos } else { got.qos == self.qos };
        if !qos {
            return differs("QoS");
        }
        if !v5 {
            return Ok(());
        }
        let (s, g) = (sent.properties.read(), got.properties.read());
        let mut identifiers = g.subscription_identifiers.to_vec();
        identifiers.sort_unstable();
        identifiers.dedup();
        if identifiers != self.identifiers && !self.loose {
            return differs("list of Subscription Identifiers [MQTT-3.3.4-4]");
        }
        // [MQTT-3.3.2-4], [MQTT-3.3.2-15], [MQTT-3.3.2-16], [MQTT-3.3.2-17], [MQTT-3.3.2-18], [MQTT-3.3.2-20]
        if s.user_properties != g.user_properties
            || s.content_type != g.content_type
            || s.response_topic != g.response_topic
            || s.correlation_data != g.correlation_data
            || s.payload_format_indicator != g.payload_format_indicator
        {
            return differs("set of properties");
        }
        let left = self.message.expires_at.map(|at| at.saturating_sub(now) / 1_000);
        match (left, g.message_expiry_interval) {
            (None, None) => Ok(()),
            // [MQTT-3.3.2-6]; it may have come while time went by
            (Some(left), Some(got))
                if left <= u64::from(got) + 1 && Some(got) <= s.message_expiry_interval =>
            {
                Ok(())
            }
            _ => differs("Message Expiry Interval"),
        }
    }
}
