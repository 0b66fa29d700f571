//! The `[broker]` section: its values, defaults and limits, in one place.

mod access;
mod limits;
mod websocket;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use mqtt::QoS;
use mqtt::packet::{RetainHandling, SubscriptionOptions};
use runtime::config::{IpNet, Table};
use runtime::rate::Rate;

pub use self::access::{AccessConfig, DenyAction};
pub use self::limits::{ClientRates, LimitsConfig};
pub use crate::queue::DropRule;
pub use crate::share::strategy::Strategy;
pub use websocket::WebSocketConfig;

use crate::auto_subscribe::AutoSubscription;
use crate::topic_rewrite::{Action, Rewriting, Rule, RuleError, Written};

/// `[broker]`.
#[derive(Clone, Debug, PartialEq)]
pub struct BrokerConfig {
    /// `[[broker.listeners]]`; one on 127.0.0.1:1883 where nothing is said.
    pub listeners: Vec<ListenerConfig>,
    /// Bytes of the largest packet taken from a client; told to MQTT 5 clients. Default 1 MiB.
    pub max_packet_size: u32,
    /// QoS 1 and 2 messages a client may have under way to us; told to MQTT 5 clients. Default 32.
    pub receive_maximum: u16,
    /// QoS 1 and 2 messages under way to a client, if it does not ask for fewer. Default 128.
    pub max_inflight: u16,
    /// Messages that wait in memory for one connected client. Default 10,000.
    pub max_queued_messages: usize,
    /// Bytes of them. Default 16 MiB.
    pub max_queued_bytes: usize,
    /// Bytes written for one client and not yet taken by its socket; beyond it QoS 0 is dropped and QoS 1 and 2 wait. Default 1 MiB.
    pub max_outbound_bytes: usize,
    /// The longest session expiry in seconds; a client that asks for more is told this one. Default: never expires.
    pub max_session_expiry: u32,
    /// How long a connection may take to send its CONNECT. Default 10 s.
    pub connect_timeout: Duration,
    /// Levels of a topic or filter. Default 128.
    pub max_topic_levels: usize,
    /// Subscriptions of one session. Default 10,000.
    pub max_subscriptions: usize,
    /// The highest Topic Alias taken from a client; 0: none. Default 32.
    pub topic_alias_maximum: u16,
    /// Topic Aliases given to a client that takes them, 0 to 256. Default 16.
    pub max_topic_aliases_out: u16,
    /// The highest QoS of a PUBLISH and of a subscription. Default 2.
    pub maximum_qos: QoS,
    /// Messages may be retained. Default true.
    pub retain_available: bool,
    /// Subscriptions may have wildcards. Default true.
    pub wildcard_subscription_available: bool,
    /// Subscriptions may have identifiers. Default true.
    pub subscription_identifiers_available: bool,
    /// Response Information for clients that ask for it (3.2.2.3.15). Default none.
    pub response_information: Option<Arc<str>>,
    /// Seconds that MQTT 5 clients are told to use as their keep alive. Default none: their own.
    pub server_keep_alive: Option<u16>,
    /// The longest keep alive in seconds; who asks for more or for none is told this one, or refused before MQTT 5. Default none.
    pub max_keep_alive: Option<u16>,
    /// Payloads that are said to be UTF-8 are looked at. Default false.
    pub check_payload_format: bool,
    /// `$exclusive/{filter}` is understood. Default true.
    pub exclusive_subscription: bool,
    /// Messages that wait to be published later, over all clients; 0: none are taken. Default 100,000.
    pub max_delayed_messages: usize,
    /// How often `$SYS` is published; zero: never. Default 10 s.
    pub sys_interval: Duration,
    /// That clients come and go is told below `$SYS/brokers/{node}/clients/`. Default true.
    pub sys_client_events: bool,
    /// `topic_rewrite`. Default none.
    pub topic_rewrite: Rewriting,
    /// `auto_subscribe`. Default none.
    pub auto_subscribe: Arc<[AutoSubscription]>,
    /// Clients may subscribe to `$share/{ShareName}/{filter}` (4.8.2). Default: yes.
    pub shared_subscription_available: bool,
    /// How a shared subscription chooses among its members. Default: one after the other.
    pub shared_subscription_strategy: Strategy,
    /// `shared_subscription_groups`: by ShareName, where it is another one; each name once.
    pub shared_subscription_groups: Vec<(String, Strategy)>,
    /// Who may connect and what they may do.
    pub access: AccessConfig,
    /// What clients may take together, each on its own, and while they wait.
    pub limits: LimitsConfig,
}

