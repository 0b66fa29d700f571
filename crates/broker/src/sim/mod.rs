//! The broker's workers in one thread, with time, network and engine in the hand of a test.
//!
//! [`world`] is the broker with its sockets, [`engine`] what it remembers with.

pub(crate) mod engine;
pub(crate) mod world;
