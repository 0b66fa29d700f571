//! The rows of the broker suite: which load, which number of its answer, which bar.
//!
//! Bars are those of the design's table of peers, as ratios to mosquitto in one run; a row without one must be no worse
//! than mosquitto.

use super::super::figures::{Bar, Contestant, Row};
use super::super::figures::{ours, peer};
use super::super::process::{Priority, Seat};
use super::super::{LATENCY_NOISE, Suite};
use super::servers::{Broker, Setup};

/// What makes the load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Load {
    /// The instrument from outside.
    Mqload(&'static str),
    /// `cargo xtask load`.
    Own(&'static str),
    /// `mqload` at [`LEVELS`] of the rate at which somebody is saturated by it.
    Levels(&'static str, Whose),
}

/// Whose saturated rate counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Whose {
    /// Each broker's own: who is fast has more to do.
    Own,
    /// The rival's: the same messages for everyone.
    Rival,
}

/// Shares of a saturated rate.
pub(super) const LEVELS: [f64; 3] = [0.25, 0.5, 0.8];
/// What is told at each of them.
pub(super) const QUANTILES: [&str; 3] = ["p50_us", "p99_us", "p999_us"];

/// One load and the rows that its answer gives.
#[derive(Clone, Debug)]
pub(super) struct Scenario {
    pub(super) rows: Vec<Row>,
    /// The number in the answer, for each row. Not for [`Load::Levels`], which knows its own.
    pub(super) fields: Vec<&'static str>,
    pub(super) load: Load,
    pub(super) setup: Setup,
    /// Whether the null server can do it: exact topics, QoS 0, MQTT 3.1.1.
    pub(super) null: bool,
}

/// Rows with the same contestants: a table.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) title: &'static str,
    pub(super) contestants: Vec<(Broker, Contestant)>,
    pub(super) scenarios: Vec<Scenario>,
}

/// The server on its core, the load on the other.
pub(super) const PINNED: Setup = Setup {
    seat: Seat::Server,
    priority: Priority::Usual,
    websocket: false,
    short_queues: false,
    no_delay: false,
};
const PER_MILLION: &str = "CPU-s per million";

impl Scenario {
    fn new(row: Row, field: &'static str, load: Load) -> Self {
        Self { rows: vec![row], fields: vec![field], load, setup: PINNED, null: false }
    }

    fn and(mut self, row: Row, field: &'static str) -> Self {
        self.rows.push(row);
        self.fields.push(field);
        self
    }

    /// The bars of the first row.
    fn bars(mut self, bars: &'static [Bar]) -> Self {
        self.rows[0] = self.rows[0].clone().with_bars(bars);
        self
    }

    const fn null_too(mut self) -> Self {
        self.null = true;
        self
    }

    /// At a fixed moderate rate both sides are idle part of the time, and it is the latency that counts.
    const fn paced(mut self) -> Self {
        self.setup.priority = Priority::RealTime;
        self
    }

    const fn websocket(mut self) -> Self {
        self.setup.websocket = true;
        self
    }

    const fn short_queues(mut self) -> Self {
        self.setup.short_queues = true;
        self
    }

    const fn no_delay(mut self) -> Self {
        self.setup.no_delay = true;
        self
    }

    const fn everywhere(mut self) -> Self {
        self.setup.seat = Seat::Everywhere;
        self
    }
}

/// CPU seconds for a million deliveries.
fn cpu(name: &'static str, what: &'static str, load: Load) -> Scenario {
    Scenario::new(Row::new(name, what, PER_MILLION), "cpu_s_per_M", load)
}

