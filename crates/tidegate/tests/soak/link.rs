//! One connection of a client: a socket that never blocks, what came and is not read, what waits to be written.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use mqtt::Version;
use mqtt::codec::encode::encode;
use mqtt::packet::Packet;
use rustix::event::epoll::{self, EventData, EventFlags};
use socket2::{Domain, Socket, Type};

/// Bytes taken from a socket at once.
const CHUNK: usize = 64 * 1024;
/// How long the kernel may take to connect two sockets of this machine: it may have to ask again.
const PATIENCE: Duration = Duration::from_secs(20);

/// See the module.
pub(crate) struct Link {
    stream: TcpStream,
    /// What epoll calls it; never used again.
    pub(crate) token: u64,
    pub(crate) version: Version,
    /// What came and is no whole packet yet.
    pub(crate) input: Vec<u8>,
    out: Vec<u8>,
    sent: usize,
    interest: EventFlags,
    /// Its client does not read now.
    pub(crate) resting: bool,
}

/// What a read brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Came {
    /// Bytes, and perhaps more.
    Bytes,
    /// Nothing more now.
    Nothing,
    /// The end.
    End,
}

impl Link {
    /// Connects. `receive` is the size of the kernel's buffer for what comes, if it is to be small.
    pub(crate) fn dial(
        to: SocketAddr,
        version: Version,
        receive: Option<usize>,
        epoll: &OwnedFd,
        token: u64,
    ) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
        if let Some(bytes) = receive {
            socket.set_recv_buffer_size(bytes)?;
        }
        socket.connect_timeout(&to.into(), PATIENCE)?;
        socket.set_tcp_nodelay(true)?;
        socket.set_nonblocking(true)?;
        let stream = TcpStream::from(socket);
        let interest = EventFlags::IN;
        epoll::add(epoll, stream.as_fd(), EventData::new_u64(token), interest)?;
        Ok(Self {
            stream,
            token,
            version,
            input: Vec::new(),
            out: Vec::new(),
            sent: 0,
            interest,
            resting: false,
        })
    }

    /// Adds a packet to what waits.
    pub(crate) fn put(&mut self, packet: &Packet<'_>) {
        encode(packet, self.version, &mut self.out).expect("a packet that can be sent");
    }

    /// Adds any bytes.
    pub(crate) fn put_bytes(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
    }

    /// Where packets are encoded to.
    pub(crate) fn out(&mut self) -> &mut Vec<u8> {
        &mut self.out
    }

    /// Bytes that wait.
    pub(crate) fn waiting(&self) -> usize {
        self.out.len() - self.sent
    }

    /// Writes what the kernel takes. An error: the connection is broken.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        while self.sent < self.out.len() {
            match (&self.stream).write(&self.out[self.sent..]) {
                Ok(count) => self.sent += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        if self.sent == self.out.len() {
            self.out.clear();
            self.sent = 0;
        } else if self.sent > CHUNK {
            self.out.drain(..self.sent);
            self.sent = 0;
        }
        Ok(())
    }

    /// Reads once, behind what is in `input`.
    pub(crate) fn read(&mut self, chunk: &mut [u8]) -> io::Result<Came> {
        match (&self.stream).read(chunk) {
            Ok(0) => Ok(Came::End),
            Ok(count) => {
                self.input.extend_from_slice(&chunk[..count]);
                Ok(Came::Bytes)
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
                Ok(Came::Nothing)
            }
            Err(error) => Err(error),
        }
    }

    /// Tells epoll what is waited for now.
    pub(crate) fn watch(&mut self, epoll: &OwnedFd) -> io::Result<()> {
        let mut interest = EventFlags::empty();
        interest.set(EventFlags::IN, !self.resting);
        interest.set(EventFlags::OUT, self.waiting() > 0);
        if interest != self.interest {
            self.interest = interest;
            epoll::modify(epoll, self.stream.as_fd(), EventData::new_u64(self.token), interest)?;
        }
        Ok(())
    }

    /// Ends with a reset, as a device that loses its power and its address does.
    pub(crate) fn reset(self) {
        // a failure leaves an ordinary end
        let _ = socket2::SockRef::from(&self.stream).set_linger(Some(Duration::ZERO));
    }

    /// Closes our side.
    pub(crate) fn finish(&self) {
        // it may be broken already
        let _ = self.stream.shutdown(Shutdown::Write);
    }
}

/// A buffer for [`Link::read`].
pub(crate) fn chunk() -> Vec<u8> {
    vec![0; CHUNK]
}
