//! Bytes to packets.

use std::hint::black_box;

use mqtt::codec::decode::{self, Role};
use mqtt::codec::plain::{self, Plain};
use mqtt::codec::{DecodeError, Decoded};
use mqtt::packet::{Packet, PublishProperties};
use mqtt::{QoS, Version};

use crate::meter::{Row, counted, repeat};
use crate::packets;

const CLIENT: &str = "truck-000042-berlin-7f3a";
/// The broker's read buffer.
const READ: usize = 64 * 1024;
/// PUBLISHes that fill it.
const BATCH: usize = 100;

pub(crate) const ROWS: &[Row] = &[
    Row {
        name: "decode/publish_q0_64b",
        run: || {
            one(&packets::publish(&packets::topic(42), QoS::AtMostOnce, 1, packets::PAYLOAD), Version::V311)
        },
    },
    Row {
        name: "decode/publish_q1_v5_properties",
        run: || {
            one(&packets::publish_v5(&packets::topic(42), QoS::AtLeastOnce, 7, packets::PAYLOAD), Version::V5)
        },
    },
    Row { name: "decode/plain_publish_q0_64b", run: || recognised(PublishProperties::default()) },
    Row { name: "decode/plain_publish_q0_v5_3_properties", run: || recognised(packets::telemetry()) },
    Row { name: "decode/plain_publish_q0_v5_properties", run: || recognised(packets::properties()) },
    Row { name: "decode/publish_batch_100", run: batch },
    Row {
        name: "decode/connect_v311",
        run: || one(&Packet::Connect(Box::new(packets::connect(CLIENT))), Version::V311),
    },
    Row {
        name: "decode/connect_v5",
        run: || one(&Packet::Connect(Box::new(packets::connect_v5(CLIENT))), Version::V5),
    },
    Row {
        name: "decode/subscribe_v5_3_filters",
        run: || {
            let filters = ["fleet/berlin/+/telemetry/#", "fleet/berlin/commands", "$share/a/fleet/+/alarm"];
            one(&packets::subscribe(&filters, QoS::AtLeastOnce), Version::V5)
        },
    },
    Row { name: "decode/puback_v311", run: || one(&Packet::Puback(packets::ack(7)), Version::V311) },
];

/// By its address: as it is for everybody, and not made one with the row that counts it.
type Decode = for<'a> fn(&'a [u8], Version, Role, u32) -> Result<Decoded<'a>, DecodeError>;

fn one(packet: &Packet<'_>, version: Version) -> u64 {
    let bytes = packets::bytes(packet, version);
    let decode = black_box(decode::decode as Decode);
    repeat(|_| {
        let decoded = decode(black_box(&bytes), version, Role::Client, 1 << 20);
        assert!(matches!(decoded, Ok(Decoded::Packet(_, used)) if used == bytes.len()));
        black_box(&decoded);
    })
}

/// The same.
type Recognise = for<'a> fn(&'a [u8], Version, u32, &'a str) -> Option<(Plain<'a>, usize)>;

/// The short way of a PUBLISH of version 5 to the topic of the one before.
fn recognised(properties: PublishProperties<'_>) -> u64 {
    let topic = packets::topic(42);
    let packet = packets::publish(&topic, QoS::AtMostOnce, 1, packets::PAYLOAD);
    let bytes = packets::bytes(&packets::with(packet, properties), Version::V5);
    let plain = black_box(plain::plain as Recognise);
    repeat(|_| {
        let recognised = plain(black_box(&bytes), Version::V5, 1 << 20, &topic);
        assert!(matches!(recognised, Some((Plain::Publish(_), used)) if used == bytes.len()));
        black_box(&recognised);
    })
}

/// A read that is full; an operation is one of its packets.
fn batch() -> u64 {
    let payload = READ / BATCH - packets::topic(0).len() - 16;
    let mut bytes = Vec::with_capacity(READ);
    for device in 0..BATCH {
        let topic = packets::topic(device);
        bytes.extend(packets::bytes(&packets::publish(&topic, QoS::AtMostOnce, 1, payload), Version::V311));
    }
    let decode = black_box(decode::decode as Decode);
    let read = || {
        let (mut rest, mut packets) = (black_box(bytes.as_slice()), 0);
        while let Ok(Decoded::Packet(packet, used)) = decode(rest, Version::V311, Role::Client, 1 << 20) {
            black_box(&packet);
            packets += 1;
            rest = rest.get(used..).unwrap_or_default();
        }
        packets
    };
    assert_eq!(read(), BATCH as u64, "every packet is whole");
    counted(|| (0..10).map(|_| read()).sum())
}
