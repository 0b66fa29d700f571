//! Limits and their queues: `max_conns`, `queue`, access lists, connections from one address.

use std::net::SocketAddr;

use api::gateway::GatewayAdmin;
use mqtt::Version;
use runtime::events::Event;
use tokio::net::TcpStream;

use crate::harness::{
    Broker, Nobody, Running, addresses, config, device, device_from, eventually, expect_end, hello, parse,
    soon, whoever,
};

/// Servers that take so many connections each.
fn limited(max_conns: u32, upstream: &str, servers: &[SocketAddr]) -> String {
    config("", upstream, servers).replace("\" }, ", &format!("\", max_conns = {max_conns} }}, "))
}

async fn waiting(running: &Running, count: usize) {
    eventually(|| (running.gateway.upstreams()[0].queued == count).then_some(())).await;
}

#[tokio::test]
async fn max_conns_is_never_exceeded_and_devices_go_to_who_has_room() {
    let brokers = Broker::fleet::<3>().await;
    let running = Running::start(&limited(4, "", &addresses(&brokers)));
    let mut held: Vec<Vec<(TcpStream, TcpStream)>> = vec![Vec::new(), Vec::new(), Vec::new()];
    for n in 0..12 {
        let client = device(running.address(), &hello(&format!("v{n}")).bytes()).await;
        let (index, server) = whoever(&brokers).await;
        held[index].push((client, server));
    }
    assert!(held.iter().all(|pairs| pairs.len() == 4));
    assert!(
        running.gateway.upstreams()[0].servers.iter().all(|row| row.connections == 4 && row.max_conns == 4)
    );
    let mut five = device(running.address(), &hello("car").bytes()).await;
    expect_end(&mut five, &[0x20, 3, 0, 0x89, 0]).await;
    let mut old = device(running.address(), &hello("car").version(Version::V311).bytes()).await;
    expect_end(&mut old, &[0x20, 2, 0, 3]).await;
    running.refused("servers_full").await;
    let rows = running.gateway.upstreams();
    assert!(rows[0].servers.iter().all(|row| row.state == "up" && row.fails == 0), "full is not failed");
    held[1].pop();
    eventually(|| (running.gateway.upstreams()[0].servers[1].connections == 3).then_some(())).await;
    let _client = device(running.address(), &hello("car").bytes()).await;
    assert_eq!(whoever(&brokers).await.0, 1);
}

/// All at once, on both workers: the sum of what each worker counts is never above.
#[tokio::test]
async fn many_at_once_do_not_slip_through_max_conns() {
    let broker = Broker::start().await;
    let running = Running::start(&limited(10, "", &[broker.address]));
    let mut clients = Vec::new();
    for n in 0..100 {
        clients.push(device(running.address(), &hello(&format!("v{n}")).bytes()).await);
    }
    let mut held = Vec::new();
    for _ in 0..10 {
        held.push(broker.accept().await);
    }
    let refused = |event: &str| {
        format!(
            "tidegate_gateway_refused_total{{listener=\"tcp://{}\",reason=\"{event}\"}} 90",
            running.address()
        )
    };
    running.metric(&refused("servers_full")).await;
    assert_eq!(running.gateway.upstreams()[0].servers[0].connections, 10);
}

#[tokio::test]
async fn who_waits_is_served_in_the_order_of_arrival() {
    let broker = Broker::start().await;
    let running = Running::start(&limited(1, "queue = 3", &[broker.address]));
    let hello = |n: usize| hello(&format!("v{n}")).bytes();
    let mut clients = vec![device(running.address(), &hello(0)).await];
    let mut server = broker.accept_with(&hello(0)).await;
    for n in 1..4 {
        clients.push(device(running.address(), &hello(n)).await);
        waiting(&running, n).await;
    }
    let mut above = device(running.address(), &hello(9)).await;
    expect_end(&mut above, &[0x20, 3, 0, 0x89, 0]).await;
    running.refused("queue_full").await;
    running.metric("tidegate_gateway_queue_waiting{upstream=\"brokers\"} 3").await;
    for n in 1..4 {
        drop((clients.remove(0), server));
        server = broker.accept_with(&hello(n)).await;
        waiting(&running, 3 - n).await;
    }
    assert_eq!((running.gateway.upstreams()[0].queued_total, running.gateway.upstreams()[0].queue), (3, 3));
    running.metric("tidegate_gateway_queued_total{upstream=\"brokers\"} 3").await;
}

