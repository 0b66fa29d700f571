//! A broker without sockets, and how clients come to it.

use std::sync::Arc;

use broker::bench::{Bench, Device};
use broker::config::BrokerConfig;
use engine::Engine;
use engine::memory::{MemoryConfig, MemoryEngine};
use mqtt::Version;
use mqtt::codec::Decoded;
use mqtt::codec::decode::{Role, decode};
use mqtt::packet::{Connect, Packet};
use runtime::clock::Clock;

use crate::packets;

/// A broker as it is configured by default, with so many workers, over an engine that knows nothing.
pub(crate) fn broker(workers: usize) -> Bench {
    let engine: Arc<dyn Engine> = MemoryEngine::new(MemoryConfig::default(), || Clock::system().now());
    Bench::new(BrokerConfig::default(), workers, &engine).expect("an empty engine answers")
}

/// A CONNECT for a session that ends with its connection.
pub(crate) fn hello(client_id: &str, version: Version) -> Connect<'_> {
    Connect { version, ..packets::connect(client_id) }
}

/// A client that is connected to this worker.
pub(crate) fn connect(bench: &mut Bench, worker: usize, hello: &Connect<'_>) -> Device {
    let device = bench.open(worker);
    let packet = packets::bytes(&Packet::Connect(Box::new(hello.clone())), hello.version);
    let answer = ask(bench, device, &packet, hello.version);
    assert!(matches!(answer, Packet::Connack(connack) if !connack.reason.is_error()));
    device
}

/// What the broker answers; it may have to ask its engine first.
pub(crate) fn ask(bench: &mut Bench, device: Device, bytes: &[u8], version: Version) -> Packet<'static> {
    bench.received(device, bytes);
    let mut answer = Vec::new();
    loop {
        bench.end_turn(&mut |to, bytes| {
            if to == device {
                answer.extend_from_slice(bytes);
            }
        });
        if let Ok(Decoded::Packet(packet, _)) = decode(&answer, version, Role::Server, u32::MAX) {
            return packet.into_owned();
        }
        assert!(bench.is_waiting() && bench.wait(), "an answer comes");
    }
}
