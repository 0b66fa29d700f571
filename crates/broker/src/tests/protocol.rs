//! What is answered to each packet, right or wrong.

use mqtt::packet::{
    Connect, Disconnect, DisconnectProperties, Packet, Publish, PublishProperties, SubscriptionOptions,
};
use mqtt::{QoS, ReasonCode, Version};
use runtime::events::Event;

use super::rig::*;
use crate::config::BrokerConfig;
use crate::sim::world::World;

/// Reason and clause of every breach that was told.
fn breaches(w: &World) -> Vec<(String, String)> {
    let breach = |event| match event {
        Event::ProtocolViolation { reason, clause, .. } => {
            Some((reason.to_string(), clause.map(|c| c.to_string()).unwrap_or_default()))
        }
        _ => None,
    };
    w.events().into_iter().filter_map(breach).collect()
}

fn goodbye(packets: &[Packet<'_>]) -> Option<ReasonCode> {
    match packets {
        [Packet::Disconnect(d)] => Some(d.reason),
        _ => None,
    }
}

/// A first packet that is not CONNECT closes the connection without a word [MQTT-3.1.0-1].
/// [v3 MQTT-3.1.0-1]
#[test]
fn the_first_packet_must_be_connect() {
    let mut w = world(1);
    let peer = Peer { link: w.open(0), version: Version::V311 };
    assert_eq!(peer.ask(&mut w, Packet::Pingreq), []);
    assert!(w.is_closed(peer.link));
    assert_eq!(breaches(&w), [("protocol_error".to_owned(), "MQTT-3.1.0-1".to_owned())]);
}

/// [MQTT-3.1.0-2]
#[test]
fn a_second_connect_ends_the_connection() {
    let mut w = world(1);
    let peer = Peer::clean(&mut w, "c");
    let answer = peer.ask(&mut w, Packet::Connect(Box::new(connect("c", true, 0))));
    assert_eq!(goodbye(&answer), Some(ReasonCode::ProtocolError));
    assert!(w.is_closed(peer.link));
    assert_eq!(breaches(&w), [("protocol_error".to_owned(), "MQTT-3.1.0-2".to_owned())]);
}

/// A protocol level nobody speaks is answered with return code 1 [v3 MQTT-3.1.2-2], which is all that any version can read.
#[test]
fn an_unknown_protocol_level_is_answered() {
    let mut w = world(1);
    let link = w.open(0);
    w.write(link, b"\x10\x0d\x00\x04MQTT\x09\x02\x00\x00\x00\x01x");
    w.run();
    assert_eq!(w.read(link), (vec![0x20, 2, 0, 1], true));
}

/// [MQTT-3.1.3-8] of version 3.1.1; version 5 makes an id up and tells it [MQTT-3.1.3-6], [MQTT-3.1.3-7].
/// [v3 MQTT-3.1.3-7], [v3 MQTT-3.1.3-9]
#[test]
fn an_empty_client_id_needs_a_clean_session_before_version_5() {
    let mut w = world(1);
    let v3 = Connect { version: Version::V311, ..connect("", false, 0) };
    let (peer, connack) = Peer::connect(&mut w, 0, v3);
    assert_eq!(connack.reason, ReasonCode::ClientIdentifierNotValid);
    assert!(w.is_closed(peer.link));
    let v3 = Connect { version: Version::V311, ..connect("", true, 0) };
    assert_eq!(Peer::connect(&mut w, 0, v3).1.reason, ReasonCode::Success);
    let (_, connack) = Peer::connect(&mut w, 0, connect("", false, 0));
    assert!(connack.properties.assigned_client_identifier.is_some_and(|id| !id.is_empty()));
}

/// [MQTT-3.2.2-2], [MQTT-3.2.2-3]
#[test]
fn session_present_says_whether_there_was_one() {
    let mut w = world(2);
    for (clean, expiry, present) in
        [(false, 100, false), (false, 100, true), (true, 100, false), (false, 0, true), (false, 0, false)]
    {
        let (peer, connack) = Peer::connect(&mut w, 1, connect("c", clean, expiry));
        assert_eq!(connack.session_present, present, "{clean} {expiry}");
        peer.cut(&mut w);
    }
}

/// A broker with a limit of its own tells the one in force [MQTT-3.2.2-21 and 3.2.2.3.2].
#[test]
fn the_session_expiry_in_force_is_told() {
    let config = BrokerConfig { max_session_expiry: 60, ..BrokerConfig::default() };
    let mut w = World::new(1, 1, config);
    let (_, connack) = Peer::connect(&mut w, 0, connect("a", true, 61));
    assert_eq!(connack.properties.session_expiry_interval, Some(60));
    let (_, connack) = Peer::connect(&mut w, 0, connect("b", true, 60));
    assert_eq!(connack.properties.session_expiry_interval, None);
}

/// The time for CONNECT counts from the first moment, however slowly its bytes come.
#[test]
fn a_connect_that_trickles_in_is_not_waited_for() {
    let mut w = world(1);
    let link = w.open(0);
    for byte in b"\x10\x7f\x00\x04MQTT\x04\x02\x00\x3c" {
        w.write(link, &[*byte]);
        w.advance(seconds(1));
    }
    assert!(w.is_closed(link));
}

/// One and a half times the keep alive [MQTT-3.1.2-22], and not before.
#[test]
fn a_client_that_is_silent_for_one_and_a_half_keep_alives_is_disconnected() {
    let mut w = world(1);
    let (peer, _) = Peer::connect(&mut w, 0, Connect { keep_alive: 10, ..connect("c", true, 0) });
    w.advance(seconds(14));
    assert_eq!(peer.ask(&mut w, Packet::Pingreq), [Packet::Pingresp]);
    w.advance(seconds(14));
    assert_eq!(peer.read(&mut w), []);
    w.advance(seconds(3));
    assert_eq!(goodbye(&peer.read(&mut w)), Some(ReasonCode::KeepAliveTimeout));
}

/// Also where the engine took longer to open the session than a CONNECT may take.
#[test]
fn keep_alive_begins_when_the_session_is_opened() {
    let mut w = world(1);
    w.pause(0, true);
    let peer = Peer::begin(&mut w, 0, Connect { keep_alive: 20, ..connect("c", true, 100) });
    w.advance(seconds(15));
    w.pause(0, false);
    w.run();
    assert!(matches!(peer.read(&mut w).as_slice(), [Packet::Connack(_)]));
    w.advance(seconds(33));
    assert_eq!(goodbye(&peer.read(&mut w)), Some(ReasonCode::KeepAliveTimeout));
}

/// A client that is not read from cannot be blamed for its silence.
#[test]
fn keep_alive_does_not_run_while_the_broker_does_not_read() {
    let mut w = world(1);
    let keep_alive = Connect { keep_alive: 4, ..connect("c", true, 100) };
    let (peer, _) = Peer::connect(&mut w, 0, keep_alive);
    w.pause(0, true);
    peer.send(&mut w, subscribe(1, &[("a", SubscriptionOptions::default())]));
    w.run();
    for _ in 0..10 {
        peer.send(&mut w, Packet::Pingreq);
        w.advance(seconds(2));
    }
    assert!(!w.is_closed(peer.link));
    w.pause(0, false);
    w.run();
    assert!(matches!(peer.read(&mut w).as_slice(), [Packet::Suback(_), rest @ ..] if rest.len() == 10));
    w.advance(seconds(8));
    assert_eq!(goodbye(&peer.read(&mut w)), Some(ReasonCode::KeepAliveTimeout));
}

/// More than Receive Maximum at once is 0x93 [MQTT-3.3.4-9].
#[test]
fn more_messages_than_receive_maximum_end_the_connection() {
    let config = BrokerConfig { receive_maximum: 2, ..BrokerConfig::default() };
    let mut w = World::new(1, 1, config);
    let (peer, connack) = Peer::connect(&mut w, 0, connect("c", true, 0));
    assert_eq!(connack.properties.receive_maximum, Some(2));
    for id in 1..=2 {
        let answer = peer.ask(&mut w, Packet::Publish(message("a", QoS::ExactlyOnce, id, b"x")));
        assert!(matches!(answer.as_slice(), [Packet::Pubrec(_)]));
    }
    let answer = peer.ask(&mut w, Packet::Publish(message("a", QoS::ExactlyOnce, 3, b"x")));
    assert_eq!(goodbye(&answer), Some(ReasonCode::ReceiveMaximumExceeded));
}

/// A packet above our Maximum Packet Size is 0x95 as soon as its length is known [MQTT-3.2.2-15].
#[test]
fn a_packet_that_is_too_large_ends_the_connection() {
    let config = BrokerConfig { max_packet_size: 200, ..BrokerConfig::default() };
    let mut w = World::new(1, 1, config);
    let (peer, connack) = Peer::connect(&mut w, 0, connect("c", true, 0));
    assert_eq!(connack.properties.maximum_packet_size, Some(200));
    w.write(peer.link, &[0x30, 0xff, 0x7f]);
    w.run();
    assert_eq!(goodbye(&peer.read(&mut w)), Some(ReasonCode::PacketTooLarge));
}

/// A message above the client's Maximum Packet Size is not sent, and the others are [MQTT-3.1.2-24], [MQTT-3.1.2-25].
#[test]
fn a_message_that_is_too_large_for_a_client_is_passed_over() {
    let mut w = world(1);
    let mut narrow = connect("sub", true, 0);
    narrow.properties.maximum_packet_size = Some(40);
    narrow.properties.receive_maximum = Some(1);
    let (sub, _) = Peer::connect(&mut w, 0, narrow);
    sub.subscribe(&mut w, "a", QoS::AtLeastOnce);
    let publisher = Peer::clean(&mut w, "pub");
    publisher.ask(&mut w, Packet::Publish(message("a", QoS::AtLeastOnce, 1, &[b'x'; 50])));
    publisher.ask(&mut w, Packet::Publish(message("a", QoS::AtLeastOnce, 2, b"small")));
    assert_eq!(sub.payloads(&mut w), ["small"]);
}

/// [MQTT-3.10.4-4], [MQTT-3.11.3-2]: every filter is answered, in order, with what became of it.
#[test]
fn each_filter_is_answered_in_its_place() {
    let mut w = world(1);
    let peer = Peer::clean(&mut w, "c");
    let options = |qos| SubscriptionOptions { qos, ..Default::default() };
    let filters = [
        ("a", options(QoS::ExactlyOnce)),
        ("b/#/c", options(QoS::AtMostOnce)),
        ("$share/g/a", options(QoS::AtMostOnce)),
        ("b", options(QoS::AtLeastOnce)),
    ];
    let answer = peer.ask(&mut w, subscribe(7, &filters));
    let expected = [
        ReasonCode::GrantedQos2,
        ReasonCode::TopicFilterInvalid,
        ReasonCode::Success,
        ReasonCode::GrantedQos1,
    ];
    assert!(
        matches!(answer.as_slice(), [Packet::Suback(s)] if s.packet_id == pid(7) && s.reasons == expected),
        "{answer:?}"
    );
    let reasons = |answer: Vec<Packet<'static>>| match answer.as_slice() {
        [Packet::Unsuback(u)] => u.reasons.clone(),
        other => panic!("{other:?}"),
    };
    assert_eq!(reasons(peer.unsubscribe(&mut w, "a")), [ReasonCode::Success]);
    assert_eq!(reasons(peer.unsubscribe(&mut w, "a")), [ReasonCode::NoSubscriptionExisted]);
}

