//! Shared subscriptions (4.8.2) of sessions that end with their connections.

use mqtt::packet::{Packet, SubscriptionOptions};
use mqtt::{QoS, ReasonCode, Version};

use super::rig::*;
use crate::config::{BrokerConfig, Strategy};
use crate::sim::world::World;

pub(super) fn with(strategy: Strategy, workers: usize) -> World {
    let config = BrokerConfig { shared_subscription_strategy: strategy, ..BrokerConfig::default() };
    World::new(1, workers, config)
}

/// `count` clients of one group on `a/#`, on the workers in turn.
fn members(w: &mut World, count: usize, qos: QoS) -> Vec<Peer> {
    let workers = w.workers.len();
    let peer = |n: usize| {
        let (peer, connack) = Peer::connect(w, n % workers, connect(&format!("m{n}"), true, 0));
        assert_eq!(connack.properties.shared_subscription_available, Some(true), "(3.2.2.3.13)");
        match peer.subscribe(w, "$share/g/a/#", qos).as_slice() {
            [Packet::Suback(s)] => assert!(s.reasons.iter().all(|r| !r.is_error())),
            other => panic!("{other:?}"),
        }
        peer
    };
    (0..count).map(peer).collect()
}

/// Publishes `from..to`, one after the other, with QoS 1; the answers' reasons.
fn publish(w: &mut World, publisher: Peer, numbers: std::ops::Range<u16>) -> Vec<ReasonCode> {
    let mut reasons = Vec::new();
    for n in numbers {
        let payload = n.to_string();
        let answer = publisher.ask(
            w,
            Packet::Publish(message(&format!("a/{}", n % 5), QoS::AtLeastOnce, n, payload.as_bytes())),
        );
        reasons.extend(answer.iter().filter_map(|p| match p {
            Packet::Puback(ack) => Some(ack.reason),
            _ => None,
        }));
    }
    reasons
}

/// What each has got, and acknowledges it.
fn read(w: &mut World, members: &[Peer]) -> Vec<Vec<String>> {
    let mut all = Vec::new();
    for member in members {
        let packets = member.read(w);
        for packet in &packets {
            if let Packet::Publish(p) = packet
                && p.qos == QoS::AtLeastOnce
            {
                member.send(w, Packet::Puback(ack(p.packet_id.unwrap().get())));
            }
        }
        all.push(payloads(&packets));
    }
    w.run();
    all
}

fn sorted(all: &[Vec<String>]) -> Vec<u16> {
    let mut numbers: Vec<u16> = all.iter().flatten().map(|p| p.parse().unwrap()).collect();
    numbers.sort_unstable();
    numbers
}

/// One member gets each message, whatever the strategy, the QoS and the workers (4.8.2).
#[test]
fn each_message_goes_to_one_member() {
    for (name, strategy) in Strategy::NAMES {
        for (workers, qos) in [(1, QoS::AtLeastOnce), (3, QoS::AtLeastOnce), (3, QoS::AtMostOnce)] {
            let mut w = with(strategy, workers);
            let members = members(&mut w, 4, qos);
            let publisher = Peer::clean(&mut w, "pub");
            assert!(publish(&mut w, publisher, 1..41).iter().all(|r| *r == ReasonCode::Success));
            let got = read(&mut w, &members);
            assert_eq!(sorted(&got), (1..41).collect::<Vec<_>>(), "{name}");
            let counts: Vec<usize> = got.iter().map(Vec::len).collect();
            match strategy {
                Strategy::RoundRobin => assert_eq!(counts, [10, 10, 10, 10]),
                // one publisher
                Strategy::Sticky | Strategy::HashClientid => {
                    assert_eq!(counts.iter().filter(|c| **c > 0).count(), 1, "{name}");
                }
                Strategy::HashTopic => {
                    for topic in 0..5u16 {
                        let has = |p: &String| p.parse::<u16>().unwrap() % 5 == topic;
                        assert_eq!(got.iter().filter(|g| g.iter().any(has)).count(), 1, "one member a topic");
                    }
                }
                Strategy::Random | Strategy::LeastInflight => {}
            }
        }
    }
}

