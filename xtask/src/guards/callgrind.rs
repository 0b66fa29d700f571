//! Builds the program of the rows and runs it under callgrind, always in the same way: what differs from machine to machine
//! (environment, paths, the processor's newer instructions in libc) is kept away from what is counted.

use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use crate::command;
use crate::workspace::Workspace;

/// The package, its program and the profile in the root's `Cargo.toml`.
const PACKAGE: &str = "guards";
/// Where a valgrind may be. The environment is empty otherwise: what is in it lies on the stack, whose addresses seed
/// hash tables.
const PATH: &str = "/usr/bin:/bin:/usr/local/bin";
/// libc copies and compares with what every x86-64 has, not with the best that this processor has.
const TUNABLES: &str =
    "glibc.cpu.hwcaps=-AVX2,-AVX512F,-AVX512VL,-AVX512BW,-AVX_Fast_Unaligned_Load,-ERMS,-FSRM";
/// Collects in there only; see `crates/guards/src/meter.rs`.
const COUNTED: &str = "guards::meter::counted*";
/// Rows that are counted at once, at most.
const AT_ONCE: usize = 4;

/// The program of the rows, built.
pub(super) struct Counter {
    /// Where the program is.
    programs: PathBuf,
    /// Where callgrind writes its profiles.
    profiles: PathBuf,
    /// The latter for people, from the root.
    shown: String,
}

/// The compiler and the machine it compiles for, as one line.
pub(super) fn compiler() -> Result<String, String> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let answer = command::read(Command::new(rustc).arg("-vV"))?;
    let field = |name: &str| answer.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    match (field("release:"), field("host:")) {
        (Some(release), Some(host)) => Ok(format!("rustc {release} {host}")),
        _ => Err(format!("`rustc -vV` answered {answer:?}")),
    }
}

impl Counter {
    /// Builds it as a release is built.
    pub(super) fn build(workspace: &Workspace) -> Result<Self, String> {
        if !command::succeeds(valgrind().arg("--version")) {
            return Err("valgrind is missing: `cargo xtask test --only setup`".to_owned());
        }
        let mut build = command::cargo();
        build.current_dir(&workspace.root).args([
            "build",
            "--quiet",
            "--profile",
            PACKAGE,
            "--package",
            PACKAGE,
        ]);
        build.args(["--features", "rows"]);
        // incremental builds cut the code in other pieces, and flags of the environment are not those of a release
        build.env("CARGO_INCREMENTAL", "0").env_remove("RUSTFLAGS").env_remove("CARGO_ENCODED_RUSTFLAGS");
        command::run(&mut build)?;
        let programs = workspace.target.join(PACKAGE);
        let profiles = programs.join("profiles");
        std::fs::create_dir_all(&profiles).map_err(|error| format!("{}: {error}", profiles.display()))?;
        let shown = profiles.strip_prefix(&workspace.root).unwrap_or(&profiles).display().to_string();
        Ok(Self { programs, profiles, shown })
    }

    /// The folder of the profiles, for people.
    pub(super) fn shown_folder(&self) -> &str {
        &self.shown
    }

    /// The names of all rows.
    pub(super) fn rows(&self) -> Result<Vec<String>, String> {
        let list = command::read(Command::new(self.programs.join(PACKAGE)).arg("--list"))?;
        Ok(list.lines().map(str::to_owned).collect())
    }

    /// Instructions of one operation of each row; some rows at once, since they do not disturb each other.
    pub(super) fn count(&self, rows: &[String]) -> Result<Vec<(String, f64)>, String> {
        let at_once = thread::available_parallelism().map_or(1, usize::from).min(AT_ONCE);
        let next = AtomicUsize::new(0);
        let work = || {
            let mut counts = Vec::new();
            while let Some((at, row)) =
                Some(next.fetch_add(1, Ordering::Relaxed)).and_then(|at| Some((at, rows.get(at)?)))
            {
                counts.push((at, self.count_one(row)));
            }
            counts
        };
        let mut counts: Vec<_> = thread::scope(|scope| {
            let threads: Vec<_> = (0..at_once).map(|_| scope.spawn(work)).collect();
            threads.into_iter().flat_map(|thread| thread.join().unwrap_or_default()).collect()
        });
        counts.sort_by_key(|(at, _)| *at);
        if counts.len() < rows.len() {
            return Err("a thread that counts has panicked".to_owned());
        }
        counts.into_iter().zip(rows).map(|((_, count), row)| Ok((row.clone(), count?))).collect()
    }

    fn count_one(&self, row: &str) -> Result<f64, String> {
        let profile = self.profiles.join(format!("{}.out", row.replace('/', ".")));
        let mut run = valgrind();
        // by a relative path: the program's own name lies on its stack, too
        run.current_dir(&self.programs).args([
            "--tool=callgrind",
            "--quiet",
            &format!("--toggle-collect={COUNTED}"),
        ]);
        run.arg(format!("--callgrind-out-file={}", profile.display())).arg(format!("./{PACKAGE}")).arg(row);
        let answer = command::read(&mut run)?;
        let text =
            std::fs::read_to_string(&profile).map_err(|error| format!("{}: {error}", profile.display()))?;
        per_operation(&text, &answer).map_err(|error| format!("{row}: {error}"))
    }
}

fn valgrind() -> Command {
    let mut valgrind = Command::new("valgrind");
    valgrind.env_clear().env("PATH", PATH).env("GLIBC_TUNABLES", TUNABLES);
    valgrind
}

/// The instructions of a profile, divided by the operations that the program says it did.
fn per_operation(profile: &str, answer: &str) -> Result<f64, String> {
    let total = profile.lines().find_map(|line| line.strip_prefix("totals: ")?.trim().parse::<u64>().ok());
    let total = total.ok_or("callgrind's profile has no total")?;
    let operations = answer.trim().parse::<u64>().ok().filter(|operations| *operations > 0);
    let operations = operations.ok_or_else(|| format!("{answer:?} is no number of operations"))?;
    if total == 0 {
        return Err(format!("nothing was counted: is there no function {COUNTED} any more?"));
    }
    Ok(total as f64 / operations as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_is_the_total_of_a_profile_for_one_operation() {
        let profile = "# callgrind format\nevents: Ir\nsummary: 432021\nfn=(1)\n0 5\n\ntotals: 432021\n";
        assert_eq!(per_operation(profile, "1000\n"), Ok(432.021));
        assert!(per_operation(profile, "many").is_err() && per_operation(profile, "0").is_err());
        assert!(per_operation("events: Ir\n", "1000").is_err());
    }

    #[test]
    fn a_profile_in_which_nothing_was_counted_is_no_count() {
        assert!(per_operation("totals: 0\n", "1000").unwrap_err().starts_with("nothing was counted"));
    }

    #[test]
    fn the_compiler_says_what_it_is_and_for_which_machine() {
        let compiler = compiler().unwrap();
        assert!(compiler.starts_with("rustc 1.") && compiler.split(' ').count() == 3, "{compiler}");
    }
}
