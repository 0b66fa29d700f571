//! PUBLISH in: the answer, what is retained, what subscribers get of it.

use engine::{EngineError, Op};
use mqtt::packet::{Packet, Publish};
use mqtt::{QoS, ReasonCode, Version};

use super::*;

const ALL: [QoS; 3] = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce];

/// [MQTT-3.3.4-1], [v3 MQTT-3.3.4-1]: nothing, PUBACK [MQTT-4.3.2-4], or PUBREC [MQTT-4.3.3-8] and PUBCOMP [MQTT-4.3.3-11], each
/// with the id of the PUBLISH [MQTT-2.2.1-5], [v3 MQTT-2.3.1-6], [v3 MQTT-4.3.2-2], [v3 MQTT-4.3.3-2].
#[test]
fn a_publish_is_answered_as_its_qos_demands() {
    for version in BOTH {
        for connect in [plain(version, "transient"), kept(version, "durable")] {
            let mut w = world(1);
            let peer = join(&mut w, connect);
            let mut ask = |packet| peer.ask(&mut w, packet);
            assert_eq!(ask(Packet::Publish(message("a", QoS::AtMostOnce, 0, b"x"))), []);
            let answer = ask(Packet::Publish(message("a", QoS::AtLeastOnce, 7, b"x")));
            assert!(matches!(answer.as_slice(), [Packet::Puback(a)] if a.packet_id == pid(7)), "{answer:?}");
            let answer = ask(Packet::Publish(message("a", QoS::ExactlyOnce, 65_535, b"x")));
            assert!(
                matches!(answer.as_slice(), [Packet::Pubrec(a)] if a.packet_id == pid(65_535)),
                "{answer:?}"
            );
            let answer = ask(Packet::Pubrel(ack(65_535)));
            assert!(
                matches!(answer.as_slice(), [Packet::Pubcomp(a)] if a.packet_id == pid(65_535)),
                "{answer:?}"
            );
        }
    }
}

/// A packet id that was acknowledged names a new message, whatever DUP says [MQTT-4.3.2-5], [MQTT-4.3.3-12]; until then it
/// names the same one, which is answered and not handed on again [MQTT-4.3.3-10]. So before version 5, too [v3 MQTT-4.3.2-2],
/// [v3 MQTT-4.3.3-2].
#[test]
fn a_packet_id_is_free_again_when_its_message_is_acknowledged() {
    for version in BOTH {
        for connect in [plain(version, "transient"), kept(version, "durable")] {
            let mut w = world(1);
            let watcher = Peer::clean(&mut w, "watcher");
            watcher.subscribe(&mut w, "a", QoS::AtMostOnce);
            let peer = join(&mut w, connect);
            let mut send = |qos, dup, payload: &str| {
                let publish = Publish { dup, ..message("a", qos, 1, payload.as_bytes()) };
                assert_eq!(peer.ask(&mut w, Packet::Publish(publish)).len(), 1);
                if payload.ends_with('!') {
                    assert_eq!(peer.ask(&mut w, Packet::Pubrel(ack(1))).len(), 1);
                }
                watcher.payloads(&mut w)
            };
            assert_eq!(send(QoS::AtLeastOnce, false, "one"), ["one"]);
            assert_eq!(send(QoS::AtLeastOnce, true, "two"), ["two"]);
            let first = send(QoS::ExactlyOnce, false, "three");
            let repeated = send(QoS::ExactlyOnce, true, "three!");
            assert_eq!([first, repeated].concat(), ["three"], "on PUBLISH or on PUBREL, and once");
            assert_eq!(send(QoS::ExactlyOnce, true, "four!"), ["four!"]);
        }
    }
}

/// [MQTT-3.3.1-3], [v3 MQTT-3.3.1-3]: DUP belongs to one hop. The first transmission has none [MQTT-4.3.1-1], [MQTT-4.3.2-2],
/// [MQTT-4.3.3-2], [v3 MQTT-4.3.1-1], [v3 MQTT-4.3.2-1], [v3 MQTT-4.3.3-1], and QoS 0 never has [MQTT-3.3.1-2], [v3 MQTT-3.3.1-2].
#[test]
fn dup_of_a_publisher_is_not_passed_on() {
    for version in BOTH {
        let mut w = world(1);
        let sub = join(&mut w, plain(version, "sub"));
        sub.subscribe(&mut w, "a", QoS::ExactlyOnce);
        let publisher = join(&mut w, plain(version, "pub"));
        for (id, qos) in (0..).zip(ALL) {
            let publish = Publish { dup: id > 0, ..message("a", qos, id, b"x") };
            publisher.ask(&mut w, Packet::Publish(publish));
            let got = messages(&sub.read(&mut w));
            assert!(matches!(got.as_slice(), [p] if !p.dup && p.qos == qos), "{got:?}");
        }
    }
}

