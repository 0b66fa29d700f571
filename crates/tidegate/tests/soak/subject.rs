//! The program under test: its configuration with bounds small enough to be reached, what it may take of the machine, what it
//! counts.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::harness::{self, Site, Tidegate, eventually, http};

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

/// What the program takes with nobody connected: code, buffers of the workers, what the allocator keeps.
const PROGRAM: usize = 64 * MIB;
/// Bytes of log frames that wait for the engine, and of messages for other workers, for each worker.
const BETWEEN: usize = 16 * MIB;
/// Frames whose repetition a shard of the log knows: so few that all are there after the first second.
const LOG_IDS: usize = 1024;
/// Topics whose receivers each worker remembers.
pub(crate) const ROUTES: usize = 65_536;
/// Bytes of a client with nothing under way: connection, session, subscriptions, its part of the router.
const CLIENT: usize = 64 * KIB;

/// The port of the broker's listener for WebSocket.
const WEB: u16 = harness::address::MQTT_2;

/// Where clients connect.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Doors {
    pub(crate) tcp: SocketAddr,
    pub(crate) web: SocketAddr,
}

/// The bounds that the broker is given.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) workers: usize,
    pub(crate) max_inflight: usize,
    receive_maximum: usize,
    max_queued_messages: usize,
    max_queued_bytes: usize,
    max_outbound_bytes: usize,
    max_packet_size: usize,
    shards: usize,
    max_log_bytes: usize,
    /// Bytes that may lie in the log for the slowest durable reader. A quarter of the log: all of it may be in one shard.
    pub(crate) log_credit: u64,
    gateway: bool,
}

impl Limits {
    pub(crate) fn new(workers: usize, gateway: bool) -> Self {
        Self {
            workers,
            max_inflight: 32,
            receive_maximum: 20,
            max_queued_messages: 500,
            max_queued_bytes: 512 * KIB,
            max_outbound_bytes: 256 * KIB,
            max_packet_size: 300 * KIB,
            shards: 4,
            max_log_bytes: 32 * MIB,
            log_credit: 16 * MIB as u64,
            gateway,
        }
    }

    /// Bytes of memory that the program may take while so many clients are there: the sum of all that each of them may have at
    /// once. What is left when they have gone is judged by [`crate::memory`].
    pub(crate) fn memory(&self, clients: usize) -> usize {
        // what it has not finished reading and the last message above a bound are packets
        let client = CLIENT + self.max_queued_bytes + self.max_outbound_bytes + 2 * self.max_packet_size;
        let relayed = if self.gateway { 256 * KIB } else { 0 };
        PROGRAM
            + self.workers * BETWEEN
            + self.shards * (self.max_log_bytes + self.max_log_bytes / 4)
            + clients * (client + relayed)
    }

    /// Descriptors that a gateway keeps when everybody has gone: 64 pipes for each worker.
    pub(crate) fn descriptors_after(&self) -> usize {
        if self.gateway { self.workers * 64 * 2 } else { 0 }
    }

    /// Whether what comes from the broker reaches clients in the last moment: a gateway that stops closes at once.
    pub(crate) fn tells(&self) -> bool {
        !self.gateway
    }

    fn broker(&self) -> String {
        let Self { max_inflight, receive_maximum, max_queued_messages, max_queued_bytes, .. } = self;
        let Self { max_outbound_bytes, max_packet_size, .. } = self;
        format!(
            "max_inflight = {max_inflight}\nreceive_maximum = {receive_maximum}\n\
             max_queued_messages = {max_queued_messages}\nmax_queued_bytes = \"{max_queued_bytes}B\"\n\
             max_outbound_bytes = \"{max_outbound_bytes}B\"\nmax_packet_size = \"{max_packet_size}B\"\n\
             topic_alias_maximum = 4\nmax_topic_aliases_out = 4\nsys_interval = \"1s\"\n"
        )
    }

