//! A count beside its record: the arithmetic and the words, pure.

use super::record::Record;

/// How much more than its record a row may cost, as a share of it; and how much less before it is told.
const LIMIT: f64 = 0.05;

/// What a count is, beside its record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Within,
    /// By more than [`LIMIT`].
    Above,
    Below,
    /// Nothing is recorded for the row.
    New,
}

/// A row that was counted.
#[derive(Debug)]
pub(super) struct Finding {
    pub(super) row: String,
    before: Option<f64>,
    now: f64,
    pub(super) verdict: Verdict,
}

/// A finding for each count.
pub(super) fn findings(record: &Record, counts: &[(String, f64)]) -> Vec<Finding> {
    let finding = |(row, now): &(String, f64)| {
        let before = record.get(row);
        Finding { row: row.clone(), before, now: *now, verdict: judge(before, *now) }
    };
    counts.iter().map(finding).collect()
}

fn judge(before: Option<f64>, now: f64) -> Verdict {
    match before {
        None => Verdict::New,
        Some(before) if now > before * (1.0 + LIMIT) => Verdict::Above,
        Some(before) if now < before * (1.0 - LIMIT) => Verdict::Below,
        Some(_) => Verdict::Within,
    }
}

impl Finding {
    /// What is wrong with the row and what to do, for one that fails.
    pub(super) fn sentence(&self) -> String {
        let Self { row, now, .. } = self;
        let record = format!("`cargo xtask guards --accept {row}`");
        let Some(before) = self.before else {
            return format!("{row} has no record: {record} writes it");
        };
        let (change, limit) = (self.change(), LIMIT * 100.0);
        format!(
            "{row}: {before:.1} instructions before, {now:.1} now, {change}: the limit is +{limit:.0} %. If the change is worth \
             it, {record} records it, and the commit says why"
        )
    }

    fn change(&self) -> String {
        match self.before {
            Some(before) if before > 0.0 => format!("{:+.1} %", (self.now / before - 1.0) * 100.0),
            _ => "-".to_owned(),
        }
    }
}

/// The findings for people.
pub(super) fn table(findings: &[Finding]) -> String {
    let title = "instructions";
    let width = findings.iter().map(|finding| finding.row.len()).max().unwrap_or_default().max(title.len());
    let mut out = format!("{title:<width$} {:>12} {:>12} {:>9}\n", "recorded", "now", "change");
    for finding in findings {
        let before = finding.before.map_or_else(|| "-".to_owned(), |before| format!("{before:.1}"));
        let word = match finding.verdict {
            Verdict::Within => "",
            Verdict::Above => "  ABOVE THE LIMIT",
            Verdict::Below => "  a gain",
            Verdict::New => "  not recorded",
        };
        let (row, now, change) = (&finding.row, finding.now, finding.change());
        out += format!("{row:<width$} {before:>12} {now:>12.1} {change:>9}{word}").trim_end();
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sides_of_both_limits() {
        assert_eq!(judge(Some(1_000.0), 1_050.0), Verdict::Within);
        assert_eq!(judge(Some(1_000.0), 1_050.1), Verdict::Above);
        assert_eq!(judge(Some(1_000.0), 950.0), Verdict::Within);
        assert_eq!(judge(Some(1_000.0), 949.9), Verdict::Below);
        assert_eq!(judge(None, 1.0), Verdict::New);
        // a record of nothing lets nothing pass
        assert_eq!(judge(Some(0.0), 0.1), Verdict::Above);
    }

    #[test]
    fn the_table_says_row_before_now_and_change() {
        let record = Record::parse("compiler = \"x\"\n\"a/b\" = 200.0\n\"a/long_name\" = 100.0\n").unwrap();
        let counts = [("a/b", 220.0), ("a/long_name", 90.0), ("a/new", 1.25)];
        let counts: Vec<_> = counts.map(|(row, count)| (row.to_owned(), count)).into();
        let expected = "\
instructions     recorded          now    change
a/b                 200.0        220.0   +10.0 %  ABOVE THE LIMIT
a/long_name         100.0         90.0   -10.0 %  a gain
a/new                   -          1.2         -  not recorded
";
        assert_eq!(table(&findings(&record, &counts)), expected);
    }
}
