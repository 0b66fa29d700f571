//! What only the REST surface knows: where its routes are, and the few bodies that no trait speaks of.
//!
//! The server and the client build and read paths with the same words, so that an odd client id (`a/b`, `100%`,
//! `räum`, the empty one) means the same on both sides. Must not know: HTTP libraries.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::gateway::Connection;

/// Where the API lives.
pub const PREFIX: &str = "/api/v1";

/// The most rows a page can have.
pub const MAX_LIMIT: usize = 10_000;

/// The rows of a page where the query says nothing.
pub const DEFAULT_LIMIT: usize = 100;

/// The most connections that [`ConnectionDetail::others`] lists.
pub const MAX_OTHERS: usize = 100;

/// All but the unreserved characters of RFC 3986 2.3: right in a path segment and in a query.
const RESERVED: AsciiSet = NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// `text` as one path segment or one query value.
#[must_use]
pub fn encode(text: &str) -> String {
    utf8_percent_encode(text, &RESERVED).to_string()
}

/// Whether `text` can stand as a path segment of its own. An empty segment is no segment, and `.` and `..` are
/// steps (RFC 3986 5.2.4) that clients and proxies resolve even when they are percent-encoded: such names go into
/// the query.
#[must_use]
pub fn fits_path(text: &str) -> bool {
    !matches!(text, "" | "." | "..")
}

/// The newest connection of a client id, and the others that it has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ConnectionDetail {
    /// The newest one.
    #[serde(flatten)]
    pub newest: Connection,
    /// Older ones under the same client id, newest first, at most 100; absent where there are none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub others: Vec<Connection>,
}

/// Where a device is to be kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PinTarget {
    /// The server's name, or its address as written.
    pub server: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reserved_byte_is_encoded_and_every_unreserved_one_is_not() {
        assert_eq!(encode("aZ09-._~"), "aZ09-._~");
        assert_eq!(encode("a/b?c#d%e+f&g=h i"), "a%2Fb%3Fc%23d%25e%2Bf%26g%3Dh%20i");
        assert_eq!(encode("räum\u{0}"), "r%C3%A4um%00");
    }

    #[test]
    fn names_that_a_path_would_swallow_do_not_fit_it() {
        for name in ["", ".", ".."] {
            assert!(!fits_path(name), "{name:?}");
        }
        for name in ["...", "a", "a/..", " "] {
            assert!(fits_path(name), "{name:?}");
        }
    }
}
