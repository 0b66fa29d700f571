//! Packets as a scenario writes them.

use std::time::Duration;

use mqtt::packet::{
    Ack, Connack, Connect, ConnectProperties, Disconnect, Packet, Publish, PublishProperties, Subscribe,
    SubscribeFilter, SubscriptionOptions, Unsubscribe, Will,
};
use mqtt::{PacketId, QoS, ReasonCode, Version};

use crate::config::BrokerConfig;
use crate::sim::world::{Link, World};

pub(super) const NEVER: u32 = u32::MAX;

/// A broker of so many workers.
pub(super) fn world(workers: usize) -> World {
    World::new(1, workers, BrokerConfig::default())
}

pub(super) fn pid(id: u16) -> PacketId {
    PacketId::new(id).unwrap()
}

/// A CONNECT of version 5 whose session outlives it by `expiry` seconds.
pub(super) fn connect(client_id: &str, clean_start: bool, expiry: u32) -> Connect<'static> {
    Connect {
        version: Version::V5,
        bridge: false,
        clean_start,
        keep_alive: 0,
        client_id: client_id.to_owned().into(),
        will: None,
        username: None,
        password: None,
        properties: ConnectProperties {
            session_expiry_interval: (expiry > 0).then_some(expiry),
            ..Default::default()
        },
    }
}

pub(super) fn will(topic: &str, delay: u32) -> Will<'static> {
    Will {
        topic: topic.to_owned().into(),
        payload: b"will".as_slice().into(),
        qos: QoS::AtLeastOnce,
        retain: false,
        delay_interval: Some(delay),
        properties: PublishProperties::default(),
    }
}

pub(super) fn message(topic: &str, qos: QoS, id: u16, payload: &[u8]) -> Publish<'static> {
    Publish {
        dup: false,
        qos,
        retain: false,
        topic: topic.to_owned().into(),
        packet_id: PacketId::new(id),
        properties: PublishProperties::default().into(),
        payload: payload.to_vec().into(),
    }
}

pub(super) fn ack(id: u16) -> Ack<'static> {
    Ack { packet_id: pid(id), reason: ReasonCode::Success, properties: Default::default() }
}

/// A client of a scenario.
#[derive(Clone, Copy)]
pub(super) struct Peer {
    pub(super) link: Link,
    pub(super) version: Version,
}

impl Peer {
    /// Opens a connection and sends CONNECT; nothing has moved yet.
    pub(super) fn begin(world: &mut World, worker: usize, connect: Connect<'static>) -> Self {
        let peer = Self { link: world.open(worker), version: connect.version };
        peer.send(world, Packet::Connect(Box::new(connect)));
        peer
    }

    /// Connects; with the CONNACK.
    pub(super) fn connect(
        world: &mut World,
        worker: usize,
        connect: Connect<'static>,
    ) -> (Self, Connack<'static>) {
        let peer = Self::begin(world, worker, connect);
        world.run();
        match peer.read(world).as_slice() {
            [Packet::Connack(connack)] => (peer, (**connack).clone()),
            other => panic!("{other:?}"),
        }
    }

    /// Connects to worker 0 for a session that ends with the connection.
    pub(super) fn clean(world: &mut World, client_id: &str) -> Self {
        Self::connect(world, 0, connect(client_id, true, 0)).0
    }

    #[allow(clippy::needless_pass_by_value)] // a scenario reads better so
    pub(super) fn send(self, world: &mut World, packet: Packet<'_>) {
        world.send(self.link, self.version, &packet);
    }

    /// Everything the client has got.
    pub(super) fn read(self, world: &mut World) -> Vec<Packet<'static>> {
        world.packets(self.link, self.version)
    }

    /// Sends, and what comes back.
    pub(super) fn ask(self, world: &mut World, packet: Packet<'_>) -> Vec<Packet<'static>> {
        self.send(world, packet);
        world.run();
        self.read(world)
    }

    pub(super) fn subscribe(self, world: &mut World, filter: &str, qos: QoS) -> Vec<Packet<'static>> {
        let options = SubscriptionOptions { qos, ..Default::default() };
        self.ask(world, subscribe(1, &[(filter, options)]))
    }

    pub(super) fn unsubscribe(self, world: &mut World, filter: &str) -> Vec<Packet<'static>> {
        let filters = vec![filter.to_owned().into()];
        self.ask(
            world,
            Packet::Unsubscribe(Unsubscribe { packet_id: pid(2), user_properties: vec![], filters }),
        )
    }

    /// Payloads of all messages it has got.
    pub(super) fn payloads(self, world: &mut World) -> Vec<String> {
        payloads(&self.read(world))
    }

    pub(super) fn disconnect(self, world: &mut World) {
        let goodbye = Disconnect { reason: ReasonCode::Success, properties: Default::default() };
        self.send(world, Packet::Disconnect(goodbye));
        world.run();
        self.cut(world);
    }

    /// The connection breaks.
    pub(super) fn cut(self, world: &mut World) {
        world.cut(self.link, 0);
        world.run();
    }
}

pub(super) fn subscribe(id: u16, filters: &[(&str, SubscriptionOptions)]) -> Packet<'static> {
    Packet::Subscribe(Subscribe {
        packet_id: pid(id),
        subscription_identifier: None,
        user_properties: Vec::new(),
        filters: filters
            .iter()
            .map(|(f, options)| SubscribeFilter { filter: (*f).to_owned().into(), options: *options })
            .collect(),
    })
}

pub(super) fn payloads(packets: &[Packet<'_>]) -> Vec<String> {
    packets
        .iter()
        .filter_map(|p| match p {
            Packet::Publish(p) => Some(String::from_utf8_lossy(&p.payload).into_owned()),
            _ => None,
        })
        .collect()
}

pub(super) fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}
