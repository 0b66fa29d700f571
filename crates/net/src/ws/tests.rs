//! Both halves against each other, against tungstenite, and against every way of cutting the bytes.

use std::io::{Cursor, Read, Write};

use proptest::prelude::*;
use tungstenite::protocol::frame::CloseFrame;
use tungstenite::protocol::{Message, Role, WebSocket};

use super::*;

mod handshakes;

/// An event that can be kept. Pieces of data beside each other are one.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Seen {
    Data(Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<u16>, String),
    Broken(u16),
}

/// What a decoder sees when the bytes come in these pieces.
fn seen<'a>(side: Side, max_frame: u64, pieces: impl Iterator<Item = &'a [u8]>) -> Vec<Seen> {
    let mut decoder = Decoder::new(side, max_frame);
    let mut seen: Vec<Seen> = Vec::new();
    for piece in pieces {
        let mut piece = piece.to_vec();
        let mut input = piece.as_mut_slice();
        loop {
            let event = match decoder.next(&mut input) {
                Ok(Some(event)) => event,
                Ok(None) => break,
                Err(violation) => {
                    seen.push(Seen::Broken(violation.code));
                    break;
                }
            };
            match (event, seen.last_mut()) {
                (Event::Data(more), Some(Seen::Data(data))) => data.extend_from_slice(more),
                (Event::Data(data), _) => seen.push(Seen::Data(data.to_vec())),
                (Event::Ping(ping), _) => seen.push(Seen::Ping(ping.payload().to_vec())),
                (Event::Pong(pong), _) => seen.push(Seen::Pong(pong.payload().to_vec())),
                (Event::Close { code, reason }, _) => seen.push(Seen::Close(code, reason)),
            }
        }
        assert!(input.is_empty(), "what is not used would be lost");
    }
    seen
}

fn at_once(bytes: &[u8]) -> Vec<Seen> {
    seen(Side::Server, u64::MAX, std::iter::once(bytes))
}

/// A frame by the letter of section 5.2, with the shortest length.
fn raw(first: u8, payload: &[u8], mask: Option<[u8; 4]>) -> Vec<u8> {
    let bit = if mask.is_some() { 0x80 } else { 0 };
    let mut bytes = vec![first];
    match payload.len() {
        short @ 0..=125 => bytes.push(bit | short as u8),
        medium @ 126..=65_535 => {
            bytes.push(bit | 126);
            bytes.extend((medium as u16).to_be_bytes());
        }
        long => {
            bytes.push(bit | 127);
            bytes.extend((long as u64).to_be_bytes());
        }
    }
    bytes.extend(mask.iter().flatten());
    bytes.extend(payload.iter().enumerate().map(|(at, byte)| byte ^ mask.map_or(0, |mask| mask[at % 4])));
    bytes
}

const MASK: Option<[u8; 4]> = Some([0x37, 0xfa, 0x21, 0x3d]);

