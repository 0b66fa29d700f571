//! Behaviours of lanes. A lane may lose a frame, but not in silence and not its order.

#![allow(missing_docs, reason = "a behaviour is said by its name")]

use bytes::Bytes;

use super::{LaneEvent, Make, PATIENCE, Probe, Setup};
use crate::{Destination, NodeId, Port};

/// Sends frames until one of `last` has arrived, and gives all that were accepted. (The last frame before a silence may be lost
/// and nobody told until the next one.)
fn send_until_one_arrives(from: &Probe, to: &Probe, frames: u32, last: &str) -> Vec<Bytes> {
    let mut accepted = Vec::new();
    let mut send = |frame: String| {
        let frame = Bytes::from(frame);
        let sent = from.send(to.address(), frame.clone()).is_ok();
        accepted.extend(sent.then_some(frame));
        sent
    };
    for i in 0..frames {
        send(format!("{i}"));
    }
    let arrived = |events: &[LaneEvent]| {
        events.iter().any(|e| matches!(e, LaneEvent::Frame(_, _, frame) if frame == last.as_bytes()))
    };
    for _ in 0..PATIENCE.as_secs() * 20 {
        send(last.to_owned());
        if to.lane_within(std::time::Duration::from_millis(50), arrived) {
            break;
        }
    }
    to.lanes("the last frame", arrived);
    accepted
}

/// Checks the events of one sender against what was accepted from it.
fn check(accepted: &[Bytes], events: &[LaneEvent], node: NodeId, port: Port) {
    let mut expected = accepted.iter();
    for event in events {
        match event {
            LaneEvent::Frame(n, p, frame) if (*n, *p) == (node, port) => {
                assert_eq!(Some(frame), expected.next(), "in order, each once");
            }
            LaneEvent::Gap(n, p, missing) if (*n, *p) == (node, port) => {
                assert!(*missing > 0, "an empty gap");
                (0..*missing).for_each(|_| assert!(expected.next().is_some(), "more missing than sent"));
            }
            _ => {}
        }
    }
}

pub fn frames_arrive_in_order_with_their_sender(make: Make) {
    let engine = make(Setup::default());
    let [a, b, to] = [(); 3].map(|()| Probe::new(&engine));
    std::thread::scope(|scope| {
        for (from, last) in [(&a, "end of a"), (&b, "end of b")] {
            let (to, node) = (&to, engine.node());
            scope.spawn(move || {
                let accepted = send_until_one_arrives(from, to, 500, last);
                check(&accepted, &to.lanes("all", |_| true), node, from.port());
            });
        }
    });
    // A probe can send to itself.
    let accepted = send_until_one_arrives(&a, &a, 10, "end");
    check(&accepted, &a.lanes("all", |_| true), engine.node(), a.port());
}

pub fn a_frame_reaches_its_destination_only(make: Make) {
    let engine = make(Setup::default());
    let [from, b, c] = [(); 3].map(|()| Probe::new(&engine));
    send_until_one_arrives(&from, &b, 5, "for b");
    send_until_one_arrives(&from, &c, 0, "for c");
    let stray = |e: &LaneEvent| matches!(e, LaneEvent::Frame(_, _, frame) if frame != "for c");
    assert!(!c.lanes("all", |_| true).iter().any(stray));
}

pub fn every_accepted_frame_arrives_or_is_told_missing(make: Make) {
    let engine = make(Setup { lane_queue: 8, ..Setup::default() });
    let [from, to] = [(); 2].map(|()| Probe::new(&engine));
    let accepted = send_until_one_arrives(&from, &to, 20_000, "end");
    check(&accepted, &to.lanes("all", |_| true), engine.node(), from.port());
}

pub fn an_unknown_destination_is_no_disaster(make: Make) {
    let engine = make(Setup::default());
    let [from, to] = [(); 2].map(|()| Probe::new(&engine));
    let strangers = [
        Destination { node: NodeId(u64::MAX), port: to.port() },
        Destination { node: engine.node(), port: Port(u16::MAX) },
    ];
    for stranger in strangers {
        // Refused or lost, as the engine knows.
        let _ = from.send(stranger, "lost");
    }
    let accepted = send_until_one_arrives(&from, &to, 3, "end");
    check(&accepted, &to.lanes("all", |_| true), engine.node(), from.port());
}
