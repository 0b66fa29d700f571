//! What a client costs beside its messages: coming and going, subscribing, staying.

use std::time::Duration;

use broker::bench::{Bench, Device};
use mqtt::packet::{Disconnect, DisconnectProperties, Packet, Unsubscribe};
use mqtt::{QoS, ReasonCode, Version};

use crate::meter::{OPERATIONS, Row, counted, repeat};
use crate::{clients, packets};

/// Connections that stay, beside what is counted.
const OTHERS: usize = 1_000;

pub(crate) const ROWS: &[Row] = &[
    Row { name: "session/connect_disconnect_v311", run: || come_and_go(Version::V311) },
    Row { name: "session/connect_disconnect_v5", run: || come_and_go(Version::V5) },
    Row { name: "session/subscribe_unsubscribe", run: subscribe },
    Row { name: "session/pingreq", run: ping },
    Row { name: "session/second_of_1000_idle", run: idle },
];

/// A broker with connections that say nothing.
fn crowd() -> (Bench, Vec<Device>) {
    let mut bench = clients::broker(1);
    let join =
        |n: usize| clients::connect(&mut bench, 0, &clients::hello(&format!("idle-{n:05}"), Version::V311));
    let devices = (0..OTHERS).map(join).collect();
    (bench, devices)
}

/// A turn of the broker; how many bytes it wrote.
fn turn(bench: &mut Bench) -> usize {
    let mut written = 0;
    bench.end_turn(&mut |_, bytes| written += bytes.len());
    written
}

/// An operation is CONNECT, CONNACK, DISCONNECT and the end of the connection.
fn come_and_go(version: Version) -> u64 {
    let (mut bench, _) = crowd();
    let goodbye = Disconnect { reason: ReasonCode::Success, properties: DisconnectProperties::default() };
    let goodbye = packets::bytes(&Packet::Disconnect(goodbye), version);
    let mut visit = |n: usize, count: bool| {
        let client_id = format!("visitor-{n:05}");
        let hello = clients::hello(&client_id, version);
        let hello = packets::bytes(&Packet::Connect(Box::new(hello)), version);
        let mut stay = || {
            let device = bench.open(0);
            bench.received(device, &hello);
            let answered = turn(&mut bench);
            bench.received(device, &goodbye);
            turn(&mut bench);
            bench.closed(device);
            turn(&mut bench);
            answered
        };
        let answered = if count { counted(stay) } else { stay() };
        assert!(answered > 0, "CONNACK");
        assert!(!bench.is_waiting(), "nothing of it is to be remembered");
    };
    (0..10).for_each(|n| visit(n, false));
    (10..10 + OPERATIONS as usize).for_each(|n| visit(n, true));
    OPERATIONS
}

/// An operation is one filter, subscribed to and given back.
fn subscribe() -> u64 {
    let (mut bench, devices) = crowd();
    let version = Version::V311;
    for (n, device) in devices.iter().enumerate() {
        let topic = packets::topic(n);
        let answer = clients::ask(
            &mut bench,
            *device,
            &packets::bytes(&packets::subscribe(&[&topic], QoS::AtLeastOnce), version),
            version,
        );
        assert!(matches!(answer, Packet::Suback(_)));
    }
    let requests: Vec<_> = (0..100)
        .map(|n| {
            let topic = packets::topic(OTHERS + n);
            let unsubscribe = Unsubscribe {
                packet_id: packets::packet_id(2),
                user_properties: Vec::new(),
                filters: vec![topic.as_str().into()],
            };
            let subscribe = packets::bytes(&packets::subscribe(&[&topic], QoS::AtLeastOnce), version);
            (subscribe, packets::bytes(&Packet::Unsubscribe(unsubscribe), version))
        })
        .collect();
    let device = clients::connect(&mut bench, 0, &clients::hello("subscriber", version));
    let mut pass = |n: usize, count: bool| {
        let Some((subscribe, unsubscribe)) = requests.get(n % requests.len()) else { return };
        for (request, answer) in [(Some(subscribe), 5), (Some(unsubscribe), 4), (None, 0)] {
            // what the engine has to say is there before counting goes on
            assert!(bench.wait(), "the engine answers");
            let mut read = || {
                request.inspect(|bytes| bench.received(device, bytes));
                turn(&mut bench)
            };
            let written = if count { counted(read) } else { read() };
            assert_eq!(written, answer, "SUBACK, UNSUBACK, nothing");
        }
    };
    (0..10).for_each(|n| pass(n, false));
    (0..OPERATIONS as usize).for_each(|n| pass(n, true));
    OPERATIONS
}

fn ping() -> u64 {
    let (mut bench, devices) = crowd();
    let ping = packets::bytes(&Packet::Pingreq, Version::V311);
    repeat(|n| {
        if let Some(device) = devices.get(n % OTHERS) {
            bench.received(*device, &ping);
            assert_eq!(turn(&mut bench), 2, "PINGRESP");
        }
    })
}

/// An operation is a second in which nothing happens, with keep alive of a minute. Nobody pings: in the 80 seconds that are
/// counted each connection is looked at once, and nobody is late.
fn idle() -> u64 {
    let (mut bench, _) = crowd();
    let seconds = 80;
    counted(|| {
        for _ in 0..seconds {
            bench.tick(Duration::from_secs(1));
            assert_eq!(turn(&mut bench), 0, "nobody is told anything");
        }
    });
    seconds
}
