//! The client's half of the opening handshake: RFC 6455, section 4.1.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::MQTT;
use super::handshake::{Fields, MAX_HEADERS, accept_key};

/// Bytes of an answer's head that are read.
const MAX_ANSWER: usize = 16 * 1024;

/// Why there is no WebSocket.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClientError {
    /// The server answers, but with another status.
    #[error("the server answers {status}{} instead of opening a WebSocket", said(reason))]
    Status {
        /// Of HTTP.
        status: u16,
        /// The words beside it.
        reason: String,
    },
    /// What answers is no WebSocket server, or none for MQTT.
    #[error("the server's answer is wrong: {0}")]
    Answer(&'static str),
}

fn said(reason: &str) -> String {
    if reason.is_empty() { String::new() } else { format!(" ({reason})") }
}

/// Sends a request and judges the answer.
#[derive(Debug)]
pub struct ClientHandshake {
    key: String,
    head: Vec<u8>,
    line: usize,
}

impl ClientHandshake {
    /// The request for a WebSocket that speaks MQTT, and who waits for its answer. `host` as in a URL, with its port;
    /// `path` with its slash; `nonce` of chance. Neither host nor path may have spaces or control characters; such are
    /// left out.
    pub fn new(host: &str, path: &str, nonce: [u8; 16]) -> (Self, String) {
        let key = STANDARD.encode(nonce);
        let plain = |text: &str| text.chars().filter(|c| !c.is_control() && *c != ' ').collect::<String>();
        let (host, path) = (plain(host), plain(path));
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: {MQTT}\r\n\r\n"
        );
        (Self { key, head: Vec::new(), line: 0 }, request)
    }

    /// Takes what came; once the WebSocket is open, how many bytes of `input` lie behind the answer: frames.
    ///
    /// # Errors
    /// There will be no WebSocket.
    pub fn receive(&mut self, input: &[u8]) -> Result<Option<usize>, ClientError> {
        for (at, byte) in input.iter().enumerate() {
            if self.head.len() >= MAX_ANSWER {
                return Err(ClientError::Answer("it is too long"));
            }
            if !b"HTTP/1.".starts_with(&self.head) && !self.head.starts_with(b"HTTP/1.") {
                return Err(ClientError::Answer("it is not HTTP"));
            }
            self.head.push(*byte);
            match byte {
                b'\n' if self.line == 0 => return self.judge().map(|()| Some(input.len() - at - 1)),
                b'\n' => self.line = 0,
                b'\r' => {}
                _ => self.line += 1,
            }
        }
        Ok(None)
    }

    fn judge(&self) -> Result<(), ClientError> {
        let mut fields = [httparse::EMPTY_HEADER; MAX_HEADERS];
        let mut answer = httparse::Response::new(&mut fields);
        if !matches!(answer.parse(&self.head), Ok(httparse::Status::Complete(_))) {
            return Err(ClientError::Answer("it is not HTTP"));
        }
        let status = answer.code.unwrap_or_default();
        if status != 101 {
            let reason = answer.reason.unwrap_or_default().to_owned();
            return Err(ClientError::Status { status, reason });
        }
        let fields = Fields(answer.headers);
        if !fields.has_token("Upgrade", "websocket") || !fields.has_token("Connection", "upgrade") {
            return Err(ClientError::Answer("it does not upgrade to websocket"));
        }
        let expected = accept_key(self.key.as_bytes());
        if !fields.elements("Sec-WebSocket-Accept").eq([expected.as_bytes()]) {
            return Err(ClientError::Answer("Sec-WebSocket-Accept does not fit the key"));
        }
        if fields.elements("Sec-WebSocket-Extensions").next().is_some() {
            return Err(ClientError::Answer("it uses an extension that nobody asked for"));
        }
        // [MQTT-6.0.0-4]
        if !fields.elements("Sec-WebSocket-Protocol").eq([MQTT.as_bytes()]) {
            return Err(ClientError::Answer("its sub-protocol is not mqtt"));
        }
        Ok(())
    }
}
