//! What outlives a connection: sessions, queues, wills; and who may have them.

use std::net::Ipv4Addr;
use std::time::Duration;

use mqtt::packet::{ConnectProperties, DisconnectProperties, Packet, SubscriptionOptions};
use mqtt::{QoS, ReasonCode, Version};
use serde_json::json;

use crate::harness::address::source;
use crate::harness::{Device, Paho, Site, Tidegate, device};

/// A CONNECT that goes on with its session and keeps it for so many seconds (version 5).
fn keeping(clientid: &str, seconds: u32) -> mqtt::packet::Connect<'static> {
    mqtt::packet::Connect {
        clean_start: false,
        properties: ConnectProperties { session_expiry_interval: Some(seconds), ..Default::default() },
        ..device::connect(Version::V5, clientid)
    }
}

#[test]
fn a_session_keeps_subscriptions_and_messages_while_its_client_is_away() {
    let broker = Tidegate::broker("node1");
    for (clientid, protocol, properties) in
        [("pump-4", 4, json!({})), ("pump-5", 5, json!({"SessionExpiryInterval": 3600}))]
    {
        let topic = format!("orders/{clientid}");
        let mut pump = Paho::new(clientid, protocol, false);
        let connected = pump.connect(broker.mqtt(), &json!({"properties": properties}));
        assert_eq!(connected["session_present"], false, "[MQTT-3.2.2-3] {connected}");
        pump.subscribe(&topic, 2);
        pump.disconnect();
        let away = broker.client_when(clientid, |client| !client.connected);
        assert_eq!((away.subscriptions_cnt, away.proto_ver), (1, protocol));

        let mut sender = Paho::connected(broker.mqtt(), "sender", 5);
        for number in 0..30 {
            sender.publish(&topic, &number.to_string(), number % 3, &json!({}));
        }
        let mut pump = Paho::new(clientid, protocol, false);
        let connected = pump.connect(broker.mqtt(), &json!({"properties": properties}));
        // [MQTT-3.1.2-5], [v3 MQTT-3.1.2-4]
        assert_eq!(connected["session_present"], true, "[MQTT-3.2.2-3] {connected}");
        // QoS 1 and 2 are kept, each in its order [MQTT-4.5.0-1], [MQTT-4.6.0-6] (paho shows a message of QoS 2 not
        // before its PUBREL); QoS 0 need not be kept, and is not.
        let arrived: Vec<_> = (0..20).map(|_| pump.message()).collect();
        for qos in [1, 2] {
            let of_qos = arrived.iter().filter(|message| message.qos == qos);
            let numbers = of_qos.map(|message| message.payload.parse::<u8>().expect("a number"));
            assert!(numbers.eq((0..30).filter(|number| number % 3 == qos)), "{arrived:?}");
        }
        pump.disconnect();
    }
}

#[test]
fn clean_start_ends_the_session_before() {
    let broker = Tidegate::broker("node1");
    let mut first = Device::connect(broker.mqtt(), &keeping("pump", 3600));
    first.subscribe("orders", QoS::AtLeastOnce);
    first.goodbye();
    let mut sender = Device::connect(broker.mqtt(), &device::connect(Version::V5, "sender"));
    sender.publish(device::message("orders", "for nobody", QoS::AtLeastOnce));
    // [MQTT-3.1.2-4]
    let connect = mqtt::packet::Connect { clean_start: true, ..keeping("pump", 3600) };
    let (mut second, connack) = Device::connect_from(Ipv4Addr::LOCALHOST.into(), broker.mqtt(), &connect);
    assert!(!connack.session_present, "[MQTT-3.2.2-2]");
    second.nothing_more();
    assert_eq!(broker.client("pump").expect("connected").subscriptions_cnt, 0);
}

