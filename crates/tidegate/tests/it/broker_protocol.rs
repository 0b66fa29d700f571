//! What the broker promises in CONNACK and holds, and what it answers to packets that must not be.

use std::net::Ipv4Addr;

use mqtt::packet::{
    Connect, ConnectProperties, Packet, PublishProperties, Subscribe, SubscribeFilter, SubscriptionOptions,
    Unsubscribe,
};
use mqtt::{QoS, ReasonCode, Version};

use crate::harness::{Device, Site, Tidegate, device};

#[test]
fn connack_says_what_the_broker_allows() {
    let broker = Site::new("node1")
        .broker("max_packet_size = \"64KiB\"\nreceive_maximum = 7\nmax_session_expiry = \"1h\"", "")
        .start();
    let connect = Connect {
        properties: ConnectProperties { session_expiry_interval: Some(u32::MAX), ..Default::default() },
        ..device::connect(Version::V5, "")
    };
    let (_device, connack) = Device::connect_from(Ipv4Addr::LOCALHOST.into(), broker.mqtt(), &connect);
    let told = connack.properties;
    assert_eq!(told.maximum_packet_size, Some(65_536), "(3.2.2.3.6)");
    assert_eq!(told.receive_maximum, Some(7), "(3.2.2.3.3)");
    assert_eq!(told.session_expiry_interval, Some(3_600), "(3.2.2.3.2)");
    assert_eq!(told.maximum_qos, None, "2, so it is not said (3.2.2.3.4)");
    assert_eq!(told.shared_subscription_available, Some(true), "(3.2.2.3.13)");
    let assigned = told.assigned_client_identifier.expect("an id for a client without one [MQTT-3.2.2-16]");
    assert!(broker.client(&assigned).is_some(), "{assigned}");
}

#[test]
fn what_connack_refuses_is_refused() {
    let broker = Site::new("node1")
        .broker("max_packet_size = \"1KiB\"\nshared_subscription_available = false", "")
        .start();
    let mut shared = Device::connect(broker.mqtt(), &device::connect(Version::V5, "shared"));
    let suback = shared.subscribe_with("$share/a/b", SubscriptionOptions::default(), None);
    assert_eq!(suback.reasons, [ReasonCode::SharedSubscriptionsNotSupported]);
    let mut large = Device::connect(broker.mqtt(), &device::connect(Version::V5, "large"));
    large.send(&Packet::Publish(device::message("t", &"x".repeat(2_000), QoS::AtMostOnce)));
    large.expect_disconnect(ReasonCode::PacketTooLarge);
    shared.nothing_more();
}

#[test]
fn an_empty_client_id_is_served_where_the_version_allows_it() {
    let broker = Tidegate::broker("node1");
    let answer = |version, clean_start| {
        let mut device = Device::dial(broker.mqtt());
        device.hello(&Connect { clean_start, ..device::connect(version, "") }).reason
    };
    assert_eq!(answer(Version::V5, true), ReasonCode::Success, "[MQTT-3.1.3-6]");
    assert_eq!(answer(Version::V5, false), ReasonCode::Success);
    assert_eq!(answer(Version::V311, true), ReasonCode::Success, "[v3 MQTT-3.1.3-6]");
    assert_eq!(answer(Version::V311, false), ReasonCode::ClientIdentifierNotValid, "[v3 MQTT-3.1.3-8]");
    assert_eq!(answer(Version::V31, true), ReasonCode::ClientIdentifierNotValid);
}

#[test]
fn overlapping_subscriptions_give_one_copy_with_all_identifiers() {
    let broker = Tidegate::broker("node1");
    let mut device = Device::connect(broker.mqtt(), &device::connect(Version::V5, "overlapping"));
    for (filter, qos, identifier) in
        [("a/#", QoS::AtMostOnce, 7), ("a/+", QoS::ExactlyOnce, 300), ("+/b", QoS::AtLeastOnce, 268_435_455)]
    {
        device.subscribe_with(filter, SubscriptionOptions { qos, ..Default::default() }, Some(identifier));
    }
    let mut sender = Device::connect(broker.mqtt(), &device::connect(Version::V311, "sender"));
    sender.publish(device::message("a/b", "once", QoS::ExactlyOnce));
    let message = device.message();
    // The highest QoS of them [MQTT-3.3.4-2], all identifiers [MQTT-3.3.4-4].
    assert_eq!(message.qos, QoS::ExactlyOnce);
    let mut identifiers = message.properties.read().subscription_identifiers.to_vec();
    identifiers.sort_unstable();
    assert_eq!(identifiers, [7, 300, 268_435_455]);
    device.nothing_more();
}

