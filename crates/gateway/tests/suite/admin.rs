//! What operators see and do.

use api::gateway::{ConnectionQuery, GatewayAdmin, UpstreamError};
use api::page::PageQuery;
use runtime::events::Event;

use crate::harness::{
    Broker, Nobody, Running, addresses, config, device, device_from, expect, hello, whoever,
};

fn ask(limit: usize, cursor: Option<String>) -> PageQuery {
    PageQuery { limit: Some(limit), cursor }
}

#[tokio::test]
async fn a_device_is_found_with_everything_about_it() {
    let broker = Broker::start().await;
    let running = Running::start(&config("", "", &[broker.address]));
    let hello = hello("car").username("fleet").bytes();
    let client = device(running.address(), &hello).await;
    let server = broker.accept_with(&hello).await;
    let rows = running.gateway.connection("car".to_owned()).await;
    let row = &rows[0];
    assert_eq!((rows.len(), &*row.clientid, row.username.as_deref()), (1, "car", Some("fleet")));
    assert_eq!(
        (row.proto_ver, &row.peer, &row.via),
        (Some(5), &client.local_addr().unwrap().to_string(), &None)
    );
    assert_eq!(row.listener, format!("tcp://{}", running.address()));
    assert_eq!((&*row.upstream, &*row.server, &*row.chosen_by), ("brokers", "s0", "hash"));
    assert_eq!(row.server_address, broker.address.to_string());
    assert_eq!(row.local_address, server.peer_addr().unwrap().to_string(), "what the server sees");
    assert_eq!((row.bytes_in, row.bytes_out), (hello.len() as u64, 0));
    assert!(row.connected_at.ends_with('Z') && row.connected_at.len() == 24, "{}", row.connected_at);
    assert!(running.gateway.connection("bus".to_owned()).await.is_empty());
}

#[tokio::test]
async fn the_newest_connection_of_a_client_id_comes_first() {
    let broker = Broker::start().await;
    let running = Running::start(&config("", "", &[broker.address]));
    let mut held = Vec::new();
    for _ in 0..3 {
        let client = device(running.address(), &hello("car").bytes()).await;
        held.push((broker.accept_with(&hello("car").bytes()).await, client));
        // sleep: two in the same millisecond are in the order of their ids, which two workers give
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    }
    let rows = running.gateway.connection("car".to_owned()).await;
    let got: Vec<_> = rows.iter().map(|row| row.peer.clone()).collect();
    let want: Vec<_> =
        held.iter().rev().map(|(_, client)| client.local_addr().unwrap().to_string()).collect();
    assert_eq!(got, want);
}

#[tokio::test]
async fn pages_of_connections_cover_all_workers_once_and_in_order() {
    let brokers = Broker::fleet::<2>().await;
    let running = Running::start(&config("", "balance = \"round_robin\"", &addresses(&brokers)));
    let mut held = Vec::new();
    for n in 0..25 {
        let hello = hello(&format!("v{:02}", n % 20)).bytes();
        let client = device(running.address(), &hello).await;
        let (_, mut server) = whoever(&brokers).await;
        // With its first bytes at the server the connection is in the list.
        expect(&mut server, &hello).await;
        held.push((server, client));
    }
    let (mut seen, mut cursor) = (Vec::new(), None);
    loop {
        let page = running.gateway.connections(ConnectionQuery::default(), ask(7, cursor)).await;
        assert!(page.data.len() <= 7);
        seen.extend(page.data.into_iter().map(|row| (row.clientid, row.id)));
        cursor = page.meta.cursor;
        if cursor.is_none() {
            break;
        }
    }
    let mut want: Vec<_> = (0..25).map(|n| format!("v{:02}", n % 20)).collect();
    want.sort();
    assert_eq!(seen.iter().map(|(id, _)| id.clone()).collect::<Vec<_>>(), want);
    let ids: std::collections::HashSet<_> = seen.iter().map(|(_, id)| id).collect();
    assert_eq!(ids.len(), 25);
    let only = |query: ConnectionQuery| running.gateway.connections(query, ask(100, None));
    let server = brokers[1].address.to_string();
    assert_eq!(only(ConnectionQuery { server: Some("s0".to_owned()), upstream: None }).await.data.len(), 13);
    assert_eq!(only(ConnectionQuery { server: Some(server), upstream: None }).await.data.len(), 12);
    let nowhere = ConnectionQuery { server: None, upstream: Some("other".to_owned()) };
    assert!(only(nowhere).await.data.is_empty());
}

