//! The line that tells, each second, how far a run is; on standard error, so that results can be piped.

use std::io::{IsTerminal, Write};

/// A line that rewrites itself on a terminal, and a line each time elsewhere.
#[derive(Debug)]
pub(crate) struct Progress {
    wanted: bool,
    terminal: bool,
    /// Characters of the last line, which the next one has to cover.
    shown: usize,
}

impl Progress {
    /// Nothing is shown if it is not wanted.
    pub(crate) fn new(wanted: bool) -> Self {
        Self { wanted, terminal: std::io::stderr().is_terminal(), shown: 0 }
    }

    /// Shows a line in place of the last one.
    pub(crate) fn show(&mut self, line: &str) {
        if !self.wanted {
            return;
        }
        let mut stderr = std::io::stderr().lock();
        // Nobody reads it: then nobody misses it.
        if self.terminal {
            let width = self.shown.max(line.len());
            let _ = write!(stderr, "\r{line:<width$}");
            let _ = stderr.flush();
        } else {
            let _ = writeln!(stderr, "{line}");
        }
        self.shown = line.len();
    }

    /// Leaves the line as it is; what comes next begins a new one.
    pub(crate) fn end(&mut self) {
        if self.wanted && self.terminal && self.shown > 0 {
            eprintln!();
        }
        self.shown = 0;
    }
}
