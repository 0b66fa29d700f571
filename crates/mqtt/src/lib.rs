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
