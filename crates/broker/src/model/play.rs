//! Clients that do one random thing after another, legal or not, to the broker and to the model.

use std::collections::BTreeMap;
use std::time::Duration;

use mqtt::packet::{
    Ack, Connect, ConnectProperties, Disconnect, DisconnectProperties, Packet, Publish, PublishProperties,
    RetainHandling, Subscribe, SubscribeFilter, SubscriptionOptions, Unsubscribe, Will,
};
use mqtt::{PacketId, QoS, ReasonCode, Version};

use super::reference::{Limits, Reference, VAGUE_MS};
use crate::config::BrokerConfig;
use crate::sim::world::{Link, World};

const STEPS: usize = 120;
/// How many topic aliases a client may use.
const ALIASES: u16 = 3;
const TOPICS: [&str; 8] = ["a", "a/b", "a/b/c", "a//c", "/a", "d/e", "$x/y", "d"];
const FILTERS: [&str; 14] =
    ["a", "a/b", "a/+", "a/#", "#", "+", "+/b", "+/+/c", "/+", "d/e", "d/#", "$x/#", "$x/+", "a//c"];
const BAD_FILTERS: [&str; 4] = ["a/#/b", "a+", "#/a", "b/+c"];

/// How much happened.
#[derive(Default, Debug)]
pub(super) struct Score {
    actions: u64,
    illegal: u64,
    delivered: u64,
}

impl Score {
    pub(super) fn add(&mut self, other: &Self) {
        self.actions += other.actions;
        self.illegal += other.illegal;
        self.delivered += other.delivered;
    }

    pub(super) fn is_plenty(&self) -> bool {
        self.actions > 20_000 && self.illegal > 500 && self.delivered > 10_000
    }
}

struct Client {
    name: String,
    link: Option<(Link, usize, Version)>,
    aliases: Aliases,
}

/// What aliases mean on a connection; the model knows topics only.
#[derive(Default)]
struct Aliases {
    /// Said by the client.
    said: BTreeMap<u16, &'static str>,
    /// Said by the broker, and how many it may use.
    heard: BTreeMap<u16, String>,
    most: u16,
}

impl Aliases {
    /// The packet as it would be without aliases.
    fn without(&mut self, packet: &mut Packet<'static>) -> Result<(), String> {
        let Packet::Publish(publish) = packet else { return Ok(()) };
        let Some(alias) = publish.properties.edit(|p| p.topic_alias.take()) else { return Ok(()) };
        if alias == 0 || alias > self.most {
            return Err(format!("alias {alias} of {} [MQTT-3.1.2-26]", self.most));
        }
        if !publish.topic.is_empty() {
            self.heard.insert(alias, publish.topic.to_string());
        }
        let topic = self.heard.get(&alias).ok_or("an alias without a meaning")?;
        publish.topic = topic.clone().into();
        Ok(())
    }
}

struct Play {
    rng: fastrand::Rng,
    world: World,
    model: Reference,
    clients: Vec<Client>,
    /// Links that are still looked at.
    links: Vec<(Link, usize, Version)>,
    next_link: usize,
    next_message: u32,
    next_id: u16,
    score: Score,
    /// What was done, for the report of a failure.
    story: Vec<String>,
}

/// One run; the error tells what was done and what was wrong.
pub(super) fn run(seed: u64) -> Result<Score, String> {
    let mut rng = fastrand::Rng::with_seed(seed);
    let limits = Limits { receive_maximum: rng.usize(2..6), max_inflight: rng.usize(1..6) };
    let config = BrokerConfig {
        receive_maximum: u16::try_from(limits.receive_maximum).unwrap(),
        max_inflight: u16::try_from(limits.max_inflight).unwrap(),
        max_packet_size: 2_000,
        topic_alias_maximum: ALIASES,
        max_topic_aliases_out: rng.u16(..3),
        ..BrokerConfig::default()
    };
    let world = World::new(seed, rng.usize(1..4), config);
    let model = Reference::new(limits, world.unix_ms());
    let clients = (0..rng.usize(2..6))
        .map(|i| Client { name: format!("c{i}"), link: None, aliases: Aliases::default() })
        .collect();
    let mut play = Play {
        rng,
        world,
        model,
        clients,
        links: Vec::new(),
        next_link: 0,
        next_message: 0,
        next_id: 0,
        score: Score::default(),
        story: Vec::new(),
    };
    for step in 0..STEPS {
        if let Err(error) = play.step() {
            let from = if std::env::var_os("TIDEGATE_SEED").is_some() {
                0
            } else {
                play.story.len().saturating_sub(4)
            };
            return Err(format!("step {step}: {error}\n{}", play.story[from..].join("\n")));
        }
    }
    play.score.delivered = play.model.delivered;
    Ok(play.score)
}