#[test]
fn a_session_ends_when_its_expiry_interval_is_over() {
    let broker = Tidegate::broker("node1");
    let mut short = Device::connect(broker.mqtt(), &keeping("short", 1));
    short.subscribe("orders", QoS::AtLeastOnce);
    let mut changed = Device::connect(broker.mqtt(), &keeping("changed", 3600));
    changed.subscribe("orders", QoS::AtLeastOnce);
    short.goodbye();
    // DISCONNECT may change the interval (3.14.2.2.2).
    let properties = DisconnectProperties { session_expiry_interval: Some(1), ..Default::default() };
    changed.goodbye_with(ReasonCode::Success, properties);
    assert_eq!(broker.client("short").map(|client| client.expiry_interval), Some(1));
    for clientid in ["short", "changed"] {
        broker.event("session_expired", |event| event["clientid"] == clientid);
        assert_eq!(broker.client(clientid), None);
        let (again, connack) =
            Device::connect_from(Ipv4Addr::LOCALHOST.into(), broker.mqtt(), &keeping(clientid, 0));
        assert!(!connack.session_present, "[MQTT-3.2.2-3]");
        again.goodbye();
    }
}

#[test]
fn a_longer_expiry_than_allowed_is_answered_with_the_one_in_force() {
    let broker = Site::new("node1").broker("max_session_expiry = \"2h\"", "").start();
    let ask = |seconds| {
        let (device, connack) =
            Device::connect_from(Ipv4Addr::LOCALHOST.into(), broker.mqtt(), &keeping("pump", seconds));
        device.goodbye();
        connack.properties.session_expiry_interval
    };
    // (3.2.2.3.2)
    assert_eq!(ask(7_200), None);
    assert_eq!(ask(7_201), Some(7_200));
    assert_eq!(ask(u32::MAX), Some(7_200));
}

#[test]
fn an_older_connection_is_taken_over_wherever_it_is() {
    let broker = Tidegate::broker("node1");
    // The kernel spreads connections over the workers by their addresses and ports: with sixteen successors each is
    // hit, and so are both ways between them.
    let mut current = Device::connect(broker.mqtt(), &keeping("roamer", 3600));
    current.subscribe("orders", QoS::AtLeastOnce);
    for number in 1..=16 {
        let connect = keeping("roamer", 3600);
        let (next, connack) = Device::connect_from(source(number).into(), broker.mqtt(), &connect);
        assert!(connack.session_present, "take-over {number}");
        // [MQTT-3.1.4-3]
        current.expect_disconnect(ReasonCode::SessionTakenOver);
        current = next;
        let mut sender = Device::connect(broker.mqtt(), &device::connect(Version::V311, "sender"));
        sender.publish(device::message("orders", &number.to_string(), QoS::AtLeastOnce));
        assert_eq!(device::payload(&current.message()), number.to_string());
        // The acknowledgement must have arrived before the next connection overtakes it.
        current.nothing_more();
        sender.goodbye();
    }
    let event = broker.event("session_taken_over", |_| true);
    assert_eq!(event["clientid"], "roamer");
    assert_eq!(broker.events("session_taken_over").len(), 16);
    assert_eq!(broker.metric("tidegate_broker_session_takeovers_total"), 16.0);
    assert_eq!(broker.client("roamer").expect("there").peer, current.local().to_string());
}

#[test]
fn many_connections_with_one_client_id_leave_exactly_one() {
    let broker = Tidegate::broker("node1");
    let at = broker.mqtt();
    let racers: Vec<_> = (0..24)
        .map(|number| {
            std::thread::spawn(move || {
                let mut device = Device::dial_from(source(500 + number).into(), at);
                let version = [Version::V311, Version::V5][number as usize % 2];
                device.say_hello(&mqtt::packet::Connect {
                    clean_start: false,
                    ..device::connect(version, "contested")
                });
                device
            })
        })
        .collect();
    let devices: Vec<_> = racers.into_iter().map(|racer| racer.join().expect("a CONNECT")).collect();
    crate::harness::eventually("one connection is left", || {
        (broker.metric("tidegate_broker_connections") == 1.0).then_some(())
    });
    let winner = broker.client_when("contested", |client| client.connected).peer;
    for mut device in devices {
        if device.local().to_string() == winner {
            assert!(matches!(device.receive(), Packet::Connack(_)));
            device.nothing_more();
            continue;
        }
        // One that lost before its CONNACK is closed without; one that lost later is told [MQTT-3.1.4-3].
        while let Some(packet) = device.receive_or_end() {
            let told = match &packet {
                Packet::Connack(connack) => connack.reason == ReasonCode::Success,
                Packet::Disconnect(disconnect) => disconnect.reason == ReasonCode::SessionTakenOver,
                _ => false,
            };
            assert!(told, "{packet:?}");
        }
    }
}

