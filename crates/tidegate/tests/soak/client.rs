//! A client of the soak: its session, its connections, what it does by the seed and what it finds wrong.
//!
//! Every answer is held against what the specification promises: acknowledgements come in order and for what was sent, a session
//! is there exactly if it must be, no more comes at once than was asked for, and whatever arrives goes to the oracle.

mod connect;
mod publish;
mod receive;

use std::collections::{BTreeSet, VecDeque};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fastrand::Rng;
use mqtt::packet::{Disconnect, DisconnectProperties, Packet};
use mqtt::{PacketId, QoS, ReasonCode, Version};

use crate::link::Link;
use crate::oracle::book::{Book, SECOND, Wish};
use crate::oracle::letter::Paper;
use crate::oracle::retained::{Shelf, View};
use crate::oracle::wills::{Fate, Wills};
use crate::subject::Doors;

/// How long an answer may take that comes at once: the machine is busy, and the broker as well.
const PATIENCE: Duration = Duration::from_secs(30);
/// Bytes that wait for its socket, above which a client publishes no more.
const ENOUGH: usize = 128 * 1024;
/// Messages that a client publishes in one go.
const AT_ONCE: usize = 32;
/// Reads of one client in one go.
const READS: usize = 4;
/// How long a CONNECT may wait until the broker looks at it: where a worker without optimisation shares its core with floods and a
/// compiler, more than five seconds were seen.
const STRAYS: Duration = Duration::from_secs(20);
/// Packet identifiers from here on are for SUBSCRIBE.
const SUBSCRIBES: u16 = u16::MAX - 8;
/// How long an epoch is: the time of sending is known to this.
const EPOCH: Duration = Duration::from_millis(1000 / SECOND as u64);
/// Where wills are published.
const WILLS: &str = "w/";

/// What all clients share.
pub(crate) struct Scene {
    pub(crate) book: Book,
    pub(crate) wills: Wills,
    pub(crate) shelf: Shelf,
    pub(crate) paper: Paper,
    pub(crate) rng: Rng,
    pub(crate) now: Instant,
    pub(crate) begun: Instant,
    /// Number of the stretch of time that is now.
    pub(crate) epoch: u32,
    pub(crate) act: Act,
    /// Nothing may be published that is logged: a durable reader is as far behind as the log is long.
    pub(crate) throttled: bool,
    /// Bytes published that are logged.
    pub(crate) logged: u64,
    pub(crate) epoll: OwnedFd,
    pub(crate) doors: Doors,
    pub(crate) serial: u64,
    pub(crate) chunk: Vec<u8>,
    /// Members of each group that have not subscribed yet.
    pub(crate) absent: Vec<usize>,
    /// QoS 1 and 2 messages that the broker has on their way to one client at most.
    pub(crate) max_inflight: usize,
    pub(crate) tally: Tally,
}

/// What is going on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Act {
    /// Sessions that last begin; nobody publishes.
    Gathering,
    /// Everything.
    Traffic,
    /// Nobody publishes and nobody dies any more.
    Draining,
    /// Everybody leaves for good.
    Parting,
}

/// What happened.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally {
    pub(crate) connects: u64,
    pub(crate) resumed: u64,
    pub(crate) resets: u64,
    pub(crate) cuts: u64,
    pub(crate) ends: u64,
    pub(crate) goodbyes: u64,
    pub(crate) takeovers: u64,
    pub(crate) naps: u64,
    pub(crate) acknowledged: u64,
    pub(crate) sent_again: u64,
}

/// What a client is for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Task {
    /// Streams it publishes.
    pub(crate) streams: Vec<usize>,
    /// QoS 1 and 2 messages it has on their way at once.
    pub(crate) window: usize,
    /// Retained topics it writes.
    pub(crate) shelf: Vec<usize>,
    /// Its page of the oracle's book.
    pub(crate) reader: Option<usize>,
    pub(crate) wishes: Vec<Wish>,
    /// It publishes now and then, not as fast as it can.
    pub(crate) paced: bool,
    /// It is a member.
    pub(crate) group: Option<usize>,
    /// It looks at retained messages.
    pub(crate) looks: bool,
}

