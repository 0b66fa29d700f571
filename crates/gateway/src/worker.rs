//! The gateway's part of one worker: its connections, its shared buffer, its deadlines, and the commands it obeys.
//!
//! All of it is touched by one thread only. Control code talks to it through a mailbox: a question is answered
//! with copies, never with references.

use std::borrow::Borrow;
use std::cell::{Cell, RefCell};
use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::future::poll_fn;
use std::io;
use std::ops::Bound;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use api::gateway::{Connection, ConnectionQuery};
use hashbrown::HashMap;
use net::reactor::{Acceptor, Reactor, Stream};
use net::splice::PipePool;
use runtime::clock::Clock;
use runtime::events::{Event, Events};
use runtime::lifecycle::Shutdown;
use runtime::mailbox;
use runtime::timer_wheel::{DEFAULT_TICK, Wheel};
use runtime::workers::{WorkerId, after_the_others};
use slab::Slab;
use tokio::sync::{Notify, oneshot};
use tokio::task::{AbortHandle, spawn_local};

use crate::accept::silent::{Quiet, Silent};
use crate::accept::{self, Listener};
use crate::error::End;
use crate::session_log::{self, Id, Log, Session, Words};
use crate::splice::{self, Relay, Speaks, Turn};
use crate::young::{Newcomer, Young};

/// What a worker is told or asked.
pub(crate) enum Command {
    /// Accept on this socket.
    Listen { listener: Arc<Listener>, socket: std::net::TcpListener },
    /// Close the socket of the listener with this number. Connections stay.
    Unlisten { number: u64, done: SyncSender<()> },
    /// The connections that fit, in order, the first `limit` after a place.
    List {
        query: ConnectionQuery,
        after: Option<(String, u64)>,
        limit: usize,
        answer: oneshot::Sender<Vec<Row>>,
    },
    /// All connections of a client id.
    Find { clientid: String, answer: oneshot::Sender<Vec<Row>> },
    /// Accept no more, start nothing more, and say when there are no connections left.
    Stop { empty: oneshot::Sender<()> },
    /// End every connection, and say how many there were.
    Abort { done: oneshot::Sender<usize> },
}

/// A connection as the control side sees it, with its place in the order.
pub(crate) struct Row {
    pub(crate) connection: Connection,
    /// Its id as a number: the worker in the upper 16 bits.
    pub(crate) number: u64,
    pub(crate) connected_at: u64,
}

/// The gateway's part of one worker.
pub(crate) struct Worker {
    pub(crate) id: WorkerId,
    pub(crate) clock: Clock,
    pub(crate) events: Events,
    pub(crate) log: Log,
    /// Begun where this worker can't go on.
    shutdown: Shutdown,
    words: Words,
    /// One for all connections: an idle connection owns no buffer.
    pub(crate) buffer: RefCell<Box<[u8]>>,
    pub(crate) pipes: PipePool,
    /// Of all connections' sockets, on both sides.
    pub(crate) reactor: Reactor,
    /// The sessions, by the key under which the reactor gives their events.
    relays: RefCell<Slab<Rc<Session>>>,
    /// Those that used up their share of a turn.
    again: RefCell<Vec<u32>>,
    /// Those that have no keep-alive yet.
    young: RefCell<Young>,
    /// Connections that have said nothing yet.
    pub(crate) quiet: RefCell<Quiet>,
    /// Those that are over in this turn; kept for its memory only.
    over: RefCell<Vec<(Rc<Session>, End)>>,
    /// Of the task that turns the reactor.
    turner: RefCell<Option<Waker>>,
    random: RefCell<fastrand::Rng>,
    boot: u64,
    sequence: Cell<u64>,
    sessions: RefCell<BTreeSet<Listed>>,
    acceptors: RefCell<HashMap<u64, AbortHandle>>,
    /// Connections that have no server yet.
    arriving: Cell<usize>,
    wheel: RefCell<Wheel<u64>>,
    /// The sessions that the wheel knows, by sequence: those with an idle time-out.
    watched: RefCell<HashMap<u64, Rc<Session>>>,
    /// The sessions that are closed on one side. Nearly all of them end in a moment, so none has a place in the
    /// wheel; the few that stay are looked at with every tick.
    halves: RefCell<HashMap<u64, Rc<Session>>>,
    armed: Notify,
    stopping: Cell<bool>,
    stopped: Notify,
    empty: RefCell<Vec<oneshot::Sender<()>>>,
}

