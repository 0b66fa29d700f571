//! The first bytes of each payload: which run, which publisher, the how-manieth, and when it was to be sent.
//!
//! All times are nanoseconds since the run's epoch, which only this process knows: both ends of a message are here.

/// Bytes of a stamp; no payload of a run is shorter.
pub(super) const LEN: usize = 24;

/// What a payload says about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    /// Tells the messages of this run from all others on the same topics.
    pub(super) run: u32,
    /// The publisher's number, from 0.
    pub(super) publisher: u32,
    /// The message's number among those of its publisher, from 0.
    pub(super) sequence: u64,
    /// When it was to be sent.
    pub(super) intended: u64,
}

impl Stamp {
    /// Overwrites the front of a payload. One that is shorter than [`LEN`] is left as it is; none is.
    pub(super) fn write(&self, payload: &mut [u8]) {
        if let Some(front) = payload.first_chunk_mut::<LEN>() {
            front[..4].copy_from_slice(&self.run.to_be_bytes());
            front[4..8].copy_from_slice(&self.publisher.to_be_bytes());
            front[8..16].copy_from_slice(&self.sequence.to_be_bytes());
            front[16..].copy_from_slice(&self.intended.to_be_bytes());
        }
    }

    /// The stamp of a payload; nothing where it is too short for one.
    pub(super) fn read(payload: &[u8]) -> Option<Self> {
        let (&run, rest) = payload.split_first_chunk()?;
        let (&publisher, rest) = rest.split_first_chunk()?;
        let (&sequence, rest) = rest.split_first_chunk()?;
        let &intended = rest.first_chunk()?;
        Some(Self {
            run: u32::from_be_bytes(run),
            publisher: u32::from_be_bytes(publisher),
            sequence: u64::from_be_bytes(sequence),
            intended: u64::from_be_bytes(intended),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_stamp_reads_back_from_the_front_of_its_payload(
            run: u32, publisher: u32, sequence: u64, intended: u64, size in LEN..200
        ) {
            let stamp = Stamp { run, publisher, sequence, intended };
            let mut payload = vec![b'x'; size];
            stamp.write(&mut payload);
            prop_assert_eq!(Stamp::read(&payload), Some(stamp));
            prop_assert!(payload[LEN..].iter().all(|byte| *byte == b'x'));
        }

        #[test]
        fn what_is_shorter_has_no_stamp(payload in proptest::collection::vec(any::<u8>(), 0..LEN)) {
            prop_assert_eq!(Stamp::read(&payload), None);
        }
    }
}
