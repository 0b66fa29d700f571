//! Where clients landed, visit by visit, and what that says about the balancer. Pure.

use serde::Serialize;

use super::report::rounded;

/// Where one visit of a client ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Landing {
    /// At this server, by its place in the list.
    At(usize),
    /// Several servers reached it, so they are a cluster and it cannot be told.
    Several,
    /// It did not connect, or no server reached it; why.
    Nowhere(String),
}

/// What a run of `sticky` found.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct StickyReport {
    pub(super) bench: &'static str,
    pub(super) tidegate: &'static str,
    pub(super) gateway: String,
    pub(super) protocol: String,
    /// The same seed gives the same client ids and addresses.
    pub(super) seed: u64,
    pub(super) clients: u64,
    /// Connections of each client.
    pub(super) visits: u64,
    /// Addresses that clients came from.
    pub(super) sources: u64,
    /// Clients of each server at their first visit.
    pub(super) servers: Vec<ServerShare>,
    /// The fullest server against the mean, and what chance alone would make of a fair hash at most: 1 + 4·√(servers/clients).
    pub(super) max_over_mean: f64,
    pub(super) chance: f64,
    /// Later visits that landed, with a first one to compare.
    pub(super) returns: u64,
    /// Those of them at the server of the first.
    pub(super) same: u64,
    /// `same / returns`: 1 is a sticky balancer.
    pub(super) share: Option<f64>,
    /// Clients that were at more than one server, by name.
    pub(super) moved: Vec<Moved>,
    /// Visits that ended nowhere, and visits where several servers answered.
    pub(super) nowhere: u64,
    pub(super) several: u64,
    pub(super) passed: bool,
    pub(super) notes: Vec<String>,
}

/// Clients of one server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct ServerShare {
    pub(super) server: String,
    pub(super) clients: u64,
}

/// A client that did not stay.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Moved {
    pub(super) clientid: String,
    /// By visit; nothing where it landed nowhere.
    pub(super) servers: Vec<Option<String>>,
}

/// Who was where.
#[derive(Clone, Debug)]
pub(super) struct Visits {
    pub(super) servers: Vec<String>,
    /// By client: its id and its landings in order.
    pub(super) clients: Vec<(String, Vec<Landing>)>,
}

impl Visits {
    /// The report, but for what only the runner knows.
    pub(super) fn report(&self) -> StickyReport {
        let mut counts = vec![0_u64; self.servers.len()];
        let (mut returns, mut same, mut nowhere, mut several) = (0, 0, 0, 0);
        let mut moved = Vec::new();
        let mut why = None;
        for (clientid, landings) in &self.clients {
            let mut first = None;
            let mut stayed = true;
            for landing in landings {
                match landing {
                    Landing::At(server) => match first {
                        None => {
                            first = Some(server);
                            if let Some(count) = counts.get_mut(*server) {
                                *count += 1;
                            }
                        }
                        Some(first) => {
                            returns += 1;
                            same += u64::from(first == server);
                            stayed &= first == server;
                        }
                    },
                    Landing::Several => several += 1,
                    Landing::Nowhere(reason) => {
                        nowhere += 1;
                        why.get_or_insert_with(|| reason.clone());
                    }
                }
            }
            if !stayed {
                moved.push(Moved { clientid: clientid.clone(), servers: self.names(landings) });
            }
        }
        let landed: u64 = counts.iter().sum();
        let mean = landed as f64 / self.servers.len().max(1) as f64;
        let most = counts.iter().copied().max().unwrap_or(0) as f64;
        let servers = self.servers.iter().cloned().zip(counts);
        let mut report = StickyReport {
            bench: "sticky",
            tidegate: env!("CARGO_PKG_VERSION"),
            gateway: String::new(),
            protocol: String::new(),
            seed: 0,
            clients: self.clients.len() as u64,
            visits: self.clients.iter().map(|client| client.1.len() as u64).max().unwrap_or(0),
            sources: 0,
            max_over_mean: if landed > 0 { rounded(most / mean) } else { 0.0 },
            chance: rounded(1.0 + 4.0 * (self.servers.len() as f64 / landed.max(1) as f64).sqrt()),
            servers: servers.map(|(server, clients)| ServerShare { server, clients }).collect(),
            returns,
            same,
            share: (returns > 0).then(|| same as f64 / returns as f64),
            moved,
            nowhere,
            several,
            passed: false,
            notes: Vec::new(),
        };
        report.judge(why.as_deref());
        report
    }

    fn names(&self, landings: &[Landing]) -> Vec<Option<String>> {
        let name = |landing: &Landing| match landing {
            Landing::At(server) => self.servers.get(*server).cloned(),
            Landing::Several | Landing::Nowhere(_) => None,
        };
        landings.iter().map(name).collect()
    }
}

impl StickyReport {
    fn judge(&mut self, why: Option<&str>) {
        if let Some(why) = why {
            self.notes.push(format!("{} visits ended nowhere, the first because: {why}", self.nowhere));
        }
        if self.several > 0 {
            self.notes.push(format!(
                "{} visits were reached from several --servers: they share messages, and where a client is cannot be told",
                self.several
            ));
        }
        if self.share.is_some_and(|share| share < 1.0) {
            self.notes.push(format!(
                "{} of {} clients did not come back to their server",
                self.moved.len(),
                self.clients
            ));
        }
        self.passed = self.share == Some(1.0) && self.nowhere == 0 && self.several == 0;
    }
}

#[cfg(test)]
mod tests {
    use super::Landing::{At, Nowhere, Several};
    use super::*;

    fn report(landings: &[&[Landing]]) -> StickyReport {
        let clients = landings.iter().enumerate();
        let clients = clients.map(|(index, landings)| (format!("c{index}"), landings.to_vec())).collect();
        Visits { servers: vec!["a".to_owned(), "b".to_owned()], clients }.report()
    }

    #[test]
    fn who_always_comes_back_makes_a_share_of_one() {
        let report = report(&[&[At(0), At(0), At(0)], &[At(1), At(1), At(1)], &[At(0), At(0), At(0)]]);
        assert_eq!((report.returns, report.same, report.share, report.passed), (6, 6, Some(1.0), true));
        let spread: Vec<u64> = report.servers.iter().map(|server| server.clients).collect();
        assert_eq!((spread, report.max_over_mean), (vec![2, 1], 1.333));
        assert_eq!(report.moved, []);
    }

    #[test]
    fn who_moves_is_named() {
        let report = report(&[&[At(0), At(1), At(0)], &[At(1), At(1), At(1)]]);
        assert_eq!((report.returns, report.same, report.share, report.passed), (4, 3, Some(0.75), false));
        let servers = ["a", "b", "a"].map(|name| Some(name.to_owned())).to_vec();
        assert_eq!(report.moved, [Moved { clientid: "c0".to_owned(), servers }]);
    }

    #[test]
    fn a_visit_without_an_answer_is_neither_a_return_nor_a_success() {
        let report = report(&[&[Nowhere("refused".to_owned()), At(1), At(1)], &[Several, At(0), At(0)]]);
        assert_eq!((report.returns, report.share, report.passed), (2, Some(1.0), false));
        assert_eq!((report.nowhere, report.several), (1, 1));
        assert!(report.notes[0].contains("refused"), "{:?}", report.notes);
    }

    #[test]
    fn nobody_at_all_is_no_success() {
        let report = report(&[]);
        assert_eq!((report.share, report.passed), (None, false));
    }
}
