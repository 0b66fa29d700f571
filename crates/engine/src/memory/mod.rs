//! The engine that keeps everything in memory: for tests, benches and brokers that may forget.
//!
//! `state` is the engine without time and threads; `driver` is the thread that runs it; `intake` is the bounded queue
//! between the callers and the thread. The other files are the parts of the state.
//!
//! Nothing survives a restart; within the process every promise of [`Engine`] holds. Lanes never lose a frame that
//! was accepted, so [`crate::Arrival::LaneGap`] does not occur.

mod dedupe;
mod driver;
mod intake;
mod lease;
mod log;
mod outbox;
mod register;
#[cfg(test)]
mod simulation;
mod state;
mod tail;
#[cfg(test)]
mod tests;
mod watch;

use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{JoinHandle, ThreadId};
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::{
    Arrival, Destination, Engine, EngineError, Guarantees, Inbox, Key, NodeId, Op, Port, Pos, Shard, Token,
    WatchId,
};
use driver::{Driver, Phase, Shared};
use intake::{Command, Intake};
use state::State;

/// How long [`Engine::shutdown`] waits for the thread.
const PATIENCE: Duration = Duration::from_secs(5);

/// The bounds of a [`MemoryEngine`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemoryConfig {
    /// Log shards, 1 to 64 (brought into the range). Default 4.
    pub shards: u16,
    /// Bytes of frames kept for each shard; at the bound the oldest are dropped, and whoever still reads there is told
    /// `Truncated`. Default 64 MiB.
    pub max_log_bytes: usize,
    /// Bytes of records and leases; a [`Op::Put`] or [`Op::Acquire`] that would go beyond is answered with Busy.
    /// Default 1 GiB.
    pub max_register_bytes: usize,
    /// Operations that were submitted and not yet answered; beyond it they are answered with Busy. Default 65,536.
    pub queue: usize,
    /// Bytes of operations that wait, as above. Default 256 MiB.
    pub queue_bytes: usize,
    /// Lane frames on their way to one port; beyond it [`Engine::send`] is Busy. Default 65,536.
    pub lane_queue: usize,
    /// Bytes of lane frames on their way to one port, as above. Default 64 MiB.
    pub lane_bytes: usize,
    /// The largest frame of log and lane in bytes. Default 2 MiB.
    pub max_frame: usize,
    /// The largest value of the register in bytes. Default 2 MiB.
    pub max_value: usize,
    /// An append is recognised as a repetition among at least so many last appends of its shard. Default 65,536.
    pub dedupe_appends: usize,
    /// ... and for at least so long, as far as `dedupe_max_ids` allows. Default 10 minutes.
    pub dedupe_time: Duration,
    /// Ids remembered for each shard (about 30 bytes each); beyond it the oldest are forgotten before their time.
    /// The default of 1,048,576 is reached at 1,747 frames a second.
    pub dedupe_max_ids: usize,
    /// What [`Engine::node`] says. Default 1.
    pub node: NodeId,
}

impl Default for MemoryConfig {
    fn default() -> Self {
        Self {
            shards: 4,
            max_log_bytes: 64 << 20,
            max_register_bytes: 1 << 30,
            queue: 65_536,
            queue_bytes: 256 << 20,
            lane_queue: 65_536,
            lane_bytes: 64 << 20,
            max_frame: 2 << 20,
            max_value: 2 << 20,
            dedupe_appends: 65_536,
            dedupe_time: Duration::from_secs(600),
            dedupe_max_ids: 1 << 20,
            node: NodeId(1),
        }
    }
}

/// An [`Engine`] in the memory of this process, with one thread. Dropping it shuts it down.
///
/// At the bound of the queue, the rest of a batch from the first refused operation on is refused, so that no later
/// operation of the batch overtakes an earlier one.
pub struct MemoryEngine {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
    engine_thread: ThreadId,
    config: MemoryConfig,
}

impl MemoryEngine {
    /// Starts an empty engine. `clock` gives monotonic time; leases run out by it. (The thread sleeps by the system's
    /// clock: with a clock of its own that is moved by hand, a lease runs out at the next call after its time.)
    ///
    /// # Panics
    /// If the system can't start a thread.
    pub fn new(mut config: MemoryConfig, clock: fn() -> Instant) -> Arc<Self> {
        config.shards = config.shards.clamp(1, 64);
        let shared = Arc::new(Shared::new(Intake::new(&config)));
        let driver = Driver::new(Arc::clone(&shared), State::new(&config), clock);
        let thread = std::thread::Builder::new()
            .name("engine".into())
            .spawn(move || driver.run())
            .expect("the system can start a thread");
        let engine_thread = thread.thread().id();
        Arc::new(Self { shared, thread: Mutex::new(Some(thread)), engine_thread, config })
    }

    /// Queues a command, unless the engine has been shut down.
    fn command(&self, command: Command) {
        let mut gate = self.shared.lock();
        if gate.phase == Phase::Running {
            gate.intake.commands.push_back(command);
            self.shared.wake(gate);
        }
    }
}

impl Engine for MemoryEngine {
    fn guarantees(&self) -> Guarantees {
        Guarantees {
            kind: "memory",
            replicas: 1,
            survives_restart: false,
            shards: self.config.shards,
            max_frame: self.config.max_frame,
            max_value: self.config.max_value,
        }
    }

    fn node(&self) -> NodeId {
        self.config.node
    }

    fn attach(&self, inbox: Arc<dyn Inbox>) -> Port {
        self.shared.lock().intake.attach(inbox)
    }

    fn submit(&self, port: Port, batch: Vec<(Token, Op)>) {
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

    fn tail(&self, port: Port, shard: Shard, after: Pos) {
        self.command(Command::Tail(port, shard, after));
    }

    fn watch(&self, port: Port, prefix: Key) -> WatchId {
        let mut gate = self.shared.lock();
        let id = gate.intake.next_watch();
        if gate.phase == Phase::Running {
            gate.intake.commands.push_back(Command::Watch(port, id, prefix));
            self.shared.wake(gate);
        }
        id
    }

    fn send(&self, from: Port, to: Destination, frame: Bytes) -> Result<(), EngineError> {
        let mut gate = self.shared.lock();
        if to.node != self.config.node || gate.phase != Phase::Running {
            return Err(EngineError::Unavailable);
        }
        gate.intake.send(self.config.node, from, to.port, frame)?;
        self.shared.wake(gate);
        Ok(())
    }

    fn shutdown(&self) {
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

impl Drop for MemoryEngine {
    fn drop(&mut self) {
        self.shutdown();
    }
}
