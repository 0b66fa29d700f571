//! Arbitrary packets that a side may send in a version.

use mqtt::codec::decode::Role;
use mqtt::packet::{
    Ack, Auth, Binary, Connack, ConnackProperties, Connect, ConnectProperties, Disconnect,
    DisconnectProperties, Packet, Publish, PublishProperties, ReasonProperties, RetainHandling, Suback,
    Subscribe, SubscribeFilter, SubscriptionOptions, Text, Unsuback, Unsubscribe, UserProperties, Will,
};
use mqtt::{PacketId, QoS, ReasonCode, Version};
use proptest::collection::vec;
use proptest::option::of;
use proptest::prelude::*;
use proptest::sample::select;

use ReasonCode as R;

pub(crate) fn version() -> impl Strategy<Value = Version> {
    select(vec![Version::V31, Version::V311, Version::V5])
}

pub(crate) fn role() -> impl Strategy<Value = Role> {
    select(vec![Role::Client, Role::Server])
}

/// A version, a side, and a packet that the side may send in that version, in the form in which it arrives: nothing that
/// the version cannot say.
pub(crate) fn sent() -> impl Strategy<Value = (Version, Role, Packet<'static>)> {
    (version(), role()).prop_flat_map(|(version, role)| (Just(version), Just(role), packet(version, role)))
}

fn packet(version: Version, role: Role) -> BoxedStrategy<Packet<'static>> {
    let both = prop_oneof![
        publish(version, role).prop_map(Packet::Publish),
        ack(version, PUBACK).prop_map(Packet::Puback),
        ack(version, PUBACK).prop_map(Packet::Pubrec),
        ack(version, PUBREL).prop_map(Packet::Pubrel),
        ack(version, PUBREL).prop_map(Packet::Pubcomp),
    ];
    let mut choices = vec![(5, both.boxed())];
    match role {
        Role::Client => choices.extend([
            (2, connect(version).prop_map(|packet| Packet::Connect(Box::new(packet))).boxed()),
            (1, subscribe(version).prop_map(Packet::Subscribe).boxed()),
            (1, unsubscribe(version).prop_map(Packet::Unsubscribe).boxed()),
            (1, Just(Packet::Pingreq).boxed()),
        ]),
        Role::Server => choices.extend([
            (2, connack(version).prop_map(|packet| Packet::Connack(Box::new(packet))).boxed()),
            (1, suback(version).prop_map(Packet::Suback).boxed()),
            (1, unsuback(version).prop_map(Packet::Unsuback).boxed()),
            (1, Just(Packet::Pingresp).boxed()),
        ]),
    }
    if role == Role::Client || version.is_v5() {
        choices.push((1, disconnect(version, role).prop_map(Packet::Disconnect).boxed()));
    }
    if version.is_v5() {
        choices.push((1, auth(role).prop_map(Packet::Auth).boxed()));
    }
    proptest::strategy::Union::new_weighted(choices).boxed()
}

fn text() -> impl Strategy<Value = Text<'static>> {
    prop_oneof![4 => "[a-zA-Z0-9/$ -]{0,12}", 2 => "[^\0]{0,8}", 1 => "[b-y]{120,300}"].prop_map(Into::into)
}

fn binary() -> impl Strategy<Value = Binary<'static>> {
    vec(any::<u8>(), 0..40).prop_map(Into::into)
}

fn topic() -> impl Strategy<Value = Text<'static>> {
    prop_oneof![4 => "[a-z/$]{1,12}", 1 => "[^\0#+]{1,8}"].prop_map(Into::into)
}

fn user() -> impl Strategy<Value = UserProperties<'static>> {
    vec((text(), text()), 0..3)
}

fn id() -> impl Strategy<Value = PacketId> {
    (1..=u16::MAX).prop_map(|id| PacketId::new(id).expect("not 0"))
}

fn qos() -> impl Strategy<Value = QoS> {
    select(vec![QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce])
}

