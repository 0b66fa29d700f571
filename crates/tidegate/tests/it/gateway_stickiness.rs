//! The gateway before real Mosquitto servers: who stays where, and who moves when a server goes.

use mqtt::Version;

use crate::harness::fleet::{NAMES, gateway, homes, mosquittos, servers_with, shares, visit};
use crate::harness::{Device, Mosquitto, Paho, Site, device, eventually};

/// Devices stay at home whatever they come from; a server that is drained loses its own share and nothing else moves; it
/// gets exactly that share back.
fn only_the_share_of_a_drained_server_moves(servers: usize, hash: &str) {
    let mosquittos = mosquittos(servers);
    let gateway = gateway(&mosquittos, "", &format!("balance = \"client_id\"\nhash = \"{hash}\""));
    let devices = 48;
    let before = homes(&gateway, devices);
    assert_eq!(shares(before.values()).len(), servers, "each has some: {before:?}");
    for (mosquitto, name) in mosquittos.iter().zip(NAMES) {
        for clientid in before.iter().filter(|(_, home)| *home == name).map(|(clientid, _)| clientid) {
            assert_eq!(mosquitto.connects_of(clientid), 1, "as {name} says itself");
        }
    }
    assert_eq!(homes(&gateway, devices), before, "everybody comes back home");

    let mut stays = Device::connect(gateway.gate(), &device::connect(Version::V5, "resident"));
    let drained = gateway.connection("resident").newest.server;
    let state = gateway.rest.drain("brokers", &drained).expect("drained").state;
    assert_eq!(state, "draining");
    let during = homes(&gateway, devices);
    for (clientid, home) in &before {
        if *home == drained {
            assert_ne!(during[clientid], drained, "{clientid} finds another server");
        } else {
            assert_eq!(during[clientid], *home, "{clientid} has no reason to move");
        }
    }
    // A connection that was there before is not touched.
    stays.nothing_more();
    assert_eq!(gateway.connection("resident").newest.server, drained);
    stays.goodbye();

    gateway.ctl(&["upstreams", "enable", "brokers", &drained]);
    assert_eq!(homes(&gateway, devices), before, "back as it was");
    let changes = gateway.events("server_state_changed");
    let words: Vec<_> = changes.iter().map(|event| (&event["from"], &event["to"])).collect();
    assert_eq!(words, [(&"up".into(), &"draining".into()), (&"draining".into(), &"up".into())]);
}

#[test]
fn of_two_mosquittos_by_rendezvous_only_the_share_of_the_drained_one_moves() {
    only_the_share_of_a_drained_server_moves(2, "rendezvous");
}

#[test]
fn of_four_mosquittos_by_rendezvous_only_the_share_of_the_drained_one_moves() {
    only_the_share_of_a_drained_server_moves(4, "rendezvous");
}

#[test]
fn of_four_mosquittos_by_ketama_only_the_share_of_the_drained_one_moves() {
    only_the_share_of_a_drained_server_moves(4, "ketama");
}

#[test]
fn paho_through_the_gateway_keeps_its_session_at_its_mosquitto() {
    let mosquittos = mosquittos(3);
    let gateway = gateway(&mosquittos, "", "balance = \"client_id\"");
    let nothing = serde_json::json!({});
    for protocol in [3, 4, 5] {
        let clientid = format!("pump-{protocol}");
        let expiry = serde_json::json!({"properties": {"SessionExpiryInterval": 3600}});
        let options = if protocol == 5 { &expiry } else { &nothing };
        let mut pump = Paho::new(&clientid, protocol, false);
        pump.connect(gateway.gate(), options);
        pump.subscribe("orders/#", 1);
        pump.disconnect();
        // Published at the very server that has the session, as a neighbour behind the gateway would.
        let ended = gateway.event("gateway_disconnected", |event| event["clientid"] == clientid.as_str());
        let home = ended["server"].clone();
        let place = NAMES.iter().position(|name| home == *name).expect("one of them");
        crate::harness::mosquitto::publish(
            mosquittos[place].mqtt(),
            &["-t", "orders/7", "-m", "while away", "-q", "1"],
        );
        let mut pump = Paho::new(&clientid, protocol, false);
        let connected = pump.connect(gateway.gate(), options);
        // Session Present is new in 3.1.1.
        assert_eq!(connected["session_present"], protocol > 3, "{connected}");
        assert_eq!(pump.message().payload, "while away");
        pump.disconnect();
    }
}

