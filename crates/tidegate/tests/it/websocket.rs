//! MQTT over WebSocket: real clients, web servers and balancers in front, and peers that break its rules.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use mqtt::packet::{Packet, Publish};
use mqtt::{QoS, ReasonCode, Version};
use rustix::process::Signal;
use serde_json::json;

use crate::harness::address::{MQTT_2, at, source};
use crate::harness::frames::Frames;
use crate::harness::haproxy::Haproxy;
use crate::harness::nginx::Nginx;
use crate::harness::{DEADLINE, Device, Paho, Site, Tidegate, device, eventually, process, server};

/// A broker whose second listener speaks WebSocket, with further lines for it.
fn site(listener: &str) -> Site {
    let site = Site::new("node1");
    let ws = at(site.address, MQTT_2);
    let section = format!("\n[[broker.listeners]]\nbind = \"{ws}\"\ntransport = \"ws\"\n{listener}");
    site.broker("", &section)
}

fn broker(listener: &str) -> Tidegate {
    site(listener).start()
}

fn ws(broker: &Tidegate) -> SocketAddr {
    at(broker.site.address, MQTT_2)
}

#[track_caller]
fn connected(to: SocketAddr, version: Version, clientid: &str) -> Device {
    let mut device = Device::dial_ws(to);
    let connack = device.hello(&device::connect(version, clientid));
    assert_eq!(connack.reason, ReasonCode::Success);
    device
}

/// The device reads to the end; what the Close said.
#[track_caller]
fn close_code(device: &mut Device) -> Option<u16> {
    while let Some(packet) = device.receive_or_end() {
        assert!(matches!(packet, Packet::Disconnect(_) | Packet::Publish(_)), "{packet:?}");
    }
    device.frames().closed.expect("a Close before the end")
}

/// Sends a request and reads to the end of the answer.
#[track_caller]
fn http(to: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(to).expect("it listens");
    stream.set_read_timeout(Some(DEADLINE)).expect("a socket option");
    stream.write_all(request.as_bytes()).expect("sent");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("an answer and the end");
    String::from_utf8(answer).expect("text")
}

fn unharmed(broker: &Tidegate) {
    assert_eq!(broker.process.err.count(&["panicked"]), 0);
    let mut other = connected(ws(broker), Version::V5, "other");
    other.subscribe("other", QoS::AtLeastOnce);
    other.send(&Packet::Publish(device::message("other", "it works", QoS::AtMostOnce)));
    assert_eq!(device::payload(&other.message()), "it works");
    other.goodbye();
}

#[test]
fn paho_speaks_every_version_over_websocket() {
    let broker = broker("");
    let mut tcp = Paho::connected(broker.mqtt(), "over-tcp", 5);
    tcp.subscribe("out/#", 2);
    for protocol in [3, 4, 5] {
        let mut paho = Paho::over("websockets", &format!("web-{protocol}"), protocol, true);
        let connected = paho.connect(ws(&broker), &json!({}));
        assert_eq!(connected["reason"], 0, "{connected}");
        assert_eq!(paho.subscribe("in/#", 2), 2);
        for qos in 0..=2 {
            // longer than a frame with a short length, and than one with a medium one
            for length in [1, 1_000, 100_000] {
                let payload = "x".repeat(length);
                paho.publish(&format!("out/{protocol}"), &payload, qos, &json!({}));
                let message = tcp.message();
                assert_eq!((message.payload == payload, message.qos), (true, qos));
                tcp.publish("in/a", &payload, qos, &json!({}));
                let message = paho.message();
                assert_eq!((message.payload == payload, message.qos), (true, qos));
            }
        }
        let client = broker.client(&format!("web-{protocol}")).expect("connected");
        assert_eq!(client.listener, format!("ws://{}", ws(&broker)));
        paho.disconnect();
    }
    let accepted = "tidegate_broker_websocket_handshakes_total{result=\"accepted\"}";
    assert_eq!(broker.metric(accepted), 3.0);
}

