//! What must hold for whatever bytes a peer sends.

use std::num::NonZeroU16;

use mqtt::Version;
use mqtt::codec::decode::{Peek, Role, decode, peek_connect};
use mqtt::codec::encode::{Alias, PublishTemplate, encode, encoded_len};
use mqtt::codec::plain::{Bare, Hop, Plain, PlainPublish, plain};
use mqtt::codec::{DecodeError, Decoded, MAX_REMAINING_LENGTH};
use mqtt::packet::{Ack, Packet, Publish, PublishProperties, ReasonProperties};
use mqtt::{PacketId, QoS, ReasonCode};

/// Decodes the front of `bytes`; panics if the decoder contradicts itself or the encoder.
pub(crate) fn check(bytes: &[u8], version: Version, sender: Role) {
    let whole = decode(bytes, version, sender, u32::MAX);
    check_plain(bytes, version, &whole);
    if let Ok(Decoded::Packet(packet, len)) = &whole {
        assert!((2..=bytes.len()).contains(len));
        // What was accepted can be said again, in no more bytes, and means the same.
        let mut out = Vec::new();
        encode(packet, version, &mut out).expect("what was decoded can be encoded");
        assert!(out.len() <= *len);
        assert_eq!(out.len(), encoded_len(packet, version));
        assert_eq!(decode(&out, version, sender, u32::MAX), Ok(Decoded::Packet(packet.clone(), out.len())));
        assert_eq!(&packet.clone().into_owned(), packet);
    }
    for cut in 0..bytes.len().min(64) {
        match decode(&bytes[..cut], version, sender, u32::MAX) {
            Ok(Decoded::Incomplete(needed)) => {
                assert!(needed > cut);
                match &whole {
                    Ok(Decoded::Packet(_, len)) => assert!(needed <= *len),
                    Ok(Decoded::Incomplete(later)) => assert!(needed <= *later),
                    Err(_) => {}
                }
            }
            // It ended before the cut, and what follows does not matter.
            got @ Ok(Decoded::Packet(..)) => assert_eq!(got, whole),
            Err(error) => assert_eq!(Err(error), whole),
        }
    }
}

/// The short way says what the decoder says, and says it of every packet that is that simple; what it copies for receivers is what
/// the encoder would write.
fn check_plain(bytes: &[u8], version: Version, whole: &Result<Decoded<'_>, DecodeError>) {
    let Some((short, len)) = plain(bytes, version, u32::MAX, "") else {
        if let Ok(Decoded::Packet(packet, len)) = whole {
            let mut out = Vec::new();
            encode(packet, version, &mut out).expect("what was decoded can be encoded");
            // 3.1 lets flags and lengths be odd: that is not simple. The order of properties is free
            let simplest = out == bytes[..*len] || (version.is_v5() && matches!(packet, Packet::Publish(_)));
            assert!(!is_plain(packet) || !simplest, "not recognised: {packet:?}");
        }
        return;
    };
    let ack =
        |packet_id| Ack { packet_id, reason: ReasonCode::Success, properties: ReasonProperties::default() };
    let packet = match short {
        Plain::Publish(publish) => Packet::Publish(publish.to_publish()),
        Plain::Puback(id) => Packet::Puback(ack(id)),
        Plain::Pubrec(id) => Packet::Pubrec(ack(id)),
        Plain::Pubrel(id) => Packet::Pubrel(ack(id)),
        Plain::Pubcomp(id) => Packet::Pubcomp(ack(id)),
    };
    assert_eq!(whole, &Ok(Decoded::Packet(packet, len)));
    let limit = u32::try_from(len).expect("a packet");
    assert_eq!(plain(bytes, version, limit, "another"), Some((short, len)));
    assert_eq!(plain(bytes, version, limit - 1, ""), None);
    if let Plain::Publish(publish) = short {
        assert_eq!(plain(bytes, version, limit, publish.topic()), Some((short, len)));
        check_copies(&publish);
        check_run(&publish, bytes, version);
    }
}

