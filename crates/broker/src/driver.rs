//! Sockets and tasks around a [`Worker`]: the only file of the broker that awaits.
//!
//! On each worker thread run: one task for each listener that accepts, one small future for each connection that reads (into
//! one buffer shared by all of them), one that takes the mailbox, one that ends the turn (flushes what is dirty with
//! direct sends and hands over what gathered), and one for time. A turn is what tokio runs between two polls of the
//! flush task: it is woken by the first byte that waits, and runs after everything that was ready then.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use net::listener::accept;
use net::proxy_protocol::{self, Command, ReadError, TrustedProxies};
use runtime::clock::Clock;
use runtime::events::Event;
use runtime::lifecycle::Shutdown;
use runtime::mailbox::Receiver;
use runtime::rate::SharedBucket;
use runtime::workers::after_the_others;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::task::spawn_local;

use crate::config::ListenerConfig;
use crate::connection::{ConnId, Door, Origin, Via};
use crate::door::{Limit, MAX_LATE};
use crate::shared::Mail;
use crate::worker::{Now, Worker};

mod flush;
mod websocket;

use flush::Flush;

/// Bytes of the read buffer that all connections of a worker share.
const READ_BUFFER: usize = 64 * 1024;
/// Reads of one connection in one poll; then the others have their turn.
const READS_PER_POLL: usize = 4;
/// Mail in one turn, in bytes; then what it brought is flushed and the connections have their turn.
const MAIL_PER_TURN: usize = 256 * 1024;
/// How long a PROXY header may take.
const PROXY_TIMEOUT: Duration = Duration::from_secs(5);
/// How often a worker looks at the clock; 20 times as often while something is to be tried again.
const TICK: Duration = Duration::from_millis(1000);
const BUSY_TICK: Duration = Duration::from_millis(10);

/// What the tasks of one worker thread share.
pub(crate) struct Local {
    worker: RefCell<Worker>,
    sockets: RefCell<Vec<Option<Socket>>>,
    buffer: RefCell<Box<[u8]>>,
    clock: Clock,
    hurry: Notify,
    /// Bytes of mail that were taken.
    mailed: Cell<u64>,
}

/// All that a connection has beside its state in the worker.
struct Socket {
    stream: TcpStream,
    /// What is written goes into frames and what is read comes out of them, where the listener speaks WebSocket.
    frames: Option<Box<websocket::Frames>>,
    /// The kernel's buffer is full: the connection's task waits until it is not.
    blocked: bool,
    /// Nothing can be written any more; what has come is still read.
    broken: bool,
    /// Our side is closed; what still comes is read and forgotten, so that the last packet is not lost to a reset.
    shut: bool,
    _permit: Permit,
}

pub(crate) fn now(clock: &Clock) -> Now {
    Now { instant: clock.now(), unix_ms: clock.unix_millis() }
}

impl Local {
    pub(crate) fn new(worker: Worker, clock: Clock) -> Rc<Self> {
        Rc::new(Self {
            worker: RefCell::new(worker),
            sockets: RefCell::new(Vec::new()),
            buffer: RefCell::new(vec![0; READ_BUFFER].into_boxed_slice()),
            clock,
            hurry: Notify::new(),
            mailed: Cell::new(0),
        })
    }

    /// Starts the tasks that every worker has.
    pub(crate) fn start(self: &Rc<Self>, mailbox: Receiver<Mail>) {
        spawn_local(Flush::new(Rc::clone(self)));
        spawn_local(take_mail(Rc::clone(self), mailbox));
        spawn_local(keep_time(Rc::clone(self)));
    }

    /// Bytes that came from clients and from other workers.
    fn taken(&self, worker: &Worker) -> u64 {
        worker.metrics.received_bytes.get() + self.mailed.get()
    }

    fn with<T>(&self, f: impl FnOnce(&mut Worker) -> T) -> T {
        let mut worker = self.worker.borrow_mut();
        worker.now = now(&self.clock);
        f(&mut worker)
    }

