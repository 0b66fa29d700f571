//! Why the gateway does not start, why a connection is refused, why one ends: each with its word and its answer.

use std::fmt;

use mqtt::codec::DecodeError;
use mqtt::codec::encode::encode;
use mqtt::packet::{Connack, ConnackProperties, Packet};
use mqtt::{ReasonCode, Version};

use crate::route::NoKey;

/// Why a gateway can't start, or why a new configuration can't be put in force.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address can't be listened on.
    #[error(transparent)]
    Listen(#[from] net::listener::ListenError),
    /// The session log's file can't be opened.
    #[error("the session log {file}: {error}")]
    SessionLog {
        /// The file.
        file: String,
        /// Why.
        error: std::io::Error,
    },
    /// A worker did not take its listener within the time for it.
    #[error("the workers do not answer; the process is stopping or overloaded")]
    Workers,
    /// The gateway was stopped.
    #[error("the gateway is stopped")]
    Stopped,
}

/// Why a connection got no server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The listener's `max_connections` are open; closed before a byte was read.
    MaxConnections,
    /// The listener's `access` list denies the device's address.
    AccessDenied,
    /// The listener's `max_connections_per_address` are open from the device's address.
    AddressLimit,
    /// Above the listener's `accept_rate`.
    ConnectionRate,
    /// A PROXY header was expected from this trusted address, and something else came.
    ProxyHeaderMissing,
    /// A PROXY header that breaks its specification.
    ProxyHeaderInvalid,
    /// A PROXY header from an address that is not trusted.
    ProxyHeaderUntrusted,
    /// The peer closed before its names were known.
    ClosedEarly,
    /// The names were not known within `preread_timeout`.
    PrereadTimeout,
    /// A CONNECT that breaks the specification or the bound, and the version to answer in.
    Malformed(DecodeError, Option<Version>),
    /// No key, and the rule says so.
    NoKey(NoKey),
    /// No server of the upstream takes new connections.
    NoServer,
    /// Every server tried failed or timed out.
    ServersFailed,
    /// Every server that could take it has its `max_conns`, and there is no queue.
    ServersFull,
    /// The same, and the queue is full.
    QueueFull,
    /// The same, and no place was found within `queue_timeout`.
    QueueTimeout,
    /// The process has no descriptor or memory left for a second socket.
    NoDescriptors,
    /// The process stops.
    ShuttingDown,
}

impl Refusal {
    /// Every word of [`Refusal::name`], in the order of [`Refusal::index`].
    pub const NAMES: [&str; 20] = [
        "max_connections",
        "connection_rate",
        "proxy_header_missing",
        "proxy_header_invalid",
        "proxy_header_untrusted",
        "closed_early",
        "preread_timeout",
        "malformed",
        "empty_client_id",
        "no_username",
        "not_mqtt",
        "no_server",
        "servers_failed",
        "no_descriptors",
        "shutting_down",
        "access_denied",
        "max_connections_per_address",
        "servers_full",
        "queue_full",
        "queue_timeout",
    ];

    /// Its place in [`Refusal::NAMES`].
    pub const fn index(&self) -> usize {
        match self {
            Self::MaxConnections => 0,
            Self::ConnectionRate => 1,
            Self::ProxyHeaderMissing => 2,
            Self::ProxyHeaderInvalid => 3,
            Self::ProxyHeaderUntrusted => 4,
            Self::ClosedEarly => 5,
            Self::PrereadTimeout => 6,
            Self::Malformed(..) => 7,
            Self::NoKey(NoKey::EmptyClientId) => 8,
            Self::NoKey(NoKey::NoUsername) => 9,
            Self::NoKey(NoKey::NotMqtt) => 10,
            Self::NoServer => 11,
            Self::ServersFailed => 12,
            Self::NoDescriptors => 13,
            Self::ShuttingDown => 14,
            Self::AccessDenied => 15,
            Self::AddressLimit => 16,
            Self::ServersFull => 17,
            Self::QueueFull => 18,
            Self::QueueTimeout => 19,
        }
    }

    /// For events, logs and metrics; stable.
    pub fn name(&self) -> &'static str {
        Self::NAMES.get(self.index()).copied().unwrap_or("other")
    }

    /// Whether somebody outside can bring it about as often as they connect: then it is told of now and then only.
    pub(crate) const fn floods(&self) -> bool {
        matches!(
            self,
            Self::MaxConnections
                | Self::ConnectionRate
                | Self::AccessDenied
                | Self::AddressLimit
                | Self::ServersFull
                | Self::QueueFull
                | Self::QueueTimeout
        )
    }

    /// What CONNACK says; `None`: it is closed without an answer.
    const fn reason(&self) -> Option<ReasonCode> {
        match self {
            Self::ConnectionRate => Some(ReasonCode::ConnectionRateExceeded),
            Self::Malformed(error, Some(_)) => Some(error.reason),
            Self::NoKey(NoKey::EmptyClientId) => Some(ReasonCode::ClientIdentifierNotValid),
            Self::NoKey(NoKey::NoUsername) => Some(ReasonCode::BadUserNameOrPassword),
            Self::NoServer | Self::ServersFailed | Self::NoDescriptors => Some(ReasonCode::ServerUnavailable),
            Self::ServersFull | Self::QueueFull | Self::QueueTimeout => Some(ReasonCode::ServerBusy),
            // 0x8B is no code of CONNACK: table 2-6 has it for DISCONNECT only.
            Self::ShuttingDown => Some(ReasonCode::ServerUnavailable),
            _ => None,
        }
    }

    /// The CONNACK for a client whose CONNECT was read as `version`; empty: close without an answer. The client
    /// knows by a code from 0x80 that the connection ends [MQTT-3.2.2-7]; before version 5 by a return code that
    /// is not zero [v3 MQTT-3.2.2-5].
    pub fn answer(&self, version: Option<Version>) -> Vec<u8> {
        let version = match self {
            Self::Malformed(_, version) => *version,
            _ => version,
        };
        let mut bytes = Vec::new();
        if let (Some(reason), Some(version)) = (self.reason(), version) {
            let properties = ConnackProperties::default();
            let packet = Packet::Connack(Box::new(Connack { session_present: false, reason, properties }));
            // A code that CONNACK can't carry leaves the answer empty: closing is right then, too.
            let _ = encode(&packet, version, &mut bytes);
        }
        bytes
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(error, _) => error.fmt(f),
            other => f.write_str(other.name()),
        }
    }
}

