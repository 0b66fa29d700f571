//! Mosquitto: the broker of another make, and its two clients.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::Command;

use tempfile::TempDir;

use super::address::{MQTT, at, own};
use super::process::{Process, run_with, text};

/// A running Mosquitto on an address of its own.
pub(crate) struct Mosquitto {
    pub(crate) process: Process,
    _folder: TempDir,
    pub(crate) address: Ipv4Addr,
}

impl Mosquitto {
    /// Starts one that lets everybody in and logs every connection.
    #[track_caller]
    pub(crate) fn start() -> Self {
        Self::start_at(own())
    }

    /// The same on an address that was used before.
    #[track_caller]
    pub(crate) fn start_at(address: Ipv4Addr) -> Self {
        Self::start_with(address, "")
    }

    /// The same with further lines in its file.
    #[track_caller]
    pub(crate) fn start_with(address: Ipv4Addr, more: &str) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let file = folder.path().join("mosquitto.conf");
        let lines = format!(
            "listener {MQTT} {address}\nallow_anonymous true\nlog_dest stderr\nlog_type all\nset_tcp_nodelay true\n{more}"
        );
        std::fs::write(&file, lines).expect("the file is written");
        let process =
            Process::start(&format!("mosquitto {address}"), Command::new("mosquitto").arg("-c").arg(&file));
        process.err.line_with(&["running"]);
        Self { process, _folder: folder, address }
    }

    /// Where it listens.
    pub(crate) fn mqtt(&self) -> SocketAddr {
        at(self.address, MQTT)
    }

    /// How often it let a client of that id in.
    pub(crate) fn connects_of(&self, clientid: &str) -> usize {
        // "New client connected from 127.0.0.1:39000 as ID (p2, c1, k60)."
        self.process.err.count(&["New client connected", &format!(" as {clientid} (")])
    }
}

/// `mosquitto_sub` with these arguments after host and port, subscribed: its log says so.
#[track_caller]
pub(crate) fn subscribe(to: SocketAddr, arguments: &[&str]) -> Process {
    // In a pipe it would keep what it prints for later.
    let mut command = Command::new("stdbuf");
    command.args(["-oL", "mosquitto_sub", "-h", &to.ip().to_string(), "-p", &to.port().to_string(), "-d"]);
    let process = Process::start("mosquitto_sub", command.args(arguments));
    process.out.line_with(&["Subscribed"]);
    process
}

/// `mosquitto_pub` with these arguments after host and port, to its end.
#[track_caller]
pub(crate) fn publish(to: SocketAddr, arguments: &[&str]) {
    publish_input(to, arguments, b"");
}

/// The same with standard input.
#[track_caller]
pub(crate) fn publish_input(to: SocketAddr, arguments: &[&str], input: &[u8]) {
    let output = run_with(&mut client("mosquitto_pub", to, arguments), input);
    let said = text(&output.stderr);
    assert!(output.status.success(), "mosquitto_pub {arguments:?}: {}\n{said}", output.status);
}

/// One of the clients with host and port.
pub(crate) fn client(program: &str, to: SocketAddr, arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(["-h", &to.ip().to_string(), "-p", &to.port().to_string()]).args(arguments);
    command
}
