//! One behaviour each.

use mqtt::packet::{Ack, Connack, ConnackProperties, Publish, PublishProperties, ReasonProperties, Suback};

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn publish_packet(topic: &str, alias: Option<u16>, qos: QoS, id: Option<u16>) -> Packet<'static> {
    Packet::Publish(Publish {
        dup: false,
        qos,
        retain: false,
        topic: topic.to_owned().into(),
        packet_id: id.and_then(PacketId::new),
        properties: PublishProperties { topic_alias: alias, ..PublishProperties::default() }.into(),
        payload: b"x"[..].into(),
    })
}

/// What the machine said in the end, as the peer reads it.
fn goodbye(world: &mut World) -> Option<ReasonCode> {
    let len = world.machine.output().len();
    let bytes = world.machine.output()[..len].to_vec();
    world.peer.receive(&bytes);
    world.peer.other.iter().find_map(|packet| match packet {
        Packet::Disconnect(bye) => Some(bye.reason),
        _ => None,
    })
}

fn refused_with(world: &mut World, packet: &Packet<'_>) -> (Disconnected, Option<ReasonCode>) {
    world.peer.send(packet);
    let bytes = std::mem::take(&mut world.peer.output);
    world.machine.receive(&bytes, world.now);
    assert!(world.machine.wants_close());
    let said = goodbye(world);
    (world.machine.take_end().unwrap(), said)
}

#[test]
fn silence_is_broken_by_pingreq_and_the_answer_keeps_the_connection() {
    let mut world = World::connected(options(Version::V311));
    let start = world.now;
    for round in 1..=3 {
        let due = world.machine.deadline().unwrap();
        assert_eq!(due - start, 45 * SECOND * round, "three quarters of 60 s");
        world.advance(due - world.now);
        world.machine.tick(world.now);
        world.settle();
        assert!(world.machine.is_connected());
    }
}

#[test]
fn pingreq_goes_out_even_while_only_we_talk() {
    let mut world = World::connected(options(Version::V5));
    let mut pinged_after = Vec::new();
    for seconds in (5..=60).step_by(5) {
        world.advance(5 * SECOND);
        world.publish("x", QoS::AtMostOnce, 0);
        world.machine.tick(world.now);
        if world.machine.output().ends_with(&[0xC0, 0]) {
            pinged_after.push(seconds);
        }
        let len = world.machine.output().len();
        world.machine.written(len, world.now);
        if !pinged_after.is_empty() {
            break;
        }
    }
    assert_eq!(pinged_after, [45], "silence of the broker alone calls for a PINGREQ");
}

#[test]
fn a_broker_that_does_not_answer_pingreq_is_given_up() {
    let mut world = World::connected(options(Version::V5));
    world.advance(45 * SECOND);
    world.machine.tick(world.now);
    assert_eq!(world.machine.deadline().unwrap() - world.now, 10 * SECOND);
    world.advance(10 * SECOND);
    world.machine.tick(world.now);
    assert!(matches!(world.machine.take_end(), Some(Disconnected::PingTimeout)));
}

#[test]
fn silence_is_not_the_brokers_fault_while_the_application_takes_nothing() {
    let mut world = World::connected(options(Version::V5));
    world.machine.set_paused(true, world.now);
    for _ in 0..100 {
        let due = world.machine.deadline().unwrap();
        world.advance(due - world.now);
        world.machine.tick(world.now);
        let len = world.machine.output().len();
        assert_eq!(len, 2, "our own keep alive goes on [MQTT-3.1.2-20]");
        world.machine.written(len, world.now);
    }
    world.machine.set_paused(false, world.now);
    world.machine.tick(world.now);
    assert!(world.machine.is_connected());
    world.advance(10 * SECOND);
    world.machine.tick(world.now);
    assert!(matches!(world.machine.take_end(), Some(Disconnected::PingTimeout)));
}

#[test]
fn the_servers_keep_alive_counts() {
    // [MQTT-3.2.2-21], [MQTT-3.1.2-21]
    let mut world = World::new(options(Version::V5));
    world.peer.connack.server_keep_alive = Some(4);
    world.connect();
    world.settle();
    assert_eq!(world.machine.deadline().unwrap() - world.now, 3 * SECOND);
}

