//! The journey of a PUBLISH: judge it, keep it if it is retained, log it if a durable session wants it, hand it to who is
//! here, acknowledge when all of that is done.

use std::borrow::Cow;
use std::num::NonZeroU16;
use std::rc::Rc;
use std::sync::Arc;

use engine::{Op, Write};
use mqtt::codec::plain::PlainPublish;
use mqtt::inflight::{Pubrec, Qos2};
use mqtt::packet::Publish;
use mqtt::{PacketId, QoS, ReasonCode};

use crate::connection::{AckKind, AckRef, ConnId, PendingAck};
use crate::delayed;
use crate::message::{Message, View, expiry_of};
use crate::metrics::Drop;
use crate::refusal::Refusal;
use crate::session::Incoming;
use crate::session_store;
use crate::throttle::Flow;
use crate::worker::{Waiting, Worker};
use crate::{record, worker};

/// What became of a message.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Distributed {
    /// Engine operations that the acknowledgement must wait for.
    pub(crate) waits: u8,
    /// Somebody, here or away, wants it.
    pub(crate) matched: bool,
    /// It could not be taken.
    pub(crate) refused: Option<ReasonCode>,
}

/// Reason, clause, detail.
type Violation = (ReasonCode, &'static str, &'static str);

impl Worker {
    /// The order of the steps: the alias becomes a topic, the topic is rewritten, then it is judged (limits, and who may do it) as
    /// what it has become, then the flow of its QoS begins.
    /// `plain` is the same packet as it was read, if it is that simple.
    pub(crate) fn on_publish(&mut self, id: ConnId, publish: Publish<'_>, plain: Option<&PlainPublish<'_>>) {
        self.metrics.received[publish.qos as usize].inc();
        self.metrics.payload_received.add(publish.payload.len() as u64);
        let Some(conn) = self.conn_mut(id) else { return };
        conn.recv_msg += 1;
        if conn.throttle().is_some() {
            self.charge(id, Flow::Messages, 1);
        }
        let topic;
        let mut plain = plain;
        let mut publish: Publish<'_> = publish;
        if let Some(alias) = publish.properties.topic_alias() {
            publish.properties.edit(|p| p.topic_alias = None);
            topic = match self.topic_of_alias(id, alias, &publish.topic) {
                Ok(topic) => topic,
                Err((reason, clause, detail)) => {
                    self.violation(id, reason, clause, detail);
                    return;
                }
            };
            publish.topic = Cow::Borrowed(&topic);
        }
        if let Some(topic) = self.rewrite_topic(id, &publish.topic) {
            publish.topic = Cow::Owned(topic);
            plain = None;
        }
        if let Err((reason, clause, detail)) = self.judge_capabilities(id, &publish) {
            self.violation(id, reason, clause, detail);
            return;
        }
        let mut refused = self.judge_publish(&publish);
        if refused.is_none() && self.config.access.rules.is_some() && !self.may_publish(id, &publish) {
            refused = Some(Refusal::PublishDenied);
        }
        if let Some(rule) = refused {
            self.refused(id, &publish.topic, rule);
            if self.sends_away(id, rule) {
                return;
            }
        }
        self.take(id, &publish, plain, refused);
    }

    /// What an alias stands for; the packet may say so itself [MQTT-3.3.2-10].
    fn topic_of_alias(&mut self, id: ConnId, alias: u16, topic: &str) -> Result<Rc<str>, Violation> {
        let invalid = |detail| (ReasonCode::TopicAliasInvalid, "MQTT-3.3.2-9", detail);
        let unknown =
            (ReasonCode::ProtocolError, "3.3.2.3.4", "a Topic Alias that has not been given a topic");
        let conn = self.conn_mut(id).ok_or(unknown)?;
        if alias > conn.told.topic_alias_maximum {
            return Err(invalid("a Topic Alias above Topic Alias Maximum"));
        }
        let alias = NonZeroU16::new(alias).ok_or_else(|| invalid("the Topic Alias is 0"))?;
        if !topic.is_empty() {
            conn.extras_mut().aliases_in.get_or_insert_default().learn(alias, topic);
        }
        conn.aliases_in().and_then(|aliases| aliases.topic(alias)).ok_or(unknown)
    }

