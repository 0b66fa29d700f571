//! Times, sizes and addresses as nginx writes them.
//!
//! Must not know: directives.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

/// nginx's units in milliseconds, from great to small; a month has 30 days, a year 365.
const UNITS: [(&str, u64); 8] = [
    ("y", 365 * 86_400_000),
    ("M", 30 * 86_400_000),
    ("w", 7 * 86_400_000),
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1_000),
    ("ms", 1),
];
/// Most listeners that a range of ports makes.
pub(super) const MAX_PORTS: usize = 256;

/// `10`, `10s`, `1m30s`, `1h 30m`: seconds where no unit stands, units from great to small.
pub(super) fn time(text: &str) -> Option<Duration> {
    let mut rest = text.trim_end();
    let mut millis = 0_u64;
    let mut smallest = u64::MAX;
    while !rest.is_empty() {
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (number, after) = rest.split_at_checked(digits)?;
        let number: u64 = number.parse().ok()?;
        let letters = after.len() - after.trim_start_matches(|c: char| c.is_ascii_alphabetic()).len();
        let (unit, after) = after.split_at_checked(letters)?;
        // a number alone comes last
        let factor = match unit {
            "" if after.is_empty() => 1_000,
            _ => UNITS.into_iter().find(|(name, _)| *name == unit)?.1,
        };
        if factor >= smallest {
            return None;
        }
        smallest = factor;
        millis = millis.checked_add(number.checked_mul(factor)?)?;
        rest = after.trim_start_matches(' ');
    }
    (smallest != u64::MAX).then(|| Duration::from_millis(millis))
}

/// `4096`, `4k`, `1m`.
pub(super) fn size(text: &str) -> Option<u64> {
    let (digits, factor) = match text.as_bytes().last()? {
        b'k' | b'K' => (text.get(..text.len() - 1)?, 1 << 10),
        b'm' | b'M' => (text.get(..text.len() - 1)?, 1 << 20),
        _ => (text, 1),
    };
    number(digits)?.checked_mul(factor)
}

/// Digits and nothing else.
pub(super) fn number(text: &str) -> Option<u64> {
    let fine = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    fine.then(|| text.parse().ok())?
}

/// Where `listen` listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Listen {
    /// Addresses; several where a range of ports is written.
    Addresses(Vec<SocketAddr>),
    /// A host name with its port: nginx looks it up when it starts.
    Name,
    /// `unix:`.
    Unix,
    /// More ports than are carried over.
    TooMany,
}

/// `1880`, `*:1880`, `10.0.0.1:1880`, `[::]:1880`, `1880-1889`.
///
/// # Errors
/// What nginx says of it.
pub(super) fn listen(text: &str) -> Result<Listen, &'static str> {
    if text.len() >= 5 && text.is_char_boundary(5) && text[..5].eq_ignore_ascii_case("unix:") {
        return Ok(Listen::Unix);
    }
    let (host, ports) = if let Some(rest) = text.strip_prefix('[') {
        let (host, rest) = rest.split_once(']').ok_or("invalid host")?;
        let host: Ipv6Addr = host.parse().map_err(|_| "invalid IPv6 address")?;
        (Some(IpAddr::V6(host)), rest.strip_prefix(':').ok_or("no port")?)
    } else {
        match text.rsplit_once(':') {
            Some(("*", ports)) => (Some(Ipv4Addr::UNSPECIFIED.into()), ports),
            Some((host, ports)) => (host.parse().ok().map(IpAddr::V4), ports),
            None if text.starts_with(|c: char| c.is_ascii_digit()) && !text.contains('.') => {
                (Some(Ipv4Addr::UNSPECIFIED.into()), text)
            }
            None => return Err("no port"),
        }
    };
    let port = |text: &str| number(text).and_then(|port| u16::try_from(port).ok()).filter(|port| *port > 0);
    let (first, last) = match ports.split_once('-') {
        Some((first, last)) => (port(first), port(last)),
        None => (port(ports), port(ports)),
    };
    let (Some(first), Some(last)) = (first, last) else { return Err("invalid port") };
    let Some(host) = host else { return Ok(Listen::Name) };
    if first > last {
        return Err("invalid port range");
    }
    if usize::from(last - first) >= MAX_PORTS {
        return Ok(Listen::TooMany);
    }
    Ok(Listen::Addresses((first..=last).map(|port| SocketAddr::new(host, port)).collect()))
}

