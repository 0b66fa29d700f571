//! The catalogue: one variant for each thing that can happen, its fields named as the field names them.

use std::net::SocketAddr;
use std::sync::Arc;

use serde::Serialize;

/// A short text in an event. Shared, so that copying a record copies no text; made with `.into()` from `&str` or
/// `String`.
pub type Text = Arc<str>;

/// Bytes of a client identifier, user name or topic in an event; a longer one is cut and ends with `…`.
pub(super) const MAX_TEXT: usize = 1_024;

fn cut(text: &mut Text) {
    const MARK: &str = "…";
    if text.len() > MAX_TEXT {
        let kept = text.get(..text.floor_char_boundary(MAX_TEXT - MARK.len())).unwrap_or_default();
        *text = format!("{kept}{MARK}").into();
    }
}

/// What happened. JSON has the variant's name in snake_case under `type`.
///
/// Reasons are short machine-readable words in snake_case (`keep_alive_timeout`, `not_authorized`), details are a
/// sentence for people. No event holds a password or a payload.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Event {
    /// A broker accepted a CONNECT: the CONNACK with success is on its way.
    ClientConnected {
        /// The client identifier in force, also when the server assigned it.
        clientid: Text,
        /// The user name of the CONNECT.
        username: Option<Text>,
        /// The protocol level of the CONNECT: 3, 4 or 5.
        proto_ver: u8,
        /// The device's address; that of the PROXY header when there is one.
        peer: SocketAddr,
        /// The name of the listener it came by.
        listener: Text,
        /// Clean Start, or Clean Session before 5.0.
        clean_start: bool,
        /// The CONNACK's session present flag.
        session_present: bool,
        /// The keep-alive in force in seconds; 0 is none.
        keep_alive: u16,
    },
    /// A client's connection to a broker ended, by either side.
    ClientDisconnected {
        /// The client identifier.
        clientid: Text,
        /// The device's address.
        peer: SocketAddr,
        /// Why, as a word: `normal`, `keep_alive_timeout`, `taken_over`, `kicked` ...
        reason: Text,
        /// Why, for people; may be empty.
        detail: Text,
    },
    /// A broker did not let a client in.
    ClientRefused {
        /// The client identifier, when the CONNECT could be read.
        clientid: Option<Text>,
        /// The user name of the CONNECT, when it could be read and has one.
        username: Option<Text>,
        /// The device's address.
        peer: SocketAddr,
        /// The Reason Code's name or the rule as a word.
        reason: Text,
        /// For people; may be empty.
        detail: Text,
    },
    /// A second connection with the same client identifier took the session [MQTT-3.1.4-3].
    SessionTakenOver {
        /// The client identifier.
        clientid: Text,
        /// Where the session was.
        old_peer: SocketAddr,
        /// Where it is.
        new_peer: SocketAddr,
    },
    /// A session reached its Session Expiry Interval and is gone.
    SessionExpired {
        /// The client identifier.
        clientid: Text,
    },
    /// Messages were dropped by a rule. Told at a client's first and then whenever their number has doubled, never once per
    /// message: a flood of drops is no flood of events.
    MessageDropped {
        /// Whose queue or connection it was, when there is one.
        clientid: Option<Text>,
        /// The topic of the first of them.
        topic: Text,
        /// The rule as a word: `queue_full`, `expired`, `too_large` ...
        rule: Text,
        /// How many were dropped for this client so far.
        count: u64,
    },
    /// A broker did not do what a connected client asked, by a rule, and the connection goes on. Told at a client's first and then
    /// whenever their number has doubled.
    RequestRefused {
        /// The client identifier.
        clientid: Text,
        /// `publish` or `subscribe`.
        action: Text,
        /// The topic or the topic filter.
        topic: Text,
        /// The rule as a word: `topic_levels`, `max_subscriptions` ...
        reason: Text,
        /// For people.
        detail: Text,
        /// How many requests of this connection were refused so far.
        count: u64,
    },
    /// A peer broke the protocol and was or will be disconnected.
    ProtocolViolation {
        /// The client identifier, once known.
        clientid: Option<Text>,
        /// The device's address.
        peer: SocketAddr,
        /// The Reason Code's name as a word.
        reason: Text,
        /// The clause that was broken, such as `MQTT-3.1.2-3`, when one names it.
        clause: Option<Text>,
        /// For people.
        detail: Text,
    },
    /// The rules file did not allow a client what it asked for. Told at a client's first and then whenever their number has
    /// doubled: a flood of denials is no flood of events.
    AccessDenied {
        /// The client identifier.
        clientid: Text,
        /// The user name of its CONNECT.
        username: Option<Text>,
        /// The device's address.
        peer: SocketAddr,
        /// What it asked for: `publish`, `subscribe` or `will`.
        action: Text,
        /// The topic or filter.
        topic: Text,
        /// How often this connection was denied something so far.
        count: u64,
    },
    /// A client sends faster than it may and is read more slowly. Told at its first pause and then whenever their number has
    /// doubled.
    ClientThrottled {
        /// The client identifier, once known.
        clientid: Option<Text>,
        /// The device's address.
        peer: SocketAddr,
        /// Which limit, as its key: `messages_rate` or `bytes_rate`.
        limit: Text,
        /// How often its connection paused so far.
        count: u64,
    },
    /// The gateway paired a client with a server.
    GatewayConnected {
        /// The client identifier of the CONNECT; empty when the device leaves it to the server.
        clientid: Text,
        /// The user name of the CONNECT.
        username: Option<Text>,
        /// The protocol level of the CONNECT: 3, 4 or 5; 0 for a stream that is not MQTT.
        proto_ver: u8,
        /// The device's address.
        peer: SocketAddr,
        /// The name of the gateway's listener.
        listener: Text,
        /// The name of the upstream.
        upstream: Text,
        /// The server's name, or its address as configured.
        server: Text,
        /// What chose the server: `hash`, `pin`, `least_connections`, `failover` ...
        chosen_by: Text,
    },
    /// A pair of the gateway ended.
    GatewayDisconnected {
        /// The client identifier.
        clientid: Text,
        /// The device's address.
        peer: SocketAddr,
        /// The name of the upstream.
        upstream: Text,
        /// The server's name.
        server: Text,
        /// Bytes from the client to the server.
        bytes_in: u64,
        /// Bytes from the server to the client.
        bytes_out: u64,
        /// How long the pair lived, in milliseconds.
        duration_ms: u64,
        /// Why, as a word: `client_closed`, `server_closed`, `idle_timeout` ...
        reason: Text,
    },
    /// The gateway closed a connection before it had a server. What can come in floods (an access list, a limit) is told once
    /// in a second for each listener and reason; the metrics count all.
    GatewayRefused {
        /// The client identifier, when the CONNECT was read.
        clientid: Option<Text>,
        /// The device's address.
        peer: SocketAddr,
        /// The name of the gateway's listener.
        listener: Text,
        /// Why, as a word: `no_server`, `preread_timeout`, `not_mqtt` ...
        reason: Text,
    },
    /// A server could not be connected to or failed at once.
    UpstreamFailed {
        /// The name of the upstream.
        upstream: Text,
        /// The server's name.
        server: Text,
        /// What went wrong, for people.
        error: Text,
    },
    /// A server of an upstream changed its state.
    ServerStateChanged {
        /// The name of the upstream.
        upstream: Text,
        /// The server's name.
        server: Text,
        /// The state before: `up`, `unavailable` or `draining`.
        from: Text,
        /// The state now: `up`, `unavailable` (connections to it failed), `draining` or `removed`.
        to: Text,
    },
    /// A listener accepts connections.
    ListenerStarted {
        /// The listener's name.
        listener: Text,
        /// The address it is bound to, with the true port.
        bind: SocketAddr,
    },
    /// A listener accepts no more.
    ListenerStopped {
        /// The listener's name.
        listener: Text,
        /// The address it was bound to.
        bind: SocketAddr,
        /// Why, as a word: `removed`, `shutdown` ...
        reason: Text,
    },
    /// A new configuration is in force.
    ConfigReloaded {
        /// What asked for it: `start`, `signal`, `api`.
        source: Text,
        /// What changed, one short line each.
        changes: Vec<Text>,
        /// What the file says and only a restart can change, one short line with its key each.
        restart_needed: Vec<Text>,
    },
    /// A new configuration has problems; the old one stays in force.
    ConfigRejected {
        /// One line each, as `tidegate check` prints them.
        problems: Vec<Text>,
    },
    /// The engine does not do its work; the broker degrades by its rules.
    EngineTrouble {
        /// What is affected: `log`, `register`, `lane`, `lease`.
        primitive: Text,
        /// What went wrong, for people.
        error: Text,
    },
}

