//! `tidegate simulate`: a fleet that loses its network comes back to its sessions, on our broker, on Mosquitto, and through the
//! gateway from changing addresses.

use std::net::SocketAddr;

use serde_json::Value;

use crate::harness::fleet::{gateway, mosquittos};
use crate::harness::process::{run, text};
use crate::harness::server::tidegate;
use crate::harness::{Mosquitto, Tidegate};

/// A fleet on a bad network, in a few seconds.
const SCENARIO: &str = r#"
seed = 11
duration = "4s"
[[groups]]
name = "cars"
count = 6
client_id = "car-${n}"
connect_rate = "50/s"
session_expiry = "5m"
[groups.will]
topic = "fleet/${client_id}/state"
[[groups.telemetry]]
topic = "fleet/${client_id}/telemetry"
interval = "200ms"
jitter = "50ms"
[groups.commands]
topic = "fleet/${client_id}/command"
answer = "fleet/${client_id}/answer"
interval = "400ms"
[groups.network]
mean_time_between_losses = "1s"
outage_min = "100ms"
outage_max = "600ms"
losses = ["silent", "reset", "disconnect"]

[[groups]]
name = "trucks"
count = 3
version = "3.1.1"
[groups.commands]
topic = "trucks/${n}/command"
answer = "trucks/${n}/answer"
interval = "300ms"
qos = 2
[groups.network]
mean_time_between_losses = "1s"
outage_min = "100ms"
outage_max = "600ms"
"#;

/// Vehicles alone: where servers share nothing, commands would not find them.
const ROAMING: &str = r#"
seed = 12
duration = "3s"
[[groups]]
count = 8
[groups.network]
mean_time_between_losses = "500ms"
outage_min = "50ms"
outage_max = "300ms"
"#;

#[track_caller]
fn simulate(to: SocketAddr, scenario: &str) -> Value {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("fleet.toml");
    std::fs::write(&file, scenario).expect("the file is written");
    let (file, to) = (file.to_str().expect("text"), to.to_string());
    let output = run(&mut tidegate(&["simulate", file, "--server", &to, "--json", "--quiet"]));
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    let document: Value = serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {out}\n{err}"));
    assert!(output.status.success() && document["passed"] == true, "{document:#}");
    document
}

/// Sessions are found again, and no command is lost, though connections are.
#[track_caller]
fn the_fleet_comes_back(document: &Value) {
    assert_eq!(document["seed"], 11);
    for (group, vehicles) in [(0, 6), (1, 3)] {
        let group = &document["groups"][group];
        let number = |path: &str| group.pointer(path).and_then(Value::as_u64);
        assert_eq!(number("/connected"), Some(vehicles), "{document:#}");
        let losses: u64 =
            group["losses"].as_object().expect("counts").values().filter_map(Value::as_u64).sum();
        assert!(losses >= vehicles && number("/connections") >= Some(vehicles + losses), "{document:#}");
        assert_eq!(group["sessions"]["share"], 1.0, "{document:#}");
        assert!(number("/commands/sent") >= Some(vehicles), "{document:#}");
        assert_eq!(number("/commands/lost"), Some(0), "{document:#}");
        assert_eq!(number("/commands/answered"), number("/commands/sent"), "{document:#}");
        assert!(number("/reconnect_ms/count") >= Some(losses), "{document:#}");
    }
    assert_eq!(document["groups"][1]["commands"]["duplicates"], 0, "{document:#}");
    let telemetry = &document["groups"][0]["telemetry"];
    assert!(telemetry["sent"].as_u64() >= Some(40), "{document:#}");
    assert_eq!(telemetry["refused"], 0, "{document:#}");
}

#[test]
fn a_fleet_finds_its_sessions_at_our_broker() {
    let broker = Tidegate::broker("node1");
    the_fleet_comes_back(&simulate(broker.mqtt(), SCENARIO));
    // It takes its sessions with it.
    assert!(broker.client("car-1").is_none() && broker.client("trucks-1").is_none());
}

#[test]
fn a_fleet_finds_its_sessions_at_mosquitto() {
    the_fleet_comes_back(&simulate(Mosquitto::start().mqtt(), SCENARIO));
}

#[test]
fn a_fleet_that_roams_finds_its_sessions_behind_a_sticky_gateway_only() {
    for (balance, all) in [("client_id", true), ("round_robin", false)] {
        let mosquittos = mosquittos(2);
        let gateway = gateway(&mosquittos, "", &format!("balance = \"{balance}\""));
        let document = simulate(gateway.gate(), ROAMING);
        let sessions = &document["groups"][0]["sessions"];
        assert!(sessions["asked"].as_u64() >= Some(8), "{document:#}");
        assert_eq!(sessions["share"] == 1.0, all, "{document:#}");
        assert_eq!(document["notes"].as_array().unwrap().is_empty(), all, "{document:#}");
    }
}

#[test]
fn check_tells_every_problem_of_a_scenario_with_its_line() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("fleet.toml");
    let text_of = |scenario: &str| {
        std::fs::write(&file, scenario).expect("the file is written");
        let output = run(&mut tidegate(&["simulate", "--check", file.to_str().expect("text")]));
        (output.status.success(), text(&output.stdout))
    };
    assert_eq!(text_of(SCENARIO), (true, format!("{}: ok\n", file.display())));
    let (good, told) = text_of("duration = \"1 day\"\n[[groups]]\ncount = 0\n");
    assert!(!good);
    let lines: Vec<&str> = told.lines().collect();
    assert!(
        lines[0].contains("fleet.toml:1: duration: \"1 day\"") && lines[1].contains(":3: groups[0].count: 0"),
        "{told}"
    );
}
