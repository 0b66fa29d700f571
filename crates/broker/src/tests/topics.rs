//! Topics that mean more than their name: exclusive filters, rewriting, subscriptions that nobody asked for.

use mqtt::packet::{Connect, Packet, Publish, SubscriptionOptions};
use mqtt::{QoS, ReasonCode, Version};

use super::rig::*;
use crate::auto_subscribe::AutoSubscription;
use crate::config::BrokerConfig;
use crate::sim::world::World;
use crate::topic_rewrite::{Action, rule};

fn with(workers: usize, change: impl FnOnce(&mut BrokerConfig)) -> World {
    let mut config = BrokerConfig::default();
    change(&mut config);
    World::new(1, workers, config)
}

fn rewriting(workers: usize, rules: &[(Action, &str, &str, &str)]) -> World {
    let rules = rules.iter().map(|(a, s, r, t)| rule(*a, s, r, t));
    with(workers, |c| c.topic_rewrite = rules.collect())
}

fn granted(packets: &[Packet<'_>]) -> Vec<ReasonCode> {
    match packets {
        [Packet::Suback(suback), ..] => suback.reasons.clone(),
        other => panic!("{other:?}"),
    }
}

fn ended(packets: &[Packet<'_>]) -> Vec<ReasonCode> {
    match packets {
        [Packet::Unsuback(unsuback)] => unsuback.reasons.clone(),
        other => panic!("{other:?}"),
    }
}

/// As with EMQX: one holder, 0x97 for the others, messages to the topic without the prefix.
#[test]
fn one_session_at_a_time_has_an_exclusive_subscription() {
    let mut w = world(2);
    let first = Peer::clean(&mut w, "first");
    let (second, _) = Peer::connect(&mut w, 1, connect("second", true, 0));
    assert_eq!(
        granted(&first.subscribe(&mut w, "$exclusive/a/b", QoS::AtLeastOnce)),
        [ReasonCode::GrantedQos1]
    );
    assert_eq!(
        granted(&second.subscribe(&mut w, "$exclusive/a/b", QoS::AtLeastOnce)),
        [ReasonCode::QuotaExceeded]
    );
    // an ordinary subscription is nobody's affair
    assert_eq!(granted(&second.subscribe(&mut w, "a/b", QoS::AtMostOnce)), [ReasonCode::Success]);
    assert_eq!(granted(&first.subscribe(&mut w, "$exclusive/a/b", QoS::AtMostOnce)), [ReasonCode::Success]);
    let publisher = Peer::clean(&mut w, "pub");
    publisher.ask(&mut w, Packet::Publish(message("a/b", QoS::AtMostOnce, 0, b"x")));
    assert_eq!(first.payloads(&mut w), ["x"]);
    assert_eq!(second.payloads(&mut w), ["x"]);
    assert_eq!(ended(&second.unsubscribe(&mut w, "$exclusive/a/b")), [ReasonCode::NoSubscriptionExisted]);
    assert_eq!(
        ended(&first.unsubscribe(&mut w, "a/b")),
        [ReasonCode::NoSubscriptionExisted],
        "[MQTT-3.10.4-1]"
    );
    assert_eq!(ended(&first.unsubscribe(&mut w, "$exclusive/a/b")), [ReasonCode::Success]);
    assert_eq!(granted(&second.subscribe(&mut w, "$exclusive/a/b", QoS::AtMostOnce)), [ReasonCode::Success]);
    // one that is replaced by an ordinary one is free, too
    assert_eq!(granted(&second.subscribe(&mut w, "a/b", QoS::AtMostOnce)), [ReasonCode::Success]);
    assert_eq!(granted(&first.subscribe(&mut w, "$exclusive/a/b", QoS::AtMostOnce)), [ReasonCode::Success]);
}

/// It is the session's, not the connection's: it ends with the session, and a crash does not end it.
#[test]
fn an_exclusive_subscription_lasts_as_long_as_its_session() {
    let mut w = world(2);
    let (first, _) = Peer::connect(&mut w, 0, connect("first", true, 100));
    first.subscribe(&mut w, "$exclusive/a", QoS::AtLeastOnce);
    first.cut(&mut w);
    let asks = |w: &mut World| {
        let (second, _) = Peer::connect(w, 1, connect("second", true, 0));
        let reasons = granted(&second.subscribe(w, "$exclusive/a", QoS::AtMostOnce));
        second.disconnect(w);
        reasons
    };
    assert_eq!(asks(&mut w), [ReasonCode::QuotaExceeded]);
    w.crash();
    w.run();
    assert_eq!(asks(&mut w), [ReasonCode::QuotaExceeded], "its records say so");
    w.advance(seconds(120));
    assert_eq!(asks(&mut w), [ReasonCode::Success], "the session has expired");
    for end in ["good-bye", "clean start"] {
        let (first, _) = Peer::connect(&mut w, 0, connect("first", true, 100));
        first.subscribe(&mut w, "$exclusive/a", QoS::AtLeastOnce);
        first.cut(&mut w);
        if end == "clean start" {
            Peer::clean(&mut w, "first");
        } else {
            Peer::connect(&mut w, 0, connect("first", false, 0)).0.disconnect(&mut w);
        }
        assert_eq!(asks(&mut w), [ReasonCode::Success], "{end}");
    }
    assert_eq!(w.shared.exclusive.len(), 0);
}

#[test]
fn what_is_no_exclusive_filter_is_refused() {
    let mut w = world(1);
    let peer = Peer::clean(&mut w, "c");
    for bad in ["$exclusive/", "$exclusive/$share/g/a", "$exclusive/$exclusive/a", "$exclusive/a/#/b"] {
        let reasons = granted(&peer.subscribe(&mut w, bad, QoS::AtMostOnce));
        assert_eq!(reasons, [ReasonCode::TopicFilterInvalid], "{bad}");
    }
    let mut w = with(1, |c| c.exclusive_subscription = false);
    let peer = Peer::clean(&mut w, "c");
    let reasons = granted(&peer.subscribe(&mut w, "$exclusive/a", QoS::AtMostOnce));
    assert_eq!(reasons, [ReasonCode::TopicFilterInvalid]);
    assert_eq!(w.shared.exclusive.len(), 0);
}

/// A subscription that could not be written is not held.
#[test]
fn an_exclusive_subscription_that_was_not_written_is_free() {
    let mut w = world(1);
    let (sub, _) = Peer::connect(&mut w, 0, connect("sub", false, NEVER));
    w.fail_next(|op| matches!(op, engine::Op::Put { .. }), engine::EngineError::TooLarge);
    let reasons = granted(&sub.subscribe(&mut w, "$exclusive/a", QoS::AtMostOnce));
    assert_eq!(reasons, [ReasonCode::QuotaExceeded]);
    let other = Peer::clean(&mut w, "other");
    assert_eq!(granted(&other.subscribe(&mut w, "$exclusive/a", QoS::AtMostOnce)), [ReasonCode::Success]);
}

/// PUBLISH, SUBSCRIBE, UNSUBSCRIBE and wills go by the rewritten topic, and so does what is said of them.
#[test]
fn topics_are_rewritten_before_anything_else() {
    let mut w = rewriting(2, &[(Action::All, "old/#", "^old/(.+)$", "new/${clientid}/$1")]);
    let (sub, _) = Peer::connect(&mut w, 1, connect("c", true, 0));
    assert_eq!(granted(&sub.subscribe(&mut w, "old/#", QoS::AtLeastOnce)), [ReasonCode::GrantedQos1]);
    let (all, _) = Peer::connect(&mut w, 0, connect("all", true, 0));
    all.subscribe(&mut w, "#", QoS::AtLeastOnce);
    let mut dying = connect("d", true, 0);
    dying.will = Some(will("old/will", 0));
    let (dying, _) = Peer::connect(&mut w, 1, dying);
    let sender = Peer::clean(&mut w, "c2");
    sender.ask(&mut w, Packet::Publish(message("old/a", QoS::AtMostOnce, 0, b"1")));
    sender.ask(&mut w, Packet::Publish(message("new/c/a", QoS::AtMostOnce, 0, b"2")));
    sender.ask(&mut w, Packet::Publish(message("other", QoS::AtMostOnce, 0, b"3")));
    dying.cut(&mut w);
    let topics: Vec<String> = all
        .read(&mut w)
        .into_iter()
        .filter_map(|p| match p {
            Packet::Publish(p) => Some(p.topic.into_owned()),
            _ => None,
        })
        .collect();
    assert_eq!(topics, ["new/c2/a", "new/c/a", "other", "new/d/will"]);
    assert_eq!(sub.payloads(&mut w), ["2"]);
    assert_eq!(ended(&sub.unsubscribe(&mut w, "old/#")), [ReasonCode::Success]);
    let counted = |w: &World| {
        let sum = |f: &dyn Fn(&crate::metrics::WorkerMetrics) -> u64| {
            w.shared.metrics.iter().map(|m| f(m)).sum::<u64>()
        };
        (sum(&|m| m.topics_rewritten.get()), sum(&|m| m.topics_not_rewritten.get()))
    };
    // SUBSCRIBE, UNSUBSCRIBE, PUBLISH, will
    assert_eq!(counted(&w), (4, 0));
    Peer::clean(&mut w, "a+b").ask(&mut w, Packet::Publish(message("old/a", QoS::AtMostOnce, 0, b"4")));
    assert_eq!(counted(&w), (4, 1), "an identifier with a wildcard fills no place");
    assert_eq!(payloads(&all.read(&mut w)), ["4"], "the topic stays as it was");
}

/// A rewritten topic is judged as what it has become.
#[test]
fn a_topic_cannot_be_rewritten_into_what_a_client_must_not_do() {
    let mut w = rewriting(1, &[(Action::Publish, "a", "a", "$SYS/broker/version")]);
    let peer = Peer::clean(&mut w, "c");
    match peer.ask(&mut w, Packet::Publish(message("a", QoS::AtLeastOnce, 1, b"x"))).as_slice() {
        [Packet::Puback(ack)] => assert_eq!(ack.reason, ReasonCode::NotAuthorized),
        other => panic!("{other:?}"),
    }
}

/// What stands before the filter of a shared or an exclusive subscription stays.
#[test]
fn filters_of_shared_and_exclusive_subscriptions_are_rewritten() {
    let mut w = rewriting(1, &[(Action::Subscribe, "a/#", "^a/(.+)$", "b/$1")]);
    let peer = Peer::clean(&mut w, "c");
    let plain = SubscriptionOptions::default();
    let filters = [("$exclusive/a/1", plain), ("$share/g/a/2", plain)];
    peer.ask(&mut w, subscribe(1, &filters));
    let other = Peer::clean(&mut w, "d");
    for topic in ["a/1", "b/1", "a/2", "b/2"] {
        other.ask(&mut w, Packet::Publish(message(topic, QoS::AtMostOnce, 0, topic.as_bytes())));
    }
    assert_eq!(peer.payloads(&mut w), ["b/1", "b/2"]);
}

fn auto(topic: &str, options: SubscriptionOptions) -> AutoSubscription {
    AutoSubscription::new(topic, options).unwrap()
}

/// Every client has them when CONNACK is there, whatever its version; nobody is answered; retained messages come.
#[test]
fn every_client_gets_its_automatic_subscriptions() {
    let qos1 = SubscriptionOptions { qos: QoS::AtLeastOnce, ..Default::default() };
    let quiet = SubscriptionOptions { no_local: true, ..Default::default() };
    let mut w = with(1, |c| c.auto_subscribe = [auto("c/${clientid}", qos1), auto("all", quiet)].into());
    let publisher = Peer::clean(&mut w, "pub");
    let kept = Publish { retain: true, ..message("c/v3", QoS::AtLeastOnce, 1, b"kept") };
    publisher.ask(&mut w, Packet::Publish(kept));
    for (client_id, version, expiry) in
        [("v3", Version::V311, 0), ("v5", Version::V5, 0), ("durable", Version::V5, NEVER)]
    {
        let peer = Peer::begin(
            &mut w,
            0,
            Connect { version, ..connect(client_id, version != Version::V311, expiry) },
        );
        w.run();
        let first = peer.read(&mut w);
        assert!(matches!(first.first(), Some(Packet::Connack(_))), "{first:?}");
        assert_eq!(payloads(&first), if client_id == "v3" { vec!["kept"] } else { vec![] });
        let topic = format!("c/{client_id}");
        publisher.ask(&mut w, Packet::Publish(message(&topic, QoS::AtLeastOnce, 2, b"mine")));
        assert_eq!(peer.payloads(&mut w), ["mine"], "{client_id}");
        peer.ask(&mut w, Packet::Publish(message("all", QoS::AtMostOnce, 0, b"own")));
        assert_eq!(peer.payloads(&mut w), [""; 0], "no local");
        if version.is_v5() {
            assert_eq!(ended(&peer.unsubscribe(&mut w, &topic)), [ReasonCode::Success]);
        }
    }
}

/// An identifier that would be a wildcard gets no subscription made of it, and the bound of subscriptions holds.
#[test]
fn automatic_subscriptions_keep_within_the_rules() {
    let mut w = with(1, |c| {
        c.auto_subscribe =
            ["c/${clientid}", "a", "b"].map(|t| auto(t, SubscriptionOptions::default())).into();
        c.max_subscriptions = 1;
    });
    let peer = Peer::clean(&mut w, "#");
    let (worker, id) = w.conn_id(peer.link);
    let filters: Vec<String> = w.workers[worker]
        .conn(id)
        .and_then(|c| c.session.as_ref())
        .map(|s| s.subscriptions.filters().map(str::to_owned).collect())
        .unwrap();
    assert_eq!(filters, ["a"]);
}

/// A session that returns is given them again, and once.
#[test]
fn automatic_subscriptions_of_a_session_that_returns_are_there_once() {
    let qos1 = SubscriptionOptions { qos: QoS::AtLeastOnce, ..Default::default() };
    let mut w = with(1, |c| c.auto_subscribe = [auto("a", qos1)].into());
    let (peer, _) = Peer::connect(&mut w, 0, connect("c", false, NEVER));
    peer.cut(&mut w);
    let publisher = Peer::clean(&mut w, "pub");
    publisher.ask(&mut w, Packet::Publish(message("a", QoS::AtLeastOnce, 1, b"while away")));
    let peer = Peer::begin(&mut w, 0, connect("c", false, NEVER));
    w.run();
    assert_eq!(peer.payloads(&mut w), ["while away"]);
    publisher.ask(&mut w, Packet::Publish(message("a", QoS::AtLeastOnce, 2, b"now")));
    assert_eq!(peer.payloads(&mut w), ["now"]);
}
