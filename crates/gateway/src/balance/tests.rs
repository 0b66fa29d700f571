//! Properties that a fleet relies on, against naive oracles.

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;

fn ids(count: usize) -> Vec<String> {
    (0..count).map(|n| format!("vehicle-{n:06}")).collect()
}

fn names(count: usize) -> Vec<String> {
    (0..count).map(|n| format!("10.0.{}.{}:1883", n / 200, n % 200 + 1)).collect()
}

fn hash(kind: HashKind, servers: &[(String, u32)]) -> Hash {
    Hash::new(kind, servers.iter().map(|(name, weight)| (name.as_str(), *weight)))
}

fn equal(kind: HashKind, count: usize) -> (Hash, Vec<(String, u32)>) {
    let servers: Vec<_> = names(count).into_iter().map(|name| (name, 1)).collect();
    (hash(kind, &servers), servers)
}

fn kinds() -> impl Strategy<Value = HashKind> {
    prop_oneof![Just(HashKind::Rendezvous), Just(HashKind::Ketama)]
}

/// Where a name and a key meet for ever. A change here moves devices of running fleets: it is never right.
#[test]
fn rendezvous_answers_are_pinned() {
    let servers = [("emqx1", 1), ("emqx2", 1), ("10.0.0.174:1883", 2), ("d", 7)];
    let hash = Hash::new(HashKind::Rendezvous, servers.into_iter());
    let answers: Vec<usize> = ids(24).iter().filter_map(|id| hash.choose(id.as_bytes(), |_| true)).collect();
    assert_eq!(answers, GOLDEN_RENDEZVOUS);
    assert_eq!(hash.choose(b"", |_| true), Some(GOLDEN_RENDEZVOUS_EMPTY));
}
const GOLDEN_RENDEZVOUS: [usize; 24] =
    [1, 3, 3, 3, 3, 1, 2, 0, 2, 3, 3, 3, 3, 0, 2, 0, 3, 3, 3, 3, 1, 3, 3, 3];
const GOLDEN_RENDEZVOUS_EMPTY: usize = 0;

#[test]
fn ketama_answers_are_pinned() {
    let servers = [("127.0.0.1:1883", 1), ("127.0.0.2:1883", 1), ("broker.example:1884", 2), ("d", 7)];
    let hash = Hash::new(HashKind::Ketama, servers.into_iter());
    let answers: Vec<usize> = ids(24).iter().filter_map(|id| hash.choose(id.as_bytes(), |_| true)).collect();
    assert_eq!(answers, GOLDEN_KETAMA);
}
const GOLDEN_KETAMA: [usize; 24] = [0, 2, 3, 3, 3, 3, 3, 3, 3, 0, 3, 3, 2, 3, 3, 3, 3, 3, 3, 3, 0, 3, 3, 3];

/// The bar of stickiness: as even as chance allows, max/mean at most 1 + 4·√(servers/ids).
#[test]
fn rendezvous_is_as_even_as_chance_allows() {
    for (servers, count) in [(2, 1_200), (4, 1_200), (7, 5_000), (16, 20_000), (50, 20_000)] {
        let (hash, _) = equal(HashKind::Rendezvous, servers);
        let mut share = vec![0_u32; servers];
        for id in ids(count) {
            share[hash.choose(id.as_bytes(), |_| true).unwrap()] += 1;
        }
        let mean = count as f64 / servers as f64;
        let worst = f64::from(*share.iter().max().unwrap()) / mean;
        let bar = 1.0 + 4.0 * (servers as f64 / count as f64).sqrt();
        assert!(worst <= bar, "{servers} servers, {count} ids: max/mean {worst:.3} > {bar:.3}: {share:?}");
    }
}

#[test]
fn shares_follow_the_weights() {
    let weights = [1_u32, 2, 3, 10];
    let total: u32 = weights.iter().sum();
    let servers: Vec<_> = names(4).into_iter().zip(weights).collect();
    // Ketama's points lie by chance: with 160 a weight its shares stray by about a tenth.
    for (kind, slack) in [(HashKind::Rendezvous, 0.05), (HashKind::Ketama, 0.25)] {
        let hash = hash(kind, &servers);
        let count = 40_000;
        let mut share = [0_u32; 4];
        for id in ids(count) {
            share[hash.choose(id.as_bytes(), |_| true).unwrap()] += 1;
        }
        for (got, weight) in share.iter().zip(weights) {
            let want = count as f64 * f64::from(weight) / f64::from(total);
            let off = (f64::from(*got) - want).abs() / want;
            assert!(off <= slack, "{kind:?}: weight {weight} got {got}, wanted {want:.0}");
        }
    }
}

