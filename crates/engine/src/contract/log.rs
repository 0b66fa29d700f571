//! Behaviours of the log.

#![allow(missing_docs, reason = "a behaviour is said by its name")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::{Make, Probe, Setup, id};
use crate::{Engine, EngineError, LogFrame, Op, Pos, Reply, Shard};

const S: Shard = Shard(0);
const OTHER: Shard = Shard(1);

/// Appends frames `0..n` as one appender and gives their sequences.
fn append(probe: &Probe, appender: u64, n: u64) -> Vec<u64> {
    (0..n).map(|i| probe.append(S, format!("{appender}:{i}"), id(appender, i))).collect()
}

fn seqs(frames: &[LogFrame]) -> Vec<u64> {
    frames.iter().map(|f| f.seq).collect()
}

pub fn appends_get_ascending_sequences_from_one(make: Make) {
    let probe = Probe::new(&make(Setup::default()));
    assert_eq!(append(&probe, 1, 100), (1..=100).collect::<Vec<_>>());
    let all = probe.read_all(S, Pos::START);
    let expected: Vec<_> =
        (0..100).map(|i| LogFrame { seq: i + 1, bytes: format!("1:{i}").into() }).collect();
    assert_eq!(all, expected);
}

pub fn a_repeated_append_gets_the_first_sequence_and_has_no_effect(make: Make) {
    let probe = Probe::new(&make(Setup::default()));
    append(&probe, 1, 3);
    assert_eq!(probe.append(S, "1:1", id(1, 1)), 2);
    assert_eq!(probe.append(S, "other bytes under the same id", id(1, 1)), 2);
    assert_eq!(probe.head(S), Pos::end_of(3));
    assert_eq!(probe.append(S, "1:3", id(1, 3)), 4);
    assert_eq!(probe.read_all(S, Pos::START)[1].bytes, "1:1");
}

pub fn a_dedupe_id_counts_in_its_shard_only(make: Make) {
    let probe = Probe::new(&make(Setup::default()));
    probe.append(S, "a", id(1, 1));
    probe.append(S, "b", id(1, 2));
    assert_eq!(probe.append(OTHER, "c", id(1, 2)), 1, "shards have their own sequences and ids");
    assert_eq!(probe.head(S), Pos::end_of(2));
    assert_eq!(probe.head(OTHER), Pos::end_of(1));
}

pub fn a_shard_that_does_not_exist_is_refused(make: Make) {
    let engine = make(Setup::default());
    let probe = Probe::new(&engine);
    let shard = Shard(engine.guarantees().shards);
    assert_eq!(probe.settle(&Op::Head { shard }), Err(EngineError::Corrupt));
    probe.tail(shard, Pos::START);
    assert_eq!(probe.head(S), Pos::START, "the engine lives on");
}

pub fn a_frame_of_the_largest_size_is_taken_and_a_larger_one_is_not(make: Make) {
    let engine = make(Setup::default());
    let probe = Probe::new(&engine);
    let max = engine.guarantees().max_frame;
    probe.tail(S, Pos::START);
    let frame = |len| Op::Append { shard: S, frame: vec![7; len].into(), id: id(1, len as u64), fence: None };
    assert_eq!(probe.settle(&frame(max + 1)), Err(EngineError::TooLarge));
    assert_eq!(probe.settle(&frame(max)), Ok(Reply::Appended { seq: 1 }));
    let frames = probe.frames_until(S, 1);
    assert_eq!((frames.len(), frames[0].bytes.len()), (1, max));
}

pub fn the_head_follows_the_last_append(make: Make) {
    let probe = Probe::new(&make(Setup::default()));
    assert_eq!(probe.head(S), Pos::START);
    for i in 0..10 {
        let seq = probe.append(S, "x", id(1, i));
        assert_eq!(probe.head(S), Pos::end_of(seq));
    }
}

