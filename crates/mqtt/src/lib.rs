//! MQTT 3.1, 3.1.1 and 5.0 as pure values and state machines.
//!
//! Bytes and `now` go in; packets, events, bytes and deadlines come out. This crate must not know
//! sockets, tasks, clocks, threads or configuration: everything here can be tested a year in a second.
//!
//! * [`packet`]: one struct for each control packet, all three versions in one type.
//! * [`codec`]: bytes to packets ([`codec::decode`]) and back ([`codec::encode`]).
//! * [`topic`], [`filter`]: names, filters, matching.
//! * [`inflight`]: the sender's and the receiver's half of QoS 1 and 2.
//! * [`reason`], [`property`]: the numbers of the specification, by name.
//!
//! ```
//! use mqtt::codec::Decoded;
//! use mqtt::codec::decode::{Role, decode};
//! use mqtt::codec::encode::encode;
//! use mqtt::packet::Packet;
//! use mqtt::{ReasonCode, Version};
//!
//! let wire = b"\x30\x0a\x00\x03a/bhello";
//! let Ok(Decoded::Packet(packet, 12)) = decode(wire, Version::V311, Role::Client, 1024) else {
//!     panic!("a packet of twelve bytes");
//! };
//! assert!(matches!(&packet, Packet::Publish(publish) if publish.topic == "a/b"));
//!
//! let mut out = Vec::new();
//! encode(&packet, Version::V311, &mut out)?;
//! assert_eq!(out, wire);
//!
//! // Not all here yet; too large, as soon as the header says so; not allowed.
//! assert_eq!(decode(&wire[..5], Version::V311, Role::Client, 1024), Ok(Decoded::Incomplete(12)));
//! let error = decode(&wire[..5], Version::V311, Role::Client, 11).unwrap_err();
//! assert_eq!(error.reason, ReasonCode::PacketTooLarge);
//! let error = decode(b"\x36", Version::V311, Role::Client, 1024).unwrap_err();
//! assert_eq!(error.to_string(), "both QoS bits of PUBLISH are set [MQTT-3.3.1-4]");
//! # Ok::<(), mqtt::codec::encode::EncodeError>(())
//! ```
//!
//! Clause ids such as `[MQTT-3.1.2-22]` are those of MQTT 5.0 unless the text says 3.1.1 ("v3 MQTT-…").

pub mod codec;
pub mod filter;
pub mod inflight;
pub mod packet;
pub mod property;
pub mod reason;
pub mod topic;
mod types;

pub use reason::ReasonCode;
pub use types::{PacketId, QoS, Version};
