//! The bytes of the files, version 1. All numbers are little endian; every part has a checksum (XXH3, 64 bits, seeded with the
//! file's salt, so that no payload can look like a group and no file like another).
//!
//! | file | holds |
//! |---|---|
//! | `N.seg` | the journal: a header of [`HEADER`] bytes, then groups, each beginning at a multiple of 8 |
//! | `N.idx` | of the segment `N`: the ids of its frames, and where to look for a frame |
//! | `L.reg` | the register as it was after group `L` or later: a header, then blocks of records |
//! | `*.tmp` | one of these that was not finished |
//!
//! A group is what one write brings: its entries are there as a whole or not at all.
//!
//! Must not know: files, disks.

use xxhash_rust::xxh3::xxh3_64_with_seed;

/// The length of a segment's header.
pub(crate) const HEADER: usize = 4096;
/// The length of a group's header.
pub(crate) const GROUP_HEADER: usize = 40;
/// What every group begins with.
pub(crate) const GROUP_MAGIC: u32 = 0x5052_4754;
/// Where groups begin.
pub(crate) const ALIGN: usize = 8;
/// The version of all files.
pub(crate) const VERSION: u32 = 1;

const SEGMENT_MAGIC: &[u8; 8] = b"TIDESEG\0";
/// What an index begins with.
pub(crate) const INDEX_MAGIC: &[u8; 8] = b"TIDEIDX\0";
/// What a stored register begins with.
pub(crate) const REGISTER_MAGIC: &[u8; 8] = b"TIDEREG\0";

const APPEND: u8 = 1;
const PUT: u8 = 2;
const TRIM: u8 = 3;

/// Why bytes are not what they should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bad {
    /// Too short, or the checksum differs.
    Damaged,
    /// Written by another version.
    Version(u32),
}

pub(crate) fn checksum(bytes: &[u8], salt: u64) -> u64 {
    xxh3_64_with_seed(bytes, salt)
}

/// Takes numbers and bytes from the front.
pub(crate) struct Reader<'a>(pub(crate) &'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn bytes(&mut self, n: usize) -> Option<&'a [u8]> {
        let (front, rest) = self.0.split_at_checked(n)?;
        self.0 = rest;
        Some(front)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.bytes(N)?.try_into().ok()
    }

    pub(crate) fn u8(&mut self) -> Option<u8> {
        self.array::<1>().map(|[b]| b)
    }

    pub(crate) fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    pub(crate) fn u128(&mut self) -> Option<u128> {
        self.array().map(u128::from_le_bytes)
    }

    /// Bytes behind their length.
    pub(crate) fn sized(&mut self) -> Option<&'a [u8]> {
        let len = self.u32()?;
        self.bytes(usize::try_from(len).ok()?)
    }
}

/// Bytes behind their length. What is larger than 4 GiB has been refused before.
pub(crate) fn put_sized(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
    out.extend_from_slice(bytes);
}

/// What a segment says of the time before its first group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    /// Its number, from 1; the numbers of later segments are higher.
    pub(crate) number: u64,
    /// Seeds all checksums of the file.
    pub(crate) salt: u64,
    /// The group that comes first. What older segments have of it and of later ones was never acknowledged.
    pub(crate) first_lsn: u64,
    /// How often the journal was opened to be written, from 1.
    pub(crate) incarnation: u64,
    /// Milliseconds for which the journal was open, all its processes together.
    pub(crate) time_ms: u64,
    /// The revision of the last write to the register.
    pub(crate) rev: u64,
    /// For each shard the sequence of the first frame that is left, and that of the next append.
    pub(crate) shards: Vec<(u64, u64)>,
}

impl SegmentHeader {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEADER);
        out.extend_from_slice(SEGMENT_MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&(self.shards.len() as u32).to_le_bytes());
        for n in [self.number, self.salt, self.first_lsn, self.incarnation, self.time_ms, self.rev] {
            out.extend_from_slice(&n.to_le_bytes());
        }
        for (first, next) in &self.shards {
            out.extend_from_slice(&first.to_le_bytes());
            out.extend_from_slice(&next.to_le_bytes());
        }
        out.resize(HEADER - 8, 0);
        let sum = checksum(&out, 0);
        out.extend_from_slice(&sum.to_le_bytes());
        out
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Bad> {
        let (body, sum) = bytes.get(..HEADER).and_then(|b| b.split_last_chunk::<8>()).ok_or(Bad::Damaged)?;
        version(body, SEGMENT_MAGIC)?;
        if checksum(body, 0) != u64::from_le_bytes(*sum) {
            return Err(Bad::Damaged);
        }
        let mut r = Reader(body.get(12..).unwrap_or_default());
        let read = |r: &mut Reader<'_>| {
            let shards = r.u32()?;
            let [number, salt, first_lsn, incarnation, time_ms, rev] =
                [r.u64()?, r.u64()?, r.u64()?, r.u64()?, r.u64()?, r.u64()?];
            let shards = (0..shards).map(|_| Some((r.u64()?, r.u64()?))).collect::<Option<Vec<_>>>()?;
            Some(Self { number, salt, first_lsn, incarnation, time_ms, rev, shards })
        };
        read(&mut r).ok_or(Bad::Damaged)
    }
}

