//! The tests of the crate, through its public face.

mod arbitrary;
mod codec;
mod fixtures;
mod inflight;
mod names;
mod oracle;
mod peek;
mod round_trip;
mod seed_files;
mod seeds;
