//! What every role of the process stands on: configuration, clock, workers, events, metrics, telemetry, drain.
//!
//! This crate must not know MQTT, sockets or any role: a role hands it names and numbers, never packets.
//!
//! * [`clock`]: the only place that reads the time.
//! * [`workers`]: one thread per core, each with its own single-threaded runtime.
//! * [`mailbox`]: batches between threads with one wake-up.
//! * [`timer_wheel`]: many coarse deadlines at no cost while they are idle.
//! * [`config`]: the TOML file, read through a schema that reports every problem at once.
//! * [`events`]: the typed catalogue of what happened, for people, logs and counters.
//! * [`metrics`]: counters without shared cache lines, and the Prometheus text.
//! * [`lifecycle`]: stopping, readiness, and the service manager's protocol.
//! * [`rate`]: rates, and the buckets that hold a flow to them.
//! * [`telemetry`]: the log on standard error.
//! * [`data_dir`]: the folder that only one process may use.

pub mod clock;
pub mod config;
pub mod data_dir;
pub mod events;
pub mod lifecycle;
pub mod mailbox;
pub mod metrics;
pub mod rate;
pub mod telemetry;
pub mod timer_wheel;
pub mod workers;