impl Worker {
    /// To be called on the worker.
    ///
    /// # Errors
    /// When the process has no descriptor left.
    pub(crate) fn new(
        id: WorkerId,
        clock: Clock,
        events: Events,
        log: Log,
        shutdown: Shutdown,
        boot: u64,
        seed: u64,
    ) -> io::Result<Rc<Self>> {
        Ok(Rc::new(Self {
            id,
            events,
            log,
            shutdown,
            words: Words::new(),
            buffer: RefCell::new(vec![0; splice::BUFFER_BYTES].into_boxed_slice()),
            pipes: PipePool::new(splice::PIPES),
            reactor: Reactor::new()?,
            relays: RefCell::default(),
            again: RefCell::default(),
            young: RefCell::new(Young::new(NEW_FOR)),
            quiet: RefCell::new(Quiet::new()),
            over: RefCell::default(),
            turner: RefCell::default(),
            random: RefCell::new(fastrand::Rng::with_seed(seed)),
            boot,
            sequence: Cell::new(0),
            sessions: RefCell::default(),
            acceptors: RefCell::default(),
            arriving: Cell::new(0),
            wheel: RefCell::new(Wheel::new(clock.now(), DEFAULT_TICK)),
            clock,
            watched: RefCell::default(),
            halves: RefCell::default(),
            armed: Notify::new(),
            stopping: Cell::new(false),
            stopped: Notify::new(),
            empty: RefCell::default(),
        }))
    }

    /// Obeys until the gateway is gone; then accepts no more, and ends with its last connection.
    pub(crate) async fn run(self: Rc<Self>, mut commands: mailbox::Receiver<Command>) {
        let turner = Rc::clone(&self);
        let turner = spawn_local(async move { poll_fn(|cx| turner.turn(cx)).await });
        let (told, mut empty) = oneshot::channel();
        let mut told = Some(told);
        let mut batch = Vec::new();
        loop {
            tokio::select! {
                _ = &mut empty => break,
                more = commands.recv(&mut batch), if told.is_some() => {
                    for command in batch.drain(..) {
                        self.obey(command);
                    }
                    if !more && let Some(told) = told.take() {
                        self.stop();
                        self.empty.borrow_mut().push(told);
                        self.tell_if_empty();
                    }
                }
                () = self.tick() => self.fire(),
            }
        }
        turner.abort();
    }

