//! Start and stop as a service manager sees them.

use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::process::Command;
use std::time::Duration;

use mqtt::{ReasonCode, Version};
use rustix::process::Signal;

use crate::harness::fleet::mosquittos;
use crate::harness::wait::{DEADLINE, now};
use crate::harness::{Device, Site, Tidegate, device, fleet};

/// A clean stop takes less.
const SOON: Duration = Duration::from_secs(5);

fn stops_cleanly_by(signal: Signal) {
    let mut broker = Tidegate::broker("node1");
    let modern = Device::connect(broker.mqtt(), &device::connect(Version::V5, "modern"));
    let old = Device::connect(broker.mqtt(), &device::connect(Version::V311, "old"));
    let nameless = Device::dial(broker.mqtt());
    let begun = now();
    broker.process.signal(signal);
    // (3.14.2.1), and before version 5 there is no such packet from a server.
    modern.expect_disconnect(ReasonCode::ServerShuttingDown);
    old.expect_end();
    nameless.expect_end();
    assert!(broker.process.end().success());
    assert!(now() - begun < SOON);
    broker.process.err.line_with(&["stopping"]);
}

#[test]
fn sigterm_tells_every_client_and_ends_with_status_0() {
    stops_cleanly_by(Signal::TERM);
}

#[test]
fn sigint_tells_every_client_and_ends_with_status_0() {
    stops_cleanly_by(Signal::INT);
}

#[test]
fn a_process_with_both_roles_tells_the_devices_behind_its_own_gateway() {
    let site = Site::new("node1");
    let broker = site.mqtt();
    let mut both = site.broker("", "").gateway("", "", &[("self", broker)]).start();
    let device = Device::connect(both.gate(), &device::connect(Version::V5, "behind"));
    let begun = now();
    both.process.signal(Signal::TERM);
    device.expect_disconnect(ReasonCode::ServerShuttingDown);
    assert!(both.process.end().success());
    assert!(now() - begun < SOON);
}

#[test]
fn a_gateway_lets_its_devices_go_at_the_end_and_ends_with_status_0() {
    let mosquittos = mosquittos(1);
    let mut gateway = fleet::gateway(&mosquittos, "", "");
    let gate = gateway.gate();
    let mut device = Device::connect(gate, &device::connect(Version::V5, "device"));
    gateway.process.signal(Signal::TERM);
    // No new devices; those that are here are served while the gateway waits for them to go.
    crate::harness::eventually("nobody listens", || {
        std::net::TcpStream::connect(gate).is_err().then_some(())
    });
    device.nothing_more();
    device.goodbye();
    assert!(gateway.process.end_within(SOON).success());
}

#[test]
fn the_service_manager_is_told_of_start_reload_and_stop() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("notify");
    let manager = UnixDatagram::bind(&path).expect("a socket");
    manager.set_read_timeout(Some(DEADLINE)).expect("a socket option");
    let heard = |what: &str| {
        let mut buffer = [0; 4096];
        loop {
            let count = manager.recv(&mut buffer).unwrap_or_else(|error| panic!("no {what}: {error}"));
            let message = String::from_utf8_lossy(&buffer[..count]).into_owned();
            if message.lines().any(|line| line.starts_with(what)) {
                return message;
            }
        }
    };
    let site = Site::new("node1").broker("", "");
    let mut command = site.command();
    let mut broker = site.start_command(command.env("NOTIFY_SOCKET", &path));
    let main = heard("MAINPID=");
    assert!(main.contains(&format!("MAINPID={}", broker.process.id())), "{main}");
    heard("READY=1");
    broker.process.signal(Signal::HUP);
    // notify-reload wants the moment beside it.
    assert!(heard("RELOADING=1").contains("MONOTONIC_USEC="));
    heard("READY=1");
    broker.process.signal(Signal::TERM);
    heard("STOPPING=1");
    assert!(broker.process.end().success());
}

#[test]
fn a_socket_that_the_service_manager_holds_is_taken_over() {
    let site = Site::new("node1").broker("", "");
    // It listens already, without SO_REUSEPORT, and stays ours: the program could not bind beside it.
    let held = TcpListener::bind(site.mqtt()).expect("an address of our own");
    // A client that comes before the program is served by it all the same.
    let mut early = Device::dial(site.mqtt());
    early.say_hello(&device::connect(Version::V311, "early"));

    let run = site.command();
    // LISTEN_PID has to be the program's own: the shell keeps its id over exec.
    let script = "exec 3<&0 </dev/null; export LISTEN_PID=$$ LISTEN_FDS=1; exec \"$@\"";
    let mut command = Command::new("sh");
    command.args(["-c", script, "sh"]).arg(run.get_program()).args(run.get_args());
    let passed: OwnedFd = held.try_clone().expect("a second descriptor").into();
    let process = crate::harness::Process::start_with("tidegate by sh", command.stdin(passed));
    let mut broker = site.adopt(process);
    assert!(matches!(early.receive(), mqtt::packet::Packet::Connack(_)));
    early.goodbye();
    Device::connect(broker.mqtt(), &device::connect(Version::V5, "late")).goodbye();
    assert!(broker.terminate().success());
    // Between two processes nobody is turned away: the manager's socket listens on.
    drop(Device::dial(held.local_addr().expect("its address")));
}

#[test]
fn after_a_kill_the_same_data_can_be_used_again() {
    let mut broker = Tidegate::broker("node1");
    broker.process.kill();
    let file = broker.file();
    let mut command = crate::harness::server::tidegate(&["run", "--config", &file]);
    let again = broker.site.start_command(&mut command);
    Device::connect(again.mqtt(), &device::connect(Version::V5, "back")).goodbye();
}
