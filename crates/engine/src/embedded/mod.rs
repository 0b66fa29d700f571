//! The engine on the disk of this machine: what it has answered is there after the process was killed, or the machine.
//!
//! **Nothing uses it yet, and nothing should:** it passes the contract suite, but a simulation of failing disks found that it
//! believes a sync that is repeated after one that failed, leaves a gap where a segment was not used, and takes a tail that was not synced
//! from the page cache. The mends and the simulation come with its wiring.
//!
//! One journal holds everything, the frames of all shards and the writes to the register: groups in segment files, a group for all that
//! was submitted while the one before was synced, one write and one sync for each. `state` is the engine without time and threads;
//! the thread is that of `turn`. `journal` writes, `log` and `index` find frames in it again, `checkpoint` is the register's file, which makes
//! old segments unnecessary; `recovery` reads it all at a start. `format` has the bytes, `disk` is all that the engine knows of files.
//!
//! **The register lies in memory**, as in the memory engine, and in a file that is written anew after as many bytes of journal
//! as it has itself (at least a segment): at most twice the writes, and a start that reads the records and at most as much
//! journal. Its values are those that watchers hold: a broker that keeps its retained messages at hand pays for them once.
//! A log-structured tree below it (fjall was considered, and not measured) is worth its price when a broker no longer holds its
//! records itself.
//!
//! **When the disk is full** or fails, operations that must be durable are answered with [`EngineError::Full`] or
//! [`EngineError::Unavailable`] and have had no effect; all others go on. The disk is tried again with the first such operation a
//! second later. After a failed sync a segment is never written again. Only where acknowledgements do not wait for a sync
//! ([`Sync::Interval`], [`Sync::Never`]) is a failed one final: what was answered may be lost, and the engine takes nothing more.
//!
//! **A segment goes** when all its frames are trimmed and the register's file holds its writes, or when all segments are larger than
//! [`EmbeddedConfig::max_log_bytes`]: then with the frames in it, and whoever still reads there is told `Truncated`.
//!
//! **Trims** are written down with the next group, not for themselves: after a crash frames may be back that were trimmed.

mod checkpoint;
mod disk;
mod format;
mod index;
mod journal;
mod log;
mod recovery;
mod state;
#[cfg(test)]
mod tests;

use std::hash::{BuildHasher, RandomState};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::turn::dedupe::Reach;
use crate::turn::{Bounds, Front};
use crate::{
    Destination, Engine, EngineError, Guarantees, Inbox, Key, NodeId, Op, Port, Pos, Shard, Token, WatchId,
};
use disk::{Directory, Disk};
use journal::Options;
use recovery::Found;
use state::State;

/// What an acknowledgement promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sync {
    /// What was answered is on the disk: it survives the death of the machine.
    Always,
    /// What was answered is on the disk after this time at the latest; before, it survives the death of the process.
    Interval(Duration),
    /// What was answered survives the death of the process; when it is on the disk is the system's choice.
    Never,
}

/// The bounds of an [`EmbeddedEngine`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EmbeddedConfig {
    /// What an acknowledgement promises. Default: always.
    pub sync: Sync,
    /// Log shards, 1 to 64 (brought into the range); fixed when the directory was first used. Default 4.
    pub shards: u16,
    /// The length of a segment file in bytes, reserved when it begins. Default 64 MiB.
    pub segment_bytes: u64,
    /// Bytes of all segments together; at the bound the oldest go, and whoever still reads there is told `Truncated`.
    /// Default 4 GiB.
    pub max_log_bytes: u64,
    /// Bytes of the last frames of each shard that are kept in memory. Default 16 MiB.
    pub recent_bytes: usize,
    /// Bytes of records and leases; a [`Op::Put`] or [`Op::Acquire`] that would go beyond is answered with Busy.
    /// Default 1 GiB.
    pub max_register_bytes: usize,
    /// Operations that were submitted and not yet answered; beyond it they are answered with Busy. Default 65,536.
    pub queue: usize,
    /// Bytes of operations that wait, as above. Default 256 MiB.
    pub queue_bytes: usize,
    /// Lane frames on their way to one port; beyond it [`Engine::send`] is Busy. Default 65,536.
    pub lane_queue: usize,
    /// Bytes of lane frames on their way to one port, as above. Default 64 MiB.
    pub lane_bytes: usize,
    /// The largest frame of log and lane in bytes. Default 2 MiB.
    pub max_frame: usize,
    /// The largest value of the register in bytes. Default 2 MiB.
    pub max_value: usize,
    /// An append is recognised as a repetition among at least so many last appends of its shard, also after a restart.
    /// Default 65,536.
    pub dedupe_appends: usize,
    /// ... and for at least so long (time in which no process ran does not count), as far as `dedupe_max_ids` allows.
    /// Default 10 minutes.
    pub dedupe_time: Duration,
    /// Ids remembered for each shard (about 30 bytes each); beyond it the oldest are forgotten before their time.
    /// Default 1,048,576.
    pub dedupe_max_ids: usize,
    /// What [`Engine::node`] says. Default 1.
    pub node: NodeId,
}

