//! A stream means the same however the network cuts it, whether a message takes the short way or the long one, and whether
//! its connection has to pause with half a packet in its hands.

use mqtt::codec::encode::encode;
use mqtt::packet::{Packet, Publish, PublishProperties};
use mqtt::{QoS, Version};
use proptest::prelude::*;
use runtime::rate::Rate;

use super::rig::*;
use crate::config::BrokerConfig;
use crate::sim::world::World;

/// Topic, QoS, bytes of payload, whether it has properties, whether it is repeated.
type Written = (u8, u8, usize, bool, bool);

fn written() -> impl Strategy<Value = Written> {
    let size = prop_oneof![8 => 0_usize..200, 1 => 60_000_usize..70_000, 1 => 130_000_usize..300_000];
    (0_u8..3, 0_u8..3, size, any::<bool>(), any::<bool>())
}

/// Numbers of one publisher where there are more.
const EACH: usize = 1_000;

/// Messages on both sides of what is copied between workers and what is shared.
fn crossing() -> impl Strategy<Value = Written> {
    let size = prop_oneof![4 => 0_usize..200, 4 => 5_040_usize..5_120, 1 => 60_000_usize..70_000];
    // QoS 0 and 1: readers that do not answer get as many as their window takes
    (0_u8..3, 0_u8..2, size, any::<bool>(), any::<bool>())
}

fn publish(number: usize, (topic, qos, size, rich, dup): Written) -> Publish<'static> {
    let qos = QoS::from_u8(qos).unwrap();
    let id = u16::try_from(number + 1).unwrap();
    let mut payload = number.to_be_bytes().to_vec();
    payload.resize(8 + size, topic);
    let mut publish =
        message(&format!("t/{topic}"), qos, if qos == QoS::AtMostOnce { 0 } else { id }, &payload);
    publish.dup = dup && qos > QoS::AtMostOnce;
    if rich {
        publish.properties =
            PublishProperties { content_type: Some("text/plain".into()), ..Default::default() }.into();
    }
    publish
}

fn subscriber(w: &mut World, worker: usize, name: &'static str, version: Version) -> Peer {
    let connect = mqtt::packet::Connect { version, ..connect(name, true, 0) };
    let (peer, _) = Peer::connect(w, worker, connect);
    peer.subscribe(w, "t/#", QoS::ExactlyOnce);
    peer
}

/// Topic, QoS, payload, content type, whether DUP or RETAIN is set.
type Seen = (String, QoS, Vec<u8>, Option<String>, bool);

