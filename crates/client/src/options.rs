//! Everything that can be chosen about a client.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use mqtt::Version;
use mqtt::packet::{Connect, ConnectProperties};
use runtime::clock::Clock;

use crate::Message;
use crate::backoff::Reconnect;

/// The message that the broker publishes when the connection ends without a good-bye.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Will {
    /// What is published; its properties may hold no topic alias and no subscription identifiers.
    pub message: Message,
    /// Version 5: seconds between the end of the connection and the will.
    pub delay_interval: Option<u32>,
}

/// A password; it does not show itself in debug forms.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(Vec<u8>);

impl<T: Into<Vec<u8>>> From<T> for Password {
    fn from(bytes: T) -> Self {
        Self(bytes.into())
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(..)")
    }
}

/// How to connect and how to behave. Start from [`Options::new`] and change fields.
#[derive(Clone, Debug)]
pub struct Options {
    /// `host:port`; an IPv6 address in brackets. Every address of the name is tried in turn.
    pub server: String,
    /// Connect from this local address.
    pub bind: Option<IpAddr>,
    /// MQTT over WebSocket at this path, such as `/mqtt`. Default: straight over TCP.
    pub websocket_path: Option<String>,
    /// MQTT version; default 5.0.
    pub version: Version,
    /// May be empty: the broker then makes one up.
    pub client_id: String,
    /// Clean Start (5.0) of the *first* connection; later ones go on with the session if it outlives the connection.
    /// Before 5.0 it is Clean Session, and holds for every connection. Default true.
    pub clean_start: bool,
    /// Version 5: seconds the session outlives the connection. Default absent (0).
    pub session_expiry_interval: Option<u32>,
    /// Sets the bridge bit that Mosquitto's bridges set.
    pub bridge: bool,
    /// Will message.
    pub will: Option<Will>,
    /// User name.
    pub username: Option<String>,
    /// Password. Before 5.0 it needs a user name [v3 MQTT-3.1.2-22].
    pub password: Option<Password>,
    /// Seconds, 0 turns it off; a PINGREQ goes out when three quarters of it passed in silence. Default 60.
    pub keep_alive: u16,
    /// How long a PINGRESP may take; default 10 s.
    pub ping_timeout: Duration,
    /// Version 5: how many QoS 1 and 2 messages the broker may have under way to us. Default absent (65,535).
    pub receive_maximum: Option<u16>,
    /// How many QoS 1 and 2 messages of ours may be under way, if the broker allows that many; default 20.
    pub max_inflight: u16,
    /// Bytes of the largest packet we take; announced in version 5. Default absent: what the protocol can express.
    pub maximum_packet_size: Option<u32>,
    /// Version 5: the highest topic alias the broker may use to us; 0 to 65,535, default 0.
    pub topic_alias_maximum: u16,
    /// Version 5: ask for Response Information.
    pub request_response_information: Option<bool>,
    /// Version 5: ask for reason strings and user properties.
    pub request_problem_information: Option<bool>,
    /// Version 5: user properties of CONNECT, in order.
    pub user_properties: Vec<(String, String)>,
    /// TCP connect and CONNACK together may take this long; default 10 s.
    pub connect_timeout: Duration,
    /// How long a good-bye may take to be written; default 5 s.
    pub close_timeout: Duration,
    /// What happens when the connection is lost; default: nothing, the client is finished.
    pub reconnect: Reconnect,
    /// Commands that wait for the connection; at the bound, callers wait. At least 1, default 64.
    pub command_capacity: usize,
    /// Events that wait for the application; at the bound nothing more is read from the broker. At least 1, default 256.
    pub event_capacity: usize,
    /// Where the time comes from.
    pub clock: Clock,
}

impl Options {
    /// MQTT 5.0 to `server` (`host:port`) with defaults.
    pub fn new(server: impl Into<String>, client_id: impl Into<String>) -> Self {
        Self {
            server: server.into(),
            bind: None,
            websocket_path: None,
            version: Version::V5,
            client_id: client_id.into(),
            clean_start: true,
            session_expiry_interval: None,
            bridge: false,
            will: None,
            username: None,
            password: None,
            keep_alive: 60,
            ping_timeout: Duration::from_secs(10),
            receive_maximum: None,
            max_inflight: 20,
            maximum_packet_size: None,
            topic_alias_maximum: 0,
            request_response_information: None,
            request_problem_information: None,
            user_properties: Vec::new(),
            connect_timeout: Duration::from_secs(10),
            close_timeout: Duration::from_secs(5),
            reconnect: Reconnect::Never,
            command_capacity: 64,
            event_capacity: 256,
            clock: Clock::system(),
        }
    }

    /// The same with a local address to connect from.
    #[must_use]
    pub fn from_address(mut self, local: IpAddr) -> Self {
        self.bind = Some(local);
        self
    }

    /// Whether the session lives on when the connection ends.
    pub fn is_persistent(&self) -> bool {
        if self.version.is_v5() { self.session_expiry_interval.unwrap_or(0) > 0 } else { !self.clean_start }
    }

    /// The CONNECT of the first connection (`again == false`) or of a later one.
    pub(crate) fn connect_packet(&self, again: bool) -> Connect<'_> {
        let v5 = self.version.is_v5();
        let properties = ConnectProperties {
            session_expiry_interval: self.session_expiry_interval,
            receive_maximum: self.receive_maximum,
            maximum_packet_size: self.maximum_packet_size,
            topic_alias_maximum: (self.topic_alias_maximum > 0).then_some(self.topic_alias_maximum),
            request_response_information: self.request_response_information,
            request_problem_information: self.request_problem_information,
            user_properties: text_pairs(&self.user_properties),
            ..ConnectProperties::default()
        };
        Connect {
            version: self.version,
            bridge: self.bridge,
            clean_start: self.clean_start && !(again && self.is_persistent()),
            keep_alive: self.keep_alive,
            client_id: self.client_id.as_str().into(),
            will: self.will.as_ref().map(|will| will.as_packet(v5)),
            username: self.username.as_deref().map(Into::into),
            password: self.password.as_ref().map(|password| password.0.as_slice().into()),
            properties: if v5 { properties } else { ConnectProperties::default() },
        }
    }
}

impl Will {
    fn as_packet(&self, v5: bool) -> mqtt::packet::Will<'_> {
        let message = &self.message;
        mqtt::packet::Will {
            topic: message.topic.as_str().into(),
            payload: (&*message.payload).into(),
            qos: message.qos,
            retain: message.retain,
            delay_interval: self.delay_interval.filter(|_| v5),
            properties: if v5 { message.properties.clone() } else { Default::default() },
        }
    }
}

fn text_pairs(pairs: &[(String, String)]) -> mqtt::packet::UserProperties<'_> {
    pairs.iter().map(|(name, value)| (name.as_str().into(), value.as_str().into())).collect()
}
