//! README's figures: ratios of rows of docs/BENCHMARKS.md, and which bars are missed.

use super::figures::grid;
use super::tables::{lines, number};

/// A table of README: a line for each rival, a column for each row.
struct Matrix {
    mark: &'static str,
    /// Over the first column.
    corner: &'static str,
    /// What a reader calls a row, and what `--row` does.
    columns: &'static [(&'static str, &'static str)],
    /// What a reader calls the comparison, and its column in the tables.
    lines: &'static [(&'static str, &'static str)],
}

const MATRICES: [Matrix; 2] = [
    Matrix {
        mark: "broker",
        corner: "one core",
        columns: &[
            ("QoS 0, 10→10", "10x10_q0"),
            ("QoS 1", "10x10_q1"),
            ("QoS 2", "10x10_q2"),
            ("one to 100", "fanout100"),
            ("10,000 filters", "wild10k"),
            ("connect", "connect10k"),
            ("memory of an idle client", "idle19k5"),
        ],
        lines: &[("broker, of Mosquitto's", "ours / mosquitto")],
    },
    Matrix {
        mark: "gateway",
        corner: "one core",
        columns: &[
            ("connects", "storm"),
            ("with a PROXY header out", "storm_proxy"),
            ("messages one by one", "window1"),
            ("in a row", "window16"),
            ("bulk", "bulk"),
            ("memory of an idle device", "idle"),
        ],
        lines: &[
            ("gateway, of HAProxy's, both sticky by client id", "ours / HAProxy by client id"),
            ("gateway, of HAProxy's that does not read CONNECT", "ours / HAProxy"),
            ("gateway, of nginx's that does not read CONNECT", "ours / nginx"),
        ],
    },
];

/// What stands between README's marks.
pub(super) fn blocks(measured: &str) -> Result<Vec<(&'static str, String)>, String> {
    let mut blocks = Vec::new();
    for matrix in &MATRICES {
        blocks.push((matrix.mark, matrix.markdown(measured)?));
    }
    blocks.push(("bars", bars(measured)));
    Ok(blocks)
}

impl Matrix {
    fn markdown(&self, measured: &str) -> Result<String, String> {
        let head = std::iter::once(self.corner).chain(self.columns.iter().map(|&(what, _)| what));
        let mut table = vec![head.map(str::to_owned).collect::<Vec<_>>()];
        for (who, ratio) in self.lines {
            let mut cells = vec![(*who).to_owned()];
            for (_, row) in self.columns {
                let value = number(measured, row, ratio)
                    .ok_or_else(|| format!("no {ratio:?} of the row {row:?}: `cargo xtask bench --write`"))?;
                cells.push(part(value));
            }
            table.push(cells);
        }
        Ok(grid(&table))
    }
}

/// How many bars are reached, and the names of the rows that miss theirs.
fn bars(measured: &str) -> String {
    let lines: Vec<_> = lines(measured).into_iter().filter(|line| line.reached().is_some()).collect();
    let missed = lines.iter().filter(|line| line.reached() == Some(false));
    let missed: Vec<_> = missed.filter_map(|line| line.what()).collect();
    let told = if missed.is_empty() { "none".to_owned() } else { missed.join("; ") };
    format!("Bars reached: {} of {}. Missed: {told}.", lines.len() - missed.len(), lines.len())
}

/// `1/58` where it is less than a tenth, `0.72` otherwise.
fn part(ratio: f64) -> String {
    if ratio > 0.0 && ratio < 0.1 { format!("1/{:.0}", 1.0 / ratio) } else { format!("{ratio:.2}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_part_is_told_as_one_of_many() {
        assert_eq!([0.0172, 0.0999, 0.1, 0.717, 1.036].map(part), ["1/58", "1/10", "0.10", "0.72", "1.04"]);
    }

    #[test]
    fn missed_bars_are_named() {
        let head = "|   | row | --row |\n|---|-----|-------|\n";
        let told = |rows: &str| bars(&format!("{head}{rows}"));
        assert_eq!(told("| ✓ | a | a |\n|   | b | b |\n"), "Bars reached: 1 of 1. Missed: none.");
        let some = "| ✗ | a, b | a |\n| ✓ | c | c |\n| ✗ | d | d |\n";
        assert_eq!(told(some), "Bars reached: 1 of 3. Missed: a, b; d.");
    }

    #[test]
    fn a_row_that_is_not_there_is_named() {
        let told = MATRICES[0].markdown("words\n").unwrap_err();
        assert!(told.contains("10x10_q0") && told.contains("ours / mosquitto"), "{told}");
    }
}
