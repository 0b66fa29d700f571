//! Opening handshakes.

use proptest::prelude::*;
use tungstenite::handshake::derive_accept_key;

use super::*;
use crate::ws::handshake::accept_key;

/// A right request, from which a test changes one line.
const LINES: [&str; 7] = [
    "GET /mqtt HTTP/1.1",
    "Host: broker.example:8083",
    "Upgrade: websocket",
    "Connection: keep-alive, Upgrade",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Protocol: mqtt",
];

fn request(lines: &[&str]) -> String {
    format!("{}\r\n\r\n", lines.join("\r\n"))
}

/// The same with the line that begins like this one replaced by it, or with it added.
fn with(line: &str) -> String {
    let name = line.split_inclusive([':', ' ']).next().unwrap();
    let mut lines = LINES.to_vec();
    match lines.iter().position(|l| l.starts_with(name)) {
        Some(at) => lines[at] = line,
        None => lines.push(line),
    }
    request(&lines)
}

fn without(name: &str) -> String {
    request(&LINES.into_iter().filter(|line| !line.starts_with(name)).collect::<Vec<_>>())
}

fn judged(rules: &Rules, request: &str) -> Result<Option<Accepted>, Refusal> {
    Handshake::new(rules, &[]).receive(request.as_bytes())
}

#[track_caller]
fn accepted(request: &str) -> Accepted {
    judged(&Rules::default(), request).unwrap().expect("a whole request")
}

/// The status of the refusal, or 101.
fn status(rules: &Rules, request: &str) -> u16 {
    match judged(rules, request) {
        Ok(Some(accepted)) => {
            assert!(accepted.answer.starts_with("HTTP/1.1 101 "));
            101
        }
        Ok(None) => panic!("the request has no end: {request:?}"),
        Err(refusal) => {
            let answer = refusal.answer();
            assert!(answer.starts_with(&format!("HTTP/1.1 {} ", refusal.status)), "{answer}");
            assert!(answer.contains("\r\nConnection: ") && answer.contains("close\r\n"), "{answer}");
            let (head, body) = answer.split_once("\r\n\r\n").unwrap();
            assert!(head.ends_with(&format!("Content-Length: {}", body.len())), "{answer}");
            refusal.status
        }
    }
}

#[test]
fn the_example_of_the_specification_gets_its_answer() {
    assert_eq!(
        accepted(&request(&LINES)).answer,
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n"
    );
}

#[test]
fn requests_that_differ_in_what_does_not_matter_are_accepted() {
    for line in [
        "GET /mqtt?token=x HTTP/1.1",
        "GET http://broker.example:8083/mqtt HTTP/1.1",
        "upgrade: WebSocket",
        "CONNECTION: upgrade",
        "Content-Length: 0",
        "Origin: https://anywhere.example",
        "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits",
    ] {
        let name = line.split([':', ' ']).next().unwrap();
        let same = |l: &&str| l.split([':', ' ']).next().unwrap().eq_ignore_ascii_case(name);
        let mut lines: Vec<_> = LINES.into_iter().filter(|l| !same(l)).chain([line]).collect();
        if let Some(at) = lines.iter().position(|l| l.starts_with("GET ")) {
            lines.swap(0, at);
        }
        assert_eq!(status(&Rules::default(), &request(&lines)), 101, "{lines:?}");
        let answer = accepted(&request(&lines)).answer;
        assert!(!answer.contains("Extensions"), "none is agreed on");
    }
    // lines that end with LF only
    assert_eq!(status(&Rules::default(), &request(&LINES).replace("\r\n", "\n")), 101);
}

