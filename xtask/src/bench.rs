//! `cargo xtask bench`: our release binary beside its peers, in turns, on pinned cores.
//!
//! What is trusted is CPU seconds per unit of work and the ratio of two numbers of the same turn; wall-clock rates of
//! a shared machine are not. The instruments (load generators, a null broker, a bare relay) are built from `tools/`, a
//! workspace of its own; the peers are the system's own packages. Must not know how a broker or a balancer
//! works: it starts programs, asks an instrument, and does sums.

mod broker;
pub(crate) mod derived;
mod figures;
mod gateway;
mod idle;
pub(crate) mod load;
mod machine;
mod process;
mod readme;
mod report;
mod scaling;
mod sticky;
mod tables;
mod tools;

use std::path::PathBuf;

use crate::workspace::Workspace;
use figures::{Measured, Row, Table};
use tools::Bench;

/// Runs of a latency row in each turn.
const LATENCY_TRIES: usize = 5;
/// The same where it must be quick.
const QUICK_TRIES: usize = 2;
/// Seconds of load where it must be quick.
const QUICK_SECS: f64 = 1.0;
/// Seconds of such a run: short, so that one of them meets no stall.
const LATENCY_SECS: f64 = 1.0;
/// Share by which latencies of equal programs differ.
const LATENCY_NOISE: f64 = 0.1;

/// The part of the question that is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Suite {
    /// The broker's rows of the design's table of peers.
    Peers,
    /// Payloads, properties, groups, transports, storms, slow consumers.
    Loads,
    /// Memory, and what it costs to fill and to empty it.
    Kept,
    Latency,
    /// One worker and two.
    Workers,
    Gateway,
    Sticky,
}

impl Suite {
    const ALL: [Self; 7] =
        [Self::Peers, Self::Loads, Self::Kept, Self::Latency, Self::Workers, Self::Gateway, Self::Sticky];
    /// Those of the broker.
    const BROKER: [Self; 5] = [Self::Peers, Self::Loads, Self::Kept, Self::Latency, Self::Workers];

    const fn name(self) -> &'static str {
        match self {
            Self::Peers => "peers",
            Self::Loads => "loads",
            Self::Kept => "kept",
            Self::Latency => "latency",
            Self::Workers => "workers",
            Self::Gateway => "gateway",
            Self::Sticky => "sticky",
        }
    }

    /// What it asks.
    const fn what(self) -> &'static str {
        match self {
            Self::Peers => "the broker beside its peers, in the rows whose bars were set first",
            Self::Loads => "payloads, properties, groups, transports, storms, slow consumers",
            Self::Kept => "what a filter, a retained message, a waiting message takes",
            Self::Latency => "latency at shares of a rate that saturates",
            Self::Workers => "one worker and two",
            Self::Gateway => "the gateway beside HAProxy, nginx and a bare relay",
            Self::Sticky => "whether clients come back to their server; no rows, always whole",
        }
    }

    /// Its tables with all rows and no number.
    fn tables(self) -> Vec<Table> {
        match self {
            Self::Gateway => vec![gateway::table()],
            Self::Sticky => Vec::new(),
            of_the_broker => broker::tables(of_the_broker),
        }
    }
}

const OPTIONS: &str = "\
cargo xtask bench [SUITE]... [--reps 3] [--secs 2] [--quick] [--row ROW]... [--write] [--binary FILE] [--list]
    SUITE     all (what is meant without one), broker (the first five below), or any of the names below
    --reps    turns: each runs every row with every contestant once
    --secs    seconds of load in a run
    --quick   1 s of load, and two runs in place of five for a latency
    --row     this row only, once for each; rows that one run gives come together
    --write   put whole tables into docs/BENCHMARKS.md, and what follows from them into README.md and docs/SCALING.md
    --binary  measure this in place of a fresh release build
    --list    these words, every suite and every row with its bar
";

/// What the command line asks for.
#[derive(Clone, Debug, PartialEq)]
struct Wishes {
    suites: Vec<Suite>,
    /// Turns: each runs every row with every contestant once.
    reps: usize,
    /// How long a run generates load, in seconds.
    secs: f64,
    /// Rows by name; empty: all.
    rows: Vec<String>,
    /// A binary to measure in place of a fresh release build.
    binary: Option<PathBuf>,
    /// Whether docs/BENCHMARKS.md gets the tables.
    write: bool,
    /// Runs of a latency row in each turn; the best of them counts.
    tries: usize,
    /// Whether only to say what there is.
    list: bool,
}

impl Default for Wishes {
    fn default() -> Self {
        Self {
            suites: Suite::ALL.to_vec(),
            reps: 3,
            secs: 2.0,
            rows: Vec::new(),
            binary: None,
            write: false,
            tries: LATENCY_TRIES,
            list: false,
        }
    }
}

