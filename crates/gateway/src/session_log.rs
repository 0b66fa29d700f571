//! What is known of a connection that has a server, and what is written down at its start and its end.
//!
//! One line for each connection at its end, with everything: who, from where, to which server, why that one, bytes,
//! duration, reason; in the log of the process or in a [file](crate::session_file) of its own. The typed events carry the
//! same for API and counters.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use api::gateway::Connection;
use arc_swap::ArcSwap;
use runtime::clock::{Clock, rfc3339};
use runtime::events::{Event, Events};

use crate::accept::{Listener, Open};
use crate::config::SessionLog;
use crate::error::{End, Refusal, StartError};
use crate::route::{ChosenBy, NoKey};
use crate::server::Slot;
use crate::session_file::{self, Ended, Line, SessionFile};
use crate::splice::Relay;

/// Where the lines of sessions go. Shared by all workers; a reload changes it.
#[derive(Clone)]
pub(crate) struct Log {
    sink: Arc<ArcSwap<Sink>>,
    /// Lines that found no room in their file.
    pub(crate) lost: Arc<AtomicU64>,
    clock: Clock,
}

enum Sink {
    /// To the log of the process.
    Events,
    Off,
    File(SessionFile),
}

/// A change of where they go, which can't fail any more.
pub(crate) enum Prepared {
    Sink(Box<SinkChange>),
    /// The same file, by its name.
    Reopen(std::fs::File),
}

/// Made by [`Log::prepare`].
pub(crate) struct SinkChange(Sink);

impl Log {
    pub(crate) fn new(clock: Clock) -> Self {
        Self { sink: Arc::new(ArcSwap::from_pointee(Sink::Events)), lost: Arc::default(), clock }
    }

    /// Does everything about a new configuration that can fail.
    pub(crate) fn prepare(&self, config: &SessionLog) -> Result<Prepared, StartError> {
        let sink = match config {
            SessionLog::Events => Sink::Events,
            SessionLog::Off => Sink::Off,
            SessionLog::File { path, format } => {
                let failed = |error| StartError::SessionLog { file: path.display().to_string(), error };
                let file = session_file::open(path).map_err(failed)?;
                if let Sink::File(now) = &**self.sink.load()
                    && now.path == *path
                    && now.format == *format
                {
                    return Ok(Prepared::Reopen(file));
                }
                let (clock, lost) = (self.clock.clone(), Arc::clone(&self.lost));
                let file = SessionFile::start(path.clone(), file, *format, clock, lost);
                Sink::File(file.map_err(failed)?)
            }
        };
        Ok(Prepared::Sink(Box::new(SinkChange(sink))))
    }

    /// Puts it in force.
    pub(crate) fn change(&self, prepared: Prepared) {
        match prepared {
            Prepared::Sink(change) => self.sink.store(Arc::new(change.0)),
            Prepared::Reopen(file) => {
                if let Sink::File(now) = &**self.sink.load() {
                    now.reopen(file);
                }
            }
        }
    }

    /// Waits until all lines are written, or the time is over. Blocks.
    pub(crate) fn flush(&self, time: Duration) {
        if let Sink::File(file) = &**self.sink.load() {
            file.flush(time);
        }
    }
}

/// A connection's id: unique among the gateways that send to a broker, as far as clocks allow, and for ever in
/// this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Id {
    /// When this gateway was started, in milliseconds since 1970.
    pub(crate) boot: u64,
    pub(crate) worker: u16,
    /// Counts from 1 on its worker.
    pub(crate) sequence: u64,
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}-{}-{:x}", self.boot, self.worker, self.sequence)
    }
}

/// Who a connection is from.
#[derive(Clone, Debug)]
pub(crate) struct Who {
    /// Empty where the client gave none or the stream is not MQTT.
    pub(crate) clientid: Arc<str>,
    pub(crate) username: Option<Arc<str>>,
    /// 0 for a stream that is not MQTT.
    pub(crate) proto_ver: u8,
    /// The device's own address.
    pub(crate) peer: SocketAddr,
    /// The TCP connection's, where a balancer in front made it another one. Boxed: few have one.
    pub(crate) via: Option<Box<SocketAddr>>,
}

/// Where a connection went, and why there.
pub(crate) struct Where {
    pub(crate) slot: Slot,
    pub(crate) server_address: SocketAddr,
    pub(crate) chosen_by: ChosenBy,
    pub(crate) no_key: Option<NoKey>,
}

/// A connection that has a server. On one thread: shared by its worker's lists.
pub(crate) struct Session {
    pub(crate) id: Id,
    pub(crate) who: Who,
    pub(crate) to: Where,
    pub(crate) open: Open,
    pub(crate) since: Instant,
    pub(crate) connected_at: u64,
    /// From the client to the server.
    pub(crate) bytes_in: Cell<u64>,
    /// From the server to the client.
    pub(crate) bytes_out: Cell<u64>,
    /// Closed when nothing came for that long.
    pub(crate) patience: Cell<Option<Patience>>,
    /// How long the second half is kept after the first closed, without a byte in it.
    pub(crate) half_closed: Duration,
    /// When bytes moved last; kept up only where there is a `patience`.
    pub(crate) active: Cell<Instant>,
    pub(crate) end: Cell<Option<End>>,
    /// What moves its bytes; `None` before its first turn and after its end.
    pub(crate) relay: RefCell<Option<Relay>>,
}

/// How long a silent connection is kept, and what its end is called then.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    pub(crate) time: Duration,
    pub(crate) end: End,
}

impl Session {
    pub(crate) fn listener(&self) -> &Listener {
        &self.open.listener
    }

