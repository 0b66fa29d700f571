//! Tails: which port has been given which frames.
//!
//! Must not know: how frames get into the log.

use std::collections::BTreeMap;

use super::outbox::Outbox;
use crate::{Arrival, LogFrame, Port, Pos, Shard};

/// The largest [`Arrival::Frames`] and [`Arrival::Changed`], see [`crate::Inbox::deliver`].
pub(crate) const PIECE: usize = 1 << 20;

/// The frames of all shards, as tails need them. A shard is one that exists.
pub(crate) trait Frames {
    /// The sequence of the last frame that may be given, 0 before the first.
    fn head(&self, shard: Shard) -> u64;

    /// The sequence that a reader at `next` can go on with: `next` itself, or the first that is left and the position
    /// before it.
    fn resume(&self, shard: Shard, next: u64) -> Result<u64, (u64, Pos)>;

    /// The next frames for a tail at `next`, which is not above the head: of at most `max_cost` (a larger one comes alone), and
    /// their cost. `None`: they can't be read, and the tail ends; who keeps them has told why.
    fn piece(&mut self, shard: Shard, next: u64, max_cost: usize) -> Option<(Vec<LogFrame>, usize)>;
}

/// The tails of all ports: the sequence that each gets next.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tails {
    next: BTreeMap<(Shard, Port), u64>,
}

impl Tails {
    pub(crate) fn set(&mut self, port: Port, shard: Shard, after: Pos) {
        self.next.insert((shard, port), after.seq() + 1);
    }

    /// Gives every tail the frames it has not seen, in pieces, at most about `max_cost` bytes each: the rest comes in the
    /// next turn. Whether something is left.
    pub(crate) fn feed(&mut self, logs: &mut impl Frames, max_cost: usize, out: &mut Outbox) -> bool {
        let mut left = false;
        self.next.retain(|&(shard, port), next| {
            if let Err((first, pos)) = logs.resume(shard, *next) {
                *next = first;
                out.push(port, Arrival::Truncated { shard, first: pos });
            }
            let mut given = 0;
            while *next <= logs.head(shard) && given < max_cost {
                let Some((frames, cost)) = logs.piece(shard, *next, PIECE) else { return false };
                given += cost;
                *next += frames.len() as u64;
                out.push(port, Arrival::Frames { shard, frames });
            }
            left |= *next <= logs.head(shard);
            true
        });
        left
    }
}
