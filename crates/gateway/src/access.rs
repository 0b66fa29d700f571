//! Who may connect to a listener, by address: the meaning of nginx's `allow` and `deny`. Pure.
//!
//! The list is read from its beginning and the first rule that fits decides; an address that no rule fits is let in.
//! The address is the device's own: behind a trusted balancer that of the PROXY header.

use std::net::IpAddr;
use std::str::FromStr;

use runtime::config::IpNet;

/// Most rules of a list: it is read from its beginning for every connection.
pub const MAX_RULES: usize = 1_000;

/// One rule of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    /// Whether those it fits are let in.
    pub allow: bool,
    /// Whom it fits.
    pub network: Network,
}

/// Whom a rule fits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Network {
    /// Everybody.
    All,
    /// The addresses of a network.
    Net(IpNet),
}

/// `all`, a network, or an address; `None`: it is none of these.
pub fn parse(text: &str) -> Option<Network> {
    match text {
        "all" => Some(Network::All),
        _ => IpNet::from_str(text).ok().map(Network::Net),
    }
}

/// Whether the list lets an address in.
pub fn allows(list: &[Access], address: IpAddr) -> bool {
    let fits = |rule: &&Access| match rule.network {
        Network::All => true,
        Network::Net(network) => network.contains(address),
    };
    list.iter().find(fits).is_none_or(|rule| rule.allow)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn list(text: &str) -> Vec<Access> {
        let rule = |rule: &str| {
            let (word, network) = rule.trim().split_once(' ').unwrap();
            Access { allow: word == "allow", network: parse(network).unwrap() }
        };
        text.split(',').map(rule).collect()
    }

    #[test]
    fn the_first_rule_that_fits_decides() {
        let list =
            list("deny 192.168.1.1, allow 192.168.1.0/24, allow 10.1.1.0/16, allow 2001:db8::/32, deny all");
        let allows = |address: &str| allows(&list, address.parse().unwrap());
        assert!(!allows("192.168.1.1") && allows("192.168.1.2") && allows("10.1.255.1"));
        assert!(allows("2001:db8::1") && !allows("2001:db9::1") && !allows("127.0.0.1"));
        assert!(allows("::ffff:10.1.0.1"), "IPv4 inside IPv6 is IPv4");
    }

    #[test]
    fn whom_no_rule_fits_is_let_in() {
        assert!(allows(&[], "10.0.0.1".parse().unwrap()));
        assert!(allows(&list("deny 10.0.0.0/8"), "11.0.0.1".parse().unwrap()));
        assert!(parse("everybody").is_none() && parse("10.0.0.0/33").is_none() && parse("").is_none());
    }

    proptest! {
        /// The oracle looks at bits, from the last rule to the first.
        #[test]
        fn a_list_is_what_its_rules_say_from_the_end(
            rules in prop::collection::vec((any::<bool>(), 0_u32..16, 24_u8..=32), 0..8),
            address in 0_u32..16,
        ) {
            let list: Vec<_> = rules
                .iter()
                .map(|(allow, net, prefix)| Access {
                    allow: *allow,
                    network: Network::Net(IpNet::new(IpAddr::V4((*net).into()), *prefix).unwrap()),
                })
                .collect();
            let mut oracle = true;
            for (allow, net, prefix) in rules.iter().rev() {
                let host_bits = 32 - u32::from(*prefix);
                if u64::from(*net) >> host_bits == u64::from(address) >> host_bits {
                    oracle = *allow;
                }
            }
            prop_assert_eq!(allows(&list, IpAddr::V4(address.into())), oracle);
        }
    }
}
