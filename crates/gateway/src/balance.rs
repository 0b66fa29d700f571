//! Which of several servers: the arithmetic of balancing, pure.
//!
//! Consistent hashes ([`struct@Hash`]) map a key to a server so that every gateway with the same list answers alike,
//! without shared state, and so that a server that goes away moves only its own share. The other methods look at
//! how busy the servers are ([`Load`]). Must not know: connections, CONNECT, configuration files, randomness of
//! its own (numbers come in as arguments).

mod ketama;
mod rendezvous;

use std::cmp::Ordering;

pub use ketama::POINTS_PER_WEIGHT;

/// Which consistent hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HashKind {
    /// Weighted rendezvous: no table, the most even spread.
    Rendezvous,
    /// The points of nginx's `hash ... consistent`: a cut-over from nginx moves no device.
    Ketama,
}

impl HashKind {
    /// As written in the configuration and in the API.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Rendezvous => "rendezvous",
            Self::Ketama => "ketama",
        }
    }
}

/// A consistent hash over a list of servers, ready to be asked.
///
/// The order of the list does not matter to the answer, only names and weights do. (Ketama: two points with the
/// same number are one, and the earlier server has it, as in nginx.)
#[derive(Clone, Debug, PartialEq)]
pub struct Hash(Kind);

#[derive(Clone, Debug, PartialEq)]
enum Kind {
    Rendezvous(rendezvous::Rendezvous),
    Ketama(ketama::Ketama),
}

impl Hash {
    /// Prepares the hash for servers given as (name, weight). Weight 0 is never chosen.
    /// Ketama takes 8 bytes × [`POINTS_PER_WEIGHT`] × the sum of the weights.
    pub fn new<'a>(kind: HashKind, servers: impl Iterator<Item = (&'a str, u32)>) -> Self {
        Self(match kind {
            HashKind::Rendezvous => Kind::Rendezvous(rendezvous::Rendezvous::new(servers)),
            HashKind::Ketama => Kind::Ketama(ketama::Ketama::new(servers)),
        })
    }

    /// The server for a key, as an index into the list; of those that are `usable` only. Those that are not are
    /// skipped in a way that leaves every key of the others where it is. `None`: none is usable.
    pub fn choose(&self, key: &[u8], usable: impl Fn(usize) -> bool) -> Option<usize> {
        match &self.0 {
            Kind::Rendezvous(hash) => hash.choose(key, usable),
            Kind::Ketama(hash) => hash.choose(key, usable),
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

/// Smooth weighted round robin, as nginx does it: in every turn each server gains its weight, the highest is
/// chosen and pays what all gained. Weights 5, 1, 1 give `a a b a c a a` and not five in a row.
#[derive(Clone, Debug, Default)]
pub struct RoundRobin {
    credit: Vec<i64>,
}

impl RoundRobin {
    /// The next server among those that take connections.
    pub fn next(&mut self, loads: &[Load]) -> Option<usize> {
        self.next_of(loads, |_| true)
    }

    fn next_of(&mut self, loads: &[Load], also: impl Fn(&Load) -> bool) -> Option<usize> {
        self.credit.resize(loads.len(), 0);
        let mut total = 0;
        let mut best: Option<(usize, i64)> = None;
        for (index, (load, credit)) in loads.iter().zip(&mut self.credit).enumerate() {
            if !load.takes() || !also(load) {
                continue;
            }
            *credit += i64::from(load.weight);
            total += i64::from(load.weight);
            if best.is_none_or(|(_, most)| *credit > most) {
                best = Some((index, *credit));
            }
        }
        let (index, _) = best?;
        if let Some(credit) = self.credit.get_mut(index) {
            *credit -= total;
        }
        Some(index)
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
