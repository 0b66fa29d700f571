//! A broker for one client, as simple as can be: every state in a list, nothing clever. What it saw is the oracle.

use mqtt::codec::Decoded;
use mqtt::codec::decode::{Role, decode};
use mqtt::codec::encode::{self, encode};
use mqtt::packet::*;
use mqtt::{PacketId, QoS, ReasonCode, Version};

/// A message that the peer wants the client to have.
#[derive(Clone, Debug)]
pub(super) struct ToClient {
    pub(super) payload: String,
    pub(super) qos: QoS,
    pub(super) step: Step,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Queued,
    Published(PacketId),
    Released(PacketId),
    Done,
}

/// The model.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) version: Version,
    pub(super) buffer: Vec<u8>,
    pub(super) output: Vec<u8>,
    /// Everything published by the client that the peer took, in order: a subscriber's view.
    pub(super) taken: Vec<String>,
    /// Every PUBLISH as it came: payload, id, dup.
    pub(super) publishes: Vec<(String, Option<u16>, bool)>,
    pub(super) unreleased: Vec<PacketId>,
    pub(super) to_client: Vec<ToClient>,
    pub(super) next_id: PacketId,
    pub(super) has_session: bool,
    pub(super) connected: bool,
    /// Sent in the CONNACK.
    pub(super) connack: ConnackProperties<'static>,
    /// Of the client's CONNECT.
    pub(super) receive_maximum: usize,
    /// Publishes of QoS 1 and 2 on this connection without their last acknowledgement, and the most there ever were.
    pub(super) unacknowledged: Vec<PacketId>,
    pub(super) most_unacknowledged: usize,
    /// While false, PUBACK, PUBREC and PUBCOMP are not sent.
    pub(super) acknowledges: bool,
    pub(super) other: Vec<Packet<'static>>,
}

impl Peer {
    pub(super) fn new(version: Version) -> Self {
        Self {
            version,
            buffer: Vec::new(),
            output: Vec::new(),
            taken: Vec::new(),
            publishes: Vec::new(),
            unreleased: Vec::new(),
            to_client: Vec::new(),
            next_id: PacketId::MIN,
            has_session: false,
            connected: false,
            connack: ConnackProperties::default(),
            receive_maximum: 65_535,
            unacknowledged: Vec::new(),
            most_unacknowledged: 0,
            acknowledges: true,
            other: Vec::new(),
        }
    }

    pub(super) fn lost(&mut self) {
        self.buffer.clear();
        self.output.clear();
        self.connected = false;
    }

    pub(super) fn forget_session(&mut self) {
        self.has_session = false;
        self.unreleased.clear();
        self.to_client.clear();
    }

    pub(super) fn receive(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
        let buffer = std::mem::take(&mut self.buffer);
        let mut at = 0;
        while let Decoded::Packet(packet, len) = decode(&buffer[at..], self.version, Role::Client, u32::MAX)
            .expect("the client sends legal packets")
        {
            at += len;
            self.packet(packet.into_owned());
        }
        self.buffer = buffer[at..].to_vec();
    }

    fn packet(&mut self, packet: Packet<'static>) {
        assert!(
            self.connected || matches!(packet, Packet::Connect(_)),
            "first of all CONNECT [MQTT-3.1.0-1]"
        );
        match packet {
            Packet::Connect(connect) => self.connect(&connect),
            Packet::Publish(publish) => self.publish(&publish),
            Packet::Pubrel(ack) => {
                self.unreleased.retain(|id| *id != ack.packet_id);
                self.unacknowledged.retain(|id| *id != ack.packet_id);
                encode::pubcomp(self.version, ack.packet_id, ReasonCode::Success, &mut self.output);
            }
            Packet::Puback(ack) => self.step(ack.packet_id, QoS::AtLeastOnce, Step::Done),
            Packet::Pubrec(ack) => {
                self.step(ack.packet_id, QoS::ExactlyOnce, Step::Released(ack.packet_id));
                encode::pubrel(self.version, ack.packet_id, ReasonCode::Success, &mut self.output);
            }
            Packet::Pubcomp(ack) => self.step(ack.packet_id, QoS::ExactlyOnce, Step::Done),
            Packet::Pingreq => encode::pingresp(&mut self.output),
            Packet::Subscribe(ref subscribe) => {
                let reasons = subscribe.filters.iter().map(|_| ReasonCode::GrantedQos2).collect();
                let suback = Suback {
                    packet_id: subscribe.packet_id,
                    properties: ReasonProperties::default(),
                    reasons,
                };
                self.send(&Packet::Suback(suback));
                self.other.push(packet);
            }
            other => self.other.push(other),
        }
        self.deliver();
    }

