//! What one worker has for another: messages that were published here and that clients there subscribe to, gathered for a turn.
//!
//! Plain messages lie one behind the other as they came, so that handing over a thousand of them is one allocation and a copy of their
//! bytes, and the other core frees nothing that this one allocated piece by piece. The others are shared.
//!
//! Must not know: mailboxes, routes, connections.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use mqtt::Version;
use mqtt::codec::plain::{Plain, plain};

use crate::message::{Message, View};
use crate::router::SessionKey;

/// Bytes of a packet above which its message is shared and not copied: it may go to many workers.
const COPIED: usize = 5 * 1024;

/// Messages for one other worker, in the order in which they were published.
#[derive(Default)]
pub(crate) struct Handover {
    /// The packets of all plain messages.
    bytes: Vec<u8>,
    messages: Vec<Handed>,
    /// Bytes of shared messages.
    shared: usize,
    /// Where its bytes are counted until it is gone, and how many are.
    account: Option<Arc<AtomicUsize>>,
    charged: usize,
}

enum Handed {
    /// The next packet of the bytes.
    Plain {
        publisher: SessionKey,
        expires_at: u64,
        version: Version,
    },
    Shared(Arc<Message>),
}

impl Handover {
    /// Adds a message; `owned` is a copy of it, made where there is none yet and one is needed.
    pub(crate) fn push(&mut self, view: View<'_>, owned: &mut Option<Arc<Message>>) {
        match view.plain {
            Some(plain) if plain.as_bytes().len() <= COPIED => {
                self.bytes.extend_from_slice(plain.as_bytes());
                // 3.1 and 3.1.1 look alike
                let version = if plain.is_v5() { Version::V5 } else { Version::V311 };
                let View { publisher, expires_at, .. } = view;
                self.messages.push(Handed::Plain { publisher, expires_at, version });
            }
            _ => {
                let message = owned.get_or_insert_with(|| view.to_message());
                self.shared += message.weight();
                self.messages.push(Handed::Shared(Arc::clone(message)));
            }
        }
    }

    /// Messages.
    pub(crate) fn len(&self) -> usize {
        self.messages.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// Bytes of its messages.
    pub(crate) fn weight(&self) -> usize {
        self.bytes.len() + self.shared
    }

    /// Counts its bytes in `account` until it is dropped: they are under way.
    pub(crate) fn charge(&mut self, account: &Arc<AtomicUsize>) {
        account.fetch_add(self.weight() - self.charged, Ordering::Relaxed);
        self.charged = self.weight();
        self.account.get_or_insert_with(|| Arc::clone(account));
    }

    /// Gives each message in its order; how many could not be read, which is a mistake of ours.
    pub(crate) fn deliver(&self, mut to: impl FnMut(View<'_>)) -> usize {
        let mut rest = &self.bytes[..];
        let mut known = "";
        for (at, handed) in self.messages.iter().enumerate() {
            match handed {
                Handed::Shared(message) => to(message.view()),
                Handed::Plain { publisher, expires_at, version } => {
                    let Some((Plain::Publish(message), len)) = plain(rest, *version, u32::MAX, known) else {
                        return self.messages.len() - at;
                    };
                    (rest, known) = (&rest[len..], message.topic());
                    let publish = message.to_publish();
                    to(View {
                        publisher: *publisher,
                        expires_at: *expires_at,
                        publish: &publish,
                        plain: Some(&message),
                    });
                }
            }
        }
        0
    }
}

impl Drop for Handover {
    fn drop(&mut self) {
        if let Some(account) = &self.account {
            account.fetch_sub(self.charged, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use mqtt::codec::encode::encode;
    use mqtt::packet::{Packet, Publish, PublishProperties};
    use mqtt::{PacketId, QoS};
    use proptest::prelude::*;

    use super::*;
    use crate::message::expiry_of;

    proptest! {
        /// [MQTT-4.6.0-6]
        #[test]
        fn messages_come_out_as_they_went_in_and_in_order(
            list in prop::collection::vec(
                (0_u8..3, "[a-c]{1,3}", any::<Vec<u8>>(), any::<bool>(), any::<bool>(), prop::option::of(any::<u32>())),
                0..20,
            ),
        ) {
            let mut batch = Handover::default();
            let mut expected = Vec::new();
            for (number, (qos, topic, payload, v5, shared, interval)) in (1_u16..).zip(list) {
                let qos = QoS::from_u8(qos).unwrap();
                let packet_id = if qos == QoS::AtMostOnce { None } else { PacketId::new(number) };
                let publish = Publish {
                    dup: false,
                    qos,
                    retain: false,
                    topic: topic.into(),
                    packet_id,
                    properties: PublishProperties {
                        message_expiry_interval: interval.filter(|_| v5),
                        content_type: v5.then(|| "c".into()),
                        ..Default::default()
                    }
                    .into(),
                    payload: payload.into(),
                };
                let version = if v5 { Version::V5 } else { Version::V31 };
                let publisher = SessionKey(number.into());
                let view = View { publisher, expires_at: expiry_of(&publish, 1_000), publish: &publish, plain: None };
                if shared {
                    batch.push(view, &mut None);
                } else {
                    let mut bytes = Vec::new();
                    encode(&Packet::Publish(publish.clone()), version, &mut bytes).unwrap();
                    let Some((Plain::Publish(plain), _)) = plain(&bytes, version, u32::MAX, "") else { panic!() };
                    batch.push(View { plain: Some(&plain), ..view }, &mut None);
                }
                let Publish { topic, properties, payload, .. } = publish.clone();
                expected.push((publisher, view.expires_at, qos, topic.to_string(), properties, payload.to_vec()));
            }
            prop_assert_eq!(batch.len(), expected.len());
            let account = Arc::new(AtomicUsize::new(0));
            batch.charge(&account);
            batch.charge(&account);
            prop_assert_eq!(account.load(Ordering::Relaxed), batch.weight());
            let mut got = Vec::new();
            let unreadable = batch.deliver(|view| {
                let p = view.publish;
                let Publish { topic, properties, payload, .. } = p.clone().into_owned();
                got.push((view.publisher, view.expires_at, p.qos, topic.to_string(), properties, payload.to_vec()));
            });
            prop_assert_eq!((got, unreadable), (expected, 0));
            drop(batch);
            prop_assert_eq!(account.load(Ordering::Relaxed), 0);
        }
    }
}
