//! Putting a configuration in force: at the start, and again and again while devices are connected.
//!
//! Everything that can fail comes first (new listeners are bound); then the change is made in one go. Established
//! connections stay: a removed listener stops accepting, a removed server gets no new connections and is shown until
//! its last one ends. A server is the same one as long as its upstream, name and address stay: it keeps its counters,
//! its connections and an operator's drain.

use std::collections::HashMap;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;

use net::listener::{ListenError, accept_without_keepalive};
use runtime::events::Event;
use runtime::workers::WorkerId;

use crate::accept::{Listener, Policy};
use crate::config::{GatewayConfig, ListenerConfig, ServerConfig, UpstreamConfig};
use crate::error::StartError;
use crate::server::{self, Server, State};
use crate::upstream::Upstream;
use crate::worker::{Command, OBEY_WAIT};
use crate::{Context, Gateway, Inner};

/// What is in force.
#[derive(Default)]
pub(crate) struct Applied {
    pub(crate) config: GatewayConfig,
    /// In the order of the configuration.
    pub(crate) listeners: Vec<Arc<Listener>>,
    /// In the order of the configuration.
    pub(crate) upstreams: Vec<Arc<Upstream>>,
    /// Servers that the configuration has no more but that may have connections.
    pub(crate) leaving: Vec<Arc<Server>>,
    listener_numbers: u64,
    stopped: bool,
}

impl Applied {
    /// Servers of the configuration and those that are leaving, each once.
    pub(crate) fn all_servers(&self) -> impl Iterator<Item = (&Arc<Server>, Option<&ServerConfig>)> {
        let here = self
            .upstreams
            .iter()
            .flat_map(|upstream| upstream.servers.iter().zip(upstream.config.servers.iter().map(Some)));
        here.chain(self.leaving.iter().filter(|server| server.open() > 0).map(|server| (server, None)))
    }

    /// No configuration comes in force any more.
    pub(crate) fn stop(&mut self, context: &Context) {
        if self.stopped {
            return;
        }
        self.stopped = true;
        for listener in &self.listeners {
            context.readiness.set(&condition(&listener.policy.load().config), false);
            stopped(context, listener, "shutdown");
        }
    }

    fn listener(&self, config: &ListenerConfig) -> Option<&Arc<Listener>> {
        self.listeners.iter().find(|listener| listener.bind == config.bind)
    }

    fn upstream(&self, name: &str) -> Option<&Arc<Upstream>> {
        self.upstreams.iter().find(|upstream| *upstream.config.name == *name)
    }
}

impl Gateway {
    /// Puts a configuration in force, and says what changed in sentences (none: nothing did). Blocks for two
    /// seconds at most, while workers close removed listeners: not to be called on a worker.
    ///
    /// # Errors
    /// When a new listener can't be bound; everything is then as it was.
    pub fn apply(&self, new: GatewayConfig) -> Result<Vec<String>, StartError> {
        let inner = &*self.0;
        let mut applied = inner.applied();
        if applied.stopped || inner.context.shutdown.requested() {
            return Err(StartError::Stopped);
        }
        let bound = bind(inner, &applied, &new)?;
        let log = inner.log.prepare(&new.session_log)?;
        let changes = changes(&applied.config, &new);

        let upstreams = build(inner, &applied, &new);
        inner.log.change(log);
        // Before the first device can be sent to them.
        let now = inner.context.clock.now();
        let unchanged = |upstream: &Arc<Upstream>| {
            applied.upstream(&upstream.config.name).is_some_and(|before| Arc::ptr_eq(before, upstream))
        };
        for upstream in upstreams.iter().filter(|upstream| !unchanged(upstream)) {
            upstream.enter(now);
        }
        let find = |name: &str| upstreams.iter().find(|upstream| *upstream.config.name == *name).cloned();
        let mut bound = bound.into_iter();
        let mut listeners = Vec::new();
        let mut started = Vec::new();
        for config in &new.listeners {
            // `config::read` has seen to it that the upstream is there.
            let Some(upstream) = find(&config.upstream) else { continue };
            let policy = Policy::new(config.clone(), upstream);
            if let Some(kept) = applied.listener(config) {
                kept.policy.store(Arc::new(policy));
                listeners.push(Arc::clone(kept));
            } else if let Some((local, sockets)) = bound.next() {
                applied.listener_numbers += 1;
                let number = applied.listener_numbers;
                let (workers, now) = (inner.context.workers.len(), inner.context.clock.now());
                let listener = Arc::new(Listener::new(number, local, policy, workers, now));
                listeners.push(Arc::clone(&listener));
                started.push((listener, sockets));
            }
        }
        // Who waits in a queue looks which policy holds: after it was stored.
        upstreams.iter().for_each(|upstream| upstream.queue.call_all());
        retire_servers(inner, &mut applied, &upstreams);
        let gone = |listener: &&Arc<Listener>| !listeners.iter().any(|other| Arc::ptr_eq(other, listener));
        let removed: Vec<_> = applied.listeners.iter().filter(gone).cloned().collect();
        applied.listeners = listeners;
        applied.upstreams = upstreams;
        applied.config = new;
        for (listener, sockets) in started {
            serve(inner, &listener, sockets);
        }
        for listener in removed {
            unlisten(inner, &listener);
        }
        Ok(changes)
    }
}

