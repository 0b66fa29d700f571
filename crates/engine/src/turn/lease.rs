//! Leases: who holds what until when.
//!
//! Must not know: clocks (the time is an argument), the log, the register.

use std::collections::BTreeMap;
use std::time::Duration;

use hashbrown::HashMap;

use crate::{EngineError, Epoch, Fence, Held, Key, Port};

/// What a lease costs beyond the bytes of its key.
const LEASE_COST: usize = 192;

/// One held lease.
#[derive(Clone, Debug)]
struct Lease {
    holder: u64,
    port: Port,
    epoch: Epoch,
    /// `None`: so far away that it can't be said.
    until: Option<Duration>,
}

/// All leases that are held. A lease nobody holds costs nothing: epochs come from one counter, so they grow for each
/// lease without being kept for it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Leases {
    held: HashMap<Key, Lease>,
    deadlines: BTreeMap<(Duration, Epoch), Key>,
    last: Epoch,
    bytes: usize,
}

impl Leases {
    /// None held; the next holder gets an epoch above `last`.
    pub(crate) fn after(last: Epoch) -> Self {
        Self { last, ..Self::default() }
    }

    /// What all leases cost in memory.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// When the next one runs out.
    pub(crate) fn deadline(&self) -> Option<Duration> {
        self.deadlines.first_key_value().map(|((at, _), _)| *at)
    }

    /// Ends one lease that has run out, and says whose it was.
    pub(crate) fn expire(&mut self, now: Duration) -> Option<(Port, Key)> {
        let first = self.deadlines.first_entry()?;
        if first.key().0 > now {
            return None;
        }
        let key = first.remove();
        let lease = self.held.remove(&key)?;
        self.bytes -= cost(&key);
        Some((lease.port, key))
    }

    /// Takes or renews a lease. `room`: how many bytes a new one may cost.
    pub(crate) fn acquire(
        &mut self,
        port: Port,
        key: Key,
        holder: u64,
        until: Option<Duration>,
        room: usize,
    ) -> Result<Held, EngineError> {
        let epoch = match self.held.get_mut(&key) {
            Some(lease) if lease.holder != holder => {
                return Err(EngineError::Fenced { current: lease.epoch });
            }
            Some(lease) => {
                if let Some(old) = lease.until {
                    self.deadlines.remove(&(old, lease.epoch));
                }
                (lease.port, lease.until) = (port, until);
                lease.epoch
            }
            None if cost(&key) > room => return Err(EngineError::Busy),
            None => {
                self.last = Epoch(self.last.0 + 1);
                self.bytes += cost(&key);
                self.held.insert(key.clone(), Lease { holder, port, epoch: self.last, until });
                self.last
            }
        };
        if let Some(until) = until {
            self.deadlines.insert((until, epoch), key);
        }
        Ok(Held { epoch })
    }

    /// Gives a lease back, if this holder has it.
    pub(crate) fn release(&mut self, key: &Key, holder: u64) {
        if self.held.get(key).is_none_or(|lease| lease.holder != holder) {
            return;
        }
        if let Some(lease) = self.held.remove(key) {
            self.bytes -= cost(key);
            if let Some(until) = lease.until {
                self.deadlines.remove(&(until, lease.epoch));
            }
        }
    }

    /// Whether what carries this fence may happen.
    pub(crate) fn check(&self, fence: &Fence) -> Result<(), EngineError> {
        let current = self.held.get(&fence.lease).map_or(Epoch(0), |lease| lease.epoch);
        if current == fence.epoch && current != Epoch(0) {
            Ok(())
        } else {
            Err(EngineError::Fenced { current })
        }
    }
}

fn cost(key: &Key) -> usize {
    key.as_bytes().len() + LEASE_COST
}
