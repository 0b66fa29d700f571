//! Bytes to packets.

use std::borrow::Cow;

pub use super::peek::{ConnectHead, Peek, peek_connect};
use super::reader::{Fault, NOT_MINIMAL, NULL_CHARACTER, Reader, VARINT_TOO_LONG};
use super::{DecodeError, Decoded, legal, peek, properties, varint};
use crate::packet::{
    Ack, Auth, Connack, Disconnect, DisconnectProperties, Packet, Properties, Publish, ReasonProperties,
    RetainHandling, Suback, Subscribe, SubscribeFilter, SubscriptionOptions, Unsuback, Unsubscribe,
};
use crate::topic::TopicError;
use crate::{QoS, ReasonCode, Version, topic};

/// Who sent the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// A client: the bytes are read by a server.
    Client,
    /// A server: the bytes are read by a client.
    Server,
}

/// Takes one packet off the front of `input`.
///
/// `version` is that of the connection; a CONNECT carries its own. `sender` is who sent the bytes: what only a server may
/// send is an error from a client, and the other way round. `max_packet_size` counts the whole packet with
/// its fixed header. Topic, payload and strings borrow from `input`; a PUBLISH without properties allocates nothing, and
/// lists of tiny user properties or filters, the worst case, take some twenty times the bytes of their packet.
///
/// # Errors
/// The first rule that the packet breaks, as early as it can be known: errors of the fixed header and of the size do not
/// wait for the body.
pub fn decode(
    input: &[u8],
    version: Version,
    sender: Role,
    max_packet_size: u32,
) -> Result<Decoded<'_>, DecodeError> {
    match whole(input, version, sender, max_packet_size) {
        Ok((packet, len)) => Ok(Decoded::Packet(packet, len)),
        Err(Fault::Short(needed)) => Ok(Decoded::Incomplete(needed)),
        Err(Fault::Bad(error)) => Err(error),
    }
}

fn whole(input: &[u8], version: Version, sender: Role, max: u32) -> Result<(Packet<'_>, usize), Fault> {
    let header = header(input, version, sender)?;
    let total = header.total();
    if u32::try_from(total).map_or(true, |total| total > max) {
        return Err(TOO_LARGE.into());
    }
    if input.len() < total {
        return Err(Fault::Short(total));
    }
    let mut reader = Reader::new(input, header.len, total);
    let packet = body(&mut reader, &header, version, sender)?;
    Ok((packet, total))
}

/// What a server must not send a client [MQTT-3.1.2-24], a client must not send a server either [MQTT-3.2.2-15].
const TOO_LARGE: DecodeError = DecodeError {
    reason: ReasonCode::PacketTooLarge,
    clause: "MQTT-3.1.2-24",
    detail: "the packet is larger than the receiver takes",
};

/// How many bytes the packet at the front of `input` has, as its fixed header says; `None` while that is not all here. Says nothing
/// about whether the packet is allowed: [`decode`] does.
pub fn packet_len(input: &[u8]) -> Option<usize> {
    match varint::read(input.get(1..)?) {
        varint::Read::Value(remaining, bytes) => Some(1 + bytes + remaining as usize),
        varint::Read::Short => None,
        // what is read so far is enough to refuse it
        varint::Read::TooLong => Some(5),
    }
}

/// The fixed header (2.1).
#[derive(Clone, Copy, Debug)]
pub(super) struct Header {
    kind: u8,
    flags: u8,
    /// Bytes of the header itself.
    pub(super) len: usize,
    /// Bytes behind it.
    remaining: usize,
    /// Whether the remaining length takes no more bytes than it needs.
    pub(super) minimal: bool,
}

impl Header {
    /// Bytes of the whole packet.
    pub(super) const fn total(&self) -> usize {
        self.len + self.remaining
    }
}

// Packet types (2.1.2).
const CONNECT: u8 = 1;
const CONNACK: u8 = 2;
const PUBLISH: u8 = 3;
const PUBACK: u8 = 4;
const PUBREC: u8 = 5;
const PUBREL: u8 = 6;
const PUBCOMP: u8 = 7;
const SUBSCRIBE: u8 = 8;
const SUBACK: u8 = 9;
const UNSUBSCRIBE: u8 = 10;
const UNSUBACK: u8 = 11;
const PINGREQ: u8 = 12;
const PINGRESP: u8 = 13;
const DISCONNECT: u8 = 14;
const AUTH: u8 = 15;

