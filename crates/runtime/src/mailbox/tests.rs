use std::collections::VecDeque;
use std::future::Future;
use std::pin::pin;
use std::sync::atomic::AtomicU64;
use std::task::Wake;
use std::thread;
use std::time::Duration;

use proptest::prelude::*;

use super::*;

/// Counts its wake-ups.
#[derive(Default)]
struct Bell(AtomicU64);

impl Bell {
    fn rings(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// Polls once, with that bell.
fn poll<T: Send>(receiver: &mut Receiver<T>, bell: &Arc<Bell>, into: &mut Vec<T>) -> Poll<bool> {
    let waker = Waker::from(Arc::clone(bell));
    receiver.poll_recv(&mut Context::from_waker(&waker), into)
}

#[test]
fn a_batch_costs_one_wake_up_however_many_messages_it_holds() {
    let (sender, mut receiver) = mailbox(1000);
    let bell = Arc::new(Bell::default());
    let mut got = Vec::new();
    assert_eq!(poll(&mut receiver, &bell, &mut got), Poll::Pending);
    for n in 0..100 {
        sender.send(n).unwrap();
    }
    assert_eq!(bell.rings(), 1);
    assert_eq!(poll(&mut receiver, &bell, &mut got), Poll::Ready(true));
    assert_eq!(got, (0..100).collect::<Vec<_>>());
    // Awake, it needs no bell.
    sender.send(100).unwrap();
    assert_eq!(bell.rings(), 1);
    got.clear();
    assert_eq!(poll(&mut receiver, &bell, &mut got), Poll::Ready(true));
    assert_eq!(got, [100]);
}

#[test]
fn send_all_wakes_once_and_an_empty_one_not_at_all() {
    let (sender, mut receiver) = mailbox(1000);
    let bell = Arc::new(Bell::default());
    let mut got = Vec::new();
    assert!(poll(&mut receiver, &bell, &mut got).is_pending());
    assert_eq!(sender.send_all(std::iter::empty()), 0);
    assert_eq!(bell.rings(), 0);
    assert_eq!(sender.send_all(0..50), 0);
    assert_eq!(bell.rings(), 1);
}

#[test]
fn only_the_last_waker_is_woken() {
    let (sender, mut receiver) = mailbox(1);
    let (first, second) = (Arc::new(Bell::default()), Arc::new(Bell::default()));
    let mut got = Vec::new();
    assert!(poll(&mut receiver, &first, &mut got).is_pending());
    assert!(poll(&mut receiver, &second, &mut got).is_pending());
    sender.send(()).unwrap();
    assert_eq!((first.rings(), second.rings()), (0, 1));
}

#[test]
fn at_the_bound_the_message_comes_back() {
    let (sender, mut receiver) = mailbox(2);
    sender.send("a").unwrap();
    sender.send("b").unwrap();
    assert_eq!(sender.send("c"), Err(Full("c")));
    assert!(!sender.is_closed());
    sender.force("answer").unwrap();
    assert_eq!(sender.len(), 3);
    let mut got = Vec::new();
    assert!(receiver.try_recv(&mut got));
    assert_eq!(got, ["a", "b", "answer"]);
    assert!(sender.is_empty());
    sender.send("c").unwrap();
}

#[test]
fn send_all_says_how_many_found_no_room() {
    let (sender, mut receiver) = mailbox(4);
    sender.send(0).unwrap();
    assert_eq!(sender.send_all(1..10), 6);
    let mut got = Vec::new();
    assert!(receiver.try_recv(&mut got));
    assert_eq!(got, [0, 1, 2, 3]);
    drop(receiver);
    assert_eq!(sender.send_all(0..3), 3);
}

#[test]
fn without_receiver_every_message_comes_back_and_the_waiting_ones_are_dropped() {
    let (sender, receiver) = mailbox(10);
    let message = Arc::new(());
    sender.send(Arc::clone(&message)).unwrap();
    drop(receiver);
    assert_eq!(Arc::strong_count(&message), 1);
    assert!(sender.is_closed());
    assert!(sender.send(Arc::clone(&message)).is_err());
    assert!(sender.force(Arc::clone(&message)).is_err());
    assert_eq!(Arc::strong_count(&message), 1);
}

#[test]
fn the_end_comes_after_the_last_message() {
    let (sender, mut receiver) = mailbox(10);
    let bell = Arc::new(Bell::default());
    let other = sender.clone();
    let mut got = Vec::new();
    assert!(poll(&mut receiver, &bell, &mut got).is_pending());
    drop(sender);
    assert_eq!(bell.rings(), 0);
    other.send(7).unwrap();
    drop(other);
    assert_eq!(poll(&mut receiver, &bell, &mut got), Poll::Ready(true));
    assert_eq!(got, [7]);
    assert_eq!(poll(&mut receiver, &bell, &mut got), Poll::Ready(false));
}

#[test]
fn the_last_sender_wakes_a_sleeper() {
    let (sender, mut receiver) = mailbox::<()>(10);
    let bell = Arc::new(Bell::default());
    assert!(poll(&mut receiver, &bell, &mut Vec::new()).is_pending());
    drop(sender);
    assert_eq!(bell.rings(), 1);
}

#[test]
fn a_message_may_hold_a_sender_of_its_own_mailbox() {
    struct Request(#[allow(dead_code)] Sender<Self>);
    let (sender, receiver) = mailbox(10);
    sender.send(Request(sender.clone())).unwrap();
    drop(sender);
    drop(receiver); // drops the request, and with it the last sender, outside of the lock
}

#[test]
fn a_cancelled_recv_loses_nothing() {
    let (sender, mut receiver) = mailbox(10);
    let mut got = Vec::new();
    {
        let mut waiting = pin!(receiver.recv(&mut got));
        let waker = Waker::noop();
        assert!(waiting.as_mut().poll(&mut Context::from_waker(waker)).is_pending());
        sender.send(1).unwrap();
    }
    assert!(receiver.try_recv(&mut got));
    assert_eq!(got, [1]);
}

#[test]
fn the_two_vectors_swap_and_nothing_is_allocated_in_the_steady_state() {
    let (sender, mut receiver) = mailbox(64);
    let mut got = Vec::with_capacity(64);
    sender.send_all(0..64);
    assert!(receiver.try_recv(&mut got));
    let mut addresses = Vec::new();
    for _ in 0..10 {
        got.clear();
        sender.send_all(0..64);
        assert!(receiver.try_recv(&mut got));
        addresses.push(got.as_ptr());
    }
    addresses.sort_unstable();
    addresses.dedup();
    assert_eq!(addresses.len(), 2);
}

#[test]
fn a_flooded_receiver_lets_other_tasks_of_its_thread_run() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let (sender, mut receiver) = mailbox(10);
    runtime.block_on(async move {
        let other = tokio::spawn(async {});
        let mut got = Vec::new();
        let mut rounds = 0;
        // Always something there: without the budget this loop would never give way and never end.
        while !other.is_finished() {
            sender.send(()).unwrap();
            assert!(receiver.recv(&mut got).await);
            got.clear();
            rounds += 1;
            assert!(rounds < 100_000, "the other task starves");
        }
    });
}

/// Many senders against one receiver on real threads: everything arrives once, each sender's in its order, and the
/// bound holds.
#[test]
fn many_threads_lose_and_reorder_nothing() {
    const SENDERS: u64 = 8;
    const EACH: u64 = 20_000;
    const CAPACITY: usize = 256;
    let (sender, mut receiver) = mailbox(CAPACITY);
    let threads: Vec<_> = (0..SENDERS)
        .map(|who| {
            let sender = sender.clone();
            thread::spawn(move || {
                for n in 0..EACH {
                    let mut message = (who, n);
                    while let Err(Full(back)) = sender.send(message) {
                        message = back;
                        thread::yield_now();
                    }
                }
            })
        })
        .collect();
    drop(sender);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let all = async {
        let mut next = [0; SENDERS as usize];
        let mut batch = Vec::new();
        while receiver.recv(&mut batch).await {
            assert!(batch.len() <= CAPACITY);
            for (who, n) in batch.drain(..) {
                assert_eq!(n, next[who as usize], "sender {who}");
                next[who as usize] += 1;
            }
        }
        next
    };
    let next = runtime.block_on(async { tokio::time::timeout(Duration::from_secs(60), all).await });
    assert_eq!(next.expect("a wake-up was lost"), [EACH; SENDERS as usize]);
    for thread in threads {
        thread.join().unwrap();
    }
}

#[derive(Clone, Debug)]
enum Step {
    Send(u8),
    SendAll(Vec<u8>),
    Force(u8),
    Receive,
    Poll,
    CloneSender,
    DropSender,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => any::<u8>().prop_map(Step::Send),
        2 => prop::collection::vec(any::<u8>(), 0..6).prop_map(Step::SendAll),
        1 => any::<u8>().prop_map(Step::Force),
        2 => Just(Step::Receive),
        3 => Just(Step::Poll),
        1 => Just(Step::CloneSender),
        1 => Just(Step::DropSender),
    ]
}

proptest! {
    /// Against a plain queue, a flag for "asleep" and a count of senders.
    #[test]
    fn it_is_a_bounded_queue_that_wakes_a_sleeper_once(capacity in 0usize..8, steps in prop::collection::vec(step(), 0..80)) {
        let (first, mut receiver) = mailbox(capacity);
        let mut senders = vec![first];
        let bell = Arc::new(Bell::default());
        let mut queue = VecDeque::new();
        let (mut asleep, mut rings) = (false, 0);
        let mut arrived = |queue: &VecDeque<u8>, before: usize, asleep: &mut bool| {
            if queue.len() > before && *asleep {
                *asleep = false;
                rings += 1;
            }
            rings
        };
        for step in steps {
            let before = queue.len();
            match (step, senders.last()) {
                (Step::Send(n), Some(sender)) => {
                    let fits = queue.len() < capacity;
                    prop_assert_eq!(sender.send(n), if fits { Ok(()) } else { Err(Full(n)) });
                    if fits {
                        queue.push_back(n);
                    }
                }
                (Step::SendAll(all), Some(sender)) => {
                    let room = capacity.saturating_sub(queue.len());
                    prop_assert_eq!(sender.send_all(all.clone()), all.len().saturating_sub(room));
                    queue.extend(all.into_iter().take(room));
                }
                (Step::Force(n), Some(sender)) => {
                    prop_assert_eq!(sender.force(n), Ok(()));
                    queue.push_back(n);
                }
                (Step::CloneSender, Some(sender)) => {
                    let sender = sender.clone();
                    senders.push(sender);
                }
                (Step::DropSender, Some(_)) => {
                    senders.pop();
                    if senders.is_empty() && asleep {
                        // The end is news, too.
                        asleep = false;
                        prop_assert_eq!(bell.rings(), arrived(&queue, before, &mut asleep) + 1);
                        return Ok(());
                    }
                }
                (Step::Receive, _) => {
                    let mut got = vec![0];
                    prop_assert_eq!(receiver.try_recv(&mut got), !queue.is_empty());
                    prop_assert_eq!(&got[1..], queue.make_contiguous());
                    queue.clear();
                }
                (Step::Poll, _) => {
                    let mut got = Vec::new();
                    match poll(&mut receiver, &bell, &mut got) {
                        Poll::Ready(true) => prop_assert!(!queue.is_empty()),
                        Poll::Ready(false) => prop_assert!(queue.is_empty() && senders.is_empty()),
                        Poll::Pending => {
                            prop_assert!(queue.is_empty() && !senders.is_empty());
                            asleep = true;
                        }
                    }
                    prop_assert_eq!(&got[..], queue.make_contiguous());
                    queue.clear();
                }
                (_, None) => {}
            }
            prop_assert_eq!(bell.rings(), arrived(&queue, before, &mut asleep));
        }
    }
}
