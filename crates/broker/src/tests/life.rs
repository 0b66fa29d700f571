//! A session's life: kept, resumed, taken over, ended.

use mqtt::QoS;
use mqtt::packet::Packet;

use super::rig::*;

/// A durable session that subscribes again to what it has, as most clients do after each connect, keeps its place in the log:
/// also for the connection after that [MQTT-3.8.4-3], [MQTT-4.5.0-1].
#[test]
fn a_session_that_is_behind_and_subscribes_again_loses_nothing() {
    let mut w = world(1);
    let (sub, _) = Peer::connect(&mut w, 0, connect("sub", false, NEVER));
    sub.subscribe(&mut w, "a", QoS::AtLeastOnce);
    sub.cut(&mut w);
    let publisher = Peer::clean(&mut w, "pub");
    for n in 1..=3u16 {
        publisher.ask(&mut w, Packet::Publish(message("a", QoS::AtLeastOnce, n, n.to_string().as_bytes())));
    }
    let mut one_at_a_time = connect("sub", false, NEVER);
    one_at_a_time.properties.receive_maximum = Some(1);
    let again = Peer::begin(&mut w, 0, one_at_a_time);
    w.run();
    assert_eq!(again.payloads(&mut w), ["1"]);
    again.subscribe(&mut w, "a", QoS::AtLeastOnce);
    again.ask(&mut w, Packet::Puback(ack(1)));
    again.cut(&mut w);
    let last = Peer::begin(&mut w, 0, connect("sub", false, NEVER));
    w.run();
    assert_eq!(last.payloads(&mut w), ["2", "3"]);
}
