//! One thread of a run: its clients, its poll, its turns.
//!
//! A turn begins connections whose time has come, lets publishers send, writes to each socket once, and waits. There is no
//! task, no lock and no allocation for a message. `dial.rs` is the way from SYN to ready, `traffic.rs` what goes over it.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use mio::{Events, Poll, Token, Waker};
use mqtt::codec::Decoded;
use mqtt::codec::decode::{Role as Sender, decode};
use mqtt::codec::encode;
use mqtt::packet::{Disconnect, DisconnectProperties, Packet};
use mqtt::{QoS, ReasonCode};
use runtime::clock::Clock;

use super::outcome::{Heard, Outcome, Published};
use super::plan::Plan;
use super::schedule::Schedule;
use super::shared::{Phase, Shared};
use super::target::Target;
use super::timer::Timer;
use super::traffic::{Publisher, Subscriber};
use super::wire::{Input, Wire};

const WAKER: Token = Token(usize::MAX);
pub(super) const TIMER: Token = Token(usize::MAX - 1);

/// Bytes read at once, at least.
const READ: usize = 256 * 1024;

/// Reads of one socket in one turn: a flood on one starves no other.
const READS: usize = 4;

/// The longest wait: the phase is looked at that often even if nobody wakes us.
const LONGEST_WAIT: Duration = Duration::from_millis(50);

/// Pings and time-outs are looked at that often.
const HOUSEKEEPING: u64 = 100_000_000;

/// A packet may be so much larger than the payload: topic, properties.
const BESIDE_PAYLOAD: usize = 64 * 1024;

/// What a client is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// It only holds its connection.
    Idle,
    /// This number in the plan.
    Publisher(u32),
    /// This number in the plan.
    Subscriber(u32),
}

/// Messages of a run.
#[derive(Clone, Debug)]
pub(super) struct Traffic {
    pub(super) plan: Plan,
    pub(super) qos: QoS,
    pub(super) retain: bool,
    /// Bytes of each payload.
    pub(super) size: usize,
    /// Messages per second over all publishers; nothing: a closed loop.
    pub(super) rate: Option<f64>,
    /// Messages over all publishers.
    pub(super) count: Option<u64>,
    pub(super) warmup: Duration,
    pub(super) duration: Duration,
    pub(super) inflight: u16,
    pub(super) window: u64,
}

/// The work of one thread.
#[derive(Clone, Debug)]
pub(super) struct Job {
    pub(super) thread: usize,
    pub(super) threads: usize,
    pub(super) target: Arc<Target>,
    /// Our clients: the number in the run, and what each is for. Subscribers first.
    pub(super) clients: Vec<(u64, Role)>,
    pub(super) traffic: Option<Arc<Traffic>>,
    /// Connections per second over all threads; nothing: as fast as `at_once` lets.
    pub(super) connect_rate: Option<f64>,
    /// Connections of this thread that may be on their way at once.
    pub(super) at_once: usize,
}

/// How far a client is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// SYN is sent.
    Dialing,
    /// CONNECT is sent.
    Connecting,
    /// SUBSCRIBE is sent.
    Subscribing,
    Ready,
    /// It has failed or was lost.
    Over,
}

/// A client and its connection.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) wire: Option<Wire>,
    pub(super) stage: Stage,
    /// What it is for, with the place in our list of those.
    pub(super) role: Role,
    pub(super) place: usize,
    /// When it was to connect.
    pub(super) intended: u64,
    /// It has bytes to write and is on the list.
    dirty: bool,
    /// Keep alive as it holds for this connection, nanoseconds; 0: none.
    pub(super) keep_alive: u64,
    /// When we wrote last.
    pub(super) wrote: u64,
    /// A PINGREQ went out then and was not answered.
    pub(super) pinged: Option<u64>,
}

/// See the module.
pub(super) struct Generator {
    pub(super) job: Job,
    pub(super) shared: Arc<Shared>,
    clock: Clock,
    epoch: Instant,
    poll: Poll,
    timer: Timer,
    buffer: Vec<u8>,
    pub(super) links: Vec<Link>,
    dirty: Vec<usize>,
    readable: Vec<usize>,

    // dial.rs
    pub(super) dials: Option<Schedule>,
    pub(super) dials_due: usize,
    pub(super) under_way: usize,
    pub(super) waiting: VecDeque<(usize, u64)>,