#[test]
fn keep_alive_of_zero_turns_it_off() {
    // [MQTT-3.1.2-24] leaves it to the client.
    let world = World::connected(Options { keep_alive: 0, ..options(Version::V5) });
    assert_eq!(world.machine.deadline(), None);
}

#[test]
fn no_connack_in_time_ends_the_attempt() {
    let mut world = World::new(options(Version::V5));
    world.connect();
    world.advance(10 * SECOND);
    world.machine.tick(world.now);
    assert!(matches!(world.machine.take_end(), Some(Disconnected::ConnectTimeout)));
    assert!(world.machine.output().is_empty());
}

#[test]
fn no_more_are_under_way_than_the_broker_takes() {
    // [MQTT-3.3.4-7]
    let mut world = World::new(options(Version::V5));
    world.peer.connack.receive_maximum = Some(2);
    world.peer.acknowledges = false;
    world.connect();
    world.settle();
    for token in 0..2 {
        assert!(world.machine.can_publish(QoS::ExactlyOnce));
        world.publish("x", QoS::ExactlyOnce, token);
    }
    assert!(!world.machine.can_publish(QoS::AtLeastOnce));
    assert!(world.machine.can_publish(QoS::AtMostOnce), "QoS 0 has no quota");
    world.settle();
    assert_eq!(world.peer.most_unacknowledged, 2);
}

#[test]
fn a_smaller_window_after_a_reconnect_holds_for_what_is_sent_again() {
    let mut world = World::new(options(Version::V5));
    world.peer.acknowledges = false;
    world.connect();
    world.settle();
    for token in 0..6 {
        world.publish(&format!("up {token}"), QoS::AtLeastOnce, token);
    }
    world.settle();
    world.peer.taken.clear();
    world.peer.connack.receive_maximum = Some(2);
    world.peer.most_unacknowledged = 0;
    world.connect();
    world.settle();
    assert_eq!(world.peer.taken, ["up 0", "up 1"]);
    assert!(!world.machine.can_publish(QoS::AtLeastOnce), "nothing overtakes [MQTT-4.6.0-1]");
    world.peer.acknowledges = true;
    for id in [1, 2] {
        let packet_id = PacketId::new(id).unwrap();
        let ack = Ack { packet_id, reason: ReasonCode::Success, properties: ReasonProperties::default() };
        world.peer.unacknowledged.retain(|other| *other != packet_id);
        world.peer.send(&Packet::Puback(ack));
    }
    world.settle();
    assert_eq!(world.peer.taken, ["up 0", "up 1", "up 2", "up 3", "up 4", "up 5"]);
    assert!(world.peer.most_unacknowledged <= 2);
    assert_eq!(world.published.len(), 6);
}

#[test]
fn a_lost_session_tells_those_who_wait() {
    // [MQTT-3.2.2-5]
    for version in [Version::V311, Version::V5] {
        let mut world = World::connected(options(version));
        world.peer.acknowledges = false;
        world.publish("a", QoS::AtLeastOnce, 1);
        world.publish("b", QoS::ExactlyOnce, 2);
        world.settle();
        world.peer.forget_session();
        world.connect();
        world.settle();
        assert!(!world.connected.last().unwrap().session_present);
        assert_eq!(
            world.published,
            [(1, Err(PublishError::SessionLost)), (2, Err(PublishError::SessionLost))]
        );
        assert_eq!(world.peer.publishes.len(), 2, "nothing is sent again into a new session");
    }
}

#[test]
fn a_client_without_a_lasting_session_asks_for_a_clean_start_each_time() {
    let mut options = options(Version::V5);
    options.clean_start = true;
    options.session_expiry_interval = None;
    let mut world = World::connected(options.clone());
    world.connect();
    assert_eq!(world.machine.output()[9] & 2, 2);
    options.session_expiry_interval = Some(60);
    let mut world = World::connected(options);
    world.connect();
    assert_eq!(world.machine.output()[9] & 2, 0, "its own session is not to be thrown away");
}

