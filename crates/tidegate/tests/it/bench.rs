//! `tidegate bench` against our broker and against Mosquitto: small counts, every number checked that can be known.

use std::net::SocketAddr;
use std::process::Output;

use serde_json::Value;

use crate::harness::address::{at, own};
use crate::harness::fleet::{gateway, mosquittos, servers};
use crate::harness::process::{run, text};
use crate::harness::server::tidegate;
use crate::harness::{Mosquitto, Site, Tidegate};

/// Runs a bench without progress lines.
#[track_caller]
fn bench(to: SocketAddr, bench: &str, arguments: &[&str]) -> Output {
    let (host, port) = (to.ip().to_string(), to.port().to_string());
    run(&mut tidegate(&[&["bench", bench, "-h", &host, "-p", &port, "--quiet"], arguments].concat()))
}

/// The document of a bench, and whether it passed, which agrees with the exit status.
#[track_caller]
fn measured(to: SocketAddr, name: &str, arguments: &[&str]) -> (Value, bool) {
    let output = bench(to, name, &[arguments, &["--json"]].concat());
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    let document: Value = serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {out}\n{err}"));
    assert_eq!(document["bench"], name);
    assert_eq!(document["passed"], output.status.success(), "{document:#}");
    (document, output.status.success())
}

/// Every shape at every QoS and version: all arrive, once, in order, and their times are told.
#[track_caller]
fn every_message_arrives(to: SocketAddr) {
    let count = 300_u64;
    let shapes: [(&str, &[&str], u64, &str, &str); 7] = [
        ("pubsub", &["-c", "3"], 1, "31", "0"),
        ("pubsub", &["-c", "3"], 1, "311", "1"),
        ("pubsub", &["-c", "3"], 1, "5", "2"),
        ("fanout", &["-c", "4", "--publishers", "2"], 4, "5", "0"),
        ("fanout", &["-c", "4"], 4, "311", "1"),
        ("fanin", &["-c", "5", "--subscribers", "2"], 2, "31", "2"),
        ("fanin", &["-c", "5", "--subscribers", "3", "--share", "g"], 1, "5", "1"),
    ];
    for (name, shape, copies, version, qos) in shapes {
        for pace in [&[][..], &["-R", "2000"]] {
            let rest = ["-V", version, "-q", qos, "-n", "300", "-t", "x/%r/%i"];
            let (document, passed) = measured(to, name, &[shape, &rest, pace].concat());
            let messages = &document["messages"];
            let what = format!("{name} {version} {qos} {pace:?}: {document:#}");
            assert!(passed, "{what}");
            assert_eq!(messages["loop"], if pace.is_empty() { "closed" } else { "open" }, "{what}");
            assert_eq!(messages["sent"], count, "{what}");
            for (field, value) in [("received", count * copies), ("expected", count * copies), ("lost", 0)] {
                assert_eq!(messages[field], value, "{field} of {what}");
            }
            assert_eq!(messages["duplicates"], 0, "{what}");
            assert_eq!(messages["out_of_order"].as_u64().unwrap_or(0), 0, "{what}");
            assert_eq!(messages["latency_ms"]["count"], count * copies, "{what}");
            let acknowledged = messages["acknowledged_ms"]["count"].as_u64().unwrap_or(0);
            assert_eq!(acknowledged, if qos == "0" { 0 } else { count }, "{what}");
        }
    }
}

#[test]
fn bench_sees_every_message_arrive_at_our_broker() {
    let broker = Tidegate::broker("node1");
    every_message_arrives(broker.mqtt());
    assert_eq!(broker.metric("tidegate_broker_subscriptions"), 0.0, "it leaves nothing behind");
}

#[test]
fn bench_sees_every_message_arrive_at_mosquitto() {
    every_message_arrives(Mosquitto::start().mqtt());
}

#[test]
fn bench_goes_through_websockets_too() {
    let broker = Site::new("node1").broker("", "transport = \"ws\"").start();
    let clients = ["--ws", "-c", "4", "-n", "400"];
    for arguments in [&["-q", "0", "-R", "4000"][..], &["-q", "1", "-V", "5"], &["-q", "2", "-s", "100KiB"]] {
        let (document, passed) = measured(broker.mqtt(), "pubsub", &[&clients, arguments].concat());
        assert!(passed, "{document:#}");
        assert_eq!(
            (&document["messages"]["received"], &document["messages"]["lost"]),
            (&400.into(), &0.into())
        );
    }
    // Whoever speaks plain MQTT there is no client.
    let (document, passed) = measured(broker.mqtt(), "conn", &["-c", "2", "-d", "0s"]);
    assert!(!passed, "{document:#}");
    let mosquitto = Mosquitto::start();
    let (document, passed) = measured(mosquitto.mqtt(), "conn", &["--ws", "-c", "2", "-d", "0s"]);
    assert!(!passed, "{document:#}");
}

