//! The broker's workers in one thread, with time, network and engine in the hand of a test.
//!
//! [`world`] is the broker with its sockets, [`engine`] what it remembers with, [`client`] a client that keeps the
//! specification, [`book`] what must be true of all of them, and `chaos` the runs from random seeds.

mod book;
mod chaos;
mod client;
pub(crate) mod engine;
mod shared_book;
pub(crate) mod world;