type Bound = Vec<(std::net::SocketAddr, Vec<TcpListener>)>;

/// Binds the listeners that are not there yet, in the order of the configuration.
fn bind(inner: &Inner, applied: &Applied, new: &GatewayConfig) -> Result<Bound, StartError> {
    let mut bound = Vec::new();
    for config in new.listeners.iter().filter(|config| applied.listener(config).is_none()) {
        let sockets = net::listener::bind_group(config.bind, inner.context.workers.len())?;
        for socket in &sockets {
            accept_without_keepalive(socket).map_err(|error| ListenError { addr: config.bind, error })?;
        }
        let local = sockets.first().and_then(|socket| socket.local_addr().ok()).unwrap_or(config.bind);
        bound.push((local, sockets));
    }
    Ok(bound)
}

/// Builds the upstreams that changed, and keeps those that did not.
fn build(inner: &Inner, applied: &Applied, new: &GatewayConfig) -> Vec<Arc<Upstream>> {
    let workers = inner.context.workers.len();
    let one = |config: &UpstreamConfig| {
        let before = applied.upstream(&config.name);
        if let Some(same) = before.filter(|upstream| upstream.config == *config) {
            return Arc::clone(same);
        }
        let upstream = Upstream::new(config, workers, before.map(|before| &**before), &applied.leaving);
        let before =
            || applied.upstreams.iter().flat_map(|upstream| &upstream.servers).chain(&applied.leaving);
        let known = |server: &Arc<Server>| before().any(|other| Arc::ptr_eq(other, server));
        for server in upstream.servers.iter().filter(|server| server.has_name() && !known(server)) {
            let server = Arc::downgrade(server);
            // One lookup at a time per name, on the first worker; the lookup itself runs on a thread of its own.
            inner.context.workers.spawn(WorkerId(0), move || server::keep_resolving(server));
        }
        Arc::new(upstream)
    };
    new.upstreams.iter().map(one).collect()
}

/// Servers that are in no upstream any more get no new connections, and are kept in sight while they have some.
fn retire_servers(inner: &Inner, applied: &mut Applied, upstreams: &[Arc<Upstream>]) {
    let stays = |server: &Arc<Server>| {
        upstreams.iter().flat_map(|upstream| &upstream.servers).any(|other| Arc::ptr_eq(other, server))
    };
    let candidates = applied.upstreams.iter().flat_map(|upstream| &upstream.servers);
    let gone: Vec<_> = candidates.filter(|server| !stays(server)).cloned().collect();
    for server in &gone {
        let before = server.set_state(State::Removed);
        inner.context.events.emit(Event::ServerStateChanged {
            upstream: Arc::clone(&server.upstream),
            server: Arc::clone(&server.name),
            from: before.name().into(),
            to: "removed".into(),
        });
    }
    applied.leaving.extend(gone);
    // One that just lost its place may still be in a choice that began before: it is kept a round longer.
    applied.leaving.retain(|server| !stays(server) && (server.open() > 0 || Arc::strong_count(server) > 1));
}

fn condition(config: &ListenerConfig) -> String {
    format!("gateway listener {}", config.bind)
}

fn serve(inner: &Inner, listener: &Arc<Listener>, sockets: Vec<TcpListener>) {
    let condition = condition(&listener.policy.load().config);
    inner.context.readiness.declare(&condition);
    for (agent, socket) in inner.agents.iter().zip(sockets) {
        let _ = agent.force(Command::Listen { listener: Arc::clone(listener), socket });
    }
    inner.context.readiness.set(&condition, true);
    inner
        .context
        .events
        .emit(Event::ListenerStarted { listener: Arc::clone(&listener.name), bind: listener.local });
}

