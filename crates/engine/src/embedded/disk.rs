//! The file layer: everything the embedded engine does with a disk, so that a test can put a bad one in its place.
//!
//! A name is durable after [`Disk::sync_names`], the bytes of a file after [`DiskFile::sync`]; before that they may be there after
//! a crash, in part or not at all, and in any order.
//!
//! Must not know: what the files mean.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;

/// The file that says whose directory this is.
const LOCK: &str = "lock";

/// One directory of files.
pub(crate) trait Disk: Send + 'static {
    /// A file of it.
    type File: DiskFile;

    /// The names of all files.
    fn list(&mut self) -> io::Result<Vec<String>>;

    /// Makes an empty file, or empties the one there is, and asks for `reserve` bytes of room for it: its length may be that from
    /// then on, filled with zeros.
    fn create(&mut self, name: &str, reserve: u64) -> io::Result<Self::File>;

    /// Opens a file that is there, to read and to write.
    fn open(&mut self, name: &str) -> io::Result<Self::File>;

    /// Gives a file another name; a file of that name goes.
    fn rename(&mut self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a file.
    fn remove(&mut self, name: &str) -> io::Result<()>;

    /// Makes durable what was created, renamed and removed.
    fn sync_names(&mut self) -> io::Result<()>;
}

/// One file.
pub(crate) trait DiskFile: Send + 'static {
    /// Writes all bytes at an offset. After an error any part of them may be there.
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// Reads from an offset until the buffer is full or the file ends; gives how many bytes.
    fn read_at(&mut self, offset: u64, into: &mut [u8]) -> io::Result<usize>;

    /// Makes durable what was written. After an error nothing is known of anything that was not synced before.
    fn sync(&mut self) -> io::Result<()>;

    /// Its length in bytes.
    fn len(&mut self) -> io::Result<u64>;

    /// Cuts or extends it.
    fn set_len(&mut self, len: u64) -> io::Result<()>;
}

/// A directory of the system, locked against other processes while this lives.
pub(crate) struct Directory {
    path: PathBuf,
    names: File,
    _lock: File,
}

impl Directory {
    /// Opens a directory, and makes it if it is not there. `None`: another process has it.
    pub(crate) fn open(path: &Path) -> io::Result<Option<Self>> {
        fs::create_dir_all(path)?;
        let lock = OpenOptions::new().create(true).truncate(false).write(true).open(path.join(LOCK))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => return Ok(None),
            Err(fs::TryLockError::Error(error)) => return Err(error),
        }
        Ok(Some(Self { path: path.to_owned(), names: File::open(path)?, _lock: lock }))
    }
}

impl Disk for Directory {
    type File = File;

    fn list(&mut self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            let entry = entry?;
            if let Ok(name) = entry.file_name().into_string()
                && name != LOCK
                && entry.file_type()?.is_file()
            {
                names.push(name);
            }
        }
        Ok(names)
    }

    fn create(&mut self, name: &str, reserve: u64) -> io::Result<File> {
        let path = self.path.join(name);
        let file = OpenOptions::new().create(true).truncate(true).read(true).write(true).open(path)?;
        match fallocate(&file, FallocateFlags::empty(), 0, reserve.max(1)) {
            // where a file system can't reserve, the disk is found full when it is written
            Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => Ok(file),
            Err(error) => {
                let _ = fs::remove_file(self.path.join(name));
                Err(error.into())
            }
        }
    }

    fn open(&mut self, name: &str) -> io::Result<File> {
        OpenOptions::new().read(true).write(true).open(self.path.join(name))
    }

    fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.path.join(from), self.path.join(to))
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        fs::remove_file(self.path.join(name))
    }

    fn sync_names(&mut self) -> io::Result<()> {
        self.names.sync_all()
    }
}

impl DiskFile for File {
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.write_all_at(bytes, offset)
    }

    fn read_at(&mut self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        let mut done = 0;
        while let Some(rest) = into.get_mut(done..).filter(|rest| !rest.is_empty()) {
            match FileExt::read_at(self, rest, offset + done as u64) {
                Ok(0) => break,
                Ok(n) => done += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.sync_data()
    }

    fn len(&mut self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn set_len(&mut self, len: u64) -> io::Result<()> {
        Self::set_len(self, len)
    }
}
