//! From a trie node and a level to the child of that name: one table for a whole trie.
//!
//! A map inside each node would cost every node for the few that have many children.

use hashbrown::HashTable;

/// A table with more edges than this is dealt out to [`TABLES`] smaller ones.
const UNDIVIDED: usize = 4_096;
/// A power of two.
const TABLES: usize = 256;

/// Node ids by a hash the caller computes from parent and level.
///
/// A hash table grows by moving everything it holds, and that happens under the trie's write lock. Many small
/// tables keep each such pause to a fraction of a millisecond at a million edges.
pub(super) struct Edges {
    tables: Vec<HashTable<u32>>,
    len: usize,
}

impl Edges {
    pub(super) fn new() -> Self {
        Self { tables: vec![HashTable::new()], len: 0 }
    }

    pub(super) fn find(&self, hash: u64, same: impl FnMut(&u32) -> bool) -> Option<u32> {
        self.tables[self.table(hash)].find(hash, same).copied()
    }

    /// Adds an edge that is not there yet. `rehash` gives the hash of any id in the table.
    pub(super) fn insert(&mut self, hash: u64, id: u32, rehash: impl Fn(&u32) -> u64) {
        if self.len == UNDIVIDED && self.tables.len() == 1 {
            self.divide(&rehash);
        }
        let table = self.table(hash);
        self.tables[table].insert_unique(hash, id, rehash);
        self.len += 1;
    }

    /// Lets the edge to `from` lead to `to`.
    pub(super) fn replace(&mut self, hash: u64, from: u32, to: u32) {
        let table = self.table(hash);
        if let Some(id) = self.tables[table].find_mut(hash, |&id| id == from) {
            *id = to;
        }
    }

    pub(super) fn remove(&mut self, hash: u64, id: u32) {
        let table = self.table(hash);
        if let Ok(entry) = self.tables[table].find_entry(hash, |&other| other == id) {
            entry.remove();
            self.len -= 1;
        }
        if self.len == 0 {
            *self = Self::new();
        }
    }

    fn divide(&mut self, rehash: impl Fn(&u32) -> u64) {
        let all = std::mem::take(&mut self.tables);
        self.tables.resize_with(TABLES, HashTable::new);
        for id in all.into_iter().flatten() {
            let hash = rehash(&id);
            let table = self.table(hash);
            self.tables[table].insert_unique(hash, id, &rehash);
        }
    }

    /// The tables use the lowest and the highest bits of the hash themselves; these are from between.
    fn table(&self, hash: u64) -> usize {
        (hash >> 40) as usize & (self.tables.len() - 1)
    }
}

#[cfg(test)]
impl Edges {
    pub(super) fn iter(&self) -> impl Iterator<Item = u32> {
        self.tables.iter().flatten().copied()
    }

    pub(super) fn bytes(&self) -> usize {
        self.tables.capacity() * size_of::<HashTable<u32>>()
            + self.tables.iter().map(HashTable::allocation_size).sum::<usize>()
    }
}

#[cfg(test)]
mod tests {
    use std::hash::BuildHasher;

    use super::*;

    #[test]
    fn a_growing_table_moves_a_small_part_of_all_edges() {
        const EDGES: u32 = 100_000;
        let hasher = hashbrown::DefaultHashBuilder::default();
        let hash = |id: &u32| hasher.hash_one(id);
        let mut edges = Edges::new();
        for id in 0..EDGES {
            edges.insert(hash(&id), id, hash);
            assert_eq!(edges.tables.len() == 1, edges.len <= UNDIVIDED);
        }
        let largest = edges.tables.iter().map(HashTable::len).max().unwrap();
        assert!(largest < 2 * EDGES as usize / TABLES, "{largest} edges in one table");
        assert!((0..EDGES).all(|id| edges.find(hash(&id), |&other| other == id) == Some(id)));
        for id in 0..EDGES {
            edges.remove(hash(&id), id);
        }
        assert_eq!((edges.len, edges.tables.len()), (0, 1));
    }
}
