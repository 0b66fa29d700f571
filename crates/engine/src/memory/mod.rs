//! The engine that keeps everything in memory: for tests, benches and brokers that may forget.
//!
//! `state` is the engine without time and threads; the thread that runs it is that of `turn`.
//!
//! Nothing survives a restart; within the process every promise of [`Engine`] holds. Lanes never lose a frame that
//! was accepted, so [`crate::Arrival::LaneGap`] does not occur.

mod log;
#[cfg(test)]
mod simulation;
pub(crate) mod state;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::turn::{Bounds, Front};
use crate::{
    Destination, Engine, EngineError, Guarantees, Inbox, Key, NodeId, Op, Port, Pos, Shard, Token, WatchId,
};
use state::State;

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
    front: Front,
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
        let bounds = Bounds {
            queue: config.queue,
            queue_bytes: config.queue_bytes,
            lane_queue: config.lane_queue,
            lane_bytes: config.lane_bytes,
            max_frame: config.max_frame,
        };
        let front = Front::start(&bounds, config.node, State::new(&config), clock);
        Arc::new(Self { front, config })
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
        self.front.node()
    }

    fn attach(&self, inbox: Arc<dyn Inbox>) -> Port {
        self.front.attach(inbox)
    }

    fn submit(&self, port: Port, batch: Vec<(Token, Op)>) {
        self.front.submit(port, batch);
    }

    fn tail(&self, port: Port, shard: Shard, after: Pos) {
        self.front.tail(port, shard, after);
    }

    fn watch(&self, port: Port, prefix: Key) -> WatchId {
        self.front.watch(port, prefix)
    }

    fn send(&self, from: Port, to: Destination, frame: Bytes) -> Result<(), EngineError> {
        self.front.send(from, to, frame)
    }

    fn shutdown(&self) {
        self.front.shutdown();
    }
}
