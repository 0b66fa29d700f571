//! The router against the clauses it serves, and against a list that is searched from end to end.

mod cache;
mod clauses;
mod groups;
mod oracle;
mod properties;
mod threads;

use super::*;

/// A plain subscription.
fn wanting(qos: QoS) -> Subscription {
    Subscription { qos, no_local: false, retain_as_published: false, identifier: 0 }
}

/// A session that ends with its connection, on worker 0 in the slot of its own number.
fn passing(session: u64) -> Receiver {
    let address = Some(Address { worker: 0, slot: session as u32 });
    Receiver { session: SessionKey(session), address, durable: false }
}

fn routes(router: &Router, topic: &str) -> Routes {
    router.matching(topic, &mut Vec::new()).unwrap_or_default()
}

/// The sessions that get `topic`, ascending.
fn sessions(router: &Router, topic: &str) -> Vec<u64> {
    routes(router, topic).workers.iter().flat_map(|w| &w.hits).map(|h| h.session.0).collect()
}

impl Router {
    /// Nodes, filters and bytes in all tries.
    fn census(&self) -> (usize, usize, usize) {
        (0..=BUCKETS)
            .map(|bucket| self.read(bucket).census())
            .fold((0, 0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1, sum.2 + one.2))
    }

    fn assert_whole(&self) {
        (0..=BUCKETS).for_each(|bucket| self.read(bucket).assert_whole());
        let (nodes, filters, _) = self.census();
        assert_eq!(filters as u64, self.filters());
        assert!(nodes <= 2 * filters, "{nodes} nodes for {filters} filters");
    }
}
