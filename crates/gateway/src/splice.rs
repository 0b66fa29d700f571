//! The byte relay: what one side sends, the other gets.
//!
//! No task and no buffer for a connection while it is idle: the worker's [reactor](net::reactor) says which have something
//! to do, bytes are read into the worker's one buffer and written on at once. What the receiver does not take stays with
//! the connection, and the sender is not read until it is gone: that is the back-pressure, and at most one buffer's worth
//! per direction is its bound. A closed half is passed on, together with the last bytes where it came together with
//! them; a side that breaks gets no more, and what it said before goes on to the other. Work per turn is bounded, so that
//! a flood starves nobody.
//!
//! Many devices come, say one thing and go. For their sake a socket gets no option before it is needed (each is a system
//! call), and a client that said DISCONNECT and closed ends both sides at once: MQTT leaves nothing to be said after it.
//!
//! Readiness is edge-triggered: a socket is given up for this turn only after it said "would block", or gave or took less
//! than it was asked to, which says the same.

use std::io;
use std::rc::Rc;
use std::task::Poll;

use net::reactor::Stream;
use net::splice::{Moved, Pipe, splice_once};

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
    client: Stream,
    pub(crate) server: Stream,
    /// From the client to the server.
    up: Direction,
    /// From the server to the client.
    down: Direction,
    /// Who closed first, once somebody did.
    first: Option<End>,
    /// Its place among the worker's relays.
    pub(crate) key: u32,
}

/// What is known of a client's stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Speaks {
    /// Bytes.
    Anything,
    /// It began with a CONNECT.
    Mqtt,
}

/// What is left to do after a turn.
pub(crate) enum Turn {
    /// Nothing: it waits.
    Waits,
    /// More, when others have had their turn.
    Again,
    /// It is over.
    Over(End),
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
    /// Whether small packets leave the receiver's socket at once.
    prompt: bool,
    goodbye: Goodbye,
}

/// Whether the sender may say, or said, that it needs no more answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Goodbye {
    /// It has no word for it.
    #[default]
    Never,
    /// DISCONNECT is the word.
    NotYet,
    /// That was its last packet so far. If the stream ends behind it, both directions do.
    Said,
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
    /// An event will tell when it goes on.
    Waiting,
    /// It used up its share of the turn.
    TurnOver,
    /// It is closed.
    Closed,
    /// It ended, and the other direction with it.
    Parted,
}

/// What one try did.
enum Step {
    /// So many bytes are on their way; try again.
    Moved(usize),
    /// An event will tell when it goes on.
    Waits,
}

/// Which side failed.
enum Failed {
    Sender,
    Receiver,
}

impl Relay {
    /// Both streams' events come to the worker under this key.
    pub(crate) fn new(client: Stream, server: Stream, key: u32, speaks: Speaks) -> Self {
        client.deliver_to(key);
        server.deliver_to(key);
        // The client's socket inherited it.
        let down = Direction { prompt: true, ..Direction::default() };
        let mut up = Direction::default();
        if speaks == Speaks::Mqtt {
            up.goodbye = Goodbye::NotYet;
        }
        Self { client, server, up, down, first: None, key }
    }

    /// Closes the server's socket, and gives back the client's.
    pub(crate) fn into_client(self) -> Stream {
        self.client
    }

    /// It has lived for a while: from now on the kernel asks both peers, when they are silent, whether they are there.
    pub(crate) fn keep_alive(&self) {
        for stream in [&self.client, &self.server] {
            // It fails only where the connection is gone, which its next event says better.
            let _ = stream.set_keep_alive();
        }
    }

    /// Both directions for one turn.
    pub(crate) fn turn(&mut self, session: &Rc<Session>, worker: &Worker) -> Turn {
        // A side that fails after one closed has said why already.
        match self.try_turn(session, worker) {
            Turn::Over(end) => Turn::Over(self.first.unwrap_or(end)),
            turn => turn,
        }
    }

