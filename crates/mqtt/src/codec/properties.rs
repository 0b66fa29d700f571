//! Reading the property sections of MQTT 5.0 (2.2.2).
//!
//! For every section: an unknown identifier, or one that does not belong there, is a Malformed Packet (2.2.2.2); one
//! that comes twice is a Protocol Error (said again under every property), except User Property and, in PUBLISH,
//! Subscription Identifier.

use std::borrow::Cow;

use super::DecodeError;
use super::decode::Role;
use super::reader::{Fault, Reader};
use crate::packet::{
    Auth, ConnackProperties, ConnectProperties, DisconnectProperties, Properties, PublishProperties,
    ReasonProperties, Text, UserProperties,
};
use crate::property::Property;
use crate::{QoS, topic};

const DUPLICATE: DecodeError = DecodeError::protocol("2.2.2.2", "a property comes more than once");
const MISPLACED: DecodeError =
    DecodeError::malformed("2.2.2.2", "a property does not belong into this packet");
const UNKNOWN: DecodeError = DecodeError::malformed("2.2.2.2", "a property identifier is not defined");

/// Reads a whole section: its length, then each property by `set`, which takes the value off the reader.
fn section<'a>(
    reader: &mut Reader<'a>,
    set: impl FnMut(Property, &mut Reader<'a>) -> Result<(), Fault>,
) -> Result<(), Fault> {
    let len = reader.varint()?;
    if len == 0 {
        return Ok(());
    }
    each(reader.section(len as usize)?, set)
}

/// Reads the properties of a section.
fn each<'a>(
    mut section: Reader<'a>,
    mut set: impl FnMut(Property, &mut Reader<'a>) -> Result<(), Fault>,
) -> Result<(), Fault> {
    let mut seen = 0_u64;
    while !section.is_empty() {
        let property = Property::from_id(section.varint()?).ok_or(Fault::Bad(UNKNOWN))?;
        let repeatable = matches!(property, Property::UserProperty | Property::SubscriptionIdentifier);
        let bit = 1 << (property.id() & 63);
        if !repeatable && seen & bit != 0 {
            return Err(DUPLICATE.into());
        }
        seen |= bit;
        set(property, &mut section)?;
    }
    Ok(())
}

fn misplaced() -> Result<(), Fault> {
    Err(MISPLACED.into())
}

fn text<'a>(reader: &mut Reader<'a>) -> Result<Option<Text<'a>>, Fault> {
    Ok(Some(Cow::Borrowed(reader.text()?)))
}

fn binary<'a>(reader: &mut Reader<'a>) -> Result<Option<Cow<'a, [u8]>>, Fault> {
    Ok(Some(Cow::Borrowed(reader.binary()?)))
}

fn push_user<'a>(reader: &mut Reader<'a>, list: &mut UserProperties<'a>) -> Result<(), Fault> {
    let name = reader.text()?;
    let value = reader.text()?;
    list.push((Cow::Borrowed(name), Cow::Borrowed(value)));
    Ok(())
}

fn boolean(reader: &mut Reader<'_>, clause: &'static str) -> Result<Option<bool>, Fault> {
    match reader.u8()? {
        0 => Ok(Some(false)),
        1 => Ok(Some(true)),
        _ => Err(DecodeError::protocol(clause, "a property that is 0 or 1 has another value").into()),
    }
}

/// Receive Maximum: "It is a Protocol Error to include the Receive Maximum value more than once or for it to have the value 0".
fn receive_maximum(reader: &mut Reader<'_>, clause: &'static str) -> Result<Option<u16>, Fault> {
    match reader.u16()? {
        0 => Err(DecodeError::protocol(clause, "Receive Maximum is 0").into()),
        value => Ok(Some(value)),
    }
}

/// Maximum Packet Size: never 0.
fn maximum_packet_size(reader: &mut Reader<'_>, clause: &'static str) -> Result<Option<u32>, Fault> {
    match reader.u32()? {
        0 => Err(DecodeError::protocol(clause, "Maximum Packet Size is 0").into()),
        value => Ok(Some(value)),
    }
}

