//! Writers and readers at once.

use std::sync::Barrier;
use std::sync::atomic::AtomicBool;

use super::oracle::{Oracle, matches};
use super::*;

const TOPICS: [&str; 8] = ["a", "a/b", "a/b/c", "a/b/c/d", "b/c", "$a/b", "c/c/c", "/"];
const FILTERS: [&str; 14] = [
    "a", "a/b", "a/b/c", "a/b/#", "a/+/c", "a/#", "+/b", "#", "b/+", "$a/#", "+/+/+/d", "c/c/c", "/",
    "a/b/+/d",
];
const SESSIONS: u64 = 50;

/// A small generator, so that a failure can be had again.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

/// Changes the subscriptions of sessions that nobody else touches, and after each change asks a cache that has
/// been in use all the time: what this thread did must show at once.
fn write(router: &Router, first_session: u64, rounds: u32) -> Oracle {
    let mut dice = Dice(first_session);
    let mut oracle = Oracle::default();
    let mut cache = RouteCache::new(6);
    for round in 0..rounds {
        let session = SessionKey(first_session + dice.below(SESSIONS));
        let filter = FILTERS[dice.below(FILTERS.len() as u64) as usize];
        let address = Some(Address { worker: dice.below(4) as u16, slot: dice.below(1_000) as u32 });
        match dice.below(4) {
            0 | 1 => {
                oracle
                    .relocate(session, address)
                    .iter()
                    .for_each(|f| router.relocate([f.as_str()], session, address));
                let receiver = Receiver { session, address, durable: true };
                let qos = QoS::from_u8(dice.below(3) as u8).unwrap();
                let new = router.subscribe(filter, receiver, wanting(qos));
                assert_eq!(new, oracle.subscribe(filter, receiver, wanting(qos)));
            }
            2 => assert_eq!(router.unsubscribe(filter, session), oracle.unsubscribe(filter, session)),
            _ => {
                let address = address.filter(|_| dice.below(3) > 0);
                let filters = oracle.relocate(session, address);
                router.relocate(filters.iter().map(String::as_str), session, address);
            }
        }
        let topic = TOPICS[dice.below(TOPICS.len() as u64) as usize];
        let mut found = Routes::default();
        for worker in &cache.lookup(router, topic).workers {
            let own = |hit: &&Hit| (first_session..first_session + SESSIONS).contains(&hit.session.0);
            let hits: Vec<_> = worker.hits.iter().filter(own).cloned().collect();
            if !hits.is_empty() {
                found.workers.push(WorkerRoutes { worker: worker.worker, hits: hits.into() });
            }
        }
        assert_eq!(
            found.workers,
            oracle.routes(topic).workers,
            "seed {first_session}, round {round}, {topic}"
        );
    }
    oracle
}

/// Looks up all the time; whatever it sees must be possible, and what it remembers at the end must be true.
fn read(router: &Router, quiet: &AtomicBool) -> RouteCache {
    let mut cache = RouteCache::new(100);
    while !quiet.load(Ordering::Acquire) {
        for topic in TOPICS {
            let routes = cache.lookup(router, topic);
            let hits = || routes.workers.iter().flat_map(|w| &w.hits);
            let mut sessions: Vec<_> = hits().map(|hit| hit.session).collect();
            sessions.sort();
            sessions.dedup();
            assert_eq!(sessions.len(), hits().count(), "one copy for each session");
            assert!(FILTERS.iter().any(|f| matches(f, topic)) || hits().next().is_none());
        }
    }
    cache
}

#[test]
fn caches_are_true_while_others_subscribe_and_after() {
    let router = Router::new();
    let quiet = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut cache = read(&router, &quiet);
            // All changes are over: what was remembered from their midst must not be given now.
            TOPICS.map(|topic| (topic, Routes::clone(&cache.lookup(&router, topic))))
        });
        let writers = [1_000, 2_000, 3_000].map(|first| {
            let router = &router;
            scope.spawn(move || write(router, first, 1_500))
        });
        let mut all = Oracle::default();
        for writer in writers {
            let oracle = writer.join();
            quiet.store(oracle.is_err(), Ordering::Release);
            all.subscriptions.extend(oracle.unwrap().subscriptions);
        }
        quiet.store(true, Ordering::Release);
        for (topic, routes) in reader.join().unwrap() {
            assert_eq!(routes, all.routes(topic), "{topic}");
        }
        router.assert_whole();
        assert_eq!(router.subscriptions(), all.subscriptions.len() as u64);
        for (filter, receiver, _) in &all.subscriptions {
            assert!(router.unsubscribe(filter, receiver.session));
        }
        assert_eq!((router.subscriptions(), router.filters(), router.census().0), (0, 0, 0));
    });
}

/// Subscribes while a lookup is between two buckets, held there by the lock of the second. False when the lookup
/// had not come so far.
fn overtake(remembered: bool) -> bool {
    let router = Router::new();
    let (ready, under_way) = (Barrier::new(2), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut cache = RouteCache::new(10);
            if remembered {
                cache.lookup(&router, "a/b");
                router.subscribe("a/b", passing(1), wanting(QoS::AtMostOnce));
            }
            ready.wait();
            ready.wait();
            under_way.store(true, Ordering::Release);
            let last =
                |routes: &Routes| routes.workers.last().and_then(|w| w.hits.last()).map(|hit| hit.session.0);
            [(); 2].map(|()| last(&cache.lookup(&router, "a/b")))
        });
        ready.wait();
        let wildcards = router.write("#");
        ready.wait();
        while !under_way.load(Ordering::Acquire) {
            std::thread::yield_now();
        }
        (0..20).for_each(|_| std::thread::yield_now());
        router.subscribe("a/b", passing(2), wanting(QoS::AtMostOnce));
        drop(wildcards);
        let [during, after] = reader.join().unwrap();
        assert_eq!(after, Some(2), "what was found during the change is remembered after it");
        during != Some(2)
    })
}

#[test]
fn a_lookup_that_is_overtaken_by_a_subscription_is_not_remembered() {
    for remembered in [false, true] {
        let overtaken = (0..10_000).filter(|_| overtake(remembered)).take(20).count();
        assert_eq!(overtaken, 20, "too few attempts met the moment");
    }
}
