//! Shared subscriptions (4.8.2) of sessions that outlive their connections.

use engine::{Pos, Shard};
use mqtt::packet::{Connect, Packet, SubscriptionOptions};
use mqtt::{QoS, ReasonCode};

use super::rig::*;
use super::shared::with;
use crate::config::{BrokerConfig, Strategy};
use crate::handover::Handover;
use crate::message::{NOBODY, View};
use crate::router::Group;
use crate::share::{Deal, ShareMail, Tried};
use crate::shared::Mail;
use crate::sim::world::World;

const FILTER: &str = "$share/g/a/#";

fn durable(client_id: &str) -> Connect<'static> {
    connect(client_id, false, NEVER)
}

/// Connects and reads what comes with it.
fn come(w: &mut World, worker: usize, client_id: &str) -> Peer {
    let peer = Peer::begin(w, worker, durable(client_id));
    w.run();
    peer
}

fn member(w: &mut World, worker: usize, client_id: &str, qos: QoS) -> Peer {
    let (peer, _) = Peer::connect(w, worker, durable(client_id));
    match peer.subscribe(w, FILTER, qos).as_slice() {
        [Packet::Suback(s)] => assert!(s.reasons.iter().all(|r| !r.is_error())),
        other => panic!("{other:?}"),
    }
    peer
}

fn publish(w: &mut World, publisher: Peer, numbers: std::ops::Range<u16>) {
    for n in numbers {
        let p = message(&format!("a/{}", n % 7), QoS::AtLeastOnce, n, n.to_string().as_bytes());
        match publisher.ask(w, Packet::Publish(p)).as_slice() {
            [Packet::Puback(ack)] => assert_eq!(ack.reason, ReasonCode::Success),
            other => panic!("{other:?}"),
        }
    }
}

/// Subscribes; what comes has not been read.
fn join(w: &mut World, peer: Peer) {
    let options = SubscriptionOptions { qos: QoS::AtLeastOnce, ..Default::default() };
    peer.send(w, subscribe(1, &[(FILTER, options)]));
    w.run();
}

/// What it gets while it acknowledges everything.
fn all(w: &mut World, peer: Peer) -> Vec<u16> {
    let mut got = Vec::new();
    loop {
        let packets = peer.read(w);
        if packets.is_empty() {
            got.sort_unstable();
            return got;
        }
        got.extend(payloads(&packets).iter().map(|p| p.parse::<u16>().unwrap()));
        for packet in packets {
            match packet {
                Packet::Publish(p) if p.qos == QoS::AtLeastOnce => {
                    peer.send(w, Packet::Puback(ack(p.packet_id.unwrap().get())));
                }
                Packet::Publish(p) => peer.send(w, Packet::Pubrec(ack(p.packet_id.unwrap().get()))),
                Packet::Pubrel(p) => peer.send(w, Packet::Pubcomp(ack(p.packet_id.get()))),
                _ => {}
            }
        }
        w.run();
    }
}

fn metric(w: &World, of: impl Fn(&crate::metrics::WorkerMetrics) -> u64) -> u64 {
    w.shared.metrics.iter().map(|m| of(m)).sum()
}

/// A member that is away gets nothing while another is here; while all are away the messages wait for whoever comes first.
#[test]
fn messages_wait_for_the_first_member_that_comes() {
    for workers in [1, 3] {
        let mut w = world(workers);
        let one = member(&mut w, 0, "one", QoS::AtLeastOnce);
        let two = member(&mut w, workers - 1, "two", QoS::AtLeastOnce);
        let publisher = Peer::clean(&mut w, "pub");
        publish(&mut w, publisher, 1..11);
        let (first, second) = (all(&mut w, one), all(&mut w, two));
        assert_eq!((first.len(), second.len()), (5, 5), "in turn");
        one.cut(&mut w);
        publish(&mut w, publisher, 11..16);
        assert_eq!(all(&mut w, two), (11..16).collect::<Vec<_>>());
        two.cut(&mut w);
        publish(&mut w, publisher, 16..40);
        let two = come(&mut w, 0, "two");
        assert_eq!(all(&mut w, two), (16..40).collect::<Vec<_>>());
        let one = come(&mut w, workers - 1, "one");
        assert_eq!(all(&mut w, one), [0; 0], "nothing a second time");
        assert_eq!(metric(&w, |m| m.shared_dealt.get()), 39);
    }
}