    /// What CONNACK said is not available here; who was told and sends it all the same broke the specification.
    fn judge_capabilities(&self, id: ConnId, publish: &Publish<'_>) -> Result<(), Violation> {
        let Some(told) = self.conn(id).map(|c| c.told) else { return Ok(()) };
        if publish.qos > told.maximum_qos {
            let detail = "a QoS above Maximum QoS";
            return Err((ReasonCode::QosNotSupported, "MQTT-3.2.2-11", detail));
        }
        if publish.retain && !told.retain {
            let detail = "retained messages are not available";
            return Err((ReasonCode::RetainNotSupported, "MQTT-3.2.2-14", detail));
        }
        Ok(())
    }

    pub(crate) fn judge_publish(&self, publish: &Publish<'_>) -> Option<Refusal> {
        let topic = match delayed::parse(&publish.topic) {
            None => &*publish.topic,
            Some(Ok(later)) if later.due(self.now.unix_ms).is_some() => {
                if self.shared.delayed.len() >= self.config.max_delayed_messages {
                    return Some(Refusal::DelayedQuota);
                }
                later.topic
            }
            Some(_) => return Some(Refusal::DelayedTopic),
        };
        if topic.starts_with("$SYS/") {
            return Some(Refusal::SystemTopic);
        }
        let most = self.config.max_topic_levels;
        // a topic of n bytes has no more than n slashes
        if topic.len() >= most && topic.bytes().filter(|&b| b == b'/').count() >= most {
            return Some(Refusal::TopicLevels);
        }
        let is_right = || is_as_it_says(publish.properties.payload_format_indicator(), &publish.payload);
        (self.config.check_payload_format && !is_right()).then_some(Refusal::PayloadFormat)
    }

    /// The flow of a message that has been judged.
    fn take(
        &mut self,
        id: ConnId,
        publish: &Publish<'_>,
        plain: Option<&PlainPublish<'_>>,
        refused: Option<Refusal>,
    ) {
        let now = self.now.unix_ms;
        let Some(session) = self.conn_mut(id).and_then(|c| c.session.as_mut()) else { return };
        let view = View { publisher: session.key, expires_at: expiry_of(publish, now), publish, plain };
        let Some(packet_id) = publish.packet_id else {
            if refused.is_none() {
                self.distribute(view, None, None);
            }
            return;
        };
        let fresh = match session.inbound.publish(publish.qos, packet_id) {
            Ok(fresh) => fresh,
            Err(exceeded) => {
                self.violation(id, exceeded.reason(), "MQTT-3.3.4-9", "more messages than Receive Maximum");
                return;
            }
        };
        let kind = if publish.qos == QoS::AtLeastOnce { AckKind::Puback } else { AckKind::Pubrec };
        if fresh == Qos2::Duplicate {
            // taken before: only the acknowledgement is repeated [MQTT-4.3.3-10]
            self.acknowledge(id, ack(kind, packet_id, ReasonCode::Success, 0));
            return;
        }
        if let Some(rule) = refused {
            let v5 = self.conn(id).is_some_and(|c| c.version.is_v5());
            let reason = match rule {
                // acknowledged and gone, as Mosquitto and EMQX do: else nothing but the end of the connection could say no
                Refusal::PublishDenied if !v5 => ReasonCode::Success,
                _ => rule.reason(),
            };
            self.acknowledge(id, PendingAck { why: rule.why(), ..ack(kind, packet_id, reason, 0) });
            return;
        }
        if kind == AckKind::Pubrec && session.durable {
            self.store_incoming(id, packet_id, view);
            return;
        }
        let next = self.next_ack(id);
        let done = self.distribute(view, Some(next), None);
        let reason = match done.refused {
            Some(reason) => reason,
            None if !done.matched => ReasonCode::NoMatchingSubscribers,
            None => ReasonCode::Success,
        };
        self.acknowledge(id, ack(kind, packet_id, reason, done.waits));
    }

