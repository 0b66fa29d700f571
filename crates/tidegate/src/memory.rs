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
use tikv_jemalloc_ctl::{Access, AsName, epoch, stats};
use tikv_jemallocator::Jemalloc;

#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

static ALLOCATED: Desc = Desc {
    name: "tidegate_memory_allocated_bytes",
    help: "Bytes in use by the program: what grows here and never falls is a leak.",
    kind: Kind::Gauge,
    labels: &[],
};

static CACHED: Desc = Desc {
    name: "tidegate_memory_cached_bytes",
    help: "Free bytes that threads keep to use them again without asking anybody: some MiB for each thread at most.",
    kind: Kind::Gauge,
    labels: &[],
};

static RESIDENT: Desc = Desc {
    name: "tidegate_memory_resident_bytes",
    help: "Bytes of physical memory that the allocator holds: those in use, its own, and free ones not yet given back.",
    kind: Kind::Gauge,
    labels: &[],
};

/// The free memory in the caches of all threads, by jemalloc's name for the sum of all arenas (`MALLCTL_ARENAS_ALL`).
const CACHES: &str = "stats.arenas.4096.tcache_bytes\0";

/// What the allocator says when it is asked.
pub(crate) struct MemoryMetrics;

/// Bytes at one moment.
struct Account {
    allocated: usize,
    cached: usize,
    resident: usize,
}

impl Account {
    /// Asks the allocator; `None` if it cannot be asked: no number is better than a wrong one.
    fn ask() -> Option<Self> {
        // jemalloc's numbers stand still until the epoch goes on
        epoch::advance().ok()?;
        let cached: usize = CACHES.name().read().ok()?;
        // it counts what lies in a thread's cache as allocated, as if the program had it; a thread that works meanwhile may move
        // some between the two looks
        let allocated = stats::allocated::read().ok()?.saturating_sub(cached);
        Some(Self { allocated, cached, resident: stats::resident::read().ok()? })
    }
}

impl Collect for MemoryMetrics {
    fn collect(&self, out: &mut Exposition) {
        let Some(Account { allocated, cached, resident }) = Account::ask() else { return };
        for (desc, bytes) in [(&ALLOCATED, allocated), (&CACHED, cached), (&RESIDENT, resident)] {
            out.sample(desc, &[], bytes as f64);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_thread_keeps_to_allocate_it_again_is_not_in_use() {
        const BLOCK: usize = 28 << 10;
        let before = Account::ask().unwrap();
        let blocks: Vec<Vec<u8>> = (0..16).map(|_| Vec::with_capacity(BLOCK)).collect();
        let full = Account::ask().unwrap();
        assert!(full.allocated >= before.allocated + 15 * BLOCK, "{} {}", full.allocated, before.allocated);
        drop(blocks);
        let after = Account::ask().unwrap();
        assert!(after.cached >= before.cached + 8 * BLOCK, "{} {}", after.cached, before.cached);
        assert!(after.allocated < before.allocated + 2 * BLOCK, "{} {}", after.allocated, before.allocated);
        assert!(after.resident >= after.allocated + after.cached);
    }
}
