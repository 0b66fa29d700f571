//! Bytes from socket to socket that never enter this process, splice(2).
//!
//! A pipe stands between the two sockets and the kernel moves pages through it. That pays for bulk (a firmware
//! download) and not for small packets, where a copy is cheaper than two system calls; who uses it decides.
//!
//! A pipe costs two descriptors, so a worker has a bounded [`PipePool`]. Rule at the bound: [`PipePool::take`] gives
//! nothing and the caller copies.

use std::cell::RefCell;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;

use rustix::pipe::{PipeFlags, SpliceFlags};

/// The pipes of one worker. Cheap to clone, stays on its thread.
#[derive(Clone)]
pub struct PipePool(Rc<RefCell<Pool>>);

struct Pool {
    idle: Vec<Ends>,
    /// Open pipes, idle or not.
    open: usize,
    max: usize,
}

struct Ends {
    read: OwnedFd,
    write: OwnedFd,
}

impl fmt::Debug for PipePool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pool = self.0.borrow();
        f.debug_struct("PipePool")
            .field("open", &pool.open)
            .field("idle", &pool.idle.len())
            .field("max", &pool.max)
            .finish()
    }
}

impl PipePool {
    /// At most `max` pipes, two descriptors each. None is opened yet.
    pub fn new(max: usize) -> Self {
        Self(Rc::new(RefCell::new(Pool { idle: Vec::new(), open: 0, max })))
    }

    /// An empty pipe; nothing when all are in use. It comes back when it is dropped.
    ///
    /// # Errors
    /// When the process has no descriptor left.
    pub fn take(&self) -> io::Result<Option<Pipe>> {
        let mut pool = self.0.borrow_mut();
        let ends = match pool.idle.pop() {
            Some(ends) => ends,
            None if pool.open >= pool.max => return Ok(None),
            None => {
                let (read, write) = rustix::pipe::pipe_with(PipeFlags::NONBLOCK | PipeFlags::CLOEXEC)?;
                pool.open += 1;
                Ends { read, write }
            }
        };
        Ok(Some(Pipe { ends: Some(ends), held: 0, pool: Rc::clone(&self.0) }))
    }

    /// How many pipes are open, in use or idle.
    pub fn open(&self) -> usize {
        self.0.borrow().open
    }

    /// How many pipes wait for use.
    pub fn idle(&self) -> usize {
        self.0.borrow().idle.len()
    }
}

/// A pipe on loan from its [`PipePool`]. One direction of one pair of sockets.
pub struct Pipe {
    /// There until the drop.
    ends: Option<Ends>,
    /// Bytes that were moved in and not yet out.
    held: usize,
    pool: Rc<RefCell<Pool>>,
}

impl fmt::Debug for Pipe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pipe").field("held", &self.held).finish_non_exhaustive()
    }
}

impl Pipe {
    /// Bytes in the pipe: taken from the one socket and not yet given to the other.
    pub fn held(&self) -> usize {
        self.held
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        let mut pool = self.pool.borrow_mut();
        match self.ends.take() {
            // The next user must not find another connection's bytes.
            Some(ends) if self.held == 0 => pool.idle.push(ends),
            _ => pool.open -= 1,
        }
    }
}

/// What one [`splice_once`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moved {
    /// So many bytes went to the receiver; there may be more. Call again, within your share of the turn.
    Bytes(usize),
    /// Nothing is there: wait until `from` is readable.
    AwaitReadable,
    /// The receiver is full: wait until `to` is writable.
    AwaitWritable,
    /// The sender will send no more and all that it sent was given: shut the receiver's side down.
    Closed,
}

/// Moves at most `max` bytes (at least one is asked for) from one socket to the other, without waiting. Bytes that
/// the pipe holds from before go first. That a side said "would block" is to be noted by the caller, where it keeps such
/// notes.
///
/// # Errors
/// What either side said; then the pair is of no more use and the pipe, if it holds bytes, is closed at its drop.
pub fn splice_once(from: &impl AsFd, pipe: &mut Pipe, to: &impl AsFd, max: usize) -> io::Result<Moved> {
    // Only into an empty pipe: then "would block" can mean nothing but an empty socket.
    if pipe.held == 0 {
        match fill(from, pipe, max.max(1)) {
            Ok(0) => return Ok(Moved::Closed),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Moved::AwaitReadable),
            Err(error) => return Err(error),
        }
    }
    match drain(pipe, to) {
        Ok(count) => Ok(Moved::Bytes(count)),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Moved::AwaitWritable),
        Err(error) => Err(error),
    }
}

const FLAGS: SpliceFlags = SpliceFlags::NONBLOCK.union(SpliceFlags::MOVE);

fn fill(from: &impl AsFd, pipe: &mut Pipe, max: usize) -> io::Result<usize> {
    let Some(ends) = &pipe.ends else { return Err(io::ErrorKind::BrokenPipe.into()) };
    let count = retry(|| rustix::pipe::splice(from, None, &ends.write, None, max, FLAGS))?;
    pipe.held += count;
    Ok(count)
}

fn drain(pipe: &mut Pipe, to: &impl AsFd) -> io::Result<usize> {
    let Some(ends) = &pipe.ends else { return Err(io::ErrorKind::BrokenPipe.into()) };
    let held = pipe.held;
    let count = retry(|| rustix::pipe::splice(&ends.read, None, to, None, held, FLAGS))?;
    if count == 0 {
        return Err(io::ErrorKind::WriteZero.into());
    }
    pipe.held = held.saturating_sub(count);
    Ok(count)
}

/// A signal is no error.
fn retry(mut call: impl FnMut() -> rustix::io::Result<usize>) -> io::Result<usize> {
    loop {
        match call() {
            Err(rustix::io::Errno::INTR) => {}
            outcome => return Ok(outcome?),
        }
    }
}

#[cfg(test)]
mod tests;
