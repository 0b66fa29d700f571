//! The decision table, row by row.

use std::net::Ipv4Addr;
use std::sync::Arc;

use super::*;
use crate::balance::HashKind;

use Standing::{Failed, Full, In, Out};

const RULES: Rules =
    Rules { empty_client_id: Rule::RoundRobin, no_username: Rule::SourceIp, not_mqtt: Rule::Reject };
const DEVICE: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 7));

fn request<'a>(client_id: &'a str, username: Option<&'a str>) -> Request<'a> {
    Request { source: DEVICE, connect: Some(Names { client_id, username }) }
}

/// Four servers `s0` to `s3`, with what a test wants to set.
struct Fleet {
    loads: Vec<Load>,
    seats: Vec<Seat>,
    bound: Option<f64>,
    pins: Pins,
    turns: RoundRobin,
    kind: HashKind,
    failed_over: bool,
}

impl Fleet {
    fn new() -> Self {
        Self {
            loads: vec![Load { weight: 1, connections: 0, usable: true }; 4],
            seats: vec![Seat { standing: In, backup: false }; 4],
            bound: None,
            pins: Pins::new(10),
            turns: RoundRobin::default(),
            kind: HashKind::Rendezvous,
            failed_over: false,
        }
    }

    fn hash(&self, kind: HashKind, backup: bool) -> Hash {
        let weight =
            |index: usize| if self.seats[index].backup == backup { self.loads[index].weight } else { 0 };
        Hash::new(
            kind,
            ["s0", "s1", "s2", "s3"].into_iter().enumerate().map(|(index, name)| (name, weight(index))),
        )
    }

    fn ask(&mut self, plan: &Plan<'_>) -> Choice {
        let index_of = |name: &str| name.strip_prefix('s')?.parse().ok().filter(|index| *index < 4);
        let (hash, backup_hash) = (self.hash(self.kind, false), self.hash(HashKind::Rendezvous, true));
        let view = View {
            hash: &hash,
            backup_hash: &backup_hash,
            bound: self.bound,
            seats: &self.seats,
            loads: &mut self.loads,
            index_of: &index_of,
            pins: &mut self.pins,
            round_robin: &mut self.turns,
            draws: [0, 0],
            failed_over: self.failed_over,
        };
        choose(plan, view)
    }

    fn choose(&mut self, plan: &Plan<'_>) -> Option<(usize, ChosenBy)> {
        match self.ask(plan) {
            Choice::Server(index, why) => Some((index, why)),
            Choice::Full | Choice::Nobody => None,
        }
    }

    fn stand(&mut self, standing: [Standing; 4]) {
        for (seat, standing) in self.seats.iter_mut().zip(standing) {
            seat.standing = standing;
        }
    }
}

fn by(balance: Balance, key: &str) -> Plan<'_> {
    plan(balance, &RULES, &request(key, None)).unwrap()
}

#[test]
fn every_balancing_has_its_key_and_its_pin_key() {
    let request = request("car", Some("fleet"));
    let row = |balance| {
        let plan = plan(balance, &RULES, &request).unwrap();
        assert_eq!(plan.no_key, None);
        (plan.by, plan.pin_key.map(Cow::into_owned))
    };
    let some = |text: &str| Some(text.to_owned());
    assert_eq!(row(Balance::ClientId), (By::Name("car"), some("car")));
    assert_eq!(row(Balance::Username), (By::Name("fleet"), some("fleet")));
    assert_eq!(row(Balance::SourceIp), (By::Source("203.0.113.7".to_owned()), some("203.0.113.7")));
    assert_eq!(row(Balance::RoundRobin), (By::RoundRobin, some("car")));
    assert_eq!(row(Balance::LeastConnections), (By::LeastConnections, some("car")));
    assert_eq!(row(Balance::Random), (By::Random, some("car")));
    assert_eq!(row(Balance::RandomTwo), (By::RandomTwo, some("car")));
}

#[test]
fn a_missing_key_is_handled_by_its_rule_and_says_so() {
    let empty = request("", None);
    let got = plan(Balance::ClientId, &RULES, &empty).unwrap();
    assert_eq!(got, Plan { by: By::RoundRobin, pin_key: None, no_key: Some(NoKey::EmptyClientId) });
    let got = plan(Balance::Username, &RULES, &request("car", Some(""))).unwrap();
    assert_eq!((got.by, got.no_key), (By::Source("203.0.113.7".to_owned()), Some(NoKey::NoUsername)));
    let stranger = Request { source: DEVICE, connect: None };
    assert_eq!(plan(Balance::RoundRobin, &RULES, &stranger), Err(NoKey::NotMqtt));
    let strict = Rules { empty_client_id: Rule::Reject, no_username: Rule::Reject, ..RULES };
    assert_eq!(plan(Balance::ClientId, &strict, &empty), Err(NoKey::EmptyClientId));
    assert_eq!(plan(Balance::Username, &strict, &empty), Err(NoKey::NoUsername));
    // A balancing that needs no client identifier does not miss it.
    assert_eq!(plan(Balance::LeastConnections, &strict, &empty).unwrap().no_key, None);
}

