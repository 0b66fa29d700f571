//! `cargo xtask guards`: instructions of the hot path, held to what was recorded.
//!
//! The rows are those of the program `guards` (`crates/guards`), which runs under callgrind, a row at a time; a row that costs
//! over 5 % more than its record fails, until the change that caused it is either mended or justified by a new record. Counts
//! need no quiet machine: the same code has the same count. Must not know what a row does.

mod callgrind;
mod judge;
mod record;

use std::fs;

use crate::workspace::Workspace;
use callgrind::Counter;
use judge::{Finding, Verdict};
use record::Record;

/// Where the records are, from the root.
const RECORD: &str = "crates/guards/counts.toml";
/// Stands for every row where rows are named.
const ALL: &str = "all";

/// What the command line asks for. Rows are named whole or by their beginning.
#[derive(Debug, Default, PartialEq, Eq)]
struct Wishes {
    /// To be counted; empty: all.
    rows: Vec<String>,
    /// To be counted and recorded.
    accept: Vec<String>,
    list: bool,
}

/// Counts what `arguments` ask for and prints a table; an error if a row costs too much.
pub(crate) fn run(workspace: &Workspace, arguments: &[String]) -> Result<(), String> {
    let wishes = parse(arguments)?;
    if wishes.list {
        for row in Counter::build(workspace)?.rows()? {
            println!("{row}");
        }
        return Ok(());
    }
    println!("{}", guard(workspace, &wishes)?);
    Ok(())
}

/// The step `guards`: every row; gives the remark for the table.
pub(crate) fn check(workspace: &Workspace) -> Result<String, String> {
    guard(workspace, &Wishes::default())
}

fn guard(workspace: &Workspace, wishes: &Wishes) -> Result<String, String> {
    let file = workspace.root.join(RECORD);
    let text = fs::read_to_string(&file).map_err(|error| format!("{RECORD}: {error}"))?;
    let mut record = Record::parse(&text).map_err(|error| format!("{RECORD}: {error}"))?;
    let compiler = callgrind::compiler()?;
    if !wishes.accept.is_empty() {
        may_accept(&record, &compiler, wishes)?;
    } else if !record.is_of_machine(&compiler) {
        return Ok(format!("not judged: the records are of {}, this is {compiler}", record.compiler));
    }
    let counter = Counter::build(workspace)?;
    let known = counter.rows()?;
    let rows = selected(&known, wishes)?;
    let counts = counter.count(&rows)?;
    let findings = judge::findings(&record, &counts);
    print!("{}", judge::table(&findings));
    println!("profiles: callgrind_annotate {}/ROW.out, with a dot for the slash", counter.shown_folder());
    if !wishes.accept.is_empty() {
        let accepted = accept(&mut record, &counts, wishes);
        if is_everything(wishes) {
            record.keep(&known);
        }
        record.compiler = compiler;
        fs::write(&file, record.to_string()).map_err(|error| format!("{RECORD}: {error}"))?;
        return Ok(format!("{accepted} rows recorded in {RECORD}; the commit says why"));
    }
    let gone = if wishes.rows.is_empty() { record.without_row(&known) } else { Vec::new() };
    verdict(&findings, &gone, &record, &compiler)
}

/// Counts of two compilers do not stand beside each other.
fn may_accept(record: &Record, compiler: &str, wishes: &Wishes) -> Result<(), String> {
    if record.compiler == compiler || record.is_empty() || is_everything(wishes) {
        return Ok(());
    }
    Err(format!(
        "the records are of {}, this is {compiler}: `cargo xtask guards --accept {ALL}` records every row anew",
        record.compiler
    ))
}

fn is_everything(wishes: &Wishes) -> bool {
    wishes.accept.iter().any(|name| name == ALL)
}

fn accept(record: &mut Record, counts: &[(String, f64)], wishes: &Wishes) -> usize {
    let known: Vec<String> = counts.iter().map(|(row, _)| row.clone()).collect();
    let accepted = counts.iter().filter(|(row, _)| named(row, &wishes.accept, &known));
    accepted.map(|(row, count)| record.set(row, *count)).count()
}

/// What the whole of the findings comes to: a remark, or what has to be done.
fn verdict(findings: &[Finding], gone: &[String], record: &Record, compiler: &str) -> Result<String, String> {
    let of = |verdict: Verdict| findings.iter().filter(move |finding| finding.verdict == verdict);
    let mut wrong: Vec<String> = of(Verdict::Above).chain(of(Verdict::New)).map(Finding::sentence).collect();
    wrong.extend(
        gone.iter().map(|row| format!("{row} has a record and is no row: take its line out of {RECORD}")),
    );
    if !wrong.is_empty() {
        if record.compiler != compiler {
            wrong.push(format!(
                "the records are of {}, this is {compiler}: where that is all, `cargo xtask guards --accept {ALL}`",
                record.compiler
            ));
        }
        return Err(wrong.join("\n"));
    }
    let better: Vec<&str> = of(Verdict::Below).map(|finding| finding.row.as_str()).collect();
    if better.is_empty() {
        return Ok(format!("{} rows", findings.len()));
    }
    let names = better.join(" --accept ");
    Ok(format!("{} rows; record the gain: `cargo xtask guards --accept {names}`", findings.len()))
}

