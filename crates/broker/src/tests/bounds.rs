//! What happens at a bound: a peer that takes more than its share is told so or waits, and memory ends where the
//! configuration says.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Wake, Waker};

use mqtt::packet::{Packet, Publish, SubscriptionOptions};
use mqtt::{QoS, ReasonCode, Version};
use runtime::events::Event;

use super::rig::*;
use crate::config::BrokerConfig;
use crate::sim::engine::Faults;
use crate::sim::world::World;
use crate::under_way::MAX_UNDER_WAY;

fn bounded(change: impl FnOnce(&mut BrokerConfig)) -> World {
    let mut config = BrokerConfig::default();
    change(&mut config);
    World::new(1, 1, config)
}

/// No room in the engine for anything.
const FULL: Faults = Faults { busy: 1.0, unavailable: 0.0, unknown: 0.0, delay: 0 };

/// Requests whose answers are not read: the connection is not read either, until it takes them.
#[test]
fn who_takes_no_answers_can_ask_no_more() {
    let mut w = bounded(|c| (c.max_outbound_bytes, c.max_packet_size) = (1_000, 1_000));
    let peer = Peer::clean(&mut w, "flood");
    let (worker, id) = w.conn_id(peer.link);
    w.set_window(peer.link, 0);
    let asked = 50_000;
    w.write(peer.link, &[0xC0, 0].repeat(asked));
    w.run();
    let unsent = w.workers[worker].conn(id).unwrap().unsent();
    assert!((2_000..2_000 + 4_096).contains(&unsent), "{unsent}: a read more than the bound at most");
    assert!(w.unread(peer.link) > 90_000);
    w.set_window(peer.link, usize::MAX);
    w.run();
    assert_eq!(peer.read(&mut w), vec![Packet::Pingresp; asked]);
}

/// A slow subscriber is read on at its bound: its PINGREQ counts for its keep alive [MQTT-3.1.2-22].
#[test]
fn messages_that_are_not_taken_do_not_stop_the_reading() {
    let mut w = bounded(|c| c.max_outbound_bytes = 1_000);
    let sub = Peer::clean(&mut w, "sub");
    sub.subscribe(&mut w, "a", QoS::AtMostOnce);
    w.set_window(sub.link, 0);
    let publisher = Peer::clean(&mut w, "pub");
    for _ in 0..50 {
        publisher.ask(&mut w, Packet::Publish(message("a", QoS::AtMostOnce, 0, &[0; 100])));
    }
    sub.send(&mut w, Packet::Pingreq);
    w.run();
    assert_eq!(w.unread(sub.link), 0);
}

/// A buffer that is never empty does not keep what the client has taken.
#[test]
fn a_client_as_slow_as_its_messages_costs_no_more_than_what_it_has_not_taken() {
    let mut w = bounded(|c| c.max_outbound_bytes = 100_000);
    let sub = Peer::clean(&mut w, "sub");
    sub.subscribe(&mut w, "a", QoS::AtMostOnce);
    let (worker, id) = w.conn_id(sub.link);
    let publisher = Peer::clean(&mut w, "pub");
    w.set_window(sub.link, 0);
    for _ in 0..1_000 {
        publisher.send(&mut w, Packet::Publish(message("a", QoS::AtMostOnce, 0, &[0; 10_000])));
        w.run();
        w.set_window(sub.link, 9_000);
        w.run();
        let held = w.workers[worker].conn(id).unwrap().out.len();
        assert!(held <= 300_000, "{held}");
    }
    assert!(w.workers[worker].conn(id).unwrap().unsent() > 0, "the buffer was never empty");
}

/// Reads and acknowledges until nothing comes any more.
fn finish_flows(w: &mut World, peer: Peer) {
    loop {
        w.run();
        let packets = peer.read(w);
        if packets.is_empty() {
            return;
        }
        for packet in packets {
            let answer = match packet {
                Packet::Publish(Publish { qos: QoS::AtLeastOnce, packet_id: Some(id), .. }) => {
                    Packet::Puback(ack(id.get()))
                }
                Packet::Publish(Publish { qos: QoS::ExactlyOnce, packet_id: Some(id), .. }) => {
                    Packet::Pubrec(ack(id.get()))
                }
                Packet::Pubrel(ack) => Packet::Pubcomp(ack),
                Packet::Pubrec(ack) => Packet::Pubrel(ack),
                _ => continue,
            };
            peer.send(w, answer);
        }
    }
}

