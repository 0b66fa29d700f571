//! A broker whose sockets, time and engine a test moves: one step at a time, or until nothing moves any more.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Wake;
use std::time::Duration;

use engine::{Arrival, Engine, EngineError, Inbox, Port, Shard};
use mqtt::Version;
use mqtt::codec::decode::{Role, decode};
use mqtt::codec::{Decoded, encode};
use mqtt::packet::Packet;
use runtime::clock::{Clock, ManualClock};
use runtime::events::{Event, Events};
use runtime::mailbox::{Receiver, Sender, mailbox};

use super::engine::{Faults, SimEngine, Which};
use crate::config::BrokerConfig;
use crate::connection::{ConnId, Door, Origin};
use crate::recovery;
use crate::shared::{Mail, Shared};
use crate::worker::{Now, Worker};

struct WorkerInbox(Sender<Mail>);

impl Inbox for WorkerInbox {
    fn deliver(&self, batch: Vec<Arrival>) {
        let _ = self.0.force(Mail::Engine(batch));
    }
}

/// One end of a TCP connection, as a test's client holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Link(usize);

struct Wire {
    worker: usize,
    id: ConnId,
    /// Written by the client, not yet read by the broker.
    up: VecDeque<u8>,
    /// Written by the broker, not yet read by the client.
    down: Vec<u8>,
    /// Bytes that the socket takes; `usize::MAX`: all.
    window: usize,
    client_closed: bool,
    /// The broker will write no more.
    shut: bool,
    /// Nothing passes and nobody is told.
    dead: bool,
    /// The broker has let the socket go.
    over: bool,
    /// The connection's task was woken.
    woken: Arc<Woken>,
    /// Its task waits for the socket: bytes wake it.
    reading: bool,
}

/// Stands for the waker of a connection's task: what would sleep for ever in the process does so here.
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// See the module.
pub(crate) struct World {
    clock: Clock,
    hand: ManualClock,
    pub(crate) rng: fastrand::Rng,
    pub(crate) shared: Arc<Shared>,
    pub(crate) workers: Vec<Worker>,
    ports: Vec<Port>,
    mailboxes: Vec<Receiver<Mail>>,
    pub(super) engine: Arc<SimEngine>,
    wires: Vec<Wire>,
    next_tick: std::time::Instant,
    config: BrokerConfig,
    /// Nobody compares passwords, until it is said otherwise.
    pub(crate) passwords_wait: bool,
    /// Whoever connects comes above `accept_rate`.
    pub(crate) late: bool,
}

impl World {
    /// A broker of so many workers over an engine that has nothing yet.
    pub(crate) fn new(seed: u64, workers: usize, config: BrokerConfig) -> Self {
        let (clock, hand) = Clock::manual();
        let engine = SimEngine::new(2, seed);
        let (shared, mailboxes, workers, ports) = start(&clock, &engine, workers, &config);
        let next_tick = clock.now() + Duration::from_secs(1);
        let rng = fastrand::Rng::with_seed(seed);
        let wires = Vec::new();
        Self {
            clock,
            hand,
            rng,
            shared,
            workers,
            ports,
            mailboxes,
            engine,
            wires,
            next_tick,
            config,
            passwords_wait: false,
            late: false,
        }
    }

    /// Gives away the first worker, for sockets that are real.
    pub(crate) fn take_worker(&mut self) -> (Worker, Receiver<Mail>, Clock) {
        (self.workers.remove(0), self.mailboxes.remove(0), self.clock.clone())
    }

    /// The process dies between two steps and starts again over the same engine. Every connection is gone.
    pub(crate) fn crash(&mut self) {
        self.engine.forget_ports();
        for wire in &mut self.wires {
            (wire.over, wire.shut) = (true, true);
            wire.up.clear();
        }
        self.hand.advance(Duration::from_millis(2));
        let count = self.workers.len();
        (self.shared, self.mailboxes, self.workers, self.ports) =
            start(&self.clock, &self.engine, count, &self.config);
        self.next_tick = self.clock.now() + Duration::from_secs(1);
    }

    pub(crate) fn set_faults(&self, faults: Faults) {
        self.engine.set_faults(faults);
    }

    /// The engine does nothing of what this worker submits, until it is told otherwise.
    pub(crate) fn pause(&self, worker: usize, paused: bool) {
        self.engine.pause(self.ports[worker], paused);
    }

    /// The next such operation fails for good.
    pub(crate) fn fail_next(&self, which: Which, error: EngineError) {
        self.engine.fail_next(which, error);
    }

