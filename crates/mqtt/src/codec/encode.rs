//! Packets to bytes.

pub use super::check::EncodeError;
pub use super::template::{Alias, PublishTemplate, publish};
use super::write::{self, Count, Sink};
use super::{check, varint};
use crate::packet::Packet;
use crate::{PacketId, ReasonCode, Version};

/// Appends a packet to `out`.
///
/// `version` is that of the connection; a CONNECT carries its own. Before version 5 the properties and the reason codes
/// that do not exist there are left out, and failures become the nearest return code.
///
/// # Errors
/// The packet has a value that no peer would accept; `out` is then as it was.
pub fn encode(packet: &Packet<'_>, version: Version, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    check::packet(packet, version)?;
    let len = body_len(packet, version);
    let remaining = check::remaining(len)?;
    out.reserve(1 + varint::len(remaining) + len);
    out.u8(write::first_byte(packet));
    out.varint(remaining);
    write::body(packet, version, out);
    Ok(())
}

/// How many bytes [`encode`] would append: for comparison with the peer's Maximum Packet Size [MQTT-3.1.2-24].
///
/// For a packet that cannot be encoded the number has no meaning.
pub fn encoded_len(packet: &Packet<'_>, version: Version) -> usize {
    let len = body_len(packet, version);
    1 + varint::len(u32::try_from(len).unwrap_or(u32::MAX)) + len
}

fn body_len(packet: &Packet<'_>, version: Version) -> usize {
    let mut count = Count(0);
    write::body(packet, version, &mut count);
    count.0
}

/// Appends a PUBACK without properties; `reason` is not sent before version 5.
pub fn puback(version: Version, id: PacketId, reason: ReasonCode, out: &mut Vec<u8>) {
    ack(write::PUBACK, version, id, reason, out);
}

/// Appends a PUBREC without properties; `reason` is not sent before version 5.
pub fn pubrec(version: Version, id: PacketId, reason: ReasonCode, out: &mut Vec<u8>) {
    ack(write::PUBREC, version, id, reason, out);
}

/// Appends a PUBREL without properties; `reason` is not sent before version 5.
pub fn pubrel(version: Version, id: PacketId, reason: ReasonCode, out: &mut Vec<u8>) {
    ack(write::PUBREL, version, id, reason, out);
}

/// Appends a PUBCOMP without properties; `reason` is not sent before version 5.
pub fn pubcomp(version: Version, id: PacketId, reason: ReasonCode, out: &mut Vec<u8>) {
    ack(write::PUBCOMP, version, id, reason, out);
}

fn ack(first: u8, version: Version, id: PacketId, reason: ReasonCode, out: &mut Vec<u8>) {
    let [high, low] = id.get().to_be_bytes();
    if version.is_v5() && reason != ReasonCode::Success {
        out.put(&[first, 3, high, low, reason.value()]);
    } else {
        out.put(&[first, 2, high, low]);
    }
}

/// Appends a PINGREQ.
pub fn pingreq(out: &mut Vec<u8>) {
    out.put(&[write::PINGREQ, 0]);
}

/// Appends a PINGRESP.
pub fn pingresp(out: &mut Vec<u8>) {
    out.put(&[write::PINGRESP, 0]);
}