/// `strategy` in version 5, the default before.
fn five<T: Default + Clone + std::fmt::Debug + 'static>(
    version: Version,
    strategy: impl Strategy<Value = T> + 'static,
) -> BoxedStrategy<T> {
    if version.is_v5() { strategy.boxed() } else { Just(T::default()).boxed() }
}

fn connect(version: Version) -> impl Strategy<Value = Connect<'static>> {
    let head = (any::<bool>(), any::<bool>(), any::<u16>(), text());
    let credentials = (of(text()), of(binary()));
    (head, of(will(version)), credentials, five(version, connect_properties())).prop_map(
        move |((bridge, clean_start, keep_alive, client_id), will, (username, password), properties)| {
            Connect {
                version,
                bridge,
                clean_start,
                keep_alive,
                client_id,
                will,
                password: password.filter(|_| version.is_v5() || username.is_some()),
                username,
                properties,
            }
        },
    )
}

fn connect_properties() -> impl Strategy<Value = ConnectProperties<'static>> {
    let numbers = (of(any::<u32>()), of(1..=u16::MAX), of(1..=u32::MAX), of(any::<u16>()));
    let information = (of(any::<bool>()), of(any::<bool>()));
    (numbers, information, of((text(), of(binary()))), user()).prop_map(
        |((expiry, receive, size, alias), (response, problem), method, user_properties)| ConnectProperties {
            session_expiry_interval: expiry,
            receive_maximum: receive,
            maximum_packet_size: size,
            topic_alias_maximum: alias,
            request_response_information: response,
            request_problem_information: problem,
            authentication_data: method.as_ref().and_then(|(_, data)| data.clone()),
            authentication_method: method.map(|(method, _)| method),
            user_properties,
        },
    )
}

fn will(version: Version) -> impl Strategy<Value = Will<'static>> {
    let delay = if version.is_v5() { of(any::<u32>()).boxed() } else { Just(None).boxed() };
    (topic(), binary(), qos(), any::<bool>(), delay, five(version, message())).prop_map(
        |(topic, payload, qos, retain, delay_interval, properties)| Will {
            topic,
            payload,
            qos,
            retain,
            delay_interval,
            properties,
        },
    )
}

/// The properties that PUBLISH and will share.
fn message() -> impl Strategy<Value = PublishProperties<'static>> {
    (of(any::<bool>()), of(any::<u32>()), of(topic()), of(binary()), of(text()), user()).prop_map(
        |(format, expiry, response_topic, correlation_data, content_type, user_properties)| {
            PublishProperties {
                payload_format_indicator: format,
                message_expiry_interval: expiry,
                topic_alias: None,
                response_topic,
                correlation_data,
                user_properties,
                subscription_identifiers: Default::default(),
                content_type,
            }
        },
    )
}

fn publish(version: Version, role: Role) -> impl Strategy<Value = Publish<'static>> {
    let identifiers = if role == Role::Server && version.is_v5() { 0..4_usize } else { 0..1 };
    let alias = if version.is_v5() { of(1..=u16::MAX).boxed() } else { Just(None).boxed() };
    let head = (any::<bool>(), qos(), any::<bool>(), topic(), any::<bool>(), id());
    let identifier = 1..=mqtt::codec::MAX_REMAINING_LENGTH;
    (head, five(version, message()), alias, vec(identifier, identifiers), binary()).prop_map(
        |((dup, qos, retain, topic, by_alias, id), mut properties, alias, identifiers, payload)| {
            properties.topic_alias = alias;
            properties.subscription_identifiers = identifiers.into();
            let needs_id = qos != QoS::AtMostOnce;
            Publish {
                dup: dup && needs_id,
                qos,
                retain,
                topic: if by_alias && alias.is_some() { "".into() } else { topic },
                packet_id: needs_id.then_some(id),
                properties: properties.into(),
                payload,
            }
        },
    )
}

/// One of `five` in version 5, one of `before` before.
fn reason(
    version: Version,
    before: &'static [ReasonCode],
    five: &'static [ReasonCode],
) -> impl Strategy<Value = ReasonCode> {
    select(if version.is_v5() { five } else { before })
}