#[test]
fn no_local_retain_as_published_and_retain_handling_are_obeyed() {
    let broker = Tidegate::broker("node1");
    let mut device = Device::connect(broker.mqtt(), &device::connect(Version::V5, "device"));
    let mut other = Device::connect(broker.mqtt(), &device::connect(Version::V5, "other"));
    let kept = |payload| mqtt::packet::Publish {
        retain: true,
        ..device::message("state", payload, QoS::AtLeastOnce)
    };
    other.publish(kept("before"));
    let quiet = SubscriptionOptions {
        qos: QoS::AtLeastOnce,
        no_local: true,
        retain_as_published: true,
        retain_handling: mqtt::packet::RetainHandling::DoNotSend,
    };
    // [MQTT-3.3.1-11]
    device.subscribe_with("state", quiet, None);
    device.nothing_more();
    // [MQTT-3.8.3-3]
    device.publish(kept("mine"));
    device.nothing_more();
    other.publish(kept("theirs"));
    let message = device.message();
    // [MQTT-3.3.1-13]
    assert_eq!((device::payload(&message).as_str(), message.retain), ("theirs", true));
    let if_new = SubscriptionOptions { retain_handling: mqtt::packet::RetainHandling::SendIfNew, ..quiet };
    // [MQTT-3.3.1-10]: it exists already
    device.subscribe_with("state", if_new, None);
    device.nothing_more();
    device.subscribe_with("state/#", if_new, None);
    assert_eq!(device::payload(&device.message()), "theirs");
}

#[test]
fn a_message_is_not_delivered_after_its_expiry_and_tells_what_is_left_before() {
    let broker = Tidegate::broker("node1");
    let keeping = Connect {
        clean_start: false,
        properties: ConnectProperties { session_expiry_interval: Some(3_600), ..Default::default() },
        ..device::connect(Version::V5, "away")
    };
    let mut away = Device::connect(broker.mqtt(), &keeping);
    away.subscribe("news", QoS::AtLeastOnce);
    away.goodbye();
    let mut sender = Device::connect(broker.mqtt(), &device::connect(Version::V5, "sender"));
    let with = |payload, seconds| mqtt::packet::Publish {
        properties: PublishProperties { message_expiry_interval: seconds, ..Default::default() }.into(),
        ..device::message("news", payload, QoS::AtLeastOnce)
    };
    sender.publish(with("old", Some(1)));
    sender.publish(with("fresh", Some(100)));
    sender.publish(with("for ever", None));
    let begun = crate::harness::wait::now();
    crate::harness::eventually("one second", || (begun.elapsed().as_millis() > 1_100).then_some(()));
    let mut back = Device::connect(broker.mqtt(), &keeping);
    // [MQTT-3.3.2-5], [MQTT-3.3.2-6]
    let message = back.message();
    assert_eq!(device::payload(&message), "fresh");
    let left = message.properties.message_expiry_interval().expect("what is left");
    assert!((80..100).contains(&left), "{left}");
    assert_eq!(device::payload(&back.message()), "for ever");
    back.nothing_more();
    assert_eq!(broker.metric("tidegate_broker_messages_dropped_total{rule=\"expired\"}"), 1.0);
}

/// Bytes that break the specification after a good CONNECT of version 5, the Reason Code of the answer, and the clause
/// that the event names.
const BROKEN: &[(&str, &[u8], ReasonCode, &str)] = &[
    ("both QoS bits", b"\x36\x05\x00\x01a\x00\x01", ReasonCode::MalformedPacket, "MQTT-3.3.1-4"),
    ("a packet type that is none", b"\x00\x00", ReasonCode::MalformedPacket, "2.1.2"),
    (
        "wrong flags of SUBSCRIBE",
        b"\x80\x07\x00\x01\x00\x00\x01a\x00",
        ReasonCode::MalformedPacket,
        "MQTT-3.8.1-1",
    ),
    ("SUBSCRIBE without filters", b"\x82\x03\x00\x01\x00", ReasonCode::ProtocolError, "MQTT-3.8.3-2"),
    ("packet identifier zero", b"\x32\x06\x00\x01a\x00\x00\x00", ReasonCode::ProtocolError, "MQTT-2.2.1-3"),
    ("a wildcard in a topic name", b"\x30\x04\x00\x01#\x00", ReasonCode::TopicNameInvalid, "MQTT-3.3.2-2"),
    (
        "a topic that is no UTF-8",
        b"\x30\x05\x00\x02\xc3\x28\x00",
        ReasonCode::MalformedPacket,
        "MQTT-1.5.4-1",
    ),
    ("U+0000 in a topic", b"\x30\x04\x00\x01\x00\x00", ReasonCode::MalformedPacket, "MQTT-1.5.4-2"),
    (
        "a second CONNECT",
        b"\x10\x0d\x00\x04MQTT\x05\x02\x00\x00\x00\x00\x00",
        ReasonCode::ProtocolError,
        "MQTT-3.1.0-2",
    ),
    ("a length of five bytes", b"\x30\xff\xff\xff\xff\x01", ReasonCode::MalformedPacket, "1.5.5"),
    (
        "an alias above the maximum of 32",
        b"\x30\x08\x00\x01a\x03\x23\x00\x21x",
        ReasonCode::TopicAliasInvalid,
        "MQTT-3.3.2-9",
    ),
    ("a PINGRESP from a client", b"\xd0\x00", ReasonCode::ProtocolError, ""),
];

