//! What the engines of one process have in common: a thread that does what ports submit, in turns.
//!
//! `driver` is the thread; `intake` is the bounded queue between the callers and the thread; `outbox` is what a turn gives back.
//! The other files are parts of which an engine is made: the records of the register, leases, tails, watches, the window in which
//! a repeated append is recognised. [`Front`] is the side that callers see.
//!
//! Must not know: where an engine keeps what it remembers.

pub(crate) mod dedupe;
mod driver;
mod intake;
pub(crate) mod lease;
pub(crate) mod outbox;
pub(crate) mod register;
pub(crate) mod tail;
pub(crate) mod watch;

use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{JoinHandle, ThreadId};
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::{Arrival, Destination, EngineError, Inbox, Key, NodeId, Op, Port, Pos, Shard, Token, WatchId};
use driver::{Driver, Phase, Shared};
use intake::{Command, Intake};
use outbox::Outbox;

/// How long [`Front::shutdown`] waits for the thread.
const PATIENCE: Duration = Duration::from_secs(5);

/// How many bytes of operations a turn takes at most before it ends.
pub(crate) const TURN_BYTES: usize = 4 << 20;

/// An engine without its thread: operations and the time go in, arrivals come out. A turn is [`Self::begin`], any number of
/// operations, [`Self::end`]; then the outbox is delivered.
pub(crate) trait Turns: Send + 'static {
    /// Begins a turn at a time that is never before that of the last one.
    fn begin(&mut self, now: Duration, out: &mut Outbox);

    /// Does one operation. Its answer is in the outbox by the end of the turn or (a barrier) of a later one.
    fn apply(&mut self, port: Port, token: Token, op: Op, out: &mut Outbox);

    /// See [`crate::Engine::tail`].
    fn tail(&mut self, port: Port, shard: Shard, after: Pos);

    /// See [`crate::Engine::watch`].
    fn watch(&mut self, port: Port, id: WatchId, prefix: Key);

    /// Ends a turn: makes what was done as durable as it is promised, answers, feeds tails and watches.
    fn end(&mut self, out: &mut Outbox);

    /// Whether another turn has something to do even if nothing new comes.
    fn has_backlog(&self) -> bool;

    /// Whether an operation that was taken has not been answered.
    fn owes_answers(&self) -> bool;

    /// When the next turn is due even if nothing comes.
    fn deadline(&self) -> Option<Duration>;
}

/// The bounds between callers and the thread.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// Operations that were submitted and not yet answered.
    pub(crate) queue: usize,
    /// Bytes of operations that wait.
    pub(crate) queue_bytes: usize,
    /// Lane frames on their way to one port.
    pub(crate) lane_queue: usize,
    /// Bytes of them.
    pub(crate) lane_bytes: usize,
    /// The largest lane frame in bytes.
    pub(crate) max_frame: usize,
}

/// What callers have of an engine: its queue, and the thread behind it. Dropping it shuts the thread down.
///
/// At the bound of the queue, the rest of a batch from the first refused operation on is refused, so that no later
/// operation of the batch overtakes an earlier one.
pub(crate) struct Front {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
    engine_thread: ThreadId,
    node: NodeId,
}

impl Front {
    /// Starts the thread. `clock` gives monotonic time. (The thread sleeps by the system's clock: with a clock of its own that
    /// is moved by hand, a deadline is met at the next call after its time.)
    ///
    /// # Panics
    /// If the system can't start a thread.
    pub(crate) fn start(bounds: &Bounds, node: NodeId, state: impl Turns, clock: fn() -> Instant) -> Self {
        let shared = Arc::new(Shared::new(Intake::new(bounds)));
        let driver = Driver::new(Arc::clone(&shared), state, clock);
        let thread = std::thread::Builder::new()
            .name("engine".into())
            .spawn(move || driver.run())
            .expect("the system can start a thread");
        let engine_thread = thread.thread().id();
        Self { shared, thread: Mutex::new(Some(thread)), engine_thread, node }
    }

    pub(crate) fn node(&self) -> NodeId {
        self.node
    }

    /// Queues a command, unless the engine has been shut down.
    fn command(&self, command: Command) {
        let mut gate = self.shared.lock();
        if gate.phase == Phase::Running {
            gate.intake.commands.push_back(command);
            self.shared.wake(gate);
        }
    }

    pub(crate) fn attach(&self, inbox: Arc<dyn Inbox>) -> Port {
        self.shared.lock().intake.attach(inbox)
    }

    pub(crate) fn submit(&self, port: Port, batch: Vec<(Token, Op)>) {
        let mut gate = self.shared.lock();
        let Some(inbox) = gate.intake.inbox(port) else {
            drop(gate);
            tracing::error!(port = port.0, "operations were submitted for a port that does not exist");
            return;
        };
        if gate.phase == Phase::Running {
            gate.intake.submit(port, batch);
            self.shared.wake(gate);
        } else {
            let inbox = Arc::clone(inbox);
            drop(gate);
            let refuse = |(token, _)| Arrival::Done { token, result: Err(EngineError::Unavailable) };
            inbox.deliver(batch.into_iter().map(refuse).collect());
        }
    }

    pub(crate) fn tail(&self, port: Port, shard: Shard, after: Pos) {
        self.command(Command::Tail(port, shard, after));
    }

    pub(crate) fn watch(&self, port: Port, prefix: Key) -> WatchId {
        let mut gate = self.shared.lock();
        let id = gate.intake.next_watch();
        if gate.phase == Phase::Running {
            gate.intake.commands.push_back(Command::Watch(port, id, prefix));
            self.shared.wake(gate);
        }
        id
    }

    pub(crate) fn send(&self, from: Port, to: Destination, frame: Bytes) -> Result<(), EngineError> {
        let mut gate = self.shared.lock();
        if to.node != self.node || gate.phase != Phase::Running {
            return Err(EngineError::Unavailable);
        }
        gate.intake.send(self.node, from, to.port, frame)?;
        self.shared.wake(gate);
        Ok(())
    }

    pub(crate) fn shutdown(&self) {
        // An inbox that shuts down its own engine can't wait for itself.
        let own = self.engine_thread == std::thread::current().id();
        let ended = self.shared.stop(if own { Duration::ZERO } else { PATIENCE });
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if ended && let Some(thread) = thread {
            // A panic of the thread has been reported where it happened.
            let _ = thread.join();
        }
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        self.shutdown();
    }
}