proptest! {
    /// Without a server only its own keys move, and they move nowhere but to the others.
    #[test]
    fn a_lost_server_moves_exactly_its_share(kind in kinds(), count in 2_usize..9, lost in 0_usize..9,
                                             weights in prop::collection::vec(1_u32..5, 9)) {
        let lost = lost % count;
        let servers: Vec<_> = names(count).into_iter().zip(weights).collect();
        let all = hash(kind, &servers);
        let mut rest = servers;
        rest.remove(lost);
        let removed = hash(kind, &rest);
        for id in ids(400) {
            let key = id.as_bytes();
            let before = all.choose(key, |_| true).unwrap();
            let skipped = all.choose(key, |index| index != lost).unwrap();
            let after = removed.choose(key, |_| true).unwrap();
            // Skipping and removing are the same: a drain before a removal moves nobody twice.
            prop_assert_eq!(skipped, if after >= lost { after + 1 } else { after });
            if before != lost {
                prop_assert_eq!(skipped, before);
            }
        }
    }

    /// Rendezvous: the oracle sorts all scores, made with the platform's logarithm.
    #[test]
    fn rendezvous_is_the_lowest_exponential_draw(key in ".{0,24}", weights in prop::collection::vec(1_u32..1000, 1..8)) {
        let servers: Vec<_> = names(weights.len()).into_iter().zip(weights).collect();
        let score = |(name, weight): &(String, u32)| {
            let seed = xxhash_rust::xxh3::xxh3_64(name.as_bytes());
            let draw = xxhash_rust::xxh3::xxh3_64_with_seed(key.as_bytes(), seed);
            -(((draw >> 12) as f64 + 0.5) / 2_f64.powi(52)).ln() / f64::from(*weight)
        };
        let oracle = servers.iter().enumerate().min_by(|a, b| score(a.1).total_cmp(&score(b.1))).unwrap().0;
        prop_assert_eq!(hash(HashKind::Rendezvous, &servers).choose(key.as_bytes(), |_| true), Some(oracle));
    }

    /// Two gateways whose operators wrote the servers in another order.
    #[test]
    fn the_order_of_the_list_does_not_matter(count in 1_usize..9, by in 0_usize..9, key in ".{0,24}", kind in kinds()) {
        let (one, servers) = equal(kind, count);
        let mut turned = servers.clone();
        turned.rotate_left(by % count);
        let other = hash(kind, &turned);
        let name = |of: &[(String, u32)], hash: &Hash| {
            hash.choose(key.as_bytes(), |_| true).map(|index| of[index].0.clone())
        };
        prop_assert_eq!(name(&servers, &one), name(&turned, &other));
    }

    /// A heavier server takes keys from the others and gives none away.
    #[test]
    fn more_weight_only_takes(kind in kinds(), count in 2_usize..6, heavier in 0_usize..6, by in 1_u32..4) {
        let heavier = heavier % count;
        let (before, mut servers) = equal(kind, count);
        servers[heavier].1 += by;
        let after = hash(kind, &servers);
        for id in ids(300) {
            let (was, is) = (before.choose(id.as_bytes(), |_| true), after.choose(id.as_bytes(), |_| true));
            prop_assert!(was == is || is == Some(heavier), "{id}: {was:?} -> {is:?}");
        }
    }

    #[test]
    fn nothing_usable_is_nothing_chosen(kind in kinds(), key in ".{0,24}", count in 0_usize..5) {
        let (hash, _) = equal(kind, count);
        prop_assert_eq!(hash.choose(key.as_bytes(), |_| false), None);
    }

    /// Over one round of the weights' sum everyone had exactly its weight.
    #[test]
    fn round_robin_is_exact_over_a_round(weights in prop::collection::vec(0_u32..6, 1..6)) {
        let loads: Vec<_> = weights.iter().map(|&weight| Load { weight, connections: 0, usable: true }).collect();
        let mut turns = RoundRobin::default();
        let mut got: HashMap<usize, u32> = HashMap::new();
        for _ in 0..weights.iter().sum() {
            *got.entry(turns.next(&loads).unwrap()).or_default() += 1;
        }
        for (index, weight) in weights.iter().enumerate() {
            prop_assert_eq!(got.get(&index).copied().unwrap_or(0), *weight);
        }
    }

    /// The oracle: the smallest quotient, as a fraction.
    #[test]
    fn least_connections_is_the_smallest_quotient(loads in prop::collection::vec((1_u32..9, 0_u64..30, any::<bool>()), 1..8)) {
        let loads: Vec<_> = loads.into_iter()
            .map(|(weight, connections, usable)| Load { weight, connections, usable }).collect();
        let quotient = |load: &Load| load.connections as f64 / f64::from(load.weight);
        let least = loads.iter().filter(|load| load.usable).map(quotient).fold(f64::INFINITY, f64::min);
        match RoundRobin::default().least_connections(&loads) {
            Some(index) => prop_assert!(loads[index].usable && quotient(&loads[index]) - least < 1e-9),
            None => prop_assert!(loads.iter().all(|load| !load.usable)),
        }
    }

    #[test]
    fn random_two_never_takes_the_busiest_of_many(first in any::<u64>(), second in any::<u64>(), count in 2_usize..7) {
        let mut loads = vec![Load { weight: 3, connections: 5, usable: true }; count];
        loads[count - 1].connections = 6;
        prop_assert_ne!(random_two(&loads, [first, second]).unwrap(), count - 1);
    }
}

