//! Filter trie to receivers, shared by the workers and read-mostly; and each worker's cache of what topics match.
//!
//! Filters are kept in buckets by their first level, each bucket a trie under a lock of its own; filters with a
//! leading wildcard have one more. Matching copies what it finds and lets go: no lock is held while a message is
//! handed over, and no subscriber can hold up another worker.
//!
//! Filters that begin with `$share/` lead to groups (`groups`), in tries of their own.
//!
//! This room must not know connections, queues, packets, which member of a group is chosen or who may do what. It is
//! told filters that were found valid, and topics without wildcards.

mod arena;
mod cache;
mod edges;
mod generations;
mod groups;
mod receivers;
mod routes;
mod text;
mod trie;

#[cfg(test)]
mod tests;

use std::hash::BuildHasher;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use hashbrown::DefaultHashBuilder;
use mqtt::QoS;
use smallvec::SmallVec;

pub(crate) use cache::RouteCache;
use generations::Generations;
use groups::Groups;
pub(crate) use groups::{Group, GroupId, GroupRoute, Member, Presence};
use receivers::Entry;
use trie::{Changed, Trie};

use crate::share::SHARE;
use crate::system_topics::is_system;

/// Buckets of filters whose first level is literal; a power of two. One more is for the others.
const BUCKETS: usize = 64;

/// A session of this process; never used again for another. Ascending by age.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub(crate) struct SessionKey(pub u64);

/// The last bits of a session's key: who knows the key only can still tell clients apart.
const CLIENT_BITS: u32 = 12;

impl SessionKey {
    /// The key of the `count`th session, for this client.
    pub(crate) fn new(count: u64, client_id: &str) -> Self {
        let client = xxhash_rust::xxh3::xxh3_64(client_id.as_bytes()) >> (u64::BITS - CLIENT_BITS);
        Self(count << CLIENT_BITS | client)
    }

    /// The same for all sessions of a client identifier, and for one in 4,096 others.
    pub(crate) const fn client_hash(self) -> u64 {
        self.0 & ((1 << CLIENT_BITS) - 1)
    }
}

/// Where a connected session lives.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Address {
    /// The worker's number.
    pub worker: u16,
    /// The session's place in that worker's table.
    pub slot: u32,
}

/// How a session wants what a filter matches (the Subscription Options, MQTT 5.0 §3.8.3.1).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Subscription {
    /// The highest QoS it may be sent with.
    pub qos: QoS,
    /// Its own messages are not for it [MQTT-3.8.3-3].
    pub no_local: bool,
    /// The RETAIN flag is passed on as the publisher set it.
    pub retain_as_published: bool,
    /// The Subscription Identifier, 1 to 268,435,455; 0 is none.
    pub identifier: u32,
}

/// Whose subscription it is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Receiver {
    /// The session.
    pub session: SessionKey,
    /// Where it is; `None` while it is offline.
    pub address: Option<Address>,
    /// It outlives its connection.
    pub durable: bool,
}

/// What one topic matches: one hit for each session, however many of its filters match.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Routes {
    /// Ascending by worker; only those with hits. One with one hit, which is what most topics have, needs no memory of its own.
    pub workers: SmallVec<[WorkerRoutes; 1]>,
    /// Some durable session, connected or not, matches with QoS 1 or 2, by itself or as the member of a group: the message
    /// must be logged.
    pub durable: bool,
    /// The groups of shared subscriptions, each once.
    pub groups: Vec<GroupRoute>,
    /// Those of them that read QoS 1 and 2 from the log.
    pub marks: Box<[GroupId]>,
}

/// The sessions on one worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct WorkerRoutes {
    /// The worker's number.
    pub worker: u16,
    /// At least one; ascending by session.
    pub hits: SmallVec<[Hit; 1]>,
}

