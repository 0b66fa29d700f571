//! An application message inside the broker: borrowed on the way through, owned where it waits.
//!
//! Must not know: connections, sessions, sockets.

use std::borrow::Cow;
use std::sync::Arc;

use mqtt::codec::plain::PlainPublish;
use mqtt::packet::{Properties, Publish, PublishProperties, Text};

use crate::router::SessionKey;

/// `expires_at` of a message that never expires.
pub(crate) const NEVER: u64 = u64::MAX;

/// Publisher of messages of the broker itself.
pub(crate) const NOBODY: SessionKey = SessionKey(0);

/// A message that waits somewhere: in a queue, in a mailbox, in the retained store.
#[derive(Debug)]
pub(crate) struct Message {
    /// Who published it: No Local needs it.
    pub(crate) publisher: SessionKey,
    /// Unix milliseconds after which nobody gets it any more [MQTT-3.3.2-5]; [`NEVER`].
    pub(crate) expires_at: u64,
    /// Without packet id, alias and subscription identifiers: those belong to one hop.
    pub(crate) publish: Publish<'static>,
}

impl Message {
    /// Bytes that it brought with it: topic, payload and properties.
    pub(crate) fn weight(&self) -> usize {
        let publish = &self.publish;
        publish.topic.len() + publish.payload.len() + properties_weight(publish)
    }

    /// The view that delivery works with.
    pub(crate) fn view(&self) -> View<'_> {
        View { publisher: self.publisher, expires_at: self.expires_at, publish: &self.publish, plain: None }
    }
}

/// A message on its way, wherever its bytes live.
#[derive(Clone, Copy)]
pub(crate) struct View<'a> {
    /// See [`Message::publisher`].
    pub(crate) publisher: SessionKey,
    /// See [`Message::expires_at`].
    pub(crate) expires_at: u64,
    /// The packet as it came; hop fields (packet id, dup, alias, identifiers) are not looked at.
    pub(crate) publish: &'a Publish<'a>,
    /// The same message as it lies in the buffer, while it does and is a plain one: then nothing is encoded.
    pub(crate) plain: Option<&'a PlainPublish<'a>>,
}

/// What is left of a message's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Left {
    /// It never expires, or its interval goes on unchanged.
    AsSent,
    /// Seconds to forward as Message Expiry Interval [MQTT-3.3.2-6].
    Seconds(u32),
    /// Too late [MQTT-3.3.2-5].
    Expired,
}

impl View<'_> {
    /// An owned copy for whoever must wait.
    pub(crate) fn to_message(self) -> Arc<Message> {
        let mut publish = self.publish.clone().into_owned();
        publish.packet_id = None;
        publish.dup = false;
        // a section that is still whole has neither
        if publish.properties.as_bytes().is_none() {
            publish.properties.edit(|p| {
                p.topic_alias = None;
                p.subscription_identifiers.clear();
            });
        }
        Arc::new(Message { publisher: self.publisher, expires_at: self.expires_at, publish })
    }

    /// How long the message may still wait at `unix_ms`.
    pub(crate) fn left(self, unix_ms: u64) -> Left {
        if self.expires_at == NEVER {
            return Left::AsSent;
        }
        let Some(interval) = self.publish.properties.message_expiry_interval() else { return Left::AsSent };
        if unix_ms >= self.expires_at {
            return Left::Expired;
        }
        // rounded up, so that a message that was not held keeps its interval
        let seconds = (self.expires_at - unix_ms).div_ceil(1000).min(u64::from(interval));
        Left::Seconds(u32::try_from(seconds).unwrap_or(interval))
    }
}

/// Owned messages that nobody needs any more, to be filled again: a subscriber that is always a little behind would else cost
/// three allocations for each message. Bounded in number and in the bytes that each keeps.
#[derive(Default)]
pub(crate) struct Spare {
    messages: Vec<Arc<Message>>,
    /// The fewest that lay here since the last ebb: nobody needed so many.
    idle: usize,
}

