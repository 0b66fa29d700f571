//! One network connection as its worker sees it: no socket, only bytes in, bytes out and a phase.
//!
//! LIFECYCLE: [`Phase::Connect`] (waits for CONNECT, bounded in time) → [`Phase::Authenticating`] (its password is compared, where
//! there are passwords; bounded in time) → [`Phase::Claiming`] (the client id is ours as soon as
//! its owner before has let go; the stored session is read, what must be remembered is written) → [`Phase::Connected`]
//! → [`Phase::Leaving`] (the end is known; the session is written back) → [`Phase::Over`]. The slot is free when the phase is over
//! *and* the socket is closed. `Worker::end` is the only way out.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::Waker;
use std::time::Instant;

use access::Policy;
use mqtt::packet::Connect;
use mqtt::{PacketId, QoS, ReasonCode, Version};

use crate::authenticate::Authenticating;
use crate::buffers::Buffers;
use crate::caller::Caller;
use crate::config::{BrokerConfig, ClientRates};
use crate::message::Message;
use crate::registry::Owner;
use crate::session::Session;
use crate::session_store::{About, Offline};
use crate::throttle::Throttle;
use crate::topic_alias::{Incoming, Outgoing};

/// Which use of which slot: slots are used again, this is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ConnId {
    pub(crate) slot: u32,
    pub(crate) generation: u32,
}

impl ConnId {
    /// No connection: whose acknowledgements are for a delayed message.
    pub(crate) const DELAYED: Self = Self { slot: u32::MAX, generation: 0 };
}

/// What is known of a proxy before us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Via {
    /// The address of the TCP connection.
    pub(crate) address: SocketAddr,
    /// From its PROXY v2 header.
    pub(crate) unique_id: Option<Box<str>>,
}

/// Who connected, from where, through what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Origin {
    /// The device's own address.
    pub(crate) peer: SocketAddr,
    /// The proxy that stands between, if one does.
    pub(crate) via: Option<Box<Via>>,
    /// Through which listener.
    pub(crate) door: Arc<Door>,
}

/// A listener, as its connections know it: one for all of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Door {
    /// `tcp://address:port` or `ws://address:port`.
    pub(crate) name: Arc<str>,
    pub(crate) allow_anonymous: bool,
    /// How fast each of its clients may send.
    pub(crate) rates: ClientRates,
}

impl Door {
    /// One that asks for nothing, by its name.
    pub(crate) fn named(name: &str) -> Arc<Self> {
        Arc::new(Self { name: name.into(), allow_anonymous: false, rates: ClientRates::default() })
    }
}

/// What CONNACK said is available: it holds for its connection, whatever a reload changes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Told {
    pub(crate) topic_alias_maximum: u16,
    pub(crate) maximum_qos: QoS,
    pub(crate) retain: bool,
    pub(crate) wildcards: bool,
    pub(crate) identifiers: bool,
}

impl Told {
    pub(crate) fn of(config: &BrokerConfig) -> Self {
        Self {
            topic_alias_maximum: config.topic_alias_maximum,
            maximum_qos: config.maximum_qos,
            retain: config.retain_available,
            wildcards: config.wildcard_subscription_available,
            identifiers: config.subscription_identifiers_available,
        }
    }
}

impl Default for Told {
    /// Before CONNACK.
    fn default() -> Self {
        Self {
            topic_alias_maximum: 0,
            maximum_qos: QoS::ExactlyOnce,
            retain: true,
            wildcards: true,
            identifiers: true,
        }
    }
}

