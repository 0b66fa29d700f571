//! A vehicle at work: the client's machine with a socket, and a network that is taken away from it.
//!
//! The `client` crate's driver keeps a connection as well as it can. Here connections end as the scenario says, silence
//! included, so the machine has a driver of its own.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use client::machine::{Completion, Event, Machine};
use client::{Disconnected, Goodbye, Message, Options, Received, SubscribeRequest, Subscription, Will};
use net::dialer::Dialer;
use runtime::clock::Clock;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{sleep_until, timeout};

use super::drive::Drive;
use super::fate::{Fates, Loss, Sources, Trip};
use super::scenario::Group;
use super::tally::Fleet;
use super::template::{Template, Values};
use crate::bench::sequence::Sequence;

/// SYN to CONNACK.
const PATIENCE: Duration = Duration::from_secs(10);

/// Pause after an attempt that failed.
const AFTER_FAILURE: Duration = Duration::from_millis(500);

/// How long a good-bye may take.
const GOODBYE: Duration = Duration::from_secs(2);

/// Answers that wait for room; beyond, the newest is dropped.
const ANSWERS: usize = 1_000;

/// Where the simulation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Phase {
    /// As the scenario says.
    Run,
    /// The network is good, nothing new is said, and what is under way arrives.
    Gather,
    /// All say good-bye.
    Stop,
}

/// What a completion was about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token {
    Telemetry,
    Answer,
    Subscription,
}

/// A telemetry of the vehicle.
struct Beat {
    next: Instant,
    sent: u64,
}

/// See the module.
pub(super) struct Vehicle {
    fleet: Arc<Fleet>,
    /// From 1.
    number: u32,
    id: String,
    server: SocketAddr,
    clock: Clock,
    phase: watch::Receiver<Phase>,
    sets_out: Instant,
    machine: Machine<Token>,
    drive: Drive,
    driven: Instant,
    random: fastrand::Rng,
    fates: Fates,
    beats: Vec<Beat>,
    commands: Sequence,
    answers: VecDeque<Message>,
    /// A connection that the network swallowed: open, and nobody reads it.
    ghost: Option<TcpStream>,
    /// When it began to come back.
    returning: Option<Instant>,
}

/// Where the fleet is and what it shares.
#[derive(Clone, Debug)]
pub(super) struct World {
    pub(super) server: SocketAddr,
    pub(super) clock: Clock,
    pub(super) seed: u64,
    pub(super) sources: Sources,
    pub(super) begin: Instant,
}

/// How a connection ended.
enum End {
    /// The scenario took it away.
    Taken,
    /// By itself.
    Ended,
    /// All is over.
    Stop,
}

impl Vehicle {
    /// The vehicle of that number (from 1) of a group.
    pub(super) fn new(fleet: &Arc<Fleet>, number: u32, world: &World, phase: watch::Receiver<Phase>) -> Self {
        let group = &fleet.group;
        // Each vehicle has its own chance, and its fate does not depend on how often it drew a payload.
        let mut seeds = fastrand::Rng::with_seed(world.seed ^ fnv(&group.name).wrapping_add(number.into()));
        let mut random = seeds.fork();
        let fates = Fates::new(group.network.clone(), world.sources.clone(), seeds.u64(..));
        let drive = Drive::new(group.roads.clone(), &mut random);
        let sets_out = world.begin + Duration::from_secs_f64(f64::from(number - 1) / group.connect_rate);
        let mut first = |interval: Duration| sets_out + interval.mul_f64(random.f64());
        let beats = group.telemetry.iter().map(|telemetry| Beat { next: first(telemetry.interval), sent: 0 });
        let beats = beats.collect();
        let id = client_id(group, number);
        let options = options(group, number, &id, world);
        Self {
            fleet: Arc::clone(fleet),
            number,
            id,
            server: world.server,
            clock: world.clock.clone(),
            phase,
            sets_out,
            machine: Machine::new(options),
            drive,
            driven: sets_out,
            random,
            fates,
            beats,
            commands: Sequence::default(),
            answers: VecDeque::new(),
            ghost: None,
            returning: None,
        }
    }

    /// Lives until the simulation stops.
    pub(super) async fn run(mut self) {
        let sets_out = self.sets_out;
        self.pause(sets_out).await;
        while self.phase() < Phase::Stop {
            let trip = self.fates.next();
            let began = self.clock.now();
            self.returning.get_or_insert(began);
            let end = match self.connect(&trip).await {
                Ok(stream) => self.serve(stream, &trip).await,
                Err(error) => {
                    let reason = crate::bench::dial::reason(&error);
                    self.fleet.count(|tally| *tally.failures.entry(reason).or_default() += 1);
                    End::Ended
                }
            };
            let wait = match end {
                End::Stop => break,
                End::Taken => trip.outage,
                End::Ended => AFTER_FAILURE,
            };
            let until = self.clock.now() + wait;
            self.pause(until).await;
        }
        self.forget().await;
    }

    fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    /// Waits, but not longer than the phase lasts.
    async fn pause(&mut self, until: Instant) {
        if self.phase() > Phase::Run {
            // Whoever could not connect does not try in a hurry.
            let soon = self.clock.now() + AFTER_FAILURE;
            sleep_until(until.min(soon).into()).await;
            return;
        }
        tokio::select! {
            () = sleep_until(until.into()) => {}
            // An error: nobody steers any more, and the phase is the last one.
            _ = self.phase.changed() => {}
        }
    }

    async fn connect(&self, trip: &Trip) -> io::Result<TcpStream> {
        Dialer::new(trip.source.into_iter().collect(), PATIENCE).connect(self.server).await
    }

    /// One connection from CONNECT to its end.
    async fn serve(&mut self, stream: TcpStream, trip: &Trip) -> End {
        let now = self.clock.now();
        self.machine.start(now, now + PATIENCE);
        let connections = self.machine.connections();
        let mut taken_at = None;
        let mut buffer = vec![0; 4 * 1024];
        let mut saying_goodbye = false;
        let end = loop {
            let now = self.clock.now();
            let phase = self.phase();
            if taken_at.is_none() && self.machine.is_connected() {
                taken_at = trip.lasts.map(|lasts| now + lasts);
            }
            if phase == Phase::Stop && !saying_goodbye {
                saying_goodbye = true;
                self.say_goodbye();
            }
            self.events(now);
            if phase == Phase::Run {
                self.tell(now);
            }
            self.answer();
            if self.machine.wants_close() {
                // Whether it gets there or not, the connection is over.
                let _ = timeout(GOODBYE, flush(&stream, self.machine.output())).await;
                break if saying_goodbye { End::Stop } else { End::Ended };
            }
            if !self.machine.is_open() {
                break End::Ended;
            }
            let taken = taken_at.filter(|_| phase == Phase::Run);
            if taken.is_some_and(|at| now >= at) {
                self.take_away(stream, trip.loss).await;
                break End::Taken;
            }
            self.wait(&stream, &mut buffer, taken, phase).await;
        };
        let was_connected = self.machine.connections() > connections;
        let why = self.machine.take_end();
        self.machine.lost(None);
        if was_connected {
            self.fleet.count(|tally| tally.connected -= 1);
        }
        if let (End::Ended, Some(why)) = (&end, why) {
            let reason = end_reason(&why);
            self.fleet.count(|tally| {
                let reasons = if was_connected { &mut tally.ended } else { &mut tally.failures };
                *reasons.entry(reason).or_default() += 1;
            });
        }
        end
    }

    /// Waits for the socket, the clock or the phase, and moves bytes.
    async fn wait(&mut self, stream: &TcpStream, buffer: &mut [u8], taken: Option<Instant>, phase: Phase) {
        let beat = self.beats.iter().map(|beat| beat.next).min();
        let beat = beat.filter(|_| phase == Phase::Run && self.machine.is_connected());
        let deadline = [self.machine.deadline(), beat, taken].into_iter().flatten().min();
        let output = self.machine.output();
        let mut written = None;
        tokio::select! {
            // An error: nobody steers any more, and the phase is the last one.
            _ = self.phase.changed(), if phase < Phase::Stop => {}
            ready = stream.readable() => {
                let read = ready.and_then(|()| stream.try_read(buffer));
                let now = self.clock.now();
                match read {
                    Ok(0) => self.machine.lost(None),
                    Ok(count) => self.machine.receive(buffer.get(..count).unwrap_or_default(), now),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(error) => self.machine.lost(Some(error)),
                }
            }
            ready = stream.writable(), if !output.is_empty() => {
                written = Some(ready.and_then(|()| stream.try_write(output)));
            }
            () = until(deadline) => {
                let now = self.clock.now();
                self.machine.tick(now);
            }
        }
        match written {
            Some(Ok(count)) => {
                let now = self.clock.now();
                self.machine.written(count, now);
            }
            Some(Err(error)) if error.kind() != io::ErrorKind::WouldBlock => self.machine.lost(Some(error)),
            _ => {}
        }
    }

    /// The scenario ends a connection.
    async fn take_away(&mut self, stream: TcpStream, loss: Loss) {
        self.fleet.count(|tally| tally.lost(loss));
        match loss {
            Loss::Silent => {
                self.machine.abandon();
                self.ghost = Some(stream);
            }
            Loss::Reset => {
                self.machine.abandon();
                // Without the option it is an end of the stream instead, which is a loss as well.
                let _ = stream.set_zero_linger();
            }
            Loss::Disconnect => {
                self.machine.disconnect(Goodbye::default());
                let _ = timeout(GOODBYE, flush(&stream, self.machine.output())).await;
            }
        }
        // The end is ours: there is nothing to count.
        self.machine.take_end();
    }

