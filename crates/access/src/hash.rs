//! Hashes of passwords in the forms that people have: mosquitto_passwd's `$6$` and `$7$`, and Argon2 as a PHC string.
//!
//! | form | what it is |
//! |---|---|
//! | `$6$salt$digest` | SHA-512 of password and salt: `mosquitto_passwd -H sha512`, Mosquitto 1.x |
//! | `$7$iterations$salt$digest` | PBKDF2 with HMAC-SHA-512: mosquitto_passwd of Mosquitto 2 |
//! | `$argon2id$v=19$m=..,t=..,p=..$salt$hash` | Argon2 as RFC 9106 has it; also `argon2i` and `argon2d` |
//!
//! What one comparison may cost is bounded when a line is read, because everybody who can reach the port can ask for it.
//! Must not know: files, users, threads.

use std::cell::RefCell;
use std::fmt;

use argon2::{Argon2, Block, Params, Version};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use ctutils::CtEq;
use sha2::{Digest, Sha512};

/// Iterations of PBKDF2: about half a second.
const MAX_ITERATIONS: u32 = 1_000_000;
/// Memory of one Argon2 hash in KiB: 256 MiB, as each thread that verifies takes it.
const MAX_MEMORY: u32 = 256 * 1024;
/// Passes over the memory.
const MAX_PASSES: u32 = 16;
/// KiB times passes: what a hash costs in time. About a second.
const MAX_WORK: u32 = 1024 * 1024;
const MAX_LANES: u32 = 16;
/// Bytes of salts and digests, of all forms.
const SALT: std::ops::RangeInclusive<usize> = 8..=64;
const DIGEST: std::ops::RangeInclusive<usize> = 16..=64;

/// How new hashes are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// Argon2id with 19 MiB, two passes and one lane: what OWASP recommends at least.
    Argon2id,
    /// PBKDF2 with HMAC-SHA-512, for files that Mosquitto reads too.
    Pbkdf2 {
        /// Iterations, 1 to 1,000,000. OWASP recommends 210,000 at least; Mosquitto itself writes 101.
        iterations: u32,
    },
}

/// A password's hash. Its debug form shows no secret.
#[derive(Clone, PartialEq, Eq)]
pub struct PasswordHash {
    method: Method,
    salt: Box<[u8]>,
    digest: Box<[u8]>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Method {
    Sha512,
    Pbkdf2 { iterations: u32 },
    Argon2 { algorithm: argon2::Algorithm, version: u32, memory: u32, passes: u32, lanes: u32 },
}

/// Why a text is no hash that may be used, as what is allowed instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HashError {
    /// It is none of the forms; it may be a password.
    #[error(
        "a hash as mosquitto_passwd or `tidegate ctl users hash` writes it: $6$salt$hash, $7$iterations$salt$hash or $argon2id$..."
    )]
    Form,
    /// A part of it is not as its form demands.
    #[error("a whole hash: it is cut or changed ({0})")]
    Damaged(&'static str),
    /// One comparison would take too long.
    #[error("at most 1000000 iterations of PBKDF2")]
    Iterations,
    /// One comparison would take too long or too much memory.
    #[error("Argon2 with at most 256 MiB (m=262144), 16 passes, 16 lanes, and m times t at most 1048576")]
    Cost,
}

impl fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PasswordHash").field("method", &self.method).finish_non_exhaustive()
    }
}

impl PasswordHash {
    /// Reads one of the forms.
    ///
    /// # Errors
    /// It is none, it is damaged, or a comparison with it would cost too much.
    pub fn parse(text: &str) -> Result<Self, HashError> {
        let parts: Vec<&str> = text.split('$').collect();
        match *parts.as_slice() {
            ["", "6", salt, digest] => Self::checked(Method::Sha512, decode(salt)?, decode(digest)?),
            ["", "7", iterations, salt, digest] => {
                let iterations = number(iterations).ok_or(HashError::Damaged("the number of iterations"))?;
                if !(1..=MAX_ITERATIONS).contains(&iterations) {
                    return Err(HashError::Iterations);
                }
                Self::checked(Method::Pbkdf2 { iterations }, decode(salt)?, decode(digest)?)
            }
            ["", name @ ("argon2id" | "argon2i" | "argon2d"), version, params, salt, digest] => {
                Self::argon2(name, version, params, salt, digest)
            }
            // the first form of PHC strings had no version: 1.0
            ["", name @ ("argon2id" | "argon2i" | "argon2d"), params, salt, digest] => {
                Self::argon2(name, "v=16", params, salt, digest)
            }
            _ => Err(HashError::Form),
        }
    }

