//! Lists of operations: the router and two caches must agree with the oracle after every one.

use proptest::prelude::*;

use super::oracle::Oracle;
use super::*;

const SESSIONS: u64 = 40;
/// Longer than a node keeps in place.
const LONG: &str = "a-level-longer-than-a-node-keeps-in-place";

#[derive(Clone, Debug)]
enum Op {
    Subscribe(String, u64, Subscription),
    Unsubscribe(String, u64),
    /// Removes one of those present, by its place in the list.
    UnsubscribePresent(prop::sample::Index),
    Relocate(u64, Option<(u16, u32)>),
    Publish(String),
}

fn level() -> impl Strategy<Value = &'static str> {
    prop_oneof![6 => Just("a"), 4 => Just("b"), 1 => Just("ab"), 2 => Just(""), 1 => Just("$a"), 1 => Just(LONG)]
}

fn topic() -> impl Strategy<Value = String> {
    prop::collection::vec(level(), 1..7)
        .prop_map(|levels| levels.join("/"))
        .prop_filter("a topic has at least one character [MQTT-4.7.3-1]", |topic| !topic.is_empty())
}

fn filter() -> impl Strategy<Value = String> {
    let levels = prop::collection::vec(prop_oneof![3 => level().boxed(), 1 => Just("+").boxed()], 0..7);
    (levels, prop::bool::weighted(0.25))
        .prop_map(|(mut levels, below)| {
            levels.extend(below.then_some("#"));
            levels.join("/")
        })
        .prop_filter("a filter has at least one character [MQTT-4.7.3-1]", |filter| !filter.is_empty())
}

fn subscription() -> impl Strategy<Value = Subscription> {
    (0..3u8, any::<bool>(), any::<bool>(), 0..4u32).prop_map(
        |(qos, no_local, retain_as_published, identifier)| Subscription {
            qos: QoS::from_u8(qos).unwrap(),
            no_local,
            retain_as_published,
            identifier,
        },
    )
}

/// Few sessions mostly, so that their subscriptions overlap; sometimes enough for one filter to have a crowd.
fn session() -> impl Strategy<Value = u64> {
    prop_oneof![3 => 0..4u64, 1 => 0..SESSIONS]
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => (filter(), session(), subscription()).prop_map(|(f, s, sub)| Op::Subscribe(f, s, sub)),
        3 => (Just("a/+".to_owned()), session(), subscription()).prop_map(|(f, s, sub)| Op::Subscribe(f, s, sub)),
        1 => (filter(), session()).prop_map(|(f, s)| Op::Unsubscribe(f, s)),
        5 => any::<prop::sample::Index>().prop_map(Op::UnsubscribePresent),
        2 => (session(), prop::option::of((0..4u16, 0..9u32))).prop_map(|(s, a)| Op::Relocate(s, a)),
        4 => topic().prop_map(Op::Publish),
    ]
}

/// Router and oracle side by side.
struct Pair {
    router: Router,
    oracle: Oracle,
    addresses: Vec<Option<Address>>,
    caches: [RouteCache; 2],
}

impl Pair {
    fn new() -> Self {
        let addresses =
            (0..SESSIONS).map(|s| Some(Address { worker: (s % 3) as u16, slot: s as u32 })).collect();
        let caches = [RouteCache::new(3), RouteCache::new(1_000)];
        Self { router: Router::new(), oracle: Oracle::default(), addresses, caches }
    }

    /// Every other session is durable.
    fn receiver(&self, session: u64) -> Receiver {
        let address = self.addresses[session as usize];
        Receiver { session: SessionKey(session), address, durable: session.is_multiple_of(2) }
    }

    fn apply(&mut self, op: &Op) {
        match op {
            Op::Subscribe(filter, session, subscription) => {
                let receiver = self.receiver(*session);
                let new = self.router.subscribe(filter, receiver, *subscription);
                assert_eq!(new, self.oracle.subscribe(filter, receiver, *subscription));
            }
            Op::Unsubscribe(filter, session) => self.unsubscribe(filter, SessionKey(*session)),
            Op::UnsubscribePresent(index) => {
                if !self.oracle.subscriptions.is_empty() {
                    let (filter, receiver, _) = index.get(&self.oracle.subscriptions).clone();
                    self.unsubscribe(&filter, receiver.session);
                }
            }
            Op::Relocate(session, address) => {
                let address = address.map(|(worker, slot)| Address { worker, slot });
                self.addresses[*session as usize] = address;
                let mut filters = self.oracle.relocate(SessionKey(*session), address);
                filters.push("not/subscribed".to_owned());
                self.router.relocate(filters.iter().map(String::as_str), SessionKey(*session), address);
            }
            Op::Publish(topic) => self.compare(topic),
        }
        assert_eq!(self.router.subscriptions(), self.oracle.subscriptions.len() as u64);
        assert_eq!(self.router.filters(), self.oracle.filters() as u64);
    }

    fn unsubscribe(&mut self, filter: &str, session: SessionKey) {
        assert_eq!(self.router.unsubscribe(filter, session), self.oracle.unsubscribe(filter, session));
    }

    fn compare(&mut self, topic: &str) {
        let expected = self.oracle.routes(topic);
        assert_eq!(routes(&self.router, topic), expected, "{topic}");
        for cache in &mut self.caches {
            assert_eq!(*cache.lookup(&self.router, topic), expected, "cached {topic}");
            cache.census();
        }
    }
}

proptest! {
    /// [MQTT-3.3.2-3], [v3 MQTT-3.3.2-3]
    #[test]
    fn every_topic_leads_where_a_list_of_subscriptions_says(
        ops in prop::collection::vec(op(), 1..150),
        topics in prop::collection::vec(topic(), 1..6),
    ) {
        let mut pair = Pair::new();
        for op in &ops {
            pair.apply(op);
            topics.iter().for_each(|topic| pair.compare(topic));
        }
        pair.router.assert_whole();
    }

    #[test]
    fn nothing_is_left_when_every_subscription_has_gone(ops in prop::collection::vec(op(), 1..200), seed in any::<u64>()) {
        let mut pair = Pair::new();
        let empty = pair.router.census();
        ops.iter().for_each(|op| pair.apply(op));
        pair.router.assert_whole();
        let mut at = seed as usize;
        while !pair.oracle.subscriptions.is_empty() {
            at = at.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let (filter, receiver, _) = pair.oracle.subscriptions[(at >> 33) % pair.oracle.subscriptions.len()].clone();
            pair.unsubscribe(&filter, receiver.session);
            pair.router.assert_whole();
        }
        prop_assert_eq!((pair.router.census().0, pair.router.census().1), (0, 0));
        prop_assert!(pair.router.census().2 <= empty.2 + BUCKETS * 64, "memory stays behind");
    }
}