/// [MQTT-4.13.1-1]
#[test]
fn a_broken_packet_gets_its_reason_code_and_its_clause_and_harms_nobody_else() {
    let broker = Tidegate::broker("node1");
    let mut bystander = Device::connect(broker.mqtt(), &device::connect(Version::V5, "bystander"));
    bystander.subscribe("t", QoS::AtLeastOnce);
    for (number, (what, bytes, reason, clause)) in BROKEN.iter().enumerate() {
        let clientid = format!("breaker-{number}");
        let mut breaker = Device::connect(broker.mqtt(), &device::connect(Version::V5, &clientid));
        breaker.send_bytes(bytes);
        let told = breaker.expect_disconnect(*reason);
        assert!(told.properties.reason_string.is_some(), "{what}");
        let event = broker.event("protocol_violation", |event| event["clientid"] == clientid);
        assert_eq!(event["reason"], reason.name(), "{what}: {event}");
        if !clause.is_empty() {
            assert_eq!(event["clause"], *clause, "{what}: {event}");
        }
        broker.process.err.line_with(&["protocol violation", &clientid]);
    }
    assert_eq!(broker.metric("tidegate_broker_protocol_violations_total"), BROKEN.len() as f64);
    let mut sender = Device::connect(broker.mqtt(), &device::connect(Version::V311, "sender"));
    sender.publish(device::message("t", "all is well", QoS::AtLeastOnce));
    assert_eq!(device::payload(&bystander.message()), "all is well");
}

/// [v3 MQTT-1.5.3-1], [v3 MQTT-2.2.2-2], [v3 MQTT-3.3.1-4]
#[test]
fn before_version_5_a_broken_packet_closes_the_connection_without_a_word() {
    let broker = Tidegate::broker("node1");
    // [v3 MQTT-4.8.0-1]: QoS 3, flags that a PUBACK has not, a topic that is no UTF-8.
    for (number, bytes) in
        [&b"\x36\x05\x00\x01a\x00\x01"[..], b"\x42\x02\x00\x01", b"\x30\x03\x00\x01\xff"].iter().enumerate()
    {
        let clientid = format!("breaker-{number}");
        let mut breaker = Device::connect(broker.mqtt(), &device::connect(Version::V311, &clientid));
        breaker.send_bytes(bytes);
        breaker.expect_end();
        broker.event("protocol_violation", |event| event["clientid"] == clientid);
    }
}

