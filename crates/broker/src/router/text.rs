//! The levels a trie node stands for, joined by `/`: short ones live inside the node.

/// Longest text kept in place, in bytes: what fits beside the length in 24 bytes.
const INLINE: usize = 22;

/// One or more levels of a filter, as bytes of UTF-8.
pub(super) enum Text {
    /// Up to [`INLINE`] bytes.
    Short { len: u8, bytes: [u8; INLINE] },
    /// Everything longer.
    Long(Box<[u8]>),
}

const _: () = assert!(size_of::<Text>() == 24);

impl Default for Text {
    fn default() -> Self {
        Self::Short { len: 0, bytes: [0; INLINE] }
    }
}

impl Text {
    pub(super) fn new(levels: &[u8]) -> Self {
        if levels.len() <= INLINE {
            let mut bytes = [0; INLINE];
            bytes[..levels.len()].copy_from_slice(levels);
            Self::Short { len: levels.len() as u8, bytes }
        } else {
            Self::Long(levels.into())
        }
    }

    /// `upper/lower`.
    pub(super) fn join(upper: &Self, lower: &Self) -> Self {
        Self::new(&[upper.as_bytes(), lower.as_bytes()].join(&b'/'))
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Short { len, bytes, .. } => &bytes[..usize::from(*len)],
            Self::Long(bytes) => bytes,
        }
    }

    /// The level the parent finds this node by.
    pub(super) fn first_level(&self) -> &[u8] {
        split_level(self.as_bytes()).0
    }

    /// Whether that is `level`, without looking for its end.
    pub(super) fn begins_with(&self, level: &[u8]) -> bool {
        let rest = self.as_bytes().strip_prefix(level);
        rest.is_some_and(|rest| rest.first().is_none_or(|&next| next == b'/'))
    }
}

/// The first level and what follows its `/`. `None` is the end: `a/` has an empty level after `a`, `a` has none.
pub(super) fn split_level(levels: &[u8]) -> (&[u8], Option<&[u8]>) {
    match levels.iter().position(|&b| b == b'/') {
        Some(at) => (&levels[..at], Some(&levels[at + 1..])),
        None => (levels, None),
    }
}

/// How many bytes two paths share in whole levels; a shared start inside a level does not count.
///
/// The first levels must be equal, which is how the caller found the other path.
pub(super) fn shared_levels(a: &[u8], b: &[u8]) -> usize {
    let same = a.iter().zip(b).take_while(|(x, y)| x == y).count();
    let ends = |path: &[u8]| path.get(same).is_none_or(|&next| next == b'/');
    if ends(a) && ends(b) {
        return same;
    }
    a[..same].iter().rposition(|&byte| byte == b'/').unwrap_or(0)
}

/// Follows `text` (which may hold `+` levels) along `topic`: `None` when they differ, else what remains of the topic.
pub(super) fn follow<'t>(text: &[u8], topic: &'t [u8]) -> Option<Option<&'t [u8]>> {
    // nearly always it is the start of the topic as it stands, which then has no `+`: no topic has one
    if let Some(rest) = topic.strip_prefix(text) {
        return match rest.split_first() {
            None => Some(None),
            Some((b'/', rest)) => Some(Some(rest)),
            Some(_) => None,
        };
    }
    if !text.contains(&b'+') {
        return None;
    }
    let (mut text, mut topic) = (text, topic);
    loop {
        let (wanted, more_text) = split_level(text);
        let rest = if wanted == b"+" {
            split_level(topic).1
        } else {
            let rest = topic.strip_prefix(wanted)?;
            match rest.split_first() {
                None => None,
                Some((b'/', rest)) => Some(rest),
                Some(_) => return None,
            }
        };
        match (more_text, rest) {
            (None, rest) => return Some(rest),
            (Some(_), None) => return None,
            (Some(more_text), Some(rest)) => (text, topic) = (more_text, rest),
        }
    }
}

#[cfg(test)]
impl Text {
    /// Bytes outside the node, as an allocator rounds them.
    pub(super) fn heap_bytes(&self) -> usize {
        match self {
            Self::Short { .. } => 0,
            Self::Long(bytes) => (bytes.len() + 8).next_multiple_of(16),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_levels_are_shared() {
        for (a, b, shared) in [
            ("a/b/c", "a/b/d", 3),
            ("a/b", "a/b/c", 3),
            ("a/bc", "a/bd", 1),
            ("a/b", "a/bc", 1),
            ("a", "a", 1),
            ("/a", "/b", 0),
            ("", "/b", 0),
            ("a//", "a//b", 2),
        ] {
            assert_eq!(shared_levels(a.as_bytes(), b.as_bytes()), shared, "{a} and {b}");
            assert_eq!(shared_levels(b.as_bytes(), a.as_bytes()), shared, "{b} and {a}");
        }
    }

    #[test]
    fn a_text_is_the_same_in_place_and_on_the_heap() {
        for len in [0, 1, INLINE - 1, INLINE, INLINE + 1, 300] {
            let first = "x".repeat(len / 2);
            let text = format!("{first}/{}", "y".repeat(len - len / 2));
            let kept = Text::new(text.as_bytes());
            assert_eq!((kept.as_bytes(), kept.first_level()), (text.as_bytes(), first.as_bytes()));
            assert!(kept.begins_with(first.as_bytes()));
            assert!(!kept.begins_with(format!("{first}y").as_bytes()));
            assert_eq!(kept.begins_with(b""), first.is_empty());
            assert_eq!(kept.begins_with(b"x"), first == "x");
        }
    }
}