/// `[[broker.listeners]]`.
#[derive(Clone, Debug, PartialEq)]
pub struct ListenerConfig {
    /// Address and port.
    pub bind: SocketAddr,
    /// Connections from `trusted_proxies` begin with a PROXY header v1 or v2; others come directly.
    pub proxy_protocol: bool,
    /// Who sends one. Default: loopback and private networks.
    pub trusted_proxies: Vec<IpNet>,
    /// Connections at once, over all workers. Default 1,000,000.
    pub max_connections: usize,
    /// Connections that may come in a time, over all workers. Default: as many as come.
    pub accept_rate: Option<Rate>,
    /// How fast each of its clients may send. Default: as fast as they like.
    pub rates: ClientRates,
    /// Clients without user name and password may connect.
    pub allow_anonymous: bool,
    /// `transport = "ws"`: MQTT in WebSocket frames. Nothing: MQTT straight over TCP.
    pub websocket: Option<Box<WebSocketConfig>>,
}

impl ListenerConfig {
    fn new(bind: SocketAddr) -> Self {
        Self {
            bind,
            proxy_protocol: false,
            trusted_proxies: IpNet::private_and_loopback(),
            max_connections: DEFAULT_MAX_CONNECTIONS,
            accept_rate: None,
            rates: ClientRates::default(),
            allow_anonymous: bind.ip().is_loopback(),
            websocket: None,
        }
    }

    /// What stands before `://` in the listener's name.
    pub(crate) fn scheme(&self) -> &'static str {
        if self.websocket.is_some() { "ws" } else { "tcp" }
    }
}

impl BrokerConfig {
    /// One sentence about listeners that let nobody in: no anonymous client, and there is no password file. `None`: each lets
    /// somebody in.
    pub fn closed_doors(&self) -> Option<String> {
        let closed: Vec<String> = self
            .listeners
            .iter()
            .filter(|listener| !listener.allow_anonymous && self.access.users.is_none())
            .map(|listener| listener.bind.to_string())
            .collect();
        (!closed.is_empty()).then(|| {
            format!(
                "nobody can connect at {}: allow_anonymous is off, as it is beyond loopback where nothing is said, and there \
                 is no password_file",
                closed.join(", ")
            )
        })
    }
}

const DEFAULT_MAX_CONNECTIONS: usize = 1_000_000;

impl BrokerConfig {
    /// How the groups of a ShareName choose.
    pub(crate) fn strategy_of(&self, share: &str) -> Strategy {
        let own = self.shared_subscription_groups.iter().find(|(name, _)| name == share);
        own.map_or(self.shared_subscription_strategy, |(_, strategy)| *strategy)
    }
}

impl Default for BrokerConfig {
    fn default() -> Self {
        Self {
            listeners: vec![ListenerConfig::new(SocketAddr::from(([127, 0, 0, 1], 1883)))],
            max_packet_size: 1 << 20,
            receive_maximum: 32,
            max_inflight: 128,
            max_queued_messages: 10_000,
            max_queued_bytes: 16 << 20,
            max_outbound_bytes: 1 << 20,
            max_session_expiry: u32::MAX,
            connect_timeout: Duration::from_secs(10),
            max_topic_levels: 128,
            max_subscriptions: 10_000,
            topic_alias_maximum: 32,
            max_topic_aliases_out: 16,
            maximum_qos: QoS::ExactlyOnce,
            retain_available: true,
            wildcard_subscription_available: true,
            subscription_identifiers_available: true,
            response_information: None,
            server_keep_alive: None,
            max_keep_alive: None,
            check_payload_format: false,
            exclusive_subscription: true,
            max_delayed_messages: 100_000,
            sys_interval: Duration::from_secs(10),
            sys_client_events: true,
            topic_rewrite: Rewriting::default(),
            auto_subscribe: Arc::default(),
            shared_subscription_available: true,
            shared_subscription_strategy: Strategy::RoundRobin,
            shared_subscription_groups: Vec::new(),
            access: AccessConfig::default(),
            limits: LimitsConfig::default(),
        }
    }
}

