//! Shared subscriptions (4.8.2): filters to groups of sessions, of which one gets each message.
//!
//! A group is a ShareName *and* a filter: the same name with another filter is another group. Groups hang in tries of
//! their own, so that what is not shared becomes neither larger nor slower.
//!
//! This file must not know who is chosen, or how.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use hashbrown::{DefaultHashBuilder, HashMap};
use mqtt::QoS;

use super::receivers::Entry;
use super::trie::Trie;
use super::{Address, Receiver, SessionKey, Subscription};
use crate::share::SHARE;

/// Names a group in the log and between workers: a hash of its name. Part of the data's format.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub(crate) struct GroupId(pub u64);

/// A ShareName and a filter.
#[derive(PartialEq, Eq, Debug)]
pub(crate) struct Group {
    /// `$share/{ShareName}/{filter}`, as clients write it.
    pub name: Box<str>,
    /// The hash of the name.
    pub id: GroupId,
}

impl Group {
    /// The group of a valid filter that begins with `$share/`.
    pub(crate) fn of(name: &str) -> Arc<Self> {
        Arc::new(Self { name: name.into(), id: GroupId(xxhash_rust::xxh3::xxh3_64(name.as_bytes())) })
    }

    fn parts(name: &str) -> (&str, &str) {
        name.strip_prefix(SHARE).and_then(|rest| rest.split_once('/')).unwrap_or(("", name))
    }

    /// The ShareName.
    pub(crate) fn share(&self) -> &str {
        Self::parts(&self.name).0
    }
}

/// What the worker of a connected member tells of it.
#[derive(Clone, Debug)]
pub(crate) struct Presence {
    /// QoS 1 and 2 messages that may be under way to it.
    pub window: u16,
    /// How many are, or wait for it in memory; about right, and written by its worker.
    pub load: Arc<AtomicU32>,
}

impl Default for Presence {
    fn default() -> Self {
        Self { window: u16::MAX, load: Arc::default() }
    }
}

/// A connected session that may be chosen.
#[derive(Clone, Debug)]
pub(crate) struct Member {
    /// The session.
    pub session: SessionKey,
    /// Where it is.
    pub address: Address,
    /// The highest QoS it may be sent with.
    pub qos: QoS,
    /// The RETAIN flag is passed on as the publisher set it.
    pub retain_as_published: bool,
    /// 0: none.
    pub identifier: u32,
    /// What its worker tells.
    pub presence: Presence,
}

impl PartialEq for Member {
    fn eq(&self, other: &Self) -> bool {
        let key = |m: &Self| (m.session, m.address, m.qos, m.retain_as_published, m.identifier);
        key(self) == key(other)
    }
}

impl Eq for Member {}

/// A group that a topic matches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct GroupRoute {
    /// Which.
    pub group: Arc<Group>,
    /// A member that outlives its connection, here or away, wants QoS 1 or 2: the message goes through the log.
    pub durable: bool,
    /// Those who are connected; ascending by session.
    pub members: Vec<Member>,
}

struct Joined {
    subscription: Subscription,
    durable: bool,
    address: Option<Address>,
    presence: Presence,
}

struct Standing {
    group: Arc<Group>,
    members: BTreeMap<SessionKey, Joined>,
}

impl Standing {
    fn is_durable(&self) -> bool {
        self.members.values().any(|m| m.durable && m.subscription.qos > QoS::AtMostOnce)
    }

    fn route(&self) -> GroupRoute {
        let members = self.members.iter().filter_map(|(&session, m)| {
            Some(Member {
                session,
                address: m.address?,
                qos: m.subscription.qos,
                retain_as_published: m.subscription.retain_as_published,
                identifier: m.subscription.identifier,
                presence: m.presence.clone(),
            })
        });
        GroupRoute { group: Arc::clone(&self.group), durable: self.is_durable(), members: members.collect() }
    }
}

struct Inner {
    /// Filters with a literal first level, and those with a wildcard; the receivers are groups, by number.
    tries: [Trie; 2],
    /// Of this process, never used again.
    by_number: HashMap<u64, Standing>,
    numbers: HashMap<GroupId, u64>,
    next: u64,
}

/// All groups of this process.
///
/// One lock for all: it is taken where a member comes or goes, and where a worker's cache does not know a topic.
pub(super) struct Groups {
    inner: RwLock<Inner>,
    /// Groups. While there are none, no topic takes the lock.
    count: AtomicU64,
    members: AtomicU64,
}

impl Groups {
    pub(super) fn new(hasher: &DefaultHashBuilder) -> Self {
        let inner = Inner {
            tries: [Trie::new(hasher.clone()), Trie::new(hasher.clone())],
            by_number: HashMap::new(),
            numbers: HashMap::new(),
            next: 0,
        };
        Self { inner: RwLock::new(inner), count: AtomicU64::new(0), members: AtomicU64::new(0) }
    }