/// A burst is over when its client has taken it: what it took of memory is not left with an idle connection.
#[test]
fn after_a_burst_an_idle_connection_holds_no_buffer() {
    let mut w = bounded(|_| {});
    let sub = Peer::clean(&mut w, "sub");
    sub.subscribe(&mut w, "a/+", QoS::ExactlyOnce);
    let publisher = Peer::clean(&mut w, "pub");
    w.set_window(sub.link, 0);
    for n in 1..=500 {
        let qos = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce][usize::from(n % 3)];
        let id = if qos == QoS::AtMostOnce { 0 } else { n };
        let mut bytes = Vec::new();
        let publish = Packet::Publish(message("a/b", qos, id, &[0; 3_000]));
        mqtt::codec::encode::encode(&publish, Version::V5, &mut bytes).unwrap();
        // what comes first ends inside the packet
        for piece in bytes.chunks(usize::from(n) * 6) {
            w.write(publisher.link, piece);
            w.run();
        }
        finish_flows(&mut w, publisher);
    }
    let (worker, id) = w.conn_id(sub.link);
    assert!(w.workers[worker].conn(id).unwrap().out.capacity() > 0, "it waits for its client");
    w.set_window(sub.link, usize::MAX);
    finish_flows(&mut w, sub);
    for peer in [sub, publisher] {
        let (worker, id) = w.conn_id(peer.link);
        let conn = w.workers[worker].conn(id).unwrap();
        assert_eq!((conn.out.capacity(), conn.acks.capacity()), (0, 0));
        assert!(conn.tail.is_none());
        let session = conn.session.as_ref().unwrap();
        assert!(session.backlog.is_none());
        assert!(session.outbound.is_empty() && session.inbound.is_empty());
        assert_eq!(session.incoming.ids().count(), 0);
    }
}

/// A world of two workers where clients of worker 1 have these filters and `publishers` of worker 0 send.
fn crossing(filters: &[&str], publishers: usize) -> (World, Vec<Peer>, Vec<Peer>) {
    let mut w = World::new(1, 2, BrokerConfig { max_outbound_bytes: 1 << 30, ..Default::default() });
    let mut peers = |worker, name: &str, count| -> Vec<Peer> {
        (0..count).map(|n| Peer::connect(&mut w, worker, connect(&format!("{name}{n}"), true, 0)).0).collect()
    };
    let (subs, publishers) = (peers(1, "sub", filters.len()), peers(0, "pub", publishers));
    for (sub, filter) in subs.iter().zip(filters) {
        sub.subscribe(&mut w, filter, QoS::AtMostOnce);
    }
    (w, subs, publishers)
}

/// Messages of so many bytes, as one read has them.
fn one_read(payload: usize) -> Vec<u8> {
    let mut packet = Vec::new();
    let publish = Packet::Publish(message("a", QoS::AtMostOnce, 0, &vec![0; payload]));
    mqtt::codec::encode::encode(&publish, Version::V5, &mut packet).unwrap();
    packet.repeat((64 * 1024 / packet.len()).max(1))
}

/// A worker that is behind has a bounded number of bytes in its mailbox, however few batches they are, however small the messages
/// and however they are subscribed to.
#[test]
fn what_waits_for_another_worker_is_bounded_in_bytes() {
    let shared = ["$share/g/a", "$share/h/a", "$share/i/a"];
    for (filters, payload) in
        [(&["a"][..], 500_000), (&["a"], 60_000), (&["a"], 0), (&shared, 60_000), (&shared, 0)]
    {
        let (mut w, subs, publishers) = crossing(filters, 1);
        let (_, id) = w.conn_id(publishers[0].link);
        let read = one_read(payload);
        // what one read brings comes beyond the bound: its bytes, and up to 256 for each message and where it goes
        let a_read = filters.len() * (read.len() + read.len() / (payload + 5) * 256);
        let mut sent = 0;
        while w.workers[0].wants_read(id) {
            w.workers[0].received(id, &read);
            w.workers[0].end_turn();
            sent += 1;
            let under_way = w.workers[0].under_way.bytes();
            assert!(under_way < MAX_UNDER_WAY + a_read, "{filters:?}: {under_way} bytes after {sent} turns");
            assert!(sent < 10_000, "{filters:?}: no end");
        }
        w.run();
        assert_eq!(w.workers[0].under_way.bytes(), 0);
        assert!(w.workers[0].wants_read(id));
        let bytes: usize = subs.iter().map(|sub| w.read(sub.link).0.len()).sum();
        assert_eq!(bytes, filters.len() * sent * read.len());
    }
}

/// A sender that has had one batch too many reads no other connection in the same turn.
#[test]
fn a_sender_rests_in_the_middle_of_a_turn() {
    let (mut w, _, publishers) = crossing(&["a"], 200);
    let read = one_read(60_000);
    let mut reads = 0;
    for publisher in publishers {
        let (_, id) = w.conn_id(publisher.link);
        if w.workers[0].wants_read(id) {
            // two, so that a batch is handed over in any case
            w.workers[0].received(id, &read.repeat(2));
            reads += 1;
        }
    }
    assert!(reads > 50, "{reads} of 200 were read");
    let under_way = w.workers[0].under_way.bytes();
    assert!(under_way < MAX_UNDER_WAY + (1 << 20), "{under_way} bytes in one turn");
}