    /// Turns the reactor: serves the connections that have something to do.
    fn turn(self: &Rc<Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut turner = self.turner.borrow_mut();
        if turner.as_ref().is_none_or(|known| !known.will_wake(cx.waker())) {
            *turner = Some(cx.waker().clone());
        }
        drop(turner);
        let mut due = self.again.take();
        for _ in 0..TURNS {
            self.serve_all(&mut due);
            match self.reactor.poll_turn(cx, &mut due) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => {
                    self.give_up(&error);
                    return Poll::Ready(());
                }
                Poll::Pending => {
                    if !self.again.borrow().is_empty() {
                        after_the_others(cx.waker());
                    }
                    return Poll::Pending;
                }
            }
        }
        // Others have their turn first.
        self.again.borrow_mut().append(&mut due);
        after_the_others(cx.waker());
        Poll::Pending
    }

    /// Without events no connection of this worker moves: they end, so that their devices come again, and the process stops
    /// in order, so that whoever started it starts it anew.
    fn give_up(self: &Rc<Self>, error: &io::Error) {
        tracing::error!(%error, "a worker can't wait for its connections any more, the process stops");
        self.stop();
        let sessions: Vec<_> = self.sessions.borrow().iter().map(|listed| Rc::clone(&listed.0)).collect();
        self.end_all(&sessions, End::Shutdown);
        self.shutdown.begin("a worker of the gateway can't wait for its connections");
    }

    /// One turn of each. Those that are over end together, and those that begin send their first bytes together: whom they
    /// talk to on this machine wakes up once for all of them.
    fn serve_all(self: &Rc<Self>, due: &mut Vec<u32>) {
        let mut over = self.over.take();
        let mut begun = Vec::new();
        for key in due.drain(..) {
            if Quiet::has(key) {
                begun.extend(accept::hear(self, key));
            } else {
                over.extend(self.serve(key));
            }
        }
        begun.into_iter().for_each(accept::go_on);
        self.end_together(&mut over);
        *self.over.borrow_mut() = over;
    }

    /// One turn of one connection. Given back: it is over, and its caller ends it.
    fn serve(&self, key: u32) -> Option<(Rc<Session>, End)> {
        let session = self.relays.borrow().get(key as usize).map(Rc::clone)?;
        if session.end.get().is_some() {
            return None; // it was over before in this turn
        }
        let turn = guarded(|| match session.relay.borrow_mut().as_mut() {
            Some(relay) => relay.turn(&session, self),
            None => Turn::Waits,
        });
        match turn {
            Some(Turn::Waits) => None,
            Some(Turn::Again) => {
                self.again.borrow_mut().push(key);
                if let Some(turner) = &*self.turner.borrow() {
                    after_the_others(turner);
                }
                None
            }
            Some(Turn::Over(end)) => Some((session, end)),
            None => Some((session, End::Shutdown)),
        }
        .inspect(|(session, end)| session.end.set(Some(*end)))
    }

    /// Moves the bytes of a session that was entered, from now on.
    pub(crate) fn relay(&self, session: &Rc<Session>, client: Stream, server: Stream, speaks: Speaks) {
        let key = self.relays.borrow_mut().insert(Rc::clone(session));
        // Descriptors are fewer than 2³¹.
        let key = u32::try_from(key).unwrap_or(u32::MAX);
        *session.relay.borrow_mut() = Some(Relay::new(client, server, key, speaks));
        let now = session.active.get();
        if self.young.borrow().is_empty() {
            self.armed.notify_one();
        }
        self.young.borrow_mut().push(now, Newcomer { key, sequence: session.id.sequence });
        self.grow_up(now, GROW_UP_EACH);
        // What came until now was told to the journey.
        if let Some((session, end)) = self.serve(key) {
            self.end(&session, end);
        }
    }

    /// Waits for a connection's first bytes without a task.
    pub(crate) fn wait_for_a_word(self: &Rc<Self>, silent: Silent) {
        let now = silent.since;
        if self.quiet.borrow().is_empty() {
            self.armed.notify_one();
        }
        self.quiet.borrow_mut().insert(silent);
        self.lose_patience(now, LOSE_PATIENCE_EACH);
    }

    /// Gives those that were silent for too long a task and a timer: looks at so many at most.
    fn lose_patience(self: &Rc<Self>, now: Instant, most: usize) {
        for _ in 0..most {
            let Some(oldest) = self.quiet.borrow_mut().oldest(now) else { return };
            if let Some(silent) = oldest {
                accept::take_its_time(self, silent);
            }
        }
    }

    /// Looks after at most so many of the connections that are not new any more.
    fn grow_up(&self, now: Instant, most: usize) {
        for _ in 0..most {
            let Some(Newcomer { key, sequence }) = self.young.borrow_mut().pop(now) else { return };
            let relays = self.relays.borrow();
            if let Some(session) = relays.get(key as usize).filter(|session| session.id.sequence == sequence)
                && let Some(relay) = &*session.relay.borrow()
            {
                relay.keep_alive();
            }
        }
    }

    /// Ends a session, by itself or from outside.
    fn end(&self, session: &Rc<Session>, end: End) {
        let Some(relay) = session.relay.take() else { return };
        self.relays.borrow_mut().try_remove(relay.key as usize);
        // The sockets close before anybody hears of it.
        drop(relay);
        session.end.set(Some(end));
        self.leave(session, self.clock.now());
    }

    /// As [`Worker::end`] for each: first all servers' sockets close, then all clients', then it is told.
    fn end_together(&self, over: &mut Vec<(Rc<Session>, End)>) {
        over.retain(|(session, _)| session.relay.borrow().is_some());
        let clients: Vec<_> = over.iter().filter_map(|(session, _)| self.hang_up(session)).collect();
        if over.is_empty() {
            return;
        }
        drop(clients);
        let now = self.clock.now();
        for (session, _) in over.drain(..) {
            self.leave(&session, now);
        }
    }

    /// Closes the server's socket, and gives back the client's.
    fn hang_up(&self, session: &Session) -> Option<Stream> {
        let relay = session.relay.take()?;
        self.relays.borrow_mut().try_remove(relay.key as usize);
        Some(relay.into_client())
    }

    fn end_all(&self, sessions: &[Rc<Session>], end: End) {
        for session in sessions {
            self.end(session, end);
        }
    }

    fn obey(self: &Rc<Self>, command: Command) {
        // An asker who is gone does not want the answer: that is its right.
        match command {
            Command::Listen { listener, socket } => self.listen(listener, socket),
            Command::Unlisten { number, done } => {
                let acceptor = self.acceptors.borrow_mut().remove(&number);
                spawn_local(async move {
                    if let Some(acceptor) = acceptor {
                        acceptor.abort();
                        // The socket closes when the aborted task is dropped, in its next turn.
                        while !acceptor.is_finished() {
                            tokio::task::yield_now().await;
                        }
                    }
                    let _ = done.send(());
                });
            }
            Command::List { query, after, limit, answer } => {
                let _ = answer.send(self.list(&query, after.as_ref(), limit));
            }
            Command::Find { clientid, answer } => {
                let _ = answer.send(self.find(&clientid));
            }
            Command::Stop { empty } => {
                self.stop();
                self.empty.borrow_mut().push(empty);
                self.tell_if_empty();
            }
            Command::Abort { done } => {
                let sessions: Vec<_> =
                    self.sessions.borrow().iter().map(|listed| Rc::clone(&listed.0)).collect();
                self.end_all(&sessions, End::Shutdown);
                let _ = done.send(sessions.len());
            }
        }
    }

    fn listen(self: &Rc<Self>, listener: Arc<Listener>, socket: std::net::TcpListener) {
        if self.stopping.get() {
            return;
        }
        match Acceptor::new(&self.reactor, socket) {
            Ok(acceptor) => {
                let number = listener.number;
                let acceptor = spawn_local(accept::listen(Rc::clone(self), listener, move |cx| {
                    acceptor.poll_accept(cx)
                }));
                self.acceptors.borrow_mut().insert(number, acceptor.abort_handle());
            }
            Err(error) => {
                tracing::error!(listener = %listener.name, %error, "a worker can't use its listener");
            }
        }
    }

    fn stop(self: &Rc<Self>) {
        self.stopping.set(true);
        let silent = self.quiet.borrow_mut().take_all();
        for silent in silent {
            accept::take_its_time(self, silent); // which tells it so
        }
        for (_, acceptor) in self.acceptors.borrow_mut().drain() {
            acceptor.abort();
        }
        self.stopped.notify_waiters();
    }

    /// Returns when the worker starts nothing more.
    pub(crate) async fn stopped(&self) {
        // Who is polled by hand can't be woken, and is polled again: there is no need to stand in line for it.
        let by_hand = |cx: &Context<'_>| cx.waker().will_wake(Waker::noop()) && !self.stopping.get();
        poll_fn(|cx| if by_hand(cx) { Poll::Pending } else { Poll::Ready(()) }).await;
        let notified = self.stopped.notified();
        if !self.stopping.get() {
            notified.await;
        }
    }

    /// Two random numbers.
    pub(crate) fn draws(&self) -> [u64; 2] {
        let mut random = self.random.borrow_mut();
        [random.u64(..), random.u64(..)]
    }

    /// An id that nothing had before.
    pub(crate) fn next_id(&self) -> Id {
        let sequence = self.sequence.get() + 1;
        self.sequence.set(sequence);
        Id { boot: self.boot, worker: self.id.0, sequence }
    }

    /// A connection came that has no server yet.
    pub(crate) fn arrive(self: &Rc<Self>) -> Arriving {
        self.arriving.set(self.arriving.get() + 1);
        Arriving(Rc::clone(self))
    }

    /// A connection has its server: lists it.
    pub(crate) fn enter(&self, session: &Rc<Session>) {
        self.sessions.borrow_mut().insert(Listed(Rc::clone(session)));
        self.watch(session);
        let stats = session.listener().stats.get(self.id);
        if let Some(chosen) = stats.and_then(|stats| stats.chosen.get(session.to.chosen_by.index())) {
            chosen.inc();
        }
        session_log::started(&self.events, &self.words, session);
    }

    /// A connection ended: counts it, writes it down, forgets it.
    fn leave(&self, session: &Rc<Session>, now: Instant) {
        let end = session.end.get().unwrap_or(End::Shutdown);
        if let Some(ended) =
            session.listener().stats.get(self.id).and_then(|stats| stats.ended.get(end.index()))
        {
            ended.inc();
        }
        session_log::ended(&self.events, &self.words, &self.log, session, end, now);
        if matches!(end, End::ServerClosed | End::ServerFailed) && session.bytes_out.get() == 0 {
            let server = &session.to.slot.server;
            let error = server.mute();
            if server.reports.now(self.clock.unix_millis()) {
                self.events.emit(Event::UpstreamFailed {
                    upstream: Arc::clone(&server.upstream),
                    server: Arc::clone(&server.name),
                    error,
                });
            }
        }
        self.watched.borrow_mut().remove(&session.id.sequence);
        self.halves.borrow_mut().remove(&session.id.sequence);
        self.sessions.borrow_mut().remove::<dyn Place>(&**session);
        self.tell_if_empty();
    }

    /// Arms the deadline of a session that has a `patience`.
    pub(crate) fn watch(&self, session: &Rc<Session>) {
        let Some(patience) = session.patience.get() else { return };
        self.watched.borrow_mut().insert(session.id.sequence, Rc::clone(session));
        let began = session.active.get();
        self.wheel.borrow_mut().arm(session.id.sequence, next_look(began + patience.time, began));
        self.armed.notify_one();
    }

    /// One side of a session closed: bounds the wait for the other.
    pub(crate) fn halved(&self, session: &Rc<Session>) {
        let mut halves = self.halves.borrow_mut();
        halves.insert(session.id.sequence, Rc::clone(session));
        if halves.len() == 1 {
            self.armed.notify_one();
        }
    }

    /// Waits until there may be a deadline.
    async fn tick(&self) {
        loop {
            let next = {
                let wheel = self.wheel.borrow();
                let wanted = !wheel.is_empty()
                    || !self.halves.borrow().is_empty()
                    || !self.young.borrow().is_empty()
                    || !self.quiet.borrow().is_empty();
                wanted.then(|| wheel.next_tick())
            };
            if self.quiet.borrow().is_due(self.clock.now()) {
                // more than fit into one tick's share
                return tokio::task::yield_now().await;
            }
            match next {
                Some(next) => return tokio::time::sleep_until(next.into()).await,
                None => self.armed.notified().await,
            }
        }
    }

    fn fire(self: &Rc<Self>) {
        let now = self.clock.now();
        let mut fired = Vec::new();
        self.wheel.borrow_mut().advance(now, &mut fired);
        for sequence in fired {
            let Some(session) = self.watched.borrow().get(&sequence).cloned() else { continue };
            match judge(&session, now) {
                Verdict::Until(deadline) => self.wheel.borrow_mut().arm(sequence, next_look(deadline, now)),
                Verdict::Over(end) => self.end(&session, end),
                Verdict::Stays => {}
            }
        }
        let over = |session: &&Rc<Session>| matches!(judge(session, now), Verdict::Over(End::HalfClosed));
        let halves: Vec<_> = self.halves.borrow().values().filter(over).cloned().collect();
        self.end_all(&halves, End::HalfClosed);
        self.grow_up(now, GROW_UP_TICK);
        self.lose_patience(now, LOSE_PATIENCE_TICK);
    }

    fn tell_if_empty(&self) {
        if self.arriving.get() == 0 && self.sessions.borrow().is_empty() && self.quiet.borrow().is_empty() {
            for empty in self.empty.borrow_mut().drain(..) {
                let _ = empty.send(());
            }
        }
    }

    fn list(&self, query: &ConnectionQuery, after: Option<&(String, u64)>, limit: usize) -> Vec<Row> {
        let sessions = self.sessions.borrow();
        let start: Bound<&dyn Place> = match after {
            Some(place) => Bound::Excluded(place),
            None => Bound::Unbounded,
        };
        let fits = |session: &Session| {
            let server = &session.to.slot.server;
            query.upstream.as_deref().is_none_or(|name| *server.upstream == *name)
                && query
                    .server
                    .as_deref()
                    .is_none_or(|name| *server.name == *name || *server.address == *name)
        };
        let fitting =
            sessions.range::<dyn Place, _>((start, Bound::Unbounded)).filter(|listed| fits(&listed.0));
        fitting.take(limit).map(|listed| row(&listed.0)).collect()
    }

    fn find(&self, clientid: &str) -> Vec<Row> {
        let sessions = self.sessions.borrow();
        let (first, last) = ((clientid.to_owned(), 0), (clientid.to_owned(), u64::MAX));
        let range: (Bound<&dyn Place>, Bound<&dyn Place>) = (Bound::Included(&first), Bound::Included(&last));
        sessions.range::<dyn Place, _>(range).map(|listed| row(&listed.0)).collect()
    }
}