/// What a server's or `proxy_pass`'s address is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// An address with a port, as it is kept.
    Address(String),
    /// A host name with a port.
    Name(String),
    /// `unix:`.
    Unix,
}

/// `host:port`.
///
/// # Errors
/// What nginx says of it.
pub(super) fn target(text: &str) -> Result<Target, &'static str> {
    if text.len() >= 5 && text.is_char_boundary(5) && text[..5].eq_ignore_ascii_case("unix:") {
        return Ok(Target::Unix);
    }
    if let Ok(address) = text.parse::<SocketAddr>() {
        return if address.port() == 0 { Err("invalid port") } else { Ok(Target::Address(text.to_owned())) };
    }
    let Some((host, port)) = text.rsplit_once(':') else { return Err("no port") };
    if !number(port).is_some_and(|port| (1..=65_535).contains(&port)) {
        return Err(if port.bytes().all(|byte| byte.is_ascii_digit()) { "invalid port" } else { "no port" });
    }
    let is_label = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let fine = !host.is_empty() && host.len() <= 253 && host.bytes().all(is_label);
    if fine { Ok(Target::Name(text.to_owned())) } else { Err("invalid host") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_seconds_unless_a_unit_says_otherwise() {
        let millis = |text| time(text).map(|time| time.as_millis());
        for (text, expected) in [
            ("10", Some(10_000)),
            ("10s", Some(10_000)),
            ("500ms", Some(500)),
            ("1m30s", Some(90_000)),
            ("1m 30", Some(90_000)),
            ("1h 30m", Some(5_400_000)),
            ("1M", Some(2_592_000_000)),
            ("1y", Some(31_536_000_000)),
            ("0", Some(0)),
            ("", None),
            ("s", None),
            ("10x", None),
            ("30s1m", None),
            ("-1", None),
            ("99999999999999999999", None),
        ] {
            assert_eq!(millis(text), expected, "{text}");
        }
    }

    #[test]
    fn sizes_have_small_letters() {
        for (text, expected) in [
            ("4096", Some(4_096)),
            ("16k", Some(16_384)),
            ("1M", Some(1 << 20)),
            ("k", None),
            ("1g", None),
            ("", None),
        ] {
            assert_eq!(size(text), expected, "{text}");
        }
    }

    #[test]
    fn listening_needs_a_port() {
        let one = |text: &str| Ok(Listen::Addresses(vec![text.parse().unwrap()]));
        for (text, expected) in [
            ("1880", one("0.0.0.0:1880")),
            ("*:1880", one("0.0.0.0:1880")),
            ("10.0.0.1:1880", one("10.0.0.1:1880")),
            ("[::]:1880", one("[::]:1880")),
            ("localhost:1880", Ok(Listen::Name)),
            ("unix:/run/mqtt", Ok(Listen::Unix)),
            ("1-65535", Ok(Listen::TooMany)),
            ("10.0.0.1", Err("no port")),
            ("[::1]", Err("no port")),
            ("localhost", Err("no port")),
            ("0", Err("invalid port")),
            ("65536", Err("invalid port")),
            ("1890-1880", Err("invalid port range")),
        ] {
            assert_eq!(listen(text), expected, "{text}");
        }
        let Ok(Listen::Addresses(range)) = listen("127.0.0.1:1880-1883") else { panic!("addresses") };
        assert_eq!(range.iter().map(SocketAddr::port).collect::<Vec<_>>(), [1880, 1881, 1882, 1883]);
    }

    #[test]
    fn servers_need_a_port() {
        for (text, expected) in [
            ("10.0.0.1:1883", Ok(Target::Address("10.0.0.1:1883".into()))),
            ("[::1]:1883", Ok(Target::Address("[::1]:1883".into()))),
            // as written: the hash sees it
            ("10.0.0.1:01883", Ok(Target::Address("10.0.0.1:01883".into()))),
            ("broker.example:1883", Ok(Target::Name("broker.example:1883".into()))),
            ("unix:/run/mqtt", Ok(Target::Unix)),
            ("10.0.0.1", Err("no port")),
            ("broker", Err("no port")),
            ("broker:0", Err("invalid port")),
            ("[::1]:0", Err("invalid port")),
            ("a b:1883", Err("invalid host")),
            (":1883", Err("invalid host")),
        ] {
            assert_eq!(target(text), expected, "{text}");
        }
    }
}
