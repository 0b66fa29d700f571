//! What the application wants: publish, subscribe, unsubscribe, disconnect.

use mqtt::codec::encode::{encode, encoded_len};
use mqtt::inflight::{InFlight, Pubrec};
use mqtt::packet::{Packet, Publish, PublishProperties, Subscribe, Unsubscribe, UserProperties};
use mqtt::{PacketId, QoS, ReasonCode, Version, filter, topic};

use super::{Completion, Limits, Machine, OUTPUT_LIMIT, REQUEST_LIMIT, Request, RequestKind, Sent};
use crate::error::{Disconnected, PublishError, RequestError};
use crate::message::{Message, Subscription};

/// A SUBSCRIBE to send.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SubscribeRequest {
    /// At least one [MQTT-3.8.3-2].
    pub subscriptions: Vec<Subscription>,
    /// Version 5: comes back with every message of these subscriptions; 1 to 268,435,455.
    pub identifier: Option<u32>,
    /// Version 5, in order.
    pub user_properties: Vec<(String, String)>,
}

/// An UNSUBSCRIBE to send.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UnsubscribeRequest {
    /// At least one [MQTT-3.10.3-2].
    pub filters: Vec<String>,
    /// Version 5, in order.
    pub user_properties: Vec<(String, String)>,
}

/// A good-bye to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Goodbye {
    /// `Success` or, for a client that wants its will published all the same, `DisconnectWithWill`.
    pub reason: ReasonCode,
    /// Version 5: how long the session shall outlive the connection, instead of what CONNECT said.
    pub session_expiry_interval: Option<u32>,
    /// Version 5, in order.
    pub user_properties: Vec<(String, String)>,
}

impl Default for Goodbye {
    fn default() -> Self {
        Self { reason: ReasonCode::Success, session_expiry_interval: None, user_properties: Vec::new() }
    }
}

impl<T> Machine<T> {
    /// Whether [`Machine::publish`] would send a message of that QoS now.
    ///
    /// Not while as many are under way as the broker takes [MQTT-3.3.4-7], and not before those of an earlier
    /// connection are sent again: order [MQTT-4.6.0-1].
    pub fn can_publish(&self, qos: QoS) -> bool {
        let room = self.is_connected() && self.output.len() < OUTPUT_LIMIT;
        match qos {
            QoS::AtMostOnce => room,
            _ => room && self.unsent.is_empty() && self.outbound.quota() > 0 && !self.next_id_may_be_taken(),
        }
    }

    /// Whether [`Machine::subscribe`] and [`Machine::unsubscribe`] would send now.
    pub fn can_request(&self) -> bool {
        self.is_connected() && self.output.len() < OUTPUT_LIMIT && self.requests.len() < REQUEST_LIMIT
    }

    /// Sends a message; it completes at once if it cannot be sent. Ask [`Machine::can_publish`] before: out of turn it
    /// completes as [`PublishError::Closed`].
    pub fn publish(&mut self, mut message: Message, token: T) {
        if !self.options.version.is_v5() {
            message.properties = PublishProperties::default();
        }
        let early = match self.limits.allow(&message, self.options.version) {
            Err(error) => Some(Err(error)),
            Ok(()) if !self.can_publish(message.qos) => Some(Err(PublishError::Closed)),
            Ok(()) if message.qos == QoS::AtMostOnce => {
                Some(write(&message, None, false, self.options.version, &mut self.output))
            }
            Ok(()) => None,
        };
        if let Some(result) = early {
            let result = result.map(|()| ReasonCode::Success);
            return self.completions.push_back(Completion::Published(token, result));
        }
        // There is an identifier: fewer messages are in flight than there are identifiers, as `can_publish` says.
        let Some(id) = self.outbound.begin(message.qos, Sent { message, token }) else { return };
        self.last_id = id;
        self.send_in_flight(id, false);
    }

    /// Writes a message that is in flight; one that cannot be encoded leaves it, and completes.
    fn send_in_flight(&mut self, id: PacketId, dup: bool) {
        let found = self.outbound.iter().rev().find_map(|entry| match entry {
            InFlight::Publish { id: this, qos, item } if this == id => Some((qos, &item.message)),
            _ => None,
        });
        let Some((qos, message)) = found else { return };
        let written = match self.limits.allow(message, self.options.version) {
            Ok(()) => write(message, Some(id), dup, self.options.version, &mut self.output),
            Err(error) => Err(error),
        };
        if let Err(error) = written
            && let Some(sent) = self.withdraw(id, qos)
        {
            self.completions.push_back(Completion::Published(sent.token, Err(error)));
        }
    }

