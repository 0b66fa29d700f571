//! A group with durable members as its home worker keeps it: how far it has read each shard of the log, who has what, what came
//! back. Pure: it is told what happens and says what is to be read and dealt.
//!
//! A message of the group is at any time in exactly one of three places: ahead of the cursor, with the member that was dealt it
//! (`out`), or `returned`. Positions, never messages: whatever comes back is read from the log again. What is out is bounded by
//! the windows of the members; what is returned by what was out, and one message for each shard.
//!
//! Must not know: the log, sessions, workers, strategies.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use engine::{LogFrame, Pos, Shard};
use hashbrown::{HashMap, HashSet};
use smallvec::SmallVec;

use super::NotTaken;
use crate::record::{self, Reader};
use crate::router::{Member, SessionKey};

/// Positions that a record holds; with more, the cursor in it is put back instead, and they are dealt again after a crash.
const STORED_POSITIONS: usize = 10_000;

/// A member on one worker: a session that moves is another one here, so that what its old worker still says does not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Holder {
    pub(crate) session: SessionKey,
    pub(crate) worker: u16,
}

impl Holder {
    pub(crate) fn of(member: &Member) -> Self {
        Self { session: member.session, worker: member.address.worker }
    }
}

/// One shard, as the group has read it.
#[derive(Default)]
struct Reading {
    /// Everything up to here was dealt, at least once, or is not the group's.
    cursor: Pos,
    /// The group is where its worker's tail is.
    live: bool,
    /// A read is under way.
    reading: bool,
    /// Frames that were read and not yet gone through; bounded by one read.
    ahead: VecDeque<LogFrame>,
    /// Dealt and not acknowledged.
    out: BTreeMap<Pos, Holder>,
    /// Was dealt, and nobody has it.
    returned: BTreeSet<Pos>,
}

/// What a group wants next of a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Nothing: it is live, or waits for a read.
    Nothing,
    /// To go through the first frame that was read.
    Frame,
    /// To read frames after this position.
    Read(Pos),
}

/// See the module.
pub(crate) struct GroupState {
    /// `$share/{ShareName}/{filter}`.
    pub(crate) name: Box<str>,
    shards: Box<[Reading]>,
    /// Which shard has its turn first: a busy one would starve the others.
    first: u16,
    /// Messages under way to each session.
    load: HashMap<SessionKey, usize>,
    /// Those who refused a message and have not said since that they are here and have room.
    stalled: HashSet<Holder>,
    /// Who does not take a message because of its size.
    too_large: BTreeMap<(Shard, Pos), SmallVec<[SessionKey; 2]>>,
    /// Changed since it was written.
    pub(crate) dirty: bool,
}

impl GroupState {
    /// A group that has read everything up to `tails`.
    pub(crate) fn live_at(name: &str, tails: &[Pos]) -> Self {
        let shards = tails.iter().map(|&cursor| Reading { cursor, live: true, ..Reading::default() });
        Self::of(name.into(), shards.collect())
    }

    /// A group as its record tells, for so many shards.
    pub(crate) fn restored(name: Box<str>, stored: &StoredGroup, shards: usize) -> Self {
        let shards = (0..shards).map(|shard| Reading {
            cursor: stored.cursors.get(shard).copied().unwrap_or_default(),
            returned: stored
                .returned
                .iter()
                .filter(|(s, _)| usize::from(s.0) == shard)
                .map(|r| r.1)
                .collect(),
            ..Reading::default()
        });
        Self::of(name, shards.collect())
    }

    fn of(name: Box<str>, shards: Box<[Reading]>) -> Self {
        Self {
            name,
            shards,
            first: 0,
            load: HashMap::new(),
            stalled: HashSet::new(),
            too_large: BTreeMap::new(),
            dirty: true,
        }
    }

    /// The shards in the order of their turns; another one is first each time.
    pub(crate) fn turns(&mut self) -> impl Iterator<Item = Shard> + use<> {
        let shards = u16::try_from(self.shards.len()).unwrap_or(u16::MAX);
        let first = self.first;
        self.first = if first + 1 < shards { first + 1 } else { 0 };
        (first..shards).chain(0..first).map(Shard)
    }

    fn shard(&mut self, shard: Shard) -> Option<&mut Reading> {
        self.shards.get_mut(usize::from(shard.0))
    }

    /// Whether the message at `pos`, which is the group's, is to be dealt now. `tail`: it came at the end of the log, not from a
    /// read.
    pub(crate) fn wants(&self, shard: Shard, pos: Pos, tail: bool) -> bool {
        let Some(reading) = self.shards.get(usize::from(shard.0)) else { return false };
        (pos > reading.cursor && (reading.live || !tail)) || (!tail && reading.returned.contains(&pos))
    }

    /// Whether a member may be dealt the message now.
    pub(crate) fn is_able(&self, member: &Member, shard: Shard, pos: Pos) -> bool {
        let load = self.load.get(&member.session).copied().unwrap_or_default();
        load < usize::from(member.presence.window)
            && !self.stalled.contains(&Holder::of(member))
            && !self.refuses(member, shard, pos)
    }