impl Default for EmbeddedConfig {
    fn default() -> Self {
        Self {
            sync: Sync::Always,
            shards: 4,
            segment_bytes: 64 << 20,
            max_log_bytes: 4 << 30,
            recent_bytes: 16 << 20,
            max_register_bytes: 1 << 30,
            queue: 65_536,
            queue_bytes: 256 << 20,
            lane_queue: 65_536,
            lane_bytes: 64 << 20,
            max_frame: 2 << 20,
            max_value: 2 << 20,
            dedupe_appends: 65_536,
            dedupe_time: Duration::from_secs(600),
            dedupe_max_ids: 1 << 20,
            node: NodeId(1),
        }
    }
}

/// Why a directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it.
    #[error("{}: another process uses this directory", dir.display())]
    Locked {
        /// Which directory.
        dir: PathBuf,
    },
    /// The system refuses something.
    #[error("{file}: {source}")]
    Io {
        /// Which file of the directory.
        file: String,
        /// Why.
        source: io::Error,
    },
    /// Something that was durable is damaged. Nothing was changed.
    #[error("{file}: damaged at byte {offset}: {what}")]
    Corrupt {
        /// Which file of the directory.
        file: String,
        /// Where.
        offset: u64,
        /// In what way.
        what: &'static str,
    },
    /// Written by another version of this program.
    #[error("{file}: format version {found}, this program knows {}", format::VERSION)]
    Version {
        /// Which file of the directory.
        file: String,
        /// Its version.
        found: u32,
    },
    /// Made with another number of shards, which can't be changed.
    #[error("the directory was made with {stored} log shards, not {asked}")]
    Shards {
        /// How many it has.
        stored: usize,
        /// How many were asked for.
        asked: u16,
    },
}

/// What a start found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovery {
    /// What a crash had left half written, and was removed: none of it was acknowledged (or, without a sync for each group, not
    /// yet promised to be on the disk).
    pub cut: Option<Cut>,
    /// Segment files.
    pub segments: usize,
    /// Groups that were read in full.
    pub groups: u64,
    /// Records of the register.
    pub records: usize,
}

/// What was cut off a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cut {
    /// Which file of the directory.
    pub file: String,
    /// Where its whole groups end.
    pub offset: u64,
    /// How many bytes after that were written to.
    pub bytes: u64,
}

/// An [`Engine`] in a directory of this machine, with one thread. Dropping it shuts it down.
pub struct EmbeddedEngine {
    front: Front,
    config: EmbeddedConfig,
    recovery: Recovery,
}

impl EmbeddedEngine {
    /// Opens a directory, or makes it; blocks until what it holds was read. `clock` gives monotonic time; leases run out by it.
    ///
    /// # Errors
    /// [`OpenError`]: nothing was lost by trying.
    ///
    /// # Panics
    /// If the system can't start a thread.
    pub fn open(
        dir: &Path,
        mut config: EmbeddedConfig,
        clock: fn() -> Instant,
    ) -> Result<Arc<Self>, OpenError> {
        config.shards = config.shards.clamp(1, 64);
        let directory = Directory::open(dir)
            .map_err(|source| OpenError::Io { file: dir.display().to_string(), source })?
            .ok_or_else(|| OpenError::Locked { dir: dir.to_owned() })?;
        let found = read(directory, &config, RandomState::new().hash_one(dir))?;
        let recovery = found.report.clone();
        let bounds = Bounds {
            queue: config.queue,
            queue_bytes: config.queue_bytes,
            lane_queue: config.lane_queue,
            lane_bytes: config.lane_bytes,
            max_frame: config.max_frame,
        };
        let front = Front::start(&bounds, config.node, State::new(found, &config), clock);
        Ok(Arc::new(Self { front, config, recovery }))
    }

    /// What the start found.
    pub fn recovery(&self) -> &Recovery {
        &self.recovery
    }
}

fn read<D: Disk>(disk: D, config: &EmbeddedConfig, salt: u64) -> Result<Found<D>, OpenError> {
    let options = Options { segment_bytes: config.segment_bytes, always: config.sync == Sync::Always };
    let reach = Reach {
        appends: config.dedupe_appends,
        time: config.dedupe_time,
        max_ids: config.dedupe_max_ids.max(config.dedupe_appends),
    };
    recovery::recover(disk, options, config.shards, reach, salt)
}

impl Engine for EmbeddedEngine {
    fn guarantees(&self) -> Guarantees {
        Guarantees {
            kind: "embedded",
            replicas: 1,
            survives_restart: true,
            shards: self.config.shards,
            max_frame: self.config.max_frame,
            max_value: self.config.max_value,
        }
    }

    fn node(&self) -> NodeId {
        self.front.node()
    }

    fn attach(&self, inbox: Arc<dyn Inbox>) -> Port {
        self.front.attach(inbox)
    }

    fn submit(&self, port: Port, batch: Vec<(Token, Op)>) {
        self.front.submit(port, batch);
    }

    fn tail(&self, port: Port, shard: Shard, after: Pos) {
        self.front.tail(port, shard, after);
    }

    fn watch(&self, port: Port, prefix: Key) -> WatchId {
        self.front.watch(port, prefix)
    }

    fn send(&self, from: Port, to: Destination, frame: Bytes) -> Result<(), EngineError> {
        self.front.send(from, to, frame)
    }

    fn shutdown(&self) {
        self.front.shutdown();
    }
}