    /// Starts the program and waits until it is ready.
    pub(crate) fn start(&self, binary: &Path) -> Tidegate {
        let Self { shards, max_log_bytes, .. } = self;
        let sections = format!(
            "[log]\nlevel = \"error\"\n[engine]\nshards = {shards}\nmax_log_bytes = \"{max_log_bytes}B\"\nmax_log_ids = {LOG_IDS}\n"
        );
        let mut site = Site::new("soak").workers(self.workers).sections(&sections).broker(&self.broker(), "");
        let web = format!("[[broker.listeners]]\nbind = \"{}:{WEB}\"\ntransport = \"ws\"\n", site.address);
        site = site.sections(&web);
        if self.gateway {
            let broker = site.mqtt();
            site = site.gateway("", "", &[("broker", broker)]);
        }
        let template = site.command();
        let mut command = Command::new(binary);
        command.args(template.get_args());
        for (name, _) in template.get_envs().filter(|(_, value)| value.is_none()) {
            command.env_remove(name);
        }
        site.start_command(&mut command)
    }

    /// Where clients connect. A gateway's clients over WebSocket go to the broker themselves.
    pub(crate) fn doors(&self, tidegate: &Tidegate) -> Doors {
        let tcp = if self.gateway { tidegate.gate() } else { tidegate.mqtt() };
        Doors { tcp, web: SocketAddr::new(tidegate.mqtt().ip(), WEB) }
    }
}

/// Metrics at one moment.
pub(crate) struct Metrics(HashMap<String, f64>);

impl Metrics {
    /// Asks; `None` while nobody answers.
    pub(crate) fn ask(api: SocketAddr) -> Option<Self> {
        let text = http::try_ask(api, "GET", "/metrics", &[], "")?.body;
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let series = lines.filter_map(|line| {
            let (name, value) = line.rsplit_once(' ')?;
            Some((name.to_owned(), value.parse().ok()?))
        });
        Some(Self(series.collect()))
    }

    /// A series with its labels as written.
    pub(crate) fn get(&self, series: &str) -> f64 {
        *self.0.get(series).unwrap_or_else(|| panic!("there is no metric {series}"))
    }

    /// Bytes that the program has allocated and not freed.
    pub(crate) fn allocated(&self) -> usize {
        self.get("tidegate_memory_allocated_bytes") as usize
    }

    /// Messages dropped by this rule.
    pub(crate) fn dropped(&self, rule: &str) -> f64 {
        self.get(&format!("tidegate_broker_messages_dropped_total{{rule=\"{rule}\"}}"))
    }
}

/// Bytes in memory, and open descriptors, of a process.
pub(crate) fn usage(pid: u32) -> (usize, usize) {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let kib =
        status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.split_whitespace().next()?.parse().ok());
    let open = std::fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count);
    (kib.unwrap_or(0) * KIB, open)
}

/// How long each worker of a process has run, and waited for a core.
pub(crate) fn workers(pid: u32) -> Vec<(Duration, Duration)> {
    let Ok(tasks) = std::fs::read_dir(format!("/proc/{pid}/task")) else { return Vec::new() };
    let mut times = Vec::new();
    for task in tasks.flatten() {
        let read = |file| std::fs::read_to_string(task.path().join(file)).unwrap_or_default();
        if read("comm").starts_with("worker-") {
            let text = read("schedstat");
            let mut nanos =
                text.split_whitespace().map(|nanos| Duration::from_nanos(nanos.parse().unwrap_or(0)));
            times.push((nanos.next().unwrap_or_default(), nanos.next().unwrap_or_default()));
        }
    }
    times
}

/// Waits until nothing of the clients is left: neither connections nor sessions, subscriptions, groups, retained messages,
/// descriptors.
pub(crate) fn forgotten(tidegate: &Tidegate, descriptors: usize, retained: f64) {
    for series in ["connections", "sessions_offline", "subscriptions", "filters", "shared_groups"] {
        let name = format!("tidegate_broker_{series}");
        eventually(&format!("{name} is 0"), || {
            Metrics::ask(tidegate.api()).filter(|metrics| metrics.get(&name) == 0.0)
        });
    }
    eventually("no retained message is left", || {
        let metrics = Metrics::ask(tidegate.api())?;
        (metrics.get("tidegate_broker_retained_messages") <= retained).then_some(())
    });
    let metrics = Metrics::ask(tidegate.api()).expect("an answer");
    let difference = metrics.get("tidegate_broker_client_connects_total")
        - metrics.get("tidegate_broker_client_disconnects_total");
    assert!(difference == 0.0, "{difference} clients came and never went");
    eventually("its descriptors are closed", || {
        (usage(tidegate.process.id()).1 <= descriptors).then_some(())
    });
}
