//! Log: frames appended in one total order for each shard.

use std::fmt;

use bytes::Bytes;

/// One of the log's independent orders: 0 and up, below [`crate::Guarantees::shards`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Shard(pub u16);

/// A place in a shard: `(frame sequence << 16) | index of the message in its frame`. Frame sequences begin with 1, so
/// [`Pos::START`] lies before everything.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Pos(pub u64);

impl Pos {
    /// Before the first frame.
    pub const START: Self = Self(0);
    /// Messages a frame may hold: indices are 16 bits.
    pub const MAX_INDEX: usize = u16::MAX as usize;

    /// The position of message `index` in frame `seq`.
    pub const fn new(seq: u64, index: u16) -> Self {
        Self((seq << 16) | index as u64)
    }

    /// The last position a frame can hold: a cursor that has seen the whole frame.
    pub const fn end_of(seq: u64) -> Self {
        Self((seq << 16) | 0xFFFF)
    }

    /// The frame.
    pub const fn seq(self) -> u64 {
        self.0 >> 16
    }

    /// The message in the frame.
    pub const fn index(self) -> u16 {
        (self.0 & 0xFFFF) as u16
    }
}

impl fmt::Display for Pos {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.seq(), self.index())
    }
}

impl fmt::Debug for Pos {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A frame as it lies in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogFrame {
    /// Its sequence in the shard, from 1, without gap.
    pub seq: u64,
    /// What was appended.
    pub bytes: Bytes,
}

/// Makes an append idempotent: a second append with the same id, within the engine's window (at least the last 65,536
/// appends of the shard and 10 minutes), has no effect and is answered with the position of the first, whether or not its
/// fence is still held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DedupeId(pub u128);
