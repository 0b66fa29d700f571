//! The TOML file, read through a schema that reports every problem at once.
//!
//! serde's derive stops at the first error and forgets where values stood. Here a role walks its sections with the
//! typed getters of [`Table`]: a getter that can't give a value records a [`Problem`] with file, line, key, value
//! and what is allowed, and gives nothing; the walk goes on. At the end of each table the keys that no getter asked
//! for are problems too. Secrets are read with [`Table::secret`] and their values appear in no problem.
//!
//! ```
//! # use runtime::config::Document;
//! # use std::{path::Path, time::Duration};
//! let text = "[gateway]\nconnect_timeout = \"5 parsecs\"\nport = 99999\n";
//! let document = Document::parse(Path::new("tidegate.toml"), text).unwrap();
//! let problems = document
//!     .read(|root| {
//!         root.table("gateway", |gateway| {
//!             let allowed = Duration::from_millis(10)..=Duration::from_secs(60);
//!             (gateway.duration("connect_timeout", allowed), gateway.integer("port", 1..=65535))
//!         })
//!     })
//!     .unwrap_err();
//! assert_eq!(
//!     problems.to_string(),
//!     "tidegate.toml:2: gateway.connect_timeout: \"5 parsecs\": a duration from \"10ms\" to \"1m\", \
//!      a number with the unit ms, s, m, h or d\n\
//!      tidegate.toml:3: gateway.port: 99999: an integer from 1 to 65535"
//! );
//! ```

use std::cell::RefCell;
use std::path::{Path, PathBuf};

mod ip_net;
mod problem;
mod suggest;
mod table;
mod tree;
mod units;

pub use ip_net::IpNet;
pub use problem::{Problem, Problems};
pub use suggest::nearest;
pub use table::Table;
pub use units::{duration_text, parse_duration, parse_size, size_text};

/// A file that is TOML. Whether it makes sense is for [`Document::read`].
#[derive(Debug)]
pub struct Document {
    source: Source,
    root: tree::Node,
}

/// What problems and relative paths need to know of the file.
#[derive(Debug)]
struct Source {
    /// As the user named it.
    file: PathBuf,
    /// The offsets at which lines begin.
    lines: Vec<usize>,
}

impl Source {
    /// The line of an offset, from 1.
    fn line(&self, offset: usize) -> usize {
        self.lines.partition_point(|start| *start <= offset).max(1)
    }

    /// The folder that relative paths in the file start from.
    fn folder(&self) -> &Path {
        self.file.parent().unwrap_or_else(|| Path::new(""))
    }
}

impl Document {
    /// Reads TOML 1.1. `file` is for problems and relative paths only: nothing is opened.
    ///
    /// # Errors
    /// Every syntax error that the parser can tell apart.
    pub fn parse(file: &Path, text: &str) -> Result<Self, Problems> {
        let starts = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at + 1);
        let source = Source { file: file.to_owned(), lines: std::iter::once(0).chain(starts).collect() };
        let root = tree::parse(text).map_err(|errors| {
            Problems::new(errors.into_iter().map(|error| error.into_problem(&source, text)).collect())
        })?;
        Ok(Self { source, root })
    }

    /// No file at all: every getter gives nothing, so every default is in force. Relative paths start from the
    /// working directory.
    pub fn empty() -> Self {
        let source = Source { file: PathBuf::from("(no file)"), lines: vec![0] };
        Self { source, root: tree::Node::empty_table() }
    }

    /// Whether the file has this section or key at its root. A role runs where its section is present.
    pub fn has(&self, key: &str) -> bool {
        self.root.entry(key).is_some()
    }

    /// Walks the file with a schema. May be called again, with another one too.
    ///
    /// # Errors
    /// Everything that the getters and the schema itself found wrong, and unknown keys, in the file's order.
    pub fn read<T>(&self, schema: impl FnOnce(&mut Table<'_>) -> T) -> Result<T, Problems> {
        let found = RefCell::new(Vec::new());
        let value = Table::walk(&self.source, &found, String::new(), &self.root, schema);
        let mut problems = found.into_inner();
        if problems.is_empty() {
            return Ok(value);
        }
        // Stable: problems of one line stay in the order of the schema. Those of files that this one names come last.
        problems.sort_by(|a, b| {
            let place = |p: &Problem| (p.file != self.source.file, p.line);
            place(a).0.cmp(&place(b).0).then_with(|| a.file.cmp(&b.file)).then(a.line.cmp(&b.line))
        });
        Err(Problems::new(problems))
    }
}

#[cfg(test)]
mod tests;
