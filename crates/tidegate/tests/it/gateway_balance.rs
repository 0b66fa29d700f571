//! Every way to choose a server, seen from outside.

use std::net::Ipv4Addr;

use mqtt::Version;
use mqtt::packet::Connect;

use crate::harness::address::source;
use crate::harness::fleet::{NAMES, gateway, homes, mosquittos, servers, shares, visit};
use crate::harness::{Device, Site, device};

fn named(clientid: &str, username: &str) -> Connect<'static> {
    Connect {
        username: Some(username.to_owned().into()),
        password: Some(b"secret".as_slice().into()),
        ..device::connect(Version::V5, clientid)
    }
}

#[test]
fn by_user_name_all_clients_of_a_user_share_a_server() {
    let mosquittos = mosquittos(3);
    let gateway = gateway(&mosquittos, "", "balance = \"username\"");
    let mut homes = Vec::new();
    for user in 0..12 {
        let username = format!("plant-{user}");
        let visits: Vec<_> = (0..3)
            .map(|number| {
                let connect = named(&format!("{username}/sensor-{number}"), &username);
                visit(&gateway, source(user * 100 + number), &connect)
            })
            .collect();
        assert!(visits.iter().all(|visit| *visit == visits[0]), "{visits:?}");
        assert_eq!(visits[0].1, "hash");
        homes.push(visits[0].0.clone());
    }
    assert!(shares(&homes).len() > 1, "{homes:?}");
    // Without a user name the listener's rule steps in, counted.
    let (_, why) = visit(&gateway, Ipv4Addr::LOCALHOST, &device::connect(Version::V5, "nameless"));
    assert_eq!(why, "round_robin");
    let series = format!(
        "tidegate_gateway_without_key_total{{listener=\"tcp://{}\",reason=\"no_username\"}}",
        gateway.gate()
    );
    assert_eq!(gateway.metric(&series), 1.0);
    // The password goes through and into nothing of ours.
    assert!(gateway.process.err.all().iter().all(|line| !line.contains("secret")));
}

#[test]
fn by_source_address_the_port_and_the_client_id_do_not_matter() {
    let mosquittos = mosquittos(3);
    let gateway = gateway(&mosquittos, "", "balance = \"source_ip\"");
    let mut homes = Vec::new();
    for address in 1..=12 {
        let visits: Vec<_> = (0..3)
            .map(|number| {
                let connect = device::connect(Version::V311, &format!("sensor-{address}-{number}"));
                visit(&gateway, source(address * 997), &connect)
            })
            .collect();
        assert!(visits.iter().all(|visit| *visit == visits[0]), "{visits:?}");
        assert_eq!(visits[0].1, "source_ip");
        homes.push(visits[0].0.clone());
    }
    assert!(shares(&homes).len() > 1, "{homes:?}");
}

#[test]
fn round_robin_goes_in_turns_by_weight() {
    let mosquittos = mosquittos(3);
    let list: Vec<_> = servers(&mosquittos)
        .iter()
        .zip([3, 2, 1])
        .map(|((name, address), weight)| {
            format!("{{ name = \"{name}\", address = \"{address}\", weight = {weight} }}")
        })
        .collect();
    let gateway = Site::new("gateway").gateway_to("", "balance = \"round_robin\"", &list.join(", ")).start();
    let homes = homes(&gateway, 24);
    let shares = shares(homes.values());
    assert_eq!(NAMES.map(|name| shares.get(name).copied().unwrap_or(0)), [12, 8, 4, 0]);
}

#[test]
fn least_connections_fills_the_emptiest() {
    let mosquittos = mosquittos(3);
    let gateway = gateway(&mosquittos, "", "balance = \"least_connections\"");
    let open = |number: u32| {
        let clientid = format!("vehicle-{number}");
        let device = Device::connect(gateway.gate(), &device::connect(Version::V5, &clientid));
        (gateway.connection(&clientid).newest.server, clientid, device)
    };
    let mut held: Vec<_> = (0..9).map(open).collect();
    let count =
        |held: &[(String, String, Device)], name: &str| held.iter().filter(|one| one.0 == name).count();
    assert_eq!(NAMES.map(|name| count(&held, name)), [3, 3, 3, 0]);
    // One server loses its devices: the next ones go there.
    let (leaving, mut held): (Vec<_>, Vec<_>) = held.drain(..).partition(|(server, ..)| server == "mq2");
    for (_, clientid, device) in leaving {
        device.goodbye();
        gateway.gone(&clientid);
    }
    held.extend((9..12).map(open));
    assert_eq!(NAMES.map(|name| count(&held, name)), [3, 3, 3, 0]);
    assert_eq!(gateway.connection("vehicle-9").newest.chosen_by, "least_connections");
}

#[test]
fn random_of_two_spreads_what_stays_connected() {
    let mosquittos = mosquittos(3);
    let gateway = gateway(&mosquittos, "", "balance = \"random_two\"");
    let held: Vec<_> = (0..60)
        .map(|number| {
            let clientid = format!("vehicle-{number}");
            Device::connect(gateway.gate(), &device::connect(Version::V5, &clientid))
        })
        .collect();
    let upstreams = gateway.rest.upstreams().expect("an answer").data;
    let counts: Vec<_> = upstreams[0].servers.iter().map(|server| server.connections).collect();
    assert_eq!(counts.iter().sum::<u64>(), 60);
    // The better of two never lets a server run away: far outside of this range is no chance any more.
    assert!(counts.iter().all(|count| (14..=26).contains(count)), "{counts:?}");
    assert_eq!(gateway.connection("vehicle-0").newest.chosen_by, "random_two");
    drop(held);
}

#[test]
fn the_hash_gives_each_server_its_weights_share() {
    let mosquittos = mosquittos(2);
    for hash in ["rendezvous", "ketama"] {
        let [(one, first), (two, second)] = servers(&mosquittos)[..] else { panic!("two servers") };
        let list = format!(
            "{{ name = \"{one}\", address = \"{first}\", weight = 3 }}, {{ name = \"{two}\", address = \"{second}\" }}"
        );
        let upstream = format!("balance = \"client_id\"\nhash = \"{hash}\"");
        let gateway = Site::new("gateway").gateway_to("", &upstream, &list).start();
        let homes = homes(&gateway, 160);
        let heavy = shares(homes.values())["mq1"];
        // 120 of 160 are expected; the client ids are fixed, so this is no game of chance.
        assert!((105..=135).contains(&heavy), "{hash}: {heavy}");
    }
}
