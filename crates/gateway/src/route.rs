//! Which server a connection goes to, or why it goes nowhere: pure.
//!
//! [`plan`] turns what is known of the connection into a way to choose (once); [`choose`] applies it to the servers
//! as they are now (again for each server that could not be reached). Order of precedence: a pin, the balancing
//! of the upstream, and for a connection without a key the listener's rule. Nothing falls back in silence: a
//! connection without a key carries its [`NoKey`] to the counters and the log.
//!
//! A pin holds for a server that can take the connection, a backup too; where it can't, the balancing decides.
//!
//! The servers stand in ranks. Those that are no backup come first; then backups. If none of either can take the
//! connection but one could if it had room, the connection may wait. If every one that is not tried yet has failed
//! lately, they are tried all the same, each once before its time, backups last: a device is better served by an attempt
//! than by a refusal. (nginx did so, as "quick recovery", and has refused since.)

use std::borrow::Cow;
use std::fmt;
use std::net::IpAddr;

use crate::balance::{self, Hash, Load, RoundRobin, random_two};
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
    /// One drawn by weight.
    Random,
    /// Two drawn by weight, the one with fewer connections per weight.
    RandomTwo,
}

impl Balance {
    /// Whether a key decides: a device then has a server of its own.
    pub const fn hashes(self) -> bool {
        matches!(self, Self::ClientId | Self::Username | Self::SourceIp)
    }

    /// As written in the configuration and in the API.
    pub const fn name(self) -> &'static str {
        match self {
            Self::ClientId => "client_id",
            Self::Username => "username",
            Self::SourceIp => "source_ip",
            Self::RoundRobin => "round_robin",
            Self::LeastConnections => "least_connections",
            Self::Random => "random",
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
    /// It was drawn.
    Random,
    /// The better of two drawn.
    RandomTwo,
    /// The consistent hash of the device's address.
    SourceIp,
    /// Those that were meant could not be reached, now or a moment ago.
    Failover,
    /// The one that was meant has its `max_conns`, or its share under `hash_balance_factor`.
    Overflow,
    /// No server that is no backup can take the connection.
    Backup,
}

impl ChosenBy {
    /// Every reason, in the order of [`ChosenBy::index`].
    pub const ALL: [Self; 10] = [
        Self::Hash,
        Self::Pin,
        Self::RoundRobin,
        Self::LeastConnections,
        Self::Random,
        Self::RandomTwo,
        Self::SourceIp,
        Self::Failover,
        Self::Overflow,
        Self::Backup,
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
            Self::Random => "random",
            Self::RandomTwo => "random_two",
            Self::SourceIp => "source_ip",
            Self::Failover => "failover",
            Self::Overflow => "overflow",
            Self::Backup => "backup",
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
    /// See [`Balance::Random`].
    Random,
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
        Balance::SourceIp => {
            let address = source();
            (By::Source(address.clone()), Some(Cow::Owned(address)))
        }
        Balance::RoundRobin => (By::RoundRobin, client_id.map(Cow::Borrowed)),
        Balance::LeastConnections => (By::LeastConnections, client_id.map(Cow::Borrowed)),
        Balance::Random => (By::Random, client_id.map(Cow::Borrowed)),
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

/// Whether a server can take a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It can.
    In,
    /// It could if it had room: its `max_conns` are there.
    Full,
    /// It is unavailable: connections failed lately.
    Failed,
    /// It can't: it is down, being drained, or was tried for this connection.
    Out,
}

/// A server as it is now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seat {
    /// Whether it can take a connection.
    pub standing: Standing,
    /// Whether it is a backup.
    pub backup: bool,
}

/// An upstream as it is now.
pub struct View<'a> {
    /// The hash over the servers that are no backup: the others have weight 0 there.
    pub hash: &'a Hash,
    /// The hash over the backups.
    pub backup_hash: &'a Hash,
    /// See [`balance::bound`]; `None`: no bound.
    pub bound: Option<f64>,
    /// The servers, in the order the hashes know them.
    pub seats: &'a [Seat],
    /// What they carry; which of them are usable is set here.
    pub loads: &'a mut [Load],
    /// Finds a server by its name.
    pub index_of: &'a dyn Fn(&str) -> Option<usize>,
    /// The pins.
    pub pins: &'a mut Pins,
    /// Whose turn it is.
    pub round_robin: &'a mut RoundRobin,
    /// Uniform random numbers for [`Balance::Random`] and [`Balance::RandomTwo`].
    pub draws: [u64; 2],
    /// Whether a server was tried for this connection and could not be reached.
    pub failed_over: bool,
}

impl fmt::Debug for View<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("View").field("loads", &self.loads).field("seats", &self.seats).finish_non_exhaustive()
    }
}

/// Where a connection goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// To this server, for this reason.
    Server(usize, ChosenBy),
    /// Nowhere yet: who could take it has no room.
    Full,
    /// Nowhere.
    Nobody,
}