/// A session that ends with its connection cannot be made to last by DISCONNECT (3.14.2.2.2).
#[test]
fn disconnect_cannot_raise_an_expiry_of_0() {
    let mut w = world(1);
    let peer = Peer::clean(&mut w, "c");
    let properties = DisconnectProperties { session_expiry_interval: Some(5), ..Default::default() };
    let answer = peer.ask(&mut w, Packet::Disconnect(Disconnect { reason: ReasonCode::Success, properties }));
    assert_eq!(goodbye(&answer), Some(ReasonCode::ProtocolError));
}

/// The time a message has waited is taken off its interval [MQTT-3.3.2-6]; what is too old is not delivered [MQTT-3.3.2-5].
#[test]
fn a_message_gets_older_while_it_waits() {
    let mut w = world(1);
    let (sub, _) = Peer::connect(&mut w, 0, connect("sub", false, NEVER));
    sub.subscribe(&mut w, "a", QoS::AtLeastOnce);
    sub.cut(&mut w);
    let publisher = Peer::clean(&mut w, "pub");
    for (id, seconds) in [(1, 5), (2, 100)] {
        let properties = PublishProperties { message_expiry_interval: Some(seconds), ..Default::default() };
        let m = Publish { properties: properties.into(), ..message("a", QoS::AtLeastOnce, id, b"x") };
        publisher.ask(&mut w, Packet::Publish(m));
    }
    w.advance(seconds(10));
    let sub = Peer::begin(&mut w, 0, connect("sub", false, NEVER));
    w.run();
    let left: Vec<_> = sub
        .read(&mut w)
        .into_iter()
        .filter_map(|p| match p {
            Packet::Publish(p) => p.properties.message_expiry_interval(),
            _ => None,
        })
        .collect();
    assert_eq!(left, [90]);
}