pub fn a_read_pages_through_the_log_in_order(make: Make) {
    let probe = Probe::new(&make(Setup::default()));
    for i in 0..50 {
        probe.append(S, vec![b'x'; 100], id(1, i));
    }
    let (mut after, mut all) = (Pos::START, Vec::new());
    loop {
        let page = probe.read(S, after, 350).expect("nothing was trimmed");
        let Some(last) = page.last() else { break };
        let before_last: usize = page[..page.len() - 1].iter().map(|f| f.bytes.len()).sum();
        assert!(before_last <= 350, "a page of {} frames", page.len());
        after = Pos::end_of(last.seq);
        all.extend(page);
    }
    assert_eq!(seqs(&all), (1..=50).collect::<Vec<_>>());
}

pub fn a_read_gives_at_least_one_frame(make: Make) {
    let probe = Probe::new(&make(Setup::default()));
    probe.append(S, vec![b'x'; 1000], id(1, 1));
    assert_eq!(seqs(&probe.read(S, Pos::START, 1).expect("nothing was trimmed")), [1]);
}

pub fn a_read_at_the_end_is_empty(make: Make) {
    let probe = Probe::new(&make(Setup::default()));
    assert_eq!(probe.read(S, Pos::START, 1000), Ok(vec![]));
    append(&probe, 1, 2);
    assert_eq!(probe.read(S, Pos::end_of(2), 1000), Ok(vec![]));
    assert_eq!(probe.read(S, Pos::new(2, 0), 1000), Ok(vec![]), "a position within a frame is after it");
}

pub fn a_read_below_the_trim_is_truncated(make: Make) {
    let probe = Probe::new(&make(Setup::default()));
    append(&probe, 1, 10);
    probe.trim(S, Pos::new(6, 0));
    let first = Pos::end_of(5);
    assert_eq!(probe.read(S, Pos::START, 1000), Err(EngineError::Truncated { first }));
    assert_eq!(probe.read(S, Pos::end_of(4), 1000), Err(EngineError::Truncated { first }));
    assert_eq!(
        seqs(&probe.read(S, first, 1000).expect("it lies at the first that is left")),
        [6, 7, 8, 9, 10]
    );
}

pub fn a_trim_keeps_the_frame_of_its_position(make: Make) {
    let probe = Probe::new(&make(Setup::default()));
    append(&probe, 1, 4);
    probe.trim(S, Pos::end_of(3));
    assert_eq!(seqs(&probe.read_all(S, Pos::end_of(2))), [3, 4]);
    probe.trim(S, Pos::new(2, 0));
    assert_eq!(seqs(&probe.read_all(S, Pos::end_of(2))), [3, 4], "trimming lower changes nothing");
}

pub fn a_trim_beyond_the_head_does_not_move_the_head(make: Make) {
    let probe = Probe::new(&make(Setup::default()));
    append(&probe, 1, 3);
    probe.trim(S, Pos::new(1000, 0));
    assert_eq!(probe.head(S), Pos::end_of(3));
    assert_eq!(probe.read(S, Pos::end_of(1), 100), Err(EngineError::Truncated { first: Pos::end_of(3) }));
    assert_eq!(probe.read(S, Pos::end_of(3), 100), Ok(vec![]));
    assert_eq!(probe.append(S, "after", id(2, 1)), 4);
    assert_eq!(seqs(&probe.read_all(S, Pos::end_of(3))), [4]);
}

pub fn two_tails_see_one_order(make: Make) {
    const APPENDERS: u64 = 4;
    const EACH: u64 = 100;
    let engine = make(Setup::default());
    let tails = [Probe::new(&engine), Probe::new(&engine)];
    tails[0].tail(S, Pos::START);
    std::thread::scope(|scope| {
        for appender in 0..APPENDERS {
            let probe = Probe::new(&engine);
            scope.spawn(move || append(&probe, appender, EACH));
        }
    });
    tails[1].tail(S, Pos::START);
    let [live, late] = tails.map(|tail| tail.frames_until(S, APPENDERS * EACH));
    assert_eq!(live, late);
    assert_eq!(seqs(&live), (1..=APPENDERS * EACH).collect::<Vec<_>>());
    for appender in 0..APPENDERS {
        let prefix = format!("{appender}:");
        let own: Vec<_> = live.iter().filter(|f| f.bytes.starts_with(prefix.as_bytes())).collect();
        let expected: Vec<_> = (0..EACH).map(|i| format!("{appender}:{i}")).collect();
        assert_eq!(own.iter().map(|f| f.bytes.clone()).collect::<Vec<_>>(), expected, "each once, in order");
    }
}

