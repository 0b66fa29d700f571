//! What the broker answers to the admin interface.

use std::sync::Arc;

use api::Answer;
use api::broker::{BrokerAdmin, Client, ClientQuery, Subscription};
use api::node::Node;
use api::page::{Page, PageMeta, PageQuery};
use runtime::clock::rfc3339;

use crate::connection::{Conn, ConnId, End, Origin};
use crate::exclusive;
use crate::session_store::{About, Offline};
use crate::start::Broker;
use crate::worker::Worker;

const DEFAULT_LIMIT: usize = 100;
const MAX_LIMIT: usize = 10_000;
/// Rows of stored sessions that are gathered before those beyond the page are let go: there may be millions.
const ROWS_AT_ONCE: usize = 1_000;

/// The first `most` rows by client identifier. A client that came or went while the workers were asked is there once.
fn keep_first(rows: &mut Vec<Client>, most: usize) {
    rows.sort_by(|a, b| a.clientid.cmp(&b.clientid));
    rows.dedup_by(|a, b| a.clientid == b.clientid);
    rows.truncate(most);
}

impl BrokerAdmin for Broker {
    fn clients(&self, query: ClientQuery, page: PageQuery) -> Answer<'_, Page<Client>> {
        Box::pin(async move {
            let limit = page.limit.unwrap_or(DEFAULT_LIMIT).clamp(1, MAX_LIMIT);
            let after = page.cursor;
            let mut rows: Vec<Client> = Vec::new();
            if query.conn_state.as_deref() != Some("disconnected") {
                let (query, after) = (query.clone(), after.clone());
                let pages = self.ask_all(move |w| w.list(&query, after.as_deref(), limit + 1)).await;
                rows.extend(pages.into_iter().flatten());
            }
            if query.conn_state.as_deref() != Some("connected") {
                let node = &self.0.shared.node;
                self.0.shared.store.for_each(|offline| {
                    if wanted(&query, after.as_deref(), &offline.client_id, offline.about.username.as_deref())
                    {
                        rows.push(offline_client(offline, node));
                        if rows.len() >= ROWS_AT_ONCE.max(4 * limit) {
                            keep_first(&mut rows, limit + 1);
                        }
                    }
                });
            }
            keep_first(&mut rows, limit + 1);
            let more = rows.len() > limit;
            rows.truncate(limit);
            let cursor = if more { rows.last().map(|c| c.clientid.clone()) } else { None };
            Page { data: rows, meta: PageMeta { cursor } }
        })
    }

    fn client(&self, clientid: String) -> Answer<'_, Option<Client>> {
        Box::pin(async move {
            if let Some(owner) = self.0.shared.registry.get(&clientid) {
                let id = ConnId { slot: owner.slot, generation: owner.generation };
                let found = self.ask(usize::from(owner.worker), move |w| w.show(id)).await;
                if let Ok(Some(client)) = found {
                    return Some(client);
                }
            }
            let node = Arc::clone(&self.0.shared.node);
            self.0.shared.store.with(&clientid, |offline| offline_client(offline, &node))
        })
    }

    fn subscriptions(&self, clientid: String) -> Answer<'_, Option<Vec<Subscription>>> {
        Box::pin(async move {
            if let Some(owner) = self.0.shared.registry.get(&clientid) {
                let id = ConnId { slot: owner.slot, generation: owner.generation };
                let found = self.ask(usize::from(owner.worker), move |w| w.subscriptions_of(id)).await;
                if let Ok(Some(list)) = found {
                    return Some(list);
                }
            }
            let node = Arc::clone(&self.0.shared.node);
            self.0.shared.store.with(&clientid, |offline| {
                let mut list: Vec<_> = offline
                    .subscriptions
                    .iter()
                    .map(|(filter, s)| subscription(&offline.client_id, filter, &s, &node))
                    .collect();
                list.sort_by(|a, b| a.topic.cmp(&b.topic));
                list
            })
        })
    }

    fn kick(&self, clientid: String) -> Answer<'_, bool> {
        Box::pin(async move {
            if let Some(owner) = self.0.shared.registry.get(&clientid) {
                let id = ConnId { slot: owner.slot, generation: owner.generation };
                let kicked = self
                    .ask(usize::from(owner.worker), move |w| {
                        let there = w.conn(id).is_some();
                        w.end(id, End::Kicked);
                        there
                    })
                    .await;
                if kicked == Ok(true) {
                    return true;
                }
            }
            let Some(offline) = self.0.shared.store.take_to_remove(&clientid) else { return false };
            self.ask(0, move |w| {
                w.remove_session(&offline);
            })
            .await
            .is_ok()
        })
    }

    fn node(&self) -> Answer<'_, Node> {
        Box::pin(async move {
            let connected: usize = self.ask_all(|w| w.connected()).await.into_iter().sum();
            let shared = &self.0.shared;
            Node {
                node: shared.node.to_string(),
                node_status: "running".to_owned(),
                version: env!("CARGO_PKG_VERSION").to_owned(),
                uptime: self.uptime_ms(),
                connections: connected as u64,
                sessions: (connected + shared.store.len()) as u64,
                subscriptions: shared.router.subscriptions(),
                retained: shared.retained_len() as u64,
                engine: shared.guarantees.kind.to_owned(),
                durable: shared.guarantees.survives_restart,
            }
        })
    }
}

