//! `cargo xtask soak`: the program at saturation, with clients that are slow and dying, held against an exact oracle.
//!
//! The load, the oracle and the verdict are a program of their own, `crates/tidegate/tests/soak`, because they speak MQTT and
//! need the workspace's crates; here it is built and started. Must not know what it does.

use crate::command::{cargo, run};
use crate::workspace::Workspace;

/// Seconds of a run, if nothing is said.
const SECONDS: &str = "600";

/// Builds the release program and runs the soak with these arguments.
pub(crate) fn release(workspace: &Workspace, arguments: &[String]) -> Result<(), String> {
    let mut wishes: Vec<&str> = arguments.iter().map(String::as_str).collect();
    if !wishes.contains(&"--secs") {
        wishes.extend(["--secs", SECONDS]);
    }
    start(workspace, &["--release"], &wishes)
}

/// Runs it with the build that the other tests use.
pub(crate) fn debug(workspace: &Workspace, wishes: &[&str]) -> Result<(), String> {
    start(workspace, &[], wishes)
}

fn start(workspace: &Workspace, profile: &[&str], wishes: &[&str]) -> Result<(), String> {
    let mut soak = cargo();
    soak.current_dir(&workspace.root).arg("test").args(profile);
    run(soak.args(["-p", "tidegate", "--test", "soak", "--"]).args(wishes))
}
