//! `cargo xtask soak`: the program at saturation, with clients that are slow, lazy and dying, held against an exact oracle.
//!
//! Everything that the clients do comes from the printed seed; when it happens comes from the machine. A run is made of
//! cycles: floods beside polite clients, then a crowd of every kind at once, then silence, in which everything that was
//! promised must have arrived and all accounts be even; then some thousand clients pass by that nobody has seen before. When all
//! have gone, nothing of them may be left: no session, no subscription, no descriptor, no memory. A run of one cycle judges
//! memory roughly; one of five or more sees a leak of some bytes for each client.

#![allow(clippy::print_stdout, reason = "a tool that answers on standard output")]
#![allow(clippy::unwrap_used, reason = "a test")]

mod client;
mod crew;
mod fairness;
#[allow(
    dead_code,
    unused_imports,
    reason = "the harness of the end-to-end tests, of which the soak needs a part"
)]
#[path = "../it/harness/mod.rs"]
mod harness;
mod link;
mod memory;
#[allow(dead_code, unused_imports, reason = "its tests run in `it`")]
mod oracle;
mod passers;
mod subject;
mod watch;
mod world;

use std::collections::BTreeMap;
use std::hash::{BuildHasher, Hasher};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use harness::Tidegate;
use harness::device::{Device, connect};
use harness::wait::now;
use memory::Floor;
use mqtt::packet::{ConnectProperties, Packet, Publish};
use mqtt::{QoS, ReasonCode, Version};
use oracle::floors::Floors;
use oracle::letter::Paper;
use oracle::retained::Shelf;
use rustix::process::Signal;
use subject::{Doors, Limits, Metrics};

const USAGE: &str = "soak [--secs 600] [--seed N] [--binary FILE] [--workers N]... [--gateway] [--cycle 60]";
/// How long SIGTERM may take.
const STOP: Duration = Duration::from_secs(10);
/// Clients that are there when it comes.
const WITNESSES: usize = 20;

/// What the command line asks for.
struct Wishes {
    secs: u64,
    seed: u64,
    binary: PathBuf,
    workers: Vec<usize>,
    gateway: bool,
    /// Seconds of a cycle.
    cycle: u64,
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.iter().any(|argument| argument == "--list") {
        // a runner of tests asks: there are none
        return;
    }
    let wishes = parse(&arguments).unwrap_or_else(|why| {
        eprintln!("soak: {why}\n{USAGE}");
        std::process::exit(2);
    });
    let gateway = if wishes.gateway { " --gateway" } else { "" };
    let workers: String = wishes.workers.iter().map(|workers| format!(" --workers {workers}")).collect();
    println!(
        "seed {}; the same again with `cargo xtask soak --seed {} --secs {} --cycle {}{workers}{gateway}`",
        wishes.seed, wishes.seed, wishes.secs, wishes.cycle
    );
    let share = wishes.secs / wishes.workers.len() as u64;
    for (part, workers) in wishes.workers.iter().enumerate() {
        let limits = Limits::new(*workers, wishes.gateway);
        if let Err(why) = soak(&wishes, limits, wishes.seed.wrapping_add(part as u64), share) {
            eprintln!("soak: seed {}, {workers} workers{gateway}: {why}", wishes.seed);
            std::process::exit(1);
        }
    }
}

fn parse(arguments: &[String]) -> Result<Wishes, String> {
    let mut wishes = Wishes {
        secs: 10,
        seed: std::hash::RandomState::new().build_hasher().finish() >> 1,
        binary: harness::server::PROGRAM.into(),
        workers: Vec::new(),
        gateway: false,
        cycle: 60,
    };
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        let mut number = || {
            let value = arguments.next().and_then(|value| value.parse().ok());
            value.ok_or_else(|| format!("{argument} needs a number"))
        };
        match argument.as_str() {
            "--secs" => wishes.secs = number()?,
            "--seed" => wishes.seed = number()?,
            "--workers" => wishes.workers.push(usize::try_from(number()?.clamp(1, 64)).unwrap_or(1)),
            "--cycle" => wishes.cycle = number()?.max(1),
            "--binary" => wishes.binary = arguments.next().ok_or("--binary needs a file")?.into(),
            "--gateway" => wishes.gateway = true,
            _ => return Err(format!("{argument:?} is no option")),
        }
    }
    if wishes.workers.is_empty() {
        wishes.workers = vec![1, 2];
    }
    Ok(wishes)
}

/// One process and its cycles.
fn soak(wishes: &Wishes, limits: Limits, seed: u64, secs: u64) -> Result<(), String> {
    let mut tidegate = limits.start(&wishes.binary);
    let doors = limits.doors(&tidegate);
    let pid = tidegate.process.id();
    let before = Metrics::ask(tidegate.api()).ok_or("the API does not answer")?;
    let (_, descriptors) = subject::usage(pid);
    let retained = before.get("tidegate_broker_retained_messages");
    let cycles = (secs / wishes.cycle).max(1);
    let mut passers = 0;
    if cycles > 1 {
        passers = memory::warm(doors, limits.workers)?;
    }
    let floor = memory::floor(&tidegate, |_| cycles == 1);
    println!("\n{} workers; before the first of the crowd {floor}", limits.workers);
    let mut floors = Floors::new(floor.allocated, memory::bounds(limits.workers, cycles > 1));
    for cycle in 0..cycles {
        let time = Duration::from_secs((secs / cycles).max(4));
        println!("cycle {} of {cycles}, {} s", cycle + 1, time.as_secs());
        fairness::judge(doors.tcp, pid, (time / 8).min(Duration::from_secs(8)))?;
        let crowd = Crowd { tidegate: &tidegate, limits, doors };
        crowd.cycle(seed.wrapping_mul(1_000).wrapping_add(cycle), time)?;
        let passed = passers::pass(doors, passers, time / 10)?;
        passers += passed;
        println!("  {passed} passed by, none as another before");
        subject::forgotten(&tidegate, descriptors + limits.descriptors_after(), retained);
        // one cycle says nothing about a climb, and need not wait for the last byte
        let enough = |floor: &Floor| floor.allocated <= floors.most() && floor.judge_resident().is_ok();
        let floor = memory::floor(&tidegate, |floor| cycles == 1 && enough(floor));
        println!("  everybody has gone: {floor}");
        floors.add(floor.allocated)?;
        floor.judge_resident()?;
    }
    if let Some(climb) = floors.climb() {
        println!("what is kept grows by {:.0} KiB a cycle", climb / 1024.0);
    }
    floors.level()?;
    stop(&mut tidegate, doors.tcp, limits.tells())
}

