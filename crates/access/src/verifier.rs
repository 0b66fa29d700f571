//! The threads that compare passwords: a bounded queue before them, a short memory beside them.
//!
//! A comparison takes milliseconds up to a second by design; on a worker it would hold up thousands of devices. Whoever
//! asks goes on with its work and is called back, on one of these threads, in no particular order.
//! Bound: [`Limits::waiting`] requests; beyond it [`Verifier::submit`] says [`Busy`] at once. What was cancelled meanwhile is
//! passed over, so a crowd that has given up costs nothing more.
//! Must not know: MQTT, sockets, the broker.

use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use runtime::clock::Clock;

use crate::recent::Recent;
use crate::users::Users;

/// Verified users that are remembered: 100,000 devices in about 10 MB.
const REMEMBERED: usize = 100_000;

/// What an operator may set; a reload changes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Threads that compare. None: nothing is compared until there is one.
    pub threads: usize,
    /// Requests that may wait.
    pub waiting: usize,
    /// How long a user who was verified need not be compared again; zero: always compare.
    pub remember: Duration,
}

/// A password to be compared.
pub struct Request {
    /// The file as it was when the client came.
    pub users: Arc<Users>,
    /// The user name.
    pub name: Box<str>,
    /// The password.
    pub password: Box<[u8]>,
    /// Set by whoever asked when it has no use for an answer any more.
    pub cancelled: Arc<AtomicBool>,
    /// Called with the answer, on a thread of the verifier; not called when it was cancelled before.
    pub answer: Box<dyn FnOnce(bool) + Send>,
}

/// Shows no password.
impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request").field("name", &self.name).finish_non_exhaustive()
    }
}

/// So many wait already; the request was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too many clients wait for their passwords to be compared")]
pub struct Busy;

/// See the module. When it is dropped its threads end; what waits then is not answered.
#[derive(Debug)]
pub struct Verifier(Arc<Inner>);

struct Inner {
    clock: Clock,
    queue: Mutex<Queue>,
    arrived: Condvar,
    recent: Mutex<Recent>,
    compared: AtomicU64,
    remembered: AtomicU64,
}

struct Queue {
    requests: VecDeque<Request>,
    limits: Limits,
    /// Threads that run; those above the limit end when they look next.
    running: usize,
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inner").finish_non_exhaustive()
    }
}

impl Inner {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn recent(&self) -> MutexGuard<'_, Recent> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn compare(&self, request: Request) {
        if request.cancelled.load(Ordering::Relaxed) {
            return;
        }
        let Request { users, name, password, answer, .. } = request;
        self.compared.fetch_add(1, Ordering::Relaxed);
        let right = users.verify(&name, &password);
        if right && let Some(stored) = users.stored(&name) {
            let lasts = self.queue().limits.remember;
            let mut recent = self.recent();
            let proof = recent.proof(&name, stored, &password);
            recent.learn(proof, self.clock.now(), lasts);
        }
        answer(right);
    }

    fn work(&self) {
        loop {
            let mut queue = self.queue();
            let request = loop {
                if queue.running > queue.limits.threads {
                    queue.running -= 1;
                    return;
                }
                match queue.requests.pop_front() {
                    Some(request) => break request,
                    None => queue = self.arrived.wait(queue).unwrap_or_else(PoisonError::into_inner),
                }
            };
            drop(queue);
            self.compare(request);
        }
    }
}

impl Verifier {
    /// A verifier with these limits.
    ///
    /// # Errors
    /// The system gives no random bytes, or no thread.
    pub fn start(clock: Clock, limits: Limits) -> std::io::Result<Self> {
        let mut key = [0; 32];
        getrandom::fill(&mut key).map_err(|error| std::io::Error::other(error.to_string()))?;
        let empty = Limits { threads: 0, ..limits };
        let verifier = Self(Arc::new(Inner {
            clock,
            queue: Mutex::new(Queue { requests: VecDeque::new(), limits: empty, running: 0 }),
            arrived: Condvar::new(),
            recent: Mutex::new(Recent::new(REMEMBERED, key)),
            compared: AtomicU64::new(0),
            remembered: AtomicU64::new(0),
        }));
        verifier.set(limits)?;
        Ok(verifier)
    }

    /// Changes the limits. Threads too many end after what they compare now.
    ///
    /// # Errors
    /// The system gives no thread; as many as it gave run.
    pub fn set(&self, limits: Limits) -> std::io::Result<()> {
        let missing = {
            let mut queue = self.0.queue();
            queue.limits = limits;
            limits.threads.saturating_sub(queue.running)
        };
        self.0.arrived.notify_all();
        for _ in 0..missing {
            let inner = Arc::clone(&self.0);
            self.0.queue().running += 1;
            let started = std::thread::Builder::new().name("access".to_owned()).spawn(move || inner.work());
            if let Err(error) = started {
                self.0.queue().running -= 1;
                return Err(error);
            }
        }
        Ok(())
    }

    /// Whether this very password of this user was verified a short time ago. Takes microseconds.
    pub fn remembers(&self, users: &Users, name: &str, password: &[u8]) -> bool {
        // an unknown name goes the same way: time does not tell who exists
        let Some(stored) = users.stored_or_decoy(name) else { return false };
        let mut recent = self.0.recent();
        let proof = recent.proof(name, stored, password);
        let known = recent.knows(&proof, self.0.clock.now());
        drop(recent);
        self.0.remembered.fetch_add(u64::from(known), Ordering::Relaxed);
        known
    }

