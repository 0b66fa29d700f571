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
use mqtt::codec::plain::{Plain, PlainPublish, plain};
use mqtt::codec::run::Run;

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
    /// Messages beyond the first of each run.
    followers: usize,
    charge: Charge,
}

enum Handed {
    /// The next packet of the bytes.
    Plain {
        publisher: SessionKey,
        expires_at: u64,
        version: Version,
    },
    /// The next packets of the bytes, which are a run.
    Run {
        publisher: SessionKey,
        version: Version,
        len: u32,
        count: u32,
    },
    Shared(Arc<Message>),
}

/// What one worker gives another.
pub(crate) enum Given<'a> {
    One(View<'a>),
    Run(SessionKey, Run<'a>),
}

impl Handover {
    /// Adds a message; `owned` is a copy of it, made where there is none yet and one is needed.
    pub(crate) fn push(&mut self, view: View<'_>, owned: &mut Option<Arc<Message>>) {
        match view.plain {
            Some(plain) if plain.as_bytes().len() <= COPIED => {
                self.bytes.extend_from_slice(plain.as_bytes());
                let version = version_of(plain);
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

    /// Whether messages that came together can be added as they are: large ones are better shared, one by one.
    pub(crate) const fn takes(run: &Run<'_>) -> bool {
        run.as_bytes().len() <= HANDOVER_BYTES && run.largest() <= COPIED
    }

    /// Adds messages that came together, which it [takes](Self::takes).
    pub(crate) fn push_run(&mut self, publisher: SessionKey, run: &Run<'_>) {
        let bytes = run.as_bytes();
        self.bytes.extend_from_slice(bytes);
        self.followers += run.count() - 1;
        let (len, count) = (bytes.len() as u32, run.count() as u32);
        self.messages.push(Handed::Run { publisher, version: version_of(run.first()), len, count });
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
        self.weight().max((self.messages.len() + self.followers + self.mails.len()) * MESSAGE_COST)
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
    pub(crate) fn deliver(&self, mut to: impl FnMut(Given<'_>)) -> usize {
        let mut rest = &self.bytes[..];
        let mut known = "";
        let mut read = |version, len: Option<u32>| {
            let within = len.map_or(rest, |len| rest.get(..len as usize).unwrap_or_default());
            let (Plain::Publish(first), first_len) = plain(within, version, u32::MAX, known)? else {
                return None;
            };
            known = first.topic();
            rest = rest.get(len.map_or(first_len, |len| len as usize)..)?;
            Some((first, within))
        };
        let mut unreadable = 0;
        for handed in &self.messages {
            match handed {
                Handed::Shared(message) => to(Given::One(message.view())),
                // behind what cannot be read nothing else can be
                _ if unreadable > 0 => unreadable += handed.count(),
                Handed::Plain { publisher, expires_at, version } => match read(*version, None) {
                    Some((message, _)) => {
                        let publish = message.to_publish();
                        let (publisher, expires_at) = (*publisher, *expires_at);
                        let view = View { publisher, expires_at, publish: &publish, plain: Some(&message) };
                        to(Given::One(view));
                    }
                    None => unreadable += 1,
                },
                Handed::Run { publisher, version, len, count } => {
                    let run =
                        read(*version, Some(*len)).and_then(|(first, within)| first.run(within, u32::MAX));
                    match run.filter(|run| run.count() == *count as usize) {
                        Some(run) => to(Given::Run(*publisher, run)),
                        None => unreadable += handed.count(),
                    }
                }
            }
        }
        unreadable
    }
}

impl Handed {
    const fn count(&self) -> usize {
        match self {
            Self::Run { count, .. } => *count as usize,
            Self::Plain { .. } | Self::Shared(_) => 1,
        }
    }
}

/// 3.1 and 3.1.1 look alike.
const fn version_of(plain: &PlainPublish<'_>) -> Version {
    if plain.is_v5() { Version::V5 } else { Version::V311 }
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
            let unreadable = batch.deliver(|given| {
                let Given::One(view) = given else { panic!("no run was handed over") };
                let p = view.publish;
                let Publish { topic, properties, payload, .. } = p.clone().into_owned();
                got.push((view.publisher, view.expires_at, p.qos, topic.to_string(), properties, payload.to_vec()));
            });
            prop_assert_eq!((got, unreadable), (expected, 0));
            drop(batch);
            prop_assert_eq!(account.bytes(), 0);
        }
    }

    fn packets(count: usize, topic: &str, from: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        for number in from..from + count {
            let publish = Publish {
                dup: false,
                qos: QoS::AtMostOnce,
                retain: false,
                topic: topic.into(),
                packet_id: None,
                properties: PublishProperties::default().into(),
                payload: number.to_string().into_bytes().into(),
            };
            encode(&Packet::Publish(publish), Version::V5, &mut bytes).unwrap();
        }
        bytes
    }

    proptest! {
        /// [MQTT-4.6.0-6]. Runs of different publishers are never taken for one, though their packets lie behind each other.
        #[test]
        fn runs_come_out_as_they_went_in(list in prop::collection::vec((1_usize..5, 0_u64..2), 1..10)) {
            let mut batch = Handover::default();
            let mut expected = Vec::new();
            let mut next = 0;
            for (count, publisher) in list {
                let bytes = packets(count, "t", next);
                let Some((Plain::Publish(first), _)) = plain(&bytes, Version::V5, u32::MAX, "") else { panic!() };
                let publisher = SessionKey(publisher);
                match first.run(&bytes, u32::MAX) {
                    Some(run) => {
                        prop_assert!(Handover::takes(&run));
                        batch.push_run(publisher, &run);
                    }
                    None => {
                        let publish = first.to_publish();
                        let view = View { publisher, expires_at: 7, publish: &publish, plain: Some(&first) };
                        batch.push(view, &mut None);
                    }
                }
                expected.push((publisher, (next..next + count).map(|n| n.to_string().into_bytes()).collect()));
                next += count;
            }
            prop_assert!(batch.work() >= next * MESSAGE_COST);
            let mut got: Vec<(SessionKey, Vec<Vec<u8>>)> = Vec::new();
            let unreadable = batch.deliver(|given| got.push(match given {
                Given::One(view) => (view.publisher, vec![view.publish.payload.to_vec()]),
                Given::Run(publisher, run) => (publisher, run.packets().map(|p| p.to_publish().payload.to_vec()).collect()),
            }));
            prop_assert_eq!((got, unreadable), (expected, 0));
        }
    }

    #[test]
    fn large_messages_are_shared_also_when_they_come_together() {
        let bytes = [packets(1, &"t".repeat(COPIED), 1), packets(1, &"t".repeat(COPIED), 2)].concat();
        let Some((Plain::Publish(first), _)) = plain(&bytes, Version::V5, u32::MAX, "") else { panic!() };
        assert!(!Handover::takes(&first.run(&bytes, u32::MAX).unwrap()));
    }
}
