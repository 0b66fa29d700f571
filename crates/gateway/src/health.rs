//! Whether a server may be tried, by what became of the connections made to it, and how large its share is after it
//! came back: pure.
//!
//! The rule is that of nginx's `stream` module. A failed connection counts; at `max_fails` the server is unavailable,
//! and every further failure prolongs that. Once `fail_timeout` is over since the last failure one connection tries it, and
//! no other one until `fail_timeout` is over again. If that connection is made the server is available and its failures are
//! forgotten; so they are when a connection is made more than `fail_timeout` after the last failure.
//!
//! Must not know: other servers. What happens when all are unavailable is [`route`](crate::route)'s to say.

use std::time::{Duration, Instant};

/// What the configuration says about a server's health.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Failures until it is unavailable; 0: it never is.
    pub max_fails: u32,
    /// How long it is left alone then.
    pub fail_timeout: Duration,
    /// How long its share grows after it came back; zero: not at all.
    pub slow_start: Duration,
}

/// What a report changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Nothing that others must hear of.
    None,
    /// The server is unavailable from now on.
    Unavailable,
    /// It is available again.
    Available,
}

/// What is known of a server's health.
#[derive(Clone, Debug, Default)]
pub struct Health {
    fails: u32,
    /// When it was last tried after a pause, or failed.
    checked: Option<Instant>,
    /// Whether a connection tries it now, after a pause.
    probing: bool,
    unavailable_since: Option<Instant>,
    times: u64,
    downtime: Duration,
    rising_since: Option<Instant>,
}

impl Health {
    /// Whether a connection may go there.
    pub fn available(&self, limits: &Limits, now: Instant) -> bool {
        limits.max_fails == 0 || self.fails < limits.max_fails || self.pause_over(limits, now)
    }

    fn pause_over(&self, limits: &Limits, now: Instant) -> bool {
        self.checked.is_none_or(|checked| now.saturating_duration_since(checked) > limits.fail_timeout)
    }

    /// A connection goes there.
    pub fn chosen(&mut self, limits: &Limits, now: Instant) {
        // Without a failure there is nothing that a try could make good.
        if self.fails > 0 && self.pause_over(limits, now) {
            self.checked = Some(now);
            self.probing = true;
        }
    }

    /// A connection goes there because no other server is left: it counts as a try after a pause.
    pub const fn chosen_as_last_resort(&mut self, now: Instant) {
        self.checked = Some(now);
        self.probing = true;
    }

    /// The pause is over: one connection may try it.
    pub const fn pause_ends(&mut self) {
        self.checked = None;
    }

    /// A connection could not be made.
    pub fn failed(&mut self, limits: &Limits, now: Instant) -> Change {
        self.fails = self.fails.saturating_add(1);
        self.checked = Some(now);
        self.probing = false;
        if limits.max_fails == 0 || self.fails < limits.max_fails || self.unavailable_since.is_some() {
            return Change::None;
        }
        self.unavailable_since = Some(now);
        self.times += 1;
        self.rising_since = None;
        Change::Unavailable
    }

    /// A connection was made.
    pub fn succeeded(&mut self, limits: &Limits, now: Instant) -> Change {
        if !std::mem::take(&mut self.probing) {
            return Change::None;
        }
        self.recovered(limits, now)
    }

    /// Its failures are forgotten: a connection was made, or an operator or a configuration says that it is well.
    pub fn recovered(&mut self, limits: &Limits, now: Instant) -> Change {
        self.fails = 0;
        self.probing = false;
        let Some(since) = self.unavailable_since.take() else { return Change::None };
        self.downtime += now.saturating_duration_since(since);
        self.rise(limits, now);
        Change::Available
    }

    /// Its share begins to grow now.
    pub fn rise(&mut self, limits: &Limits, now: Instant) {
        self.rising_since = (!limits.slow_start.is_zero()).then_some(now);
    }

    /// Its share of a weight now: from 1 to the whole of it.
    pub fn share(&mut self, limits: &Limits, weight: u32, now: Instant) -> u32 {
        let Some(since) = self.rising_since else { return weight };
        let (elapsed, whole) = (now.saturating_duration_since(since), limits.slow_start);
        if elapsed >= whole {
            self.rising_since = None;
            return weight;
        }
        let share = u128::from(weight) * elapsed.as_nanos() / whole.as_nanos().max(1);
        u32::try_from(share).unwrap_or(weight).max(1)
    }

    /// Whether anything here makes a difference: if not, it need not be asked.
    pub const fn ails(&self) -> bool {
        self.fails > 0 || self.unavailable_since.is_some() || self.rising_since.is_some()
    }

    /// Whether it is unavailable; a try that is due does not change that.
    pub const fn is_unavailable(&self) -> bool {
        self.unavailable_since.is_some()
    }

    /// How often it became unavailable, and for how long it was in total.
    pub fn history(&self, now: Instant) -> (u64, Duration) {
        let since = self.unavailable_since.map(|since| now.saturating_duration_since(since));
        (self.times, self.downtime + since.unwrap_or_default())
    }
}

#[cfg(test)]
mod tests;