/// Chooses a server.
pub fn choose(plan: &Plan<'_>, mut view: View<'_>) -> Choice {
    let pinned = plan
        .pin_key
        .as_deref()
        .and_then(|key| view.pins.get(key))
        .and_then(|server| (view.index_of)(&server));
    if let Some(index) = pinned
        && view.seats.get(index).is_some_and(|seat| seat.standing == Standing::In)
    {
        return Choice::Server(index, if view.failed_over { ChosenBy::Failover } else { ChosenBy::Pin });
    }
    for backup in [false, true] {
        if let Some((index, why)) = view.among(plan, Standing::In, backup) {
            return Choice::Server(index, view.reason(plan, index, why));
        }
    }
    if view.seats.iter().any(|seat| seat.standing == Standing::Full) {
        return Choice::Full;
    }
    for backup in [false, true] {
        if let Some((index, why)) = view.among(plan, Standing::Failed, backup) {
            return Choice::Server(index, view.reason(plan, index, why));
        }
    }
    Choice::Nobody
}

impl View<'_> {
    /// The balancing's choice among the servers of one rank.
    fn among(&mut self, plan: &Plan<'_>, standing: Standing, backup: bool) -> Option<(usize, ChosenBy)> {
        let mut any = false;
        for (load, seat) in self.loads.iter_mut().zip(self.seats) {
            load.usable = seat.standing == standing && seat.backup == backup;
            any |= load.usable;
        }
        if !any {
            return None;
        }
        match &plan.by {
            By::Name(key) => self.by_hash(key.as_bytes(), backup, ChosenBy::Hash),
            By::Source(key) => self.by_hash(key.as_bytes(), backup, ChosenBy::SourceIp),
            By::RoundRobin => self.in_turn(),
            By::LeastConnections => {
                let index = self.round_robin.least_connections(self.loads)?;
                Some((index, ChosenBy::LeastConnections))
            }
            By::Random => Some((balance::random(self.loads, self.draws[0])?, ChosenBy::Random)),
            By::RandomTwo => Some((random_two(self.loads, self.draws)?, ChosenBy::RandomTwo)),
        }
    }

    fn in_turn(&mut self) -> Option<(usize, ChosenBy)> {
        Some((self.round_robin.next(self.loads)?, ChosenBy::RoundRobin))
    }

    fn by_hash(&mut self, key: &[u8], backup: bool, why: ChosenBy) -> Option<(usize, ChosenBy)> {
        let hash = if backup { self.backup_hash } else { self.hash };
        let loads = &*self.loads;
        let usable = |index: usize| loads.get(index).filter(|load| load.usable);
        let bounded = self.bound.and_then(|factor| {
            let all = || loads.iter().filter(|load| load.usable);
            let connections = all().map(|load| load.connections).sum::<u64>() + 1;
            let weights = all().map(|load| u64::from(load.weight)).sum();
            let below =
                |load: &Load| load.connections < balance::bound(factor, connections, load.weight, weights);
            hash.choose(key, |index| usable(index).is_some_and(below))
        });
        match bounded.or_else(|| hash.choose(key, |index| usable(index).is_some())) {
            Some(index) => Some((index, why)),
            // What modulo does after its tries.
            None => self.in_turn(),
        }
    }

    /// Why this server, when the method said `why`: another word where it is not the one that was meant.
    fn reason(&self, plan: &Plan<'_>, index: usize, why: ChosenBy) -> ChosenBy {
        if self.seats.get(index).is_some_and(|seat| seat.backup) {
            return ChosenBy::Backup;
        }
        if self.failed_over {
            return ChosenBy::Failover;
        }
        let key = match &plan.by {
            By::Name(key) => key,
            By::Source(key) => key.as_str(),
            _ => return why,
        };
        // Only an upstream in which something is amiss has another answer.
        let amiss = |seat: &Seat| matches!(seat.standing, Standing::Full | Standing::Failed) && !seat.backup;
        if self.bound.is_none() && !self.seats.iter().any(amiss) {
            return why;
        }
        let counts = |index: usize| {
            self.seats.get(index).is_some_and(|seat| seat.standing != Standing::Out && !seat.backup)
        };
        let Some(meant) = self.hash.choose(key.as_bytes(), counts).filter(|meant| *meant != index) else {
            return why;
        };
        match self.seats.get(meant).map(|seat| seat.standing) {
            Some(Standing::Failed) => ChosenBy::Failover,
            _ => ChosenBy::Overflow,
        }
    }
}

/// Whether a connection that reached its server is to be recorded as a pin. A backup never is: it gives its devices
/// back when the others are there again.
pub const fn records(record: Record, why: ChosenBy) -> bool {
    match record {
        Record::Operator => false,
        Record::Failover => matches!(why, ChosenBy::Failover),
        Record::All => !matches!(why, ChosenBy::Pin | ChosenBy::Backup),
    }
}

#[cfg(test)]
mod tests;
