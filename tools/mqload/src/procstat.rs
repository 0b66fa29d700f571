//! Reads CPU time and memory of a server process, its threads and its children from /proc.

use std::fs;

use crate::net;

fn stat_fields(pid: i32) -> Option<(i32, u64)> {
    let s = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let rest = &s[s.rfind(')')? + 2..];
    let f: Vec<&str> = rest.split_ascii_whitespace().collect();
    // after the name: state is 0, ppid 1, ... utime 11, stime 12
    Some((f.get(1)?.parse().ok()?, f.get(11)?.parse::<u64>().ok()? + f.get(12)?.parse::<u64>().ok()?))
}

/// The pid and every live descendant of it.
pub fn tree(pid: i32) -> Vec<i32> {
    let mut all: Vec<(i32, i32)> = vec![];
    if let Ok(d) = fs::read_dir("/proc") {
        for e in d.flatten() {
            if let Ok(p) = e.file_name().to_string_lossy().parse::<i32>()
                && let Some((pp, _)) = stat_fields(p)
            {
                all.push((p, pp));
            }
        }
    }
    let mut out = vec![pid];
    let mut i = 0;
    while i < out.len() {
        let cur = out[i];
        out.extend(all.iter().filter(|(p, pp)| *pp == cur && *p != cur).map(|(p, _)| *p));
        i += 1;
    }
    out
}

/// CPU seconds (user + system) used so far by the tree.
pub fn cpu_s(pids: &[i32]) -> f64 {
    let hz = net::ticks_per_s();
    pids.iter().filter_map(|p| stat_fields(*p)).map(|(_, t)| t as f64 / hz).sum()
}

fn status_kb(pid: i32, key: &str) -> u64 {
    fs::read_to_string(format!("/proc/{pid}/status"))
        .ok()
        .and_then(|s| {
            s.lines()
                .find(|l| l.starts_with(key))
                .and_then(|l| l.split_ascii_whitespace().nth(1).and_then(|v| v.parse().ok()))
        })
        .unwrap_or(0)
}

pub fn rss_kb(pids: &[i32]) -> u64 {
    pids.iter().map(|p| status_kb(*p, "VmRSS:")).sum()
}

pub fn peak_kb(pids: &[i32]) -> u64 {
    pids.iter().map(|p| status_kb(*p, "VmHWM:")).sum()
}

/// Resets the peak-RSS mark so that `peak_kb` speaks about this run only.
pub fn reset_peak(pids: &[i32]) {
    for p in pids {
        let _ = fs::write(format!("/proc/{p}/clear_refs"), "5");
    }
}
