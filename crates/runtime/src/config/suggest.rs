//! "Did you mean": the nearest of a few names.

/// The nearest candidate, when it is near enough to be what was meant: up to a third of its letters differ.
#[must_use]
pub fn nearest<'a>(written: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    // Long keys are not typing errors, and the distance costs the product of the lengths.
    if written.len() > 64 {
        return None;
    }
    candidates
        .map(|candidate| (distance(written, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= (candidate.chars().count() / 3).max(1))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// How many letters must be added, removed, replaced or swapped with their neighbour (optimal string alignment).
fn distance(a: &str, b: &str) -> usize {
    let a: Vec<char> = a.chars().collect();
    let b: Vec<char> = b.chars().collect();
    // Row i holds the distances between the first i letters of `a` and every beginning of `b`.
    let mut before_last: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let replace = last[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = replace.min(last[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(before_last[j - 2] + 1);
            }
            row.push(best);
        }
        before_last = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distance_counts_edits_and_swaps() {
        for (a, b, expected) in [
            ("", "", 0),
            ("a", "", 1),
            ("bind", "bnid", 1),
            ("listeners", "listner", 2),
            ("ü", "u", 1),
            ("kitten", "sitting", 3),
        ] {
            assert_eq!(distance(a, b), expected, "{a} {b}");
            assert_eq!(distance(b, a), expected, "{b} {a}");
        }
    }

    #[test]
    fn nearest_is_silent_when_nothing_is_near() {
        let keys = ["bind", "transport", "upstream"];
        assert_eq!(nearest("bnid", keys.into_iter()), Some("bind"));
        assert_eq!(nearest("upstreams", keys.into_iter()), Some("upstream"));
        assert_eq!(nearest("colour", keys.into_iter()), None);
        assert_eq!(nearest(&"b".repeat(10_000), keys.into_iter()), None);
    }
}
