//! A device's names, read out of the front of its stream by the gateway.

use std::hint::black_box;

use gateway::preread::{Preread, Seen};
use mqtt::Version;
use mqtt::packet::Packet;

use crate::meter::{Row, repeat};
use crate::packets;

const CLIENT: &str = "truck-000042-berlin-7f3a";
/// The gateway's default for `preread_size`.
const MOST: usize = 16 * 1024;

pub(crate) const ROWS: &[Row] = &[
    Row { name: "preread/connect_v311_whole", run: || look(&v311(), usize::MAX, false) },
    Row { name: "preread/connect_v5_whole", run: || look(&v5(), usize::MAX, false) },
    Row { name: "preread/connect_v5_username", run: || look(&v5(), usize::MAX, true) },
    Row { name: "preread/connect_v311_in_pieces", run: || look(&v311(), 8, false) },
    Row { name: "preread/connect_v5_in_pieces", run: || look(&v5(), 8, false) },
    Row { name: "preread/not_mqtt", run: foreign },
];

fn v311() -> Vec<u8> {
    packets::bytes(&Packet::Connect(Box::new(packets::connect(CLIENT))), Version::V311)
}

fn v5() -> Vec<u8> {
    packets::bytes(&Packet::Connect(Box::new(packets::connect_v5(CLIENT))), Version::V5)
}

/// By its address: as it is for everybody, and not made one with the row that counts it.
type Look = for<'a> fn(&mut Preread, &'a [u8]) -> Seen<'a>;

/// An operation is one CONNECT, which arrives in pieces of so many bytes.
fn look(connect: &[u8], piece: usize, username: bool) -> u64 {
    let look = black_box(Preread::look as Look);
    repeat(|_| {
        let mut preread = Preread::new(MOST, username);
        let mut arrived = 0_usize;
        loop {
            arrived = connect.len().min(arrived.saturating_add(piece));
            match look(&mut preread, connect.get(..arrived).unwrap_or_default()) {
                Seen::More if arrived < connect.len() => {}
                seen => {
                    assert!(matches!(&seen, Seen::Connect(head) if head.client_id == CLIENT));
                    black_box(&seen);
                    return;
                }
            }
        }
    })
}

fn foreign() -> u64 {
    let hello = b"GET / HTTP/1.1\r\nHost: broker\r\n\r\n";
    let look = black_box(Preread::look as Look);
    repeat(|_| {
        let mut preread = Preread::new(MOST, false);
        assert!(matches!(look(&mut preread, hello), Seen::NotMqtt));
    })
}
