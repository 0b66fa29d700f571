//! Memory for bytes on their way, used again and again: a connection has some only while bytes wait.
//!
//! A buffer that is filled for the first time costs a page fault for every four KiB, which is more than copying them. Bounded:
//! [`SMALL`] small buffers, and large ones of [`LARGE_BYTES`] together; what is beyond goes back to the allocator, and so does,
//! by half each time that [`Buffers::ebb`] is called, what nobody needed since.
//!
//! Must not know: connections, packets.

/// Small buffers kept.
const SMALL: usize = 256;
/// Capacity up to which a buffer is a small one.
const SMALL_BYTES: usize = 64 * 1024;
/// Bytes of all large buffers that are kept.
const LARGE_BYTES: usize = 8 << 20;
/// Capacity up to which a large buffer is kept.
const LARGEST: usize = 2 << 20;

/// The buffers of one worker that nobody uses now.
#[derive(Default)]
pub(crate) struct Buffers {
    small: Vec<Vec<u8>>,
    large: Vec<Vec<u8>>,
    /// Sum of the capacities of `large`.
    large_bytes: usize,
    /// The fewest small and large ones that lay here since the last ebb: nobody needed so many.
    idle: (usize, usize),
}

impl Buffers {
    /// Makes room for `more` bytes behind what is in `buffer`, in used memory if there is some.
    #[inline]
    pub(crate) fn grow(&mut self, buffer: &mut Vec<u8>, more: usize) {
        if buffer.capacity() - buffer.len() < more {
            self.swap(buffer, more);
        }
    }

    fn swap(&mut self, buffer: &mut Vec<u8>, more: usize) {
        let wanted = buffer.len() + more;
        if buffer.capacity() == 0
            && wanted <= SMALL_BYTES
            && let Some(other) = self.small.pop()
        {
            // each first byte of a turn comes by here: nothing is to be copied or given back
            self.idle.0 = self.idle.0.min(self.small.len());
            *buffer = other;
            return;
        }
        if wanted <= SMALL_BYTES / 2 {
            return;
        }
        if let Some(mut other) = self.take_large(wanted) {
            other.extend_from_slice(buffer);
            self.give_back(std::mem::replace(buffer, other));
        }
    }

    fn take_large(&mut self, wanted: usize) -> Option<Vec<u8>> {
        // one that is much larger would be lent to a small need, and the bound on what is kept says nothing about what is lent
        let fits = |buffer: &Vec<u8>| (wanted..=wanted.saturating_mul(2)).contains(&buffer.capacity());
        let at = self.large.iter().rposition(fits)?;
        let buffer = self.large.swap_remove(at);
        self.large_bytes -= buffer.capacity();
        self.idle.1 = self.idle.1.min(self.large.len());
        Some(buffer)
    }

    /// Gives the allocator half of what nobody needed since the last call, the longest unused first: a burst that is over leaves
    /// nothing behind after some of them, and what each second needs stays.
    pub(crate) fn ebb(&mut self) {
        self.small.drain(..self.idle.0.div_ceil(2));
        let large = self.large.drain(..self.idle.1.div_ceil(2));
        self.large_bytes -= large.map(|buffer| buffer.capacity()).sum::<usize>();
        self.idle = (self.small.len(), self.large.len());
    }

    /// Takes a buffer that is not needed any more, if it is not a tiny one that would be in the way of the others.
    pub(crate) fn give_back_large(&mut self, buffer: Vec<u8>) {
        if buffer.capacity() > SMALL_BYTES / 2 {
            self.give_back(buffer);
        }
    }

    /// Takes a buffer that is not needed any more.
    pub(crate) fn give_back(&mut self, mut buffer: Vec<u8>) {
        buffer.clear();
        match buffer.capacity() {
            0 => {}
            1..=SMALL_BYTES if self.small.len() < SMALL => self.small.push(buffer),
            1..=SMALL_BYTES => {}
            capacity if capacity <= LARGEST && self.large_bytes + capacity <= LARGE_BYTES => {
                self.large_bytes += capacity;
                self.large.push(buffer);
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_in_a_buffer_is_in_its_larger_successor() {
        let mut buffers = Buffers::default();
        buffers.give_back(Vec::with_capacity(SMALL_BYTES * 4));
        let mut buffer = b"abc".to_vec();
        buffers.grow(&mut buffer, SMALL_BYTES);
        assert!(buffer.capacity() < 100, "one of four times the size is not lent");
        buffers.grow(&mut buffer, SMALL_BYTES * 2);
        assert_eq!((&buffer[..], buffer.capacity()), (&b"abc"[..], SMALL_BYTES * 4));
        assert_eq!(buffers.large_bytes, 0);
        let before = buffer.as_ptr();
        buffers.grow(&mut buffer, SMALL_BYTES * 2);
        assert_eq!(buffer.as_ptr(), before, "there was room");
    }

    #[test]
    fn an_empty_buffer_gets_a_used_one_of_its_size() {
        let mut buffers = Buffers::default();
        buffers.give_back(Vec::with_capacity(SMALL_BYTES * 4));
        buffers.give_back(Vec::with_capacity(100));
        let mut buffer = Vec::new();
        buffers.grow(&mut buffer, 4);
        assert_eq!(buffer.capacity(), 100);
    }

    #[test]
    fn what_nobody_needs_goes_back_and_what_is_in_use_stays() {
        let mut buffers = Buffers::default();
        for _ in 0..SMALL {
            buffers.give_back(Vec::with_capacity(SMALL_BYTES));
        }
        for _ in 0..4 {
            buffers.give_back(Vec::with_capacity(LARGEST));
        }
        for _ in 0..12 {
            buffers.ebb();
            let mut used: Vec<_> = (0..10).map(|_| Vec::new()).collect();
            used.iter_mut().for_each(|buffer| buffers.grow(buffer, 1));
            used.into_iter().for_each(|buffer| buffers.give_back(buffer));
        }
        assert!((10..=12).contains(&buffers.small.len()), "{} stay", buffers.small.len());
        assert_eq!((buffers.large.len(), buffers.large_bytes), (0, 0));
        for _ in 0..6 {
            buffers.ebb();
        }
        assert_eq!(buffers.small.len(), 0);
    }

    #[test]
    fn what_is_kept_is_bounded_in_number_and_bytes() {
        let mut buffers = Buffers::default();
        for _ in 0..2 * SMALL {
            buffers.give_back(Vec::with_capacity(10));
        }
        for capacity in [SMALL_BYTES + 1, LARGEST, LARGEST + 1].repeat(20) {
            buffers.give_back(Vec::with_capacity(capacity));
        }
        assert_eq!(buffers.small.len(), SMALL);
        assert_eq!(buffers.large.iter().map(Vec::capacity).sum::<usize>(), buffers.large_bytes);
        assert!(buffers.large_bytes <= LARGE_BYTES && buffers.large.iter().all(|b| b.capacity() <= LARGEST));
    }
}
