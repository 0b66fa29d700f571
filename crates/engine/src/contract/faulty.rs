//! An engine that fails as the trait allows: for tests of what is built on one.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;

use crate::{
    Arrival, Destination, Engine, EngineError, Guarantees, Inbox, Key, NodeId, Op, Port, Pos, Shard, Token,
    WatchId,
};

/// The unit in which arrivals are held back.
const TICK: Duration = Duration::from_micros(200);

/// What goes wrong, and how often. Probabilities are of 0.0 to 1.0, for each operation or frame.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Faults {
    /// Of the randomness. With several threads the same seed gives the same odds, not the same run.
    pub seed: u64,
    /// Answer Busy; nothing happened.
    pub busy: f64,
    /// Answer Unavailable; nothing happened, but an append may have (it can be repeated with its id).
    pub unavailable: f64,
    /// Answer Unknown; it happened or not, by a coin.
    pub unknown: f64,
    /// A lane frame that was accepted is lost; the next one of its sender is preceded by the gap.
    pub lane_loss: f64,
    /// Each arrival is held back for up to so many ticks of 0.2 ms. Answers overtake each other; frames of a shard, changes of a
    /// watch and frames of a lane do not, a barrier overtakes no change, and a lost lease no answer of its port.
    pub delay: u32,
}

impl Faults {
    /// Nothing goes wrong.
    pub const NONE: Self =
        Self { seed: 0, busy: 0.0, unavailable: 0.0, unknown: 0.0, lane_loss: 0.0, delay: 0 };

    /// Everything goes wrong, each in one of twenty cases.
    pub const fn all(seed: u64) -> Self {
        Self { seed, busy: 0.05, unavailable: 0.05, unknown: 0.05, lane_loss: 0.05, delay: 8 }
    }
}

/// An engine around another one that delays, reorders, refuses and forgets, within what the trait allows.
pub struct Faulty<E: Engine + ?Sized> {
    inner: Arc<E>,
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// What the callers, the inner engine's inboxes and the releasing thread share.
struct Shared {
    hold: Mutex<Hold>,
    held: Condvar,
}

/// Arrivals that keep their order among themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Stream {
    Answer,
    /// The answer of a barrier: after all changes of all ports.
    Barrier,
    Shard(Shard),
    Watch(WatchId),
    Lane(NodeId, Port),
    Lost,
}

struct Held {
    slot: usize,
    stream: Stream,
    ticks: u32,
    arrival: Arrival,
}

/// All that is held back. Ports are counted here as slots, known before the inner engine names the port.
struct Hold {
    faults: Faults,
    rng: fastrand::Rng,
    inboxes: Vec<Arc<dyn Inbox>>,
    slots: HashMap<Port, usize>,
    /// Operations that were passed on but whose answer is replaced.
    masked: HashMap<(usize, Token), EngineError>,
    missing: HashMap<(usize, NodeId, Port), u64>,
    held: Vec<Held>,
    stopping: bool,
    ended: bool,
}

/// What becomes of an operation.
enum Fate {
    Forward,
    /// Not passed on.
    Refuse(EngineError),
    /// Passed on, and answered with this whatever came of it.
    Mask(EngineError),
}

impl<E: Engine + ?Sized> Faulty<E> {
    /// Wraps an engine. Ports must be attached here, not at the inner one.
    pub fn new(inner: Arc<E>, faults: Faults) -> Arc<Self> {
        let hold = Hold {
            faults,
            rng: fastrand::Rng::with_seed(faults.seed),
            inboxes: Vec::new(),
            slots: HashMap::new(),
            masked: HashMap::new(),
            missing: HashMap::new(),
            held: Vec::new(),
            stopping: false,
            ended: false,
        };
        let shared = Arc::new(Shared { hold: Mutex::new(hold), held: Condvar::new() });
        let thread = {
            let shared = Arc::clone(&shared);
            std::thread::spawn(move || shared.release())
        };
        Arc::new(Self { inner, shared, thread: Mutex::new(Some(thread)) })
    }

