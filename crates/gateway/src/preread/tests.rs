//! Every split of the input, every version, every kind of stranger.

use mqtt::codec::encode::encode;
use mqtt::packet::{Connect, Packet, PublishProperties, Will};
use mqtt::{QoS, packet};
use proptest::prelude::*;

use super::*;

fn connect(version: Version, client_id: &str, username: Option<&str>, will: usize) -> Vec<u8> {
    let packet = Connect {
        version,
        bridge: false,
        clean_start: true,
        keep_alive: 60,
        client_id: client_id.to_owned().into(),
        will: (will > 0).then(|| Will {
            topic: "will".into(),
            payload: vec![7; will].into(),
            qos: QoS::AtLeastOnce,
            retain: false,
            delay_interval: None,
            properties: PublishProperties::default(),
        }),
        username: username.map(|name| name.to_owned().into()),
        password: None,
        properties: packet::ConnectProperties::default(),
    };
    let mut bytes = Vec::new();
    encode(&Packet::Connect(Box::new(packet)), version, &mut bytes).unwrap();
    bytes
}

fn versions() -> impl Strategy<Value = Version> {
    prop_oneof![Just(Version::V31), Just(Version::V311), Just(Version::V5)]
}

proptest! {
    /// Byte by byte: nothing is said too early, nothing too late, and nothing changes with the bytes behind.
    #[test]
    fn the_names_are_known_at_the_same_byte_whatever_the_split(
        version in versions(), id in "[a-zA-Z0-9]{1,23}", name in prop::option::of("[a-z]{1,9}"),
        will in 0_usize..40, wants_name in any::<bool>(), steps in prop::collection::vec(1_usize..9, 1..40),
    ) {
        let bytes = connect(version, &id, name.as_deref(), will);
        let first = (1..=bytes.len())
            .find(|&len| Preread::new(4_096, wants_name).look(&bytes[..len]) != Seen::More).unwrap();
        let mut preread = Preread::new(4_096, wants_name);
        let mut len = 0;
        for step in steps.iter().cycle() {
            len = (len + step).min(bytes.len());
            match preread.look(&bytes[..len]) {
                Seen::More => prop_assert!(len < first, "still waiting at {len} of {first}"),
                Seen::Connect(head) => {
                    prop_assert!(len >= first);
                    prop_assert_eq!((head.version, head.client_id), (version, id.as_str()));
                    if wants_name {
                        prop_assert_eq!(head.username, name.as_deref());
                    }
                    break;
                }
                other => prop_assert!(false, "{other:?}"),
            }
        }
    }

    #[test]
    fn no_bytes_make_it_panic_or_wait_beyond_the_bound(bytes in prop::collection::vec(any::<u8>(), 0..300), connect in any::<bool>()) {
        let mut bytes = bytes;
        if connect {
            bytes.splice(0..0, *b"\x10\xff\x01\x00\x04MQTT\x05\x02\x00\x3c");
        }
        let mut preread = Preread::new(200, true);
        for len in 0..=bytes.len() {
            if preread.look(&bytes[..len]) != Seen::More {
                return Ok(());
            }
            prop_assert!(len < 200, "waits for more than the bound allows");
        }
    }
}

#[test]
fn the_client_id_is_known_long_before_a_large_will_is_here() {
    let bytes = connect(Version::V5, "car", Some("fleet"), 60_000);
    let Seen::Connect(head) = Preread::new(1_024, false).look(&bytes[..1_024]) else { panic!() };
    assert_eq!((head.client_id, head.username), ("car", None));
}

#[test]
fn a_user_name_behind_the_bound_is_packet_too_large() {
    let bytes = connect(Version::V5, "car", Some("fleet"), 60_000);
    let seen = Preread::new(1_024, true).look(&bytes[..1_000]);
    assert_eq!(seen, Seen::Malformed(USERNAME_TOO_FAR, Some(Version::V5)));
}

#[test]
fn a_client_id_behind_the_bound_is_packet_too_large() {
    let bytes = connect(Version::V5, &"x".repeat(3_000), None, 0);
    let Seen::Malformed(error, answer) = Preread::new(1_024, false).look(&bytes[..100]) else { panic!() };
    assert_eq!((error.reason, answer), (ReasonCode::PacketTooLarge, Some(Version::V5)));
}

#[test]
fn strangers_are_known_at_their_first_wrong_byte() {
    let foreign: [&[u8]; 6] = [
        b"\x16\x03\x01",         // a TLS hello
        b"G",                    // HTTP
        b"\x10\x0c\x00\x04HTTP", // the name of another protocol
        b"\x10\x0c\x00\x05",     // a name of a length that no version has
        b"\x10\xff\xff\xff\xff", // five bytes of length
        b"\x30\x03\x00\x01a",    // a PUBLISH before any CONNECT [MQTT-3.1.0-1]
    ];
    for bytes in foreign {
        assert_eq!(Preread::new(1_024, false).look(bytes), Seen::NotMqtt, "{bytes:?}");
    }
    assert_eq!(Preread::new(1_024, false).look(b""), Seen::More);
}

#[test]
fn what_is_wrong_is_answered_in_the_version_that_has_an_answer() {
    let answer = |bytes: &[u8]| match Preread::new(1_024, false).look(bytes) {
        Seen::Malformed(error, version) => (error.reason, version),
        other => panic!("{other:?}"),
    };
    // Reserved Connect Flag set [MQTT-3.1.2-3].
    assert_eq!(
        answer(b"\x10\x0e\x00\x04MQTT\x05\x03\x00\x3c\x00\x00\x01a"),
        (ReasonCode::MalformedPacket, Some(Version::V5))
    );
    assert_eq!(answer(b"\x10\x0d\x00\x04MQTT\x04\x03\x00\x3c\x00\x01a").1, None);
    // Levels that nobody speaks [MQTT-3.1.2-2].
    assert_eq!(
        answer(b"\x10\x0d\x00\x04MQTT\x09\x02\x00\x3c\x00\x01a"),
        (ReasonCode::UnsupportedProtocolVersion, Some(Version::V5))
    );
    assert_eq!(
        answer(b"\x10\x0d\x00\x04MQTT\x02\x02\x00\x3c\x00\x01a"),
        (ReasonCode::UnsupportedProtocolVersion, Some(Version::V311))
    );
}
