//! What a publisher says about a message comes to every receiver as it was said, whichever way the message takes.

use mqtt::packet::{
    Connect, ConnectProperties, Packet, Properties, Publish, PublishProperties, Subscribe, SubscribeFilter,
    SubscriptionOptions,
};
use mqtt::{QoS, ReasonCode, Version};

use super::rig::*;
use crate::config::BrokerConfig;
use crate::sim::world::World;

const EXPIRY: u32 = 100;

/// All that is forwarded, in an order that no encoder of ours writes.
const SECTION: &[u8] =
    b"\x26\0\x01b\0\x011\x03\0\x0atext/plain\x26\0\x01a\0\x012\x02\0\0\0\x64\x08\0\x09answers/1\
    \x09\0\x02\0\xff\x26\0\x01b\0\x011\x01\x01\x26\0\x01b\0\x010";

/// The same taken apart, with so many seconds left.
fn said(left: u32) -> PublishProperties<'static> {
    let pair = |name: &str, value: &str| (name.to_owned().into(), value.to_owned().into());
    PublishProperties {
        payload_format_indicator: Some(true),
        message_expiry_interval: Some(left),
        response_topic: Some("answers/1".into()),
        correlation_data: Some(b"\0\xff".as_slice().into()),
        user_properties: vec![pair("b", "1"), pair("a", "2"), pair("b", "1"), pair("b", "0")],
        content_type: Some("text/plain".into()),
        ..Default::default()
    }
}

/// A PUBLISH to `a` of version 5 with this section.
fn bytes(qos: QoS, retain: bool, id: u16, section: &[u8], payload: &[u8]) -> Vec<u8> {
    let mut body = vec![0, 1, b'a'];
    if qos > QoS::AtMostOnce {
        body.extend(id.to_be_bytes());
    }
    body.push(u8::try_from(section.len()).unwrap());
    body.extend([section, payload].concat());
    let head = [0x30 | (qos as u8) << 1 | u8::from(retain), u8::try_from(body.len()).unwrap()];
    assert!(section.len() < 128 && body.len() < 128, "lengths of one byte");
    [&head[..], &body].concat()
}

fn say(w: &mut World, publisher: Peer, bytes: &[u8]) {
    w.write(publisher.link, bytes);
    w.run();
    publisher.read(w);
}

fn messages(packets: Vec<Packet<'static>>) -> Vec<Publish<'static>> {
    let message = |packet| match packet {
        Packet::Publish(publish) => Some(publish),
        _ => None,
    };
    packets.into_iter().filter_map(message).collect()
}

/// Who gets it: where it is connected, what it speaks, and what makes its packets different from those of others.
#[derive(Clone, Copy)]
struct Receiver {
    worker: usize,
    version: Version,
    durable: bool,
    identifier: Option<u32>,
    aliases: Option<u16>,
}

impl Receiver {
    fn connect(self, w: &mut World, name: &str) -> Peer {
        let properties = ConnectProperties {
            topic_alias_maximum: self.aliases,
            session_expiry_interval: (self.durable && self.version.is_v5()).then_some(NEVER),
            ..Default::default()
        };
        let peer = Peer::begin(
            w,
            self.worker,
            Connect { version: self.version, properties, ..connect(name, !self.durable, 0) },
        );
        w.run();
        peer
    }

    /// The messages that it has got and gets for it.
    fn subscribe(self, w: &mut World, peer: Peer) -> Vec<Publish<'static>> {
        let options = SubscriptionOptions { qos: QoS::ExactlyOnce, ..Default::default() };
        let subscribe = Subscribe {
            packet_id: pid(1),
            subscription_identifier: self.identifier.filter(|_| self.version.is_v5()),
            user_properties: Vec::new(),
            filters: vec![SubscribeFilter { filter: "a".into(), options }],
        };
        messages(peer.ask(w, Packet::Subscribe(subscribe)))
    }

    /// What it is told of [`said`].
    fn expects(self, left: u32) -> Properties<'static> {
        let identifiers = self.identifier.into_iter().collect();
        match self.version {
            Version::V5 => PublishProperties { subscription_identifiers: identifiers, ..said(left) }.into(),
            _ => Properties::default(),
        }
    }
}

