//! The `[gateway]` section: listeners, upstreams, servers, and what is allowed in each key.
//!
//! [`read`] finds every problem at once, those of meaning included (an upstream that no section has, a name that
//! is there twice). Must not know: sockets; whether an address can be bound or reached shows when it is tried.

use std::collections::HashSet;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use runtime::config::{IpNet, Table};
use runtime::rate::Rate;

use crate::access::{self, Access};
use crate::balance::{HashKind, POINTS_PER_WEIGHT};
use crate::health;
use crate::route::{Balance, Rule, Rules};
use crate::sticky::Record;

/// Most servers of an upstream.
pub const MAX_SERVERS: usize = 1_024;
/// Largest sum of weights under ketama: its table then takes 13 MB.
pub const MAX_KETAMA_WEIGHT: u32 = 10_000;
/// Most servers tried for one connection where `tries` says nothing.
pub const DEFAULT_TRIES: usize = 16;

const SECOND: Duration = Duration::from_secs(1);

/// The gateway's part of the configuration.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GatewayConfig {
    /// Where devices connect.
    pub listeners: Vec<ListenerConfig>,
    /// Where they are sent.
    pub upstreams: Vec<UpstreamConfig>,
    /// Where a line goes for each connection at its end.
    pub session_log: SessionLog,
}

/// Where a line goes for each connection at its end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum SessionLog {
    /// To the log of the process.
    #[default]
    Events,
    /// Nowhere.
    Off,
    /// To a file of its own, with a line for each connection that was refused, too. Every reload opens it anew.
    File {
        /// The file; lines go behind its end.
        path: PathBuf,
        /// How lines look.
        format: LineFormat,
    },
}

impl fmt::Display for SessionLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Events => f.write_str("events"),
            Self::Off => f.write_str("off"),
            Self::File { path, format } => write!(f, "{} as {}", path.display(), format.name()),
        }
    }
}

/// How the lines of a session log look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LineFormat {
    /// `time event key=value ...`.
    Text,
    /// A JSON object.
    Json,
}

impl LineFormat {
    /// As written in the configuration.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Json => "json",
        }
    }
}

/// A listener.
#[derive(Clone, Debug, PartialEq)]
pub struct ListenerConfig {
    /// Where it listens; with port 0 the system chooses one.
    pub bind: SocketAddr,
    /// The name of its upstream.
    pub upstream: Arc<str>,
    /// Whether connections from `trusted_proxies` begin with a PROXY header. Such a connection without one is
    /// refused, and so is one with a header from elsewhere.
    pub proxy_protocol: bool,
    /// Whose PROXY headers are believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Connections at a time over all workers; those above are closed at once and counted.
    pub max_connections: u32,
    /// Connections at a time from one address (the device's own); those above are closed at once. 0: no limit.
    pub max_connections_per_address: u32,
    /// Who may connect, by the device's own address: the first rule that fits decides, and where none fits it may.
    pub access: Vec<Access>,
    /// Connections per second that are served; those above are refused with 0x9F "Connection rate exceeded".
    pub accept_rate: Option<Rate>,
    /// Time from accept until the names in CONNECT are known.
    pub preread_timeout: Duration,
    /// Bytes until the names in CONNECT are known.
    pub preread_size: usize,
    /// What happens to connections without a key.
    pub rules: Rules,
    /// A connection without a byte either way for this long is closed; `None`: never. MQTT's keep alive is the
    /// broker's to enforce.
    pub idle_timeout: Option<Duration>,
    /// After one side closed: a connection without a byte from the other for this long is closed.
    pub half_closed_timeout: Duration,
}

