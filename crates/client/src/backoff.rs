//! When to try again after a connection was lost or refused: pure, seeded.

use std::time::Duration;

/// What happens when the connection is lost.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Reconnect {
    /// The client is finished.
    #[default]
    Never,
    /// It comes back after a pause that grows with every failure.
    WithBackoff(Backoff),
}

/// Pauses that double from `first` to `max`; each is shortened by up to `jitter` of itself, so that a fleet that lost
/// its broker at one moment does not come back at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct Backoff {
    /// The pause after the first failure.
    pub first: Duration,
    /// No pause is longer.
    pub max: Duration,
    /// 0.0 (none) to 1.0 (a pause may be anything from 0 to its full length).
    pub jitter: f64,
    /// Of the jitter; the same seed gives the same pauses.
    pub seed: u64,
}

impl Default for Backoff {
    fn default() -> Self {
        Self {
            first: Duration::from_millis(500),
            max: Duration::from_secs(60),
            jitter: 0.5,
            seed: fastrand::u64(..),
        }
    }
}

/// A [`Backoff`] at work.
#[derive(Debug)]
pub(crate) struct Pauses {
    policy: Backoff,
    failures: u32,
    random: fastrand::Rng,
}

impl Pauses {
    pub(crate) fn new(policy: Backoff) -> Self {
        let random = fastrand::Rng::with_seed(policy.seed);
        Self { policy, failures: 0, random }
    }

    /// How long to wait after one more failure.
    pub(crate) fn next(&mut self) -> Duration {
        let doubled = self.policy.first.saturating_mul(1_u32.checked_shl(self.failures).unwrap_or(u32::MAX));
        let full = doubled.min(self.policy.max);
        self.failures = self.failures.saturating_add(1);
        let shortened_by = self.policy.jitter.clamp(0.0, 1.0) * self.random.f64();
        full.mul_f64(1.0 - shortened_by)
    }

    /// A connection lived `for_`: if it outlived the pause before it, the trouble is over and pauses start small again.
    /// A connection that dies at once counts as a failure, so that two clients with one id do not chase each other.
    pub(crate) fn connection_lived(&mut self, for_: Duration) {
        let last = self
            .policy
            .first
            .saturating_mul(1_u32.checked_shl(self.failures.saturating_sub(1)).unwrap_or(u32::MAX));
        if for_ >= last.min(self.policy.max) {
            self.failures = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pauses(jitter: f64, seed: u64) -> Pauses {
        Pauses::new(Backoff { first: Duration::from_secs(1), max: Duration::from_secs(20), jitter, seed })
    }

    #[test]
    fn pauses_double_up_to_the_largest() {
        let mut pauses = pauses(0.0, 1);
        let seconds: Vec<u64> = (0..7).map(|_| pauses.next().as_secs()).collect();
        assert_eq!(seconds, [1, 2, 4, 8, 16, 20, 20]);
        for _ in 0..100 {
            assert_eq!(pauses.next().as_secs(), 20);
        }
    }

    #[test]
    fn jitter_only_shortens_and_the_seed_repeats_it() {
        let (mut a, mut b, mut other) = (pauses(0.5, 7), pauses(0.5, 7), pauses(0.5, 8));
        let run = |p: &mut Pauses| (0..20).map(|_| p.next()).collect::<Vec<_>>();
        let (a, b, other) = (run(&mut a), run(&mut b), run(&mut other));
        assert_eq!(a, b);
        assert_ne!(a, other);
        for pause in &a[5..] {
            assert!((10.0..=20.0).contains(&pause.as_secs_f64()), "{pause:?}");
        }
    }

    #[test]
    fn only_a_connection_that_lasted_makes_pauses_small_again() {
        let mut pauses = pauses(0.0, 1);
        for _ in 0..3 {
            pauses.next();
        }
        pauses.connection_lived(Duration::from_millis(100));
        assert_eq!(pauses.next().as_secs(), 8);
        pauses.connection_lived(Duration::from_secs(8));
        assert_eq!(pauses.next().as_secs(), 1);
    }
}
