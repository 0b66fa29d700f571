//! Servers that go and come back: passive health, backups, `down`, slow start, and what a reload keeps of it.

use std::net::SocketAddr;

use api::gateway::{GatewayAdmin, Server};
use runtime::events::Event;
use tokio::net::TcpStream;

use crate::harness::{
    Broker, Nobody, Running, addresses, config, device, eventually, expect, expect_end, hello, parse, whoever,
};

fn rows(running: &Running) -> Vec<Server> {
    running.gateway.upstreams().remove(0).servers
}

fn states(running: &Running) -> Vec<String> {
    rows(running).into_iter().map(|row| row.state).collect()
}

/// A gateway to these servers, each with what the test adds to it.
fn text(upstream: &str, servers: &[(SocketAddr, &str)]) -> String {
    let list: Vec<_> = servers
        .iter()
        .enumerate()
        .map(|(index, (address, more))| format!("{{ name = \"s{index}\", address = \"{address}\"{more} }}"))
        .collect();
    format!(
        "[gateway]\n[[gateway.listeners]]\nbind = \"127.0.0.1:0\"\nupstream = \"brokers\"\n\
         [[gateway.upstreams]]\nname = \"brokers\"\n{upstream}\nservers = [ {} ]\n",
        list.join(", ")
    )
}

/// A device that is let in at this broker.
async fn lands(running: &Running, broker: &Broker, id: &str) -> (TcpStream, TcpStream) {
    let hello = hello(id).bytes();
    let client = device(running.address(), &hello).await;
    (broker.accept_with(&hello).await, client)
}

fn changed<'a>(server: &'a str, to: &'a str) -> impl Fn(&Event) -> bool + 'a {
    move |event| matches!(event, Event::ServerStateChanged { server: s, to: t, .. } if **s == *server && **t == *to)
}

#[tokio::test]
async fn a_server_that_fails_is_left_alone_and_then_tried_by_one_connection() {
    let (nobody, broker) = (Nobody::new(), Broker::start().await);
    let more = ", fail_timeout = \"300ms\"";
    let running =
        Running::start(&text("balance = \"round_robin\"", &[(nobody.address, more), (broker.address, more)]));
    let mut held = vec![lands(&running, &broker, "v0").await];
    running.event(changed("s0", "unavailable")).await;
    assert_eq!(states(&running), ["unavailable", "up"]);
    // Turns go on without it: nobody pays for an attempt.
    for n in 1..10 {
        held.push(lands(&running, &broker, &format!("v{n}")).await);
        if rows(&running)[0].fails > 1 {
            break;
        }
    }
    running.metric("tidegate_gateway_server_up{upstream=\"brokers\",server=\"s0\"} 0").await;
    // It is there again: the connection that finds that out stays with it.
    let back = nobody.arrives();
    let brokers = [back, broker];
    let mut landed = Vec::new();
    eventually(|| {
        let address = running.address();
        let hello = hello("probe").bytes();
        let mut stream = std::net::TcpStream::connect(address).ok()?;
        std::io::Write::write_all(&mut stream, &hello).ok()?;
        landed.push(stream);
        (states(&running)[0] == "up").then_some(())
    })
    .await;
    running.event(changed("s0", "up")).await;
    running.metric("tidegate_gateway_server_up{upstream=\"brokers\",server=\"s0\"} 1").await;
    let row = rows(&running).remove(0);
    assert!(row.unavailable_total == 1 && row.downtime_ms >= 300 && row.connect_us > 0, "{row:?}");
    drop(brokers);
}

#[tokio::test]
async fn when_all_are_unavailable_they_are_tried_all_the_same() {
    let (one, two) = (Nobody::new(), Nobody::new());
    let long = ", fail_timeout = \"1h\"";
    let running =
        Running::start(&text("balance = \"round_robin\"", &[(one.address, long), (two.address, long)]));
    let mut refused = device(running.address(), &hello("car").bytes()).await;
    expect_end(&mut refused, &[0x20, 3, 0, 0x88, 0]).await;
    assert_eq!(states(&running), ["unavailable", "unavailable"]);
    let broker = one.arrives();
    let _served = lands(&running, &broker, "car").await;
    running.event(changed("s0", "up")).await;
    assert_eq!(states(&running), ["up", "unavailable"]);
}