    /// Whether the message is too large for a member.
    pub(crate) fn refuses(&self, member: &Member, shard: Shard, pos: Pos) -> bool {
        self.too_large.get(&(shard, pos)).is_some_and(|who| who.contains(&member.session))
    }

    /// A message goes to a member.
    pub(crate) fn dealt(&mut self, shard: Shard, pos: Pos, to: Holder) {
        let Some(reading) = self.shard(shard) else { return };
        reading.returned.remove(&pos);
        reading.cursor = reading.cursor.max(pos);
        reading.out.insert(pos, to);
        *self.load.entry(to.session).or_default() += 1;
        self.dirty = true;
    }

    /// A message that nobody will get.
    pub(crate) fn dropped(&mut self, shard: Shard, pos: Pos) {
        self.too_large.remove(&(shard, pos));
        let Some(reading) = self.shard(shard) else { return };
        reading.returned.remove(&pos);
        reading.cursor = reading.cursor.max(pos);
        self.dirty = true;
    }

    /// Nobody can take the message now: it and those behind it wait. `tail` as in [`Self::next`].
    pub(crate) fn waits(&mut self, shard: Shard, pos: Pos, tail: Pos) {
        let Some(reading) = self.shard(shard) else { return };
        if reading.live {
            reading.cursor = reading.cursor.max(tail);
        }
        if pos > reading.cursor {
            reading.cursor = pos;
            reading.returned.insert(pos);
        }
        reading.live = false;
        self.dirty = true;
    }

    fn take_back(&mut self, shard: Shard, pos: Pos, from: Holder) -> bool {
        let Some(reading) = self.shard(shard) else { return false };
        if reading.out.get(&pos) != Some(&from) {
            return false;
        }
        reading.out.remove(&pos);
        if let Some(load) = self.load.get_mut(&from.session) {
            *load -= 1;
            if *load == 0 {
                self.load.remove(&from.session);
            }
        }
        self.dirty = true;
        true
    }

    /// The member has acknowledged the message, or answers for it from now on; `false`: it is not known to have it.
    pub(crate) fn done(&mut self, shard: Shard, pos: Pos, by: Holder) -> bool {
        let known = self.take_back(shard, pos, by);
        if known {
            self.too_large.remove(&(shard, pos));
        }
        known
    }

    /// The member does not take the message; `true`: it is for another one now.
    pub(crate) fn refused(&mut self, shard: Shard, pos: Pos, by: Holder, why: NotTaken) -> bool {
        if matches!(why, NotTaken::Full | NotTaken::Gone) {
            self.stalled.insert(by);
        }
        if !self.take_back(shard, pos, by) {
            return false;
        }
        if why == NotTaken::TooLarge {
            let who = self.too_large.entry((shard, pos)).or_default();
            if !who.contains(&by.session) {
                who.push(by.session);
            }
        }
        if let Some(reading) = self.shard(shard) {
            reading.returned.insert(pos);
        }
        true
    }

    /// The connection of a member has gone and with it what it had not acknowledged; how many are for others now.
    pub(crate) fn gave_back(&mut self, by: Holder, messages: &[(Shard, Pos)]) -> usize {
        self.stalled.remove(&by);
        let mut back = 0;
        for &(shard, pos) in messages {
            if self.take_back(shard, pos, by) {
                back += 1;
                if let Some(reading) = self.shard(shard) {
                    reading.returned.insert(pos);
                }
            }
        }
        back
    }

    /// A member came, or has room again.
    pub(crate) fn has_room(&mut self, who: Holder) {
        self.stalled.remove(&who);
    }

    /// Only these are connected: what others said is of no matter.
    pub(crate) fn connected(&mut self, members: &[Member]) {
        self.stalled.retain(|s| members.iter().any(|m| Holder::of(m) == *s));
    }

    /// What is to be done in a shard next; `tail`: how far the worker has been given it.
    pub(crate) fn next(&mut self, shard: Shard, tail: Pos) -> Next {
        let Some(reading) = self.shard(shard) else { return Next::Nothing };
        if reading.reading {
            return Next::Nothing;
        }
        if !reading.ahead.is_empty() {
            return Next::Frame;
        }
        // reads go by whole frames: the one that a position stands in is read again, unless it was gone through
        let after = if let Some(first) = reading.returned.first() {
            Pos::end_of(first.seq().saturating_sub(1))
        } else if reading.live {
            return Next::Nothing;
        } else if reading.cursor >= tail {
            reading.live = true;
            return Next::Nothing;
        } else if reading.cursor == Pos::end_of(reading.cursor.seq()) {
            reading.cursor
        } else {
            Pos::end_of(reading.cursor.seq().saturating_sub(1))
        };
        reading.reading = true;
        Next::Read(after)
    }