    // traffic.rs
    pub(super) publishers: Vec<Publisher>,
    pub(super) subscribers: Vec<Subscriber>,
    pub(super) woken: Vec<usize>,
    pub(super) turns: Option<Schedule>,
    /// Publishers send from here to there, once known; the measured time is `measured`.
    pub(super) sending: Option<std::ops::Range<u64>>,
    pub(super) measured: std::ops::Range<u64>,
    /// Publishers that got copies in this turn, and how many since they were told.
    pub(super) fresh: Vec<u64>,
    pub(super) touched: Vec<u32>,

    pub(super) outcome: Outcome,
    pub(super) totals: Totals,
    housekept: u64,
    busy: u64,
}

/// Running totals, copied to the shared counters once a turn.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Totals {
    pub(super) ready: u64,
    pub(super) failed: u64,
    pub(super) lost: u64,
    pub(super) sent: u64,
    pub(super) received: u64,
    pub(super) distinct: u64,
    pub(super) unacknowledged: u64,
}

impl Link {
    pub(super) fn new(wire: Option<Wire>, stage: Stage, role: Role, place: usize, intended: u64) -> Self {
        Self { wire, stage, role, place, intended, dirty: false, keep_alive: 0, wrote: 0, pinged: None }
    }
}

impl Generator {
    /// # Errors
    /// No descriptors for a poll.
    pub(super) fn new(job: Job, shared: Arc<Shared>, clock: Clock, epoch: Instant) -> io::Result<Self> {
        let poll = Poll::new()?;
        shared.listen(job.thread, Waker::new(poll.registry(), WAKER)?);
        let size = job.traffic.as_ref().map_or(0, |traffic| traffic.size);
        let dials = job.connect_rate.map(|rate| {
            let (threads, thread) = (job.threads as u64, job.thread as u64);
            Schedule::new(rate, threads, vec![thread], 0, u64::MAX)
        });
        let mut generator = Self {
            timer: Timer::new(poll.registry())?,
            poll,
            buffer: vec![0; READ.max(2 * (size + BESIDE_PAYLOAD))],
            links: Vec::new(),
            dirty: Vec::new(),
            readable: Vec::new(),
            dials,
            dials_due: 0,
            under_way: 0,
            waiting: VecDeque::new(),
            publishers: Vec::new(),
            subscribers: Vec::new(),
            woken: Vec::new(),
            turns: None,
            sending: None,
            measured: 0..0,
            fresh: vec![0; shared.delivered.len()],
            touched: Vec::new(),
            outcome: Outcome::default(),
            totals: Totals::default(),
            housekept: 0,
            busy: 0,
            job,
            shared,
            clock,
            epoch,
        };
        generator.outcome.connections.asked = generator.job.clients.len() as u64;
        Ok(generator)
    }

    pub(super) fn poll_registry(&self) -> &mio::Registry {
        self.poll.registry()
    }

    /// Nanoseconds since the epoch.
    pub(super) fn now(&self) -> u64 {
        let since = self.clock.now().saturating_duration_since(self.epoch);
        u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
    }

