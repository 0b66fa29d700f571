//! An application message inside the broker: borrowed on the way through, owned where it waits.
//!
//! Must not know: connections, sessions, sockets.

use std::sync::Arc;

use mqtt::packet::Publish;

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
    /// The view that delivery works with.
    pub(crate) fn view(&self) -> View<'_> {
        View { publisher: self.publisher, expires_at: self.expires_at, publish: &self.publish }
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
        publish.properties.topic_alias = None;
        publish.properties.subscription_identifiers.clear();
        Arc::new(Message { publisher: self.publisher, expires_at: self.expires_at, publish })
    }

    /// How long the message may still wait at `unix_ms`.
    pub(crate) fn left(self, unix_ms: u64) -> Left {
        let Some(interval) = self.publish.properties.message_expiry_interval else { return Left::AsSent };
        if self.expires_at == NEVER {
            return Left::AsSent;
        }
        if unix_ms >= self.expires_at {
            return Left::Expired;
        }
        // rounded up, so that a message that was not held keeps its interval
        let seconds = (self.expires_at - unix_ms).div_ceil(1000).min(u64::from(interval));
        Left::Seconds(u32::try_from(seconds).unwrap_or(interval))
    }
}

/// When a message that arrives now expires.
pub(crate) fn expiry_of(publish: &Publish<'_>, unix_ms: u64) -> u64 {
    publish
        .properties
        .message_expiry_interval
        .map_or(NEVER, |seconds| unix_ms.saturating_add(u64::from(seconds) * 1000))
}

#[cfg(test)]
mod tests {
    use mqtt::QoS;
    use mqtt::packet::PublishProperties;

    use super::*;

    fn publish(interval: Option<u32>) -> Publish<'static> {
        Publish {
            dup: false,
            qos: QoS::AtLeastOnce,
            retain: false,
            topic: "a".into(),
            packet_id: mqtt::PacketId::new(7),
            properties: PublishProperties { message_expiry_interval: interval, ..Default::default() },
            payload: b"x".as_slice().into(),
        }
    }

    /// [MQTT-3.3.2-6]
    #[test]
    fn forwarded_expiry_is_the_interval_less_the_time_waited() {
        let p = publish(Some(10));
        let view = View { publisher: NOBODY, expires_at: expiry_of(&p, 1_000), publish: &p };
        assert_eq!(view.left(1_000), Left::Seconds(10));
        assert_eq!(view.left(4_000), Left::Seconds(7));
        assert_eq!(view.left(10_999), Left::Seconds(1));
        assert_eq!(view.left(11_000), Left::Expired);
    }

    #[test]
    fn a_message_without_interval_never_expires() {
        let p = publish(None);
        let view = View { publisher: NOBODY, expires_at: expiry_of(&p, 1_000), publish: &p };
        assert_eq!(view.left(u64::MAX - 1), Left::AsSent);
    }

    #[test]
    fn an_owned_copy_leaves_the_fields_of_the_hop_behind() {
        let mut p = publish(None);
        p.dup = true;
        p.properties.topic_alias = Some(3);
        p.properties.subscription_identifiers.push(9);
        let m = View { publisher: SessionKey(5), expires_at: NEVER, publish: &p }.to_message();
        assert_eq!(m.publish.packet_id, None);
        assert!(!m.publish.dup);
        assert_eq!(m.publish.properties, PublishProperties::default());
    }
}
