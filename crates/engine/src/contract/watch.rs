//! What the events of a watch must be like.

use std::collections::BTreeMap;

use super::WatchEvent;
use crate::{Key, Rev};

/// Plays the events and gives the records that a watcher has by now.
///
/// # Panics
/// If a key comes at a lower revision than before, changes after Ready are not in the order of revisions, or Ready
/// comes twice.
pub(super) fn play(events: &[WatchEvent]) -> BTreeMap<Key, Vec<u8>> {
    let mut records = BTreeMap::new();
    let mut revs: BTreeMap<Key, Rev> = BTreeMap::new();
    let (mut ready, mut last) = (false, Rev::NONE);
    for event in events {
        match event {
            WatchEvent::Ready => assert!(!std::mem::replace(&mut ready, true), "ready twice"),
            WatchEvent::Change(change) => {
                let before = revs.insert(change.key.clone(), change.rev);
                assert!(before < Some(change.rev), "{:?} at {:?} after {before:?}", change.key, change.rev);
                assert!(!ready || change.rev > last, "{:?} after {last:?}", change.rev);
                if ready {
                    last = change.rev;
                }
                match &change.value {
                    Some(value) => records.insert(change.key.clone(), value.to_vec()),
                    None => records.remove(&change.key),
                };
            }
        }
    }
    records
}
