//! Upstreams while the process runs: which server, under the locks that a decision needs.
//!
//! What a reload keeps is kept as the same object: a [`Server`] (by name and address) with its counters, its state and
//! its health, an upstream's [`Pins`], and those who wait in its [`Queue`]. What it removes goes on being visible while it
//! has connections. The decision itself is [`crate::route`]'s; here are the locks around it, each held for one decision
//! and never across an await. One decision at a time for an upstream: so a server's connections never exceed its
//! `max_conns`, whichever workers they are on. Must not know: clients' sockets, MQTT.

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use net::dialer::Dialer;
use runtime::workers::WorkerId;

use crate::balance::{Hash, HashKind, Load, RoundRobin};
use crate::config::{ServerConfig, UpstreamConfig};
use crate::health::{Change, Limits};
use crate::queue::Queue;
use crate::route::{self, By, Choice, ChosenBy, Plan, Seat, Standing, View};
use crate::server::{Server, Slot, State};
use crate::sticky::{Pins, PinsFull};

/// What a weight of 1 is where shares grow slowly.
const PARTS: u32 = 100;

/// An upstream as one configuration has it.
pub(crate) struct Upstream {
    pub(crate) config: UpstreamConfig,
    /// In the order of the configuration.
    pub(crate) servers: Vec<Arc<Server>>,
    /// Of each server.
    limits: Vec<Limits>,
    /// Servers that were not here before, or were down: their share grows slowly.
    fresh: Vec<usize>,
    by_name: HashMap<Arc<str>, usize>,
    hash: Hash,
    backup_hash: Hash,
    /// What a weight of 1 is: parts, where shares grow slowly.
    unit: u32,
    deciding: Arc<Mutex<Deciding>>,
    generation: u64,
    pins: Arc<Mutex<Pins>>,
    pub(crate) queue: Arc<Queue>,
    pub(crate) dialer: Dialer,
}

/// What a decision needs and leaves behind; the vectors are kept for their memory only.
#[derive(Default)]
struct Deciding {
    turns: RoundRobin,
    /// Whose turns they are: a new configuration begins anew.
    generation: u64,
    seats: Vec<Seat>,
    loads: Vec<Load>,
}

/// Where a connection goes, with its place there.
pub(crate) enum Chosen {
    Server {
        index: usize,
        why: ChosenBy,
        slot: Slot,
    },
    /// Who could take it has no room.
    Full,
    Nobody,
}

impl fmt::Debug for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upstream").field("name", &self.config.name).finish_non_exhaustive()
    }
}

impl Upstream {
    /// Builds it anew, with what `before` (the upstream of that name until now) and `leaving` (removed servers that
    /// still have connections) have in common with it.
    pub(crate) fn new(
        config: &UpstreamConfig,
        workers: usize,
        before: Option<&Self>,
        leaving: &[Arc<Server>],
    ) -> Self {
        let known = before.map_or(&[][..], |upstream| &upstream.servers);
        let keep = |wanted: &ServerConfig| {
            let same = |server: &&Arc<Server>| {
                server.name == wanted.name
                    && server.address == wanted.address
                    && server.upstream == config.name
            };
            known.iter().chain(leaving).find(same).cloned()
        };
        // Servers that are leaving know the queue of an upstream that is gone, perhaps, and keep it in use.
        let leaving_queue = || {
            leaving
                .iter()
                .find(|server| server.upstream == config.name)
                .map(|server| Arc::clone(&server.queue))
        };
        let queue = before.map(|before| Arc::clone(&before.queue)).or_else(leaving_queue).unwrap_or_default();
        let servers: Vec<_> = config
            .servers
            .iter()
            .map(|server| {
                keep(server).unwrap_or_else(|| Arc::new(Server::new(&config.name, server, workers, &queue)))
            })
            .collect();
        let served = |before: &Self, server: &Arc<Server>| {
            let position = before.servers.iter().position(|known| Arc::ptr_eq(known, server));
            position.and_then(|index| before.config.servers.get(index)).is_some_and(|config| !config.down)
        };
        let fresh = |before: &Self| {
            let fresh = servers.iter().enumerate().filter(|(_, server)| !served(before, server));
            fresh.map(|(index, _)| index).collect()
        };
        let by_name =
            config.servers.iter().enumerate().map(|(index, server)| (Arc::clone(&server.name), index));
        let weights = |backup: bool| {
            let weight = move |server: &ServerConfig| if server.backup == backup { server.weight } else { 0 };
            config.servers.iter().map(move |server| (&*server.name, weight(server)))
        };
        let slow = config.servers.iter().any(|server| !server.slow_start.is_zero());
        Self {
            hash: Hash::new(config.hash, weights(false)),
            backup_hash: Hash::new(HashKind::Rendezvous, weights(true)),
            limits: limits(config),
            unit: if slow { PARTS } else { 1 },
            deciding: before.map(|before| Arc::clone(&before.deciding)).unwrap_or_default(),
            generation: before.map_or(1, |before| before.generation + 1),
            pins: before.map_or_else(
                || Arc::new(Mutex::new(Pins::new(config.max_pins))),
                |upstream| Arc::clone(&upstream.pins),
            ),
            dialer: dialer(&config.source_addresses, config.connect_timeout),
            config: config.clone(),
            by_name: by_name.collect(),
            fresh: before.map_or_else(Vec::new, fresh),
            servers,
            queue,
        }
    }

