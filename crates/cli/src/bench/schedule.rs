//! When each message is to be sent in an open loop: by the clock alone, whatever the server does.
//!
//! All senders of all threads share one rate. The k-th event of a run belongs to sender `k mod senders`, and its time is
//! `start + k / rate`: senders are evenly apart, and nobody has to talk to another thread to know its turns. Pure.

/// The turns of some senders in the schedule of all.
#[derive(Clone, Debug)]
pub(super) struct Schedule {
    start: u64,
    /// Nanoseconds between two events of the whole run.
    step: f64,
    /// Senders of the whole run.
    senders: u64,
    /// The numbers of ours, ascending.
    own: Vec<u64>,
    /// The next turn: round, and place in `own`.
    round: u64,
    place: usize,
    /// Events of the whole run; later ones are never due.
    count: u64,
}

impl Schedule {
    /// Turns of the senders `own` (numbers below `senders`, ascending) at `rate` events per second over all senders,
    /// which is above zero, from `start` on, `count` events over all senders.
    pub(super) fn new(rate: f64, senders: u64, own: Vec<u64>, start: u64, count: u64) -> Self {
        Self { start, step: 1e9 / rate, senders, own, round: 0, place: 0, count }
    }

    /// When the `sequence`-th event of a sender is to happen.
    pub(super) fn intended(&self, sender: u64, sequence: u64) -> u64 {
        self.at(sequence * self.senders + sender)
    }

    fn at(&self, event: u64) -> u64 {
        // Exact far beyond any run: a double has 53 bits, and 2^53 ns are 104 days.
        self.start.saturating_add((event as f64 * self.step) as u64)
    }

    /// When the next of our turns is; nothing when all are over.
    pub(super) fn next(&self) -> Option<u64> {
        let event = self.round * self.senders + self.own.get(self.place)?;
        (event < self.count).then(|| self.at(event))
    }

    /// The place in `own` of the sender whose turn has come by `now`, once for each event.
    pub(super) fn pop_due(&mut self, now: u64) -> Option<usize> {
        if self.next()? > now {
            return None;
        }
        let place = self.place;
        self.place += 1;
        if self.place == self.own.len() {
            self.place = 0;
            self.round += 1;
        }
        Some(place)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// However the senders are spread over threads, together they have every turn once, each at its time.
        #[test]
        fn threads_together_have_every_turn_once(
            rate in 1.0..1e6_f64, senders in 1_u64..40, threads in 1_u64..5, count in 0_u64..300, start in 0_u64..1000
        ) {
            let mut turns = Vec::new();
            for thread in 0..threads {
                let own: Vec<u64> = (0..senders).filter(|sender| sender % threads == thread).collect();
                let mut schedule = Schedule::new(rate, senders, own.clone(), start, count);
                let mut sent = vec![0; own.len()];
                while let Some(next) = schedule.next() {
                    if let Some(before) = next.checked_sub(1) {
                        prop_assert_eq!(schedule.pop_due(before), None);
                    }
                    let place = schedule.pop_due(next).expect("its time has come");
                    prop_assert_eq!(schedule.intended(own[place], sent[place]), next);
                    turns.push((next, own[place], sent[place]));
                    sent[place] += 1;
                }
            }
            turns.sort_unstable();
            let expected: Vec<_> = (0..count)
                .map(|event| (start + (event as f64 * 1e9 / rate) as u64, event % senders, event / senders))
                .collect();
            let mut sorted = expected.clone();
            sorted.sort_unstable();
            // The same times up to the rounding of one multiplication.
            prop_assert_eq!(turns.len(), sorted.len());
            for (turn, expected) in turns.iter().zip(&sorted) {
                prop_assert!(turn.0.abs_diff(expected.0) <= 1, "{:?} {:?}", turn, expected);
            }
            let mut names: Vec<_> = turns.iter().map(|turn| (turn.1, turn.2)).collect();
            names.sort_unstable();
            let mut all: Vec<_> = expected.iter().map(|turn| (turn.1, turn.2)).collect();
            all.sort_unstable();
            prop_assert_eq!(names, all);
        }
    }

    #[test]
    fn a_late_caller_gets_all_turns_that_have_passed() {
        let mut schedule = Schedule::new(1000.0, 1, vec![0], 0, u64::MAX);
        let due = std::iter::from_fn(|| schedule.pop_due(5_000_000)).count();
        assert_eq!(due, 6); // at 0, 1, 2, 3, 4 and 5 ms
        assert_eq!(schedule.next(), Some(6_000_000));
    }

    #[test]
    fn no_senders_have_no_turns() {
        let mut schedule = Schedule::new(1.0, 3, Vec::new(), 0, 10);
        assert_eq!((schedule.next(), schedule.pop_due(u64::MAX)), (None, None));
    }
}
