//! Every number of the gateway: name, unit, meaning.
//!
//! Counters lie per worker and are added up when somebody asks. Those of a listener or a server live with it and
//! survive a reload that keeps it; what a reload removed is gone from the text.

use std::time::Duration;

use runtime::metrics::{Counter, Desc, Exposition, Gauge, PerWorker};

use crate::error::{End, Refusal};
use crate::route::{ChosenBy, NoKey};

const LISTENER: &[&str] = &["listener"];
const SERVER: &[&str] = &["upstream", "server"];

const ACCEPTED: Desc =
    Desc::counter("tidegate_gateway_accepted_total", "Connections accepted on a listener.", LISTENER);
const OPEN: Desc = Desc::gauge(
    "tidegate_gateway_connections",
    "Connections open on a listener, those without a server yet included.",
    LISTENER,
);
const REFUSED: Desc = Desc::counter(
    "tidegate_gateway_refused_total",
    "Connections that got no server, by reason.",
    &["listener", "reason"],
);
const WITHOUT_KEY: Desc = Desc::counter(
    "tidegate_gateway_without_key_total",
    "Connections that lacked the key of the balancing and were handled by the listener's rule.",
    &["listener", "reason"],
);
const CHOSEN: Desc = Desc::counter(
    "tidegate_gateway_chosen_total",
    "Connections that got a server, by what chose it.",
    &["listener", "chosen_by"],
);
const ENDED: Desc = Desc::counter(
    "tidegate_gateway_ended_total",
    "Connections that had a server and ended, by reason.",
    &["listener", "reason"],
);
const ACCEPT_PAUSES: Desc = Desc::counter(
    "tidegate_gateway_accept_pauses_total",
    "Pauses of accepting because descriptors or memory ran out.",
    LISTENER,
);
const SERVER_OPEN: Desc = Desc::gauge(
    "tidegate_gateway_server_connections",
    "Connections to a server, those being made included.",
    SERVER,
);
const SERVER_TOTAL: Desc =
    Desc::counter("tidegate_gateway_server_connections_total", "Connections made to a server.", SERVER);
const SERVER_FAILS: Desc = Desc::counter(
    "tidegate_gateway_server_failures_total",
    "Connections to a server that failed, timed out, or did not take the device's first bytes.",
    SERVER,
);
const SERVER_SENT: Desc =
    Desc::counter("tidegate_gateway_server_sent_bytes_total", "Bytes from clients to a server.", SERVER);
const SERVER_RECEIVED: Desc =
    Desc::counter("tidegate_gateway_server_received_bytes_total", "Bytes from a server to clients.", SERVER);
const SERVER_CONNECT: Desc = Desc::counter(
    "tidegate_gateway_server_connect_seconds_total",
    "Time it took to make the connections to a server.",
    SERVER,
);
const SERVER_UP: Desc = Desc::gauge(
    "tidegate_gateway_server_up",
    "1: the server takes new connections, 0: it is unavailable, down, or being drained.",
    SERVER,
);
const SERVER_UNAVAILABLE: Desc = Desc::counter(
    "tidegate_gateway_server_unavailable_total",
    "How often a server became unavailable, by max_fails and fail_timeout.",
    SERVER,
);
const SERVER_DOWNTIME: Desc = Desc::counter(
    "tidegate_gateway_server_downtime_seconds_total",
    "How long a server was unavailable.",
    SERVER,
);
const QUEUED: Desc = Desc::gauge(
    "tidegate_gateway_queue_waiting",
    "Connections that wait for a server of an upstream to have room.",
    &["upstream"],
);
const QUEUED_TOTAL: Desc = Desc::counter(
    "tidegate_gateway_queued_total",
    "Connections that waited for a server of an upstream to have room.",
    &["upstream"],
);
const LOG_LOST: Desc = Desc::counter(
    "tidegate_gateway_session_log_lost_total",
    "Lines of the session log's file that could not be written in time or at all.",
    &[],
);
const PINS: Desc = Desc::gauge("tidegate_gateway_pins", "Pins held by an upstream.", &["upstream"]);

/// All metrics, for documentation and its test.
pub const ALL: [Desc; 20] = [
    ACCEPTED,
    OPEN,
    REFUSED,
    WITHOUT_KEY,
    CHOSEN,
    ENDED,
    ACCEPT_PAUSES,
    SERVER_OPEN,
    SERVER_TOTAL,
    SERVER_FAILS,
    SERVER_SENT,
    SERVER_RECEIVED,
    SERVER_CONNECT,
    SERVER_UP,
    SERVER_UNAVAILABLE,
    SERVER_DOWNTIME,
    QUEUED,
    QUEUED_TOTAL,
    LOG_LOST,
    PINS,
];

/// What one worker counts for a listener.
#[derive(Debug, Default)]
pub(crate) struct ListenerStats {
    pub(crate) accepted: Counter,
    pub(crate) pauses: Counter,
    pub(crate) refused: [Counter; Refusal::NAMES.len()],
    pub(crate) without_key: [Counter; NoKey::ALL.len()],
    pub(crate) chosen: [Counter; ChosenBy::ALL.len()],
    pub(crate) ended: [Counter; End::ALL.len()],
}

/// What one worker counts for a server.
#[derive(Debug, Default)]
pub(crate) struct ServerStats {
    /// Connections now; those being made are in it.
    pub(crate) open: Gauge,
    pub(crate) made: Counter,
    pub(crate) fails: Counter,
    /// Time that the connections made took.
    pub(crate) connect_nanos: Counter,
    /// From clients to the server.
    pub(crate) bytes_in: Counter,
    /// From the server to clients.
    pub(crate) bytes_out: Counter,
}

#[allow(clippy::cast_precision_loss)] // Prometheus counts in doubles
fn number(count: u64) -> f64 {
    count as f64
}

