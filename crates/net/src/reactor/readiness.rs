//! What is known of one socket between two events: pure.
//!
//! epoll tells of a change once (edge-triggered). What it told is kept here until the socket itself says that there
//! is no more: by "would block", or by giving or taking less than it was asked to. Such a partial read spares the
//! second read that would only say "would block"; and where the peer's end had been told before, it is known to be
//! the last one. Must not know: descriptors, wakers, epoll's numbers.

use std::fmt;

/// The state of a socket, one byte for each.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Readiness(u8);

/// What an event told of a socket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Told {
    /// There is something to read, or an error to be found by reading.
    pub(super) readable: bool,
    /// There is room to write, or an error to be found by writing.
    pub(super) writable: bool,
    /// The peer will send no more than what has arrived.
    pub(super) ended: bool,
    /// An error waits to be found.
    pub(super) failed: bool,
    /// Urgent data is among what has arrived: reads stop short at it.
    pub(super) urgent: bool,
}

const READABLE: u8 = 1;
const WRITABLE: u8 = 1 << 1;
const ENDED: u8 = 1 << 2;
/// Partial reads tell nothing: an error or urgent data may be behind them.
const OPAQUE: u8 = 1 << 3;
/// Everything was read, the end too.
const DRAINED: u8 = 1 << 4;
/// Events tell of room to write.
const WATCHED: u8 = 1 << 5;

impl Readiness {
    /// A socket whose events begin now: what is there to read will be told.
    pub(super) const fn new(writable: bool, watched: bool) -> Self {
        Self((if writable { WRITABLE } else { 0 }) | (if watched { WATCHED } else { 0 }))
    }

    const fn has(self, bit: u8) -> bool {
        self.0 & bit != 0
    }

    pub(super) const fn is_readable(self) -> bool {
        self.has(READABLE)
    }

    pub(super) const fn is_writable(self) -> bool {
        self.has(WRITABLE)
    }

    /// The peer's end has been told; there may be bytes before it.
    pub(super) const fn has_ended(self) -> bool {
        self.has(ENDED)
    }

    /// Nothing is left to read, and the peer sends no more.
    pub(super) const fn is_drained(self) -> bool {
        self.has(DRAINED)
    }

    /// Whether events tell of room to write.
    pub(super) const fn is_watched(self) -> bool {
        self.has(WATCHED)
    }

    pub(super) const fn watch(&mut self) {
        self.0 |= WATCHED;
    }

    /// An event came.
    pub(super) const fn told(&mut self, told: Told) {
        if told.readable || told.ended || told.failed {
            self.0 |= READABLE;
        }
        if told.writable || told.failed {
            self.0 |= WRITABLE;
        }
        if told.ended {
            self.0 |= ENDED;
        }
        if told.failed || told.urgent {
            self.0 |= OPAQUE;
        }
    }

    /// A read that asked for `asked` bytes gave `got`.
    pub(super) const fn read(&mut self, asked: usize, got: usize) {
        if asked == 0 {
        } else if got == 0 {
            self.0 |= READABLE | DRAINED;
        } else if got < asked && !self.has(OPAQUE) {
            // The end was told before this read, so what arrived before the end is all there was.
            if self.has(ENDED) {
                self.0 |= DRAINED;
            } else {
                self.0 &= !READABLE;
            }
        }
    }

    /// A read would have blocked.
    pub(super) const fn read_blocked(&mut self) {
        self.0 &= !READABLE;
    }

    /// A write of `asked` bytes took `took`.
    pub(super) const fn wrote(&mut self, asked: usize, took: usize) {
        if took < asked {
            self.0 &= !WRITABLE;
        }
    }

    /// A write would have blocked.
    pub(super) const fn write_blocked(&mut self) {
        self.0 &= !WRITABLE;
    }
}

