//! A port for tests: asks, waits with a deadline, and notes what the trait forbids.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;

use crate::{
    Arrival, Change, DedupeId, Destination, Engine, EngineError, Epoch, Inbox, Key, LogFrame, NodeId, Op,
    Port, Pos, Record, Reply, Rev, Shard, Token, Value, WatchId, Write,
};

/// How long a probe waits for anything. Longer than an election of a cluster's log.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// How long a probe pauses before it repeats what was answered with "retry".
const PAUSE: Duration = Duration::from_millis(2);

/// The largest piece of frames or changes, see [`Inbox::deliver`].
const PIECE: usize = 1 << 20;

/// What came for a watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WatchEvent {
    /// A record or a change.
    Change(Change),
    /// The snapshot is complete.
    Ready,
}

/// What came by lane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LaneEvent {
    /// A frame and its sender.
    Frame(NodeId, Port, Bytes),
    /// So many frames of a sender are missing.
    Gap(NodeId, Port, u64),
}

/// All that has arrived and was not taken yet.
#[derive(Debug, Default)]
struct Seen {
    open: HashSet<Token>,
    /// Tokens in the order in which they were answered.
    order: Vec<Token>,
    answers: HashMap<Token, Result<Reply, EngineError>>,
    frames: HashMap<Shard, Vec<LogFrame>>,
    truncated: HashMap<Shard, Vec<Pos>>,
    watches: HashMap<WatchId, Vec<WatchEvent>>,
    lanes: Vec<LaneEvent>,
    lost: Vec<Key>,
    violations: Vec<String>,
}

/// The inbox of a probe.
#[derive(Default)]
struct Mailbox {
    seen: Mutex<Seen>,
    arrived: Condvar,
}

impl Mailbox {
    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inbox for Mailbox {
    fn deliver(&self, batch: Vec<Arrival>) {
        let mut seen = self.lock();
        batch.into_iter().for_each(|arrival| seen.take(arrival));
        drop(seen);
        self.arrived.notify_all();
    }
}

impl Seen {
    fn take(&mut self, arrival: Arrival) {
        match arrival {
            Arrival::Done { token, result } => {
                if !self.open.remove(&token) {
                    self.violations.push(format!("token {token} was not asked or answered twice"));
                }
                self.order.push(token);
                self.answers.insert(token, result);
            }
            Arrival::Frames { shard, frames } => {
                let bytes: usize = frames.iter().map(|f| f.bytes.len()).sum();
                let gap = frames.windows(2).any(|pair| pair[1].seq != pair[0].seq + 1);
                if frames.is_empty() || gap || (bytes > PIECE && frames.len() > 1) {
                    self.violations.push(format!("frames of {shard:?}: {} of {bytes} bytes", frames.len()));
                }
                self.frames.entry(shard).or_default().extend(frames);
            }
            Arrival::Truncated { shard, first } => self.truncated.entry(shard).or_default().push(first),
            Arrival::Changed { watch, changes } => {
                let size =
                    |c: &Change| c.key.as_bytes().len() + c.value.as_ref().map_or(0, |value| value.len());
                let bytes: usize = changes.iter().map(size).sum();
                if changes.is_empty() || (bytes > PIECE && changes.len() > 1) {
                    self.violations.push(format!("changes: {} of {bytes} bytes", changes.len()));
                }
                self.watches.entry(watch).or_default().extend(changes.into_iter().map(WatchEvent::Change));
            }
            Arrival::WatchReady { watch } => self.watches.entry(watch).or_default().push(WatchEvent::Ready),
            Arrival::Lane { from, port, frame } => self.lanes.push(LaneEvent::Frame(from, port, frame)),
            Arrival::LaneGap { from, port, missing } => self.lanes.push(LaneEvent::Gap(from, port, missing)),
            Arrival::LeaseLost { key } => self.lost.push(key),
        }
    }
}

/// A port of an engine that a test asks and waits for. Every wait ends within [`PATIENCE`], with a panic that says what was
/// awaited; what is answered with "retry" is repeated at most about as long. Arrivals that the trait forbids (a token answered twice, a gap, a piece above 1 MiB) make the next wait panic.
pub struct Probe {
    engine: Arc<dyn Engine>,
    port: Port,
    mailbox: Arc<Mailbox>,
    tokens: AtomicU64,
}

impl Probe {
    /// A new port.
    pub fn new(engine: &Arc<dyn Engine>) -> Self {
        let mailbox = Arc::new(Mailbox::default());
        let port = engine.attach(Arc::clone(&mailbox) as Arc<dyn Inbox>);
        Self { engine: Arc::clone(engine), port, mailbox, tokens: AtomicU64::new(0) }
    }

