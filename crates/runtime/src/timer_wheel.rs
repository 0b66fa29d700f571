//! Many coarse deadlines at no cost while they are idle.
//!
//! A hashed wheel: time is cut into ticks (one second by default), a deadline goes into the slot of its tick, and
//! each tick looks at one slot. There is no cancel: an owner whose deadline moved (a keep-alive that was fed)
//! leaves the old entry alone, looks at its true deadline when the entry fires, and arms again. So a busy
//! connection costs one entry per firing and not one per packet.
//!
//! Sans-io: `now` is an argument. Keys are small values such as an index with a generation, so that an entry of a
//! connection that is gone can be told from one of its successor.

use std::time::{Duration, Instant};

/// Slots of the wheel: with ticks of a second an entry of up to 8.5 minutes is looked at once, when it fires. A
/// later one is looked at once per round on its way.
const SLOTS: u64 = 512;
/// A tick that fits most deadlines of MQTT, which counts in seconds.
pub const DEFAULT_TICK: Duration = Duration::from_secs(1);

/// A wheel counts 2^32 ticks: 54 years of this one. With ticks of a millisecond it would be full after 49 days, and fire
/// everything at once from then on.
pub const SHORTEST_TICK: Duration = Duration::from_millis(400);

/// Deadlines of keys `K`. An entry fires at the first tick at or after its deadline: never early, and late by less
/// than a tick plus the caller's own delay.
#[derive(Debug)]
pub struct Wheel<K: Copy> {
    slots: Vec<Vec<Entry<K>>>,
    start: Instant,
    tick: Duration,
    /// Ticks up to and with this one have fired.
    done: u64,
    len: usize,
}

/// A million connections are a million of these: 12 bytes for a key of 8.
#[derive(Clone, Copy, Debug)]
struct Entry<K> {
    key: K,
    /// The last that can be told, 136 years of seconds after the start, is that of all that are later.
    tick: u32,
}

impl<K: Copy> Wheel<K> {
    /// An empty wheel. A `tick` under [`SHORTEST_TICK`] is taken as that.
    pub fn new(now: Instant, tick: Duration) -> Self {
        Self {
            slots: (0..SLOTS).map(|_| Vec::new()).collect(),
            start: now,
            tick: tick.max(SHORTEST_TICK),
            done: 0,
            len: 0,
        }
    }

    /// Lets `key` fire at the first tick at or after `at`; the next tick when `at` is past. O(1). A key may be in
    /// the wheel any number of times and fires for each. A wheel counts 2^32 ticks: 136 years of seconds.
    pub fn arm(&mut self, key: K, at: Instant) {
        let since = at.saturating_duration_since(self.start).as_nanos();
        let due = u64::try_from(since.div_ceil(self.tick.as_nanos())).unwrap_or(u64::MAX);
        let tick = due.max(self.done.saturating_add(1));
        self.slot(tick).push(Entry { key, tick: u32::try_from(tick).unwrap_or(u32::MAX) });
        self.len += 1;
    }

    /// Moves the wheel to `now` and adds every key that is due to `fired`; their order is not promised. The cost is
    /// one slot per tick passed, at most all slots once. A `now` before the last one does nothing.
    pub fn advance(&mut self, now: Instant, fired: &mut Vec<K>) {
        let target = self.ticks_until(now);
        if target <= self.done {
            return;
        }
        let passed = (target - self.done).min(SLOTS);
        let first = self.done + 1;
        self.done = target;
        for tick in first..first + passed {
            if self.len == 0 {
                break;
            }
            let before = fired.len();
            let slot = self.slot(tick);
            slot.retain(|entry| {
                let due = u64::from(entry.tick) <= target;
                if due {
                    fired.push(entry.key);
                }
                !due
            });
            release(slot);
            self.len -= fired.len() - before;
        }
    }

    /// When [`Wheel::advance`] can next find anything: the end of the running tick.
    pub fn next_tick(&self) -> Instant {
        let next = self.tick.as_nanos().saturating_mul(u128::from(self.done) + 1);
        let since = Duration::from_nanos(u64::try_from(next).unwrap_or(u64::MAX));
        self.start.checked_add(since).unwrap_or(self.start)
    }

    /// How many entries are in the wheel, those of keys that are long gone included.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing can fire, so that nobody needs to call [`Wheel::advance`].
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    fn ticks_until(&self, now: Instant) -> u64 {
        let since = now.saturating_duration_since(self.start).as_nanos();
        u64::try_from(since / self.tick.as_nanos()).unwrap_or(u64::MAX)
    }

    fn slot(&mut self, tick: u64) -> &mut Vec<Entry<K>> {
        // The remainder is below SLOTS, which is the vector's length for good.
        &mut self.slots[usize::try_from(tick % SLOTS).unwrap_or(0)]
    }
}

/// Gives back the memory of a slot that a burst had filled.
fn release<K>(slot: &mut Vec<Entry<K>>) {
    if slot.capacity() > 64 && slot.len() < slot.capacity() / 4 {
        slot.shrink_to(slot.len() * 2);
    }
}

#[cfg(test)]
mod tests;
