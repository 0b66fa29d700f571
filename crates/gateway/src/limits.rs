//! What bounds a listener: connections from one address; and how often floods are told of.
//!
//! All workers share these. What is not configured costs nothing. Must not know: configurations, what is done with a
//! connection that is above a limit.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// What can come in floods (too many connections, no descriptors) is reported once in so long; all is counted.
const REPORT_EVERY: Duration = Duration::from_secs(1);

/// Says yes at most once in [`REPORT_EVERY`].
#[derive(Debug, Default)]
pub(crate) struct Seldom(AtomicU64);

impl Seldom {
    /// `now` in milliseconds.
    pub(crate) fn now(&self, now: u64) -> bool {
        let next = now.saturating_add(u64::try_from(REPORT_EVERY.as_millis()).unwrap_or(u64::MAX));
        let later = |due: u64| (due <= now).then_some(next);
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, later).is_ok()
    }
}

/// Connections by address. It holds addresses that have connections now, so that it is never larger than the number of
/// those.
#[derive(Debug, Default)]
pub(crate) struct Addresses(Mutex<HashMap<IpAddr, u32>>);

impl Addresses {
    /// Counts one more from this address; `false`: `max` are there. IPv4 inside IPv6 is IPv4.
    pub(crate) fn enter(&self, address: IpAddr, max: u32) -> bool {
        let mut counts = self.counts();
        let count = counts.entry(address.to_canonical()).or_default();
        let enters = *count < max;
        if enters {
            *count += 1;
        }
        enters
    }

    /// One that entered is gone.
    pub(crate) fn leave(&self, address: IpAddr) {
        if let Entry::Occupied(mut count) = self.counts().entry(address.to_canonical()) {
            match count.get().checked_sub(1) {
                None | Some(0) => drop(count.remove()),
                Some(less) => *count.get_mut() = less,
            }
        }
    }

    fn counts(&self) -> std::sync::MutexGuard<'_, HashMap<IpAddr, u32>> {
        // Nothing under this lock leaves a count half changed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seldom_is_once_in_its_time() {
        let reports = Seldom::default();
        assert!(reports.now(0) && !reports.now(10) && !reports.now(999) && reports.now(1_000));
    }

    #[test]
    fn an_address_has_its_own_count_and_leaves_nothing_behind() {
        let addresses = Addresses::default();
        let (one, other): (IpAddr, IpAddr) = ("10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap());
        let inside_v6 = "::ffff:10.0.0.1".parse().unwrap();
        assert!(addresses.enter(one, 2) && addresses.enter(inside_v6, 2) && !addresses.enter(one, 2));
        assert!(addresses.enter(other, 2));
        addresses.leave(one);
        assert!(addresses.enter(one, 2) && !addresses.enter(one, 2));
        for address in [one, inside_v6, other] {
            addresses.leave(address);
        }
        assert!(addresses.counts().is_empty());
        addresses.leave(one);
    }
}
