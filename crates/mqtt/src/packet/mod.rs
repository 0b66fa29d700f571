//! One struct for each control packet; the same struct serves 3.1, 3.1.1 and 5.0.
//!
//! Packets borrow from the buffer they were decoded from (`'a`); [`Packet::into_owned`] cuts them loose.
//! In versions before 5 the properties are simply absent (`Default`).

mod owned;
mod properties;

use std::borrow::Cow;
use std::fmt;

use crate::{PacketId, QoS, ReasonCode, Version};

pub use properties::Properties;

/// A UTF-8 encoded string, 0 to 65,535 bytes, without U+0000 [MQTT-1.5.4-1], [MQTT-1.5.4-2].
pub type Text<'a> = Cow<'a, str>;
/// Binary data, 0 to 65,535 bytes (a payload may be longer).
pub type Binary<'a> = Cow<'a, [u8]>;
/// User properties in the order in which they were sent [MQTT-3.3.2-18]; names may repeat.
pub type UserProperties<'a> = Vec<(Text<'a>, Text<'a>)>;

/// Any control packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Packet<'a> {
    /// Client requests a connection.
    Connect(Box<Connect<'a>>),
    /// Server answers CONNECT.
    Connack(Box<Connack<'a>>),
    /// An application message.
    Publish(Publish<'a>),
    /// QoS 1, second and last step.
    Puback(Ack<'a>),
    /// QoS 2, second step.
    Pubrec(Ack<'a>),
    /// QoS 2, third step.
    Pubrel(Ack<'a>),
    /// QoS 2, fourth and last step.
    Pubcomp(Ack<'a>),
    /// Client wants topic filters.
    Subscribe(Subscribe<'a>),
    /// Server answers SUBSCRIBE.
    Suback(Suback<'a>),
    /// Client gives topic filters back.
    Unsubscribe(Unsubscribe<'a>),
    /// Server answers UNSUBSCRIBE.
    Unsuback(Unsuback<'a>),
    /// Client asks whether the server lives.
    Pingreq,
    /// Server lives.
    Pingresp,
    /// Either side says good-bye (a server only in version 5).
    Disconnect(Disconnect<'a>),
    /// Version 5: a step of an authentication exchange.
    Auth(Auth<'a>),
}

impl Packet<'_> {
    /// The specification's name of the packet type (2.1.2), for logs.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Connect(_) => "CONNECT",
            Self::Connack(_) => "CONNACK",
            Self::Publish(_) => "PUBLISH",
            Self::Puback(_) => "PUBACK",
            Self::Pubrec(_) => "PUBREC",
            Self::Pubrel(_) => "PUBREL",
            Self::Pubcomp(_) => "PUBCOMP",
            Self::Subscribe(_) => "SUBSCRIBE",
            Self::Suback(_) => "SUBACK",
            Self::Unsubscribe(_) => "UNSUBSCRIBE",
            Self::Unsuback(_) => "UNSUBACK",
            Self::Pingreq => "PINGREQ",
            Self::Pingresp => "PINGRESP",
            Self::Disconnect(_) => "DISCONNECT",
            Self::Auth(_) => "AUTH",
        }
    }
}

/// CONNECT (3.1). Its debug form shows no password.
#[derive(Clone, PartialEq, Eq)]
pub struct Connect<'a> {
    /// From protocol name and level.
    pub version: Version,
    /// The bridge bit (0x80 of the level byte) that Mosquitto bridges set; it asks for the retain flag as published.
    pub bridge: bool,
    /// Clean Start (5.0), Clean Session (before).
    pub clean_start: bool,
    /// Seconds; 0 turns it off.
    pub keep_alive: u16,
    /// May be empty: the server then makes one up.
    pub client_id: Text<'a>,
    /// The message to publish when the connection ends without a good-bye.
    pub will: Option<Will<'a>>,
    /// User name.
    pub username: Option<Text<'a>>,
    /// Password.
    pub password: Option<Binary<'a>>,
    /// Version 5 only.
    pub properties: ConnectProperties<'a>,
}

impl fmt::Debug for Connect<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connect")
            .field("version", &self.version)
            .field("bridge", &self.bridge)
            .field("clean_start", &self.clean_start)
            .field("keep_alive", &self.keep_alive)
            .field("client_id", &self.client_id)
            .field("will", &self.will)
            .field("username", &self.username)
            .field("password", &self.password.as_ref().map(|_| format_args!("***")))
            .field("properties", &self.properties)
            .finish()
    }
}

/// Properties of CONNECT (3.1.2.11).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConnectProperties<'a> {
    /// Seconds the session outlives the connection; absent is 0, `u32::MAX` never expires.
    pub session_expiry_interval: Option<u32>,
    /// How many QoS 1 and 2 messages the client takes at once; absent is 65,535, 0 is an error.
    pub receive_maximum: Option<u16>,
    /// Bytes of the largest packet the client takes; absent is no limit, 0 is an error.
    pub maximum_packet_size: Option<u32>,
    /// The highest alias the client takes; absent is 0.
    pub topic_alias_maximum: Option<u16>,
    /// The client wants Response Information in CONNACK; absent is false.
    pub request_response_information: Option<bool>,
    /// The client wants reason strings and user properties everywhere; absent is true.
    pub request_problem_information: Option<bool>,
    /// Name of the authentication method.
    pub authentication_method: Option<Text<'a>>,
    /// Data of that method.
    pub authentication_data: Option<Binary<'a>>,
    /// In order.
    pub user_properties: UserProperties<'a>,
}

/// The will of a CONNECT (3.1.3.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Will<'a> {
    /// Where it is published.
    pub topic: Text<'a>,
    /// What is published.
    pub payload: Binary<'a>,
    /// With which quality of service.
    pub qos: QoS,
    /// As a retained message?
    pub retain: bool,
    /// Seconds between the end of the connection and the will; absent is 0.
    pub delay_interval: Option<u32>,
    /// The properties the message is published with (no alias, no subscription identifiers).
    pub properties: PublishProperties<'a>,
}

/// CONNACK (3.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connack<'a> {
    /// The server had a session for this client id and the client asked to go on with it.
    pub session_present: bool,
    /// Success or why not. Encoded for 3.1 and 3.1.1 as the nearest return code (3.2.2.3 there).
    pub reason: ReasonCode,
    /// Version 5 only.
    pub properties: ConnackProperties<'a>,
}

/// Properties of CONNACK (3.2.2.3).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConnackProperties<'a> {
    /// The interval the server uses instead of the one asked for.
    pub session_expiry_interval: Option<u32>,
    /// Absent is 65,535.
    pub receive_maximum: Option<u16>,
    /// 0 or 1; absent is 2.
    pub maximum_qos: Option<QoS>,
    /// Absent is true.
    pub retain_available: Option<bool>,
    /// Bytes; absent is no limit.
    pub maximum_packet_size: Option<u32>,
    /// The id made up for a client that gave none.
    pub assigned_client_identifier: Option<Text<'a>>,
    /// Absent is 0.
    pub topic_alias_maximum: Option<u16>,
    /// For people.
    pub reason_string: Option<Text<'a>>,
    /// In order.
    pub user_properties: UserProperties<'a>,
    /// Absent is true.
    pub wildcard_subscription_available: Option<bool>,
    /// Absent is true.
    pub subscription_identifiers_available: Option<bool>,
    /// Absent is true.
    pub shared_subscription_available: Option<bool>,
    /// Seconds; replaces the client's keep alive.
    pub server_keep_alive: Option<u16>,
    /// A basis for response topics.
    pub response_information: Option<Text<'a>>,
    /// Another server to use.
    pub server_reference: Option<Text<'a>>,
    /// Name of the authentication method.
    pub authentication_method: Option<Text<'a>>,
    /// Data of that method.
    pub authentication_data: Option<Binary<'a>>,
}

/// PUBLISH (3.3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publish<'a> {
    /// Sent before, perhaps. Always false at QoS 0 [MQTT-3.3.1-2].
    pub dup: bool,
    /// Quality of service.
    pub qos: QoS,
    /// Keep it / it was kept.
    pub retain: bool,
    /// Valid and without wildcards; empty only in version 5 beside a topic alias.
    pub topic: Text<'a>,
    /// Present exactly for QoS 1 and 2 [MQTT-2.2.1-2].
    pub packet_id: Option<PacketId>,
    /// Version 5 only.
    pub properties: Properties<'a>,
    /// The application message.
    pub payload: Binary<'a>,
}

/// Properties of PUBLISH (3.3.2.3), also those of a will.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PublishProperties<'a> {
    /// `Some(true)`: the payload says it is UTF-8.
    pub payload_format_indicator: Option<bool>,
    /// Seconds the message is worth delivering.
    pub message_expiry_interval: Option<u32>,
    /// Never 0; never in a will.
    pub topic_alias: Option<u16>,
    /// Where an answer is expected.
    pub response_topic: Option<Text<'a>>,
    /// What an answer should carry.
    pub correlation_data: Option<Binary<'a>>,
    /// In order.
    pub user_properties: UserProperties<'a>,
    /// From server to client only; 1 to 268,435,455 each.
    pub subscription_identifiers: smallvec::SmallVec<[u32; 1]>,
    /// For example a MIME type.
    pub content_type: Option<Text<'a>>,
}