    /// Takes a message out of flight as if the broker had refused it.
    pub(super) fn withdraw(&mut self, id: PacketId, qos: QoS) -> Option<Sent<T>> {
        if qos == QoS::AtLeastOnce {
            return self.outbound.puback(id);
        }
        match self.outbound.pubrec(id, ReasonCode::UnspecifiedError) {
            Pubrec::Ended(sent) => Some(sent),
            Pubrec::Release(_) | Pubrec::Unknown => None,
        }
    }

    /// The session goes on: sends again what is in flight, with its identifiers and in its order [MQTT-4.4.0-1],
    /// [MQTT-4.6.0-1], but not more at once than this connection's Receive Maximum [MQTT-3.3.4-7].
    pub(super) fn resume(&mut self) {
        let in_flight: Vec<(PacketId, bool)> = self
            .outbound
            .iter()
            .map(|entry| match entry {
                InFlight::Publish { id, .. } => (id, true),
                InFlight::Pubrel { id } => (id, false),
            })
            .collect();
        for (id, _) in in_flight.iter().filter(|(_, is_publish)| !is_publish) {
            mqtt::codec::encode::pubrel(self.options.version, *id, ReasonCode::Success, &mut self.output);
        }
        self.unsent = in_flight.into_iter().filter(|(_, is_publish)| *is_publish).map(|(id, _)| id).collect();
        self.send_unsent();
    }

    /// Sends again as many as the broker takes now.
    pub(super) fn send_unsent(&mut self) {
        let window = usize::from(self.limits.receive_maximum);
        while self.outbound.len().saturating_sub(self.unsent.len()) < window {
            let Some(id) = self.unsent.pop_front() else { break };
            self.send_in_flight(id, true);
        }
    }

    /// Sends SUBSCRIBE; it completes at once if it cannot be sent.
    pub fn subscribe(&mut self, request: SubscribeRequest, token: T) {
        let filters: Vec<&str> = request.subscriptions.iter().map(|one| one.filter.as_str()).collect();
        if let Err(error) = check_filters(&filters) {
            return self.completions.push_back(Completion::Subscribed(token, Err(error)));
        }
        let Some(packet_id) = self.request_id() else {
            return self
                .completions
                .push_back(Completion::Subscribed(token, Err(RequestError::Disconnected)));
        };
        let v5 = self.options.version.is_v5();
        let count = request.subscriptions.len();
        let packet = Packet::Subscribe(Subscribe {
            packet_id,
            subscription_identifier: request.identifier.filter(|_| v5),
            user_properties: if v5 { owned_pairs(request.user_properties) } else { UserProperties::new() },
            filters: request.subscriptions.into_iter().map(Subscription::into_packet).collect(),
        });
        self.request(&packet, Request { packet_id, kind: RequestKind::Subscribe, filters: count, token });
    }

    /// Sends UNSUBSCRIBE; it completes at once if it cannot be sent.
    pub fn unsubscribe(&mut self, request: UnsubscribeRequest, token: T) {
        let filters: Vec<&str> = request.filters.iter().map(String::as_str).collect();
        if let Err(error) = check_filters(&filters) {
            return self.completions.push_back(Completion::Unsubscribed(token, Err(error)));
        }
        let Some(packet_id) = self.request_id() else {
            return self
                .completions
                .push_back(Completion::Unsubscribed(token, Err(RequestError::Disconnected)));
        };
        let v5 = self.options.version.is_v5();
        let count = request.filters.len();
        let packet = Packet::Unsubscribe(Unsubscribe {
            packet_id,
            user_properties: if v5 { owned_pairs(request.user_properties) } else { UserProperties::new() },
            filters: request.filters.into_iter().map(Into::into).collect(),
        });
        self.request(&packet, Request { packet_id, kind: RequestKind::Unsubscribe, filters: count, token });
    }

    fn request(&mut self, packet: &Packet<'_>, request: Request<T>) {
        let version = self.options.version;
        let sent = match self.limits.allow_size(packet, version) {
            Ok(()) => encode(packet, version, &mut self.output).map_err(|error| error.to_string()),
            Err(rule) => Err(rule),
        };
        match sent {
            Ok(()) => self.requests.push(request),
            Err(rule) => self.completions.push_back(request.fail(RequestError::Invalid(rule))),
        }
    }

