//! nginx's plain `hash KEY` (`stream` and `http`), number by number, so that a cut-over from nginx moves no device.
//!
//! The key's number is taken modulo the sum of the weights, and the servers stand in the order of the list, each as
//! wide as its weight. A server that can't be used gets the key another number, made of how often that was done and of
//! the key:
//!
//! ```text
//! h(0)    = crc32(key) >> 16 & 0x7fff
//! h(n)    = h(n-1) + (crc32(decimal n ++ key) >> 16 & 0x7fff)
//! server  = the one that h(n) mod (sum of weights) falls on
//! ```
//!
//! After 20 servers that can't be used nginx goes on in turns, and so does [`route`](crate::route). Proved against the
//! real nginx in `tests/suite/nginx.rs`.

/// Numbers that are tried.
const TRIES: usize = 21;

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Modulo {
    weights: Vec<u32>,
    sum: u32,
}

impl Modulo {
    pub(super) fn new<'a>(servers: impl Iterator<Item = (&'a str, u32)>) -> Self {
        let weights: Vec<_> = servers.map(|(_, weight)| weight).collect();
        Self { sum: weights.iter().fold(0, |sum, weight| sum.saturating_add(*weight)), weights }
    }

    pub(super) fn choose(&self, key: &[u8], usable: impl Fn(usize) -> bool) -> Option<usize> {
        let mut hash = 0_u32;
        for again in 0..TRIES {
            let mut state = crc32fast::Hasher::new();
            if again > 0 {
                state.update(again.to_string().as_bytes());
            }
            state.update(key);
            hash = hash.wrapping_add(state.finalize() >> 16 & 0x7fff);
            let server = self.at(hash.checked_rem(self.sum)?)?;
            if usable(server) {
                return Some(server);
            }
        }
        None
    }

    /// The server that has this place.
    fn at(&self, place: u32) -> Option<usize> {
        let mut left = place;
        for (server, weight) in self.weights.iter().enumerate() {
            match left.checked_sub(*weight) {
                Some(rest) => left = rest,
                None => return Some(server),
            }
        }
        None
    }
}