impl Drop for Worker {
    /// With the worker's thread its connections end; they are written down all the same.
    fn drop(&mut self) {
        let sessions: Vec<_> = self.relays.get_mut().drain().collect();
        self.end_all(&sessions, End::Shutdown);
    }
}

/// What becomes of a session that was silent.
enum Verdict {
    /// It has no patience.
    Stays,
    Until(Instant),
    Over(End),
}

/// Whether a session's patience is over.
fn judge(session: &Session, now: Instant) -> Verdict {
    let Some(patience) = session.patience.get() else { return Verdict::Stays };
    let deadline = session.active.get() + patience.time;
    if deadline > now { Verdict::Until(deadline) } else { Verdict::Over(patience.end) }
}

/// Runs a connection's code, so that its panic is the end of this connection only: `None`. The process's hook has told of
/// the panic.
pub(crate) fn guarded<T>(work: impl FnOnce() -> T) -> Option<T> {
    // What a connection shares with others is changed by single calls: a panic between two of them leaves it whole.
    catch_unwind(AssertUnwindSafe(work)).ok()
}

/// When a session with that deadline is looked at again.
fn next_look(deadline: Instant, now: Instant) -> Instant {
    deadline.min(now + LOOK_EVERY)
}

fn row(session: &Session) -> Row {
    Row { connection: session.describe(), number: number(session.id), connected_at: session.connected_at }
}

