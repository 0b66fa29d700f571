//! Which server: stickiness, weights, failures, source addresses.

use std::collections::HashMap;
use std::net::SocketAddr;

use api::gateway::GatewayAdmin;
use mqtt::Version;
use runtime::events::Event;
use tokio::io::AsyncReadExt;

use crate::harness::{
    Broker, Nobody, Running, addresses, config, device, device_from, eventually, expect, expect_end, hello,
    soon, whoever,
};

/// Where the device lands, by the index of the broker.
async fn land(running: &Running, brokers: &[Broker], from: &str, id: &str) -> usize {
    let hello = hello(id).bytes();
    let _client = device_from(from, running.address(), &hello).await;
    let (index, mut server) = whoever(brokers).await;
    expect(&mut server, &hello).await;
    index
}

#[tokio::test]
async fn the_same_device_reaches_the_same_broker_from_any_address_and_by_any_gateway() {
    let brokers = Broker::fleet::<4>().await;
    let text = config("", "", &addresses(&brokers));
    let (one, other) = (Running::start(&text), Running::start(&text));
    let mut share = [0; 4];
    for n in 0..60 {
        let id = format!("vehicle-{n}");
        let home = land(&one, &brokers, "127.0.2.1", &id).await;
        assert_eq!(land(&one, &brokers, "127.0.2.2", &id).await, home);
        assert_eq!(land(&other, &brokers, "127.0.2.3", &id).await, home);
        share[home] += 1;
    }
    assert!(share.iter().all(|count| *count > 0), "{share:?}");
}

#[tokio::test]
async fn a_drained_servers_devices_move_and_nobody_else() {
    let brokers = Broker::fleet::<4>().await;
    let running = Running::start(&config("", "", &addresses(&brokers)));
    let mut homes = HashMap::new();
    for n in 0..60 {
        homes.insert(n, land(&running, &brokers, "127.0.2.1", &format!("v{n}")).await);
    }
    let row = running.gateway.drain("brokers", "s1").unwrap();
    assert_eq!((&*row.name, &*row.state), ("s1", "draining"));
    for n in 0..60 {
        let now = land(&running, &brokers, "127.0.2.1", &format!("v{n}")).await;
        assert_ne!(now, 1);
        assert!(homes[&n] == 1 || now == homes[&n]);
    }
    let address = brokers[1].address.to_string();
    assert_eq!(running.gateway.enable("brokers", &address).unwrap().state, "up", "also by its address");
    for n in 0..60 {
        assert_eq!(land(&running, &brokers, "127.0.2.1", &format!("v{n}")).await, homes[&n]);
    }
    let states = running.count(|event| matches!(event, Event::ServerStateChanged { .. }));
    assert_eq!(states, 2);
}

#[tokio::test]
async fn a_dead_server_is_passed_over_and_named() {
    let (nobody, broker) = (Nobody::new(), Broker::start().await);
    let running = Running::start(&config("", "balance = \"round_robin\"", &[nobody.address, broker.address]));
    let hello = hello("car").bytes();
    for n in 1..=3 {
        let _client = device(running.address(), &hello).await;
        let _server = broker.accept_with(&hello).await;
        eventually(|| (running.gateway.upstreams()[0].servers[1].connections_total == n).then_some(())).await;
    }
    let dead = |event: &Event| matches!(event, Event::UpstreamFailed { server, .. } if **server == *"s0");
    let event = running.event(dead).await;
    let Event::UpstreamFailed { upstream, server, error } = event else { panic!() };
    assert_eq!((&*upstream, &*server), ("brokers", "s0"));
    assert!(error.contains("refused"), "{error}");
    let rows = running.gateway.upstreams();
    assert!(rows[0].servers[0].fails >= 1 && rows[0].servers[0].last_error.is_some());
    assert_eq!((rows[0].servers[0].connections, rows[0].servers[0].connections_total), (0, 0));
    assert_eq!(rows[0].servers[1].connections_total, 3);
    let failover = |event: &Event| matches!(event, Event::GatewayConnected { chosen_by, .. } if **chosen_by == *"failover");
    running.event(failover).await;
    let counted = |line: &str| {
        let line =
            line.strip_prefix("tidegate_gateway_chosen_total{").filter(|line| line.contains("\"failover\""));
        line.is_some_and(|line| !line.ends_with(" 0"))
    };
    assert!(running.registry.render().lines().any(counted), "a failover is counted");
}

