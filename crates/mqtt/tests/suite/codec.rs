//! Both directions of the codec against the table of fixtures, and the sizes at both sides of every threshold.

use std::borrow::Cow;

use mqtt::codec::decode::{Role, decode};
use mqtt::codec::encode::{self, EncodeError, PublishTemplate, encode, encoded_len};
use mqtt::codec::{DecodeError, Decoded, MAX_REMAINING_LENGTH};
use mqtt::packet::{Packet, PublishProperties, Suback, Subscribe, Unsuback, Unsubscribe};
use mqtt::{PacketId, QoS, ReasonCode, Version};

use crate::fixtures::{Expect, Fixture, table, wire};

const NO_LIMIT: u32 = u32::MAX;

fn read(fixture: &Fixture) -> Result<Decoded<'_>, DecodeError> {
    decode(&fixture.bytes, fixture.version, fixture.sender, NO_LIMIT)
}

#[test]
fn every_fixture_has_a_name_of_its_own_for_its_version() {
    let mut names: Vec<_> = table().iter().map(|fixture| (fixture.name, fixture.version)).collect();
    names.sort_unstable();
    let all = names.len();
    names.dedup();
    assert_eq!(names.len(), all);
}

#[test]
fn every_valid_packet_is_understood_and_every_invalid_one_refused_with_its_reason_and_clause() {
    for fixture in table() {
        let got = read(&fixture);
        match &fixture.expect {
            Expect::Packet(packet) | Expect::OtherForm(packet) => {
                let expected = Ok(Decoded::Packet(packet.clone(), fixture.bytes.len()));
                assert_eq!(got, expected, "{} ({})", fixture.name, fixture.version);
            }
            Expect::Error(reason, clause) => {
                let error = got.expect_err(fixture.name);
                assert_eq!(
                    (error.reason, error.clause),
                    (*reason, *clause),
                    "{} ({})",
                    fixture.name,
                    fixture.version
                );
            }
        }
    }
}

#[test]
fn every_valid_packet_is_encoded_to_its_shortest_form() {
    for fixture in table() {
        let (packet, same) = match &fixture.expect {
            Expect::Packet(packet) => (packet, true),
            Expect::OtherForm(packet) => (packet, false),
            Expect::Error(..) => continue,
        };
        let mut out = vec![0xAA];
        encode(packet, fixture.version, &mut out).expect(fixture.name);
        assert_eq!(out[0], 0xAA, "{}: what was there stays", fixture.name);
        assert_eq!(encoded_len(packet, fixture.version), out.len() - 1, "{}", fixture.name);
        assert_eq!(out[1..] == fixture.bytes, same, "{}: {:02x?}", fixture.name, &out[1..]);
        assert!(out.len() - 1 <= fixture.bytes.len(), "{}", fixture.name);
        let again = decode(&out[1..], fixture.version, fixture.sender, NO_LIMIT).expect(fixture.name);
        assert_eq!(again, Decoded::Packet(packet.clone(), out.len() - 1), "{}", fixture.name);
    }
}

#[test]
fn a_prefix_asks_for_more_truthfully_or_is_refused_with_the_same_error() {
    for fixture in table() {
        let whole = read(&fixture);
        for len in 0..fixture.bytes.len() {
            match decode(&fixture.bytes[..len], fixture.version, fixture.sender, NO_LIMIT) {
                Ok(Decoded::Incomplete(needed)) => {
                    assert!(needed > len, "{} at {len}: asks for nothing more", fixture.name);
                    assert!(needed <= fixture.bytes.len(), "{} at {len}: asks too much", fixture.name);
                }
                Ok(Decoded::Packet(..)) => panic!("{} at {len}: a packet out of a part of it", fixture.name),
                Err(error) => assert_eq!(Err(error), whole, "{} at {len}", fixture.name),
            }
        }
    }
}

#[test]
fn what_follows_a_packet_does_not_matter() {
    for fixture in table() {
        let mut bytes = fixture.bytes.clone();
        bytes.extend([0xFF; 8]);
        let got = decode(&bytes, fixture.version, fixture.sender, NO_LIMIT);
        assert_eq!(got, read(&fixture), "{}", fixture.name);
    }
}

