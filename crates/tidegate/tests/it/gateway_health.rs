//! Mosquitto servers that are killed and started again, as the gateway before them sees it.

use std::net::Ipv4Addr;

use api::gateway::Server;
use mqtt::Version;
use rustix::process::Signal;

use crate::harness::fleet::{homes, mosquittos, servers, servers_with, visit};
use crate::harness::{Device, Mosquitto, Site, Tidegate, device, eventually};

const HERE: Ipv4Addr = Ipv4Addr::LOCALHOST;

fn rows(gateway: &Tidegate) -> Vec<Server> {
    gateway.rest.upstreams().expect("an answer").data.remove(0).servers
}

fn states(gateway: &Tidegate) -> Vec<String> {
    rows(gateway).into_iter().map(|row| row.state).collect()
}

fn up(gateway: &Tidegate, server: &str) -> f64 {
    gateway.metric(&format!("tidegate_gateway_server_up{{upstream=\"brokers\",server=\"{server}\"}}"))
}

#[test]
fn a_killed_broker_costs_one_attempt_and_is_left_alone_until_an_operator_has_it_back() {
    let mut mosquittos = mosquittos(3);
    let list = servers_with(&mosquittos, "fail_timeout = \"1h\"");
    let gateway = Site::new("gateway").gateway_to("", "balance = \"client_id\"", &list).start();
    let before = homes(&gateway, 24);
    let address = mosquittos[1].address;
    mosquittos[1].process.kill();
    let during = homes(&gateway, 24);
    for (clientid, home) in &before {
        match home.as_str() {
            "mq2" => assert_ne!(during[clientid], "mq2"),
            _ => assert_eq!(during[clientid], *home, "{clientid} has no reason to move"),
        }
    }
    assert_eq!(rows(&gateway)[1].fails, 1, "the others of its devices went straight to their replacement");
    assert_eq!(homes(&gateway, 24), during, "and stay there");
    assert_eq!((states(&gateway)[1].as_str(), up(&gateway, "mq2")), ("unavailable", 0.0));
    assert_eq!(rows(&gateway)[1].unavailable_total, 1);
    assert!(rows(&gateway)[1].downtime_ms > 0);
    gateway.event("server_state_changed", |event| event["server"] == "mq2" && event["to"] == "unavailable");

    // Time would bring it back; an operator who knows better does not wait.
    mosquittos[1] = Mosquitto::start_at(address);
    gateway.rest.drain("brokers", "mq2").expect("drained");
    assert_eq!(gateway.rest.enable("brokers", "mq2").expect("enabled").state, "up");
    assert_eq!(homes(&gateway, 24), before);
    assert_eq!((states(&gateway), up(&gateway, "mq2")), (vec!["up".to_owned(); 3], 1.0));
}

#[test]
fn a_broker_that_restarts_gets_its_devices_back_by_itself() {
    let mut mosquittos = mosquittos(2);
    let list = servers_with(&mosquittos, "fail_timeout = \"100ms\", max_fails = 2");
    let gateway = Site::new("gateway").gateway_to("", "balance = \"client_id\"", &list).start();
    let before = homes(&gateway, 12);
    let (mine, _) = before.iter().find(|(_, home)| *home == "mq1").expect("it has some");
    let connect = device::connect(Version::V5, mine);
    let address = mosquittos[0].address;
    mosquittos[0].process.kill();
    for _ in 0..2 {
        assert_eq!(visit(&gateway, HERE, &connect), ("mq2".to_owned(), "failover".to_owned()));
    }
    gateway.event("server_state_changed", |event| event["server"] == "mq1" && event["to"] == "unavailable");
    mosquittos[0] = Mosquitto::start_at(address);
    eventually("its device is back", || (visit(&gateway, HERE, &connect).0 == "mq1").then_some(()));
    gateway.event("server_state_changed", |event| event["server"] == "mq1" && event["to"] == "up");
    assert_eq!(homes(&gateway, 12), before);
}

