//! The embedded engine without its thread: operations and the time go in, arrivals come out, files are written between.
//!
//! A turn's operations are done in memory one after the other, so that each sees what was submitted before it, and what they change is gathered
//! in one group. At the end of the turn the group is written and synced; only then is anything of it answered, given to tails or to
//! watchers. If it can't be written, all of it is taken back and answered with an error. While this turn is
//! synced, the operations of the next one gather in the queue: the slower the disk, the larger the groups.
//!
//! Must not know: threads, locks, clocks.

use std::io;
use std::time::Duration;

use bytes::Bytes;

use super::checkpoint::{Checkpoint, register_name};
use super::disk::Disk;
use super::format::GroupBuffer;
use super::journal::{Appended, Start};
use super::log::Logs;
use super::recovery::Found;
use super::{EmbeddedConfig, Sync};
use crate::turn::lease::Leases;
use crate::turn::outbox::Outbox;
use crate::turn::register::{Register, Written};
use crate::turn::tail::Tails;
use crate::turn::watch::Watches;
use crate::turn::{TURN_BYTES, Turns};
use crate::{
    Arrival, Change, DedupeId, EngineError, Epoch, Fence, Key, Op, Port, Pos, Reply, Rev, Shard, Token,
    Value, WatchId, Write,
};

/// After a failure the disk is left alone for so long; what needs it is refused meanwhile.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// What a turn has done in memory and not yet written.
#[derive(Default)]
struct Staged {
    group: GroupBuffer,
    frames: Vec<Appended>,
    /// Records before their writes, in the order of the writes.
    undo: Vec<(Key, Option<(Value, Rev)>)>,
    changes: Vec<Change>,
    /// Answers that may not go before the group is durable, in order.
    answers: Vec<(Port, Token, Result<Reply, EngineError>)>,
    barriers: Vec<(Port, Token, Key)>,
}

/// All that the engine remembers. Times are measured from the start of the process.
pub(crate) struct State<D: Disk> {
    logs: Logs<D>,
    register: Register,
    leases: Leases,
    tails: Tails,
    watches: Watches,
    staged: Staged,
    /// Shards that were trimmed since the last group.
    trimmed: Vec<Shard>,
    config: EmbeddedConfig,
    tail_bytes: usize,
    now: Duration,
    /// For how long the journal was open before this process.
    base: Duration,
    backlog: bool,
    /// The revision of the last write that is in the journal.
    rev: Rev,
    down: Option<(EngineError, Duration)>,
    synced_at: Duration,
    /// The register's file holds all writes up to this group.
    checkpoint: u64,
    writing: Option<Checkpoint<D::File>>,
    /// Bytes of the journal when the last checkpoint began.
    journaled: u64,
    checkpointed: u64,
    /// After a failure nothing is cleaned up before this time.
    clean_at: Duration,
    cleaning: bool,
}

impl<D: Disk> State<D> {
    pub(crate) fn new(found: Found<D>, config: &EmbeddedConfig) -> Self {
        let incarnation = found.journal.incarnation();
        let rev = found.register.rev();
        Self {
            logs: Logs::new(found.journal, found.shards, config.recent_bytes),
            register: found.register,
            // each start has two to the power of 32 of them
            leases: Leases::after(Epoch(incarnation << 32)),
            tails: Tails::default(),
            watches: Watches::default(),
            staged: Staged::default(),
            trimmed: Vec::new(),
            config: config.clone(),
            tail_bytes: 2 * TURN_BYTES + config.max_frame,
            now: Duration::ZERO,
            base: found.time,
            backlog: false,
            rev,
            down: None,
            synced_at: Duration::ZERO,
            checkpoint: found.checkpoint,
            writing: None,
            journaled: found.report.groups.min(1) * config.segment_bytes,
            checkpointed: 0,
            clean_at: Duration::ZERO,
            cleaning: true,
        }
    }

    /// Makes everything durable, whatever was promised: the process ends in order.
    pub(crate) fn finish(&mut self) -> io::Result<()> {
        self.logs.journal.sync()
    }

