//! From accept to a server: splits, sizes, strangers, bounds.

use mqtt::Version;
use runtime::events::Event;
use tokio::io::AsyncWriteExt;

use crate::harness::{
    Broker, DEADLINE, Running, addresses, config, device, eventually, expect, expect_end, hello, soon,
    whoever,
};

#[tokio::test]
async fn a_connect_may_come_byte_by_byte() {
    let broker = Broker::start().await;
    let running = Running::start(&config("", "balance = \"username\"", &[broker.address]));
    for version in [Version::V31, Version::V311, Version::V5] {
        let hello = hello("car").version(version).username("fleet").bytes();
        let mut client = device(running.address(), b"").await;
        client.set_nodelay(true).unwrap();
        for byte in &hello {
            client.write_all(&[*byte]).await.unwrap();
            tokio::task::yield_now().await;
        }
        let mut server = broker.accept_with(&hello).await;
        server.write_all(b"ok").await.unwrap();
        expect(&mut client, b"ok").await;
        let event = running
            .event(|event| matches!(event, Event::GatewayConnected { proto_ver, .. } if *proto_ver == version.level()))
            .await;
        let Event::GatewayConnected { clientid, username, server, upstream, chosen_by, .. } = event else {
            panic!()
        };
        assert_eq!((&*clientid, username.as_deref(), &*server), ("car", Some("fleet"), "s0"));
        assert_eq!((&*upstream, &*chosen_by), ("brokers", "hash"));
    }
}

#[tokio::test]
async fn a_will_of_nearly_its_largest_size_passes_with_a_small_preread() {
    let broker = Broker::start().await;
    let running = Running::start(&config("preread_size = \"64B\"", "", &[broker.address]));
    let mut bytes = hello("car").will(65_535).bytes();
    // And a mebibyte of messages right behind it.
    bytes.extend((0..1 << 20).map(|at| (at % 247) as u8));
    let client = device(running.address(), b"").await;
    let (_reader, mut writer) = client.into_split();
    let (mut server, ()) = tokio::join!(broker.accept(), async {
        soon(writer.write_all(&bytes[..9])).await.unwrap();
        soon(writer.write_all(&bytes[9..])).await.unwrap();
    });
    expect(&mut server, &bytes).await;
}

#[tokio::test]
async fn who_says_nothing_is_gone_after_the_preread_timeout() {
    let broker = Broker::start().await;
    let running = Running::start(&config("preread_timeout = \"100ms\"", "", &[broker.address]));
    let mut silent = device(running.address(), b"").await;
    let mut half = device(running.address(), &hello("car").bytes()[..9]).await;
    expect_end(&mut silent, b"").await;
    expect_end(&mut half, b"").await;
    let address = running.address();
    running
        .metric(&format!(
            "tidegate_gateway_refused_total{{listener=\"tcp://{address}\",reason=\"preread_timeout\"}} 2"
        ))
        .await;
    running.metric(&format!("tidegate_gateway_connections{{listener=\"tcp://{address}\"}} 0")).await;
}

/// So much time that for the first second it is waited for without a timer of its own.
#[tokio::test]
async fn a_long_preread_timeout_counts_from_the_first_moment_too() {
    let broker = Broker::start().await;
    let running = Running::start(&config("preread_timeout = \"4s\"", "", &[broker.address]));
    let clock = runtime::clock::Clock::system();
    let began = clock.now();
    let mut silent = device(running.address(), b"").await;
    expect_end(&mut silent, b"").await;
    assert!(clock.now() - began >= std::time::Duration::from_secs(4));
    running.refused("preread_timeout").await;
    open(&running, 0).await;
}

/// Waits until the listener has so many connections.
async fn open(running: &Running, count: usize) {
    let address = running.address();
    running.metric(&format!("tidegate_gateway_connections{{listener=\"tcp://{address}\"}} {count}")).await;
}

#[tokio::test]
async fn who_leaves_before_a_word_is_counted() {
    let broker = Broker::start().await;
    let running = Running::start(&config("", "", &[broker.address]));
    drop(device(running.address(), b"\x10").await);
    running.refused("closed_early").await;
    open(&running, 0).await;
    let silent = device(running.address(), b"").await;
    open(&running, 1).await;
    drop(silent);
    open(&running, 0).await;
    let refused =
        |event: &Event| matches!(event, Event::GatewayRefused { reason, .. } if **reason == *"closed_early");
    eventually(|| (running.count(refused) == 2).then_some(())).await;
}