#[test]
fn the_will_of_a_client_that_was_killed_is_published() {
    let broker = Tidegate::broker("node1");
    let mut watcher = Paho::connected(broker.mqtt(), "watcher", 5);
    watcher.subscribe("state/+", 2);
    for (clientid, protocol) in [("v3.1", 3), ("v3.1.1", 4), ("v5", 5)] {
        let mut victim = Paho::new(clientid, protocol, true);
        let topic = format!("state/{clientid}");
        let will = json!({"topic": topic, "payload": "lost", "qos": 1, "retain": true});
        victim.connect(broker.mqtt(), &json!({"will": will}));
        // The process dies by SIGKILL; the kernel closes its connection without a DISCONNECT [MQTT-3.1.2-8].
        victim.kill();
        let message = watcher.message();
        assert_eq!((message.topic.as_str(), message.payload.as_str(), message.qos), (&*topic, "lost", 1));
        let event = broker.event("client_disconnected", |event| event["clientid"] == clientid);
        assert_eq!(event["reason"], "connection_lost", "{event}");
    }
    // The wills were retained [MQTT-3.1.2-15].
    let mut late = Paho::connected(broker.mqtt(), "late", 4);
    late.subscribe("state/#", 0);
    assert!((0..3).all(|_| late.message().retain));
}

#[test]
fn a_client_that_says_good_bye_leaves_no_will() {
    let broker = Tidegate::broker("node1");
    let mut watcher = Device::connect(broker.mqtt(), &device::connect(Version::V5, "watcher"));
    watcher.subscribe("state/#", QoS::AtLeastOnce);
    let connect = |clientid: &str| mqtt::packet::Connect {
        will: Some(device::will(&format!("state/{clientid}"), "lost")),
        ..device::connect(Version::V5, clientid)
    };
    // [MQTT-3.1.2-10]
    Device::connect(broker.mqtt(), &connect("polite")).goodbye();
    // Reason Code 0x04 asks for the will all the same [MQTT-3.14.4-3], (3.14.2.1).
    Device::connect(broker.mqtt(), &connect("asking"))
        .goodbye_with(ReasonCode::DisconnectWithWill, DisconnectProperties::default());
    assert_eq!(watcher.message().topic, "state/asking");
    watcher.nothing_more();
}

#[test]
fn a_delayed_will_is_not_sent_when_the_client_is_back_in_time() {
    let broker = Tidegate::broker("node1");
    let mut watcher = Device::connect(broker.mqtt(), &device::connect(Version::V5, "watcher"));
    watcher.subscribe("state/#", QoS::AtLeastOnce);
    let connect = |clientid: &str, delay| mqtt::packet::Connect {
        will: Some(mqtt::packet::Will {
            delay_interval: Some(delay),
            ..device::will(&format!("state/{clientid}"), "lost")
        }),
        ..keeping(clientid, 3600)
    };
    drop(Device::connect(broker.mqtt(), &connect("returns", 3600)));
    broker.client_when("returns", |client| !client.connected);
    // [MQTT-3.1.3-9]
    let back = Device::connect(broker.mqtt(), &keeping("returns", 3600));
    drop(Device::connect(broker.mqtt(), &connect("stays-away", 1)));
    assert_eq!(watcher.message().topic, "state/stays-away");
    watcher.nothing_more();
    back.goodbye();
}