    /// Serves a connection from its first byte of MQTT on; `first` was read behind a PROXY header.
    fn serve(self: &Rc<Self>, arrival: Arrival, first: &[u8]) {
        let id = self.open(arrival, None);
        if !first.is_empty() {
            self.with(|w| w.received(id, first));
        }
        spawn_local(Connection { local: Rc::clone(self), id });
    }

    fn open(&self, arrival: Arrival, frames: Option<Box<websocket::Frames>>) -> ConnId {
        let Arrival { stream, origin, late, permit } = arrival;
        let id = self.with(|w| w.open(origin, late));
        let mut sockets = self.sockets.borrow_mut();
        let slot = id.slot as usize;
        if sockets.len() <= slot {
            sockets.resize_with(slot + 1, || None);
        }
        let (blocked, broken, shut) = (false, false, false);
        sockets[slot] = Some(Socket { stream, frames, blocked, broken, shut, _permit: permit });
        id
    }
}

/// Counts a connection of a listener, over all workers.
struct Permit(Arc<AtomicUsize>);

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What a listener is called and asks for; a reload changes it for connections to come.
pub(crate) struct Rules {
    /// With the true port in its name.
    pub(crate) door: Arc<Door>,
    pub(crate) config: ListenerConfig,
}

impl Rules {
    pub(crate) fn new(config: ListenerConfig, addr: SocketAddr) -> Self {
        let name = format!("{}://{addr}", config.scheme()).into();
        let door = Door { name, allow_anonymous: config.allow_anonymous, rates: config.rates };
        Self { door: Arc::new(door), config }
    }
}

/// A listener as one worker serves it.
#[derive(Clone)]
pub(crate) struct Serving {
    pub(crate) rules: Arc<ArcSwap<Rules>>,
    pub(crate) connections: Arc<AtomicUsize>,
    /// How fast connections come, over all workers.
    pub(crate) bucket: Arc<SharedBucket>,
    /// When it began to listen.
    pub(crate) since: Instant,
    pub(crate) stop: Shutdown,
}

impl Serving {
    /// Whether a connection that comes now comes above `accept_rate`.
    fn is_late(&self, local: &Local, config: &ListenerConfig) -> bool {
        let Some(rate) = config.accept_rate else { return false };
        let now = local.clock.now().saturating_duration_since(self.since);
        !self.bucket.allows(rate, u64::try_from(now.as_nanos()).unwrap_or(u64::MAX))
    }

    pub(crate) fn name(&self) -> Arc<str> {
        Arc::clone(&self.rules.load().door.name)
    }
}

/// Accepts until the listener is stopped.
pub(crate) async fn listen(local: Rc<Local>, listener: std::net::TcpListener, serving: Serving) {
    let listener = match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!(listener = &*serving.name(), %error, "cannot listen");
            return;
        }
    };
    let paused = |error: &io::Error| tracing::warn!(%error, "accepting rests: no descriptors are left");
    loop {
        let accepted = tokio::select! {
            accepted = accept(&listener, paused) => accepted,
            () = serving.stop.wait() => return,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::error!(listener = &*serving.name(), %error, "the listener is broken");
                return;
            }
        };
        let rules = serving.rules.load();
        let config = &rules.config;
        let before = serving.connections.fetch_add(1, Ordering::Relaxed);
        let permit = Permit(Arc::clone(&serving.connections));
        if before >= config.max_connections {
            local.with(|w| w.shut_out(peer, Limit::Listener));
            continue;
        }
        if local.with(|w| w.is_full()) {
            local.with(|w| w.shut_out(peer, Limit::Broker));
            continue;
        }
        let late = serving.is_late(&local, config);
        if late && local.with(|w| w.late >= MAX_LATE) {
            local.with(|w| w.shut_out(peer, Limit::Rate));
            continue;
        }
        let origin = Origin { peer, via: None, door: Arc::clone(&rules.door) };
        let arrival = Arrival { stream, origin, late, permit };
        // a header is expected from trusted addresses only; whoever comes from elsewhere comes directly, and a header
        // from there is no MQTT packet
        let header =
            config.proxy_protocol && TrustedProxies::new(config.trusted_proxies.clone()).allows(peer.ip());
        if header || config.websocket.is_some() {
            spawn_local(arrive(Rc::clone(&local), arrival, Arc::clone(&rules), header));
        } else {
            local.serve(arrival, &[]);
        }
    }
}

