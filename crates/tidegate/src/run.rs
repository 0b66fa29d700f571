//! `tidegate run`: starts what the configuration names, stays in the foreground, stops cleanly.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ::engine::Engine;
use ::engine::memory::{MemoryConfig, MemoryEngine};
use broker::Broker;
use gateway::Gateway;
use runtime::clock::Clock;
use runtime::data_dir;
use runtime::events::{self, Event, Events};
use runtime::lifecycle::{Readiness, Shutdown, sd_notify};
use runtime::metrics::Registry;
use runtime::telemetry;
use runtime::workers::Workers;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::config::{self, Config};
use crate::memory::MemoryMetrics;
use crate::process::{EventMetrics, Inner, Process};

/// How long clients may take to be told good-bye and sessions to be written back. A second signal ends the wait.
const STOP_WITHIN: Duration = Duration::from_secs(10);

/// How long devices of other brokers may take to go by themselves: nothing in stream mode can tell them to, and MQTT
/// connections last for days.
const GATEWAY_STOPS_WITHIN: Duration = Duration::from_secs(3);

/// Why it could not start.
type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Runs until a signal asks it to stop.
pub(crate) fn run(file: Option<PathBuf>) -> ExitCode {
    let config = match config::load(file.as_deref()) {
        Ok(config) => config,
        Err(error) => {
            for line in error.lines() {
                eprintln!("{line}");
            }
            return ExitCode::FAILURE;
        }
    };
    let telemetry = match telemetry::init(&config.log) {
        Ok(telemetry) => telemetry,
        Err(error) => {
            eprintln!("tidegate: {error}");
            return ExitCode::FAILURE;
        }
    };
    match serve(file, config, telemetry) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // one clear sentence, whatever the log level
            eprintln!("tidegate: {error}");
            ExitCode::FAILURE
        }
    }
}

fn serve(file: Option<PathBuf>, config: Config, telemetry: telemetry::Telemetry) -> Result<(), Failure> {
    // a gateway keeps nothing there
    let _lock = config.broker.as_ref().map(|_| data_dir::lock(&config.node.data_dir)).transpose()?;
    raise_descriptor_limit();
    let control = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("control")
        .enable_all()
        .build()?;
    let _entered = control.enter();
    // From here on a signal is remembered: one that comes during the start does not end the process half way.
    let mut signals = Signals::new()?;
    let ground = Ground::new(config.node.workers)?;
    let engine: Option<Arc<dyn Engine>> = config.broker.as_ref().map(|_| start_engine(&config));
    let broker = ground.start_broker(&config, engine.as_ref())?;
    let gateway = ground.start_gateway(&config)?;
    let Ground { workers, clock, events, metrics, readiness, shutdown } = ground;
    let admin_config = config.admin;
    let process = Process::new(Inner {
        file,
        config: Mutex::new(config),
        broker: broker.clone(),
        gateway: gateway.clone(),
        events: events.clone(),
        readiness: readiness.clone(),
        metrics,
        telemetry: Some(telemetry),
        reloading: Mutex::new(()),
    });
    let admin_shutdown = Shutdown::new();
    let admin = match admin_config {
        Some(admin) => Some(admin::serve(
            admin,
            admin::Roles {
                process: Arc::new(process.clone()),
                broker: broker.clone().map(|b| Arc::new(b) as _),
                gateway: gateway.clone().map(|g| Arc::new(g) as _),
            },
            admin_shutdown.clone(),
        )?),
        None => None,
    };
    events.emit(Event::ConfigReloaded {
        source: "start".into(),
        changes: Vec::new(),
        restart_needed: Vec::new(),
    });
    control.block_on(async {
        readiness.set("started", true);
        sd_notify::main_pid(std::process::id());
        sd_notify::ready();
        let reason = signals.until_stop(&process).await;
        tracing::info!(reason, "stopping");
        sd_notify::stopping();
        readiness.set("started", false);
        shutdown.begin(reason);
        tokio::select! {
            () = stop(broker.as_ref(), gateway.as_ref(), &clock) => {}
            reason = signals.stop() => tracing::warn!(reason, "asked again: what is still connected is cut off"),
        }
        admin_shutdown.begin(reason);
        if let Some(admin) = admin {
            admin.finished().await;
        }
    });
    if let Some(engine) = engine {
        engine.shutdown();
    }
    workers.stop();
    Ok(())
}

