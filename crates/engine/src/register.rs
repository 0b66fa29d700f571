//! Register: records by key, linearizable for each key, with revisions to compare.

use bytes::Bytes;

use crate::{Fence, Key};

/// The revision of a record: grows with every write to the engine's register.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Rev(pub u64);

impl Rev {
    /// There is no record.
    pub const NONE: Self = Self(0);
}

/// What must be true of a record for a write to it to happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// Nothing.
    Any,
    /// There is no record.
    Absent,
    /// The record is at this revision; [`Rev::NONE`] is the same as `Absent`.
    Rev(Rev),
}

/// One write of a batch. A batch of one [`crate::Op::Put`] happens as a whole or not at all.
#[derive(Clone, Debug)]
pub struct Write {
    /// Which record.
    pub key: Key,
    /// The new value, or `None` to delete it.
    pub value: Option<Bytes>,
    /// The condition.
    pub expect: Expect,
    /// A lease that must still be held.
    pub fence: Option<Fence>,
}

impl Write {
    /// An unconditional write.
    pub fn put(key: Key, value: impl Into<Bytes>) -> Self {
        Self { key, value: Some(value.into()), expect: Expect::Any, fence: None }
    }

    /// An unconditional deletion; deleting what is not there succeeds.
    pub fn delete(key: Key) -> Self {
        Self { key, value: None, expect: Expect::Any, fence: None }
    }
}

/// A record as read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its key.
    pub key: Key,
    /// Its value.
    pub value: Bytes,
    /// The revision of its last write.
    pub rev: Rev,
}

/// A change under a watched prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Which record.
    pub key: Key,
    /// The new value, or `None`: deleted.
    pub value: Option<Bytes>,
    /// The revision of this change.
    pub rev: Rev,
}

/// Names a watch of this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct WatchId(pub u64);
