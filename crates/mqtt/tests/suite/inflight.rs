//! Both halves of QoS 1 and 2: against their oracle, and what the specification says in so many words.

use mqtt::inflight::{InFlight, Inbound, Outbound, Pubrec, Qos2, RestoreError};
use mqtt::{PacketId, QoS, ReasonCode};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::oracle::inflight::{Op, Which, check, parse};

fn id(value: u16) -> PacketId {
    PacketId::new(value).expect("not 0")
}

fn which() -> impl Strategy<Value = Which> {
    prop_oneof![
        4 => any::<u8>().prop_map(Which::Nth),
        2 => Just(Which::Nth(0)),
        1 => (1..20_u16).prop_map(Which::Id),
        1 => (65_520..=65_535_u16).prop_map(Which::Id),
    ]
}

/// Identifiers where the counting wraps around.
fn near_the_wrap() -> impl Strategy<Value = u16> {
    prop_oneof![1..12_u16, 65_524..=65_535_u16]
}

fn qos() -> impl Strategy<Value = QoS> {
    prop_oneof![Just(QoS::AtLeastOnce), Just(QoS::ExactlyOnce)]
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        8 => qos().prop_map(Op::Begin),
        4 => which().prop_map(Op::Puback),
        4 => (which(), any::<bool>()).prop_map(|(which, refused)| Op::Pubrec(which, refused)),
        4 => which().prop_map(Op::Pubcomp),
        1 => prop_oneof![0..6_u16, Just(65_535)].prop_map(Op::Limit),
        1 => Just(Op::Reload),
        2 => (near_the_wrap(), qos(), any::<bool>()).prop_map(|(id, qos, released)| Op::Restore(id, qos, released)),
        4 => (near_the_wrap(), qos()).prop_map(|(id, qos)| Op::Received(id, qos)),
        2 => Just(Op::Acknowledged),
        3 => which().prop_map(Op::Release),
        1 => Just(Op::Begin(QoS::AtMostOnce)),
        1 => near_the_wrap().prop_map(|id| Op::Received(id, QoS::AtMostOnce)),
    ]
}

proptest! {
    #[test]
    fn any_history_ends_where_the_naive_list_ends(ops in vec(op(), 0..120), limit in prop_oneof![0..8_u16, Just(65_535)]) {
        check(&ops, limit);
    }

    #[test]
    fn any_bytes_are_a_history_for_the_fuzzer(bytes in vec(any::<u8>(), 0..400), limit in any::<u16>()) {
        check(&parse(&bytes), limit);
    }
}

#[test]
fn identifiers_ascend_wrap_and_skip_those_in_use() {
    let mut outbound = Outbound::new(u16::MAX);
    outbound.restore(InFlight::Publish { id: id(1), qos: QoS::AtLeastOnce, item: "stuck" }).unwrap();
    outbound.restore(InFlight::Publish { id: id(65_534), qos: QoS::AtLeastOnce, item: "last" }).unwrap();
    assert_eq!(outbound.begin(QoS::AtLeastOnce, "next"), Some(id(65_535)));
    // 1 is in use [MQTT-2.2.1-3]
    assert_eq!(outbound.begin(QoS::AtLeastOnce, "around"), Some(id(2)));
    assert_eq!(outbound.puback(id(65_534)), Some("last"));
    assert_eq!(outbound.puback(id(2)), Some("around"));
    assert_eq!(outbound.puback(id(2)), None);
    assert_eq!(outbound.begin(QoS::ExactlyOnce, "go on"), Some(id(3)));
}

#[test]
fn all_identifiers_can_be_in_flight_and_no_more() {
    let mut outbound = Outbound::new(u16::MAX);
    for expected in 1..=u16::MAX {
        assert_eq!(outbound.begin(QoS::AtLeastOnce, ()), Some(id(expected)));
    }
    assert_eq!((outbound.quota(), outbound.begin(QoS::AtLeastOnce, ())), (0, None));
    // The only free one is found wherever it is.
    assert_eq!(outbound.puback(id(40_000)), Some(()));
    assert_eq!(outbound.begin(QoS::AtLeastOnce, ()), Some(id(40_000)));
    for acknowledged in 1..=u16::MAX {
        assert_eq!(outbound.puback(id(acknowledged)), Some(()));
    }
    assert!(outbound.is_empty());
}

#[test]
fn a_free_identifier_is_found_behind_a_run_of_used_ones() {
    let mut outbound = Outbound::new(u16::MAX);
    for n in [5, 6, 4] {
        outbound.restore(InFlight::Publish { id: id(n), qos: QoS::AtLeastOnce, item: n }).unwrap();
    }
    assert_eq!(outbound.puback(id(4)), Some(4));
    assert_eq!(outbound.begin(QoS::AtLeastOnce, 7), Some(id(7)));
}

