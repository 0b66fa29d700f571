//! A client of the soak: its session, its connections, what it does by the seed and what it finds wrong.
//!
//! Every answer is held against what the specification promises: acknowledgements come in order and for what was sent, a session
//! is there exactly if it must be, no more comes at once than was asked for, and whatever arrives goes to the oracle.

use std::borrow::Cow;
use std::collections::{BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fastrand::Rng;
use mqtt::codec::Decoded;
use mqtt::codec::decode::{Role, decode};
use mqtt::codec::encode;
use mqtt::packet::{
    Ack, Connack, Connect, ConnectProperties, Disconnect, DisconnectProperties, Packet, Publish,
    PublishProperties, Suback, Subscribe, SubscribeFilter, SubscriptionOptions, Will,
};
use mqtt::{PacketId, QoS, ReasonCode, Version};

use crate::link::{Came, Link};
use crate::oracle::book::{Arrival, Book};
use crate::oracle::letter::{Lengths, Letter, Paper, length};
use crate::oracle::retained::{Shelf, View};
use crate::oracle::wills::{Fate, Wills};

/// How long an answer may take that comes at once: the machine is busy, and the broker as well.
const PATIENCE: Duration = Duration::from_secs(30);
/// Bytes that wait for its socket, above which a client publishes no more.
const ENOUGH: usize = 128 * 1024;
/// Messages that a client publishes in one go.
const AT_ONCE: usize = 32;
/// Reads of one client in one go.
const READS: usize = 4;
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
    /// Number of the stretch of time that is now.
    pub(crate) epoch: u32,
    pub(crate) act: Act,
    /// Nothing may be published that is logged: a durable reader is as far behind as the log is long.
    pub(crate) throttled: bool,
    /// Bytes published that are logged.
    pub(crate) logged: u64,
    pub(crate) epoll: OwnedFd,
    pub(crate) to: SocketAddr,
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
    pub(crate) filters: Vec<(String, QoS)>,
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
    /// Topic Alias Maximum, of version 5.
    pub(crate) alias_maximum: u16,
    /// It publishes with Topic Aliases.
    pub(crate) uses_aliases: bool,
    pub(crate) will: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Away { until: Option<Instant> },
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
        format!("{id} (connection {connection}, MQTT {}): {why}\nbefore: {}", habits.version, history.join("; "))
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
                // in the middle of a packet
                scene.tally.cuts += 1;
                link.put_bytes(&[0x30, 0xff, 0x01, 0x00, 0x03, b'c', b'u']);
                let _ = link.flush();
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
        if self.habits.will {
            scene.wills.set((self.number, self.connection), Fate::Discarded);
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
        } else if !self.connecting.1 {
            self.session = Known::No;
        }
        if let Some(group) = self.task.group {
            scene.book.groups[group].departed();
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

    fn forget_flights(&mut self, scene: &mut Scene) {
        for flight in std::mem::take(&mut self.flights) {
            if let Parcel::Letter { stream, seq, epoch } = flight.parcel {
                scene.book.give_up(stream, seq, epoch);
            }
        }
    }

    // ---- connecting ----

    fn connect(&mut self, scene: &mut Scene) -> Result<(), String> {
        let habits = &self.habits;
        scene.serial += 1;
        let token = scene.serial * super::world::CLIENTS + self.number as u64;
        let dialled =
            Link::dial(scene.to, habits.version, habits.receive_buffer, &scene.epoll, token);
        let mut link = dialled.map_err(|error| self.wrong(&format!("connecting: {error}")))?;
        self.connection += 1;
        let v5 = habits.version.is_v5();
        let (goes_on, keeps) = match (scene.act, habits.fickle) {
            (Act::Parting, _) => (false, false),
            (_, false) => (habits.durable, habits.durable),
            (_, true) => {
                let goes_on = scene.rng.bool();
                (goes_on, if v5 { scene.rng.bool() } else { goes_on })
            }
        };
        self.connecting = (goes_on, keeps);
        self.accepted = false;
        let (connection, session) = (self.connection, self.session);
        let mut properties = ConnectProperties::default();
        if v5 {
            properties.session_expiry_interval = keeps.then_some(3600);
            properties.receive_maximum = Some(habits.receive_maximum);
            properties.topic_alias_maximum = Some(habits.alias_maximum).filter(|&most| most > 0);
        }
        let will = habits.will.then(|| Will {
            topic: Cow::Owned(format!("{WILLS}{}", self.number)),
            payload: Cow::Owned(format!("{} {}", self.number, self.connection).into_bytes()),
            qos: QoS::AtLeastOnce,
            retain: false,
            delay_interval: None,
            properties: PublishProperties::default(),
        });
        if habits.will {
            scene.wills.set((self.number, self.connection), Fate::Unknown);
        }
        link.put(&Packet::Connect(Box::new(Connect {
            version: habits.version,
            bridge: false,
            clean_start: !goes_on,
            keep_alive: 600,
            client_id: Cow::Borrowed(&self.id),
            will,
            username: None,
            password: None,
            properties,
        })));
        self.link = Some(link);
        self.note(format!("{connection} CONNECT goes on {goes_on} keeps {keeps} session {session:?}"));
        self.phase = Phase::Connecting;
        self.asked = scene.now;
        self.dies = self.habits.life.map(|life| scene.now + within(&mut scene.rng, life));
        self.naps = self.habits.naps.map(|(every, _)| scene.now + within(&mut scene.rng, (0, every)));
        self.flush(scene);
        Ok(())
    }

    fn on_connack(&mut self, connack: &Connack<'_>, scene: &mut Scene) -> Result<(), String> {
        if self.phase != Phase::Connecting || connack.reason != ReasonCode::Success {
            return Err(self.wrong(&format!("{connack:?} while {:?}", self.phase)));
        }
        scene.tally.connects += 1;
        let (goes_on, keeps) = self.connecting;
        let expected = if goes_on { self.session } else { Known::No };
        let present = connack.session_present;
        let connection = self.connection;
        self.note(format!("{connection} CONNACK present {present}"));
        if (expected == Known::Yes && !present) || (expected == Known::No && present) {
            let why = format!("Session Present is {present}, the session {expected:?} [MQTT-3.2.2-2]");
            return Err(self.wrong(&why));
        }
        self.session = if keeps || present { Known::Yes } else { Known::No };
        self.accepted = true;
        if self.habits.will {
            scene.wills.set((self.number, self.connection), Fate::Alive);
        }
        self.quota = usize::from(connack.properties.receive_maximum.unwrap_or(u16::MAX));
        self.alias_out = usize::from(connack.properties.topic_alias_maximum.unwrap_or(0));
        self.told.clear();
        self.aliases = vec![None; usize::from(self.habits.alias_maximum) + 1];
        if present {
            scene.tally.resumed += 1;
            self.send_again(scene);
        } else {
            self.forget_flights(scene);
            self.unreleased.clear();
        }
        if let Some(reader) = self.task.reader {
            if present { scene.book.came_back(reader) } else { scene.book.session_ended(reader) }
        }
        // a subscription that is there already changes nothing, and loses nothing [MQTT-3.8.4-3]
        let subscribes = !present || scene.rng.u32(0..10) == 0;
        if self.task.filters.is_empty() || !subscribes || scene.act == Act::Parting {
            self.phase = Phase::Up;
        } else {
            self.subscribe(scene);
        }
        Ok(())
    }

    fn send_again(&mut self, scene: &mut Scene) {
        let Some(link) = &mut self.link else { return };
        for flight in &self.flights {
            if flight.released {
                encode::pubrel(link.version, packet_id(flight.id), ReasonCode::Success, link.out());
            } else {
                scene.tally.sent_again += 1;
                if let Parcel::Letter { stream, seq, .. } = flight.parcel {
                    scene.book.send_again(stream, seq);
                }
                write(link, flight, true, None, scene);
            }
        }
    }

    fn subscribe(&mut self, scene: &mut Scene) {
        let Some(link) = &mut self.link else { return };
        let filters = self.task.filters.iter().map(|(filter, qos)| SubscribeFilter {
            filter: Cow::Borrowed(filter),
            options: SubscriptionOptions { qos: *qos, ..SubscriptionOptions::default() },
        });
        link.put(&Packet::Subscribe(Subscribe {
            packet_id: packet_id(u16::MAX),
            subscription_identifier: None,
            user_properties: Vec::new(),
            filters: filters.collect(),
        }));
        if self.task.looks {
            self.views = scene.shelf.view();
        }
        self.phase = Phase::Subscribing;
        self.asked = scene.now;
    }

    fn on_suback(&mut self, suback: &Suback<'_>, scene: &mut Scene) -> Result<(), String> {
        let granted = self.task.filters.iter().map(|(_, qos)| ReasonCode::from_u8(*qos as u8));
        let right = granted.eq(suback.reasons.iter().map(|reason| Some(*reason)));
        if self.phase != Phase::Subscribing || !right {
            return Err(self.wrong(&format!("{suback:?} while {:?}", self.phase)));
        }
        self.phase = Phase::Up;
        if let Some(group) = self.task.group {
            if !std::mem::replace(&mut self.joined, true) {
                scene.absent[group] -= 1;
                if scene.absent[group] == 0 {
                    scene.book.group_subscribed(group);
                }
            }
        } else if let Some(reader) = self.task.reader {
            scene.book.subscribed(reader);
        }
        Ok(())
    }

    // ---- publishing ----

    /// Publishes as much as there is room for.
    pub(crate) fn fill(&mut self, scene: &mut Scene) -> Result<(), String> {
        if scene.act != Act::Traffic || self.phase != Phase::Up {
            return Ok(());
        }
        let window = self.task.window.min(self.quota);
        for _ in 0..AT_ONCE {
            let Some(link) = &self.link else { break };
            if link.waiting() > ENOUGH || self.flights.len() >= window {
                break;
            }
            if let Some(&topic) = scene.rng.choice(&self.task.shelf) {
                if self.writes.is_some_and(|at| scene.now < at) {
                    break;
                }
                self.writes = Some(scene.now + within(&mut scene.rng, (1, 20)));
                let clears = scene.rng.u32(0..10) == 0;
                let seq = scene.shelf.send(topic, clears);
                self.publish(QoS::AtLeastOnce, Parcel::Shelf { topic, seq, clears }, scene);
                break;
            }
            let Some(&stream) = scene.rng.choice(&self.task.streams) else { break };
            let s = &scene.book.streams[stream];
            if s.logged && scene.throttled {
                break;
            }
            let qos = s.qos;
            let seq = scene.book.send(stream, scene.epoch);
            self.publish(qos, Parcel::Letter { stream, seq, epoch: scene.epoch }, scene);
        }
        Ok(())
    }

    fn publish(&mut self, qos: QoS, parcel: Parcel, scene: &mut Scene) {
        self.orders += 1;
        let mut flight = Flight { id: 0, qos, parcel, released: false, order: self.orders };
        if qos > QoS::AtMostOnce {
            loop {
                // SUBSCRIBE has the last one for itself
                self.next_id = if self.next_id >= u16::MAX - 1 { 1 } else { self.next_id + 1 };
                if self.flights.iter().all(|flight| flight.id != self.next_id) {
                    break;
                }
            }
            flight.id = self.next_id;
        }
        let alias = self.alias_for(&parcel);
        let Some(link) = &mut self.link else { return };
        write(link, &flight, false, alias, scene);
        match parcel {
            Parcel::Letter { stream, seq, epoch } if qos == QoS::AtMostOnce => {
                self.unsure.push_back((flight.order, stream, seq, epoch));
            }
            _ => self.flights.push_back(flight),
        }
    }

    /// The Topic Alias of a stream of this client's, and whether the broker knows it.
    fn alias_for(&mut self, parcel: &Parcel) -> Option<(u16, bool)> {
        let Parcel::Letter { stream, .. } = parcel else { return None };
        if !self.habits.uses_aliases {
            return None;
        }
        let at = self.task.streams.iter().position(|other| other == stream).filter(|at| *at < self.alias_out)?;
        let known = !self.told.insert(at);
        Some((u16::try_from(at + 1).ok()?, known))
    }

    /// The first message that waits for this kind of acknowledgement; its place, if it has this packet id.
    fn acknowledged(&self, ack: &Ack<'_>, qos: QoS, released: bool) -> Result<usize, String> {
        let waits = |flight: &Flight| flight.qos == qos && flight.released == released;
        let first = self.flights.iter().position(waits);
        // it was released before, and PUBCOMP was lost with the connection (4.3.3)
        let known_before = released && ack.reason == ReasonCode::PacketIdentifierNotFound;
        match first.filter(|at| self.flights[*at].id == ack.packet_id.get()) {
            Some(_) if ack.reason.is_error() && !known_before => Err(self.wrong(&format!("refused: {ack:?}"))),
            Some(at) => Ok(at),
            None => {
                let expected = first.map(|at| self.flights[at].id);
                let why = format!("{ack:?} for {qos:?}, expected was {expected:?} [MQTT-4.6.0-2]");
                Err(self.wrong(&why))
            }
        }
    }

    fn finish(&mut self, at: usize, scene: &mut Scene) {
        let Some(flight) = self.flights.remove(at) else { return };
        scene.tally.acknowledged += 1;
        if let Parcel::Shelf { topic, seq, .. } = flight.parcel {
            scene.shelf.acknowledged(topic, seq);
        }
        self.is_sure(flight.order);
    }

    /// What was sent before this has been read by the broker.
    fn is_sure(&mut self, order: u64) {
        while self.unsure.front().is_some_and(|(other, ..)| *other < order) {
            self.unsure.pop_front();
        }
    }

    // ---- what comes ----

    /// The socket can be read. `false`: the connection is over.
    pub(crate) fn readable(&mut self, scene: &mut Scene) -> Result<bool, String> {
        for _ in 0..READS {
            let Some(link) = self.link.as_mut().filter(|link| !link.resting) else { return Ok(true) };
            let came = link.read(&mut scene.chunk);
            if matches!(came, Ok(Came::Bytes)) {
                self.take_packets(scene)?;
                continue;
            }
            let ended = match came {
                Ok(Came::Nothing) => return Ok(true),
                Ok(_) => "the broker closed the connection".to_owned(),
                Err(error) => error.to_string(),
            };
            if self.phase != Phase::Leaving {
                return Err(self.wrong(&format!("{ended} while {:?}", self.phase)));
            }
            self.over(scene, true);
            return Ok(false);
        }
        Ok(true)
    }

    fn take_packets(&mut self, scene: &mut Scene) -> Result<(), String> {
        let Some(link) = &mut self.link else { return Ok(()) };
        let (mut input, version) = (std::mem::take(&mut link.input), link.version);
        let mut used = 0;
        loop {
            match decode(&input[used..], version, Role::Server, u32::MAX) {
                Ok(Decoded::Packet(packet, length)) => {
                    used += length;
                    self.packet(packet, scene)?;
                }
                Ok(Decoded::Incomplete(_)) => break,
                Err(error) => return Err(self.wrong(&format!("the broker sent {error}"))),
            }
        }
        input.drain(..used);
        if let Some(link) = &mut self.link {
            link.input = input;
        }
        Ok(())
    }

    fn packet(&mut self, packet: Packet<'_>, scene: &mut Scene) -> Result<(), String> {
        if self.phase == Phase::Leaving {
            return Ok(());
        }
        match packet {
            Packet::Publish(publish) => self.on_publish(&publish, scene),
            Packet::Puback(ack) => {
                let at = self.acknowledged(&ack, QoS::AtLeastOnce, false)?;
                self.finish(at, scene);
                Ok(())
            }
            Packet::Pubrec(ack) => {
                let at = self.acknowledged(&ack, QoS::ExactlyOnce, false)?;
                self.flights[at].released = true;
                let order = self.flights[at].order;
                self.is_sure(order);
                if let Some(link) = &mut self.link {
                    encode::pubrel(link.version, ack.packet_id, ReasonCode::Success, link.out());
                }
                Ok(())
            }
            Packet::Pubcomp(ack) => {
                let at = self.acknowledged(&ack, QoS::ExactlyOnce, true)?;
                self.finish(at, scene);
                Ok(())
            }
            Packet::Pubrel(ack) => {
                self.unreleased.remove(&ack.packet_id.get());
                self.answer(ack.packet_id, encode::pubcomp, true, scene);
                Ok(())
            }
            Packet::Connack(connack) => self.on_connack(&connack, scene),
            Packet::Suback(suback) => self.on_suback(&suback, scene),
            other => Err(self.wrong(&format!("{other:?} while {:?}", self.phase))),
        }
    }

    fn on_publish(&mut self, publish: &Publish<'_>, scene: &mut Scene) -> Result<(), String> {
        let topic = self.topic_of(publish)?;
        if let Some(id) = publish.packet_id {
            self.open.insert(id.get());
            let v5 = self.habits.version.is_v5();
            let most = if v5 { usize::from(self.habits.receive_maximum) } else { usize::MAX };
            if self.open.len() > most.min(scene.max_inflight) {
                let why = format!("{} messages at once, {most} were asked for [MQTT-3.3.4-9]", self.open.len());
                return Err(self.wrong(&why));
            }
        }
        let known = publish.qos == QoS::ExactlyOnce
            && publish.packet_id.is_some_and(|id| !self.unreleased.insert(id.get()));
        if known && !publish.dup {
            return Err(self.wrong(&format!("{:?} again without DUP", publish.packet_id)));
        }
        if !known {
            let judged = self.judge(&topic, publish, scene);
            judged.map_err(|why| self.wrong(&why))?;
        }
        match (publish.qos, publish.packet_id) {
            (QoS::AtLeastOnce, Some(id)) => self.answer(id, encode::puback, true, scene),
            (QoS::ExactlyOnce, Some(id)) => self.answer(id, encode::pubrec, false, scene),
            _ => {}
        }
        Ok(())
    }

    fn topic_of(&mut self, publish: &Publish<'_>) -> Result<Arc<str>, String> {
        let Some(alias) = publish.properties.topic_alias else { return Ok(Arc::from(&*publish.topic)) };
        let Some(entry) = self.aliases.get_mut(usize::from(alias)).filter(|_| alias > 0) else {
            return Err(self.wrong(&format!("Topic Alias {alias} above what was asked for [MQTT-3.1.2-26]")));
        };
        if !publish.topic.is_empty() {
            *entry = Some(Arc::from(&*publish.topic));
        }
        entry.clone().ok_or_else(|| self.wrong(&format!("Topic Alias {alias} without a topic")))
    }

    fn judge(&mut self, topic: &str, publish: &Publish<'_>, scene: &mut Scene) -> Result<(), String> {
        if topic.starts_with(WILLS) {
            let text = std::str::from_utf8(&publish.payload).map_err(|error| error.to_string())?;
            let numbers = text.split_once(' ').and_then(|(a, b)| Some((a.parse().ok()?, b.parse().ok()?)));
            return scene.wills.received(numbers.ok_or_else(|| format!("a will with {text:?}"))?);
        }
        if let Some(topic) = topic.strip_prefix("r/") {
            if publish.payload.is_empty() {
                return Ok(());
            }
            let letter = scene.paper.read(&publish.payload)?;
            if topic != letter.stream.to_string() {
                return Err(format!("{letter:?} on r/{topic}"));
            }
            return Shelf::received(&mut self.views, usize::from(letter.stream), letter.seq, publish.retain);
        }
        let Some(reader) = self.task.reader else { return Err(format!("{topic} was not subscribed to")) };
        if publish.retain {
            return Err(format!("{topic} came as a retained message [MQTT-3.3.1-9]"));
        }
        if publish.payload.is_empty() {
            let stream = scene.book.empty_stream(topic).ok_or_else(|| format!("{topic} without a payload"))?;
            return scene.book.received_empty(reader, stream, publish.qos);
        }
        let letter = scene.paper.read(&publish.payload)?;
        let arrival = Arrival { qos: publish.qos, dup: publish.dup, group: self.task.group };
        let which = (usize::from(letter.stream), letter.seq, letter.epoch);
        let lengths = scene.book.streams.get(which.0).map(|s| s.lengths);
        if lengths.is_some_and(|l| length(l, letter.stream, letter.seq) != publish.payload.len()) {
            return Err(format!("{letter:?} came with {} bytes", publish.payload.len()));
        }
        scene.book.received(reader, which, topic, arrival)
    }

    /// Answers, now or, where the client is lazy, a little later; `closes`: the exchange is over then.
    fn answer(
        &mut self,
        id: PacketId,
        encode: fn(Version, PacketId, ReasonCode, &mut Vec<u8>),
        closes: bool,
        scene: &Scene,
    ) {
        let Some(link) = &mut self.link else { return };
        match self.habits.lazy.filter(|_| scene.act == Act::Traffic) {
            Some(delay) => {
                encode(link.version, id, ReasonCode::Success, &mut self.held);
                if closes {
                    self.held_ids.push(id.get());
                }
                let _ = self.lets_go.get_or_insert(scene.now + Duration::from_millis(delay));
            }
            None => {
                if !self.held.is_empty() {
                    self.let_go();
                }
                let Some(link) = &mut self.link else { return };
                encode(link.version, id, ReasonCode::Success, link.out());
                if closes {
                    self.open.remove(&id.get());
                }
            }
        }
    }

    fn let_go(&mut self) {
        self.lets_go = None;
        let Some(link) = &mut self.link else { return };
        link.put_bytes(&self.held);
        self.held.clear();
        for id in self.held_ids.drain(..) {
            self.open.remove(&id);
        }
    }

    /// Writes what waits, and says what is waited for.
    pub(crate) fn flush(&mut self, scene: &Scene) {
        let Some(link) = &mut self.link else { return };
        // a broken socket is found when it is read
        let _ = link.flush();
        let _ = link.watch(&scene.epoll);
    }
}

/// Encodes a message.
fn write(link: &mut Link, flight: &Flight, dup: bool, alias: Option<(u16, bool)>, scene: &mut Scene) {
    let (topic, retain, payload): (Cow<'_, str>, bool, Vec<u8>) = match flight.parcel {
        Parcel::Letter { stream, seq, epoch } => {
            let s = &scene.book.streams[stream];
            let number = u16::try_from(stream).expect("few streams");
            let payload = match s.lengths {
                Lengths::Empty => Vec::new(),
                lengths => {
                    let letter = Letter { stream: number, seq, epoch };
                    scene.paper.write(letter, length(lengths, number, seq))
                }
            };
            if s.logged && s.qos > QoS::AtMostOnce {
                scene.logged += (payload.len() + s.topic.len() + 64) as u64;
            }
            (Cow::Borrowed(&s.topic), false, payload)
        }
        Parcel::Shelf { topic, seq, clears } => {
            let number = u16::try_from(topic).expect("few topics");
            let letter = Letter { stream: number, seq, epoch: 0 };
            let payload = if clears { Vec::new() } else { scene.paper.write(letter, 100) };
            (Cow::Owned(Shelf::name(topic)), true, payload)
        }
    };
    let properties = PublishProperties { topic_alias: alias.map(|(alias, _)| alias), ..Default::default() };
    let topic = if alias.is_some_and(|(_, known)| known) { "" } else { &topic };
    let id = PacketId::new(flight.id);
    let version = link.version;
    encode::publish(version, flight.qos, dup, retain, id, topic, &properties, &payload, link.out())
        .expect("a message that can be sent");
}
