//! Lease: one holder at a time, by name, for a stated time; a fence for whatever it protects.

use crate::Key;

/// Counts the holders of a lease: every new holder gets a higher one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Epoch(pub u64);

/// A lease that was granted or renewed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// Goes into the fence of everything the holder writes.
    pub epoch: Epoch,
}

/// A condition on a write: the lease is still held in this epoch. Otherwise the write has no effect and the answer is
/// [`crate::EngineError::Fenced`]; a node that slept through its lease cannot append late.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fence {
    /// Which lease.
    pub lease: Key,
    /// The epoch that the writer holds.
    pub epoch: Epoch,
}
