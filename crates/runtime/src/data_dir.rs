//! The folder that only one process may use.
//!
//! `SO_REUSEPORT` would let a second process share the ports in silence, and two processes writing one log would
//! ruin it: the lock on the data folder is what keeps them apart.

use std::fs::{self, File, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};

/// The name of the lock file in the folder.
const LOCK_FILE: &str = "lock";

/// The lock. It ends with this value or with the process, however that ends: the kernel keeps it, not the file's
/// existence.
#[derive(Debug)]
pub struct DataDirLock {
    path: PathBuf,
    _file: File,
}

impl DataDirLock {
    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Why the folder can't be used.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    /// Another process has it.
    #[error(
        "the data folder {} is in use by {}; stop that process or set another node.data_dir",
        path.display(),
        pid.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"))
    )]
    InUse {
        /// The folder.
        path: PathBuf,
        /// The other process, when its id could be read.
        pid: Option<u32>,
    },
    /// The folder can't be made, or the file in it not be opened, locked or written.
    #[error("the data folder {} can't be used: {error}", path.display())]
    Io {
        /// The folder or file.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
}

/// Makes the folder (readable by its owner only) when it is not there, and locks it for this process.
///
/// # Errors
/// [`DataDirError::InUse`] when another process has the lock; nothing is waited for.
pub fn lock(path: &Path) -> Result<DataDirLock, DataDirError> {
    let failed = |error| DataDirError::Io { path: path.to_owned(), error };
    create(path).map_err(failed)?;
    // Not truncated before the lock is ours: the other process's id is in there.
    let mut file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path.join(LOCK_FILE))
        .map_err(failed)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            return Err(DataDirError::InUse { path: path.to_owned(), pid: read_pid(&mut file) });
        }
        Err(TryLockError::Error(error)) => return Err(failed(error)),
    }
    write_pid(&mut file).map_err(failed)?;
    Ok(DataDirLock { path: path.to_owned(), _file: file })
}

fn create(path: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::DirBuilderExt;
        builder.mode(0o700);
    }
    builder.create(path)
}

fn write_pid(file: &mut File) -> io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    writeln!(file, "{}", std::process::id())
}

fn read_pid(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.take(32).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

#[cfg(test)]
mod tests;
