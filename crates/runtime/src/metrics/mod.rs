//! Counters without shared cache lines, and the Prometheus text.
//!
//! A role declares its names in one place (its `metrics.rs`) as [`Desc`] constants, keeps a struct of [`Counter`]s
//! and [`Gauge`]s for each worker in a [`PerWorker`], and implements [`Collect`], which reads them when somebody
//! asks. A counter costs its worker a load and a store; sums are made at the reading.

use std::fmt;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use crate::workers::WorkerId;

mod exposition;

pub use exposition::{Desc, Exposition, Kind};

/// A number that only grows, written by one thread and read by any.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Zero.
    pub const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// Adds `n`. One thread only may write (the owning worker): two would lose counts, though nothing
    /// worse.
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
    }

    /// Adds 1; see [`Counter::add`].
    pub fn inc(&self) {
        self.add(1);
    }

    /// The count now.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A number that goes up and down, written by one thread and read by any.
#[derive(Debug, Default)]
pub struct Gauge(AtomicI64);

impl Gauge {
    /// Zero.
    pub const fn new() -> Self {
        Self(AtomicI64::new(0))
    }

    /// Adds `n`, which may be negative. One thread only may write; see [`Counter::add`].
    pub fn add(&self, n: i64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
    }

    /// Adds 1; see [`Gauge::add`].
    pub fn inc(&self) {
        self.add(1);
    }

    /// Takes 1 away; see [`Gauge::add`].
    pub fn dec(&self) {
        self.add(-1);
    }

    /// Replaces the number.
    pub fn set(&self, n: i64) {
        self.0.store(n, Ordering::Relaxed);
    }

    /// The number now.
    pub fn get(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// One `T` for each worker, none of them on a cache line of another.
#[derive(Debug)]
pub struct PerWorker<T>(Box<[Padded<T>]>);

/// Two lines of 64 bytes: processors fetch lines in pairs.
#[derive(Debug)]
#[repr(align(128))]
struct Padded<T>(T);

impl<T> PerWorker<T> {
    /// `count` values (at least one).
    pub fn new(count: usize, mut make: impl FnMut() -> T) -> Self {
        Self((0..count.max(1)).map(|_| Padded(make())).collect())
    }

    /// The value of a worker; nothing for a number beyond the count.
    pub fn get(&self, worker: WorkerId) -> Option<&T> {
        self.0.get(worker.index()).map(|padded| &padded.0)
    }

    /// All values in the order of the workers.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.0.iter().map(|padded| &padded.0)
    }

    /// The sum of one counter over all workers.
    pub fn sum(&self, counter: impl Fn(&T) -> &Counter) -> u64 {
        self.iter().map(|value| counter(value).get()).fold(0, u64::wrapping_add)
    }

    /// The sum of one gauge over all workers.
    pub fn sum_gauge(&self, gauge: impl Fn(&T) -> &Gauge) -> i64 {
        self.iter().map(|value| gauge(value).get()).fold(0, i64::wrapping_add)
    }
}

/// Whoever has numbers to show.
pub trait Collect: Send + Sync {
    /// Adds the samples of this moment. Called on the thread that answers `/metrics`.
    fn collect(&self, out: &mut Exposition);
}

/// Everyone who has numbers to show. Cheap to clone.
#[derive(Clone, Default)]
pub struct Registry(Arc<RwLock<Vec<Arc<dyn Collect>>>>);

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry").finish_non_exhaustive()
    }
}

impl Registry {
    /// Without anyone.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a collector for the life of the process.
    pub fn register(&self, collector: Arc<dyn Collect>) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).push(collector);
    }

    /// All samples of this moment as Prometheus text, format 0.0.4.
    pub fn render(&self) -> String {
        let collectors = self.0.read().unwrap_or_else(PoisonError::into_inner).clone();
        let mut out = Exposition::new();
        for collector in collectors {
            collector.collect(&mut out);
        }
        out.finish()
    }
}

#[cfg(test)]
mod tests;
