//! The machine against nginx's own numbers, and a server that goes and comes back.

use proptest::prelude::*;

use runtime::clock::Clock;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn limits(max_fails: u32, fail_timeout: u64, slow_start: u64) -> Limits {
    Limits { max_fails, fail_timeout: SECOND * fail_timeout as u32, slow_start: SECOND * slow_start as u32 }
}

/// What nginx keeps for a peer, with its comparisons: seconds, and times that begin at 0.
#[derive(Default)]
struct Peer {
    fails: u32,
    accessed: u64,
    checked: u64,
}

impl Peer {
    fn available(&self, max_fails: u32, fail_timeout: u64, now: u64) -> bool {
        !(max_fails > 0 && self.fails >= max_fails && now - self.checked <= fail_timeout)
    }

    fn chosen(&mut self, fail_timeout: u64, now: u64) {
        if now - self.checked > fail_timeout {
            self.checked = now;
        }
    }

    fn ended(&mut self, made: bool, now: u64) {
        if !made {
            self.fails += 1;
            self.accessed = now;
            self.checked = now;
        } else if self.accessed < self.checked {
            self.fails = 0;
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Wait(u64),
    Choose,
    Made,
    Failed,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        2 => (0_u64..8).prop_map(Step::Wait),
        3 => Just(Step::Choose),
        2 => Just(Step::Made),
        2 => Just(Step::Failed),
    ];
    prop::collection::vec(step, 0..60)
}

proptest! {
    /// Any number of connections at a time, which end in any order.
    #[test]
    fn a_server_is_available_exactly_when_nginx_would_try_it(
        steps in steps(), max_fails in 0_u32..4, fail_timeout in 1_u64..10,
    ) {
        let start = Clock::manual().0.now();
        let limits = limits(max_fails, fail_timeout, 0);
        // Later than its times of 0 by more than any time-out, as every clock is.
        let mut now = 1_000_000_u64;
        let (mut ours, mut nginx, mut under_way) = (Health::default(), Peer::default(), 0_u32);
        let (mut times, mut out) = (0, false);
        for step in steps {
            let at = start + SECOND * u32::try_from(now - 1_000_000).unwrap();
            match step {
                Step::Wait(seconds) => now += seconds,
                Step::Choose => {
                    let available = nginx.available(max_fails, fail_timeout, now);
                    prop_assert_eq!(ours.available(&limits, at), available);
                    if available {
                        ours.chosen(&limits, at);
                        nginx.chosen(fail_timeout, now);
                        under_way += 1;
                    }
                }
                Step::Made | Step::Failed if under_way == 0 => {}
                Step::Made => {
                    under_way -= 1;
                    let change = ours.succeeded(&limits, at);
                    nginx.ended(true, now);
                    prop_assert_eq!(change == Change::Available, out && nginx.fails == 0);
                    out &= nginx.fails > 0;
                }
                Step::Failed => {
                    under_way -= 1;
                    let change = ours.failed(&limits, at);
                    nginx.ended(false, now);
                    let disabled = max_fails > 0 && nginx.fails >= max_fails;
                    prop_assert_eq!(change == Change::Unavailable, disabled && !out);
                    times += u64::from(disabled && !out);
                    out |= disabled;
                }
            }
            prop_assert_eq!(ours.is_unavailable(), out);
            prop_assert_eq!(ours.history(at).0, times);
            // What is well need not be asked: the answer would be yes.
            prop_assert!(ours.ails() || ours.available(&limits, at));
        }
    }

    #[test]
    fn a_share_grows_evenly_and_never_shrinks(weight in 1_u32..100_000, looks in prop::collection::vec(0_u64..40_000, 1..20)) {
        let (start, limits) = (Clock::manual().0.now(), limits(1, 10, 30));
        let mut health = Health::default();
        health.rise(&limits, start);
        let mut looks = looks;
        looks.sort_unstable();
        let mut before = 0;
        for millis in looks {
            let share = health.share(&limits, weight, start + Duration::from_millis(millis));
            let exact = f64::from(weight) * millis as f64 / 30_000.0;
            prop_assert!(share >= before && share >= 1 && share <= weight);
            prop_assert!((f64::from(share) - exact.clamp(1.0, f64::from(weight))).abs() <= 1.0, "{share} {exact}");
            before = share;
        }
    }
}

#[test]
fn one_connection_at_a_time_tries_an_unavailable_server() {
    let (start, limits) = (Clock::manual().0.now(), limits(2, 10, 0));
    let mut health = Health::default();
    assert_eq!(health.failed(&limits, start), Change::None);
    assert!(health.available(&limits, start));
    assert_eq!(health.failed(&limits, start + SECOND), Change::Unavailable);
    assert!(!health.available(&limits, start + SECOND * 11), "the whole of the time-out");
    let later = start + SECOND * 12;
    assert!(health.available(&limits, later));
    health.chosen(&limits, later);
    assert!(!health.available(&limits, later), "somebody tries it already");
    assert_eq!(health.failed(&limits, later), Change::None, "it was unavailable before");
    let again = later + SECOND * 11;
    health.chosen(&limits, again);
    assert_eq!(health.succeeded(&limits, again + SECOND), Change::Available);
    assert!(health.available(&limits, again + SECOND) && !health.ails());
    assert_eq!(health.history(again + SECOND), (1, SECOND * 23));
}

#[test]
fn a_connection_made_as_a_last_resort_brings_the_server_back_at_once() {
    let (start, limits) = (Clock::manual().0.now(), limits(1, 10, 0));
    let mut health = Health::default();
    assert_eq!(health.failed(&limits, start), Change::Unavailable);
    health.chosen_as_last_resort(start);
    assert_eq!(health.succeeded(&limits, start), Change::Available);
}

#[test]
fn a_server_that_came_back_starts_slowly_and_one_that_never_went_does_not() {
    let (start, limits) = (Clock::manual().0.now(), limits(1, 10, 30));
    let mut health = Health::default();
    assert_eq!(health.share(&limits, 100, start), 100);
    health.failed(&limits, start);
    health.chosen(&limits, start + SECOND * 11);
    health.succeeded(&limits, start + SECOND * 11);
    let at = |seconds: u32| start + SECOND * (11 + seconds);
    assert_eq!(health.share(&limits, 100, at(0)), 1);
    assert_eq!(health.share(&limits, 100, at(15)), 50);
    assert!(health.ails(), "its share is not whole yet");
    assert_eq!(health.share(&limits, 100, at(30)), 100);
    assert!(!health.ails());
}