    /// Whether the broker still takes the connection for a living one.
    pub(super) fn is_served(&self, link: Link) -> bool {
        let wire = &self.wires[link.0];
        let conn = self.workers[wire.worker].conn(wire.id);
        !wire.over && conn.is_some_and(|c| c.is_connected() && !c.closing)
    }

    /// Frames in the log.
    pub(crate) fn frames(&self) -> usize {
        self.engine.frames()
    }

    /// Keys of the register, as text.
    pub(crate) fn keys(&self) -> Vec<String> {
        self.engine.keys()
    }

    pub(crate) fn unix_ms(&self) -> u64 {
        self.clock.unix_millis()
    }

    fn now(&self) -> Now {
        Now { instant: self.clock.now(), unix_ms: self.clock.unix_millis() }
    }

    // ---- sockets ----

    /// A client connects to a worker.
    pub(crate) fn open(&mut self, worker: usize) -> Link {
        let now = self.now();
        let port = 1_024 + u16::try_from(self.wires.len() % 60_000).unwrap();
        let origin = Origin {
            peer: SocketAddr::from(([127, 0, 0, 1], port)),
            via: None,
            door: Arc::new(Door {
                name: "tcp://sim".into(),
                allow_anonymous: self.config.listeners.first().is_none_or(|l| l.allow_anonymous),
                rates: self.config.listeners.first().map(|l| l.rates).unwrap_or_default(),
            }),
        };
        self.workers[worker].now = now;
        let id = self.workers[worker].open(origin, self.late);
        self.wires.push(Wire {
            worker,
            id,
            up: VecDeque::new(),
            down: Vec::new(),
            window: usize::MAX,
            client_closed: false,
            shut: false,
            dead: false,
            over: false,
            woken: Arc::new(Woken(AtomicBool::new(true))),
            reading: false,
        });
        Link(self.wires.len() - 1)
    }

    /// Bytes that the client writes.
    pub(crate) fn write(&mut self, link: Link, bytes: &[u8]) {
        let wire = &mut self.wires[link.0];
        if !wire.over && !wire.client_closed {
            wire.up.extend(bytes);
        }
    }

    pub(crate) fn send(&mut self, link: Link, version: Version, packet: &Packet<'_>) {
        let mut out = Vec::new();
        encode::encode(packet, version, &mut out).unwrap();
        self.write(link, &out);
    }

    /// What the client can read; and whether nothing more will come.
    pub(crate) fn read(&mut self, link: Link) -> (Vec<u8>, bool) {
        let wire = &mut self.wires[link.0];
        if wire.dead {
            return (Vec::new(), false);
        }
        (std::mem::take(&mut wire.down), wire.shut)
    }

