//! The names in CONNECT, read ahead: sans-io.
//!
//! Bytes are looked at where they lie and stay there: all of them go to the server afterwards. [`Preread::look`] is
//! given everything that has arrived and says whether the names are known, more is needed, or nothing good will
//! come. Bound: [`Preread::new`]'s `max` bytes. Must not know: sockets, timers (the caller bounds the time), servers.

use mqtt::codec::DecodeError;
use mqtt::codec::decode::{Peek, peek_connect};
use mqtt::{ReasonCode, Version};

/// What the bytes so far say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen<'a> {
    /// Nothing yet: more bytes are needed.
    More,
    /// A CONNECT whose names are known.
    Connect(Head<'a>),
    /// Not the beginning of a CONNECT of any version.
    NotMqtt,
    /// A CONNECT that breaks the specification or the bound, and the version to answer it in; `None`: no answer.
    Malformed(DecodeError, Option<Version>),
}

/// The names in a CONNECT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head<'a> {
    /// From protocol name and level.
    pub version: Version,
    /// May be empty.
    pub client_id: &'a str,
    /// `None`: there is none, or it had not arrived and was not asked for.
    pub username: Option<&'a str>,
}

/// Looks at the beginning of a stream.
#[derive(Clone, Debug)]
pub struct Preread {
    max: usize,
    username: bool,
    /// Below this many bytes another look is of no use.
    needed: usize,
}

impl Preread {
    /// Looks at `max` bytes at most; waits for the user name if it is asked for.
    pub const fn new(max: usize, username: bool) -> Self {
        Self { max, username, needed: 1 }
    }

    /// Looks at all bytes that have arrived.
    pub fn look<'a>(&mut self, input: &'a [u8]) -> Seen<'a> {
        if input.len() < self.needed {
            return Seen::More;
        }
        match start(input) {
            Start::Foreign => return Seen::NotMqtt,
            Start::Short => {
                // A handful of bytes: each is looked at when it comes, so that a stranger is known early. A broken
                // header is found below.
                if let Err(error) = peek_connect(input, self.max) {
                    return Seen::Malformed(error, None);
                }
                return Seen::More;
            }
            Start::Connect => {}
        }
        match peek_connect(input, self.max) {
            Ok(Peek::Connect(head)) if self.username && !head.username_known => self
                .wait_for(head.username_needs, input.len())
                .unwrap_or(Seen::Malformed(USERNAME_TOO_FAR, Some(head.version))),
            Ok(Peek::Connect(head)) => Seen::Connect(Head {
                version: head.version,
                client_id: head.client_id,
                username: head.username,
            }),
            Ok(Peek::Incomplete(needed)) => self.wait_for(needed, input.len()).unwrap_or(Seen::More),
            Err(error) => Seen::Malformed(error, answer_version(input, &error)),
        }
    }

    /// `None`: what is needed lies beyond the bound.
    fn wait_for<'a>(&mut self, needed: usize, have: usize) -> Option<Seen<'a>> {
        if needed > self.max {
            return None;
        }
        self.needed = needed.max(have + 1);
        Some(Seen::More)
    }
}

const USERNAME_TOO_FAR: DecodeError = DecodeError {
    reason: ReasonCode::PacketTooLarge,
    clause: "3.1.2.11.4",
    detail: "the user name lies further behind than preread_size",
};

enum Start {
    Short,
    Foreign,
    Connect,
}

/// Whether the stream begins with the type of CONNECT and a protocol name of MQTT [MQTT-3.1.2-1].
fn start(input: &[u8]) -> Start {
    let Some((first, rest)) = input.split_first() else { return Start::Short };
    if first >> 4 != 1 {
        return Start::Foreign;
    }
    // The remaining length: up to four bytes, the last without its top bit (1.5.5).
    let Some(last) = rest.iter().take(4).position(|byte| byte & 0x80 == 0) else {
        return if rest.len() < 4 { Start::Short } else { Start::Foreign };
    };
    let name = rest.get(last + 1..).unwrap_or_default();
    for known in [&b"\x00\x04MQTT"[..], b"\x00\x06MQIsdp"] {
        let compared = name.len().min(known.len());
        if name.get(..compared) == known.get(..compared) {
            return if compared == known.len() { Start::Connect } else { Start::Short };
        }
    }
    Start::Foreign
}

/// In which version a CONNECT that can't be accepted is answered; `None`: not at all.
///
/// Version 5 has a Reason Code for everything [MQTT-4.13.1-1]. Before it there is an answer for an unknown level
/// only, the return code 1 [v3 MQTT-3.1.2-2]; whatever else is wrong closes the connection [v3 MQTT-4.8.0-1].
fn answer_version(input: &[u8], error: &DecodeError) -> Option<Version> {
    let level = level(input)?;
    let unsupported = error.reason == ReasonCode::UnsupportedProtocolVersion;
    // A level above 5 is answered as the newest version that is spoken here.
    match level & 0x7F {
        5.. => Some(Version::V5),
        _ if unsupported => Some(Version::V311),
        _ => None,
    }
}

/// The protocol level behind a protocol name that [`start`] has seen.
fn level(input: &[u8]) -> Option<u8> {
    let rest = input.get(1..)?;
    let last = rest.iter().position(|byte| byte & 0x80 == 0)?;
    let body = rest.get(last + 1..)?;
    let name = usize::from(u16::from_be_bytes([*body.first()?, *body.get(1)?]));
    body.get(2 + name).copied()
}

#[cfg(test)]
mod tests;
