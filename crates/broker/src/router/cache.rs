//! What topics match, remembered by one worker.

use std::hash::BuildHasher;
use std::rc::Rc;

use hashbrown::{DefaultHashBuilder, HashTable};

use super::generations::{Generations, Starts};
use super::receivers::Entry;
use super::{GroupRoute, Hit, Member, Router, Routes, WorkerRoutes};

/// Memory the cache may hold, in bytes for each topic of its capacity: 64 MiB at the default of 65,536 topics.
const BYTES_PER_TOPIC: usize = 1_024;
/// One topic may take this part of the cache. A topic with more receivers is matched anew for each message,
/// which is little beside delivering it to all of them.
const LARGEST_PART: usize = 4;
/// Matches that the scratch list keeps room for between lookups.
const SCRATCH: usize = 4_096;

/// Remembers topics and their routes for one worker; bounded in topics and in bytes.
///
/// When it is full, a topic comes in at the second time it is asked for, and those that were not asked for again since the
/// hand last passed go first (second chance). So topics used once drive out nobody, and do not cost more than to be matched:
/// to remember one and forget another is as much work.
pub(crate) struct RouteCache {
    /// Places in `topics`, by hash of the topic.
    index: HashTable<u32>,
    topics: Vec<Cached>,
    hasher: DefaultHashBuilder,
    /// Where the topic lies that was asked for last, unless it was forgotten: a hint.
    last: u32,
    capacity: usize,
    /// Sum of [`Cached::weight`].
    weight: usize,
    /// Where the search for a topic to forget goes on.
    hand: usize,
    newcomers: Newcomers,
    matched: Vec<Entry>,
    nobody: Rc<Routes>,
    no_topic: Rc<str>,
}

struct Cached {
    topic: Rc<str>,
    routes: Rc<Routes>,
    starts: Starts,
    asked_again: bool,
    /// [`Generations::sum`] from before the routes were found.
    generation: u64,
    /// Bytes.
    weight: usize,
}

impl RouteCache {
    /// A cache for `capacity` topics (at least 1; 65,536 is a good value for a worker).
    pub(crate) fn new(capacity: usize) -> Self {
        Self {
            index: HashTable::new(),
            topics: Vec::new(),
            hasher: DefaultHashBuilder::default(),
            last: 0,
            capacity: capacity.clamp(1, u32::MAX as usize),
            weight: 0,
            hand: 0,
            newcomers: Newcomers::default(),
            matched: Vec::new(),
            nobody: Rc::default(),
            no_topic: Rc::from(""),
        }
    }

    /// The topic that was asked for last: valid, as all that were asked for; empty, if it is not remembered.
    pub(crate) fn last_topic(&self) -> Rc<str> {
        Rc::clone(self.topics.get(self.last as usize).map_or(&self.no_topic, |last| &last.topic))
    }

    /// Whether [`Self::last_topic`] would give the same text in the same place.
    pub(crate) fn is_last_topic(&self, topic: &Rc<str>) -> bool {
        self.topics.get(self.last as usize).is_none_or(|last| Rc::ptr_eq(&last.topic, topic))
    }

    /// What `topic` matches now: every change of subscriptions that happened before this call is seen.
    ///
    /// A cache belongs to one router; it must always be asked with the same one.
    pub(crate) fn lookup(&mut self, router: &Router, topic: &str) -> Rc<Routes> {
        // what comes in one read is mostly of one topic
        let again = self
            .topics
            .get(self.last as usize)
            .is_some_and(|last| std::ptr::eq(&*last.topic, topic) || &*last.topic == topic);
        if !again {
            let hash = self.hasher.hash_one(topic);
            let place = self.index.find(hash, |&at| &*self.topics[at as usize].topic == topic).copied();
            let Some(place) = place else { return self.learn(router, topic, hash) };
            self.last = place;
        }
        let place = self.last;
        let cached = &mut self.topics[place as usize];
        cached.asked_again = true;
        let starts = cached.starts;
        // Read before matching: a change in between then makes the entry look older than it is, never newer.
        let generation = router.generations.sum(starts);
        if cached.generation == generation {
            return Rc::clone(&cached.routes);
        }
        let routes = self.find(router, topic);
        let weight = weigh(topic, &routes);
        let cached = &mut self.topics[place as usize];
        self.weight = self.weight - cached.weight + weight;
        (cached.routes, cached.generation, cached.weight) = (Rc::clone(&routes), generation, weight);
        if self.too_heavy(weight) {
            self.forget(place as usize);
        }
        self.make_room(0, 0);
        routes
    }

