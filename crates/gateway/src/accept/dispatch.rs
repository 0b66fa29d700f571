//! From a device's names to a server that has its first bytes: the choice, the line where no server has room, the
//! connection, and the next server where one fails.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use net::listener::{AfterError, after_error};
use net::proxy_protocol::{self, TLV_UNIQUE_ID, Tlv};
use net::reactor::Stream;
use runtime::events::Event;
use tokio::time::timeout;

use super::{Device, Listener, OwnNames, Policy};
use crate::config::ProxyOut;
use crate::error::Refusal;
use crate::health::Change;
use crate::route::{self, ChosenBy, Names, Plan, Request};
use crate::server::{Reached, Server, Slot};
use crate::session_log::{Id, Where};
use crate::upstream::{Chosen, Upstream};
use crate::worker::Worker;

/// Who stands first in a queue looks this often by itself.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// The others look this often whether they stand first.
const STEP_EVERY: Duration = Duration::from_secs(10);

/// A server that has the device's first bytes.
pub(super) struct Sent {
    pub(super) id: Id,
    pub(super) stream: Stream,
    pub(super) to: Where,
    /// When it took them.
    pub(super) at: Instant,
}

/// Finds a server that takes the device. `None`: a reload changed the upstream while it waited.
pub(super) async fn dispatch(
    worker: &Worker,
    listener: &Listener,
    policy: &Policy,
    device: &Device,
    names: &OwnNames,
) -> Result<Option<Sent>, Refusal> {
    let upstream = &*policy.upstream;
    let connect =
        names.as_ref().map(|(client_id, username)| Names { client_id, username: username.as_deref() });
    let request = Request { source: device.peer.ip(), connect };
    let plan =
        route::plan(upstream.config.balance, &policy.config.rules, &request).map_err(Refusal::NoKey)?;
    if let (Some(no_key), Some(stats)) = (plan.no_key, listener.stats.get(worker.id))
        && let Some(counter) = stats.without_key.get(no_key.index())
    {
        counter.inc();
    }
    let id = worker.next_id();
    let mut tried = Vec::new();
    // Time in the queue is not counted.
    let mut looking = Duration::ZERO;
    while tried.len() < upstream.config.tries {
        let search = Search { worker, listener, policy, device, plan: &plan, tried: &tried };
        let mut began = worker.clock.now();
        let (index, chosen_by, slot) = match search.look(began) {
            Looked::Found(index, chosen_by, slot) => (index, chosen_by, slot),
            Looked::Nobody => break,
            Looked::Full if upstream.config.queue == 0 => return Err(Refusal::ServersFull),
            // boxed: few connections wait, and every connection on its way would carry this future
            Looked::Full => match Box::pin(search.wait()).await? {
                Some(found) => {
                    began = worker.clock.now();
                    found
                }
                None => return Ok(None),
            },
        };
        let outcome = open(worker, listener, upstream, &slot.server, device, id).await;
        let now = worker.clock.now();
        let took = now.saturating_duration_since(began);
        match outcome {
            Ok((stream, server_address)) => {
                if let Some(stats) = slot.stats() {
                    stats.made.inc();
                    stats.connect_nanos.add(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
                }
                tell(worker, &slot.server, upstream.succeeded(index, now));
                upstream.remember(&plan, chosen_by, &slot.server);
                let no_key = plan.no_key;
                let to = Where { slot, server_address, chosen_by, no_key };
                return Ok(Some(Sent { id, stream, to, at: now }));
            }
            Err(error) => {
                if is_ours(&error) {
                    return Err(Refusal::NoDescriptors);
                }
                failed(worker, upstream, index, &slot.server, &error);
                tried.push(index);
                looking += took;
                if upstream.config.tries_timeout.is_some_and(|most| looking >= most) {
                    break;
                }
            }
        }
    }
    Err(if tried.is_empty() { Refusal::NoServer } else { Refusal::ServersFailed })
}

/// The search for a server, from one connection's point of view.
struct Search<'a> {
    worker: &'a Worker,
    listener: &'a Listener,
    policy: &'a Policy,
    device: &'a Device,
    plan: &'a Plan<'a>,
    tried: &'a [usize],
}

enum Looked {
    Found(usize, ChosenBy, Slot),
    Full,
    Nobody,
}

