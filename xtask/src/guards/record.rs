//! The file of recorded counts: a compiler, then a line for each row, in the order of their names.

use std::collections::BTreeMap;
use std::fmt;

const HEAD: &str = "\
# Instructions of one operation of each row of the hot path, counted by callgrind: `cargo xtask guards`.
# A row may cost 5 % more than here. A line is written anew by `cargo xtask guards --accept ROW`, and the commit that
# changes one says why.
";

/// See the module.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Record {
    /// With which compiler, for which machine: `rustc 1.95.0 x86_64-unknown-linux-gnu`.
    pub(super) compiler: String,
    rows: BTreeMap<String, f64>,
}

impl Record {
    /// Reads what [`fmt::Display`] writes.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let (mut compiler, mut rows) = (None, BTreeMap::new());
        for (at, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let strange = || format!("line {}: {line:?} is no `\"row\" = number`", at + 1);
            let (key, value) = line.split_once(" = ").ok_or_else(strange)?;
            if key == "compiler" {
                compiler = Some(unquoted(value).ok_or_else(strange)?);
                continue;
            }
            let (row, count) = (unquoted(key), value.parse::<f64>().ok());
            let (row, count) = row.zip(count.filter(|count| *count >= 0.0)).ok_or_else(strange)?;
            if rows.insert(row, count).is_some() {
                return Err(format!("line {}: {key} stands here twice", at + 1));
            }
        }
        Ok(Self { compiler: compiler.ok_or("there is no line `compiler = ...`")?, rows })
    }

    /// Instructions of one operation.
    pub(super) fn get(&self, row: &str) -> Option<f64> {
        self.rows.get(row).copied()
    }

    pub(super) fn set(&mut self, row: &str, count: f64) {
        self.rows.insert(row.to_owned(), count);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Whether counts of this compiler can be compared at all: the same kind of machine.
    pub(super) fn is_of_machine(&self, compiler: &str) -> bool {
        let machine = |compiler: &str| compiler.rsplit(' ').next().map(str::to_owned);
        machine(&self.compiler) == machine(compiler)
    }

    /// Forgets what is no row.
    pub(super) fn keep(&mut self, rows: &[String]) {
        self.rows.retain(|row, _| rows.contains(row));
    }

    /// What is recorded and no row.
    pub(super) fn without_row(&self, rows: &[String]) -> Vec<String> {
        self.rows.keys().filter(|row| !rows.contains(row)).cloned().collect()
    }
}

fn unquoted(word: &str) -> Option<String> {
    Some(word.strip_prefix('"')?.strip_suffix('"')?.to_owned())
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{HEAD}compiler = \"{}\"\n\n", self.compiler)?;
        self.rows.iter().try_for_each(|(row, count)| writeln!(f, "\"{row}\" = {count:.1}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(text: &str) -> Result<Record, String> {
        Record::parse(&format!("compiler = \"rustc 1.95.0 x86_64-unknown-linux-gnu\"\n{text}"))
    }

    #[test]
    fn what_is_written_is_read_again() {
        let mut one = record("# note\n\n\"b/two\" = 20.0\n\"a/one\" = 10.5\n").unwrap();
        one.set("a/three", 7.25);
        let text = one.to_string();
        assert!(text.ends_with("\n\n\"a/one\" = 10.5\n\"a/three\" = 7.2\n\"b/two\" = 20.0\n"), "{text}");
        one.set("a/three", 7.2);
        assert_eq!(Record::parse(&text).unwrap(), one);
    }

    #[test]
    fn a_damaged_file_is_told_with_its_line() {
        assert_eq!(record("row 5").unwrap_err(), "line 2: \"row 5\" is no `\"row\" = number`");
        assert!(
            record("\"row\" = five").is_err()
                && record("\"row\" = -5").is_err()
                && record("row = 5").is_err()
        );
        assert_eq!(record("\"a\" = 1\n\"a\" = 2").unwrap_err(), "line 3: \"a\" stands here twice");
        assert!(Record::parse("\"a\" = 1").is_err());
    }

    #[test]
    fn machines_are_told_apart_and_compilers_are_not() {
        let record = record("").unwrap();
        assert!(record.is_of_machine("rustc 1.99.0 x86_64-unknown-linux-gnu"));
        assert!(!record.is_of_machine("rustc 1.95.0 aarch64-unknown-linux-gnu"));
    }

    #[test]
    fn rows_that_are_gone_are_found_and_forgotten() {
        let mut record = record("\"a\" = 1.0\n\"b\" = 1.0\n").unwrap();
        assert_eq!(record.without_row(&["a".to_owned()]), ["b"]);
        record.keep(&["a".to_owned()]);
        assert_eq!((record.get("a"), record.get("b")), (Some(1.0), None));
    }
}
