//! How a client connects, and what it finds when it is back.

use std::borrow::Cow;

use mqtt::codec::encode;
use mqtt::packet::{
    Connack, Connect, ConnectProperties, Packet, PublishProperties, RetainHandling, Suback, Subscribe,
    SubscribeFilter, SubscriptionOptions, Will,
};
use mqtt::{QoS, ReasonCode};

use super::publish::write;
use super::{Act, Client, Known, Parcel, Phase, SUBSCRIBES, Scene, WILLS, packet_id, within};
use crate::link::Link;
use crate::oracle::book::Wish;
use crate::oracle::wills::Fate;
use crate::world::CLIENTS;

impl Client {
    pub(super) fn connect(&mut self, scene: &mut Scene) -> Result<(), String> {
        let habits = &self.habits;
        scene.serial += 1;
        let token = scene.serial * CLIENTS + self.number as u64;
        let dialled =
            Link::dial(scene.doors, habits.web, habits.version, habits.receive_buffer, &scene.epoll, token);
        let mut link = dialled.map_err(|error| self.wrong(&format!("connecting: {error}")))?;
        self.connection += 1;
        let v5 = habits.version.is_v5();
        let (goes_on, keeps) = match (scene.act, habits.fickle) {
            (Act::Parting, _) => (false, false),
            (_, false) => (habits.durable, habits.durable),
            (_, true) => {
                let goes_on = scene.rng.bool();
                (goes_on, if v5 { scene.rng.bool() } else { goes_on })
            }
        };
        self.connecting = (goes_on, keeps);
        self.accepted = false;
        let (connection, session) = (self.connection, self.session);
        let mut properties = ConnectProperties::default();
        if v5 {
            properties.session_expiry_interval = keeps.then_some(3600);
            properties.receive_maximum = Some(habits.receive_maximum);
            properties.maximum_packet_size = habits.largest;
            properties.topic_alias_maximum = Some(habits.alias_maximum).filter(|&most| most > 0);
        }
        let will = habits.will.then(|| Will {
            topic: Cow::Owned(format!("{WILLS}{}", self.number)),
            payload: Cow::Owned(format!("{} {}", self.number, self.connection).into_bytes()),
            qos: QoS::AtLeastOnce,
            retain: false,
            delay_interval: None,
            properties: PublishProperties::default(),
        });
        if habits.will {
            scene.wills.set((self.number, self.connection), Fate::Unknown);
        }
        link.put(&Packet::Connect(Box::new(Connect {
            version: habits.version,
            bridge: false,
            clean_start: !goes_on,
            keep_alive: 600,
            client_id: Cow::Borrowed(&self.id),
            will,
            username: None,
            password: None,
            properties,
        })));
        self.link = Some(link);
        self.note(format!("{connection} CONNECT goes on {goes_on} keeps {keeps} session {session:?}"));
        self.phase = Phase::Connecting;
        self.asked = scene.now;
        self.dies = self.habits.life.map(|life| scene.now + within(&mut scene.rng, life));
        self.naps = self.habits.naps.map(|(every, _)| scene.now + within(&mut scene.rng, (0, every)));
        self.flush(scene);
        Ok(())
    }

    pub(super) fn on_connack(&mut self, connack: &Connack<'_>, scene: &mut Scene) -> Result<(), String> {
        if self.phase != Phase::Connecting || connack.reason != ReasonCode::Success {
            return Err(self.wrong(&format!("{connack:?} while {:?}", self.phase)));
        }
        scene.tally.connects += 1;
        let (goes_on, keeps) = self.connecting;
        let expected = if goes_on { self.session } else { Known::No };
        let present = connack.session_present;
        let connection = self.connection;
        self.note(format!("{connection} CONNACK present {present}"));
        if (expected == Known::Yes && !present) || (expected == Known::No && present) {
            let why = format!("Session Present is {present}, the session {expected:?} [MQTT-3.2.2-2]");
            return Err(self.wrong(&why));
        }
        self.session = if keeps || present { Known::Yes } else { Known::No };
        self.accepted = true;
        if self.habits.will {
            let fate = if self.strays(scene.now) { Fate::Contested } else { Fate::Alive };
            scene.wills.set((self.number, self.connection), fate);
        }
        self.quota = usize::from(connack.properties.receive_maximum.unwrap_or(u16::MAX));
        self.alias_out = usize::from(connack.properties.topic_alias_maximum.unwrap_or(0));
        self.told.clear();
        self.aliases = vec![None; usize::from(self.habits.alias_maximum) + 1];
        if present {
            scene.tally.resumed += 1;
            self.send_again(scene);
        } else {
            self.forget_flights(scene);
            self.unreleased.clear();
        }
        if let Some(reader) = self.task.reader {
            if present { scene.book.came_back(reader) } else { scene.book.session_ended(reader) }
        }
        // a subscription that is there already changes nothing, and loses nothing [MQTT-3.8.4-3]
        let subscribes = !present || scene.rng.u32(0..10) == 0;
        if self.task.wishes.is_empty() || !subscribes || scene.act == Act::Parting {
            self.phase = Phase::Up;
        } else {
            self.subscribe(scene);
        }
        Ok(())
    }