    /// QoS 2 of a durable session: the message is kept with the session until it is released, so that neither a crash
    /// nor a repetition makes two of it [MQTT-4.3.3-8].
    fn store_incoming(&mut self, id: ConnId, packet_id: PacketId, view: View<'_>) {
        if record::message_bound(view.publish) > self.shared.guarantees.max_frame {
            // what is taken here must fit the log when it is released
            self.acknowledge(id, ack(AckKind::Pubrec, packet_id, ReasonCode::PacketTooLarge, 0));
            return;
        }
        let incoming = Incoming { message: view.to_message(), dedupe: self.shared.new_dedupe() };
        let next = self.next_ack(id);
        let Some(session) = self.conn_mut(id).and_then(|c| c.session.as_mut()) else { return };
        let Some(write) = session_store::incoming_write(&session.client_id, packet_id, &incoming) else {
            self.acknowledge(id, ack(AckKind::Pubrec, packet_id, ReasonCode::PacketTooLarge, 0));
            return;
        };
        session.incoming.insert(packet_id, incoming);
        if !session.durable_now() {
            // it ends with this connection, but what it stored before is released first: the order stays [MQTT-4.6.0-5]
            self.acknowledge(id, ack(AckKind::Pubrec, packet_id, ReasonCode::Success, 0));
            return;
        }
        self.submit(Op::Put { writes: vec![write] }, Waiting::Ack(next));
        self.acknowledge(id, ack(AckKind::Pubrec, packet_id, ReasonCode::Success, 1));
    }

    pub(crate) fn on_pubrel(&mut self, id: ConnId, packet_id: PacketId) {
        let next = self.next_ack(id);
        let Some(session) = self.conn_mut(id).and_then(|c| c.session.as_mut()) else { return };
        let known = session.inbound.release(packet_id);
        let Some(incoming) = session.incoming.remove(packet_id) else {
            let reason = if known { ReasonCode::Success } else { ReasonCode::PacketIdentifierNotFound };
            self.acknowledge(id, ack(AckKind::Pubcomp, packet_id, reason, 0));
            return;
        };
        let done = self.distribute(incoming.message.view(), Some(next), Some(incoming.dedupe));
        let mut pending = ack(AckKind::Pubcomp, packet_id, ReasonCode::Success, done.waits.max(1));
        // the record goes before PUBCOMP: the client may use the packet id again at once
        pending.then_forget = true;
        self.acknowledge(id, pending);
        if done.waits == 0 {
            self.ack_done(next, None);
        }
    }

    /// Removes the record of a released QoS 2 message.
    pub(crate) fn forget_incoming(&mut self, ack: AckRef, packet_id: PacketId) {
        let Some(session) = self.conn(ack.conn).and_then(|c| c.session.as_ref()) else { return };
        let writes = vec![Write::delete(record::incoming_key(&session.client_id, packet_id))];
        self.submit(Op::Put { writes }, Waiting::Ack(ack));
    }

    /// Gives a message to everybody who wants it. `ack` is told of each engine operation that ends; `dedupe` makes a
    /// repeated release harmless.
    pub(crate) fn distribute(
        &mut self,
        view: View<'_>,
        ack: Option<AckRef>,
        dedupe: Option<u128>,
    ) -> Distributed {
        let publish = view.publish;
        if let Some(Ok(later)) = delayed::parse(&publish.topic) {
            return self.delay(view, later, ack);
        }
        let mut done = Distributed::default();
        if publish.retain {
            self.retain(view, ack, &mut done);
            if done.refused.is_some() {
                return done;
            }
        }
        let routes = self.lookup(&publish.topic);
        done.matched = routes.durable || !routes.workers.is_empty();
        if routes.durable && publish.qos > QoS::AtMostOnce {
            if record::message_bound(publish) + record::marks_bound(&routes.marks)
                > self.shared.guarantees.max_frame
            {
                done.refused = Some(ReasonCode::PacketTooLarge);
                return done;
            }
            let shard = record::shard_of(&publish.topic, self.shared.guarantees.shards);
            match self.log.append(shard, view, &routes.marks, ack, dedupe, || self.shared.new_dedupe()) {
                true => {
                    done.waits += u8::from(ack.is_some());
                    self.metrics.log_messages.inc();
                    self.wake_flush();
                }
                false => {
                    done.refused = Some(ReasonCode::ImplementationSpecificError);
                    return done;
                }
            }
        }
        let mut owned = None;
        for part in &routes.workers {
            if part.worker == self.id {
                self.deliver_hits(view, &part.hits, &mut owned);
            } else if part.hits.iter().any(|hit| !hit.is_logged(publish.qos)) {
                self.pass_on(usize::from(part.worker), view, &mut owned);
            }
        }
        if !routes.groups.is_empty() {
            done.matched |= self.share_out(&routes, view, &mut owned);
        }
        done
    }

    /// Gives a message to another worker, for its clients that get it directly.
    pub(crate) fn pass_on(&mut self, to: usize, view: View<'_>, owned: &mut Option<Arc<Message>>) {
        self.outgoing[to].push(view, owned);
        self.handed(to);
    }

