//! What a configuration comes down to, whatever it was written in: listeners, upstreams, servers, notes.
//!
//! [`Model::settle`] makes it one that `[gateway]` accepts: values out of range, the same address twice, a server that
//! is the gateway itself. What it has to change it notes. Must not know: nginx, HAProxy, TOML.

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::time::Duration;

use runtime::config::{IpNet, duration_text};

use super::{Effect, Note, Place};
use crate::config::{MAX_KETAMA_WEIGHT, MAX_SERVERS};

/// Largest weight of a server.
const MAX_WEIGHT: u64 = 1_000;
/// Most rules of an access list.
const MAX_RULES: usize = 1_000;
/// Longest name.
const MAX_NAME: usize = 128;
const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_secs(86_400);

/// A value, and why it is there when the source does not say it; empty when it does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Said<T> {
    pub(super) value: T,
    pub(super) why: &'static str,
}

impl<T> Said<T> {
    /// The source says it.
    pub(super) const fn written(value: T) -> Self {
        Self { value, why: "" }
    }

    /// It follows from what the source does not say.
    pub(super) const fn because(value: T, why: &'static str) -> Self {
        Self { value, why }
    }
}

/// A value of the source, if there is one.
pub(super) type Maybe<T> = Option<Said<T>>;

/// Everything.
#[derive(Clone, Debug, Default)]
pub(super) struct Model {
    pub(super) listeners: Vec<Listener>,
    /// Listeners name them by index.
    pub(super) upstreams: Vec<Upstream>,
    /// Notes on what belongs to no listener or upstream.
    pub(super) notes: Vec<Note>,
}

/// A listener to be.
#[derive(Clone, Debug)]
pub(super) struct Listener {
    pub(super) place: Place,
    pub(super) bind: SocketAddr,
    /// An index into [`Model::upstreams`].
    pub(super) upstream: usize,
    /// Whose PROXY headers are expected and believed; `None`: no PROXY protocol.
    pub(super) proxies: Maybe<Vec<IpNet>>,
    /// Allowed or denied, by the first that has the address; all others are let in.
    pub(super) access: Vec<(bool, Option<IpNet>)>,
    pub(super) max_connections: Maybe<u64>,
    pub(super) max_connections_per_address: Maybe<u64>,
    /// Connections per second.
    pub(super) accept_rate: Maybe<u64>,
    pub(super) preread_timeout: Maybe<Duration>,
    pub(super) preread_size: Maybe<u64>,
    pub(super) idle_timeout: Maybe<Duration>,
    pub(super) half_closed_timeout: Maybe<Duration>,
    pub(super) on_not_mqtt: Maybe<&'static str>,
    pub(super) notes: Vec<Note>,
}

impl Listener {
    /// A listener without any wishes.
    pub(super) const fn new(place: Place, bind: SocketAddr, upstream: usize) -> Self {
        Self {
            place,
            bind,
            upstream,
            proxies: None,
            access: Vec::new(),
            max_connections: None,
            max_connections_per_address: None,
            accept_rate: None,
            preread_timeout: None,
            preread_size: None,
            idle_timeout: None,
            half_closed_timeout: None,
            on_not_mqtt: None,
            notes: Vec::new(),
        }
    }
}

/// An upstream to be.
#[derive(Clone, Debug)]
pub(super) struct Upstream {
    pub(super) place: Place,
    pub(super) name: String,
    pub(super) balance: Said<&'static str>,
    pub(super) hash: Maybe<&'static str>,
    /// Percent of the average load.
    pub(super) hash_balance_factor: Maybe<u64>,
    pub(super) queue: Maybe<u64>,
    pub(super) queue_timeout: Maybe<Duration>,
    pub(super) connect_timeout: Maybe<Duration>,
    /// Servers tried; without a number: all there are.
    pub(super) tries: Maybe<Option<u64>>,
    pub(super) tries_timeout: Maybe<Duration>,
    pub(super) proxy_protocol: Maybe<&'static str>,
    pub(super) source_addresses: Vec<IpAddr>,
    pub(super) pins: Maybe<&'static str>,
    pub(super) max_pins: Maybe<u64>,
    pub(super) servers: Vec<Server>,
    pub(super) notes: Vec<Note>,
}