/// The name of an [`Event`] without its fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(usize)]
pub enum EventType {
    /// [`Event::ClientConnected`]
    ClientConnected,
    /// [`Event::ClientDisconnected`]
    ClientDisconnected,
    /// [`Event::ClientRefused`]
    ClientRefused,
    /// [`Event::SessionTakenOver`]
    SessionTakenOver,
    /// [`Event::SessionExpired`]
    SessionExpired,
    /// [`Event::MessageDropped`]
    MessageDropped,
    /// [`Event::RequestRefused`]
    RequestRefused,
    /// [`Event::ProtocolViolation`]
    ProtocolViolation,
    /// [`Event::AccessDenied`]
    AccessDenied,
    /// [`Event::ClientThrottled`]
    ClientThrottled,
    /// [`Event::GatewayConnected`]
    GatewayConnected,
    /// [`Event::GatewayDisconnected`]
    GatewayDisconnected,
    /// [`Event::GatewayRefused`]
    GatewayRefused,
    /// [`Event::UpstreamFailed`]
    UpstreamFailed,
    /// [`Event::ServerStateChanged`]
    ServerStateChanged,
    /// [`Event::ListenerStarted`]
    ListenerStarted,
    /// [`Event::ListenerStopped`]
    ListenerStopped,
    /// [`Event::ConfigReloaded`]
    ConfigReloaded,
    /// [`Event::ConfigRejected`]
    ConfigRejected,
    /// [`Event::EngineTrouble`]
    EngineTrouble,
}

