//! Upstreams and their servers while the process runs: state, counters, connecting.
//!
//! What a reload keeps is kept as the same object: a [`Server`] (by name and address) with its counters and its
//! state, and an upstream's [`Pins`]. What it removes goes on being visible while it has connections. The decision
//! itself is [`crate::route`]'s; here are the locks around it, each held for one decision and never across an
//! await. Must not know: clients' sockets, MQTT.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;
use std::{fmt, io};

use net::dialer::Dialer;
use runtime::metrics::PerWorker;
use runtime::workers::WorkerId;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::timeout;

use crate::accept::Seldom;
use crate::balance::{Hash, Load, RoundRobin};
use crate::config::{ServerConfig, UpstreamConfig};
use crate::metrics::ServerStats;
use crate::route::{self, By, ChosenBy, Plan, View};
use crate::sticky::{Pins, PinsFull};

/// How long what a name resolved to is used.
const NAME_LIFETIME: Duration = Duration::from_secs(10);
/// How long after a failed lookup the next one comes.
const NAME_RETRY: Duration = Duration::from_secs(1);
/// Addresses of a name that are tried for a connection.
const MAX_ADDRESSES: usize = 4;

/// Whether a server takes new connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum State {
    /// It does.
    Up,
    /// An operator drains it: those it has stay.
    Draining,
    /// The configuration has it no more: it drains for good.
    Removed,
}

impl State {
    /// As the API says it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Draining | Self::Removed => "draining",
        }
    }
}

/// A server with what is known of it.
pub(crate) struct Server {
    pub(crate) upstream: Arc<str>,
    pub(crate) name: Arc<str>,
    pub(crate) address: Arc<str>,
    pub(crate) stats: PerWorker<ServerStats>,
    state: AtomicU8,
    last_error: Mutex<Option<Arc<str>>>,
    /// Failures are all counted and seldom reported.
    pub(crate) reports: Seldom,
    resolved: Resolved,
}

/// What the address stands for.
enum Resolved {
    Address(SocketAddr),
    /// The latest answer for a name; `None` until the first.
    Name(watch::Sender<Option<Answer>>),
}

type Answer = Result<Arc<[SocketAddr]>, Arc<str>>;

impl Server {
    fn new(upstream: &Arc<str>, config: &ServerConfig, workers: usize) -> Self {
        let resolved = match config.address.parse() {
            Ok(address) => Resolved::Address(address),
            Err(_) => Resolved::Name(watch::Sender::new(None)),
        };
        Self {
            upstream: Arc::clone(upstream),
            name: Arc::clone(&config.name),
            address: Arc::clone(&config.address),
            stats: PerWorker::new(workers, ServerStats::default),
            state: AtomicU8::new(State::Up as u8),
            last_error: Mutex::default(),
            reports: Seldom::default(),
            resolved,
        }
    }

    pub(crate) fn state(&self) -> State {
        match self.state.load(Ordering::Relaxed) {
            0 => State::Up,
            1 => State::Draining,
            _ => State::Removed,
        }
    }

    /// Changes the state; gives back the one before.
    pub(crate) fn set_state(&self, state: State) -> State {
        let before = self.state();
        self.state.store(state as u8, Ordering::Relaxed);
        before
    }

    /// Connections now, those being made included.
    pub(crate) fn open(&self) -> u64 {
        u64::try_from(self.stats.sum_gauge(|stats| &stats.open)).unwrap_or(0)
    }

    pub(crate) fn last_error(&self) -> Option<Arc<str>> {
        lock(&self.last_error).clone()
    }

    pub(crate) fn failed(&self, worker: WorkerId, error: Arc<str>) {
        if let Some(stats) = self.stats.get(worker) {
            stats.fails.inc();
        }
        *lock(&self.last_error) = Some(error);
    }

