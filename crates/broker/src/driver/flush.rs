//! The end of a turn: what waits for clients is written, and what gathered for others is handed over.
//!
//! Where many clients wait, they are written to in a few slices, and between two of them what has come is read: so a message waits for
//! half of a round and not for two, and more messages go with each write. It is the writes that take the time.
//!
//! Must not know: packets, what a connection is about.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use runtime::workers::after_the_others;

use super::{Local, READ_BUFFER, Socket, now};
use crate::worker::Worker;

/// Connections that are written to before what has come is read, at least, and in how many slices all are that wait.
const SLICE: usize = 32;
const SLICES: usize = 4;
/// What is read before all that wait are written to, as a part of what may wait for one client.
const TAKEN_PART: usize = 16;

/// The task that ends turns.
pub(super) struct Flush {
    local: Rc<Local>,
    /// Slots that wait for their slice, in the order in which they got something to write.
    waiting: VecDeque<u32>,
    /// [`Local::taken`] when all that waited were written to.
    taken: u64,
}

impl Flush {
    pub(super) fn new(local: Rc<Local>) -> Self {
        Self { local, waiting: VecDeque::new(), taken: 0 }
    }

    /// How many slots are written to now. No client has got more than what was taken, and that must not fill the buffer of one that
    /// keeps up: from a bound on, which is far from that, all are.
    fn slice(&mut self, worker: &Worker) -> usize {
        let (all, taken) = (self.waiting.len(), self.local.taken(worker));
        let slice = SLICE.max(all.div_ceil(SLICES));
        let most = (worker.config.max_outbound_bytes / TAKEN_PART).min(READ_BUFFER);
        if slice < all && taken.wrapping_sub(self.taken) < most as u64 {
            return slice;
        }
        self.taken = taken;
        all
    }
}

impl Future for Flush {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let local = Rc::clone(&self.local);
        let mut worker = local.worker.borrow_mut();
        if worker.flush_waker.as_ref().is_none_or(|w| !w.will_wake(cx.waker())) {
            worker.flush_waker = Some(cx.waker().clone());
        }
        worker.now = now(&local.clock);
        let mut dirty = worker.begin_flush();
        self.waiting.extend(dirty.drain(..));
        worker.end_flush(dirty);
        let mut sockets = local.sockets.borrow_mut();
        let slice = self.slice(&worker);
        for slot in self.waiting.drain(..slice) {
            if let Some(Some(socket)) = sockets.get_mut(slot as usize) {
                flush(&mut worker, socket, slot);
            }
        }
        drop(sockets);
        worker.end_turn();
        if worker.needs_turn() {
            local.hurry.notify_one();
        }
        if !self.waiting.is_empty() {
            after_the_others(cx.waker());
        }
        Poll::Pending
    }
}

/// Writes what waits for a connection, unless its socket takes nothing now.
pub(super) fn flush(worker: &mut Worker, socket: &mut Socket, slot: u32) {
    worker.clean(slot);
    if !socket.blocked && !socket.broken {
        if socket.frames.is_some() {
            if !socket.try_write_frames(worker, slot) {
                worker.wake_slot(slot);
                return;
            }
        } else if !socket.try_write(worker, slot) {
            worker.wake_slot(slot);
            return;
        }
    }
    if worker.is_closing(slot) {
        worker.wake_slot(slot);
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::{TcpListener, TcpStream};

    use super::super::tests::{among_the_tasks, connected};
    use super::*;
    use crate::config::BrokerConfig;
    use crate::connection::ConnId;
    use crate::sim::world::World;

    const CLIENTS: usize = 100;

    /// A worker with clients, and the task that ends its turns, which runs when it is told to.
    struct Scene {
        local: Rc<Local>,
        flush: Flush,
        clients: Vec<(ConnId, TcpStream)>,
    }

    impl Scene {
        async fn new() -> Self {
            let (worker, _, clock) = World::new(1, 1, BrokerConfig::default()).take_worker();
            let local = Local::new(worker, clock);
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let mut clients = Vec::new();
            for _ in 0..CLIENTS {
                let (id, client) = connected(&local, &listener).await;
                client.writable().await.unwrap();
                clients.push((id, client));
            }
            let flush = Flush::new(Rc::clone(&local));
            Self { local, flush, clients }
        }

        fn give(&self, byte: u8) {
            self.local.with(|worker| {
                self.clients.iter().for_each(|(id, _)| worker.write(*id, |out| out.push(byte)));
            });
        }

        async fn end_turn(&mut self) {
            std::future::poll_fn(|cx| {
                assert!(Pin::new(&mut self.flush).poll(cx).is_pending());
                Poll::Ready(())
            })
            .await;
        }

        /// How many clients were sent so much, by what they were sent.
        fn sent(&self) -> (usize, usize, usize) {
            let worker = self.local.worker.borrow();
            let sent = |bytes| {
                self.clients
                    .iter()
                    .filter(|(id, _)| worker.conn(*id).is_some_and(|c| c.send_oct == bytes))
                    .count()
            };
            (sent(0), sent(1), sent(2))
        }
    }

    async fn written_in_slices() {
        let mut scene = Scene::new().await;
        scene.give(b'a');
        scene.end_turn().await;
        assert_eq!(scene.sent(), (CLIENTS - SLICE, SLICE, 0));
        // what comes now goes along with what waits, and is sent at once to those who wait for nothing else
        scene.give(b'b');
        for _ in 0..SLICES - 1 {
            scene.end_turn().await;
        }
        let (none, one, both) = scene.sent();
        assert_eq!((none, one + both), (0, CLIENTS), "nobody waits longer than a round");
        assert!(both >= CLIENTS - SLICE, "{both} got both with one write");
        scene.end_turn().await;
        assert_eq!(scene.sent(), (0, 0, CLIENTS));
        for (_, client) in &scene.clients {
            client.readable().await.unwrap();
            let mut got = [0; 3];
            let mut len = 0;
            while len < 2 {
                match client.try_read(&mut got[len..]) {
                    Ok(count) => len += count,
                    Err(_) => tokio::task::yield_now().await,
                }
            }
            assert_eq!((len, &got[..2]), (2, &b"ab"[..]), "in order, once");
        }
    }

    #[test]
    fn what_comes_while_many_are_written_to_goes_along() {
        among_the_tasks(written_in_slices());
    }

    async fn bounded_meanwhile() {
        let mut scene = Scene::new().await;
        scene.give(b'a');
        scene.end_turn().await;
        assert_eq!(scene.sent(), (CLIENTS - SLICE, SLICE, 0));
        let most = BrokerConfig::default().max_outbound_bytes / TAKEN_PART;
        scene.local.with(|worker| worker.metrics.received_bytes.add(most as u64 - 1));
        scene.end_turn().await;
        assert_eq!(scene.sent(), (CLIENTS - 2 * SLICE, 2 * SLICE, 0));
        scene.local.mailed.set(1);
        scene.end_turn().await;
        assert_eq!(scene.sent(), (0, CLIENTS, 0), "from others or from another worker, too much is too much");
    }

    /// Otherwise what is read between two slices would fill the buffer of a client that keeps up, and it would lose QoS 0.
    #[test]
    fn all_are_written_to_once_much_was_read_meanwhile() {
        among_the_tasks(bounded_meanwhile());
    }
}