#[test]
fn an_address_is_one_key_in_both_of_its_notations() {
    let mapped =
        Request { source: "::ffff:203.0.113.7".parse().unwrap(), connect: request("car", None).connect };
    assert_eq!(
        plan(Balance::SourceIp, &RULES, &mapped),
        plan(Balance::SourceIp, &RULES, &request("car", None))
    );
}

#[test]
fn a_pin_wins_over_the_hash_unless_its_server_is_out() {
    let mut fleet = Fleet::new();
    let plan = plan(Balance::ClientId, &RULES, &request("car", None)).unwrap();
    let (home, why) = fleet.choose(&plan).unwrap();
    assert_eq!(why, ChosenBy::Hash);
    let other = (home + 1) % 4;
    fleet.pins.pin("car", &Arc::from(format!("s{other}"))).unwrap();
    assert_eq!(fleet.choose(&plan), Some((other, ChosenBy::Pin)));
    fleet.seats[other].standing = Out;
    assert_eq!(fleet.choose(&plan), Some((home, ChosenBy::Hash)));
    fleet.seats[other].standing = In;
    assert_eq!(fleet.choose(&plan), Some((other, ChosenBy::Pin)), "a drain that ends brings it back");
    fleet.pins.pin("car", &Arc::from("s9")).unwrap();
    assert_eq!(fleet.choose(&plan), Some((home, ChosenBy::Hash)), "a server that is not there is no pin");
}

#[test]
fn a_pin_works_without_a_hash_too() {
    let mut fleet = Fleet::new();
    fleet.pins.pin("car", &Arc::from("s2")).unwrap();
    let plan = plan(Balance::RoundRobin, &RULES, &request("car", None)).unwrap();
    assert_eq!(fleet.choose(&plan), Some((2, ChosenBy::Pin)));
    assert_eq!(fleet.choose(&plan), Some((2, ChosenBy::Pin)));
}

#[test]
fn after_a_failed_server_the_reason_is_failover_whatever_chose() {
    let mut fleet = Fleet::new();
    let plan = plan(Balance::ClientId, &RULES, &request("car", None)).unwrap();
    let (home, _) = fleet.choose(&plan).unwrap();
    fleet.seats[home].standing = Out;
    fleet.failed_over = true;
    let (second, why) = fleet.choose(&plan).unwrap();
    assert_eq!(why, ChosenBy::Failover);
    assert_ne!(second, home);
    fleet.stand([Out; 4]);
    assert_eq!(fleet.ask(&plan), Choice::Nobody);
}

#[test]
fn the_methods_without_a_key_look_at_the_loads() {
    let mut fleet = Fleet::new();
    for (index, connections) in [5, 3, 0, 9].into_iter().enumerate() {
        fleet.loads[index].connections = connections;
    }
    let request = request("", None);
    let by = |balance| plan(balance, &RULES, &request).unwrap();
    assert_eq!(fleet.choose(&by(Balance::LeastConnections)), Some((2, ChosenBy::LeastConnections)));
    assert_eq!(
        fleet.choose(&by(Balance::RandomTwo)),
        Some((1, ChosenBy::RandomTwo)),
        "of the first two drawn"
    );
    let turns: Vec<_> = (0..4).filter_map(|_| fleet.choose(&by(Balance::RoundRobin))).collect();
    let mut servers: Vec<_> = turns.iter().map(|(index, _)| *index).collect();
    servers.sort_unstable();
    assert_eq!(servers, [0, 1, 2, 3]);
}

#[test]
fn what_is_recorded_follows_the_rule() {
    assert!(!records(Record::Operator, ChosenBy::Failover));
    assert!(records(Record::Failover, ChosenBy::Failover) && !records(Record::Failover, ChosenBy::Hash));
    assert!(records(Record::All, ChosenBy::Hash) && !records(Record::All, ChosenBy::Pin));
    assert!(!records(Record::All, ChosenBy::Backup) && !records(Record::Failover, ChosenBy::Backup));
    assert!(!records(Record::Failover, ChosenBy::Overflow));
}