    /// It took a connection and closed it without a byte: not a failure by itself, since a client can bring that about, but what
    /// an operator looks for when nobody gets through.
    pub(crate) fn mute(&self) -> Arc<str> {
        let text: Arc<str> =
            "it closed a connection without a byte; does it expect MQTT here, and the PROXY header \
                              that proxy_protocol says?"
                .into();
        *lock(&self.last_error) = Some(Arc::clone(&text));
        text
    }

    /// Whether the name must be looked up again and again, by [`keep_resolving`].
    pub(crate) const fn has_name(&self) -> bool {
        matches!(self.resolved, Resolved::Name(_))
    }

    /// Connects within `time`, to the next address of its name where one does not answer in its share of it.
    ///
    /// # Errors
    /// The last address's error, or that of the name; [`io::ErrorKind::TimedOut`].
    pub(crate) async fn connect(&self, dialer: &Dialer, time: Duration, first: &[u8]) -> io::Result<Reached> {
        match &self.resolved {
            // The dialer has the same bound: one timer is enough.
            Resolved::Address(address) => {
                let (stream, sent) = dialer.connect_sending(*address, first).await?;
                Ok(Reached { stream, address: *address, sent })
            }
            Resolved::Name(answers) => {
                // boxed: most servers have an address, and every connection on its way would carry this future
                timeout(time, Box::pin(connect_by_name(answers, dialer, time, first)))
                    .await
                    .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
            }
        }
    }
}

/// A connection to a server.
pub(crate) struct Reached {
    pub(crate) stream: TcpStream,
    pub(crate) address: SocketAddr,
    /// How many of the first bytes it has been sent.
    pub(crate) sent: usize,
}

async fn connect_by_name(
    answers: &watch::Sender<Option<Answer>>,
    dialer: &Dialer,
    time: Duration,
    first: &[u8],
) -> io::Result<Reached> {
    let addresses = latest(answers).await?;
    let tried = addresses.len().clamp(1, MAX_ADDRESSES);
    let share = time / u32::try_from(tried).unwrap_or(1);
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in addresses.iter().take(tried) {
        match timeout(share, dialer.connect_sending(*address, first)).await {
            Ok(Ok((stream, sent))) => return Ok(Reached { stream, address: *address, sent }),
            Ok(Err(error)) => last = error,
            Err(_) => last = io::ErrorKind::TimedOut.into(),
        }
    }
    Err(last)
}

/// The latest answer for a name; waits for the first.
async fn latest(answers: &watch::Sender<Option<Answer>>) -> io::Result<Arc<[SocketAddr]>> {
    let mut seen = answers.subscribe();
    // It fails only when the sender is gone, and the caller holds it.
    let answer = seen.wait_for(Option::is_some).await.map_err(io::Error::other)?.clone();
    answer.unwrap_or_else(|| Err("no answer yet".into())).map_err(|error| io::Error::other(&*error))
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server")
            .field("name", &self.name)
            .field("address", &self.address)
            .field("state", &self.state())
            .finish_non_exhaustive()
    }
}

/// Looks a server's name up again and again for as long as somebody has the server. One lookup at a time, however
/// many devices come; an answer stays in use when a later lookup fails.
pub(crate) async fn keep_resolving(server: Weak<Server>) {
    loop {
        let Some(address) = server.upgrade().map(|server| Arc::clone(&server.address)) else { return };
        let answer = match net::dialer::resolve(&address).await {
            Ok(addresses) if addresses.is_empty() => Err("the name has no address".into()),
            Ok(addresses) => Ok(Arc::from(addresses)),
            Err(error) => Err(format!("the name can't be resolved: {error}").into()),
        };
        let pause = if answer.is_ok() { NAME_LIFETIME } else { NAME_RETRY };
        let Some(server) = server.upgrade() else { return };
        if let Resolved::Name(answers) = &server.resolved {
            answers.send_if_modified(|current| {
                let better = answer.is_ok() || !matches!(current, Some(Ok(_)));
                if better {
                    *current = Some(answer);
                }
                better
            });
        }
        drop(server);
        tokio::time::sleep(pause).await;
    }
}

