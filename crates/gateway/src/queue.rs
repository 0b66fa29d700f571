//! Those who wait for a place at a server: connections that came when every server that could take them had its
//! `max_conns`.
//!
//! One line for each upstream, over all workers: who came first is called first, on whatever worker a connection ends.
//! Who is called chooses again; if it finds no place (a server may have gone) it stands where it stood. A newcomer goes to
//! the end of the line while there is one, and nobody overtakes. Who stands first also looks by itself now and then, for
//! places that nobody's end makes (an unavailable server may be tried again).
//!
//! Bound: the upstream's `queue`. Rule at the bound: the newcomer is refused (`queue_full`), and so is who waited for
//! `queue_timeout`. Must not know: servers, how they are chosen.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering, fence};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// The line of an upstream.
#[derive(Default)]
pub(crate) struct Queue {
    /// How many wait, those that were called included.
    waiting: AtomicUsize,
    /// How many waited ever.
    total: AtomicU64,
    line: Mutex<Line>,
}

#[derive(Default)]
struct Line {
    /// Those that were not called, by their numbers.
    tickets: BTreeMap<u64, Arc<Notify>>,
    next: u64,
}

impl Queue {
    /// How many wait now.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// How many waited ever.
    pub(crate) fn total(&self) -> u64 {
        self.total.load(Ordering::Relaxed)
    }

    /// Takes a place at the end of the line; `None`: `max` wait.
    pub(crate) fn join(self: &Arc<Self>, max: usize) -> Option<Ticket> {
        let mut line = self.line();
        if self.waiting() >= max {
            return None;
        }
        self.waiting.fetch_add(1, Ordering::Relaxed);
        self.total.fetch_add(1, Ordering::Relaxed);
        let number = line.next;
        line.next += 1;
        let called = Arc::new(Notify::new());
        line.tickets.insert(number, Arc::clone(&called));
        // With the one in `call`: whoever gives a place back sees this ticket, or this one sees the place.
        fence(Ordering::SeqCst);
        Some(Ticket { queue: Arc::clone(self), number, called, served: false })
    }

    /// A place was given back: calls the first in line.
    pub(crate) fn call(&self) {
        fence(Ordering::SeqCst);
        if self.waiting() == 0 {
            return;
        }
        if let Some((_, first)) = self.line().tickets.pop_first() {
            first.notify_one();
        }
    }

    /// There may be many places: calls everybody.
    pub(crate) fn call_all(&self) {
        fence(Ordering::SeqCst);
        if self.waiting() == 0 {
            return;
        }
        for (_, ticket) in std::mem::take(&mut self.line().tickets) {
            ticket.notify_one();
        }
    }

    fn line(&self) -> MutexGuard<'_, Line> {
        // Every change under this lock is one call: it is done or it is not.
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place in the line.
pub(crate) struct Ticket {
    queue: Arc<Queue>,
    number: u64,
    called: Arc<Notify>,
    served: bool,
}

impl Ticket {
    /// Whether it may look for a server: it was called, or nobody stands before it.
    pub(crate) fn may_look(&self) -> bool {
        let line = self.queue.line();
        !line.tickets.contains_key(&self.number)
            || line.tickets.first_key_value().is_some_and(|(first, _)| *first == self.number)
    }

    /// It looked and found no place: it waits where it stood. Whether it must look once more before it waits: it was called,
    /// and a place given back since then called somebody behind it, or nobody.
    #[must_use]
    pub(crate) fn again(&self) -> bool {
        let was_called = self.queue.line().tickets.insert(self.number, Arc::clone(&self.called)).is_none();
        // As in `join`.
        fence(Ordering::SeqCst);
        was_called
    }

    /// There may be a place that is none for it: calls who stands next behind it.
    pub(crate) fn pass(&self) {
        let mut line = self.queue.line();
        let next = line.tickets.range(self.number + 1..).next().map(|(number, _)| *number);
        if let Some(next) = next.and_then(|number| line.tickets.remove(&number)) {
            next.notify_one();
        }
    }

    /// Waits until it is called.
    pub(crate) async fn called(&self) {
        self.called.notified().await;
    }

