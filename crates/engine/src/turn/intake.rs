//! What waits for the engine's thread: bounded queues of operations and of lane frames.
//!
//! Must not know: how operations are done. Lives under the driver's lock.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;

use super::Bounds;
use crate::{Arrival, EngineError, Inbox, Key, NodeId, Op, Port, Pos, Shard, Token, WatchId, Write};

/// What an operation or lane frame costs in a queue beyond its bytes.
const OP_COST: usize = 128;

/// Work for the engine's thread, in the order in which it came.
pub(crate) enum Command {
    /// Operations that were admitted.
    Batch(Port, std::vec::IntoIter<(Token, Op)>),
    /// Operations that were not: to be answered with Busy. What they held has been let go, so that a submitter who does
    /// not stop costs a number for each.
    Refused(Port, Vec<Token>),
    /// See [`crate::Engine::tail`].
    Tail(Port, Shard, Pos),
    /// See [`crate::Engine::watch`].
    Watch(Port, WatchId, Key),
}

/// Frames on their way to one port.
#[derive(Default)]
struct Lane {
    arrivals: Vec<Arrival>,
    bytes: usize,
}

/// One port of the engine.
struct Attached {
    inbox: Arc<dyn Inbox>,
    lane: Lane,
}

/// All that waits, and whom it is for.
pub(crate) struct Intake {
    pub(crate) commands: VecDeque<Command>,
    ports: Vec<Attached>,
    /// Ports with lane frames.
    lanes: Vec<Port>,
    watches: u64,
    /// Operations admitted and not yet answered.
    ops: usize,
    /// Bytes of operations admitted and not yet done.
    bytes: usize,
    max_ops: usize,
    max_bytes: usize,
    max_lane_frames: usize,
    max_lane_bytes: usize,
    max_frame: usize,
}

impl Intake {
    pub(crate) fn new(bounds: &Bounds) -> Self {
        Self {
            commands: VecDeque::new(),
            ports: Vec::new(),
            lanes: Vec::new(),
            watches: 0,
            ops: 0,
            bytes: 0,
            max_ops: bounds.queue,
            max_bytes: bounds.queue_bytes,
            max_lane_frames: bounds.lane_queue,
            max_lane_bytes: bounds.lane_bytes,
            max_frame: bounds.max_frame,
        }
    }

    /// A further port.
    ///
    /// # Panics
    /// Beyond 65,535 ports.
    pub(crate) fn attach(&mut self, inbox: Arc<dyn Inbox>) -> Port {
        let port = Port(u16::try_from(self.ports.len()).expect("a process has fewer than 65,536 ports"));
        self.ports.push(Attached { inbox, lane: Lane::default() });
        port
    }

    pub(crate) fn inbox(&self, port: Port) -> Option<&Arc<dyn Inbox>> {
        self.ports.get(usize::from(port.0)).map(|attached| &attached.inbox)
    }

    /// The inboxes of the ports from `known` on.
    pub(crate) fn inboxes(&self, known: usize) -> impl Iterator<Item = Arc<dyn Inbox>> {
        self.ports.iter().skip(known).map(|attached| Arc::clone(&attached.inbox))
    }

    /// Queues a batch as far as the bounds allow. From the first operation that does not fit, the rest of the batch is
    /// refused, so that no later operation of it overtakes a refused one.
    pub(crate) fn submit(&mut self, port: Port, mut batch: Vec<(Token, Op)>) {
        let mut admitted = 0;
        for (_, op) in &batch {
            let cost = op_cost(op);
            // An operation larger than the bound passes when nothing else waits; its own size was bounded by its maker.
            let fits = self.bytes == 0 || self.bytes + cost <= self.max_bytes;
            if self.ops >= self.max_ops || !fits {
                break;
            }
            self.ops += 1;
            self.bytes += cost;
            admitted += 1;
        }
        let refused: Vec<Token> = batch.drain(admitted..).map(|(token, _)| token).collect();
        if !batch.is_empty() {
            self.commands.push_back(Command::Batch(port, batch.into_iter()));
        }
        if !refused.is_empty() {
            self.commands.push_back(Command::Refused(port, refused));
        }
    }

    pub(crate) fn next_watch(&mut self) -> WatchId {
        self.watches += 1;
        WatchId(self.watches)
    }

    pub(crate) fn send(
        &mut self,
        node: NodeId,
        port: Port,
        to: Port,
        frame: Bytes,
    ) -> Result<(), EngineError> {
        let attached = self.ports.get_mut(usize::from(to.0)).ok_or(EngineError::Unavailable)?;
        let lane = &mut attached.lane;
        if frame.len() > self.max_frame {
            return Err(EngineError::TooLarge);
        }
        let cost = frame.len() + OP_COST;
        let full = !lane.arrivals.is_empty() && lane.bytes + cost > self.max_lane_bytes;
        if full || lane.arrivals.len() >= self.max_lane_frames {
            return Err(EngineError::Busy);
        }
        if lane.arrivals.is_empty() {
            self.lanes.push(to);
        }
        lane.bytes += cost;
        lane.arrivals.push(Arrival::Lane { from: node, port, frame });
        Ok(())
    }

    /// Whether the thread has something to do.
    pub(crate) fn is_empty(&self) -> bool {
        self.commands.is_empty() && self.lanes.is_empty()
    }

    /// Takes the lane frames that wait.
    pub(crate) fn take_lanes(&mut self) -> Vec<(Port, Vec<Arrival>)> {
        let ports = &mut self.ports;
        let take = |port: Port| {
            let lane = &mut ports.get_mut(usize::from(port.0))?.lane;
            lane.bytes = 0;
            Some((port, std::mem::take(&mut lane.arrivals)))
        };
        self.lanes.drain(..).filter_map(take).collect()
    }

    /// Makes room: so many operations were answered, and operations of so many bytes were done.
    pub(crate) fn settle(&mut self, answered: usize, done_bytes: usize) {
        self.ops -= answered;
        self.bytes -= done_bytes;
    }
}

/// What an operation costs while it waits.
pub(crate) fn op_cost(op: &Op) -> usize {
    let fence = |fence: &Option<crate::Fence>| fence.as_ref().map_or(0, |f| f.lease.as_bytes().len());
    let write = |w: &Write| {
        OP_COST + w.key.as_bytes().len() + w.value.as_ref().map_or(0, |value| value.len()) + fence(&w.fence)
    };
    OP_COST
        + match op {
            Op::Append { frame, fence: f, .. } => frame.len() + fence(f),
            Op::Put { writes } => writes.iter().map(write).sum(),
            Op::Get { key } | Op::Acquire { key, .. } | Op::Release { key, .. } => key.as_bytes().len(),
            Op::Scan { prefix, after, .. } => {
                prefix.as_bytes().len() + after.as_ref().map_or(0, |k| k.as_bytes().len())
            }
            Op::Barrier { prefix } => prefix.as_bytes().len(),
            Op::Read { .. } | Op::Head { .. } | Op::Trim { .. } => 0,
        }
}