    /// Reads whole packets; a client that reads like this must not be cut in the middle of one.
    pub(crate) fn packets(&mut self, link: Link, version: Version) -> Vec<Packet<'static>> {
        let (bytes, _) = self.read(link);
        packets(&bytes, version)
    }

    /// Whether the broker has closed its side.
    pub(crate) fn is_closed(&self, link: Link) -> bool {
        self.wires[link.0].shut
    }

    /// The socket takes so many bytes from now on, until it is set again.
    pub(crate) fn set_window(&mut self, link: Link, window: usize) {
        self.wires[link.0].window = window;
    }

    /// The client closes; of what it has written the broker reads `kept` bytes at most.
    pub(crate) fn cut(&mut self, link: Link, kept: usize) {
        let wire = &mut self.wires[link.0];
        wire.up.truncate(kept);
        wire.client_closed = true;
        wire.down.clear();
    }

    /// What the broker has not read from the client is lost.
    pub(super) fn forget_unread(&mut self, link: Link) {
        self.wires[link.0].up.clear();
    }

    /// The connection breaks and the broker is told at once, whatever it does.
    pub(crate) fn reset(&mut self, link: Link) {
        let now = self.now();
        let wire = &mut self.wires[link.0];
        (wire.over, wire.shut, wire.client_closed) = (true, true, true);
        let worker = &mut self.workers[wire.worker];
        worker.now = now;
        worker.socket_closed(wire.id, "read failed");
    }

    /// The network swallows everything from now on.
    pub(crate) fn swallow(&mut self, link: Link) {
        let wire = &mut self.wires[link.0];
        wire.dead = true;
        wire.up.clear();
    }

    /// What has not been read from the client.
    pub(crate) fn unread(&self, link: Link) -> usize {
        self.wires[link.0].up.len()
    }

    /// The broker's view of the connection.
    pub(crate) fn conn_id(&self, link: Link) -> (usize, ConnId) {
        (self.wires[link.0].worker, self.wires[link.0].id)
    }

    /// What a connection's task does when it is polled; whether anything happened. `most`: bytes read at once.
    fn poll(&mut self, index: usize, most: usize) -> bool {
        let now = self.now();
        let wire = &mut self.wires[index];
        if wire.over {
            return false;
        }
        let worker = &mut self.workers[wire.worker];
        worker.now = now;
        let Some(conn) = worker.conn_mut(wire.id) else {
            (wire.over, wire.shut) = (true, true);
            return true;
        };
        conn.waker.get_or_insert_with(|| Arc::clone(&wire.woken).into());
        let arrived = wire.reading && (!wire.up.is_empty() || wire.client_closed);
        let awake = wire.woken.0.swap(false, Ordering::Relaxed) || arrived;
        if awake && conn.killed {
            (wire.over, wire.shut) = (true, true);
            worker.socket_closed(wire.id, "closed by the broker");
            return true;
        }
        let mut moved = false;
        let unsent = worker.unsent(wire.id.slot);
        let n = unsent.len().min(wire.window);
        if n > 0 && !wire.shut {
            if !wire.client_closed && !wire.dead {
                wire.down.extend_from_slice(&unsent[..n]);
            }
            wire.window -= if wire.window == usize::MAX { 0 } else { n };
            worker.written(wire.id.slot, n);
            moved = true;
        }
        let Some(conn) = worker.conn(wire.id) else { return true };
        // its task writes the rest of what the socket did not take at once, and goes on from there
        let goes_on = moved && conn.closing;
        if !awake && !goes_on && !wire.woken.0.swap(false, Ordering::Relaxed) {
            return moved;
        }
        if conn.closing && (conn.unsent() == 0 || wire.client_closed) {
            let last = !conn.linger || wire.client_closed;
            moved |= !wire.shut || last;
            (wire.shut, wire.over, wire.reading) = (true, last, true);
            wire.up.clear();
            if last {
                worker.socket_closed(wire.id, "closed by the broker");
            }
        } else if worker.wants_read(wire.id) {
            wire.reading = true;
            if !wire.up.is_empty() {
                let n = wire.up.len().min(most);
                let bytes: Vec<u8> = wire.up.drain(..n).collect();
                worker.received(wire.id, &bytes);
                moved = true;
            } else if wire.client_closed {
                (wire.over, wire.shut) = (true, true);
                worker.socket_closed(wire.id, "closed by the client");
                moved = true;
            }
        } else {
            wire.reading = false;
        }
        moved
    }

    // ---- time ----

    /// Time passes: what is due happens, what it causes has not happened yet.
    pub(crate) fn pass(&mut self, by: Duration) {
        let end = self.clock.now() + by;
        loop {
            let left = end.saturating_duration_since(self.clock.now());
            let to_tick = self.next_tick.saturating_duration_since(self.clock.now());
            self.hand.advance(left.min(to_tick));
            if self.clock.now() < self.next_tick {
                break;
            }
            self.next_tick += Duration::from_secs(1);
            let now = self.now();
            for worker in &mut self.workers {
                worker.now = now;
                worker.tick();
            }
        }
        let now = self.now();
        for worker in &mut self.workers {
            worker.now = now;
            worker.retry();
        }
    }

    /// Time passes in small pieces, and everything that can move moves.
    pub(crate) fn advance(&mut self, by: Duration) {
        let piece = Duration::from_millis(500);
        let mut left = by;
        while !left.is_zero() {
            self.run();
            self.pass(left.min(piece));
            left = left.saturating_sub(piece);
        }
        self.run();
    }

    /// A worker takes its mail, and nothing else happens.
    pub(crate) fn take_mail(&mut self, worker: usize) {
        self.mail(worker, &mut Vec::new());
    }

    fn mail(&mut self, worker: usize, batch: &mut Vec<Mail>) -> bool {
        let any = self.mailboxes[worker].try_recv(batch);
        let now = self.now();
        for mail in batch.drain(..) {
            self.workers[worker].now = now;
            self.workers[worker].mail(mail);
        }
        any
    }

    fn turn(&mut self, worker: usize) {
        let now = self.now();
        let worker = &mut self.workers[worker];
        worker.now = now;
        let mut dirty = worker.begin_flush();
        for slot in dirty.drain(..) {
            worker.clean(slot);
            if worker.is_closing(slot) {
                worker.wake_slot(slot);
            }
        }
        worker.end_flush(dirty);
        worker.end_turn();
    }

    /// One step: a worker, some connections, the engine, in an order of the seed.
    pub(crate) fn step(&mut self) {
        let worker = self.rng.usize(..self.workers.len());
        if self.rng.u8(..4) > 0 {
            self.mail(worker, &mut Vec::new());
        }
        let wires: Vec<usize> = (0..self.wires.len())
            .filter(|&i| !self.wires[i].over && self.wires[i].worker == worker)
            .collect();
        for index in wires {
            if self.rng.bool() {
                let most = if self.rng.bool() { self.rng.usize(1..40) } else { 4_096 };
                self.poll(index, most);
            }
        }
        if self.rng.u8(..4) > 0 {
            self.turn(worker);
        }
        self.engine.step();
        self.shared.verifier.compare_one();
    }

    /// Everything moves until nothing does. Time stands still.
    pub(crate) fn run(&mut self) {
        let mut batch = Vec::new();
        for _ in 0..100_000 {
            let mut moved = false;
            for index in 0..self.wires.len() {
                moved |= self.poll(index, 4_096);
            }
            for worker in 0..self.workers.len() {
                moved |= self.mail(worker, &mut batch);
                moved |= self.workers[worker].is_searching();
                self.turn(worker);
                moved |= self.workers[worker].is_searching();
            }
            moved |= self.engine.settle();
            moved |= !self.passwords_wait && self.shared.verifier.compare_one();
            if !moved {
                return;
            }
        }
        panic!("the broker does not come to rest");
    }

    /// What was told so far.
    pub(crate) fn events(&self) -> Vec<Event> {
        self.shared.events.since(0, usize::MAX).into_iter().map(|r| r.event).collect()
    }
}