fn receivers() -> Vec<Receiver> {
    let mut all = Vec::new();
    for (worker, durable) in [(0, false), (1, false), (0, true), (1, true)] {
        let plain = Receiver { worker, version: Version::V5, durable, identifier: None, aliases: None };
        all.extend([
            plain,
            Receiver { version: Version::V311, ..plain },
            Receiver { identifier: Some(300), ..plain },
            Receiver { aliases: Some(5), ..plain },
            Receiver { identifier: Some(1), aliases: Some(1), ..plain },
        ]);
    }
    all
}

/// [MQTT-3.3.2-4], [MQTT-3.3.2-15], [MQTT-3.3.2-16], [MQTT-3.3.2-17], [MQTT-3.3.2-18], [MQTT-3.3.2-20]: to receivers of both
/// versions, of both workers, with sessions that end and that stay, with identifiers and aliases.
#[test]
fn properties_arrive_unaltered_at_every_receiver() {
    for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
        let mut w = world(2);
        let all = receivers();
        let mut peers = Vec::new();
        for (number, receiver) in all.iter().enumerate() {
            let peer = receiver.connect(&mut w, &format!("r{number}"));
            receiver.subscribe(&mut w, peer);
            peers.push(peer);
        }
        let publisher = Peer::clean(&mut w, "pub");
        for id in 1..=3 {
            say(&mut w, publisher, &bytes(qos, false, id, SECTION, b"x"));
            if qos == QoS::ExactlyOnce {
                publisher.ask(&mut w, Packet::Pubrel(ack(id)));
            }
        }
        for (receiver, peer) in all.iter().zip(peers) {
            let got = messages(peer.read(&mut w));
            assert_eq!(got.len(), 3, "{qos:?}");
            for publish in got {
                let mut properties = publish.properties;
                let alias = properties.topic_alias();
                assert!(alias.is_none() || receiver.aliases.is_some());
                properties.edit(|p| p.topic_alias = None);
                assert_eq!(properties, receiver.expects(EXPIRY), "{qos:?}");
                assert_eq!((publish.qos, &*publish.payload), (qos, &b"x"[..]));
            }
        }
    }
}

/// Of what waits, the time that is left is told and all else stays [MQTT-3.3.2-6]: retained, for a session whose client is away, and
/// for a client that has no room.
#[test]
fn properties_stay_with_a_message_that_waits() {
    let mut w = world(2);
    let plain =
        Receiver { worker: 1, version: Version::V5, durable: false, identifier: Some(9), aliases: None };
    let away = Receiver { durable: true, ..plain };
    let peer = away.connect(&mut w, "away");
    away.subscribe(&mut w, peer);
    peer.cut(&mut w);
    let properties = ConnectProperties { receive_maximum: Some(1), ..Default::default() };
    let (busy, _) = Peer::connect(&mut w, 0, Connect { properties, ..connect("busy", true, 0) });
    plain.subscribe(&mut w, busy);
    let publisher = Peer::clean(&mut w, "pub");
    for id in 1..=2 {
        say(&mut w, publisher, &bytes(QoS::AtLeastOnce, true, id, SECTION, b"x"));
    }
    let first = messages(busy.read(&mut w));
    assert!(matches!(first.as_slice(), [p] if p.properties == plain.expects(EXPIRY)), "{first:?}");
    w.advance(seconds(10));
    let second = messages(busy.ask(&mut w, Packet::Puback(ack(first[0].packet_id.unwrap().get()))));
    assert!(matches!(second.as_slice(), [p] if p.properties == plain.expects(90)), "{second:?}");
    let back = away.connect(&mut w, "away");
    let got = messages(back.read(&mut w));
    assert_eq!(got.len(), 2);
    assert!(got.iter().all(|p| p.properties == away.expects(90)), "{got:?}");
    for receiver in [plain, Receiver { version: Version::V311, ..plain }] {
        let late = receiver.connect(&mut w, "late");
        let got = receiver.subscribe(&mut w, late);
        assert!(matches!(got.as_slice(), [p] if p.retain && p.properties == receiver.expects(90)), "{got:?}");
    }
    w.advance(seconds(100));
    let too_late = plain.connect(&mut w, "too late");
    assert_eq!(plain.subscribe(&mut w, too_late), []);
}

