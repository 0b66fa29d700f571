//! Cutting packets loose from the buffer that they were decoded from.

use std::borrow::Cow;

use super::{
    Ack, Auth, Binary, Connack, ConnackProperties, Connect, ConnectProperties, Disconnect,
    DisconnectProperties, Packet, Publish, PublishProperties, ReasonProperties, Suback, Subscribe,
    SubscribeFilter, Text, Unsuback, Unsubscribe, UserProperties, Will,
};

fn text(value: Text<'_>) -> Text<'static> {
    Cow::Owned(value.into_owned())
}

fn opt_text(value: Option<Text<'_>>) -> Option<Text<'static>> {
    value.map(text)
}

fn binary(value: Binary<'_>) -> Binary<'static> {
    Cow::Owned(value.into_owned())
}

fn opt_binary(value: Option<Binary<'_>>) -> Option<Binary<'static>> {
    value.map(binary)
}

fn user(properties: UserProperties<'_>) -> UserProperties<'static> {
    properties.into_iter().map(|(name, value)| (text(name), text(value))).collect()
}

impl Packet<'_> {
    /// The same packet with its own memory.
    pub fn into_owned(self) -> Packet<'static> {
        match self {
            Self::Connect(packet) => Packet::Connect(Box::new(packet.into_owned())),
            Self::Connack(packet) => Packet::Connack(Box::new(packet.into_owned())),
            Self::Publish(packet) => Packet::Publish(packet.into_owned()),
            Self::Puback(packet) => Packet::Puback(packet.into_owned()),
            Self::Pubrec(packet) => Packet::Pubrec(packet.into_owned()),
            Self::Pubrel(packet) => Packet::Pubrel(packet.into_owned()),
            Self::Pubcomp(packet) => Packet::Pubcomp(packet.into_owned()),
            Self::Subscribe(packet) => Packet::Subscribe(packet.into_owned()),
            Self::Suback(packet) => Packet::Suback(packet.into_owned()),
            Self::Unsubscribe(packet) => Packet::Unsubscribe(packet.into_owned()),
            Self::Unsuback(packet) => Packet::Unsuback(packet.into_owned()),
            Self::Pingreq => Packet::Pingreq,
            Self::Pingresp => Packet::Pingresp,
            Self::Disconnect(packet) => Packet::Disconnect(packet.into_owned()),
            Self::Auth(packet) => Packet::Auth(packet.into_owned()),
        }
    }
}

impl Connect<'_> {
    /// The same packet with its own memory.
    pub fn into_owned(self) -> Connect<'static> {
        Connect {
            version: self.version,
            bridge: self.bridge,
            clean_start: self.clean_start,
            keep_alive: self.keep_alive,
            client_id: text(self.client_id),
            will: self.will.map(Will::into_owned),
            username: opt_text(self.username),
            password: opt_binary(self.password),
            properties: self.properties.into_owned(),
        }
    }
}

impl ConnectProperties<'_> {
    /// The same properties with their own memory.
    pub fn into_owned(self) -> ConnectProperties<'static> {
        ConnectProperties {
            authentication_method: opt_text(self.authentication_method),
            authentication_data: opt_binary(self.authentication_data),
            user_properties: user(self.user_properties),
            session_expiry_interval: self.session_expiry_interval,
            receive_maximum: self.receive_maximum,
            maximum_packet_size: self.maximum_packet_size,
            topic_alias_maximum: self.topic_alias_maximum,
            request_response_information: self.request_response_information,
            request_problem_information: self.request_problem_information,
        }
    }
}

impl Will<'_> {
    /// The same will with its own memory.
    pub fn into_owned(self) -> Will<'static> {
        Will {
            topic: text(self.topic),
            payload: binary(self.payload),
            qos: self.qos,
            retain: self.retain,
            delay_interval: self.delay_interval,
            properties: self.properties.into_owned(),
        }
    }
}

impl Connack<'_> {
    /// The same packet with its own memory.
    pub fn into_owned(self) -> Connack<'static> {
        Connack {
            session_present: self.session_present,
            reason: self.reason,
            properties: self.properties.into_owned(),
        }
    }
}