impl Play {
    fn step(&mut self) -> Result<(), String> {
        let index = self.rng.usize(..self.clients.len());
        match self.clients[index].link {
            _ if self.rng.u8(..16) == 0 => self.time_passes(),
            None => self.come(index),
            Some(at) => self.act(index, at),
        }
        self.score.actions += 1;
        self.settle()
    }

    fn tell(&mut self, who: &str, what: impl std::fmt::Debug) {
        self.story.push(format!("{} {who}: {}", self.world.unix_ms() % 10_000_000, short(&what)));
    }

    /// Everything moves until nothing does, and everybody looks.
    fn settle(&mut self) -> Result<(), String> {
        self.world.run();
        let mut left = Vec::new();
        for (link, number, version) in std::mem::take(&mut self.links) {
            let mut packets = self.world.packets(link, version);
            let client = self.clients.iter_mut().find(|c| c.link.is_some_and(|l| l.1 == number));
            if let Some(client) = client {
                packets.iter_mut().try_for_each(|p| client.aliases.without(p))?;
            } else {
                // the one before of a client that came again: what it is told now says nothing of topics
                packets.retain(|p| !matches!(p, Packet::Publish(p) if p.properties.topic_alias().is_some()));
            }
            let closed = self.world.is_closed(link);
            for packet in &packets {
                self.story.push(format!("    to link {number}: {}", short(packet)));
            }
            self.model.saw(number, &packets, closed).map_err(|e| format!("link {number}: {e}"))?;
            if closed {
                self.world.cut(link, 0);
                if let Some(client) = self.clients.iter_mut().find(|c| c.link.is_some_and(|l| l.1 == number))
                {
                    client.link = None;
                }
            } else {
                left.push((link, number, version));
            }
        }
        self.links = left;
        self.model.check_rest()
    }

    fn time_passes(&mut self) {
        let mut by = [2_000, 9_000, 21_000, 70_000][self.rng.usize(..4)];
        let now = self.world.unix_ms();
        // not to where a second more or less decides, and one thing at a time
        let moments = self.model.moments();
        if let Some(first) = moments.iter().filter(|&&m| m > now).min() {
            by = by.min(first - now + VAGUE_MS + 1);
        }
        while moments.iter().any(|m| m.abs_diff(now + by) <= VAGUE_MS) {
            by += 1_000;
        }
        self.tell("time", by);
        self.world.advance(Duration::from_millis(by));
        let now = self.world.unix_ms();
        self.model.time_is(now);
    }

    // ---- coming ----

    fn open(&mut self, index: usize, version: Version) -> (Link, usize, Version) {
        let worker = self.rng.usize(..self.world.workers.len());
        let number = self.next_link;
        self.next_link += 1;
        let at = (self.world.open(worker), number, version);
        self.links.push(at);
        self.clients[index].link = Some(at);
        self.clients[index].aliases = Aliases::default();
        self.model.opened(number);
        at
    }

    fn come(&mut self, index: usize) {
        let version = [Version::V5, Version::V5, Version::V311, Version::V31][self.rng.usize(..4)];
        if self.rng.u8(..12) == 0 {
            self.come_wrongly(index, version);
            return;
        }
        let at = self.open(index, version);
        let connect = self.connect(index, version);
        self.clients[index].aliases.most = connect.properties.topic_alias_maximum.unwrap_or(0);
        let name = self.clients[index].name.clone();
        self.tell(&name, (at.1, &connect));
        self.model.connect(at.1, &connect, &name);
        self.world.send(at.0, version, &Packet::Connect(Box::new(connect)));
    }

