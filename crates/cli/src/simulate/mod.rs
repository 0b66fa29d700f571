//! `tidegate simulate`: a fleet of vehicles from a scenario in TOML, on a network that fails.
//!
//! * `scenario`: the file, judged whole; `template`: texts with places to fill in. Pure.
//! * `drive`: where a vehicle is; `fate`: when its network fails, how, and from where it comes back: both from a seed. Pure.
//! * `vehicle`: the client's machine on a socket that the fate takes away; `commander`: who asks and takes the answers.
//! * `tally`, `report`: what came of it.

mod commander;
mod drive;
mod fate;
mod report;
mod run;
mod scenario;
mod tally;
mod template;
mod vehicle;

pub use run::{Args, run};
