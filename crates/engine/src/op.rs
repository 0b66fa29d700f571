//! The operations a port submits and their answers.

use std::time::Duration;

use bytes::Bytes;

use crate::{DedupeId, Fence, Held, Key, LogFrame, Pos, Record, Rev, Shard, Write};

/// The submitter's number for an operation; the engine only carries it back.
pub type Token = u64;

/// An operation. A clone is cheap (bytes are shared): submitters keep one to repeat it.
#[derive(Clone, Debug)]
pub enum Op {
    /// Appends a frame; durable as [`crate::Guarantees`] promise when answered. → [`Reply::Appended`]
    Append {
        /// To which shard.
        shard: Shard,
        /// At most [`crate::Guarantees::max_frame`] bytes.
        frame: Bytes,
        /// Makes a repetition harmless.
        id: DedupeId,
        /// A lease that must still be held.
        fence: Option<Fence>,
    },
    /// Reads frames after a position, oldest first, until `max_bytes` is passed (at least one frame if there is one).
    /// → [`Reply::Frames`], or [`crate::EngineError::Truncated`] if frames after `after` are gone.
    Read {
        /// From which shard.
        shard: Shard,
        /// Frames with a sequence above that of `after`.
        after: Pos,
        /// Bytes of frames, 1 or more.
        max_bytes: usize,
    },
    /// The end of the shard, linearizable. → [`Reply::Head`]
    Head {
        /// Of which shard.
        shard: Shard,
    },
    /// Forgets whole frames with a sequence below that of `before`. → [`Reply::Trimmed`]
    Trim {
        /// Of which shard.
        shard: Shard,
        /// The first position to keep.
        before: Pos,
    },
    /// Reads a record, linearizable. → [`Reply::Got`]
    Get {
        /// Which record.
        key: Key,
    },
    /// Reads records under a prefix in the order of their keys. → [`Reply::Scanned`]
    Scan {
        /// Keys that begin with these bytes.
        prefix: Key,
        /// Go on after this key; `None`: from the first.
        after: Option<Key>,
        /// How many, 1 or more.
        limit: usize,
    },
    /// Writes records, all or none. → [`Reply::Written`], [`crate::EngineError::Conflict`] or [`crate::EngineError::Fenced`]
    Put {
        /// At least one; each key at most once (a second write to a key is a Conflict).
        writes: Vec<Write>,
    },
    /// Answers once every watcher of this process has been given all changes under the prefix acknowledged so far. → [`Reply::Passed`]
    Barrier {
        /// Which prefix.
        prefix: Key,
    },
    /// Takes or renews a lease for this port's node. → [`Reply::Leased`], or [`crate::EngineError::Fenced`] if another holds it.
    Acquire {
        /// Which lease.
        key: Key,
        /// Who wants it: a renewal comes from the same holder.
        holder: u64,
        /// How long it lasts without renewal.
        ttl: Duration,
    },
    /// Gives a lease back. → [`Reply::Released`]; no error if it was not held.
    Release {
        /// Which lease.
        key: Key,
        /// Who held it.
        holder: u64,
    },
}

/// The answer to an [`Op`] that succeeded.
#[derive(Debug, PartialEq, Eq)]
pub enum Reply {
    /// The frame lies at this sequence.
    Appended {
        /// Sequence of the frame.
        seq: u64,
    },
    /// Frames in ascending order; empty at the end of the log.
    Frames(Vec<LogFrame>),
    /// The position of the end: the last frame's [`Pos::end_of`], or [`Pos::START`].
    Head(Pos),
    /// Done.
    Trimmed,
    /// The record, if there is one.
    Got(Option<Record>),
    /// Records in the order of their keys; `more` if the limit cut it.
    Scanned {
        /// What was found.
        records: Vec<Record>,
        /// Whether there are further ones.
        more: bool,
    },
    /// The revision of each write, in order.
    Written(Vec<Rev>),
    /// The highest revision acknowledged before the barrier.
    Passed(Rev),
    /// The lease is held.
    Leased(Held),
    /// The lease is free.
    Released,
}