/// A connection that has not said its first byte of MQTT.
struct Arrival {
    stream: TcpStream,
    origin: Origin,
    /// It came above `accept_rate`.
    late: bool,
    permit: Permit,
}

/// Takes off what comes before MQTT, then serves.
async fn arrive(local: Rc<Local>, mut arrival: Arrival, rules: Arc<Rules>, header: bool) {
    let since = local.clock.now();
    let mut first = Vec::new();
    if header && !take_proxy_header(&local, &mut arrival, &mut first).await {
        return;
    }
    match &rules.config.websocket {
        Some(websocket) => {
            let trusted = TrustedProxies::new(rules.config.trusted_proxies.clone());
            websocket::open(local, arrival, first, since, websocket, &trusted).await;
        }
        None => local.serve(arrival, &first),
    }
}

/// Reads the PROXY header; `first` is what came behind it. `false`: there is none, and the connection is turned away.
async fn take_proxy_header(local: &Local, arrival: &mut Arrival, first: &mut Vec<u8>) -> bool {
    let origin = &mut arrival.origin;
    let header =
        tokio::time::timeout(PROXY_TIMEOUT, proxy_protocol::read_header(&arrival.stream, first)).await;
    let header = match header {
        Ok(Ok(header)) => header,
        Ok(Err(error)) => {
            let detail = match error {
                ReadError::NotProxy => {
                    "no PROXY header came from a trusted proxy; is the balancer configured to send one?"
                        .to_owned()
                }
                other => other.to_string(),
            };
            local.with(|w| w.turn_away(origin.peer, "proxy_header", &detail));
            return false;
        }
        Err(_) => {
            let detail = "no whole PROXY header came from a trusted proxy in time; is the balancer configured to send one?";
            local.with(|w| w.turn_away(origin.peer, "proxy_header_timeout", detail));
            return false;
        }
    };
    let unique_id = header.unique_id.map(readable);
    if header.command == Command::Proxy
        && let Some(source) = header.source
    {
        origin.via = Some(Box::new(Via { address: origin.peer, unique_id }));
        origin.peer = source;
    }
    true
}

/// An id as text: as it is where it is text, in hexadecimal where it is not.
fn readable(id: Vec<u8>) -> Box<str> {
    match String::from_utf8(id) {
        Ok(text) if !text.chars().any(char::is_control) => text.into(),
        Ok(text) => hex(text.as_bytes()),
        Err(error) => hex(error.as_bytes()),
    }
}

fn hex(bytes: &[u8]) -> Box<str> {
    bytes.iter().map(|b| format!("{b:02x}")).collect::<String>().into()
}

/// Reads one connection, waits for its socket when it is full, closes it at the end.
///
/// It is as small as this because what it needs is in [`Socket`]: a task of two words is one step of 128 bytes of the
/// allocator, and a third would make it two.
struct Connection {
    local: Rc<Local>,
    id: ConnId,
}

impl Future for Connection {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let (local, id) = (&self.local, self.id);
        let mut worker = local.worker.borrow_mut();
        worker.now = now(&local.clock);
        let Some(conn) = worker.conn_mut(id) else { return Poll::Ready(()) };
        if conn.waker.as_ref().is_none_or(|w| !w.will_wake(cx.waker())) {
            conn.waker = Some(cx.waker().clone());
        }
        let mut sockets = local.sockets.borrow_mut();
        let Some(Some(socket)) = sockets.get_mut(id.slot as usize) else { return Poll::Ready(()) };
        let why = ready!(socket.poll(&mut worker, id, &mut local.buffer.borrow_mut(), cx));
        sockets[id.slot as usize] = None;
        worker.socket_closed(id, why);
        Poll::Ready(())
    }
}

