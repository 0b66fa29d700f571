//! Roles that answer from lists and remember what they were told.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use ::api::Answer;
use ::api::broker::{BrokerAdmin, Client, ClientQuery, Subscription};
use ::api::gateway::{
    Connection, ConnectionQuery, GatewayAdmin, Listener, Pin, Server, Upstream, UpstreamError,
};
use ::api::node::{EventRecord, Node, ProcessAdmin, Reloaded};
use ::api::page::{Page, PageMeta, PageQuery};
use serde_json::json;
use tokio::sync::Notify;

use crate::Roles;

/// A process with everything in it.
pub(super) fn roles(clients: &[&str]) -> Roles {
    Roles {
        process: Arc::new(FakeProcess::default()),
        broker: Some(Arc::new(FakeBroker::new(clients))),
        gateway: Some(Arc::new(FakeGateway::default())),
    }
}

/// A process without roles.
pub(super) fn bare() -> Roles {
    Roles { process: Arc::new(FakeProcess::default()), broker: None, gateway: None }
}

#[derive(Default)]
pub(super) struct FakeProcess {
    pub(super) not_ready: Vec<String>,
    pub(super) reload_errors: Vec<String>,
    /// Where set, a reload tells that it has begun and waits until it may end.
    pub(super) reload_gate: Option<(Arc<Notify>, Arc<Notify>)>,
    pub(super) reloads: Mutex<usize>,
    pub(super) panics: bool,
    pub(super) metrics: Option<String>,
}

impl ProcessAdmin for FakeProcess {
    fn reload(&self) -> Answer<'_, Result<Reloaded, Vec<String>>> {
        Box::pin(async {
            if let Some((begun, may_end)) = &self.reload_gate {
                begun.notify_one();
                may_end.notified().await;
            }
            *self.reloads.lock().unwrap() += 1;
            if !self.reload_errors.is_empty() {
                return Err(self.reload_errors.clone());
            }
            Ok(Reloaded { changes: vec!["a server was added".into()], restart_needed: vec![] })
        })
    }

    fn events(&self, since: Option<u64>, kind: Option<String>, limit: usize) -> Vec<EventRecord> {
        let kind = kind.unwrap_or_else(|| "client_connected".into());
        let record = |seq| EventRecord {
            seq,
            at: "2026-11-22T08:30:00.000Z".into(),
            event: json!({"type": kind, "clientid": "a"}),
        };
        let all: Vec<EventRecord> =
            (1..=5).map(record).filter(|record| record.seq > since.unwrap_or(0)).collect();
        let newest = all.len().saturating_sub(limit);
        all.into_iter().skip(newest).collect()
    }

    fn not_ready(&self) -> Vec<String> {
        assert!(!self.panics, "the fake was told to panic");
        self.not_ready.clone()
    }

    fn metrics(&self) -> String {
        self.metrics.clone().unwrap_or_else(|| "# TYPE tidegate_x_total counter\ntidegate_x_total 1\n".into())
    }
}

pub(super) struct FakeBroker(Mutex<Vec<Client>>);

impl FakeBroker {
    fn new(ids: &[&str]) -> Self {
        let mut clients: Vec<Client> = ids.iter().map(|id| client(id)).collect();
        clients.sort_by(|a, b| a.clientid.cmp(&b.clientid));
        Self(Mutex::new(clients))
    }
}

/// `user-ID`; connected unless the id begins with `off`.
pub(super) fn client(id: &str) -> Client {
    Client {
        clientid: id.into(),
        username: Some(format!("user-{id}")),
        node: "node1".into(),
        connected: !id.starts_with("off"),
        proto_name: "MQTT".into(),
        proto_ver: 5,
        peer: "10.0.0.1:1000".into(),
        via: None,
        unique_id: None,
        listener: "tcp://127.0.0.1:1883".into(),
        clean_start: true,
        session_present: false,
        keepalive: 60,
        expiry_interval: 0,
        connected_at: "2026-11-22T08:30:00.000Z".into(),
        disconnected_at: None,
        created_at: "2026-11-22T08:30:00.000Z".into(),
        subscriptions_cnt: 3,
        inflight_cnt: 0,
        mqueue_len: 0,
        mqueue_dropped: 0,
        recv_msg: 0,
        send_msg: 0,
        recv_oct: 0,
        send_oct: 0,
    }
}

