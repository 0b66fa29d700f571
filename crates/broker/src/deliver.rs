//! From a matched message to bytes in a client's buffer: which QoS, which flags, encoded once for all who get the same.

use std::borrow::Cow;
use std::sync::Arc;

use mqtt::codec::encode::{EncodeError, PublishTemplate, publish as encode_publish};
use mqtt::codec::plain::{Bare, Hop, PlainPublish};
use mqtt::packet::PublishProperties;
use mqtt::{PacketId, QoS, Version};
use smallvec::SmallVec;

use crate::connection::ConnId;
use crate::message::{Left, Message, View};
use crate::metrics::Drop;
use crate::queue::Waiting;
use crate::router::{Hit, Own, SessionKey};
use crate::session::{Found, InFlight};
use crate::system_topics::is_system;
use crate::topic_alias::Choice;
use crate::worker::Worker;

/// How one receiver gets a message.
pub(crate) struct Form<'a> {
    pub(crate) qos: QoS,
    pub(crate) retain: bool,
    pub(crate) identifiers: &'a [u32],
}

impl<'a> Form<'a> {
    /// The packet of this receiver, sent now for the first time.
    pub(crate) const fn hop(&self, version: Version, left: Left, packet_id: Option<PacketId>) -> Hop<'a> {
        let expiry = match left {
            Left::Seconds(seconds) => Some(seconds),
            Left::AsSent | Left::Expired => None,
        };
        let Self { qos, retain, identifiers } = *self;
        Hop { version, qos, dup: false, retain, packet_id, identifiers, expiry }
    }
}

impl Hit {
    /// The QoS, Retain As Published and identifiers for a message of `publisher`; `None`: No Local [MQTT-3.8.3-3].
    pub(crate) fn form(&self, publisher: SessionKey) -> Option<(QoS, bool, &[u32])> {
        if publisher != self.session {
            return Some((self.qos, self.retain_as_published, &self.identifiers));
        }
        match &self.own {
            Own::Same => Some((self.qos, self.retain_as_published, &self.identifiers)),
            Own::Never => None,
            Own::Reduced(own) => Some((own.0, own.1, &own.2)),
        }
    }

    /// Whether this receiver gets a message of that QoS from the log and not directly.
    pub(crate) fn is_logged(&self, qos: QoS) -> bool {
        self.durable && self.qos.min(qos) > QoS::AtMostOnce
    }
}

/// Encodings of the message that is being delivered, one for each layout; empty between messages.
#[derive(Default)]
pub(crate) struct Templates(Vec<(Layout, PublishTemplate)>);

#[derive(PartialEq, Eq)]
struct Layout {
    v5: bool,
    qos: QoS,
    retain: bool,
    identifiers: SmallVec<[u32; 1]>,
}

impl Worker {
    /// Delivers a message that was published elsewhere to the clients here that get it directly.
    pub(crate) fn deliver_direct(&mut self, view: View<'_>) {
        let routes = self.lookup(&view.publish.topic);
        let mut owned = None;
        if let Some(part) = routes.workers.iter().find(|p| p.worker == self.id) {
            self.deliver_hits(view, &part.hits, &mut owned);
        }
    }

    /// Delivers to receivers of this worker, except those that get it from the log.
    pub(crate) fn deliver_hits(&mut self, view: View<'_>, hits: &[Hit], owned: &mut Option<Arc<Message>>) {
        let left = view.left(self.now.unix_ms);
        self.templates.0.clear();
        let many = hits.len() > 1;
        for hit in hits {
            let Some((qos, rap, identifiers)) = hit.form(view.publisher) else { continue };
            let qos = qos.min(view.publish.qos);
            if hit.durable && qos > QoS::AtMostOnce {
                continue;
            }
            let form = Form { qos, retain: rap && view.publish.retain, identifiers };
            if let Some(plain) = view.plain
                && left != Left::Expired
                && self.give_copy(hit, plain, left, &form)
            {
                continue;
            }
            let Some(id) = self.receiver_conn(hit) else { continue };
            self.give(id, view, left, &form, owned, many);
        }
    }