#[test]
fn the_quota_is_the_peers_receive_maximum_less_what_is_in_flight() {
    // [MQTT-3.3.4-9], [MQTT-4.9.0-2]
    let mut outbound = Outbound::new(2);
    let first = outbound.begin(QoS::AtLeastOnce, ()).unwrap();
    let second = outbound.begin(QoS::ExactlyOnce, ()).unwrap();
    assert_eq!((outbound.quota(), outbound.begin(QoS::AtLeastOnce, ())), (0, None));
    // PUBREC below 0x80 gives nothing back, PUBCOMP does (4.9).
    assert_eq!(outbound.pubrec(second, ReasonCode::NoMatchingSubscribers), Pubrec::Release(Some(())));
    assert_eq!(outbound.quota(), 0);
    assert!(outbound.pubcomp(second));
    assert_eq!(outbound.quota(), 1);
    let third = outbound.begin(QoS::ExactlyOnce, ()).unwrap();
    assert_eq!(outbound.pubrec(third, ReasonCode::UnspecifiedError), Pubrec::Ended(()));
    assert_eq!(outbound.puback(first), Some(()));
    assert_eq!(outbound.quota(), 2);
    outbound.set_receive_maximum(0);
    assert_eq!(outbound.quota(), 0);
}

#[test]
fn an_acknowledgement_of_the_wrong_kind_changes_nothing() {
    let mut outbound = Outbound::new(10);
    let one = outbound.begin(QoS::AtLeastOnce, 1).unwrap();
    let two = outbound.begin(QoS::ExactlyOnce, 2).unwrap();
    assert_eq!(outbound.pubrec(one, ReasonCode::Success), Pubrec::Unknown);
    assert!(!outbound.pubcomp(one));
    assert_eq!(outbound.puback(two), None);
    // PUBCOMP before PUBREC.
    assert!(!outbound.pubcomp(two));
    assert_eq!(outbound.len(), 2);
}

#[test]
fn after_a_reconnection_publishes_and_pubrels_are_sent_again_in_the_first_order() {
    // [MQTT-4.4.0-1], [MQTT-4.6.0-1], [MQTT-4.3.3-6]
    let mut outbound = Outbound::new(10);
    for (qos, item) in [(QoS::ExactlyOnce, 'a'), (QoS::AtLeastOnce, 'b'), (QoS::ExactlyOnce, 'c')] {
        outbound.begin(qos, item).unwrap();
    }
    assert_eq!(outbound.pubrec(id(1), ReasonCode::Success), Pubrec::Release(Some('a')));
    let again: Vec<_> = outbound.iter().collect();
    assert_eq!(
        again,
        [
            InFlight::Pubrel { id: id(1) },
            InFlight::Publish { id: id(2), qos: QoS::AtLeastOnce, item: &'b' },
            InFlight::Publish { id: id(3), qos: QoS::ExactlyOnce, item: &'c' },
        ]
    );
    // A PUBREC for it that comes again is answered with PUBREL again.
    assert_eq!(outbound.pubrec(id(1), ReasonCode::Success), Pubrec::Release(None));
}

#[test]
fn a_stored_session_that_contradicts_itself_is_refused() {
    let mut outbound = Outbound::new(10);
    outbound.restore(InFlight::Pubrel { id: id(7) }).unwrap();
    let twice = InFlight::Publish { id: id(7), qos: QoS::AtLeastOnce, item: () };
    assert_eq!(outbound.restore(twice), Err(RestoreError::Duplicate(id(7))));
    let qos0 = InFlight::Publish { id: id(8), qos: QoS::AtMostOnce, item: () };
    assert_eq!(outbound.restore(qos0), Err(RestoreError::Qos0));
    assert_eq!(outbound.len(), 1);
}

#[test]
fn a_restored_session_may_exceed_the_quota_and_then_begins_nothing_new() {
    let mut outbound = Outbound::new(1);
    for n in 1..=3 {
        outbound.restore(InFlight::Publish { id: id(n), qos: QoS::AtLeastOnce, item: n }).unwrap();
    }
    assert_eq!((outbound.len(), outbound.quota(), outbound.begin(QoS::AtLeastOnce, 4)), (3, 0, None));
    for n in 1..=3 {
        assert_eq!(outbound.puback(id(n)), Some(n));
    }
    assert_eq!(outbound.begin(QoS::AtLeastOnce, 4), Some(id(4)));
}

#[test]
fn a_qos_2_message_is_new_once_until_it_is_released() {
    // [MQTT-4.3.3-10], [MQTT-4.3.3-12]
    let mut inbound = Inbound::new(10);
    assert_eq!(inbound.publish_qos2(id(5)), Qos2::New);
    assert_eq!(inbound.publish_qos2(id(5)), Qos2::Duplicate);
    assert!(inbound.release(id(5)));
    assert!(!inbound.release(id(5)));
    assert_eq!(inbound.publish_qos2(id(5)), Qos2::New);
}

#[test]
fn a_peer_may_have_as_many_messages_in_flight_as_it_was_granted_and_no_more() {
    // [MQTT-3.3.4-7]
    let mut inbound = Inbound::new(2);
    assert!(inbound.publish(QoS::AtLeastOnce, id(1)).is_ok());
    assert!(inbound.publish(QoS::ExactlyOnce, id(2)).is_ok());
    assert!(inbound.publish(QoS::AtMostOnce, id(3)).is_ok());
    // The same message again takes no more room.
    assert_eq!(inbound.publish(QoS::ExactlyOnce, id(2)), Ok(Qos2::Duplicate));
    assert!(!inbound.exceeds());
    let error = inbound.publish(QoS::ExactlyOnce, id(3)).expect_err("one too many");
    assert_eq!(error.reason(), ReasonCode::ReceiveMaximumExceeded);
    inbound.qos1_end();
    assert!(!inbound.exceeds());
}
