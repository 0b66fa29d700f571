//! New configurations while devices are connected.

use api::gateway::GatewayAdmin;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::harness::{Broker, Running, addresses, config, device, eventually, expect, hello, parse, whoever};

async fn talk(client: &mut TcpStream, server: &mut TcpStream) {
    client.write_all(b"ping").await.unwrap();
    expect(server, b"ping").await;
    server.write_all(b"pong").await.unwrap();
    expect(client, b"pong").await;
}

#[tokio::test]
async fn connections_stay_whatever_changes() {
    let brokers = Broker::fleet::<2>().await;
    let running = Running::start(&config("", "", &addresses(&brokers[..1])));
    let mut client = device(running.address(), &hello("car").bytes()).await;
    let mut server = brokers[0].accept_with(&hello("car").bytes()).await;
    let before = running.address();

    // Another server under another name, another balancing, another bound.
    let text = config("max_connections = 7", "balance = \"round_robin\"", &addresses(&brokers[1..]));
    let text = text.replace("\"s0\"", "\"s1\"");
    let changes = running.gateway.apply(parse(&text)).unwrap();
    assert_eq!(
        changes,
        [
            "listener 127.0.0.1:0 changed",
            "upstream brokers: server s1 added",
            "upstream brokers: server s0 removed: it drains",
            "upstream brokers: balance is round_robin instead of client_id",
        ]
    );
    assert_eq!(running.address(), before, "the listener stayed");
    talk(&mut client, &mut server).await;
    let _new = device(running.address(), &hello("bus").bytes()).await;
    brokers[1].accept_with(&hello("bus").bytes()).await;

    // The removed server is shown until its last connection ends.
    let rows = running.gateway.upstreams();
    let shown: Vec<_> =
        rows[0].servers.iter().map(|row| (&*row.name, &*row.state, row.weight, row.connections)).collect();
    assert_eq!(shown, [("s1", "up", 1, 1), ("s0", "draining", 0, 1)]);
    assert_eq!(running.gateway.connection("car".to_owned()).await[0].server, "s0");
    talk(&mut client, &mut server).await;
    drop((client, server));
    eventually(|| (running.gateway.upstreams()[0].servers.len() == 1).then_some(())).await;
}

/// Devices come all the while the configuration changes under them: none is turned away.
#[tokio::test]
async fn nobody_is_refused_while_configurations_change() {
    let brokers = Broker::fleet::<3>().await;
    let text =
        |count: usize, tries: usize| config("", &format!("tries = {tries}"), &addresses(&brokers[..count]));
    let running = Running::start(&text(3, 1));
    let address = running.address();
    let devices = tokio::spawn(async move {
        let mut held = Vec::new();
        for n in 0..300 {
            held.push(device(address, &hello(&format!("v{n}")).bytes()).await);
        }
        held
    });
    let mut accepted = Vec::new();
    for n in 0..300 {
        if n % 10 == 0 {
            running.gateway.apply(parse(&text(1 + n / 10 % 3, 1 + n / 10 % 2))).unwrap();
        }
        accepted.push(whoever(&brokers).await);
    }
    let held = devices.await.unwrap();
    assert_eq!((held.len(), accepted.len()), (300, 300));
    let refused =
        |event: &runtime::events::Event| matches!(event, runtime::events::Event::GatewayRefused { .. });
    assert_eq!(running.count(refused), 0);
}

/// What holds for a device is what holds when it says who it is: until then it has no server.
#[tokio::test]
async fn a_device_that_was_about_to_speak_goes_by_the_new_configuration() {
    let brokers = Broker::fleet::<2>().await;
    let text = |broker: &Broker, upstream: &str| config("", upstream, &[broker.address]);
    let running = Running::start(&text(&brokers[0], ""));
    let mut silent = device(running.address(), b"").await;
    let mut halfway = device(running.address(), &hello("bus").username("fleet").bytes()[..9]).await;
    running
        .metric(&format!("tidegate_gateway_connections{{listener=\"tcp://{}\"}} 2", running.address()))
        .await;
    running.gateway.apply(parse(&text(&brokers[1], "balance = \"username\"").replace("s0", "s1"))).unwrap();
    silent.write_all(&hello("car").bytes()).await.unwrap();
    brokers[1].accept_with(&hello("car").bytes()).await;
    halfway.write_all(&hello("bus").username("fleet").bytes()[9..]).await.unwrap();
    brokers[1].accept_with(&hello("bus").username("fleet").bytes()).await;
    let rows = eventually_connected(&running, "bus").await;
    assert_eq!((rows.server.as_str(), rows.chosen_by.as_str()), ("s1", "hash"));
}

async fn eventually_connected(running: &Running, clientid: &str) -> api::gateway::Connection {
    crate::harness::soon(async {
        loop {
            if let Some(row) = running.gateway.connection(clientid.to_owned()).await.pop() {
                return row;
            }
            tokio::task::yield_now().await;
        }
    })
    .await
}

