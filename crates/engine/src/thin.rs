//! Bytes behind one word: what the register is made of.
//!
//! A register of a million small records is a million keys and values, each held by the register and by whoever watches it. All
//! clones share one allocation, which has the count of its references and the length in front of the bytes: nothing beside it,
//! nothing unused in it.

use std::fmt;

use triomphe::ThinArc;

/// Bytes that never change, shared by all clones.
#[derive(Clone)]
pub(crate) struct Thin(ThinArc<(), u8>);

const _: () = assert!(size_of::<Option<Thin>>() == size_of::<usize>());

impl Thin {
    pub(crate) fn new(bytes: &[u8]) -> Self {
        Self(ThinArc::from_header_and_slice((), bytes))
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0.slice
    }
}

impl PartialEq for Thin {
    fn eq(&self, other: &Self) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl Eq for Thin {}

impl Ord for Thin {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.as_bytes().cmp(other.as_bytes())
    }
}

impl PartialOrd for Thin {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl std::hash::Hash for Thin {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.as_bytes().hash(state);
    }
}

impl fmt::Display for Thin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.as_bytes().escape_ascii())
    }
}
