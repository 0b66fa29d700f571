//! The journal: groups of entries in segment files, each group one write.
//!
//! A group that could not be written or synced did not happen: its segment is never written again, the next one says that it
//! begins with this very group, and what the old one may have of it counts for nothing (a sync that failed once
//! tells nothing by succeeding later).
//!
//! Must not know: what entries mean, ports, the register.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use super::disk::{Disk, DiskFile};
use super::format::{GroupBuffer, GroupHeader, HEADER, SegmentHeader};
use super::index::{INDEX_HEADER, Index};

/// Files that are kept open to be read, and their indices.
const OPEN: usize = 8;

/// How the journal is to be kept.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Options {
    /// A segment ends before it is longer; a group that is longer has one for itself.
    pub(crate) segment_bytes: u64,
    /// Whether each group is synced by [`Journal::append`].
    pub(crate) always: bool,
}

/// What the header of a new segment says.
#[derive(Clone, Debug)]
pub(crate) struct Start {
    pub(crate) rev: u64,
    pub(crate) shards: Vec<(u64, u64)>,
}

/// A frame of a group.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Appended {
    pub(crate) shard: u16,
    pub(crate) seq: u64,
    pub(crate) id: u128,
}

/// A segment that is there.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) header: SegmentHeader,
    /// Where its groups end; of the active one, where they began.
    pub(crate) end: u64,
    /// The index, while its file is not written.
    pub(crate) index: Option<Arc<Index>>,
}

/// The segment that is written.
struct Active<F> {
    file: F,
    index: Index,
}

/// An index file whose segment may be gone.
#[derive(Clone, Debug)]
pub(crate) struct Sidecar {
    pub(crate) number: u64,
    /// For each shard the sequence after the last frame.
    pub(crate) next: Vec<u64>,
}

/// All segments of a directory.
pub(crate) struct Journal<D: Disk> {
    pub(crate) disk: D,
    pub(crate) options: Options,
    pub(crate) segments: VecDeque<Segment>,
    pub(crate) sidecars: VecDeque<Sidecar>,
    active: Option<Active<D::File>>,
    /// The number of the last segment, whether or not it came to be.
    number: u64,
    incarnation: u64,
    lsn: u64,
    synced: u64,
    salt: u64,
    broken: bool,
    open: Vec<(u64, D::File)>,
    indices: VecDeque<(u64, Arc<Index>)>,
}

pub(crate) fn segment_name(number: u64) -> String {
    format!("{number:016x}.seg")
}

pub(crate) fn index_name(number: u64) -> String {
    format!("{number:016x}.idx")
}

/// Writes a file so that it is there as a whole or not at all.
pub(crate) fn write_whole<D: Disk>(disk: &mut D, name: &str, bytes: &[u8]) -> io::Result<()> {
    let draft = format!("{name}.tmp");
    let mut write = || {
        let mut file = disk.create(&draft, 0)?;
        file.write_at(0, bytes)?;
        file.set_len(bytes.len() as u64)?;
        file.sync()?;
        disk.rename(&draft, name)?;
        disk.sync_names()
    };
    let written = write();
    if written.is_err() {
        // it would only take room
        let _ = disk.remove(&draft);
    }
    written
}

pub(crate) fn read_whole<F: DiskFile>(file: &mut F) -> io::Result<Vec<u8>> {
    let len = usize::try_from(file.len()?).map_err(|_| io::Error::from(io::ErrorKind::FileTooLarge))?;
    let mut bytes = vec![0; len];
    let n = file.read_at(0, &mut bytes)?;
    bytes.truncate(n);
    Ok(bytes)
}

