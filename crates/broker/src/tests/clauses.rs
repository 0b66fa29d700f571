//! Clause by clause, what no other scenario proves: the same exchange in every version that has the rule.

mod connect;
mod publish;
mod qos;
mod session;
mod subscribe;

use mqtt::packet::{Connect, Packet, Publish};
use mqtt::{QoS, Version};

use super::rig::*;
use crate::sim::world::World;

const BOTH: [Version; 2] = [Version::V311, Version::V5];

/// A CONNECT whose session ends with its connection.
fn plain(version: Version, client_id: &str) -> Connect<'static> {
    Connect { version, ..connect(client_id, true, 0) }
}

/// A CONNECT that resumes, and whose session outlives its connection for as long as the version can say.
fn kept(version: Version, client_id: &str) -> Connect<'static> {
    Connect { version, ..connect(client_id, false, if version.is_v5() { NEVER } else { 0 }) }
}

/// Connects to worker 0.
fn join(w: &mut World, connect: Connect<'static>) -> Peer {
    Peer::connect(w, 0, connect).0
}

/// The messages among the packets.
fn messages(packets: &[Packet<'static>]) -> Vec<Publish<'static>> {
    let message = |packet: &Packet<'static>| match packet {
        Packet::Publish(publish) => Some(publish.clone()),
        _ => None,
    };
    packets.iter().filter_map(message).collect()
}

/// Publishes at QoS 1 and takes the acknowledgement.
fn publish(w: &mut World, from: Peer, topic: &str, payload: &str) {
    let answer = from.ask(w, Packet::Publish(message(topic, QoS::AtLeastOnce, 9, payload.as_bytes())));
    assert!(matches!(answer.as_slice(), [Packet::Puback(ack)] if ack.packet_id == pid(9)), "{answer:?}");
}
