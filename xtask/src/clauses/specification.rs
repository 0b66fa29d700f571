//! The numbers of all normative statements, as Appendix B of each specification lists them.
//!
//! MQTT 5.0: OASIS Standard, 7 March 2019. MQTT 3.1.1: OASIS Standard, 29 October 2014. Where the body and the
//! appendix write an id differently (4.2-1 and 4.2.0-1, 3-8.3-4 and 3.8.3-4), the regular form stands here.

use super::Clause;

/// A section and its first and last statement.
type Numbers = ([u16; 3], u16, u16);

/// 251 statements.
const V5: &[Numbers] = &[
    ([1, 5, 4], 1, 3),
    ([1, 5, 5], 1, 1),
    ([1, 5, 7], 1, 1),
    ([2, 1, 3], 1, 1),
    // There is no 2.2.1-1.
    ([2, 2, 1], 2, 6),
    ([2, 2, 2], 1, 1),
    ([3, 1, 0], 1, 2),
    ([3, 1, 2], 1, 30),
    ([3, 1, 3], 1, 12),
    ([3, 1, 4], 1, 6),
    ([3, 2, 0], 1, 2),
    ([3, 2, 2], 1, 22),
    ([3, 3, 1], 1, 13),
    ([3, 3, 2], 1, 20),
    ([3, 3, 4], 1, 10),
    ([3, 4, 2], 1, 3),
    ([3, 5, 2], 1, 3),
    ([3, 6, 1], 1, 1),
    ([3, 6, 2], 1, 3),
    ([3, 7, 2], 1, 3),
    ([3, 8, 1], 1, 1),
    ([3, 8, 3], 1, 5),
    ([3, 8, 4], 1, 8),
    ([3, 9, 2], 1, 2),
    ([3, 9, 3], 1, 2),
    ([3, 10, 1], 1, 1),
    ([3, 10, 3], 1, 2),
    ([3, 10, 4], 1, 6),
    ([3, 11, 2], 1, 2),
    ([3, 11, 3], 1, 2),
    ([3, 12, 4], 1, 1),
    ([3, 14, 0], 1, 1),
    ([3, 14, 1], 1, 1),
    ([3, 14, 2], 1, 4),
    ([3, 14, 4], 1, 3),
    ([3, 15, 1], 1, 1),
    ([3, 15, 2], 1, 3),
    ([4, 1, 0], 1, 2),
    ([4, 2, 0], 1, 1),
    ([4, 3, 1], 1, 1),
    ([4, 3, 2], 1, 5),
    ([4, 3, 3], 1, 13),
    ([4, 4, 0], 1, 2),
    ([4, 5, 0], 1, 2),
    ([4, 6, 0], 1, 6),
    ([4, 7, 0], 1, 1),
    ([4, 7, 1], 1, 2),
    ([4, 7, 2], 1, 1),
    ([4, 7, 3], 1, 4),
    ([4, 8, 2], 1, 6),
    ([4, 9, 0], 1, 3),
    ([4, 12, 0], 1, 7),
    ([4, 12, 1], 1, 2),
    ([4, 13, 1], 1, 1),
    ([4, 13, 2], 1, 1),
    ([6, 0, 0], 1, 4),
];

/// 141 statements.
const V3: &[Numbers] = &[
    ([1, 5, 3], 1, 3),
    ([2, 2, 2], 1, 2),
    ([2, 3, 1], 1, 7),
    ([3, 1, 0], 1, 2),
    ([3, 1, 2], 1, 24),
    ([3, 1, 3], 1, 11),
    ([3, 1, 4], 1, 5),
    ([3, 2, 0], 1, 1),
    ([3, 2, 2], 1, 6),
    ([3, 3, 1], 1, 12),
    ([3, 3, 2], 1, 3),
    ([3, 3, 4], 1, 1),
    ([3, 3, 5], 1, 2),
    ([3, 6, 1], 1, 1),
    ([3, 8, 1], 1, 1),
    ([3, 8, 3], 1, 4),
    ([3, 8, 4], 1, 6),
    ([3, 9, 3], 1, 2),
    ([3, 10, 1], 1, 1),
    ([3, 10, 3], 1, 2),
    ([3, 10, 4], 1, 6),
    ([3, 12, 4], 1, 1),
    ([3, 14, 1], 1, 1),
    ([3, 14, 4], 1, 3),
    ([4, 1, 0], 1, 2),
    ([4, 3, 1], 1, 1),
    ([4, 3, 2], 1, 2),
    ([4, 3, 3], 1, 2),
    ([4, 4, 0], 1, 1),
    ([4, 5, 0], 1, 2),
    ([4, 6, 0], 1, 6),
    ([4, 7, 1], 1, 3),
    ([4, 7, 2], 1, 1),
    ([4, 7, 3], 1, 4),
    ([4, 8, 0], 1, 2),
    ([6, 0, 0], 1, 4),
    ([7, 0, 0], 1, 2),
    ([7, 1, 1], 1, 1),
    ([7, 1, 2], 1, 1),
];

/// Every clause, those of MQTT 5.0 first, each version in the order of its text.
pub(super) fn all() -> impl Iterator<Item = Clause> {
    let of = |numbers: &'static [Numbers], v3| {
        numbers.iter().flat_map(move |&(section, first, last)| {
            (first..=last).map(move |statement| Clause { v3, section, statement })
        })
    };
    of(V5, false).chain(of(V3, true))
}

/// Whether the specification has this clause.
pub(super) fn has(clause: Clause) -> bool {
    let numbers = if clause.v3 { V3 } else { V5 };
    numbers.iter().any(|&(section, first, last)| {
        section == clause.section && (first..=last).contains(&clause.statement)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_appendices_have_so_many_statements_in_ascending_order() {
        let all: Vec<_> = all().collect();
        assert_eq!(all.iter().filter(|clause| !clause.v3).count(), 251);
        assert_eq!(all.iter().filter(|clause| clause.v3).count(), 141);
        assert!(all.is_sorted_by(|a, b| a < b));
        assert!(all.iter().all(|&clause| has(clause)));
    }

    #[test]
    fn numbers_beyond_the_last_statement_are_none() {
        let v5 = |id| has(Clause::parse(id, false).unwrap());
        assert!(v5("3.1.2-30") && !v5("3.1.2-31") && !v5("2.2.1-1") && !v5("1.5.3-1"));
        assert!(has(Clause::parse("1.5.3-1", true).unwrap()));
    }
}
