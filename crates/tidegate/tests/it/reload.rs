//! A new configuration while devices are connected: taken whole, or not at all.

use std::net::TcpStream;

use api::client::ClientError;
use mqtt::{ReasonCode, Version};
use rustix::process::Signal;

use crate::harness::address::{GATE, MQTT_2, at, own};
use crate::harness::fleet::{mosquittos, servers};
use crate::harness::{Device, Site, Tidegate, device, eventually};

/// The sections of a process with both roles.
fn sections(tidegate: &Site, broker_listeners: &[String], gateway: &str) -> String {
    let listeners: String =
        broker_listeners.iter().map(|bind| format!("[[broker.listeners]]\nbind = \"{bind}\"\n")).collect();
    let gate = tidegate.gate();
    format!(
        "[broker]\n{listeners}[gateway]\n[[gateway.listeners]]\nbind = \"{gate}\"\nupstream = \"brokers\"\n\
         [[gateway.upstreams]]\nname = \"brokers\"\n{gateway}\n"
    )
}

fn list(servers: &[(&str, std::net::SocketAddr)]) -> String {
    let rows: Vec<_> = servers
        .iter()
        .map(|(name, address)| format!("{{ name = \"{name}\", address = \"{address}\" }}"))
        .collect();
    format!("servers = [ {} ]", rows.join(", "))
}

#[test]
fn a_signal_adds_listeners_and_servers_and_nobody_is_disturbed() {
    let mosquittos = mosquittos(2);
    let servers = servers(&mosquittos);
    let process =
        Site::new("node1").broker("", "").gateway("", "balance = \"round_robin\"", &servers[..1]).start();
    let mut direct = Device::connect(process.mqtt(), &device::connect(Version::V5, "direct"));
    let mut through = Device::connect(process.gate(), &device::connect(Version::V311, "through"));

    let second = at(process.site.address, MQTT_2);
    let both = [process.mqtt().to_string(), second.to_string()];
    let upstream = format!("balance = \"round_robin\"\n{}", list(&servers));
    process.site.write(&sections(&process.site, &both, &upstream));
    process.process.signal(Signal::HUP);
    let event = process.event("config_reloaded", |event| event["source"] == "signal");
    let changes = event["changes"].to_string();
    assert!(changes.contains(&second.to_string()) && changes.contains("server mq2 added"), "{changes}");

    Device::connect(second, &device::connect(Version::V5, "newcomer")).goodbye();
    let held =
        ["one", "two"].map(|name| Device::connect(process.gate(), &device::connect(Version::V5, name)));
    let mut homes = ["one", "two"].map(|name| process.connection(name).newest.server);
    homes.sort();
    assert_eq!(homes, ["mq1", "mq2"]);
    direct.nothing_more();
    through.nothing_more();
    drop(held);
    assert_eq!(process.metric("tidegate_events_total{type=\"config_reloaded\"}"), 2.0, "the start and this");
}

#[test]
fn by_the_api_a_removed_listener_accepts_no_more_and_its_connections_stay() {
    let process = Site::new("node1").broker("", "").start();
    let second = at(process.site.address, MQTT_2);
    let with = |binds: &[&str]| {
        let listeners = binds.iter().map(|bind| format!("[[broker.listeners]]\nbind = \"{bind}\"\n"));
        process.site.write(&format!("[broker]\n{}", listeners.collect::<String>()));
    };
    let (first, second_text) = (process.mqtt().to_string(), second.to_string());
    with(&[&first, &second_text]);
    let reloaded = process.rest.reload().expect("a good file");
    assert_eq!((reloaded.changes.len(), reloaded.restart_needed.len()), (1, 0), "{reloaded:?}");
    let mut device = Device::connect(second, &device::connect(Version::V5, "stays"));

    with(&[&first]);
    process.rest.reload().expect("a good file");
    eventually("nobody listens", || TcpStream::connect(second).is_err().then_some(()));
    device.nothing_more();
    let stopped = process.event("listener_stopped", |_| true);
    assert_eq!((&stopped["bind"], &stopped["reason"]), (&second_text.clone().into(), &"removed".into()));
    // Nothing is different: nothing is said.
    assert_eq!(process.rest.reload().expect("the same file").changes, [""; 0]);
    // The same address can be listened on again, while a connection of before is still there.
    with(&[&first, &second_text]);
    process.rest.reload().expect("a good file");
    Device::connect(second, &device::connect(Version::V5, "again")).goodbye();
    device.nothing_more();
}

