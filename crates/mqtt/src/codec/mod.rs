//! Bytes to packets and back; strict on everything the specification makes an error.
//!
//! Must not know: connections (whether a packet is allowed *now* is judged by its endpoint).

mod check;
pub mod decode;
pub mod encode;
mod legal;
mod peek;
pub mod plain;
mod properties;
mod reader;
pub mod run;
pub(crate) mod section;
mod template;
mod varint;
mod write;

pub use varint::MAX as MAX_REMAINING_LENGTH;

use crate::ReasonCode;

/// What [`decode::decode`] made of the front of a buffer.
#[derive(Debug, PartialEq, Eq)]
pub enum Decoded<'a> {
    /// A whole packet and the number of bytes it took.
    Packet(crate::packet::Packet<'a>, usize),
    /// Not all here: the whole packet takes at least this many bytes, counted from the front of the buffer.
    Incomplete(usize),
}

/// A peer broke the specification: what to answer and which clause says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{detail} [{clause}]")]
pub struct DecodeError {
    /// Malformed Packet (0x81), Protocol Error (0x82), Packet too large (0x95), Unsupported Protocol Version (0x84), ...
    pub reason: ReasonCode,
    /// Clause id without brackets, for example `MQTT-2.2.1-3`, or a section number (`3.1.2.11.2`) where the rule has no id.
    pub clause: &'static str,
    /// One sentence without the peer's bytes.
    pub detail: &'static str,
}

impl DecodeError {
    /// Malformed Packet (0x81): it cannot be parsed (4.13.1).
    const fn malformed(clause: &'static str, detail: &'static str) -> Self {
        Self { reason: ReasonCode::MalformedPacket, clause, detail }
    }

    /// Protocol Error (0x82): it can be parsed and says what it must not say (4.13.1).
    const fn protocol(clause: &'static str, detail: &'static str) -> Self {
        Self { reason: ReasonCode::ProtocolError, clause, detail }
    }
}
