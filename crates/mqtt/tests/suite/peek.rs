//! What a gateway sees of a CONNECT before all of it is here.

use mqtt::ReasonCode;
use mqtt::codec::Decoded;
use mqtt::codec::decode::{Peek, Role, decode, peek_connect};
use mqtt::packet::Packet;

use crate::fixtures::{Fixture, table, wire};

/// CONNECTs as a gateway sees them: (bytes, what the whole decoder says).
fn connects() -> Vec<Fixture> {
    table()
        .into_iter()
        .filter(|fixture| fixture.sender == Role::Client && fixture.bytes[0] >> 4 == 1)
        .collect()
}

#[test]
fn peek_agrees_with_decode_on_every_connect() {
    for fixture in connects() {
        match (
            peek_connect(&fixture.bytes, usize::MAX),
            decode(&fixture.bytes, fixture.version, fixture.sender, u32::MAX),
        ) {
            (Ok(Peek::Connect(head)), Ok(Decoded::Packet(Packet::Connect(connect), len))) => {
                assert_eq!(head.version, connect.version);
                assert_eq!(head.bridge, connect.bridge);
                assert_eq!(head.clean_start, connect.clean_start);
                assert_eq!(head.keep_alive, connect.keep_alive);
                assert_eq!(head.client_id, connect.client_id);
                assert_eq!(head.properties, connect.properties);
                assert!(head.username_known, "{}", fixture.name);
                assert_eq!(head.username_needs, 0);
                assert_eq!(head.username, connect.username.as_deref());
                assert_eq!(head.packet_len, len);
            }
            // Errors behind the user name are not the business of peek.
            (Ok(Peek::Connect(head)), Err(error)) => {
                assert!(head.username_known, "{}: {error}", fixture.name);
                let behind = [
                    "connect_with_bytes_at_the_end",
                    "connect_without_the_announced_password",
                    "connect_with_a_will_that_is_not_announced",
                    "connect_with_a_user_name_that_is_not_announced",
                    "connect_with_a_password_that_is_not_announced",
                ];
                assert!(behind.contains(&fixture.name), "{}: {error}", fixture.name);
            }
            (Err(peeked), Err(decoded)) => assert_eq!(peeked, decoded, "{}", fixture.name),
            (peeked, decoded) => panic!("{}: {peeked:?} and {decoded:?}", fixture.name),
        }
    }
}

#[test]
fn peek_answers_for_every_prefix_as_soon_as_it_can() {
    for fixture in connects() {
        let whole = peek_connect(&fixture.bytes, usize::MAX);
        let mut answered = false;
        let mut promised = 0;
        for len in 0..=fixture.bytes.len() {
            let peeked = peek_connect(&fixture.bytes[..len], usize::MAX);
            match &peeked {
                Ok(Peek::Incomplete(needed)) => {
                    assert!(!answered, "{} at {len}: forgot what it knew", fixture.name);
                    assert!(
                        (len + 1..=fixture.bytes.len()).contains(needed),
                        "{} at {len}: {needed}",
                        fixture.name
                    );
                    promised = *needed;
                }
                Ok(Peek::Connect(head)) => {
                    assert!(len >= promised, "{} at {len}: had asked for more", fixture.name);
                    answered = true;
                    if head.username_known {
                        // An error in the will may still come, even if nothing else is to be learned.
                        assert!(peeked == whole || whole.is_err(), "{} at {len}", fixture.name);
                    } else {
                        assert_eq!(head.username, None);
                        assert!(
                            (len + 1..=fixture.bytes.len()).contains(&head.username_needs),
                            "{}",
                            fixture.name
                        );
                    }
                }
                Err(_) => assert_eq!(peeked, whole, "{} at {len}", fixture.name),
            }
        }
    }
}

#[test]
fn peek_knows_the_client_id_before_will_and_user_name_arrive() {
    let all = wire(r#"10 [ "MQTT" 04 ce 003c "device-1" "will/topic" "gone" "user" "pass" ]"#);
    let client_id_ends = 2 + 6 + 1 + 1 + 2 + 2 + 8;
    assert_eq!(peek_connect(&all[..client_id_ends - 1], 64), Ok(Peek::Incomplete(client_id_ends)));
    let Ok(Peek::Connect(head)) = peek_connect(&all[..client_id_ends], 64) else {
        panic!("the client id is here")
    };
    assert_eq!((head.client_id, head.username, head.username_known), ("device-1", None, false));
    assert_eq!(head.packet_len, all.len());
    let Ok(Peek::Connect(head)) = peek_connect(&all[..all.len() - 6], 64) else {
        panic!("the user name is here")
    };
    assert_eq!((head.username, head.username_known), (Some("user"), true));
}

#[test]
fn peek_looks_at_no_more_bytes_than_allowed() {
    let all = wire(r#"10 [ "MQTT" 04 82 003c "device-1" "user" ]"#);
    let client_id_ends = 2 + 6 + 1 + 1 + 2 + 2 + 8;
    for seen in 0..=all.len() {
        let below = peek_connect(&all[..seen], client_id_ends - 1);
        let exact = peek_connect(&all[..seen], client_id_ends);
        if seen < client_id_ends {
            assert!(matches!(exact, Ok(Peek::Incomplete(_))), "at {seen}");
        } else {
            let Ok(Peek::Connect(head)) = exact else { panic!("at {seen}: the client id fits") };
            assert!(!head.username_known && head.username_needs > client_id_ends);
        }
        // As soon as the length of the client id is known.
        if seen >= client_id_ends - 8 {
            assert_eq!(below.expect_err("too large").reason, ReasonCode::PacketTooLarge, "at {seen}");
        }
    }
}

#[test]
fn peek_does_not_wait_for_a_will_if_there_is_no_user_name() {
    let all = wire(r#"10 [ "MQTT" 04 06 003c "device-1" "will/topic" "gone" ]"#);
    let Ok(Peek::Connect(head)) = peek_connect(&all[..24], 64) else { panic!("the client id is here") };
    assert_eq!((head.client_id, head.username, head.username_known), ("device-1", None, true));
}

/// [v3 MQTT-3.1.2-1]
#[test]
fn peek_refuses_another_protocol_by_the_length_of_its_name() {
    // [MQTT-3.1.2-1]
    for name in [0, 3, 5, 7, 65_535_u16] {
        let mut bytes = wire("10 ff7f");
        bytes.extend(name.to_be_bytes());
        let error = peek_connect(&bytes, usize::MAX).expect_err("not MQTT");
        assert_eq!(error.reason, ReasonCode::UnsupportedProtocolVersion, "{name}");
    }
}

#[test]
fn peek_refuses_what_is_no_connect_at_the_first_byte() {
    for first in (0..=255_u8).filter(|first| first >> 4 != 1) {
        let error = peek_connect(&[first], usize::MAX).expect_err("no CONNECT");
        assert_eq!((error.reason, error.clause), (ReasonCode::ProtocolError, "MQTT-3.1.0-1"));
    }
}