    /// Something was added to what another worker gets: much goes at once.
    pub(crate) fn handed(&mut self, to: usize) {
        if self.outgoing[to].is_large() {
            self.hand_over(to);
        }
        self.wake_flush();
    }

    /// Keeps a retained message, or forgets one [MQTT-3.3.1-5], [MQTT-3.3.1-6]. It is submitted before the routes are looked up:
    /// a subscriber whose route is not seen here will see this write behind its barrier.
    fn retain(&mut self, view: View<'_>, ack: Option<AckRef>, done: &mut Distributed) {
        let key = record::retained_key(view.publish.topic.as_bytes());
        let write = if view.publish.payload.is_empty() {
            Write::delete(key)
        } else {
            let mut out = record::begin();
            out.reserve(record::message_bound(view.publish));
            if !record::put_message(view, &mut out) || out.len() > self.shared.guarantees.max_value {
                done.refused = Some(ReasonCode::PacketTooLarge);
                return;
            }
            Write::put(key, out)
        };
        let waiting = match ack {
            Some(ack) => {
                done.waits += 1;
                Waiting::Ack(ack)
            }
            None => Waiting::Nobody("retain"),
        };
        self.submit_now(Op::Put { writes: vec![write] }, waiting);
    }

    pub(crate) fn on_puback(&mut self, id: ConnId, packet_id: PacketId) {
        let Some(session) = self.conn_mut(id).and_then(|c| c.session.as_mut()) else { return };
        // a refused message is over as well: nobody else gets it [MQTT-4.8.2-6]
        if let Some(item) = session.outbound.puback(packet_id) {
            session.dirty = true;
            if session.is_caught_up() {
                // nobody waits for the room
                return;
            }
            session.tell_load();
            self.finished(id, &item);
            self.pump(id);
        }
    }

    pub(crate) fn on_pubrec(&mut self, id: ConnId, packet_id: PacketId, reason: ReasonCode) {
        let Some(conn) = self.conn_mut(id) else { return };
        let version = conn.version;
        let Some(session) = conn.session.as_mut() else { return };
        session.dirty = true;
        match session.outbound.pubrec(packet_id, reason) {
            Pubrec::Release(item) => {
                if let Some(item) = item {
                    self.finished(id, &item);
                }
                self.write(id, |out| {
                    mqtt::codec::encode::pubrel(version, packet_id, ReasonCode::Success, out);
                });
            }
            Pubrec::Ended(item) => {
                self.finished(id, &item);
                self.pump(id);
            }
            Pubrec::Unknown => {
                let reason = if worker::speaks_reasons(version) {
                    ReasonCode::PacketIdentifierNotFound
                } else {
                    ReasonCode::Success
                };
                self.write(id, |out| mqtt::codec::encode::pubrel(version, packet_id, reason, out));
            }
        }
    }

    pub(crate) fn on_pubcomp(&mut self, id: ConnId, packet_id: PacketId) {
        let Some(session) = self.conn_mut(id).and_then(|c| c.session.as_mut()) else { return };
        if session.outbound.pubcomp(packet_id) {
            session.dirty = true;
            if session.is_caught_up() {
                return;
            }
            session.tell_load();
            self.pump(id);
        }
    }

    /// Counts a message that somebody will not get, and remembers to tell.
    pub(crate) fn dropped(&mut self, id: ConnId, topic: &str, rule: Drop) {
        self.metrics.drop_message(rule, 1);
        let Some(session) = self.conn_mut(id).and_then(|c| c.session.as_mut()) else { return };
        session.dropped += 1;
        // the first of a burst is told, then each time their number doubles: a flood of drops is no flood of events
        if session.dropped.is_power_of_two() {
            let (client_id, count) = (Arc::clone(&session.client_id), session.dropped);
            self.tell_dropped(Some(&client_id), topic, rule.name(), count);
        }
    }
}

fn ack(kind: AckKind, packet_id: PacketId, reason: ReasonCode, waits: u8) -> PendingAck {
    PendingAck { kind, packet_id, reason, why: "", waits, then_forget: false }
}

/// Whether a payload that is said to be UTF-8 is (3.3.2.3.2).
pub(crate) fn is_as_it_says(format_indicator: Option<bool>, payload: &[u8]) -> bool {
    format_indicator != Some(true) || std::str::from_utf8(payload).is_ok()
}