#[test]
fn a_pin_wins_over_the_hash_until_it_is_deleted() {
    let mosquittos = mosquittos(2);
    let gateway = gateway(&mosquittos, "", "balance = \"client_id\"");
    let car = device::connect(Version::V311, "car/7");
    let here = std::net::Ipv4Addr::LOCALHOST;
    let (home, why) = visit(&gateway, here, &car);
    assert_eq!(why, "hash");
    let other = NAMES.iter().find(|name| **name != home).expect("the other one");
    gateway.ctl(&["pins", "set", "brokers", "car/7", other]);
    assert_eq!(visit(&gateway, here, &car), ((*other).to_owned(), "pin".to_owned()));
    assert!(gateway.ctl(&["pins", "list", "brokers"]).contains("car/7"));
    gateway.ctl(&["pins", "delete", "brokers", "car/7"]);
    assert_eq!(visit(&gateway, here, &car), (home, "hash".to_owned()));
}

#[test]
fn a_dead_server_is_passed_over_and_gets_its_devices_back() {
    let mut mosquittos = mosquittos(3);
    let soon = servers_with(&mosquittos, "fail_timeout = \"50ms\"");
    let gateway = Site::new("gateway").gateway_to("", "balance = \"client_id\"", &soon).start();
    let before = homes(&gateway, 24);
    let dead = mosquittos.remove(0);
    let address = dead.address;
    drop(dead);
    let during = homes(&gateway, 24);
    for (clientid, home) in &before {
        if home == "mq1" {
            assert_ne!(during[clientid], "mq1");
        } else {
            assert_eq!(during[clientid], *home);
        }
    }
    let failed = gateway.event("upstream_failed", |_| true);
    assert_eq!((&failed["upstream"], &failed["server"]), (&"brokers".into(), &"mq1".into()));
    let upstreams = gateway.rest.upstreams().expect("an answer").data;
    let server = &upstreams[0].servers[0];
    assert!(server.fails > 0 && server.last_error.is_some(), "{server:?}");
    let (clientid, _) = before.iter().find(|(_, home)| *home == "mq1").expect("it had some");
    let connect = device::connect(Version::V5, clientid);
    assert_eq!(visit(&gateway, std::net::Ipv4Addr::LOCALHOST, &connect).1, "failover");

    let _again = Mosquitto::start_at(address);
    // Once the server was left alone for its time, the next device of its own finds out that it is there.
    eventually("the server is found again", || {
        (visit(&gateway, std::net::Ipv4Addr::LOCALHOST, &connect).0 == "mq1").then_some(())
    });
    assert_eq!(homes(&gateway, 24), before);
}

#[test]
fn without_any_server_a_device_is_told_so_in_its_own_version() {
    let gateway = gateway(&mosquittos(2), "", "balance = \"client_id\"");
    // The servers ended with the temporary list.
    for version in [Version::V31, Version::V311, Version::V5] {
        let mut device = Device::dial(gateway.gate());
        let connack = device.hello(&device::connect(version, "car-7"));
        // 0x88 (table 3-1), and 3 before version 5 [v3 MQTT-3.2.2-4].
        assert_eq!(connack.reason, mqtt::ReasonCode::ServerUnavailable);
        // [MQTT-3.2.2-7], [v3 MQTT-3.2.2-5]
        device.expect_end();
    }
    assert_eq!(gateway.events("gateway_refused").len(), 3);
    let event = gateway.event("gateway_refused", |_| true);
    assert_eq!((&event["reason"], &event["clientid"]), (&"servers_failed".into(), &"car-7".into()));
    for server in NAMES.iter().take(2) {
        gateway.rest.drain("brokers", server).expect("drained");
    }
    let mut device = Device::dial(gateway.gate());
    device.hello(&device::connect(Version::V5, "car-7"));
    gateway.event("gateway_refused", |event| event["reason"] == "no_server");
}

#[test]
fn a_server_that_dies_takes_only_its_own_connections_with_it() {
    let mut mosquittos = mosquittos(2);
    let gateway = gateway(&mosquittos, "", "balance = \"round_robin\"");
    let mut first = Device::connect(gateway.gate(), &device::connect(Version::V5, "first"));
    let mut second = Device::connect(gateway.gate(), &device::connect(Version::V5, "second"));
    let home = gateway.connection("first").newest.server;
    let place = NAMES.iter().position(|name| *name == home).expect("one of them");
    mosquittos[place].process.kill();
    while first.receive_or_end().is_some() {}
    drop(first);
    second.nothing_more();
    let ended = gateway.event("gateway_disconnected", |event| event["clientid"] == "first");
    let reason = ended["reason"].as_str().expect("a word");
    assert!(["server_closed", "server_failed"].contains(&reason), "{ended}");
    // It comes back at once, to the one that lives.
    let again = Device::connect(gateway.gate(), &device::connect(Version::V5, "first"));
    assert_ne!(gateway.connection("first").newest.server, home);
    again.goodbye();
    second.goodbye();
    let open =
        || gateway.metric(&format!("tidegate_gateway_connections{{listener=\"tcp://{}\"}}", gateway.gate()));
    eventually("nothing is left open", || (open() == 0.0).then_some(()));
}