#[test]
fn a_removed_server_keeps_its_connections_and_gets_no_new_ones() {
    let mosquittos = mosquittos(2);
    let servers = servers(&mosquittos);
    let process = Site::new("gateway").gateway("", "balance = \"round_robin\"", &servers).start();
    let connect = |name: &str| Device::connect(process.gate(), &device::connect(Version::V5, name));
    let mut held = [connect("one"), connect("two")];
    let gate = process.gate();
    let gateway = format!(
        "[gateway]\n[[gateway.listeners]]\nbind = \"{gate}\"\nupstream = \"brokers\"\n\
         [[gateway.upstreams]]\nname = \"brokers\"\nbalance = \"round_robin\"\n{}\n",
        list(&servers[1..])
    );
    process.site.write(&gateway);
    let reloaded = process.rest.reload().expect("a good file");
    assert!(reloaded.changes.iter().any(|change| change.contains("mq1 removed")), "{reloaded:?}");
    for device in &mut held {
        device.nothing_more();
    }
    for number in 0..4 {
        let clientid = format!("new-{number}");
        let _new = connect(&clientid);
        assert_eq!(process.connection(&clientid).newest.server, "mq2");
    }
    process.event("server_state_changed", |event| event["server"] == "mq1" && event["to"] == "removed");
}

#[test]
fn a_bad_file_changes_nothing_and_every_problem_is_named_with_its_line() {
    let process = Site::new("node1").broker("", "").start();
    let mut device = Device::connect(process.mqtt(), &device::connect(Version::V5, "stays"));
    let new = at(process.site.address, MQTT_2);
    // The listener would be right; the problems beside it keep all of it out.
    process.site.write(&format!(
        "[broker]\nmax_inflight = 0\nno_such_key = 1\n[[broker.listeners]]\nbind = \"{}\"\n\
         [[broker.listeners]]\nbind = \"{new}\"\n",
        process.mqtt()
    ));
    let refused = match process.rest.reload() {
        Err(ClientError::Problem(problem)) => *problem,
        other => panic!("{other:?}"),
    };
    let file = process.file();
    assert_eq!((refused.status, refused.kind.as_str()), (422, "/problems/config-refused"));
    assert_eq!(refused.errors.len(), 2, "{refused:?}");
    assert_eq!(refused.errors[0], format!("{file}:7: broker.max_inflight: 0: an integer from 1 to 65535"));
    assert!(refused.errors[1].starts_with(&format!("{file}:8: broker.no_such_key: ")), "{refused:?}");
    let event = process.event("config_rejected", |_| true);
    assert_eq!(event["problems"][0], refused.errors[0].as_str());

    process.process.signal(Signal::HUP);
    eventually("the second refusal", || (process.events("config_rejected").len() == 2).then_some(()));
    let ctl = crate::harness::process::run(&mut crate::harness::server::tidegate(&[
        "ctl",
        "--api",
        &format!("http://{}", process.api()),
        "config",
        "reload",
    ]));
    assert_eq!(ctl.status.code(), Some(1));
    let said = crate::harness::process::text(&ctl.stderr);
    assert!(said.contains(&refused.errors[0]), "{said}");

    assert!(TcpStream::connect(new).is_err(), "the new listener is not there");
    device.nothing_more();
    assert_eq!(process.metric("tidegate_events_total{type=\"config_rejected\"}"), 3.0);
    assert_eq!(crate::harness::http::get(process.api(), "/readyz").status, 200);
}

#[test]
fn an_address_that_is_taken_keeps_all_of_a_new_configuration_out() {
    let other = Tidegate::broker("other");
    let mosquittos = mosquittos(1);
    let servers = servers(&mosquittos);
    let process = Site::new("node1").broker("", "").gateway("", "", &servers).start();
    let mut device = Device::connect(process.gate(), &device::connect(Version::V5, "stays"));
    // The gateway's part is right and would come first; the broker's new listener can't be bound.
    let binds = [process.mqtt().to_string(), other.mqtt().to_string()];
    let name_change = format!("balance = \"round_robin\"\n{}", list(&servers));
    process.site.write(&sections(&process.site, &binds, &name_change));
    let refused = match process.rest.reload() {
        Err(ClientError::Problem(problem)) => *problem,
        other => panic!("{other:?}"),
    };
    let sentence = format!("cannot listen on {}: the port is in use by another process", other.mqtt());
    assert!(refused.errors.len() == 1 && refused.errors[0].contains(&sentence), "{refused:?}");
    let upstreams = process.rest.upstreams().expect("an answer").data;
    assert_eq!(upstreams[0].balance, "client_id", "the gateway is as it was");
    device.nothing_more();
    Device::connect(other.mqtt(), &device::connect(Version::V5, "elsewhere")).goodbye();
}