impl ConnackProperties<'_> {
    /// The same properties with their own memory.
    pub fn into_owned(self) -> ConnackProperties<'static> {
        ConnackProperties {
            assigned_client_identifier: opt_text(self.assigned_client_identifier),
            reason_string: opt_text(self.reason_string),
            user_properties: user(self.user_properties),
            response_information: opt_text(self.response_information),
            server_reference: opt_text(self.server_reference),
            authentication_method: opt_text(self.authentication_method),
            authentication_data: opt_binary(self.authentication_data),
            session_expiry_interval: self.session_expiry_interval,
            receive_maximum: self.receive_maximum,
            maximum_qos: self.maximum_qos,
            retain_available: self.retain_available,
            maximum_packet_size: self.maximum_packet_size,
            topic_alias_maximum: self.topic_alias_maximum,
            wildcard_subscription_available: self.wildcard_subscription_available,
            subscription_identifiers_available: self.subscription_identifiers_available,
            shared_subscription_available: self.shared_subscription_available,
            server_keep_alive: self.server_keep_alive,
        }
    }
}

impl Publish<'_> {
    /// The same packet with its own memory.
    pub fn into_owned(self) -> Publish<'static> {
        Publish {
            dup: self.dup,
            qos: self.qos,
            retain: self.retain,
            topic: text(self.topic),
            packet_id: self.packet_id,
            properties: self.properties.into_owned(),
            payload: binary(self.payload),
        }
    }
}

impl PublishProperties<'_> {
    /// The same properties with their own memory.
    pub fn into_owned(self) -> PublishProperties<'static> {
        PublishProperties {
            payload_format_indicator: self.payload_format_indicator,
            message_expiry_interval: self.message_expiry_interval,
            topic_alias: self.topic_alias,
            response_topic: opt_text(self.response_topic),
            correlation_data: opt_binary(self.correlation_data),
            user_properties: user(self.user_properties),
            subscription_identifiers: self.subscription_identifiers,
            content_type: opt_text(self.content_type),
        }
    }
}

impl Ack<'_> {
    /// The same packet with its own memory.
    pub fn into_owned(self) -> Ack<'static> {
        Ack { packet_id: self.packet_id, reason: self.reason, properties: self.properties.into_owned() }
    }
}

impl ReasonProperties<'_> {
    /// The same properties with their own memory.
    pub fn into_owned(self) -> ReasonProperties<'static> {
        ReasonProperties {
            reason_string: opt_text(self.reason_string),
            user_properties: user(self.user_properties),
        }
    }
}

impl Subscribe<'_> {
    /// The same packet with its own memory.
    pub fn into_owned(self) -> Subscribe<'static> {
        Subscribe {
            packet_id: self.packet_id,
            subscription_identifier: self.subscription_identifier,
            user_properties: user(self.user_properties),
            filters: self.filters.into_iter().map(SubscribeFilter::into_owned).collect(),
        }
    }
}

impl SubscribeFilter<'_> {
    /// The same filter with its own memory.
    pub fn into_owned(self) -> SubscribeFilter<'static> {
        SubscribeFilter { filter: text(self.filter), options: self.options }
    }
}

impl Suback<'_> {
    /// The same packet with its own memory.
    pub fn into_owned(self) -> Suback<'static> {
        Suback { packet_id: self.packet_id, properties: self.properties.into_owned(), reasons: self.reasons }
    }
}

impl Unsubscribe<'_> {
    /// The same packet with its own memory.
    pub fn into_owned(self) -> Unsubscribe<'static> {
        Unsubscribe {
            packet_id: self.packet_id,
            user_properties: user(self.user_properties),
            filters: self.filters.into_iter().map(text).collect(),
        }
    }
}

impl Unsuback<'_> {
    /// The same packet with its own memory.
    pub fn into_owned(self) -> Unsuback<'static> {
        Unsuback {
            packet_id: self.packet_id,
            properties: self.properties.into_owned(),
            reasons: self.reasons,
        }
    }
}

impl Disconnect<'_> {
    /// The same packet with its own memory.
    pub fn into_owned(self) -> Disconnect<'static> {
        Disconnect { reason: self.reason, properties: self.properties.into_owned() }
    }
}

impl DisconnectProperties<'_> {
    /// The same properties with their own memory.
    pub fn into_owned(self) -> DisconnectProperties<'static> {
        DisconnectProperties {
            session_expiry_interval: self.session_expiry_interval,
            reason_string: opt_text(self.reason_string),
            user_properties: user(self.user_properties),
            server_reference: opt_text(self.server_reference),
        }
    }
}

impl Auth<'_> {
    /// The same packet with its own memory.
    pub fn into_owned(self) -> Auth<'static> {
        Auth {
            reason: self.reason,
            authentication_method: opt_text(self.authentication_method),
            authentication_data: opt_binary(self.authentication_data),
            reason_string: opt_text(self.reason_string),
            user_properties: user(self.user_properties),
        }
    }
}