#[test]
fn a_stream_that_is_no_connect_is_closed() {
    let broker = Site::new("node1").broker("connect_timeout = \"200ms\"", "").start();
    let mut web = Device::dial(broker.mqtt());
    web.send_bytes(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    web.expect_end();
    // [MQTT-3.1.0-1]
    let mut early = Device::dial(broker.mqtt());
    early.send(&Packet::Pingreq);
    early.expect_end();
    // Silence has an end, too.
    let silent = Device::dial(broker.mqtt());
    let peer = silent.local().to_string();
    silent.expect_end();
    let event = broker.event("client_refused", |event| event["peer"] == peer);
    assert_eq!(event["reason"], "connect_timeout");
}

#[test]
fn an_unknown_protocol_version_is_refused_in_words_that_every_client_reads() {
    let broker = Tidegate::broker("node1");
    let mut newer = Device::dial(broker.mqtt());
    let peer = newer.local().to_string();
    // Level 6 with the name MQTT [MQTT-3.1.2-2]; the answer is return code 1 [v3 MQTT-3.1.2-2].
    newer.send_bytes(b"\x10\x0d\x00\x04MQTT\x06\x02\x00\x3c\x00\x00\x00");
    newer.expect_refusal(ReasonCode::UnsupportedProtocolVersion);
    let event = broker.event("client_refused", |event| event["peer"] == peer);
    assert_eq!(event["reason"], "unsupported_protocol_version", "{event}");
}

#[test]
fn a_client_gets_no_more_at_once_than_it_takes() {
    let broker = Tidegate::broker("node1");
    let connect = Connect {
        properties: ConnectProperties { receive_maximum: Some(2), ..Default::default() },
        ..device::connect(Version::V5, "narrow")
    };
    let mut narrow = Device::connect(broker.mqtt(), &connect);
    narrow.subscribe("t", QoS::AtLeastOnce);
    let mut sender = Device::connect(broker.mqtt(), &device::connect(Version::V5, "sender"));
    for number in 0..5 {
        sender.publish(device::message("t", &number.to_string(), QoS::AtLeastOnce));
    }
    let id = |packet| match packet {
        Packet::Publish(publish) => publish.packet_id.expect("an id"),
        other => panic!("{other:?}"),
    };
    // [MQTT-3.3.4-9]
    let (first, _second) = (id(narrow.receive()), id(narrow.receive()));
    narrow.nothing_more();
    narrow.send(&Packet::Puback(device::ack(first)));
    let _third = id(narrow.receive());
    narrow.nothing_more();
}

/// [MQTT-3.1.4-2]
#[test]
fn a_closed_listener_lets_no_anonymous_client_in() {
    let broker = Site::new("node1").broker("", "allow_anonymous = false").start();
    for version in [Version::V5, Version::V311, Version::V31] {
        let mut stranger = Device::dial(broker.mqtt());
        let connack = stranger.hello(&device::connect(version, "stranger"));
        assert_eq!(connack.reason, ReasonCode::NotAuthorized);
        let peer = stranger.local().to_string();
        // [MQTT-3.2.2-7], [v3 MQTT-3.2.2-5]
        stranger.expect_end();
        let event = broker.event("client_refused", |event| event["peer"] == peer);
        assert_eq!((&event["reason"], &event["clientid"]), (&"not_authorized".into(), &"stranger".into()));
    }
}

#[test]
fn a_filter_that_is_none_is_refused_in_suback_and_the_others_are_granted() {
    let broker = Tidegate::broker("node1");
    for (version, refused) in
        [(Version::V5, ReasonCode::TopicFilterInvalid), (Version::V311, ReasonCode::UnspecifiedError)]
    {
        let mut device = Device::connect(broker.mqtt(), &device::connect(version, "device"));
        // [MQTT-4.7.1-1], [MQTT-4.7.1-2]
        for filter in ["a/#/b", "a#", "+a/b", "a/b+"] {
            let suback = device.subscribe_with(filter, SubscriptionOptions::default(), None);
            assert_eq!(suback.reasons, [refused], "{filter}");
        }
        device.subscribe("a/+/#", QoS::AtLeastOnce);
        assert_eq!(broker.client("device").expect("connected").subscriptions_cnt, 1);
        device.goodbye();
    }
}

#[test]
fn every_filter_is_answered_in_its_order() {
    let broker = Tidegate::broker("node1");
    let mut device = Device::connect(broker.mqtt(), &device::connect(Version::V5, "device"));
    let id = mqtt::PacketId::new(900).expect("not zero");
    let filter = |filter: &'static str, qos| SubscribeFilter {
        filter: filter.into(),
        options: SubscriptionOptions { qos, ..Default::default() },
    };
    device.send(&Packet::Subscribe(Subscribe {
        packet_id: id,
        subscription_identifier: None,
        user_properties: Vec::new(),
        filters: vec![
            filter("a", QoS::ExactlyOnce),
            filter("#/b", QoS::AtMostOnce),
            filter("c", QoS::AtLeastOnce),
        ],
    }));
    let Packet::Suback(suback) = device.receive() else { panic!("no SUBACK") };
    // [MQTT-3.8.4-2], [MQTT-3.9.3-1]
    assert_eq!(suback.packet_id, id);
    assert_eq!(
        suback.reasons,
        [ReasonCode::GrantedQos2, ReasonCode::TopicFilterInvalid, ReasonCode::GrantedQos1]
    );
    device.send(&Packet::Unsubscribe(Unsubscribe {
        packet_id: id,
        user_properties: Vec::new(),
        filters: vec!["c".into(), "never/subscribed".into(), "a".into()],
    }));
    let Packet::Unsuback(unsuback) = device.receive() else { panic!("no UNSUBACK") };
    // [MQTT-3.11.3-1]
    assert_eq!(
        unsuback.reasons,
        [ReasonCode::Success, ReasonCode::NoSubscriptionExisted, ReasonCode::Success]
    );
}
