//! The client's side of the protocol as a pure state machine.
//!
//! Bytes, commands and `now` go in; bytes, completions, events and a deadline come out. It lives as long as the client:
//! a connection begins with [`Machine::start`] and ends with [`Machine::lost`] or by its own decision, and the session
//! (messages in flight, QoS 2 identifiers) goes on with the next one. Must not know: sockets, tasks, names of hosts.

mod commands;
mod packets;
mod timers;

#[cfg(test)]
mod tests;

use std::collections::{HashMap, VecDeque};
use std::io;
use std::time::Instant;

use mqtt::codec::decode::{Role, decode};
use mqtt::codec::encode::encode;
use mqtt::codec::{DecodeError, Decoded};
use mqtt::inflight::{InFlight, Inbound, Outbound};
use mqtt::packet::{Disconnect, DisconnectProperties, Packet};
use mqtt::{PacketId, QoS, ReasonCode};

use crate::error::{Disconnected, PublishError, RequestError};
use crate::message::{Connected, Granted, Message, Received, Unsubscribed};
use crate::options::Options;

pub use commands::{Goodbye, SubscribeRequest, UnsubscribeRequest};

/// While more bytes than this wait to be written, no commands are accepted and nothing should be read: a broker that
/// does not read gets no memory of ours.
pub const OUTPUT_LIMIT: usize = 256 * 1024;

/// SUBSCRIBE and UNSUBSCRIBE packets that may wait for their answers at once.
const REQUEST_LIMIT: usize = 32;

/// What the protocol can express: the largest remaining length and five bytes of fixed header.
const LARGEST_PACKET: u32 = mqtt::codec::MAX_REMAINING_LENGTH + 5;

/// Something for the application, in order.
#[derive(Debug)]
pub enum Event {
    /// CONNACK with success.
    Connected(Connected),
    /// A message. It is acknowledged when it is taken from the machine.
    Message(Received),
}

/// A command is done; `T` is what the caller gave with it.
#[derive(Debug)]
pub enum Completion<T> {
    /// QoS 0: written. QoS 1 and 2: the last step is done; the reason is that of PUBACK or PUBREC.
    Published(T, Result<ReasonCode, PublishError>),
    /// SUBACK.
    Subscribed(T, Result<Granted, RequestError>),
    /// UNSUBACK.
    Unsubscribed(T, Result<Unsubscribed, RequestError>),
}

/// Where the connection stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// There is none.
    Idle,
    /// CONNECT is written, CONNACK awaited until then.
    Connecting(Instant),
    /// CONNACK said yes.
    Connected,
    /// It is over by decision: what is in the output is to be written, then the transport closed.
    Closing,
}

/// A message in flight and who waits for it.
#[derive(Debug)]
struct Sent<T> {
    message: Message,
    token: T,
}

/// A SUBSCRIBE or UNSUBSCRIBE that waits for its answer.
#[derive(Debug)]
struct Request<T> {
    packet_id: PacketId,
    kind: RequestKind,
    filters: usize,
    token: T,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RequestKind {
    Subscribe,
    Unsubscribe,
}

/// What CONNACK allows us.
#[derive(Clone, Copy, Debug)]
struct Limits {
    keep_alive: u16,
    receive_maximum: u16,
    maximum_qos: QoS,
    retain_available: bool,
    maximum_packet_size: u32,
    topic_alias_maximum: u16,
}

/// The client's side of the protocol. `T` is handed back with the completion of a command.
#[derive(Debug)]
pub struct Machine<T> {
    options: Options,
    state: State,
    /// Successful CONNACKs so far.
    connections: u64,
    /// Whether the CONNECT under way asked for a clean start.
    asked_clean: bool,
    limits: Limits,

    outbound: Outbound<Sent<T>>,
    /// QoS 2 messages that are released (PUBREC came) and wait for PUBCOMP.
    released: HashMap<PacketId, (T, ReasonCode)>,
    /// In flight from an earlier connection and not yet sent again on this one, in order.
    unsent: VecDeque<PacketId>,
    /// The identifier that the newest message in flight got.
    last_id: PacketId,
    requests: Vec<Request<T>>,

    inbound: Inbound,
    /// Topic aliases of the broker, of this connection.
    aliases: HashMap<u16, String>,
    /// The front of a packet whose end has not arrived.
    partial: Vec<u8>,