#[tokio::test]
async fn who_waits_too_long_is_refused_and_who_leaves_makes_room() {
    let broker = Broker::start().await;
    let running = Running::start(&limited(1, "queue = 1\nqueue_timeout = \"200ms\"", &[broker.address]));
    let _first = device(running.address(), &hello("v0").bytes()).await;
    let _server = broker.accept().await;
    let mut late = device(running.address(), &hello("v1").bytes()).await;
    expect_end(&mut late, &[0x20, 3, 0, 0x89, 0]).await;
    running.refused("queue_timeout").await;
    let running = Running::start(&limited(1, "queue = 1\nqueue_timeout = \"1h\"", &[broker.address]));
    let _first = device(running.address(), &hello("v0").bytes()).await;
    let _server = broker.accept().await;
    let leaves = device(running.address(), &hello("v1").bytes()).await;
    waiting(&running, 1).await;
    drop(leaves);
    running.refused("closed_early").await;
    waiting(&running, 0).await;
    let stays = device(running.address(), &hello("v2").bytes()).await;
    waiting(&running, 1).await;
    drop(stays);
}

#[tokio::test]
async fn who_waits_is_served_when_a_reload_or_an_operator_makes_room() {
    let brokers = Broker::fleet::<2>().await;
    let text = |max: u32, count: usize| {
        limited(max, "queue = 9\nqueue_timeout = \"1h\"", &addresses(&brokers[..count]))
    };
    let running = Running::start(&text(1, 1));
    let _first = device(running.address(), &hello("v0").bytes()).await;
    let _server = brokers[0].accept_with(&hello("v0").bytes()).await;
    let _second = device(running.address(), &hello("v1").bytes()).await;
    waiting(&running, 1).await;
    // What does not change the upstream leaves everybody where it stands.
    let other = text(1, 1).replace("upstream = \"brokers\"", "upstream = \"brokers\"\nmax_connections = 77");
    assert_eq!(running.gateway.apply(parse(&other)).unwrap(), ["listener 127.0.0.1:0 changed"]);
    running.gateway.apply(parse(&text(1, 2))).unwrap();
    let _server = brokers[1].accept_with(&hello("v1").bytes()).await;
    let _third = device(running.address(), &hello("v2").bytes()).await;
    waiting(&running, 1).await;
    running.gateway.drain("brokers", "s1").unwrap();
    running.gateway.apply(parse(&text(2, 2))).unwrap();
    let _server = brokers[0].accept_with(&hello("v2").bytes()).await;
    let _fourth = device(running.address(), &hello("v3").bytes()).await;
    waiting(&running, 1).await;
    running.gateway.enable("brokers", "s1").unwrap();
    let _server = brokers[1].accept_with(&hello("v3").bytes()).await;
}

/// The first in line was refused by a server that has come back since: it waits for the other one, and nobody else has to.
#[tokio::test]
async fn who_stands_first_does_not_keep_others_from_a_server_it_can_not_use() {
    let (nobody, broker) = (Nobody::new(), Broker::start().await);
    let text = config(
        "",
        "balance = \"round_robin\"\nqueue = 9\nqueue_timeout = \"1h\"",
        &[nobody.address, broker.address],
    );
    let text = text.replace("\" }, ", "\", max_conns = 1, max_fails = 0 }, ");
    let running = Running::start(&text);
    let _held = device(running.address(), &hello("v0").bytes()).await;
    let _server = broker.accept_with(&hello("v0").bytes()).await;
    let _first = device(running.address(), &hello("v1").bytes()).await;
    waiting(&running, 1).await;
    let _second = device(running.address(), &hello("v2").bytes()).await;
    waiting(&running, 2).await;
    let back = nobody.arrives();
    let _server = back.accept_with(&hello("v2").bytes()).await;
    waiting(&running, 1).await;
}

#[tokio::test]
async fn a_stop_ends_the_waiting() {
    let broker = Broker::start().await;
    let running = Running::start(&limited(1, "queue = 9\nqueue_timeout = \"1h\"", &[broker.address]));
    let _first = device(running.address(), &hello("v0").bytes()).await;
    let _server = broker.accept().await;
    let mut second = device(running.address(), &hello("v1").bytes()).await;
    waiting(&running, 1).await;
    running.shutdown.begin("test");
    expect_end(&mut second, &[0x20, 3, 0, 0x88, 0]).await;
}

