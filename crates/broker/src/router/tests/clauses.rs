//! What the specification says, case by case.

use super::*;

/// The sessions 1, 2, ... subscribe to these filters in turn.
fn subscribed(filters: &[&str]) -> Router {
    let router = Router::new();
    for (filter, session) in filters.iter().zip(1..) {
        assert!(router.subscribe(filter, passing(session), wanting(QoS::AtMostOnce)));
    }
    router
}

fn only_hit(router: &Router, topic: &str) -> Hit {
    let mut routes = routes(router, topic);
    assert_eq!(routes.workers.iter().map(|w| w.hits.len()).sum::<usize>(), 1);
    routes.workers.remove(0).hits.remove(0)
}

/// [v3 MQTT-4.7.1-2]
#[test]
fn a_number_sign_matches_the_parent_and_everything_below() {
    // [MQTT-4.7.1-1] and the examples of section 4.7.1.2.
    let router = subscribed(&["sport/tennis/player1/#", "sport/#", "#"]);
    for topic in
        ["sport/tennis/player1", "sport/tennis/player1/ranking", "sport/tennis/player1/score/wimbledon"]
    {
        assert_eq!(sessions(&router, topic), [1, 2, 3]);
    }
    assert_eq!(sessions(&router, "sport"), [2, 3]);
    assert_eq!(sessions(&router, "sports"), [3]);
    assert_eq!(sessions(&router, "sport/tennis/player12"), [2, 3]);
}

/// [v3 MQTT-4.7.1-3]
#[test]
fn a_plus_sign_matches_exactly_one_level() {
    // [MQTT-4.7.1-2] and the examples of section 4.7.1.3.
    let router = subscribed(&["sport/tennis/+", "sport/+", "+", "+/+", "/+", "+/tennis/#"]);
    assert_eq!(sessions(&router, "sport/tennis/player1"), [1, 6]);
    assert_eq!(sessions(&router, "sport/tennis/player1/ranking"), [6]);
    assert_eq!(sessions(&router, "sport"), [3]);
    assert_eq!(sessions(&router, "sport/"), [2, 4]);
    assert_eq!(sessions(&router, "/finance"), [4, 5]);
    assert_eq!(sessions(&router, "sport/tennis"), [2, 4, 6]);
}

/// [v3 MQTT-4.7.2-1]
#[test]
fn a_leading_wildcard_does_not_match_a_topic_that_starts_with_a_dollar_sign() {
    // [MQTT-4.7.2-1]
    let router = subscribed(&["#", "+/monitor/Clients", "$SYS/#", "$SYS/monitor/+", "+"]);
    assert_eq!(sessions(&router, "$SYS/monitor/Clients"), [3, 4]);
    assert_eq!(sessions(&router, "$SYS"), [3]);
    assert_eq!(sessions(&router, "a/$SYS"), [1]);
    assert_eq!(sessions(&router, "a/monitor/Clients"), [1, 2]);
}

/// [v3 MQTT-4.7.3-4]
#[test]
fn empty_levels_are_levels_and_case_and_spaces_count() {
    // [MQTT-4.7.3-4], section 4.7.3.
    let router = subscribed(&["/", "//", "a/", "a", "A", "a b", "+/+/+"]);
    assert_eq!(sessions(&router, "/"), [1]);
    assert_eq!(sessions(&router, "//"), [2, 7]);
    assert_eq!(sessions(&router, "a/"), [3]);
    assert_eq!(sessions(&router, "a"), [4]);
    assert_eq!(sessions(&router, "A"), [5]);
    assert_eq!(sessions(&router, "a b"), [6]);
}

#[test]
fn overlapping_subscriptions_give_one_copy_with_the_highest_qos_and_all_identifiers() {
    // [MQTT-3.3.4-2] [MQTT-3.3.4-3] [MQTT-3.3.4-4]
    let router = Router::new();
    for (filter, qos, identifier) in [
        ("a/b", QoS::AtMostOnce, 9),
        ("a/+", QoS::ExactlyOnce, 2),
        ("a/#", QoS::AtLeastOnce, 0),
        ("#", QoS::AtMostOnce, 9),
    ] {
        router.subscribe(filter, passing(1), Subscription { identifier, ..wanting(qos) });
    }
    let hit = only_hit(&router, "a/b");
    assert_eq!((hit.qos, hit.identifiers.as_slice(), hit.own), (QoS::ExactlyOnce, &[2, 9, 9][..], Own::Same));
}