#[tokio::test]
async fn max_fails_of_zero_means_never_unavailable_and_so_does_being_the_only_one() {
    let (nobody, broker) = (Nobody::new(), Broker::start().await);
    let off = ", max_fails = 0";
    let running =
        Running::start(&text("balance = \"round_robin\"", &[(nobody.address, off), (broker.address, off)]));
    for n in 0..4 {
        lands(&running, &broker, &format!("v{n}")).await;
    }
    assert_eq!((states(&running), rows(&running)[0].fails >= 2), (vec!["up".to_owned(); 2], true));
    let alone = Running::start(&config("", "", &[nobody.address]));
    let mut refused = device(alone.address(), &hello("car").bytes()).await;
    expect_end(&mut refused, &[0x20, 3, 0, 0x88, 0]).await;
    assert_eq!((states(&alone), rows(&alone)[0].fails), (vec!["up".to_owned()], 1));
}

#[tokio::test]
async fn backups_serve_while_no_other_can_and_give_back() {
    let (main, spare) = (Nobody::new(), Broker::start().await);
    let running = Running::start(&text(
        "balance = \"client_id\"\npins = \"all\"",
        &[(main.address, ", fail_timeout = \"100ms\""), (spare.address, ", backup = true")],
    ));
    let _first = lands(&running, &spare, "car").await;
    let by_backup = |event: &Event| matches!(event, Event::GatewayConnected { chosen_by, .. } if **chosen_by == *"backup");
    running.event(by_backup).await;
    assert!(rows(&running)[1].backup && !rows(&running)[0].backup);
    assert_eq!(running.gateway.upstreams()[0].pins, 0, "a backup is not remembered");
    let brokers = [main.arrives(), spare];
    // A device at a time until one is tried at the first again.
    loop {
        let _client = device(running.address(), &hello("car").bytes()).await;
        let (index, _server) = whoever(&brokers).await;
        if index == 0 {
            break;
        }
    }
    // Accepted is not yet known to have been accepted: until then others pass it by.
    running.event(changed("s0", "up")).await;
    for n in 0..5 {
        let _client = device(running.address(), &hello(&format!("v{n}")).bytes()).await;
        assert_eq!(whoever(&brokers).await.0, 0);
    }
}

#[tokio::test]
async fn a_server_that_is_down_gets_nothing_until_a_reload_says_otherwise() {
    let brokers = Broker::fleet::<2>().await;
    let with =
        |more| text("balance = \"round_robin\"", &[(brokers[0].address, more), (brokers[1].address, "")]);
    let running = Running::start(&with(", down = true"));
    for n in 0..3 {
        lands(&running, &brokers[1], &format!("v{n}")).await;
    }
    assert_eq!(states(&running), ["down", "up"]);
    running.metric("tidegate_gateway_server_up{upstream=\"brokers\",server=\"s0\"} 0").await;
    assert_eq!(
        running.gateway.apply(parse(&with(""))).unwrap(),
        ["upstream brokers: server s0 is no longer down"]
    );
    let mut got = [0; 2];
    for n in 0..4 {
        let _client = device(running.address(), &hello(&format!("v{n}")).bytes()).await;
        got[whoever(&brokers).await.0] += 1;
    }
    assert_eq!(got, [2, 2]);
}

#[tokio::test]
async fn a_reload_keeps_what_is_known_of_a_servers_health() {
    let (nobody, broker) = (Nobody::new(), Broker::start().await);
    let with = |more: &str| {
        text(
            &format!("balance = \"round_robin\"\n{more}"),
            &[(nobody.address, ", fail_timeout = \"1h\""), (broker.address, "")],
        )
    };
    let running = Running::start(&with(""));
    lands(&running, &broker, "car").await;
    running.event(changed("s0", "unavailable")).await;
    running.gateway.apply(parse(&with("connect_timeout = \"1s\""))).unwrap();
    assert_eq!(states(&running), ["unavailable", "up"]);
    for n in 0..4 {
        lands(&running, &broker, &format!("v{n}")).await;
    }
    assert_eq!(rows(&running)[0].fails, 1);
    // An operator who takes it back says that it is well.
    running.gateway.drain("brokers", "s0").unwrap();
    assert_eq!(running.gateway.enable("brokers", "s0").unwrap().state, "up");
}