/// One thing that a peer sends.
#[derive(Clone, Debug)]
enum Sent {
    /// A message in so many fragments, each with a ping behind it if it is not the last.
    Message(Vec<Vec<u8>>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
}

fn sent() -> impl Strategy<Value = Sent> {
    let bytes = |most: usize| prop::collection::vec(any::<u8>(), 0..most);
    prop_oneof![
        4 => prop::collection::vec(bytes(300), 1..4).prop_map(Sent::Message),
        1 => prop::collection::vec(any::<u8>(), 65_530..65_540).prop_map(|long| Sent::Message(vec![long])),
        2 => bytes(126).prop_map(Sent::Ping),
        1 => bytes(126).prop_map(Sent::Pong),
    ]
}

/// The bytes of these frames, and what is to be seen.
fn encode(list: &[Sent], mask: Option<[u8; 4]>) -> (Vec<u8>, Vec<Seen>) {
    let mut bytes = Vec::new();
    let mut expected: Vec<Seen> = Vec::new();
    for sent in list {
        match sent {
            Sent::Message(fragments) => {
                for (number, fragment) in fragments.iter().enumerate() {
                    let last = number + 1 == fragments.len();
                    let first = if number == 0 { 0x02 } else { 0x00 } | if last { 0x80 } else { 0 };
                    bytes.extend(raw(first, fragment, mask));
                    match expected.last_mut() {
                        _ if fragment.is_empty() => {}
                        Some(Seen::Data(data)) => data.extend_from_slice(fragment),
                        _ => expected.push(Seen::Data(fragment.clone())),
                    }
                    if !last {
                        bytes.extend(raw(0x89, b"between", mask));
                        expected.push(Seen::Ping(b"between".to_vec()));
                    }
                }
            }
            Sent::Ping(payload) => {
                bytes.extend(raw(0x89, payload, mask));
                expected.push(Seen::Ping(payload.clone()));
            }
            Sent::Pong(payload) => {
                bytes.extend(raw(0x8A, payload, mask));
                expected.push(Seen::Pong(payload.clone()));
            }
        }
    }
    (bytes, expected)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// [MQTT-6.0.0-2]: neither messages nor fragments nor reads have a meaning.
    /// [v3 MQTT-6.0.0-2]
    #[test]
    fn any_frames_in_any_pieces_give_the_same_events(
        list in prop::collection::vec(sent(), 0..6), mask: [u8; 4], cuts in prop::collection::vec(1..200usize, 1..40),
    ) {
        let (bytes, expected) = encode(&list, Some(mask));
        prop_assert_eq!(&at_once(&bytes), &expected);
        let mut sizes = cuts.iter().copied().cycle();
        let mut rest = bytes.as_slice();
        let pieces = std::iter::from_fn(|| {
            let (piece, later) = rest.split_at(sizes.next()?.min(rest.len()));
            rest = later;
            (!piece.is_empty()).then_some(piece)
        });
        prop_assert_eq!(seen(Side::Server, u64::MAX, pieces), expected);
    }

    /// Whatever comes: the same in one piece and in single bytes, and a server's frames differ in the mask only.
    #[test]
    fn any_bytes_in_any_pieces_give_the_same_events(
        mut bytes in prop::collection::vec(prop_oneof![3 => any::<u8>(), 1 => 0x80..0x8Bu8, 1 => 0..8u8], 0..80),
    ) {
        for side in [Side::Server, Side::Client] {
            prop_assert_eq!(
                seen(side, 1 << 20, std::iter::once(bytes.as_slice())),
                seen(side, 1 << 20, bytes.chunks(1))
            );
        }
        // deeper: a head that is right
        if let [first, second, ..] = bytes.as_mut_slice() {
            *first = 0x82;
            *second = 0x80 | (*second & 0x0F);
        }
        prop_assert_eq!(at_once(&bytes), seen(Side::Server, u64::MAX, bytes.chunks(1)));
    }

    /// The reference's client speaks, we listen.
    #[test]
    fn what_tungstenite_sends_is_understood(list in prop::collection::vec(sent(), 0..6)) {
        let mut client = WebSocket::from_raw_socket(Cursor::new(Vec::new()), Role::Client, None);
        let mut expected: Vec<Seen> = Vec::new();
        for sent in &list {
            let (message, event) = match sent {
                Sent::Message(fragments) => {
                    let bytes = fragments.concat();
                    (Message::binary(bytes.clone()), Seen::Data(bytes))
                }
                Sent::Ping(payload) => (Message::Ping(payload.clone().into()), Seen::Ping(payload.clone())),
                Sent::Pong(payload) => (Message::Pong(payload.clone().into()), Seen::Pong(payload.clone())),
            };
            client.send(message).unwrap();
            client.flush().unwrap();
            match (event, expected.last_mut()) {
                (Seen::Data(more), _) if more.is_empty() => {}
                (Seen::Data(more), Some(Seen::Data(data))) => data.extend(more),
                (event, _) => expected.push(event),
            }
        }
        let why = CloseFrame { code: 1000.into(), reason: "enough".into() };
        client.close(Some(why)).unwrap();
        client.flush().unwrap();
        expected.push(Seen::Close(Some(1000), "enough".to_owned()));
        prop_assert_eq!(at_once(client.get_ref().get_ref()), expected);
    }

    /// We speak, the reference's client listens; the socket takes as much as it likes at a time.
    #[test]
    fn what_we_write_is_understood_by_tungstenite(
        writes in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..400), 0..8),
        pings in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..126), 0..8),
        takes in prop::collection::vec(1..300usize, 1..30),
    ) {
        let mut encoder = Encoder::new();
        let (mut waiting, mut wire) = (Vec::new(), Vec::new());
        let mut takes = takes.iter().copied().cycle();
        let mut flush = |encoder: &mut Encoder, waiting: &mut Vec<u8>, rounds: usize| {
            for _ in 0..rounds {
                let (front, count) = encoder.next(waiting);
                let bytes = [front, &waiting[..count]].concat();
                if bytes.is_empty() {
                    break;
                }
                let taken = takes.next().unwrap().min(bytes.len());
                wire.extend_from_slice(&bytes[..taken]);
                let ours = encoder.written(taken);
                waiting.drain(..ours);
            }
        };
        let mut pings_left = pings.iter();
        for write in &writes {
            waiting.extend_from_slice(write);
            if let Some(ping) = pings_left.next() {
                encoder.pong(Control::new(ping));
            }
            flush(&mut encoder, &mut waiting, 3);
        }
        encoder.close(Some(close::GOING_AWAY));
        flush(&mut encoder, &mut waiting, usize::MAX);
        prop_assert!(waiting.is_empty());

        let mut client = WebSocket::from_raw_socket(Wire(Cursor::new(wire)), Role::Client, None);
        let mut data = Vec::new();
        loop {
            match client.read().unwrap() {
                Message::Binary(bytes) => data.extend_from_slice(&bytes),
                Message::Pong(payload) => prop_assert!(pings.iter().any(|ping| **ping == *payload)),
                Message::Close(why) => {
                    prop_assert_eq!(u16::from(why.unwrap().code), close::GOING_AWAY);
                    break;
                }
                other => panic!("{other:?}"),
            }
        }
        prop_assert_eq!(data, writes.concat());
    }

    /// A client's frames: masked with what it was given, understood by our server and by the reference's.
    #[test]
    fn what_a_client_writes_is_understood(payload in prop::collection::vec(any::<u8>(), 0..70_000), mask: [u8; 4]) {
        let mut bytes = Vec::new();
        frame::binary(&payload, Some(mask), &mut bytes);
        frame::ping(b"?", Some(mask), &mut bytes);
        frame::pong(b"!", Some(mask), &mut bytes);
        frame::close(close::NORMAL, Some(mask), &mut bytes);
        let mut expected = vec![Seen::Data(payload.clone())];
        expected.retain(|data| *data != Seen::Data(Vec::new()));
        expected.extend([
            Seen::Ping(b"?".to_vec()), Seen::Pong(b"!".to_vec()), Seen::Close(Some(1000), String::new()),
        ]);
        prop_assert_eq!(at_once(&bytes), expected);
        let mut server = WebSocket::from_raw_socket(Wire(Cursor::new(bytes)), Role::Server, None);
        prop_assert_eq!(server.read().unwrap(), Message::binary(payload));
        prop_assert_eq!(server.read().unwrap(), Message::Ping(b"?"[..].into()));
    }
}

