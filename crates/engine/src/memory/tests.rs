//! The memory engine against the contract, alone and behind faults, and what only this engine promises.

use std::sync::Arc;
use std::time::Instant;

use super::{MemoryConfig, MemoryEngine};
use crate::Engine;
use crate::contract::{Faults, Faulty, Setup, seed};

/// The system's monotonic clock.
#[expect(clippy::disallowed_methods, reason = "the tests of the thread run on real time")]
fn clock() -> Instant {
    Instant::now()
}

fn memory(setup: Setup) -> Arc<dyn Engine> {
    let config = MemoryConfig {
        shards: setup.shards,
        queue: setup.queue,
        lane_queue: setup.lane_queue,
        ..MemoryConfig::default()
    };
    MemoryEngine::new(config, clock)
}

mod contract {
    crate::contract_tests!(super::memory);
}

mod contract_behind_faults {
    use super::{Arc, Engine, Faults, Faulty, Setup, memory, seed};

    fn faulty(setup: Setup) -> Arc<dyn Engine> {
        Faulty::new(memory(setup), Faults::all(seed()))
    }

    crate::contract_tests!(faulty);
}
