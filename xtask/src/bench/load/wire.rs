//! Just enough MQTT 3.1.1 and 5.0, and of WebSocket, for a load: what a client writes, and where packets end.
//!
//! Own bytes and not the room `mqtt`: what measures must not share a mistake, or a slowness, with what is measured.

/// First bytes of packets.
pub(super) const CONNACK: u8 = 0x20;
pub(super) const PUBLISH: u8 = 0x30;
pub(super) const PUBACK: u8 = 0x40;
pub(super) const SUBACK: u8 = 0x90;

/// DISCONNECT of every version: with MQTT 5 it means Normal disconnection.
pub(super) const DISCONNECT: [u8; 2] = [0xe0, 0];

/// What stands at the begin of every payload: publisher, number, time.
pub(super) const STAMP: usize = 4 + 4 + 8;

/// The version that a client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    V311,
    V5,
}

/// A CONNECT without user name.
#[derive(Clone, Copy, Debug)]
pub(super) struct Connect<'a> {
    pub(super) client_id: &'a str,
    pub(super) version: Version,
    /// Whether the session ends with the connection.
    pub(super) clean: bool,
    /// Topic of a will at QoS 0 with 16 bytes of payload.
    pub(super) will: Option<&'a str>,
    /// MQTT 5: messages that may be under way to the client.
    pub(super) receive_maximum: u16,
}

impl Connect<'_> {
    pub(super) fn bytes(&self) -> Vec<u8> {
        let v5 = self.version == Version::V5;
        let mut body = vec![0, 4, b'M', b'Q', b'T', b'T', if v5 { 5 } else { 4 }];
        body.push(if self.clean { 2 } else { 0 } | if self.will.is_some() { 4 } else { 0 });
        body.extend_from_slice(&1_200_u16.to_be_bytes()); // keep alive, longer than any run
        if v5 {
            body.extend_from_slice(if self.clean { &[3] } else { &[8, 0x11, 0, 0, 0x0e, 0x10] }); // for an hour
            body.push(0x21);
            body.extend_from_slice(&self.receive_maximum.to_be_bytes());
        }
        text(&mut body, self.client_id);
        if let Some(topic) = self.will {
            if v5 {
                body.push(0);
            }
            text(&mut body, topic);
            text(&mut body, "gone without bye");
        }
        let mut packet = vec![0x10];
        variable(&mut packet, body.len());
        packet.extend_from_slice(&body);
        packet
    }
}

/// SUBSCRIBE for several filters.
pub(super) fn subscribe(packet_id: u16, filters: &[String], qos: u8, version: Version) -> Vec<u8> {
    let mut body = packet_id.to_be_bytes().to_vec();
    if version == Version::V5 {
        body.push(0);
    }
    for filter in filters {
        text(&mut body, filter);
        body.push(qos);
    }
    let mut packet = vec![0x82];
    variable(&mut packet, body.len());
    packet.extend_from_slice(&body);
    packet
}

/// PUBACK: success.
pub(super) const fn puback(packet_id: [u8; 2]) -> [u8; 4] {
    [PUBACK, 2, packet_id[0], packet_id[1]]
}

/// A content type and two user properties, as telemetry has them.
pub(super) fn telemetry_properties() -> Vec<u8> {
    let mut properties = vec![0x03];
    text(&mut properties, "application/json");
    for (name, value) in [("unit", "celsius"), ("trace-id", "4bf92f3577b34da6a3ce929d0e0e4736")] {
        properties.push(0x26);
        text(&mut properties, name);
        text(&mut properties, value);
    }
    properties
}

/// How a PUBLISH looks but for its topic, id and stamp.
#[derive(Clone, Debug)]
pub(super) struct Form {
    pub(super) version: Version,
    pub(super) qos: u8,
    pub(super) retain: bool,
    /// Of the payload, in bytes; at least [`STAMP`].
    pub(super) size: usize,
    /// MQTT 5 only.
    pub(super) properties: Vec<u8>,
}