#[test]
fn smooth_round_robin_spreads_the_heavy_server() {
    let load = |weight| Load { weight, connections: 0, usable: true };
    let loads = [load(5), load(1), load(1)];
    let mut turns = RoundRobin::default();
    let order: Vec<_> = (0..7).filter_map(|_| turns.next(&loads)).collect();
    assert_eq!(order, [0, 0, 1, 0, 2, 0, 0]);
}

#[test]
fn equals_take_turns_under_least_connections() {
    let loads = [Load { weight: 1, connections: 2, usable: true }; 3];
    let mut turns = RoundRobin::default();
    let order: Vec<_> = (0..6).filter_map(|_| turns.least_connections(&loads)).collect();
    assert_eq!(order, [0, 1, 2, 0, 1, 2]);
}

#[test]
fn random_two_draws_by_weight() {
    let loads = [1_u32, 3].map(|weight| Load { weight, connections: 0, usable: true });
    let heavy = (0..4).filter(|&number| random_two(&loads, [number, 0]) == Some(1)).count();
    assert_eq!(heavy, 3);
    let one = [Load { weight: 1, connections: 9, usable: true }];
    assert_eq!(random_two(&one, [7, 7]), Some(0));
    assert_eq!(random_two(&[], [7, 7]), None);
}

/// nginx as it is written: a current, an effective and a configured weight for each peer.
struct NginxPeer {
    weight: i64,
    effective: i64,
    current: i64,
}

proptest! {
    /// Turns and failures in any order, with any of the servers unusable in any turn.
    #[test]
    fn turns_and_what_failures_cost_are_nginxs(
        weights in prop::collection::vec(1_u32..8, 1..6), max_fails in 1_u32..4,
        turns in prop::collection::vec((any::<u8>(), any::<bool>()), 1..80),
    ) {
        let peer = |weight: &u32| NginxPeer { weight: i64::from(*weight), effective: i64::from(*weight), current: 0 };
        let mut peers: Vec<_> = weights.iter().map(peer).collect();
        let mut ours = RoundRobin::default();
        for (out, fails) in turns {
            let usable = |index: usize| out >> index & 1 == 0;
            let loads: Vec<_> = weights.iter().enumerate()
                .map(|(index, weight)| Load { weight: *weight, connections: 0, usable: usable(index) }).collect();
            let (mut total, mut best) = (0, None);
            for index in (0..peers.len()).filter(|index| usable(*index)) {
                let effective = peers[index].effective;
                peers[index].current += effective;
                total += effective;
                if effective < peers[index].weight {
                    peers[index].effective += 1;
                }
                if best.is_none_or(|best: usize| peers[index].current > peers[best].current) {
                    best = Some(index);
                }
            }
            prop_assert_eq!(ours.next(&loads), best);
            let Some(best) = best else { continue };
            peers[best].current -= total;
            if fails {
                peers[best].effective = (peers[best].effective - peers[best].weight / i64::from(max_fails)).max(0);
                ours.failed(best, weights[best], max_fails);
            }
        }
    }

    /// Counting a weight in parts changes no turn.
    #[test]
    fn a_unit_changes_no_turn(weights in prop::collection::vec(1_u32..8, 1..6), fails in any::<u64>()) {
        let loads = |unit: u32| -> Vec<_> {
            weights.iter().map(|weight| Load { weight: weight * unit, connections: 0, usable: true }).collect()
        };
        let (mut one, mut many) = (RoundRobin::new(1), RoundRobin::new(100));
        for turn in 0..64 {
            let index = one.next(&loads(1)).unwrap();
            prop_assert_eq!(many.next(&loads(100)), Some(index));
            if fails >> turn & 1 == 1 {
                one.failed(index, weights[index], 1);
                many.failed(index, weights[index] * 100, 1);
            }
        }
    }

    /// Memcached's way, which nginx names as its model.
    #[test]
    fn modulo_is_cache_memcacheds_number(key in ".{0,24}", weights in prop::collection::vec(1_u32..9, 1..7), out in any::<u8>()) {
        let servers: Vec<_> = names(weights.len()).into_iter().zip(weights.clone()).collect();
        let wide: Vec<usize> = weights.iter().enumerate()
            .flat_map(|(index, weight)| std::iter::repeat_n(index, *weight as usize)).collect();
        let number = |text: String| (crc32fast::hash(text.as_bytes()) >> 16 & 0x7fff) as usize;
        let mut hash = number(key.clone());
        let mut oracle = None;
        for again in 1..=21 {
            let index = wide[hash % wide.len()];
            if out >> index & 1 == 0 {
                oracle = Some(index);
                break;
            }
            hash += number(format!("{again}{key}"));
        }
        let got = hash_of(&servers).choose(key.as_bytes(), |index| out >> index & 1 == 0);
        prop_assert_eq!(got, oracle);
    }
}

fn hash_of(servers: &[(String, u32)]) -> Hash {
    hash(HashKind::Modulo, servers)
}

#[test]
fn one_drawn_by_weight_gets_its_weights_share() {
    let loads = [1_u32, 3, 2].map(|weight| Load { weight, connections: 99, usable: weight != 2 });
    let heavy = (0..400).filter(|&number| random(&loads, number) == Some(1)).count();
    assert_eq!(heavy, 300);
    assert_eq!(random(&[], 3), None);
}
