//! A client that keeps the specification, does anything it allows, and tells the book what it sees.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use mqtt::codec::Decoded;
use mqtt::codec::decode::{Role, decode};
use mqtt::packet::{
    Connack, Connect, ConnectProperties, Disconnect, DisconnectProperties, Packet, Publish,
    PublishProperties, RetainHandling, Subscribe, SubscribeFilter, SubscriptionOptions, Unsubscribe, Will,
};
use mqtt::{PacketId, QoS, ReasonCode, Version};

use super::book::{Book, MessageId};
use super::shared_book::{GROUPS, qos_of};
use super::world::{Link, World};

const FILTERS: [&str; 9] = ["t/0/a", "t/1/a", "t/+/a", "t/0/#", "t/#", "+/1/b", "r/#", "w/#", "t/2/+"];
const TOPICS: [&str; 9] = ["t/0/a", "t/0/b", "t/1/a", "t/1/b", "t/2/a", "t/2/c", "s/0", "s/1", "s/2"];

/// A QoS 1 or 2 message of ours that is not finished.
struct Out {
    id: PacketId,
    message: MessageId,
    topic: String,
    qos: QoS,
    retain: bool,
    payload: Vec<u8>,
    released: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    Away,
    Connecting,
    Connected,
}

enum Asked {
    Subscribe(Vec<String>),
    Unsubscribe(Vec<String>),
}

/// See the module.
pub(super) struct Client {
    index: usize,
    name: String,
    /// Subscribes with this QoS at most.
    most: QoS,
    /// Mostly to shared subscriptions.
    shares: bool,
    version: Version,
    /// It wants a session that outlives connections, of so many seconds.
    expiry: u32,
    link: Option<Link>,
    phase: Phase,
    input: Vec<u8>,
    connection: u32,
    // of the session
    out: VecDeque<Out>,
    asked: BTreeMap<PacketId, Asked>,
    unreleased: BTreeSet<PacketId>,
    next_id: PacketId,
    has_session: bool,
    uncertain: bool,
    left_at: u64,
    // of the connection
    clean_start: bool,
    discarded: bool,
    /// The session will end with this connection.
    last: bool,
    answers: VecDeque<Packet<'static>>,
    open: BTreeSet<PacketId>,
    receive_maximum: u16,
    max_packet: Option<u32>,
    server_receive_maximum: usize,
    wait_puback: VecDeque<PacketId>,
    wait_pubrec: VecDeque<PacketId>,
    wait_pubcomp: VecDeque<PacketId>,
    told_goodbye: bool,
}

impl Client {
    pub(super) fn new(index: usize, most: QoS, shares: bool, rng: &mut fastrand::Rng) -> Self {
        let expiry = match rng.u8(..6) {
            0 | 1 => 0,
            2 => 20,
            _ => u32::MAX,
        };
        let version = match (expiry, rng.u8(..4)) {
            (20, _) => Version::V5,
            (_, 0) => Version::V311,
            // its CONNACK does not tell whether a session is present
            (0, 1) => Version::V31,
            _ => Version::V5,
        };
        Self {
            index,
            name: format!("c{index}"),
            most,
            shares,
            version,
            expiry,
            link: None,
            phase: Phase::Away,
            input: Vec::new(),
            connection: 0,
            out: VecDeque::new(),
            asked: BTreeMap::new(),
            unreleased: BTreeSet::new(),
            next_id: PacketId::MIN,
            has_session: false,
            uncertain: false,
            left_at: 0,
            clean_start: false,
            discarded: false,
            last: false,
            answers: VecDeque::new(),
            open: BTreeSet::new(),
            receive_maximum: u16::MAX,
            max_packet: None,
            server_receive_maximum: usize::from(u16::MAX),
            wait_puback: VecDeque::new(),
            wait_pubrec: VecDeque::new(),
            wait_pubcomp: VecDeque::new(),
            told_goodbye: false,
        }
    }

    pub(super) fn is_away(&self) -> bool {
        self.phase == Phase::Away
    }

    pub(super) fn is_connected(&self) -> bool {
        self.phase == Phase::Connected
    }