impl EventType {
    /// Every type, in the order of the discriminants.
    pub const ALL: [Self; 20] = [
        Self::ClientConnected,
        Self::ClientDisconnected,
        Self::ClientRefused,
        Self::SessionTakenOver,
        Self::SessionExpired,
        Self::MessageDropped,
        Self::RequestRefused,
        Self::ProtocolViolation,
        Self::AccessDenied,
        Self::ClientThrottled,
        Self::GatewayConnected,
        Self::GatewayDisconnected,
        Self::GatewayRefused,
        Self::UpstreamFailed,
        Self::ServerStateChanged,
        Self::ListenerStarted,
        Self::ListenerStopped,
        Self::ConfigReloaded,
        Self::ConfigRejected,
        Self::EngineTrouble,
    ];

    /// The name in JSON, in filters and in the metrics' label `type`.
    pub fn name(self) -> &'static str {
        match self {
            Self::ClientConnected => "client_connected",
            Self::ClientDisconnected => "client_disconnected",
            Self::ClientRefused => "client_refused",
            Self::SessionTakenOver => "session_taken_over",
            Self::SessionExpired => "session_expired",
            Self::MessageDropped => "message_dropped",
            Self::RequestRefused => "request_refused",
            Self::ProtocolViolation => "protocol_violation",
            Self::AccessDenied => "access_denied",
            Self::ClientThrottled => "client_throttled",
            Self::GatewayConnected => "gateway_connected",
            Self::GatewayDisconnected => "gateway_disconnected",
            Self::GatewayRefused => "gateway_refused",
            Self::UpstreamFailed => "upstream_failed",
            Self::ServerStateChanged => "server_state_changed",
            Self::ListenerStarted => "listener_started",
            Self::ListenerStopped => "listener_stopped",
            Self::ConfigReloaded => "config_reloaded",
            Self::ConfigRejected => "config_rejected",
            Self::EngineTrouble => "engine_trouble",
        }
    }
}