/// Messages kept.
const SPARE_MESSAGES: usize = 1_024;
/// Bytes of a topic, and of a payload, that one may keep.
const SPARE_BYTES: usize = 1_024;
/// Bytes that a topic and a payload in used memory may have beyond need: about what the other fields of a message take.
const ROOM: usize = 128;

impl Spare {
    /// An owned copy of a message, in used memory if there is some.
    pub(crate) fn take(&mut self, view: View<'_>) -> Arc<Message> {
        if view.publish.properties.as_bytes().is_some()
            && let Some(mut spare) = self.messages.pop()
            && let Some(message) = Arc::get_mut(&mut spare)
        {
            self.idle = self.idle.min(self.messages.len());
            message.fill(view);
            message.trim();
            return spare;
        }
        view.to_message()
    }

    /// Keeps the memory of a message that was sent, unless somebody else still has it.
    pub(crate) fn give_back(&mut self, mut message: Arc<Message>) {
        if self.messages.len() >= SPARE_MESSAGES {
            return;
        }
        let fit = Arc::get_mut(&mut message).is_some_and(|m| {
            // a peer's properties are as large as a packet, and of no use to the next message
            m.publish.properties = Properties::default();
            match (&m.publish.topic, &m.publish.payload) {
                (Cow::Owned(topic), Cow::Owned(payload)) => {
                    topic.capacity() <= SPARE_BYTES && payload.capacity() <= SPARE_BYTES
                }
                _ => false,
            }
        });
        if fit {
            self.messages.push(message);
        }
    }

    /// Gives the allocator half of those that nobody needed since the last call, the longest unused first.
    pub(crate) fn ebb(&mut self) {
        self.messages.drain(..self.idle.div_ceil(2));
        self.idle = self.messages.len();
    }
}

impl Message {
    /// Gives back memory that is far more than it weighs: queues are bounded by weight.
    fn trim(&mut self) {
        if let Cow::Owned(topic) = &mut self.publish.topic {
            topic.shrink_to(ROOM.max(2 * topic.len()));
        }
        if let Cow::Owned(payload) = &mut self.publish.payload {
            payload.shrink_to(ROOM.max(2 * payload.len()));
        }
    }

    /// Becomes a copy of a message whose properties have not been taken apart, in the memory it has.
    fn fill(&mut self, view: View<'_>) {
        let from = view.publish;
        (self.publisher, self.expires_at) = (view.publisher, view.expires_at);
        let to = &mut self.publish;
        (to.qos, to.retain, to.dup, to.packet_id) = (from.qos, from.retain, false, None);
        to.properties = from.properties.clone().into_owned();
        match &mut to.topic {
            Cow::Owned(topic) => {
                topic.clear();
                topic.push_str(&from.topic);
            }
            borrowed => *borrowed = Cow::Owned(from.topic.to_string()),
        }
        match &mut to.payload {
            Cow::Owned(payload) => {
                payload.clear();
                payload.extend_from_slice(&from.payload);
            }
            borrowed => *borrowed = Cow::Owned(from.payload.to_vec()),
        }
    }
}

fn properties_weight(publish: &Publish<'_>) -> usize {
    if let Some(section) = publish.properties.as_bytes() {
        return section.len();
    }
    let p = publish.properties.read();
    let text = |text: &Option<Text<'_>>| text.as_ref().map_or(0, |text| text.len());
    let user: usize =
        p.user_properties.iter().map(|(name, value)| name.len() + value.len() + USER_PROPERTY).sum();
    let correlation = p.correlation_data.as_ref().map_or(0, |data| data.len());
    size_of::<PublishProperties<'_>>() + text(&p.response_topic) + text(&p.content_type) + correlation + user
}

/// What a user property takes beside its bytes.
const USER_PROPERTY: usize = size_of::<(Text<'_>, Text<'_>)>();

/// When a message that arrives now expires.
pub(crate) fn expiry_of(publish: &Publish<'_>, unix_ms: u64) -> u64 {
    publish
        .properties
        .message_expiry_interval()
        .map_or(NEVER, |seconds| unix_ms.saturating_add(u64::from(seconds) * 1000))
}

