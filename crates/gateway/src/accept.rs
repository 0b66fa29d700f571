//! From accept(2) to a server: the journey of a connection before its bytes are relayed.
//!
//! PROXY header (from trusted addresses only) → names in CONNECT → [`crate::route`] → connect, the next
//! server where one fails → PROXY header and all bytes read so far in one write → [`splice`](crate::splice).
//! Every step has a bound in bytes and time; every refusal has its word, its counter and, where MQTT has one, its
//! answer.

use std::cell::{Cell, OnceCell};
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::task::{Poll, ready};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use mqtt::Version;
use net::proxy_protocol::{self, Header, Parsed, ReadError, TLV_UNIQUE_ID, Tlv, TrustedProxies};
use runtime::events::Event;
use runtime::metrics::PerWorker;
use tokio::io::{AsyncRead, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::spawn_local;
use tokio::time::timeout;

use crate::config::{ListenerConfig, ProxyOut};
use crate::error::{End, Refusal};
use crate::metrics::ListenerStats;
use crate::preread::{Preread, Seen};
use crate::route::{self, Balance, Names, Request};
use crate::session_log::{self, Id, Patience, Session, Where, Who};
use crate::splice::Relay;
use crate::upstream::{Reached, Server, Upstream};
use crate::worker::{Arriving, Worker};

/// After a refusal with an answer: how long the client has to take it and close.
const LINGER_TIME: Duration = Duration::from_secs(1);
/// And how many of its bytes are read and thrown away meanwhile: unread bytes would make the kernel reset the
/// connection, and the answer could be lost.
const LINGER_BYTES: usize = 64 * 1024;
/// What can come in floods (too many connections, no descriptors) is reported once in so long; all is counted.
const REPORT_EVERY: Duration = Duration::from_secs(1);

/// A listener on all workers. A reload that keeps its address changes its policy only.
pub(crate) struct Listener {
    /// Unique in this process.
    pub(crate) number: u64,
    /// As configured; the port may be 0.
    pub(crate) bind: SocketAddr,
    /// As bound.
    pub(crate) local: SocketAddr,
    /// `tcp://address:port`.
    pub(crate) name: Arc<str>,
    pub(crate) policy: ArcSwap<Policy>,
    pub(crate) stats: PerWorker<ListenerStats>,
    open: AtomicU32,
    rate: Rate,
    reports: Seldom,
    since: Instant,
}

/// What a configuration says about a listener.
#[derive(Debug)]
pub(crate) struct Policy {
    pub(crate) config: ListenerConfig,
    pub(crate) upstream: Arc<Upstream>,
    trusted: TrustedProxies,
}

impl Policy {
    pub(crate) fn new(config: ListenerConfig, upstream: Arc<Upstream>) -> Self {
        Self { trusted: TrustedProxies::new(config.trusted_proxies.clone()), config, upstream }
    }
}

impl Listener {
    pub(crate) fn new(number: u64, local: SocketAddr, policy: Policy, workers: usize, now: Instant) -> Self {
        Self {
            number,
            bind: policy.config.bind,
            local,
            name: format!("tcp://{local}").into(),
            policy: ArcSwap::from_pointee(policy),
            stats: PerWorker::new(workers, ListenerStats::default),
            open: AtomicU32::new(0),
            rate: Rate::default(),
            reports: Seldom::default(),
            since: now,
        }
    }

    /// Connections open now.
    pub(crate) fn open(&self) -> u32 {
        self.open.load(Ordering::Relaxed)
    }

    /// Takes a place for a connection; `None`: `max` are open.
    fn enter(self: &Arc<Self>, max: u32) -> Option<Open> {
        let more = |open: u32| (open < max).then(|| open + 1);
        self.open.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok()?;
        Some(Open { listener: Arc::clone(self) })
    }

    pub(crate) fn nanos(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.since).as_nanos()).unwrap_or(u64::MAX)
    }
}

