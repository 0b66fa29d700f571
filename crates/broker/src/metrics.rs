//! Every metric of the broker, with its unit and meaning. Each worker counts for itself; a scrape adds them up.

use std::sync::Arc;

use mqtt::QoS;
use runtime::metrics::{Collect, Counter, Desc, Exposition, Gauge, Kind};

use crate::door::Limit;
use crate::refusal::Refusal;
use crate::shared::Shared;
use crate::throttle::Flow;

/// Why a message was not delivered; the label `rule`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub(crate) enum Drop {
    /// QoS 0 for a client whose outbound buffer is full.
    OutboundFull = 0,
    /// QoS 1 or 2 for a client whose queue is full.
    QueueFull,
    /// Its message expiry interval ran out [MQTT-3.3.2-5].
    Expired,
    /// Larger than the Maximum Packet Size of the client [MQTT-3.1.2-24].
    TooLarge,
    /// The log was trimmed before an offline session came back.
    LogTrimmed,
    /// The engine could not take it.
    Engine,
    /// Another worker could not read what was handed to it: a mistake of ours.
    Handover,
    /// A shared subscription without a connected member.
    NoMember,
    /// That a client came or went, beyond what is told of it in a second.
    SysClientEvents,
}

impl Drop {
    const ALL: [Self; 9] = [
        Self::OutboundFull,
        Self::QueueFull,
        Self::Expired,
        Self::TooLarge,
        Self::LogTrimmed,
        Self::Engine,
        Self::Handover,
        Self::NoMember,
        Self::SysClientEvents,
    ];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::OutboundFull => "outbound_full",
            Self::QueueFull => "queue_full",
            Self::Expired => "expired",
            Self::TooLarge => "too_large",
            Self::LogTrimmed => "log_trimmed",
            Self::Engine => "engine",
            Self::Handover => "handover",
            Self::NoMember => "no_member",
            Self::SysClientEvents => "sys_client_events",
        }
    }
}

/// How an opening handshake of WebSocket ended; the label `result`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub(crate) enum Handshake {
    /// The connection speaks WebSocket.
    Accepted = 0,
    /// It was answered with an error of HTTP.
    Refused,
    /// It was not finished in time.
    TimedOut,
    /// The peer went away.
    Closed,
}

impl Handshake {
    const ALL: [Self; 4] = [Self::Accepted, Self::Refused, Self::TimedOut, Self::Closed];

    const fn name(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Refused => "refused",
            Self::TimedOut => "timed_out",
            Self::Closed => "closed",
        }
    }
}

/// How a CONNECT that had to show who it is ended; the label `result`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub(crate) enum Login {
    /// Its password was right.
    Accepted = 0,
    /// It was not, or it gave none.
    Refused,
    /// Too many waited, or it took too long.
    Busy,
}

impl Login {
    const ALL: [Self; 3] = [Self::Accepted, Self::Refused, Self::Busy];

    const fn name(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Refused => "refused",
            Self::Busy => "busy",
        }
    }
}

/// What one worker counts. Written by its worker only.
#[derive(Default)]
pub(crate) struct WorkerMetrics {
    pub(crate) accepted: Counter,
    pub(crate) refused: Counter,
    pub(crate) connects: Counter,
    pub(crate) disconnects: Counter,
    pub(crate) violations: Counter,
    pub(crate) takeovers: Counter,
    pub(crate) received: [Counter; 3],
    pub(crate) sent: [Counter; 3],
    pub(crate) received_bytes: Counter,
    pub(crate) sent_bytes: Counter,
    pub(crate) dropped: [Counter; Drop::ALL.len()],
    pub(crate) refused_requests: [Counter; Refusal::ALL.len()],
    pub(crate) packets_received: Counter,
    pub(crate) packets_sent: Counter,
    /// Bytes of the payloads of PUBLISH.
    pub(crate) payload_received: Counter,
    pub(crate) payload_sent: Counter,
    pub(crate) sessions_expired: Counter,
    pub(crate) delayed_published: Counter,
    pub(crate) topics_rewritten: Counter,
    pub(crate) topics_not_rewritten: Counter,
    pub(crate) throttles: [Counter; Flow::ALL.len()],
    pub(crate) throttled: Gauge,
    pub(crate) limited: [Counter; Limit::ALL.len()],
    pub(crate) logins: [Counter; Login::ALL.len()],
    pub(crate) log_appends: Counter,
    pub(crate) log_messages: Counter,
    pub(crate) replayed: Counter,
    pub(crate) shared_dealt: Counter,
    pub(crate) shared_redelivered: Counter,
    pub(crate) engine_retries: Counter,
    pub(crate) connections: Gauge,
    pub(crate) handshakes: [Counter; Handshake::ALL.len()],
    pub(crate) forwarded_ignored: Counter,
}