impl<D: Disk> Journal<D> {
    /// The journal as recovery found it. `salt`: any number, another for each process.
    pub(crate) fn new(
        disk: D,
        options: Options,
        segments: VecDeque<Segment>,
        sidecars: VecDeque<Sidecar>,
        lsn: u64,
        salt: u64,
    ) -> Self {
        let last = segments.back().map(|s| &s.header);
        Self {
            number: last.map_or(0, |h| h.number),
            incarnation: last.map_or(0, |h| h.incarnation) + 1,
            disk,
            options,
            segments,
            sidecars,
            active: None,
            lsn,
            synced: lsn,
            salt,
            broken: false,
            open: Vec::new(),
            indices: VecDeque::new(),
        }
    }

    /// How often the journal was opened to be written, this time included.
    pub(crate) fn incarnation(&self) -> u64 {
        self.incarnation
    }

    /// The last group.
    pub(crate) fn lsn(&self) -> u64 {
        self.lsn
    }

    /// Whether there is something that only [`Self::sync`] makes durable.
    pub(crate) fn owes_sync(&self) -> bool {
        self.synced < self.lsn
    }

    /// Whether something that was answered may be lost: no more is taken.
    pub(crate) fn is_broken(&self) -> bool {
        self.broken
    }

    /// Bytes of all segments.
    pub(crate) fn bytes(&self) -> u64 {
        self.segments.iter().map(|s| s.end).sum::<u64>() + self.active.as_ref().map_or(0, |a| a.index.end)
    }

    /// Writes a group, durable when it comes back if that was asked for. After an error it did not happen. Whether a new segment
    /// was begun for it.
    pub(crate) fn append(
        &mut self,
        group: &mut GroupBuffer,
        frames: &[Appended],
        time_ms: u64,
        start: &Start,
    ) -> io::Result<bool> {
        if self.broken {
            return Err(io::Error::other("the journal takes nothing after a failed sync"));
        }
        let fresh = self.active.is_none();
        match self.try_append(group, frames, time_ms, start) {
            Err(error) if self.active.is_some() => {
                self.abandon()?;
                if fresh {
                    return Err(error);
                }
                tracing::warn!(%error, "a journal segment could not be written; trying a new one");
                self.try_append(group, frames, time_ms, start).or_else(|error| {
                    self.abandon()?;
                    Err(error)
                })
            }
            done => done,
        }
    }

    fn try_append(
        &mut self,
        group: &mut GroupBuffer,
        frames: &[Appended],
        time_ms: u64,
        start: &Start,
    ) -> io::Result<bool> {
        let lsn = self.lsn + 1;
        let size = group.size();
        let full = |a: &Active<D::File>| {
            a.index.end > HEADER as u64 && a.index.end + size > self.options.segment_bytes
        };
        let rolled = self.active.as_ref().is_none_or(full);
        if rolled {
            self.roll(time_ms, start)?;
        }
        let salt = self.segments.back().map_or(0, |s| s.header.salt);
        let Some(active) = &mut self.active else { return Err(io::ErrorKind::NotFound.into()) };
        let bytes = group.seal(lsn, self.synced, time_ms, salt);
        active.file.write_at(active.index.end, bytes)?;
        if self.options.always {
            active.file.sync()?;
            self.synced = lsn;
        }
        self.lsn = lsn;
        for frame in frames {
            active.index.note(frame.shard, frame.seq, frame.id, active.index.end, time_ms);
        }
        active.index.end += size;
        active.index.end_lsn = lsn;
        Ok(rolled)
    }

    /// Makes durable all groups that were written. After an error the journal takes nothing more: what was answered may be lost.
    pub(crate) fn sync(&mut self) -> io::Result<()> {
        if !self.owes_sync() {
            return Ok(());
        }
        let synced = self.active.as_mut().map_or(Ok(()), |active| active.file.sync());
        match synced {
            Ok(()) => self.synced = self.lsn,
            Err(_) => self.broken = true,
        }
        synced
    }

    /// Lets go of the active segment after an error.
    fn abandon(&mut self) -> io::Result<()> {
        // without a sync for each group, earlier ones lie there too
        self.sync()?;
        if let Some(active) = self.active.take() {
            self.seal(active);
        }
        Ok(())
    }