/// A connection's place at its listener.
pub(crate) struct Open {
    pub(crate) listener: Arc<Listener>,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.listener.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A rate with a burst of one second's worth, shared by all workers (the generic cell rate algorithm: the time at
/// which the next one is due, if all came evenly).
#[derive(Debug, Default)]
struct Rate(AtomicU64);

impl Rate {
    /// Whether one more is within the rate. `now` in nanoseconds.
    fn allows(&self, per_second: f64, now: u64) -> bool {
        const SECOND: f64 = 1e9;
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // both are within 0.2 and 4e18
        let (interval, burst) = ((SECOND / per_second) as u64, SECOND.max(SECOND / per_second) as u64);
        let next = |due: u64| {
            let due = due.max(now).saturating_add(interval);
            (due <= now.saturating_add(burst)).then_some(due)
        };
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).is_ok()
    }
}

/// Says yes at most once in [`REPORT_EVERY`].
#[derive(Debug, Default)]
pub(crate) struct Seldom(AtomicU64);

impl Seldom {
    /// `now` in milliseconds.
    pub(crate) fn now(&self, now: u64) -> bool {
        let next = now.saturating_add(u64::try_from(REPORT_EVERY.as_millis()).unwrap_or(u64::MAX));
        let later = |due: u64| (due <= now).then_some(next);
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, later).is_ok()
    }
}

/// Accepts on one worker until it is aborted.
pub(crate) async fn listen(worker: Rc<Worker>, listener: Arc<Listener>, socket: TcpListener) {
    loop {
        let pause = |error: &io::Error| {
            if let Some(stats) = listener.stats.get(worker.id) {
                stats.pauses.inc();
            }
            if listener.reports.now(worker.clock.unix_millis()) {
                tracing::warn!(listener = %listener.name, %error, "accepting pauses");
            }
        };
        match net::listener::accept(&socket, pause).await {
            Ok((stream, from)) => admit(&worker, &listener, stream, from),
            Err(error) => {
                tracing::error!(listener = %listener.name, %error, "a listener is broken, this worker accepts no more on it");
                return;
            }
        }
    }
}

fn admit(worker: &Rc<Worker>, listener: &Arc<Listener>, stream: TcpStream, from: SocketAddr) {
    if let Some(stats) = listener.stats.get(worker.id) {
        stats.accepted.inc();
    }
    let policy = listener.policy.load_full();
    let now = worker.clock.now();
    let Some(open) = listener.enter(policy.config.max_connections) else {
        let refusal = Refusal::MaxConnections;
        count(worker, listener, &refusal);
        if listener.reports.now(worker.clock.unix_millis()) {
            session_log::refused(&worker.events, listener, from, &refusal);
        }
        return;
    };
    let in_time =
        policy.config.accept_rate.is_none_or(|rate| listener.rate.allows(rate, listener.nanos(now)));
    let device = Device {
        stream,
        via: from,
        peer: from,
        destination: None,
        bytes: Vec::new(),
        since: now,
        version: None,
    };
    spawn_local(serve(worker.arrive(), open, policy, device, in_time));
}

/// A connection that has no server yet.
struct Device {
    stream: TcpStream,
    /// The TCP connection's peer.
    via: SocketAddr,
    /// The device's own address.
    peer: SocketAddr,
    /// What the device connected to, where a balancer in front said so.
    destination: Option<SocketAddr>,
    /// What has arrived of the stream behind a PROXY header; all of it goes to the server.
    bytes: Vec<u8>,
    since: Instant,
    /// Of its CONNECT, once known.
    version: Option<Version>,
}

/// The names in a CONNECT, cut loose; `None` where the stream is not MQTT.
type OwnNames = Option<(Arc<str>, Option<Arc<str>>)>;

