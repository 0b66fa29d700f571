//! What a run is told as: a table for people, a document with stable names for programs. Pure.

use std::fmt::Write as _;

use serde::Serialize;

use super::latency::Percentiles;
use super::outcome::{Balance, Connections, Outcome, Reasons};

/// Late by more than this is worth a word: a millisecond.
const LATE_MILLIS: f64 = 1.0;

/// A thread that works so much of its time is the bottleneck.
const BUSY: f64 = 0.9;

/// A run of `conn`, `pubsub`, `fanout` or `fanin`.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Report {
    pub(super) bench: &'static str,
    pub(super) tidegate: &'static str,
    pub(super) server: String,
    pub(super) protocol: String,
    pub(super) threads: usize,
    pub(super) connections: ConnectionReport,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) messages: Option<MessageReport>,
    pub(super) generator: GeneratorReport,
    /// Whether the exit status is 0.
    pub(super) passed: bool,
    /// Sentences for people: why it did not pass, and what makes the numbers doubtful.
    pub(super) notes: Vec<String>,
}

/// What came of the connections.
#[derive(Clone, Debug, Serialize)]
pub(super) struct ConnectionReport {
    asked: u64,
    connected: u64,
    /// Never became ready, by reason.
    failed: u64,
    /// How many of these were to publish, and how many to subscribe.
    failed_publishers: u64,
    failed_subscribers: u64,
    failures: Reasons,
    /// Were ready and went, by reason.
    lost: u64,
    losses: Reasons,
    /// Connections per second that were asked for.
    rate: Option<f64>,
    /// From the first SYN to the last ready client.
    seconds: f64,
    per_second: f64,
    /// From the time a connection was to begin to CONNACK.
    connect_ms: Option<Percentiles>,
    /// The part of it until TCP was there.
    tcp_ms: Option<Percentiles>,
}

/// What came of the messages.
#[derive(Clone, Debug, Serialize)]
pub(super) struct MessageReport {
    pub(super) publishers: u32,
    pub(super) subscribers: u32,
    pub(super) share: Option<String>,
    pub(super) qos: u8,
    /// Bytes of a payload.
    pub(super) size: usize,
    /// `open`: sent by the clock; `closed`: as fast as the server and the windows let.
    #[serde(rename = "loop")]
    pub(super) pacing: &'static str,
    /// Messages per second that were asked for.
    pub(super) rate: Option<f64>,
    pub(super) inflight: u16,
    /// Of a closed loop: messages of a publisher that its subscribers have not got yet.
    pub(super) window: Option<u64>,
    /// Of the measured time, without the warm-up.
    pub(super) seconds: f64,
    pub(super) sent_per_second: f64,
    pub(super) received_per_second: f64,
    /// Of the whole run.
    pub(super) sent: u64,
    pub(super) received: u64,
    pub(super) expected: u64,
    pub(super) lost: u64,
    pub(super) duplicates: u64,
    /// Messages that came after a later one; nothing for a shared group, which promises no order.
    pub(super) out_of_order: Option<u64>,
    pub(super) foreign: u64,
    pub(super) refused: u64,
    pub(super) unacknowledged: u64,
    /// From the intended time to the subscriber.
    pub(super) latency_ms: Option<Percentiles>,
    /// From the intended time to PUBACK or PUBREC.
    pub(super) acknowledged_ms: Option<Percentiles>,
}

/// Whether the tool itself kept up.
#[derive(Clone, Debug, Serialize)]
pub(super) struct GeneratorReport {
    /// The share of its time that the busiest thread worked.
    busy: f64,
    /// How late messages (or connections) were begun, where the server did not hold them back.
    late_ms: Option<Percentiles>,
    /// Due and never sent.
    unsent: u64,
    /// How often nothing arrived for half a second and a window was given up.
    stalls: u64,
    /// The tool was slower than what it measured.
    bottleneck: bool,
}