    fn seal(&mut self, mut active: Active<D::File>) {
        // gives back what was reserved; if not, it goes with the segment
        let _ = active.file.set_len(active.index.end);
        if let Some(segment) = self.segments.back_mut() {
            segment.end = active.index.end;
            segment.index = Some(Arc::new(active.index));
        }
    }

    /// Ends the active segment and begins the next one.
    fn roll(&mut self, time_ms: u64, start: &Start) -> io::Result<()> {
        self.sync()?;
        if let Some(active) = self.active.take() {
            self.seal(active);
        }
        self.save_indices();
        self.number += 1;
        let header = SegmentHeader {
            number: self.number,
            salt: self.next_salt(),
            first_lsn: self.lsn + 1,
            incarnation: self.incarnation,
            time_ms,
            rev: start.rev,
            shards: start.shards.clone(),
        };
        let name = segment_name(self.number);
        let draft = format!("{name}.tmp");
        let disk = &mut self.disk;
        let reserve = self.options.segment_bytes;
        let mut create = || {
            let mut file = disk.create(&draft, reserve)?;
            file.write_at(0, &header.encode())?;
            file.sync()?;
            disk.rename(&draft, &name)?;
            disk.sync_names()?;
            Ok(file)
        };
        let created: io::Result<D::File> = create();
        match created {
            Ok(file) => {
                let end = HEADER as u64;
                let index = Index::new(header.shards.len(), self.lsn, end);
                self.active = Some(Active { file, index });
                self.segments.push_back(Segment { header, end: 0, index: None });
                Ok(())
            }
            Err(error) => {
                // Whatever is left of it has no group: it harms nobody.
                let _ = self.disk.remove(&draft);
                let _ = self.disk.remove(&name);
                Err(error)
            }
        }
    }

    fn next_salt(&mut self) -> u64 {
        self.salt = self.salt.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.salt ^ (self.salt >> 29)
    }

    /// Writes the index files that are missing; what fails is tried again with the next segment. An index that is not written
    /// is made anew from its segment.
    pub(crate) fn save_indices(&mut self) {
        for segment in &mut self.segments {
            let Some(index) = &segment.index else { continue };
            let number = segment.header.number;
            match write_whole(&mut self.disk, &index_name(number), &index.encode()) {
                Ok(()) => {
                    let next = |(p, s): (&super::index::Part, &(u64, u64))| {
                        if p.ids.is_empty() { s.1 } else { p.first + p.ids.len() as u64 }
                    };
                    let next = index.parts.iter().zip(&segment.header.shards).map(next).collect();
                    self.sidecars.push_back(Sidecar { number, next });
                    segment.index = None;
                }
                Err(error) => tracing::debug!(%error, "an index could not be written"),
            }
        }
    }

    /// Removes the oldest segment, whose frames nobody can want. Its index stays.
    pub(crate) fn remove_oldest(&mut self) -> io::Result<()> {
        let Some(oldest) = self.segments.front() else { return Ok(()) };
        let number = oldest.header.number;
        if oldest.index.is_some() {
            self.save_indices();
            if self.segments.front().is_some_and(|s| s.index.is_some()) {
                return Err(io::Error::other("the index of a segment could not be written"));
            }
        }
        self.open.retain(|(n, _)| *n != number);
        self.indices.retain(|(n, _)| *n != number);
        self.disk.remove(&segment_name(number))?;
        // one at a time: a hole between segments would look like damage
        self.disk.sync_names()?;
        self.segments.pop_front();
        Ok(())
    }

    /// Removes index files whose segments are gone and whose ids lie below these, for each shard.
    pub(crate) fn remove_sidecars(&mut self, first_ids: &[u64]) {
        let oldest = self.segments.front().map_or(u64::MAX, |s| s.header.number);
        while let Some(sidecar) = self.sidecars.front()
            && sidecar.number < oldest
            && sidecar.next.iter().zip(first_ids).all(|(next, first)| next <= first)
        {
            if self.disk.remove(&index_name(sidecar.number)).is_err() {
                return;
            }
            self.sidecars.pop_front();
        }
    }

