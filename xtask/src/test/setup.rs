//! Brings what the tests need from outside: programs from Debian, packages from PyPI and npm into `target/venv`.
//!
//! It installs only what is missing and starts no service. A machine where it may not install is told, in one
//! sentence, what to install.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::command;
use crate::workspace::Workspace;

/// The places where a program (or module) may be, and the Debian package that brings it.
const DEBIAN: &[(&[&str], &str)] = &[
    (&["/usr/sbin/mosquitto", "/usr/bin/mosquitto", "/usr/local/sbin/mosquitto"], "mosquitto"),
    (&["/usr/bin/mosquitto_sub", "/usr/local/bin/mosquitto_sub"], "mosquitto-clients"),
    (&["/usr/sbin/nginx"], "nginx"),
    (&["/usr/lib/nginx/modules/ngx_stream_module.so"], "libnginx-mod-stream"),
    (&["/usr/sbin/haproxy"], "haproxy"),
    (&["/usr/bin/node", "/usr/local/bin/node"], "nodejs"),
    (&["/usr/bin/npm", "/usr/local/bin/npm"], "npm"),
    (&["/usr/bin/valgrind", "/usr/local/bin/valgrind"], "valgrind"),
];

/// Asked before a package's service is started; 101 means "don't".
const SERVICE_POLICY: &str = "/usr/sbin/policy-rc.d";
const NO_SERVICES: &str = "#!/bin/sh\n# Written by `cargo xtask test` while it installs; tests start their own servers.\nexit 101\n";

/// What the tests take from PyPI, pinned by version and content.
const REQUIREMENTS: &str = "xtask/requirements.txt";

/// What they take from npm, pinned the same way: `package.json` and its lock file.
const NPM_PACKAGES: &str = "crates/tidegate/tests/js";
/// In `target/venv/bin`, beside our Python: Node.js that finds these packages.
const NODE: &str = "node-with-mqtt";

/// The step `setup`.
pub(super) fn run(workspace: &Workspace) -> Result<String, String> {
    let missing = missing_packages(|file| Path::new(file).exists(), has_venv());
    if !missing.is_empty() {
        install_from_debian(&missing)?;
    }
    let mut fresh = install_from_pypi(workspace)?;
    fresh |= install_from_npm(workspace)?;
    let said = |what: &[&str]| format!("installed {}", what.join(", "));
    match (missing.as_slice(), fresh) {
        ([], false) => Ok("all there".to_owned()),
        ([], true) => Ok(said(&["target/venv"])),
        (packages, false) => Ok(said(packages)),
        (packages, true) => Ok(said(&[packages, &["target/venv"]].concat())),
    }
}

/// A program of `target/venv`; an error that says how to get it if it isn't there.
pub(super) fn venv_program(workspace: &Workspace, name: &str) -> Result<PathBuf, String> {
    let program = venv(workspace).join("bin").join(name);
    if program.exists() {
        Ok(program)
    } else {
        Err(format!("{name} is missing: `cargo xtask test --only setup`"))
    }
}

/// The search path for tests: our Python with its packages first, the servers' folder last (it is not in the
/// path of everyone who isn't root).
pub(super) fn search_path(workspace: &Workspace) -> OsString {
    let mut path = venv(workspace).join("bin").into_os_string();
    if let Some(inherited) = std::env::var_os("PATH") {
        path.push(":");
        path.push(inherited);
    }
    path.push(":/usr/sbin");
    path
}

fn venv(workspace: &Workspace) -> PathBuf {
    workspace.target.join("venv")
}

fn missing_packages(exists: impl Fn(&str) -> bool, has_venv: bool) -> Vec<&'static str> {
    let absent = DEBIAN.iter().filter(|(files, _)| !files.iter().any(|file| exists(file)));
    let mut packages: Vec<_> = absent.map(|&(_, package)| package).collect();
    if !has_venv {
        packages.push("python3-venv");
    }
    packages
}

/// Whether Python can make environments; Debian's own can only with `python3-venv`.
fn has_venv() -> bool {
    command::succeeds(Command::new("python3").args(["-c", "import ensurepip, venv"]))
}

fn install_from_debian(packages: &[&str]) -> Result<(), String> {
    let is_root = fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0);
    let has_apt = command::succeeds(Command::new("apt-get").arg("--version"));
    if !is_root || !has_apt {
        return Err(by_hand(packages));
    }
    let _policy = ServicePolicy::deny()?;
    let apt = || {
        let mut apt = Command::new("apt-get");
        apt.env("DEBIAN_FRONTEND", "noninteractive").args(["-qq", "-y", "-o", "Dpkg::Use-Pty=0"]);
        apt
    };
    command::run(apt().arg("update"))?;
    command::run(apt().args(["install", "--no-install-recommends"]).args(packages))
}

