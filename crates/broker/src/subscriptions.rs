//! The subscriptions of one session, by filter: a sorted list, because most sessions have one to five and an idle device
//! must be small.
//!
//! Adding to a large session moves what lies behind: 10,000 subscriptions (the default limit) move 400 KB at most.

use crate::session::Subscription;

/// Filter → subscription, ascending by filter. Empty: no heap.
#[derive(Default)]
pub(crate) struct Subscriptions(Vec<(Box<str>, Subscription)>);

impl Subscriptions {
    fn find(&self, filter: &str) -> Result<usize, usize> {
        self.0.binary_search_by(|(f, _)| (**f).cmp(filter))
    }

    pub(crate) fn insert(&mut self, filter: Box<str>, subscription: Subscription) -> Option<Subscription> {
        match self.find(&filter) {
            Ok(at) => Some(std::mem::replace(&mut self.0[at].1, subscription)),
            Err(at) => {
                if self.0.is_empty() {
                    self.0.reserve_exact(1);
                }
                self.0.insert(at, (filter, subscription));
                None
            }
        }
    }

    pub(crate) fn remove(&mut self, filter: &str) -> Option<Subscription> {
        let at = self.find(filter).ok()?;
        Some(self.0.remove(at).1)
    }

    pub(crate) fn get(&self, filter: &str) -> Option<&Subscription> {
        self.find(filter).ok().map(|at| &self.0[at].1)
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &Subscription)> {
        self.0.iter().map(|(filter, subscription)| (&**filter, subscription))
    }

    pub(crate) fn filters(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(filter, _)| &**filter)
    }

    pub(crate) fn into_list(self) -> Vec<(Box<str>, Subscription)> {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use mqtt::packet::SubscriptionOptions;
    use proptest::prelude::*;

    use super::*;

    fn subscription(identifier: u32) -> Subscription {
        Subscription { options: SubscriptionOptions::default(), identifier, exclusive: false, starts: None }
    }

    proptest! {
        #[test]
        fn it_is_a_map_in_the_order_of_filters(
            ops in proptest::collection::vec(("[ab/]{0,3}", any::<bool>(), any::<u32>()), 0..60),
        ) {
            let mut oracle = BTreeMap::new();
            let mut subscriptions = Subscriptions::default();
            for (filter, insert, identifier) in ops {
                if insert {
                    let before = subscriptions.insert(filter.as_str().into(), subscription(identifier));
                    prop_assert_eq!(before.map(|s| s.identifier), oracle.insert(filter.clone(), identifier));
                } else {
                    let before = subscriptions.remove(&filter);
                    prop_assert_eq!(before.map(|s| s.identifier), oracle.remove(&filter));
                }
                prop_assert_eq!(subscriptions.get(&filter).map(|s| s.identifier), oracle.get(&filter).copied());
                let listed: Vec<_> = subscriptions.iter().map(|(f, s)| (f.to_owned(), s.identifier)).collect();
                let expected: Vec<_> = oracle.iter().map(|(f, &s)| (f.clone(), s)).collect();
                prop_assert_eq!(listed, expected);
                prop_assert_eq!(subscriptions.len(), oracle.len());
            }
        }
    }
}
