//! Who receives what one filter matches: mostly one session, sometimes a million.

use std::collections::BTreeMap;

use mqtt::QoS;

use super::arena::Arena;
use super::{Address, Receiver, SessionKey, Subscription};

/// From this many receivers on, a filter keeps them in a B-tree: no change then moves or scans them all.
const CROWD: usize = 32;
/// Below this many it goes back to a plain list; lower than [`CROWD`], so that one session cannot flap it.
const DISPERSED: usize = 16;
/// No crowd.
const NONE: u32 = 0;

/// One subscription of one session, flat and in words of four bytes, so that it fits into a node of the trie.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    /// The session's key, in two halves.
    session: [u32; 2],
    slot: u32,
    pub(super) identifier: u32,
    worker: u16,
    /// The QoS and the flags below.
    options: u8,
    /// Which of its node's filters it is; said by [`Crowds::insert`].
    end: End,
}

const QOS: u8 = 0b0000_0011;
const NO_LOCAL: u8 = 0b0000_0100;
const AS_PUBLISHED: u8 = 0b0000_1000;
const DURABLE: u8 = 0b0001_0000;
const CONNECTED: u8 = 0b0010_0000;

impl Entry {
    pub(super) fn new(receiver: Receiver, subscription: Subscription) -> Self {
        let address = receiver.address.unwrap_or(Address { worker: 0, slot: 0 });
        let flag = |is: bool, flag: u8| if is { flag } else { 0 };
        let SessionKey(key) = receiver.session;
        Self {
            session: [(key >> 32) as u32, key as u32],
            slot: address.slot,
            identifier: subscription.identifier,
            worker: address.worker,
            options: subscription.qos as u8
                | flag(subscription.no_local, NO_LOCAL)
                | flag(subscription.retain_as_published, AS_PUBLISHED)
                | flag(receiver.durable, DURABLE)
                | flag(receiver.address.is_some(), CONNECTED),
            end: End::Here,
        }
    }

    pub(super) fn session(&self) -> SessionKey {
        SessionKey(u64::from(self.session[0]) << 32 | u64::from(self.session[1]))
    }

    pub(super) fn qos(&self) -> QoS {
        QoS::from_u8(self.options & QOS).unwrap_or(QoS::AtMostOnce)
    }

    pub(super) fn no_local(&self) -> bool {
        self.options & NO_LOCAL != 0
    }

    pub(super) fn retain_as_published(&self) -> bool {
        self.options & AS_PUBLISHED != 0
    }

    pub(super) fn durable(&self) -> bool {
        self.options & DURABLE != 0
    }

    pub(super) fn address(&self) -> Option<Address> {
        (self.options & CONNECTED != 0).then_some(Address { worker: self.worker, slot: self.slot })
    }

    /// True when it was another.
    fn relocate(&mut self, address: Option<Address>) -> bool {
        let moves = self.address() != address;
        self.options &= !CONNECTED;
        if let Some(Address { worker, slot }) = address {
            self.options |= CONNECTED;
            (self.worker, self.slot) = (worker, slot);
        }
        moves
    }
}

/// Which of the two filters that end at one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// The filter of the node's path.
    Here,
    /// The path with `/#`.
    Below,
}

/// The receivers of the two filters that end at a node.
///
/// Nearly every filter of a fleet has one receiver. It is kept in the node itself: who finds the node has found the
/// receiver, without another place of memory that is in no cache.
#[derive(Default)]
pub(super) enum Lists {
    #[default]
    Nobody,
    One(Entry),
    /// All else: ids of crowds, which have at least one receiver.
    Crowds([u32; 2]),
}

const _: () = assert!(size_of::<Lists>() == 20);

impl Lists {
    pub(super) fn is_empty(&self) -> bool {
        matches!(self, Self::Nobody)
    }
}

/// What a removal leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Removed {
    /// The session was not there.
    Nothing,
    /// Others are still there.
    One,
    /// It was the last of its filter.
    Last,
}

/// The receivers that nodes have no room for.
pub(super) struct Crowds(Arena<Crowd>);

/// The receivers of one filter, each session once, in ascending order of session.
enum Crowd {
    Few(Box<[Entry]>),
    #[expect(clippy::box_collection, reason = "keeps the common case small")]
    Many(Box<BTreeMap<SessionKey, Entry>>),
}

impl Default for Crowd {
    fn default() -> Self {
        Self::Few(Box::default())
    }
}

impl Crowds {
    pub(super) fn new() -> Self {
        Self(Arena::new())
    }

