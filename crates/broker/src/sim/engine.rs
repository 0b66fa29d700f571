//! An engine without threads: operations wait until the simulation lets them happen, answers until it lets them arrive.
//!
//! It does what the trait promises and nothing more: each port's operations take effect in their order, those of different
//! ports in any order; answers overtake each other, frames of a shard do not, and a barrier overtakes no change of the register. It
//! outlives the broker above it, so a crash of the broker is a [`SimEngine::forget_ports`].

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use engine::{
    Arrival, Change, Destination, Engine, EngineError, Expect, Guarantees, Inbox, Key, LogFrame, NodeId, Op,
    Port, Pos, Record, Reply, Rev, Shard, Token, Value, WatchId, Write,
};

/// What goes wrong: probabilities of one operation.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Faults {
    /// Busy, without effect.
    pub(crate) busy: f64,
    /// Unavailable; an append may have happened.
    pub(crate) unavailable: f64,
    /// Unknown, with or without effect.
    pub(crate) unknown: f64,
    /// Steps that an arrival waits at most.
    pub(crate) delay: u32,
}

#[derive(Default)]
struct ShardLog {
    first: u64,
    frames: VecDeque<Bytes>,
    ids: HashMap<u128, u64>,
}

/// Arrivals of one port that keep their order.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stream {
    Answer,
    /// Behind every change of every port.
    Barrier,
    Shard(Shard),
    Change,
}

struct Held {
    port: usize,
    stream: Stream,
    wait: u32,
    arrival: Arrival,
}

struct Attached {
    inbox: Arc<dyn Inbox>,
    /// Answers come from within `submit`: the control side waits for them in `recover`.
    at_once: bool,
    ops: VecDeque<(Token, Op)>,
    alive: bool,
}

struct State {
    logs: Vec<ShardLog>,
    records: BTreeMap<Key, (Value, Rev)>,
    rev: Rev,
    ports: Vec<Attached>,
    tails: Vec<(usize, Shard, u64)>,
    watches: Vec<(WatchId, usize, Key)>,
    held: Vec<Held>,
    faults: Faults,
    rng: fastrand::Rng,
    next_at_once: bool,
    /// Ports whose operations do not happen.
    paused: Vec<usize>,
    /// The next operation that the first of these finds fails with that.
    fail: VecDeque<(Which, EngineError)>,
}

/// Says yes to the operations that are meant.
pub(crate) type Which = fn(&Op) -> bool;

/// See the module.
pub(super) struct SimEngine {
    state: Mutex<State>,
    shards: u16,
}

type Deliveries = Vec<(Arc<dyn Inbox>, Vec<Arrival>)>;

