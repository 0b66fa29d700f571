//! From a trie node and a level to the child of that name: one table for a whole trie.
//!
//! A map inside each node would cost every node for the few that have many children.

/// A table with more edges than this is dealt out to [`TABLES`] smaller ones.
const UNDIVIDED: usize = 4_096;
/// A power of two.
const TABLES: usize = 256;

/// Node ids by a hash the caller computes from parent and level.
///
/// A hash table grows by moving everything it holds, and that happens under the trie's write lock. Many small
/// tables keep each such pause to a fraction of a millisecond at a million edges.
pub(super) struct Edges {
    tables: Vec<Table>,
    len: usize,
}

/// Half of an edge's hash, and where it leads; id 0 is nowhere: the place is empty.
///
/// Hash and id lie side by side, so that an edge among millions is one place of memory that is in no cache: the ids of a table
/// with its hashes elsewhere are two.
#[derive(Clone, Copy, Default)]
struct Edge {
    hash: u32,
    id: u32,
}

/// Open addressing: an edge lies at the place its hash names, or behind it, with no empty place in between.
#[derive(Default)]
struct Table {
    places: Box<[Edge]>,
    len: usize,
}

impl Edges {
    pub(super) fn new() -> Self {
        Self { tables: vec![Table::default()], len: 0 }
    }

    pub(super) fn find(&self, hash: u64, mut same: impl FnMut(u32) -> bool) -> Option<u32> {
        let table = &self.tables[self.table(hash)];
        let (hash, mut at) = (hash as u32, table.home(hash as u32));
        loop {
            let edge = table.places.get(at)?;
            if edge.id == 0 {
                return None;
            }
            if edge.hash == hash && same(edge.id) {
                return Some(edge.id);
            }
            at = table.after(at);
        }
    }

    /// Adds an edge that is not there yet.
    pub(super) fn insert(&mut self, hash: u64, id: u32, rehash: impl Fn(u32) -> u64) {
        if self.len == UNDIVIDED && self.tables.len() == 1 {
            self.divide(rehash);
        }
        let table = self.table(hash);
        self.tables[table].insert(Edge { hash: hash as u32, id });
        self.len += 1;
    }

    /// Lets the edge to `from` lead to `to`.
    pub(super) fn replace(&mut self, hash: u64, from: u32, to: u32) {
        let table = self.table(hash);
        let table = &mut self.tables[table];
        if let Some(at) = table.position(hash as u32, from) {
            table.places[at].id = to;
        }
    }

    pub(super) fn remove(&mut self, hash: u64, id: u32) {
        let table = self.table(hash);
        if self.tables[table].remove(hash as u32, id) {
            self.len -= 1;
        }
        if self.len == 0 {
            *self = Self::new();
        }
    }

    /// `rehash` gives the whole hash of the edge to a node.
    fn divide(&mut self, rehash: impl Fn(u32) -> u64) {
        let all = std::mem::take(&mut self.tables);
        self.tables.resize_with(TABLES, Table::default);
        for edge in all.iter().flat_map(|table| &table.places).filter(|edge| edge.id != 0) {
            let table = self.table(rehash(edge.id));
            self.tables[table].insert(*edge);
        }
    }

    /// A table looks at the lower half of the hash itself; these bits are from the upper one.
    fn table(&self, hash: u64) -> usize {
        (hash >> 40) as usize & (self.tables.len() - 1)
    }
}

impl Table {
    /// Places for a first edge; half as many again whenever four in five are taken.
    const LEAST: usize = 5;

    /// Where an edge of this hash lies if nothing is in its way: the hash as a fraction of all there are.
    fn home(&self, hash: u32) -> usize {
        ((u64::from(hash) * self.places.len() as u64) >> u32::BITS) as usize
    }

    fn after(&self, at: usize) -> usize {
        if at + 1 == self.places.len() { 0 } else { at + 1 }
    }

    /// There is always an empty place, at which every search ends.
    fn insert(&mut self, edge: Edge) {
        if (self.len + 1) * 5 > self.places.len() * 4 {
            let grown = (self.places.len() + self.places.len() / 2).max(Self::LEAST);
            let before = std::mem::replace(&mut self.places, vec![Edge::default(); grown].into());
            for edge in before.into_iter().filter(|edge| edge.id != 0) {
                self.place(edge);
            }
        }
        self.place(edge);
        self.len += 1;
    }

