//! Which connection serves a client id: one entry for each connected client of the process.
//!
//! Touched once at CONNECT and once at the end, never on the way of a message. Two connections never serve one
//! client id: whoever [claims](Registry::claim) it learns whom it must wait for.

use std::hash::BuildHasher;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hashbrown::{DefaultHashBuilder, HashMap};

/// A connection of this process: a slot of a worker, and a generation because slots are used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Owner {
    /// Which worker.
    pub(crate) worker: u16,
    /// Which slot of it.
    pub(crate) slot: u32,
    /// Which use of the slot.
    pub(crate) generation: u32,
}

const STRIPES: usize = 64;

/// Client id → owner. Bounded by the connections of the process.
pub(crate) struct Registry {
    hasher: DefaultHashBuilder,
    stripes: Vec<Mutex<HashMap<Arc<str>, Owner>>>,
}

impl Registry {
    pub(crate) fn new() -> Self {
        Self {
            hasher: DefaultHashBuilder::default(),
            stripes: (0..STRIPES).map(|_| Mutex::default()).collect(),
        }
    }

    fn stripe(&self, client_id: &str) -> MutexGuard<'_, HashMap<Arc<str>, Owner>> {
        let index = self.hasher.hash_one(client_id) as usize % STRIPES;
        self.stripes[index].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes `owner` the owner and returns the one before, which must let go before `owner` may serve.
    pub(crate) fn claim(&self, client_id: &Arc<str>, owner: Owner) -> Option<Owner> {
        self.stripe(client_id).insert(Arc::clone(client_id), owner)
    }

    /// Forgets `owner`, unless another has claimed the id since.
    pub(crate) fn release(&self, client_id: &str, owner: Owner) {
        let mut stripe = self.stripe(client_id);
        if stripe.get(client_id) == Some(&owner) {
            stripe.remove(client_id);
        }
    }

    /// Who serves it now.
    pub(crate) fn get(&self, client_id: &str) -> Option<Owner> {
        self.stripe(client_id).get(client_id).copied()
    }

    /// How many client ids are claimed.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.stripes.iter().map(|s| s.lock().unwrap_or_else(PoisonError::into_inner).len()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_late_release_does_not_remove_the_next_owner() {
        let registry = Registry::new();
        let id: Arc<str> = "car".into();
        let old = Owner { worker: 0, slot: 1, generation: 1 };
        let new = Owner { worker: 1, slot: 1, generation: 1 };
        assert_eq!(registry.claim(&id, old), None);
        assert_eq!(registry.claim(&id, new), Some(old));
        registry.release("car", old);
        assert_eq!(registry.get("car"), Some(new));
        registry.release("car", new);
        assert_eq!(registry.get("car"), None);
    }
}