/// Whoever acknowledges nothing gets no more than others under way.
#[test]
fn least_inflight_spares_who_is_slow() {
    let mut w = with(Strategy::LeastInflight, 2);
    let members = members(&mut w, 2, QoS::AtLeastOnce);
    let publisher = Peer::clean(&mut w, "pub");
    let (mut quick, mut slow) = (0, 0);
    for n in 1..21 {
        publish(&mut w, publisher, n..n + 1);
        quick += read(&mut w, &members[1..])[0].len();
        slow += members[0].payloads(&mut w).len();
    }
    assert!((quick, slow) == (19, 1) || (quick, slow) == (18, 2), "{quick} and {slow}");
}

/// A group of its own strategy beside the default.
#[test]
fn a_group_may_have_a_strategy_of_its_own() {
    let config = BrokerConfig {
        shared_subscription_groups: vec![("g".to_owned(), Strategy::Sticky)],
        ..BrokerConfig::default()
    };
    let mut w = World::new(1, 1, config);
    let sticky = members(&mut w, 3, QoS::AtLeastOnce);
    let round: Vec<Peer> = (0..3)
        .map(|n| {
            let peer = Peer::clean(&mut w, &format!("r{n}"));
            peer.subscribe(&mut w, "$share/other/a/#", QoS::AtLeastOnce);
            peer
        })
        .collect();
    let publisher = Peer::clean(&mut w, "pub");
    publish(&mut w, publisher, 1..10);
    assert_eq!(read(&mut w, &sticky).iter().filter(|g| !g.is_empty()).count(), 1);
    assert!(read(&mut w, &round).iter().all(|g| g.len() == 3));
}

/// The same filter shared and not: two subscriptions, two copies; a member of two groups gets one from each (4.8.2).
#[test]
fn a_plain_and_two_shared_subscriptions_are_three_copies() {
    let mut w = world(1);
    let peer = Peer::clean(&mut w, "c");
    for filter in ["a", "$share/g/a", "$share/h/+"] {
        peer.subscribe(&mut w, filter, QoS::AtLeastOnce);
    }
    let publisher = Peer::clean(&mut w, "pub");
    publisher.ask(&mut w, Packet::Publish(message("a", QoS::AtMostOnce, 0, b"x")));
    assert_eq!(peer.payloads(&mut w), ["x", "x", "x"]);
}

/// Each member has the QoS, the identifier and the options of its own subscription [MQTT-4.8.2-3].
#[test]
fn a_member_gets_what_it_was_granted() {
    let mut w = with(Strategy::RoundRobin, 1);
    let zero = Peer::clean(&mut w, "zero");
    zero.subscribe(&mut w, "$share/g/a/#", QoS::AtMostOnce);
    let two = Peer::clean(&mut w, "two");
    let options =
        SubscriptionOptions { qos: QoS::ExactlyOnce, retain_as_published: true, ..Default::default() };
    let mut asked = subscribe(1, &[("$share/g/a/#", options)]);
    if let Packet::Subscribe(s) = &mut asked {
        s.subscription_identifier = Some(77);
    }
    two.ask(&mut w, asked);
    let publisher = Peer::clean(&mut w, "pub");
    for n in 1..3 {
        let mut p = message("a/1", QoS::AtLeastOnce, n, b"x");
        p.retain = true;
        publisher.ask(&mut w, Packet::Publish(p));
    }
    match (zero.read(&mut w).as_slice(), two.read(&mut w).as_slice()) {
        ([Packet::Publish(zero)], [Packet::Publish(two)]) => {
            assert_eq!((zero.qos, zero.retain), (QoS::AtMostOnce, false));
            assert_eq!((two.qos, two.retain), (QoS::AtLeastOnce, true));
            assert_eq!(two.properties.read().subscription_identifiers.as_slice(), [77]);
        }
        other => panic!("{other:?}"),
    }
}

