//! Connections that are new: most of a storm's are over in a moment, and what only matters to those that stay is done when
//! they have stayed. Pure. Must not know: sockets, what is done then.
//!
//! Bound: [`MOST`] connections. Rule at the bound: the oldest counts as one that stays.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// 1.5 MiB of them.
const MOST: usize = 65_536;

/// A connection: where it is listed, and its number, since the place may be another's by then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Newcomer {
    pub(crate) key: u32,
    pub(crate) sequence: u64,
}

/// Connections in the order of their age.
#[derive(Debug)]
pub(crate) struct Young {
    /// From this age on a connection is one that stays.
    age: Duration,
    list: VecDeque<(Instant, Newcomer)>,
}

impl Young {
    /// Nobody, until somebody comes. From `age` on a connection is one that stays.
    pub(crate) const fn new(age: Duration) -> Self {
        Self { age, list: VecDeque::new() }
    }

    /// A connection that is new now.
    pub(crate) fn push(&mut self, now: Instant, newcomer: Newcomer) {
        self.list.push_back((now, newcomer));
    }

    /// The oldest, where it is one that stays, or where there are too many. It may have ended long ago.
    pub(crate) fn pop(&mut self, now: Instant) -> Option<Newcomer> {
        if !self.is_due(now) {
            return None;
        }
        let (_, newcomer) = self.list.pop_front()?;
        if self.list.is_empty() {
            self.list = VecDeque::new(); // a storm's memory goes with it
        }
        Some(newcomer)
    }

    /// Whether [`Young::pop`] has one.
    pub(crate) fn is_due(&self, now: Instant) -> bool {
        let old = |(since, _): &(Instant, _)| now.saturating_duration_since(*since) >= self.age;
        self.list.len() > MOST || self.list.front().is_some_and(old)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use runtime::clock::Clock;

    use super::*;

    const AGE: Duration = Duration::from_secs(10);

    fn newcomer(number: u32) -> Newcomer {
        Newcomer { key: number, sequence: number.into() }
    }

    #[test]
    fn a_connection_stays_from_its_age_on() {
        let start = Clock::manual().0.now();
        let mut young = Young::new(AGE);
        young.push(start, newcomer(1));
        young.push(start + Duration::from_millis(1), newcomer(2));
        assert!(!young.is_due(start + AGE - Duration::from_nanos(1)) && young.is_due(start + AGE));
        assert_eq!(young.pop(start + AGE - Duration::from_nanos(1)), None);
        assert_eq!(young.pop(start + AGE), Some(newcomer(1)));
        assert_eq!(young.pop(start + AGE), None);
        assert_eq!(young.pop(start + 2 * AGE), Some(newcomer(2)));
        assert!(young.is_empty() && young.list.capacity() == 0 && young.pop(start + 2 * AGE).is_none());
    }

    #[test]
    fn of_too_many_the_oldest_counts_as_one_that_stays() {
        let start = Clock::manual().0.now();
        let mut young = Young::new(AGE);
        for number in 0..65_536 {
            young.push(start, newcomer(number));
            assert_eq!(young.pop(start), None);
        }
        young.push(start, newcomer(65_536));
        assert_eq!((young.pop(start), young.pop(start)), (Some(newcomer(0)), None));
    }
}