/// The tables of a suite: none for those that are not the broker's. `nats`: whether that server is there.
pub(super) fn parts(suite: Suite, nats: bool) -> Vec<Part> {
    let named = |broker: Broker| (broker, broker.contestant());
    let (tidegate, mosquitto) = (named(Broker::Tidegate { workers: 1 }), named(Broker::Mosquitto));
    let null = named(Broker::Null);
    let part =
        |title, contestants: &[_], scenarios| Part { title, contestants: contestants.to_vec(), scenarios };
    let three = [tidegate.clone(), mosquitto.clone(), null.clone()];
    match suite {
        Suite::Peers => {
            let mut all = three.to_vec();
            all.extend(nats.then(|| named(Broker::Nats)));
            vec![part("Brokers", &all, peers())]
        }
        Suite::Loads => {
            let title = "Brokers: payloads, properties, groups, transports, storms, slow consumers";
            vec![part(title, &three, loads())]
        }
        Suite::Kept => vec![part("Brokers: what is kept", &[tidegate, mosquitto], kept())],
        Suite::Latency => vec![
            part(
                "Brokers: saturated, and latency at shares of the rate that saturates mosquitto",
                &three,
                vec![saturated(), by_load(&RIVAL_LEVELS, Whose::Rival)],
            ),
            part(
                "Brokers: latency at shares of the rate that saturates each itself",
                &[tidegate, null],
                vec![by_load(&OWN_LEVELS, Whose::Own)],
            ),
        ],
        Suite::Workers => {
            let two = (Broker::Tidegate { workers: 2 }, ours("two workers"));
            let one = (Broker::Tidegate { workers: 1 }, peer("one worker"));
            let title = "Brokers: one worker and two, on both cores with their load";
            vec![part(title, &[two, one], workers_rows())]
        }
        Suite::Gateway | Suite::Sticky => Vec::new(),
    }
}

/// The rows of the table of peers.
fn peers() -> Vec<Scenario> {
    use Load::Mqload;
    vec![
        cpu("1to1_q0", "1→1 QoS 0", Mqload("pubsub --window 4096"))
            .bars(&[Bar::Times(1.0 / 40.0, "mosquitto")])
            .null_too(),
        cpu("10x10_q0", "10×10 QoS 0", Mqload("pubsub --pubs 10 --subs 10 --topics 10 --window 1024"))
            .bars(&[Bar::Times(1.0 / 44.0, "mosquitto")])
            .null_too(),
        cpu(
            "10x10_q1",
            "10×10 QoS 1",
            Mqload("pubsub --pubs 10 --subs 10 --topics 10 --qos 1 --inflight 100 --window 1024"),
        )
        .bars(&[Bar::Times(1.0 / 33.0, "mosquitto")]),
        cpu(
            "10x10_q2",
            "10×10 QoS 2",
            Mqload("pubsub --pubs 10 --subs 10 --topics 10 --qos 2 --inflight 100 --window 1024"),
        )
        .bars(&[Bar::Times(1.0 / 44.0, "mosquitto")]),
        cpu("fanout100", "fan-out 100", Mqload("fanout --subs 100 --window 64"))
            .bars(&[Bar::Times(1.0 / 30.0, "mosquitto")])
            .null_too(),
        cpu("fanin100", "fan-in 100", Mqload("fanin --pubs 100 --window 64"))
            .bars(&[Bar::Times(1.0 / 23.0, "mosquitto")])
            .null_too(),
        cpu(
            "wild10k",
            "10,000 filters",
            Mqload("wildcards --filters 10000 --subs 100 --pubs 4 --window 1024"),
        )
        .bars(&[Bar::Times(1.0 / 13.0, "mosquitto")]),
        Scenario::new(
            Row::new("rate20k", "p99 at 20,000/s", "µs").with_noise(LATENCY_NOISE),
            "p99_us",
            Mqload("pubsub --pubs 20 --subs 20 --topics 20 --rate 20000 --tick 200 --window 0"),
        )
        .bars(&[Bar::Times(1.0 + LATENCY_NOISE, "null server")])
        .paced()
        .no_delay()
        .null_too(),
        Scenario::new(
            Row::new("connect10k", "connect", "CPU-µs"),
            "cpu_us_per_conn",
            Mqload("connect --n 10000 --conc 64 --srcs 4 --hold 1"),
        )
        .null_too(),
        Scenario::new(
            Row::new("idle19k5", "idle connection", "bytes"),
            "rss_bytes_per_conn",
            Mqload("idle --n 19500 --conc 64 --srcs 4 --hold 3 --setup 25"),
        )
        .bars(&[Bar::AtMost(2_000.0), Bar::Times(1.0, "mosquitto")])
        .null_too(),
    ]
}

