//! What comes to a client: judged, handed to the oracle, answered.

use std::sync::Arc;
use std::time::Duration;

use mqtt::codec::Decoded;
use mqtt::codec::decode::{Role, decode};
use mqtt::codec::encode;
use mqtt::packet::{Packet, Publish};
use mqtt::{PacketId, QoS, ReasonCode, Version};

use super::{Act, Client, Phase, READS, Scene, WILLS};
use crate::harness::wait::now;
use crate::link::Came;
use crate::oracle::book::Arrival;
use crate::oracle::letter::length;
use crate::oracle::retained::{Asked, Shelf};
use crate::oracle::trimmings;

impl Client {
    /// The socket can be read. `false`: the connection is over.
    pub(crate) fn readable(&mut self, scene: &mut Scene) -> Result<bool, String> {
        for _ in 0..READS {
            let Some(link) = self.link.as_mut().filter(|link| !link.resting) else { return Ok(true) };
            let came = link.read(&mut scene.chunk);
            if matches!(came, Ok(Came::Bytes)) {
                self.take_packets(scene)?;
                continue;
            }
            let ended = match came {
                Ok(Came::Nothing) => return Ok(true),
                Ok(_) => "the broker closed the connection".to_owned(),
                Err(error) => error.to_string(),
            };
            if self.phase != Phase::Leaving && self.strays(scene.now) {
                self.lost(scene);
                return Ok(false);
            }
            if self.phase != Phase::Leaving {
                return Err(self.wrong(&format!("{ended} while {:?}", self.phase)));
            }
            self.over(scene, true);
            return Ok(false);
        }
        Ok(true)
    }

    pub(super) fn take_packets(&mut self, scene: &mut Scene) -> Result<(), String> {
        let Some(link) = &mut self.link else { return Ok(()) };
        let (mut input, version) = (std::mem::take(&mut link.input), link.version);
        let mut used = 0;
        loop {
            match decode(&input[used..], version, Role::Server, u32::MAX) {
                Ok(Decoded::Packet(packet, length)) => {
                    used += length;
                    if self.habits.largest.is_some_and(|most| length > most as usize) {
                        return Err(self.wrong(&format!("a packet of {length} bytes [MQTT-3.1.2-24]")));
                    }
                    self.packet(packet, scene)?;
                }
                Ok(Decoded::Incomplete(_)) => break,
                Err(error) => return Err(self.wrong(&format!("the broker sent {error}"))),
            }
        }
        input.drain(..used);
        if let Some(link) = &mut self.link {
            link.input = input;
        }
        Ok(())
    }

    pub(super) fn packet(&mut self, packet: Packet<'_>, scene: &mut Scene) -> Result<(), String> {
        if self.phase == Phase::Leaving {
            return Ok(());
        }
        match packet {
            Packet::Publish(publish) => self.on_publish(&publish, scene),
            Packet::Puback(ack) => {
                let at = self.acknowledged(&ack, QoS::AtLeastOnce, false)?;
                self.finish(at, scene);
                Ok(())
            }
            Packet::Pubrec(ack) => {
                let at = self.acknowledged(&ack, QoS::ExactlyOnce, false)?;
                self.flights[at].released = true;
                let order = self.flights[at].order;
                self.is_sure(order);
                if let Some(link) = &mut self.link {
                    encode::pubrel(link.version, ack.packet_id, ReasonCode::Success, link.out());
                }
                Ok(())
            }
            Packet::Pubcomp(ack) => {
                let at = self.acknowledged(&ack, QoS::ExactlyOnce, true)?;
                self.finish(at, scene);
                Ok(())
            }
            Packet::Pubrel(ack) => {
                self.unreleased.remove(&ack.packet_id.get());
                self.answer(ack.packet_id, encode::pubcomp, true, scene);
                Ok(())
            }
            Packet::Connack(connack) => self.on_connack(&connack, scene),
            Packet::Suback(suback) => self.on_suback(&suback, scene),
            Packet::Disconnect(d) if d.reason == ReasonCode::SessionTakenOver && self.strays(scene.now) => {
                Ok(())
            }
            other => Err(self.wrong(&format!("{other:?} while {:?}", self.phase))),
        }
    }

    pub(super) fn on_publish(&mut self, publish: &Publish<'_>, scene: &mut Scene) -> Result<(), String> {
        let topic = self.topic_of(publish)?;
        if let Some(id) = publish.packet_id {
            self.open.insert(id.get());
            let v5 = self.habits.version.is_v5();
            let most = if v5 { usize::from(self.habits.receive_maximum) } else { usize::MAX };
            if self.open.len() > most.min(scene.max_inflight) {
                let why =
                    format!("{} messages at once, {most} were asked for [MQTT-3.3.4-9]", self.open.len());
                return Err(self.wrong(&why));
            }
        }
        let known = publish.qos == QoS::ExactlyOnce
            && publish.packet_id.is_some_and(|id| !self.unreleased.insert(id.get()));
        if known && !publish.dup {
            return Err(self.wrong(&format!("{:?} again without DUP", publish.packet_id)));
        }
        if !known {
            let judged = self.judge(&topic, publish, scene);
            judged.map_err(|why| self.wrong(&why))?;
        }
        match (publish.qos, publish.packet_id) {
            (QoS::AtLeastOnce, Some(id)) => self.answer(id, encode::puback, true, scene),
            (QoS::ExactlyOnce, Some(id)) => self.answer(id, encode::pubrec, false, scene),
            _ => {}
        }
        Ok(())
    }

