//! What the trait says, in the most naive way: lists that are walked from end to end.
//!
//! The oracle judges an answer and then follows it where the trait leaves a choice (revisions, epochs, dedupe ids beyond the
//! window). It shares nothing with the engine but the cost of a frame.

use std::time::Duration;

use bytes::Bytes;

use super::super::MemoryConfig;
use super::super::log::FRAME_COST;
use crate::{
    Change, DedupeId, EngineError, Epoch, Expect, Fence, Key, LogFrame, Op, Port, Pos, Record, Reply, Rev,
    Shard, Write,
};

type Answer = Result<Reply, EngineError>;

/// A shard: every frame there ever was.
#[derive(Debug, Default)]
pub(super) struct NaiveLog {
    pub(super) all: Vec<(Bytes, DedupeId, Duration)>,
    /// Frames with a lower sequence are gone.
    pub(super) first: u64,
}

impl NaiveLog {
    pub(super) fn head(&self) -> u64 {
        self.all.len() as u64
    }

    pub(super) fn frame(&self, seq: u64) -> Option<LogFrame> {
        let at = usize::try_from(seq.checked_sub(1)?).ok()?;
        Some(LogFrame { seq, bytes: self.all.get(at)?.0.clone() })
    }

    fn kept_cost(&self) -> usize {
        (self.first..=self.head()).filter_map(|seq| self.frame(seq)).map(|f| f.bytes.len() + FRAME_COST).sum()
    }
}

/// A held lease.
#[derive(Debug)]
pub(super) struct NaiveLease {
    pub(super) key: Key,
    pub(super) holder: u64,
    pub(super) epoch: Epoch,
    pub(super) port: Port,
    pub(super) until: Duration,
}

/// All that an engine should remember.
#[derive(Debug)]
pub(super) struct Oracle {
    config: MemoryConfig,
    pub(super) now: Duration,
    pub(super) logs: Vec<NaiveLog>,
    pub(super) records: Vec<Record>,
    pub(super) history: Vec<Change>,
    pub(super) rev: Rev,
    pub(super) leases: Vec<NaiveLease>,
    last_epoch: Epoch,
}

impl Oracle {
    pub(super) fn new(config: &MemoryConfig) -> Self {
        let log = || NaiveLog { all: Vec::new(), first: 1 };
        Self {
            config: config.clone(),
            now: Duration::ZERO,
            logs: std::iter::repeat_with(log).take(usize::from(config.shards)).collect(),
            records: Vec::new(),
            history: Vec::new(),
            rev: Rev::NONE,
            leases: Vec::new(),
            last_epoch: Epoch(0),
        }
    }

    /// Time passes; gives the leases that ran out.
    pub(super) fn advance(&mut self, now: Duration) -> Vec<(Port, Key)> {
        self.now = now;
        let (lost, kept) = self.leases.drain(..).partition(|lease| lease.until <= now);
        self.leases = kept;
        let lost: Vec<NaiveLease> = lost;
        lost.into_iter().map(|lease| (lease.port, lease.key)).collect()
    }

    /// Judges the answer to an operation (not a barrier) and follows it.
    pub(super) fn judge(&mut self, port: Port, op: &Op, answer: &Answer) {
        match op {
            Op::Append { shard, frame, id, fence } => self.append(*shard, frame, *id, fence.as_ref(), answer),
            Op::Read { shard, after, max_bytes } => self.read(*shard, *after, *max_bytes, answer),
            Op::Head { shard } => {
                let head = self.logs[usize::from(shard.0)].head();
                let head = if head == 0 { Pos::START } else { Pos::end_of(head) };
                assert_eq!(*answer, Ok(Reply::Head(head)));
            }
            Op::Trim { shard, before } => {
                assert_eq!(*answer, Ok(Reply::Trimmed));
                let log = &mut self.logs[usize::from(shard.0)];
                log.first = log.first.max(before.seq().min(log.head() + 1));
            }
            Op::Get { key } => {
                let found = self.records.iter().find(|r| r.key == *key).cloned();
                assert_eq!(*answer, Ok(Reply::Got(found)));
            }
            Op::Scan { prefix, after, limit } => {
                let mut records = self.under(prefix);
                records.retain(|r| after.as_ref().is_none_or(|after| r.key > *after));
                let more = records.len() > *limit;
                records.truncate(*limit);
                assert_eq!(*answer, Ok(Reply::Scanned { records, more }));
            }
            Op::Put { writes } => self.put(writes, answer),
            Op::Barrier { .. } => panic!("barriers are judged when they are answered"),
            Op::Acquire { key, holder, ttl } => self.acquire(port, key, *holder, *ttl, answer),
            Op::Release { key, holder } => {
                assert_eq!(*answer, Ok(Reply::Released));
                self.leases.retain(|lease| lease.key != *key || lease.holder != *holder);
            }
        }
    }

    /// Records under a prefix, in order.
    pub(super) fn under(&self, prefix: &Key) -> Vec<Record> {
        let mut records: Vec<_> = self
            .records
            .iter()
            .filter(|r| r.key.as_bytes().starts_with(prefix.as_bytes()))
            .cloned()
            .collect();
        records.sort_by(|a, b| a.key.cmp(&b.key));
        records
    }

    fn holds(&self, fence: &Fence) -> Result<(), EngineError> {
        let current = self.leases.iter().find(|l| l.key == fence.lease).map_or(Epoch(0), |l| l.epoch);
        let held = self.leases.iter().any(|l| l.key == fence.lease && l.epoch == fence.epoch);
        if held { Ok(()) } else { Err(EngineError::Fenced { current }) }
    }