/// Retained messages are not sent for a shared subscription (3.8.3.1, 4.8.2).
#[test]
fn a_shared_subscription_asks_for_nothing_retained() {
    let mut w = world(1);
    let publisher = Peer::clean(&mut w, "pub");
    let mut kept = message("a/1", QoS::AtLeastOnce, 1, b"kept");
    kept.retain = true;
    publisher.ask(&mut w, Packet::Publish(kept));
    let member = &members(&mut w, 1, QoS::AtLeastOnce)[0];
    assert_eq!(member.payloads(&mut w), [""; 0]);
}

/// What a member has not acknowledged, and what waited for it, goes to another when it goes.
#[test]
fn unacknowledged_messages_go_to_another_member() {
    for workers in [1, 2] {
        let mut w = with(Strategy::Sticky, workers);
        w.workers.iter_mut().for_each(|worker| {
            let config = BrokerConfig { max_inflight: 3, ..(*worker.config).clone() };
            worker.shared.config.store(std::sync::Arc::new(config));
        });
        w.advance(seconds(2));
        let members = members(&mut w, 2, QoS::AtLeastOnce);
        let publisher = Peer::clean(&mut w, "pub");
        publish(&mut w, publisher, 1..11);
        let first = members.iter().position(|m| m.payloads(&mut w).len() == 3).unwrap();
        // one of the three is acknowledged, so that a fourth comes
        members[first].ask(&mut w, Packet::Puback(ack(1)));
        members[first].cut(&mut w);
        let other = &members[1 - first];
        let mut got = Vec::new();
        loop {
            let more = read(&mut w, std::slice::from_ref(other));
            if more[0].is_empty() {
                break;
            }
            got.extend(more);
        }
        assert_eq!(sorted(&got), (2..11).collect::<Vec<_>>());
    }
}

/// [MQTT-4.8.2-5]: a QoS 2 message whose delivery has begun goes to nobody else; [MQTT-4.8.2-6]: nor does one that was refused.
#[test]
fn qos_2_that_was_begun_and_what_was_refused_go_to_nobody_else() {
    let mut w = with(Strategy::Sticky, 1);
    let members = members(&mut w, 2, QoS::ExactlyOnce);
    let publisher = Peer::clean(&mut w, "pub");
    publisher.ask(&mut w, Packet::Publish(message("a/1", QoS::ExactlyOnce, 1, b"two")));
    publisher.ask(&mut w, Packet::Pubrel(ack(1)));
    publish(&mut w, publisher, 2..3);
    let first = members.iter().position(|m| m.payloads(&mut w) == ["two", "2"]).unwrap();
    let mut no = ack(2);
    no.reason = ReasonCode::UnspecifiedError;
    members[first].ask(&mut w, Packet::Puback(no));
    members[first].cut(&mut w);
    assert_eq!(members[1 - first].payloads(&mut w), [""; 0]);
}

/// A member that is away gets nothing while another is here; without any nobody matches (0x10).
#[test]
fn who_has_gone_gets_nothing() {
    let mut w = with(Strategy::RoundRobin, 2);
    let members = members(&mut w, 2, QoS::AtLeastOnce);
    let publisher = Peer::clean(&mut w, "pub");
    members[0].unsubscribe(&mut w, "$share/g/a/#");
    publish(&mut w, publisher, 1..5);
    assert_eq!(read(&mut w, &members).iter().map(Vec::len).collect::<Vec<_>>(), [0, 4]);
    members[1].disconnect(&mut w);
    assert_eq!(publish(&mut w, publisher, 5..6), [ReasonCode::NoMatchingSubscribers]);
    assert_eq!((w.shared.router.groups(), w.shared.router.subscriptions()), (0, 0));
}

