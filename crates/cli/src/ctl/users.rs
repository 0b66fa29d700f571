//! `tidegate ctl users`: lines for password files. It asks nobody: the lines go into a file that the broker reads.
//!
//! A password never comes in the command line, where every process of the machine could read it: it is typed without being
//! shown, or read from standard input or from a file.

use std::fs::File;
use std::io::{self, BufRead, BufReader, IsTerminal, Write};
use std::path::{Path, PathBuf};

use access::{Algorithm, PasswordHash};
use clap::{Subcommand, ValueEnum};
use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
use serde_json::json;

use super::{Failure, Screen};

/// Bytes of the longest password that CONNECT can carry.
const MAX_PASSWORD: u64 = 65_535;

/// Iterations of pbkdf2 where nothing is said.
const ITERATIONS: u32 = 210_000;

/// What to do with users.
#[derive(Clone, Debug, Subcommand)]
pub enum UsersVerb {
    /// Make a line for a password file; the password is asked for, or read from standard input
    Hash {
        /// The user name; without it the hash alone is printed
        #[arg(long, short, value_name = "NAME", value_parser = name)]
        username: Option<String>,
        /// Read the password from this file, without the end of its line
        #[arg(long, value_name = "FILE", conflicts_with = "password_stdin")]
        password_file: Option<PathBuf>,
        /// Read the password from standard input, also where that is a terminal
        #[arg(long)]
        password_stdin: bool,
        /// How to hash it; Mosquitto reads pbkdf2, Mosquitto 2.1 argon2id too
        #[arg(long, value_enum, default_value_t = Method::Argon2id)]
        algorithm: Method,
        /// Iterations of pbkdf2, 210000 where nothing is said; argon2id has none
        #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
        iterations: Option<u32>,
    },
}

/// How to hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Method {
    /// Argon2id with 19 MiB of memory and two passes.
    Argon2id,
    /// PBKDF2 with HMAC-SHA-512, mosquitto_passwd's own.
    Pbkdf2,
}

/// A user name that a line of a password file can hold.
fn name(text: &str) -> Result<String, String> {
    if text.is_empty() || text.len() > 65_535 {
        Err("a user name of 1 to 65535 bytes".to_owned())
    } else if text.contains(':')
        || text.chars().any(|c| matches!(c, '\n' | '\r' | '\0'))
        || text.starts_with('#')
    {
        Err("a user name without colon and line end that does not begin with #: a password file cannot hold it".to_owned())
    } else {
        Ok(text.to_owned())
    }
}

/// Carries the verb out.
pub(super) fn run<W: Write>(verb: &UsersVerb, screen: &mut Screen<W>) -> Result<(), Failure> {
    let UsersVerb::Hash { username, password_file, password_stdin, algorithm, iterations } = verb;
    // before anybody types a password
    let algorithm = match (algorithm, iterations) {
        (Method::Argon2id, None) => Algorithm::Argon2id,
        (Method::Argon2id, Some(_)) => return Err(Failure::Iterations),
        (Method::Pbkdf2, iterations) => Algorithm::Pbkdf2 { iterations: iterations.unwrap_or(ITERATIONS) },
    };
    let password = match password_file {
        Some(file) => read_file(file)?,
        None if !password_stdin && io::stdin().is_terminal() => ask()?,
        None => first_line(io::stdin().lock()).map_err(Failure::Password)?,
    };
    let hash = PasswordHash::new(algorithm, &password).map_err(Failure::Password)?.to_string();
    let line = username.as_ref().map_or_else(|| hash.clone(), |name| format!("{name}:{hash}"));
    screen.done(&json!({"username": username, "hash": hash}), &line)
}

fn read_file(file: &Path) -> Result<Vec<u8>, Failure> {
    let failed = |error: io::Error| {
        Failure::Password(io::Error::new(error.kind(), format!("{}: {error}", file.display())))
    };
    first_line(BufReader::new(File::open(file).map_err(failed)?)).map_err(failed)
}