const PUBACK: &[ReasonCode] = &[
    R::Success,
    R::NoMatchingSubscribers,
    R::UnspecifiedError,
    R::ImplementationSpecificError,
    R::NotAuthorized,
    R::TopicNameInvalid,
    R::PacketIdentifierInUse,
    R::QuotaExceeded,
    R::PayloadFormatInvalid,
];
const PUBREL: &[ReasonCode] = &[R::Success, R::PacketIdentifierNotFound];

fn ack(version: Version, reasons: &'static [ReasonCode]) -> impl Strategy<Value = Ack<'static>> {
    (id(), reason(version, &[R::Success], reasons), five(version, explanation()))
        .prop_map(|(packet_id, reason, properties)| Ack { packet_id, reason, properties })
}

fn explanation() -> impl Strategy<Value = ReasonProperties<'static>> {
    (of(text()), user())
        .prop_map(|(reason_string, user_properties)| ReasonProperties { reason_string, user_properties })
}

fn connack(version: Version) -> impl Strategy<Value = Connack<'static>> {
    const BEFORE: &[ReasonCode] = &[
        R::Success,
        R::UnsupportedProtocolVersion,
        R::ClientIdentifierNotValid,
        R::ServerUnavailable,
        R::BadUserNameOrPassword,
        R::NotAuthorized,
    ];
    const FIVE: &[ReasonCode] = &[
        R::Success,
        R::UnspecifiedError,
        R::MalformedPacket,
        R::ProtocolError,
        R::UnsupportedProtocolVersion,
        R::Banned,
        R::BadAuthenticationMethod,
        R::TopicNameInvalid,
        R::PacketTooLarge,
        R::QosNotSupported,
        R::ServerMoved,
        R::ConnectionRateExceeded,
    ];
    (any::<bool>(), reason(version, BEFORE, FIVE), five(version, connack_properties())).prop_map(
        move |(session_present, reason, properties)| Connack {
            session_present: session_present && reason == R::Success && version != Version::V31,
            reason,
            properties,
        },
    )
}

fn connack_properties() -> impl Strategy<Value = ConnackProperties<'static>> {
    let numbers = (of(any::<u32>()), of(1..=u16::MAX), of(1..=u32::MAX), of(any::<u16>()), of(any::<u16>()));
    let flags =
        (of(any::<bool>()), of(any::<bool>()), of(any::<bool>()), of(any::<bool>()), of(any::<bool>()));
    let texts = (of(text()), of(text()), of(text()), of(text()));
    (numbers, flags, texts, of((text(), of(binary()))), user()).prop_map(
        |(
            (expiry, receive, size, alias, keep_alive),
            flags,
            (assigned, why, basis, server),
            method,
            user,
        )| {
            ConnackProperties {
                session_expiry_interval: expiry,
                receive_maximum: receive,
                maximum_qos: flags.0.map(|one| if one { QoS::AtLeastOnce } else { QoS::AtMostOnce }),
                retain_available: flags.1,
                maximum_packet_size: size,
                assigned_client_identifier: assigned,
                topic_alias_maximum: alias,
                reason_string: why,
                user_properties: user,
                wildcard_subscription_available: flags.2,
                subscription_identifiers_available: flags.3,
                shared_subscription_available: flags.4,
                server_keep_alive: keep_alive,
                response_information: basis,
                server_reference: server,
                authentication_data: method.as_ref().and_then(|(_, data)| data.clone()),
                authentication_method: method.map(|(method, _)| method),
            }
        },
    )
}

