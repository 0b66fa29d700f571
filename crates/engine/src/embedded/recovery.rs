//! What a start finds in a directory.
//!
//! Read in full are the register's file, and the segments whose index is missing or whose groups are not yet in that file; of all others
//! the headers. What a crash has left half written at the end of the last segment is cut, and told. Anything else that is damaged stops the
//! start: a group that was durable is not forgotten in silence.
//!
//! How the two are told apart: each group says up to which group everything was durable when it was written. If one behind the damage
//! says so of the damaged one, that was acknowledged.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::checkpoint::{self, register_name};
use super::disk::{Disk, DiskFile};
use super::format::{ALIGN, Bad, Entry, GROUP_MAGIC, GroupHeader, HEADER, SegmentHeader, entries, group};
use super::index::{Index, Part};
use super::journal::{
    Journal, Options, Segment, Sidecar, index_fits, index_name, read_index, read_whole, segment_name,
};
use super::{Cut, OpenError, Recovery};
use crate::turn::dedupe::{Reach, Window};
use crate::turn::register::Register;
use crate::{DedupeId, Key, Rev, Value};

/// All that was there.
pub(crate) struct Found<D: Disk> {
    pub(crate) journal: Journal<D>,
    pub(crate) register: Register,
    /// Up to this group the register's file holds everything.
    pub(crate) checkpoint: u64,
    pub(crate) shards: Vec<FoundShard>,
    /// For how long the journal was open, all its processes together.
    pub(crate) time: Duration,
    pub(crate) report: Recovery,
}

/// A shard as it was left.
pub(crate) struct FoundShard {
    /// The sequence of the first frame that is left.
    pub(crate) first: u64,
    /// The sequence of the next append.
    pub(crate) next: u64,
    pub(crate) window: Window,
}

/// The files of a directory by kind, each in order.
#[derive(Default)]
struct Names {
    segments: Vec<u64>,
    indices: Vec<u64>,
    registers: Vec<u64>,
}

fn io_error(file: &str) -> impl Fn(io::Error) -> OpenError + '_ {
    move |source| OpenError::Io { file: file.to_owned(), source }
}

fn bad(file: &str, offset: u64, bad: Bad) -> OpenError {
    match bad {
        Bad::Damaged => OpenError::Corrupt { file: file.to_owned(), offset, what: "a checksum does not fit" },
        Bad::Version(found) => OpenError::Version { file: file.to_owned(), found },
    }
}

fn names<D: Disk>(disk: &mut D) -> Result<Names, OpenError> {
    let mut names = Names::default();
    for name in disk.list().map_err(io_error("."))? {
        let Some((number, kind)) = name.split_once('.') else { continue };
        let Ok(number) = u64::from_str_radix(number, 16) else { continue };
        match kind {
            "seg" => names.segments.push(number),
            "idx" => names.indices.push(number),
            "reg" => names.registers.push(number),
            "seg.tmp" | "idx.tmp" | "reg.tmp" => disk.remove(&name).map_err(io_error(&name))?,
            _ => {}
        }
    }
    for list in [&mut names.segments, &mut names.indices, &mut names.registers] {
        list.sort_unstable();
    }
    Ok(names)
}

/// Reads a directory.
pub(crate) fn recover<D: Disk>(
    mut disk: D,
    options: Options,
    shards: u16,
    reach: Reach,
    salt: u64,
) -> Result<Found<D>, OpenError> {
    let names = names(&mut disk)?;
    let (register, checkpoint) = stored_register(&mut disk, &names)?;
    let headers = headers(&mut disk, &names, shards)?;
    match headers.first() {
        None if checkpoint == 0 => {}
        Some(first) if first.first_lsn <= checkpoint + 1 => {}
        _ => {
            let file = names.segments.first().map_or_else(|| segment_name(1), |n| segment_name(*n));
            return Err(OpenError::Corrupt { file, offset: 0, what: "the journal before it is missing" });
        }
    }
    let mut replay = Replay {
        rev: register.rev(),
        register,
        checkpoint,
        shards: vec![(1, 1); usize::from(shards)],
        time_ms: 0,
        lsn: checkpoint,
        report: Recovery::default(),
    };
    let mut segments = VecDeque::new();
    let mut next = headers.iter().skip(1).map(|h| h.first_lsn);
    for header in &headers {
        segments.push_back(replay.segment(&mut disk, header, next.next())?);
    }
    let mut sidecars: VecDeque<Sidecar> = VecDeque::new();
    let has_index: Vec<u64> = {
        let unwritten =
            |n: &u64| segments.iter().any(|s: &Segment| s.header.number == *n && s.index.is_some());
        names.indices.iter().copied().filter(|n| !unwritten(n)).collect()
    };
    let windows = windows(&mut disk, &segments, &has_index, &replay, reach, &mut sidecars);
    replay.register.set_rev(Rev(replay.rev.0));
    let shards = replay
        .shards
        .iter()
        .zip(windows)
        .map(|(&(first, next), window)| FoundShard { first, next, window })
        .collect();
    replay.report.records = replay.register.len();
    let mut journal = Journal::new(disk, options, segments, sidecars, replay.lsn, salt);
    journal.save_indices();
    Ok(Found {
        journal,
        register: replay.register,
        checkpoint,
        shards,
        time: Duration::from_millis(replay.time_ms),
        report: replay.report,
    })
}

