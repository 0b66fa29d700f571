//! Writes of the register that are under way: which of them may be repeated when the engine could not do it.
//!
//! A record keeps what was written last. So a write that failed is not repeated over a later one of the same record that took
//! effect: it counts as done, as if it had been in time. It is not repeated beside one whose outcome is open either, and when the
//! later one is refused, the earlier one is again what the record must hold.
//!
//! Must not know: what a record holds, when an operation is repeated.

use engine::{Key, Token};
use hashbrown::HashMap;

/// Where a write stands among those of its record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// Nothing was written after it: it may be repeated.
    Last,
    /// The outcome of a later one is open.
    Behind,
    /// A later one took effect.
    Replaced,
}

/// The writes of one record whose outcome is open, in their order.
#[derive(Debug)]
struct Open {
    last: Token,
    /// Seldom any, and then no allocation.
    before: Vec<Token>,
}

/// Writes without a condition, by record. Bounded by the operations of the worker.
#[derive(Debug, Default)]
pub(super) struct Unsettled(HashMap<Key, Open>);

impl Unsettled {
    /// A write was submitted, after all others of its record.
    pub(super) fn submitted(&mut self, key: &Key, token: Token) {
        match self.0.get_mut(key) {
            Some(open) => open.before.push(std::mem::replace(&mut open.last, token)),
            None => drop(self.0.insert(key.clone(), Open { last: token, before: Vec::new() })),
        }
    }

    /// A write took effect, or counts as if it had: all before it are replaced.
    pub(super) fn took_effect(&mut self, key: &Key, token: Token) {
        let Some(open) = self.0.get_mut(key) else { return };
        if open.last == token {
            self.0.remove(key);
        } else if let Some(at) = open.before.iter().position(|before| *before == token) {
            open.before.drain(..=at);
        }
    }

    /// A write was given up without effect.
    pub(super) fn refused(&mut self, key: &Key, token: Token) {
        let Some(open) = self.0.get_mut(key) else { return };
        if open.last != token {
            open.before.retain(|before| *before != token);
        } else if let Some(before) = open.before.pop() {
            open.last = before;
        } else {
            self.0.remove(key);
        }
    }

    /// Where a write stands that was submitted and is neither refused nor known to have taken effect.
    pub(super) fn standing(&self, key: &Key, token: Token) -> Standing {
        match self.0.get(key) {
            Some(open) if open.last == token => Standing::Last,
            Some(open) if open.before.contains(&token) => Standing::Behind,
            _ => Standing::Replaced,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// The oracle keeps every write with what became of it.
        #[test]
        fn a_write_stands_as_the_later_ones_of_its_record_say(
            actions in prop::collection::vec((0_u8..3, 0_u8..2, any::<prop::sample::Index>()), 0..60),
        ) {
            #[derive(Clone, Copy, PartialEq)]
            enum Fate { Open, Done, Refused }
            let key = |k: u8| Key::of("r", &[&[k]]);
            let mut unsettled = Unsettled::default();
            let mut all: Vec<(u8, Fate)> = Vec::new();
            for (action, k, which) in actions {
                let open: Vec<usize> = (0..all.len()).filter(|&i| all[i].1 == Fate::Open).collect();
                if action == 0 || open.is_empty() {
                    unsettled.submitted(&key(k), all.len() as Token);
                    all.push((k, Fate::Open));
                } else {
                    let at = *which.get(&open);
                    let (key, token) = (key(all[at].0), at as Token);
                    if action == 1 {
                        unsettled.took_effect(&key, token);
                        all[at].1 = Fate::Done;
                    } else {
                        unsettled.refused(&key, token);
                        all[at].1 = Fate::Refused;
                    }
                }
                for (at, &(k, fate)) in all.iter().enumerate().filter(|(_, (_, fate))| *fate == Fate::Open) {
                    let later = |wanted| all[at + 1..].iter().any(|&(other, f)| other == k && f == wanted);
                    // one that is open, but before one that took effect, has been replaced like this one
                    let last_done = all.iter().rposition(|&(other, f)| other == k && f == Fate::Done);
                    let behind = all.iter().enumerate().skip(at + 1).any(|(i, &(other, f))| {
                        other == k && f == Fate::Open && last_done.is_none_or(|done| i > done)
                    });
                    let expected = match (later(Fate::Done), behind) {
                        (true, _) => Standing::Replaced,
                        (false, true) => Standing::Behind,
                        (false, false) => Standing::Last,
                    };
                    prop_assert_eq!(unsettled.standing(&key(k), at as Token), expected, "{} {:?}", at, fate as u8);
                }
            }
            let keys: std::collections::HashSet<u8> =
                all.iter().filter(|(_, fate)| *fate == Fate::Open).map(|(k, _)| *k).collect();
            prop_assert!(unsettled.0.len() <= keys.len(), "what is settled is forgotten");
        }
    }
}