/// Subscription Identifier: 1 to 268,435,455.
fn subscription_identifier(reader: &mut Reader<'_>, clause: &'static str) -> Result<u32, Fault> {
    match reader.varint()? {
        0 => Err(DecodeError::protocol(clause, "Subscription Identifier is 0").into()),
        value => Ok(value),
    }
}

/// 3.1.2.11
pub(super) fn connect<'a>(reader: &mut Reader<'a>) -> Result<ConnectProperties<'a>, Fault> {
    let mut p = ConnectProperties::default();
    section(reader, |property, r| {
        match property {
            Property::SessionExpiryInterval => p.session_expiry_interval = Some(r.u32()?),
            Property::ReceiveMaximum => p.receive_maximum = receive_maximum(r, "3.1.2.11.3")?,
            Property::MaximumPacketSize => p.maximum_packet_size = maximum_packet_size(r, "3.1.2.11.4")?,
            Property::TopicAliasMaximum => p.topic_alias_maximum = Some(r.u16()?),
            Property::RequestResponseInformation => {
                p.request_response_information = boolean(r, "3.1.2.11.6")?;
            }
            Property::RequestProblemInformation => p.request_problem_information = boolean(r, "3.1.2.11.7")?,
            Property::UserProperty => push_user(r, &mut p.user_properties)?,
            Property::AuthenticationMethod => p.authentication_method = text(r)?,
            Property::AuthenticationData => p.authentication_data = binary(r)?,
            _ => return misplaced(),
        }
        Ok(())
    })?;
    data_needs_method(p.authentication_data.is_some(), p.authentication_method.is_some(), "3.1.2.11.10")?;
    Ok(p)
}

/// "It is a Protocol Error to include Authentication Data if there is no Authentication Method."
fn data_needs_method(data: bool, method: bool, clause: &'static str) -> Result<(), Fault> {
    if data && !method {
        return Err(DecodeError::protocol(clause, "Authentication Data without Authentication Method").into());
    }
    Ok(())
}

/// 3.2.2.3
pub(super) fn connack<'a>(reader: &mut Reader<'a>) -> Result<ConnackProperties<'a>, Fault> {
    let mut p = ConnackProperties::default();
    section(reader, |property, r| {
        match property {
            Property::SessionExpiryInterval => p.session_expiry_interval = Some(r.u32()?),
            Property::ReceiveMaximum => p.receive_maximum = receive_maximum(r, "3.2.2.3.3")?,
            Property::MaximumQos => p.maximum_qos = maximum_qos(r)?,
            Property::RetainAvailable => p.retain_available = boolean(r, "3.2.2.3.5")?,
            Property::MaximumPacketSize => p.maximum_packet_size = maximum_packet_size(r, "3.2.2.3.6")?,
            Property::AssignedClientIdentifier => p.assigned_client_identifier = text(r)?,
            Property::TopicAliasMaximum => p.topic_alias_maximum = Some(r.u16()?),
            Property::ReasonString => p.reason_string = text(r)?,
            Property::UserProperty => push_user(r, &mut p.user_properties)?,
            Property::WildcardSubscriptionAvailable => {
                p.wildcard_subscription_available = boolean(r, "3.2.2.3.11")?;
            }
            Property::SubscriptionIdentifierAvailable => {
                p.subscription_identifiers_available = boolean(r, "3.2.2.3.12")?;
            }
            Property::SharedSubscriptionAvailable => {
                p.shared_subscription_available = boolean(r, "3.2.2.3.13")?;
            }
            Property::ServerKeepAlive => p.server_keep_alive = Some(r.u16()?),
            Property::ResponseInformation => p.response_information = text(r)?,
            Property::ServerReference => p.server_reference = text(r)?,
            Property::AuthenticationMethod => p.authentication_method = text(r)?,
            Property::AuthenticationData => p.authentication_data = binary(r)?,
            _ => return misplaced(),
        }
        Ok(())
    })?;
    data_needs_method(p.authentication_data.is_some(), p.authentication_method.is_some(), "3.2.2.3.18")?;
    Ok(p)
}

