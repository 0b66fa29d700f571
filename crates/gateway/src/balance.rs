//! Which of several servers: the arithmetic of balancing, pure.
//!
//! Hashes ([`struct@Hash`]) map a key to a server so that every gateway with the same list answers alike,
//! without shared state, and so that a server that goes away moves only its own share. The other methods look at
//! how busy the servers are ([`Load`]). Must not know: connections, CONNECT, configuration files, randomness of
//! its own (numbers come in as arguments).

mod ketama;
mod modulo;
mod rendezvous;

use std::cmp::Ordering;

pub use ketama::POINTS_PER_WEIGHT;

/// Which hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HashKind {
    /// Weighted rendezvous: no table, the most even spread.
    Rendezvous,
    /// The points of nginx's `hash ... consistent`: a cut-over from nginx moves no device.
    Ketama,
    /// nginx's plain `hash ...`: not consistent (another number of servers, or another weight, moves nearly every
    /// device), but a cut-over from nginx moves none.
    Modulo,
}

impl HashKind {
    /// As written in the configuration and in the API.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Rendezvous => "rendezvous",
            Self::Ketama => "ketama",
            Self::Modulo => "modulo",
        }
    }
}

/// A hash over a list of servers, ready to be asked.
///
/// The order of the list does not matter to the answer, only names and weights do. (Ketama: two points with the
/// same number are one, and the earlier server has it, as in nginx. Modulo sees the order and no names.)
#[derive(Clone, Debug, PartialEq)]
pub struct Hash(Kind);

#[derive(Clone, Debug, PartialEq)]
enum Kind {
    Rendezvous(rendezvous::Rendezvous),
    Ketama(ketama::Ketama),
    Modulo(modulo::Modulo),
}

impl Hash {
    /// Prepares the hash for servers given as (name, weight). Weight 0 is never chosen.
    /// Ketama takes 8 bytes × [`POINTS_PER_WEIGHT`] × the sum of the weights.
    pub fn new<'a>(kind: HashKind, servers: impl Iterator<Item = (&'a str, u32)>) -> Self {
        Self(match kind {
            HashKind::Rendezvous => Kind::Rendezvous(rendezvous::Rendezvous::new(servers)),
            HashKind::Ketama => Kind::Ketama(ketama::Ketama::new(servers)),
            HashKind::Modulo => Kind::Modulo(modulo::Modulo::new(servers)),
        })
    }

    /// The server for a key, as an index into the list; of those that are `usable` only. Those that are not are
    /// skipped in a way that leaves every key of the others where it is. `None`: none is usable; or, for modulo, none of
    /// those that it tried is.
    pub fn choose(&self, key: &[u8], usable: impl Fn(usize) -> bool) -> Option<usize> {
        match &self.0 {
            Kind::Rendezvous(hash) => hash.choose(key, usable),
            Kind::Ketama(hash) => hash.choose(key, usable),
            Kind::Modulo(hash) => hash.choose(key, usable),
        }
    }
}

/// What the methods that are no hash look at, for one server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Load {
    /// Share relative to the others; 0 is never chosen.
    pub weight: u32,
    /// Connections it has now.
    pub connections: u64,
    /// Whether it may be chosen.
    pub usable: bool,
}

impl Load {
    const fn takes(&self) -> bool {
        self.usable && self.weight > 0
    }

    /// Compares connections per weight, without division.
    fn busier(&self, other: &Self) -> Ordering {
        let mine = u128::from(self.connections) * u128::from(other.weight);
        mine.cmp(&(u128::from(other.connections) * u128::from(self.weight)))
    }
}

/// The most connections that a server of `weight` may have when bounded loads are asked for: `factor` times its share of
/// `connections`, the one to be placed included, of all whose weights sum up to `weights`; rounded up. As long as the
/// factor is 1 at least, some server is below its bound.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)] // counts of connections
pub fn bound(factor: f64, connections: u64, weight: u32, weights: u64) -> u64 {
    (factor * connections as f64 * f64::from(weight) / weights.max(1) as f64).ceil() as u64
}