/// Why a connection ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// DISCONNECT by the client; `with_will`: it asks for its will all the same (0x04).
    Goodbye { with_will: bool },
    /// The socket was closed or broke without DISCONNECT.
    Lost(&'static str),
    /// The client broke the specification.
    Violation { reason: ReasonCode, clause: &'static str, detail: &'static str },
    /// Nothing came for one and a half keep alive intervals [MQTT-3.1.2-22].
    KeepAlive,
    /// The client connected again, here or elsewhere [MQTT-3.1.4-3].
    TakenOver,
    /// By the operator; the session goes too.
    Kicked,
    /// The broker stops.
    Shutdown,
    /// No CONNECT in time.
    ConnectTimeout,
    /// The client did what it may not, and such clients are sent away (`deny_action`).
    Denied,
    /// The CONNECT was refused with this reason.
    Refused(ReasonCode, &'static str),
}

impl End {
    /// What goes into a DISCONNECT of version 5, if anything.
    pub(crate) fn reason_code(&self) -> Option<ReasonCode> {
        match self {
            Self::Goodbye { .. } | Self::Lost(_) | Self::ConnectTimeout | Self::Refused(..) => None,
            Self::Violation { reason, .. } => Some(*reason),
            Self::KeepAlive => Some(ReasonCode::KeepAliveTimeout),
            Self::TakenOver => Some(ReasonCode::SessionTakenOver),
            Self::Kicked => Some(ReasonCode::AdministrativeAction),
            Self::Shutdown => Some(ReasonCode::ServerShuttingDown),
            Self::Denied => Some(ReasonCode::NotAuthorized),
        }
    }

    /// The word for events and logs.
    pub(crate) fn word(&self) -> &'static str {
        match self {
            Self::Goodbye { .. } => "normal",
            Self::Lost(_) => "connection_lost",
            Self::Violation { reason, .. } | Self::Refused(reason, _) => reason.name(),
            Self::KeepAlive => "keep_alive_timeout",
            Self::TakenOver => "taken_over",
            Self::Kicked => "kicked",
            Self::Shutdown => "server_shutting_down",
            Self::ConnectTimeout => "connect_timeout",
            Self::Denied => ReasonCode::NotAuthorized.name(),
        }
    }

    /// A few words more.
    pub(crate) fn detail(&self) -> &'static str {
        match self {
            Self::Lost(detail) | Self::Refused(_, detail) | Self::Violation { detail, .. } => detail,
            _ => "",
        }
    }

    /// For the transport.
    pub(crate) fn farewell(&self) -> Farewell {
        match self {
            Self::Goodbye { .. } | Self::Lost(_) => Farewell::Normal,
            Self::Shutdown => Farewell::GoingAway,
            Self::Violation { reason: ReasonCode::PacketTooLarge, .. } => Farewell::TooLarge,
            Self::Violation { .. } => Farewell::Violation,
            Self::KeepAlive
            | Self::TakenOver
            | Self::Kicked
            | Self::ConnectTimeout
            | Self::Denied
            | Self::Refused(..) => Farewell::Policy,
        }
    }

    /// Whether the client said good-bye, so that its will is discarded [MQTT-3.1.2-10].
    pub(crate) fn discards_will(&self) -> bool {
        matches!(self, Self::Goodbye { with_will: false })
    }
}

/// Why the broker closes, in the few words that a transport may have for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Farewell {
    /// Nothing is wrong.
    Normal,
    /// The broker stops.
    GoingAway,
    /// The client broke the specification.
    Violation,
    /// It sent more than is taken.
    TooLarge,
    /// A rule of ours: refused, silent, replaced, kicked.
    Policy,
}

/// What a CONNECT still waits for.
pub(crate) struct Connecting {
    pub(crate) connect: Connect<'static>,
    pub(crate) client_id: Arc<str>,
    /// The id was made up by us.
    pub(crate) assigned: bool,
    /// In force, in seconds.
    pub(crate) expiry: u32,
    /// The keep alive that the client is told to use instead of its own (3.2.2.3.14).
    pub(crate) server_keep_alive: Option<u16>,
    /// The stored session that is being read.
    pub(crate) stored: Option<Box<Offline>>,
    pub(crate) records: Vec<engine::Record>,
    /// The session, once it is made or read.
    pub(crate) session: Option<Box<Session>>,
    /// Filters that the session had for another user and that this one may not have.
    pub(crate) withdrawn: Vec<Box<str>>,
    pub(crate) session_present: bool,
    /// It broke while it was connecting: goes as soon as it owns what it waits for.
    pub(crate) ended: Option<End>,
}

impl Connecting {
    /// Who connects.
    pub(crate) fn caller(&self) -> Caller {
        Caller { client_id: Some(Arc::clone(&self.client_id)), ..Caller::of(&self.connect) }
    }
}

/// See the module.
pub(crate) enum Phase {
    Connect,
    Authenticating(Box<Authenticating>),
    Claiming(Box<Connecting>),
    Connected,
    /// With what is known about the end.
    Leaving(Box<Leaving>),
    Over,
}

/// A connection whose end is known.
pub(crate) struct Leaving {
    pub(crate) end: End,
    /// The final record is being written.
    pub(crate) writing: bool,
    /// What goes into the index once it is written.
    pub(crate) offline: Option<Box<Offline>>,
}

