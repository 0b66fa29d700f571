//! What the broker sends.

use std::time::Instant;

use bytes::Bytes;
use mqtt::codec::{DecodeError, encode};
use mqtt::inflight::{Pubrec, Qos2};
use mqtt::packet::{Ack, Connack, Packet, Publish, PublishProperties, ReasonProperties, Suback, Unsuback};
use mqtt::{PacketId, QoS, ReasonCode, Version};

use super::{Completion, Event, LARGEST_PACKET, Limits, Machine, RequestKind, State};
use crate::error::{Disconnected, PublishError};
use crate::message::{Connected, Granted, Message, Received, Unsubscribed};

impl<T> Machine<T> {
    /// One packet of the broker, legal in itself; whether it is legal now is judged here.
    pub(super) fn packet(&mut self, packet: Packet<'_>, now: Instant) -> Result<(), DecodeError> {
        let waiting = matches!(self.state, State::Connecting(_));
        match packet {
            Packet::Connack(connack) if waiting => return self.connack(*connack, now),
            Packet::Disconnect(bye) => {
                self.close(Disconnected::ByServer {
                    reason: bye.reason,
                    reason_string: bye.properties.reason_string.map(Into::into),
                    server_reference: bye.properties.server_reference.map(Into::into),
                });
            }
            _ if waiting => return Err(broken("MQTT-3.2.0-1", "the first packet is not CONNACK")),
            Packet::Connack(_) => return Err(broken("MQTT-3.2.0-2", "a second CONNACK")),
            // No authentication method was asked for, so there is nothing to go on with.
            Packet::Auth(_) => return Err(broken("MQTT-4.12.0-6", "AUTH without an authentication method")),
            Packet::Publish(publish) => return self.incoming(publish),
            Packet::Puback(ack) => self.puback(ack),
            Packet::Pubrec(ack) => self.pubrec(ack),
            Packet::Pubrel(ack) => self.pubrel(&ack),
            Packet::Pubcomp(ack) => self.pubcomp(&ack),
            Packet::Suback(suback) => return self.suback(suback),
            Packet::Unsuback(unsuback) => return self.unsuback(unsuback),
            Packet::Pingresp => self.timers.answered(),
            // The decoder, told that a server sent it, does not let these through.
            Packet::Connect(_) | Packet::Subscribe(_) | Packet::Unsubscribe(_) | Packet::Pingreq => {
                return Err(broken("2.1.2", "a packet that only a client may send"));
            }
        }
        Ok(())
    }

    fn connack(&mut self, connack: Connack<'_>, now: Instant) -> Result<(), DecodeError> {
        let properties = connack.properties;
        if connack.reason != ReasonCode::Success {
            self.close(Disconnected::Refused {
                reason: connack.reason,
                reason_string: properties.reason_string.map(Into::into),
                server_reference: properties.server_reference.map(Into::into),
            });
            return Ok(());
        }
        if connack.session_present && self.asked_clean {
            return Err(broken("MQTT-3.2.2-2", "a session is present after a clean start"));
        }
        self.state = State::Connected;
        self.connections += 1;
        self.timers.received(now);
        self.limits = Limits {
            // [MQTT-3.2.2-21] the server's word counts.
            keep_alive: properties.server_keep_alive.unwrap_or(self.options.keep_alive),
            receive_maximum: properties
                .receive_maximum
                .unwrap_or(u16::MAX)
                .min(self.options.max_inflight)
                .max(1),
            maximum_qos: properties.maximum_qos.unwrap_or(QoS::ExactlyOnce),
            retain_available: properties.retain_available.unwrap_or(true),
            maximum_packet_size: properties.maximum_packet_size.unwrap_or(LARGEST_PACKET),
            topic_alias_maximum: properties.topic_alias_maximum.unwrap_or(0),
        };
        if let Some(assigned) = &properties.assigned_client_identifier {
            // The session belongs to that name; coming back without it would be another client.
            self.options.client_id = assigned.clone().into_owned();
        }
        self.outbound.set_receive_maximum(self.limits.receive_maximum);
        // 3.1 has no Session Present: whoever did not ask for a clean session has to take it that there is one.
        let goes_on = connack.session_present || (self.options.version == Version::V31 && !self.asked_clean);
        if goes_on {
            self.inbound.reconnect(self.options.receive_maximum.unwrap_or(u16::MAX));
        } else {
            // [MQTT-3.2.2-4] and 4.1: the broker has forgotten, so we do.
            self.forget_session(&PublishError::SessionLost);
        }
        let connected = Connected {
            session_present: connack.session_present,
            properties: properties.into_owned(),
            connection: self.connections,
            local_address: None,
        };
        self.events.push_back((self.connections, Event::Connected(connected)));
        self.resume();
        Ok(())
    }