/// [MQTT-6.0.0-3], [MQTT-6.0.0-4]
/// [v3 MQTT-6.0.0-3], [v3 MQTT-6.0.0-4]
#[test]
fn the_sub_protocol_is_that_of_mqtt() {
    for (offer, chosen) in [
        ("mqtt", "mqtt"),
        ("chat, mqtt", "mqtt"),
        ("mqttv3.1,mqtt", "mqtt"),
        ("mqttv3.1", "mqttv3.1"),
        ("mqtt-v5", "mqtt-v5"),
    ] {
        let accepted = accepted(&with(&format!("Sec-WebSocket-Protocol: {offer}")));
        assert_eq!(accepted.subprotocol, Some(chosen));
        assert!(accepted.answer.contains(&format!("Sec-WebSocket-Protocol: {chosen}\r\n")));
    }
    let lenient = Rules { fail_if_no_subprotocol: false, ..Rules::default() };
    for request in [without("Sec-WebSocket-Protocol"), with("Sec-WebSocket-Protocol: chat, MQTT")] {
        assert_eq!(status(&Rules::default(), &request), 400);
        let accepted = judged(&lenient, &request).unwrap().unwrap();
        assert!(!accepted.answer.contains("-Protocol"), "{}", accepted.answer);
    }
    // over two fields
    let twice =
        request(&[&LINES[..6], &["Sec-WebSocket-Protocol: chat", "Sec-WebSocket-Protocol: mqtt"]].concat());
    assert_eq!(accepted(&twice).subprotocol, Some("mqtt"));
}

#[test]
fn each_wrong_request_has_its_status() {
    let rules = Rules::default();
    for (request, expected) in [
        (with("POST /mqtt HTTP/1.1"), 400), // two request lines
        (request(&[&["PUT /mqtt HTTP/1.1"], &LINES[1..]].concat()), 405),
        (request(&["OPTIONS * HTTP/1.1", "Host: x"]), 405),
        (with("GET / HTTP/1.1"), 404),
        (with("GET /mqtt/ HTTP/1.1"), 404),
        (with("GET http://broker.example HTTP/1.1"), 404),
        (with("GET /mqtt HTTP/1.0"), 400),
        (with("GET /mqtt HTTP/2.0"), 400),
        (with("GET /mqtt"), 400),
        (without("Host"), 400),
        (without("Upgrade"), 426),
        (with("Upgrade: h2c"), 426),
        (without("Connection"), 426),
        (with("Connection: keep-alive"), 426),
        (without("Sec-WebSocket-Version"), 426),
        (with("Sec-WebSocket-Version: 8"), 426),
        (without("Sec-WebSocket-Key"), 400),
        (with("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ"), 400),
        (with("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZTE3"), 400),
        (with("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZTE3NzE3NzE3NzE3Nw=="), 400),
        (request(&[&LINES[..], &[LINES[4]]].concat()), 400),
        (request(&[&LINES[..], &[LINES[1]]].concat()), 400),
        (with("Transfer-Encoding: chunked"), 400),
        (with("Content-Length: 5"), 400),
        (with("No colon"), 400),
        ("\u{1}".to_owned(), 400),
        // TLS, MQTT, a PROXY header of version 2
        ("\u{16}\u{3}\u{1}".to_owned(), 400),
        ("\u{10}\u{e}\0\u{4}MQTT".to_owned(), 400),
        ("\r\n\r\n\0\r\nQUIT\n".to_owned(), 400),
    ] {
        assert_eq!(status(&rules, &request), expected, "{request:?}");
    }
    assert!(judged(&rules, &with("PUT / HTTP/1.1")).is_err());
    let refusal = |status| Refusal { status, what: "so" }.answer();
    assert!(refusal(405).contains("\r\nAllow: GET\r\n"));
    assert!(refusal(426).contains("\r\nUpgrade: websocket\r\n") && refusal(426).contains("-Version: 13\r\n"));
}

