//! The thread of the engine: takes what waits, runs a turn, delivers, and sleeps until something comes or a lease is due.
//!
//! Must not know: what the operations mean, and which engine does them.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::intake::{Command, Intake, op_cost};
use super::outbox::Outbox;
use super::{TURN_BYTES, Turns};
use crate::{Arrival, EngineError, Inbox, Port};

/// How many operations a turn takes at most before it ends.
const TURN_OPS: usize = 1024;

/// What the callers and the thread share.
pub(crate) struct Shared {
    gate: Mutex<Gate>,
    /// The thread waits here for work.
    work: Condvar,
    /// Who shuts down waits here for the thread's end.
    ended: Condvar,
}

/// The thread's state as the callers see it, and their work.
pub(crate) struct Gate {
    pub(crate) intake: Intake,
    pub(crate) phase: Phase,
    /// The thread sleeps and wants to be woken.
    asleep: bool,
}

/// The life of the thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Taking work.
    Running,
    /// Answering what is queued; takes nothing new.
    Stopping,
    /// The thread is gone.
    Ended,
}

impl Shared {
    pub(crate) fn new(intake: Intake) -> Self {
        let gate = Gate { intake, phase: Phase::Running, asleep: false };
        Self { gate: Mutex::new(gate), work: Condvar::new(), ended: Condvar::new() }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Gate> {
        self.gate.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends an access that left work. A thread that is awake will see it before it sleeps, so only a sleeping one costs a
    /// system call.
    pub(crate) fn wake(&self, mut gate: MutexGuard<'_, Gate>) {
        let asleep = std::mem::take(&mut gate.asleep);
        drop(gate);
        if asleep {
            self.work.notify_one();
        }
    }

    /// Asks the thread to end, and waits for it for at most so long. Whether it has.
    pub(crate) fn stop(&self, patience: Duration) -> bool {
        let mut gate = self.lock();
        if gate.phase == Phase::Running {
            gate.phase = Phase::Stopping;
        }
        self.wake(gate);
        let gate = self.lock();
        let still = |gate: &mut Gate| gate.phase != Phase::Ended;
        let waited = self.ended.wait_timeout_while(gate, patience, still);
        let (gate, _) = waited.unwrap_or_else(PoisonError::into_inner);
        gate.phase == Phase::Ended
    }
}

/// Tells the callers that the thread is gone, however it went.
struct EndNotice(Arc<Shared>);

impl Drop for EndNotice {
    fn drop(&mut self) {
        self.0.lock().phase = Phase::Ended;
        self.0.ended.notify_all();
    }
}

/// What the thread owns.
pub(crate) struct Driver<T> {
    shared: Arc<Shared>,
    state: T,
    clock: fn() -> Instant,
    began: Instant,
    out: Outbox,
    inboxes: Vec<Arc<dyn Inbox>>,
    work: VecDeque<Command>,
    /// Bytes of the operations done in this turn.
    done_bytes: usize,
}

impl<T: Turns> Driver<T> {
    pub(crate) fn new(shared: Arc<Shared>, state: T, clock: fn() -> Instant) -> Self {
        Self {
            shared,
            state,
            clock,
            began: clock(),
            out: Outbox::default(),
            inboxes: Vec::new(),
            work: VecDeque::new(),
            done_bytes: 0,
        }
    }

    /// The thread's whole life.
    pub(crate) fn run(mut self) {
        let _notice = EndNotice(Arc::clone(&self.shared));
        while let Some(lanes) = self.take() {
            self.state.begin(self.now(), &mut self.out);
            for (port, arrivals) in lanes {
                arrivals.into_iter().for_each(|arrival| self.out.push(port, arrival));
            }
            self.apply();
            self.state.end(&mut self.out);
            // Before the answers go out: who has one in hand may use its place in the queue.
            let (answered, bytes) = (self.out.take_answers(), std::mem::take(&mut self.done_bytes));
            self.shared.lock().intake.settle(answered, bytes);
            self.deliver();
        }
    }

    fn now(&self) -> Duration {
        (self.clock)().saturating_duration_since(self.began)
    }

    /// Sleeps until there is something to do and takes it; `None` when stopped and done.
    fn take(&mut self) -> Option<Vec<(Port, Vec<Arrival>)>> {
        let shared = Arc::clone(&self.shared);
        let mut gate = shared.lock();
        loop {
            let idle = self.work.is_empty() && gate.intake.is_empty();
            if gate.phase != Phase::Running && idle && !self.state.owes_answers() {
                return None;
            }
            let now = self.now();
            let deadline = self.state.deadline();
            if !idle || self.state.has_backlog() || deadline.is_some_and(|at| at <= now) {
                break;
            }
            gate.asleep = true;
            gate = match deadline {
                None => shared.work.wait(gate).unwrap_or_else(PoisonError::into_inner),
                Some(at) => {
                    let waited = shared.work.wait_timeout(gate, at - now);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
            };
            gate.asleep = false;
        }
        if self.work.is_empty() {
            std::mem::swap(&mut self.work, &mut gate.intake.commands);
        }
        self.inboxes.extend(gate.intake.inboxes(self.inboxes.len()));
        Some(gate.intake.take_lanes())
    }

    /// Does what was taken, up to the bounds of a turn.
    fn apply(&mut self) {
        let mut ops = 0;
        while let Some(command) = self.work.front_mut() {
            match command {
                Command::Batch(port, batch) => {
                    let port = *port;
                    while ops < TURN_OPS
                        && self.done_bytes < TURN_BYTES
                        && let Some((token, op)) = batch.next()
                    {
                        ops += 1;
                        self.done_bytes += op_cost(&op);
                        self.state.apply(port, token, op, &mut self.out);
                    }
                    if batch.len() > 0 {
                        return;
                    }
                }
                Command::Refused(port, tokens) => {
                    for token in tokens.drain(..) {
                        self.out.push(*port, Arrival::Done { token, result: Err(EngineError::Busy) });
                    }
                }
                Command::Tail(port, shard, after) => self.state.tail(*port, *shard, *after),
                Command::Watch(port, id, prefix) => self.state.watch(*port, *id, prefix.clone()),
            }
            self.work.pop_front();
        }
    }

    /// One call for each port that gets something.
    fn deliver(&mut self) {
        for (port, batch) in self.out.drain() {
            let Some(inbox) = self.inboxes.get(usize::from(port.0)) else { continue };
            if catch_unwind(AssertUnwindSafe(|| inbox.deliver(batch))).is_err() {
                tracing::error!(port = port.0, "an inbox panicked; what was delivered to it is lost");
            }
        }
    }
}