/// Everything else that costs CPU time.
fn loads() -> Vec<Scenario> {
    use Load::Own;
    let gib =
        |name, what, line| Scenario::new(Row::new(name, what, "CPU-s per GiB"), "cpu_s_per_GiB", Own(line));
    let cycle =
        |name, what, line| Scenario::new(Row::new(name, what, "CPU-µs each"), "cpu_us_per_cycle", Own(line));
    vec![
        cpu("size16_q0", "16 B, QoS 0", Own("pairs --size 16 --window 1024")).null_too(),
        cpu("size16_q1", "16 B, QoS 1", Own("pairs --size 16 --window 1024 --qos 1 --inflight 100")),
        cpu("size256_q0", "256 B, QoS 0", Own("pairs --size 256 --window 1024")).null_too(),
        cpu("size256_q1", "256 B, QoS 1", Own("pairs --size 256 --window 1024 --qos 1 --inflight 100")),
        cpu("size4k_q0", "4 KiB, QoS 0", Own("pairs --size 4096 --window 128")).null_too(),
        cpu("size4k_q1", "4 KiB, QoS 1", Own("pairs --size 4096 --window 128 --qos 1 --inflight 100")),
        gib("size256k_q0", "256 KiB, QoS 0", "pairs --size 262144 --window 4").null_too(),
        gib("size256k_q1", "256 KiB, QoS 1", "pairs --size 262144 --window 4 --qos 1 --inflight 4"),
        cpu("sparse_q0", "2,000 pairs, window 1, QoS 0", Own("pairs --pubs 2000 --subs 2000 --window 1"))
            .null_too(),
        cpu(
            "sparse_q1",
            "2,000 pairs, window 1, QoS 1",
            Own("pairs --pubs 2000 --subs 2000 --window 1 --qos 1 --inflight 1"),
        ),
        cpu("v5_q0", "MQTT 5, 3 properties, QoS 0", Own("pairs --v 5 --properties 1")),
        cpu("v5_q1", "MQTT 5, 3 properties, QoS 1", Own("pairs --v 5 --properties 1 --qos 1 --inflight 20")),
        cpu("share_q0", "shared by 10, QoS 0", Own("pairs --share 1")),
        cpu("share_q1", "shared by 10, QoS 1", Own("pairs --share 1 --qos 1 --inflight 100")),
        cpu("tcp_q0", "10×10 QoS 0, TCP", Own("pairs")).null_too(),
        cpu("ws_q0", "10×10 QoS 0, WebSocket", Own("pairs --ws 1")).websocket(),
        cpu("ws_q1", "10×10 QoS 1, WebSocket", Own("pairs --ws 1 --qos 1 --inflight 100")).websocket(),
        cycle("storm_disconnect", "connect and DISCONNECT", "storm --n 10000 --conc 64"),
        cycle("storm_will", "connect and vanish, with a will", "storm --n 10000 --conc 64 --will 1"),
        cpu(
            "slow_q1",
            "10 slow beside 10 fast, QoS 1",
            Own("pairs --slow 10 --qos 1 --inflight 100 --window 1024"),
        )
        .and(
            Row::new("slow_memory", "the same: growth at most", "MiB").with_bars(&[Bar::AtMost(64.0)]),
            "peak_growth_mib",
        )
        .short_queues(),
        Scenario::new(
            Row::new("slow_p99", "the same: p99 of the fast at 10,000/s", "µs").with_noise(LATENCY_NOISE),
            "p99_us",
            Own("pairs --slow 10 --qos 1 --rate 10000"),
        )
        .short_queues()
        .no_delay()
        .paced(),
    ]
}