#[tokio::test]
async fn a_pin_moves_a_device_at_its_next_connection() {
    let brokers = Broker::fleet::<4>().await;
    let running = Running::start(&config("", "", &addresses(&brokers)));
    let first = device(running.address(), &hello("car").bytes()).await;
    let (home, _server) = whoever(&brokers).await;
    let other = (home + 1) % 4;
    let pin = running.gateway.pin("brokers", "car", &format!("s{other}")).unwrap();
    assert_eq!((&*pin.key, &*pin.origin), ("car", "operator"));
    let _second = device_from("127.0.0.5", running.address(), &hello("car").bytes()).await;
    let (index, _server) = whoever(&brokers).await;
    assert_eq!(index, other);
    running
        .event(|event| matches!(event, Event::GatewayConnected { chosen_by, .. } if **chosen_by == *"pin"))
        .await;
    assert_eq!(running.gateway.unpin("brokers", "car"), Ok(true));
    assert_eq!(running.gateway.unpin("brokers", "car"), Ok(false));
    let _third = device(running.address(), &hello("car").bytes()).await;
    let (index, _server) = whoever(&brokers).await;
    assert_eq!(index, home);
    drop(first);
}

#[tokio::test]
async fn pins_have_a_bound_and_pages() {
    let broker = Broker::start().await;
    let running = Running::start(&config("", "max_pins = 5", &[broker.address]));
    for n in 0..5 {
        running.gateway.pin("brokers", &format!("v{n}"), "s0").unwrap();
    }
    assert_eq!(running.gateway.pin("brokers", "v5", "s0"), Err(UpstreamError::PinsFull));
    let first = running.gateway.pins("brokers", ask(3, None)).unwrap();
    let second = running.gateway.pins("brokers", ask(3, first.meta.cursor.clone())).unwrap();
    let keys: Vec<_> = first.data.iter().chain(&second.data).map(|pin| pin.key.clone()).collect();
    assert_eq!(keys, ["v0", "v1", "v2", "v3", "v4"]);
    assert_eq!(second.meta.cursor, None);
    assert_eq!(running.gateway.upstreams()[0].pins, 5);
}

#[tokio::test]
async fn a_device_that_failed_over_stays_where_the_rule_records_it() {
    let (nobody, brokers) = (Nobody::new(), Broker::fleet::<2>().await);
    let servers = [nobody.address, brokers[0].address, brokers[1].address];
    let running = Running::start(&config("", "pins = \"failover\"", &servers));
    for n in 0..30 {
        let hello = hello(&format!("v{n}")).bytes();
        let _client = device(running.address(), &hello).await;
        let (_, mut server) = whoever(&brokers).await;
        expect(&mut server, &hello).await;
    }
    let pins = running.gateway.pins("brokers", PageQuery::default()).unwrap().data;
    assert!(!pins.is_empty() && pins.len() < 30, "only those of the dead server: {}", pins.len());
    assert!(pins.iter().all(|pin| pin.origin == "recorded" && pin.server != "s0"));
    let fails = running.gateway.upstreams()[0].servers[0].fails;
    let hello = hello(&pins[0].key).bytes();
    let _client = device(running.address(), &hello).await;
    let (index, _server) = whoever(&brokers).await;
    assert_eq!(format!("s{}", index + 1), pins[0].server);
    assert_eq!(running.gateway.upstreams()[0].servers[0].fails, fails, "the dead server was not asked again");
}

#[tokio::test]
async fn what_is_not_there_is_said_so() {
    let broker = Broker::start().await;
    let running = Running::start(&config("", "", &[broker.address]));
    assert_eq!(running.gateway.drain("nowhere", "s0").unwrap_err(), UpstreamError::NoUpstream);
    assert_eq!(running.gateway.drain("brokers", "s9").unwrap_err(), UpstreamError::NoServer);
    assert_eq!(running.gateway.pin("brokers", "car", "s9").unwrap_err(), UpstreamError::NoServer);
    assert_eq!(running.gateway.pins("nowhere", ask(1, None)).unwrap_err(), UpstreamError::NoUpstream);
    assert_eq!(running.gateway.unpin("nowhere", "car").unwrap_err(), UpstreamError::NoUpstream);
}