    /// Works until the run is over.
    ///
    /// # Errors
    /// The poll fails, which no server can cause.
    pub(super) fn run(mut self) -> io::Result<Outcome> {
        let mut events = Events::with_capacity(1_024);
        let mut now = self.now();
        loop {
            let began = now;
            match self.shared.phase() {
                Phase::Stop => break,
                Phase::Run if self.sending.is_none() => self.begin(),
                Phase::Connect | Phase::Run => {}
            }
            self.dial(now);
            self.send_due(now);
            self.tell_publishers();
            self.flush();
            if now.saturating_sub(self.housekept) >= HOUSEKEEPING {
                self.housekeep(now);
            }
            self.show();
            let rested = self.now();
            let timeout = self.timeout(rested)?;
            match self.poll.poll(&mut events, timeout) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                outcome => outcome?,
            }
            now = self.now();
            if self.sending.as_ref().is_some_and(|sending| sending.start <= began) {
                self.busy += rested - began;
            }
            self.take(&events);
            self.read();
        }
        Ok(self.end())
    }

    /// How long to wait.
    fn timeout(&mut self, now: u64) -> io::Result<Option<Duration>> {
        if !self.readable.is_empty() || !self.woken.is_empty() || self.may_dial() {
            return Ok(Some(Duration::ZERO));
        }
        let sends = match &self.sending {
            Some(sending) if now < sending.end => self.turns.as_ref().and_then(Schedule::next),
            _ => None,
        };
        let dials = self.next_dial();
        let wait =
            [sends, dials].into_iter().flatten().min().map_or(LONGEST_WAIT, |next| {
                Duration::from_nanos(next.saturating_sub(now)).min(LONGEST_WAIT)
            });
        self.timer.wait(wait)
    }

    /// Notes which sockets can be read and written.
    fn take(&mut self, events: &Events) {
        for event in events {
            if event.token() == WAKER {
                self.look_again();
            }
            let Token(index) = event.token();
            let Some(link) = self.links.get_mut(index) else { continue };
            let Some(wire) = &mut link.wire else { continue };
            if event.is_writable() {
                wire.writable = true;
                if link.stage == Stage::Dialing {
                    self.opened(index);
                } else if wire.backlog() > 0 {
                    self.mark(index);
                }
            } else if event.is_error() && link.stage == Stage::Dialing {
                self.opened(index);
            }
            if event.is_readable() || event.is_read_closed() {
                self.readable.push(index);
            }
        }
    }

    /// Reads what is there; sockets with more than a turn's share come again in the next.
    fn read(&mut self) {
        let mut buffer = std::mem::take(&mut self.buffer);
        for index in std::mem::take(&mut self.readable) {
            for turn in 0..READS {
                let Some(wire) = self.links.get_mut(index).and_then(|link| link.wire.as_mut()) else { break };
                let (len, more) = match wire.read(&mut buffer) {
                    Ok(Input::More(len)) => (len, true),
                    Ok(Input::Last(len)) => (len, false),
                    Ok(Input::End) => {
                        self.over(index, "closed");
                        break;
                    }
                    Err(error) => {
                        self.over(index, &super::dial::reason(&error));
                        break;
                    }
                };
                let waiting =
                    self.links.get(index).and_then(|link| link.wire.as_ref()).map_or(0, Wire::backlog);
                if waiting > 0 {
                    // A WebSocket that has opened, or a ping to be answered.
                    self.mark(index);
                }
                if len > 0 {
                    let now = self.now();
                    self.packets(index, buffer.get(..len).unwrap_or_default(), now);
                }
                if !more {
                    // The end of the stream after a short read has an event of its own.
                    break;
                }
                if turn + 1 == READS {
                    self.readable.push(index);
                }
            }
        }
        self.buffer = buffer;
    }

    /// Takes whole packets off the front; the rest stays with the connection.
    fn packets(&mut self, index: usize, input: &[u8], now: u64) {
        let version = self.job.target.version;
        let largest = u32::try_from(self.buffer_size() / 2).unwrap_or(u32::MAX);
        let mut rest = input;
        while !rest.is_empty() {
            match decode(rest, version, Sender::Server, largest) {
                Ok(Decoded::Packet(packet, len)) => {
                    rest = rest.get(len..).unwrap_or_default();
                    self.packet(index, packet, now);
                }
                Ok(Decoded::Incomplete(_)) => break,
                Err(error) => {
                    let older = version.is_v5() && matches!(rest, [0x20, 0x02, 0x00, _, ..]);
                    let reason = if older {
                        // A broker that does not know version 5 answers as 3.1.1 does.
                        "connack_unsupported_protocol_version".to_owned()
                    } else {
                        format!("protocol_{}", error.reason.name())
                    };
                    return self.over(index, &reason);
                }
            }
        }
        if let Some(wire) = self.links.get_mut(index).and_then(|link| link.wire.as_mut()) {
            wire.keep(rest);
        }
    }

    fn buffer_size(&self) -> usize {
        let size = self.job.traffic.as_ref().map_or(0, |traffic| traffic.size);
        READ.max(2 * (size + BESIDE_PAYLOAD))
    }

    /// One packet of the server.
    fn packet(&mut self, index: usize, packet: Packet<'_>, now: u64) {
        let Some(link) = self.links.get_mut(index) else { return };
        match (link.stage, packet) {
            (Stage::Ready | Stage::Subscribing, Packet::Publish(publish)) => {
                self.arrived(index, &publish, now);
            }
            (Stage::Ready, Packet::Puback(ack)) => self.puback(index, &ack, now),
            (Stage::Ready, Packet::Pubrec(ack)) => self.pubrec(index, &ack, now),
            (Stage::Ready, Packet::Pubcomp(ack)) => self.pubcomp(index, &ack),
            (Stage::Ready | Stage::Subscribing, Packet::Pubrel(ack)) => self.pubrel(index, &ack),
            (_, Packet::Pingresp) => link.pinged = None,
            (Stage::Connecting, Packet::Connack(connack)) => self.connack(index, &connack, now),
            (Stage::Subscribing, Packet::Suback(suback)) => self.suback(index, &suback, now),
            (_, Packet::Disconnect(disconnect)) => {
                self.over(index, &format!("disconnect_{}", disconnect.reason.name()));
            }
            (Stage::Over, _) => {}
            (_, _) => self.over(index, "protocol_unexpected_packet"),
        }
    }

    /// The link has bytes to write.
    pub(super) fn mark(&mut self, index: usize) {
        if let Some(link) = self.links.get_mut(index)
            && !link.dirty
        {
            link.dirty = true;
            self.dirty.push(index);
        }
    }

    /// Writes to every socket that has something, once.
    fn flush(&mut self) {
        let now = self.now();
        let mut dirty = std::mem::take(&mut self.dirty);
        for index in dirty.drain(..) {
            let Some(link) = self.links.get_mut(index) else { continue };
            link.dirty = false;
            let Some(wire) = &mut link.wire else { continue };
            link.wrote = now;
            match wire.flush() {
                Ok(true) => self.has_room(index),
                Ok(false) => {}
                Err(error) => self.over(index, &super::dial::reason(&error)),
            }
        }
        // Those that became dirty by an error's consequences keep their places.
        dirty.append(&mut self.dirty);
        self.dirty = dirty;
    }

    /// Keep alive, time-outs, windows without arrivals.
    fn housekeep(&mut self, now: u64) {
        self.housekept = now;
        self.give_up_waiting(now);
        self.give_up_windows(now);
        for index in 0..self.links.len() {
            let Some(link) = self.links.get_mut(index) else { break };
            if link.keep_alive == 0 || link.stage != Stage::Ready {
                continue;
            }
            if link.pinged.is_some_and(|at| now.saturating_sub(at) > link.keep_alive) {
                self.over(index, "no_pingresp");
            } else if link.pinged.is_none() && now.saturating_sub(link.wrote) >= link.keep_alive / 4 * 3 {
                link.pinged = Some(now);
                if let Some(wire) = &mut link.wire {
                    encode::pingreq(&mut wire.out);
                }
                self.mark(index);
            }
        }
    }

    fn show(&self) {
        let Some(counters) = self.shared.counters.get(self.job.thread) else { return };
        let totals = &self.totals;
        for (counter, value) in [
            (&counters.ready, totals.ready),
            (&counters.failed, totals.failed),
            (&counters.lost, totals.lost),
            (&counters.sent, totals.sent),
            (&counters.received, totals.received),
            (&counters.distinct, totals.distinct),
            (&counters.unacknowledged, totals.unacknowledged),
        ] {
            counter.store(value, Ordering::Relaxed);
        }
        if self.has_finished() {
            counters.finished.store(true, Ordering::Release);
        }
    }

    /// Says good-bye on every connection, as far as the sockets take it at once, and closes.
    fn end(mut self) -> Outcome {
        let now = self.now();
        let mut goodbye = Vec::new();
        let packet = Packet::Disconnect(Disconnect {
            reason: ReasonCode::Success,
            properties: DisconnectProperties::default(),
        });
        // A DISCONNECT without properties can always be encoded.
        let _ = encode::encode(&packet, self.job.target.version, &mut goodbye);
        for link in &mut self.links {
            if let Some(wire) = link.wire.as_mut().filter(|_| link.stage == Stage::Ready) {
                wire.out.extend_from_slice(&goodbye);
                // Whoever does not get it sees the end of the connection.
                let _ = wire.flush();
            }
        }
        let mut outcome = self.outcome;
        let start = self.sending.map_or(now, |sending| sending.start);
        outcome.measured = self.measured;
        outcome.busy = self.busy as f64 / now.saturating_sub(start).max(1) as f64;
        for publisher in self.publishers {
            let published = Published {
                sent: publisher.flow.sent(),
                // Without a connection nothing could be sent at any rate: that is told as a failure of the connection.
                unsent: if self.turns.is_some() && !publisher.gone { publisher.flow.backlog() } else { 0 },
                unacknowledged: publisher.outbound.len() as u64,
                refused: publisher.refused,
            };
            outcome.messages.published.insert(publisher.number, published);
        }
        for subscriber in self.subscribers.into_iter().filter(|subscriber| subscriber.was_ready) {
            outcome.messages.heard.push(Heard { publishers: subscriber.publishers, got: subscriber.got });
        }
        outcome
    }
}
