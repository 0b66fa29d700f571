//! Addresses and ports of this machine that no other test uses at the same time.
//!
//! An address is ours while we hold a UDP socket on it: that excludes every other test process, whatever its id, and
//! disturbs no TCP listener.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};

/// Where brokers listen on an address of their own. Not 1883: somebody may have a broker there, on all addresses.
pub(crate) const MQTT: u16 = 11_883;
/// Where a second listener of a broker is.
pub(crate) const MQTT_2: u16 = 11_884;
/// Where gateways and balancers listen.
pub(crate) const GATE: u16 = 11_880;
/// Where the API is.
pub(crate) const API: u16 = 11_083;

/// 127.4.0.0 is the first that is taken: far from the 127.0.0.1 that everybody uses.
const FIRST: u32 = 0x7F04_0000;
/// How many there are from it on; the last of all is left out, it is the network's broadcast address.
const ADDRESSES: u32 = 0x00FB_FFFF;
/// Blocks of eight ports from 20,000 to 27,999: below those that the kernel gives to clients.
const BLOCKS: u32 = 1_000;

/// The next address of 127.0.0.0/8 that is ours alone until this process ends.
pub(crate) fn own() -> Ipv4Addr {
    claim(ADDRESSES, |number| {
        let address = Ipv4Addr::from(FIRST + number);
        UdpSocket::bind((address, MQTT)).ok().map(|held| (address, held))
    })
}

/// The first of eight ports for an address that is not ours alone (127.0.0.1, ::1), ours until this process ends.
pub(crate) fn eight_ports() -> u16 {
    claim(BLOCKS, |number| {
        let port = 20_000 + u16::try_from(number).ok()? * 8;
        UdpSocket::bind((Ipv4Addr::LOCALHOST, port)).ok().map(|held| (port, held))
    })
}

/// Tries one after the other, from a place that differs from process to process.
fn claim<T>(count: u32, take: impl Fn(u32) -> Option<(T, UdpSocket)>) -> T {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    static HELD: Mutex<Vec<UdpSocket>> = Mutex::new(Vec::new());
    let begin = std::process::id().wrapping_mul(509);
    for _ in 0..count {
        let number = begin.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % count;
        if let Some((taken, held)) = take(number) {
            HELD.lock().unwrap_or_else(PoisonError::into_inner).push(held);
            return taken;
        }
    }
    panic!("all of {count} addresses or ports are taken");
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
