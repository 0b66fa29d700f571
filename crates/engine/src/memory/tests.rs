//! The memory engine against the contract, alone and behind faults, and what only this engine promises.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, mpsc};
use std::time::{Duration, Instant};

use super::{MemoryConfig, MemoryEngine};
use crate::contract::{Faults, Faulty, PATIENCE, Probe, Setup, seed};
use crate::{Arrival, DedupeId, Destination, Engine, EngineError, Inbox, Key, Op, Port, Pos, Shard};

/// The system's monotonic clock.
#[expect(clippy::disallowed_methods, reason = "the tests of the thread run on real time")]
fn clock() -> Instant {
    Instant::now()
}

fn memory(setup: Setup) -> Arc<dyn Engine> {
    let config = MemoryConfig {
        shards: setup.shards,
        queue: setup.queue,
        lane_queue: setup.lane_queue,
        ..MemoryConfig::default()
    };
    MemoryEngine::new(config, clock)
}

mod contract {
    crate::contract_tests!(super::memory);
}

mod contract_behind_faults {
    use super::{Arc, Engine, Faults, Faulty, Setup, memory, seed};

    fn faulty(setup: Setup) -> Arc<dyn Engine> {
        Faulty::new(memory(setup), Faults::all(seed()))
    }

    crate::contract_tests!(faulty);
}

/// An inbox that holds the engine's thread until the test opens it, and counts deliveries.
#[derive(Default)]
struct Gate {
    state: Mutex<GateState>,
    changed: Condvar,
}

#[derive(Default)]
struct GateState {
    open: bool,
    entered: bool,
    batches: Vec<Vec<Arrival>>,
}

impl Gate {
    /// Waits until `ready`, with a deadline.
    fn wait(&self, what: &str, mut ready: impl FnMut(&GateState) -> bool) -> MutexGuard<'_, GateState> {
        let state = self.state.lock().expect("no test panics inside");
        let waited = self.changed.wait_timeout_while(state, PATIENCE, |s| !ready(s));
        let (state, timeout) = waited.expect("no test panics inside");
        assert!(!timeout.timed_out(), "{what}: not within {PATIENCE:?}");
        state
    }

    fn open(&self) {
        self.state.lock().expect("no test panics inside").open = true;
        self.changed.notify_all();
    }

    fn close(&self) {
        let mut state = self.state.lock().expect("no test panics inside");
        (state.open, state.entered) = (false, false);
    }

    /// All arrivals, once there are so many.
    fn arrivals(&self, n: usize) -> Vec<Arrival> {
        let count = |s: &GateState| s.batches.iter().map(Vec::len).sum::<usize>();
        let mut state = self.wait(&format!("{n} arrivals"), |s| count(s) >= n);
        let all: Vec<_> = state.batches.drain(..).flatten().collect();
        assert_eq!(all.len(), n);
        all
    }
}

impl Inbox for Gate {
    fn deliver(&self, batch: Vec<Arrival>) {
        let mut state = self.state.lock().expect("no test panics inside");
        state.entered = true;
        self.changed.notify_all();
        let waited = self.changed.wait_timeout_while(state, PATIENCE, |s| !s.open);
        waited.expect("no test panics inside").0.batches.push(batch);
        self.changed.notify_all();
    }
}

/// An engine whose thread is held inside the delivery to the gate's port.
fn held(config: MemoryConfig) -> (Arc<dyn Engine>, Port, Arc<Gate>) {
    let engine: Arc<dyn Engine> = MemoryEngine::new(config, clock);
    let gate = Arc::new(Gate::default());
    let port = engine.attach(Arc::clone(&gate) as Arc<dyn Inbox>);
    engine.submit(port, vec![(0, Op::Head { shard: Shard(0) })]);
    drop(gate.wait("the thread is in the gate", |s| s.entered));
    (engine, port, gate)
}

fn append(n: u64, bytes: usize) -> (u64, Op) {
    let id = DedupeId(u128::from(n));
    (n, Op::Append { shard: Shard(0), frame: vec![1; bytes].into(), id, fence: None })
}