    /// DISCONNECT for good: the broker may forget the session.
    fn say_goodbye(&mut self) {
        let forget = (self.fleet.group.version.is_v5() && self.fleet.group.is_persistent()).then_some(0);
        self.machine.disconnect(Goodbye { session_expiry_interval: forget, ..Goodbye::default() });
    }

    /// Before version 5 a session is forgotten by a clean one only.
    async fn forget(&mut self) {
        let group = &self.fleet.group;
        if group.version.is_v5() || !group.is_persistent() || self.machine.connections() == 0 {
            return;
        }
        let mut options = self.machine.options().clone();
        options.clean_start = true;
        options.will = None;
        options.connect_timeout = GOODBYE;
        options.close_timeout = GOODBYE;
        if let Ok((client, _events)) = client::Client::connect(options).await {
            client.disconnect(Goodbye::default()).await;
        }
    }

    /// Takes what the machine has to tell.
    fn events(&mut self, now: Instant) {
        while let Some(event) = self.machine.poll_event() {
            match event {
                Event::Connected(connected) => {
                    let again = connected.connection > 1 && self.fleet.group.is_persistent();
                    let present = connected.session_present;
                    let took = self.returning.take().map(|since| now.saturating_duration_since(since));
                    self.fleet.count(|tally| {
                        tally.connected += 1;
                        tally.connections += 1;
                        tally.sessions_asked += u64::from(again);
                        tally.sessions_present += u64::from(again && present);
                        if let (Some(took), true) = (took, connected.connection > 1) {
                            tally.reconnect.add(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
                        }
                    });
                    if !present {
                        self.subscribe();
                    }
                }
                Event::Message(received) => self.command(&received),
            }
        }
        while let Some(completion) = self.machine.poll_completion() {
            match completion {
                Completion::Published(Token::Telemetry, Ok(reason)) => self.fleet.count(|tally| {
                    tally.telemetry_acknowledged += 1;
                    tally.telemetry_refused += u64::from(reason.is_error());
                }),
                Completion::Published(Token::Telemetry, Err(_)) => {
                    self.fleet.count(|tally| tally.telemetry_refused += 1);
                }
                Completion::Subscribed(_, Ok(granted))
                    if granted.reasons.iter().all(|reason| !reason.is_error()) =>
                {
                    self.fleet.listens(self.number - 1);
                }
                _ => {}
            }
        }
    }

    fn subscribe(&mut self) {
        let Some(commands) = &self.fleet.group.commands else { return };
        let (topic, qos) = (commands.topic.clone(), commands.qos);
        let topic = self.fill(&topic, 0);
        let request =
            SubscribeRequest { subscriptions: vec![Subscription::new(topic, qos)], ..Default::default() };
        if self.machine.can_request() {
            self.machine.subscribe(request, Token::Subscription);
        }
    }

    /// A command came: it is noted and will be answered.
    fn command(&mut self, received: &Received) {
        let Some(commands) = &self.fleet.group.commands else { return };
        let Ok(order) = serde_json::from_slice::<serde_json::Value>(&received.message.payload) else {
            return;
        };
        if order["run"] != self.fleet.run {
            return;
        }
        let Some(id) = order["id"].as_u64() else { return };
        let (answer, qos) = (commands.answer.clone(), commands.qos);
        let arrival = self.commands.arrived(id);
        self.fleet.count(|tally| tally.command(arrival));
        let properties = &received.message.properties;
        let topic = match &properties.response_topic {
            Some(topic) => topic.to_string(),
            None => self.fill(&answer, 0),
        };
        let (run, group) = (self.fleet.run, &self.fleet.group.name);
        let result = serde_json::json!({ "run": run, "group": group, "vehicle": self.number, "id": id, "result": "done" });
        let mut message = Message::new(topic, result.to_string()).qos(qos);
        message.properties.correlation_data = properties.correlation_data.clone();
        if self.answers.len() < ANSWERS {
            self.answers.push_back(message);
        }
    }

    /// Sends answers as far as there is room.
    fn answer(&mut self) {
        while let Some(message) = self.answers.front() {
            if !self.machine.can_publish(message.qos) {
                return;
            }
            if let Some(message) = self.answers.pop_front() {
                self.machine.publish(message, Token::Answer);
            }
        }
    }

    /// Publishes the telemetry that is due.
    fn tell(&mut self, now: Instant) {
        for index in 0..self.beats.len() {
            let Some(beat) = self.beats.get_mut(index).filter(|beat| beat.next <= now) else { continue };
            let fleet = Arc::clone(&self.fleet);
            let Some(telemetry) = fleet.group.telemetry.get(index) else { continue };
            // What fell due while the vehicle was away is not caught up: the place of then is of no more use.
            let mut skipped = 0;
            while beat.next <= now {
                let jitter = telemetry.jitter.mul_f64(self.random.f64() * 2.0);
                let pause = (telemetry.interval + jitter).saturating_sub(telemetry.jitter);
                beat.next += pause.max(Duration::from_millis(1));
                skipped += 1;
            }
            skipped -= 1;
            beat.sent += 1;
            let sequence = beat.sent;
            let publication = &telemetry.publication;
            let can = self.machine.can_publish(publication.qos);
            fleet.count(|tally| {
                tally.telemetry_skipped += skipped + u64::from(!can);
                tally.telemetry_sent += u64::from(can);
            });
            if !can {
                continue;
            }
            self.drive.pass(now.saturating_duration_since(self.driven), &mut self.random);
            self.driven = now;
            let (topic, payload) =
                (self.fill(&publication.topic, sequence), self.fill(&publication.payload, sequence));
            let message = Message { retain: publication.retain, ..Message::new(topic, payload) };
            self.machine.publish(message.qos(publication.qos), Token::Telemetry);
        }
    }

    fn fill(&mut self, template: &Template, sequence: u64) -> String {
        let values = Values {
            number: self.number,
            client_id: &self.id,
            group: &self.fleet.group.name,
            sequence,
            unix_millis: self.clock.unix_millis(),
            latitude: self.drive.place.latitude,
            longitude: self.drive.place.longitude,
            heading: self.drive.heading,
            kmh: self.drive.kmh,
        };
        template.fill(&values, &mut self.random)
    }
}

/// What a text is before there is a vehicle.
fn fixed(template: &Template, group: &Group, number: u32, id: &str) -> String {
    let values = Values {
        number,
        client_id: id,
        group: &group.name,
        sequence: 0,
        unix_millis: 0,
        latitude: 0.0,
        longitude: 0.0,
        heading: 0.0,
        kmh: 0.0,
    };
    template.fill(&values, &mut fastrand::Rng::with_seed(0))
}

/// The client id of a vehicle, from 1.
pub(super) fn client_id(group: &Group, number: u32) -> String {
    fixed(&group.client_id, group, number, "")
}

/// A topic of a vehicle, from 1, that has no place for time or chance.
pub(super) fn topic(template: &Template, group: &Group, number: u32) -> String {
    fixed(template, group, number, &client_id(group, number))
}

fn options(group: &Group, number: u32, id: &str, world: &World) -> Options {
    let will = group.will.as_ref().map(|will| {
        let topic = fixed(&will.topic, group, number, id);
        let payload = fixed(&will.payload, group, number, id);
        let message = Message { retain: will.retain, ..Message::new(topic, payload) };
        Will { message: message.qos(will.qos), delay_interval: None }
    });
    let expiry = u32::try_from(group.session_expiry.as_secs()).unwrap_or(u32::MAX);
    Options {
        version: group.version,
        clean_start: group.clean_start,
        session_expiry_interval: group.version.is_v5().then_some(expiry),
        will,
        username: group.username.as_ref().map(|name| fixed(name, group, number, id)),
        password: group.password.clone().map(Into::into),
        keep_alive: group.keep_alive,
        clock: world.clock.clone(),
        ..Options::new(world.server.to_string(), id)
    }
}

/// A stable name for why a connection ended.
fn end_reason(why: &Disconnected) -> String {
    match why {
        Disconnected::Unreachable(error) | Disconnected::Lost(Some(error)) => {
            crate::bench::dial::reason(error)
        }
        Disconnected::Lost(None) => "closed".to_owned(),
        Disconnected::ConnectTimeout => "timed_out".to_owned(),
        Disconnected::Refused { reason, .. } => format!("connack_{}", reason.name()),
        Disconnected::ByServer { reason, .. } => format!("disconnect_{}", reason.name()),
        Disconnected::PingTimeout => "no_pingresp".to_owned(),
        Disconnected::Protocol(error) => format!("protocol_{}", error.reason.name()),
        Disconnected::ByUs => "by_us".to_owned(),
        Disconnected::Options(_) => "options".to_owned(),
    }
}

/// FNV-1a: a name as a number that is the same in every run.
fn fnv(text: &str) -> u64 {
    text.bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

async fn flush(stream: &TcpStream, mut output: &[u8]) {
    while !output.is_empty() {
        if stream.writable().await.is_err() {
            return;
        }
        match stream.try_write(output) {
            Ok(count) => output = output.get(count..).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => return,
        }
    }
}

/// Never ready without a deadline.
async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}
