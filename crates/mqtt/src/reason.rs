//! Reason Codes (MQTT 5.0, 2.4, table 2-6) and the return codes of 3.1.1 that are nearest to them.
//!
//! One number has one name here, even where the specification gives it several ("Normal disconnection" and
//! "Granted QoS 0" are [`ReasonCode::Success`]). Which code may stand in which packet is judged by the codec.

use std::fmt;

macro_rules! reason_codes {
    ($($(#[$doc:meta])* $variant:ident = $value:literal, $snake:literal, $title:literal;)*) => {
        /// Why something succeeded or failed: one byte on the wire. From 0x80 upwards it is a failure.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum ReasonCode {
            $($(#[$doc])* $variant = $value,)*
        }

        impl ReasonCode {
            /// Every code of table 2-6, ascending.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The code with this number; `None` where the specification defines none.
            pub const fn from_u8(value: u8) -> Option<Self> {
                match value {
                    $($value => Some(Self::$variant),)*
                    _ => None,
                }
            }

            /// For logs, metrics and the API: snake case, stable.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $snake,)*
                }
            }

            /// The specification's name, for people.
            pub const fn title(self) -> &'static str {
                match self {
                    $(Self::$variant => $title,)*
                }
            }
        }
    };
}

reason_codes! {
    /// Success; also "Normal disconnection" (DISCONNECT) and "Granted QoS 0" (SUBACK).
    Success = 0x00, "success", "Success";
    /// SUBACK: at most QoS 1.
    GrantedQos1 = 0x01, "granted_qos_1", "Granted QoS 1";
    /// SUBACK: at most QoS 2.
    GrantedQos2 = 0x02, "granted_qos_2", "Granted QoS 2";
    /// DISCONNECT of a client that wants its will published all the same.
    DisconnectWithWill = 0x04, "disconnect_with_will", "Disconnect with Will Message";
    /// PUBACK, PUBREC: accepted, nobody listens.
    NoMatchingSubscribers = 0x10, "no_matching_subscribers", "No matching subscribers";
    /// UNSUBACK: there was no such subscription.
    NoSubscriptionExisted = 0x11, "no_subscription_existed", "No subscription existed";
    /// AUTH: one more step.
    ContinueAuthentication = 0x18, "continue_authentication", "Continue authentication";
    /// AUTH: the client starts again.
    ReAuthenticate = 0x19, "re_authenticate", "Re-authenticate";
    /// No other code fits, or the sender does not want to say.
    UnspecifiedError = 0x80, "unspecified_error", "Unspecified error";
    /// The packet cannot be parsed (4.13.1).
    MalformedPacket = 0x81, "malformed_packet", "Malformed Packet";
    /// The packet says what it must not say, or comes when it must not come (4.13.1).
    ProtocolError = 0x82, "protocol_error", "Protocol Error";
    /// Valid, but not accepted by this implementation.
    ImplementationSpecificError = 0x83, "implementation_specific_error", "Implementation specific error";
    /// CONNACK: not a protocol name and level that are spoken here.
    UnsupportedProtocolVersion = 0x84, "unsupported_protocol_version", "Unsupported Protocol Version";
    /// CONNACK: a valid string, not an allowed client identifier.
    ClientIdentifierNotValid = 0x85, "client_identifier_not_valid", "Client Identifier not valid";
    /// CONNACK: wrong credentials.
    BadUserNameOrPassword = 0x86, "bad_user_name_or_password", "Bad User Name or Password";
    /// The sender may not do this.
    NotAuthorized = 0x87, "not_authorized", "Not authorized";
    /// CONNACK: the server cannot serve now.
    ServerUnavailable = 0x88, "server_unavailable", "Server unavailable";
    /// The server has too much to do; try later.
    ServerBusy = 0x89, "server_busy", "Server busy";
    /// CONNACK: an administrator shut this client out.
    Banned = 0x8A, "banned", "Banned";
    /// DISCONNECT: the server goes down.
    ServerShuttingDown = 0x8B, "server_shutting_down", "Server shutting down";
    /// The authentication method is not supported or not the one in use.
    BadAuthenticationMethod = 0x8C, "bad_authentication_method", "Bad authentication method";
    /// DISCONNECT: nothing came for one and a half keep alive intervals.
    KeepAliveTimeout = 0x8D, "keep_alive_timeout", "Keep Alive timeout";
    /// DISCONNECT: another connection uses the same client identifier.
    SessionTakenOver = 0x8E, "session_taken_over", "Session taken over";
    /// A well-formed string that is not an accepted topic filter.
    TopicFilterInvalid = 0x8F, "topic_filter_invalid", "Topic Filter invalid";
    /// A well-formed string that is not an accepted topic name.
    TopicNameInvalid = 0x90, "topic_name_invalid", "Topic Name invalid";
    /// The packet identifier is in use already.
    PacketIdentifierInUse = 0x91, "packet_identifier_in_use", "Packet Identifier in use";
    /// PUBREL, PUBCOMP: no such packet identifier.
    PacketIdentifierNotFound = 0x92, "packet_identifier_not_found", "Packet Identifier not found";
    /// DISCONNECT: more unacknowledged messages than Receive Maximum allows.
    ReceiveMaximumExceeded = 0x93, "receive_maximum_exceeded", "Receive Maximum exceeded";
    /// DISCONNECT: a topic alias out of range or unknown.
    TopicAliasInvalid = 0x94, "topic_alias_invalid", "Topic Alias invalid";
    /// The packet is larger than the receiver takes.
    PacketTooLarge = 0x95, "packet_too_large", "Packet too large";
    /// DISCONNECT: messages come too fast.
    MessageRateTooHigh = 0x96, "message_rate_too_high", "Message rate too high";
    /// A limit of the implementation or of the administrator is reached.
    QuotaExceeded = 0x97, "quota_exceeded", "Quota exceeded";
    /// DISCONNECT: an administrator did it.
    AdministrativeAction = 0x98, "administrative_action", "Administrative action";
    /// The payload is not what its format indicator says.
    PayloadFormatInvalid = 0x99, "payload_format_invalid", "Payload format invalid";
    /// The server keeps no retained messages.
    RetainNotSupported = 0x9A, "retain_not_supported", "Retain not supported";
    /// A higher QoS than the server's maximum.
    QosNotSupported = 0x9B, "qos_not_supported", "QoS not supported";
    /// Use another server for now.
    UseAnotherServer = 0x9C, "use_another_server", "Use another server";
    /// Use another server for good.
    ServerMoved = 0x9D, "server_moved", "Server moved";
    /// No shared subscriptions here.
    SharedSubscriptionsNotSupported = 0x9E, "shared_subscriptions_not_supported", "Shared Subscriptions not supported";
    /// Connections come too fast.
    ConnectionRateExceeded = 0x9F, "connection_rate_exceeded", "Connection rate exceeded";
    /// DISCONNECT: the longest allowed connection time is over.
    MaximumConnectTime = 0xA0, "maximum_connect_time", "Maximum connect time";
    /// No subscription identifiers here.
    SubscriptionIdentifiersNotSupported = 0xA1, "subscription_identifiers_not_supported", "Subscription Identifiers not supported";
    /// No wildcards in subscriptions here.
    WildcardSubscriptionsNotSupported = 0xA2, "wildcard_subscriptions_not_supported", "Wildcard Subscriptions not supported";
}