/// Whether a file begins as it should, and is of a version that is known.
pub(crate) fn version(bytes: &[u8], magic: &[u8; 8]) -> Result<(), Bad> {
    let mut r = Reader(bytes);
    if r.bytes(8) != Some(magic) {
        return Err(Bad::Damaged);
    }
    match r.u32() {
        Some(VERSION) => Ok(()),
        Some(other) => Err(Bad::Version(other)),
        None => Err(Bad::Damaged),
    }
}

/// What a group says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct GroupHeader {
    /// Its number: one above that of the group before.
    pub(crate) lsn: u64,
    /// When it was written, all groups up to this one were durable.
    pub(crate) synced: u64,
    /// When it was written, in the journal's own time.
    pub(crate) time_ms: u64,
    /// The length of its entries.
    pub(crate) len: usize,
}

impl GroupHeader {
    /// From the group's first bytes; the checksum is not looked at.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut r = Reader(bytes);
        if r.u32()? != GROUP_MAGIC {
            return None;
        }
        let len = usize::try_from(r.u32()?).ok()?;
        let _checksum = r.u64()?;
        Some(Self { lsn: r.u64()?, synced: r.u64()?, time_ms: r.u64()?, len })
    }

    /// How many bytes the group takes, with what fills it up.
    pub(crate) fn size(&self) -> usize {
        (GROUP_HEADER + self.len).next_multiple_of(ALIGN)
    }
}

/// The group that begins here, if it is whole: its header and its entries.
pub(crate) fn group(bytes: &[u8], salt: u64) -> Option<(GroupHeader, &[u8])> {
    let header = GroupHeader::decode(bytes)?;
    let whole = bytes.get(..GROUP_HEADER.checked_add(header.len)?)?;
    let sum = Reader(whole.get(8..16)?).u64()?;
    (checksum(&whole[16..], salt) == sum).then(|| (header, &whole[GROUP_HEADER..]))
}

/// A group that is being made.
#[derive(Debug)]
pub(crate) struct GroupBuffer(Vec<u8>);

impl Default for GroupBuffer {
    fn default() -> Self {
        Self(vec![0; GROUP_HEADER])
    }
}

impl GroupBuffer {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.len() == GROUP_HEADER
    }

    /// The length of its entries.
    pub(crate) fn entries_len(&self) -> usize {
        self.0.len() - GROUP_HEADER
    }

    pub(crate) fn append(&mut self, shard: u16, seq: u64, id: u128, frame: &[u8]) {
        self.0.push(APPEND);
        self.0.extend_from_slice(&shard.to_le_bytes());
        self.0.extend_from_slice(&seq.to_le_bytes());
        self.0.extend_from_slice(&id.to_le_bytes());
        put_sized(&mut self.0, frame);
    }

    /// A batch of so many writes, whose first gets the revision `first_rev`; [`Self::write`] follows for each.
    pub(crate) fn put(&mut self, first_rev: u64, writes: usize) {
        self.0.push(PUT);
        self.0.extend_from_slice(&first_rev.to_le_bytes());
        self.0.extend_from_slice(&(writes as u32).to_le_bytes());
    }

    pub(crate) fn write(&mut self, key: &[u8], value: Option<&[u8]>) {
        self.0.push(u8::from(value.is_some()));
        put_sized(&mut self.0, key);
        put_sized(&mut self.0, value.unwrap_or_default());
    }

    pub(crate) fn trim(&mut self, shard: u16, first: u64) {
        self.0.push(TRIM);
        self.0.extend_from_slice(&shard.to_le_bytes());
        self.0.extend_from_slice(&first.to_le_bytes());
    }

    /// Closes the group: what is to be written.
    pub(crate) fn seal(&mut self, lsn: u64, synced: u64, time_ms: u64, salt: u64) -> &[u8] {
        let len = (self.0.len() - GROUP_HEADER) as u32;
        let mut header = Vec::with_capacity(GROUP_HEADER);
        header.extend_from_slice(&GROUP_MAGIC.to_le_bytes());
        header.extend_from_slice(&len.to_le_bytes());
        header.extend_from_slice(&[0; 8]);
        for n in [lsn, synced, time_ms] {
            header.extend_from_slice(&n.to_le_bytes());
        }
        self.0[..GROUP_HEADER].copy_from_slice(&header);
        let sum = checksum(&self.0[16..], salt);
        self.0[8..16].copy_from_slice(&sum.to_le_bytes());
        &self.0
    }

    /// Begins the next one. The room of an unusual one is given back.
    pub(crate) fn clear(&mut self) {
        self.0.truncate(GROUP_HEADER);
        self.0.shrink_to(1 << 20);
    }
}