fn stored_register<D: Disk>(disk: &mut D, names: &Names) -> Result<(Register, u64), OpenError> {
    let Some((newest, older)) = names.registers.split_last() else { return Ok((Register::default(), 0)) };
    let name = register_name(*newest);
    let bytes = disk.open(&name).and_then(|mut f| read_whole(&mut f)).map_err(io_error(&name))?;
    let (mut register, lsn) = checkpoint::read(&bytes).map_err(|(offset, b)| bad(&name, offset, b))?;
    register.set_rev(Rev::NONE);
    for lsn in older {
        // the next start tries again
        let _ = disk.remove(&register_name(*lsn));
    }
    Ok((register, lsn))
}

fn headers<D: Disk>(disk: &mut D, names: &Names, shards: u16) -> Result<Vec<SegmentHeader>, OpenError> {
    let mut headers: Vec<SegmentHeader> = Vec::new();
    for number in &names.segments {
        let name = segment_name(*number);
        let mut bytes = vec![0; HEADER];
        let n = disk.open(&name).and_then(|mut f| f.read_at(0, &mut bytes)).map_err(io_error(&name))?;
        let read = SegmentHeader::decode(bytes.get(..n).unwrap_or_default());
        let header = read.map_err(|b| bad(&name, 0, b))?;
        if header.shards.len() != usize::from(shards) {
            return Err(OpenError::Shards { stored: header.shards.len(), asked: shards });
        }
        if header.number != *number
            || headers.last().is_some_and(|before| before.first_lsn > header.first_lsn)
        {
            return Err(OpenError::Corrupt {
                file: name,
                offset: 0,
                what: "it does not follow the one before",
            });
        }
        headers.push(header);
    }
    Ok(headers)
}

/// The state as the segments tell it, one after the other.
struct Replay {
    register: Register,
    rev: Rev,
    checkpoint: u64,
    shards: Vec<(u64, u64)>,
    time_ms: u64,
    lsn: u64,
    report: Recovery,
}

impl Replay {
    /// One segment; `next`: the first group of the one that follows.
    fn segment<D: Disk>(
        &mut self,
        disk: &mut D,
        header: &SegmentHeader,
        next: Option<u64>,
    ) -> Result<Segment, OpenError> {
        let oldest = self.report.segments == 0;
        self.report.segments += 1;
        for (known, said) in self.shards.iter_mut().zip(&header.shards) {
            // Segments went because their frames were trimmed, whether or not that was written down.
            let first = if oldest { said.1 } else { said.0 };
            *known = (known.0.max(first), said.1);
        }
        self.time_ms = self.time_ms.max(header.time_ms);
        self.rev = self.rev.max(Rev(header.rev));
        self.lsn = header.first_lsn - 1;
        if let Some(next) = next.filter(|next| *next <= self.checkpoint + 1)
            && let Some(end) = index_fits(disk, header.number, next - 1)
        {
            self.lsn = next - 1;
            return Ok(Segment { header: header.clone(), end, index: None });
        }
        let name = segment_name(header.number);
        let mut file = disk.open(&name).map_err(io_error(&name))?;
        let bytes = read_whole(&mut file).map_err(io_error(&name))?;
        let mut index = Index::new(header.shards.len(), self.lsn, HEADER as u64);
        let mut at = HEADER;
        while next.is_none_or(|next| self.lsn + 1 < next) {
            let found = bytes.get(at..).and_then(|rest| group(rest, header.salt));
            let Some((head, payload)) = found.filter(|(head, _)| head.lsn == self.lsn + 1) else { break };
            self.group(&head, payload, at as u64, &mut index).map_err(|b| bad(&name, at as u64, b))?;
            at += head.size();
        }
        index.end = at as u64;
        index.end_lsn = self.lsn;
        let rest = bytes.get(at..).unwrap_or_default();
        match next {
            Some(next) if self.lsn + 1 < next => return Err(bad(&name, at as u64, Bad::Damaged)),
            Some(_) => {}
            None => {
                if let Some(offset) = acknowledged_behind(rest, header.salt, self.lsn + 1) {
                    tracing::error!(
                        file = name,
                        offset = at + offset,
                        "durable groups lie behind a damaged one"
                    );
                    return Err(bad(&name, at as u64, Bad::Damaged));
                }
                self.cut(&name, at, rest);
                // it was read, and what is built on it may become durable before it
                file.set_len(at as u64).and_then(|()| file.sync()).map_err(io_error(&name))?;
            }
        }
        Ok(Segment { header: header.clone(), end: at as u64, index: Some(Arc::new(index)) })
    }

    fn cut(&mut self, name: &str, at: usize, rest: &[u8]) {
        if let Some(last) = rest.iter().rposition(|b| *b != 0) {
            let cut = Cut { file: name.to_owned(), offset: at as u64, bytes: last as u64 + 1 };
            tracing::warn!(file = cut.file, offset = cut.offset, bytes = cut.bytes, "a torn write was cut");
            self.report.cut = Some(cut);
        }
    }

