//! What arrives at the gateway: empty client ids, streams that are no MQTT, silence, broken packets, balancers in front.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};

use mqtt::{ReasonCode, Version};

use crate::harness::address::{MQTT, at, own, source};
use crate::harness::fleet::{gateway, mosquittos};
use crate::harness::haproxy::Haproxy;
use crate::harness::{DEADLINE, Device, Site, Tidegate, device};

#[track_caller]
fn refused(gateway: &Tidegate, peer: SocketAddr) -> String {
    let peer = peer.to_string();
    let event = gateway.event("gateway_refused", |event| event["peer"] == peer);
    event["reason"].as_str().expect("a word").to_owned()
}

#[test]
fn an_empty_client_id_goes_by_the_listeners_rule_and_is_counted() {
    let mosquittos = mosquittos(2);
    let gateway = gateway(&mosquittos, "", "balance = \"client_id\"");
    let hello = device::connect(Version::V5, "");
    let held: Vec<_> = (0..6).map(|_| Device::connect(gateway.gate(), &hello)).collect();
    let rows =
        gateway.rest.connections(Some(""), &Default::default(), &Default::default()).expect("an answer");
    let servers: Vec<_> = rows.data.iter().map(|row| row.server.as_str()).collect();
    assert_eq!(servers.iter().filter(|server| **server == "mq1").count(), 3, "{servers:?}");
    assert!(rows.data.iter().all(|row| row.chosen_by == "round_robin"));
    let series = format!(
        "tidegate_gateway_without_key_total{{listener=\"tcp://{}\",reason=\"empty_client_id\"}}",
        gateway.gate()
    );
    assert_eq!(gateway.metric(&series), 6.0);
    for device in held {
        device.goodbye();
    }
    gateway.process.err.line_with(&["session", "clientid=\"\"", "without_key=\"empty_client_id\""]);
}

#[test]
fn a_listener_that_wants_client_ids_says_so() {
    let mosquittos = mosquittos(1);
    let gateway = gateway(&mosquittos, "on_empty_client_id = \"reject\"", "balance = \"client_id\"");
    for version in [Version::V31, Version::V311, Version::V5] {
        let mut device = Device::dial(gateway.gate());
        let connack = device.hello(&device::connect(version, ""));
        assert_eq!(connack.reason, ReasonCode::ClientIdentifierNotValid);
        let peer = device.local();
        device.expect_end();
        assert_eq!(refused(&gateway, peer), "empty_client_id");
    }
    Device::connect(gateway.gate(), &device::connect(Version::V5, "named")).goodbye();
}

#[test]
fn a_stream_that_is_no_mqtt_is_refused_or_passed_on_byte_for_byte() {
    let server = TcpListener::bind(at(own(), MQTT)).expect("an address of our own");
    let address = server.local_addr().expect("its address");
    let strict = Site::new("strict").gateway("", "", &[("any", address)]).start();
    let mut web = Device::dial(strict.gate());
    let peer = web.local();
    web.send_bytes(b"GET /mqtt HTTP/1.1\r\n\r\n");
    web.expect_end();
    assert_eq!(refused(&strict, peer), "not_mqtt");

    let open = Site::new("open").gateway("on_not_mqtt = \"round_robin\"", "", &[("any", address)]).start();
    let mut web = TcpStream::connect(open.gate()).expect("a connection");
    web.set_read_timeout(Some(DEADLINE)).expect("a socket option");
    web.write_all(b"GET /mqtt HTTP/1.1\r\n\r\n").expect("sent");
    let (mut served, _) = server.accept().expect("passed on");
    served.set_read_timeout(Some(DEADLINE)).expect("a socket option");
    let mut request = [0; 22];
    served.read_exact(&mut request).expect("all bytes");
    assert_eq!(&request, b"GET /mqtt HTTP/1.1\r\n\r\n");
    served.write_all(b"HTTP/1.1 200 OK\r\n\r\n").expect("sent");
    drop(served);
    let mut answer = String::new();
    web.read_to_string(&mut answer).expect("the answer and the end");
    assert_eq!(answer, "HTTP/1.1 200 OK\r\n\r\n");
    drop(web);
    open.process.err.line_with(&["session", "without_key=\"not_mqtt\"", "bytes_in=22", "bytes_out=19"]);
}

