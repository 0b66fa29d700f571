//! The register on disk: a file of all records, so that the journal before it is not needed any more.
//!
//! It is written in pieces between turns, while writes go on: a record may be in it as it was at the beginning or later. That does no
//! harm, because the journal is replayed from the beginning, and every write of it says the whole value.
//!
//! Must not know: the log, ports.

use std::io;

use super::disk::{Disk, DiskFile};
use super::format::{Bad, REGISTER_MAGIC, Reader, VERSION, checksum, put_sized, version};
use crate::turn::register::Register;
use crate::{Key, Record, Rev, Value};

/// How many bytes of records are written at once.
const PIECE: usize = 256 << 10;
const FILE_HEADER: usize = 40;
const BLOCK_HEADER: usize = 16;
/// In the place of a block's number of records: the last block.
const END: u32 = u32::MAX;

pub(crate) fn register_name(lsn: u64) -> String {
    format!("{lsn:016x}.reg")
}

fn draft_name(lsn: u64) -> String {
    format!("{lsn:016x}.reg.tmp")
}

/// A register file that is being written.
pub(crate) struct Checkpoint<F> {
    file: F,
    /// The group after which it began.
    pub(crate) lsn: u64,
    salt: u64,
    offset: u64,
    after: Option<Key>,
    blocks: u64,
    records: u64,
}

impl<F: DiskFile> Checkpoint<F> {
    pub(crate) fn begin<D: Disk<File = F>>(disk: &mut D, lsn: u64, salt: u64) -> io::Result<Self> {
        let mut file = disk.create(&draft_name(lsn), 0)?;
        let mut header = Vec::with_capacity(FILE_HEADER);
        header.extend_from_slice(REGISTER_MAGIC);
        header.extend_from_slice(&VERSION.to_le_bytes());
        header.extend_from_slice(&[0; 4]);
        header.extend_from_slice(&lsn.to_le_bytes());
        header.extend_from_slice(&salt.to_le_bytes());
        let sum = checksum(&header, 0);
        header.extend_from_slice(&sum.to_le_bytes());
        file.write_at(0, &header)?;
        Ok(Self { file, lsn, salt, offset: FILE_HEADER as u64, after: None, blocks: 0, records: 0 })
    }

    /// Writes the next piece. Whether it was the last one.
    pub(crate) fn step(&mut self, register: &Register) -> io::Result<bool> {
        let all = Key::from_bytes([]);
        let mut block = vec![0; BLOCK_HEADER];
        let mut count = 0_u32;
        let mut last = None;
        let mut left = false;
        for Record { key, value, rev } in register.range(&all, self.after.as_ref()) {
            if block.len() >= PIECE {
                left = true;
                break;
            }
            block.extend_from_slice(&rev.0.to_le_bytes());
            put_sized(&mut block, key.as_bytes());
            put_sized(&mut block, &value);
            count += 1;
            last = Some(key);
        }
        if last.is_some() {
            self.after = last;
        }
        self.records += u64::from(count);
        if count > 0 {
            self.block(count, block)?;
        }
        if !left {
            let mut end = vec![0; BLOCK_HEADER];
            end.extend_from_slice(&self.records.to_le_bytes());
            self.block(END, end)?;
        }
        Ok(!left)
    }

    fn block(&mut self, count: u32, mut block: Vec<u8>) -> io::Result<()> {
        let len = (block.len() - BLOCK_HEADER) as u32;
        block[..4].copy_from_slice(&len.to_le_bytes());
        block[4..8].copy_from_slice(&count.to_le_bytes());
        let sum = checksum(&block[BLOCK_HEADER..], self.salt.wrapping_add(self.blocks));
        block[8..16].copy_from_slice(&sum.to_le_bytes());
        self.file.write_at(self.offset, &block)?;
        self.offset += block.len() as u64;
        self.blocks += 1;
        Ok(())
    }

    /// Makes the file durable under its name. The journal must be durable up to now.
    pub(crate) fn finish<D: Disk<File = F>>(mut self, disk: &mut D) -> io::Result<()> {
        self.file.set_len(self.offset)?;
        self.file.sync()?;
        disk.rename(&draft_name(self.lsn), &register_name(self.lsn))?;
        disk.sync_names()
    }

    /// Removes what was written.
    pub(crate) fn drop_draft<D: Disk<File = F>>(self, disk: &mut D) {
        // it only takes room, until the next start
        let _ = disk.remove(&draft_name(self.lsn));
    }
}

/// Reads a register file: its records, and the group after which it began. `Err` tells the offset of what is damaged.
pub(crate) fn read(bytes: &[u8]) -> Result<(Register, u64), (u64, Bad)> {
    version(bytes, REGISTER_MAGIC).map_err(|bad| (0, bad))?;
    let header = || {
        let mut r = Reader(bytes.get(16..FILE_HEADER)?);
        let (lsn, salt, sum) = (r.u64()?, r.u64()?, r.u64()?);
        (sum == checksum(bytes.get(..32)?, 0)).then_some((lsn, salt))
    };
    let (lsn, salt) = header().ok_or((0, Bad::Damaged))?;
    let mut register = Register::default();
    let mut rest = Reader(bytes.get(FILE_HEADER..).unwrap_or_default());
    let (mut blocks, mut records) = (0_u64, 0_u64);
    loop {
        let at = (bytes.len() - rest.0.len()) as u64;
        let damaged = || (at, Bad::Damaged);
        let mut block = || {
            let (len, count, sum) = (rest.u32()?, rest.u32()?, rest.u64()?);
            let body = rest.bytes(usize::try_from(len).ok()?)?;
            (sum == checksum(body, salt.wrapping_add(blocks))).then_some((count, body))
        };
        let (count, body) = block().ok_or_else(damaged)?;
        blocks += 1;
        let mut r = Reader(body);
        if count == END {
            return if r.u64() == Some(records) { Ok((register, lsn)) } else { Err(damaged()) };
        }
        for _ in 0..count {
            let mut record = || Some((r.u64()?, r.sized()?, r.sized()?));
            let (rev, key, value) = record().ok_or_else(damaged)?;
            register.set(&Key::from_bytes(key), Some((Value::new(value), Rev(rev))));
            records += 1;
        }
    }
}
