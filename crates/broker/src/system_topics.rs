//! `$SYS/...`: what the broker tells of itself, under the names that Mosquitto's and EMQX's users graph.
//!
//! Every `sys_interval`, and only while somebody subscribes below `$SYS/`, worker 0 adds up what the workers count and publishes
//! it at QoS 0; a new subscriber gets all of it at once, as if it were retained. What comes and goes is told under
//! `$SYS/brokers/{node}/clients/`. Nothing of it is kept: it is true now or of no use.
//!
//! Must not know: how the numbers come about.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use mqtt::packet::Publish;
use mqtt::{QoS, topic};
use runtime::clock::rfc3339;

use crate::connection::ConnId;
use crate::kept::Kept;
use crate::message::{Message, NEVER, NOBODY};
use crate::metrics::{Drop, WorkerMetrics};
use crate::retained::Retained;
use crate::shared::Shared;
use crate::worker::Worker;

/// Messages about clients that one worker publishes in a second; a crowd that comes at once is not told one by one.
pub(crate) const CLIENT_EVENTS_PER_SECOND: u32 = 1_000;
/// Milliseconds for which a new subscriber is given the same numbers as the one before.
const FRESH: u64 = 1_000;

/// Whether a topic or a filter is below `$SYS/`.
pub(crate) fn is_system(name: &str) -> bool {
    name == "$SYS" || name.starts_with("$SYS/")
}

/// Everything that is told, added up over the workers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Reading {
    packets_received: u64,
    packets_sent: u64,
    /// PUBLISH packets by QoS.
    received: [u64; 3],
    sent: [u64; 3],
    dropped: u64,
    expired: u64,
    payload_received: u64,
    payload_sent: u64,
    bytes_received: u64,
    bytes_sent: u64,
    sockets: u64,
    connects: u64,
    disconnects: u64,
    takeovers: u64,
    sessions_expired: u64,
    /// Of now, not since the start.
    offline: u64,
    subscriptions: u64,
    filters: u64,
    groups: u64,
    retained: u64,
    retained_bytes: u64,
    delayed: u64,
}

impl Reading {
    fn of(shared: &Shared) -> Self {
        let sum = |f: &dyn Fn(&WorkerMetrics) -> u64| shared.metrics.iter().map(|m| f(m)).sum::<u64>();
        let of_qos = |qos: usize| (sum(&|m| m.received[qos].get()), sum(&|m| m.sent[qos].get()));
        let qos = [of_qos(0), of_qos(1), of_qos(2)];
        Self {
            packets_received: sum(&|m| m.packets_received.get()),
            packets_sent: sum(&|m| m.packets_sent.get()),
            received: qos.map(|q| q.0),
            sent: qos.map(|q| q.1),
            dropped: sum(&|m| m.dropped.iter().map(|d| d.get()).sum()),
            expired: sum(&|m| m.dropped[Drop::Expired as usize].get()),
            payload_received: sum(&|m| m.payload_received.get()),
            payload_sent: sum(&|m| m.payload_sent.get()),
            bytes_received: sum(&|m| m.received_bytes.get()),
            bytes_sent: sum(&|m| m.sent_bytes.get()),
            sockets: sum(&|m| m.accepted.get()),
            connects: sum(&|m| m.connects.get()),
            disconnects: sum(&|m| m.disconnects.get()),
            takeovers: sum(&|m| m.takeovers.get()),
            sessions_expired: sum(&|m| m.sessions_expired.get()),
            offline: shared.store.len() as u64,
            subscriptions: shared.router.subscriptions(),
            filters: shared.router.filters(),
            groups: shared.router.groups(),
            retained: shared.retained_len() as u64,
            retained_bytes: shared.retained_bytes(),
            delayed: shared.delayed.len() as u64,
        }
    }

    fn connected(&self) -> u64 {
        self.connects.saturating_sub(self.disconnects)
    }

    fn sessions(&self) -> u64 {
        self.connected() + self.offline
    }