    /// The port.
    pub fn port(&self) -> Port {
        self.port
    }

    /// Where lane frames to this probe go.
    pub fn address(&self) -> Destination {
        Destination { node: self.engine.node(), port: self.port }
    }

    /// The engine.
    pub fn engine(&self) -> &Arc<dyn Engine> {
        &self.engine
    }

    /// Waits until `ready` finds what it looks for.
    fn wait<T>(&self, what: &str, mut ready: impl FnMut(&mut Seen) -> Option<T>) -> T {
        match self.wait_for(PATIENCE, &mut ready) {
            Some(found) => found,
            None => panic!("{what}: not within {PATIENCE:?}; {:?}", self.mailbox.lock()),
        }
    }

    fn wait_for<T>(&self, time: Duration, ready: &mut dyn FnMut(&mut Seen) -> Option<T>) -> Option<T> {
        let mut found = None;
        let look = |seen: &mut Seen| {
            found = ready(seen);
            found.is_none() && seen.violations.is_empty()
        };
        let waited = self.mailbox.arrived.wait_timeout_while(self.mailbox.lock(), time, look);
        let (seen, _) = waited.unwrap_or_else(PoisonError::into_inner);
        let violations = seen.violations.clone();
        drop(seen);
        assert!(violations.is_empty(), "the engine broke the contract: {violations:?}");
        found
    }

    /// Submits operations as one batch, without waiting.
    pub fn submit(&self, ops: Vec<Op>) -> Vec<Token> {
        let first = self.tokens.fetch_add(ops.len() as u64, Ordering::Relaxed);
        let tokens: Vec<Token> = (first..first + ops.len() as u64).collect();
        self.mailbox.lock().open.extend(&tokens);
        self.engine.submit(self.port, tokens.iter().copied().zip(ops).collect());
        tokens
    }

    /// Waits for one answer.
    pub fn answer(&self, token: Token) -> Result<Reply, EngineError> {
        self.wait(&format!("the answer to token {token}"), |seen| seen.answers.remove(&token))
    }

    /// Waits until all of these are answered; gives them in the order in which that happened.
    pub fn answered_in_order(&self, tokens: &[Token]) -> Vec<Token> {
        let wanted: HashSet<_> = tokens.iter().collect();
        self.wait("the answers", |seen| {
            let order: Vec<_> = seen.order.iter().filter(|token| wanted.contains(token)).copied().collect();
            (order.len() == tokens.len()).then_some(order)
        })
    }

    /// One operation, whatever its answer is.
    pub fn ask(&self, op: Op) -> Result<Reply, EngineError> {
        let token = self.submit(vec![op])[0];
        self.answer(token)
    }

    /// One operation that may be repeated, until its answer is neither Unavailable, Busy nor Unknown.
    pub fn settle(&self, op: &Op) -> Result<Reply, EngineError> {
        self.insist(op, &[EngineError::Unavailable, EngineError::Busy, EngineError::Unknown])
    }

    /// One operation, repeated while the answer is one of `again`.
    fn insist(&self, op: &Op, again: &[EngineError]) -> Result<Reply, EngineError> {
        let attempts = PATIENCE.as_millis() / PAUSE.as_millis();
        for _ in 0..attempts {
            match self.ask(op.clone()) {
                Err(error) if again.contains(&error) => std::thread::park_timeout(PAUSE),
                answer => return answer,
            }
        }
        panic!("{op:?} was answered with {again:?} {attempts} times");
    }

