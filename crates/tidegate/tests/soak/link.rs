//! One connection of a client: a socket that never blocks, or a WebSocket on it; what came and is not read, what waits to be
//! written.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use mqtt::Version;
use mqtt::codec::encode::encode;
use mqtt::packet::Packet;
use net::ws::{ClientHandshake, Decoder, Event, Side, frame};
use rustix::event::epoll::{self, EventData, EventFlags};
use socket2::{Domain, Socket, Type};

use crate::subject::Doors;

/// Bytes taken from a socket at once.
const CHUNK: usize = 64 * 1024;
/// How long the kernel may take to connect two sockets of this machine: it may have to ask again.
const PATIENCE: Duration = Duration::from_secs(20);

/// Any mask will do.
const MASK: [u8; 4] = [0x5a, 0x01, 0xc3, 0x7e];
/// Bytes of the frames that packets are cut into, in turns: all three kinds of length, and packets that lie in many frames.
const FRAMES: [usize; 6] = [9000, 1, 125, 126, 70_000, 4096];

/// What makes a connection a WebSocket.
struct Web {
    /// Until it is open.
    handshake: Option<ClientHandshake>,
    decoder: Decoder,
    /// What waits and is not in frames.
    plain: Vec<u8>,
    /// Frames written.
    frames: usize,
    closed: bool,
}

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
    web: Option<Box<Web>>,
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
    /// Connects, as a WebSocket or not. `receive` is the size of the kernel's buffer for what comes, if it is to be small.
    pub(crate) fn dial(
        doors: Doors,
        web: bool,
        version: Version,
        receive: Option<usize>,
        epoll: &OwnedFd,
        token: u64,
    ) -> io::Result<Self> {
        let to: SocketAddr = if web { doors.web } else { doors.tcp };
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
        let mut out = Vec::new();
        let web = web.then(|| {
            let nonce = u128::from(token).to_le_bytes();
            let (handshake, request) = ClientHandshake::new("soak.example", "/mqtt", nonce);
            out.extend_from_slice(request.as_bytes());
            let (handshake, decoder) = (Some(handshake), Decoder::new(Side::Client, u64::MAX));
            Box::new(Web { handshake, decoder, plain: Vec::new(), frames: 0, closed: false })
        });
        Ok(Self { stream, token, version, input: Vec::new(), out, sent: 0, web, interest, resting: false })
    }

    /// Adds a packet to what waits.
    pub(crate) fn put(&mut self, packet: &Packet<'_>) {
        let version = self.version;
        encode(packet, version, self.out()).expect("a packet that can be sent");
    }

    /// Adds any bytes.
    pub(crate) fn put_bytes(&mut self, bytes: &[u8]) {
        self.out().extend_from_slice(bytes);
    }

    /// Where packets are encoded to.
    pub(crate) fn out(&mut self) -> &mut Vec<u8> {
        match &mut self.web {
            Some(web) => &mut web.plain,
            None => &mut self.out,
        }
    }

    /// Bytes that wait.
    pub(crate) fn waiting(&self) -> usize {
        self.out.len() - self.sent + self.web.as_ref().map_or(0, |web| web.plain.len())
    }

    /// The last that is written is the beginning of a packet; `frame`: of a WebSocket's frame, if it is one.
    pub(crate) fn cut(&mut self, frame: bool) {
        let packet = [0x30, 0xff, 0x01, 0x00, 0x03, b'c', b'u'];
        match &mut self.web {
            Some(web) if frame && web.handshake.is_none() => {
                web.put_frames(&mut self.out);
                self.out.extend_from_slice(&[0x82, 0xfe, 0x01, 0x00, 0x5a]);
            }
            _ => self.put_bytes(&packet),
        }
        // a broken one is over anyhow
        let _ = self.flush();
    }

    /// Writes what the kernel takes. An error: the connection is broken.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        if let Some(web) = self.web.as_mut().filter(|web| web.handshake.is_none()) {
            web.put_frames(&mut self.out);
        }
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
            Ok(count) => match &mut self.web {
                Some(web) => {
                    web.take(&mut chunk[..count], &mut self.input, &mut self.out)?;
                    // what came before it is in the input
                    if web.closed && self.input.is_empty() { Ok(Came::End) } else { Ok(Came::Bytes) }
                }
                None => {
                    self.input.extend_from_slice(&chunk[..count]);
                    Ok(Came::Bytes)
                }
            },
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
        interest.set(EventFlags::OUT, self.out.len() > self.sent);
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

impl Web {
    /// Puts what waits into frames.
    fn put_frames(&mut self, out: &mut Vec<u8>) {
        let mut rest = &self.plain[..];
        while !rest.is_empty() {
            let (piece, left) = rest.split_at(FRAMES[self.frames % FRAMES.len()].min(rest.len()));
            frame::binary(piece, Some(MASK), out);
            self.frames += 1;
            rest = left;
        }
        self.plain.clear();
    }

    /// Takes apart what came.
    fn take(&mut self, mut bytes: &mut [u8], input: &mut Vec<u8>, out: &mut Vec<u8>) -> io::Result<()> {
        if let Some(handshake) = &mut self.handshake {
            let Some(rest) = handshake.receive(bytes).map_err(io::Error::other)? else { return Ok(()) };
            self.handshake = None;
            let begin = bytes.len() - rest;
            bytes = &mut bytes[begin..];
        }
        while let Some(event) = self.decoder.next(&mut bytes).map_err(io::Error::other)? {
            match event {
                Event::Data(data) => input.extend_from_slice(data),
                Event::Ping(ping) => frame::pong(ping.payload(), Some(MASK), out),
                Event::Pong(_) => return Err(io::Error::other("a pong that nobody asked for")),
                Event::Close { code, .. } => {
                    self.closed = true;
                    frame::close(code.unwrap_or(1000), Some(MASK), out);
                }
            }
        }
        Ok(())
    }
}

/// A buffer for [`Link::read`].
pub(crate) fn chunk() -> Vec<u8> {
    vec![0; CHUNK]
}