    pub(super) fn send_again(&mut self, scene: &mut Scene) {
        let Some(link) = &mut self.link else { return };
        for flight in &self.flights {
            if flight.released {
                encode::pubrel(link.version, packet_id(flight.id), ReasonCode::Success, link.out());
            } else {
                scene.tally.sent_again += 1;
                if let Parcel::Letter { stream, seq, .. } = flight.parcel {
                    scene.book.send_again(stream, seq);
                }
                write(link, flight, true, None, scene);
            }
        }
    }

    /// Asks for all that it wishes: in one packet, or, while nobody publishes and each may have an identifier of its own, in one
    /// for each.
    pub(super) fn subscribe(&mut self, scene: &mut Scene) {
        let Some(link) = &mut self.link else { return };
        let wishes = &self.task.wishes;
        let apart = wishes.iter().any(|wish| wish.identifier != wishes[0].identifier);
        let packets: Vec<&[Wish]> = if apart { wishes.chunks(1).collect() } else { vec![wishes] };
        self.subacks = packets.len();
        for (number, wishes) in packets.into_iter().enumerate() {
            let filters = wishes.iter().map(|wish| SubscribeFilter {
                filter: Cow::Borrowed(&wish.filter),
                options: SubscriptionOptions {
                    qos: wish.qos,
                    no_local: wish.no_local,
                    retain_as_published: wish.retain_as_published,
                    retain_handling: if wish.only_new {
                        RetainHandling::DoNotSend
                    } else {
                        RetainHandling::Send
                    },
                },
            });
            link.put(&Packet::Subscribe(Subscribe {
                packet_id: packet_id(SUBSCRIBES + number as u16),
                subscription_identifier: wishes[0].identifier,
                user_properties: Vec::new(),
                filters: filters.collect(),
            }));
        }
        if self.task.looks {
            self.views = scene.shelf.view();
        }
        self.phase = Phase::Subscribing;
        self.asked = scene.now;
    }

    pub(super) fn on_suback(&mut self, suback: &Suback<'_>, scene: &mut Scene) -> Result<(), String> {
        let wishes = &self.task.wishes;
        let number = usize::from(suback.packet_id.get()).wrapping_sub(usize::from(SUBSCRIBES));
        let asked = if suback.reasons.len() == wishes.len() {
            Some(&wishes[..])
        } else {
            wishes.get(number..=number)
        };
        let granted = asked.unwrap_or_default().iter().map(|wish| ReasonCode::from_u8(wish.qos as u8));
        let right = granted.eq(suback.reasons.iter().map(|reason| Some(*reason)));
        if self.phase != Phase::Subscribing || !right || self.subacks == 0 {
            return Err(self.wrong(&format!("{suback:?} while {:?}", self.phase)));
        }
        self.subacks -= 1;
        if self.subacks > 0 {
            return Ok(());
        }
        self.phase = Phase::Up;
        if let Some(group) = self.task.group {
            if !std::mem::replace(&mut self.joined, true) {
                scene.absent[group] -= 1;
                if scene.absent[group] == 0 {
                    scene.book.group_subscribed(group);
                }
            }
        } else if let Some(reader) = self.task.reader {
            scene.book.subscribed(reader);
        }
        Ok(())
    }
}
