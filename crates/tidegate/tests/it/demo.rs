//! `tidegate demo`: what a newcomer sees first.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::Command;

use rustix::process::Signal;
use serde_json::Value;

use crate::harness::address::eight_ports;
use crate::harness::http::{get, try_ask};
use crate::harness::mosquitto::client;
use crate::harness::process::{run, text};
use crate::harness::server::tidegate;
use crate::harness::{DEADLINE, Process, eventually};

/// Six ports on 127.0.0.1 and a folder.
struct Place {
    gateway: u16,
    folder: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        Self { gateway: eight_ports(), folder: tempfile::tempdir().expect("a temporary folder") }
    }

    fn ports(&self) -> [u16; 6] {
        [0, 1, 2, 3, 4, 5].map(|step| self.gateway + step)
    }

    fn gate(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.gateway))
    }

    fn api(&self, number: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.gateway + 3 + number))
    }

    fn dir(&self) -> PathBuf {
        self.folder.path().join("demo")
    }

    fn command(&self, more: &[&str]) -> Command {
        let mut command = tidegate(&["demo", "--vehicles", "8", "--seed", "7"]);
        for (flag, port) in [
            ("--gateway-port", self.gateway),
            ("--broker-port", self.gateway + 1),
            ("--api-port", self.gateway + 3),
        ] {
            command.args([flag, &port.to_string()]);
        }
        command.arg("--dir").arg(self.dir()).args(more);
        command
    }

    /// Starts it and waits until all three processes serve.
    #[track_caller]
    fn start(&self, more: &[&str]) -> Process {
        let demo = Process::start("tidegate demo", &mut self.command(more));
        for number in 0..3 {
            let ready =
                || try_ask(self.api(number), "GET", "/readyz", &[], "").filter(|answer| answer.status == 200);
            eventually(&format!("process {number} of the demo"), ready);
        }
        demo
    }

    /// None of its processes is left.
    #[track_caller]
    fn nothing_is_left(&self) {
        for port in self.ports() {
            let address = SocketAddr::from(([127, 0, 0, 1], port));
            eventually(&format!("nobody listens on {port}"), || {
                TcpStream::connect(address).is_err().then_some(())
            });
        }
    }
}

#[test]
fn the_demo_ends_by_itself_with_status_0_when_every_device_stayed_on_its_broker() {
    let place = Place::new();
    let output = run(&mut place.command(&["--exit-after", "6s"]));
    let said = text(&output.stdout);
    assert!(output.status.success(), "{}\n{said}{}", output.status, text(&output.stderr));
    let mut brokers: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    let mut addresses = BTreeSet::new();
    for line in said.lines().filter(|line| line.contains(" is on ")) {
        let words: Vec<_> = line.split([' ', ',']).collect();
        let [vehicle, "is", "on", broker, "from", address, ..] = words[..] else { panic!("{line}") };
        brokers.entry(vehicle).or_default().insert(broker);
        addresses.insert(address);
        assert!(line.ends_with("moved: 0"), "{line}");
    }
    assert_eq!(brokers.len(), 8, "{said}");
    assert!(brokers.values().all(|seen| seen.len() == 1), "{brokers:?}");
    assert_eq!(brokers.values().flatten().collect::<BTreeSet<_>>().len(), 2, "both brokers have some");
    assert!(addresses.len() >= 16, "everybody came back, from elsewhere: {addresses:?}");
    assert!(said.contains("Every device stayed on its broker"), "{said}");
    // It names the files that it made, and they are there.
    let dir = place.dir();
    assert!(said.contains(dir.to_str().expect("text")), "{said}");
    let files = std::fs::read_dir(&dir).expect("a folder").filter_map(Result::ok);
    let configurations: Vec<_> = files
        .map(|file| file.path())
        .filter(|path| path.extension().is_some_and(|end| end == "toml"))
        .collect();
    assert_eq!(configurations.len(), 3, "{configurations:?}");
    for file in configurations {
        assert!(run(&mut tidegate(&["check", "--config", file.to_str().expect("text")])).status.success());
    }
    place.nothing_is_left();
}

#[test]
fn the_demo_shows_its_devices_to_whoever_asks_and_ctrl_c_ends_it_cleanly() {
    let place = Place::new();
    let mut demo = place.start(&[]);
    demo.out.line_with(&["vehicle-001 is on "]);
    // What it says to try works: a device's place by the gateway's API, and messages by mosquitto_sub.
    let path = "/api/v1/gateway/connections/vehicle-001";
    let row: Value =
        eventually("vehicle-001", || Some(get(place.api(2), path)).filter(|a| a.status == 200)).json();
    let broker = row["server"].as_str().expect("a server");
    let api = place.api(if broker == "node1" { 0 } else { 1 });
    let client_row = get(api, "/api/v1/clients/vehicle-001").json();
    assert_eq!(client_row["node"], row["server"]);
    let words = ["-t", "fleet/#", "-C", "1", "-W", "15", "-F", "%t"];
    let heard = run(&mut client("mosquitto_sub", place.gate(), &words));
    let topic = text(&heard.stdout);
    assert!(heard.status.success() && topic.starts_with("fleet/vehicle-0"), "{topic}");

    demo.signal(Signal::INT);
    assert!(demo.end_within(DEADLINE).code().is_some(), "it ends by itself, not by the signal");
    place.nothing_is_left();
}

#[test]
fn nothing_of_a_demo_outlives_its_sudden_death() {
    let place = Place::new();
    let mut demo = place.start(&[]);
    demo.kill();
    place.nothing_is_left();
}

#[test]
fn a_demo_on_taken_ports_says_which_in_one_sentence() {
    let place = Place::new();
    let _other = std::net::TcpListener::bind(place.gate()).expect("a port of our own");
    let output = run(&mut place.command(&["--exit-after", "6s"]));
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains(&format!("port {}, meant for the gateway, is in use", place.gateway)), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
}
