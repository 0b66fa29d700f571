//! One cycle: everybody comes, floods, dies and comes back; then nothing more is sent, and the accounts must be even.

use std::collections::HashMap;
use std::fmt;
use std::time::{Duration, Instant};

use fastrand::Rng;
use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, EventFlags};

use crate::client::{Act, Client, Ghost, Scene, Tally};
use crate::crew;
use crate::harness::wait::now;
use crate::link::{self, Came};
use crate::oracle::book::Losses;
use crate::oracle::letter::Paper;
use crate::oracle::wills::Wills;
use crate::subject::{self, Doors, Limits};

/// Tokens of epoll are a serial number times this plus the client's number.
pub(crate) const CLIENTS: u64 = 4096;
/// Between two looks at what time brings.
const TICK: Duration = Duration::from_millis(1);
/// Between two looks at the accounts.
const LOOK: Duration = Duration::from_millis(100);
/// How long everybody may take to come, to get everything, to leave.
const PATIENCE: Duration = Duration::from_secs(60);
/// Nothing is under way any more if nothing came for so long.
const QUIET: Duration = Duration::from_millis(1500);

/// What a cycle was.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) tally: Tally,
    pub(crate) clients: usize,
    pub(crate) sent: [u64; 3],
    pub(crate) delivered: [u64; 3],
    /// Deliveries that did not happen, each with an excuse.
    pub(crate) lost: Losses,
    pub(crate) wills: u64,
    /// Epochs in which durable readers were so far behind that nothing was sent to the log.
    pub(crate) throttled: Duration,
    /// How long everything took to arrive after the last message.
    pub(crate) drained: Duration,
    /// The share of the time of traffic in which each worker had something to do.
    pub(crate) busy: Vec<f64>,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { tally: t, clients, sent, delivered, lost, wills, throttled, drained, busy } = self;
        let busy: Vec<_> = busy.iter().map(|share| format!("{:.0} %", share * 100.0)).collect();
        writeln!(
            f,
            "  {clients} clients; QoS 0, 1, 2: sent {sent:?}, delivered {delivered:?}; workers busy {busy:?}"
        )?;
        writeln!(
            f,
            "  {} connections, {} resumed; {} resets, {} cut packets, {} ends, {} takeovers, {} good-byes, {} naps, {wills} wills",
            t.connects, t.resumed, t.resets, t.cuts, t.ends, t.takeovers, t.goodbyes, t.naps
        )?;
        write!(
            f,
            "  {} acknowledged, {} sent again; log full for {throttled:.1?}; everything there after {drained:.1?}; \
             missed without a session: {:?}, perhaps too old: {}, too large: {}",
            t.acknowledged, t.sent_again, lost.dropped, lost.old, lost.large
        )
    }
}

/// See the module.
pub(crate) struct World {
    clients: Vec<Client>,
    scene: Scene,
    ghosts: HashMap<u64, Ghost>,
    /// Bytes sent to the log until the end of each epoch.
    logged: Vec<u64>,
    ticked: Instant,
    heard: Instant,
    limits: Limits,
    throttled: Duration,
}

impl World {
    pub(crate) fn new(seed: u64, doors: Doors, limits: Limits) -> Self {
        let mut rng = Rng::with_seed(seed);
        let now = now();
        let crew::Crew { book, shelf, clients, absent } = crew::hire(&mut rng, now);
        let scene = Scene {
            book,
            wills: Wills::default(),
            shelf,
            paper: Paper::new(),
            rng,
            now,
            begun: now,
            epoch: 0,
            act: Act::Gathering,
            throttled: false,
            logged: 0,
            epoll: epoll::create(CreateFlags::CLOEXEC).expect("an epoll"),
            doors,
            serial: 0,
            chunk: link::chunk(),
            absent,
            max_inflight: limits.max_inflight,
            tally: Tally::default(),
        };
        let (ghosts, throttled) = (HashMap::new(), Duration::ZERO);
        Self { clients, scene, ghosts, logged: Vec::new(), ticked: now, heard: now, limits, throttled }
    }

    /// How many take part.
    pub(crate) fn clients(&self) -> usize {
        self.clients.len()
    }

    /// Runs the cycle; `check_retained` is called before everybody leaves, when all accounts are even.
    pub(crate) fn run(
        mut self,
        pid: u32,
        traffic: Duration,
        check_retained: impl FnOnce(&crate::oracle::retained::Shelf) -> Result<(), String>,
    ) -> Result<Outcome, String> {
        self.until("everybody is there", PATIENCE, |world| {
            let missing =
                |client: &&Client| (client.habits.durable || client.task.group.is_some()) && !client.is_up();
            world.clients.iter().find(missing).map(Client::state)
        })?;
        self.scene.act = Act::Traffic;
        let (begun, before) = (now(), subject::workers(pid));
        while self.scene.now < begun + traffic {
            self.turn()?;
        }
        let took = now().saturating_duration_since(begun).as_secs_f64();
        let after = subject::workers(pid);
        // on a core, or in the queue for one
        let worked = |(after, before): (&(Duration, Duration), &(Duration, Duration))| {
            (after.0 + after.1).saturating_sub(before.0 + before.1).as_secs_f64() / took
        };
        let busy = after.iter().zip(&before).map(worked).collect();
        self.scene.act = Act::Draining;
        let stopped = now();
        self.until("everything is acknowledged and has arrived", PATIENCE, Self::unsettled)?;
        let drained = self.heard.saturating_duration_since(stopped);
        check_retained(&self.scene.shelf)?;
        if let Some(why) = self.scene.book.too_many_empties().or_else(|| self.scene.book.unbalanced()) {
            return Err(why);
        }
        let lost = self.scene.book.losses(self.scene.epoch);
        self.scene.act = Act::Parting;
        self.until("everybody has left", PATIENCE, |world| {
            world.clients.iter().find(|client| !client.is_gone()).map(Client::state)
        })?;
        Ok(Outcome {
            clients: self.clients.len(),
            sent: self.scene.book.sent,
            delivered: self.scene.book.delivered,
            lost,
            wills: self.scene.wills.published(),
            tally: self.scene.tally,
            throttled: self.throttled,
            drained,
            busy,
        })
    }