fn parse(arguments: &[String]) -> Result<Wishes, String> {
    let mut wishes = Wishes::default();
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        let mut row = || arguments.next().cloned().ok_or_else(|| format!("{argument} needs a row"));
        match argument.as_str() {
            "--row" => wishes.rows.push(row()?),
            "--accept" => wishes.accept.push(row()?),
            "--list" => wishes.list = true,
            _ => return Err(format!("{argument:?} is no option; there are --row, --accept, --list")),
        }
    }
    Ok(wishes)
}

/// The rows that are wished for, in their order; a wish that names none is an error.
fn selected(known: &[String], wishes: &Wishes) -> Result<Vec<String>, String> {
    let wished: Vec<String> = wishes.rows.iter().chain(&wishes.accept).cloned().collect();
    if let Some(wish) =
        wished.iter().find(|wish| !known.iter().any(|row| named(row, std::slice::from_ref(wish), known)))
    {
        return Err(format!("{wish:?} names no row; `cargo xtask guards --list` names them"));
    }
    Ok(known.iter().filter(|row| wished.is_empty() || named(row, &wished, known)).cloned().collect())
}

/// Whether one of the wishes means the row: its name, or the beginning of it. A wish that is the whole name of a row means no other.
fn named(row: &str, wishes: &[String], known: &[String]) -> bool {
    wishes.iter().any(|wish| {
        let whole = known.contains(wish);
        wish == ALL || if whole { row == wish } else { row.starts_with(wish.as_str()) }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wishes(line: &str) -> Result<Wishes, String> {
        parse(&line.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    }

    fn rows(names: &[&str]) -> Vec<String> {
        names.iter().map(|&name| name.to_owned()).collect()
    }

    #[test]
    fn rows_are_named_whole_or_by_their_beginning() {
        let known = rows(&["decode/puback", "deliver/q0_to_1", "deliver/q0_to_10"]);
        let selected = |line| selected(&known, &wishes(line).unwrap());
        assert_eq!(selected("").unwrap(), known);
        assert_eq!(selected("--row deliver").unwrap(), known[1..]);
        assert_eq!(selected("--accept decode/puback").unwrap(), known[..1]);
        assert_eq!(selected("--accept deliver/q0_to_1").unwrap(), known[1..2], "and not q0_to_10");
        assert_eq!(selected("--accept all").unwrap(), known);
        assert_eq!(selected("--row deliver/q0_to_10 --accept dec").unwrap(), [&*known[0], &*known[2]]);
        assert!(selected("--row encode").unwrap_err().starts_with("\"encode\" names no row"));
    }

    #[test]
    fn a_wish_that_cannot_be_met_is_told() {
        assert_eq!(wishes("--accept").unwrap_err(), "--accept needs a row");
        assert!(wishes("--force").unwrap_err().starts_with("\"--force\" is no option"));
    }

    /// A record with one row of 100 instructions, and what a run counted.
    fn judged(counts: &[(&str, f64)]) -> Result<String, String> {
        let record = Record::parse("compiler = \"rustc 1 x\"\n\"decode/puback\" = 100.0\n").unwrap();
        let counts: Vec<_> = counts.iter().map(|&(row, count)| (row.to_owned(), count)).collect();
        let known: Vec<_> = counts.iter().map(|(row, _)| row.clone()).collect();
        verdict(&judge::findings(&record, &counts), &record.without_row(&known), &record, "rustc 1 x")
    }

    #[test]
    fn five_percent_pass_and_more_do_not() {
        assert_eq!(judged(&[("decode/puback", 105.0)]).unwrap(), "1 rows");
        let reason = judged(&[("decode/puback", 105.1)]).unwrap_err();
        assert!(
            reason.starts_with("decode/puback: 100.0 instructions before, 105.1 now, +5.1 %"),
            "{reason}"
        );
        assert!(reason.contains("`cargo xtask guards --accept decode/puback`"), "{reason}");
    }

    #[test]
    fn a_gain_passes_and_asks_to_be_recorded() {
        assert_eq!(judged(&[("decode/puback", 95.0)]).unwrap(), "1 rows");
        let remark = judged(&[("decode/puback", 94.9)]).unwrap();
        assert_eq!(remark, "1 rows; record the gain: `cargo xtask guards --accept decode/puback`");
    }

    #[test]
    fn a_row_without_a_record_and_a_record_without_a_row_fail() {
        let reason = judged(&[("decode/puback", 100.0), ("decode/connect", 1.0)]).unwrap_err();
        assert!(reason.starts_with("decode/connect has no record"), "{reason}");
        let reason = judged(&[]).unwrap_err();
        assert!(reason.starts_with("decode/puback has a record and is no row"), "{reason}");
    }

    #[test]
    fn another_compiler_is_named_where_a_row_fails() {
        let record = Record::parse("compiler = \"rustc 1 x\"\n\"a/b\" = 100.0\n").unwrap();
        let findings = judge::findings(&record, &[("a/b".to_owned(), 120.0)]);
        let reason = verdict(&findings, &[], &record, "rustc 2 x").unwrap_err();
        assert!(reason.contains("the records are of rustc 1 x, this is rustc 2 x"), "{reason}");
    }

    #[test]
    fn counts_of_two_compilers_do_not_stand_in_one_record() {
        let record = Record::parse("compiler = \"rustc 1 x\"\n\"a/b\" = 100.0\n").unwrap();
        assert!(may_accept(&record, "rustc 1 x", &wishes("--accept a").unwrap()).is_ok());
        assert!(may_accept(&record, "rustc 2 x", &wishes("--accept a").unwrap()).is_err());
        assert!(may_accept(&record, "rustc 2 x", &wishes("--accept all").unwrap()).is_ok());
    }
}
