//! The client against a real Mosquitto.

#![allow(clippy::unwrap_used)] // in a test a panic is the answer

mod mosquitto;

use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use client::{
    Backoff, Client, Disconnected, Event, EventStream, Goodbye, Message, Options, PublishError, Received,
    Reconnect, Subscription, Will,
};
use mosquitto::{Mosquitto, PATIENCE, free_port};
use mqtt::{QoS, ReasonCode, Version};
use tokio::io::AsyncWriteExt;

const ALL_QOS: [QoS; 3] = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce];

async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("this takes too long")
}

async fn message(events: &mut EventStream) -> Received {
    loop {
        match soon(events.next()).await.expect("the client goes on") {
            Event::Message(received) => return received,
            Event::Connected(_) => {}
            Event::Disconnected { why, .. } => panic!("{why}"),
        }
    }
}

async fn subscriber(broker: &Mosquitto, filter: &str) -> (Client, EventStream) {
    let (client, events) = soon(Client::connect(Options::new(broker.address(), "subscriber"))).await.unwrap();
    let granted = soon(client.subscribe([Subscription::new(filter, QoS::ExactlyOnce)])).await.unwrap();
    assert_eq!(granted.reasons, [ReasonCode::GrantedQos2]);
    (client, events)
}

/// [v3 MQTT-7.1.2-1]
#[tokio::test]
async fn every_version_and_qos_carries_a_message_both_ways() {
    let broker = Mosquitto::start();
    for version in [Version::V31, Version::V311, Version::V5] {
        let options = Options { version, ..Options::new(broker.address(), "round-trip") };
        let (client, mut events) = soon(Client::connect(options)).await.unwrap();
        let granted = soon(client.subscribe([Subscription::new("a/+", QoS::ExactlyOnce)])).await.unwrap();
        assert_eq!(granted.reasons, [ReasonCode::GrantedQos2]);
        for qos in ALL_QOS {
            let payload = format!("{version} {qos:?}");
            soon(client.publish(Message::new("a/b", payload.clone()).qos(qos))).await.unwrap();
            let received = message(&mut events).await;
            assert_eq!(received.message.payload, payload);
            assert_eq!((received.message.qos, received.message.topic.as_str()), (qos, "a/b"));
        }
        let gone = soon(client.unsubscribe(["a/+".to_owned()])).await.unwrap();
        assert_eq!(gone.reasons, [ReasonCode::Success]);
        soon(client.disconnect(Goodbye::default())).await;
        let last = soon(async {
            loop {
                match events.next().await {
                    Some(Event::Disconnected { why, retry_in }) => break (why, retry_in),
                    Some(_) => {}
                    None => panic!("the end is told"),
                }
            }
        })
        .await;
        assert!(matches!(last, (Disconnected::ByUs, None)));
        assert!(soon(events.next()).await.is_none());
    }
}

#[tokio::test]
async fn properties_of_version_5_arrive() {
    let broker = Mosquitto::start();
    let (client, mut events) = subscriber(&broker, "#").await;
    let mut sent = Message::new("t", "{}").qos(QoS::AtLeastOnce);
    sent.properties.content_type = Some("application/json".into());
    sent.properties.response_topic = Some("answers".into());
    sent.properties.correlation_data = Some(vec![0, 255].into());
    sent.properties.user_properties = vec![("a".into(), "1".into()), ("a".into(), "2".into())];
    soon(client.publish(sent.clone())).await.unwrap();
    assert_eq!(message(&mut events).await.message.properties, sent.properties);
}

#[tokio::test]
async fn thousands_of_messages_come_in_order_through_small_queues() {
    let broker = Mosquitto::start();
    for qos in [QoS::AtLeastOnce, QoS::ExactlyOnce] {
        let (client, mut events) = soon(Client::connect(Options {
            event_capacity: 3,
            command_capacity: 2,
            max_inflight: 10,
            // No Receive Maximum: Mosquitto 2.0.11 exceeds it after its queue was full, and is closed for that.
            ..Options::new(broker.address(), "small")
        }))
        .await
        .unwrap();
        soon(client.subscribe([Subscription::new("n", QoS::ExactlyOnce)])).await.unwrap();
        let sending = tokio::spawn(async move {
            for number in 0..5_000_u32 {
                let payload = Bytes::copy_from_slice(&number.to_be_bytes());
                // The delivery is dropped; the message goes its way all the same.
                drop(client.submit(Message::new("n", payload).qos(qos)).await.unwrap());
            }
            client
        });
        for number in 0..5_000_u32 {
            assert_eq!(*message(&mut events).await.message.payload, number.to_be_bytes());
        }
        drop(soon(sending).await.unwrap());
    }
}