    pub(crate) fn describe(&self) -> Connection {
        let server = &self.to.slot.server;
        let relay = self.relay.borrow();
        let local_address = relay.as_ref().and_then(|relay| relay.server.local_addr().ok());
        Connection {
            id: self.id.to_string(),
            clientid: self.who.clientid.to_string(),
            username: self.who.username.as_deref().map(str::to_owned),
            proto_ver: Some(self.who.proto_ver).filter(|version| *version != 0),
            peer: self.who.peer.to_string(),
            via: self.who.via.as_ref().map(|via| via.to_string()),
            listener: self.listener().name.to_string(),
            upstream: server.upstream.to_string(),
            server: server.name.to_string(),
            server_address: self.to.server_address.to_string(),
            // Asked for where it is wanted: for every connection it would be a system call.
            local_address: local_address.map(|address| address.to_string()).unwrap_or_default(),
            chosen_by: self.to.chosen_by.name().to_owned(),
            connected_at: rfc3339(self.connected_at),
            bytes_in: self.bytes_in.get(),
            bytes_out: self.bytes_out.get(),
        }
    }
}

/// The words that every connection's events have, made once for each worker.
pub(crate) struct Words {
    chosen_by: [Arc<str>; ChosenBy::ALL.len()],
    ends: [Arc<str>; End::ALL.len()],
}

impl Words {
    pub(crate) fn new() -> Self {
        Self {
            chosen_by: ChosenBy::ALL.map(|chosen_by| chosen_by.name().into()),
            ends: End::ALL.map(|end| end.name().into()),
        }
    }

    fn chosen_by(&self, chosen_by: ChosenBy) -> Arc<str> {
        self.chosen_by.get(chosen_by.index()).map_or_else(|| chosen_by.name().into(), Arc::clone)
    }

    fn end(&self, end: End) -> Arc<str> {
        self.ends.get(end.index()).map_or_else(|| end.name().into(), Arc::clone)
    }
}

/// A connection has its server.
pub(crate) fn started(events: &Events, words: &Words, session: &Session) {
    let server = &session.to.slot.server;
    events.emit(Event::GatewayConnected {
        clientid: Arc::clone(&session.who.clientid),
        username: session.who.username.clone(),
        proto_ver: session.who.proto_ver,
        peer: session.who.peer,
        listener: Arc::clone(&session.listener().name),
        upstream: Arc::clone(&server.upstream),
        server: Arc::clone(&server.name),
        chosen_by: words.chosen_by(session.to.chosen_by),
    });
}

/// A connection with a server ended.
pub(crate) fn ended(events: &Events, words: &Words, log: &Log, session: &Session, end: End, now: Instant) {
    let server = &session.to.slot.server;
    let duration = now.saturating_duration_since(session.since);
    let duration_ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    match &**log.sink.load() {
        Sink::Events => trace(session, end, duration_ms),
        Sink::Off => {}
        Sink::File(file) => file.write(Line {
            at: log.clock.unix_millis(),
            listener: Arc::clone(&session.listener().name),
            peer: session.who.peer,
            reason: end.name(),
            session: Some(Ended {
                id: session.id,
                who: session.who.clone(),
                upstream: Arc::clone(&server.upstream),
                server: Arc::clone(&server.name),
                server_address: session.to.server_address,
                chosen_by: session.to.chosen_by.name(),
                without_key: session.to.no_key.map(NoKey::name),
                bytes_in: session.bytes_in.get(),
                bytes_out: session.bytes_out.get(),
                duration_ms,
            }),
        }),
    }
    events.emit(Event::GatewayDisconnected {
        clientid: Arc::clone(&session.who.clientid),
        peer: session.who.peer,
        upstream: Arc::clone(&server.upstream),
        server: Arc::clone(&server.name),
        bytes_in: session.bytes_in.get(),
        bytes_out: session.bytes_out.get(),
        duration_ms,
        reason: words.end(end),
    });
}

/// The line in the log of the process.
fn trace(session: &Session, end: End, duration_ms: u64) {
    let server = &session.to.slot.server;
    tracing::info!(
        target: "gateway::session",
        id = %session.id,
        clientid = &*session.who.clientid,
        username = session.who.username.as_deref(),
        proto_ver = session.who.proto_ver,
        peer = %session.who.peer,
        via = session.who.via.as_ref().map(tracing::field::display),
        listener = %session.listener().name,
        upstream = %server.upstream,
        server = %server.name,
        server_address = %session.to.server_address,
        chosen_by = session.to.chosen_by.name(),
        without_key = session.to.no_key.map(NoKey::name),
        bytes_in = session.bytes_in.get(),
        bytes_out = session.bytes_out.get(),
        duration_ms,
        reason = end.name(),
        "session"
    );
}

/// A connection got no server: a line in the file, if there is one.
pub(crate) fn note_refused(log: &Log, listener: &Listener, peer: SocketAddr, refusal: &Refusal) {
    if let Sink::File(file) = &**log.sink.load() {
        file.write(Line {
            at: log.clock.unix_millis(),
            listener: Arc::clone(&listener.name),
            peer,
            reason: refusal.name(),
            session: None,
        });
    }
}

/// A connection got no server: the events. A broken CONNECT is a protocol violation with its clause, too.
pub(crate) fn refused(
    events: &Events,
    listener: &Listener,
    peer: SocketAddr,
    client_id: Option<&Arc<str>>,
    refusal: &Refusal,
) {
    if let Refusal::Malformed(error, _) = refusal {
        events.emit(Event::ProtocolViolation {
            clientid: None,
            peer,
            reason: error.reason.name().into(),
            clause: Some(error.clause.into()),
            detail: error.detail.into(),
        });
    }
    events.emit(Event::GatewayRefused {
        clientid: client_id.map(Arc::clone),
        peer,
        listener: Arc::clone(&listener.name),
        reason: refusal.name().into(),
    });
}
