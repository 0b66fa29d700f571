//! Times as a histogram, and the percentiles of it.

use hdrhistogram::Histogram;
use serde::Serialize;

/// Longer times count as this: an hour, in nanoseconds.
const LONGEST: u64 = 3_600_000_000_000;

/// Three significant digits: every percentile is within 0.1 % of a recorded value.
const DIGITS: u8 = 3;

/// Times in nanoseconds.
#[derive(Clone, Debug)]
pub(crate) struct Times(Histogram<u64>);

impl Default for Times {
    fn default() -> Self {
        let histogram = Histogram::new_with_bounds(1, LONGEST, DIGITS);
        Self(histogram.unwrap_or_else(|_| unreachable!("constants within the bounds of the crate")))
    }
}

impl Times {
    /// Counts a time in nanoseconds.
    pub(crate) fn add(&mut self, nanos: u64) {
        self.0.saturating_record(nanos);
    }

    /// Adds those of another thread.
    pub(crate) fn join(&mut self, other: &Self) {
        // It fails only for values beyond our bounds, and both have the same.
        let _ = self.0.add(&other.0);
    }

    /// The time that a share of 0 to 1 of all does not exceed, in nanoseconds.
    pub(crate) fn quantile(&self, share: f64) -> u64 {
        self.0.value_at_quantile(share)
    }

    /// What is told of them; nothing when there are none.
    pub(crate) fn percentiles(&self) -> Option<Percentiles> {
        if self.0.is_empty() {
            return None;
        }
        let at = |share| millis(self.quantile(share));
        Some(Percentiles {
            count: self.0.len(),
            mean: millis(self.0.mean() as u64),
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            max: millis(self.0.max()),
        })
    }
}

/// Nanoseconds as milliseconds, to the microsecond.
fn millis(nanos: u64) -> f64 {
    (nanos / 1_000) as f64 / 1_000.0
}

/// Times in milliseconds, as they stand in tables and JSON.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Percentiles {
    /// How many were measured.
    pub(crate) count: u64,
    pub(crate) mean: f64,
    pub(crate) p50: f64,
    pub(crate) p90: f64,
    pub(crate) p99: f64,
    pub(crate) p999: f64,
    pub(crate) max: f64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_within_a_thousandth() {
        let mut times = Times::default();
        assert_eq!(times.percentiles(), None);
        let mut half = Times::default();
        for micros in 1..=100_000_u64 {
            if micros % 2 == 0 { &mut times } else { &mut half }.add(micros * 1_000);
        }
        times.join(&half);
        let told = times.percentiles().unwrap();
        assert_eq!(told.count, 100_000);
        for (got, expected) in [
            (told.p50, 50.0),
            (told.p90, 90.0),
            (told.p99, 99.0),
            (told.p999, 99.9),
            (told.max, 100.0),
            (told.mean, 50.0),
        ] {
            assert!((got / expected - 1.0).abs() < 0.001 + 1e-9, "{got} {expected}");
        }
    }

    #[test]
    fn absurd_times_are_counted_as_the_longest() {
        let mut times = Times::default();
        times.add(u64::MAX);
        times.add(0);
        assert_eq!(times.percentiles().unwrap().count, 2);
        assert!(times.quantile(1.0) >= LONGEST);
    }
}
