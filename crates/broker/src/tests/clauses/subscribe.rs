//! SUBSCRIBE and UNSUBSCRIBE: every filter gets its answer, and what changes with it.

use mqtt::packet::{Packet, SubscriptionOptions, Unsubscribe};
use mqtt::{QoS, ReasonCode, Version};

use super::*;

fn at(qos: QoS) -> SubscriptionOptions {
    SubscriptionOptions { qos, ..SubscriptionOptions::default() }
}

fn unsubscribe(id: u16, filters: &[&str]) -> Packet<'static> {
    let filters = filters.iter().map(|filter| (*filter).to_owned().into()).collect();
    Packet::Unsubscribe(Unsubscribe { packet_id: pid(id), user_properties: vec![], filters })
}

/// [MQTT-3.8.4-1], [MQTT-3.8.4-5], [v3 MQTT-3.8.4-1], [v3 MQTT-3.8.4-4]: one SUBACK, with the id [MQTT-3.8.4-2], [MQTT-2.2.1-6],
/// [v3 MQTT-3.8.4-2], [v3 MQTT-2.3.1-7] and a code for each filter [MQTT-3.8.4-6], [v3 MQTT-3.8.4-5] in their order
/// [MQTT-3.9.3-1], [v3 MQTT-3.9.3-1]: the QoS that is granted, or the failure [MQTT-3.8.4-7], [MQTT-3.9.3-2], [v3 MQTT-3.9.3-2].
#[test]
fn several_filters_count_as_several_packets_with_one_answer() {
    for version in BOTH {
        for connect in [plain(version, "transient"), kept(version, "durable")] {
            let mut w = world(1);
            let peer = join(&mut w, connect);
            let filters = [
                ("a", at(QoS::ExactlyOnce)),
                ("b/#/c", at(QoS::AtMostOnce)),
                ("d", at(QoS::AtLeastOnce)),
                ("e", at(QoS::AtMostOnce)),
            ];
            let answer = peer.ask(&mut w, subscribe(513, &filters));
            let [Packet::Suback(suback)] = answer.as_slice() else { panic!("{answer:?}") };
            assert_eq!(suback.packet_id, pid(513));
            let failure =
                if version.is_v5() { ReasonCode::TopicFilterInvalid } else { ReasonCode::UnspecifiedError };
            let expected = [ReasonCode::GrantedQos2, failure, ReasonCode::GrantedQos1, ReasonCode::Success];
            assert_eq!(suback.reasons, expected, "{version}");
            let publisher = Peer::clean(&mut w, "pub");
            for topic in ["a", "b/c", "d", "e"] {
                publisher.ask(&mut w, Packet::Publish(message(topic, QoS::AtMostOnce, 0, topic.as_bytes())));
            }
            assert_eq!(peer.payloads(&mut w), ["a", "d", "e"]);
        }
    }
}

/// [MQTT-3.8.4-8], [v3 MQTT-3.8.4-6]
#[test]
fn a_message_comes_at_the_lower_of_both_qos() {
    let all = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce];
    for version in BOTH {
        for connect in [plain(version, "transient"), kept(version, "durable")] {
            let mut w = world(1);
            let sub = join(&mut w, connect);
            let publisher = Peer::clean(&mut w, "pub");
            for (id, published) in (0..).zip(all) {
                for granted in all {
                    sub.subscribe(&mut w, "a", granted);
                    publisher.ask(&mut w, Packet::Publish(message("a", published, id, b"x")));
                    let got = messages(&sub.read(&mut w));
                    assert!(matches!(got.as_slice(), [p] if p.qos == published.min(granted)), "{got:?}");
                    if published == QoS::ExactlyOnce {
                        publisher.ask(&mut w, Packet::Pubrel(ack(id)));
                    }
                }
            }
        }
    }
}

/// [MQTT-3.8.4-3], [v3 MQTT-3.8.4-3]: the later subscription holds, alone. What is retained comes again [MQTT-3.8.4-4],
/// [MQTT-3.3.1-9], and no message is lost over it.
#[test]
fn a_subscription_that_is_replaced_gets_retained_messages_again_and_loses_nothing() {
    for version in BOTH {
        for connect in [plain(version, "transient"), kept(version, "durable")] {
            let mut w = world(1);
            let publisher = Peer::clean(&mut w, "pub");
            let retained = Publish { retain: true, ..message("a", QoS::AtLeastOnce, 1, b"kept") };
            publisher.ask(&mut w, Packet::Publish(retained));
            let sub = join(&mut w, connect);
            assert_eq!(payloads(&sub.subscribe(&mut w, "a", QoS::AtMostOnce)), ["kept"]);
            // in one go: before, at and after the change
            for n in 1..=3_u16 {
                publisher.send(&mut w, Packet::Publish(message("a", QoS::AtLeastOnce, n, &[b'0' + n as u8])));
                if n == 2 {
                    sub.send(&mut w, subscribe(1, &[("a", at(QoS::AtLeastOnce))]));
                }
            }
            w.run();
            let mut got = sub.payloads(&mut w);
            got.sort_unstable();
            assert_eq!(got, ["1", "2", "3", "kept"], "{version}");
            publisher.ask(&mut w, Packet::Publish(message("a", QoS::AtLeastOnce, 4, b"4")));
            let got = messages(&sub.read(&mut w));
            assert!(matches!(got.as_slice(), [p] if p.qos == QoS::AtLeastOnce), "one copy: {got:?}");
        }
    }
}

