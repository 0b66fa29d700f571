//! Topics to receivers: what filters match, and which of them are groups of shared subscriptions.

use broker::bench::Subscriptions;

use crate::meter::{Row, repeat};
use crate::packets;

/// Topics that are asked for in turns: more than one, so that a number does not depend on where one of them falls in a table.
const TOPICS: usize = 250;
/// What a worker's cache remembers at most.
const CACHE: usize = 65_536;

/// An operation is one topic.
pub(crate) const MATCH_ROWS: &[Row] = &[
    Row { name: "match/exact_10k_uncached", run: || matches(10_000, topic_itself, 1, 1) },
    Row { name: "match/exact_10k_cached", run: || matches(10_000, topic_itself, CACHE, 1) },
    Row { name: "match/exact_10k_again", run: again },
    Row { name: "match/exact_100k_uncached", run: || matches(100_000, topic_itself, 1, 1) },
    Row { name: "match/exact_100k_cached", run: || matches(100_000, topic_itself, CACHE, 1) },
    Row { name: "match/plus_10k_uncached", run: || matches(10_000, with_plus, 1, 1) },
    Row { name: "match/plus_100k_uncached", run: || matches(100_000, with_plus, 1, 1) },
    Row { name: "match/hash_10k_uncached", run: || matches(10_000, with_hash, 1, 1) },
    Row { name: "match/hash_100k_uncached", run: || matches(100_000, with_hash, 1, 1) },
    Row { name: "match/nobody_100k_uncached", run: || matches(100_000, of_others, 1, 0) },
];

/// The same beside what makes more of it: several filters for a topic, and groups.
pub(crate) const ROUTE_ROWS: &[Row] = &[
    Row { name: "route/6_filters_uncached", run: || routes(&OVERLAPPING, 1, (6, 0)) },
    Row { name: "route/6_filters_cached", run: || routes(&OVERLAPPING, CACHE, (6, 0)) },
    Row { name: "route/3_groups_uncached", run: || routes(&GROUPS, 1, (1, 3)) },
    Row { name: "route/3_groups_cached", run: || routes(&GROUPS, CACHE, (1, 3)) },
    Row {
        name: "route/100_receivers_uncached",
        run: || routes(&["fleet/+/+/telemetry/position"; 100], 1, (100, 0)),
    },
];

/// Filters beside those of the devices that all match every device's topic.
const OVERLAPPING: [&str; 5] =
    ["#", "fleet/#", "fleet/+/+/telemetry/position", "+/berlin/+/+/+", "fleet/berlin/#"];
/// Groups of three members.
const GROUPS: [&str; 9] = [
    "$share/a/fleet/#",
    "$share/a/fleet/#",
    "$share/a/fleet/#",
    "$share/b/fleet/berlin/+/telemetry/#",
    "$share/b/fleet/berlin/+/telemetry/#",
    "$share/b/fleet/berlin/+/telemetry/#",
    "$share/c/+/berlin/+/telemetry/position",
    "$share/c/+/berlin/+/telemetry/position",
    "$share/c/+/berlin/+/telemetry/position",
];

fn topic_itself(device: usize) -> String {
    packets::topic(device)
}

fn with_plus(device: usize) -> String {
    format!("fleet/berlin/truck-{device:06}/+/position")
}

fn with_hash(device: usize) -> String {
    format!("fleet/berlin/truck-{device:06}/#")
}

fn of_others(device: usize) -> String {
    format!("fleet/paris/truck-{device:06}/telemetry/position")
}

/// Topics of devices spread over all of them.
fn topics(devices: usize) -> Vec<String> {
    (0..TOPICS).map(|n| packets::topic(n * (devices / TOPICS))).collect()
}

fn matches(filters: usize, filter: fn(usize) -> String, cached: usize, receivers: usize) -> u64 {
    let mut subscriptions = Subscriptions::new(cached);
    for device in 0..filters {
        subscriptions.subscribe(&filter(device));
    }
    ask(&mut subscriptions, &topics(filters), (receivers, 0))
}

/// The topic is that of the message before, as it is in most reads.
fn again() -> u64 {
    let mut subscriptions = Subscriptions::new(CACHE);
    for device in 0..10_000 {
        subscriptions.subscribe(&packets::topic(device));
    }
    let topic = packets::topic(42);
    repeat(|_| assert_eq!(subscriptions.routes(&topic), (1, 0)))
}

fn routes(filters: &[&str], cached: usize, expected: (usize, usize)) -> u64 {
    let mut subscriptions = Subscriptions::new(cached);
    let devices = if filters.len() < 100 { 1_000 } else { 0 };
    for device in 0..devices {
        subscriptions.subscribe(&packets::topic(device));
    }
    for filter in filters {
        subscriptions.subscribe(filter);
    }
    ask(&mut subscriptions, &topics(1_000), expected)
}

fn ask(subscriptions: &mut Subscriptions, topics: &[String], expected: (usize, usize)) -> u64 {
    for topic in topics {
        assert_eq!(subscriptions.routes(topic), expected, "{topic}");
    }
    repeat(|turn| topics.get(turn % TOPICS).map(|topic| subscriptions.routes(topic)))
}
