//! Register: records by key, linearizable for each key, with revisions to compare.

use std::fmt;
use std::ops::Deref;

use crate::thin::Thin;
use crate::{Fence, Key};

/// The value of a record: bytes that never change. One word; all clones share one allocation of its exact size, and whoever
/// watches the register can keep what it was given at no cost beyond that word.
#[derive(Clone, PartialEq, Eq)]
pub struct Value(Thin);

impl Value {
    /// A value of these bytes, which are copied.
    pub fn new(bytes: &[u8]) -> Self {
        Self(Thin::new(bytes))
    }

    /// Whether both are one value that was cloned, not just equal ones.
    pub fn is(&self, other: &Self) -> bool {
        std::ptr::eq(self.as_ptr(), other.as_ptr())
    }
}

impl Deref for Value {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl<B: AsRef<[u8]>> From<B> for Value {
    fn from(bytes: B) -> Self {
        Self::new(bytes.as_ref())
    }
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Value({})", self.0)
    }
}

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
    pub value: Option<Value>,
    /// The condition.
    pub expect: Expect,
    /// A lease that must still be held.
    pub fence: Option<Fence>,
}

impl Write {
    /// An unconditional write.
    pub fn put(key: Key, value: impl Into<Value>) -> Self {
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
    pub value: Value,
    /// The revision of its last write.
    pub rev: Rev,
}

/// A change under a watched prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Which record.
    pub key: Key,
    /// The new value, or `None`: deleted.
    pub value: Option<Value>,
    /// The revision of this change.
    pub rev: Rev,
}

/// Names a watch of this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct WatchId(pub u64);

#[cfg(test)]
mod tests {
    use super::Value;

    #[test]
    fn a_value_is_one_word_and_its_clones_share_its_bytes() {
        assert_eq!(size_of::<Option<Value>>(), size_of::<usize>());
        for len in [0, 1, 7, 8, 1_000] {
            let bytes = vec![b'x'; len];
            let value = Value::from(&bytes);
            let clone = value.clone();
            assert_eq!((&*clone, clone.is(&value)), (bytes.as_slice(), true));
            drop(value);
            assert_eq!(&*clone, bytes);
            let equal = Value::new(&bytes);
            assert_eq!((equal == clone, equal.is(&clone)), (true, false));
        }
    }
}
