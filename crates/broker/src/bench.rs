//! The broker's hot path for those who count its instructions: workers and a router without sockets, tasks and time.
//!
//! It does what `driver` does between two system calls and nothing more, so that what is counted is what a message costs.
//! Its ways in are not inlined, so that the code behind them is the same whoever calls.
//!
//! Behind the feature `bench`, which the server is built without. Must not know: who measures, or how.

use std::net::SocketAddr;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use engine::{Arrival, Engine, Inbox, Shard};
use mqtt::QoS;
use runtime::clock::{Clock, ManualClock};
use runtime::events::Events;
use runtime::mailbox::{Receiver as Mailbox, Sender, mailbox};

use crate::config::{BrokerConfig, ClientRates};
use crate::connection::{ConnId, Door, Origin};
use crate::driver::now;
use crate::recovery;
use crate::router::{Address, Receiver, RouteCache, Router, SessionKey, Subscription};
use crate::shared::{Mail, Shared};
use crate::start::StartError;
use crate::worker::Worker;

/// Events that are kept; they are written when somebody connects, not when messages pass.
const EVENTS: usize = 64;
/// How often the engine's thread is let run until its answer is given up: minutes.
const PATIENCE: usize = 10_000_000;

struct ToWorker(Sender<Mail>);

impl Inbox for ToWorker {
    fn deliver(&self, batch: Vec<Arrival>) {
        // bounded by what the worker has submitted
        let _ = self.0.force(Mail::Engine(batch));
    }
}

/// A connection of a [`Bench`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Device {
    worker: usize,
    id: ConnId,
}

/// A broker whose workers have their turns one after the other: bytes in, bytes out. Its time stands still until it is moved.
pub struct Bench {
    places: Vec<Place>,
    clock: Clock,
    hand: ManualClock,
    door: Arc<Door>,
}

/// A worker and what has been sent to it.
struct Place {
    worker: Worker,
    mailbox: Mailbox<Mail>,
    mail: Vec<Mail>,
}

impl std::fmt::Debug for Bench {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let connections: usize = self.places.iter().map(|place| place.worker.conns.len()).sum();
        f.debug_struct("Bench").field("connections", &connections).finish_non_exhaustive()
    }
}

impl Bench {
    /// A broker with this configuration and so many workers that knows nothing yet.
    ///
    /// # Errors
    /// The engine does not answer.
    pub fn new(config: BrokerConfig, workers: usize, engine: &Arc<dyn Engine>) -> Result<Self, StartError> {
        let (clock, hand) = Clock::manual();
        let (senders, mailboxes): (Vec<_>, Vec<_>) =
            (0..workers).map(|_| mailbox::<Mail>(usize::MAX)).unzip();
        let events = Events::new(clock.clone(), EVENTS);
        let started = now(&clock);
        // nobody has a password: no threads that compare
        let limits = access::Limits { threads: 0, ..config.access.verifier };
        let verifier = access::Verifier::start(clock.clone(), limits).map_err(StartError::Threads)?;
        let shared = Arc::new(Shared::new(
            "bench".into(),
            config,
            Arc::clone(engine),
            events,
            verifier,
            senders.clone(),
            started.unix_ms,
        ));
        let recovered = recovery::recover(&shared, started.unix_ms)?;
        let name = "tcp://127.0.0.1:1883".into();
        let door = Arc::new(Door { name, allow_anonymous: true, rates: ClientRates::default() });
        let mut places = Vec::new();
        for ((number, sender), mailbox) in (0..).zip(senders).zip(mailboxes) {
            let port = engine.attach(Arc::new(ToWorker(sender)));
            for (shard, &tail) in (0..).zip(&recovered.tails) {
                engine.tail(port, Shard(shard), tail);
            }
            let worker = Worker::new(number, Arc::clone(&shared), port, recovered.tails.clone(), started);
            places.push(Place { worker, mailbox, mail: Vec::new() });
        }
        Ok(Self { places, clock, hand, door })
    }

    /// A connection is accepted by one of the workers, which are counted from 0.
    #[inline(never)]
    pub fn open(&mut self, worker: usize) -> Device {
        let peer = SocketAddr::from(([127, 0, 0, 1], 40_000));
        let origin = Origin { peer, via: None, door: Arc::clone(&self.door) };
        Device { worker, id: self.places[worker].worker.open(origin, false) }
    }