    fn messages_received(&self) -> u64 {
        self.received.iter().sum()
    }

    fn messages_sent(&self) -> u64 {
        self.sent.iter().sum()
    }

    /// What `load` is made of, with Mosquitto's names.
    fn counted(&self) -> [(&'static str, u64); LOADS] {
        [
            ("messages/received", self.packets_received),
            ("messages/sent", self.packets_sent),
            ("publish/received", self.messages_received()),
            ("publish/sent", self.messages_sent()),
            ("publish/dropped", self.dropped),
            ("bytes/received", self.bytes_received),
            ("bytes/sent", self.bytes_sent),
            ("sockets", self.sockets),
            ("connections", self.connects),
        ]
    }
}

const LOADS: usize = 9;
/// Names and lengths in seconds of the averages.
const SPANS: [(&str, f64); 3] = [("1min", 60.0), ("5min", 300.0), ("15min", 900.0)];

/// How many a minute, averaged: what is older counts for less, as in the load of a system. From 0 on.
#[derive(Default)]
struct Loads([[f64; SPANS.len()]; LOADS]);

impl Loads {
    fn sample(&mut self, before: &Reading, now: &Reading, elapsed_ms: u64) {
        if elapsed_ms == 0 {
            return;
        }
        let seconds = elapsed_ms as f64 / 1_000.0;
        let counts = before.counted().into_iter().zip(now.counted());
        for (load, ((_, before), (_, now))) in self.0.iter_mut().zip(counts) {
            let rate = now.saturating_sub(before) as f64 * 60.0 / seconds;
            for (value, (_, span)) in load.iter_mut().zip(SPANS) {
                *value = rate + (-seconds / span).exp() * (*value - rate);
            }
        }
    }
}

/// The highest numbers so far, as they were seen every `sys_interval`.
#[derive(Default)]
struct Most(BTreeMap<&'static str, u64>);

impl Most {
    fn see(&mut self, name: &'static str, now: u64) -> u64 {
        let most = self.0.entry(name).or_default();
        *most = now.max(*most);
        *most
    }
}

#[derive(Default)]
struct State {
    loads: Loads,
    most: Most,
    before: Reading,
    sampled_at: u64,
    built_at: u64,
}

/// See the module.
pub(crate) struct SystemTopics {
    state: Mutex<State>,
    /// What a new subscriber gets; empty while there is none.
    pub(crate) tree: RwLock<Retained<Kept>>,
}

impl SystemTopics {
    pub(crate) fn new(started_at: u64) -> Self {
        let state = State { sampled_at: started_at, ..State::default() };
        Self { state: Mutex::new(state), tree: RwLock::new(Retained::new()) }
    }
}

/// Gathers topics and what is published to them.
struct Tree<'a> {
    node: &'a str,
    topics: Vec<(String, String)>,
}

impl Tree<'_> {
    /// `$SYS/broker/...`, Mosquitto's.
    fn broker(&mut self, name: &str, value: impl Display) {
        self.topics.push((format!("$SYS/broker/{name}"), value.to_string()));
    }

    /// `$SYS/brokers/{node}/...`, EMQX's.
    fn node(&mut self, name: &str, value: impl Display) {
        self.topics.push((format!("$SYS/brokers/{}/{name}", self.node), value.to_string()));
    }
}

impl State {
    /// Counts what has happened since the last sample into the averages.
    fn sample(&mut self, reading: Reading, unix_ms: u64) {
        self.loads.sample(&self.before, &reading, unix_ms.saturating_sub(self.sampled_at));
        self.before = reading;
        self.sampled_at = unix_ms;
        self.highest(&reading);
    }

