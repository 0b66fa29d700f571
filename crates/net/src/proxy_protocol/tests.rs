use std::net::{Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;

use super::*;

const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

fn addr(text: &str) -> Option<SocketAddr> {
    Some(text.parse().unwrap())
}

fn relayed(version: Version, source: &str, destination: &str) -> Header {
    Header {
        version,
        command: Command::Proxy,
        source: addr(source),
        destination: addr(destination),
        unique_id: None,
        tlvs: Vec::new(),
    }
}

fn without_addresses(version: Version, command: Command) -> Header {
    Header { version, command, source: None, destination: None, unique_id: None, tlvs: Vec::new() }
}

/// A version 2 header from its parts, with the right length.
fn v2(version_and_command: u8, family: u8, block: &[&[u8]]) -> Vec<u8> {
    let block = block.concat();
    let mut bytes = SIGNATURE.to_vec();
    bytes.extend([version_and_command, family]);
    bytes.extend(u16::try_from(block.len()).unwrap().to_be_bytes());
    bytes.extend(block);
    bytes
}

/// 192.0.2.1:40000 to 192.0.2.9:1883.
const V4: &[u8] = &[192, 0, 2, 1, 192, 0, 2, 9, 0x9C, 0x40, 0x07, 0x5B];

/// [2001:db8::1]:40000 to [2001:db8::9]:1883.
fn v6() -> Vec<u8> {
    let address = |last| {
        let mut bytes = [0; 16];
        bytes[..4].copy_from_slice(&[0x20, 0x01, 0x0d, 0xb8]);
        bytes[15] = last;
        bytes
    };
    [&address(1)[..], &address(9), &[0x9C, 0x40, 0x07, 0x5B]].concat()
}

/// Right headers and what they say.
fn right() -> Vec<(Vec<u8>, Header)> {
    let v1 = |line: &str, header| (line.as_bytes().to_vec(), header);
    let relayed_v4 = || relayed(Version::V2, "192.0.2.1:40000", "192.0.2.9:1883");
    let relayed_v6 = || relayed(Version::V2, "[2001:db8::1]:40000", "[2001:db8::9]:1883");
    let unknown = || without_addresses(Version::V1, Command::Proxy);
    let longest = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff";
    vec![
        v1(
            "PROXY TCP4 192.0.2.1 192.0.2.9 40000 1883\r\n",
            relayed(Version::V1, "192.0.2.1:40000", "192.0.2.9:1883"),
        ),
        v1(
            "PROXY TCP4 0.0.0.0 255.255.255.255 0 65535\r\n",
            relayed(Version::V1, "0.0.0.0:0", "255.255.255.255:65535"),
        ),
        v1("PROXY TCP6 2001:db8::1 ::1 1 2\r\n", relayed(Version::V1, "[2001:db8::1]:1", "[::1]:2")),
        v1(
            "PROXY TCP6 2001:DB8::1 ::ffff:1.2.3.4 1 2\r\n",
            relayed(Version::V1, "[2001:db8::1]:1", "[::ffff:1.2.3.4]:2"),
        ),
        v1(
            &format!("PROXY TCP6 {longest} {longest} 65535 65535\r\n"),
            relayed(Version::V1, &format!("[{longest}]:65535"), &format!("[{longest}]:65535")),
        ),
        v1("PROXY UNKNOWN\r\n", unknown()),
        v1("PROXY UNKNOWN whatever stands \u{e4} here\r\n", unknown()),
        v1(&format!("PROXY UNKNOWN {}\r\n", "x".repeat(V1_MAX - 16)), unknown()),
        (v2(0x20, 0x00, &[]), without_addresses(Version::V2, Command::Local)),
        // LOCAL: the family and the block are ignored, whatever they are.
        (v2(0x20, 0xFF, &[b"\x03\xFF\xFFno tlv"]), without_addresses(Version::V2, Command::Local)),
        (v2(0x21, 0x00, &[b"ignored"]), without_addresses(Version::V2, Command::Proxy)),
        (v2(0x21, 0x11, &[V4]), relayed_v4()),
        (v2(0x21, 0x12, &[V4]), relayed_v4()),
        (v2(0x21, 0x21, &[&v6()]), relayed_v6()),
        (v2(0x21, 0x22, &[&v6()]), relayed_v6()),
        (v2(0x21, 0x31, &[&[b'u'; 216]]), without_addresses(Version::V2, Command::Proxy)),
        (
            v2(0x21, 0x32, &[&[0; 216], &[TLV_UNIQUE_ID, 0, 1, 7]]),
            Header { unique_id: Some(vec![7]), ..without_addresses(Version::V2, Command::Proxy) },
        ),
        (
            // ALPN, padding, an empty custom one, a unique id, ALPN once more: kept in order.
            v2(
                0x21,
                0x11,
                &[V4, &[1, 0, 4], b"mqtt", &[4, 0, 2, 9, 9, 0xE0, 0, 0, 5, 0, 2], b"id", &[1, 0, 1], b"x"],
            ),
            Header {
                unique_id: Some(b"id".to_vec()),
                tlvs: vec![
                    Tlv { kind: 1, value: b"mqtt".to_vec() },
                    Tlv { kind: 0xE0, value: vec![] },
                    Tlv { kind: 1, value: b"x".to_vec() },
                ],
                ..relayed_v4()
            },
        ),
        // The sum was made by another implementation of CRC-32C (Python, bit by bit).
        (v2(0x21, 0x11, &[V4, &[3, 0, 4], &CRC_OF_V4]), relayed_v4()),
    ]
}

/// See [`right`] and the check of [`crc32c`] against the catalogue.
const CRC_OF_V4: [u8; 4] = [0x76, 0xAB, 0x0F, 0xA3];

#[test]
fn right_headers_are_read_and_what_follows_is_left() {
    for (bytes, header) in right() {
        let expected = Ok(Parsed::Header(header, bytes.len()));
        assert_eq!(parse(&bytes), expected, "{}", bytes.escape_ascii());
        let more = [&bytes[..], b"\x10\x0c\0\x04MQTT"].concat();
        assert_eq!(parse(&more), expected, "{}", more.escape_ascii());
    }
}

#[test]
fn every_beginning_asks_for_more_and_never_for_too_much() {
    for (bytes, header) in right() {
        for length in 0..bytes.len() {
            let Ok(Parsed::Incomplete(wanted)) = parse(&bytes[..length]) else {
                panic!("{length} bytes of {}", bytes.escape_ascii());
            };
            assert!(length < wanted && wanted <= bytes.len(), "{length} {wanted} {}", bytes.escape_ascii());
        }
        // Who reads only what is asked for arrives at the header and not beyond.
        let mut have = 0;
        while let Ok(Parsed::Incomplete(wanted)) = parse(&bytes[..have]) {
            have = wanted;
        }
        assert_eq!(parse(&bytes[..have]), Ok(Parsed::Header(header, have)));
    }
}

#[test]
fn wrong_lines_are_refused() {
    for line in [
        "PROXY \r\n",
        "PROXY TCP4\r\n",
        "PROXY TCP5 1.2.3.4 1.2.3.4 1 2\r\n",
        "PROXY tcp4 1.2.3.4 1.2.3.4 1 2\r\n",
        "PROXY TCP4 1.2.3.4 1.2.3.4 1\r\n",
        "PROXY TCP4 1.2.3.4 1.2.3.4 1 2 3\r\n",
        "PROXY TCP4 1.2.3.4 1.2.3.4 1 2 \r\n",
        "PROXY TCP4  1.2.3.4 1.2.3.4 1 2\r\n",
        "PROXY  TCP4 1.2.3.4 1.2.3.4 1 2\r\n",
        "PROXY TCP4\t1.2.3.4 1.2.3.4 1 2\r\n",
        "PROXY TCP4 1.2.3.4 1.2.3.256 1 2\r\n",
        "PROXY TCP4 1.2.3.04 1.2.3.4 1 2\r\n",
        "PROXY TCP4 1.2.3 1.2.3.4 1 2\r\n",
        "PROXY TCP4 ::1 ::1 1 2\r\n",
        "PROXY TCP6 1.2.3.4 1.2.3.4 1 2\r\n",
        "PROXY TCP6 fe80::1%eth0 ::1 1 2\r\n",
        "PROXY TCP6 [::1] [::1] 1 2\r\n",
        "PROXY TCP4 1.2.3.4 1.2.3.4 65536 2\r\n",
        "PROXY TCP4 1.2.3.4 1.2.3.4 01 2\r\n",
        "PROXY TCP4 1.2.3.4 1.2.3.4 +1 2\r\n",
        "PROXY TCP4 1.2.3.4 1.2.3.4 -1 2\r\n",
        "PROXY TCP4 1.2.3.4 1.2.3.4  2\r\n",
        "PROXY UNKNOWNS\r\n",
        "PROXY TCP4 1.2.3.4 1.2.3.4 1 2\n",
        "PROXY TCP4 1.2.3.4 1.2.3.4 1 2\rX",
        "PROXY TCP4 1.2.3.4\n1.2.3.4 1 2\r\n",
    ] {
        assert!(matches!(parse(line.as_bytes()), Err(ProxyError::Line(_))), "{}", line.escape_debug());
    }
    assert!(matches!(parse(b"PROXY TCP4 1.2.3.\xFF 1.2.3.4 1 2\r\n"), Err(ProxyError::Line(_))));
}

#[test]
fn a_line_has_107_bytes_at_most() {
    let line = |length: usize| format!("PROXY UNKNOWN {}\r\n", "x".repeat(length - 16)).into_bytes();
    assert!(matches!(parse(&line(V1_MAX)), Ok(Parsed::Header(_, V1_MAX))));
    // The CR is byte 107, the LF is beyond.
    assert_eq!(parse(&line(V1_MAX + 1)), Err(ProxyError::LineTooLong));
    let endless = [b"PROXY UNKNOWN ".to_vec(), vec![b'x'; 10_000]].concat();
    assert_eq!(parse(&endless[..V1_MAX - 1]), Ok(Parsed::Incomplete(V1_MAX)));
    assert_eq!(parse(&endless[..V1_MAX]), Err(ProxyError::LineTooLong));
    assert_eq!(parse(&endless), Err(ProxyError::LineTooLong));
}

#[test]
fn what_is_no_proxy_header_is_told_by_its_first_bytes() {
    // CONNECT, TLS, HTTP, other words, and a near miss of each signature at every place.
    let mut others: Vec<Vec<u8>> =
        [&b"\x10\x0c\0\x04MQTT"[..], b"\x16\x03\x01", b"GET / HTTP/1.1", b"PUT /", b"\n", b"\0"]
            .iter()
            .map(|bytes| bytes.to_vec())
            .collect();
    for signature in [&b"PROXY "[..], SIGNATURE] {
        for at in 0..signature.len() {
            let mut near = signature.to_vec();
            near[at] ^= 0x20;
            others.push(near);
        }
    }
    for bytes in others {
        assert_eq!(parse(&bytes), Ok(Parsed::NotProxy), "{}", bytes.escape_ascii());
    }
    for first in 0..=u8::MAX {
        if !matches!(first, b'P' | b'\r') {
            assert_eq!(parse(&[first]), Ok(Parsed::NotProxy));
        }
    }
}

#[test]
fn wrong_version_2_headers_are_refused() {
    for (bytes, error) in [
        (v2(0x11, 0x11, &[V4]), ProxyError::Version(1)),
        (v2(0x31, 0x11, &[V4]), ProxyError::Version(3)),
        (v2(0x22, 0x11, &[V4]), ProxyError::Command(2)),
        (v2(0x2F, 0x11, &[V4]), ProxyError::Command(15)),
        (v2(0x21, 0x01, &[V4]), ProxyError::Family(0x01)),
        (v2(0x21, 0x10, &[V4]), ProxyError::Family(0x10)),
        (v2(0x21, 0x13, &[V4]), ProxyError::Family(0x13)),
        (v2(0x21, 0x41, &[V4]), ProxyError::Family(0x41)),
        (v2(0x21, 0x11, &[&V4[..11]]), ProxyError::Addresses(11)),
        (v2(0x21, 0x11, &[]), ProxyError::Addresses(0)),
        (v2(0x21, 0x21, &[&v6()[..35]]), ProxyError::Addresses(35)),
        (v2(0x21, 0x31, &[&[0; 215]]), ProxyError::Addresses(215)),
        (v2(0x21, 0x11, &[V4, &[9]]), ProxyError::Tlv(9)),
        (v2(0x21, 0x11, &[V4, &[9, 0]]), ProxyError::Tlv(9)),
        (v2(0x21, 0x11, &[V4, &[9, 0, 1]]), ProxyError::Tlv(9)),
        (v2(0x21, 0x11, &[V4, &[9, 0xFF, 0xFF, 1]]), ProxyError::Tlv(9)),
        (v2(0x21, 0x11, &[V4, &[5, 0, 1, 1, 5, 0, 1, 2]]), ProxyError::Tlv(5)),
        (v2(0x21, 0x11, &[V4, &[3, 0, 3, 0, 0, 0]]), ProxyError::Tlv(3)),
        (v2(0x21, 0x11, &[V4, &[3, 0, 4], &CRC_OF_V4, &[3, 0, 4], &CRC_OF_V4]), ProxyError::Checksum),
        (v2(0x21, 0x11, &[V4, &[3, 0, 4, 1, 2, 3, 4]]), ProxyError::Checksum),
    ] {
        assert_eq!(parse(&bytes), Err(error), "{}", bytes.escape_ascii());
    }
}

#[test]
fn a_doubled_checksum_is_refused_even_when_the_first_is_right() {
    let mut bytes = v2(0x21, 0x11, &[V4, &[3, 0, 4, 0, 0, 0, 0, 3, 0, 4, 0, 0, 0, 0]]);
    let sum = crc32c::checksum(&[&bytes]).to_be_bytes();
    bytes[31..35].copy_from_slice(&sum);
    assert_eq!(parse(&bytes), Err(ProxyError::Tlv(3)));
}

#[test]
fn a_header_of_version_2_has_4_kib_at_most() {
    let padded = |total: usize| {
        let padding = total - 16 - V4.len() - 3;
        let length = u16::try_from(padding).unwrap().to_be_bytes();
        v2(0x21, 0x11, &[V4, &[TLV_NOOP], &length, &vec![0; padding]])
    };
    assert!(matches!(parse(&padded(V2_MAX)), Ok(Parsed::Header(_, V2_MAX))));
    assert_eq!(parse(&padded(V2_MAX + 1)), Err(ProxyError::TooLong(V2_MAX + 1)));
    // Refused by its length alone: nobody waits for bytes that will not be read.
    assert_eq!(parse(&padded(V2_MAX + 1)[..16]), Err(ProxyError::TooLong(V2_MAX + 1)));
    assert_eq!(parse(&padded(V2_MAX)[..16]), Ok(Parsed::Incomplete(V2_MAX)));
    assert_eq!(parse(&v2(0x20, 0, &[&vec![0; 65_535]])), Err(ProxyError::TooLong(65_551)));
}

#[test]
fn a_unique_id_has_128_bytes_at_most() {
    let with =
        |length: u8| v2(0x21, 0x11, &[V4, &[TLV_UNIQUE_ID, 0, length], &vec![b'i'; usize::from(length)]]);
    let Ok(Parsed::Header(header, _)) = parse(&with(128)) else { panic!() };
    assert_eq!(header.unique_id, Some(vec![b'i'; UNIQUE_ID_MAX]));
    assert_eq!(parse(&with(129)), Err(ProxyError::Tlv(TLV_UNIQUE_ID)));
}

#[test]
fn any_changed_bit_breaks_the_checksum() {
    let mut bytes = Vec::new();
    // The checksum comes first, so that no changed length of another TLV can hide it.
    let tlvs = [Tlv { kind: TLV_CRC32C, value: vec![] }, Tlv { kind: 1, value: b"mqtt".to_vec() }];
    assert!(encode_v2(addr("1.2.3.4:5").unwrap(), addr("6.7.8.9:10").unwrap(), &tlvs, &mut bytes));
    assert!(matches!(parse(&bytes), Ok(Parsed::Header(..))));
    let checksum_tlv = 28..31; // its own type and length decide whether there is a checksum
    for bit in 16 * 8..bytes.len() * 8 {
        let mut changed = bytes.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        if !checksum_tlv.contains(&(bit / 8)) {
            let refused = parse(&changed).unwrap_err();
            assert!(matches!(refused, ProxyError::Checksum | ProxyError::Tlv(_)), "bit {bit}: {refused}");
        }
    }
}

#[test]
fn our_own_lines_are_the_examples_of_the_specification() {
    let encode = |source: &str, destination: &str| {
        let mut out = b"before".to_vec();
        encode_v1(addr(source).unwrap(), addr(destination).unwrap(), &mut out);
        String::from_utf8(out).unwrap()
    };
    assert_eq!(
        encode("192.168.0.1:56324", "192.168.0.11:443"),
        "beforePROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\n"
    );
    assert_eq!(encode("[2001:db8::1]:1", "[::1]:2"), "beforePROXY TCP6 2001:db8::1 ::1 1 2\r\n");
    // "mixed" families: the IPv4 address is mapped.
    assert_eq!(encode("192.168.0.1:1", "[::1]:2"), "beforePROXY TCP6 ::ffff:192.168.0.1 ::1 1 2\r\n");
    let mut out = Vec::new();
    encode_v1_unknown(&mut out);
    assert_eq!(parse(&out), Ok(Parsed::Header(without_addresses(Version::V1, Command::Proxy), out.len())));
}

#[test]
fn our_own_local_header_is_16_bytes() {
    let mut out = b"before".to_vec();
    encode_v2_local(&mut out);
    assert_eq!(&out[6..], v2(0x20, 0x00, &[]));
}

#[test]
fn tlvs_beyond_the_bound_are_left_out_and_said_so() {
    let (source, destination) = (addr("1.2.3.4:5").unwrap(), addr("6.7.8.9:10").unwrap());
    let room = V2_MAX - 16 - 12 - 3;
    for (length, fits) in [(room, true), (room + 1, false), (70_000, false)] {
        let mut out = b"before".to_vec();
        let tlvs = [Tlv { kind: 0xE1, value: vec![7; length] }, Tlv { kind: 0xE2, value: vec![] }];
        assert_eq!(encode_v2(source, destination, &tlvs[..1], &mut out), fits);
        let Ok(Parsed::Header(header, consumed)) = parse(&out[6..]) else { panic!("{length}") };
        assert_eq!((consumed, header.tlvs.len()), (out.len() - 6, usize::from(fits)));
        assert!(!encode_v2(source, destination, &tlvs, &mut Vec::new()));
    }
}

#[test]
fn trusted_are_this_machine_and_private_networks_unless_said_otherwise() {
    let ip = |text: &str| text.parse::<IpAddr>().unwrap();
    let default = TrustedProxies::default();
    assert!(default.allows(ip("127.0.0.1")) && default.allows(ip("::ffff:10.0.0.1")));
    assert!(!default.allows(ip("192.0.2.1")));
    let own = TrustedProxies::new(vec!["192.0.2.0/24".parse().unwrap()]);
    assert!(own.allows(ip("192.0.2.1")) && !own.allows(ip("127.0.0.1")));
    assert!(!TrustedProxies::new(vec![]).allows(ip("127.0.0.1")));
}

fn socket_addr() -> impl Strategy<Value = SocketAddr> {
    let v4 = any::<u32>().prop_map(|bits| IpAddr::V4(Ipv4Addr::from_bits(bits)));
    let v6 = any::<u128>().prop_map(|bits| IpAddr::V6(Ipv6Addr::from_bits(bits)));
    (prop_oneof![v4, v6], any::<u16>()).prop_map(|(ip, port)| SocketAddr::new(ip, port))
}

fn tlv() -> impl Strategy<Value = Tlv> {
    let kind = prop_oneof![Just(TLV_NOOP), 0x20u8..=0xFF];
    (kind, prop::collection::vec(any::<u8>(), 0..300)).prop_map(|(kind, value)| Tlv { kind, value })
}

/// The addresses as a header gives them back: in one family.
fn in_one_family(source: SocketAddr, destination: SocketAddr) -> (SocketAddr, SocketAddr) {
    let map = |addr: SocketAddr| match addr.ip() {
        IpAddr::V4(v4) => SocketAddr::new(v4.to_ipv6_mapped().into(), addr.port()),
        IpAddr::V6(_) => addr,
    };
    if source.is_ipv4() == destination.is_ipv4() {
        (source, destination)
    } else {
        (map(source), map(destination))
    }
}

proptest! {
    #[test]
    fn what_is_written_reads_back(
        source in socket_addr(),
        destination in socket_addr(),
        tlvs in prop::collection::vec(tlv(), 0..6),
        id in prop::option::of(prop::collection::vec(any::<u8>(), 0..=128)),
        checksum_at in prop::option::of(0usize..8),
        before in prop::collection::vec(any::<u8>(), 0..20),
    ) {
        let (mapped_source, mapped_destination) = in_one_family(source, destination);
        let mut out = before.clone();
        encode_v1(source, destination, &mut out);
        let expected = Header {
            source: Some(mapped_source),
            destination: Some(mapped_destination),
            ..without_addresses(Version::V1, Command::Proxy)
        };
        prop_assert_eq!(parse(&out[before.len()..]), Ok(Parsed::Header(expected.clone(), out.len() - before.len())));

        let mut all = tlvs.clone();
        if let Some(id) = &id {
            all.insert(all.len() / 2, Tlv { kind: TLV_UNIQUE_ID, value: id.clone() });
        }
        if let Some(at) = checksum_at {
            all.insert(at.min(all.len()), Tlv { kind: TLV_CRC32C, value: b"any".to_vec() });
        }
        let mut out = before.clone();
        prop_assert!(encode_v2(source, destination, &all, &mut out));
        let kept = tlvs.into_iter().filter(|tlv| tlv.kind != TLV_NOOP).collect();
        let expected = Header { version: Version::V2, unique_id: id, tlvs: kept, ..expected };
        prop_assert_eq!(parse(&out[before.len()..]), Ok(Parsed::Header(expected, out.len() - before.len())));
    }

    /// Bytes of all kinds, most of them with a right beginning: an answer, never a panic, and the answer does not
    /// change by what comes later.
    #[test]
    fn any_bytes_have_an_answer_that_more_bytes_do_not_change(
        start in prop_oneof![
            Just(Vec::new()), Just(b"PROXY ".to_vec()), Just(b"PROXY TCP4 1.2.3.4 ".to_vec()), Just(SIGNATURE.to_vec()),
            Just(v2(0x21, 0x11, &[])[..14].to_vec()), Just([SIGNATURE, &[0x21, 0x11, 0, 40], V4].concat()),
        ],
        rest in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..200),
            prop::collection::vec(0u8..6, 0..200),
            "[0-9. TCPUNKOW:\r\n]{0,120}".prop_map(String::into_bytes),
        ],
        cut in any::<prop::sample::Index>(),
    ) {
        let bytes = [start, rest].concat();
        let cut = cut.index(bytes.len() + 1);
        let (early, whole) = (parse(&bytes[..cut]), parse(&bytes));
        match early {
            Ok(Parsed::Incomplete(wanted)) => {
                prop_assert!(wanted > cut && wanted <= V2_MAX);
                // Fewer bytes than were asked for are never enough.
                if bytes.len() < wanted {
                    prop_assert!(!matches!(whole, Ok(Parsed::Header(..))), "{:?}", whole);
                }
            }
            decided => prop_assert_eq!(decided, whole),
        }
    }
}

