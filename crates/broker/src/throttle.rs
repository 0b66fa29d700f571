//! Clients that send faster than they may: they are read more slowly, nothing of theirs is dropped.
//!
//! What a client sends is taken out of its buckets as it comes. A bucket in debt stops the reading of that client's socket
//! until it is out of debt again; TCP then slows the client down. Its keep alive does not run meanwhile: the silence is ours.
//! Told at a client's first pause and then whenever their number has doubled.
//!
//! Must not know: sockets, packets.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Instant;

use runtime::events::Event;
use runtime::rate::Bucket;

use crate::config::ClientRates;
use crate::connection::ConnId;
use crate::worker::Worker;

/// What of a client's flow; the label `limit`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub(crate) enum Flow {
    Messages = 0,
    Bytes,
}

impl Flow {
    pub(crate) const ALL: [Self; 2] = [Self::Messages, Self::Bytes];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Messages => "messages_rate",
            Self::Bytes => "bytes_rate",
        }
    }
}

/// The buckets of one connection.
pub(crate) struct Throttle {
    rates: ClientRates,
    messages: Bucket,
    bytes: Bucket,
    /// It is not read until then.
    until: Option<Instant>,
    pauses: u64,
}

impl Throttle {
    /// Buckets for a connection that has rates at all.
    pub(crate) fn new(rates: ClientRates) -> Option<Box<Self>> {
        let (messages, bytes) = (Bucket::default(), Bucket::default());
        rates.any().then(|| Box::new(Self { rates, messages, bytes, until: None, pauses: 0 }))
    }

    /// Whether the connection is to be left alone.
    pub(crate) fn is_paused(&self) -> bool {
        self.until.is_some()
    }
}

/// Who is to be read again, and when: one entry for each connection that pauses.
#[derive(Default)]
pub(crate) struct Paused(BinaryHeap<Reverse<(Instant, u32, u32)>>);

impl Paused {
    fn insert(&mut self, at: Instant, id: ConnId) {
        self.0.push(Reverse((at, id.slot, id.generation)));
    }

    /// The next one whose time has come.
    fn due(&mut self, now: Instant) -> Option<ConnId> {
        let Reverse((at, slot, generation)) = *self.0.peek()?;
        (at <= now).then(|| {
            self.0.pop();
            ConnId { slot, generation }
        })
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Worker {
    /// Takes what a client has sent out of its bucket.
    pub(crate) fn charge(&mut self, id: ConnId, flow: Flow, amount: u64) {
        let now = self.now.instant;
        let Some(conn) = self.conn_mut(id) else { return };
        let Some(throttle) = conn.throttle_mut() else { return };
        let (rate, bucket) = match flow {
            Flow::Messages => (throttle.rates.messages, &mut throttle.messages),
            Flow::Bytes => (throttle.rates.bytes, &mut throttle.bytes),
        };
        let Some(rate) = rate else { return };
        let wait = bucket.take(rate, amount, now);
        if wait.is_zero() {
            return;
        }
        let until = now + wait;
        let paused = throttle.until.replace(throttle.until.map_or(until, |u| u.max(until))).is_some();
        if paused {
            // the entry of its pause finds out that it is longer now
            return;
        }
        throttle.pauses += 1;
        let count = throttle.pauses;
        let peer = conn.origin.peer;
        let clientid = conn.session.as_ref().map(|s| std::sync::Arc::clone(&s.client_id));
        self.paused.insert(until, id);
        self.metrics.throttles[flow as usize].inc();
        self.metrics.throttled.inc();
        if count.is_power_of_two() {
            let limit = flow.name().into();
            self.shared.events.emit(Event::ClientThrottled { clientid, peer, limit, count });
        }
        self.wake_flush();
    }

    /// Reads on where a pause is over.
    pub(crate) fn end_pauses(&mut self) {
        let now = self.now.instant;
        while let Some(id) = self.paused.due(now) {
            let Some(throttle) = self.conn_mut(id).and_then(|c| c.throttle_mut()) else {
                self.metrics.throttled.dec();
                continue;
            };
            match throttle.until {
                Some(until) if until > now => self.paused.insert(until, id),
                _ => {
                    throttle.until = None;
                    self.metrics.throttled.dec();
                    self.unpause(id);
                }
            }
        }
    }
}
