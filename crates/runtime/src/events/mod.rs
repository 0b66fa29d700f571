//! The typed catalogue of what happened, and the bounded memory of it.
//!
//! Logs, counters, the audit trail, the API and later the rules are all fed from here, so an event is described
//! once. This module must not know who listens: it stores, counts and writes one log line.
//!
//! Bound: the newest [`DEFAULT_CAPACITY`] records, texts of peers in them cut to 1,024 bytes each. Rule at the bound: the oldest is overwritten; the counters and
//! the log still have it.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Serialize;

use crate::clock::Clock;

mod catalogue;
mod log_line;

pub use catalogue::{Event, EventType, Text};

/// Records kept when nobody says otherwise.
pub const DEFAULT_CAPACITY: usize = 10_000;

/// An event with its place in time and order.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Record {
    /// Counts from 1 without gaps while the process lives.
    pub seq: u64,
    /// Milliseconds since 1970.
    pub at_unix_ms: u64,
    /// What happened; its fields stand beside `seq` in JSON, with the name under `type`.
    #[serde(flatten)]
    pub event: Event,
}

/// The events of this process. Cheap to clone; any thread may emit.
///
/// Events are rare beside messages (a connect, a refusal, a state change), so one lock around the ring is right;
/// nothing is formatted under it. What can happen once per message is counted first and emitted as a sum (see
/// [`Event::MessageDropped`]).
#[derive(Clone, Debug)]
pub struct Events(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    clock: Clock,
    capacity: usize,
    ring: Mutex<Ring>,
    counts: [AtomicU64; EventType::ALL.len()],
}

#[derive(Debug, Default)]
struct Ring {
    last_seq: u64,
    records: VecDeque<Record>,
}

impl Events {
    /// An empty memory for `capacity` records (at least one).
    pub fn new(clock: Clock, capacity: usize) -> Self {
        let capacity = capacity.max(1);
        // All of it at once: untouched memory costs nothing, and a ring that grows would be copied each time it doubles.
        let records = VecDeque::with_capacity(capacity);
        Self(Arc::new(Inner {
            clock,
            capacity,
            ring: Mutex::new(Ring { last_seq: 0, records }),
            counts: [const { AtomicU64::new(0) }; EventType::ALL.len()],
        }))
    }

    /// Stores the event, counts it under its type and writes its log line. Gives back its number.
    pub fn emit(&self, mut event: Event) -> u64 {
        event.shorten();
        let event_type = event.event_type();
        // The position in ALL is the discriminant, proven by a test.
        if let Some(count) = self.0.counts.get(event_type as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        log_line::write(&event);
        let at_unix_ms = self.0.clock.unix_millis();
        let mut ring = self.lock();
        ring.last_seq += 1;
        let seq = ring.last_seq;
        let oldest = if ring.records.len() >= self.0.capacity { ring.records.pop_front() } else { None };
        ring.records.push_back(Record { seq, at_unix_ms, event });
        drop(ring);
        drop(oldest); // its strings are freed outside of the lock
        seq
    }

    /// The newest records that `wanted` says yes to, newest first, at most `limit`. The closure runs under the
    /// lock: it must be short and must not emit.
    pub fn recent(&self, mut wanted: impl FnMut(&Record) -> bool, limit: usize) -> Vec<Record> {
        let ring = self.lock();
        ring.records.iter().rev().filter(|record| wanted(record)).take(limit).cloned().collect()
    }

    /// The records after number `seq`, oldest first, at most `limit`. A first record that is not `seq + 1` means
    /// that those between were overwritten.
    pub fn since(&self, seq: u64, limit: usize) -> Vec<Record> {
        let ring = self.lock();
        let skip = ring.records.front().map_or(0, |first| seq.saturating_add(1).saturating_sub(first.seq));
        let skip = usize::try_from(skip).unwrap_or(usize::MAX);
        ring.records.iter().skip(skip).take(limit).cloned().collect()
    }

    /// The number of the newest record; 0 before the first.
    pub fn last_seq(&self) -> u64 {
        self.lock().last_seq
    }

    /// How often each type happened since the start, every type once, for the metrics' label `type`.
    pub fn counts(&self) -> Vec<(&'static str, u64)> {
        let counts = self.0.counts.iter().map(|count| count.load(Ordering::Relaxed));
        EventType::ALL.iter().map(|event_type| event_type.name()).zip(counts).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Ring> {
        self.0.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