    /// The place in `segments` where a frame lies.
    pub(crate) fn segment_of(&self, shard: usize, seq: u64) -> Option<usize> {
        let begins = |s: &Segment| s.header.shards.get(shard).is_some_and(|(_, next)| *next <= seq);
        self.segments.partition_point(begins).checked_sub(1)
    }

    /// Reads of a segment: its number, its salt, where its groups end.
    pub(crate) fn extent(&self, at: usize) -> Option<(u64, u64, u64)> {
        let segment = self.segments.get(at)?;
        let active = self.active.as_ref().filter(|_| at + 1 == self.segments.len());
        let end = active.map_or(segment.end, |a| a.index.end);
        Some((segment.header.number, segment.header.salt, end))
    }

    /// The places of the groups of a segment that begin a stretch with frames of the shard, from the one in which `seq` may be.
    pub(crate) fn stretches(&mut self, at: usize, shard: usize, seq: u64) -> io::Result<Vec<u64>> {
        let from = |index: &Index| {
            let sparse = index.parts.get(shard).map_or(&[][..], |part| &part.sparse);
            let skip = sparse.partition_point(|(first, _)| *first <= seq).saturating_sub(1);
            sparse.iter().skip(skip).map(|(_, offset)| *offset).collect()
        };
        if at + 1 == self.segments.len()
            && let Some(active) = &self.active
        {
            return Ok(from(&active.index));
        }
        let Some(segment) = self.segments.get(at) else { return Ok(Vec::new()) };
        if let Some(index) = &segment.index {
            return Ok(from(index));
        }
        let number = segment.header.number;
        if let Some((_, index)) = self.indices.iter().find(|(n, _)| *n == number) {
            return Ok(from(index));
        }
        let mut index = read_index(&mut self.disk, number)?;
        // what a reader needs of it is small
        for part in &mut index.parts {
            part.ids = Vec::new();
            part.marks = Vec::new();
        }
        let found = from(&index);
        self.indices.push_front((number, Arc::new(index)));
        self.indices.truncate(OPEN);
        Ok(found)
    }

    /// Bytes of a segment, up to `into`'s length; gives how many there are.
    pub(crate) fn read_at(&mut self, number: u64, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        let last = self.segments.back().is_some_and(|s| s.header.number == number);
        if last && let Some(active) = &mut self.active {
            return active.file.read_at(offset, into);
        }
        if !self.open.iter().any(|(n, _)| *n == number) {
            let file = self.disk.open(&segment_name(number))?;
            if self.open.len() >= OPEN {
                self.open.remove(0);
            }
            self.open.push((number, file));
        }
        match self.open.iter_mut().find(|(n, _)| *n == number) {
            Some((_, file)) => file.read_at(offset, into),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }
}

/// Reads an index file as a whole.
pub(crate) fn read_index<D: Disk>(disk: &mut D, number: u64) -> io::Result<Index> {
    let bytes = read_whole(&mut disk.open(&index_name(number))?)?;
    Index::decode(&bytes)
        .map_err(|bad| io::Error::new(io::ErrorKind::InvalidData, format!("an index is {bad:?}")))
}

/// The first bytes of an index file, if they say what the segment that follows says.
pub(crate) fn index_fits<D: Disk>(disk: &mut D, number: u64, end_lsn: u64) -> Option<u64> {
    let mut bytes = [0; INDEX_HEADER];
    disk.open(&index_name(number)).ok()?.read_at(0, &mut bytes).ok()?;
    let header = Index::header(&bytes).ok()?;
    (header.end_lsn == end_lsn).then_some(header.end)
}

impl GroupBuffer {
    /// How many bytes of a segment it will take.
    fn size(&self) -> u64 {
        let header = GroupHeader { lsn: 0, synced: 0, time_ms: 0, len: self.entries_len() };
        header.size() as u64
    }
}
