//! What an engine gives back to a port.

use bytes::Bytes;

use crate::{Change, EngineError, Key, LogFrame, NodeId, Port, Pos, Reply, Shard, Token, WatchId};

/// One thing that arrives at a port.
#[derive(Debug)]
pub enum Arrival {
    /// The answer to a submitted operation.
    Done {
        /// The submitter's own number.
        token: Token,
        /// What became of it.
        result: Result<Reply, EngineError>,
    },
    /// The next frames of a tailed shard.
    Frames {
        /// Which shard.
        shard: Shard,
        /// In ascending order, without gap.
        frames: Vec<LogFrame>,
    },
    /// The tail fell behind what the log still keeps: frames before `first` are gone.
    Truncated {
        /// Which shard.
        shard: Shard,
        /// The position before the first frame that is left.
        first: Pos,
    },
    /// Records under a watched prefix: the snapshot first, then changes. A record that is written while the snapshot is on its
    /// way may come more than once before [`Self::WatchReady`], each time with a higher revision (or deleted): apply them in the
    /// order in which they come.
    Changed {
        /// From [`crate::Engine::watch`].
        watch: WatchId,
        /// In the order of their revisions; those of the snapshot in any order.
        changes: Vec<Change>,
    },
    /// The snapshot of a watch is complete.
    WatchReady {
        /// From [`crate::Engine::watch`].
        watch: WatchId,
    },
    /// A frame from another port or node.
    Lane {
        /// The sender's node.
        from: NodeId,
        /// The sender's port.
        port: Port,
        /// What it sent.
        frame: Bytes,
    },
    /// Frames of this sender were lost on the way.
    LaneGap {
        /// The sender's node.
        from: NodeId,
        /// The sender's port.
        port: Port,
        /// How many.
        missing: u64,
    },
    /// A lease this port held is no longer its own: whatever it protected must stop at once. Never comes before the answer
    /// that granted it.
    LeaseLost {
        /// Which lease.
        key: Key,
    },
}

/// Where arrivals of a port go: a worker's mailbox. Called on the engine's threads; must not block.
pub trait Inbox: Send + Sync {
    /// Takes a batch; one wake-up for all of it. The number of arrivals is bounded by what was asked for, except frames
    /// and changes, which the engine sends in pieces of at most 1 MiB (a single frame or record that is larger comes alone).
    fn deliver(&self, batch: Vec<Arrival>);
}