/// Devices that speak when they were let in long ago, all in the same moment, and say good-bye together.
#[tokio::test]
async fn who_was_silent_gets_through_and_everybody_ends_for_himself() {
    let broker = Broker::start().await;
    let running = Running::start(&config("", "", &[broker.address]));
    let mut devices = Vec::new();
    for _ in 0..50 {
        devices.push(device(running.address(), b"").await);
    }
    open(&running, 50).await;
    for (number, device) in devices.iter_mut().enumerate() {
        device.write_all(&hello(&format!("car{number}")).bytes()).await.unwrap();
    }
    let mut servers = Vec::new();
    for _ in 0..50 {
        servers.push(broker.accept().await);
    }
    for mut device in devices {
        device.write_all(&[0xE0, 0]).await.unwrap();
    }
    open(&running, 0).await;
    let ended = |event: &Event| matches!(event, Event::GatewayDisconnected { reason, .. } if **reason == *"client_closed");
    eventually(|| (running.count(ended) == 50).then_some(())).await;
    for server in &mut servers {
        let mut got = Vec::new();
        soon(tokio::io::AsyncReadExt::read_to_end(server, &mut got)).await.unwrap();
        assert!(got.starts_with(&[0x10]) && got.ends_with(&[0xE0, 0]), "{got:?}");
    }
}

#[tokio::test]
async fn a_stop_ends_who_has_said_nothing() {
    let broker = Broker::start().await;
    let running = Running::start(&config("", "", &[broker.address]));
    let mut silent = device(running.address(), b"").await;
    open(&running, 1).await;
    assert_eq!(soon(running.gateway.stop(runtime::clock::Clock::system().now() + DEADLINE)).await, 0);
    expect_end(&mut silent, b"").await;
    running.refused("shutting_down").await;
}

#[tokio::test]
async fn a_stranger_is_refused_or_handled_by_the_rule() {
    let brokers = Broker::fleet::<2>().await;
    let strict = Running::start(&config("", "", &addresses(&brokers)));
    let mut http = device(strict.address(), b"GET / HTTP/1.1\r\n\r\n").await;
    expect_end(&mut http, b"").await;
    strict.refused("not_mqtt").await;

    let open = Running::start(&config("on_not_mqtt = \"round_robin\"", "", &addresses(&brokers)));
    let mut seen = Vec::new();
    for _ in 0..4 {
        let _client = device(open.address(), b"GET / HTTP/1.1\r\n\r\n").await;
        let (index, mut server) = whoever(&brokers).await;
        expect(&mut server, b"GET / HTTP/1.1\r\n\r\n").await;
        seen.push(index);
    }
    assert_eq!(seen, [0, 1, 0, 1]);
    let address = open.address();
    open.metric(&format!(
        "tidegate_gateway_without_key_total{{listener=\"tcp://{address}\",reason=\"not_mqtt\"}} 4"
    ))
    .await;
}

#[tokio::test]
async fn an_empty_client_id_is_handled_by_the_rule_and_counted() {
    let brokers = Broker::fleet::<3>().await;
    let turns = Running::start(&config("", "", &addresses(&brokers)));
    let mut seen = Vec::new();
    for _ in 0..6 {
        let _client = device(turns.address(), &hello("").bytes()).await;
        let (index, mut server) = whoever(&brokers).await;
        expect(&mut server, &hello("").bytes()).await;
        seen.push(index);
    }
    seen.sort_unstable();
    assert_eq!(seen, [0, 0, 1, 1, 2, 2]);
    let address = turns.address();
    turns
        .metric(&format!(
            "tidegate_gateway_without_key_total{{listener=\"tcp://{address}\",reason=\"empty_client_id\"}} 6"
        ))
        .await;

    // Reason Code 0x85 in version 5, return code 2 before it [MQTT-3.1.3-8], [v3 MQTT-3.1.3-9].
    let strict = Running::start(&config("on_empty_client_id = \"reject\"", "", &addresses(&brokers)));
    let mut five = device(strict.address(), &hello("").bytes()).await;
    expect_end(&mut five, &[0x20, 3, 0, 0x85, 0]).await;
    let mut old = device(strict.address(), &hello("").version(Version::V311).bytes()).await;
    expect_end(&mut old, &[0x20, 2, 0, 2]).await;
    strict.refused("empty_client_id").await;
}

#[tokio::test]
async fn a_missing_user_name_is_handled_by_its_own_rule() {
    let broker = Broker::start().await;
    let text = config("on_no_username = \"reject\"", "balance = \"username\"", &[broker.address]);
    let strict = Running::start(&text);
    let mut five = device(strict.address(), &hello("car").bytes()).await;
    expect_end(&mut five, &[0x20, 3, 0, 0x86, 0]).await;
    let mut old = device(strict.address(), &hello("car").version(Version::V31).bytes()).await;
    expect_end(&mut old, &[0x20, 2, 0, 4]).await;
    strict.refused("no_username").await;
}