/// [MQTT-6.0.0-2]
/// [v3 MQTT-6.0.0-2]
#[test]
fn packets_and_frames_are_cut_independently() {
    let broker = broker("");
    let mut bytes = Vec::new();
    let mut add = |packet: &Packet<'_>| {
        mqtt::codec::encode::encode(packet, Version::V5, &mut bytes).expect("a packet");
    };
    add(&Packet::Connect(Box::new(device::connect(Version::V5, "cut"))));
    add(&Packet::Publish(Publish { retain: true, ..device::message("kept", "there", QoS::AtMostOnce) }));
    add(&Packet::Pingreq);
    let frames = |size: usize| bytes.chunks(size).flat_map(Frames::binary).collect::<Vec<_>>();
    // all in one frame, a frame for each byte, frames in pieces of one byte
    for (frame_size, write_size) in [(1_000, 1_000), (1, 1_000), (7, 1), (1, 1)] {
        let mut device = Device::dial_ws(ws(&broker));
        device.speak(Version::V5);
        for piece in frames(frame_size).chunks(write_size) {
            device.send_raw(piece);
        }
        assert!(matches!(device.receive(), Packet::Connack(_)));
        assert_eq!(device.receive(), Packet::Pingresp);
        device.subscribe("kept", QoS::AtMostOnce);
        assert_eq!(device::payload(&device.message()), "there");
        device.goodbye();
    }
    // one message in fragments, with a ping between
    let mut device = Device::dial_ws(ws(&broker));
    device.speak(Version::V5);
    let (front, back) = bytes.split_at(5);
    let mut fragments = Frames::binary(front);
    fragments[0] = 0x02;
    fragments.extend(Frames::ping(b"between"));
    let mut last = Frames::binary(back);
    last[0] = 0x80;
    fragments.extend(last);
    device.send_raw(&fragments);
    assert!(matches!(device.receive(), Packet::Connack(_)));
    assert_eq!(device.receive(), Packet::Pingresp);
    assert_eq!(device.frames().pongs, [b"between"]);
    device.goodbye();
}

#[test]
fn frames_that_came_with_the_request_are_not_lost() {
    let broker = broker("");
    let (_, request) = net::ws::ClientHandshake::new("h", "/mqtt", [0; 16]);
    let mut hello = Vec::new();
    let connect = Packet::Connect(Box::new(device::connect(Version::V311, "eager")));
    mqtt::codec::encode::encode(&connect, Version::V311, &mut hello).expect("a packet");
    let mut stream = TcpStream::connect(ws(&broker)).expect("it listens");
    stream.set_read_timeout(Some(DEADLINE)).expect("a socket option");
    stream.write_all(&[request.as_bytes(), &Frames::binary(&hello)].concat()).expect("sent");
    broker.client_when("eager", |client| client.connected);
    let mut answer = vec![0; 1024];
    let count = stream.read(&mut answer).expect("an answer");
    assert!(answer[..count].starts_with(b"HTTP/1.1 101 "));
}

#[test]
fn both_sides_say_good_bye_in_the_words_of_websocket() {
    let mut broker = broker("");
    let mut watcher = Device::connect(broker.mqtt(), &device::connect(Version::V5, "watcher"));
    watcher.subscribe("will/#", QoS::AtLeastOnce);
    let with_will = |clientid: &str| {
        let mut connect = device::connect(Version::V5, clientid);
        connect.will = Some(device::will(&format!("will/{clientid}"), "gone"));
        let mut device = Device::dial_ws(ws(&broker));
        assert_eq!(device.hello(&connect).reason, ReasonCode::Success);
        device
    };
    // DISCONNECT: the broker closes normally, and there is no will [MQTT-3.1.2-10]
    let mut polite = with_will("polite");
    polite.send_bytes(&[0xE0, 0]);
    assert_eq!(close_code(&mut polite), Some(1000));
    // a Close without DISCONNECT is answered with its code; it is no good-bye of MQTT
    let mut tab = with_will("tab");
    tab.send_raw(&Frames::close(1001));
    assert_eq!(close_code(&mut tab), Some(1001));
    assert_eq!(watcher.message().topic, "will/tab");
    let event = broker.event("client_disconnected", |event| event["clientid"] == "tab");
    assert_eq!(
        (&event["reason"], &event["detail"]),
        (&"connection_lost".into(), &"closed by the client".into())
    );
    // the socket breaks
    drop(with_will("crash"));
    assert_eq!(watcher.message().topic, "will/crash");
    // taken over: DISCONNECT with its reason, then the Close
    let mut old = with_will("twice");
    let new = connected(ws(&broker), Version::V5, "twice");
    match old.receive() {
        Packet::Disconnect(disconnect) => assert_eq!(disconnect.reason, ReasonCode::SessionTakenOver),
        other => panic!("{other:?}"),
    }
    assert_eq!(close_code(&mut old), Some(1008));
    drop(new);
    // the broker stops
    let mut last = connected(ws(&broker), Version::V5, "last");
    broker.process.signal(Signal::TERM);
    match last.receive() {
        Packet::Disconnect(disconnect) => assert_eq!(disconnect.reason, ReasonCode::ServerShuttingDown),
        other => panic!("{other:?}"),
    }
    assert_eq!(close_code(&mut last), Some(1001));
    drop(last);
    assert!(broker.process.end().success());
}

