//! A filter over level-ordered keys: whether one matches, and which could be next.

use std::cmp::Ordering;

/// The level separator of keys: smaller than every character of a topic.
const SEPARATOR: char = '\0';
/// The smallest character above [`SEPARATOR`]: put after a key, it leads past everything below that key.
const PAST_BELOW: char = '\u{1}';
/// What follows `$` in order.
const PAST_DOLLAR: &str = "%";

/// A filter with its levels taken apart.
pub(super) struct Pattern<'f> {
    /// All but a last `#`.
    levels: Vec<&'f str>,
    /// It ends with `#`.
    below: bool,
}

impl<'f> Pattern<'f> {
    /// `filter` in the form of a key, with U+0000 between levels.
    pub(super) fn new(filter: &'f str) -> Self {
        let mut levels: Vec<_> = filter.split(SEPARATOR).collect();
        let below = levels.pop_if(|last| *last == "#").is_some();
        Self { levels, below }
    }

    /// No key before this one matches.
    pub(super) fn start(&self) -> String {
        let literal = self.levels.iter().take_while(|level| **level != "+").count();
        self.levels[..literal].join("\0")
    }

    pub(super) fn matches(&self, key: &str) -> bool {
        if self.is_hidden(key) {
            return false;
        }
        let mut present = key.split(SEPARATOR);
        for &wanted in &self.levels {
            match present.next() {
                Some(level) if wanted == "+" || wanted == level => {}
                _ => return false,
            }
        }
        // `#` stands for no level as well: `a/#` matches `a` (§4.7.1.2).
        self.below || present.next().is_none()
    }

    /// For a key that does not match: a greater one with nothing that matches in between, or `None` when nothing
    /// that follows can match.
    pub(super) fn next_candidate(&self, key: &str) -> Option<String> {
        if self.is_hidden(key) {
            return Some(PAST_DOLLAR.to_owned());
        }
        // Where the last level ends that stands for a `+`: the last thing that may still change.
        let mut free_end = None;
        let past_free = |free_end: Option<usize>| {
            let end = free_end?;
            Some([&key[..end], PAST_BELOW.encode_utf8(&mut [0; 4])].concat())
        };
        let mut start = 0;
        for &wanted in &self.levels {
            let Some(rest) = key.get(start..) else {
                // The key ends early: what matches lies below it.
                let literal = if wanted == "+" { "" } else { wanted };
                return Some([key, "\0", literal].concat());
            };
            let end = start + rest.find(SEPARATOR).unwrap_or(rest.len());
            if wanted == "+" {
                free_end = Some(end);
            } else {
                match key[start..end].cmp(wanted) {
                    Ordering::Equal => {}
                    Ordering::Less => return Some([&key[..start], wanted].concat()),
                    Ordering::Greater => return past_free(free_end),
                }
            }
            start = end + 1;
        }
        past_free(free_end)
    }

    /// A filter that starts with a wildcard does not match a topic that starts with `$` [MQTT-4.7.2-1].
    fn is_hidden(&self, key: &str) -> bool {
        key.starts_with('$') && self.levels.first().is_none_or(|first| *first == "+")
    }
}
