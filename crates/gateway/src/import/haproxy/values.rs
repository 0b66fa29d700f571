//! Times and addresses as HAProxy writes them.
//!
//! Must not know: keywords.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

const UNITS: [(&str, u64); 6] = [
    ("us", 1),
    ("ms", 1_000),
    ("s", 1_000_000),
    ("m", 60_000_000),
    ("h", 3_600_000_000),
    ("d", 86_400_000_000),
];

/// `5s`, `1m`, `500` (milliseconds): a number with one unit or none.
pub(super) fn time(text: &str) -> Option<Duration> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at_checked(digits)?;
    let unit = if unit.is_empty() { "ms" } else { unit };
    let (_, micros) = UNITS.into_iter().find(|(name, _)| *name == unit)?;
    Some(Duration::from_micros(number.parse::<u64>().ok()?.checked_mul(micros)?))
}

/// `1000`, `10k`, `1m`: as tables are sized.
pub(super) fn size(text: &str) -> Option<u64> {
    let (digits, factor) = match text.as_bytes().last()? {
        b'k' | b'K' => (text.get(..text.len() - 1)?, 1 << 10),
        b'm' | b'M' => (text.get(..text.len() - 1)?, 1 << 20),
        b'g' | b'G' => (text.get(..text.len() - 1)?, 1 << 30),
        _ => (text, 1),
    };
    digits.parse::<u64>().ok()?.checked_mul(factor)
}

/// A host and what stands behind its last colon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Address<'a> {
    /// `None`: every address of both families (`ipv6@` says of which).
    pub(super) host: Option<Host<'a>>,
    pub(super) ports: &'a str,
    /// `ipv6@`.
    pub(super) v6: bool,
}

/// An address or a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Host<'a> {
    Ip(IpAddr),
    Name(&'a str),
}

/// Parts an address. `None`: it is no address of TCP over IP.
pub(super) fn address(text: &str) -> Option<Address<'_>> {
    let (family, rest) = text.split_once('@').unwrap_or(("", text));
    let v6 = match family {
        "" | "ipv4" | "tcp" | "tcp4" => false,
        "ipv6" | "tcp6" => true,
        _ => return None,
    };
    if rest.starts_with('/') {
        return None;
    }
    // the last colon begins the port, but for an address of IPv6 alone ("::1" needs "::1:" to have an empty one)
    let (host, ports) = match rest.strip_prefix('[') {
        Some(bracketed) => {
            let (host, after) = bracketed.split_once(']')?;
            (host, after.strip_prefix(':').unwrap_or(after))
        }
        None => rest.rsplit_once(':').unwrap_or((rest, "")),
    };
    let host = match host {
        "" | "*" => None,
        _ => Some(host.parse().map_or(Host::Name(host), Host::Ip)),
    };
    Some(Address { host, ports, v6 })
}

/// Where one part of `bind` listens.
///
/// # Errors
/// Why it can't be carried over, or what is wrong with it.
pub(super) fn listen(text: &str, most: usize) -> Result<Vec<SocketAddr>, &'static str> {
    let address =
        address(text).ok_or("only addresses of TCP are listened on, no sockets of Unix or of others")?;
    let ip = match address.host {
        None if address.v6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        None => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        Some(Host::Ip(ip)) => ip,
        Some(Host::Name(_)) => {
            return Err("a listener is bound to an address, not to a name: write the address");
        }
    };
    let (first, last) = address.ports.split_once('-').unwrap_or((address.ports, address.ports));
    let port = |text: &str| text.parse::<u16>().ok().filter(|port| *port > 0);
    let (Some(first), Some(last)) = (port(first), port(last)) else {
        return Err("a port is missing or wrong");
    };
    if first > last || usize::from(last - first) >= most {
        return Err("a range of ports that is too long or the wrong way round");
    }
    Ok((first..=last).map(|port| SocketAddr::new(ip, port)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_milliseconds_unless_a_unit_says_otherwise() {
        for (text, expected) in [
            ("500", Some(500)),
            ("5s", Some(5_000)),
            ("1m", Some(60_000)),
            ("1d", Some(86_400_000)),
            ("0", Some(0)),
            ("", None),
            ("s", None),
            ("1m30s", None),
            ("-1", None),
            ("5x", None),
        ] {
            assert_eq!(time(text).map(|time| time.as_millis()), expected, "{text}");
        }
        assert_eq!(size("1m"), Some(1 << 20));
        assert_eq!(size("x"), None);
    }

    #[test]
    fn addresses_have_their_port_behind_the_last_colon() {
        let all = |text| {
            listen(text, 8).map(|all| all.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "))
        };
        for (text, expected) in [
            (":1883", Ok("0.0.0.0:1883")),
            ("*:1883", Ok("0.0.0.0:1883")),
            ("10.0.0.1:1883", Ok("10.0.0.1:1883")),
            (":::1883", Ok("[::]:1883")),
            ("[::1]:1883", Ok("[::1]:1883")),
            ("ipv6@:1883", Ok("[::]:1883")),
            ("ipv4@10.0.0.1:1883-1884", Ok("10.0.0.1:1883 10.0.0.1:1884")),
        ] {
            assert_eq!(all(text).as_deref(), expected, "{text}");
        }
        for text in
            ["unix@/run/x", "/run/x", "fd@3", "host:1883", "10.0.0.1", "*:0", "*:9-1", "*:1-9", "*:x", ""]
        {
            assert!(all(text).is_err(), "{text}");
        }
    }
}