    /// The connection behind a hit, unless the session has gone since the route was looked up.
    pub(crate) fn receiver_conn(&self, hit: &Hit) -> Option<ConnId> {
        let conn = self.conns.get(hit.slot as usize)?;
        let session = conn.session.as_ref()?;
        (session.key == hit.session && conn.is_connected() && !conn.closing)
            .then_some(ConnId { slot: hit.slot, generation: conn.generation })
    }

    /// Copies a message that is as simple as it came to a receiver that takes it now and wants nothing special. `false`: it is not
    /// so, and nothing has been done.
    fn give_copy(&mut self, hit: &Hit, plain: &PlainPublish<'_>, left: Left, form: &Form<'_>) -> bool {
        let most = self.config.max_outbound_bytes;
        let Some(conn) = self.conns.get_mut(hit.slot as usize) else { return false };
        let mut hop = form.hop(conn.version, left, None);
        let Some(len) = plain.len_as(&hop) else { return false };
        let takes_it = conn.is_connected() && conn.unsent() < most && len <= conn.max_packet as usize;
        if !takes_it || conn.has_aliases_out() {
            return false;
        }
        let Some(session) = conn.session.as_mut().filter(|s| s.key == hit.session) else { return false };
        if form.qos > QoS::AtMostOnce {
            if session.is_queueing() || conn.closing || !conn.socket_open {
                return false;
            }
            hop.packet_id = session.outbound.begin(form.qos, InFlight::Transient);
            if hop.packet_id.is_none() {
                return false;
            }
            session.dirty = true;
        }
        let Some(out) = conn.outbox(&mut self.buffers, len) else { return false };
        plain.write(&hop, out);
        conn.send_msg += 1;
        self.metrics.packets_sent.inc();
        self.metrics.sent[form.qos as usize].inc();
        self.metrics.payload_sent.add(plain.payload().len() as u64);
        if !std::mem::replace(&mut conn.dirty, true) {
            self.dirty.push(hit.slot);
            self.wake_flush();
        }
        true
    }

    /// Gives a message to a session that ends with its connection, or at QoS 0 to any.
    fn give(
        &mut self,
        id: ConnId,
        view: View<'_>,
        left: Left,
        form: &Form<'_>,
        owned: &mut Option<Arc<Message>>,
        many: bool,
    ) {
        let max_outbound = self.config.max_outbound_bytes;
        let Some(conn) = self.conn_mut(id) else { return };
        let full = conn.unsent() >= max_outbound;
        let Some(session) = conn.session.as_mut() else { return };
        if form.qos == QoS::AtMostOnce {
            if full {
                self.dropped(id, &view.publish.topic, Drop::OutboundFull);
            } else {
                self.put(id, view, left, form, None, many);
            }
            return;
        }
        if full || session.is_queueing() || session.outbound.quota() == 0 {
            conn.stalled |= full;
            let message = match owned {
                Some(message) => Arc::clone(message),
                None => Arc::clone(owned.insert(self.spare_messages.take(view))),
            };
            let waiting = Waiting {
                message,
                qos: form.qos,
                retain: form.retain,
                identifiers: SmallVec::from_slice(form.identifiers),
                group: None,
            };
            self.enqueue_message(id, waiting);
            return;
        }
        self.put_inflight(id, view, left, form, InFlight::Transient, many);
    }

    /// Puts a message into a client's queue; what has no room there is dropped, counted and told. Whether it is not this one.
    pub(crate) fn enqueue_message(&mut self, id: ConnId, waiting: Waiting) -> bool {
        let bound = self.config.queue_bound();
        let message = Arc::clone(&waiting.message);
        let priority = self.config.limits.priority_of(&message.publish.topic);
        let Some(session) = self.conn_mut(id).and_then(|c| c.session.as_mut()) else { return false };
        let shared = waiting.group.is_some();
        let pushed = session.backlog().queue.push(waiting, priority, bound);
        for dropped in &pushed.dropped {
            self.dropped(id, &dropped.publish.topic, Drop::QueueFull);
        }
        // what was dealt may find another member: whoever dealt it counts it, if not
        if !pushed.taken && !shared {
            self.dropped(id, &message.publish.topic, Drop::QueueFull);
        }
        pushed.taken
    }