/// Closes a removed listener's sockets on all workers, and waits for it: its port can be bound again then.
fn unlisten(inner: &Inner, listener: &Listener) {
    inner.context.readiness.remove(&condition(&listener.policy.load().config));
    let (done, closed) = sync_channel(inner.agents.len());
    for agent in &inner.agents {
        let _ = agent.force(Command::Unlisten { number: listener.number, done: done.clone() });
    }
    drop(done);
    let deadline = inner.context.clock.now() + OBEY_WAIT;
    // Ends when every worker has answered (all senders are gone) or the time is over.
    while closed.recv_timeout(deadline.saturating_duration_since(inner.context.clock.now())).is_ok() {}
    stopped(&inner.context, listener, "removed");
}

fn stopped(context: &Context, listener: &Listener, reason: &str) {
    context.events.emit(Event::ListenerStopped {
        listener: Arc::clone(&listener.name),
        bind: listener.local,
        reason: reason.into(),
    });
}

/// What is different, in sentences.
fn changes(old: &GatewayConfig, new: &GatewayConfig) -> Vec<String> {
    let mut changes = Vec::new();
    if old.session_log != new.session_log {
        changes.push(format!("session log: {}", new.session_log));
    }
    let by_bind: HashMap<_, _> = old.listeners.iter().map(|listener| (listener.bind, listener)).collect();
    for listener in &new.listeners {
        match by_bind.get(&listener.bind) {
            None => changes.push(format!("listener {} added", listener.bind)),
            Some(before) if *before != listener => {
                changes.push(format!("listener {} changed", listener.bind));
            }
            Some(_) => {}
        }
    }
    for listener in &old.listeners {
        if !new.listeners.iter().any(|other| other.bind == listener.bind) {
            changes.push(format!(
                "listener {} removed: it accepts no more, its connections stay",
                listener.bind
            ));
        }
    }
    for upstream in &new.upstreams {
        match old.upstreams.iter().find(|other| other.name == upstream.name) {
            None => changes.push(format!("upstream {} added", upstream.name)),
            Some(before) => upstream_changes(before, upstream, &mut changes),
        }
    }
    for upstream in &old.upstreams {
        if !new.upstreams.iter().any(|other| other.name == upstream.name) {
            changes.push(format!("upstream {} removed: its connections stay", upstream.name));
        }
    }
    changes
}

fn server_changes(upstream: &str, old: &ServerConfig, new: &ServerConfig, changes: &mut Vec<String>) {
    let name = &new.name;
    if old.weight != new.weight {
        let (old, new) = (old.weight, new.weight);
        changes.push(format!("upstream {upstream}: server {name} has weight {new} instead of {old}"));
    }
    if old.down != new.down {
        let what = if new.down { "down: its connections stay" } else { "no longer down" };
        changes.push(format!("upstream {upstream}: server {name} is {what}"));
    }
    if old.backup != new.backup {
        let what = if new.backup { "a backup" } else { "no longer a backup" };
        changes.push(format!("upstream {upstream}: server {name} is {what}"));
    }
    let settings = ServerConfig { weight: new.weight, down: new.down, backup: new.backup, ..old.clone() };
    if settings != *new {
        changes.push(format!("upstream {upstream}: settings of server {name} changed"));
    }
}

fn upstream_changes(old: &UpstreamConfig, new: &UpstreamConfig, changes: &mut Vec<String>) {
    let name = &new.name;
    for server in &new.servers {
        let same = |other: &&ServerConfig| other.name == server.name && other.address == server.address;
        match old.servers.iter().find(same) {
            None => changes.push(format!("upstream {name}: server {} added", server.name)),
            Some(before) => server_changes(name, before, server, changes),
        }
    }
    for server in &old.servers {
        if !new.servers.iter().any(|other| other.name == server.name && other.address == server.address) {
            changes.push(format!("upstream {name}: server {} removed: it drains", server.name));
        }
    }
    if old.balance != new.balance {
        changes.push(format!(
            "upstream {name}: balance is {} instead of {}",
            new.balance.name(),
            old.balance.name()
        ));
    }
    if old.hash != new.hash {
        changes.push(format!("upstream {name}: hash is {} instead of {}", new.hash.name(), old.hash.name()));
    }
    let settings = |config: &UpstreamConfig| UpstreamConfig {
        balance: new.balance,
        hash: new.hash,
        servers: Vec::new(),
        ..config.clone()
    };
    if settings(old) != settings(new) {
        changes.push(format!("upstream {name}: settings changed"));
    }
}