#[tokio::test]
async fn the_same_configuration_changes_nothing() {
    let broker = Broker::start().await;
    let text = config("", "", &[broker.address]);
    let running = Running::start(&text);
    assert!(running.gateway.apply(parse(&text)).unwrap().is_empty());
}

#[tokio::test]
async fn counters_and_drains_survive_and_so_do_pins_of_kept_servers() {
    let brokers = Broker::fleet::<3>().await;
    let running = Running::start(&config("", "", &addresses(&brokers)));
    for n in 0..9 {
        let hello = hello(&format!("v{n}")).bytes();
        let _client = device(running.address(), &hello).await;
        let (_, mut server) = whoever(&brokers).await;
        expect(&mut server, &hello).await;
    }
    let total = |running: &Running| -> u64 {
        running.gateway.upstreams()[0].servers.iter().map(|row| row.connections_total).sum()
    };
    eventually(|| (total(&running) == 9).then_some(())).await;
    running.gateway.drain("brokers", "s0").unwrap();
    running.gateway.pin("brokers", "kept", "s1").unwrap();
    running.gateway.pin("brokers", "lost", "s2").unwrap();
    let before: Vec<_> =
        running.gateway.upstreams()[0].servers[..2].iter().map(|row| row.connections_total).collect();

    let changes = running.gateway.apply(parse(&config("", "tries = 1", &addresses(&brokers[..2])))).unwrap();
    assert_eq!(
        changes,
        ["upstream brokers: server s2 removed: it drains", "upstream brokers: settings changed"]
    );
    let rows = running.gateway.upstreams();
    let after: Vec<_> = rows[0].servers[..2].iter().map(|row| row.connections_total).collect();
    assert_eq!(after, before);
    assert_eq!((&*rows[0].servers[0].state, &*rows[0].servers[1].state), ("draining", "up"));
    let pins = running.gateway.pins("brokers", api::page::PageQuery::default()).unwrap();
    assert_eq!(pins.data.iter().map(|pin| &*pin.key).collect::<Vec<_>>(), ["kept"]);
    // Back again: up, whatever it was.
    running.gateway.apply(parse(&config("", "", &addresses(&brokers)))).unwrap();
    assert_eq!(running.gateway.upstreams()[0].servers[2].state, "up");
}

#[tokio::test]
async fn a_removed_listener_accepts_no_more_and_its_port_is_free() {
    let broker = Broker::start().await;
    let (one, two) = (free_port(), free_port());
    let both = |ports: &[u16]| {
        let listeners: String = ports
            .iter()
            .map(|port| format!("[[gateway.listeners]]\nbind = \"127.0.0.1:{port}\"\nupstream = \"b\"\n"))
            .collect();
        format!(
            "[gateway]\n{listeners}[[gateway.upstreams]]\nname = \"b\"\nservers = [ {{ address = \"{}\" }} ]\n",
            broker.address
        )
    };
    let running = Running::start(&both(&[one]));
    let at = |port: u16| std::net::SocketAddr::from(([127, 0, 0, 1], port));
    let mut client = device(at(one), &hello("car").bytes()).await;
    let mut server = broker.accept_with(&hello("car").bytes()).await;
    let changes = running.gateway.apply(parse(&both(&[two]))).unwrap();
    assert_eq!(changes.len(), 2, "{changes:?}");
    assert!(TcpStream::connect(at(one)).await.is_err(), "it accepts no more");
    talk(&mut client, &mut server).await;
    let _new = device(at(two), &hello("bus").bytes()).await;
    broker.accept_with(&hello("bus").bytes()).await;
    running.gateway.apply(parse(&both(&[one, two]))).unwrap();
    let _again = device(at(one), &hello("van").bytes()).await;
    broker.accept_with(&hello("van").bytes()).await;
    assert!(running.readiness.ready().is_ok());
}

#[tokio::test]
async fn a_listener_that_cannot_be_bound_changes_nothing() {
    let brokers = Broker::fleet::<2>().await;
    let running = Running::start(&config("", "", &addresses(&brokers[..1])));
    let holder = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = holder.local_addr().unwrap();
    let text = config("", "", &addresses(&brokers[1..])).replace(
        "[[gateway.upstreams]]",
        &format!("[[gateway.listeners]]\nbind = \"{taken}\"\nupstream = \"brokers\"\n[[gateway.upstreams]]"),
    );
    let error = running.gateway.apply(parse(&text)).unwrap_err().to_string();
    assert!(error.contains(&taken.to_string()) && error.contains("in use"), "{error}");
    assert_eq!(running.gateway.local_addrs().len(), 1);
    let _client = device(running.address(), &hello("car").bytes()).await;
    brokers[0].accept_with(&hello("car").bytes()).await;
}

/// A port that was free a moment ago.
fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}