/// [MQTT-4.3.3-9]: a PUBREC of 0x80 or above ends the exchange.
#[test]
fn a_refused_message_of_qos_2_leaves_its_packet_id_free() {
    for connect in [plain(Version::V5, "transient"), kept(Version::V5, "durable")] {
        let mut w = world(1);
        let watcher = Peer::clean(&mut w, "watcher");
        watcher.subscribe(&mut w, "a", QoS::AtMostOnce);
        let peer = join(&mut w, connect);
        let refused = peer.ask(&mut w, Packet::Publish(message("$SYS/x", QoS::ExactlyOnce, 1, b"no")));
        assert!(matches!(refused.as_slice(), [Packet::Pubrec(a)] if a.reason == ReasonCode::NotAuthorized));
        let taken = peer.ask(&mut w, Packet::Publish(message("a", QoS::ExactlyOnce, 1, b"yes")));
        assert!(matches!(taken.as_slice(), [Packet::Pubrec(a)] if !a.reason.is_error()), "{taken:?}");
        assert!(matches!(peer.ask(&mut w, Packet::Pubrel(ack(1))).as_slice(), [Packet::Pubcomp(_)]));
        assert_eq!(watcher.payloads(&mut w), ["yes"]);
    }
}

/// [v3 MQTT-3.3.5-2]: version 3.1.1 cannot say no, so the connection is closed.
#[test]
fn a_message_that_is_not_allowed_ends_a_connection_of_version_3_1_1() {
    let mut w = world(1);
    let peer = join(&mut w, plain(Version::V311, "c"));
    assert_eq!(peer.ask(&mut w, Packet::Publish(message("$SYS/x", QoS::AtLeastOnce, 1, b"no"))), []);
    assert!(w.is_closed(peer.link));
}

/// [v3 MQTT-4.8.0-2]: and so it is after an error of our own; version 5 is told in the acknowledgement.
#[test]
fn a_message_that_cannot_be_taken_ends_a_connection_of_version_3_1_1() {
    for version in BOTH {
        let mut w = world(1);
        let peer = join(&mut w, plain(version, "c"));
        w.fail_next(|op| matches!(op, Op::Put { .. }), EngineError::Corrupt);
        let retained = Publish { retain: true, ..message("a", QoS::AtLeastOnce, 1, b"x") };
        let answer = peer.ask(&mut w, Packet::Publish(retained));
        assert_eq!(w.is_closed(peer.link), version == Version::V311);
        match version {
            Version::V5 => assert!(
                matches!(answer.as_slice(), [Packet::Puback(a)] if a.reason == ReasonCode::ImplementationSpecificError),
                "{answer:?}"
            ),
            _ => assert_eq!(answer, []),
        }
    }
}

/// [MQTT-4.3.3-13]: the exchange outlives its message.
#[test]
fn the_exchange_of_qos_2_goes_on_when_its_message_has_expired() {
    let mut w = world(1);
    let watcher = join(&mut w, kept(Version::V5, "watcher"));
    watcher.subscribe(&mut w, "a", QoS::AtLeastOnce);
    watcher.cut(&mut w);
    let peer = join(&mut w, kept(Version::V5, "c"));
    let mut publish = message("a", QoS::ExactlyOnce, 1, b"old");
    publish.properties.edit(|p| p.message_expiry_interval = Some(1));
    assert!(matches!(peer.ask(&mut w, Packet::Publish(publish)).as_slice(), [Packet::Pubrec(_)]));
    w.advance(seconds(5));
    let done = peer.ask(&mut w, Packet::Pubrel(ack(1)));
    assert!(matches!(done.as_slice(), [Packet::Pubcomp(a)] if a.reason == ReasonCode::Success), "{done:?}");
    let back = join(&mut w, kept(Version::V5, "watcher"));
    assert_eq!(back.payloads(&mut w), [""; 0]);
}

