//! What must hold for whatever bytes a peer sends.

use mqtt::Version;
use mqtt::codec::Decoded;
use mqtt::codec::decode::{Peek, Role, decode, peek_connect};
use mqtt::codec::encode::{encode, encoded_len};
use mqtt::packet::Packet;

/// Decodes the front of `bytes`; panics if the decoder contradicts itself or the encoder.
pub(crate) fn check(bytes: &[u8], version: Version, sender: Role) {
    let whole = decode(bytes, version, sender, u32::MAX);
    if let Ok(Decoded::Packet(packet, len)) = &whole {
        assert!((2..=bytes.len()).contains(len));
        // What was accepted can be said again, in no more bytes, and means the same.
        let mut out = Vec::new();
        encode(packet, version, &mut out).expect("what was decoded can be encoded");
        assert!(out.len() <= *len);
        assert_eq!(out.len(), encoded_len(packet, version));
        assert_eq!(decode(&out, version, sender, u32::MAX), Ok(Decoded::Packet(packet.clone(), out.len())));
        assert_eq!(&packet.clone().into_owned(), packet);
    }
    for cut in 0..bytes.len().min(64) {
        match decode(&bytes[..cut], version, sender, u32::MAX) {
            Ok(Decoded::Incomplete(needed)) => {
                assert!(needed > cut);
                match &whole {
                    Ok(Decoded::Packet(_, len)) => assert!(needed <= *len),
                    Ok(Decoded::Incomplete(later)) => assert!(needed <= *later),
                    Err(_) => {}
                }
            }
            // It ended before the cut, and what follows does not matter.
            got @ Ok(Decoded::Packet(..)) => assert_eq!(got, whole),
            Err(error) => assert_eq!(Err(error), whole),
        }
    }
}

/// Peeks at the front of `bytes`, at every length up to 512; panics if that contradicts the decoder, or an answer given before.
pub(crate) fn check_peek(bytes: &[u8]) {
    let decoded = decode(bytes, Version::V5, Role::Client, u32::MAX);
    let mut known: Option<String> = None;
    for seen in (0..=bytes.len().min(512)).chain([bytes.len()]) {
        match peek_connect(&bytes[..seen], usize::MAX) {
            Ok(Peek::Incomplete(needed)) => {
                assert!(needed > seen && known.is_none());
                if let Ok(Decoded::Packet(Packet::Connect(_), len)) = &decoded {
                    assert!(needed <= *len);
                }
            }
            Ok(Peek::Connect(head)) => {
                assert_eq!(*known.get_or_insert_with(|| head.client_id.to_owned()), head.client_id);
                assert_eq!(head.username_known, head.username_needs == 0);
                assert!(head.username_known || (head.username.is_none() && head.username_needs > seen));
                match &decoded {
                    Ok(Decoded::Packet(Packet::Connect(connect), len)) => {
                        assert_eq!(head.packet_len, *len);
                        assert_eq!((head.version, head.bridge), (connect.version, connect.bridge));
                        assert_eq!(
                            (head.clean_start, head.keep_alive),
                            (connect.clean_start, connect.keep_alive)
                        );
                        assert_eq!(head.client_id, connect.client_id);
                        assert_eq!(head.properties, connect.properties);
                        assert!(!head.username_known || head.username == connect.username.as_deref());
                    }
                    Ok(Decoded::Packet(..)) => panic!("peek saw a CONNECT in another packet"),
                    Ok(Decoded::Incomplete(needed)) => assert_eq!(head.packet_len, *needed),
                    // Behind what peek looks at.
                    Err(_) => {}
                }
            }
            Err(error) => match &decoded {
                Err(other) if bytes[0] >> 4 == 1 => assert_eq!(error, *other),
                Ok(Decoded::Packet(Packet::Connect(_), _)) => panic!("peek refused a valid CONNECT: {error}"),
                // Another packet, or one whose rest has not come.
                _ => {}
            },
        }
    }
}