#[test]
fn an_open_loop_keeps_its_rate_and_measures_without_the_warm_up() {
    let mosquitto = Mosquitto::start();
    let arguments = ["-c", "4", "-R", "500", "-d", "1s", "--warmup", "200ms", "-q", "1"];
    let (document, passed) = measured(mosquitto.mqtt(), "pubsub", &arguments);
    let messages = &document["messages"];
    assert!(passed, "{document:#}");
    // The schedule has 600 turns; 500 of them are in the measured second.
    assert_eq!(messages["sent"].as_u64(), Some(600), "{document:#}");
    // a busy machine wakes the bench some milliseconds late
    let seconds = messages["seconds"].as_f64().unwrap_or_default();
    assert!((0.98..1.02).contains(&seconds), "{document:#}");
    assert_eq!(messages["latency_ms"]["count"], 500, "{document:#}");
}

#[test]
fn bench_conn_holds_clients_from_all_its_addresses() {
    let mosquitto = Mosquitto::start();
    let arguments = ["-c", "60", "-R", "300", "-d", "0s", "-A", "127.3.9.1-127.3.9.3", "-i", "held-"];
    let (document, passed) = measured(mosquitto.mqtt(), "conn", &arguments);
    assert!(passed, "{document:#}");
    let connections = &document["connections"];
    assert_eq!((&connections["asked"], &connections["connected"]), (&60.into(), &60.into()), "{document:#}");
    assert_eq!(connections["connect_ms"]["count"], 60, "{document:#}");
    // Sixty at 300 a second take a fifth of a second, not less.
    assert!(connections["seconds"].as_f64() >= Some(0.19), "{document:#}");
    for (client, address) in [("held-0", "127.3.9.1"), ("held-1", "127.3.9.2"), ("held-59", "127.3.9.3")] {
        assert_eq!(mosquitto.connects_of(client), 1);
        mosquitto.process.err.line_with(&[&format!("from {address}:"), &format!(" as {client} (")]);
    }
}

#[test]
fn clients_that_are_refused_are_counted_by_reason() {
    let broker = Site::new("node1").broker("", "max_connections = 5").start();
    let (document, passed) = measured(broker.mqtt(), "conn", &["-c", "8", "-d", "0s", "-V", "5"]);
    assert!(!passed, "some did not connect: {document:#}");
    let connections = &document["connections"];
    assert_eq!((&connections["connected"], &connections["failed"]), (&5.into(), &3.into()), "{document:#}");
    let reasons: u64 = connections["failures"].as_object().unwrap().values().filter_map(Value::as_u64).sum();
    assert_eq!(reasons, 3, "{document:#}");
    let note = document["notes"][0].as_str().unwrap();
    assert!(note.starts_with("3 of 8 clients could not connect: "), "{document:#}");
    // Nobody there at all.
    let (document, passed) = measured(at(own(), 9), "conn", &["-c", "2", "-d", "0s"]);
    assert!(!passed);
    assert_eq!(document["connections"]["failures"]["refused"], 2, "{document:#}");
    assert_eq!(document["notes"][0], "nothing connected: refused 2");
}

