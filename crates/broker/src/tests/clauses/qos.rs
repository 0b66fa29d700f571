//! Messages of QoS 1 and 2 out: packet ids, the send quota, what happens without an acknowledgement.

use mqtt::packet::{Ack, Packet, SubscriptionOptions};
use mqtt::{PacketId, QoS, ReasonCode, Version};

use super::*;

fn refusal(id: PacketId, reason: ReasonCode) -> Ack<'static> {
    Ack { packet_id: id, reason, properties: Default::default() }
}

/// Puts a subscriber with messages under way: one of QoS 1, one of QoS 2, one of QoS 2 with PUBREC; their ids.
fn under_way(w: &mut World, version: Version) -> (Peer, Vec<PacketId>) {
    let sub = join(w, kept(version, "sub"));
    sub.subscribe(w, "a", QoS::ExactlyOnce);
    let publisher = Peer::clean(w, "pub");
    for (id, qos) in [(1, QoS::AtLeastOnce), (2, QoS::ExactlyOnce), (3, QoS::ExactlyOnce)] {
        publisher.ask(w, Packet::Publish(message("a", qos, id, &[b'0' + id as u8])));
    }
    let ids: Vec<_> = messages(&sub.read(w)).iter().filter_map(|p| p.packet_id).collect();
    assert_eq!(ids.len(), 3);
    (sub, ids)
}

/// [MQTT-2.2.1-4], [v3 MQTT-2.3.1-4]: [MQTT-4.3.2-1], [MQTT-4.3.3-1], [v3 MQTT-4.3.2-1], [v3 MQTT-4.3.3-1]
#[test]
fn each_message_gets_a_packet_id_that_is_not_in_use() {
    for version in BOTH {
        let mut w = world(1);
        let (sub, ids) = under_way(&mut w, version);
        assert!(ids[0] != ids[1] && ids[1] != ids[2] && ids[0] != ids[2], "{ids:?}");
        sub.ask(&mut w, Packet::Puback(ack(ids[0].get())));
        let publisher = Peer::clean(&mut w, "another");
        for _ in 0..5 {
            publish(&mut w, publisher, "a", "x");
            let got = messages(&sub.read(&mut w));
            let [new] = got.as_slice() else { panic!("{got:?}") };
            let id = new.packet_id.unwrap();
            assert!(!ids[1..].contains(&id), "{id:?} is still in use");
            sub.ask(&mut w, Packet::Puback(ack(id.get())));
        }
    }
}

/// [MQTT-4.4.0-1], [v3 MQTT-4.4.0-1]: on a new connection, and at no other time, what is not acknowledged is sent again: PUBLISH until
/// PUBACK [MQTT-4.3.2-3], [v3 MQTT-4.3.2-1] or PUBREC [MQTT-4.3.3-3], with DUP [MQTT-3.3.1-1], [v3 MQTT-3.3.1-1]; after it PUBREL
/// [MQTT-4.3.3-4] until PUBCOMP [MQTT-4.3.3-5], and PUBLISH no more [MQTT-4.3.3-6], [v3 MQTT-4.3.3-1]. All in the order of before,
/// [MQTT-4.6.0-1], [v3 MQTT-4.6.0-1].
/// [v3 MQTT-2.3.1-4]
#[test]
fn what_is_not_acknowledged_is_sent_again_on_the_next_connection_only() {
    for version in BOTH {
        let mut w = world(1);
        let (mut sub, ids) = under_way(&mut w, version);
        let release = sub.ask(&mut w, Packet::Pubrec(ack(ids[2].get())));
        assert!(matches!(release.as_slice(), [Packet::Pubrel(a)] if a.packet_id == ids[2]), "{release:?}");
        w.advance(seconds(120));
        assert_eq!(sub.read(&mut w), [], "nothing is repeated while the connection stands");
        for _ in 0..2 {
            sub.cut(&mut w);
            w.advance(seconds(1));
            sub = Peer::begin(&mut w, 0, kept(version, "sub"));
            w.run();
            let again = sub.read(&mut w);
            let [Packet::Connack(_), Packet::Publish(one), Packet::Publish(two), Packet::Pubrel(three)] =
                again.as_slice()
            else {
                panic!("{version} {again:?}")
            };
            assert!(one.dup && two.dup);
            assert_eq!(
                [one.packet_id, two.packet_id, Some(three.packet_id)],
                [0, 1, 2].map(|n| Some(ids[n]))
            );
            assert_eq!((&*one.payload, &*two.payload), (&b"1"[..], &b"2"[..]));
        }
    }
}

