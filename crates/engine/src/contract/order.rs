//! Behaviours of submitting: order, bounds, exactly one answer, the end.

#![allow(missing_docs, reason = "a behaviour is said by its name")]

use std::collections::HashSet;

use super::{LONG, Make, Probe, Setup, id, key};
use crate::{EngineError, Op, Pos, Reply, Shard, Write};

const S: Shard = Shard(0);

fn append(appender: u64, n: u64) -> Op {
    Op::Append { shard: S, frame: format!("{n}").into(), id: id(appender, n), fence: None }
}

/// One of each operation.
fn mixed(appender: u64, n: u64) -> Vec<Op> {
    let k = key(&format!("k{}", n % 5));
    vec![
        append(appender, n),
        Op::Read { shard: S, after: Pos::new(n, 0), max_bytes: 1000 },
        Op::Head { shard: S },
        Op::Put { writes: vec![Write::put(k.clone(), format!("{n}"))] },
        Op::Get { key: k },
        Op::Scan { prefix: key("k"), after: None, limit: 3 },
        Op::Barrier { prefix: key("k") },
        Op::Acquire { key: key("lease"), holder: appender, ttl: LONG },
        Op::Release { key: key("lease"), holder: appender },
        Op::Trim { shard: S, before: Pos::START },
    ]
}

fn may_come_at_any_time(error: EngineError) -> bool {
    matches!(error, EngineError::Unavailable | EngineError::Unknown | EngineError::Busy)
}

pub fn the_guarantees_are_within_range(make: Make) {
    let engine = make(Setup::default());
    let g = engine.guarantees();
    assert!(["memory", "embedded", "nats"].contains(&g.kind), "{g:?}");
    assert!((2..=64).contains(&g.shards) && g.replicas >= 1, "{g:?}");
    assert!(g.max_frame >= 1 << 10 && g.max_value >= 1 << 10, "{g:?}");
    assert_eq!(g, engine.guarantees());
    assert_eq!(engine.node(), engine.node());
}

pub fn every_token_is_answered_exactly_once(make: Make) {
    let engine = make(Setup { queue: 64, ..Setup::default() });
    std::thread::scope(|scope| {
        for appender in 0..4 {
            let probe = Probe::new(&engine);
            scope.spawn(move || {
                let tokens: Vec<_> = (0..50).flat_map(|n| probe.submit(mixed(appender, n))).collect();
                for token in tokens {
                    match probe.answer(token) {
                        Ok(_) | Err(EngineError::Fenced { .. }) => {}
                        Err(error) => assert!(may_come_at_any_time(error), "{error:?}"),
                    }
                }
                // A second answer to any of them would come before this one, and the probe refuses it.
                probe.barrier(&key("k"));
            });
        }
    });
}

pub fn a_large_batch_is_answered_to_the_last(make: Make) {
    let probe = Probe::new(&make(Setup::default()));
    let tokens = probe.submit((0..5000).map(|n| append(1, n)).collect());
    let mut last = 0;
    for token in tokens {
        match probe.answer(token) {
            Ok(Reply::Appended { seq }) => {
                assert!(seq > last, "{seq} after {last}");
                last = seq;
            }
            Err(error) if may_come_at_any_time(error) => {}
            other => panic!("{other:?}"),
        }
    }
    assert!(probe.head(S) >= Pos::end_of(last));
}

pub fn the_effects_of_a_port_come_in_the_order_submitted(make: Make) {
    let probe = Probe::new(&make(Setup::default()));
    let k = key("k");
    for round in 0..10_u64 {
        let put = |n: u64| Op::Put { writes: vec![Write::put(k.clone(), format!("{}", round * 20 + n))] };
        let mut ops: Vec<_> = (0..20).flat_map(|n| [put(n), append(1, round * 20 + n)]).collect();
        ops.push(Op::Get { key: k.clone() });
        let tokens = probe.submit(ops);
        let mut answers: Vec<_> = tokens.iter().map(|&token| probe.answer(token)).collect();
        let got = answers.pop().expect("the get was the last");
        let appended: Vec<_> = answers
            .iter()
            .filter_map(|a| if let Ok(Reply::Appended { seq }) = a { Some(*seq) } else { None })
            .collect();
        assert!(appended.is_sorted_by(|a, b| a < b), "{appended:?}");
        let Ok(Reply::Got(record)) = got else { continue };
        let puts = answers.iter().step_by(2).collect::<Vec<_>>();
        let last_ok = puts.iter().rposition(|a| a.is_ok()).map(|n| round * 20 + n as u64);
        let value = record.and_then(|r| std::str::from_utf8(&r.value).ok()?.parse::<u64>().ok());
        assert!(value >= last_ok, "{value:?} after {last_ok:?}");
        if let Some(n) = value.and_then(|v| v.checked_sub(round * 20)) {
            let answer = puts[usize::try_from(n).expect("below 20")];
            assert!(matches!(answer, Ok(_) | Err(EngineError::Unknown)), "{answer:?} but it happened");
        }
    }
}

pub fn a_busy_operation_has_had_no_effect(make: Make) {
    let engine = make(Setup { queue: 8, ..Setup::default() });
    let probe = Probe::new(&engine);
    let tokens = probe.submit((0..500).map(|n| append(1, n)).collect());
    let answers: Vec<_> = tokens.iter().map(|&token| probe.answer(token)).collect();
    let log: Vec<_> = probe.read_all(S, Pos::START);
    let in_log: HashSet<_> = log.iter().map(|f| f.bytes.clone()).collect();
    assert_eq!(in_log.len(), log.len());
    for (n, answer) in answers.iter().enumerate() {
        let there = in_log.contains(format!("{n}").as_bytes());
        match answer {
            Ok(Reply::Appended { seq }) => {
                let frame = log.iter().find(|f| f.seq == *seq).expect("it was acknowledged");
                assert_eq!(frame.bytes, format!("{n}"));
            }
            Err(EngineError::Busy) => assert!(!there, "{n} was refused and happened"),
            Err(EngineError::Unknown | EngineError::Unavailable) => {}
            other => panic!("{other:?}"),
        }
    }
}

pub fn shutdown_answers_what_was_submitted(make: Make) {
    let engine = make(Setup::default());
    let probe = Probe::new(&engine);
    let tokens: Vec<_> = (0..50).flat_map(|n| probe.submit(mixed(1, n))).collect();
    engine.shutdown();
    for token in tokens {
        if let Err(error) = probe.answer(token) {
            assert!(may_come_at_any_time(error), "{error:?}");
        }
    }
}

pub fn what_is_submitted_after_shutdown_is_answered_unavailable(make: Make) {
    let engine = make(Setup::default());
    let probe = Probe::new(&engine);
    probe.append(S, "before", id(1, 1));
    engine.shutdown();
    engine.shutdown();
    for op in mixed(1, 1) {
        assert_eq!(probe.ask(op), Err(EngineError::Unavailable));
    }
    probe.tail(S, Pos::START);
    probe.watch(&key("k"));
    assert!(probe.send(probe.address(), "late").is_err());
}