#[test]
fn clients_without_a_place_fail_the_run_and_are_its_first_reason() {
    for (name, count, clients, qos) in
        [("fanout", "20", 21, "0"), ("pubsub", "8", 16, "1"), ("fanin", "8", 9, "1")]
    {
        let broker = Site::new("node1").broker("", "max_connections = 3").start();
        let pace = ["-c", count, "-R", "200", "-d", "200ms", "--warmup", "0s", "-q", qos];
        let (document, passed) = measured(broker.mqtt(), name, &pace);
        assert!(!passed, "{document:#}");
        assert_eq!(document["connections"]["connected"], 3, "{document:#}");
        let notes: Vec<_> = document["notes"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
        let first = format!("{} of {clients} clients could not connect (", clients - 3);
        assert!(notes[0].starts_with(&first), "{document:#}");
        let wrong = |note: &&str| note.contains("rate is too high") || note.contains("promises");
        assert!(!notes.iter().any(wrong), "{document:#}");
        let idle = (&document["generator"]["unsent"], &document["messages"]["lost"]);
        assert_eq!(idle, (&0.into(), &0.into()), "{document:#}");
    }
}

#[test]
fn servers_that_share_nothing_are_the_hint_where_pairs_do_not_meet() {
    let mosquittos = mosquittos(2);
    let gateway = gateway(&mosquittos, "", "balance = \"round_robin\"");
    let arguments = ["-c", "1", "--publishers", "2", "-n", "20", "-q", "1"];
    let (document, passed) = measured(gateway.gate(), "fanout", &arguments);
    assert!(!passed, "{document:#}");
    let notes = document["notes"].to_string();
    assert!(notes.contains("pairs of publisher and subscriber: separate servers"), "{document:#}");
}

#[test]
fn the_table_tells_what_the_document_does() {
    let mosquitto = Mosquitto::start();
    let output = bench(mosquitto.mqtt(), "fanout", &["-c", "3", "-n", "50", "-q", "1"]);
    let out = text(&output.stdout);
    assert!(output.status.success(), "{out}");
    for expected in
        ["1 publishers, 3 subscribers", "lost       0 of 150, 0 duplicates, 0 out of order", "p99.9"]
    {
        assert!(out.contains(expected), "{out}");
    }
    assert_eq!(text(&output.stderr), "");
}

#[test]
fn wrong_flags_are_told_before_anything_connects() {
    let nobody = at(own(), 9);
    for (name, arguments, expected) in [
        ("fanin", &["-t", "a/b"][..], "%i is needed"),
        ("pubsub", &["-t", "a/#/%i"], "wildcard"),
        ("pubsub", &["-s", "8"], "24"),
        ("pubsub", &["-R", "0"], "per second"),
        ("conn", &["-P", "x"], "user name"),
        ("conn", &["-A", "127.0.0.9-127.0.0.1"], "ranges"),
    ] {
        let output = bench(nobody, name, arguments);
        assert!(!output.status.success());
        assert!(text(&output.stderr).contains(expected), "{arguments:?}: {}", text(&output.stderr));
    }
}

/// `sticky` through a gateway over two Mosquittos.
#[track_caller]
fn sticky(balance: &str, arguments: &[&str]) -> (Value, bool) {
    let mosquittos = mosquittos(2);
    let gateway = gateway(&mosquittos, "", &format!("balance = \"{balance}\""));
    let servers = servers(&mosquittos).into_iter().map(|(_, address)| format!("--server={address}"));
    let servers: Vec<String> = servers.collect();
    let servers: Vec<&str> = servers.iter().map(String::as_str).collect();
    measured(
        gateway.gate(),
        "sticky",
        &[&["-c", "12", "-n", "3", "--seed", "7"], &*servers, arguments].concat(),
    )
}

#[test]
fn sticky_finds_every_client_back_at_its_server_behind_a_hash_of_the_client_id() {
    for version in ["311", "5"] {
        let (document, passed) = sticky("client_id", &["-V", version]);
        assert!(passed, "{document:#}");
        assert_eq!((&document["share"], &document["returns"]), (&1.0.into(), &24.into()), "{document:#}");
        assert_eq!(document["moved"], Value::Array(Vec::new()));
        let clients: u64 = (0..2).filter_map(|server| document["servers"][server]["clients"].as_u64()).sum();
        assert_eq!(clients, 12, "{document:#}");
    }
}

#[test]
fn sticky_tells_who_moves_behind_a_round_robin() {
    let (document, passed) = sticky("round_robin", &[]);
    assert!(!passed, "{document:#}");
    let share = document["share"].as_f64().unwrap();
    assert!(share < 1.0, "{document:#}");
    let moved = document["moved"].as_array().unwrap();
    assert!(!moved.is_empty() && moved[0]["servers"].as_array().unwrap().len() == 3, "{document:#}");
    assert_eq!(document["nowhere"], 0, "{document:#}");
}

#[test]
fn sticky_says_when_a_server_of_the_balancer_is_not_named() {
    let mosquittos = mosquittos(2);
    let gateway = gateway(&mosquittos, "", "balance = \"round_robin\"");
    let one = format!("--server={}", mosquittos[0].mqtt());
    let (document, passed) = measured(gateway.gate(), "sticky", &["-c", "2", "-n", "2", &one]);
    assert!(!passed, "{document:#}");
    assert_eq!(document["nowhere"], 2, "{document:#}");
    assert!(document["notes"][0].as_str().unwrap().contains("is every server"), "{document:#}");
}