/// Smooth weighted round robin, as nginx does it: in every turn each server gains its weight, the highest is
/// chosen and pays what all gained. Weights 5, 1, 1 give `a a b a c a a` and not five in a row. A server that failed
/// gains less for a while.
#[derive(Clone, Debug)]
pub struct RoundRobin {
    servers: Vec<Turn>,
    /// What a weight of 1 is.
    unit: u32,
}

#[derive(Clone, Copy, Debug, Default)]
struct Turn {
    credit: i64,
    /// What failures took from its weight; comes back by a unit with each turn that it takes part in.
    lost: i64,
}

impl Default for RoundRobin {
    fn default() -> Self {
        Self::new(1)
    }
}

impl RoundRobin {
    /// Where weights are counted in parts, a weight of 1 is so many of them.
    pub const fn new(unit: u32) -> Self {
        Self { servers: Vec::new(), unit }
    }

    /// The next server among those that take connections.
    pub fn next(&mut self, loads: &[Load]) -> Option<usize> {
        self.next_of(loads, |_| true)
    }

    fn next_of(&mut self, loads: &[Load], also: impl Fn(&Load) -> bool) -> Option<usize> {
        self.servers.resize(loads.len(), Turn::default());
        let mut total = 0;
        let mut best: Option<(usize, i64)> = None;
        for (index, (load, turn)) in loads.iter().zip(&mut self.servers).enumerate() {
            if !load.takes() || !also(load) {
                continue;
            }
            let gain = (i64::from(load.weight) - turn.lost).max(0);
            turn.credit += gain;
            turn.lost = (turn.lost - i64::from(self.unit)).max(0);
            total += gain;
            if best.is_none_or(|(_, most)| turn.credit > most) {
                best = Some((index, turn.credit));
            }
        }
        let (index, _) = best?;
        if let Some(turn) = self.servers.get_mut(index) {
            turn.credit -= total;
        }
        Some(index)
    }

    /// A connection to a server of this weight failed: it gains less, by one part in `max_fails`.
    pub fn failed(&mut self, index: usize, weight: u32, max_fails: u32) {
        if let (Some(turn), Some(lost)) = (self.servers.get_mut(index), weight.checked_div(max_fails)) {
            turn.lost = (turn.lost + i64::from(lost)).min(i64::from(weight));
        }
    }

    /// The server with the fewest connections per weight; equals take turns.
    pub fn least_connections(&mut self, loads: &[Load]) -> Option<usize> {
        let least = loads.iter().filter(|load| load.takes()).min_by(|a, b| a.busier(b)).copied()?;
        self.next_of(loads, |load| load.busier(&least) == Ordering::Equal)
    }
}

/// Two servers drawn by weight, the one with fewer connections per weight wins; equals: the first drawn.
/// The draws are two uniform random numbers.
pub fn random_two(loads: &[Load], draws: [u64; 2]) -> Option<usize> {
    let first = draw(loads, None, draws[0])?;
    let Some(second) = draw(loads, Some(first), draws[1]) else {
        return Some(first);
    };
    let busier = match (loads.get(first), loads.get(second)) {
        (Some(a), Some(b)) => a.busier(b),
        _ => Ordering::Equal,
    };
    Some(if busier == Ordering::Greater { second } else { first })
}

/// One server drawn by weight.
pub fn random(loads: &[Load], number: u64) -> Option<usize> {
    draw(loads, None, number)
}

/// One server by weight, not `but`.
fn draw(loads: &[Load], but: Option<usize>, number: u64) -> Option<usize> {
    let candidates = || loads.iter().enumerate().filter(|(index, load)| load.takes() && Some(*index) != but);
    let total: u64 = candidates().map(|(_, load)| u64::from(load.weight)).sum();
    let mut at = number.checked_rem(total)?;
    for (index, load) in candidates() {
        match at.checked_sub(u64::from(load.weight)) {
            Some(rest) => at = rest,
            None => return Some(index),
        }
    }
    None
}

#[cfg(test)]
mod tests;
