//! When a vehicle loses its network, how, for how long, and from where it comes back: all of it from a seed. Pure.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

/// How a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Loss {
    /// Nothing arrives any more, in either direction, and nobody is told: a tunnel.
    Silent,
    /// The connection is reset: a crash, a rude middlebox.
    Reset,
    /// DISCONNECT: the ignition is switched off.
    Disconnect,
}

/// The network of a group.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Network {
    /// How long connections last on average; nothing: no losses.
    pub(super) mean_time: Option<Duration>,
    pub(super) outage: (Duration, Duration),
    pub(super) losses: Vec<Loss>,
    /// Come back from another address.
    pub(super) roam: bool,
}

/// One connection's fate.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Trip {
    /// The address it comes from; nothing: the system's choice.
    pub(super) source: Option<IpAddr>,
    /// How long it lasts; nothing: to the end.
    pub(super) lasts: Option<Duration>,
    pub(super) loss: Loss,
    /// How long the vehicle is away after it.
    pub(super) outage: Duration,
}

/// Where vehicles may come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Sources {
    /// The system chooses.
    Any,
    /// One of these.
    Of(Vec<IpAddr>),
    /// Anywhere in 127.0.0.0/8.
    Loopback,
}

/// The fates of one vehicle, connection by connection.
#[derive(Clone, Debug)]
pub(super) struct Fates {
    network: Network,
    sources: Sources,
    random: fastrand::Rng,
    last: Option<IpAddr>,
}

impl Fates {
    pub(super) fn new(network: Network, sources: Sources, seed: u64) -> Self {
        Self { network, sources, random: fastrand::Rng::with_seed(seed), last: None }
    }

    /// The next connection's.
    pub(super) fn next(&mut self) -> Trip {
        let source = self.source();
        // Memoryless, as losses are: the time to the next is exponential. At most ten times the mean.
        let chance = self.random.f64();
        let lasts = self.network.mean_time.map(|mean| mean.mul_f64((-(1.0 - chance).ln()).min(10.0)));
        let loss = self.random.choice(self.network.losses.iter()).copied().unwrap_or(Loss::Silent);
        let (shortest, longest) = self.network.outage;
        let outage = shortest + longest.saturating_sub(shortest).mul_f64(self.random.f64());
        Trip { source, lasts, loss, outage }
    }

    fn source(&mut self) -> Option<IpAddr> {
        if !self.network.roam && self.last.is_some() {
            return self.last;
        }
        let next = match &self.sources {
            Sources::Any => return None,
            Sources::Of(all) => {
                let others = all.len() - usize::from(all.len() > 1 && self.last.is_some());
                let mut index = self.random.usize(..others.max(1));
                // Not the one that it had.
                let before = all.iter().position(|source| Some(*source) == self.last);
                if all.len() > 1 && before.is_some_and(|before| index >= before) {
                    index += 1;
                }
                all.get(index).copied()
            }
            Sources::Loopback => loop {
                let random = &mut self.random;
                let address =
                    Ipv4Addr::new(127, random.u8(1..=250), random.u8(..), random.u8(1..=250)).into();
                if self.last != Some(address) {
                    break Some(address);
                }
            },
        };
        self.last = next;
        next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network() -> Network {
        Network {
            mean_time: Some(Duration::from_secs(30)),
            outage: (Duration::from_secs(1), Duration::from_secs(5)),
            losses: vec![Loss::Silent, Loss::Reset, Loss::Disconnect],
            roam: true,
        }
    }

    fn trips(fates: Fates, count: usize) -> Vec<Trip> {
        let mut fates = fates;
        (0..count).map(|_| fates.next()).collect()
    }

    #[test]
    fn the_same_seed_gives_the_same_fate() {
        let with = |seed| trips(Fates::new(network(), Sources::Loopback, seed), 50);
        assert_eq!(with(1), with(1));
        assert_ne!(with(1), with(2));
    }

    #[test]
    fn connections_last_as_long_as_said_on_average_and_outages_stay_in_their_range() {
        let trips = trips(Fates::new(network(), Sources::Any, 4), 4_000);
        let mean = trips.iter().filter_map(|trip| trip.lasts).sum::<Duration>().as_secs_f64() / 4_000.0;
        assert!((28.0..32.0).contains(&mean), "{mean}");
        for trip in &trips {
            assert!((Duration::from_secs(1)..=Duration::from_secs(5)).contains(&trip.outage), "{trip:?}");
        }
        let kinds: std::collections::BTreeSet<Loss> = trips.iter().map(|trip| trip.loss).collect();
        assert_eq!(kinds.len(), 3);
    }

    #[test]
    fn who_roams_comes_from_another_address_each_time_and_who_does_not_keeps_his() {
        let of = ["10.0.0.1", "10.0.0.2", "10.0.0.3"].map(|text| text.parse().unwrap()).to_vec();
        for sources in [Sources::Of(of), Sources::Loopback] {
            let roaming = trips(Fates::new(network(), sources.clone(), 9), 100);
            assert!(roaming.windows(2).all(|pair| pair[0].source != pair[1].source), "{sources:?}");
            let network = Network { roam: false, ..network() };
            let staying = trips(Fates::new(network, sources, 9), 100);
            assert!(
                staying.windows(2).all(|pair| pair[0].source.is_some() && pair[0].source == pair[1].source)
            );
        }
        let one = trips(Fates::new(network(), Sources::Of(vec!["10.0.0.1".parse().unwrap()]), 9), 3);
        assert!(one.iter().all(|trip| trip.source == Some("10.0.0.1".parse().unwrap())));
    }

    #[test]
    fn without_losses_a_connection_lasts() {
        let trip = Fates::new(Network { mean_time: None, ..network() }, Sources::Any, 1).next();
        assert_eq!((trip.lasts, trip.source), (None, None));
    }
}
