//! What CONNACK says of this broker, and what becomes of a client that does otherwise; Topic Aliases both ways.

use std::sync::Arc;

use mqtt::packet::{
    Connect, Packet, Publish, PublishProperties, RetainHandling, SubscribeFilter, SubscriptionOptions,
};
use mqtt::{QoS, ReasonCode, Version};
use runtime::events::Event;

use super::rig::*;
use crate::config::BrokerConfig;
use crate::sim::engine::Faults;
use crate::sim::world::World;

fn with(change: impl FnOnce(&mut BrokerConfig)) -> World {
    let mut config = BrokerConfig::default();
    change(&mut config);
    World::new(1, 1, config)
}

fn aliased(topic: &str, alias: u16, payload: &str) -> Packet<'static> {
    let properties = PublishProperties { topic_alias: Some(alias), ..Default::default() };
    Packet::Publish(Publish {
        properties: properties.into(),
        ..message(topic, QoS::AtMostOnce, 0, payload.as_bytes())
    })
}

fn goodbye(packets: &[Packet<'_>]) -> Option<ReasonCode> {
    match packets {
        [.., Packet::Disconnect(d)] => Some(d.reason),
        _ => None,
    }
}

fn refusals(w: &World) -> Vec<(String, u64)> {
    let refusal = |event| match event {
        Event::RequestRefused { reason, count, .. } => Some((reason.to_string(), count)),
        _ => None,
    };
    w.events().into_iter().filter_map(refusal).collect()
}

/// [MQTT-3.3.2-10], [MQTT-3.3.2-12]
#[test]
fn a_topic_alias_stands_for_what_the_client_said_last() {
    let mut w = world(2);
    let (sub, _) = Peer::connect(&mut w, 1, connect("sub", true, 0));
    sub.subscribe(&mut w, "#", QoS::AtMostOnce);
    let (publisher, connack) = Peer::connect(&mut w, 0, connect("pub", true, 0));
    assert_eq!(connack.properties.topic_alias_maximum, Some(32));
    for packet in [
        aliased("a", 1, "1"),
        aliased("", 1, "2"),
        aliased("b", 32, "3"),
        aliased("c", 1, "4"),
        aliased("", 1, "5"),
        aliased("", 32, "6"),
    ] {
        publisher.send(&mut w, packet);
    }
    w.run();
    let got: Vec<_> = sub
        .read(&mut w)
        .into_iter()
        .filter_map(|p| match p {
            Packet::Publish(p) => {
                assert_eq!(p.properties.topic_alias(), None, "an alias belongs to one hop");
                Some(format!("{}{}", p.topic, String::from_utf8_lossy(&p.payload)))
            }
            _ => None,
        })
        .collect();
    assert_eq!(got, ["a1", "a2", "b3", "c4", "c5", "b6"]);
}

/// CONNACK said how many there are; a reload says it to who comes after it.
#[test]
fn a_topic_alias_that_a_client_was_told_of_outlives_a_reload() {
    let mut w = world(1);
    let (old, _) = Peer::connect(&mut w, 0, connect("old", true, 0));
    w.shared.config.store(Arc::new(BrokerConfig { topic_alias_maximum: 0, ..BrokerConfig::default() }));
    w.advance(seconds(2));
    old.ask(&mut w, aliased("t", 32, "1"));
    assert!(!w.is_closed(old.link));
    let (new, _) = Peer::connect(&mut w, 0, connect("new", true, 0));
    new.ask(&mut w, aliased("t", 1, "1"));
    assert!(w.is_closed(new.link));
}

/// Above Topic Alias Maximum, and 0, are 0x94 [MQTT-3.3.2-9]; an alias without a meaning is 0x82 (3.3.2.3.4), also after a
/// reconnect [MQTT-3.3.2-7].
#[test]
fn a_topic_alias_that_must_not_be_ends_the_connection() {
    let mut w = with(|c| c.topic_alias_maximum = 2);
    let answer = |w: &mut World, packet| goodbye(&Peer::clean(w, "c").ask(w, packet));
    assert_eq!(answer(&mut w, aliased("a", 2, "")), None);
    assert_eq!(answer(&mut w, aliased("a", 3, "")), Some(ReasonCode::TopicAliasInvalid));
    assert_eq!(answer(&mut w, aliased("", 2, "")), Some(ReasonCode::ProtocolError));
    let peer = Peer::clean(&mut w, "c");
    // alias 0 cannot be encoded by us
    w.write(peer.link, b"\x30\x07\x00\x01a\x03\x23\x00\x00");
    w.run();
    assert_eq!(goodbye(&peer.read(&mut w)), Some(ReasonCode::TopicAliasInvalid), "[MQTT-3.3.2-8]");
    let mut w = with(|c| c.topic_alias_maximum = 0);
    let (_, connack) = Peer::connect(&mut w, 0, connect("c", true, 0));
    assert_eq!(connack.properties.topic_alias_maximum, None, "absent is 0");
    assert_eq!(answer(&mut w, aliased("a", 1, "")), Some(ReasonCode::TopicAliasInvalid));
}

/// Repeated topics come with an alias no higher than the client takes [MQTT-3.1.2-26], to one that takes none never
/// [MQTT-3.1.2-27]; the others of the same message are not touched by it.
/// [MQTT-3.3.2-11]
#[test]
fn repeated_topics_get_aliases_where_the_client_takes_them() {
    let mut w = world(1);
    let mut takes = connect("takes", true, 0);
    takes.properties.topic_alias_maximum = Some(1);
    let (takes, _) = Peer::connect(&mut w, 0, takes);
    let plain = Peer::clean(&mut w, "plain");
    let (old, _) = Peer::connect(&mut w, 0, Connect { version: Version::V311, ..connect("old", true, 0) });
    for peer in [takes, plain, old] {
        peer.subscribe(&mut w, "topic/#", QoS::AtLeastOnce);
    }
    let publisher = Peer::clean(&mut w, "pub");
    for (id, topic) in [(1, "topic/1"), (2, "topic/1"), (3, "topic/2"), (4, "topic/1")] {
        publisher.ask(&mut w, Packet::Publish(message(topic, QoS::AtLeastOnce, id, b"x")));
    }
    let mut got = |peer: Peer| -> Vec<(String, Option<u16>)> {
        let packets = peer.read(&mut w);
        let publish = |p| match p {
            Packet::Publish(p) => Some((p.topic.into_owned(), p.properties.topic_alias())),
            _ => None,
        };
        packets.into_iter().filter_map(publish).collect()
    };
    let of = |topic: &str, alias| (topic.to_owned(), alias);
    let aliased = [of("topic/1", None), of("topic/1", Some(1)), of("topic/2", None), of("", Some(1))];
    assert_eq!(got(takes), aliased);
    let whole = [of("topic/1", None), of("topic/1", None), of("topic/2", None), of("topic/1", None)];
    assert_eq!(got(plain), whole);
    assert_eq!(got(old), whole);
}

/// Aliases of a broker that gives none cost a client nothing that takes them.
#[test]
fn no_aliases_are_given_when_they_are_switched_off() {
    let mut w = with(|c| c.max_topic_aliases_out = 0);
    let mut takes = connect("takes", true, 0);
    takes.properties.topic_alias_maximum = Some(10);
    let (takes, _) = Peer::connect(&mut w, 0, takes);
    let (worker, id) = w.conn_id(takes.link);
    assert!(w.workers[worker].conns[id.slot as usize].aliases_out_mut().is_none());
}

/// A message that fits without a new alias and not with it is sent without [MQTT-3.1.2-24].
#[test]
fn an_alias_does_not_make_a_packet_too_large() {
    let mut w = world(1);
    let mut small = connect("small", true, 0);
    small.properties.topic_alias_maximum = Some(10);
    small.properties.maximum_packet_size = Some(40);
    let (small, _) = Peer::connect(&mut w, 0, small);
    small.subscribe(&mut w, "topic", QoS::AtMostOnce);
    let publisher = Peer::clean(&mut w, "pub");
    // 2 + 2 + 5 + 1 + 30 are 40
    for _ in 0..5 {
        publisher.ask(&mut w, Packet::Publish(message("topic", QoS::AtMostOnce, 0, &[b'x'; 30])));
    }
    assert_eq!(small.payloads(&mut w).len(), 5);
}

/// Maximum QoS is told [MQTT-3.2.2-9] and holds for PUBLISH [MQTT-3.2.2-11], for subscriptions, which are granted no more
/// [MQTT-3.2.2-10], and for wills [MQTT-3.2.2-12].
#[test]
fn no_qos_above_the_maximum_is_taken_or_granted() {
    let mut w = with(|c| c.maximum_qos = QoS::AtLeastOnce);
    let (peer, connack) = Peer::connect(&mut w, 0, connect("c", true, 0));
    assert_eq!(connack.properties.maximum_qos, Some(QoS::AtLeastOnce));
    match peer.subscribe(&mut w, "a", QoS::ExactlyOnce).as_slice() {
        [Packet::Suback(suback)] => assert_eq!(suback.reasons, [ReasonCode::GrantedQos1]),
        other => panic!("{other:?}"),
    }
    let got = peer.ask(&mut w, Packet::Publish(message("a", QoS::AtLeastOnce, 1, b"x")));
    assert_eq!(payloads(&got), ["x"]);
    let answer = peer.ask(&mut w, Packet::Publish(message("a", QoS::ExactlyOnce, 2, b"x")));
    assert_eq!(goodbye(&answer), Some(ReasonCode::QosNotSupported));
    let mut dying = connect("d", true, 0);
    dying.will = Some(mqtt::packet::Will { qos: QoS::ExactlyOnce, ..will("w", 0) });
    assert_eq!(Peer::connect(&mut w, 0, dying).1.reason, ReasonCode::QosNotSupported);
    let (_, connack) = Peer::connect(&mut world(1), 0, connect("c", true, 0));
    assert_eq!(connack.properties.maximum_qos, None, "2 is said by silence");
}

/// [MQTT-3.2.2-13], [MQTT-3.2.2-14]
#[test]
fn nothing_is_retained_where_that_is_not_available() {
    let mut w = with(|c| c.retain_available = false);
    let (peer, connack) = Peer::connect(&mut w, 0, connect("c", true, 0));
    assert_eq!(connack.properties.retain_available, Some(false));
    let kept = Publish { retain: true, ..message("a", QoS::AtMostOnce, 0, b"x") };
    assert_eq!(goodbye(&peer.ask(&mut w, Packet::Publish(kept))), Some(ReasonCode::RetainNotSupported));
    let mut dying = connect("d", true, 0);
    dying.will = Some(mqtt::packet::Will { retain: true, ..will("w", 0) });
    assert_eq!(Peer::connect(&mut w, 0, dying).1.reason, ReasonCode::RetainNotSupported);
    assert_eq!(w.keys(), Vec::<String>::new());
}

/// (3.2.2.3.11), (3.2.2.3.12): version 5 was told; before it each filter is answered.
#[test]
fn subscriptions_with_what_is_not_available_are_refused() {
    let mut w = with(|c| {
        c.wildcard_subscription_available = false;
        c.subscription_identifiers_available = false;
    });
    let (peer, connack) = Peer::connect(&mut w, 0, connect("c", true, 0));
    assert_eq!(connack.properties.wildcard_subscription_available, Some(false));
    assert_eq!(connack.properties.subscription_identifiers_available, Some(false));
    let answer = peer.subscribe(&mut w, "a/+", QoS::AtMostOnce);
    assert_eq!(goodbye(&answer), Some(ReasonCode::WildcardSubscriptionsNotSupported));
    let peer = Peer::clean(&mut w, "c");
    let numbered = Packet::Subscribe(mqtt::packet::Subscribe {
        packet_id: pid(1),
        subscription_identifier: Some(5),
        user_properties: Vec::new(),
        filters: vec![SubscribeFilter { filter: "a".into(), options: SubscriptionOptions::default() }],
    });
    assert_eq!(goodbye(&peer.ask(&mut w, numbered)), Some(ReasonCode::SubscriptionIdentifiersNotSupported));
    let (old, _) = Peer::connect(&mut w, 0, Connect { version: Version::V311, ..connect("old", true, 0) });
    match old.subscribe(&mut w, "a/#", QoS::AtMostOnce).as_slice() {
        [Packet::Suback(suback)] => assert_eq!(suback.reasons, [ReasonCode::UnspecifiedError]),
        other => panic!("{other:?}"),
    }
    assert_eq!(refusals(&w), [("wildcard".to_owned(), 1)]);
}

/// The keep alive of the server is used instead of the client's [MQTT-3.1.2-21], [MQTT-3.2.2-22].
#[test]
fn the_keep_alive_of_the_server_holds() {
    let told = |w: &mut World, keep_alive| {
        let (peer, connack) = Peer::connect(w, 0, Connect { keep_alive, ..connect("c", true, 0) });
        (peer, connack.properties.server_keep_alive)
    };
    let mut w = with(|c| c.server_keep_alive = Some(10));
    let (peer, server) = told(&mut w, 600);
    assert_eq!(server, Some(10));
    w.advance(seconds(14));
    assert_eq!(peer.read(&mut w), []);
    w.advance(seconds(3));
    assert_eq!(goodbye(&peer.read(&mut w)), Some(ReasonCode::KeepAliveTimeout));
    let mut w = with(|c| c.max_keep_alive = Some(60));
    assert_eq!(told(&mut w, 60).1, None);
    assert_eq!(told(&mut w, 61).1, Some(60));
    assert_eq!(told(&mut w, 0).1, Some(60), "none at all is longer than any");
    let old = |keep_alive| Connect { version: Version::V311, keep_alive, ..connect("old", true, 0) };
    assert_eq!(Peer::connect(&mut w, 0, old(60)).1.reason, ReasonCode::Success);
    for keep_alive in [61, 0] {
        let reason = Peer::connect(&mut w, 0, old(keep_alive)).1.reason;
        assert_eq!(reason, ReasonCode::ClientIdentifierNotValid, "it cannot be told another");
    }
}

/// [MQTT-3.1.2-28]
#[test]
fn response_information_is_for_clients_that_ask() {
    let mut w = with(|c| c.response_information = Some("answers/".into()));
    let mut told = |asked| {
        let mut connect = connect("c", true, 0);
        connect.properties.request_response_information = asked;
        Peer::connect(&mut w, 0, connect).1.properties.response_information
    };
    assert_eq!(told(None), None);
    assert_eq!(told(Some(false)), None);
    assert_eq!(told(Some(true)).as_deref(), Some("answers/"));
}

/// Reason Strings stand in acknowledgements, unless the client wants none [MQTT-3.1.2-29]; CONNACK and DISCONNECT may have them
/// all the same.
#[test]
fn reason_strings_are_for_clients_that_want_them() {
    let mut w = world(1);
    for wants in [None, Some(true), Some(false)] {
        let mut asks = connect("c", true, 0);
        asks.properties.request_problem_information = wants;
        let (peer, _) = Peer::connect(&mut w, 0, asks);
        let told = wants != Some(false);
        match peer.subscribe(&mut w, "a/#/b", QoS::AtMostOnce).as_slice() {
            [Packet::Suback(suback)] => assert_eq!(suback.properties.reason_string.is_some(), told),
            other => panic!("{other:?}"),
        }
        let secret = Packet::Publish(message("$SYS/x", QoS::AtLeastOnce, 1, b"x"));
        match peer.ask(&mut w, secret).as_slice() {
            [Packet::Puback(ack)] => {
                assert_eq!(ack.reason, ReasonCode::NotAuthorized);
                assert_eq!(ack.properties.reason_string.is_some(), told);
            }
            other => panic!("{other:?}"),
        }
        let pubrec = Packet::Publish(message("$SYS/x", QoS::ExactlyOnce, 2, b"x"));
        match peer.ask(&mut w, pubrec).as_slice() {
            [Packet::Pubrec(ack)] => assert_eq!(ack.properties.reason_string.is_some(), told),
            other => panic!("{other:?}"),
        }
    }
}

/// A Reason String does not make an answer larger than the client takes [MQTT-3.4.2-2], [MQTT-3.9.2-1].
/// [MQTT-3.5.2-2]
#[test]
fn a_reason_string_that_does_not_fit_is_left_out() {
    let mut w = world(1);
    let mut small = connect("c", true, 0);
    small.properties.maximum_packet_size = Some(20);
    let (peer, _) = Peer::connect(&mut w, 0, small);
    match peer.subscribe(&mut w, "a/#/b", QoS::AtMostOnce).as_slice() {
        [Packet::Suback(suback)] => assert_eq!(suback.properties.reason_string, None),
        other => panic!("{other:?}"),
    }
    match peer.ask(&mut w, Packet::Publish(message("$SYS/x", QoS::AtLeastOnce, 1, b"x"))).as_slice() {
        [Packet::Puback(ack)] => assert_eq!(ack.properties.reason_string, None),
        other => panic!("{other:?}"),
    }
    match peer.ask(&mut w, Packet::Publish(message("$SYS/x", QoS::ExactlyOnce, 2, b"x"))).as_slice() {
        [Packet::Pubrec(ack)] => assert_eq!(ack.properties.reason_string, None),
        other => panic!("{other:?}"),
    }
}

/// (3.3.2.3.2): looked at only when asked to.
#[test]
fn a_payload_is_compared_with_its_format_when_that_is_asked() {
    let publish = |w: &mut World, qos, payload: &[u8]| {
        let peer = Peer::clean(w, "c");
        peer.subscribe(w, "a", QoS::AtMostOnce);
        let properties = PublishProperties { payload_format_indicator: Some(true), ..Default::default() };
        let id = u16::from(qos != QoS::AtMostOnce);
        peer.ask(
            w,
            Packet::Publish(Publish { properties: properties.into(), ..message("a", qos, id, payload) }),
        )
    };
    let mut w = with(|c| c.check_payload_format = true);
    assert_eq!(payloads(&publish(&mut w, QoS::AtMostOnce, "ü".as_bytes())), ["ü"]);
    assert_eq!(publish(&mut w, QoS::AtMostOnce, b"\xff"), []);
    match publish(&mut w, QoS::AtLeastOnce, b"\xff").as_slice() {
        [Packet::Puback(ack)] => assert_eq!(ack.reason, ReasonCode::PayloadFormatInvalid),
        other => panic!("{other:?}"),
    }
    match publish(&mut w, QoS::ExactlyOnce, b"\xff").as_slice() {
        [Packet::Pubrec(ack)] => assert_eq!(ack.reason, ReasonCode::PayloadFormatInvalid),
        other => panic!("{other:?}"),
    }
    let mut dying = connect("d", true, 0);
    let mut bad = will("w", 0);
    bad.payload = b"\xff".as_slice().into();
    bad.properties.payload_format_indicator = Some(true);
    dying.will = Some(bad);
    assert_eq!(Peer::connect(&mut w, 0, dying).1.reason, ReasonCode::PayloadFormatInvalid);
    assert_eq!(refusals(&w).len(), 3);
    assert_eq!(publish(&mut world(1), QoS::AtMostOnce, b"\xff").len(), 1);
}

/// A message that no frame of the log holds is 0x95, which only DISCONNECT can say [MQTT-3.4.2-1], [MQTT-3.5.2-1].
#[test]
fn a_message_above_the_limit_of_the_engine_ends_the_connection() {
    for qos in [QoS::AtLeastOnce, QoS::ExactlyOnce] {
        for durable in [0, NEVER] {
            let mut w = with(|c| c.max_packet_size = 64 << 20);
            let (sub, _) = Peer::connect(&mut w, 0, connect("sub", false, NEVER));
            sub.subscribe(&mut w, "a", QoS::ExactlyOnce);
            let (publisher, _) = Peer::connect(&mut w, 0, connect("pub", true, durable));
            let most = w.shared.guarantees.max_frame;
            let large = Packet::Publish(message("a", qos, 1, &vec![0; most + 1]));
            assert_eq!(goodbye(&publisher.ask(&mut w, large)), Some(ReasonCode::PacketTooLarge));
        }
    }
}

/// A client that is refused again and again is told of at its first and then whenever their number has doubled.
#[test]
fn a_flood_of_refusals_is_no_flood_of_events() {
    let mut w = world(1);
    let peer = Peer::clean(&mut w, "c");
    for _ in 0..9 {
        peer.send(&mut w, Packet::Publish(message("$SYS/x", QoS::AtMostOnce, 0, b"x")));
    }
    w.run();
    let counts: Vec<u64> = refusals(&w).into_iter().map(|(_, count)| count).collect();
    assert_eq!(counts, [1, 2, 4, 8]);
    assert_eq!(w.workers[0].metrics.refused_requests[crate::refusal::Refusal::SystemTopic as usize].get(), 9);
}

/// The order of user properties is kept, and of equal names too [MQTT-3.3.2-18]; what a request carries beside them goes to the
/// responder unchanged [MQTT-3.3.2-15], [MQTT-3.3.2-16], [MQTT-3.3.2-20].
#[test]
fn properties_of_a_message_arrive_as_they_were_sent() {
    let mut w = world(2);
    let (sub, _) = Peer::connect(&mut w, 1, connect("sub", true, 0));
    sub.subscribe(&mut w, "a", QoS::AtMostOnce);
    let publisher = Peer::clean(&mut w, "pub");
    let pair = |name: &str, value: &str| (name.to_owned().into(), value.to_owned().into());
    let properties = PublishProperties {
        payload_format_indicator: Some(true),
        response_topic: Some("answers/1".into()),
        correlation_data: Some(b"\0\xff".as_slice().into()),
        user_properties: vec![pair("b", "1"), pair("a", "2"), pair("b", "1"), pair("b", "0")],
        content_type: Some("text/plain".into()),
        ..Default::default()
    };
    let sent = Publish { properties: properties.clone().into(), ..message("a", QoS::AtMostOnce, 0, b"x") };
    publisher.ask(&mut w, Packet::Publish(sent));
    match sub.read(&mut w).as_slice() {
        [Packet::Publish(got)] => assert_eq!(got.properties, properties.into()),
        other => panic!("{other:?}"),
    }
}

/// No mechanism is offered: a method in CONNECT is 0x8C [MQTT-4.12.0-1], AUTH later is 0x82 whatever it says [MQTT-4.12.0-6].
#[test]
fn authentication_methods_are_refused() {
    let mut w = world(1);
    let mut asks = connect("c", true, 0);
    asks.properties.authentication_method = Some("SCRAM-SHA-256".into());
    let (peer, connack) = Peer::connect(&mut w, 0, asks);
    assert_eq!(connack.reason, ReasonCode::BadAuthenticationMethod);
    assert!(w.is_closed(peer.link));
    let again = mqtt::packet::Auth {
        reason: ReasonCode::ReAuthenticate,
        authentication_method: Some("SCRAM-SHA-256".into()),
        authentication_data: None,
        reason_string: None,
        user_properties: Vec::new(),
    };
    let peer = Peer::clean(&mut w, "c");
    assert_eq!(goodbye(&peer.ask(&mut w, Packet::Auth(again))), Some(ReasonCode::ProtocolError));
    let peer = Peer::clean(&mut w, "c");
    // AUTH without a method cannot be encoded by us
    w.write(peer.link, b"\xf0\x02\x18\x00");
    w.run();
    assert_eq!(goodbye(&peer.read(&mut w)), Some(ReasonCode::ProtocolError));
}

/// Clients of MQTT 3.1 are served; their identifiers may be longer than the 23 characters of that version, as with Mosquitto.
#[test]
fn clients_of_version_3_1_are_served() {
    let mut w = world(1);
    let old = |client_id: &str, clean| Connect { version: Version::V31, ..connect(client_id, clean, 0) };
    let (sub, connack) = Peer::connect(&mut w, 0, old("an identifier of more than 23 characters", false));
    assert_eq!(connack.reason, ReasonCode::Success);
    sub.subscribe(&mut w, "a/+", QoS::ExactlyOnce);
    let (publisher, _) = Peer::connect(&mut w, 0, old("p", true));
    for (id, qos) in [(0, QoS::AtMostOnce), (1, QoS::AtLeastOnce), (2, QoS::ExactlyOnce)] {
        let answers = publisher.ask(&mut w, Packet::Publish(message("a/b", qos, id, b"x")));
        assert_eq!(answers.len(), usize::from(id > 0));
    }
    assert_eq!(sub.payloads(&mut w).len(), 3);
    sub.cut(&mut w);
    publisher.ask(&mut w, Packet::Publish(message("a/b", QoS::AtLeastOnce, 3, b"while away")));
    let back = Peer::begin(&mut w, 0, old("an identifier of more than 23 characters", false));
    w.run();
    let got = payloads(&back.read(&mut w));
    assert_eq!(got.last().map(String::as_str), Some("while away"), "{got:?}");
    let (_, connack) = Peer::connect(&mut w, 0, old("", true));
    assert_eq!(connack.reason, ReasonCode::ClientIdentifierNotValid);
}

/// A subscription whose record finds no place in the engine is answered with a word that SUBACK has [MQTT-3.9.3-2].
#[test]
fn a_suback_never_says_what_it_cannot() {
    let mut w = world(1);
    let (sub, _) = Peer::connect(&mut w, 0, connect("sub", false, NEVER));
    w.fail_next(|op| matches!(op, engine::Op::Put { .. }), engine::EngineError::TooLarge);
    let options = SubscriptionOptions { retain_handling: RetainHandling::DoNotSend, ..Default::default() };
    match sub.ask(&mut w, subscribe(1, &[("a", options)])).as_slice() {
        [Packet::Suback(suback)] => assert_eq!(suback.reasons, [ReasonCode::QuotaExceeded]),
        other => panic!("{other:?}"),
    }
    w.set_faults(Faults::default());
}

/// What CONNACK said was there is there until the connection ends; who comes after a reload is told anew.
#[test]
fn what_a_client_was_told_is_available_outlives_a_reload() {
    let mut w = world(1);
    let (old, _) = Peer::connect(&mut w, 0, connect("old", true, 0));
    let less = BrokerConfig {
        maximum_qos: QoS::AtMostOnce,
        retain_available: false,
        wildcard_subscription_available: false,
        ..BrokerConfig::default()
    };
    w.shared.config.store(Arc::new(less));
    w.advance(seconds(2));
    let mut kept = message("t", QoS::ExactlyOnce, 1, b"1");
    kept.retain = true;
    old.ask(&mut w, Packet::Publish(kept.clone()));
    old.subscribe(&mut w, "t/+", QoS::AtLeastOnce);
    assert!(!w.is_closed(old.link));
    let (new, connack) = Peer::connect(&mut w, 0, connect("new", true, 0));
    assert_eq!(connack.properties.maximum_qos, Some(QoS::AtMostOnce));
    let answer = new.ask(&mut w, Packet::Publish(kept));
    assert_eq!(goodbye(&answer), Some(ReasonCode::QosNotSupported), "[MQTT-3.2.2-11]");
}