impl PublishProperties<'_> {
    /// All of them absent.
    pub(super) const NONE: Self = Self {
        payload_format_indicator: None,
        message_expiry_interval: None,
        topic_alias: None,
        response_topic: None,
        correlation_data: None,
        user_properties: Vec::new(),
        subscription_identifiers: smallvec::SmallVec::new_const(),
        content_type: None,
    };
}

/// PUBACK, PUBREC, PUBREL, PUBCOMP (3.4 to 3.7).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ack<'a> {
    /// Whose packet is acknowledged.
    pub packet_id: PacketId,
    /// Version 5 only; success before.
    pub reason: ReasonCode,
    /// Version 5 only.
    pub properties: ReasonProperties<'a>,
}

/// The properties of all packets that only explain: acknowledgements, SUBACK, UNSUBACK.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReasonProperties<'a> {
    /// For people.
    pub reason_string: Option<Text<'a>>,
    /// In order.
    pub user_properties: UserProperties<'a>,
}

/// SUBSCRIBE (3.8).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscribe<'a> {
    /// Answered by the SUBACK of the same id.
    pub packet_id: PacketId,
    /// 1 to 268,435,455; version 5 only.
    pub subscription_identifier: Option<u32>,
    /// In order; version 5 only.
    pub user_properties: UserProperties<'a>,
    /// At least one [MQTT-3.8.3-2].
    pub filters: Vec<SubscribeFilter<'a>>,
}

