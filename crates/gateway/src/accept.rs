//! From accept(2) to a server: the journey of a connection before its bytes are relayed.
//!
//! Access list → PROXY header (from trusted addresses only) → names in CONNECT → [`crate::route`] → a place in the
//! [`queue`](crate::queue) where no server has one → connect, the next server where one fails → PROXY header and all
//! bytes read so far in one write → [`splice`](crate::splice).
//! Every step has a bound in bytes and time; every refusal has its word, its counter and, where MQTT has one, its
//! answer.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, Guard};
use mqtt::Version;
use net::listener::{ACCEPT_PAUSE, AfterError, after_error};
use net::proxy_protocol::{self, Header, Parsed, ReadError, TrustedProxies};
use net::reactor::Stream;
use runtime::metrics::PerWorker;
use runtime::rate::SharedBucket;
use tokio::task::{spawn_local, yield_now};
use tokio::time::{timeout, timeout_at};

use crate::accept::dispatch::{Sent, dispatch};
use crate::accept::silent::{LEAST_TIMEOUT, Silent};
use crate::access;
use crate::config::ListenerConfig;
use crate::error::{End, Refusal};
use crate::limits::{Addresses, Seldom};
use crate::metrics::ListenerStats;
use crate::preread::{Preread, Seen};
use crate::route::Balance;
use crate::session_log::{self, Patience, Session, Who};
use crate::splice::Speaks;
use crate::upstream::Upstream;
use crate::worker::{Arriving, Worker, guarded};

mod dispatch;
pub(crate) mod silent;

/// After a refusal with an answer: how long the client has to take it and close.
const LINGER_TIME: Duration = Duration::from_secs(1);
/// And how many of its bytes are read and thrown away meanwhile: unread bytes would make the kernel reset the
/// connection, and the answer could be lost.
const LINGER_BYTES: usize = 64 * 1024;
/// Connections that are accepted before others have their turn.
const ACCEPTS: usize = 32;
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
    by_address: Addresses,
    rate: SharedBucket,
    pauses: Seldom,
    /// Of each refusal that can come in floods.
    reports: [Seldom; Refusal::NAMES.len()],
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
            by_address: Addresses::default(),
            rate: SharedBucket::default(),
            pauses: Seldom::default(),
            reports: Default::default(),
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
        Some(Open { listener: Arc::clone(self), address: None })
    }

    /// Puts the latest policy in the place of this one; `false`: it is the latest.
    fn renew(&self, policy: &mut Arc<Policy>) -> bool {
        let latest = self.policy.load();
        let changed = !Arc::ptr_eq(policy, &latest);
        if changed {
            *policy = Guard::into_inner(latest);
        }
        changed
    }

    /// Whether this refusal is to be told of: one that can come in floods is now and then.
    fn tells(&self, refusal: &Refusal, now: u64) -> bool {
        !refusal.floods() || self.reports.get(refusal.index()).is_some_and(|reports| reports.now(now))
    }

    pub(crate) fn nanos(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.since).as_nanos()).unwrap_or(u64::MAX)
    }
}

/// A connection's place at its listener.
pub(crate) struct Open {
    pub(crate) listener: Arc<Listener>,
    /// Under which address it is counted, if it is. Boxed: few are, and every connection would carry it.
    address: Option<Box<IpAddr>>,
}