/// The largest packet MQTT knows: 268,435,455 bytes after a fixed header of five.
const MAX_PACKET: u64 = 268_435_460;

/// What Mosquitto and others call keys of `[broker]`.
const CALLED_ELSEWHERE: [(&str, &str); 4] = [
    ("max_inflight_messages", "max_inflight"),
    ("persistent_client_expiration", "max_session_expiry"),
    ("port", "bind in [[broker.listeners]]"),
    ("protocol", "transport in [[broker.listeners]]"),
];
/// The same of `[[broker.listeners]]`.
const CALLED_ELSEWHERE_OF_LISTENERS: [(&str, &str); 4] = [
    ("max_inflight_messages", "max_inflight in [broker]"),
    ("persistent_client_expiration", "max_session_expiry in [broker]"),
    ("port", "bind"),
    ("protocol", "transport"),
];

/// Reads the content of `[broker]`; every problem is recorded in `table`.
pub fn read(table: &mut Table<'_>) -> BrokerConfig {
    let d = BrokerConfig::default();
    table.called_elsewhere(&CALLED_ELSEWHERE);
    let anonymous = table.bool("allow_anonymous");
    let limits = limits::read(table);
    let listeners = if table.has("listeners") {
        let listeners = table.tables("listeners", |t, _| read_listener(t, anonymous, limits.rates));
        listeners.into_iter().flatten().collect()
    } else {
        d.listeners
            .into_iter()
            .map(|l| ListenerConfig {
                allow_anonymous: anonymous.unwrap_or(l.allow_anonymous),
                rates: limits.rates,
                ..l
            })
            .collect()
    };
    let mut seen = Vec::new();
    for listener in &listeners {
        let listener: &ListenerConfig = listener;
        if listener.bind.port() != 0 && seen.contains(&listener.bind) {
            table.problem("listeners", format!("each address once; {} is there twice", listener.bind));
        }
        seen.push(listener.bind);
    }
    BrokerConfig {
        listeners,
        max_packet_size: table
            .size("max_packet_size", 128..=MAX_PACKET)
            .and_then(|n| u32::try_from(n).ok())
            .unwrap_or(d.max_packet_size),
        receive_maximum: integer(table, "receive_maximum", 1..=65_535).unwrap_or(d.receive_maximum),
        max_inflight: integer(table, "max_inflight", 1..=65_535).unwrap_or(d.max_inflight),
        max_queued_messages: integer(table, "max_queued_messages", 1..=10_000_000)
            .unwrap_or(d.max_queued_messages),
        max_queued_bytes: size(table, "max_queued_bytes", 1024..=1 << 34).unwrap_or(d.max_queued_bytes),
        max_outbound_bytes: size(table, "max_outbound_bytes", 4096..=1 << 30).unwrap_or(d.max_outbound_bytes),
        max_session_expiry: table
            .duration("max_session_expiry", Duration::ZERO..=Duration::from_secs(u64::from(u32::MAX) - 1))
            .and_then(|d| u32::try_from(d.as_secs()).ok())
            .unwrap_or(d.max_session_expiry),
        connect_timeout: table
            .duration("connect_timeout", Duration::from_millis(100)..=Duration::from_secs(600))
            .unwrap_or(d.connect_timeout),
        max_topic_levels: integer(table, "max_topic_levels", 1..=65_535).unwrap_or(d.max_topic_levels),
        max_subscriptions: integer(table, "max_subscriptions", 1..=10_000_000).unwrap_or(d.max_subscriptions),
        topic_alias_maximum: integer(table, "topic_alias_maximum", 0..=65_535)
            .unwrap_or(d.topic_alias_maximum),
        max_topic_aliases_out: integer(table, "max_topic_aliases_out", 0..=256)
            .unwrap_or(d.max_topic_aliases_out),
        maximum_qos: integer(table, "maximum_qos", 0..=2).and_then(QoS::from_u8).unwrap_or(d.maximum_qos),
        retain_available: table.bool("retain_available").unwrap_or(d.retain_available),
        wildcard_subscription_available: table
            .bool("wildcard_subscription_available")
            .unwrap_or(d.wildcard_subscription_available),
        subscription_identifiers_available: table
            .bool("subscription_identifiers_available")
            .unwrap_or(d.subscription_identifiers_available),
        response_information: response_information(table),
        server_keep_alive: keep_alive(table, "server_keep_alive"),
        max_keep_alive: keep_alive(table, "max_keep_alive"),
        check_payload_format: table.bool("check_payload_format").unwrap_or(d.check_payload_format),
        exclusive_subscription: table.bool("exclusive_subscription").unwrap_or(d.exclusive_subscription),
        max_delayed_messages: integer(table, "max_delayed_messages", 0..=100_000_000)
            .unwrap_or(d.max_delayed_messages),
        sys_interval: table
            .duration("sys_interval", Duration::ZERO..=Duration::from_secs(86_400))
            .unwrap_or(d.sys_interval),
        sys_client_events: table.bool("sys_client_events").unwrap_or(d.sys_client_events),
        topic_rewrite: table.tables("topic_rewrite", |t, _| read_rewrite(t)).into_iter().flatten().collect(),
        auto_subscribe: table
            .tables("auto_subscribe", |t, _| read_auto_subscription(t))
            .into_iter()
            .flatten()
            .collect(),
        shared_subscription_available: table
            .bool("shared_subscription_available")
            .unwrap_or(d.shared_subscription_available),
        shared_subscription_strategy: table
            .choice("shared_subscription_strategy", &Strategy::NAMES)
            .unwrap_or(d.shared_subscription_strategy),
        shared_subscription_groups: read_groups(table),
        access: access::read(table),
        limits,
    }
}

