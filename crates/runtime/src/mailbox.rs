//! Batches between threads with one wake-up.
//!
//! A worker is to another worker what a node is to another node: what is sent while the receiver is busy
//! gathers, and the receiver takes all of it in one swap. A sender wakes the receiver only when it sleeps, so a
//! batch costs one wake-up however many messages it holds.
//!
//! Bound: `capacity` messages. Rule at the bound: [`Sender::send`] gives the message back at once, the sender
//! decides what that means (drop with a counted rule, close a connection, try later). Nothing here blocks.

use std::fmt;
use std::future::poll_fn;
use std::mem;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};

/// Makes a mailbox for at most `capacity` waiting messages.
pub fn mailbox<T: Send>(capacity: usize) -> (Sender<T>, Receiver<T>) {
    let shared = Arc::new(Shared {
        state: Mutex::new(State { queue: Vec::new(), sleeper: None, receiver_alive: true }),
        senders: AtomicUsize::new(1),
        capacity,
    });
    (Sender { shared: Arc::clone(&shared) }, Receiver { shared })
}

struct Shared<T> {
    state: Mutex<State<T>>,
    senders: AtomicUsize,
    capacity: usize,
}

struct State<T> {
    queue: Vec<T>,
    /// Present only while the receiver sleeps: whoever takes it has the duty to wake.
    sleeper: Option<Waker>,
    receiver_alive: bool,
}

impl<T> Shared<T> {
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        // No code that can panic runs under this lock but Vec's growth; its state is valid then too.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The message that found no room, given back. Also what a sender gets when the receiver is gone
/// ([`Sender::is_closed`] tells the two apart).
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Full<T>(pub T);

impl<T> fmt::Debug for Full<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Full(..)")
    }
}

impl<T> fmt::Display for Full<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the mailbox is full or its receiver is gone")
    }
}

impl<T> std::error::Error for Full<T> {}

/// The side that sends. Cheap to clone; usable from every thread, inside and outside of a runtime.
pub struct Sender<T> {
    shared: Arc<Shared<T>>,
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        self.shared.senders.fetch_add(1, Ordering::Relaxed);
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        if self.shared.senders.fetch_sub(1, Ordering::AcqRel) == 1 {
            let sleeper = self.shared.lock().sleeper.take();
            wake(sleeper);
        }
    }
}

impl<T> fmt::Debug for Sender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sender").field("capacity", &self.shared.capacity).finish_non_exhaustive()
    }
}

impl<T: Send> Sender<T> {
    /// Puts a message in, or gives it back when there is no room or no receiver. Never blocks on the receiver.
    pub fn send(&self, message: T) -> Result<(), Full<T>> {
        let sleeper = {
            let mut state = self.shared.lock();
            if !state.receiver_alive || state.queue.len() >= self.shared.capacity {
                return Err(Full(message));
            }
            state.queue.push(message);
            state.sleeper.take()
        };
        wake(sleeper);
        Ok(())
    }

    /// Puts messages in, in order, under one lock and with at most one wake-up. What finds no room or no receiver
    /// is dropped; gives back how many that were, for the counter of the sender's rule. Who must keep them uses
    /// [`Sender::send`].
    ///
    /// The iterator runs under the lock: it must be short and must not touch this mailbox.
    pub fn send_all(&self, messages: impl IntoIterator<Item = T>) -> usize {
        let mut messages = messages.into_iter();
        let (refused, sleeper) = {
            let mut state = self.shared.lock();
            let room =
                if state.receiver_alive { self.shared.capacity.saturating_sub(state.queue.len()) } else { 0 };
            let before = state.queue.len();
            state.queue.extend(messages.by_ref().take(room));
            let woken = if state.queue.len() > before { state.sleeper.take() } else { None };
            (messages, woken)
        };
        wake(sleeper);
        refused.count()
    }

    /// Puts a message in beyond the bound. Only for answers: an answer is bounded by the request that asked for
    /// it, and to drop it would leave the asker waiting. Gives the message back when the receiver is gone.
    pub fn force(&self, message: T) -> Result<(), Full<T>> {
        let sleeper = {
            let mut state = self.shared.lock();
            if !state.receiver_alive {
                return Err(Full(message));
            }
            state.queue.push(message);
            state.sleeper.take()
        };
        wake(sleeper);
        Ok(())
    }
}

impl<T> Sender<T> {
    /// How many messages wait now. For metrics.
    pub fn len(&self) -> usize {
        self.shared.lock().queue.len()
    }

    /// Whether no message waits now.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether the receiver is gone, so that every further message will come back.
    pub fn is_closed(&self) -> bool {
        !self.shared.lock().receiver_alive
    }
}

fn wake(sleeper: Option<Waker>) {
    if let Some(waker) = sleeper {
        waker.wake();
    }
}

/// The side that receives. There is one.
pub struct Receiver<T> {
    shared: Arc<Shared<T>>,
}

impl<T> fmt::Debug for Receiver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receiver").field("capacity", &self.shared.capacity).finish_non_exhaustive()
    }
}

impl<T: Send> Receiver<T> {
    /// Waits for messages and moves all that are there to the end of `into`, in the order of their sending.
    /// `false` when every sender is gone and nothing is left.
    ///
    /// Cancel safe: a message is either still in the mailbox or in `into`. Give the same emptied vector every
    /// time; the two vectors swap places and nothing is allocated in the steady state.
    pub async fn recv(&mut self, into: &mut Vec<T>) -> bool {
        poll_fn(|cx| self.poll_recv(cx, into)).await
    }

    /// As [`Receiver::recv`], for hand-written futures.
    pub fn poll_recv(&mut self, cx: &mut Context<'_>, into: &mut Vec<T>) -> Poll<bool> {
        // A receiver that always finds something must still let the other tasks of its worker run.
        let progress = ready!(tokio::task::coop::poll_proceed(cx));
        let mut state = self.shared.lock();
        if take(&mut state.queue, into) {
            progress.made_progress();
            return Poll::Ready(true);
        }
        // The last sender counts itself down before it takes this lock to wake: seen here, or it wakes us.
        if self.shared.senders.load(Ordering::Acquire) == 0 {
            return Poll::Ready(false);
        }
        match &mut state.sleeper {
            Some(waker) => waker.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        }
        Poll::Pending
    }

    /// Moves what is there to the end of `into` without waiting; `false` when there was nothing.
    pub fn try_recv(&mut self, into: &mut Vec<T>) -> bool {
        take(&mut self.shared.lock().queue, into)
    }
}

/// Moves everything from `queue` to the end of `into`; `false` when there was nothing.
fn take<T>(queue: &mut Vec<T>, into: &mut Vec<T>) -> bool {
    if queue.is_empty() {
        return false;
    }
    if into.is_empty() {
        mem::swap(queue, into);
    } else {
        into.append(queue);
    }
    true
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        let left = {
            let mut state = self.shared.lock();
            state.receiver_alive = false;
            state.sleeper = None;
            mem::take(&mut state.queue)
        };
        // Messages may hold senders of their own: they are dropped outside of the lock.
        drop(left);
    }
}

#[cfg(test)]
mod tests;
