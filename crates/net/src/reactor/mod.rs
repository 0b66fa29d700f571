//! Readiness of many sockets: one epoll instance for each worker, beside the runtime's own.
//!
//! The runtime keeps 256 bytes for each socket, asks epoll to forget it before it is closed, and wakes a task for
//! each event. A gateway has two sockets for each device and many that live for a moment. Here a socket costs a place of
//! 32 bytes and one epoll_ctl(2) in its life: a descriptor that is closed leaves epoll by itself. Events come
//! edge-triggered and in batches, and go to a task that waits ([`Stream::readable`]), or, without any task, to the
//! owner of the reactor by a number of its own ([`Stream::deliver_to`], [`Reactor::poll_turn`]).
//!
//! The runtime sees one descriptor, epoll's own: somebody must poll [`Reactor::poll_turn`], or nothing moves. One task
//! may wait for a socket at a time. All of it stays on the thread that made it.
//!
//! Must not know: what bytes mean, who its users are.

use std::cell::RefCell;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use tokio::io::unix::AsyncFd;

use readiness::{Readiness, Told};
use slots::{Listener, Slots, Token};

mod outer;
mod readiness;
mod slots;
mod stream;

pub use stream::{Acceptor, Stream};

/// Events that one wait brings at most.
const BATCH: usize = 256;
/// Events after which the next ones are expected at once; not more than [`BATCH`].
const CROWD: usize = 16;
const AT_ONCE: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };

/// The sockets of one worker. Cheap to clone; its sockets keep it alive.
#[derive(Clone)]
pub struct Reactor(Rc<Inner>);

struct Inner {
    epoll: AsyncFd<OwnedFd>,
    slots: RefCell<Slots>,
    events: RefCell<Vec<epoll::Event>>,
}

impl fmt::Debug for Reactor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reactor").field("sockets", &self.sockets()).finish_non_exhaustive()
    }
}

impl Reactor {
    /// An empty one. To be called inside of the runtime that will poll it.
    ///
    /// # Errors
    /// When the process has no descriptor left.
    pub fn new() -> io::Result<Self> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        Ok(Self(Rc::new(Inner {
            epoll: outer::register(epoll)?,
            slots: RefCell::default(),
            events: RefCell::new(Vec::with_capacity(BATCH)),
        })))
    }

    /// How many sockets it has.
    pub fn sockets(&self) -> usize {
        self.0.slots.borrow().len()
    }

    /// Takes a batch of events: wakes the tasks that wait for them, and adds the keys of all other sockets to `due`, in
    /// order, one for each event. `Pending`: there was none, and the task that polls is woken by the next. After
    /// `Ready` there may be more: poll again, within your share of the turn, or wake yourself.
    ///
    /// # Errors
    /// When epoll itself fails: nothing can be waited for any more.
    pub fn poll_turn(&self, cx: &mut Context<'_>, due: &mut Vec<u32>) -> Poll<io::Result<()>> {
        let mut guard = ready!(self.0.epoll.poll_read_ready(cx))?;
        let mut events = self.0.events.borrow_mut();
        events.clear();
        let wait = || {
            epoll::wait(self.0.epoll.get_ref(), rustix::buffer::spare_capacity(&mut events), Some(&AT_ONCE))
        };
        rustix::io::retry_on_intr(wait)?;
        if events.len() < CROWD {
            // What comes from now on is an edge of epoll's own descriptor. After a crowd of events there are more by the
            // time they are dealt with: asking again is cheaper than to be told.
            guard.clear_ready();
        }
        for event in events.iter() {
            let token = Token::from_u64(event.data.u64());
            let listener = self.0.slots.borrow_mut().told(token, told(event.flags));
            match listener {
                Listener::Nobody => {}
                Listener::Key(key) => due.push(key),
                Listener::Task(waker) => waker.wake(),
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Watches a descriptor. `connecting`: it is writable when it is connected; else it is taken to be writable.
    fn register(&self, fd: OwnedFd, connecting: bool) -> io::Result<Registered> {
        let readiness = Readiness::new(!connecting, connecting);
        let token = self.0.slots.borrow_mut().insert(readiness, Listener::Nobody);
        let token = token.ok_or(io::ErrorKind::OutOfMemory)?;
        let registered = Registered { fd, token, reactor: self.clone() };
        let flags = if connecting { INPUT | EventFlags::OUT } else { INPUT };
        epoll::add(self.0.epoll.get_ref(), &registered.fd, EventData::new_u64(token.to_u64()), flags)?;
        Ok(registered)
    }
}

const INPUT: EventFlags =
    EventFlags::IN.union(EventFlags::RDHUP).union(EventFlags::PRI).union(EventFlags::ET);

fn told(flags: EventFlags) -> Told {
    Told {
        readable: flags.intersects(EventFlags::IN.union(EventFlags::HUP).union(EventFlags::PRI)),
        writable: flags.intersects(EventFlags::OUT.union(EventFlags::HUP)),
        ended: flags.contains(EventFlags::RDHUP),
        failed: flags.contains(EventFlags::ERR),
        urgent: flags.contains(EventFlags::PRI),
    }
}

/// A descriptor with its place. The place goes first and the descriptor is closed then, which takes it out of epoll.
struct Registered {
    fd: OwnedFd,
    token: Token,
    reactor: Reactor,
}

impl Registered {
    fn readiness(&self) -> Readiness {
        self.reactor.0.slots.borrow().readiness(self.token)
    }

    fn learn(&self, change: impl FnOnce(&mut Readiness)) {
        self.reactor.0.slots.borrow_mut().learn(self.token, change);
    }

    fn deliver_to(&self, key: u32) {
        let before = self.reactor.0.slots.borrow_mut().listen(self.token, Listener::Key(key));
        drop(before); // its waker, where nothing is borrowed
    }

    fn poll(&self, cx: &Context<'_>, wanted: impl Fn(Readiness) -> bool) -> Poll<()> {
        if wanted(self.readiness()) {
            return Poll::Ready(());
        }
        let before = self.reactor.0.slots.borrow_mut().wait(self.token, cx.waker());
        drop(before);
        Poll::Pending
    }

    /// Events tell of room to write from now on; where there is room already, at once.
    fn watch_output(&self) -> io::Result<()> {
        if self.readiness().is_watched() {
            return Ok(());
        }
        let data = EventData::new_u64(self.token.to_u64());
        epoll::modify(self.reactor.0.epoll.get_ref(), &self.fd, data, INPUT | EventFlags::OUT)?;
        self.learn(Readiness::watch);
        Ok(())
    }

    /// Out of epoll although the descriptor may have a duplicate that stays open.
    fn forget(&self) {
        // It fails only where epoll has forgotten it already.
        let _ = epoll::delete(self.reactor.0.epoll.get_ref(), &self.fd);
    }
}

impl AsFd for Registered {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        let listener = self.reactor.0.slots.borrow_mut().remove(self.token);
        drop(listener);
    }
}

#[cfg(test)]
mod tests;
