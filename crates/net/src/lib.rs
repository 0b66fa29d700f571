//! Listeners, dialers, PROXY protocol: everything that touches a socket before bytes mean anything.
//!
//! This crate must not know MQTT or any role. Its unsafe code is in three small modules: descriptors that the
//! service manager passed (`listener::inherited`), one socket option (`dialer::sockopt`), and the reactor's own
//! descriptor in the runtime (`reactor::outer`).
//!
//! * [`listener`]: who owns a listening descriptor is decided there and nowhere else.
//! * [`dialer`]: outgoing connections, past the limit of 28,000 ports per pair of addresses.
//! * [`forwarded`]: the client's address as HTTP proxies tell it.
//! * [`proxy_protocol`]: the header of the load balancer in front, v1 and v2, read and written.
//! * [`read`]: bytes from a socket into a buffer that has a bound.
//! * [`reactor`]: readiness of many sockets, for 32 bytes and one system call each (Linux).
//! * [`splice`]: bytes from socket to socket that never enter this process (Linux).
//! * [`ws`]: WebSocket as a transport, sans-io.

pub mod dialer;
pub mod forwarded;
pub mod listener;
pub mod proxy_protocol;
#[cfg(target_os = "linux")]
pub mod reactor;
pub mod read;
#[cfg(target_os = "linux")]
pub mod splice;
pub mod ws;

/// Between fork and exec a child process has all our sockets, and a port that was just freed seems taken. Tests that
/// spawn write, tests that need a port to be free again read.
#[cfg(test)]
static SPAWN: std::sync::RwLock<()> = std::sync::RwLock::new(());
