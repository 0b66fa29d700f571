//! What the threads of a run see of each other: written seldom or in batches, never for each message.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};

use mio::Waker;

/// Where the run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(super) enum Phase {
    /// Clients connect; those that are connected are kept so.
    Connect,
    /// Publishers send, from [`Shared::start`] on.
    Run,
    /// Everybody says good-bye.
    Stop,
}

/// Counters of one thread, for the progress line and for the decision that the run is over.
#[derive(Debug, Default)]
pub(super) struct Counters {
    /// Clients that are ready: connected and, if they subscribe, subscribed.
    pub(super) ready: AtomicU64,
    /// Clients that did not get so far.
    pub(super) failed: AtomicU64,
    /// Clients that were ready and are not any more.
    pub(super) lost: AtomicU64,
    pub(super) sent: AtomicU64,
    /// Messages received, each copy.
    pub(super) received: AtomicU64,
    /// Messages without those that came before.
    pub(super) distinct: AtomicU64,
    /// QoS 1 and 2 messages that wait for their acknowledgement.
    pub(super) unacknowledged: AtomicU64,
    /// Its publishers will send nothing more.
    pub(super) finished: AtomicBool,
    /// The thread has ended by an error of its own.
    pub(super) broken: AtomicBool,
}

/// How far one publisher's messages got, for its closed loop.
#[derive(Debug, Default)]
pub(super) struct Delivered {
    /// Copies received, over all subscribers.
    pub(super) copies: AtomicU64,
    /// The publisher waits for more of them.
    pub(super) wanted: AtomicBool,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Shared {
    phase: AtomicU8,
    start: AtomicU64,
    pub(super) counters: Vec<Counters>,
    /// By publisher; empty where nobody needs them.
    pub(super) delivered: Vec<Delivered>,
    wakers: Vec<OnceLock<Waker>>,
}

impl Shared {
    pub(super) fn new(threads: usize, publishers: usize) -> Self {
        Self {
            phase: AtomicU8::new(Phase::Connect as u8),
            start: AtomicU64::new(0),
            counters: (0..threads).map(|_| Counters::default()).collect(),
            delivered: (0..publishers).map(|_| Delivered::default()).collect(),
            wakers: (0..threads).map(|_| OnceLock::new()).collect(),
        }
    }

    pub(super) fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Acquire) {
            0 => Phase::Connect,
            1 => Phase::Run,
            _ => Phase::Stop,
        }
    }

    /// When publishers begin, in nanoseconds since the epoch; known once the phase is [`Phase::Run`].
    pub(super) fn start(&self) -> u64 {
        self.start.load(Ordering::Acquire)
    }

    /// Lets publishers begin at that time.
    pub(super) fn begin(&self, start: u64) {
        self.start.store(start, Ordering::Release);
        self.phase.store(Phase::Run as u8, Ordering::Release);
        (0..self.wakers.len()).for_each(|thread| self.wake(thread));
    }

    /// Ends the run.
    pub(super) fn stop(&self) {
        self.phase.store(Phase::Stop as u8, Ordering::Release);
        (0..self.wakers.len()).for_each(|thread| self.wake(thread));
    }

    /// A thread can be woken from now on.
    pub(super) fn listen(&self, thread: usize, waker: Waker) {
        if let Some(place) = self.wakers.get(thread) {
            // Each thread does it once.
            let _ = place.set(waker);
        }
    }

    /// Wakes a thread from its poll.
    pub(super) fn wake(&self, thread: usize) {
        if let Some(waker) = self.wakers.get(thread).and_then(OnceLock::get) {
            // It fails only when the eventfd is full of wake-ups, and then the thread will wake.
            let _ = waker.wake();
        }
    }

    /// A sum over all threads.
    pub(super) fn sum(&self, of: impl Fn(&Counters) -> &AtomicU64) -> u64 {
        self.counters.iter().map(|counters| of(counters).load(Ordering::Relaxed)).sum()
    }

    /// Whether it is so for every thread.
    pub(super) fn all(&self, of: impl Fn(&Counters) -> &AtomicBool) -> bool {
        self.counters.iter().all(|counters| of(counters).load(Ordering::Acquire))
    }

    /// Whether a thread ended by an error of its own.
    pub(super) fn broken(&self) -> bool {
        self.counters.iter().any(|counters| counters.broken.load(Ordering::Acquire))
    }
}
