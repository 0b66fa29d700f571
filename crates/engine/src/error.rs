//! Why an operation did not succeed, named for what the caller can do about it.

use crate::{Epoch, Pos, Rev};

/// Why an operation did not succeed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EngineError {
    /// No leader, reconnecting: nothing happened or it is safe to repeat with the same [`crate::DedupeId`].
    #[error("the engine is not available; retry")]
    Unavailable,
    /// Sent, and no answer came: repeat with the same id, or read back.
    #[error("the outcome is unknown; retry with the same id")]
    Unknown,
    /// The fence of the operation is held by a later epoch: this owner has been replaced and must stop.
    #[error("ownership was lost to epoch {}", current.0)]
    Fenced {
        /// The epoch that holds it now; `Epoch(0)` if nobody does.
        current: Epoch,
    },
    /// The record is not at the expected revision.
    #[error("the record is at revision {}", current.0)]
    Conflict {
        /// The revision it is at; [`Rev::NONE`] if there is no record.
        current: Rev,
    },
    /// The log no longer has this position.
    #[error("the log begins after {first}")]
    Truncated {
        /// The position before the first frame that is left.
        first: Pos,
    },
    /// A bound was reached; nothing happened. Stop reading the socket that asks, retry later.
    #[error("the engine's queue is full")]
    Busy,
    /// There is no room on the disk; nothing happened. As `Busy`, but it takes longer: it ends when somebody makes room.
    #[error("the disk is full")]
    Full,
    /// Larger than [`crate::Guarantees::max_frame`] or [`crate::Guarantees::max_value`].
    #[error("larger than the engine takes")]
    TooLarge,
    /// Stored data is damaged, or names a shard that this engine does not have. Never retried; raises an alarm.
    #[error("stored data is damaged")]
    Corrupt,
}
