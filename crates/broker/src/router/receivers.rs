//! Who receives what one filter matches: mostly one session, sometimes a million.

use std::collections::BTreeMap;

use mqtt::QoS;

use super::{Address, Receiver, SessionKey, Subscription};

/// From this many receivers on, a filter keeps them in a B-tree: no change then moves or scans them all.
const CROWD: usize = 32;
/// Below this many it goes back to a plain list; lower than [`CROWD`], so that one session cannot flap it.
const DISPERSED: usize = 16;

/// One subscription of one session, flat to stay within 24 bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    pub(super) session: SessionKey,
    slot: u32,
    pub(super) identifier: u32,
    worker: u16,
    pub(super) qos: QoS,
    pub(super) no_local: bool,
    pub(super) retain_as_published: bool,
    pub(super) durable: bool,
    connected: bool,
}

impl Entry {
    pub(super) fn new(receiver: Receiver, subscription: Subscription) -> Self {
        let address = receiver.address.unwrap_or(Address { worker: 0, slot: 0 });
        Self {
            session: receiver.session,
            slot: address.slot,
            identifier: subscription.identifier,
            worker: address.worker,
            qos: subscription.qos,
            no_local: subscription.no_local,
            retain_as_published: subscription.retain_as_published,
            durable: receiver.durable,
            connected: receiver.address.is_some(),
        }
    }

    pub(super) fn address(&self) -> Option<Address> {
        self.connected.then_some(Address { worker: self.worker, slot: self.slot })
    }

    fn set_address(&mut self, address: Option<Address>) {
        self.connected = address.is_some();
        if let Some(Address { worker, slot }) = address {
            (self.worker, self.slot) = (worker, slot);
        }
    }
}

/// The receivers of one filter, each session once, in ascending order of session.
#[derive(Default)]
pub(super) enum Receivers {
    #[default]
    Nobody,
    One(Entry),
    Few(Box<[Entry]>),
    #[expect(clippy::box_collection, reason = "keeps the common case, one receiver, at 24 bytes")]
    Many(Box<BTreeMap<SessionKey, Entry>>),
}

impl Receivers {
    pub(super) fn is_empty(&self) -> bool {
        matches!(self, Self::Nobody)
    }

    /// Adds or replaces the session's subscription; true when it is new.
    pub(super) fn insert(&mut self, entry: Entry) -> bool {
        if let Some(present) = self.get_mut(entry.session) {
            *present = entry;
            return false;
        }
        *self = match std::mem::take(self) {
            Self::Nobody => Self::One(entry),
            Self::One(other) => Self::from_sorted(with(vec![other], entry)),
            Self::Few(few) => Self::from_sorted(with(few.into_vec(), entry)),
            Self::Many(mut many) => {
                many.insert(entry.session, entry);
                Self::Many(many)
            }
        };
        true
    }

    /// True when the session was there.
    pub(super) fn remove(&mut self, session: SessionKey) -> bool {
        if self.get_mut(session).is_none() {
            return false;
        }
        *self = match std::mem::take(self) {
            Self::Nobody | Self::One(_) => Self::Nobody,
            Self::Few(few) => {
                Self::from_sorted(few.into_vec().into_iter().filter(|e| e.session != session).collect())
            }
            Self::Many(mut many) => {
                many.remove(&session);
                if many.len() < DISPERSED {
                    Self::from_sorted(many.into_values().collect())
                } else {
                    Self::Many(many)
                }
            }
        };
        true
    }

    /// True when the session is there and its address was another.
    pub(super) fn relocate(&mut self, session: SessionKey, address: Option<Address>) -> bool {
        match self.get_mut(session) {
            Some(entry) if entry.address() != address => {
                entry.set_address(address);
                true
            }
            _ => false,
        }
    }

    /// Appends all receivers, in ascending order of session.
    pub(super) fn copy_to(&self, out: &mut Vec<Entry>) {
        match self {
            Self::Nobody => {}
            Self::One(entry) => out.push(*entry),
            Self::Few(few) => out.extend_from_slice(few),
            Self::Many(many) => out.extend(many.values()),
        }
    }

    fn from_sorted(entries: Vec<Entry>) -> Self {
        match entries.as_slice() {
            [] => Self::Nobody,
            [one] => Self::One(*one),
            few if few.len() < CROWD => Self::Few(entries.into_boxed_slice()),
            _ => Self::Many(Box::new(entries.into_iter().map(|e| (e.session, e)).collect())),
        }
    }

    fn get_mut(&mut self, session: SessionKey) -> Option<&mut Entry> {
        match self {
            Self::Nobody => None,
            Self::One(entry) => (entry.session == session).then_some(entry),
            Self::Few(few) => {
                let at = few.binary_search_by_key(&session, |e| e.session).ok()?;
                few.get_mut(at)
            }
            Self::Many(many) => many.get_mut(&session),
        }
    }
}

const _: () = assert!(size_of::<Receivers>() == 24);

/// `entries` with `entry` at its place.
fn with(mut entries: Vec<Entry>, entry: Entry) -> Vec<Entry> {
    let at = entries.partition_point(|e| e.session < entry.session);
    entries.insert(at, entry);
    entries
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crowd_is_kept_in_order_and_becomes_a_list_again_when_it_disperses() {
        let subscription =
            Subscription { qos: QoS::AtMostOnce, no_local: false, retain_as_published: false, identifier: 0 };
        let mut receivers = Receivers::default();
        for session in (0..100).rev().map(SessionKey) {
            let receiver = Receiver { session, address: None, durable: true };
            assert!(receivers.insert(Entry::new(receiver, subscription)));
            assert!(!receivers.insert(Entry::new(receiver, subscription)));
        }
        assert!(matches!(receivers, Receivers::Many(_)));
        for left in (0..100).rev() {
            assert!(receivers.remove(SessionKey(left)) && !receivers.remove(SessionKey(left)));
            let mut all = Vec::new();
            receivers.copy_to(&mut all);
            assert!(all.iter().map(|e| e.session.0).eq(0..left));
            let dispersed = left < DISPERSED as u64;
            assert!(match receivers {
                Receivers::Nobody => left == 0,
                Receivers::One(_) => left == 1,
                Receivers::Few(_) => left > 1 && dispersed,
                Receivers::Many(_) => !dispersed,
            });
        }
    }
}
