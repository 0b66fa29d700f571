//! A network: an address and the length of its prefix.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// A network such as `10.0.0.0/8`, `fd00::/8`, or one address. IPv4 addresses that arrive inside IPv6
/// (`::ffff:10.0.0.1`) count as IPv4, in networks and in what is looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct IpNet {
    /// Without host bits.
    address: IpAddr,
    prefix: u8,
}

/// The text is no network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a network such as \"10.0.0.0/8\" or \"fd00::/8\", or one address")]
pub struct NotANetwork;

impl IpNet {
    /// The network of an address; host bits are cleared. Nothing when the prefix is longer than the address.
    pub fn new(address: IpAddr, prefix: u8) -> Option<Self> {
        let (address, prefix) = normalise(address, prefix)?;
        Some(Self { address: mask(address, prefix), prefix })
    }

    /// Whether the network has this address.
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        // Another family never has the same mask result: the enum's variant differs.
        mask(address, self.prefix) == self.address
    }

    /// The first address of the network.
    pub fn address(&self) -> IpAddr {
        self.address
    }

    /// The length of the prefix in bits.
    pub fn prefix(&self) -> u8 {
        self.prefix
    }

    /// The networks of this machine and of private use: 127.0.0.0/8 and ::1 (RFC 1122, RFC 4291), 10.0.0.0/8,
    /// 172.16.0.0/12, 192.168.0.0/16 (RFC 1918), fc00::/7 (RFC 4193), and the link-local 169.254.0.0/16
    /// (RFC 3927) and fe80::/10 (RFC 4291).
    pub fn private_and_loopback() -> Vec<Self> {
        let v4 = |a, b, prefix| Self { address: IpAddr::V4(Ipv4Addr::new(a, b, 0, 0)), prefix };
        let v6 =
            |first, prefix| Self { address: IpAddr::V6(Ipv6Addr::new(first, 0, 0, 0, 0, 0, 0, 0)), prefix };
        let loopback = Self { address: IpAddr::V6(Ipv6Addr::LOCALHOST), prefix: 128 };
        vec![
            v4(127, 0, 8),
            loopback,
            v4(10, 0, 8),
            v4(172, 16, 12),
            v4(192, 168, 16),
            v4(169, 254, 16),
            v6(0xfc00, 7),
            v6(0xfe80, 10),
        ]
    }
}

/// Turns a mapped IPv4 network into the IPv4 network it is.
fn normalise(address: IpAddr, prefix: u8) -> Option<(IpAddr, u8)> {
    match (address, address.to_canonical()) {
        (IpAddr::V6(_), v4 @ IpAddr::V4(_)) if (96..=128).contains(&prefix) => Some((v4, prefix - 96)),
        (IpAddr::V6(_), _) if prefix <= 128 => Some((address, prefix)),
        (IpAddr::V4(_), _) if prefix <= 32 => Some((address, prefix)),
        _ => None,
    }
}

fn mask(address: IpAddr, prefix: u8) -> IpAddr {
    // A shift by all bits is no shift to Rust: it gives None, which is the mask of the empty prefix.
    match address {
        IpAddr::V4(v4) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(prefix.min(32))).unwrap_or(0);
            IpAddr::V4(Ipv4Addr::from_bits(v4.to_bits() & mask))
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(prefix.min(128))).unwrap_or(0);
            IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & mask))
        }
    }
}

impl From<IpAddr> for IpNet {
    fn from(address: IpAddr) -> Self {
        let address = address.to_canonical();
        Self { address, prefix: if address.is_ipv4() { 32 } else { 128 } }
    }
}

impl FromStr for IpNet {
    type Err = NotANetwork;

    fn from_str(text: &str) -> Result<Self, NotANetwork> {
        let Some((address, prefix)) = text.split_once('/') else {
            return text.parse::<IpAddr>().map(Self::from).map_err(|_| NotANetwork);
        };
        // u8's parser would take "+8" and "008".
        if prefix.is_empty() || prefix.len() > 3 || !prefix.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(NotANetwork);
        }
        let address = address.parse().map_err(|_| NotANetwork)?;
        Self::new(address, prefix.parse().map_err(|_| NotANetwork)?).ok_or(NotANetwork)
    }
}

impl fmt::Display for IpNet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    #[test]
    fn networks_have_their_own_addresses_only() {
        for (network, inside, outside) in [
            ("10.0.0.0/8", "10.255.0.1", "11.0.0.0"),
            ("10.1.2.3/8", "10.255.0.1", "11.0.0.0"),
            ("0.0.0.0/0", "255.255.255.255", "::1"),
            ("::/0", "fe80::1", "1.2.3.4"),
            ("192.168.1.7", "192.168.1.7", "192.168.1.8"),
            ("fd00::/8", "fd12::9", "fe00::"),
            ("::ffff:10.0.0.0/104", "10.1.1.1", "11.1.1.1"),
            ("10.0.0.0/8", "::ffff:10.1.1.1", "::ffff:11.1.1.1"),
        ] {
            assert!(net(network).contains(inside.parse().unwrap()), "{network} {inside}");
            assert!(!net(network).contains(outside.parse().unwrap()), "{network} {outside}");
        }
    }

    #[test]
    fn what_is_no_network_is_refused() {
        for text in
            ["", "/", "10.0.0.0/", "10.0.0.0/33", "::/129", "10.0.0/8", "10.0.0.0/+8", "10.0.0.0/8/8", "a/8"]
        {
            assert_eq!(text.parse::<IpNet>(), Err(NotANetwork), "{text}");
        }
    }

    #[test]
    fn private_and_loopback_has_no_public_address() {
        let all = IpNet::private_and_loopback();
        let inside = |text: &str| all.iter().any(|network| network.contains(text.parse().unwrap()));
        for text in [
            "127.0.0.1",
            "::1",
            "10.9.8.7",
            "172.31.255.255",
            "192.168.0.1",
            "fd00::1",
            "fe80::1",
            "::ffff:127.0.0.1",
        ] {
            assert!(inside(text), "{text}");
        }
        for text in ["8.8.8.8", "172.32.0.0", "192.169.0.1", "2001:db8::1", "::2", "::ffff:8.8.8.8"] {
            assert!(!inside(text), "{text}");
        }
        for network in &all {
            assert_eq!(net(&network.to_string()), *network);
        }
    }

    proptest! {
        #[test]
        fn containment_is_equality_of_the_first_bits(a: u32, b: u32, prefix in 0u8..=32) {
            let network = IpNet::new(IpAddr::V4(a.into()), prefix).unwrap();
            let bits = |x: u32| (0..u32::from(prefix)).map(|bit| x >> (31 - bit) & 1).collect::<Vec<_>>();
            prop_assert_eq!(network.contains(IpAddr::V4(b.into())), bits(a) == bits(b));
            prop_assert!(network.contains(IpAddr::V4(a.into())));
        }

        #[test]
        fn what_is_written_reads_back(address: u128, prefix in 0u8..=128) {
            let address = IpAddr::V6(address.into());
            prop_assume!(address.to_canonical().is_ipv6());
            let network = IpNet::new(address, prefix).unwrap();
            // A short prefix of anything may leave a mapped address with less than 96 bits: it has no text form.
            if network.address.to_canonical().is_ipv6() {
                prop_assert_eq!(net(&network.to_string()), network);
            }
        }
    }
}