/// [MQTT-4.4.0-2]: PUBACK and PUBREC of 0x80 or above end a message like any other.
#[test]
fn what_a_client_refuses_is_not_sent_again() {
    let mut w = world(1);
    let (sub, ids) = under_way(&mut w, Version::V5);
    assert_eq!(sub.ask(&mut w, Packet::Puback(refusal(ids[0], ReasonCode::UnspecifiedError))), []);
    assert_eq!(sub.ask(&mut w, Packet::Pubrec(refusal(ids[1], ReasonCode::QuotaExceeded))), []);
    assert_eq!(sub.ask(&mut w, Packet::Pubrec(refusal(ids[2], ReasonCode::PayloadFormatInvalid))), []);
    sub.cut(&mut w);
    let back = Peer::begin(&mut w, 0, kept(Version::V5, "sub"));
    w.run();
    assert!(matches!(back.read(&mut w).as_slice(), [Packet::Connack(_)]));
}

/// [MQTT-4.3.3-7]: what has been sent once is finished, however old it is by then.
#[test]
fn a_message_that_was_sent_does_not_expire() {
    let mut w = world(1);
    let sub = join(&mut w, kept(Version::V5, "sub"));
    sub.subscribe(&mut w, "a", QoS::ExactlyOnce);
    let publisher = Peer::clean(&mut w, "pub");
    let mut short = message("a", QoS::ExactlyOnce, 1, b"x");
    short.properties.edit(|p| p.message_expiry_interval = Some(2));
    publisher.ask(&mut w, Packet::Publish(short));
    let first = messages(&sub.read(&mut w));
    sub.cut(&mut w);
    w.advance(seconds(30));
    let back = Peer::begin(&mut w, 0, kept(Version::V5, "sub"));
    w.run();
    let again = messages(&back.read(&mut w));
    assert!(matches!(again.as_slice(), [p] if p.dup && p.packet_id == first[0].packet_id), "{again:?}");
}

/// [MQTT-4.9.0-1], [MQTT-4.9.0-2], [MQTT-3.3.4-9]: no more than Receive Maximum are under way. Everything else goes on at a quota of
/// 0 [MQTT-4.9.0-3], [MQTT-3.3.4-10]: answers, QoS 0, PUBREL.
#[test]
fn a_quota_of_zero_stops_messages_of_qos_1_and_2_and_nothing_else() {
    let mut w = world(1);
    let mut narrow = plain(Version::V5, "sub");
    narrow.properties.receive_maximum = Some(2);
    let sub = join(&mut w, narrow);
    sub.subscribe(&mut w, "a", QoS::ExactlyOnce);
    let publisher = Peer::clean(&mut w, "pub");
    for id in 1..=5 {
        publisher.ask(&mut w, Packet::Publish(message("a", QoS::ExactlyOnce, id, &[b'0' + id as u8])));
    }
    let first = messages(&sub.read(&mut w));
    assert_eq!(first.len(), 2);
    assert_eq!(sub.ask(&mut w, Packet::Pingreq), [Packet::Pingresp]);
    let answer = sub.ask(&mut w, subscribe(9, &[("b", SubscriptionOptions::default())]));
    assert!(matches!(answer.as_slice(), [Packet::Suback(_)]), "{answer:?}");
    let answer = sub.ask(&mut w, Packet::Publish(message("c", QoS::AtLeastOnce, 1, b"x")));
    assert!(matches!(answer.as_slice(), [Packet::Puback(_)]), "{answer:?}");
    publisher.ask(&mut w, Packet::Publish(message("b", QoS::AtMostOnce, 0, b"zero")));
    assert_eq!(sub.payloads(&mut w), ["zero"]);
    let id = first[0].packet_id.unwrap();
    assert!(matches!(sub.ask(&mut w, Packet::Pubrec(ack(id.get()))).as_slice(), [Packet::Pubrel(_)]));
    assert_eq!(payloads(&sub.ask(&mut w, Packet::Pubcomp(ack(id.get())))), ["3"]);
    let id = first[1].packet_id.unwrap();
    let refused = sub.ask(&mut w, Packet::Pubrec(refusal(id, ReasonCode::UnspecifiedError)));
    assert_eq!(payloads(&refused), ["4"], "a refusal gives its place back at once");
}
