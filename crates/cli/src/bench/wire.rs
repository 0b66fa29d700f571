//! A socket and the bytes that wait on either side of it.

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr};

use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use net::ws::{ClientHandshake, Decoder, Event, Side, frame};

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
    /// Frames around the bytes of MQTT.
    socket: Option<Box<WebSocket>>,
}

/// What a WebSocket needs besides the bytes.
#[derive(Debug)]
struct WebSocket {
    /// Until the server has answered.
    handshake: Option<ClientHandshake>,
    decoder: Decoder,
    /// Taken out of frames in one read.
    input: Vec<u8>,
    /// What is to be written in place of the wire's bytes.
    frames: Vec<u8>,
    masks: fastrand::Rng,
}

impl WebSocket {
    fn new(host: &str) -> Self {
        // Masks keep caches between from being led astray by scripts (RFC 6455, 10.3); there is none, so chance is enough.
        let mut masks = fastrand::Rng::new();
        let (handshake, request) =
            ClientHandshake::new(host, crate::connection::WEBSOCKET_PATH, masks.u128(..).to_ne_bytes());
        Self {
            handshake: Some(handshake),
            // A broker's packets are bounded by MQTT; frames need no bound of their own.
            decoder: Decoder::new(Side::Client, u64::MAX),
            input: Vec::new(),
            frames: request.into_bytes(),
            masks,
        }
    }

    fn mask(&mut self) -> Option<[u8; 4]> {
        Some(self.masks.u32(..).to_ne_bytes())
    }

    /// Puts what waits into a frame, once the server has answered.
    fn wrap(&mut self, out: &mut Vec<u8>) {
        if self.handshake.is_none() && !out.is_empty() {
            let mask = self.mask();
            frame::binary(out, mask, &mut self.frames);
            out.clear();
        }
    }

    /// Takes the frames of one read apart; `false`: the server closed.
    fn unwrap(&mut self, mut bytes: &mut [u8]) -> io::Result<bool> {
        self.input.clear();
        if let Some(handshake) = &mut self.handshake {
            let refused = |error| io::Error::new(io::ErrorKind::Unsupported, error);
            let Some(rest) = handshake.receive(bytes).map_err(refused)? else { return Ok(true) };
            self.handshake = None;
            let begin = bytes.len().saturating_sub(rest);
            bytes = bytes.get_mut(begin..).unwrap_or_default();
        }
        loop {
            match self.decoder.next(&mut bytes) {
                Ok(None) => return Ok(true),
                Ok(Some(Event::Data(data))) => self.input.extend_from_slice(data),
                Ok(Some(Event::Ping(ping))) => {
                    // A flood of pings that nobody takes the answers of gets none.
                    if self.frames.len() < KEEP {
                        let mask = self.mask();
                        frame::pong(ping.payload(), mask, &mut self.frames);
                    }
                }
                Ok(Some(Event::Pong(_))) => {}
                Ok(Some(Event::Close { .. })) => return Ok(false),
                Err(violation) => return Err(io::Error::new(io::ErrorKind::InvalidData, violation)),
            }
        }
    }
}

impl Wire {
    /// Begins to connect. Both directions are watched once and for all: edges are told, and nothing is to be changed later.
    ///
    /// With `websocket`, the host of its URL, MQTT goes through a WebSocket.
    ///
    /// # Errors
    /// As [`net::dialer::begin`].
    pub(super) fn open(
        from: Option<IpAddr>,
        to: SocketAddr,
        websocket: Option<&str>,
        registry: &Registry,
        token: Token,
    ) -> io::Result<Self> {
        let mut stream = TcpStream::from_std(net::dialer::begin(from, to)?);
        registry.register(&mut stream, token, Interest::READABLE | Interest::WRITABLE)?;
        let socket = websocket.map(|host| Box::new(WebSocket::new(host)));
        Ok(Self { stream, out: Vec::new(), written: 0, tail: Vec::new(), writable: false, socket })
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
        let frames = self.socket.as_ref().map_or(0, |socket| socket.frames.len());
        self.out.len() + frames - self.written
    }

    /// Writes until nothing is left or the socket is full; `true`: nothing is left.
    ///
    /// # Errors
    /// What the network said.
    pub(super) fn flush(&mut self) -> io::Result<bool> {
        let bytes = match &mut self.socket {
            Some(socket) => {
                socket.wrap(&mut self.out);
                &mut socket.frames
            }
            None => &mut self.out,
        };
        while self.writable && self.written < bytes.len() {
            match self.stream.write(bytes.get(self.written..).unwrap_or_default()) {
                Ok(count) => self.written += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.writable = false,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        if self.written == bytes.len() {
            bytes.clear();
            self.written = 0;
            if bytes.capacity() > KEEP {
                bytes.shrink_to(KEEP);
            }
        } else if self.written >= MOVE {
            bytes.drain(..self.written);
            self.written = 0;
        }
        Ok(self.backlog() == 0)
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
                // A short read of a stream has emptied it, epoll(7).
                let last = count < room.len();
                let input = |len| if last { Input::Last(len) } else { Input::More(len) };
                let mut len = count;
                if let Some(socket) = &mut self.socket {
                    if !socket.unwrap(room.get_mut(..count).unwrap_or_default())? {
                        return Ok(Input::End);
                    }
                    len = socket.input.len();
                    if len == 0 {
                        return Ok(input(0));
                    }
                    // What was in frames is shorter than they were.
                    if let Some(place) = room.get_mut(..len) {
                        place.copy_from_slice(&socket.input);
                    }
                }
                head.copy_from_slice(&self.tail);
                self.tail.clear();
                Ok(input(front + len))
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
