//! Filter trie to receivers, shared by the workers and read-mostly.