/// Which acknowledgement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AckKind {
    Puback,
    Pubrec,
    Pubcomp,
}

/// An acknowledgement that waits for the engine, or for one before it: they go out in the order of the packets they
/// answer [MQTT-4.6.0-2], [MQTT-4.6.0-3].
pub(crate) struct PendingAck {
    pub(crate) kind: AckKind,
    pub(crate) packet_id: PacketId,
    pub(crate) reason: ReasonCode,
    /// The Reason String of a refusal; empty: none.
    pub(crate) why: &'static str,
    /// Engine operations it still waits for.
    pub(crate) waits: u8,
    /// PUBCOMP of a durable session: the stored message goes before it is sent.
    pub(crate) then_forget: bool,
}

/// Names a [`PendingAck`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct AckRef {
    pub(crate) conn: ConnId,
    pub(crate) seq: u64,
}

/// A will and its delay in seconds.
pub(crate) struct PendingWill {
    pub(crate) message: Arc<Message>,
    pub(crate) delay: u32,
}

/// A connection.
pub(crate) struct Conn {
    pub(crate) generation: u32,
    pub(crate) version: Version,
    pub(crate) phase: Phase,
    pub(crate) origin: Origin,
    /// It came above `accept_rate`: its CONNECT is refused.
    pub(crate) late: bool,
    pub(crate) session: Option<Box<Session>>,
    pub(crate) about: Option<About>,
    pub(crate) will: Option<Box<PendingWill>>,
    extras: Option<Box<Extras>>,
    /// The unfinished packet at the end of what was read; never empty.
    #[expect(clippy::box_collection, reason = "nearly no connection has one, and it grows where it is")]
    pub(crate) tail: Option<Box<Vec<u8>>>,
    /// Encoded and not yet written; `sent` bytes of it are.
    pub(crate) out: Vec<u8>,
    pub(crate) sent: usize,
    /// Somebody had something for it and the buffer was full.
    pub(crate) stalled: bool,
    /// On the worker's dirty list.
    pub(crate) dirty: bool,
    pub(crate) acks: VecDeque<PendingAck>,
    pub(crate) acks_first: u64,
    /// SUBSCRIBE or UNSUBSCRIBE of a durable session that is being written: nothing is read meanwhile.
    pub(crate) busy: bool,
    /// When bytes came last; once it is closing, since when.
    pub(crate) last_received: Instant,
    /// One and a half keep alive intervals in milliseconds; 0: never.
    pub(crate) keep_alive_ms: u32,
    /// Largest packet the client takes.
    pub(crate) max_packet: u32,
    /// The client wants Reason Strings in every packet (3.1.2.11.7).
    pub(crate) problem_information: bool,
    /// What its client may count on.
    pub(crate) told: Told,
    /// It was sent a successful CONNACK: only then its end is news.
    pub(crate) greeted: bool,
    /// Close the socket once `out` is written.
    pub(crate) closing: bool,
    /// Close it so that the last packet is not lost: the client did not say good-bye, we did.
    pub(crate) linger: bool,
    /// What the transport says as its last word; the first reason counts.
    pub(crate) farewell: Option<Farewell>,
    /// Its time to take the last bytes is over.
    pub(crate) killed: bool,
    pub(crate) socket_open: bool,
    pub(crate) recv_msg: u64,
    pub(crate) send_msg: u64,
    pub(crate) recv_oct: u64,
    pub(crate) send_oct: u64,
    /// Of the driver's task of this connection.
    pub(crate) waker: Option<Waker>,
}

/// What few connections have: one word for all of it in each of the others.
#[derive(Default)]
pub(crate) struct Extras {
    /// What it may do, once it was asked for; nothing where there is no rules file.
    pub(crate) policy: Option<Box<Policy>>,
    /// How fast it sends, where that is bounded.
    pub(crate) throttle: Option<Box<Throttle>>,
    /// What its Topic Aliases stand for; one that uses none has none.
    pub(crate) aliases_in: Option<Box<Incoming>>,
    /// The Topic Aliases it was given; one that takes none has none.
    pub(crate) aliases_out: Option<Box<Outgoing>>,
    /// Who waits for us to let go.
    pub(crate) waiter: Option<Box<(Owner, SocketAddr)>>,
    /// Requests that were refused.
    pub(crate) refusals: u32,
}