/// Memory, and the CPU time to put something into it and to get it out.
fn kept() -> Vec<Scenario> {
    use Load::Own;
    let thing = |name, what, field, load| Scenario::new(Row::new(name, what, "bytes"), field, Own(load));
    let store = |name, what| Row::new(name, what, "CPU-µs each");
    let deliver = |name, what| Row::new(name, what, PER_MILLION);
    vec![
        cpu("filters1m", "match one of 1,000,000 filters", Own("filters --filters 1000000 --subs 500"))
            .bars(&[Bar::AtMost(2.0), Bar::Times(1.0, "mosquitto")])
            .and(store("filters1m_subscribe", "subscribe, up to 1,000,000 filters"), "subscribe_us")
            .and(Row::new("filters1m_bytes", "subscription", "bytes"), "bytes_per_subscription"),
        thing("retained_bytes", "retained message of 64 B", "bytes_per_message", "retained --n 100000")
            .and(store("retained_store", "retain"), "store_us")
            .and(deliver("retained_deliver", "deliver what is retained"), "cpu_s_per_M")
            .no_delay(),
        thing(
            "offline_bytes",
            "message of 64 B for one who is away",
            "bytes_per_message",
            "offline --n 100000",
        )
        .and(store("offline_store", "queue for one who is away"), "store_us")
        .and(deliver("offline_deliver", "deliver to one who is back, QoS 1"), "cpu_s_per_M")
        .no_delay(),
        thing(
            "waiting_bytes",
            "message of 64 B for a slow receiver",
            "bytes_per_message",
            "unacknowledged --n 90000 --subs 10",
        )
        .no_delay(),
    ]
}

/// The names of what is told at each level.
type Names = [(&'static str, &'static str); 3];

const RIVAL_LEVELS: [Names; LEVELS.len()] = [
    [("load25_p50", "p50 at 25 %"), ("load25_p99", "p99 at 25 %"), ("load25_p999", "p99.9 at 25 %")],
    [("load50_p50", "p50 at 50 %"), ("load50_p99", "p99 at 50 %"), ("load50_p999", "p99.9 at 50 %")],
    [("load80_p50", "p50 at 80 %"), ("load80_p99", "p99 at 80 %"), ("load80_p999", "p99.9 at 80 %")],
];
const OWN_LEVELS: [Names; LEVELS.len()] = [
    [("own25_p50", "p50 at 25 %"), ("own25_p99", "p99 at 25 %"), ("own25_p999", "p99.9 at 25 %")],
    [("own50_p50", "p50 at 50 %"), ("own50_p99", "p99 at 50 %"), ("own50_p999", "p99.9 at 50 %")],
    [("own80_p50", "p50 at 80 %"), ("own80_p99", "p99 at 80 %"), ("own80_p999", "p99.9 at 80 %")],
];

/// The load whose rate is meant.
const TWENTY: &str = "pubsub --pubs 20 --subs 20 --topics 20";
/// What makes it saturate a broker.
pub(super) const SATURATING: &str = "--window 1024";

fn saturated() -> Scenario {
    let row = Row::new("saturated", "20×20 QoS 0, saturated", "s per million");
    let line = "pubsub --pubs 20 --subs 20 --topics 20 --window 1024";
    Scenario::new(row, "wall_s_per_M", Load::Mqload(line)).null_too()
}

/// The bar is that of the p99 at 20,000/s: equal to the null server's within noise, which is larger far out.
fn by_load(names: &[Names; LEVELS.len()], whose: Whose) -> Scenario {
    const MOST: &[Bar] = &[Bar::Times(1.0 + LATENCY_NOISE, "null server")];
    const FAR: &[Bar] = &[Bar::Times(1.0 + 3.0 * LATENCY_NOISE, "null server")];
    let row = |at, &(name, what): &(&'static str, &'static str)| {
        let bars = match (whose, QUANTILES[at]) {
            (Whose::Own, _) => &[][..], // the null server's own rate is another load
            (Whose::Rival, "p999_us") => FAR,
            (Whose::Rival, _) => MOST,
        };
        Row::new(name, what, "µs").with_bars(bars)
    };
    let level =
        |names: &Names| -> Vec<Row> { names.iter().enumerate().map(|(at, name)| row(at, name)).collect() };
    // A server near its own saturation needs a whole core, and of real-time programs the kernel keeps a part of it.
    let priority = match whose {
        Whose::Own => Priority::Usual,
        Whose::Rival => Priority::RealTime,
    };
    Scenario {
        rows: names.iter().flat_map(level).collect(),
        fields: Vec::new(),
        load: Load::Levels(TWENTY, whose),
        setup: Setup { priority, no_delay: true, ..PINNED },
        null: true,
    }
}

