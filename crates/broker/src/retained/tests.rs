//! The store against the clauses it serves, and against a map that is searched from end to end.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::order::by_level;
use super::*;

/// Section 4.7 of the specification, level by level.
fn matches(filter: &str, topic: &str) -> bool {
    if topic.starts_with('$') && filter.starts_with(['+', '#']) {
        return false;
    }
    let (filter, topic): (Vec<_>, Vec<_>) = (filter.split('/').collect(), topic.split('/').collect());
    let wanted = filter.iter().take_while(|level| **level != "#").count();
    let deep_enough = if wanted < filter.len() { topic.len() >= wanted } else { topic.len() == wanted };
    deep_enough && (0..wanted).all(|at| filter[at] == "+" || filter[at] == topic[at])
}

/// What is kept here: a topic and a number.
type Numbered = (String, u32);

impl Named for Numbered {
    fn topic(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

fn numbered(topic: &str, number: u32) -> Numbered {
    (topic.to_owned(), number)
}

fn stored(topics: &[&str]) -> Retained<Numbered> {
    let mut store = Retained::new();
    for (number, topic) in (0..).zip(topics) {
        assert_eq!(store.insert(numbered(topic, number)), None);
    }
    store
}

fn found(store: &Retained<Numbered>, filter: &str) -> Vec<String> {
    let mut out = Vec::new();
    store.matching(filter, usize::MAX, &mut out);
    out.into_iter()
        .map(|value| {
            assert_eq!(store.get(value.topic()), Some(value));
            value.0.clone()
        })
        .collect()
}

#[test]
fn wildcards_stand_for_one_level_or_for_all_that_follow() {
    // [MQTT-4.7.1-1] [MQTT-4.7.1-2] and the examples of section 4.7.1.
    let store = stored(&[
        "sport",
        "sport/",
        "sport/tennis/player1",
        "sport/tennis/player1/ranking",
        "sports",
        "/finance",
    ]);
    assert_eq!(
        found(&store, "sport/#"),
        ["sport", "sport/", "sport/tennis/player1", "sport/tennis/player1/ranking"]
    );
    assert_eq!(found(&store, "sport/+"), ["sport/"]);
    assert_eq!(found(&store, "+/+"), ["/finance", "sport/"]);
    assert_eq!(found(&store, "+"), ["sport", "sports"]);
    assert_eq!(found(&store, "/+"), ["/finance"]);
    assert_eq!(found(&store, "sport/+/player1/#"), ["sport/tennis/player1", "sport/tennis/player1/ranking"]);
    assert_eq!(found(&store, "#").len(), 6);
    assert_eq!(found(&store, "Sport"), [""; 0]);
}

#[test]
fn a_leading_wildcard_does_not_find_a_topic_that_starts_with_a_dollar_sign() {
    // [MQTT-4.7.2-1]
    let store = stored(&["!", "$SYS/uptime", "$SYS", "a/$SYS", "%"]);
    assert_eq!(found(&store, "#"), ["!", "%", "a/$SYS"]);
    assert_eq!(found(&store, "+/uptime"), [""; 0]);
    assert_eq!(found(&store, "+"), ["!", "%"]);
    assert_eq!(found(&store, "$SYS/#"), ["$SYS", "$SYS/uptime"]);
    assert_eq!(found(&store, "$SYS/+"), ["$SYS/uptime"]);
}

#[test]
fn a_topic_keeps_one_value() {
    // [MQTT-3.3.1-5]
    let mut store = stored(&["a/b"]);
    let (first, second) = (numbered("a/b", 0), numbered("a/b", 7));
    assert_eq!(store.insert(second.clone()), Some(first));
    assert_eq!((store.len(), store.get(b"a/b"), store.get(b"a")), (1, Some(&second), None));
    assert_eq!((store.remove("a"), store.remove("a/b"), store.remove("a/b")), (None, Some(second), None));
    assert_eq!(store.len(), 0);
}

#[test]
fn a_search_leaps_over_what_cannot_match() {
    let mut store = Retained::new();
    for device in 0..100 {
        for reading in 0..100 {
            store.insert(numbered(&format!("plant/{device:03}/reading/{reading:03}"), 0));
        }
    }
    store.insert(numbered("plant/070/state", 0));
    for (filter, looked_at_most) in [
        ("plant/050/reading/007", 10),
        ("plant/050/reading/+", 110),
        ("plant/070/state", 10),
        ("plant/+/nothing", 100 * 10),
        ("plant/+/reading/099", 100 * 20),
        ("other/#", 10),
        ("a/#", 10),
        ("+/+/state", 100 * 20),
    ] {
        let mut out = Vec::new();
        let rest = store.scan(filter, None, u64::MAX, usize::MAX, looked_at_most, &mut out);
        assert_eq!(rest, None, "{filter}");
        let expected = store.by_topic.iter().filter(|slot| matches(filter, &slot.value.0)).count();
        assert_eq!(out.len(), expected, "{filter}");
    }
}

#[test]
fn topics_and_filters_of_the_greatest_depth_are_searched_without_depth_of_stack() {
    let deepest = "/".repeat(65_535);
    let letters = vec!["a"; 32_768].join("/");
    let store = stored(&[&deepest, &letters]);
    assert_eq!(found(&store, &vec!["+"; 32_768].join("/")), [letters.as_str()]);
    assert_eq!(found(&store, &vec!["+"; 32_767].join("/")), [""; 0]);
    assert_eq!(found(&store, &format!("{}#", "+/".repeat(32_768))), [deepest, letters]);
}

fn level() -> impl Strategy<Value = &'static str> {
    // U+0001 and `%` sit beside the borders that a leap aims at.
    prop_oneof![6 => Just("a"), 4 => Just("b"), 1 => Just("a\u{1}"), 1 => Just("ab"), 2 => Just(""), 1 => Just("$a"), 1 => Just("%"), 1 => Just("é")]
}

fn topics() -> impl Strategy<Value = String> {
    prop::collection::vec(level(), 1..6)
        .prop_map(|levels| levels.join("/"))
        .prop_filter("a topic has at least one character [MQTT-4.7.3-1]", |topic| !topic.is_empty())
}

fn filters() -> impl Strategy<Value = String> {
    let levels = prop::collection::vec(prop_oneof![2 => level().boxed(), 1 => Just("+").boxed()], 0..6);
    (levels, prop::bool::weighted(0.3))
        .prop_map(|(mut levels, below)| {
            levels.extend(below.then_some("#"));
            levels.join("/")
        })
        .prop_filter("a filter has at least one character [MQTT-4.7.3-1]", |filter| !filter.is_empty())
}

#[derive(Clone, Debug)]
enum Op {
    Insert(String, u32),
    Remove(String),
    /// Keeps values that this does not divide.
    Retain(u32),
    Matching(String, usize),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        20 => (topics(), 1..1_000u32).prop_map(|(t, v)| Op::Insert(t, v)),
        4 => topics().prop_map(Op::Remove),
        1 => (2..20u32).prop_map(Op::Retain),
        8 => (filters(), prop_oneof![2 => Just(usize::MAX), 1 => 0..5usize]).prop_map(|(f, l)| Op::Matching(f, l)),
    ]
}