/// A run is what the short way says of one packet after the other, as long as nothing but payloads differ.
fn check_run(first: &PlainPublish<'_>, bytes: &[u8], version: Version) {
    let belongs = |p: &PlainPublish<'_>| {
        p.qos() == QoS::AtMostOnce
            && !p.retain()
            && p.topic() == first.topic()
            && p.to_publish().properties.read().into_owned() == PublishProperties::default()
    };
    for most in [u32::MAX, u32::try_from(first.as_bytes().len()).expect("a packet")] {
        let (mut packets, mut rest) = (Vec::new(), bytes);
        while let Some((Plain::Publish(next), len)) = plain(rest, version, most, "")
            && belongs(&next)
        {
            packets.push(next);
            rest = &rest[len..];
        }
        let run = first.run(bytes, most);
        assert_eq!(run.is_some(), packets.len() > 1, "{packets:?}");
        let Some(run) = run else { continue };
        assert_eq!(run.first(), first);
        assert_eq!(run.packets().collect::<Vec<_>>(), packets);
        assert_eq!(run.as_bytes(), &bytes[..bytes.len() - rest.len()]);
        assert_eq!(run.count(), packets.len());
        assert_eq!(run.payload(), packets.iter().map(|p| p.payload().len()).sum::<usize>());
        assert_eq!(run.largest(), packets.iter().map(|p| p.as_bytes().len()).max().expect("two"));
        for identifiers in [&[][..], &[5]] {
            let hop = Hop {
                version,
                qos: QoS::AtMostOnce,
                dup: false,
                retain: false,
                packet_id: None,
                identifiers,
                expiry: None,
            };
            let mut copied = Vec::new();
            packets.iter().for_each(|packet| packet.write(&hop, &mut copied));
            assert!(!run.is_copied(&hop) || copied == run.as_bytes(), "as they are");
            assert!(run.is_copied(&hop) || !identifiers.is_empty());
        }
    }
}

fn is_plain(packet: &Packet<'_>) -> bool {
    match packet {
        Packet::Publish(publish) => {
            let properties = publish.properties.read();
            properties.topic_alias.is_none() && properties.subscription_identifiers.is_empty()
        }
        Packet::Puback(ack) | Packet::Pubrec(ack) | Packet::Pubrel(ack) | Packet::Pubcomp(ack) => {
            ack.reason == ReasonCode::Success && ack.properties == ReasonProperties::default()
        }
        _ => false,
    }
}

fn check_copies(publish: &PlainPublish<'_>) {
    let original = publish.to_publish();
    for version in [Version::V31, Version::V311, Version::V5] {
        for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
            let packet_id = (qos > QoS::AtMostOnce).then_some(PacketId::MIN);
            for (dup, retain, identifiers, expiry) in [
                (false, false, &[][..], None),
                (true, false, &[1][..], None),
                (false, true, &[][..], Some(7)),
                (true, true, &[MAX_REMAINING_LENGTH, 1, 200][..], Some(u32::MAX)),
            ] {
                check_copy(publish, &Hop { version, qos, dup, retain, packet_id, identifiers, expiry });
            }
        }
    }
    let owned = original.clone().into_owned();
    assert_eq!(owned, original);
    assert_eq!(owned.properties.as_bytes(), original.properties.as_bytes());
}

