//! Why something did not work, for programs and for people.

use std::io;

use mqtt::ReasonCode;
use mqtt::codec::DecodeError;

/// Why a connection ended or never came about.
#[derive(Debug, thiserror::Error)]
pub enum Disconnected {
    /// The name could not be resolved, or no address of it accepted.
    #[error("cannot connect: {0}")]
    Unreachable(#[source] io::Error),
    /// TCP connect and CONNACK together took too long.
    #[error("no CONNACK within the connect time-out")]
    ConnectTimeout,
    /// CONNACK said no.
    #[error("the broker refused the connection: {reason}{}", said(reason_string))]
    Refused {
        /// Before version 5: the reason that the return code stands for.
        reason: ReasonCode,
        /// Version 5.
        reason_string: Option<String>,
        /// Version 5: where to go instead.
        server_reference: Option<String>,
    },
    /// The broker sent DISCONNECT (version 5).
    #[error("the broker ended the connection: {reason}{}", said(reason_string))]
    ByServer {
        /// Why.
        reason: ReasonCode,
        /// For people.
        reason_string: Option<String>,
        /// Where to go instead.
        server_reference: Option<String>,
    },
    /// The connection was closed or broke without a good-bye.
    #[error("the connection was lost{}", because(.0))]
    Lost(#[source] Option<io::Error>),
    /// No PINGRESP in time [MQTT-3.1.2-24 asks the same of the server].
    #[error("the broker did not answer PINGREQ in time")]
    PingTimeout,
    /// The broker broke the specification; it was told so (version 5) and the connection closed.
    #[error("the broker broke the protocol: {0}")]
    Protocol(#[source] DecodeError),
    /// We said good-bye, or the last handle was dropped.
    #[error("the client disconnected")]
    ByUs,
    /// Our own CONNECT could not be encoded: a field is too long or not allowed.
    #[error("these options make no valid CONNECT: {0}")]
    Options(String),
}

impl Disconnected {
    /// Whether coming back would end in the same way: the identity, the credentials or the options have to change
    /// first, or another connection of the same identity has taken over.
    pub fn is_final(&self) -> bool {
        match self {
            Self::Refused { reason, .. } | Self::ByServer { reason, .. } => matches!(
                reason,
                ReasonCode::UnsupportedProtocolVersion
                    | ReasonCode::ClientIdentifierNotValid
                    | ReasonCode::BadUserNameOrPassword
                    | ReasonCode::NotAuthorized
                    | ReasonCode::Banned
                    | ReasonCode::BadAuthenticationMethod
                    | ReasonCode::SessionTakenOver
                    | ReasonCode::ServerMoved
                    | ReasonCode::PacketTooLarge
                    | ReasonCode::RetainNotSupported
                    | ReasonCode::QosNotSupported
            ),
            Self::ByUs | Self::Options(_) => true,
            _ => false,
        }
    }
}

fn said(text: &Option<String>) -> String {
    text.as_ref().map(|text| format!(" ({text})")).unwrap_or_default()
}

fn because(error: &Option<io::Error>) -> String {
    error.as_ref().map(|error| format!(": {error}")).unwrap_or_default()
}

/// The first connection did not come about.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct ConnectError(pub Disconnected);

/// What became of a message that was not acknowledged as received.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// It cannot be sent: the reason tells which rule it breaks. Nothing was sent.
    #[error("the message cannot be sent: {0}")]
    Invalid(String),
    /// The broker does not take it (version 5: PUBACK or PUBREC of 0x80 and above).
    #[error("the broker refused the message: {reason}")]
    Refused {
        /// Why.
        reason: ReasonCode,
        /// For people.
        reason_string: Option<String>,
    },
    /// The broker forgot our session before it acknowledged. It may have received the message or not.
    #[error("the session was lost before the broker acknowledged the message")]
    SessionLost,
    /// The client ended before the acknowledgement. The broker may have received the message or not.
    #[error("the client ended before the broker acknowledged the message")]
    Closed,
    /// Only from `publish_nowait`: as many commands wait as may wait.
    #[error("too many commands wait for the connection")]
    QueueFull,
}

/// Why SUBSCRIBE or UNSUBSCRIBE got no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// It cannot be sent. Nothing was sent.
    #[error("the request cannot be sent: {0}")]
    Invalid(String),
    /// The connection ended first. The broker may have acted on the request or not.
    #[error("the connection ended before the broker answered")]
    Disconnected,
    /// The client has ended.
    #[error("the client has ended")]
    Closed,
}
