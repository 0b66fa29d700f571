//! What one worker has for another: messages that were published here and that clients there subscribe to, gathered for a turn.
//!
//! Plain messages lie one behind the other as they came, so that handing over a thousand of them is one allocation and a copy of their
//! bytes, and the other core frees nothing that this one allocated piece by piece. The others are shared.
//!
//! Must not know: mailboxes, routes, connections.

use std::sync::Arc;

use mqtt::Version;
use mqtt::codec::plain::{Plain, PlainPublish, plain};

use crate::message::{Message, NEVER, View};
use crate::router::SessionKey;

/// Messages for one other worker, in the order in which they were published.
#[derive(Default)]
pub(crate) struct Handover {
    /// The packets of all plain messages.
    bytes: Vec<u8>,
    messages: Vec<Handed>,
}

enum Handed {
    /// The next packet of the bytes.
    Plain {
        publisher: SessionKey,
        version: Version,
    },
    Shared(Arc<Message>),
}

impl Handover {
    /// Adds a plain message.
    pub(crate) fn push_plain(&mut self, publisher: SessionKey, message: &PlainPublish<'_>) {
        self.bytes.extend_from_slice(message.as_bytes());
        // 3.1 and 3.1.1 look alike
        let version = if message.is_v5() { Version::V5 } else { Version::V311 };
        self.messages.push(Handed::Plain { publisher, version });
    }

    /// Adds any message.
    pub(crate) fn push(&mut self, message: Arc<Message>) {
        self.messages.push(Handed::Shared(message));
    }

    /// Messages.
    pub(crate) fn len(&self) -> usize {
        self.messages.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// Bytes of plain messages.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Gives each message in its order.
    pub(crate) fn deliver(&self, mut to: impl FnMut(View<'_>)) {
        let mut rest = &self.bytes[..];
        let mut known = "";
        for handed in &self.messages {
            match handed {
                Handed::Shared(message) => to(message.view()),
                Handed::Plain { publisher, version } => {
                    let Some((Plain::Publish(message), len)) = plain(rest, *version, u32::MAX, known) else {
                        debug_assert!(false, "what was plain there is plain here");
                        return;
                    };
                    (rest, known) = (&rest[len..], message.topic());
                    let publish = message.to_publish();
                    to(View {
                        publisher: *publisher,
                        expires_at: NEVER,
                        publish: &publish,
                        plain: Some(&message),
                    });
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use mqtt::codec::encode::encode;
    use mqtt::packet::{Packet, Publish};
    use mqtt::{PacketId, QoS};
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// [MQTT-4.6.0-6]
        #[test]
        fn messages_come_out_as_they_went_in_and_in_order(
            list in prop::collection::vec((0_u8..3, "[a-c]{1,3}", any::<Vec<u8>>(), any::<bool>(), any::<bool>()), 0..20),
        ) {
            let mut batch = Handover::default();
            let mut expected = Vec::new();
            for (number, (qos, topic, payload, v5, shared)) in (1_u16..).zip(list) {
                let qos = QoS::from_u8(qos).unwrap();
                let packet_id = if qos == QoS::AtMostOnce { None } else { PacketId::new(number) };
                let publish = Publish {
                    dup: false,
                    qos,
                    retain: false,
                    topic: topic.into(),
                    packet_id,
                    properties: Default::default(),
                    payload: payload.into(),
                };
                let version = if v5 { Version::V5 } else { Version::V31 };
                let publisher = SessionKey(number.into());
                if shared {
                    batch.push(View { publisher, expires_at: NEVER, publish: &publish, plain: None }.to_message());
                } else {
                    let mut bytes = Vec::new();
                    encode(&Packet::Publish(publish.clone()), version, &mut bytes).unwrap();
                    let Some((Plain::Publish(plain), _)) = plain(&bytes, version, u32::MAX, "") else { panic!() };
                    batch.push_plain(publisher, &plain);
                }
                expected.push((publisher, qos, publish.topic.to_string(), publish.payload.to_vec()));
            }
            prop_assert_eq!(batch.len(), expected.len());
            let mut got = Vec::new();
            batch.deliver(|view| {
                let p = view.publish;
                got.push((view.publisher, p.qos, p.topic.to_string(), p.payload.to_vec()));
            });
            prop_assert_eq!(got, expected);
        }
    }
}