    /// Adds or replaces the session's subscription; whether it is new, and whether its filter is.
    pub(super) fn insert(&mut self, lists: &mut Lists, end: End, entry: Entry) -> (bool, bool) {
        let entry = Entry { end, ..entry };
        match lists {
            Lists::Nobody => *lists = Lists::One(entry),
            Lists::One(only) if only.end == end && only.session() == entry.session() => {
                *only = entry;
                return (false, false);
            }
            Lists::One(only) => {
                let mut ids = [NONE; 2];
                ids[only.end as usize] = self.0.insert(Crowd::of(vec![*only]));
                *lists = Lists::Crowds(ids);
                return self.insert(lists, end, entry);
            }
            Lists::Crowds(ids) => {
                let id = &mut ids[end as usize];
                if *id != NONE {
                    return (self.0[*id].insert(entry), false);
                }
                *id = self.0.insert(Crowd::of(vec![entry]));
            }
        }
        (true, true)
    }

    pub(super) fn remove(&mut self, lists: &mut Lists, end: End, session: SessionKey) -> Removed {
        match lists {
            Lists::One(only) if only.end == end && only.session() == session => {
                *lists = Lists::Nobody;
                Removed::Last
            }
            Lists::Crowds(ids) => {
                let id = ids[end as usize];
                if id == NONE || !self.0[id].remove(session) {
                    return Removed::Nothing;
                }
                let last = self.0[id].is_empty();
                if last {
                    self.0.remove(id);
                    ids[end as usize] = NONE;
                }
                // a crowd that has become one goes back into the node
                if let [id, NONE] | [NONE, id] = *ids
                    && let Some(only) = self.0[id].only()
                {
                    self.0.remove(id);
                    *lists = Lists::One(only);
                }
                if last { Removed::Last } else { Removed::One }
            }
            Lists::Nobody | Lists::One(_) => Removed::Nothing,
        }
    }

    /// True when the session is there and its address was another.
    pub(super) fn relocate(
        &mut self,
        lists: &mut Lists,
        end: End,
        session: SessionKey,
        address: Option<Address>,
    ) -> bool {
        let entry = match lists {
            Lists::One(only) => Some(only).filter(|only| only.end == end && only.session() == session),
            Lists::Crowds(ids) if ids[end as usize] != NONE => self.0[ids[end as usize]].get_mut(session),
            Lists::Nobody | Lists::Crowds(_) => None,
        };
        entry.is_some_and(|entry| entry.relocate(address))
    }

    /// Appends all receivers of a filter, in ascending order of session; false when it has none.
    pub(super) fn copy(&self, lists: &Lists, end: End, out: &mut Vec<Entry>) -> bool {
        match lists {
            Lists::One(only) if only.end == end => out.push(*only),
            Lists::Crowds(ids) if ids[end as usize] != NONE => self.0[ids[end as usize]].copy_to(out),
            Lists::Nobody | Lists::One(_) | Lists::Crowds(_) => return false,
        }
        true
    }
}

impl Crowd {
    /// Of a sorted list.
    fn of(entries: Vec<Entry>) -> Self {
        if entries.len() < CROWD {
            Self::Few(entries.into_boxed_slice())
        } else {
            Self::Many(Box::new(entries.into_iter().map(|e| (e.session(), e)).collect()))
        }
    }

    fn is_empty(&self) -> bool {
        match self {
            Self::Few(few) => few.is_empty(),
            Self::Many(many) => many.is_empty(),
        }
    }

    /// The receiver, if it is one.
    fn only(&self) -> Option<Entry> {
        match self {
            Self::Few(few) => {
                if let [only] = **few {
                    Some(only)
                } else {
                    None
                }
            }
            Self::Many(_) => None,
        }
    }

    /// Adds or replaces the session's subscription; true when it is new.
    fn insert(&mut self, entry: Entry) -> bool {
        if let Some(present) = self.get_mut(entry.session()) {
            *present = entry;
            return false;
        }
        match self {
            Self::Few(few) => {
                let mut entries = std::mem::take(few).into_vec();
                let at = entries.partition_point(|e| e.session() < entry.session());
                entries.insert(at, entry);
                *self = Self::of(entries);
            }
            Self::Many(many) => {
                many.insert(entry.session(), entry);
            }
        }
        true
    }

    /// True when the session was there.
    fn remove(&mut self, session: SessionKey) -> bool {
        match self {
            Self::Few(few) => {
                let Ok(at) = few.binary_search_by_key(&session, Entry::session) else { return false };
                let mut entries = std::mem::take(few).into_vec();
                entries.remove(at);
                *self = Self::of(entries);
            }
            Self::Many(many) => {
                if many.remove(&session).is_none() {
                    return false;
                }
                if many.len() < DISPERSED {
                    *self = Self::of(std::mem::take(&mut **many).into_values().collect());
                }
            }
        }
        true
    }

    fn get_mut(&mut self, session: SessionKey) -> Option<&mut Entry> {
        match self {
            Self::Few(few) => {
                let at = few.binary_search_by_key(&session, Entry::session).ok()?;
                few.get_mut(at)
            }
            Self::Many(many) => many.get_mut(&session),
        }
    }