    fn try_turn(&mut self, session: &Rc<Session>, worker: &Worker) -> Turn {
        let Self { client, server, up, down, .. } = self;
        let before = (up.state, down.state, session.bytes_in.get(), session.bytes_out.get());
        let stats = session.to.slot.stats();
        let up_pause = up.pump(client, server, down, worker, |count| {
            session.bytes_in.set(session.bytes_in.get() + count);
            if let Some(stats) = stats {
                stats.bytes_in.add(count);
            }
        });
        let mut broken = None;
        let up_pause = match up_pause {
            Ok(Pause::Parted) => return Turn::Over(End::ClientClosed),
            Ok(pause) => pause,
            Err(Failed::Sender) => return Turn::Over(End::ClientFailed),
            Err(Failed::Receiver) => up.break_off(End::ServerFailed, &mut broken),
        };
        let down_pause = down.pump(server, client, up, worker, |count| {
            session.bytes_out.set(session.bytes_out.get() + count);
            if let Some(stats) = stats {
                stats.bytes_out.add(count);
            }
        });
        let down_pause = match down_pause {
            Ok(pause) => pause,
            Err(Failed::Sender) => return Turn::Over(End::ServerFailed),
            Err(Failed::Receiver) => down.break_off(End::ClientFailed, &mut broken),
        };
        let after = (up.state, down.state, session.bytes_in.get(), session.bytes_out.get());
        if before != after {
            self.progressed(broken, session, worker);
        }
        match (up_pause, down_pause) {
            (Pause::Closed, Pause::Closed) => Turn::Over(End::ClientClosed),
            (Pause::TurnOver, _) | (_, Pause::TurnOver) => Turn::Again,
            _ => Turn::Waits,
        }
    }

    /// Notes who closed or broke first, starts the wait for the second half, and feeds the idle time-out.
    fn progressed(&mut self, broken: Option<End>, session: &Rc<Session>, worker: &Worker) {
        let half = match (self.up.state, self.down.state) {
            _ if broken.is_some() => broken,
            (State::Open, State::Open) => None,
            (_, State::Open) => Some(End::ClientClosed),
            (State::Open, _) => Some(End::ServerClosed),
            _ => self.first.or(Some(End::ClientClosed)),
        };
        if session.patience.get().is_some() || half.is_some() {
            session.active.set(worker.clock.now());
        }
        if self.first.is_none() && half.is_some() {
            self.first = half;
            let time = session.half_closed;
            let enough = session.patience.get().is_some_and(|patience| patience.time <= time);
            if !enough {
                session.patience.set(Some(Patience { time, end: End::HalfClosed }));
                worker.halved(session);
            }
        }
    }
}

