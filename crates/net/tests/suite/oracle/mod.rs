//! What must hold for whatever input: shared by the property tests and the fuzzers.

pub(crate) mod forwarded;
pub(crate) mod proxy_protocol;
pub(crate) mod websocket;