    output: Vec<u8>,
    events: VecDeque<(u64, Event)>,
    completions: VecDeque<Completion<T>>,
    /// Why the last connection ended.
    end: Option<Disconnected>,
    timers: timers::Timers,
}

impl<T> Machine<T> {
    /// A machine without a connection.
    pub fn new(options: Options) -> Self {
        let limits = Limits {
            keep_alive: options.keep_alive,
            receive_maximum: options.max_inflight.max(1),
            maximum_qos: QoS::ExactlyOnce,
            retain_available: true,
            maximum_packet_size: LARGEST_PACKET,
            topic_alias_maximum: 0,
        };
        Self {
            inbound: Inbound::new(options.receive_maximum.unwrap_or(u16::MAX)),
            outbound: Outbound::new(limits.receive_maximum),
            timers: timers::Timers::new(options.clock.now()),
            options,
            state: State::Idle,
            connections: 0,
            asked_clean: false,
            limits,
            released: HashMap::new(),
            unsent: VecDeque::new(),
            last_id: PacketId::new(u16::MAX).unwrap_or(PacketId::MIN),
            requests: Vec::new(),
            aliases: HashMap::new(),
            partial: Vec::new(),
            output: Vec::new(),
            events: VecDeque::new(),
            completions: VecDeque::new(),
            end: None,
        }
    }

    /// The options it was made with.
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// The transport is open: writes CONNECT [MQTT-3.1.0-1].
    ///
    /// CONNACK has to be here at `deadline`.
    pub fn start(&mut self, now: Instant, deadline: Instant) {
        self.output.clear();
        self.partial.clear();
        self.end = None;
        self.timers.start(now);
        let connect = self.options.connect_packet(self.connections > 0);
        self.asked_clean = connect.clean_start;
        let version = self.options.version;
        match encode(&Packet::Connect(Box::new(connect)), version, &mut self.output) {
            Ok(()) => self.state = State::Connecting(deadline),
            Err(error) => self.close(Disconnected::Options(error.to_string())),
        }
    }

    /// Bytes from the broker.
    pub fn receive(&mut self, bytes: &[u8], now: Instant) {
        if bytes.is_empty() || !self.is_open() {
            return;
        }
        self.timers.received(now);
        if self.partial.is_empty() {
            let used = self.packets(bytes, now);
            self.partial.extend_from_slice(bytes.get(used..).unwrap_or_default());
        } else {
            let mut buffer = std::mem::take(&mut self.partial);
            buffer.extend_from_slice(bytes);
            let used = self.packets(&buffer, now);
            buffer.drain(..used);
            self.partial = buffer;
        }
        if !self.is_open() {
            self.partial = Vec::new();
        }
    }

    /// Takes whole packets off the front of `input`; returns the bytes they took.
    fn packets(&mut self, input: &[u8], now: Instant) -> usize {
        let largest = self.options.maximum_packet_size.unwrap_or(LARGEST_PACKET);
        let mut used = 0;
        while self.is_open() {
            let rest = input.get(used..).unwrap_or_default();
            if rest.is_empty() {
                break;
            }
            match decode(rest, self.options.version, Role::Server, largest) {
                Ok(Decoded::Packet(packet, len)) => {
                    used += len;
                    if let Err(error) = self.packet(packet, now) {
                        self.violated(error);
                    }
                }
                Ok(Decoded::Incomplete(_)) => break,
                Err(error) => match self.refusal_of_an_older_broker(rest) {
                    Some(refused) => self.close(refused),
                    None => self.violated(error),
                },
            }
        }
        used
    }

    /// A broker that does not know version 5 answers its CONNECT with a CONNACK of 3.1.1, which is malformed in 5.
    fn refusal_of_an_older_broker(&self, input: &[u8]) -> Option<Disconnected> {
        match (self.state, input) {
            (State::Connecting(_), &[0x20, 0x02, 0x00, code, ..]) if self.options.version.is_v5() => {
                let reason = ReasonCode::from_v3_connack(code).filter(|reason| reason.is_error())?;
                Some(Disconnected::Refused { reason, reason_string: None, server_reference: None })
            }
            _ => None,
        }
    }

    /// The broker broke the specification: say so where the version can, and close [4.13.1].
    fn violated(&mut self, error: DecodeError) {
        self.say_goodbye(Goodbye { reason: error.reason, ..Goodbye::default() });
        self.close(Disconnected::Protocol(error));
    }

    /// Writes DISCONNECT. Before version 5 it exists only for a normal end; other reasons are told by closing.
    fn say_goodbye(&mut self, goodbye: Goodbye) {
        let version = self.options.version;
        if !version.is_v5() && goodbye.reason != ReasonCode::Success {
            return;
        }
        let mut properties = DisconnectProperties::default();
        if version.is_v5() {
            properties.session_expiry_interval = goodbye.session_expiry_interval;
            properties.user_properties = commands::owned_pairs(goodbye.user_properties);
        }
        let packet = Packet::Disconnect(Disconnect { reason: goodbye.reason, properties });
        // A reason that a client may not send leaves the output as it was; the closed connection says it all.
        let _ = encode(&packet, version, &mut self.output);
    }