/// Tokens answered with success and with Busy, in the order of the tokens.
fn outcome(arrivals: Vec<Arrival>) -> (Vec<u64>, Vec<u64>) {
    let (mut done, mut busy) = (Vec::new(), Vec::new());
    for arrival in arrivals {
        match arrival {
            Arrival::Done { token, result: Ok(_) } => done.push(token),
            Arrival::Done { token, result: Err(EngineError::Busy) } => busy.push(token),
            other => panic!("{other:?}"),
        }
    }
    done.sort_unstable();
    busy.sort_unstable();
    (done, busy)
}

#[test]
fn at_the_bound_of_the_queue_operations_are_busy_and_room_comes_back() {
    let (engine, port, gate) = held(MemoryConfig { queue: 4, ..MemoryConfig::default() });
    // The one whose answer holds the thread counts no more.
    engine.submit(port, (1..=2).map(|n| append(n, 1)).collect());
    engine.submit(port, (3..=6).map(|n| append(n, 1)).collect());
    gate.open();
    assert_eq!(outcome(gate.arrivals(7)), (vec![0, 1, 2, 3, 4], vec![5, 6]));
    let probe = Probe::new(&engine);
    assert_eq!(probe.read_all(Shard(0), Pos::START).len(), 4);
    let tokens = probe.submit(vec![Op::Head { shard: Shard(0) }; 4]);
    assert!(tokens.into_iter().all(|token| probe.answer(token).is_ok()));
}

#[test]
fn at_the_bound_of_bytes_the_rest_of_a_batch_is_busy() {
    let (engine, port, gate) = held(MemoryConfig { queue_bytes: 10_000, ..MemoryConfig::default() });
    let sizes = [4000, 4000, 4000, 1, 1];
    engine.submit(port, (1..).zip(sizes).map(|(n, bytes)| append(n, bytes)).collect());
    gate.open();
    // The small ones would fit, but may not overtake the one that does not.
    assert_eq!(outcome(gate.arrivals(6)), (vec![0, 1, 2], vec![3, 4, 5]));
    // One that is larger than the bound passes alone.
    engine.submit(port, vec![append(6, 20_000)]);
    assert_eq!(outcome(gate.arrivals(1)), (vec![6], vec![]));
}

#[test]
fn at_the_bound_of_a_lane_send_is_busy_and_nothing_accepted_is_lost() {
    let (engine, port, gate) =
        held(MemoryConfig { lane_queue: 10, lane_bytes: 10_000, ..MemoryConfig::default() });
    let to = Destination { node: engine.node(), port };
    let send = |len: usize| engine.send(port, to, vec![len as u8; len].into());
    let accepted: Vec<_> = (0..15).filter(|&len| send(len).is_ok()).collect();
    assert_eq!(accepted, (0..10).collect::<Vec<_>>());
    assert_eq!(send(1), Err(EngineError::Busy));
    gate.open();
    let mut arrivals = gate.arrivals(11);
    let lanes = arrivals.split_off(1);
    for (len, arrival) in lanes.into_iter().enumerate() {
        assert!(matches!(arrival, Arrival::Lane { frame, .. } if frame.len() == len));
    }
    assert_eq!(send(20_000), Ok(()), "a large one passes alone");
    gate.arrivals(1);
    gate.close();
    assert_eq!(send(1), Ok(()));
    drop(gate.wait("the thread is in the gate", |s| s.entered));
    assert_eq!([4000, 4000, 4000].map(send), [Ok(()), Ok(()), Err(EngineError::Busy)], "room came back");
    gate.open();
    gate.arrivals(3);
    assert_eq!(send(3_000_000), Err(EngineError::TooLarge));
}

#[test]
fn what_came_meanwhile_is_delivered_with_one_call_for_each_port() {
    let (engine, port, gate) = held(MemoryConfig::default());
    let other = Arc::new(Gate::default());
    other.open();
    let other_port = engine.attach(Arc::clone(&other) as Arc<dyn Inbox>);
    for n in 1..=50 {
        engine.submit(port, vec![append(n, 10)]);
        engine.submit(other_port, vec![append(100 + n, 10)]);
        let to = Destination { node: engine.node(), port: other_port };
        engine.send(port, to, "lane".into()).expect("there is room");
    }
    engine.tail(other_port, Shard(0), Pos::START);
    gate.open();
    gate.arrivals(51);
    let state = other.wait("the delivery", |s| !s.batches.is_empty());
    assert_eq!(state.batches.iter().map(Vec::len).collect::<Vec<_>>(), [50 + 50 + 1]);
}