impl BrokerAdmin for FakeBroker {
    fn clients(&self, query: ClientQuery, page: PageQuery) -> Answer<'_, Page<Client>> {
        Box::pin(async move {
            let connected = query.conn_state.map(|state| state == "connected");
            let clients = self.0.lock().unwrap();
            let mut rows = clients
                .iter()
                .filter(|client| query.clientid.as_ref().is_none_or(|id| client.clientid == *id))
                .filter(|client| query.username.is_none() || client.username == query.username)
                .filter(|client| connected.is_none_or(|connected| client.connected == connected))
                .filter(|client| page.cursor.as_ref().is_none_or(|cursor| client.clientid > *cursor))
                .cloned();
            let data: Vec<Client> = rows.by_ref().take(page.limit.unwrap_or(100)).collect();
            let more = rows.next().is_some();
            let cursor = data.last().filter(|_| more).map(|client| client.clientid.clone());
            Page { data, meta: PageMeta { cursor } }
        })
    }

    fn client(&self, clientid: String) -> Answer<'_, Option<Client>> {
        Box::pin(
            async move { self.0.lock().unwrap().iter().find(|client| client.clientid == clientid).cloned() },
        )
    }

    fn subscriptions(&self, clientid: String) -> Answer<'_, Option<Vec<Subscription>>> {
        Box::pin(async move {
            let known = self.0.lock().unwrap().iter().any(|client| client.clientid == clientid);
            known.then(|| ["a/#", "b/+", "c"].map(|topic| subscription(&clientid, topic)).into())
        })
    }

    fn kick(&self, clientid: String) -> Answer<'_, bool> {
        Box::pin(async move {
            let mut clients = self.0.lock().unwrap();
            let before = clients.len();
            clients.retain(|client| client.clientid != clientid);
            clients.len() < before
        })
    }

    fn node(&self) -> Answer<'_, Node> {
        Box::pin(async {
            Node {
                node: "node1".into(),
                node_status: "running".into(),
                version: "0.1.0".into(),
                uptime: 5,
                connections: 1,
                sessions: 1,
                subscriptions: 3,
                retained: 0,
                engine: "memory".into(),
                durable: false,
            }
        })
    }
}

fn subscription(clientid: &str, topic: &str) -> Subscription {
    Subscription {
        clientid: clientid.into(),
        topic: topic.into(),
        qos: 1,
        nl: 0,
        rap: 0,
        rh: 0,
        subid: None,
        node: "node1".into(),
    }
}

/// One upstream `brokers` with the servers `a` and `10.0.0.2:1883`; room for two pins; the connections `x` (one),
/// `twice` (two) and the empty client id (three).
#[derive(Default)]
pub(super) struct FakeGateway(Mutex<Vec<Pin>>);

impl FakeGateway {
    fn server(upstream: &str, name: &str, state: &str) -> Result<Server, UpstreamError> {
        if upstream != "brokers" {
            return Err(UpstreamError::NoUpstream);
        }
        if !["a", "10.0.0.2:1883"].contains(&name) {
            return Err(UpstreamError::NoServer);
        }
        Ok(Server {
            name: name.into(),
            address: "10.0.0.2:1883".into(),
            weight: 1,
            backup: false,
            max_conns: 0,
            unavailable_total: 0,
            downtime_ms: 0,
            connect_us: 0,
            state: state.into(),
            connections: 0,
            connections_total: 0,
            fails: 0,
            bytes_in: 0,
            bytes_out: 0,
            last_error: None,
        })
    }

    fn all() -> Vec<Connection> {
        [("", 1), ("", 2), ("", 3), ("twice", 4), ("twice", 5), ("x", 6)]
            .map(|(id, n)| connection(id, n))
            .into()
    }
}

