//! What one worker has for another: messages that were published here and that clients there subscribe to, and what groups of
//! shared subscriptions have for each other, gathered for a turn or for as much as one read.
//!
//! Plain messages lie one behind the other as they came, so that handing over a thousand of them is one allocation and a copy of their
//! bytes, and the other core frees nothing that this one allocated piece by piece. The others are shared. All of it is charged
//! to the sender's account while it is [under way](crate::under_way).
//!
//! Must not know: mailboxes, routes, connections.

use std::sync::Arc;

use mqtt::Version;
use mqtt::codec::plain::{Plain, plain};

use crate::message::{Message, View};
use crate::router::SessionKey;
use crate::share::ShareMail;
use crate::under_way::{Charge, UnderWay};

/// Bytes of a packet above which its message is shared and not copied: it may go to many workers.
const COPIED: usize = 5 * 1024;
/// Bytes that are handed over at once: as much as one read, so that they cost the other worker one turn.
pub(crate) const HANDOVER_BYTES: usize = 64 * 1024;
/// What a message costs the worker that takes it at least, in bytes.
pub(crate) const MESSAGE_COST: usize = 256;

/// What one other worker gets: messages in the order in which they were published, and the mail of groups.
#[derive(Default)]
pub(crate) struct Handover {
    /// The packets of all plain messages.
    bytes: Vec<u8>,
    messages: Vec<Handed>,
    /// What groups have, in its order.
    mails: Vec<ShareMail>,
    /// Bytes of shared messages and of the mail of groups.
    shared: usize,
    charge: Charge,
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

    /// Adds what a group has.
    pub(crate) fn push_mail(&mut self, mail: ShareMail) {
        self.shared += mail.weight();
        self.mails.push(mail);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.messages.is_empty() && self.mails.is_empty()
    }

    /// Bytes of what is in it.
    pub(crate) fn weight(&self) -> usize {
        self.bytes.len() + size_of_val(&*self.messages) + self.shared
    }

    /// Bytes that it asks of a turn of the worker that takes it.
    pub(crate) fn work(&self) -> usize {
        self.weight().max((self.messages.len() + self.mails.len()) * MESSAGE_COST)
    }

    /// Whether it is to be handed over before the turn ends.
    pub(crate) fn is_large(&self) -> bool {
        self.weight() >= HANDOVER_BYTES
    }

    /// It is sent: its bytes, with the room that they have for more, are under way until it is dropped.
    pub(crate) fn depart(&mut self, account: &Arc<UnderWay>) {
        let room = self.bytes.capacity() + self.messages.capacity() * size_of::<Handed>();
        self.charge = Charge::new(room + self.shared, account);
    }

    /// What groups have, in its order; it goes before the messages.
    pub(crate) fn take_mails(&mut self) -> Vec<ShareMail> {
        std::mem::take(&mut self.mails)
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
            let account = Arc::new(UnderWay::default());
            batch.depart(&account);
            let under_way = account.bytes();
            prop_assert!(under_way >= batch.weight(), "{under_way} are {}", batch.weight());
            let mut got = Vec::new();
            let unreadable = batch.deliver(|view| {
                let p = view.publish;
                let Publish { topic, properties, payload, .. } = p.clone().into_owned();
                got.push((view.publisher, view.expires_at, p.qos, topic.to_string(), properties, payload.to_vec()));
            });
            prop_assert_eq!((got, unreadable), (expected, 0));
            drop(batch);
            prop_assert_eq!(account.bytes(), 0);
        }
    }
}
