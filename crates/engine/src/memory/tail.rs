//! Tails: which port has been given which frames.
//!
//! Must not know: how frames get into the log.

use std::collections::BTreeMap;

use super::log::ShardLog;
use super::outbox::Outbox;
use crate::{Arrival, Port, Pos, Shard};

/// The largest [`Arrival::Frames`] and [`Arrival::Changed`], see [`crate::Inbox::deliver`].
pub(super) const PIECE: usize = 1 << 20;

/// The tails of all ports: the sequence that each gets next.
#[derive(Debug, Default)]
pub(super) struct Tails {
    next: BTreeMap<(Shard, Port), u64>,
}

impl Tails {
    pub(super) fn set(&mut self, port: Port, shard: Shard, after: Pos) {
        self.next.insert((shard, port), after.seq() + 1);
    }

    /// Gives every tail the frames it has not seen, in pieces, at most about `max_cost` bytes each: the rest comes in the
    /// next turn. Whether something is left.
    pub(super) fn feed(&mut self, logs: &[ShardLog], max_cost: usize, out: &mut Outbox) -> bool {
        let mut left = false;
        for (&(shard, port), next) in &mut self.next {
            let Some(log) = logs.get(usize::from(shard.0)) else { continue };
            if let Err((first, pos)) = log.resume(*next) {
                *next = first;
                out.push(port, Arrival::Truncated { shard, first: pos });
            }
            let mut given = 0;
            while *next <= log.head() && given < max_cost {
                let (frames, cost) = log.piece(*next, PIECE);
                given += cost;
                *next += frames.len() as u64;
                out.push(port, Arrival::Frames { shard, frames });
            }
            left |= *next <= log.head();
        }
        left
    }
}