    /// What is still under way, if anything.
    fn unsettled(&self) -> Option<String> {
        if let Some(client) =
            self.clients.iter().find(|client| !client.is_up() || client.unacknowledged() > 0)
        {
            return Some(client.state());
        }
        if let Some(what) =
            self.scene.book.incomplete(self.scene.epoch).or_else(|| self.scene.wills.missing())
        {
            return Some(what);
        }
        let quiet = self.scene.now.saturating_duration_since(self.heard) > QUIET;
        (!quiet || !self.ghosts.is_empty()).then(|| "packets still come".to_owned())
    }

    /// Goes on until `waits` has nothing to say.
    fn until(
        &mut self,
        what: &str,
        patience: Duration,
        waits: impl Fn(&Self) -> Option<String>,
    ) -> Result<(), String> {
        let deadline = now() + patience;
        let mut look = self.scene.now;
        loop {
            self.turn()?;
            if self.scene.now < look {
                continue;
            }
            look = self.scene.now + LOOK;
            match waits(self) {
                None => return Ok(()),
                Some(why) if self.scene.now > deadline => {
                    return Err(format!("not within {patience:?}: {what}: {why}"));
                }
                Some(_) => {}
            }
        }
    }

    /// Waits for sockets, reads and answers, publishes.
    fn turn(&mut self) -> Result<(), String> {
        let wait = Timespec { tv_sec: 0, tv_nsec: 1_000_000 };
        let mut events = Vec::with_capacity(256);
        if let Err(error) = epoll::wait(&self.scene.epoll, spare_capacity(&mut events), Some(&wait))
            && error != rustix::io::Errno::INTR
        {
            return Err(format!("epoll: {error}"));
        }
        self.see_time();
        for event in events {
            let (token, flags) = (event.data.u64(), event.flags);
            let number = usize::try_from(token % CLIENTS).unwrap_or(usize::MAX);
            match self.clients.get_mut(number).filter(|client| client.token() == Some(token)) {
                Some(client) => {
                    if flags.intersects(EventFlags::IN | EventFlags::HUP | EventFlags::ERR) {
                        self.heard = self.scene.now;
                        client.readable(&mut self.scene)?;
                    }
                    client.fill(&mut self.scene)?;
                    client.flush(&self.scene);
                }
                None => self.haunt(token)?,
            }
        }
        if self.scene.now >= self.ticked + TICK {
            self.ticked = self.scene.now;
            for client in &mut self.clients {
                if let Some(ghost) = client.tick(&mut self.scene)? {
                    self.ghosts.insert(ghost.link.token, ghost);
                }
            }
            if let Some(ghost) = self.ghosts.values().find(|ghost| self.scene.now > ghost.since + PATIENCE) {
                let number = ghost.link.token % CLIENTS;
                return Err(format!("a connection of client {number} that was taken over is still open"));
            }
        }
        Ok(())
    }

    /// What comes on a connection that was taken over is forgotten: its session goes on elsewhere.
    fn haunt(&mut self, token: u64) -> Result<(), String> {
        let Some(ghost) = self.ghosts.get_mut(&token) else { return Ok(()) };
        ghost.link.input.clear();
        if !matches!(ghost.link.read(&mut self.scene.chunk), Ok(Came::Bytes | Came::Nothing)) {
            self.ghosts.remove(&token);
        }
        Ok(())
    }

    fn see_time(&mut self) {
        let before = self.scene.now;
        self.scene.now = now();
        self.scene.epoch = self.scene.epoch_of(self.scene.now);
        self.logged.resize(self.scene.epoch as usize + 1, self.scene.logged);
        if self.scene.throttled {
            self.throttled += self.scene.now.saturating_duration_since(before);
        }
        if let Some(now) = self.logged.last_mut() {
            *now = self.scene.logged;
        }
        // what the last durable reader has not got yet lies in the log together with all that was logged since
        let oldest = self.scene.book.oldest_awaited();
        let behind = oldest.and_then(|epoch| self.logged.get((epoch as usize).saturating_sub(1)));
        let behind = behind.map_or(0, |logged| self.scene.logged - logged);
        self.scene.throttled = behind > self.limits.log_credit;
    }
}
