//! The fleet's life: it sets out, drives, gathers and goes home.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use runtime::clock::Clock;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::commander::command;
use super::fate::Sources;
use super::report::{End, GroupReport, Report};
use super::scenario::{Scenario, parse};
use super::tally::{Fleet, Tally};
use super::vehicle::{Phase, Vehicle, World};
use crate::answer::{self, say};
use crate::bench::args::duration;
use crate::bench::progress::Progress;
use crate::bench::report::{grouped, number, rounded};
use crate::bench::run::raise_descriptors;
use crate::bench::target::address;

/// Between two looks at the fleet.
const LOOK: Duration = Duration::from_millis(100);

/// After the end of the scenario: what is under way may take so long to arrive ...
const GATHERING: Duration = Duration::from_secs(30);

/// ... and as long as something does, it is waited for.
const SILENCE: Duration = Duration::from_secs(5);

/// How long all good-byes may take.
const GOODBYES: Duration = Duration::from_secs(15);

/// Drive a fleet of vehicles from a scenario: they publish, obey commands, lose the network and come back.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The scenario; docs/fleet.toml shows every key
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Judge the file and do nothing: every problem with its line
    #[arg(long)]
    check: bool,
    /// A server instead of the scenario's
    #[arg(long, value_name = "HOST:PORT")]
    server: Option<String>,
    /// How long, instead of the scenario's duration, as 30s or 5m
    #[arg(short, long, value_parser = duration)]
    duration: Option<Duration>,
    /// What all chance comes from, instead of the scenario's
    #[arg(long)]
    seed: Option<u64>,
    /// Print one JSON document instead of a table
    #[arg(long)]
    json: bool,
    /// No progress lines on standard error
    #[arg(long)]
    quiet: bool,
}

