//! The seeds of the fuzzers (`fuzz/seeds`) that this crate's oracles take.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;

use net::proxy_protocol::{
    TLV_CRC32C, TLV_NOOP, TLV_UNIQUE_ID, Tlv, encode_v1, encode_v1_unknown, encode_v2, encode_v2_local,
};
use net::ws::{ClientHandshake, Handshake, Rules, frame};

#[path = "../../../mqtt/tests/suite/seed_files.rs"]
mod seed_files;

const MASK: Option<[u8; 4]> = Some([0x37, 0xfa, 0x21, 0x3d]);

/// Path below `fuzz/seeds`, and content.
pub(crate) fn seeds() -> BTreeMap<String, Vec<u8>> {
    let mut seeds = BTreeMap::new();
    let mut add = |target: &str, name: &str, bytes: &[u8]| {
        seeds.insert(format!("{target}/{name}"), bytes.to_vec());
    };
    frames(&mut |name, bytes| add("ws_frames", name, bytes));
    handshakes(&mut |name, bytes| add("ws_handshake", name, bytes));
    proxy_headers(&mut |name, bytes| add("proxy_protocol", name, bytes));
    for (name, text) in [
        ("one", "X-Forwarded-For\n203.0.113.7"),
        ("chain", "X-Forwarded-For\n192.0.2.1, 203.0.113.7:4711, 10.1.1.1,127.0.0.1"),
        ("v6", "X-Forwarded-For\n[2001:db8::1]:99, fd00::1, ::ffff:10.0.0.9"),
        ("garbage", "X-Real-IP\nunknown, 10.0.0.3"),
        ("rfc7239", "Forwarded\nfor=192.0.2.60;proto=http;by=203.0.113.43, for=\"[2001:db8:cafe::17]:4711\""),
        ("hidden", "forwarded\nFor=\"_gazonk\", for=unknown"),
    ] {
        add("forwarded", name, text.as_bytes());
    }
    seeds
}

fn frames(add: &mut dyn FnMut(&str, &[u8])) {
    let written = |write: &dyn Fn(&mut Vec<u8>)| {
        let mut out = Vec::new();
        write(&mut out);
        out
    };
    let connect = b"\x10\x0d\0\x04MQTT\x04\x02\0\x3c\0\x01x";
    let binary = written(&|out| frame::binary(connect, MASK, out));
    add("binary", &binary);
    add("medium", &written(&|out| frame::binary(&[7; 200], MASK, out)));
    add("of_a_server", &written(&|out| frame::binary(connect, None, out)));
    add("ping", &written(&|out| frame::ping(b"are you there", MASK, out)));
    add("pong", &written(&|out| frame::pong(b"", MASK, out)));
    add("close", &written(&|out| frame::close(1000, MASK, out)));
    add("close_of_a_server", &[0x88, 7, 0x03, 0xE9, b'l', b'a', b't', b'e', b'r']);
    add("close_empty", &[0x88, 0x80, 1, 2, 3, 4]);
    let mut text = binary.clone();
    text[0] = 0x81;
    add("text", &text);
    let mut fragments = written(&|out| frame::binary(&connect[..4], MASK, out));
    fragments[0] = 0x02;
    frame::ping(b"between", MASK, &mut fragments);
    let rest = fragments.len();
    frame::binary(&connect[4..], MASK, &mut fragments);
    fragments[rest] = 0x80;
    add("fragments", &fragments);
    add("length_of_eight_bytes", &[0x82, 0xFF, 0, 0, 0, 0, 0, 1, 0, 0, 1, 2, 3, 4, 5]);
}

fn handshakes(add: &mut dyn FnMut(&str, &[u8])) {
    let (_, request) = ClientHandshake::new("example.com:8083", "/mqtt", [7; 16]);
    add("request", request.as_bytes());
    let accepted = Handshake::new(&Rules::default(), &[]).receive(request.as_bytes());
    add("answer", accepted.ok().flatten().expect("a right request").answer.as_bytes());
    add("refusal", b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n");
    let more = "Origin: https://example.com\r\nX-Forwarded-For: 203.0.113.7\r\nForwarded: for=192.0.2.1\r\n\
                X-Forwarded-For: 10.0.0.1\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\nframes";
    add("browser", request.replacen("\r\n\r\n", &format!("\r\n{more}"), 1).as_bytes());
    add("absolute", request.replacen("/mqtt", "http://example.com:8083/mqtt?a=b", 1).as_bytes());
    add("get", b"GET /mqtt HTTP/1.1\r\nHost: x\r\n\r\n");
    add("post", b"POST / HTTP/1.1\nHost: x\nContent-Length: 5\n\nhello");
    add("mqtt", b"\x10\x0d\0\x04MQTT\x04\x02\0\x3c\0\x01x");
}

fn proxy_headers(add: &mut dyn FnMut(&str, &[u8])) {
    let address = |text: &str| -> SocketAddr { text.parse().expect("an address") };
    let (v4, other_v4) = (address("192.0.2.1:40000"), address("192.0.2.9:1883"));
    let (v6, other_v6) = (address("[2001:db8::1]:40000"), address("[2001:db8::9]:1883"));
    for (name, source, destination) in [("v4", v4, other_v4), ("v6", v6, other_v6), ("mixed", v4, other_v6)] {
        let mut out = Vec::new();
        encode_v1(source, destination, &mut out);
        out.extend(b"\x10\x0c");
        add(&format!("v1_{name}"), &out);
        let mut out = Vec::new();
        let tlvs = [
            Tlv { kind: 0x02, value: b"example.com".to_vec() },
            Tlv { kind: TLV_CRC32C, value: vec![0; 4] },
            Tlv { kind: TLV_UNIQUE_ID, value: b"id-1".to_vec() },
            Tlv { kind: TLV_NOOP, value: vec![0; 3] },
        ];
        assert!(encode_v2(source, destination, &tlvs, &mut out));
        add(&format!("v2_{name}"), &out);
        out.clear();
        assert!(encode_v2(source, destination, &tlvs[2..3], &mut out));
        add(&format!("v2_{name}_id"), &out);
    }
    let mut out = Vec::new();
    encode_v1_unknown(&mut out);
    add("v1_unknown", &out);
    out.clear();
    encode_v2_local(&mut out);
    add("v2_local", &out);
    add("mqtt", b"\x10\x0c\0\x04MQTT");
    add("v1_without_end", b"PROXY TCP4 192.0.2.1 192.0.2.9 40000");
}

#[test]
fn the_seeds_of_the_fuzzers_are_these() {
    seed_files::check(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../.."), &seeds());
}
