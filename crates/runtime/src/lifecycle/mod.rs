//! Stopping, readiness, and the service manager's protocol.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

pub mod sd_notify;

/// The request that the process stops. Cheap to clone; begun once, seen by all.
#[derive(Clone, Debug)]
pub struct Shutdown(watch::Sender<Option<Arc<str>>>);

impl Default for Shutdown {
    fn default() -> Self {
        Self::new()
    }
}

impl Shutdown {
    /// Not requested.
    pub fn new() -> Self {
        Self(watch::Sender::new(None))
    }

    /// Requests the stop. The first reason stays.
    pub fn begin(&self, reason: &str) {
        self.0.send_if_modified(|current| {
            let first = current.is_none();
            if first {
                *current = Some(reason.into());
            }
            first
        });
    }

    /// Whether the stop was requested.
    pub fn requested(&self) -> bool {
        self.0.borrow().is_some()
    }

    /// Why, once requested: `SIGTERM`, `api` ...
    pub fn reason(&self) -> Option<Arc<str>> {
        self.0.borrow().clone()
    }

    /// Waits for the request; returns at once when it was made already. Works in any runtime.
    pub async fn wait(&self) {
        let mut seen = self.0.subscribe();
        // It fails only when every sender is gone, and `self` is one.
        let _ = seen.wait_for(Option::is_some).await;
    }
}

/// What must hold before this process may be sent work: named conditions, all of them. For `/readyz`. Cheap to
/// clone.
#[derive(Clone, Default)]
pub struct Readiness(Arc<Mutex<BTreeMap<String, bool>>>);

impl fmt::Debug for Readiness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Readiness").field(&self.ready()).finish()
    }
}

impl Readiness {
    /// Without conditions, which counts as ready: declare before you let others ask.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a condition that does not hold yet. One that is there already is left as it is.
    pub fn declare(&self, name: &str) {
        self.with(|conditions| {
            conditions.entry(name.to_owned()).or_insert(false);
        });
    }

    /// Says whether a condition holds, declared or not.
    pub fn set(&self, name: &str, holds: bool) {
        self.with(|conditions| {
            conditions.insert(name.to_owned(), holds);
        });
    }

    /// Forgets a condition, for what a reload removed.
    pub fn remove(&self, name: &str) {
        self.with(|conditions| {
            conditions.remove(name);
        });
    }

    /// Whether all hold; if not, the names of those that don't, sorted.
    ///
    /// # Errors
    /// The names of the conditions that don't hold.
    pub fn ready(&self) -> Result<(), Vec<String>> {
        let missing: Vec<String> = self.with(|conditions| {
            conditions.iter().filter(|(_, holds)| !**holds).map(|(name, _)| name.clone()).collect()
        });
        if missing.is_empty() { Ok(()) } else { Err(missing) }
    }

    fn with<T>(&self, work: impl FnOnce(&mut BTreeMap<String, bool>) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests;
