//! The subscriptions of one session, by filter.
//!
//! Most sessions have one to five, and a million idle devices have a million of these: a few lie one behind the other in a
//! single allocation, so that a device with one filter of up to 20 bytes pays 32 bytes for it. Many are a map: 10,000 (the
//! default limit) are added and found without moving the others.

use std::collections::BTreeMap;

use engine::Pos;
use mqtt::QoS;
use mqtt::packet::{RetainHandling, SubscriptionOptions};

use crate::session::Subscription;
use crate::share::{SHARE, is_shared};

/// From this many on they are a map; fewer are read from their bytes faster than a map is walked.
const CROWD: usize = 24;

/// Filter → subscription, ascending by filter. Empty: no heap.
pub(crate) struct Subscriptions(List);

enum List {
    /// Fewer than [`CROWD`], as [`Packed`] tells.
    Few(Box<[u8]>),
    Many(Box<Many>),
}

#[derive(Default)]
struct Many {
    by_filter: BTreeMap<Box<str>, Subscription>,
    /// How many of them [begin late](begins_late).
    late: usize,
}

/// A device with one subscription has one of these, and what it points to.
const _: () = assert!(size_of::<Subscriptions>() == 16);

impl Default for Subscriptions {
    fn default() -> Self {
        Self(List::Few(Box::default()))
    }
}

/// Whether a replay must ask where the subscription begins. A group has positions of its own.
fn begins_late(filter: &str, subscription: &Subscription) -> bool {
    subscription.starts.is_some() && !is_shared(filter)
}

impl Subscriptions {
    pub(crate) fn insert(&mut self, filter: Box<str>, subscription: Subscription) -> Option<Subscription> {
        match &mut self.0 {
            List::Many(many) => many.insert(filter, subscription),
            List::Few(bytes) => {
                let mut list: Vec<_> = Packed(bytes).map(|item| item.both()).collect();
                let before = match list.binary_search_by(|(known, _)| (*known).cmp(&*filter)) {
                    Ok(at) => list.get_mut(at).map(|place| std::mem::replace(&mut place.1, subscription)),
                    Err(at) => {
                        list.insert(at, (&*filter, subscription));
                        None
                    }
                };
                self.0 = List::of(list);
                before
            }
        }
    }

    pub(crate) fn remove(&mut self, filter: &str) -> Option<Subscription> {
        match &mut self.0 {
            List::Many(many) => {
                let removed = many.remove(filter)?;
                if many.by_filter.len() < CROWD / 2 {
                    self.0 = List::of(many.by_filter.iter().map(|(f, s)| (&**f, s.clone())).collect());
                }
                Some(removed)
            }
            List::Few(bytes) => {
                let mut list: Vec<_> = Packed(bytes).map(|item| item.both()).collect();
                let at = list.binary_search_by(|(known, _)| (*known).cmp(filter)).ok()?;
                let (_, removed) = list.remove(at);
                self.0 = List::of(list);
                Some(removed)
            }
        }
    }

    pub(crate) fn get(&self, filter: &str) -> Option<Subscription> {
        match &self.0 {
            List::Few(bytes) => {
                let item = Packed(bytes).find(|item| item.filter == filter.as_bytes())?;
                Some(item.subscription())
            }
            List::Many(many) => many.by_filter.get(filter).cloned(),
        }
    }

    pub(crate) fn len(&self) -> usize {
        match &self.0 {
            List::Few(bytes) => Packed(bytes).count(),
            List::Many(many) => many.by_filter.len(),
        }
    }

    /// Ascending by filter.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, Subscription)> {
        let (few, many) = match &self.0 {
            List::Few(bytes) => (Some(Packed(bytes).map(|item| item.both())), None),
            List::Many(many) => (None, Some(many.by_filter.iter().map(|(f, s)| (&**f, s.clone())))),
        };
        few.into_iter().flatten().chain(many.into_iter().flatten())
    }

    /// Ascending.
    pub(crate) fn filters(&self) -> impl Iterator<Item = &str> {
        let (few, many) = match &self.0 {
            List::Few(bytes) => (Some(Packed(bytes).map(|item| item.filter())), None),
            List::Many(many) => (None, Some(many.by_filter.keys().map(|filter| &**filter))),
        };
        few.into_iter().flatten().chain(many.into_iter().flatten())
    }

    /// Whether some of them [begins late](begins_late): asked for each message of a replay.
    pub(crate) fn has_late(&self) -> bool {
        match &self.0 {
            List::Few(bytes) => Packed(bytes).any(|item| item.begins_late()),
            List::Many(many) => many.late > 0,
        }
    }
}

impl Many {
    fn insert(&mut self, filter: Box<str>, subscription: Subscription) -> Option<Subscription> {
        let before = self.remove(&filter);
        self.late += usize::from(begins_late(&filter, &subscription));
        self.by_filter.insert(filter, subscription);
        before
    }

