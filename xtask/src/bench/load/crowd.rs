//! All connections of a load behind one poll: dialled, read, written in batches.
//!
//! What a packet means is the scenario's affair. A server that refuses or leaves is told to it, not hidden.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::ops::Range;
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};

use super::super::process::now;
use super::wire::{self, Connect, Form, Stamp, Version};

/// Connections that are set up at the same time.
const AT_ONCE: usize = 64;
/// Filters in one SUBSCRIBE.
const FILTERS: usize = 100;
/// Longest that setting up may take.
const SETUP: Duration = Duration::from_secs(60);
/// What one read may bring.
const BUFFER: usize = 512 << 10;

/// Where the server is and how one speaks to it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Server {
    pub(super) port: u16,
    pub(super) version: Version,
    pub(super) websocket: bool,
}

/// What happened to a client.
#[derive(Clone, Copy, Debug)]
pub(super) enum Seen<'a> {
    /// A whole packet: its first byte, and what follows its length.
    Packet(u8, &'a [u8]),
    /// The connection is gone.
    Closed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Dialing,
    Upgrading,
    Open,
    Gone,
}

#[derive(Debug)]
struct Client {
    stream: Option<TcpStream>,
    stage: Stage,
    /// What waits for the handshake.
    hello: Vec<u8>,
    output: Vec<u8>,
    written: usize,
    /// WebSocket: frames that are not whole.
    frames: Vec<u8>,
    /// A packet that is not whole.
    tail: Vec<u8>,
    dirty: bool,
    /// It reads no more: a slow consumer.
    deaf: bool,
    /// It said good-bye.
    leaving: bool,
}

/// The clients of a load, by number.
#[derive(Debug)]
pub(super) struct Crowd {
    server: Server,
    poll: Poll,
    events: Events,
    clients: Vec<Client>,
    dirty: Vec<usize>,
    buffer: Vec<u8>,
    scratch: Vec<u8>,
    /// Where stamps count from.
    pub(super) begin: Instant,
}

impl Crowd {
    pub(super) fn new(server: Server) -> Result<Self, String> {
        Ok(Self {
            server,
            poll: Poll::new().map_err(|error| format!("poll: {error}"))?,
            events: Events::with_capacity(1_024),
            clients: Vec::new(),
            dirty: Vec::new(),
            buffer: vec![0; BUFFER],
            scratch: Vec::new(),
            begin: now(),
        })
    }

    pub(super) const fn version(&self) -> Version {
        self.server.version
    }

    /// Nanoseconds since the begin.
    pub(super) fn nanos(&self) -> u64 {
        now().duration_since(self.begin).as_nanos() as u64
    }