#[test]
fn a_request_has_a_bound_in_bytes_and_in_fields() {
    let rules = Rules { max_head: 1000, ..Rules::default() };
    let fixed = request(&LINES).len() + "Cookie: \r\n".len();
    let cookie = |length: usize| with(&format!("Cookie: {}", "c".repeat(length)));
    assert_eq!(status(&rules, &cookie(1000 - fixed)), 101);
    assert_eq!(status(&rules, &cookie(1001 - fixed)), 431);
    // without end
    let mut endless = Handshake::new(&rules, &[]);
    let ended = (0..1001).find_map(|_| endless.receive(b"G").err());
    assert_eq!(ended.unwrap().status, 431);

    let fields = |count| request(&[&LINES[..], &vec!["X: y"; count - 6]].concat());
    assert_eq!(status(&Rules::default(), &fields(MAX_HEADERS)), 101);
    assert_eq!(status(&Rules::default(), &fields(MAX_HEADERS + 1)), 431);
}

#[test]
fn a_foreign_origin_is_refused_where_origins_are_listed() {
    let rules = Rules { allowed_origins: vec!["https://fleet.example".to_owned()], ..Rules::default() };
    assert_eq!(status(&rules, &request(&LINES)), 101, "no browser");
    assert_eq!(status(&rules, &with("Origin: https://fleet.example")), 101);
    assert_eq!(status(&rules, &with("Origin: HTTPS://Fleet.Example")), 101);
    for origin in ["http://fleet.example", "https://fleet.example:444", "https://evil.example", "null", ""] {
        assert_eq!(status(&rules, &with(&format!("Origin: {origin}"))), 403, "{origin}");
    }
}

#[test]
fn fields_that_were_asked_for_are_handed_out_and_frames_behind_the_request_are_not_lost() {
    let rules = Rules { path: "/ws/broker".to_owned(), ..Rules::default() };
    let mut lines = LINES.to_vec();
    lines[0] = "GET /ws/broker HTTP/1.1";
    lines.extend(["x-forwarded-for: 203.0.113.7", "X-Forwarded-For: 10.0.0.1", "X-Odd: \u{fc}"]);
    let mut bytes = request(&lines).into_bytes();
    bytes.extend(b"frames");
    let found =
        Handshake::new(&rules, &["X-Forwarded-For", "X-Real-IP", "X-Odd"]).receive(&bytes).unwrap().unwrap();
    assert_eq!(found.rest, 6);
    let values: Vec<_> = found.headers.iter().map(|field| field.value.as_deref()).collect();
    assert_eq!(values, [Some("203.0.113.7, 10.0.0.1"), None, Some("\u{fc}")]);
}

/// The bytes of the client's request go to the server as the cuts say, the answer back; both must agree.
fn shake(path: &str, nonce: [u8; 16], cut: usize) {
    let rules = Rules::default();
    let (mut client, asked) = ClientHandshake::new("broker.example:8083", path, nonce);
    let mut server = Handshake::new(&rules, &[]);
    let (front, back) = asked.as_bytes().split_at(cut % asked.len());
    assert_eq!(server.receive(front), Ok(None));
    let accepted = server.receive(back).unwrap().expect("all has come");
    assert_eq!((accepted.rest, accepted.subprotocol), (0, Some(MQTT)));
    let answer = format!("{}frames", accepted.answer);
    let (front, back) = answer.as_bytes().split_at(cut % accepted.answer.len());
    assert_eq!(client.receive(front), Ok(None));
    assert_eq!(client.receive(back), Ok(Some(6)));
}

proptest! {
    #[test]
    fn our_client_and_our_server_shake_hands_wherever_the_bytes_are_cut(nonce: [u8; 16], cut: usize) {
        shake("/mqtt", nonce, cut);
    }

    #[test]
    fn accept_keys_are_those_of_the_reference(key in prop::collection::vec(any::<u8>(), 0..40)) {
        prop_assert_eq!(accept_key(&key), derive_accept_key(&key));
    }

    #[test]
    fn a_request_of_any_bytes_is_judged_the_same_in_any_pieces(
        bytes in prop::collection::vec(prop_oneof![4 => b' '..=b'~', 1 => Just(b'\r'), 1 => Just(b'\n'), 1 => any::<u8>()], 0..200),
        at in 0..200usize,
    ) {
        let rules = Rules::default();
        // so that it goes deeper than the first byte
        let mut request = request(&LINES).into_bytes();
        let at = at % request.len();
        request.splice(at..at, bytes);
        let whole = Handshake::new(&rules, &["Host"]).receive(&request);
        let mut one_by_one = Handshake::new(&rules, &["Host"]);
        let mut single = Ok(None);
        for (at, byte) in request.iter().enumerate() {
            single = one_by_one.receive(&[*byte]);
            if let Ok(Some(accepted)) = &mut single {
                accepted.rest = request.len() - at - 1;
            }
            if !matches!(single, Ok(None)) {
                break;
            }
        }
        prop_assert_eq!(whole, single);
    }
}