#[tokio::test]
async fn a_server_that_is_added_starts_slowly() {
    let brokers = Broker::fleet::<2>().await;
    let slow = ", slow_start = \"1h\"";
    let both = [(brokers[0].address, slow), (brokers[1].address, slow)];
    let running = Running::start(&text("balance = \"round_robin\"", &both[..1]));
    running.gateway.apply(parse(&text("balance = \"round_robin\"", &both))).unwrap();
    let mut got = [0; 2];
    for n in 0..50 {
        let hello = hello(&format!("v{n}")).bytes();
        let _client = device(running.address(), &hello).await;
        let (index, mut server) = whoever(&brokers).await;
        expect(&mut server, &hello).await;
        got[index] += 1;
    }
    assert!(got[0] >= 49, "its share is a hundredth at first: {got:?}");
    // Those that were there at the start have their share at once.
    let fresh = Running::start(&text("balance = \"round_robin\"", &both));
    let mut got = [0; 2];
    for n in 0..10 {
        let _client = device(fresh.address(), &hello(&format!("v{n}")).bytes()).await;
        got[whoever(&brokers).await.0] += 1;
    }
    assert_eq!(got, [5, 5]);
}

#[tokio::test]
async fn no_further_server_is_tried_after_the_time_for_tries() {
    let dead = [Nobody::new(), Nobody::new(), Nobody::new()];
    let addresses = dead.each_ref().map(|nobody| nobody.address);
    // A listener with a full queue: the kernel answers no further SYN.
    let full = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    full.bind(&"127.0.0.1:0".parse::<SocketAddr>().unwrap().into()).unwrap();
    full.listen(0).unwrap();
    let silent = full.local_addr().unwrap().as_socket().unwrap();
    let mut fillers = Vec::new();
    while let Ok(stream) =
        std::net::TcpStream::connect_timeout(&silent, std::time::Duration::from_millis(200))
    {
        fillers.push(stream);
        assert!(fillers.len() < 16, "the queue does not fill");
    }
    let upstream = "balance = \"round_robin\"\nconnect_timeout = \"100ms\"\ntries_timeout = \"50ms\"";
    let running = Running::start(&text(upstream, &[(silent, ""), (addresses[0], ""), (addresses[1], "")]));
    let mut client = device(running.address(), &hello("car").bytes()).await;
    expect_end(&mut client, &[0x20, 3, 0, 0x88, 0]).await;
    let fails: Vec<_> = rows(&running).iter().map(|row| row.fails).collect();
    assert_eq!(fails, [1, 0, 0]);
}

#[tokio::test]
async fn bounded_loads_pass_devices_on_and_pins_win() {
    let brokers = Broker::fleet::<3>().await;
    let running = Running::start(&config("", "hash_balance_factor = 1.0", &addresses(&brokers)));
    let mut held = Vec::new();
    let mut got = [0; 3];
    for n in 0..30 {
        let hello = hello(&format!("v{n}")).bytes();
        let client = device(running.address(), &hello).await;
        let (index, server) = whoever(&brokers).await;
        got[index] += 1;
        held.push((client, server));
    }
    assert_eq!(got, [10, 10, 10], "at 1.0 they are even");
    let overflow = |event: &Event| matches!(event, Event::GatewayConnected { chosen_by, .. } if **chosen_by == *"overflow");
    running.event(overflow).await;
    running.gateway.pin("brokers", "pinned", "s1").unwrap();
    for _ in 0..3 {
        held.push((device(running.address(), &hello("pinned").bytes()).await, brokers[1].accept().await));
    }
}