#[cfg(test)]
mod tests {
    use mqtt::codec::encode::encode;
    use mqtt::codec::plain::{Plain, plain};
    use mqtt::packet::Packet;
    use mqtt::{QoS, Version};

    use super::*;

    fn publish(interval: Option<u32>) -> Publish<'static> {
        Publish {
            dup: false,
            qos: QoS::AtLeastOnce,
            retain: false,
            topic: "a".into(),
            packet_id: mqtt::PacketId::new(7),
            properties: PublishProperties { message_expiry_interval: interval, ..Default::default() }.into(),
            payload: b"x".as_slice().into(),
        }
    }

    /// [MQTT-3.3.2-6]
    #[test]
    fn forwarded_expiry_is_the_interval_less_the_time_waited() {
        let p = publish(Some(10));
        let view = View { publisher: NOBODY, expires_at: expiry_of(&p, 1_000), publish: &p, plain: None };
        assert_eq!(view.left(1_000), Left::Seconds(10));
        assert_eq!(view.left(4_000), Left::Seconds(7));
        assert_eq!(view.left(10_999), Left::Seconds(1));
        assert_eq!(view.left(11_000), Left::Expired);
    }

    #[test]
    fn a_message_without_interval_never_expires() {
        let p = publish(None);
        let view = View { publisher: NOBODY, expires_at: expiry_of(&p, 1_000), publish: &p, plain: None };
        assert_eq!(view.left(u64::MAX - 1), Left::AsSent);
    }

    /// What is filled again is the same as what is made anew, whatever it was before.
    #[test]
    fn a_message_in_used_memory_is_as_a_new_one() {
        let mut spare = Spare::default();
        let first = Publish {
            properties: PublishProperties { topic_alias: Some(3), ..Default::default() }.into(),
            ..publish(Some(5))
        };
        let second = Publish {
            topic: "b/c".into(),
            qos: QoS::ExactlyOnce,
            retain: true,
            payload: b"".as_slice().into(),
            ..publish(None)
        };
        spare.give_back(
            View { publisher: SessionKey(1), expires_at: 7, publish: &first, plain: None }.to_message(),
        );
        let view = View { publisher: SessionKey(2), expires_at: NEVER, publish: &second, plain: None };
        let (again, anew) = (spare.take(view), view.to_message());
        assert!(spare.messages.is_empty());
        assert_eq!((again.publisher, again.expires_at), (anew.publisher, anew.expires_at));
        assert_eq!(again.publish, anew.publish);
    }

    /// Queues are bounded by what their messages weigh.
    #[test]
    fn a_small_message_does_not_keep_the_memory_of_a_large_one() {
        let mut spare = Spare::default();
        let large = Publish {
            topic: "t".repeat(SPARE_BYTES).into(),
            payload: vec![0; SPARE_BYTES].into(),
            ..publish(None)
        };
        for (len, most) in [(1, ROOM), (100, 2 * 100), (SPARE_BYTES, SPARE_BYTES)] {
            let view = View { publisher: NOBODY, expires_at: NEVER, publish: &large, plain: None };
            spare.give_back(view.to_message());
            let small = Publish { payload: vec![1; len].into(), ..publish(None) };
            let message = spare.take(View { publish: &small, ..view });
            assert!(spare.messages.is_empty());
            assert_eq!(message.publish, small_copy(&small));
            let (Cow::Owned(topic), Cow::Owned(payload)) = (&message.publish.topic, &message.publish.payload)
            else {
                panic!("borrowed")
            };
            assert!(topic.capacity() <= ROOM && payload.capacity() <= most.max(ROOM), "{len}");
        }
    }

    fn small_copy(publish: &Publish<'_>) -> Publish<'static> {
        Publish { packet_id: None, ..publish.clone().into_owned() }
    }

    #[test]
    fn what_others_have_and_what_is_large_is_not_kept() {
        let mut spare = Spare::default();
        let owned = |p: &Publish<'_>| {
            View { publisher: NOBODY, expires_at: NEVER, publish: p, plain: None }.to_message()
        };
        let message = owned(&publish(None));
        let other = Arc::clone(&message);
        spare.give_back(message);
        assert!(spare.messages.is_empty());
        spare.give_back(owned(&Publish { payload: vec![0; SPARE_BYTES + 1].into(), ..publish(None) }));
        assert!(spare.messages.is_empty());
        spare.give_back(other);
        assert_eq!(spare.messages.len(), 1);
        let user_properties = vec![("k".into(), "v".repeat(60_000).into())];
        let rich = Publish {
            properties: PublishProperties { user_properties, ..Default::default() }.into(),
            ..publish(None)
        };
        let message = owned(&rich);
        assert!(message.weight() > 60_000);
        spare.give_back(message);
        assert!(spare.messages.iter().all(|m| m.publish.properties.is_none() && m.weight() < 10));
        for _ in 0..2 * SPARE_MESSAGES {
            spare.give_back(owned(&publish(None)));
        }
        assert_eq!(spare.messages.len(), SPARE_MESSAGES);
    }

    #[test]
    fn spare_messages_that_nobody_needs_go_back() {
        let mut spare = Spare::default();
        let needed = publish(None);
        let view = View { publisher: NOBODY, expires_at: NEVER, publish: &needed, plain: None };
        for _ in 0..SPARE_MESSAGES {
            spare.give_back(view.to_message());
        }
        for _ in 0..16 {
            spare.ebb();
            let taken = spare.take(view);
            spare.give_back(taken);
        }
        assert!((1..=2).contains(&spare.messages.len()), "{} stay", spare.messages.len());
        spare.ebb();
        spare.ebb();
        spare.ebb();
        assert!(spare.messages.is_empty());
    }

    /// Two user properties as they came: they count with all their bytes while the message waits, in used memory as in new, and
    /// do not stay with the memory. Each message has its own.
    #[test]
    fn a_section_counts_and_goes_with_its_message() {
        let pair = |byte: &str| ("k".into(), byte.repeat(120).into());
        let properties =
            PublishProperties { user_properties: vec![pair("v"), pair("w")], ..Default::default() };
        let rich = Publish { properties: properties.into(), ..publish(None) };
        let mut packet = Vec::new();
        encode(&Packet::Publish(rich.clone()), Version::V5, &mut packet).unwrap();
        let Some((Plain::Publish(plain), len)) = plain(&packet, Version::V5, u32::MAX, "") else {
            panic!("it is forwarded as it is")
        };
        assert_eq!(len, packet.len());
        let publish = plain.to_publish();
        assert_eq!(publish, rich);
        let section = publish.properties.as_bytes().unwrap().to_vec();
        assert_eq!(section.len(), 2 * 126);
        let mut spare = Spare::default();
        for _ in 0..3 {
            let view = View { publisher: NOBODY, expires_at: NEVER, publish: &publish, plain: Some(&plain) };
            let message = spare.take(view);
            assert_eq!(message.publish.properties.as_bytes(), Some(&section[..]));
            assert_eq!(message.weight(), 1 + 1 + 2 * 126);
            spare.give_back(message);
            assert!(spare.messages.iter().all(|m| m.publish.properties.is_none() && m.weight() == 2));
        }
        assert_eq!(spare.messages.len(), 1);
    }

    #[test]
    fn an_owned_copy_leaves_the_fields_of_the_hop_behind() {
        let mut p = publish(None);
        p.dup = true;
        p.properties.edit(|p| {
            p.topic_alias = Some(3);
            p.subscription_identifiers.push(9);
        });
        let m = View { publisher: SessionKey(5), expires_at: NEVER, publish: &p, plain: None }.to_message();
        assert_eq!(m.publish.packet_id, None);
        assert!(!m.publish.dup);
        assert_eq!(m.publish.properties, Properties::default());
    }
}
