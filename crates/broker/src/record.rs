//! How messages and sessions are laid out as bytes: in frames of the log and in records of the register.
//!
//! Every record begins with a version byte, so that a newer program can read what an older one wrote. Reading never
//! panics: damaged bytes give `None`, which the caller reports as a corrupt record.

use mqtt::codec::decode::{Role, decode};
use mqtt::codec::plain::{Bare, Hop, Plain, plain};
use mqtt::codec::{Decoded, encode};
use mqtt::packet::{Packet, Publish, RetainHandling, SubscriptionOptions};
use mqtt::{PacketId, QoS, Version, topic};

use engine::{Key, Pos, Shard};

use crate::message::{NEVER, View};
use crate::router::{GroupId, SessionKey};

const VERSION: u8 = 1;
/// In the length of a message's packet: marks follow it.
const MARKED: u32 = 1 << 31;
/// Where that length lies in a message: behind the publisher and the expiry.
const LEN_AT: usize = 16;
const MARK_BYTES: usize = 8;

/// `default/s/<client id>/...`: everything of one session.
pub(crate) fn session_prefix() -> Key {
    Key::of("s", &[]).below()
}

pub(crate) fn session_key(client_id: &str) -> Key {
    Key::of("s", &[client_id.as_bytes(), b"rec"])
}

pub(crate) fn session_below(client_id: &str) -> Key {
    Key::of("s", &[client_id.as_bytes()]).below()
}

pub(crate) fn subscription_key(client_id: &str, filter: &str) -> Key {
    Key::of("s", &[client_id.as_bytes(), b"sub", filter.as_bytes()])
}

pub(crate) fn incoming_key(client_id: &str, id: PacketId) -> Key {
    Key::of("s", &[client_id.as_bytes(), b"in", &id.get().to_be_bytes()])
}

/// `default/g/<$share/name/filter>`: how far a group of a shared subscription has read the log.
pub(crate) fn group_key(name: &str) -> Key {
    Key::of("g", &[name.as_bytes()])
}

pub(crate) fn group_prefix() -> Key {
    Key::of("g", &[]).below()
}

pub(crate) fn will_key(client_id: &str) -> Key {
    Key::of("w", &[client_id.as_bytes()])
}

pub(crate) fn will_prefix() -> Key {
    Key::of("w", &[]).below()
}

pub(crate) fn retained_key(topic: &[u8]) -> Key {
    Key::of("r", &[topic])
}

pub(crate) fn retained_prefix() -> Key {
    Key::of("r", &[]).below()
}

/// `default/d/<due, number>`: a message that is published later.
pub(crate) fn delayed_key(due_unix_ms: u64, number: u64) -> Key {
    let id = (u128::from(due_unix_ms) << 64) | u128::from(number);
    Key::of("d", &[&id.to_be_bytes()])
}

pub(crate) fn delayed_prefix() -> Key {
    Key::of("d", &[]).below()
}

/// What a [`delayed_key`] was made of.
pub(crate) fn delayed_of(key: &Key) -> Option<(u64, u64)> {
    let id = u128::from_be_bytes(key.last_part().try_into().ok()?);
    Some(((id >> 64) as u64, id as u64))
}

/// The shard of a topic. The hash is part of the data's format and never changes.
pub(crate) fn shard_of(topic: &str, shards: u16) -> Shard {
    let hash = xxhash_rust::xxh3::xxh3_64(topic.as_bytes());
    Shard(u16::try_from(hash % u64::from(shards.max(1))).unwrap_or(0))
}

