//! The register: records in the order of their keys, one revision counter for all.
//!
//! Must not know: ports, watches, leases (fences are checked before).

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use crate::{Change, EngineError, Expect, Key, Record, Rev, Value, Write};

/// What a record costs beyond the bytes of its key and value.
pub(crate) const RECORD_COST: usize = 128;

/// All records.
#[derive(Clone, Debug, Default)]
pub(crate) struct Register {
    records: BTreeMap<Key, (Value, Rev)>,
    rev: Rev,
    /// Cost of all records.
    bytes: usize,
}

impl Register {
    /// The revision of the last write.
    pub(crate) fn rev(&self) -> Rev {
        self.rev
    }

    /// How many records there are.
    pub(crate) fn len(&self) -> usize {
        self.records.len()
    }

    /// What all records cost in memory.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn get(&self, key: &Key) -> Option<Record> {
        self.records.get(key).map(|(value, rev)| Record { key: key.clone(), value: value.clone(), rev: *rev })
    }

    /// Records under `prefix` after a key, in order.
    pub(crate) fn range<'a>(
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
    pub(crate) fn check(&self, writes: &[Write], room: usize) -> Result<(), EngineError> {
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

    /// Does a write that was checked.
    pub(crate) fn write(&mut self, write: Write) -> Written {
        self.rev = Rev(self.rev.0 + 1);
        let rev = self.rev;
        let old = self.set(&write.key, write.value.clone().map(|value| (value, rev)));
        let changed = write.value.is_some() || old.is_some();
        Written { rev, change: changed.then_some(Change { key: write.key, value: write.value, rev }), old }
    }

    /// Puts a record as it was or is to be, whatever its revision; gives what was there.
    pub(crate) fn set(&mut self, key: &Key, record: Option<(Value, Rev)>) -> Option<(Value, Rev)> {
        let old = match record {
            Some((value, rev)) => {
                self.bytes += cost(key, &value);
                self.records.insert(key.clone(), (value, rev))
            }
            None => self.records.remove(key),
        };
        if let Some((value, _)) = &old {
            self.bytes -= cost(key, value);
        }
        old
    }

    /// Sets the revision of the last write: back, when writes are taken back, or to what was read from a disk.
    pub(crate) fn set_rev(&mut self, rev: Rev) {
        self.rev = rev;
    }
}

/// What became of a write.
pub(crate) struct Written {
    pub(crate) rev: Rev,
    /// What watchers are told: nothing, if a record was deleted that was not there.
    pub(crate) change: Option<Change>,
    /// What was there before.
    pub(crate) old: Option<(Value, Rev)>,
}

fn cost(key: &Key, value: &Value) -> usize {
    key.as_bytes().len() + value.len() + RECORD_COST
}