    /// A PUBLISH: resolves the alias, counts it against what was granted, hands it on unless it was handed on before.
    fn incoming(&mut self, publish: Publish<'_>) -> Result<(), DecodeError> {
        let topic = self.resolve_alias(&publish)?;
        if let Some(id) = publish.packet_id {
            match self.inbound.publish(publish.qos, id) {
                Err(exceeded) => {
                    return Err(DecodeError {
                        reason: exceeded.reason(),
                        clause: "MQTT-3.3.4-9",
                        detail: "more messages in flight than Receive Maximum allows",
                    });
                }
                Ok(Qos2::Duplicate) => {
                    // If the first copy has not been taken from the machine yet, its PUBREC comes then as well; a second
                    // PUBREC for one identifier is allowed and changes nothing.
                    encode::pubrec(self.options.version, id, ReasonCode::Success, &mut self.output);
                    return Ok(());
                }
                Ok(Qos2::New) => {}
            }
        }
        let mut properties = PublishProperties::from(publish.properties).into_owned();
        properties.topic_alias = None;
        let received = Received {
            dup: publish.dup,
            packet_id: publish.packet_id,
            message: Message {
                topic,
                payload: Bytes::copy_from_slice(&publish.payload),
                qos: publish.qos,
                retain: publish.retain,
                properties,
            },
        };
        self.events.push_back((self.connections, Event::Message(received)));
        Ok(())
    }

    /// The topic of a PUBLISH, by name or by alias (3.3.2.3.4).
    fn resolve_alias(&mut self, publish: &Publish<'_>) -> Result<String, DecodeError> {
        let Some(alias) = publish.properties.topic_alias() else {
            return Ok(publish.topic.clone().into_owned());
        };
        if alias == 0 || alias > self.options.topic_alias_maximum {
            return Err(DecodeError {
                reason: ReasonCode::TopicAliasInvalid,
                clause: "MQTT-3.1.2-26",
                detail: "a topic alias above Topic Alias Maximum",
            });
        }
        if publish.topic.is_empty() {
            return self
                .aliases
                .get(&alias)
                .cloned()
                .ok_or_else(|| broken("MQTT-3.3.2-8", "a topic alias that stands for no topic"));
        }
        let topic = publish.topic.clone().into_owned();
        self.aliases.insert(alias, topic.clone());
        Ok(topic)
    }

    /// The application has the message: PUBACK or PUBREC.
    pub(super) fn acknowledge(&mut self, qos: QoS, id: PacketId) {
        let version = self.options.version;
        match qos {
            QoS::AtMostOnce => {}
            QoS::AtLeastOnce => {
                self.inbound.qos1_end();
                encode::puback(version, id, ReasonCode::Success, &mut self.output);
            }
            QoS::ExactlyOnce => encode::pubrec(version, id, ReasonCode::Success, &mut self.output),
        }
    }

    fn puback(&mut self, ack: Ack<'_>) {
        // An identifier that nothing waits for changes nothing: the exchange ended before.
        if let Some(sent) = self.outbound.puback(ack.packet_id) {
            self.completions
                .push_back(Completion::Published(sent.token, verdict(ack.reason, ack.properties)));
            self.send_unsent();
        }
    }

