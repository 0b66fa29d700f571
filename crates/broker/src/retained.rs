//! Retained messages by topic, found by filter.
//!
//! An ordered set, sorted level by level: what lies below a level is one stretch of it. A filter is answered by
//! walking the stretches that can match and leaping over the others. So every search can stop at any topic and go
//! on from there later, and one subscription to a large store need not hold up its worker.
//!
//! What is kept knows its topic: the store has no copy of it. This room must not know what else there is in what is kept, when
//! it expires, or who asks. It is told valid topics and filters.

mod order;
mod pattern;

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::ops::Bound;

use order::{Probe, Slot, probe};
use pattern::Pattern;

pub(crate) use order::Named;

/// Topics in a row that may miss before the search leaps: stepping is cheaper than leaping over a few.
const STEPS_BEFORE_LEAP: u32 = 8;

/// One value for each topic.
pub(crate) struct Retained<T> {
    by_topic: BTreeSet<Slot<T>>,
    changes: u64,
}

/// Where a search stopped and can go on: at this topic, or behind where it would be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Resume(Box<[u8]>);

impl<T: Named + 'static> Retained<T> {
    pub(crate) fn new() -> Self {
        Self { by_topic: BTreeSet::new(), changes: 0 }
    }

    /// Keeps `value` for its topic; gives what it replaces.
    pub(crate) fn insert(&mut self, value: T) -> Option<T> {
        self.changes += 1;
        self.by_topic.replace(Slot { change: self.changes, value }).map(|before| before.value)
    }

    pub(crate) fn remove(&mut self, topic: &str) -> Option<T> {
        self.changes += 1;
        self.by_topic.take(probe(&Probe(topic.as_bytes()))).map(|before| before.value)
    }

    pub(crate) fn get(&self, topic: &[u8]) -> Option<&T> {
        self.by_topic.get(probe(&Probe(topic))).map(|slot| &slot.value)
    }

    /// The number of the last change. While it stays the same, what was found is what is kept.
    pub(crate) fn changes(&self) -> u64 {
        self.changes
    }

    /// How many topics have a value.
    pub(crate) fn len(&self) -> usize {
        self.by_topic.len()
    }

    /// Appends the first `limit` values whose topics match `filter`, level by level in ascending order.
    ///
    /// Takes time for all topics that the filter's wildcards do not rule out, matching or not; for a store that
    /// may be large, [`Self::scan`] does the same in pieces.
    #[cfg(test)]
    pub(crate) fn matching<'a>(&'a self, filter: &str, limit: usize, out: &mut Vec<&'a T>) {
        self.scan(filter, None, u64::MAX, limit, usize::MAX, out);
    }

    /// Appends at most `limit` values whose topics match `filter`, level by level in ascending order, and looks at
    /// `steps` topics at most (at least 1). Values of a change after `until` are passed over. Gives where to go on, or `None`
    /// when everything was seen. Topics that were there from the first piece to the last are given exactly
    /// once, whatever else was inserted or removed in between.
    pub(crate) fn scan<'a>(
        &'a self,
        filter: &str,
        from: Option<Resume>,
        until: u64,
        limit: usize,
        steps: usize,
        out: &mut Vec<&'a T>,
    ) -> Option<Resume> {
        let pattern = Pattern::new(filter.as_bytes());
        let (mut from, mut steps) = (from.map_or_else(|| pattern.start(), |r| r.0.into_vec()), steps.max(1));
        let full = out.len().saturating_add(limit);
        loop {
            let mut misses = 0;
            let mut leap = None;
            let begin = Probe(&from);
            let all_after = (Bound::Included(probe(&begin)), Bound::Unbounded);
            for slot in self.by_topic.range::<dyn Named + '_, _>(all_after) {
                let topic = slot.topic();
                if steps == 0 || out.len() >= full {
                    return Some(Resume(topic.into()));
                }
                steps -= 1;
                if pattern.matches(topic) {
                    misses = 0;
                    if slot.change <= until {
                        out.push(&slot.value);
                    }
                    continue;
                }
                misses += 1;
                if misses == STEPS_BEFORE_LEAP {
                    leap = pattern.next_candidate(topic);
                    break;
                }
            }
            from = leap?;
        }
    }

    /// Removes every value that `keep` refuses.
    pub(crate) fn retain(&mut self, mut keep: impl FnMut(&T) -> bool) {
        self.changes += 1;
        self.by_topic.retain(|slot| keep(&slot.value));
    }
}