    fn append(&mut self, shard: Shard, frame: Bytes, id: DedupeId, fence: Option<&Fence>) -> Done {
        if frame.len() > self.config.max_frame {
            return Done::Now(Err(EngineError::TooLarge));
        }
        // First: the frame lies in the log, whoever holds the lease by now.
        match self.logs.find(shard, id) {
            Ok(Some((seq, staged))) => {
                let reply = Ok(Reply::Appended { seq });
                return if staged { Done::Staged(reply) } else { Done::Now(reply) };
            }
            Err(error) => return Done::Now(Err(error)),
            Ok(None) => {}
        }
        let fenced = fence.map_or(Ok(()), |fence| self.leases.check(fence));
        if let Err(error) = fenced.and_then(|()| self.may_write()) {
            return Done::Now(Err(error));
        }
        match self.logs.last(shard) {
            Ok(last) => {
                let seq = last + 1;
                self.staged.group.append(shard.0, seq, id.0, &frame);
                self.logs.stage(shard, frame, id);
                self.staged.frames.push(Appended { shard: shard.0, seq, id: id.0 });
                Done::Staged(Ok(Reply::Appended { seq }))
            }
            Err(error) => Done::Now(Err(error)),
        }
    }

    fn put(&mut self, writes: Vec<Write>) -> Done {
        match self.check(&writes) {
            Err(error) => Done::Now(Err(error)),
            Ok(()) => {
                self.staged.group.put(self.register.rev().0 + 1, writes.len());
                let mut revs = Vec::with_capacity(writes.len());
                for write in writes {
                    self.staged.group.write(write.key.as_bytes(), write.value.as_deref());
                    let key = write.key.clone();
                    let Written { rev, change, old } = self.register.write(write);
                    revs.push(rev);
                    self.staged.undo.push((key, old));
                    self.staged.changes.extend(change);
                }
                Done::Staged(Ok(Reply::Written(revs)))
            }
        }
    }

    fn check(&self, writes: &[Write]) -> Result<(), EngineError> {
        let too_large = |w: &Write| {
            w.key.as_bytes().len() > Key::MAX_LEN
                || w.value.as_ref().is_some_and(|value| value.len() > self.config.max_value)
        };
        if writes.iter().any(too_large) {
            return Err(EngineError::TooLarge);
        }
        writes.iter().filter_map(|w| w.fence.as_ref()).try_for_each(|fence| self.leases.check(fence))?;
        self.register.check(writes, self.room())?;
        self.may_write()
    }

    /// Whether the disk is worth a try.
    fn may_write(&self) -> Result<(), EngineError> {
        match self.down {
            Some((error, until)) if self.now < until => Err(error),
            _ => Ok(()),
        }
    }

    fn scan(&self, prefix: &Key, after: Option<&Key>, limit: usize) -> Reply {
        let mut found = self.register.range(prefix, after);
        let records = found.by_ref().take(limit.max(1)).collect();
        Reply::Scanned { records, more: found.next().is_some() }
    }

    fn trim(&mut self, shard: Shard, before: u64) -> Result<Reply, EngineError> {
        if self.logs.trim(shard, before)? {
            self.cleaning = true;
            if !self.trimmed.contains(&shard) {
                self.trimmed.push(shard);
            }
        }
        Ok(Reply::Trimmed)
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
        self.config.max_register_bytes.saturating_sub(self.register.bytes() + self.leases.bytes())
    }

    fn time_ms(&self) -> u64 {
        u64::try_from((self.base + self.now).as_millis()).unwrap_or(u64::MAX)
    }

    /// Writes what the turn has staged, and answers.
    fn commit(&mut self, out: &mut Outbox) {
        if self.staged.group.is_empty() {
            self.answer_staged(None, out);
            return;
        }
        let bounds = self.logs.bounds();
        let trimmed = std::mem::take(&mut self.trimmed);
        for shard in &trimmed {
            let first = self.logs.first(*shard);
            self.staged.group.trim(shard.0, first);
        }
        let start = Start { rev: self.rev.0, shards: bounds };
        let bytes = self.staged.group.entries_len() as u64;
        let time_ms = self.time_ms();
        let written = self.logs.journal.append(&mut self.staged.group, &self.staged.frames, time_ms, &start);
        self.staged.group.clear();
        match written {
            Ok(rolled) => {
                self.journaled += bytes;
                self.committed(rolled);
                self.answer_staged(None, out);
            }
            Err(error) => {
                self.trimmed = trimmed;
                let refused = self.failed(&error);
                self.answer_staged(Some(refused), out);
            }
        }
    }