    /// Takes effect: from now on this one's servers and bounds hold, and its servers are up that were leaving. Those who
    /// wait look again.
    pub(crate) fn enter(&self, now: Instant) {
        lock(&self.pins).reconfigure(self.config.max_pins, |name| self.by_name.contains_key(name));
        for ((server, config), limits) in self.servers.iter().zip(&self.config.servers).zip(&self.limits) {
            server.set_limited(config.max_conns > 0);
            if limits.max_fails == 0 {
                server.recovered(limits, now);
            }
            if server.state() == State::Removed {
                server.set_state(State::Up);
            }
        }
        for index in &self.fresh {
            if let (Some(server), Some(limits)) = (self.servers.get(*index), self.limits.get(*index)) {
                server.rise(limits, now);
            }
        }
        self.queue.call_all();
    }

    /// Chooses a server that is not in `tried`, and takes a place there.
    pub(crate) fn choose(
        &self,
        plan: &Plan<'_>,
        tried: &[usize],
        draws: [u64; 2],
        worker: WorkerId,
        now: Instant,
    ) -> Chosen {
        let deciding = &mut *lock(&self.deciding);
        if deciding.generation != self.generation {
            deciding.generation = self.generation;
            deciding.turns = RoundRobin::new(self.unit);
        }
        self.look(plan, tried, deciding, now);
        let choice = route::choose(
            plan,
            View {
                hash: &self.hash,
                backup_hash: &self.backup_hash,
                bound: self.config.hash_balance_factor,
                seats: &deciding.seats,
                loads: &mut deciding.loads,
                index_of: &|name| self.by_name.get(name).copied(),
                pins: &mut lock(&self.pins),
                round_robin: &mut deciding.turns,
                draws,
                failed_over: !tried.is_empty(),
            },
        );
        let (index, why) = match choice {
            Choice::Server(index, why) => (index, why),
            Choice::Full => return Chosen::Full,
            Choice::Nobody => return Chosen::Nobody,
        };
        let (Some(server), Some(limits)) = (self.servers.get(index), self.limits.get(index)) else {
            return Chosen::Nobody;
        };
        // Still under the lock: the next decision sees it.
        if deciding.seats.get(index).is_some_and(|seat| seat.standing == Standing::Failed) {
            self.all_may_be_tried(index, &deciding.seats);
        }
        server.chosen(limits, now);
        Chosen::Server { index, why, slot: Slot::take(server, worker) }
    }

    /// None was left but those that failed, and one of them is tried before its time: so may be the others, once each.
    /// When a whole fleet of servers restarts, its devices are at home again with their next connection.
    fn all_may_be_tried(&self, but: usize, seats: &[Seat]) {
        for (index, (server, seat)) in self.servers.iter().zip(seats).enumerate() {
            if index != but && seat.standing == Standing::Failed {
                server.pause_ends();
            }
        }
    }

