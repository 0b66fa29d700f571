//! CONNECT, in two halves: everything to the client identifier, then the rest.
//!
//! A gateway chooses a server by the client identifier, which comes before the will and the credentials, so it need not wait
//! for them. [`peek_connect`] and the full decoder share this code, so they cannot disagree.

use std::borrow::Cow;

use super::decode::{Header, Role, header};
use super::reader::{Fault, NOT_MINIMAL, Reader};
use super::{DecodeError, properties};
use crate::packet::{Connect, ConnectProperties, PublishProperties, Will};
use crate::topic::TopicError;
use crate::{QoS, ReasonCode, Version, topic};

/// What [`peek_connect`] made of the front of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Peek<'a> {
    /// The client identifier is not all here: at least this many bytes are needed, counted from the front.
    Incomplete(usize),
    /// The client identifier is known.
    Connect(ConnectHead<'a>),
}

/// The front of a CONNECT, and as much of the rest as has arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectHead<'a> {
    /// From protocol name and level.
    pub version: Version,
    /// The bridge bit, see [`Connect::bridge`].
    pub bridge: bool,
    /// Clean Start (5.0), Clean Session (before).
    pub clean_start: bool,
    /// Seconds; 0 turns it off.
    pub keep_alive: u16,
    /// Version 5 only.
    pub properties: ConnectProperties<'a>,
    /// May be empty: the server then makes one up.
    pub client_id: &'a str,
    /// The user name; `None` while it is not known, and if there is none.
    pub username: Option<&'a str>,
    /// Whether `username` is the last word.
    pub username_known: bool,
    /// While the user name is not known: at least this many bytes are needed to learn it, counted from the front; else 0.
    /// It may be more than the `max` of [`peek_connect`]: whoever waits for it compares.
    pub username_needs: usize,
    /// Bytes of the whole packet.
    pub packet_len: usize,
}

/// Reads as much of a CONNECT as is needed for its client identifier, and its user name if that has arrived as well.
///
/// Answers as soon as the client identifier is complete; call again with more bytes for the user name. What it accepts or
/// refuses, [`super::decode::decode`] accepts or refuses in the same words; errors behind the user name are not its business.
/// No more than `max` bytes are looked at: they bound the front of the packet, not the whole.
///
/// # Errors
/// The rule that the bytes break; Packet too large (0x95) if the client identifier ends behind `max` bytes; Protocol
/// Error if the first packet is no CONNECT [MQTT-3.1.0-1].
pub fn peek_connect(input: &[u8], max: usize) -> Result<Peek<'_>, DecodeError> {
    match peek(input.get(..max).unwrap_or(input)) {
        Ok(head) => Ok(Peek::Connect(head)),
        Err(Fault::Bad(error)) => Err(error),
        Err(Fault::Short(needed)) if needed > max => Err(DecodeError {
            reason: ReasonCode::PacketTooLarge,
            clause: "3.1.2.11.4",
            detail: "the front of CONNECT is larger than this server takes",
        }),
        Err(Fault::Short(needed)) => Ok(Peek::Incomplete(needed)),
    }
}

fn peek(input: &[u8]) -> Result<ConnectHead<'_>, Fault> {
    if input.first().is_some_and(|first| first >> 4 != 1) {
        return Err(DecodeError::protocol("MQTT-3.1.0-1", "the first packet is not CONNECT").into());
    }
    // The version is not known before the body; a CONNECT's header has none of the rules that depend on it.
    let header = header(input, Version::V311, Role::Client)?;
    let mut reader = Reader::new(input, header.len, header.total());
    let front = Front::read(&mut reader, &header)?;
    let rest = front.will(&mut reader).and_then(|_| front.username(&mut reader));
    let (username, username_needs) = match rest {
        Ok(username) => (username, 0),
        // Without one, it is known that there is none; what else is missing does not matter here.
        Err(Fault::Short(_)) if front.flags & USERNAME == 0 => (None, 0),
        Err(Fault::Short(needed)) => (None, needed),
        Err(bad) => return Err(bad),
    };
    Ok(ConnectHead {
        version: front.version,
        bridge: front.bridge,
        clean_start: front.flags & CLEAN_START != 0,
        keep_alive: front.keep_alive,
        properties: front.properties,
        client_id: front.client_id,
        username,
        username_known: username_needs == 0,
        username_needs,
        packet_len: header.total(),
    })
}

/// Reads the body of a CONNECT that is all here.
pub(super) fn connect<'a>(mut reader: Reader<'a>, header: &Header) -> Result<Connect<'a>, Fault> {
    let front = Front::read(&mut reader, header)?;
    let will = front.will(&mut reader)?;
    let username = front.username(&mut reader)?;
    let password = front.password(&mut reader, username.is_some())?;
    reader.finish()?;
    Ok(Connect {
        version: front.version,
        bridge: front.bridge,
        clean_start: front.flags & CLEAN_START != 0,
        keep_alive: front.keep_alive,
        client_id: Cow::Borrowed(front.client_id),
        will,
        username: username.map(Cow::Borrowed),
        password: password.map(Cow::Borrowed),
        properties: front.properties,
    })
}

// Connect Flags (3.1.2.3).
const RESERVED: u8 = 0x01;
const CLEAN_START: u8 = 0x02;
const WILL: u8 = 0x04;
const WILL_QOS: u8 = 0x18;
const WILL_RETAIN: u8 = 0x20;
const PASSWORD: u8 = 0x40;
const USERNAME: u8 = 0x80;

/// Everything to the client identifier.
struct Front<'a> {
    version: Version,
    bridge: bool,
    flags: u8,
    will_qos: QoS,
    keep_alive: u16,
    properties: ConnectProperties<'a>,
    client_id: &'a str,
}