    /// Names, numbers and the highest so far.
    fn highest(&mut self, r: &Reading) -> [(&'static str, u64, u64); 7] {
        [
            ("connections", r.connected()),
            ("sessions", r.sessions()),
            ("topics", r.filters),
            ("subscriptions", r.subscriptions),
            ("subscriptions/shared", r.groups),
            ("retained", r.retained),
            ("delayed", r.delayed),
        ]
        .map(|(name, now)| (name, now, self.most.see(name, now)))
    }

    fn topics(&mut self, r: &Reading, node: &str, uptime_ms: u64, unix_ms: u64) -> Vec<(String, String)> {
        let mut tree = Tree { node, topics: Vec::new() };
        let highest = self.highest(r);
        mosquitto(&mut tree, r, uptime_ms);
        tree.broker("clients/maximum", highest[0].2.max(highest[1].2));
        for ((name, _), load) in r.counted().iter().zip(self.loads.0) {
            for ((span, _), value) in SPANS.iter().zip(load) {
                tree.broker(&format!("load/{name}/{span}"), format_args!("{value:.2}"));
            }
        }
        tree.topics.push(("$SYS/brokers".to_owned(), node.to_owned()));
        tree.node("version", env!("CARGO_PKG_VERSION"));
        tree.node("sysdescr", "Tidegate");
        tree.node("uptime", uptime_ms);
        tree.node("datetime", rfc3339(unix_ms));
        for (name, now, most) in highest {
            tree.node(&format!("stats/{name}/count"), now);
            tree.node(&format!("stats/{name}/max"), most);
        }
        emqx_metrics(&mut tree, r);
        tree.topics
    }
}

/// Mosquitto's; the older names that its users still graph too.
fn mosquitto(tree: &mut Tree<'_>, r: &Reading, uptime_ms: u64) {
    tree.broker("version", concat!("tidegate version ", env!("CARGO_PKG_VERSION")));
    tree.broker("uptime", format_args!("{} seconds", uptime_ms / 1_000));
    for (name, value) in [
        ("clients/total", r.sessions()),
        ("clients/connected", r.connected()),
        ("clients/active", r.connected()),
        ("clients/disconnected", r.offline),
        ("clients/inactive", r.offline),
        ("clients/expired", r.sessions_expired),
        ("messages/received", r.packets_received),
        ("messages/sent", r.packets_sent),
        ("messages/stored", r.retained + r.delayed),
        ("store/messages/count", r.retained + r.delayed),
        ("store/messages/bytes", r.retained_bytes),
        ("publish/messages/received", r.messages_received()),
        ("publish/messages/sent", r.messages_sent()),
        ("publish/messages/dropped", r.dropped),
        ("publish/bytes/received", r.payload_received),
        ("publish/bytes/sent", r.payload_sent),
        ("bytes/received", r.bytes_received),
        ("bytes/sent", r.bytes_sent),
        ("subscriptions/count", r.subscriptions),
        ("shared_subscriptions/count", r.groups),
        ("retained messages/count", r.retained),
    ] {
        tree.broker(name, value);
    }
}

fn emqx_metrics(tree: &mut Tree<'_>, r: &Reading) {
    for (name, value) in [
        ("bytes/received", r.bytes_received),
        ("bytes/sent", r.bytes_sent),
        ("packets/received", r.packets_received),
        ("packets/sent", r.packets_sent),
        ("packets/publish/received", r.messages_received()),
        ("packets/publish/sent", r.messages_sent()),
        ("messages/received", r.messages_received()),
        ("messages/sent", r.messages_sent()),
        ("messages/dropped", r.dropped),
        ("messages/dropped/expired", r.expired),
        ("messages/qos0/received", r.received[0]),
        ("messages/qos1/received", r.received[1]),
        ("messages/qos2/received", r.received[2]),
        ("messages/qos0/sent", r.sent[0]),
        ("messages/qos1/sent", r.sent[1]),
        ("messages/qos2/sent", r.sent[2]),
        ("messages/retained", r.retained),
        ("messages/delayed", r.delayed),
        ("client/connected", r.connects),
        ("client/disconnected", r.disconnects),
        ("session/takenover", r.takeovers),
    ] {
        tree.node(&format!("metrics/{name}"), value);
    }
}

/// A message of the broker itself.
fn message(topic: &str, payload: String) -> Arc<Message> {
    let publish = Publish {
        dup: false,
        qos: QoS::AtMostOnce,
        retain: false,
        topic: topic.to_owned().into(),
        packet_id: None,
        properties: Default::default(),
        payload: payload.into_bytes().into(),
    };
    Arc::new(Message { publisher: NOBODY, expires_at: NEVER, publish })
}

impl Worker {
    /// Publishes everything to whoever subscribes, every `sys_interval`. For one worker, about once a second.
    pub(crate) fn publish_system_topics(&mut self) {
        let now = self.now.unix_ms;
        let interval = u64::try_from(self.config.sys_interval.as_millis()).unwrap_or(u64::MAX);
        if interval == 0 || now < self.system_due {
            return;
        }
        self.system_due = now.saturating_add(interval);
        let reading = Reading::of(&self.shared);
        let shared = Arc::clone(&self.shared);
        let mut state = shared.system.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.sample(reading, now);
        if !shared.router.is_system_watched() {
            state.built_at = 0;
            drop(state);
            *shared.system.tree.write().unwrap_or_else(PoisonError::into_inner) = Retained::new();
            return;
        }
        drop(state);
        for message in self.build_system_topics(&reading) {
            self.distribute(message.view(), None, None);
        }
    }