impl Wishes {
    fn wants(&self, row: &str) -> bool {
        self.rows.is_empty() || self.rows.iter().any(|wanted| wanted == row)
    }
}

/// Measures, prints, and writes if asked to. An error if nothing could be measured; a row that we lose is a result.
pub(crate) fn run(workspace: &Workspace, arguments: &[String]) -> Result<(), String> {
    let wishes = parse(arguments)?;
    if wishes.list {
        println!("{}", list(&wishes.suites));
        return Ok(());
    }
    if wishes.write && !wishes.rows.is_empty() {
        return Err("--write takes whole tables; leave out --row".to_owned());
    }
    machine::require_two_cores()?;
    machine::require_open_files()?;
    let bench = Bench::prepare(workspace, wishes.binary.as_deref())?;
    let before = machine::Facts::gather(workspace, &bench)?;
    println!("{}", before.line());
    for &suite in &wishes.suites {
        let text = match suite {
            Suite::Gateway => gateway::measure(&bench, &wishes).markdown(),
            Suite::Sticky => sticky::measure(&bench)?,
            of_the_broker => broker::measure(&bench, &wishes, of_the_broker),
        };
        println!("\n{text}");
        if wishes.write {
            let facts = machine::Facts::gather(workspace, &bench)?.since(&before);
            report::write(workspace, suite.name(), &facts, &text)?;
        }
    }
    if wishes.write
        && let Err(reason) = derived::run(workspace)
    {
        println!("README.md and docs/SCALING.md are left as they are: {reason}");
    }
    Ok(())
}

/// Runs every wanted group of rows with every contestant, in turns, so that what else the machine does meets all of them
/// alike. The rows of a group come from one run: who wants one of them gets all.
///
/// `one` runs a group (by its place in `groups`) with a contestant (by its place in the table) and gives a number for each
/// of its rows; `None`: it cannot do that.
fn in_turns(
    table: &mut Table,
    groups: &[Vec<Row>],
    wishes: &Wishes,
    mut one: impl FnMut(usize, usize) -> Option<Result<Vec<Measured>, String>>,
) {
    let wanted = |at: &usize| groups[*at].iter().any(|row| wishes.wants(row.name));
    let wanted: Vec<usize> = (0..groups.len()).filter(wanted).collect();
    table.rows = wanted.iter().flat_map(|&at| groups[at].iter().cloned()).collect();
    for turn in 1..=wishes.reps {
        let mut place = 0;
        for &group in &wanted {
            for contestant in 0..table.contestants.len() {
                let Some(result) = one(group, contestant) else { continue };
                let name = table.contestants[contestant].name.clone();
                for (at, row) in groups[group].iter().enumerate() {
                    let result = result.as_ref().map_err(String::clone).and_then(|all| {
                        all.get(at).cloned().ok_or_else(|| "the run gave no number for it".to_owned())
                    });
                    match &result {
                        Ok(measured) => {
                            println!("turn {turn}: {}, {name}: {measured} {}", row.what, row.unit);
                        }
                        Err(reason) => println!("turn {turn}: {}, {name}: failed: {reason}", row.what),
                    }
                    table.record(place + at, contestant, result);
                }
            }
            place += groups[group].len();
        }
    }
}

fn parse(arguments: &[String]) -> Result<Wishes, String> {
    let mut wishes = Wishes::default();
    let mut suites = Vec::new();
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().ok_or_else(|| format!("{argument} needs a value"));
        match argument.as_str() {
            "all" => suites.extend(Suite::ALL),
            "broker" => suites.extend(Suite::BROKER),
            "--reps" => wishes.reps = number(argument, value()?, 1.0..=100.0)? as usize,
            "--secs" => wishes.secs = number(argument, value()?, 0.5..=60.0)?,
            "--row" => wishes.rows.push(value()?.clone()),
            "--binary" => wishes.binary = Some(value()?.into()),
            "--write" => wishes.write = true,
            "--quick" => (wishes.secs, wishes.tries) = (QUICK_SECS, QUICK_TRIES),
            "--list" | "--help" | "-h" => wishes.list = true,
            word => match Suite::ALL.into_iter().find(|suite| suite.name() == word) {
                Some(suite) => suites.push(suite),
                None => {
                    let names: Vec<_> = Suite::ALL.iter().map(|suite| suite.name()).collect();
                    return Err(format!(
                        "{word:?} is neither a suite (all, broker, {}) nor an option (--reps, --secs, --quick, \
                         --row, --write, --binary, --list)",
                        names.join(", ")
                    ));
                }
            },
        }
    }
    if !suites.is_empty() {
        wishes.suites = Suite::ALL.into_iter().filter(|suite| suites.contains(suite)).collect();
    }
    require_rows(&wishes)?;
    Ok(wishes)
}

