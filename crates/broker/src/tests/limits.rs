//! What one client may take, and what all may: rates, sizes, queues.

use mqtt::packet::Packet;
use mqtt::{QoS, ReasonCode, Version};
use runtime::events::Event;
use runtime::rate::Rate;

use super::rig::*;
use crate::config::{BrokerConfig, DropRule};
use crate::sim::world::World;
use crate::throttle::Flow;

fn world_with(change: impl FnOnce(&mut BrokerConfig)) -> World {
    let mut config = BrokerConfig::default();
    change(&mut config);
    World::new(1, 1, config)
}

fn published(w: &World) -> u64 {
    w.workers[0].metrics.received[0].get()
}

/// Nothing is dropped: what comes too fast is read later.
#[test]
fn a_client_that_publishes_faster_than_it_may_is_read_more_slowly() {
    let mut w = world_with(|c| c.listeners[0].rates.messages = Some(Rate::per_second(10.0)));
    let peer = Peer::clean(&mut w, "fast");
    for _ in 0..100 {
        peer.send(&mut w, Packet::Publish(message("a", QoS::AtMostOnce, 0, b"x")));
    }
    peer.send(&mut w, Packet::Pingreq);
    w.run();
    // a second of the rate, and the one that was too much
    assert_eq!(published(&w), 11);
    assert_eq!(w.workers[0].metrics.throttled.get(), 1);
    w.advance(seconds(5));
    assert!((50..=70).contains(&published(&w)), "{}", published(&w));
    assert_eq!(peer.read(&mut w), []);
    w.advance(seconds(6));
    assert_eq!(published(&w), 100);
    assert_eq!(peer.read(&mut w), [Packet::Pingresp]);
    assert_eq!(w.workers[0].metrics.throttled.get(), 0);
    let told: Vec<u64> = w
        .events()
        .iter()
        .filter_map(|e| match e {
            Event::ClientThrottled { limit, count, .. } if **limit == *"messages_rate" => Some(*count),
            _ => None,
        })
        .collect();
    assert!(told.len() < 10 && told.starts_with(&[1, 2, 4]), "{told:?}");
}

#[test]
fn a_client_within_its_rates_never_pauses() {
    let mut w = world_with(|c| {
        c.listeners[0].rates.messages = Some(Rate::per_second(10.0));
        c.listeners[0].rates.bytes = Some(Rate::bytes_per_second(10_000));
    });
    let peer = Peer::clean(&mut w, "slow");
    for _ in 0..30 {
        for _ in 0..9 {
            peer.send(&mut w, Packet::Publish(message("a", QoS::AtMostOnce, 0, &[0; 900])));
        }
        w.run();
        w.advance(seconds(1));
    }
    assert_eq!(published(&w), 270);
    for flow in Flow::ALL {
        assert_eq!(w.workers[0].metrics.throttles[flow as usize].get(), 0);
    }
}

/// Its silence is ours: what it sends is not read [MQTT-3.1.2-22].
#[test]
fn bytes_beyond_the_rate_wait_and_keep_alive_does_not_run_meanwhile() {
    let mut w = world_with(|c| c.listeners[0].rates.bytes = Some(Rate::bytes_per_second(1_000)));
    let mut connect = connect("big", true, 0);
    connect.keep_alive = 2;
    let (peer, _) = Peer::connect(&mut w, 0, connect);
    peer.send(&mut w, Packet::Publish(message("a", QoS::AtMostOnce, 0, &[0; 20_000])));
    for _ in 0..4 {
        peer.send(&mut w, Packet::Publish(message("a", QoS::AtMostOnce, 0, b"x")));
    }
    w.advance(seconds(10));
    assert!(!w.is_closed(peer.link), "it would have been silent for three keep alives");
    assert_eq!(published(&w), 0);
    w.advance(seconds(12));
    assert_eq!(published(&w), 5);
    assert!(w.workers[0].metrics.throttles[Flow::Bytes as usize].get() >= 1);
}

#[test]
fn a_connection_that_goes_while_it_pauses_leaves_nothing() {
    let mut w = world_with(|c| c.listeners[0].rates.messages = Some(Rate::per_second(1.0)));
    let peer = Peer::clean(&mut w, "fast");
    for _ in 0..5 {
        peer.send(&mut w, Packet::Publish(message("a", QoS::AtMostOnce, 0, b"x")));
    }
    w.run();
    w.reset(peer.link);
    w.advance(seconds(3));
    assert!(w.workers[0].paused.is_empty() && w.workers[0].conns.is_empty());
    assert_eq!(w.workers[0].metrics.throttled.get(), 0);
}