#[test]
fn a_session_that_is_present_after_a_clean_start_is_a_broken_protocol() {
    // [MQTT-3.2.2-4], a breach of [MQTT-3.2.2-2]
    let mut world = World::new(Options { clean_start: true, ..options(Version::V5) });
    world.connect();
    let connack = Connack {
        session_present: true,
        reason: ReasonCode::Success,
        properties: ConnackProperties::default(),
    };
    world.peer.connected = true;
    let (end, _) = refused_with(&mut world, &Packet::Connack(Box::new(connack)));
    assert!(matches!(end, Disconnected::Protocol(error) if error.clause == "MQTT-3.2.2-2"));
}

#[test]
fn anything_before_connack_is_a_broken_protocol() {
    // [MQTT-3.2.0-1]
    let mut world = World::new(options(Version::V5));
    world.connect();
    let (end, _) = refused_with(&mut world, &publish_packet("a", None, QoS::AtMostOnce, None));
    assert!(matches!(end, Disconnected::Protocol(error) if error.clause == "MQTT-3.2.0-1"));
}

#[test]
fn a_refusal_is_told_with_its_reason() {
    let mut world = World::new(options(Version::V5));
    world.connect();
    let properties =
        ConnackProperties { reason_string: Some("go away".into()), ..ConnackProperties::default() };
    let connack = Connack { session_present: false, reason: ReasonCode::Banned, properties };
    let (end, said) = refused_with(&mut world, &Packet::Connack(Box::new(connack)));
    assert_eq!(end.to_string(), "the broker refused the connection: Banned (go away)");
    assert!(end.is_final());
    assert_eq!(said, None);
}

#[test]
fn a_broker_that_does_not_know_version_5_is_understood() {
    let mut world = World::new(options(Version::V5));
    world.connect();
    world.machine.receive(&[0x20, 0x02, 0x00, 0x01], world.now);
    assert!(matches!(
        world.machine.take_end(),
        Some(Disconnected::Refused { reason: ReasonCode::UnsupportedProtocolVersion, .. })
    ));
}

#[test]
fn an_assigned_identifier_is_kept_for_the_next_connection() {
    // [MQTT-3.2.2-16]
    let mut options = options(Version::V5);
    options.client_id = String::new();
    options.clean_start = true;
    let mut world = World::new(options);
    world.peer.connack.assigned_client_identifier = Some("made-up".into());
    world.connect();
    world.settle();
    assert_eq!(world.machine.options().client_id, "made-up");
}

#[test]
fn topic_aliases_of_the_broker_are_resolved_and_end_with_the_connection() {
    // [MQTT-3.3.2-10], [MQTT-3.3.2-7]
    let mut world = World::connected(Options { topic_alias_maximum: 2, ..options(Version::V5) });
    world.peer.send(&publish_packet("first", Some(1), QoS::AtMostOnce, None));
    world.peer.send(&publish_packet("long/topic", Some(2), QoS::AtMostOnce, None));
    world.peer.send(&publish_packet("", Some(1), QoS::AtMostOnce, None));
    world.peer.send(&publish_packet("", Some(2), QoS::AtMostOnce, None));
    world.peer.send(&publish_packet("other", Some(2), QoS::AtMostOnce, None));
    world.peer.send(&publish_packet("", Some(2), QoS::AtMostOnce, None));
    let bytes = std::mem::take(&mut world.peer.output);
    world.machine.receive(&bytes, world.now);
    let mut topics = Vec::new();
    while let Some(event) = world.machine.poll_event() {
        if let Event::Message(received) = event {
            topics.push(received.message.topic);
        }
    }
    assert_eq!(topics, ["first", "long/topic", "first", "long/topic", "other", "other"]);
    world.connect();
    world.settle();
    // (3.3.2.3.4) an alias does not outlive its connection.
    let (end, said) = refused_with(&mut world, &publish_packet("", Some(2), QoS::AtMostOnce, None));
    assert!(matches!(end, Disconnected::Protocol(_)));
    assert_eq!(said, Some(ReasonCode::ProtocolError));
}

#[test]
fn an_alias_above_the_maximum_ends_the_connection() {
    // [MQTT-3.1.2-26]
    let mut world = World::connected(Options { topic_alias_maximum: 2, ..options(Version::V5) });
    let (_, said) = refused_with(&mut world, &publish_packet("a", Some(3), QoS::AtMostOnce, None));
    assert_eq!(said, Some(ReasonCode::TopicAliasInvalid));
}