#[test]
fn a_devices_server_that_failed_lately_is_passed_over_and_the_others_keep_theirs() {
    let mut fleet = Fleet::new();
    let homes: Vec<_> =
        (0..40).map(|n| fleet.choose(&by(Balance::ClientId, &format!("v{n}"))).unwrap().0).collect();
    fleet.seats[2].standing = Failed;
    for (n, home) in homes.into_iter().enumerate() {
        let (now, why) = fleet.choose(&by(Balance::ClientId, &format!("v{n}"))).unwrap();
        match home {
            2 => assert!(now != 2 && why == ChosenBy::Failover, "{n}: {now} {why:?}"),
            _ => assert_eq!((now, why), (home, ChosenBy::Hash)),
        }
    }
}

#[test]
fn backups_serve_only_when_nobody_else_can() {
    for balance in [
        Balance::ClientId,
        Balance::SourceIp,
        Balance::RoundRobin,
        Balance::LeastConnections,
        Balance::Random,
    ] {
        let mut fleet = Fleet::new();
        (fleet.seats[1].backup, fleet.seats[3].backup) = (true, true);
        let primaries = [[In, In, In, In], [In, In, Failed, In], [Out, In, In, In], [Full, In, In, Out]];
        for standing in primaries {
            fleet.stand(standing);
            for n in 0..20 {
                let (index, why) = fleet.choose(&by(balance, &format!("v{n}"))).unwrap();
                assert!(matches!(index, 0 | 2) && standing[index] == In && why != ChosenBy::Backup);
            }
        }
        for standing in
            [[Failed, In, Failed, In], [Out, In, Full, In], [Failed, In, Out, In], [Out, In, Out, In]]
        {
            fleet.stand(standing);
            let mut got: Vec<_> =
                (0..30).map(|n| fleet.choose(&by(balance, &format!("v{n}"))).unwrap()).collect();
            assert!(got.iter().all(|(index, why)| matches!(index, 1 | 3) && *why == ChosenBy::Backup));
            got.dedup();
            assert!(got.len() > 1 || matches!(balance, Balance::SourceIp | Balance::Random), "both of them");
        }
    }
}

#[test]
fn when_all_have_failed_lately_they_are_tried_all_the_same_and_backups_last() {
    let mut fleet = Fleet::new();
    fleet.seats[3].backup = true;
    let plan = by(Balance::ClientId, "car");
    let (home, _) = fleet.choose(&plan).unwrap();
    fleet.stand([Failed; 4]);
    assert_eq!(fleet.choose(&plan), Some((home, ChosenBy::Hash)), "its own first");
    fleet.stand([Out, Out, Out, Failed]);
    assert_eq!(fleet.choose(&plan), Some((3, ChosenBy::Backup)));
    fleet.stand([Out, Out, Failed, In]);
    assert_eq!(
        fleet.choose(&plan),
        Some((3, ChosenBy::Backup)),
        "one that is well comes before one that failed"
    );
}

#[test]
fn a_connection_waits_when_only_room_is_missing() {
    let mut fleet = Fleet::new();
    let plan = by(Balance::ClientId, "car");
    for (standing, want) in [
        ([Full; 4], Choice::Full),
        ([Full, Failed, Out, Failed], Choice::Full),
        ([Out, Out, Out, Full], Choice::Full),
        ([Out; 4], Choice::Nobody),
    ] {
        fleet.stand(standing);
        assert_eq!(fleet.ask(&plan), want, "{standing:?}");
    }
    fleet.stand([Full, Full, In, Full]);
    let overflowed =
        |fleet: &mut Fleet, n: usize| fleet.choose(&by(Balance::ClientId, &format!("v{n}"))).unwrap();
    let got: Vec<_> = (0..40).map(|n| overflowed(&mut fleet, n)).collect();
    assert!(got.iter().all(|(index, why)| *index == 2 && matches!(why, ChosenBy::Hash | ChosenBy::Overflow)));
    assert!(got.iter().any(|(_, why)| *why == ChosenBy::Overflow));
}

#[test]
fn a_pin_to_a_server_without_room_is_not_kept_to() {
    let mut fleet = Fleet::new();
    fleet.pins.pin("car", &Arc::from("s1")).unwrap();
    fleet.seats[1].backup = true;
    let plan = by(Balance::ClientId, "car");
    assert_eq!(fleet.choose(&plan), Some((1, ChosenBy::Pin)), "an operator may pin to a backup");
    for standing in [Full, Failed, Out] {
        fleet.seats[1].standing = standing;
        let (index, why) = fleet.choose(&plan).unwrap();
        assert!(index != 1 && why != ChosenBy::Pin);
    }
}

