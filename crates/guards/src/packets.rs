//! Packets as devices send them.

use mqtt::codec::encode::encode;
use mqtt::packet::{
    Ack, Connect, ConnectProperties, Packet, Properties, Publish, PublishProperties, ReasonProperties,
    Subscribe, SubscribeFilter, SubscriptionOptions, Will,
};
use mqtt::{PacketId, QoS, ReasonCode, Version};

/// Bytes of a payload that says one thing: a position, a temperature.
pub(crate) const PAYLOAD: usize = 64;

/// The topic of a device of a fleet.
pub(crate) fn topic(device: usize) -> String {
    format!("fleet/berlin/truck-{device:06}/telemetry/position")
}

pub(crate) fn bytes(packet: &Packet<'_>, version: Version) -> Vec<u8> {
    let mut out = Vec::new();
    encode(packet, version, &mut out).expect("the packets of this file are right");
    out
}

pub(crate) fn packet_id(id: u16) -> PacketId {
    PacketId::new(id).expect("ids begin with 1")
}

/// What a publisher of version 5 may add.
pub(crate) fn properties() -> PublishProperties<'static> {
    PublishProperties {
        payload_format_indicator: Some(true),
        message_expiry_interval: Some(3_600),
        response_topic: Some("fleet/berlin/answers".into()),
        correlation_data: Some(b"0123456789abcdef".as_slice().into()),
        user_properties: vec![("schema".into(), "position/3".into()), ("unit".into(), "m".into())],
        content_type: Some("application/json".into()),
        ..PublishProperties::default()
    }
}

/// What telemetry of version 5 has: nothing that changes on the way.
pub(crate) fn telemetry() -> PublishProperties<'static> {
    PublishProperties {
        content_type: Some("application/json".into()),
        user_properties: vec![("schema".into(), "position/3".into()), ("unit".into(), "m".into())],
        ..PublishProperties::default()
    }
}

/// A PUBLISH; `id` is looked at for QoS 1 and 2 only.
pub(crate) fn publish(topic: &str, qos: QoS, id: u16, payload: usize) -> Packet<'_> {
    Packet::Publish(Publish {
        dup: false,
        qos,
        retain: false,
        topic: topic.into(),
        packet_id: (qos != QoS::AtMostOnce).then(|| packet_id(id)),
        properties: Properties::default(),
        payload: vec![b'x'; payload].into(),
    })
}

/// The same with properties.
pub(crate) fn with<'a>(packet: Packet<'a>, properties: PublishProperties<'a>) -> Packet<'a> {
    match packet {
        Packet::Publish(publish) => Packet::Publish(Publish { properties: properties.into(), ..publish }),
        other => other,
    }
}

/// The same with [`properties`].
pub(crate) fn publish_v5(topic: &str, qos: QoS, id: u16, payload: usize) -> Packet<'_> {
    with(publish(topic, qos, id, payload), properties())
}

/// A CONNECT of 3.1.1 for a session that ends with its connection.
pub(crate) fn connect(client_id: &str) -> Connect<'_> {
    Connect {
        version: Version::V311,
        bridge: false,
        clean_start: true,
        keep_alive: 60,
        client_id: client_id.into(),
        will: None,
        username: Some("fleet".into()),
        password: Some(b"a-secret-of-24-characters".as_slice().into()),
        properties: ConnectProperties::default(),
    }
}

/// A CONNECT of version 5 with all that usually comes with it.
pub(crate) fn connect_v5(client_id: &str) -> Connect<'_> {
    Connect {
        version: Version::V5,
        will: Some(Will {
            topic: "fleet/berlin/gone".into(),
            payload: b"gone".as_slice().into(),
            qos: QoS::AtLeastOnce,
            retain: false,
            delay_interval: Some(30),
            properties: PublishProperties::default(),
        }),
        properties: ConnectProperties {
            receive_maximum: Some(100),
            topic_alias_maximum: Some(10),
            user_properties: vec![("firmware".into(), "4.2.1".into())],
            ..ConnectProperties::default()
        },
        ..connect(client_id)
    }
}

pub(crate) fn subscribe<'a>(filters: &[&'a str], qos: QoS) -> Packet<'a> {
    let options = SubscriptionOptions { qos, ..SubscriptionOptions::default() };
    let one = |filter: &&'a str| SubscribeFilter { filter: (*filter).into(), options };
    Packet::Subscribe(Subscribe {
        packet_id: packet_id(1),
        subscription_identifier: None,
        user_properties: Vec::new(),
        filters: filters.iter().map(one).collect(),
    })
}

pub(crate) fn ack(id: u16) -> Ack<'static> {
    Ack { packet_id: packet_id(id), reason: ReasonCode::Success, properties: ReasonProperties::default() }
}
