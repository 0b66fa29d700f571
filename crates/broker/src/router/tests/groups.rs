//! Groups of shared subscriptions against a list.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::oracle::matches;
use super::*;

fn group_of(name: &str, filter: &str) -> String {
    format!("$share/{name}/{filter}")
}

fn join(router: &Router, filter: &str, session: u64) -> bool {
    router.subscribe(filter, passing(session), wanting(QoS::AtLeastOnce))
}

/// Names of the groups and sessions of their connected members.
fn groups(router: &Router, topic: &str) -> Vec<(String, Vec<u64>)> {
    let found = routes(router, topic).groups;
    found
        .iter()
        .map(|g| (g.group.name.to_string(), g.members.iter().map(|m| m.session.0).collect()))
        .collect()
}

/// A Shared Subscription is a ShareName and a filter (4.8.2): another filter or another name is another group.
#[test]
fn a_group_is_a_share_name_and_a_filter() {
    let router = Router::new();
    for (filter, session) in [
        ("$share/g/a/#", 1),
        ("$share/g/a/#", 2),
        ("$share/g/a/+", 1),
        ("$share/h/a/#", 3),
        ("$share/h/b", 1),
    ] {
        assert!(join(&router, filter, session));
    }
    let expected = [("$share/g/a/#", vec![1, 2]), ("$share/g/a/+", vec![1]), ("$share/h/a/#", vec![3])];
    assert_eq!(groups(&router, "a/1"), expected.map(|(name, members)| (name.to_owned(), members)));
    assert_eq!((router.groups(), router.subscriptions(), router.filters()), (4, 5, 4));
    let found = routes(&router, "a/1");
    assert_eq!(found.groups[0].group.share(), "g");
    assert!(found.workers.is_empty(), "members are no receivers of their own");
}

#[test]
fn a_plain_and_a_shared_subscription_to_the_same_filter_are_two() {
    let router = Router::new();
    router.subscribe("a", passing(1), wanting(QoS::AtMostOnce));
    join(&router, "$share/g/a", 1);
    assert_eq!(sessions(&router, "a"), [1]);
    assert_eq!(groups(&router, "a"), [("$share/g/a".to_owned(), vec![1])]);
    assert!(router.unsubscribe("$share/g/a", SessionKey(1)));
    assert!(!router.unsubscribe("$share/g/a", SessionKey(1)));
    assert_eq!(groups(&router, "a"), []);
    assert_eq!(sessions(&router, "a"), [1]);
}

/// [MQTT-4.7.2-1] holds for the filter behind the share name, too.
#[test]
fn a_shared_wildcard_does_not_match_topics_that_begin_with_a_dollar() {
    let router = Router::new();
    join(&router, "$share/g/#", 1);
    join(&router, "$share/g/+/x", 2);
    join(&router, "$share/g/$SYS/#", 3);
    assert_eq!(groups(&router, "$SYS/x"), [("$share/g/$SYS/#".to_owned(), vec![3])]);
    assert_eq!(groups(&router, "a/x").len(), 2);
}

proptest! {
    #[test]
    fn every_topic_leads_to_the_groups_that_a_list_says(
        ops in prop::collection::vec(
            (0..4u8, prop::sample::select(vec!["g", "h"]), prop::sample::select(vec!["a", "a/b", "a/+", "a/#", "#", "+/b", "$a/#"]), 1..5u64),
            1..80,
        ),
    ) {
        let router = Router::new();
        let mut cache = RouteCache::new(10);
        // group → member → connected
        let mut oracle: BTreeMap<String, BTreeMap<u64, bool>> = BTreeMap::new();
        for (op, name, filter, session) in ops {
            let group = group_of(name, filter);
            match op {
                0 | 1 => {
                    let new = oracle.entry(group.clone()).or_default().insert(session, true).is_none();
                    prop_assert_eq!(join(&router, &group, session), new);
                }
                2 => {
                    let members = oracle.entry(group.clone()).or_default();
                    let known = members.remove(&session).is_some();
                    if members.is_empty() {
                        oracle.remove(&group);
                    }
                    prop_assert_eq!(router.unsubscribe(&group, SessionKey(session)), known);
                }
                _ => {
                    if let Some(connected) = oracle.get_mut(&group).and_then(|m| m.get_mut(&session)) {
                        *connected = false;
                    }
                    router.relocate([group.as_str()], SessionKey(session), None);
                }
            }
            for topic in ["a", "a/b", "b/b", "$a/b"] {
                let expected: BTreeSet<(String, Vec<u64>)> = oracle
                    .iter()
                    .filter(|(g, _)| matches(g.splitn(3, '/').nth(2).unwrap(), topic))
                    .map(|(g, m)| (g.clone(), m.iter().filter(|(_, on)| **on).map(|(s, _)| *s).collect()))
                    .collect();
                let found = groups(&router, topic);
                prop_assert_eq!(found.len(), expected.len(), "each once");
                prop_assert_eq!(found.into_iter().collect::<BTreeSet<_>>(), expected);
                prop_assert_eq!(&*cache.lookup(&router, topic), &routes(&router, topic));
                cache.census();
            }
            let members: usize = oracle.values().map(BTreeMap::len).sum();
            prop_assert_eq!((router.groups(), router.subscriptions()), (oracle.len() as u64, members as u64));
            router.groups.census();
        }
        for (group, members) in oracle {
            members.keys().for_each(|&s| assert!(router.unsubscribe(&group, SessionKey(s))));
        }
        prop_assert_eq!((router.groups.census(), router.groups()), ((0, 0), 0));
    }
}
