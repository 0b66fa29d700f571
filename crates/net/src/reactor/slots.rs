//! Who is told of a socket's events: a table with a place for each socket, pure.
//!
//! A [`Token`] is a place and its generation. A place is used again; an event that was under way for the socket before
//! has an older generation, and finds nobody. Must not know: descriptors, epoll.

use std::task::Waker;

use super::readiness::{Readiness, Told};

/// A socket's place, as epoll carries it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Token {
    index: u32,
    generation: u32,
}

impl Token {
    pub(super) const fn to_u64(self) -> u64 {
        (self.generation as u64) << 32 | self.index as u64
    }

    pub(super) const fn from_u64(value: u64) -> Self {
        Self { index: value as u32, generation: (value >> 32) as u32 }
    }
}

/// Who wants to know.
#[derive(Debug)]
pub(super) enum Listener {
    /// Nobody now: what comes is kept in the readiness.
    Nobody,
    /// A task, once.
    Task(Waker),
    /// The owner of the reactor, by the key that it gave, every time.
    Key(u32),
}

#[derive(Debug)]
struct Slot {
    /// Odd while the place is taken.
    generation: u32,
    readiness: Readiness,
    listener: Listener,
}

/// The table.
#[derive(Debug, Default)]
pub(super) struct Slots {
    slots: Vec<Slot>,
    free: Vec<u32>,
}

impl Slots {
    /// A place for a socket; `None`: there are 2³² of them.
    pub(super) fn insert(&mut self, readiness: Readiness, listener: Listener) -> Option<Token> {
        if let Some(index) = self.free.pop()
            && let Some(slot) = self.slots.get_mut(index as usize)
        {
            let generation = slot.generation.wrapping_add(1);
            *slot = Slot { generation, readiness, listener };
            return Some(Token { index, generation });
        }
        let index = u32::try_from(self.slots.len()).ok()?;
        self.slots.push(Slot { generation: 1, readiness, listener });
        Some(Token { index, generation: 1 })
    }

    /// Frees the place. What it held is given back, so that a waker is dropped where nothing is borrowed.
    pub(super) fn remove(&mut self, token: Token) -> Option<Listener> {
        let slot = self.slot(token)?;
        slot.generation = slot.generation.wrapping_add(1);
        let listener = std::mem::replace(&mut slot.listener, Listener::Nobody);
        self.free.push(token.index);
        Some(listener)
    }

    /// An event came: notes it, and says who is to be told. A task is told once; it says again when it waits again.
    pub(super) fn told(&mut self, token: Token, told: Told) -> Listener {
        let Some(slot) = self.slot(token) else { return Listener::Nobody };
        slot.readiness.told(told);
        match slot.listener {
            Listener::Key(key) => Listener::Key(key),
            _ => std::mem::replace(&mut slot.listener, Listener::Nobody),
        }
    }

    /// What is known of the socket; of none, nothing.
    pub(super) fn readiness(&self, token: Token) -> Readiness {
        self.slots
            .get(token.index as usize)
            .filter(|slot| slot.generation == token.generation)
            .map_or_else(Readiness::default, |slot| slot.readiness)
    }

    /// Changes what is known.
    pub(super) fn learn(&mut self, token: Token, change: impl FnOnce(&mut Readiness)) {
        if let Some(slot) = self.slot(token) {
            change(&mut slot.readiness);
        }
    }

    /// From now on that one is told; gives back who was until now.
    pub(super) fn listen(&mut self, token: Token, listener: Listener) -> Option<Listener> {
        Some(std::mem::replace(&mut self.slot(token)?.listener, listener))
    }

    /// The task is told of the next event. No waker is copied where it waits already.
    pub(super) fn wait(&mut self, token: Token, waker: &Waker) -> Option<Listener> {
        let slot = self.slot(token)?;
        match &slot.listener {
            Listener::Task(known) if known.will_wake(waker) => None,
            _ => Some(std::mem::replace(&mut slot.listener, Listener::Task(waker.clone()))),
        }
    }

    /// Places in use.
    pub(super) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    fn slot(&mut self, token: Token) -> Option<&mut Slot> {
        self.slots.get_mut(token.index as usize).filter(|slot| slot.generation == token.generation)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    const READ: Told = Told { readable: true, writable: false, ended: false, failed: false, urgent: false };

    #[test]
    fn a_socket_costs_its_place() {
        assert!(size_of::<Slot>() <= 32, "{}", size_of::<Slot>());
    }

    #[test]
    fn a_place_that_is_used_again_hears_nothing_of_before() {
        let mut slots = Slots::default();
        let first = slots.insert(Readiness::default(), Listener::Key(1)).unwrap();
        assert!(matches!(slots.told(first, READ), Listener::Key(1)));
        assert!(slots.remove(first).is_some() && slots.remove(first).is_none());
        let second = slots.insert(Readiness::default(), Listener::Key(2)).unwrap();
        assert_eq!((first.index, slots.len()), (second.index, 1));
        assert!(matches!(slots.told(first, READ), Listener::Nobody));
        assert!(!slots.readiness(second).is_readable());
        assert!(matches!(slots.told(second, READ), Listener::Key(2)));
    }

    #[test]
    fn a_task_is_told_once_and_a_key_every_time() {
        let mut slots = Slots::default();
        let token = slots.insert(Readiness::default(), Listener::Nobody).unwrap();
        assert!(slots.wait(token, Waker::noop()).is_some());
        assert!(matches!(slots.told(token, READ), Listener::Task(_)));
        assert!(matches!(slots.told(token, READ), Listener::Nobody));
        slots.listen(token, Listener::Key(7));
        assert!(matches!(slots.told(token, READ), Listener::Key(7)));
        assert!(matches!(slots.told(token, READ), Listener::Key(7)));
    }

    proptest! {
        /// Against a map of what is there: every token finds its own socket, and none after its end.
        #[test]
        fn tokens_find_their_own_socket(steps in prop::collection::vec((any::<bool>(), any::<prop::sample::Index>()), 0..80)) {
            let mut slots = Slots::default();
            let mut oracle: HashMap<u64, u32> = HashMap::new();
            let mut gone = Vec::new();
            for (number, (add, which)) in (0_u32..).zip(steps) {
                if add || oracle.is_empty() {
                    let token = slots.insert(Readiness::default(), Listener::Key(number)).unwrap();
                    prop_assert!(oracle.insert(token.to_u64(), number).is_none());
                } else {
                    let mut tokens: Vec<_> = oracle.keys().copied().collect();
                    tokens.sort_unstable();
                    let token = tokens[which.index(tokens.len())];
                    prop_assert!(slots.remove(Token::from_u64(token)).is_some());
                    oracle.remove(&token);
                    gone.push(token);
                }
                prop_assert_eq!(slots.len(), oracle.len());
                for (token, number) in &oracle {
                    let found = slots.told(Token::from_u64(*token), READ);
                    prop_assert!(matches!(found, Listener::Key(key) if key == *number));
                }
                for token in &gone {
                    prop_assert!(matches!(slots.told(Token::from_u64(*token), READ), Listener::Nobody));
                }
            }
        }
    }
}