impl Socket {
    /// Writes what could not be written before, and reads. Ready when the connection is over, with the reason.
    fn poll(
        &mut self,
        worker: &mut Worker,
        id: ConnId,
        buffer: &mut [u8],
        cx: &mut Context<'_>,
    ) -> Poll<&'static str> {
        if worker.conn(id).is_some_and(|conn| conn.killed) {
            return Poll::Ready("closed by the broker");
        }
        if self.broken || self.write_blocked(worker, id, cx).is_err() {
            // What the client said before it went is heard all the same: a DISCONNECT that lies in the kernel's buffer spares it
            // its will [MQTT-3.14.4-3]. Reading ends soon, because the kernel tells the error there too.
            self.broken = true;
            worker.discard_unsent(id);
        }
        for _ in 0..READS_PER_POLL {
            let most = match self.before_read(worker, id, cx) {
                Next::Read(most) => most,
                Next::Again => continue,
                Next::Wait => return Poll::Pending,
                Next::End(why) => return Poll::Ready(why),
            };
            let mut buf = ReadBuf::new(buffer.get_mut(..most).unwrap_or_default());
            match ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buf)) {
                Err(_) => return Poll::Ready("read failed"),
                Ok(()) if buf.filled().is_empty() => {
                    if let Some(frames) = &mut self.frames
                        && frames.incoming.ends()
                        && !self.shut
                    {
                        return Poll::Pending;
                    }
                    return Poll::Ready("closed by the client");
                }
                Ok(()) => {
                    match &mut self.frames {
                        _ if self.shut => {}
                        None => worker.received(id, buf.filled()),
                        Some(frames) => frames.received(worker, id, buf.filled_mut()),
                    }
                    if buf.filled().len() == READ_BUFFER {
                        // there is more: the others first
                        break;
                    }
                }
            }
        }
        after_the_others(cx.waker());
        Poll::Pending
    }

    /// What is to be done with the connection now.
    fn before_read(&mut self, worker: &mut Worker, id: ConnId, cx: &mut Context<'_>) -> Next {
        let Some(conn) = worker.conn(id) else { return Next::End("closed by the broker") };
        if conn.closing && conn.unsent() == 0 {
            if !conn.linger || self.broken {
                return Next::End("closed by the broker");
            }
            if !self.shut {
                let farewell = conn.farewell;
                if self.say_goodbye(worker, id.slot, farewell, cx).is_pending() {
                    return Next::Wait;
                }
                let _ = Pin::new(&mut self.stream).poll_shutdown(cx);
                self.shut = true;
            }
            return Next::Read(READ_BUFFER);
        }
        if !worker.wants_read(id) {
            let frames = self.frames.as_ref().filter(|_| !conn.closing);
            return match frames.map_or(0, |frames| frames.incoming.room()) {
                0 => Next::Wait,
                room => Next::Read(room),
            };
        }
        if let Some(frames) = &mut self.frames {
            if frames.incoming.hand_over(worker, id) {
                return Next::Again;
            }
            if frames.incoming.has_ended() {
                return Next::End("closed by the client");
            }
        }
        Next::Read(READ_BUFFER)
    }

    /// Goes on writing where the kernel's buffer was full.
    fn write_blocked(&mut self, worker: &mut Worker, id: ConnId, cx: &mut Context<'_>) -> io::Result<()> {
        if self.blocked && self.frames.is_some() {
            return self.write_frames(worker, id.slot, cx);
        }
        while self.blocked {
            if worker.unsent(id.slot).is_empty() {
                self.blocked = false;
                break;
            }
            match Pin::new(&mut self.stream).poll_write(cx, worker.unsent(id.slot)) {
                Poll::Ready(Ok(n)) => {
                    worker.written(id.slot, n);
                }
                Poll::Ready(Err(error)) => return Err(error),
                Poll::Pending => break,
            }
        }
        Ok(())
    }
}

