//! How much a worker has on the way to the others, and who wakes it when that has been too much.
//!
//! Every batch is charged to its sender's account from when it is sent until it is dropped: in the mailbox, and in the
//! receiver's hands. A sender above the bound reads no more, and whoever brings the
//! account below half of it wakes the sender. One account for all receivers: what waits in a broker is bounded by its workers
//! and not by their pairs.
//!
//! Must not know: what a batch holds, mailboxes, connections.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Waker;

/// Bytes that one worker has on the way to all others above which it does not read its connections: 8 MiB, so that 64 workers
/// that all flood each other hold 512 MiB.
pub(crate) const MAX_UNDER_WAY: usize = 8 << 20;
/// Bytes that the smallest batch counts for: 1,024 batches are too much, whatever is in them.
const BATCH_COST: usize = MAX_UNDER_WAY / 1_024;

/// The account of one sender.
#[derive(Debug, Default)]
pub(crate) struct UnderWay {
    bytes: AtomicUsize,
    /// The sender, while it rests: whoever takes it has the duty to wake.
    sleeper: Mutex<Option<Waker>>,
}

impl UnderWay {
    /// Bytes under way now.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::SeqCst)
    }

    /// Whether the sender must read no more.
    pub(crate) fn is_too_much(&self) -> bool {
        self.bytes() > MAX_UNDER_WAY
    }

    /// Whether a sender that rests because of this must rest on; if so, `waker` is woken when that is over.
    pub(crate) fn rests(&self, waker: Option<&Waker>) -> bool {
        if self.bytes() <= MAX_UNDER_WAY / 2 {
            return false;
        }
        *self.sleeper.lock().unwrap_or_else(PoisonError::into_inner) = waker.cloned();
        // what was taken off meanwhile found nobody to wake
        self.bytes() > MAX_UNDER_WAY / 2
    }

    fn take_off(&self, bytes: usize) {
        let before = self.bytes.fetch_sub(bytes, Ordering::SeqCst);
        if before > MAX_UNDER_WAY / 2 && before.saturating_sub(bytes) <= MAX_UNDER_WAY / 2 {
            let sleeper = self.sleeper.lock().unwrap_or_else(PoisonError::into_inner).take();
            if let Some(waker) = sleeper {
                waker.wake();
            }
        }
    }
}

/// What is charged for one batch; taken off the account when it is dropped.
#[derive(Debug, Default)]
pub(crate) struct Charge {
    account: Option<Arc<UnderWay>>,
    bytes: usize,
}

impl Charge {
    /// Charges `account` with `bytes`, and with [`BATCH_COST`] at least.
    pub(crate) fn new(bytes: usize, account: &Arc<UnderWay>) -> Self {
        let bytes = bytes.max(BATCH_COST);
        account.bytes.fetch_add(bytes, Ordering::SeqCst);
        Self { account: Some(Arc::clone(account)), bytes }
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        if let Some(account) = &self.account {
            account.take_off(self.bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn a_sender_that_rests_is_woken_once_when_half_is_taken() {
        let (account, woken) = (Arc::new(UnderWay::default()), Arc::new(Woken::default()));
        let waker = Waker::from(Arc::clone(&woken));
        let mut batches: Vec<Charge> = Vec::new();
        while !account.is_too_much() {
            batches.push(Charge::new(1 << 20, &account));
        }
        assert_eq!(account.bytes(), batches.len() << 20);
        assert!(account.rests(Some(&waker)));
        while account.bytes() > MAX_UNDER_WAY / 2 {
            assert_eq!(woken.0.load(Ordering::SeqCst), 0, "at {} bytes", account.bytes());
            batches.pop();
        }
        assert_eq!(woken.0.load(Ordering::SeqCst), 1);
        assert!(!account.rests(Some(&waker)));
        drop(batches);
        assert_eq!((account.bytes(), woken.0.load(Ordering::SeqCst)), (0, 1));
    }

    #[test]
    fn small_batches_count_too() {
        let account = Arc::new(UnderWay::default());
        let mut batches = Vec::new();
        while !account.is_too_much() {
            batches.push(Charge::new(1, &account));
        }
        assert_eq!(batches.len(), 1_025);
    }

    /// Whenever the receiver is in between, either the sender sees that it need not rest or it is woken.
    #[test]
    fn no_wake_is_lost_between_two_threads() {
        let account = Arc::new(UnderWay::default());
        for round in 0..2_000_usize {
            let woken = Arc::new(Woken::default());
            let waker = Waker::from(Arc::clone(&woken));
            let charge = Charge::new(MAX_UNDER_WAY + 1, &account);
            let receiver = std::thread::spawn(move || {
                for _ in 0..round % 64 {
                    std::hint::spin_loop();
                }
                drop(charge);
            });
            let rests = account.rests(Some(&waker));
            receiver.join().unwrap();
            assert!(!rests || woken.0.load(Ordering::SeqCst) == 1, "round {round}");
        }
    }
}