impl WorkerMetrics {
    pub(crate) fn login(&self, result: Login) {
        self.logins[result as usize].inc();
    }

    pub(crate) fn drop_message(&self, rule: Drop, count: u64) {
        self.dropped[rule as usize].add(count);
    }
}

const fn counter(name: &'static str, help: &'static str, labels: &'static [&'static str]) -> Desc {
    Desc { name, help, kind: Kind::Counter, labels }
}

const fn gauge(name: &'static str, help: &'static str) -> Desc {
    Desc { name, help, kind: Kind::Gauge, labels: &[] }
}

static ACCEPTED: Desc = counter(
    "tidegate_broker_connections_accepted_total",
    "TCP connections accepted by broker listeners",
    &[],
);
static REFUSED: Desc = counter(
    "tidegate_broker_connections_refused_total",
    "Connections that ended before a successful CONNACK",
    &[],
);
static CONNECTS: Desc =
    counter("tidegate_broker_client_connects_total", "Clients that were sent a successful CONNACK", &[]);
static DISCONNECTS: Desc =
    counter("tidegate_broker_client_disconnects_total", "Connected clients whose connection ended", &[]);
static VIOLATIONS: Desc = counter(
    "tidegate_broker_protocol_violations_total",
    "Connections closed for breaking the specification",
    &[],
);
static TAKEOVERS: Desc = counter(
    "tidegate_broker_session_takeovers_total",
    "Connections ended because their client connected again",
    &[],
);
static RECEIVED: Desc =
    counter("tidegate_broker_messages_received_total", "PUBLISH packets received from clients", &["qos"]);
static SENT: Desc =
    counter("tidegate_broker_messages_sent_total", "PUBLISH packets sent to clients", &["qos"]);
static RECEIVED_BYTES: Desc =
    counter("tidegate_broker_received_bytes_total", "Bytes received from clients", &[]);
static SENT_BYTES: Desc = counter("tidegate_broker_sent_bytes_total", "Bytes sent to clients", &[]);
static DROPPED: Desc =
    counter("tidegate_broker_messages_dropped_total", "Deliveries that did not happen, by rule", &["rule"]);
static REFUSED_REQUESTS: Desc = counter(
    "tidegate_broker_requests_refused_total",
    "What connected clients asked and did not get, by rule",
    &["action", "rule"],
);
static REWRITES: Desc = counter(
    "tidegate_broker_topic_rewrites_total",
    "Topics and filters that a rule of topic_rewrite was for, by whether the result could be used",
    &["result"],
);
static PACKETS_RECEIVED: Desc =
    counter("tidegate_broker_packets_received_total", "Packets of all types received from clients", &[]);
static PACKETS_SENT: Desc =
    counter("tidegate_broker_packets_sent_total", "Packets of all types sent to clients", &[]);
static PAYLOAD_RECEIVED: Desc = counter(
    "tidegate_broker_messages_received_bytes_total",
    "Bytes of the payloads of PUBLISH packets received",
    &[],
);
static PAYLOAD_SENT: Desc = counter(
    "tidegate_broker_messages_sent_bytes_total",
    "Bytes of the payloads of PUBLISH packets sent",
    &[],
);
static SESSIONS_EXPIRED: Desc =
    counter("tidegate_broker_sessions_expired_total", "Sessions whose expiry interval was over", &[]);
static DELAYED: Desc = gauge("tidegate_broker_delayed_messages", "Messages that are published later");
static DELAYED_PUBLISHED: Desc =
    counter("tidegate_broker_delayed_messages_published_total", "Delayed messages that became due", &[]);
