//! WebSocket as a transport for a stream of bytes: RFC 6455, sans-io.
//!
//! * [`Handshake`]: the server's half of the HTTP/1.1 upgrade, bounded in bytes and headers.
//! * [`ClientHandshake`]: the client's half.
//! * [`Decoder`]: what the peer sent, in pieces of any size; payload is unmasked in place and never gathered.
//! * [`Encoder`]: frames around bytes that somebody else keeps, with pongs and the Close between them.
//!
//! What follows from being a transport: the boundaries of binary messages mean nothing here, as MQTT wants it
//! ([MQTT-6.0.0-2]), so a message needs no memory however many fragments it has. Text is refused. No extension is
//! offered or accepted, permessage-deflate neither: its window would cost every idle connection tens of kilobytes.
//!
//! Must not know: sockets, tasks, MQTT, where chance comes from.

mod client;
mod decode;
mod encode;
mod handshake;
mod mask;

pub use client::{ClientError, ClientHandshake};
pub use decode::{Decoder, Event, Violation};
pub use encode::{Encoder, frame};
pub use handshake::{Accepted, Handshake, HeaderValue, MAX_HEAD, MAX_HEADERS, Refusal, Rules};

/// The longest payload of a ping, a pong or a Close, section 5.5.
pub const CONTROL_MAX: usize = 125;
/// The sub-protocol of MQTT, any version [MQTT-6.0.0-4].
pub const MQTT: &str = "mqtt";

/// Which end of the connection somebody is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Masks what it sends, section 5.3.
    Client,
    /// Masks nothing.
    Server,
}

/// The meanings of close codes that this crate sends, section 7.4.1.
pub mod close {
    /// The purpose was fulfilled.
    pub const NORMAL: u16 = 1000;
    /// The server goes down.
    pub const GOING_AWAY: u16 = 1001;
    /// The peer broke a rule of the protocol.
    pub const PROTOCOL_ERROR: u16 = 1002;
    /// A type of data that cannot be taken: text.
    pub const UNSUPPORTED: u16 = 1003;
    /// A text that is not UTF-8.
    pub const INVALID_DATA: u16 = 1007;
    /// A rule of ours that has no code of its own.
    pub const POLICY: u16 = 1008;
    /// Larger than is taken.
    pub const TOO_BIG: u16 = 1009;
}

/// The payload of a control frame.
#[derive(Clone, Copy, Debug)]
pub struct Control {
    len: u8,
    bytes: [u8; CONTROL_MAX],
}

impl Control {
    const EMPTY: Self = Self { len: 0, bytes: [0; CONTROL_MAX] };

    /// The front of `payload`, at most [`CONTROL_MAX`] bytes.
    pub fn new(payload: &[u8]) -> Self {
        let mut control = Self::EMPTY;
        control.append(payload);
        control
    }

    /// The bytes.
    pub fn payload(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.len)).unwrap_or_default()
    }

    /// Adds what fits.
    fn append(&mut self, more: &[u8]) {
        let room = self.bytes.get_mut(usize::from(self.len)..).unwrap_or_default();
        let taken = room.len().min(more.len());
        for (to, from) in room.iter_mut().zip(more) {
            *to = *from;
        }
        self.len = self.len.saturating_add(u8::try_from(taken).unwrap_or(u8::MAX));
    }
}

impl PartialEq for Control {
    fn eq(&self, other: &Self) -> bool {
        self.payload() == other.payload()
    }
}

impl Eq for Control {}

/// Numbers of frames, section 5.2.
mod opcode {
    pub(super) const CONTINUATION: u8 = 0x0;
    pub(super) const TEXT: u8 = 0x1;
    pub(super) const BINARY: u8 = 0x2;
    pub(super) const CLOSE: u8 = 0x8;
    pub(super) const PING: u8 = 0x9;
    pub(super) const PONG: u8 = 0xA;
}

/// The first byte of a frame: no more fragments follow.
const FIN: u8 = 0x80;
/// The first byte: bits that only extensions use.
const RESERVED: u8 = 0x70;
/// The second byte: a mask follows the length.
const MASKED: u8 = 0x80;
/// The longest head of a frame: two bytes, eight of length, four of mask.
const HEAD_MAX: usize = 14;

#[cfg(test)]
mod tests;