    fn group(
        &mut self,
        head: &GroupHeader,
        payload: &[u8],
        offset: u64,
        index: &mut Index,
    ) -> Result<(), Bad> {
        self.report.groups += 1;
        self.lsn = head.lsn;
        self.time_ms = self.time_ms.max(head.time_ms);
        for entry in entries(payload) {
            match entry? {
                Entry::Append { shard, seq, id, .. } => {
                    let known = self.shards.get_mut(usize::from(shard)).ok_or(Bad::Damaged)?;
                    if known.1 != seq {
                        return Err(Bad::Damaged);
                    }
                    known.1 += 1;
                    index.note(shard, seq, id, offset, head.time_ms);
                }
                Entry::Put { first_rev, writes } => {
                    for (rev, (key, value)) in (first_rev..).zip(writes) {
                        if head.lsn > self.checkpoint {
                            let record = value.map(|value| (Value::new(value), Rev(rev)));
                            self.register.set(&Key::from_bytes(key), record);
                        }
                        self.rev = self.rev.max(Rev(rev));
                    }
                }
                Entry::Trim { shard, first } => {
                    let known = self.shards.get_mut(usize::from(shard)).ok_or(Bad::Damaged)?;
                    known.0 = known.0.max(first.min(known.1));
                }
            }
        }
        Ok(())
    }
}

/// Where, behind bytes that are no group, a whole group says that group `lsn` was durable.
fn acknowledged_behind(rest: &[u8], salt: u64, lsn: u64) -> Option<usize> {
    let magic = GROUP_MAGIC.to_le_bytes();
    (ALIGN..rest.len()).step_by(ALIGN).find(|at| {
        let here = rest.get(*at..).unwrap_or_default();
        here.starts_with(&magic)
            && group(here, salt).is_some_and(|(head, _)| head.lsn > lsn && head.synced >= lsn)
    })
}

/// The ids of the last appends of each shard: from the indices, the newest first, until all that must be known are.
fn windows<D: Disk>(
    disk: &mut D,
    segments: &VecDeque<Segment>,
    written: &[u64],
    replay: &Replay,
    reach: Reach,
    sidecars: &mut VecDeque<Sidecar>,
) -> Vec<Window> {
    let mut numbers: Vec<u64> =
        segments.iter().map(|s| s.header.number).chain(written.iter().copied()).collect();
    numbers.sort_unstable();
    numbers.dedup();
    let young = replay.time_ms.saturating_sub(reach.time.as_millis().try_into().unwrap_or(u64::MAX));
    // for each shard, the newest first
    let mut parts: Vec<Vec<Part>> = replay.shards.iter().map(|_| Vec::new()).collect();
    let mut enough = vec![false; replay.shards.len()];
    for number in numbers.into_iter().rev() {
        let segment = segments.iter().find(|s| s.header.number == number);
        let in_memory = segment.and_then(|s| s.index.clone());
        let from_file = in_memory.is_none();
        let needed = enough.iter().any(|e| !e);
        if !needed {
            if segment.is_none() {
                // its ids are older than any that must be known
                let _ = disk.remove(&index_name(number));
            } else if from_file {
                sidecars.push_front(Sidecar { number, next: vec![0; enough.len()] });
            }
            continue;
        }
        let index = match in_memory {
            Some(index) => index,
            None => match read_index(disk, number) {
                Ok(index) => Arc::new(index),
                Err(error) => {
                    tracing::warn!(%error, file = index_name(number), "ids of repeated appends are not known");
                    enough.fill(true);
                    continue;
                }
            },
        };
        if from_file {
            let next = index.parts.iter().map(|p| p.first + p.ids.len() as u64).collect();
            sidecars.push_front(Sidecar { number, next });
        }
        for ((part, list), (enough, shard)) in
            index.parts.iter().zip(&mut parts).zip(enough.iter_mut().zip(&replay.shards))
        {
            if *enough || part.ids.is_empty() {
                continue;
            }
            let expected = list.last().map_or(shard.1, |later| later.first);
            if part.first + part.ids.len() as u64 != expected {
                *enough = true;
                continue;
            }
            list.push(part.clone());
            let known: usize = list.iter().map(|p| p.ids.len()).sum();
            let old = part.marks.first().is_some_and(|(at, _)| *at < young);
            *enough = known >= reach.max_ids || (known >= reach.appends && old);
        }
    }
    parts.into_iter().zip(&replay.shards).map(|(list, shard)| window(list, shard.1, reach)).collect()
}

fn window(list: Vec<Part>, next: u64, reach: Reach) -> Window {
    let mut window = Window::starting_at(reach, list.last().map_or(next, |oldest| oldest.first));
    for part in list.into_iter().rev() {
        let mut marks = part.marks.iter().peekable();
        let mut now = Duration::ZERO;
        for (seq, id) in (part.first..).zip(part.ids) {
            while let Some((at, _)) = marks.next_if(|(_, from)| *from <= seq) {
                now = Duration::from_millis(*at);
            }
            window.remember(seq, DedupeId(id), now);
        }
    }
    window
}
