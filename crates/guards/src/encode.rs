//! Packets to bytes.

use std::hint::black_box;

use mqtt::codec::encode::{self, EncodeError, PublishTemplate};
use mqtt::packet::{Connack, ConnackProperties, Packet, PublishProperties, ReasonProperties, Suback};
use mqtt::{PacketId, QoS, ReasonCode, Version};

use crate::meter::{Row, repeat};
use crate::packets;

/// Receivers of a message.
const RECEIVERS: u16 = 100;

pub(crate) const ROWS: &[Row] = &[
    Row {
        name: "encode/publish_q0_to_100",
        run: || to_many(Version::V311, QoS::AtMostOnce, &PublishProperties::default()),
    },
    Row {
        name: "encode/publish_q1_v5_properties_to_100",
        run: || to_many(Version::V5, QoS::AtLeastOnce, &packets::properties()),
    },
    Row { name: "encode/publish_q0_v5_properties_to_1", run: to_one },
    Row {
        name: "encode/puback_v5",
        run: || {
            let mut out = Vec::with_capacity(16);
            repeat(|turn| {
                out.clear();
                encode::puback(
                    Version::V5,
                    packets::packet_id(turn as u16 | 1),
                    ReasonCode::Success,
                    &mut out,
                );
                black_box(&out);
            })
        },
    },
    Row { name: "encode/connack_v5", run: || whole(&connack()) },
    Row { name: "encode/suback_v5_3_filters", run: || whole(&suback()) },
];

/// These are called by their addresses: as they are for everybody, and not made one with the row that counts them.
type New =
    fn(Version, QoS, bool, bool, &str, &PublishProperties<'_>, &[u8]) -> Result<PublishTemplate, EncodeError>;

/// One template for all receivers, each with a buffer of its own. An operation is a message to all of them.
fn to_many(version: Version, qos: QoS, properties: &PublishProperties<'_>) -> u64 {
    let topic = packets::topic(42);
    let payload = [b'x'; packets::PAYLOAD];
    let mut buffers: Vec<Vec<u8>> = (0..RECEIVERS).map(|_| Vec::with_capacity(512)).collect();
    let new = black_box(PublishTemplate::new as New);
    let write = black_box(PublishTemplate::write as fn(&PublishTemplate, Option<PacketId>, &mut Vec<u8>));
    repeat(|_| {
        let template =
            new(version, qos, false, false, black_box(&topic), properties, &payload).expect("it is right");
        for (id, out) in (1..).zip(&mut buffers) {
            out.clear();
            write(&template, (qos != QoS::AtMostOnce).then(|| packets::packet_id(id)), out);
        }
        black_box(&buffers);
    })
}

fn to_one() -> u64 {
    let topic = packets::topic(42);
    let payload = [b'x'; packets::PAYLOAD];
    let properties = packets::properties();
    let mut out = Vec::with_capacity(512);
    repeat(|_| {
        out.clear();
        let qos = QoS::AtMostOnce;
        encode::publish(
            Version::V5,
            qos,
            false,
            false,
            None,
            black_box(&topic),
            &properties,
            &payload,
            &mut out,
        )
        .expect("it is right");
        black_box(&out);
    })
}

fn whole(packet: &Packet<'_>) -> u64 {
    let encode =
        black_box(encode::encode as fn(&Packet<'_>, Version, &mut Vec<u8>) -> Result<(), EncodeError>);
    let mut out = Vec::with_capacity(512);
    repeat(|_| {
        out.clear();
        encode(packet, Version::V5, &mut out).expect("it is right");
        black_box(&out);
    })
}

/// As the broker answers a client of version 5.
fn connack() -> Packet<'static> {
    Packet::Connack(Box::new(Connack {
        session_present: false,
        reason: ReasonCode::Success,
        properties: ConnackProperties {
            receive_maximum: Some(32),
            maximum_packet_size: Some(1 << 20),
            topic_alias_maximum: Some(32),
            assigned_client_identifier: Some("auto-0123456789abcdef".into()),
            server_keep_alive: Some(60),
            ..ConnackProperties::default()
        },
    }))
}

fn suback() -> Packet<'static> {
    Packet::Suback(Suback {
        packet_id: packets::packet_id(1),
        properties: ReasonProperties::default(),
        reasons: vec![ReasonCode::GrantedQos1, ReasonCode::GrantedQos1, ReasonCode::NotAuthorized],
    })
}
