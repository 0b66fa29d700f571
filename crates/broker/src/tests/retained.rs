//! Retained messages from the register to the client: what is kept comes as it was published, on every worker, and no worker
//! has a copy of it.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};

use engine::{Arrival, Inbox, Op, Reply, Value, Write};
use mqtt::packet::{Packet, Publish, PublishProperties, Subscribe, SubscribeFilter, SubscriptionOptions};
use mqtt::{QoS, Version};

use super::rig::{NEVER, Peer, ack, connect, message, pid, seconds, subscribe, world};
use crate::record;
use crate::retained::Named;
use crate::sim::world::World;

fn retained(topic: &str, id: u16, payload: &[u8]) -> Publish<'static> {
    Publish { retain: true, ..message(topic, QoS::AtLeastOnce, id, payload) }
}

fn messages(packets: Vec<Packet<'static>>) -> Vec<Publish<'static>> {
    packets.into_iter().filter_map(|p| if let Packet::Publish(p) = p { Some(p) } else { None }).collect()
}

/// A client of each version on each of two workers.
fn everywhere(w: &mut World) -> Vec<Peer> {
    let places = [(0, Version::V311), (0, Version::V5), (1, Version::V311), (1, Version::V5)];
    let mut join = |(n, (worker, version)): (usize, (usize, Version))| {
        let hello = connect(&format!("reader-{n}"), true, 0);
        Peer::connect(w, worker, mqtt::packet::Connect { version, ..hello }).0
    };
    places.into_iter().enumerate().map(&mut join).collect()
}

/// Somebody else's port of the engine.
#[derive(Default)]
struct Visitor(Mutex<Vec<Arrival>>);

impl Inbox for Visitor {
    fn deliver(&self, batch: Vec<Arrival>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend(batch);
    }
}

/// Does something to the register that no client can; what it answered.
fn visit(w: &mut World, op: Op) -> Reply {
    let visitor = Arc::new(Visitor::default());
    let port = w.shared.engine.attach(Arc::clone(&visitor) as Arc<dyn Inbox>);
    w.shared.engine.submit(port, vec![(0, op)]);
    w.run();
    match visitor.0.lock().unwrap().pop() {
        Some(Arrival::Done { result, .. }) => result.unwrap(),
        other => panic!("{other:?}"),
    }
}

/// The record of a topic as the register has it.
fn in_register(w: &mut World, topic: &str) -> Value {
    match visit(w, Op::Get { key: record::retained_key(topic.as_bytes()) }) {
        Reply::Got(Some(found)) => found.value,
        other => panic!("{other:?}"),
    }
}

/// All properties of a publisher are passed on as they were [MQTT-3.3.2-4], [MQTT-3.3.2-15], [MQTT-3.3.2-16], [MQTT-3.3.2-17],
/// [MQTT-3.3.2-18], [MQTT-3.3.2-20], with the identifier of the subscription [MQTT-3.3.4-3] and RETAIN [MQTT-3.3.1-8]; after
/// the broker was started again as before.
#[test]
fn what_is_retained_comes_as_it_was_published_to_clients_of_every_worker() {
    let mut w = world(2);
    let properties = PublishProperties {
        payload_format_indicator: Some(true),
        response_topic: Some("answers".into()),
        correlation_data: Some(b"7".as_slice().into()),
        user_properties: vec![("unit".into(), "m".into()), ("unit".into(), "km".into())],
        content_type: Some("text/plain".into()),
        ..Default::default()
    };
    let publisher = Peer::clean(&mut w, "pub");
    let rich = Publish { properties: properties.clone().into(), ..retained("plant/rich", 1, b"rich") };
    publisher.ask(&mut w, Packet::Publish(rich));
    publisher.ask(&mut w, Packet::Publish(retained("plant/plain", 2, b"plain")));
    for restarted in [false, true] {
        if restarted {
            w.crash();
        }
        for peer in everywhere(&mut w) {
            let filter = SubscribeFilter {
                filter: "plant/#".into(),
                options: SubscriptionOptions { qos: QoS::AtLeastOnce, ..Default::default() },
            };
            let v5 = peer.version.is_v5();
            let got = messages(peer.ask(
                &mut w,
                Packet::Subscribe(Subscribe {
                    packet_id: pid(1),
                    subscription_identifier: v5.then_some(9),
                    user_properties: Vec::new(),
                    filters: vec![filter],
                }),
            ));
            let expected = |topic: &str, properties: PublishProperties<'static>| {
                let identified = PublishProperties {
                    subscription_identifiers: smallvec::SmallVec::from_slice(&[9]),
                    ..properties
                };
                (topic.to_owned(), QoS::AtLeastOnce, true, if v5 { identified } else { Default::default() })
            };
            let got: Vec<_> = got
                .into_iter()
                .map(|p| {
                    (
                        p.topic.clone().into_owned(),
                        p.qos,
                        p.retain,
                        PublishProperties::from(p.properties.clone()),
                    )
                })
                .collect();
            let plain = expected("plant/plain", PublishProperties::default());
            assert_eq!(got, [plain, expected("plant/rich", properties.clone())]);
        }
    }
}