    pub(super) fn link(&self) -> Option<Link> {
        self.link
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// What it still waits for, in words; `None`: nothing.
    pub(super) fn waits_for(&self) -> Option<String> {
        let (out, asked) = (self.out.len(), self.asked.len());
        (out + asked > 0 || self.phase == Phase::Connecting).then(|| {
            format!("{} in {:?} waits for {out} messages and {asked} answers", self.name, self.phase)
        })
    }

    fn send(&self, world: &mut World, packet: &Packet<'_>) {
        if let Some(link) = self.link {
            world.send(link, self.version, packet);
        }
    }

    fn fresh_id(&mut self) -> PacketId {
        loop {
            let id = self.next_id;
            self.next_id = if id.get() == 40 { PacketId::MIN } else { id.next() };
            if !self.out.iter().any(|o| o.id == id) && !self.asked.contains_key(&id) {
                return id;
            }
        }
    }

    // ---- connections ----

    /// Connects, whether or not it is connected already. `calm`: nothing that could end the session.
    pub(super) fn connect(&mut self, world: &mut World, book: &mut Book, calm: bool) {
        self.lost(world, book);
        let worker = world.rng.usize(..world.workers.len());
        let link = world.open(worker);
        self.link = Some(link);
        self.connection += 1;
        self.phase = Phase::Connecting;
        // whoever has discarded its own half of a session asks for a clean start until it has been answered
        let age = world.unix_ms().saturating_sub(self.left_at);
        let old = self.expiry != u32::MAX && age + 2_000 >= u64::from(self.expiry) * 1_000;
        self.discarded |= old || (!calm && world.rng.u8(..12) == 0);
        self.clean_start = self.discarded;
        if self.clean_start {
            self.out.clear();
            self.unreleased.clear();
        }
        self.last = self.expiry == 0 || (!calm && self.version.is_v5() && world.rng.u8(..16) == 0);
        // versions before 5 end a clean session with its connection
        self.last |= !self.version.is_v5() && self.clean_start;
        if self.clean_start || self.last {
            self.uncertain = true;
            book.session_is_uncertain(self.index);
        }
        self.receive_maximum = if self.version.is_v5() { world.rng.u16(1..6) } else { u16::MAX };
        self.max_packet = (self.version.is_v5() && world.rng.u8(..8) == 0).then_some(600);
        let will = (!calm && world.rng.bool()).then(|| Will {
            topic: format!("w/{}", self.index).into(),
            payload: b"will".as_slice().into(),
            qos: QoS::AtLeastOnce,
            retain: false,
            delay_interval: self.version.is_v5().then(|| world.rng.u32(..5)),
            properties: PublishProperties::default(),
        });
        let properties = ConnectProperties {
            session_expiry_interval: (self.version.is_v5() && !self.last).then_some(self.expiry),
            receive_maximum: self.version.is_v5().then_some(self.receive_maximum),
            maximum_packet_size: self.max_packet,
            ..Default::default()
        };
        let connect = Connect {
            version: self.version,
            bridge: false,
            clean_start: self.clean_start,
            keep_alive: world.rng.u16(2..6),
            client_id: self.name.clone().into(),
            will,
            username: None,
            password: None,
            properties,
        };
        self.send(world, &Packet::Connect(Box::new(connect)));
    }

    /// Its connection is gone.
    fn lost(&mut self, world: &mut World, book: &mut Book) {
        if self.phase == Phase::Away {
            return;
        }
        if let Some(link) = self.link.filter(|_| self.phase == Phase::Connecting) {
            // no network delivers a CONNECT after that of a later connection here
            world.forget_unread(link);
        }
        if self.last {
            self.uncertain = true;
            self.discarded = true;
            book.session_is_uncertain(self.index);
        }
        self.left_at = world.unix_ms();
        self.phase = Phase::Away;
        self.link = None;
        self.input.clear();
        self.answers.clear();
        self.open.clear();
        self.asked.clear();
        self.wait_puback.clear();
        self.wait_pubrec.clear();
        self.wait_pubcomp.clear();
        self.told_goodbye = false;
    }

    /// Breaks its connection at any byte, or lets the network do it so that nobody is told.
    pub(super) fn cut(&mut self, world: &mut World, book: &mut Book) {
        let Some(link) = self.link else { return };
        if world.rng.u8(..5) == 0 {
            world.swallow(link);
        } else {
            let kept = world.rng.usize(0..=world.unread(link));
            world.cut(link, kept);
        }
        self.lost(world, book);
    }

    /// Says good-bye.
    pub(super) fn disconnect(&mut self, world: &mut World, book: &mut Book, calm: bool) {
        let Some(link) = self.link.filter(|_| self.phase == Phase::Connected) else { return };
        let mut properties = DisconnectProperties::default();
        if !calm && self.version.is_v5() && !self.last && world.rng.u8(..8) == 0 {
            properties.session_expiry_interval = Some(0);
            self.uncertain = true;
            self.discarded = true;
            book.session_is_uncertain(self.index);
        }
        let with_will = self.version.is_v5() && world.rng.bool();
        let reason = if with_will { ReasonCode::DisconnectWithWill } else { ReasonCode::Success };
        self.send(world, &Packet::Disconnect(Disconnect { reason, properties }));
        let all = world.unread(link);
        world.cut(link, all);
        self.lost(world, book);
    }

    /// Ends its session for good.
    pub(super) fn clean_up(&mut self, world: &mut World, book: &mut Book) {
        self.expiry = 0;
        self.connect(world, book, true);
    }

    /// The operator removes the client, or the broker died.
    pub(super) fn session_may_end(&mut self, book: &mut Book) {
        // a CONNACK that is on its way was sent before
        self.last = true;
        self.uncertain = true;
        self.discarded = true;
        book.session_is_uncertain(self.index);
    }

    pub(super) fn broker_died(&mut self, world: &mut World, book: &mut Book) {
        self.lost(world, book);
    }

    // ---- what it does ----

    pub(super) fn publish(&mut self, world: &mut World, book: &mut Book) {
        if self.phase != Phase::Connected {
            return;
        }
        let qos = QoS::from_u8(world.rng.u8(..3)).unwrap();
        let retain = world.rng.u8(..4) == 0;
        let unfinished = self.out.len();
        if qos > QoS::AtMostOnce && unfinished >= self.server_receive_maximum.min(20) {
            return;
        }
        let clears = retain && world.rng.u8(..4) == 0;
        let topic = if retain {
            format!("r/{}/{}", self.index, qos as u8)
        } else {
            let plain = if self.shares { 5 } else { 0 };
            world.rng.choice(&TOPICS[plain..]).unwrap().to_string()
        };
        let message = book.publish(self.index, self.connection, &topic, qos, retain.then_some(clears));
        let mut payload = Vec::new();
        if !clears {
            payload.extend_from_slice(&message.to_be_bytes());
            let padding = if world.rng.u8(..10) == 0 { 400 } else { world.rng.usize(..60) };
            payload.resize(8 + padding, 7);
        }
        if qos == QoS::AtMostOnce {
            self.send(world, &publish(&topic, qos, retain, &payload, None, false));
            return;
        }
        let id = self.fresh_id();
        self.send(world, &publish(&topic, qos, retain, &payload, Some(id), false));
        self.waits_ack(id, qos);
        self.out.push_back(Out { id, message, topic, qos, retain, payload, released: false });
    }

    fn waits_ack(&mut self, id: PacketId, qos: QoS) {
        if qos == QoS::AtLeastOnce {
            self.wait_puback.push_back(id);
        } else {
            self.wait_pubrec.push_back(id);
        }
    }

    pub(super) fn subscribe(&mut self, world: &mut World, book: &mut Book) {
        let filters = self.some_filters(world);
        if filters.is_empty() {
            return;
        }
        let packet_id = self.fresh_id();
        let identifier = self.identifier(filters[0]);
        let mut wanted = Vec::new();
        for filter in &filters {
            if self.identifier(filter) != identifier {
                continue;
            }
            let options = self.options(filter);
            book.subscribing(self.index, filter, options, identifier.unwrap_or(0));
            wanted.push(SubscribeFilter { filter: (*filter).into(), options });
        }
        let names = wanted.iter().map(|w| w.filter.to_string()).collect();
        self.asked.insert(packet_id, Asked::Subscribe(names));
        let subscribe = Subscribe {
            packet_id,
            subscription_identifier: identifier,
            user_properties: Vec::new(),
            filters: wanted,
        };
        self.send(world, &Packet::Subscribe(subscribe));
    }

    /// Some that no answer is waited for.
    fn some_filters(&self, world: &mut World) -> Vec<&'static str> {
        if self.phase != Phase::Connected {
            return Vec::new();
        }
        let count = world.rng.usize(1..3);
        let plain = FILTERS.into_iter().filter(|_| !self.shares || world.rng.u8(..8) == 0);
        let offered: Vec<&str> = plain.chain(GROUPS).collect();
        let mut filters = world.rng.choose_multiple(offered, count);
        filters.retain(|filter| {
            !self.asked.values().any(|asked| match asked {
                Asked::Subscribe(f) | Asked::Unsubscribe(f) => f.iter().any(|f| f == filter),
            })
        });
        filters
    }