impl Form {
    /// Appends a PUBLISH.
    pub(super) fn write(&self, out: &mut Vec<u8>, topic: &str, packet_id: u16, stamp: &Stamp) {
        let (v5, size) = (self.version == Version::V5, self.size.max(STAMP));
        let id = if self.qos > 0 { 2 } else { 0 };
        let properties = if v5 { length_of(self.properties.len()) + self.properties.len() } else { 0 };
        out.push(PUBLISH | self.qos << 1 | u8::from(self.retain));
        variable(out, 2 + topic.len() + id + properties + size);
        text(out, topic);
        if self.qos > 0 {
            out.extend_from_slice(&packet_id.to_be_bytes());
        }
        if v5 {
            variable(out, self.properties.len());
            out.extend_from_slice(&self.properties);
        }
        out.extend_from_slice(&stamp.publisher.to_be_bytes());
        out.extend_from_slice(&stamp.number.to_be_bytes());
        out.extend_from_slice(&stamp.nanos.to_be_bytes());
        out.resize(out.len() + size - STAMP, b'x');
    }
}

/// Who sent a message, as which of its own, and when it was due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    pub(super) publisher: u32,
    pub(super) number: u32,
    /// Since the load began.
    pub(super) nanos: u64,
}

/// What a receiver needs of a PUBLISH.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Arrival {
    pub(super) packet_id: Option<[u8; 2]>,
    /// What follows topic, id and properties begins with it; `None` if the payload is shorter (a will).
    pub(super) stamp: Option<Stamp>,
}

/// Reads a whole PUBLISH; `None` if it is none.
pub(super) fn arrival(first: u8, body: &[u8], version: Version) -> Option<Arrival> {
    let (length, mut rest) = body.split_first_chunk::<2>()?;
    rest = rest.get(usize::from(u16::from_be_bytes(*length))..)?;
    let mut packet_id = None;
    if first & 6 != 0 {
        let (id, after) = rest.split_first_chunk::<2>()?;
        (packet_id, rest) = (Some(*id), after);
    }
    if version == Version::V5 {
        let (properties, at) = read_variable(rest)??;
        rest = rest.get(at + properties..)?;
    }
    let stamp = rest.split_first_chunk::<STAMP>().map(|(stamp, _)| {
        let word = |at: usize| u32::from_be_bytes([stamp[at], stamp[at + 1], stamp[at + 2], stamp[at + 3]]);
        Stamp { publisher: word(0), number: word(4), nanos: u64::from(word(8)) << 32 | u64::from(word(12)) }
    });
    Some(Arrival { packet_id, stamp })
}

/// Where the body of the first packet begins and where the packet ends; `None`: there is no whole one yet.
pub(super) fn packet(bytes: &[u8]) -> Result<Option<(usize, usize)>, String> {
    match read_variable(bytes.get(1..).unwrap_or_default()) {
        None => Err("the server sent a length of five bytes".to_owned()),
        Some(None) => Ok(None),
        Some(Some((length, at))) => {
            Ok(Some((1 + at, 1 + at + length)).filter(|&(_, end)| end <= bytes.len()))
        }
    }
}

/// The value and how many bytes it took; inner `None`: more bytes are needed; outer: it never ends.
fn read_variable(bytes: &[u8]) -> Option<Option<(usize, usize)>> {
    let mut value = 0;
    for at in 0..4 {
        let Some(&byte) = bytes.get(at) else { return Some(None) };
        value |= usize::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            return Some(Some((value, at + 1)));
        }
    }
    None
}