#[test]
fn a_broker_that_sends_more_than_it_was_granted_is_told_so() {
    // [MQTT-3.3.4-9]
    let mut world = World::connected(Options { receive_maximum: Some(2), ..options(Version::V5) });
    for id in 1..=2 {
        world.peer.send(&publish_packet("a", None, QoS::ExactlyOnce, Some(id)));
    }
    let (_, said) = refused_with(&mut world, &publish_packet("a", None, QoS::ExactlyOnce, Some(3)));
    assert_eq!(said, Some(ReasonCode::ReceiveMaximumExceeded));
}

#[test]
fn a_message_is_acknowledged_when_the_application_has_it() {
    let mut world = World::connected(options(Version::V311));
    world.peer.send(&publish_packet("a", None, QoS::AtLeastOnce, Some(7)));
    let bytes = std::mem::take(&mut world.peer.output);
    world.machine.receive(&bytes, world.now);
    assert!(world.machine.output().is_empty());
    assert!(matches!(world.machine.poll_event(), Some(Event::Message(_))));
    assert_eq!(world.machine.output(), [0x40, 2, 0, 7]);
}

#[test]
fn a_message_of_a_lost_connection_is_not_acknowledged_on_the_next() {
    let mut world = World::connected(options(Version::V311));
    world.peer.send(&publish_packet("a", None, QoS::AtLeastOnce, Some(7)));
    let bytes = std::mem::take(&mut world.peer.output);
    world.machine.receive(&bytes, world.now);
    world.connect();
    let connect = world.machine.output().to_vec();
    world.machine.written(connect.len(), world.now);
    world.peer.receive(&connect);
    let bytes = std::mem::take(&mut world.peer.output);
    world.machine.receive(&bytes, world.now);
    assert!(matches!(world.machine.poll_event(), Some(Event::Message(_))));
    assert!(world.machine.output().is_empty());
}

#[test]
fn what_the_broker_does_not_take_is_not_sent() {
    // [MQTT-3.2.2-11], [MQTT-3.2.2-14], [MQTT-3.2.2-15], [MQTT-3.2.2-17], [MQTT-3.2.2-18], [MQTT-3.3.2-9]
    let mut world = World::new(options(Version::V5));
    world.peer.connack.maximum_qos = Some(QoS::AtLeastOnce);
    world.peer.connack.retain_available = Some(false);
    world.peer.connack.maximum_packet_size = Some(40);
    world.connect();
    world.settle();
    let mut with_alias = Message::new("a", "x");
    with_alias.properties.topic_alias = Some(1);
    let refused = [
        Message::new("a", "x").qos(QoS::ExactlyOnce),
        Message::new("a", "x").retained(),
        Message::new("a", vec![0; 40]),
        Message::new("a", vec![0; 40]).qos(QoS::AtLeastOnce),
        with_alias,
        Message::new("a/#", "x"),
        Message::new("", "x"),
    ];
    for (token, message) in refused.into_iter().enumerate() {
        world.machine.publish(message, token);
    }
    world.drain();
    assert_eq!(world.published.len(), 7);
    assert!(world.published.iter().all(|(_, result)| matches!(result, Err(PublishError::Invalid(_)))));
    assert!(world.machine.output().is_empty());
    world.publish("fits", QoS::AtLeastOnce, 9);
    world.settle();
    assert_eq!(world.published.last(), Some(&(9, Ok(ReasonCode::Success))));
}

#[test]
fn a_refused_message_is_told_with_its_reason() {
    let mut world = World::connected(options(Version::V5));
    world.peer.acknowledges = false;
    world.publish("a", QoS::AtLeastOnce, 1);
    world.publish("b", QoS::ExactlyOnce, 2);
    world.settle();
    let mut ack = Ack {
        packet_id: PacketId::MIN,
        reason: ReasonCode::NotAuthorized,
        properties: ReasonProperties::default(),
    };
    world.peer.send(&Packet::Puback(ack.clone()));
    ack.packet_id = PacketId::new(2).unwrap();
    world.peer.send(&Packet::Pubrec(ack));
    world.settle();
    let refused = PublishError::Refused { reason: ReasonCode::NotAuthorized, reason_string: None };
    assert_eq!(world.published, [(1, Err(refused.clone())), (2, Err(refused))]);
}