fn wanted(query: &ClientQuery, after: Option<&str>, client_id: &str, username: Option<&str>) -> bool {
    after.is_none_or(|after| client_id > after)
        && query.clientid.as_deref().is_none_or(|id| id == client_id)
        && query.username.as_deref().is_none_or(|u| Some(u) == username)
}

impl Worker {
    fn list(&self, query: &ClientQuery, after: Option<&str>, limit: usize) -> Vec<Client> {
        let mut ids: Vec<(&str, ConnId)> = self
            .ids()
            .filter_map(|id| {
                let conn = self.conn(id).filter(|c| c.is_connected())?;
                let client_id = &*conn.session.as_ref()?.client_id;
                let username = conn.about.as_ref().and_then(|a| a.username.as_deref());
                wanted(query, after, client_id, username).then_some((client_id, id))
            })
            .collect();
        ids.sort_unstable_by_key(|(client_id, _)| *client_id);
        ids.truncate(limit);
        ids.into_iter().filter_map(|(_, id)| self.show(id)).collect()
    }

    fn connected(&self) -> usize {
        self.conns.iter().filter(|(_, c)| c.is_connected()).count()
    }

    fn show(&self, id: ConnId) -> Option<Client> {
        let conn = self.conn(id).filter(|c| c.is_connected())?;
        let Conn { session: Some(session), about: Some(about), .. } = conn else { return None };
        Some(Client {
            connected: true,
            subscriptions_cnt: session.subscriptions.len(),
            inflight_cnt: session.outbound.len(),
            mqueue_len: session.waiting(),
            mqueue_dropped: session.dropped,
            recv_msg: conn.recv_msg,
            send_msg: conn.send_msg,
            recv_oct: conn.recv_oct,
            send_oct: conn.send_oct,
            expiry_interval: session.expiry,
            created_at: rfc3339(session.created_at),
            disconnected_at: None,
            ..client(&session.client_id, about, &conn.origin, &self.shared.node)
        })
    }

    fn subscriptions_of(&self, id: ConnId) -> Option<Vec<Subscription>> {
        let session = self.conn(id)?.session.as_ref()?;
        Some(
            session
                .subscriptions
                .iter()
                .map(|(filter, s)| subscription(&session.client_id, filter, &s, &self.shared.node))
                .collect(),
        )
    }
}

fn subscription(client_id: &str, filter: &str, s: &crate::session::Subscription, node: &str) -> Subscription {
    Subscription {
        clientid: client_id.to_owned(),
        topic: if s.exclusive { exclusive::with_prefix(filter) } else { filter.to_owned() },
        qos: s.options.qos as u8,
        nl: u8::from(s.options.no_local),
        rap: u8::from(s.options.retain_as_published),
        rh: s.options.retain_handling as u8,
        subid: (s.identifier != 0).then_some(s.identifier),
        node: node.to_owned(),
    }
}

/// The fields that come from the CONNECT.
fn client(client_id: &str, about: &About, origin: &Origin, node: &str) -> Client {
    Client {
        clientid: client_id.to_owned(),
        username: about.username.as_deref().map(str::to_owned),
        node: node.to_owned(),
        connected: false,
        proto_name: if about.proto_ver == 3 { "MQIsdp" } else { "MQTT" }.to_owned(),
        proto_ver: about.proto_ver,
        peer: origin.peer.to_string(),
        via: origin.via.as_ref().map(|v| v.address.to_string()),
        unique_id: origin.via.as_ref().and_then(|v| v.unique_id.as_deref()).map(str::to_owned),
        listener: origin.door.name.to_string(),
        clean_start: about.clean_start,
        session_present: about.session_present,
        keepalive: about.keep_alive,
        expiry_interval: 0,
        connected_at: rfc3339(about.connected_at),
        disconnected_at: None,
        created_at: rfc3339(about.connected_at),
        subscriptions_cnt: 0,
        inflight_cnt: 0,
        mqueue_len: 0,
        mqueue_dropped: 0,
        recv_msg: 0,
        send_msg: 0,
        recv_oct: 0,
        send_oct: 0,
    }
}

fn offline_client(offline: &Offline, node: &str) -> Client {
    Client {
        expiry_interval: offline.expiry,
        created_at: rfc3339(offline.created_at),
        disconnected_at: Some(rfc3339(offline.disconnected_at)),
        subscriptions_cnt: offline.subscriptions.len(),
        inflight_cnt: offline.inflight,
        mqueue_dropped: offline.dropped,
        ..client(&offline.client_id, &offline.about, &offline.origin, node)
    }
}
