//! Keys of the register.

use std::fmt;

use crate::thin::Thin;

/// A key of the register, or a prefix of keys. Bytes; ordered bytewise. Every key begins with a namespace
/// (`default` today), so that tenants can come without a migration.
///
/// One word; all clones share one allocation of its exact size.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(Thin);

impl Key {
    /// The namespace of all keys until there are tenants.
    pub const NAMESPACE: &'static str = "default";

    /// The longest key in bytes: a namespace, a record kind and a client id or topic of 65,535 bytes with its escapes.
    pub const MAX_LEN: usize = 200_000;

    /// A key of raw bytes, for keys read back from an engine.
    pub fn from_bytes(bytes: impl AsRef<[u8]>) -> Self {
        Self(Thin::new(bytes.as_ref()))
    }

    /// Builds `default/<kind>/<part>/<part>...`. Parts may hold any bytes: `/` and `~` inside a part are escaped (`~1`, `~0`),
    /// so that no client id or topic can reach into another record.
    pub fn of(kind: &str, parts: &[&[u8]]) -> Self {
        let escaped = |part: &[u8]| part.len() + part.iter().filter(|b| matches!(b, b'/' | b'~')).count();
        let below = parts.iter().map(|part| 1 + escaped(part)).sum::<usize>();
        let mut out = Vec::with_capacity(Self::NAMESPACE.len() + 1 + kind.len() + below);
        out.extend_from_slice(Self::NAMESPACE.as_bytes());
        out.push(b'/');
        out.extend_from_slice(kind.as_bytes());
        for part in parts {
            out.push(b'/');
            for &b in *part {
                match b {
                    b'/' => out.extend_from_slice(b"~1"),
                    b'~' => out.extend_from_slice(b"~0"),
                    _ => out.push(b),
                }
            }
        }
        Self(Thin::new(&out))
    }

    /// All keys below this one: the same bytes and a closing `/`.
    #[must_use]
    pub fn below(&self) -> Self {
        Self(Thin::new(&[self.as_bytes(), b"/"].concat()))
    }

    /// The last part, unescaped.
    pub fn last_part(&self) -> Vec<u8> {
        let bytes = self.as_bytes();
        let start = bytes.iter().rposition(|&b| b == b'/').map_or(0, |i| i + 1);
        let mut out = Vec::with_capacity(bytes.len() - start);
        let mut rest = bytes[start..].iter();
        while let Some(&b) = rest.next() {
            out.push(match b {
                b'~' if rest.as_slice().first() == Some(&b'1') => {
                    rest.next();
                    b'/'
                }
                b'~' if rest.as_slice().first() == Some(&b'0') => {
                    rest.next();
                    b'~'
                }
                _ => b,
            });
        }
        out
    }

    /// Whether this key lies under `prefix`.
    pub fn starts_with(&self, prefix: &Self) -> bool {
        self.as_bytes().starts_with(prefix.as_bytes())
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({})", self.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{Just, prop, prop_assert, prop_assert_eq, prop_oneof, proptest};

    use super::Key;

    /// Parts of the bytes that escapes are made of, and others.
    fn parts() -> impl proptest::strategy::Strategy<Value = Vec<Vec<u8>>> {
        let byte = prop_oneof![Just(b'/'), Just(b'~'), Just(b'0'), Just(b'1'), Just(b'a'), Just(0xff)];
        prop::collection::vec(prop::collection::vec(byte, 0..4), 0..4)
    }

    fn key(parts: &[Vec<u8>]) -> Key {
        Key::of("k", &parts.iter().map(Vec::as_slice).collect::<Vec<_>>())
    }

    proptest! {
        #[test]
        fn a_key_lies_below_another_only_if_its_parts_do(a in parts(), b in parts()) {
            prop_assert_eq!(key(&a) == key(&b), a == b);
            prop_assert_eq!(key(&a).starts_with(&key(&b).below()), a.len() > b.len() && a.starts_with(&b));
            if let Some(last) = a.last() {
                prop_assert_eq!(&key(&a).last_part(), last);
            }
            prop_assert!(key(&a).as_bytes().len() <= Key::MAX_LEN);
        }
    }

    #[test]
    fn a_part_cannot_reach_into_another_record() {
        let evil = Key::of("s", &[b"a/sub", b"x"]);
        let good = Key::of("s", &[b"a", b"sub"]);
        assert!(!evil.starts_with(&good.below()));
        assert_eq!(Key::of("s", &[b"a/~1~b"]).last_part(), b"a/~1~b");
    }
}