    #[cold]
    fn learn(&mut self, router: &Router, topic: &str, hash: u64) -> Rc<Routes> {
        let full = self.topics.len() >= self.capacity;
        if full && !self.newcomers.come_again(hash, self.capacity) {
            return self.find(router, topic);
        }
        let starts = Generations::starts_of(&router.hasher, topic);
        let generation = router.generations.sum(starts);
        let routes = self.find(router, topic);
        let weight = weigh(topic, &routes);
        if self.too_heavy(weight) {
            return routes;
        }
        let heavy = self.weight + weight > self.most();
        if heavy && !full && !self.newcomers.come_again(hash, self.capacity) {
            return routes;
        }
        self.make_room(1, weight);
        let place = self.topics.len() as u32;
        self.last = place;
        let Self { index, topics, hasher, .. } = self;
        index.insert_unique(hash, place, |&at| hasher.hash_one(&*topics[at as usize].topic));
        let routes_kept = Rc::clone(&routes);
        topics.push(Cached {
            topic: topic.into(),
            routes: routes_kept,
            starts,
            asked_again: false,
            generation,
            weight,
        });
        self.weight += weight;
        routes
    }

    fn find(&mut self, router: &Router, topic: &str) -> Rc<Routes> {
        let Some(routes) = router.matching(topic, &mut self.matched) else { return Rc::clone(&self.nobody) };
        self.matched.clear();
        if self.matched.capacity() > SCRATCH {
            self.matched.shrink_to(SCRATCH);
        }
        if routes.workers.is_empty() && !routes.durable && routes.groups.is_empty() {
            return Rc::clone(&self.nobody);
        }
        Rc::new(routes)
    }

    fn too_heavy(&self, weight: usize) -> bool {
        weight > self.most() / LARGEST_PART
    }

    /// Bytes that may be held.
    fn most(&self) -> usize {
        self.capacity.saturating_mul(BYTES_PER_TOPIC)
    }

    /// Forgets topics until this many more, of this weight, fit.
    fn make_room(&mut self, topics: usize, weight: usize) {
        while self.topics.len() + topics > self.capacity || self.weight + weight > self.most() {
            if self.hand >= self.topics.len() {
                self.hand = 0;
            }
            let Some(candidate) = self.topics.get_mut(self.hand) else { return };
            if !std::mem::take(&mut candidate.asked_again) {
                self.forget(self.hand);
            }
            // also past what took the place: it was learned last, and would be the next to go
            self.hand += 1;
        }
    }

    fn forget(&mut self, place: usize) {
        let Self { index, topics, hasher, .. } = self;
        let hash_of = |topic: &str| hasher.hash_one(topic);
        if let Ok(entry) = index.find_entry(hash_of(&topics[place].topic), |&at| at as usize == place) {
            entry.remove();
        }
        // The last topic takes the empty place.
        let last = topics.len() - 1;
        if last != place
            && let Some(at) = index.find_mut(hash_of(&topics[last].topic), |&at| at as usize == last)
        {
            *at = place as u32;
        }
        self.weight -= topics.swap_remove(place).weight;
    }
}

/// Who was asked for while there was no room: a mark of its hash for each topic, where the next of the same place takes its own.
#[derive(Default)]
struct Newcomers(Box<[u16]>);

impl Newcomers {
    /// Whether the topic of this hash was here before, and not too many others since. One in 32,768 is taken for another.
    fn come_again(&mut self, hash: u64, capacity: usize) -> bool {
        if self.0.is_empty() {
            self.0 = vec![0; capacity.next_power_of_two()].into();
        }
        let place = hash as usize & (self.0.len() - 1);
        // never 0: nobody was here
        let mark = (hash >> 40) as u16 | 1;
        self.0.get_mut(place).is_some_and(|seen| std::mem::replace(seen, mark) == mark)
    }
}

/// About how many bytes it takes to remember this.
fn weigh(topic: &str, routes: &Routes) -> usize {
    // one is in the routes themselves
    let workers = if routes.workers.spilled() { routes.workers.len() } else { 0 };
    let hits: usize = routes.workers.iter().filter(|w| w.hits.spilled()).map(|w| w.hits.len()).sum();
    let members: usize = routes.groups.iter().map(|g| g.members.len()).sum();
    size_of::<Cached>()
        + size_of::<Routes>()
        + topic.len()
        + workers * size_of::<WorkerRoutes>()
        + hits * size_of::<Hit>()
        + routes.groups.len() * size_of::<GroupRoute>()
        + members * size_of::<Member>()
}

#[cfg(test)]
impl RouteCache {
    /// Topics and bytes held, after checking that the books agree.
    pub(super) fn census(&self) -> (usize, usize) {
        assert_eq!(self.index.len(), self.topics.len());
        for (place, cached) in self.topics.iter().enumerate() {
            let hash = self.hasher.hash_one(&*cached.topic);
            assert_eq!(self.index.find(hash, |&at| at as usize == place).copied(), Some(place as u32));
            assert_eq!(cached.weight, weigh(&cached.topic, &cached.routes));
        }
        assert_eq!(self.weight, self.topics.iter().map(|t| t.weight).sum::<usize>());
        (self.topics.len(), self.weight)
    }
}