impl fmt::Debug for Readiness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = [
            (READABLE, "readable"),
            (WRITABLE, "writable"),
            (ENDED, "ended"),
            (OPAQUE, "opaque"),
            (DRAINED, "drained"),
            (WATCHED, "watched"),
        ];
        f.debug_set().entries(names.iter().filter(|(bit, _)| self.has(*bit)).map(|(_, name)| name)).finish()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A socket as the kernel has it, with the edge that it will tell at the next wait.
    #[derive(Debug, Default)]
    struct Kernel {
        /// Bytes that arrived, in runs: a read stops at the end of a run that urgent data ends.
        unread: usize,
        /// Where in the unread bytes a read stops.
        mark: Option<usize>,
        fin: bool,
        reset: bool,
        /// Something changed since the last wait.
        edge: bool,
        room: usize,
        /// A write found no room, so that the next room is told.
        starved: bool,
    }

    impl Kernel {
        fn wait(&mut self, watched: bool) -> Option<Told> {
            if !std::mem::take(&mut self.edge) {
                return None;
            }
            Some(Told {
                readable: self.unread > 0 || self.fin || self.reset,
                writable: watched && self.room > 0,
                ended: self.fin || self.reset,
                failed: self.reset,
                urgent: self.mark.is_some(),
            })
        }

        fn read(&mut self, asked: usize) -> Option<usize> {
            let most = self.mark.unwrap_or(usize::MAX).min(self.unread).min(asked);
            if self.unread == 0 {
                return (self.fin || self.reset).then_some(0);
            }
            self.unread -= most;
            self.mark = match self.mark {
                Some(mark) if mark > most => Some(mark - most),
                _ => None,
            };
            Some(most)
        }

        fn write(&mut self, asked: usize) -> Option<usize> {
            let took = asked.min(self.room);
            self.room -= took;
            self.starved |= took < asked;
            (took > 0).then_some(took)
        }
    }

    #[derive(Clone, Copy, Debug)]
    enum Step {
        Arrive(usize),
        Urgent,
        Fin,
        Reset,
        Wait,
        Read(usize),
        Write(usize),
        Room(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            3 => (1_usize..20).prop_map(Step::Arrive),
            1 => Just(Step::Urgent),
            1 => Just(Step::Fin),
            1 => Just(Step::Reset),
            4 => Just(Step::Wait),
            6 => (1_usize..16).prop_map(Step::Read),
            3 => (1_usize..16).prop_map(Step::Write),
            2 => (1_usize..16).prop_map(Step::Room),
        ]
    }

    proptest! {
        /// Against a naive kernel: what is there is either known, or will be told at the next wait; no byte is behind an
        /// end that was reported; and a side that waits for room is told of it.
        #[test]
        fn no_wake_up_is_lost(steps in prop::collection::vec(step(), 0..60)) {
            let mut kernel = Kernel { room: 10, ..Kernel::default() };
            let mut known = Readiness::new(true, false);
            for step in steps {
                match step {
                    Step::Arrive(count) if !kernel.fin && !kernel.reset => {
                        kernel.unread += count;
                        kernel.edge = true;
                    }
                    Step::Urgent if !kernel.fin && !kernel.reset => {
                        kernel.unread += 1;
                        kernel.mark = Some(kernel.unread);
                        // What comes behind the mark is another read's.
                        kernel.unread += 1;
                        kernel.edge = true;
                    }
                    Step::Fin if !kernel.reset => (kernel.fin, kernel.edge) = (true, true),
                    Step::Reset => (kernel.reset, kernel.edge) = (true, true),
                    Step::Wait => {
                        if let Some(told) = kernel.wait(known.is_watched()) {
                            known.told(told);
                        }
                    }
                    Step::Read(asked) if known.is_readable() && !known.is_drained() => {
                        match kernel.read(asked) {
                            Some(got) => known.read(asked, got),
                            None => known.read_blocked(),
                        }
                    }
                    Step::Write(asked) if known.is_writable() => {
                        match kernel.write(asked) {
                            Some(took) => known.wrote(asked, took),
                            None => known.write_blocked(),
                        }
                        if !known.is_writable() && !known.is_watched() {
                            // As epoll does when it is asked for more: it looks at once.
                            known.watch();
                            kernel.edge = true;
                        }
                    }
                    Step::Room(count) => {
                        kernel.room += count;
                        kernel.edge |= std::mem::take(&mut kernel.starved);
                    }
                    _ => {}
                }
                let there = kernel.unread > 0 || kernel.fin || kernel.reset;
                prop_assert!(!there || known.is_readable() || kernel.edge, "{kernel:?} {known:?}");
                prop_assert!(!known.is_drained() || kernel.unread == 0, "{kernel:?} {known:?}");
                prop_assert!(kernel.room == 0 || known.is_writable() || kernel.edge, "{kernel:?} {known:?}");
            }
        }
    }

    #[test]
    fn a_partial_read_after_the_end_was_told_is_the_last() {
        let mut known = Readiness::new(true, false);
        known.told(Told { readable: true, ended: true, ..Told::default() });
        known.read(10, 10);
        assert!(known.is_readable() && !known.is_drained(), "more may be there");
        known.read(10, 9);
        assert!(known.is_readable() && known.is_drained());
    }

    #[test]
    fn an_error_is_found_by_reading_to_its_place() {
        let mut known = Readiness::new(true, false);
        known.told(Told { ended: true, failed: true, ..Told::default() });
        known.read(10, 3);
        assert!(known.is_readable() && known.is_writable() && !known.is_drained());
    }
}
