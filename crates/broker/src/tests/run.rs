//! Messages that came in one read are delivered as those that came one by one.

use mqtt::codec::encode::encode;
use mqtt::packet::{Packet, PublishProperties, SubscriptionOptions};
use mqtt::{QoS, Version};
use proptest::prelude::*;

use super::rig::*;
use crate::config::BrokerConfig;
use crate::metrics::Drop;
use crate::sim::world::{Link, World};

/// Topic, what is odd about it, bytes of payload.
type Written = (u8, u8, usize);

fn written() -> impl Strategy<Value = Written> {
    (prop_oneof![8 => Just(0_u8), 1 => 1_u8..5], 0_u8..24, prop_oneof![0_usize..20, 100_usize..140])
}

fn bytes(number: usize, (topic, odd, size): Written, version: Version) -> Vec<u8> {
    let qos = QoS::from_u8(odd).filter(|_| odd < 2).unwrap_or(QoS::AtMostOnce);
    let topic = ["t/0", "t/1", "t/2", "$delayed/5/t/0", "t/a/deep/one"][usize::from(topic)];
    let id = u16::try_from(number + 1).unwrap();
    let mut payload = number.to_be_bytes().to_vec();
    payload.resize(8 + size, b'x');
    let mut publish = message(topic, qos, if qos == QoS::AtMostOnce { 0 } else { id }, &payload);
    publish.retain = odd == 2;
    if odd == 3 {
        publish.properties =
            PublishProperties { message_expiry_interval: Some(9), ..Default::default() }.into();
    }
    let mut bytes = Vec::new();
    encode(&Packet::Publish(publish), version, &mut bytes).unwrap();
    bytes
}

/// A broker and its clients: of every kind that gets messages in another way. The last one is the publisher.
fn scene(version: Version) -> (World, Vec<Link>) {
    let config = BrokerConfig { max_outbound_bytes: 2_000, max_topic_levels: 3, ..BrokerConfig::default() };
    let mut w = World::new(7, 2, config);
    let mut links = Vec::new();
    let kinds = [
        "new", "old", "numbered", "small", "aliases", "reliable", "slow", "far", "member", "another", "from",
    ];
    for name in kinds {
        let mut hello = connect(name, true, 0);
        match name {
            "old" => hello.version = Version::V311,
            "small" => hello.properties.maximum_packet_size = Some(100),
            "aliases" => hello.properties.topic_alias_maximum = Some(2),
            "from" => hello.version = version,
            _ => {}
        }
        let (peer, _) = Peer::connect(&mut w, usize::from(name == "far"), hello);
        let filter = if matches!(name, "member" | "another") { "$share/g/t/2" } else { "t/#" };
        let qos = if name == "reliable" { QoS::AtLeastOnce } else { QoS::AtMostOnce };
        // a shared subscription has none
        let no_local = matches!(name, "numbered" | "from") && version.is_v5();
        let options = SubscriptionOptions { qos, no_local, ..Default::default() };
        let mut request = subscribe(1, &[(filter, options)]);
        if let (Packet::Subscribe(request), "numbered") = (&mut request, name) {
            request.subscription_identifier = Some(7);
        }
        assert_eq!(peer.ask(&mut w, request).len(), 1, "{name}");
        if name == "slow" {
            w.set_window(peer.link, 0);
        }
        links.push(peer.link);
    }
    (w, links)
}

/// All that somebody can see of what the messages did.
fn seen(w: &mut World, links: &[Link]) -> (Vec<Vec<u8>>, Vec<Vec<u64>>) {
    w.run();
    let read = links
        .iter()
        .map(|&link| {
            w.set_window(link, usize::MAX);
            w.run();
            w.read(link).0
        })
        .collect();
    let counts = w.workers.iter().map(|worker| {
        let m = &worker.metrics;
        let sums =
            [&m.packets_received, &m.packets_sent, &m.payload_received, &m.payload_sent, &m.sent_bytes];
        let counters = m.received.iter().chain(&m.sent).chain(&m.dropped).chain(&m.refused_requests);
        counters.chain(sums).map(|counter| counter.get()).collect()
    });
    (read, counts.collect())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// [MQTT-4.6.0-6], and every other promise that is kept one by one.
    #[test]
    fn what_came_in_one_read_goes_to_everybody_as_if_it_had_come_one_by_one(
        list in prop::collection::vec(written(), 1..50),
        version in prop_oneof![Just(Version::V311), Just(Version::V5)],
    ) {
        let packets: Vec<_> = list.iter().enumerate().map(|(n, &one)| bytes(n, one, version)).collect();
        let (mut together, links) = scene(version);
        let (worker, id) = together.conn_id(*links.last().unwrap());
        together.workers[worker].received(id, &packets.concat());
        let (mut single, links) = scene(version);
        let (worker, id) = single.conn_id(*links.last().unwrap());
        for packet in &packets {
            single.workers[worker].received(id, packet);
        }
        prop_assert_eq!(seen(&mut together, &links), seen(&mut single, &links));
    }
}

/// A burst of one topic, as one read.
fn burst(count: usize) -> Vec<u8> {
    (0..count).flat_map(|number| bytes(number, (0, 9, 40), Version::V311)).collect()
}

/// A receiver that is behind gets what fits, message by message, and loses the rest of them; one that is not gets all.
#[test]
fn a_full_receiver_does_not_take_a_burst_from_the_others() {
    let mut w = World::new(1, 1, BrokerConfig { max_outbound_bytes: 1_000, ..BrokerConfig::default() });
    let slow = Peer::clean(&mut w, "slow");
    slow.subscribe(&mut w, "t/#", QoS::AtMostOnce);
    w.set_window(slow.link, 0);
    let fast = Peer::clean(&mut w, "fast");
    fast.subscribe(&mut w, "t/#", QoS::AtMostOnce);
    let old = mqtt::packet::Connect { version: Version::V311, ..connect("from", true, 0) };
    let (from, _) = Peer::connect(&mut w, 0, old);
    for _ in 0..5 {
        w.write(from.link, &burst(10));
        w.run();
    }
    assert_eq!(fast.payloads(&mut w).len(), 50);
    w.set_window(slow.link, usize::MAX);
    w.run();
    let taken = slow.payloads(&mut w).len();
    assert!((15..25).contains(&taken), "{taken} of about 55 bytes");
    let dropped = w.workers[0].metrics.dropped[Drop::OutboundFull as usize].get();
    assert_eq!(dropped + taken as u64, 50, "each that is not taken is counted");
}