/// A connection's place at a server, counted from the choice to the end.
pub(crate) struct Slot {
    pub(crate) server: Arc<Server>,
    worker: WorkerId,
}

impl Slot {
    fn take(server: &Arc<Server>, worker: WorkerId) -> Self {
        if let Some(stats) = server.stats.get(worker) {
            stats.open.inc();
        }
        Self { server: Arc::clone(server), worker }
    }

    /// What this worker counts for the server.
    pub(crate) fn stats(&self) -> Option<&ServerStats> {
        self.server.stats.get(self.worker)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if let Some(stats) = self.stats() {
            stats.open.dec();
        }
    }
}

/// An upstream as one configuration has it.
pub(crate) struct Upstream {
    pub(crate) config: UpstreamConfig,
    /// In the order of the configuration.
    pub(crate) servers: Vec<Arc<Server>>,
    by_name: HashMap<Arc<str>, usize>,
    hash: Hash,
    turns: Mutex<RoundRobin>,
    pins: Arc<Mutex<Pins>>,
    pub(crate) dialer: Dialer,
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
        let servers: Vec<_> = config
            .servers
            .iter()
            .map(|server| {
                keep(server).unwrap_or_else(|| Arc::new(Server::new(&config.name, server, workers)))
            })
            .collect();
        let by_name =
            config.servers.iter().enumerate().map(|(index, server)| (Arc::clone(&server.name), index));
        let by_name: HashMap<_, _> = by_name.collect();
        let pins = before.map_or_else(
            || Arc::new(Mutex::new(Pins::new(config.max_pins))),
            |upstream| Arc::clone(&upstream.pins),
        );
        Self {
            hash: Hash::new(config.hash, config.servers.iter().map(|server| (&*server.name, server.weight))),
            turns: Mutex::default(),
            dialer: dialer(&config.source_addresses, config.connect_timeout),
            config: config.clone(),
            servers,
            by_name,
            pins,
        }
    }

    /// Takes effect: from now on this one's servers and bound hold for the pins, and its servers are up that were
    /// leaving.
    pub(crate) fn enter(&self) {
        lock(&self.pins).reconfigure(self.config.max_pins, |name| self.by_name.contains_key(name));
        for server in self.servers.iter().filter(|server| server.state() == State::Removed) {
            server.set_state(State::Up);
        }
    }

    /// Chooses a server that is not in `tried`, and takes a place there.
    pub(crate) fn choose(
        &self,
        plan: &Plan<'_>,
        tried: &[usize],
        draws: [u64; 2],
        worker: WorkerId,
    ) -> Option<(usize, ChosenBy, Slot)> {
        // Counting is a sum over workers: only for those who look at it.
        let counts = matches!(plan.by, By::LeastConnections | By::RandomTwo);
        let load = |(index, (server, config)): (usize, (&Arc<Server>, &ServerConfig))| Load {
            weight: config.weight,
            connections: if counts { server.open() } else { 0 },
            usable: server.state() == State::Up && !tried.contains(&index),
        };
        let loads: Vec<_> = self.servers.iter().zip(&self.config.servers).enumerate().map(load).collect();
        let view = View {
            hash: &self.hash,
            loads: &loads,
            index_of: &|name| self.by_name.get(name).copied(),
            pins: &mut lock(&self.pins),
            round_robin: &mut lock(&self.turns),
            draws,
            failed_over: !tried.is_empty(),
        };
        let (index, why) = route::choose(plan, view)?;
        let server = self.servers.get(index)?;
        Some((index, why, Slot::take(server, worker)))
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

fn dialer(source_addresses: &[IpAddr], connect_timeout: Duration) -> Dialer {
    Dialer::new(source_addresses.to_vec(), connect_timeout)
}

/// No code that can panic runs under these locks but growth of memory; what they guard is valid then, too.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
