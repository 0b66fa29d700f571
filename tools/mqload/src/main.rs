//! A small load generator for brokers of MQTT that shares nothing with the one it tests: packets of its own, one thread,
//! epoll. Loopback only; every run ends by itself; one line of JSON for each.

mod hist;
mod net;
mod null;
mod procstat;
mod proto;
mod world;

use std::net::Ipv4Addr;
use world::{Cfg, World};

const HELP: &str = "mqload SCENARIO [--option value]...   one JSON line on stdout per run

scenarios
  pubsub     P publishers -> S subscribers over T topics
  fanout     1 publisher -> S subscribers of one topic
  fanin      P publishers (own topics) -> S=1 subscriber, or a shared group with --share G
  wildcards  --filters K mixed exact/+/# filters over --subs C clients, random matching topics;
             --overlap 1: every topic is met by four filters of four clients
  connect    --n N connections as fast as possible, then held for --hold s
  idle       the same, each with one subscription; RSS growth of --pid per connection
  null       the built-in null broker (--mode batch|permsg), for the socket-path ceiling

options (defaults)
  --host 127.0.0.1  --port 1883  --v 4|5 (4)
  --pubs 1 --subs 1 --topics 1 --qos 0 --subqos = qos --size 64 (>= 20)
  --secs 5 --msgs unlimited      stop after either
  --window 4096                  end-to-end window per publisher, in messages; 0 = open loop
  --inflight 100                 unacknowledged QoS 1/2 messages per publisher
  --rate 0                       total msg/s on a fixed schedule (latency counts from the schedule)
  --tick 50                      in --rate mode, shortest sleep in microseconds
  --share G  --wild 1            shared group / one '+' filter per subscriber
  --pid PID                      server process: CPU and RSS of it and its children
  --conc 64 --srcs 1 --setup 60  parallel dials, 127.0.1.x source addresses, set-up limit in s
  --keepalive 1200 --drain 10 --label TEXT
Only loopback targets are accepted. Every run is bounded by --secs + --drain or --setup + --hold.";

// long: every option with its default
fn main() {
    let mut a = std::env::args().skip(1);
    let scen = a.next().unwrap_or_default();
    let mut kv = std::collections::HashMap::new();
    while let Some(k) = a.next() {
        let Some(name) = k.strip_prefix("--") else { die(&format!("unexpected argument {k}")) };
        if name == "help" {
            println!("{HELP}");
            return;
        }
        let Some(v) = a.next() else { die(&format!("{k} needs a value")) };
        kv.insert(name.to_string(), v);
    }
    if scen.is_empty() || scen == "--help" || scen == "help" {
        println!("{HELP}");
        return;
    }
    let mut s = |k: &str, d: &str| kv.remove(k).unwrap_or_else(|| d.to_string());
    fn num<T: std::str::FromStr>(k: &str, v: String) -> T {
        v.parse().unwrap_or_else(|_| die(&format!("--{k}: bad value {v}")))
    }
    macro_rules! n {
        ($k:expr, $d:expr) => {
            num($k, s($k, $d))
        };
    }
    let qos: u8 = n!("qos", "0");
    let pubs: usize = n!(
        "pubs",
        if scen == "fanin" {
            "100"
        } else if scen == "wildcards" {
            "4"
        } else {
            "1"
        }
    );
    let share = Some(s("share", "")).filter(|g| !g.is_empty());
    let mode = s("mode", "batch");
    let n_conn: usize = n!("n", "10000");
    let rbuf: usize = n!("rbuf", "64");
    let msgs: u64 = n!("msgs", "0");
    let c = Cfg {
        host: n!("host", "127.0.0.1"),
        port: n!("port", "1883"),
        v5: s("v", "4") == "5",
        qos,
        sub_qos: num("subqos", s("subqos", &qos.to_string())),
        size: n!("size", "64"),
        pubs,
        subs: num(
            "subs",
            s(
                "subs",
                match scen.as_str() {
                    "fanout" | "wildcards" => "100",
                    _ => "1",
                },
            ),
        ),
        topics: num("topics", s("topics", &if scen == "fanin" { pubs.to_string() } else { "1".into() })),
        secs: f64::min(n!("secs", "5"), 600.0),
        msgs: if msgs == 0 { u64::MAX } else { msgs },
        window: n!("window", "4096"),
        inflight: n!("inflight", "100"),
        rate: n!("rate", "0"),
        tick_us: n!("tick", "50"),
        wild: s("wild", "0") == "1",
        random: scen == "wildcards",
        overlap: s("overlap", "0") == "1",
        filters: n!("filters", "10000"),
        pid: Some(num::<i32>("pid", s("pid", "0"))).filter(|p| *p > 0),
        conc: n!("conc", "64"),
        srcs: num::<u32>("srcs", s("srcs", "1")).min(250),
        hold: f64::min(n!("hold", "2"), 600.0),
        drain: f64::min(n!("drain", "10"), 60.0),
        keepalive: n!("keepalive", "1200"),
        setup_s: f64::min(n!("setup", "60"), 600.0),
        label: s("label", ""),
        share,
    };
    if let Some(k) = kv.keys().next() {
        die(&format!("unknown option --{k}"));
    }
    if !c.host.is_loopback() || c.host == Ipv4Addr::UNSPECIFIED {
        die("only loopback addresses are allowed");
    }
    if c.qos > 2 || c.pubs == 0 || c.subs == 0 || c.topics == 0 || (c.random && !c.subs.is_multiple_of(4)) {
        die("bad numbers (qos 0..2; pubs, subs, topics > 0; wildcards needs subs divisible by 4)");
    }
    let r = match scen.as_str() {
        "pubsub" | "fanout" | "fanin" | "wildcards" => World::new(c).measure(&scen),
        "connect" => World::new(c).crowd("connect", n_conn, false),
        "idle" => World::new(c).crowd("idle", n_conn, true),
        "null" => {
            net::raise_limits();
            null::run(c.host, c.port, mode == "permsg", c.secs, rbuf)
        }
        _ => die(&format!("unknown scenario {scen}; try --help")),
    };
    if let Err(e) = r {
        println!("{{\"scenario\":\"{scen}\",\"error\":\"{e}\"}}");
        std::process::exit(1);
    }
}

fn die(m: &str) -> ! {
    eprintln!("mqload: {m}");
    std::process::exit(2)
}