/// The properties count, and so do the identifiers of the receiver [MQTT-3.1.2-24], [MQTT-3.1.2-25].
#[test]
fn a_packet_that_is_too_large_with_its_properties_is_not_sent() {
    let whole = u32::try_from(bytes(QoS::AtMostOnce, false, 0, SECTION, b"x").len()).unwrap();
    for (identifier, more) in [(None, 0), (Some(1), 2), (Some(128), 3)] {
        for (most, comes) in [(whole + more, 1), (whole + more - 1, 0)] {
            let mut w = world(1);
            let properties = ConnectProperties { maximum_packet_size: Some(most), ..Default::default() };
            let (sub, _) = Peer::connect(&mut w, 0, Connect { properties, ..connect("sub", true, 0) });
            let receiver =
                Receiver { worker: 0, version: Version::V5, durable: false, identifier, aliases: None };
            receiver.subscribe(&mut w, sub);
            let publisher = Peer::clean(&mut w, "pub");
            say(&mut w, publisher, &bytes(QoS::AtMostOnce, false, 0, SECTION, b"x"));
            assert_eq!(messages(sub.read(&mut w)).len(), comes, "{identifier:?} {most}");
        }
    }
}

/// What is not right has its Reason Code, also where the rest of the section could have been forwarded as it is.
#[test]
fn a_section_that_is_not_right_ends_the_connection_with_its_reason() {
    use ReasonCode::{MalformedPacket, ProtocolError};
    for (section, reason) in [
        // twice (2.2.2.2), not UTF-8 [MQTT-1.5.4-1], U+0000 [MQTT-1.5.4-2], a wildcard [MQTT-3.3.2-14], neither 0 nor 1
        (&b"\x03\0\x01a\x03\0\x01b"[..], ProtocolError),
        (b"\x26\0\x01k\0\x02\xc3\x28", MalformedPacket),
        (b"\x26\0\x01k\0\x01\0", MalformedPacket),
        (b"\x08\0\x01#", ProtocolError),
        (b"\x01\x02", ProtocolError),
        // from servers only [MQTT-3.3.4-6], of other packets, and longer than the section
        (b"\x0b\x01", ProtocolError),
        (b"\x26\0\x01k\0\x01v\x11\0\0\0\x01", MalformedPacket),
        (b"\x26\0\x01k\0\x09v", MalformedPacket),
    ] {
        let mut w = world(1);
        let publisher = Peer::clean(&mut w, "pub");
        w.write(publisher.link, &bytes(QoS::AtMostOnce, false, 0, section, b"x"));
        w.run();
        let answer = publisher.read(&mut w);
        assert!(
            matches!(answer.as_slice(), [Packet::Disconnect(d)] if d.reason == reason),
            "{section:?}: {answer:?}"
        );
    }
}

/// [MQTT-3.3.2-4]: a payload that says of itself that it is text is asked, where the operator wants that.
#[test]
fn the_format_indicator_of_a_section_is_seen() {
    let config = BrokerConfig { check_payload_format: true, ..BrokerConfig::default() };
    let mut w = World::new(1, 1, config);
    let publisher = Peer::clean(&mut w, "pub");
    for (section, payload, reason) in [
        (SECTION, &b"\xff"[..], ReasonCode::PayloadFormatInvalid),
        (SECTION, b"text", ReasonCode::NoMatchingSubscribers),
        (b"\x03\0\x01a\x01\0", b"\xff", ReasonCode::NoMatchingSubscribers),
    ] {
        w.write(publisher.link, &bytes(QoS::AtLeastOnce, false, 1, section, payload));
        w.run();
        let answer = publisher.read(&mut w);
        assert!(matches!(answer.as_slice(), [Packet::Puback(a)] if a.reason == reason), "{answer:?}");
    }
}
