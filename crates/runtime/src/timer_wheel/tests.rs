use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::clock::Clock;

const SECOND: Duration = Duration::from_secs(1);
const NOTHING: [u32; 0] = [];

fn start() -> Instant {
    Clock::manual().0.now()
}

/// Everything that fires at `now`, sorted.
fn fire(wheel: &mut Wheel<u32>, now: Instant) -> Vec<u32> {
    let mut fired = Vec::new();
    wheel.advance(now, &mut fired);
    fired.sort_unstable();
    fired
}

#[test]
fn an_entry_fires_once_at_the_first_tick_at_or_after_its_deadline() {
    let start = start();
    let mut wheel = Wheel::new(start, SECOND);
    wheel.arm(1, start + Duration::from_millis(1_001));
    wheel.arm(2, start + SECOND);
    assert_eq!(fire(&mut wheel, start + Duration::from_millis(999)), NOTHING);
    assert_eq!(fire(&mut wheel, start + SECOND), [2]);
    assert_eq!(fire(&mut wheel, start + Duration::from_millis(1_999)), NOTHING);
    assert_eq!(fire(&mut wheel, start + 2 * SECOND), [1]);
    assert_eq!(fire(&mut wheel, start + 1_000_000 * SECOND), NOTHING);
    assert!(wheel.is_empty());
}

#[test]
fn a_past_deadline_fires_at_the_next_tick() {
    let start = start();
    let mut wheel = Wheel::new(start, SECOND);
    assert_eq!(fire(&mut wheel, start + 10 * SECOND), NOTHING);
    wheel.arm(1, start);
    wheel.arm(2, start + 10 * SECOND);
    assert_eq!(fire(&mut wheel, start + 10 * SECOND), NOTHING);
    let next = wheel.next_tick();
    assert_eq!(fire(&mut wheel, next), [1, 2]);
}

#[test]
fn next_tick_is_the_end_of_the_running_tick() {
    let start = start();
    let mut wheel: Wheel<u32> = Wheel::new(start, SECOND);
    assert_eq!(wheel.next_tick(), start + SECOND);
    fire(&mut wheel, start + Duration::from_millis(2_500));
    assert_eq!(wheel.next_tick(), start + 3 * SECOND);
}

#[test]
fn an_entry_of_many_rounds_waits_for_its_own() {
    let start = start();
    let mut wheel = Wheel::new(start, SECOND);
    let slots = u32::try_from(SLOTS).unwrap();
    wheel.arm(3, start + 3 * slots * SECOND);
    wheel.arm(1, start + slots * SECOND);
    assert_eq!(fire(&mut wheel, start + slots * SECOND), [1]);
    assert_eq!(fire(&mut wheel, start + (3 * slots - 1) * SECOND), NOTHING);
    assert_eq!(fire(&mut wheel, start + 3 * slots * SECOND), [3]);
}

#[test]
fn time_that_goes_back_does_nothing() {
    let start = start();
    let mut wheel = Wheel::new(start + 100 * SECOND, SECOND);
    wheel.arm(1, start);
    assert_eq!(fire(&mut wheel, start), NOTHING);
    assert_eq!(fire(&mut wheel, start + 101 * SECOND), [1]);
}

#[test]
fn a_tick_is_never_so_short_that_a_wheel_is_full_in_the_life_of_a_process() {
    let start = start();
    for asked in [Duration::ZERO, Duration::from_millis(1), Duration::from_millis(399), SHORTEST_TICK] {
        let mut wheel = Wheel::new(start, asked);
        assert_eq!(wheel.next_tick(), start + SHORTEST_TICK, "{asked:?}");
        // fifty years later it still tells one deadline from the next
        let later = start + 50 * 365 * 86_400 * SECOND;
        assert_eq!(fire(&mut wheel, later), NOTHING);
        wheel.arm(1, later + SECOND);
        assert_eq!(fire(&mut wheel, later + SHORTEST_TICK), NOTHING);
        assert_eq!(fire(&mut wheel, later + 2 * SECOND), [1]);
    }
    assert_eq!(Wheel::<u32>::new(start, SECOND).next_tick(), start + SECOND);
}

#[test]
fn a_slot_gives_the_memory_of_a_burst_back() {
    let start = start();
    let mut wheel = Wheel::new(start, SECOND);
    for key in 0..100_000 {
        wheel.arm(key, start + SECOND);
    }
    assert_eq!(fire(&mut wheel, start + SECOND).len(), 100_000);
    assert!(wheel.slots.iter().all(|slot| slot.capacity() <= 64));
}

/// A busy connection that is fed 1,000 times between two firings has one entry, because its owner arms at firings.
#[test]
fn an_owner_that_re_arms_at_firings_costs_one_entry() {
    let start = start();
    let mut wheel = Wheel::new(start, SECOND);
    let (mut deadline, mut firings) = (start + 60 * SECOND, 0);
    wheel.arm(7, deadline);
    for second in 1..=600 {
        let now = start + second * SECOND;
        if second < 500 {
            deadline = now + 60 * SECOND;
        }
        for key in fire(&mut wheel, now) {
            firings += 1;
            assert_eq!(key, 7);
            if deadline <= now {
                assert_eq!(now, start + 559 * SECOND);
                return;
            }
            wheel.arm(key, deadline);
        }
        assert_eq!(wheel.len(), 1);
    }
    panic!("the dead connection was not found after {firings} firings");
}

#[derive(Clone, Debug)]
enum Step {
    Arm(u64),
    Advance(u64),
}

fn step() -> impl Strategy<Value = Step> {
    // Milliseconds: near, within a round, and many rounds; jumps may pass several rounds at once.
    let span = prop_oneof![3 => 0u64..5_000, 3 => 0u64..600_000, 1 => 0u64..10_000_000_000];
    prop_oneof![3 => span.clone().prop_map(Step::Arm), 2 => span.prop_map(Step::Advance)]
}

proptest! {
    /// Against a sorted map from the rounded-up tick to the keys.
    #[test]
    fn it_fires_what_a_sorted_map_says(tick_ms in prop_oneof![Just(1000u64), 400u64..5000], steps in prop::collection::vec(step(), 1..120)) {
        let start = start();
        let mut wheel = Wheel::new(start, Duration::from_millis(tick_ms));
        let mut oracle: BTreeMap<u64, Vec<u32>> = BTreeMap::new();
        let (mut now_ms, mut count) = (0, 0);
        for (key, step) in (0u32..).zip(steps) {
            match step {
                Step::Arm(ahead) => {
                    // One in three is armed for the past.
                    let at = if key % 3 == 0 { now_ms / 2 } else { now_ms + ahead };
                    wheel.arm(key, start + Duration::from_millis(at));
                    let due = at.div_ceil(tick_ms).max(now_ms / tick_ms + 1);
                    oracle.entry(due).or_default().push(key);
                    count += 1;
                }
                Step::Advance(by) => {
                    now_ms += by;
                    let later = oracle.split_off(&(now_ms / tick_ms + 1));
                    let mut due: Vec<u32> = std::mem::replace(&mut oracle, later).into_values().flatten().collect();
                    due.sort_unstable();
                    count -= due.len();
                    prop_assert_eq!(fire(&mut wheel, start + Duration::from_millis(now_ms)), due);
                    prop_assert_eq!(wheel.next_tick(), start + Duration::from_millis((now_ms / tick_ms + 1) * tick_ms));
                }
            }
            prop_assert_eq!(wheel.len(), count);
        }
    }
}
