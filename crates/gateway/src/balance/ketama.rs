//! The consistent hash of nginx (`hash KEY consistent` in `stream` and `http`; Angie and Tengine have the same),
//! point by point, so that a cut-over from nginx moves no device.
//!
//! Every server has 160 points per weight on a circle of 32-bit numbers. The points of a server are a chain:
//!
//! ```text
//! base    = crc32 state after  host ++ "\0" ++ port        of "host:port" as written
//! point 1 = crc32(base ++ 00 00 00 00)
//! point n = crc32(base ++ point n-1, little-endian)
//! ```
//!
//! A key goes to the first point at or after `crc32(key)`, after the last one to the first. What is not usable is
//! skipped by walking on. Without a `:port` of digits at its end the whole name is the host and the port is empty;
//! after `unix:` the path is the host. Proved against the real nginx in `tests/suite/nginx.rs`.

/// Points of a server of weight 1.
pub const POINTS_PER_WEIGHT: u32 = 160;

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Ketama {
    /// By ascending hash; no hash twice.
    points: Vec<Point>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Point {
    hash: u32,
    server: u32,
}

impl Ketama {
    pub(super) fn new<'a>(servers: impl Iterator<Item = (&'a str, u32)>) -> Self {
        let mut points = Vec::new();
        for (server, (name, weight)) in (0..u32::MAX).zip(servers) {
            let base = base(name.as_bytes());
            let mut hash = 0_u32;
            for _ in 0..weight.saturating_mul(POINTS_PER_WEIGHT) {
                let mut state = base.clone();
                state.update(&hash.to_le_bytes());
                hash = state.finalize();
                points.push(Point { hash, server });
            }
        }
        points.sort_by_key(|point| point.hash); // stable: of equal points the first server's stays
        points.dedup_by_key(|point| point.hash);
        points.shrink_to_fit();
        Self { points }
    }

    pub(super) fn choose(&self, key: &[u8], usable: impl Fn(usize) -> bool) -> Option<usize> {
        let hash = crc32fast::hash(key);
        let start = self.points.partition_point(|point| point.hash < hash);
        let (before, after) = self.points.split_at(start);
        // A walk over many points asks about the same few servers again and again; a run of the same server,
        // which is the common case of a walk, is asked about once.
        let mut refused = None;
        after.iter().chain(before).find_map(|point| {
            let server = point.server;
            if refused == Some(server) {
                return None;
            }
            let index = usize::try_from(server).ok()?;
            if usable(index) {
                return Some(index);
            }
            refused = Some(server);
            None
        })
    }
}

fn base(name: &[u8]) -> crc32fast::Hasher {
    let (host, port) = split(name);
    let mut state = crc32fast::Hasher::new();
    state.update(host);
    state.update(&[0]);
    state.update(port);
    state
}

fn split(name: &[u8]) -> (&[u8], &[u8]) {
    if let Some((scheme, path)) = name.split_at_checked(5)
        && scheme.eq_ignore_ascii_case(b"unix:")
    {
        return (path, b"");
    }
    let digits = name.iter().rev().take_while(|byte| byte.is_ascii_digit()).count();
    let (front, port) = name.split_at(name.len() - digits);
    match front.split_last() {
        Some((b':', host)) => (host, port),
        _ => (name, b""),
    }
}

#[cfg(test)]
mod tests {
    use super::split;

    #[test]
    fn a_name_is_split_as_nginx_splits_it() {
        let case = |name: &'static str| {
            let (host, port) = split(name.as_bytes());
            (std::str::from_utf8(host).unwrap(), std::str::from_utf8(port).unwrap())
        };
        assert_eq!(case("10.0.0.1:1883"), ("10.0.0.1", "1883"));
        assert_eq!(case("broker.example:1883"), ("broker.example", "1883"));
        assert_eq!(case("[::1]:1883"), ("[::1]", "1883"));
        assert_eq!(case("emqx1"), ("emqx1", ""));
        assert_eq!(case("emqx:"), ("emqx", ""));
        assert_eq!(case("UNIX:/run/mqtt.sock"), ("/run/mqtt.sock", ""));
        assert_eq!(case("1883"), ("1883", ""));
        assert_eq!(case(""), ("", ""));
    }
}
