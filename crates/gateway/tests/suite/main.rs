//! The gateway against brokers of a few lines, over loopback.
//!
//! One binary: `harness` has the brokers, devices and a running gateway, the other files a room of the gateway each.

#![allow(clippy::unwrap_used)] // a test that is wrong stops where it is

mod admin;
mod arrival;
mod harness;
mod health;
mod limits;
mod nginx;
mod proxy;
mod relay;
mod reload;
mod servers;
mod session_log;
