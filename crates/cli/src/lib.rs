//! Command line tools that talk to brokers and to the REST API: pub, sub, bench, simulate, ctl.

pub mod answer;
pub mod bench;
mod connection;
pub mod ctl;
mod properties;
pub mod publish;
pub mod simulate;
pub mod subscribe;
