//! Writing headers.

use std::io::Write;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use super::v2::{FIXED, SIGNATURE};
use super::{TLV_CRC32C, Tlv, V2_MAX, crc32c};

const LOCAL: u8 = 0x20;
const PROXY: u8 = 0x21;
const UNSPEC: u8 = 0x00;
const TCP4: u8 = 0x11;
const TCP6: u8 = 0x21;

/// The two addresses in one family. A pair of both families becomes IPv6, with the IPv4 address mapped into it.
enum Pair {
    V4([u8; 4], [u8; 4]),
    V6(Ipv6Addr, Ipv6Addr),
}

fn pair(source: SocketAddr, destination: SocketAddr) -> Pair {
    let v6 = |ip: IpAddr| match ip {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    };
    match (source.ip(), destination.ip()) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => Pair::V4(source.octets(), destination.octets()),
        (source, destination) => Pair::V6(v6(source), v6(destination)),
    }
}

/// Adds a version 1 line for a client's connection.
pub fn encode_v1(source: SocketAddr, destination: SocketAddr, out: &mut Vec<u8>) {
    let (source_port, destination_port) = (source.port(), destination.port());
    // Writing to a Vec can't fail.
    let _ = match pair(source, destination) {
        Pair::V4(..) => {
            write!(
                out,
                "PROXY TCP4 {} {} {source_port} {destination_port}\r\n",
                source.ip(),
                destination.ip()
            )
        }
        Pair::V6(source, destination) => {
            write!(out, "PROXY TCP6 {source} {destination} {source_port} {destination_port}\r\n")
        }
    };
}

/// Adds a version 1 line for a connection of our own, such as a health check.
pub fn encode_v1_unknown(out: &mut Vec<u8>) {
    out.extend_from_slice(b"PROXY UNKNOWN\r\n");
}

/// Adds a version 2 header for a client's connection, with TLVs. One of type [`TLV_CRC32C`] gets the checksum
/// whatever its value says.
///
/// A header is at most [`V2_MAX`] bytes: TLVs from the first that does not fit on are left out, and `false` says so.
pub fn encode_v2(source: SocketAddr, destination: SocketAddr, tlvs: &[Tlv], out: &mut Vec<u8>) -> bool {
    let start = out.len();
    let addresses = pair(source, destination);
    let family = if matches!(addresses, Pair::V4(..)) { TCP4 } else { TCP6 };
    begin(PROXY, family, out);
    match addresses {
        Pair::V4(source, destination) => {
            out.extend_from_slice(&source);
            out.extend_from_slice(&destination);
        }
        Pair::V6(source, destination) => {
            out.extend_from_slice(&source.octets());
            out.extend_from_slice(&destination.octets());
        }
    }
    out.extend_from_slice(&source.port().to_be_bytes());
    out.extend_from_slice(&destination.port().to_be_bytes());
    let mut checksum_at = None;
    let mut all = true;
    for tlv in tlvs {
        let value: &[u8] = if tlv.kind == TLV_CRC32C { &[0; 4] } else { &tlv.value };
        let fits = out.len() - start + 3 + value.len() <= V2_MAX;
        let (true, Ok(length)) = (fits, u16::try_from(value.len())) else {
            all = false;
            break;
        };
        out.push(tlv.kind);
        out.extend_from_slice(&length.to_be_bytes());
        if tlv.kind == TLV_CRC32C {
            checksum_at = Some(out.len());
        }
        out.extend_from_slice(value);
    }
    finish(start, checksum_at, out);
    all
}

/// Adds a version 2 header for a connection of our own, such as a health check.
pub fn encode_v2_local(out: &mut Vec<u8>) {
    let start = out.len();
    begin(LOCAL, UNSPEC, out);
    finish(start, None, out);
}

fn begin(command: u8, family: u8, out: &mut Vec<u8>) {
    out.extend_from_slice(SIGNATURE);
    out.extend_from_slice(&[command, family, 0, 0]);
}

/// Fills in what is known only at the end: the length, then the checksum over all.
fn finish(start: usize, checksum_at: Option<usize>, out: &mut [u8]) {
    // At most V2_MAX, so the length fits.
    let length = u16::try_from(out.len() - start - FIXED).unwrap_or(u16::MAX);
    if let Some(place) = out.get_mut(start + FIXED - 2..start + FIXED) {
        place.copy_from_slice(&length.to_be_bytes());
    }
    let Some(at) = checksum_at else { return };
    let sum = crc32c::checksum(&[out.get(start..).unwrap_or_default()]);
    if let Some(place) = out.get_mut(at..at + 4) {
        place.copy_from_slice(&sum.to_be_bytes());
    }
}