    /// The engine inside.
    pub fn inner(&self) -> &Arc<E> {
        &self.inner
    }

    fn slot(&self, port: Port) -> Option<usize> {
        self.shared.lock().slots.get(&port).copied()
    }
}

impl<E: Engine + ?Sized> Engine for Faulty<E> {
    fn guarantees(&self) -> Guarantees {
        self.inner.guarantees()
    }

    fn node(&self) -> NodeId {
        self.inner.node()
    }

    fn attach(&self, inbox: Arc<dyn Inbox>) -> Port {
        let mut hold = self.shared.lock();
        let slot = hold.inboxes.len();
        hold.inboxes.push(inbox);
        let port = self.inner.attach(Arc::new(Holding { shared: Arc::clone(&self.shared), slot }));
        hold.slots.insert(port, slot);
        port
    }

    fn submit(&self, port: Port, batch: Vec<(Token, Op)>) {
        let Some(slot) = self.slot(port) else { return self.inner.submit(port, batch) };
        let mut hold = self.shared.lock();
        let mut forward = Vec::with_capacity(batch.len());
        for (token, op) in batch {
            match hold.fate(&op) {
                Fate::Forward => forward.push((token, op)),
                Fate::Refuse(error) => hold.hold(slot, Arrival::Done { token, result: Err(error) }),
                Fate::Mask(error) => {
                    hold.masked.insert((slot, token), error);
                    forward.push((token, op));
                }
            }
        }
        drop(hold);
        self.shared.held.notify_one();
        self.inner.submit(port, forward);
    }

    fn tail(&self, port: Port, shard: Shard, after: Pos) {
        self.inner.tail(port, shard, after);
    }

    fn watch(&self, port: Port, prefix: Key) -> WatchId {
        self.inner.watch(port, prefix)
    }

    fn send(&self, from: Port, to: Destination, frame: Bytes) -> Result<(), EngineError> {
        let mut hold = self.shared.lock();
        let busy = hold.faults.busy;
        if hold.chance(busy) {
            return Err(EngineError::Busy);
        }
        drop(hold);
        self.inner.send(from, to, frame)
    }

    fn shutdown(&self) {
        self.inner.shutdown();
        self.shared.lock().stopping = true;
        self.shared.held.notify_one();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread
            && thread.thread().id() != std::thread::current().id()
        {
            // A panic of the thread has been reported where it happened.
            let _ = thread.join();
        }
    }
}

impl<E: Engine + ?Sized> Drop for Faulty<E> {
    fn drop(&mut self) {
        self.shutdown();
    }
}

/// The inbox that the inner engine delivers to.
struct Holding {
    shared: Arc<Shared>,
    slot: usize,
}

