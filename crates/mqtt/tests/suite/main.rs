//! The tests of the crate, through its public face.

mod codec;
mod fixtures;
