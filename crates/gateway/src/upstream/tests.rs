//! A fleet and its servers on simulated time: servers die and come back, devices come and go, and whatever happens the rules
//! hold. `TIDEGATE_SEED=<number>` runs that seed in place of the fixed ones.

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

use fastrand::Rng;
use runtime::clock::Clock;
use runtime::config::Document;

use super::*;
use crate::route::{Names, Request, Rule, Rules};

const RULES: Rules =
    Rules { empty_client_id: Rule::RoundRobin, no_username: Rule::RoundRobin, not_mqtt: Rule::Reject };
const DEVICES: u32 = 200;

fn upstream(text: &str, before: Option<&Upstream>) -> Upstream {
    let text = format!(
        "[gateway]\n[[gateway.listeners]]\nbind = \"127.0.0.1:1880\"\nupstream = \"b\"\n[[gateway.upstreams]]\nname = \"b\"\n{text}"
    );
    let document = Document::parse(Path::new("sim.toml"), &text).unwrap();
    let config = document.read(|root| root.table("gateway", crate::config::read)).unwrap().unwrap();
    Upstream::new(&config.upstreams[0], 2, before, &[])
}

fn plan(upstream: &Upstream, id: &str) -> Plan<'static> {
    let names = Names { client_id: id, username: None };
    let request = Request { source: IpAddr::V4(Ipv4Addr::LOCALHOST), connect: Some(names) };
    let plan = route::plan(upstream.config.balance, &RULES, &request).unwrap();
    let by = match plan.by {
        By::Name(_) => By::Source(id.to_owned()),
        By::Source(key) => By::Source(key),
        By::RoundRobin => By::RoundRobin,
        By::LeastConnections => By::LeastConnections,
        By::Random => By::Random,
        By::RandomTwo => By::RandomTwo,
    };
    Plan { by, pin_key: None, no_key: plan.no_key }
}

/// What became of a device.
#[derive(Debug, PartialEq, Eq)]
enum Fate {
    Served(usize, ChosenBy),
    Waits,
    Refused,
}

struct World {
    upstream: Upstream,
    random: Rng,
    now: Instant,
    alive: Vec<bool>,
    held: Vec<(usize, Slot)>,
    /// Until when each server is to be left alone, while there is another one.
    alone: Vec<Option<Instant>>,
    fails: Vec<u32>,
}

impl World {
    fn new(text: &str, seed: u64) -> Self {
        let (upstream, now) = (upstream(text, None), Clock::manual().0.now());
        upstream.enter(now);
        let count = upstream.servers.len();
        Self {
            upstream,
            random: Rng::with_seed(seed),
            now,
            alive: vec![true; count],
            held: Vec::new(),
            alone: vec![None; count],
            fails: vec![0; count],
        }
    }

    fn has_room(&self, index: usize) -> bool {
        let max = self.upstream.config.servers[index].max_conns;
        max == 0 || self.upstream.servers[index].open() < u64::from(max)
    }

    /// Whether a device is to be sent there, as its rank is concerned.
    fn is_well(&self, index: usize) -> bool {
        self.alone[index].is_none_or(|until| self.now > until)
    }

    fn connect(&mut self, id: &str) -> Fate {
        let plan = plan(&self.upstream, id);
        let configs = self.upstream.config.servers.clone();
        let mut tried = Vec::new();
        loop {
            let untried = |index: &usize| !tried.contains(index) && !configs[*index].down;
            let open: Vec<_> = (0..configs.len()).filter(untried).collect();
            let worker = WorkerId(self.random.u16(..2));
            let draws = [self.random.u64(..), self.random.u64(..)];
            let room: Vec<_> = open.iter().copied().filter(|index| self.has_room(*index)).collect();
            let well: Vec<_> = room.iter().copied().filter(|index| self.is_well(*index)).collect();
            match self.upstream.choose(&plan, &tried, draws, worker, self.now) {
                Chosen::Server { index, why, slot } => {
                    assert!(room.contains(&index), "{index} of {room:?}");
                    let max = configs[index].max_conns;
                    assert!(
                        max == 0 || self.upstream.servers[index].open() <= u64::from(max),
                        "above max_conns"
                    );
                    if self.is_well(index) {
                        let others = well.iter().any(|other| !configs[*other].backup);
                        assert!(!configs[index].backup || !others, "a backup while another can");
                    } else {
                        assert!(
                            well.is_empty() && room.len() == open.len(),
                            "{index} is to be left alone: {well:?}"
                        );
                        // All of them may be tried once more.
                        open.iter().for_each(|other| self.alone[*other] = None);
                    }
                    if self.reached(index) {
                        self.held.push((index, slot));
                        return Fate::Served(index, why);
                    }
                    tried.push(index);
                }
                Chosen::Full => {
                    assert!(well.is_empty() && room.len() < open.len());
                    return Fate::Waits;
                }
                Chosen::Nobody => {
                    assert!(open.is_empty(), "{open:?} were not tried");
                    return Fate::Refused;
                }
            }
        }
    }

