//! The keys that bound what clients may take together, each on its own, and while they wait: their values and defaults.

use mqtt::filter::{Filter, matches};
use runtime::config::Table;
use runtime::rate::Rate;

use crate::queue::{Bound, DropRule};

/// Bounds of `[broker]` that are about all clients.
#[derive(Clone, Debug, PartialEq)]
pub struct LimitsConfig {
    /// `max_connections` of `[broker]`: of all listeners together. Default 10,000,000.
    pub max_connections: usize,
    /// Bytes of the largest CONNECT: what somebody may make us hold who has not said who it is. Default 128 KiB.
    pub max_connect_size: u32,
    /// Bytes of a client id. Default 65,535: what MQTT allows.
    pub max_clientid_length: usize,
    /// `queue_drop`: which message goes when a client's queue is full. Default: the newest.
    pub queue_drop: DropRule,
    /// `queue_priorities`: filters and the priority of what they match, 1 to 255; the highest one counts. Default: none.
    pub queue_priorities: Vec<(String, u8)>,
    /// `queue_default_priority`: what no filter matches goes last (0) or first (255). Default: last.
    pub queue_default_priority: u8,
    /// `messages_rate` and `bytes_rate`: of each client, for listeners that say nothing. Default: none.
    pub rates: ClientRates,
}

/// How fast one client may send; above it, it is read more slowly.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClientRates {
    /// PUBLISH packets.
    pub messages: Option<Rate>,
    /// Bytes of everything it sends.
    pub bytes: Option<Rate>,
}

impl Default for LimitsConfig {
    fn default() -> Self {
        Self {
            max_connections: 10_000_000,
            max_connect_size: 128 * 1024,
            max_clientid_length: 65_535,
            queue_drop: DropRule::Newest,
            queue_priorities: Vec::new(),
            queue_default_priority: 0,
            rates: ClientRates::default(),
        }
    }
}

impl LimitsConfig {
    /// The priority of a message that waits.
    pub(crate) fn priority_of(&self, topic: &str) -> u8 {
        let fitting = self.queue_priorities.iter().filter(|(filter, _)| matches(filter, topic));
        fitting.map(|(_, priority)| *priority).max().unwrap_or(self.queue_default_priority)
    }
}

impl super::BrokerConfig {
    /// The bounds of one client's queue.
    pub(crate) fn queue_bound(&self) -> Bound {
        Bound {
            messages: self.max_queued_messages,
            bytes: self.max_queued_bytes,
            drop: self.limits.queue_drop,
        }
    }
}

/// Reads the keys of `[broker]`.
pub(super) fn read(table: &mut Table<'_>) -> LimitsConfig {
    let d = LimitsConfig::default();
    LimitsConfig {
        max_connections: super::integer(table, "max_connections", 1..=100_000_000)
            .unwrap_or(d.max_connections),
        max_connect_size: table
            .size("max_connect_size", 128..=super::MAX_PACKET)
            .and_then(|n| u32::try_from(n).ok())
            .unwrap_or(d.max_connect_size),
        max_clientid_length: super::integer(table, "max_clientid_length", 1..=65_535)
            .unwrap_or(d.max_clientid_length),
        queue_drop: table
            .choice("queue_drop", &[("newest", DropRule::Newest), ("oldest", DropRule::Oldest)])
            .unwrap_or(d.queue_drop),
        queue_priorities: table
            .tables("queue_priorities", |t, _| read_priority(t))
            .into_iter()
            .flatten()
            .collect(),
        queue_default_priority: table
            .choice("queue_default_priority", &[("lowest", 0), ("highest", u8::MAX)])
            .unwrap_or(d.queue_default_priority),
        rates: read_rates(table),
    }
}

fn read_priority(t: &mut Table<'_>) -> Option<(String, u8)> {
    t.require("topic", "a topic filter such as \"alarm/#\"");
    t.require("priority", "a number from 1 to 255; what has more leaves first");
    let topic = t.string("topic");
    let usable = |text: &String| Filter::parse(text).is_ok_and(|filter| filter.share().is_none());
    if topic.as_ref().is_some_and(|text| !usable(text)) {
        t.problem("topic", "a topic filter such as \"alarm/#\"");
    }
    let priority = super::integer(t, "priority", 1..=255);
    Some((topic?, priority?))
}

/// Reads `messages_rate` and `bytes_rate` of `[broker]` or of a listener.
pub(super) fn read_rates(t: &mut Table<'_>) -> ClientRates {
    ClientRates {
        messages: t.rate("messages_rate").map(Rate::per_second),
        bytes: t.byte_rate("bytes_rate").map(Rate::bytes_per_second),
    }
}

impl ClientRates {
    /// What is said here, else what is said there.
    pub(super) fn or(self, other: Self) -> Self {
        Self { messages: self.messages.or(other.messages), bytes: self.bytes.or(other.bytes) }
    }

    /// Whether there is any.
    pub(crate) fn any(self) -> bool {
        self.messages.is_some() || self.bytes.is_some()
    }
}