    fn argon2(name: &str, version: &str, params: &str, salt: &str, digest: &str) -> Result<Self, HashError> {
        let algorithm = match name {
            "argon2id" => argon2::Algorithm::Argon2id,
            "argon2i" => argon2::Algorithm::Argon2i,
            _ => argon2::Algorithm::Argon2d,
        };
        let version = match version {
            "v=19" => 0x13,
            "v=16" => 0x10,
            _ => return Err(HashError::Damaged("the version is v=19 or v=16")),
        };
        let damaged = HashError::Damaged("the parameters are m=..,t=..,p=..");
        let (mut memory, mut passes, mut lanes) = (None, None, None);
        for param in params.split(',') {
            let (slot, value) = match param.split_once('=') {
                Some(("m", value)) => (&mut memory, value),
                Some(("t", value)) => (&mut passes, value),
                Some(("p", value)) => (&mut lanes, value),
                _ => return Err(damaged),
            };
            if slot.replace(number(value).ok_or(damaged)?).is_some() {
                return Err(damaged);
            }
        }
        let (Some(memory), Some(passes), Some(lanes)) = (memory, passes, lanes) else { return Err(damaged) };
        if memory > MAX_MEMORY
            || passes > MAX_PASSES
            || lanes > MAX_LANES
            || memory.saturating_mul(passes) > MAX_WORK
        {
            return Err(HashError::Cost);
        }
        // eight blocks a lane at least, one pass, one lane (RFC 9106, 3.1)
        if lanes == 0 || passes == 0 || memory < 8 * lanes {
            return Err(damaged);
        }
        let (salt, digest) = (decode_unpadded(salt)?, decode_unpadded(digest)?);
        Self::checked(Method::Argon2 { algorithm, version, memory, passes, lanes }, salt, digest)
    }

    fn checked(method: Method, salt: Vec<u8>, digest: Vec<u8>) -> Result<Self, HashError> {
        // Mosquitto 1.x and some of its tools made shorter salts than 8 bytes; SHA-512 and PBKDF2 take any
        let shortest = if matches!(method, Method::Argon2 { .. }) { *SALT.start() } else { 1 };
        if !(shortest..=*SALT.end()).contains(&salt.len()) {
            return Err(HashError::Damaged("the salt"));
        }
        let fits = match method {
            Method::Sha512 | Method::Pbkdf2 { .. } => digest.len() == 64,
            Method::Argon2 { .. } => DIGEST.contains(&digest.len()),
        };
        if !fits {
            return Err(HashError::Damaged("the hash has the wrong length"));
        }
        Ok(Self { method, salt: salt.into(), digest: digest.into() })
    }

    /// Hashes a new password with a salt of its own.
    ///
    /// # Errors
    /// The system gives no random bytes, or `iterations` is out of its range.
    pub fn new(algorithm: Algorithm, password: &[u8]) -> std::io::Result<Self> {
        // 96 bits: what Mosquitto takes, which refuses salts of another length
        let mut salt = [0; 12];
        getrandom::fill(&mut salt).map_err(|error| std::io::Error::other(error.to_string()))?;
        let (method, length) = match algorithm {
            Algorithm::Argon2id => {
                let (memory, passes, lanes) =
                    (Params::DEFAULT_M_COST, Params::DEFAULT_T_COST, Params::DEFAULT_P_COST);
                let algorithm = argon2::Algorithm::Argon2id;
                (Method::Argon2 { algorithm, version: 0x13, memory, passes, lanes }, 32)
            }
            Algorithm::Pbkdf2 { iterations } => {
                if !(1..=MAX_ITERATIONS).contains(&iterations) {
                    return Err(std::io::Error::other(HashError::Iterations.to_string()));
                }
                (Method::Pbkdf2 { iterations }, 64)
            }
        };
        let mut hash = Self { method, salt: salt.into(), digest: vec![0; length].into() };
        hash.digest =
            hash.compute(password).ok_or_else(|| std::io::Error::other("the password is too long"))?;
        Ok(hash)
    }