impl Upstream {
    /// An upstream without servers that goes round.
    pub(super) const fn new(place: Place, name: String) -> Self {
        Self {
            place,
            name,
            balance: Said::written("round_robin"),
            hash: None,
            hash_balance_factor: None,
            queue: None,
            queue_timeout: None,
            connect_timeout: None,
            tries: None,
            tries_timeout: None,
            proxy_protocol: None,
            source_addresses: Vec::new(),
            pins: None,
            max_pins: None,
            servers: Vec::new(),
            notes: Vec::new(),
        }
    }

    /// Whether a key decides.
    pub(super) fn hashes(&self) -> bool {
        matches!(self.balance.value, "client_id" | "username" | "source_ip")
    }

    /// What is done with a stream that has no key, in a program that looks for none.
    pub(super) fn rule_without_key(&self) -> &'static str {
        match self.balance.value {
            "source_ip" => "source_ip",
            "least_connections" | "random" | "random_two" => "least_connections",
            _ => "round_robin",
        }
    }
}

/// A server to be.
#[derive(Clone, Debug)]
pub(super) struct Server {
    pub(super) place: Place,
    /// Besides the address.
    pub(super) name: Option<String>,
    pub(super) address: String,
    pub(super) weight: u64,
    pub(super) max_fails: Maybe<u64>,
    pub(super) fail_timeout: Maybe<Duration>,
    pub(super) max_conns: Maybe<u64>,
    pub(super) slow_start: Maybe<Duration>,
    pub(super) backup: bool,
    pub(super) down: bool,
}

impl Server {
    /// A server of weight 1.
    pub(super) const fn new(place: Place, address: String) -> Self {
        Self {
            place,
            name: None,
            address,
            weight: 1,
            max_fails: None,
            fail_timeout: None,
            max_conns: None,
            slow_start: None,
            backup: false,
            down: false,
        }
    }
}

/// A note.
pub(super) fn note(place: &Place, what: impl Into<String>, effect: Effect, why: impl Into<String>) -> Note {
    Note { place: place.clone(), what: what.into(), effect, why: why.into() }
}

impl Model {
    /// Every note, by file and line.
    pub(super) fn all_notes(&self) -> Vec<Note> {
        let mut notes = self.notes.clone();
        notes.extend(self.listeners.iter().flat_map(|listener| listener.notes.clone()));
        notes.extend(self.upstreams.iter().flat_map(|upstream| upstream.notes.clone()));
        notes.sort_by(|a, b| a.place.cmp(&b.place));
        // listeners of one block say the same
        notes.dedup();
        notes
    }

    /// Makes it one that `[gateway]` accepts, and notes what has to change for it.
    pub(super) fn settle(&mut self) {
        for listener in &mut self.listeners {
            settle_listener(listener);
        }
        for upstream in &mut self.upstreams {
            settle_upstream(upstream);
        }
        self.drop_second_binds();
        self.drop_loops();
        self.drop_what_leads_nowhere();
        self.name_apart();
    }

    /// An address is listened on once.
    fn drop_second_binds(&mut self) {
        let mut binds = HashSet::new();
        let (kept, dropped) =
            std::mem::take(&mut self.listeners).into_iter().partition(|listener| binds.insert(listener.bind));
        self.listeners = kept;
        self.let_go(dropped, |listener| {
            let why = format!(
                "another listener has {} already, and one address leads to one upstream",
                listener.bind
            );
            Some((format!("listener {}", listener.bind), why))
        });
    }