#[test]
fn a_second_subscribe_with_the_same_filter_replaces_the_first() {
    // [MQTT-3.8.4-3]
    let router = subscribed(&["a/b"]);
    let again = Subscription { identifier: 7, retain_as_published: true, ..wanting(QoS::AtLeastOnce) };
    assert!(!router.subscribe("a/b", passing(1), again));
    let hit = only_hit(&router, "a/b");
    assert_eq!(
        (hit.qos, hit.identifiers.as_slice(), hit.retain_as_published),
        (QoS::AtLeastOnce, &[7][..], true)
    );
    assert_eq!((router.subscriptions(), router.filters()), (1, 1));
}

/// [v3 MQTT-3.10.4-1]
#[test]
fn unsubscribe_takes_exactly_its_filter() {
    // [MQTT-3.10.4-1]
    let router = subscribed(&["a/b/c", "a/b/#", "a/+/c"]);
    for absent in ["a/b", "a", "#", "a/b/c/d", "a/b/c/#", "a/+", "b/b/c", "a/bb/c", "a/b/+"] {
        assert!(!router.unsubscribe(absent, SessionKey(1)), "{absent}");
    }
    assert!(!router.unsubscribe("a/b/c", SessionKey(2)), "another session's");
    assert!(router.unsubscribe("a/b/c", SessionKey(1)));
    assert!(!router.unsubscribe("a/b/c", SessionKey(1)));
    assert_eq!(sessions(&router, "a/b/c"), [2, 3]);
}

#[test]
fn no_local_silences_a_subscription_and_not_the_session() {
    // [MQTT-3.8.3-3]
    let router = Router::new();
    let quiet = Subscription { no_local: true, identifier: 1, ..wanting(QoS::ExactlyOnce) };
    router.subscribe("a/b", passing(1), quiet);
    assert_eq!(only_hit(&router, "a/b").own, Own::Never);
    let loud = Subscription { identifier: 2, ..wanting(QoS::AtLeastOnce) };
    router.subscribe("a/+", passing(1), loud);
    let hit = only_hit(&router, "a/b");
    assert_eq!((hit.qos, hit.identifiers.as_slice()), (QoS::ExactlyOnce, &[1, 2][..]));
    assert_eq!(hit.own, Own::Reduced(Box::new((QoS::AtLeastOnce, false, [2].into_iter().collect()))));
    assert_eq!(only_hit(&router, "a/c").own, Own::Same);
}

#[test]
fn a_durable_session_asks_for_the_log_connected_or_not_but_not_for_qos_0() {
    let router = Router::new();
    let durable = |session, address| Receiver { session: SessionKey(session), address, durable: true };
    let here = Some(Address { worker: 3, slot: 5 });
    router.subscribe("q0", durable(1, here), wanting(QoS::AtMostOnce));
    router.subscribe("q1", durable(1, here), wanting(QoS::AtLeastOnce));
    router.subscribe("gone", durable(2, None), wanting(QoS::AtLeastOnce));
    router.subscribe("passing", passing(3), wanting(QoS::ExactlyOnce));
    assert_eq!(
        ["q0", "q1", "gone", "passing"].map(|t| routes(&router, t).durable),
        [false, true, true, false]
    );
    assert_eq!(sessions(&router, "gone"), [0; 0]);
    router.relocate(["q0", "q1"], SessionKey(1), None);
    assert_eq!(routes(&router, "q1"), Routes { durable: true, ..Routes::default() });
    router.relocate(["gone"], SessionKey(2), Some(Address { worker: 7, slot: 8 }));
    let found = routes(&router, "gone");
    assert_eq!((found.workers[0].worker, found.workers[0].hits[0].slot), (7, 8));
}