impl ReasonCode {
    /// The number as it goes on the wire.
    pub const fn value(self) -> u8 {
        self as u8
    }

    /// Whether it tells of a failure: 0x80 and above (2.4).
    pub const fn is_error(self) -> bool {
        self.value() >= 0x80
    }

    /// The CONNACK return code of 3.1.1 (table 3.1 there) that comes nearest: 0 for every success, else 1 to 5.
    ///
    /// "Server unavailable" (3) is the answer where nothing fits: it tells the client to come back.
    pub const fn v3_connack(self) -> u8 {
        match self {
            Self::UnsupportedProtocolVersion => 1,
            Self::ClientIdentifierNotValid => 2,
            Self::BadUserNameOrPassword => 4,
            Self::NotAuthorized
            | Self::Banned
            | Self::BadAuthenticationMethod
            | Self::TopicNameInvalid
            | Self::AdministrativeAction => 5,
            other if other.is_error() => 3,
            _ => 0,
        }
    }

    /// The reason that a CONNACK return code of 3.1.1 stands for; `None` above 5, reserved there.
    pub const fn from_v3_connack(value: u8) -> Option<Self> {
        match value {
            0 => Some(Self::Success),
            1 => Some(Self::UnsupportedProtocolVersion),
            2 => Some(Self::ClientIdentifierNotValid),
            3 => Some(Self::ServerUnavailable),
            4 => Some(Self::BadUserNameOrPassword),
            5 => Some(Self::NotAuthorized),
            _ => None,
        }
    }
}

impl fmt::Display for ReasonCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.title())
    }
}