    /// A server that is one of the gateway's own listeners would be a connection of the gateway with itself.
    fn drop_loops(&mut self) {
        let binds: Vec<_> = self.listeners.iter().map(|listener| listener.bind).collect();
        for upstream in &mut self.upstreams {
            let notes = &mut upstream.notes;
            upstream.servers.retain(|server| {
                let own = binds.iter().find(|bind| leads_to(&server.address, **bind));
                if let Some(bind) = own {
                    let why = format!(
                        "it is this gateway's own listener {bind}, and a gateway is not its own server"
                    );
                    notes.push(note(
                        &server.place,
                        format!("server {}", server.address),
                        Effect::LeftOut,
                        why,
                    ));
                }
                own.is_none()
            });
        }
    }

    /// Upstreams without a server, and listeners in front of those.
    fn drop_what_leads_nowhere(&mut self) {
        let (listeners, upstreams) =
            (std::mem::take(&mut self.listeners), std::mem::take(&mut self.upstreams));
        let mut moved = vec![None; upstreams.len()];
        let mut names = Vec::new();
        for (index, upstream) in upstreams.into_iter().enumerate() {
            names.push(upstream.name.clone());
            if upstream.servers.is_empty() {
                self.notes.extend(upstream.notes);
            } else {
                moved[index] = Some(self.upstreams.len());
                self.upstreams.push(upstream);
            }
        }
        let mut dropped = Vec::new();
        for mut listener in listeners {
            match moved.get(listener.upstream).copied().flatten() {
                Some(index) => {
                    listener.upstream = index;
                    self.listeners.push(listener);
                }
                None => dropped.push(listener),
            }
        }
        self.let_go(dropped, |listener| {
            let name = names.get(listener.upstream)?;
            Some((format!("listener {}", listener.bind), format!("no server of {name} is left")))
        });
    }

    fn let_go(&mut self, dropped: Vec<Listener>, why: impl Fn(&Listener) -> Option<(String, String)>) {
        for mut listener in dropped {
            self.notes.append(&mut listener.notes);
            if let Some((what, why)) = why(&listener) {
                self.notes.push(note(&listener.place, what, Effect::LeftOut, why));
            }
        }
    }

    /// Names are unique, not empty and not too long.
    fn name_apart(&mut self) {
        let mut taken = HashSet::new();
        for upstream in &mut self.upstreams {
            let base = short(&upstream.name, "upstream");
            let name = (1..).map(|n| numbered(&base, n)).find(|name| taken.insert(name.clone()));
            upstream.name = name.unwrap_or(base);
        }
    }
}

/// A name without control characters, of a length that leaves room for a number.
fn short(name: &str, instead: &str) -> String {
    let mut out = String::new();
    for character in name.chars().filter(|character| !character.is_control()) {
        if out.len() + character.len_utf8() > MAX_NAME - 8 {
            break;
        }
        out.push(character);
    }
    if out.is_empty() { instead.to_owned() } else { out }
}

fn numbered(base: &str, number: usize) -> String {
    if number == 1 { base.to_owned() } else { format!("{base}-{number}") }
}

/// Whether a connection to the address arrives at the listener.
fn leads_to(address: &str, bind: SocketAddr) -> bool {
    address.parse::<SocketAddr>().is_ok_and(|address| {
        let everywhere = bind.ip().is_unspecified() && address.ip().is_loopback();
        bind.port() == address.port() && (bind.ip() == address.ip() || everywhere)
    })
}

fn settle_listener(listener: &mut Listener) {
    let place = listener.place.clone();
    let notes = &mut listener.notes;
    let mut time = |key: &str, value: &mut Maybe<Duration>, range| fit_time(notes, &place, key, value, range);
    time("preread_timeout", &mut listener.preread_timeout, SECOND / 10..=SECOND * 300);
    time("idle_timeout", &mut listener.idle_timeout, SECOND..=DAY * 7);
    time("half_closed_timeout", &mut listener.half_closed_timeout, SECOND..=DAY);
    let mut number = |key: &str, value: &mut Maybe<u64>, range| fit(notes, &place, key, value, range);
    number("preread_size", &mut listener.preread_size, 64..=1 << 20);
    number("max_connections", &mut listener.max_connections, 1..=10_000_000);
    number("max_connections_per_address", &mut listener.max_connections_per_address, 1..=10_000_000);
    number("accept_rate", &mut listener.accept_rate, 1..=1_000_000);
    if let Some((allowed, _)) = listener.access.get(MAX_RULES) {
        let verb = if *allowed { "allow" } else { "deny" };
        let why =
            format!("a listener has at most {MAX_RULES} rules; this one and those after it are too many");
        listener.notes.push(note(&place, verb, Effect::LeftOut, why));
        // whoever was to be let in or kept out by them is kept out: that is noticed, the other way round is not
        listener.access.truncate(MAX_RULES - 1);
        listener.access.push((false, None));
    }
}