    fn read(&self) -> RwLockReadGuard<'_, Inner> {
        self.inner.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Inner> {
        self.inner.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds or replaces a member; true when it is new. `changed` is called with the filter without its share before the lock
    /// is released.
    pub(super) fn join(
        &self,
        name: &str,
        receiver: Receiver,
        subscription: Subscription,
        presence: Presence,
        changed: impl FnOnce(&str),
    ) -> bool {
        let path = Group::parts(name).1;
        let group = Group::of(name);
        let mut inner = self.write();
        let number = match inner.numbers.get(&group.id) {
            Some(&number) => number,
            None => {
                inner.next += 1;
                let number = inner.next;
                inner.numbers.insert(group.id, number);
                inner.tries[trie_of(path)].insert(path, entry(number));
                inner.by_number.insert(number, Standing { group, members: BTreeMap::new() });
                self.count.fetch_add(1, Ordering::Relaxed);
                number
            }
        };
        let joined = Joined { subscription, durable: receiver.durable, address: receiver.address, presence };
        let standing = inner.by_number.get_mut(&number);
        let new = standing.is_some_and(|s| s.members.insert(receiver.session, joined).is_none());
        self.members.fetch_add(new.into(), Ordering::Relaxed);
        changed(path);
        new
    }

    /// Removes a member; true when it was there.
    pub(super) fn leave(&self, name: &str, session: SessionKey, changed: impl FnOnce(&str)) -> bool {
        let path = Group::parts(name).1;
        let id = Group::of(name).id;
        let mut inner = self.write();
        let Some(&number) = inner.numbers.get(&id) else { return false };
        let Some(standing) = inner.by_number.get_mut(&number) else { return false };
        if standing.members.remove(&session).is_none() {
            return false;
        }
        self.members.fetch_sub(1, Ordering::Relaxed);
        if standing.members.is_empty() {
            inner.by_number.remove(&number);
            inner.numbers.remove(&id);
            inner.tries[trie_of(path)].remove(path, SessionKey(number));
            self.count.fetch_sub(1, Ordering::Relaxed);
        }
        changed(path);
        true
    }

    /// A member came to `address`, or went (`None`). `presence`: what is told of it from now on.
    pub(super) fn relocate(
        &self,
        name: &str,
        session: SessionKey,
        address: Option<Address>,
        presence: Option<Presence>,
        changed: impl FnOnce(&str),
    ) {
        let id = Group::of(name).id;
        let mut inner = self.write();
        let Some(&number) = inner.numbers.get(&id) else { return };
        let Some(member) = inner.by_number.get_mut(&number).and_then(|s| s.members.get_mut(&session)) else {
            return;
        };
        member.address = address;
        if let Some(presence) = presence {
            member.presence = presence;
        }
        changed(Group::parts(name).1);
    }

    /// The groups that a topic matches, each once; ascending by number.
    pub(super) fn matching(&self, topic: &str) -> Vec<GroupRoute> {
        if self.count.load(Ordering::Relaxed) == 0 {
            return Vec::new();
        }
        let inner = self.read();
        let mut found = Vec::new();
        inner.tries[0].matching(topic, &mut found);
        // A filter that starts with a wildcard does not match a topic that starts with `$` [MQTT-4.7.2-1].
        if !topic.starts_with('$') {
            inner.tries[1].matching(topic, &mut found);
        }
        found.sort_by_key(Entry::session);
        found.iter().filter_map(|e| Some(inner.by_number.get(&e.session().0)?.route())).collect()
    }

    /// The group as it is now.
    pub(super) fn get(&self, id: GroupId) -> Option<GroupRoute> {
        let inner = self.read();
        let number = inner.numbers.get(&id)?;
        inner.by_number.get(number).map(Standing::route)
    }

    pub(super) fn has(&self, id: GroupId) -> bool {
        self.read().numbers.contains_key(&id)
    }

    pub(super) fn len(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    pub(super) fn members(&self) -> u64 {
        self.members.load(Ordering::Relaxed)
    }
}

fn trie_of(path: &str) -> usize {
    usize::from(path.starts_with(['+', '#']))
}

/// A group in the place of a receiver.
fn entry(number: u64) -> Entry {
    let receiver = Receiver { session: SessionKey(number), address: None, durable: false };
    let subscription =
        Subscription { qos: QoS::AtMostOnce, no_local: false, retain_as_published: false, identifier: 0 };
    Entry::new(receiver, subscription)
}

#[cfg(test)]
impl Groups {
    /// Nodes and lists in the tries.
    pub(super) fn census(&self) -> (usize, usize) {
        let inner = self.read();
        inner.tries.iter().for_each(Trie::assert_whole);
        assert_eq!(inner.by_number.len() as u64, self.len());
        assert_eq!(inner.numbers.len() as u64, self.len());
        let members: usize = inner.by_number.values().map(|s| s.members.len()).sum();
        assert_eq!(members as u64, self.members());
        inner.tries.iter().map(Trie::census).fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1))
    }
}
