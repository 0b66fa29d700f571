//! A filter over topics in the order of their levels: whether one matches, and which could be next.

use std::cmp::Ordering;

/// The smallest byte above the separator of levels, which comes before all others: put after a topic, it leads past everything
/// below that topic.
const PAST_BELOW: &[u8] = b"\x01";
/// What follows `$` in order.
const PAST_DOLLAR: &[u8] = b"%";

/// A filter with its levels taken apart.
pub(super) struct Pattern<'f> {
    /// All but a last `#`.
    levels: Vec<&'f [u8]>,
    /// It ends with `#`.
    below: bool,
}

fn levels(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.split(|byte| *byte == b'/')
}

impl<'f> Pattern<'f> {
    pub(super) fn new(filter: &'f [u8]) -> Self {
        let mut levels: Vec<_> = levels(filter).collect();
        let below = levels.pop_if(|last| *last == b"#").is_some();
        Self { levels, below }
    }

    /// No topic before this one matches.
    pub(super) fn start(&self) -> Vec<u8> {
        let literal = self.levels.iter().take_while(|level| **level != b"+").count();
        self.levels[..literal].join(&b'/')
    }

    pub(super) fn matches(&self, topic: &[u8]) -> bool {
        if self.is_hidden(topic) {
            return false;
        }
        let mut present = levels(topic);
        for &wanted in &self.levels {
            match present.next() {
                Some(level) if wanted == b"+" || wanted == level => {}
                _ => return false,
            }
        }
        // `#` stands for no level as well: `a/#` matches `a` (§4.7.1.2).
        self.below || present.next().is_none()
    }

    /// For a topic that does not match: a greater one with nothing that matches in between, or `None` when nothing
    /// that follows can match.
    pub(super) fn next_candidate(&self, topic: &[u8]) -> Option<Vec<u8>> {
        if self.is_hidden(topic) {
            return Some(PAST_DOLLAR.to_owned());
        }
        // Where the last level ends that stands for a `+`: the last thing that may still change.
        let mut free_end = None;
        let past_free = |free_end: Option<usize>| Some([&topic[..free_end?], PAST_BELOW].concat());
        let mut start = 0;
        for &wanted in &self.levels {
            let Some(rest) = topic.get(start..) else {
                // The topic ends early: what matches lies below it.
                let literal = if wanted == b"+" { b"" } else { wanted };
                return Some([topic, b"/", literal].concat());
            };
            let end = start + levels(rest).next().map_or(0, <[u8]>::len);
            if wanted == b"+" {
                free_end = Some(end);
            } else {
                match topic[start..end].cmp(wanted) {
                    Ordering::Equal => {}
                    Ordering::Less => return Some([&topic[..start], wanted].concat()),
                    Ordering::Greater => return past_free(free_end),
                }
            }
            start = end + 1;
        }
        past_free(free_end)
    }

    /// A filter that starts with a wildcard does not match a topic that starts with `$` [MQTT-4.7.2-1].
    fn is_hidden(&self, topic: &[u8]) -> bool {
        topic.first() == Some(&b'$') && self.levels.first().is_none_or(|first| *first == b"+")
    }
}