    /// Whether this is the password's hash. Takes milliseconds up to a second, the same whatever the password is.
    pub fn verify(&self, password: &[u8]) -> bool {
        self.compute(password).is_some_and(|digest| digest.ct_eq(&self.digest).to_bool())
    }

    /// `None`: no such hash exists.
    fn compute(&self, password: &[u8]) -> Option<Box<[u8]>> {
        let mut digest = vec![0; self.digest.len()];
        match self.method {
            Method::Sha512 => {
                // in Mosquitto's order: the salt comes behind
                digest = Sha512::new().chain_update(password).chain_update(&self.salt).finalize().to_vec();
            }
            Method::Pbkdf2 { iterations } => {
                pbkdf2::pbkdf2_hmac::<Sha512>(password, &self.salt, iterations, &mut digest);
            }
            Method::Argon2 { algorithm, version, memory, passes, lanes } => {
                let params = Params::new(memory, passes, lanes, Some(digest.len())).ok()?;
                let version = Version::try_from(version).ok()?;
                let count = params.block_count();
                let argon2 = Argon2::new(algorithm, version, params);
                BLOCKS.with_borrow_mut(|blocks| {
                    if blocks.len() < count {
                        blocks.resize(count, Block::default());
                    }
                    let blocks = blocks.get_mut(..count)?;
                    argon2.hash_password_into_with_memory(password, &self.salt, &mut digest, blocks).ok()
                })?;
            }
        }
        Some(digest.into())
    }

    /// Salt and digest: what tells this hash from any other.
    pub(crate) fn secret_parts(&self) -> [&[u8]; 2] {
        [&self.salt, &self.digest]
    }
}

thread_local! {
    /// Argon2's memory, kept by each thread that compares: taken and given back for every password, it left the allocator with
    /// hundreds of megabytes in pieces.
    static BLOCKS: RefCell<Vec<Block>> = const { RefCell::new(Vec::new()) };
}

/// As it stands in a file.
impl fmt::Display for PasswordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (salt, digest) = (&self.salt, &self.digest);
        match self.method {
            Method::Sha512 => write!(f, "$6${}${}", STANDARD.encode(salt), STANDARD.encode(digest)),
            Method::Pbkdf2 { iterations } => {
                write!(f, "$7${iterations}${}${}", STANDARD.encode(salt), STANDARD.encode(digest))
            }
            Method::Argon2 { algorithm, version, memory, passes, lanes } => write!(
                f,
                "${}$v={version}$m={memory},t={passes},p={lanes}${}${}",
                algorithm.as_str(),
                STANDARD_NO_PAD.encode(salt),
                STANDARD_NO_PAD.encode(digest)
            ),
        }
    }
}