#[tokio::test]
async fn a_server_that_closes_without_a_byte_is_told_of_and_not_counted_as_failed() {
    let broker = Broker::start().await;
    let running = Running::start(&config("", "", &[broker.address]));
    let hello = hello("car").bytes();
    let mut client = device(running.address(), &hello).await;
    drop(broker.accept_with(&hello).await);
    assert_eq!(soon(client.read(&mut [0])).await.unwrap(), 0, "the end is passed on");
    drop(client);
    let event = running.event(|event| matches!(event, Event::UpstreamFailed { .. })).await;
    let Event::UpstreamFailed { error, .. } = event else { panic!() };
    assert!(error.contains("without a byte") && error.contains("proxy_protocol"), "{error}");
    let server = running.gateway.upstreams()[0].servers[0].clone();
    assert_eq!((server.fails, server.last_error.as_deref()), (0, Some(&*error)));
}

#[tokio::test]
async fn a_server_that_could_not_be_reached_is_told_of_again_when_it_closes_without_a_byte() {
    let nobody = Nobody::new();
    let running = Running::start(&config("", "", &[nobody.address]));
    let hello = hello("car").bytes();
    let _refused = device(running.address(), &hello).await;
    let told = |word: &'static str| move |event: &Event| matches!(event, Event::UpstreamFailed { error, .. } if error.contains(word));
    running.event(told("refused")).await;
    let broker = nobody.arrives();
    // Reports are seldom: it is told of once their pause is over.
    soon(async {
        while running.count(told("without a byte")) == 0 {
            let _client = device(running.address(), &hello).await;
            drop(broker.accept_with(&hello).await);
        }
    })
    .await;
}

#[tokio::test]
async fn a_server_that_does_not_answer_costs_the_connect_timeout_only() {
    // A listener with a full queue: the kernel answers no further SYN.
    let full = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    full.bind(&"127.0.0.1:0".parse::<SocketAddr>().unwrap().into()).unwrap();
    full.listen(0).unwrap();
    let address = full.local_addr().unwrap().as_socket().unwrap();
    let mut fillers = Vec::new();
    while let Ok(stream) =
        std::net::TcpStream::connect_timeout(&address, std::time::Duration::from_millis(200))
    {
        fillers.push(stream);
        assert!(fillers.len() < 16, "the queue does not fill");
    }
    let broker = Broker::start().await;
    let upstream = "balance = \"round_robin\"\nconnect_timeout = \"100ms\"";
    let running = Running::start(&config("", upstream, &[address, broker.address]));
    let hello = hello("car").bytes();
    let _client = device(running.address(), &hello).await;
    broker.accept_with(&hello).await;
    let timed_out = |event: &Event| matches!(event, Event::UpstreamFailed { error, .. } if error.contains("connect_timeout"));
    running.event(timed_out).await;
}

#[tokio::test]
async fn when_all_are_dead_the_client_is_told_to_come_later() {
    let (one, two) = (Nobody::new(), Nobody::new());
    let running = Running::start(&config("", "", &[one.address, two.address]));
    let mut five = device(running.address(), &hello("car").bytes()).await;
    expect_end(&mut five, &[0x20, 3, 0, 0x88, 0]).await;
    for version in [Version::V31, Version::V311] {
        let mut old = device(running.address(), &hello("car").version(version).bytes()).await;
        expect_end(&mut old, &[0x20, 2, 0, 3]).await;
    }
    running.refused("servers_failed").await;
    let fails: u64 = running.gateway.upstreams()[0].servers.iter().map(|server| server.fails).sum();
    assert_eq!(fails, 6, "each server was tried once for each device");
    running.gateway.drain("brokers", "s0").unwrap();
    running.gateway.drain("brokers", "s1").unwrap();
    let mut none = device(running.address(), &hello("car").bytes()).await;
    expect_end(&mut none, &[0x20, 3, 0, 0x88, 0]).await;
    running.refused("no_server").await;
}

