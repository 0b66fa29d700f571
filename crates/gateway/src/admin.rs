//! What operators ask of a running gateway: [`GatewayAdmin`] answered from the workers' lists and the upstreams.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use api::Answer;
use api::gateway::{
    Connection, ConnectionQuery, GatewayAdmin, Listener as ListenerRow, Pin, Server as ServerRow,
    Upstream as UpstreamRow, UpstreamError,
};
use api::page::{Page, PageMeta, PageQuery};
use runtime::events::Event;
use runtime::metrics::Counter;
use tokio::sync::oneshot;

use crate::accept::Listener;
use crate::config::ServerConfig;
use crate::error::{End, Refusal};
use crate::metrics::ListenerStats;
use crate::route::ChosenBy;
use crate::server::{Server, State};
use crate::sticky::{Origin, PinsFull};
use crate::upstream::Upstream;
use crate::worker::{Command, Row};
use crate::{Gateway, metrics::ServerStats};

/// Rows of a page where the question says nothing, and at most.
const DEFAULT_LIMIT: usize = 100;
const MAX_LIMIT: usize = 10_000;

fn limit(page: &PageQuery) -> usize {
    page.limit.unwrap_or(DEFAULT_LIMIT).clamp(1, MAX_LIMIT)
}

/// Cuts one row too many off; `cursor` makes the place to go on at out of the last row that stays.
fn page<T>(mut rows: Vec<T>, limit: usize, cursor: impl FnOnce(&T) -> String) -> Page<T> {
    let more = rows.len() > limit;
    rows.truncate(limit);
    let cursor = rows.last().filter(|_| more).map(cursor);
    Page { data: rows, meta: PageMeta { cursor } }
}

/// A place in the list of connections as its cursor: the number in hexadecimal, a dot, the client id.
fn parse_cursor(cursor: &str) -> Option<(String, u64)> {
    let (number, clientid) = cursor.split_once('.')?;
    Some((clientid.to_owned(), u64::from_str_radix(number, 16).ok()?))
}

impl Gateway {
    /// Asks all workers. One that is gone has no connections.
    async fn ask(&self, question: impl Fn(oneshot::Sender<Vec<Row>>) -> Command) -> Vec<Row> {
        let mut answers = Vec::new();
        for agent in &self.0.agents {
            let (answer, receiver) = oneshot::channel();
            let _ = agent.force(question(answer));
            answers.push(receiver);
        }
        let mut rows = Vec::new();
        for answer in answers {
            rows.extend(answer.await.unwrap_or_default());
        }
        rows
    }

    fn upstream(&self, name: &str) -> Result<Arc<Upstream>, UpstreamError> {
        let applied = self.0.applied();
        let found = applied.upstreams.iter().find(|upstream| *upstream.config.name == *name);
        found.cloned().ok_or(UpstreamError::NoUpstream)
    }

    fn set_state(&self, upstream: &str, server: &str, state: State) -> Result<ServerRow, UpstreamError> {
        let upstream = self.upstream(upstream)?;
        let (index, server) = upstream.server(server).ok_or(UpstreamError::NoServer)?;
        // A reload may have removed it since: it stays removed.
        if server.state() != State::Removed {
            let before = server.set_state(state);
            if before != state {
                if state == State::Up {
                    upstream.enabled(index, self.0.context.clock.now());
                }
                self.0.context.events.emit(Event::ServerStateChanged {
                    upstream: Arc::clone(&server.upstream),
                    server: Arc::clone(&server.name),
                    from: before.name().into(),
                    to: state.name().into(),
                });
            }
        }
        Ok(describe(server, upstream.config.servers.get(index), self.0.context.clock.now()))
    }
}

/// A server's row; without a configuration it is leaving.
fn describe(server: &Server, config: Option<&ServerConfig>, now: Instant) -> ServerRow {
    let sum = |counter: fn(&ServerStats) -> &Counter| server.stats.sum(counter);
    let (unavailable, unavailable_total, downtime) = server.health(now);
    let state = match server.state() {
        State::Up if config.is_some_and(|config| config.down) => "down",
        State::Up if unavailable => "unavailable",
        other => other.name(),
    };
    let made = sum(|stats| &stats.made);
    ServerRow {
        name: server.name.to_string(),
        address: server.address.to_string(),
        // What a reload removed takes no share of new devices.
        weight: config.map_or(0, |config| config.weight),
        backup: config.is_some_and(|config| config.backup),
        max_conns: config.map_or(0, |config| config.max_conns),
        state: state.to_owned(),
        connections: server.open(),
        connections_total: made,
        fails: sum(|stats| &stats.fails),
        unavailable_total,
        downtime_ms: u64::try_from(downtime.as_millis()).unwrap_or(u64::MAX),
        connect_us: sum(|stats| &stats.connect_nanos).checked_div(made).unwrap_or(0) / 1_000,
        bytes_in: sum(|stats| &stats.bytes_in),
        bytes_out: sum(|stats| &stats.bytes_out),
        last_error: server.last_error().as_deref().map(str::to_owned),
    }
}

