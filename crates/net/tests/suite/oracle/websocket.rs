//! WebSocket: any bytes as frames, any bytes as a handshake.

use std::io::{Cursor, Read, Write};

use net::ws::{ClientHandshake, Decoder, Event, Handshake, Rules, Side, frame};
use tungstenite::protocol::{Message, Role, WebSocket, WebSocketConfig};

/// What a decoder sees. Pieces of data beside each other are one.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Seen {
    Data(Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<u16>, String),
    Broken(u16),
}

fn seen<'a>(side: Side, pieces: impl Iterator<Item = &'a [u8]>) -> Vec<Seen> {
    let mut decoder = Decoder::new(side, u64::MAX);
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

/// `bytes` as they come off a connection, from both sides: the same in one piece, in single bytes, and cut anywhere; and what is
/// right to us is right to tungstenite, which says the same.
pub(crate) fn check_frames(bytes: &[u8]) {
    for side in [Side::Server, Side::Client] {
        let whole = seen(side, std::iter::once(bytes));
        assert_eq!(seen(side, bytes.chunks(1)), whole);
        let (front, back) = bytes.split_at(usize::from(bytes.first().copied().unwrap_or(0)).min(bytes.len()));
        assert_eq!(seen(side, [front, back].into_iter()), whole);
        let over = whole.iter().position(|seen| matches!(seen, Seen::Broken(_) | Seen::Close(..)));
        assert!(over.is_none_or(|at| at + 1 == whole.len()), "nothing follows the end");
        // 1014 is in IANA's registry, but unknown to the reference
        if !matches!(whole.last(), Some(Seen::Broken(_) | Seen::Close(Some(1014), _))) {
            let reference = by_the_reference(side, bytes, &whole);
            let controls: Vec<_> = whole.into_iter().filter(|seen| !matches!(seen, Seen::Data(_))).collect();
            assert_eq!(reference, controls);
        }
    }
    // what is encoded comes back
    let mut out = Vec::new();
    frame::binary(bytes, Some([1, 2, 3, 4]), &mut out);
    let expected: Vec<_> = (!bytes.is_empty()).then(|| Seen::Data(bytes.to_vec())).into_iter().collect();
    assert_eq!(seen(Side::Server, std::iter::once(out.as_slice())), expected);
}

/// What tungstenite sees of it, apart from data: that it gives as whole messages only, so it is compared here as far as it
/// comes.
fn by_the_reference(side: Side, bytes: &[u8], ours: &[Seen]) -> Vec<Seen> {
    let role = if side == Side::Server { Role::Server } else { Role::Client };
    // it reserves memory on the word of a length
    let config = WebSocketConfig::default().max_frame_size(Some(1 << 20));
    let mut socket = WebSocket::from_raw_socket(Wire(Cursor::new(bytes.to_vec())), role, Some(config));
    let (mut controls, mut data) = (Vec::new(), Vec::new());
    loop {
        match socket.read() {
            Ok(Message::Binary(bytes)) => data.extend_from_slice(&bytes),
            Ok(Message::Ping(payload)) => controls.push(Seen::Ping(payload.to_vec())),
            Ok(Message::Pong(payload)) => controls.push(Seen::Pong(payload.to_vec())),
            Ok(Message::Close(why)) => {
                let code = why.as_ref().map(|why| why.code.into());
                let reason = why.map(|why| why.reason.to_string()).unwrap_or_default();
                controls.push(Seen::Close(code, reason));
                break;
            }
            Ok(other) => panic!("{other:?}"),
            // the end of the bytes, or of its memory
            Err(tungstenite::Error::Io(_) | tungstenite::Error::Capacity(_)) => break,
            Err(error) => panic!("right to us, wrong to the reference: {error}"),
        }
    }
    let ours: Vec<u8> = ours
        .iter()
        .flat_map(|seen| if let Seen::Data(data) = seen { data.as_slice() } else { &[] })
        .copied()
        .collect();
    assert!(ours.starts_with(&data), "other data than the reference's");
    controls
}

/// Gives the bytes, then nothing for now; takes what is written and forgets it.
struct Wire(Cursor<Vec<u8>>);

impl Read for Wire {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        match self.0.read(buffer) {
            Ok(0) => Err(std::io::ErrorKind::WouldBlock.into()),
            other => other,
        }
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

/// `bytes` as a request to a server and as the answer to a client.
pub(crate) fn check_handshake(bytes: &[u8]) {
    let strict = Rules { allowed_origins: vec!["https://example.com".to_owned()], ..Rules::default() };
    let lenient = Rules { fail_if_no_subprotocol: false, max_head: 600, ..Rules::default() };
    for rules in [&strict, &lenient] {
        check_request(rules, bytes);
    }
    let answer = |pieces: &mut dyn Iterator<Item = &[u8]>| {
        let (mut client, _) = ClientHandshake::new("example.com:8083", "/mqtt", [7; 16]);
        let mut used = 0;
        for piece in pieces {
            used += piece.len();
            match client.receive(piece) {
                Ok(None) => {}
                Ok(Some(rest)) => return Ok(Some(used - rest)),
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    };
    assert_eq!(answer(&mut bytes.chunks(1)), answer(&mut std::iter::once(bytes)));
}

fn check_request(rules: &Rules, bytes: &[u8]) {
    let wanted = ["X-Forwarded-For", "Forwarded"];
    let whole = Handshake::new(rules, &wanted).receive(bytes);
    let mut by_byte = Handshake::new(rules, &wanted);
    let mut single = Ok(None);
    for (at, byte) in bytes.iter().enumerate() {
        single = by_byte.receive(&[*byte]);
        if let Ok(Some(accepted)) = &mut single {
            accepted.rest = bytes.len() - at - 1;
        }
        if !matches!(single, Ok(None)) {
            break;
        }
    }
    assert_eq!(whole, single);
    match whole {
        Ok(None) => assert!(bytes.len() <= rules.max_head),
        Ok(Some(accepted)) => {
            let head = &bytes[..bytes.len() - accepted.rest];
            assert!(head.len() <= rules.max_head && head.ends_with(b"\n"));
            // nothing of the request gets into the answer, but for the key's digest
            let lines: Vec<_> = accepted.answer.split("\r\n").collect();
            let expected = 6 + usize::from(accepted.subprotocol.is_some());
            assert_eq!((lines[0], lines.len()), ("HTTP/1.1 101 Switching Protocols", expected));
            assert_eq!(accepted.headers.len(), wanted.len());
            let reference = tungstenite::accept(Wire(Cursor::new(head.to_vec())));
            if let (true, Err(error)) = (is_plain(head), reference) {
                panic!("right to us, wrong to the reference: {error}");
            }
        }
        Err(refusal) => {
            assert!([400, 403, 404, 405, 426, 431].contains(&refusal.status));
            let answer = refusal.answer();
            let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
            assert!(head.ends_with(&format!("Content-Length: {}", body.len())));
        }
    }
}

/// Whether a request is for the path alone, and has `Upgrade` and `Connection` once, the first with one value: to the reference
/// they are no lists, as HTTP says they are, and it judges queries, which mean nothing here.
fn is_plain(head: &[u8]) -> bool {
    let text = String::from_utf8_lossy(head).to_ascii_lowercase();
    let fields = || text.lines().filter_map(|line| line.split_once(':'));
    let connections = fields().filter(|(name, _)| *name == "connection").count();
    let upgrades: Vec<_> =
        fields().filter(|(name, _)| *name == "upgrade").map(|(_, value)| value.trim()).collect();
    text.starts_with("get /mqtt http/1.1") && connections == 1 && upgrades == ["websocket"]
}
