//! Reading the configuration of another load balancer and writing the `[gateway]` that gives the same service.
//!
//! Text in, text out: [`nginx()`] and [`haproxy()`] read a grammar, translate it into one model of listeners and
//! upstreams, fit that to what `[gateway]` allows, and print it as TOML that [`crate::config::read`] takes. What cannot
//! be carried over is never dropped in silence: each has a [`Note`] with file, line and reason, which also stands as a
//! comment at its place in the TOML.
//!
//! Must not know: the file system (included files are handed in), sockets, the running gateway.

mod emit;
mod haproxy;
mod model;
mod nginx;

use std::fmt;
use std::sync::Arc;

/// Most bytes of a configuration with everything it includes.
pub const MAX_BYTES: usize = 16 << 20;

/// Where something stands in a configuration.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The file, as it was named.
    pub file: Arc<str>,
    /// Its line, from 1.
    pub line: u32,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", printable(&self.file), self.line)
    }
}

/// What became of a directive that is not in the TOML as it was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Effect {
    /// The service is the same without it.
    Same,
    /// It is carried over, and something that users can notice is different.
    Differs,
    /// It is not carried over, and the service lacks it.
    LeftOut,
}

impl Effect {
    /// As people read it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Same => "not needed",
            Self::Differs => "differs",
            Self::LeftOut => "left out",
        }
    }
}

/// A directive that is not in the TOML as it was written, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// Where it stands.
    pub place: Place,
    /// The directive.
    pub what: String,
    /// What became of it.
    pub effect: Effect,
    /// The reason.
    pub why: String,
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: {}: {}: {}",
            self.place,
            printable(&self.what),
            self.effect.name(),
            printable(&self.why)
        )
    }
}

/// A configuration that was carried over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Imported {
    /// The TOML; `tidegate check` finds nothing wrong in it.
    pub toml: String,
    /// What is not in it as it was written, in the order of the files' lines.
    pub notes: Vec<Note>,
    /// Listeners in it.
    pub listeners: usize,
    /// Upstreams in it.
    pub upstreams: usize,
}

impl Imported {
    /// Whether the service is the one that was configured: nothing left out, nothing different.
    pub fn is_faithful(&self) -> bool {
        self.notes.iter().all(|note| note.effect == Effect::Same)
    }
}

/// Why nothing was carried over.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ImportError {
    /// The file is not what its own program would read.
    #[error("{place}: {problem}")]
    Syntax {
        /// Where.
        place: Place,
        /// What is wrong there.
        problem: String,
    },
    /// Nothing of it is the work of a gateway.
    #[error("there is nothing to carry over: no listener with a server behind it is left")]
    Nothing {
        /// Why: what was left out.
        notes: Vec<Note>,
    },
}

/// Finds the files of an `include`: those that match the pattern, by name, in order, with their texts. The pattern is
/// as written, so it may be relative: nginx means the folder of its main file.
///
/// An error is one sentence; the `include` is then noted as left out.
pub type Include<'a> = dyn FnMut(&str) -> Result<Vec<(String, String)>, String> + 'a;

/// Carries over an nginx configuration: a whole `nginx.conf`, a `stream { ... }`, or what stands inside of one.
///
/// # Errors
/// It is not nginx's grammar, nginx itself would refuse it, or nothing of it can be carried over.
pub fn nginx(file: &str, text: &str, include: &mut Include<'_>) -> Result<Imported, ImportError> {
    finish("nginx", file, nginx::read(file, text, include)?)
}

/// Finds the value of an environment variable.
pub type Environment<'a> = dyn Fn(&str) -> Option<String> + 'a;

/// Carries over an HAProxy configuration: its `frontend`, `backend` and `listen` sections in TCP mode.
///
/// # Errors
/// It is not HAProxy's grammar, HAProxy itself would refuse it, or nothing of it can be carried over.
pub fn haproxy(file: &str, text: &str, environment: &Environment<'_>) -> Result<Imported, ImportError> {
    finish("haproxy", file, haproxy::read(file, text, environment)?)
}

/// Fits the model to what `[gateway]` allows and prints it.
fn finish(program: &str, file: &str, mut model: model::Model) -> Result<Imported, ImportError> {
    model.settle();
    if model.listeners.is_empty() {
        return Err(ImportError::Nothing { notes: model.all_notes() });
    }
    Ok(Imported {
        toml: emit::toml(program, file, &model),
        listeners: model.listeners.len(),
        upstreams: model.upstreams.len(),
        notes: model.all_notes(),
    })
}

/// Text of a file on its way to a terminal or into a comment: without control characters, and not endless.
fn printable(text: &str) -> String {
    const MOST: usize = 400;
    let mut out = String::with_capacity(text.len().min(MOST));
    for (count, character) in text.chars().enumerate() {
        if count == MOST {
            out.push_str("...");
            break;
        }
        if character.is_control() {
            out.extend(character.escape_default());
        } else {
            out.push(character);
        }
    }
    out
}

fn syntax(place: &Place, problem: impl Into<String>) -> ImportError {
    ImportError::Syntax { place: place.clone(), problem: printable(&problem.into()) }
}

#[cfg(test)]
mod tests;
