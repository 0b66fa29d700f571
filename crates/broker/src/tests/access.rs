//! Who may connect and what they may do, at the broker's side of it: phases, answers, what is told.

use std::path::Path;
use std::sync::Arc;

use access::{Algorithm, PasswordHash, Rules, Users};
use mqtt::packet::{Packet, SubscriptionOptions};
use mqtt::{QoS, ReasonCode, Version};
use runtime::events::Event;

use super::rig::*;
use crate::config::{BrokerConfig, DenyAction};
use crate::refusal::Refusal;
use crate::sim::world::World;

fn users(list: &[(&str, &str)]) -> Arc<Users> {
    let line = |(name, password): &(&str, &str)| {
        let hash = PasswordHash::new(Algorithm::Pbkdf2 { iterations: 1 }, password.as_bytes()).unwrap();
        format!("{name}:{hash}\n")
    };
    let text: String = list.iter().map(line).collect();
    Arc::new(Users::parse(Path::new("users.txt"), &text).unwrap())
}

fn rules(text: &str) -> Arc<Rules> {
    Arc::new(Rules::parse(Path::new("acl.toml"), text).unwrap())
}

fn world_with(change: impl FnOnce(&mut BrokerConfig)) -> World {
    let mut config = BrokerConfig::default();
    change(&mut config);
    World::new(1, 1, config)
}

/// A broker where alice has the password `secret`.
fn guarded(allow_anonymous: bool) -> World {
    world_with(|c| {
        c.access.users = Some(users(&[("alice", "secret")]));
        c.listeners[0].allow_anonymous = allow_anonymous;
    })
}

fn login(client_id: &str, name: Option<&str>, password: Option<&str>) -> mqtt::packet::Connect<'static> {
    let mut connect = connect(client_id, true, 0);
    connect.username = name.map(|name| name.to_owned().into());
    connect.password = password.map(|password| password.as_bytes().to_vec().into());
    connect
}

/// The Reason Code of the CONNACK.
#[track_caller]
fn answer(w: &mut World, connect: mqtt::packet::Connect<'static>) -> ReasonCode {
    let peer = Peer::begin(w, 0, connect);
    w.run();
    reason(w, peer)
}

#[track_caller]
fn reason(w: &mut World, peer: Peer) -> ReasonCode {
    match peer.read(w).as_slice() {
        [Packet::Connack(connack)] => {
            assert_eq!(connack.reason.is_error(), w.is_closed(peer.link));
            connack.reason
        }
        other => panic!("{other:?}"),
    }
}

fn compared(w: &World) -> (u64, u64) {
    (w.shared.verifier.compared(), w.shared.verifier.remembered())
}

#[test]
fn only_the_right_password_opens_the_door() {
    use ReasonCode::{BadUserNameOrPassword, NotAuthorized, Success};
    for (name, password, closed, open) in [
        (Some("alice"), Some("secret"), Success, Success),
        (Some("alice"), Some("Secret"), BadUserNameOrPassword, BadUserNameOrPassword),
        (Some("alice"), Some(""), BadUserNameOrPassword, BadUserNameOrPassword),
        (Some("alice"), None, BadUserNameOrPassword, BadUserNameOrPassword),
        (Some("mallory"), Some("secret"), BadUserNameOrPassword, BadUserNameOrPassword),
        (Some(""), Some("secret"), BadUserNameOrPassword, BadUserNameOrPassword),
        (None, None, NotAuthorized, Success),
    ] {
        for (allow_anonymous, expected) in [(false, closed), (true, open)] {
            let mut w = guarded(allow_anonymous);
            let got = answer(&mut w, login("c", name, password));
            assert_eq!(got, expected, "{name:?} {password:?} {allow_anonymous}");
        }
    }
}

/// Return code 4 for a wrong password as EMQX has it, 5 for nobody, in the numbers of 3.1.1 (table 3.1).
#[test]
fn older_clients_get_the_return_codes_they_know() {
    for version in [Version::V31, Version::V311] {
        for (name, password, code) in [(Some("alice"), Some("x"), 4), (None, None, 5)] {
            let mut w = guarded(false);
            let peer =
                Peer::begin(&mut w, 0, mqtt::packet::Connect { version, ..login("c", name, password) });
            w.run();
            assert_eq!(w.read(peer.link), (vec![0x20, 2, 0, code], true));
        }
    }
}

