//! Behaviours of the register.

#![allow(missing_docs, reason = "a behaviour is said by its name")]

use std::sync::Arc;

use super::watch::play;
use super::{Make, Probe, Setup, WatchEvent, key};
use crate::{Change, EngineError, Expect, Key, Op, Record, Rev, Write};

fn write(key: &Key, value: &str, expect: Expect) -> Write {
    Write { expect, ..Write::put(key.clone(), value.to_owned()) }
}

fn keys(records: &[Record]) -> Vec<Key> {
    records.iter().map(|r| r.key.clone()).collect()
}

fn conflict<T>(current: Rev) -> Result<T, EngineError> {
    Err(EngineError::Conflict { current })
}

pub fn a_record_is_read_back_with_its_revision(make: Make) {
    let engine = make(Setup::default());
    let (probe, other) = (Probe::new(&engine), Probe::new(&engine));
    let k = key("a");
    let rev = probe.set(&k, "one");
    assert_eq!(other.get(&k), Some(Record { key: k.clone(), value: "one".into(), rev }));
    let next = other.set(&k, "");
    assert!(next > rev);
    assert_eq!(probe.get(&k), Some(Record { key: k, value: "".into(), rev: next }), "empty is not absent");
}

pub fn a_missing_record_is_none(make: Make) {
    let probe = Probe::new(&make(Setup::default()));
    probe.set(&key("ab"), "x");
    assert_eq!(probe.get(&key("a")), None);
    assert_eq!(probe.get(&key("abc")), None);
}

pub fn revisions_grow_over_all_records(make: Make) {
    let probe = Probe::new(&make(Setup::default()));
    let revs: Vec<_> = (0..20).map(|i| probe.set(&key(&format!("k{}", i % 3)), format!("{i}"))).collect();
    assert!(revs[0] > Rev::NONE);
    assert!(revs.is_sorted_by(|a, b| a < b), "{revs:?}");
    let batch = [key("x"), key("y"), key("z")].map(|k| Write::put(k, "batch"));
    let batch = probe.put(&batch).expect("no condition");
    assert!(batch.len() == 3 && batch.is_sorted_by(|a, b| a < b) && batch[0] > revs[19], "{batch:?}");
}

pub fn a_record_that_must_be_absent_is_made_once(make: Make) {
    let engine = make(Setup::default());
    let k = key("once");
    let wins: usize = std::thread::scope(|scope| {
        let contend = |n: u32| {
            let (probe, k) = (Probe::new(&engine), k.clone());
            scope.spawn(move || probe.put(&[write(&k, &format!("by {n}"), Expect::Absent)]))
        };
        let threads: Vec<_> = (0..8).map(contend).collect();
        let results = threads.into_iter().map(|t| t.join().expect("the thread lives"));
        results
            .filter(|r| match r {
                Ok(_) => true,
                Err(EngineError::Conflict { current }) => *current == Rev::NONE,
                Err(other) => panic!("{other:?}"),
            })
            .count()
    });
    assert_eq!(wins, 1);
    let probe = Probe::new(&engine);
    let rev = probe.get(&k).expect("one of them made it").rev;
    assert_eq!(probe.put(&[write(&k, "again", Expect::Absent)]), conflict(rev));
    assert_eq!(probe.put(&[write(&k, "again", Expect::Rev(Rev::NONE))]), conflict(rev));
}

pub fn a_write_at_an_old_revision_conflicts_and_has_no_effect(make: Make) {
    let probe = Probe::new(&make(Setup::default()));
    let k = key("cas");
    let first = probe.set(&k, "1");
    let second = probe.put(&[write(&k, "2", Expect::Rev(first))]).expect("it is at this revision")[0];
    assert_eq!(probe.put(&[write(&k, "3", Expect::Rev(first))]), conflict(second));
    let delete = Write { expect: Expect::Rev(first), ..Write::delete(k.clone()) };
    assert_eq!(probe.settle(&Op::Put { writes: vec![delete] }), conflict(second));
    assert_eq!(probe.get(&k).map(|r| (r.value, r.rev)), Some(("2".into(), second)));
    let missing = key("missing");
    assert_eq!(probe.put(&[write(&missing, "x", Expect::Rev(second))]), conflict(Rev::NONE));
    assert_eq!(probe.get(&missing), None);
}