/// A client that does not read its socket loses QoS 0 only; QoS 1 waits, up to the bound of its queue.
#[test]
fn a_client_that_does_not_read_loses_qos_0_first() {
    let config = BrokerConfig { max_outbound_bytes: 100, max_queued_messages: 2, ..BrokerConfig::default() };
    let mut w = World::new(1, 1, config);
    let sub = Peer::clean(&mut w, "sub");
    sub.subscribe(&mut w, "a", QoS::AtLeastOnce);
    w.set_window(sub.link, 0);
    let publisher = Peer::clean(&mut w, "pub");
    publisher.ask(&mut w, Packet::Publish(message("a", QoS::AtMostOnce, 0, &[b'0'; 120])));
    publisher.ask(&mut w, Packet::Publish(message("a", QoS::AtMostOnce, 0, b"lost")));
    for (id, payload) in [(1, b"1"), (2, b"2"), (3, b"3")] {
        publisher.ask(&mut w, Packet::Publish(message("a", QoS::AtLeastOnce, id, payload)));
    }
    w.set_window(sub.link, usize::MAX);
    w.run();
    let got = sub.payloads(&mut w);
    assert_eq!(got[1..], ["1".to_owned(), "2".to_owned()], "{got:?}");
}

/// No Local holds for what is retained as well: it is an application message of this client [MQTT-3.8.3-3].
#[test]
fn no_local_keeps_a_clients_own_retained_message_away() {
    let mut w = world(1);
    let peer = Peer::clean(&mut w, "c");
    peer.ask(&mut w, Packet::Publish(Publish { retain: true, ..message("a", QoS::AtMostOnce, 0, b"own") }));
    let options = SubscriptionOptions { no_local: true, ..Default::default() };
    assert_eq!(payloads(&peer.ask(&mut w, subscribe(1, &[("a", options)]))), [""; 0]);
    let other = Peer::clean(&mut w, "d");
    assert_eq!(payloads(&other.ask(&mut w, subscribe(1, &[("a", options)]))), ["own"]);
}