/// Reads the fixed header and checks everything that can be judged by it alone.
pub(super) fn header(input: &[u8], version: Version, sender: Role) -> Result<Header, Fault> {
    let Some((&first, rest)) = input.split_first() else {
        return Err(Fault::Short(2));
    };
    let (kind, flags) = (first >> 4, first & 0x0F);
    check_direction(kind, version, sender)?;
    check_flags(kind, flags, version)?;
    let (remaining, bytes) = match varint::read(rest) {
        varint::Read::Value(value, bytes) => (value, bytes),
        varint::Read::Short => return Err(Fault::Short(input.len() + 1)),
        varint::Read::TooLong => return Err(VARINT_TOO_LONG.into()),
    };
    let minimal = bytes == varint::len(remaining);
    // 3.1 and 3.1.1 do not ask for the shortest form; the version of a CONNECT is known later.
    if version.is_v5() && kind != CONNECT && !minimal {
        return Err(NOT_MINIMAL.into());
    }
    check_remaining(kind, remaining, version)?;
    Ok(Header { kind, flags, len: 1 + bytes, remaining: remaining as usize, minimal })
}

/// Whether this side may send packets of this type (2.1.2, table 2-1).
fn check_direction(kind: u8, version: Version, sender: Role) -> Result<(), DecodeError> {
    let allowed = match kind {
        PUBLISH..=PUBCOMP => true,
        CONNECT | SUBSCRIBE | UNSUBSCRIBE | PINGREQ => sender == Role::Client,
        CONNACK | SUBACK | UNSUBACK | PINGRESP => sender == Role::Server,
        DISCONNECT => sender == Role::Client || version.is_v5(),
        AUTH if version.is_v5() => true,
        _ => return Err(DecodeError::malformed("2.1.2", "the packet type is reserved")),
    };
    if allowed {
        return Ok(());
    }
    Err(DecodeError::protocol("2.1.2", "this side must not send packets of this type"))
}

/// The flags of the fixed header (2.1.3, table 2-2).
fn check_flags(kind: u8, flags: u8, version: Version) -> Result<(), DecodeError> {
    let (expected, clause) = match kind {
        PUBLISH if flags & 0x06 == 0x06 => {
            return Err(DecodeError::malformed("MQTT-3.3.1-4", "both QoS bits of PUBLISH are set"));
        }
        PUBLISH if flags & 0x0E == 0x08 => {
            return Err(DecodeError::malformed("MQTT-3.3.1-2", "DUP is set in a PUBLISH with QoS 0"));
        }
        PUBLISH => return Ok(()),
        // 3.1 has them as DUP, QoS and RETAIN in every packet, "not used" in most, and clients of it set DUP when
        // they repeat a SUBSCRIBE or PUBREL. The version of a CONNECT is not known yet.
        _ if version == Version::V31 && kind != CONNECT => return Ok(()),
        PUBREL => (0x02, "MQTT-3.6.1-1"),
        SUBSCRIBE => (0x02, "MQTT-3.8.1-1"),
        UNSUBSCRIBE => (0x02, "MQTT-3.10.1-1"),
        DISCONNECT => (0, "MQTT-3.14.1-1"),
        AUTH => (0, "MQTT-3.15.1-1"),
        _ => (0, "MQTT-2.1.3-1"),
    };
    if flags == expected {
        return Ok(());
    }
    Err(DecodeError::malformed(clause, "a reserved flag of the fixed header has the wrong value"))
}

/// Packets of one size only are judged before their body comes, so that a lie cannot make us wait for megabytes.
fn check_remaining(kind: u8, remaining: u32, version: Version) -> Result<(), DecodeError> {
    let exact = match kind {
        PINGREQ | PINGRESP => Some(0),
        DISCONNECT if !version.is_v5() => Some(0),
        CONNACK | PUBACK..=PUBCOMP | UNSUBACK if !version.is_v5() => Some(2),
        _ => None,
    };
    if exact.is_some_and(|exact| exact != remaining) {
        return Err(DecodeError::malformed(
            "2.1.4",
            "the remaining length is not the one that this packet type has",
        ));
    }
    Ok(())
}

