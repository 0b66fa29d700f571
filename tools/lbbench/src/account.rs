//! What the processes under measurement have used, from /proc, and how samples are told.

use std::collections::HashMap;
use std::time::Instant;

/// The clock: an instrument is what it is for, so it is asked nowhere else.
#[allow(clippy::disallowed_methods, reason = "no state machine depends on it")]
pub fn now() -> Instant {
    Instant::now()
}

pub fn now_ns(t0: Instant) -> u64 {
    t0.elapsed().as_nanos() as u64
}

/// The processes under measurement: the given pids and all their descendants.
pub fn family(roots: &[u64]) -> Vec<u64> {
    let mut kids: HashMap<u64, Vec<u64>> = HashMap::new();
    if let Ok(d) = std::fs::read_dir("/proc") {
        for e in d.flatten() {
            let Ok(pid) = e.file_name().to_string_lossy().parse::<u64>() else { continue };
            if let Ok(s) = std::fs::read_to_string(format!("/proc/{pid}/stat"))
                && let Some(r) = s.rfind(')')
                && let Some(pp) = s[r + 2..].split(' ').nth(1).and_then(|x| x.parse::<u64>().ok())
            {
                kids.entry(pp).or_default().push(pid);
            }
        }
    }
    let mut out: Vec<u64> = Vec::new();
    let mut q: Vec<u64> = roots.iter().copied().filter(|&p| p > 1).collect();
    while let Some(p) = q.pop() {
        if out.contains(&p) {
            continue;
        }
        out.push(p);
        if let Some(k) = kids.get(&p) {
            q.extend(k);
        }
    }
    out
}

/// CPU seconds (user + system, run-queue accounting, nanosecond grain) of all threads of `pids`.
pub fn cpu_s(pids: &[u64]) -> f64 {
    let mut ns = 0u64;
    for p in pids {
        if let Ok(d) = std::fs::read_dir(format!("/proc/{p}/task")) {
            for t in d.flatten() {
                if let Ok(s) = std::fs::read_to_string(t.path().join("schedstat")) {
                    ns += s.split(' ').next().and_then(|x| x.parse::<u64>().ok()).unwrap_or(0);
                }
            }
        }
    }
    ns as f64 / 1e9
}

/// (Pss, Rss) in KiB summed over `pids`.
pub fn mem_kib(pids: &[u64]) -> (u64, u64) {
    let (mut pss, mut rss) = (0, 0);
    for p in pids {
        if let Ok(s) = std::fs::read_to_string(format!("/proc/{p}/smaps_rollup")) {
            for l in s.lines() {
                let v = || l.split_whitespace().nth(1).and_then(|x| x.parse::<u64>().ok()).unwrap_or(0);
                if l.starts_with("Pss:") {
                    pss += v();
                } else if l.starts_with("Rss:") {
                    rss += v();
                }
            }
        }
    }
    (pss, rss)
}

/// Socket-buffer pages of the whole machine (not only of the LB), KiB.
pub fn tcp_mem_kib() -> u64 {
    std::fs::read_to_string("/proc/net/sockstat")
        .ok()
        .and_then(|s| s.lines().find(|l| l.starts_with("TCP:")).map(|l| l.to_string()))
        .and_then(|l| l.split_whitespace().last().and_then(|x| x.parse::<u64>().ok()))
        .unwrap_or(0)
        * 4
}

/// Kernel slab total (KiB), machine-wide.
pub fn slab_kib() -> u64 {
    std::fs::read_to_string("/proc/meminfo")
        .ok()
        .and_then(|s| {
            s.lines()
                .find(|l| l.starts_with("Slab:"))
                .and_then(|l| l.split_whitespace().nth(1).and_then(|x| x.parse().ok()))
        })
        .unwrap_or(0)
}

/// Percentiles in microseconds of nanosecond samples.
pub fn pct(v: &mut [u64]) -> serde_json::Value {
    if v.is_empty() {
        return serde_json::Value::Null;
    }
    v.sort_unstable();
    let at = |p: f64| {
        let i = ((v.len() as f64 * p).ceil() as usize).clamp(1, v.len()) - 1;
        (v[i] / 100) as f64 / 10.0
    };
    serde_json::json!({"n": v.len(), "p50_us": at(0.5), "p90_us": at(0.9), "p99_us": at(0.99), "p999_us": at(0.999), "max_us": at(1.0)})
}

pub fn r(x: f64, d: i32) -> f64 {
    let m = 10f64.powi(d);
    (x * m).round() / m
}
