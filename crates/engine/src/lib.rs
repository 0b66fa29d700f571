//! What must be remembered, as four primitives: **lane**, **log**, **register**, **lease**.
//!
//! Everything that is MQTT (sessions, retained messages, wills, timers, bans) is written once above the
//! [`Engine`] trait; an implementation knows bytes, keys and positions only. `embedded` is to keep everything in a directory of this
//! machine and is not used yet; `memory` keeps nothing over a restart and exists for tests, benches and brokers that may forget.
//!
//! Must not know: MQTT, sockets, tokio, configuration files, wall clocks (leases take durations).
//!
//! How a worker talks to an engine: it [attaches](Engine::attach) an [`Inbox`] once, [submits](Engine::submit)
//! batches of operations with tokens of its own, and goes on. Completions, log frames, register changes and
//! lane frames come back through the inbox in batches. No connection ever waits inside a call.

mod arrival;
mod error;
mod key;
mod lane;
mod lease;
mod log;
mod op;
mod register;
mod thin;
mod turn;

#[cfg(any(test, feature = "contract"))]
pub mod contract;
pub mod embedded;
pub mod memory;

use std::sync::Arc;

pub use arrival::{Arrival, Inbox};
pub use error::EngineError;
pub use key::Key;
pub use lane::{Destination, NodeId};
pub use lease::{Epoch, Fence, Held};
pub use log::{DedupeId, LogFrame, Pos, Shard};
pub use op::{Op, Reply, Token};
pub use register::{Change, Expect, Record, Rev, Value, WatchId, Write};

/// Who submits and where its answers go: one for each worker (and for the control side). From [`Engine::attach`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Port(pub u16);

/// What an acknowledgement of this engine promises; shown in status and log, checked by the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Guarantees {
    /// `memory`, `embedded` or `nats`.
    pub kind: &'static str,
    /// How many copies an acknowledged write has. 1 for one machine.
    pub replicas: u16,
    /// Whether an acknowledged write survives the death of the process.
    pub survives_restart: bool,
    /// Number of log shards, 1 to 64, fixed when the data was created. A topic's shard is `hash(topic) % shards`.
    pub shards: u16,
    /// The largest log frame in bytes; a message that does not fit gets Packet too large (0x95).
    pub max_frame: usize,
    /// The largest value of the register in bytes.
    pub max_value: usize,
}

/// An implementation of the four primitives.
///
/// Every method returns at once. The order of the effects of one port's operations is the order in which they
/// were submitted; operations of different ports are ordered by the engine. See the module `contract` (a feature of
/// this crate) for the suite that every implementation passes.
pub trait Engine: Send + Sync + 'static {
    /// What an acknowledgement promises.
    fn guarantees(&self) -> Guarantees;

    /// This process in the cluster (alone: a constant).
    fn node(&self) -> NodeId;

    /// Joins as a further submitter. All answers for the returned port, and lane frames addressed to it
    /// (`Destination::port`), are given to `inbox`, on a thread of the engine.
    fn attach(&self, inbox: Arc<dyn Inbox>) -> Port;

    /// Starts operations; each is answered by exactly one [`Arrival::Done`] with its token, in any order.
    ///
    /// Bounded: an operation above the engine's queue bound is answered with [`EngineError::Busy`] and has had
    /// no effect. The submitter then stops reading the socket that caused it and tries again later.
    fn submit(&self, port: Port, batch: Vec<(Token, Op)>);

    /// From now on gives every log frame of `shard` after `after` to the port, in order, without gap or
    /// duplicate, as [`Arrival::Frames`]; if `after` has been trimmed away, first [`Arrival::Truncated`], and goes on
    /// from the first frame that is left. One tail per port and shard; a second call moves it (frames of the old place that
    /// are already on their way still come).
    fn tail(&self, port: Port, shard: Shard, after: Pos);

    /// Feeds the port with every record under `prefix`, then [`Arrival::WatchReady`], then with every change in the order of
    /// revisions, as [`Arrival::Changed`]. Never skips one in silence. A [`Op::Barrier`] on a prefix is answered only after all
    /// watchers of this process were given all changes that were acknowledged before it.
    fn watch(&self, port: Port, prefix: Key) -> WatchId;

    /// Lane: at most once, in order for each pair of sender and destination, numbered so that the receiver is told of a loss
    /// ([`Arrival::LaneGap`]).
    ///
    /// # Errors
    /// [`EngineError::Busy`] at the bound of the destination's queue: nothing was sent. [`EngineError::Unavailable`] if there
    /// is no such destination as far as this process knows, [`EngineError::TooLarge`] above [`Guarantees::max_frame`].
    fn send(&self, from: Port, to: Destination, frame: bytes::Bytes) -> Result<(), EngineError>;

    /// Ends the engine's threads after all that was submitted has been answered; waits at most a few seconds.
    /// What is submitted from then on is answered with [`EngineError::Unavailable`], from within [`Self::submit`].
    fn shutdown(&self);
}