impl Inbox for Holding {
    fn deliver(&self, batch: Vec<Arrival>) {
        let mut hold = self.shared.lock();
        if hold.ended {
            let inbox = Arc::clone(&hold.inboxes[self.slot]);
            drop(hold);
            return inbox.deliver(batch);
        }
        batch.into_iter().for_each(|arrival| hold.arrive(self.slot, arrival));
        drop(hold);
        self.shared.held.notify_one();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Hold> {
        self.hold.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The releasing thread's whole life.
    fn release(&self) {
        loop {
            let idle = |hold: &mut Hold| hold.held.is_empty() && !hold.stopping;
            let hold = self.held.wait_while(self.lock(), idle).unwrap_or_else(PoisonError::into_inner);
            let ticking = |hold: &mut Hold| !hold.stopping;
            let waited = self.held.wait_timeout_while(hold, TICK, ticking);
            let (mut hold, _) = waited.unwrap_or_else(PoisonError::into_inner);
            if hold.held.is_empty() && hold.stopping {
                hold.ended = true;
                return;
            }
            let batches: Vec<_> = hold.tick().into_iter().collect();
            let inboxes: Vec<_> = batches.iter().map(|(slot, _)| Arc::clone(&hold.inboxes[*slot])).collect();
            drop(hold);
            for (inbox, (_, batch)) in inboxes.into_iter().zip(batches) {
                inbox.deliver(batch);
            }
        }
    }
}

impl Hold {
    fn chance(&mut self, probability: f64) -> bool {
        !self.ended && self.rng.f64() < probability
    }

    fn fate(&mut self, op: &Op) -> Fate {
        let Faults { busy, unavailable, unknown, .. } = self.faults;
        if self.chance(busy) {
            Fate::Refuse(EngineError::Busy)
        } else if self.chance(unavailable) {
            let happens = matches!(op, Op::Append { .. }) && self.rng.bool();
            let fate = if happens { Fate::Mask } else { Fate::Refuse };
            fate(EngineError::Unavailable)
        } else if self.chance(unknown) {
            let fate = if self.rng.bool() { Fate::Mask } else { Fate::Refuse };
            fate(EngineError::Unknown)
        } else {
            Fate::Forward
        }
    }

    /// Takes an arrival of the inner engine.
    fn arrive(&mut self, slot: usize, arrival: Arrival) {
        match arrival {
            Arrival::Done { token, result } => {
                let result = self.masked.remove(&(slot, token)).map_or(result, Err);
                self.hold(slot, Arrival::Done { token, result });
            }
            Arrival::Lane { from, port, .. } => {
                let loss = self.faults.lane_loss;
                if self.chance(loss) {
                    *self.missing.entry((slot, from, port)).or_default() += 1;
                    return;
                }
                if let Some(missing) = self.missing.remove(&(slot, from, port)) {
                    self.hold(slot, Arrival::LaneGap { from, port, missing });
                }
                self.hold(slot, arrival);
            }
            other => self.hold(slot, other),
        }
    }

    fn hold(&mut self, slot: usize, arrival: Arrival) {
        let ticks = self.rng.u32(0..=self.faults.delay);
        self.held.push(Held { slot, stream: Stream::of(&arrival), ticks, arrival });
    }

    /// Lets a tick pass; gives what is released, by slot.
    fn tick(&mut self) -> BTreeMap<usize, Vec<Arrival>> {
        let mut out: BTreeMap<usize, Vec<Arrival>> = BTreeMap::new();
        let mut kept = HashSet::new();
        let mut changes = false;
        let mut rest = Vec::new();
        for mut item in self.held.drain(..) {
            item.ticks = if self.stopping { 0 } else { item.ticks.saturating_sub(1) };
            let behind = match item.stream {
                Stream::Answer => false,
                // Not even with a change of the same tick: another port's batch may be delivered first.
                Stream::Barrier => changes,
                Stream::Lost => [Stream::Answer, Stream::Barrier, Stream::Lost]
                    .iter()
                    .any(|&stream| kept.contains(&(item.slot, stream))),
                ordered => kept.contains(&(item.slot, ordered)),
            };
            changes |= matches!(item.stream, Stream::Watch(_));
            if item.ticks == 0 && !behind {
                out.entry(item.slot).or_default().push(item.arrival);
            } else {
                kept.insert((item.slot, item.stream));
                rest.push(item);
            }
        }
        self.held = rest;
        out
    }
}

impl Stream {
    fn of(arrival: &Arrival) -> Self {
        match arrival {
            Arrival::Done { result: Ok(crate::Reply::Passed(_)), .. } => Self::Barrier,
            Arrival::Done { .. } => Self::Answer,
            Arrival::Frames { shard, .. } | Arrival::Truncated { shard, .. } => Self::Shard(*shard),
            Arrival::Changed { watch, .. } | Arrival::WatchReady { watch } => Self::Watch(*watch),
            Arrival::Lane { from, port, .. } | Arrival::LaneGap { from, port, .. } => {
                Self::Lane(*from, *port)
            }
            Arrival::LeaseLost { .. } => Self::Lost,
        }
    }
}