/// All topics that match, level by level in ascending order.
fn expected(model: &BTreeMap<String, u32>, filter: &str) -> Vec<Numbered> {
    let mut all: Vec<_> =
        model.iter().filter(|(t, _)| matches(filter, t)).map(|(t, v)| numbered(t, *v)).collect();
    all.sort_by_key(|(topic, _)| topic.split('/').map(str::to_owned).collect::<Vec<_>>());
    all
}

proptest! {
    #[test]
    fn every_filter_finds_what_a_search_from_end_to_end_finds(ops in prop::collection::vec(op(), 1..200)) {
        let mut store = Retained::new();
        let mut model = BTreeMap::new();
        for op in ops {
            match op {
                Op::Insert(topic, value) => {
                    let before = store.insert(numbered(&topic, value)).map(|(_, value)| value);
                    prop_assert_eq!(before, model.insert(topic, value));
                }
                Op::Remove(topic) => {
                    prop_assert_eq!(store.remove(&topic).map(|(_, value)| value), model.remove(&topic));
                }
                Op::Retain(divisor) => {
                    store.retain(|(topic, value)| {
                        assert_eq!(model.get(topic), Some(value));
                        value % divisor != 0
                    });
                    model.retain(|_, value| *value % divisor != 0);
                }
                Op::Matching(filter, limit) => {
                    let mut out = Vec::new();
                    store.matching(&filter, limit, &mut out);
                    let mut all = expected(&model, &filter);
                    all.truncate(limit);
                    prop_assert!(out.into_iter().eq(&all), "{}", filter);
                }
            }
            prop_assert_eq!(store.len(), model.len());
        }
        for (topic, value) in &model {
            prop_assert_eq!(store.get(topic.as_bytes()), Some(&numbered(topic, *value)));
        }
    }

    #[test]
    fn a_search_in_pieces_gives_all_that_stays_exactly_once_whatever_comes_and_goes(
        stays in prop::collection::btree_map(topics(), 0..1_000u32, 0..80),
        comes in prop::collection::vec((topics(), any::<bool>()), 0..80),
        filter in filters(),
        (limit, steps) in (1..5usize, 0..12usize),
    ) {
        let mut store = Retained::new();
        for (topic, value) in &stays {
            store.insert(numbered(topic, *value));
        }
        let mut comes = comes.into_iter().filter(|(topic, _)| !stays.contains_key(topic));
        let mut given = Vec::new();
        let mut from = None;
        loop {
            let mut out = Vec::new();
            from = store.scan(&filter, from, u64::MAX, limit, steps, &mut out);
            prop_assert!(out.len() <= limit && out.len() <= steps.max(1));
            given.extend(out.into_iter().map(|(topic, _)| topic.clone()));
            if from.is_none() {
                break;
            }
            for (topic, insert) in comes.by_ref().take(2) {
                if insert { store.insert(numbered(&topic, 0)); } else { store.remove(&topic); }
            }
        }
        let all = given.len();
        prop_assert!(given.iter().all(|topic| matches(&filter, topic)));
        given.sort();
        given.dedup();
        prop_assert_eq!(given.len(), all, "given twice");
        for (topic, _) in expected(&stays, &filter) {
            prop_assert!(given.binary_search(&topic).is_ok(), "{} is missing", topic);
        }
    }
}

#[test]
fn what_was_kept_after_a_search_began_is_not_found_by_it() {
    let mut store = stored(&["a", "b"]);
    let until = store.changes();
    store.insert(numbered("b", 3));
    store.insert(numbered("c", 4));
    let mut out = Vec::new();
    assert_eq!(store.scan("#", None, until, usize::MAX, usize::MAX, &mut out), None);
    assert_eq!(out, [&numbered("a", 0)]);
}

proptest! {
    #[test]
    fn topics_are_in_the_order_of_their_levels(
        // long enough for the comparison of eight bytes at a time, and equal up to somewhere
        (same, a, b) in ("[ab/é]{0,20}", "[ab/\u{1}é]{0,12}", "[ab/\u{1}é]{0,12}"),
    ) {
        let (a, b) = (format!("{same}{a}"), format!("{same}{b}"));
        let levels = |topic: &str| topic.split('/').map(str::to_owned).collect::<Vec<_>>();
        prop_assert_eq!(by_level(a.as_bytes(), b.as_bytes()), levels(&a).cmp(&levels(&b)));
    }
}