fn describe_listener(listener: &Listener) -> ListenerRow {
    let policy = listener.policy.load();
    let config = &policy.config;
    let by = |names: &mut dyn Iterator<Item = &'static str>, counters: fn(&ListenerStats) -> &[Counter]| {
        let sum = |place: usize| {
            listener.stats.iter().filter_map(|stats| counters(stats).get(place)).map(Counter::get).sum()
        };
        let rows = names.enumerate().map(|(place, name)| (name.to_owned(), sum(place)));
        rows.filter(|(_, count)| *count > 0).collect::<BTreeMap<_, u64>>()
    };
    let refused = by(&mut Refusal::NAMES.into_iter(), |stats| &stats.refused);
    let chosen_by = by(&mut ChosenBy::ALL.into_iter().map(ChosenBy::name), |stats| &stats.chosen);
    ListenerRow {
        name: listener.name.to_string(),
        bind: listener.local.to_string(),
        upstream: config.upstream.to_string(),
        proxy_protocol: config.proxy_protocol,
        connections: listener.open(),
        max_connections: config.max_connections,
        max_connections_per_address: config.max_connections_per_address,
        access_rules: config.access.len(),
        accepted_total: listener.stats.sum(|stats| &stats.accepted),
        served_total: chosen_by.values().sum(),
        refused_total: refused.values().sum(),
        refused,
        chosen_by,
        ended: by(&mut End::ALL.into_iter().map(End::name), |stats| &stats.ended),
        pauses: listener.stats.sum(|stats| &stats.pauses),
    }
}

impl GatewayAdmin for Gateway {
    fn connections(&self, query: ConnectionQuery, asked: PageQuery) -> Answer<'_, Page<Connection>> {
        Box::pin(async move {
            let limit = limit(&asked);
            let after = asked.cursor.as_deref().and_then(parse_cursor);
            let mut rows = self
                .ask(|answer| Command::List {
                    query: query.clone(),
                    after: after.clone(),
                    limit: limit + 1,
                    answer,
                })
                .await;
            rows.sort_by(|a, b| (&a.connection.clientid, a.number).cmp(&(&b.connection.clientid, b.number)));
            let page = page(rows, limit, |row| format!("{:x}.{}", row.number, row.connection.clientid));
            Page { data: page.data.into_iter().map(|row| row.connection).collect(), meta: page.meta }
        })
    }

    fn connection(&self, clientid: String) -> Answer<'_, Vec<Connection>> {
        Box::pin(async move {
            let mut rows = self.ask(|answer| Command::Find { clientid: clientid.clone(), answer }).await;
            rows.sort_by_key(|row| std::cmp::Reverse((row.connected_at, row.number)));
            rows.into_iter().map(|row| row.connection).collect()
        })
    }

    fn listeners(&self) -> Vec<ListenerRow> {
        self.0.applied().listeners.iter().map(|listener| describe_listener(listener)).collect()
    }

    fn upstreams(&self) -> Vec<UpstreamRow> {
        let applied = self.0.applied();
        let now = self.0.context.clock.now();
        let mut rows: Vec<UpstreamRow> = applied
            .upstreams
            .iter()
            .map(|upstream| UpstreamRow {
                name: upstream.config.name.to_string(),
                balance: upstream.config.balance.name().to_owned(),
                hash: upstream.config.hash.name().to_owned(),
                pins: upstream.pins().len(),
                queue: upstream.config.queue,
                queued: upstream.queue.waiting(),
                queued_total: upstream.queue.total(),
                servers: upstream
                    .servers
                    .iter()
                    .zip(&upstream.config.servers)
                    .map(|(server, config)| describe(server, Some(config), now))
                    .collect(),
            })
            .collect();
        for server in applied.leaving.iter().filter(|server| server.open() > 0) {
            let row = describe(server, None, now);
            match rows.iter_mut().find(|upstream| *upstream.name == *server.upstream) {
                Some(upstream) => upstream.servers.push(row),
                None => rows.push(UpstreamRow {
                    name: server.upstream.to_string(),
                    balance: "removed".to_owned(),
                    hash: "removed".to_owned(),
                    pins: 0,
                    queue: 0,
                    queued: 0,
                    queued_total: 0,
                    servers: vec![row],
                }),
            }
        }
        rows
    }

    fn drain(&self, upstream: &str, server: &str) -> Result<ServerRow, UpstreamError> {
        self.set_state(upstream, server, State::Draining)
    }

    fn enable(&self, upstream: &str, server: &str) -> Result<ServerRow, UpstreamError> {
        self.set_state(upstream, server, State::Up)
    }

    fn pins(&self, upstream: &str, asked: PageQuery) -> Result<Page<Pin>, UpstreamError> {
        let upstream = self.upstream(upstream)?;
        let limit = limit(&asked);
        let rows = upstream.pins().page(asked.cursor.as_deref(), limit + 1);
        let rows = rows.into_iter().map(|(key, server, origin)| pin_row(&key, &server, origin)).collect();
        Ok(page(rows, limit, |row: &Pin| row.key.clone()))
    }

    fn pin(&self, upstream: &str, key: &str, server: &str) -> Result<Pin, UpstreamError> {
        let upstream = self.upstream(upstream)?;
        let (_, server) = upstream.server(server).ok_or(UpstreamError::NoServer)?;
        upstream.pin(key, &server.name).map_err(|PinsFull| UpstreamError::PinsFull)?;
        Ok(pin_row(key, &server.name, Origin::Operator))
    }

    fn unpin(&self, upstream: &str, key: &str) -> Result<bool, UpstreamError> {
        Ok(self.upstream(upstream)?.pins().remove(key))
    }
}

fn pin_row(key: &str, server: &str, origin: Origin) -> Pin {
    Pin { key: key.to_owned(), server: server.to_owned(), origin: origin.name().to_owned() }
}