    /// A try of a server, and what both the upstream and the oracle learn from it.
    fn reached(&mut self, index: usize) -> bool {
        let config = &self.upstream.config.servers[index];
        if self.alive[index] {
            // Known to be well, or tried after a pause or as a last resort: its failures are over.
            (self.alone[index], self.fails[index]) = (None, 0);
            self.upstream.succeeded(index, self.now);
            return true;
        }
        self.fails[index] += 1;
        if config.max_fails > 0 && self.fails[index] >= config.max_fails && self.upstream.servers.len() > 1 {
            self.alone[index] = Some(self.now + config.fail_timeout);
        }
        self.upstream.failed(index, WorkerId(0), "refused".into(), self.now);
        false
    }

    fn step(&mut self) {
        match self.random.u8(..100) {
            0..4 => {
                let index = self.random.usize(..self.alive.len());
                self.alive[index] = !self.alive[index];
            }
            4..30 => self.now += Duration::from_millis(self.random.u64(..4_000)),
            30..55 if !self.held.is_empty() => {
                let index = self.random.usize(..self.held.len());
                self.held.swap_remove(index);
            }
            _ => {
                let id = format!("v{}", self.random.u32(..DEVICES));
                self.connect(&id);
            }
        }
    }

    /// All servers are there again: after one round of devices everybody is where it belongs.
    fn settles(&mut self, text: &str) {
        self.alive.fill(true);
        self.held.clear();
        self.now += Duration::from_secs(3_600);
        for n in 0..DEVICES {
            let fate = self.connect(&format!("v{n}"));
            assert!(matches!(fate, Fate::Served(..)), "{n}: {fate:?}");
            self.held.clear();
        }
        let fresh = upstream(text, None);
        for n in 0..DEVICES {
            let id = format!("v{n}");
            let Fate::Served(index, why) = self.connect(&id) else { panic!("{id} is refused") };
            self.held.clear();
            let home = fresh.choose(&plan(&fresh, &id), &[], [0, 0], WorkerId(0), self.now);
            if self.upstream.config.balance.hashes() {
                assert!(
                    matches!(home, Chosen::Server { index: home, .. } if home == index),
                    "{id}: {index} {why:?}"
                );
                assert_eq!(why, ChosenBy::SourceIp);
            }
            assert_ne!(why, ChosenBy::Backup);
        }
        let well =
            self.upstream.servers.iter().all(|server| server.available(&self.upstream.limits[0], self.now));
        assert!(well || !self.upstream.config.balance.hashes());
    }
}

const SERVERS: &str = "servers = [
    { address = \"a:1\", weight = 3, fail_timeout = \"3s\" },
    { address = \"b:1\", weight = 2, fail_timeout = \"10s\", max_conns = 5 },
    { address = \"c:1\", fail_timeout = \"1s\" },
    { address = \"d:1\", max_conns = 3 },
    { address = \"e:1\", down = true },
    { address = \"f:1\", backup = true, max_conns = 4 },
    { address = \"g:1\", backup = true, fail_timeout = \"2s\" },
]";

fn seeds() -> Vec<u64> {
    match std::env::var("TIDEGATE_SEED").ok().and_then(|seed| seed.parse().ok()) {
        Some(seed) => vec![seed],
        None => (1..=40).chain([fastrand::u64(..)]).collect(),
    }
}

fn simulate(balance: &str) {
    let text = format!("balance = \"{balance}\"\n{SERVERS}");
    for seed in seeds() {
        println!("TIDEGATE_SEED={seed}");
        let mut world = World::new(&text, seed);
        for _ in 0..400 {
            world.step();
        }
        world.settles(&text);
    }
}

#[test]
fn sim_servers_that_die_and_come_back_move_their_own_devices_only() {
    simulate("client_id");
}

#[test]
fn sim_servers_that_die_and_come_back_under_the_methods_without_a_key() {
    for balance in ["round_robin", "least_connections", "random", "random_two"] {
        simulate(balance);
    }
}

#[test]
fn a_new_configuration_keeps_servers_and_begins_its_turns_anew() {
    let now = Clock::manual().0.now();
    let text = |more: &str| {
        format!(
            "balance = \"round_robin\"\n{more}servers = [{{ address = \"a:1\" }}, {{ address = \"b:1\" }}]"
        )
    };
    let old = upstream(&text(""), None);
    let take =
        |upstream: &Upstream| match upstream.choose(&plan(upstream, "x"), &[], [0, 0], WorkerId(0), now) {
            Chosen::Server { index, slot, .. } => (index, slot),
            Chosen::Full | Chosen::Nobody => panic!("two servers are there"),
        };
    let (first, _slot) = take(&old);
    let new = upstream(&text("tries = 1\n"), Some(&old));
    assert!(Arc::ptr_eq(&old.servers[0], &new.servers[0]) && Arc::ptr_eq(&old.queue, &new.queue));
    assert_eq!((first, take(&new).0, take(&new).0), (0, 0, 1));
}
