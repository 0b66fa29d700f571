//! The decision table, row by row.

use std::net::Ipv4Addr;
use std::sync::Arc;

use super::*;
use crate::balance::HashKind;

const RULES: Rules =
    Rules { empty_client_id: Rule::RoundRobin, no_username: Rule::SourceIp, not_mqtt: Rule::Reject };
const DEVICE: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 7));

fn request<'a>(client_id: &'a str, username: Option<&'a str>) -> Request<'a> {
    Request { source: DEVICE, connect: Some(Names { client_id, username }) }
}

/// Four servers `s0` to `s3`, with what a test wants to set.
struct Fleet {
    loads: Vec<Load>,
    pins: Pins,
    turns: RoundRobin,
    hash: Hash,
    failed_over: bool,
}

impl Fleet {
    fn new() -> Self {
        let names = ["s0", "s1", "s2", "s3"];
        Self {
            loads: vec![Load { weight: 1, connections: 0, usable: true }; 4],
            pins: Pins::new(10),
            turns: RoundRobin::default(),
            hash: Hash::new(HashKind::Rendezvous, names.into_iter().map(|name| (name, 1))),
            failed_over: false,
        }
    }

    fn choose(&mut self, plan: &Plan<'_>) -> Option<(usize, ChosenBy)> {
        let index_of = |name: &str| name.strip_prefix('s')?.parse().ok().filter(|index| *index < 4);
        let view = View {
            hash: &self.hash,
            loads: &self.loads,
            index_of: &index_of,
            pins: &mut self.pins,
            round_robin: &mut self.turns,
            draws: [0, 0],
            failed_over: self.failed_over,
        };
        choose(plan, view)
    }
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
    fleet.loads[other].usable = false;
    assert_eq!(fleet.choose(&plan), Some((home, ChosenBy::Hash)));
    fleet.loads[other].usable = true;
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
    fleet.loads[home].usable = false;
    fleet.failed_over = true;
    let (second, why) = fleet.choose(&plan).unwrap();
    assert_eq!(why, ChosenBy::Failover);
    assert_ne!(second, home);
    for load in &mut fleet.loads {
        load.usable = false;
    }
    assert_eq!(fleet.choose(&plan), None);
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
}
