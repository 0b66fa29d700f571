//! Wills: when they are published, with what, how often.

use mqtt::QoS;
use mqtt::ReasonCode;
use mqtt::packet::{Disconnect, Packet, Will};

use super::rig::*;
use crate::sim::world::World;

fn with_will(client_id: &str, expiry: u32, delay: u32) -> mqtt::packet::Connect<'static> {
    mqtt::packet::Connect { will: Some(will("w", delay)), ..connect(client_id, true, expiry) }
}

fn watcher(w: &mut World) -> Peer {
    let (sub, _) = Peer::connect(w, 0, connect("watcher", false, NEVER));
    sub.subscribe(w, "w", QoS::AtLeastOnce);
    sub
}

/// [MQTT-3.1.2-8]
#[test]
fn a_broken_connection_publishes_the_will_and_a_good_bye_does_not() {
    let mut w = world(1);
    let sub = watcher(&mut w);
    Peer::connect(&mut w, 0, with_will("a", 0, 0)).0.disconnect(&mut w);
    assert_eq!(sub.payloads(&mut w), [""; 0]);
    Peer::connect(&mut w, 0, with_will("a", 0, 0)).0.cut(&mut w);
    assert_eq!(sub.payloads(&mut w), ["will"]);
    let (c, _) = Peer::connect(&mut w, 0, with_will("a", 0, 0));
    let goodbye = Disconnect { reason: ReasonCode::DisconnectWithWill, properties: Default::default() };
    c.ask(&mut w, Packet::Disconnect(goodbye));
    assert_eq!(sub.payloads(&mut w), ["will"]);
}

/// A will that is delayed is not published when its client is back in time [MQTT-3.1.3-9].
#[test]
fn a_delayed_will_is_cancelled_by_a_return_in_time() {
    let mut w = world(2);
    let sub = watcher(&mut w);
    Peer::connect(&mut w, 1, with_will("a", 100, 10)).0.cut(&mut w);
    w.advance(seconds(5));
    let (back, _) = Peer::connect(&mut w, 0, connect("a", false, 100));
    w.advance(seconds(30));
    assert_eq!(sub.payloads(&mut w), [""; 0]);
    back.cut(&mut w);
    Peer::connect(&mut w, 0, with_will("a", 100, 10)).0.cut(&mut w);
    w.advance(seconds(8));
    assert_eq!(sub.payloads(&mut w), [""; 0]);
    w.advance(seconds(5));
    assert_eq!(sub.payloads(&mut w), ["will"]);
}

/// The end of the session ends the delay [MQTT-3.1.3-9], and so does a clean start.
#[test]
fn a_delayed_will_does_not_outlive_its_session() {
    let mut w = world(1);
    let sub = watcher(&mut w);
    Peer::connect(&mut w, 0, with_will("a", 3, 100)).0.cut(&mut w);
    w.advance(seconds(6));
    assert_eq!(sub.payloads(&mut w), ["will"]);
    Peer::connect(&mut w, 0, with_will("a", 100, 100)).0.cut(&mut w);
    Peer::clean(&mut w, "a");
    assert_eq!(sub.payloads(&mut w), ["will"]);
}

/// A takeover is the end of the old connection: its will is published unless it is delayed and the session goes on
/// [MQTT-3.1.4-3].
#[test]
fn a_takeover_publishes_a_will_without_delay() {
    let mut w = world(2);
    let sub = watcher(&mut w);
    Peer::connect(&mut w, 0, with_will("a", 100, 0));
    Peer::connect(&mut w, 1, mqtt::packet::Connect { clean_start: false, ..with_will("a", 100, 60) });
    assert_eq!(sub.payloads(&mut w), ["will"]);
    Peer::connect(&mut w, 0, connect("a", false, 100));
    w.advance(seconds(90));
    assert_eq!(sub.payloads(&mut w), [""; 0]);
}

/// The Message Expiry Interval of a will counts from its publication (3.1.3.2.4), not from the CONNECT.
#[test]
fn the_expiry_of_a_will_begins_when_it_is_published() {
    let mut w = world(1);
    let sub = watcher(&mut w);
    let mut will: Will<'static> = will("w", 0);
    will.properties.message_expiry_interval = Some(5);
    let (c, _) =
        Peer::connect(&mut w, 0, mqtt::packet::Connect { will: Some(will), ..connect("a", true, 0) });
    w.advance(seconds(60));
    c.cut(&mut w);
    let got = sub.read(&mut w);
    assert!(
        matches!(got.as_slice(), [Packet::Publish(p)] if p.properties.message_expiry_interval() == Some(5)),
        "{got:?}"
    );
}

/// A process that dies owes the wills of its clients: the next one publishes each once.
/// [MQTT-3.1.2-7]
#[test]
fn a_will_is_published_once_after_a_crash() {
    let mut w = world(1);
    watcher(&mut w);
    Peer::connect(&mut w, 0, with_will("a", 0, 0));
    w.crash();
    w.run();
    assert_eq!(again(&mut w), ["will"]);
    w.crash();
    w.run();
    assert_eq!(again(&mut w), [""; 0]);
    assert!(!w.keys().iter().any(|k| k.starts_with("default/w/")), "{:?}", w.keys());
}

/// The watcher comes back, takes what there is and goes.
fn again(w: &mut World) -> Vec<String> {
    let sub = Peer::begin(w, 0, connect("watcher", false, NEVER));
    w.run();
    let packets = sub.read(w);
    for packet in &packets {
        if let Packet::Publish(p) = packet {
            sub.ask(w, Packet::Puback(ack(p.packet_id.unwrap().get())));
        }
    }
    sub.cut(w);
    payloads(&packets)
}
