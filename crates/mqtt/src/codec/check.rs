//! What must hold before a packet is written: nothing that the decoder of a strict peer would refuse.

use super::decode::Role;
use super::{legal, varint};
use crate::packet::{
    Ack, Auth, Connack, Connect, ConnectProperties, Disconnect, Packet, Publish, PublishProperties,
    ReasonProperties, Suback, Subscribe, Unsubscribe, UserProperties,
};
use crate::topic::{self, TopicError};
use crate::{QoS, ReasonCode, Version};

/// Why a packet cannot be encoded. It is a mistake of our side, never of the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// More than 65,535 bytes in a string or in binary data (1.5.4, 1.5.6).
    #[error("{0} is longer than 65535 bytes")]
    FieldTooLong(&'static str),
    /// U+0000 in a string [MQTT-1.5.4-2].
    #[error("{0} contains U+0000")]
    NullCharacter(&'static str),
    /// More than 268,435,455 bytes behind the fixed header (1.5.5).
    #[error("the packet is longer than the remaining length can say")]
    PacketTooLarge,
    /// Missing at QoS 1 or 2, or present at QoS 0 [MQTT-2.2.1-2].
    #[error("a packet identifier belongs into PUBLISH exactly at QoS 1 and 2")]
    PacketId,
    /// Not a topic name, and not an empty one beside a topic alias.
    #[error(transparent)]
    Topic(#[from] TopicError),
    /// The packet, or what it says, does not exist in this version.
    #[error("{0} does not exist in this version")]
    NotInVersion(&'static str),
    /// A value that the specification forbids.
    #[error("{0} has a forbidden value")]
    Value(&'static str),
    /// A reason code that this packet must not carry.
    #[error("{0} must not carry the reason {1}")]
    Reason(&'static str, ReasonCode),
}

type Checked = Result<(), EncodeError>;

pub(super) fn packet(packet: &Packet<'_>, version: Version) -> Checked {
    match packet {
        Packet::Connect(packet) => connect(packet),
        Packet::Connack(packet) => connack(packet, version),
        Packet::Publish(packet) => whole_publish(packet, version),
        Packet::Puback(packet) => ack(packet, version, "PUBACK", legal::puback),
        Packet::Pubrec(packet) => ack(packet, version, "PUBREC", legal::puback),
        Packet::Pubrel(packet) => ack(packet, version, "PUBREL", legal::pubrel),
        Packet::Pubcomp(packet) => ack(packet, version, "PUBCOMP", legal::pubrel),
        Packet::Subscribe(packet) => subscribe(packet, version),
        Packet::Suback(packet) => suback(packet, version),
        Packet::Unsubscribe(packet) => unsubscribe(packet, version),
        Packet::Unsuback(packet) if version.is_v5() => {
            reasons(&packet.reasons, "UNSUBACK", legal::unsuback)?;
            reason_properties(&packet.properties)
        }
        Packet::Unsuback(_) | Packet::Pingreq | Packet::Pingresp => Ok(()),
        Packet::Disconnect(packet) => disconnect(packet, version),
        Packet::Auth(packet) => auth(packet, version),
    }
}

/// Whether a body of `len` bytes fits behind a fixed header.
pub(super) fn remaining(len: usize) -> Result<u32, EncodeError> {
    u32::try_from(len).ok().filter(|&len| len <= varint::MAX).ok_or(EncodeError::PacketTooLarge)
}

fn text(value: &str, field: &'static str) -> Checked {
    binary(value.as_bytes(), field)?;
    if value.as_bytes().contains(&0) {
        return Err(EncodeError::NullCharacter(field));
    }
    Ok(())
}

fn binary(value: &[u8], field: &'static str) -> Checked {
    if value.len() > usize::from(u16::MAX) {
        return Err(EncodeError::FieldTooLong(field));
    }
    Ok(())
}

fn opt_text(value: Option<&impl AsRef<str>>, field: &'static str) -> Checked {
    value.map_or(Ok(()), |value| text(value.as_ref(), field))
}

fn opt_binary(value: Option<&impl AsRef<[u8]>>, field: &'static str) -> Checked {
    value.map_or(Ok(()), |value| binary(value.as_ref(), field))
}

fn user(properties: &UserProperties<'_>) -> Checked {
    for (name, value) in properties {
        text(name, "User Property")?;
        text(value, "User Property")?;
    }
    Ok(())
}

fn value(good: bool, field: &'static str) -> Checked {
    if good { Ok(()) } else { Err(EncodeError::Value(field)) }
}

fn identifier(id: u32) -> Checked {
    value((1..=varint::MAX).contains(&id), "Subscription Identifier")
}

fn connect(packet: &Connect<'_>) -> Checked {
    text(&packet.client_id, "Client Identifier")?;
    opt_text(packet.username.as_ref(), "User Name")?;
    opt_binary(packet.password.as_ref(), "Password")?;
    if !packet.version.is_v5() && packet.password.is_some() && packet.username.is_none() {
        return Err(EncodeError::NotInVersion("a Password without a User Name"));
    }
    if let Some(will) = &packet.will {
        topic::validate(&will.topic)?;
        binary(&will.payload, "Will Payload")?;
        if packet.version.is_v5() {
            value(will.properties.topic_alias.is_none(), "Topic Alias of the will")?;
            value(
                will.properties.subscription_identifiers.is_empty(),
                "Subscription Identifier of the will",
            )?;
            publish_properties(&will.properties)?;
        }
    }
    if packet.version.is_v5() { connect_properties(&packet.properties) } else { Ok(()) }
}

fn connect_properties(p: &ConnectProperties<'_>) -> Checked {
    value(p.receive_maximum != Some(0), "Receive Maximum")?;
    value(p.maximum_packet_size != Some(0), "Maximum Packet Size")?;
    value(p.authentication_data.is_none() || p.authentication_method.is_some(), "Authentication Data")?;
    opt_text(p.authentication_method.as_ref(), "Authentication Method")?;
    opt_binary(p.authentication_data.as_ref(), "Authentication Data")?;
    user(&p.user_properties)
}

fn connack(packet: &Connack<'_>, version: Version) -> Checked {
    value(!packet.session_present || packet.reason == ReasonCode::Success, "Session Present")?;
    if !legal::connack(packet.reason) {
        return Err(EncodeError::Reason("CONNACK", packet.reason));
    }
    if !version.is_v5() {
        return Ok(());
    }
    let p = &packet.properties;
    value(p.receive_maximum != Some(0), "Receive Maximum")?;
    value(p.maximum_packet_size != Some(0), "Maximum Packet Size")?;
    value(p.maximum_qos != Some(QoS::ExactlyOnce), "Maximum QoS")?;
    value(p.authentication_data.is_none() || p.authentication_method.is_some(), "Authentication Data")?;
    opt_text(p.assigned_client_identifier.as_ref(), "Assigned Client Identifier")?;
    opt_text(p.reason_string.as_ref(), "Reason String")?;
    opt_text(p.response_information.as_ref(), "Response Information")?;
    opt_text(p.server_reference.as_ref(), "Server Reference")?;
    opt_text(p.authentication_method.as_ref(), "Authentication Method")?;
    opt_binary(p.authentication_data.as_ref(), "Authentication Data")?;
    user(&p.user_properties)
}

fn whole_publish(packet: &Publish<'_>, version: Version) -> Checked {
    if packet.packet_id.is_some() != (packet.qos != QoS::AtMostOnce) {
        return Err(EncodeError::PacketId);
    }
    publish(version, &packet.topic, &packet.properties.read())
}

/// All of a PUBLISH but its identifier and its payload.
pub(super) fn publish(version: Version, topic: &str, properties: &PublishProperties<'_>) -> Checked {
    match topic::validate(topic) {
        Err(TopicError::Empty) if version.is_v5() && properties.topic_alias.is_some() => {}
        other => other?,
    }
    if version.is_v5() { publish_properties(properties) } else { Ok(()) }
}

fn publish_properties(p: &PublishProperties<'_>) -> Checked {
    value(p.topic_alias != Some(0), "Topic Alias")?;
    if let Some(name) = &p.response_topic {
        topic::validate(name)?;
    }
    for &id in &p.subscription_identifiers {
        identifier(id)?;
    }
    opt_binary(p.correlation_data.as_ref(), "Correlation Data")?;
    opt_text(p.content_type.as_ref(), "Content Type")?;
    user(&p.user_properties)
}

fn ack(packet: &Ack<'_>, version: Version, name: &'static str, legal: fn(ReasonCode) -> bool) -> Checked {
    if !version.is_v5() {
        return Ok(());
    }
    if !legal(packet.reason) {
        return Err(EncodeError::Reason(name, packet.reason));
    }
    reason_properties(&packet.properties)
}

fn reason_properties(p: &ReasonProperties<'_>) -> Checked {
    opt_text(p.reason_string.as_ref(), "Reason String")?;
    user(&p.user_properties)
}

fn subscribe(packet: &Subscribe<'_>, version: Version) -> Checked {
    value(!packet.filters.is_empty(), "the number of topic filters")?;
    for entry in &packet.filters {
        text(&entry.filter, "Topic Filter")?;
        // [MQTT-3.8.3-4]
        let shared = entry.filter.starts_with("$share/");
        value(!(version.is_v5() && entry.options.no_local && shared), "No Local of a shared subscription")?;
    }
    if !version.is_v5() {
        return Ok(());
    }
    packet.subscription_identifier.map_or(Ok(()), identifier)?;
    user(&packet.user_properties)
}

fn suback(packet: &Suback<'_>, version: Version) -> Checked {
    reasons(&packet.reasons, "SUBACK", legal::suback)?;
    if version.is_v5() { reason_properties(&packet.properties) } else { Ok(()) }
}

fn reasons(reasons: &[ReasonCode], name: &'static str, legal: fn(ReasonCode) -> bool) -> Checked {
    value(!reasons.is_empty(), "the number of reason codes")?;
    match reasons.iter().find(|&&reason| !legal(reason)) {
        Some(&reason) => Err(EncodeError::Reason(name, reason)),
        None => Ok(()),
    }
}

fn unsubscribe(packet: &Unsubscribe<'_>, version: Version) -> Checked {
    value(!packet.filters.is_empty(), "the number of topic filters")?;
    for filter in &packet.filters {
        text(filter, "Topic Filter")?;
    }
    if version.is_v5() { user(&packet.user_properties) } else { Ok(()) }
}

fn disconnect(packet: &Disconnect<'_>, version: Version) -> Checked {
    if !version.is_v5() {
        return Ok(());
    }
    // The encoder does not know its side: some side must be allowed to say all of it.
    let p = &packet.properties;
    let client = legal::disconnect(packet.reason, Role::Client) && p.server_reference.is_none();
    let server = legal::disconnect(packet.reason, Role::Server) && p.session_expiry_interval.is_none();
    if !client && !server {
        return Err(EncodeError::Reason("DISCONNECT", packet.reason));
    }
    opt_text(p.reason_string.as_ref(), "Reason String")?;
    opt_text(p.server_reference.as_ref(), "Server Reference")?;
    user(&p.user_properties)
}

fn auth(packet: &Auth<'_>, version: Version) -> Checked {
    if !version.is_v5() {
        return Err(EncodeError::NotInVersion("AUTH"));
    }
    if !legal::auth(packet.reason, Role::Client) && !legal::auth(packet.reason, Role::Server) {
        return Err(EncodeError::Reason("AUTH", packet.reason));
    }
    let bare = packet.reason == ReasonCode::Success
        && packet.authentication_data.is_none()
        && packet.reason_string.is_none()
        && packet.user_properties.is_empty();
    value(bare || packet.authentication_method.is_some(), "Authentication Method")?;
    opt_text(packet.authentication_method.as_ref(), "Authentication Method")?;
    opt_binary(packet.authentication_data.as_ref(), "Authentication Data")?;
    opt_text(packet.reason_string.as_ref(), "Reason String")?;
    user(&packet.user_properties)
}
