//! The packets that make up nearly all traffic, recognised without taking them apart: a PUBLISH with no properties or such as are
//! forwarded as they are, and acknowledgements that only say yes.
//!
//! [`plain`] knows no errors: whatever is not whole, not legal or not as simple as that is left to [`super::decode`], which
//! also has the words for what is wrong. What it does recognise means exactly what `decode` would say; a property test and a fuzz
//! target compare the two. Such a PUBLISH is not encoded again for its receivers: its bytes are copied, and what differs for a
//! receiver (see [`Hop`]) is patched.

use std::borrow::Cow;

use super::write::{self, Sink};
use super::{section, varint};
use crate::packet::{Properties, Publish};
use crate::property::Property;
use crate::{PacketId, QoS, Version, topic};

/// What [`plain`] recognises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plain<'a> {
    /// 3.3, without properties that a server has to look at.
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

/// What the packet of one receiver has of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hop<'a> {
    /// What the receiver speaks. Before version 5 it gets no properties.
    pub version: Version,
    /// The quality of service that it is sent with.
    pub qos: QoS,
    /// Sent before, perhaps; at QoS 0 nothing is said of it [MQTT-3.3.1-2].
    pub dup: bool,
    /// The RETAIN flag.
    pub retain: bool,
    /// `Some` exactly for QoS 1 and 2 [MQTT-2.2.1-2]; a missing one is written as 0, which every receiver refuses.
    pub packet_id: Option<PacketId>,
    /// Of the receiver's subscriptions [MQTT-3.3.4-3]; 1 to 268,435,455 each. Version 5 only.
    pub identifiers: &'a [u32],
    /// Seconds that are left of the Message Expiry Interval, if the message has one [MQTT-3.3.2-6]; `None` leaves it as it is.
    pub expiry: Option<u32>,
}

impl Hop<'_> {
    #[inline]
    const fn has_id(&self) -> bool {
        !matches!(self.qos, QoS::AtMostOnce)
    }

    #[inline]
    fn first_byte(&self) -> u8 {
        write::publish_first_byte(self.qos, self.dup, self.retain)
    }

    #[inline]
    fn number(&self) -> [u8; 2] {
        self.packet_id.map_or(0, PacketId::get).to_be_bytes()
    }
}

/// A PUBLISH with no properties or such as are forwarded as they are, as it lies in the buffer that it was read into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlainPublish<'a> {
    /// The whole packet.
    pub(super) bytes: &'a [u8],
    /// Bytes of the fixed header.
    pub(super) head: usize,
    pub(super) v5: bool,
    pub(super) dup: bool,
    pub(super) retain: bool,
    pub(super) qos: QoS,
    pub(super) packet_id: Option<PacketId>,
    pub(super) topic: &'a str,
    /// The properties, without their length.
    pub(super) section: &'a [u8],
    pub(super) payload: &'a [u8],
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
    let (section, payload) = match behind {
        [0, payload @ ..] if v5 => (&[][..], payload),
        _ if v5 => properties(behind)?,
        _ => (&[][..], behind),
    };
    let topic = if topic == known.as_bytes() && !topic.is_empty() {
        known
    } else {
        let topic = std::str::from_utf8(topic).ok()?;
        topic::validate(topic).ok()?;
        topic
    };
    let retain = first & 1 != 0;
    Some(PlainPublish { bytes: packet, head, v5, dup, retain, qos, packet_id, topic, section, payload })
}

/// The section of properties and the payload behind it.
#[inline(never)]
fn properties(input: &[u8]) -> Option<(&[u8], &[u8])> {
    let varint::Read::Value(len, bytes) = varint::read(input) else { return None };
    if bytes != varint::len(len) {
        return None;
    }
    let (section, payload) = input.get(bytes..)?.split_at_checked(len as usize)?;
    section::is_forwarded(section).then_some((section, payload))
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
    pub const fn to_publish(&self) -> Publish<'a> {
        Publish {
            dup: self.dup,
            qos: self.qos,
            retain: self.retain,
            topic: Cow::Borrowed(self.topic),
            packet_id: self.packet_id,
            properties: Properties::judged(self.section),
            payload: Cow::Borrowed(self.payload),
        }
    }

    /// Its parts, for receivers of another layout.
    #[inline]
    pub const fn bare(&self) -> Bare<'a> {
        Bare { topic: self.topic, section: self.section, payload: self.payload }
    }

    /// Bytes that [`Self::write`] appends; `None`: more than a remaining length can say.
    #[inline]
    pub fn len_as(&self, hop: &Hop<'_>) -> Option<usize> {
        if self.is_copied(hop) { Some(self.bytes.len()) } else { self.bare().len_as(hop) }
    }

    /// Whether the packet of such a receiver has the same layout.
    #[inline]
    pub(super) const fn is_copied(&self, hop: &Hop<'_>) -> bool {
        let v5 = hop.version.is_v5();
        self.v5 == v5
            && !matches!(self.qos, QoS::AtMostOnce) == hop.has_id()
            && (!v5 || hop.identifiers.is_empty())
    }

    /// Appends the packet for a receiver; see [`Bare::write`].
    #[inline]
    pub fn write(&self, hop: &Hop<'_>, out: &mut Vec<u8>) {
        if !self.is_copied(hop) {
            return self.write_parts(hop, out);
        }
        let start = out.len();
        out.extend_from_slice(self.bytes);
        let Some(packet) = out.get_mut(start..) else { return };
        if let Some(flags) = packet.first_mut() {
            *flags = hop.first_byte();
        }
        if hop.has_id() {
            patch(packet, self.head + 2 + self.topic.len(), hop.number());
        }
        if let Some(seconds) = hop.expiry {
            let at = self.bytes.len() - self.payload.len() - self.section.len();
            patch_expiry(packet, at, self.section, seconds);
        }
    }

    /// Not inlined, so that copying is.
    #[inline(never)]
    fn write_parts(&self, hop: &Hop<'_>, out: &mut Vec<u8>) {
        self.bare().write(hop, out);
    }
}

