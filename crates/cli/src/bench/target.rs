//! The server under load: the flags that say where it is and how to connect, checked and resolved.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream, ToSocketAddrs};
use std::time::Duration;

use client::Password;
use mqtt::Version;
use mqtt::packet::{Connect, ConnectProperties};

use super::generator::Role;
use crate::connection::{join, protocol_version};

/// Flags that say where the server is and how to connect, by mosquitto's names.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct TargetArgs {
    /// Host to connect to; several, divided by commas and each with a :port if it needs one, take turns
    #[arg(short = 'h', long, default_value = "localhost")]
    pub(super) host: String,
    /// Port to connect to [default: 1883, with --ws 8083]
    #[arg(short, long, value_parser = clap::value_parser!(u16).range(1..))]
    port: Option<u16>,
    /// Connect over WebSocket, at the path /mqtt
    #[arg(long)]
    pub(super) ws: bool,
    /// Protocol version: 5, 311 or 31, or mqttv5, mqttv311 or mqttv31
    #[arg(short = 'V', long, default_value = "311", value_parser = protocol_version)]
    pub(super) protocol_version: Version,
    /// User name
    #[arg(short, long, allow_hyphen_values = true)]
    pub(super) username: Option<String>,
    /// Password
    #[arg(short = 'P', long = "pw", allow_hyphen_values = true)]
    password: Option<String>,
    /// Client ids begin with this; a role and a number follow [default: bench- and the run's number]
    #[arg(short = 'i', long = "id-prefix", allow_hyphen_values = true)]
    id_prefix: Option<String>,
    /// Keep alive in seconds, 0 to 65535; 0 turns it off
    #[arg(short, long, default_value_t = 60)]
    keepalive: u16,
    /// Local addresses to connect from in turn, as 127.0.0.1,127.0.0.2 or 127.0.0.1-127.0.0.9: each has 28,000 ports
    #[arg(short = 'A', long = "bind", value_name = "ADDRESSES", value_parser = sources)]
    pub(super) bind: Option<Sources>,
}

/// Local addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Sources(pub(super) Vec<IpAddr>);

/// More addresses than anybody has ports for.
const MOST_SOURCES: u32 = 65_536;

/// Single addresses and ranges of IPv4 addresses, divided by commas.
pub(super) fn sources(text: &str) -> Result<Sources, String> {
    let wrong = || {
        format!(
            "allowed: addresses and ranges divided by commas, as 127.0.0.1-127.0.0.9,::1, at most {MOST_SOURCES}"
        )
    };
    let mut all = Vec::new();
    for part in text.split(',') {
        if let Some((first, last)) = part.split_once('-') {
            let parse = |text: &str| text.trim().parse::<Ipv4Addr>().map(u32::from).map_err(|_| wrong());
            let (first, last) = (parse(first)?, parse(last)?);
            if first > last || last - first >= MOST_SOURCES {
                return Err(wrong());
            }
            all.extend((first..=last).map(|bits| IpAddr::from(Ipv4Addr::from(bits))));
        } else {
            all.push(part.trim().parse().map_err(|_| wrong())?);
        }
        if all.len() > MOST_SOURCES as usize {
            return Err(wrong());
        }
    }
    Ok(Sources(all))
}

/// The server, resolved.
#[derive(Clone, Debug)]
pub(super) struct Target {
    /// As the user named it.
    pub(super) name: String,
    pub(super) servers: Vec<SocketAddr>,
    pub(super) version: Version,
    pub(super) keep_alive: u16,
    pub(super) websocket: bool,
    username: Option<String>,
    password: Option<Vec<u8>>,
    pub(super) id_prefix: String,
    sources: Vec<IpAddr>,
}

impl TargetArgs {
    /// Checks the flags and resolves the names. `run` tells the client ids of this run from others'.
    ///
    /// # Errors
    /// What is wrong, in one sentence.
    pub(super) fn target(&self, run: u32) -> Result<Target, String> {
        if self.password.is_some() && self.username.is_none() && !self.protocol_version.is_v5() {
            return Err("a password (-P) needs a user name (-u) before MQTT 5 [v3 MQTT-3.1.2-22]".to_owned());
        }
        let names: Vec<String> = self.host.split(',').map(|host| self.named(host.trim())).collect();
        let servers = names.iter().map(|name| address(name)).collect::<Result<Vec<_>, _>>()?;
        let sources = self.bind.clone().map(|sources| sources.0).unwrap_or_default();
        for server in &servers {
            if !sources.is_empty() && !sources.iter().any(|source| source.is_ipv4() == server.is_ipv4()) {
                return Err(format!("-A: no address has the family of {server}"));
            }
        }
        Ok(Target {
            name: names.join(","),
            servers,
            version: self.protocol_version,
            keep_alive: self.keepalive,
            websocket: self.ws,
            username: self.username.clone(),
            password: self.password.clone().map(String::into_bytes),
            id_prefix: self.id_prefix.clone().unwrap_or_else(|| format!("bench-{run:08x}-")),
            sources,
        })
    }

