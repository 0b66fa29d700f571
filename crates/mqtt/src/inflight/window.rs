//! Packet identifiers in use, in the order in which they came into use.
//!
//! As long as they came in ascending order (65,535 is followed by 1), and they do unless a peer or a restored session
//! says otherwise, any of them is found by binary search, and in one step if it is the oldest. Else one after the other is
//! looked at, until all are gone. Without entries there is no memory on the heap.

use std::collections::VecDeque;

use crate::PacketId;

#[derive(Clone, Debug)]
pub(super) struct Window<T> {
    entries: VecDeque<(PacketId, T)>,
    /// Whether the identifiers ascend from front to back, around at most once.
    ascending: bool,
}

/// Steps from `from` up to `to`, 65,535 being followed by 1.
fn distance(from: PacketId, to: PacketId) -> u16 {
    match to.get().checked_sub(from.get()) {
        Some(steps) => steps,
        None => u16::MAX - (from.get() - to.get()),
    }
}

impl<T> Window<T> {
    pub(super) const fn new() -> Self {
        Self { entries: VecDeque::new(), ascending: true }
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(super) fn iter(&self) -> impl DoubleEndedIterator<Item = (PacketId, &T)> {
        self.entries.iter().map(|(id, entry)| (*id, entry))
    }

    fn position(&self, id: PacketId) -> Option<usize> {
        let &(front, _) = self.entries.front()?;
        if front == id {
            return Some(0);
        }
        if !self.ascending {
            return self.entries.iter().position(|(other, _)| *other == id);
        }
        let steps = distance(front, id);
        // what comes next is behind all others: that is asked for each message
        if self.entries.back().is_some_and(|&(back, _)| distance(front, back) < steps) {
            return None;
        }
        self.entries.binary_search_by_key(&steps, |(other, _)| distance(front, *other)).ok()
    }

    pub(super) fn contains(&self, id: PacketId) -> bool {
        self.position(id).is_some()
    }

    pub(super) fn get_mut(&mut self, id: PacketId) -> Option<&mut T> {
        let at = self.position(id)?;
        self.entries.get_mut(at).map(|(_, entry)| entry)
    }

    /// Adds an identifier behind all others; `false`, and nothing is done, if it is in use.
    pub(super) fn push(&mut self, id: PacketId, entry: T) -> bool {
        if self.contains(id) {
            return false;
        }
        if let (Some(&(front, _)), Some(&(back, _))) = (self.entries.front(), self.entries.back()) {
            self.ascending &= distance(front, back) < distance(front, id);
        }
        self.entries.push_back((id, entry));
        true
    }

    pub(super) fn remove(&mut self, id: PacketId) -> Option<T> {
        self.remove_if(id, |_| true)
    }

    /// Removes it if it is as `wanted`.
    pub(super) fn remove_if(&mut self, id: PacketId, wanted: impl FnOnce(&T) -> bool) -> Option<T> {
        let at = self.position(id)?;
        if !self.entries.get(at).is_some_and(|(_, entry)| wanted(entry)) {
            return None;
        }
        let (_, entry) = self.entries.remove(at)?;
        if self.entries.is_empty() {
            // Most sessions are idle most of the time: give the memory back.
            *self = Self::new();
        }
        Some(entry)
    }

    /// The first identifier from `start` upwards that is not in use; `None` if all are.
    pub(super) fn free(&self, start: PacketId) -> Option<PacketId> {
        if !self.contains(start) {
            return Some(start);
        }
        // Among the next `len + 1` identifiers at least one is free; a bit for each finds it in one pass.
        let mut used = vec![false; self.entries.len() + 1];
        for (id, _) in &self.entries {
            if let Some(bit) = used.get_mut(usize::from(distance(start, *id))) {
                *bit = true;
            }
        }
        let steps = used.iter().position(|used| !used).and_then(|steps| u16::try_from(steps).ok())?;
        if steps == u16::MAX {
            return None;
        }
        let sum = u32::from(start.get()) + u32::from(steps);
        PacketId::new(u16::try_from(if sum > 0xFFFF { sum - 0xFFFF } else { sum }).ok()?)
    }
}
