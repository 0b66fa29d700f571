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

/// What is published while a session still waits for the answers it owes its client is kept for it [MQTT-4.5.0-1].
#[test]
fn a_session_that_leaves_slowly_misses_nothing() {
    let mut w = world(2);
    let (sub, _) = Peer::connect(&mut w, 0, connect("sub", false, NEVER));
    sub.subscribe(&mut w, "a", QoS::AtLeastOnce);
    w.pause(0, true);
    sub.send(&mut w, Packet::Publish(message("a", QoS::AtLeastOnce, 1, b"own")));
    w.run();
    sub.cut(&mut w);
    let (publisher, _) = Peer::connect(&mut w, 1, connect("pub", true, 0));
    publisher.ask(&mut w, Packet::Publish(message("a", QoS::AtLeastOnce, 1, b"meanwhile")));
    w.pause(0, false);
    w.run();
    let sub = Peer::begin(&mut w, 0, connect("sub", false, NEVER));
    w.run();
    assert_eq!(sub.payloads(&mut w), ["meanwhile", "own"]);
}

/// A SUBSCRIBE that is being written when its connection breaks belongs to the session: it goes when the session goes.
#[test]
fn a_subscription_that_is_written_while_its_connection_breaks_ends_with_the_session() {
    let mut w = world(1);
    let (sub, _) = Peer::connect(&mut w, 0, connect("sub", false, NEVER));
    w.pause(0, true);
    let options = mqtt::packet::SubscriptionOptions::default();
    sub.send(&mut w, subscribe(1, &[("a", options)]));
    w.run();
    w.reset(sub.link);
    w.run();
    w.pause(0, false);
    w.run();
    assert_eq!(w.shared.router.subscriptions(), 1);
    Peer::clean(&mut w, "sub").disconnect(&mut w);
    assert_eq!(w.shared.router.subscriptions(), 0);
    assert_eq!(w.keys(), [""; 0]);
}

/// Whoever waits for a client id gets it, also when the connection before it broke and its session could not be read.
#[test]
fn a_client_id_is_free_when_the_session_cannot_be_read() {
    let mut w = world(1);
    Peer::connect(&mut w, 0, connect("c", false, NEVER)).0.cut(&mut w);
    w.pause(0, true);
    let second = Peer::begin(&mut w, 0, connect("c", false, NEVER));
    w.run();
    w.reset(second.link);
    let third = Peer::begin(&mut w, 0, connect("c", false, NEVER));
    w.run();
    w.fail_next(|op| matches!(op, engine::Op::Scan { .. }), engine::EngineError::Corrupt);
    w.pause(0, false);
    w.run();
    assert!(matches!(third.read(&mut w).as_slice(), [Packet::Connack(c)] if c.session_present));
}

/// Nothing follows a DISCONNECT [MQTT-3.14.4-1], not even an acknowledgement that was waiting.
#[test]
fn nothing_is_sent_after_disconnect() {
    let mut w = world(1);
    let (c, _) = Peer::connect(&mut w, 0, connect("c", false, NEVER));
    c.subscribe(&mut w, "a", QoS::AtLeastOnce);
    w.pause(0, true);
    c.send(&mut w, Packet::Publish(message("a", QoS::AtLeastOnce, 1, b"x")));
    w.run();
    w.set_window(c.link, 0);
    c.send(&mut w, Packet::Connect(Box::new(connect("c", false, NEVER))));
    w.run();
    w.pause(0, false);
    w.run();
    w.set_window(c.link, usize::MAX);
    w.run();
    let got = c.read(&mut w);
    assert!(matches!(got.as_slice(), [Packet::Disconnect(_)]), "{got:?}");
}

/// A client may allow fewer messages at once than it did on the connection before [MQTT-3.3.4-9]: it gets as many again, and the
/// others as it acknowledges those.
#[test]
fn messages_are_sent_again_within_the_new_receive_maximum() {
    let mut w = world(1);
    let (sub, _) = Peer::connect(&mut w, 0, connect("sub", false, NEVER));
    sub.subscribe(&mut w, "a", QoS::ExactlyOnce);
    let publisher = Peer::clean(&mut w, "pub");
    for n in 1..=4u16 {
        let qos = if n == 2 { QoS::ExactlyOnce } else { QoS::AtLeastOnce };
        publisher.ask(&mut w, Packet::Publish(message("a", qos, n, n.to_string().as_bytes())));
    }
    assert_eq!(sub.payloads(&mut w), ["1", "2", "3", "4"]);
    sub.cut(&mut w);
    let mut narrow = connect("sub", false, NEVER);
    narrow.properties.receive_maximum = Some(2);
    let sub = Peer::begin(&mut w, 0, narrow);
    w.run();
    assert_eq!(sub.payloads(&mut w), ["1", "2"]);
    let more = sub.ask(&mut w, Packet::Puback(ack(1)));
    assert_eq!(payloads(&more), ["3"]);
    assert!(matches!(sub.ask(&mut w, Packet::Pubrec(ack(2))).as_slice(), [Packet::Pubrel(_)]));
    assert_eq!(payloads(&sub.ask(&mut w, Packet::Pubcomp(ack(2)))), ["4"]);
    publisher.ask(&mut w, Packet::Publish(message("a", QoS::AtLeastOnce, 5, b"5")));
    assert_eq!(sub.payloads(&mut w), [""; 0]);
    assert_eq!(payloads(&sub.ask(&mut w, Packet::Puback(ack(3)))), ["5"]);
}

