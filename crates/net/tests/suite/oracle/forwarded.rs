//! What proxies say of the client's address.

use std::net::SocketAddr;

use net::forwarded::{MAX_HOPS, client_address};
use net::proxy_protocol::TrustedProxies;

/// `bytes` are the field's name, a line feed, its value.
pub(crate) fn check(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let (name, value) = text.split_once('\n').unwrap_or(("X-Forwarded-For", &text));
    let trusted = TrustedProxies::default();
    let proxy = SocketAddr::from(([10, 0, 0, 1], 4711));
    let stranger = SocketAddr::from(([203, 0, 113, 9], 4711));
    // a stranger is who it is, whatever it says
    assert_eq!(client_address(name, value, stranger, &trusted), Ok(stranger));
    let Ok(client) = client_address(name, value, proxy, &trusted) else { return };
    let hops = value.split(',').count();
    assert_ne!(client, proxy, "the value has an element, and it says whose it is");
    if !trusted.allows(client.ip()) {
        // whatever the client itself wrote before does not matter
        for forged in ["192.0.2.66", "10.9.9.9", "", "for=192.0.2.66", "\"", "["] {
            let longer = format!("{forged},{value}");
            assert_eq!(client_address(name, &longer, proxy, &trusted), Ok(client));
        }
    } else {
        // all of them are proxies
        assert!(hops <= MAX_HOPS);
    }
    // an address survives being written down again
    let written = client.to_string();
    if client.port() != 0 && !trusted.allows(client.ip()) {
        assert_eq!(client_address("X-Forwarded-For", &written, proxy, &trusted), Ok(client));
    }
}