fn body<'a>(
    reader: &mut Reader<'a>,
    header: &Header,
    version: Version,
    sender: Role,
) -> Result<Packet<'a>, Fault> {
    let packet = match header.kind {
        PUBLISH => return publish(reader, header.flags, version, sender).map(Packet::Publish),
        PUBACK => Packet::Puback(ack(reader, version, legal::puback, "MQTT-3.4.2-1")?),
        PUBREC => Packet::Pubrec(ack(reader, version, legal::puback, "MQTT-3.5.2-1")?),
        PUBREL => Packet::Pubrel(ack(reader, version, legal::pubrel, "MQTT-3.6.2-1")?),
        PUBCOMP => Packet::Pubcomp(ack(reader, version, legal::pubrel, "MQTT-3.7.2-1")?),
        CONNECT => return Ok(Packet::Connect(Box::new(peek::connect(reader.clone(), header)?))),
        CONNACK => Packet::Connack(Box::new(connack(reader, version)?)),
        SUBSCRIBE => Packet::Subscribe(subscribe(reader, version)?),
        SUBACK => Packet::Suback(suback(reader, version)?),
        UNSUBSCRIBE => Packet::Unsubscribe(unsubscribe(reader, version)?),
        UNSUBACK => Packet::Unsuback(unsuback(reader, version)?),
        PINGREQ => Packet::Pingreq,
        PINGRESP => Packet::Pingresp,
        DISCONNECT => Packet::Disconnect(disconnect(reader, version, sender)?),
        _ => Packet::Auth(auth(reader, sender)?),
    };
    reader.finish()?;
    Ok(packet)
}

/// A reason code that the specification knows and that this packet may carry.
fn reason(
    reader: &mut Reader<'_>,
    legal: impl FnOnce(ReasonCode) -> bool,
    clause: &'static str,
) -> Result<ReasonCode, Fault> {
    let code = ReasonCode::from_u8(reader.u8()?)
        .ok_or(DecodeError::malformed("2.4", "the Reason Code is not defined"))?;
    if legal(code) {
        return Ok(code);
    }
    Err(DecodeError::protocol(clause, "the Reason Code does not belong into this packet").into())
}

/// 3.2
fn connack<'a>(reader: &mut Reader<'a>, version: Version) -> Result<Connack<'a>, Fault> {
    let flags = reader.u8()?;
    // 3.1 has no Session Present; the byte is "not used" there.
    if version != Version::V31 && flags & 0xFE != 0 {
        return Err(
            DecodeError::malformed("MQTT-3.2.2-1", "a reserved Connect Acknowledge Flag is set").into()
        );
    }
    let session_present = version != Version::V31 && flags == 1;
    let reason = if version.is_v5() {
        reason(reader, legal::connack, "MQTT-3.2.2-8")?
    } else {
        ReasonCode::from_v3_connack(reader.u8()?)
            .ok_or(DecodeError::malformed("v3 3.2.2.3", "the return code of CONNACK is reserved"))?
    };
    if session_present && reason != ReasonCode::Success {
        return Err(DecodeError::protocol(
            "MQTT-3.2.2-6",
            "Session Present is set, and the connection refused",
        )
        .into());
    }
    let properties = if version.is_v5() { properties::connack(reader)? } else { Default::default() };
    Ok(Connack { session_present, reason, properties })
}

/// 3.3
fn publish<'a>(
    reader: &mut Reader<'a>,
    flags: u8,
    version: Version,
    sender: Role,
) -> Result<Publish<'a>, Fault> {
    // Both bits set was refused with the fixed header.
    let qos = match flags & 0x06 {
        0x02 => QoS::AtLeastOnce,
        0x04 => QoS::ExactlyOnce,
        _ => QoS::AtMostOnce,
    };
    let topic = reader.unchecked_text()?;
    let no_topic = match topic::validate(topic) {
        Ok(()) => false,
        Err(TopicError::Empty) if version.is_v5() => true,
        Err(error) => return Err(topic_error(error).into()),
    };
    let packet_id = if qos == QoS::AtMostOnce { None } else { Some(reader.packet_id()?) };
    let properties =
        if version.is_v5() { properties::publish(reader, sender)? } else { Properties::default() };
    if no_topic && properties.topic_alias().is_none() {
        return Err(DecodeError::protocol("3.3.2.1", "PUBLISH has neither topic nor Topic Alias").into());
    }
    Ok(Publish {
        dup: flags & 0x08 != 0,
        qos,
        retain: flags & 0x01 != 0,
        topic: Cow::Borrowed(topic),
        packet_id,
        properties,
        payload: Cow::Borrowed(reader.rest()?),
    })
}

