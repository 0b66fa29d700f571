//! The log: of each shard the last frames in memory, all of them in the journal.
//!
//! What a turn appends is staged: it lies at the end of the memory, and goes again if the group could not be written.
//!
//! Must not know: ports, leases, the register.

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use bytes::Bytes;
use hashbrown::HashMap;

use super::disk::Disk;
use super::format::{Entry, GROUP_HEADER, GroupHeader, entries, group};
use super::index::SPARSE;
use super::journal::{Journal, segment_name};
use super::recovery::FoundShard;
use crate::turn::dedupe::Window;
use crate::turn::tail::Frames;
use crate::{DedupeId, EngineError, LogFrame, Pos, Shard};

/// What a frame costs in memory beyond its bytes.
const FRAME_COST: usize = 64;
/// How many bytes of a segment are read at once.
const CHUNK: usize = 128 << 10;

/// One shard.
struct ShardLog {
    /// The sequence of the first frame that is left.
    first: u64,
    /// The sequence of the next append.
    next: u64,
    /// The sequence after the last frame that is durable as promised.
    committed: u64,
    /// The frames before `next`.
    recent: VecDeque<Bytes>,
    recent_bytes: usize,
    window: Window,
    staged: HashMap<u128, u64>,
}

/// All shards, and the journal in which they lie.
pub(crate) struct Logs<D: Disk> {
    pub(crate) journal: Journal<D>,
    shards: Vec<ShardLog>,
    /// Bytes of frames kept in memory for each shard.
    recent_bytes: usize,
}

impl<D: Disk> Logs<D> {
    pub(crate) fn new(journal: Journal<D>, shards: Vec<FoundShard>, recent_bytes: usize) -> Self {
        let shard = |FoundShard { first, next, window }| ShardLog {
            first: first.min(next),
            next,
            committed: next,
            recent: VecDeque::new(),
            recent_bytes: 0,
            window,
            staged: HashMap::new(),
        };
        Self { journal, shards: shards.into_iter().map(shard).collect(), recent_bytes }
    }

    fn shard(&self, shard: Shard) -> Result<&ShardLog, EngineError> {
        self.shards.get(usize::from(shard.0)).ok_or(EngineError::Corrupt)
    }

    fn shard_mut(&mut self, shard: Shard) -> Result<&mut ShardLog, EngineError> {
        self.shards.get_mut(usize::from(shard.0)).ok_or(EngineError::Corrupt)
    }

    pub(crate) fn exists(&self, shard: Shard) -> bool {
        usize::from(shard.0) < self.shards.len()
    }

    /// The sequence of the append with this id, and whether it is only staged.
    pub(crate) fn find(&self, shard: Shard, id: DedupeId) -> Result<Option<(u64, bool)>, EngineError> {
        let log = self.shard(shard)?;
        let staged = || log.staged.get(&id.0).map(|seq| (*seq, true));
        Ok(log.window.find(id).map(|seq| (seq, false)).or_else(staged))
    }

    /// Stages a frame whose id [`Self::find`] does not know, after the last one of a shard that exists.
    pub(crate) fn stage(&mut self, shard: Shard, frame: Bytes, id: DedupeId) {
        let Ok(log) = self.shard_mut(shard) else { return };
        let seq = log.next;
        log.next += 1;
        log.recent_bytes += cost(&frame);
        log.recent.push_back(frame);
        log.staged.insert(id.0, seq);
    }

    /// What was staged is in the journal.
    pub(crate) fn commit(&mut self, frames: impl Iterator<Item = (Shard, u64, DedupeId)>, now: Duration) {
        for (shard, seq, id) in frames {
            if let Ok(log) = self.shard_mut(shard) {
                log.window.remember(seq, id, now);
            }
        }
        let bound = self.recent_bytes;
        for log in &mut self.shards {
            log.committed = log.next;
            log.staged.clear();
            while log.recent_bytes > bound {
                log.forget_oldest();
            }
            log.give_back();
        }
    }

    /// What was staged could not be written.
    pub(crate) fn roll_back(&mut self) {
        for log in &mut self.shards {
            while log.next > log.committed {
                log.next -= 1;
                if let Some(frame) = log.recent.pop_back() {
                    log.recent_bytes -= cost(&frame);
                }
            }
            log.first = log.first.min(log.committed);
            log.staged.clear();
        }
    }

    /// The sequence of the last frame, staged ones too.
    pub(crate) fn last(&self, shard: Shard) -> Result<u64, EngineError> {
        Ok(self.shard(shard)?.next - 1)
    }

    /// The sequence of the first frame that is left; 0 of a shard that does not exist.
    pub(crate) fn first(&self, shard: Shard) -> u64 {
        self.shard(shard).map_or(0, |log| log.first)
    }