/// Reads what was written before, and throws away what is written now.
struct Wire(Cursor<Vec<u8>>);

impl Read for Wire {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.0.read(buffer)
    }
}

impl Write for Wire {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// [v3 MQTT-6.0.0-1]
#[test]
fn each_broken_rule_has_its_close_code() {
    let long = [0; 126];
    for (bytes, code) in [
        // [MQTT-6.0.0-1]
        (raw(0x81, b"text", MASK), close::UNSUPPORTED),
        (raw(0x01, b"text", MASK), close::UNSUPPORTED),
        (raw(0xC2, b"", MASK), close::PROTOCOL_ERROR),
        (raw(0xA2, b"", MASK), close::PROTOCOL_ERROR),
        (raw(0x92, b"", MASK), close::PROTOCOL_ERROR),
        (raw(0x83, b"", MASK), close::PROTOCOL_ERROR),
        (raw(0x8B, b"", MASK), close::PROTOCOL_ERROR),
        (raw(0x8F, b"", MASK), close::PROTOCOL_ERROR),
        // no mask
        (raw(0x82, b"x", None), close::PROTOCOL_ERROR),
        // a continuation of nothing
        (raw(0x80, b"", MASK), close::PROTOCOL_ERROR),
        // a message within a message
        ([raw(0x02, b"", MASK), raw(0x82, b"", MASK)].concat(), close::PROTOCOL_ERROR),
        // control frames in fragments, and too long
        (raw(0x09, b"", MASK), close::PROTOCOL_ERROR),
        (raw(0x08, b"", MASK), close::PROTOCOL_ERROR),
        (raw(0x89, &long, MASK), close::PROTOCOL_ERROR),
        (raw(0x88, &long, MASK), close::PROTOCOL_ERROR),
        // lengths in more bytes than they need
        (vec![0x82, 0xFE, 0, 125], close::PROTOCOL_ERROR),
        (vec![0x82, 0xFF, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF], close::PROTOCOL_ERROR),
        (vec![0x82, 0xFF, 0x80, 0, 0, 0, 0, 1, 0, 0], close::PROTOCOL_ERROR),
        // close codes
        (raw(0x88, &[3], MASK), close::PROTOCOL_ERROR),
        (raw(0x88, &999u16.to_be_bytes(), MASK), close::PROTOCOL_ERROR),
        (raw(0x88, &1004u16.to_be_bytes(), MASK), close::PROTOCOL_ERROR),
        (raw(0x88, &1005u16.to_be_bytes(), MASK), close::PROTOCOL_ERROR),
        (raw(0x88, &1006u16.to_be_bytes(), MASK), close::PROTOCOL_ERROR),
        (raw(0x88, &1015u16.to_be_bytes(), MASK), close::PROTOCOL_ERROR),
        (raw(0x88, &2999u16.to_be_bytes(), MASK), close::PROTOCOL_ERROR),
        (raw(0x88, &5000u16.to_be_bytes(), MASK), close::PROTOCOL_ERROR),
        (raw(0x88, b"\x03\xE8\xFF", MASK), close::INVALID_DATA),
    ] {
        // nothing behind it is looked at
        let more = [bytes.as_slice(), &raw(0x82, b"more", MASK)].concat();
        assert_eq!(at_once(&more), [Seen::Broken(code)], "{bytes:02x?}");
    }
    assert_eq!(
        seen(Side::Client, u64::MAX, std::iter::once(&raw(0x82, b"x", MASK)[..])),
        [Seen::Broken(close::PROTOCOL_ERROR)]
    );
}

#[test]
fn a_close_may_have_a_code_and_a_reason() {
    assert_eq!(at_once(&raw(0x88, b"", MASK)), [Seen::Close(None, String::new())]);
    for code in [1000, 1001, 1003, 1007, 1011, 1014, 3000, 4999] {
        let payload = [&u16::to_be_bytes(code)[..], "grüße".as_bytes()].concat();
        assert_eq!(at_once(&raw(0x88, &payload, MASK)), [Seen::Close(Some(code), "grüße".to_owned())]);
    }
    // what comes behind it is nobody's
    let bytes = [raw(0x88, b"", MASK), raw(0x82, b"late", MASK), vec![0xFF; 20]].concat();
    assert_eq!(at_once(&bytes).len(), 1);
}

#[test]
fn a_frame_is_too_large_as_soon_as_its_length_is_known() {
    let limited = |bytes: &[u8]| seen(Side::Server, 1000, std::iter::once(bytes));
    assert_eq!(limited(&raw(0x82, &[7; 1000], MASK)), [Seen::Data(vec![7; 1000])]);
    assert_eq!(limited(&[0x82, 0xFE, 0x03, 0xE9]), [Seen::Broken(close::TOO_BIG)]);
    assert_eq!(limited(&[0x82, 0xFF, 0, 0, 0, 0, 0, 1, 0, 0]), [Seen::Broken(close::TOO_BIG)]);
    // a message has no bound: nothing is kept of it
    let fragment = raw(0x00, &[7; 1000], MASK);
    let message = [raw(0x02, &[7; 1000], MASK), fragment.clone(), fragment].concat();
    assert_eq!(limited(&message), [Seen::Data(vec![7; 3000])]);
}

#[test]
fn only_the_newest_ping_is_answered_and_a_close_comes_last() {
    let mut encoder = Encoder::new();
    assert_eq!(encoder.next(&[]), (&[][..], 0));
    let mut data = b"abcdef".to_vec();
    let (head, count) = encoder.next(&data);
    assert_eq!((head, count), (&[0x82, 6][..], 6));
    // the socket takes the head and two bytes
    assert_eq!(encoder.written(4), 2);
    data.drain(..2);
    encoder.close(Some(close::NORMAL));
    encoder.close(Some(close::PROTOCOL_ERROR));
    encoder.pong(Control::new(b"old"));
    encoder.pong(Control::new(b"new"));
    // the frame is finished first, and what has come meanwhile is of the next
    data.extend(b"gh");
    assert_eq!(encoder.next(&data), (&[][..], 4));
    assert_eq!(encoder.written(4), 4);
    data.drain(..4);
    assert_eq!(encoder.next(&data), (&b"\x8A\x03new"[..], 0));
    assert_eq!(encoder.written(3), 0);
    assert_eq!(encoder.next(&data), (&b"ew"[..], 0));
    assert_eq!(encoder.written(2), 0);
    assert_eq!(encoder.next(&data), (&[0x82, 2][..], 2));
    assert_eq!(encoder.written(4), 2);
    assert_eq!(encoder.next(&[]), (&b"\x88\x02\x03\xE8"[..], 0));
    encoder.pong(Control::new(b"late"));
    assert_eq!(encoder.written(4), 0);
    assert_eq!(encoder.next(b"nothing follows a close"), (&[][..], 0));
}

/// A million idle connections have a million of both.
#[test]
fn an_idle_websocket_is_small() {
    assert!(size_of::<Decoder>() <= 72, "{}", size_of::<Decoder>());
    assert!(size_of::<Encoder>() <= 64, "{}", size_of::<Encoder>());
}
