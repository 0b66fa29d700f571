//! Version 1: one line of text, section 2.1.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use super::{Command, Header, Parsed, ProxyError, V1_MAX, Version, differs};

const SIGNATURE: &[u8] = b"PROXY ";
/// The shortest line: `PROXY UNKNOWN` with its end.
const SHORTEST: usize = 15;

/// Reads a line; the first byte is a `P`.
pub(super) fn parse(input: &[u8]) -> Result<Parsed, ProxyError> {
    if differs(input, SIGNATURE) {
        return Ok(Parsed::NotProxy);
    }
    let window = input.get(..V1_MAX).unwrap_or(input);
    let Some(end) = window.iter().position(|byte| matches!(byte, b'\r' | b'\n')) else {
        return incomplete(input);
    };
    match (window.get(end), window.get(end + 1)) {
        (Some(b'\r'), Some(b'\n')) => {}
        (Some(b'\r'), None) => return incomplete(input),
        _ => return Err(ProxyError::Line("it does not end with CR LF")),
    }
    let line = window.get(SIGNATURE.len()..end).unwrap_or_default();
    let (source, destination) = addresses(line)?;
    let header = Header {
        version: Version::V1,
        command: Command::Proxy,
        source,
        destination,
        unique_id: None,
        tlvs: Vec::new(),
    };
    Ok(Parsed::Header(header, end + 2))
}

fn incomplete(input: &[u8]) -> Result<Parsed, ProxyError> {
    if input.len() >= V1_MAX {
        return Err(ProxyError::LineTooLong);
    }
    Ok(Parsed::Incomplete(SHORTEST.max(input.len() + 1)))
}

type Addresses = (Option<SocketAddr>, Option<SocketAddr>);

/// What stands between the signature and the end of the line.
fn addresses(line: &[u8]) -> Result<Addresses, ProxyError> {
    let text = std::str::from_utf8(line).map_err(|_| ProxyError::Line("it is no text"))?;
    let (protocol, rest) = text.split_once(' ').unwrap_or((text, ""));
    match protocol {
        "TCP4" => pair::<Ipv4Addr>(rest),
        "TCP6" => pair::<Ipv6Addr>(rest),
        // "the receiver must ignore anything presented before the CRLF is found"
        "UNKNOWN" => Ok((None, None)),
        _ => Err(ProxyError::Line("the protocol is none of TCP4, TCP6, UNKNOWN")),
    }
}

fn pair<A: FromStr + Into<IpAddr>>(text: &str) -> Result<Addresses, ProxyError> {
    let mut fields = text.split(' ');
    let mut address = || -> Result<IpAddr, ProxyError> {
        let field = fields.next().unwrap_or_default();
        field.parse::<A>().map(Into::into).map_err(|_| ProxyError::Line("an address is wrong"))
    };
    let (source, destination) = (address()?, address()?);
    let mut port = || fields.next().and_then(port).ok_or(ProxyError::Line("a port is wrong"));
    let (source_port, destination_port) = (port()?, port()?);
    if fields.next().is_some() {
        return Err(ProxyError::Line("there is more after the ports"));
    }
    Ok((Some(SocketAddr::new(source, source_port)), Some(SocketAddr::new(destination, destination_port))))
}

/// A decimal number without sign and without leading zeros.
fn port(text: &str) -> Option<u16> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    let leading_zero = text.len() > 1 && text.starts_with('0');
    if digits && !leading_zero { text.parse().ok() } else { None }
}