fn read_rewrite(t: &mut Table<'_>) -> Option<Rule> {
    let actions = [("publish", Action::Publish), ("subscribe", Action::Subscribe), ("all", Action::All)];
    let action = t.choice("action", &actions);
    for (key, what) in [
        ("action", "\"publish\", \"subscribe\" or \"all\""),
        ("source", "a topic filter"),
        ("regex", "an expression"),
        ("target", "a topic with $1 and the like, ${clientid} or ${username}"),
    ] {
        t.require(key, what);
    }
    let (source, regex, target) = (t.string("source"), t.string("regex"), t.string("target"));
    let written =
        Written { action, source: source.as_deref(), regex: regex.as_deref(), target: target.as_deref() };
    let errors = match Rule::new(written) {
        Ok(rule) => return rule,
        Err(errors) => errors,
    };
    for error in errors {
        let key = match error {
            RuleError::Source(_) => "source",
            RuleError::Expression(_) => "regex",
            RuleError::Target(_) => "target",
        };
        t.problem(key, error.to_string());
    }
    None
}

fn read_auto_subscription(t: &mut Table<'_>) -> Option<AutoSubscription> {
    t.require("topic", "a topic filter, ${clientid} and ${username} in it if you like");
    let topic = t.string("topic");
    let options = SubscriptionOptions {
        qos: integer(t, "qos", 0..=2).and_then(QoS::from_u8).unwrap_or_default(),
        no_local: t.bool("no_local").unwrap_or(false),
        retain_as_published: t.bool("retain_as_published").unwrap_or(false),
        retain_handling: match integer::<u8>(t, "retain_handling", 0..=2) {
            Some(1) => RetainHandling::SendIfNew,
            Some(2) => RetainHandling::DoNotSend,
            _ => RetainHandling::Send,
        },
    };
    match AutoSubscription::new(&topic?, options) {
        Ok(subscription) => Some(subscription),
        Err(allowed) => {
            t.problem("topic", allowed);
            None
        }
    }
}