/// Runs `tidegate simulate`: exit status 0; 1 if the file has problems, nothing connected, or commands were lost that a
/// session should have kept.
pub fn run(args: &Args) -> ExitCode {
    let file = &args.file;
    let read = std::fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()));
    let mut scenario = match read.and_then(|text| parse(file, &text)) {
        Ok(scenario) => scenario,
        Err(problems) => {
            // As `tidegate check` does: the problems are the answer of --check, and an error otherwise.
            if args.check {
                return say(&format!("{problems}\n"), ExitCode::FAILURE);
            }
            eprintln!("{problems}");
            return ExitCode::FAILURE;
        }
    };
    if args.check {
        return say(&format!("{}: ok\n", file.display()), ExitCode::SUCCESS);
    }
    if let Some(server) = &args.server {
        scenario.server.clone_from(server);
    }
    scenario.duration = args.duration.unwrap_or(scenario.duration);
    scenario.seed = args.seed.or(scenario.seed);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let report = runtime
        .map_err(|error| format!("cannot start: {error}"))
        .and_then(|runtime| runtime.block_on(simulate(args, &scenario)));
    match report {
        Ok(report) => answer::report(&report, args.json, || report.table(), report.passed),
        Err(error) => {
            eprintln!("Error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// A fleet under way.
struct Life {
    fleets: Vec<Arc<Fleet>>,
    phase: watch::Sender<Phase>,
    tasks: JoinSet<()>,
    world: World,
    progress: Progress,
    /// When the last line was shown, and the messages it counted.
    shown: (Duration, u64),
}

async fn simulate(args: &Args, scenario: &Scenario) -> Result<Report, String> {
    let vehicles: u64 = scenario.groups.iter().map(|group| u64::from(group.count)).sum();
    // Each may have a connection that the network swallowed beside its own.
    raise_descriptors(2 * vehicles)?;
    let server = address(&scenario.server)?;
    let seed = scenario.seed.unwrap_or_else(|| fastrand::u64(..=i64::MAX as u64));
    let clock = Clock::system();
    let sources = match &scenario.source_addresses {
        all if !all.is_empty() => Sources::Of(all.clone()),
        _ if server.is_ipv4() && server.ip().is_loopback() => Sources::Loopback,
        _ => Sources::Any,
    };
    let world = World { server, begin: clock.now(), clock, seed, sources };
    let mut progress = Progress::new(!args.quiet);
    progress.show(&format!("{vehicles} vehicles, server {server}, seed {seed}"));
    progress.end();
    // Two runs of the same seed must not take each other's commands.
    let run = fastrand::u32(..);
    let fleets = scenario.groups.iter().map(|group| Arc::new(Fleet::new(group.clone(), run))).collect();
    let mut life = Life {
        fleets,
        phase: watch::Sender::new(Phase::Run),
        tasks: JoinSet::new(),
        world,
        progress,
        shown: (Duration::ZERO, 0),
    };
    life.set_out();
    let mut notes = Vec::new();
    let end = tokio::select! {
        () = life.drive(scenario.duration) => End::Gathered,
        _ = tokio::signal::ctrl_c() => {
            notes.push("interrupted: the numbers are those until then".to_owned());
            End::Interrupted
        }
    };
    let seconds = rounded(life.elapsed().as_secs_f64());
    let tallies: Vec<Tally> = life.fleets.iter().map(|fleet| fleet.tally()).collect();
    life.go_home().await;
    let groups: Vec<_> = life.fleets.iter().map(|fleet| &fleet.group).collect();
    let mut report = Report {
        simulate: args.file.display().to_string(),
        tidegate: env!("CARGO_PKG_VERSION"),
        server: scenario.server.clone(),
        seed,
        seconds,
        groups: groups
            .iter()
            .zip(&tallies)
            .map(|(group, tally)| GroupReport::new(group, tally, end))
            .collect(),
        passed: false,
        notes,
    };
    report.judge(&groups);
    Ok(report)
}

impl Life {
    fn set_out(&mut self) {
        for fleet in &self.fleets {
            for number in 1..=fleet.group.count {
                let vehicle = Vehicle::new(fleet, number, &self.world, self.phase.subscribe());
                self.tasks.spawn(vehicle.run());
            }
            self.tasks.spawn(command(Arc::clone(fleet), self.world.clone(), self.phase.subscribe()));
        }
    }

    fn elapsed(&self) -> Duration {
        self.world.clock.now().saturating_duration_since(self.world.begin)
    }

    /// The scenario, and then until everything under way has arrived.
    async fn drive(&mut self, duration: Duration) {
        while self.elapsed() < duration {
            sleep(LOOK.min(duration.saturating_sub(self.elapsed()))).await;
            self.show();
        }
        self.phase.send_replace(Phase::Gather);
        let began = self.elapsed();
        let (mut last, mut progressed) = (0, began);
        while !self.fleets.iter().all(|fleet| fleet.is_settled()) {
            sleep(LOOK).await;
            self.show();
            let now = self.elapsed();
            let arrived = self.sum(|tally| tally.connections + tally.commands_received + tally.answers);
            if arrived != last {
                (last, progressed) = (arrived, now);
            }
            if now - began > GATHERING || now - progressed > SILENCE {
                return;
            }
        }
        // The answers to the last commands are still on their way.
        let late = self.elapsed() + SILENCE / 5;
        while self.elapsed() < late
            && self.sum(|tally| tally.answers) < self.sum(|tally| tally.commands_received)
        {
            sleep(LOOK).await;
        }
    }

    async fn go_home(&mut self) {
        self.progress.end();
        self.phase.send_replace(Phase::Stop);
        let all = async { while self.tasks.join_next().await.is_some() {} };
        // Those that take too long are cut off.
        let _ = tokio::time::timeout(GOODBYES, all).await;
        self.tasks.shutdown().await;
    }

    fn sum(&self, of: impl Fn(&Tally) -> u64) -> u64 {
        self.fleets.iter().map(|fleet| of(&fleet.tally())).sum()
    }

    fn show(&mut self) {
        let now = self.elapsed();
        let since = (now - self.shown.0).as_secs_f64();
        if since < 1.0 {
            return;
        }
        let vehicles: u64 = self.fleets.iter().map(|fleet| u64::from(fleet.group.count)).sum();
        let messages = self.sum(|tally| tally.telemetry_sent + tally.commands_received);
        let per_second = messages.saturating_sub(self.shown.1) as f64 / since;
        let taken = self.sum(|tally| tally.losses.values().sum());
        let commands = self.sum(|tally| tally.commands_sent);
        let answers = self.sum(|tally| tally.answers);
        let line = format!(
            "{:>4} s  {} of {} connected  {} messages/s  {} losses of network  {} commands, {} answered",
            now.as_secs(),
            grouped(self.sum(|tally| tally.connected)),
            grouped(vehicles),
            number(per_second),
            grouped(taken),
            grouped(commands),
            grouped(answers)
        );
        self.progress.show(&line);
        self.shown = (now, messages);
    }
}
