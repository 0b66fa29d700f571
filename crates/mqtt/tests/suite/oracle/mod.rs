//! What must hold for whatever input: shared by the property tests and the fuzzers.

pub(crate) mod codec;
pub(crate) mod filter;
pub(crate) mod inflight;