#[tokio::test]
async fn a_large_message_arrives_whole() {
    let broker = Mosquitto::start();
    let (client, mut events) = subscriber(&broker, "large").await;
    let payload: Vec<u8> = (0..3_000_000_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    soon(client.publish(Message::new("large", payload.clone()).qos(QoS::ExactlyOnce))).await.unwrap();
    assert_eq!(message(&mut events).await.message.payload, payload);
}

#[tokio::test]
async fn nobody_there_is_said_at_once() {
    let port = free_port();
    let refused = soon(Client::connect(Options::new(format!("127.0.0.1:{port}"), "x"))).await.unwrap_err();
    assert!(matches!(refused.0, Disconnected::Unreachable(_)), "{refused}");
}

#[tokio::test]
async fn a_refusal_carries_the_brokers_reason() {
    let broker = Mosquitto::start_with("allow_anonymous false\n");
    for version in [Version::V311, Version::V5] {
        let options = Options { version, ..Options::new(broker.address(), "x") };
        let refused = soon(Client::connect(options)).await.unwrap_err();
        assert!(
            matches!(refused.0, Disconnected::Refused { reason: ReasonCode::NotAuthorized, .. }),
            "{version}: {refused}"
        );
    }
}

#[tokio::test]
async fn a_will_is_published_after_an_abort_and_not_after_a_goodbye() {
    let broker = Mosquitto::start();
    let (_client, mut events) = subscriber(&broker, "will/#").await;
    let with_will = |name: &str| Options {
        will: Some(Will { message: Message::new(format!("will/{name}"), "gone"), delay_interval: None }),
        ..Options::new(broker.address(), name)
    };
    let (polite, _events) = soon(Client::connect(with_will("polite"))).await.unwrap();
    soon(polite.disconnect(Goodbye::default())).await;
    // Dropping the last handle is a good-bye too; its stream ends when it is said.
    let (dropped, mut its_events) = soon(Client::connect(with_will("dropped"))).await.unwrap();
    drop(dropped);
    while soon(its_events.next()).await.is_some() {}
    let (abrupt, _events) = soon(Client::connect(with_will("abrupt"))).await.unwrap();
    abrupt.abort();
    assert_eq!(message(&mut events).await.message.topic, "will/abrupt");
}

#[tokio::test]
async fn what_was_queued_is_sent_before_the_goodbye() {
    let broker = Mosquitto::start();
    let (_client, mut events) = subscriber(&broker, "q").await;
    let (hasty, _) = soon(Client::connect(Options::new(broker.address(), "hasty"))).await.unwrap();
    for number in 0..50 {
        hasty.publish_nowait(Message::new("q", format!("{number}"))).unwrap();
    }
    drop(hasty);
    for number in 0..50 {
        assert_eq!(message(&mut events).await.message.payload, format!("{number}"));
    }
}

#[tokio::test]
async fn a_client_comes_back_when_its_broker_does() {
    let broker = Mosquitto::start();
    let backoff =
        Backoff { first: Duration::from_millis(20), max: Duration::from_millis(200), jitter: 0.5, seed: 1 };
    let options =
        Options { reconnect: Reconnect::WithBackoff(backoff), ..Options::new(broker.address(), "steady") };
    let (client, mut events) = soon(Client::connect(options)).await.unwrap();
    match soon(events.next()).await {
        Some(Event::Connected(first)) => {
            assert_eq!(first.connection, 1);
            assert!(
                first.local_address.is_some_and(|address| address.ip().is_loopback() && address.port() > 0)
            );
        }
        other => panic!("{other:?}"),
    }
    let _broker = broker.restart();
    let second = soon(async {
        loop {
            match events.next().await.expect("the client goes on") {
                Event::Connected(connected) => break connected,
                Event::Disconnected { retry_in, .. } => assert!(retry_in.is_some()),
                Event::Message(_) => {}
            }
        }
    })
    .await;
    assert_eq!(second.connection, 2);
    assert!(!second.session_present);
    soon(client.publish(Message::new("a", "b").qos(QoS::AtLeastOnce))).await.unwrap();
}

#[tokio::test]
async fn a_taken_over_client_does_not_fight_for_its_name() {
    // Mosquitto 2.0 only closes; a broker that says why is played here: CONNACK, then DISCONNECT 0x8E.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let options = Options {
        reconnect: Reconnect::WithBackoff(Backoff::default()),
        ..Options::new(listener.local_addr().unwrap().to_string(), "same")
    };
    let (_client, mut events) = Client::start(options);
    let (mut stream, _) = soon(listener.accept()).await.unwrap();
    soon(stream.write_all(&[0x20, 3, 0, 0, 0, 0xE0, 1, 0x8E])).await.unwrap();
    assert!(matches!(soon(events.next()).await, Some(Event::Connected(_))));
    match soon(events.next()).await {
        Some(Event::Disconnected { why: Disconnected::ByServer { reason, .. }, retry_in: None }) => {
            assert_eq!(reason, ReasonCode::SessionTakenOver);
        }
        other => panic!("{other:?}"),
    }
    assert!(soon(events.next()).await.is_none());
}

