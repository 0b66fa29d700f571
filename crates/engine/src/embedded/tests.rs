//! The embedded engine against the contract, on real files, alone and behind faults; and what only this engine promises.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tempfile::TempDir;

use super::{EmbeddedConfig, EmbeddedEngine, OpenError, Sync};
use crate::contract::{Faults, Faulty, Probe, Setup, seed};
use crate::{
    DedupeId, Destination, Engine, EngineError, Guarantees, Inbox, Key, NodeId, Op, Port, Pos, Shard, Token,
    WatchId, Write,
};

const S: Shard = Shard(0);

/// The system's monotonic clock.
#[expect(clippy::disallowed_methods, reason = "the tests of the thread run on real time")]
fn clock() -> Instant {
    Instant::now()
}

/// An engine whose directory goes with it.
struct InDirectory(Arc<EmbeddedEngine>, #[expect(dead_code, reason = "lives as long")] TempDir);

impl Engine for InDirectory {
    fn guarantees(&self) -> Guarantees {
        self.0.guarantees()
    }
    fn node(&self) -> NodeId {
        self.0.node()
    }
    fn attach(&self, inbox: Arc<dyn Inbox>) -> Port {
        self.0.attach(inbox)
    }
    fn submit(&self, port: Port, batch: Vec<(Token, Op)>) {
        self.0.submit(port, batch);
    }
    fn tail(&self, port: Port, shard: Shard, after: Pos) {
        self.0.tail(port, shard, after);
    }
    fn watch(&self, port: Port, prefix: Key) -> WatchId {
        self.0.watch(port, prefix)
    }
    fn send(&self, from: Port, to: Destination, frame: Bytes) -> Result<(), EngineError> {
        self.0.send(from, to, frame)
    }
    fn shutdown(&self) {
        self.0.shutdown();
    }
}

fn config(setup: Setup) -> EmbeddedConfig {
    EmbeddedConfig {
        shards: setup.shards,
        queue: setup.queue,
        lane_queue: setup.lane_queue,
        // small, so that segments end and frames come from them
        segment_bytes: 1 << 20,
        recent_bytes: 10_000,
        ..EmbeddedConfig::default()
    }
}

fn embedded(setup: Setup) -> Arc<dyn Engine> {
    let dir = tempfile::tempdir().expect("there is room");
    let engine = EmbeddedEngine::open(dir.path(), config(setup), clock).expect("it is empty");
    Arc::new(InDirectory(engine, dir))
}

mod contract {
    crate::contract_tests!(super::embedded);
}

mod contract_behind_faults {
    use super::{Arc, Engine, Faults, Faulty, Setup, embedded, seed};

    fn faulty(setup: Setup) -> Arc<dyn Engine> {
        Faulty::new(embedded(setup), Faults::all(seed()))
    }

    crate::contract_tests!(faulty);
}

fn open(dir: &Path, config: EmbeddedConfig) -> (Arc<EmbeddedEngine>, Probe) {
    let engine = EmbeddedEngine::open(dir, config, clock).expect("the directory is whole");
    let probe = Probe::new(&(Arc::clone(&engine) as Arc<dyn Engine>));
    (engine, probe)
}

fn key(n: u64) -> Key {
    Key::of("k", &[format!("{n:04}").as_bytes()])
}

#[test]
fn what_was_answered_is_there_after_a_restart() {
    let dir = tempfile::tempdir().expect("there is room");
    for sync in [Sync::Always, Sync::Interval(Duration::from_millis(1)), Sync::Never] {
        let dir = dir.path().join(format!("{sync:?}"));
        let config = EmbeddedConfig { sync, ..config(Setup::default()) };
        let mut rev = crate::Rev::NONE;
        for round in 0..5_u64 {
            let (engine, probe) = open(&dir, config.clone());
            assert_eq!(probe.head(S), if round == 0 { Pos::START } else { Pos::end_of(round * 30) });
            for n in round * 30..(round + 1) * 30 {
                assert_eq!(probe.append(S, vec![n as u8; 20_000], DedupeId(n.into())), n + 1);
                let now = probe.set(&key(n), format!("{n}"));
                assert!(now > rev, "revisions grow over restarts");
                rev = now;
            }
            probe.put(&[Write::delete(key(round * 30))]).expect("no condition");
            assert_eq!(probe.append(S, "again", DedupeId(3)), 4, "ids are known over restarts");
            let frames = probe.read_all(S, Pos::START);
            let expected: Vec<_> = (0..(round + 1) * 30).map(|n| (n + 1, n as u8, 20_000)).collect();
            let found = frames.iter().map(|f| (f.seq, f.bytes[0], f.bytes.len()));
            assert_eq!(found.collect::<Vec<_>>(), expected);
            let records = probe.scan(&Key::from_bytes("default/k"), None, 1000).0;
            assert_eq!(records.len() as u64, (round + 1) * 29);
            assert!(records.iter().all(|r| r.key.last_part().ends_with(&r.value[..])));
            engine.shutdown();
        }
    }
}

#[test]
fn a_directory_has_one_process_one_number_of_shards_and_one_version() {
    let dir = tempfile::tempdir().expect("there is room");
    let (engine, probe) = open(dir.path(), config(Setup::default()));
    probe.append(S, "x", DedupeId(1));
    let again = EmbeddedEngine::open(dir.path(), config(Setup::default()), clock);
    assert!(matches!(again, Err(OpenError::Locked { .. })));
    drop((probe, again));
    drop(engine);
    let other = EmbeddedConfig { shards: 3, ..config(Setup::default()) };
    let error = EmbeddedEngine::open(dir.path(), other, clock).err().expect("it has two");
    assert_eq!(error.to_string(), "the directory was made with 2 log shards, not 3");
    let segment = dir.path().join("0000000000000001.seg");
    let mut bytes = std::fs::read(&segment).expect("it is there");
    bytes[8] = 77;
    std::fs::write(&segment, bytes).expect("there is room");
    let error = EmbeddedEngine::open(dir.path(), config(Setup::default()), clock).err().expect("unknown");
    assert_eq!(error.to_string(), "0000000000000001.seg: format version 77, this program knows 1");
}

#[test]
fn a_torn_end_is_cut_and_told_and_damage_before_durable_groups_is_refused() {
    let dir = tempfile::tempdir().expect("there is room");
    let segment = dir.path().join("0000000000000001.seg");
    let (engine, probe) = open(dir.path(), config(Setup::default()));
    for n in 0..3 {
        probe.append(S, vec![7; 1000], DedupeId(n));
    }
    drop(probe);
    drop(engine);
    let whole = std::fs::read(&segment).expect("it is there");
    // The last of three groups of 1,071 bytes is torn.
    let begins = 4096 + 2 * 1072;
    let mut torn = whole.clone();
    torn[begins + 500] ^= 1;
    std::fs::write(&segment, &torn).expect("there is room");
    let (engine, probe) = open(dir.path(), config(Setup::default()));
    let cut = engine.recovery().cut.clone().expect("it was torn");
    assert_eq!((cut.file.as_str(), cut.offset), ("0000000000000001.seg", begins as u64));
    assert!((1050..=1072).contains(&cut.bytes), "{cut:?}");
    assert_eq!(probe.read_all(S, Pos::START).len(), 2);
    assert_eq!(probe.append(S, "next", DedupeId(9)), 3);
    drop(probe);
    drop(engine);
    // The first is damaged: the third says that it was durable.
    let mut damaged = whole;
    damaged[4096 + 500] ^= 1;
    std::fs::remove_dir_all(dir.path()).expect("it is ours");
    std::fs::create_dir(dir.path()).expect("there is room");
    std::fs::write(&segment, &damaged).expect("there is room");
    let error =
        EmbeddedEngine::open(dir.path(), config(Setup::default()), clock).err().expect("it is damaged");
    assert_eq!(error.to_string(), "0000000000000001.seg: damaged at byte 4096: a checksum does not fit");
}

/// The sizes of all files of a kind.
fn sizes(dir: &Path, kind: &str) -> Vec<u64> {
    let files = std::fs::read_dir(dir).expect("it is there").map(|entry| entry.expect("it is there"));
    files
        .filter(|f| f.path().extension().is_some_and(|e| e == kind))
        .map(|f| f.metadata().expect("it is there").len())
        .collect()
}

#[test]
fn segments_go_when_they_are_trimmed_and_ids_are_known_longer() {
    let dir = tempfile::tempdir().expect("there is room");
    let (engine, probe) = open(dir.path(), config(Setup::default()));
    for n in 0..80_u64 {
        probe.append(S, vec![1; 100_000], DedupeId(n.into()));
        probe.set(&key(n % 10), vec![2; 1000]);
        probe.trim(S, Pos::new((n + 1).saturating_sub(5), 0));
    }
    // Trims are done turn by turn; a few more give it the time.
    for n in 0..20 {
        probe.set(&key(n % 10), "x");
    }
    let sum: u64 = sizes(dir.path(), "seg").iter().sum();
    assert!(sum <= 4 << 20, "{sum} bytes of segments for five frames");
    assert_eq!(sizes(dir.path(), "reg").len(), 1);
    drop(probe);
    drop(engine);
    let (_engine, probe) = open(dir.path(), config(Setup::default()));
    for n in 0..80_u64 {
        assert_eq!(probe.append(S, "again", DedupeId(n.into())), n + 1);
    }
    assert_eq!(probe.scan(&Key::from_bytes("default/k"), None, 100).0.len(), 10);
}

#[test]
fn at_the_bound_of_bytes_the_oldest_frames_go_and_readers_are_told() {
    let dir = tempfile::tempdir().expect("there is room");
    let config = EmbeddedConfig { max_log_bytes: 3 << 20, ..config(Setup::default()) };
    let (_engine, probe) = open(dir.path(), config);
    for n in 0..100_u64 {
        probe.append(S, vec![n as u8; 100_000], DedupeId(n.into()));
    }
    let Err(EngineError::Truncated { first }) = probe.read(S, Pos::START, 1000) else {
        panic!("all is there")
    };
    assert!((60..90).contains(&first.seq()), "{first}");
    let frames = probe.read_all(S, first);
    assert_eq!((frames[0].seq, frames[0].bytes[0]), (first.seq() + 1, first.seq() as u8));
    assert_eq!(frames.last().map(|f| f.seq), Some(100));
    for n in 0..20 {
        probe.set(&key(n), "x");
    }
    let sum: u64 = sizes(dir.path(), "seg").iter().sum();
    assert!(sum <= 5 << 20, "{sum} bytes of segments");
}

#[test]
fn epochs_grow_over_restarts() {
    let dir = tempfile::tempdir().expect("there is room");
    let mut last = crate::Epoch(0);
    for n in 0..3 {
        let (_engine, probe) = open(dir.path(), config(Setup::default()));
        let epoch = probe.acquire(&key(1), 1, Duration::from_secs(60)).expect("nobody has it");
        assert!(epoch > last);
        last = epoch;
        probe.set(&key(n), "x");
    }
}