#[test]
fn when_the_whole_fleet_of_brokers_restarts_devices_come_back_at_once() {
    let mut mosquittos = mosquittos(2);
    let list = servers_with(&mosquittos, "fail_timeout = \"1h\"");
    let gateway = Site::new("gateway").gateway_to("", "balance = \"client_id\"", &list).start();
    let before = homes(&gateway, 8);
    let addresses: Vec<_> = mosquittos.iter().map(|mosquitto| mosquitto.address).collect();
    for mosquitto in &mut mosquittos {
        mosquitto.process.kill();
    }
    let mut refused = Device::dial(gateway.gate());
    let connack = refused.hello(&device::connect(Version::V5, "vehicle-0"));
    assert_eq!(connack.reason, mqtt::ReasonCode::ServerUnavailable);
    assert_eq!(states(&gateway), ["unavailable", "unavailable"]);
    let _again: Vec<_> = addresses.into_iter().map(Mosquitto::start_at).collect();
    assert_eq!(homes(&gateway, 8), before);
    assert_eq!(states(&gateway), ["up", "up"]);
}

#[test]
fn a_backup_serves_while_the_broker_is_gone_and_gives_back() {
    let mut mosquittos = mosquittos(2);
    let [(one, first), (two, second)] = servers(&mosquittos)[..] else { panic!("two servers") };
    let list = format!(
        "{{ name = \"{one}\", address = \"{first}\", fail_timeout = \"50ms\" }}, \
         {{ name = \"{two}\", address = \"{second}\", backup = true }}"
    );
    for hash in ["rendezvous", "ketama", "modulo"] {
        let upstream = format!("balance = \"client_id\"\nhash = \"{hash}\"");
        let gateway = Site::new("gateway").gateway_to("", &upstream, &list).start();
        let connect = device::connect(Version::V311, "car");
        assert_eq!(visit(&gateway, HERE, &connect), ("mq1".to_owned(), "hash".to_owned()));
        assert!(!rows(&gateway)[0].backup && rows(&gateway)[1].backup);
        let address = mosquittos[0].address;
        mosquittos[0].process.kill();
        assert_eq!(visit(&gateway, HERE, &connect), ("mq2".to_owned(), "backup".to_owned()));
        mosquittos[0] = Mosquitto::start_at(address);
        eventually("it is back", || (visit(&gateway, HERE, &connect).0 == "mq1").then_some(()));
    }
}

#[test]
fn down_and_back_by_a_reload_and_connections_stay() {
    let mosquittos = mosquittos(2);
    let [(one, first), (two, second)] = servers(&mosquittos)[..] else { panic!("two servers") };
    let list = |more: &str| {
        format!(
            "{{ name = \"{one}\", address = \"{first}\"{more} }}, {{ name = \"{two}\", address = \"{second}\" }}"
        )
    };
    let upstream = "balance = \"round_robin\"";
    let gateway = Site::new("gateway").gateway_to("", upstream, &list("")).start();
    let mut held = Device::connect(gateway.gate(), &device::connect(Version::V5, "stays"));
    assert_eq!(gateway.connection("stays").newest.server, "mq1");
    let sections = |more: &str| {
        format!(
            "[gateway]\n[[gateway.listeners]]\nbind = \"{}\"\nupstream = \"brokers\"\n\
             [[gateway.upstreams]]\nname = \"brokers\"\n{upstream}\nservers = [ {} ]\n",
            gateway.gate(),
            list(more)
        )
    };
    gateway.site.write(&sections(", down = true"));
    gateway.process.signal(Signal::HUP);
    let event = gateway.event("config_reloaded", |event| event["source"] == "signal");
    assert!(event["changes"].to_string().contains("server mq1 is down: its connections stay"), "{event}");
    assert_eq!(states(&gateway), ["down", "up"]);
    for n in 0..3 {
        assert_eq!(visit(&gateway, HERE, &device::connect(Version::V5, &format!("v{n}"))).0, "mq2");
    }
    held.nothing_more();
    gateway.site.write(&sections(""));
    let reloaded = gateway.rest.reload().expect("a good file");
    assert_eq!(reloaded.changes, ["upstream brokers: server mq1 is no longer down"]);
    let mut seen: Vec<_> =
        (0..2).map(|n| visit(&gateway, HERE, &device::connect(Version::V5, &format!("w{n}"))).0).collect();
    seen.sort();
    assert_eq!(seen, ["mq1", "mq2"]);
}