fn settle_upstream(upstream: &mut Upstream) {
    let place = upstream.place.clone();
    let notes = &mut upstream.notes;
    let mut time = |key: &str, value: &mut Maybe<Duration>, range| fit_time(notes, &place, key, value, range);
    time("connect_timeout", &mut upstream.connect_timeout, SECOND / 100..=SECOND * 60);
    time("tries_timeout", &mut upstream.tries_timeout, SECOND / 100..=SECOND * 600);
    time("queue_timeout", &mut upstream.queue_timeout, SECOND / 100..=SECOND * 3_600);
    let mut number = |key: &str, value: &mut Maybe<u64>, range| fit(notes, &place, key, value, range);
    number("queue", &mut upstream.queue, 0..=1_000_000);
    number("max_pins", &mut upstream.max_pins, 0..=10_000_000);
    number("hash_balance_factor", &mut upstream.hash_balance_factor, 100..=100_000);
    for server in &mut upstream.servers {
        let place = server.place.clone();
        fit_time(notes, &place, "fail_timeout", &mut server.fail_timeout, SECOND / 100..=DAY);
        fit_time(notes, &place, "slow_start", &mut server.slow_start, Duration::ZERO..=DAY);
        fit(notes, &place, "max_fails", &mut server.max_fails, 0..=1_000_000);
        fit(notes, &place, "max_conns", &mut server.max_conns, 1..=10_000_000);
    }
    without_hash(upstream);
    sources(upstream);
    merge_doubles(upstream);
    if let Some(first) = upstream.servers.get(MAX_SERVERS) {
        let why = format!(
            "an upstream has at most {MAX_SERVERS} servers; this one and those after it are too many"
        );
        upstream.notes.push(note(&first.place, format!("server {}", first.address), Effect::LeftOut, why));
        upstream.servers.truncate(MAX_SERVERS);
    }
    weigh(upstream);
    if let Some(tries) = &mut upstream.tries {
        let all = u64::try_from(upstream.servers.len().max(1)).unwrap_or(u64::MAX);
        tries.value = Some(tries.value.map_or(all, |tries| tries.clamp(1, all)));
    }
}

/// What goes together with a hash only, or with none.
fn without_hash(upstream: &mut Upstream) {
    let hashes = upstream.hashes();
    let modulo = upstream.hash.as_ref().is_some_and(|hash| hash.value == "modulo");
    let place = upstream.place.clone();
    if (!hashes || modulo) && upstream.hash_balance_factor.take().is_some() {
        let why = "bounded loads need a consistent hash";
        upstream.notes.push(note(&place, "hash_balance_factor", Effect::LeftOut, why));
    }
    for server in upstream.servers.iter_mut().filter(|_| hashes) {
        if server.slow_start.take().is_some_and(|slow_start| !slow_start.value.is_zero()) {
            let why = "a share that grows would move devices from the servers their key gives them";
            upstream.notes.push(note(&server.place, "slow_start", Effect::LeftOut, why));
        }
    }
}

/// Source addresses are single addresses of this machine, each once.
fn sources(upstream: &mut Upstream) {
    let mut seen = HashSet::new();
    let notes = &mut upstream.notes;
    let place = &upstream.place;
    upstream.source_addresses.retain(|address| {
        let fine = !address.is_unspecified() && !address.is_multicast();
        if !fine {
            let why = "a source address is one of this machine";
            notes.push(note(place, format!("source address {address}"), Effect::LeftOut, why));
        }
        fine && seen.insert(*address)
    });
}

