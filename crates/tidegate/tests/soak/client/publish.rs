//! What a client publishes, and the acknowledgements that it waits for.

use std::borrow::Cow;

use mqtt::codec::encode;
use mqtt::packet::{Ack, PublishProperties};
use mqtt::{PacketId, QoS, ReasonCode};

use super::{AT_ONCE, Act, Client, ENOUGH, Flight, Parcel, Phase, SUBSCRIBES, Scene, within};
use crate::link::Link;
use crate::oracle::letter::{Lengths, Letter, length};
use crate::oracle::retained::Shelf;
use crate::oracle::trimmings::{MOST, trimmings};

impl Client {
    /// Publishes as much as there is room for.
    pub(crate) fn fill(&mut self, scene: &mut Scene) -> Result<(), String> {
        if scene.act != Act::Traffic || self.phase != Phase::Up {
            return Ok(());
        }
        let window = self.task.window.min(self.quota);
        for _ in 0..AT_ONCE {
            let Some(link) = &self.link else { break };
            if link.waiting() > ENOUGH || self.flights.len() >= window {
                break;
            }
            if self.writes.is_some_and(|at| scene.now < at) {
                break;
            }
            if self.task.paced || !self.task.shelf.is_empty() {
                self.writes = Some(scene.now + within(&mut scene.rng, (1, 20)));
            }
            if let Some(&topic) = scene.rng.choice(&self.task.shelf) {
                let clears = scene.rng.u32(0..10) == 0;
                let seq = scene.shelf.send(topic, clears);
                self.publish(QoS::AtLeastOnce, Parcel::Shelf { topic, seq, clears }, scene);
                break;
            }
            let Some(&stream) = scene.rng.choice(&self.task.streams) else { break };
            let s = &scene.book.streams[stream];
            if s.logged && scene.throttled {
                break;
            }
            let qos = s.qos;
            let seq = scene.book.send(stream, scene.epoch);
            self.publish(qos, Parcel::Letter { stream, seq, epoch: scene.epoch }, scene);
        }
        Ok(())
    }

    pub(super) fn publish(&mut self, qos: QoS, parcel: Parcel, scene: &mut Scene) {
        self.orders += 1;
        let mut flight = Flight { id: 0, qos, parcel, released: false, order: self.orders };
        if qos > QoS::AtMostOnce {
            loop {
                // SUBSCRIBE has the last ones for itself
                self.next_id = if self.next_id >= SUBSCRIBES - 1 { 1 } else { self.next_id + 1 };
                if self.flights.iter().all(|flight| flight.id != self.next_id) {
                    break;
                }
            }
            flight.id = self.next_id;
        }
        let alias = self.alias_for(&parcel);
        let Some(link) = &mut self.link else { return };
        write(link, &flight, false, alias, scene);
        match parcel {
            Parcel::Letter { stream, seq, epoch } if qos == QoS::AtMostOnce => {
                self.unsure.push_back((flight.order, stream, seq, epoch));
            }
            _ => self.flights.push_back(flight),
        }
    }

    /// The Topic Alias of a stream of this client's, and whether the broker knows it.
    pub(super) fn alias_for(&mut self, parcel: &Parcel) -> Option<(u16, bool)> {
        let Parcel::Letter { stream, .. } = parcel else { return None };
        if !self.habits.uses_aliases {
            return None;
        }
        let at =
            self.task.streams.iter().position(|other| other == stream).filter(|at| *at < self.alias_out)?;
        let known = !self.told.insert(at);
        Some((u16::try_from(at + 1).ok()?, known))
    }

    /// The first message that waits for this kind of acknowledgement; its place, if it has this packet id.
    pub(super) fn acknowledged(&self, ack: &Ack<'_>, qos: QoS, released: bool) -> Result<usize, String> {
        let waits = |flight: &Flight| flight.qos == qos && flight.released == released;
        let first = self.flights.iter().position(waits);
        // it was released before, and PUBCOMP was lost with the connection (4.3.3)
        let known_before = released && ack.reason == ReasonCode::PacketIdentifierNotFound;
        match first.filter(|at| self.flights[*at].id == ack.packet_id.get()) {
            Some(_) if ack.reason.is_error() && !known_before => {
                Err(self.wrong(&format!("refused: {ack:?}")))
            }
            Some(at) => Ok(at),
            None => {
                let expected = first.map(|at| self.flights[at].id);
                let why = format!("{ack:?} for {qos:?}, expected was {expected:?} [MQTT-4.6.0-2]");
                Err(self.wrong(&why))
            }
        }
    }

    pub(super) fn finish(&mut self, at: usize, scene: &mut Scene) {
        let Some(flight) = self.flights.remove(at) else { return };
        scene.tally.acknowledged += 1;
        if let Parcel::Shelf { topic, seq, .. } = flight.parcel {
            scene.shelf.acknowledged(topic, seq);
        }
        self.is_sure(flight.order);
    }

    /// What was sent before this has been read by the broker.
    pub(super) fn is_sure(&mut self, order: u64) {
        while self.unsure.front().is_some_and(|(other, ..)| *other < order) {
            self.unsure.pop_front();
        }
    }
}

/// Encodes a message.
pub(super) fn write(
    link: &mut Link,
    flight: &Flight,
    dup: bool,
    alias: Option<(u16, bool)>,
    scene: &mut Scene,
) {
    let mut properties = PublishProperties::default();
    let (topic, retain, payload): (Cow<'_, str>, bool, Vec<u8>) = match flight.parcel {
        Parcel::Letter { stream, seq, epoch } => {
            let s = &scene.book.streams[stream];
            let number = u16::try_from(stream).expect("few streams");
            if s.trimmed {
                properties = trimmings(number, seq);
            }
            properties.message_expiry_interval = s.expires;
            let payload = match s.lengths {
                Lengths::Empty => Vec::new(),
                lengths => {
                    let letter = Letter { stream: number, seq, epoch };
                    scene.paper.write(letter, length(lengths, number, seq))
                }
            };
            if s.logged && s.qos > QoS::AtMostOnce {
                let trimmings = if s.trimmed { MOST / 2 } else { 0 };
                scene.logged += (payload.len() + s.topic.len() + 64 + trimmings) as u64;
            }
            (Cow::Borrowed(&s.topic), false, payload)
        }
        Parcel::Shelf { topic, seq, clears } => {
            let number = u16::try_from(topic).expect("few topics");
            let letter = Letter { stream: number, seq, epoch: 0 };
            let payload = if clears { Vec::new() } else { scene.paper.write(letter, 100) };
            (Cow::Owned(Shelf::name(topic)), true, payload)
        }
    };
    properties.topic_alias = alias.map(|(alias, _)| alias);
    let topic = if alias.is_some_and(|(_, known)| known) { "" } else { &topic };
    let id = PacketId::new(flight.id);
    let version = link.version;
    encode::publish(version, flight.qos, dup, retain, id, topic, &properties, &payload, link.out())
        .expect("a message that can be sent");
}