/// QoS 1 that is not acknowledged goes to another member when its own goes, and to one that comes later if there is none.
#[test]
fn unacknowledged_messages_go_to_another_member() {
    for workers in [1, 2] {
        let mut w = with(Strategy::Sticky, workers);
        let one = member(&mut w, 0, "one", QoS::AtLeastOnce);
        let publisher = Peer::clean(&mut w, "pub");
        publish(&mut w, publisher, 1..4);
        assert_eq!(one.payloads(&mut w), ["1", "2", "3"]);
        let two = member(&mut w, workers - 1, "two", QoS::AtLeastOnce);
        one.ask(&mut w, Packet::Puback(ack(2)));
        one.cut(&mut w);
        let mut others = two.payloads(&mut w);
        others.sort_unstable();
        assert_eq!(others, ["1", "3"]);
        two.cut(&mut w);
        let (late, _) = Peer::connect(&mut w, 0, connect("late", true, 0));
        late.subscribe(&mut w, FILTER, QoS::AtLeastOnce);
        assert_eq!(late.payloads(&mut w), [""; 0], "read with the SUBACK");
        let one = come(&mut w, 0, "one");
        assert_eq!(all(&mut w, one), [0; 0]);
        late.cut(&mut w);
        assert_eq!(all(&mut w, one), [1, 3], "three members had it one after the other");
        assert!(metric(&w, |m| m.shared_redelivered.get()) >= 4);
    }
}

