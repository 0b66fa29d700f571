//! A password file: a line for each user, `name:hash`, as mosquitto_passwd writes it.
//!
//! Read whole or not at all: every bad line is a problem with its number. Nothing of a line but the name before its colon is
//! ever shown: the rest may be a password somebody wrote there.
//! Must not know: threads, connections.

use std::collections::HashMap;
use std::collections::hash_map::{Entry, RandomState};
use std::fmt;
use std::hash::BuildHasher;
use std::path::Path;

use runtime::config::{Problem, Problems};

use crate::FileError;
use crate::hash::PasswordHash;

/// Bytes of a password file: two million users.
const MAX_FILE: u64 = 256 << 20;
/// Problems that are told of one file; a file of something else has one in each line.
const MAX_PROBLEMS: usize = 100;
/// The longest name that CONNECT can carry.
const MAX_NAME: usize = 65_535;
/// What stands for a hash in problems.
const HIDDEN: &str = "***";

/// Everybody who has a password here.
#[derive(Clone)]
pub struct Users {
    /// Places in `hashes`.
    names: HashMap<Box<str>, usize>,
    hashes: Vec<PasswordHash>,
    /// Chooses whose cost an unknown name has; random for each file that is read.
    decoys: RandomState,
}

/// As many as there are: no name and no hash is shown.
impl fmt::Debug for Users {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Users").field("count", &self.hashes.len()).finish_non_exhaustive()
    }
}

/// The same names with the same hashes.
impl PartialEq for Users {
    fn eq(&self, other: &Self) -> bool {
        self.names.len() == other.names.len()
            && self.names.iter().all(|(name, &at)| other.stored(name) == self.hashes.get(at))
    }
}

impl Users {
    /// Reads the file.
    ///
    /// # Errors
    /// It cannot be read, or lines of it are wrong: all of them are told.
    pub fn load(file: &Path) -> Result<Self, FileError> {
        Ok(Self::parse(file, &read_bounded(file)?)?)
    }

    /// Reads its text. Empty lines and lines that begin with `#` say nothing.
    ///
    /// # Errors
    /// Lines of it are wrong: all of them are told, up to a hundred.
    pub fn parse(file: &Path, text: &str) -> Result<Self, Problems> {
        let mut users = Self { names: HashMap::new(), hashes: Vec::new(), decoys: RandomState::new() };
        let mut problems = Vec::new();
        let mut first_lines: Vec<usize> = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let number = index + 1;
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let mut problem = |key: &str, allowed: String| {
                problems.push(Problem {
                    file: file.to_owned(),
                    line: number,
                    key: shown(key),
                    value: HIDDEN.to_owned(),
                    allowed,
                });
            };
            let Some((name, hash)) = line.split_once(':') else {
                problem("(line)", "a user name, a colon and a hash".to_owned());
                continue;
            };
            if name.is_empty() || name.len() > MAX_NAME || name.contains('\0') {
                problem("(name)", "a user name of 1 to 65535 bytes before the colon".to_owned());
                continue;
            }
            match PasswordHash::parse(hash.trim_end()) {
                Err(error) => problem(name, error.to_string()),
                Ok(hash) => match users.names.entry(name.into()) {
                    Entry::Occupied(before) => {
                        let first = first_lines.get(*before.get()).copied().unwrap_or(0);
                        problem(name, format!("each user once; this one is in line {first} too"));
                    }
                    Entry::Vacant(free) => {
                        free.insert(users.hashes.len());
                        users.hashes.push(hash);
                        first_lines.push(number);
                    }
                },
            }
        }
        let more = problems.len().saturating_sub(MAX_PROBLEMS);
        if more > 0 {
            problems.truncate(MAX_PROBLEMS);
            if let Some(last) = problems.last_mut() {
                last.allowed = format!("{} (and {more} more problems in this file)", last.allowed);
            }
        }
        match Problems::of(problems) {
            Some(problems) => Err(problems),
            None => Ok(users),
        }
    }

    /// How many users there are.
    pub fn len(&self) -> usize {
        self.hashes.len()
    }

    /// Whether there is none: nobody with a user name gets in.
    pub fn is_empty(&self) -> bool {
        self.hashes.is_empty()
    }

    /// The hash of a user, if there is such a user.
    pub(crate) fn stored(&self, name: &str) -> Option<&PasswordHash> {
        self.hashes.get(*self.names.get(name)?)
    }

    /// The hash of a user, or for an unknown name that of somebody, always the same: comparing with it takes as long as it
    /// would take if the name were known. `None`: the file is empty.
    pub(crate) fn stored_or_decoy(&self, name: &str) -> Option<&PasswordHash> {
        self.stored(name).or_else(|| {
            let count = u64::try_from(self.hashes.len()).ok().filter(|count| *count > 0)?;
            let chosen = self.decoys.hash_one(name) % count;
            self.hashes.get(usize::try_from(chosen).ok()?)
        })
    }

    /// Whether it is this user's password. An unknown name costs what a known one costs, so time does not tell who exists.
    /// Takes milliseconds up to a second.
    pub fn verify(&self, name: &str, password: &[u8]) -> bool {
        let right = self.stored_or_decoy(name).is_some_and(|hash| hash.verify(password));
        right && self.names.contains_key(name)
    }
}

