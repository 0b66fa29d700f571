//! The load balancer in front of MQTT brokers: preread, balance, relay.
//!
//! It reads the names in a device's CONNECT before it chooses a server, so that the same device reaches the same
//! broker from any address; after that it moves bytes. Decisions are pure functions in files of their own; the code
//! that awaits sits beside them.
//!
//! * [`config`]: the `[gateway]` section.
//! * [`access`], [`preread`], [`route`], [`balance`], [`sticky`], [`health`]: who it is, where it goes. Pure.
//! * `accept`, `limits`, `upstream`, `server`, `queue`, `splice`: the journey of a connection, on the worker that
//!   accepted it.
//! * [`import`]: the configurations of other balancers, as TOML. Pure.
//! * `session_log`, `session_file`, [`metrics`], `admin`: what is known of it, for people and machines.
//!
//! Must not know: brokers, HTTP, other roles. A gateway meets a broker on the wire only.

pub mod access;
pub mod balance;
pub mod config;
pub mod error;
pub mod health;
pub mod import;
pub mod metrics;
pub mod preread;
pub mod route;
pub mod sticky;

mod accept;
mod admin;
mod apply;
mod limits;
mod queue;
mod server;
mod session_file;
mod session_log;
mod splice;
mod upstream;
mod worker;
mod young;

use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use runtime::clock::Clock;
use runtime::events::Events;
use runtime::lifecycle::{Readiness, Shutdown};
use runtime::mailbox::{self, Sender};
use runtime::metrics::{Collect, Exposition, Registry};
use runtime::workers::Workers;
use tokio::sync::oneshot;

use crate::apply::Applied;
use crate::config::GatewayConfig;
use crate::error::StartError;
use crate::server::State;
use crate::session_log::Log;
use crate::worker::{Command, Worker};

/// Commands that may wait at a worker. They come from operators; questions beyond it wait all the same, since each
/// has an asker whose interface has a bound of its own.
const COMMANDS: usize = 1_024;
/// How long a stop waits for cut connections to be written down.
const CUT_WAIT: Duration = Duration::from_secs(2);

/// What a gateway needs of the process it runs in.
#[derive(Clone, Debug)]
pub struct Context {
    /// Where connections live.
    pub workers: Workers,
    /// The time.
    pub clock: Clock,
    /// Where to tell what happened.
    pub events: Events,
    /// Where to show numbers.
    pub registry: Registry,
    /// Where to say that the listeners are bound.
    pub readiness: Readiness,
    /// When it is requested the gateway accepts no more; what it has stays until [`Gateway::stop`].
    pub shutdown: Shutdown,
}

/// A running gateway. Cheap to clone; accepting ends with the last clone.
#[derive(Clone)]
pub struct Gateway(Arc<Inner>);

struct Inner {
    context: Context,
    /// One for each worker, in their order.
    agents: Vec<Sender<Command>>,
    applied: Mutex<Applied>,
    log: Log,
}

impl fmt::Debug for Gateway {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gateway").field("local_addrs", &self.local_addrs()).finish_non_exhaustive()
    }
}

impl Gateway {
    /// Binds all listeners and serves on every worker.
    ///
    /// # Errors
    /// When an address can't be listened on; nothing is left behind then.
    pub fn start(config: GatewayConfig, context: Context) -> Result<Self, StartError> {
        let boot = context.clock.unix_millis();
        let seed = fastrand::u64(..);
        tracing::debug!(seed, "random_two draws from this seed");
        let mut agents = Vec::new();
        let log = Log::new(context.clock.clone());
        for id in context.workers.ids() {
            let (sender, commands) = mailbox::mailbox(COMMANDS);
            let (clock, events, log) = (context.clock.clone(), context.events.clone(), log.clone());
            let shutdown = context.shutdown.clone();
            let seed = seed.wrapping_add(u64::from(id.0));
            context.workers.spawn(id, move || async move {
                match Worker::new(id, clock, events, log, shutdown.clone(), boot, seed) {
                    Ok(worker) => worker.run(commands).await,
                    Err(error) => {
                        tracing::error!(%error, "a worker can't serve the gateway, the process stops");
                        shutdown.begin("a worker can't serve the gateway");
                    }
                }
            });
            agents.push(sender);
        }
        let gateway = Self(Arc::new(Inner { context, agents, applied: Mutex::default(), log }));
        gateway.apply(config)?;
        let inner = Arc::downgrade(&gateway.0);
        gateway.0.context.registry.register(Arc::new(Numbers(inner.clone())));
        gateway.stop_accepting_on_shutdown(inner);
        Ok(gateway)
    }

