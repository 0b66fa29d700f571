//! Which server a connection goes to, or why it goes nowhere: pure.
//!
//! [`plan`] turns what is known of the connection into a way to choose (once); [`choose`] applies it to the servers
//! as they are now (again for each server that could not be reached). Order of precedence: a pin, the balancing
//! of the upstream, and for a connection without a key the listener's rule. Nothing falls back in silence: a
//! connection without a key carries its [`NoKey`] to the counters and the log.

use std::borrow::Cow;
use std::fmt;
use std::net::IpAddr;

use crate::balance::{Hash, Load, RoundRobin, random_two};
use crate::sticky::{Pins, Record};

/// How an upstream chooses a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Balance {
    /// Consistent hash of the client identifier.
    ClientId,
    /// Consistent hash of the user name.
    Username,
    /// Consistent hash of the device's address, without its port.
    SourceIp,
    /// In turns, by weight.
    RoundRobin,
    /// The fewest connections per weight.
    LeastConnections,
    /// Two drawn by weight, the one with fewer connections per weight.
    RandomTwo,
}

impl Balance {
    /// As written in the configuration and in the API.
    pub const fn name(self) -> &'static str {
        match self {
            Self::ClientId => "client_id",
            Self::Username => "username",
            Self::SourceIp => "source_ip",
            Self::RoundRobin => "round_robin",
            Self::LeastConnections => "least_connections",
            Self::RandomTwo => "random_two",
        }
    }
}

/// What happens to a connection that lacks the key of the balancing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// It is refused.
    Reject,
    /// As [`Balance::RoundRobin`].
    RoundRobin,
    /// As [`Balance::SourceIp`].
    SourceIp,
    /// As [`Balance::LeastConnections`].
    LeastConnections,
}

impl Rule {
    /// As written in the configuration.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Reject => "reject",
            Self::RoundRobin => "round_robin",
            Self::SourceIp => "source_ip",
            Self::LeastConnections => "least_connections",
        }
    }
}

/// A listener's rules for connections without a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// `balance = "client_id"`, and the client gave an empty one for the server to make one up [MQTT-3.1.3-6].
    pub empty_client_id: Rule,
    /// `balance = "username"`, and the CONNECT has no user name or an empty one.
    pub no_username: Rule,
    /// The stream does not begin with a CONNECT of any MQTT version, whatever the balancing.
    pub not_mqtt: Rule,
}

/// Why a connection had no key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoKey {
    /// See [`Rules::empty_client_id`].
    EmptyClientId,
    /// See [`Rules::no_username`].
    NoUsername,
    /// See [`Rules::not_mqtt`].
    NotMqtt,
}

impl NoKey {
    /// Every reason, in the order of [`NoKey::index`].
    pub const ALL: [Self; 3] = [Self::EmptyClientId, Self::NoUsername, Self::NotMqtt];

    /// For logs and metrics; stable.
    pub const fn name(self) -> &'static str {
        match self {
            Self::EmptyClientId => "empty_client_id",
            Self::NoUsername => "no_username",
            Self::NotMqtt => "not_mqtt",
        }
    }

    /// Its place in [`NoKey::ALL`].
    pub const fn index(self) -> usize {
        self as usize
    }
}

/// Why this server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChosenBy {
    /// The consistent hash of client identifier or user name.
    Hash,
    /// A pin.
    Pin,
    /// Its turn.
    RoundRobin,
    /// It had the fewest connections per weight.
    LeastConnections,
    /// The better of two drawn.
    RandomTwo,
    /// The consistent hash of the device's address.
    SourceIp,
    /// Those that were meant could not be reached.
    Failover,
}

impl ChosenBy {
    /// Every reason, in the order of [`ChosenBy::index`].
    pub const ALL: [Self; 7] = [
        Self::Hash,
        Self::Pin,
        Self::RoundRobin,
        Self::LeastConnections,
        Self::RandomTwo,
        Self::SourceIp,
        Self::Failover,
    ];

    /// Its place in [`ChosenBy::ALL`].
    pub const fn index(self) -> usize {
        self as usize
    }

    /// As the API, the log and the metrics say it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Hash => "hash",
            Self::Pin => "pin",
            Self::RoundRobin => "round_robin",
            Self::LeastConnections => "least_connections",
            Self::RandomTwo => "random_two",
            Self::SourceIp => "source_ip",
            Self::Failover => "failover",
        }
    }
}

/// What is known of a connection before it has a server.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The device's own address.
    pub source: IpAddr,
    /// Of its CONNECT; `None`: the stream is not MQTT.
    pub connect: Option<Names<'a>>,
}

/// The names in a CONNECT.
#[derive(Clone, Copy, Debug)]
pub struct Names<'a> {
    /// May be empty.
    pub client_id: &'a str,
    /// `None`: there is none, or the balancing did not ask for it and it had not arrived.
    pub username: Option<&'a str>,
}

