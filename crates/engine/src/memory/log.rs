//! One shard of the log: frames in one order, the oldest dropped at the bound.
//!
//! Must not know: ports, tails, leases.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;

use crate::turn::dedupe::Window;
use crate::turn::tail::Frames;
use crate::{DedupeId, EngineError, LogFrame, Pos, Shard};

/// What a frame costs beyond its bytes, so that empty frames are bounded too.
pub(crate) const FRAME_COST: usize = 64;

/// Frames for which there is room at any time.
const ROOM: usize = 1024;

/// The frames of one shard that are still kept.
#[derive(Clone, Debug)]
pub(crate) struct ShardLog {
    frames: VecDeque<Bytes>,
    /// The sequence of `frames[0]`; one above the head if there are none.
    first: u64,
    /// Cost of all frames.
    bytes: usize,
    max_bytes: usize,
    window: Window,
}

impl ShardLog {
    pub(crate) fn new(max_bytes: usize, window: Window) -> Self {
        Self { frames: VecDeque::new(), first: 1, bytes: 0, max_bytes, window }
    }

    /// The sequence of the first append with this id, if the window still knows it.
    pub(crate) fn find(&self, id: DedupeId) -> Option<u64> {
        self.window.find(id)
    }

    /// Appends a frame whose id [`Self::find`] does not know, and makes room by dropping the oldest ones. The newest frame
    /// always stays, even if it is above the bound alone.
    pub(crate) fn append(&mut self, frame: Bytes, id: DedupeId, now: Duration) -> u64 {
        let seq = self.first + self.frames.len() as u64;
        self.bytes += cost(&frame);
        self.frames.push_back(frame);
        self.window.remember(seq, id, now);
        while self.bytes > self.max_bytes && self.frames.len() > 1 {
            self.drop_first();
        }
        seq
    }

    /// Forgets frames with a sequence below `before`, and gives back the room of a burst that is over.
    pub(crate) fn trim(&mut self, before: u64) {
        while self.first < before && !self.frames.is_empty() {
            self.drop_first();
        }
        if self.frames.capacity() > ROOM && self.frames.len() < self.frames.capacity() / 4 {
            self.frames.shrink_to((self.frames.len() * 2).max(ROOM));
        }
    }

    /// The sequence of the last frame, 0 before the first append.
    pub(crate) fn head(&self) -> u64 {
        self.first + self.frames.len() as u64 - 1
    }

    fn resume(&self, next: u64) -> Result<u64, (u64, Pos)> {
        if next < self.first { Err((self.first, Pos::end_of(self.first - 1))) } else { Ok(next) }
    }

    /// Frames after a position; see [`crate::Op::Read`].
    pub(crate) fn read(&self, after: Pos, max_bytes: usize) -> Result<Vec<LogFrame>, EngineError> {
        let next = self.resume(after.seq() + 1).map_err(|(_, first)| EngineError::Truncated { first })?;
        Ok(self.take(next, max_bytes, |frame| frame.len()).0)
    }

    fn take(&self, next: u64, max: usize, size: impl Fn(&Bytes) -> usize) -> (Vec<LogFrame>, usize) {
        let skip =
            usize::try_from(next.saturating_sub(self.first)).unwrap_or(usize::MAX).min(self.frames.len());
        let mut sum = 0_usize;
        let mut out = Vec::new();
        for (frame, seq) in self.frames.range(skip..).zip(next..) {
            let with_this = sum.saturating_add(size(frame));
            if with_this > max && !out.is_empty() {
                break;
            }
            sum = with_this;
            out.push(LogFrame { seq, bytes: frame.clone() });
        }
        (out, sum)
    }

    fn drop_first(&mut self) {
        if let Some(frame) = self.frames.pop_front() {
            self.bytes -= cost(&frame);
            self.first += 1;
        }
    }
}

impl Frames for Vec<ShardLog> {
    fn head(&self, shard: Shard) -> u64 {
        self.get(usize::from(shard.0)).map_or(0, ShardLog::head)
    }

    fn resume(&self, shard: Shard, next: u64) -> Result<u64, (u64, Pos)> {
        self.get(usize::from(shard.0)).map_or(Ok(next), |log| log.resume(next))
    }

    fn piece(&mut self, shard: Shard, next: u64, max_cost: usize) -> Option<(Vec<LogFrame>, usize)> {
        self.get(usize::from(shard.0)).map(|log| log.take(next, max_cost, cost))
    }
}

fn cost(frame: &Bytes) -> usize {
    frame.len() + FRAME_COST
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::turn::dedupe::Reach;

    #[test]
    fn the_room_of_a_burst_is_given_back_when_it_is_trimmed() {
        let reach = Reach { appends: 4, time: Duration::ZERO, max_ids: 4 };
        let mut log = ShardLog::new(usize::MAX, Window::new(reach));
        for n in 0..100_000 {
            log.append(Bytes::new(), DedupeId(n), Duration::ZERO);
        }
        assert!(log.frames.capacity() >= 100_000);
        log.trim(99_000);
        assert!(log.frames.capacity() <= 4096, "room for {} frames", log.frames.capacity());
        let (kept, _) = log.take(99_000, usize::MAX, cost);
        assert_eq!((kept.len(), kept[0].seq, log.head()), (1001, 99_000, 100_000));
    }
}
