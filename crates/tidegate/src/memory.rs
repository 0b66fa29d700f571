//! The allocator of the process, and what it says about itself.
//!
//! A broker's memory comes in bursts: a storm of reconnecting devices, queues of those who are away. glibc keeps what such a
//! burst left behind (60,000 queued messages of 1,000 bytes, delivered or dropped: 81 MiB stay resident of 81), and giving
//! it back with `malloc_trim` would hold a worker's arena for as long as the walk through it takes. jemalloc gives it back from a
//! thread of its own, two seconds after it was last used (13.6 MiB of 96 stay), at the same cost for each message.
//!
//! The settings stand in `.cargo/config.toml`, because jemalloc reads them before `main`: `dirty_decay_ms` is how long free
//! pages are kept for the next burst, `muzzy_decay_ms:0` that they are then really given back, so that what an operator sees as
//! resident is what is in use.
//!
//! Must not know: who allocates.

use runtime::metrics::{Collect, Desc, Exposition, Kind};
use tikv_jemalloc_ctl::{epoch, stats};
use tikv_jemallocator::Jemalloc;

#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

static ALLOCATED: Desc = Desc {
    name: "tidegate_memory_allocated_bytes",
    help: "Bytes in use by the program: what grows here and never falls is a leak.",
    kind: Kind::Gauge,
    labels: &[],
};

static RESIDENT: Desc = Desc {
    name: "tidegate_memory_resident_bytes",
    help: "Bytes of physical memory that the allocator holds: those in use, its own, and free ones not yet given back.",
    kind: Kind::Gauge,
    labels: &[],
};

/// What the allocator says when it is asked.
pub(crate) struct MemoryMetrics;

impl Collect for MemoryMetrics {
    fn collect(&self, out: &mut Exposition) {
        // jemalloc's numbers stand still until the epoch goes on; whoever cannot be asked shows no number rather than a wrong one
        if epoch::advance().is_err() {
            return;
        }
        for (desc, read) in [(&ALLOCATED, stats::allocated::read()), (&RESIDENT, stats::resident::read())] {
            if let Ok(bytes) = read {
                out.sample(desc, &[], bytes as f64);
            }
        }
    }
}