    fn remove(&mut self, filter: &str) -> Option<Subscription> {
        let removed = self.by_filter.remove(filter)?;
        self.late -= usize::from(begins_late(filter, &removed));
        Some(removed)
    }
}

impl List {
    /// Of a sorted list.
    fn of(list: Vec<(&str, Subscription)>) -> Self {
        // a string of MQTT is no longer (1.5.4)
        let short = |(filter, _): &(&str, Subscription)| u16::try_from(filter.len()).is_ok();
        if list.len() < CROWD && list.iter().all(short) {
            let mut bytes = Vec::with_capacity(list.iter().map(|(f, s)| packed_len(f, s)).sum());
            for (filter, subscription) in &list {
                pack(filter, subscription, &mut bytes);
            }
            return Self::Few(bytes.into_boxed_slice());
        }
        let late = list.iter().filter(|(filter, s)| begins_late(filter, s)).count();
        let by_filter = list.into_iter().map(|(filter, s)| (filter.into(), s)).collect();
        Self::Many(Box::new(Many { by_filter, late }))
    }
}

// One subscription in bytes: flags, length of the filter (2 bytes); where there is more, the identifier (4), how many
// positions it begins at (2) and those (8 each); the filter. It never leaves the process.

const QOS: u8 = 0b0000_0011;
const NO_LOCAL: u8 = 0b0000_0100;
const AS_PUBLISHED: u8 = 0b0000_1000;
/// Retain Handling: 0, 1 or 2.
const HANDLING_SHIFT: u32 = 4;
const HANDLING: u8 = 0b0011_0000;
const EXCLUSIVE: u8 = 0b0100_0000;
/// More than the filter follows: the identifier (0: none), and where it begins.
const MORE: u8 = 0b1000_0000;

fn has_more(subscription: &Subscription) -> bool {
    subscription.identifier != 0 || subscription.starts.is_some()
}

fn packed_len(filter: &str, subscription: &Subscription) -> usize {
    let starts = subscription.starts.as_ref().map_or(0, |starts| starts.len() * size_of::<u64>());
    3 + if has_more(subscription) { 4 + 2 + starts } else { 0 } + filter.len()
}

fn pack(filter: &str, subscription: &Subscription, out: &mut Vec<u8>) {
    let Subscription { options, identifier, exclusive, starts } = subscription;
    let flag = |is: bool, flag: u8| if is { flag } else { 0 };
    out.push(
        options.qos as u8
            | flag(options.no_local, NO_LOCAL)
            | flag(options.retain_as_published, AS_PUBLISHED)
            | (options.retain_handling as u8) << HANDLING_SHIFT
            | flag(*exclusive, EXCLUSIVE)
            | flag(has_more(subscription), MORE),
    );
    out.extend_from_slice(&u16::try_from(filter.len()).unwrap_or(u16::MAX).to_le_bytes());
    if has_more(subscription) {
        out.extend_from_slice(&identifier.to_le_bytes());
        let starts = starts.as_deref().unwrap_or_default();
        out.extend_from_slice(&u16::try_from(starts.len()).unwrap_or(u16::MAX).to_le_bytes());
        for start in starts {
            out.extend_from_slice(&start.0.to_le_bytes());
        }
    }
    out.extend_from_slice(filter.as_bytes());
}

/// Reads what [`pack`] wrote.
struct Packed<'a>(&'a [u8]);

/// One of them, not yet taken apart.
struct Item<'a> {
    flags: u8,
    identifier: u32,
    starts: &'a [[u8; size_of::<u64>()]],
    filter: &'a [u8],
}

impl<'a> Packed<'a> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (front, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*front)
    }

    fn take_slice(&mut self, len: usize) -> Option<&'a [u8]> {
        let (front, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(front)
    }
}

impl<'a> Iterator for Packed<'a> {
    type Item = Item<'a>;

    fn next(&mut self) -> Option<Item<'a>> {
        let [flags] = self.take()?;
        let len = u16::from_le_bytes(self.take()?);
        let mut item = Item { flags, identifier: 0, starts: &[], filter: &[] };
        if flags & MORE != 0 {
            item.identifier = u32::from_le_bytes(self.take()?);
            let count = u16::from_le_bytes(self.take()?);
            item.starts = self.take_slice(usize::from(count) * size_of::<u64>())?.as_chunks().0;
        }
        item.filter = self.take_slice(usize::from(len))?;
        Some(item)
    }
}

impl<'a> Item<'a> {
    fn begins_late(&self) -> bool {
        !self.starts.is_empty() && !self.filter.starts_with(SHARE.as_bytes())
    }