    fn number(&self, filter: &str) -> u64 {
        xxhash_rust::xxh3::xxh3_64_with_seed(filter.as_bytes(), self.index as u64)
    }

    /// Always the same for a filter, so that the book need not ask when a change took effect.
    fn options(&self, filter: &str) -> SubscriptionOptions {
        let n = self.number(filter);
        let shared = qos_of(filter, n, self.most);
        let qos =
            shared.unwrap_or_else(|| QoS::from_u8(u8::try_from(n % 3).unwrap()).unwrap().min(self.most));
        if !self.version.is_v5() {
            return SubscriptionOptions { qos, ..Default::default() };
        }
        SubscriptionOptions {
            qos,
            // not for what is shared [MQTT-3.8.3-4]
            no_local: n & 0x100 != 0 && shared.is_none(),
            retain_as_published: n & 0x200 != 0,
            retain_handling: match n >> 16 & 3 {
                0 | 1 => RetainHandling::Send,
                2 => RetainHandling::SendIfNew,
                _ => RetainHandling::DoNotSend,
            },
        }
    }

    fn identifier(&self, filter: &str) -> Option<u32> {
        let n = self.number(filter) >> 32;
        (self.version.is_v5() && !n.is_multiple_of(3)).then(|| u32::try_from(n % 200).unwrap() + 1)
    }