impl ConnectionReport {
    pub(super) fn new(connections: &Connections, rate: Option<f64>) -> Self {
        let seconds = connections.span.as_ref().map_or(0.0, |span| (span.end - span.start) as f64 / 1e9);
        let per_second = if seconds > 0.0 { connections.ready as f64 / seconds } else { 0.0 };
        Self {
            asked: connections.asked,
            connected: connections.ready,
            failed: connections.failures.values().sum(),
            failed_publishers: connections.failed_publishers,
            failed_subscribers: connections.failed_subscribers,
            failures: connections.failures.clone(),
            lost: connections.lost.values().sum(),
            losses: connections.lost.clone(),
            rate,
            seconds: rounded(seconds),
            per_second: rounded(per_second),
            connect_ms: connections.latency.percentiles(),
            tcp_ms: connections.tcp.percentiles(),
        }
    }

    fn notes(&self, notes: &mut Vec<String>) {
        if self.failed > 0 {
            let what =
                if self.connected == 0 { "nothing connected".to_owned() } else { self.failed_clients() };
            notes.push(format!("{what}: {}", listed(&self.failures)));
        } else if self.connected == 0 && self.lost == 0 {
            notes.push("nothing connected".to_owned());
        }
        if self.lost > 0 {
            notes.push(format!(
                "{} connections were lost on the way: {}",
                grouped(self.lost),
                listed(&self.losses)
            ));
        }
        if self.failures.contains_key("no_descriptor") {
            notes.push("this process ran out of descriptors: ulimit -n".to_owned());
        }
        if self.failures.contains_key("no_port_or_address") {
            notes.push("no local port was left for this server: -A with more source addresses".to_owned());
        }
    }
}

impl ConnectionReport {
    /// Whether every client connected and stayed.
    fn is_whole(&self) -> bool {
        self.failed == 0 && self.lost == 0
    }

    /// How many clients there should be and are not, and what they were for.
    fn failed_clients(&self) -> String {
        let of = [(self.failed_publishers, "publishers"), (self.failed_subscribers, "subscribers")];
        let of = of.iter().filter(|(count, _)| *count > 0);
        let of: Vec<_> = of.map(|(count, what)| format!("{what}: {}", grouped(*count))).collect();
        let of = if of.is_empty() { String::new() } else { format!(" ({})", of.join(", ")) };
        format!("{} of {} clients could not connect{of}", grouped(self.failed), grouped(self.asked))
    }
}

impl GeneratorReport {
    pub(super) fn new(outcome: &Outcome, open: bool, traffic: bool) -> Self {
        let late = if traffic { &outcome.messages.own_lateness } else { &outcome.connections.late };
        let late = late.percentiles().filter(|_| open);
        let unsent = outcome.messages.total(|published| published.unsent);
        let too_late = late.is_some_and(|late| late.p99 > LATE_MILLIS);
        let busy = if traffic { outcome.busy } else { 0.0 };
        let bottleneck = too_late || busy > BUSY;
        Self { busy: rounded(busy), late_ms: late, unsent, stalls: outcome.messages.stalls, bottleneck }
    }

    fn notes(&self, everybody: bool, notes: &mut Vec<String>) {
        if let Some(late) = self.late_ms.filter(|late| late.p99 > LATE_MILLIS) {
            notes.push(format!(
                "the generator was late by itself: one in a hundred by more than {} ms; the latencies contain that",
                late.p99
            ));
        }
        if self.busy > BUSY {
            notes.push(format!(
                "the generator worked {:.0} % of its time and may be the bottleneck: more --threads, or another machine",
                self.busy * 100.0
            ));
        }
        if self.unsent > 0 {
            notes.push(format!(
                "{} messages were due and could not be sent: the rate is too high",
                self.unsent
            ));
        }
        // Windows also wait for subscribers that are not there; then the connections are the reason.
        if self.stalls > 0 && everybody {
            notes.push(format!("{} times nothing arrived for 0.5 s and a window was given up", self.stalls));
        }
    }
}