    pub(super) fn topic_of(&mut self, publish: &Publish<'_>) -> Result<Arc<str>, String> {
        let Some(alias) = publish.properties.topic_alias() else { return Ok(Arc::from(&*publish.topic)) };
        let Some(entry) = self.aliases.get_mut(usize::from(alias)).filter(|_| alias > 0) else {
            return Err(self.wrong(&format!("Topic Alias {alias} above what was asked for [MQTT-3.1.2-26]")));
        };
        if !publish.topic.is_empty() {
            *entry = Some(Arc::from(&*publish.topic));
        }
        entry.clone().ok_or_else(|| self.wrong(&format!("Topic Alias {alias} without a topic")))
    }

    pub(super) fn judge(
        &mut self,
        topic: &str,
        publish: &Publish<'_>,
        scene: &mut Scene,
    ) -> Result<(), String> {
        if topic.starts_with(WILLS) {
            let text = std::str::from_utf8(&publish.payload).map_err(|error| error.to_string())?;
            let numbers = text.split_once(' ').and_then(|(a, b)| Some((a.parse().ok()?, b.parse().ok()?)));
            return scene.wills.received(numbers.ok_or_else(|| format!("a will with {text:?}"))?);
        }
        if let Some(topic) = topic.strip_prefix("r/") {
            let wish = self.task.wishes.first().ok_or("nobody asked")?;
            if publish.payload.is_empty() {
                // it was cleared just now
                let right = publish.retain == wish.retain_as_published;
                return if right {
                    Ok(())
                } else {
                    Err("a cleared topic with a wrong flag [MQTT-3.3.1-12]".to_owned())
                };
            }
            let letter = scene.paper.read(&publish.payload)?;
            let got = &publish.properties.read().subscription_identifiers;
            if !got.iter().eq(&wish.identifier) {
                return Err(format!("r/{topic} with {got:?}, not {:?} [MQTT-3.3.4-3]", wish.identifier));
            }
            let asked = Asked { retain_as_published: wish.retain_as_published, only_new: wish.only_new };
            if topic != letter.stream.to_string() {
                return Err(format!("{letter:?} on r/{topic}"));
            }
            let which = usize::from(letter.stream);
            return Shelf::received(&mut self.views, which, letter.seq, publish.retain, asked);
        }
        let Some(reader) = self.task.reader else { return Err(format!("{topic} was not subscribed to")) };
        if publish.retain {
            return Err(format!("{topic} came as a retained message [MQTT-3.3.1-9]"));
        }
        if publish.payload.is_empty() {
            let stream =
                scene.book.empty_stream(topic).ok_or_else(|| format!("{topic} without a payload"))?;
            return scene.book.received_empty(reader, stream, publish.qos);
        }
        let letter = scene.paper.read(&publish.payload)?;
        let which = (usize::from(letter.stream), letter.seq, letter.epoch);
        let stream = scene.book.streams.get(which.0).ok_or_else(|| format!("{letter:?} is of no stream"))?;
        if length(stream.lengths, letter.stream, letter.seq) != publish.payload.len() {
            return Err(format!("{letter:?} came with {} bytes", publish.payload.len()));
        }
        let properties = &publish.properties.read();
        // the beginning of a turn is long ago where the machine is busy, and what gets too old does so by the broker's clock
        let now = if stream.expires.is_some() { scene.epoch_of(now()) } else { scene.epoch };
        if self.habits.version.is_v5() {
            let right = trimmings::check(properties, letter.stream, letter.seq, stream.trimmed);
            let in_time =
                scene.book.check_interval((which.0, letter.epoch), now, properties.message_expiry_interval);
            right.and(in_time).map_err(|why| format!("{letter:?}: {why}"))?;
        }
        let mut identifiers = properties.subscription_identifiers.clone();
        identifiers.sort_unstable();
        let group = self.task.group;
        if group.is_some()
            && !identifiers.iter().eq(self.task.wishes.iter().filter_map(|w| w.identifier.as_ref()))
        {
            return Err(format!(
                "{letter:?} for a group with the identifiers {identifiers:?} [MQTT-3.3.4-3]"
            ));
        }
        let open = self.strays(scene.now);
        let arrival =
            Arrival { qos: publish.qos, dup: publish.dup, group, open, now, identifiers: &identifiers };
        scene.book.received(reader, which, topic, arrival)
    }

    /// Answers, now or, where the client is lazy, a little later; `closes`: the exchange is over then.
    pub(super) fn answer(
        &mut self,
        id: PacketId,
        encode: fn(Version, PacketId, ReasonCode, &mut Vec<u8>),
        closes: bool,
        scene: &Scene,
    ) {
        let Some(link) = &mut self.link else { return };
        match self.habits.lazy.filter(|_| scene.act == Act::Traffic) {
            Some(delay) => {
                encode(link.version, id, ReasonCode::Success, &mut self.held);
                if closes {
                    self.held_ids.push(id.get());
                }
                let _ = self.lets_go.get_or_insert_with(|| scene.now + Duration::from_millis(delay));
            }
            None => {
                if !self.held.is_empty() {
                    self.let_go();
                }
                let Some(link) = &mut self.link else { return };
                encode(link.version, id, ReasonCode::Success, link.out());
                if closes {
                    self.open.remove(&id.get());
                }
            }
        }
    }

    pub(super) fn let_go(&mut self) {
        self.lets_go = None;
        let Some(link) = &mut self.link else { return };
        link.put_bytes(&self.held);
        self.held.clear();
        for id in self.held_ids.drain(..) {
            self.open.remove(&id);
        }
    }

    /// Writes what waits, and says what is waited for.
    pub(crate) fn flush(&mut self, scene: &Scene) {
        let Some(link) = &mut self.link else { return };
        // a broken socket is found when it is read
        let _ = link.flush();
        let _ = link.watch(&scene.epoll);
    }
}