    /// An identifier for a SUBSCRIBE or UNSUBSCRIBE that nothing else uses [MQTT-2.2.1-3]: the one that messages in
    /// flight, which count upwards, will reach last. `None`: it is not the time for a request.
    fn request_id(&self) -> Option<PacketId> {
        if !self.can_request() {
            return None;
        }
        let mut id = self.last_id;
        // Each step back skips one that is in use; there are fewer of those than identifiers.
        for _ in 0..u16::MAX {
            let used = self.requests.iter().any(|request| request.packet_id == id)
                || self.outbound.iter().any(|entry| match entry {
                    InFlight::Publish { id: this, .. } | InFlight::Pubrel { id: this } => this == id,
                });
            if !used {
                return Some(id);
            }
            id = PacketId::new(id.get() - 1).or(PacketId::new(u16::MAX))?;
        }
        None
    }

    /// Whether the identifier that the next message gets may be that of a request that still waits for its answer. Then
    /// messages wait too; it takes a broker that answers 65,000 messages before one SUBSCRIBE.
    fn next_id_may_be_taken(&self) -> bool {
        // The next one is the first free one, so at most as far ahead as there are messages in flight.
        let reach = self.outbound.len() + 1;
        self.requests.iter().any(|request| {
            let ahead = i32::from(request.packet_id.get()) - i32::from(self.last_id.get());
            let ahead = ahead.rem_euclid(i32::from(u16::MAX));
            (1..=reach).contains(&usize::try_from(ahead).unwrap_or(0))
        })
    }

    /// Says good-bye and ends the connection.
    pub fn disconnect(&mut self, goodbye: Goodbye) {
        if self.is_open() {
            self.say_goodbye(goodbye);
            self.close(Disconnected::ByUs);
        }
    }
}

impl Limits {
    /// Whether the broker takes such a message.
    fn allow(&self, message: &Message, version: Version) -> Result<(), PublishError> {
        let invalid = |rule: &str| Err(PublishError::Invalid(rule.to_owned()));
        if let Err(error) = topic::validate(&message.topic) {
            return Err(PublishError::Invalid(error.to_string()));
        }
        if message.qos > self.maximum_qos {
            return invalid("the broker does not take this QoS [MQTT-3.2.2-11]");
        }
        if message.retain && !self.retain_available {
            return invalid("the broker does not keep retained messages [MQTT-3.2.2-14]");
        }
        if message.properties.topic_alias.is_some_and(|alias| alias == 0 || alias > self.topic_alias_maximum)
        {
            return invalid("the broker does not take this topic alias [MQTT-3.2.2-17]");
        }
        let id = (message.qos != QoS::AtMostOnce).then_some(PacketId::MIN);
        self.allow_size(&publish_packet(message, id, false), version).map_err(PublishError::Invalid)
    }

    /// Whether the broker takes a packet of that size [MQTT-3.2.2-15].
    fn allow_size(&self, packet: &Packet<'_>, version: Version) -> Result<(), String> {
        let len = encoded_len(packet, version);
        if u32::try_from(len).is_ok_and(|len| len <= self.maximum_packet_size) {
            return Ok(());
        }
        let most = self.maximum_packet_size;
        Err(format!("the packet has {len} bytes and the broker takes at most {most} [MQTT-3.2.2-15]"))
    }
}

fn write(
    message: &Message,
    id: Option<PacketId>,
    dup: bool,
    version: Version,
    output: &mut Vec<u8>,
) -> Result<(), PublishError> {
    encode(&publish_packet(message, id, dup), version, output)
        .map_err(|error| PublishError::Invalid(error.to_string()))
}

/// The PUBLISH of a message. Cloning properties costs nothing where there are none.
fn publish_packet(message: &Message, packet_id: Option<PacketId>, dup: bool) -> Packet<'_> {
    let mut properties = message.properties.clone();
    if dup {
        // An alias means something on the connection it was made for only (3.3.2.3.4).
        properties.topic_alias = None;
    }
    Packet::Publish(Publish {
        dup,
        qos: message.qos,
        retain: message.retain,
        topic: message.topic.as_str().into(),
        packet_id,
        properties: properties.into(),
        payload: (&*message.payload).into(),
    })
}

fn check_filters(filters: &[&str]) -> Result<(), RequestError> {
    if filters.is_empty() {
        return Err(RequestError::Invalid("there is no topic filter [MQTT-3.8.3-2]".to_owned()));
    }
    for text in filters {
        if let Err(error) = filter::Filter::parse(text) {
            return Err(RequestError::Invalid(error.to_string()));
        }
    }
    Ok(())
}

pub(super) fn owned_pairs(pairs: Vec<(String, String)>) -> UserProperties<'static> {
    pairs.into_iter().map(|(name, value)| (name.into(), value.into())).collect()
}
