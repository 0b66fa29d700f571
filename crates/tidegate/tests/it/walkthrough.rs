//! The walkthrough of the product: two brokers, the gateway before them, devices that come back from anywhere.

use std::collections::BTreeMap;

use mqtt::Version;

use crate::harness::address::source;
use crate::harness::{Device, Site, Tidegate, device};

/// Two brokers that believe the gateway, and the gateway with client-id stickiness.
#[track_caller]
fn fleet() -> ([Tidegate; 2], Tidegate) {
    let brokers = ["node1", "node2"].map(|name| Site::new(name).broker("", "proxy_protocol = true").start());
    let servers = [("node1", brokers[0].mqtt()), ("node2", brokers[1].mqtt())];
    let upstream = "balance = \"client_id\"\nhash = \"rendezvous\"\nproxy_protocol = \"v2\"";
    let gateway = Site::new("gateway").gateway("", upstream, &servers).start();
    (brokers, gateway)
}

/// The node that serves a client, as the brokers themselves say.
#[track_caller]
fn node_of(brokers: &[Tidegate], clientid: &str) -> String {
    let serving: Vec<_> = brokers
        .iter()
        .filter_map(|broker| broker.client(clientid))
        .filter(|client| client.connected)
        .collect();
    let [client] = serving.as_slice() else { panic!("{clientid} is at {serving:?}") };
    client.node.clone()
}

/// [MQTT-4.2.0-1], [v3 MQTT-7.1.1-1]
#[test]
fn a_device_reaches_the_same_broker_from_every_address_and_with_every_version() {
    let (brokers, gateway) = fleet();
    let mut homes = BTreeMap::new();
    let mut number = 0;
    for round in 0..4 {
        for car in 0..12 {
            let clientid = format!("car-{car}");
            // The version changes with the round too: the same device after an update of its software.
            let version = [Version::V31, Version::V311, Version::V5][(car + round) % 3];
            number += 1;
            let from = source(number * 257).into();
            let (device, _) =
                Device::connect_from(from, gateway.gate(), &device::connect(version, &clientid));
            let node = node_of(&brokers, &clientid);
            let connection = gateway.connection(&clientid).newest;
            assert_eq!((connection.server.as_str(), connection.chosen_by.as_str()), (node.as_str(), "hash"));
            assert_eq!(connection.proto_ver, Some(version.level()));
            let home = homes.entry(clientid.clone()).or_insert_with(|| node.clone());
            assert_eq!(*home, node, "{clientid} moved in round {round}");
            device.goodbye();
            gateway.gone(&clientid);
        }
    }
    let spread: BTreeMap<_, usize> = homes.values().fold(BTreeMap::new(), |mut spread, node| {
        *spread.entry(node.as_str()).or_default() += 1;
        spread
    });
    assert_eq!(spread.len(), 2, "both brokers have devices: {spread:?}");
}

#[test]
fn the_broker_sees_the_devices_own_address_and_the_gateways_id_of_the_connection() {
    let (brokers, gateway) = fleet();
    for (number, version) in [(1, Version::V31), (2, Version::V311), (3, Version::V5)] {
        let clientid = format!("car-{number}");
        let (device, _) =
            Device::connect_from(source(number).into(), gateway.gate(), &device::connect(version, &clientid));
        let connection = gateway.connection(&clientid).newest;
        let client = brokers.iter().find_map(|broker| broker.client(&clientid)).expect("at a broker");
        assert_eq!(client.peer, device.local().to_string(), "from the PROXY header");
        assert_eq!(connection.peer, client.peer);
        assert_eq!(client.via.as_ref(), Some(&connection.local_address), "the gateway's own connection");
        assert_eq!(client.unique_id.as_ref(), Some(&connection.id));
        assert_eq!(client.proto_ver, version.level());
        assert_eq!(client.listener, format!("tcp://{}", connection.server_address));
        assert_eq!((client.connected, client.clean_start, client.keepalive), (true, true, 60));
    }
}

#[test]
fn ctl_shows_where_a_device_is() {
    let (brokers, gateway) = fleet();
    let (device, _) =
        Device::connect_from(source(77).into(), gateway.gate(), &device::connect(Version::V5, "car 7/ä"));
    let node = node_of(&brokers, "car 7/ä");
    let broker = brokers.iter().find(|broker| broker.site.name() == node).expect("one of them");
    let peer = device.local().to_string();

    let clients = broker.ctl(&["clients", "list"]);
    let row = clients.lines().find(|line| line.contains("car 7/ä")).expect("a row");
    assert!(row.contains(&node) && row.contains(&peer), "{clients}");
    let connections = gateway.ctl(&["connections", "list"]);
    let row = connections.lines().find(|line| line.contains("car 7/ä")).expect("a row");
    assert!(row.contains(&node) && row.contains(&peer), "{connections}");

    let json: serde_json::Value =
        serde_json::from_str(&gateway.ctl(&["connections", "show", "car 7/ä", "--json"])).expect("JSON");
    assert_eq!((&json["server"], &json["peer"]), (&node.into(), &peer.into()));
    let shown = broker.ctl(&["clients", "show", "car 7/ä"]);
    assert!(shown.contains("proto_ver") && shown.contains('5'), "{shown}");
}

#[test]
fn a_device_is_told_nothing_of_the_gateway_between() {
    let (brokers, gateway) = fleet();
    let mut inside = Device::connect(gateway.gate(), &device::connect(Version::V5, "inside"));
    inside.subscribe("fleet/+/state", mqtt::QoS::ExactlyOnce);
    let node = node_of(&brokers, "inside");
    let broker = brokers.iter().find(|broker| broker.site.name() == node).expect("one of them");
    // Straight to the same broker would need a PROXY header, so the second device comes by the gateway too, pinned.
    gateway.rest.pin("brokers", "neighbour", &node).expect("a pin");
    let mut neighbour = Device::connect(gateway.gate(), &device::connect(Version::V311, "neighbour"));
    assert_eq!(gateway.connection("neighbour").newest.chosen_by, "pin");
    let large = "x".repeat(300_000);
    neighbour.publish(device::message("fleet/7/state", &large, mqtt::QoS::ExactlyOnce));
    let message = inside.message();
    assert_eq!((&*message.topic, message.payload.len()), ("fleet/7/state", large.len()));
    assert_eq!(broker.client("inside").expect("there").send_msg, 1);
    neighbour.goodbye();
    gateway.gone("neighbour");
    let ended = gateway.event("gateway_disconnected", |event| event["clientid"] == "neighbour");
    assert!(ended["bytes_in"].as_u64() > Some(300_000), "{ended}");
    // The broker closes after DISCONNECT, as it should.
    gateway.process.err.line_with(&["session", "neighbour", &node, "chosen_by=\"pin\"", "server_closed"]);
}