fn topic_error(error: TopicError) -> DecodeError {
    let invalid = |clause, detail| DecodeError { reason: ReasonCode::TopicNameInvalid, clause, detail };
    match error {
        TopicError::Null => NULL_CHARACTER,
        TopicError::Empty => invalid("MQTT-4.7.3-1", "the topic of PUBLISH is empty"),
        TopicError::Wildcard => invalid("MQTT-3.3.2-2", "the topic of PUBLISH contains a wildcard"),
        TopicError::TooLong => invalid("MQTT-4.7.3-3", "the topic of PUBLISH is too long"),
    }
}

/// PUBACK, PUBREC, PUBREL, PUBCOMP (3.4 to 3.7).
fn ack<'a>(
    reader: &mut Reader<'a>,
    version: Version,
    legal: fn(ReasonCode) -> bool,
    clause: &'static str,
) -> Result<Ack<'a>, Fault> {
    let packet_id = reader.packet_id()?;
    // "The Reason Code and Property Length can be omitted if the Reason Code is 0x00 (Success) and there are no Properties" (3.4.2.1)
    if !version.is_v5() || reader.is_empty() {
        return Ok(Ack { packet_id, reason: ReasonCode::Success, properties: ReasonProperties::default() });
    }
    let reason = reason(reader, legal, clause)?;
    // "If the Remaining Length is less than 4 there is no Property Length" (3.4.2.2.1)
    let properties =
        if reader.is_empty() { ReasonProperties::default() } else { properties::reason(reader)? };
    Ok(Ack { packet_id, reason, properties })
}

/// 3.8
fn subscribe<'a>(reader: &mut Reader<'a>, version: Version) -> Result<Subscribe<'a>, Fault> {
    let packet_id = reader.packet_id()?;
    let (subscription_identifier, user_properties) =
        if version.is_v5() { properties::subscribe(reader)? } else { (None, Vec::new()) };
    let mut filters = Vec::new();
    while !reader.is_empty() {
        let filter = reader.text()?;
        let options = options(reader.u8()?, version)?;
        if options.no_local && filter.starts_with("$share/") {
            return Err(DecodeError::protocol("MQTT-3.8.3-4", "No Local on a shared subscription").into());
        }
        filters.push(SubscribeFilter { filter: Cow::Borrowed(filter), options });
    }
    if filters.is_empty() {
        return Err(DecodeError::protocol("MQTT-3.8.3-2", "SUBSCRIBE without a topic filter").into());
    }
    Ok(Subscribe { packet_id, subscription_identifier, user_properties, filters })
}

/// Subscription Options (3.8.3.1); before version 5 the requested QoS alone.
fn options(byte: u8, version: Version) -> Result<SubscriptionOptions, DecodeError> {
    let qos = QoS::from_u8(byte & 0x03);
    let reserved = match version {
        // "The upper 6 bits of this byte are not used" (3.1), which forbids nothing.
        Version::V31 => 0,
        Version::V311 => 0xFC,
        Version::V5 => 0xC0,
    };
    if byte & reserved != 0 {
        let clause = if version.is_v5() { "MQTT-3.8.3-5" } else { "v3 MQTT-3.8.3-4" };
        return Err(DecodeError::malformed(clause, "reserved bits of the Subscription Options are set"));
    }
    let qos = qos.ok_or(DecodeError::protocol("3.8.3.1", "the Maximum QoS of a subscription is 3"))?;
    if !version.is_v5() {
        return Ok(SubscriptionOptions { qos, ..Default::default() });
    }
    let retain_handling = match byte & 0x30 {
        0x00 => RetainHandling::Send,
        0x10 => RetainHandling::SendIfNew,
        0x20 => RetainHandling::DoNotSend,
        _ => return Err(DecodeError::protocol("3.8.3.1", "the Retain Handling of a subscription is 3")),
    };
    Ok(SubscriptionOptions {
        qos,
        no_local: byte & 0x04 != 0,
        retain_as_published: byte & 0x08 != 0,
        retain_handling,
    })
}

