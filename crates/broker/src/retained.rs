//! Retained messages by topic, found by filter.
//!
//! An ordered map, sorted level by level: what lies below a level is one stretch of it. A filter is answered by
//! walking the stretches that can match and leaping over the others. So every search can stop at any topic and go
//! on from there later, and one subscription to a large store need not hold up its worker.
//!
//! This room must not know what is kept for a topic, when it expires, or who asks. It is told valid topics and
//! filters.

mod pattern;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::ops::Bound;

use pattern::Pattern;

/// Topics in a row that may miss before the search leaps: stepping is cheaper than leaping over a few.
const STEPS_BEFORE_LEAP: u32 = 8;

/// One value for each topic.
pub(crate) struct Retained<T> {
    /// With the number of the change that put it there.
    by_topic: BTreeMap<Key, (u64, T)>,
    changes: u64,
}

/// A topic with U+0000 for `/`, so that the plain order of strings is the order by level: no topic has that
/// character [MQTT-1.5.4-2], and none is smaller.
type Key = Box<str>;

fn key(topic: &str) -> String {
    topic.replace('/', "\0")
}

fn topic(key: &str) -> String {
    key.replace('\0', "/")
}

/// Where a search stopped and can go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Resume(Key);

impl<T> Retained<T> {
    pub(crate) fn new() -> Self {
        Self { by_topic: BTreeMap::new(), changes: 0 }
    }

    /// Keeps `value` for `topic`; gives what it replaces.
    pub(crate) fn insert(&mut self, topic: &str, value: T) -> Option<T> {
        self.changes += 1;
        self.by_topic.insert(key(topic).into_boxed_str(), (self.changes, value)).map(|(_, before)| before)
    }

    pub(crate) fn remove(&mut self, topic: &str) -> Option<T> {
        self.by_topic.remove(key(topic).as_str()).map(|(_, before)| before)
    }

    pub(crate) fn get(&self, topic: &str) -> Option<&T> {
        self.by_topic.get(key(topic).as_str()).map(|(_, value)| value)
    }

    /// How many values were kept so far: the number of the last change.
    pub(crate) fn changes(&self) -> u64 {
        self.changes
    }

    /// How many topics have a value.
    pub(crate) fn len(&self) -> usize {
        self.by_topic.len()
    }

    /// Appends the first `limit` topics that match `filter`, level by level in ascending order, with their values.
    ///
    /// Takes time for all topics that the filter's wildcards do not rule out, matching or not; for a store that
    /// may be large, [`Self::scan`] does the same in pieces.
    #[cfg(test)]
    pub(crate) fn matching<'a>(&'a self, filter: &str, limit: usize, out: &mut Vec<(String, &'a T)>) {
        self.scan(filter, None, u64::MAX, limit, usize::MAX, out);
    }

    /// Appends at most `limit` topics that match `filter`, level by level in ascending order, with their values, and looks at
    /// `steps` topics at most (at least 1). Values of a change after `until` are passed over. Gives where to go on, or `None`
    /// when everything was seen. Topics that were there from the first piece to the last are given exactly
    /// once, whatever else was inserted or removed in between.
    pub(crate) fn scan<'a>(
        &'a self,
        filter: &str,
        from: Option<Resume>,
        until: u64,
        limit: usize,
        steps: usize,
        out: &mut Vec<(String, &'a T)>,
    ) -> Option<Resume> {
        let filter = key(filter);
        let pattern = Pattern::new(&filter);
        let (mut from, mut steps) =
            (from.map_or_else(|| pattern.start(), |r| r.0.into_string()), steps.max(1));
        let full = out.len().saturating_add(limit);
        loop {
            let mut misses = 0;
            let mut leap = None;
            for (key, (change, value)) in
                self.by_topic.range::<str, _>((Bound::Included(from.as_str()), Bound::Unbounded))
            {
                if steps == 0 || out.len() >= full {
                    return Some(Resume(key.clone()));
                }
                steps -= 1;
                if pattern.matches(key) {
                    misses = 0;
                    if *change <= until {
                        out.push((topic(key), value));
                    }
                    continue;
                }
                misses += 1;
                if misses == STEPS_BEFORE_LEAP {
                    leap = pattern.next_candidate(key);
                    break;
                }
            }
            from = leap?;
        }
    }

    /// Removes every topic that `keep` refuses.
    pub(crate) fn retain(&mut self, mut keep: impl FnMut(&str, &T) -> bool) {
        self.by_topic.retain(|key, (_, value)| keep(&topic(key), value));
    }
}
