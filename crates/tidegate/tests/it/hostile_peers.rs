//! Peers that flood, stall or talk nonsense: the process stays up, within its bounds, and nobody else notices.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use mqtt::codec::encode::encode;
use mqtt::packet::{Packet, Subscribe, SubscribeFilter, SubscriptionOptions};
use mqtt::{PacketId, QoS, Version};

use crate::harness::fleet::{gateway, mosquittos};
use crate::harness::{DEADLINE, Device, Process, Site, Tidegate, device, eventually};

/// Resident memory of a process in bytes.
fn memory(process: &Process) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.id())).expect("a living process");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") * 1024
}

/// The seed of this run: the one that is asked for, or a fixed one.
fn chance(what: &str) -> fastrand::Rng {
    let seed = std::env::var("TIDEGATE_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(20_261_122);
    eprintln!("{what}: TIDEGATE_SEED={seed}");
    fastrand::Rng::with_seed(seed)
}

/// A good session's bytes, as raw material.
fn good_bytes(version: Version, clientid: &str) -> Vec<u8> {
    let id = PacketId::new(1).expect("not zero");
    let publish =
        mqtt::packet::Publish { packet_id: Some(id), ..device::message("a/b", "x", QoS::AtLeastOnce) };
    let subscribe = Subscribe {
        packet_id: id,
        subscription_identifier: version.is_v5().then_some(7),
        user_properties: Vec::new(),
        filters: vec![SubscribeFilter { filter: "a/+".into(), options: SubscriptionOptions::default() }],
    };
    let mut bytes = Vec::new();
    for packet in [
        Packet::Connect(Box::new(device::connect(version, clientid))),
        Packet::Subscribe(subscribe),
        Packet::Publish(publish),
        Packet::Pingreq,
    ] {
        encode(&packet, version, &mut bytes).expect("a packet");
    }
    bytes
}

/// Breaks some of it: bytes changed, cut out, doubled.
fn broken(chance: &mut fastrand::Rng, mut bytes: Vec<u8>) -> Vec<u8> {
    for _ in 0..chance.usize(1..6) {
        let at = chance.usize(0..bytes.len());
        match chance.u8(0..4) {
            0 => bytes[at] = chance.u8(..),
            1 => bytes[at] ^= 1 << chance.u8(0..8),
            2 => {
                bytes.remove(at);
            }
            _ => bytes.insert(at, chance.u8(..)),
        }
        if bytes.is_empty() {
            bytes.push(chance.u8(..));
        }
    }
    bytes
}

/// Sends the bytes in a few pieces, closes its half, and reads until the end.
fn say(to: SocketAddr, bytes: &[u8], chance: &mut fastrand::Rng) {
    let mut stream = TcpStream::connect(to).expect("it listens");
    stream.set_read_timeout(Some(DEADLINE)).expect("a socket option");
    let cut = chance.usize(0..=bytes.len());
    // It may be closed already, by the first piece.
    let _ = stream.write_all(&bytes[..cut]).and_then(|()| stream.write_all(&bytes[cut..]));
    let _ = stream.shutdown(Shutdown::Write);
    let mut rest = Vec::new();
    match stream.read_to_end(&mut rest) {
        Ok(_) => {}
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => {}
        Err(error) => panic!("not closed within {DEADLINE:?}: {error} after {bytes:02x?}"),
    }
}

fn survives(process: &mut Tidegate, to: SocketAddr, what: &str) {
    let mut chance = chance(what);
    let mut bystander = Device::connect(to, &device::connect(Version::V5, "bystander"));
    for number in 0..600 {
        let version = [Version::V31, Version::V311, Version::V5][chance.usize(0..3)];
        let good = good_bytes(version, &format!("breaker-{number}"));
        let bytes = broken(&mut chance, good);
        say(to, &bytes, &mut chance);
    }
    for _ in 0..100 {
        let noise: Vec<u8> = (0..chance.usize(1..400)).map(|_| chance.u8(..)).collect();
        say(to, &noise, &mut chance);
    }
    bystander.nothing_more();
    assert_eq!(process.process.has_ended(), None);
    assert_eq!(process.process.err.count(&["panicked"]), 0);
    assert_eq!(crate::harness::http::get(process.api(), "/readyz").status, 200);
    bystander.goodbye();
}

#[test]
fn seven_hundred_broken_streams_do_the_broker_no_harm() {
    let mut broker = Site::new("node1").broker("connect_timeout = \"500ms\"", "").start();
    let to = broker.mqtt();
    survives(&mut broker, to, "the broker");
    eventually("no connection is left", || {
        (broker.metric("tidegate_broker_connections") == 0.0).then_some(())
    });
}

#[test]
fn seven_hundred_broken_streams_do_the_gateway_no_harm() {
    let mosquittos = mosquittos(1);
    let mut gateway = gateway(&mosquittos, "preread_timeout = \"500ms\"", "");
    let to = gateway.gate();
    survives(&mut gateway, to, "the gateway");
    let open = format!("tidegate_gateway_connections{{listener=\"tcp://{to}\"}}");
    eventually("no connection is left", || (gateway.metric(&open) == 0.0).then_some(()));
}

#[test]
fn a_subscriber_that_does_not_read_costs_a_bounded_amount_and_others_nothing() {
    let broker = Tidegate::broker("node1");
    let mut stalled = Device::connect(broker.mqtt(), &device::connect(Version::V5, "stalled"));
    stalled.subscribe("flood", QoS::AtMostOnce);
    let mut reader = Device::connect(broker.mqtt(), &device::connect(Version::V5, "reader"));
    reader.subscribe("flood", QoS::AtMostOnce);
    let before = memory(&broker.process);
    let mut sender = Device::connect(broker.mqtt(), &device::connect(Version::V5, "sender"));
    let load = "x".repeat(32 * 1024);
    // 96 MiB for each of the two; the reader takes every one of them.
    for _ in 0..3_000 {
        sender.send(&Packet::Publish(device::message("flood", &load, QoS::AtMostOnce)));
        assert_eq!(reader.message().payload.len(), load.len());
    }
    let grown = memory(&broker.process).saturating_sub(before);
    assert!(grown < 48 << 20, "{} MiB for a stalled subscriber", grown >> 20);
    let dropped = broker.metric("tidegate_broker_messages_dropped_total{rule=\"outbound_full\"}");
    assert!(dropped > 1_000.0, "{dropped}");
    let client = broker.client("stalled").expect("it stays connected");
    assert_eq!((client.connected, client.mqueue_dropped), (true, dropped as u64));
    sender.nothing_more();
}

#[test]
fn behind_the_gateway_a_device_that_does_not_read_slows_its_own_server_only() {
    let mosquittos = mosquittos(1);
    let gateway = gateway(&mosquittos, "", "");
    let mut stalled = Device::connect(gateway.gate(), &device::connect(Version::V311, "stalled"));
    stalled.subscribe("flood", QoS::AtMostOnce);
    let before = memory(&gateway.process);
    let mut sender = Device::connect(gateway.gate(), &device::connect(Version::V311, "sender"));
    let load = "x".repeat(64 * 1024);
    for _ in 0..1_000 {
        sender.publish(device::message("flood", &load, QoS::AtLeastOnce));
    }
    let grown = memory(&gateway.process).saturating_sub(before);
    assert!(grown < 16 << 20, "{} MiB in the gateway", grown >> 20);
    let mut other = Device::connect(gateway.gate(), &device::connect(Version::V5, "other"));
    other.nothing_more();
    sender.goodbye();
}

#[test]
fn more_unfinished_messages_than_receive_maximum_end_the_connection() {
    let broker = Site::new("node1").broker("receive_maximum = 3", "").start();
    let mut greedy = Device::connect(broker.mqtt(), &device::connect(Version::V5, "greedy"));
    for number in 1..=4 {
        let publish = mqtt::packet::Publish {
            packet_id: PacketId::new(number),
            ..device::message("t", "x", QoS::ExactlyOnce)
        };
        greedy.send(&Packet::Publish(publish));
    }
    let answers = [greedy.receive(), greedy.receive(), greedy.receive()];
    assert!(answers.iter().all(|answer| matches!(answer, Packet::Pubrec(_))), "{answers:?}");
    // [MQTT-3.3.4-7]
    greedy.expect_disconnect(mqtt::ReasonCode::ReceiveMaximumExceeded);
}

#[test]
fn a_thousand_connections_that_come_and_go_leave_nothing_behind() {
    let mosquittos = mosquittos(1);
    let process = Site::new("node1")
        .broker("", "")
        .gateway("", "", &crate::harness::fleet::servers(&mosquittos))
        .start();
    let descriptors =
        || std::fs::read_dir(format!("/proc/{}/fd", process.process.id())).expect("a living process").count();
    let round = |name: &str| {
        for number in 0..50 {
            let connect = device::connect(Version::V5, &format!("{name}-{number}"));
            drop(Device::connect(process.mqtt(), &connect));
            drop(Device::connect(process.gate(), &connect));
        }
        let listener = format!("tidegate_gateway_connections{{listener=\"tcp://{}\"}}", process.gate());
        eventually("all are gone", || {
            let left = process.metric("tidegate_broker_connections") + process.metric(&listener);
            (left == 0.0).then_some(())
        });
    };
    round("first");
    let (files, bytes) = (descriptors(), memory(&process.process));
    for number in 0..9 {
        round(&format!("round-{number}"));
    }
    let files_now = crate::harness::wait::within(Duration::from_secs(5), || {
        Some(descriptors()).filter(|now| *now <= files + 2)
    });
    assert!(files_now.is_some(), "{} descriptors after {files}", descriptors());
    let grown = memory(&process.process).saturating_sub(bytes);
    assert!(grown < 24 << 20, "{} MiB after 900 more connections", grown >> 20);
}