    /// Assigns a packet id and writes; the caller has seen that there is quota.
    pub(crate) fn put_inflight(
        &mut self,
        id: ConnId,
        view: View<'_>,
        left: Left,
        form: &Form<'_>,
        item: InFlight,
        many: bool,
    ) {
        if left == Left::Expired {
            self.dropped(id, &view.publish.topic, Drop::Expired);
            return;
        }
        let Some(session) = self.conn_mut(id).and_then(|c| c.session.as_mut()) else { return };
        let Some(packet_id) = session.outbound.begin(form.qos, item) else { return };
        session.dirty = true;
        if !self.put(id, view, left, form, Some(packet_id), many) {
            // it can never be sent to this client: the flow is over before it began [MQTT-3.1.2-25]
            self.abandon(id, packet_id, form.qos);
        }
    }

    /// Ends the flow of a packet that will not be sent (again).
    pub(crate) fn abandon(&mut self, id: ConnId, packet_id: PacketId, qos: QoS) {
        let Some(session) = self.conn_mut(id).and_then(|c| c.session.as_mut()) else { return };
        if qos == QoS::AtLeastOnce {
            session.outbound.puback(packet_id);
        } else {
            session.outbound.pubrec(packet_id, mqtt::ReasonCode::UnspecifiedError);
        }
    }

    /// Writes a PUBLISH; `false`: the client does not take a packet that large, or the message has expired.
    fn put(
        &mut self,
        id: ConnId,
        view: View<'_>,
        left: Left,
        form: &Form<'_>,
        packet_id: Option<PacketId>,
        many: bool,
    ) -> bool {
        if left == Left::Expired {
            self.dropped(id, &view.publish.topic, Drop::Expired);
            return false;
        }
        let written = self.put_uncounted(id, view, left, form, packet_id, many);
        self.account(id, view, form.qos, written)
    }

    /// The same for a message that another receiver gets when this one does not take it: only what is written is counted.
    pub(crate) fn put_quietly(
        &mut self,
        id: ConnId,
        view: View<'_>,
        left: Left,
        form: &Form<'_>,
        packet_id: Option<PacketId>,
    ) -> bool {
        let written = self.put_uncounted(id, view, left, form, packet_id, false);
        written && self.account(id, view, form.qos, true)
    }

    fn put_uncounted(
        &mut self,
        id: ConnId,
        view: View<'_>,
        left: Left,
        form: &Form<'_>,
        packet_id: Option<PacketId>,
        many: bool,
    ) -> bool {
        let Some(conn) = self.conn_mut(id) else { return false };
        let (version, max) = (conn.version, conn.max_packet as usize);
        let choice = conn.aliases_out_mut().and_then(|aliases| aliases.choose(&view.publish.topic));
        let hop = form.hop(version, left, packet_id);
        if let Some(choice) = choice {
            self.put_aliased(id, view, left, form, packet_id, many, choice)
        } else if let Some(bare) = Bare::of(view.publish, version) {
            self.put_bare(id, max, &bare, &hop)
        } else if many {
            let mut templates = std::mem::take(&mut self.templates);
            let written = match templates.of(version, view, left, form) {
                Some(template) if template.len() <= max => {
                    self.write_sized(id, template.len(), |out| template.write(packet_id, out));
                    true
                }
                _ => false,
            };
            self.templates = templates;
            written
        } else {
            self.put_single(id, max, view, &hop)
        }
    }

    /// Writes a PUBLISH that need not be encoded.
    fn put_bare(&mut self, id: ConnId, max: usize, bare: &Bare<'_>, hop: &Hop<'_>) -> bool {
        let Some(len) = bare.len_as(hop).filter(|&len| len <= max) else { return false };
        self.write_sized(id, len, |out| bare.write(hop, out));
        true
    }

