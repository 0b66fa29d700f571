//! The answer of a command on standard output. Must not know: what is answered.

use std::io::{self, Write};
use std::process::ExitCode;

use serde::Serialize;

/// Prints text as it is, and ends with `code`; or with 1 and a sentence on standard error, where it cannot be written. A
/// reader that has seen enough (`tidegate check | head -1`) is no error.
#[must_use]
pub fn say(text: &str, code: ExitCode) -> ExitCode {
    match put(io::stdout().lock(), text) {
        Ok(()) => code,
        Err(error) => {
            // Where standard error is closed too, nobody is left to be told.
            let _ = writeln!(io::stderr(), "Error: cannot write to standard output: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Prints a report: as JSON, or as its table. It ends with 0 if it passed and with 1 otherwise.
pub(crate) fn report(
    report: &impl Serialize,
    json: bool,
    table: impl FnOnce() -> String,
    passed: bool,
) -> ExitCode {
    let text = match json {
        // Numbers, texts and maps with texts as keys can be written.
        true => serde_json::to_string_pretty(report).unwrap_or_default() + "\n",
        false => table(),
    };
    say(&text, if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn put(mut out: impl Write, text: &str) -> io::Result<()> {
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        outcome => outcome,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whoever reads it.
    struct Reader(Option<io::ErrorKind>);

    impl Write for Reader {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.map_or(Ok(bytes.len()), |kind| Err(kind.into()))
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_reader_that_has_seen_enough_is_no_error_and_a_full_disk_is() {
        assert!(put(Reader(None), "text").is_ok());
        assert!(put(Reader(Some(io::ErrorKind::BrokenPipe)), "text").is_ok());
        assert!(put(Reader(Some(io::ErrorKind::StorageFull)), "text").is_err());
    }
}
