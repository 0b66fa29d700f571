//! Messages that wait in memory for a connected client that cannot take them now.
//!
//! Only QoS 1 and 2 of sessions that end with their connection wait here: a durable session waits as a position in
//! the log, where everything has its place already. What has a higher priority leaves first; a topic has one priority, so the
//! order within a topic stays [MQTT-4.6.0-6].
//!
//! Bounded by count and bytes. At the bound a message of the lowest priority there is goes, counted and told: the **newest** of
//! them, so that what was accepted first is delivered first, or the oldest, where the operator wants the latest news
//! (`queue_drop`). What came in does not make room by dropping what is more important than itself.

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

/// Highest priority first; first in, first out within one. Empty: no heap.
#[derive(Default)]
pub(crate) struct Queue {
    /// By priority, the highest first; none is empty.
    lanes: Vec<Lane>,
    messages: usize,
    bytes: usize,
}

struct Lane {
    priority: u8,
    waiting: VecDeque<Waiting>,
}

/// Which message goes at the bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DropRule {
    /// The one that came last.
    Newest,
    /// The one that has waited longest.
    Oldest,
}

/// The bounds of a [`Queue`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bound {
    /// Messages.
    pub(crate) messages: usize,
    /// Bytes of topics, payloads and properties.
    pub(crate) bytes: usize,
    /// What happens there.
    pub(crate) drop: DropRule,
}

/// What became of a message that was to wait.
#[must_use]
pub(crate) struct Pushed {
    /// It waits.
    pub(crate) taken: bool,
    /// Others that had to go for it.
    pub(crate) dropped: Vec<Arc<Message>>,
}

impl Queue {
    /// Puts a message into its place.
    pub(crate) fn push(&mut self, waiting: Waiting, priority: u8, bound: Bound) -> Pushed {
        let weight = waiting.message.weight();
        let mut pushed = Pushed { taken: true, dropped: Vec::new() };
        if self.is_over(weight, bound) {
            if !self.could_make_room(weight, priority, bound) {
                return Pushed { taken: false, ..pushed };
            }
            while self.is_over(weight, bound) {
                match self.drop_one(bound.drop) {
                    Some(message) => pushed.dropped.push(message),
                    None => break,
                }
            }
        }
        self.bytes += weight;
        self.messages += 1;
        let at = self.lanes.partition_point(|lane| lane.priority > priority);
        match self.lanes.get_mut(at).filter(|lane| lane.priority == priority) {
            Some(lane) => lane.waiting.push_back(waiting),
            None => self.lanes.insert(at, Lane { priority, waiting: VecDeque::from([waiting]) }),
        }
        pushed
    }

    /// Whether there is no room for one more of so many bytes. One message always fits into an empty queue, however large: the
    /// packet size limit has already judged it.
    fn is_over(&self, weight: usize, bound: Bound) -> bool {
        self.messages > 0 && (self.messages >= bound.messages || self.bytes + weight > bound.bytes)
    }

    /// Whether dropping what may go for a message of this priority makes room for it; else nothing is dropped in vain.
    fn could_make_room(&self, weight: usize, priority: u8, bound: Bound) -> bool {
        let mut left = Self { lanes: Vec::new(), messages: self.messages, bytes: self.bytes };
        // the message itself is the newest of its priority, and not the oldest
        let goes = |lane: &&Lane| match bound.drop {
            DropRule::Newest => lane.priority < priority,
            DropRule::Oldest => lane.priority <= priority,
        };
        for waiting in self.lanes.iter().rev().take_while(goes).flat_map(|lane| &lane.waiting) {
            left.messages -= 1;
            left.bytes -= waiting.message.weight();
            if !left.is_over(weight, bound) {
                return true;
            }
        }
        false
    }

    /// Drops one of the lowest priority.
    fn drop_one(&mut self, rule: DropRule) -> Option<Arc<Message>> {
        let lane = self.lanes.last_mut()?;
        let dropped = match rule {
            DropRule::Newest => lane.waiting.pop_back(),
            DropRule::Oldest => lane.waiting.pop_front(),
        }?;
        if lane.waiting.is_empty() {
            self.lanes.pop();
        }
        self.left(&dropped);
        Some(dropped.message)
    }

    pub(crate) fn pop(&mut self) -> Option<Waiting> {
        let lane = self.lanes.first_mut()?;
        let waiting = lane.waiting.pop_front()?;
        if lane.waiting.is_empty() {
            // a burst must not leave its buffer with an idle client
            self.lanes.remove(0);
        }
        self.left(&waiting);
        Some(waiting)
    }

    fn left(&mut self, waiting: &Waiting) {
        self.messages -= 1;
        self.bytes -= waiting.message.weight();
        if self.lanes.is_empty() {
            self.lanes = Vec::new();
        }
    }

    /// Takes out what was dealt in the place of groups.
    pub(crate) fn take_dealt(&mut self) -> Vec<(Arc<Group>, Arc<Message>)> {
        let mut dealt = Vec::new();
        let (messages, bytes) = (&mut self.messages, &mut self.bytes);
        for lane in &mut self.lanes {
            lane.waiting.retain_mut(|w| {
                let Some(group) = w.group.take() else { return true };
                *messages -= 1;
                *bytes -= w.message.weight();
                dealt.push((group, Arc::clone(&w.message)));
                false
            });
        }
        self.lanes.retain(|lane| !lane.waiting.is_empty());
        dealt
    }

    pub(crate) fn len(&self) -> usize {
        self.messages
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.messages == 0
    }
}

#[cfg(test)]
mod tests;
