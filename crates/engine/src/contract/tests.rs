//! That the faulty engine fails as it is told, and that the suite's own tools see what they should.

use std::sync::Arc;
use std::time::Instant;

use super::{Faults, Faulty, LaneEvent, Probe, WatchEvent, id, key, seed, watch::play};
use crate::memory::{MemoryConfig, MemoryEngine};
use crate::{Change, Engine, EngineError, Op, Pos, Reply, Rev, Shard, Write};

const S: Shard = Shard(0);
const N: u64 = 400;

#[expect(clippy::disallowed_methods, reason = "the tests of threads run on real time")]
fn clock() -> Instant {
    Instant::now()
}

fn faulty(faults: Faults) -> (Arc<dyn Engine>, Arc<dyn Engine>) {
    let inner = MemoryEngine::new(MemoryConfig::default(), clock);
    (Faulty::new(Arc::clone(&inner), faults), inner)
}

fn append(n: u64) -> Op {
    Op::Append { shard: S, frame: format!("{n}").into(), id: id(1, n), fence: None }
}

/// Submits appends one by one; for each its answer, and whether it lies in the log inside.
fn appended(faults: Faults) -> Vec<(Result<Reply, EngineError>, bool)> {
    let (engine, inner) = faulty(faults);
    let probe = Probe::new(&engine);
    let tokens = probe.submit((0..N).map(append).collect());
    let answers: Vec<_> = tokens.into_iter().map(|token| probe.answer(token)).collect();
    let log = Probe::new(&inner).read_all(S, Pos::START);
    let lies = |n: usize| log.iter().any(|f| f.bytes == format!("{n}"));
    answers.into_iter().enumerate().map(|(n, answer)| (answer, lies(n))).collect()
}

#[test]
fn without_faults_everything_passes() {
    let done = appended(Faults::NONE);
    assert!(done.into_iter().all(|(answer, lies)| answer.is_ok() && lies));
}

#[test]
fn busy_has_no_effect_and_comes_as_often_as_asked() {
    let done = appended(Faults { seed: seed(), busy: 0.5, ..Faults::NONE });
    assert!(done.iter().all(|(answer, lies)| *lies == answer.is_ok()));
    let busy = done.iter().filter(|(answer, _)| *answer == Err(EngineError::Busy)).count();
    assert!((100..300).contains(&busy), "{busy} of {N}");
}

#[test]
fn what_became_of_an_unknown_or_unavailable_append_is_a_coin() {
    for error in [EngineError::Unknown, EngineError::Unavailable] {
        let rate = |of| if of == error { 1.0 } else { 0.0 };
        let (unknown, unavailable) = (rate(EngineError::Unknown), rate(EngineError::Unavailable));
        let done = appended(Faults { seed: seed(), unknown, unavailable, ..Faults::NONE });
        assert!(done.iter().all(|(answer, _)| *answer == Err(error)));
        let happened = done.iter().filter(|(_, lies)| *lies).count();
        assert!((100..300).contains(&happened), "{happened} of {N}");
    }
}

#[test]
fn an_unavailable_put_has_had_no_effect() {
    let (engine, inner) = faulty(Faults { seed: seed(), unavailable: 1.0, ..Faults::NONE });
    let probe = Probe::new(&engine);
    for n in 0..20 {
        let writes = vec![Write::put(key(&format!("{n}")), "x")];
        assert_eq!(probe.ask(Op::Put { writes }), Err(EngineError::Unavailable));
    }
    assert_eq!(Probe::new(&inner).scan(&key(""), None, 10), (vec![], false));
}

#[test]
fn lost_lane_frames_are_told_with_the_next_one() {
    let (engine, _) = faulty(Faults { seed: seed(), lane_loss: 0.5, ..Faults::NONE });
    let probe = Probe::new(&engine);
    for n in 0..N {
        probe.send(probe.address(), format!("{n}")).expect("there is room");
    }
    let total = |events: &[LaneEvent]| -> u64 {
        events.iter().map(|e| if let LaneEvent::Gap(_, _, missing) = e { *missing } else { 1 }).sum()
    };
    let mut sent = N;
    while !probe.lane_within(std::time::Duration::from_millis(20), |events| total(events) == sent) {
        probe.send(probe.address(), "more").expect("there is room");
        sent += 1;
    }
    let events = probe.lanes("all", |_| true);
    let gaps = events.iter().filter(|e| matches!(e, LaneEvent::Gap(..))).count();
    assert!((50..200).contains(&gaps), "{gaps} gaps");
}

#[test]
fn answers_overtake_each_other_when_delayed() {
    let (engine, _) = faulty(Faults { seed: seed(), delay: 50, ..Faults::NONE });
    let probe = Probe::new(&engine);
    let tokens = probe.submit((0..100).map(append).collect());
    let order = probe.answered_in_order(&tokens);
    assert!(!order.is_sorted(), "{order:?}");
}

fn change(k: &str, value: Option<&'static str>, rev: u64) -> WatchEvent {
    WatchEvent::Change(Change { key: key(k), value: value.map(Into::into), rev: Rev(rev) })
}

#[test]
fn the_player_of_watches_follows_changes_and_deletions() {
    let events =
        [change("b", Some("1"), 5), change("a", Some("1"), 2), WatchEvent::Ready, change("b", None, 6)];
    assert_eq!(play(&events).into_iter().collect::<Vec<_>>(), [(key("a"), b"1".to_vec())]);
}

#[test]
#[should_panic(expected = "after")]
fn the_player_of_watches_refuses_changes_out_of_order() {
    play(&[WatchEvent::Ready, change("a", Some("1"), 5), change("b", Some("1"), 4)]);
}

#[test]
#[should_panic(expected = "broke the contract")]
fn a_probe_refuses_a_token_that_is_answered_twice() {
    let (engine, _) = faulty(Faults::NONE);
    let probe = Probe::new(&engine);
    let token = probe.submit(vec![Op::Head { shard: S }])[0];
    probe.answer(token).expect("the engine has no faults");
    engine.submit(probe.port(), vec![(token, Op::Head { shard: S })]);
    probe.head(S);
}