/// "It is a Protocol Error to include Maximum QoS more than once, or to have a value other than 0 or 1."
fn maximum_qos(reader: &mut Reader<'_>) -> Result<Option<QoS>, Fault> {
    match reader.u8()? {
        0 => Ok(Some(QoS::AtMostOnce)),
        1 => Ok(Some(QoS::AtLeastOnce)),
        _ => Err(DecodeError::protocol("3.2.2.3.4", "Maximum QoS is neither 0 nor 1").into()),
    }
}

/// The properties that PUBLISH and will share; `false` if `property` is none of them.
fn message<'a>(property: Property, r: &mut Reader<'a>, p: &mut PublishProperties<'a>) -> Result<bool, Fault> {
    match property {
        Property::PayloadFormatIndicator => p.payload_format_indicator = boolean(r, "3.3.2.3.2")?,
        Property::MessageExpiryInterval => p.message_expiry_interval = Some(r.u32()?),
        Property::ResponseTopic => p.response_topic = Some(Cow::Borrowed(response_topic(r)?)),
        Property::CorrelationData => p.correlation_data = binary(r)?,
        Property::UserProperty => push_user(r, &mut p.user_properties)?,
        Property::ContentType => p.content_type = text(r)?,
        _ => return Ok(false),
    }
    Ok(true)
}

/// A topic name: not empty [MQTT-4.7.3-1] and without wildcards [MQTT-3.3.2-14].
fn response_topic<'a>(reader: &mut Reader<'a>) -> Result<&'a str, Fault> {
    let name = reader.text()?;
    topic::validate(name)
        .map_err(|_| DecodeError::protocol("MQTT-3.3.2-14", "the Response Topic is not a topic name"))?;
    Ok(name)
}

/// 3.3.2.3
pub(super) fn publish<'a>(reader: &mut Reader<'a>, from: Role) -> Result<Properties<'a>, Fault> {
    let mut p: Option<Box<PublishProperties<'a>>> = None;
    section(reader, |property, r| publish_property(property, r, from, p.get_or_insert_default()))?;
    Ok(Properties::apart(p))
}

/// The properties of a PUBLISH that a server sent, from its section without the length.
pub(super) fn forwarded(section: &[u8]) -> Result<PublishProperties<'_>, Fault> {
    let mut p = PublishProperties::default();
    each(Reader::new(section, 0, section.len()), |property, r| {
        publish_property(property, r, Role::Server, &mut p)
    })?;
    Ok(p)
}

fn publish_property<'a>(
    property: Property,
    r: &mut Reader<'a>,
    from: Role,
    p: &mut PublishProperties<'a>,
) -> Result<(), Fault> {
    match property {
        Property::TopicAlias => {
            p.topic_alias = match r.u16()? {
                0 => return Err(ALIAS_ZERO.into()),
                alias => Some(alias),
            };
        }
        // Only a server knows which subscriptions a message matched [MQTT-3.3.4-6].
        Property::SubscriptionIdentifier if from == Role::Client => {
            return Err(IDENTIFIER_FROM_CLIENT.into());
        }
        Property::SubscriptionIdentifier => {
            p.subscription_identifiers.push(subscription_identifier(r, "3.3.2.3.8")?);
        }
        other => {
            if !message(other, r, p)? {
                return misplaced();
            }
        }
    }
    Ok(())
}

const ALIAS_ZERO: DecodeError = DecodeError {
    reason: crate::ReasonCode::TopicAliasInvalid,
    clause: "MQTT-3.3.2-8",
    detail: "the Topic Alias is 0",
};
const IDENTIFIER_FROM_CLIENT: DecodeError =
    DecodeError::protocol("MQTT-3.3.4-6", "a client sent a Subscription Identifier in PUBLISH");