    /// Notes how the servers stand.
    fn look(&self, plan: &Plan<'_>, tried: &[usize], deciding: &mut Deciding, now: Instant) {
        // Counting is a sum over workers: only for those who look at it.
        let hashes = matches!(plan.by, By::Name(_) | By::Source(_));
        let counts = matches!(plan.by, By::LeastConnections | By::RandomTwo)
            || hashes && self.config.hash_balance_factor.is_some();
        let slow = self.unit != 1 && !hashes;
        let Deciding { seats, loads, .. } = deciding;
        seats.clear();
        loads.clear();
        let servers = self.servers.iter().zip(&self.config.servers).zip(&self.limits);
        for (index, ((server, config), limits)) in servers.enumerate() {
            let open = if counts || config.max_conns > 0 { server.open() } else { 0 };
            let standing = if config.down || server.state() != State::Up || tried.contains(&index) {
                Standing::Out
            } else if config.max_conns > 0 && open >= u64::from(config.max_conns) {
                Standing::Full
            } else if !server.available(limits, now) {
                Standing::Failed
            } else {
                Standing::In
            };
            let weight = config.weight * self.unit;
            let weight = if slow { server.share(limits, weight, now) } else { weight };
            seats.push(Seat { standing, backup: config.backup });
            loads.push(Load { weight, connections: open, usable: standing == Standing::In });
        }
    }

    /// The server of that index took no connection.
    pub(crate) fn failed(&self, index: usize, worker: WorkerId, error: Arc<str>, now: Instant) -> Change {
        let (Some(server), Some(limits)) = (self.servers.get(index), self.limits.get(index)) else {
            return Change::None;
        };
        if limits.max_fails > 0
            && let Some(config) = self.config.servers.get(index)
        {
            let deciding = &mut *lock(&self.deciding);
            if deciding.generation == self.generation {
                deciding.turns.failed(index, config.weight * self.unit, limits.max_fails);
            }
        }
        server.failed(worker, limits, error, now)
    }

    /// It took one.
    pub(crate) fn succeeded(&self, index: usize, now: Instant) -> Change {
        let (Some(server), Some(limits)) = (self.servers.get(index), self.limits.get(index)) else {
            return Change::None;
        };
        let change = server.succeeded(limits, now);
        if change == Change::Available {
            self.queue.call_all();
        }
        change
    }

    /// An operator has it back: its failures are forgotten, and its share grows from now on.
    pub(crate) fn enabled(&self, index: usize, now: Instant) {
        if let (Some(server), Some(limits)) = (self.servers.get(index), self.limits.get(index)) {
            server.recovered(limits, now);
            server.rise(limits, now);
            self.queue.call_all();
        }
    }

    /// After the server took the connection: records a pin where the rule says so.
    pub(crate) fn remember(&self, plan: &Plan<'_>, why: ChosenBy, server: &Server) {
        if let Some(key) = &plan.pin_key
            && route::records(self.config.pins, why)
        {
            lock(&self.pins).record(key, &server.name);
        }
    }

    /// A server by its name, or by its address as written.
    pub(crate) fn server(&self, name: &str) -> Option<(usize, &Arc<Server>)> {
        let by_address = || self.config.servers.iter().position(|server| &*server.address == name);
        let index = self.by_name.get(name).copied().or_else(by_address)?;
        Some((index, self.servers.get(index)?))
    }

    /// An operator's pin.
    pub(crate) fn pin(&self, key: &str, server: &Arc<str>) -> Result<(), PinsFull> {
        lock(&self.pins).pin(key, server)
    }

    /// The table of pins.
    pub(crate) fn pins(&self) -> MutexGuard<'_, Pins> {
        lock(&self.pins)
    }
}

/// What is said about each server's health. A server that is the only one is never unavailable: there is no other to spare
/// the devices an attempt.
fn limits(config: &UpstreamConfig) -> Vec<Limits> {
    let only = config.servers.len() == 1;
    let one = |server: &ServerConfig| {
        let limits = server.limits();
        if only { Limits { max_fails: 0, ..limits } } else { limits }
    };
    config.servers.iter().map(one).collect()
}

fn dialer(source_addresses: &[IpAddr], connect_timeout: Duration) -> Dialer {
    Dialer::new(source_addresses.to_vec(), connect_timeout)
}

/// No code that can panic runs under these locks but growth of memory; what they guard is valid then, too.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
