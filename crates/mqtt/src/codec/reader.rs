//! Takes the fields of a packet off its front, never beyond the end that its lengths declare.

use super::{DecodeError, varint};
use crate::PacketId;

/// Why reading stopped.
#[derive(Debug)]
pub(super) enum Fault {
    /// The peer broke a rule.
    Bad(DecodeError),
    /// The field goes on behind the bytes that have arrived: this many are needed, counted from the front of the packet.
    Short(usize),
}

impl From<DecodeError> for Fault {
    fn from(error: DecodeError) -> Self {
        Self::Bad(error)
    }
}

const PAST_END: DecodeError = DecodeError::malformed("2.1.4", "a field reaches over the end of the packet");

/// A cursor over one packet, or over one section of it.
#[derive(Clone, Debug)]
pub(super) struct Reader<'a> {
    /// What has arrived, from the first byte of the packet.
    input: &'a [u8],
    at: usize,
    /// Where the packet or section ends by its declared length; possibly behind `input`.
    end: usize,
}

impl<'a> Reader<'a> {
    pub(super) const fn new(input: &'a [u8], at: usize, end: usize) -> Self {
        Self { input, at, end }
    }

    /// Bytes to the declared end.
    pub(super) const fn left(&self) -> usize {
        self.end.saturating_sub(self.at)
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.left() == 0
    }

    pub(super) fn take(&mut self, len: usize) -> Result<&'a [u8], Fault> {
        if len > self.left() {
            return Err(PAST_END.into());
        }
        let to = self.at.saturating_add(len);
        let bytes = self.input.get(self.at..to).ok_or(Fault::Short(to))?;
        self.at = to;
        Ok(bytes)
    }

    /// Everything to the declared end.
    pub(super) fn rest(&mut self) -> Result<&'a [u8], Fault> {
        self.take(self.left())
    }

    /// A reader for the next `len` bytes, which are skipped here.
    pub(super) fn section(&mut self, len: usize) -> Result<Self, Fault> {
        let at = self.at;
        self.take(len)?;
        Ok(Self { input: self.input, at, end: self.at })
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Fault> {
        let bytes = self.take(N)?;
        bytes.try_into().map_err(|_| PAST_END.into())
    }

    pub(super) fn u8(&mut self) -> Result<u8, Fault> {
        self.array().map(u8::from_be_bytes)
    }

    pub(super) fn u16(&mut self) -> Result<u16, Fault> {
        self.array().map(u16::from_be_bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, Fault> {
        self.array().map(u32::from_be_bytes)
    }

    /// A variable byte integer inside the packet: at most four bytes, and no more than needed [MQTT-1.5.5-1].
    pub(super) fn varint(&mut self) -> Result<u32, Fault> {
        let seen = self.input.get(self.at..self.end.min(self.input.len())).unwrap_or_default();
        match varint::read(seen) {
            varint::Read::Value(value, len) if len == varint::len(value) => {
                self.at += len;
                Ok(value)
            }
            varint::Read::Value(..) => Err(NOT_MINIMAL.into()),
            varint::Read::TooLong => Err(VARINT_TOO_LONG.into()),
            varint::Read::Short if self.at + seen.len() < self.end => {
                Err(Fault::Short(self.at + seen.len() + 1))
            }
            varint::Read::Short => Err(PAST_END.into()),
        }
    }

    /// Binary Data (1.5.6).
    pub(super) fn binary(&mut self) -> Result<&'a [u8], Fault> {
        let len = self.u16()?;
        self.take(usize::from(len))
    }

    /// A UTF-8 Encoded String (1.5.4).
    pub(super) fn text(&mut self) -> Result<&'a str, Fault> {
        let text = self.unchecked_text()?;
        if text.as_bytes().contains(&0) {
            return Err(NULL_CHARACTER.into());
        }
        Ok(text)
    }

    /// A UTF-8 Encoded String whose characters the caller still has to check for U+0000.
    pub(super) fn unchecked_text(&mut self) -> Result<&'a str, Fault> {
        // The standard library's UTF-8 has no surrogates either, nor over-long forms [MQTT-1.5.4-1];
        // U+FEFF stays where it is [MQTT-1.5.4-3].
        std::str::from_utf8(self.binary()?)
            .map_err(|_| DecodeError::malformed("MQTT-1.5.4-1", "a string is not well-formed UTF-8").into())
    }

    /// A packet identifier; never 0 [MQTT-2.2.1-3], [MQTT-2.2.1-4].
    pub(super) fn packet_id(&mut self) -> Result<PacketId, Fault> {
        PacketId::new(self.u16()?)
            .ok_or_else(|| DecodeError::protocol("MQTT-2.2.1-3", "the packet identifier is 0").into())
    }

    /// Nothing may be left [2.1.4].
    pub(super) fn finish(&self) -> Result<(), Fault> {
        if self.is_empty() {
            return Ok(());
        }
        Err(DecodeError::malformed("2.1.4", "bytes follow the last field of the packet").into())
    }
}

pub(super) const NULL_CHARACTER: DecodeError =
    DecodeError::malformed("MQTT-1.5.4-2", "a string contains U+0000");
pub(super) const NOT_MINIMAL: DecodeError =
    DecodeError::malformed("MQTT-1.5.5-1", "a variable byte integer takes more bytes than it needs");
pub(super) const VARINT_TOO_LONG: DecodeError =
    DecodeError::malformed("1.5.5", "a variable byte integer goes on behind its fourth byte");
