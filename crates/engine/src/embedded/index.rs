//! What is known of a segment beside its bytes: where to look for a frame, and the ids of all its frames.
//!
//! The index of the active segment is in memory; a sealed one's is written to a file of its own, which stays when the segment goes,
//! until its ids have left the window in which repeated appends are recognised.
//!
//! Must not know: files, the register.

use super::format::{Bad, INDEX_MAGIC, Reader, VERSION, checksum, version};

/// A frame is found by reading at most so many bytes and one group from the place that the index gives.
pub(crate) const SPARSE: u64 = 32 << 10;
/// How finely the time of appends is kept, in milliseconds.
const MARK_EVERY_MS: u64 = 1000;
/// The length of the file's header.
pub(crate) const INDEX_HEADER: usize = 64;

/// The frames of one shard in a segment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Part {
    /// The sequence of the first frame.
    pub(crate) first: u64,
    /// The ids of all frames, in order.
    pub(crate) ids: Vec<u128>,
    /// `(time, sequence)`: this frame and those after it were appended at this time of the journal or later, in milliseconds.
    pub(crate) marks: Vec<(u64, u64)>,
    /// `(sequence, offset)`: the group at the offset is the first that holds this frame or a later one.
    pub(crate) sparse: Vec<(u64, u64)>,
}

/// All frames of a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Index {
    /// The last group; one below the segment's first if there is none.
    pub(crate) end_lsn: u64,
    /// Where the groups end.
    pub(crate) end: u64,
    pub(crate) parts: Vec<Part>,
}

/// What the first bytes of an index file say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct IndexHeader {
    pub(crate) end_lsn: u64,
    pub(crate) end: u64,
    pub(crate) body: u64,
    sum: u64,
}

impl Index {
    pub(crate) fn new(shards: usize, end_lsn: u64, end: u64) -> Self {
        Self { end_lsn, end, parts: vec![Part::default(); shards] }
    }

    /// Notes a frame of the group at `offset`. Frames of a shard come in order.
    pub(crate) fn note(&mut self, shard: u16, seq: u64, id: u128, offset: u64, time_ms: u64) {
        let Some(part) = self.parts.get_mut(usize::from(shard)) else { return };
        if part.ids.is_empty() {
            part.first = seq;
        }
        part.ids.push(id);
        if part.marks.last().is_none_or(|&(at, _)| time_ms >= at + MARK_EVERY_MS) {
            part.marks.push((time_ms, seq));
        }
        if part.sparse.last().is_none_or(|&(_, at)| offset >= at + SPARSE) {
            part.sparse.push((seq, offset));
        }
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = vec![0; INDEX_HEADER];
        let n = |out: &mut Vec<u8>, n: u64| out.extend_from_slice(&n.to_le_bytes());
        n(&mut out, self.parts.len() as u64);
        for part in &self.parts {
            n(&mut out, part.first);
            n(&mut out, part.ids.len() as u64);
            part.ids.iter().for_each(|id| out.extend_from_slice(&id.to_le_bytes()));
            for pairs in [&part.marks, &part.sparse] {
                n(&mut out, pairs.len() as u64);
                pairs.iter().for_each(|(a, b)| {
                    n(&mut out, *a);
                    n(&mut out, *b);
                });
            }
        }
        let body = (out.len() - INDEX_HEADER) as u64;
        let mut header = Vec::with_capacity(INDEX_HEADER);
        header.extend_from_slice(INDEX_MAGIC);
        header.extend_from_slice(&VERSION.to_le_bytes());
        header.extend_from_slice(&[0; 4]);
        let sum = checksum(&out[INDEX_HEADER..], 0);
        [self.end_lsn, self.end, body, sum].iter().for_each(|v| n(&mut header, *v));
        let sum = checksum(&header, 0);
        n(&mut header, sum);
        out[..header.len()].copy_from_slice(&header);
        out
    }

    pub(crate) fn header(bytes: &[u8]) -> Result<IndexHeader, Bad> {
        version(bytes, INDEX_MAGIC)?;
        let read = || {
            let mut r = Reader(bytes.get(16..)?);
            let header = IndexHeader { end_lsn: r.u64()?, end: r.u64()?, body: r.u64()?, sum: r.u64()? };
            (r.u64()? == checksum(bytes.get(..48)?, 0)).then_some(header)
        };
        read().ok_or(Bad::Damaged)
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Bad> {
        let header = Self::header(bytes)?;
        let body = bytes.get(INDEX_HEADER..).ok_or(Bad::Damaged)?;
        if body.len() as u64 != header.body || checksum(body, 0) != header.sum {
            return Err(Bad::Damaged);
        }
        let mut r = Reader(body);
        let read = |r: &mut Reader<'_>| {
            let parts = (0..r.u64()?).map(|_| part(r)).collect::<Option<Vec<_>>>()?;
            Some(Self { end_lsn: header.end_lsn, end: header.end, parts })
        };
        read(&mut r).ok_or(Bad::Damaged)
    }
}

fn part(r: &mut Reader<'_>) -> Option<Part> {
    let pairs =
        |r: &mut Reader<'_>| (0..r.u64()?).map(|_| Some((r.u64()?, r.u64()?))).collect::<Option<Vec<_>>>();
    Some(Part {
        first: r.u64()?,
        ids: (0..r.u64()?).map(|_| r.u128()).collect::<Option<_>>()?,
        marks: pairs(r)?,
        sparse: pairs(r)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_is_read_as_it_was_written_and_refused_when_damaged() {
        let mut index = Index::new(3, 8, 4096);
        for n in 0..100_u64 {
            index.note((n % 2) as u16, 7 + n / 2, u128::from(n) << 70, 4096 + n * 1000, n * 100);
        }
        assert_eq!(index.parts[1].sparse.len(), 3);
        assert_eq!(index.parts[0].marks.len(), 10);
        let bytes = index.encode();
        assert_eq!(Index::decode(&bytes), Ok(index));
        for at in [0, 20, 47, 50, 70, bytes.len() - 1] {
            let mut bad = bytes.clone();
            bad[at] ^= 4;
            assert!(Index::decode(&bad).is_err() || (56..64).contains(&at), "byte {at}");
        }
    }
}
