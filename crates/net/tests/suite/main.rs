//! What must hold for whatever a peer sends, tried near what is right; the fuzzers (`fuzz/`) try everything else.

mod oracle;
mod seeds;

use proptest::prelude::*;

/// A seed of that target with some bytes replaced, left out or put in.
fn nearly_right(target: &'static str) -> impl Strategy<Value = Vec<u8>> {
    let of_target = |(path, bytes): (String, Vec<u8>)| path.starts_with(target).then_some(bytes);
    let seeds: Vec<Vec<u8>> = seeds::seeds().into_iter().filter_map(of_target).collect();
    let change = (any::<prop::sample::Index>(), 0..3u8, prop::collection::vec(any::<u8>(), 0..4));
    let changes = prop::collection::vec(change, 0..4);
    (prop::sample::select(seeds), changes).prop_map(|(mut bytes, changes)| {
        for (at, remove, put) in changes {
            let begin = at.index(bytes.len() + 1);
            let end = bytes.len().min(begin + usize::from(remove));
            bytes.splice(begin..end, put);
        }
        bytes
    })
}

proptest! {
    #[test]
    fn frames_mean_the_same_however_they_arrive(bytes in nearly_right("ws_frames/")) {
        oracle::websocket::check_frames(&bytes);
    }

    #[test]
    fn handshakes_are_judged_the_same_however_they_arrive(bytes in nearly_right("ws_handshake/")) {
        oracle::websocket::check_handshake(&bytes);
    }

    #[test]
    fn proxy_headers_are_read_truthfully(bytes in nearly_right("proxy_protocol/")) {
        oracle::proxy_protocol::check(&bytes);
    }

    #[test]
    fn forwarded_addresses_cannot_be_forged(bytes in nearly_right("forwarded/")) {
        oracle::forwarded::check(&bytes);
    }
}