#[derive(Default)]
struct Woken(AtomicUsize);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// Whoever delivers what a resting sender has under way wakes it; it does not look for itself.
#[test]
fn a_sender_that_rests_is_woken_by_the_worker_it_waits_for() {
    let (mut w, _, publishers) = crossing(&["a"], 1);
    let (_, id) = w.conn_id(publishers[0].link);
    let read = one_read(60_000);
    while w.workers[0].wants_read(id) {
        w.workers[0].received(id, &read);
    }
    let woken = Arc::new(Woken::default());
    w.workers[0].flush_waker = Some(Waker::from(Arc::clone(&woken)));
    w.workers[0].end_turn();
    assert!(!w.workers[0].wants_read(id));
    assert_eq!(woken.0.load(Ordering::SeqCst), 0);
    w.take_mail(1);
    assert_eq!(woken.0.load(Ordering::SeqCst), 1);
    w.workers[0].end_turn();
    assert!(w.workers[0].wants_read(id));
}

/// Bytes that trickle in give a CONNECT no more time.
#[test]
fn a_connect_that_trickles_in_ends_at_its_time() {
    let mut w = bounded(|c| c.connect_timeout = seconds(5));
    let link = w.open(0);
    for byte in [0x10, 0x7F, 0, 4, b'M'] {
        assert!(!w.is_closed(link));
        w.write(link, &[byte]);
        w.advance(seconds(1));
    }
    assert!(w.is_closed(link));
}

/// A full register refuses a session that must be remembered, soon and with its reason; the client id is free again.
#[test]
fn a_session_that_finds_no_room_is_refused() {
    let mut w = world(1);
    w.set_faults(FULL);
    let keep = Peer::begin(&mut w, 0, connect("keep", false, NEVER));
    w.advance(seconds(4));
    match keep.read(&mut w).as_slice() {
        [Packet::Connack(connack)] => assert_eq!(connack.reason, ReasonCode::QuotaExceeded),
        other => panic!("{other:?}"),
    }
    assert!(w.is_closed(keep.link));
    keep.cut(&mut w);
    assert_eq!(w.shared.registry.len(), 0);
    assert_eq!(w.workers[0].operations(), 0);
}

/// A crowd that comes at once is no full register: it is let in when its turn comes.
#[test]
fn a_session_waits_for_room_a_little() {
    let mut w = world(1);
    w.set_faults(FULL);
    let keep = Peer::begin(&mut w, 0, connect("keep", false, NEVER));
    w.advance(seconds(1));
    w.set_faults(Faults::default());
    w.advance(seconds(1));
    match keep.read(&mut w).as_slice() {
        [Packet::Connack(connack)] => assert_eq!(connack.reason, ReasonCode::Success),
        other => panic!("{other:?}"),
    }
}

/// A subscription that finds no room is refused as such [MQTT-3.9.3-2].
#[test]
fn a_subscription_that_finds_no_room_is_refused() {
    let mut w = world(1);
    let (keep, _) = Peer::connect(&mut w, 0, connect("keep", false, NEVER));
    w.set_faults(FULL);
    keep.send(&mut w, subscribe(1, &[("a", SubscriptionOptions::default())]));
    w.advance(seconds(4));
    match keep.read(&mut w).as_slice() {
        [Packet::Suback(suback)] => assert_eq!(suback.reasons, [ReasonCode::QuotaExceeded]),
        other => panic!("{other:?}"),
    }
}

/// A session whose last state finds no room ends: its client is not held up and is told by Session Present 0 [MQTT-3.2.2-3].
#[test]
fn a_session_that_cannot_be_written_back_ends() {
    let mut w = world(1);
    let (keep, _) = Peer::connect(&mut w, 0, connect("keep", false, NEVER));
    keep.subscribe(&mut w, "a", QoS::AtLeastOnce);
    w.set_faults(FULL);
    keep.cut(&mut w);
    w.advance(seconds(4));
    w.set_faults(Faults::default());
    w.advance(seconds(1));
    assert_eq!(w.keys(), Vec::<String>::new());
    assert_eq!(w.shared.registry.len(), 0);
    let (_, connack) = Peer::connect(&mut w, 0, connect("keep", false, NEVER));
    assert!(!connack.session_present);
}