/// Each thread has a slot of its own in the value, so that after an unknown outcome or a conflict it can tell whether its own
/// increment happened.
pub fn increments_of_many_threads_add_up(make: Make) {
    const THREADS: usize = 4;
    const EACH: u32 = 50;
    let engine = make(Setup::default());
    let k = key("counter");
    Probe::new(&engine).set(&k, vec![0; THREADS]);
    std::thread::scope(|scope| {
        for slot in 0..THREADS {
            let (probe, k) = (Probe::new(&engine), k.clone());
            scope.spawn(move || (1..=EACH).for_each(|n| increment(&probe, &k, slot, n)));
        }
    });
    let value = Probe::new(&engine).get(&k).expect("it was made").value;
    let counts: Vec<u32> = value.iter().map(|&b| u32::from(b)).collect();
    assert_eq!(counts, [EACH; THREADS]);
}

fn increment(probe: &Probe, k: &Key, slot: usize, n: u32) {
    loop {
        let record = probe.get(k).expect("it was made");
        let mut value = record.value.to_vec();
        if u32::from(value[slot]) == n {
            return;
        }
        value[slot] += 1;
        let expect = Expect::Rev(record.rev);
        match probe.put(&[Write { expect, ..Write::put(k.clone(), value) }]) {
            Ok(_) => return,
            Err(EngineError::Conflict { .. }) => {}
            Err(other) => panic!("{other:?}"),
        }
    }
}

pub fn a_batch_happens_as_a_whole_or_not_at_all(make: Make) {
    let probe = Probe::new(&make(Setup::default()));
    let (a, b, c) = (key("a"), key("b"), key("c"));
    let rev = probe.set(&b, "before");
    let batch = vec![
        write(&a, "new", Expect::Any),
        write(&b, "new", Expect::Absent),
        write(&c, "new", Expect::Absent),
    ];
    assert_eq!(probe.put(&batch), conflict(rev));
    assert_eq!((probe.get(&a), probe.get(&c)), (None, None));
    assert_eq!(probe.get(&b).map(|r| r.value), Some("before".into()));
    let batch = vec![
        write(&a, "whole", Expect::Absent),
        write(&b, "whole", Expect::Rev(rev)),
        write(&c, "whole", Expect::Any),
    ];
    let revs = probe.put(&batch).expect("all expectations hold");
    let now: Vec<_> = [a, b, c].iter().map(|k| probe.get(k).expect("it was written")).collect();
    assert_eq!(now.iter().map(|r| r.rev).collect::<Vec<_>>(), revs);
    assert!(now.iter().all(|r| *r.value == *b"whole"));
}

pub fn a_key_twice_in_a_batch_conflicts(make: Make) {
    let probe = Probe::new(&make(Setup::default()));
    let (a, b) = (key("a"), key("b"));
    let writes = vec![Write::put(a.clone(), "1"), Write::put(b.clone(), "1"), Write::put(a.clone(), "2")];
    assert_eq!(probe.settle(&Op::Put { writes }), conflict(Rev::NONE));
    assert_eq!((probe.get(&a), probe.get(&b)), (None, None));
}

pub fn a_deleted_record_is_gone_and_deleting_it_again_succeeds(make: Make) {
    let probe = Probe::new(&make(Setup::default()));
    let k = key("gone");
    let rev = probe.set(&k, "x");
    let deleted = probe.put(&[Write::delete(k.clone())]).expect("no condition")[0];
    assert!(deleted > rev);
    assert_eq!(probe.get(&k), None);
    assert_eq!(probe.scan(&k, None, 10), (vec![], false));
    assert!(probe.put(&[Write::delete(k.clone())]).is_ok());
    let again = probe.put(&[write(&k, "y", Expect::Absent)]).expect("it is absent")[0];
    assert!(again > deleted);
}

pub fn a_value_of_the_largest_size_is_taken_and_a_larger_one_is_not(make: Make) {
    let engine = make(Setup::default());
    let probe = Probe::new(&engine);
    let max = engine.guarantees().max_value;
    let k = key("large");
    let batch = vec![Write::put(key("small"), "x"), Write::put(k.clone(), vec![7; max + 1])];
    assert_eq!(probe.put(&batch), Err(EngineError::TooLarge));
    assert_eq!((probe.get(&key("small")), probe.get(&k)), (None, None));
    probe.set(&k, vec![7; max]);
    assert_eq!(probe.get(&k).map(|r| r.value.len()), Some(max));
}

pub fn a_scan_pages_in_the_order_of_keys(make: Make) {
    let probe = Probe::new(&make(Setup::default()));
    let mut all: Vec<Key> = (0..25).map(|i| key(&format!("page/{i}"))).collect();
    all.iter().for_each(|k| {
        probe.set(k, "x");
    });
    all.sort();
    let prefix = key("page/");
    let (mut after, mut seen) = (None, Vec::new());
    loop {
        let (page, more) = probe.scan(&prefix, after.as_ref(), 10);
        seen.extend(keys(&page));
        assert_eq!(more, seen.len() < 25, "after {} records", seen.len());
        if !more {
            break;
        }
        assert_eq!(page.len(), 10);
        after = page.last().map(|r| r.key.clone());
    }
    assert_eq!(seen, all);
    assert!(!probe.scan(&prefix, None, 25).1, "all of them is not cut");
}

