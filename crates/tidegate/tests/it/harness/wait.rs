//! Waiting: for an event, with a deadline.

use std::panic::Location;
use std::time::{Duration, Instant};

use runtime::clock::Clock;

/// No step of a test takes this long unless it hangs; a busy machine with two cores is in it.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

/// Between two looks at something that can't wake us.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Now.
pub(crate) fn now() -> Instant {
    Clock::system().now()
}

/// Looks until there is something; after the deadline the test fails with what it waited for.
#[track_caller]
pub(crate) fn eventually<T>(what: &str, look: impl FnMut() -> Option<T>) -> T {
    let at = Location::caller();
    within(DEADLINE, look).unwrap_or_else(|| panic!("{what}: not within {DEADLINE:?} ({at})"))
}

/// Looks until there is something or the time is over.
pub(crate) fn within<T>(time: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = now() + time;
    loop {
        if let Some(value) = look() {
            return Some(value);
        }
        if now() >= deadline {
            return None;
        }
        // sleep: another process can be asked again and again only
        std::thread::sleep(LOOK_EVERY);
    }
}