/// Asks for as many descriptors as this process may have. A device takes one, through the gateway two, and the usual
/// soft limit of 1,024 is a courtesy to programs that use select(2).
fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, ..limit };
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => tracing::debug!(descriptors = limit.maximum, "may open so many"),
        // It works with fewer; those who come when none is left wait, and that is counted.
        Err(error) => {
            tracing::warn!(%error, descriptors = limit.current, "the limit of open descriptors stays");
        }
    }
}

/// What the roles of a process stand on.
struct Ground {
    workers: Workers,
    clock: Clock,
    events: Events,
    metrics: Registry,
    readiness: Readiness,
    shutdown: Shutdown,
}

impl Ground {
    fn new(workers: usize) -> Result<Self, Failure> {
        let clock = Clock::system();
        let events = Events::new(clock.clone(), events::DEFAULT_CAPACITY);
        let metrics = Registry::new();
        metrics.register(Arc::new(EventMetrics(events.clone())));
        metrics.register(Arc::new(MemoryMetrics));
        let readiness = Readiness::new();
        readiness.declare("started");
        let workers = Workers::start(workers, clock.clone())?;
        Ok(Self { workers, clock, events, metrics, readiness, shutdown: Shutdown::new() })
    }

    fn start_broker(
        &self,
        config: &Config,
        engine: Option<&Arc<dyn Engine>>,
    ) -> Result<Option<Broker>, Failure> {
        let (Some(broker), Some(engine)) = (&config.broker, engine) else { return Ok(None) };
        let context = broker::Context {
            node: config.node.name.as_str().into(),
            workers: self.workers.clone(),
            clock: self.clock.clone(),
            events: self.events.clone(),
            metrics: self.metrics.clone(),
            readiness: self.readiness.clone(),
            engine: Arc::clone(engine),
        };
        Ok(Some(Broker::start(broker.clone(), context)?))
    }

    fn start_gateway(&self, config: &Config) -> Result<Option<Gateway>, Failure> {
        let Some(gateway) = &config.gateway else { return Ok(None) };
        let context = gateway::Context {
            workers: self.workers.clone(),
            clock: self.clock.clone(),
            events: self.events.clone(),
            registry: self.metrics.clone(),
            readiness: self.readiness.clone(),
            shutdown: self.shutdown.clone(),
        };
        Ok(Some(Gateway::start(gateway.clone(), context)?))
    }
}

/// Both roles together: devices of our own broker behind our own gateway go when the broker has told them.
async fn stop(broker: Option<&Broker>, gateway: Option<&Gateway>, clock: &Clock) {
    let gateway_stops = async {
        if let Some(gateway) = gateway {
            gateway.stop(clock.now() + GATEWAY_STOPS_WITHIN).await;
        }
    };
    let broker_stops = async {
        if let Some(broker) = broker {
            broker.stop(STOP_WITHIN).await;
        }
    };
    tokio::join!(gateway_stops, broker_stops);
}

fn start_engine(config: &Config) -> Arc<dyn Engine> {
    tracing::info!("sessions, queues and retained messages are kept in memory: they end with this process");
    let defaults = MemoryConfig::default();
    let limits = MemoryConfig {
        shards: config.engine.shards,
        max_log_bytes: config.engine.max_log_bytes,
        max_register_bytes: config.engine.max_register_bytes,
        dedupe_appends: defaults.dedupe_appends.min(config.engine.max_log_ids),
        dedupe_max_ids: config.engine.max_log_ids,
        ..defaults
    };
    MemoryEngine::new(limits, || Clock::system().now())
}

/// What an operator or a service manager tells a process.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// Waits for a signal that ends the process; SIGHUP reloads.
    async fn until_stop(&mut self, process: &Process) -> &'static str {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return "SIGTERM",
                _ = self.interrupt.recv() => return "SIGINT",
                _ = self.hangup.recv() => {
                    let process = process.clone();
                    // refused or not, the event and the log tell; the process goes on
                    let _ = tokio::task::spawn_blocking(move || process.reload_from("signal")).await;
                }
            }
        }
    }

    /// Waits for a signal that ends the process; there is nothing left to reload.
    async fn stop(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_may_open_as_many_descriptors_as_it_is_allowed() {
        let hard = getrlimit(Resource::Nofile).maximum;
        // One fewer: other tests of this process need theirs.
        let fewer = Rlimit { current: hard.map(|hard| hard - 1).or(Some(4_096)), maximum: hard };
        setrlimit(Resource::Nofile, fewer).unwrap();
        raise_descriptor_limit();
        assert_eq!(getrlimit(Resource::Nofile).current, hard);
    }
}
