//! A payload that says which message it is, and whether it arrived whole.
//!
//! Sixteen bytes tell stream, number, time of sending and a check sum; what follows is a stretch of one fixed pattern, so that a
//! byte of another message is seen. How long a letter is follows from its stream and number.

/// Bytes before the pattern; nothing shorter can be a letter, except one without any bytes.
pub(crate) const HEADER: usize = 16;
/// The longest letter.
pub(crate) const LONGEST: usize = 256 * 1024;

/// How long the letters of a stream are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lengths {
    /// No bytes at all: known by their topic, counted and not told apart.
    Empty,
    /// 16 to 256 bytes.
    Small,
    /// Mostly small, up to 32 KiB.
    Mixed,
    /// Up to 256 KiB, half of them above 4 KiB.
    Large,
}

/// Which message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Letter {
    /// Its stream.
    pub(crate) stream: u16,
    /// Its number in the stream, from 1.
    pub(crate) seq: u64,
    /// When it was sent first, in epochs of the run.
    pub(crate) epoch: u32,
}

/// Writes and reads letters.
pub(crate) struct Paper {
    pattern: Vec<u8>,
}

/// A number that looks like chance and is always the same for the same input.
pub(super) fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    let value = (value ^ (value >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    value ^ (value >> 33)
}

/// Bytes of a letter.
pub(crate) fn length(lengths: Lengths, stream: u16, seq: u64) -> usize {
    let dice = mix(u64::from(stream) << 48 ^ seq);
    let (kind, within) = (dice % 100, usize::try_from(dice >> 32).unwrap_or(0));
    let span = |from: usize, to: usize| from + within % (to - from);
    match (lengths, kind) {
        (Lengths::Empty, _) => 0,
        (Lengths::Small, _) | (Lengths::Mixed, 0..85) => span(HEADER, 256),
        (Lengths::Mixed, 85..97) | (Lengths::Large, 0..50) => span(256, 4 * 1024),
        (Lengths::Mixed, _) | (Lengths::Large, 50..97) => span(4 * 1024, 32 * 1024),
        (Lengths::Large, _) => span(32 * 1024, LONGEST + 1),
    }
}

fn check(letter: Letter, length: usize) -> u16 {
    let all = mix(letter.seq) ^ mix(u64::from(letter.epoch) << 20 ^ u64::from(letter.stream)) ^ length as u64;
    all.to_le_bytes().chunks(2).fold(0, |sum, two| sum ^ u16::from_le_bytes([two[0], two[1]]))
}

impl Paper {
    pub(crate) fn new() -> Self {
        let words = (0..(LONGEST + 256) / 8 + 1).flat_map(|word| mix(word as u64 + 1).to_le_bytes());
        Self { pattern: words.collect() }
    }

    fn stretch(&self, seq: u64, length: usize) -> &[u8] {
        let from = usize::try_from(seq % 251).unwrap_or(0);
        &self.pattern[from..from + length]
    }

    /// A letter of so many bytes: at least [`HEADER`].
    pub(crate) fn write(&self, letter: Letter, length: usize) -> Vec<u8> {
        let mut out = Vec::with_capacity(length);
        out.extend_from_slice(&letter.stream.to_be_bytes());
        out.extend_from_slice(&letter.seq.to_be_bytes());
        out.extend_from_slice(&letter.epoch.to_be_bytes());
        out.extend_from_slice(&check(letter, length).to_be_bytes());
        out.extend_from_slice(self.stretch(letter.seq, length - HEADER));
        out
    }

    /// Takes a letter apart; an error: it is not what was sent.
    pub(crate) fn read(&self, payload: &[u8]) -> Result<Letter, String> {
        let Some((header, rest)) = payload.split_first_chunk::<HEADER>() else {
            return Err(format!("a payload of {} bytes that nobody sent", payload.len()));
        };
        let number = |range: std::ops::Range<usize>| {
            header[range].iter().fold(0_u64, |sum, byte| sum << 8 | u64::from(*byte))
        };
        let letter = Letter {
            stream: u16::from_be_bytes([header[0], header[1]]),
            seq: number(2..10),
            epoch: u32::from_be_bytes([header[10], header[11], header[12], header[13]]),
        };
        if number(14..16) != u64::from(check(letter, payload.len())) {
            return Err(format!("{letter:?} has another header or length than when it was sent"));
        }
        if rest.len() > LONGEST || rest != self.stretch(letter.seq, rest.len()) {
            return Err(format!("{letter:?} has other bytes than when it was sent"));
        }
        Ok(letter)
    }
}
