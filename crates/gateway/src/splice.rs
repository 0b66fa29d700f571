//! The byte relay: what one side sends, the other gets.
//!
//! One small task per connection, and no buffer while it is idle: bytes are read into the worker's one buffer and
//! written on at once. What the receiver does not take stays with the connection, and the sender is not read until
//! it is gone: that is the back-pressure, and at most one buffer's worth per direction is its bound. A closed half
//! is passed on; a side that breaks gets no more, and what it said before goes on to the other. Work per turn is bounded, so that a flood starves nobody.
//!
//! Readiness is edge-triggered: a socket is given up for this turn only after it said "would block" (tokio notes a
//! read that did not fill the buffer as that, which saves the second read).

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use net::splice::{Moved, Pipe, splice_once};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::error::End;
use crate::session_log::{Patience, Session};
use crate::worker::Worker;

/// The worker's shared buffer, and so the most that is kept for a slow receiver.
pub(crate) const BUFFER_BYTES: usize = 64 * 1024;
/// Pipes of a worker for bulk, two descriptors each.
pub(crate) const PIPES: usize = 64;
/// Reads in a row that fill the buffer, after which the kernel moves the bytes by itself.
const BULK_READS: u8 = 2;
/// Bytes that a direction moves in one turn before others have theirs.
const TURN_BYTES: usize = 4 * BUFFER_BYTES;

/// A connection between a client and its server, until it ends.
pub(crate) struct Relay {
    client: TcpStream,
    server: TcpStream,
    /// From the client to the server.
    up: Direction,
    /// From the server to the client.
    down: Direction,
    /// Who closed first, once somebody did.
    first: Option<End>,
    session: Rc<Session>,
    worker: Rc<Worker>,
}

/// One direction of a relay.
#[derive(Default)]
struct Direction {
    /// What the receiver did not take yet.
    kept: Option<Box<Kept>>,
    /// On loan while bulk flows.
    pipe: Option<Box<Pipe>>,
    state: State,
    /// Reads in a row that filled the buffer.
    full: u8,
}

struct Kept {
    bytes: Box<[u8]>,
    written: usize,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Open,
    /// The sender closed; the receiver has to be told.
    Closing,
    /// The receiver was told.
    Closed,
}

/// Why a direction stopped in this turn.
enum Pause {
    /// A waker is registered where it waits.
    Waiting,
    /// It used up its share of the turn.
    TurnOver,
    /// It is closed.
    Closed,
}

/// What one try did.
enum Step {
    /// So many bytes are on their way; try again.
    Moved(usize),
    /// A waker is registered where it waits.
    Waits,
}

/// Which side failed.
enum Failed {
    Sender,
    Receiver,
}

impl Relay {
    pub(crate) fn new(
        client: TcpStream,
        server: TcpStream,
        session: Rc<Session>,
        worker: Rc<Worker>,
    ) -> Self {
        let (up, down) = (Direction::default(), Direction::default());
        Self { client, server, up, down, first: None, session, worker }
    }

    /// Both directions for one turn. `Ready` with the reason when the connection is over.
    fn turn(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        let Self { client, server, up, down, session, worker, .. } = self;
        let before = (up.state, down.state, session.bytes_in.get(), session.bytes_out.get());
        let stats = session.to.slot.stats();
        let up_pause = up.pump(client, server, down.state, worker, cx, |count| {
            session.bytes_in.set(session.bytes_in.get() + count);
            if let Some(stats) = stats {
                stats.bytes_in.add(count);
            }
        });
        let mut broken = None;
        let up_pause = match up_pause {
            Ok(pause) => pause,
            Err(Failed::Sender) => return Poll::Ready(End::ClientFailed),
            Err(Failed::Receiver) => up.break_off(End::ServerFailed, &mut broken),
        };
        let down_pause = down.pump(server, client, up.state, worker, cx, |count| {
            session.bytes_out.set(session.bytes_out.get() + count);
            if let Some(stats) = stats {
                stats.bytes_out.add(count);
            }
        });
        let down_pause = match down_pause {
            Ok(pause) => pause,
            Err(Failed::Sender) => return Poll::Ready(End::ServerFailed),
            Err(Failed::Receiver) => down.break_off(End::ClientFailed, &mut broken),
        };
        let after = (up.state, down.state, session.bytes_in.get(), session.bytes_out.get());
        if before != after {
            self.progressed(broken);
        }
        match (up_pause, down_pause) {
            (Pause::Closed, Pause::Closed) => Poll::Ready(End::ClientClosed),
            (Pause::TurnOver, _) | (_, Pause::TurnOver) => {
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            _ => Poll::Pending,
        }
    }

    /// Notes who closed or broke first, starts the wait for the second half, and feeds the idle time-out.
    fn progressed(&mut self, broken: Option<End>) {
        let session = &self.session;
        let half = match (self.up.state, self.down.state) {
            _ if broken.is_some() => broken,
            (State::Open, State::Open) => None,
            (_, State::Open) => Some(End::ClientClosed),
            (State::Open, _) => Some(End::ServerClosed),
            _ => self.first.or(Some(End::ClientClosed)),
        };
        if session.patience.get().is_some() || half.is_some() {
            session.active.set(self.worker.clock.now());
        }
        if self.first.is_none() && half.is_some() {
            self.first = half;
            let time = session.half_closed;
            let enough = session.patience.get().is_some_and(|patience| patience.time <= time);
            if !enough {
                session.patience.set(Some(Patience { time, end: End::HalfClosed }));
                self.worker.halved(session);
            }
        }
    }
}

impl Future for Relay {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let end = ready!(self.turn(cx));
        // A side that fails after it closed has said why already.
        self.session.end.set(Some(self.first.unwrap_or(end)));
        Poll::Ready(())
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.worker.leave(&self.session);
    }
}