/// One connected session that is to get the message, once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hit {
    /// The session. The slot may have a new tenant by now: compare before delivering.
    pub session: SessionKey,
    /// Its place on the worker.
    pub slot: u32,
    /// It outlives its connection.
    pub durable: bool,
    /// The highest of all its subscriptions that match [MQTT-3.3.4-2].
    pub qos: QoS,
    /// Some of them asks for the RETAIN flag as published.
    pub retain_as_published: bool,
    /// The identifiers of all of them that have one, ascending [MQTT-3.3.4-3] [MQTT-3.3.4-4].
    pub identifiers: SmallVec<[u32; 1]>,
    /// What it gets when it is the publisher itself.
    pub own: Own,
}

/// What the publisher itself gets of its message, by No Local [MQTT-3.8.3-3].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Own {
    /// The same as if another had sent it.
    Same,
    /// Nothing.
    Never,
    /// What its subscriptions without No Local ask for: QoS, retain as published, identifiers.
    Reduced(Box<(QoS, bool, SmallVec<[u32; 1]>)>),
}

/// All subscriptions of this process; shared by all workers.
///
/// The number of subscriptions, levels and bytes of a filter is bounded by who accepts them. One filter takes two
/// trie nodes at most, whatever its number of levels.
pub(crate) struct Router {
    /// By first level, then one for leading wildcards.
    tries: Box<[RwLock<Trie>]>,
    generations: Generations,
    hasher: DefaultHashBuilder,
    subscriptions: AtomicU64,
    filters: AtomicU64,
    /// Subscriptions below `$SYS`: while there are none, nothing is published there.
    system: AtomicU64,
    groups: Groups,
}

impl Router {
    pub(crate) fn new() -> Self {
        let hasher = DefaultHashBuilder::default();
        Self {
            tries: std::iter::repeat_with(|| RwLock::new(Trie::new(hasher.clone())))
                .take(BUCKETS + 1)
                .collect(),
            generations: Generations::new(),
            groups: Groups::new(&hasher),
            hasher,
            subscriptions: AtomicU64::new(0),
            filters: AtomicU64::new(0),
            system: AtomicU64::new(0),
        }
    }

    /// Adds or replaces the session's subscription to `filter`, which is valid; true when it is new.
    pub(crate) fn subscribe(&self, filter: &str, receiver: Receiver, subscription: Subscription) -> bool {
        if filter.starts_with(SHARE) {
            return self.join(filter, receiver, subscription, Presence::default());
        }
        let mut trie = self.write(filter);
        let changed = trie.insert(filter, Entry::new(receiver, subscription));
        self.generations.advance(&self.hasher, filter);
        self.subscriptions.fetch_add(changed.subscription.into(), Ordering::Relaxed);
        self.filters.fetch_add(changed.filter.into(), Ordering::Relaxed);
        self.system.fetch_add((changed.subscription && is_system(filter)).into(), Ordering::Relaxed);
        changed.subscription
    }

    /// The same for a shared subscription, with what is told of the member.
    pub(crate) fn join(
        &self,
        filter: &str,
        receiver: Receiver,
        subscription: Subscription,
        presence: Presence,
    ) -> bool {
        let advance = |path: &str| self.generations.advance(&self.hasher, path);
        let new = self.groups.join(filter, receiver, subscription, presence, advance);
        self.system.fetch_add((new && is_system(path_of_group(filter))).into(), Ordering::Relaxed);
        new
    }

    /// A durable member of the group `filter` came to `address`, with what is told of it.
    pub(crate) fn appear(&self, filter: &str, session: SessionKey, address: Address, presence: Presence) {
        let advance = |path: &str| self.generations.advance(&self.hasher, path);
        self.groups.relocate(filter, session, Some(address), Some(presence), advance);
    }

    /// A group as it is now; `None`: it has no member.
    pub(crate) fn group(&self, id: GroupId) -> Option<GroupRoute> {
        self.groups.get(id)
    }

    /// Whether a group has a member.
    pub(crate) fn has_group(&self, id: GroupId) -> bool {
        self.groups.has(id)
    }

    /// How many groups of shared subscriptions there are.
    pub(crate) fn groups(&self) -> u64 {
        self.groups.len()
    }