    /// Makes sure that a new subscriber finds numbers of now.
    pub(crate) fn refresh_system_topics(&mut self) {
        let shared = Arc::clone(&self.shared);
        let built_at = shared.system.state.lock().unwrap_or_else(PoisonError::into_inner).built_at;
        if self.config.sys_interval.is_zero() || self.now.unix_ms < built_at.saturating_add(FRESH) {
            return;
        }
        self.build_system_topics(&Reading::of(&shared));
    }

    fn build_system_topics(&self, reading: &Reading) -> Vec<Arc<Message>> {
        let now = self.now.unix_ms;
        let uptime = now.saturating_sub(self.shared.started_at);
        let topics = {
            let mut state = self.shared.system.state.lock().unwrap_or_else(PoisonError::into_inner);
            state.built_at = now;
            state.topics(reading, &self.shared.node, uptime, now)
        };
        let messages: Vec<_> = topics.into_iter().map(|(topic, payload)| message(&topic, payload)).collect();
        let mut tree = self.shared.system.tree.write().unwrap_or_else(PoisonError::into_inner);
        for kept in messages.iter().filter_map(|message| Kept::of(message.view())) {
            tree.insert(kept);
        }
        messages
    }

    /// Tells that a client came, or went for this reason, to whoever subscribes to that.
    pub(crate) fn publish_client_event(&mut self, id: ConnId, ended: Option<&str>) {
        if !self.config.sys_client_events || !self.shared.router.is_system_watched() {
            return;
        }
        let now = self.now.unix_ms;
        let Some(conn) = self.conn(id) else { return };
        let (Some(about), Some(session)) = (&conn.about, &conn.session) else { return };
        let port = conn.origin.door.name.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
        let mut event = serde_json::json!({
            "clientid": &*session.client_id,
            "username": about.username.as_deref().unwrap_or("undefined"),
            "ipaddress": conn.origin.peer.ip().to_string(),
            "sockport": port,
            "protocol": "mqtt",
            "proto_name": if about.proto_ver == 3 { "MQIsdp" } else { "MQTT" },
            "proto_ver": about.proto_ver,
            "connected_at": about.connected_at,
            "ts": now,
        });
        let word = match ended {
            None => {
                event["keepalive"] = about.keep_alive.into();
                event["clean_start"] = about.clean_start.into();
                event["expiry_interval"] = session.expiry.into();
                "connected"
            }
            Some(reason) => {
                event["reason"] = reason.into();
                event["disconnected_at"] = now.into();
                "disconnected"
            }
        };
        let topic = format!("$SYS/brokers/{}/clients/{}/{word}", self.shared.node, session.client_id);
        // an identifier with a wildcard is part of no topic
        if topic::validate(&topic).is_err() {
            return;
        }
        if self.client_events_left == 0 {
            self.metrics.drop_message(Drop::SysClientEvents, 1);
            return;
        }
        self.client_events_left -= 1;
        let message = message(&topic, event.to_string());
        self.distribute(message.view(), None, None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_below_sys_is_told_from_the_rest() {
        for (name, system) in
            [("$SYS", true), ("$SYS/#", true), ("$SYS/a", true), ("$SYSTEM/a", false), ("a/$SYS", false)]
        {
            assert_eq!(is_system(name), system, "{name}");
        }
    }

    /// 100 a second for a long time are 6,000 a minute, over every span; an hour of silence is nothing.
    #[test]
    fn loads_follow_the_rate() {
        let mut loads = Loads::default();
        let mut now = Reading::default();
        for _ in 0..1_000 {
            let before = now;
            now.bytes_received += 1_000;
            loads.sample(&before, &now, 10_000);
        }
        let received = loads.0[5];
        assert_eq!(received.map(|v| format!("{v:.0}")), ["6000", "6000", "6000"]);
        for _ in 0..6 {
            loads.sample(&now, &now, 10_000);
        }
        // after a minute e⁻¹ of it is left in the first span, e⁻¹ᐟ⁵ in the second
        assert_eq!(loads.0[5].map(|v| format!("{v:.0}")), ["2207", "4912", "5613"]);
        for _ in 0..360 {
            loads.sample(&now, &now, 10_000);
        }
        assert!(loads.0[5].iter().all(|&v| v < 200.0));
        assert_eq!(loads.0[6], [0.0; 3]);
    }

    #[test]
    fn the_first_minute_counts_as_what_it_is() {
        let mut loads = Loads::default();
        let now = Reading { connects: 60, ..Reading::default() };
        loads.sample(&Reading::default(), &now, 60_000);
        assert_eq!(loads.0[8].map(|v| format!("{v:.2}")), ["37.93", "10.88", "3.87"]);
        loads.sample(&now, &now, 0);
        assert_eq!(format!("{:.2}", loads.0[8][0]), "37.93", "no time, no change");
    }

    #[test]
    fn every_topic_is_there_once_and_can_be_published() {
        let mut state = State::default();
        let reading = Reading { connects: 7, disconnects: 2, offline: 4, retained: 3, ..Reading::default() };
        state.sample(Reading { connects: 9, ..Reading::default() }, 1_000);
        let topics = state.topics(&reading, "node1", 12_345, 1_800_000_000_000);
        let map: BTreeMap<_, _> = topics.iter().cloned().collect();
        assert_eq!(map.len(), topics.len());
        for topic in map.keys() {
            assert!(topic::validate(topic).is_ok() && is_system(topic), "{topic}");
        }
        for (topic, value) in [
            ("$SYS/broker/uptime", "12 seconds"),
            ("$SYS/broker/clients/connected", "5"),
            ("$SYS/broker/clients/total", "9"),
            ("$SYS/broker/clients/disconnected", "4"),
            ("$SYS/broker/clients/maximum", "9"),
            ("$SYS/broker/retained messages/count", "3"),
            ("$SYS/broker/load/messages/received/1min", "0.00"),
            ("$SYS/brokers", "node1"),
            ("$SYS/brokers/node1/uptime", "12345"),
            ("$SYS/brokers/node1/datetime", "2027-01-15T08:00:00.000Z"),
            ("$SYS/brokers/node1/stats/connections/count", "5"),
            ("$SYS/brokers/node1/stats/connections/max", "9"),
            ("$SYS/brokers/node1/stats/retained/count", "3"),
            ("$SYS/brokers/node1/metrics/client/connected", "7"),
        ] {
            assert_eq!(map.get(topic).map(String::as_str), Some(value), "{topic}");
        }
    }
}