async fn serve(arriving: Arriving, open: Open, policy: Arc<Policy>, mut device: Device, in_time: bool) {
    let worker = Rc::clone(&arriving.0);
    let journey = async {
        let mut policy = policy;
        let mut names = arrive(&worker, &policy, &mut device).await?;
        // A reload may have come meanwhile. What holds now sends it on: servers of before take no more connections.
        let latest = open.listener.policy.load_full();
        if !Arc::ptr_eq(&policy, &latest) {
            policy = latest;
            names = within(&policy, read_names(&worker, &policy, &mut device)).await?;
        }
        if !in_time {
            return Err(Refusal::ConnectionRate);
        }
        let sent = dispatch(&worker, &open.listener, &policy, &device, &names).await?;
        Ok((policy, names, sent))
    };
    let outcome = tokio::select! {
        outcome = journey => outcome,
        () = worker.stopped() => Err(Refusal::ShuttingDown),
    };
    match outcome {
        Ok((policy, names, sent)) => relay(&worker, open, &policy, device, names, sent),
        Err(refusal) => refuse(&worker, &open.listener, device, &refusal).await,
    }
}

/// Reads until it is known who the device is.
async fn arrive(worker: &Worker, policy: &Policy, device: &mut Device) -> Result<OwnNames, Refusal> {
    let reading = async {
        let trusted = policy.config.proxy_protocol && policy.trusted.allows(device.via.ip());
        if trusted {
            let header = read_proxy_header(device).await?;
            // The proxy's own connections (health checks) have no other address than their own.
            if let (Some(source), destination) = (header.source, header.destination) {
                (device.peer, device.destination) = (source, destination);
            }
        }
        let names = read_names(worker, policy, device).await?;
        let stranger = names.is_none() && policy.config.proxy_protocol && !trusted;
        if stranger && !matches!(proxy_protocol::parse(&device.bytes), Ok(Parsed::NotProxy)) {
            return Err(Refusal::ProxyHeaderUntrusted);
        }
        Ok(names)
    };
    within(policy, reading).await
}

/// Ends what takes longer than a device may take to say who it is.
async fn within<T>(policy: &Policy, reading: impl Future<Output = Result<T, Refusal>>) -> Result<T, Refusal> {
    timeout(policy.config.preread_timeout, reading).await.unwrap_or(Err(Refusal::PrereadTimeout))
}

async fn read_proxy_header(device: &mut Device) -> Result<Header, Refusal> {
    proxy_protocol::read_header(&device.stream, &mut device.bytes).await.map_err(|error| match error {
        ReadError::NotProxy => Refusal::ProxyHeaderMissing,
        ReadError::Malformed(_) => Refusal::ProxyHeaderInvalid,
        ReadError::Closed | ReadError::Io(_) => Refusal::ClosedEarly,
    })
}

async fn read_names(worker: &Worker, policy: &Policy, device: &mut Device) -> Result<OwnNames, Refusal> {
    let max = policy.config.preread_size;
    let mut preread = Preread::new(max, policy.upstream.config.balance == Balance::Username);
    loop {
        match preread.look(&device.bytes) {
            Seen::More => {}
            Seen::Connect(head) => {
                device.version = Some(head.version);
                return Ok(Some((head.client_id.into(), head.username.map(Into::into))));
            }
            Seen::NotMqtt => return Ok(None),
            Seen::Malformed(error, version) => return Err(Refusal::Malformed(error, version)),
        }
        read_more(worker, device, max).await?;
    }
}

/// Waits for more bytes. They pass through the worker's buffer, so that a connection that is slow to say who it is
/// holds as many bytes as it sent.
async fn read_more(worker: &Worker, device: &mut Device, max: usize) -> Result<(), Refusal> {
    // The names were not within `max` bytes, though no more would have been needed: the preread waits for nothing
    // beyond its bound, so this can't be; and if it were, it would end here.
    let room = max.checked_sub(device.bytes.len()).filter(|room| *room > 0).ok_or(Refusal::ClosedEarly)?;
    // Polled, not tried: a read that did not fill the buffer is then noted as the last one, and the relay need
    // not ask the empty socket again.
    poll_fn(|cx| {
        let mut buffer = worker.buffer.borrow_mut();
        let room = room.min(buffer.len());
        let mut read = ReadBuf::new(buffer.get_mut(..room).unwrap_or_default());
        ready!(Pin::new(&mut device.stream).poll_read(cx, &mut read)).map_err(|_| Refusal::ClosedEarly)?;
        let bytes = read.filled();
        if bytes.is_empty() {
            return Poll::Ready(Err(Refusal::ClosedEarly));
        }
        device.bytes.extend_from_slice(bytes);
        Poll::Ready(Ok(()))
    })
    .await
}