/// What one receiver gets is what it would be sent if the packet were taken apart.
fn check_copy(publish: &PlainPublish<'_>, hop: &Hop<'_>) {
    let original = publish.to_publish();
    let mut properties = PublishProperties::from(original.properties.clone());
    if hop.version.is_v5() {
        properties.subscription_identifiers = hop.identifiers.into();
        properties.message_expiry_interval =
            properties.message_expiry_interval.map(|interval| hop.expiry.unwrap_or(interval));
    } else {
        properties = PublishProperties::default();
    }
    let expected = Packet::Publish(Publish {
        dup: hop.dup && hop.qos > QoS::AtMostOnce,
        qos: hop.qos,
        retain: hop.retain,
        packet_id: hop.packet_id,
        properties: properties.clone().into(),
        ..original.clone()
    });
    let (mut copied, mut encoded) = (vec![0xAA], vec![0xAA]);
    publish.write(hop, &mut copied);
    encode(&expected, hop.version, &mut encoded).expect("as valid as it came");
    if properties == PublishProperties::default() {
        assert_eq!(copied, encoded);
    }
    // the order of properties is free, but for User Properties among themselves [MQTT-3.3.2-18]
    assert_eq!(copied.len(), encoded.len());
    let len = copied.len() - 1;
    assert_eq!(decode(&copied[1..], hop.version, Role::Server, u32::MAX), Ok(Decoded::Packet(expected, len)));
    assert_eq!(publish.len_as(hop), Some(len));
    let template = PublishTemplate::copied(&publish.bare(), hop).expect("it is not too large");
    for bare in [Some(publish.bare()), Bare::of(&original, hop.version)] {
        let mut out = vec![0xAA];
        let bare = bare.expect("it has not been taken apart");
        assert_eq!(bare.len_as(hop), Some(len));
        bare.write(hop, &mut out);
        assert_eq!(out, copied);
    }
    let mut out = vec![0xAA];
    template.write(hop.packet_id, &mut out);
    assert_eq!((out, template.len()), (copied, len));
    let alias = Alias::Known(NonZeroU16::MIN);
    let mut out = Vec::new();
    template.write_aliased(hop.packet_id, alias, &mut out);
    assert_eq!(out.len(), template.aliased_len(alias));
    if hop.version.is_v5() {
        properties.topic_alias = Some(1);
        let Ok(Decoded::Packet(Packet::Publish(got), _)) = decode(&out, hop.version, Role::Server, u32::MAX)
        else {
            panic!("a PUBLISH with an alias");
        };
        assert_eq!((&*got.topic, &got.properties), ("", &properties.into()));
    }
}

/// Peeks at the front of `bytes`, at every length up to 512; panics if that contradicts the decoder, or an answer given before.
pub(crate) fn check_peek(bytes: &[u8]) {
    let decoded = decode(bytes, Version::V5, Role::Client, u32::MAX);
    let mut known: Option<String> = None;
    for seen in (0..=bytes.len().min(512)).chain([bytes.len()]) {
        match peek_connect(&bytes[..seen], usize::MAX) {
            Ok(Peek::Incomplete(needed)) => {
                assert!(needed > seen && known.is_none());
                if let Ok(Decoded::Packet(Packet::Connect(_), len)) = &decoded {
                    assert!(needed <= *len);
                }
            }
            Ok(Peek::Connect(head)) => {
                assert_eq!(*known.get_or_insert_with(|| head.client_id.to_owned()), head.client_id);
                assert_eq!(head.username_known, head.username_needs == 0);
                assert!(head.username_known || (head.username.is_none() && head.username_needs > seen));
                match &decoded {
                    Ok(Decoded::Packet(Packet::Connect(connect), len)) => {
                        assert_eq!(head.packet_len, *len);
                        assert_eq!((head.version, head.bridge), (connect.version, connect.bridge));
                        assert_eq!(
                            (head.clean_start, head.keep_alive),
                            (connect.clean_start, connect.keep_alive)
                        );
                        assert_eq!(head.client_id, connect.client_id);
                        assert_eq!(head.properties, connect.properties);
                        assert!(!head.username_known || head.username == connect.username.as_deref());
                    }
                    Ok(Decoded::Packet(..)) => panic!("peek saw a CONNECT in another packet"),
                    Ok(Decoded::Incomplete(needed)) => assert_eq!(head.packet_len, *needed),
                    // Behind what peek looks at.
                    Err(_) => {}
                }
            }
            Err(error) => match &decoded {
                Err(other) if bytes[0] >> 4 == 1 => assert_eq!(error, *other),
                Ok(Decoded::Packet(Packet::Connect(_), _)) => panic!("peek refused a valid CONNECT: {error}"),
                // Another packet, or one whose rest has not come.
                _ => {}
            },
        }
    }
}