#[test]
fn what_only_a_restart_can_change_is_said_and_not_done() {
    let process = Site::new("node1").broker("", "").start();
    let text = process.site.text(&format!("[broker]\n[[broker.listeners]]\nbind = \"{}\"\n", process.mqtt()));
    let text = text.replace("workers = 2", "workers = 1").replace("node1", "node9");
    std::fs::write(process.site.file(), text).expect("written");
    let reloaded = process.rest.reload().expect("a good file");
    assert_eq!(reloaded.changes, [""; 0]);
    let told = ["node.name changes with the next start", "node.workers changes with the next start"];
    assert_eq!(reloaded.restart_needed, told);
    // who sends a signal has no answer but the event and the log
    let lines = process.process.err.all().len();
    process.process.signal(Signal::HUP);
    let event = process.event("config_reloaded", |event| event["source"] == "signal");
    assert_eq!(event["restart_needed"], serde_json::json!(told));
    process.process.err.find("a warning", lines, |line| line.contains("WARN") && line.contains(told[1]));
    assert_eq!(process.rest.nodes().expect("an answer").data[0].node, "node1");
}

#[test]
fn limits_are_in_force_for_what_comes_after_the_reload() {
    let process = Site::new("node1").broker("", "").start();
    let mut before = Device::connect(process.mqtt(), &device::connect(Version::V5, "before"));
    process.site.write(&format!(
        "[log]\nlevel = \"warn\"\n[broker]\nmax_packet_size = \"1KiB\"\n[[broker.listeners]]\nbind = \"{}\"\nallow_anonymous = false\n",
        process.mqtt()
    ));
    let reloaded = process.rest.reload().expect("a good file");
    assert_eq!(reloaded.changes.len(), 3, "{reloaded:?}");
    before.nothing_more();
    let mut stranger = Device::dial(process.mqtt());
    let connack = stranger.hello(&device::connect(Version::V5, "stranger"));
    assert_eq!(connack.reason, ReasonCode::NotAuthorized);
    let lines = process.process.err.all().len();
    Device::dial(process.mqtt()).send_bytes(b"GET / HTTP/1.1\r\n\r\n");
    process.process.err.find("a warning", lines, |line| line.contains("protocol violation"));
    assert_eq!(process.process.err.count(&["INFO", "client_disconnected"]), 0);
}

#[test]
fn a_hundred_reloads_under_traffic_lose_no_connection_and_no_message() {
    let mosquittos = mosquittos(2);
    let servers = servers(&mosquittos);
    let process = Site::new("gateway").gateway("", "balance = \"client_id\"", &servers).start();
    let gate = process.gate();
    let mut receiver = Device::connect(gate, &device::connect(Version::V5, "receiver"));
    let home = process.connection("receiver").newest.server;
    process.rest.pin("brokers", "sender", &home).expect("a pin");
    receiver.subscribe("t", mqtt::QoS::AtLeastOnce);
    let sending = std::thread::spawn(move || {
        let mut sender = Device::connect(gate, &device::connect(Version::V5, "sender"));
        for number in 0..500 {
            sender.publish(device::message("t", &number.to_string(), mqtt::QoS::AtLeastOnce));
        }
        sender.goodbye();
    });
    let extra = at(own(), GATE);
    let text = |listeners: &[std::net::SocketAddr], timeout: &str| {
        let listeners: String = listeners
            .iter()
            .map(|bind| format!("[[gateway.listeners]]\nbind = \"{bind}\"\nupstream = \"brokers\"\n"))
            .collect();
        format!(
            "[gateway]\n{listeners}[[gateway.upstreams]]\nname = \"brokers\"\nconnect_timeout = \"{timeout}\"\n{}\n",
            list(&servers)
        )
    };
    for round in 0..50 {
        process.site.write(&text(&[gate, extra], "3s"));
        process.rest.reload().unwrap_or_else(|error| panic!("round {round}: {error}"));
        process.site.write(&text(&[gate], "4s"));
        process.rest.reload().unwrap_or_else(|error| panic!("round {round}: {error}"));
    }
    for number in 0..500 {
        assert_eq!(device::payload(&receiver.message()), number.to_string());
    }
    sending.join().expect("all acknowledged");
    receiver.goodbye();
    let pins = process.rest.pins("brokers", &Default::default()).expect("an answer").data;
    assert_eq!(pins.len(), 1, "operators' pins survive");
}