    fn pubrec(&mut self, ack: Ack<'_>) {
        let version = self.options.version;
        match self.outbound.pubrec(ack.packet_id, ack.reason) {
            Pubrec::Release(first) => {
                if let Some(sent) = first {
                    self.released.insert(ack.packet_id, (sent.token, ack.reason));
                }
                encode::pubrel(version, ack.packet_id, ReasonCode::Success, &mut self.output);
            }
            Pubrec::Ended(sent) => {
                self.completions
                    .push_back(Completion::Published(sent.token, verdict(ack.reason, ack.properties)));
                self.send_unsent();
            }
            Pubrec::Unknown if ack.reason.is_error() => {}
            Pubrec::Unknown => {
                let reason =
                    if version.is_v5() { ReasonCode::PacketIdentifierNotFound } else { ReasonCode::Success };
                encode::pubrel(version, ack.packet_id, reason, &mut self.output);
            }
        }
    }

    fn pubrel(&mut self, ack: &Ack<'_>) {
        let known = self.inbound.release(ack.packet_id);
        let reason = if known || !self.options.version.is_v5() {
            ReasonCode::Success
        } else {
            ReasonCode::PacketIdentifierNotFound
        };
        encode::pubcomp(self.options.version, ack.packet_id, reason, &mut self.output);
    }

    fn pubcomp(&mut self, ack: &Ack<'_>) {
        if self.outbound.pubcomp(ack.packet_id) {
            if let Some((token, reason)) = self.released.remove(&ack.packet_id) {
                self.completions.push_back(Completion::Published(token, Ok(reason)));
            }
            self.send_unsent();
        }
    }

    fn suback(&mut self, suback: Suback<'_>) -> Result<(), DecodeError> {
        let Some(at) = self.request_at(suback.packet_id, RequestKind::Subscribe) else { return Ok(()) };
        let request = self.requests.swap_remove(at);
        if suback.reasons.len() != request.filters {
            self.completions.push_back(request.fail(crate::error::RequestError::Disconnected));
            return Err(broken("MQTT-3.8.4-6", "SUBACK has not one reason code for each filter"));
        }
        let granted = Granted {
            packet_id: suback.packet_id,
            reasons: suback.reasons,
            reason_string: suback.properties.reason_string.map(Into::into),
        };
        self.completions.push_back(Completion::Subscribed(request.token, Ok(granted)));
        Ok(())
    }

    fn unsuback(&mut self, unsuback: Unsuback<'_>) -> Result<(), DecodeError> {
        let Some(at) = self.request_at(unsuback.packet_id, RequestKind::Unsubscribe) else { return Ok(()) };
        let request = self.requests.swap_remove(at);
        let reasons = if self.options.version.is_v5() {
            unsuback.reasons
        } else {
            vec![ReasonCode::Success; request.filters]
        };
        if reasons.len() != request.filters {
            self.completions.push_back(request.fail(crate::error::RequestError::Disconnected));
            return Err(broken("MQTT-3.11.3-1", "UNSUBACK has not one reason code for each filter"));
        }
        let unsubscribed = Unsubscribed {
            packet_id: unsuback.packet_id,
            reasons,
            reason_string: unsuback.properties.reason_string.map(Into::into),
        };
        self.completions.push_back(Completion::Unsubscribed(request.token, Ok(unsubscribed)));
        Ok(())
    }

    fn request_at(&self, id: PacketId, kind: RequestKind) -> Option<usize> {
        self.requests.iter().position(|request| request.packet_id == id && request.kind == kind)
    }
}

/// What PUBACK or PUBREC means for the one who published.
fn verdict(reason: ReasonCode, properties: ReasonProperties<'_>) -> Result<ReasonCode, PublishError> {
    if reason.is_error() {
        let reason_string = properties.reason_string.map(Into::into);
        return Err(PublishError::Refused { reason, reason_string });
    }
    Ok(reason)
}

const fn broken(clause: &'static str, detail: &'static str) -> DecodeError {
    DecodeError { reason: ReasonCode::ProtocolError, clause, detail }
}
