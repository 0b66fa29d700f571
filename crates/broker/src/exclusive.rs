//! `$exclusive/{filter}`: of all sessions one at a time subscribes to it. Others get Quota exceeded (0x97), as with EMQX.
//!
//! A session holds a filter from SUBSCRIBE to UNSUBSCRIBE or to its own end, also while its client is away. Messages are published
//! to topics without the prefix, and the subscription is one to the filter without it.
//!
//! Must not know: packets, connections, routes.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use hashbrown::HashMap;

use crate::router::SessionKey;

const PREFIX: &str = "$exclusive/";

/// The filter behind the prefix, if it has one.
pub(crate) fn path(filter: &str) -> Option<&str> {
    filter.strip_prefix(PREFIX)
}

/// The filter with the prefix: as a client writes it.
pub(crate) fn with_prefix(path: &str) -> String {
    format!("{PREFIX}{path}")
}

/// Who holds which filter, over all workers. Touched by SUBSCRIBE, UNSUBSCRIBE and the end of a session only.
#[derive(Default)]
pub(crate) struct Exclusive {
    held: Mutex<Held>,
    /// So that the end of a session costs nothing while nobody holds any.
    count: AtomicUsize,
}

#[derive(Default)]
struct Held {
    by_path: HashMap<Box<str>, SessionKey>,
    by_session: HashMap<SessionKey, Vec<Box<str>>>,
}

impl Exclusive {
    /// Makes the session the holder of the filter; `false`: another one is.
    pub(crate) fn claim(&self, path: &str, session: SessionKey) -> bool {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(holder) = held.by_path.get(path) {
            return *holder == session;
        }
        held.by_path.insert(path.into(), session);
        held.by_session.entry(session).or_default().push(path.into());
        self.count.store(held.by_path.len(), Ordering::Release);
        true
    }

    /// The session gives the filter back, if it holds it.
    pub(crate) fn release(&self, path: &str, session: SessionKey) {
        if self.is_empty() {
            return;
        }
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if held.by_path.get(path) != Some(&session) {
            return;
        }
        held.by_path.remove(path);
        if let Some(paths) = held.by_session.get_mut(&session) {
            paths.retain(|p| **p != *path);
            if paths.is_empty() {
                held.by_session.remove(&session);
            }
        }
        self.count.store(held.by_path.len(), Ordering::Release);
    }

    /// The session ends, and with it everything it holds.
    pub(crate) fn release_all(&self, session: SessionKey) {
        if self.is_empty() {
            return;
        }
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        for path in held.by_session.remove(&session).unwrap_or_default() {
            held.by_path.remove(&path);
        }
        self.count.store(held.by_path.len(), Ordering::Release);
    }

    fn is_empty(&self) -> bool {
        // a session ends on the worker that claimed for it, or after its records said that it holds something
        self.len() == 0
    }

    /// How many filters are held.
    pub(crate) fn len(&self) -> usize {
        self.count.load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_prefix_is_taken_off_and_put_back() {
        assert_eq!(path("$exclusive/a/b"), Some("a/b"));
        assert_eq!(path("$exclusive/"), Some(""));
        assert_eq!(path("$exclusive"), None);
        assert_eq!(path("a/b"), None);
        assert_eq!(with_prefix("a/b"), "$exclusive/a/b");
    }

    proptest! {
        #[test]
        fn one_session_holds_a_filter(ops in proptest::collection::vec((0u8..3, 0u64..3, "[ab]"), 0..60)) {
            let exclusive = Exclusive::default();
            let mut oracle: BTreeMap<String, u64> = BTreeMap::new();
            for (op, session, path) in ops {
                let key = SessionKey(session);
                match op {
                    0 => {
                        let expected = *oracle.entry(path.clone()).or_insert(session) == session;
                        prop_assert_eq!(exclusive.claim(&path, key), expected);
                    }
                    1 => {
                        oracle.retain(|p, s| (p, *s) != (&path, session));
                        exclusive.release(&path, key);
                    }
                    _ => {
                        oracle.retain(|_, s| *s != session);
                        exclusive.release_all(key);
                    }
                }
                prop_assert_eq!(exclusive.len(), oracle.len());
            }
            let held = exclusive.held.lock().unwrap();
            prop_assert_eq!(held.by_session.values().map(Vec::len).sum::<usize>(), oracle.len());
        }
    }
}