/// [v3 MQTT-6.0.0-1]
#[test]
fn who_breaks_the_rules_of_websocket_is_told_and_closed() {
    let broker = broker("max_frame_size = \"64KiB\"");
    let mut text = Frames::binary(b"{\"hello\": \"mqtt\"}");
    text[0] = 0x81;
    let unmasked = [0x82, 2, 0xC0, 0];
    let large = [0x82, 0xFF, 0, 0, 0, 0, 0, 1, 0, 1];
    let reserved = [0xC2, 0x80, 0, 0, 0, 0];
    for (number, (frame, code, reason, clause)) in [
        // [MQTT-6.0.0-1]
        (&text[..], 1003, ReasonCode::ProtocolError, "MQTT-6.0.0-1"),
        (&unmasked, 1002, ReasonCode::ProtocolError, "RFC 6455"),
        (&large, 1009, ReasonCode::PacketTooLarge, "RFC 6455"),
        (&reserved, 1002, ReasonCode::ProtocolError, "RFC 6455"),
    ]
    .into_iter()
    .enumerate()
    {
        let clientid = format!("rude-{number}");
        let mut device = connected(ws(&broker), Version::V5, &clientid);
        device.send_raw(frame);
        match device.receive() {
            Packet::Disconnect(disconnect) => assert_eq!(disconnect.reason, reason),
            other => panic!("{other:?}"),
        }
        assert_eq!(close_code(&mut device), Some(code));
        let event = broker.event("protocol_violation", |event| event["clientid"] == clientid);
        assert_eq!(event["clause"], clause);
        // before CONNECT there is nothing to say it with but the Close
        let mut device = Device::dial_ws(ws(&broker));
        device.send_raw(frame);
        assert_eq!(close_code(&mut device), Some(code));
    }
    // a wrong packet in a right frame
    let mut device = connected(ws(&broker), Version::V5, "wrong");
    device.send_bytes(&[0x00, 0]);
    assert!(matches!(device.receive(), Packet::Disconnect(_)));
    assert_eq!(close_code(&mut device), Some(1002));
    unharmed(&broker);
}

