//! The sender's half.

use super::window::Window;
use crate::{PacketId, QoS, ReasonCode};

/// Our PUBLISHes in flight: sent and not finished. `T` is whatever the caller needs to send one again.
///
/// Their number is bounded by the peer's Receive Maximum [MQTT-3.3.4-7]. An empty one needs no heap memory.
/// Acknowledgements that come in order cost O(1), others O(n) at most.
#[derive(Clone, Debug)]
pub struct Outbound<T> {
    window: Window<Step<T>>,
    receive_maximum: u16,
    next: PacketId,
}

#[derive(Clone, Debug)]
enum Step<T> {
    /// Waits for PUBACK.
    Qos1(T),
    /// Waits for PUBREC.
    Qos2(T),
    /// Waits for PUBCOMP; the message is the receiver's now.
    Released,
}

/// One exchange that is not finished: what [`Outbound::iter`] lends (`I = &T`) and [`Outbound::restore`] takes (`I = T`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InFlight<I> {
    /// PUBLISH is not acknowledged.
    Publish {
        /// Its identifier, also when it is sent again [MQTT-4.4.0-1].
        id: PacketId,
        /// 1 or 2.
        qos: QoS,
        /// The message.
        item: I,
    },
    /// PUBREC has come, PUBCOMP has not.
    Pubrel {
        /// Its identifier.
        id: PacketId,
    },
}

/// What a PUBREC means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pubrec<T> {
    /// Send PUBREL [MQTT-4.3.3-4]; the message is given back the first time, when the receiver becomes its owner.
    Release(Option<T>),
    /// The receiver refused (reason 0x80 or above): the exchange is over without PUBREL [MQTT-4.4.0-2].
    Ended(T),
    /// No QoS 2 message with this identifier waits: PUBREL with Packet Identifier not found (0x92), in version 5.
    Unknown,
}

/// Why an exchange cannot be put back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RestoreError {
    /// Its identifier is in use.
    #[error("packet identifier {0} is in flight twice")]
    Duplicate(PacketId),
    /// QoS 0 is never in flight.
    #[error("a message with QoS 0 is not in flight")]
    Qos0,
}

impl<T> Outbound<T> {
    /// Nothing in flight, and at most `receive_maximum` messages at once (65,535 if the peer did not say).
    pub const fn new(receive_maximum: u16) -> Self {
        Self { window: Window::new(), receive_maximum, next: PacketId::MIN }
    }

    /// For a session that goes on over a new connection: what this peer allows (4.9).
    pub const fn set_receive_maximum(&mut self, receive_maximum: u16) {
        self.receive_maximum = receive_maximum;
    }

    /// How many messages may be under way at once.
    pub const fn receive_maximum(&self) -> u16 {
        self.receive_maximum
    }

    /// How many more messages may begin now: the send quota (4.9). 0 also while a restored session has more in flight
    /// than the new connection allows.
    pub fn quota(&self) -> usize {
        usize::from(self.receive_maximum).saturating_sub(self.len())
    }

    /// Exchanges that are not finished.
    pub fn len(&self) -> usize {
        self.window.len()
    }

    /// Whether nothing is in flight.
    pub fn is_empty(&self) -> bool {
        self.window.is_empty()
    }

    /// Takes a message on its way and gives the identifier to send it with: the one after the last that is not in use
    /// [MQTT-2.2.1-3].
    ///
    /// `None`, and the item is dropped, if the quota is used up [MQTT-3.3.4-7] or `qos` is 0, which needs no identifier:
    /// ask [`Self::quota`] before.
    pub fn begin(&mut self, qos: QoS, item: T) -> Option<PacketId> {
        if self.quota() == 0 {
            return None;
        }
        let step = match qos {
            QoS::AtMostOnce => return None,
            QoS::AtLeastOnce => Step::Qos1(item),
            QoS::ExactlyOnce => Step::Qos2(item),
        };
        let id = self.window.free(self.next)?;
        self.window.push(id, step);
        self.next = id.next();
        Some(id)
    }

    /// PUBACK came: gives the message back; `None` if no QoS 1 message with this identifier waits.
    ///
    /// Its reason does not matter here: a refused message is over as well [MQTT-4.4.0-2].
    pub fn puback(&mut self, id: PacketId) -> Option<T> {
        match self.window.remove_if(id, |step| matches!(step, Step::Qos1(_)))? {
            Step::Qos1(item) => Some(item),
            Step::Qos2(_) | Step::Released => None,
        }
    }

    /// PUBREC came. After the first one, each further one only asks for PUBREL again.
    pub fn pubrec(&mut self, id: PacketId, reason: ReasonCode) -> Pubrec<T> {
        let step = match self.window.get_mut(id) {
            None | Some(Step::Qos1(_)) => return Pubrec::Unknown,
            Some(Step::Released) => return Pubrec::Release(None),
            Some(step @ Step::Qos2(_)) => std::mem::replace(step, Step::Released),
        };
        let Step::Qos2(item) = step else {
            return Pubrec::Unknown;
        };
        if reason.is_error() {
            self.window.remove(id);
            return Pubrec::Ended(item);
        }
        Pubrec::Release(Some(item))
    }

    /// PUBCOMP came: the exchange is over. `false` if none with this identifier waits for it.
    pub fn pubcomp(&mut self, id: PacketId) -> bool {
        self.window.remove_if(id, |step| matches!(step, Step::Released)).is_some()
    }

    /// What to send again on a new connection, in the order in which it was first sent [MQTT-4.4.0-1], [MQTT-4.6.0-1].
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = InFlight<&T>> {
        self.window.iter().map(|(id, step)| match step {
            Step::Qos1(item) => InFlight::Publish { id, qos: QoS::AtLeastOnce, item },
            Step::Qos2(item) => InFlight::Publish { id, qos: QoS::ExactlyOnce, item },
            Step::Released => InFlight::Pubrel { id },
        })
    }

    /// Puts an exchange of a stored session back, behind all others, with its identifier. The quota does not count here.
    ///
    /// # Errors
    /// The stored session contradicts itself; nothing is put back then.
    pub fn restore(&mut self, exchange: InFlight<T>) -> Result<(), RestoreError> {
        let (id, step) = match exchange {
            InFlight::Publish { qos: QoS::AtMostOnce, .. } => return Err(RestoreError::Qos0),
            InFlight::Publish { id, qos: QoS::AtLeastOnce, item } => (id, Step::Qos1(item)),
            InFlight::Publish { id, qos: QoS::ExactlyOnce, item } => (id, Step::Qos2(item)),
            InFlight::Pubrel { id } => (id, Step::Released),
        };
        if !self.window.push(id, step) {
            return Err(RestoreError::Duplicate(id));
        }
        self.next = id.next();
        Ok(())
    }
}