/// One message for a topic [MQTT-3.3.1-5], none after an empty one [MQTT-3.3.1-6], [MQTT-3.3.1-7], whichever worker it came to,
/// and the books agree.
#[test]
fn what_is_replaced_or_removed_on_one_worker_is_so_on_the_other() {
    let mut w = world(2);
    let publishers = [0, 1].map(|n| Peer::connect(&mut w, n, connect(&format!("pub-{n}"), true, 0)).0);
    let readers = everywhere(&mut w);
    let steps: [(&[u8], &str); 5] =
        [(b"one", "one"), (b"second", "second"), (b"", ""), (b"", ""), (b"third", "third")];
    for (n, (payload, kept)) in steps.into_iter().enumerate() {
        let publish = retained("plant/a", 1, payload);
        assert_eq!(publishers[n % 2].ask(&mut w, Packet::Publish(publish)).len(), 1);
        for reader in &readers {
            let got = messages(reader.subscribe(&mut w, "plant/+", QoS::AtMostOnce));
            let got: Vec<_> = got.iter().filter(|p| p.retain).map(|p| p.payload.to_vec()).collect();
            let expected = if kept.is_empty() { vec![] } else { vec![kept.as_bytes().to_vec()] };
            assert_eq!(got, expected, "after {:?}", payload.escape_ascii().to_string());
            reader.unsubscribe(&mut w, "plant/+");
        }
        assert_eq!(w.shared.retained_len(), usize::from(!kept.is_empty()));
        assert_eq!(w.shared.retained_bytes(), kept.len() as u64);
    }
}

/// The interval that is left is sent [MQTT-3.3.2-6]; when it is over nobody gets the message [MQTT-3.3.2-5], and neither
/// record nor replica keep it.
#[test]
fn a_retained_message_gets_older_and_goes() {
    let mut w = world(2);
    let properties = PublishProperties { message_expiry_interval: Some(10), ..Default::default() };
    let publisher = Peer::clean(&mut w, "pub");
    let expires = Publish { properties: properties.into(), ..retained("a", 1, b"expires") };
    publisher.ask(&mut w, Packet::Publish(expires));
    publisher.ask(&mut w, Packet::Publish(retained("b", 2, b"stays")));
    w.advance(seconds(4));
    let readers = everywhere(&mut w);
    for reader in &readers {
        let left: Vec<_> = messages(reader.subscribe(&mut w, "#", QoS::AtMostOnce))
            .into_iter()
            .map(|p| p.properties.message_expiry_interval())
            .collect();
        assert_eq!(left, [reader.version.is_v5().then_some(6), None]);
    }
    w.advance(seconds(6));
    for reader in &readers {
        let got = messages(reader.subscribe(&mut w, "#", QoS::AtMostOnce));
        assert!(matches!(got.as_slice(), [p] if &*p.topic == "b"), "{got:?}");
    }
    w.advance(seconds(120));
    assert_eq!(w.keys(), ["default/r/b"]);
    assert_eq!((w.shared.retained_len(), w.shared.retained_bytes()), (1, 5));
}

#[test]
fn the_replica_shares_the_bytes_of_the_register() {
    let mut w = world(2);
    let publisher = Peer::clean(&mut w, "pub");
    for restarted in [false, true] {
        if restarted {
            w.crash();
        } else {
            publisher.ask(&mut w, Packet::Publish(retained("plant/7", 1, &[b'x'; 500])));
        }
        let record = in_register(&mut w, "plant/7");
        let replica = w.shared.retained.read().unwrap();
        let topic = replica.get(b"plant/7").unwrap().topic();
        let at = topic.as_ptr().addr() - record.as_ptr().addr();
        assert!(at + topic.len() <= record.len(), "the topic lies outside of the record");
    }
}