/// Panics at the first delivery.
#[derive(Default)]
struct Clumsy(AtomicBool);

impl Inbox for Clumsy {
    fn deliver(&self, _: Vec<Arrival>) {
        assert!(self.0.swap(true, Ordering::Relaxed), "dropped on purpose");
    }
}

#[test]
fn an_inbox_that_panics_does_not_stop_the_others() {
    let engine = memory(Setup::default());
    let clumsy = engine.attach(Arc::new(Clumsy::default()));
    engine.submit(clumsy, vec![append(1, 1)]);
    let probe = Probe::new(&engine);
    assert_eq!(probe.append(Shard(0), "x", DedupeId(2)), 2);
}

/// Shuts its engine down from within.
struct Last(Mutex<Option<Arc<MemoryEngine>>>, mpsc::SyncSender<()>);

impl Inbox for Last {
    fn deliver(&self, _: Vec<Arrival>) {
        if let Some(engine) = self.0.lock().expect("no test panics inside").take() {
            engine.shutdown();
            drop(engine);
            self.1.send(()).expect("the test waits");
        }
    }
}

#[test]
fn an_inbox_may_shut_its_engine_down_and_drop_it() {
    let engine = MemoryEngine::new(MemoryConfig::default(), clock);
    let (sender, receiver) = mpsc::sync_channel(1);
    let last = Arc::new(Last(Mutex::new(Some(Arc::clone(&engine))), sender));
    let port = engine.attach(last);
    engine.submit(port, vec![append(1, 1)]);
    drop(engine);
    receiver.recv_timeout(Duration::from_secs(4)).expect("it does not wait for itself");
}

#[test]
fn a_dropped_engine_lets_go_of_its_thread_and_inboxes() {
    let engine = MemoryEngine::new(MemoryConfig::default(), clock);
    let gate = Arc::new(Gate::default());
    gate.open();
    let port = engine.attach(Arc::clone(&gate) as Arc<dyn Inbox>);
    engine.submit(port, vec![append(1, 1)]);
    drop(engine);
    assert_eq!(gate.arrivals(1).len(), 1, "answered before the end");
    assert_eq!(Arc::strong_count(&gate), 1);
}

#[test]
fn a_lease_may_last_longer_than_time_can_be_counted() {
    let probe = Probe::new(&memory(Setup::default()));
    for (n, ttl) in [Duration::MAX, Duration::MAX / 2, Duration::from_secs(u64::MAX)].into_iter().enumerate()
    {
        let lease = Key::of("l", &[&[b'a' + n as u8]]);
        let epoch = probe.acquire(&lease, 1, ttl).expect("it is free");
        assert_eq!(probe.acquire(&lease, 2, ttl), Err(EngineError::Fenced { current: epoch }));
        assert_eq!(probe.acquire(&lease, 1, ttl), Ok(epoch));
    }
    probe.release(&Key::of("l", &[b"a"]), 1);
    assert!(probe.acquire(&Key::of("l", &[b"a"]), 2, Duration::MAX).is_ok());
}

#[test]
fn an_engine_that_waits_for_a_lease_sleeps() {
    static LOOKS: AtomicU64 = AtomicU64::new(0);
    fn counting() -> Instant {
        LOOKS.fetch_add(1, Ordering::Relaxed);
        clock()
    }
    let engine: Arc<dyn Engine> = MemoryEngine::new(MemoryConfig::default(), counting);
    let probe = Probe::new(&engine);
    let lease = Key::of("l", &[]);
    probe.acquire(&lease, 1, Duration::from_millis(300)).expect("it is free");
    probe.lost(&lease);
    probe.head(Shard(0));
    // Two looks for each turn and a few spurious wake-ups; a busy loop would look millions of times.
    assert!(LOOKS.load(Ordering::Relaxed) < 100);
}
