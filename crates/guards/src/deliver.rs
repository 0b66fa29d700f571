//! The broker's worker: bytes of one client in, bytes to others out, acknowledgements and all.
//!
//! The clients here answer as the specification asks. What they do is not counted, and neither are system calls: a row is
//! what the broker itself spends between one read and the writes that follow from it.

use std::mem::take;

use broker::bench::{Bench, Device};
use mqtt::codec::Decoded;
use mqtt::codec::decode::{Role, decode};
use mqtt::packet::{Packet, PublishProperties};
use mqtt::{QoS, Version};

use crate::meter::{OPERATIONS, Row, counted};
use crate::{clients, packets};

/// An operation is one message of the publisher, with all that follows from it.
pub(crate) const ROWS: &[Row] = &[
    Row { name: "deliver/q0_to_nobody", run: || play(&Case { receivers: 0, ..Q0 }) },
    Row { name: "deliver/q0_to_1", run: || play(&Q0) },
    Row { name: "deliver/q0_to_10", run: || play(&Case { receivers: 10, ..Q0 }) },
    Row { name: "deliver/q0_to_100", run: || play(&Case { receivers: 100, ..Q0 }) },
    Row { name: "deliver/q0_to_1_batch", run: || play(&Case { batch: 100, ..Q0 }) },
    Row { name: "deliver/q0_to_1_batch_of_one_topic", run: || play(&Case { batch: 100, topics: 1, ..Q0 }) },
    Row { name: "deliver/q0_to_10_batch", run: || play(&Case { receivers: 10, batch: 100, ..Q0 }) },
    Row {
        name: "deliver/q0_to_100_batch_of_one_topic",
        run: || play(&Case { receivers: 100, batch: 40, topics: 1, ..Q0 }),
    },
    Row { name: "deliver/q0_4k_to_10", run: || play(&Case { receivers: 10, payload: 4_096, ..Q0 }) },
    Row {
        name: "deliver/q0_v5_properties_to_10",
        run: || play(&Case { receivers: 10, version: Version::V5, properties: packets::properties, ..Q0 }),
    },
    Row {
        name: "deliver/q0_v5_3_properties_to_1_batch",
        run: || play(&Case { version: Version::V5, properties: packets::telemetry, batch: 100, ..Q0 }),
    },
    Row { name: "deliver/q0_shared_by_3", run: || play(&Case { members: 3, receivers: 0, ..Q0 }) },
    Row { name: "deliver/handover_batch", run: || play(&Case { workers: 2, batch: 100, ..Q0 }) },
    Row { name: "deliver/q1_to_1", run: || play(&Q1) },
    Row { name: "deliver/q1_to_1_batch", run: || play(&Case { batch: 20, ..Q1 }) },
    Row { name: "deliver/q1_to_10", run: || play(&Case { receivers: 10, ..Q1 }) },
    Row {
        name: "deliver/q1_v5_properties_to_1",
        run: || play(&Case { version: Version::V5, properties: packets::properties, ..Q1 }),
    },
    Row {
        name: "deliver/q1_v5_3_properties_to_1_batch",
        run: || play(&Case { version: Version::V5, properties: packets::telemetry, batch: 20, ..Q1 }),
    },
    Row {
        name: "deliver/q1_durable_to_1_batch",
        run: || {
            play(&Case {
                version: Version::V5,
                properties: packets::properties,
                durable: true,
                batch: 20,
                ..Q1
            })
        },
    },
    Row { name: "deliver/q2_to_1", run: || play(&Q2) },
    Row { name: "deliver/q2_to_1_batch", run: || play(&Case { batch: 20, ..Q2 }) },
    Row { name: "deliver/q2_to_10", run: || play(&Case { receivers: 10, ..Q2 }) },
];

/// Turns before counting.
const WARM_UP: usize = 50;

