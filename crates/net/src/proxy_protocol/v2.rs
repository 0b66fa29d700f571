//! Version 2: the binary header, section 2.2.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use super::{
    Command, Header, Parsed, ProxyError, TLV_CRC32C, TLV_NOOP, TLV_UNIQUE_ID, Tlv, UNIQUE_ID_MAX, V2_MAX,
    Version, crc32c, differs,
};

pub(super) const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// Signature, version and command, family and transport, length of what follows.
pub(super) const FIXED: usize = 16;

/// Reads a header; the first byte is a CR.
pub(super) fn parse(input: &[u8]) -> Result<Parsed, ProxyError> {
    if differs(input, SIGNATURE) {
        return Ok(Parsed::NotProxy);
    }
    let Some((fixed, rest)) = input.split_first_chunk::<FIXED>() else {
        return Ok(Parsed::Incomplete(FIXED));
    };
    let [.., version_and_command, family, length_high, length_low] = *fixed;
    if version_and_command >> 4 != 2 {
        return Err(ProxyError::Version(version_and_command >> 4));
    }
    let command = match version_and_command & 0x0F {
        0 => Command::Local,
        1 => Command::Proxy,
        other => return Err(ProxyError::Command(other)),
    };
    let length = usize::from(u16::from_be_bytes([length_high, length_low]));
    let total = FIXED + length;
    if total > V2_MAX {
        return Err(ProxyError::TooLong(total));
    }
    let Some(block) = rest.get(..length) else {
        return Ok(Parsed::Incomplete(total));
    };
    let mut header = Header {
        version: Version::V2,
        command,
        source: None,
        destination: None,
        unique_id: None,
        tlvs: Vec::new(),
    };
    // LOCAL: "the receiver must accept this connection as valid and must use the real connection endpoints and
    // discard the protocol block including the family which is ignored".
    if command == Command::Proxy {
        relayed(&mut header, fixed, family, block)?;
    }
    Ok(Parsed::Header(header, total))
}

/// Reads addresses and TLVs of a relayed connection.
fn relayed(header: &mut Header, fixed: &[u8; FIXED], family: u8, block: &[u8]) -> Result<(), ProxyError> {
    let tlvs = match family {
        // UNSPEC: "the receiver should ignore address information"; where it would end is not known, so there are
        // no TLVs to find either.
        0x00 => return Ok(()),
        // TCP or UDP over IPv4: two addresses, two ports.
        0x11 | 0x12 => {
            let (addresses, tlvs) =
                block.split_first_chunk::<12>().ok_or(ProxyError::Addresses(block.len()))?;
            let [a, b, c, d, e, f, g, h, ports @ ..] = *addresses;
            let (source, destination) = (Ipv4Addr::new(a, b, c, d), Ipv4Addr::new(e, f, g, h));
            set(header, (source.into(), destination.into()), ports);
            tlvs
        }
        // TCP or UDP over IPv6.
        0x21 | 0x22 => {
            let short = ProxyError::Addresses(block.len());
            let (source, rest) = block.split_first_chunk::<16>().ok_or(short)?;
            let (destination, rest) = rest.split_first_chunk::<16>().ok_or(short)?;
            let (ports, tlvs) = rest.split_first_chunk::<4>().ok_or(short)?;
            set(header, (Ipv6Addr::from(*source).into(), Ipv6Addr::from(*destination).into()), *ports);
            tlvs
        }
        // Unix sockets: two paths of 108 bytes, which say nothing about a device.
        0x31 | 0x32 => block.get(216..).ok_or(ProxyError::Addresses(block.len()))?,
        other => return Err(ProxyError::Family(other)),
    };
    read_tlvs(header, fixed, block, tlvs)
}

fn set(header: &mut Header, (source, destination): (std::net::IpAddr, std::net::IpAddr), ports: [u8; 4]) {
    let [a, b, c, d] = ports;
    header.source = Some(SocketAddr::new(source, u16::from_be_bytes([a, b])));
    header.destination = Some(SocketAddr::new(destination, u16::from_be_bytes([c, d])));
}

/// Reads the TLVs, which are the end of the block, and verifies the checksum if there is one.
fn read_tlvs(
    header: &mut Header,
    fixed: &[u8; FIXED],
    block: &[u8],
    mut tlvs: &[u8],
) -> Result<(), ProxyError> {
    let mut checked = false;
    while let Some((&kind, rest)) = tlvs.split_first() {
        let malformed = ProxyError::Tlv(kind);
        let (length, rest) = rest.split_first_chunk::<2>().ok_or(malformed)?;
        let (value, rest) =
            rest.split_at_checked(usize::from(u16::from_be_bytes(*length))).ok_or(malformed)?;
        match kind {
            TLV_CRC32C => {
                let sum: [u8; 4] = value.try_into().map_err(|_| malformed)?;
                if checked {
                    return Err(malformed);
                }
                checked = true;
                // The sum was made with its own place filled with zeros.
                let before = block.len() - rest.len() - sum.len();
                let before = block.get(..before).unwrap_or_default();
                if crc32c::checksum(&[fixed, before, &[0; 4], rest]) != u32::from_be_bytes(sum) {
                    return Err(ProxyError::Checksum);
                }
            }
            TLV_NOOP => {}
            TLV_UNIQUE_ID => {
                if value.len() > UNIQUE_ID_MAX || header.unique_id.is_some() {
                    return Err(malformed);
                }
                header.unique_id = Some(value.to_vec());
            }
            _ => header.tlvs.push(Tlv { kind, value: value.to_vec() }),
        }
        tlvs = rest;
    }
    Ok(())
}