    fn place(&mut self, edge: Edge) {
        let mut at = self.home(edge.hash);
        while self.places[at].id != 0 {
            at = self.after(at);
        }
        self.places[at] = edge;
    }

    fn position(&self, hash: u32, id: u32) -> Option<usize> {
        let mut at = self.home(hash);
        loop {
            match self.places.get(at)?.id {
                0 => return None,
                found if found == id => return Some(at),
                _ => at = self.after(at),
            }
        }
    }

    /// True when it was there. Those behind it that it kept from their place move up.
    fn remove(&mut self, hash: u32, id: u32) -> bool {
        let Some(mut hole) = self.position(hash, id) else { return false };
        let len = self.places.len();
        let distance = |from: usize, to: usize| if to >= from { to - from } else { to + len - from };
        let mut at = self.after(hole);
        while self.places[at].id != 0 {
            let home = self.home(self.places[at].hash);
            if distance(home, at) >= distance(hole, at) {
                self.places[hole] = self.places[at];
                hole = at;
            }
            at = self.after(at);
        }
        self.places[hole] = Edge::default();
        self.len -= 1;
        if self.len == 0 {
            *self = Self::default();
        }
        true
    }
}

#[cfg(test)]
impl Edges {
    pub(super) fn iter(&self) -> impl Iterator<Item = u32> {
        self.tables.iter().flat_map(|table| &table.places).map(|edge| edge.id).filter(|&id| id != 0)
    }

    pub(super) fn bytes(&self) -> usize {
        self.tables.capacity() * size_of::<Table>()
            + self.tables.iter().map(|table| table.places.len() * size_of::<Edge>()).sum::<usize>()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::hash::BuildHasher;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_growing_table_moves_a_small_part_of_all_edges() {
        const EDGES: u32 = 100_000;
        let hasher = hashbrown::DefaultHashBuilder::default();
        let hash = |id: u32| hasher.hash_one(id);
        let mut edges = Edges::new();
        for id in 1..=EDGES {
            edges.insert(hash(id), id, hash);
            assert_eq!(edges.tables.len() == 1, edges.len <= UNDIVIDED);
        }
        let largest = edges.tables.iter().map(|table| table.len).max().unwrap();
        assert!(largest < 2 * EDGES as usize / TABLES, "{largest} edges in one table");
        assert!((1..=EDGES).all(|id| edges.find(hash(id), |other| other == id) == Some(id)));
        assert!(edges.bytes() < 16 * EDGES as usize, "{} bytes", edges.bytes());
        for id in 1..=EDGES {
            edges.remove(hash(id), id);
        }
        assert_eq!((edges.len, edges.tables.len()), (0, 1));
    }

    proptest! {
        /// Hashes that collide, at the first place and at the last, so that edges lie behind their place and around the end.
        #[test]
        fn it_is_a_map(
            ops in proptest::collection::vec(
                (prop_oneof![Just(0_u32), Just(1), Just(u32::MAX), Just(u32::MAX - 1), any::<u32>()], 1..40_u32, 0..4_u8),
                0..300,
            ),
        ) {
            let (mut edges, mut oracle) = (Edges::new(), HashMap::new());
            for (hash, id, op) in ops {
                let known = oracle.get(&id).copied();
                match (op, known) {
                    (0, Some(hash)) => {
                        edges.remove(hash, id);
                        oracle.remove(&id);
                    }
                    (1, Some(hash)) if !oracle.contains_key(&(id + 100)) => {
                        edges.replace(hash, id, id + 100);
                        oracle.remove(&id);
                        oracle.insert(id + 100, hash);
                    }
                    (_, None) => {
                        let hash = u64::from(hash);
                        edges.insert(hash, id, |_| hash);
                        oracle.insert(id, hash);
                    }
                    _ => {}
                }
                for (&id, &hash) in &oracle {
                    prop_assert_eq!(edges.find(hash, |other| other == id), Some(id));
                }
                let mut ids: Vec<_> = edges.iter().collect();
                let mut expected: Vec<_> = oracle.keys().copied().collect();
                ids.sort_unstable();
                expected.sort_unstable();
                prop_assert_eq!(ids, expected);
                prop_assert_eq!(edges.find(u64::from(hash), |_| false), None);
            }
        }
    }
}