mod live {
    use std::time::Duration;

    use tokio::io::AsyncWriteExt;
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    fn block_on<T>(work: impl Future<Output = T>) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime
            .block_on(async { tokio::time::timeout(Duration::from_secs(20), work).await.expect("in time") })
    }

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        client.set_nodelay(true).unwrap();
        (client, listener.accept().await.unwrap().0)
    }

    #[test]
    fn the_clients_first_bytes_stay_in_the_buffer() {
        block_on(async {
            for (bytes, header) in right() {
                let (mut client, server) = pair().await;
                client.write_all(&[&bytes[..], b"\x10\x0c\0\x04MQTT"].concat()).await.unwrap();
                client.shutdown().await.unwrap();
                let mut buffer = Vec::new();
                assert_eq!(read_header(&server, &mut buffer).await.unwrap(), header);
                while crate::read::read_into(&server, &mut buffer, 100).await.unwrap() > 0 {}
                assert_eq!(buffer, b"\x10\x0c\0\x04MQTT");
            }
        });
    }

    #[test]
    fn a_header_may_come_byte_by_byte() {
        block_on(async {
            let (bytes, header) = right().swap_remove(0);
            let (mut client, server) = pair().await;
            let send = async {
                for byte in bytes {
                    client.write_all(&[byte]).await.unwrap();
                    tokio::task::yield_now().await;
                }
            };
            let mut buffer = Vec::new();
            let (got, ()) = tokio::join!(read_header(&server, &mut buffer), send);
            assert_eq!(got.unwrap(), header);
            assert!(buffer.is_empty());
        });
    }

    #[test]
    fn what_is_no_header_has_its_own_error() {
        let read = |bytes: &'static [u8]| {
            block_on(async {
                let (mut client, server) = pair().await;
                client.write_all(bytes).await.unwrap();
                client.shutdown().await.unwrap();
                let mut buffer = Vec::new();
                read_header(&server, &mut buffer).await.unwrap_err()
            })
        };
        assert!(matches!(read(b"\x10\x0c"), ReadError::NotProxy));
        assert!(matches!(read(b"PROXY TCP4 1"), ReadError::Closed));
        assert!(matches!(read(b""), ReadError::Closed));
        assert!(matches!(read(b"PROXY TCP5\r\n"), ReadError::Malformed(ProxyError::Line(_))));
    }

    #[test]
    fn an_endless_header_is_refused_at_its_bound() {
        block_on(async {
            let (mut client, server) = pair().await;
            client.write_all(&[&b"PROXY UNKNOWN "[..], &[b'x'; 60_000]].concat()).await.unwrap();
            let mut buffer = Vec::new();
            let error = read_header(&server, &mut buffer).await.unwrap_err();
            assert!(matches!(error, ReadError::Malformed(ProxyError::LineTooLong)), "{error}");
            assert!(buffer.len() <= V2_MAX && buffer.capacity() <= 2 * V2_MAX);
        });
    }
}
