//! What the router should do, in the most naive way: a list of subscriptions, compared one by one.

use std::collections::BTreeMap;

use super::*;

/// Section 4.7 of the specification, level by level.
pub(super) fn matches(filter: &str, topic: &str) -> bool {
    fn levels(filter: &[&str], topic: &[&str]) -> bool {
        match (filter, topic) {
            (["#"], _) | ([], []) => true,
            (["+", filter @ ..], [_, topic @ ..]) => levels(filter, topic),
            ([wanted, filter @ ..], [level, topic @ ..]) => wanted == level && levels(filter, topic),
            _ => false,
        }
    }
    let hidden = topic.starts_with('$') && filter.starts_with(['+', '#']);
    !hidden && levels(&filter.split('/').collect::<Vec<_>>(), &topic.split('/').collect::<Vec<_>>())
}

#[derive(Default)]
pub(super) struct Oracle {
    pub(super) subscriptions: Vec<(String, Receiver, Subscription)>,
}

impl Oracle {
    pub(super) fn subscribe(&mut self, filter: &str, receiver: Receiver, subscription: Subscription) -> bool {
        let new = !self.unsubscribe(filter, receiver.session);
        self.subscriptions.push((filter.to_owned(), receiver, subscription));
        new
    }

    pub(super) fn unsubscribe(&mut self, filter: &str, session: SessionKey) -> bool {
        let before = self.subscriptions.len();
        self.subscriptions.retain(|(f, r, _)| f != filter || r.session != session);
        self.subscriptions.len() < before
    }

    pub(super) fn relocate(&mut self, session: SessionKey, address: Option<Address>) -> Vec<String> {
        let of_session = self.subscriptions.iter_mut().filter(|(_, r, _)| r.session == session);
        of_session
            .map(|(filter, receiver, _)| {
                receiver.address = address;
                filter.clone()
            })
            .collect()
    }

    pub(super) fn filters(&self) -> usize {
        let mut filters: Vec<_> = self.subscriptions.iter().map(|(f, _, _)| f).collect();
        filters.sort();
        filters.dedup();
        filters.len()
    }

    pub(super) fn routes(&self, topic: &str) -> Routes {
        let mut by_session: BTreeMap<SessionKey, Vec<(Receiver, Subscription)>> = BTreeMap::new();
        for (_, receiver, subscription) in self.subscriptions.iter().filter(|(f, _, _)| matches(f, topic)) {
            by_session.entry(receiver.session).or_default().push((*receiver, *subscription));
        }
        let durable = by_session.values().flatten().any(|(r, s)| r.durable && s.qos >= QoS::AtLeastOnce);
        let mut workers: BTreeMap<u16, Vec<Hit>> = BTreeMap::new();
        for (session, matched) in by_session {
            let receiver = matched[0].0;
            let Some(Address { worker, slot }) = receiver.address else { continue };
            let all: Vec<_> = matched.iter().map(|(_, s)| *s).collect();
            let others: Vec<_> = all.iter().filter(|s| !s.no_local).copied().collect();
            let (qos, retain_as_published, identifiers) = together(&all);
            let own = if others.is_empty() {
                Own::Never
            } else if together(&others) == together(&all) {
                Own::Same
            } else {
                Own::Reduced(Box::new(together(&others)))
            };
            let durable = receiver.durable;
            let hit = Hit { session, slot, durable, qos, retain_as_published, identifiers, own };
            workers.entry(worker).or_default().push(hit);
        }
        let workers =
            workers.into_iter().map(|(worker, hits)| WorkerRoutes { worker, hits: hits.into() }).collect();
        Routes { workers, durable, ..Routes::default() }
    }
}

fn together(subscriptions: &[Subscription]) -> (QoS, bool, SmallVec<[u32; 1]>) {
    let mut identifiers: Vec<u32> = subscriptions.iter().map(|s| s.identifier).filter(|&i| i > 0).collect();
    identifiers.sort();
    (
        subscriptions.iter().map(|s| s.qos).max().unwrap(),
        subscriptions.iter().any(|s| s.retain_as_published),
        identifiers.into(),
    )
}
