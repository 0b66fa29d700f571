//! Why a password file or a rules file is not used.
//!
//! Must not know: which key names the file.

use std::io;

use runtime::config::Problems;

/// See the module.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It cannot be read, is too long or is not UTF-8: what names it is wrong, not a line of it.
    #[error(transparent)]
    Unreadable(#[from] io::Error),
    /// What is wrong in it, with its lines.
    #[error(transparent)]
    Problems(#[from] Problems),
}