/// 3.1.3.2: the delay, and the properties of the message.
pub(super) fn will<'a>(reader: &mut Reader<'a>) -> Result<(Option<u32>, PublishProperties<'a>), Fault> {
    let mut delay = None;
    let mut p = PublishProperties::default();
    section(reader, |property, r| {
        if property == Property::WillDelayInterval {
            delay = Some(r.u32()?);
        } else if !message(property, r, &mut p)? {
            return misplaced();
        }
        Ok(())
    })?;
    Ok((delay, p))
}

/// 3.4.2.2 and the like: acknowledgements, SUBACK, UNSUBACK.
pub(super) fn reason<'a>(reader: &mut Reader<'a>) -> Result<ReasonProperties<'a>, Fault> {
    let mut p = ReasonProperties::default();
    section(reader, |property, r| {
        match property {
            Property::ReasonString => p.reason_string = text(r)?,
            Property::UserProperty => push_user(r, &mut p.user_properties)?,
            _ => return misplaced(),
        }
        Ok(())
    })?;
    Ok(p)
}

/// 3.8.2.1: the identifier, at most once, and user properties.
pub(super) fn subscribe<'a>(reader: &mut Reader<'a>) -> Result<(Option<u32>, UserProperties<'a>), Fault> {
    let mut identifier = None;
    let mut user = UserProperties::new();
    section(reader, |property, r| {
        match property {
            Property::SubscriptionIdentifier if identifier.is_some() => return Err(DUPLICATE.into()),
            Property::SubscriptionIdentifier => identifier = Some(subscription_identifier(r, "3.8.2.1.2")?),
            Property::UserProperty => push_user(r, &mut user)?,
            _ => return misplaced(),
        }
        Ok(())
    })?;
    Ok((identifier, user))
}

/// 3.10.2.1
pub(super) fn unsubscribe<'a>(reader: &mut Reader<'a>) -> Result<UserProperties<'a>, Fault> {
    let mut user = UserProperties::new();
    section(reader, |property, r| match property {
        Property::UserProperty => push_user(r, &mut user),
        _ => misplaced(),
    })?;
    Ok(user)
}

/// 3.14.2.2
pub(super) fn disconnect<'a>(reader: &mut Reader<'a>, from: Role) -> Result<DisconnectProperties<'a>, Fault> {
    let mut p = DisconnectProperties::default();
    section(reader, |property, r| {
        match property {
            Property::SessionExpiryInterval if from == Role::Server => return Err(EXPIRY_FROM_SERVER.into()),
            Property::SessionExpiryInterval => p.session_expiry_interval = Some(r.u32()?),
            Property::ReasonString => p.reason_string = text(r)?,
            Property::UserProperty => push_user(r, &mut p.user_properties)?,
            Property::ServerReference if from == Role::Client => return Err(REFERENCE_FROM_CLIENT.into()),
            Property::ServerReference => p.server_reference = text(r)?,
            _ => return misplaced(),
        }
        Ok(())
    })?;
    Ok(p)
}

const EXPIRY_FROM_SERVER: DecodeError =
    DecodeError::protocol("MQTT-3.14.2-2", "a server sent a Session Expiry Interval in DISCONNECT");
const REFERENCE_FROM_CLIENT: DecodeError =
    DecodeError::protocol("3.14.2.2.5", "a client sent a Server Reference in DISCONNECT");

/// 3.15.2.2; everything but the reason.
pub(super) fn auth<'a>(reader: &mut Reader<'a>, auth: &mut Auth<'a>) -> Result<(), Fault> {
    section(reader, |property, r| {
        match property {
            Property::AuthenticationMethod => auth.authentication_method = text(r)?,
            Property::AuthenticationData => auth.authentication_data = binary(r)?,
            Property::ReasonString => auth.reason_string = text(r)?,
            Property::UserProperty => push_user(r, &mut auth.user_properties)?,
            _ => return misplaced(),
        }
        Ok(())
    })
}