impl Open {
    /// Asks the access list and the limit for one address.
    fn let_in(&mut self, policy: &Policy, address: IpAddr) -> Result<(), Refusal> {
        let config = &policy.config;
        if !access::allows(&config.access, address) {
            return Err(Refusal::AccessDenied);
        }
        let max = config.max_connections_per_address;
        if max > 0 {
            if !self.listener.by_address.enter(address, max) {
                return Err(Refusal::AddressLimit);
            }
            self.address = Some(Box::new(address));
        }
        Ok(())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        if let Some(address) = &self.address {
            self.listener.by_address.leave(**address);
        }
        self.listener.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What accept(2) said, once it said something.
type Accepted = Poll<io::Result<(OwnedFd, SocketAddr)>>;

/// Accepts on one worker until it is aborted.
pub(crate) async fn listen(
    worker: Rc<Worker>,
    listener: Arc<Listener>,
    accept: impl Fn(&Context<'_>) -> Accepted,
) {
    let mut begun: Vec<Journey> = Vec::new();
    let mut accepted: usize = 0;
    loop {
        let next = poll_fn(|cx| match accept(cx) {
            // Those that came together go on together, when the last of them has begun.
            Poll::Pending if !begun.is_empty() => Poll::Ready(None),
            next => next.map(Some),
        });
        match next.await {
            None => begun.drain(..).for_each(go_on),
            Some(Ok((fd, from))) => {
                begun.extend(admit(&worker, &listener, fd, from));
                accepted = accepted.wrapping_add(1);
                if accepted.is_multiple_of(ACCEPTS) {
                    begun.drain(..).for_each(go_on);
                    yield_now().await;
                }
            }
            Some(Err(error)) => {
                // those that came before go on, whatever becomes of the listener
                begun.drain(..).for_each(go_on);
                match after_error(&error) {
                    AfterError::Next => {}
                    AfterError::Pause => {
                        if let Some(stats) = listener.stats.get(worker.id) {
                            stats.pauses.inc();
                        }
                        if listener.pauses.now(worker.clock.unix_millis()) {
                            tracing::warn!(listener = %listener.name, %error, "accepting pauses");
                        }
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                    AfterError::GiveUp => {
                        tracing::error!(listener = %listener.name, %error, "a listener is broken, this worker accepts no more on it");
                        return;
                    }
                }
            }
        }
    }
}

/// A connection on its way to a server.
pub(crate) type Journey = Pin<Box<dyn Future<Output = ()>>>;

/// A turn of a journey that has begun; the rest of it is a task's.
pub(crate) fn go_on(mut journey: Journey) {
    let mut nobody = Context::from_waker(Waker::noop());
    if matches!(guarded(|| journey.as_mut().poll(&mut nobody)), Some(Poll::Pending)) {
        spawn_local(journey);
    }
}

/// Lets a connection in or refuses it. One whose first bytes are there begins its journey: given back is what is left of
/// it. Who came with all its bytes to a server nearby needs no task.
fn admit(worker: &Rc<Worker>, listener: &Arc<Listener>, fd: OwnedFd, from: SocketAddr) -> Option<Journey> {
    let refused = |refusal: &Refusal| {
        report(worker, listener, from, None, refusal);
        None
    };
    if let Some(stats) = listener.stats.get(worker.id) {
        stats.accepted.inc();
    }
    let policy = listener.policy.load_full();
    let now = worker.clock.now();
    let Some(mut open) = listener.enter(policy.config.max_connections) else {
        return refused(&Refusal::MaxConnections);
    };
    // Behind a balancer the address is in its header.
    if !policy.config.proxy_protocol
        && let Err(refusal) = open.let_in(&policy, from.ip())
    {
        return refused(&refusal);
    }
    let in_time =
        policy.config.accept_rate.is_none_or(|rate| listener.rate.allows(rate, listener.nanos(now)));
    let Ok((stream, bytes)) = begin(worker, &policy, fd) else {
        return refused(&Refusal::NoDescriptors);
    };
    let known = !bytes.is_empty();
    let silent = Silent { stream, open, policy, from, since: now, in_time };
    if known {
        return set_out(worker, silent, bytes);
    }
    let policy = &silent.policy.config;
    if policy.proxy_protocol || policy.preread_timeout < LEAST_TIMEOUT {
        take_its_time(worker, silent);
    } else {
        worker.wait_for_a_word(silent);
    }
    None
}

/// A silent connection has an event: with its first bytes its journey begins. Given back is what is left of that.
pub(crate) fn hear(worker: &Rc<Worker>, key: u32) -> Option<Journey> {
    let mut bytes = Vec::new();
    {
        let quiet = worker.quiet.borrow();
        let silent = quiet.get(key).filter(|silent| silent.stream.is_readable())?;
        let mut buffer = worker.buffer.borrow_mut();
        let room = silent.policy.config.preread_size.min(buffer.len());
        let first = buffer.get_mut(..room).unwrap_or_default();
        match silent.stream.recv(first) {
            Ok(got) => bytes.extend_from_slice(first.get(..got).unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return None,
            // its journey finds it again, and ends there
            Err(_) => {}
        }
    }
    let silent = worker.quiet.borrow_mut().take(key)?;
    set_out(worker, silent, bytes)
}

/// Begins a journey whose first bytes are there.
fn set_out(worker: &Rc<Worker>, silent: Silent, bytes: Vec<u8>) -> Option<Journey> {
    let mut journey: Journey = Box::pin(journey(worker, silent, bytes));
    let mut nobody = Context::from_waker(Waker::noop());
    let begun = guarded(|| journey.as_mut().poll(&mut nobody));
    matches!(begun, Some(Poll::Pending)).then_some(journey)
}

/// Gives a connection the task and the timer to wait for its first bytes.
pub(crate) fn take_its_time(worker: &Rc<Worker>, silent: Silent) {
    spawn_local(journey(worker, silent, Vec::new()));
}

fn journey(worker: &Rc<Worker>, silent: Silent, bytes: Vec<u8>) -> impl Future<Output = ()> + use<> {
    let Silent { stream, open, policy, from, since, in_time } = silent;
    let device = Device {
        stream,
        via: from,
        peer: from,
        destination: None,
        bytes,
        since,
        version: None,
        client_id: None,
    };
    serve(worker.arrive(), open, policy, device, in_time)
}

/// Puts an accepted connection into the reactor, with the bytes that came before it was accepted.
fn begin(worker: &Worker, policy: &Policy, fd: OwnedFd) -> io::Result<(Stream, Vec<u8>)> {
    if policy.config.proxy_protocol {
        return Ok((Stream::connected(&worker.reactor, fd)?, Vec::new()));
    }
    let mut buffer = worker.buffer.borrow_mut();
    let room = policy.config.preread_size.min(buffer.len());
    let first = buffer.get_mut(..room).unwrap_or_default();
    let (stream, got) = Stream::connected_reading(&worker.reactor, fd, first)?;
    Ok((stream, first.get(..got).unwrap_or_default().to_vec()))
}

/// A connection that has no server yet.
struct Device {
    stream: Stream,
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
    /// Of its CONNECT, once known; for what is told when it gets no server.
    client_id: Option<Arc<str>>,
}

/// The names in a CONNECT, cut loose; `None` where the stream is not MQTT.
type OwnNames = Option<(Arc<str>, Option<Arc<str>>)>;

#[allow(clippy::manual_async_fn)] // an `async fn` would hold each of its arguments twice
fn serve(
    arriving: Arriving,
    mut open: Open,
    policy: Arc<Policy>,
    mut device: Device,
    in_time: bool,
) -> impl Future<Output = ()> {
    async move {
        let worker = Rc::clone(&arriving.0);
        let journey = async {
            let mut policy = policy;
            let mut names = arrive(&worker, &policy, &mut open, &mut device).await?;
            loop {
                // A reload may have come meanwhile. What holds now sends it on: servers of before take no more connections.
                if open.listener.renew(&mut policy) {
                    names = Box::pin(within(&policy, read_names(&worker, &policy, &mut device))).await?;
                }
                if !in_time {
                    return Err(Refusal::ConnectionRate);
                }
                if let Some(sent) = dispatch(&worker, &open.listener, &policy, &device, &names).await? {
                    return Ok((policy, names, sent));
                }
            }
        };
        let outcome = tokio::select! {
            biased;
            outcome = journey => outcome,
            () = worker.stopped() => Err(Refusal::ShuttingDown),
        };
        match outcome {
            Ok((policy, names, sent)) => relay(&worker, open, &policy, device, names, sent),
            // boxed: most connections get a server, and every one on its way would carry this future
            Err(refusal) => Box::pin(refuse(&worker, &open.listener, device, &refusal)).await,
        }
    }
}

/// Finds out who the device is.
async fn arrive(
    worker: &Worker,
    policy: &Policy,
    open: &mut Open,
    device: &mut Device,
) -> Result<OwnNames, Refusal> {
    if !policy.config.proxy_protocol
        && let Some(names) = look(&mut preread(policy), device)?
    {
        return Ok(names);
    }
    // boxed: most have said who they are when their journey begins, and every one would carry the timer
    Box::pin(ask(worker, policy, open, device)).await
}

/// Reads until it is known who the device is, within the time it has since it came.
async fn ask(
    worker: &Worker,
    policy: &Policy,
    open: &mut Open,
    device: &mut Device,
) -> Result<OwnNames, Refusal> {
    let end = device.since + policy.config.preread_timeout;
    let reading = async {
        let trusted = policy.config.proxy_protocol && policy.trusted.allows(device.via.ip());
        if trusted {
            let header = read_proxy_header(device).await?;
            // The proxy's own connections (health checks) have no other address than their own.
            if let (Some(source), destination) = (header.source, header.destination) {
                (device.peer, device.destination) = (source, destination);
            }
        }
        if policy.config.proxy_protocol {
            open.let_in(policy, device.peer.ip())?;
        }
        let names = read_names(worker, policy, device).await?;
        let stranger = names.is_none() && policy.config.proxy_protocol && !trusted;
        if stranger && !matches!(proxy_protocol::parse(&device.bytes), Ok(Parsed::NotProxy)) {
            return Err(Refusal::ProxyHeaderUntrusted);
        }
        Ok(names)
    };
    timeout_at(end.into(), reading).await.unwrap_or(Err(Refusal::PrereadTimeout))
}

/// Ends what takes longer, from now on, than a device may take to say who it is.
async fn within<T>(policy: &Policy, reading: impl Future<Output = Result<T, Refusal>>) -> Result<T, Refusal> {
    timeout(policy.config.preread_timeout, reading).await.unwrap_or(Err(Refusal::PrereadTimeout))
}

async fn read_proxy_header(device: &mut Device) -> Result<Header, Refusal> {
    let stream = &device.stream;
    let read = async |buffer: &mut Vec<u8>, room| stream.read_into(buffer, room).await;
    proxy_protocol::read_header_with(&mut device.bytes, read).await.map_err(|error| match error {
        ReadError::NotProxy => Refusal::ProxyHeaderMissing,
        ReadError::Malformed(_) => Refusal::ProxyHeaderInvalid,
        ReadError::Closed | ReadError::Io(_) => Refusal::ClosedEarly,
    })
}

fn preread(policy: &Policy) -> Preread {
    Preread::new(policy.config.preread_size, policy.upstream.config.balance == Balance::Username)
}

/// The names, if the bytes so far tell them.
fn look(preread: &mut Preread, device: &mut Device) -> Result<Option<OwnNames>, Refusal> {
    match preread.look(&device.bytes) {
        Seen::More => Ok(None),
        Seen::Connect(head) => {
            device.version = Some(head.version);
            let client_id: Arc<str> = head.client_id.into();
            let username = head.username.map(Into::into);
            device.client_id = Some(Arc::clone(&client_id));
            Ok(Some(Some((client_id, username))))
        }
        Seen::NotMqtt => Ok(Some(None)),
        Seen::Malformed(error, version) => Err(Refusal::Malformed(error, version)),
    }
}

async fn read_names(worker: &Worker, policy: &Policy, device: &mut Device) -> Result<OwnNames, Refusal> {
    let mut preread = preread(policy);
    loop {
        if let Some(names) = look(&mut preread, device)? {
            return Ok(names);
        }
        read_more(worker, device, policy.config.preread_size).await?;
    }
}

/// Waits for more bytes. They pass through the worker's buffer, so that a connection that is slow to say who it is
/// holds as many bytes as it sent.
async fn read_more(worker: &Worker, device: &mut Device, max: usize) -> Result<(), Refusal> {
    // The names were not within `max` bytes, though no more would have been needed: the preread waits for nothing
    // beyond its bound, so this can't be; and if it were, it would end here.
    let room = max.checked_sub(device.bytes.len()).filter(|room| *room > 0).ok_or(Refusal::ClosedEarly)?;
    loop {
        device.stream.readable().await;
        let mut buffer = worker.buffer.borrow_mut();
        let room = room.min(buffer.len());
        let buffer = buffer.get_mut(..room).unwrap_or_default();
        match device.stream.recv(buffer) {
            Ok(0) => return Err(Refusal::ClosedEarly),
            Ok(got) => {
                device.bytes.extend_from_slice(buffer.get(..got).unwrap_or_default());
                return Ok(());
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => return Err(Refusal::ClosedEarly),
        }
    }
}

/// Hands the pair over to the worker's relays. The journey ends here, and its memory with it.
fn relay(worker: &Rc<Worker>, open: Open, policy: &Policy, device: Device, names: OwnNames, sent: Sent) {
    let (clientid, username) = names.unwrap_or_else(|| (Arc::from(""), None));
    let now = sent.at;
    let patience = policy.config.idle_timeout.map(|time| Patience { time, end: End::IdleTimeout });
    let age = u64::try_from(now.saturating_duration_since(device.since).as_millis()).unwrap_or(0);
    let session = Rc::new(Session {
        id: sent.id,
        who: Who {
            clientid,
            username,
            proto_ver: device.version.map_or(0, Version::level),
            peer: device.peer,
            via: Some(device.via).filter(|via| *via != device.peer).map(Box::new),
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
        relay: RefCell::new(None),
    });
    if let Some(stats) = session.to.slot.stats() {
        stats.bytes_in.add(session.bytes_in.get());
    }
    let speaks = if device.version.is_some() { Speaks::Mqtt } else { Speaks::Anything };
    worker.enter(&session);
    worker.relay(&session, device.stream, sent.stream, speaks);
}

fn count(worker: &Worker, listener: &Listener, refusal: &Refusal) {
    let stats = listener.stats.get(worker.id);
    if let Some(counter) = stats.and_then(|stats| stats.refused.get(refusal.index())) {
        counter.inc();
    }
}

/// Counts a refusal, and tells of it.
fn report(
    worker: &Worker,
    listener: &Listener,
    peer: SocketAddr,
    client_id: Option<&Arc<str>>,
    refusal: &Refusal,
) {
    count(worker, listener, refusal);
    session_log::note_refused(&worker.log, listener, peer, refusal);
    if listener.tells(refusal, worker.clock.unix_millis()) {
        session_log::refused(&worker.events, listener, peer, client_id, refusal);
    }
}

/// Counts, reports, answers where MQTT has an answer, and closes.
async fn refuse(worker: &Worker, listener: &Listener, device: Device, refusal: &Refusal) {
    report(worker, listener, device.peer, device.client_id.as_ref(), refusal);
    let answer = refusal.answer(device.version);
    if !answer.is_empty() {
        // However it ends, the connection is closed now; the client may have gone first.
        let _ = timeout(LINGER_TIME, answer_and_close(worker, &device.stream, &answer)).await;
    }
}

async fn answer_and_close(worker: &Worker, stream: &Stream, answer: &[u8]) -> io::Result<()> {
    stream.write_all(answer).await?;
    stream.shutdown()?;
    let mut left = LINGER_BYTES;
    while left > 0 {
        stream.readable().await;
        match stream.recv(&mut worker.buffer.borrow_mut()) {
            Ok(0) => break,
            Ok(count) => left = left.saturating_sub(count),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
