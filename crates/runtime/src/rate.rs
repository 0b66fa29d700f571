//! Rates, and the buckets that hold a flow to them.
//!
//! A bucket holds what the rate gives in one second, at least one unit, and is full at the beginning: a short burst passes,
//! a longer one does not. Everything is counted in whole nanoseconds of the time that an amount is worth (the generic cell rate
//! algorithm), so nothing is lost by rounding over a long time. Pure: time is an argument.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// What a bucket holds at most, as time.
const BURST: Duration = Duration::from_secs(1);
const HOUR: u128 = 3_600_000_000_000;

/// So many in an hour: the smallest unit of time that rates are written with, so each is a whole number. At least one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate(u64);

impl Rate {
    /// From a number for each second, as [`crate::config::Table::rate`] gives it; at least one an hour.
    pub fn per_second(rate: f64) -> Self {
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // a float saturates
        let hourly = (rate * 3_600.0).round() as u64;
        Self(hourly.max(1))
    }

    /// From bytes for each second; at least one an hour.
    pub fn bytes_per_second(rate: u64) -> Self {
        Self(rate.saturating_mul(3_600).max(1))
    }

    /// The time in which so many come at this rate.
    fn worth(self, amount: u64) -> Duration {
        let nanos = u128::from(amount) * HOUR / u128::from(self.0);
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    fn burst(self) -> Duration {
        BURST.max(self.worth(1))
    }
}

/// A flow that is known after it has come: it may go into debt, and says how long to take no more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bucket {
    /// When it will be full again.
    full: Option<Instant>,
}

impl Bucket {
    /// Takes an amount out. How long to wait until the bucket is out of debt; nothing while it is not in debt.
    pub fn take(&mut self, rate: Rate, amount: u64, now: Instant) -> Duration {
        let full = self.full.map_or(now, |full| full.max(now)) + rate.worth(amount);
        self.full = Some(full);
        full.saturating_duration_since(now + rate.burst())
    }
}

/// A flow that many threads ask of before it comes. It never goes into debt.
#[derive(Debug, Default)]
pub struct SharedBucket(AtomicU64);

impl SharedBucket {
    /// Whether one more may pass. `now` in nanoseconds since any moment that stays the same.
    pub fn allows(&self, rate: Rate, now: u64) -> bool {
        let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let (one, burst) = (nanos(rate.worth(1)), nanos(rate.burst()));
        let next = |full: u64| {
            let full = full.max(now).saturating_add(one);
            (full <= now.saturating_add(burst)).then_some(full)
        };
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::clock::Clock;

    #[test]
    fn a_second_of_the_rate_passes_at_once_and_then_the_rate() {
        let now = Clock::system().now();
        let rate = Rate::per_second(10.0);
        let mut bucket = Bucket::default();
        for _ in 0..10 {
            assert_eq!(bucket.take(rate, 1, now), Duration::ZERO);
        }
        assert_eq!(bucket.take(rate, 1, now), Duration::from_millis(100));
        assert_eq!(bucket.take(rate, 1, now + Duration::from_millis(100)), Duration::from_millis(100));
        assert_eq!(bucket.take(rate, 5, now + Duration::from_secs(60)), Duration::ZERO, "it was full again");
    }

    #[test]
    fn a_rate_below_one_a_second_lets_one_pass() {
        let rate = Rate::per_second(1.0 / 3_600.0);
        let shared = SharedBucket::default();
        assert!(shared.allows(rate, 0) && !shared.allows(rate, 0));
        assert!(!shared.allows(rate, 3_599_999_999_999) && shared.allows(rate, 3_600_000_000_000));
    }

    proptest! {
        /// Oracle: tokens as a number that grows with time.
        #[test]
        fn it_waits_as_long_as_tokens_are_missing(
            hourly in 1u64..10_000_000,
            flow in prop::collection::vec((0u64..5_000_000, 0u64..2_000), 1..60),
        ) {
            let rate = Rate(hourly);
            let per_second = hourly as f64 / 3_600.0;
            let most = per_second.max(1.0);
            let (mut bucket, mut tokens) = (Bucket::default(), most);
            let mut now = Clock::system().now();
            for (micros, amount) in flow {
                now += Duration::from_micros(micros);
                tokens = (tokens + micros as f64 / 1e6 * per_second).min(most) - amount as f64;
                let expected = (-tokens / per_second).max(0.0);
                let got = bucket.take(rate, amount, now).as_secs_f64();
                prop_assert!((got - expected).abs() < 1e-3 * (1.0 + expected), "{} is not {}", got, expected);
            }
        }

        /// Oracle: the same as a bucket of one, asked before.
        #[test]
        fn what_is_shared_never_goes_into_debt(
            hourly in 1u64..10_000_000,
            steps in prop::collection::vec(0u64..2_000_000_000, 1..200),
        ) {
            let rate = Rate(hourly);
            let shared = SharedBucket::default();
            let (mut now, mut bucket) = (0u64, Bucket::default());
            let start = Clock::system().now();
            for step in steps {
                now += step;
                let mut probe = bucket;
                let fits = probe.take(rate, 1, start + Duration::from_nanos(now)).is_zero();
                prop_assert_eq!(shared.allows(rate, now), fits);
                if fits {
                    bucket = probe;
                }
            }
        }
    }
}