#[test]
fn a_request_that_asks_for_something_else_gets_its_status() {
    let broker = broker("path = \"/mqtt/v1\"\nallowed_origins = [\"https://fleet.example\"]");
    let request = |path: &str, more: &str| {
        format!(
            "GET {path} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n{more}\r\n"
        )
    };
    let mqtt = "Sec-WebSocket-Protocol: mqtt\r\n";
    let foreign = format!("{mqtt}Origin: https://evil.example\r\n");
    let long = format!("{mqtt}Cookie: {}\r\n", "c".repeat(9_000));
    for (request, status) in [
        (request("/mqtt", mqtt), "404 Not Found"),
        (request("/mqtt/v1", ""), "400 Bad Request"),
        (request("/mqtt/v1", &foreign), "403 Forbidden"),
        (request("/mqtt/v1", &long), "431 Request Header Fields Too Large"),
        ("POST /mqtt/v1 HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(), "405 Method Not Allowed"),
        ("GET /mqtt/v1 HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(), "426 Upgrade Required"),
        ("\u{10}\u{c}\0\u{4}MQTT\u{4}\u{2}\0\u{3c}\0\0".to_owned(), "400 Bad Request"),
        ("PROXY TCP4 203.0.113.7 203.0.113.8 5000 1883\r\n\r\n".to_owned(), "400 Bad Request"),
    ] {
        let answer = http(ws(&broker), &request);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{request}{answer}");
        let code = format!("{}:", &status[..3]);
        broker.event("client_refused", |event| {
            event["reason"] == "websocket_handshake" && event["detail"].as_str().unwrap().starts_with(&code)
        });
    }
    let refused = "tidegate_broker_websocket_handshakes_total{result=\"refused\"}";
    assert_eq!(broker.metric(refused), 8.0);
    assert_eq!(broker.metric("tidegate_broker_connections_refused_total"), 8.0);
}

#[test]
fn handshake_and_connect_share_the_time_that_a_connection_has() {
    let site = Site::new("node1");
    let listener = at(site.address, MQTT_2);
    let lines = format!("\n[[broker.listeners]]\nbind = \"{listener}\"\ntransport = \"ws\"");
    let broker = site.broker("connect_timeout = \"500ms\"", &lines).start();
    // silent, in the middle of the request, dribbling, in the middle of CONNECT
    let silent = Device::dial(ws(&broker));
    let mut half = Device::dial(ws(&broker));
    half.send_bytes(b"GET /mqtt HTTP/1.1\r\nHost: x\r\nX-Slow: ");
    let mut late = Device::dial_ws(ws(&broker));
    late.send_bytes(&[0x10]);
    half.expect_end();
    silent.expect_end();
    assert_eq!(close_code(&mut late), Some(1008));
    let timed_out =
        broker.events("client_refused").iter().filter(|e| e["reason"] == "connect_timeout").count();
    assert_eq!(timed_out, 3);
    let series = "tidegate_broker_websocket_handshakes_total{result=\"timed_out\"}";
    assert_eq!(broker.metric(series), 2.0);
    eventually("they are gone", || (broker.metric("tidegate_broker_connections") == 0.0).then_some(()));
}

#[test]
fn a_flood_of_pings_costs_no_memory_and_the_newest_is_answered() {
    let broker = broker("");
    let status = || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", broker.process.id())).expect("alive");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
        line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") / 1024
    };
    let before = status();
    let mut flood = connected(ws(&broker), Version::V5, "flood");
    let many = Frames::ping(&[7; 125]).repeat(8_000);
    for _ in 0..16 {
        // 16 MiB in all; no pong is read meanwhile
        flood.send_raw(&many);
    }
    flood.send_raw(&Frames::ping(b"the last"));
    flood.nothing_more();
    let pongs = &flood.frames().pongs;
    assert_eq!(pongs.last().map(Vec::as_slice), Some(&b"the last"[..]));
    assert!(pongs.len() < 16 * 8_000 / 10, "{} pongs", pongs.len());
    let grown = status().saturating_sub(before);
    assert!(grown < 16, "{grown} MiB for pings");
    flood.goodbye();
    unharmed(&broker);
}

/// Half frames, wherever they end, and half requests: the doors close, nobody else notices.
#[test]
fn connections_that_break_off_anywhere_are_forgotten() {
    let broker = broker("");
    let (_, request) = net::ws::ClientHandshake::new("h", "/mqtt", [0; 16]);
    let mut bytes = request.into_bytes();
    bytes.extend(Frames::ping(b"ping"));
    bytes.extend(Frames::binary(b"\x10\x0d\0\x04MQTT\x04\x02\0\x3c\0\x01x\xC0\0"));
    for cut in 0..bytes.len() {
        let mut stream = TcpStream::connect(ws(&broker)).expect("it listens");
        stream.write_all(&bytes[..cut]).expect("sent");
    }
    eventually("they are gone", || (broker.metric("tidegate_broker_connections") == 0.0).then_some(()));
    unharmed(&broker);
}

#[test]
fn behind_nginx_the_real_address_comes_from_x_forwarded_for() {
    let broker = broker("proxy_address_header = \"X-Forwarded-For\"\nproxy_port_header = \"X-Client-Port\"");
    let nginx = Nginx::start(
        ws(&broker),
        "proxy_set_header X-Forwarded-For \"198.51.100.1, $proxy_add_x_forwarded_for\";\n\
         proxy_set_header X-Client-Port $remote_port;",
    );
    // the device's own address is of 127.0.0.0/8, which is trusted: behind it stands what it says of itself
    let mut device = Device::dial_ws_from(source(21).into(), nginx.listen());
    device.hello(&device::connect(Version::V5, "web"));
    let client = broker.client("web").expect("connected");
    assert_eq!(client.peer, format!("198.51.100.1:{}", device.local().port()));
    let via: SocketAddr = client.via.expect("nginx").parse().expect("an address");
    assert_eq!(via.ip(), nginx.address);
    device.subscribe("a", QoS::AtMostOnce);
    device.goodbye();
}

#[test]
fn only_trusted_proxies_are_believed_and_garbage_is_counted() {
    let broker = broker("proxy_address_header = \"X-Forwarded-For\"\ntrusted_proxies = [\"127.200.0.0/16\"]");
    let request = |forwarded: &str| {
        let (_, request) = net::ws::ClientHandshake::new("h", "/mqtt", [0; 16]);
        request.replacen("\r\n\r\n", &format!("\r\nX-Forwarded-For: {forwarded}\r\n\r\n"), 1)
    };
    let peer = |from: std::net::Ipv4Addr, clientid: &str, forwarded: &str| {
        let mut device = Device::dial_from(from.into(), ws(&broker));
        device.send_bytes(request(forwarded).as_bytes());
        let mut hello = Vec::new();
        let connect = Packet::Connect(Box::new(device::connect(Version::V311, clientid)));
        mqtt::codec::encode::encode(&connect, Version::V311, &mut hello).expect("a packet");
        device.send_bytes(&Frames::binary(&hello));
        let peer = broker.client_when(clientid, |client| client.connected).peer;
        (peer, device.local().to_string())
    };
    let proxy = std::net::Ipv4Addr::new(127, 200, 0, 1);
    let ignored = "tidegate_broker_forwarded_addresses_ignored_total";
    assert_eq!(peer(proxy, "believed", "10.0.0.1, 203.0.113.7").0, "203.0.113.7:0");
    let (seen, own) = peer(source(5), "stranger", "203.0.113.7");
    assert_eq!(seen, own);
    assert_eq!(broker.metric(ignored), 0.0);
    let (seen, own) = peer(proxy, "garbage", "203.0.113.7, <script>");
    assert_eq!(seen, own);
    assert_eq!(broker.metric(ignored), 1.0);
}

#[test]
fn behind_haproxy_the_real_address_comes_by_proxy_protocol_or_by_http() {
    let proxied = broker("proxy_protocol = true");
    let haproxy = Haproxy::start(ws(&proxied), "send-proxy-v2");
    let mut device = Device::dial_ws_from(source(31).into(), haproxy.listen());
    device.hello(&device::connect(Version::V5, "tcp-mode"));
    assert_eq!(proxied.client("tcp-mode").expect("connected").peer, device.local().to_string());
    device.goodbye();

    let forwarded = broker("proxy_address_header = \"X-Forwarded-For\"");
    let mode = "mode http\n    option forwardfor\n    timeout tunnel 60s";
    let haproxy = Haproxy::in_mode(mode, ws(&forwarded), "");
    let mut device = Device::dial_ws_from(source(32).into(), haproxy.listen());
    device.hello(&device::connect(Version::V5, "http-mode"));
    let client = forwarded.client("http-mode").expect("connected");
    assert_eq!(client.peer, format!("{}:0", device.local().ip()));
    assert!(client.via.expect("haproxy").starts_with(&haproxy.address.to_string()));
    device.goodbye();
}

#[test]
fn a_listener_may_change_its_transport_while_connections_go_on() {
    let site = Site::new("node1");
    let bind = at(site.address, MQTT_2);
    let section =
        |transport: &str| format!("[broker]\n[[broker.listeners]]\nbind = \"{bind}\"\n{transport}\n");
    let broker = site.sections(&section("transport = \"ws\"")).start();
    let mut web = connected(bind, Version::V5, "web");
    broker.site.write(&section(""));
    broker.process.signal(Signal::HUP);
    broker.event("listener_started", |event| event["listener"] == format!("tcp://{bind}"));
    Device::connect(bind, &device::connect(Version::V5, "plain")).goodbye();
    web.nothing_more();
    web.goodbye();
}

#[test]
fn the_command_line_client_speaks_websocket_too() {
    let broker = broker("");
    let (host, port) = (broker.site.address.to_string(), MQTT_2.to_string());
    let url = format!("ws://{host}:{port}/mqtt");
    let run = |arguments: &[&str]| {
        let output = process::run(&mut server::tidegate(arguments));
        assert!(output.status.success(), "{arguments:?}: {}", process::text(&output.stderr));
        process::text(&output.stdout)
    };
    run(&["pub", "-h", &host, "-p", &port, "--ws", "-t", "kept", "-m", "by flag", "-r", "-q", "2"]);
    assert_eq!(run(&["sub", "-L", &url, "-t", "kept", "-C", "1", "-V", "5"]), "by flag\n");
    let refused =
        server::tidegate(&["pub", "-L", &format!("ws://{host}:{port}/other"), "-t", "t", "-m", "m"]);
    let output = process::run(&mut { refused });
    let said = process::text(&output.stderr);
    assert!(!output.status.success() && said.contains("404 (Not Found)"), "{said}");
}