/// What is damaged in the register is told as an error; it is not delivered and harms nobody, and what is published to its topic
/// takes its place.
#[test]
fn a_damaged_record_is_passed_over() {
    let mut w = world(2);
    let publisher = Peer::clean(&mut w, "pub");
    publisher.ask(&mut w, Packet::Publish(retained("a", 1, b"whole")));
    let whole = in_register(&mut w, "a");
    let damaged = [
        ("b", Value::new(&whole[..whole.len() - 1])),
        ("c", Value::new(b"")),
        ("d", Value::new(&[1; 40])),
        // of another topic
        ("e", whole.clone()),
    ];
    for (topic, value) in damaged {
        let write = Write::put(record::retained_key(topic.as_bytes()), value);
        assert!(matches!(visit(&mut w, Op::Put { writes: vec![write] }), Reply::Written(_)));
    }
    for restarted in [false, true] {
        if restarted {
            w.crash();
        }
        assert_eq!((w.shared.retained_len(), w.shared.retained_bytes()), (1, 5));
        for reader in everywhere(&mut w) {
            let got = messages(reader.subscribe(&mut w, "#", QoS::AtMostOnce));
            assert!(matches!(got.as_slice(), [p] if &*p.topic == "a"), "{got:?}");
        }
    }
    let publisher = Peer::clean(&mut w, "pub");
    publisher.ask(&mut w, Packet::Publish(retained("e", 1, b"new")));
    assert_eq!(w.shared.retained_len(), 2);
}

/// What a session was sent because it subscribed is sent again on its next connection [MQTT-4.4.0-1], as it was: also when
/// another has taken its place in the store meanwhile, and after the broker was started again.
#[test]
fn a_retained_message_that_was_not_acknowledged_comes_again() {
    for restarted in [false, true] {
        let mut w = world(2);
        let publisher = Peer::clean(&mut w, "pub");
        publisher.ask(&mut w, Packet::Publish(retained("a", 1, b"old")));
        let (sub, _) = Peer::connect(&mut w, 1, connect("sub", false, NEVER));
        let options = SubscriptionOptions { qos: QoS::AtLeastOnce, ..Default::default() };
        let first = messages(sub.ask(&mut w, subscribe(1, &[("a", options)])));
        let id = first[0].packet_id.unwrap();
        assert_eq!((&*first[0].payload, first[0].retain, first[0].dup), (b"old".as_slice(), true, false));
        sub.unsubscribe(&mut w, "a");
        sub.cut(&mut w);
        publisher.ask(&mut w, Packet::Publish(retained("a", 2, b"new")));
        if restarted {
            w.crash();
        }
        let back = Peer::begin(&mut w, 0, connect("sub", false, NEVER));
        w.run();
        let again = messages(back.read(&mut w));
        assert!(
            matches!(again.as_slice(), [p]
                if p.packet_id == Some(id) && &*p.payload == b"old" && p.retain && p.dup),
            "{again:?}"
        );
        assert_eq!(back.ask(&mut w, Packet::Puback(ack(id.get()))), []);
    }
}

/// One subscription to more than a piece of a search gives everything once, in the order of topics, at the pace of a client
/// that takes one at a time.
#[test]
fn a_large_store_comes_in_pieces_to_a_client_that_takes_one_at_a_time() {
    let mut w = world(1);
    let publisher = Peer::clean(&mut w, "pub");
    let topics: Vec<String> = (0..300).map(|n| format!("plant/{n:03}/state")).collect();
    for (id, topic) in (1..).zip(&topics) {
        publisher.ask(&mut w, Packet::Publish(retained(topic, id, topic.as_bytes())));
    }
    let mut narrow = connect("sub", true, 0);
    narrow.properties.receive_maximum = Some(1);
    let (sub, _) = Peer::connect(&mut w, 0, narrow);
    let mut packets = messages(sub.subscribe(&mut w, "plant/+/state", QoS::AtLeastOnce));
    let mut got = Vec::new();
    while let [one] = packets.as_slice() {
        got.push(one.topic.clone().into_owned());
        let id = one.packet_id.unwrap().get();
        packets = messages(sub.ask(&mut w, Packet::Puback(ack(id))));
    }
    assert_eq!(got, topics);
    assert_eq!(w.shared.retained_bytes.load(Ordering::Relaxed), 300 * 15);
}