/// A filter that is named twice in one packet counts once, and the later options hold [MQTT-3.8.4-3].
#[test]
fn a_filter_named_twice_in_one_packet_is_one_subscription() {
    let mut w = bounded(|c| c.max_subscriptions = 2);
    let sub = Peer::clean(&mut w, "sub");
    let with = |qos| SubscriptionOptions { qos, ..SubscriptionOptions::default() };
    let filters = [
        ("a", with(QoS::AtMostOnce)),
        ("b", with(QoS::AtMostOnce)),
        ("a", with(QoS::AtLeastOnce)),
        ("c", with(QoS::AtMostOnce)),
    ];
    match sub.ask(&mut w, subscribe(1, &filters)).as_slice() {
        [Packet::Suback(suback)] => assert_eq!(
            suback.reasons,
            [ReasonCode::Success, ReasonCode::Success, ReasonCode::GrantedQos1, ReasonCode::QuotaExceeded]
        ),
        other => panic!("{other:?}"),
    }
    let publisher = Peer::clean(&mut w, "pub");
    publisher.ask(&mut w, Packet::Publish(message("a", QoS::AtLeastOnce, 1, b"x")));
    match sub.read(&mut w).as_slice() {
        [Packet::Publish(publish)] => assert_eq!(publish.qos, QoS::AtLeastOnce),
        other => panic!("{other:?}"),
    }
}

/// A will goes by the same bound of levels as any other message.
#[test]
fn a_will_with_too_many_levels_is_refused() {
    let mut w = world(1);
    let mut deep = connect("deep", true, 0);
    deep.will = Some(will(&"/".repeat(60_000), 0));
    let peer = Peer::begin(&mut w, 0, deep);
    w.run();
    assert_eq!(peer.version, Version::V5);
    match peer.read(&mut w).as_slice() {
        [Packet::Connack(connack)] => assert_eq!(connack.reason, ReasonCode::TopicNameInvalid),
        other => panic!("{other:?}"),
    }
}

/// A client that takes no packet as large as an answer it must have is not left waiting [MQTT-3.1.2-24].
/// [MQTT-3.14.2-3]
#[test]
fn a_client_that_cannot_take_its_answer_is_not_left_waiting() {
    let mut w = world(1);
    let mut tiny = connect("tiny", true, 0);
    tiny.properties.maximum_packet_size = Some(6);
    let peer = Peer::begin(&mut w, 0, tiny);
    w.run();
    assert_eq!(peer.read(&mut w), []);
    assert!(w.is_closed(peer.link));
    assert!(w.events().iter().any(|e| matches!(e, Event::ClientRefused { .. })));
    peer.cut(&mut w);
    assert_eq!(w.shared.registry.len(), 0);

    let mut small = connect("small", true, 0);
    small.properties.maximum_packet_size = Some(30);
    let (peer, _) = Peer::connect(&mut w, 0, small);
    let filters: Vec<String> = (0..40).map(|n| n.to_string()).collect();
    let filters: Vec<_> = filters.iter().map(|f| (f.as_str(), SubscriptionOptions::default())).collect();
    match peer.ask(&mut w, subscribe(1, &filters)).as_slice() {
        [Packet::Disconnect(disconnect)] => {
            assert_eq!(disconnect.reason, ReasonCode::PacketTooLarge);
            assert_eq!(disconnect.properties.reason_string, None, "it would not fit");
        }
        other => panic!("{other:?}"),
    }
}

/// A second CONNECT is a protocol error whatever it says [MQTT-3.1.0-2], [MQTT-4.13.1-1].
#[test]
fn a_second_connect_of_an_unknown_version_is_a_protocol_error() {
    let mut w = world(1);
    let peer = Peer::clean(&mut w, "twice");
    w.write(peer.link, b"\x10\x0D\x00\x04MQTT\x09\x02\x00\x00\x00\x00\x00");
    w.run();
    match peer.read(&mut w).as_slice() {
        [Packet::Disconnect(disconnect)] => assert_eq!(disconnect.reason, ReasonCode::ProtocolError),
        other => panic!("{other:?}"),
    }
}

/// A connection that was accepted before its listener stopped, and served after the others were told, does not hold up the
/// stop.
#[test]
fn who_comes_into_a_stop_is_sent_away() {
    let mut w = world(1);
    let before = Peer::clean(&mut w, "before");
    w.workers[0].shut_down();
    let late = Peer::begin(&mut w, 0, connect("late", false, NEVER));
    w.run();
    let reasons: Vec<_> = before.read(&mut w);
    assert!(matches!(&reasons[..], [Packet::Disconnect(d)] if d.reason == ReasonCode::ServerShuttingDown));
    assert_eq!(late.read(&mut w), []);
    assert!(w.is_closed(late.link));
    w.advance(seconds(4));
    assert!(w.workers[0].is_idle());
}