impl MessageReport {
    /// Copies lost that QoS 1 and 2 promise to deliver, and duplicates that QoS 2 forbids: what fails the run.
    fn broken_promises(&self, balance: &Balance, everybody: bool, notes: &mut Vec<String>) -> bool {
        let mut broken = false;
        let owed = self.lost.saturating_sub(balance.unowed);
        if self.qos > 0 && owed > 0 {
            notes.push(format!("{owed} messages were lost that QoS {} promises", self.qos));
            broken = true;
        }
        if self.qos == 2 && self.duplicates > 0 {
            notes.push(format!("{} messages came twice, which QoS 2 forbids", self.duplicates));
            broken = true;
        }
        if let Some(late) = self.out_of_order.filter(|late| *late > 0) {
            notes.push(format!("{late} messages came after later ones of the same publisher [MQTT-4.6.0-6]"));
        }
        if self.received == 0 {
            notes.push(if self.sent == 0 { "no message was sent" } else { "no message arrived" }.to_owned());
            broken = true;
        }
        if everybody && balance.silent > 0 {
            notes.push(format!(
                "not one message went between {} of {} pairs of publisher and subscriber: separate servers behind a \
                 balancer do not share messages",
                grouped(balance.silent),
                grouped(balance.pairs)
            ));
        }
        broken
    }
}

impl Report {
    /// Judges: the notes, and whether the run passed.
    pub(super) fn judge(&mut self, balance: &Balance) {
        let mut notes = Vec::new();
        let everybody = self.connections.is_whole();
        self.connections.notes(&mut notes);
        self.generator.notes(everybody, &mut notes);
        let messages = self.messages.as_ref().filter(|_| self.connections.connected > 0);
        let broken =
            messages.is_some_and(|messages| messages.broken_promises(balance, everybody, &mut notes));
        self.passed = self.connections.connected > 0 && self.connections.failed == 0 && !broken;
        self.notes = notes;
    }

    /// The table.
    pub(super) fn table(&self) -> String {
        let mut text = String::new();
        let out = &mut text;
        let connections = &self.connections;
        row(out, "server", &format!("{}, MQTT {}", self.server, self.protocol));
        let paced = connections.rate.map_or(String::new(), |rate| format!(" (asked: {}/s)", number(rate)));
        row(
            out,
            "connected",
            &format!(
                "{} of {} in {:.3} s, {}/s{paced}",
                grouped(connections.connected),
                grouped(connections.asked),
                connections.seconds,
                number(connections.per_second)
            ),
        );
        reasons(out, "failed", &connections.failures);
        reasons(out, "lost", &connections.losses);
        if let Some(messages) = &self.messages {
            messages.rows(out);
        }
        self.generator.rows(out, self.messages.is_some());
        out.push('\n');
        let mut times = vec![("connect", connections.connect_ms)];
        if self.messages.is_none() {
            times.push(("TCP alone", connections.tcp_ms));
        }
        if let Some(messages) = &self.messages {
            times.push(("acknowledged", messages.acknowledged_ms));
            times.push((messages.latency_title(), messages.latency_ms));
        }
        percentiles(out, &times);
        for note in &self.notes {
            let _ = writeln!(out, "! {note}");
        }
        text
    }
}

impl MessageReport {
    fn latency_title(&self) -> &'static str {
        if self.rate.is_some() { "end to end" } else { "end to end*" }
    }

    fn rows(&self, out: &mut String) {
        let share = self.share.as_ref().map_or(String::new(), |group| format!(" in group {group}"));
        row(
            out,
            "clients",
            &format!(
                "{} publishers, {} subscribers{share}",
                grouped(self.publishers.into()),
                grouped(self.subscribers.into())
            ),
        );
        row(out, "messages", &format!("QoS {}, {} bytes", self.qos, self.size));
        let pacing = match (self.rate, self.window) {
            (Some(rate), _) => format!("open loop, {} messages/s by the clock", number(rate)),
            (None, window) => format!(
                "closed loop: as fast as windows of {} messages let (* queueing is part of the latency)",
                window.unwrap_or(0)
            ),
        };
        row(out, "pacing", &pacing);
        row(
            out,
            "sent",
            &format!(
                "{}/s over {:.1} s, {} in all",
                number(self.sent_per_second),
                self.seconds,
                grouped(self.sent)
            ),
        );
        row(
            out,
            "received",
            &format!("{}/s, {} in all", number(self.received_per_second), grouped(self.received)),
        );
        let order = match self.out_of_order {
            Some(count) => format!("{} out of order", grouped(count)),
            None => "order not promised".to_owned(),
        };
        row(
            out,
            "lost",
            &format!(
                "{} of {}, {} duplicates, {order}",
                grouped(self.lost),
                grouped(self.expected),
                grouped(self.duplicates)
            ),
        );
        if self.refused + self.unacknowledged + self.foreign > 0 {
            row(
                out,
                "besides",
                &format!(
                    "{} refused, {} not acknowledged, {} messages of others",
                    grouped(self.refused),
                    grouped(self.unacknowledged),
                    grouped(self.foreign)
                ),
            );
        }
    }
}

