//! The `[admin]` section.

use std::net::{Ipv4Addr, SocketAddr};

use runtime::config::Table;

/// Where the API listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AdminConfig {
    /// Address and port; port 0 takes a free one.
    pub bind: SocketAddr,
}

impl Default for AdminConfig {
    fn default() -> Self {
        Self { bind: SocketAddr::from((Ipv4Addr::LOCALHOST, 18083)) }
    }
}

/// Reads the section: `bind` and `allow_remote`.
///
/// The API has no authentication yet. An address that other machines can reach is therefore taken only together with
/// `allow_remote = true`: nobody opens the door by a typing error.
pub fn read(table: &mut Table<'_>) -> AdminConfig {
    let bind = table.socket_addr("bind").unwrap_or_else(|| AdminConfig::default().bind);
    let allow_remote = table.bool("allow_remote").unwrap_or(false);
    if !bind.ip().to_canonical().is_loopback() && !allow_remote {
        table.problem(
            "bind",
            "a loopback address such as \"127.0.0.1:18083\"; the API has no authentication yet, so another address \
             needs allow_remote = true beside it, and then everyone who reaches it may do everything",
        );
    }
    AdminConfig { bind }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use runtime::config::Document;

    use super::*;

    fn parse(text: &str) -> Result<AdminConfig, String> {
        let document = Document::parse(Path::new("t.toml"), text).map_err(|error| error.to_string())?;
        let read = document.read(|root| root.table("admin", read).unwrap_or_default());
        read.map_err(|error| error.to_string())
    }

    #[test]
    fn without_a_word_it_listens_on_loopback() {
        assert_eq!(parse("").unwrap().bind.to_string(), "127.0.0.1:18083");
        assert_eq!(parse("[admin]").unwrap(), AdminConfig::default());
    }

    #[test]
    fn any_loopback_address_is_taken() {
        for bind in ["127.0.0.1:0", "127.3.2.1:99", "[::1]:18083"] {
            assert_eq!(parse(&format!("[admin]\nbind = \"{bind}\"")).unwrap().bind.to_string(), bind);
        }
    }

    #[test]
    fn an_address_that_others_reach_has_to_be_chosen_explicitly() {
        for bind in ["0.0.0.0:18083", "[::]:18083", "10.1.2.3:18083", "[::ffff:10.0.0.1]:1"] {
            let problem = parse(&format!("[admin]\nbind = \"{bind}\"")).unwrap_err();
            assert!(problem.starts_with("t.toml:2: admin.bind: "), "{problem}");
            assert!(problem.contains("allow_remote = true"), "{problem}");
            let refused = parse(&format!("[admin]\nbind = \"{bind}\"\nallow_remote = false"));
            assert!(refused.is_err(), "{refused:?}");
            let chosen = parse(&format!("[admin]\nbind = \"{bind}\"\nallow_remote = true")).unwrap();
            assert_eq!(chosen.bind.to_string(), bind);
        }
    }

    #[test]
    fn an_unknown_key_is_told() {
        let problem = parse("[admin]\nbnd = \"127.0.0.1:1\"").unwrap_err();
        assert!(problem.contains("admin.bnd"), "{problem}");
    }
}