static EXCLUSIVE: Desc =
    gauge("tidegate_broker_exclusive_subscriptions", "Filters that one session has for itself");
static THROTTLES: Desc = counter(
    "tidegate_broker_client_throttles_total",
    "How often a client's socket was left unread because it sent faster than it may, by limit",
    &["limit"],
);
static THROTTLED: Desc = gauge(
    "tidegate_broker_throttled_clients",
    "Clients whose sockets rest because they sent faster than they may",
);
static LIMITED: Desc = counter(
    "tidegate_broker_connections_limited_total",
    "Connections refused at a bound: of the listener, of the broker, or of the rate they may come at",
    &["limit"],
);
static LOGINS: Desc = counter(
    "tidegate_broker_authentications_total",
    "Clients that had to show who they are: accepted, refused (anonymous, unknown, wrong password), busy (no answer in time)",
    &["result"],
);
static COMPARED: Desc = counter(
    "tidegate_broker_password_comparisons_total",
    "Passwords compared with a hash of the password file",
    &[],
);
static REMEMBERED: Desc = counter(
    "tidegate_broker_password_cache_hits_total",
    "Passwords that were verified a short time before and not compared again",
    &[],
);
static WAITING: Desc =
    gauge("tidegate_broker_passwords_waiting", "Clients that wait for their password to be compared");
static LOG_APPENDS: Desc =
    counter("tidegate_broker_log_frames_appended_total", "Frames appended to the log", &[]);
static LOG_MESSAGES: Desc = counter(
    "tidegate_broker_log_messages_appended_total",
    "Messages appended to the log for durable sessions",
    &[],
);
static REPLAYED: Desc = counter(
    "tidegate_broker_messages_replayed_total",
    "Messages sent to returning sessions from the log",
    &[],
);
static SHARED_DEALT: Desc = counter(
    "tidegate_broker_shared_messages_dealt_total",
    "Messages sent to a member of a shared subscription",
    &[],
);
static SHARED_REDELIVERED: Desc = counter(
    "tidegate_broker_shared_messages_redelivered_total",
    "Messages that a member of a shared subscription had not acknowledged when it went, for another one",
    &[],
);
static SHARED_GROUPS: Desc =
    gauge("tidegate_broker_shared_groups", "Groups of shared subscriptions: share names with a filter");
static ENGINE_RETRIES: Desc =
    counter("tidegate_broker_engine_retries_total", "Engine operations that were submitted again", &[]);
static HANDSHAKES: Desc = counter(
    "tidegate_broker_websocket_handshakes_total",
    "Opening handshakes on WebSocket listeners, by result",
    &["result"],
);
static FORWARDED_IGNORED: Desc = counter(
    "tidegate_broker_forwarded_addresses_ignored_total",
    "WebSocket handshakes whose proxy_address_header held no usable address: the proxy's own counts",
    &[],
);
static CONNECTIONS: Desc = gauge("tidegate_broker_connections", "Open connections of broker listeners");
static SESSIONS_OFFLINE: Desc =
    gauge("tidegate_broker_sessions_offline", "Sessions that wait for their client");
static SUBSCRIPTIONS: Desc = gauge("tidegate_broker_subscriptions", "Subscriptions of all sessions");
static FILTERS: Desc = gauge("tidegate_broker_filters", "Distinct topic filters with a subscription");
static RETAINED: Desc = gauge("tidegate_broker_retained_messages", "Retained messages");

/// Adds up what the workers counted.
pub(crate) struct BrokerCollector(pub(crate) Arc<Shared>);