#[test]
fn a_session_in_the_middle_of_a_move_gets_one_copy() {
    let router = Router::new();
    let moving = Receiver { durable: true, ..passing(1) };
    router.subscribe("a/b", moving, wanting(QoS::AtMostOnce));
    router.subscribe("a/+", moving, wanting(QoS::AtLeastOnce));
    router.relocate(["a/+"], SessionKey(1), Some(Address { worker: 2, slot: 4 }));
    assert_eq!(only_hit(&router, "a/b").qos, QoS::AtLeastOnce);
    router.relocate(["a/+"], SessionKey(1), None);
    assert_eq!(only_hit(&router, "a/b").qos, QoS::AtLeastOnce);
}

#[test]
fn hits_are_grouped_by_worker_in_ascending_order() {
    let router = Router::new();
    for session in (0..100u64).rev() {
        let address = Some(Address { worker: (session * 7 % 5) as u16 * 100, slot: session as u32 });
        let filter = if session % 2 == 0 { "a/#" } else { "+/b" };
        let receiver = Receiver { session: SessionKey(session), address, durable: false };
        router.subscribe(filter, receiver, wanting(QoS::AtMostOnce));
    }
    let found = routes(&router, "a/b");
    assert_eq!(found.workers.iter().map(|w| w.worker).collect::<Vec<_>>(), [0, 100, 200, 300, 400]);
    for worker in &found.workers {
        assert_eq!(worker.hits.len(), 20);
        assert!(worker.hits.is_sorted_by_key(|hit| hit.session));
    }
}

#[test]
fn topics_and_filters_of_the_greatest_depth_are_matched_without_depth_of_stack() {
    // 65,535 bytes allow 65,536 empty levels; every level costs at least its separator.
    let deepest = "/".repeat(65_535);
    let letters = vec!["a"; 32_768].join("/");
    let pluses = vec!["+"; 32_768].join("/");
    let router = subscribed(&[&letters, &pluses, &format!("{}/#", &letters[..65_531]), &deepest, "#", "/#"]);
    assert_eq!(sessions(&router, &letters), [1, 2, 3, 5]);
    assert_eq!(sessions(&router, &deepest), [4, 5, 6]);
    // One level of every filter differs from the first, at every depth.
    for (session, at) in (100..).zip((0..32_768).step_by(256)) {
        let mut levels = vec!["a"; 32_768];
        levels[at] = "+";
        router.subscribe(&levels.join("/"), passing(session), wanting(QoS::AtMostOnce));
    }
    assert_eq!(sessions(&router, &letters).len(), 4 + 128);
    router.assert_whole();
}

#[test]
fn a_filter_costs_two_nodes_however_many_levels_it_has() {
    let router = subscribed(&["a/b/c/d/e/f/g/h/i/j/k", "a/b/c/d/e/f/g/h/i/j/l", "a/b/c/d/+/f/#"]);
    assert_eq!(router.census().0, 5);
    assert!(router.unsubscribe("a/b/c/d/+/f/#", SessionKey(3)));
    assert_eq!(router.census().0, 3);
    router.assert_whole();
}

#[test]
fn every_combination_of_plus_signs_is_visited_once() {
    let router = Router::new();
    for combination in 0..1u32 << 13 {
        let levels: Vec<_> = (0..13).map(|bit| if combination >> bit & 1 == 1 { "+" } else { "a" }).collect();
        router.subscribe(
            &levels.join("/"),
            passing(1),
            Subscription { identifier: combination + 1, ..wanting(QoS::AtMostOnce) },
        );
    }
    let hit = only_hit(&router, &["a"; 13].join("/"));
    assert!(hit.identifiers.iter().copied().eq(1..=1 << 13));
    router.assert_whole();
}

#[test]
fn a_level_with_many_children_keeps_every_one_of_them() {
    let router = Router::new();
    let filter = |device: u64| format!("fleet/{device}/cmd");
    for device in 0..10_000 {
        router.subscribe(&filter(device), passing(device), wanting(QoS::AtMostOnce));
    }
    router.assert_whole();
    for device in (0..10_000).step_by(2) {
        assert!(router.unsubscribe(&filter(device), SessionKey(device)));
    }
    router.assert_whole();
    for device in 0..10_000 {
        assert_eq!(sessions(&router, &filter(device)), if device % 2 == 0 { vec![] } else { vec![device] });
    }
}