/// How a client behaves.
#[derive(Clone, Debug)]
pub(crate) struct Habits {
    pub(crate) version: Version,
    /// Its session outlives its connections.
    pub(crate) durable: bool,
    /// It decides at every CONNECT whether it goes on with its session, and whether that lasts.
    pub(crate) fickle: bool,
    /// Milliseconds it lives before a connection ends; none: it stays.
    pub(crate) life: Option<(u64, u64)>,
    /// Milliseconds it is away then.
    pub(crate) away: (u64, u64),
    /// Milliseconds between two times that it stops reading, and for how long.
    pub(crate) naps: Option<(u64, u64)>,
    /// Milliseconds that it keeps acknowledgements back.
    pub(crate) lazy: Option<u64>,
    /// Bytes of its kernel buffer for what comes.
    pub(crate) receive_buffer: Option<usize>,
    /// Receive Maximum, of version 5.
    pub(crate) receive_maximum: u16,
    /// Maximum Packet Size, of version 5.
    pub(crate) largest: Option<u32>,
    /// It comes over WebSocket.
    pub(crate) web: bool,
    /// Topic Alias Maximum, of version 5.
    pub(crate) alias_maximum: u16,
    /// It publishes with Topic Aliases.
    pub(crate) uses_aliases: bool,
    pub(crate) will: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Away {
        until: Option<Instant>,
    },
    Connecting,
    Subscribing,
    Up,
    /// DISCONNECT is on its way.
    Leaving,
    Gone,
}

/// Whether the broker has a session for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Known {
    No,
    Yes,
    Maybe,
}

/// What is in a message that is on its way.
#[derive(Clone, Copy, Debug)]
enum Parcel {
    Letter { stream: usize, seq: u64, epoch: u32 },
    Shelf { topic: usize, seq: u64, clears: bool },
}

struct Flight {
    id: u16,
    qos: QoS,
    parcel: Parcel,
    /// PUBREC has come.
    released: bool,
    /// Its place among all that the client sent.
    order: u64,
}

/// A connection that another one has replaced.
pub(crate) struct Ghost {
    pub(crate) link: Link,
    pub(crate) since: Instant,
}

/// See the module.
pub(crate) struct Client {
    pub(crate) number: usize,
    id: String,
    pub(crate) habits: Habits,
    pub(crate) task: Task,
    link: Option<Link>,
    phase: Phase,
    /// Since when it waits for an answer.
    asked: Instant,
    connection: u32,
    session: Known,
    /// The CONNECT on its way: goes on with its session, and keeps it.
    connecting: (bool, bool),
    /// Its CONNACK has come.
    accepted: bool,
    /// When it last gave up a connection before CONNACK: the broker may see that CONNECT after the next one.
    stray: Option<Instant>,
    flights: VecDeque<Flight>,
    orders: u64,
    /// QoS 0 since the last acknowledgement: nobody knows what of it arrived.
    unsure: VecDeque<(u64, usize, u64, u32)>,
    next_id: u16,
    quota: usize,
    alias_out: usize,
    told: BTreeSet<usize>,
    aliases: Vec<Option<Arc<str>>>,
    /// QoS 2 that came and is not released: of the session.
    unreleased: BTreeSet<u16>,
    /// QoS 1 and 2 that came and is not over: of the connection.
    open: BTreeSet<u16>,
    held: Vec<u8>,
    held_ids: Vec<u16>,
    views: Vec<View>,
    /// SUBACKs that it waits for.
    subacks: usize,
    joined: bool,
    dies: Option<Instant>,
    naps: Option<Instant>,
    wakes: Option<Instant>,
    lets_go: Option<Instant>,
    writes: Option<Instant>,
    /// The last things that happened to its connections.
    history: VecDeque<String>,
}

/// How many of them are kept.
const HISTORY: usize = 12;

fn packet_id(id: u16) -> PacketId {
    PacketId::new(id).expect("never 0")
}

fn within(rng: &mut Rng, (from, to): (u64, u64)) -> Duration {
    Duration::from_millis(rng.u64(from..=to))
}

impl Scene {
    /// The stretch of time in which a moment lies.
    pub(crate) fn epoch_of(&self, moment: Instant) -> u32 {
        let epochs = moment.saturating_duration_since(self.begun).as_nanos() / EPOCH.as_nanos();
        u32::try_from(epochs).unwrap_or(u32::MAX)
    }
}