    /// Appends; gives the frame's sequence.
    pub fn append(&self, shard: Shard, frame: impl Into<Bytes>, id: DedupeId) -> u64 {
        let op = Op::Append { shard, frame: frame.into(), id, fence: None };
        match self.settle(&op) {
            Ok(Reply::Appended { seq }) => seq,
            other => panic!("append: {other:?}"),
        }
    }

    /// Reads frames.
    ///
    /// # Errors
    /// [`EngineError::Truncated`].
    pub fn read(&self, shard: Shard, after: Pos, max_bytes: usize) -> Result<Vec<LogFrame>, EngineError> {
        match self.settle(&Op::Read { shard, after, max_bytes })? {
            Reply::Frames(frames) => Ok(frames),
            other => panic!("read: {other:?}"),
        }
    }

    /// The whole log of a shard from a position on, in pages.
    pub fn read_all(&self, shard: Shard, mut after: Pos) -> Vec<LogFrame> {
        let mut all = Vec::new();
        loop {
            let page = self.read(shard, after, 64 << 10).expect("the log was not trimmed");
            let Some(last) = page.last() else { return all };
            after = Pos::end_of(last.seq);
            all.extend(page);
        }
    }

    /// The end of a shard.
    pub fn head(&self, shard: Shard) -> Pos {
        match self.settle(&Op::Head { shard }) {
            Ok(Reply::Head(pos)) => pos,
            other => panic!("head: {other:?}"),
        }
    }

    /// Trims a shard.
    pub fn trim(&self, shard: Shard, before: Pos) {
        assert_eq!(self.settle(&Op::Trim { shard, before }), Ok(Reply::Trimmed));
    }

    /// Reads a record.
    pub fn get(&self, key: &Key) -> Option<Record> {
        match self.settle(&Op::Get { key: key.clone() }) {
            Ok(Reply::Got(record)) => record,
            other => panic!("get: {other:?}"),
        }
    }

    /// Reads a page of records; the flag says whether there are more.
    pub fn scan(&self, prefix: &Key, after: Option<&Key>, limit: usize) -> (Vec<Record>, bool) {
        match self.settle(&Op::Scan { prefix: prefix.clone(), after: after.cloned(), limit }) {
            Ok(Reply::Scanned { records, more }) => (records, more),
            other => panic!("scan: {other:?}"),
        }
    }

    /// Writes a batch. After an unknown outcome it reads back: if all records are as written, it happened. So the written
    /// values must tell this batch from every other.
    ///
    /// # Errors
    /// As of [`Op::Put`]; never Busy or Unavailable. Unknown only if another writer has changed the records since.
    pub fn put(&self, writes: &[Write]) -> Result<Vec<Rev>, EngineError> {
        let op = Op::Put { writes: writes.to_vec() };
        loop {
            match self.insist(&op, &[EngineError::Unavailable, EngineError::Busy]) {
                Ok(Reply::Written(revs)) => return Ok(revs),
                Ok(other) => panic!("put: {other:?}"),
                Err(EngineError::Unknown) => {}
                Err(error) => return Err(error),
            }
            let now: Vec<_> = writes.iter().map(|w| self.get(&w.key)).collect();
            let written =
                |(w, r): (&Write, &Option<Record>)| r.as_ref().map(|r| &r.value) == w.value.as_ref();
            if writes.iter().zip(&now).all(written) {
                let passed = self.barrier(&writes[0].key);
                return Ok(now.into_iter().map(|r| r.map_or(passed, |r| r.rev)).collect());
            }
        }
    }

    /// Writes one record without condition; gives its revision.
    pub fn set(&self, key: &Key, value: impl Into<Value>) -> Rev {
        self.put(&[Write::put(key.clone(), value)]).expect("a write without condition")[0]
    }