/// Reads forward through a record; every getter is `None` past the end.
pub(crate) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// `None` if the record is of a version this program does not know.
    pub(crate) fn versioned(bytes: &'a [u8]) -> Option<Self> {
        let (&version, rest) = bytes.split_first()?;
        (version == VERSION).then_some(Self(rest))
    }

    fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(n)?;
        self.0 = rest;
        Some(head)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    pub(crate) fn u8(&mut self) -> Option<u8> {
        self.array::<1>().map(|[b]| b)
    }

    pub(crate) fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    pub(crate) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_be_bytes)
    }

    pub(crate) fn u128(&mut self) -> Option<u128> {
        self.array().map(u128::from_be_bytes)
    }

    /// Bytes after a 32-bit length.
    pub(crate) fn bytes(&mut self) -> Option<&'a [u8]> {
        let n = self.u32()? as usize;
        self.take(n)
    }

    pub(crate) fn text(&mut self) -> Option<&'a str> {
        std::str::from_utf8(self.bytes()?).ok()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// A message as [`put_message`] wrote it.
    pub(crate) fn message(&mut self) -> Option<Stored<'a>> {
        let publisher = SessionKey(self.u64()?);
        let expires_at = self.u64()?;
        let len = self.u32()?;
        let packet = self.take((len & !MARKED) as usize)?;
        let marks = match len & MARKED {
            0 => &[],
            _ => {
                let count = self.u16()?;
                self.take(usize::from(count) * MARK_BYTES)?
            }
        };
        if let Some((Plain::Publish(plain), used)) = plain(packet, Version::V5, u32::MAX, "")
            && used == packet.len()
        {
            return Some(Stored { publisher, expires_at, marks, publish: plain.to_publish() });
        }
        match decode(packet, Version::V5, Role::Server, u32::MAX) {
            Ok(Decoded::Packet(Packet::Publish(publish), used)) if used == packet.len() => {
                Some(Stored { publisher, expires_at, marks, publish })
            }
            _ => None,
        }
    }
}

/// What is known of a message in a record of its own before its packet is decoded.
pub(crate) struct Head<'a> {
    pub(crate) publisher: SessionKey,
    pub(crate) expires_at: u64,
    pub(crate) qos: QoS,
    /// As bytes: whoever compares topics need not know that they are text.
    pub(crate) topic: &'a [u8],
}

impl<'a> Head<'a> {
    /// Reads the front of a record that holds a message and nothing else.
    #[inline]
    pub(crate) fn of(record: &'a [u8]) -> Option<Self> {
        let mut reader = Reader::versioned(record)?;
        let (publisher, expires_at, _len) = (SessionKey(reader.u64()?), reader.u64()?, reader.u32()?);
        let qos = QoS::from_u8(reader.u8()? >> 1 & 3)?;
        // the packet's remaining length: its last byte is without the highest bit
        while reader.u8()? & 0x80 != 0 {}
        let len = reader.u16()?;
        Some(Self { publisher, expires_at, qos, topic: reader.take(usize::from(len))? })
    }

    /// Whether the message has expired by `unix_ms`.
    pub(crate) fn is_over(&self, unix_ms: u64) -> bool {
        self.expires_at != NEVER && self.expires_at <= unix_ms
    }
}

/// A message as it lies in a record; borrows from the record's bytes.
pub(crate) struct Stored<'a> {
    publisher: SessionKey,
    expires_at: u64,
    marks: &'a [u8],
    /// With the QoS and the retain flag it was published with.
    pub(crate) publish: Publish<'a>,
}

impl Stored<'_> {
    /// The groups of shared subscriptions that read it from the log: decided when it was published, whatever they are now.
    pub(crate) fn marks(&self) -> impl Iterator<Item = GroupId> {
        self.marks.as_chunks().0.iter().map(|mark| GroupId(u64::from_be_bytes(*mark)))
    }

    pub(crate) fn view(&self) -> View<'_> {
        View { publisher: self.publisher, expires_at: self.expires_at, publish: &self.publish, plain: None }
    }
}

/// A record's first byte.
pub(crate) fn begin() -> Vec<u8> {
    vec![VERSION]
}

pub(crate) fn put_bytes(bytes: &[u8], out: &mut Vec<u8>) {
    // a packet is at most 256 MiB and every other field smaller
    out.extend_from_slice(&u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_be_bytes());
    out.extend_from_slice(bytes);
}

/// Appends a message: who published it, when it expires, and the packet in MQTT 5's own encoding.
///
/// Returns `false`, and leaves `out` as it was, if it cannot be encoded.
pub(crate) fn put_message(view: View<'_>, out: &mut Vec<u8>) -> bool {
    let start = out.len();
    out.extend_from_slice(&view.publisher.0.to_be_bytes());
    out.extend_from_slice(&view.expires_at.to_be_bytes());
    out.extend_from_slice(&[0; 4]);
    let body = out.len();
    let p = view.publish;
    if !put_packet(p, out) {
        out.truncate(start);
        return false;
    }
    let len = u32::try_from(out.len() - body).unwrap_or(u32::MAX);
    out[body - 4..body].copy_from_slice(&len.to_be_bytes());
    true
}

