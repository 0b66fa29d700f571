//! `$SYS`: what the broker tells of itself, to whom and when.

use std::collections::BTreeMap;
use std::time::Duration;

use mqtt::packet::{Packet, Publish};
use mqtt::{QoS, ReasonCode};

use super::rig::*;
use crate::config::BrokerConfig;
use crate::sim::world::World;

fn messages(packets: Vec<Packet<'static>>) -> Vec<Publish<'static>> {
    let publish = |packet| match packet {
        Packet::Publish(publish) => Some(publish),
        _ => None,
    };
    packets.into_iter().filter_map(publish).collect()
}

fn values(packets: Vec<Packet<'static>>) -> BTreeMap<String, String> {
    let value = |p: Publish<'_>| (p.topic.into_owned(), String::from_utf8_lossy(&p.payload).into_owned());
    messages(packets).into_iter().map(value).collect()
}

/// As if they were retained, on whatever worker, with the numbers of now; then every `sys_interval`.
#[test]
fn a_new_subscriber_gets_all_of_it_at_once() {
    let mut w = world(2);
    w.advance(seconds(25));
    let publisher = Peer::clean(&mut w, "pub");
    publisher.ask(
        &mut w,
        Packet::Publish(Publish { retain: true, ..message("kept", QoS::AtLeastOnce, 1, b"12345") }),
    );
    let (sub, _) = Peer::connect(&mut w, 1, connect("sub", true, 0));
    let first = sub.subscribe(&mut w, "$SYS/#", QoS::ExactlyOnce);
    let told = messages(first.clone());
    assert!(told.len() > 60, "{}", told.len());
    assert!(told.iter().all(|p| p.retain && p.qos == QoS::AtMostOnce));
    let told = values(first);
    for (topic, value) in [
        ("$SYS/broker/uptime", "25 seconds"),
        ("$SYS/broker/clients/connected", "2"),
        ("$SYS/broker/retained messages/count", "1"),
        ("$SYS/broker/store/messages/bytes", "5"),
        ("$SYS/broker/publish/messages/received", "1"),
        ("$SYS/broker/publish/bytes/received", "5"),
        ("$SYS/broker/subscriptions/count", "1"),
        ("$SYS/brokers", "sim"),
        ("$SYS/brokers/sim/stats/subscriptions/count", "1"),
    ] {
        assert_eq!(told.get(topic).map(String::as_str), Some(value), "{topic}");
    }
    w.advance(seconds(10));
    let next = messages(sub.read(&mut w));
    assert_eq!(next.len(), told.len(), "once in an interval");
    assert!(next.iter().all(|p| !p.retain));
    // CONNECT, PUBLISH; CONNECT, SUBSCRIBE
    let received = next.iter().find(|p| p.topic == "$SYS/broker/messages/received").unwrap();
    assert_eq!(&*received.payload, b"4");
}

/// A filter gets what it matches; wildcards at the front match none of it [MQTT-4.7.2-1].
#[test]
fn a_filter_gets_what_it_matches() {
    let mut w = world(1);
    let peer = Peer::clean(&mut w, "c");
    let got = values(peer.subscribe(&mut w, "$SYS/broker/load/+/received/1min", QoS::AtMostOnce));
    let topics: Vec<&str> = got.keys().map(String::as_str).collect();
    assert_eq!(
        topics,
        [
            "$SYS/broker/load/bytes/received/1min",
            "$SYS/broker/load/messages/received/1min",
            "$SYS/broker/load/publish/received/1min",
        ]
    );
    let all = Peer::clean(&mut w, "all");
    all.subscribe(&mut w, "#", QoS::AtMostOnce);
    all.subscribe(&mut w, "+/broker/#", QoS::AtMostOnce);
    // after the first second, and ten seconds later
    w.advance(seconds(15));
    assert_eq!(all.read(&mut w), []);
    assert_eq!(messages(peer.read(&mut w)).len(), 2 * topics.len());
}

/// While nobody subscribes there is no tree and nothing is sent; shared subscriptions and sessions that are away count, too.
#[test]
fn nothing_is_done_while_nobody_subscribes() {
    let mut w = world(1);
    let tree = |w: &World| w.shared.system.tree.read().unwrap().len();
    w.advance(seconds(30));
    assert_eq!((tree(&w), w.shared.router.is_system_watched()), (0, false));
    let peer = Peer::clean(&mut w, "c");
    for filter in ["$SYS/broker/uptime", "$exclusive/$SYS/broker/uptime", "$share/g/$SYS/broker/uptime"] {
        peer.subscribe(&mut w, filter, QoS::AtMostOnce);
        assert!(w.shared.router.is_system_watched(), "{filter}");
        w.advance(seconds(11));
        assert!(tree(&w) > 60);
        assert!(!messages(peer.read(&mut w)).is_empty(), "{filter}");
        peer.unsubscribe(&mut w, filter);
        assert!(!w.shared.router.is_system_watched(), "{filter}");
        w.advance(seconds(11));
        assert_eq!(tree(&w), 0);
    }
    peer.subscribe(&mut w, "$SYS/broker/uptime", QoS::AtMostOnce);
    peer.disconnect(&mut w);
    assert!(!w.shared.router.is_system_watched());
}

#[test]
fn an_interval_of_zero_switches_it_off() {
    let config = BrokerConfig { sys_interval: Duration::ZERO, ..BrokerConfig::default() };
    let mut w = World::new(1, 1, config);
    let peer = Peer::clean(&mut w, "c");
    assert_eq!(messages(peer.subscribe(&mut w, "$SYS/#", QoS::AtMostOnce)), []);
    w.advance(seconds(30));
    assert_eq!(peer.read(&mut w), []);
}

/// Nothing of it is kept by the engine, and no client writes there.
#[test]
fn only_the_broker_publishes_there_and_nothing_is_kept() {
    let mut w = world(1);
    let (sub, _) = Peer::connect(&mut w, 0, connect("sub", false, NEVER));
    sub.subscribe(&mut w, "$SYS/#", QoS::AtLeastOnce);
    w.advance(seconds(30));
    assert!(!w.keys().iter().any(|k| k.starts_with("default/r/")), "{:?}", w.keys());
    let answer = sub.ask(&mut w, Packet::Publish(message("$SYS/broker/uptime", QoS::AtLeastOnce, 1, b"0")));
    assert!(matches!(answer.last(), Some(Packet::Puback(ack)) if ack.reason == ReasonCode::NotAuthorized));
}

/// EMQX's messages about clients: JSON, one topic for each client.
#[test]
fn clients_that_come_and_go_are_told() {
    let mut w = world(2);
    let (sub, _) = Peer::connect(&mut w, 1, connect("watch", true, 0));
    sub.subscribe(&mut w, "$SYS/brokers/+/clients/#", QoS::AtMostOnce);
    let mut named = connect("car/1", true, 7);
    named.username = Some("fleet \"7\"".into());
    let (car, _) = Peer::connect(&mut w, 0, named);
    car.cut(&mut w);
    // an identifier that no topic can hold is passed over
    Peer::clean(&mut w, "a+").disconnect(&mut w);
    let told = messages(sub.read(&mut w));
    let topics: Vec<&str> = told.iter().map(|p| &*p.topic).collect();
    assert_eq!(
        topics,
        ["$SYS/brokers/sim/clients/car/1/connected", "$SYS/brokers/sim/clients/car/1/disconnected"]
    );
    let json = |at: usize| serde_json::from_slice::<serde_json::Value>(&told[at].payload).unwrap();
    let (came, went) = (json(0), json(1));
    for event in [&came, &went] {
        assert_eq!(event["clientid"], "car/1");
        assert_eq!(event["username"], "fleet \"7\"");
        assert_eq!(event["ipaddress"], "127.0.0.1");
        assert_eq!(event["proto_ver"], 5);
        assert!(event["ts"].is_u64());
    }
    assert_eq!((&came["clean_start"], &came["expiry_interval"]), (&true.into(), &7.into()));
    assert_eq!(went["reason"], "connection_lost");
}

/// A crowd is not told one by one, and that is counted.
#[test]
fn messages_about_clients_are_bounded() {
    let mut w = world(1);
    let sub = Peer::clean(&mut w, "watch");
    sub.subscribe(&mut w, "$SYS/brokers/+/clients/#", QoS::AtMostOnce);
    w.workers[0].client_events_left = 3;
    for n in 0..5 {
        Peer::clean(&mut w, &n.to_string());
    }
    assert_eq!(messages(sub.read(&mut w)).len(), 3);
    let dropped = &w.workers[0].metrics.dropped[crate::metrics::Drop::SysClientEvents as usize];
    assert_eq!(dropped.get(), 2);
    w.advance(seconds(1));
    Peer::clean(&mut w, "later");
    assert_eq!(messages(sub.read(&mut w)).len(), 1);
    let config = BrokerConfig { sys_client_events: false, ..BrokerConfig::default() };
    let mut w = World::new(1, 1, config);
    let sub = Peer::clean(&mut w, "watch");
    sub.subscribe(&mut w, "$SYS/brokers/+/clients/#", QoS::AtMostOnce);
    Peer::clean(&mut w, "c");
    assert_eq!(sub.read(&mut w), []);
}
