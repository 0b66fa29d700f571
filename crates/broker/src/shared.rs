//! What all workers of a broker see. Nothing here is touched on the way of a message except the router (read-mostly,
//! behind each worker's cache).

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use access::Verifier;
use arc_swap::ArcSwap;
use engine::{Arrival, Engine, Guarantees, Pos, Reply};
use runtime::events::Events;
use runtime::mailbox::Sender;

use crate::config::BrokerConfig;
use crate::delayed::Schedule;
use crate::exclusive::Exclusive;
use crate::handover::{Handover, MESSAGE_COST};
use crate::kept::Kept;
use crate::metrics::WorkerMetrics;
use crate::registry::{Owner, Registry};
use crate::retained::Retained;
use crate::router::{Router, SessionKey};
use crate::session_store::SessionStore;
use crate::system_topics::SystemTopics;
use crate::worker::Worker;

/// What arrives in a worker's mailbox.
pub(crate) enum Mail {
    /// What another worker has for clients and groups of this one.
    Forward(Handover),
    /// Another connection has claimed the client id of this one: let go and tell it.
    Release {
        owner: Owner,
        by: Owner,
        /// The new connection's device, for the event.
        new_peer: std::net::SocketAddr,
    },
    /// The owner before `to` has let go.
    Released { to: Owner },
    /// The password of a CONNECT was compared.
    Verified { to: Owner, right: bool },
    /// The engine's answers.
    Engine(Vec<Arrival>),
    /// A question or an order of the admin interface.
    Ask(Box<dyn FnOnce(&mut Worker) + Send>),
}

impl Mail {
    /// How much it asks of a turn, in bytes.
    pub(crate) fn work(&self) -> usize {
        match self {
            Self::Forward(batch) => batch.work(),
            Self::Engine(arrivals) => arrivals.iter().map(arrival_work).sum(),
            _ => MESSAGE_COST,
        }
    }
}

fn arrival_work(arrival: &Arrival) -> usize {
    let (Arrival::Frames { frames, .. } | Arrival::Done { result: Ok(Reply::Frames(frames)), .. }) = arrival
    else {
        return MESSAGE_COST;
    };
    frames.iter().map(|frame| frame.bytes.len().max(MESSAGE_COST)).sum::<usize>().max(MESSAGE_COST)
}

/// 2025-01-01 in Unix milliseconds: counts of keys fit 52 bits for 69 years from there.
const KEY_EPOCH: u64 = 1_735_689_600_000;
/// Two million sessions a second, as a power of two for each millisecond, before keys of the next process could be too low.
const KEYS_A_MS: u32 = 11;

static INSTANCES: AtomicU64 = AtomicU64::new(0);

/// See the module.
pub(crate) struct Shared {
    pub(crate) node: Arc<str>,
    pub(crate) config: ArcSwap<BrokerConfig>,
    pub(crate) engine: Arc<dyn Engine>,
    pub(crate) guarantees: Guarantees,
    pub(crate) events: Events,
    pub(crate) verifier: Verifier,
    pub(crate) router: Router,
    pub(crate) registry: Registry,
    pub(crate) store: SessionStore,
    pub(crate) exclusive: Exclusive,
    pub(crate) delayed: Schedule,
    pub(crate) system: SystemTopics,
    /// Bytes of the payloads of all retained messages.
    pub(crate) retained_bytes: AtomicU64,
    /// The replica of the register's retained records that a watch keeps up to date: one for all workers, of the same bytes.
    pub(crate) retained: RwLock<Retained<Kept>>,
    pub(crate) mailboxes: Vec<Sender<Mail>>,
    pub(crate) metrics: Vec<Arc<WorkerMetrics>>,
    /// For each worker and shard (`worker * shards + shard`) the position from which its sessions need the log.
    pub(crate) floors: Vec<AtomicU64>,
    /// Which broker of this process: tests run several.
    pub(crate) instance: u64,
    /// Unix milliseconds at start.
    pub(crate) started_at: u64,
    next_key: AtomicU64,
    next_dedupe: AtomicU64,
}

impl Shared {
    #[allow(clippy::too_many_arguments)] // wired in one place
    pub(crate) fn new(
        node: Arc<str>,
        config: BrokerConfig,
        engine: Arc<dyn Engine>,
        events: Events,
        verifier: Verifier,
        mailboxes: Vec<Sender<Mail>>,
        started_at: u64,
    ) -> Self {
        let guarantees = engine.guarantees();
        let workers = mailboxes.len();
        Self {
            node,
            config: ArcSwap::from_pointee(config),
            engine,
            events,
            verifier,
            router: Router::new(),
            registry: Registry::new(),
            store: SessionStore::new(),
            exclusive: Exclusive::default(),
            delayed: Schedule::new((started_at << 20) | 1),
            system: SystemTopics::new(started_at),
            retained_bytes: AtomicU64::new(0),
            retained: RwLock::new(Retained::new()),
            metrics: (0..workers).map(|_| Arc::default()).collect(),
            floors: (0..workers * usize::from(guarantees.shards)).map(|_| AtomicU64::new(u64::MAX)).collect(),
            guarantees,
            mailboxes,
            instance: INSTANCES.fetch_add(1, Ordering::Relaxed),
            started_at,
            // keys of an earlier process may still lie in the log: begin above them
            next_key: AtomicU64::new((started_at.saturating_sub(KEY_EPOCH) << KEYS_A_MS) | 1),
            next_dedupe: AtomicU64::new(0),
        }
    }

    /// A key no session had before.
    pub(crate) fn new_key(&self, client_id: &str) -> SessionKey {
        SessionKey::new(self.next_key.fetch_add(1, Ordering::Relaxed), client_id)
    }

    /// An id no append had before, also not one of an earlier process.
    pub(crate) fn new_dedupe(&self) -> u128 {
        let count = self.next_dedupe.fetch_add(1, Ordering::Relaxed);
        (u128::from(self.engine.node().0) << 112) ^ (u128::from(self.started_at) << 64) | u128::from(count)
    }

    pub(crate) fn retained_bytes(&self) -> u64 {
        self.retained_bytes.load(Ordering::Relaxed)
    }

    pub(crate) fn retained_len(&self) -> usize {
        self.retained.read().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// The position before which no session needs the log of `shard`.
    pub(crate) fn log_floor(&self, shard: usize) -> Pos {
        let shards = usize::from(self.guarantees.shards);
        let online =
            || self.floors.iter().skip(shard).step_by(shards).map(|f| f.load(Ordering::Acquire)).min();
        // a session that comes or goes meanwhile is seen on the one side or on the other
        let before = online().unwrap_or(u64::MAX);
        let offline = self.store.floor(shard).0;
        Pos(before.min(offline).min(online().unwrap_or(u64::MAX)))
    }
}
