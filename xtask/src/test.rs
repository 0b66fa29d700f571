//! `cargo xtask test`: every check and test of the project as a list of steps, for people and for CI alike.
//!
//! The order is the time to an answer: what fails in a second comes first. Which steps run is decided by
//! `selection`, what each does stands in `steps`, and what they need from outside is brought by `setup`.

mod setup;
mod steps;

use std::time::{Duration, Instant};

use crate::workspace::Workspace;
use steps::{STEPS, Step};

/// What the command line asks for.
#[derive(Debug, Default, PartialEq, Eq)]
struct Wishes {
    only: Vec<String>,
    skip: Vec<String>,
    keep_going: bool,
    list: bool,
}

/// How a step ended.
enum Outcome {
    /// With what a reader should know beside "passed"; often empty.
    Passed(String),
    Failed(String),
    NotRun,
}

/// A line of the table at the end.
struct Row {
    step: &'static str,
    took: Duration,
    outcome: Outcome,
}

/// Runs the steps that `arguments` select; an error if one failed.
pub(crate) fn run(workspace: &Workspace, arguments: &[String]) -> Result<(), String> {
    let wishes = parse(arguments)?;
    if wishes.list {
        for step in STEPS {
            println!("{:<12} {}", step.name, step.what);
        }
        return Ok(());
    }
    let mut rows = Vec::new();
    let mut stopped = false;
    for step in selection(&wishes) {
        let row = if stopped { not_run(step) } else { timed(step, workspace) };
        stopped = stopped || (row.failed() && !wishes.keep_going);
        rows.push(row);
    }
    print!("{}", table(&rows));
    let failed: Vec<_> = rows.iter().filter(|row| row.failed()).map(|row| row.step).collect();
    if failed.is_empty() { Ok(()) } else { Err(format!("failed: {}", failed.join(", "))) }
}

fn parse(arguments: &[String]) -> Result<Wishes, String> {
    let mut wishes = Wishes::default();
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        let mut step = || {
            let name = arguments.next().ok_or_else(|| format!("{argument} needs a step"))?;
            let known = STEPS.iter().any(|step| step.name == name);
            let names = || STEPS.iter().map(|step| step.name).collect::<Vec<_>>().join(", ");
            if known { Ok(name.clone()) } else { Err(format!("{name:?} is no step; there are {}", names())) }
        };
        match argument.as_str() {
            "--only" => wishes.only.push(step()?),
            "--skip" => wishes.skip.push(step()?),
            "--keep-going" => wishes.keep_going = true,
            "--list" => wishes.list = true,
            _ => {
                return Err(format!(
                    "{argument:?} is no option; there are --only, --skip, --keep-going, --list"
                ));
            }
        }
    }
    Ok(wishes)
}

/// The wanted steps, in their one order.
fn selection(wishes: &Wishes) -> impl Iterator<Item = &'static Step> {
    let names = |list: &[String], step: &Step| list.iter().any(|name| name == step.name);
    STEPS.iter().filter(move |step| {
        (wishes.only.is_empty() || names(&wishes.only, step)) && !names(&wishes.skip, step)
    })
}

#[allow(clippy::disallowed_methods, reason = "how long a step takes on the wall is the answer wanted here")]
fn timed(step: &'static Step, workspace: &Workspace) -> Row {
    println!("\n== {}: {}", step.name, step.what);
    let start = Instant::now();
    let outcome = match (step.run)(workspace) {
        Ok(note) => Outcome::Passed(note),
        Err(reason) => {
            println!("{}: {reason}", step.name);
            Outcome::Failed(reason)
        }
    };
    Row { step: step.name, took: start.elapsed(), outcome }
}

fn not_run(step: &Step) -> Row {
    Row { step: step.name, took: Duration::ZERO, outcome: Outcome::NotRun }
}

/// The durations and results, and the closing line that test runners print.
fn table(rows: &[Row]) -> String {
    let mut lines = vec![String::new(), format!("{:<12} {:>8}  result", "step", "seconds")];
    for Row { step, took, outcome } in rows {
        let seconds = format!("{:.1}", took.as_secs_f64());
        let (seconds, result, remark) = match outcome {
            Outcome::Passed(note) => (seconds.as_str(), "passed", note.as_str()),
            Outcome::Failed(reason) => {
                (seconds.as_str(), "FAILED", reason.lines().next().unwrap_or_default())
            }
            Outcome::NotRun => ("-", "not run", ""),
        };
        lines.push(format!("{step:<12} {seconds:>8}  {result:<8} {remark}").trim_end().to_owned());
    }
    let total: Duration = rows.iter().map(|row| row.took).sum();
    lines.push(format!("{:<12} {:>8.1}", "total", total.as_secs_f64()));
    let count = |wanted: fn(&Outcome) -> bool| rows.iter().filter(|row| wanted(&row.outcome)).count();
    let passed = count(|outcome| matches!(outcome, Outcome::Passed(_)));
    let failed = count(|outcome| matches!(outcome, Outcome::Failed(_)));
    let skipped = count(|outcome| matches!(outcome, Outcome::NotRun));
    lines.push(format!("steps: {passed} passed, {failed} failed, {skipped} skipped\n"));
    lines.join("\n")
}

impl Row {
    fn failed(&self) -> bool {
        matches!(self.outcome, Outcome::Failed(_))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wishes(line: &str) -> Result<Wishes, String> {
        parse(&line.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    }

    #[track_caller]
    fn check_selection(line: &str, steps: &[&str]) {
        let selected: Vec<_> = selection(&wishes(line).unwrap()).map(|step| step.name).collect();
        assert_eq!(selected, steps);
    }

    #[test]
    fn steps_run_in_their_own_order_whatever_the_command_line_says() {
        check_selection("--only unit --only format", &["format", "unit"]);
        check_selection("--only unit --only format --skip unit", &["format"]);
    }

    #[test]
    fn without_a_wish_every_step_runs() {
        assert_eq!(selection(&Wishes::default()).count(), STEPS.len());
    }

    #[test]
    fn a_wish_that_cannot_be_met_is_told() {
        assert_eq!(wishes("--only").unwrap_err(), "--only needs a step");
        assert!(wishes("--skip tests").unwrap_err().starts_with("\"tests\" is no step; there are setup, "));
        assert!(wishes("--fast").unwrap_err().starts_with("\"--fast\" is no option"));
    }

    #[test]
    fn the_table_gives_durations_results_and_a_closing_line() {
        let row = |step, seconds, outcome| Row { step, took: Duration::from_millis(seconds), outcome };
        let rows = [
            row("format", 1_240, Outcome::Passed(String::new())),
            row("deny", 2_000, Outcome::Passed("no advisories".to_owned())),
            row("unit", 500, Outcome::Failed("`cargo`: exit status: 1\nmore".to_owned())),
            row("docs", 0, Outcome::NotRun),
        ];
        let expected = "
step          seconds  result
format            1.2  passed
deny              2.0  passed   no advisories
unit              0.5  FAILED   `cargo`: exit status: 1
docs                -  not run
total             3.7
steps: 2 passed, 1 failed, 1 skipped
";
        assert_eq!(table(&rows), expected);
    }

    #[test]
    fn step_names_are_unique() {
        let mut names: Vec<_> = STEPS.iter().map(|step| step.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), STEPS.len());
    }
}