/// The id as a number, ascending with time on one worker.
fn number(id: Id) -> u64 {
    u64::from(id.worker) << 48 | id.sequence
}

/// A connection without a server yet, as long as it is one.
pub(crate) struct Arriving(pub(crate) Rc<Worker>);

impl Drop for Arriving {
    fn drop(&mut self) {
        self.0.arriving.set(self.0.arriving.get() - 1);
        self.0.tell_if_empty();
    }
}

/// A session in the order of client id, then id.
struct Listed(Rc<Session>);

/// A place in that order; a session's own, or one that somebody asks about.
trait Place {
    fn place(&self) -> (&str, u64);
}

impl Place for Session {
    fn place(&self) -> (&str, u64) {
        (&self.who.clientid, number(self.id))
    }
}

impl Place for (String, u64) {
    fn place(&self) -> (&str, u64) {
        (&self.0, self.1)
    }
}

impl<'a> Borrow<dyn Place + 'a> for Listed {
    fn borrow(&self) -> &(dyn Place + 'a) {
        &*self.0
    }
}

impl PartialEq for dyn Place + '_ {
    fn eq(&self, other: &Self) -> bool {
        self.place() == other.place()
    }
}

impl Eq for dyn Place + '_ {}

impl PartialOrd for dyn Place + '_ {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for dyn Place + '_ {
    fn cmp(&self, other: &Self) -> Ordering {
        self.place().cmp(&other.place())
    }
}

