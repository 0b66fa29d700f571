//! Who was verified lately: so that a fleet that comes back with the same passwords does not cost a hash each.
//!
//! Kept is a keyed digest of user, stored hash and password, never a password; the key is made at start and dies with the
//! process. A user whose stored hash changes is forgotten by that. Failures are not kept.
//! Bound: a number of entries, in two halves; at the bound the half that was written longest ago goes, except for what was
//! asked for since: the least recently used go first, nearly.
//! Must not know: threads, files.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha512;

use crate::hash::PasswordHash;

/// What is remembered of one verification: no way leads back from it.
pub(crate) type Proof = [u8; 32];

/// See the module.
pub(crate) struct Recent {
    key: [u8; 32],
    /// Entries of one half.
    half: usize,
    young: HashMap<Proof, Instant>,
    old: HashMap<Proof, Instant>,
}

impl Recent {
    /// For so many entries. `key` is random.
    pub(crate) fn new(capacity: usize, key: [u8; 32]) -> Self {
        Self { key, half: (capacity / 2).max(1), young: HashMap::new(), old: HashMap::new() }
    }

    /// What this user with this stored hash and password would leave.
    pub(crate) fn proof(&self, name: &str, stored: &PasswordHash, password: &[u8]) -> Proof {
        prove(&self.key, name, stored, password)
    }

    /// Whether it was verified and its time is not over.
    pub(crate) fn knows(&mut self, proof: &Proof, now: Instant) -> bool {
        if let Some(until) = self.young.get(proof) {
            return now < *until;
        }
        match self.old.remove(proof) {
            Some(until) if now < until => {
                self.put(*proof, until);
                true
            }
            _ => false,
        }
    }

    /// Remembers a verification for a time.
    pub(crate) fn learn(&mut self, proof: Proof, now: Instant, lasts: Duration) {
        if !lasts.is_zero() {
            self.put(proof, now + lasts);
        }
    }

    fn put(&mut self, proof: Proof, until: Instant) {
        if self.young.len() >= self.half {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(proof, until);
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }
}

fn prove(key: &[u8; 32], name: &str, stored: &PasswordHash, password: &[u8]) -> Proof {
    // a key of any length is taken; should that change, nothing is ever remembered rather than everything
    let Ok(mut mac) = Hmac::<Sha512>::new_from_slice(key) else { return [0; 32] };
    let [salt, digest] = stored.secret_parts();
    for part in [name.as_bytes(), salt, digest, password] {
        // each with its length: no two lists of parts give the same bytes
        mac.update(&(part.len() as u64).to_be_bytes());
        mac.update(part);
    }
    let mut proof = [0; 32];
    for (to, from) in proof.iter_mut().zip(mac.finalize().into_bytes()) {
        *to = from;
    }
    proof
}

#[cfg(test)]
mod tests {
    use runtime::clock::Clock;

    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn proof(n: u8) -> Proof {
        [n; 32]
    }

    #[test]
    fn what_was_verified_is_known_for_its_time() {
        let now = Clock::system().now();
        let mut recent = Recent::new(10, [1; 32]);
        recent.learn(proof(1), now, MINUTE);
        assert!(recent.knows(&proof(1), now + MINUTE - Duration::from_millis(1)));
        assert!(!recent.knows(&proof(1), now + MINUTE));
        assert!(!recent.knows(&proof(2), now));
    }

    #[test]
    fn nothing_is_kept_for_no_time() {
        let now = Clock::system().now();
        let mut recent = Recent::new(10, [1; 32]);
        recent.learn(proof(1), now, Duration::ZERO);
        assert_eq!(recent.len(), 0);
    }

    #[test]
    fn at_the_bound_those_go_that_were_not_asked_for() {
        let now = Clock::system().now();
        let mut recent = Recent::new(4, [1; 32]);
        for n in 0..100 {
            recent.learn(proof(n), now, MINUTE);
            assert!(recent.knows(&proof(0), now), "{n}: it is asked for each time");
            assert!(recent.len() <= 4, "{}", recent.len());
        }
        assert!(!recent.knows(&proof(50), now));
    }

    #[test]
    fn a_proof_depends_on_all_it_proves() {
        let hash = |salt: &str| PasswordHash::parse(&format!("$6${salt}${}==", "A".repeat(86))).unwrap();
        let (one, two) = (hash("AAAA"), hash("AAAB"));
        let recent = Recent::new(4, [1; 32]);
        let of = recent.proof("name", &one, b"password");
        assert_eq!(of, recent.proof("name", &one, b"password"));
        for other in [
            recent.proof("na", &one, b"mepassword"),
            recent.proof("name", &two, b"password"),
            recent.proof("name", &one, b"Password"),
            Recent::new(4, [2; 32]).proof("name", &one, b"password"),
        ] {
            assert_ne!(of, other);
        }
    }
}
