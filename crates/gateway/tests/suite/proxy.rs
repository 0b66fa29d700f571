//! PROXY headers in and out.

use std::net::SocketAddr;

use net::proxy_protocol::{Command, Header, Parsed, Version, encode_v1, encode_v2, encode_v2_local, parse};
use runtime::events::Event;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use crate::harness::{Broker, Running, config, device, device_from, expect, expect_end, hello, soon};

const IN: &str = "proxy_protocol = true";
const DEVICE: &str = "203.0.113.7:4711";
const FRONT: &str = "198.51.100.1:8883";

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// The header at the front of a stream; what follows must be `rest`, which came in the same write.
async fn header(server: &mut TcpStream, rest: &[u8]) -> Header {
    let mut bytes = Vec::new();
    loop {
        if let Parsed::Header(header, consumed) = parse(&bytes).unwrap() {
            assert_eq!(&bytes[consumed..], rest, "header and CONNECT come together");
            return header;
        }
        assert_ne!(soon(server.read_buf(&mut bytes)).await.unwrap(), 0, "closed within the header");
    }
}

#[tokio::test]
async fn the_broker_learns_the_devices_address_and_the_connections_id() {
    for (out, version) in [("v1", Version::V1), ("v2", Version::V2)] {
        let broker = Broker::start().await;
        let text = config("", &format!("proxy_protocol = \"{out}\""), &[broker.address]);
        let running = Running::start(&text);
        let hello = hello("car").bytes();
        let client = device_from("127.0.0.77", running.address(), &hello).await;
        let header = header(&mut broker.accept().await, &hello).await;
        assert_eq!((header.version, header.command), (version, Command::Proxy));
        assert_eq!(header.source, Some(client.local_addr().unwrap()));
        assert_eq!(header.destination, Some(running.address()));
        if version == Version::V2 {
            let rows = api::gateway::GatewayAdmin::connection(&running.gateway, "car".to_owned()).await;
            assert_eq!(header.unique_id, Some(rows[0].id.clone().into_bytes()));
        }
    }
}

#[tokio::test]
async fn a_trusted_balancer_in_front_is_believed_and_passed_on() {
    let broker = Broker::start().await;
    let running = Running::start(&config(IN, "proxy_protocol = \"v2\"", &[broker.address]));
    let hello = hello("car").bytes();
    for version in 1..=2 {
        let mut bytes = Vec::new();
        match version {
            1 => encode_v1(address(DEVICE), address(FRONT), &mut bytes),
            _ => drop(encode_v2(address(DEVICE), address(FRONT), &[], &mut bytes)),
        }
        bytes.extend(&hello);
        let client = device(running.address(), &bytes).await;
        let mut server = broker.accept().await;
        let header = header(&mut server, &hello).await;
        assert_eq!((header.source, header.destination), (Some(address(DEVICE)), Some(address(FRONT))));
        let rows = api::gateway::GatewayAdmin::connection(&running.gateway, "car".to_owned()).await;
        assert_eq!(rows[0].peer, DEVICE);
        assert_eq!(rows[0].via, Some(client.local_addr().unwrap().to_string()));
        let connected =
            |event: &Event| matches!(event, Event::GatewayConnected { peer, .. } if *peer == address(DEVICE));
        running.event(connected).await;
    }
}

#[tokio::test]
async fn the_balancers_own_connections_keep_their_address() {
    let broker = Broker::start().await;
    let running = Running::start(&config(IN, "", &[broker.address]));
    let mut bytes = Vec::new();
    encode_v2_local(&mut bytes);
    let hello = hello("probe").bytes();
    bytes.extend(&hello);
    let client = device(running.address(), &bytes).await;
    let _server = broker.accept_with(&hello).await;
    let rows = api::gateway::GatewayAdmin::connection(&running.gateway, "probe".to_owned()).await;
    assert_eq!((&rows[0].peer, &rows[0].via), (&client.local_addr().unwrap().to_string(), &None));
}

#[tokio::test]
async fn a_header_from_elsewhere_is_refused_and_counted() {
    let broker = Broker::start().await;
    let listener = format!("{IN}\ntrusted_proxies = [\"192.0.2.0/24\"]");
    let running = Running::start(&config(&listener, "", &[broker.address]));
    for version in 1..=2 {
        let mut bytes = Vec::new();
        match version {
            1 => encode_v1(address(DEVICE), address(FRONT), &mut bytes),
            _ => drop(encode_v2(address(DEVICE), address(FRONT), &[], &mut bytes)),
        }
        bytes.extend(hello("liar").bytes());
        expect_end(&mut device(running.address(), &bytes).await, b"").await;
    }
    let listener = running.address();
    running
        .metric(&format!(
            "tidegate_gateway_refused_total{{listener=\"tcp://{listener}\",reason=\"proxy_header_untrusted\"}} 2"
        ))
        .await;
    // Who is not trusted and does not claim to be is a device like any other.
    let hello = hello("honest").bytes();
    let _client = device(running.address(), &hello).await;
    broker.accept_with(&hello).await;
}

#[tokio::test]
async fn a_trusted_address_without_a_right_header_is_refused() {
    let broker = Broker::start().await;
    let running = Running::start(&config(IN, "", &[broker.address]));
    expect_end(&mut device(running.address(), &hello("car").bytes()).await, b"").await;
    running.refused("proxy_header_missing").await;
    expect_end(&mut device(running.address(), b"PROXY TCP4 1.2.3 4.5.6.7 1 2\r\n").await, b"").await;
    running.refused("proxy_header_invalid").await;
    drop(device(running.address(), b"PROXY TC").await);
    running.refused("closed_early").await;
}

#[tokio::test]
async fn without_the_option_a_header_is_no_mqtt() {
    let broker = Broker::start().await;
    let running = Running::start(&config("", "", &[broker.address]));
    let mut bytes = Vec::new();
    encode_v1(address(DEVICE), address(FRONT), &mut bytes);
    expect_end(&mut device(running.address(), &bytes).await, b"").await;
    running.refused("not_mqtt").await;
}

#[tokio::test]
async fn balancing_by_address_sees_the_device_and_not_the_balancer() {
    let brokers = Broker::fleet::<4>().await;
    let text = config(IN, "balance = \"source_ip\"", &crate::harness::addresses(&brokers));
    let running = Running::start(&text);
    let mut servers = std::collections::HashSet::new();
    for host in 1..40 {
        let mut first = None;
        for port in [1_000, 2_000] {
            let mut bytes = Vec::new();
            encode_v1(address(&format!("203.0.113.{host}:{port}")), address(FRONT), &mut bytes);
            let hello = hello(&format!("{host}-{port}")).bytes();
            bytes.extend(&hello);
            let _client = device(running.address(), &bytes).await;
            let (index, mut server) = crate::harness::whoever(&brokers).await;
            expect(&mut server, &hello).await;
            assert_eq!(*first.get_or_insert(index), index, "203.0.113.{host}");
            servers.insert(index);
        }
    }
    assert_eq!(servers.len(), 4);
}