impl SimEngine {
    pub(super) fn new(shards: u16, seed: u64) -> Arc<Self> {
        let log = || ShardLog { first: 1, ..ShardLog::default() };
        let state = State {
            logs: std::iter::repeat_with(log).take(usize::from(shards)).collect(),
            records: BTreeMap::new(),
            rev: Rev::NONE,
            ports: Vec::new(),
            tails: Vec::new(),
            watches: Vec::new(),
            held: Vec::new(),
            faults: Faults::default(),
            rng: fastrand::Rng::with_seed(seed),
            next_at_once: false,
            paused: Vec::new(),
            fail: VecDeque::new(),
        };
        Arc::new(Self { state: Mutex::new(state), shards })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn set_faults(&self, faults: Faults) {
        self.lock().faults = faults;
    }

    /// From now on the operations of a port happen, or wait.
    pub(super) fn pause(&self, port: Port, paused: bool) {
        let mut state = self.lock();
        let port = usize::from(port.0);
        state.paused.retain(|p| *p != port);
        if paused {
            state.paused.push(port);
        }
    }

    /// The next operation that `which` says yes to, after those that were asked for before, has this answer, and no effect unless
    /// it is Unknown.
    pub(super) fn fail_next(&self, which: Which, error: EngineError) {
        self.lock().fail.push_back((which, error));
    }

    /// The port that is attached next is the control side's.
    pub(super) fn next_port_is_control(&self) {
        self.lock().next_at_once = true;
    }

    /// One step: some operations happen, some arrivals arrive.
    pub(super) fn step(&self) {
        let deliveries = {
            let mut state = self.lock();
            let ports: Vec<usize> =
                (0..state.ports.len()).filter(|&p| !state.ports[p].ops.is_empty()).collect();
            if !ports.is_empty() {
                let port = ports[state.rng.usize(..ports.len())];
                for _ in 0..state.rng.usize(1..=8) {
                    state.happen(port);
                }
            }
            state.release(false)
        };
        deliver(deliveries);
    }

    /// Everything happens and arrives. Whether there was anything.
    pub(super) fn settle(&self) -> bool {
        let deliveries = {
            let mut state = self.lock();
            for port in 0..state.ports.len() {
                while !state.ports[port].ops.is_empty() && !state.paused.contains(&port) {
                    state.happen(port);
                }
            }
            state.release(true)
        };
        let any = !deliveries.is_empty();
        deliver(deliveries);
        any
    }

    /// The process above dies: of what was submitted a part happens, nothing arrives any more.
    pub(super) fn forget_ports(&self) {
        let mut state = self.lock();
        for port in 0..state.ports.len() {
            let happens = state.ports[port].ops.len();
            let happens = state.rng.usize(0..=happens);
            for _ in 0..happens {
                state.happen(port);
            }
            state.ports[port].ops.clear();
            state.ports[port].alive = false;
        }
        state.held.clear();
        state.tails.clear();
        state.watches.clear();
    }

    /// The register's keys as text, for questions about leaks.
    pub(super) fn keys(&self) -> Vec<String> {
        self.lock().records.keys().map(|k| k.as_bytes().escape_ascii().to_string()).collect()
    }

    /// Frames that the log keeps.
    pub(super) fn frames(&self) -> usize {
        self.lock().logs.iter().map(|l| l.frames.len()).sum()
    }

    /// Operations that wait to happen, and answers that wait to arrive.
    pub(super) fn pending(&self) -> usize {
        let state = self.lock();
        state.ports.iter().map(|p| p.ops.len()).sum::<usize>() + state.held.len()
    }
}

fn deliver(deliveries: Deliveries) {
    for (inbox, batch) in deliveries {
        inbox.deliver(batch);
    }
}

impl State {
    /// The next operation of a port happens.
    fn happen(&mut self, port: usize) {
        let Some((token, op)) = self.ports[port].ops.pop_front() else { return };
        let at_once = self.ports[port].at_once;
        let fails = self.fail.front().is_some_and(|(which, _)| which(&op));
        let failure = if fails { self.fail.pop_front() } else { None };
        let (busy, unavailable, unknown) = (self.faults.busy, self.faults.unavailable, self.faults.unknown);
        let error = if let Some((_, error)) = failure {
            Some((error, error == EngineError::Unknown))
        } else if at_once {
            None
        } else if self.rng.f64() < busy {
            Some((EngineError::Busy, false))
        } else if self.rng.f64() < unavailable {
            Some((EngineError::Unavailable, matches!(op, Op::Append { .. }) && self.rng.bool()))
        } else if self.rng.f64() < unknown {
            Some((EngineError::Unknown, self.rng.bool()))
        } else {
            None
        };
        let barrier = matches!(op, Op::Barrier { .. });
        let result = match error {
            Some((error, false)) => Err(error),
            Some((error, true)) => {
                let _ = self.apply(op);
                Err(error)
            }
            None => self.apply(op),
        };
        let stream = if barrier && result.is_ok() { Stream::Barrier } else { Stream::Answer };
        self.hold(port, stream, Arrival::Done { token, result });
        self.feed_tails();
    }

    fn hold(&mut self, port: usize, stream: Stream, arrival: Arrival) {
        let wait = self.rng.u32(0..=self.faults.delay);
        self.held.push(Held { port, stream, wait, arrival });
    }