    /// Begins a connection whose first packet is `hello`.
    pub(super) fn dial(&mut self, hello: Vec<u8>) -> Result<usize, String> {
        let number = self.clients.len();
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, self.server.port));
        let told = |error: std::io::Error| format!("client {number}: {error}");
        let mut stream = TcpStream::connect(address).map_err(told)?;
        let interest = Interest::READABLE | Interest::WRITABLE;
        self.poll.registry().register(&mut stream, Token(number), interest).map_err(told)?;
        self.clients.push(Client {
            stream: Some(stream),
            stage: Stage::Dialing,
            hello,
            output: Vec::new(),
            written: 0,
            frames: Vec::new(),
            tail: Vec::new(),
            dirty: false,
            deaf: false,
            leaving: false,
        });
        Ok(number)
    }

    /// Closes without a word.
    pub(super) fn hang_up(&mut self, client: usize) {
        self.clients[client].stream = None; // which takes it out of the poll
        self.clients[client].stage = Stage::Gone;
    }

    /// From now on the client reads nothing.
    pub(super) fn stop_reading(&mut self, client: usize) {
        self.clients[client].deaf = true;
    }

    /// The client has said good-bye: a close is no failure from now on.
    pub(super) fn expect_close(&mut self, client: usize) {
        self.clients[client].leaving = true;
    }

    pub(super) fn expects_close(&self, client: usize) -> bool {
        self.clients[client].leaving
    }

    /// Bytes that wait for the server to take them.
    pub(super) fn unwritten(&self, client: usize) -> usize {
        self.clients[client].output.len() - self.clients[client].written
    }

    /// Puts a packet into the client's output; it goes with the next [`Self::turn`].
    pub(super) fn send(&mut self, client: usize, packet: &[u8]) {
        let one = &mut self.clients[client];
        if self.server.websocket {
            wire::frame_head(&mut one.output, packet.len());
        }
        one.output.extend_from_slice(packet);
        self.mark(client);
    }

    pub(super) fn publish(&mut self, client: usize, form: &Form, topic: &str, packet_id: u16, stamp: &Stamp) {
        if self.server.websocket {
            let mut packet = std::mem::take(&mut self.scratch);
            packet.clear();
            form.write(&mut packet, topic, packet_id, stamp);
            self.send(client, &packet);
            self.scratch = packet;
        } else {
            form.write(&mut self.clients[client].output, topic, packet_id, stamp);
            self.mark(client);
        }
    }

    fn mark(&mut self, client: usize) {
        if !std::mem::replace(&mut self.clients[client].dirty, true) {
            self.dirty.push(client);
        }
    }

    /// Writes what waits, waits `limit` at most for something to happen, and tells it.
    pub(super) fn turn(
        &mut self,
        limit: Duration,
        script: &mut impl FnMut(&mut Self, usize, Seen<'_>) -> Result<(), String>,
    ) -> Result<(), String> {
        let mut dirty = std::mem::take(&mut self.dirty);
        for client in dirty.drain(..) {
            self.clients[client].dirty = false;
            self.clients[client].flush();
        }
        self.dirty = dirty;
        match self.poll.poll(&mut self.events, Some(limit)) {
            Err(error) if error.kind() == ErrorKind::Interrupted => return Ok(()),
            result => result.map_err(|error| format!("poll: {error}"))?,
        }
        let events = std::mem::replace(&mut self.events, Events::with_capacity(0));
        for event in &events {
            let client = event.token().0;
            if event.is_writable() {
                self.writable(client);
            }
            if event.is_readable() || event.is_read_closed() {
                self.readable(client, event.is_read_closed(), script)?;
            }
        }
        self.events = events;
        Ok(())
    }

    fn writable(&mut self, client: usize) {
        let one = &mut self.clients[client];
        if one.stage == Stage::Dialing {
            let Some(stream) = &one.stream else { return };
            if stream.peer_addr().is_err() {
                return; // not yet, or it failed: then it is readable and closed too
            }
            let _best_effort = stream.set_nodelay(true);
            if self.server.websocket {
                one.stage = Stage::Upgrading;
                one.output.extend_from_slice(wire::UPGRADE);
            } else {
                one.stage = Stage::Open;
                one.output.append(&mut one.hello);
            }
        }
        one.flush();
    }

    fn readable(
        &mut self,
        client: usize,
        closed: bool,
        script: &mut impl FnMut(&mut Self, usize, Seen<'_>) -> Result<(), String>,
    ) -> Result<(), String> {
        if self.clients[client].deaf && !closed {
            return Ok(());
        }
        let mut buffer = std::mem::take(&mut self.buffer);
        let result = loop {
            let one = &mut self.clients[client];
            let Some(stream) = &mut one.stream else { break Ok(()) };
            // A tail that fills the buffer is a packet larger than it.
            let kept = one.tail.len();
            if buffer.len() < kept + BUFFER / 2 {
                buffer.resize(kept + BUFFER, 0);
            }
            buffer[..kept].copy_from_slice(&one.tail);
            let read = match stream.read(&mut buffer[kept..]) {
                Ok(read) => read,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break Ok(()),
                Err(_) => 0,
            };
            if read == 0 {
                self.hang_up(client);
                break script(self, client, Seen::Closed);
            }
            let whole = kept + read < buffer.len();
            self.clients[client].tail.clear();
            if let Err(reason) = self.received(client, &mut buffer, kept, kept + read, script) {
                break Err(reason);
            }
            if whole && !closed {
                break Ok(()); // a short read emptied the socket; what comes is a new edge
            }
        };
        self.buffer = buffer;
        result
    }

    /// Cuts what was read into packets and keeps the rest. Of `bytes[..end]`, what follows `kept` is new.
    fn received(
        &mut self,
        client: usize,
        bytes: &mut [u8],
        kept: usize,
        end: usize,
        script: &mut impl FnMut(&mut Self, usize, Seen<'_>) -> Result<(), String>,
    ) -> Result<(), String> {
        if !self.server.websocket {
            return self.packets(client, &bytes[..end], script);
        }
        let one = &mut self.clients[client];
        one.frames.extend_from_slice(&bytes[kept..end]);
        let mut packets = bytes[..kept].to_vec();
        if one.stage == Stage::Upgrading {
            let Some(head) = one.frames.windows(4).position(|window| window == b"\r\n\r\n") else {
                return Ok(());
            };
            if !one.frames.starts_with(b"HTTP/1.1 101") {
                return Err("the server does not upgrade to WebSocket".to_owned());
            }
            one.frames.drain(..head + 4);
            one.stage = Stage::Open;
            let hello = std::mem::take(&mut one.hello);
            self.send(client, &hello);
        }
        wire::unframe(&mut self.clients[client].frames, &mut packets)?;
        self.packets(client, &packets, script)
    }

    fn packets(
        &mut self,
        client: usize,
        bytes: &[u8],
        script: &mut impl FnMut(&mut Self, usize, Seen<'_>) -> Result<(), String>,
    ) -> Result<(), String> {
        let mut at = 0;
        while let Some((body, end)) = wire::packet(&bytes[at..])? {
            script(self, client, Seen::Packet(bytes[at], &bytes[at + body..at + end]))?;
            at += end;
        }
        self.clients[client].tail.extend_from_slice(&bytes[at..]);
        Ok(())
    }

    /// Opens `count` connections, each with its CONNECT and the filters that `filters` gives it, and waits until all are
    /// acknowledged. A refusal is an error.
    pub(super) fn assemble(
        &mut self,
        count: usize,
        connect: impl Fn(usize, &str) -> Vec<u8>,
        filters: impl Fn(usize) -> Vec<String>,
        qos: u8,
    ) -> Result<Range<usize>, String> {
        let first = self.clients.len();
        let deadline = now() + SETUP;
        // SUBACKs that a client waits for, from CONNACK on.
        let mut left: Vec<usize> = vec![0; count];
        let (mut opened, mut ready) = (0, 0);
        while ready < count {
            while opened < count && opened - ready < AT_ONCE {
                let id = format!("load-{}", first + opened);
                self.dial(connect(opened, &id))?;
                opened += 1;
            }
            self.turn(Duration::from_millis(20), &mut |crowd, client, seen| {
                let Some(place) = client.checked_sub(first) else { return Ok(()) };
                match seen {
                    Seen::Packet(wire::CONNACK, body) => {
                        accepted(body)?;
                        let version = crowd.version();
                        for (at, part) in filters(place).chunks(FILTERS).enumerate() {
                            left[place] += 1;
                            crowd.send(client, &wire::subscribe(at as u16 + 1, part, qos, version));
                        }
                        ready += usize::from(left[place] == 0);
                    }
                    Seen::Packet(wire::SUBACK, body) => {
                        granted(body)?;
                        left[place] -= 1;
                        ready += usize::from(left[place] == 0);
                    }
                    Seen::Packet(..) => {}
                    Seen::Closed => return Err(format!("client {client} was sent away while it was set up")),
                }
                Ok(())
            })?;
            if now() > deadline {
                return Err(format!("setup: {ready} of {count} clients after {} s", SETUP.as_secs()));
            }
        }
        Ok(first..first + count)
    }

    /// Subscribes clients that are connected, each to the filters that `filters` gives it, and waits until all are
    /// granted.
    pub(super) fn subscribe(
        &mut self,
        clients: Range<usize>,
        filters: impl Fn(usize) -> Vec<String>,
        qos: u8,
    ) -> Result<(), String> {
        let deadline = now() + SETUP;
        let (mut asked, mut granted_parts) = (0, 0);
        for (place, client) in clients.enumerate() {
            for (at, part) in filters(place).chunks(FILTERS).enumerate() {
                self.send(client, &wire::subscribe(at as u16 + 1, part, qos, self.version()));
                asked += 1;
            }
            // A client at a time has its requests under way, so that nobody's buffers grow with the test.
            while granted_parts < asked {
                self.turn(Duration::from_millis(20), &mut |_, _, seen| {
                    match seen {
                        Seen::Packet(wire::SUBACK, body) => {
                            granted(body)?;
                            granted_parts += 1;
                        }
                        Seen::Packet(..) => {}
                        Seen::Closed => return Err("a client was sent away while it subscribed".to_owned()),
                    }
                    Ok(())
                })?;
                if now() > deadline {
                    return Err(format!("{granted_parts} of {asked} SUBSCRIBE packets were acknowledged"));
                }
            }
        }
        Ok(())
    }

    /// [`Self::assemble`] with sessions that end with their connections.
    pub(super) fn gather(
        &mut self,
        count: usize,
        filters: impl Fn(usize) -> Vec<String>,
        qos: u8,
    ) -> Result<Range<usize>, String> {
        let version = self.version();
        let connect = |_: usize, id: &str| {
            Connect { client_id: id, version, clean: true, will: None, receive_maximum: u16::MAX }.bytes()
        };
        self.assemble(count, connect, filters, qos)
    }
}

impl Client {
    fn flush(&mut self) {
        if self.stage == Stage::Dialing {
            return;
        }
        let Some(stream) = &mut self.stream else { return };
        while self.written < self.output.len() {
            match stream.write(&self.output[self.written..]) {
                Ok(written) => self.written += written,
                Err(_) => break, // would block: an edge follows; or broken: then reading says so
            }
        }
        if self.written == self.output.len() {
            self.output.clear();
            self.written = 0;
        }
    }
}

fn accepted(connack: &[u8]) -> Result<(), String> {
    match connack {
        [_, 0, ..] => Ok(()),
        [_, code, ..] => Err(format!("CONNACK with code {code}")),
        _ => Err("a CONNACK too short".to_owned()),
    }
}

/// The last codes of a SUBACK are those of the filters, in every version; a property of MQTT 5 is not looked into,
/// because no server sends one with a good answer.
fn granted(suback: &[u8]) -> Result<(), String> {
    match suback.get(2..).unwrap_or_default().iter().find(|&&code| code >= 0x80) {
        Some(code) => Err(format!("SUBACK with code {code}")),
        None => Ok(()),
    }
}