    /// Passes a barrier.
    pub fn barrier(&self, prefix: &Key) -> Rev {
        match self.settle(&Op::Barrier { prefix: prefix.clone() }) {
            Ok(Reply::Passed(rev)) => rev,
            other => panic!("barrier: {other:?}"),
        }
    }

    /// Takes or renews a lease.
    ///
    /// # Errors
    /// [`EngineError::Fenced`] if another holds it.
    pub fn acquire(&self, key: &Key, holder: u64, ttl: Duration) -> Result<Epoch, EngineError> {
        match self.settle(&Op::Acquire { key: key.clone(), holder, ttl })? {
            Reply::Leased(held) => Ok(held.epoch),
            other => panic!("acquire: {other:?}"),
        }
    }

    /// Gives a lease back.
    pub fn release(&self, key: &Key, holder: u64) {
        assert_eq!(self.settle(&Op::Release { key: key.clone(), holder }), Ok(Reply::Released));
    }

    /// Starts or moves the tail of a shard.
    pub fn tail(&self, shard: Shard, after: Pos) {
        self.engine.tail(self.port, shard, after);
    }

    /// Waits until the tail of a shard has given a frame of at least this sequence, and takes all that it gave.
    pub fn frames_until(&self, shard: Shard, seq: u64) -> Vec<LogFrame> {
        self.wait(&format!("frame {seq} of {shard:?}"), |seen| {
            let frames = seen.frames.get_mut(&shard)?;
            if frames.last()?.seq < seq { None } else { Some(std::mem::take(frames)) }
        })
    }

    /// Waits until the tail of a shard was told of a truncation.
    pub fn truncated(&self, shard: Shard) -> Pos {
        self.wait(&format!("a truncation of {shard:?}"), |seen| seen.truncated.get_mut(&shard)?.pop())
    }

    /// Starts a watch.
    pub fn watch(&self, prefix: &Key) -> WatchId {
        self.engine.watch(self.port, prefix.clone())
    }

    /// Waits until the events of a watch so far satisfy `ready`, and gives a copy of all of them.
    pub fn watched(
        &self,
        watch: WatchId,
        what: &str,
        ready: impl Fn(&[WatchEvent]) -> bool,
    ) -> Vec<WatchEvent> {
        self.wait(what, |seen| seen.watches.get(&watch).filter(|events| ready(events)).cloned())
    }

    /// The events of a watch that have arrived, without waiting.
    pub fn watched_now(&self, watch: WatchId) -> Vec<WatchEvent> {
        self.mailbox.lock().watches.get(&watch).cloned().unwrap_or_default()
    }

    /// Sends a frame by lane, once.
    ///
    /// # Errors
    /// As of [`Engine::send`].
    pub fn send(&self, to: Destination, frame: impl Into<Bytes>) -> Result<(), EngineError> {
        self.engine.send(self.port, to, frame.into())
    }

    /// Waits until what came by lane satisfies `ready`, and gives a copy of all of it.
    pub fn lanes(&self, what: &str, ready: impl Fn(&[LaneEvent]) -> bool) -> Vec<LaneEvent> {
        self.wait(what, |seen| ready(&seen.lanes).then(|| seen.lanes.clone()))
    }

    /// Whether what came by lane satisfies `ready` within `time`.
    pub fn lane_within(&self, time: Duration, ready: impl Fn(&[LaneEvent]) -> bool) -> bool {
        self.wait_for(time, &mut |seen| ready(&seen.lanes).then_some(())).is_some()
    }

    /// Waits until this port is told that it has lost a lease.
    pub fn lost(&self, key: &Key) {
        self.wait(&format!("the loss of {key:?}"), |seen| seen.lost.contains(key).then_some(()));
    }

    /// Whether this port is told within `time` that it has lost a lease.
    pub fn lost_within(&self, key: &Key, time: Duration) -> bool {
        self.wait_for(time, &mut |seen| seen.lost.contains(key).then_some(())).is_some()
    }
}
