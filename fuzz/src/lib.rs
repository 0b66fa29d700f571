//! One function for each fuzz target: turns the fuzzer's bytes into input and hands it to the oracle, which panics if
//! something does not hold. The oracles are those of the property tests of the crates; what only the whole program has is
//! in the modules beside.

#[path = "../../crates/mqtt/tests/suite/oracle/mod.rs"]
mod mqtt_oracle;
#[path = "../../crates/net/tests/suite/oracle/mod.rs"]
mod net_oracle;

mod admin_http;
mod files;

// the fakes of the admin crate's tests name it so
use admin::Roles;
use mqtt::Version;
use mqtt::codec::decode::Role;

/// `bytes` as they come off a connection, of every version and from both sides.
pub fn decode(bytes: &[u8]) {
    for version in [Version::V31, Version::V311, Version::V5] {
        for sender in [Role::Client, Role::Server] {
            mqtt_oracle::codec::check(bytes, version, sender);
        }
    }
}

/// `bytes` as they come off a new connection.
pub fn peek_connect(bytes: &[u8]) {
    mqtt_oracle::codec::check_peek(bytes);
}

/// Two bytes of Receive Maximum, then three bytes for each operation.
pub fn inflight_ops(bytes: &[u8]) {
    if let Some((&limit, ops)) = bytes.split_first_chunk() {
        mqtt_oracle::inflight::check(&mqtt_oracle::inflight::parse(ops), u16::from_be_bytes(limit));
    }
}

/// A topic filter, a line feed, a topic name.
pub fn filter_match(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let (filter, name) = text.split_once('\n').unwrap_or((&text, ""));
    mqtt_oracle::filter::check(filter, name);
}

/// `bytes` as they come off a WebSocket that is open, from both sides.
pub fn ws_frames(bytes: &[u8]) {
    net_oracle::websocket::check_frames(bytes);
}

/// `bytes` as a WebSocket request and as the answer to one.
pub fn ws_handshake(bytes: &[u8]) {
    net_oracle::websocket::check_handshake(bytes);
}

/// The name of a field, a line feed, its value.
pub fn forwarded(bytes: &[u8]) {
    net_oracle::forwarded::check(bytes);
}

/// `bytes` as they come off a connection of a proxy.
pub fn proxy_protocol(bytes: &[u8]) {
    net_oracle::proxy_protocol::check(bytes);
}

/// A configuration file.
pub fn config(bytes: &[u8]) {
    files::check_config(&String::from_utf8_lossy(bytes));
}

/// A password file.
pub fn password_file(bytes: &[u8]) {
    files::check_users(&String::from_utf8_lossy(bytes));
}

/// Client id, user name, topic and filter, a line each; then a rules file.
pub fn rules_file(bytes: &[u8]) {
    files::check_rules(&String::from_utf8_lossy(bytes));
}

/// A configuration of nginx or of HAProxy.
pub fn import(bytes: &[u8]) {
    files::check_import(&String::from_utf8_lossy(bytes));
}

/// `bytes` as they come off a connection to the API.
pub fn http(bytes: &[u8]) {
    admin_http::check(bytes);
}
