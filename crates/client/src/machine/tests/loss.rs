//! Loss of the connection anywhere: QoS 2 arrives once, QoS 1 at least once, both in order, in both directions.

use proptest::prelude::*;

use super::peer::{Step, ToClient};
use super::*;

const MESSAGES: usize = 9;

fn qos_of(index: usize) -> QoS {
    QoS::from_u8(u8::try_from(index % 3).unwrap()).unwrap()
}

/// Runs to the end with connections that break after so many bytes each; the last one lasts.
fn run(options: Options, cuts: &[usize], chunk: usize) -> (World, usize) {
    let mut world = World::new(options);
    world.peer.to_client = (0..MESSAGES)
        .map(|index| ToClient { payload: format!("down {index}"), qos: qos_of(index), step: Step::Queued })
        .collect();
    let mut next = 0;
    let mut carried = 0;
    for budget in cuts.iter().copied().chain([usize::MAX / 2]) {
        world.connect();
        let mut left = budget;
        loop {
            while next < MESSAGES && world.machine.can_publish(qos_of(next)) {
                world.publish(&format!("up {next}"), qos_of(next), next);
                next += 1;
            }
            let before = left;
            left = world.carry(left, chunk);
            if left == before || left == 0 {
                break;
            }
        }
        carried += budget - left;
    }
    (world, carried)
}

fn first_occurrences(all: &[String]) -> Vec<String> {
    let mut seen = Vec::new();
    for one in all {
        if !seen.contains(one) {
            seen.push(one.clone());
        }
    }
    seen
}

/// The rules of 4.3 and 4.6 for one direction.
fn check(direction: &str, got: &[String], lossless: bool) {
    for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
        let sent: Vec<String> =
            (0..MESSAGES).filter(|i| qos_of(*i) == qos).map(|i| format!("{direction} {i}")).collect();
        let here: Vec<String> = got.iter().filter(|message| sent.contains(message)).cloned().collect();
        match qos {
            // [MQTT-4.3.1-1] at most once; a lost connection may take it along.
            QoS::AtMostOnce => {
                assert_eq!(here, first_occurrences(&here), "QoS 0 came twice");
                assert!(!lossless || here == sent, "QoS 0 was lost without a loss of the connection");
            }
            // [MQTT-4.3.2-1], [MQTT-4.6.0-1]
            QoS::AtLeastOnce => assert_eq!(first_occurrences(&here), sent, "QoS 1 was lost or out of order"),
            // [MQTT-4.3.3-1]
            QoS::ExactlyOnce => assert_eq!(here, sent, "QoS 2 came not exactly once and in order"),
        }
    }
    let in_order: Vec<String> =
        (0..MESSAGES).filter(|i| qos_of(*i) != QoS::AtMostOnce).map(|i| format!("{direction} {i}")).collect();
    let mut first: Vec<String> = first_occurrences(got);
    first.retain(|message| in_order.contains(message));
    assert_eq!(first, in_order, "QoS 1 and 2 overtook each other");
}

fn check_world(world: &World, lossless: bool) {
    check("up", &world.peer.taken, lossless);
    check("down", &world.delivered, lossless);
    let mut tokens: Vec<usize> = world.published.iter().map(|(token, _)| *token).collect();
    tokens.sort_unstable();
    assert_eq!(tokens, (0..MESSAGES).collect::<Vec<_>>(), "each message completes once");
    assert!(world.published.iter().all(|(_, result)| result.is_ok()), "{:?}", world.published);
    // [MQTT-3.3.1-1] what is sent again says so and keeps its identifier [MQTT-4.4.0-1].
    let mut seen: Vec<(String, Option<u16>)> = Vec::new();
    for (payload, id, dup) in &world.peer.publishes {
        if let Some((_, earlier)) = seen.iter().find(|(known, _)| known == payload) {
            assert_eq!(earlier, id);
            assert!(dup, "{payload} came again without DUP");
        }
        seen.push((payload.clone(), *id));
    }
    assert!(world.peer.unreleased.is_empty());
    assert!(world.peer.to_client.iter().all(|message| message.step == Step::Done));
}

/// [MQTT-4.6.0-1], [v3 MQTT-4.6.0-1]: each QoS stays in its order, however often the connection breaks.
#[test]
fn a_connection_lost_at_any_byte_loses_and_repeats_nothing_of_qos_2() {
    for version in [Version::V31, Version::V311, Version::V5] {
        let (whole, bytes) = run(options(version), &[], usize::MAX);
        check_world(&whole, true);
        for cut in 0..bytes {
            for chunk in [1, 7, usize::MAX] {
                let (world, _) = run(options(version), &[cut], chunk);
                check_world(&world, false);
            }
        }
    }
}

#[test]
fn a_connection_lost_twice_is_no_different() {
    let (_, bytes) = run(options(Version::V5), &[], usize::MAX);
    for first in (0..bytes).step_by(7) {
        for second in (0..bytes).step_by(5) {
            let (world, _) = run(options(Version::V5), &[first, second], 3);
            check_world(&world, false);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn any_number_of_losses_with_any_window_keeps_the_rules(
        cuts in prop::collection::vec(0_usize..700, 0..8),
        chunk in 1_usize..50,
        window in 1_u16..5,
        granted in 1_u16..5,
    ) {
        let mut options = options(Version::V5);
        options.max_inflight = window;
        options.receive_maximum = Some(granted);
        let (world, _) = run(options, &cuts, chunk);
        check_world(&world, cuts.is_empty());
        // [MQTT-3.3.4-7]
        prop_assert!(world.peer.most_unacknowledged <= usize::from(window));
    }

    #[test]
    fn no_bytes_of_a_broker_do_harm(bytes in prop::collection::vec(any::<u8>(), 0..300), connected in any::<bool>()) {
        let mut world = World::new(options(Version::V5));
        world.connect();
        if connected {
            world.settle();
        }
        for chunk in bytes.chunks(13) {
            world.machine.receive(chunk, world.now);
            world.drain();
        }
        world.machine.finish();
        prop_assert!(!world.machine.is_open());
    }
}