/// 3.9
fn suback<'a>(reader: &mut Reader<'a>, version: Version) -> Result<Suback<'a>, Fault> {
    let packet_id = reader.packet_id()?;
    let properties = if version.is_v5() { properties::reason(reader)? } else { ReasonProperties::default() };
    let mut reasons = Vec::new();
    while !reader.is_empty() {
        reasons.push(if version.is_v5() {
            reason(reader, legal::suback, "MQTT-3.9.3-2")?
        } else {
            v3_suback(reader.u8()?)?
        });
    }
    if reasons.is_empty() {
        return Err(DecodeError::protocol("MQTT-3.8.4-6", "SUBACK without a Reason Code").into());
    }
    Ok(Suback { packet_id, properties, reasons })
}

/// 0x00, 0x01, 0x02 and 0x80 are allowed [v3 MQTT-3.9.3-2].
fn v3_suback(code: u8) -> Result<ReasonCode, DecodeError> {
    match code {
        0x00 => Ok(ReasonCode::Success),
        0x01 => Ok(ReasonCode::GrantedQos1),
        0x02 => Ok(ReasonCode::GrantedQos2),
        0x80 => Ok(ReasonCode::UnspecifiedError),
        _ => Err(DecodeError::malformed("v3 MQTT-3.9.3-2", "the return code of SUBACK is reserved")),
    }
}

/// 3.10
fn unsubscribe<'a>(reader: &mut Reader<'a>, version: Version) -> Result<Unsubscribe<'a>, Fault> {
    let packet_id = reader.packet_id()?;
    let user_properties = if version.is_v5() { properties::unsubscribe(reader)? } else { Vec::new() };
    let mut filters = Vec::new();
    while !reader.is_empty() {
        filters.push(Cow::Borrowed(reader.text()?));
    }
    if filters.is_empty() {
        return Err(DecodeError::protocol("MQTT-3.10.3-2", "UNSUBSCRIBE without a topic filter").into());
    }
    Ok(Unsubscribe { packet_id, user_properties, filters })
}

/// 3.11; before version 5 nothing follows the packet identifier.
fn unsuback<'a>(reader: &mut Reader<'a>, version: Version) -> Result<Unsuback<'a>, Fault> {
    let packet_id = reader.packet_id()?;
    if !version.is_v5() {
        return Ok(Unsuback { packet_id, properties: ReasonProperties::default(), reasons: Vec::new() });
    }
    let properties = properties::reason(reader)?;
    let mut reasons = Vec::new();
    while !reader.is_empty() {
        reasons.push(reason(reader, legal::unsuback, "MQTT-3.11.3-2")?);
    }
    if reasons.is_empty() {
        return Err(DecodeError::protocol("3.11.3", "UNSUBACK without a Reason Code").into());
    }
    Ok(Unsuback { packet_id, properties, reasons })
}

/// 3.14
fn disconnect<'a>(reader: &mut Reader<'a>, version: Version, sender: Role) -> Result<Disconnect<'a>, Fault> {
    // "If the Remaining Length is less than 1 the value of 0x00 is used" (3.14.2.1)
    if !version.is_v5() || reader.is_empty() {
        return Ok(Disconnect { reason: ReasonCode::Success, properties: DisconnectProperties::default() });
    }
    let reason = reason(reader, |code| legal::disconnect(code, sender), "MQTT-3.14.2-1")?;
    // "If the Remaining Length is less than 2, a value of 0 is used" (3.14.2.2.1)
    let properties = if reader.is_empty() {
        DisconnectProperties::default()
    } else {
        properties::disconnect(reader, sender)?
    };
    Ok(Disconnect { reason, properties })
}

/// 3.15
fn auth<'a>(reader: &mut Reader<'a>, sender: Role) -> Result<Auth<'a>, Fault> {
    let mut auth = Auth {
        reason: ReasonCode::Success,
        authentication_method: None,
        authentication_data: None,
        reason_string: None,
        user_properties: Vec::new(),
    };
    let bare = reader.is_empty();
    if !bare {
        auth.reason = reason(reader, |code| legal::auth(code, sender), "MQTT-3.15.2-1")?;
        properties::auth(reader, &mut auth)?;
    } else if !legal::auth(ReasonCode::Success, sender) {
        return Err(DecodeError::protocol("MQTT-3.15.2-1", "a client sent AUTH with Success").into());
    }
    // The bare form stands for Success "and no Properties" (3.15.2.1); every other AUTH names its method (3.15.2.2.2).
    if !bare && auth.authentication_method.is_none() {
        return Err(DecodeError::protocol("3.15.2.2.2", "AUTH without Authentication Method").into());
    }
    Ok(auth)
}