    fn connect(&mut self, index: usize, version: Version) -> Connect<'static> {
        let v5 = version.is_v5();
        let rng = &mut self.rng;
        let expiry = [None, Some(0), Some(30), Some(600), Some(u32::MAX)][rng.usize(..5)];
        let keep_alive = if rng.u8(..4) == 0 { 20 } else { 0 };
        let receive_maximum = rng.bool().then(|| rng.u16(1..5));
        let clean_start = rng.u8(..3) == 0;
        let aliases = rng.u16(..4);
        let has_will = rng.u8(..3) == 0;
        let delay = [None, Some(0), Some(15), Some(100)][rng.usize(..4)];
        let will = has_will.then(|| {
            let topic = self.topic();
            // a will to `$` is refused, which is the broker's own rule
            let topic = if topic.starts_with('$') { "d/e" } else { topic };
            Will {
                topic: topic.into(),
                payload: self.payload(false),
                qos: self.qos(),
                retain: self.rng.u8(..4) == 0,
                delay_interval: delay.filter(|_| v5),
                properties: self.properties(v5),
            }
        });
        Connect {
            version,
            bridge: false,
            clean_start,
            keep_alive,
            client_id: self.clients[index].name.clone().into(),
            will,
            username: self.rng.bool().then(|| "u".into()),
            password: None,
            properties: ConnectProperties {
                session_expiry_interval: expiry.filter(|_| v5),
                receive_maximum: receive_maximum.filter(|_| v5),
                topic_alias_maximum: (v5 && aliases > 0).then_some(aliases),
                ..ConnectProperties::default()
            },
        }
    }

    fn come_wrongly(&mut self, index: usize, version: Version) {
        self.score.illegal += 1;
        match self.rng.u8(..4) {
            0 => {
                // [MQTT-3.1.0-1]
                let at = self.open(index, version);
                self.tell("nobody", "PINGREQ before CONNECT");
                self.world.send(at.0, version, &Packet::Pingreq);
                self.model.illegal(at.1, ReasonCode::ProtocolError);
            }
            1 => {
                // [v3 MQTT-3.1.3-8]
                let at = self.open(index, Version::V311);
                let mut connect = self.connect(index, Version::V311);
                (connect.client_id, connect.clean_start) = ("".into(), false);
                self.tell("nobody", "an empty client id without clean session");
                self.world.send(at.0, Version::V311, &Packet::Connect(Box::new(connect)));
                self.model.refused(at.1, ReasonCode::ClientIdentifierNotValid);
            }
            2 => {
                // [MQTT-3.1.2-1]
                // answered in the form of 3.1.1, the only one that every client can read
                let at = self.open(index, Version::V311);
                self.tell("nobody", "no protocol of ours");
                self.world.write(at.0, b"\x10\x0d\x00\x04MQQT\x04\x02\x00\x00\x00\x01c");
                self.model.refused(at.1, ReasonCode::UnsupportedProtocolVersion);
            }
            _ => {
                let at = self.open(index, version);
                self.tell("nobody", "noise");
                self.world.write(at.0, b"\x00\x01\x02GET / HTTP/1.1\r\n\r\n");
                self.model.illegal(at.1, ReasonCode::MalformedPacket);
            }
        }
    }

    // ---- being here ----

    fn act(&mut self, index: usize, (link, number, version): (Link, usize, Version)) {
        self.model.heard(number);
        let name = self.clients[index].name.clone();
        match self.rng.u8(..100) {
            0..38 => self.publish(&name, link, number, version),
            38..58 => self.acknowledge(&name, link, number, version),
            58..74 => self.subscribe(&name, link, number, version),
            74..80 => self.unsubscribe(&name, link, number, version),
            80..83 => {
                self.tell(&name, "PINGREQ");
                self.model.ping(number);
                self.world.send(link, version, &Packet::Pingreq);
            }
            83..88 => self.goodbye(index, &name, link, number, version),
            88..92 => {
                self.tell(&name, "breaks");
                self.world.cut(link, 0);
                self.links.retain(|l| l.1 != number);
                self.clients[index].link = None;
                self.model.lost(number);
            }
            // another connection of the same client
            92..95 => self.come_again(index, version),
            _ => self.act_wrongly(&name, link, number, version),
        }
    }

    fn come_again(&mut self, index: usize, version: Version) {
        let name = self.clients[index].name.clone();
        let at = self.open(index, version);
        let connect = self.connect(index, version);
        self.clients[index].aliases.most = connect.properties.topic_alias_maximum.unwrap_or(0);
        self.tell(&name, ("again", at.1, &connect));
        self.model.connect(at.1, &connect, &name);
        self.world.send(at.0, version, &Packet::Connect(Box::new(connect)));
    }

    fn topic(&mut self) -> &'static str {
        TOPICS[self.rng.usize(..TOPICS.len())]
    }

    fn qos(&mut self) -> QoS {
        [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce][self.rng.usize(..3)]
    }

    fn payload(&mut self, empty: bool) -> std::borrow::Cow<'static, [u8]> {
        self.next_message += 1;
        let text = if empty { String::new() } else { format!("m{}", self.next_message) };
        text.into_bytes().into()
    }

    fn properties(&mut self, v5: bool) -> PublishProperties<'static> {
        let rng = &mut self.rng;
        if !v5 || rng.bool() {
            return PublishProperties::default();
        }
        let user = ["z", "a", "z"].map(|k| (k.into(), format!("{}", rng.u8(..)).into()));
        PublishProperties {
            payload_format_indicator: rng.bool().then_some(true),
            message_expiry_interval: [None, None, Some(25), Some(3_000)][rng.usize(..4)],
            response_topic: rng.bool().then(|| "answer/here".into()),
            correlation_data: rng.bool().then(|| vec![0, 255, 1].into()),
            user_properties: user.into_iter().take(rng.usize(..4)).collect(),
            content_type: rng.bool().then(|| "text/plain".into()),
            ..PublishProperties::default()
        }
    }

    /// A packet id that this client does not use for anything.
    fn fresh_id(&mut self, number: usize) -> PacketId {
        let used = self.model.unreleased(number);
        loop {
            self.next_id = self.next_id % 60 + 1;
            if let Some(id) = PacketId::new(self.next_id).filter(|id| !used.contains(id)) {
                return id;
            }
        }
    }

    fn publish(&mut self, name: &str, link: Link, number: usize, version: Version) {
        let qos = self.qos();
        let unreleased = self.model.unreleased(number);
        // sent again before it was released: the same message [MQTT-4.3.3-4]
        let again = qos == QoS::ExactlyOnce && !unreleased.is_empty() && self.rng.u8(..4) == 0;
        let id = match qos {
            QoS::AtMostOnce => None,
            _ if again => unreleased.first().copied(),
            _ => Some(self.fresh_id(number)),
        };
        let retain = self.rng.u8(..4) == 0;
        let empty = retain && self.rng.u8(..3) == 0;
        // before version 5 there is no answer for it
        let topic = if version.is_v5() && self.rng.u8(..30) == 0 { "$SYS/mine" } else { self.topic() };
        let publish = Publish {
            dup: again,
            qos,
            retain,
            topic: topic.into(),
            packet_id: id,
            properties: self.properties(version.is_v5()).into(),
            payload: self.payload(empty),
        };
        self.tell(name, &publish);
        self.model.publish(number, &publish);
        let sent = self.with_alias(name, publish, topic, version);
        self.world.send(link, version, &Packet::Publish(sent));
    }

    /// The same message, with its topic said by an alias [MQTT-3.3.2-12].
    fn with_alias(
        &mut self,
        name: &str,
        mut publish: Publish<'static>,
        topic: &'static str,
        version: Version,
    ) -> Publish<'static> {
        if !version.is_v5() || self.rng.bool() {
            return publish;
        }
        let alias = self.rng.u16(1..=ALIASES);
        let Some(client) = self.clients.iter_mut().find(|c| c.name == name) else { return publish };
        if client.aliases.said.insert(alias, topic) == Some(topic) {
            publish.topic = "".into();
        }
        publish.properties.edit(|p| p.topic_alias = Some(alias));
        publish
    }

    fn acknowledge(&mut self, name: &str, link: Link, number: usize, version: Version) {
        let unreleased = self.model.unreleased(number);
        if !unreleased.is_empty() && self.rng.bool() {
            let id = unreleased[self.rng.usize(..unreleased.len())];
            self.tell(name, ("PUBREL", id));
            self.model.pubrel(number, id);
            self.world.send(link, version, &Packet::Pubrel(ack(id, ReasonCode::Success)));
            return;
        }
        let flights = self.model.flights(number);
        if flights.is_empty() || self.rng.u8(..12) == 0 {
            self.acknowledge_nothing(name, link, number, version);
            return;
        }
        let (id, qos, released) = flights[self.rng.usize(..flights.len())];
        match (qos, released) {
            (QoS::ExactlyOnce, true) => {
                self.tell(name, ("PUBCOMP", id));
                self.model.pubcomp(number, id);
                self.world.send(link, version, &Packet::Pubcomp(ack(id, ReasonCode::Success)));
            }
            (QoS::ExactlyOnce, false) => {
                let refuses = version.is_v5() && self.rng.u8(..8) == 0;
                let reason = if refuses { ReasonCode::UnspecifiedError } else { ReasonCode::Success };
                self.tell(name, ("PUBREC", id, reason));
                self.model.pubrec(number, id, reason);
                self.world.send(link, version, &Packet::Pubrec(ack(id, reason)));
            }
            _ => {
                self.tell(name, ("PUBACK", id));
                self.model.puback(number, id);
                self.world.send(link, version, &Packet::Puback(ack(id, ReasonCode::Success)));
            }
        }
    }

    /// Acknowledgements of what was never sent.
    fn acknowledge_nothing(&mut self, name: &str, link: Link, number: usize, version: Version) {
        let Some(id) = PacketId::new(60_000 + self.rng.u16(..100)) else { return };
        self.tell(name, ("acknowledges nothing", id));
        let packet = match self.rng.u8(..4) {
            0 => {
                self.model.puback(number, id);
                Packet::Puback(ack(id, ReasonCode::Success))
            }
            1 => {
                self.model.pubrec(number, id, ReasonCode::Success);
                Packet::Pubrec(ack(id, ReasonCode::Success))
            }
            2 => {
                self.model.pubrel(number, id);
                Packet::Pubrel(ack(id, ReasonCode::Success))
            }
            _ => {
                self.model.pubcomp(number, id);
                Packet::Pubcomp(ack(id, ReasonCode::Success))
            }
        };
        self.world.send(link, version, &packet);
    }

    fn subscribe(&mut self, name: &str, link: Link, number: usize, version: Version) {
        let v5 = version.is_v5();
        let filters = (0..self.rng.usize(1..4))
            .map(|_| {
                let bad = self.rng.u8(..12) == 0;
                let filter = if bad {
                    BAD_FILTERS[self.rng.usize(..BAD_FILTERS.len())]
                } else {
                    FILTERS[self.rng.usize(..FILTERS.len())]
                };
                let qos = self.qos();
                let rng = &mut self.rng;
                let handling = [RetainHandling::Send, RetainHandling::SendIfNew, RetainHandling::DoNotSend];
                let options = SubscriptionOptions {
                    qos,
                    no_local: v5 && rng.u8(..4) == 0,
                    retain_as_published: v5 && rng.bool(),
                    retain_handling: if v5 { handling[rng.usize(..3)] } else { handling[0] },
                };
                SubscribeFilter { filter: filter.into(), options }
            })
            .collect();
        let subscribe = Subscribe {
            packet_id: self.fresh_id(number),
            subscription_identifier: (v5 && self.rng.bool()).then(|| self.rng.u32(1..5)),
            user_properties: Vec::new(),
            filters,
        };
        self.tell(name, &subscribe);
        self.model.subscribe(number, &subscribe);
        self.world.send(link, version, &Packet::Subscribe(subscribe));
    }

    fn unsubscribe(&mut self, name: &str, link: Link, number: usize, version: Version) {
        let mine = self.model.filters(number);
        let filters = (0..self.rng.usize(1..3))
            .map(|_| match mine.is_empty() || self.rng.u8(..4) == 0 {
                true => FILTERS[self.rng.usize(..FILTERS.len())].into(),
                false => mine[self.rng.usize(..mine.len())].clone().into(),
            })
            .collect();
        let packet_id = self.fresh_id(number);
        let unsubscribe = Unsubscribe { packet_id, user_properties: Vec::new(), filters };
        self.tell(name, &unsubscribe);
        self.model.unsubscribe(number, &unsubscribe);
        self.world.send(link, version, &Packet::Unsubscribe(unsubscribe));
    }

    fn goodbye(&mut self, index: usize, name: &str, link: Link, number: usize, version: Version) {
        let with_will = version.is_v5() && self.rng.u8(..4) == 0;
        let expiry = [None, None, Some(0), Some(40), Some(600)][self.rng.usize(..5)];
        let expiry = expiry.filter(|_| version.is_v5());
        let reason = if with_will { ReasonCode::DisconnectWithWill } else { ReasonCode::Success };
        self.tell(name, ("DISCONNECT", with_will, expiry));
        if expiry.is_some_and(|e| e > 0) && self.model.expiry(number) == 0 {
            self.score.illegal += 1;
        }
        let properties = DisconnectProperties { session_expiry_interval: expiry, ..Default::default() };
        let packet = Packet::Disconnect(Disconnect { reason, properties });
        self.world.send(link, version, &packet);
        self.model.goodbye(number, with_will, expiry);
        self.clients[index].link = None;
    }

    /// Things that no client may do.
    fn act_wrongly(&mut self, name: &str, link: Link, number: usize, version: Version) {
        use ReasonCode::{
            MalformedPacket, PacketTooLarge, ProtocolError, TopicAliasInvalid, TopicNameInvalid,
        };
        self.score.illegal += 1;
        let v5 = version.is_v5();
        // remaining length and properties differ
        let publish = |topic: &[u8], first: u8| {
            let mut body = vec![0, u8::try_from(topic.len()).unwrap()];
            body.extend_from_slice(topic);
            if first & 6 != 0 {
                body.extend_from_slice(&[0, 99]);
            }
            if v5 {
                body.push(0);
            }
            let mut bytes = vec![first, u8::try_from(body.len()).unwrap()];
            bytes.extend(body);
            bytes
        };
        let subscribe_nothing: &[u8] = if v5 { b"\x82\x03\x00\x09\x00" } else { b"\x82\x02\x00\x09" };
        let (what, bytes, reason): (_, Vec<u8>, _) = match self.rng.u8(..13) {
            0 => {
                let connect = Packet::Connect(Box::new(self.connect(0, version)));
                let mut bytes = Vec::new();
                mqtt::codec::encode::encode(&connect, version, &mut bytes).unwrap();
                ("a second CONNECT [MQTT-3.1.0-2]", bytes, ProtocolError)
            }
            1 => ("packet type 0", vec![0, 0], MalformedPacket),
            2 => ("QoS 3 [MQTT-3.3.1-4]", publish(b"a", 0x36), MalformedPacket),
            3 => ("a wildcard in a topic [MQTT-3.3.2-2]", publish(b"a/+", 0x30), TopicNameInvalid),
            4 => ("U+0000 in a topic [MQTT-1.5.4-2]", publish(b"a\0b", 0x30), MalformedPacket),
            5 => ("no UTF-8 [MQTT-1.5.4-1]", publish(b"a\xff", 0x30), MalformedPacket),
            6 => ("flags of SUBSCRIBE [MQTT-3.8.1-1]", vec![0x80, 2, 0, 9], MalformedPacket),
            7 => ("SUBSCRIBE to nothing [MQTT-3.8.3-2]", subscribe_nothing.to_vec(), ProtocolError),
            8 => ("a length without end [MQTT-1.5.5-1]", vec![0x30, 255, 255, 255, 255, 1], MalformedPacket),
            // [MQTT-3.3.2-9], 3.3.2.3.4
            9 if v5 => ("alias 4 of 3", b"\x30\x07\x00\x01a\x03\x23\x00\x04".to_vec(), TopicAliasInvalid),
            10 if v5 => ("alias 0", b"\x30\x07\x00\x01a\x03\x23\x00\x00".to_vec(), TopicAliasInvalid),
            11 => ("a packet of 1 MiB", vec![0x30, 0x80, 0x80, 0x40], PacketTooLarge),
            _ => ("PINGRESP from a client", vec![0xd0, 0], ProtocolError),
        };
        self.tell(name, what);
        self.world.write(link, &bytes);
        self.model.illegal(number, reason);
    }
}

/// Without what is not there.
fn short(what: impl std::fmt::Debug) -> String {
    let text = format!("{what:?}");
    let parts =
        text.split(", ").filter(|p| !(p.ends_with("None") || p.ends_with("[]") || p.ends_with("false")));
    parts.collect::<Vec<_>>().join(", ")
}

fn ack(id: PacketId, reason: ReasonCode) -> Ack<'static> {
    Ack { packet_id: id, reason, properties: Default::default() }
}
