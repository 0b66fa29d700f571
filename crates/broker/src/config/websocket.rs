//! The keys of a listener with `transport = "ws"`: their values, defaults and limits.

use net::ws::Rules;
use runtime::config::Table;

/// What a WebSocket listener has beside the keys of every listener.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WebSocketConfig {
    /// `path`, default `/mqtt`; `fail_if_no_subprotocol`, default true; `allowed_origins`, default any;
    /// `max_handshake_size`, default 8 KiB.
    pub rules: Rules,
    /// Bytes of the payload of the largest frame taken. Default: a packet of `max_packet_size` and 64 KiB more, as several
    /// packets may share a frame.
    pub max_frame_size: Option<u64>,
    /// The field in which a proxy of `trusted_proxies` tells the client's address: `X-Forwarded-For`, `Forwarded`, or another
    /// one with an address in it. Default: none.
    pub proxy_address_header: Option<String>,
    /// The field in which it tells the client's port. Default: none.
    pub proxy_port_header: Option<String>,
}

/// Bytes that a frame may have beyond the largest packet.
const FRAME_MARGIN: u64 = 64 * 1024;

impl WebSocketConfig {
    /// Bytes of the payload of the largest frame taken.
    pub(crate) fn max_frame(&self, max_packet_size: u32) -> u64 {
        self.max_frame_size.unwrap_or_else(|| u64::from(max_packet_size) + FRAME_MARGIN)
    }
}

/// Keys that no other listener has.
const KEYS: [&str; 7] = [
    "path",
    "fail_if_no_subprotocol",
    "allowed_origins",
    "max_handshake_size",
    "max_frame_size",
    "proxy_address_header",
    "proxy_port_header",
];

/// Reads `transport` and what belongs to it; nothing for a listener without WebSocket.
pub(crate) fn read(t: &mut Table<'_>) -> Option<WebSocketConfig> {
    let choices = [("tcp", false), ("ws", true)];
    let transport = t.choice_so_far("transport", &choices, &["tls", "wss", "quic"]);
    if transport != Some(true) {
        for key in KEYS {
            // a wrong transport is told already
            if t.has(key) && (transport.is_some() || !t.has("transport")) {
                t.problem(key, "a key of listeners with transport = \"ws\"; leave it out here");
            }
        }
        return None;
    }
    let base = Rules::default();
    let path = t.string("path");
    if path.as_deref().is_some_and(|path| !is_path(path)) {
        t.problem(
            "path",
            "a path such as \"/mqtt\": a slash, then letters, digits and signs of a URL without ? and #",
        );
    }
    let allowed_origins = t.strings("allowed_origins");
    for (index, origin) in allowed_origins.iter().flatten().enumerate() {
        if !is_origin(origin) {
            let allowed =
                "an origin as browsers send it, such as \"https://example.com\" or \"http://localhost:3000\"";
            t.element_problem("allowed_origins", index, allowed);
        }
    }
    let max_head = t.size("max_handshake_size", 512..=64 * 1024).and_then(|size| usize::try_from(size).ok());
    let proxy_address_header = field_name(t, "proxy_address_header");
    let proxy_port_header = field_name(t, "proxy_port_header");
    if proxy_port_header.is_some() && !t.has("proxy_address_header") {
        t.problem("proxy_port_header", "nothing without proxy_address_header");
    }
    Some(WebSocketConfig {
        rules: Rules {
            path: path.unwrap_or(base.path),
            fail_if_no_subprotocol: t.bool("fail_if_no_subprotocol").unwrap_or(base.fail_if_no_subprotocol),
            allowed_origins: allowed_origins.unwrap_or_default(),
            max_head: max_head.unwrap_or(base.max_head),
        },
        max_frame_size: t.size("max_frame_size", 1024..=1 << 30),
        proxy_address_header,
        proxy_port_header,
    })
}

/// Whether it can stand in a request line and be compared byte by byte.
fn is_path(path: &str) -> bool {
    path.starts_with('/')
        && path.bytes().all(|byte| byte.is_ascii_graphic() && !b"?#\"<>\\^`{|}".contains(&byte))
}

/// A scheme and a host, no path.
fn is_origin(origin: &str) -> bool {
    let parts = origin.split_once("://");
    parts.is_some_and(|(scheme, host)| {
        scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
            && !scheme.is_empty()
            && !host.is_empty()
            && host.bytes().all(|byte| byte.is_ascii_graphic() && !b"/?#@".contains(&byte))
    })
}