    fn connect(&mut self, connect: &Connect<'_>) {
        if connect.clean_start {
            self.forget_session();
        }
        let session_present = std::mem::replace(&mut self.has_session, true);
        self.connected = true;
        self.receive_maximum = connect.properties.receive_maximum.map_or(65_535, usize::from);
        self.unacknowledged.clear();
        let properties = self.connack.clone();
        self.send(&Packet::Connack(Box::new(Connack {
            session_present,
            reason: ReasonCode::Success,
            properties,
        })));
        for message in self.to_client.clone() {
            match message.step {
                Step::Published(id) => self.send_publish(&message, Some(id), true),
                Step::Released(id) => {
                    encode::pubrel(self.version, id, ReasonCode::Success, &mut self.output);
                }
                Step::Queued | Step::Done => {}
            }
        }
    }

    fn publish(&mut self, publish: &Publish<'_>) {
        let payload = String::from_utf8(publish.payload.to_vec()).unwrap();
        self.publishes.push((payload.clone(), publish.packet_id.map(PacketId::get), publish.dup));
        let Some(id) = publish.packet_id else { return self.taken.push(payload) };
        if !self.unacknowledged.contains(&id) {
            self.unacknowledged.push(id);
        }
        self.most_unacknowledged = self.most_unacknowledged.max(self.unacknowledged.len());
        if publish.qos == QoS::AtLeastOnce {
            self.taken.push(payload);
            if self.acknowledges {
                self.unacknowledged.retain(|other| *other != id);
                encode::puback(self.version, id, ReasonCode::Success, &mut self.output);
            }
            return;
        }
        if !self.unreleased.contains(&id) {
            self.unreleased.push(id);
            self.taken.push(payload);
        }
        if self.acknowledges {
            encode::pubrec(self.version, id, ReasonCode::Success, &mut self.output);
        }
    }

    fn step(&mut self, id: PacketId, qos: QoS, to: Step) {
        for message in &mut self.to_client {
            let here = matches!(message.step, Step::Published(this) | Step::Released(this) if this == id);
            // A PUBREC for a message that is released already changes nothing.
            if here && message.qos == qos && !(matches!(message.step, Step::Released(_)) && to != Step::Done)
            {
                message.step = to;
            }
        }
    }

    /// Sends what is queued, as far as the client's Receive Maximum goes.
    pub(super) fn deliver(&mut self) {
        if !self.connected {
            return;
        }
        for at in 0..self.to_client.len() {
            let under_way = self
                .to_client
                .iter()
                .filter(|message| matches!(message.step, Step::Published(_) | Step::Released(_)))
                .count();
            let message = self.to_client[at].clone();
            if message.step != Step::Queued {
                continue;
            }
            if message.qos == QoS::AtMostOnce {
                self.to_client[at].step = Step::Done;
                self.send_publish(&message, None, false);
            } else if under_way < self.receive_maximum {
                let id = self.next_id;
                self.next_id = id.next();
                self.to_client[at].step = Step::Published(id);
                self.send_publish(&message, Some(id), false);
            } else {
                break;
            }
        }
    }

    fn send_publish(&mut self, message: &ToClient, packet_id: Option<PacketId>, dup: bool) {
        self.send(&Packet::Publish(Publish {
            dup,
            qos: message.qos,
            retain: false,
            topic: "to/client".into(),
            packet_id,
            properties: PublishProperties::default().into(),
            payload: message.payload.as_bytes().into(),
        }));
    }

    pub(super) fn send(&mut self, packet: &Packet<'_>) {
        encode(packet, self.version, &mut self.output).expect("the model sends legal packets");
    }
}
