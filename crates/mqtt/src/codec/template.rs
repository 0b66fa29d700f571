//! A PUBLISH encoded from its parts: once for many receivers, or for a single one.

use std::num::NonZeroU16;

use super::plain::{Bare, Hop};
use super::write::{self, Count, Sink};
use super::{check, varint};
use crate::codec::encode::EncodeError;
use crate::packet::PublishProperties;
use crate::property::Property;
use crate::{PacketId, QoS, Version};

/// Appends a PUBLISH for a single receiver from its borrowed parts. `packet_id` is `Some` exactly for QoS 1 and 2
/// [MQTT-2.2.1-2]. Before version 5 the properties are left out.
///
/// # Errors
/// As for [`super::encode::encode`]; `out` is left as it was.
#[allow(clippy::too_many_arguments, reason = "the fields of the packet, borrowed from different places")]
pub fn publish(
    version: Version,
    qos: QoS,
    dup: bool,
    retain: bool,
    packet_id: Option<PacketId>,
    topic: &str,
    properties: &PublishProperties<'_>,
    payload: &[u8],
    out: &mut Vec<u8>,
) -> Result<(), EncodeError> {
    if packet_id.is_some() != (qos != QoS::AtMostOnce) {
        return Err(EncodeError::PacketId);
    }
    let id_at = without_id(version, qos, dup, retain, topic, properties, payload, out)?;
    fill_in(packet_id, id_at, out);
    Ok(())
}

/// Puts the packet identifier in its place.
fn fill_in(packet_id: Option<PacketId>, at: usize, out: &mut [u8]) {
    if let (Some(id), Some(place)) = (packet_id, out.get_mut(at..at + 2)) {
        place.copy_from_slice(&id.get().to_be_bytes());
    }
}

/// Appends all of a PUBLISH, with 0 for the packet identifier, and gives the place of that.
#[allow(clippy::too_many_arguments, reason = "the fields of the packet, borrowed from different places")]
fn without_id(
    version: Version,
    qos: QoS,
    dup: bool,
    retain: bool,
    topic: &str,
    properties: &PublishProperties<'_>,
    payload: &[u8],
    out: &mut Vec<u8>,
) -> Result<usize, EncodeError> {
    check::publish(version, topic, properties)?;
    let mut section = Count(0);
    if version.is_v5() {
        write::section(properties, &mut section);
    }
    let id_len = if qos == QoS::AtMostOnce { 0 } else { 2 };
    let len = 2 + topic.len() + id_len + section.0 + payload.len();
    let remaining = check::remaining(len)?;
    out.reserve(1 + varint::len(remaining) + len);
    out.u8(write::publish_first_byte(qos, dup, retain));
    out.varint(remaining);
    out.binary(topic.as_bytes());
    let id_at = out.len();
    if id_len > 0 {
        out.u16(0);
    }
    if version.is_v5() {
        write::section(properties, out);
    }
    out.put(payload);
    Ok(id_at)
}

/// A Topic Alias of one receiver (3.3.2.3.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alias {
    /// This packet tells what it stands for: it has the topic and the alias.
    Introduced(NonZeroU16),
    /// It was told before on this connection: the topic is left out.
    Known(NonZeroU16),
}

impl Alias {
    /// The number as it goes on the wire; never 0 [MQTT-3.3.2-8].
    pub const fn number(self) -> NonZeroU16 {
        match self {
            Self::Introduced(number) | Self::Known(number) => number,
        }
    }
}

/// Bytes of the property Topic Alias.
const ALIAS_PROPERTY: u32 = 3;

fn alias_property(alias: NonZeroU16) -> [u8; ALIAS_PROPERTY as usize] {
    let [high, low] = alias.get().to_be_bytes();
    [Property::TopicAlias.id(), high, low]
}

/// What differs between a template and the packet of a receiver with an alias, and what does not.
struct Parts<'a> {
    remaining: u32,
    topic: &'a [u8],
    /// Length of the properties.
    section: u32,
    /// The other properties and the payload.
    rest: &'a [u8],
}

/// The bytes of a PUBLISH, all but its packet identifier: encoded once for all receivers of the same version and QoS.
#[derive(Clone, Debug)]
pub struct PublishTemplate {
    /// The whole packet, with 0 for the packet identifier.
    bytes: Vec<u8>,
    qos: QoS,
    /// Where the packet identifier stands; not used at QoS 0.
    id_at: usize,
    topic_len: usize,
    v5: bool,
}

