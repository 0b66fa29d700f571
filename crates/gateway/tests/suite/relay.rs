//! What one side sends, the other gets: bytes, half-closes, pressure, ends.

use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use api::gateway::{Connection, GatewayAdmin};
use runtime::events::Event;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::harness::{Broker, Running, config, device, eventually, expect, expect_end, hello, soon};

/// A gateway before one broker, and a device that got through.
async fn pair(listener: &str) -> (Running, tokio::net::TcpStream, tokio::net::TcpStream) {
    let broker = Broker::start().await;
    let running = Running::start(&config(listener, "", &[broker.address]));
    let hello = hello("car").bytes();
    let client = device(running.address(), &hello).await;
    let server = broker.accept_with(&hello).await;
    (running, client, server)
}

async fn end(running: &Running) -> (String, u64, u64) {
    match running.event(|event| matches!(event, Event::GatewayDisconnected { .. })).await {
        Event::GatewayDisconnected { reason, bytes_in, bytes_out, .. } => {
            (reason.to_string(), bytes_in, bytes_out)
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn bytes_go_both_ways_and_are_counted() {
    let (running, mut client, mut server) = pair("").await;
    server.write_all(&[0x20, 3, 0, 0, 0]).await.unwrap();
    expect(&mut client, &[0x20, 3, 0, 0, 0]).await;
    client.write_all(&[0xC0, 0]).await.unwrap();
    expect(&mut server, &[0xC0, 0]).await;
    drop(client);
    expect_end(&mut server, b"").await;
    drop(server);
    let hello = hello("car").bytes().len() as u64;
    assert_eq!(end(&running).await, ("client_closed".to_owned(), hello + 2, 5));
    let sent = r#"tidegate_gateway_server_sent_bytes_total{upstream="brokers",server="s0"}"#;
    running.metric(&format!("{sent} {}", hello + 2)).await;
    running.metric(r#"tidegate_gateway_server_connections{upstream="brokers",server="s0"} 0"#).await;
}

#[tokio::test]
async fn a_closed_half_is_passed_on_and_the_other_half_lives() {
    let (running, mut client, mut server) = pair("").await;
    client.write_all(b"last words").await.unwrap();
    client.shutdown().await.unwrap();
    expect_end(&mut server, b"last words").await;
    for _ in 0..3 {
        server.write_all(b"still here").await.unwrap();
        expect(&mut client, b"still here").await;
    }
    server.shutdown().await.unwrap();
    expect_end(&mut client, b"").await;
    assert_eq!(end(&running).await.0, "client_closed");
}

/// Nothing may follow a DISCONNECT, in either direction: the server need not close first.
#[tokio::test]
async fn a_client_that_said_disconnect_and_closed_ends_both_sides() {
    for goodbye in [&[0xE0, 0][..], &[0xE0, 2, 4, 0]] {
        let (running, mut client, mut server) = pair("").await;
        server.write_all(&[0x20, 3, 0, 0, 0]).await.unwrap();
        expect(&mut client, &[0x20, 3, 0, 0, 0]).await;
        client.write_all(goodbye).await.unwrap();
        drop(client);
        // The server says nothing and stays, and the connection is over all the same.
        let sent = (hello("car").bytes().len() + goodbye.len()) as u64;
        assert_eq!(end(&running).await, ("client_closed".to_owned(), sent, 5));
        expect_end(&mut server, goodbye).await;
    }
}

/// To close with bytes of the server unread would be a reset, and the server might lose the DISCONNECT.
#[tokio::test]
async fn a_server_gets_a_disconnect_though_it_sends_all_the_while() {
    let (running, mut client, server) = pair("").await;
    let (mut reader, mut writer) = server.into_split();
    let flood = tokio::spawn(async move { while writer.write_all(&[0; 65_536]).await.is_ok() {} });
    stalled(&running, |row| row.bytes_out).await;
    client.write_all(&[0xE0, 0]).await.unwrap();
    client.shutdown().await.unwrap();
    let mut got = [0; 3];
    soon(reader.read_exact(&mut got[..2])).await.unwrap();
    assert_eq!(got, [0xE0, 0, 0]);
    assert_eq!(soon(reader.read(&mut got)).await.unwrap(), 0, "an end and no reset");
    drop(client);
    flood.await.unwrap();
    end(&running).await;
}

#[tokio::test]
async fn a_disconnect_in_a_stream_that_is_not_mqtt_is_bytes_like_any_other() {
    let broker = Broker::start().await;
    let running = Running::start(&config("on_not_mqtt = \"round_robin\"", "", &[broker.address]));
    let mut client = device(running.address(), b"hello").await;
    let mut server = broker.accept_with(b"hello").await;
    client.write_all(&[0xE0, 0]).await.unwrap();
    client.shutdown().await.unwrap();
    expect_end(&mut server, &[0xE0, 0]).await;
    server.write_all(b"still here").await.unwrap();
    expect(&mut client, b"still here").await;
}

/// A connection that stays is asked for by the kernel, on both sides, from ten seconds on: its timer is in the table of sockets.
#[tokio::test]
async fn a_connection_that_stays_is_kept_alive_on_both_sides() {
    let (running, client, server) = pair("").await;
    let gateways = [
        (running.address(), client.local_addr().unwrap()),
        (server.peer_addr().unwrap(), server.local_addr().unwrap()),
    ];
    let timers = || {
        let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
        gateways.map(|(local, remote)| timer(&table, local, remote))
    };
    assert_eq!(timers(), [0, 0], "not yet");
    let kept = async {
        while timers() != [2, 2] {
            // sleep: between two looks, within the deadline
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(40), kept).await.unwrap();
}

/// The timer of a socket in the kernel's table: 0 none, 1 of a packet sent again, 2 of keep-alive.
fn timer(table: &str, local: std::net::SocketAddr, remote: std::net::SocketAddr) -> u8 {
    let name = |address: std::net::SocketAddr| match address.ip() {
        std::net::IpAddr::V4(ip) => format!("{:08X}:{:04X}", u32::from_le_bytes(ip.octets()), address.port()),
        std::net::IpAddr::V6(_) => String::new(),
    };
    let row = format!(" {} {} ", name(local), name(remote));
    let row = table.lines().find(|line| line.contains(&row)).unwrap();
    let timer = row.split_whitespace().nth(5).and_then(|field| field.split(':').next());
    u8::from_str_radix(timer.unwrap(), 16).unwrap()
}

#[tokio::test]
async fn the_server_may_close_first() {
    let (running, mut client, mut server) = pair("").await;
    server.write_all(b"bye").await.unwrap();
    server.shutdown().await.unwrap();
    expect_end(&mut client, b"bye").await;
    client.write_all(b"oh").await.unwrap();
    expect(&mut server, b"oh").await;
    drop(client);
    assert_eq!(end(&running).await.0, "server_closed");
}

#[tokio::test]
async fn a_reset_ends_both_sides() {
    let (running, client, mut server) = pair("").await;
    socket2::SockRef::from(&client).set_linger(Some(std::time::Duration::ZERO)).unwrap();
    drop(client);
    expect_end(&mut server, b"").await;
    assert_eq!(end(&running).await.0, "client_failed");
}

/// Waits until bytes have moved and move no more: the relay waits for room at the receiver.
async fn stalled(running: &Running, count: impl Fn(&Connection) -> u64) {
    let moved = async || running.gateway.connection("car".to_owned()).await.first().map_or(0, &count);
    let mut before = moved().await;
    soon(async {
        loop {
            // sleep: that nothing moves any more shows only in time
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            let now = moved().await;
            if now > 65_536 && now == before {
                return;
            }
            before = now;
        }
    })
    .await;
}

/// A broker that throws a device out while that still sends: it says why and closes with bytes unread, so that the
/// kernel resets the connection. The reason must not be lost on its way because the other direction failed first.
#[tokio::test]
async fn the_servers_last_words_arrive_though_it_takes_no_more() {
    let (running, client, mut server) = pair("").await;
    let (mut reader, mut writer) = client.into_split();
    let flood = tokio::spawn(async move { while writer.write_all(&[0; 65_536]).await.is_ok() {} });
    stalled(&running, |row| row.bytes_in).await;
    let last = [0xE0, 2, 0x97, 0];
    server.write_all(&last).await.unwrap();
    drop(server);
    let mut got = [0; 4];
    soon(reader.read_exact(&mut got)).await.unwrap();
    assert_eq!(got, last);
    flood.await.unwrap();
    let (reason, _, bytes_out) = end(&running).await;
    assert_eq!((reason.as_str(), bytes_out), ("server_failed", 4));
}

/// The same the other way: what a client said before its connection broke still goes to the server.
#[tokio::test]
async fn the_clients_last_words_arrive_though_it_takes_no_more() {
    let (running, mut client, server) = pair("").await;
    let (mut reader, mut writer) = server.into_split();
    let flood = tokio::spawn(async move { while writer.write_all(&[0; 65_536]).await.is_ok() {} });
    stalled(&running, |row| row.bytes_out).await;
    client.write_all(&[0xE0, 0]).await.unwrap();
    drop(client);
    let mut got = [0; 2];
    soon(reader.read_exact(&mut got)).await.unwrap();
    assert_eq!(got, [0xE0, 0]);
    flood.await.unwrap();
    assert_eq!(end(&running).await.0, "client_failed");
}

/// A receiver that does not read stops the sender; nothing is lost, and the gateway holds one buffer at most.
#[tokio::test]
async fn a_slow_reader_holds_the_sender_back() {
    let (running, mut client, mut server) = pair("").await;
    let byte = |at: usize| (at % 251) as u8;
    let mut sent = 0;
    // As long as the client can write within a second, the pressure is not back yet.
    loop {
        let chunk: Vec<u8> = (sent..sent + 65_536).map(byte).collect();
        match tokio::time::timeout(std::time::Duration::from_secs(1), client.write(&chunk)).await {
            Ok(written) => sent += written.unwrap(),
            Err(_) => break,
        }
        assert!(sent < 64 << 20, "the gateway or the kernel took {sent} bytes that nobody reads");
    }
    let hello = hello("car").bytes().len() as u64;
    let rows = running.registry.render();
    let into_gateway: u64 = rows
        .lines()
        .find_map(|line| {
            line.strip_prefix("tidegate_gateway_server_sent_bytes_total{upstream=\"brokers\",server=\"s0\"} ")
        })
        .unwrap()
        .parse()
        .unwrap();
    let mut got = vec![0; sent];
    soon(server.read_exact(&mut got)).await.unwrap();
    assert!(got.iter().enumerate().all(|(at, have)| *have == byte(at)), "bytes were lost or changed");
    assert!(into_gateway - hello < sent as u64, "the sender's kernel still held some");
    client.write_all(b"and on").await.unwrap();
    expect(&mut server, b"and on").await;
}

#[tokio::test]
async fn bulk_in_both_directions_at_once_arrives_whole() {
    const BYTES: usize = 8 << 20;
    let (_running, client, server) = pair("").await;
    let byte = |at: usize| (at % 253) as u8;
    let side = |stream: tokio::net::TcpStream| async move {
        let (mut reader, mut writer) = stream.into_split();
        let writing = async {
            let all: Vec<u8> = (0..BYTES).map(byte).collect();
            writer.write_all(&all).await.unwrap();
            writer.shutdown().await.unwrap();
        };
        let reading = async {
            let mut got = Vec::with_capacity(BYTES);
            reader.read_to_end(&mut got).await.unwrap();
            got.len() == BYTES && got.iter().enumerate().all(|(at, have)| *have == byte(at))
        };
        let (whole, ()) = tokio::join!(reading, writing);
        whole
    };
    assert_eq!(soon(async { tokio::join!(side(client), side(server)) }).await, (true, true));
}

#[tokio::test]
async fn a_silent_connection_ends_when_an_idle_timeout_says_so() {
    let (running, mut client, mut server) = pair("idle_timeout = \"1s\"").await;
    expect_end(&mut client, b"").await;
    expect_end(&mut server, b"").await;
    assert_eq!(end(&running).await.0, "idle_timeout");
}

#[tokio::test]
async fn a_half_closed_connection_ends_when_the_other_half_says_nothing() {
    let (running, mut client, mut server) = pair("half_closed_timeout = \"1s\"").await;
    client.shutdown().await.unwrap();
    expect_end(&mut server, b"").await;
    server.write_all(b"more").await.unwrap();
    expect(&mut client, b"more").await;
    expect_end(&mut client, b"").await;
    assert_eq!(end(&running).await.0, "half_closed");
}

#[tokio::test]
async fn a_stop_ends_what_does_not_end_by_itself() {
    let (running, mut client, mut server) = pair("").await;
    let deadline = runtime::clock::Clock::system().now() + std::time::Duration::from_millis(50);
    assert_eq!(running.gateway.stop(deadline).await, 1);
    expect_end(&mut client, b"").await;
    expect_end(&mut server, b"").await;
    assert_eq!(end(&running).await.0, "shutdown");
    assert!(tokio::net::TcpStream::connect(running.address()).await.is_err(), "nobody listens any more");
    assert!(running.readiness.ready().is_err());
    assert!(running.gateway.apply(crate::harness::parse(&config("", "", &[running.address()]))).is_err());
}

#[tokio::test]
async fn a_stop_waits_for_nobody_when_there_is_nobody() {
    let (running, client, server) = pair("").await;
    drop((client, server));
    let deadline = runtime::clock::Clock::system().now() + crate::harness::DEADLINE;
    assert_eq!(soon(running.gateway.stop(deadline)).await, 0);
}

#[tokio::test]
async fn a_requested_shutdown_stops_accepting_and_keeps_connections() {
    let (running, mut client, mut server) = pair("").await;
    running.shutdown.begin("test");
    let address = running.address();
    eventually(|| std::net::TcpStream::connect(address).is_err().then_some(())).await;
    let text = config("max_connections = 7", "", &[address]);
    assert!(running.gateway.apply(crate::harness::parse(&text)).is_err(), "too late for a new configuration");
    client.write_all(b"still").await.unwrap();
    expect(&mut server, b"still").await;
}

/// Devices that send as fast as they can do not keep their worker from another one's few bytes.
#[tokio::test]
async fn floods_do_not_keep_a_worker_from_another_device() {
    const FLOODS: usize = 16;
    // a worker that looks at its sockets only after 60 turns of its floods moves seven times as much
    const MEANWHILE: usize = 1 << 30;
    let broker = Broker::start().await;
    let running = Running::start(&config("", "", &[broker.address]));
    let (moved, over) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let mut threads = Vec::new();
    for number in 0..FLOODS {
        let hello = hello(&format!("flood-{number}")).bytes();
        let client = device(running.address(), &hello).await.into_std().unwrap();
        let server = broker.accept_with(&hello).await.into_std().unwrap();
        client.set_nonblocking(false).unwrap();
        server.set_nonblocking(false).unwrap();
        let over = Arc::clone(&over);
        threads.push(thread::spawn(move || {
            while !over.load(Ordering::Relaxed) && (&client).write_all(&[0; 65_536]).is_ok() {}
        }));
        let moved = Arc::clone(&moved);
        threads.push(thread::spawn(move || {
            let mut buffer = vec![0; 65_536];
            while let Ok(count @ 1..) = (&server).read(&mut buffer) {
                moved.fetch_add(count, Ordering::Relaxed);
            }
        }));
    }
    let quiet_hello = hello("quiet").bytes();
    let mut quiet = device(running.address(), &quiet_hello).await;
    let mut server = broker.accept_with(&quiet_hello).await;
    eventually(|| (moved.load(Ordering::Relaxed) > 64 << 20).then_some(())).await;
    let mut meanwhile = Vec::new();
    for _ in 0..9 {
        let before = moved.load(Ordering::Relaxed);
        quiet.write_all(b"?").await.unwrap();
        expect(&mut server, b"?").await;
        server.write_all(b"!").await.unwrap();
        expect(&mut quiet, b"!").await;
        meanwhile.push(moved.load(Ordering::Relaxed) - before);
    }
    over.store(true, Ordering::Relaxed);
    meanwhile.sort_unstable();
    assert!(meanwhile[4] < MEANWHILE, "bytes of floods while a device waited, nine times: {meanwhile:?}");
    for thread in threads {
        thread.join().unwrap();
    }
}