/// An upstream: a named group of servers.
#[derive(Clone, Debug, PartialEq)]
pub struct UpstreamConfig {
    /// Its name, unique.
    pub name: Arc<str>,
    /// How a server is chosen.
    pub balance: Balance,
    /// The hash, for the balancings and rules that need one.
    pub hash: HashKind,
    /// Consistent hashing with bounded loads: no server gets more than this times its fair share of the connections,
    /// and a device whose server has that many goes to the next one. `None`: the hash alone decides. Such a device is
    /// away from home until it connects again, and gateways that count other connections may send it elsewhere: the
    /// smaller the factor, the less sticky. Pins win over the bound.
    pub hash_balance_factor: Option<f64>,
    /// The PROXY header sent to its servers.
    pub proxy_protocol: ProxyOut,
    /// Local addresses to connect from, in turns; empty: the system's choice. A pair of addresses has about 28,000
    /// ports.
    pub source_addresses: Vec<IpAddr>,
    /// Time for one server: name, connection and the first bytes written.
    pub connect_timeout: Duration,
    /// Servers tried for a connection before it is refused.
    pub tries: usize,
    /// No further server is tried for a connection that has looked for one this long; `None`: all `tries` are made.
    pub tries_timeout: Option<Duration>,
    /// Connections that may wait for a server while all that could take them have their `max_conns`.
    pub queue: usize,
    /// How long one waits at most.
    pub queue_timeout: Duration,
    /// What is recorded as a pin.
    pub pins: Record,
    /// Pins kept at most.
    pub max_pins: usize,
    /// Its servers, at least one.
    pub servers: Vec<ServerConfig>,
}

/// Which PROXY header goes before the device's bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ProxyOut {
    /// None.
    #[default]
    Off,
    /// The text form.
    V1,
    /// The binary form, with the connection's id as the unique id TLV.
    V2,
}

impl ProxyOut {
    /// As written in the configuration.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::V1 => "v1",
            Self::V2 => "v2",
        }
    }
}

/// A server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerConfig {
    /// Its name, or its address as written: what the hash sees.
    pub name: Arc<str>,
    /// `host:port` as written; the host may be a name.
    pub address: Arc<str>,
    /// Share relative to the other servers, 1 to 1000.
    pub weight: u32,
    /// So many failed connections, with none made after `fail_timeout` between them, and the server is unavailable.
    /// 0: it is never.
    pub max_fails: u32,
    /// How long an unavailable server is left alone before one connection tries it.
    pub fail_timeout: Duration,
    /// Connections at a time, over all workers and never exceeded; 0: no limit.
    pub max_conns: u32,
    /// Used only when none of those that are no backup can take a connection.
    pub backup: bool,
    /// Takes no connections.
    pub down: bool,
    /// How long its share grows from next to nothing to `weight` after it was added, enabled, or came back.
    pub slow_start: Duration,
}

impl ServerConfig {
    /// When it is unavailable.
    pub const fn limits(&self) -> health::Limits {
        health::Limits {
            max_fails: self.max_fails,
            fail_timeout: self.fail_timeout,
            slow_start: self.slow_start,
        }
    }
}

/// Reads the content of `[gateway]`. Where something is wrong the table has a problem, and what is returned is
/// not to be used.
pub fn read(table: &mut Table<'_>) -> GatewayConfig {
    let mut names = HashSet::new();
    let upstreams = table.tables("upstreams", |table, _| upstream(table, &mut names));
    let mut binds = HashSet::new();
    let listeners = table.tables("listeners", |table, _| listener(table, &names, &mut binds));
    table.require("upstreams", "at least one [[gateway.upstreams]]");
    table.require("listeners", "at least one [[gateway.listeners]]");
    let session_log = session_log(table);
    let listeners = listeners.into_iter().flatten().collect();
    let config = GatewayConfig { listeners, upstreams, session_log };
    for (index, upstream) in config.upstreams.iter().enumerate() {
        if let Some((server, listener)) = loops(upstream, &config.listeners) {
            let problem = format!(
                "servers other than the gateway itself: {server} is its listener {listener}, and every connection \
                 would come back for ever"
            );
            table.element_problem("upstreams", index, problem);
        }
    }
    config
}

/// `session_log`: a word, or a table with a file.
fn session_log(table: &mut Table<'_>) -> SessionLog {
    const ALLOWED: &str = "\"events\", \"off\", or { file = \"gateway.log\", format = \"json\" }";
    if !table.has("session_log") {
        return SessionLog::Events;
    }
    if !table.is_table("session_log") {
        match table.string("session_log").as_deref() {
            Some("off") => return SessionLog::Off,
            Some("events") | None => {}
            Some(_) => table.problem("session_log", ALLOWED),
        }
        return SessionLog::Events;
    }
    let file = table.table("session_log", |table| {
        table.require("file", "the file, from the folder of the configuration if it does not begin with /");
        let formats = [LineFormat::Text, LineFormat::Json].map(|format| (format.name(), format));
        let format = table.choice("format", &formats).unwrap_or(LineFormat::Text);
        Some(SessionLog::File { path: table.path("file")?, format })
    });
    file.flatten().unwrap_or_default()
}

