//! The packets that make up nearly all traffic, recognised without taking them apart: a PUBLISH without properties, and
//! acknowledgements that only say yes.
//!
//! [`plain`] knows no errors: whatever is not whole, not legal or not as simple as that is left to [`super::decode`], which
//! also has the words for what is wrong. What it does recognise means exactly what `decode` would say; a property test and a fuzz
//! target compare the two. Such a PUBLISH is not encoded again for its receivers: its bytes are copied, and what differs for a
//! receiver (flags, packet identifier, one empty property section) is patched.

use std::borrow::Cow;

use super::varint;
use super::write::{self, Sink};
use crate::packet::{Properties, Publish};
use crate::{PacketId, QoS, Version, topic};

/// What [`plain`] recognises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plain<'a> {
    /// 3.3, without properties.
    Publish(PlainPublish<'a>),
    /// 3.4, reason Success.
    Puback(PacketId),
    /// 3.5, reason Success.
    Pubrec(PacketId),
    /// 3.6, reason Success.
    Pubrel(PacketId),
    /// 3.7, reason Success.
    Pubcomp(PacketId),
}

/// A PUBLISH without properties, as it lies in the buffer that it was read into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlainPublish<'a> {
    /// The whole packet.
    bytes: &'a [u8],
    /// Bytes of the fixed header.
    head: usize,
    v5: bool,
    dup: bool,
    retain: bool,
    qos: QoS,
    packet_id: Option<PacketId>,
    topic: &'a str,
    payload: &'a [u8],
}

/// The packet at the front of `input` and its length, if it is a plain one. Only clients and servers that speak `version` may have
/// sent it, which either may.
///
/// `None` says nothing about the bytes but that [`super::decode::decode`] must look at them. `known` is a valid topic name, or
/// empty: what is published to the same one again is not judged again.
#[inline]
pub fn plain<'a>(
    input: &'a [u8],
    version: Version,
    max_packet_size: u32,
    known: &'a str,
) -> Option<(Plain<'a>, usize)> {
    let &[first, len, ..] = input else { return None };
    if first >> 4 == 3 {
        let publish = publish(input, first, version, max_packet_size, known)?;
        let len = publish.bytes.len();
        return Some((Plain::Publish(publish), len));
    }
    let (&[_, _, high, low], 2, true) = (input.first_chunk()?, len, max_packet_size >= 4) else {
        return None;
    };
    let id = PacketId::new(u16::from_be_bytes([high, low]))?;
    let ack = match first {
        write::PUBACK => Plain::Puback(id),
        write::PUBREC => Plain::Pubrec(id),
        write::PUBREL => Plain::Pubrel(id),
        write::PUBCOMP => Plain::Pubcomp(id),
        _ => return None,
    };
    Some((ack, 4))
}

#[inline]
fn publish<'a>(
    input: &'a [u8],
    first: u8,
    version: Version,
    max_packet_size: u32,
    known: &'a str,
) -> Option<PlainPublish<'a>> {
    let varint::Read::Value(remaining, bytes) = varint::read(input.get(1..)?) else { return None };
    let head = 1 + bytes;
    let total = head + remaining as usize;
    // a longer form of the length than needed, which 3.1.1 allows, would be copied to those that do not
    if total > max_packet_size as usize || bytes != varint::len(remaining) {
        return None;
    }
    let packet = input.get(..total)?;
    let qos = QoS::from_u8(first >> 1 & 0x03)?;
    let dup = first & write::DUP != 0;
    let (topic_len, behind) = packet.get(head..)?.split_first_chunk()?;
    let (topic, behind) = behind.split_at_checked(usize::from(u16::from_be_bytes(*topic_len)))?;
    let (packet_id, behind) = if qos == QoS::AtMostOnce {
        if dup {
            return None;
        }
        (None, behind)
    } else {
        let (id, behind) = behind.split_first_chunk()?;
        (Some(PacketId::new(u16::from_be_bytes(*id))?), behind)
    };
    let v5 = version.is_v5();
    let payload = if v5 { behind.strip_prefix(&[0])? } else { behind };
    let topic = if topic == known.as_bytes() && !topic.is_empty() {
        known
    } else {
        let topic = std::str::from_utf8(topic).ok()?;
        topic::validate(topic).ok()?;
        topic
    };
    let retain = first & 1 != 0;
    Some(PlainPublish { bytes: packet, head, v5, dup, retain, qos, packet_id, topic, payload })
}

impl<'a> PlainPublish<'a> {
    /// The whole packet as it was read.
    pub const fn as_bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Whether it was sent by a client of version 5, whose packets look different.
    pub const fn is_v5(&self) -> bool {
        self.v5
    }

