//! What the specifications demand of clients in so many words, in the versions that demand it.

use mqtt::codec::encode;
use mqtt::packet::{Publish, PublishProperties};

use super::*;

fn incoming(qos: QoS, id: u16) -> Packet<'static> {
    Packet::Publish(Publish {
        dup: false,
        qos,
        retain: false,
        topic: "a".into(),
        packet_id: PacketId::new(id),
        properties: PublishProperties::default().into(),
        payload: b"x"[..].into(),
    })
}

/// The packets that the machine wants to send, taken.
fn sent(world: &mut World) -> Vec<Packet<'static>> {
    let len = world.machine.output().len();
    let bytes = world.machine.output()[..len].to_vec();
    world.machine.written(len, world.now);
    let mut rest = &bytes[..];
    let mut packets = Vec::new();
    while let Decoded::Packet(packet, len) =
        decode(rest, world.peer.version, Role::Client, u32::MAX).expect("legal packets")
    {
        packets.push(packet.into_owned());
        rest = &rest[len..];
    }
    packets
}

fn hand_over(world: &mut World) {
    let bytes = std::mem::take(&mut world.peer.output);
    world.machine.receive(&bytes, world.now);
    world.drain();
}

/// [MQTT-4.5.0-2], [v3 MQTT-4.5.0-2]: each message is acknowledged by its QoS, PUBACK [MQTT-4.6.0-2], [v3 MQTT-4.6.0-2], PUBREC
/// [MQTT-4.6.0-3], [v3 MQTT-4.6.0-3] and PUBREL [MQTT-4.6.0-4], [v3 MQTT-4.6.0-4] in the order of what they answer.
#[test]
fn acknowledgements_go_out_in_the_order_of_what_they_answer() {
    for version in [Version::V311, Version::V5] {
        let mut world = World::connected(options(version));
        for (id, qos) in [(9, 1), (4, 2), (7, 0), (8, 1), (2, 2), (3, 1)] {
            world.peer.send(&incoming(QoS::from_u8(qos).unwrap(), if qos == 0 { 0 } else { id }));
        }
        hand_over(&mut world);
        let mut acks = Vec::new();
        for packet in sent(&mut world) {
            match packet {
                Packet::Puback(ack) => acks.push(("PUBACK", ack.packet_id.get())),
                Packet::Pubrec(ack) => acks.push(("PUBREC", ack.packet_id.get())),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(acks, [("PUBACK", 9), ("PUBREC", 4), ("PUBACK", 8), ("PUBREC", 2), ("PUBACK", 3)]);

        world.peer.acknowledges = false;
        for token in 0..3 {
            world.publish("up", QoS::ExactlyOnce, token);
        }
        let ids: Vec<_> = sent(&mut world)
            .into_iter()
            .map(|packet| match packet {
                Packet::Publish(publish) => publish.packet_id.unwrap(),
                other => panic!("{other:?}"),
            })
            .collect();
        for &id in ids.iter().rev() {
            encode::pubrec(version, id, ReasonCode::Success, &mut world.peer.output);
        }
        hand_over(&mut world);
        let released: Vec<_> = sent(&mut world)
            .into_iter()
            .map(|packet| match packet {
                Packet::Pubrel(ack) => ack.packet_id,
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(released, ids.into_iter().rev().collect::<Vec<_>>(), "in the order of the PUBRECs");
    }
}

/// [MQTT-3.3.4-8]: a full window holds back messages and nothing else.
#[test]
fn a_full_window_delays_no_other_packet() {
    let mut world = World::new(options(Version::V5));
    world.peer.connack.receive_maximum = Some(1);
    world.peer.acknowledges = false;
    world.connect();
    world.settle();
    world.publish("x", QoS::AtLeastOnce, 0);
    sent(&mut world);
    assert!(!world.machine.can_publish(QoS::AtLeastOnce));
    let request = SubscribeRequest {
        subscriptions: vec![crate::Subscription::new("a", QoS::AtMostOnce)],
        ..SubscribeRequest::default()
    };
    world.machine.subscribe(request, 1);
    world.peer.send(&incoming(QoS::AtLeastOnce, 1));
    hand_over(&mut world);
    let packets = sent(&mut world);
    assert!(matches!(packets.as_slice(), [Packet::Subscribe(_), Packet::Puback(_)]), "{packets:?}");
}

/// [v3 MQTT-2.3.1-3], [v3 MQTT-3.3.1-1]: what is sent again keeps its id and has DUP; what is new gets another id
/// [v3 MQTT-2.3.1-2], which is never 0 [v3 MQTT-2.3.1-1].
#[test]
fn what_is_sent_again_keeps_its_id() {
    let mut world = World::connected(options(Version::V311));
    world.peer.acknowledges = false;
    world.publish("one", QoS::AtLeastOnce, 0);
    world.settle();
    world.connect();
    world.settle();
    world.publish("two", QoS::AtLeastOnce, 1);
    world.settle();
    let publishes: Vec<_> =
        world.peer.publishes.iter().map(|(text, id, dup)| (&text[..], *id, *dup)).collect();
    assert_eq!(publishes, [("one", Some(1), false), ("one", Some(1), true), ("two", Some(2), false)]);
}

/// [MQTT-3.14.4-1], [v3 MQTT-3.14.4-2]: DISCONNECT is the last packet, and the connection is closed behind it [MQTT-3.14.4-2],
/// [v3 MQTT-3.14.4-1].
#[test]
fn nothing_is_sent_behind_disconnect() {
    for version in [Version::V311, Version::V5] {
        let mut world = World::connected(options(version));
        world.machine.disconnect(Goodbye::default());
        world.peer.send(&incoming(QoS::AtLeastOnce, 1));
        hand_over(&mut world);
        world.advance(Duration::from_secs(120));
        world.machine.tick(world.now);
        assert!(world.machine.wants_close());
        let packets = sent(&mut world);
        assert!(matches!(packets.as_slice(), [Packet::Disconnect(_)]), "{packets:?}");
    }
}

/// [MQTT-3.1.2-20], [v3 MQTT-3.1.2-23]: three quarters of the interval without another packet, and a PINGREQ goes out.
#[test]
fn an_idle_client_sends_pingreq_within_its_keep_alive() {
    for version in [Version::V311, Version::V5] {
        let mut world = World::connected(Options { keep_alive: 20, ..options(version) });
        world.advance(Duration::from_secs(20));
        world.machine.tick(world.now);
        assert_eq!(sent(&mut world), [Packet::Pingreq]);
    }
}

/// [MQTT-3.1.0-1], [v3 MQTT-3.1.0-1]: CONNECT goes first, whatever was asked for before.
#[test]
fn connect_is_the_first_packet() {
    for version in [Version::V311, Version::V5] {
        let mut world = World::new(options(version));
        world.connect();
        let packets = sent(&mut world);
        assert!(matches!(packets.as_slice(), [Packet::Connect(_)]), "{packets:?}");
        assert!(!world.machine.can_publish(QoS::AtLeastOnce), "not before CONNACK");
    }
}
