//! The bytes of packets that [`super::check`] has accepted.
//!
//! Everything is written to a [`Sink`], so the same code measures and writes.

use std::borrow::Cow;

use crate::packet::{
    Ack, Auth, Connack, ConnackProperties, Connect, ConnectProperties, Disconnect, DisconnectProperties,
    Packet, Publish, PublishProperties, ReasonProperties, Suback, Subscribe, SubscriptionOptions, Unsuback,
    Unsubscribe, UserProperties, Will,
};
use crate::property::Property;
use crate::{QoS, ReasonCode, Version};

/// Takes bytes.
pub(super) trait Sink {
    fn put(&mut self, bytes: &[u8]);

    fn u8(&mut self, value: u8) {
        self.put(&[value]);
    }

    fn u16(&mut self, value: u16) {
        self.put(&value.to_be_bytes());
    }

    fn u32(&mut self, value: u32) {
        self.put(&value.to_be_bytes());
    }

    /// `value` is at most [`super::varint::MAX`].
    fn varint(&mut self, mut value: u32) {
        while value > 0x7F {
            self.u8(value as u8 | 0x80);
            value >>= 7;
        }
        self.u8(value as u8);
    }

    /// `bytes` are at most 65,535.
    fn binary(&mut self, bytes: &[u8]) {
        self.u16(bytes.len() as u16);
        self.put(bytes);
    }
}

