//! Messages that wait in memory for a connected client that cannot take them now.
//!
//! Only QoS 1 and 2 of sessions that end with their connection wait here: a durable session waits as a position in
//! the log. Bounded by count and bytes; at the bound the **newest** message is dropped, counted and told, so that what
//! was accepted first is delivered first.

use std::collections::VecDeque;
use std::sync::Arc;

use mqtt::QoS;

use crate::message::Message;
use crate::router::Group;

/// A waiting delivery.
pub(crate) struct Waiting {
    pub(crate) message: Arc<Message>,
    /// Already the lower of the message's and the subscription's.
    pub(crate) qos: QoS,
    /// As it will be forwarded.
    pub(crate) retain: bool,
    /// Subscription identifiers.
    pub(crate) identifiers: smallvec::SmallVec<[u32; 1]>,
    /// It was dealt to the client in the place of this group: another member gets it if the client goes.
    pub(crate) group: Option<Arc<Group>>,
}

/// First in, first out. Empty: no heap.
#[derive(Default)]
pub(crate) struct Queue {
    waiting: VecDeque<Waiting>,
    bytes: usize,
}

/// The bounds of a [`Queue`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bound {
    /// Messages.
    pub(crate) messages: usize,
    /// Bytes of payloads and topics.
    pub(crate) bytes: usize,
}

fn weight(message: &Message) -> usize {
    message.publish.payload.len() + message.publish.topic.len()
}

impl Queue {
    /// `false`: the bound is reached, the message was not taken.
    #[must_use]
    pub(crate) fn push(&mut self, waiting: Waiting, bound: Bound) -> bool {
        let weight = weight(&waiting.message);
        // one message always fits, however large: the packet size limit has already judged it
        let over = self.waiting.len() >= bound.messages || self.bytes + weight > bound.bytes;
        if over && !self.waiting.is_empty() {
            return false;
        }
        self.bytes += weight;
        self.waiting.push_back(waiting);
        true
    }

    pub(crate) fn pop(&mut self) -> Option<Waiting> {
        let waiting = self.waiting.pop_front()?;
        self.bytes -= weight(&waiting.message);
        if self.waiting.is_empty() {
            // a burst must not leave its buffer with an idle client
            self.waiting = VecDeque::new();
        }
        Some(waiting)
    }

    /// Takes out what was dealt in the place of groups.
    pub(crate) fn take_dealt(&mut self) -> Vec<(Arc<Group>, Arc<Message>)> {
        let mut dealt = Vec::new();
        let bytes = &mut self.bytes;
        self.waiting.retain_mut(|w| {
            let Some(group) = w.group.take() else { return true };
            *bytes -= weight(&w.message);
            dealt.push((group, Arc::clone(&w.message)));
            false
        });
        dealt
    }

    pub(crate) fn len(&self) -> usize {
        self.waiting.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use mqtt::packet::Publish;

    use super::*;
    use crate::message::{NEVER, NOBODY};

    fn waiting(bytes: usize) -> Waiting {
        Waiting {
            message: Arc::new(Message {
                publisher: NOBODY,
                expires_at: NEVER,
                publish: Publish {
                    dup: false,
                    qos: QoS::AtLeastOnce,
                    retain: false,
                    topic: "".into(),
                    packet_id: None,
                    properties: Default::default(),
                    payload: vec![0; bytes].into(),
                },
            }),
            qos: QoS::AtLeastOnce,
            retain: false,
            identifiers: smallvec::SmallVec::new(),
            group: None,
        }
    }

    #[test]
    fn the_newest_is_dropped_at_the_bound_of_messages() {
        let mut queue = Queue::default();
        let bound = Bound { messages: 2, bytes: 1000 };
        assert!(queue.push(waiting(1), bound));
        assert!(queue.push(waiting(2), bound));
        assert!(!queue.push(waiting(3), bound));
        assert_eq!(queue.pop().map(|w| w.message.publish.payload.len()), Some(1));
        assert!(queue.push(waiting(3), bound));
        assert_eq!(queue.len(), 2);
    }

    #[test]
    fn the_newest_is_dropped_at_the_bound_of_bytes() {
        let mut queue = Queue::default();
        let bound = Bound { messages: 10, bytes: 100 };
        assert!(queue.push(waiting(60), bound));
        assert!(queue.push(waiting(40), bound));
        assert!(!queue.push(waiting(1), bound));
    }

    #[test]
    fn a_single_message_larger_than_the_bound_is_taken() {
        let mut queue = Queue::default();
        let bound = Bound { messages: 10, bytes: 100 };
        assert!(queue.push(waiting(500), bound));
        assert!(!queue.push(waiting(1), bound));
        assert!(queue.pop().is_some());
        assert!(queue.is_empty());
    }
}