#[tokio::test]
async fn the_command_queue_is_bounded() {
    let port = free_port();
    let options = Options {
        command_capacity: 3,
        reconnect: Reconnect::WithBackoff(Backoff { first: PATIENCE, ..Backoff::default() }),
        ..Options::new(format!("127.0.0.1:{port}"), "x")
    };
    let (client, mut events) = Client::start(options);
    assert!(matches!(soon(events.next()).await, Some(Event::Disconnected { retry_in: Some(_), .. })));
    // One command may be in the driver's hand beside those in the queue.
    let taken = (0..10).filter(|_| client.publish_nowait(Message::new("a", "b")).is_ok()).count();
    assert!((3..=4).contains(&taken), "{taken}");
    assert_eq!(client.publish_nowait(Message::new("a", "b")), Err(PublishError::QueueFull));
    client.abort();
    assert!(soon(events.next()).await.is_none());
    assert_eq!(client.publish_nowait(Message::new("a", "b")), Err(PublishError::Closed));
}

#[tokio::test]
async fn a_session_goes_on_after_an_abrupt_end() {
    let broker = Mosquitto::start();
    let options = Options { session_expiry_interval: Some(60), ..Options::new(broker.address(), "lasting") };
    let (client, _events) = soon(Client::connect(options.clone())).await.unwrap();
    soon(client.subscribe([Subscription::new("kept", QoS::ExactlyOnce)])).await.unwrap();
    client.abort();
    let (other, _other_events) =
        soon(Client::connect(Options::new(broker.address(), "other"))).await.unwrap();
    for qos in [QoS::AtLeastOnce, QoS::ExactlyOnce] {
        soon(other.publish(Message::new("kept", format!("{qos:?}")).qos(qos))).await.unwrap();
    }
    let (_again, mut events) =
        soon(Client::connect(Options { clean_start: false, ..options })).await.unwrap();
    assert!(matches!(soon(events.next()).await, Some(Event::Connected(now)) if now.session_present));
    assert_eq!(message(&mut events).await.message.payload, "AtLeastOnce");
    assert_eq!(message(&mut events).await.message.payload, "ExactlyOnce");
}

#[tokio::test]
async fn a_connection_comes_from_the_address_that_was_asked_for() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let server = listener.local_addr().unwrap().to_string();
    let options = Options::new(server, "x").from_address("127.0.77.7".parse().unwrap());
    let (client, _events) = Client::start(options);
    let (_stream, peer) =
        soon(tokio::task::spawn_blocking(move || listener.accept())).await.unwrap().unwrap();
    assert_eq!(peer.ip().to_string(), "127.0.77.7");
    client.abort();
}