    pub(super) fn unsubscribe(&mut self, world: &mut World, book: &mut Book) {
        let filters = self.some_filters(world);
        if filters.is_empty() {
            return;
        }
        let packet_id = self.fresh_id();
        for filter in &filters {
            book.unsubscribing(self.index, filter);
        }
        let names = filters.iter().map(|f| (*f).to_owned()).collect();
        self.asked.insert(packet_id, Asked::Unsubscribe(names));
        let filters = filters.iter().map(|f| (*f).into()).collect();
        self.send(
            world,
            &Packet::Unsubscribe(Unsubscribe { packet_id, user_properties: Vec::new(), filters }),
        );
    }

    pub(super) fn ping(&self, world: &mut World) {
        if self.phase == Phase::Connected {
            self.send(world, &Packet::Pingreq);
        }
    }

    /// Sends some of the acknowledgements that it owes.
    pub(super) fn answer(&mut self, world: &mut World, most: usize) {
        for _ in 0..most {
            let Some(packet) = self.answers.pop_front() else { return };
            match &packet {
                Packet::Puback(ack) | Packet::Pubcomp(ack) => drop(self.open.remove(&ack.packet_id)),
                _ => {}
            }
            self.send(world, &packet);
        }
    }

    // ---- what it hears ----

    /// Reads what has come. An error is a breach of the specification by the broker.
    pub(super) fn read(&mut self, world: &mut World, book: &mut Book, faults: bool) -> Result<bool, String> {
        let Some(link) = self.link else { return Ok(false) };
        let (bytes, eof) = world.read(link);
        let any = !bytes.is_empty() || eof;
        self.input.extend(bytes);
        let input = std::mem::take(&mut self.input);
        let mut rest = input.as_slice();
        while !rest.is_empty() && self.phase != Phase::Away {
            match decode(rest, self.version, Role::Server, u32::MAX) {
                Ok(Decoded::Packet(packet, used)) => {
                    if self.max_packet.is_some_and(|max| used > max as usize) {
                        return Err(format!("{} of {used} bytes [MQTT-3.1.2-24]", packet.name()));
                    }
                    rest = &rest[used..];
                    self.packet(world, book, packet, faults)
                        .map_err(|e| format!("{} ({:?}): {e}", self.name, self.version))?;
                }
                Ok(Decoded::Incomplete(_)) => break,
                Err(error) => return Err(format!("{} cannot read: {error}", self.name)),
            }
        }
        if self.phase != Phase::Away {
            self.input = rest.to_vec();
            if eof {
                self.lost(world, book);
                world.cut(link, 0);
            }
        }
        Ok(any)
    }

