//! Connections beyond a bound: closed at once, or told to come again and then closed.
//!
//! Beyond `max_connections` of a listener or of the broker the socket is closed: there is no place to read a CONNECT in. Beyond
//! `accept_rate` the CONNECT is read, so that it can be answered: MQTT 5 gets Connection rate exceeded (0x9F), older versions
//! return code 3. At most [`MAX_LATE`] connections of a worker wait for that answer; further ones are closed like the others.
//! Each is counted; told is one of them a second for each bound and worker, with how many there were since: who is flooded needs
//! no flood of log lines.
//!
//! Must not know: sockets.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mqtt::ReasonCode;
use mqtt::packet::{Connack, ConnackProperties, Connect, Packet};
use runtime::events::Event;

use crate::caller::Caller;
use crate::connection::{ConnId, End};
use crate::worker::Worker;

/// Connections of a worker that came too fast and have not been told yet.
pub(crate) const MAX_LATE: usize = 1_000;
/// Between two events about the same bound.
const TELL_EVERY: Duration = Duration::from_secs(1);

/// Which bound; the label `limit`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub(crate) enum Limit {
    /// `max_connections` of the listener.
    Listener = 0,
    /// `max_connections` of `[broker]`.
    Broker,
    /// `accept_rate` of the listener.
    Rate,
}

impl Limit {
    pub(crate) const ALL: [Self; 3] = [Self::Listener, Self::Broker, Self::Rate];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Listener => "listener_max_connections",
            Self::Broker => "max_connections",
            Self::Rate => "accept_rate",
        }
    }
}

/// When a bound was told of, and how often it was met since.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Told {
    at: Option<Instant>,
    since: u64,
}

impl Told {
    /// How many were not told of, if this one is.
    fn now(&mut self, now: Instant) -> Option<u64> {
        if self.at.is_some_and(|at| now.saturating_duration_since(at) < TELL_EVERY) {
            self.since += 1;
            return None;
        }
        self.at = Some(now);
        Some(std::mem::take(&mut self.since))
    }
}

impl Worker {
    /// Whether the broker has as many connections as it may have. Those that workers accept in the same moment are not seen.
    pub(crate) fn is_full(&self) -> bool {
        let open: i64 = self.shared.metrics.iter().map(|m| m.connections.get()).sum();
        usize::try_from(open).is_ok_and(|open| open >= self.config.limits.max_connections)
    }

    /// A connection that is closed before it is served.
    pub(crate) fn shut_out(&mut self, peer: SocketAddr, limit: Limit) {
        self.metrics.accepted.inc();
        self.metrics.refused.inc();
        self.tell_limited(Caller::default(), peer, limit);
    }

    /// Answers the CONNECT of a connection that came too fast. `false`: it did not.
    pub(crate) fn refuse_late(&mut self, id: ConnId, connect: &Connect<'_>) -> bool {
        let Some(conn) = self.conn(id).filter(|c| c.late) else { return false };
        let peer = conn.origin.peer;
        let (reason, why) =
            (ReasonCode::ConnectionRateExceeded, "connections come too fast, try again later");
        let properties = ConnackProperties::default();
        // without words: what costs least
        let _ =
            self.send(id, &Packet::Connack(Box::new(Connack { session_present: false, reason, properties })));
        self.tell_limited(Caller::of(connect), peer, Limit::Rate);
        self.end(id, End::Refused(reason, why));
        true
    }

    fn tell_limited(&mut self, caller: Caller, peer: SocketAddr, limit: Limit) {
        self.metrics.limited[limit as usize].inc();
        let now = self.now.instant;
        let Some(held_back) = self.told.get_mut(limit as usize).and_then(|told| told.now(now)) else {
            return;
        };
        let detail = if held_back > 0 {
            format!("and {held_back} more since this was told last").into()
        } else {
            "".into()
        };
        let Caller { client_id: clientid, username } = caller;
        let reason = limit.name().into();
        self.shared.events.emit(Event::ClientRefused { clientid, username, peer, reason, detail });
    }
}

#[cfg(test)]
mod tests {
    use runtime::clock::Clock;

    use super::*;

    #[test]
    fn one_in_a_second_is_told_of_and_the_others_are_counted() {
        let start = Clock::system().now();
        let mut told = Told::default();
        assert_eq!(told.now(start), Some(0));
        for _ in 0..5 {
            assert_eq!(told.now(start + Duration::from_millis(999)), None);
        }
        assert_eq!(told.now(start + TELL_EVERY), Some(5));
        assert_eq!(told.now(start + 3 * TELL_EVERY), Some(0));
    }
}