    /// Forgets frames with a sequence below `before`. Whether that changed anything.
    pub(crate) fn trim(&mut self, shard: Shard, before: u64) -> Result<bool, EngineError> {
        let log = self.shard_mut(shard)?;
        let first = before.min(log.next);
        let trims = first > log.first;
        if trims {
            log.first = first;
            while log.recent_first() < first && !log.recent.is_empty() {
                log.forget_oldest();
            }
            log.give_back();
        }
        Ok(trims)
    }

    /// For each shard the sequence of the first frame that is left, and that of the next append.
    pub(crate) fn bounds(&self) -> Vec<(u64, u64)> {
        self.shards.iter().map(|log| (log.first.min(log.committed), log.committed)).collect()
    }

    /// Keeps the journal below so many bytes, by dropping the oldest segments; gives the shards that lost frames.
    pub(crate) fn bound(&mut self, max_bytes: u64) -> Vec<Shard> {
        let mut cut = Vec::new();
        let mut bytes = self.journal.bytes();
        for at in 1..self.journal.segments.len() {
            if bytes <= max_bytes {
                break;
            }
            let Some(segment) = self.journal.segments.get(at - 1) else { break };
            bytes -= segment.end;
            let begins: Vec<u64> = self
                .journal
                .segments
                .get(at)
                .map_or_else(Vec::new, |s| s.header.shards.iter().map(|b| b.1).collect());
            for (n, next) in begins.into_iter().enumerate() {
                let shard = Shard(n as u16);
                if self.trim(shard, next) == Ok(true) && !cut.contains(&shard) {
                    cut.push(shard);
                }
            }
        }
        cut
    }

    /// Removes one segment that nobody needs, if there is one: its frames are trimmed, and the register's file holds its writes. Whether
    /// there may be another.
    pub(crate) fn clean(&mut self, checkpoint: u64) -> io::Result<bool> {
        let free = |logs: &Self| {
            logs.journal.segments.get(1).is_some_and(|next| {
                next.header.first_lsn <= checkpoint + 1
                    && logs
                        .shards
                        .iter()
                        .zip(&next.header.shards)
                        .all(|(log, (_, begins))| log.first >= *begins)
            })
        };
        if !free(self) {
            return Ok(false);
        }
        self.journal.remove_oldest()?;
        let ids: Vec<u64> = self.shards.iter().map(|log| log.window.first()).collect();
        self.journal.remove_sidecars(&ids);
        Ok(free(self))
    }

    /// Frames after a position; see [`crate::Op::Read`].
    pub(crate) fn read(
        &mut self,
        shard: Shard,
        after: Pos,
        max_bytes: usize,
    ) -> Result<Vec<LogFrame>, EngineError> {
        let log = self.shard(shard)?;
        let next = log.resume(after.seq() + 1).map_err(|(_, first)| EngineError::Truncated { first })?;
        let end = log.next;
        Ok(self.take(shard, next, end, max_bytes, Bytes::len)?.0)
    }

    /// Frames from `next` to before `end` of at most `max`, or one; and their sum.
    fn take(
        &mut self,
        shard: Shard,
        mut next: u64,
        end: u64,
        max: usize,
        size: fn(&Bytes) -> usize,
    ) -> Result<(Vec<LogFrame>, usize), EngineError> {
        let mut page = Page { frames: Vec::new(), sum: 0, max, size };
        if next < self.shard(shard)?.recent_first().min(end) {
            let until = self.shard(shard)?.recent_first().min(end);
            next = self.read_segments(shard, next, until, &mut page)?;
            if next < until {
                return Ok((page.frames, page.sum));
            }
        }
        let log = self.shard(shard)?;
        let skip = usize::try_from(next.saturating_sub(log.recent_first())).unwrap_or(usize::MAX);
        for (frame, seq) in log.recent.range(skip.min(log.recent.len())..).zip(next..end) {
            if !page.push(seq, frame) {
                break;
            }
        }
        Ok((page.frames, page.sum))
    }

    /// Reads frames from `next` to before `until` from the segments; gives the sequence that follows what fits.
    fn read_segments(
        &mut self,
        shard: Shard,
        mut next: u64,
        until: u64,
        page: &mut Page,
    ) -> Result<u64, EngineError> {
        let at = self.journal.segment_of(usize::from(shard.0), next).ok_or(EngineError::Corrupt)?;
        for at in at..self.journal.segments.len() {
            let (reached, full) = self.read_segment(at, shard, next, until, page).map_err(|error| {
                let segment = self.journal.extent(at).map_or_else(String::new, |(n, ..)| segment_name(n));
                tracing::error!(%error, segment, shard = shard.0, seq = next, "frames of the log cannot be read");
                if error.kind() == io::ErrorKind::InvalidData { EngineError::Corrupt } else { EngineError::Unavailable }
            })?;
            next = reached;
            if full || next >= until {
                return Ok(next);
            }
        }
        // every frame between lies in some segment
        tracing::error!(shard = shard.0, seq = next, "a frame is in no segment");
        Err(EngineError::Corrupt)
    }

