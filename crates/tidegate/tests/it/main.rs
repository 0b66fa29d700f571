//! The program as its users run it: with real clients, real brokers of other makes, and a balancer in front.
//!
//! `cargo nextest run -p tidegate --test it` runs all of them, each in a process of its own.

mod access;
mod admin;
mod bad_input;
mod bench;
mod broker_messages;
mod broker_protocol;
mod broker_sessions;
mod clients;
mod demo;
mod gateway_arrival;
mod gateway_balance;
mod gateway_health;
mod gateway_limits;
mod gateway_stickiness;
mod harness;
mod hostile;
mod hostile_peers;
mod import;
mod interoperation;
mod lifecycle;
mod limits;
mod manual;
#[allow(dead_code, reason = "the soak uses it; here it is tested")]
#[path = "../soak/oracle/mod.rs"]
mod oracle;
mod publish_and_subscribe;
mod reload;
mod second_signal;
mod shared;
mod simulate;
mod topics;
mod walkthrough;
mod websocket;
