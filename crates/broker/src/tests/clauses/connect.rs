//! CONNECT and CONNACK, wills, keep alive and DISCONNECT.

use mqtt::packet::{Connect, Packet, SubscriptionOptions, Will};
use mqtt::{QoS, ReasonCode, Version};

use super::*;

/// [MQTT-3.1.4-1]; before version 5 without CONNACK [v3 MQTT-3.1.4-1], as no return code fits [v3 MQTT-3.2.2-6]. DISCONNECT comes
/// after CONNACK only [MQTT-3.14.0-1].
/// [MQTT-3.1.2-3], [v3 MQTT-3.1.2-3]
#[test]
fn a_connect_out_of_format_closes_the_connection() {
    let mut w = world(1);
    // the reserved flag is set, and a user name is announced and not there
    for connect in [
        &b"\x10\x0d\x00\x04MQTT\x04\x03\x00\x00\x00\x01x"[..],
        &b"\x10\x0d\x00\x04MQTT\x04\x82\x00\x00\x00\x01x"[..],
        &b"\x10\x0e\x00\x04MQTT\x05\x03\x00\x00\x00\x00\x01x"[..],
        &b"\x10\x0e\x00\x04MQTT\x05\x82\x00\x00\x00\x00\x01x"[..],
    ] {
        let link = w.open(0);
        w.write(link, connect);
        w.run();
        let (answer, closed) = w.read(link);
        assert!(closed, "{connect:?}");
        match answer.first() {
            None => {}
            Some(0x20) => assert!(connect[8] == 5 && answer[3] >= 0x80, "{answer:?}"),
            Some(_) => panic!("{answer:?}"),
        }
    }
}

/// A stop while a CONNECT is being served: the connection is closed, and no DISCONNECT goes before a CONNACK [MQTT-3.14.0-1].
#[test]
fn who_was_not_welcomed_gets_no_disconnect() {
    let mut w = world(1);
    w.pause(0, true);
    let peer = Peer::begin(&mut w, 0, kept(Version::V5, "c"));
    w.run();
    w.workers[0].shut_down();
    w.run();
    assert_eq!(peer.read(&mut w), []);
    w.pause(0, false);
    w.run();
    assert_eq!(peer.read(&mut w), []);
    assert!(w.is_closed(peer.link));
}

/// [MQTT-3.2.0-1], [MQTT-3.1.4-5], [v3 MQTT-3.2.0-1], [v3 MQTT-3.1.4-4]: CONNACK is first, however much is sent behind CONNECT;
/// and there is one [MQTT-3.2.0-2], also where CONNECT comes twice [MQTT-3.1.0-2], [v3 MQTT-3.1.0-2]. Its reserved bits are 0
/// [MQTT-3.2.2-1].
#[test]
fn the_first_answer_is_connack_and_it_is_the_only_one() {
    for version in BOTH {
        let mut w = world(1);
        let peer = Peer::begin(&mut w, 0, kept(version, "c"));
        peer.send(&mut w, subscribe(1, &[("a", SubscriptionOptions::default())]));
        peer.send(&mut w, Packet::Publish(message("a", QoS::AtMostOnce, 0, b"x")));
        peer.send(&mut w, Packet::Connect(Box::new(kept(version, "c"))));
        w.run();
        let (bytes, closed) = w.read(peer.link);
        assert!(closed);
        assert_eq!(bytes[2], 0, "acknowledge flags");
        let packets = crate::sim::world::packets(&bytes, version);
        let [Packet::Connack(connack), rest @ ..] = packets.as_slice() else { panic!("{packets:?}") };
        assert_eq!(connack.reason, ReasonCode::Success);
        assert!(!rest.iter().any(|packet| matches!(packet, Packet::Connack(_))), "{rest:?}");
        assert_eq!(messages(rest).len(), 1, "what came before the second CONNECT counts");

        let again = Peer::begin(&mut w, 0, kept(version, "c"));
        w.run();
        assert_eq!(w.read(again.link).0[2], 1, "Session Present and nothing else");
    }
}

