//! Limits of servers and listeners, as clients and operators meet them.

use std::net::Ipv4Addr;

use mqtt::{ReasonCode, Version};
use rustix::process::Signal;

use crate::harness::address::source;
use crate::harness::fleet::{mosquittos, servers_with, visit};
use crate::harness::{Device, Paho, Site, Tidegate, device, eventually};

fn upstream(gateway: &Tidegate) -> api::gateway::Upstream {
    gateway.rest.upstreams().expect("an answer").data.remove(0)
}

#[test]
fn a_client_waits_for_a_place_and_gets_it() {
    let mosquittos = mosquittos(2);
    let list = servers_with(&mosquittos, "max_conns = 1");
    let gateway = Site::new("gateway").gateway_to("", "queue = 1\nqueue_timeout = \"1h\"", &list).start();
    let first = Device::connect(gateway.gate(), &device::connect(Version::V5, "first"));
    let _second = Device::connect(gateway.gate(), &device::connect(Version::V5, "second"));
    let servers = upstream(&gateway).servers;
    assert!(servers.iter().all(|row| (row.connections, row.max_conns) == (1, 1)), "{servers:?}");
    let home = gateway.connection("first").newest.server;
    let mut third = Device::dial(gateway.gate());
    third.say_hello(&device::connect(Version::V5, "third"));
    eventually("it waits", || (upstream(&gateway).queued == 1).then_some(()));
    // One may wait; the next is told to come later.
    let mut fourth = Device::dial(gateway.gate());
    let connack = fourth.hello(&device::connect(Version::V5, "fourth"));
    assert_eq!(connack.reason, ReasonCode::ServerBusy);
    gateway.event("gateway_refused", |event| event["reason"] == "queue_full");
    first.goodbye();
    assert!(
        matches!(third.receive(), mqtt::packet::Packet::Connack(connack) if connack.reason == ReasonCode::Success)
    );
    assert_eq!(gateway.connection("third").newest.server, home);
    assert_eq!((upstream(&gateway).queued, upstream(&gateway).queued_total), (0, 1));
    assert_eq!(gateway.metric("tidegate_gateway_queued_total{upstream=\"brokers\"}"), 1.0);
}

#[test]
fn a_real_client_does_not_notice_that_it_waited() {
    let mosquittos = mosquittos(1);
    let list = servers_with(&mosquittos, "max_conns = 1");
    let gateway = Site::new("gateway").gateway_to("", "queue = 9", &list).start();
    let first = Device::connect(gateway.gate(), &device::connect(Version::V311, "first"));
    std::thread::scope(|scope| {
        let waits = scope.spawn(|| {
            let mut pump = Paho::new("pump", 5, true);
            let connected = pump.connect(gateway.gate(), &serde_json::json!({}));
            pump.disconnect();
            connected
        });
        eventually("it waits", || (upstream(&gateway).queued == 1).then_some(()));
        first.goodbye();
        waits.join().expect("a client that was let in");
    });
}

#[test]
fn who_is_denied_or_comes_too_often_is_closed_and_counted() {
    let mosquittos = mosquittos(1);
    let denied = Ipv4Addr::new(127, 3, 255, 1);
    let listener = format!(
        "access = [{{ deny = \"{denied}\" }}, {{ allow = \"127.0.0.0/8\" }}, {{ deny = \"all\" }}]\nmax_connections_per_address = 2"
    );
    let list = servers_with(&mosquittos, "weight = 1");
    let gateway = Site::new("gateway").gateway_to(&listener, "", &list).start();
    for _ in 0..3 {
        Device::dial_from(denied.into(), gateway.gate()).expect_end();
    }
    gateway.event("gateway_refused", |event| event["reason"] == "access_denied");
    let (one, other) = (source(1), source(2));
    let connect = |from: Ipv4Addr, id: &str| {
        Device::connect_from(from.into(), gateway.gate(), &device::connect(Version::V5, id)).0
    };
    let mut held = vec![connect(one, "a"), connect(one, "b")];
    Device::dial_from(one.into(), gateway.gate()).expect_end();
    gateway.event("gateway_refused", |event| event["reason"] == "max_connections_per_address");
    held.push(connect(other, "c"));
    held.remove(0).goodbye();
    gateway.gone("a");
    held.push(connect(one, "d"));
    let row = gateway.rest.listeners().expect("an answer").data.remove(0);
    assert_eq!((&*row.upstream, row.connections, row.max_connections_per_address), ("brokers", 3, 2));
    assert_eq!(
        row.refused,
        [("access_denied".to_owned(), 3), ("max_connections_per_address".to_owned(), 1)].into()
    );
    assert_eq!((row.served_total, row.refused_total, row.access_rules), (4, 4, 3));
}

#[test]
fn the_session_log_is_a_file_that_logrotate_may_take_away() {
    let mosquittos = mosquittos(1);
    let site = Site::new("gateway");
    let (gate, server) = (site.gate(), mosquittos[0].mqtt());
    let sections = format!(
        "[gateway]\nsession_log = {{ file = \"sessions.log\", format = \"json\" }}\n\
         [[gateway.listeners]]\nbind = \"{gate}\"\nupstream = \"brokers\"\n\
         [[gateway.upstreams]]\nname = \"brokers\"\nservers = [ {{ name = \"mq1\", address = \"{server}\" }} ]\n"
    );
    let folder = site.file().parent().expect("a folder").to_owned();
    let mut gateway = site.sections(&sections).start();
    let (file, old) = (folder.join("sessions.log"), folder.join("sessions.log.1"));
    let lines = |path: &std::path::Path| -> Vec<serde_json::Value> {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    };
    visit(&gateway, Ipv4Addr::LOCALHOST, &device::connect(Version::V5, "car-1"));
    eventually("a line", || (lines(&file).len() == 1).then_some(()));
    std::fs::rename(&file, &old).expect("it is moved");
    gateway.process.signal(Signal::HUP);
    gateway.event("config_reloaded", |event| event["source"] == "signal");
    visit(&gateway, Ipv4Addr::LOCALHOST, &device::connect(Version::V5, "car-2"));
    let held = Device::connect(gateway.gate(), &device::connect(Version::V5, "car-3"));
    held.goodbye();
    gateway.gone("car-3");
    assert!(gateway.terminate().success());
    let ids = |path: &std::path::Path| -> Vec<String> {
        lines(path).iter().map(|line| line["clientid"].as_str().expect("a name").to_owned()).collect()
    };
    assert_eq!(
        (ids(&old), ids(&file)),
        (vec!["car-1".to_owned()], vec!["car-2".to_owned(), "car-3".to_owned()])
    );
    let line = &lines(&file)[0];
    assert_eq!(
        (&line["event"], &line["server"], &line["chosen_by"]),
        (&"session".into(), &"mq1".into(), &"hash".into())
    );
    assert_eq!(line["server_address"], server.to_string());
    let said = gateway.process.err.all();
    assert!(!said.iter().any(|line| line.contains("gateway::session")), "its lines are in the file only");
}