impl PartialEq for Listed {
    fn eq(&self, other: &Self) -> bool {
        self.0.place() == other.0.place()
    }
}

impl Eq for Listed {}

impl PartialOrd for Listed {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Listed {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.place().cmp(&other.0.place())
    }
}

/// From this age on a connection is one that stays. Far below the silence after which the kernel asks a peer whether it is
/// there, which is what waits for it.
const NEW_FOR: Duration = Duration::from_secs(10);
/// Connections that are looked after with each that comes, once they are not new any more ...
const GROW_UP_EACH: usize = 4;
/// ... and with each tick: half a millisecond.
const GROW_UP_TICK: usize = 1_024;
/// Silent connections that are looked at with each that comes ...
const LOSE_PATIENCE_EACH: usize = 2;
/// ... and with each tick, after which others have their turn.
const LOSE_PATIENCE_TICK: usize = 256;
/// Batches of events in a row, before other tasks have their turn.
const TURNS: usize = 4;

/// How long the control side waits for a worker to obey.
pub(crate) const OBEY_WAIT: Duration = Duration::from_secs(2);

/// A session with an idle time-out is looked at this often at least. The wheel forgets a connection that has ended
/// only when its entry fires: entries for the whole of a long time-out would pile up with every short connection.
const LOOK_EVERY: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_worker_that_cant_wait_for_its_connections_stops_the_process_in_order() {
        let (clock, shutdown) = (Clock::manual().0, Shutdown::new());
        let (events, log) = (Events::new(clock.clone(), 10), Log::new(clock.clone()));
        let worker = Worker::new(WorkerId(0), clock, events, log, shutdown.clone(), 0, 0).unwrap();
        assert!(!worker.stopping.get() && !shutdown.requested());
        worker.give_up(&io::ErrorKind::InvalidInput.into());
        worker.stopped().await;
        assert!(shutdown.reason().unwrap().contains("can't wait"), "{:?}", shutdown.reason());
    }

    /// A thousand connections a second, each over at once, with an idle time-out of a week.
    #[test]
    fn connections_that_ended_do_not_pile_up_until_their_idle_time_out() {
        let start = Clock::manual().0.now();
        let mut wheel = Wheel::new(start, DEFAULT_TICK);
        let mut fired = Vec::new();
        for second in 0..600 {
            let now = start + Duration::from_secs(second);
            (0..1_000).for_each(|key| wheel.arm(key, next_look(now + Duration::from_secs(7 * 86_400), now)));
            wheel.advance(now, &mut fired);
        }
        assert!(wheel.len() <= 61_000, "{}", wheel.len());
        assert_eq!(next_look(start + DEFAULT_TICK, start), start + DEFAULT_TICK, "a near deadline is kept");
    }
}
