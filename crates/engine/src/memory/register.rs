//! The register: records in the order of their keys, one revision counter for all.
//!
//! Must not know: ports, watches, leases (fences are checked before).

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use crate::{Change, EngineError, Expect, Key, Record, Rev, Value, Write};

/// What a record costs beyond the bytes of its key and value.
pub(super) const RECORD_COST: usize = 128;

/// All records.
#[derive(Debug, Default)]
pub(super) struct Register {
    records: BTreeMap<Key, (Value, Rev)>,
    rev: Rev,
    /// Cost of all records.
    bytes: usize,
}

impl Register {
    /// The revision of the last write.
    pub(super) fn rev(&self) -> Rev {
        self.rev
    }

    /// What all records cost in memory.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn get(&self, key: &Key) -> Option<Record> {
        self.records.get(key).map(|(value, rev)| Record { key: key.clone(), value: value.clone(), rev: *rev })
    }

    /// Records under `prefix` after a key, in order.
    pub(super) fn range<'a>(
        &'a self,
        prefix: &'a Key,
        after: Option<&'a Key>,
    ) -> impl Iterator<Item = Record> + 'a {
        let from = match after {
            Some(after) if after >= prefix => Bound::Excluded(after),
            _ => Bound::Included(prefix),
        };
        self.records
            .range((from, Bound::Unbounded))
            .take_while(|(key, _)| key.starts_with(prefix))
            .map(|(key, (value, rev))| Record { key: key.clone(), value: value.clone(), rev: *rev })
    }

    /// Whether a batch may happen: every expectation holds, no key comes twice, and what it adds fits into `room` bytes.
    pub(super) fn check(&self, writes: &[Write], room: usize) -> Result<(), EngineError> {
        let mut seen = BTreeSet::new();
        let (mut grows, mut shrinks) = (0_usize, 0_usize);
        for write in writes {
            let old = self.records.get(&write.key);
            let current = old.map_or(Rev::NONE, |(_, rev)| *rev);
            let holds = match write.expect {
                Expect::Any => true,
                Expect::Absent => old.is_none(),
                Expect::Rev(rev) => rev == current,
            };
            // A key that comes twice can't be at the expected revision both times.
            if !holds || (writes.len() > 1 && !seen.insert(&write.key)) {
                return Err(EngineError::Conflict { current });
            }
            grows += write.value.as_ref().map_or(0, |value| cost(&write.key, value));
            shrinks += old.map_or(0, |(value, _)| cost(&write.key, value));
        }
        if grows > shrinks && grows - shrinks > room {
            return Err(EngineError::Busy);
        }
        Ok(())
    }

    /// Does a write that was checked. Gives its revision, and the change if there is one (deleting what is not there
    /// is none).
    pub(super) fn write(&mut self, write: Write) -> (Rev, Option<Change>) {
        self.rev = Rev(self.rev.0 + 1);
        let rev = self.rev;
        let old = match &write.value {
            Some(value) => {
                self.bytes += cost(&write.key, value);
                self.records.insert(write.key.clone(), (value.clone(), rev))
            }
            None => self.records.remove(&write.key),
        };
        if let Some((value, _)) = &old {
            self.bytes -= cost(&write.key, value);
        }
        let changed = write.value.is_some() || old.is_some();
        (rev, changed.then_some(Change { key: write.key, value: write.value, rev }))
    }
}

fn cost(key: &Key, value: &Value) -> usize {
    key.as_bytes().len() + value.len() + RECORD_COST
}
