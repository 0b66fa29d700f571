//! Whether a client comes back to its server from changing addresses, and how many move when a server goes.

use crate::account::r;
use crate::arguments::{Args, addr};
use crate::mqtt;
use crate::sockets::{connect, stream};
use serde_json::json;
use std::collections::{BTreeMap, HashMap};
use std::io::{Read, Write};
use std::time::Duration;

/// Connects `cid` through the LB from `src`; returns the backend port it reached.
fn probe(dst: ([u8; 4], u16), src: [u8; 4], cid: &str, v5: bool) -> Option<u16> {
    let fd = connect(Some(src), dst).ok()?;
    let mut s = stream(fd);
    s.set_nonblocking(false).ok()?;
    s.set_read_timeout(Some(Duration::from_secs(3))).ok()?;
    s.set_write_timeout(Some(Duration::from_secs(3))).ok()?;
    let mut b = Vec::new();
    mqtt::connect(&mut b, cid.as_bytes(), v5, 60, None);
    s.write_all(&b).ok()?;
    let mut got = Vec::new();
    let mut buf = [0u8; 512];
    let mut subbed = false;
    for _ in 0..16 {
        let n = s.read(&mut buf).ok()?;
        if n == 0 {
            return None;
        }
        got.extend_from_slice(&buf[..n]);
        while let Some(Ok((h, rem))) = mqtt::head(&got) {
            if got.len() < h + rem {
                break;
            }
            let t = got[0] >> 4;
            if t == 2 && !subbed {
                subbed = true;
                let mut q = Vec::new();
                mqtt::subscribe(&mut q, 1, b"$lb/port", 0, v5);
                s.write_all(&q).ok()?;
            }
            if t == 3 {
                let p = h + 2 + 8 + v5 as usize;
                let port = std::str::from_utf8(&got[p..h + rem]).ok()?.parse().ok();
                let _ = s.write_all(&[0xe0, 0]);
                return port;
            }
            got.drain(..h + rem);
        }
    }
    None
}

struct Map {
    at: HashMap<usize, u16>,
    split: usize,
    failed: usize,
    dist: BTreeMap<u16, u64>,
}

fn survey(dst: ([u8; 4], u16), ids: usize, rounds: usize, srcs: usize, v5: bool) -> Map {
    let mut m = Map { at: HashMap::new(), split: 0, failed: 0, dist: BTreeMap::new() };
    let mut split = std::collections::HashSet::new();
    for r in 0..rounds {
        for i in 0..ids {
            let src = [127, 0, 2, 1 + ((i * 7 + r * 5) % srcs.clamp(1, 250)) as u8];
            match probe(dst, src, &format!("device-{i:06}"), v5) {
                Some(p) => {
                    if r == 0 {
                        *m.dist.entry(p).or_default() += 1;
                    }
                    if *m.at.entry(i).or_insert(p) != p {
                        split.insert(i);
                    }
                }
                None => m.failed += 1,
            }
        }
    }
    m.split = split.len();
    m
}

fn moved(a: &Map, b: &Map) -> f64 {
    let both: Vec<usize> = a.at.keys().filter(|k| b.at.contains_key(k)).copied().collect();
    if both.is_empty() {
        return f64::NAN;
    }
    both.iter().filter(|k| a.at[k] != b.at[k]).count() as f64 / both.len() as f64
}

pub fn run(a: &Args) {
    let dst = addr(&a.s("to", "127.0.0.1:1883"));
    let ids = a.n("ids", 2000) as usize;
    let rounds = a.n("rounds", 3) as usize;
    let srcs = a.n("srcs", 16) as usize;
    let v5 = a.has("v5");
    let settle = Duration::from_millis(a.n("settle-ms", 1500));
    let sh = |c: &str| {
        let ok = std::process::Command::new("sh")
            .arg("-c")
            .arg(c)
            .stdout(std::process::Stdio::null())
            .status()
            .map(|s| s.success())
            .unwrap_or(false);
        std::thread::sleep(settle);
        ok
    };
    let base = survey(dst, ids, rounds, srcs, v5);
    let max = base.dist.values().max().copied().unwrap_or(0) as f64;
    let mean = ids as f64 / base.dist.len().max(1) as f64;
    let mut o = json!({"run": "sticky", "label": a.s("label", ""), "ids": ids, "rounds": rounds, "sources": srcs, "backends_seen": base.dist.len(),
        "ids_on_one_backend": r(1.0 - base.split as f64 / ids as f64, 4), "failed": base.failed, "max_over_mean": r(max / mean, 3),
        "dist": base.dist.iter().map(|(k, v)| (k.to_string(), json!(v))).collect::<serde_json::Map<_, _>>()});
    if a.has("remove") {
        let n = base.dist.len() as f64;
        o["remove_cmd_ok"] = json!(sh(&a.s("remove", "")));
        let less = survey(dst, ids, 1, srcs, v5);
        o["moved_on_remove"] = json!(r(moved(&base, &less), 4));
        o["ideal"] = json!(r(1.0 / n, 4));
        o["failed_after_remove"] = json!(less.failed);
        o["backends_after_remove"] = json!(less.dist.len());
        if a.has("add") {
            o["add_cmd_ok"] = json!(sh(&a.s("add", "")));
            let back = survey(dst, ids, 1, srcs, v5);
            o["moved_on_add"] = json!(r(moved(&less, &back), 4));
            o["same_as_first_map"] = json!(r(1.0 - moved(&base, &back), 4));
            o["failed_after_add"] = json!(back.failed);
        }
    }
    println!("{o}");
}
