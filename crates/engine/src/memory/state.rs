//! The engine without its thread: operations and the time go in, arrivals come out.
//!
//! The same turns ([`Turns`]) at
//! the same times give the same arrivals, so a test can run it on simulated time.
//!
//! Must not know: threads, locks, clocks.

use std::time::Duration;

use super::MemoryConfig;
use super::log::ShardLog;
use crate::turn::dedupe::{Reach, Window};
use crate::turn::lease::Leases;
use crate::turn::outbox::Outbox;
use crate::turn::register::{Register, Written};
use crate::turn::tail::Tails;
use crate::turn::watch::Watches;
use crate::turn::{TURN_BYTES, Turns};
use crate::{Arrival, DedupeId, EngineError, Fence, Key, Op, Port, Pos, Reply, Shard, Token, WatchId, Write};

/// All that the engine remembers. Times are measured from any fixed moment.
#[derive(Clone, Debug)]
pub(crate) struct State {
    logs: Vec<ShardLog>,
    register: Register,
    leases: Leases,
    tails: Tails,
    watches: Watches,
    max_frame: usize,
    max_value: usize,
    max_register_bytes: usize,
    /// More than a turn can append, so that no tail falls behind for being fed in pieces.
    tail_bytes: usize,
    now: Duration,
    backlog: bool,
}

impl State {
    pub(crate) fn new(config: &MemoryConfig) -> Self {
        let reach = Reach {
            appends: config.dedupe_appends,
            time: config.dedupe_time,
            max_ids: config.dedupe_max_ids.max(config.dedupe_appends),
        };
        let shard = || ShardLog::new(config.max_log_bytes, Window::new(reach));
        Self {
            logs: std::iter::repeat_with(shard).take(usize::from(config.shards)).collect(),
            register: Register::default(),
            leases: Leases::default(),
            tails: Tails::default(),
            watches: Watches::default(),
            max_frame: config.max_frame,
            max_value: config.max_value,
            max_register_bytes: config.max_register_bytes,
            tail_bytes: 2 * TURN_BYTES + config.max_frame,
            now: Duration::ZERO,
            backlog: false,
        }
    }

    fn log(&mut self, shard: Shard) -> Result<&mut ShardLog, EngineError> {
        self.logs.get_mut(usize::from(shard.0)).ok_or(EngineError::Corrupt)
    }

    fn append(
        &mut self,
        shard: Shard,
        frame: bytes::Bytes,
        id: DedupeId,
        fence: Option<&Fence>,
    ) -> Result<Reply, EngineError> {
        if frame.len() > self.max_frame {
            return Err(EngineError::TooLarge);
        }
        // First: the frame lies in the log, whoever holds the lease by now.
        if let Some(seq) = self.log(shard)?.find(id) {
            return Ok(Reply::Appended { seq });
        }
        if let Some(fence) = fence {
            self.leases.check(fence)?;
        }
        let now = self.now;
        Ok(Reply::Appended { seq: self.log(shard)?.append(frame, id, now) })
    }

    fn scan(&self, prefix: &Key, after: Option<&Key>, limit: usize) -> Reply {
        let mut found = self.register.range(prefix, after);
        let records = found.by_ref().take(limit.max(1)).collect();
        Reply::Scanned { records, more: found.next().is_some() }
    }

    fn put(&mut self, writes: Vec<Write>, out: &mut Outbox) -> Result<Reply, EngineError> {
        let too_large = |w: &Write| {
            w.key.as_bytes().len() > Key::MAX_LEN
                || w.value.as_ref().is_some_and(|value| value.len() > self.max_value)
        };
        if writes.iter().any(too_large) {
            return Err(EngineError::TooLarge);
        }
        writes.iter().filter_map(|w| w.fence.as_ref()).try_for_each(|fence| self.leases.check(fence))?;
        self.register.check(&writes, self.room())?;
        let mut revs = Vec::with_capacity(writes.len());
        for write in writes {
            let Written { rev, change, .. } = self.register.write(write);
            revs.push(rev);
            if let Some(change) = change {
                self.watches.note(&change, out);
            }
        }
        Ok(Reply::Written(revs))
    }

    fn acquire(&mut self, port: Port, key: Key, holder: u64, ttl: Duration) -> Result<Reply, EngineError> {
        if key.as_bytes().len() > Key::MAX_LEN {
            return Err(EngineError::TooLarge);
        }
        let until = self.now.checked_add(ttl);
        let room = self.room();
        self.leases.acquire(port, key, holder, until, room).map(Reply::Leased)
    }

    /// How many bytes of records and leases may still be added.
    fn room(&self) -> usize {
        self.max_register_bytes.saturating_sub(self.register.bytes() + self.leases.bytes())
    }
}

impl Turns for State {
    fn begin(&mut self, now: Duration, out: &mut Outbox) {
        self.now = self.now.max(now);
        while let Some((port, key)) = self.leases.expire(self.now) {
            out.push(port, Arrival::LeaseLost { key });
        }
        self.watches.answer_barriers(out);
    }

    fn end(&mut self, out: &mut Outbox) {
        let tails_left = self.tails.feed(&mut self.logs, self.tail_bytes, out);
        let watches_left = self.watches.feed(&self.register, out);
        self.backlog = tails_left || watches_left;
    }

    fn has_backlog(&self) -> bool {
        self.backlog || self.owes_answers()
    }

    fn owes_answers(&self) -> bool {
        self.watches.has_barriers()
    }

    fn deadline(&self) -> Option<Duration> {
        self.leases.deadline()
    }

    fn tail(&mut self, port: Port, shard: Shard, after: Pos) {
        if usize::from(shard.0) < self.logs.len() {
            self.tails.set(port, shard, after);
        } else {
            tracing::error!(shard = shard.0, "a tail was asked for a shard that does not exist");
        }
    }

    fn watch(&mut self, port: Port, id: WatchId, prefix: Key) {
        self.watches.add(port, id, prefix);
    }

    fn apply(&mut self, port: Port, token: Token, op: Op, out: &mut Outbox) {
        let result = match op {
            Op::Append { shard, frame, id, fence } => self.append(shard, frame, id, fence.as_ref()),
            Op::Read { shard, after, max_bytes } => {
                self.log(shard).and_then(|log| log.read(after, max_bytes)).map(Reply::Frames)
            }
            Op::Head { shard } => self.log(shard).map(|log| match log.head() {
                0 => Reply::Head(Pos::START),
                seq => Reply::Head(Pos::end_of(seq)),
            }),
            Op::Trim { shard, before } => self.log(shard).map(|log| {
                log.trim(before.seq());
                Reply::Trimmed
            }),
            Op::Get { key } => Ok(Reply::Got(self.register.get(&key))),
            Op::Scan { prefix, after, limit } => Ok(self.scan(&prefix, after.as_ref(), limit)),
            Op::Put { writes } => self.put(writes, out),
            Op::Barrier { prefix } => {
                return self.watches.barrier(port, token, &prefix, self.register.rev());
            }
            Op::Acquire { key, holder, ttl } => self.acquire(port, key, holder, ttl),
            Op::Release { key, holder } => {
                self.leases.release(&key, holder);
                Ok(Reply::Released)
            }
        };
        out.answer(port, token, result);
    }
}
