//! The first bytes of a connection behind a proxy.

use net::proxy_protocol::{
    Command, Header, Parsed, TLV_UNIQUE_ID, Tlv, V2_MAX, Version, encode_v1, encode_v2, parse,
};

/// Reads the front of `bytes` at every length; panics if the parser contradicts itself or the encoder.
pub(crate) fn check(bytes: &[u8]) {
    let whole = parse(bytes);
    for cut in 0..bytes.len().min(300) {
        match parse(&bytes[..cut]) {
            Ok(Parsed::Incomplete(wanted)) => {
                assert!(wanted > cut && wanted <= V2_MAX);
                match &whole {
                    Ok(Parsed::Header(_, consumed)) => assert!(wanted <= *consumed),
                    Ok(Parsed::Incomplete(later)) => assert!(wanted <= *later),
                    _ => {}
                }
            }
            // what follows does not matter
            decided => assert_eq!(decided, whole),
        }
    }
    if let Ok(Parsed::Header(header, consumed)) = whole {
        assert!((1..=bytes.len().min(V2_MAX)).contains(&consumed));
        check_again(&header);
    }
}

/// What was read can be written, and means the same.
fn check_again(header: &Header) {
    assert_eq!(header.source.is_some(), header.destination.is_some());
    let (Some(source), Some(destination)) = (header.source, header.destination) else { return };
    assert_eq!(header.command, Command::Proxy);
    let mut out = Vec::new();
    match header.version {
        Version::V1 => {
            encode_v1(source, destination, &mut out);
            // an IPv6 address may have been written in a longer way, never in a shorter one that means another
            assert_eq!(parse(&out), Ok(Parsed::Header(header.clone(), out.len())));
        }
        Version::V2 => {
            let mut tlvs = header.tlvs.clone();
            tlvs.extend(header.unique_id.iter().map(|id| Tlv { kind: TLV_UNIQUE_ID, value: id.clone() }));
            assert!(encode_v2(source, destination, &tlvs, &mut out));
            assert_eq!(parse(&out), Ok(Parsed::Header(header.clone(), out.len())));
        }
    }
}
