//! What clients may take: connections, rates, queues. Real sockets, and Mosquitto's clients for what they are told.

use std::process::Command;

use mqtt::packet::{Connect, Packet};
use mqtt::{QoS, Version};

use crate::harness::device::{connect, message, payload};
use crate::harness::process::run;
use crate::harness::{Device, Site, eventually};

/// The exit code: that of CONNACK, if the broker refuses.
fn mosquitto_pub(to: std::net::SocketAddr, version: &str) -> Option<i32> {
    let mut command = Command::new("mosquitto_pub");
    command.args([
        "-h",
        &to.ip().to_string(),
        "-p",
        &to.port().to_string(),
        "-t",
        "t",
        "-m",
        "x",
        "-V",
        version,
    ]);
    run(&mut command).status.code()
}

#[test]
fn above_the_accept_rate_clients_are_told_to_come_later() {
    let process = Site::new("node1").broker("", "accept_rate = \"1/h\"").start();
    let first = Device::connect(process.mqtt(), &connect(Version::V5, "first"));
    assert_eq!(mosquitto_pub(process.mqtt(), "mqttv5"), Some(0x9F));
    assert_eq!(mosquitto_pub(process.mqtt(), "mqttv311"), Some(3));
    assert_eq!(process.metric("tidegate_broker_connections_limited_total{limit=\"accept_rate\"}"), 2.0);
    process.event("client_refused", |event| event["reason"] == "accept_rate");
    first.goodbye();
}

#[test]
fn beyond_max_connections_the_door_is_closed() {
    for (broker, listener, limit) in [
        ("max_connections = 2", "", "max_connections"),
        ("", "max_connections = 2", "listener_max_connections"),
    ] {
        let process = Site::new("node1").broker(broker, listener).start();
        let held = ["a", "b"].map(|name| Device::connect(process.mqtt(), &connect(Version::V5, name)));
        let mut third = Device::dial(process.mqtt());
        assert!(third.receive_or_end().is_none(), "{limit}");
        process.event("client_refused", |event| event["reason"] == limit);
        let [first, _second] = held;
        first.goodbye();
        // the place is free as soon as the broker knows
        eventually("a place", || (mosquitto_pub(process.mqtt(), "mqttv5") == Some(0)).then_some(()));
        let series = format!("tidegate_broker_connections_limited_total{{limit=\"{limit}\"}}");
        assert!(process.metric(&series) >= 1.0);
    }
}

#[test]
fn a_flood_of_messages_is_slowed_down_and_none_is_lost() {
    let process = Site::new("node1").broker("messages_rate = \"20/s\"\nbytes_rate = \"1MiB/s\"", "").start();
    let mut sub = Device::connect(process.mqtt(), &connect(Version::V5, "sub"));
    sub.subscribe("t", QoS::AtMostOnce);
    let mut flood = Device::connect(process.mqtt(), &connect(Version::V311, "flood"));
    for n in 0..60 {
        flood.publish(message("t", &n.to_string(), QoS::AtMostOnce));
    }
    for n in 0..60 {
        assert_eq!(payload(&sub.message()), n.to_string());
    }
    flood.send(&Packet::Pingreq);
    assert_eq!(flood.receive(), Packet::Pingresp);
    assert!(process.metric("tidegate_broker_client_throttles_total{limit=\"messages_rate\"}") >= 1.0);
    let event = process.event("client_throttled", |event| event["limit"] == "messages_rate");
    assert_eq!(event["clientid"], "flood");
}

/// An operator looks at resident memory; a burst that is over must not stand there until the next restart.
#[test]
fn memory_of_a_burst_goes_back_to_the_system() {
    const MIB: f64 = 1024.0 * 1024.0;
    let process = Site::new("node1").broker("max_queued_bytes = \"128MiB\"", "").start();
    let [allocated, resident] = ["allocated", "resident"].map(|what| format!("tidegate_memory_{what}_bytes"));
    let durable = Connect { clean_start: false, ..connect(Version::V311, "away") };
    let mut away = Device::connect(process.mqtt(), &durable);
    away.subscribe("t", QoS::AtLeastOnce);
    away.goodbye();
    let before = (process.metric(&allocated), process.metric(&resident));
    let mut publisher = Device::connect(process.mqtt(), &connect(Version::V311, "burst"));
    let text = "x".repeat(16 * 1024);
    for _ in 0..4_000 {
        publisher.publish(message("t", &text, QoS::AtLeastOnce));
    }
    let burst = process.metric(&allocated);
    assert!(burst > before.0 + 60.0 * MIB, "62 MiB of messages wait: {burst} after {before:?}");
    assert!(process.metric(&resident) > before.1 + 60.0 * MIB);
    // a clean session of the same name ends the one that they waited for [MQTT-3.1.2-4]
    Device::connect(process.mqtt(), &connect(Version::V311, "away")).goodbye();
    eventually("nothing of it in use", || (process.metric(&allocated) < before.0 + 4.0 * MIB).then_some(()));
    eventually("nothing of it resident", || {
        (process.metric(&resident) < before.1 + 16.0 * MIB).then_some(())
    });
}