/// Appends the packet of a record; `false`: it cannot be encoded.
fn put_packet(p: &Publish<'_>, out: &mut Vec<u8>) -> bool {
    // the packet id means nothing in a record, but QoS 1 and 2 cannot be encoded without one [MQTT-2.2.1-2]
    let packet_id = (p.qos > QoS::AtMostOnce).then_some(PacketId::MIN);
    if let Some(bare) = Bare::of(p, Version::V5) {
        let hop = Hop {
            version: Version::V5,
            qos: p.qos,
            dup: false,
            retain: p.retain,
            packet_id,
            identifiers: &[],
            expiry: None,
        };
        let fits = topic::validate(&p.topic).is_ok() && bare.len_as(&hop).is_some();
        if fits {
            bare.write(&hop, out);
        }
        return fits;
    }
    let mut properties = p.properties.read();
    if properties.topic_alias.is_some() || !properties.subscription_identifiers.is_empty() {
        let of_hop = properties.to_mut();
        of_hop.topic_alias = None;
        of_hop.subscription_identifiers.clear();
    }
    let (topic, payload) = (&p.topic, &p.payload);
    encode::publish(Version::V5, p.qos, false, p.retain, packet_id, topic, &properties, payload, out).is_ok()
}

/// The same for the log, with the groups that are to read it there.
pub(crate) fn put_marked(view: View<'_>, marks: &[GroupId], out: &mut Vec<u8>) -> bool {
    let start = out.len();
    if !put_message(view, out) {
        return false;
    }
    if marks.is_empty() {
        return true;
    }
    let Ok(count) = u16::try_from(marks.len()) else {
        out.truncate(start);
        return false;
    };
    // a packet is at most 256 MiB: the highest bit of its length is free
    if let Some(high) = out.get_mut(start + LEN_AT) {
        *high |= MARKED.to_be_bytes()[0];
    }
    out.extend_from_slice(&count.to_be_bytes());
    marks.iter().for_each(|mark| out.extend_from_slice(&mark.0.to_be_bytes()));
    true
}

/// How many bytes [`put_marked`] needs beside the message.
pub(crate) const fn marks_bound(marks: &[GroupId]) -> usize {
    2 + marks.len() * MARK_BYTES
}

/// How many bytes [`put_message`] will need at most: to refuse what no frame can hold before it is encoded.
pub(crate) fn message_bound(publish: &Publish<'_>) -> usize {
    let properties = publish.properties.as_bytes().map_or_else(
        || {
            let p = publish.properties.read();
            p.user_properties.iter().map(|(k, v)| k.len() + v.len() + 5).sum::<usize>()
                + p.content_type.as_ref().map_or(0, |t| t.len())
                + p.response_topic.as_ref().map_or(0, |t| t.len())
                + p.correlation_data.as_ref().map_or(0, |t| t.len())
        },
        <[u8]>::len,
    );
    publish.payload.len() + publish.topic.len() + properties + 64
}

/// Options of a subscription in four bytes.
pub(crate) fn put_options(options: SubscriptionOptions, out: &mut Vec<u8>) {
    out.extend_from_slice(&[
        options.qos as u8,
        u8::from(options.no_local),
        u8::from(options.retain_as_published),
        options.retain_handling as u8,
    ]);
}

pub(crate) fn options(reader: &mut Reader<'_>) -> Option<SubscriptionOptions> {
    Some(SubscriptionOptions {
        qos: QoS::from_u8(reader.u8()?)?,
        no_local: reader.u8()? != 0,
        retain_as_published: reader.u8()? != 0,
        retain_handling: match reader.u8()? {
            0 => RetainHandling::Send,
            1 => RetainHandling::SendIfNew,
            2 => RetainHandling::DoNotSend,
            _ => return None,
        },
    })
}

pub(crate) fn put_positions(positions: &[Pos], out: &mut Vec<u8>) {
    out.extend_from_slice(&u16::try_from(positions.len()).unwrap_or(u16::MAX).to_be_bytes());
    for pos in positions {
        out.extend_from_slice(&pos.0.to_be_bytes());
    }
}