#[test]
fn a_device_that_does_not_say_who_it_is_has_so_much_time_and_no_more() {
    let mosquittos = mosquittos(1);
    let gateway = gateway(&mosquittos, "preread_timeout = \"300ms\"", "");
    let silent = Device::dial(gateway.gate());
    // One byte of a CONNECT buys no time.
    let mut slow = Device::dial(gateway.gate());
    slow.send_bytes(b"\x10");
    for device in [silent, slow] {
        let peer = device.local();
        device.expect_end();
        assert_eq!(refused(&gateway, peer), "preread_timeout");
    }
}

#[test]
fn a_connect_in_single_bytes_is_read_all_the_same() {
    let mosquittos = mosquittos(2);
    let gateway = gateway(&mosquittos, "", "balance = \"client_id\"");
    let mut bytes = Vec::new();
    let connect = mqtt::packet::Packet::Connect(Box::new(device::connect(Version::V311, "dribble")));
    mqtt::codec::encode::encode(&connect, Version::V311, &mut bytes).expect("a CONNECT");
    let mut device = Device::dial(gateway.gate());
    for byte in bytes {
        device.send_bytes(&[byte]);
    }
    assert!(matches!(device.receive(), mqtt::packet::Packet::Connack(_)));
    assert_eq!(gateway.connection("dribble").newest.chosen_by, "hash");
    device.goodbye();
}

#[test]
fn a_broken_connect_is_answered_with_its_reason_and_its_clause_is_told() {
    let mosquittos = mosquittos(1);
    let gateway = gateway(&mosquittos, "", "");
    // The reserved connect flag is set [MQTT-3.1.2-3].
    let mut broken = Device::dial(gateway.gate());
    let peer = broken.local();
    broken.speak(Version::V5);
    broken.send_bytes(b"\x10\x0e\x00\x04MQTT\x05\x03\x00\x3c\x00\x00\x01x");
    broken.expect_refusal(ReasonCode::MalformedPacket);
    assert_eq!(refused(&gateway, peer), "malformed");
    let event = gateway.event("protocol_violation", |event| event["peer"] == peer.to_string());
    assert_eq!((&event["clause"], &event["reason"]), (&"MQTT-3.1.2-3".into(), &"malformed_packet".into()));
    // Larger than the listener reads before it knows who it is.
    let mut large = Device::dial(gateway.gate());
    let peer = large.local();
    large.send_bytes(
        &[b"\x10\xff\xff\x7f\x00\x04MQTT\x04\x02\x00\x3c\xff\xff".as_slice(), &[b'x'; 20_000]].concat(),
    );
    large.expect_end();
    assert_eq!(refused(&gateway, peer), "malformed");
}

#[test]
fn more_connections_than_allowed_are_closed_and_counted() {
    let mosquittos = mosquittos(1);
    let gateway = gateway(&mosquittos, "max_connections = 2", "");
    let connect = |name| Device::connect(gateway.gate(), &device::connect(Version::V5, name));
    let (first, _second) = (connect("first"), connect("second"));
    let third = Device::dial(gateway.gate());
    let peer = third.local();
    third.expect_end();
    assert_eq!(refused(&gateway, peer), "max_connections");
    first.goodbye();
    gateway.gone("first");
    let listener = format!("tidegate_gateway_connections{{listener=\"tcp://{}\"}}", gateway.gate());
    crate::harness::eventually("room", || (gateway.metric(&listener) < 2.0).then_some(()));
    connect("third").goodbye();
}

/// A device → HAProxy → gateway → our broker: the device's address arrives over both hops.
fn the_real_address_passes_two_hops(haproxy_option: &str, version: &str) {
    let broker = Site::new("node1").broker("", "proxy_protocol = true").start();
    let upstream = format!("proxy_protocol = \"{version}\"");
    let gateway =
        Site::new("gateway").gateway("proxy_protocol = true", &upstream, &[("node1", broker.mqtt())]).start();
    let haproxy = Haproxy::start(gateway.gate(), haproxy_option);
    for (number, mqtt) in [(40, Version::V31), (41, Version::V311), (42, Version::V5)] {
        let clientid = format!("car-{number}");
        let (device, _) =
            Device::connect_from(source(number).into(), haproxy.listen(), &device::connect(mqtt, &clientid));
        let connection = gateway.connection(&clientid).newest;
        let client = broker.client(&clientid).expect("at the broker");
        assert_eq!(connection.peer, device.local().to_string());
        let via: SocketAddr = connection.via.expect("the balancer in front").parse().expect("an address");
        assert_eq!(via.ip(), haproxy.address);
        assert_eq!(client.peer, device.local().to_string());
        assert_eq!(client.via, Some(connection.local_address));
        // Version 1 has no room for an id.
        assert_eq!(client.unique_id, (version == "v2").then_some(connection.id));
        device.goodbye();
    }
}

