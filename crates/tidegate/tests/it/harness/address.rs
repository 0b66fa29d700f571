//! Addresses of this machine that no other test uses at the same time.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU32, Ordering};

/// Addresses that one process can take.
const EACH: u32 = 1_024;
/// Where they begin: 127.4.0.0 and above, away from the 127.0.0.1 that everybody uses.
const FIRST: u32 = 256;
/// Processes that can run side by side before two have the same addresses; their ids follow each other closely.
const PROCESSES: u32 = 16_000;

/// The next address of 127.0.0.0/8 that is ours alone.
pub(crate) fn own() -> Ipv4Addr {
    static TAKEN: AtomicU32 = AtomicU32::new(0);
    let taken = TAKEN.fetch_add(1, Ordering::Relaxed);
    assert!(taken < EACH, "a test process takes at most {EACH} addresses");
    let block = FIRST + std::process::id() % PROCESSES;
    let [_, a, b, c] = (block * EACH + taken).to_be_bytes();
    Ipv4Addr::new(127, a, b, c)
}

/// An address for a device to come from; it listens nowhere, so it need not be ours alone.
pub(crate) fn source(number: u32) -> Ipv4Addr {
    let [_, _, b, c] = (number % 60_000 + 1).to_be_bytes();
    Ipv4Addr::new(127, 3, b, c)
}

/// `address:port`.
pub(crate) fn at(address: Ipv4Addr, port: u16) -> SocketAddr {
    SocketAddr::from((address, port))
}