pub(crate) fn positions(reader: &mut Reader<'_>) -> Option<Box<[Pos]>> {
    let n = reader.u16()?;
    (0..n).map(|_| reader.u64().map(Pos)).collect()
}

#[cfg(test)]
mod tests {
    use mqtt::packet::PublishProperties;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_message_comes_back_as_it_was_stored(
            topic in "[a-zA-Z0-9/ ]{1,40}", payload in proptest::collection::vec(any::<u8>(), 0..300),
            qos in 0u8..3, retain: bool, publisher: u64, expires: u64, user in proptest::collection::vec(("[a-z]{0,5}", "[a-z]{0,5}"), 0..3),
        ) {
            let qos = QoS::from_u8(qos).unwrap();
            let publish = Publish {
                dup: false, qos, retain, topic: topic.into(),
                packet_id: (qos > QoS::AtMostOnce).then_some(PacketId::MIN),
                properties: PublishProperties {
                    user_properties: user.into_iter().map(|(k, v)| (k.into(), v.into())).collect(),
                    ..Default::default()
                }.into(),
                payload: payload.into(),
            };
            let mut out = begin();
            let view = View { publisher: SessionKey(publisher), expires_at: expires, publish: &publish, plain: None };
            let put = put_message(view, &mut out);
            prop_assert!(put);
            prop_assert!(out.len() <= message_bound(&publish) + 1);
            let mut reader = Reader::versioned(&out).unwrap();
            let stored = reader.message().unwrap();
            prop_assert!(reader.is_empty());
            prop_assert_eq!(stored.publisher, SessionKey(publisher));
            prop_assert_eq!(stored.expires_at, expires);
            prop_assert_eq!(&stored.publish, &publish);
            let head = Head::of(&out).unwrap();
            prop_assert_eq!((head.publisher, head.expires_at), (SessionKey(publisher), expires));
            prop_assert_eq!((head.qos, head.topic), (qos, publish.topic.as_bytes()));
            for cut in 0..out.len() {
                prop_assert!(Reader::versioned(&out[..cut]).and_then(|mut r| r.message().map(drop)).is_none());
            }
        }

        #[test]
        fn marks_come_back_and_the_next_message_is_found_behind_them(
            marks in proptest::collection::vec(any::<u64>().prop_map(GroupId), 0..4),
        ) {
            let publish = Publish {
                dup: false, qos: QoS::AtMostOnce, retain: false, topic: "t".into(), packet_id: None,
                properties: mqtt::packet::Properties::default(), payload: b"x".as_slice().into(),
            };
            let view = View { publisher: SessionKey(1), expires_at: 2, publish: &publish, plain: None };
            let mut out = begin();
            prop_assert!(put_marked(view, &marks, &mut out));
            prop_assert!(out.len() <= message_bound(&publish) + marks_bound(&marks) + 1);
            prop_assert!(put_message(view, &mut out));
            let mut reader = Reader::versioned(&out).unwrap();
            let first = reader.message().unwrap();
            prop_assert_eq!(first.marks().collect::<Vec<_>>(), marks);
            prop_assert_eq!(&first.publish, &publish);
            let second = reader.message().unwrap();
            prop_assert_eq!((second.marks().count(), reader.is_empty()), (0, true));
        }

        #[test]
        fn damaged_records_are_refused_and_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Some(mut reader) = Reader::versioned(&bytes) {
                while !reader.is_empty() && reader.message().is_some() {}
            }
            let _ = Head::of(&bytes);
        }
    }

    proptest! {
        #[test]
        fn the_key_of_a_delayed_message_says_when(due: u64, number: u64) {
            prop_assert_eq!(delayed_of(&delayed_key(due, number)), Some((due, number)));
        }
    }

    #[test]
    fn the_shard_of_a_topic_never_changes() {
        assert_eq!(shard_of("fleet/vehicle-1/telemetry", 4), shard_of("fleet/vehicle-1/telemetry", 4));
        // part of the data's format: these values are written down so that a change of the hash fails here
        assert_eq!(["a", "b", "fleet/1", ""].map(|t| shard_of(t, 64).0), GOLDEN);
    }

    const GOLDEN: [u16; 4] = [31, 63, 19, 2];
}