/// Says how much is left of the Message Expiry Interval of `section`, which lies at `at`.
#[inline(never)]
fn patch_expiry(bytes: &mut [u8], at: usize, section: &[u8], seconds: u32) {
    if let Some(within) = section::expiry_at(section) {
        patch(bytes, at + within, seconds.to_be_bytes());
    }
}

#[inline]
fn patch<const N: usize>(bytes: &mut [u8], at: usize, value: [u8; N]) {
    if let Some(place) = bytes.get_mut(at..).and_then(<[u8]>::first_chunk_mut) {
        *place = value;
    }
}

/// The parts of a PUBLISH that are the same for all receivers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bare<'a> {
    /// A valid topic name: it is not looked at again.
    pub(super) topic: &'a str,
    /// Without its length; accepted by [`section::is_forwarded`].
    section: &'a [u8],
    /// The application message.
    payload: &'a [u8],
}

impl<'a> Bare<'a> {
    /// The parts of a packet that goes to receivers of `version`; `None`: its properties have been taken apart, and must be encoded.
    #[inline]
    pub fn of(publish: &'a Publish<'_>, version: Version) -> Option<Self> {
        let section = if version.is_v5() { publish.properties.as_bytes()? } else { &[] };
        Some(Self { topic: &publish.topic, section, payload: &publish.payload })
    }

    /// Bytes that [`Self::write`] appends; `None`: more than a remaining length can say.
    #[inline]
    pub fn len_as(&self, hop: &Hop<'_>) -> Option<usize> {
        let body = self.body_len(hop);
        let remaining = u32::try_from(body).ok().filter(|&len| len <= varint::MAX)?;
        Some(1 + varint::len(remaining) + body)
    }

    /// Bytes behind the fixed header.
    #[inline]
    pub(super) fn body_len(&self, hop: &Hop<'_>) -> usize {
        let id = if hop.has_id() { 2 } else { 0 };
        let section = if hop.version.is_v5() {
            let len = self.section_len(hop);
            varint::len(len) + len as usize
        } else {
            0
        };
        2 + self.topic.len() + id + section + self.payload.len()
    }

    #[inline]
    fn section_len(&self, hop: &Hop<'_>) -> u32 {
        let identifiers: usize = hop.identifiers.iter().map(|&id| 1 + varint::len(id)).sum();
        u32::try_from(self.section.len() + identifiers).unwrap_or(u32::MAX)
    }

    /// Appends the packet for a receiver. The caller has asked [`Self::len_as`].
    #[inline]
    pub fn write(&self, hop: &Hop<'_>, out: &mut Vec<u8>) {
        let body = self.body_len(hop);
        out.reserve(1 + 4 + body);
        out.u8(hop.first_byte());
        out.varint(u32::try_from(body).unwrap_or(varint::MAX));
        out.binary(self.topic.as_bytes());
        if hop.has_id() {
            out.put(&hop.number());
        }
        if hop.version.is_v5() {
            self.write_section(hop, out);
        }
        out.put(self.payload);
    }

    #[inline]
    fn write_section(&self, hop: &Hop<'_>, out: &mut Vec<u8>) {
        out.varint(self.section_len(hop));
        for &id in hop.identifiers {
            out.u8(Property::SubscriptionIdentifier.id());
            out.varint(id);
        }
        if self.section.is_empty() {
            return;
        }
        let start = out.len();
        out.put(self.section);
        if let Some(seconds) = hop.expiry {
            patch_expiry(out, start, self.section, seconds);
        }
    }
}
