//! Numbered places for the trie's parts: 4-byte ids instead of 8-byte pointers, and growth without copying.

use std::ops::{Index, IndexMut};

/// Places in a chunk, as a power of two.
const CHUNK_BITS: u32 = 10;
const CHUNK: usize = 1 << CHUNK_BITS;

/// A growing set of values named by `u32`. Id 0 is always there and never given out, so 0 can mean "none".
///
/// Only the first chunk grows by doubling; later ones are allocated whole. A million values therefore never
/// move, and no more than one chunk is unused. Places of removed values are used again; all memory is
/// given back when the last value goes.
pub(super) struct Arena<T> {
    chunks: Vec<Vec<T>>,
    free: Vec<u32>,
    /// Places ever used, including place 0.
    used: u32,
}

impl<T: Default> Arena<T> {
    pub(super) fn new() -> Self {
        Self { chunks: vec![vec![T::default()]], free: Vec::new(), used: 1 }
    }

    /// Values present, without place 0.
    pub(super) fn len(&self) -> usize {
        self.used as usize - 1 - self.free.len()
    }

    pub(super) fn insert(&mut self, value: T) -> u32 {
        if let Some(id) = self.free.pop() {
            self[id] = value;
            return id;
        }
        let id = self.used;
        match self.chunks.last_mut() {
            Some(chunk) if chunk.len() < CHUNK => chunk.push(value),
            _ => {
                let mut chunk = Vec::with_capacity(CHUNK);
                chunk.push(value);
                self.chunks.push(chunk);
            }
        }
        self.used += 1;
        id
    }

    /// Takes the value out; the id may be given out again.
    pub(super) fn remove(&mut self, id: u32) -> T {
        let value = std::mem::take(&mut self[id]);
        self.free.push(id);
        if self.len() == 0 {
            let root = std::mem::take(&mut self[0]);
            *self = Self { chunks: vec![vec![root]], free: Vec::new(), used: 1 };
        }
        value
    }
}

// Ids are made by `insert` only and dropped together with their place, so the bounds hold by construction.
impl<T> Index<u32> for Arena<T> {
    type Output = T;
    fn index(&self, id: u32) -> &T {
        &self.chunks[(id >> CHUNK_BITS) as usize][id as usize & (CHUNK - 1)]
    }
}

impl<T> IndexMut<u32> for Arena<T> {
    fn index_mut(&mut self, id: u32) -> &mut T {
        &mut self.chunks[(id >> CHUNK_BITS) as usize][id as usize & (CHUNK - 1)]
    }
}

#[cfg(test)]
impl<T> Arena<T> {
    /// Places ever used, including place 0 and free ones.
    pub(super) fn used(&self) -> u32 {
        self.used
    }

    pub(super) fn bytes(&self) -> usize {
        let places: usize = self.chunks.iter().map(Vec::capacity).sum();
        places * size_of::<T>()
            + self.chunks.capacity() * size_of::<Vec<T>>()
            + self.free.capacity() * size_of::<u32>()
    }
}