/// One filter of a SUBSCRIBE with its options (3.8.3.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubscribeFilter<'a> {
    /// Well-formed UTF-8; whether it is a valid topic filter is judged by [`crate::filter`], for its own reason code.
    pub filter: Text<'a>,
    /// What the client asks for.
    pub options: SubscriptionOptions,
}

/// Options of one subscription; before version 5 only the QoS exists.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SubscriptionOptions {
    /// The highest QoS at which messages are sent.
    pub qos: QoS,
    /// Messages of this client do not come back to it.
    pub no_local: bool,
    /// Forwarded messages keep their retain flag.
    pub retain_as_published: bool,
    /// When retained messages are sent.
    pub retain_handling: RetainHandling,
}

/// When a SUBSCRIBE is answered with retained messages (3.8.3.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum RetainHandling {
    /// At every SUBSCRIBE.
    #[default]
    Send = 0,
    /// Only if the subscription did not exist before.
    SendIfNew = 1,
    /// Never.
    DoNotSend = 2,
}

/// SUBACK (3.9).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Suback<'a> {
    /// That of the SUBSCRIBE.
    pub packet_id: PacketId,
    /// Version 5 only.
    pub properties: ReasonProperties<'a>,
    /// One for each filter, in its order [MQTT-3.9.3-1]. Before version 5 every failure becomes 0x80.
    pub reasons: Vec<ReasonCode>,
}

/// UNSUBSCRIBE (3.10).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unsubscribe<'a> {
    /// Answered by the UNSUBACK of the same id.
    pub packet_id: PacketId,
    /// In order; version 5 only.
    pub user_properties: UserProperties<'a>,
    /// At least one [MQTT-3.10.3-2].
    pub filters: Vec<Text<'a>>,
}

/// UNSUBACK (3.11).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unsuback<'a> {
    /// That of the UNSUBSCRIBE.
    pub packet_id: PacketId,
    /// Version 5 only.
    pub properties: ReasonProperties<'a>,
    /// One for each filter; absent on the wire before version 5 (decoded as empty).
    pub reasons: Vec<ReasonCode>,
}

/// DISCONNECT (3.14).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disconnect<'a> {
    /// Version 5 only; normal before.
    pub reason: ReasonCode,
    /// Version 5 only.
    pub properties: DisconnectProperties<'a>,
}

/// Properties of DISCONNECT (3.14.2.2).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DisconnectProperties<'a> {
    /// From client to server only: a new interval for the session.
    pub session_expiry_interval: Option<u32>,
    /// For people.
    pub reason_string: Option<Text<'a>>,
    /// In order.
    pub user_properties: UserProperties<'a>,
    /// Another server to use.
    pub server_reference: Option<Text<'a>>,
}

/// AUTH (3.15), version 5 only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Auth<'a> {
    /// Success, continue or re-authenticate.
    pub reason: ReasonCode,
    /// Name of the authentication method.
    pub authentication_method: Option<Text<'a>>,
    /// Data of that method.
    pub authentication_data: Option<Binary<'a>>,
    /// For people.
    pub reason_string: Option<Text<'a>>,
    /// In order.
    pub user_properties: UserProperties<'a>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_not_shown() {
        let connect = Connect {
            version: Version::V5,
            bridge: false,
            clean_start: true,
            keep_alive: 0,
            client_id: "c".into(),
            will: None,
            username: Some("alice".into()),
            password: Some(b"AB".as_slice().into()),
            properties: ConnectProperties::default(),
        };
        let shown = format!("{connect:?}");
        assert!(shown.contains("alice") && shown.contains("Some(***)") && !shown.contains("65"), "{shown}");
    }
}