#[test]
fn behind_haproxy_with_proxy_v1_the_real_address_arrives() {
    the_real_address_passes_two_hops("send-proxy", "v1");
}

#[test]
fn behind_haproxy_with_proxy_v2_the_real_address_arrives() {
    the_real_address_passes_two_hops("send-proxy-v2", "v2");
}

#[test]
fn a_client_that_comes_to_a_broker_without_the_balancers_header_is_told_of_in_a_sentence() {
    let broker = Site::new("node1").broker("", "proxy_protocol = true").start();
    let mut device = Device::dial(broker.mqtt());
    device.say_hello(&device::connect(Version::V5, "direct"));
    let peer = device.local().to_string();
    device.expect_end();
    let event = broker.event("client_refused", |event| event["peer"] == peer);
    assert_eq!(event["reason"], "proxy_header");
    assert!(event["detail"].as_str().is_some_and(|detail| detail.contains("balancer")), "{event}");
}

#[test]
fn haproxy_straight_before_a_broker_tells_the_real_address_too() {
    let broker = Site::new("node1").broker("", "proxy_protocol = true").start();
    let haproxy = Haproxy::start(broker.mqtt(), "send-proxy-v2");
    let (device, _) =
        Device::connect_from(source(9).into(), haproxy.listen(), &device::connect(Version::V5, "car-9"));
    let client = broker.client("car-9").expect("connected");
    assert_eq!(client.peer, device.local().to_string());
    assert!(client.via.expect("the balancer").starts_with(&haproxy.address.to_string()));
}

#[test]
fn a_header_from_a_stranger_is_refused() {
    let trusting = "proxy_protocol = true\ntrusted_proxies = [\"127.200.0.0/16\"]";
    let mosquittos = mosquittos(1);
    let gateway = gateway(&mosquittos, trusting, "");
    let header = b"PROXY TCP4 203.0.113.7 203.0.113.8 5000 1883\r\n";
    let mut forger = Device::dial_from(source(3).into(), gateway.gate());
    let peer = forger.local();
    forger.send_bytes(header);
    forger.expect_end();
    assert_eq!(refused(&gateway, peer), "proxy_header_untrusted");
    // The same from where it is believed.
    let mut proxy = Device::dial_from(Ipv4Addr::new(127, 200, 0, 1).into(), gateway.gate());
    proxy.send_bytes(header);
    proxy.hello(&device::connect(Version::V5, "believed"));
    assert_eq!(gateway.connection("believed").newest.peer, "203.0.113.7:5000");
    // From there a connection without a header is none.
    let mut missing = Device::dial_from(Ipv4Addr::new(127, 200, 0, 1).into(), gateway.gate());
    let peer = missing.local();
    missing.say_hello(&device::connect(Version::V5, "missing"));
    missing.expect_end();
    assert_eq!(refused(&gateway, peer), "proxy_header_missing");
    // And one with a broken header is none either.
    let mut broken = Device::dial_from(Ipv4Addr::new(127, 200, 0, 1).into(), gateway.gate());
    let peer = broken.local();
    broken.send_bytes(b"PROXY TCP4 203.0.113.777 203.0.113.8 5000 1883\r\n");
    broken.expect_end();
    assert_eq!(refused(&gateway, peer), "proxy_header_invalid");
}

#[test]
fn source_addresses_are_what_the_servers_see() {
    let mosquittos = mosquittos(1);
    let (one, two) = (own(), own());
    let upstream = format!("source_addresses = [\"{one}\", \"{two}\"]");
    let gateway = gateway(&mosquittos, "", &upstream);
    let mut seen = Vec::new();
    let held: Vec<_> = (0..8)
        .map(|number| {
            let clientid = format!("car-{number}");
            let device = Device::connect(gateway.gate(), &device::connect(Version::V5, &clientid));
            let local: SocketAddr =
                gateway.connection(&clientid).newest.local_address.parse().expect("an address");
            seen.push(local.ip());
            mosquittos[0]
                .process
                .err
                .line_with(&["New client connected from", &format!("{local} as {clientid} ")]);
            device
        })
        .collect();
    assert!([one, two].iter().all(|address| seen.contains(&(*address).into())), "{seen:?}");
    drop(held);
}