    /// Appends all receivers, in ascending order of session.
    fn copy_to(&self, out: &mut Vec<Entry>) {
        match self {
            Self::Few(few) => out.extend_from_slice(few),
            Self::Many(many) => out.extend(many.values()),
        }
    }
}

#[cfg(test)]
impl Crowds {
    pub(super) fn bytes(&self) -> usize {
        self.0.bytes()
    }

    /// How many of the two filters of a node have receivers, after checking that what fits into the node is there.
    pub(super) fn filters(&self, lists: &Lists) -> usize {
        match lists {
            Lists::Nobody => 0,
            Lists::One(_) => 1,
            Lists::Crowds(ids) => {
                let there: Vec<_> = ids.iter().filter(|&&id| id != NONE).collect();
                assert!(there.iter().all(|&&id| !self.0[id].is_empty()), "a crowd of nobody");
                assert!(there.len() == 2 || self.0[*there[0]].only().is_none(), "one receiver in a crowd");
                there.len()
            }
        }
    }

    /// How many crowds there are.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(crowds: &Crowds, lists: &Lists, end: End) -> Vec<u64> {
        let mut all = Vec::new();
        assert_eq!(crowds.copy(lists, end, &mut all), !all.is_empty());
        all.iter().map(|e| e.session().0).collect()
    }

    #[test]
    fn a_crowd_is_kept_in_order_and_becomes_one_again_when_it_disperses() {
        let subscription =
            Subscription { qos: QoS::AtMostOnce, no_local: false, retain_as_published: false, identifier: 0 };
        for (end, other) in [(End::Here, End::Below), (End::Below, End::Here)] {
            let (mut crowds, mut lists) = (Crowds::new(), Lists::default());
            for session in (0..100).rev().map(SessionKey) {
                let entry = Entry::new(Receiver { session, address: None, durable: true }, subscription);
                assert_eq!(crowds.insert(&mut lists, end, entry), (true, session.0 == 99));
                assert_eq!(crowds.insert(&mut lists, end, entry), (false, false));
                assert_eq!(crowds.remove(&mut lists, other, session), Removed::Nothing);
            }
            let Lists::Crowds(ids) = &lists else { panic!("100 receivers in a node") };
            assert!(matches!(crowds.0[ids[end as usize]], Crowd::Many(_)));
            for left in (0..100).rev() {
                let removed = if left == 0 { Removed::Last } else { Removed::One };
                assert_eq!(crowds.remove(&mut lists, end, SessionKey(left)), removed);
                assert_eq!(crowds.remove(&mut lists, end, SessionKey(left)), Removed::Nothing);
                assert!(all(&crowds, &lists, end).into_iter().eq(0..left));
                assert!(all(&crowds, &lists, other).is_empty());
                assert!(match &lists {
                    Lists::Nobody => left == 0,
                    Lists::One(only) => left == 1 && only.end == end,
                    Lists::Crowds(ids) => match crowds.0[ids[end as usize]] {
                        Crowd::Few(_) => left > 1 && left < DISPERSED as u64,
                        Crowd::Many(_) => left >= DISPERSED as u64,
                    },
                });
            }
            assert_eq!(crowds.len(), 0);
        }
    }

    #[test]
    fn both_filters_of_a_node_have_receivers_of_their_own() {
        let subscription =
            Subscription { qos: QoS::ExactlyOnce, no_local: true, retain_as_published: false, identifier: 7 };
        let entry = |session| {
            let address = Some(Address { worker: 3, slot: 4 });
            Entry::new(Receiver { session: SessionKey(session), address, durable: false }, subscription)
        };
        let (mut crowds, mut lists) = (Crowds::new(), Lists::default());
        assert_eq!(crowds.insert(&mut lists, End::Here, entry(u64::MAX - 1)), (true, true));
        assert_eq!(crowds.insert(&mut lists, End::Below, entry(1)), (true, true));
        assert_eq!(all(&crowds, &lists, End::Here), [u64::MAX - 1]);
        assert_eq!(all(&crowds, &lists, End::Below), [1]);
        assert_eq!(crowds.filters(&lists), 2);
        assert!(crowds.relocate(&mut lists, End::Below, SessionKey(1), None));
        assert!(!crowds.relocate(&mut lists, End::Below, SessionKey(1), None));
        assert_eq!(crowds.remove(&mut lists, End::Here, SessionKey(u64::MAX - 1)), Removed::Last);
        let Lists::One(only) = &lists else { panic!("one receiver is kept in the node") };
        assert_eq!((only.qos(), only.no_local(), only.durable()), (QoS::ExactlyOnce, true, false));
        assert_eq!((only.identifier, only.address()), (7, None));
        assert_eq!(crowds.remove(&mut lists, End::Below, SessionKey(1)), Removed::Last);
        assert!(lists.is_empty() && crowds.len() == 0);
    }
}