pub fn a_tail_begins_after_its_position(make: Make) {
    let probe = Probe::new(&make(Setup::default()));
    append(&probe, 1, 10);
    probe.tail(S, Pos::end_of(6));
    assert_eq!(seqs(&probe.frames_until(S, 10)), [7, 8, 9, 10]);
    probe.append(S, "live", id(2, 1));
    assert_eq!(seqs(&probe.frames_until(S, 11)), [11]);
}

pub fn a_tail_waits_for_the_first_append(make: Make) {
    let engine = make(Setup::default());
    let (tail, probe) = (Probe::new(&engine), Probe::new(&engine));
    tail.tail(S, Pos::START);
    assert_eq!(tail.head(S), Pos::START);
    append(&probe, 1, 1);
    assert_eq!(seqs(&tail.frames_until(S, 1)), [1]);
}

pub fn a_tail_during_appends_has_no_gap_and_no_duplicate(make: Make) {
    let engine = make(Setup::default());
    let stop = Arc::new(AtomicBool::new(false));
    let appender = {
        let (engine, stop) = (Arc::clone(&engine), Arc::clone(&stop));
        std::thread::spawn(move || append_until(&engine, &stop))
    };
    let probe = Probe::new(&engine);
    for _ in 0..20 {
        let from = probe.head(S);
        let tail = Probe::new(&engine);
        tail.tail(S, from);
        let frames = tail.frames_until(S, from.seq() + 20);
        let expected: Vec<_> = (from.seq() + 1..).take(frames.len()).collect();
        assert_eq!(seqs(&frames), expected);
    }
    stop.store(true, Ordering::Relaxed);
    appender.join().expect("the appender lives");
}

fn append_until(engine: &Arc<dyn Engine>, stop: &AtomicBool) {
    let probe = Probe::new(engine);
    for i in 0.. {
        probe.append(S, "x", id(9, i));
        if stop.load(Ordering::Relaxed) {
            return;
        }
    }
}

pub fn a_tail_below_the_trim_is_told_and_goes_on(make: Make) {
    let probe = Probe::new(&make(Setup::default()));
    append(&probe, 1, 10);
    probe.trim(S, Pos::new(8, 0));
    probe.tail(S, Pos::end_of(2));
    assert_eq!(probe.truncated(S), Pos::end_of(7));
    assert_eq!(seqs(&probe.frames_until(S, 10)), [8, 9, 10]);
}

pub fn a_second_tail_call_moves_the_tail(make: Make) {
    let probe = Probe::new(&make(Setup::default()));
    append(&probe, 1, 5);
    probe.tail(S, Pos::START);
    assert_eq!(seqs(&probe.frames_until(S, 5)), [1, 2, 3, 4, 5]);
    probe.tail(S, Pos::end_of(3));
    assert_eq!(seqs(&probe.frames_until(S, 5)), [4, 5]);
    probe.append(S, "live", id(2, 1));
    assert_eq!(seqs(&probe.frames_until(S, 6)), [6], "one tail, not two");
}

pub fn a_long_log_is_tailed_in_pieces(make: Make) {
    let engine = make(Setup::default());
    let probe = Probe::new(&engine);
    let size = engine.guarantees().max_frame.min(300_000);
    let frame = bytes::Bytes::from(vec![b'x'; size]);
    for i in 0..60 {
        probe.append(S, frame.clone(), id(1, i));
    }
    // The probe refuses arrivals of more than 1 MiB.
    probe.tail(S, Pos::START);
    assert_eq!(seqs(&probe.frames_until(S, 60)), (1..=60).collect::<Vec<_>>());
}
