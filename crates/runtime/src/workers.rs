//! One thread per core, each with its own single-threaded runtime.
//!
//! A connection lives on the worker that accepted it and its state is touched by that thread only, so futures
//! here need not be `Send` and the hot path has no locks. Control work (start, stop, reload, questions from the
//! API) comes in through [`Workers::spawn`] and [`Workers::run`]; messages between workers travel through a
//! [`mailbox`], not through here.

use std::cell::Cell;
use std::fmt;
use std::future::Future;
use std::io;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Waker};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::sync::oneshot;

use crate::clock::Clock;
use crate::mailbox;

/// How long [`Workers::stop`] waits for all threads together.
const STOP_WAIT: Duration = Duration::from_secs(5);
/// How long a stopping worker waits for its blocking tasks (name lookups).
const BLOCKING_WAIT: Duration = Duration::from_millis(500);
/// A worker's thread holds deep futures of many roles; the default of 2 MiB is kept on purpose and named here.
const STACK_BYTES: usize = 2 * 1024 * 1024;

/// Wakes once everything that is ready had its turn and the kernel was asked what else is; to be called on a worker. A task that
/// wakes itself at once is polled up to 60 times before the runtime looks at its sockets: a few floods, and whoever sends
/// one message waits for 60 of their turns.
pub fn after_the_others(waker: &Waker) {
    // at its first poll it hands the waker to the runtime
    let turn = std::pin::pin!(tokio::task::yield_now());
    let _ = turn.poll(&mut Context::from_waker(waker));
}

thread_local! {
    static CURRENT: Cell<Option<WorkerId>> = const { Cell::new(None) };
}

/// The number of a worker, from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WorkerId(pub u16);

impl WorkerId {
    /// The worker whose thread this is; nothing on other threads.
    pub fn current() -> Option<Self> {
        CURRENT.get()
    }

    /// The number as an index.
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

impl fmt::Display for WorkerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

type Job = Box<dyn FnOnce() + Send>;

/// The workers of the process. Cheap to clone; the threads end with [`Workers::stop`] or with the last clone.
#[derive(Clone)]
pub struct Workers(Arc<Inner>);

struct Inner {
    workers: Vec<Worker>,
    clock: Clock,
}

struct Worker {
    jobs: mailbox::Sender<Job>,
    ending: Mutex<Option<Ending>>,
}

/// What is needed to end a worker and to see it end.
struct Ending {
    stop: oneshot::Sender<()>,
    ended: Receiver<()>,
    thread: JoinHandle<()>,
}

impl fmt::Debug for Workers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Workers").field("len", &self.len()).finish_non_exhaustive()
    }
}

impl Workers {
    /// Starts `count` workers (at least one) with threads named `worker-0`, `worker-1` and so on.
    ///
    /// # Errors
    /// When a thread or its runtime can't be made (descriptors, memory); those already started are ended.
    pub fn start(count: usize, clock: Clock) -> io::Result<Self> {
        let count = u16::try_from(count.max(1))
            .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "at most 65535 workers"))?;
        let mut workers = Vec::with_capacity(usize::from(count));
        for number in 0..count {
            match Worker::start(WorkerId(number)) {
                Ok(worker) => workers.push(worker),
                Err(error) => {
                    drop(Self(Arc::new(Inner { workers, clock })));
                    return Err(error);
                }
            }
        }
        Ok(Self(Arc::new(Inner { workers, clock })))
    }

    /// How many workers there are; never 0.
    #[allow(clippy::len_without_is_empty)] // there is always one
    pub fn len(&self) -> usize {
        self.0.workers.len()
    }

    /// All workers' numbers in order.
    pub fn ids(&self) -> impl Iterator<Item = WorkerId> + use<> {
        (0..u16::try_from(self.len()).unwrap_or(u16::MAX)).map(WorkerId)
    }

    /// The clock the process runs on.
    pub fn clock(&self) -> &Clock {
        &self.0.clock
    }

    /// Builds a future on that worker's thread and runs it there; neither its state nor its awaits need `Send`.
    /// A panic in it ends this future only. After [`Workers::stop`], or with a number that no worker has, the
    /// closure is dropped without a call.
    ///
    /// The queue of jobs has no bound of its own: jobs are control work, one for each start, reload or request
    /// of an API that has its own limits. Nothing that a device sends may call this.
    pub fn spawn<F>(&self, worker: WorkerId, make: impl FnOnce() -> F + Send + 'static)
    where
        F: Future<Output = ()> + 'static,
    {
        let job: Job = Box::new(move || {
            // The closure runs inside the task, so that its panic is the task's and not the worker's.
            tokio::task::spawn_local(async move { make().await });
        });
        if let Some(worker) = self.0.workers.get(worker.index()) {
            let _ = worker.jobs.force(job); // refused only when the worker has ended; then dropping is the rule
        }
    }

    /// As [`Workers::spawn`], with the future's result; it can be awaited in any runtime. The receiver fails
    /// when the worker ended or the future panicked.
    pub fn run<T, F>(
        &self,
        worker: WorkerId,
        make: impl FnOnce() -> F + Send + 'static,
    ) -> oneshot::Receiver<T>
    where
        T: Send + 'static,
        F: Future<Output = T> + 'static,
    {
        let (answer, receiver) = oneshot::channel();
        self.spawn(worker, move || async move {
            let _ = answer.send(make().await); // the asker may have gone; that is its right
        });
        receiver
    }

    /// Ends every worker: their futures are dropped where they stand, their threads joined. Waits 5 s at most in
    /// all and then leaves the rest to the end of the process; `true` when all ended. Further calls do nothing.
    pub fn stop(&self) -> bool {
        self.stop_within(STOP_WAIT)
    }

    /// [`Workers::stop`] with another limit.
    pub fn stop_within(&self, wait: Duration) -> bool {
        stop_all(&self.0.workers, &self.0.clock, wait)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        stop_all(&self.workers, &self.clock, STOP_WAIT);
    }
}