    /// Writes a PUBLISH with a Topic Alias; all but the topic is shared with the other receivers.
    #[allow(clippy::too_many_arguments)] // the fields of one packet
    fn put_aliased(
        &mut self,
        id: ConnId,
        view: View<'_>,
        left: Left,
        form: &Form<'_>,
        packet_id: Option<PacketId>,
        many: bool,
        choice: Choice,
    ) -> bool {
        let Some((version, max)) = self.conn(id).map(|c| (c.version, c.max_packet as usize)) else {
            return false;
        };
        let mut templates = if many { std::mem::take(&mut self.templates) } else { Templates::default() };
        let written = match templates.of(version, view, left, form) {
            Some(template) if template.aliased_len(choice.alias) <= max => {
                self.write(id, |out| template.write_aliased(packet_id, choice.alias, out));
                if let Some(aliases) = self.conn_mut(id).and_then(|c| c.aliases_out_mut()) {
                    aliases.told(choice, &view.publish.topic);
                }
                true
            }
            // without the three bytes of an alias that is new it fits
            Some(template) if template.len() <= max => {
                self.write(id, |out| template.write(packet_id, out));
                true
            }
            _ => false,
        };
        if many {
            self.templates = templates;
        }
        written
    }

    fn account(&mut self, id: ConnId, view: View<'_>, qos: QoS, written: bool) -> bool {
        if written {
            self.metrics.sent[qos as usize].inc();
            self.metrics.payload_sent.add(view.publish.payload.len() as u64);
            if let Some(conn) = self.conn_mut(id) {
                conn.send_msg += 1;
            }
        } else {
            // [MQTT-3.1.2-25]
            self.dropped(id, &view.publish.topic, Drop::TooLarge);
        }
        written
    }

    /// Encodes a PUBLISH for one receiver only.
    fn put_single(&mut self, id: ConnId, max: usize, view: View<'_>, hop: &Hop<'_>) -> bool {
        let mut written = false;
        self.write(id, |out| {
            let start = out.len();
            let (p, properties) = (view.publish, properties(view, hop));
            let Hop { version, qos, dup, retain, packet_id, .. } = *hop;
            let encoded =
                encode_publish(version, qos, dup, retain, packet_id, &p.topic, &properties, &p.payload, out);
            written = encoded.is_ok() && out.len() - start <= max;
            if !written {
                out.truncate(start);
            }
        });
        written
    }

    /// Sends a message again on a new connection, with DUP and its old packet id [MQTT-3.3.1-1], [MQTT-4.4.0-1].
    pub(crate) fn put_again(
        &mut self,
        id: ConnId,
        view: View<'_>,
        form: &Form<'_>,
        packet_id: PacketId,
    ) -> bool {
        let left = match view.left(self.now.unix_ms) {
            // it was sent in time; what began is finished
            Left::Expired => Left::Seconds(1),
            left => left,
        };
        let Some(conn) = self.conn(id) else { return false };
        let (version, max) = (conn.version, conn.max_packet as usize);
        let hop = Hop { dup: true, ..form.hop(version, left, Some(packet_id)) };
        let written = match Bare::of(view.publish, version) {
            Some(bare) => self.put_bare(id, max, &bare, &hop),
            None => self.put_single(id, max, view, &hop),
        };
        self.account(id, view, form.qos, written)
    }

    /// Sends what waits for a client that has room again: retained messages, then its queue, then the log.
    pub(crate) fn pump(&mut self, id: ConnId) {
        let max_outbound = self.config.max_outbound_bytes;
        loop {
            let Some(conn) = self.conn_mut(id).filter(|c| c.is_connected()) else { return };
            if conn.unsent() >= max_outbound {
                conn.stalled = true;
                return;
            }
            let Some(session) = conn.session.as_mut() else { return };
            if session.resuming.is_some() {
                self.resend(id);
                return;
            }
            let room = session.outbound.quota() > 0;
            let Some(backlog) = session.backlog.as_mut() else { break };
            if let Some(next) = backlog.retained.front() {
                if next.qos > QoS::AtMostOnce && !room {
                    return;
                }
                if let Some(next) = backlog.retained.pop_front() {
                    self.put_retained(id, &next);
                }
                continue;
            }
            if !backlog.searches.is_empty() {
                if !self.search_retained(id) {
                    self.search_on(id);
                    return;
                }
                continue;
            }
            if !room {
                return;
            }
            let Some(next) = backlog.queue.pop() else {
                session.settle_backlog();
                break;
            };
            if let Some(group) = &next.group {
                self.put_waiting(id, group, &next);
                continue;
            }
            let view = next.message.view();
            let left = view.left(self.now.unix_ms);
            let form = Form { qos: next.qos, retain: next.retain, identifiers: &next.identifiers };
            self.put_inflight(id, view, left, &form, InFlight::Transient, false);
            self.spare_messages.give_back(next.message);
        }
        self.say_room(id);
        self.catch_up_all(id);
    }

