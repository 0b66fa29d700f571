//! Keep alive and time-outs.

use std::time::{Duration, Instant};

use super::{Machine, State};
use crate::error::Disconnected;

/// When what was seen last.
#[derive(Clone, Copy, Debug)]
pub(super) struct Timers {
    sent: Instant,
    received: Instant,
    /// A PINGREQ without its PINGRESP.
    pinged: Option<Instant>,
    /// The application takes nothing, so nothing is read: silence is our own doing.
    paused: bool,
}

impl Timers {
    pub(super) fn new(now: Instant) -> Self {
        Self { sent: now, received: now, pinged: None, paused: false }
    }

    pub(super) fn start(&mut self, now: Instant) {
        *self = Self::new(now);
    }

    pub(super) fn sent(&mut self, now: Instant) {
        self.sent = now;
    }

    pub(super) fn received(&mut self, now: Instant) {
        self.received = now;
    }

    pub(super) fn answered(&mut self) {
        self.pinged = None;
    }

    /// When a PINGREQ is due. Silence in either direction calls for one: what we send keeps the broker's patience
    /// [MQTT-3.1.2-20], what we receive tells that it lives. While one is unanswered only our own silence counts.
    fn ping_due(&self, keep_alive: u16) -> Option<Instant> {
        let quiet_since =
            if self.pinged.is_some() || self.paused { self.sent } else { self.sent.min(self.received) };
        // Three quarters: the rest is for the way to the broker.
        (keep_alive > 0).then(|| quiet_since + Duration::from_millis(u64::from(keep_alive) * 750))
    }

    /// When an unanswered PINGREQ means that the broker is gone. Anything received proves that it is not.
    fn pong_due(&self, timeout: Duration) -> Option<Instant> {
        self.pinged.filter(|_| !self.paused).map(|pinged| pinged.max(self.received) + timeout)
    }
}

impl<T> Machine<T> {
    /// Call [`Machine::tick`] at that time.
    pub fn deadline(&self) -> Option<Instant> {
        match self.state {
            State::Idle | State::Closing => None,
            State::Connecting(deadline) => Some(deadline),
            State::Connected => {
                let ping = self.timers.ping_due(self.limits.keep_alive);
                let pong = self.timers.pong_due(self.options.ping_timeout);
                [ping, pong].into_iter().flatten().min()
            }
        }
    }

    /// Does what is due; harmless when nothing is.
    pub fn tick(&mut self, now: Instant) {
        match self.state {
            State::Connecting(deadline) if now >= deadline => self.close(Disconnected::ConnectTimeout),
            State::Connected => {
                if self.timers.pong_due(self.options.ping_timeout).is_some_and(|due| now >= due) {
                    self.close(Disconnected::PingTimeout);
                } else if self.timers.ping_due(self.limits.keep_alive).is_some_and(|due| now >= due) {
                    mqtt::codec::encode::pingreq(&mut self.output);
                    self.timers.sent(now);
                    self.timers.pinged.get_or_insert(now);
                }
            }
            _ => {}
        }
    }

    /// The driver stopped or went on reading because of the application, not because of the broker.
    pub fn set_paused(&mut self, paused: bool, now: Instant) {
        if self.timers.paused && !paused {
            self.timers.received = now;
        }
        self.timers.paused = paused;
    }
}