#[test]
fn requests_and_messages_never_share_an_identifier() {
    // [MQTT-2.2.1-3]
    let mut world = World::connected(options(Version::V5));
    world.peer.acknowledges = false;
    for token in 0..20 {
        world.publish("x", QoS::AtLeastOnce, token);
    }
    for token in 100..100 + REQUEST_LIMIT {
        assert!(world.machine.can_request());
        let request = SubscribeRequest {
            subscriptions: vec![crate::Subscription::new("a/#", QoS::AtLeastOnce)],
            ..SubscribeRequest::default()
        };
        world.machine.subscribe(request, token);
    }
    assert!(!world.machine.can_request());
    let mut ids: Vec<u16> = world.machine.requests.iter().map(|request| request.packet_id.get()).collect();
    ids.extend(1..=20);
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 20 + REQUEST_LIMIT);
    world.settle();
    assert_eq!(world.subscribed.len(), REQUEST_LIMIT);
    assert!(world.machine.can_request());
}

#[test]
fn messages_wait_rather_than_take_the_identifier_of_a_request() {
    // [MQTT-2.2.1-3] a SUBSCRIBE that is never answered, and as many messages as there are identifiers
    let mut world = World::connected(options(Version::V5));
    world.publish("x", QoS::AtLeastOnce, 0);
    world.settle();
    let request = SubscribeRequest {
        subscriptions: vec![crate::Subscription::new("a", QoS::AtMostOnce)],
        ..SubscribeRequest::default()
    };
    world.machine.subscribe(request, 1);
    let taken = world.machine.requests[0].packet_id;
    let len = world.machine.output().len();
    world.machine.written(len, world.now);
    let mut sent = 0;
    while world.machine.can_publish(QoS::AtLeastOnce) {
        world.publish("x", QoS::AtLeastOnce, 2);
        assert_ne!(world.machine.last_id, taken);
        world.settle();
        sent += 1;
        assert!(sent < 70_000);
    }
    assert!(sent > 65_000, "only {sent}");
    world.peer.send(&Packet::Suback(Suback {
        packet_id: taken,
        properties: ReasonProperties::default(),
        reasons: vec![ReasonCode::Success],
    }));
    world.settle();
    assert!(world.machine.can_publish(QoS::AtLeastOnce));
}

#[test]
fn invalid_filters_are_not_sent() {
    let mut world = World::connected(options(Version::V5));
    for (token, filter) in ["", "a/#/b", "a+", "$share//a"].into_iter().enumerate() {
        let request = SubscribeRequest {
            subscriptions: vec![crate::Subscription::new(filter, QoS::AtMostOnce)],
            ..SubscribeRequest::default()
        };
        world.machine.subscribe(request, token);
    }
    world.drain();
    assert_eq!(world.subscribed.len(), 4);
    assert!(world.subscribed.iter().all(|(_, result)| matches!(result, Err(RequestError::Invalid(_)))));
    assert!(world.machine.output().is_empty());
}

#[test]
fn a_goodbye_is_the_last_packet_and_ends_everything() {
    let mut world = World::connected(options(Version::V5));
    world.peer.acknowledges = false;
    world.publish("x", QoS::AtLeastOnce, 5);
    world.machine.disconnect(Goodbye {
        reason: ReasonCode::DisconnectWithWill,
        session_expiry_interval: Some(7),
        ..Goodbye::default()
    });
    assert_eq!(goodbye(&mut world), Some(ReasonCode::DisconnectWithWill));
    world.machine.finish();
    world.drain();
    assert_eq!(world.published, [(5, Err(PublishError::Closed))]);
    assert!(matches!(world.machine.take_end(), Some(Disconnected::ByUs)));
}

#[test]
fn before_version_5_only_a_normal_goodbye_is_written() {
    let mut world = World::connected(options(Version::V311));
    world.machine.disconnect(Goodbye { reason: ReasonCode::DisconnectWithWill, ..Goodbye::default() });
    assert!(world.machine.output().is_empty());
    let mut world = World::connected(options(Version::V311));
    world.machine.disconnect(Goodbye::default());
    assert_eq!(world.machine.output(), [0xE0, 0]);
}
