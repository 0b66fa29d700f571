//! How long a session lasts and what it keeps.

use mqtt::packet::Packet;
use mqtt::{QoS, Version};

use super::*;

/// [MQTT-4.5.0-1], [v3 MQTT-4.5.0-1], [v3 MQTT-3.1.2-5]: what is published while a client is away is kept with its session
/// [MQTT-3.1.2-23], [v3 MQTT-4.1.0-1], also over a crash.
#[test]
fn messages_for_a_session_wait_while_its_client_is_away() {
    for version in BOTH {
        let mut w = world(1);
        let sub = join(&mut w, kept(version, "sub"));
        sub.subscribe(&mut w, "a/#", QoS::ExactlyOnce);
        sub.cut(&mut w);
        for (id, qos) in [(1, QoS::AtLeastOnce), (2, QoS::ExactlyOnce)] {
            let publisher = Peer::clean(&mut w, "pub");
            publisher.ask(&mut w, Packet::Publish(message("a/b", qos, id, &[b'0' + id as u8])));
        }
        w.crash();
        w.advance(seconds(3_600));
        let back = Peer::begin(&mut w, 0, kept(version, "sub"));
        w.run();
        let got = back.read(&mut w);
        assert!(matches!(&got[0], Packet::Connack(connack) if connack.session_present), "{got:?}");
        assert_eq!(payloads(&got), ["1", "2"], "{version}");
    }
}

/// [MQTT-4.1.0-1], [v3 MQTT-4.1.0-2]: a session is not given up while its connection stands, however short it lasts afterwards;
/// then it ends when its interval is over [MQTT-4.1.0-2], and not before.
#[test]
fn a_session_lasts_as_long_as_its_connection_and_its_interval_after() {
    let mut w = world(1);
    let short = || connect("c", false, 10);
    let sub = join(&mut w, short());
    sub.subscribe(&mut w, "a", QoS::AtMostOnce);
    w.advance(seconds(600));
    let publisher = Peer::clean(&mut w, "pub");
    publish(&mut w, publisher, "a", "still here");
    assert_eq!(sub.payloads(&mut w), ["still here"]);
    sub.cut(&mut w);
    w.advance(seconds(8));
    let (back, connack) = Peer::connect(&mut w, 0, short());
    assert!(connack.session_present);
    back.cut(&mut w);
    w.advance(seconds(13));
    let (_, connack) = Peer::connect(&mut w, 0, short());
    assert!(!connack.session_present);

    let plainly = join(&mut w, plain(Version::V311, "old"));
    plainly.subscribe(&mut w, "a", QoS::AtMostOnce);
    w.advance(seconds(600));
    publish(&mut w, publisher, "a", "and here");
    assert_eq!(plainly.payloads(&mut w), ["and here"]);
}
