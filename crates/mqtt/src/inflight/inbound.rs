//! The receiver's half.

use super::window::Window;
use crate::{PacketId, QoS, ReasonCode};

/// The peer's PUBLISHes that we have not finished: QoS 2 identifiers that are not released yet, and how many of QoS 1 wait for our
/// PUBACK.
///
/// An empty one needs no heap memory. Identifiers that come in ascending order cost O(log n), others O(n); n stays at the
/// granted Receive Maximum for an endpoint that closes when [`Self::exceeds`] says so.
#[derive(Clone, Debug)]
pub struct Inbound {
    /// And whether it is of a connection before this one.
    unreleased: Window<bool>,
    /// How many are.
    carried: usize,
    unacknowledged: usize,
    receive_maximum: u16,
}

/// Whether a QoS 2 PUBLISH is news.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Qos2 {
    /// First time: hand it on, then PUBREC.
    New,
    /// It was handed on already: PUBREC only [MQTT-4.3.3-10].
    Duplicate,
}

/// The peer has more messages in flight than it was granted: DISCONNECT with 0x93 [MQTT-3.3.4-9].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("more messages in flight than Receive Maximum allows [MQTT-3.3.4-9]")]
pub struct ReceiveMaximumExceeded;

impl ReceiveMaximumExceeded {
    /// What to answer.
    pub const fn reason(self) -> ReasonCode {
        ReasonCode::ReceiveMaximumExceeded
    }
}

impl Inbound {
    /// Nothing received, and `receive_maximum` granted to the peer.
    pub const fn new(receive_maximum: u16) -> Self {
        Self { unreleased: Window::new(), carried: 0, unacknowledged: 0, receive_maximum }
    }

    /// For a session that goes on over a new connection: what is granted now. QoS 1 messages that waited for our PUBACK
    /// are the old connection's; the peer sends them again. What it has to release yet counts no more: its quota
    /// begins anew with the connection (4.9).
    pub fn reconnect(&mut self, receive_maximum: u16) {
        self.receive_maximum = receive_maximum;
        self.unacknowledged = 0;
        let before = std::mem::replace(&mut self.unreleased, Window::new());
        self.carried = 0;
        for (id, _) in before.iter() {
            self.restore(id);
        }
    }

    /// A PUBLISH with QoS 1 or 2 came: counts it, and tells a QoS 2 message that was handed on already. QoS 0 is always
    /// new and not counted.
    ///
    /// # Errors
    /// The peer has more in flight than it was granted; it is counted all the same.
    pub fn publish(&mut self, qos: QoS, id: PacketId) -> Result<Qos2, ReceiveMaximumExceeded> {
        let news = match qos {
            QoS::AtMostOnce => return Ok(Qos2::New),
            QoS::AtLeastOnce => {
                self.qos1_begin();
                Qos2::New
            }
            QoS::ExactlyOnce => self.publish_qos2(id),
        };
        if self.exceeds() { Err(ReceiveMaximumExceeded) } else { Ok(news) }
    }

    /// A PUBLISH with QoS 2 came; ask [`Self::exceeds`] next.
    pub fn publish_qos2(&mut self, id: PacketId) -> Qos2 {
        if self.unreleased.push(id, false) { Qos2::New } else { Qos2::Duplicate }
    }

    /// A PUBLISH with QoS 1 came; ask [`Self::exceeds`] next.
    pub const fn qos1_begin(&mut self) {
        self.unacknowledged = self.unacknowledged.saturating_add(1);
    }

    /// Our PUBACK for a QoS 1 message goes out.
    pub const fn qos1_end(&mut self) {
        self.unacknowledged = self.unacknowledged.saturating_sub(1);
    }

    /// PUBREL came, or our PUBREC with a reason of 0x80 or above goes out: the identifier is free again. `false` if it was
    /// not in use: PUBCOMP with Packet Identifier not found (0x92), in version 5.
    pub fn release(&mut self, id: PacketId) -> bool {
        let carried = self.unreleased.remove(id);
        self.carried -= usize::from(carried == Some(true));
        carried.is_some()
    }

    /// Whether the peer has more in flight than it was granted.
    pub fn exceeds(&self) -> bool {
        let ours = self.unreleased.len() - self.carried;
        ours.saturating_add(self.unacknowledged) > usize::from(self.receive_maximum)
    }

    /// QoS 2 identifiers that are not released.
    pub fn len(&self) -> usize {
        self.unreleased.len()
    }

    /// Whether every QoS 2 identifier is released.
    pub fn is_empty(&self) -> bool {
        self.unreleased.is_empty()
    }

    /// The QoS 2 identifiers that are not released, in the order in which they came: part of the session state (4.1).
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = PacketId> {
        self.unreleased.iter().map(|(id, _)| id)
    }

    /// Puts an identifier of a stored session back, as one of a connection before; `false` if it is there already.
    pub fn restore(&mut self, id: PacketId) -> bool {
        let new = self.unreleased.push(id, true);
        self.carried += usize::from(new);
        new
    }
}