fn by_hand(packages: &[&str]) -> String {
    let names = packages.join(" ");
    format!(
        "some programs are missing and this user can't install them: `sudo apt-get install {names}`, then try again"
    )
}

/// Keeps packages from starting their services while it lives. A policy that is there already is left alone.
struct ServicePolicy {
    ours: bool,
}

impl ServicePolicy {
    fn deny() -> Result<Self, String> {
        let mut options = fs::OpenOptions::new();
        match options.write(true).create_new(true).mode(0o755).open(SERVICE_POLICY) {
            Ok(mut file) => {
                let policy = Self { ours: true };
                std::io::Write::write_all(&mut file, NO_SERVICES.as_bytes())
                    .map_err(|error| format!("{SERVICE_POLICY}: {error}"))?;
                Ok(policy)
            }
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(Self { ours: false }),
            Err(error) => Err(format!("{SERVICE_POLICY}: {error}")),
        }
    }
}

impl Drop for ServicePolicy {
    fn drop(&mut self) {
        if self.ours
            && let Err(error) = fs::remove_file(SERVICE_POLICY)
        {
            println!("{SERVICE_POLICY} could not be removed: {error}");
        }
    }
}

/// Brings `target/venv` to what the requirements say; whether that took anything.
fn install_from_pypi(workspace: &Workspace) -> Result<bool, String> {
    let requirements = workspace.root.join(REQUIREMENTS);
    let wanted = fs::read_to_string(&requirements).map_err(|error| format!("{REQUIREMENTS}: {error}"))?;
    let venv = venv(workspace);
    let stamp = venv.join("requirements.txt");
    if fs::read_to_string(&stamp).is_ok_and(|installed| installed == wanted) {
        return Ok(false);
    }
    // Several trees may share one: it is made anew where it lies, not through a link, which Python empties and then refuses.
    let venv = fs::canonicalize(&venv).unwrap_or(venv);
    command::run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&venv))?;
    let mut pip = Command::new(venv.join("bin/python"));
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--require-hashes"]);
    command::run(pip.args(["--only-binary=:all:", "-r"]).arg(&requirements))?;
    // Written last: an installation that was cut short is made anew.
    fs::write(&stamp, wanted).map_err(|error| format!("{}: {error}", stamp.display()))?;
    Ok(true)
}

/// Brings the JavaScript packages to what their lock file says; whether that took anything. No package's own
/// scripts run.
fn install_from_npm(workspace: &Workspace) -> Result<bool, String> {
    let folder = venv(workspace).join("npm");
    let read =
        |file: PathBuf| fs::read_to_string(&file).map_err(|error| format!("{}: {error}", file.display()));
    let wanted = workspace.root.join(NPM_PACKAGES);
    let lock = read(wanted.join("package-lock.json"))?;
    let stamp = folder.join("installed");
    if fs::read_to_string(&stamp).is_ok_and(|installed| installed == lock) {
        return Ok(false);
    }
    let write = |file: PathBuf, text: &str| {
        fs::write(&file, text).map_err(|error| format!("{}: {error}", file.display()))
    };
    fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    write(folder.join("package.json"), &read(wanted.join("package.json"))?)?;
    write(folder.join("package-lock.json"), &lock)?;
    let mut npm = Command::new("npm");
    npm.current_dir(&folder).args(["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--silent"]);
    command::run(&mut npm)?;
    let program = venv(workspace).join("bin").join(NODE);
    write(
        program.clone(),
        "#!/bin/sh\nNODE_PATH=\"$(dirname \"$0\")/../npm/node_modules\" exec node \"$@\"\n",
    )?;
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755))
        .map_err(|error| format!("{}: {error}", program.display()))?;
    write(stamp, &lock)?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_missing_is_installed() {
        assert_eq!(missing_packages(|_| true, true), Vec::<&str>::new());
        assert_eq!(missing_packages(|file| !file.contains("haproxy"), true), ["haproxy"]);
        assert_eq!(missing_packages(|_| true, false), ["python3-venv"]);
    }

    #[test]
    fn one_of_several_places_is_enough() {
        assert!(!missing_packages(|file| file == "/usr/bin/mosquitto", true).contains(&"mosquitto"));
    }

    #[test]
    fn who_may_not_install_is_told_what_to_install() {
        let sentence = by_hand(&["nginx", "haproxy"]);
        assert!(sentence.contains("`sudo apt-get install nginx haproxy`"), "{sentence}");
        assert_eq!(sentence.lines().count(), 1);
    }
}
