//! `$delayed/{seconds}/{topic}`.

use engine::EngineError;
use mqtt::packet::{Packet, Publish, PublishProperties, SubscriptionOptions};
use mqtt::{QoS, ReasonCode};

use super::rig::*;
use crate::config::BrokerConfig;
use crate::sim::engine::Faults;
use crate::sim::world::World;

fn reason(packets: &[Packet<'_>]) -> ReasonCode {
    match packets {
        [Packet::Puback(ack) | Packet::Pubrec(ack), ..] => ack.reason,
        other => panic!("{other:?}"),
    }
}

fn subscriber(w: &mut World, expiry: u32) -> Peer {
    let (sub, _) = Peer::connect(w, 0, connect("sub", expiry == 0, expiry));
    let options =
        SubscriptionOptions { qos: QoS::ExactlyOnce, retain_as_published: true, ..Default::default() };
    sub.ask(w, subscribe(1, &[("t/#", options)]));
    sub
}

fn delayed_records(w: &World) -> usize {
    w.keys().iter().filter(|k| k.starts_with("default/d/")).count()
}

/// Each at its time, with the QoS, the RETAIN flag and the properties of its publisher; acknowledged when it is kept.
#[test]
fn a_delayed_message_is_published_when_it_is_due() {
    for workers in [1, 2] {
        let mut w = World::new(1, workers, BrokerConfig::default());
        let sub = subscriber(&mut w, 0);
        let (publisher, _) = Peer::connect(&mut w, workers - 1, connect("pub", true, 0));
        let properties = PublishProperties {
            content_type: Some("text/plain".into()),
            message_expiry_interval: Some(3),
            user_properties: vec![("a".into(), "b".into())],
            ..Default::default()
        };
        for (id, seconds, qos) in
            [(0, 20, QoS::AtMostOnce), (1, 10, QoS::AtLeastOnce), (2, 15, QoS::ExactlyOnce)]
        {
            let topic = format!("$delayed/{seconds}/t/{seconds}");
            let message = Publish {
                retain: true,
                properties: properties.clone().into(),
                ..message(&topic, qos, id, seconds.to_string().as_bytes())
            };
            let answer = publisher.ask(&mut w, Packet::Publish(message));
            assert_eq!(answer.len(), usize::from(id > 0), "{answer:?}");
        }
        publisher.ask(&mut w, Packet::Pubrel(ack(2)));
        assert_eq!(w.shared.delayed.len(), 3);
        assert_eq!(delayed_records(&w), 3);
        publisher.disconnect(&mut w);
        w.advance(seconds(9));
        assert_eq!(sub.payloads(&mut w), [""; 0]);
        w.advance(seconds(12));
        let mut qos = Vec::new();
        for packet in sub.read(&mut w) {
            let Packet::Publish(p) = packet else { panic!("{packet:?}") };
            assert_eq!(
                (p.topic, p.retain),
                (format!("t/{}", String::from_utf8_lossy(&p.payload)).into(), true)
            );
            // the interval of a message begins when it is published
            assert_eq!(p.properties, properties.clone().into());
            qos.push(p.qos);
        }
        assert_eq!(qos, [QoS::AtLeastOnce, QoS::ExactlyOnce, QoS::AtMostOnce]);
        assert_eq!((w.shared.delayed.len(), delayed_records(&w)), (0, 0));
        assert!(w.keys().iter().any(|k| k.starts_with("default/r/")), "it is retained: {:?}", w.keys());
    }
}

/// A crash does not lose what was acknowledged, and publishes it once for a session that is away.
#[test]
fn delayed_messages_outlive_a_crash() {
    let mut w = world(2);
    let sub = subscriber(&mut w, NEVER);
    sub.cut(&mut w);
    let publisher = Peer::clean(&mut w, "pub");
    for (id, seconds) in [(1, 10), (2, 20)] {
        let topic = format!("$delayed/{seconds}/t");
        let message = message(&topic, QoS::AtLeastOnce, id, seconds.to_string().as_bytes());
        assert_eq!(reason(&publisher.ask(&mut w, Packet::Publish(message))), ReasonCode::Success);
    }
    w.crash();
    w.run();
    assert_eq!(w.shared.delayed.len(), 2);
    w.advance(seconds(15));
    w.crash();
    w.run();
    assert_eq!(w.shared.delayed.len(), 1);
    w.advance(seconds(15));
    let sub = Peer::begin(&mut w, 0, connect("sub", false, NEVER));
    w.run();
    assert_eq!(sub.payloads(&mut w), ["10", "20"]);
    assert_eq!(delayed_records(&w), 0);
}

/// More than are published at once, all due in the same second.
#[test]
fn many_messages_may_be_due_at_once() {
    let mut w = world(2);
    let sub = subscriber(&mut w, 0);
    let publisher = Peer::clean(&mut w, "pub");
    for n in 0..1_000 {
        let payload = n.to_string();
        publisher
            .send(&mut w, Packet::Publish(message("$delayed/5/t", QoS::AtMostOnce, 0, payload.as_bytes())));
        w.run();
    }
    w.advance(seconds(7));
    let got = sub.payloads(&mut w);
    let expected: Vec<String> = (0..1_000).map(|n| n.to_string()).collect();
    assert_eq!(got, expected);
    assert_eq!((w.shared.delayed.len(), delayed_records(&w)), (0, 0));
}

/// Nothing but a delay and a topic is taken; beyond the bound it is Quota exceeded.
#[test]
fn what_cannot_be_delayed_is_refused() {
    let config = BrokerConfig { max_delayed_messages: 2, ..BrokerConfig::default() };
    let mut w = World::new(1, 1, config);
    let publisher = Peer::clean(&mut w, "pub");
    let mut answer = |topic: &str, qos, id| {
        let answer = publisher.ask(&mut w, Packet::Publish(message(topic, qos, id, b"x")));
        reason(&answer)
    };
    for bad in ["$delayed/0/t", "$delayed/t", "$delayed/4294968/t", "$delayed/5/$delayed/5/t"] {
        assert_eq!(answer(bad, QoS::AtLeastOnce, 1), ReasonCode::TopicNameInvalid, "{bad}");
    }
    assert_eq!(answer("$delayed/5/$SYS/broker/version", QoS::AtLeastOnce, 1), ReasonCode::NotAuthorized);
    let deep = format!("$delayed/5/{}", "/".repeat(128));
    assert_eq!(answer(&deep, QoS::AtLeastOnce, 1), ReasonCode::TopicNameInvalid);
    assert_eq!(answer("$delayed/5/t", QoS::AtLeastOnce, 1), ReasonCode::Success);
    assert_eq!(answer("$delayed/4294967/t", QoS::ExactlyOnce, 2), ReasonCode::Success);
    assert_eq!(answer("$delayed/5/t", QoS::AtLeastOnce, 3), ReasonCode::QuotaExceeded);
    assert_eq!(answer("$delayed/5/t", QoS::ExactlyOnce, 4), ReasonCode::QuotaExceeded);
    assert_eq!(w.shared.delayed.len(), 2);
    w.advance(seconds(7));
    assert_eq!(w.shared.delayed.len(), 1);
}

/// A message whose record finds no place is refused, and does not count.
#[test]
fn a_message_that_cannot_be_kept_is_refused() {
    let mut w = world(1);
    let publisher = Peer::clean(&mut w, "pub");
    w.set_faults(Faults { busy: 1.0, unavailable: 0.0, unknown: 0.0, delay: 0 });
    publisher.send(&mut w, Packet::Publish(message("$delayed/5/t", QoS::AtLeastOnce, 1, b"x")));
    publisher.send(&mut w, Packet::Publish(message("$delayed/5/t", QoS::AtMostOnce, 0, b"x")));
    w.advance(seconds(1));
    assert_eq!(reason(&publisher.read(&mut w)), ReasonCode::QuotaExceeded);
    assert_eq!(w.shared.delayed.len(), 0);
    w.set_faults(Faults::default());
    w.fail_next(|op| matches!(op, engine::Op::Put { .. }), EngineError::Corrupt);
    let answer = publisher.ask(&mut w, Packet::Publish(message("$delayed/5/t", QoS::AtLeastOnce, 2, b"x")));
    assert_eq!(reason(&answer), ReasonCode::ImplementationSpecificError);
    assert_eq!(w.shared.delayed.len(), 0);
}

/// QoS 2 of a session that lasts: delayed from its PUBREL on, once, also when the process dies in between.
#[test]
fn a_released_message_is_delayed_once() {
    let mut w = world(1);
    let sub = subscriber(&mut w, NEVER);
    sub.cut(&mut w);
    let (publisher, _) = Peer::connect(&mut w, 0, connect("pub", false, NEVER));
    publisher.ask(&mut w, Packet::Publish(message("$delayed/5/t", QoS::ExactlyOnce, 1, b"x")));
    assert_eq!(w.shared.delayed.len(), 0);
    w.crash();
    w.run();
    let (publisher, _) = Peer::connect(&mut w, 0, connect("pub", false, NEVER));
    assert!(matches!(publisher.ask(&mut w, Packet::Pubrel(ack(1))).as_slice(), [Packet::Pubcomp(_)]));
    assert_eq!(w.shared.delayed.len(), 1);
    w.advance(seconds(7));
    let sub = Peer::begin(&mut w, 0, connect("sub", false, NEVER));
    w.run();
    assert_eq!(sub.payloads(&mut w), ["x"]);
}