#[test]
fn an_owned_packet_is_the_same_packet_with_a_name() {
    for fixture in table() {
        if let Ok(Decoded::Packet(packet, _)) = read(&fixture) {
            let owned: Packet<'static> = packet.clone().into_owned();
            assert_eq!(owned, packet);
            assert!(fixture.name.starts_with(&packet.name().to_lowercase()), "{}", fixture.name);
        }
    }
}

#[test]
fn a_packet_of_the_maximum_size_passes_and_a_larger_one_is_refused_by_its_header() {
    for fixture in table() {
        let Ok(Decoded::Packet(..)) = read(&fixture) else { continue };
        let len = u32::try_from(fixture.bytes.len()).unwrap();
        assert_eq!(
            decode(&fixture.bytes, fixture.version, fixture.sender, len),
            read(&fixture),
            "{}",
            fixture.name
        );
        let header = if len < 130 { 2 } else { 3 };
        for seen in [header, fixture.bytes.len()] {
            let error = decode(
                &fixture.bytes[..seen.min(fixture.bytes.len())],
                fixture.version,
                fixture.sender,
                len - 1,
            );
            if fixture.name.contains("longer_remaining_length") && seen == header {
                continue; // the length takes more bytes than were shown
            }
            assert_eq!(error.expect_err(fixture.name).reason, ReasonCode::PacketTooLarge, "{}", fixture.name);
        }
    }
}