/// Each row twice: what a message costs, and how many there are. Nothing is asked of them: on two cores the load takes
/// what the second worker could use.
fn workers_rows() -> Vec<Scenario> {
    use Load::{Mqload, Own};
    let both = |cpu_row: (&'static str, &'static str), wall_row: (&'static str, &'static str), load| {
        cpu(cpu_row.0, cpu_row.1, load)
            .and(Row::new(wall_row.0, wall_row.1, "s per million"), "wall_s_per_M")
            .everywhere()
    };
    vec![
        both(
            ("workers_q0", "10×10 QoS 0"),
            ("workers_q0_time", "10×10 QoS 0, time"),
            Mqload("pubsub --pubs 10 --subs 10 --topics 10 --window 1024"),
        ),
        both(
            ("workers_q1", "10×10 QoS 1"),
            ("workers_q1_time", "10×10 QoS 1, time"),
            Mqload("pubsub --pubs 10 --subs 10 --topics 10 --qos 1 --inflight 100 --window 1024"),
        ),
        both(
            ("workers_q2", "10×10 QoS 2"),
            ("workers_q2_time", "10×10 QoS 2, time"),
            Mqload("pubsub --pubs 10 --subs 10 --topics 10 --qos 2 --inflight 100 --window 1024"),
        ),
        both(
            ("workers_fanin", "fan-in 100"),
            ("workers_fanin_time", "fan-in 100, time"),
            Mqload("fanin --pubs 100 --window 64"),
        ),
        both(
            ("workers_wild", "10,000 filters"),
            ("workers_wild_time", "10,000 filters, time"),
            Mqload("wildcards --filters 10000 --subs 100 --pubs 4 --window 1024"),
        ),
        both(
            ("workers_sparse", "2,000 pairs, window 1, QoS 1"),
            ("workers_sparse_time", "2,000 pairs, window 1, QoS 1, time"),
            Own("pairs --pubs 2000 --subs 2000 --window 1 --qos 1 --inflight 1"),
        ),
        Scenario::new(
            Row::new("workers_connect", "connect", "CPU-µs"),
            "cpu_us_per_conn",
            Mqload("connect --n 10000 --conc 64 --srcs 4 --hold 1"),
        )
        .and(Row::new("workers_connect_time", "connect, time", "µs"), "wall_us_per_conn")
        .everywhere(),
    ]
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn all(nats: bool) -> Vec<Part> {
        Suite::ALL.into_iter().flat_map(|suite| parts(suite, nats)).collect()
    }

    #[test]
    fn every_row_has_a_name_of_its_own_and_a_number() {
        let mut names = HashSet::new();
        for part in all(true) {
            for scenario in &part.scenarios {
                assert!(scenario.rows.iter().all(|row| names.insert(row.name)), "{scenario:?}");
                if !matches!(scenario.load, Load::Levels(..)) {
                    assert_eq!(scenario.rows.len(), scenario.fields.len());
                }
            }
        }
        assert_eq!(by_load(&OWN_LEVELS, Whose::Own).rows.len(), LEVELS.len() * QUANTILES.len());
    }

    #[test]
    fn the_null_server_is_asked_only_for_what_it_can_do() {
        for scenario in all(true).iter().flat_map(|part| &part.scenarios).filter(|one| one.null) {
            let (Load::Mqload(line) | Load::Own(line) | Load::Levels(line, _)) = scenario.load;
            for beyond in ["--qos", "--v 5", "--share", "--ws", "--will", "wildcards", "retained", "offline"]
            {
                assert!(!line.contains(beyond), "{line}");
            }
        }
    }

    #[test]
    fn every_bar_names_someone_who_is_measured() {
        for part in all(false) {
            let names: HashSet<_> = part.contestants.iter().map(|(_, who)| who.name.clone()).collect();
            for bar in part.scenarios.iter().flat_map(|one| &one.rows).flat_map(|row| row.bars) {
                assert!(
                    matches!(bar, Bar::AtMost(_))
                        || matches!(bar, Bar::Times(_, who) if names.contains(*who))
                );
            }
        }
    }
}