/// A server of the upstream that is one of the gateway's own listeners.
fn loops<'a>(upstream: &'a UpstreamConfig, listeners: &[ListenerConfig]) -> Option<(&'a str, SocketAddr)> {
    upstream.servers.iter().find_map(|server| {
        let address: SocketAddr = server.address.parse().ok()?;
        let own = |bind: SocketAddr| {
            let everywhere = bind.ip().is_unspecified() && address.ip().is_loopback();
            bind.port() == address.port() && (bind.ip() == address.ip() || everywhere)
        };
        let listener = listeners.iter().find(|listener| own(listener.bind))?;
        Some((&*server.address, listener.bind))
    })
}

fn listener(
    table: &mut Table<'_>,
    upstreams: &HashSet<String>,
    binds: &mut HashSet<SocketAddr>,
) -> Option<ListenerConfig> {
    table.require("bind", "an address with a port such as \"0.0.0.0:1880\"");
    let bind = table.socket_addr("bind");
    if bind.is_some_and(|bind| !binds.insert(bind)) {
        table.problem("bind", "each address once; another listener has it");
    }
    table.only("transport", "tcp", &["tls", "ws", "wss", "quic"]);
    table.only("mode", "stream", &["message"]);
    table.not_in_this_version("tls");
    let known = || {
        let mut names: Vec<_> = upstreams.iter().map(|name| format!("\"{name}\"")).collect();
        names.sort_unstable();
        format!(
            "the name of an upstream; there is: {}",
            if names.is_empty() { "none".into() } else { names.join(", ") }
        )
    };
    table.require("upstream", known());
    let upstream = table.string("upstream");
    if upstream.as_ref().is_some_and(|name| !upstreams.contains(name)) {
        table.problem("upstream", known());
    }
    let config = ListenerConfig {
        bind: bind?,
        upstream: upstream?.into(),
        proxy_protocol: table.bool("proxy_protocol").unwrap_or(false),
        trusted_proxies: table.networks("trusted_proxies").unwrap_or_else(IpNet::private_and_loopback),
        max_connections: integer(table, "max_connections", 1, 10_000_000).unwrap_or(100_000),
        max_connections_per_address: integer(table, "max_connections_per_address", 0, 10_000_000)
            .unwrap_or(0),
        access: access(table),
        accept_rate: table.rate("accept_rate").map(Rate::per_second),
        preread_timeout: table.duration("preread_timeout", SECOND / 10..=SECOND * 300).unwrap_or(SECOND * 10),
        preread_size: size(table, "preread_size", 64, 1 << 20).unwrap_or(16 * 1024),
        rules: Rules {
            empty_client_id: rule(table, "on_empty_client_id").unwrap_or(Rule::RoundRobin),
            no_username: rule(table, "on_no_username").unwrap_or(Rule::RoundRobin),
            not_mqtt: rule(table, "on_not_mqtt").unwrap_or(Rule::Reject),
        },
        idle_timeout: table.duration("idle_timeout", SECOND..=SECOND * (7 * 86_400)),
        half_closed_timeout: table
            .duration("half_closed_timeout", SECOND..=SECOND * 86_400)
            .unwrap_or(SECOND * 60),
    };
    Some(config)
}

/// The access list: one of `allow` and `deny` in each table.
fn access(table: &mut Table<'_>) -> Vec<Access> {
    const NETWORK: &str = "\"all\", a network such as \"10.0.0.0/8\" or \"fd00::/8\", or one address";
    let rules = table.tables("access", |table, _| {
        let (allow, deny) = (table.string("allow"), table.string("deny"));
        let (key, written) = match (allow, deny) {
            (Some(written), None) if !table.has("deny") => ("allow", written),
            (None, Some(written)) if !table.has("allow") => ("deny", written),
            (None, None) if table.has("allow") || table.has("deny") => return None,
            _ => {
                table.problem("allow", "either `allow` or `deny`, such as { allow = \"10.0.0.0/8\" }");
                return None;
            }
        };
        let network = access::parse(&written);
        if network.is_none() {
            table.problem(key, NETWORK);
        }
        Some(Access { allow: key == "allow", network: network? })
    });
    if rules.len() > access::MAX_RULES {
        table.problem("access", format!("at most {} rules", access::MAX_RULES));
    }
    rules.into_iter().flatten().collect()
}

