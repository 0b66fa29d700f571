//! What came, by number: lost, twice, out of order. Pure.

use std::ops::Range;

/// Ranges of missing numbers that are kept. Beyond, the oldest range is given up: what of it comes after all counts as a
/// duplicate.
const GAPS: usize = 1_024;

/// What one number means for the numbers before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Arrival {
    /// New, and above all before it.
    InOrder,
    /// New, but a higher one came first.
    Late,
    /// It came before.
    Duplicate,
}

/// The messages of one publisher at one subscriber, who should get all of them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sequence {
    /// One above the highest that came.
    next: u64,
    /// How many different numbers came.
    distinct: u64,
    /// Below `next` and never seen, ascending.
    gaps: Vec<Range<u64>>,
}

impl Sequence {
    /// A number came.
    pub(crate) fn arrived(&mut self, number: u64) -> Arrival {
        if number >= self.next {
            if number > self.next {
                if self.gaps.len() == GAPS {
                    self.gaps.remove(0);
                }
                self.gaps.push(self.next..number);
            }
            self.next = number + 1;
            self.distinct += 1;
            return Arrival::InOrder;
        }
        let place = self.gaps.partition_point(|gap| gap.end <= number);
        let Some(gap) = self.gaps.get(place).cloned().filter(|gap| gap.contains(&number)) else {
            return Arrival::Duplicate;
        };
        let rest = [gap.start..number, number + 1..gap.end];
        self.gaps.splice(place..=place, rest.into_iter().filter(|range| !range.is_empty()));
        self.distinct += 1;
        Arrival::Late
    }

    /// How many different numbers came.
    pub(crate) fn distinct(&self) -> u64 {
        self.distinct
    }
}

/// The messages of one publisher at one member of a group that shares them: any of them may come, in any order. Joined with
/// those of the other members it tells what nobody got.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Share {
    bits: Vec<u64>,
    distinct: u64,
}

/// The highest number that is noted: 8 MiB of bits. Higher ones count as new each time.
const HIGHEST: u64 = 64 << 20;

impl Share {
    /// A number came; `false` if it came before.
    pub(crate) fn arrived(&mut self, number: u64) -> bool {
        if number < HIGHEST {
            let (word, bit) = ((number / 64) as usize, 1_u64 << (number % 64));
            if word >= self.bits.len() {
                self.bits.resize(word + 1, 0);
            }
            if let Some(word) = self.bits.get_mut(word) {
                if *word & bit != 0 {
                    return false;
                }
                *word |= bit;
            }
        }
        self.distinct += 1;
        true
    }

    /// Adds what another member got; how many of these were here already.
    pub(super) fn join(&mut self, other: &Self) -> u64 {
        if self.bits.len() < other.bits.len() {
            self.bits.resize(other.bits.len(), 0);
        }
        let mut both = 0;
        for (ours, theirs) in self.bits.iter_mut().zip(&other.bits) {
            both += u64::from((*ours & theirs).count_ones());
            *ours |= theirs;
        }
        self.distinct += other.distinct - both;
        both
    }

    /// How many different numbers came.
    pub(crate) fn distinct(&self) -> u64 {
        self.distinct
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Against a set and a maximum.
        #[test]
        fn a_sequence_agrees_with_a_set(numbers in proptest::collection::vec(0_u64..60, 0..200)) {
            let (mut sequence, mut set, mut highest) = (Sequence::default(), HashSet::new(), None);
            for number in numbers {
                let expected = match (set.insert(number), highest > Some(number)) {
                    (false, _) => Arrival::Duplicate,
                    (true, true) => Arrival::Late,
                    (true, false) => Arrival::InOrder,
                };
                highest = highest.max(Some(number));
                prop_assert_eq!(sequence.arrived(number), expected);
                prop_assert_eq!(sequence.distinct(), set.len() as u64);
            }
        }

        /// However messages are dealt to members, joined they are the set of all.
        #[test]
        fn shares_joined_agree_with_a_set(dealt in proptest::collection::vec((0_usize..4, 0_u64..300), 0..300)) {
            let (mut members, mut set) = (vec![Share::default(); 4], HashSet::new());
            for (member, number) in dealt {
                members[member].arrived(number);
                set.insert(number);
            }
            let mut all = Share::default();
            let came: u64 = members.iter().map(Share::distinct).sum();
            let both: u64 = members.iter().map(|member| all.join(member)).sum();
            prop_assert_eq!(all.distinct(), set.len() as u64);
            prop_assert_eq!(came - both, all.distinct());
        }
    }

    #[test]
    fn gaps_beyond_the_bound_are_given_up_oldest_first() {
        let mut sequence = Sequence::default();
        for number in 0..=GAPS as u64 {
            assert_eq!(sequence.arrived(number * 2 + 1), Arrival::InOrder);
        }
        // 0 was the first gap and is forgotten; 2 is still known to be missing.
        assert_eq!(sequence.arrived(0), Arrival::Duplicate);
        assert_eq!(sequence.arrived(2), Arrival::Late);
    }

    #[test]
    fn a_share_forgets_nothing_up_to_its_bound() {
        let mut share = Share::default();
        assert!(share.arrived(HIGHEST - 1) && !share.arrived(HIGHEST - 1));
        assert!(share.arrived(HIGHEST) && share.arrived(HIGHEST));
    }
}