    /// Bytes of the client arrive, as one read gives them.
    #[inline(never)]
    pub fn received(&mut self, device: Device, bytes: &[u8]) {
        self.places[device.worker].worker.received(device.id, bytes);
    }

    /// The connection is closed by the client.
    #[inline(never)]
    pub fn closed(&mut self, device: Device) {
        self.places[device.worker].worker.socket_closed(device.id, "closed by the client");
    }

    /// Waits until the engine, which is a thread of its own, has answered every worker that asked it. What it says is taken by
    /// the next [`Self::end_turn`]. `false`: it does not answer.
    pub fn wait(&mut self) -> bool {
        self.places.iter_mut().all(Place::wait)
    }

    /// Whether the engine owes an answer.
    pub fn is_waiting(&self) -> bool {
        self.places.iter().any(|place| place.worker.operations() > 0)
    }

    /// Time passes, and the worker looks at the clock.
    #[inline(never)]
    pub fn tick(&mut self, by: Duration) {
        self.hand.advance(by);
        for place in &mut self.places {
            place.worker.now = now(&self.clock);
            place.worker.tick();
        }
    }

    /// The end of a turn of each worker: mail is taken, and what waits for each connection goes to `write`, whose socket takes all
    /// of it. What the first hands over to the others is taken in the same turn.
    #[inline(never)]
    pub fn end_turn(&mut self, write: &mut dyn FnMut(Device, &[u8])) {
        for (number, place) in self.places.iter_mut().enumerate() {
            place.end_turn(number, write);
        }
    }
}

impl Place {
    fn wait(&mut self) -> bool {
        for _ in 0..PATIENCE {
            if self.worker.operations() == 0 || self.mailbox.try_recv(&mut self.mail) {
                return true;
            }
            thread::yield_now();
        }
        false
    }

    fn end_turn(&mut self, number: usize, write: &mut dyn FnMut(Device, &[u8])) {
        if self.mailbox.try_recv(&mut self.mail) || !self.mail.is_empty() {
            for mail in self.mail.drain(..) {
                self.worker.mail(mail);
            }
        }
        let mut dirty = self.worker.begin_flush();
        for slot in dirty.drain(..) {
            self.worker.clean(slot);
            let unsent = self.worker.unsent(slot);
            let written = unsent.len();
            if let Some(conn) = self.worker.conns.get(slot as usize)
                && written > 0
            {
                let id = ConnId { slot, generation: conn.generation };
                write(Device { worker: number, id }, unsent);
                self.worker.written(slot, written);
            }
        }
        self.worker.end_flush(dirty);
        self.worker.end_turn();
    }
}

/// The subscriptions of a broker and one worker's cache of what topics match.
pub struct Subscriptions {
    router: Router,
    cache: RouteCache,
    sessions: u64,
}

impl std::fmt::Debug for Subscriptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Subscriptions").field("filters", &self.router.filters()).finish_non_exhaustive()
    }
}

impl Subscriptions {
    /// None yet; `topics` is how many the cache remembers: with 1, each topic that differs from the one before is matched
    /// anew.
    pub fn new(topics: usize) -> Self {
        Self { router: Router::new(), cache: RouteCache::new(topics), sessions: 0 }
    }

    /// The same subscriptions, and another cache that knows nothing yet.
    #[must_use]
    pub fn with_cache(self, topics: usize) -> Self {
        Self { cache: RouteCache::new(topics), ..self }
    }

    /// A connected session of its own subscribes to a valid filter with QoS 1.
    pub fn subscribe(&mut self, filter: &str) {
        self.sessions += 1;
        let slot = u32::try_from(self.sessions).unwrap_or(u32::MAX);
        let session = SessionKey::new(self.sessions, filter);
        let receiver = Receiver { session, address: Some(Address { worker: 0, slot }), durable: false };
        let subscription = Subscription {
            qos: QoS::AtLeastOnce,
            no_local: false,
            retain_as_published: false,
            identifier: 0,
        };
        self.router.subscribe(filter, receiver, subscription);
    }

    /// How many sessions and how many groups a message for `topic` goes to.
    #[inline(never)]
    pub fn routes(&mut self, topic: &str) -> (usize, usize) {
        let routes = self.cache.lookup(&self.router, topic);
        (routes.workers.iter().map(|worker| worker.hits.len()).sum(), routes.groups.len())
    }
}