    fn read_segment(
        &mut self,
        at: usize,
        shard: Shard,
        mut next: u64,
        until: u64,
        page: &mut Page,
    ) -> io::Result<(u64, bool)> {
        let Some((number, salt, end)) = self.journal.extent(at) else { return Ok((next, false)) };
        let stretches = self.journal.stretches(at, usize::from(shard.0), next)?;
        let mut chunk = Chunk::default();
        for (n, begin) in stretches.iter().enumerate() {
            let stop = stretches.get(n + 1).copied().unwrap_or(end).min(begin + SPARSE);
            let mut offset = *begin;
            while offset < stop {
                let head = chunk.get(&mut self.journal, number, offset, GROUP_HEADER, end)?;
                let size = head.and_then(GroupHeader::decode).map(|h| h.size().max(GROUP_HEADER));
                let whole = match size {
                    Some(size) => chunk.get(&mut self.journal, number, offset, size, end)?,
                    None => None,
                };
                let damaged =
                    || io::Error::new(io::ErrorKind::InvalidData, format!("damaged at offset {offset}"));
                let (head, payload) = whole.and_then(|bytes| group(bytes, salt)).ok_or_else(damaged)?;
                for entry in entries(payload) {
                    let Entry::Append { shard: of, seq, frame, .. } = entry.map_err(|_| damaged())? else {
                        continue;
                    };
                    if of != shard.0 || seq < next {
                        continue;
                    }
                    if seq >= until {
                        return Ok((next, false));
                    }
                    if seq != next {
                        return Err(damaged());
                    }
                    if !page.push(seq, &Bytes::copy_from_slice(frame)) {
                        return Ok((next, true));
                    }
                    next += 1;
                }
                offset += head.size() as u64;
            }
        }
        Ok((next, false))
    }
}

impl ShardLog {
    fn recent_first(&self) -> u64 {
        self.next - self.recent.len() as u64
    }

    fn resume(&self, next: u64) -> Result<u64, (u64, Pos)> {
        if next < self.first { Err((self.first, Pos::end_of(self.first - 1))) } else { Ok(next) }
    }

    fn forget_oldest(&mut self) {
        if let Some(frame) = self.recent.pop_front() {
            self.recent_bytes -= cost(&frame);
        }
    }

    /// Gives back the room of a burst that is over.
    fn give_back(&mut self) {
        const ROOM: usize = 1024;
        if self.recent.capacity() > ROOM && self.recent.len() < self.recent.capacity() / 4 {
            self.recent.shrink_to((self.recent.len() * 2).max(ROOM));
        }
    }
}

/// Frames that are gathered for a reader.
struct Page {
    frames: Vec<LogFrame>,
    sum: usize,
    max: usize,
    size: fn(&Bytes) -> usize,
}

impl Page {
    /// Whether there was room for it.
    fn push(&mut self, seq: u64, frame: &Bytes) -> bool {
        let with_this = self.sum.saturating_add((self.size)(frame));
        if with_this > self.max && !self.frames.is_empty() {
            return false;
        }
        self.sum = with_this;
        self.frames.push(LogFrame { seq, bytes: frame.clone() });
        true
    }
}

/// Bytes of a segment that were read.
#[derive(Default)]
struct Chunk {
    offset: u64,
    bytes: Vec<u8>,
}

impl Chunk {
    /// So many bytes at an offset, and what follows them; `None` beyond the end.
    fn get<D: Disk>(
        &mut self,
        journal: &mut Journal<D>,
        number: u64,
        offset: u64,
        len: usize,
        end: u64,
    ) -> io::Result<Option<&[u8]>> {
        let there = |c: &Self| {
            let skip = usize::try_from(offset.checked_sub(c.offset)?).ok()?;
            (skip + len <= c.bytes.len()).then_some(skip)
        };
        if there(self).is_none() {
            let left = usize::try_from(end.saturating_sub(offset)).unwrap_or(usize::MAX);
            // what fills up the last group need not be in the file
            self.bytes.clear();
            self.bytes.resize(len.max(CHUNK).min(left), 0);
            self.offset = offset;
            journal.read_at(number, offset, &mut self.bytes)?;
        }
        Ok(there(self).and_then(|skip| self.bytes.get(skip..)))
    }
}

impl<D: Disk> Frames for Logs<D> {
    fn head(&self, shard: Shard) -> u64 {
        self.shard(shard).map_or(0, |log| log.committed - 1)
    }

    fn resume(&self, shard: Shard, next: u64) -> Result<u64, (u64, Pos)> {
        self.shard(shard).map_or(Ok(next), |log| log.resume(next))
    }

    fn piece(&mut self, shard: Shard, next: u64, max_cost: usize) -> Option<(Vec<LogFrame>, usize)> {
        let end = self.shard(shard).ok()?.committed;
        self.take(shard, next, end, max_cost, cost).ok()
    }
}

fn cost(frame: &Bytes) -> usize {
    frame.len() + FRAME_COST
}