impl<'a> Front<'a> {
    fn read(reader: &mut Reader<'a>, header: &Header) -> Result<Self, Fault> {
        let (version, bridge) = version(reader)?;
        // 3.1 and 3.1.1 do not ask for the shortest form of the remaining length.
        if version.is_v5() && !header.minimal {
            return Err(NOT_MINIMAL.into());
        }
        let flags = reader.u8()?;
        let will_qos = check_flags(flags, version)?;
        let keep_alive = reader.u16()?;
        let properties =
            if version.is_v5() { properties::connect(reader)? } else { ConnectProperties::default() };
        // Its length is not judged here: 3.1 asks for 1 to 23 characters, and no server in use enforces that. An empty one
        // is the broker's to refuse where it must: 0x85 or return code 2 [MQTT-3.1.3-8], [v3 MQTT-3.1.3-8].
        let client_id = reader.text()?;
        Ok(Self { version, bridge, flags, will_qos, keep_alive, properties, client_id })
    }

    fn will(&self, reader: &mut Reader<'a>) -> Result<Option<Will<'a>>, Fault> {
        if self.flags & WILL == 0 {
            return Ok(None);
        }
        let (delay_interval, properties) = if self.version.is_v5() {
            properties::will(reader)?
        } else {
            (None, PublishProperties::default())
        };
        let topic = reader.unchecked_text()?;
        topic::validate(topic).map_err(will_topic_error)?;
        let payload = reader.binary()?;
        Ok(Some(Will {
            topic: Cow::Borrowed(topic),
            payload: Cow::Borrowed(payload),
            qos: self.will_qos,
            retain: self.flags & WILL_RETAIN != 0,
            delay_interval,
            properties,
        }))
    }

    fn username(&self, reader: &mut Reader<'a>) -> Result<Option<&'a str>, Fault> {
        if self.flags & USERNAME == 0 || self.missing(reader) {
            return Ok(None);
        }
        reader.text().map(Some)
    }

    fn password(&self, reader: &mut Reader<'a>, username: bool) -> Result<Option<&'a [u8]>, Fault> {
        if self.flags & PASSWORD == 0 || (!username && self.missing(reader)) || self.missing(reader) {
            return Ok(None);
        }
        reader.binary().map(Some)
    }

    /// In 3.1 "the Remaining Length field takes precedence over the User Name flag": a flagged string that is
    /// simply not there is valid (3.1, "User Name" and "Password"), because older clients did so.
    fn missing(&self, reader: &Reader<'a>) -> bool {
        self.version == Version::V31 && reader.is_empty()
    }
}

/// Protocol name [MQTT-3.1.2-1] and level [MQTT-3.1.2-2] with the bridge bit.
fn version(reader: &mut Reader<'_>) -> Result<(Version, bool), Fault> {
    const NAME: DecodeError = DecodeError {
        reason: ReasonCode::UnsupportedProtocolVersion,
        clause: "MQTT-3.1.2-1",
        detail: "the protocol name is not MQTT",
    };
    const LEVEL: DecodeError = DecodeError {
        reason: ReasonCode::UnsupportedProtocolVersion,
        clause: "MQTT-3.1.2-2",
        detail: "the protocol version is not spoken here",
    };
    let len = reader.u16()?;
    if !matches!(len, 4 | 6) {
        return Err(NAME.into());
    }
    let old = match reader.take(usize::from(len))? {
        b"MQTT" => false,
        b"MQIsdp" => true,
        _ => return Err(NAME.into()),
    };
    let byte = reader.u8()?;
    let version = match (old, byte & 0x7F) {
        (true, 3) => Version::V31,
        (false, 4) => Version::V311,
        (false, 5) => Version::V5,
        _ => return Err(LEVEL.into()),
    };
    Ok((version, byte & 0x80 != 0))
}

/// Checks the Connect Flags and gives the QoS of the will.
fn check_flags(flags: u8, version: Version) -> Result<QoS, DecodeError> {
    if flags & RESERVED != 0 {
        return Err(DecodeError::malformed("MQTT-3.1.2-3", "the reserved Connect Flag is set"));
    }
    let qos = QoS::from_u8((flags & WILL_QOS) >> 3)
        .ok_or(DecodeError::malformed("MQTT-3.1.2-12", "the Will QoS is 3"))?;
    if flags & WILL == 0 {
        if qos != QoS::AtMostOnce {
            return Err(DecodeError::malformed("MQTT-3.1.2-11", "a Will QoS without a Will"));
        }
        if flags & WILL_RETAIN != 0 {
            return Err(DecodeError::malformed("MQTT-3.1.2-13", "a Will Retain without a Will"));
        }
    }
    // Version 5 allows it: "a Password as a credential with no User Name" (3.1.2.9).
    if !version.is_v5() && flags & PASSWORD != 0 && flags & USERNAME == 0 {
        return Err(DecodeError::malformed("v3 MQTT-3.1.2-22", "a Password without a User Name"));
    }
    Ok(qos)
}

fn will_topic_error(error: TopicError) -> DecodeError {
    match error {
        TopicError::Null => super::reader::NULL_CHARACTER,
        TopicError::Empty => DecodeError {
            reason: ReasonCode::TopicNameInvalid,
            clause: "MQTT-4.7.3-1",
            detail: "the Will Topic is empty",
        },
        TopicError::Wildcard | TopicError::TooLong => DecodeError {
            reason: ReasonCode::TopicNameInvalid,
            clause: "MQTT-4.7.0-1",
            detail: "the Will Topic contains a wildcard",
        },
    }
}
