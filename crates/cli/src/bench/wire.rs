//! A socket and the bytes that wait on either side of it.

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr};

use mio::net::TcpStream;
use mio::{Interest, Registry, Token};

/// Output buffers keep at most this much memory while they are empty.
const KEEP: usize = 256 * 1024;

/// When so much of a buffer is written, what is left moves to its front.
const MOVE: usize = 64 * 1024;

/// What one read gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Input {
    /// So many bytes are in the buffer, counted from its front, and there may be more in the socket.
    More(usize),
    /// So many bytes are in the buffer, and the socket is empty.
    Last(usize),
    /// The server closed.
    End,
}

/// A connection to the server.
#[derive(Debug)]
pub(super) struct Wire {
    stream: TcpStream,
    /// What is to be written; add to its end.
    pub(super) out: Vec<u8>,
    /// So much of it is written.
    written: usize,
    /// The front of a packet whose end has not come.
    tail: Vec<u8>,
    /// The socket may take bytes.
    pub(super) writable: bool,
}

impl Wire {
    /// Begins to connect. Both directions are watched once and for all: edges are told, and nothing is to be changed later.
    ///
    /// # Errors
    /// As [`net::dialer::begin`].
    pub(super) fn open(
        from: Option<IpAddr>,
        to: SocketAddr,
        registry: &Registry,
        token: Token,
    ) -> io::Result<Self> {
        let mut stream = TcpStream::from_std(net::dialer::begin(from, to)?);
        registry.register(&mut stream, token, Interest::READABLE | Interest::WRITABLE)?;
        Ok(Self { stream, out: Vec::new(), written: 0, tail: Vec::new(), writable: false })
    }

    /// Whether the connection is there.
    ///
    /// # Errors
    /// Why it will never be.
    pub(super) fn is_connected(&self) -> io::Result<bool> {
        if let Some(error) = self.stream.take_error()? {
            return Err(error);
        }
        match self.stream.peer_addr() {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Bytes that wait to be written.
    pub(super) fn backlog(&self) -> usize {
        self.out.len() - self.written
    }

    /// Writes until nothing is left or the socket is full; `true`: nothing is left.
    ///
    /// # Errors
    /// What the network said.
    pub(super) fn flush(&mut self) -> io::Result<bool> {
        while self.writable && self.backlog() > 0 {
            match self.stream.write(self.out.get(self.written..).unwrap_or_default()) {
                Ok(count) => self.written += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.writable = false,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        let done = self.backlog() == 0;
        if done {
            self.out.clear();
            self.written = 0;
            if self.out.capacity() > KEEP {
                self.out.shrink_to(KEEP);
            }
        } else if self.written >= MOVE {
            self.out.drain(..self.written);
            self.written = 0;
        }
        Ok(done)
    }

    /// Reads once, behind the unfinished packet of the last time, which is put in front. The buffer has room for both.
    ///
    /// # Errors
    /// What the network said.
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> io::Result<Input> {
        let front = self.tail.len();
        let Some((head, room)) = buffer.split_at_mut_checked(front) else {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a packet larger than the buffer"));
        };
        match self.stream.read(room) {
            Ok(0) => Ok(Input::End),
            Ok(count) => {
                head.copy_from_slice(&self.tail);
                self.tail.clear();
                let all = front + count;
                // A short read of a stream has emptied it, epoll(7).
                Ok(if count < room.len() { Input::Last(all) } else { Input::More(all) })
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Input::Last(0)),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(Input::More(0)),
            Err(error) => Err(error),
        }
    }

    /// Keeps the unfinished packet at the end of what was read.
    pub(super) fn keep(&mut self, rest: &[u8]) {
        self.tail.extend_from_slice(rest);
        if rest.is_empty() && self.tail.capacity() > 0 {
            self.tail = Vec::new();
        }
    }
}
