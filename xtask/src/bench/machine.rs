//! Where and when something was measured. Without that a figure means nothing.

use std::fs;
use std::process::Command;

use super::tools::{self, Bench};
use crate::command;
use crate::workspace::Workspace;

/// Descriptors that the idle rows need: two for each of 8,000 connections through a balancer, 19,500 at a broker.
const OPEN_FILES: u64 = 20_000;

/// The circumstances of a run.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Facts {
    date: String,
    commit: String,
    cpu: String,
    cores: usize,
    memory_gib: u64,
    kernel: String,
    load: String,
    versions: String,
}

impl Facts {
    /// Reads them now.
    pub(super) fn gather(workspace: &Workspace, bench: &Bench) -> Result<Self, String> {
        let cpu_info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let kib: u64 = value_after(&memory, "MemTotal:")
            .and_then(|value| value.split_whitespace().next()?.parse().ok())
            .unwrap_or(0);
        Ok(Self {
            date: command::read(Command::new("date").args(["-u", "+%Y-%m-%d %H:%M UTC"]))?.trim().to_owned(),
            commit: if bench.foreign_binary { "a given binary".to_owned() } else { commit(workspace)? },
            cpu: value_after(&cpu_info, "model name")
                .unwrap_or("unknown")
                .trim_start_matches([':', ' '])
                .to_owned(),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            memory_gib: (kib + (1 << 19)) >> 20,
            kernel: command::read(Command::new("uname").args(["-s", "-r"]))?.trim().to_owned(),
            load: load(),
            versions: versions(bench),
        })
    }

    /// The same with the load average of the beginning too.
    pub(super) fn since(mut self, before: &Self) -> Self {
        self.load = format!("{} before, {} after", before.load, self.load);
        self
    }

    /// One line for people and for the document.
    pub(super) fn line(&self) -> String {
        let Self { date, commit, cpu, cores, memory_gib, kernel, load, versions } = self;
        format!(
            "Measured {date}, commit {commit}, on {cores} cores ({cpu}), {memory_gib} GiB, {kernel}, load average {load}; {versions}."
        )
    }
}

/// The short id, and whether the tree had changes that are in no commit.
fn commit(workspace: &Workspace) -> Result<String, String> {
    let git = |arguments: &[&str]| {
        command::read(Command::new("git").arg("-C").arg(&workspace.root).args(arguments))
    };
    let id = git(&["rev-parse", "--short=12", "HEAD"])?;
    let changes =
        git(&["status", "--porcelain", "--untracked-files=no", "--", "crates", "Cargo.toml", "Cargo.lock"])?;
    let remark = if changes.trim().is_empty() { "" } else { " with changes" };
    Ok(format!("{}{remark}", id.trim()))
}

fn load() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace().next().unwrap_or("unknown").to_owned()
}

fn versions(bench: &Bench) -> String {
    let mut all = vec![
        tools::version(&bench.mosquitto, "-h"),
        tools::version(&bench.nginx, "-v").replace("nginx version: ", ""),
        tools::version(&bench.haproxy, "-v").split(" - ").next().unwrap_or_default().to_owned(),
    ];
    all.extend(bench.nats.as_ref().map(|nats| tools::version(nats, "--version")));
    all.join(", ")
}

/// What follows `key` in the first line that begins with it.
fn value_after<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix(key)).map(str::trim)
}

/// Server and load must not share a core.
pub(super) fn require_two_cores() -> Result<(), String> {
    match std::thread::available_parallelism().map_or(1, usize::from) {
        1 => Err("this needs two cores: one for the server, one for the load".to_owned()),
        _ => Ok(()),
    }
}

/// The idle rows open many descriptors, and so do the servers that inherit our limit.
pub(super) fn require_open_files() -> Result<(), String> {
    let limits =
        fs::read_to_string("/proc/self/limits").map_err(|error| format!("/proc/self/limits: {error}"))?;
    match open_files(&limits) {
        Some(soft) if soft < OPEN_FILES => {
            Err(format!("{soft} open files are allowed and {OPEN_FILES} needed: ulimit -n {OPEN_FILES}"))
        }
        _ => Ok(()),
    }
}

/// The soft limit; `None` if there is none.
fn open_files(limits: &str) -> Option<u64> {
    value_after(limits, "Max open files")?.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_of_open_files_is_the_soft_one() {
        let limits =
            "Limit           Soft Limit  Hard Limit  Units\nMax open files  1024        524288      files\n";
        assert_eq!(open_files(limits), Some(1_024));
        assert_eq!(open_files("Max open files  unlimited  unlimited  files\n"), None);
    }

    #[test]
    fn the_line_has_all_circumstances() {
        let facts = Facts {
            date: "2001-02-03 04:05 UTC".into(),
            commit: "abc".into(),
            cpu: "A CPU".into(),
            cores: 2,
            memory_gib: 24,
            kernel: "Linux 6.1".into(),
            load: "0.10".into(),
            versions: "peer 1.2".into(),
        };
        let after = Facts { load: "1.90".into(), ..facts.clone() }.since(&facts);
        let expected = "Measured 2001-02-03 04:05 UTC, commit abc, on 2 cores (A CPU), 24 GiB, Linux 6.1, \
                        load average 0.10 before, 1.90 after; peer 1.2.";
        assert_eq!(after.line(), expected);
    }
}