    fn append(&mut self, shard: Shard, frame: &Bytes, id: DedupeId, fence: Option<&Fence>, answer: &Answer) {
        if frame.len() > self.config.max_frame {
            return assert_eq!(*answer, Err(EngineError::TooLarge));
        }
        let fenced = fence.map_or(Ok(()), |fence| self.holds(fence));
        let log = &mut self.logs[usize::from(shard.0)];
        let known = log.all.iter().rposition(|(_, known, _)| *known == id);
        if let Some(at) = known {
            let first = Reply::Appended { seq: at as u64 + 1 };
            let back = log.all.len() - at;
            let young = self.now.saturating_sub(log.all[at].2) < self.config.dedupe_time;
            let must = back <= self.config.dedupe_appends || (young && back <= self.config.dedupe_max_ids);
            if must || *answer == Ok(Reply::Appended { seq: at as u64 + 1 }) {
                assert_eq!(*answer, Ok(first), "a repetition");
                return;
            }
        }
        if let Err(fenced) = fenced {
            return assert_eq!(*answer, Err(fenced));
        }
        log.all.push((frame.clone(), id, self.now));
        assert_eq!(*answer, Ok(Reply::Appended { seq: log.head() }));
        while log.kept_cost() > self.config.max_log_bytes && log.first < log.head() {
            log.first += 1;
        }
    }

    fn read(&self, shard: Shard, after: Pos, max_bytes: usize, answer: &Answer) {
        let log = &self.logs[usize::from(shard.0)];
        let next = after.seq() + 1;
        if next < log.first {
            let first = Pos::end_of(log.first - 1);
            return assert_eq!(*answer, Err(EngineError::Truncated { first }));
        }
        let mut page: Vec<LogFrame> = Vec::new();
        for frame in (next..=log.head()).filter_map(|seq| log.frame(seq)) {
            let sum: usize = page.iter().map(|f| f.bytes.len()).sum();
            if !page.is_empty() && sum + frame.bytes.len() > max_bytes {
                break;
            }
            page.push(frame);
        }
        assert_eq!(*answer, Ok(Reply::Frames(page)));
    }

    fn put(&mut self, writes: &[Write], answer: &Answer) {
        if let Some(error) = self.refusal(writes) {
            return assert_eq!(*answer, Err(error));
        }
        let sum: usize = self.records.iter().map(|r| r.key.as_bytes().len() + r.value.len()).sum();
        let added: usize = writes.iter().filter_map(|w| w.value.as_ref()).map(|value| value.len()).sum();
        let revs = match answer {
            Ok(Reply::Written(revs)) => revs,
            Err(EngineError::Busy) => {
                return assert!(sum + added > self.config.max_register_bytes / 2, "busy at {sum}+{added}");
            }
            other => panic!("{other:?} to {writes:?}"),
        };
        assert_eq!(revs.len(), writes.len());
        for (write, rev) in writes.iter().zip(revs) {
            assert!(*rev > self.rev, "revisions grow");
            self.rev = *rev;
            let there = self.records.iter().any(|r| r.key == write.key);
            self.records.retain(|r| r.key != write.key);
            if let Some(value) = write.value.clone() {
                self.records.push(Record { key: write.key.clone(), value, rev: *rev });
            }
            if there || write.value.is_some() {
                self.history.push(Change { key: write.key.clone(), value: write.value.clone(), rev: *rev });
            }
        }
        let sum: usize = self.records.iter().map(|r| r.key.as_bytes().len() + r.value.len()).sum();
        assert!(sum <= self.config.max_register_bytes, "the register is bounded");
    }

    /// Why a batch may not happen.
    fn refusal(&self, writes: &[Write]) -> Option<EngineError> {
        if writes.iter().any(|w| w.value.as_ref().is_some_and(|v| v.len() > self.config.max_value)) {
            return Some(EngineError::TooLarge);
        }
        if let Some(error) =
            writes.iter().filter_map(|w| w.fence.as_ref()).find_map(|fence| self.holds(fence).err())
        {
            return Some(error);
        }
        writes.iter().enumerate().find_map(|(i, w)| {
            let current = self.records.iter().find(|r| r.key == w.key).map_or(Rev::NONE, |r| r.rev);
            let holds = match w.expect {
                Expect::Any => true,
                Expect::Absent => current == Rev::NONE,
                Expect::Rev(rev) => current == rev,
            };
            let twice = writes[..i].iter().any(|before| before.key == w.key);
            (!holds || twice).then_some(EngineError::Conflict { current })
        })
    }

    fn acquire(&mut self, port: Port, key: &Key, holder: u64, ttl: Duration, answer: &Answer) {
        let until = self.now + ttl;
        match self.leases.iter_mut().find(|lease| lease.key == *key) {
            Some(lease) if lease.holder != holder => {
                assert_eq!(*answer, Err(EngineError::Fenced { current: lease.epoch }));
            }
            Some(lease) => {
                assert_eq!(*answer, Ok(Reply::Leased(crate::Held { epoch: lease.epoch })));
                (lease.port, lease.until) = (port, until);
            }
            None => {
                let epoch = match answer {
                    Ok(Reply::Leased(held)) => held.epoch,
                    // The register may be full.
                    Err(EngineError::Busy) => return,
                    other => panic!("{other:?}"),
                };
                assert!(epoch > self.last_epoch, "every new holder gets a higher one");
                self.last_epoch = epoch;
                self.leases.push(NaiveLease { key: key.clone(), holder, epoch, port, until });
            }
        }
    }
}
