//! What happened to a group, counted where it happened. Pure.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use super::fate::Loss;
use super::scenario::Group;
use crate::bench::latency::Times;
use crate::bench::outcome::Reasons;
use crate::bench::sequence::Arrival;

/// A group at work: what it is to do, and what came of it.
#[derive(Debug)]
pub(super) struct Fleet {
    pub(super) group: Group,
    /// Tells commands of this run from those of others.
    pub(super) run: u32,
    tally: Mutex<Tally>,
    /// By vehicle: it has subscribed, so commands to it are owed.
    listening: Vec<AtomicBool>,
}

/// Counts of a group.
#[derive(Clone, Debug, Default)]
pub(super) struct Tally {
    /// Vehicles with a connection now.
    pub(super) connected: u64,
    pub(super) connections: u64,
    /// Attempts that gave no connection, by reason.
    pub(super) failures: Reasons,
    /// Connections that the scenario ended, by kind.
    pub(super) losses: Reasons,
    /// Connections that ended otherwise, by reason.
    pub(super) ended: Reasons,
    /// Vehicles that came back to a session, and how many found it.
    pub(super) sessions_asked: u64,
    pub(super) sessions_present: u64,
    /// From the end of an outage to CONNACK.
    pub(super) reconnect: Times,
    pub(super) telemetry_sent: u64,
    pub(super) telemetry_acknowledged: u64,
    pub(super) telemetry_refused: u64,
    /// Due while there was no connection, or no room.
    pub(super) telemetry_skipped: u64,
    pub(super) commands_sent: u64,
    pub(super) commands_acknowledged: u64,
    pub(super) commands_received: u64,
    pub(super) commands_duplicate: u64,
    pub(super) commands_late: u64,
    pub(super) answers: u64,
    /// From sending a command to its answer.
    pub(super) round_trip: Times,
}

impl Fleet {
    pub(super) fn new(group: Group, run: u32) -> Self {
        let listening = (0..group.count).map(|_| AtomicBool::new(false)).collect();
        Self { group, run, tally: Mutex::default(), listening }
    }

    /// Counts something.
    pub(super) fn count(&self, change: impl FnOnce(&mut Tally)) {
        change(&mut self.tally.lock().unwrap_or_else(PoisonError::into_inner));
    }

    pub(super) fn tally(&self) -> Tally {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A vehicle (from 0) has subscribed.
    pub(super) fn listens(&self, vehicle: u32) {
        if let Some(listening) = self.listening.get(vehicle as usize) {
            listening.store(true, Ordering::Release);
        }
    }

    /// Whether a vehicle (from 0) has subscribed once.
    pub(super) fn is_listening(&self, vehicle: u32) -> bool {
        self.listening.get(vehicle as usize).is_some_and(|listening| listening.load(Ordering::Acquire))
    }

    /// Everything that was to arrive is here: every vehicle connected, every command at its vehicle.
    pub(super) fn is_settled(&self) -> bool {
        let tally = self.tally();
        let commands = self.group.commands.is_none()
            || tally.commands_received >= tally.commands_sent
            || !self.group.is_persistent();
        tally.connected == u64::from(self.group.count) && commands
    }
}

impl Tally {
    pub(super) fn command(&mut self, arrival: Arrival) {
        match arrival {
            Arrival::InOrder => self.commands_received += 1,
            Arrival::Late => {
                self.commands_received += 1;
                self.commands_late += 1;
            }
            Arrival::Duplicate => self.commands_duplicate += 1,
        }
    }

    pub(super) fn lost(&mut self, loss: Loss) {
        let name = match loss {
            Loss::Silent => "silent",
            Loss::Reset => "reset",
            Loss::Disconnect => "disconnect",
        };
        *self.losses.entry(name.to_owned()).or_default() += 1;
    }
}