impl PublishTemplate {
    /// Encodes the packet. Before version 5 the properties are left out.
    ///
    /// # Errors
    /// The packet has a value that no peer would accept, as for [`super::encode::encode`].
    pub fn new(
        version: Version,
        qos: QoS,
        dup: bool,
        retain: bool,
        topic: &str,
        properties: &PublishProperties<'_>,
        payload: &[u8],
    ) -> Result<Self, EncodeError> {
        let mut bytes = Vec::new();
        let id_at = without_id(version, qos, dup, retain, topic, properties, payload, &mut bytes)?;
        Ok(Self { bytes, qos, id_at, topic_len: topic.len(), v5: version.is_v5() })
    }

    /// The same of a packet that need not be encoded: for receivers like that of `hop`, whose packet identifier is not looked at.
    ///
    /// # Errors
    /// It has more bytes than a remaining length can say.
    pub fn copied(bare: &Bare<'_>, hop: &Hop<'_>) -> Result<Self, EncodeError> {
        let body = bare.body_len(hop);
        let remaining = check::remaining(body)?;
        let mut bytes = Vec::new();
        bare.write(hop, &mut bytes);
        let topic_len = bare.topic.len();
        let id_at = 1 + varint::len(remaining) + 2 + topic_len;
        Ok(Self { bytes, qos: hop.qos, id_at, topic_len, v5: hop.version.is_v5() })
    }

    /// Appends the packet for one receiver. `packet_id` is `Some` exactly for QoS 1 and 2 [MQTT-2.2.1-2].
    ///
    /// Anything else is a mistake of the caller: debug builds panic; release builds leave a needless identifier
    /// out, and write 0 for a missing one, which every receiver refuses.
    pub fn write(&self, packet_id: Option<PacketId>, out: &mut Vec<u8>) {
        debug_assert_eq!(
            packet_id.is_some(),
            self.qos != QoS::AtMostOnce,
            "a packet identifier exactly for QoS 1 and 2"
        );
        let start = out.len() + self.id_at;
        out.extend_from_slice(&self.bytes);
        if self.qos != QoS::AtMostOnce {
            fill_in(packet_id, start, out);
        }
    }

    /// Bytes of the packet.
    #[allow(clippy::len_without_is_empty, reason = "a packet is never empty")]
    pub const fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Appends the packet for a receiver that knows its topic by a Topic Alias, or is told it with this packet
    /// ([`Alias::Introduced`]). Only the fixed header, the topic and the length of the properties are made anew; all else is copied.
    /// The template has no Topic Alias of its own and is one of version 5; any other is written as [`Self::write`] does.
    pub fn write_aliased(&self, packet_id: Option<PacketId>, alias: Alias, out: &mut Vec<u8>) {
        let Some(parts) = self.parts(alias) else { return self.write(packet_id, out) };
        let first = self.bytes.first().copied().unwrap_or_default();
        out.reserve(1 + varint::len(parts.remaining) + parts.remaining as usize);
        out.u8(first);
        out.varint(parts.remaining);
        out.binary(parts.topic);
        if self.qos != QoS::AtMostOnce {
            out.u16(packet_id.map_or(0, PacketId::get));
        }
        out.varint(parts.section);
        out.put(&alias_property(alias.number()));
        out.put(parts.rest);
    }

    /// Bytes of the packet that [`Self::write_aliased`] appends.
    pub fn aliased_len(&self, alias: Alias) -> usize {
        self.parts(alias).map_or(self.bytes.len(), |p| 1 + varint::len(p.remaining) + p.remaining as usize)
    }

    fn parts(&self, alias: Alias) -> Option<Parts<'_>> {
        if !self.v5 {
            return None;
        }
        let id_len = if self.qos == QoS::AtMostOnce { 0 } else { 2 };
        let tail = self.bytes.get(self.id_at + id_len..)?;
        let varint::Read::Value(section, used) = varint::read(tail) else { return None };
        let rest = tail.get(used..)?;
        let topic = match alias {
            Alias::Introduced(_) => self.bytes.get(self.id_at.checked_sub(self.topic_len)?..self.id_at)?,
            Alias::Known(_) => &[],
        };
        let section = section + ALIAS_PROPERTY;
        let len = 2 + topic.len() + id_len + varint::len(section) + ALIAS_PROPERTY as usize + rest.len();
        Some(Parts { remaining: check::remaining(len).ok()?, topic, section, rest })
    }

    /// The quality of service it was encoded for.
    pub const fn qos(&self) -> QoS {
        self.qos
    }

    /// Sets or clears DUP; it stays clear at QoS 0 [MQTT-3.3.1-2].
    pub fn set_dup(&mut self, dup: bool) {
        if let Some(first) = self.bytes.first_mut() {
            *first &= !write::DUP;
            if dup && self.qos != QoS::AtMostOnce {
                *first |= write::DUP;
            }
        }
    }
}
