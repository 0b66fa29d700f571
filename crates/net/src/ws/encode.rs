//! Frames around bytes that somebody else keeps.

use super::{CONTROL_MAX, Control, FIN, HEAD_MAX, MASKED, mask, opcode};

/// What a server writes. The bytes of the stream stay where they are: [`Encoder::next`] says what comes before them and
/// how many of them, [`Encoder::written`] takes back what the socket took.
///
/// One binary frame is made of all that waits when the one before is written. A pong goes out between frames, and
/// only the newest ping is answered (section 5.5.3), so that a flood of them costs no memory. A Close comes last.
#[derive(Debug)]
pub struct Encoder {
    /// Bytes of the begun binary frame's payload that are not written.
    left: usize,
    /// Its head; bytes from `head_at` to `head_len` are not written.
    head: [u8; HEAD_MAX],
    head_at: u8,
    head_len: u8,
    close: Closing,
    /// The control frame that is being written, and how many bytes of it are.
    control: Option<(Box<[u8]>, usize)>,
    /// The payload of the ping to be answered next.
    ping: Option<Box<Control>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Closing {
    No,
    /// After the last byte of the stream.
    Wanted(Option<u16>),
    /// The frame is written, or being written.
    Begun,
}

impl Default for Encoder {
    fn default() -> Self {
        Self::new()
    }
}

impl Encoder {
    /// Nothing to write.
    pub fn new() -> Self {
        Self {
            left: 0,
            head: [0; HEAD_MAX],
            head_at: 0,
            head_len: 0,
            close: Closing::No,
            control: None,
            ping: None,
        }
    }

    /// Answers a ping, instead of one that was not answered yet.
    pub fn pong(&mut self, ping: Control) {
        match &mut self.ping {
            Some(waiting) => **waiting = ping,
            None => self.ping = Some(Box::new(ping)),
        }
    }

    /// Writes a Close frame after everything else. The first code counts; `None` is a Close without one.
    pub fn close(&mut self, code: Option<u16>) {
        if self.close == Closing::No {
            self.close = Closing::Wanted(code);
        }
    }

    /// What to write now: bytes of this encoder, and then so many from the front of `payload`, the bytes of the stream
    /// that wait. Nothing of both: nothing is to be written. Between two calls `payload` may grow at its end, and
    /// loses at its front what [`Encoder::written`] said.
    pub fn next(&mut self, payload: &[u8]) -> (&[u8], usize) {
        if self.left == 0 && self.head_at == self.head_len && self.control.is_none() {
            self.begin(payload);
        }
        if let Some((frame, at)) = &self.control {
            return (frame.get(*at..).unwrap_or_default(), 0);
        }
        let head = self.head.get(usize::from(self.head_at)..usize::from(self.head_len));
        (head.unwrap_or_default(), self.left.min(payload.len()))
    }

    /// The socket took `count` bytes of what [`Encoder::next`] gave; how many of them were the stream's.
    pub fn written(&mut self, count: usize) -> usize {
        if let Some((frame, at)) = &mut self.control {
            *at += count;
            if *at >= frame.len() {
                self.control = None;
            }
            return 0;
        }
        let of_head = count.min(usize::from(self.head_len.saturating_sub(self.head_at)));
        self.head_at += u8::try_from(of_head).unwrap_or_default();
        let of_payload = (count - of_head).min(self.left);
        self.left -= of_payload;
        of_payload
    }

    /// Between two frames: which one comes next.
    fn begin(&mut self, payload: &[u8]) {
        if self.close == Closing::Begun {
            // nothing follows a Close, section 5.5.1
        } else if let Some(ping) = self.ping.take() {
            self.control = Some((control(opcode::PONG, ping.payload()), 0));
        } else if !payload.is_empty() {
            let (head, len) = head(opcode::BINARY, payload.len() as u64, None);
            (self.head, self.head_len, self.head_at) = (head, len, 0);
            self.left = payload.len();
        } else if let Closing::Wanted(code) = self.close {
            self.close = Closing::Begun;
            let code = code.map(u16::to_be_bytes);
            self.control = Some((control(opcode::CLOSE, code.as_ref().map_or(&[], |code| code)), 0));
        }
    }
}

/// A control frame of a server.
fn control(opcode: u8, payload: &[u8]) -> Box<[u8]> {
    let mut out = Vec::with_capacity(2 + payload.len());
    put(opcode, payload, None, &mut out);
    out.into()
}

/// Whole frames for whoever has the payload at hand, such as a client. A client gives four bytes of chance for each.
pub mod frame {
    use super::{CONTROL_MAX, opcode, put};

    /// A binary message in one frame.
    pub fn binary(payload: &[u8], mask: Option<[u8; 4]>, out: &mut Vec<u8>) {
        put(opcode::BINARY, payload, mask, out);
    }

    /// A ping with the front of `payload`, at most [`CONTROL_MAX`] bytes.
    pub fn ping(payload: &[u8], mask: Option<[u8; 4]>, out: &mut Vec<u8>) {
        put(opcode::PING, payload.get(..CONTROL_MAX).unwrap_or(payload), mask, out);
    }

    /// A pong with the front of `payload`, at most [`CONTROL_MAX`] bytes.
    pub fn pong(payload: &[u8], mask: Option<[u8; 4]>, out: &mut Vec<u8>) {
        put(opcode::PONG, payload.get(..CONTROL_MAX).unwrap_or(payload), mask, out);
    }

    /// A Close without words, [`NORMAL`](super::super::close::NORMAL) for example.
    pub fn close(code: u16, mask: Option<[u8; 4]>, out: &mut Vec<u8>) {
        put(opcode::CLOSE, &code.to_be_bytes(), mask, out);
    }
}

fn put(opcode: u8, payload: &[u8], mask: Option<[u8; 4]>, out: &mut Vec<u8>) {
    let (head, len) = head(opcode, payload.len() as u64, mask);
    out.extend_from_slice(head.get(..usize::from(len)).unwrap_or_default());
    let begin = out.len();
    out.extend_from_slice(payload);
    if let Some(mask) = mask {
        mask::apply(out.get_mut(begin..).unwrap_or_default(), mask, 0);
    }
}

/// The head of a frame that is its message's only one, and its length.
fn head(opcode: u8, length: u64, mask: Option<[u8; 4]>) -> ([u8; HEAD_MAX], u8) {
    let masked = if mask.is_some() { MASKED } else { 0 };
    let mut head = [0; HEAD_MAX];
    let mut len = 0;
    let mut push = |bytes: &[u8]| {
        for (place, byte) in head.iter_mut().skip(usize::from(len)).zip(bytes) {
            *place = *byte;
            len += 1;
        }
    };
    push(&[FIN | opcode]);
    match (u8::try_from(length), u16::try_from(length)) {
        (Ok(short @ ..=125), _) => push(&[masked | short]),
        (_, Ok(medium)) => {
            push(&[masked | 126]);
            push(&medium.to_be_bytes());
        }
        _ => {
            push(&[masked | 127]);
            push(&length.to_be_bytes());
        }
    }
    if let Some(mask) = mask {
        push(&mask);
    }
    (head, len)
}