fn subscribe(version: Version) -> impl Strategy<Value = Subscribe<'static>> {
    let identifier =
        if version.is_v5() { of(1..=mqtt::codec::MAX_REMAINING_LENGTH).boxed() } else { Just(None).boxed() };
    let handling = select(vec![RetainHandling::Send, RetainHandling::SendIfNew, RetainHandling::DoNotSend]);
    let options = (qos(), any::<bool>(), any::<bool>(), handling);
    let filters = vec((text(), options), 1..4).prop_map(move |filters| {
        let one = |(filter, (qos, no_local, retain_as_published, retain_handling)): (Text<'static>, _)| {
            let no_local = no_local && !filter.starts_with("$share/");
            let full = SubscriptionOptions { qos, no_local, retain_as_published, retain_handling };
            let options =
                if version.is_v5() { full } else { SubscriptionOptions { qos, ..Default::default() } };
            SubscribeFilter { filter, options }
        };
        filters.into_iter().map(one).collect()
    });
    (id(), identifier, five(version, user()), filters).prop_map(
        |(packet_id, subscription_identifier, user_properties, filters)| Subscribe {
            packet_id,
            subscription_identifier,
            user_properties,
            filters,
        },
    )
}

fn suback(version: Version) -> impl Strategy<Value = Suback<'static>> {
    const BEFORE: &[ReasonCode] = &[R::Success, R::GrantedQos1, R::GrantedQos2, R::UnspecifiedError];
    const FIVE: &[ReasonCode] = &[
        R::Success,
        R::GrantedQos1,
        R::GrantedQos2,
        R::UnspecifiedError,
        R::NotAuthorized,
        R::TopicFilterInvalid,
        R::SharedSubscriptionsNotSupported,
        R::WildcardSubscriptionsNotSupported,
    ];
    (id(), five(version, explanation()), vec(reason(version, BEFORE, FIVE), 1..5))
        .prop_map(|(packet_id, properties, reasons)| Suback { packet_id, properties, reasons })
}

fn unsubscribe(version: Version) -> impl Strategy<Value = Unsubscribe<'static>> {
    (id(), five(version, user()), vec(text(), 1..4))
        .prop_map(|(packet_id, user_properties, filters)| Unsubscribe { packet_id, user_properties, filters })
}

fn unsuback(version: Version) -> impl Strategy<Value = Unsuback<'static>> {
    const FIVE: &[ReasonCode] =
        &[R::Success, R::NoSubscriptionExisted, R::NotAuthorized, R::PacketIdentifierInUse];
    let reasons = if version.is_v5() { 1..4 } else { 0..1 };
    (id(), five(version, explanation()), vec(reason(version, &[R::Success], FIVE), reasons))
        .prop_map(|(packet_id, properties, reasons)| Unsuback { packet_id, properties, reasons })
}

fn disconnect(version: Version, role: Role) -> impl Strategy<Value = Disconnect<'static>> {
    let reasons: &[ReasonCode] = match role {
        Role::Client => &[R::Success, R::DisconnectWithWill, R::UnspecifiedError, R::ReceiveMaximumExceeded],
        Role::Server => {
            &[R::Success, R::SessionTakenOver, R::KeepAliveTimeout, R::ServerMoved, R::MaximumConnectTime]
        }
    };
    let properties = (of(any::<u32>()), of(text()), of(text()), user()).prop_map(
        move |(expiry, reason_string, server_reference, user_properties)| DisconnectProperties {
            session_expiry_interval: expiry.filter(|_| role == Role::Client),
            reason_string,
            user_properties,
            server_reference: server_reference.filter(|_| role == Role::Server),
        },
    );
    (reason(version, &[R::Success], reasons), five(version, properties))
        .prop_map(|(reason, properties)| Disconnect { reason, properties })
}

fn auth(role: Role) -> impl Strategy<Value = Auth<'static>> {
    let reasons = match role {
        Role::Client => vec![R::ContinueAuthentication, R::ReAuthenticate],
        Role::Server => vec![R::Success, R::ContinueAuthentication],
    };
    (select(reasons), text(), of(binary()), of(text()), user()).prop_map(
        |(reason, method, authentication_data, reason_string, user_properties)| Auth {
            reason,
            authentication_method: Some(method),
            authentication_data,
            reason_string,
            user_properties,
        },
    )
}
