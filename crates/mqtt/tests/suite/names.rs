//! Topic names, topic filters, reason codes and properties.

use mqtt::filter::{Filter, FilterError, matches};
use mqtt::property::{Property, ValueType};
use mqtt::topic::{self, TopicError};
use mqtt::{PacketId, QoS, ReasonCode, Version};
use proptest::prelude::*;

use crate::oracle;

fn levels() -> impl Strategy<Value = String> {
    prop_oneof![
        8 => "[ab$+#/]{0,8}",
        4 => "(\\$share/)?[ab+]{0,2}/?([ab]|\\+|#|/){0,6}",
        1 => "[^/]{0,3}(/[^/]{0,2}){0,3}",
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]
    #[test]
    fn filters_are_parsed_and_matched_by_the_letter_of_the_specification(filter in levels(), name in levels()) {
        oracle::filter::check(&filter, &name);
    }

    #[test]
    fn a_filter_made_from_a_topic_matches_it(name in "[ab]{0,2}(/[ab]{0,2}){0,4}", plus in any::<u8>(), cut in 0..6_usize) {
        prop_assume!(!name.is_empty());
        let levels: Vec<&str> = name.split('/').enumerate()
            .map(|(at, level)| if plus & 1 << at == 0 { level } else { "+" }).collect();
        prop_assert!(matches(&levels.join("/"), &name));
        let mut front = levels[..cut.min(levels.len())].to_vec();
        front.push("#");
        prop_assert!(matches(&front.join("/"), &name));
    }
}

#[test]
fn the_examples_of_the_specification_match() {
    for (filter, name, expected) in [
        // 4.7.1.2
        ("sport/tennis/player1/#", "sport/tennis/player1", true),
        ("sport/tennis/player1/#", "sport/tennis/player1/ranking", true),
        ("sport/tennis/player1/#", "sport/tennis/player1/score/wimbledon", true),
        ("sport/#", "sport", true),
        ("#", "sport", true),
        ("#", "/", true),
        // 4.7.1.3
        ("sport/tennis/+", "sport/tennis/player1", true),
        ("sport/tennis/+", "sport/tennis/player1/ranking", false),
        ("sport/+", "sport", false),
        ("sport/+", "sport/", true),
        ("+/+", "/finance", true),
        ("/+", "/finance", true),
        ("+", "/finance", false),
        // 4.7.2 [MQTT-4.7.2-1]
        ("#", "$SYS/x", false),
        ("+/monitor/Clients", "$SYS/monitor/Clients", false),
        ("$SYS/#", "$SYS/x", true),
        ("$SYS/#", "$SYS", true),
        ("$SYS/monitor/+", "$SYS/monitor/Clients", true),
        ("a/+", "a/$b", true),
        ("a/#", "a/$b", true),
        // 4.7.3: no normalisation [MQTT-4.7.3-4]
        ("ACCOUNTS", "Accounts", false),
        ("/finance", "finance", false),
        ("a//b", "a/b", false),
        ("a/", "a", false),
    ] {
        assert_eq!(matches(filter, name), expected, "{filter} and {name}");
        oracle::filter::check(filter, name);
    }
}

/// [MQTT-4.7.1-1], [MQTT-4.7.1-2], [MQTT-4.7.3-1], [MQTT-4.7.3-2], [MQTT-4.8.2-1], [MQTT-4.8.2-2],
/// [v3 MQTT-4.7.1-2], [v3 MQTT-4.7.1-3], [v3 MQTT-4.7.3-1], [v3 MQTT-4.7.3-2]
#[test]
fn invalid_filters_are_refused_with_their_rule() {
    for (filter, expected) in [
        ("", FilterError::Empty),
        ("sport/tennis#", FilterError::MultiLevelWildcard),
        ("sport/tennis/#/ranking", FilterError::MultiLevelWildcard),
        ("##", FilterError::MultiLevelWildcard),
        ("sport+", FilterError::SingleLevelWildcard),
        ("++", FilterError::SingleLevelWildcard),
        ("a/+b/c", FilterError::SingleLevelWildcard),
        ("a\0", FilterError::Null),
        ("$share/", FilterError::ShareWithoutFilter),
        ("$share/group", FilterError::ShareWithoutFilter),
        ("$share/group/", FilterError::ShareWithoutFilter),
        ("$share//a", FilterError::ShareNameEmpty),
        ("$share/+/a", FilterError::ShareNameWildcard),
        ("$share/g#/a", FilterError::ShareNameWildcard),
        ("$share/g/a#", FilterError::MultiLevelWildcard),
    ] {
        let error = Filter::parse(filter).expect_err(filter);
        assert_eq!(error, expected, "{filter}");
        let malformed = expected == FilterError::Null;
        let reason = if malformed { ReasonCode::MalformedPacket } else { ReasonCode::TopicFilterInvalid };
        assert_eq!(error.reason(), reason);
        oracle::filter::check(filter, "a");
    }
}

