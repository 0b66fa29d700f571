//! A server while the process runs: its state, its health, its counters, connecting to it.
//!
//! Its counters and its health outlive a reload that keeps it. What a connection of a well server touches is written by its
//! own worker only: the health is asked for only where [`Server::available`] finds that something ails it.
//! Must not know: how a server is chosen, clients' sockets, MQTT.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};
use std::{fmt, io};

use net::dialer::Dialer;
use net::reactor::{Reactor, Stream};
use runtime::metrics::PerWorker;
use runtime::workers::WorkerId;
use tokio::sync::watch;
use tokio::time::timeout;

use crate::config::ServerConfig;
use crate::health::{Change, Health, Limits};
use crate::limits::Seldom;
use crate::metrics::ServerStats;
use crate::queue::Queue;

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
    /// Who waits for a place at it, or at another server of its upstream.
    pub(crate) queue: Arc<Queue>,
    state: AtomicU8,
    /// Whether somebody may wait for a place at it: it has a limit.
    limited: AtomicBool,
    health: Mutex<Health>,
    /// Whether the health has something to say.
    ails: AtomicBool,
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
    pub(crate) fn new(
        upstream: &Arc<str>,
        config: &ServerConfig,
        workers: usize,
        queue: &Arc<Queue>,
    ) -> Self {
        let resolved = match config.address.parse() {
            Ok(address) => Resolved::Address(address),
            Err(_) => Resolved::Name(watch::Sender::new(None)),
        };
        Self {
            upstream: Arc::clone(upstream),
            name: Arc::clone(&config.name),
            address: Arc::clone(&config.address),
            stats: PerWorker::new(workers, ServerStats::default),
            queue: Arc::clone(queue),
            state: AtomicU8::new(State::Up as u8),
            limited: AtomicBool::new(false),
            health: Mutex::default(),
            ails: AtomicBool::new(false),
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

    /// Whether somebody may wait for a place at it.
    pub(crate) fn set_limited(&self, limited: bool) {
        self.limited.store(limited, Ordering::Relaxed);
    }

    fn examine<T>(&self, look: impl FnOnce(&mut Health) -> T) -> T {
        let mut health = lock(&self.health);
        let outcome = look(&mut health);
        self.ails.store(health.ails(), Ordering::Relaxed);
        outcome
    }

    fn ails(&self) -> bool {
        self.ails.load(Ordering::Relaxed)
    }

    /// Whether a connection may go there, as far as its health is concerned.
    pub(crate) fn available(&self, limits: &Limits, now: Instant) -> bool {
        !self.ails() || self.examine(|health| health.available(limits, now))
    }

    /// Its share of a weight now.
    pub(crate) fn share(&self, limits: &Limits, weight: u32, now: Instant) -> u32 {
        if self.ails() { self.examine(|health| health.share(limits, weight, now)) } else { weight }
    }

    /// A connection goes there.
    pub(crate) fn chosen(&self, limits: &Limits, now: Instant) {
        if !self.ails() {
            return;
        }
        self.examine(|health| match health.available(limits, now) {
            true => health.chosen(limits, now),
            false => health.chosen_as_last_resort(now),
        });
    }

    /// It may be tried by one connection, whatever time is left of its pause.
    pub(crate) fn pause_ends(&self) {
        if self.ails() {
            self.examine(Health::pause_ends);
        }
    }

    /// A connection could not be made.
    pub(crate) fn failed(&self, worker: WorkerId, limits: &Limits, error: Arc<str>, now: Instant) -> Change {
        if let Some(stats) = self.stats.get(worker) {
            stats.fails.inc();
        }
        *lock(&self.last_error) = Some(error);
        self.examine(|health| health.failed(limits, now))
    }

    /// A connection was made.
    pub(crate) fn succeeded(&self, limits: &Limits, now: Instant) -> Change {
        if self.ails() { self.examine(|health| health.succeeded(limits, now)) } else { Change::None }
    }

    /// It is well, whatever became of the connections to it.
    pub(crate) fn recovered(&self, limits: &Limits, now: Instant) -> Change {
        if self.ails() { self.examine(|health| health.recovered(limits, now)) } else { Change::None }
    }

    /// Its share begins to grow now, where it has a slow start.
    pub(crate) fn rise(&self, limits: &Limits, now: Instant) {
        self.examine(|health| health.rise(limits, now));
    }

    /// Whether it is unavailable, how often it became so, and for how long it was.
    pub(crate) fn health(&self, now: Instant) -> (bool, u64, Duration) {
        let health = lock(&self.health);
        let (times, downtime) = health.history(now);
        (health.is_unavailable(), times, downtime)
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
    pub(crate) async fn connect(
        &self,
        reactor: &Reactor,
        dialer: &Dialer,
        time: Duration,
        first: &[u8],
    ) -> io::Result<Reached> {
        match &self.resolved {
            // The dialer bounds each of its source addresses by this time, and there is no name to wait for: no timer here.
            Resolved::Address(address) => {
                let (stream, sent) = dialer.connect_in(reactor, *address, first).await?;
                Ok(Reached { stream, address: *address, sent })
            }
            Resolved::Name(answers) => {
                // boxed: most servers have an address, and every connection on its way would carry this future
                timeout(time, Box::pin(connect_by_name(answers, reactor, dialer, time, first)))
                    .await
                    .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
            }
        }
    }
}

/// A connection to a server.
pub(crate) struct Reached {
    pub(crate) stream: Stream,
    pub(crate) address: SocketAddr,
    /// How many of the first bytes it has been sent.
    pub(crate) sent: usize,
}

async fn connect_by_name(
    answers: &watch::Sender<Option<Answer>>,
    reactor: &Reactor,
    dialer: &Dialer,
    time: Duration,
    first: &[u8],
) -> io::Result<Reached> {
    let addresses = latest(answers).await?;
    let tried = addresses.len().clamp(1, MAX_ADDRESSES);
    let share = time / u32::try_from(tried).unwrap_or(1);
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in addresses.iter().take(tried) {
        match timeout(share, dialer.connect_in(reactor, *address, first)).await {
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
    pub(crate) fn take(server: &Arc<Server>, worker: WorkerId) -> Self {
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
        if self.server.limited.load(Ordering::Relaxed) {
            self.server.queue.call();
        }
    }
}

/// No code that can panic runs under these locks but growth of memory; what they guard is valid then, too.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