/// A name as one short line.
fn shown(name: &str) -> String {
    let mut shown: String = name.chars().take(60).flat_map(char::escape_default).collect();
    if shown.is_ascii() && !name.is_ascii() {
        // names of people may have letters of all languages; only what breaks a line is escaped then
        shown = name.chars().take(60).map(|c| if c.is_control() { '?' } else { c }).collect();
    }
    shown
}

fn read_bounded(file: &Path) -> std::io::Result<String> {
    use std::io::{Error, ErrorKind, Read};
    let mut text = String::new();
    std::fs::File::open(file)?.take(MAX_FILE + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MAX_FILE {
        return Err(Error::new(ErrorKind::FileTooLarge, "longer than 256 MiB"));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash::Algorithm;

    fn line(name: &str, password: &str) -> String {
        let hash = PasswordHash::new(Algorithm::Pbkdf2 { iterations: 1 }, password.as_bytes()).unwrap();
        format!("{name}:{hash}\n")
    }

    fn parse(text: &str) -> Result<Users, String> {
        Users::parse(Path::new("users.txt"), text).map_err(|problems| problems.to_string())
    }

    #[test]
    fn users_get_in_with_their_own_password_only() {
        let text = format!("# staff\n\n{}{}", line("alice", "a:b"), line("Bob Ü", "").replace('\n', "\r\n"));
        let users = parse(&text).unwrap();
        assert_eq!(users.len(), 2);
        assert!(users.verify("alice", b"a:b") && users.verify("Bob Ü", b""));
        for (name, password) in [("alice", ""), ("alice", "a"), ("Alice", "a:b"), ("Bob Ü", "a:b"), ("", "")]
        {
            assert!(!users.verify(name, password.as_bytes()), "{name} {password}");
        }
    }

    /// An unknown name is compared with somebody's hash; it must not get in with that one's password.
    #[test]
    fn an_unknown_name_does_not_get_in_with_the_password_of_its_decoy() {
        let users = parse(&line("alice", "secret")).unwrap();
        assert!(users.stored_or_decoy("mallory").is_some());
        assert!(!users.verify("mallory", b"secret"));
    }

    #[test]
    fn with_an_empty_file_nobody_gets_in() {
        let users = parse("# nobody\n").unwrap();
        assert!(users.is_empty() && !users.verify("", b"") && !users.verify("alice", b""));
    }

    #[test]
    fn every_bad_line_is_told_and_no_secret_is() {
        let text = format!(
            "{}alice:password1\nno colon here hunter2\n:x\n{}bob:$7$9999999$AAAA$AAAA\n",
            line("carol", "x"),
            line("carol", "y")
        );
        let problems = parse(&text).unwrap_err();
        let lines: Vec<&str> = problems.lines().collect();
        assert_eq!(lines.len(), 5, "{problems}");
        assert!(lines[0].starts_with("users.txt:2: alice: ***: a hash as mosquitto_passwd"), "{problems}");
        assert!(
            lines[1].starts_with("users.txt:3: (line): ***: a user name, a colon and a hash"),
            "{problems}"
        );
        assert!(lines[2].starts_with("users.txt:4: (name): ***: "), "{problems}");
        assert!(
            lines[3].starts_with("users.txt:5: carol: ***: each user once; this one is in line 1 too"),
            "{problems}"
        );
        assert!(lines[4].starts_with("users.txt:6: bob: ***: at most 1000000"), "{problems}");
        assert!(!problems.contains("password1") && !problems.contains("hunter2"), "{problems}");
    }

    #[test]
    fn a_file_of_something_else_gives_a_hundred_problems_at_most() {
        let problems = parse(&"x\n".repeat(1_000)).unwrap_err();
        assert_eq!(problems.lines().count(), 100);
        assert!(problems.ends_with("(and 900 more problems in this file)"), "{problems}");
    }

    #[test]
    fn files_are_equal_when_they_say_the_same() {
        let (one, two) = (line("a", "1"), line("b", "2"));
        let parse = |text: String| parse(&text).unwrap();
        assert_eq!(parse(format!("{one}{two}")), parse(format!("{two}# x\n{one}")));
        assert_ne!(parse(format!("{one}{two}")), parse(one.clone()));
        assert_ne!(parse(one), parse(line("a", "1")), "another salt is another hash");
    }

    #[test]
    fn a_file_that_is_not_there_is_no_file_with_problems() {
        let error = Users::load(Path::new("/nowhere/users.txt")).unwrap_err();
        assert!(matches!(error, FileError::Unreadable(_)), "{error}");
    }
}
