//! What subscriptions cost in bytes and in time: `cargo bench -p broker --features bench`.
//!
//! Bytes are what the process takes from the system, texts and the waste of the allocator included. Time is that of one
//! publish whose topic is chosen at random, so that with many filters nothing of its way is in a processor's cache.

#![allow(clippy::print_stdout, reason = "a bench prints")]

use std::time::Instant;

use broker::bench::Subscriptions;

const MATCHES: u32 = 400_000;

#[expect(clippy::disallowed_methods, reason = "a bench measures real time")]
fn now() -> Instant {
    Instant::now()
}

/// Bytes of the process that are in memory.
fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    statm.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok()).unwrap_or(0) * 4096
}

/// A number from a number: the same at each run, and in no order.
fn mixed(n: u32) -> u32 {
    let mut x = u64::from(n).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    x ^= x >> 29;
    x = x.wrapping_mul(0xBF58_476D_1CE4_E5B9);
    (x >> 32) as u32
}

/// The names of a fleet: 50 sites, each with as many devices as it takes.
fn device(n: u32) -> String {
    format!("fleet/site-{:02}/device-{:07}", n % 50, n)
}

/// Filters and topics of one kind.
struct Kind {
    name: &'static str,
    filter: fn(u32) -> String,
    topic: fn(u32) -> String,
}

const KINDS: [Kind; 4] = [
    Kind {
        name: "exact",
        filter: |n| format!("{}/state", device(n)),
        topic: |n| format!("{}/state", device(n)),
    },
    Kind {
        name: "a/#",
        filter: |n| format!("{}/#", device(n)),
        topic: |n| format!("{}/sensor/temperature", device(n)),
    },
    Kind {
        name: "a/+/b",
        filter: |n| format!("{}/+/state", device(n)),
        topic: |n| format!("{}/door/state", device(n)),
    },
    Kind {
        name: "+/a/#",
        filter: |n| format!("+/{n:07}/#"),
        topic: |n| format!("site-{:02}/{:07}/state", n % 50, n),
    },
];

fn main() {
    println!(
        "{:8} {:>9} {:>12} {:>12} {:>12} {:>12}",
        "filters", "of them", "bytes each", "ns add", "ns match", "ns cached"
    );
    // one process for each row, or one would use the memory of another
    let mut args = std::env::args().skip(1).filter(|arg| !arg.starts_with('-'));
    if let (Some(kind), Some(count)) = (args.next(), args.next()) {
        let kind = KINDS.iter().find(|k| k.name == kind).expect("a kind");
        return row(kind, count.parse().expect("a number"));
    }
    for kind in &KINDS {
        for count in [1_000, 100_000, 1_000_000] {
            let own = std::env::current_exe().expect("this program");
            let out = std::process::Command::new(own).arg(kind.name).arg(count.to_string()).output();
            let out = String::from_utf8(out.expect("it runs").stdout).expect("text");
            println!("{}", out.lines().last().unwrap_or_default());
        }
    }
}

fn row(kind: &Kind, count: u32) {
    let mut cold = Subscriptions::new(1);
    let before = resident();
    let begin = now();
    for n in 0..count {
        cold.subscribe(&(kind.filter)(n));
    }
    let add = begin.elapsed().as_nanos() / u128::from(count);
    let bytes = resident().saturating_sub(before) / count as usize;

    // all topics are made before: making one is as much work as finding who wants it
    let topics: Vec<String> = (0..MATCHES).map(|n| (kind.topic)(mixed(n) % count)).collect();
    let found = |subscriptions: &mut Subscriptions, topics: &[String]| {
        let begin = now();
        let hits: usize = topics.iter().map(|topic| subscriptions.routes(topic).0).sum();
        assert_eq!(hits, topics.len(), "each topic has one receiver");
        begin.elapsed().as_nanos() / topics.len() as u128
    };
    let matched = found(&mut cold, &topics);
    // 10,000 topics again and again
    let mut warm = cold.with_cache(65_536);
    let (few, _) = topics.split_at(10_000.min(topics.len()));
    found(&mut warm, few);
    let cached = (0..20).map(|_| found(&mut warm, few)).min().unwrap_or(0);
    println!("{:8} {count:>9} {bytes:>12} {add:>12} {matched:>12} {cached:>12}", kind.name);
}