    fn filter(&self) -> &'a str {
        // it was a string when it was packed
        std::str::from_utf8(self.filter).unwrap_or_default()
    }

    fn subscription(&self) -> Subscription {
        let options = SubscriptionOptions {
            qos: QoS::from_u8(self.flags & QOS).unwrap_or(QoS::AtMostOnce),
            no_local: self.flags & NO_LOCAL != 0,
            retain_as_published: self.flags & AS_PUBLISHED != 0,
            retain_handling: match (self.flags & HANDLING) >> HANDLING_SHIFT {
                0 => RetainHandling::Send,
                1 => RetainHandling::SendIfNew,
                _ => RetainHandling::DoNotSend,
            },
        };
        let starts = self.starts.iter().map(|&start| Pos(u64::from_le_bytes(start)));
        Subscription {
            options,
            identifier: self.identifier,
            exclusive: self.flags & EXCLUSIVE != 0,
            starts: (!self.starts.is_empty()).then(|| starts.collect()),
        }
    }

    fn both(&self) -> (&'a str, Subscription) {
        (self.filter(), self.subscription())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn subscription() -> impl Strategy<Value = Subscription> {
        let identifier = prop_oneof![Just(0), any::<u32>()];
        let starts =
            prop_oneof![3 => Just(None), 1 => proptest::collection::vec(any::<u64>(), 1..4).prop_map(Some)];
        (0..3_u8, any::<[bool; 3]>(), 0..3_usize, identifier, starts).prop_map(
            |(qos, [no_local, retain_as_published, exclusive], handling, identifier, starts)| Subscription {
                options: SubscriptionOptions {
                    qos: QoS::from_u8(qos).unwrap(),
                    no_local,
                    retain_as_published,
                    retain_handling: [
                        RetainHandling::Send,
                        RetainHandling::SendIfNew,
                        RetainHandling::DoNotSend,
                    ][handling],
                },
                identifier,
                exclusive,
                starts: starts.map(|starts| starts.into_iter().map(Pos).collect()),
            },
        )
    }

    proptest! {
        #[test]
        fn it_is_a_map_in_the_order_of_filters(
            // few names or many: both forms, and the way from one to the other and back
            ops in prop_oneof![
                proptest::collection::vec(("[ab/é]{0,3}", any::<bool>(), subscription()), 0..60),
                proptest::collection::vec(
                    ("([$]share/g/)?[a-f]{1,2}", prop::bool::weighted(0.7), subscription()), 0..150),
            ],
        ) {
            let mut oracle = BTreeMap::new();
            let mut subscriptions = Subscriptions::default();
            for (filter, insert, subscription) in ops {
                if insert {
                    let before = subscriptions.insert(filter.as_str().into(), subscription.clone());
                    prop_assert_eq!(before, oracle.insert(filter.clone(), subscription));
                } else {
                    prop_assert_eq!(subscriptions.remove(&filter), oracle.remove(&filter));
                }
                prop_assert_eq!(subscriptions.get(&filter), oracle.get(&filter).cloned());
                prop_assert!(subscriptions.iter().eq(oracle.iter().map(|(f, s)| (f.as_str(), s.clone()))));
                prop_assert!(subscriptions.filters().eq(oracle.keys().map(String::as_str)));
                prop_assert_eq!(subscriptions.len(), oracle.len());
                let late = oracle.iter().any(|(f, s)| s.starts.is_some() && !f.starts_with("$share/"));
                prop_assert_eq!(subscriptions.has_late(), late);
                if let List::Few(bytes) = &subscriptions.0 {
                    prop_assert!(oracle.len() < CROWD);
                    prop_assert_eq!(bytes.len(), oracle.iter().map(|(f, s)| packed_len(f, s)).sum::<usize>());
                }
            }
        }
    }

    #[test]
    fn a_filter_longer_than_a_string_of_mqtt_is_kept_whole() {
        let long = "x".repeat(usize::from(u16::MAX) + 1);
        let plain = Subscription {
            options: SubscriptionOptions::default(),
            identifier: 0,
            exclusive: false,
            starts: None,
        };
        let mut subscriptions = Subscriptions::default();
        subscriptions.insert(long[1..].into(), plain.clone());
        assert!(matches!(subscriptions.0, List::Few(_)));
        subscriptions.insert(long.as_str().into(), plain);
        assert!(matches!(subscriptions.0, List::Many(_)));
        assert!(subscriptions.filters().eq([&long[1..], &long]));
    }

    /// The default limit of a client is 10,000: adding and removing them is no matter of seconds.
    #[test]
    fn many_are_added_and_removed_one_by_one() {
        let mut subscriptions = Subscriptions::default();
        let plain = Subscription {
            options: SubscriptionOptions::default(),
            identifier: 0,
            exclusive: false,
            starts: None,
        };
        let filters: Vec<String> = (0..10_000).map(|n| format!("fleet/{n}/state")).collect();
        for filter in &filters {
            assert_eq!(subscriptions.insert(filter.as_str().into(), plain.clone()), None);
        }
        assert_eq!(subscriptions.len(), filters.len());
        for filter in &filters {
            assert!(subscriptions.remove(filter).is_some());
        }
        assert_eq!(subscriptions.len(), 0);
        assert!(matches!(&subscriptions.0, List::Few(bytes) if bytes.is_empty()));
    }
}
