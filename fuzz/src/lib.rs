//! One function for each fuzz target: turns the fuzzer's bytes into input and hands it to the oracle, which panics if
//! something does not hold. The oracles are those of the property tests of the `mqtt` crate.

#[path = "../../crates/mqtt/tests/suite/oracle/mod.rs"]
mod oracle;

use mqtt::Version;
use mqtt::codec::decode::Role;

/// `bytes` as they come off a connection, of every version and from both sides.
pub fn decode(bytes: &[u8]) {
    for version in [Version::V31, Version::V311, Version::V5] {
        for sender in [Role::Client, Role::Server] {
            oracle::codec::check(bytes, version, sender);
        }
    }
}

/// `bytes` as they come off a new connection.
pub fn peek_connect(bytes: &[u8]) {
    oracle::codec::check_peek(bytes);
}

/// Two bytes of Receive Maximum, then three bytes for each operation.
pub fn inflight_ops(bytes: &[u8]) {
    if let Some((&limit, ops)) = bytes.split_first_chunk() {
        oracle::inflight::check(&oracle::inflight::parse(ops), u16::from_be_bytes(limit));
    }
}

/// A topic filter, a line feed, a topic name.
pub fn filter_match(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let (filter, name) = text.split_once('\n').unwrap_or((&text, ""));
    oracle::filter::check(filter, name);
}
