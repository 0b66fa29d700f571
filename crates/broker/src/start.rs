//! Starting, reloading and stopping a broker: its listeners and its workers.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use access::Verifier;
use arc_swap::ArcSwap;
use engine::{Arrival, Engine, EngineError, Inbox, Shard};
use net::listener::{ListenError, bind_group};
use runtime::clock::Clock;
use runtime::events::{Event, Events};
use runtime::lifecycle::{Readiness, Shutdown};
use runtime::mailbox::{Sender, mailbox};
use runtime::metrics::Registry as Metrics;
use runtime::workers::{WorkerId, Workers};
use tokio::sync::oneshot;

use crate::config::{AccessConfig, BrokerConfig, ListenerConfig};
use crate::driver::{Local, Rules, Serving, listen, now};
use crate::metrics::BrokerCollector;
use crate::recovery;
use crate::shared::{Mail, Shared};
use crate::worker::Worker;

/// What a broker stands on.
#[derive(Clone)]
pub struct Context {
    /// The node's name.
    pub node: Arc<str>,
    /// The process' workers.
    pub workers: Workers,
    /// Time.
    pub clock: Clock,
    /// Where events go.
    pub events: Events,
    /// Where metrics are registered.
    pub metrics: Metrics,
    /// Gets a condition for each listener.
    pub readiness: Readiness,
    /// What remembers.
    pub engine: Arc<dyn Engine>,
}

/// Why a broker does not start or a configuration is not taken.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A listener cannot be bound.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The engine does not answer.
    #[error("the engine could not be read at start: {0}")]
    Engine(#[from] EngineError),
    /// The threads that compare passwords cannot be started.
    #[error("the threads for passwords could not be started: {0}")]
    Threads(#[source] std::io::Error),
    /// The workers have ended.
    #[error("the workers have stopped")]
    Stopped,
}

/// A running broker; a handle that can be cloned.
#[derive(Clone)]
pub struct Broker(pub(crate) Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) shared: Arc<Shared>,
    context: Context,
    listeners: Mutex<BTreeMap<SocketAddr, Bound>>,
}

struct Bound {
    addr: SocketAddr,
    serving: Serving,
}

/// The engine's answers go into the worker's mailbox.
struct WorkerInbox(Sender<Mail>);

impl Inbox for WorkerInbox {
    fn deliver(&self, batch: Vec<Arrival>) {
        // bounded by what the worker submitted and by the engine's pieces; refused only when the worker has ended
        let _ = self.0.force(Mail::Engine(batch));
    }
}

thread_local! {
    /// The broker's part of this worker thread, for listeners that are added later.
    static LOCAL: std::cell::RefCell<Vec<(u64, Rc<Local>)>> = const { std::cell::RefCell::new(Vec::new()) };
}

impl Broker {
    /// Binds every listener, reads what the engine remembers, starts the workers. Blocks until all of it is done.
    ///
    /// # Errors
    /// A listener cannot be bound, or the engine does not answer.
    pub fn start(config: BrokerConfig, context: Context) -> Result<Self, StartError> {
        let mut groups = Vec::new();
        for listener in &config.listeners {
            groups.push((listener.clone(), bind_group(listener.bind, context.workers.len())?));
        }
        let started_at = context.clock.unix_millis();
        // every kind of mail has a bound of its own where it is sent
        let (senders, receivers): (Vec<_>, Vec<_>) =
            (0..context.workers.len()).map(|_| mailbox::<Mail>(usize::MAX)).unzip();
        let verifier =
            Verifier::start(context.clock.clone(), config.access.limits()).map_err(StartError::Threads)?;
        let shared = Arc::new(Shared::new(
            Arc::clone(&context.node),
            config,
            Arc::clone(&context.engine),
            context.events.clone(),
            verifier,
            senders.clone(),
            started_at,
        ));
        let recovered = recovery::recover(&shared, started_at)?;
        context.metrics.register(Arc::new(BrokerCollector(Arc::clone(&shared))));
        let ids: Vec<WorkerId> = context.workers.ids().collect();
        for ((worker, sender), receiver) in ids.into_iter().zip(senders).zip(receivers) {
            let port = context.engine.attach(Arc::new(WorkerInbox(sender)));
            for (shard, &tail) in recovered.tails.iter().enumerate() {
                let shard = Shard(u16::try_from(shard).unwrap_or(u16::MAX));
                context.engine.tail(port, shard, tail);
            }
            let (shared, tails, clock) =
                (Arc::clone(&shared), recovered.tails.clone(), context.clock.clone());
            let groups = recovered.groups.clone();
            context.workers.spawn(worker, move || async move {
                let mut worker = Worker::new(worker.0, shared, port, tails, now(&clock));
                worker.adopt_groups(&groups);
                start_worker(worker, clock, receiver);
            });
        }
        let broker = Self(Arc::new(Inner { shared, context, listeners: Mutex::new(BTreeMap::new()) }));
        for (client_id, message) in recovered.wills {
            let mail = Mail::Ask(Box::new(move |worker: &mut Worker| {
                worker.publish_owed_will(client_id, &message);
            }));
            // bounded by the wills that were stored
            let _ = broker.0.shared.mailboxes[0].force(mail);
        }
        for (listener, sockets) in groups {
            broker.serve(&listener, sockets);
        }
        broker.tell_closed_doors();
        Ok(broker)
    }

