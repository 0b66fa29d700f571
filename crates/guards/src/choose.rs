//! Which server a connection goes to.

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use gateway::balance::{Hash, HashKind, Load, RoundRobin};
use gateway::route::{self, Balance, Choice, Names, NoKey, Plan, Request, Rule, Rules, Seat, Standing, View};
use gateway::sticky::Pins;

use crate::meter::{Row, repeat};

/// Devices that connect in turns.
const DEVICES: usize = 250;
/// Pins in the table where one is looked up.
const PINS: usize = 100_000;

/// An operation is one connection: what to go by, and where it goes then.
pub(crate) const ROWS: &[Row] = &[
    Row { name: "choose/rendezvous_4", run: || choose(4, HashKind::Rendezvous, Balance::ClientId, 0) },
    Row { name: "choose/rendezvous_64", run: || choose(64, HashKind::Rendezvous, Balance::ClientId, 0) },
    Row { name: "choose/ketama_4", run: || choose(4, HashKind::Ketama, Balance::ClientId, 0) },
    Row { name: "choose/ketama_64", run: || choose(64, HashKind::Ketama, Balance::ClientId, 0) },
    Row { name: "choose/modulo_4", run: || choose(4, HashKind::Modulo, Balance::ClientId, 0) },
    Row { name: "choose/modulo_64", run: || choose(64, HashKind::Modulo, Balance::ClientId, 0) },
    Row { name: "choose/source_ip_4", run: || choose(4, HashKind::Rendezvous, Balance::SourceIp, 0) },
    Row {
        name: "choose/least_connections_4",
        run: || choose(4, HashKind::Rendezvous, Balance::LeastConnections, 0),
    },
    Row {
        name: "choose/least_connections_64",
        run: || choose(64, HashKind::Rendezvous, Balance::LeastConnections, 0),
    },
    Row { name: "choose/random_two_64", run: || choose(64, HashKind::Rendezvous, Balance::RandomTwo, 0) },
    Row { name: "choose/pinned_4", run: || choose(4, HashKind::Rendezvous, Balance::ClientId, PINS) },
    Row { name: "choose/pinned_64", run: || choose(64, HashKind::Rendezvous, Balance::ClientId, PINS) },
];

const RULES: Rules =
    Rules { empty_client_id: Rule::RoundRobin, no_username: Rule::SourceIp, not_mqtt: Rule::Reject };

/// These are called by their addresses: as they are for everybody, and not made one with the row that counts them.
type MakePlan = for<'a> fn(Balance, &Rules, &Request<'a>) -> Result<Plan<'a>, NoKey>;
type Choose = fn(&Plan<'_>, View<'_>) -> Choice;

fn choose(servers: usize, kind: HashKind, balance: Balance, pinned: usize) -> u64 {
    let names: Vec<Arc<str>> = (0..servers).map(|n| format!("10.0.0.{n:02}:1883").into()).collect();
    let hash = Hash::new(kind, names.iter().map(|name| (&**name, 1)));
    let backup_hash = Hash::new(kind, names.iter().map(|name| (&**name, 0)));
    let seats = vec![Seat { standing: Standing::In, backup: false }; servers];
    let mut loads: Vec<_> =
        (0..servers as u64).map(|n| Load { weight: 1, connections: n * 37 % 101, usable: true }).collect();
    let ids: Vec<_> = (0..DEVICES.max(pinned)).map(|n| format!("truck-{n:06}-berlin")).collect();
    let mut pins = Pins::new(PINS);
    for (n, id) in ids.iter().enumerate().take(pinned) {
        if let Some(server) = names.get(n % servers) {
            pins.record(id, server);
        }
    }
    let mut round_robin = RoundRobin::default();
    let index_of = |name: &str| names.binary_search_by(|known| (**known).cmp(name)).ok();
    let (plan, choose) = (black_box(route::plan as MakePlan), black_box(route::choose as Choose));
    repeat(|turn| {
        let client_id = ids.get(turn % DEVICES * (ids.len() / DEVICES)).map_or("", String::as_str);
        let source = IpAddr::V4(Ipv4Addr::new(203, 0, (turn % 7) as u8, (turn % 199) as u8));
        let request = Request { source, connect: Some(Names { client_id, username: None }) };
        let plan = plan(balance, &RULES, &request).expect("there is a key");
        let view = View {
            hash: &hash,
            backup_hash: &backup_hash,
            bound: None,
            seats: &seats,
            loads: &mut loads,
            index_of: &index_of,
            pins: &mut pins,
            round_robin: &mut round_robin,
            draws: [turn as u64 * 7_919, turn as u64 * 104_729],
            failed_over: false,
        };
        let choice = choose(&plan, view);
        assert!(matches!(choice, Choice::Server(..)));
        black_box(choice)
    })
}