#[test]
fn a_publish_borrows_and_allocates_nothing() {
    let bytes = wire(r#"32 [ "a/b" 0001 [ ] 'hello' ]"#);
    let Ok(Decoded::Packet(Packet::Publish(publish), _)) =
        decode(&bytes, Version::V5, Role::Client, NO_LIMIT)
    else {
        panic!("a PUBLISH");
    };
    assert!(matches!((&publish.topic, &publish.payload), (Cow::Borrowed("a/b"), Cow::Borrowed(b"hello"))));
    assert!(publish.properties.is_none());
}

#[test]
fn remaining_lengths_at_both_sides_of_every_threshold() {
    let max = MAX_REMAINING_LENGTH as usize;
    for (remaining, bytes) in
        [(3, 1), (127, 1), (128, 2), (16_383, 2), (16_384, 3), (2_097_151, 3), (2_097_152, 4), (max, 4)]
    {
        let mut packet = vec![0x30];
        let mut rest = remaining;
        while rest > 127 {
            packet.push(rest as u8 | 0x80);
            rest >>= 7;
        }
        packet.push(rest as u8);
        assert_eq!(packet.len(), 1 + bytes);
        let total = 1 + bytes + remaining;
        let version = Version::V311;
        assert_eq!(decode(&packet, version, Role::Client, NO_LIMIT), Ok(Decoded::Incomplete(total)));
        let limit = u32::try_from(total).unwrap();
        assert_eq!(decode(&packet, version, Role::Client, limit), Ok(Decoded::Incomplete(total)));
        assert_eq!(
            decode(&packet, version, Role::Client, limit - 1).expect_err("too large").reason,
            ReasonCode::PacketTooLarge
        );
        if remaining <= 2_097_152 {
            let payload = vec![b'x'; remaining - 3];
            let template = PublishTemplate::new(
                version,
                QoS::AtMostOnce,
                false,
                false,
                "a",
                &Default::default(),
                &payload,
            );
            let template = template.expect("a valid PUBLISH");
            assert_eq!(template.len(), total);
            packet.extend(wire(r#""a""#));
            packet.extend(&payload);
            let mut out = Vec::new();
            template.write(None, &mut out);
            assert!(out == packet, "a remaining length of {remaining}");
        }
    }
}

#[test]
fn every_length_of_the_remaining_length_is_the_shortest_and_counted_right() {
    for payload in
        [0, 1, 122, 123, 124, 16_377, 16_378, 16_379, 16_380, 16_381, 2_097_146, 2_097_147, 2_097_148]
    {
        let mut bytes = wire(&format!(r#"30 [ "a" [ ] x*{payload} ]"#));
        let Ok(Decoded::Packet(packet, len)) = decode(&bytes, Version::V5, Role::Client, NO_LIMIT) else {
            panic!("a payload of {payload}");
        };
        assert_eq!(
            (len, encoded_len(&packet, Version::V5)),
            (bytes.len(), bytes.len()),
            "a payload of {payload}"
        );
        let mut out = Vec::new();
        encode(&packet, Version::V5, &mut out).expect("a valid packet");
        assert!(out == bytes, "a payload of {payload}");
        // [MQTT-1.5.5-1]: the same number in one byte more.
        let last = bytes[1..].iter().position(|byte| byte & 0x80 == 0).expect("it ends") + 1;
        if last < 4 {
            bytes[last] |= 0x80;
            bytes.insert(last + 1, 0);
            let error = decode(&bytes, Version::V5, Role::Client, NO_LIMIT).expect_err("longer than needed");
            assert_eq!(error.clause, "MQTT-1.5.5-1", "a payload of {payload}");
        }
    }
}

#[test]
fn what_the_header_alone_proves_wrong_does_not_wait_for_the_body() {
    use Role::{Client, Server};
    use Version::{V5, V31, V311};
    for (version, sender, header) in [
        (V5, Client, "c0 ffffff7f"),
        (V5, Server, "d0 ffffff7f"),
        (V311, Client, "e0 ffffff7f"),
        (V311, Server, "20 ffffff7f"),
        (V31, Server, "40 ffffff7f"),
        (V311, Client, "50 ffffff7f"),
        (V311, Client, "62 03"),
        (V311, Client, "70 01"),
        (V311, Server, "b0 ffffff7f"),
        // Four bytes that all say "and one more" are enough to know.
        (V5, Client, "30 ffffffff"),
        (V311, Client, "10 80808080"),
    ] {
        let error = decode(&wire(header), version, sender, NO_LIMIT).expect_err(header);
        assert_eq!(error.reason, ReasonCode::MalformedPacket, "{header}");
    }
}

#[test]
fn a_packet_that_no_remaining_length_can_describe_is_not_encoded() {
    let payload = vec![0; MAX_REMAINING_LENGTH as usize];
    let template = |payload| {
        PublishTemplate::new(Version::V311, QoS::AtMostOnce, false, false, "a", &Default::default(), payload)
    };
    assert_eq!(template(&payload[..payload.len() - 2]).expect_err("too large"), EncodeError::PacketTooLarge);
    assert_eq!(template(&payload[..payload.len() - 3]).expect("it fits").len(), 5 + payload.len());
}

#[test]
fn the_cheap_writers_agree_with_encode() {
    let id = PacketId::new(0x1234).unwrap();
    for version in [Version::V31, Version::V311, Version::V5] {
        for (bytes, write) in [
            ("40", encode::puback as fn(Version, PacketId, ReasonCode, &mut Vec<u8>)),
            ("50", encode::pubrec),
            ("62", encode::pubrel),
            ("70", encode::pubcomp),
        ] {
            let mut out = Vec::new();
            write(version, id, ReasonCode::Success, &mut out);
            assert_eq!(out, wire(&format!("{bytes} [ 1234 ]")));
            let reason =
                if bytes < "60" { ReasonCode::QuotaExceeded } else { ReasonCode::PacketIdentifierNotFound };
            out.clear();
            write(version, id, reason, &mut out);
            let tail = if version.is_v5() { format!("{:02x}", reason.value()) } else { String::new() };
            assert_eq!(out, wire(&format!("{bytes} [ 1234 {tail} ]")));
        }
    }
    let mut out = Vec::new();
    encode::pingreq(&mut out);
    encode::pingresp(&mut out);
    assert_eq!(out, [0xC0, 0, 0xD0, 0]);
}

#[test]
fn a_template_writes_what_encode_writes() {
    for fixture in table() {
        let Expect::Packet(packet @ Packet::Publish(publish)) = &fixture.expect else { continue };
        let mut template = PublishTemplate::new(
            fixture.version,
            publish.qos,
            publish.dup,
            publish.retain,
            &publish.topic,
            &publish.properties.read(),
            &publish.payload,
        )
        .expect(fixture.name);
        let mut out = vec![0xAA];
        template.write(publish.packet_id, &mut out);
        assert_eq!(out[1..], fixture.bytes, "{}", fixture.name);
        assert_eq!(template.len(), encoded_len(packet, fixture.version), "{}", fixture.name);
        // [MQTT-3.3.1-2]
        template.set_dup(true);
        out.clear();
        template.write(publish.packet_id, &mut out);
        assert_eq!(out[0] & 0x08 != 0, publish.qos != QoS::AtMostOnce, "{}", fixture.name);
        template.set_dup(false);
        out.clear();
        template.write(publish.packet_id, &mut out);
        assert_eq!(out[0] & 0x08, 0, "{}", fixture.name);
    }
}

/// [v3 MQTT-2.3.1-5]
#[test]
fn a_publish_from_its_parts_is_what_encode_writes() {
    for fixture in table() {
        let Expect::Packet(Packet::Publish(p)) = &fixture.expect else { continue };
        let write = |packet_id, out: &mut Vec<u8>| {
            let (version, topic, payload) = (fixture.version, &p.topic, &p.payload);
            encode::publish(
                version,
                p.qos,
                p.dup,
                p.retain,
                packet_id,
                topic,
                &p.properties.read(),
                payload,
                out,
            )
        };
        let mut out = vec![0xAA];
        write(p.packet_id, &mut out).expect(fixture.name);
        assert_eq!(out[1..], fixture.bytes, "{}", fixture.name);
        // [MQTT-2.2.1-2]
        let wrong = if p.packet_id.is_some() { None } else { Some(PacketId::MIN) };
        out.truncate(1);
        assert_eq!(write(wrong, &mut out), Err(EncodeError::PacketId), "{}", fixture.name);
        assert_eq!(out, [0xAA]);
    }
}

#[test]
fn before_version_5_reasons_become_the_nearest_code_and_properties_are_left_out() {
    let five = |name: &str| {
        let fixture =
            table().into_iter().find(|fixture| fixture.name == name).expect("a fixture of that name");
        let Expect::Packet(packet) = fixture.expect else { panic!("{name} is valid") };
        packet
    };
    for (name, bytes) in [
        ("connack_v5_refused", "20 [ 0005 ]"),
        ("suback_v5", "90 [ 000a 028080 ]"),
        ("unsuback_v5", "b0 [ 000a ]"),
        ("puback_v5_explained", "40 [ 0001 ]"),
        ("disconnect_v5_of_a_server_with_everything", "e0 [ ]"),
        ("publish_v5_from_a_server_with_everything", r#"35 [ "a/b" 0001 'hello' ]"#),
        ("subscribe_v5_with_everything", r#"82 [ 000a "b" 02 "c" 00 ]"#),
        ("unsubscribe_v5_with_user_properties", r#"a2 [ 000a "a/#" "b" ]"#),
    ] {
        let mut out = Vec::new();
        encode(&five(name), Version::V311, &mut out).expect(name);
        assert_eq!(out, wire(bytes), "{name}");
    }
    let mut out = Vec::new();
    encode(&five("connack_v5"), Version::V31, &mut out).expect("3.1 has no Session Present");
    assert_eq!(out, wire("20 [ 0000 ]"));
    let alias_alone = encode(&five("publish_v5_with_an_alias_instead_of_the_topic"), Version::V311, &mut out);
    assert_eq!(alias_alone, Err(EncodeError::Topic(mqtt::topic::TopicError::Empty)));
    let refused = encode(&five("auth_with_everything"), Version::V311, &mut out);
    assert_eq!(refused, Err(EncodeError::NotInVersion("AUTH")));
}

/// [MQTT-3.2.2-8], [MQTT-3.3.2-8]
#[test]
fn what_no_peer_accepts_is_not_encoded_and_leaves_the_output_alone() {
    let fixture = |name: &str| {
        let fixture =
            table().into_iter().find(|fixture| fixture.name == name).expect("a fixture of that name");
        let Expect::Packet(packet) = fixture.expect else { panic!("{name} is valid") };
        packet
    };
    let mut cases: Vec<(Packet<'_>, EncodeError)> = Vec::new();
    let publish = |change: &dyn Fn(&mut mqtt::packet::Publish<'static>)| {
        let Packet::Publish(mut packet) = fixture("publish_v5_qos0") else { panic!("a PUBLISH") };
        change(&mut packet);
        Packet::Publish(packet)
    };
    use mqtt::topic::TopicError;
    let properties = PublishProperties::default;
    cases.extend([
        (publish(&|p| p.topic = "a/#".into()), EncodeError::Topic(TopicError::Wildcard)),
        (publish(&|p| p.topic = "".into()), EncodeError::Topic(TopicError::Empty)),
        (publish(&|p| p.topic = "a\0".into()), EncodeError::Topic(TopicError::Null)),
        (publish(&|p| p.topic = "x".repeat(65_536).into()), EncodeError::Topic(TopicError::TooLong)),
        (publish(&|p| p.packet_id = Some(PacketId::MIN)), EncodeError::PacketId),
        (publish(&|p| p.qos = QoS::AtLeastOnce), EncodeError::PacketId),
        (publish(&|p| p.properties.edit(|p| p.topic_alias = Some(0))), EncodeError::Value("Topic Alias")),
        (
            publish(&|p| {
                p.properties =
                    PublishProperties { subscription_identifiers: vec![0].into(), ..properties() }.into();
            }),
            EncodeError::Value("Subscription Identifier"),
        ),
        (
            publish(&|p| {
                p.properties.edit(|p| p.subscription_identifiers = vec![MAX_REMAINING_LENGTH + 1].into());
            }),
            EncodeError::Value("Subscription Identifier"),
        ),
        (
            publish(&|p| p.properties.edit(|p| p.response_topic = Some("+".into()))),
            EncodeError::Topic(TopicError::Wildcard),
        ),
        (
            publish(&|p| p.properties.edit(|p| p.correlation_data = Some(vec![0; 65_536].into()))),
            EncodeError::FieldTooLong("Correlation Data"),
        ),
        (
            publish(&|p| p.properties.edit(|p| p.content_type = Some("\0".into()))),
            EncodeError::NullCharacter("Content Type"),
        ),
        (
            publish(&|p| p.properties.edit(|p| p.user_properties = vec![("\0".into(), "".into())])),
            EncodeError::NullCharacter("User Property"),
        ),
    ]);
    let connect = |change: &dyn Fn(&mut mqtt::packet::Connect<'static>)| {
        let Packet::Connect(mut packet) = fixture("connect_v5_with_everything") else { panic!("a CONNECT") };
        change(&mut packet);
        Packet::Connect(packet)
    };
    cases.extend([
        (connect(&|p| p.properties.receive_maximum = Some(0)), EncodeError::Value("Receive Maximum")),
        (connect(&|p| p.properties.maximum_packet_size = Some(0)), EncodeError::Value("Maximum Packet Size")),
        (connect(&|p| p.properties.authentication_method = None), EncodeError::Value("Authentication Data")),
        (connect(&|p| p.client_id = "\0".into()), EncodeError::NullCharacter("Client Identifier")),
        (
            connect(&|p| p.client_id = "x".repeat(65_536).into()),
            EncodeError::FieldTooLong("Client Identifier"),
        ),
        (
            connect(&|p| p.will.as_mut().unwrap().properties.topic_alias = Some(1)),
            EncodeError::Value("Topic Alias of the will"),
        ),
        (connect(&|p| p.will.as_mut().unwrap().topic = "+".into()), EncodeError::Topic(TopicError::Wildcard)),
        (
            connect(&|p| {
                p.version = Version::V311;
                p.username = None;
            }),
            EncodeError::NotInVersion("a Password without a User Name"),
        ),
    ]);
    let connack = |change: &dyn Fn(&mut mqtt::packet::Connack<'static>)| {
        let Packet::Connack(mut packet) = fixture("connack_v5_with_everything") else { panic!("a CONNACK") };
        change(&mut packet);
        Packet::Connack(packet)
    };
    let not_refused = EncodeError::Reason("CONNACK", ReasonCode::SessionTakenOver);
    cases.extend([
        (connack(&|p| p.properties.maximum_qos = Some(QoS::ExactlyOnce)), EncodeError::Value("Maximum QoS")),
        (connack(&|p| p.properties.receive_maximum = Some(0)), EncodeError::Value("Receive Maximum")),
        (connack(&|p| p.properties.maximum_packet_size = Some(0)), EncodeError::Value("Maximum Packet Size")),
        (connack(&|p| p.reason = ReasonCode::SessionTakenOver), not_refused),
        (
            connack(&|p| {
                p.reason = ReasonCode::Banned;
                p.session_present = true;
            }),
            EncodeError::Value("Session Present"),
        ),
    ]);
    for name in ["subscribe_v5", "unsubscribe_v5", "suback_v5", "unsuback_v5"] {
        let (packet, what) = match fixture(name) {
            Packet::Subscribe(p) => {
                (Packet::Subscribe(Subscribe { filters: vec![], ..p }), "the number of topic filters")
            }
            Packet::Unsubscribe(p) => {
                (Packet::Unsubscribe(Unsubscribe { filters: vec![], ..p }), "the number of topic filters")
            }
            Packet::Suback(p) => {
                (Packet::Suback(Suback { reasons: vec![], ..p }), "the number of reason codes")
            }
            Packet::Unsuback(p) => {
                (Packet::Unsuback(Unsuback { reasons: vec![], ..p }), "the number of reason codes")
            }
            other => panic!("{}", other.name()),
        };
        cases.push((packet, EncodeError::Value(what)));
    }
    let Packet::Disconnect(mut mixed) = fixture("disconnect_v5_of_a_server_with_everything") else {
        panic!("a DISCONNECT");
    };
    // Only a client may say the one, only a server the other.
    mixed.properties.session_expiry_interval = Some(1);
    cases.push((Packet::Disconnect(mixed), EncodeError::Reason("DISCONNECT", ReasonCode::ServerMoved)));
    for (packet, expected) in cases {
        let mut out = vec![1, 2, 3];
        assert_eq!(encode(&packet, Version::V5, &mut out), Err(expected));
        assert_eq!(out, [1, 2, 3]);
    }
}

/// A template serves receivers with a Topic Alias and without: the same message arrives, but for topic and alias (3.3.2.3.4).
#[test]
fn a_template_is_shared_by_receivers_with_a_topic_alias() {
    let number = std::num::NonZeroU16::new(7).expect("not 0");
    let mut tried = 0;
    for fixture in table() {
        let Expect::Packet(Packet::Publish(publish)) = &fixture.expect else { continue };
        if publish.topic.is_empty() || publish.properties.topic_alias().is_some() {
            continue;
        }
        tried += 1;
        let template = PublishTemplate::new(
            fixture.version,
            publish.qos,
            publish.dup,
            publish.retain,
            &publish.topic,
            &publish.properties.read(),
            &publish.payload,
        )
        .expect("a valid PUBLISH");
        for alias in [encode::Alias::Introduced(number), encode::Alias::Known(number)] {
            let mut out = vec![0xAA];
            template.write_aliased(publish.packet_id, alias, &mut out);
            assert_eq!(out.len() - 1, template.aliased_len(alias), "{}", fixture.name);
            let mut expected = publish.clone();
            if fixture.version.is_v5() {
                expected.properties.edit(|p| p.topic_alias = Some(7));
                if alias == encode::Alias::Known(number) {
                    expected.topic = "".into();
                }
            }
            let got = decode(&out[1..], fixture.version, Role::Server, u32::MAX);
            assert_eq!(
                got,
                Ok(Decoded::Packet(Packet::Publish(expected), out.len() - 1)),
                "{}",
                fixture.name
            );
        }
    }
    assert!(tried > 3, "{tried}");
}