/// Keys around the edges of the prefix `default/contract/p`.
fn neighbours() -> (Key, Vec<Key>, Vec<Key>) {
    let p = key("p");
    let with = |tail: &[u8]| Key::from_bytes([p.as_bytes(), tail].concat());
    let inside = vec![p.clone(), with(b"\0"), with(b"/x"), with(b"a"), with(b"\xff"), with(b"\xff\xff")];
    let outside = vec![key("o"), key("o\u{10ffff}"), key("q"), key(""), Key::from_bytes("default/contract")];
    (p, inside, outside)
}

pub fn a_scan_keeps_to_its_prefix_exactly(make: Make) {
    let probe = Probe::new(&make(Setup::default()));
    let (prefix, inside, outside) = neighbours();
    inside.iter().chain(&outside).for_each(|k| {
        probe.set(k, "x");
    });
    let (found, more) = probe.scan(&prefix, None, 100);
    assert_eq!((keys(&found), more), (inside.clone(), false));
    assert_eq!(probe.scan(&prefix, inside.last(), 100), (vec![], false));
    assert_eq!(keys(&probe.scan(&prefix, Some(&key("a")), 2).0), inside[..2], "`after` below the prefix");
    assert_eq!(probe.scan(&prefix, Some(&key("z")), 2), (vec![], false), "`after` above the prefix");
}

pub fn a_scan_goes_on_after_a_key_that_is_gone(make: Make) {
    let probe = Probe::new(&make(Setup::default()));
    let all = ["a", "b", "c"].map(key);
    all.iter().for_each(|k| {
        probe.set(k, "x");
    });
    probe.put(&[Write::delete(all[1].clone())]).expect("no condition");
    let (rest, more) = probe.scan(&Key::from_bytes("default/contract/"), Some(&all[1]), 10);
    assert_eq!((keys(&rest), more), (vec![all[2].clone()], false));
}

pub fn a_watch_gives_the_records_then_ready_then_changes(make: Make) {
    let engine = make(Setup::default());
    let (probe, watcher) = (Probe::new(&engine), Probe::new(&engine));
    let (a, b, c) = (key("a"), key("b"), key("c"));
    let revs = [&a, &b].map(|k| probe.set(k, "old"));
    let watch = watcher.watch(&Key::from_bytes("default/contract/"));
    let snapshot = watcher.watched(watch, "the snapshot", |events| events.contains(&WatchEvent::Ready));
    let event = |k: &Key, value: Option<&str>, rev| {
        let value = value.map(crate::Value::from);
        WatchEvent::Change(Change { key: k.clone(), value, rev })
    };
    let mut records = snapshot.clone();
    assert_eq!(records.pop(), Some(WatchEvent::Ready));
    records.sort_by_key(|e| format!("{e:?}"));
    assert_eq!(records, [event(&a, Some("old"), revs[0]), event(&b, Some("old"), revs[1])]);
    let made = probe.set(&c, "new");
    let gone = probe.put(&[Write::delete(a.clone())]).expect("no condition")[0];
    probe.barrier(&a);
    probe.barrier(&c);
    let changes = &watcher.watched_now(watch)[snapshot.len()..];
    assert!(changes.contains(&event(&c, Some("new"), made)), "{changes:?}");
    assert!(changes.contains(&event(&a, None, gone)) || gone_before(changes, &a, gone), "{changes:?}");
}

/// After an unknown outcome a deletion is repeated: the change is the first one.
fn gone_before(changes: &[WatchEvent], key: &Key, rev: Rev) -> bool {
    let gone = |e: &WatchEvent| matches!(e, WatchEvent::Change(c) if c.key == *key && c.value.is_none() && c.rev < rev);
    changes.iter().any(gone)
}

pub fn a_watch_keeps_to_its_prefix_exactly(make: Make) {
    let probe = Probe::new(&make(Setup::default()));
    let (prefix, inside, outside) = neighbours();
    let half = inside.len() / 2;
    inside[..half].iter().chain(&outside[..2]).for_each(|k| {
        probe.set(k, "x");
    });
    let watch = probe.watch(&prefix);
    inside[half..].iter().chain(&outside[2..]).for_each(|k| {
        probe.set(k, "x");
    });
    probe.barrier(&Key::from_bytes("default/"));
    let records = play(&probe.watched_now(watch));
    assert_eq!(records.into_keys().collect::<Vec<_>>(), inside);
}

