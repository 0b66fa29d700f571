//! Command line tools that talk to brokers and to the REST API: pub, sub, ctl.

pub mod ctl;
