//! Where counting begins and ends.

use std::hint::black_box;

/// Something of the hot path that is counted.
pub(crate) struct Row {
    /// `group/what`, in lower case; stable, since records are kept under it.
    pub(crate) name: &'static str,
    /// Prepares it, does it under [`counted`], and gives how many operations that were.
    pub(crate) run: fn() -> u64,
}

/// Operations of a row that has no reason for another number: enough that what is done once does not show.
pub(crate) const OPERATIONS: u64 = 1_000;

/// Whatever runs in here is counted, and nothing else. callgrind knows this function by its name.
#[inline(never)]
pub(crate) fn counted<T>(work: impl FnOnce() -> T) -> T {
    black_box(work())
}

/// Counts an operation [`OPERATIONS`] times, after it was done once: what it keeps is there then. It is given the number of
/// the turn.
pub(crate) fn repeat<T>(mut operation: impl FnMut(usize) -> T) -> u64 {
    black_box(operation(0));
    counted(|| {
        for turn in 1..=OPERATIONS as usize {
            black_box(operation(black_box(turn)));
        }
    });
    OPERATIONS
}