impl Event {
    /// This event's type.
    pub fn event_type(&self) -> EventType {
        match self {
            Self::ClientConnected { .. } => EventType::ClientConnected,
            Self::ClientDisconnected { .. } => EventType::ClientDisconnected,
            Self::ClientRefused { .. } => EventType::ClientRefused,
            Self::SessionTakenOver { .. } => EventType::SessionTakenOver,
            Self::SessionExpired { .. } => EventType::SessionExpired,
            Self::MessageDropped { .. } => EventType::MessageDropped,
            Self::RequestRefused { .. } => EventType::RequestRefused,
            Self::ProtocolViolation { .. } => EventType::ProtocolViolation,
            Self::AccessDenied { .. } => EventType::AccessDenied,
            Self::ClientThrottled { .. } => EventType::ClientThrottled,
            Self::GatewayConnected { .. } => EventType::GatewayConnected,
            Self::GatewayDisconnected { .. } => EventType::GatewayDisconnected,
            Self::GatewayRefused { .. } => EventType::GatewayRefused,
            Self::UpstreamFailed { .. } => EventType::UpstreamFailed,
            Self::ServerStateChanged { .. } => EventType::ServerStateChanged,
            Self::ListenerStarted { .. } => EventType::ListenerStarted,
            Self::ListenerStopped { .. } => EventType::ListenerStopped,
            Self::ConfigReloaded { .. } => EventType::ConfigReloaded,
            Self::ConfigRejected { .. } => EventType::ConfigRejected,
            Self::EngineTrouble { .. } => EventType::EngineTrouble,
        }
    }

    /// Cuts the texts that a peer chose: some may be 64 KiB long, and thousands of them are kept and logged.
    pub(super) fn shorten(&mut self) {
        match self {
            Self::ClientConnected { clientid, username, .. }
            | Self::GatewayConnected { clientid, username, .. } => {
                cut(clientid);
                username.iter_mut().for_each(cut);
            }
            Self::ClientDisconnected { clientid, .. }
            | Self::SessionTakenOver { clientid, .. }
            | Self::SessionExpired { clientid }
            | Self::GatewayDisconnected { clientid, .. } => cut(clientid),
            Self::ClientRefused { clientid, username, .. } => {
                clientid.iter_mut().chain(username).for_each(cut);
            }
            Self::ClientThrottled { clientid, .. }
            | Self::GatewayRefused { clientid, .. }
            | Self::ProtocolViolation { clientid, .. } => {
                clientid.iter_mut().for_each(cut);
            }
            Self::MessageDropped { clientid, topic, .. } => {
                clientid.iter_mut().for_each(cut);
                cut(topic);
            }
            Self::RequestRefused { clientid, topic, .. } => {
                cut(clientid);
                cut(topic);
            }
            Self::AccessDenied { clientid, username, topic, .. } => {
                cut(clientid);
                username.iter_mut().for_each(cut);
                cut(topic);
            }
            Self::UpstreamFailed { .. }
            | Self::ServerStateChanged { .. }
            | Self::ListenerStarted { .. }
            | Self::ListenerStopped { .. }
            | Self::ConfigReloaded { .. }
            | Self::ConfigRejected { .. }
            | Self::EngineTrouble { .. } => {}
        }
    }

    /// The client the event is about, when there is one.
    pub fn clientid(&self) -> Option<&str> {
        match self {
            Self::ClientConnected { clientid, .. }
            | Self::ClientDisconnected { clientid, .. }
            | Self::SessionTakenOver { clientid, .. }
            | Self::SessionExpired { clientid }
            | Self::RequestRefused { clientid, .. }
            | Self::AccessDenied { clientid, .. }
            | Self::GatewayConnected { clientid, .. }
            | Self::GatewayDisconnected { clientid, .. } => Some(clientid),
            Self::ClientRefused { clientid, .. }
            | Self::ClientThrottled { clientid, .. }
            | Self::GatewayRefused { clientid, .. }
            | Self::MessageDropped { clientid, .. }
            | Self::ProtocolViolation { clientid, .. } => clientid.as_deref(),
            _ => None,
        }
    }
}