impl Sink for Vec<u8> {
    fn put(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

/// Only measures.
pub(super) struct Count(pub(super) usize);

impl Sink for Count {
    fn put(&mut self, bytes: &[u8]) {
        self.0 += bytes.len();
    }
}

/// The first byte of the fixed header (2.1.2, 2.1.3).
pub(super) fn first_byte(packet: &Packet<'_>) -> u8 {
    match packet {
        Packet::Connect(_) => 0x10,
        Packet::Connack(_) => 0x20,
        Packet::Publish(publish) => publish_first_byte(publish.qos, publish.dup, publish.retain),
        Packet::Puback(_) => PUBACK,
        Packet::Pubrec(_) => PUBREC,
        Packet::Pubrel(_) => PUBREL,
        Packet::Pubcomp(_) => PUBCOMP,
        Packet::Subscribe(_) => 0x82,
        Packet::Suback(_) => 0x90,
        Packet::Unsubscribe(_) => 0xA2,
        Packet::Unsuback(_) => 0xB0,
        Packet::Pingreq => PINGREQ,
        Packet::Pingresp => PINGRESP,
        Packet::Disconnect(_) => 0xE0,
        Packet::Auth(_) => 0xF0,
    }
}

pub(super) const PUBACK: u8 = 0x40;
pub(super) const PUBREC: u8 = 0x50;
pub(super) const PUBREL: u8 = 0x62;
pub(super) const PUBCOMP: u8 = 0x70;
pub(super) const PINGREQ: u8 = 0xC0;
pub(super) const PINGRESP: u8 = 0xD0;
/// The DUP flag of PUBLISH.
pub(super) const DUP: u8 = 0x08;

pub(super) fn publish_first_byte(qos: QoS, dup: bool, retain: bool) -> u8 {
    // DUP is never set at QoS 0 [MQTT-3.3.1-2].
    let dup = if dup && qos != QoS::AtMostOnce { DUP } else { 0 };
    0x30 | dup | (qos as u8) << 1 | u8::from(retain)
}

/// Everything behind the fixed header.
pub(super) fn body<S: Sink>(packet: &Packet<'_>, version: Version, s: &mut S) {
    match packet {
        Packet::Connect(connect) => connect_body(connect, s),
        Packet::Connack(connack) => connack_body(connack, version, s),
        Packet::Publish(publish) => publish_body(publish, version, s),
        Packet::Puback(ack) | Packet::Pubrec(ack) | Packet::Pubrel(ack) | Packet::Pubcomp(ack) => {
            ack_body(ack, version, s);
        }
        Packet::Subscribe(subscribe) => subscribe_body(subscribe, version, s),
        Packet::Suback(suback) => suback_body(suback, version, s),
        Packet::Unsubscribe(unsubscribe) => unsubscribe_body(unsubscribe, version, s),
        Packet::Unsuback(unsuback) => unsuback_body(unsuback, version, s),
        Packet::Pingreq | Packet::Pingresp => {}
        Packet::Disconnect(disconnect) => disconnect_body(disconnect, version, s),
        Packet::Auth(auth) => auth_body(auth, s),
    }
}

fn connect_body<S: Sink>(connect: &Connect<'_>, s: &mut S) {
    s.binary(if connect.version == Version::V31 { b"MQIsdp" } else { b"MQTT" });
    s.u8(connect.version.level() | u8::from(connect.bridge) << 7);
    s.u8(connect_flags(connect));
    s.u16(connect.keep_alive);
    if connect.version.is_v5() {
        section(&connect.properties, s);
    }
    s.binary(connect.client_id.as_bytes());
    if let Some(will) = &connect.will {
        if connect.version.is_v5() {
            section(will, s);
        }
        s.binary(will.topic.as_bytes());
        s.binary(&will.payload);
    }
    if let Some(username) = &connect.username {
        s.binary(username.as_bytes());
    }
    if let Some(password) = &connect.password {
        s.binary(password);
    }
}

fn connect_flags(connect: &Connect<'_>) -> u8 {
    let will =
        connect.will.as_ref().map_or(0, |will| 0x04 | (will.qos as u8) << 3 | u8::from(will.retain) << 5);
    will | u8::from(connect.clean_start) << 1
        | u8::from(connect.password.is_some()) << 6
        | u8::from(connect.username.is_some()) << 7
}

fn connack_body<S: Sink>(connack: &Connack<'_>, version: Version, s: &mut S) {
    // 3.1 has no Session Present.
    s.u8(u8::from(connack.session_present && version != Version::V31));
    if version.is_v5() {
        s.u8(connack.reason.value());
        section(&connack.properties, s);
    } else {
        s.u8(connack.reason.v3_connack());
    }
}

fn publish_body<S: Sink>(publish: &Publish<'_>, version: Version, s: &mut S) {
    s.binary(publish.topic.as_bytes());
    if let Some(id) = publish.packet_id {
        s.u16(id.get());
    }
    if version.is_v5() {
        section(&*publish.properties.read(), s);
    }
    s.put(&publish.payload);
}

fn ack_body<S: Sink>(ack: &Ack<'_>, version: Version, s: &mut S) {
    s.u16(ack.packet_id.get());
    let bare = ack.properties == ReasonProperties::default();
    // The shortest form (3.4.2.1, 3.4.2.2.1).
    if !version.is_v5() || (bare && ack.reason == ReasonCode::Success) {
        return;
    }
    s.u8(ack.reason.value());
    if !bare {
        section(&ack.properties, s);
    }
}

fn subscribe_body<S: Sink>(subscribe: &Subscribe<'_>, version: Version, s: &mut S) {
    s.u16(subscribe.packet_id.get());
    if version.is_v5() {
        section(subscribe, s);
    }
    for entry in &subscribe.filters {
        s.binary(entry.filter.as_bytes());
        s.u8(options(entry.options, version));
    }
}

fn options(options: SubscriptionOptions, version: Version) -> u8 {
    if !version.is_v5() {
        return options.qos as u8;
    }
    options.qos as u8
        | u8::from(options.no_local) << 2
        | u8::from(options.retain_as_published) << 3
        | (options.retain_handling as u8) << 4
}

fn suback_body<S: Sink>(suback: &Suback<'_>, version: Version, s: &mut S) {
    s.u16(suback.packet_id.get());
    if version.is_v5() {
        section(&suback.properties, s);
    }
    for &reason in &suback.reasons {
        // Before version 5 there is one failure only [v3 MQTT-3.9.3-2].
        s.u8(if version.is_v5() || !reason.is_error() { reason.value() } else { 0x80 });
    }
}

fn unsubscribe_body<S: Sink>(unsubscribe: &Unsubscribe<'_>, version: Version, s: &mut S) {
    s.u16(unsubscribe.packet_id.get());
    if version.is_v5() {
        section(unsubscribe, s);
    }
    for filter in &unsubscribe.filters {
        s.binary(filter.as_bytes());
    }
}

fn unsuback_body<S: Sink>(unsuback: &Unsuback<'_>, version: Version, s: &mut S) {
    s.u16(unsuback.packet_id.get());
    if version.is_v5() {
        section(&unsuback.properties, s);
        for reason in &unsuback.reasons {
            s.u8(reason.value());
        }
    }
}

fn disconnect_body<S: Sink>(disconnect: &Disconnect<'_>, version: Version, s: &mut S) {
    let bare = disconnect.properties == DisconnectProperties::default();
    if !version.is_v5() || (bare && disconnect.reason == ReasonCode::Success) {
        return;
    }
    s.u8(disconnect.reason.value());
    if !bare {
        section(&disconnect.properties, s);
    }
}

fn auth_body<S: Sink>(auth: &Auth<'_>, s: &mut S) {
    let mut properties = Count(0);
    auth.write(&mut properties);
    if properties.0 == 0 && auth.reason == ReasonCode::Success {
        return;
    }
    s.u8(auth.reason.value());
    section(auth, s);
}

/// Writes a property section: its length and its properties.
pub(super) fn section<P: Properties, S: Sink>(properties: &P, s: &mut S) {
    let mut len = Count(0);
    properties.write(&mut len);
    s.varint(len.0 as u32);
    if len.0 > 0 {
        properties.write(s);
    }
}

/// Something that has a property section.
pub(super) trait Properties {
    /// Each property that is present, with its identifier.
    fn write<S: Sink>(&self, s: &mut S);
}

fn byte<S: Sink>(s: &mut S, property: Property, value: Option<bool>) {
    if let Some(value) = value {
        s.put(&[property.id(), u8::from(value)]);
    }
}

fn two<S: Sink>(s: &mut S, property: Property, value: Option<u16>) {
    if let Some(value) = value {
        s.u8(property.id());
        s.u16(value);
    }
}

fn four<S: Sink>(s: &mut S, property: Property, value: Option<u32>) {
    if let Some(value) = value {
        s.u8(property.id());
        s.u32(value);
    }
}

fn text<S: Sink>(s: &mut S, property: Property, value: Option<&Cow<'_, str>>) {
    if let Some(value) = value {
        s.u8(property.id());
        s.binary(value.as_bytes());
    }
}

fn binary<S: Sink>(s: &mut S, property: Property, value: Option<&Cow<'_, [u8]>>) {
    if let Some(value) = value {
        s.u8(property.id());
        s.binary(value);
    }
}

fn identifier<S: Sink>(s: &mut S, value: u32) {
    s.u8(Property::SubscriptionIdentifier.id());
    s.varint(value);
}

fn user<S: Sink>(s: &mut S, properties: &UserProperties<'_>) {
    for (name, value) in properties {
        s.u8(Property::UserProperty.id());
        s.binary(name.as_bytes());
        s.binary(value.as_bytes());
    }
}

impl Properties for ConnectProperties<'_> {
    fn write<S: Sink>(&self, s: &mut S) {
        four(s, Property::SessionExpiryInterval, self.session_expiry_interval);
        two(s, Property::ReceiveMaximum, self.receive_maximum);
        four(s, Property::MaximumPacketSize, self.maximum_packet_size);
        two(s, Property::TopicAliasMaximum, self.topic_alias_maximum);
        byte(s, Property::RequestResponseInformation, self.request_response_information);
        byte(s, Property::RequestProblemInformation, self.request_problem_information);
        text(s, Property::AuthenticationMethod, self.authentication_method.as_ref());
        binary(s, Property::AuthenticationData, self.authentication_data.as_ref());
        user(s, &self.user_properties);
    }
}

impl Properties for ConnackProperties<'_> {
    fn write<S: Sink>(&self, s: &mut S) {
        four(s, Property::SessionExpiryInterval, self.session_expiry_interval);
        two(s, Property::ReceiveMaximum, self.receive_maximum);
        byte(s, Property::MaximumQos, self.maximum_qos.map(|qos| qos != QoS::AtMostOnce));
        byte(s, Property::RetainAvailable, self.retain_available);
        four(s, Property::MaximumPacketSize, self.maximum_packet_size);
        text(s, Property::AssignedClientIdentifier, self.assigned_client_identifier.as_ref());
        two(s, Property::TopicAliasMaximum, self.topic_alias_maximum);
        text(s, Property::ReasonString, self.reason_string.as_ref());
        byte(s, Property::WildcardSubscriptionAvailable, self.wildcard_subscription_available);
        byte(s, Property::SubscriptionIdentifierAvailable, self.subscription_identifiers_available);
        byte(s, Property::SharedSubscriptionAvailable, self.shared_subscription_available);
        two(s, Property::ServerKeepAlive, self.server_keep_alive);
        text(s, Property::ResponseInformation, self.response_information.as_ref());
        text(s, Property::ServerReference, self.server_reference.as_ref());
        text(s, Property::AuthenticationMethod, self.authentication_method.as_ref());
        binary(s, Property::AuthenticationData, self.authentication_data.as_ref());
        user(s, &self.user_properties);
    }
}

