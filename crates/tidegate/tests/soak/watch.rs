//! Looks at the program every second while it works: its memory stays inside the bound, it answers, it drops nothing in the log.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{Scope, ScopedJoinHandle};
use std::time::Duration;

use crate::subject::{Limits, Metrics, usage};

/// What was seen.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Seen {
    /// The most bytes of memory.
    pub(crate) memory: usize,
    /// The bound at that moment.
    pub(crate) bound: usize,
    /// The most connections.
    pub(crate) connections: usize,
}

/// Watches until `stop`. An error: a bound was broken.
pub(crate) fn watch<'scope>(
    scope: &'scope Scope<'scope, '_>,
    (pid, api): (u32, SocketAddr),
    limits: Limits,
    clients: usize,
    stop: &'scope AtomicBool,
) -> ScopedJoinHandle<'scope, Result<Seen, String>> {
    scope.spawn(move || {
        let mut seen = Seen::default();
        while !stop.load(Ordering::Relaxed) {
            // sleep: memory tells nobody that it grows
            std::thread::sleep(Duration::from_millis(250));
            let Some(metrics) = Metrics::ask(api) else { return Err("the API does not answer".to_owned()) };
            let (memory, _) = usage(pid);
            let bound = limits.memory(clients);
            if memory > bound {
                return Err(format!("{} MiB of memory, bound {} MiB", memory >> 20, bound >> 20));
            }
            if memory > seen.memory {
                (seen.memory, seen.bound) = (memory, bound);
            }
            seen.connections = seen.connections.max(metrics.get("tidegate_broker_connections") as usize);
            for rule in ["log_trimmed", "engine"] {
                if metrics.dropped(rule) > 0.0 {
                    return Err(format!(
                        "{} messages were dropped by the rule {rule}",
                        metrics.dropped(rule)
                    ));
                }
            }
            let violations = metrics.get("tidegate_broker_protocol_violations_total");
            // cut in the middle of a packet is no violation, and nothing else is wrong with these clients
            if violations > 0.0 {
                return Err(format!("{violations} clients are said to have broken the specification"));
            }
        }
        Ok(seen)
    })
}