/// [MQTT-3.1.4-6], [v3 MQTT-3.1.4-5]: what is sent behind a CONNECT that is refused is not looked at; the refusal has
/// Session Present 0 [MQTT-3.2.2-6], [v3 MQTT-3.2.2-4] and the door is closed [MQTT-3.2.2-7], [MQTT-4.13.2-1], [v3 MQTT-3.2.2-5].
/// Here by a method that is not offered [MQTT-4.12.0-1], and by an empty client id for a session that is to be kept
/// [v3 MQTT-3.1.3-8].
#[test]
fn nothing_behind_a_refused_connect_is_looked_at() {
    let mut w = world(1);
    let watcher = Peer::clean(&mut w, "watcher");
    watcher.subscribe(&mut w, "#", QoS::AtMostOnce);
    let mut method = kept(Version::V5, "c");
    method.properties.authentication_method = Some("SCRAM-SHA-1".into());
    let nobody = Connect { version: Version::V311, ..connect("", false, 0) };
    for (connect, reason) in
        [(method, ReasonCode::BadAuthenticationMethod), (nobody, ReasonCode::ClientIdentifierNotValid)]
    {
        let peer = Peer::begin(&mut w, 0, connect);
        peer.send(&mut w, Packet::Publish(message("a", QoS::AtLeastOnce, 1, b"x")));
        w.run();
        let answer = peer.read(&mut w);
        assert!(
            matches!(answer.as_slice(), [Packet::Connack(c)] if c.reason == reason && !c.session_present),
            "{answer:?}"
        );
        assert!(w.is_closed(peer.link));
        assert_eq!(watcher.read(&mut w), []);
    }
}

/// [MQTT-3.1.3-5], [v3 MQTT-3.1.3-5]
#[test]
fn every_client_id_of_letters_and_digits_is_allowed() {
    let all = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
    for version in [Version::V31, Version::V311, Version::V5] {
        let mut w = world(1);
        for client_id in [&all[..1], &all[..23], &all[23..46], &all[39..]] {
            let (_, connack) = Peer::connect(&mut w, 0, plain(version, client_id));
            assert_eq!(connack.reason, ReasonCode::Success, "{version} {client_id}");
        }
    }
}

/// [MQTT-3.1.3-2], [v3 MQTT-3.1.3-2]: a session belongs to its client id. It is resumed [MQTT-3.1.2-5], [v3 MQTT-3.1.2-4], made
/// where there is none [MQTT-3.1.2-6], or thrown away [MQTT-3.1.2-4], [v3 MQTT-3.1.2-6], as CONNECT says [MQTT-3.1.4-4],
/// [v3 MQTT-3.1.4-3]; Session Present tells which [MQTT-3.2.2-2], [MQTT-3.2.2-3], [v3 MQTT-3.2.2-1], [v3 MQTT-3.2.2-2],
/// [v3 MQTT-3.2.2-3].
#[test]
fn a_session_is_found_by_its_client_id_or_made_or_thrown_away() {
    for version in BOTH {
        let mut w = world(2);
        let publisher = Peer::clean(&mut w, "publisher");
        let mut visit = |client_id: &str, clean: bool, worker: usize| {
            let connect = Connect { clean_start: clean, ..kept(version, client_id) };
            let (peer, connack) = Peer::connect(&mut w, worker, connect);
            publish(&mut w, publisher, "a", "x");
            let subscribed = peer.payloads(&mut w) == ["x"];
            if !connack.session_present {
                assert!(!subscribed, "a new session has no subscriptions");
                peer.subscribe(&mut w, "a", QoS::AtMostOnce);
            }
            peer.cut(&mut w);
            (connack.session_present, subscribed)
        };
        assert_eq!(visit("a", false, 0), (false, false));
        assert_eq!(visit("b", false, 1), (false, false), "not the session of another");
        assert_eq!(visit("a", false, 1), (true, true));
        assert_eq!(visit("a", true, 0), (false, false));
        assert_eq!(visit("b", false, 0), (true, true), "still there");
    }
}