fn upstream(table: &mut Table<'_>, names: &mut HashSet<String>) -> UpstreamConfig {
    let name = name(table, "name");
    match &name {
        Some(name) if !names.insert(name.clone()) => {
            table.problem("name", "each name once; another upstream has it");
        }
        Some(_) => {}
        None => table.require("name", "a name that listeners refer to, such as \"brokers\""),
    }
    table.only("transport", "tcp", &["tls", "ws", "wss", "quic"]);
    table.not_in_this_version("tls");
    let hash = table
        .choice(
            "hash",
            &[HashKind::Rendezvous, HashKind::Ketama, HashKind::Modulo].map(|kind| (kind.name(), kind)),
        )
        .unwrap_or(HashKind::Rendezvous);
    let balance = balance(table).unwrap_or(Balance::ClientId);
    let servers = servers(table, hash);
    if let Some(index) = servers.iter().position(|server| !server.slow_start.is_zero())
        && balance.hashes()
    {
        let problem = format!(
            "no slow_start in {}: balance = \"{}\" keeps each device on its server, and a share that grows would move \
             devices for nothing but the time of day",
            servers.get(index).map_or("a server", |server| &*server.name),
            balance.name()
        );
        table.element_problem("servers", index, problem);
    }
    let hash_balance_factor = balance_factor(table, balance, hash);
    UpstreamConfig {
        name: name.unwrap_or_default().into(),
        balance,
        hash,
        hash_balance_factor,
        proxy_protocol: table
            .choice(
                "proxy_protocol",
                &[ProxyOut::Off, ProxyOut::V1, ProxyOut::V2].map(|out| (out.name(), out)),
            )
            .unwrap_or_default(),
        source_addresses: source_addresses(table),
        connect_timeout: table.duration("connect_timeout", SECOND / 100..=SECOND * 60).unwrap_or(SECOND * 5),
        tries: integer(table, "tries", 1, MAX_SERVERS as i64)
            .map_or(DEFAULT_TRIES, |tries: u32| tries as usize)
            .min(servers.len().max(1)),
        tries_timeout: table.duration("tries_timeout", SECOND / 100..=SECOND * 600),
        queue: integer(table, "queue", 0, 1_000_000).map_or(0, |queue: u32| queue as usize),
        queue_timeout: table.duration("queue_timeout", SECOND / 100..=SECOND * 3_600).unwrap_or(SECOND * 60),
        pins: table
            .choice(
                "pins",
                &[Record::Operator, Record::Failover, Record::All].map(|record| (record.name(), record)),
            )
            .unwrap_or_default(),
        max_pins: integer(table, "max_pins", 0, 10_000_000).map_or(100_000, |pins: u32| pins as usize),
        servers,
    }
}

fn balance(table: &mut Table<'_>) -> Option<Balance> {
    let all = [
        Balance::ClientId,
        Balance::Username,
        Balance::SourceIp,
        Balance::RoundRobin,
        Balance::LeastConnections,
        Balance::Random,
        Balance::RandomTwo,
    ];
    table.choice("balance", &all.map(|balance| (balance.name(), balance)))
}

/// `hash_balance_factor`: 0 is off.
fn balance_factor(table: &mut Table<'_>, balance: Balance, hash: HashKind) -> Option<f64> {
    let factor = table.number("hash_balance_factor", 0.0..=1_000.0).filter(|factor| *factor != 0.0)?;
    if factor < 1.0 {
        table.problem("hash_balance_factor", "0 (off), or from 1 (all servers alike) to 1000");
    } else if hash == HashKind::Modulo {
        table.problem("hash_balance_factor", "only with hash = \"rendezvous\" or \"ketama\"");
    } else if !balance.hashes() {
        table.problem(
            "hash_balance_factor",
            "only with balance = \"client_id\", \"username\" or \"source_ip\"",
        );
    }
    Some(factor)
}

fn source_addresses(table: &mut Table<'_>) -> Vec<IpAddr> {
    let addresses = table.ip_list("source_addresses").unwrap_or_default();
    for (index, address) in addresses.iter().enumerate() {
        if address.is_unspecified() || address.is_multicast() {
            table.element_problem("source_addresses", index, "an address of this machine");
        } else if addresses.iter().take(index).any(|other| other == address) {
            table.element_problem("source_addresses", index, "each address once");
        }
    }
    addresses
}

