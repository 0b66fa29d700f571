//! The workshop: one program that people and CI run to test Tidegate and to keep its habits.
//!
//! It knows the workspace from the outside (`cargo metadata`, the files git lists) and must not depend on
//! any room of it, so that it builds in seconds and works while a room does not compile.

#![allow(clippy::print_stdout, reason = "a command line tool answers on standard output")]

mod bench;
mod clauses;
mod command;
mod guards;
mod soak;
mod test;
mod tidy;
mod workspace;

use std::process::ExitCode;

use workspace::Workspace;

const USAGE: &str = "\
cargo xtask test [--only STEP]... [--skip STEP]... [--keep-going] [--list]
    Run every check and test, in the order of time to an answer; stop at the first step that fails.
cargo xtask tidy
    Check the habits that no compiler checks: layers, names, lengths, notes, clause ids.
cargo xtask clauses [--untested]
    List the MQTT clauses cited in code and in tests, and check the table of proofs in docs/clauses.md.
cargo xtask guards [--row ROW]... [--accept ROW]... [--list]
    Count the instructions of the hot path and hold them to crates/guards/counts.toml: a row may cost 5 % more.
    ROW is a row, the beginning of some, or `all`; --accept records what was counted.
cargo xtask soak [--secs 600] [--seed N] [--workers N]... [--gateway] [--cycle 60] [--binary FILE]
    Drive the release binary at saturation with clients that are slow and dying, by a printed seed, and hold what
    arrives against an exact oracle; memory, descriptors and every account as well. With one worker and with two.
cargo xtask bench [SUITE]... [--reps 3] [--secs 2] [--quick] [--row ROW]... [--write] [--binary FILE] [--list]
    Measure our release binary beside its peers, in turns and on pinned cores; --write puts the tables into
    docs/BENCHMARKS.md, --quick halves the time, --list says which suites and rows there are.
cargo xtask load pairs|filters|retained|offline|unacknowledged|storm --port N --pid N [--OPTION VALUE]...
    One load of `bench` against a broker on loopback; its answer is a line of JSON.
cargo xtask figures
    Compute README's ratios and the tables of docs/SCALING.md from those of docs/BENCHMARKS.md; `bench --write` does it
    too, and `tidy` says where they differ.";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            eprintln!("xtask: {reason}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[String]) -> Result<(), String> {
    let Some((verb, rest)) = arguments.split_first() else {
        return Err(format!("say what to do\n{USAGE}"));
    };
    match verb.as_str() {
        "test" => test::run(&Workspace::open()?, rest),
        "tidy" if rest.is_empty() => tidy::run(&Workspace::open()?),
        "soak" => soak::release(&Workspace::open()?, rest),
        "bench" => bench::run(&Workspace::open()?, rest),
        "guards" => guards::run(&Workspace::open()?, rest),
        "load" => bench::load::run(rest),
        "figures" if rest.is_empty() => bench::derived::run(&Workspace::open()?),
        "clauses" => clauses::run(&Workspace::open()?, rest),
        "help" | "--help" | "-h" => {
            println!("{USAGE}");
            Ok(())
        }
        other => Err(format!("{other:?} with these arguments is no task\n{USAGE}")),
    }
}
