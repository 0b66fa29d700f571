//! What can be asked of a broker.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::Answer;
use crate::page::{Page, PageQuery};

/// A client: connected, or gone with a session that waits for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Client {
    /// Client identifier.
    pub clientid: String,
    /// User name of the CONNECT.
    pub username: Option<String>,
    /// The node that serves it.
    pub node: String,
    /// Whether it is connected now.
    pub connected: bool,
    /// `MQTT`.
    pub proto_name: String,
    /// 3, 4 or 5.
    pub proto_ver: u8,
    /// The device's own address and port: from the PROXY header where a trusted proxy stands before us.
    pub peer: String,
    /// The address and port of the TCP connection, where it is another one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub via: Option<String>,
    /// The connection's unique id from the PROXY v2 header of a gateway.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub unique_id: Option<String>,
    /// The listener that accepted it, as `tcp://address:port`.
    pub listener: String,
    /// Clean Start / Clean Session of the CONNECT.
    pub clean_start: bool,
    /// Whether the last CONNACK said that a session was present.
    pub session_present: bool,
    /// Seconds.
    pub keepalive: u16,
    /// Seconds the session outlives the connection; 4294967295 never expires.
    pub expiry_interval: u32,
    /// When it connected, RFC 3339.
    pub connected_at: String,
    /// When it went, RFC 3339; absent while connected.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub disconnected_at: Option<String>,
    /// When its session began, RFC 3339.
    pub created_at: String,
    /// Subscriptions.
    pub subscriptions_cnt: usize,
    /// QoS 1 and 2 messages sent to it and not yet acknowledged.
    pub inflight_cnt: usize,
    /// Messages that wait for it in memory.
    pub mqueue_len: usize,
    /// Messages dropped for it.
    pub mqueue_dropped: u64,
    /// PUBLISH packets from it.
    pub recv_msg: u64,
    /// PUBLISH packets to it.
    pub send_msg: u64,
    /// Bytes from it.
    pub recv_oct: u64,
    /// Bytes to it.
    pub send_oct: u64,
}

/// A subscription of a client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Subscription {
    /// Whose.
    pub clientid: String,
    /// The topic filter as subscribed.
    pub topic: String,
    /// Granted: 0, 1 or 2.
    pub qos: u8,
    /// No Local: 0 or 1.
    pub nl: u8,
    /// Retain As Published: 0 or 1.
    pub rap: u8,
    /// Retain Handling: 0, 1 or 2.
    pub rh: u8,
    /// Subscription Identifier.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub subid: Option<u32>,
    /// The node that serves the client.
    pub node: String,
}

/// Which clients are wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientQuery {
    /// Exactly this client id.
    pub clientid: Option<String>,
    /// Exactly this user name.
    pub username: Option<String>,
    /// `connected` or `disconnected`.
    pub conn_state: Option<String>,
}

/// What a broker answers to the admin interface.
pub trait BrokerAdmin: Send + Sync + 'static {
    /// Clients by ascending client id (bytewise).
    fn clients(&self, query: ClientQuery, page: PageQuery) -> Answer<'_, Page<Client>>;
    /// One client.
    fn client(&self, clientid: String) -> Answer<'_, Option<Client>>;
    /// Its subscriptions, by ascending filter; `None`: there is no such client.
    fn subscriptions(&self, clientid: String) -> Answer<'_, Option<Vec<Subscription>>>;
    /// Ends its connection (v5: Administrative action, 0x98) and its session. `false`: there is no such client.
    fn kick(&self, clientid: String) -> Answer<'_, bool>;
    /// This broker as a node.
    fn node(&self) -> Answer<'_, crate::node::Node>;
}