/// [MQTT-4.8.2-4]: QoS 2 that was begun is completed with its member when that comes back; [MQTT-4.8.2-5]: it goes to nobody
/// else, also if the session ends.
#[test]
fn qos_2_that_was_begun_is_completed_with_its_member() {
    for (ends, workers) in [(false, 1), (true, 1), (false, 2), (true, 2)] {
        let mut w = with(Strategy::Sticky, workers);
        let one = member(&mut w, workers - 1, "one", QoS::ExactlyOnce);
        let publisher = Peer::clean(&mut w, "pub");
        publisher.ask(&mut w, Packet::Publish(message("a/1", QoS::ExactlyOnce, 1, b"1")));
        publisher.ask(&mut w, Packet::Pubrel(ack(1)));
        assert_eq!(one.payloads(&mut w), ["1"]);
        let two = member(&mut w, 0, "two", QoS::ExactlyOnce);
        one.cut(&mut w);
        assert_eq!(two.payloads(&mut w), [""; 0]);
        if ends {
            Peer::clean(&mut w, "one").cut(&mut w);
        } else {
            w.advance(seconds(15));
            let one = come(&mut w, 0, "one");
            match one.read(&mut w).as_slice() {
                [Packet::Connack(_), Packet::Publish(p)] => {
                    assert!(p.dup && p.qos == QoS::ExactlyOnce && *p.payload == *b"1");
                    let id = p.packet_id.unwrap().get();
                    let answer = one.ask(&mut w, Packet::Pubrec(ack(id)));
                    assert!(matches!(answer.as_slice(), [Packet::Pubrel(_)]), "{answer:?}");
                    one.ask(&mut w, Packet::Pubcomp(ack(id)));
                }
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(two.payloads(&mut w), [""; 0]);
        publish(&mut w, publisher, 2..3);
    }
}

/// A member takes as much as its window allows; the rest waits in the log and goes to whoever has room.
#[test]
fn what_no_member_has_room_for_waits_in_the_log() {
    for workers in [1, 2] {
        let mut w = world(workers);
        let mut narrow = durable("one");
        narrow.properties.receive_maximum = Some(2);
        let (one, _) = Peer::connect(&mut w, workers - 1, narrow);
        one.subscribe(&mut w, FILTER, QoS::AtLeastOnce);
        let publisher = Peer::clean(&mut w, "pub");
        publish(&mut w, publisher, 1..31);
        let first = one.read(&mut w);
        assert_eq!(payloads(&first).len(), 2);
        let (two, _) = Peer::connect(&mut w, 0, durable("two"));
        join(&mut w, two);
        assert_eq!(all(&mut w, two).len(), 28);
        one.ask(&mut w, Packet::Puback(ack(1)));
        publish(&mut w, publisher, 31..32);
        let (mut last, more) = (all(&mut w, two), one.payloads(&mut w));
        last.extend(more.iter().map(|p| p.parse::<u16>().unwrap()));
        assert_eq!(last, [31]);
    }
}

/// Two durable groups and a plain durable subscription: each its own copy, none a second time.
#[test]
fn groups_and_plain_subscriptions_do_not_disturb_each_other() {
    let mut w = world(2);
    let one = member(&mut w, 0, "one", QoS::AtLeastOnce);
    one.subscribe(&mut w, "a/+", QoS::AtLeastOnce);
    one.subscribe(&mut w, "$share/other/a/#", QoS::AtLeastOnce);
    let publisher = Peer::clean(&mut w, "pub");
    publish(&mut w, publisher, 1..4);
    assert_eq!(all(&mut w, one), [1, 1, 1, 2, 2, 2, 3, 3, 3]);
    one.cut(&mut w);
    publish(&mut w, publisher, 4..6);
    let one = come(&mut w, 1, "one");
    assert_eq!(all(&mut w, one), [4, 4, 4, 5, 5, 5]);
    one.unsubscribe(&mut w, FILTER);
    publish(&mut w, publisher, 6..7);
    assert_eq!(all(&mut w, one), [6, 6]);
}

/// A group that only some of its members make durable goes on without them.
#[test]
fn a_group_whose_durable_member_ends_goes_on_with_the_others() {
    let mut w = world(2);
    let durable = member(&mut w, 0, "durable", QoS::AtLeastOnce);
    let publisher = Peer::clean(&mut w, "pub");
    durable.cut(&mut w);
    publish(&mut w, publisher, 1..4);
    let (passing, _) = Peer::connect(&mut w, 1, connect("passing", true, 0));
    join(&mut w, passing);
    assert_eq!(all(&mut w, passing), [1, 2, 3], "what waited");
    Peer::clean(&mut w, "durable").cut(&mut w);
    publish(&mut w, publisher, 4..6);
    assert_eq!(all(&mut w, passing), [4, 5]);
    w.advance(seconds(10));
    assert_eq!(w.keys(), [""; 0], "the group needs no record any more");
    publish(&mut w, publisher, 6..7);
    assert_eq!(all(&mut w, passing), [6]);
}

/// What the broker has acknowledged for a group survives its death, with or without a record of the group.
#[test]
fn a_group_comes_back_after_the_broker_died() {
    for written in [false, true] {
        let mut w = world(2);
        let one = member(&mut w, 0, "one", QoS::AtLeastOnce);
        let publisher = Peer::clean(&mut w, "pub");
        if written {
            publish(&mut w, publisher, 1..6);
            assert_eq!(all(&mut w, one).len(), 5);
            w.advance(seconds(6));
            assert!(w.keys().iter().any(|k| k.starts_with("default/g/")), "{:?}", w.keys());
        }
        // dealt and not acknowledged, or not even dealt
        publish(&mut w, publisher, 6..9);
        one.cut(&mut w);
        publish(&mut w, publisher, 9..12);
        w.crash();
        let one = come(&mut w, 1, "one");
        assert_eq!(all(&mut w, one), (6..12).collect::<Vec<_>>());
        Peer::clean(&mut w, "one").disconnect(&mut w);
        w.advance(seconds(3));
        assert_eq!(w.keys(), [""; 0]);
    }
}

/// Messages that nobody of the group has taken hold the log; those that were acknowledged do not.
#[test]
fn the_log_is_kept_for_a_group_and_let_go() {
    let mut w = world(2);
    let one = member(&mut w, 0, "one", QoS::AtLeastOnce);
    let publisher = Peer::clean(&mut w, "pub");
    one.cut(&mut w);
    publish(&mut w, publisher, 1..30);
    w.advance(seconds(25));
    let (passing, _) = Peer::connect(&mut w, 1, connect("passing", true, 0));
    join(&mut w, passing);
    assert_eq!(all(&mut w, passing).len(), 29);
    let one = come(&mut w, 0, "one");
    assert_eq!(all(&mut w, one), [0; 0]);
    w.advance(seconds(25));
    assert!(w.frames() <= 2, "{}", w.frames());
}

/// A broker that stops writes how far its groups have come: nothing that was acknowledged is repeated after the next start.
#[test]
fn a_group_is_written_when_the_broker_stops() {
    let mut w = world(2);
    let one = member(&mut w, 0, "one", QoS::AtLeastOnce);
    let publisher = Peer::clean(&mut w, "pub");
    publish(&mut w, publisher, 1..6);
    assert_eq!(all(&mut w, one).len(), 5);
    publish(&mut w, publisher, 6..8);
    w.workers.iter_mut().for_each(crate::worker::Worker::shut_down);
    w.run();
    w.crash();
    let one = come(&mut w, 1, "one");
    assert_eq!(all(&mut w, one), [6, 7]);
}

/// What was on its way to a member's last connection comes when the next one has said already that it is here: the group must
/// not take the member for gone because of that.
#[test]
fn a_message_for_the_connection_before_does_not_shut_a_member_out() {
    let mut w = World::new(1, 2, BrokerConfig::default());
    let peer = member(&mut w, 0, "m", QoS::AtLeastOnce);
    let (source, _) = Peer::connect(&mut w, 1, connect("source", true, 0));
    publish(&mut w, source, 1..2);
    assert_eq!(all(&mut w, peer), [1]);
    let mut route = w.shared.router.group(Group::of(FILTER).id).unwrap();
    let mut member = route.members.remove(0);
    member.address.slot = 77;
    let late = message("a/x", QoS::AtLeastOnce, 1, b"late");
    let view = View { publisher: NOBODY, expires_at: u64::MAX, publish: &late, plain: None };
    let deal = Deal { group: route.group, member, message: view.to_message(), tried: Tried::new() };
    let mail = ShareMail::Logged { deal: Box::new(deal), shard: Shard(0), pos: Pos::new(99, 0) };
    let mut batch = Handover::default();
    batch.push_mail(mail);
    w.workers[0].mail(Mail::Forward(batch));
    w.run();
    publish(&mut w, source, 2..4);
    assert_eq!(all(&mut w, peer), [2, 3]);
}