pub fn a_long_snapshot_comes_in_pieces(make: Make) {
    let engine = make(Setup::default());
    let probe = Probe::new(&engine);
    let size = engine.guarantees().max_value.min(300_000);
    for i in 0..20 {
        probe.set(&key(&format!("k{i}")), vec![i; size]);
    }
    // The probe refuses arrivals of more than 1 MiB. The writes come while the snapshot is on its way.
    let watch = probe.watch(&key("k"));
    probe.set(&key("k0"), "new");
    probe.put(&[Write::delete(key("k9"))]).expect("no condition");
    probe.barrier(&key("k"));
    let records = play(&probe.watched_now(watch));
    assert_eq!(records.len(), 19);
    assert_eq!(records.get(&key("k0")), Some(&b"new".to_vec()));
}

pub fn a_watch_gives_changes_in_the_order_of_revisions(make: Make) {
    let engine = make(Setup::default());
    let watchers = [Probe::new(&engine), Probe::new(&engine)];
    let watches = [0, 1].map(|i| watchers[i].watch(&key("k")));
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let probe = Probe::new(&engine);
            scope.spawn(move || {
                for i in 0..50 {
                    probe.set(&key(&format!("k{}", i % 5)), format!("{thread}:{i}"));
                }
            });
        }
    });
    let probe = Probe::new(&engine);
    probe.barrier(&key("k"));
    let records: Vec<_> = probe.scan(&key("k"), None, 100).0;
    let expected: Vec<_> = records.iter().map(|r| (r.key.clone(), r.value.to_vec())).collect();
    for (watcher, watch) in watchers.iter().zip(watches) {
        let events = watcher.watched_now(watch);
        assert_eq!(play(&events).into_iter().collect::<Vec<_>>(), expected);
    }
}

pub fn a_watch_during_writes_misses_nothing(make: Make) {
    const WRITES: usize = 400;
    let engine = make(Setup::default());
    let writer = {
        let probe = Probe::new(&engine);
        std::thread::spawn(move || {
            (0..WRITES).for_each(|i| {
                probe.set(&key(&format!("k{}", i % 7)), format!("{i}"));
            });
        })
    };
    let probes: Vec<_> = (0..10)
        .map(|_| {
            let probe = Probe::new(&engine);
            let watch = probe.watch(&key("k"));
            probe.watched(watch, "the snapshot", |events| events.contains(&WatchEvent::Ready));
            (probe, watch)
        })
        .collect();
    writer.join().expect("the writer lives");
    let end = Probe::new(&engine);
    end.barrier(&key("k"));
    let expected: Vec<_> =
        end.scan(&key("k"), None, 100).0.into_iter().map(|r| (r.key, r.value.to_vec())).collect();
    for (probe, watch) in probes {
        let events = probe.watched_now(watch);
        assert_eq!(play(&events).into_iter().collect::<Vec<_>>(), expected);
        let live = events.iter().skip_while(|e| **e != WatchEvent::Ready).filter_map(|e| match e {
            WatchEvent::Change(Change { value: Some(value), .. }) => {
                std::str::from_utf8(value).ok()?.parse::<usize>().ok()
            }
            _ => None,
        });
        let mut live: Vec<_> = live.collect();
        live.dedup(); // a write with an unknown outcome is repeated
        let first = live.first().copied().unwrap_or(WRITES);
        assert_eq!(live, (first..WRITES).collect::<Vec<_>>());
    }
}

pub fn a_barrier_is_answered_after_the_watchers_were_given_everything(make: Make) {
    let engine = make(Setup::default());
    let (probe, early) = (Probe::new(&engine), Probe::new(&engine));
    let early_watch = early.watch(&key("b"));
    for round in 0..20 {
        for i in 0..10 {
            probe.set(&key(&format!("b{i}")), format!("{round}"));
        }
        let late = Probe::new(&engine);
        let late_watch = late.watch(&key("b"));
        probe.barrier(&key(if round % 2 == 0 { "b" } else { "" }));
        for (watcher, watch) in [(&early, early_watch), (&late, late_watch)] {
            let records = play(&watcher.watched_now(watch));
            assert_eq!(records.len(), 10);
            assert!(records.values().all(|v| *v == format!("{round}").into_bytes()), "round {round}");
        }
    }
}

pub fn a_barrier_covers_what_was_acknowledged(make: Make) {
    let engine = make(Setup::default());
    let (probe, other) = (Probe::new(&engine), Arc::new(Probe::new(&engine)));
    for i in 0..10 {
        let rev = probe.set(&key("x"), format!("{i}"));
        assert!(other.barrier(&key("x")) >= rev);
    }
}