/// [v3 MQTT-3.1.2-6]: a session of version 3.1.1 that began clean ends with its connection.
#[test]
fn a_clean_session_is_not_resumed() {
    let mut w = world(1);
    let peer = join(&mut w, plain(Version::V311, "c"));
    peer.subscribe(&mut w, "a", QoS::AtLeastOnce);
    peer.cut(&mut w);
    let (_, connack) = Peer::connect(&mut w, 0, kept(Version::V311, "c"));
    assert!(!connack.session_present);
}

/// [MQTT-3.1.4-3], [v3 MQTT-3.1.4-2]: version 5 is told why with 0x8E, and the server closes [MQTT-3.14.4-2].
#[test]
fn a_second_connection_ends_the_first_in_every_version() {
    for (first, second) in [(Version::V311, Version::V5), (Version::V5, Version::V311)] {
        let mut w = world(2);
        let (before, _) = Peer::connect(&mut w, 0, plain(first, "c"));
        let (after, _) = Peer::connect(&mut w, 1, plain(second, "c"));
        let told = before.read(&mut w);
        match first {
            Version::V5 => assert!(
                matches!(told.as_slice(), [Packet::Disconnect(d)] if d.reason == ReasonCode::SessionTakenOver),
                "{told:?}"
            ),
            _ => assert_eq!(told, []),
        }
        assert!(w.is_closed(before.link));
        assert_eq!(after.ask(&mut w, Packet::Pingreq), [Packet::Pingresp]);
    }
}

/// [MQTT-3.1.2-14], [MQTT-3.1.2-15], [v3 MQTT-3.1.2-16], [v3 MQTT-3.1.2-17]; QoS, topic and payload are those of the CONNECT
/// [MQTT-3.1.2-9], [v3 MQTT-3.1.2-9].
#[test]
fn the_retain_flag_of_a_will_decides_whether_it_is_kept() {
    for version in BOTH {
        for retain in [false, true] {
            let mut w = world(1);
            let live = Peer::clean(&mut w, "live");
            live.subscribe(&mut w, "w", QoS::ExactlyOnce);
            let will = Will { retain, qos: QoS::ExactlyOnce, delay_interval: None, ..will("w", 0) };
            join(&mut w, Connect { will: Some(will), ..plain(version, "c") }).cut(&mut w);
            let got = messages(&live.read(&mut w));
            assert!(
                matches!(got.as_slice(), [p] if !p.retain && p.qos == QoS::ExactlyOnce && &*p.payload == b"will"),
                "{got:?}"
            );
            let late = Peer::clean(&mut w, "late");
            let kept = messages(&late.subscribe(&mut w, "w", QoS::AtMostOnce));
            assert_eq!(kept.iter().filter(|p| p.retain).count(), usize::from(retain), "{version} {kept:?}");
        }
    }
}

/// [v3 MQTT-3.1.2-8]: a will is published when the connection ends, once [v3 MQTT-3.1.2-10], unless the client said good-bye
/// [v3 MQTT-3.14.4-3]; and none where none was given [v3 MQTT-3.1.2-12].
#[test]
fn a_will_of_version_3_1_1_is_published_unless_its_client_said_good_bye() {
    let mut w = world(1);
    let watcher = Peer::clean(&mut w, "watcher");
    watcher.subscribe(&mut w, "w", QoS::AtMostOnce);
    let will = Will { delay_interval: None, ..will("w", 0) };
    let with_will = Connect { will: Some(will), ..plain(Version::V311, "c") };
    join(&mut w, with_will.clone()).cut(&mut w);
    assert_eq!(watcher.payloads(&mut w), ["will"]);
    join(&mut w, plain(Version::V311, "c")).cut(&mut w);
    assert_eq!(watcher.payloads(&mut w), [""; 0]);
    join(&mut w, with_will).disconnect(&mut w);
    assert_eq!(watcher.payloads(&mut w), [""; 0]);
}