    /// What was asked for has come; how many messages are in no frame any more.
    pub(crate) fn read(&mut self, shard: Shard, frames: Vec<LogFrame>, tail: Pos) -> usize {
        let Some(reading) = self.shard(shard) else { return 0 };
        reading.reading = false;
        if !frames.is_empty() {
            reading.ahead.extend(frames);
            return 0;
        }
        // nothing at or after what was asked for: it has been trimmed, or never was
        reading.cursor = reading.cursor.max(tail);
        self.dirty = true;
        self.forget_before(shard, Pos(u64::MAX))
    }

    /// The read failed for good; it is asked for again with the next change.
    pub(crate) fn not_read(&mut self, shard: Shard) {
        if let Some(reading) = self.shard(shard) {
            reading.reading = false;
        }
    }

    /// The log begins at `first`; how many messages were lost.
    pub(crate) fn truncated(&mut self, shard: Shard, first: Pos) -> usize {
        let Some(reading) = self.shard(shard) else { return 0 };
        reading.reading = false;
        reading.cursor = reading.cursor.max(first);
        self.dirty = true;
        self.forget_before(shard, first)
    }

    fn forget_before(&mut self, shard: Shard, first: Pos) -> usize {
        let Some(reading) = self.shard(shard) else { return 0 };
        let before = reading.returned.len();
        reading.returned.retain(|&pos| pos > first);
        before - reading.returned.len()
    }

    /// The frame that is to be gone through.
    pub(crate) fn frame(&self, shard: Shard) -> Option<LogFrame> {
        self.shards.get(usize::from(shard.0))?.ahead.front().cloned()
    }

    /// All of that frame was dealt or is not the group's; how many returned messages were not found in it.
    pub(crate) fn passed(&mut self, shard: Shard) -> usize {
        let Some(reading) = self.shard(shard) else { return 0 };
        let Some(frame) = reading.ahead.pop_front() else { return 0 };
        let end = Pos::end_of(frame.seq);
        reading.cursor = reading.cursor.max(end);
        let before = reading.returned.len();
        let begin = Pos::end_of(frame.seq.saturating_sub(1));
        reading.returned.retain(|&pos| pos <= begin || pos > end);
        self.dirty = true;
        before - self.shards.get(usize::from(shard.0)).map_or(before, |r| r.returned.len())
    }

    /// The position from which the group needs a shard of the log; `tail` as in [`Self::next`].
    pub(crate) fn floor(&self, shard: usize, tail: Pos) -> Pos {
        let Some(reading) = self.shards.get(shard) else { return Pos(u64::MAX) };
        let at = if reading.live { reading.cursor.max(tail) } else { reading.cursor };
        let out = reading.out.first_key_value().map(|(&pos, _)| pos);
        at.min(out.unwrap_or(at)).min(reading.returned.first().copied().unwrap_or(at))
    }

    /// Whether nothing is out, came back or lies behind.
    pub(crate) fn is_settled(&self) -> bool {
        self.shards.iter().all(|r| r.live && !r.reading && r.out.is_empty() && r.returned.is_empty())
    }

    /// Its record.
    pub(crate) fn encode(&self, tails: &[Pos]) -> Vec<u8> {
        let mut out = record::begin();
        let many =
            self.shards.iter().map(|r| r.out.len() + r.returned.len()).sum::<usize>() > STORED_POSITIONS;
        let mut cursors = Vec::new();
        let mut positions: Vec<(Shard, Pos)> = Vec::new();
        for (index, (reading, &tail)) in self.shards.iter().zip(tails).enumerate() {
            let at = if reading.live { reading.cursor.max(tail) } else { reading.cursor };
            if many {
                // back to the end of the frame before all of them
                let floor = self.floor(index, tail);
                cursors.push(if floor < at { Pos::end_of(floor.seq().saturating_sub(1)) } else { at });
                continue;
            }
            cursors.push(at);
            let shard = Shard(u16::try_from(index).unwrap_or(u16::MAX));
            positions.extend(reading.out.keys().chain(&reading.returned).map(|&pos| (shard, pos)));
        }
        record::put_positions(&cursors, &mut out);
        out.extend_from_slice(&u32::try_from(positions.len()).unwrap_or(u32::MAX).to_be_bytes());
        for (shard, pos) in positions {
            out.extend_from_slice(&shard.0.to_be_bytes());
            out.extend_from_slice(&pos.0.to_be_bytes());
        }
        out
    }
}

/// A group's record, read back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct StoredGroup {
    pub(crate) cursors: Box<[Pos]>,
    pub(crate) returned: Vec<(Shard, Pos)>,
}

impl StoredGroup {
    /// `None`: damaged.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut r = Reader::versioned(bytes)?;
        let cursors = record::positions(&mut r)?;
        let count = r.u32()?;
        let mut returned = Vec::new();
        for _ in 0..count {
            returned.push((Shard(r.u16()?), Pos(r.u64()?)));
        }
        Some(Self { cursors, returned })
    }
}

#[cfg(test)]
mod tests;
