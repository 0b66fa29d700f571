//! The window in which a repeated append is recognised.
//!
//! Must not know: frames, ports, clocks (the time is an argument).

use std::collections::VecDeque;
use std::hash::BuildHasher;
use std::time::Duration;

use hashbrown::{DefaultHashBuilder, HashTable};

use crate::DedupeId;

/// How finely the age of ids is kept.
const MARK_EVERY: Duration = Duration::from_secs(1);

/// How long ids are remembered.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reach {
    /// At least so many of the last appends.
    pub(crate) appends: usize,
    /// At least the appends of so much time, as far as `max_ids` allows.
    pub(crate) time: Duration,
    /// Never more than so many.
    pub(crate) max_ids: usize,
}

/// The ids of the last appends. Every append is remembered, so an id's place is its sequence: 16 bytes for each id and
/// one table slot, and no time of its own.
#[derive(Clone, Debug)]
pub(crate) struct Window {
    reach: Reach,
    ids: VecDeque<u128>,
    /// The sequence of `ids[0]`.
    first: u64,
    /// Sequences, found by the hash of their id.
    table: HashTable<u64>,
    hasher: DefaultHashBuilder,
    /// `(time, sequence)`: everything below the sequence was remembered at or before the time.
    marks: VecDeque<(Duration, u64)>,
    /// Ids below this sequence are older than `reach.time`.
    aged: u64,
}

impl Window {
    pub(crate) fn new(reach: Reach) -> Self {
        Self::starting_at(reach, 1)
    }

    /// An empty one of a log whose next append gets the sequence `first`.
    pub(crate) fn starting_at(reach: Reach, first: u64) -> Self {
        Self {
            reach,
            ids: VecDeque::new(),
            first,
            table: HashTable::new(),
            hasher: DefaultHashBuilder::default(),
            marks: VecDeque::new(),
            aged: 0,
        }
    }

    /// The sequence of the append with this id.
    pub(crate) fn find(&self, id: DedupeId) -> Option<u64> {
        self.table.find(self.hasher.hash_one(id.0), |&seq| self.id(seq) == Some(id.0)).copied()
    }

    /// The sequence of the oldest append whose id is known; that of the next append if there is none.
    pub(crate) fn first(&self) -> u64 {
        self.first
    }

    /// Remembers the id of the next append. `seq` is one above the last one.
    pub(crate) fn remember(&mut self, seq: u64, id: DedupeId, now: Duration) {
        debug_assert_eq!(seq, self.first + self.ids.len() as u64, "every append is remembered");
        if self.marks.back().is_none_or(|&(at, _)| now.saturating_sub(at) >= MARK_EVERY) {
            self.marks.push_back((now, seq));
        }
        self.ids.push_back(id.0);
        let (ids, first, hasher) = (&self.ids, self.first, &self.hasher);
        let rehash = |&seq: &u64| hasher.hash_one(ids.get(index(seq, first)).copied().unwrap_or_default());
        self.table.insert_unique(self.hasher.hash_one(id.0), seq, rehash);
        self.forget(now);
    }

    fn forget(&mut self, now: Duration) {
        while let Some(&(at, seq)) = self.marks.front()
            && now.saturating_sub(at) >= self.reach.time
        {
            self.aged = seq;
            self.marks.pop_front();
        }
        let beyond =
            |w: &Self| w.ids.len() > w.reach.max_ids || (w.ids.len() > w.reach.appends && w.first < w.aged);
        while beyond(self) {
            let Some(id) = self.ids.front().copied() else { return };
            let seq = self.first;
            if let Ok(slot) = self.table.find_entry(self.hasher.hash_one(id), |&s| s == seq) {
                slot.remove();
            }
            self.ids.pop_front();
            self.first += 1;
        }
    }

    fn id(&self, seq: u64) -> Option<u128> {
        self.ids.get(index(seq, self.first)).copied()
    }
}

fn index(seq: u64, first: u64) -> usize {
    usize::try_from(seq.wrapping_sub(first)).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::{DedupeId, Reach, Window};
    use std::time::Duration;

    fn window(appends: usize, secs: u64, max_ids: usize) -> Window {
        Window::new(Reach { appends, time: Duration::from_secs(secs), max_ids })
    }

    #[test]
    fn an_id_is_known_while_it_is_young_even_beyond_the_count() {
        let mut w = window(2, 600, 1000);
        for seq in 1..=10 {
            w.remember(seq, DedupeId(u128::from(seq)), Duration::from_secs(seq));
        }
        assert_eq!(w.find(DedupeId(1)), Some(1));
        w.remember(11, DedupeId(11), Duration::from_secs(604));
        assert_eq!(w.find(DedupeId(1)), None, "older than 600 s and not among the last 2");
        assert_eq!(w.find(DedupeId(5)), Some(5), "599 s old");
    }

    #[test]
    fn an_id_is_known_while_it_is_among_the_last_even_if_old() {
        let mut w = window(3, 1, 1000);
        for seq in 1..=5 {
            w.remember(seq, DedupeId(u128::from(seq)), Duration::from_secs(seq * 100));
        }
        let known: Vec<_> = (1..=5).filter_map(|id| w.find(DedupeId(id))).collect();
        assert_eq!(known, [3, 4, 5]);
    }

    #[test]
    fn the_number_of_ids_is_bounded_whatever_the_rate() {
        let mut w = window(4, 600, 8);
        for seq in 1..=1000 {
            w.remember(seq, DedupeId(u128::from(seq)), Duration::ZERO);
        }
        assert_eq!((w.ids.len(), w.table.len(), w.marks.len()), (8, 8, 1));
        assert_eq!(w.find(DedupeId(992)), None);
        assert_eq!(w.find(DedupeId(993)), Some(993));
    }
}