fn variable(out: &mut Vec<u8>, mut value: usize) {
    while value > 0x7f {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

const fn length_of(value: usize) -> usize {
    match value {
        0..0x80 => 1,
        0x80..0x4000 => 2,
        0x4000..0x20_0000 => 3,
        _ => 4,
    }
}

fn text(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(&(text.len() as u16).to_be_bytes());
    out.extend_from_slice(text.as_bytes());
}

/// The request of a WebSocket handshake. The key is fixed: the load does not check who answers.
pub(super) const UPGRADE: &[u8] = b"GET /mqtt HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n";

/// Appends the head of a binary frame of a client. The mask is zero: unmasking costs the server the same, masking costs
/// the load nothing.
pub(super) fn frame_head(out: &mut Vec<u8>, length: usize) {
    out.push(0x82);
    match length {
        0..126 => out.push(0x80 | length as u8),
        126..0x1_0000 => {
            out.push(0x80 | 126);
            out.extend_from_slice(&(length as u16).to_be_bytes());
        }
        _ => {
            out.push(0x80 | 127);
            out.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(&[0; 4]);
}

/// Moves the payloads of the whole frames at the begin of `frames` to `packets`. An error if the server closes.
pub(super) fn unframe(frames: &mut Vec<u8>, packets: &mut Vec<u8>) -> Result<(), String> {
    let mut at = 0;
    while let [first, second, rest @ ..] = &frames[at..] {
        let (head, length) = match (second & 0x7f, rest) {
            (126, [a, b, ..]) => (4, usize::from(u16::from_be_bytes([*a, *b]))),
            (127, [a, b, c, d, e, f, g, h, ..]) => {
                (10, u64::from_be_bytes([*a, *b, *c, *d, *e, *f, *g, *h]) as usize)
            }
            (126 | 127, _) => break,
            (length, _) => (2, usize::from(length)),
        };
        if first & 0x0f == 8 {
            return Err("the server closed the WebSocket".to_owned());
        }
        let Some(payload) = frames.get(at + head..at + head + length) else { break };
        if matches!(first & 0x0f, 0..=2) {
            packets.extend_from_slice(payload);
        }
        at += head + length;
    }
    frames.drain(..at);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn form(version: Version, qos: u8) -> Form {
        let properties = if version == Version::V5 { telemetry_properties() } else { Vec::new() };
        Form { version, qos, retain: false, size: 300, properties }
    }

    #[test]
    fn what_is_written_can_be_read() {
        let stamp = Stamp { publisher: 7, number: 8, nanos: u64::MAX - 9 };
        for (version, qos) in [(Version::V311, 0), (Version::V311, 1), (Version::V5, 0), (Version::V5, 1)] {
            let mut bytes = Vec::new();
            form(version, qos).write(&mut bytes, "a/b", 0x1234, &stamp);
            let (body, end) = packet(&bytes).unwrap().unwrap();
            assert_eq!(end, bytes.len());
            let packet_id = (qos > 0).then_some([0x12, 0x34]);
            let read = arrival(bytes[0], &bytes[body..], version);
            assert_eq!(read, Some(Arrival { packet_id, stamp: Some(stamp) }), "{version:?} {qos}");
        }
    }

    #[test]
    fn a_packet_ends_where_its_length_says() {
        let stamp = Stamp { publisher: 0, number: 0, nanos: 0 };
        let mut bytes = Vec::new();
        form(Version::V311, 0).write(&mut bytes, "t", 0, &stamp);
        for cut in 0..bytes.len() {
            assert_eq!(packet(&bytes[..cut]).unwrap(), None, "{cut}");
        }
        assert!(packet(&[0x30, 0xff, 0xff, 0xff, 0xff, 1]).is_err());
    }

    #[test]
    fn every_connect_says_its_length() {
        for version in [Version::V311, Version::V5] {
            for (clean, will) in [(true, None), (false, None), (true, Some("w/1"))] {
                let bytes = Connect { client_id: "c", version, clean, will, receive_maximum: 10 }.bytes();
                assert_eq!(packet(&bytes).unwrap().unwrap().1, bytes.len());
            }
        }
        let filters = ["a".to_owned(), "b/#".to_owned()];
        let bytes = subscribe(1, &filters, 1, Version::V311);
        assert_eq!(bytes, [0x82, 12, 0, 1, 0, 1, b'a', 1, 0, 3, b'b', b'/', b'#', 1]);
    }

    #[test]
    fn frames_of_every_length_lose_their_heads() {
        for length in [0, 1, 125, 126, 65_535, 65_536] {
            let mut frames = vec![0x82];
            match length {
                0..126 => frames.push(length as u8),
                126..65_536 => {
                    frames.push(126);
                    frames.extend_from_slice(&(length as u16).to_be_bytes());
                }
                _ => {
                    frames.push(127);
                    frames.extend_from_slice(&(length as u64).to_be_bytes());
                }
            }
            frames.resize(frames.len() + length, b'p');
            let (whole, mut packets) = (frames.len(), Vec::new());
            frames.extend_from_slice(&[0x82, 5, b'p']); // a part of the next one
            unframe(&mut frames, &mut packets).unwrap();
            assert_eq!((packets.len(), frames.len()), (length, 3), "{whole}");
        }
        assert!(unframe(&mut vec![0x88, 0], &mut Vec::new()).is_err());
        let mut head = Vec::new();
        frame_head(&mut head, 300);
        assert_eq!(head, [0x82, 0x80 | 126, 1, 44, 0, 0, 0, 0]);
    }
}