impl Collect for BrokerCollector {
    fn collect(&self, out: &mut Exposition) {
        let shared = &self.0;
        let sum = |f: &dyn Fn(&WorkerMetrics) -> u64| shared.metrics.iter().map(|m| f(m)).sum::<u64>() as f64;
        out.sample(&ACCEPTED, &[], sum(&|m| m.accepted.get()));
        out.sample(&REFUSED, &[], sum(&|m| m.refused.get()));
        out.sample(&CONNECTS, &[], sum(&|m| m.connects.get()));
        out.sample(&DISCONNECTS, &[], sum(&|m| m.disconnects.get()));
        out.sample(&VIOLATIONS, &[], sum(&|m| m.violations.get()));
        out.sample(&TAKEOVERS, &[], sum(&|m| m.takeovers.get()));
        for (qos, label) in [(QoS::AtMostOnce, "0"), (QoS::AtLeastOnce, "1"), (QoS::ExactlyOnce, "2")] {
            out.sample(&RECEIVED, &[label], sum(&|m| m.received[qos as usize].get()));
            out.sample(&SENT, &[label], sum(&|m| m.sent[qos as usize].get()));
        }
        out.sample(&RECEIVED_BYTES, &[], sum(&|m| m.received_bytes.get()));
        out.sample(&SENT_BYTES, &[], sum(&|m| m.sent_bytes.get()));
        for rule in Drop::ALL {
            out.sample(&DROPPED, &[rule.name()], sum(&|m| m.dropped[rule as usize].get()));
        }
        for rule in Refusal::ALL {
            let count = sum(&|m| m.refused_requests[rule as usize].get());
            out.sample(&REFUSED_REQUESTS, &[rule.action(), rule.name()], count);
        }
        out.sample(&REWRITES, &["rewritten"], sum(&|m| m.topics_rewritten.get()));
        out.sample(&REWRITES, &["unusable"], sum(&|m| m.topics_not_rewritten.get()));
        out.sample(&PACKETS_RECEIVED, &[], sum(&|m| m.packets_received.get()));
        out.sample(&PACKETS_SENT, &[], sum(&|m| m.packets_sent.get()));
        out.sample(&PAYLOAD_RECEIVED, &[], sum(&|m| m.payload_received.get()));
        out.sample(&PAYLOAD_SENT, &[], sum(&|m| m.payload_sent.get()));
        out.sample(&SESSIONS_EXPIRED, &[], sum(&|m| m.sessions_expired.get()));
        out.sample(&DELAYED, &[], shared.delayed.len() as f64);
        out.sample(&DELAYED_PUBLISHED, &[], sum(&|m| m.delayed_published.get()));
        out.sample(&EXCLUSIVE, &[], shared.exclusive.len() as f64);
        for flow in Flow::ALL {
            out.sample(&THROTTLES, &[flow.name()], sum(&|m| m.throttles[flow as usize].get()));
        }
        out.sample(&THROTTLED, &[], shared.metrics.iter().map(|m| m.throttled.get() as f64).sum());
        for limit in Limit::ALL {
            out.sample(&LIMITED, &[limit.name()], sum(&|m| m.limited[limit as usize].get()));
        }
        for result in Login::ALL {
            out.sample(&LOGINS, &[result.name()], sum(&|m| m.logins[result as usize].get()));
        }
        out.sample(&COMPARED, &[], shared.verifier.compared() as f64);
        out.sample(&REMEMBERED, &[], shared.verifier.remembered() as f64);
        out.sample(&WAITING, &[], shared.verifier.waiting() as f64);
        out.sample(&LOG_APPENDS, &[], sum(&|m| m.log_appends.get()));
        out.sample(&LOG_MESSAGES, &[], sum(&|m| m.log_messages.get()));
        out.sample(&REPLAYED, &[], sum(&|m| m.replayed.get()));
        out.sample(&SHARED_DEALT, &[], sum(&|m| m.shared_dealt.get()));
        out.sample(&SHARED_REDELIVERED, &[], sum(&|m| m.shared_redelivered.get()));
        out.sample(&SHARED_GROUPS, &[], shared.router.groups() as f64);
        out.sample(&ENGINE_RETRIES, &[], sum(&|m| m.engine_retries.get()));
        for result in Handshake::ALL {
            out.sample(&HANDSHAKES, &[result.name()], sum(&|m| m.handshakes[result as usize].get()));
        }
        out.sample(&FORWARDED_IGNORED, &[], sum(&|m| m.forwarded_ignored.get()));
        out.sample(&CONNECTIONS, &[], shared.metrics.iter().map(|m| m.connections.get() as f64).sum());
        out.sample(&SESSIONS_OFFLINE, &[], shared.store.len() as f64);
        out.sample(&SUBSCRIPTIONS, &[], shared.router.subscriptions() as f64);
        out.sample(&FILTERS, &[], shared.router.filters() as f64);
        out.sample(&RETAINED, &[], shared.retained_len() as f64);
    }
}
