//! What a worker remembers, for how long, and how much of it.

use std::rc::Rc;

use super::*;

#[test]
fn a_topic_is_remembered_until_a_filter_that_may_match_it_changes() {
    let router = Router::new();
    let mut cache = RouteCache::new(100);
    let durable = Receiver { durable: true, ..passing(1) };
    router.subscribe("a/b/c/d", durable, wanting(QoS::AtMostOnce));
    let mut before = cache.lookup(&router, "a/b/c/d");
    assert!(Rc::ptr_eq(&before, &cache.lookup(&router, "a/b/c/d")));
    let mut changed = |what: &str| {
        let after = cache.lookup(&router, "a/b/c/d");
        assert_ne!(after, before, "{what}");
        assert_eq!(*after, routes(&router, "a/b/c/d"), "{what}");
        before = after;
    };
    for filter in ["a/b/c/d", "a/b/c/#", "a/b/+/d", "a/#", "+/b/c/d", "#"] {
        assert!(router.subscribe(filter, passing(2), wanting(QoS::AtMostOnce)));
        changed(&format!("subscribed to {filter}"));
        assert!(!router.subscribe(filter, passing(2), wanting(QoS::ExactlyOnce)));
        changed(&format!("replaced {filter}"));
        assert!(router.unsubscribe(filter, SessionKey(2)));
        changed(&format!("unsubscribed from {filter}"));
    }
    router.relocate(["a/b/c/d"], SessionKey(1), None);
    changed("moved away");
}

#[test]
fn a_subscription_leaves_the_topics_of_other_devices_remembered() {
    let router = Router::new();
    let mut cache = RouteCache::new(1_000);
    let topics: Vec<_> = (0..100).map(|device| format!("fleet/{device}/cmd")).collect();
    // Each its own receiver: topics without any share one answer.
    for (session, topic) in (0..).zip(&topics) {
        router.subscribe(topic, passing(session), wanting(QoS::AtMostOnce));
    }
    let remember =
        |cache: &mut RouteCache| topics.iter().map(|t| cache.lookup(&router, t)).collect::<Vec<_>>();
    let kept = |cache: &mut RouteCache, before: &[Rc<Routes>]| {
        let after = remember(cache);
        before.iter().zip(&after).filter(|(before, after)| Rc::ptr_eq(before, after)).count()
    };
    let before = remember(&mut cache);
    // A start shares its counter with one in 4,096 others; those that happen to are left out here.
    let starts_of = |path: &str| Generations::starts_of(&router.hasher, path);
    let felt = |start: &str| topics.iter().any(|topic| starts_of(topic).feels(starts_of(start)));
    let others = (1_000..).flat_map(|n| [format!("fleet/{n}"), format!("elsewhere/{n}")]);
    for other in others.filter(|start| !felt(start)).take(20) {
        router.subscribe(&format!("{other}/#"), passing(1), wanting(QoS::AtMostOnce));
    }
    assert_eq!(kept(&mut cache, &before), 100);
    // What starts with a wildcard after `fleet` could match any of them.
    let before = remember(&mut cache);
    router.subscribe("fleet/+/news", passing(1), wanting(QoS::AtMostOnce));
    assert_eq!(kept(&mut cache, &before), 0);
}

#[test]
fn a_full_cache_keeps_what_is_asked_for_again() {
    let router = Router::new();
    let mut cache = RouteCache::new(10);
    router.subscribe("#", passing(1), wanting(QoS::AtMostOnce));
    let favourite = cache.lookup(&router, "favourite");
    for once in 0..1_000 {
        cache.lookup(&router, &format!("once/{once}"));
        assert!(Rc::ptr_eq(&favourite, &cache.lookup(&router, "favourite")), "after {once}");
        assert!(cache.census().0 <= 10);
    }
}

#[test]
fn a_topic_comes_into_a_full_cache_at_its_second_time_and_one_that_comes_once_drives_nobody_out() {
    let router = Router::new();
    let mut cache = RouteCache::new(10);
    let topics: Vec<_> = (0..10).map(|n| format!("first/{n}")).collect();
    for (session, topic) in (0..).zip(&topics) {
        router.subscribe(topic, passing(session), wanting(QoS::AtMostOnce));
    }
    router.subscribe("once/#", passing(10), wanting(QoS::AtMostOnce));
    let before: Vec<_> = topics.iter().map(|topic| cache.lookup(&router, topic)).collect();
    for once in 0..1_000 {
        let topic = format!("once/{once}");
        assert_eq!(*cache.lookup(&router, &topic), routes(&router, &topic));
    }
    for (topic, before) in topics.iter().zip(&before) {
        assert!(Rc::ptr_eq(before, &cache.lookup(&router, topic)), "{topic} was driven out");
    }
    let [first, second, third] = ["once/again"; 3].map(|topic| cache.lookup(&router, topic));
    assert!(!Rc::ptr_eq(&first, &second));
    assert!(Rc::ptr_eq(&second, &third));
    assert_eq!(cache.census().0, 10);
}

#[test]
fn those_that_nobody_asks_for_any_more_give_way_to_all_that_come() {
    let router = Router::new();
    let mut cache = RouteCache::new(10);
    router.subscribe("#", passing(1), wanting(QoS::AtMostOnce));
    for n in 0..10 {
        cache.lookup(&router, &format!("before/{n}"));
    }
    let twice =
        |n: u32| [format!("after/{n}"), format!("after/{n}")].map(|topic| cache.lookup(&router, &topic));
    let after: Vec<_> = (0..10).map(twice).collect();
    let mut is_kept = |n: usize| Rc::ptr_eq(&after[n][1], &cache.lookup(&router, &format!("after/{n}")));
    let kept = (0..10).filter(|&n| is_kept(n)).count();
    assert!(kept >= 8, "{kept} of 10");
}

#[test]
fn memory_is_bounded_whatever_topics_and_receivers_there_are() {
    let router = Router::new();
    let mut cache = RouteCache::new(64);
    let most = 64 * 1_024;
    // A topic of the greatest length is answered, not kept.
    let long = "t".repeat(65_535);
    router.subscribe("#", passing(1), wanting(QoS::AtMostOnce));
    assert_eq!(*cache.lookup(&router, &long), routes(&router, &long));
    assert_eq!(cache.census(), (0, 0));
    // A kept topic that gains too many receivers is answered, and forgotten.
    cache.lookup(&router, "many/x");
    assert_eq!(cache.census().0, 1);
    for session in 2..2_000 {
        router.subscribe("many/#", passing(session), wanting(QoS::AtMostOnce));
    }
    assert_eq!(cache.lookup(&router, "many/x").workers[0].hits.len(), 1_999);
    assert_eq!(cache.census(), (0, 0));
    // Topics with some receivers each: bytes are the bound before the number of topics is.
    for session in 2..100 {
        router.subscribe("some/#", passing(session), wanting(QoS::AtMostOnce));
    }
    for topic in 0..64 {
        cache.lookup(&router, &format!("some/{topic}"));
        let (topics, bytes) = cache.census();
        assert!(bytes <= most && (topics == topic + 1 || topics >= 5), "{topics} topics, {bytes} bytes");
    }
}
