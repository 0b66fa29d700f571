//! How much memory the program keeps when nobody is there.
//!
//! Two numbers are judged: the bytes that it has allocated, by its allocator's own account, in which a leak of kilobytes shows;
//! and what the machine has left, RSS, which is what an operator sees. The program is given the time in which it gives back
//! what it does not need any more, and the least that is seen counts.
//!
//! What it keeps on purpose (topics and their receivers, the last events) is filled before anything is judged: else every
//! new topic would look like a leak.

use std::fmt;
use std::time::Duration;

use mqtt::packet::{Packet, SubscriptionOptions};
use mqtt::{QoS, Version};

use crate::harness::Tidegate;
use crate::harness::device::{Device, connect, message};
use crate::harness::wait::now;
use crate::oracle::floors::Bounds;
use crate::passers;
use crate::subject::{Doors, Metrics, ROUTES, usage};

/// What may be kept by a program that knows its topics, and how it may grow: cycles of 20 s, one worker, differ by 10 KiB.
const WARM: Bounds = Bounds { kept: 8 << 20, climb: 128 << 10 };
/// The same of one that learns them, in a single cycle.
const COLD: Bounds = Bounds { kept: 40 << 20, climb: 0 };
/// Bytes that each worker keeps to use them again, when the rest of its buffers has ebbed away.
const EBBED: usize = 4 << 20;
/// Bytes that are resident and not allocated: the program's code, stacks, the allocator's own, pages that are partly free.
/// Code without optimisation is larger.
const BESIDE: usize = if cfg!(debug_assertions) { 80 << 20 } else { 40 << 20 };
/// Everything is given back in so much time: the log is trimmed every ten seconds, and free pages are kept for two.
const SETTLED: Duration = Duration::from_secs(14);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(250);
/// Connections that teach topics for each worker: the kernel chooses the worker, and none must be left out.
const TEACHERS: usize = 12;
/// How long clients pass before anything is judged: the last events are of them.
const BEFORE: Duration = Duration::from_secs(8);

/// The bounds of so many workers, if they know their topics or not.
pub(crate) fn bounds(workers: usize, warm: bool) -> Bounds {
    let Bounds { kept, climb } = if warm { WARM } else { COLD };
    Bounds { kept: kept + workers * EBBED, climb }
}

/// The least memory that was seen.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Floor {
    /// Bytes in use.
    pub(crate) allocated: usize,
    resident: usize,
}

impl fmt::Display for Floor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { allocated, resident } = self;
        write!(f, "{} KiB allocated, {} KiB resident", allocated >> 10, resident >> 10)
    }
}

impl Floor {
    /// Whether free memory went back to the machine.
    pub(crate) fn judge_resident(&self) -> Result<(), String> {
        let most = self.allocated + BESIDE;
        if self.resident <= most {
            return Ok(());
        }
        Err(format!("memory is not given back: {self}, bound {} KiB", most >> 10))
    }
}

/// The least memory that the program takes within the time in which it gives back, or until it is little `enough`.
pub(crate) fn floor(tidegate: &Tidegate, enough: impl Fn(&Floor) -> bool) -> Floor {
    let deadline = now() + SETTLED;
    let mut floor = Floor { allocated: usize::MAX, resident: usize::MAX };
    loop {
        let metrics = Metrics::ask(tidegate.api()).expect("an answer of the API");
        floor.allocated = floor.allocated.min(metrics.allocated());
        floor.resident = floor.resident.min(usage(tidegate.process.id()).0);
        if now() >= deadline || enough(&floor) {
            return floor;
        }
        // sleep: memory tells nobody that it shrinks
        std::thread::sleep(LOOK);
    }
}

/// Fills what the program keeps on purpose; how many clients that were.
pub(crate) fn warm(doors: Doors, workers: usize) -> Result<u32, String> {
    let mut topics = Vec::new();
    for number in 0..ROUTES {
        let publish = message(&format!("warm/as/long/as/others/{number}"), "", QoS::AtMostOnce);
        mqtt::codec::encode::encode(&Packet::Publish(publish), Version::V5, &mut topics)
            .map_err(|error| error.to_string())?;
    }
    // a topic with a receiver takes more than one without: they have one, who does not get what it says itself
    let options = SubscriptionOptions { no_local: true, ..SubscriptionOptions::default() };
    for teacher in 0..workers * TEACHERS {
        let mut device = Device::dial(doors.tcp);
        device.hello(&connect(Version::V5, &format!("teacher-{teacher}")));
        device.subscribe_with("warm/#", options, None);
        device.send_bytes(&topics);
        device.goodbye();
    }
    passers::pass(doors, 0, BEFORE)
}