impl GeneratorReport {
    fn rows(&self, out: &mut String, traffic: bool) {
        let mut told = Vec::new();
        if traffic {
            told.push(format!("busy {:.0} %", self.busy * 100.0));
        }
        if let Some(late) = self.late_ms {
            told.push(format!("late by itself: p99 {} ms, at most {} ms", late.p99, late.max));
        }
        if self.unsent > 0 {
            told.push(format!("{} not sent", grouped(self.unsent)));
        }
        if !told.is_empty() {
            row(out, "generator", &told.join(", "));
        }
    }
}

pub(crate) fn row(out: &mut String, name: &str, text: &str) {
    let _ = writeln!(out, "{name:<10} {text}");
}

/// Counts by reason, if there are any.
pub(crate) fn reasons(out: &mut String, name: &str, reasons: &Reasons) {
    if !reasons.is_empty() {
        let all: u64 = reasons.values().sum();
        row(out, name, &format!("{}: {}", grouped(all), listed(reasons)));
    }
}

/// Each reason with its count.
fn listed(reasons: &Reasons) -> String {
    let each: Vec<_> =
        reasons.iter().map(|(reason, count)| format!("{reason} {}", grouped(*count))).collect();
    each.join(", ")
}

/// A table of times.
pub(crate) fn percentiles(out: &mut String, times: &[(&str, Option<Percentiles>)]) {
    if times.iter().all(|(_, times)| times.is_none()) {
        return;
    }
    let columns = ["mean", "p50", "p90", "p99", "p99.9", "max"];
    let _ = write!(out, "{:<14}", "milliseconds");
    for column in columns {
        let _ = write!(out, "{column:>10}");
    }
    out.push('\n');
    for (name, times) in times {
        let Some(times) = times else { continue };
        let _ = write!(out, "{name:<14}");
        for value in [times.mean, times.p50, times.p90, times.p99, times.p999, times.max] {
            let _ = write!(out, "{value:>10.3}");
        }
        out.push('\n');
    }
}