#[test]
fn where_there_is_no_password_file_a_user_name_opens_what_is_open_anyway() {
    for (allow_anonymous, expected) in [(true, ReasonCode::Success), (false, ReasonCode::NotAuthorized)] {
        let mut w = world_with(|c| c.listeners[0].allow_anonymous = allow_anonymous);
        assert_eq!(answer(&mut w, login("c", Some("anybody"), Some("anything"))), expected);
        assert_eq!(compared(&w).0, 0);
    }
}

/// Otherwise everybody could end everybody's connection.
#[test]
fn a_wrong_password_takes_nobodys_session_over() {
    let mut w = guarded(false);
    let (peer, _) = Peer::connect(&mut w, 0, login("car", Some("alice"), Some("secret")));
    assert_eq!(answer(&mut w, login("car", Some("alice"), Some("wrong"))), ReasonCode::BadUserNameOrPassword);
    assert_eq!(peer.ask(&mut w, Packet::Pingreq), [Packet::Pingresp]);
    assert_eq!(w.shared.registry.len(), 1);
}

/// What a client sends behind its CONNECT waits until the CONNECT is answered [MQTT-3.1.4-5].
#[test]
fn what_follows_a_connect_waits_until_its_password_is_compared() {
    let mut w = guarded(false);
    w.passwords_wait = true;
    let peer = Peer::begin(&mut w, 0, login("c", Some("alice"), Some("secret")));
    peer.send(&mut w, Packet::Pingreq);
    w.write(peer.link, &[0xC0, 0].repeat(100_000));
    w.run();
    assert_eq!(peer.read(&mut w), []);
    assert!(w.unread(peer.link) > 190_000, "it is not read meanwhile");
    w.passwords_wait = false;
    w.run();
    let got = peer.read(&mut w);
    assert!(matches!(got.first(), Some(Packet::Connack(c)) if c.reason == ReasonCode::Success));
    assert_eq!(got.len(), 100_002, "the answers to all it has asked");
}

#[test]
fn who_goes_before_its_password_is_compared_costs_nothing_more() {
    let mut w = guarded(false);
    w.passwords_wait = true;
    let peer = Peer::begin(&mut w, 0, login("c", Some("alice"), Some("secret")));
    w.run();
    w.reset(peer.link);
    w.passwords_wait = false;
    w.run();
    assert_eq!((compared(&w).0, w.shared.registry.len(), w.workers[0].conns.len()), (0, 0, 0));
    assert!(
        w.events()
            .iter()
            .any(|e| matches!(e, Event::ClientRefused { clientid: Some(id), .. } if **id == *"c"))
    );
}

#[test]
fn who_waits_too_long_is_told_to_come_again() {
    let mut w = guarded(false);
    w.passwords_wait = true;
    let peer = Peer::begin(&mut w, 0, login("c", Some("alice"), Some("secret")));
    w.advance(seconds(9));
    assert_eq!(peer.read(&mut w), []);
    w.advance(seconds(12));
    assert_eq!(reason(&mut w, peer), ReasonCode::ServerBusy);
    w.passwords_wait = false;
    w.run();
    assert_eq!(compared(&w).0, 0);
}

#[test]
fn beyond_the_queue_clients_are_told_that_the_server_is_busy() {
    let mut w = world_with(|c| {
        c.access.users = Some(users(&[("alice", "secret")]));
        c.access.verifier.waiting = 2;
    });
    w.passwords_wait = true;
    let peers: Vec<Peer> = (0..3)
        .map(|n| Peer::begin(&mut w, 0, login(&n.to_string(), Some("alice"), Some("secret"))))
        .collect();
    w.run();
    assert_eq!(reason(&mut w, peers[2]), ReasonCode::ServerBusy);
    w.passwords_wait = false;
    w.run();
    for peer in &peers[..2] {
        assert_eq!(reason(&mut w, *peer), ReasonCode::Success);
    }
}