impl Search<'_> {
    /// Looks once, and does not overtake those who wait.
    fn look(&self, now: Instant) -> Looked {
        if self.policy.upstream.config.queue > 0 && self.policy.upstream.queue.waiting() > 0 {
            return Looked::Full;
        }
        self.choose(now)
    }

    fn choose(&self, now: Instant) -> Looked {
        let draws = self.worker.draws();
        match self.policy.upstream.choose(self.plan, self.tried, draws, self.worker.id, now) {
            Chosen::Server { index, why, slot } => Looked::Found(index, why, slot),
            Chosen::Full => Looked::Full,
            Chosen::Nobody => Looked::Nobody,
        }
    }

    /// Waits in the upstream's line. `None`: the listener has another upstream, or the same one changed.
    async fn wait(&self) -> Result<Option<(usize, ChosenBy, Slot)>, Refusal> {
        let config = &self.policy.upstream.config;
        let ticket = self.policy.upstream.queue.join(config.queue).ok_or(Refusal::QueueFull)?;
        let deadline = self.worker.clock.now() + config.queue_timeout;
        let mut leaves = std::pin::pin!(leaves(&self.device.stream));
        loop {
            if !Arc::ptr_eq(&self.policy.upstream, &self.listener.policy.load().upstream) {
                return Ok(None);
            }
            let now = self.worker.clock.now();
            let first = ticket.may_look();
            if first {
                match self.choose(now) {
                    Looked::Found(index, why, slot) => {
                        ticket.served();
                        return Ok(Some((index, why, slot)));
                    }
                    Looked::Full if ticket.again() => continue,
                    // It may not go where it failed before; those behind it may.
                    Looked::Full if !self.tried.is_empty() => ticket.pass(),
                    Looked::Full => {}
                    Looked::Nobody if self.tried.is_empty() => return Err(Refusal::NoServer),
                    Looked::Nobody => return Err(Refusal::ServersFailed),
                }
            }
            if now >= deadline {
                return Err(Refusal::QueueTimeout);
            }
            let next_look = deadline.min(now + if first { LOOK_EVERY } else { STEP_EVERY });
            tokio::select! {
                () = ticket.called() => {}
                () = tokio::time::sleep_until(next_look.into()) => {}
                () = &mut leaves => return Err(Refusal::ClosedEarly),
            }
        }
    }
}

/// Returns when the device closes; never, if it says more first: what it said would have to be read to see behind it.
async fn leaves(stream: &Stream) {
    stream.readable().await;
    if !stream.has_ended() {
        std::future::pending::<()>().await;
    }
}

/// Tells that a server went or came back.
fn tell(worker: &Worker, server: &Server, change: Change) {
    let (from, to) = match change {
        Change::None => return,
        Change::Unavailable => ("up", "unavailable"),
        Change::Available => ("unavailable", "up"),
    };
    worker.events.emit(Event::ServerStateChanged {
        upstream: Arc::clone(&server.upstream),
        server: Arc::clone(&server.name),
        from: from.into(),
        to: to.into(),
    });
}

/// Connects to a server and writes the PROXY header and what the device sent so far, in one write.
async fn open(
    worker: &Worker,
    listener: &Listener,
    upstream: &Upstream,
    server: &Server,
    device: &Device,
    id: Id,
) -> io::Result<(Stream, SocketAddr)> {
    let time = upstream.config.connect_timeout;
    let mut header = proxy_header(upstream.config.proxy_protocol, listener, device, id)?;
    let first = match header.is_empty() {
        true => &device.bytes,
        false => {
            header.extend_from_slice(&device.bytes);
            &header
        }
    };
    let Reached { stream, address, sent } =
        server.connect(&worker.reactor, &upstream.dialer, time, first).await?;
    // A new connection takes this much at once; only one that does not needs a timer.
    let mut rest = first.get(sent..).unwrap_or_default();
    if !rest.is_empty() {
        match stream.send(rest, false) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            outcome => rest = rest.get(outcome?..).unwrap_or_default(),
        }
    }
    if !rest.is_empty() {
        stream.set_no_delay()?;
        // boxed: for the same reason every connection on its way would carry it
        Box::pin(timeout(time, stream.write_all(rest))).await.map_err(|_| io::ErrorKind::TimedOut)??;
    }
    Ok((stream, address))
}

fn proxy_header(out: ProxyOut, listener: &Listener, device: &Device, id: Id) -> io::Result<Vec<u8>> {
    let mut header = Vec::new();
    if out == ProxyOut::Off {
        return Ok(header);
    }
    let destination = match device.destination {
        Some(destination) => destination,
        // A listener on every address of the machine does not know which of them it was.
        None if listener.local.ip().is_unspecified() => device.stream.local_addr()?,
        None => listener.local,
    };
    match out {
        ProxyOut::Off => {}
        ProxyOut::V1 => proxy_protocol::encode_v1(device.peer, destination, &mut header),
        ProxyOut::V2 => {
            let unique_id = Tlv { kind: TLV_UNIQUE_ID, value: id.to_string().into_bytes() };
            proxy_protocol::encode_v2(device.peer, destination, &[unique_id], &mut header);
        }
    }
    Ok(header)
}

/// Whether the process itself has no descriptor or memory left, for which no server is to blame.
fn is_ours(error: &io::Error) -> bool {
    after_error(error) == AfterError::Pause
}

/// Counts a server's failure, and reports it, though not for each of a thousand devices in the same second.
fn failed(worker: &Worker, upstream: &Upstream, index: usize, server: &Server, error: &io::Error) {
    let text: Arc<str> = match error.kind() {
        io::ErrorKind::TimedOut => "no connection within connect_timeout".into(),
        _ => error.to_string().into(),
    };
    let change = upstream.failed(index, worker.id, Arc::clone(&text), worker.clock.now());
    if server.reports.now(worker.clock.unix_millis()) {
        worker.events.emit(Event::UpstreamFailed {
            upstream: Arc::clone(&server.upstream),
            server: Arc::clone(&server.name),
            error: text,
        });
    }
    tell(worker, server, change);
}