/// A message that is too large for one member goes to another [MQTT-3.1.2-24].
#[test]
fn a_member_that_takes_no_packet_that_large_is_passed_over() {
    let mut w = with(Strategy::RoundRobin, 2);
    let mut small = connect("small", true, 0);
    small.properties.maximum_packet_size = Some(60);
    let (small, _) = Peer::connect(&mut w, 1, small);
    small.subscribe(&mut w, "$share/g/a/#", QoS::AtLeastOnce);
    let large = Peer::clean(&mut w, "large");
    large.subscribe(&mut w, "$share/g/a/#", QoS::AtLeastOnce);
    let publisher = Peer::clean(&mut w, "pub");
    for n in 1..5 {
        publisher.ask(&mut w, Packet::Publish(message("a/1", QoS::AtLeastOnce, n, &[b'x'; 100])));
    }
    assert_eq!(large.payloads(&mut w).len(), 4);
    large.cut(&mut w);
    let dropped = |w: &World| w.shared.metrics.iter().map(|m| m.dropped[3].get()).sum::<u64>();
    assert_eq!(dropped(&w), 4, "given back, and too large for whoever is left");
    assert_eq!(small.payloads(&mut w), [""; 0]);
}

/// Version 3.1.1 has no word for it, and takes part all the same.
#[test]
fn version_3_1_1_may_share() {
    let mut w = with(Strategy::RoundRobin, 1);
    let mut old = connect("old", true, 0);
    old.version = Version::V311;
    old.properties = Default::default();
    let (old, _) = Peer::connect(&mut w, 0, old);
    old.subscribe(&mut w, "$share/g/a/#", QoS::AtLeastOnce);
    let new = members(&mut w, 1, QoS::AtLeastOnce)[0];
    let publisher = Peer::clean(&mut w, "pub");
    publish(&mut w, publisher, 1..5);
    assert_eq!((old.payloads(&mut w).len(), new.payloads(&mut w).len()), (2, 2));
}

/// [MQTT-4.8.2-1], [MQTT-4.8.2-2]
#[test]
fn a_share_name_has_a_character_and_no_wildcard() {
    let mut w = world(1);
    let peer = Peer::clean(&mut w, "c");
    for filter in ["$share//a", "$share/g", "$share/g/", "$share/+/a", "$share/#", "$share/g#/a"] {
        match peer.subscribe(&mut w, filter, QoS::AtMostOnce).as_slice() {
            [Packet::Suback(s)] => assert_eq!(s.reasons, [ReasonCode::TopicFilterInvalid], "{filter}"),
            other => panic!("{other:?}"),
        }
    }
}

/// [MQTT-3.8.3-4]
#[test]
fn no_local_on_a_shared_subscription_ends_the_connection() {
    let mut w = world(1);
    let peer = Peer::clean(&mut w, "c");
    // our own encoder refuses to write it
    let mut bytes = vec![0x82, 16, 0, 1, 0, 0, 10];
    bytes.extend_from_slice(b"$share/g/a");
    bytes.push(0b101);
    w.write(peer.link, &bytes);
    w.run();
    match peer.read(&mut w).as_slice() {
        [Packet::Disconnect(d)] => assert_eq!(d.reason, ReasonCode::ProtocolError),
        other => panic!("{other:?}"),
    }
    assert!(w.is_closed(peer.link));
}

/// A broker that does not offer them says so (3.2.2.3.13).
#[test]
fn shared_subscriptions_may_be_switched_off() {
    let config = BrokerConfig { shared_subscription_available: false, ..BrokerConfig::default() };
    let mut w = World::new(1, 1, config);
    let (peer, connack) = Peer::connect(&mut w, 0, connect("c", true, 0));
    assert_eq!(connack.properties.shared_subscription_available, Some(false));
    match peer.subscribe(&mut w, "$share/g/a", QoS::AtMostOnce).as_slice() {
        [Packet::Suback(s)] => assert_eq!(s.reasons, [ReasonCode::SharedSubscriptionsNotSupported]),
        other => panic!("{other:?}"),
    }
}