    fn serve(&self, config: &ListenerConfig, sockets: Vec<std::net::TcpListener>) {
        let Some(addr) = sockets.first().and_then(|s| s.local_addr().ok()) else { return };
        let rules = Rules::new(config.clone(), addr);
        let name = Arc::clone(&rules.door.name);
        let serving = Serving {
            rules: Arc::new(ArcSwap::from_pointee(rules)),
            connections: Arc::new(AtomicUsize::new(0)),
            bucket: Arc::default(),
            since: self.0.context.clock.now(),
            stop: Shutdown::new(),
        };
        let ids: Vec<WorkerId> = self.0.context.workers.ids().collect();
        let key = self.0.shared.instance;
        for (worker, socket) in ids.into_iter().zip(sockets) {
            let serving = serving.clone();
            self.0.context.workers.spawn(worker, move || async move {
                let local = LOCAL
                    .with_borrow(|l| l.iter().find(|(k, _)| *k == key).map(|(_, local)| Rc::clone(local)));
                if let Some(local) = local {
                    listen(local, socket, serving).await;
                }
            });
        }
        self.0.context.readiness.set(&format!("listener {name}"), true);
        self.0.context.events.emit(Event::ListenerStarted { listener: name, bind: addr });
        self.listeners().insert(config.bind, Bound { addr, serving });
    }

    /// Warns of listeners that let nobody in: beyond loopback that is so where nothing is said.
    fn tell_closed_doors(&self) {
        if let Some(closed) = self.0.shared.config.load().closed_doors() {
            tracing::warn!("{closed}");
        }
    }