    /// For clients of the `client` crate.
    pub(super) fn credentials(&self) -> (Option<String>, Option<Password>) {
        (self.username.clone(), self.password.clone().map(Password::from))
    }

    fn named(&self, host: &str) -> String {
        let has_port = host.parse::<SocketAddr>().is_ok() || host.matches(':').count() == 1;
        if has_port {
            host.to_owned()
        } else {
            join(host, self.port.unwrap_or(if self.ws { 8083 } else { 1883 }))
        }
    }
}

/// How long each address of a name with several may take to answer.
const TRY: Duration = Duration::from_secs(3);

/// The address of `host:port`. Where a name has several, the first that accepts a connection; every client then uses it.
pub(crate) fn address(name: &str) -> Result<SocketAddr, String> {
    let all: Vec<SocketAddr> = name.to_socket_addrs().map_err(|error| format!("{name}: {error}"))?.collect();
    match all.as_slice() {
        [] => Err(format!("{name}: the name has no address")),
        [one] => Ok(*one),
        many => {
            let open = many.iter().find(|address| TcpStream::connect_timeout(address, TRY).is_ok());
            Ok(*open.or_else(|| many.first()).ok_or_else(|| format!("{name}: the name has no address"))?)
        }
    }
}

impl Target {
    /// The server of the `number`-th client.
    pub(super) fn server(&self, number: u64) -> SocketAddr {
        let index = number as usize % self.servers.len().max(1);
        self.servers.get(index).copied().unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 1883)))
    }

    /// The local address of the `number`-th client.
    pub(super) fn source(&self, number: u64) -> Option<IpAddr> {
        let server = self.server(number);
        let fits = |source: &&IpAddr| source.is_ipv4() == server.is_ipv4();
        let count = self.sources.iter().filter(fits).count();
        let index = (number as usize).checked_rem(count)?;
        self.sources.iter().filter(fits).nth(index).copied()
    }

    /// The CONNECT of a client.
    pub(super) fn connect(&self, number: u64, role: Role) -> Connect<'_> {
        let name = match role {
            Role::Idle => format!("{}{number}", self.id_prefix),
            Role::Publisher(number) => format!("{}p{number}", self.id_prefix),
            Role::Subscriber(number) => format!("{}s{number}", self.id_prefix),
        };
        Connect {
            version: self.version,
            bridge: false,
            clean_start: true,
            keep_alive: self.keep_alive,
            client_id: name.into(),
            will: None,
            username: self.username.as_deref().map(Into::into),
            password: self.password.as_deref().map(Into::into),
            properties: ConnectProperties::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_addresses_and_ranges() {
        let text = |text: &str| {
            sources(text)
                .map(|sources| sources.0.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "))
        };
        assert_eq!(text("127.0.0.1").unwrap(), "127.0.0.1");
        assert_eq!(
            text("127.0.0.254-127.0.1.1, ::1").unwrap(),
            "127.0.0.254 127.0.0.255 127.0.1.0 127.0.1.1 ::1"
        );
        for wrong in ["", "127.0.0.2-127.0.0.1", "127.0.0.1-", "10.0.0.0-10.1.0.0", "localhost", "::1-::2"] {
            assert!(text(wrong).is_err(), "{wrong}");
        }
        assert_eq!(sources("10.0.0.0-10.0.255.255").unwrap().0.len(), 65_536);
    }

    #[test]
    fn clients_take_servers_and_sources_in_turn() {
        let target = Target {
            name: String::new(),
            servers: vec!["10.0.0.1:1883".parse().unwrap(), "[::1]:1883".parse().unwrap()],
            version: Version::V311,
            keep_alive: 60,
            websocket: false,
            username: None,
            password: None,
            id_prefix: "x".to_owned(),
            sources: sources("127.0.0.1-127.0.0.2,::1").unwrap().0,
        };
        let from = |number| target.source(number).map(|source| source.to_string());
        assert_eq!(from(0).as_deref(), Some("127.0.0.1"));
        assert_eq!(from(1).as_deref(), Some("::1"));
        assert_eq!(from(3).as_deref(), Some("::1"));
        let without = Target { sources: Vec::new(), ..target.clone() };
        assert_eq!(without.source(5), None);
    }
}