/// A message with RETAIN replaces what is retained [MQTT-3.3.1-5], an empty one removes it
/// [MQTT-3.3.1-6] and is not kept itself [MQTT-3.3.1-7], one without RETAIN changes nothing [MQTT-3.3.1-8]. In version 3.1.1:
/// [v3 MQTT-3.3.1-5], [v3 MQTT-3.3.1-6], [v3 MQTT-3.3.1-7], [v3 MQTT-3.3.1-10], [v3 MQTT-3.3.1-11], [v3 MQTT-3.3.1-12]. A new
/// subscriber sees RETAIN 1 [v3 MQTT-3.3.1-8], who is subscribed sees 0 [v3 MQTT-3.3.1-9], [MQTT-3.3.1-12].
#[test]
fn only_messages_with_retain_change_what_is_retained() {
    for version in BOTH {
        let mut w = world(1);
        let live = join(&mut w, plain(version, "live"));
        live.subscribe(&mut w, "a", QoS::AtLeastOnce);
        let publisher = join(&mut w, plain(version, "pub"));
        let steps = [
            (true, QoS::AtLeastOnce, "one", Some(("one", QoS::AtLeastOnce))),
            (false, QoS::AtLeastOnce, "two", Some(("one", QoS::AtLeastOnce))),
            (true, QoS::AtMostOnce, "three", Some(("three", QoS::AtMostOnce))),
            (false, QoS::AtMostOnce, "", Some(("three", QoS::AtMostOnce))),
            (true, QoS::AtLeastOnce, "", None),
        ];
        for (retain, qos, payload, kept) in steps {
            let publish =
                Publish { retain, ..message("a", qos, u16::from(qos > QoS::AtMostOnce), payload.as_bytes()) };
            publisher.ask(&mut w, Packet::Publish(publish));
            let seen = messages(&live.read(&mut w));
            assert!(
                matches!(seen.as_slice(), [p] if !p.retain && &*p.payload == payload.as_bytes()),
                "{seen:?}"
            );
            if let Some(id) = seen[0].packet_id {
                live.ask(&mut w, Packet::Puback(ack(id.get())));
            }
            let late = join(&mut w, plain(version, "late"));
            let found: Vec<_> = messages(&late.subscribe(&mut w, "a", QoS::ExactlyOnce))
                .iter()
                .map(|p| (String::from_utf8_lossy(&p.payload).into_owned(), p.qos, p.retain))
                .collect();
            let kept: Vec<_> = kept.iter().map(|&(text, qos)| (text.to_owned(), qos, true)).collect();
            assert_eq!(found, kept, "{version} after {payload:?}");
        }
    }
}

/// [MQTT-1.5.4-3], [v3 MQTT-1.5.3-3]: U+FEFF is a character like any other. A topic is compared [MQTT-4.7.3-4], [v3 MQTT-4.7.3-4]
/// and passed on as it is, and comes to those only whose filter it matches [MQTT-3.3.2-3], [v3 MQTT-3.3.2-3].
#[test]
fn a_topic_arrives_as_it_was_sent() {
    for version in BOTH {
        let mut w = world(1);
        let plainly = join(&mut w, plain(version, "plainly"));
        plainly.subscribe(&mut w, "a", QoS::AtMostOnce);
        let marked = join(&mut w, plain(version, "marked"));
        marked.subscribe(&mut w, "\u{feff}a", QoS::AtMostOnce);
        let publisher = join(&mut w, plain(version, "pub"));
        publisher.ask(&mut w, Packet::Publish(message("\u{feff}a", QoS::AtMostOnce, 0, b"x")));
        assert_eq!(plainly.read(&mut w), []);
        let got = messages(&marked.read(&mut w));
        assert!(matches!(got.as_slice(), [p] if p.topic == "\u{feff}a"), "{got:?}");
    }
}

/// [MQTT-4.6.0-5], [MQTT-4.6.0-6], [v3 MQTT-4.6.0-5], [v3 MQTT-4.6.0-6]: for every topic and QoS, whether the subscriber's session
/// ends with its connection or not.
#[test]
fn messages_keep_the_order_of_their_publisher() {
    for version in BOTH {
        for subscriber in [plain(version, "transient"), kept(version, "durable")] {
            let mut w = world(2);
            let sub = join(&mut w, subscriber);
            sub.subscribe(&mut w, "+", QoS::ExactlyOnce);
            let publisher = Peer::connect(&mut w, 1, plain(version, "pub")).0;
            let order = |qos: QoS| (0..20).map(move |n| format!("{} {n}", qos as u8));
            for qos in ALL {
                for (id, payload) in (1..).zip(order(qos)) {
                    let id = if qos == QoS::AtMostOnce { 0 } else { id };
                    publisher.send(&mut w, Packet::Publish(message("a", qos, id, payload.as_bytes())));
                }
                w.run();
                assert_eq!(sub.payloads(&mut w), order(qos).collect::<Vec<_>>(), "{version}");
                for id in 1..=20 {
                    publisher.ask(&mut w, Packet::Pubrel(ack(id)));
                }
            }
        }
    }
}

/// Who has no Topic Alias Maximum gets no alias [MQTT-3.1.2-27], also of a message that was published through one.
/// [MQTT-3.3.2-11]
#[test]
fn a_client_that_wants_no_aliases_gets_none() {
    let mut w = world(1);
    let sub = join(&mut w, plain(Version::V5, "sub"));
    sub.subscribe(&mut w, "a", QoS::AtMostOnce);
    let publisher = Peer::clean(&mut w, "pub");
    for _ in 0..3 {
        publisher.ask(&mut w, Packet::Publish(message("a", QoS::AtMostOnce, 0, b"x")));
    }
    let got = messages(&sub.read(&mut w));
    assert_eq!(got.len(), 3);
    assert!(got.iter().all(|p| p.properties.topic_alias().is_none() && p.topic == "a"), "{got:?}");
}