#[test]
fn above_the_accept_rate_a_client_is_told_to_come_again() {
    for (version, expected) in [(Version::V5, None), (Version::V311, Some(3)), (Version::V31, Some(3))] {
        let mut w = world(1);
        w.late = true;
        let peer = Peer::begin(&mut w, 0, mqtt::packet::Connect { version, ..connect("c", true, 0) });
        w.run();
        match expected {
            Some(code) => assert_eq!(w.read(peer.link), (vec![0x20, 2, 0, code], true)),
            None => match peer.read(&mut w).as_slice() {
                [Packet::Connack(c)] => assert_eq!(c.reason, ReasonCode::ConnectionRateExceeded),
                other => panic!("{other:?}"),
            },
        }
        assert_eq!(w.workers[0].late, 1);
        peer.cut(&mut w);
        w.advance(seconds(3));
        assert_eq!(w.workers[0].late, 0);
        assert_eq!(w.shared.registry.len(), 0);
    }
}

/// A flood of refusals is no flood of events.
#[test]
fn of_those_that_come_too_fast_one_in_a_second_is_told_of() {
    let mut w = world(1);
    w.late = true;
    for n in 0..50 {
        Peer::begin(&mut w, 0, connect(&n.to_string(), true, 0));
    }
    w.run();
    w.advance(seconds(2));
    Peer::begin(&mut w, 0, connect("x", true, 0));
    w.run();
    let told: Vec<_> = w.events().into_iter().filter(|e| matches!(e, Event::ClientRefused { .. })).collect();
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(matches!(&told[1], Event::ClientRefused { detail, .. } if detail.starts_with("and 49 more")));
}

/// Sockets with half a CONNECT hold little.
#[test]
fn a_connect_larger_than_its_bound_is_refused_as_soon_as_its_length_is_known() {
    let mut w = world_with(|c| c.limits.max_connect_size = 1_000);
    let large = |extra: usize| {
        let mut connect = connect("c", true, 0);
        connect.username = Some("u".repeat(extra).into());
        connect
    };
    let ok = Peer::begin(&mut w, 0, large(900));
    w.run();
    assert!(matches!(ok.read(&mut w).as_slice(), [Packet::Connack(c)] if c.reason == ReasonCode::Success));
    let link = w.open(0);
    // a fixed header that promises 1,024 bytes more
    w.write(link, &[0x10, 0x80, 0x08]);
    w.run();
    assert!(w.is_closed(link));
    assert!(
        w.events()
            .iter()
            .any(|e| matches!(e, Event::ProtocolViolation { reason, .. } if **reason == *"packet_too_large"))
    );
    // behind CONNECT it is max_packet_size that counts
    let big = Packet::Publish(message("a", QoS::AtLeastOnce, 1, &[0; 5_000]));
    assert!(matches!(ok.ask(&mut w, big).as_slice(), [Packet::Puback(_)]));
}

/// [MQTT-3.1.3-8]
#[test]
fn a_client_id_longer_than_its_bound_is_not_valid() {
    for (length, expected) in [(23, ReasonCode::Success), (24, ReasonCode::ClientIdentifierNotValid)] {
        let mut w = world_with(|c| c.limits.max_clientid_length = 23);
        let peer = Peer::begin(&mut w, 0, connect(&"c".repeat(length), true, 0));
        w.run();
        assert!(matches!(peer.read(&mut w).as_slice(), [Packet::Connack(c)] if c.reason == expected));
    }
}

/// A subscriber that takes nothing gets, when it takes again, what the rule has kept, the important first.
#[test]
fn queues_keep_what_the_operator_wants() {
    for (drop, expected) in [
        (DropRule::Newest, ["sent", "alarm0", "alarm1", "n0"]),
        (DropRule::Oldest, ["sent", "alarm0", "alarm1", "n5"]),
    ] {
        let mut w = world_with(|c| {
            c.max_queued_messages = 3;
            c.limits.queue_drop = drop;
            c.limits.queue_priorities = vec![("alarm/#".to_owned(), 7)];
        });
        let mut narrow = connect("sub", true, 0);
        narrow.properties.receive_maximum = Some(1);
        let (sub, _) = Peer::connect(&mut w, 0, narrow);
        sub.subscribe(&mut w, "#", QoS::AtLeastOnce);
        let publisher = Peer::clean(&mut w, "pub");
        let mut id = 0;
        let mut publish = |w: &mut World, topic: &str, text: &str| {
            id += 1;
            publisher.ask(w, Packet::Publish(message(topic, QoS::AtLeastOnce, id, text.as_bytes())));
        };
        publish(&mut w, "news", "sent");
        for n in 0..6 {
            publish(&mut w, "news", &format!("n{n}"));
            if n < 2 {
                publish(&mut w, "alarm/fire", &format!("alarm{n}"));
            }
        }
        let mut got = Vec::new();
        for _ in 0..4 {
            for packet in sub.read(&mut w) {
                if let Packet::Publish(p) = packet {
                    got.push(String::from_utf8_lossy(&p.payload).into_owned());
                    sub.send(&mut w, Packet::Puback(ack(p.packet_id.unwrap().get())));
                }
            }
            w.run();
        }
        assert_eq!(got, expected, "{drop:?}");
        let dropped = w
            .events()
            .iter()
            .any(|e| matches!(e, Event::MessageDropped { rule, .. } if **rule == *"queue_full"));
        assert!(dropped);
    }
}