/// A decimal number without sign, spaces or leading zeros: one text for one number.
fn number(text: &str) -> Option<u32> {
    let plain = text.bytes().all(|b| b.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    plain.then(|| text.parse().ok()).flatten()
}

fn decode(text: &str) -> Result<Vec<u8>, HashError> {
    STANDARD.decode(text).map_err(|_| HashError::Damaged("salt and hash are base64"))
}

fn decode_unpadded(text: &str) -> Result<Vec<u8>, HashError> {
    STANDARD_NO_PAD.decode(text).map_err(|_| HashError::Damaged("salt and hash are base64 without padding"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Written by mosquitto_passwd 2.0.11 for the password `secret`.
    const SHA512: &str = "$6$k3voOjFS85vL5aOx$OUzc5R7YLKC2I1tgWX/Sw4Agr6sQhfxToCbqn/UsxT9teW6PI3+lUy/WNJO4vrpcVK5f8V+x0laLlciM9XIZTQ==";
    const PBKDF2: &str = "$7$101$oUtnDrOa+3rYz/bv$ReX0mzNrv3IGdJwnOHSciIl9cAI5mY679+PrXjwIsW/unTrB9kZPsCIWY3FD6Zdczcf5a5Nyv/fVRzC6HRrvzw==";
    /// From the reference implementation: `echo -n password | argon2 somesalt -id -t 2 -m 16 -p 1 -l 32 -e`.
    const ARGON2ID: &str =
        "$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc";

    #[test]
    fn lines_of_other_tools_are_understood() {
        for (line, password) in [(SHA512, "secret"), (PBKDF2, "secret"), (ARGON2ID, "password")] {
            let hash = PasswordHash::parse(line).unwrap();
            assert!(hash.verify(password.as_bytes()), "{line}");
            assert!(!hash.verify(b"Secret") && !hash.verify(b""), "{line}");
            assert_eq!(hash.to_string(), line, "read and written it is the same");
        }
    }

    #[test]
    fn new_hashes_verify_and_differ() {
        for algorithm in [Algorithm::Argon2id, Algorithm::Pbkdf2 { iterations: 3 }] {
            let [one, two] = [0; 2].map(|_| PasswordHash::new(algorithm, "pässword".as_bytes()).unwrap());
            assert_ne!(one.to_string(), two.to_string(), "each has a salt of its own");
            let read = PasswordHash::parse(&one.to_string()).unwrap();
            assert!(read.verify("pässword".as_bytes()) && !read.verify("password".as_bytes()));
        }
    }

    #[test]
    fn what_would_cost_too_much_is_refused_and_the_most_expensive_is_not() {
        let argon2 = |params: &str| {
            format!("$argon2id$v=19${params}$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc")
        };
        for params in ["m=262144,t=4,p=1", "m=65536,t=16,p=16", "m=8,t=1,p=1"] {
            assert!(PasswordHash::parse(&argon2(params)).is_ok(), "{params}");
        }
        for params in [
            "m=262145,t=1,p=1",
            "m=8,t=17,p=1",
            "m=262144,t=5,p=1",
            "m=4096,t=1,p=17",
            "m=4294967295,t=4294967295,p=1",
        ] {
            assert_eq!(PasswordHash::parse(&argon2(params)), Err(HashError::Cost), "{params}");
        }
        for iterations in ["1", "1000000"] {
            assert!(PasswordHash::parse(&PBKDF2.replace("$101$", &format!("${iterations}$"))).is_ok());
        }
        for iterations in ["0", "1000001"] {
            let line = PBKDF2.replace("$101$", &format!("${iterations}$"));
            assert_eq!(PasswordHash::parse(&line), Err(HashError::Iterations));
        }
    }

    #[test]
    fn what_is_no_hash_is_told_from_a_damaged_one() {
        for text in [
            "",
            "secret",
            "$1$abc$def",
            "$6$onlysalt",
            "$2y$10$abc",
            "6$a$b",
            "$argon2x$v=19$m=8,t=1,p=1$c29tZXNhbHQ$AA",
        ] {
            assert_eq!(PasswordHash::parse(text), Err(HashError::Form), "{text}");
        }
        let cut = &SHA512[..SHA512.len() - 10];
        for text in [
            cut,
            "$6$!!$!!",
            "$7$1e3$oUtnDrOa+3rYz/bv$AAAA",
            "$argon2id$v=18$m=8,t=1,p=1$c29tZXNhbHQ$AA",
            "$argon2id$v=19$m=8,t=1$c29tZXNhbHQ$AA",
            "$argon2id$v=19$m=8,m=8,t=1,p=1$c29tZXNhbHQ$AA",
            "$argon2id$v=19$m=7,t=1,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc",
            "$argon2id$v=19$m=8,t=1,p=1$YWJj$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc",
            "$argon2id$v=19$m=8,t=1,p=1$c29tZXNhbHQ$AAAA",
        ] {
            assert!(matches!(PasswordHash::parse(text), Err(HashError::Damaged(_))), "{text}");
        }
    }

    #[test]
    fn the_debug_form_shows_no_secret() {
        let shown = format!("{:?}", PasswordHash::parse(PBKDF2).unwrap());
        assert!(shown.contains("Pbkdf2") && !shown.contains("oUtn") && !shown.contains("161"), "{shown}");
    }

    proptest! {
        #[test]
        fn no_text_is_too_strange(text in "[$a-z0-9=,+/]{0,80}|\\PC*") {
            if let Ok(hash) = PasswordHash::parse(&text) {
                prop_assert_eq!(hash.to_string().len(), text.len());
            }
        }
    }
}