/// tungstenite's client and server judge what we send.
#[test]
fn the_reference_shakes_hands_with_us() {
    let (_, request) = ClientHandshake::new("broker.example", "/mqtt", [7; 16]);
    let mut wire = Wire(Cursor::new(request.into_bytes()));
    tungstenite::accept(&mut wire).expect("a right request");

    struct Server {
        request: Vec<u8>,
        answer: Cursor<Vec<u8>>,
    }
    impl Write for Server {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.request.extend_from_slice(bytes);
            if let Some(accepted) = Handshake::new(&Rules::default(), &[]).receive(&self.request).unwrap() {
                self.answer = Cursor::new(accepted.answer.into_bytes());
            }
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    impl Read for Server {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            self.answer.read(buffer)
        }
    }
    let asked = tungstenite::ClientRequestBuilder::new("ws://broker.example/mqtt".parse().unwrap())
        .with_sub_protocol("mqtt");
    let server = Server { request: Vec::new(), answer: Cursor::default() };
    let (_, answer) = tungstenite::client(asked, server).expect("a right answer");
    assert_eq!(answer.headers()["Sec-WebSocket-Protocol"], "mqtt");
}

#[test]
fn a_client_believes_no_other_answer() {
    let judge = |change: &dyn Fn(&str) -> String| {
        let (mut client, request) = ClientHandshake::new("h", "/mqtt", [1; 16]);
        let answer = judged(&Rules::default(), &request).unwrap().unwrap().answer;
        client.receive(change(&answer).as_bytes())
    };
    assert_eq!(judge(&str::to_owned), Ok(Some(0)));
    for (from, to) in [
        ("HTTP/1.1", "SSH-2.0"),
        ("Upgrade: websocket\r\n", ""),
        ("Connection: Upgrade", "Connection: close"),
        ("Sec-WebSocket-Accept: ", "Sec-WebSocket-Accept: x"),
        ("Sec-WebSocket-Protocol: mqtt", "Sec-WebSocket-Protocol: chat"),
        ("Sec-WebSocket-Protocol: mqtt\r\n", ""),
        ("Sec-WebSocket-Protocol", "Sec-WebSocket-Extensions: x\r\nSec-WebSocket-Protocol"),
    ] {
        let judged = judge(&|answer| answer.replace(from, to));
        assert!(matches!(judged, Err(ClientError::Answer(_))), "{from}: {judged:?}");
    }
    let refused = judge(&|_| "HTTP/1.1 503 Later\r\nRetry-After: 5\r\n\r\n".to_owned());
    assert_eq!(refused, Err(ClientError::Status { status: 503, reason: "Later".to_owned() }));
    assert_eq!(
        refused.unwrap_err().to_string(),
        "the server answers 503 (Later) instead of opening a WebSocket"
    );
    let endless = judge(&|_| format!("HTTP/1.1 101 {}", "x".repeat(20_000)));
    assert_eq!(endless, Err(ClientError::Answer("it is too long")));
}

#[test]
fn nothing_can_be_smuggled_into_a_request() {
    let (_, request) = ClientHandshake::new("h\r\nX: y", "/m qtt\r\nZ: w", [0; 16]);
    assert!(request.starts_with("GET /mqttZ:w HTTP/1.1\r\nHost: hX:y\r\nUpgrade"), "{request}");
}