/// Every row that is named must be one of the suites that are measured.
fn require_rows(wishes: &Wishes) -> Result<(), String> {
    let tables: Vec<_> = wishes.suites.iter().flat_map(|suite| suite.tables()).collect();
    let known: Vec<_> = tables.iter().flat_map(|table| &table.rows).map(|row| row.name).collect();
    match wishes.rows.iter().find(|row| !known.contains(&row.as_str())) {
        Some(row) if known.is_empty() => Err(format!("--row {row:?}: what is measured has no rows")),
        Some(row) => Err(format!("--row {row:?} is none of {}", known.join(", "))),
        None => Ok(()),
    }
}

/// The options, and the suites with their rows.
fn list(suites: &[Suite]) -> String {
    let mut text = OPTIONS.to_owned();
    for suite in suites {
        text += &format!("\n{}: {}\n", suite.name(), suite.what());
        text.extend(suite.tables().iter().map(Table::list));
    }
    text.trim_end().to_owned()
}

fn number(name: &str, text: &str, range: std::ops::RangeInclusive<f64>) -> Result<f64, String> {
    text.parse()
        .ok()
        .filter(|value| range.contains(value))
        .ok_or_else(|| format!("{name} {text:?}: a number from {} to {}", range.start(), range.end()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wishes(line: &str) -> Result<Wishes, String> {
        parse(&line.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn without_a_word_everything_is_measured_three_times() {
        let all = wishes("").unwrap();
        assert_eq!((all.suites.as_slice(), all.reps, all.write), (Suite::ALL.as_slice(), 3, false));
        assert_eq!(wishes("all").unwrap(), all);
    }

    #[test]
    fn suites_keep_their_order_and_are_not_run_twice() {
        assert_eq!(
            wishes("sticky kept peers kept").unwrap().suites,
            [Suite::Peers, Suite::Kept, Suite::Sticky]
        );
        assert_eq!(wishes("broker").unwrap().suites, Suite::BROKER);
    }

    #[test]
    fn options_are_read() {
        let read = wishes("gateway --reps 5 --secs 1.5 --row storm --binary b --write").unwrap();
        let expected = Wishes {
            suites: vec![Suite::Gateway],
            reps: 5,
            secs: 1.5,
            rows: vec!["storm".to_owned()],
            binary: Some("b".into()),
            write: true,
            tries: LATENCY_TRIES,
            list: false,
        };
        assert_eq!(read, expected);
        assert_eq!((wishes("--quick").unwrap().secs, wishes("--quick").unwrap().tries), (1.0, 2));
        assert!(read.wants("storm") && !read.wants("bulk"));
    }

    #[test]
    fn what_is_no_option_is_refused_with_what_is() {
        assert!(wishes("brokers").unwrap_err().contains("all, broker, peers,"));
        assert!(wishes("gateway --row 10x10").unwrap_err().starts_with("--row \"10x10\" is none of storm, "));
        assert!(wishes("sticky --row storm").unwrap_err().ends_with("has no rows"));
        assert!(wishes("peers kept --row filters1m_bytes").is_ok());
        assert_eq!(wishes("--reps 0").unwrap_err(), "--reps \"0\": a number from 1 to 100");
        assert_eq!(wishes("--secs").unwrap_err(), "--secs needs a value");
    }

    #[test]
    fn the_list_has_every_suite_and_row_and_no_name_twice() {
        let text = list(&Suite::ALL);
        let tables: Vec<_> = Suite::ALL.into_iter().flat_map(Suite::tables).collect();
        let mut names = std::collections::HashSet::new();
        for row in tables.iter().flat_map(|table| &table.rows) {
            assert!(names.insert(row.name), "{} names two rows", row.name);
            assert!(text.contains(&format!("\n    {:<20} {}", row.name, row.what)), "{text}");
        }
        assert!(Suite::ALL.iter().all(|suite| text.contains(&format!("\n{}: ", suite.name()))), "{text}");
    }

    #[test]
    fn every_row_meets_every_contestant_in_every_turn() {
        let row = |name| Row::new(name, "it", "s");
        let groups = [vec![row("a")], vec![row("b")], vec![row("c"), row("d")]];
        let mut table = Table::new("t", vec![figures::ours("x"), figures::peer("y")]);
        let wishes = Wishes { reps: 2, rows: vec!["c".into(), "a".into()], ..Wishes::default() };
        let mut order = Vec::new();
        in_turns(&mut table, &groups, &wishes, |group, contestant| {
            order.push((group, contestant));
            let all = (0..groups[group].len()).map(|at| Measured::of(at as f64));
            (contestant == 0).then(|| Ok(all.collect()))
        });
        assert_eq!(order, [(0, 0), (0, 1), (2, 0), (2, 1)].repeat(2));
        assert_eq!(table.rows.iter().map(|row| row.name).collect::<Vec<_>>(), ["a", "c", "d"]);
        assert_eq!(table.rows[2].runs[0], [Ok(Measured::of(1.0)), Ok(Measured::of(1.0))]);
    }
}
