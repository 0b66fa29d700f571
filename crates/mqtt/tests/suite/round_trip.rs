//! Arbitrary packets there and back, and arbitrary bytes.

use mqtt::codec::Decoded;
use mqtt::codec::decode::{Peek, Role, decode, peek_connect};
use mqtt::codec::encode::{encode, encoded_len};
use mqtt::packet::{Packet, Publish, PublishProperties};
use mqtt::{PacketId, QoS};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

use crate::arbitrary::{role, sent, version};
use crate::fixtures::table;
use crate::oracle;

proptest! {
    #[test]
    fn every_packet_comes_back_as_it_was_sent((version, sender, packet) in sent()) {
        let mut bytes = Vec::new();
        encode(&packet, version, &mut bytes).expect("a valid packet");
        prop_assert_eq!(encoded_len(&packet, version), bytes.len());
        let limit = u32::try_from(bytes.len()).expect("a small packet");
        let back = decode(&bytes, version, sender, limit);
        prop_assert_eq!(back, Ok(Decoded::Packet(packet, bytes.len())));
    }

    #[test]
    fn any_part_of_a_packet_asks_for_the_rest((version, sender, packet) in sent(), cut in any::<Index>()) {
        let mut bytes = Vec::new();
        encode(&packet, version, &mut bytes).expect("a valid packet");
        let cut = cut.index(bytes.len());
        match decode(&bytes[..cut], version, sender, u32::MAX) {
            Ok(Decoded::Incomplete(needed)) => prop_assert!((cut + 1..=bytes.len()).contains(&needed)),
            other => prop_assert!(false, "{:?}", other),
        }
    }

    #[test]
    fn packets_behind_each_other_are_taken_apart(list in vec(sent(), 1..5)) {
        let (version, sender, _) = list[0].clone();
        let list: Vec<Packet<'_>> =
            list.into_iter().filter(|one| (one.0, one.1) == (version, sender)).map(|one| one.2).collect();
        let mut bytes = Vec::new();
        for packet in &list {
            encode(packet, version, &mut bytes).expect("a valid packet");
        }
        let mut rest = &bytes[..];
        for packet in list {
            match decode(rest, version, sender, u32::MAX) {
                Ok(Decoded::Packet(got, len)) => {
                    prop_assert_eq!(got, packet);
                    rest = &rest[len..];
                }
                other => prop_assert!(false, "{:?}", other),
            }
        }
        prop_assert!(rest.is_empty());
    }

    #[test]
    fn peek_agrees_with_decode((version, sender, packet) in sent(), seen in any::<Index>()) {
        let Packet::Connect(connect) = &packet else { return Ok(()) };
        let mut bytes = Vec::new();
        encode(&packet, version, &mut bytes).expect("a valid packet");
        prop_assert!(matches!(decode(&bytes, version, sender, u32::MAX), Ok(Decoded::Packet(..))));
        let seen = seen.index(bytes.len() + 1);
        match peek_connect(&bytes[..seen], usize::MAX) {
            Ok(Peek::Connect(head)) => {
                prop_assert_eq!(head.client_id, &connect.client_id);
                prop_assert_eq!(head.packet_len, bytes.len());
                if head.username_known {
                    prop_assert_eq!(head.username, connect.username.as_deref());
                }
            }
            Ok(Peek::Incomplete(needed)) => prop_assert!((seen + 1..=bytes.len()).contains(&needed)),
            Err(error) => prop_assert!(false, "{}", error),
        }
    }

    #[test]
    fn packets_that_differ_in_their_payloads_only_are_a_run(
        list in vec((0_u8..8, 0_u8..16, 100_usize..140), 1..20),
        cut in 0_usize..40,
        version in version(),
    ) {
        let mut bytes = Vec::new();
        for (topic, odd, size) in list {
            let retain = odd == 1;
            let qos = if odd == 2 { QoS::AtLeastOnce } else { QoS::AtMostOnce };
            let mut publish = Publish {
                dup: false,
                qos,
                retain,
                topic: ["t/one", "t/two"][usize::from(topic == 0)].into(),
                packet_id: (qos > QoS::AtMostOnce).then_some(PacketId::MIN),
                properties: PublishProperties::default().into(),
                payload: vec![topic; size].into(),
            };
            if odd == 3 && version.is_v5() {
                publish.properties.edit(|p| p.content_type = Some("text".into()));
            }
            encode(&Packet::Publish(publish), version, &mut bytes).expect("a valid packet");
        }
        bytes.truncate(bytes.len() - cut);
        oracle::codec::check(&bytes, version, Role::Client);
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in vec(any::<u8>(), 0..80), version in version(), sender in role()) {
        oracle::codec::check(&bytes, version, sender);
        oracle::codec::check_peek(&bytes);
    }

    #[test]
    fn damaged_packets_never_panic(
        which in any::<Index>(),
        damage in vec((any::<Index>(), any::<u8>()), 1..4),
        version in version(),
        sender in role(),
    ) {
        let table = table();
        let mut bytes = which.get(&table).bytes.clone();
        for (place, value) in damage {
            let at = place.index(bytes.len());
            bytes[at] = value;
        }
        oracle::codec::check(&bytes, version, sender);
        oracle::codec::check_peek(&bytes);
    }
}

#[test]
fn every_fixture_passes_the_oracle_in_every_version_and_from_both_sides() {
    use mqtt::Version::{V5, V31, V311};
    use mqtt::codec::decode::Role::{Client, Server};
    for fixture in table() {
        oracle::codec::check_peek(&fixture.bytes);
        for version in [V31, V311, V5] {
            for sender in [Client, Server] {
                oracle::codec::check(&fixture.bytes, version, sender);
            }
        }
    }
}
