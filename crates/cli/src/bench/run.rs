//! The threads of a run, its phases, and its end.

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use runtime::clock::Clock;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::args::{Args, Wanted};
use super::generator::{Generator, Job, Role, Traffic};
use super::outcome::Outcome;
use super::progress::Progress;
use super::report::{ConnectionReport, GeneratorReport, MessageReport, Report, grouped, number, rounded};
use super::shared::Shared;
use super::target::Target;

/// Between two looks at the threads.
const LOOK: Duration = Duration::from_millis(20);

/// Between the last client's arrival and the first message.
const BEFORE_START: Duration = Duration::from_millis(100);

/// After the last message was sent: nothing has arrived for so long, so nothing will.
const SILENCE: Duration = Duration::from_secs(2);

/// ... and it is not waited longer than this in all.
const DRAIN: Duration = Duration::from_secs(30);

/// Descriptors besides those of clients.
const OTHER_DESCRIPTORS: u64 = 64;

/// Runs `tidegate bench`: exit status 0; 1 if a client could not connect, nothing arrived, messages were lost that
/// their QoS promises, or clients did not come back to their server.
pub fn run(args: &Args) -> ExitCode {
    // The seed decides nothing but names, which have to differ from run to run.
    let run = fastrand::u32(..);
    let wanted = match args.bench.wanted(run) {
        Ok(wanted) => wanted,
        Err(args) => return super::sticky::run(args),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let report = runtime
        .map_err(|error| format!("cannot start: {error}"))
        .and_then(|runtime| runtime.block_on(bench(&wanted, run)));
    match report {
        Ok(report) => crate::answer::report(&report, wanted.common.json, || report.table(), report.passed),
        Err(error) => {
            eprintln!("Error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// A run under way.
struct Run {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<std::io::Result<Outcome>>>,
    clock: Clock,
    epoch: Instant,
    clients: u64,
    progress: Progress,
    shown: Shown,
}

/// What the last progress line said.
#[derive(Clone, Copy, Debug, Default)]
struct Shown {
    at: Duration,
    ready: u64,
    sent: u64,
    received: u64,
}

async fn bench(wanted: &Wanted<'_>, run: u32) -> Result<Report, String> {
    if let Some(traffic) = &wanted.traffic {
        traffic.plan.check()?;
    }
    let target = Arc::new(wanted.common.target.target(run)?);
    let mut under_way = Run::start(wanted, &target)?;
    let mut interrupted = false;
    tokio::select! {
        () = under_way.phases(wanted) => {}
        _ = tokio::signal::ctrl_c() => interrupted = true,
    }
    under_way.progress.end();
    under_way.shared.stop();
    let seconds = under_way.now();
    let outcome = under_way.join()?;
    let mut report = report(wanted, &target, &outcome, under_way.shared.counters.len(), seconds);
    if interrupted {
        report.notes.insert(0, "interrupted: the numbers are those until then".to_owned());
    }
    Ok(report)
}

impl Run {
    /// Starts the threads; they connect.
    fn start(wanted: &Wanted<'_>, target: &Arc<Target>) -> Result<Self, String> {
        let traffic = wanted.traffic.clone().map(Arc::new);
        let clients = match &traffic {
            Some(traffic) => u64::from(traffic.plan.publishers) + u64::from(traffic.plan.subscribers),
            None => u64::from(wanted.clients),
        };
        raise_descriptors(clients)?;
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let most = match &traffic {
            Some(traffic) => traffic.plan.publishers.max(traffic.plan.subscribers) as usize,
            None => clients as usize,
        };
        let threads = wanted.common.threads.map_or(cores, usize::from).clamp(1, most.max(1));
        let closed = traffic.as_ref().filter(|traffic| traffic.rate.is_none());
        let publishers = closed.map_or(0, |traffic| traffic.plan.publishers as usize);
        let shared = Arc::new(Shared::new(threads, publishers));
        let clock = Clock::system();
        let epoch = clock.now();
        let mut run = Self {
            shared,
            threads: Vec::with_capacity(threads),
            clock,
            epoch,
            clients,
            progress: Progress::new(!wanted.common.quiet),
            shown: Shown::default(),
        };
        for thread in 0..threads {
            let job = Job {
                thread,
                threads,
                target: Arc::clone(target),
                clients: clients_of(thread, threads, traffic.as_deref(), clients),
                traffic: traffic.clone(),
                connect_rate: wanted.connect_rate,
                at_once: wanted.at_once.div_ceil(threads),
            };
            run.spawn(job).map_err(|error| {
                run.shared.stop();
                format!("a thread of the generator cannot start: {error}")
            })?;
        }
        Ok(run)
    }

    fn spawn(&mut self, job: Job) -> std::io::Result<()> {
        let thread = job.thread;
        let (shared, clock, epoch) = (Arc::clone(&self.shared), self.clock.clone(), self.epoch);
        let work = move || {
            let outcome = Generator::new(job, Arc::clone(&shared), clock, epoch).and_then(Generator::run);
            if outcome.is_err()
                && let Some(counters) = shared.counters.get(thread)
            {
                counters.broken.store(true, Ordering::Release);
            }
            outcome
        };
        let handle = std::thread::Builder::new().name(format!("bench-{thread}")).spawn(work)?;
        self.threads.push(handle);
        Ok(())
    }

    /// Since the run began.
    fn now(&self) -> Duration {
        self.clock.now().saturating_duration_since(self.epoch)
    }

    /// From the first connection to the last message.
    async fn phases(&mut self, wanted: &Wanted<'_>) {
        while self.shared.sum(|counters| &counters.ready) + self.gone() < self.clients {
            if !self.look().await {
                return;
            }
        }
        if self.shared.sum(|counters| &counters.ready) == 0 {
            return;
        }
        let start = self.now() + BEFORE_START;
        self.shared.begin(u64::try_from(start.as_nanos()).unwrap_or(u64::MAX));
        if wanted.traffic.is_none() {
            let end = self.now() + wanted.hold;
            while self.now() < end && self.look().await {}
            return;
        }
        while !self.shared.all(|counters| &counters.finished) {
            if !self.look().await {
                return;
            }
        }
        self.drain(wanted).await;
    }

    /// Waits for what is under way.
    async fn drain(&mut self, wanted: &Wanted<'_>) {
        let fan = wanted.traffic.as_ref().map_or(1, |traffic| traffic.plan.fan());
        let began = self.now();
        let (mut last, mut progressed) = (u64::MAX, began);
        loop {
            let (sent, distinct) =
                (self.shared.sum(|counters| &counters.sent), self.shared.sum(|counters| &counters.distinct));
            let waiting = self.shared.sum(|counters| &counters.unacknowledged);
            let now = self.now();
            if distinct >= sent * fan && waiting == 0 || now - began > DRAIN {
                return;
            }
            let state = distinct + waiting;
            if state != last {
                (last, progressed) = (state, now);
            }
            if now - progressed > SILENCE || !self.look().await {
                return;
            }
        }
    }

    /// Clients that failed or were lost.
    fn gone(&self) -> u64 {
        self.shared.sum(|counters| &counters.failed) + self.shared.sum(|counters| &counters.lost)
    }

    /// Waits a little and tells how far it is; `false`: a thread is broken.
    async fn look(&mut self) -> bool {
        tokio::time::sleep(LOOK).await;
        let now = self.now();
        let since = (now - self.shown.at).as_secs_f64();
        if since >= 1.0 {
            let (ready, sent, received) = (
                self.shared.sum(|counters| &counters.ready),
                self.shared.sum(|counters| &counters.sent),
                self.shared.sum(|counters| &counters.received),
            );
            let mut line =
                format!("{:>4} s  {} of {} connected", now.as_secs(), grouped(ready), grouped(self.clients));
            if ready < self.clients && sent == 0 {
                let rate = ready.saturating_sub(self.shown.ready) as f64 / since;
                line.push_str(&format!(", {}/s", number(rate)));
            }
            if sent > 0 {
                let per_second = |now: u64, before: u64| number(now.saturating_sub(before) as f64 / since);
                let (sent, received) =
                    (per_second(sent, self.shown.sent), per_second(received, self.shown.received));
                line.push_str(&format!("  sent {sent}/s  received {received}/s"));
            }
            let gone = self.gone();
            if gone > 0 {
                line.push_str(&format!("  {} failed or lost", grouped(gone)));
            }
            self.progress.show(&line);
            self.shown = Shown { at: now, ready, sent, received };
        }
        !self.shared.broken()
    }

    fn join(&mut self) -> Result<Outcome, String> {
        let mut all = Outcome::default();
        for thread in self.threads.drain(..) {
            match thread.join() {
                Ok(Ok(outcome)) => all.join(outcome),
                Ok(Err(error)) => return Err(format!("a thread of the generator: {error}")),
                Err(_) => return Err("a thread of the generator panicked".to_owned()),
            }
        }
        Ok(all)
    }
}

/// The clients of one thread: subscribers first, so that nobody publishes before them.
fn clients_of(thread: usize, threads: usize, traffic: Option<&Traffic>, clients: u64) -> Vec<(u64, Role)> {
    let Some(traffic) = traffic else {
        return (thread as u64..clients).step_by(threads).map(|number| (number, Role::Idle)).collect();
    };
    let plan = &traffic.plan;
    let subscribers =
        plan.subscribers_of(thread, threads).map(|number| (u64::from(number), Role::Subscriber(number)));
    let publishers = plan
        .publishers_of(thread, threads)
        .map(|number| (u64::from(plan.subscribers) + u64::from(number), Role::Publisher(number)));
    subscribers.chain(publishers).collect()
}

/// One descriptor for each client: the limit is raised as far as it may be.
pub(crate) fn raise_descriptors(clients: u64) -> Result<(), String> {
    let needed = clients + OTHER_DESCRIPTORS;
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|current| current >= needed) {
        return Ok(());
    }
    if let Some(maximum) = limit.maximum.filter(|maximum| *maximum < needed) {
        return Err(format!(
            "{clients} clients need {needed} descriptors, and this process may have {maximum}: ulimit -n {needed}"
        ));
    }
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })
        .map_err(|error| format!("{needed} descriptors are needed, and the limit cannot be raised: {error}"))
}

fn report(wanted: &Wanted<'_>, target: &Target, outcome: &Outcome, threads: usize, run: Duration) -> Report {
    let open = match &wanted.traffic {
        Some(traffic) => traffic.rate.is_some(),
        None => wanted.connect_rate.is_some(),
    };
    let balance = outcome.messages.balance();
    let mut report = Report {
        bench: wanted.name,
        tidegate: env!("CARGO_PKG_VERSION"),
        server: target.name.clone(),
        protocol: target.version.to_string(),
        threads,
        connections: ConnectionReport::new(&outcome.connections, wanted.connect_rate),
        messages: wanted.traffic.as_ref().map(|traffic| messages(traffic, outcome, run)),
        generator: GeneratorReport::new(outcome, open, wanted.traffic.is_some()),
        passed: false,
        notes: Vec::new(),
    };
    report.judge(&balance);
    report
}

fn messages(traffic: &Traffic, outcome: &Outcome, run: Duration) -> MessageReport {
    let (plan, messages) = (&traffic.plan, &outcome.messages);
    let balance = messages.balance();
    // A run that was bounded by its count, or interrupted, measured for a shorter time.
    let first = outcome.measured.start;
    let last = match traffic.count {
        Some(_) => messages.last_arrival.max(first),
        None => outcome.measured.end.min(u64::try_from(run.as_nanos()).unwrap_or(u64::MAX)).max(first),
    };
    let seconds = (last - first) as f64 / 1e9;
    let per_second = |count: u64| if seconds > 0.0 { rounded(count as f64 / seconds) } else { 0.0 };
    MessageReport {
        publishers: plan.publishers,
        subscribers: plan.subscribers,
        share: plan.share.clone(),
        qos: traffic.qos as u8,
        size: traffic.size,
        pacing: if traffic.rate.is_some() { "open" } else { "closed" },
        rate: traffic.rate,
        inflight: traffic.inflight,
        window: traffic.rate.is_none().then_some(traffic.window),
        seconds: rounded(seconds),
        sent_per_second: per_second(messages.sent_in_time),
        received_per_second: per_second(messages.received_in_time),
        sent: messages.total(|published| published.sent),
        received: messages.received,
        expected: balance.expected,
        lost: balance.lost,
        duplicates: messages.duplicates + balance.shared_twice,
        out_of_order: plan.share.is_none().then_some(messages.late),
        foreign: messages.foreign,
        refused: messages.total(|published| published.refused),
        unacknowledged: messages.total(|published| published.unacknowledged),
        latency_ms: messages.latency.percentiles(),
        acknowledged_ms: messages.acknowledged.percentiles(),
    }
}