/// A client that reads slowly, and never all of it, holds no more than its outbound buffer; QoS 1 does not wait behind a stream of
/// QoS 0 for ever.
#[test]
fn a_client_that_never_reads_the_last_byte_holds_little_and_gets_its_messages() {
    let config = BrokerConfig { max_outbound_bytes: 100_000, ..BrokerConfig::default() };
    let mut w = World::new(1, 1, config);
    let sub = Peer::clean(&mut w, "sub");
    sub.subscribe(&mut w, "a", QoS::AtLeastOnce);
    let publisher = Peer::clean(&mut w, "pub");
    let mut got = Vec::new();
    w.set_window(sub.link, 0);
    for n in 0..40u16 {
        for _ in 0..20 {
            publisher.send(&mut w, Packet::Publish(message("a", QoS::AtMostOnce, 0, &[b'0'; 5_000])));
        }
        if n == 10 {
            publisher.send(&mut w, Packet::Publish(message("a", QoS::AtLeastOnce, 1, b"one")));
        }
        w.run();
        w.set_window(sub.link, 60_000);
        w.run();
        got.extend(w.read(sub.link).0);
        let most = w.workers[0].conns.iter().map(|(_, c)| c.out.len()).max().unwrap();
        assert!(most < 400_000, "{most} bytes in memory");
    }
    assert!(got.windows(3).any(|b| b == b"one"));
}
