//! The server's half of the opening handshake: RFC 6455, section 4.2, over RFC 9112.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha1::{Digest, Sha1};

use super::MQTT;

/// Bytes of a request's head that are read when nobody says otherwise.
pub const MAX_HEAD: usize = 8 * 1024;
/// Fields of a request that are read.
pub const MAX_HEADERS: usize = 64;

/// What section 1.3 appends to the key.
const MAGIC: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
/// The version of the protocol, section 4.1.
const VERSION: &str = "13";
/// Names under which clients ask for MQTT, the preferred one first: that of the specification [MQTT-6.0.0-3], that of
/// libraries before it, and those that EMQX takes.
const SUBPROTOCOLS: [&str; 5] = [MQTT, "mqttv3.1", "mqtt-v5", "mqtt-v3.1.1", "mqtt-v3"];

/// What a listener asks of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    /// The path, with its slash, as written; a query behind it does not matter.
    pub path: String,
    /// A request that offers no sub-protocol of MQTT is refused [MQTT-6.0.0-3]; otherwise it gets none.
    pub fail_if_no_subprotocol: bool,
    /// Values of `Origin` that are let in; any if there are none. Who sends no `Origin` is no browser and is let in.
    pub allowed_origins: Vec<String>,
    /// Bytes of the request's head.
    pub max_head: usize,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            path: "/mqtt".to_owned(),
            fail_if_no_subprotocol: true,
            allowed_origins: Vec::new(),
            max_head: MAX_HEAD,
        }
    }
}

/// A field that the listener wants to see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeaderValue {
    /// As asked for.
    pub name: String,
    /// Values of all fields of that name, in their order, joined by a comma. Nothing: there is none.
    pub value: Option<String>,
}

/// A request that is answered with 101.
#[derive(Debug, PartialEq, Eq)]
pub struct Accepted {
    /// The whole answer, to be sent before anything else.
    pub answer: String,
    /// The sub-protocol that was agreed on.
    pub subprotocol: Option<&'static str>,
    /// How many bytes of the last input lie behind the request: frames.
    pub rest: usize,
    /// The fields that were asked for, in that order.
    pub headers: Vec<HeaderValue>,
}

/// Why a request is refused, and with which status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{status}: {what}")]
pub struct Refusal {
    /// 400, 403, 404, 405, 426 or 431.
    pub status: u16,
    /// For people.
    pub what: &'static str,
}

const fn bad(what: &'static str) -> Refusal {
    Refusal { status: 400, what }
}

impl Refusal {
    /// The whole answer; the connection is closed behind it.
    pub fn answer(&self) -> String {
        let (reason, more) = match self.status {
            403 => ("Forbidden", ""),
            404 => ("Not Found", ""),
            405 => ("Method Not Allowed", "Allow: GET\r\n"),
            426 => ("Upgrade Required", "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"),
            431 => ("Request Header Fields Too Large", ""),
            _ => ("Bad Request", ""),
        };
        // an answer of 426 has Upgrade, so Connection must name it (RFC 9110, 7.8)
        let connection = if self.status == 426 { "upgrade, close" } else { "close" };
        let (status, what) = (self.status, self.what);
        format!(
            "HTTP/1.1 {status} {reason}\r\nConnection: {connection}\r\n{more}Content-Type: text/plain\r\n\
             Content-Length: {}\r\n\r\n{what}\n",
            what.len() + 1
        )
    }
}

/// Gathers a request's head and judges it.
#[derive(Debug)]
pub struct Handshake<'a> {
    rules: &'a Rules,
    wanted: &'a [&'a str],
    head: Vec<u8>,
    /// Bytes of the line that is being read, without its end.
    line: usize,
}