    fn release(&mut self, all: bool) -> Deliveries {
        let mut out: BTreeMap<usize, Vec<Arrival>> = BTreeMap::new();
        let mut kept: Vec<Held> = Vec::new();
        for mut held in std::mem::take(&mut self.held) {
            held.wait = if all { 0 } else { held.wait.saturating_sub(1) };
            let behind = match held.stream {
                Stream::Answer => false,
                Stream::Barrier => kept.iter().any(|k| k.stream == Stream::Change),
                ordered => kept.iter().any(|k| k.port == held.port && k.stream == ordered),
            };
            if held.wait > 0 || behind {
                kept.push(held);
            } else {
                out.entry(held.port).or_default().push(held.arrival);
            }
        }
        self.held = kept;
        // changes first: they are in this order with the barriers of other ports
        let mut out: Vec<_> = out.into_iter().collect();
        out.sort_by_key(|(_, batch)| !batch.iter().any(|a| matches!(a, Arrival::Changed { .. })));
        out.into_iter()
            .filter(|(port, _)| self.ports[*port].alive)
            .map(|(port, batch)| (Arc::clone(&self.ports[port].inbox), batch))
            .collect()
    }

    fn apply(&mut self, op: Op) -> Result<Reply, EngineError> {
        match op {
            Op::Append { shard, frame, id, .. } => {
                let log = self.log(shard);
                if let Some(&seq) = log.ids.get(&id.0) {
                    return Ok(Reply::Appended { seq });
                }
                let seq = log.first + log.frames.len() as u64;
                log.frames.push_back(frame);
                log.ids.insert(id.0, seq);
                Ok(Reply::Appended { seq })
            }
            Op::Read { shard, after, max_bytes } => self.read(shard, after, max_bytes),
            Op::Head { shard } => {
                let log = self.log(shard);
                Ok(Reply::Head(match log.first + log.frames.len() as u64 - 1 {
                    0 => Pos::START,
                    seq => Pos::end_of(seq),
                }))
            }
            Op::Trim { shard, before } => {
                let log = self.log(shard);
                while log.first < before.seq() && log.frames.pop_front().is_some() {
                    log.first += 1;
                }
                Ok(Reply::Trimmed)
            }
            Op::Get { key } => Ok(Reply::Got(self.records.get(&key).map(|r| record(&key, r)))),
            Op::Scan { prefix, after, limit } => {
                let found = self
                    .records
                    .iter()
                    .filter(|(k, _)| k.starts_with(&prefix) && after.as_ref().is_none_or(|after| *k > after));
                // small pages, so that there is often more than one
                let limit = limit.min(3);
                let mut records: Vec<Record> = found.take(limit + 1).map(|(k, r)| record(k, r)).collect();
                let more = records.len() > limit;
                records.truncate(limit);
                Ok(Reply::Scanned { records, more })
            }
            Op::Put { writes } => self.put(writes),
            Op::Barrier { .. } => Ok(Reply::Passed(self.rev)),
            Op::Acquire { .. } | Op::Release { .. } => Err(EngineError::Corrupt),
        }
    }

    fn log(&mut self, shard: Shard) -> &mut ShardLog {
        &mut self.logs[usize::from(shard.0)]
    }

    fn read(&mut self, shard: Shard, after: Pos, max_bytes: usize) -> Result<Reply, EngineError> {
        let log = self.log(shard);
        let next = after.seq() + 1;
        if next < log.first {
            return Err(EngineError::Truncated { first: Pos::end_of(log.first - 1) });
        }
        let skip = usize::try_from(next - log.first).unwrap();
        let mut frames = Vec::new();
        let mut bytes = 0;
        for (frame, seq) in log.frames.iter().skip(skip).zip(next..) {
            // small pieces, so that a session reads more than once
            if !frames.is_empty() && (bytes + frame.len() > max_bytes || frames.len() == 3) {
                break;
            }
            bytes += frame.len();
            frames.push(LogFrame { seq, bytes: frame.clone() });
        }
        Ok(Reply::Frames(frames))
    }