#[test]
fn unacknowledged_messages_are_sent_again_with_their_old_ids() {
    let broker = Tidegate::broker("node1");
    let mut pump = Device::connect(broker.mqtt(), &keeping("pump", 3600));
    let options = SubscriptionOptions { qos: QoS::ExactlyOnce, ..Default::default() };
    pump.subscribe_with("orders", options, None);
    let mut sender = Device::connect(broker.mqtt(), &device::connect(Version::V311, "sender"));
    for (payload, qos) in [("one", QoS::AtLeastOnce), ("two", QoS::ExactlyOnce), ("three", QoS::ExactlyOnce)]
    {
        sender.publish(device::message("orders", payload, qos));
    }
    let unacknowledged = [pump.receive(), pump.receive(), pump.receive()];
    let ids = unacknowledged.map(|packet| match packet {
        Packet::Publish(publish) => {
            (publish.packet_id.expect("an id"), device::payload(&publish), publish.dup)
        }
        other => panic!("{other:?}"),
    });
    // The second of them is half way through.
    pump.send(&Packet::Pubrec(device::ack(ids[1].0)));
    assert!(matches!(pump.receive(), Packet::Pubrel(ack) if ack.packet_id == ids[1].0));
    drop(pump);
    broker.client_when("pump", |client| !client.connected);

    let (mut pump, connack) =
        Device::connect_from(Ipv4Addr::LOCALHOST.into(), broker.mqtt(), &keeping("pump", 3600));
    assert!(connack.session_present);
    // [MQTT-4.4.0-1], in the order of the first time [MQTT-4.6.0-5]
    for (number, (id, payload, _)) in ids.iter().enumerate() {
        match pump.receive() {
            Packet::Publish(publish) if number != 1 => {
                assert_eq!((publish.packet_id, device::payload(&publish)), (Some(*id), payload.clone()));
                assert!(publish.dup, "[MQTT-3.3.1-1]");
            }
            Packet::Pubrel(release) if number == 1 => assert_eq!(release.packet_id, *id),
            other => panic!("{other:?} at {number}"),
        }
    }
    pump.nothing_more();
}

#[test]
fn an_operator_ends_a_connection_and_its_session() {
    let broker = Tidegate::broker("node1");
    let mut pump = Device::connect(broker.mqtt(), &keeping("pump 1/a", 3600));
    pump.subscribe("orders/#", QoS::AtLeastOnce);
    let subscriptions = broker.rest.subscriptions("pump 1/a").expect("an answer").expect("a client");
    assert_eq!((subscriptions[0].topic.as_str(), subscriptions[0].qos), ("orders/#", 1));
    broker.ctl(&["clients", "kick", "pump 1/a"]);
    pump.expect_disconnect(ReasonCode::AdministrativeAction);
    crate::harness::eventually("no session", || broker.client("pump 1/a").is_none().then_some(()));
    // While the last of it is being written it may be kicked once more.
    crate::harness::eventually("nobody to kick", || {
        (!broker.rest.kick("pump 1/a").expect("an answer")).then_some(())
    });
}

#[test]
fn a_queue_above_its_bound_drops_the_newest_and_says_so() {
    let broker = Site::new("node1").broker("max_queued_messages = 10\nmax_inflight = 5", "").start();
    let mut slow = Device::connect(broker.mqtt(), &device::connect(Version::V5, "slow"));
    slow.subscribe("flood", QoS::AtLeastOnce);
    let mut sender = Device::connect(broker.mqtt(), &device::connect(Version::V5, "sender"));
    for number in 0..100 {
        sender.publish(device::message("flood", &number.to_string(), QoS::AtLeastOnce));
    }
    // Five are under way and ten wait; the rest is dropped, counted and told.
    let dropped = || broker.metric("tidegate_broker_messages_dropped_total{rule=\"queue_full\"}");
    crate::harness::eventually("85 are dropped", || (dropped() == 85.0).then_some(()));
    let numbers: Vec<_> = (0..15).map(|_| device::payload(&slow.message())).collect();
    assert_eq!(numbers, (0..15).map(|number| number.to_string()).collect::<Vec<_>>());
    slow.nothing_more();
    let client = broker.client("slow").expect("connected");
    assert_eq!((client.mqueue_dropped, client.inflight_cnt), (85, 0));
    // A flood of drops is no flood of events: each tells of twice as many as the one before.
    let told: Vec<_> = broker.events("message_dropped").iter().filter_map(|e| e["count"].as_u64()).collect();
    assert_eq!(told, [1, 2, 4, 8, 16, 32, 64]);
}