    fn committed(&mut self, rolled: bool) {
        if self.down.take().is_some() {
            tracing::info!("the journal is written again");
        }
        self.rev = self.register.rev();
        self.staged.undo.clear();
        let frames = self.staged.frames.drain(..);
        let frames = frames.map(|f| (Shard(f.shard), f.seq, DedupeId(f.id)));
        self.logs.commit(frames, self.base + self.now);
        if rolled {
            self.cleaning = true;
            for shard in self.logs.bound(self.config.max_log_bytes) {
                tracing::warn!(
                    shard = shard.0,
                    "the log is at its bound of bytes; its oldest frames are dropped"
                );
            }
        }
    }

    /// Takes back what was staged; gives the answer to all of it.
    fn failed(&mut self, error: &io::Error) -> EngineError {
        let full = matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
        let refused = if full { EngineError::Full } else { EngineError::Unavailable };
        if self.down.is_none() {
            tracing::error!(%error, "the journal cannot be written: what needs it is refused until it can");
        }
        let forever = self.logs.journal.is_broken();
        let until = if forever { Duration::MAX } else { self.now + RETRY_AFTER };
        self.down = Some((refused, until));
        self.logs.roll_back();
        for (key, old) in self.staged.undo.drain(..).rev() {
            self.register.set(&key, old);
        }
        self.register.set_rev(self.rev);
        self.staged.frames.clear();
        self.staged.changes.clear();
        refused
    }

    fn answer_staged(&mut self, refused: Option<EngineError>, out: &mut Outbox) {
        for change in self.staged.changes.drain(..) {
            self.watches.note(&change, out);
        }
        for (port, token, result) in self.staged.answers.drain(..) {
            out.answer(port, token, refused.map_or(result, Err));
        }
        for (port, token, prefix) in self.staged.barriers.drain(..) {
            self.watches.barrier(port, token, &prefix, self.rev);
        }
    }

    /// Syncs when an interval is over.
    fn sync_when_due(&mut self) {
        let Sync::Interval(interval) = self.config.sync else { return };
        if self.logs.journal.owes_sync() && self.now >= self.synced_at + interval {
            self.synced_at = self.now;
            if let Err(error) = self.logs.journal.sync() {
                tracing::error!(%error, "a sync failed: what was answered since the last one may be lost; nothing more is taken");
                self.down = Some((EngineError::Unavailable, Duration::MAX));
            }
        }
    }

    /// Brings the register's file forward, and removes what is not needed any more: a piece of it in each turn.
    fn tidy(&mut self) {
        if self.now < self.clean_at {
            return;
        }
        let checkpoint = self.write_checkpoint();
        let cleaned = checkpoint.and_then(|()| {
            if self.cleaning {
                self.cleaning = self.logs.clean(self.checkpoint)?;
            }
            Ok(())
        });
        if let Err(error) = cleaned {
            tracing::warn!(%error, "the journal cannot be cleaned up; trying again");
            self.clean_at = self.now + RETRY_AFTER;
            if let Some(writing) = self.writing.take() {
                writing.drop_draft(&mut self.logs.journal.disk);
            }
        }
    }

    fn write_checkpoint(&mut self) -> io::Result<()> {
        if self.writing.is_none() {
            let due = self.config.segment_bytes.max(self.register.bytes() as u64);
            if self.journaled - self.checkpointed < due || self.logs.journal.lsn() == self.checkpoint {
                return Ok(());
            }
            let lsn = self.logs.journal.lsn();
            let salt = self.time_ms() ^ lsn.rotate_left(32);
            self.writing = Some(Checkpoint::begin(&mut self.logs.journal.disk, lsn, salt)?);
            self.checkpointed = self.journaled;
        }
        let Some(writing) = &mut self.writing else { return Ok(()) };
        if !writing.step(&self.register)? {
            return Ok(());
        }
        // it may hold writes of groups that are not durable yet
        self.logs.journal.sync()?;
        if let Some(writing) = self.writing.take() {
            let (lsn, before) = (writing.lsn, self.checkpoint);
            writing.finish(&mut self.logs.journal.disk)?;
            self.checkpoint = lsn;
            self.cleaning = true;
            if before > 0 {
                // the next start would remove it
                let _ = self.logs.journal.disk.remove(&register_name(before));
            }
        }
        Ok(())
    }
}