/// A client that takes one message at a time gets messages of every shard of the log, however many wait in one of them.
#[test]
fn a_busy_shard_does_not_starve_the_others() {
    let mut w = world(1);
    let shard = |topic: &str| crate::record::shard_of(topic, 2).0;
    let topics: Vec<String> = (0..20).map(|n| format!("a/{n}")).collect();
    let busy = topics.iter().find(|t| shard(t) == 0).unwrap();
    let quiet = topics.iter().find(|t| shard(t) == 1).unwrap();
    let (sub, _) = Peer::connect(&mut w, 0, connect("sub", false, NEVER));
    sub.subscribe(&mut w, "a/#", QoS::AtLeastOnce);
    sub.cut(&mut w);
    let publisher = Peer::clean(&mut w, "pub");
    for n in 1..=10u16 {
        publisher.ask(&mut w, Packet::Publish(message(busy, QoS::AtLeastOnce, n, b"busy")));
    }
    publisher.ask(&mut w, Packet::Publish(message(quiet, QoS::AtLeastOnce, 1, b"quiet")));
    let mut one_at_a_time = connect("sub", false, NEVER);
    one_at_a_time.properties.receive_maximum = Some(1);
    let sub = Peer::begin(&mut w, 0, one_at_a_time);
    w.run();
    let mut got = sub.payloads(&mut w);
    for n in 1..=3 {
        got.extend(payloads(&sub.ask(&mut w, Packet::Puback(ack(n)))));
    }
    assert!(got.contains(&"quiet".to_owned()), "{got:?}");
}

/// Messages are handed on in the order of their PUBRELs, also when the session was resumed to end with this connection
/// [MQTT-4.6.0-5].
#[test]
fn a_session_resumed_for_the_last_time_keeps_the_order_of_qos_2() {
    let mut w = world(1);
    let sub = Peer::clean(&mut w, "sub");
    sub.subscribe(&mut w, "a", QoS::ExactlyOnce);
    let (publisher, _) = Peer::connect(&mut w, 0, connect("pub", false, NEVER));
    publisher.ask(&mut w, Packet::Publish(message("a", QoS::ExactlyOnce, 1, b"1")));
    publisher.cut(&mut w);
    let (publisher, _) = Peer::connect(&mut w, 0, connect("pub", false, 0));
    publisher.ask(&mut w, Packet::Publish(message("a", QoS::ExactlyOnce, 2, b"2")));
    publisher.ask(&mut w, Packet::Pubrel(ack(1)));
    publisher.ask(&mut w, Packet::Pubrel(ack(2)));
    assert_eq!(sub.payloads(&mut w), ["1", "2"]);
}

/// The records of a session that expired are gone before its client id has a new session: a late removal would take the new one's
/// [MQTT-3.1.2-23].
#[test]
fn a_session_that_expires_takes_nothing_of_the_next_one() {
    let mut w = world(2);
    let (c, _) = Peer::connect(&mut w, 1, connect("c", false, 5));
    c.subscribe(&mut w, "a", QoS::AtLeastOnce);
    c.cut(&mut w);
    w.pause(0, true);
    w.advance(seconds(8));
    let c = Peer::begin(&mut w, 1, connect("c", false, NEVER));
    w.run();
    assert_eq!(c.read(&mut w), [], "the removal is under way");
    w.pause(0, false);
    w.run();
    assert!(matches!(c.read(&mut w).as_slice(), [Packet::Connack(c)] if !c.session_present));
    c.subscribe(&mut w, "a", QoS::AtLeastOnce);
    assert_eq!(w.keys().len(), 2, "{:?}", w.keys());
}

/// Order is that of the client, not of its connections: a device that says good-bye and comes back on another worker does not
/// overtake itself [MQTT-4.6.0-6].
#[test]
fn what_a_client_published_before_it_came_back_on_another_worker_comes_first() {
    let mut w = world(2);
    let (reader, _) = Peer::connect(&mut w, 1, connect("reader", true, 0));
    reader.subscribe(&mut w, "t", QoS::AtMostOnce);
    let hello = b"\x10\x0D\x00\x04MQTT\x04\x02\x00\x00\x00\x01p";
    let before = w.open(0);
    w.write(before, hello);
    w.run();
    let after = w.open(1);
    w.write(before, b"\x30\x04\x00\x01t1\xE0\x00");
    w.write(after, &[hello.as_slice(), b"\x30\x04\x00\x01t2"].concat());
    w.run();
    assert_eq!(reader.payloads(&mut w), ["1", "2"]);
}