#[test]
fn without_clean_stop_of_a_client_nothing_waits_for_it_longer_than_its_keep_alive() {
    let broker = Tidegate::broker("node1");
    let begun = crate::harness::wait::now();
    let (silent, _) = Device::connect_from(
        Ipv4Addr::LOCALHOST.into(),
        broker.mqtt(),
        &mqtt::packet::Connect { keep_alive: 1, ..device::connect(Version::V5, "silent") },
    );
    // One and a half intervals [MQTT-3.1.2-22].
    silent.expect_disconnect(ReasonCode::KeepAliveTimeout);
    let took = crate::harness::wait::now() - begun;
    assert!(took >= Duration::from_millis(1_500), "{took:?}");
    let event = broker.event("client_disconnected", |event| event["clientid"] == "silent");
    assert_eq!(event["reason"], "keep_alive_timeout");
}

#[test]
fn a_message_of_qos_2_that_is_sent_twice_arrives_once() {
    let broker = Tidegate::broker("node1");
    let mut receiver = Device::connect(broker.mqtt(), &device::connect(Version::V5, "receiver"));
    receiver.subscribe("orders", QoS::ExactlyOnce);
    let mut sender = Device::connect(broker.mqtt(), &keeping("sender", 3600));
    let id = mqtt::PacketId::new(7).expect("not zero");
    let publish = mqtt::packet::Publish {
        packet_id: Some(id),
        ..device::message("orders", "pay 100", QoS::ExactlyOnce)
    };
    sender.send(&Packet::Publish(publish.clone()));
    assert!(matches!(sender.receive(), Packet::Pubrec(_)));
    // The answer was lost with the connection; the session remembers the packet [MQTT-4.3.3-10].
    drop(sender);
    broker.client_when("sender", |client| !client.connected);
    let mut sender = Device::connect(broker.mqtt(), &keeping("sender", 3600));
    for _ in 0..2 {
        sender.send(&Packet::Publish(mqtt::packet::Publish { dup: true, ..publish.clone() }));
        assert!(matches!(sender.receive(), Packet::Pubrec(_)));
    }
    sender.send(&Packet::Pubrel(device::ack(id)));
    assert!(matches!(sender.receive(), Packet::Pubcomp(_)));
    assert_eq!(device::payload(&receiver.message()), "pay 100");
    receiver.nothing_more();
    // After PUBCOMP the same id is a new message [MQTT-4.3.3-12].
    sender.send(&Packet::Publish(publish));
    assert!(matches!(sender.receive(), Packet::Pubrec(_)));
    sender.send(&Packet::Pubrel(device::ack(id)));
    assert!(matches!(sender.receive(), Packet::Pubcomp(_)));
    assert_eq!(device::payload(&receiver.message()), "pay 100");
}

#[test]
fn what_was_unsubscribed_does_not_come_any_more() {
    let broker = Tidegate::broker("node1");
    let mut receiver = Paho::connected(broker.mqtt(), "receiver", 5);
    receiver.subscribe("a/#", 1);
    receiver.subscribe("b", 1);
    receiver.unsubscribe("a/#");
    let mut sender = Paho::connected(broker.mqtt(), "sender", 4);
    sender.publish("a/1", "not this", 1, &json!({}));
    sender.publish("b", "but this", 1, &json!({}));
    assert_eq!(receiver.message().payload, "but this");
    assert_eq!(broker.client("receiver").expect("connected").subscriptions_cnt, 1);
}

#[test]
fn the_will_of_a_taken_over_connection_is_sent_unless_it_waits() {
    let broker = Tidegate::broker("node1");
    let mut watcher = Device::connect(broker.mqtt(), &device::connect(Version::V5, "watcher"));
    watcher.subscribe("state/#", QoS::AtLeastOnce);
    for (clientid, delay) in [("waits", Some(60)), ("at-once", None)] {
        let will = mqtt::packet::Will {
            delay_interval: delay,
            ..device::will(&format!("state/{clientid}"), "lost")
        };
        let connect = mqtt::packet::Connect { will: Some(will), ..keeping(clientid, 3600) };
        let first = Device::connect(broker.mqtt(), &connect);
        let second = Device::connect(broker.mqtt(), &keeping(clientid, 3600));
        first.expect_disconnect(ReasonCode::SessionTakenOver);
        second.goodbye();
    }
    // The old connection ended without a good-bye [MQTT-3.1.2-8]; a delay ends with the new one [MQTT-3.1.3-9].
    assert_eq!(watcher.message().topic, "state/at-once");
    watcher.nothing_more();
}