/// A server that has the device's first bytes.
struct Sent {
    id: Id,
    stream: TcpStream,
    to: Where,
}

/// Finds a server that takes the device.
async fn dispatch(
    worker: &Worker,
    listener: &Listener,
    policy: &Policy,
    device: &Device,
    names: &OwnNames,
) -> Result<Sent, Refusal> {
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
    while tried.len() < upstream.config.tries {
        let Some((index, chosen_by, slot)) = upstream.choose(&plan, &tried, worker.draws(), worker.id) else {
            break;
        };
        match open(upstream, &slot.server, device, id).await {
            Ok((stream, server_address)) => {
                // It took the bytes and is gone already where it has no address: the device comes again.
                let local_address = stream.local_addr().map_err(|_| Refusal::ServersFailed)?;
                if let Some(stats) = slot.stats() {
                    stats.made.inc();
                }
                upstream.remember(&plan, chosen_by, &slot.server);
                let no_key = plan.no_key;
                let to = Where { slot, server_address, local_address, chosen_by, no_key };
                return Ok(Sent { id, stream, to });
            }
            Err(error) => {
                if is_ours(&error) {
                    return Err(Refusal::NoDescriptors);
                }
                failed(worker, &slot.server, &error);
                tried.push(index);
            }
        }
    }
    Err(if tried.is_empty() { Refusal::NoServer } else { Refusal::ServersFailed })
}

/// Connects to a server and writes the PROXY header and what the device sent so far, in one write.
async fn open(
    upstream: &Upstream,
    server: &Server,
    device: &Device,
    id: Id,
) -> io::Result<(TcpStream, SocketAddr)> {
    let time = upstream.config.connect_timeout;
    let mut header = proxy_header(upstream.config.proxy_protocol, device, id)?;
    let first = match header.is_empty() {
        true => &device.bytes,
        false => {
            header.extend_from_slice(&device.bytes);
            &header
        }
    };
    let Reached { mut stream, address, sent } = server.connect(&upstream.dialer, time, first).await?;
    // A new connection takes this much at once; only one that does not needs a timer.
    let mut rest = first.get(sent..).unwrap_or_default();
    if !rest.is_empty() {
        match stream.try_write(rest) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            outcome => rest = rest.get(outcome?..).unwrap_or_default(),
        }
    }
    if !rest.is_empty() {
        timeout(time, stream.write_all(rest)).await.map_err(|_| io::ErrorKind::TimedOut)??;
    }
    Ok((stream, address))
}

fn proxy_header(out: ProxyOut, device: &Device, id: Id) -> io::Result<Vec<u8>> {
    let mut header = Vec::new();
    if out == ProxyOut::Off {
        return Ok(header);
    }
    let destination = device.destination.map_or_else(|| device.stream.local_addr(), Ok)?;
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
    net::listener::after_error(error) == net::listener::AfterError::Pause
}

/// Counts a server's failure, and reports it, though not for each of a thousand devices in the same second.
fn failed(worker: &Worker, server: &Server, error: &io::Error) {
    let text: Arc<str> = match error.kind() {
        io::ErrorKind::TimedOut => "no connection within connect_timeout".into(),
        _ => error.to_string().into(),
    };
    server.failed(worker.id, Arc::clone(&text));
    if server.reports.now(worker.clock.unix_millis()) {
        worker.events.emit(Event::UpstreamFailed {
            upstream: Arc::clone(&server.upstream),
            server: Arc::clone(&server.name),
            error: text,
        });
    }
}