#[tokio::test]
async fn a_malformed_connect_is_told_why_and_reported_with_its_clause() {
    let broker = Broker::start().await;
    let running = Running::start(&config("", "", &[broker.address]));
    // The reserved Connect Flag is set [MQTT-3.1.2-3].
    let mut five = device(running.address(), b"\x10\x0e\x00\x04MQTT\x05\x03\x00\x3c\x00\x00\x01a").await;
    expect_end(&mut five, &[0x20, 3, 0, 0x81, 0]).await;
    let mut old = device(running.address(), b"\x10\x0d\x00\x04MQTT\x04\x03\x00\x3c\x00\x01a").await;
    expect_end(&mut old, b"").await;
    // A level that nobody speaks [MQTT-3.1.2-2].
    let mut nine = device(running.address(), b"\x10\x0d\x00\x04MQTT\x09\x02\x00\x3c\x00\x01a").await;
    expect_end(&mut nine, &[0x20, 3, 0, 0x84, 0]).await;
    running.refused("malformed").await;
    let clause = |wanted: &'static str| {
        running.event(move |event| {
            matches!(event, Event::ProtocolViolation { clause: Some(clause), .. } if **clause == *wanted)
        })
    };
    clause("MQTT-3.1.2-3").await;
    clause("MQTT-3.1.2-2").await;
}

#[tokio::test]
async fn the_answer_arrives_even_when_the_client_had_said_more() {
    let broker = Broker::start().await;
    let running = Running::start(&config("on_empty_client_id = \"reject\"", "", &[broker.address]));
    for _ in 0..20 {
        let mut bytes = hello("").bytes();
        bytes.extend([0xC0, 0].repeat(20_000));
        let mut client = device(running.address(), &bytes).await;
        expect(&mut client, &[0x20, 3, 0, 0x85, 0]).await;
    }
}

#[tokio::test]
async fn above_max_connections_the_door_is_closed_at_once() {
    let broker = Broker::start().await;
    let running = Running::start(&config("max_connections = 2", "", &[broker.address]));
    let first = device(running.address(), &hello("a").bytes()).await;
    let _first_server = broker.accept().await;
    let _second = device(running.address(), &hello("b").bytes()).await;
    let _second_server = broker.accept().await;
    let mut third = device(running.address(), b"").await;
    expect_end(&mut third, b"").await;
    running.refused("max_connections").await;
    drop(first);
    drop(_first_server);
    let address = running.address();
    running.metric(&format!("tidegate_gateway_connections{{listener=\"tcp://{address}\"}} 1")).await;
    let hello = hello("d").bytes();
    let _fourth = device(running.address(), &hello).await;
    broker.accept_with(&hello).await;
}

#[tokio::test]
async fn above_the_accept_rate_clients_are_told_to_come_later() {
    let broker = Broker::start().await;
    let running = Running::start(&config("accept_rate = \"1/h\"", "", &[broker.address]));
    let first = hello("a").bytes();
    let _client = device(running.address(), &first).await;
    let _server = broker.accept_with(&first).await;
    let mut five = device(running.address(), &hello("b").bytes()).await;
    expect_end(&mut five, &[0x20, 3, 0, 0x9F, 0]).await;
    let mut old = device(running.address(), &hello("c").version(Version::V311).bytes()).await;
    expect_end(&mut old, &[0x20, 2, 0, 3]).await;
    running.refused("connection_rate").await;
}

/// Hundreds at a time over both workers: each gets its own bytes back.
#[tokio::test]
async fn many_devices_at_once_are_not_mixed_up() {
    let brokers = Broker::fleet::<4>().await;
    let running = Running::start(&config("", "", &addresses(&brokers)));
    let address = running.address();
    let echo = tokio::spawn(async move {
        for _ in 0..400 {
            let (_, mut server) = whoever(&brokers).await;
            tokio::spawn(async move {
                let (mut reader, mut writer) = server.split();
                let _ = tokio::io::copy(&mut reader, &mut writer).await;
            });
        }
    });
    let devices: Vec<_> = (0..400)
        .map(|n| {
            tokio::spawn(async move {
                let hello = hello(&format!("car-{n}")).bytes();
                let mut client = device(address, &hello).await;
                expect(&mut client, &hello).await;
                client.shutdown().await.unwrap();
                expect_end(&mut client, b"").await;
            })
        })
        .collect();
    for device in devices {
        tokio::time::timeout(DEADLINE, device).await.unwrap().unwrap();
    }
    soon(echo).await.unwrap();
    eventually(|| {
        (running.count(|event| matches!(event, Event::GatewayDisconnected { .. })) == 400).then_some(())
    })
    .await;
}