impl Client {
    pub(crate) fn new(number: usize, kind: &str, habits: Habits, task: Task, now: Instant) -> Self {
        Self {
            number,
            id: format!("{kind}-{number}"),
            habits,
            task,
            link: None,
            phase: Phase::Away { until: None },
            asked: now,
            connection: 0,
            session: Known::No,
            connecting: (false, false),
            accepted: false,
            stray: None,
            flights: VecDeque::new(),
            orders: 0,
            unsure: VecDeque::new(),
            next_id: 0,
            quota: 0,
            alias_out: 0,
            told: BTreeSet::new(),
            aliases: Vec::new(),
            unreleased: BTreeSet::new(),
            open: BTreeSet::new(),
            held: Vec::new(),
            held_ids: Vec::new(),
            views: Vec::new(),
            subacks: 0,
            joined: false,
            dies: None,
            naps: None,
            wakes: None,
            lets_go: None,
            writes: None,
            history: VecDeque::new(),
        }
    }

    fn note(&mut self, what: String) {
        self.history.push_back(what);
        if self.history.len() > HISTORY {
            self.history.pop_front();
        }
    }

    /// Whether it is connected and has its subscriptions.
    pub(crate) fn is_up(&self) -> bool {
        self.phase == Phase::Up
    }

    pub(crate) fn is_gone(&self) -> bool {
        self.phase == Phase::Gone
    }

    fn number_of_reader(&self) -> usize {
        self.task.reader.unwrap_or_default()
    }

    /// Messages that the broker has not acknowledged.
    pub(crate) fn unacknowledged(&self) -> usize {
        self.flights.len()
    }

    pub(crate) fn token(&self) -> Option<u64> {
        self.link.as_ref().map(|link| link.token)
    }

    /// One sentence on what it is doing.
    pub(crate) fn state(&self) -> String {
        format!(
            "{} {:?}, {} unacknowledged, connection {}",
            self.id,
            self.phase,
            self.flights.len(),
            self.connection
        )
    }

    fn wrong(&self, why: &str) -> String {
        let history: Vec<_> = self.history.iter().map(String::as_str).collect();
        let Self { id, connection, habits, .. } = self;
        format!(
            "{id} (connection {connection}, MQTT {}): {why}\nbefore: {}",
            habits.version,
            history.join("; ")
        )
    }

    // ---- what time brings ----

    /// About once a millisecond. A connection that was taken over is given back.
    pub(crate) fn tick(&mut self, scene: &mut Scene) -> Result<Option<Ghost>, String> {
        let now = scene.now;
        let late = |since: Instant| now.saturating_duration_since(since) > PATIENCE;
        match self.phase {
            Phase::Gone => return Ok(None),
            Phase::Away { until } => {
                if scene.act == Act::Parting && self.session == Known::No {
                    self.phase = Phase::Gone;
                } else if until.is_none_or(|until| now >= until) && self.comes(scene.act) {
                    self.connect(scene)?;
                }
                return Ok(None);
            }
            Phase::Connecting | Phase::Subscribing | Phase::Leaving if late(self.asked) => {
                return Err(self.wrong(&format!("no answer within {PATIENCE:?} while {:?}", self.phase)));
            }
            Phase::Connecting | Phase::Subscribing | Phase::Leaving | Phase::Up => {}
        }
        self.rest_and_wake(scene);
        if self.lets_go.is_some_and(|at| now >= at) {
            self.let_go();
        }
        if scene.act == Act::Parting && matches!(self.phase, Phase::Up) {
            self.say_goodbye(scene);
        }
        let dies = scene.act == Act::Traffic && self.dies.is_some_and(|at| now >= at);
        let ghost = if dies && self.phase != Phase::Leaving { self.meet_fate(scene)? } else { None };
        self.fill(scene)?;
        self.flush(scene);
        Ok(ghost)
    }

    fn comes(&self, act: Act) -> bool {
        match act {
            Act::Gathering => self.habits.durable || self.task.group.is_some(),
            Act::Traffic | Act::Draining => true,
            Act::Parting => self.session != Known::No,
        }
    }

    fn rest_and_wake(&mut self, scene: &mut Scene) {
        let now = scene.now;
        let draining = !matches!(scene.act, Act::Traffic);
        let Some(link) = &mut self.link else { return };
        if link.resting && (draining || self.wakes.is_some_and(|at| now >= at)) {
            link.resting = false;
            self.wakes = None;
        }
        let Some((every, long)) = self.habits.naps else { return };
        if !draining && self.phase == Phase::Up && self.naps.is_some_and(|at| now >= at) {
            link.resting = true;
            scene.tally.naps += 1;
            self.wakes = Some(now + within(&mut scene.rng, (long / 4, long)));
            self.naps = Some(now + within(&mut scene.rng, (every / 2, every * 2)));
        }
    }