/// `1234567` as `1,234,567`.
pub(crate) fn grouped(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Whole, and with groups, where a fraction would not matter.
pub(crate) fn number(value: f64) -> String {
    if value >= 100.0 { grouped(value.round() as u64) } else { format!("{value:.1}") }
}

/// Three digits behind the point.
pub(crate) fn rounded(value: f64) -> f64 {
    (value * 1_000.0).round() / 1_000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(qos: u8, lost: u64, duplicates: u64) -> Report {
        let mut outcome = Outcome::default();
        outcome.connections.asked = 2;
        outcome.connections.ready = 2;
        let messages = MessageReport {
            publishers: 1,
            subscribers: 1,
            share: None,
            qos,
            size: 64,
            pacing: "open",
            rate: Some(100.0),
            inflight: 100,
            window: None,
            seconds: 10.0,
            sent_per_second: 100.0,
            received_per_second: 100.0,
            sent: 1_000,
            received: 1_000 - lost,
            expected: 1_000,
            lost,
            duplicates,
            out_of_order: Some(0),
            foreign: 0,
            refused: 0,
            unacknowledged: 0,
            latency_ms: None,
            acknowledged_ms: None,
        };
        Report {
            bench: "pubsub",
            tidegate: "0",
            server: "h:1".to_owned(),
            protocol: "3.1.1".to_owned(),
            threads: 1,
            connections: ConnectionReport::new(&outcome.connections, None),
            messages: Some(messages),
            generator: GeneratorReport::new(&outcome, true, true),
            passed: false,
            notes: Vec::new(),
        }
    }

    fn passes(mut report: Report, unowed: u64) -> bool {
        report.judge(&Balance { unowed, ..Balance::default() });
        report.passed
    }

    /// The notes of a run in which of three clients so many failed to connect.
    fn notes(mut report: Report, failed: u64, balance: Balance) -> Vec<String> {
        let connections = &mut report.connections;
        (connections.asked, connections.connected, connections.failed) = (3, 3 - failed, failed);
        (connections.failed_subscribers, connections.lost) = (failed, 0);
        if failed > 0 {
            connections.failures.insert("connack_quota_exceeded".to_owned(), failed);
        }
        report.generator.stalls = 4;
        report.judge(&balance);
        assert!(!report.passed, "{:?}", report.notes);
        report.notes
    }

    #[test]
    fn clients_that_never_connected_are_the_first_reason_that_is_told() {
        let failed = "(subscribers: 2): connack_quota_exceeded 2";
        let silent = Balance { pairs: 2, silent: 1, ..Balance::default() };
        let told = notes(report(0, 10, 0), 2, silent);
        assert_eq!(told, [format!("2 of 3 clients could not connect {failed}")], "and no other cause");
        let mut mute = report(1, 0, 0);
        if let Some(messages) = &mut mute.messages {
            (messages.sent, messages.received, messages.expected) = (0, 0, 0);
        }
        let told = notes(mute, 2, Balance::default());
        assert_eq!((told.len(), told[1].as_str()), (2, "no message was sent"));
        let told = notes(report(0, 1_000, 0), 3, Balance::default());
        assert_eq!(told, ["nothing connected: connack_quota_exceeded 3"]);
    }

    #[test]
    fn pairs_between_which_nothing_goes_hint_at_servers_that_share_nothing() {
        let told = notes(report(1, 500, 0), 0, Balance { pairs: 2, silent: 1, ..Balance::default() });
        assert!(told[1].contains("500 messages were lost"), "{told:?}");
        assert!(told[2].contains("between 1 of 2 pairs") && told[2].contains("do not share"), "{told:?}");
    }

    #[test]
    fn a_run_fails_where_the_qos_is_broken_and_only_there() {
        assert!(passes(report(0, 5, 3), 0), "QoS 0 promises nothing");
        assert!(!passes(report(0, 1_000, 0), 0), "but something has to arrive");
        assert!(passes(report(1, 0, 3), 0), "QoS 1 may repeat");
        assert!(!passes(report(1, 1, 0), 0));
        assert!(passes(report(1, 1, 0), 1), "what was never acknowledged is not owed");
        assert!(!passes(report(2, 0, 1), 0));
        assert!(passes(report(2, 0, 0), 0));
        let mut nobody = report(0, 0, 0);
        nobody.connections.connected = 0;
        assert!(!passes(nobody, 0));
    }

    #[test]
    fn numbers_are_read_in_groups() {
        for (value, text) in [(0, "0"), (999, "999"), (1_000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(grouped(value), text);
        }
        assert_eq!((number(99.94).as_str(), number(12_345.6).as_str()), ("99.9", "12,346"));
    }

    #[test]
    fn the_document_has_the_names_that_scripts_rely_on() {
        let mut report = report(1, 0, 0);
        report.judge(&Balance::default());
        let document = serde_json::to_value(&report).unwrap();
        assert_eq!(document["messages"]["loop"], "open");
        assert_eq!(document["messages"]["received_per_second"], 100.0);
        assert_eq!(document["connections"]["connected"], 2);
        assert_eq!((&document["passed"], &document["bench"]), (&true.into(), &"pubsub".into()));
        assert!(report.table().contains("0 of 1,000, 0 duplicates, 0 out of order"), "{}", report.table());
    }
}