/// How a connection is to be balanced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan<'a> {
    /// By what.
    pub by: By<'a>,
    /// What pins know it by; `None`: it can have no pin.
    pub pin_key: Option<Cow<'a, str>>,
    /// Set when a rule stepped in for the missing key.
    pub no_key: Option<NoKey>,
}

/// The method of a [`Plan`], with its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum By<'a> {
    /// Consistent hash of a name.
    Name(&'a str),
    /// Consistent hash of the device's address as text, which is what nginx hashes for `$remote_addr`.
    Source(String),
    /// See [`Balance::RoundRobin`].
    RoundRobin,
    /// See [`Balance::LeastConnections`].
    LeastConnections,
    /// See [`Balance::RandomTwo`].
    RandomTwo,
}

/// Decides how a connection is balanced.
///
/// # Errors
/// The rule for its missing key is [`Rule::Reject`].
pub fn plan<'a>(balance: Balance, rules: &Rules, request: &Request<'a>) -> Result<Plan<'a>, NoKey> {
    let source = || request.source.to_canonical().to_string();
    let Some(names) = request.connect else {
        return fall_back(rules.not_mqtt, NoKey::NotMqtt, source);
    };
    let client_id = Some(names.client_id).filter(|id| !id.is_empty());
    let (by, pin_key) = match balance {
        Balance::ClientId => match client_id {
            Some(id) => (By::Name(id), Some(Cow::Borrowed(id))),
            None => return fall_back(rules.empty_client_id, NoKey::EmptyClientId, source),
        },
        Balance::Username => match names.username.filter(|name| !name.is_empty()) {
            Some(name) => (By::Name(name), Some(Cow::Borrowed(name))),
            None => return fall_back(rules.no_username, NoKey::NoUsername, source),
        },
        Balance::SourceIp => (By::Source(source()), Some(Cow::Owned(source()))),
        Balance::RoundRobin => (By::RoundRobin, client_id.map(Cow::Borrowed)),
        Balance::LeastConnections => (By::LeastConnections, client_id.map(Cow::Borrowed)),
        Balance::RandomTwo => (By::RandomTwo, client_id.map(Cow::Borrowed)),
    };
    Ok(Plan { by, pin_key, no_key: None })
}

fn fall_back<'a>(rule: Rule, why: NoKey, source: impl Fn() -> String) -> Result<Plan<'a>, NoKey> {
    let by = match rule {
        Rule::Reject => return Err(why),
        Rule::RoundRobin => By::RoundRobin,
        Rule::SourceIp => By::Source(source()),
        Rule::LeastConnections => By::LeastConnections,
    };
    Ok(Plan { by, pin_key: None, no_key: Some(why) })
}

/// An upstream as it is now.
pub struct View<'a> {
    /// The consistent hash over the servers.
    pub hash: &'a Hash,
    /// The servers, in the order the hash knows them; those already tried are not usable.
    pub loads: &'a [Load],
    /// Finds a server by its name.
    pub index_of: &'a dyn Fn(&str) -> Option<usize>,
    /// The pins.
    pub pins: &'a mut Pins,
    /// Whose turn it is.
    pub round_robin: &'a mut RoundRobin,
    /// Uniform random numbers for [`Balance::RandomTwo`].
    pub draws: [u64; 2],
    /// Whether a server was tried for this connection and could not be reached.
    pub failed_over: bool,
}

impl fmt::Debug for View<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("View").field("loads", &self.loads).finish_non_exhaustive()
    }
}

/// Chooses a server: its index, and why it. `None`: none is usable.
pub fn choose(plan: &Plan<'_>, view: View<'_>) -> Option<(usize, ChosenBy)> {
    let View { hash, loads, index_of, pins, round_robin, draws, failed_over } = view;
    let usable = |index: usize| loads.get(index).is_some_and(|load| load.usable);
    let pinned = plan
        .pin_key
        .as_deref()
        .and_then(|key| pins.get(key))
        .and_then(|server| index_of(&server))
        .filter(|&index| usable(index));
    let (index, why) = match (&plan.by, pinned) {
        (_, Some(index)) => (index, ChosenBy::Pin),
        (By::Name(key), None) => (hash.choose(key.as_bytes(), usable)?, ChosenBy::Hash),
        (By::Source(key), None) => (hash.choose(key.as_bytes(), usable)?, ChosenBy::SourceIp),
        (By::RoundRobin, None) => (round_robin.next(loads)?, ChosenBy::RoundRobin),
        (By::LeastConnections, None) => (round_robin.least_connections(loads)?, ChosenBy::LeastConnections),
        (By::RandomTwo, None) => (random_two(loads, draws)?, ChosenBy::RandomTwo),
    };
    Some((index, if failed_over { ChosenBy::Failover } else { why }))
}

/// Whether a connection that reached its server is to be recorded as a pin.
pub const fn records(record: Record, why: ChosenBy) -> bool {
    match record {
        Record::Operator => false,
        Record::Failover => matches!(why, ChosenBy::Failover),
        Record::All => !matches!(why, ChosenBy::Pin),
    }
}

#[cfg(test)]
mod tests;