    /// Ends the connection in one of the ways in which connections end.
    fn meet_fate(&mut self, scene: &mut Scene) -> Result<Option<Ghost>, String> {
        let Some(mut link) = self.link.take() else { return Ok(None) };
        match scene.rng.u32(0..100) {
            0..30 => {
                scene.tally.resets += 1;
                link.reset();
            }
            30..45 => {
                // in the middle of a packet, or of a frame around it
                scene.tally.cuts += 1;
                link.cut(scene.rng.bool());
            }
            45..55 => {
                scene.tally.ends += 1;
                link.finish();
            }
            55..80 => {
                self.link = Some(link);
                self.say_goodbye(scene);
                return Ok(None);
            }
            _ => {
                scene.tally.takeovers += 1;
                link.resting = false;
                let _ = link.watch(&scene.epoll);
                self.lost(scene);
                let ghost = Ghost { link, since: scene.now };
                self.connect(scene)?;
                return Ok(Some(ghost));
            }
        }
        self.lost(scene);
        Ok(None)
    }

    fn say_goodbye(&mut self, scene: &mut Scene) {
        let Some(link) = &mut self.link else { return };
        scene.tally.goodbyes += 1;
        link.resting = false;
        link.put(&Packet::Disconnect(Disconnect {
            reason: ReasonCode::Success,
            properties: DisconnectProperties::default(),
        }));
        self.phase = Phase::Leaving;
        self.asked = scene.now;
        self.dies = None;
        if let Some(group) = self.task.group {
            // the broker hears it, and deals anew what was not acknowledged, before the end of the connection comes back
            scene.book.groups[group].departed(self.number_of_reader());
        }
        if self.habits.will {
            // before CONNACK nothing was said of the will, and an earlier CONNECT of its own may take its place
            let open = !self.accepted && self.strays(scene.now);
            let fate = if open { Fate::Unknown } else { Fate::Discarded };
            scene.wills.set((self.number, self.connection), fate);
        }
    }

    /// The connection is over, without good-bye.
    fn lost(&mut self, scene: &mut Scene) {
        if self.habits.will {
            let fate = if self.accepted { Fate::Due } else { Fate::Unknown };
            scene.wills.set((self.number, self.connection), fate);
        }
        self.over(scene, false);
    }

    /// The connection is over; `in_order`: what was sent before has been read.
    fn over(&mut self, scene: &mut Scene, in_order: bool) {
        self.link = None;
        let (connection, phase) = (self.connection, self.phase);
        self.note(format!("{connection} over while {phase:?}{}", if in_order { " in order" } else { "" }));
        if !self.accepted {
            let (goes_on, keeps) = self.connecting;
            let stays = self.session == Known::Yes && goes_on && keeps;
            self.session = if stays { Known::Yes } else { Known::Maybe };
            self.stray = Some(scene.now);
        } else if !self.connecting.1 {
            self.session = Known::No;
        }
        if self.habits.fickle && self.strays(scene.now) {
            self.session = Known::Maybe;
        }
        if let Some(group) = self.task.group {
            scene.book.groups[group].departed(self.number_of_reader());
        }
        for (_, stream, seq, epoch) in std::mem::take(&mut self.unsure) {
            if !in_order {
                scene.book.give_up(stream, seq, epoch);
            }
        }
        if !self.connecting.1 {
            self.forget_flights(scene);
            self.unreleased.clear();
        }
        self.open.clear();
        self.held.clear();
        self.held_ids.clear();
        (self.dies, self.naps, self.wakes, self.lets_go) = (None, None, None, None);
        let away = within(&mut scene.rng, self.habits.away);
        let until = (scene.act == Act::Traffic).then(|| scene.now + away);
        self.phase = Phase::Away { until };
    }

    /// A CONNECT of an earlier connection may still take its place.
    fn strays(&self, now: Instant) -> bool {
        self.stray.is_some_and(|since| now.saturating_duration_since(since) < STRAYS)
    }

    fn forget_flights(&mut self, scene: &mut Scene) {
        for flight in std::mem::take(&mut self.flights) {
            if let Parcel::Letter { stream, seq, epoch } = flight.parcel {
                scene.book.give_up(stream, seq, epoch);
            }
        }
    }
}