/// One entry of a group.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Entry<'a> {
    Append { shard: u16, seq: u64, id: u128, frame: &'a [u8] },
    Put { first_rev: u64, writes: Vec<(&'a [u8], Option<&'a [u8]>)> },
    Trim { shard: u16, first: u64 },
}

/// The entries of a group, in order; `Err` once if they are not as they should be, which the checksum makes a bug and no accident.
pub(crate) fn entries(payload: &[u8]) -> impl Iterator<Item = Result<Entry<'_>, Bad>> {
    let mut r = Reader(payload);
    let mut failed = false;
    std::iter::from_fn(move || {
        if failed || r.0.is_empty() {
            return None;
        }
        let found = entry(&mut r).ok_or(Bad::Damaged);
        failed = found.is_err();
        Some(found)
    })
}

fn entry<'a>(r: &mut Reader<'a>) -> Option<Entry<'a>> {
    Some(match r.u8()? {
        APPEND => Entry::Append { shard: r.u16()?, seq: r.u64()?, id: r.u128()?, frame: r.sized()? },
        PUT => {
            let first_rev = r.u64()?;
            let count = r.u32()?;
            let write = |r: &mut Reader<'a>| {
                let there = r.u8()? == 1;
                let (key, value) = (r.sized()?, r.sized()?);
                Some((key, there.then_some(value)))
            };
            Entry::Put { first_rev, writes: (0..count).map(|_| write(r)).collect::<Option<_>>()? }
        }
        TRIM => Entry::Trim { shard: r.u16()?, first: r.u64()? },
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_read_as_it_was_written_and_one_of_another_version_is_told() {
        let header = SegmentHeader {
            number: 7,
            salt: 3,
            first_lsn: 9,
            incarnation: 2,
            time_ms: 1234,
            rev: 77,
            shards: (0..64).map(|n| (n, n * 10)).collect(),
        };
        let mut bytes = header.encode();
        assert_eq!((bytes.len(), SegmentHeader::decode(&bytes)), (HEADER, Ok(header)));
        bytes[20] ^= 1;
        assert_eq!(SegmentHeader::decode(&bytes), Err(Bad::Damaged));
        bytes[8] = 9;
        assert_eq!(SegmentHeader::decode(&bytes), Err(Bad::Version(9)));
    }

    #[test]
    fn a_group_is_whole_or_not_a_group() {
        let mut buffer = GroupBuffer::default();
        assert!(buffer.is_empty());
        buffer.append(1, 5, 42, b"frame");
        buffer.put(10, 2);
        buffer.write(b"k", Some(b"v"));
        buffer.write(b"gone", None);
        buffer.trim(3, 8);
        let bytes = buffer.seal(4, 3, 99, 1).to_vec();
        let (header, payload) = group(&bytes, 1).expect("it is whole");
        assert_eq!((header.lsn, header.synced, header.time_ms), (4, 3, 99));
        let found: Vec<_> = entries(payload).collect::<Result<_, _>>().expect("all are entries");
        assert_eq!(
            found,
            [
                Entry::Append { shard: 1, seq: 5, id: 42, frame: b"frame" },
                Entry::Put { first_rev: 10, writes: vec![(b"k", Some(b"v")), (b"gone", None)] },
                Entry::Trim { shard: 3, first: 8 },
            ]
        );
        assert_eq!(group(&bytes, 2), None, "of another file");
        for cut in 0..bytes.len() {
            assert_eq!(group(&bytes[..cut], 1), None, "cut at {cut}");
            let mut damaged = bytes.clone();
            damaged[cut] ^= 0x10;
            assert_eq!(group(&damaged, 1), None, "damaged at {cut}");
        }
    }
}