struct Case {
    /// Of publisher and subscribers.
    version: Version,
    /// Of the messages; version 5 only.
    properties: fn() -> PublishProperties<'static>,
    qos: QoS,
    /// Of the broker; the receivers are the last one's, the publisher is the first one's.
    workers: usize,
    /// Who subscribes to the topics of all messages.
    receivers: usize,
    /// Who does as one group.
    members: usize,
    /// Whether the sessions of the receivers outlive their connections: messages then come by the log. Version 5 only.
    durable: bool,
    /// Topics that the publisher uses in turns.
    topics: usize,
    /// Messages that come in one read.
    batch: usize,
    /// Bytes.
    payload: usize,
}

/// Version 3.1.1, one receiver.
const Q0: Case = Case {
    version: Version::V311,
    properties: PublishProperties::default,
    qos: QoS::AtMostOnce,
    workers: 1,
    receivers: 1,
    members: 0,
    durable: false,
    topics: 25,
    batch: 1,
    payload: packets::PAYLOAD,
};
const Q1: Case = Case { qos: QoS::AtLeastOnce, ..Q0 };
const Q2: Case = Case { qos: QoS::ExactlyOnce, ..Q0 };

fn play(case: &Case) -> u64 {
    let mut scene = Scene::new(case);
    let turns = OPERATIONS as usize / case.batch;
    scene.watched = true;
    // each topic once and more before it counts: routes are remembered, buffers have grown
    for turn in 0..WARM_UP {
        scene.turn(case, turn, false);
    }
    scene.judge(case, WARM_UP * case.batch);
    // what is sent with QoS 0 needs no answer: its bytes are counted and not looked at
    scene.watched = case.qos > QoS::AtMostOnce;
    scene.sent = 0;
    for turn in 0..turns {
        scene.turn(case, turn, true);
    }
    if scene.watched {
        scene.judge(case, turns * case.batch);
    } else {
        scene.judge_bytes(case, turns * case.batch);
    }
    (turns * case.batch) as u64
}

/// A broker with its clients.
struct Scene {
    bench: Bench,
    publisher: Device,
    version: Version,
    topics: Vec<String>,
    next_id: u16,
    /// Whether the clients read what they are sent.
    watched: bool,
    written: Written,
    delivered: usize,
    /// Bytes to all clients.
    sent: usize,
    /// PUBACK and PUBCOMP to the publisher.
    acknowledged: usize,
}

/// What the broker wrote in a turn.
#[derive(Default)]
struct Written {
    bytes: Vec<u8>,
    /// Whose, and how many of them.
    parts: Vec<(Device, usize)>,
}

impl Scene {
    fn new(case: &Case) -> Self {
        let mut bench = clients::broker(case.workers);
        let publisher = clients::connect(&mut bench, 0, &clients::hello("publisher", case.version));
        for n in 0..case.receivers + case.members {
            let client_id = format!("receiver-{n:03}");
            let mut hello = clients::hello(&client_id, case.version);
            hello.properties.session_expiry_interval = case.durable.then_some(3_600);
            let device = clients::connect(&mut bench, case.workers - 1, &hello);
            let plain = "fleet/berlin/+/telemetry/#";
            let shared = format!("$share/group/{plain}");
            let filter = if n < case.receivers { plain } else { &shared };
            let subscribe = packets::bytes(&packets::subscribe(&[filter], case.qos), case.version);
            let answer = clients::ask(&mut bench, device, &subscribe, case.version);
            assert!(matches!(answer, Packet::Suback(suback) if !suback.reasons.iter().any(|r| r.is_error())));
        }
        Self {
            bench,
            publisher,
            version: case.version,
            topics: (0..case.topics).map(packets::topic).collect(),
            next_id: 0,
            watched: true,
            written: Written { bytes: Vec::with_capacity(1 << 20), parts: Vec::with_capacity(1 << 10) },
            delivered: 0,
            sent: 0,
            acknowledged: 0,
        }
    }

    /// The publisher's message of that number, under the packet id of now.
    fn message(&self, case: &Case, number: usize) -> Vec<u8> {
        let topic = self.topics.get(number % case.topics).map_or("", String::as_str);
        let packet = packets::publish(topic, case.qos, self.next_id, case.payload);
        packets::bytes(&packets::with(packet, (case.properties)()), case.version)
    }