/// Why a connection that had a server ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The client closed first.
    ClientClosed,
    /// The server closed first.
    ServerClosed,
    /// The client's connection broke.
    ClientFailed,
    /// The server's connection broke.
    ServerFailed,
    /// Nothing came either way for `idle_timeout`.
    IdleTimeout,
    /// One side had closed, and nothing more came from the other.
    HalfClosed,
    /// The process stops.
    Shutdown,
}

impl End {
    /// Every reason, in the order of [`End::index`].
    pub const ALL: [Self; 7] = [
        Self::ClientClosed,
        Self::ServerClosed,
        Self::ClientFailed,
        Self::ServerFailed,
        Self::IdleTimeout,
        Self::HalfClosed,
        Self::Shutdown,
    ];

    /// Its place in [`End::ALL`].
    pub const fn index(self) -> usize {
        self as usize
    }

    /// For events, logs and metrics; stable.
    pub const fn name(self) -> &'static str {
        match self {
            Self::ClientClosed => "client_closed",
            Self::ServerClosed => "server_closed",
            Self::ClientFailed => "client_failed",
            Self::ServerFailed => "server_failed",
            Self::IdleTimeout => "idle_timeout",
            Self::HalfClosed => "half_closed",
            Self::Shutdown => "shutdown",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_unique_and_indexes_are_places() {
        let mut names = Refusal::NAMES.to_vec();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Refusal::NAMES.len());
        assert_eq!(Refusal::NoKey(NoKey::NotMqtt).name(), NoKey::NotMqtt.name());
        assert_eq!(Refusal::NoKey(NoKey::EmptyClientId).name(), NoKey::EmptyClientId.name());
        assert_eq!(Refusal::NoKey(NoKey::NoUsername).name(), NoKey::NoUsername.name());
        assert_eq!(Refusal::NoDescriptors.name(), "no_descriptors");
        assert_eq!(Refusal::ShuttingDown.name(), "shutting_down");
        assert_eq!(Refusal::AccessDenied.name(), "access_denied");
        assert_eq!(Refusal::QueueTimeout.name(), "queue_timeout");
        for (place, end) in End::ALL.iter().enumerate() {
            assert_eq!(end.index(), place);
        }
        for (place, why) in crate::route::ChosenBy::ALL.iter().enumerate() {
            assert_eq!(why.index(), place);
        }
        for (place, why) in NoKey::ALL.iter().enumerate() {
            assert_eq!(why.index(), place);
        }
    }

    #[test]
    fn a_refused_client_is_told_in_its_own_version() {
        assert_eq!(Refusal::NoServer.answer(Some(Version::V5)), [0x20, 3, 0, 0x88, 0]);
        assert_eq!(Refusal::ServersFailed.answer(Some(Version::V311)), [0x20, 2, 0, 3]);
        assert_eq!(Refusal::NoKey(NoKey::EmptyClientId).answer(Some(Version::V5)), [0x20, 3, 0, 0x85, 0]);
        assert_eq!(Refusal::NoKey(NoKey::EmptyClientId).answer(Some(Version::V31)), [0x20, 2, 0, 2]);
        assert_eq!(Refusal::ConnectionRate.answer(Some(Version::V5)), [0x20, 3, 0, 0x9F, 0]);
        assert_eq!(Refusal::QueueFull.answer(Some(Version::V5)), [0x20, 3, 0, 0x89, 0]);
        assert_eq!(Refusal::ServersFull.answer(Some(Version::V311)), [0x20, 2, 0, 3]);
        assert_eq!(Refusal::ConnectionRate.answer(Some(Version::V311)), [0x20, 2, 0, 3]);
    }

    #[test]
    fn who_speaks_no_mqtt_gets_no_mqtt() {
        assert!(Refusal::NoServer.answer(None).is_empty());
        assert!(Refusal::NoKey(NoKey::NotMqtt).answer(Some(Version::V5)).is_empty());
        assert!(Refusal::PrereadTimeout.answer(Some(Version::V5)).is_empty());
    }

    #[test]
    fn a_malformed_connect_is_answered_in_version_5_only() {
        let error = DecodeError { reason: ReasonCode::MalformedPacket, clause: "x", detail: "y" };
        assert_eq!(Refusal::Malformed(error, Some(Version::V5)).answer(None), [0x20, 3, 0, 0x81, 0]);
        assert!(Refusal::Malformed(error, None).answer(Some(Version::V311)).is_empty());
    }
}
