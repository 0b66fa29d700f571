//! Whose connection it is, as HTTP proxies say it: `X-Forwarded-For`, or `Forwarded` of RFC 7239.
//!
//! Each proxy appends the address that it was connected from. Whoever connects to the first can write anything before
//! that, so the list is read from its right end for as long as the addresses belong to proxies that are trusted. The
//! first one that does not is the client, whatever stands before it.

use std::net::{IpAddr, SocketAddr};

use crate::proxy_protocol::TrustedProxies;

/// Addresses that are looked at; a longer chain of proxies is an error.
pub const MAX_HOPS: usize = 32;

/// The list says nothing that can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ForwardedError {
    /// What stands where the client must be is no address.
    #[error("an element is no address")]
    NotAnAddress,
    /// More than [`MAX_HOPS`] trusted addresses.
    #[error("more than {MAX_HOPS} proxies")]
    TooLong,
}

/// The client's address, for a connection that came from `peer`: `peer` itself if it is not trusted. Where all addresses are
/// trusted it is the leftmost one. The port is what stands beside the address, otherwise 0.
///
/// `name` is the field's; `Forwarded` has a grammar of its own, all others are lists of addresses.
///
/// # Errors
/// The list breaks off before the client's address.
pub fn client_address(
    name: &str,
    value: &str,
    peer: SocketAddr,
    trusted: &TrustedProxies,
) -> Result<SocketAddr, ForwardedError> {
    let rfc7239 = name.eq_ignore_ascii_case("Forwarded");
    let mut client = peer;
    for (hop, element) in value.rsplit(',').enumerate() {
        if !trusted.allows(client.ip()) {
            break;
        }
        if hop == MAX_HOPS {
            return Err(ForwardedError::TooLong);
        }
        let element = element.trim();
        let text = if rfc7239 { for_parameter(element) } else { Some(element) };
        client = text.and_then(address).ok_or(ForwardedError::NotAnAddress)?;
    }
    Ok(client)
}

/// The value of `for` in an element of `Forwarded`, such as `for="[2001:db8::1]:4711";proto=https`. Commas and semicolons
/// in quotes have no meaning in an address, so what has them is no address either.
fn for_parameter(element: &str) -> Option<&str> {
    let mut pairs = element.split(';').filter_map(|pair| pair.trim().split_once('='));
    let (_, value) = pairs.find(|(name, _)| name.eq_ignore_ascii_case("for"))?;
    match value.strip_prefix('"') {
        Some(quoted) => quoted.strip_suffix('"'),
        None => Some(value),
    }
}

/// `192.0.2.1`, `192.0.2.1:4711`, `2001:db8::1`, `[2001:db8::1]` or `[2001:db8::1]:4711`.
fn address(text: &str) -> Option<SocketAddr> {
    if let Ok(ip) = text.parse::<IpAddr>() {
        return Some(SocketAddr::new(ip.to_canonical(), 0));
    }
    if let Some(inner) = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')) {
        return inner
            .parse()
            .ok()
            .map(|ip: std::net::Ipv6Addr| SocketAddr::new(IpAddr::V6(ip).to_canonical(), 0));
    }
    let with_port: SocketAddr = text.parse().ok()?;
    Some(SocketAddr::new(with_port.ip().to_canonical(), with_port.port()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn client(name: &str, value: &str) -> Result<String, ForwardedError> {
        let trusted = TrustedProxies::new(vec!["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()]);
        client_address(name, value, "10.0.0.1:5000".parse().unwrap(), &trusted).map(|found| found.to_string())
    }

    #[test]
    fn the_client_is_the_rightmost_address_that_is_not_trusted() {
        for (value, expected) in [
            ("203.0.113.7", "203.0.113.7:0"),
            ("203.0.113.7, 10.1.1.1,10.2.2.2", "203.0.113.7:0"),
            // what the client itself wrote is not believed
            ("198.51.100.1, 203.0.113.7", "203.0.113.7:0"),
            ("nonsense, 203.0.113.7, fd00::1", "203.0.113.7:0"),
            // all are trusted: the one furthest away
            ("10.9.9.9, 10.1.1.1", "10.9.9.9:0"),
            ("203.0.113.7:4711", "203.0.113.7:4711"),
            ("2001:db8::1", "[2001:db8::1]:0"),
            ("[2001:db8::1]", "[2001:db8::1]:0"),
            (" [2001:db8::1]:99 ", "[2001:db8::1]:99"),
            ("::ffff:203.0.113.7", "203.0.113.7:0"),
        ] {
            assert_eq!(client("X-Forwarded-For", value).as_deref(), Ok(expected), "{value}");
        }
    }

    #[test]
    fn a_list_that_breaks_off_before_the_client_is_not_believed() {
        for value in
            ["", "unknown", "10.1.1.1,", "203.0.113.7, 10.1.1", "203.0.113.7, _hidden", "203.0.113.7:99999"]
        {
            assert_eq!(client("x-forwarded-for", value), Err(ForwardedError::NotAnAddress), "{value:?}");
        }
        let chain = |hops| ["10.0.0.2"].repeat(hops).join(",");
        assert_eq!(client("X-Forwarded-For", &chain(MAX_HOPS)).as_deref(), Ok("10.0.0.2:0"));
        assert_eq!(client("X-Forwarded-For", &chain(MAX_HOPS + 1)), Err(ForwardedError::TooLong));
    }

    #[test]
    fn a_stranger_is_who_it_is_whatever_it_says() {
        let trusted = TrustedProxies::default();
        let peer = "203.0.113.9:5000".parse().unwrap();
        assert_eq!(client_address("X-Forwarded-For", "192.0.2.1", peer, &trusted), Ok(peer));
    }

    #[test]
    fn forwarded_has_a_grammar_of_its_own() {
        for (value, expected) in [
            ("for=203.0.113.7", "203.0.113.7:0"),
            (
                "for=192.0.2.1, For=\"203.0.113.7:4711\";proto=https;by=10.0.0.1, for=10.1.1.1",
                "203.0.113.7:4711",
            ),
            ("proto=http; for=\"[2001:db8:cafe::17]:4711\"", "[2001:db8:cafe::17]:4711"),
        ] {
            assert_eq!(client("forwarded", value).as_deref(), Ok(expected), "{value}");
        }
        for value in
            ["for=unknown", "for=_secret", "for=\"203.0.113.7", "203.0.113.7", "by=203.0.113.7", "for="]
        {
            assert_eq!(client("Forwarded", value), Err(ForwardedError::NotAnAddress), "{value}");
        }
    }

    proptest! {
        /// As one would say it: the list and the peer from the right, up to the first that is not trusted.
        #[test]
        fn the_walk_is_that_of_a_naive_one(hops in proptest::collection::vec((0..3u8, any::<u8>()), 0..6)) {
            let text: Vec<_> = hops.iter().map(|(kind, last)| match kind {
                0 => format!("203.0.113.{last}"),
                1 => format!("10.0.0.{last}"),
                _ => "garbage".to_owned(),
            }).collect();
            let mut expected = Ok("10.0.0.1:5000".to_owned());
            for ((kind, _), address) in hops.iter().zip(&text).rev() {
                expected = if *kind == 2 { Err(ForwardedError::NotAnAddress) } else { Ok(format!("{address}:0")) };
                if *kind != 1 {
                    break;
                }
            }
            if hops.is_empty() {
                expected = Err(ForwardedError::NotAnAddress);
            }
            prop_assert_eq!(client("X-Forwarded-For", &text.join(", ")), expected);
        }
    }
}
