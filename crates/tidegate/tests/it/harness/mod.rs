//! What every scenario stands on: the real program, real brokers and clients, and ways to wait for what they do.
//!
//! Each test has loopback addresses of its own, so that all can use the same ports at the same time. Every child process
//! has a guard that ends it, by its id, and prints what it said if the test fails. Nothing sleeps for a guess: everything
//! waits for an event, with a deadline.

pub(crate) mod address;
pub(crate) mod device;
pub(crate) mod driver;
pub(crate) mod fleet;
pub(crate) mod frames;
pub(crate) mod haproxy;
pub(crate) mod http;
pub(crate) mod lines;
pub(crate) mod mosquitto;
pub(crate) mod nginx;
pub(crate) mod nginx_stream;
pub(crate) mod paho;
pub(crate) mod process;
pub(crate) mod server;
pub(crate) mod wait;

pub(crate) use device::Device;
pub(crate) use driver::Driver;
pub(crate) use mosquitto::Mosquitto;
pub(crate) use paho::Paho;
pub(crate) use process::Process;
pub(crate) use server::{Site, Tidegate};
pub(crate) use wait::{DEADLINE, eventually};