/// The name of a field of HTTP (RFC 9110, 5.1).
fn field_name(t: &mut Table<'_>, key: &str) -> Option<String> {
    let name = t.string(key)?;
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if name.is_empty() || !name.bytes().all(token) {
        t.problem(key, "the name of a field of HTTP, such as \"X-Forwarded-For\"");
    }
    Some(name)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use runtime::config::Document;

    use super::*;
    use crate::config;

    fn read(listener: &str) -> Result<config::ListenerConfig, Vec<String>> {
        let text = format!("[broker]\n[[broker.listeners]]\nbind = \"127.0.0.1:8083\"\n{listener}\n");
        let document = Document::parse(Path::new("t.toml"), &text).unwrap();
        let broker = document.read(|root| root.table("broker", config::read));
        broker
            .map(|broker| broker.unwrap().listeners.remove(0))
            .map_err(|problems| problems.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn a_websocket_listener_needs_nothing_but_its_transport() {
        let listener = read("transport = \"ws\"").unwrap();
        let websocket = listener.websocket.clone().unwrap();
        assert_eq!(*websocket, WebSocketConfig::default());
        assert_eq!((websocket.rules.path.as_str(), websocket.rules.fail_if_no_subprotocol), ("/mqtt", true));
        assert_eq!(websocket.max_frame(1 << 20), (1 << 20) + 65_536);
        assert_eq!(listener.scheme(), "ws");
        for text in ["", "transport = \"tcp\""] {
            assert_eq!(read(text).unwrap().websocket, None);
        }
    }

    #[test]
    fn every_key_has_its_effect() {
        let listener = read(
            "transport = \"ws\"\npath = \"/\"\nfail_if_no_subprotocol = false\nallowed_origins = [\"https://a.example:444\"]\n\
             max_handshake_size = \"512B\"\nmax_frame_size = \"1KiB\"\nproxy_address_header = \"X-Real-IP\"\nproxy_port_header = \"X-Port\"",
        );
        let websocket = *listener.unwrap().websocket.unwrap();
        let expected = WebSocketConfig {
            rules: Rules {
                path: "/".to_owned(),
                fail_if_no_subprotocol: false,
                allowed_origins: vec!["https://a.example:444".to_owned()],
                max_head: 512,
            },
            max_frame_size: Some(1024),
            proxy_address_header: Some("X-Real-IP".to_owned()),
            proxy_port_header: Some("X-Port".to_owned()),
        };
        assert_eq!(websocket, expected);
    }

    #[test]
    fn wrong_values_are_told() {
        let bad = "transport = \"ws\"\npath = \"mqtt\"\nallowed_origins = [\"https://a\", \"a.example\", \"https://a/\"]\n\
                   max_handshake_size = \"1MiB\"\nmax_frame_size = \"0B\"\nproxy_address_header = \"X For\"\nproxy_port_header = 5";
        let keys = [
            "path: ",
            "allowed_origins[1]: ",
            "allowed_origins[2]: ",
            "max_handshake_size: ",
            "max_frame_size: ",
            "proxy_address_header: ",
            "proxy_port_header: ",
        ];
        let problems = read(bad).unwrap_err();
        assert_eq!(problems.len(), keys.len(), "{problems:#?}");
        for (problem, key) in problems.iter().zip(keys) {
            assert!(problem.contains(&format!("broker.listeners[0].{key}")), "{problem}");
        }
        let port = read("transport = \"ws\"\nproxy_port_header = \"X-Port\"").unwrap_err();
        assert!(port[0].ends_with("nothing without proxy_address_header"), "{port:?}");
        for path in ["/a?b", "/a b", "/ü", ""] {
            assert!(read(&format!("transport = \"ws\"\npath = \"{path}\"")).is_err(), "{path}");
        }
    }

    #[test]
    fn keys_of_websocket_are_errors_elsewhere() {
        for transport in ["", "transport = \"tcp\"\n"] {
            let values = KEYS.map(|key| format!("{key} = 1\n")).concat();
            let problems = read(&format!("{transport}{values}")).unwrap_err();
            assert_eq!(problems.len(), KEYS.len(), "{problems:#?}");
            assert!(problems.iter().all(|problem| problem.contains("listeners with transport = \"ws\"")));
        }
        // one problem, not two: who misspells the transport may well have the right keys
        let problems = read("transport = \"wss\"\npath = \"/mqtt\"").unwrap_err();
        assert_eq!(problems.len(), 1, "{problems:#?}");
        assert!(problems[0].contains("not in this version; allowed: \"tcp\", \"ws\""), "{problems:?}");
        let problems = read("transport = \"websocket\"").unwrap_err();
        assert!(problems[0].contains("one of \"tcp\", \"ws\""), "{problems:?}");
    }
}