    fn packet(
        &mut self,
        world: &mut World,
        book: &mut Book,
        packet: Packet<'_>,
        faults: bool,
    ) -> Result<(), String> {
        if self.told_goodbye {
            return Err(format!("{} after DISCONNECT [MQTT-3.14.4-1]", packet.name()));
        }
        if let Packet::Connack(connack) = &packet {
            return self.connack(world, book, connack, faults);
        }
        if self.phase != Phase::Connected {
            return Err(format!("{} before CONNACK [MQTT-3.2.0-1]", packet.name()));
        }
        match packet {
            Packet::Publish(publish) => self.publish_came(world, book, &publish)?,
            Packet::Puback(ack) => {
                self.in_order(ack.packet_id, "PUBACK", |c| &mut c.wait_puback)?;
                self.finish(book, ack.packet_id, ack.reason, faults)?;
            }
            Packet::Pubrec(ack) => {
                self.in_order(ack.packet_id, "PUBREC", |c| &mut c.wait_pubrec)?;
                if ack.reason.is_error() {
                    self.finish(book, ack.packet_id, ack.reason, faults)?;
                } else {
                    self.release(world, ack.packet_id)?;
                }
            }
            Packet::Pubcomp(ack) => {
                self.in_order(ack.packet_id, "PUBCOMP", |c| &mut c.wait_pubcomp)?;
                if !matches!(ack.reason, ReasonCode::Success | ReasonCode::PacketIdentifierNotFound) {
                    return Err(format!("PUBCOMP with {:?} [3.7.2.1]", ack.reason));
                }
                if let Some(at) = self.out.iter().position(|o| o.id == ack.packet_id) {
                    taken(book, &self.out.remove(at).unwrap());
                }
            }
            Packet::Pubrel(ack) => {
                self.unreleased.remove(&ack.packet_id);
                self.answers.push_back(Packet::Pubcomp(plain_ack(ack.packet_id)));
            }
            Packet::Suback(suback) => match self.asked.remove(&suback.packet_id) {
                Some(Asked::Subscribe(filters)) if filters.len() == suback.reasons.len() => {
                    for (filter, reason) in filters.iter().zip(&suback.reasons) {
                        if reason.is_error() && !faults {
                            return Err(format!("SUBACK says {reason:?} for {filter}"));
                        }
                        book.subscribed(self.index, filter, !reason.is_error());
                    }
                }
                _ => return Err("a SUBACK for no SUBSCRIBE [MQTT-3.8.4-2]".to_owned()),
            },
            Packet::Unsuback(unsuback) => match self.asked.remove(&unsuback.packet_id) {
                Some(Asked::Unsubscribe(filters)) => {
                    for filter in &filters {
                        book.unsubscribed(self.index, filter);
                    }
                }
                _ => return Err("an UNSUBACK for no UNSUBSCRIBE [MQTT-3.10.4-4]".to_owned()),
            },
            Packet::Pingresp => {}
            Packet::Disconnect(disconnect) => {
                self.told_goodbye = true;
                let expected = matches!(
                    disconnect.reason,
                    ReasonCode::SessionTakenOver
                        | ReasonCode::KeepAliveTimeout
                        | ReasonCode::AdministrativeAction
                );
                if !expected && !faults {
                    return Err(format!("DISCONNECT says {:?}", disconnect.reason));
                }
            }
            other => return Err(format!("{} from a server", other.name())),
        }
        Ok(())
    }

    fn in_order(
        &mut self,
        id: PacketId,
        name: &str,
        waiting: impl FnOnce(&mut Self) -> &mut VecDeque<PacketId>,
    ) -> Result<(), String> {
        match waiting(self).pop_front() {
            Some(expected) if expected == id => Ok(()),
            other => Err(format!("{name} for {id}, {other:?} is next [MQTT-4.6.0-2]")),
        }
    }

    fn finish(
        &mut self,
        book: &mut Book,
        id: PacketId,
        reason: ReasonCode,
        faults: bool,
    ) -> Result<(), String> {
        let Some(at) = self.out.iter().position(|o| o.id == id) else { return Ok(()) };
        let out = self.out.remove(at).unwrap();
        if !reason.is_error() {
            taken(book, &out);
        } else if !faults {
            return Err(format!("refused with {reason:?}"));
        }
        Ok(())
    }

    fn release(&mut self, world: &mut World, id: PacketId) -> Result<(), String> {
        let Some(out) = self.out.iter_mut().find(|o| o.id == id) else {
            return Err(format!("PUBREC for {id}"));
        };
        out.released = true;
        self.wait_pubcomp.push_back(id);
        self.send(world, &Packet::Pubrel(plain_ack(id)));
        Ok(())
    }

