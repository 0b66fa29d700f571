//! The tables of docs/BENCHMARKS.md, read again by those who compute from them.

/// The head of the column with what `--row` calls a row: no two rows of the document have the same.
pub(super) const NAME: &str = "--row";
/// The head of the column with what a reader calls it.
const ROW: &str = "row";

/// A row of a table with the head of its columns.
pub(super) struct Line<'a> {
    head: Vec<&'a str>,
    cells: Vec<&'a str>,
}

impl<'a> Line<'a> {
    fn cell(&self, column: &str) -> Option<&'a str> {
        let at = self.head.iter().position(|&head| head == column)?;
        self.cells.get(at).copied().filter(|cell| !cell.is_empty())
    }

    /// What a reader calls it.
    pub(super) fn what(&self) -> Option<&'a str> {
        self.cell(ROW)
    }

    /// Whether its bar is reached; `None` where there is none.
    pub(super) fn reached(&self) -> Option<bool> {
        match self.cells.first() {
            Some(&"✓") => Some(true),
            Some(&"✗") => Some(false),
            _ => None,
        }
    }
}

/// Every row of every table whose rows have names.
pub(super) fn lines(text: &str) -> Vec<Line<'_>> {
    let mut lines = Vec::new();
    let mut head: Vec<&str> = Vec::new();
    for line in text.lines() {
        if !line.starts_with('|') {
            head.clear();
            continue;
        }
        let cells: Vec<&str> = cells(line).collect();
        if head.is_empty() {
            head = cells;
        } else if head.contains(&NAME) && !cells.iter().all(|cell| is_rule(cell)) {
            lines.push(Line { head: head.clone(), cells });
        }
    }
    lines
}

/// The cells of a line of a table, without the white space around them.
pub(super) fn cells(line: &str) -> impl Iterator<Item = &str> {
    line.strip_prefix('|').unwrap_or(line).trim_end().trim_end_matches('|').split('|').map(str::trim)
}

fn is_rule(cell: &str) -> bool {
    cell.chars().all(|c| c == '-')
}

/// The number of a row in a column; of a ratio with its spread the middle.
pub(super) fn number(text: &str, name: &str, column: &str) -> Option<f64> {
    let line = lines(text).into_iter().find(|line| line.cell(NAME) == Some(name))?;
    line.cell(column)?.split(' ').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
words

|   | row         | unit | tidegate | ours / mosquitto    | --row    |
|---|-------------|------|----------|---------------------|----------|
| ✓ | 10×10 QoS 1 | s    | 0.581    | 0.071 (0.069–0.073) | 10x10_q1 |
| ✗ | connection  | KiB  | –        | –                   | idle     |

| what | is |
|------|----|
| ✗    | 1  |

|  | row         | two workers | one worker | --row      |
|--|-------------|-------------|------------|------------|
|  | 10×10 QoS 1 | 0.7         | 0.5        | workers_q1 |
";

    #[test]
    fn a_number_is_found_by_name_and_column() {
        assert_eq!(number(TEXT, "10x10_q1", "tidegate"), Some(0.581));
        assert_eq!(number(TEXT, "10x10_q1", "ours / mosquitto"), Some(0.071));
        assert_eq!(number(TEXT, "workers_q1", "one worker"), Some(0.5));
        assert_eq!(number(TEXT, "workers_q1", "tidegate"), None);
        assert_eq!(number(TEXT, "idle", "tidegate"), None);
        assert_eq!(number(TEXT, "10x10", "tidegate"), None);
    }

    #[test]
    fn every_row_with_a_name_tells_whether_its_bar_is_reached() {
        let all = lines(TEXT);
        let told: Vec<_> = all.iter().map(|line| (line.what(), line.reached())).collect();
        let expected = [("10×10 QoS 1", Some(true)), ("connection", Some(false)), ("10×10 QoS 1", None)];
        assert_eq!(told, expected.map(|(what, reached)| (Some(what), reached)));
    }
}