    fn put(&mut self, writes: Vec<Write>) -> Result<Reply, EngineError> {
        for (index, write) in writes.iter().enumerate() {
            let current = self.records.get(&write.key).map_or(Rev::NONE, |r| r.1);
            let holds = match write.expect {
                Expect::Any => true,
                Expect::Absent => current == Rev::NONE,
                Expect::Rev(rev) => rev == current,
            };
            if !holds || writes[..index].iter().any(|w| w.key == write.key) {
                return Err(EngineError::Conflict { current });
            }
        }
        let mut revs = Vec::new();
        for write in writes {
            self.rev = Rev(self.rev.0 + 1);
            let rev = self.rev;
            revs.push(rev);
            match &write.value {
                Some(value) => drop(self.records.insert(write.key.clone(), (value.clone(), rev))),
                None => drop(self.records.remove(&write.key)),
            }
            for (watch, port, prefix) in self.watches.clone() {
                if write.key.starts_with(&prefix) {
                    let change = Change { key: write.key.clone(), value: write.value.clone(), rev };
                    self.hold(port, Stream::Change, Arrival::Changed { watch, changes: vec![change] });
                }
            }
        }
        Ok(Reply::Written(revs))
    }

    fn feed_tails(&mut self) {
        for index in 0..self.tails.len() {
            let (port, shard, next) = self.tails[index];
            let log = &self.logs[usize::from(shard.0)];
            if next < log.first {
                self.tails[index].2 = log.first;
                let first = Pos::end_of(log.first - 1);
                self.hold(port, Stream::Shard(shard), Arrival::Truncated { shard, first });
                continue;
            }
            let skip = usize::try_from(next - log.first).unwrap();
            let frames: Vec<_> = log
                .frames
                .iter()
                .skip(skip)
                .zip(next..)
                .map(|(bytes, seq)| LogFrame { seq, bytes: bytes.clone() })
                .collect();
            if !frames.is_empty() {
                self.tails[index].2 += frames.len() as u64;
                self.hold(port, Stream::Shard(shard), Arrival::Frames { shard, frames });
            }
        }
    }
}

fn record(key: &Key, (value, rev): &(Value, Rev)) -> Record {
    Record { key: key.clone(), value: value.clone(), rev: *rev }
}

impl Engine for SimEngine {
    fn guarantees(&self) -> Guarantees {
        Guarantees {
            kind: "sim",
            replicas: 1,
            survives_restart: true,
            shards: self.shards,
            max_frame: 64 * 1024,
            max_value: 64 * 1024,
        }
    }

    fn node(&self) -> NodeId {
        NodeId(1)
    }

    fn attach(&self, inbox: Arc<dyn Inbox>) -> Port {
        let mut state = self.lock();
        let at_once = std::mem::take(&mut state.next_at_once);
        state.ports.push(Attached { inbox, at_once, ops: VecDeque::new(), alive: true });
        Port(u16::try_from(state.ports.len() - 1).unwrap())
    }

    fn submit(&self, port: Port, batch: Vec<(Token, Op)>) {
        let port = usize::from(port.0);
        let deliveries = {
            let mut state = self.lock();
            state.ports[port].ops.extend(batch);
            if !state.ports[port].at_once {
                return;
            }
            while !state.ports[port].ops.is_empty() {
                state.happen(port);
            }
            state.release(true)
        };
        deliver(deliveries);
    }

    fn tail(&self, port: Port, shard: Shard, after: Pos) {
        let mut state = self.lock();
        state.tails.push((usize::from(port.0), shard, after.seq() + 1));
        state.feed_tails();
    }

    fn watch(&self, port: Port, prefix: Key) -> WatchId {
        let mut state = self.lock();
        let port = usize::from(port.0);
        let id = WatchId(state.watches.len() as u64);
        state.watches.push((id, port, prefix.clone()));
        let changes: Vec<_> = state
            .records
            .iter()
            .filter(|(k, _)| k.starts_with(&prefix))
            .map(|(k, (v, rev))| Change { key: k.clone(), value: Some(v.clone()), rev: *rev })
            .collect();
        let inbox = Arc::clone(&state.ports[port].inbox);
        drop(state);
        inbox.deliver(vec![Arrival::Changed { watch: id, changes }, Arrival::WatchReady { watch: id }]);
        id
    }

    fn send(&self, _: Port, _: Destination, _: Bytes) -> Result<(), EngineError> {
        Err(EngineError::Unavailable)
    }

    fn shutdown(&self) {}
}