fn stop_all(workers: &[Worker], clock: &Clock, wait: Duration) -> bool {
    let take = |worker: &Worker| worker.ending.lock().unwrap_or_else(PoisonError::into_inner).take();
    let mut waiting = Vec::with_capacity(workers.len());
    for ending in workers.iter().filter_map(take) {
        let _ = ending.stop.send(()); // already ended by itself is as good
        waiting.push((ending.ended, ending.thread));
    }
    let deadline = clock.now() + wait;
    let mut all = true;
    for (ended, thread) in waiting {
        // A worker may drop the last handle itself: it can't wait for its own end.
        if thread.thread().id() == thread::current().id() {
            continue;
        }
        let left = deadline.saturating_duration_since(clock.now());
        // A closed channel means that the thread is past its work, by return or by panic.
        if ended.recv_timeout(left) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
            tracing::warn!(
                thread = thread.thread().name(),
                "a worker did not end in time and is left behind"
            );
            all = false;
        } else {
            all &= thread.join().is_ok();
        }
    }
    all
}

impl Worker {
    fn start(id: WorkerId) -> io::Result<Self> {
        let (jobs, inbox) = mailbox::mailbox(usize::MAX);
        let (stop, stopped) = oneshot::channel();
        let (end, ended) = sync_channel(0);
        let (built, outcome) = sync_channel(1);
        let thread = thread::Builder::new()
            .name(format!("worker-{id}"))
            .stack_size(STACK_BYTES)
            .spawn(move || work(id, inbox, stopped, &built, end))?;
        match outcome.recv() {
            Ok(Ok(())) => Ok(Self { jobs, ending: Mutex::new(Some(Ending { stop, ended, thread })) }),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(io::Error::other("a worker ended before it started")),
        }
    }
}

/// The whole life of a worker's thread. `_end` is dropped last and tells the waiting side.
fn work(
    id: WorkerId,
    mut inbox: mailbox::Receiver<Job>,
    mut stopped: oneshot::Receiver<()>,
    built: &SyncSender<io::Result<()>>,
    _end: SyncSender<()>,
) {
    CURRENT.set(Some(id));
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            let _ = built.send(Err(error));
            return;
        }
    };
    let _ = built.send(Ok(()));
    let tasks = tokio::task::LocalSet::new();
    tasks.block_on(&runtime, async move {
        let mut batch: Vec<Job> = Vec::new();
        loop {
            tokio::select! {
                biased;
                _ = &mut stopped => break,
                more = inbox.recv(&mut batch) => {
                    for job in batch.drain(..) {
                        job();
                    }
                    if !more {
                        break;
                    }
                }
            }
        }
    });
    // Tasks first: their destructors may still need the runtime's drivers.
    {
        let _inside = runtime.enter();
        drop(tasks);
    }
    runtime.shutdown_timeout(BLOCKING_WAIT);
}

#[cfg(test)]
mod tests;