    /// Sends a retained message that waited, unless it has been replaced since: then the client got the newer one live.
    fn put_retained(&mut self, id: ConnId, next: &Found) {
        let Some(message) = next.kept.message() else { return };
        let topic = &message.publish.topic;
        let current = {
            let retained = self.shared.retained.read().unwrap_or_else(std::sync::PoisonError::into_inner);
            retained.changes() == next.change
                || retained.get(topic.as_bytes()).is_some_and(|kept| kept.is(&next.kept))
        };
        // what the broker tells of itself is made anew all the time
        if !current && !is_system(topic) {
            return;
        }
        let view = message.view();
        let left = view.left(self.now.unix_ms);
        if left == Left::Expired {
            return;
        }
        let form = next.form();
        if next.qos == QoS::AtMostOnce {
            self.put(id, view, left, &form, None, false);
            return;
        }
        let durable = self.conn(id).and_then(|c| c.session.as_ref()).is_some_and(|s| s.durable);
        let item = if durable { InFlight::Kept(Box::new(next.clone())) } else { InFlight::Transient };
        self.put_inflight(id, view, left, &form, item, false);
    }
}

impl Templates {
    fn of(
        &mut self,
        version: Version,
        view: View<'_>,
        left: Left,
        form: &Form<'_>,
    ) -> Option<&PublishTemplate> {
        let v5 = version.is_v5();
        // identifiers exist in version 5 only
        let identifiers = if v5 { form.identifiers } else { &[] };
        let at = self.0.iter().position(|(l, _)| {
            l.v5 == v5 && l.qos == form.qos && l.retain == form.retain && *l.identifiers == *identifiers
        });
        let at = match at {
            Some(at) => at,
            None => {
                let hop = Hop { identifiers, ..form.hop(version, left, None) };
                let template = match Bare::of(view.publish, version) {
                    Some(bare) => PublishTemplate::copied(&bare, &hop),
                    None => encode_template(view, &hop),
                };
                let template = template.ok()?;
                let layout = Layout {
                    v5,
                    qos: form.qos,
                    retain: form.retain,
                    identifiers: SmallVec::from_slice(identifiers),
                };
                self.0.push((layout, template));
                self.0.len() - 1
            }
        };
        self.0.get(at).map(|(_, template)| template)
    }
}

fn encode_template(view: View<'_>, hop: &Hop<'_>) -> Result<PublishTemplate, EncodeError> {
    let (p, properties) = (view.publish, properties(view, hop));
    let Hop { version, qos, dup, retain, .. } = *hop;
    PublishTemplate::new(version, qos, dup, retain, &p.topic, &properties, &p.payload)
}

/// The properties a receiver gets: as they were sent, but for the identifiers of its subscriptions [MQTT-3.3.4-3], the time that
/// is left [MQTT-3.3.2-6], and no alias of another hop.
fn properties<'a>(view: View<'a>, hop: &Hop<'_>) -> Cow<'a, PublishProperties<'a>> {
    let mut properties = view.publish.properties.read();
    let p = &*properties;
    let expiry = hop.expiry.or(p.message_expiry_interval);
    let as_sent = *p.subscription_identifiers == *hop.identifiers
        && expiry == p.message_expiry_interval
        && p.topic_alias.is_none();
    if hop.version.is_v5() && !as_sent {
        let p = properties.to_mut();
        p.message_expiry_interval = expiry;
        p.topic_alias = None;
        p.subscription_identifiers = SmallVec::from_slice(hop.identifiers);
    }
    properties
}
