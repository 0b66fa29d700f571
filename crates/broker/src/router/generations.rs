//! Counters by which a worker's cache knows that what it remembers is still so.

use std::hash::BuildHasher;
use std::sync::atomic::{AtomicU64, Ordering};

use hashbrown::DefaultHashBuilder;

use super::text::split_level;

/// Literal levels at a filter's start that tell its changes apart.
const DEPTH: usize = 3;
/// Counters for starts; a power of two. 32 KiB stay in the first-level data cache of a core.
const COUNTERS: usize = 4_096;

/// One counter for filters with a leading wildcard, and one for each (hashed) start of literal levels.
///
/// A filter is counted at its longest start of at most [`DEPTH`] literal levels: `devices/7/cmd/#` at
/// `devices/7/cmd`, `devices/+/cmd` at `devices`. A topic can be matched only by filters counted at one of its
/// own starts, so one subscription invalidates the topics below its start and, by chance of the hash, one
/// topic in 4,096.
pub(super) struct Generations {
    leading: Alone,
    starts: Box<[AtomicU64]>,
}

/// On cache lines of its own, since every worker reads it for every message.
#[repr(align(128))]
struct Alone(AtomicU64);

/// The counters a topic depends on, apart from that of leading wildcards.
#[derive(Clone, Copy, Debug)]
pub(super) struct Starts([u16; DEPTH]);

#[cfg(test)]
impl Starts {
    /// Whether a change at `other`'s longest start is seen here, by what it is or by chance of the hash.
    pub(super) fn feels(self, other: Self) -> bool {
        self.0.contains(&other.0[DEPTH - 1])
    }
}

impl Generations {
    pub(super) fn new() -> Self {
        Self {
            leading: Alone(AtomicU64::new(0)),
            starts: std::iter::repeat_with(|| AtomicU64::new(0)).take(COUNTERS).collect(),
        }
    }

    /// Says that what `filter` matches has changed.
    ///
    /// To be called after the change and before its lock is released: who sees the new count then also sees
    /// the change, because it must wait for the lock.
    pub(super) fn advance(&self, hasher: &DefaultHashBuilder, filter: &str) {
        let filter = filter.as_bytes();
        let mut literal_end = None;
        for end in level_ends(filter).take(DEPTH) {
            if matches!(filter[..end].last(), Some(b'+' | b'#')) {
                break;
            }
            literal_end = Some(end);
        }
        let counter = match literal_end {
            Some(end) => &self.starts[counter_of(hasher, &filter[..end])],
            None => &self.leading.0,
        };
        counter.fetch_add(1, Ordering::Release);
    }

    pub(super) fn starts_of(hasher: &DefaultHashBuilder, topic: &str) -> Starts {
        let topic = topic.as_bytes();
        let mut starts = [0; DEPTH];
        let mut last = 0;
        let mut ends = level_ends(topic);
        for start in &mut starts {
            // A short topic repeats its last counter, which changes nothing for the comparison.
            if let Some(end) = ends.next() {
                last = counter_of(hasher, &topic[..end]) as u16;
            }
            *start = last;
        }
        Starts(starts)
    }

    /// The sum of the counters a topic depends on. Counters only grow and each is read in order, so two equal
    /// sums mean that none of them has moved.
    pub(super) fn sum(&self, starts: Starts) -> u64 {
        let of_starts = starts.0.iter().map(|&at| self.starts[usize::from(at)].load(Ordering::Acquire));
        self.leading.0.load(Ordering::Acquire).wrapping_add(of_starts.fold(0, u64::wrapping_add))
    }
}

fn counter_of(hasher: &DefaultHashBuilder, start: &[u8]) -> usize {
    hasher.hash_one(start) as usize & (COUNTERS - 1)
}

/// Where each level ends, from the first on.
fn level_ends(path: &[u8]) -> impl Iterator<Item = usize> {
    let mut rest = Some(path);
    std::iter::from_fn(move || {
        rest = split_level(rest?).1;
        Some(path.len() - rest.map_or(0, |rest| rest.len() + 1))
    })
}