/// What a cycle needs.
struct Crowd<'a> {
    tidegate: &'a Tidegate,
    limits: Limits,
    doors: Doors,
}

impl Crowd<'_> {
    fn cycle(&self, seed: u64, time: Duration) -> Result<(), String> {
        let before = Metrics::ask(self.tidegate.api()).ok_or("the API does not answer")?;
        let (pid, door) = (self.tidegate.process.id(), self.doors.tcp);
        let world = world::World::new(seed, self.doors, self.limits);
        let stop = AtomicBool::new(false);
        let traffic = time.mul_f64(0.7);
        let (outcome, trips, seen) = std::thread::scope(|scope| {
            let subject = (pid, self.tidegate.api());
            let watch = watch::watch(scope, subject, self.limits, world.clients() + 8, &stop);
            let pairs = scope.spawn(|| fairness::act(door, traffic, 1, 2));
            let outcome = world.run(pid, traffic, |shelf| self.check_retained(shelf));
            stop.store(true, Ordering::Relaxed);
            let trips = pairs.join().map_err(|_| "a polite pair lost a message".to_owned());
            let seen = watch.join().expect("a watch");
            // what the watch saw is the reason of what happened
            seen.and_then(|seen| Ok((outcome?, trips?, seen)))
        })?;
        let after = Metrics::ask(self.tidegate.api()).ok_or("the API does not answer")?;
        println!("{outcome}");
        println!("  flooded {} messages; beside them {}", trips.1, trips.0);
        println!(
            "  {} MiB of memory at most, bound {} MiB; {} connections at most",
            seen.memory >> 20,
            seen.bound >> 20,
            seen.connections
        );
        let dropped = |rule| after.dropped(rule) - before.dropped(rule);
        let [outbound, queue] = [dropped("outbound_full"), dropped("queue_full") + dropped("no_member")];
        let [expired, large] = [dropped("expired"), dropped("too_large")];
        println!(
            "  dropped by the broker's own account: {:?}, too old: {expired}, too large: {large}",
            [outbound, queue]
        );
        let lost = outcome.lost;
        let (all, told) = (lost.old + lost.large + lost.dropped[0] + lost.dropped[1], outbound + queue);
        // where there is no room, nobody asks whether it was too old or too large
        let accounts = [
            ("QoS 0", lost.dropped[0], outbound),
            ("QoS 1 and 2", lost.dropped[1], queue),
            ("of any kind", all, told + expired + large),
        ];
        for (what, lost, stated) in accounts {
            if lost as f64 > stated {
                return Err(format!("{lost} deliveries are missing, {what}; the broker tells of {stated}"));
            }
        }
        Ok(())
    }

    /// Exactly the last messages are retained; then they are cleared.
    fn check_retained(&self, shelf: &Shelf) -> Result<(), String> {
        let mut device = Device::dial(self.doors.tcp);
        device.hello(&connect(Version::V5, "checks-retained"));
        let expected = shelf.kept();
        device.subscribe("r/#", QoS::AtMostOnce);
        let paper = Paper::new();
        let mut got = BTreeMap::new();
        while got.len() < expected {
            let publish = device.message();
            let letter = paper.read(&publish.payload)?;
            got.insert(usize::from(letter.stream), letter.seq);
        }
        device.nothing_more();
        shelf.check(&got)?;
        device.goodbye();
        let mut device = Device::dial(self.doors.tcp);
        device.hello(&connect(Version::V311, "clears-retained"));
        for topic in 0..shelf.len() {
            let message = harness::device::message(&Shelf::name(topic), "", QoS::AtLeastOnce);
            device.publish(Publish { retain: true, ..message });
        }
        device.goodbye();
        Ok(())
    }
}

/// SIGTERM while clients are connected: they are told, and it ends with status 0.
fn stop(tidegate: &mut Tidegate, door: std::net::SocketAddr, tells: bool) -> Result<(), String> {
    let witnesses: Vec<Device> = (0..WITNESSES)
        .map(|number| {
            let mut device = Device::dial(door);
            let mut hello = connect(Version::V5, &format!("witness-{number}"));
            hello.properties =
                ConnectProperties { session_expiry_interval: Some(60), ..ConnectProperties::default() };
            device.hello(&hello);
            device
        })
        .collect();
    let since = now();
    tidegate.process.signal(Signal::TERM);
    let mut told = 0;
    for mut device in witnesses {
        while let Some(packet) = device.receive_or_end() {
            told += usize::from(
                matches!(&packet, Packet::Disconnect(d) if d.reason == ReasonCode::ServerShuttingDown),
            );
        }
    }
    let status = tidegate.process.end_within(STOP);
    println!(
        "SIGTERM: {told} of {WITNESSES} told, {status} after {:?}",
        now().saturating_duration_since(since)
    );
    if !status.success() || (tells && told < WITNESSES) {
        return Err(format!("{told} of {WITNESSES} clients were told, then {status}"));
    }
    Ok(())
}
