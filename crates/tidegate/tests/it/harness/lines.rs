//! What a child process says, line by line, and waiting for a line.

use std::io::{BufRead, BufReader, Read};
use std::panic::Location;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::wait::{DEADLINE, now};

/// The lines so far. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Lines(Arc<(Mutex<Heard>, Condvar)>);

#[derive(Default)]
struct Heard {
    lines: Vec<String>,
    ended: bool,
}

impl Lines {
    /// Reads to the end on a thread of its own, so that the child never blocks on a full pipe.
    pub(crate) fn read(from: impl Read + Send + 'static) -> Self {
        let lines = Self::default();
        let heard = lines.clone();
        std::thread::spawn(move || {
            let mut from = BufReader::new(from);
            let mut line = Vec::new();
            // Clients print what they receive, so a line need not be text.
            while from.read_until(b'\n', &mut line).is_ok_and(|count| count > 0) {
                if line.last() == Some(&b'\n') {
                    line.pop();
                }
                heard.with(|heard| heard.lines.push(String::from_utf8_lossy(&line).into_owned()));
                line.clear();
            }
            heard.with(|heard| heard.ended = true);
        });
        lines
    }

    fn with(&self, change: impl FnOnce(&mut Heard)) {
        change(&mut self.lock());
        self.0.1.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, Heard> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All lines until now.
    pub(crate) fn all(&self) -> Vec<String> {
        self.lock().lines.clone()
    }

    /// All of it, once there is no more to come.
    #[track_caller]
    pub(crate) fn to_end(&self) -> Vec<String> {
        self.wait("the end of the output", |heard| heard.ended.then(|| heard.lines.clone()))
    }

    /// The first line from number `from` on that fits.
    #[track_caller]
    pub(crate) fn find(&self, what: &str, from: usize, fits: impl Fn(&str) -> bool) -> (usize, String) {
        self.wait(what, |heard| {
            let mut found = heard.lines.iter().enumerate().skip(from);
            found.find(|(_, line)| fits(line)).map(|(number, line)| (number, line.clone()))
        })
    }

    /// The first line with these words.
    #[track_caller]
    pub(crate) fn line_with(&self, words: &[&str]) -> String {
        self.find(&format!("a line with {words:?}"), 0, |line| words.iter().all(|word| line.contains(word))).1
    }

    /// How many lines there are with these words.
    pub(crate) fn count(&self, words: &[&str]) -> usize {
        self.lock().lines.iter().filter(|line| words.iter().all(|word| line.contains(word))).count()
    }

    /// Waits until `look` finds something; no more lines, or the deadline, fail the test.
    #[track_caller]
    fn wait<T>(&self, what: &str, look: impl Fn(&Heard) -> Option<T>) -> T {
        let at = Location::caller();
        let deadline = now() + DEADLINE;
        let mut heard = self.lock();
        loop {
            if let Some(value) = look(&heard) {
                return value;
            }
            let left = deadline.saturating_duration_since(now());
            if left.is_zero() || heard.ended {
                let said = heard.lines.join("\n");
                drop(heard);
                panic!("{what}: not there ({at}) in:\n{said}");
            }
            heard = self.0.1.wait_timeout(heard, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}