/// What matters of a message to whoever gets it.
fn seen(packets: Vec<Packet<'static>>) -> Vec<Seen> {
    let publish = |p| match p {
        Packet::Publish(p) => Some(p),
        _ => None,
    };
    packets
        .into_iter()
        .filter_map(publish)
        .map(|p| {
            let kind = p.properties.read().content_type.as_ref().map(ToString::to_string);
            (p.topic.into_owned(), p.qos, p.payload.into_owned(), kind, p.dup || p.retain)
        })
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn messages_arrive_whole_and_in_order_however_their_bytes_are_cut(
        list in prop::collection::vec(written(), 1..12),
        cuts in prop::collection::vec(prop_oneof![1_usize..8, 1_usize..70_000], 1..40),
        publisher_version in prop_oneof![Just(Version::V311), Just(Version::V5)],
        pauses in any::<bool>(),
    ) {
        let mut config = BrokerConfig::default();
        // one at once, and each behind it after a pause
        config.listeners[0].rates.messages = pauses.then(|| Rate::per_second(1.0));
        let mut w = World::new(1, 1, config);
        let new = subscriber(&mut w, 0, "new", Version::V5);
        let old = subscriber(&mut w, 0, "old", Version::V311);
        let from = mqtt::packet::Connect { version: publisher_version, ..connect("from", true, 0) };
        let (from, _) = Peer::connect(&mut w, 0, from);
        let mut bytes = Vec::new();
        let mut expected = Vec::new();
        for (number, &one) in list.iter().enumerate() {
            let publish = publish(number, one);
            encode(&Packet::Publish(publish.clone()), publisher_version, &mut bytes).unwrap();
            let kind = (one.3 && publisher_version.is_v5()).then(|| "text/plain".to_owned());
            expected.push((publish.topic.to_string(), publish.qos, publish.payload.to_vec(), kind, false));
        }
        let mut rest = &bytes[..];
        for cut in cuts {
            let (part, behind) = rest.split_at(cut.min(rest.len()));
            w.write(from.link, part);
            w.run();
            rest = behind;
        }
        w.write(from.link, rest);
        w.run();
        let (worker, id) = w.conn_id(from.link);
        let paused = w.workers[worker].metrics.throttles.iter().map(|count| count.get()).sum::<u64>();
        prop_assert_eq!(paused > 0, pauses && list.len() > 1, "{} pauses", paused);
        w.advance(seconds(2 * list.len() as u64));
        prop_assert!(w.workers[worker].conn(id).unwrap().tail.is_none(), "an idle connection keeps no buffer");
        prop_assert_eq!(seen(new.read(&mut w)), expected.clone());
        let plain: Vec<_> = expected.into_iter().map(|(topic, qos, payload, _, odd)| (topic, qos, payload, None, odd)).collect();
        prop_assert_eq!(seen(old.read(&mut w)), plain);
    }
    /// Between workers small plain messages go as bytes and the others as what they are: their order stays.
    #[test]
    fn messages_of_a_publisher_arrive_in_order_on_every_worker(
        lists in prop::array::uniform2(prop::collection::vec(crossing(), 1..30)),
        cuts in prop::collection::vec(prop_oneof![1_usize..200, 1_usize..70_000], 1..40),
        versions in prop::array::uniform2(prop_oneof![Just(Version::V311), Just(Version::V5)]),
    ) {
        let mut w = world(2);
        let readers: Vec<_> = [(0, "new0", Version::V5), (0, "old0", Version::V311), (1, "new1", Version::V5), (1, "old1", Version::V311)]
            .into_iter()
            .map(|(worker, name, version)| subscriber(&mut w, worker, name, version))
            .collect();
        let (mut links, mut streams, mut expected) = (Vec::new(), Vec::new(), Vec::new());
        for (worker, list) in lists.iter().enumerate() {
            let from = mqtt::packet::Connect { version: versions[worker], ..connect(["p0", "p1"][worker], true, 0) };
            links.push(Peer::connect(&mut w, worker, from).0.link);
            let (mut bytes, mut packets) = (Vec::new(), Vec::new());
            for (number, &one) in list.iter().enumerate() {
                let publish = publish(worker * EACH + number, one);
                encode(&Packet::Publish(publish.clone()), versions[worker], &mut bytes).unwrap();
                let kind = (one.3 && versions[worker].is_v5()).then(|| "text/plain".to_owned());
                packets.push((publish.topic.to_string(), publish.qos, publish.payload.to_vec(), kind, false));
            }
            streams.push(bytes);
            expected.push(packets);
        }
        let mut rest: Vec<&[u8]> = streams.iter().map(Vec::as_slice).collect();
        for (turn, cut) in cuts.into_iter().enumerate() {
            let from = turn % 2;
            let (part, behind) = rest[from].split_at(cut.min(rest[from].len()));
            w.write(links[from], part);
            rest[from] = behind;
            if turn % 3 == 0 {
                w.run();
            }
        }
        for (link, rest) in links.iter().zip(rest) {
            w.write(*link, rest);
        }
        w.run();
        for reader in readers {
            let (old, got) = (!reader.version.is_v5(), seen(reader.read(&mut w)));
            for (worker, packets) in expected.iter().enumerate() {
                let own = |seen: &&Seen| usize::from_be_bytes(seen.2[..8].try_into().unwrap()) / EACH == worker;
                let got: Vec<_> = got.iter().filter(own).cloned().collect();
                let packets: Vec<_> = packets
                    .iter()
                    .cloned()
                    .map(|(topic, qos, payload, kind, odd)| (topic, qos, payload, kind.filter(|_| !old), odd))
                    .collect();
                prop_assert_eq!(got, packets);
            }
        }
    }
}