/// [MQTT-3.3.4-2], [v3 MQTT-3.3.5-1]: overlapping subscriptions get one copy, at the highest QoS among them.
#[test]
fn overlapping_subscriptions_give_the_highest_qos() {
    for version in BOTH {
        let mut w = world(1);
        let sub = join(&mut w, plain(version, "sub"));
        let filters =
            [("a/#", at(QoS::AtMostOnce)), ("a/b", at(QoS::ExactlyOnce)), ("+/b", at(QoS::AtLeastOnce))];
        sub.ask(&mut w, subscribe(1, &filters));
        let publisher = Peer::clean(&mut w, "pub");
        publisher.ask(&mut w, Packet::Publish(message("a/b", QoS::ExactlyOnce, 1, b"x")));
        let got = messages(&sub.read(&mut w));
        assert!(matches!(got.as_slice(), [p] if p.qos == QoS::ExactlyOnce), "{got:?}");
    }
}

/// [MQTT-3.10.4-4], [MQTT-3.10.4-6], [v3 MQTT-3.10.4-4], [v3 MQTT-3.10.4-6]: one UNSUBACK with the id [MQTT-3.10.4-5], [MQTT-2.2.1-6],
/// [v3 MQTT-2.3.1-7], also where nothing was subscribed [v3 MQTT-3.10.4-5]; version 5 has a code for each filter in its place
/// [MQTT-3.11.3-1], [MQTT-3.11.3-2]. Filters are compared byte for byte [MQTT-3.10.4-1], [v3 MQTT-3.10.4-1].
#[test]
fn unsubscribe_takes_exactly_what_it_names_and_is_always_answered() {
    for version in BOTH {
        for connect in [plain(version, "transient"), kept(version, "durable")] {
            let mut w = world(1);
            let peer = join(&mut w, connect);
            for filter in ["a/+", "b", "c"] {
                peer.subscribe(&mut w, filter, QoS::AtMostOnce);
            }
            let answer = peer.ask(&mut w, unsubscribe(77, &["a/b", "a/#", "b", "B"]));
            let [Packet::Unsuback(unsuback)] = answer.as_slice() else { panic!("{answer:?}") };
            assert_eq!(unsuback.packet_id, pid(77));
            if version.is_v5() {
                let none = ReasonCode::NoSubscriptionExisted;
                assert_eq!(unsuback.reasons, [none, none, ReasonCode::Success, none]);
            }
            let publisher = Peer::clean(&mut w, "pub");
            for topic in ["a/b", "b", "c"] {
                publisher.ask(&mut w, Packet::Publish(message(topic, QoS::AtMostOnce, 0, topic.as_bytes())));
            }
            assert_eq!(peer.payloads(&mut w), ["a/b", "c"]);
            assert_eq!(peer.ask(&mut w, unsubscribe(78, &["a/+", "c"])).len(), 1);
            publisher.ask(&mut w, Packet::Publish(message("a/b", QoS::AtMostOnce, 0, b"x")));
            assert_eq!(peer.read(&mut w), []);
            let answer = peer.ask(&mut w, unsubscribe(79, &["nothing"]));
            assert!(
                matches!(answer.as_slice(), [Packet::Unsuback(u)] if u.packet_id == pid(79)),
                "{answer:?}"
            );
        }
    }
}

/// [MQTT-3.10.4-2], [v3 MQTT-3.10.4-2]: nothing new is sent; what was begun is finished [MQTT-3.10.4-3], [v3 MQTT-3.10.4-3], also on
/// the next connection.
#[test]
fn after_unsubscribe_nothing_begins_and_what_has_begun_is_finished() {
    for version in BOTH {
        let mut w = world(1);
        let sub = join(&mut w, kept(version, "sub"));
        sub.subscribe(&mut w, "a", QoS::ExactlyOnce);
        let publisher = Peer::clean(&mut w, "pub");
        for (id, payload) in [(1, b"one"), (2, b"two")] {
            publisher.ask(&mut w, Packet::Publish(message("a", QoS::ExactlyOnce, id, payload)));
        }
        let begun: Vec<_> = messages(&sub.read(&mut w)).iter().filter_map(|p| p.packet_id).collect();
        assert_eq!(begun.len(), 2);
        assert!(matches!(sub.ask(&mut w, unsubscribe(5, &["a"])).as_slice(), [Packet::Unsuback(_)]));
        publisher.ask(&mut w, Packet::Publish(message("a", QoS::ExactlyOnce, 3, b"three")));
        assert_eq!(sub.read(&mut w), []);
        let released = sub.ask(&mut w, Packet::Pubrec(ack(begun[0].get())));
        assert!(
            matches!(released.as_slice(), [Packet::Pubrel(a)] if a.packet_id == begun[0]),
            "{released:?}"
        );
        assert_eq!(sub.ask(&mut w, Packet::Pubcomp(ack(begun[0].get()))), []);
        sub.cut(&mut w);
        let back = Peer::begin(&mut w, 0, kept(version, "sub"));
        w.run();
        let again = messages(&back.read(&mut w));
        assert!(
            matches!(again.as_slice(), [p] if p.packet_id == Some(begun[1]) && &*p.payload == b"two"),
            "{again:?}"
        );
    }
}

/// No shared subscription of a version that has none: `$share/g/a` of a client of 3.1.1 is refused like any filter that is not
/// served, and harms nobody [v3 MQTT-3.8.4-5].
#[test]
fn each_code_stands_for_its_filter_before_version_5() {
    let mut w = world(1);
    let peer = join(&mut w, plain(Version::V311, "c"));
    let answer = peer.ask(&mut w, subscribe(3, &[("a+", at(QoS::AtMostOnce)), ("b", at(QoS::AtLeastOnce))]));
    assert!(
        matches!(answer.as_slice(), [Packet::Suback(s)]
            if s.reasons == [ReasonCode::UnspecifiedError, ReasonCode::GrantedQos1]),
        "{answer:?}"
    );
}