    /// Takes a request.
    ///
    /// # Errors
    /// So many wait that it was not taken.
    pub fn submit(&self, request: Request) -> Result<(), Busy> {
        let mut queue = self.0.queue();
        if queue.requests.len() >= queue.limits.waiting {
            return Err(Busy);
        }
        queue.requests.push_back(request);
        drop(queue);
        self.0.arrived.notify_one();
        Ok(())
    }

    /// Compares the request that waits longest, on this thread; for tests without threads. `false`: none waits.
    pub fn compare_one(&self) -> bool {
        let request = self.0.queue().requests.pop_front();
        request.map(|request| self.0.compare(request)).is_some()
    }

    /// Requests that wait.
    pub fn waiting(&self) -> usize {
        self.0.queue().requests.len()
    }

    /// Passwords that were compared since the start.
    pub fn compared(&self) -> u64 {
        self.0.compared.load(Ordering::Relaxed)
    }

    /// Passwords that needed no comparison since the start, because they were verified a short time before.
    pub fn remembered(&self) -> u64 {
        self.0.remembered.load(Ordering::Relaxed)
    }
}

impl Drop for Verifier {
    fn drop(&mut self) {
        let mut queue = self.0.queue();
        queue.limits.threads = 0;
        queue.requests.clear();
        drop(queue);
        self.0.arrived.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::mpsc::{Receiver, sync_channel};

    use super::*;
    use crate::hash::{Algorithm, PasswordHash};

    const LIMITS: Limits = Limits { threads: 0, waiting: 3, remember: Duration::from_secs(60) };
    const DEADLINE: Duration = Duration::from_secs(20);

    fn users(password: &str) -> Arc<Users> {
        let hash = PasswordHash::new(Algorithm::Pbkdf2 { iterations: 1 }, password.as_bytes()).unwrap();
        Arc::new(Users::parse(Path::new("u"), &format!("alice:{hash}\n")).unwrap())
    }

    fn request(users: &Arc<Users>, name: &str, password: &str) -> (Request, Arc<AtomicBool>, Receiver<bool>) {
        let (sender, receiver) = sync_channel(1);
        let cancelled = Arc::new(AtomicBool::new(false));
        let request = Request {
            users: Arc::clone(users),
            name: name.into(),
            password: password.as_bytes().into(),
            cancelled: Arc::clone(&cancelled),
            answer: Box::new(move |right| sender.send(right).unwrap()),
        };
        (request, cancelled, receiver)
    }

    #[test]
    fn threads_answer() {
        let users = users("secret");
        let verifier = Verifier::start(Clock::system(), Limits { threads: 2, ..LIMITS }).unwrap();
        for (password, right) in [("secret", true), ("wrong", false)] {
            let (request, _, answer) = request(&users, "alice", password);
            verifier.submit(request).unwrap();
            assert_eq!(answer.recv_timeout(DEADLINE), Ok(right));
        }
        verifier.set(LIMITS).unwrap();
        drop(verifier);
    }

    #[test]
    fn beyond_the_bound_nobody_waits() {
        let users = users("secret");
        let verifier = Verifier::start(Clock::system(), LIMITS).unwrap();
        for _ in 0..3 {
            assert_eq!(verifier.submit(request(&users, "alice", "secret").0), Ok(()));
        }
        assert_eq!(verifier.submit(request(&users, "alice", "secret").0), Err(Busy));
        assert_eq!(verifier.waiting(), 3);
    }

    #[test]
    fn who_has_given_up_is_passed_over() {
        let users = users("secret");
        let verifier = Verifier::start(Clock::system(), LIMITS).unwrap();
        let (request, cancelled, answer) = request(&users, "alice", "secret");
        verifier.submit(request).unwrap();
        cancelled.store(true, Ordering::Relaxed);
        assert!(verifier.compare_one() && !verifier.compare_one());
        assert_eq!((answer.recv().ok(), verifier.compared()), (None, 0));
    }

    #[test]
    fn what_was_right_is_remembered_for_a_time_and_what_was_wrong_never() {
        let (clock, hand) = Clock::manual();
        let users = users("secret");
        let verifier = Verifier::start(clock, LIMITS).unwrap();
        for password in ["secret", "wrong"] {
            let (request, _, _answer) = request(&users, "alice", password);
            verifier.submit(request).unwrap();
            assert!(verifier.compare_one());
        }
        assert!(verifier.remembers(&users, "alice", b"secret"));
        for (name, password) in [("alice", "wrong"), ("alice", ""), ("bob", "secret")] {
            assert!(!verifier.remembers(&users, name, password.as_bytes()));
        }
        let changed = self::users("secret");
        assert!(!verifier.remembers(&changed, "alice", b"secret"), "the file has another hash now");
        hand.advance(Duration::from_secs(60));
        assert!(!verifier.remembers(&users, "alice", b"secret"));
        assert_eq!((verifier.compared(), verifier.remembered()), (2, 1));
    }
}