type Started = (Arc<Shared>, Vec<Receiver<Mail>>, Vec<Worker>, Vec<Port>);

fn start(clock: &Clock, engine: &Arc<SimEngine>, workers: usize, config: &BrokerConfig) -> Started {
    let (senders, mailboxes): (Vec<_>, Vec<_>) = (0..workers).map(|_| mailbox::<Mail>(usize::MAX)).unzip();
    let events = Events::new(clock.clone(), 4_096);
    let now = Now { instant: clock.now(), unix_ms: clock.unix_millis() };
    let dyn_engine = Arc::clone(engine) as Arc<dyn Engine>;
    // no threads: the world compares passwords itself
    let limits = access::Limits { threads: 0, ..config.access.verifier };
    let verifier = access::Verifier::start(clock.clone(), limits).unwrap();
    let boxes = senders.clone();
    let shared = Shared::new("sim".into(), config.clone(), dyn_engine, events, verifier, boxes, now.unix_ms);
    let shared = Arc::new(shared);
    engine.next_port_is_control();
    let recovered = recovery::recover(&shared, now.unix_ms).unwrap();
    let (mut out, mut ports) = (Vec::new(), Vec::new());
    for (index, sender) in senders.into_iter().enumerate() {
        let port = engine.attach(Arc::new(WorkerInbox(sender)));
        ports.push(port);
        for (shard, &tail) in recovered.tails.iter().enumerate() {
            engine.tail(port, Shard(u16::try_from(shard).unwrap()), tail);
        }
        let id = u16::try_from(index).unwrap();
        let mut worker = Worker::new(id, Arc::clone(&shared), port, recovered.tails.clone(), now);
        worker.adopt_groups(&recovered.groups);
        out.push(worker);
    }
    for (client_id, message) in recovered.wills {
        let mail = Mail::Ask(Box::new(move |worker: &mut Worker| {
            worker.publish_owed_will(client_id, &message);
        }));
        let _ = shared.mailboxes[0].force(mail);
    }
    (shared, mailboxes, out, ports)
}

/// Whole packets from a broker.
pub(crate) fn packets(mut bytes: &[u8], version: Version) -> Vec<Packet<'static>> {
    let mut out = Vec::new();
    while !bytes.is_empty() {
        match decode(bytes, version, Role::Server, u32::MAX).unwrap() {
            Decoded::Packet(packet, used) => {
                out.push(packet.into_owned());
                bytes = &bytes[used..];
            }
            Decoded::Incomplete(_) => panic!("half a packet: {bytes:?}"),
        }
    }
    out
}