impl<'a> Handshake<'a> {
    /// By these rules. `wanted` are the names of fields to hand out.
    pub fn new(rules: &'a Rules, wanted: &'a [&'a str]) -> Self {
        Self { rules, wanted, head: Vec::new(), line: 0 }
    }

    /// Takes what came. `None`: the request goes on. Each byte is looked at once, and the whole when its end has come.
    ///
    /// # Errors
    /// What is no request of a client that wants MQTT here, as soon as that is certain.
    pub fn receive(&mut self, input: &[u8]) -> Result<Option<Accepted>, Refusal> {
        for (at, byte) in input.iter().enumerate() {
            if self.head.len() >= self.rules.max_head {
                return Err(Refusal { status: 431, what: "the request is too long" });
            }
            // MQTT or TLS instead of HTTP is seen with the first byte
            let text = matches!(byte, b'\t' | b'\r' | b'\n' | b' '..=b'~' | 0x80..);
            if !text || (self.head.is_empty() && !byte.is_ascii_uppercase()) {
                return Err(bad("this is not HTTP"));
            }
            self.head.push(*byte);
            match byte {
                b'\n' if self.line == 0 => return self.judge(input.len() - at - 1).map(Some),
                b'\n' => self.line = 0,
                b'\r' => {}
                _ => self.line += 1,
            }
        }
        Ok(None)
    }

    fn judge(&self, rest: usize) -> Result<Accepted, Refusal> {
        let mut fields = [httparse::EMPTY_HEADER; MAX_HEADERS];
        let mut request = httparse::Request::new(&mut fields);
        match request.parse(&self.head) {
            Ok(httparse::Status::Complete(_)) => {}
            Err(httparse::Error::TooManyHeaders) => {
                return Err(Refusal { status: 431, what: "the request has too many fields" });
            }
            Ok(httparse::Status::Partial) | Err(_) => return Err(bad("this is not HTTP")),
        }
        if request.version != Some(1) {
            return Err(bad("HTTP/1.1 is needed"));
        }
        let fields = Fields(request.headers);
        if request.method != Some("GET") {
            return Err(Refusal { status: 405, what: "the method must be GET" });
        }
        if !self.is_path(request.path.unwrap_or_default()) {
            return Err(Refusal { status: 404, what: "there is nothing at this path" });
        }
        fields.one("Host")?.ok_or(bad("the field Host is missing"))?;
        if fields.all("Transfer-Encoding").next().is_some()
            || fields.one("Content-Length")?.is_some_and(|length| length != b"0")
        {
            return Err(bad("a request with content"));
        }
        if !fields.has_token("Upgrade", "websocket") || !fields.has_token("Connection", "upgrade") {
            return Err(Refusal { status: 426, what: "MQTT over WebSocket is spoken here" });
        }
        if fields.one("Sec-WebSocket-Version")? != Some(VERSION.as_bytes()) {
            return Err(Refusal { status: 426, what: "the version of WebSocket must be 13" });
        }
        let key = fields.one("Sec-WebSocket-Key")?.filter(|key| is_key(key));
        let key = key.ok_or(bad("the field Sec-WebSocket-Key is missing or wrong"))?;
        let origin = fields.one("Origin")?;
        if !self.rules.allowed_origins.is_empty()
            && origin.is_some_and(|o| !self.rules.allowed_origins.iter().any(|a| is_origin(a, o)))
        {
            return Err(Refusal { status: 403, what: "this origin is not let in" });
        }
        let subprotocol = fields.subprotocol();
        if subprotocol.is_none() && self.rules.fail_if_no_subprotocol {
            // [MQTT-6.0.0-3]
            return Err(bad("the sub-protocol mqtt must be offered in Sec-WebSocket-Protocol"));
        }
        let headers = self.wanted.iter().map(|name| fields.joined(name)).collect();
        Ok(Accepted { answer: answer(key, subprotocol), subprotocol, rest, headers })
    }

    /// Whether the target of the request is the listener's path: alone, with a query, or as a whole URL, which a server must
    /// understand (RFC 9112, 3.2.2).
    fn is_path(&self, target: &str) -> bool {
        let target = match target.split_once("://") {
            Some((scheme, rest)) if !scheme.contains('/') => {
                rest.find('/').and_then(|slash| rest.get(slash..)).unwrap_or("/")
            }
            _ => target,
        };
        target.split('?').next() == Some(&self.rules.path)
    }
}

fn is_origin(allowed: &str, origin: &[u8]) -> bool {
    // scheme and host are written small by browsers, and compared without case
    allowed.as_bytes().eq_ignore_ascii_case(origin)
}

/// Section 4.2.1: 16 bytes in base64.
fn is_key(key: &[u8]) -> bool {
    // longer ones would not fit and are wrong as well
    let mut nonce = [0; 18];
    STANDARD.decode_slice(key, &mut nonce) == Ok(16)
}

/// The answer to a key, section 4.2.2.
pub(super) fn accept_key(key: &[u8]) -> String {
    STANDARD.encode(Sha1::new().chain_update(key).chain_update(MAGIC).finalize())
}

fn answer(key: &[u8], subprotocol: Option<&str>) -> String {
    let mut answer =
        String::from("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n");
    for (name, value) in [("Accept", Some(accept_key(key).as_str())), ("Protocol", subprotocol)] {
        if let Some(value) = value {
            for part in ["Sec-WebSocket-", name, ": ", value, "\r\n"] {
                answer.push_str(part);
            }
        }
    }
    answer.push_str("\r\n");
    answer
}

/// The fields of a request or an answer.
pub(super) struct Fields<'h, 'b>(pub(super) &'h [httparse::Header<'b>]);

impl Fields<'_, '_> {
    /// Every value of that name.
    fn all<'s>(&'s self, name: &'s str) -> impl Iterator<Item = &'s [u8]> {
        self.0.iter().filter(move |field| field.name.eq_ignore_ascii_case(name)).map(|field| field.value)
    }

    /// The value of a field that may be there once at most.
    fn one<'s>(&'s self, name: &'s str) -> Result<Option<&'s [u8]>, Refusal> {
        let mut all = self.all(name);
        match (all.next(), all.next()) {
            (one, None) => Ok(one),
            _ => Err(bad("a field is there twice that must not be")),
        }
    }

    /// The elements of a list, over all fields of that name.
    pub(super) fn elements<'s>(&'s self, name: &'s str) -> impl Iterator<Item = &'s [u8]> {
        self.all(name).flat_map(|value| value.split(|byte| *byte == b',')).map(<[u8]>::trim_ascii)
    }

    pub(super) fn has_token(&self, name: &str, token: &str) -> bool {
        self.elements(name).any(|element| element.eq_ignore_ascii_case(token.as_bytes()))
    }

    fn subprotocol(&self) -> Option<&'static str> {
        let offered = |name: &&str| self.elements("Sec-WebSocket-Protocol").any(|e| e == name.as_bytes());
        SUBPROTOCOLS.into_iter().find(offered)
    }

    fn joined(&self, name: &str) -> HeaderValue {
        let mut value: Option<String> = None;
        for field in self.all(name) {
            let text = String::from_utf8_lossy(field);
            match &mut value {
                Some(value) => {
                    value.push_str(", ");
                    value.push_str(&text);
                }
                None => value = Some(text.into_owned()),
            }
        }
        HeaderValue { name: name.to_owned(), value }
    }
}
