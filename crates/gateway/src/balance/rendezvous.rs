//! Weighted rendezvous hashing (highest random weight, Thaler and Ravishankar 1996; weights after Schindelhauer
//! and Schomaker 2005).
//!
//! Every server draws a number for the key, and the lowest wins:
//!
//! ```text
//! seed  = xxh3_64(name)                         the server's, once
//! u     = ((xxh3_64(key, seed) >> 12) + 0.5) / 2^52    uniform in (0, 1)
//! score = -ln(u) / weight                       exponential with rate `weight`
//! ```
//!
//! The minimum of exponentials falls on a server with exactly its share of the weights. A server that is skipped
//! leaves all other scores as they are: only its own keys move, and they spread by weight.
//!
//! **These numbers are stable for ever**: devices move when they change. The tests pin them. The logarithm is
//! made of IEEE 754's four operations only, since that of the platform may differ in its last bit.

use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

/// -ln(u) is never less than 1 - u, so most draws are seen to lose without their logarithm. This is far more than rounding
/// can take off, and what it lets through is decided by the scores.
const ROUNDING: f64 = 1.0 + 1e-9;

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Rendezvous {
    servers: Vec<Server>,
}

#[derive(Clone, Debug, PartialEq)]
struct Server {
    seed: u64,
    weight: f64,
}

impl Rendezvous {
    pub(super) fn new<'a>(servers: impl Iterator<Item = (&'a str, u32)>) -> Self {
        let server = |(name, weight): (&str, u32)| Server {
            seed: xxh3_64(name.as_bytes()),
            weight: f64::from(weight),
        };
        Self { servers: servers.map(server).collect() }
    }

    pub(super) fn choose(&self, key: &[u8], usable: impl Fn(usize) -> bool) -> Option<usize> {
        let mut best: Option<(usize, f64, u64)> = None;
        for (index, server) in self.servers.iter().enumerate() {
            if server.weight <= 0.0 || !usable(index) {
                continue;
            }
            let u = uniform(xxh3_64_with_seed(key, server.seed));
            if best.is_some_and(|(_, lowest, _)| 1.0 - u > lowest * server.weight * ROUNDING) {
                continue;
            }
            let score = -ln(u) / server.weight;
            // Equal scores happen about never; the seed decides then, so that the order of the list does not.
            let better = best
                .is_none_or(|(_, lowest, seed)| score < lowest || (score == lowest && server.seed < seed));
            if better {
                best = Some((index, score, server.seed));
            }
        }
        best.map(|(index, ..)| index)
    }
}

/// The upper 52 bits as a number in (0, 1): with the half added they fill a double exactly, both ends excluded.
fn uniform(hash: u64) -> f64 {
    const TWO_TO_52: f64 = 4_503_599_627_370_496.0;
    #[allow(clippy::cast_precision_loss)] // 52 bits are exact
    let numerator = (hash >> 12) as f64;
    (numerator + 0.5) / TWO_TO_52
}

/// Natural logarithm of a normal number in (0, 1], the same bits on every machine.
///
/// `x = m · 2^e` with m in [√½, √2), then `ln m = 2 · artanh((m − 1) / (m + 1))` as its power series: |s| ≤ 0.172,
/// so that eleven terms are below the last bit.
fn ln(x: f64) -> f64 {
    const LN_2: f64 = std::f64::consts::LN_2;
    const MANTISSA: u64 = (1 << 52) - 1;
    const BIAS: u64 = 1023;
    let bits = x.to_bits();
    let mut m = f64::from_bits((bits & MANTISSA) | (BIAS << 52));
    #[allow(clippy::cast_precision_loss)] // at most 2,046
    let mut e = (bits >> 52) as f64 - BIAS as f64;
    if m >= std::f64::consts::SQRT_2 {
        m /= 2.0;
        e += 1.0;
    }
    let s = (m - 1.0) / (m + 1.0);
    let square = s * s;
    let mut sum = 0.0;
    for term in (0..11_i32).rev() {
        sum = sum * square + 1.0 / f64::from(2 * term + 1);
    }
    e * LN_2 + 2.0 * s * sum
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Rendezvous, ln, uniform, xxh3_64_with_seed};

    #[test]
    fn a_draw_is_never_at_the_ends() {
        for hash in [0, 1, u64::MAX, 1 << 63] {
            let u = uniform(hash);
            assert!(u > 0.0 && u < 1.0, "{hash:x}: {u}");
            assert!(-ln(u) > 0.0 && ln(u).is_finite(), "{hash:x}: {}", ln(u));
        }
    }

    /// Every score, the lowest wins.
    fn by_every_score(hash: &Rendezvous, key: &[u8]) -> Option<usize> {
        let scored = hash.servers.iter().enumerate().filter(|(_, server)| server.weight > 0.0).map(
            |(index, server)| {
                let score = -ln(uniform(xxh3_64_with_seed(key, server.seed))) / server.weight;
                (score, server.seed, index)
            },
        );
        scored.min_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1))).map(|(.., index)| index)
    }

    proptest! {
        #[test]
        fn who_is_seen_to_lose_early_has_lost(
            key in prop::collection::vec(any::<u8>(), 0..40),
            weights in prop::collection::vec(prop_oneof![Just(1_u32), 0_u32..5, any::<u32>()], 0..80),
        ) {
            let names: Vec<String> = (0..weights.len()).map(|n| format!("server-{n}")).collect();
            let hash = Rendezvous::new(names.iter().map(String::as_str).zip(weights));
            prop_assert_eq!(hash.choose(&key, |_| true), by_every_score(&hash, &key));
        }

        #[test]
        fn our_logarithm_is_the_platforms_up_to_rounding(hash in any::<u64>()) {
            let u = uniform(hash);
            let (ours, platform) = (ln(u), u.ln());
            prop_assert!((ours - platform).abs() <= platform.abs().max(f64::MIN_POSITIVE) * 1e-13
                || (ours - platform).abs() < 1e-15, "{u}: {ours} {platform}");
        }
    }
}