/// [MQTT-3.1.3-10]; they are unaltered [MQTT-3.3.2-17].
#[test]
fn user_properties_of_a_will_keep_their_order() {
    let mut w = world(1);
    let watcher = Peer::clean(&mut w, "watcher");
    watcher.subscribe(&mut w, "w", QoS::AtMostOnce);
    let properties = vec![("b".into(), "1".into()), ("a".into(), "2".into()), ("b".into(), "1".into())];
    let mut will = will("w", 0);
    will.properties.user_properties = properties.clone();
    join(&mut w, Connect { will: Some(will), ..plain(Version::V5, "c") }).cut(&mut w);
    let got = messages(&watcher.read(&mut w));
    assert!(matches!(got.as_slice(), [p] if p.properties.read().user_properties == properties), "{got:?}");
}

/// [MQTT-3.2.2-22], [MQTT-3.1.2-22], [v3 MQTT-3.1.2-24]: the keep alive of the CONNECT counts where CONNACK says nothing else.
#[test]
fn the_keep_alive_of_the_client_counts_where_the_server_names_none() {
    for version in BOTH {
        let mut w = world(1);
        let (peer, connack) = Peer::connect(&mut w, 0, Connect { keep_alive: 10, ..plain(version, "c") });
        assert_eq!(connack.properties.server_keep_alive, None);
        w.advance(seconds(14));
        assert!(!w.is_closed(peer.link));
        w.advance(seconds(3));
        assert!(w.is_closed(peer.link));
    }
}

/// [MQTT-3.12.4-1], [v3 MQTT-3.12.4-1]
#[test]
fn pingreq_is_answered() {
    for version in BOTH {
        let mut w = world(1);
        let peer = join(&mut w, plain(version, "c"));
        assert_eq!(peer.ask(&mut w, Packet::Pingreq), [Packet::Pingresp]);
    }
}

/// [v3 MQTT-3.1.2-7]: what is retained belongs to no session.
#[test]
fn a_retained_message_outlives_the_session_of_its_publisher() {
    for version in BOTH {
        let mut w = world(1);
        let publisher = join(&mut w, plain(version, "c"));
        let retained = Publish { retain: true, ..message("a", QoS::AtMostOnce, 0, b"stays") };
        publisher.ask(&mut w, Packet::Publish(retained));
        publisher.disconnect(&mut w);
        let late = join(&mut w, plain(version, "late"));
        assert_eq!(payloads(&late.subscribe(&mut w, "a", QoS::AtMostOnce)), ["stays"]);
    }
}

/// [MQTT-3.2.2-19]: a Reason String goes out as long as the client takes a CONNACK of that size.
#[test]
fn a_reason_string_that_would_not_fit_is_left_out() {
    for (maximum, explained) in [(None, true), (Some(10), false)] {
        let mut w = world(1);
        let mut connect = plain(Version::V5, "c");
        connect.properties.authentication_method = Some("none".into());
        connect.properties.maximum_packet_size = maximum;
        let (_, connack) = Peer::connect(&mut w, 0, connect);
        assert_eq!(connack.reason, ReasonCode::BadAuthenticationMethod);
        assert_eq!(connack.properties.reason_string.is_some(), explained);
    }
}

/// [MQTT-4.12.0-6]: who names no method gets no AUTH, and no method in CONNACK; an AUTH of the client's own breaks the
/// protocol [MQTT-4.12.0-7].
#[test]
fn without_a_method_there_is_no_auth() {
    let mut w = world(1);
    let (peer, connack) = Peer::connect(&mut w, 0, plain(Version::V5, "c"));
    assert_eq!(connack.properties.authentication_method, None);
    w.write(peer.link, b"\xf0\x06\x18\x04\x15\x00\x01m");
    w.run();
    let told = peer.read(&mut w);
    assert!(
        matches!(told.as_slice(), [Packet::Disconnect(d)] if d.reason == ReasonCode::ProtocolError),
        "{told:?}"
    );
    assert!(w.is_closed(peer.link));
}