#[test]
fn modulo_goes_on_in_turns_where_nginx_does() {
    let mut fleet = Fleet::new();
    fleet.kind = HashKind::Modulo;
    // One small server among large ones that are out: 21 numbers miss it for some keys.
    for load in &mut fleet.loads {
        load.weight = 1_000;
    }
    fleet.loads[3].weight = 1;
    fleet.stand([Out, Out, Out, In]);
    let got: Vec<_> =
        (0..200).map(|n| fleet.choose(&by(Balance::ClientId, &format!("v{n}"))).unwrap()).collect();
    assert!(got.iter().all(|(index, _)| *index == 3));
    assert!(got.iter().any(|(_, why)| *why == ChosenBy::RoundRobin));
}

mod properties {
    use proptest::prelude::*;

    use super::*;

    fn standings() -> impl Strategy<Value = Vec<(Standing, bool)>> {
        let standing = prop_oneof![Just(In), Just(Full), Just(Failed), Just(Out)];
        prop::collection::vec((standing, any::<bool>()), 4..=4)
    }

    fn balances() -> impl Strategy<Value = Balance> {
        prop::sample::select(vec![
            Balance::ClientId,
            Balance::SourceIp,
            Balance::RoundRobin,
            Balance::LeastConnections,
            Balance::Random,
            Balance::RandomTwo,
        ])
    }

    proptest! {
        /// The oracle is the list of ranks, in order.
        #[test]
        fn the_best_rank_that_is_not_empty_serves(
            standings in standings(), balance in balances(), key in "[a-z]{1,8}", bound in prop::option::of(1.0_f64..3.0),
            kind in prop::sample::select(vec![HashKind::Rendezvous, HashKind::Ketama, HashKind::Modulo]),
        ) {
            let mut fleet = Fleet::new();
            (fleet.kind, fleet.bound) = (kind, bound.filter(|_| balance.hashes() && kind != HashKind::Modulo));
            for (seat, (standing, backup)) in fleet.seats.iter_mut().zip(&standings) {
                *seat = Seat { standing: *standing, backup: *backup };
            }
            let rank = |standing, backup| {
                let fits = move |seat: &&(usize, &(Standing, bool))| *seat.1 == (standing, backup);
                let indexes: Vec<_> = standings.iter().enumerate().filter(|seat| fits(&seat)).map(|(i, _)| i).collect();
                Some(indexes).filter(|indexes| !indexes.is_empty())
            };
            let full = standings.iter().any(|(standing, _)| *standing == Full);
            let want = rank(In, false).or_else(|| rank(In, true));
            let want = if want.is_none() && !full { rank(Failed, false).or_else(|| rank(Failed, true)) } else { want };
            match (fleet.ask(&by(balance, &key)), want) {
                (Choice::Server(index, _), Some(want)) => prop_assert!(want.contains(&index), "{index} {want:?}"),
                (Choice::Full, None) => prop_assert!(full),
                (Choice::Nobody, None) => prop_assert!(!full),
                (got, want) => prop_assert!(false, "{got:?} {want:?}"),
            }
        }

        /// Connections come and go; after each that comes its server is within the bound that held for it.
        #[test]
        fn no_server_gets_more_than_the_factor_times_its_share(
            weights in prop::collection::vec(1_u32..6, 4..=4), factor in 1.0_f64..2.0, steps in prop::collection::vec(any::<u16>(), 1..60),
            kind in prop::sample::select(vec![HashKind::Rendezvous, HashKind::Ketama]),
        ) {
            let mut fleet = Fleet::new();
            (fleet.kind, fleet.bound) = (kind, Some(factor));
            for (load, weight) in fleet.loads.iter_mut().zip(&weights) {
                load.weight = *weight;
            }
            let sum = f64::from(weights.iter().sum::<u32>());
            for step in steps {
                let busy = fleet.loads.iter().position(|load| load.connections > 0);
                if step % 4 == 0 && let Some(index) = busy {
                    fleet.loads[index].connections -= 1;
                    continue;
                }
                let (index, why) = fleet.choose(&by(Balance::ClientId, &format!("v{step}"))).unwrap();
                fleet.loads[index].connections += 1;
                let all: u64 = fleet.loads.iter().map(|load| load.connections).sum();
                let share = factor * all as f64 * f64::from(weights[index]) / sum;
                prop_assert!(fleet.loads[index].connections as f64 <= share.ceil() + 1e-9, "{:?}", fleet.loads);
                prop_assert!(matches!(why, ChosenBy::Hash | ChosenBy::Overflow));
            }
        }
    }
}
