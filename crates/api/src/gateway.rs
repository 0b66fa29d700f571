//! What can be asked of a gateway.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::Answer;
use crate::page::{Page, PageQuery};

/// A connection through the gateway.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Connection {
    /// Unique in this process; goes to the broker as the PROXY v2 unique id.
    pub id: String,
    /// Client identifier of the CONNECT; empty if the client gave none.
    pub clientid: String,
    /// User name of the CONNECT, if it was read.
    pub username: Option<String>,
    /// 3, 4 or 5; absent for a stream that is not MQTT.
    pub proto_ver: Option<u8>,
    /// The device's own address and port.
    pub peer: String,
    /// The address and port of the TCP connection, where it is another one (a balancer in front).
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub via: Option<String>,
    /// The listener that accepted it, as `tcp://address:port`.
    pub listener: String,
    /// The upstream it went to.
    pub upstream: String,
    /// The server's name, or its address as written.
    pub server: String,
    /// The server's address.
    pub server_address: String,
    /// The local address of the connection to the server: what the server sees as its TCP peer.
    pub local_address: String,
    /// Why this server: `hash`, `pin`, `round_robin`, `least_connections`, `random`, `random_two`, `source_ip`, `failover`,
    /// `overflow`, `backup`.
    pub chosen_by: String,
    /// When it was accepted, RFC 3339.
    pub connected_at: String,
    /// Bytes from the client to the server.
    pub bytes_in: u64,
    /// Bytes from the server to the client.
    pub bytes_out: u64,
}

/// A listener of the gateway.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Listener {
    /// `tcp://address:port`, as connections and metrics name it.
    pub name: String,
    /// The address it is bound to, with the true port.
    pub bind: String,
    /// The upstream that it sends to.
    pub upstream: String,
    /// Whether connections from trusted addresses begin with a PROXY header.
    pub proxy_protocol: bool,
    /// Connections now, those without a server yet included.
    pub connections: u32,
    /// Connections it takes at a time.
    pub max_connections: u32,
    /// Connections it takes at a time from one address; 0: no limit.
    pub max_connections_per_address: u32,
    /// Rules of its access list.
    pub access_rules: usize,
    /// Connections accepted ever.
    pub accepted_total: u64,
    /// Connections that got a server ever.
    pub served_total: u64,
    /// Connections refused ever.
    pub refused_total: u64,
    /// The same by reason; a reason that never occurred is left out.
    pub refused: BTreeMap<String, u64>,
    /// Connections that got a server, by what chose it.
    pub chosen_by: BTreeMap<String, u64>,
    /// Connections that had a server and ended, by reason.
    pub ended: BTreeMap<String, u64>,
    /// Pauses of accepting because descriptors or memory ran out.
    pub pauses: u64,
}

/// An upstream: a named group of servers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Upstream {
    /// Its name.
    pub name: String,
    /// How a server is chosen.
    pub balance: String,
    /// The consistent hash in use.
    pub hash: String,
    /// Pins held now.
    pub pins: usize,
    /// Connections that may wait while all servers have their `max_conns`; 0: none.
    #[serde(default)]
    pub queue: usize,
    /// Connections that wait now.
    #[serde(default)]
    pub queued: usize,
    /// Connections that waited ever.
    #[serde(default)]
    pub queued_total: u64,
    /// Its servers in the order of the configuration.
    pub servers: Vec<Server>,
}

/// A server of an upstream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Server {
    /// Its name, or its address as written.
    pub name: String,
    /// Its address as written.
    pub address: String,
    /// Share of new devices relative to the others.
    pub weight: u32,
    /// Whether it is used only when none of the others can take a connection.
    #[serde(default)]
    pub backup: bool,
    /// Connections it may have at a time; 0: no limit.
    #[serde(default)]
    pub max_conns: u32,
    /// `up`, `unavailable` (connections to it failed), `draining` (by an operator) or `down` (by the configuration).
    pub state: String,
    /// Connections now.
    pub connections: u64,
    /// Connections ever.
    pub connections_total: u64,
    /// Connects that failed or timed out.
    pub fails: u64,
    /// How often it became unavailable.
    #[serde(default)]
    pub unavailable_total: u64,
    /// How long it was unavailable in total, in milliseconds.
    #[serde(default)]
    pub downtime_ms: u64,
    /// How long it took to connect to it, on the average of all connections, in microseconds.
    #[serde(default)]
    pub connect_us: u64,
    /// Bytes sent to it.
    pub bytes_in: u64,
    /// Bytes received from it.
    pub bytes_out: u64,
    /// The last failure, in one sentence.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub last_error: Option<String>,
}

/// A pin: a device that is kept on a server whatever the hash says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Pin {
    /// The balancing key: for `balance = "client_id"` the client id.
    pub key: String,
    /// The server's name.
    pub server: String,
    /// `operator` or `recorded`.
    pub origin: String,
}

/// Which connections are wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectionQuery {
    /// Only those to this server.
    pub server: Option<String>,
    /// Only those through this upstream.
    pub upstream: Option<String>,
}

/// Why a change of an upstream was not made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpstreamError {
    /// No upstream of that name.
    NoUpstream,
    /// No server of that name or address in it.
    NoServer,
    /// The table of pins is full.
    PinsFull,
}

/// What a gateway answers to the admin interface.
pub trait GatewayAdmin: Send + Sync + 'static {
    /// Connections, by ascending client id, then id.
    fn connections(&self, query: ConnectionQuery, page: PageQuery) -> Answer<'_, Page<Connection>>;
    /// The connections of one client id, newest first.
    fn connection(&self, clientid: String) -> Answer<'_, Vec<Connection>>;
    /// All listeners, in the order of the configuration.
    fn listeners(&self) -> Vec<Listener>;
    /// All upstreams.
    fn upstreams(&self) -> Vec<Upstream>;
    /// No new connections for this server from now on; those it has stay.
    ///
    /// # Errors
    /// There is no such upstream or server.
    fn drain(&self, upstream: &str, server: &str) -> Result<Server, UpstreamError>;
    /// Takes the server back.
    ///
    /// # Errors
    /// There is no such upstream or server.
    fn enable(&self, upstream: &str, server: &str) -> Result<Server, UpstreamError>;
    /// The pins of an upstream, by ascending key.
    ///
    /// # Errors
    /// There is no such upstream.
    fn pins(&self, upstream: &str, page: PageQuery) -> Result<Page<Pin>, UpstreamError>;
    /// Keeps a device on a server from its next connection on.
    ///
    /// # Errors
    /// There is no such upstream or server, or the table is full.
    fn pin(&self, upstream: &str, key: &str, server: &str) -> Result<Pin, UpstreamError>;
    /// Forgets a pin; `false`: there was none.
    ///
    /// # Errors
    /// There is no such upstream.
    fn unpin(&self, upstream: &str, key: &str) -> Result<bool, UpstreamError>;
}