#[test]
fn a_fleet_that_comes_back_is_not_compared_again() {
    let mut w = guarded(false);
    for round in 0..3 {
        for n in 0..10 {
            let id = format!("{round}-{n}");
            assert_eq!(answer(&mut w, login(&id, Some("alice"), Some("secret"))), ReasonCode::Success);
        }
    }
    assert_eq!(compared(&w), (1, 29));
    assert_eq!(answer(&mut w, login("x", Some("alice"), Some("wrong"))), ReasonCode::BadUserNameOrPassword);
}

/// A password that was changed is worth nothing from the reload on, remembered or not.
#[test]
fn a_reload_counts_for_the_next_connect() {
    let mut w = guarded(false);
    assert_eq!(answer(&mut w, login("a", Some("alice"), Some("secret"))), ReasonCode::Success);
    let mut config = BrokerConfig::default();
    config.access.users = Some(users(&[("alice", "new")]));
    config.listeners[0].allow_anonymous = false;
    w.shared.config.store(Arc::new(config));
    assert_eq!(answer(&mut w, login("b", Some("alice"), Some("secret"))), ReasonCode::BadUserNameOrPassword);
    assert_eq!(answer(&mut w, login("c", Some("alice"), Some("new"))), ReasonCode::Success);
}

#[test]
fn a_client_that_waits_for_its_password_is_sent_away_when_the_broker_stops() {
    let mut w = guarded(false);
    w.passwords_wait = true;
    let peer = Peer::begin(&mut w, 0, login("c", Some("alice"), Some("secret")));
    w.run();
    w.workers[0].shut_down();
    w.run();
    assert!(w.is_closed(peer.link));
    peer.cut(&mut w);
    assert!(w.workers[0].is_idle());
}

const OWN: &str = "[[rules]]\npermission = \"allow\"\ntopics = [\"v/${clientid}/#\"]\n";

fn ruled(text: &str, deny_action: DenyAction) -> World {
    world_with(|c| (c.access.rules, c.access.deny_action) = (Some(rules(text)), deny_action))
}

fn denials(w: &World) -> Vec<(String, String, u64)> {
    let told = |event: Event| match event {
        Event::AccessDenied { action, topic, count, .. } => {
            Some((action.to_string(), topic.to_string(), count))
        }
        _ => None,
    };
    w.events().into_iter().filter_map(told).collect()
}

