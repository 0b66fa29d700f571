//! Why a call of the API had no answer, in sentences for the person before the terminal.

use std::fmt;
use std::io;

use crate::problem::Problem;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The base URL cannot be used.
    #[error("cannot use the API address {given:?}: {why}")]
    BaseUrl {
        /// As it was given.
        given: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// Nothing accepts connections there.
    #[error(
        "nothing listens at {base}: is tidegate running there with its [admin] section? (--api URL or TIDEGATE_API says where)"
    )]
    NotListening {
        /// Where.
        base: String,
    },
    /// The host name means nothing.
    #[error("cannot find the host of {base}")]
    HostNotFound {
        /// Where.
        base: String,
    },
    /// No answer in time.
    #[error("no answer from {base} in time")]
    TimedOut {
        /// Where.
        base: String,
    },
    /// The connection broke.
    #[error("cannot talk to {base}: {cause}")]
    Transport {
        /// Where.
        base: String,
        /// What happened.
        cause: String,
    },
    /// Something else answers there.
    #[error("what answers at {base} is not this API: {what}")]
    NotThisApi {
        /// Where.
        base: String,
        /// What came instead.
        what: String,
    },
    /// The API said no, and why.
    #[error("{}", Told(.0))]
    Problem(Box<Problem>),
}

impl ClientError {
    pub(super) fn from_ureq(error: ureq::Error, base: &str) -> Self {
        let base = base.to_owned();
        match error {
            ureq::Error::Io(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                Self::NotListening { base }
            }
            ureq::Error::ConnectionFailed => Self::NotListening { base },
            ureq::Error::HostNotFound => Self::HostNotFound { base },
            ureq::Error::Timeout(_) => Self::TimedOut { base },
            other => Self::Transport { base, cause: other.to_string() },
        }
    }
}

/// A problem document as a person reads it: the sentence of this occurrence, then single faults below each other.
struct Told<'a>(&'a Problem);

impl fmt::Display for Told<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.0.detail.as_deref().unwrap_or(&self.0.title))?;
        for fault in &self.0.errors {
            write!(out, "\n  {fault}")?;
        }
        Ok(())
    }
}