impl Direction {
    /// Moves bytes until the sender has no more, the receiver takes no more, or the turn is over. `other` is the
    /// state of the other direction.
    fn pump(
        &mut self,
        from: &mut TcpStream,
        to: &mut TcpStream,
        other: State,
        worker: &Worker,
        cx: &mut Context<'_>,
        mut count: impl FnMut(u64),
    ) -> Result<Pause, Failed> {
        let mut moved = 0;
        loop {
            match self.flush(to, cx) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(_)) => return Err(Failed::Receiver),
                Poll::Pending => return Ok(Pause::Waiting),
            }
            match self.state {
                State::Open if moved >= TURN_BYTES => return Ok(Pause::TurnOver),
                State::Open => {}
                State::Closing => {
                    if other != State::Closed {
                        // A receiver that is gone already needs not be told; reading from it will say so. The last
                        // half is closed with its socket.
                        let _ = Pin::new(&mut *to).poll_shutdown(cx);
                    }
                    self.state = State::Closed;
                    return Ok(Pause::Closed);
                }
                State::Closed => return Ok(Pause::Closed),
            }
            if self.full >= BULK_READS && self.pipe.is_none() {
                // Without a pipe to spare bytes are copied, which is as right and a little dearer.
                self.pipe = worker.pipes.take().ok().flatten().map(Box::new);
            }
            let step = match self.pipe {
                Some(_) => self.splice(from, to, cx)?,
                None => self.copy(from, to, worker, cx)?,
            };
            match step {
                Step::Moved(bytes) => {
                    moved += bytes;
                    count(bytes as u64);
                }
                Step::Waits => return Ok(Pause::Waiting),
            }
        }
    }

    /// Lets the kernel move bytes through the pipe; gives it back when there are no more.
    fn splice(
        &mut self,
        from: &mut TcpStream,
        to: &mut TcpStream,
        cx: &mut Context<'_>,
    ) -> Result<Step, Failed> {
        let Some(pipe) = &mut self.pipe else { return Ok(Step::Moved(0)) };
        let ready = match splice_once(from, pipe, to, TURN_BYTES) {
            Ok(Moved::Bytes(bytes)) => return Ok(Step::Moved(bytes)),
            Ok(Moved::AwaitReadable) => {
                self.pipe = None;
                self.full = 0;
                from.poll_read_ready(cx).map_err(|_| Failed::Sender)
            }
            Ok(Moved::AwaitWritable) => to.poll_write_ready(cx).map_err(|_| Failed::Receiver),
            Ok(Moved::Closed) => {
                self.pipe = None;
                self.state = State::Closing;
                return Ok(Step::Moved(0));
            }
            // The pipe was empty and stayed so: it was the sender.
            Err(_) if pipe.held() == 0 => return Err(Failed::Sender),
            Err(_) => return Err(Failed::Receiver),
        };
        match ready {
            Poll::Ready(outcome) => outcome.map(|()| Step::Moved(0)),
            Poll::Pending => Ok(Step::Waits),
        }
    }

    /// Reads into the worker's buffer and writes on at once; keeps what the receiver does not take.
    fn copy(
        &mut self,
        from: &mut TcpStream,
        to: &mut TcpStream,
        worker: &Worker,
        cx: &mut Context<'_>,
    ) -> Result<Step, Failed> {
        let mut buffer = worker.buffer.borrow_mut();
        let mut read = ReadBuf::new(&mut buffer);
        match Pin::new(from).poll_read(cx, &mut read) {
            Poll::Ready(Ok(())) => {}
            Poll::Ready(Err(_)) => return Err(Failed::Sender),
            Poll::Pending => return Ok(Step::Waits),
        }
        let full = read.remaining() == 0;
        let bytes = read.filled();
        if bytes.is_empty() {
            self.state = State::Closing;
            return Ok(Step::Moved(0));
        }
        self.full = if full { self.full.saturating_add(1) } else { 0 };
        match Pin::new(to).poll_write(cx, bytes) {
            Poll::Ready(Ok(written)) => self.keep(bytes.get(written..).unwrap_or_default()),
            Poll::Ready(Err(_)) => return Err(Failed::Receiver),
            Poll::Pending => self.keep(bytes),
        }
        Ok(Step::Moved(bytes.len()))
    }

    /// The receiver takes no more: nothing more goes there. Its own last words still do: a server that refuses says
    /// why and may close with our bytes unread, which breaks this direction before the other one has been read.
    fn break_off(&mut self, end: End, broken: &mut Option<End>) -> Pause {
        (self.kept, self.pipe, self.state) = (None, None, State::Closed);
        broken.get_or_insert(end);
        Pause::Closed
    }

    fn keep(&mut self, rest: &[u8]) {
        if !rest.is_empty() {
            self.kept = Some(Box::new(Kept { bytes: rest.into(), written: 0 }));
        }
    }

    /// Writes what was kept; its memory goes with its last byte.
    fn flush(&mut self, to: &mut TcpStream, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(kept) = &mut self.kept {
            let rest = kept.bytes.get(kept.written..).unwrap_or_default();
            if rest.is_empty() {
                self.kept = None;
                break;
            }
            let written = ready!(Pin::new(&mut *to).poll_write(cx, rest))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            kept.written += written;
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An idle connection is its relay, its session and two registrations of the runtime: no buffer, no pipe.
    #[test]
    fn an_idle_connection_is_small() {
        assert!(size_of::<Relay>() <= 160, "{}", size_of::<Relay>());
        assert!(size_of::<Session>() <= 344, "{}", size_of::<Session>());
    }
}
