//! Random operations, aimed at what is there: held epochs, current revisions, positions near the ends.

use std::time::Duration;

use bytes::Bytes;

use super::oracle::Oracle;
use crate::{DedupeId, Epoch, Expect, Fence, Key, Op, Port, Pos, Rev, Shard, Token, Value, WatchId, Write};

/// What values and frames are cut from: large ones cost nothing.
static BYTES: [u8; 1 << 20] = bytes_of_all_kinds();

const fn bytes_of_all_kinds() -> [u8; 1 << 20] {
    let mut bytes = [0; 1 << 20];
    let mut at = 0;
    while at < 4096 {
        bytes[at] = (at * 31 + at / 256) as u8;
        at += 1;
    }
    bytes
}

/// One thing that a port does.
#[derive(Clone, Debug)]
pub(super) enum Step {
    Op(Port, Token, Op),
    Tail(Port, Shard, Pos),
    Watch(Port, WatchId, Key),
}

pub(super) struct Generator {
    rng: fastrand::Rng,
    tokens: Token,
    watches: u64,
    /// One value or frame in so many is large.
    large: u32,
}

impl Generator {
    pub(super) fn new(seed: u64) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let large = [2, 4, 30][rng.usize(..3)];
        Self { rng, tokens: 0, watches: 0, large }
    }

    /// Time between two turns.
    pub(super) fn pause(&mut self) -> Duration {
        Duration::from_millis([0, 0, 1, 10, 300, 2500][self.rng.usize(..6)])
    }

    pub(super) fn steps(&mut self, oracle: &Oracle) -> Vec<Step> {
        (0..self.rng.usize(0..8)).map(|_| self.step(oracle)).collect()
    }

    fn step(&mut self, oracle: &Oracle) -> Step {
        let port = Port(self.rng.u16(..3));
        match self.rng.u32(..40) {
            0 => {
                self.watches += 1;
                let prefix = self.prefix();
                Step::Watch(port, WatchId(self.watches), prefix)
            }
            1 | 2 => {
                let shard = self.shard();
                Step::Tail(port, shard, self.pos(oracle, shard))
            }
            n => {
                self.tokens += 1;
                Step::Op(port, self.tokens, self.op(n - 3, oracle))
            }
        }
    }

    fn op(&mut self, kind: u32, oracle: &Oracle) -> Op {
        let shard = self.shard();
        match kind {
            0..12 => Op::Append {
                shard,
                frame: self.bytes(510_000),
                id: DedupeId(self.rng.u128(..60)),
                fence: self.fence(oracle),
            },
            12..14 => {
                let after = self.pos(oracle, shard);
                let log = &oracle.logs[usize::from(shard.0)];
                let next_two: usize =
                    (1..3).filter_map(|n| log.frame(after.seq() + n)).map(|f| f.bytes.len()).sum();
                let max_bytes = [1, 1000, 400_000, next_two, usize::MAX][self.rng.usize(..5)];
                Op::Read { shard, after, max_bytes }
            }
            14 => Op::Head { shard },
            15 => Op::Trim { shard, before: self.pos(oracle, shard) },
            16 => Op::Get { key: self.key() },
            17..19 => Op::Scan {
                prefix: self.prefix(),
                after: self.rng.bool().then(|| self.key()),
                limit: self.rng.usize(1..6),
            },
            19..28 => {
                let writes = (0..self.rng.usize(1..4)).map(|_| self.write(oracle)).collect();
                Op::Put { writes }
            }
            28..31 => Op::Barrier { prefix: self.prefix() },
            31..35 => Op::Acquire {
                key: self.lease(),
                holder: self.rng.u64(..3),
                ttl: Duration::from_millis(self.rng.u64(..3000)),
            },
            _ => Op::Release { key: self.lease(), holder: self.rng.u64(..3) },
        }
    }

    fn shard(&mut self) -> Shard {
        Shard(self.rng.u16(..2))
    }

    fn pos(&mut self, oracle: &Oracle, shard: Shard) -> Pos {
        let log = &oracle.logs[usize::from(shard.0)];
        let seq = match self.rng.u32(..4) {
            0 => 0,
            1 => self.rng.u64(..log.head() + 3),
            2 => (log.first + self.rng.u64(..3)).saturating_sub(2),
            _ => (log.head() + 2).saturating_sub(self.rng.u64(..6)),
        };
        Pos::new(seq, self.rng.u16(..))
    }

    fn bytes(&mut self, large: usize) -> Bytes {
        let len = match self.rng.u32(..self.large) {
            0 => self.rng.usize(..large),
            _ => self.rng.usize(..100),
        };
        let start = self.rng.usize(..4000);
        Bytes::from_static(&BYTES[start..start + len])
    }

    fn key(&mut self) -> Key {
        let last = [b'a', b'b', 0xff][self.rng.usize(..3)];
        let middle = [&b"s/"[..], b"s", b"t/", b""][self.rng.usize(..4)];
        let tail: Vec<u8> = std::iter::repeat_n(last, self.rng.usize(..4)).collect();
        Key::from_bytes([middle, &tail].concat())
    }

    fn prefix(&mut self) -> Key {
        Key::from_bytes([&b""[..], b"s", b"s/", b"t/", b"s/a", b"\xff"][self.rng.usize(..6)])
    }

    fn lease(&mut self) -> Key {
        Key::from_bytes([&b"l/1"[..], b"l/2", b"l/3"][self.rng.usize(..3)])
    }

    fn fence(&mut self, oracle: &Oracle) -> Option<Fence> {
        if self.rng.u32(..3) > 0 {
            return None;
        }
        let lease = self.lease();
        let held = oracle.leases.iter().find(|l| l.key == lease).map_or(Epoch(0), |l| l.epoch);
        let epoch = if self.rng.u32(..4) > 0 { held } else { Epoch(self.rng.u64(..10)) };
        Some(Fence { lease, epoch })
    }

    fn write(&mut self, oracle: &Oracle) -> Write {
        let key = self.key();
        let current = oracle.records.iter().find(|r| r.key == key).map_or(Rev::NONE, |r| r.rev);
        let expect = match self.rng.u32(..6) {
            0 => Expect::Absent,
            1 => Expect::Rev(current),
            2 => Expect::Rev(Rev(self.rng.u64(..20))),
            _ => Expect::Any,
        };
        let value = (self.rng.u32(..4) > 0).then(|| self.bytes(710_000));
        Write { key, value: value.map(Value::from), expect, fence: self.fence(oracle) }
    }
}