/// What a connection does next.
enum Next {
    /// Read so many bytes at most.
    Read(usize),
    /// Look again.
    Again,
    /// Until the worker takes bytes, or the socket does.
    Wait,
    /// Close the socket, for this reason.
    End(&'static str),
}

impl Socket {
    /// Writes what waits until nothing is left or the socket takes no more. `false`: it is blocked or broken.
    fn try_write(&mut self, worker: &mut Worker, slot: u32) -> bool {
        loop {
            let unsent = worker.unsent(slot);
            if unsent.is_empty() {
                return true;
            }
            match self.stream.try_write(unsent) {
                Ok(n) => {
                    worker.written(slot, n);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    self.blocked = error.kind() == io::ErrorKind::WouldBlock;
                    self.broken = !self.blocked;
                    return false;
                }
            }
        }
    }
}

async fn take_mail(local: Rc<Local>, mut mailbox: Receiver<Mail>) {
    let mut batch = Vec::new();
    let mut left = 0;
    loop {
        // a mailbox that is never empty gets no more of a turn than one that is
        if !mailbox.try_recv(&mut batch) {
            left = 0;
            if !mailbox.recv(&mut batch).await {
                return;
            }
        }
        let mut mails = batch.drain(..);
        while local.with(|worker| take_some(worker, &mut mails, &mut left, &local.mailed)) {
            // what was delivered is flushed, and the sockets have their turn
            tokio::task::yield_now().await;
        }
    }
}

/// Takes mail until nothing is `left` of the turn; without any left a turn begins. `false`: there is no more.
fn take_some(
    worker: &mut Worker,
    mails: &mut impl Iterator<Item = Mail>,
    left: &mut usize,
    mailed: &Cell<u64>,
) -> bool {
    if *left == 0 {
        // what comes from another worker must not fill the buffer of a client that keeps up
        *left = MAIL_PER_TURN.min(worker.config.max_outbound_bytes / 4);
    }
    for mail in mails {
        let work = mail.work();
        *left = left.saturating_sub(work);
        mailed.set(mailed.get() + work as u64);
        worker.mail(mail);
        if *left == 0 {
            return true;
        }
    }
    false
}

async fn keep_time(local: Rc<Local>) {
    let mut next = local.clock.now() + TICK;
    loop {
        let busy = local.worker.borrow().needs_turn();
        let wait = next.saturating_duration_since(local.clock.now());
        let wait = if busy { wait.min(BUSY_TICK) } else { wait };
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = local.hurry.notified(), if !busy => continue,
        }
        local.with(|worker| {
            worker.retry();
            if worker.now.instant >= next {
                next = worker.now.instant + TICK;
                worker.tick();
            }
            worker.wake_flush();
        });
    }
}

impl Worker {
    /// A connection that is not served at all.
    fn turn_away(&mut self, peer: SocketAddr, reason: &str, detail: &str) {
        self.metrics.accepted.inc();
        self.metrics.refused.inc();
        self.shared.events.emit(Event::ClientRefused {
            clientid: None,
            username: None,
            peer,
            reason: reason.into(),
            detail: detail.into(),
        });
    }
}

#[cfg(test)]
mod tests {
    use mqtt::packet::Packet;
    use runtime::events::Record;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;
    use crate::config::{BrokerConfig, ClientRates};
    use crate::connection::{Door, Phase};
    use crate::metrics::Drop;
    use crate::sim::world::World;

    /// A connection that is past its CONNECT, and the client's side of it.
    pub(super) async fn connected(local: &Rc<Local>, listener: &TcpListener) -> (ConnId, TcpStream) {
        let (id, client) = opened(local, listener).await;
        local.with(|w| w.conn_mut(id).unwrap().phase = Phase::Connected);
        (id, client)
    }

