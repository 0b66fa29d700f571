//! The order of topics: level by level, so that what lies below a level is one stretch.
//!
//! That is the order of bytes with `/` before all others: no topic has U+0000, which alone would be as small
//! [MQTT-1.5.4-2].

use std::borrow::Borrow;
use std::cmp::Ordering;

/// What has a topic.
pub(crate) trait Named {
    /// The topic, as bytes of UTF-8. It is always the same.
    fn topic(&self) -> &[u8];
}

/// A value in its place, with the number of the change that put it there.
pub(super) struct Slot<T> {
    pub(super) change: u64,
    pub(super) value: T,
}

/// A topic that is looked for.
pub(super) struct Probe<'t>(pub(super) &'t [u8]);

/// What a set of [`Slot`]s can be asked for.
pub(super) fn probe<'a>(topic: &'a Probe<'_>) -> &'a (dyn Named + 'a) {
    topic
}

impl<T: Named> Named for Slot<T> {
    fn topic(&self) -> &[u8] {
        self.value.topic()
    }
}

impl Named for Probe<'_> {
    fn topic(&self) -> &[u8] {
        self.0
    }
}

// A slot and a probe are compared by their topics alone, as the set demands of what it is asked with.

impl<'a, T: Named + 'a> Borrow<dyn Named + 'a> for Slot<T> {
    fn borrow(&self) -> &(dyn Named + 'a) {
        self
    }
}

impl<T: Named> Ord for Slot<T> {
    fn cmp(&self, other: &Self) -> Ordering {
        by_level(self.topic(), other.topic())
    }
}

impl<T: Named> PartialOrd for Slot<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T: Named> PartialEq for Slot<T> {
    fn eq(&self, other: &Self) -> bool {
        self.topic() == other.topic()
    }
}

impl<T: Named> Eq for Slot<T> {}

impl Ord for dyn Named + '_ {
    fn cmp(&self, other: &Self) -> Ordering {
        by_level(self.topic(), other.topic())
    }
}

impl PartialOrd for dyn Named + '_ {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for dyn Named + '_ {
    fn eq(&self, other: &Self) -> bool {
        self.topic() == other.topic()
    }
}

impl Eq for dyn Named + '_ {}

/// Which of two topics comes first.
pub(super) fn by_level(a: &[u8], b: &[u8]) -> Ordering {
    let same = shared(a, b);
    let rank = |byte: &u8| if *byte == b'/' { 0 } else { *byte };
    // an end comes before all that goes on
    a.get(same).map(rank).cmp(&b.get(same).map(rank))
}

/// How many bytes two topics begin with in common: most topics of a fleet share more than eight.
fn shared(a: &[u8], b: &[u8]) -> usize {
    let ((wide_a, _), (wide_b, _)) = (a.as_chunks(), b.as_chunks());
    let mut at = 0;
    for (a, b) in wide_a.iter().zip(wide_b) {
        let differ = u64::from_le_bytes(*a) ^ u64::from_le_bytes(*b);
        if differ != 0 {
            return at + differ.trailing_zeros() as usize / 8;
        }
        at += size_of::<u64>();
    }
    at + a.iter().zip(b).skip(at).take_while(|(a, b)| a == b).count()
}