fn publish_reason(w: &mut World, peer: Peer, topic: &str, qos: QoS, id: u16) -> ReasonCode {
    match peer.ask(w, Packet::Publish(message(topic, qos, id, b"x"))).as_slice() {
        [Packet::Puback(ack) | Packet::Pubrec(ack)] => ack.reason,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_message_that_is_not_allowed_goes_nowhere_and_is_answered() {
    let mut w = ruled(
        &format!("{OWN}[[rules]]\npermission = \"allow\"\naction = \"subscribe\"\ntopics = \"#\"\n"),
        DenyAction::Ignore,
    );
    let sub = Peer::clean(&mut w, "sub");
    sub.subscribe(&mut w, "#", QoS::ExactlyOnce);
    let car = Peer::clean(&mut w, "car1");
    for (qos, id) in [(QoS::AtLeastOnce, 1), (QoS::ExactlyOnce, 2)] {
        assert_eq!(publish_reason(&mut w, car, "v/car2/x", qos, id), ReasonCode::NotAuthorized, "{qos:?}");
    }
    assert_eq!(car.ask(&mut w, Packet::Publish(message("v/car2/x", QoS::AtMostOnce, 0, b"x"))), []);
    assert_eq!(publish_reason(&mut w, car, "v/car1/x", QoS::AtLeastOnce, 3), ReasonCode::Success);
    assert_eq!(sub.payloads(&mut w), ["x"], "its own only");
    let mut kept = message("v/car2/x", QoS::AtLeastOnce, 4, b"x");
    kept.retain = true;
    car.ask(&mut w, Packet::Publish(kept));
    assert_eq!(w.shared.retained_len(), 0);
    let told: Vec<u64> = denials(&w).into_iter().map(|(_, _, count)| count).collect();
    assert_eq!(told, [1, 2, 4], "the first, then when their number has doubled");
    assert_eq!(w.workers[0].metrics.refused_requests[Refusal::PublishDenied as usize].get(), 4);
}

/// Before version 5 nothing but the end of the connection could say no; EMQX and Mosquitto acknowledge as well.
#[test]
fn an_older_client_that_publishes_what_it_may_not_is_acknowledged_and_stays() {
    let mut w = ruled(OWN, DenyAction::Ignore);
    let connect = mqtt::packet::Connect { version: Version::V311, ..connect("car1", true, 0) };
    let (car, _) = Peer::connect(&mut w, 0, connect);
    assert_eq!(publish_reason(&mut w, car, "v/car2/x", QoS::AtLeastOnce, 1), ReasonCode::Success);
    assert_eq!(publish_reason(&mut w, car, "v/car2/x", QoS::ExactlyOnce, 2), ReasonCode::Success);
    match car.ask(&mut w, Packet::Pubrel(ack(2))).as_slice() {
        [Packet::Pubcomp(done)] => assert_eq!(done.reason, ReasonCode::Success),
        other => panic!("{other:?}"),
    }
}

#[test]
fn each_filter_of_a_subscribe_has_its_own_answer() {
    let mut w = ruled(OWN, DenyAction::Ignore);
    let car = Peer::clean(&mut w, "car1");
    let options = SubscriptionOptions::default();
    let filters = [("v/car1/#", options), ("v/#", options), ("v/car1/+", options), ("a/#/b", options)];
    match car.ask(&mut w, subscribe(1, &filters)).as_slice() {
        [Packet::Suback(suback)] => assert_eq!(
            suback.reasons,
            [
                ReasonCode::Success,
                ReasonCode::NotAuthorized,
                ReasonCode::Success,
                ReasonCode::TopicFilterInvalid
            ]
        ),
        other => panic!("{other:?}"),
    }
    assert_eq!(denials(&w), [("subscribe".to_owned(), "v/#".to_owned(), 1)]);
}

#[test]
fn a_client_is_sent_away_for_a_denial_where_the_operator_wants_it() {
    for packet in [
        Packet::Publish(message("v/car2/x", QoS::AtMostOnce, 0, b"x")),
        subscribe(1, &[("#", SubscriptionOptions::default()), ("+/x", SubscriptionOptions::default())]),
    ] {
        let mut w = ruled(OWN, DenyAction::Disconnect);
        let car = Peer::clean(&mut w, "car1");
        match car.ask(&mut w, packet).as_slice() {
            [Packet::Disconnect(disconnect)] => assert_eq!(disconnect.reason, ReasonCode::NotAuthorized),
            other => panic!("{other:?}"),
        }
        assert!(w.is_closed(car.link));
        assert_eq!(denials(&w).len(), 1);
    }
}

#[test]
fn a_will_to_a_topic_that_is_not_allowed_is_refused() {
    for (topic, expected) in [("v/car2/x", ReasonCode::NotAuthorized), ("v/car1/x", ReasonCode::Success)] {
        let mut w = ruled(OWN, DenyAction::Ignore);
        let mut connect = connect("car1", true, 0);
        connect.will = Some(will(topic, 0));
        assert_eq!(answer(&mut w, connect), expected);
        assert_eq!(denials(&w).len(), usize::from(expected.is_error()));
        assert_eq!(w.shared.registry.len(), usize::from(!expected.is_error()));
    }
}

/// An assigned client id fills `${clientid}` as one that was given does.
#[test]
fn rules_know_the_client_id_that_was_assigned() {
    let mut w = ruled(OWN, DenyAction::Ignore);
    let (peer, connack) = Peer::connect(&mut w, 0, connect("", true, 0));
    let id = connack.properties.assigned_client_identifier.unwrap();
    assert_eq!(
        publish_reason(&mut w, peer, &format!("v/{id}/x"), QoS::AtLeastOnce, 1),
        ReasonCode::NoMatchingSubscribers
    );
}

#[test]
fn new_rules_hold_for_who_is_connected() {
    let mut w = ruled(OWN, DenyAction::Ignore);
    let car = Peer::clean(&mut w, "car1");
    let sent = |w: &mut World, id| publish_reason(w, car, "v/car1/x", QoS::AtLeastOnce, id);
    assert_eq!(sent(&mut w, 1), ReasonCode::NoMatchingSubscribers);
    for (text, expected) in [("", ReasonCode::NotAuthorized), (OWN, ReasonCode::NoMatchingSubscribers)] {
        let mut config = BrokerConfig::default();
        config.access.rules = Some(rules(text));
        w.shared.config.store(Arc::new(config));
        w.advance(seconds(2));
        assert_eq!(sent(&mut w, 2), expected);
    }
}

/// A message that is published later goes nowhere else than one that is published now.
#[test]
fn a_delayed_message_is_judged_by_where_it_goes() {
    let mut w = ruled(OWN, DenyAction::Ignore);
    let peer = Peer::clean(&mut w, "c");
    assert_eq!(publish_reason(&mut w, peer, "$delayed/5/x", QoS::AtLeastOnce, 1), ReasonCode::NotAuthorized);
    let reason = publish_reason(&mut w, peer, "$delayed/5/v/c/x", QoS::AtLeastOnce, 2);
    assert_eq!(reason, ReasonCode::Success);
    assert_eq!(w.shared.delayed.len(), 1);
}

/// A session belongs to whoever began it as far as the rules go: a client id that is known to somebody else opens nothing.
#[test]
fn another_user_does_not_read_on_in_a_session_what_it_may_not_read_itself() {
    const TEXT: &str = r#"
        [[rules]]
        permission = "allow"
        username = "alice"
        topics = ["secret/#", "open/#"]
        [[rules]]
        permission = "allow"
        topics = ["open/#"]
    "#;
    for (name, expected) in [("alice", vec!["begun", "o", "s"]), ("mallory", vec!["o"])] {
        let mut w = ruled(TEXT, DenyAction::Ignore);
        let come = |w: &mut World, name: &str| {
            let mut connect = connect("car", false, 3_600);
            connect.username = Some(name.to_owned().into());
            let peer = Peer::begin(w, 0, connect);
            w.run();
            (peer, peer.read(w))
        };
        let (car, _) = come(&mut w, "alice");
        for filter in ["secret/#", "open/#", "$exclusive/secret/one", "$share/g/secret/#"] {
            car.subscribe(&mut w, filter, QoS::AtLeastOnce);
        }
        car.unsubscribe(&mut w, "$share/g/secret/#");
        let mut connect = connect("source", true, 0);
        connect.username = Some("alice".into());
        let (source, _) = Peer::connect(&mut w, 0, connect);
        source.ask(&mut w, Packet::Publish(message("secret/x", QoS::AtLeastOnce, 1, b"begun")));
        car.cut(&mut w);
        source.ask(&mut w, Packet::Publish(message("open/x", QoS::AtLeastOnce, 2, b"o")));
        source.ask(&mut w, Packet::Publish(message("secret/x", QoS::AtLeastOnce, 3, b"s")));
        let (again, packets) = come(&mut w, name);
        assert!(matches!(packets.first(), Some(Packet::Connack(connack)) if connack.session_present));
        let mut got = payloads(&packets);
        got.sort_unstable();
        assert_eq!(got, expected, "{name}");
        let left = if name == "alice" { 3 } else { 1 };
        assert_eq!((w.shared.router.subscriptions(), w.shared.exclusive.len() == 1), (left, name == "alice"));
        // nothing of it comes back with the next connection or with the next process
        again.cut(&mut w);
        assert_eq!(w.shared.store.with("car", |s| s.subscriptions.len() as u64), Some(left));
        let denied = denials(&w).len();
        assert_eq!(denied, usize::from(name != "alice"));
    }
}