    /// A connection without a packet, and the client's side of it.
    async fn opened(local: &Rc<Local>, listener: &TcpListener) -> (ConnId, TcpStream) {
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (stream, peer) = listener.accept().await.unwrap();
        let permit = Permit(Arc::new(AtomicUsize::new(1)));
        let door = Door { name: "tcp://test".into(), allow_anonymous: true, rates: ClientRates::default() };
        let origin = Origin { peer, via: None, door: Arc::new(door) };
        let id = local.open(Arrival { stream, origin, late: false, permit }, None);
        spawn_local(Connection { local: Rc::clone(local), id });
        (id, client)
    }

    /// Runs a test as a task among those of the worker, each of which has its turn.
    pub(super) fn among_the_tasks(test: impl Future<Output = ()> + 'static) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let limited = async { tokio::time::timeout(Duration::from_secs(20), spawn_local(test)).await };
        let outcome = tokio::task::LocalSet::new().block_on(&runtime, limited);
        outcome.expect("in time").expect("no panic");
    }

    async fn reset_behind_a_good_bye() {
        let (worker, mailbox, clock) = World::new(1, 1, BrokerConfig::default()).take_worker();
        let events = worker.shared.events.clone();
        let local = Local::new(worker, clock);
        local.start(mailbox);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (id, mut client) = opened(&local, &listener).await;
        let connect = b"\x10\x0d\0\x04MQTT\x04\x02\0\x3c\0\x01d";
        client.write_all(connect).await.unwrap();
        let mut connack = [0; 4];
        client.read_exact(&mut connack).await.unwrap();
        assert_eq!(connack, [0x20, 2, 0, 0]);
        // its last packet, and an end that makes the broker's next write fail, before the broker looks
        assert_eq!(client.try_write(&[0xE0, 0]).unwrap(), 2);
        client.set_zero_linger().unwrap();
        drop(client);
        local.with(|worker| {
            assert!(worker.send(id, &Packet::Pingresp));
            let mut sockets = local.sockets.borrow_mut();
            let socket = sockets[id.slot as usize].as_mut().unwrap();
            flush::flush(worker, socket, id.slot);
            assert!(socket.broken, "the write failed");
        });
        while local.sockets.borrow()[id.slot as usize].is_some() {
            tokio::task::yield_now().await;
        }
        let ends = events.recent(|r| matches!(r.event, Event::ClientDisconnected { .. }), 9);
        let [Record { event: Event::ClientDisconnected { reason, .. }, .. }] = &ends[..] else {
            panic!("{ends:?}")
        };
        assert_eq!(&**reason, "normal", "a will would have been discarded");
    }

    /// [MQTT-3.14.4-3]
    #[test]
    fn a_good_bye_is_heard_though_a_write_failed_before_it_was_read() {
        among_the_tasks(reset_behind_a_good_bye());
    }

