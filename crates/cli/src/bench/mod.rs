//! `tidegate bench`: load on any broker or gateway of any make, and honest numbers.
//!
//! * `plan`, `schedule`, `flow`, `sequence`, `stamp`, `latency`, `outcome`, `report`: what is to happen, when, and what it
//!   means; pure.
//! * `generator` with `dial` and `traffic`: one thread's clients on one poll. The `client` crate has a task and queues for
//!   each connection, which is right for an application and too heavy for a load.
//! * `run`: the threads, the phases, the clock on the wall.
//! * `sticky` with `stickiness`: which server a gateway gives a client, asked of the servers themselves.
//!
//! Both ends of each message are in this process, so that one clock measures both.

pub(crate) mod args;
pub(crate) mod dial;
mod flow;
mod generator;
pub(crate) mod latency;
pub(crate) mod outcome;
mod plan;
pub(crate) mod progress;
pub(crate) mod report;
pub(crate) mod run;
mod schedule;
pub(crate) mod sequence;
mod shared;
mod stamp;
mod stickiness;
mod sticky;
pub(crate) mod target;
mod timer;
mod traffic;
mod wire;

pub use args::Args;
pub use run::run;