    /// It has its server.
    pub(crate) fn served(mut self) {
        self.served = true;
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let called = self.queue.line().tickets.remove(&self.number).is_none();
        self.queue.waiting.fetch_sub(1, Ordering::Relaxed);
        if called && !self.served {
            // The place it was called for is the next one's.
            self.queue.call();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::task::{Context, Waker};

    use proptest::prelude::*;

    use super::*;

    fn is_called(ticket: &Ticket) -> bool {
        let future = std::pin::pin!(ticket.called());
        future.poll(&mut Context::from_waker(Waker::noop())).is_ready()
    }

    #[test]
    fn the_first_in_line_is_called_first_and_the_bound_holds() {
        let queue = Arc::new(Queue::default());
        let (first, second) = (queue.join(2).unwrap(), queue.join(2).unwrap());
        assert!(queue.join(2).is_none());
        assert!(first.may_look() && !second.may_look());
        queue.call();
        assert!(is_called(&first) && !is_called(&second));
        assert!(second.may_look(), "nobody stands before it");
        assert!(first.again(), "a place may have been given back meanwhile");
        assert!(!first.again(), "it stood in line all the time");
        assert!(first.may_look() && !second.may_look(), "where it stood");
        first.served();
        assert_eq!((queue.waiting(), queue.total()), (1, 2));
        assert!(queue.join(2).is_some());
    }

    #[test]
    fn who_has_no_use_for_a_place_passes_it_to_the_next() {
        let queue = Arc::new(Queue::default());
        let tickets: Vec<_> = (0..3).map(|_| queue.join(9).unwrap()).collect();
        queue.call();
        assert!(is_called(&tickets[0]) && tickets[0].again());
        tickets[0].pass();
        assert!(is_called(&tickets[1]) && tickets[1].may_look() && !is_called(&tickets[2]));
        assert!(tickets[1].again() && tickets[0].may_look() && !tickets[1].may_look(), "where they stood");
        tickets[2].pass();
        assert!(tickets.iter().all(|ticket| !is_called(ticket)), "nobody is behind the last");
    }

    #[test]
    fn who_goes_away_after_it_was_called_passes_it_on() {
        let queue = Arc::new(Queue::default());
        let (first, second) = (queue.join(9).unwrap(), queue.join(9).unwrap());
        queue.call();
        drop(first);
        assert!(is_called(&second));
        let third = queue.join(9).unwrap();
        second.served();
        assert!(!is_called(&third));
        drop(third);
        assert_eq!(queue.waiting(), 0);
        queue.call();
        queue.call_all();
    }

    proptest! {
        /// As many are called as places were given back, in the order in which they came, whoever leaves.
        #[test]
        fn calls_go_to_the_first_that_wait(steps in prop::collection::vec((0_u8..4, any::<u8>()), 0..60)) {
            let queue = Arc::new(Queue::default());
            let mut tickets = Vec::new();
            let (mut oracle, mut came) = (VecDeque::new(), 0_u32);
            for (step, which) in steps {
                match step {
                    0 | 1 => {
                        let ticket = queue.join(5);
                        prop_assert_eq!(ticket.is_some(), oracle.len() < 5);
                        if let Some(ticket) = ticket {
                            tickets.push((came, ticket));
                            oracle.push_back(came);
                            came += 1;
                        }
                    }
                    2 => {
                        queue.call();
                        let called: Vec<_> = tickets.iter().filter(|(_, ticket)| is_called(ticket)).map(|(n, _)| *n).collect();
                        prop_assert_eq!(called, Vec::from_iter(oracle.pop_front()));
                        if let Some(place) = tickets.iter().position(|(n, _)| oracle.front().is_none_or(|first| n < first)) {
                            tickets.remove(place).1.served();
                        }
                    }
                    _ if tickets.is_empty() => {}
                    _ => {
                        let (number, ticket) = tickets.remove(usize::from(which) % tickets.len());
                        drop(ticket);
                        oracle.retain(|waits| *waits != number);
                    }
                }
                prop_assert_eq!(queue.waiting(), oracle.len());
            }
        }
    }
}