/// When an operation may be answered.
enum Done {
    /// At once, if nothing was staged before it.
    Now(Result<Reply, EngineError>),
    /// When the group is durable.
    Staged(Result<Reply, EngineError>),
}

impl<D: Disk> Turns for State<D> {
    fn begin(&mut self, now: Duration, out: &mut Outbox) {
        self.now = self.now.max(now);
        while let Some((port, key)) = self.leases.expire(self.now) {
            out.push(port, Arrival::LeaseLost { key });
        }
        self.watches.answer_barriers(out);
    }

    fn apply(&mut self, port: Port, token: Token, op: Op, out: &mut Outbox) {
        let done = match op {
            Op::Append { shard, frame, id, fence } => self.append(shard, frame, id, fence.as_ref()),
            Op::Put { writes } => self.put(writes),
            Op::Read { shard, after, max_bytes } => {
                Done::Now(self.logs.read(shard, after, max_bytes).map(Reply::Frames))
            }
            Op::Head { shard } => Done::Now(self.logs.last(shard).map(|last| match last {
                0 => Reply::Head(Pos::START),
                seq => Reply::Head(Pos::end_of(seq)),
            })),
            Op::Trim { shard, before } => Done::Now(self.trim(shard, before.seq())),
            Op::Get { key } => Done::Now(Ok(Reply::Got(self.register.get(&key)))),
            Op::Scan { prefix, after, limit } => Done::Now(Ok(self.scan(&prefix, after.as_ref(), limit))),
            Op::Barrier { prefix } => return self.staged.barriers.push((port, token, prefix)),
            // Leases are not on the disk: they are answered whatever becomes of it.
            Op::Acquire { key, holder, ttl } => {
                let result = self.acquire(port, key, holder, ttl);
                return out.answer(port, token, result);
            }
            Op::Release { key, holder } => {
                self.leases.release(&key, holder);
                return out.answer(port, token, Ok(Reply::Released));
            }
        };
        match done {
            // What was staged may have been seen.
            Done::Now(result) if self.staged.group.is_empty() => out.answer(port, token, result),
            Done::Now(result) | Done::Staged(result) => self.staged.answers.push((port, token, result)),
        }
    }

    fn tail(&mut self, port: Port, shard: Shard, after: Pos) {
        if self.logs.exists(shard) {
            self.tails.set(port, shard, after);
        } else {
            tracing::error!(shard = shard.0, "a tail was asked for a shard that does not exist");
        }
    }

    fn watch(&mut self, port: Port, id: WatchId, prefix: Key) {
        self.watches.add(port, id, prefix);
    }

    fn end(&mut self, out: &mut Outbox) {
        self.commit(out);
        self.sync_when_due();
        self.tidy();
        let tails_left = self.tails.feed(&mut self.logs, self.tail_bytes, out);
        let watches_left = self.watches.feed(&self.register, out);
        self.backlog = tails_left || watches_left;
    }

    fn has_backlog(&self) -> bool {
        let tidying = (self.writing.is_some() || self.cleaning) && self.now >= self.clean_at;
        self.backlog || tidying || self.owes_answers()
    }

    fn owes_answers(&self) -> bool {
        self.watches.has_barriers()
    }

    fn deadline(&self) -> Option<Duration> {
        let sync = match self.config.sync {
            Sync::Interval(interval) if self.logs.journal.owes_sync() && !self.logs.journal.is_broken() => {
                Some(self.synced_at + interval)
            }
            _ => None,
        };
        let tidy =
            (self.writing.is_some() || self.cleaning).then_some(self.clean_at).filter(|at| *at > self.now);
        [self.leases.deadline(), sync, tidy].into_iter().flatten().min()
    }
}

impl<D: Disk> Drop for State<D> {
    fn drop(&mut self) {
        if let Err(error) = self.finish() {
            tracing::error!(%error, "the last sync failed: what was answered since the one before may be lost");
        }
    }
}