    /// The publisher sends a batch, and everybody answers until nothing is left to say.
    fn turn(&mut self, case: &Case, turn: usize, count: bool) {
        let mut sent = Vec::new();
        for n in 0..case.batch {
            self.next_id = self.next_id % 60_000 + 1;
            sent.extend(self.message(case, turn * case.batch + n));
        }
        let mut reads = vec![(self.publisher, sent)];
        while !reads.is_empty() || self.bench.is_waiting() {
            // where the engine was asked, its answer is there before counting goes on
            assert!(self.bench.wait(), "the engine answers");
            if count {
                counted(|| self.exchange(&reads));
            } else {
                self.exchange(&reads);
            }
            reads = self.answers();
        }
    }

    /// A turn of the broker: these reads, then the writes that follow from them.
    fn exchange(&mut self, reads: &[(Device, Vec<u8>)]) {
        for (device, bytes) in reads {
            self.bench.received(*device, bytes);
        }
        let (written, sent, watched) = (&mut self.written, &mut self.sent, self.watched);
        self.bench.end_turn(&mut |device, bytes| {
            *sent += bytes.len();
            if watched {
                written.bytes.extend_from_slice(bytes);
                written.parts.push((device, bytes.len()));
            }
        });
    }

    /// What the clients say to what was written.
    fn answers(&mut self) -> Vec<(Device, Vec<u8>)> {
        let bytes = take(&mut self.written.bytes);
        let parts = take(&mut self.written.parts);
        let mut rest = bytes.as_slice();
        let mut reads = Vec::new();
        for (device, len) in &parts {
            let Some((mut own, others)) = rest.split_at_checked(*len) else { break };
            rest = others;
            let mut answer = Vec::new();
            while let Ok(Decoded::Packet(packet, used)) = decode(own, self.version, Role::Server, u32::MAX) {
                own = own.get(used..).unwrap_or_default();
                if let Some(packet) = self.reply(&packet) {
                    answer.extend(packets::bytes(&packet, self.version));
                }
            }
            assert!(own.is_empty(), "packets are whole");
            if !answer.is_empty() {
                reads.push((*device, answer));
            }
        }
        self.written = Written { bytes, parts };
        self.written.bytes.clear();
        self.written.parts.clear();
        reads
    }

    fn reply(&mut self, packet: &Packet<'_>) -> Option<Packet<'static>> {
        match packet {
            Packet::Publish(publish) => {
                self.delivered += 1;
                let ack = packets::ack(publish.packet_id?.get());
                let exactly = publish.qos == QoS::ExactlyOnce;
                Some(if exactly { Packet::Pubrec(ack) } else { Packet::Puback(ack) })
            }
            Packet::Pubrec(ack) => Some(Packet::Pubrel(packets::ack(ack.packet_id.get()))),
            Packet::Pubrel(ack) => Some(Packet::Pubcomp(packets::ack(ack.packet_id.get()))),
            Packet::Puback(_) | Packet::Pubcomp(_) => {
                self.acknowledged += 1;
                None
            }
            other => panic!("nobody asked for {}", other.name()),
        }
    }

    /// Everybody got as many bytes as in the messages before: those were looked at.
    fn judge_bytes(&mut self, case: &Case, messages: usize) {
        let copies = case.receivers + usize::from(case.members > 0);
        let bytes: usize = (0..messages).map(|n| self.message(case, n).len()).sum();
        assert_eq!(take(&mut self.sent), bytes * copies, "bytes");
    }

    /// Everybody got everything, once.
    fn judge(&mut self, case: &Case, messages: usize) {
        let copies = case.receivers + usize::from(case.members > 0);
        assert_eq!(take(&mut self.delivered), messages * copies, "deliveries");
        let acknowledged = if case.qos == QoS::AtMostOnce { 0 } else { messages };
        assert_eq!(take(&mut self.acknowledged), acknowledged, "acknowledgements");
    }
}