fn servers(table: &mut Table<'_>, hash: HashKind) -> Vec<ServerConfig> {
    let (mut names, mut addresses) = (HashSet::new(), HashSet::new());
    let servers = table.tables("servers", |table, _| server(table, &mut names, &mut addresses));
    let servers: Vec<_> = servers.into_iter().flatten().collect();
    let weight: u32 = servers.iter().map(|server| server.weight).sum();
    if !table.has("servers") || (servers.is_empty() && names.is_empty() && addresses.is_empty()) {
        table.problem("servers", "at least one server: servers = [{ address = \"10.0.0.172:1883\" }]");
    } else if servers.len() > MAX_SERVERS {
        table.problem("servers", format!("at most {MAX_SERVERS} servers"));
    } else if hash == HashKind::Ketama && weight > MAX_KETAMA_WEIGHT {
        table.problem(
            "servers",
            format!(
                "weights that sum up to at most {MAX_KETAMA_WEIGHT} with hash = \"ketama\" (here {weight}): it \
                 keeps {POINTS_PER_WEIGHT} points per weight"
            ),
        );
    }
    servers
}

fn server(
    table: &mut Table<'_>,
    names: &mut HashSet<String>,
    addresses: &mut HashSet<String>,
) -> Option<ServerConfig> {
    const ADDRESS: &str = "an address such as \"10.0.0.172:1883\", \"[::1]:1883\" or \"broker.example:1883\"";
    table.require("address", ADDRESS);
    let address = table.string("address");
    let name = name(table, "name").or_else(|| address.clone());
    let mut config = ServerConfig {
        name: Arc::default(),
        address: Arc::default(),
        weight: integer(table, "weight", 1, 1_000).unwrap_or(1),
        max_fails: integer(table, "max_fails", 0, 1_000_000).unwrap_or(1),
        fail_timeout: table.duration("fail_timeout", SECOND / 100..=SECOND * 86_400).unwrap_or(SECOND * 10),
        max_conns: integer(table, "max_conns", 0, 10_000_000).unwrap_or(0),
        backup: table.bool("backup").unwrap_or(false),
        down: table.bool("down").unwrap_or(false),
        slow_start: table.duration("slow_start", Duration::ZERO..=SECOND * 86_400).unwrap_or(Duration::ZERO),
    };
    let address = address?;
    if !is_host_and_port(&address) {
        table.problem("address", ADDRESS);
    } else if !addresses.insert(address.clone()) {
        table.problem("address", "each address once; another server of this upstream has it");
    }
    let name = name?;
    if !names.insert(name.clone()) {
        let key = if table.has("name") { "name" } else { "address" };
        table.problem(key, "each name once; another server of this upstream has it");
    }
    (config.name, config.address) = (name.into(), address.into());
    Some(config)
}

/// `host:port`, an IPv6 host in brackets.
fn is_host_and_port(address: &str) -> bool {
    if let Ok(address) = address.parse::<SocketAddr>() {
        return address.port() != 0;
    }
    let Some((host, port)) = address.rsplit_once(':') else { return false };
    let is_label = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    !host.is_empty()
        && host.len() <= 253
        && host.bytes().all(is_label)
        && host.parse::<IpAddr>().is_err()
        && port.bytes().all(|byte| byte.is_ascii_digit())
        && port.parse::<u16>().is_ok_and(|port| port != 0)
}

/// A name that goes into addresses of the API, logs and labels.
fn name(table: &mut Table<'_>, key: &str) -> Option<String> {
    let name = table.string(key)?;
    let fine = !name.is_empty() && name.len() <= 128 && !name.chars().any(char::is_control);
    if !fine {
        table.problem(key, "1 to 128 bytes without control characters");
    }
    fine.then_some(name)
}

fn rule(table: &mut Table<'_>, key: &str) -> Option<Rule> {
    let all = [Rule::Reject, Rule::RoundRobin, Rule::SourceIp, Rule::LeastConnections];
    table.choice(key, &all.map(|rule| (rule.name(), rule)))
}

fn integer<T: TryFrom<i64>>(table: &mut Table<'_>, key: &str, min: i64, max: i64) -> Option<T> {
    table.integer(key, min..=max).and_then(|value| T::try_from(value).ok())
}

fn size(table: &mut Table<'_>, key: &str, min: u64, max: u64) -> Option<usize> {
    table.size(key, min..=max).and_then(|value| usize::try_from(value).ok())
}

#[cfg(test)]
mod tests;