    fn publish_came(&mut self, world: &World, book: &mut Book, publish: &Publish<'_>) -> Result<(), String> {
        let Some(link) = self.link else { return Ok(()) };
        if let Some(id) = publish.packet_id {
            if !publish.dup && self.open.contains(&id) {
                return Err(format!("packet id {id} is in use [MQTT-2.2.1-4]"));
            }
            self.open.insert(id);
            if self.open.len() > usize::from(self.receive_maximum) {
                return Err(format!(
                    "{} messages under way, Receive Maximum is {} [MQTT-3.3.4-9]",
                    self.open.len(),
                    self.receive_maximum
                ));
            }
            if publish.qos == QoS::AtLeastOnce {
                self.answers.push_back(Packet::Puback(plain_ack(id)));
            } else {
                self.answers.push_back(Packet::Pubrec(plain_ack(id)));
                if !self.unreleased.insert(id) {
                    // handed on before [MQTT-4.3.3-10]
                    return if publish.dup {
                        Ok(())
                    } else {
                        Err(format!("QoS 2 id {id} again without DUP"))
                    };
                }
            }
        }
        book.received(self.index, link, publish, self.version.is_v5(), |link| world.is_served(link))
    }

    fn connack(
        &mut self,
        world: &mut World,
        book: &mut Book,
        connack: &Connack<'_>,
        faults: bool,
    ) -> Result<(), String> {
        if self.phase != Phase::Connecting {
            return Err("a second CONNACK".to_owned());
        }
        if connack.reason != ReasonCode::Success {
            self.told_goodbye = true;
            return if faults { Ok(()) } else { Err(format!("CONNACK says {:?}", connack.reason)) };
        }
        self.phase = Phase::Connected;
        let age = world.unix_ms().saturating_sub(self.left_at);
        let expired = self.expiry != u32::MAX && age + 2_000 >= u64::from(self.expiry) * 1_000;
        if connack.session_present && self.clean_start {
            return Err("a session is present after a clean start [MQTT-3.2.2-2]".to_owned());
        }
        if !connack.session_present {
            if self.has_session && !self.clean_start && !self.uncertain && !expired {
                return Err("the session is gone [MQTT-3.1.2-5]".to_owned());
            }
            book.session_is_new(self.index);
            self.out.clear();
            self.unreleased.clear();
        } else if self.expiry == 0 {
            return Err("a session that never was [MQTT-3.2.2-3]".to_owned());
        }
        self.has_session = true;
        self.uncertain = false;
        self.discarded = false;
        book.subscribers[self.index].kept = !self.last;
        self.server_receive_maximum = usize::from(connack.properties.receive_maximum.unwrap_or(u16::MAX));
        self.resend(world, book);
        Ok(())
    }

    fn resend(&mut self, world: &mut World, book: &mut Book) {
        let mut packets = Vec::new();
        for out in &self.out {
            if out.released {
                packets.push((Packet::Pubrel(plain_ack(out.id)), None));
            } else {
                book.sent_again(out.message);
                let packet = publish(&out.topic, out.qos, out.retain, &out.payload, Some(out.id), true);
                packets.push((packet, Some(out.qos)));
            }
        }
        let ids: Vec<PacketId> = self.out.iter().map(|o| o.id).collect();
        for ((packet, qos), id) in packets.into_iter().zip(ids) {
            self.send(world, &packet);
            match qos {
                Some(qos) => self.waits_ack(id, qos),
                None => self.wait_pubcomp.push_back(id),
            }
        }
    }
}

/// The message is the broker's for good.
fn taken(book: &mut Book, out: &Out) {
    if out.payload.is_empty() {
        book.cleared(out.message);
    } else {
        book.acked(out.message);
    }
}

fn plain_ack(packet_id: PacketId) -> mqtt::packet::Ack<'static> {
    mqtt::packet::Ack { packet_id, reason: ReasonCode::Success, properties: Default::default() }
}

fn publish(
    topic: &str,
    qos: QoS,
    retain: bool,
    payload: &[u8],
    packet_id: Option<PacketId>,
    dup: bool,
) -> Packet<'static> {
    Packet::Publish(Publish {
        dup,
        qos,
        retain,
        topic: topic.to_owned().into(),
        packet_id,
        properties: PublishProperties::default().into(),
        payload: payload.to_vec().into(),
    })
}
