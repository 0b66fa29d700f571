use mqtt::packet::Publish;
use proptest::prelude::*;

use super::*;
use crate::message::{NEVER, NOBODY};

fn waiting(bytes: usize) -> Waiting {
    named("", bytes)
}

fn named(topic: &str, bytes: usize) -> Waiting {
    Waiting {
        message: Arc::new(Message {
            publisher: NOBODY,
            expires_at: NEVER,
            publish: Publish {
                dup: false,
                qos: QoS::AtLeastOnce,
                retain: false,
                topic: topic.to_owned().into(),
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

fn bound(messages: usize, bytes: usize, drop: DropRule) -> Bound {
    Bound { messages, bytes, drop }
}

fn popped(queue: &mut Queue) -> Vec<usize> {
    std::iter::from_fn(|| queue.pop()).map(|w| w.message.publish.payload.len()).collect()
}

#[test]
fn the_newest_is_dropped_at_the_bound_of_messages() {
    let mut queue = Queue::default();
    let bound = bound(2, 1000, DropRule::Newest);
    assert!(queue.push(waiting(1), 0, bound).taken);
    assert!(queue.push(waiting(2), 0, bound).taken);
    assert!(!queue.push(waiting(3), 0, bound).taken);
    assert_eq!(queue.pop().map(|w| w.message.publish.payload.len()), Some(1));
    assert!(queue.push(waiting(3), 0, bound).taken);
    assert_eq!(queue.len(), 2);
}

#[test]
fn the_newest_is_dropped_at_the_bound_of_bytes() {
    let mut queue = Queue::default();
    let bound = bound(10, 100, DropRule::Newest);
    assert!(queue.push(waiting(60), 0, bound).taken);
    assert!(queue.push(waiting(40), 0, bound).taken);
    assert!(!queue.push(waiting(1), 0, bound).taken);
}

#[test]
fn the_oldest_is_dropped_where_the_operator_wants_it() {
    let mut queue = Queue::default();
    let bound = bound(10, 100, DropRule::Oldest);
    for bytes in [30, 30, 40] {
        assert!(queue.push(waiting(bytes), 0, bound).dropped.is_empty());
    }
    let pushed = queue.push(waiting(50), 0, bound);
    assert!(pushed.taken);
    assert_eq!(pushed.dropped.iter().map(|m| m.publish.payload.len()).collect::<Vec<_>>(), [30, 30]);
    assert_eq!(popped(&mut queue), [40, 50]);
}

#[test]
fn a_single_message_larger_than_the_bound_is_taken() {
    for drop in [DropRule::Newest, DropRule::Oldest] {
        let mut queue = Queue::default();
        let bound = bound(10, 100, drop);
        assert!(queue.push(waiting(500), 0, bound).taken);
        assert_eq!(queue.push(waiting(1), 0, bound).taken, drop == DropRule::Oldest);
        assert!(queue.pop().is_some());
        assert!(queue.is_empty());
    }
}

#[test]
fn what_has_a_higher_priority_leaves_first_and_makes_the_lower_go() {
    for drop in [DropRule::Newest, DropRule::Oldest] {
        let mut queue = Queue::default();
        let bound = bound(3, 1000, drop);
        for (bytes, priority) in [(1, 0), (2, 5), (3, 0)] {
            assert!(queue.push(waiting(bytes), priority, bound).taken);
        }
        let pushed = queue.push(waiting(4), 5, bound);
        assert!(pushed.taken);
        let gone = if drop == DropRule::Newest { 3 } else { 1 };
        assert_eq!(pushed.dropped[0].publish.payload.len(), gone);
        assert!(queue.push(waiting(5), 9, bound).taken);
        assert!(!queue.push(waiting(6), 1, bound).taken, "all that waits is more important");
        assert_eq!(popped(&mut queue), [5, 2, 4]);
    }
}

#[test]
fn nothing_is_dropped_for_what_does_not_fit_all_the_same() {
    let mut queue = Queue::default();
    let bound = bound(10, 100, DropRule::Oldest);
    assert!(queue.push(waiting(60), 9, bound).taken);
    assert!(queue.push(waiting(20), 0, bound).taken);
    let pushed = queue.push(waiting(50), 0, bound);
    assert!(!pushed.taken && pushed.dropped.is_empty());
    assert_eq!(popped(&mut queue), [60, 20]);
}

/// The same queue, so simple that it is right: a list in the order of arrival.
#[derive(Default)]
struct Naive(Vec<(u8, usize, usize)>);

impl Naive {
    fn bytes(&self) -> usize {
        self.0.iter().map(|(_, _, bytes)| bytes).sum()
    }

    fn over(&self, bytes: usize, bound: Bound) -> bool {
        !self.0.is_empty() && (self.0.len() >= bound.messages || self.bytes() + bytes > bound.bytes)
    }

    /// Which of them goes next for a message of this priority.
    fn victim(&self, priority: u8, rule: DropRule) -> Option<usize> {
        let lowest = self.0.iter().map(|(p, ..)| *p).min()?;
        let mut of_lowest = (0..self.0.len()).filter(|at| self.0[*at].0 == lowest);
        match rule {
            DropRule::Newest if lowest < priority => of_lowest.next_back(),
            DropRule::Oldest if lowest <= priority => of_lowest.next(),
            _ => None,
        }
    }

    fn push(&mut self, priority: u8, id: usize, bytes: usize, bound: Bound) -> Option<Vec<usize>> {
        let (before, mut dropped) = (self.0.clone(), Vec::new());
        while self.over(bytes, bound) {
            let Some(victim) = self.victim(priority, bound.drop) else {
                self.0 = before;
                return None;
            };
            dropped.push(self.0.remove(victim).1);
        }
        self.0.push((priority, id, bytes));
        Some(dropped)
    }

    fn pop(&mut self) -> Option<usize> {
        let highest = self.0.iter().map(|(p, ..)| *p).max()?;
        let at = self.0.iter().position(|(p, ..)| *p == highest)?;
        Some(self.0.remove(at).1)
    }
}

proptest! {
    #[test]
    fn it_is_a_list_that_is_searched(
        oldest: bool,
        most in (1usize..8, 1usize..120),
        steps in prop::collection::vec(prop::option::weighted(0.7, (0u8..3, 0usize..50)), 1..80),
    ) {
        let bound = bound(most.0, most.1, if oldest { DropRule::Oldest } else { DropRule::Newest });
        let id = |message: &Message| message.publish.topic[1..].parse::<usize>().unwrap();
        let (mut queue, mut naive) = (Queue::default(), Naive::default());
        for (number, step) in steps.into_iter().enumerate() {
            match step {
                Some((priority, bytes)) => {
                    let waiting = named(&format!("t{number:03}"), bytes);
                    let pushed = queue.push(waiting, priority, bound);
                    let expected = naive.push(priority, number, bytes + 4, bound);
                    let dropped: Vec<_> = pushed.dropped.iter().map(|m| id(m)).collect();
                    prop_assert_eq!(pushed.taken.then_some(dropped), expected);
                }
                None => prop_assert_eq!(queue.pop().map(|w| id(&w.message)), naive.pop()),
            }
            prop_assert_eq!((queue.len(), queue.bytes), (naive.0.len(), naive.bytes()));
            prop_assert!(queue.messages <= bound.messages.max(1));
        }
        while let Some(expected) = naive.pop() {
            prop_assert_eq!(queue.pop().map(|w| id(&w.message)), Some(expected));
        }
        prop_assert!(queue.is_empty() && queue.lanes.capacity() == 0);
    }
}