/// Written bytes above which they are taken out of the front of a buffer that never becomes empty.
const COMPACT_FROM: usize = 64 * 1024;

/// Unsent acknowledgements of one connection above which it is not read: MQTT 3.1.1 has no Receive Maximum of its own.
pub(crate) const MAX_PENDING_ACKS: usize = 2_048;

impl Conn {
    pub(crate) fn new(generation: u32, origin: Origin, late: bool, now: Instant) -> Self {
        let throttle = Throttle::new(origin.door.rates);
        Self {
            generation,
            version: Version::V311,
            phase: Phase::Connect,
            session: None,
            about: None,
            will: None,
            extras: throttle
                .map(|throttle| Box::new(Extras { throttle: Some(throttle), ..Extras::default() })),
            origin,
            late,
            tail: None,
            out: Vec::new(),
            sent: 0,
            stalled: false,
            dirty: false,
            acks: VecDeque::new(),
            acks_first: 0,
            busy: false,
            last_received: now,
            keep_alive_ms: 0,
            max_packet: u32::MAX,
            problem_information: true,
            told: Told::default(),
            greeted: false,
            closing: false,
            linger: false,
            farewell: None,
            killed: false,
            socket_open: true,
            recv_msg: 0,
            send_msg: 0,
            recv_oct: 0,
            send_oct: 0,
            waker: None,
        }
    }

    /// What few connections have, to add to it.
    pub(crate) fn extras_mut(&mut self) -> &mut Extras {
        self.extras.get_or_insert_default()
    }

    pub(crate) fn throttle(&self) -> Option<&Throttle> {
        self.extras.as_ref()?.throttle.as_deref()
    }

    pub(crate) fn throttle_mut(&mut self) -> Option<&mut Throttle> {
        self.extras.as_mut()?.throttle.as_deref_mut()
    }

    pub(crate) fn policy_mut(&mut self) -> Option<&mut Policy> {
        self.extras.as_mut()?.policy.as_deref_mut()
    }

    pub(crate) fn aliases_in(&self) -> Option<&Incoming> {
        self.extras.as_ref()?.aliases_in.as_deref()
    }

    pub(crate) fn aliases_out_mut(&mut self) -> Option<&mut Outgoing> {
        self.extras.as_mut()?.aliases_out.as_deref_mut()
    }

    /// Whether it may be given Topic Aliases.
    pub(crate) fn has_aliases_out(&self) -> bool {
        self.extras.as_ref().is_some_and(|extras| extras.aliases_out.is_some())
    }

    /// Who waits for us to let go.
    pub(crate) fn waiter(&self) -> Option<&(Owner, SocketAddr)> {
        self.extras.as_ref()?.waiter.as_deref()
    }

    pub(crate) fn take_waiter(&mut self) -> Option<(Owner, SocketAddr)> {
        self.extras.as_mut()?.waiter.take().map(|waiter| *waiter)
    }

    /// Bytes that wait to be written.
    pub(crate) fn unsent(&self) -> usize {
        self.out.len() - self.sent
    }

    /// Where the next packet, of about `len` bytes, is appended; `None`: nothing is sent any more [MQTT-3.14.4-1].
    #[inline]
    pub(crate) fn outbox(&mut self, pool: &mut Buffers, len: usize) -> Option<&mut Vec<u8>> {
        if !self.socket_open || self.closing {
            return None;
        }
        if self.sent >= COMPACT_FROM && self.sent >= self.unsent() {
            // a client that takes bytes as slowly as they come must not keep those it has taken
            self.out.drain(..self.sent);
            self.sent = 0;
        }
        pool.grow(&mut self.out, len.max(1));
        Some(&mut self.out)
    }

    /// Whether packets of this connection may be looked at now.
    pub(crate) fn processes(&self) -> bool {
        !self.closing
            && !self.busy
            && self.throttle().is_none_or(|t| !t.is_paused())
            && self.acks.len() < MAX_PENDING_ACKS
            && matches!(self.phase, Phase::Connect | Phase::Connected)
    }

    pub(crate) fn is_connected(&self) -> bool {
        matches!(self.phase, Phase::Connected)
    }

    pub(crate) fn wake(&self) {
        if let Some(waker) = &self.waker {
            waker.wake_by_ref();
        }
    }
}