#[test]
fn a_shared_filter_gives_its_group_and_its_path() {
    let shared = Filter::parse("$share/group/a/+/#").unwrap();
    assert_eq!((shared.share(), shared.path(), shared.has_wildcards()), (Some("group"), "a/+/#", true));
    assert!(shared.matches("a/b"));
    // The path may begin with a slash, and the group may be any text.
    let shared = Filter::parse("$share/grüße//a").unwrap();
    assert_eq!((shared.share(), shared.path()), (Some("grüße"), "/a"));
    for ordinary in ["$share", "$shared/a/b", "$SHARE/a/b", "/$share/a/b"] {
        assert_eq!(Filter::parse(ordinary).unwrap().share(), None, "{ordinary}");
    }
}

/// [v3 MQTT-4.7.3-3]
#[test]
fn names_and_filters_of_65535_bytes_are_allowed_and_no_longer_ones() {
    // [MQTT-4.7.3-3]
    let longest = "x".repeat(65_535);
    assert_eq!(topic::validate(&longest), Ok(()));
    assert!(Filter::parse(&longest).is_ok());
    let longer = "x".repeat(65_536);
    assert_eq!(topic::validate(&longer), Err(TopicError::TooLong));
    assert_eq!(Filter::parse(&longer), Err(FilterError::TooLong));
}

/// [MQTT-4.7.3-2]
#[test]
fn invalid_topic_names_are_refused_with_their_rule() {
    for (name, error, reason) in [
        ("", TopicError::Empty, ReasonCode::TopicNameInvalid),
        ("a/#", TopicError::Wildcard, ReasonCode::TopicNameInvalid),
        ("+", TopicError::Wildcard, ReasonCode::TopicNameInvalid),
        ("a\0b", TopicError::Null, ReasonCode::MalformedPacket),
    ] {
        assert_eq!(topic::validate(name), Err(error), "{name}");
        assert_eq!(error.reason(), reason);
    }
    for name in ["/", "a", " ", "$SYS/x", "a//b", "\u{FEFF}"] {
        assert_eq!(topic::validate(name), Ok(()), "{name}");
    }
}

#[test]
fn reason_codes_have_their_numbers_and_names() {
    // Table 2-6.
    assert_eq!(ReasonCode::ALL.len(), 43);
    for pair in ReasonCode::ALL.windows(2) {
        assert!(pair[0].value() < pair[1].value());
    }
    for value in 0..=255 {
        let code = ReasonCode::from_u8(value);
        assert_eq!(code.is_some(), ReasonCode::ALL.iter().any(|code| code.value() == value));
        if let Some(code) = code {
            assert_eq!(code.value(), value);
            assert_eq!(code.is_error(), value >= 0x80);
        }
    }
    assert_eq!(ReasonCode::SessionTakenOver.name(), "session_taken_over");
    assert_eq!(ReasonCode::SessionTakenOver.to_string(), "Session taken over");
    assert_eq!(ReasonCode::WildcardSubscriptionsNotSupported.value(), 0xA2);
    let mut names: Vec<_> = ReasonCode::ALL.iter().map(|code| code.name()).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), ReasonCode::ALL.len());
}

#[test]
fn return_codes_of_311_come_back_and_every_failure_has_one() {
    for value in 0..=255 {
        match ReasonCode::from_v3_connack(value) {
            Some(code) => assert_eq!(code.v3_connack(), value),
            None => assert!(value > 5),
        }
    }
    for code in ReasonCode::ALL {
        assert_eq!(code.v3_connack() != 0, code.is_error(), "{code}");
        assert!(code.v3_connack() <= 5);
    }
}

#[test]
fn properties_have_their_numbers_and_types() {
    // Table 2-4.
    assert_eq!(Property::ALL.len(), 27);
    for id in 0..=300 {
        let property = Property::from_id(id);
        assert_eq!(property.is_some(), Property::ALL.iter().any(|property| u32::from(property.id()) == id));
        if let Some(property) = property {
            assert_eq!(u32::from(property.id()), id);
        }
    }
    assert_eq!(Property::SharedSubscriptionAvailable.id(), 0x2A);
    assert_eq!(Property::SubscriptionIdentifier.value_type(), ValueType::VariableByteInteger);
    assert_eq!(Property::UserProperty.title(), "User Property");
}

#[test]
fn small_types_know_their_ranges() {
    assert_eq!(PacketId::new(0), None);
    assert_eq!(PacketId::new(65_535).unwrap().next(), PacketId::MIN);
    assert_eq!(PacketId::MIN.next().get(), 2);
    assert_eq!(QoS::from_u8(2), Some(QoS::ExactlyOnce));
    assert_eq!(QoS::from_u8(3), None);
    assert_eq!((Version::V31.level(), Version::V311.level(), Version::V5.level()), (3, 4, 5));
}
