//! Messages that are kept for their topics: keeping one, and what a new subscriber is sent.
//!
//! The engine is a thread of its own and is not counted.

use broker::bench::{Bench, Device};
use mqtt::codec::Decoded;
use mqtt::codec::decode::{Role, decode};
use mqtt::packet::{Packet, Publish};
use mqtt::{QoS, Version};

use crate::meter::{OPERATIONS, Row, counted};
use crate::{clients, packets};

/// An operation is one message: kept, or found and sent.
pub(crate) const ROWS: &[Row] = &[
    Row { name: "retained/keep", run: keep },
    Row { name: "retained/deliver_all", run: || deliver(Version::V311, "fleet/#", 1) },
    Row {
        name: "retained/deliver_1_of_10",
        run: || deliver(Version::V311, "fleet/berlin/+/telemetry/reading-7", READINGS),
    },
    Row { name: "retained/deliver_v5_properties", run: || deliver(Version::V5, "fleet/#", 1) },
];

/// Messages of a device.
const READINGS: usize = 10;
const DEVICES: usize = OPERATIONS as usize / 2;
/// Messages that come in one read.
const BATCH: usize = 20;

fn topics() -> Vec<String> {
    let of =
        |device| (0..READINGS).map(move |n| format!("fleet/berlin/truck-{device:06}/telemetry/reading-{n}"));
    (0..DEVICES).flat_map(of).collect()
}

fn message(topic: &str, version: Version, id: u16) -> Packet<'_> {
    let of_version = if version.is_v5() { packets::publish_v5 } else { packets::publish };
    match of_version(topic, QoS::AtLeastOnce, id, packets::PAYLOAD) {
        Packet::Publish(publish) => Packet::Publish(Publish { retain: true, ..publish }),
        other => other,
    }
}

/// Keeps a message for each of these topics.
fn publish(bench: &mut Bench, publisher: Device, topics: &[String], version: Version, count: bool) {
    for batch in topics.chunks(BATCH) {
        let sent: Vec<u8> = (1..)
            .zip(batch)
            .flat_map(|(id, topic)| packets::bytes(&message(topic, version, id), version))
            .collect();
        let mut acknowledged = turn(bench, count, |bench| bench.received(publisher, &sent));
        while bench.is_waiting() {
            assert!(bench.wait(), "the engine answers");
            acknowledged.extend(turn(bench, count, |_| ()));
        }
        let acks = decoded(&acknowledged, version);
        assert!(acks.iter().all(|packet| matches!(packet, Packet::Puback(ack) if !ack.reason.is_error())));
        assert_eq!(acks.len(), batch.len());
    }
}

/// A turn of the broker, with what it wrote to anybody.
fn turn(bench: &mut Bench, count: bool, read: impl FnOnce(&mut Bench)) -> Vec<u8> {
    let mut written = Vec::with_capacity(1 << 20);
    let work = || {
        read(bench);
        bench.end_turn(&mut |_, bytes| written.extend_from_slice(bytes));
    };
    if count {
        counted(work);
    } else {
        work();
    }
    written
}

fn decoded(mut bytes: &[u8], version: Version) -> Vec<Packet<'_>> {
    let mut packets = Vec::new();
    while let Ok(Decoded::Packet(packet, used)) = decode(bytes, version, Role::Server, u32::MAX) {
        packets.push(packet);
        bytes = bytes.get(used..).unwrap_or_default();
    }
    assert!(bytes.is_empty(), "packets are whole");
    packets
}

fn keep() -> u64 {
    let mut bench = clients::broker(1);
    let publisher = clients::connect(&mut bench, 0, &clients::hello("publisher", Version::V311));
    let topics = topics();
    let (counted, before) = topics.split_at(OPERATIONS as usize);
    publish(&mut bench, publisher, before, Version::V311, false);
    publish(&mut bench, publisher, counted, Version::V311, true);
    OPERATIONS
}

/// A new client subscribes to a filter that one in so many topics matches, and takes what comes.
fn deliver(version: Version, filter: &str, one_in: usize) -> u64 {
    let mut bench = clients::broker(1);
    let publisher = clients::connect(&mut bench, 0, &clients::hello("publisher", version));
    let topics = topics();
    publish(&mut bench, publisher, &topics, version, false);
    let messages = topics.len() / one_in;
    let taker = clients::connect(&mut bench, 0, &clients::hello("taker", version));
    let subscribe = packets::bytes(&packets::subscribe(&[filter], QoS::AtMostOnce), version);
    turn(&mut bench, false, |bench| bench.received(taker, &subscribe));
    // what is found comes in pieces, from turn to turn
    let (mut taken, mut quiet) = (0, false);
    while !quiet || bench.is_waiting() {
        assert!(bench.wait(), "the engine answers");
        let written = turn(&mut bench, true, |_| ());
        let kept = |packet: &&Packet<'_>| matches!(packet, Packet::Publish(publish) if publish.retain);
        taken += decoded(&written, version).iter().filter(kept).count();
        quiet = taken == messages;
    }
    assert_eq!(taken, messages);
    messages as u64
}
