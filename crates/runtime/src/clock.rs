//! The only place that reads the time.
//!
//! Everything else is given a [`Clock`] or a plain `now`, so that a test can run a year in a second.
//! `clippy.toml` bans `Instant::now` and `SystemTime::now` everywhere but here.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Where the time comes from: the machine, or a test's hand. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Clock(Source);

#[derive(Clone, Debug)]
enum Source {
    System,
    Manual(Arc<Manual>),
}

#[derive(Debug)]
struct Manual {
    start: Instant,
    start_unix_millis: u64,
    elapsed_nanos: AtomicU64,
}

/// The hand that moves a manual [`Clock`].
#[derive(Clone, Debug)]
pub struct ManualClock(Arc<Manual>);

/// Where manual clocks start: 2026-01-01T00:00:00Z, so that two runs of a test print the same times.
const MANUAL_START_UNIX_MILLIS: u64 = 1_767_225_600_000;

impl Clock {
    /// The machine's clocks.
    pub fn system() -> Self {
        Self(Source::System)
    }

    /// A clock that stands still until its hand moves it. For tests.
    #[allow(clippy::disallowed_methods)] // an Instant can be made in no other way; its value does not matter
    pub fn manual() -> (Self, ManualClock) {
        let state = Arc::new(Manual {
            start: Instant::now(),
            start_unix_millis: MANUAL_START_UNIX_MILLIS,
            elapsed_nanos: AtomicU64::new(0),
        });
        (Self(Source::Manual(Arc::clone(&state))), ManualClock(state))
    }

    /// Monotonic time, for deadlines and durations.
    #[allow(clippy::disallowed_methods)]
    pub fn now(&self) -> Instant {
        match &self.0 {
            Source::System => Instant::now(),
            Source::Manual(state) => state.start + state.elapsed(),
        }
    }

    /// Milliseconds since 1970-01-01T00:00:00Z, for what people read and what outlives the process.
    /// It may jump when the machine's clock is set; a machine set before 1970 reads as 0.
    #[allow(clippy::disallowed_methods)]
    pub fn unix_millis(&self) -> u64 {
        match &self.0 {
            Source::System => SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX)),
            Source::Manual(state) => {
                let elapsed = u64::try_from(state.elapsed().as_millis()).unwrap_or(u64::MAX);
                state.start_unix_millis.saturating_add(elapsed)
            }
        }
    }
}

impl Manual {
    fn elapsed(&self) -> Duration {
        Duration::from_nanos(self.elapsed_nanos.load(Ordering::SeqCst))
    }
}

impl ManualClock {
    /// Moves the time forward; at most about 584 years in sum.
    pub fn advance(&self, by: Duration) {
        let nanos = u64::try_from(by.as_nanos()).unwrap_or(u64::MAX);
        let add = |old: u64| Some(old.saturating_add(nanos));
        // The closure never refuses, so there is nothing to handle.
        let _ = self.0.elapsed_nanos.fetch_update(Ordering::SeqCst, Ordering::SeqCst, add);
    }
}

/// Milliseconds since 1970 as RFC 3339 in UTC with milliseconds: `2026-11-22T08:30:00.123Z`.
/// Times after the year 9999 are given as its last millisecond.
pub fn rfc3339(unix_millis: u64) -> String {
    let millis = i64::try_from(unix_millis).unwrap_or(i64::MAX);
    let at = jiff::Timestamp::from_millisecond(millis).unwrap_or(jiff::Timestamp::MAX);
    format!("{at:.3}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manual_clock_moves_only_by_its_hand() {
        let (clock, hand) = Clock::manual();
        let (start, start_ms) = (clock.now(), clock.unix_millis());
        assert_eq!(clock.now(), start);
        hand.advance(Duration::from_millis(1_500));
        let other = clock.clone();
        assert_eq!(other.now() - start, Duration::from_millis(1_500));
        assert_eq!(clock.unix_millis() - start_ms, 1_500);
    }

    #[test]
    fn a_manual_clock_survives_absurd_steps() {
        let (clock, hand) = Clock::manual();
        hand.advance(Duration::from_secs(365 * 24 * 3600));
        hand.advance(Duration::ZERO);
        assert_eq!(rfc3339(clock.unix_millis()), "2027-01-01T00:00:00.000Z");
    }

    #[test]
    fn the_system_clock_is_monotonic_and_after_2025() {
        let clock = Clock::system();
        let first = clock.now();
        assert!(clock.now() >= first);
        assert!(clock.unix_millis() > 1_735_689_600_000);
    }

    #[test]
    fn rfc3339_always_has_milliseconds_and_utc() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(rfc3339(1_795_336_200_123), "2026-11-22T08:30:00.123Z");
        assert_eq!(rfc3339(1_795_336_200_120), "2026-11-22T08:30:00.120Z");
        assert!(rfc3339(u64::MAX).starts_with("9999-12-3"));
    }
}