    /// Removes the session's subscription to exactly this filter [MQTT-3.10.4-1]; false when there was none.
    pub(crate) fn unsubscribe(&self, filter: &str, session: SessionKey) -> bool {
        if filter.starts_with(SHARE) {
            let advance = |path: &str| self.generations.advance(&self.hasher, path);
            let known = self.groups.leave(filter, session, advance);
            self.system.fetch_sub((known && is_system(path_of_group(filter))).into(), Ordering::Relaxed);
            return known;
        }
        let mut trie = self.write(filter);
        let changed = trie.remove(filter, session);
        if changed == Changed::default() {
            return false;
        }
        self.generations.advance(&self.hasher, filter);
        self.subscriptions.fetch_sub(changed.subscription.into(), Ordering::Relaxed);
        self.filters.fetch_sub(changed.filter.into(), Ordering::Relaxed);
        self.system.fetch_sub((changed.subscription && is_system(filter)).into(), Ordering::Relaxed);
        true
    }

    /// A durable session came to `address`, or went (`None`). `filters` are all it subscribes to; one it does not
    /// subscribe to is passed over. Each filter changes by itself: until this returns, a topic may still lead to
    /// the old place.
    pub(crate) fn relocate<'a>(
        &self,
        filters: impl IntoIterator<Item = &'a str>,
        session: SessionKey,
        address: Option<Address>,
    ) {
        for filter in filters {
            if filter.starts_with(SHARE) {
                let advance = |path: &str| self.generations.advance(&self.hasher, path);
                self.groups.relocate(filter, session, address, None, advance);
                continue;
            }
            let mut trie = self.write(filter);
            if trie.relocate(filter, session, address) {
                self.generations.advance(&self.hasher, filter);
            }
        }
    }

    /// Whether somebody subscribes below `$SYS`.
    pub(crate) fn is_system_watched(&self) -> bool {
        self.system.load(Ordering::Relaxed) > 0
    }

    /// How many subscriptions there are.
    pub(crate) fn subscriptions(&self) -> u64 {
        self.subscriptions.load(Ordering::Relaxed) + self.groups.members()
    }

    /// How many distinct filters there are; a group's is one.
    pub(crate) fn filters(&self) -> u64 {
        self.filters.load(Ordering::Relaxed) + self.groups.len()
    }

    /// What `topic` matches; `None`: nobody. `scratch` is emptied first and holds all single matches afterwards.
    fn matching(&self, topic: &str, scratch: &mut Vec<Entry>) -> Option<Routes> {
        scratch.clear();
        let mut lists = self.read(self.bucket(topic)).matching(topic, scratch);
        // A filter that starts with a wildcard does not match a topic that starts with `$` [MQTT-4.7.2-1].
        if !topic.starts_with('$') {
            lists += self.read(BUCKETS).matching(topic, scratch);
        }
        let groups = self.groups.matching(topic);
        if groups.is_empty() {
            return (!scratch.is_empty()).then(|| routes::merge(scratch, lists));
        }
        let mut routes = routes::merge(scratch, lists);
        routes.groups = groups;
        routes.marks = routes.groups.iter().filter(|g| g.durable).map(|g| g.group.id).collect();
        routes.durable |= !routes.marks.is_empty();
        Some(routes)
    }

    /// Where a topic's or filter's first level puts it.
    fn bucket(&self, path: &str) -> usize {
        match text::split_level(path.as_bytes()).0 {
            b"+" | b"#" => BUCKETS,
            first => self.hasher.hash_one(first) as usize & (BUCKETS - 1),
        }
    }

    // A lock is poisoned by a panic inside the trie, which has none on purpose; routing what is left is better
    // than taking every worker down with it.
    fn read(&self, bucket: usize) -> RwLockReadGuard<'_, Trie> {
        self.tries[bucket].read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, filter: &str) -> RwLockWriteGuard<'_, Trie> {
        self.tries[self.bucket(filter)].write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What follows `$share/` and the name of the group.
fn path_of_group(filter: &str) -> &str {
    filter.splitn(3, '/').nth(2).unwrap_or_default()
}