    fn listeners(&self) -> std::sync::MutexGuard<'_, BTreeMap<SocketAddr, Bound>> {
        self.0.listeners.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The addresses it listens on, with the ports that were really taken.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.listeners().values().map(|b| b.addr).collect()
    }

    /// Takes a new configuration: new listeners are bound before anything changes; established connections stay; a
    /// listener that is gone stops accepting. What was changed, one sentence each.
    ///
    /// # Errors
    /// A new listener cannot be bound; nothing has changed then.
    pub fn apply(&self, config: &BrokerConfig) -> Result<Vec<String>, StartError> {
        let mut added = Vec::new();
        let mut changed = Vec::new();
        {
            let listeners = self.listeners();
            for listener in &config.listeners {
                match listeners.get(&listener.bind) {
                    None => {
                        let sockets = bind_group(listener.bind, self.0.context.workers.len())?;
                        added.push((listener.clone(), sockets));
                    }
                    Some(bound) if bound.serving.rules.load().config != *listener => {
                        changed.push(listener.clone());
                    }
                    Some(_) => {}
                }
            }
        }
        let mut changes = Vec::new();
        for (listener, sockets) in added {
            changes.push(format!("broker listener {} is added", listener.bind));
            self.serve(&listener, sockets);
        }
        let mut listeners = self.listeners();
        for listener in changed {
            changes.push(format!("broker listener {} has new settings", listener.bind));
            if let Some(bound) = listeners.get(&listener.bind) {
                let rules = Rules::new(listener, bound.addr);
                let (old, new) = (bound.serving.name(), Arc::clone(&rules.door.name));
                bound.serving.rules.store(Arc::new(rules));
                if old != new {
                    self.rename(old, new, bound.addr);
                }
            }
        }
        let gone: Vec<SocketAddr> = listeners
            .keys()
            .filter(|bind| !config.listeners.iter().any(|l| l.bind == **bind))
            .copied()
            .collect();
        for bound in gone.iter().filter_map(|bind| listeners.remove(bind)) {
            bound.serving.stop.begin("removed");
            changes.push(format!("broker listener {} accepts no more", bound.addr));
            let name = bound.serving.name();
            self.0.context.readiness.remove(&format!("listener {name}"));
            self.0.context.events.emit(Event::ListenerStopped {
                listener: name,
                bind: bound.addr,
                reason: "removed".into(),
            });
        }
        drop(listeners);
        if let Err(error) = self.0.shared.verifier.set(config.access.limits()) {
            tracing::error!(%error, "fewer threads than configured compare passwords");
        }
        let before = self.0.shared.config.swap(Arc::new(config.clone()));
        let without = |config: &BrokerConfig| BrokerConfig {
            listeners: Vec::new(),
            access: AccessConfig::default(),
            ..config.clone()
        };
        if without(&before) != without(config) {
            changes.push("broker limits are changed for what comes from now on".to_owned());
        }
        changes.extend(config.access.changes_since(&before.access));
        self.tell_closed_doors();
        Ok(changes)
    }

    /// A listener goes on under another name: its transport has changed.
    fn rename(&self, old: Arc<str>, new: Arc<str>, bind: SocketAddr) {
        self.0.context.readiness.remove(&format!("listener {old}"));
        self.0.context.readiness.set(&format!("listener {new}"), true);
        let reason = "transport changed".into();
        self.0.context.events.emit(Event::ListenerStopped { listener: old, bind, reason });
        self.0.context.events.emit(Event::ListenerStarted { listener: new, bind });
    }

    /// Stops accepting, says good-bye to every client, writes every durable session back; waits at most `deadline`.
    pub async fn stop(&self, deadline: Duration) {
        for bound in self.listeners().values() {
            bound.serving.stop.begin("shutdown");
        }
        let all = async {
            self.ask_all(|worker| worker.shut_down()).await;
            loop {
                let idle = self.ask_all(|worker| worker.is_idle()).await;
                if idle.into_iter().all(|idle| idle) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        if tokio::time::timeout(deadline, all).await.is_err() {
            tracing::warn!("some connections did not end in time");
        }
    }

    /// Milliseconds since the start.
    pub(crate) fn uptime_ms(&self) -> u64 {
        self.0.context.clock.unix_millis().saturating_sub(self.0.shared.started_at)
    }

    /// Asks every worker and gathers the answers, in the order of the workers.
    pub(crate) async fn ask_all<T: Send + 'static>(
        &self,
        ask: impl Fn(&mut Worker) -> T + Send + Sync + 'static,
    ) -> Vec<T> {
        let ask = Arc::new(ask);
        let mut answers = Vec::new();
        for worker in 0..self.0.shared.mailboxes.len() {
            let ask = Arc::clone(&ask);
            answers.push(self.ask(worker, move |w| ask(w)));
        }
        let mut out = Vec::new();
        for answer in answers {
            out.extend(answer.await.ok());
        }
        out
    }

    /// Asks one worker.
    pub(crate) fn ask<T: Send + 'static>(
        &self,
        worker: usize,
        ask: impl FnOnce(&mut Worker) -> T + Send + 'static,
    ) -> oneshot::Receiver<T> {
        let (sender, receiver) = oneshot::channel();
        let mail = Mail::Ask(Box::new(move |w: &mut Worker| {
            let _ = sender.send(ask(w));
        }));
        if let Some(mailbox) = self.0.shared.mailboxes.get(worker) {
            // bounded by the requests of the admin interface, which has a limit of its own
            let _ = mailbox.force(mail);
        }
        receiver
    }
}

fn start_worker(worker: Worker, clock: Clock, receiver: runtime::mailbox::Receiver<Mail>) {
    let key = worker.shared.instance;
    let local = Local::new(worker, clock);
    local.start(receiver);
    LOCAL.with_borrow_mut(|l| l.push((key, local)));
}