/// Hands the pair over to its relay. The journey's own task ends, and its memory with it.
fn relay(worker: &Rc<Worker>, open: Open, policy: &Policy, device: Device, names: OwnNames, sent: Sent) {
    let (clientid, username) = names.unwrap_or_else(|| (Arc::from(""), None));
    let now = worker.clock.now();
    let patience = policy.config.idle_timeout.map(|time| Patience { time, end: End::IdleTimeout });
    let age = u64::try_from(now.saturating_duration_since(device.since).as_millis()).unwrap_or(0);
    let session = Rc::new(Session {
        id: sent.id,
        who: Who {
            clientid,
            username,
            proto_ver: device.version.map_or(0, Version::level),
            peer: device.peer,
            via: Some(device.via).filter(|via| *via != device.peer),
        },
        to: sent.to,
        open,
        since: device.since,
        connected_at: worker.clock.unix_millis().saturating_sub(age),
        bytes_in: Cell::new(device.bytes.len() as u64),
        bytes_out: Cell::new(0),
        patience: Cell::new(patience),
        half_closed: policy.config.half_closed_timeout,
        active: Cell::new(now),
        end: Cell::new(None),
        task: OnceCell::new(),
    });
    if let Some(stats) = session.to.slot.stats() {
        stats.bytes_in.add(session.bytes_in.get());
    }
    worker.enter(&session);
    let relay = Relay::new(device.stream, sent.stream, Rc::clone(&session), Rc::clone(worker));
    // Set once, here: there is nothing to lose.
    let _ = session.task.set(spawn_local(relay).abort_handle());
}

fn count(worker: &Worker, listener: &Listener, refusal: &Refusal) {
    let stats = listener.stats.get(worker.id);
    if let Some(counter) = stats.and_then(|stats| stats.refused.get(refusal.index())) {
        counter.inc();
    }
}

/// Counts, reports, answers where MQTT has an answer, and closes.
async fn refuse(worker: &Worker, listener: &Listener, mut device: Device, refusal: &Refusal) {
    count(worker, listener, refusal);
    session_log::refused(&worker.events, listener, device.peer, refusal);
    let answer = refusal.answer(device.version);
    if answer.is_empty() {
        return;
    }
    let closing = async {
        device.stream.write_all(&answer).await?;
        device.stream.shutdown().await?;
        let mut left = LINGER_BYTES;
        while left > 0 {
            device.stream.readable().await?;
            let mut buffer = worker.buffer.borrow_mut();
            match device.stream.try_read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => left = left.saturating_sub(count),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    };
    // However it ends, the connection is closed now; the client may have gone first.
    let _ = timeout(LINGER_TIME, closing).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of a flood of devices that have no server yet, each costs this and the bytes it sent.
    #[test]
    fn a_connection_on_its_way_is_small() {
        fn future<F: Future>(_: impl FnOnce(Arriving, Open, Arc<Policy>, Device, bool) -> F) -> usize {
            size_of::<F>()
        }
        assert!(future(serve) <= 2_048, "{}", future(serve));
    }

    #[test]
    fn a_rate_lets_a_seconds_worth_through_at_once_and_then_evenly() {
        let rate = Rate::default();
        let passed = (0..100).filter(|_| rate.allows(10.0, 5_000_000_000)).count();
        assert_eq!(passed, 10);
        assert!(!rate.allows(10.0, 5_050_000_000));
        assert!(rate.allows(10.0, 5_100_000_000));
        assert!(!rate.allows(10.0, 5_150_000_000));
        assert_eq!((0..100).filter(|_| rate.allows(10.0, 90_000_000_000)).count(), 10);
    }

    #[test]
    fn a_slow_rate_lets_one_through_at_a_time() {
        let rate = Rate::default();
        let per_second = 1.0 / 60.0;
        assert!(rate.allows(per_second, 1));
        assert!(!rate.allows(per_second, 59_000_000_000));
        assert!(rate.allows(per_second, 60_000_000_002));
    }

    #[test]
    fn seldom_is_once_in_its_time() {
        let reports = Seldom::default();
        assert!(reports.now(0) && !reports.now(10) && !reports.now(999) && reports.now(1_000));
    }
}