    /// The listeners' addresses: as configured, and as bound (they differ where the port is 0).
    pub fn local_addrs(&self) -> Vec<(SocketAddr, SocketAddr)> {
        self.0.applied().listeners.iter().map(|listener| (listener.bind, listener.local)).collect()
    }

    /// Accepts no more, waits until `deadline` for the connections to end by themselves, then ends them. Gives back
    /// how many had to be ended.
    ///
    /// Devices stay connected for as long as they can: where they are not told to go, the deadline is what ends the
    /// wait.
    pub async fn stop(&self, deadline: Instant) -> usize {
        let empty = self.0.stop_accepting();
        let all_gone = |empty: Vec<oneshot::Receiver<()>>| async {
            for worker in empty {
                // A worker that is gone has no connections.
                let _ = worker.await;
            }
        };
        if tokio::time::timeout_at(deadline.into(), all_gone(empty)).await.is_ok() {
            self.flush_log().await;
            return 0;
        }
        let mut counts = Vec::new();
        for agent in &self.0.agents {
            let (sender, receiver) = oneshot::channel();
            let _ = agent.force(Command::Abort { done: sender });
            counts.push(receiver);
        }
        let mut cut = 0;
        for count in counts {
            cut += count.await.unwrap_or(0);
        }
        let empty = self.0.stop_accepting();
        let _ = tokio::time::timeout(CUT_WAIT, all_gone(empty)).await;
        self.flush_log().await;
        cut
    }

    /// The last lines reach their file.
    async fn flush_log(&self) {
        let log = self.0.log.clone();
        // A task that ends with a panic has no lines to write.
        let _ = tokio::task::spawn_blocking(move || log.flush(CUT_WAIT)).await;
    }

    fn stop_accepting_on_shutdown(&self, inner: Weak<Inner>) {
        let shutdown = self.0.context.shutdown.clone();
        let Some(first) = self.0.context.workers.ids().next() else { return };
        self.0.context.workers.spawn(first, move || async move {
            shutdown.wait().await;
            if let Some(inner) = inner.upgrade() {
                // Not under the lock: a reload may hold it, and wait for this very worker.
                inner.tell_all_to_stop();
            }
        });
    }
}

impl Inner {
    fn applied(&self) -> MutexGuard<'_, Applied> {
        // What panics under this lock leaves a state that is whole: it is changed by assignment at the end.
        self.applied.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells every worker to accept no more; each says when it has no connections left.
    fn stop_accepting(&self) -> Vec<oneshot::Receiver<()>> {
        self.applied().stop(&self.context);
        self.tell_all_to_stop()
    }

    fn tell_all_to_stop(&self) -> Vec<oneshot::Receiver<()>> {
        let tell = |agent: &Sender<Command>| {
            let (sender, receiver) = oneshot::channel();
            // A worker that is gone drops the sender: that is an answer, too.
            let _ = agent.force(Command::Stop { empty: sender });
            receiver
        };
        self.agents.iter().map(tell).collect()
    }
}

/// The gateway's numbers, for as long as it lives.
struct Numbers(Weak<Inner>);

impl Collect for Numbers {
    fn collect(&self, out: &mut Exposition) {
        let Some(inner) = self.0.upgrade() else { return };
        let applied = inner.applied();
        for listener in &applied.listeners {
            metrics::listener(out, &listener.name, &listener.stats, listener.open());
        }
        let now = inner.context.clock.now();
        for (server, config) in applied.all_servers() {
            let (unavailable, times, downtime) = server.health(now);
            let up = server.state() == State::Up && !unavailable && config.is_some_and(|config| !config.down);
            let state = metrics::ServerState { up, unavailable: times, downtime };
            metrics::server(out, &[&server.upstream, &server.name], &server.stats, &state);
        }
        metrics::session_log(out, inner.log.lost.load(Ordering::Relaxed));
        for upstream in &applied.upstreams {
            let queue = &upstream.queue;
            metrics::queue(out, &upstream.config.name, queue.waiting(), queue.total());
            metrics::pins(out, &upstream.config.name, upstream.pins().len());
        }
    }
}
