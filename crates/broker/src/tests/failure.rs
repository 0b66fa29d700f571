//! An engine that cannot do something now: it is done later, and never over something newer.

use engine::{EngineError, Op};
use mqtt::packet::{Packet, Publish, PublishProperties};
use mqtt::{QoS, ReasonCode};

use super::rig::*;

fn retained(id: u16, payload: &[u8]) -> Packet<'static> {
    Packet::Publish(Publish { retain: true, ..message("r", QoS::AtLeastOnce, id, payload) })
}

fn is_put(op: &Op) -> bool {
    matches!(op, Op::Put { .. })
}

/// What was retained last is what is kept [MQTT-3.3.1-5], also when the one before it had to be written a second time.
#[test]
fn a_write_is_not_repeated_over_a_newer_one() {
    let mut w = world(1);
    let publisher = Peer::clean(&mut w, "pub");
    w.fail_next(is_put, EngineError::Unavailable);
    publisher.send(&mut w, retained(1, b"old"));
    publisher.send(&mut w, retained(2, b"new"));
    w.run();
    w.advance(seconds(1));
    let acks = publisher.read(&mut w);
    assert!(
        matches!(acks.as_slice(), [Packet::Puback(a), Packet::Puback(b)] if a.packet_id == pid(1) && b.packet_id == pid(2))
    );
    let sub = Peer::clean(&mut w, "sub");
    assert_eq!(payloads(&sub.subscribe(&mut w, "r", QoS::AtMostOnce)), ["new"]);
}

/// What replaced nothing does not count: when the later of two is refused, the earlier one is kept, as its acknowledgement says
/// [MQTT-3.3.1-5].
#[test]
fn a_write_is_repeated_when_the_newer_one_is_refused() {
    let mut w = world(1);
    let (publisher, _) = Peer::connect(&mut w, 0, connect("pub", true, 0));
    w.fail_next(is_put, EngineError::Unavailable);
    w.fail_next(is_put, EngineError::Busy);
    publisher.send(&mut w, retained(1, b"old"));
    publisher.send(&mut w, retained(2, b"new"));
    w.run();
    w.advance(seconds(1));
    let acks = publisher.read(&mut w);
    let [Packet::Puback(old), Packet::Puback(new)] = acks.as_slice() else { panic!("{acks:?}") };
    assert_eq!((old.packet_id, old.reason.is_error()), (pid(1), false));
    assert_eq!((new.packet_id, new.reason), (pid(2), ReasonCode::QuotaExceeded));
    let sub = Peer::clean(&mut w, "sub");
    assert_eq!(payloads(&sub.subscribe(&mut w, "r", QoS::AtMostOnce)), ["old"]);
}

/// A write that failed and that nothing has replaced is repeated.
#[test]
fn a_write_that_failed_is_repeated() {
    let mut w = world(1);
    let publisher = Peer::clean(&mut w, "pub");
    w.fail_next(is_put, EngineError::Unavailable);
    publisher.send(&mut w, retained(1, b"once"));
    w.advance(seconds(1));
    assert!(matches!(publisher.read(&mut w).as_slice(), [Packet::Puback(_)]));
    let sub = Peer::clean(&mut w, "sub");
    assert_eq!(payloads(&sub.subscribe(&mut w, "r", QoS::AtMostOnce)), ["once"]);
}

/// PUBCOMP does not refuse, and comes when the message's record is gone: its packet id may be used again at once
/// [MQTT-4.3.3-11].
#[test]
fn a_released_packet_id_is_free_when_pubcomp_comes() {
    let mut w = world(1);
    let (publisher, _) = Peer::connect(&mut w, 0, connect("pub", false, NEVER));
    publisher.ask(&mut w, Packet::Publish(message("a", QoS::ExactlyOnce, 1, b"x")));
    w.fail_next(is_put, EngineError::Busy);
    assert_eq!(publisher.ask(&mut w, Packet::Pubrel(ack(1))), []);
    assert!(w.keys().iter().any(|k| k.contains("/in/")));
    w.advance(seconds(1));
    let done = publisher.read(&mut w);
    assert!(matches!(done.as_slice(), [Packet::Pubcomp(a)] if a.reason == ReasonCode::Success), "{done:?}");
    assert!(!w.keys().iter().any(|k| k.contains("/in/")));
}

/// A retained message that has expired is removed [MQTT-3.3.2-5], and never the one that took its place meanwhile.
#[test]
fn an_expired_retained_message_is_removed_and_not_its_successor() {
    let mut w = world(2);
    let publisher = Peer::connect(&mut w, 1, connect("pub", true, 0)).0;
    let expiring = |topic: &str| {
        let properties = PublishProperties { message_expiry_interval: Some(5), ..Default::default() };
        let m = message(topic, QoS::AtLeastOnce, 1, b"old");
        Packet::Publish(Publish { retain: true, properties: properties.into(), ..m })
    };
    publisher.ask(&mut w, expiring("r"));
    publisher.ask(&mut w, expiring("s"));
    w.advance(seconds(30));
    w.pause(0, true);
    w.advance(seconds(31));
    publisher.ask(&mut w, retained(1, b"new"));
    w.pause(0, false);
    w.advance(seconds(2));
    assert_eq!(w.keys(), ["default/r/r"]);
    let sub = Peer::clean(&mut w, "sub");
    assert_eq!(payloads(&sub.subscribe(&mut w, "#", QoS::AtMostOnce)), ["new"]);
}

/// What may have happened is not refused: the record of a refused message would make the next one of its packet id a duplicate
/// [MQTT-4.3.3-10].
#[test]
fn a_write_that_may_have_happened_is_not_refused() {
    let mut w = world(1);
    let (publisher, _) = Peer::connect(&mut w, 0, connect("pub", false, NEVER));
    w.fail_next(is_put, EngineError::Unknown);
    assert_eq!(publisher.ask(&mut w, Packet::Publish(message("a", QoS::ExactlyOnce, 1, b"x"))), []);
    w.fail_next(is_put, EngineError::Busy);
    w.advance(seconds(2));
    let answer = publisher.read(&mut w);
    assert!(
        matches!(answer.as_slice(), [Packet::Pubrec(a)] if a.reason == ReasonCode::Success),
        "{answer:?}"
    );
    publisher.ask(&mut w, Packet::Pubrel(ack(1)));
    assert!(!w.keys().iter().any(|k| k.contains("/in/")));
}
