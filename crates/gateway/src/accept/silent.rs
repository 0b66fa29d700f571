//! Connections that were let in and have said nothing yet: nearly all of them speak in a moment.
//!
//! A device connects and speaks; an acceptor that has nothing else to do is there between the two. Who has to be waited for
//! is listed here, where it costs neither a task nor a timer, and its journey begins with its first bytes. One that is silent
//! for [`GRACE`] is given the task and the timer that those who take their time always need.
//! Must not know: what bytes mean, how a journey goes on.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use net::reactor::Stream;
use slab::Slab;

use super::{Open, Policy};
use crate::young::{Newcomer, Young};

/// How long a connection may be silent here. Listeners that give less time, with a margin for the worker's tick, keep nobody
/// here.
const GRACE: Duration = Duration::from_secs(1);
/// The least `preread_timeout` of a listener that keeps connections here.
pub(super) const LEAST_TIMEOUT: Duration = Duration::from_secs(4);
/// Marks the reactor's keys of these connections: those of relays are below it, as descriptors are.
const MARK: u32 = 1 << 31;
/// Places whose memory is kept when all are free.
const KEPT: usize = 1_024;

/// A connection without a word.
pub(crate) struct Silent {
    pub(super) stream: Stream,
    pub(super) open: Open,
    pub(super) policy: Arc<Policy>,
    pub(super) from: SocketAddr,
    pub(crate) since: Instant,
    /// Whether it came within the listener's rate.
    pub(super) in_time: bool,
}

/// Those of one worker.
pub(crate) struct Quiet {
    list: Slab<(u64, Silent)>,
    young: Young,
    sequence: u64,
}

impl Quiet {
    /// Nobody.
    pub(crate) const fn new() -> Self {
        Self { list: Slab::new(), young: Young::new(GRACE), sequence: 0 }
    }

    /// Whether the reactor's key is one of these.
    pub(crate) const fn has(key: u32) -> bool {
        key & MARK != 0
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Whether [`Quiet::oldest`] has something to do.
    pub(crate) fn is_due(&self, now: Instant) -> bool {
        self.young.is_due(now)
    }

    /// Lists a connection. Its next event comes under its key.
    pub(crate) fn insert(&mut self, silent: Silent) {
        self.sequence += 1;
        let since = silent.since;
        let place = self.list.vacant_entry();
        // Descriptors are fewer than 2³¹.
        let key = u32::try_from(place.key()).unwrap_or(u32::MAX);
        silent.stream.deliver_to(key | MARK);
        place.insert((self.sequence, silent));
        self.young.push(since, Newcomer { key, sequence: self.sequence });
    }

    /// Who has this key now. After an event that was late it may be another one.
    pub(super) fn get(&self, key: u32) -> Option<&Silent> {
        self.list.get((key & !MARK) as usize).map(|(_, silent)| silent)
    }

    /// Takes a connection from the list.
    pub(super) fn take(&mut self, key: u32) -> Option<Silent> {
        let (_, silent) = self.list.try_remove((key & !MARK) as usize)?;
        if self.list.is_empty() && self.list.capacity() > KEPT {
            self.list = Slab::new();
        }
        Some(silent)
    }

    /// Takes the oldest, where its time here is over: `Some(None)` where it has spoken meanwhile.
    pub(crate) fn oldest(&mut self, now: Instant) -> Option<Option<Silent>> {
        let Newcomer { key, sequence } = self.young.pop(now)?;
        let same = self.list.get(key as usize).is_some_and(|(known, _)| *known == sequence);
        Some(if same { self.take(key) } else { None })
    }

    /// Takes all of them.
    pub(crate) fn take_all(&mut self) -> Vec<Silent> {
        std::mem::take(&mut self.list).into_iter().map(|(_, (_, silent))| silent).collect()
    }
}