/// Everything up to the end of the line.
fn first_line(from: impl BufRead) -> io::Result<Vec<u8>> {
    let mut line = Vec::new();
    from.take(MAX_PASSWORD + 2).read_until(b'\n', &mut line)?;
    if line.last() == Some(&b'\n') {
        line.pop();
        if line.last() == Some(&b'\r') {
            line.pop();
        }
    }
    if line.is_empty() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is empty"));
    }
    if line.len() as u64 > MAX_PASSWORD {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is longer than 65535 bytes"));
    }
    Ok(line)
}

/// Asks the person at the terminal twice, without showing what is typed.
fn ask() -> Result<Vec<u8>, Failure> {
    let terminal = File::options().read(true).write(true).open("/dev/tty").map_err(Failure::Password)?;
    let prompt = |text: &str| -> io::Result<Vec<u8>> {
        let hidden = Hidden::new(&terminal)?;
        (&terminal).write_all(text.as_bytes())?;
        let typed = first_line(BufReader::new(&terminal));
        drop(hidden);
        (&terminal).write_all(b"\n")?;
        typed
    };
    let first = prompt("Password: ").map_err(Failure::Password)?;
    if first != prompt("Again: ").map_err(Failure::Password)? {
        let why = io::Error::new(io::ErrorKind::InvalidInput, "the two are not the same");
        return Err(Failure::Password(why));
    }
    Ok(first)
}

/// What is typed is not shown as long as this lives.
struct Hidden<'a> {
    terminal: &'a File,
    before: rustix::termios::Termios,
}

impl<'a> Hidden<'a> {
    fn new(terminal: &'a File) -> io::Result<Self> {
        let before = tcgetattr(terminal)?;
        let mut hidden = before.clone();
        hidden.local_modes.remove(LocalModes::ECHO);
        tcsetattr(terminal, OptionalActions::Flush, &hidden)?;
        Ok(Self { terminal, before })
    }
}

impl Drop for Hidden<'_> {
    fn drop(&mut self) {
        // the person sees it at once if this fails, and `reset` helps
        let _ = tcsetattr(self.terminal, OptionalActions::Flush, &self.before);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_the_first_line_without_its_end() {
        let read = |text: &str| first_line(text.as_bytes()).ok();
        for text in ["secret", "secret\n", "secret\r\n", "secret\nmore\n"] {
            assert_eq!(read(text).as_deref(), Some(b"secret".as_slice()), "{text:?}");
        }
        assert_eq!(read(" a b \n").as_deref(), Some(b" a b ".as_slice()), "spaces are part of it");
        assert_eq!((read(""), read("\n"), read("\r\n")), (None, None, None));
    }

    #[test]
    fn a_password_may_be_as_long_as_a_connect_can_carry() {
        assert_eq!(first_line("x".repeat(65_535).as_bytes()).map(|p| p.len()).ok(), Some(65_535));
        assert!(first_line("x".repeat(65_536).as_bytes()).is_err());
    }

    #[test]
    fn iterations_are_refused_where_they_would_be_ignored() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("password");
        std::fs::write(&file, "secret\n").unwrap();
        let hash = |algorithm, iterations| {
            let (username, password_file) = (None, Some(file.clone()));
            let verb =
                UsersVerb::Hash { username, password_file, password_stdin: false, algorithm, iterations };
            let mut screen = Screen { out: Vec::new(), json: false, colour: false };
            run(&verb, &mut screen).map(|()| String::from_utf8(screen.out).unwrap())
        };
        let refused = hash(Method::Argon2id, Some(9)).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "--iterations is for --algorithm pbkdf2; argon2id, which is the default, has none"
        );
        assert!(hash(Method::Argon2id, None).unwrap().starts_with("$argon2id$"));
        assert!(hash(Method::Pbkdf2, Some(9)).unwrap().starts_with("$7$9$"));
        assert!(hash(Method::Pbkdf2, None).unwrap().starts_with("$7$210000$"));
    }

    #[test]
    fn a_name_that_a_line_cannot_hold_is_refused() {
        for text in ["", "a:b", "a\nb", "#a"] {
            assert!(name(text).is_err(), "{text:?}");
        }
        assert_eq!(name("Ännchen 1#").as_deref(), Ok("Ännchen 1#"));
    }
}