    /// The quality of service it was sent with.
    pub const fn qos(&self) -> QoS {
        self.qos
    }

    /// Whether it is to be kept.
    pub const fn retain(&self) -> bool {
        self.retain
    }

    /// Present exactly for QoS 1 and 2.
    pub const fn packet_id(&self) -> Option<PacketId> {
        self.packet_id
    }

    /// Valid, not empty, without wildcards.
    pub const fn topic(&self) -> &'a str {
        self.topic
    }

    /// The application message.
    pub const fn payload(&self) -> &'a [u8] {
        self.payload
    }

    /// The same as a packet like any other; allocates nothing.
    #[inline]
    pub fn to_publish(&self) -> Publish<'a> {
        Publish {
            dup: self.dup,
            qos: self.qos,
            retain: self.retain,
            topic: Cow::Borrowed(self.topic),
            packet_id: self.packet_id,
            properties: Properties::default(),
            payload: Cow::Borrowed(self.payload),
        }
    }

    /// Its topic and payload, for receivers of another layout.
    #[inline]
    pub const fn bare(&self) -> Bare<'a> {
        Bare { topic: self.topic, payload: self.payload }
    }

    /// Bytes that [`Self::write`] appends; `None`: more than a remaining length can say.
    #[inline]
    pub fn len_as(&self, version: Version, qos: QoS) -> Option<usize> {
        if self.is_copied(version, qos) { Some(self.bytes.len()) } else { self.bare().len_as(version, qos) }
    }

    /// Whether the packet of such a receiver has the same layout.
    const fn is_copied(&self, version: Version, qos: QoS) -> bool {
        self.v5 == version.is_v5() && matches!(self.qos, QoS::AtMostOnce) == matches!(qos, QoS::AtMostOnce)
    }

    /// Appends the packet for a receiver; see [`Bare::write`].
    #[inline]
    pub fn write(
        &self,
        version: Version,
        qos: QoS,
        retain: bool,
        packet_id: Option<PacketId>,
        out: &mut Vec<u8>,
    ) {
        if !self.is_copied(version, qos) {
            return self.bare().write(version, qos, retain, packet_id, out);
        }
        let start = out.len();
        out.extend_from_slice(self.bytes);
        let Some(packet) = out.get_mut(start..) else { return };
        if let Some(flags) = packet.first_mut() {
            *flags = write::publish_first_byte(qos, false, retain);
        }
        if qos != QoS::AtMostOnce
            && let Some(place) =
                packet.get_mut(self.head + 2 + self.topic.len()..).and_then(<[u8]>::first_chunk_mut)
        {
            *place = number(packet_id);
        }
    }
}

/// What is left of a PUBLISH without properties that has been taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bare<'a> {
    /// A valid topic name: it is not looked at again.
    pub topic: &'a str,
    /// The application message.
    pub payload: &'a [u8],
}

impl Bare<'_> {
    /// Bytes that [`Self::write`] appends; `None`: more than a remaining length can say.
    #[inline]
    pub fn len_as(&self, version: Version, qos: QoS) -> Option<usize> {
        let body = self.body_len(version, qos);
        let remaining = u32::try_from(body).ok().filter(|&len| len <= varint::MAX)?;
        Some(1 + varint::len(remaining) + body)
    }

    fn body_len(&self, version: Version, qos: QoS) -> usize {
        let id = if qos == QoS::AtMostOnce { 0 } else { 2 };
        2 + self.topic.len() + id + usize::from(version.is_v5()) + self.payload.len()
    }

    /// Appends the packet for a receiver, without DUP and without properties. `packet_id` is `Some` exactly for QoS 1 and 2
    /// [MQTT-2.2.1-2]; a missing one is written as 0, which every receiver refuses. The caller has asked [`Self::len_as`].
    #[inline]
    pub fn write(
        &self,
        version: Version,
        qos: QoS,
        retain: bool,
        packet_id: Option<PacketId>,
        out: &mut Vec<u8>,
    ) {
        let body = self.body_len(version, qos);
        out.reserve(1 + 4 + body);
        out.u8(write::publish_first_byte(qos, false, retain));
        out.varint(u32::try_from(body).unwrap_or(varint::MAX));
        out.binary(self.topic.as_bytes());
        if qos != QoS::AtMostOnce {
            out.put(&number(packet_id));
        }
        if version.is_v5() {
            out.u8(0);
        }
        out.put(self.payload);
    }
}

fn number(packet_id: Option<PacketId>) -> [u8; 2] {
    packet_id.map_or(0, PacketId::get).to_be_bytes()
}
