//! The client's side of a WebSocket, with full control over every frame.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;

use net::ws::{ClientHandshake, Decoder, Event, Side, frame};

use super::DEADLINE;

/// Any mask will do; a fixed one makes failures easy to read.
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// Takes the frames of a server apart, and keeps what is not data.
pub(crate) struct Frames {
    decoder: Decoder,
    /// Payloads of pongs.
    pub(crate) pongs: Vec<Vec<u8>>,
    /// The Close frame: its code.
    pub(crate) closed: Option<Option<u16>>,
}

impl Frames {
    /// Shakes hands; what comes behind the answer is added to `buffer`.
    #[track_caller]
    pub(super) fn open(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Self {
        let (mut handshake, request) =
            ClientHandshake::new("tidegate.example", "/mqtt", *b"sixteen bytes ok");
        stream.write_all(request.as_bytes()).expect("an open connection");
        let mut frames =
            Self { decoder: Decoder::new(Side::Client, u64::MAX), pongs: Vec::new(), closed: None };
        let mut chunk = [0; 4096];
        loop {
            let count = match stream.read(&mut chunk) {
                Ok(0) => panic!("closed before the handshake was answered"),
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    panic!("no answer within {DEADLINE:?}")
                }
                Err(error) => panic!("{error}"),
            };
            if let Some(rest) = handshake.receive(&chunk[..count]).unwrap_or_else(|error| panic!("{error}")) {
                frames.take(&mut chunk[count - rest..count], buffer);
                return frames;
            }
        }
    }

    /// Takes what came; data goes to `buffer`.
    pub(super) fn take(&mut self, mut bytes: &mut [u8], buffer: &mut Vec<u8>) {
        while let Some(event) = self.decoder.next(&mut bytes).expect("right frames") {
            match event {
                Event::Data(data) => buffer.extend_from_slice(data),
                Event::Pong(pong) => self.pongs.push(pong.payload().to_vec()),
                Event::Close { code, .. } => self.closed = Some(code),
                Event::Ping(_) => panic!("the server pings"),
            }
        }
    }

    /// One binary frame.
    pub(crate) fn binary(payload: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        frame::binary(payload, Some(MASK), &mut out);
        out
    }

    /// A ping.
    pub(crate) fn ping(payload: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        frame::ping(payload, Some(MASK), &mut out);
        out
    }

    /// A Close.
    pub(crate) fn close(code: u16) -> Vec<u8> {
        let mut out = Vec::new();
        frame::close(code, Some(MASK), &mut out);
        out
    }
}