pub(crate) fn listener(out: &mut Exposition, name: &str, stats: &PerWorker<ListenerStats>, open: u32) {
    out.sample(&ACCEPTED, &[name], number(stats.sum(|stats| &stats.accepted)));
    out.sample(&ACCEPT_PAUSES, &[name], number(stats.sum(|stats| &stats.pauses)));
    out.sample(&OPEN, &[name], f64::from(open));
    by_reason(out, &REFUSED, name, stats, Refusal::NAMES.into_iter(), |stats| &stats.refused);
    by_reason(out, &WITHOUT_KEY, name, stats, NoKey::ALL.into_iter().map(NoKey::name), |stats| {
        &stats.without_key
    });
    by_reason(out, &CHOSEN, name, stats, ChosenBy::ALL.into_iter().map(ChosenBy::name), |stats| {
        &stats.chosen
    });
    by_reason(out, &ENDED, name, stats, End::ALL.into_iter().map(End::name), |stats| &stats.ended);
}

fn by_reason(
    out: &mut Exposition,
    desc: &Desc,
    listener: &str,
    stats: &PerWorker<ListenerStats>,
    reasons: impl Iterator<Item = &'static str>,
    counters: impl Fn(&ListenerStats) -> &[Counter],
) {
    for (place, reason) in reasons.enumerate() {
        let sum = stats.iter().filter_map(|stats| counters(stats).get(place)).map(Counter::get).sum();
        out.sample(desc, &[listener, reason], number(sum));
    }
}

/// What is known of a server beside its counters.
pub(crate) struct ServerState {
    pub(crate) up: bool,
    pub(crate) unavailable: u64,
    pub(crate) downtime: Duration,
}

pub(crate) fn server(
    out: &mut Exposition,
    labels: &[&str; 2],
    stats: &PerWorker<ServerStats>,
    state: &ServerState,
) {
    let open = u64::try_from(stats.sum_gauge(|stats| &stats.open)).unwrap_or(0);
    out.sample(&SERVER_OPEN, labels, number(open));
    out.sample(&SERVER_TOTAL, labels, number(stats.sum(|stats| &stats.made)));
    out.sample(&SERVER_FAILS, labels, number(stats.sum(|stats| &stats.fails)));
    out.sample(&SERVER_SENT, labels, number(stats.sum(|stats| &stats.bytes_in)));
    out.sample(&SERVER_RECEIVED, labels, number(stats.sum(|stats| &stats.bytes_out)));
    out.sample(&SERVER_CONNECT, labels, number(stats.sum(|stats| &stats.connect_nanos)) / 1e9);
    out.sample(&SERVER_UP, labels, f64::from(u8::from(state.up)));
    out.sample(&SERVER_UNAVAILABLE, labels, number(state.unavailable));
    out.sample(&SERVER_DOWNTIME, labels, state.downtime.as_secs_f64());
}

pub(crate) fn queue(out: &mut Exposition, upstream: &str, waiting: usize, total: u64) {
    out.sample(&QUEUED, &[upstream], number(waiting as u64));
    out.sample(&QUEUED_TOTAL, &[upstream], number(total));
}

pub(crate) fn session_log(out: &mut Exposition, lost: u64) {
    out.sample(&LOG_LOST, &[], number(lost));
}

pub(crate) fn pins(out: &mut Exposition, upstream: &str, count: usize) {
    out.sample(&PINS, &[upstream], number(count as u64));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_house_rule() {
        for desc in ALL {
            assert!(desc.name.starts_with("tidegate_gateway_"), "{}", desc.name);
            let counts = desc.name.ends_with("_total");
            assert_eq!(counts, desc.kind == runtime::metrics::Kind::Counter, "{}", desc.name);
            assert!(desc.help.ends_with('.'), "{}", desc.name);
        }
    }

    #[test]
    fn a_listener_and_a_server_show_every_label() {
        let mut out = Exposition::new();
        let listeners = PerWorker::new(2, ListenerStats::default);
        listeners.iter().for_each(|stats| stats.refused[Refusal::NoServer.index()].add(2));
        listener(&mut out, "tcp://127.0.0.1:1880", &listeners, 3);
        let state = ServerState { up: true, unavailable: 5, downtime: Duration::from_millis(2_500) };
        server(&mut out, &["brokers", "a"], &PerWorker::new(2, ServerStats::default), &state);
        queue(&mut out, "brokers", 6, 7);
        session_log(&mut out, 8);
        pins(&mut out, "brokers", 4);
        let text = out.finish();
        for line in [
            r#"tidegate_gateway_refused_total{listener="tcp://127.0.0.1:1880",reason="no_server"} 4"#,
            r#"tidegate_gateway_connections{listener="tcp://127.0.0.1:1880"} 3"#,
            r#"tidegate_gateway_ended_total{listener="tcp://127.0.0.1:1880",reason="shutdown"} 0"#,
            r#"tidegate_gateway_server_up{upstream="brokers",server="a"} 1"#,
            r#"tidegate_gateway_server_unavailable_total{upstream="brokers",server="a"} 5"#,
            r#"tidegate_gateway_server_downtime_seconds_total{upstream="brokers",server="a"} 2.5"#,
            r#"tidegate_gateway_queue_waiting{upstream="brokers"} 6"#,
            r#"tidegate_gateway_queued_total{upstream="brokers"} 7"#,
            "tidegate_gateway_session_log_lost_total 8",
            r#"tidegate_gateway_pins{upstream="brokers"} 4"#,
        ] {
            assert!(text.lines().any(|have| have == line), "{line}\n{text}");
        }
        for desc in ALL {
            assert!(text.contains(&format!("# HELP {} ", desc.name)), "{}", desc.name);
        }
    }
}