#[tokio::test]
async fn an_access_list_closes_without_a_word_before_anything_is_read() {
    let broker = Broker::start().await;
    let list = "access = [{ deny = \"127.0.2.1\" }, { allow = \"127.0.2.0/24\" }, { deny = \"all\" }]";
    let running = Running::start(&config(list, "", &[broker.address]));
    for from in ["127.0.2.1", "127.0.3.1"] {
        let mut denied = device_from(from, running.address(), b"").await;
        expect_end(&mut denied, b"").await;
    }
    let _allowed = device_from("127.0.2.2", running.address(), &hello("car").bytes()).await;
    broker.accept_with(&hello("car").bytes()).await;
    running.refused("access_denied").await;
    let line = format!(
        "tidegate_gateway_refused_total{{listener=\"tcp://{}\",reason=\"access_denied\"}} 2",
        running.address()
    );
    running.metric(&line).await;
    let told = running.count(|event| matches!(event, Event::GatewayRefused { .. }));
    assert!(told <= 2, "floods are told of now and then");
}

#[tokio::test]
async fn behind_a_balancer_the_devices_own_address_counts() {
    let broker = Broker::start().await;
    let listener =
        "proxy_protocol = true\nmax_connections_per_address = 1\naccess = [{ deny = \"203.0.113.7\" }]";
    let running = Running::start(&config(listener, "", &[broker.address]));
    let header = |from: &str| format!("PROXY TCP4 {from} 198.51.100.1 4711 1883\r\n").into_bytes();
    let said = |from: &str, id: &str| [header(from), hello(id).bytes()].concat();
    let mut denied = device(running.address(), &header("203.0.113.7")).await;
    expect_end(&mut denied, b"").await;
    let _one = device(running.address(), &said("203.0.113.8", "a")).await;
    let _server = broker.accept_with(&hello("a").bytes()).await;
    let mut second = device(running.address(), &header("203.0.113.8")).await;
    expect_end(&mut second, b"").await;
    let _other = device(running.address(), &said("203.0.113.9", "b")).await;
    broker.accept_with(&hello("b").bytes()).await;
    running.refused("max_connections_per_address").await;
}

#[tokio::test]
async fn an_address_gets_its_connections_and_a_place_back_for_each_that_ends() {
    let broker = Broker::start().await;
    let running = Running::start(&config("max_connections_per_address = 2", "", &[broker.address]));
    let mut held = Vec::new();
    for n in 0..2 {
        let client = device_from("127.0.2.1", running.address(), &hello(&format!("v{n}")).bytes()).await;
        held.push((client, broker.accept().await));
    }
    let mut above = device_from("127.0.2.1", running.address(), b"").await;
    expect_end(&mut above, b"").await;
    let _elsewhere = device_from("127.0.2.2", running.address(), &hello("w").bytes()).await;
    let _server = broker.accept().await;
    held.pop();
    eventually(|| (running.gateway.upstreams()[0].servers[0].connections == 2).then_some(())).await;
    let _again = device_from("127.0.2.1", running.address(), &hello("v2").bytes()).await;
    soon(broker.accept()).await;
}

/// Three hundred devices and two places, on two workers: whoever ends calls the next one, and nobody is forgotten.
#[tokio::test]
async fn a_long_line_is_served_to_its_end() {
    let broker = Broker::start().await;
    let running = Running::start(&limited(2, "queue = 500", &[broker.address]));
    let mut clients = Vec::new();
    for n in 0..300 {
        clients.push(device(running.address(), &hello(&format!("v{n}")).bytes()).await);
    }
    waiting(&running, 298).await;
    for n in 0..300 {
        let server = broker.accept().await;
        assert!(running.gateway.upstreams()[0].servers[0].connections <= 2, "{n}");
        // A reset: an end would be half of one, and the gateway would wait for the device's.
        socket2::SockRef::from(&server).set_linger(Some(std::time::Duration::ZERO)).unwrap();
    }
    waiting(&running, 0).await;
    eventually(|| (running.gateway.upstreams()[0].servers[0].connections == 0).then_some(())).await;
    // Some were reset before they had said their first bytes.
    let row = running.gateway.upstreams().remove(0).servers.remove(0);
    assert_eq!(row.connections_total + row.fails, 300, "{row:?}");
}