impl Properties for PublishProperties<'_> {
    fn write<S: Sink>(&self, s: &mut S) {
        byte(s, Property::PayloadFormatIndicator, self.payload_format_indicator);
        four(s, Property::MessageExpiryInterval, self.message_expiry_interval);
        two(s, Property::TopicAlias, self.topic_alias);
        text(s, Property::ResponseTopic, self.response_topic.as_ref());
        binary(s, Property::CorrelationData, self.correlation_data.as_ref());
        text(s, Property::ContentType, self.content_type.as_ref());
        for &value in &self.subscription_identifiers {
            identifier(s, value);
        }
        user(s, &self.user_properties);
    }
}

impl Properties for Will<'_> {
    fn write<S: Sink>(&self, s: &mut S) {
        four(s, Property::WillDelayInterval, self.delay_interval);
        self.properties.write(s);
    }
}

impl Properties for ReasonProperties<'_> {
    fn write<S: Sink>(&self, s: &mut S) {
        text(s, Property::ReasonString, self.reason_string.as_ref());
        user(s, &self.user_properties);
    }
}

impl Properties for Subscribe<'_> {
    fn write<S: Sink>(&self, s: &mut S) {
        if let Some(value) = self.subscription_identifier {
            identifier(s, value);
        }
        user(s, &self.user_properties);
    }
}

impl Properties for Unsubscribe<'_> {
    fn write<S: Sink>(&self, s: &mut S) {
        user(s, &self.user_properties);
    }
}

impl Properties for DisconnectProperties<'_> {
    fn write<S: Sink>(&self, s: &mut S) {
        four(s, Property::SessionExpiryInterval, self.session_expiry_interval);
        text(s, Property::ReasonString, self.reason_string.as_ref());
        text(s, Property::ServerReference, self.server_reference.as_ref());
        user(s, &self.user_properties);
    }
}

impl Properties for Auth<'_> {
    fn write<S: Sink>(&self, s: &mut S) {
        text(s, Property::AuthenticationMethod, self.authentication_method.as_ref());
        binary(s, Property::AuthenticationData, self.authentication_data.as_ref());
        text(s, Property::ReasonString, self.reason_string.as_ref());
        user(s, &self.user_properties);
    }
}