/// The same address twice is one server with the weight of both (with ketama: of the heavier, since equal points are
/// one point). Names are unique, too, since logs, the API and the hash know a server by its name.
fn merge_doubles(upstream: &mut Upstream) {
    let ketama = upstream.hash.as_ref().is_some_and(|hash| hash.value == "ketama") && upstream.hashes();
    let mut servers: Vec<Server> = Vec::new();
    for server in upstream.servers.drain(..) {
        let Some(first) = servers.iter_mut().find(|first| first.address == server.address) else {
            servers.push(server);
            continue;
        };
        let both = first.weight.saturating_add(server.weight);
        first.weight = if ketama { first.weight.max(server.weight) } else { both };
        let why = format!(
            "the same address as in line {}: one server with weight {}",
            first.place.line, first.weight
        );
        upstream.notes.push(note(&server.place, format!("server {}", server.address), Effect::Differs, why));
    }
    let mut taken: HashSet<String> =
        servers.iter().filter(|server| server.name.is_none()).map(|server| server.address.clone()).collect();
    for server in &mut servers {
        let Some(name) = &server.name else { continue };
        let base = short(name, "server");
        server.name = (1..).map(|n| numbered(&base, n)).find(|name| taken.insert(name.clone()));
    }
    upstream.servers = servers;
}

/// Weights go to 1000, and under ketama their sum to [`MAX_KETAMA_WEIGHT`]; above it all shrink alike.
fn weigh(upstream: &mut Upstream) {
    let ketama = upstream.hash.as_ref().is_some_and(|hash| hash.value == "ketama");
    let heaviest = upstream.servers.iter().map(|server| server.weight).max().unwrap_or(1);
    let sum: u64 = upstream.servers.iter().fold(0, |sum, server| sum.saturating_add(server.weight));
    let most = u64::from(MAX_KETAMA_WEIGHT);
    let (above, below) = match (heaviest > MAX_WEIGHT, ketama && sum > most) {
        (false, false) => return,
        // room for those that are rounded up to 1
        (_, true) if sum / most >= heaviest / MAX_WEIGHT => {
            (sum, most - u64::try_from(MAX_SERVERS).unwrap_or(most))
        }
        _ => (heaviest, MAX_WEIGHT),
    };
    for server in &mut upstream.servers {
        let scaled = u128::from(server.weight) * u128::from(below) / u128::from(above);
        server.weight = u64::try_from(scaled).unwrap_or(MAX_WEIGHT).clamp(1, MAX_WEIGHT);
    }
    let why = format!(
        "weights go to {MAX_WEIGHT} for a server and to {MAX_KETAMA_WEIGHT} together under ketama: all of them \
         are made smaller alike"
    );
    upstream.notes.push(note(&upstream.place, format!("weights of {}", upstream.name), Effect::Differs, why));
}

fn fit_time(
    notes: &mut Vec<Note>,
    place: &Place,
    key: &str,
    value: &mut Maybe<Duration>,
    range: RangeInclusive<Duration>,
) {
    let Some(said) = value else { return };
    let fitting = said.value.clamp(*range.start(), *range.end());
    if fitting != said.value {
        let why =
            format!("{} is out of range; it becomes {}", duration_text(said.value), duration_text(fitting));
        notes.push(note(place, key, Effect::Differs, why));
        said.value = fitting;
    }
}

fn fit(notes: &mut Vec<Note>, place: &Place, key: &str, value: &mut Maybe<u64>, range: RangeInclusive<u64>) {
    let Some(said) = value else { return };
    let fitting = said.value.clamp(*range.start(), *range.end());
    if fitting != said.value {
        let why = format!("{} is out of range; it becomes {fitting}", said.value);
        notes.push(note(place, key, Effect::Differs, why));
        said.value = fitting;
    }
}