    /// Ends the connection; the session stays.
    fn close(&mut self, why: Disconnected) {
        self.state = State::Closing;
        self.partial = Vec::new();
        self.aliases = HashMap::new();
        self.unsent = VecDeque::new();
        for request in std::mem::take(&mut self.requests) {
            self.completions.push_back(request.fail(RequestError::Disconnected));
        }
        if matches!(why, Disconnected::ConnectTimeout | Disconnected::PingTimeout) {
            // Nobody is there to read it.
            self.output.clear();
        }
        self.end = Some(why);
    }

    /// The transport is gone, whoever closed it. Safe to call at any time.
    pub fn lost(&mut self, error: Option<io::Error>) {
        if self.is_open() {
            self.close(Disconnected::Lost(error));
        }
        self.output = Vec::new();
        self.state = State::Idle;
    }

    /// The application drops the connection without a good-bye; nothing more is to be written.
    pub fn abandon(&mut self) {
        if self.is_open() {
            self.close(Disconnected::ByUs);
        }
        self.output.clear();
    }

    /// Why the last connection ended, once.
    pub fn take_end(&mut self) -> Option<Disconnected> {
        self.end.take()
    }

    /// Connections that the broker accepted so far.
    pub fn connections(&self) -> u64 {
        self.connections
    }

    /// There will be no other connection: everything that waits is answered.
    pub fn finish(&mut self) {
        self.lost(None);
        self.forget_session(&PublishError::Closed);
    }

    /// Drops what is in flight in both directions.
    fn forget_session(&mut self, why: &PublishError) {
        let ids: Vec<(PacketId, Option<QoS>)> = self
            .outbound
            .iter()
            .map(|entry| match entry {
                InFlight::Publish { id, qos, .. } => (id, Some(qos)),
                InFlight::Pubrel { id } => (id, None),
            })
            .collect();
        for (id, qos) in ids {
            let token = match qos {
                Some(qos) => self.withdraw(id, qos).map(|sent| sent.token),
                None => self
                    .outbound
                    .pubcomp(id)
                    .then(|| self.released.remove(&id))
                    .flatten()
                    .map(|(token, _)| token),
            };
            if let Some(token) = token {
                self.completions.push_back(Completion::Published(token, Err(why.clone())));
            }
        }
        self.inbound = Inbound::new(self.options.receive_maximum.unwrap_or(u16::MAX));
    }

    /// A connection is under way or up.
    pub fn is_open(&self) -> bool {
        matches!(self.state, State::Connecting(_) | State::Connected)
    }

    /// CONNACK said yes and nothing ended it since.
    pub fn is_connected(&self) -> bool {
        self.state == State::Connected
    }

    /// The connection is over: write the output, then close the transport and call [`Machine::lost`].
    pub fn wants_close(&self) -> bool {
        self.state == State::Closing
    }

    /// Bytes to write.
    pub fn output(&self) -> &[u8] {
        &self.output
    }

    /// The first `len` bytes of the output are written.
    pub fn written(&mut self, len: usize, now: Instant) {
        self.output.drain(..len.min(self.output.len()));
        if self.output.is_empty() && self.output.capacity() > OUTPUT_LIMIT {
            self.output = Vec::new();
        }
        self.timers.sent(now);
    }

    /// Whether the next [`Machine::poll_event`] gives one.
    pub fn has_event(&self) -> bool {
        !self.events.is_empty()
    }

    /// The next event. Taking a message acknowledges it, if the connection it came by is still up.
    pub fn poll_event(&mut self) -> Option<Event> {
        let (connection, event) = self.events.pop_front()?;
        if let Event::Message(received) = &event
            && connection == self.connections
            && self.is_connected()
            && let Some(id) = received.packet_id
        {
            self.acknowledge(received.message.qos, id);
        }
        Some(event)
    }

    /// The next completion.
    pub fn poll_completion(&mut self) -> Option<Completion<T>> {
        self.completions.pop_front()
    }
}

impl<T> Request<T> {
    fn fail(self, error: RequestError) -> Completion<T> {
        match self.kind {
            RequestKind::Subscribe => Completion::Subscribed(self.token, Err(error)),
            RequestKind::Unsubscribe => Completion::Unsubscribed(self.token, Err(error)),
        }
    }
}