fn connection(clientid: &str, second: u8) -> Connection {
    Connection {
        id: format!("c{second}"),
        clientid: clientid.into(),
        username: None,
        proto_ver: Some(4),
        peer: "10.0.0.1:1000".into(),
        via: None,
        listener: "tcp://127.0.0.1:1880".into(),
        upstream: "brokers".into(),
        server: if second.is_multiple_of(2) { "a" } else { "10.0.0.2:1883" }.into(),
        server_address: if second.is_multiple_of(2) { "10.0.0.1:1883" } else { "10.0.0.2:1883" }.into(),
        local_address: "10.0.0.9:5000".into(),
        chosen_by: "hash".into(),
        connected_at: format!("2026-11-22T08:30:{second:02}.000Z"),
        bytes_in: 1,
        bytes_out: 2,
    }
}

impl GatewayAdmin for FakeGateway {
    fn connections(&self, query: ConnectionQuery, page: PageQuery) -> Answer<'_, Page<Connection>> {
        Box::pin(async move {
            let rows = Self::all().into_iter();
            let rows = rows.filter(|row| query.server.as_ref().is_none_or(|server| row.server == *server));
            let rows = rows.filter(|row| query.upstream.as_ref().is_none_or(|up| row.upstream == *up));
            Page { data: rows.take(page.limit.unwrap_or(100)).collect(), meta: PageMeta::default() }
        })
    }

    fn connection(&self, clientid: String) -> Answer<'_, Vec<Connection>> {
        Box::pin(
            async move { Self::all().into_iter().rev().filter(|row| row.clientid == clientid).collect() },
        )
    }

    fn listeners(&self) -> Vec<Listener> {
        let listener = |port: u16| Listener {
            name: format!("tcp://127.0.0.1:{port}"),
            bind: format!("127.0.0.1:{port}"),
            upstream: "brokers".into(),
            proxy_protocol: false,
            connections: 1,
            max_connections: 100_000,
            max_connections_per_address: 0,
            access_rules: 0,
            accepted_total: 3,
            served_total: 1,
            refused_total: 2,
            refused: [("access_denied".to_owned(), 2)].into(),
            chosen_by: [("hash".to_owned(), 1)].into(),
            ended: BTreeMap::new(),
            pauses: 0,
        };
        [1881, 1880].map(listener).into()
    }

    fn upstreams(&self) -> Vec<Upstream> {
        let servers = ["a", "10.0.0.2:1883"].map(|name| Self::server("brokers", name, "up").unwrap());
        vec![Upstream {
            name: "brokers".into(),
            balance: "client_id".into(),
            hash: "rendezvous".into(),
            pins: self.0.lock().unwrap().len(),
            queue: 0,
            queued: 0,
            queued_total: 0,
            servers: servers.into(),
        }]
    }

    fn drain(&self, upstream: &str, server: &str) -> Result<Server, UpstreamError> {
        Self::server(upstream, server, "draining")
    }

    fn enable(&self, upstream: &str, server: &str) -> Result<Server, UpstreamError> {
        Self::server(upstream, server, "up")
    }

    fn pins(&self, upstream: &str, page: PageQuery) -> Result<Page<Pin>, UpstreamError> {
        if upstream != "brokers" {
            return Err(UpstreamError::NoUpstream);
        }
        let rows = self.0.lock().unwrap().iter().take(page.limit.unwrap_or(100)).cloned().collect();
        Ok(Page { data: rows, meta: PageMeta::default() })
    }

    fn pin(&self, upstream: &str, key: &str, server: &str) -> Result<Pin, UpstreamError> {
        Self::server(upstream, server, "up")?;
        let mut pins = self.0.lock().unwrap();
        pins.retain(|pin| pin.key != key);
        if pins.len() == 2 {
            return Err(UpstreamError::PinsFull);
        }
        let pin = Pin { key: key.into(), server: server.into(), origin: "operator".into() };
        pins.push(pin.clone());
        Ok(pin)
    }

    fn unpin(&self, upstream: &str, key: &str) -> Result<bool, UpstreamError> {
        if upstream != "brokers" {
            return Err(UpstreamError::NoUpstream);
        }
        let mut pins = self.0.lock().unwrap();
        let before = pins.len();
        pins.retain(|pin| pin.key != key);
        Ok(pins.len() < before)
    }
}
