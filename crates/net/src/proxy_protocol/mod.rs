//! The header with which a proxy in front says whose connection it is: the PROXY protocol, versions 1 and 2.
//!
//! Sans-io and strict: a header is right in every byte or the connection is refused, because a reader that guesses
//! can be led to believe another address. Source: "The PROXY protocol, versions 1 & 2" of HAProxy
//! (`doc/proxy-protocol.txt`); sections are named where a rule is theirs.
//!
//! Only a trusted proxy may send one ([`TrustedProxies`]): everybody else could claim any address.

use std::net::{IpAddr, SocketAddr};

use runtime::config::IpNet;

mod crc32c;
mod encode;
mod stream;
mod v1;
mod v2;

pub use encode::{encode_v1, encode_v1_unknown, encode_v2, encode_v2_local};
pub use stream::{ReadError, read_header, read_header_with};

/// The longest version 1 line with its end, section 2.1.
pub const V1_MAX: usize = 107;
/// The longest version 2 header that is read. The format allows 65,551 bytes; real ones with certificates' names
/// stay under 1 KiB.
pub const V2_MAX: usize = 4096;
/// The longest unique id, section 2.2.5.
pub const UNIQUE_ID_MAX: usize = 128;

/// The type of the checksum's TLV, section 2.2.3.
pub const TLV_CRC32C: u8 = 0x03;
/// The type of padding, section 2.2.4.
pub const TLV_NOOP: u8 = 0x04;
/// The type of the unique id, section 2.2.5.
pub const TLV_UNIQUE_ID: u8 = 0x05;

/// What the first bytes of a connection are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// The beginning of a header: ask again when there are at least so many bytes in all.
    Incomplete(usize),
    /// No PROXY header, whatever follows. An MQTT packet is always told apart by its first byte.
    NotProxy,
    /// A header, and how many bytes it took; what follows is the client's.
    Header(Header, usize),
}

/// What the header says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// Which of the two forms it had.
    pub version: Version,
    /// Whether the connection is the proxy's own or relayed.
    pub command: Command,
    /// The client's address. Nothing for the proxy's own connections and for families other than IP: then the
    /// connection's true address counts.
    pub source: Option<SocketAddr>,
    /// The address that the client connected to; there when `source` is.
    pub destination: Option<SocketAddr>,
    /// An id that the proxy gave the connection, at most 128 bytes.
    pub unique_id: Option<Vec<u8>>,
    /// The other TLVs in their order. The checksum was verified and is not among them, nor is padding.
    pub tlvs: Vec<Tlv>,
}

/// The two forms of the header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// One line of text.
    V1,
    /// Binary.
    V2,
}

/// Whose connection it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// The proxy's own, such as a health check.
    Local,
    /// Relayed for a client.
    Proxy,
}

/// A type-length-value field of version 2.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tlv {
    /// The type, section 2.2: `0x01` ALPN, `0x02` authority (SNI), `0x20` TLS, `0xE0` to `0xEF` custom ...
    pub kind: u8,
    /// The value as it stands.
    pub value: Vec<u8>,
}

/// Why a header is refused. Each ends the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProxyError {
    /// Version 1: more than 107 bytes without the end of the line.
    #[error("a version 1 line of more than {V1_MAX} bytes")]
    LineTooLong,
    /// Version 1: the line breaks the grammar of section 2.1.
    #[error("a malformed version 1 line: {0}")]
    Line(&'static str),
    /// Version 2: longer than [`V2_MAX`].
    #[error("a version 2 header of {0} bytes, more than {V2_MAX}")]
    TooLong(usize),
    /// Version 2: a version other than 2 after the version 2 signature.
    #[error("version {0} after the signature of version 2")]
    Version(u8),
    /// Version 2: neither LOCAL nor PROXY.
    #[error("unknown command {0}")]
    Command(u8),
    /// Version 2: a pair of family and transport that is not defined.
    #[error("unknown family and transport {0:#04x}")]
    Family(u8),
    /// Version 2: less bytes than the family's addresses have.
    #[error("{0} bytes are too few for the addresses")]
    Addresses(usize),
    /// Version 2: a TLV that is cut off, doubled, or of a wrong length.
    #[error("a malformed TLV of type {0:#04x}")]
    Tlv(u8),
    /// Version 2: the checksum is not that of the header.
    #[error("the checksum is wrong")]
    Checksum,
}

/// Reads the first bytes of a connection.
///
/// # Errors
/// When the bytes begin as a PROXY header but are none. No input makes it panic, and none makes it ask for more than
/// [`V2_MAX`] bytes.
pub fn parse(input: &[u8]) -> Result<Parsed, ProxyError> {
    match input.first() {
        None => Ok(Parsed::Incomplete(1)),
        Some(b'P') => v1::parse(input),
        Some(b'\r') => v2::parse(input),
        Some(_) => Ok(Parsed::NotProxy),
    }
}

/// Whether `input` differs from the signature where both have bytes.
fn differs(input: &[u8], signature: &[u8]) -> bool {
    input.iter().zip(signature).any(|(a, b)| a != b)
}

/// Who may send a PROXY header. The default is this machine and the private networks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrustedProxies(Vec<IpNet>);

impl TrustedProxies {
    /// Those networks only.
    pub fn new(networks: Vec<IpNet>) -> Self {
        Self(networks)
    }

    /// Whether a header from this address counts.
    pub fn allows(&self, ip: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(ip))
    }
}

impl Default for TrustedProxies {
    fn default() -> Self {
        Self(IpNet::private_and_loopback())
    }
}

#[cfg(test)]
mod tests;