#[tokio::test]
async fn tries_bounds_how_many_servers_a_device_waits_for() {
    let dead = [Nobody::new(), Nobody::new(), Nobody::new()];
    let addresses = dead.each_ref().map(|nobody| nobody.address);
    let running = Running::start(&config("", "tries = 2", &addresses));
    let mut client = device(running.address(), &hello("car").bytes()).await;
    expect_end(&mut client, &[0x20, 3, 0, 0x88, 0]).await;
    let fails: u64 = running.gateway.upstreams()[0].servers.iter().map(|server| server.fails).sum();
    assert_eq!(fails, 2);
}

#[tokio::test]
async fn the_least_busy_server_gets_the_next_device() {
    let brokers = Broker::fleet::<3>().await;
    let running = Running::start(&config("", "balance = \"least_connections\"", &addresses(&brokers)));
    let mut held: Vec<Vec<_>> = vec![Vec::new(), Vec::new(), Vec::new()];
    for n in 0..6 {
        let client = device(running.address(), &hello(&format!("v{n}")).bytes()).await;
        let (index, server) = whoever(&brokers).await;
        held[index].push((client, server));
    }
    assert!(held.iter().all(|pairs| pairs.len() == 2));
    held[1].clear();
    eventually(|| (running.gateway.upstreams()[0].servers[1].connections == 0).then_some(())).await;
    for n in 6..8 {
        let client = device(running.address(), &hello(&format!("v{n}")).bytes()).await;
        let (index, server) = whoever(&brokers).await;
        assert_eq!(index, 1);
        held[index].push((client, server));
    }
}

#[tokio::test]
async fn random_two_spreads_over_all() {
    let brokers = Broker::fleet::<3>().await;
    let running = Running::start(&config("", "balance = \"random_two\"", &addresses(&brokers)));
    let mut held = Vec::new();
    let mut share = [0_i32; 3];
    for n in 0..30 {
        let client = device(running.address(), &hello(&format!("v{n}")).bytes()).await;
        let (index, server) = whoever(&brokers).await;
        share[index] += 1;
        held.push((client, server));
    }
    // Of two drawn the less busy one wins, so that no server is ever far ahead.
    assert!(share.iter().all(|count| (5..=15).contains(count)), "{share:?}");
}

#[tokio::test]
async fn servers_are_reached_from_the_source_addresses_in_turns() {
    let broker = Broker::start().await;
    let text = config("", "source_addresses = [\"127.0.0.9\", \"127.0.0.10\"]", &[broker.address]);
    let running = Running::start(&text);
    let mut seen = Vec::new();
    for n in 0..4 {
        let _client = device(running.address(), &hello(&format!("v{n}")).bytes()).await;
        let server = broker.accept().await;
        seen.push(server.peer_addr().unwrap().ip().to_string());
    }
    assert_eq!(seen, ["127.0.0.9", "127.0.0.10", "127.0.0.9", "127.0.0.10"]);
}

#[tokio::test]
async fn a_server_may_be_named_by_its_host() {
    let broker = Broker::start().await;
    let text = format!(
        "[gateway]\n[[gateway.listeners]]\nbind = \"127.0.0.1:0\"\nupstream = \"b\"\n\
         [[gateway.upstreams]]\nname = \"b\"\nservers = [ {{ address = \"localhost:{}\" }} ]\n",
        broker.address.port()
    );
    let running = Running::start(&text);
    let hello = hello("car").bytes();
    let _client = device(running.address(), &hello).await;
    let _server = broker.accept_with(&hello).await;
    let rows = running.gateway.connection("car".to_owned()).await;
    assert_eq!(
        rows[0].server,
        format!("localhost:{}", broker.address.port()),
        "the name is the address as written"
    );
    assert_eq!(rows[0].server_address, broker.address.to_string());
}