    async fn flooded() {
        const FLOODS: usize = 4;
        let (worker, mailbox, clock) = World::new(1, 1, BrokerConfig::default()).take_worker();
        let local = Local::new(worker, clock);
        local.start(mailbox);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut floods = Vec::new();
        for _ in 0..FLOODS {
            floods.push(connected(&local, &listener).await);
        }
        let (_, quiet) = connected(&local, &listener).await;
        let read = || local.with(|w| w.metrics.received_bytes.get());
        // acknowledgements of nothing cost a turn and are not answered
        let gush = [0x40, 2, 0, 1].repeat(READ_BUFFER / 4);
        let mut written = 0;
        for (_, flood) in &floods {
            while let Ok(count) = flood.try_write(&gush) {
                written += count as u64;
            }
        }
        // in the middle of a turn, when the kernel has just been asked
        let begun = std::future::poll_fn(|cx| {
            let begun = read() > 0;
            if !begun {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            Poll::Ready(quiet.try_write(&[0xC0, 0]).map(|_| read()))
        });
        let before = begun.await.unwrap();
        let mut answer = [0; 2];
        while quiet.try_read(&mut answer).is_err() {
            tokio::task::yield_now().await;
        }
        let (meanwhile, turn) = (read() - before, (FLOODS * READ_BUFFER) as u64);
        assert_eq!(answer, [0xD0, 0]);
        assert!(written > 8 * turn, "{written} bytes are no flood");
        assert!(
            meanwhile <= 4 * turn,
            "{meanwhile} bytes of floods were read before one packet was answered"
        );
    }

    #[test]
    fn floods_do_not_keep_the_worker_from_another_connection() {
        among_the_tasks(flooded());
    }

    /// What the broker answers to a packet; its engine is the world's.
    async fn ask<const N: usize>(w: &mut World, client: &mut TcpStream, packet: &[u8]) -> [u8; N] {
        client.write_all(packet).await.unwrap();
        let (mut answer, mut got) = ([0; N], 0);
        while got < N {
            w.run();
            match client.try_read(&mut answer[got..]) {
                Ok(0) => panic!("the broker has closed"),
                Ok(count) => got += count,
                Err(_) => tokio::task::yield_now().await,
            }
        }
        answer
    }

    async fn fed_from_another_worker() {
        const MESSAGES: usize = 300;
        let mut w = World::new(1, 2, BrokerConfig::default());
        let most = BrokerConfig::default().max_outbound_bytes;
        let (worker, mailbox, clock) = w.take_worker();
        let local = Local::new(worker, clock);
        local.start(mailbox);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (stream, peer) = listener.accept().await.unwrap();
        let permit = Permit(Arc::new(AtomicUsize::new(1)));
        let door = Door { name: "tcp://test".into(), allow_anonymous: true, rates: Default::default() };
        let origin = Origin { peer, via: None, door: Arc::new(door) };
        local.serve(Arrival { stream, origin, late: false, permit }, &[]);
        let hello = b"\x10\x0D\x00\x04MQTT\x04\x02\x00\x00\x00\x01s";
        assert_eq!(ask(&mut w, &mut client, hello).await, [0x20, 2, 0, 0]);
        let subscribe = b"\x82\x06\x00\x01\x00\x01t\x00";
        assert_eq!(ask(&mut w, &mut client, subscribe).await, [0x90, 3, 0, 1, 0]);
        // the worker that is left in the world is the other one
        let publisher = w.open(0);
        w.write(publisher, b"\x10\x0D\x00\x04MQTT\x04\x02\x00\x00\x00\x01p");
        let packet = [b"\x30\x83\x20\x00\x01t".as_slice(), &[7; 4_096]].concat();
        for _ in 0..MESSAGES {
            w.write(publisher, &packet);
        }
        w.run();
        assert!(MESSAGES * packet.len() > most, "what came at once would not fit");
        let mut got = vec![0; packet.len()];
        for number in 0..MESSAGES {
            client.read_exact(&mut got).await.unwrap();
            assert!(got == packet, "message {number}");
        }
        local.with(|w| assert_eq!(w.metrics.dropped[Drop::OutboundFull as usize].get(), 0));
    }

    /// What another worker has gathered is delivered in turns, each of which is flushed: a client that takes it loses nothing.
    #[test]
    fn a_client_that_keeps_up_loses_nothing_that_another_worker_hands_over() {
        among_the_tasks(fed_from_another_worker());
    }

    /// What an idle device is made of, each with the allocator's share: growth here is growth of a million devices, and a
    /// byte of it is a megabyte for them.
    #[test]
    fn an_idle_connection_is_small() {
        let sizes = [
            // with two words tokio's task is 128 bytes, with three 256 (`Cell` in its runtime/task/core.rs)
            ("the driver's task", size_of::<Connection>(), 16),
            ("its socket", size_of::<Option<Socket>>(), 64),
            ("the worker's state", size_of::<Option<crate::connection::Conn>>(), 296),
            ("the session", size_of::<crate::session::Session>(), 224),
            // with 12 of its subscription, up to 21 of text
            ("its subscriptions", size_of::<crate::subscriptions::Subscriptions>(), 16),
            ("the place in the registry", size_of::<(Arc<str>, crate::registry::Owner)>(), 32),
        ];
        for (what, size, most) in sizes {
            assert_eq!(size, most, "{what}: less is better, and more must be worth it");
        }
    }
}