impl Direction {
    /// Moves bytes until the sender has no more, the receiver takes no more, or the turn is over. `other` is the
    /// other direction.
    fn pump(
        &mut self,
        from: &Stream,
        to: &Stream,
        other: &Self,
        worker: &Worker,
        mut count: impl FnMut(u64),
    ) -> Result<Pause, Failed> {
        let mut moved = 0;
        loop {
            match self.flush(to) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(_)) => return Err(Failed::Receiver),
                Poll::Pending => return Ok(Pause::Waiting),
            }
            match self.state {
                State::Open if moved >= TURN_BYTES => return Ok(Pause::TurnOver),
                State::Open => {}
                State::Closing => {
                    if self.goodbye == Goodbye::Said && other.is_quiet() && has_nothing(to) {
                        return Ok(Pause::Parted);
                    }
                    if other.state != State::Closed {
                        // A receiver that is gone already needs not be told; reading from it will say so. The last
                        // half is closed with its socket.
                        let _ = to.shutdown();
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
                Some(_) => self.splice(from, to)?,
                None => self.copy(from, to, other.state, worker)?,
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
    fn splice(&mut self, from: &Stream, to: &Stream) -> Result<Step, Failed> {
        let Some(pipe) = &mut self.pipe else { return Ok(Step::Moved(0)) };
        let moved = match pipe.held() {
            0 if !from.is_readable() => Ok(Moved::AwaitReadable),
            0 => splice_once(from, pipe, to, TURN_BYTES),
            _ if !to.is_writable() => return Ok(Step::Waits),
            _ => splice_once(from, pipe, to, TURN_BYTES),
        };
        match moved {
            Ok(Moved::Bytes(bytes)) => Ok(Step::Moved(bytes)),
            Ok(Moved::AwaitReadable) => {
                self.pipe = None;
                self.full = 0;
                from.read_blocked();
                Ok(Step::Waits)
            }
            Ok(Moved::AwaitWritable) => {
                to.write_blocked().map_err(|_| Failed::Receiver)?;
                Ok(Step::Waits)
            }
            Ok(Moved::Closed) => {
                self.pipe = None;
                self.state = State::Closing;
                Ok(Step::Moved(0))
            }
            // The pipe was empty and stayed so: it was the sender.
            Err(_) if pipe.held() == 0 => Err(Failed::Sender),
            Err(_) => Err(Failed::Receiver),
        }
    }

    /// Reads into the worker's buffer and writes on at once; keeps what the receiver does not take.
    fn copy(&mut self, from: &Stream, to: &Stream, other: State, worker: &Worker) -> Result<Step, Failed> {
        if !from.is_readable() {
            return Ok(Step::Waits);
        }
        let mut buffer = worker.buffer.borrow_mut();
        let count = match from.recv(&mut buffer) {
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Step::Waits),
            Err(_) => return Err(Failed::Sender),
        };
        // The end may have come with the last bytes.
        let last = from.is_drained();
        if last {
            self.state = State::Closing;
        }
        let bytes = buffer.get(..count).unwrap_or_default();
        if bytes.is_empty() {
            return Ok(Step::Moved(0));
        }
        if self.goodbye != Goodbye::Never {
            self.goodbye = if is_disconnect(bytes) { Goodbye::Said } else { Goodbye::NotYet };
        }
        let full = bytes.len() == buffer.len();
        self.full = if full { self.full.saturating_add(1) } else { 0 };
        if !to.is_writable() {
            self.keep(bytes);
            return Ok(Step::Moved(bytes.len()));
        }
        // The end follows in this turn, and goes out with them; where none follows they must not wait for it.
        match self.send(to, bytes, last && other != State::Closed) {
            Ok(written) => self.keep(bytes.get(written..).unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.keep(bytes),
            Err(_) => return Err(Failed::Receiver),
        }
        Ok(Step::Moved(bytes.len()))
    }

    /// Writes on. Small packets must not wait for each other from the second thing on that a server is told; where that is the
    /// last, the end that follows pushes it out.
    fn send(&mut self, to: &Stream, bytes: &[u8], last: bool) -> io::Result<usize> {
        if !last && !std::mem::replace(&mut self.prompt, true) {
            hurry(to);
        }
        to.send(bytes, last)
    }

    /// Whether nothing is on its way here.
    fn is_quiet(&self) -> bool {
        self.state == State::Open && self.kept.is_none() && self.pipe.is_none()
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

    /// Writes what was kept; its memory goes with its last byte. `Pending`: the receiver is full.
    fn flush(&mut self, to: &Stream) -> Poll<io::Result<()>> {
        while let Some(kept) = &mut self.kept {
            let rest = kept.bytes.get(kept.written..).unwrap_or_default();
            if rest.is_empty() {
                self.kept = None;
                break;
            }
            if !to.is_writable() {
                return Poll::Pending;
            }
            if !std::mem::replace(&mut self.prompt, true) {
                hurry(to);
            }
            match to.send(rest, false) {
                Ok(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Ok(written) => kept.written += written,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Poll::Pending,
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        Poll::Ready(Ok(()))
    }
}

/// No delay for small packets.
fn hurry(server: &Stream) {
    // It fails only where the connection is gone, which the next write says better.
    let _ = server.set_no_delay();
}

/// Whether there is nothing to be read from it, as far as can be known. To close while there is would be a reset, and the
/// receiver might lose what it was sent last.
fn has_nothing(stream: &Stream) -> bool {
    !stream.is_readable() && stream.unread().is_ok_and(|bytes| bytes == 0)
}

/// Whether it is one DISCONNECT (3.14) and nothing else. Packets are not followed here: it might be the end of a
/// larger one. But then the stream of a client that wants an answer would have to be cut just there, and closed behind.
fn is_disconnect(bytes: &[u8]) -> bool {
    matches!(bytes, [0xE0, length, rest @ ..] if *length < 0x80 && usize::from(*length) == rest.len())
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::io::{Read, Write};
    use std::net::{Shutdown, TcpListener, TcpStream};
    use std::time::Duration;

    use net::reactor::Reactor;
    use runtime::clock::Clock;
    use runtime::events::Events;
    use runtime::workers::WorkerId;
    use socket2::SockRef;

    use super::*;
    use crate::session_log::Log;

    /// A socket of the reactor, and its peer.
    fn socket(reactor: &Reactor) -> (Stream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let ours = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        ours.set_nonblocking(true).unwrap();
        (Stream::connected(reactor, ours.into()).unwrap(), listener.accept().unwrap().0)
    }

    fn options(stream: &Stream) -> (bool, bool) {
        let socket = SockRef::from(stream);
        (socket.tcp_nodelay().unwrap(), socket.keepalive().unwrap())
    }

    #[tokio::test]
    async fn a_sockets_options_are_set_as_soon_as_they_matter() {
        let reactor = Reactor::new().unwrap();
        let relay = || {
            let ((client, _), (server, peer)) = (socket(&reactor), socket(&reactor));
            (Relay::new(client, server, 0, Speaks::Mqtt), peer)
        };
        let (mut first, _peer) = relay();
        assert_eq!(options(&first.server), (false, false));
        first.up.send(&first.server, b"the last", true).unwrap();
        assert_eq!(options(&first.server), (false, false), "the end pushes them out");
        first.up.send(&first.server, b"more", false).unwrap();
        assert_eq!(options(&first.server), (true, false));
        first.keep_alive();
        assert_eq!((options(&first.server), options(&first.client).1), ((true, true), true));
        let (mut second, _peer) = relay();
        second.up.keep(b"kept");
        assert!(second.up.flush(&second.server).is_ready());
        assert_eq!(options(&second.server), (true, false));
    }

    /// What is announced to be followed at once the kernel holds back, for a fifth of a second where nothing follows.
    #[tokio::test]
    async fn last_words_to_a_side_that_hears_no_end_behind_them_leave_at_once() {
        let clock = Clock::system();
        let (events, log) = (Events::new(clock.clone(), 10), Log::new(clock.clone()));
        let shutdown = runtime::lifecycle::Shutdown::new();
        let worker = Worker::new(WorkerId(0), clock.clone(), events, log, shutdown, 0, 0).unwrap();
        let mut waits = Vec::new();
        // A busy machine may be late for once, the kernel holds them back every time.
        for _ in 0..10 {
            let ((client, mut device), (server, mut peer)) =
                (socket(&worker.reactor), socket(&worker.reactor));
            let mut up = Relay::new(client, server, 0, Speaks::Mqtt);
            device.write_all(b"bye").unwrap();
            device.shutdown(Shutdown::Write).unwrap();
            while !up.client.has_ended() {
                poll_fn(|cx| worker.reactor.poll_turn(cx, &mut Vec::new())).await.unwrap();
            }
            let began = clock.now();
            let step = up.up.copy(&up.client, &up.server, State::Closed, &worker);
            assert!(matches!((step, up.up.state), (Ok(Step::Moved(3)), State::Closing)));
            peer.read_exact(&mut [0; 3]).unwrap();
            waits.push(clock.now() - began);
        }
        assert!(waits.iter().any(|wait| *wait < Duration::from_millis(150)), "{waits:?}");
    }

    #[test]
    fn a_disconnect_is_known_by_all_of_its_bytes() {
        for yes in [&[0xE0, 0][..], &[0xE0, 1, 0], &[0xE0, 2, 4, 0], &[0xE0, 7, 0, 5, 17, 0, 0, 0, 9]] {
            assert!(is_disconnect(yes), "{yes:?}");
        }
        let long = [&[0xE0, 127][..], &[0; 127]].concat();
        assert!(is_disconnect(&long));
        for no in [&[][..], &[0xE0], &[0xE0, 1], &[0xE0, 0, 0], &[0xC0, 0], &[0xE0, 0x80, 0], &[0, 0xE0, 0]] {
            assert!(!is_disconnect(no), "{no:?}");
        }
    }

    /// An idle connection is its session, with the relay in it, two places of the reactor and its names: no task, no buffer,
    /// no pipe.
    #[test]
    fn an_idle_connection_is_small() {
        assert!(size_of::<Relay>() <= 104, "{}", size_of::<Relay>());
        assert!(size_of::<Session>() <= 400, "{}", size_of::<Session>());
    }
}