/// Whole seconds, as MQTT has them.
fn keep_alive(table: &mut Table<'_>, key: &str) -> Option<u16> {
    let range = Duration::from_secs(1)..=Duration::from_secs(65_535);
    table.duration(key, range).and_then(|d| u16::try_from(d.as_secs()).ok())
}

fn response_information(table: &mut Table<'_>) -> Option<Arc<str>> {
    let text = table.string("response_information")?;
    if text.len() > 65_535 || text.contains('\0') {
        table.problem("response_information", "at most 65535 bytes without U+0000");
        return None;
    }
    (!text.is_empty()).then(|| text.into())
}

/// `shared_subscription_groups = [{ group = "workers", strategy = "sticky" }]`.
fn read_groups(table: &mut Table<'_>) -> Vec<(String, Strategy)> {
    const KEY: &str = "shared_subscription_groups";
    let read = table.tables(KEY, |t, _| {
        let group = t.string("group");
        if group.as_deref().is_none_or(|g| g.is_empty() || g.contains(['/', '+', '#'])) {
            t.problem(
                "group",
                "a ShareName: at least one character, without \"/\", \"+\" and \"#\" [MQTT-4.8.2-2]",
            );
        }
        let strategy = t.choice("strategy", &Strategy::NAMES);
        t.require("strategy", "how this group chooses, such as \"sticky\"");
        Some((group?, strategy?))
    });
    let mut groups: Vec<(String, Strategy)> = Vec::new();
    for (group, strategy) in read.into_iter().flatten() {
        if groups.iter().any(|(g, _)| *g == group) {
            table.problem(KEY, format!("each group once; \"{group}\" is there twice"));
        } else {
            groups.push((group, strategy));
        }
    }
    groups
}

fn integer<T: TryFrom<i64>>(
    table: &mut Table<'_>,
    key: &str,
    range: std::ops::RangeInclusive<i64>,
) -> Option<T> {
    table.integer(key, range).and_then(|n| T::try_from(n).ok())
}

fn size(table: &mut Table<'_>, key: &str, range: std::ops::RangeInclusive<u64>) -> Option<usize> {
    table.size(key, range).and_then(|n| usize::try_from(n).ok())
}

fn read_listener(t: &mut Table<'_>, anonymous: Option<bool>, rates: ClientRates) -> Option<ListenerConfig> {
    t.called_elsewhere(&CALLED_ELSEWHERE_OF_LISTENERS);
    let bind = t.socket_addr("bind");
    if !t.has("bind") {
        t.problem("bind", "an address and port to listen on, such as \"127.0.0.1:1883\"");
    }
    let websocket = websocket::read(t);
    t.not_in_this_version("tls");
    let accept_rate = t.rate("accept_rate").map(Rate::per_second);
    let own_rates = limits::read_rates(t);
    let proxy_protocol = t.bool("proxy_protocol").unwrap_or(false);
    let trusted = t.networks("trusted_proxies");
    let max_connections = integer(t, "max_connections", 1..=100_000_000);
    let own_anonymous = t.bool("allow_anonymous");
    let base = ListenerConfig::new(bind?);
    Some(ListenerConfig {
        proxy_protocol,
        trusted_proxies: trusted.unwrap_or(base.trusted_proxies),
        max_connections: max_connections.unwrap_or(base.max_connections),
        accept_rate,
        rates: own_rates.or(rates),
        allow_anonymous: own_anonymous.or(anonymous).unwrap_or(base.allow_anonymous),
        websocket: websocket.map(Box::new),
        ..base
    })
}
