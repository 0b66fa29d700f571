//! Frames as they come, in pieces of any size.

use super::{CONTROL_MAX, Control, FIN, HEAD_MAX, MASKED, RESERVED, Side, close, mask, opcode};

/// What the peer sent.
#[derive(Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// Bytes of the stream: a piece of a binary message. Where one begins and ends means nothing.
    Data(&'a mut [u8]),
    /// To be answered with a pong of the same payload.
    Ping(Control),
    /// The answer to a ping, or a sign of life nobody asked for.
    Pong(Control),
    /// The peer closes; nothing follows. `None`: it gave no code.
    Close {
        /// A code that may be sent, section 7.4.
        code: Option<u16>,
        /// For people.
        reason: String,
    },
}

/// The peer broke a rule: the connection is to be closed with `code`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} (close code {code})")]
pub struct Violation {
    /// For the Close frame.
    pub code: u16,
    /// Which rule.
    pub what: &'static str,
}

const fn protocol(what: &'static str) -> Violation {
    Violation { code: close::PROTOCOL_ERROR, what }
}

/// Takes frames apart. Small, and without memory of its own unless a control frame arrives in pieces.
#[derive(Debug)]
pub struct Decoder {
    /// Of the frame that has begun: payload bytes that have not come.
    left: u64,
    /// Payload bytes of it that have.
    seen: u64,
    max_frame: u64,
    mask: [u8; 4],
    /// The head of the next frame as far as it has come.
    head: [u8; HEAD_MAX],
    head_len: u8,
    /// Of the frame that has begun; nothing between frames.
    opcode: Option<u8>,
    /// A message has begun whose last fragment has not come.
    in_message: bool,
    /// Frames must have a mask: we are the server.
    masked: bool,
    /// Closed or broken: nothing more is looked at.
    over: bool,
    /// The payload of a control frame that has not come whole.
    control: Option<Box<Control>>,
}

impl Decoder {
    /// For this side of a connection. A frame with more than `max_frame` bytes of payload is refused as soon as its
    /// length is known. Messages have no limit: nothing is kept of them.
    pub fn new(side: Side, max_frame: u64) -> Self {
        Self {
            left: 0,
            seen: 0,
            max_frame,
            mask: [0; 4],
            head: [0; HEAD_MAX],
            head_len: 0,
            opcode: None,
            in_message: false,
            masked: side == Side::Server,
            over: false,
            control: None,
        }
    }

    /// The next event in `input`, which is advanced over what was used. `None`: all is used, nothing is kept back.
    ///
    /// # Errors
    /// The peer broke a rule. Found with the first byte that breaks it, whatever the pieces; all later input is
    /// passed over.
    pub fn next<'a>(&mut self, input: &mut &'a mut [u8]) -> Result<Option<Event<'a>>, Violation> {
        let event = self.step(input);
        if matches!(event, Err(_) | Ok(Some(Event::Close { .. }))) {
            self.over = true;
            self.control = None;
        }
        if self.over {
            *input = &mut [];
        }
        event
    }

    fn step<'a>(&mut self, input: &mut &'a mut [u8]) -> Result<Option<Event<'a>>, Violation> {
        while !self.over {
            let opcode = match self.opcode {
                Some(opcode) => opcode,
                None => match self.head(input)? {
                    Some(opcode) => opcode,
                    None => break,
                },
            };
            let payload = self.payload(input);
            let whole = self.left == 0;
            if whole {
                self.opcode = None;
            }
            if opcode < opcode::CLOSE {
                if !payload.is_empty() {
                    return Ok(Some(Event::Data(payload)));
                }
            } else if let Some(control) = self.gather(payload, whole) {
                return event(opcode, control).map(Some);
            }
            if !whole {
                break;
            }
        }
        Ok(None)
    }

    /// Reads the head of a frame; its opcode once it has come whole.
    fn head(&mut self, input: &mut &mut [u8]) -> Result<Option<u8>, Violation> {
        loop {
            let need = self.judge()?;
            let have = usize::from(self.head_len);
            if have >= need {
                break;
            }
            let Some((byte, rest)) = std::mem::take(input).split_first_mut() else { return Ok(None) };
            *input = rest;
            if let Some(place) = self.head.get_mut(have) {
                *place = *byte;
            }
            self.head_len += 1;
        }
        let [first, ..] = self.head;
        let opcode = first & 0x0F;
        if opcode < opcode::CLOSE {
            self.in_message = first & FIN == 0;
        }
        self.left = self.length();
        self.seen = 0;
        self.head_len = 0;
        self.opcode = Some(opcode);
        Ok(self.opcode)
    }

    /// Judges the bytes of the head that are there; how many it has in all, as far as they tell.
    fn judge(&mut self) -> Result<usize, Violation> {
        let [first, second, ..] = self.head;
        if self.head_len == 1 {
            self.judge_first(first)?;
        }
        if self.head_len < 2 {
            return Ok(2);
        }
        let length = second & !MASKED;
        if self.head_len == 2 {
            match (second & MASKED != 0, self.masked) {
                (false, true) => return Err(protocol("a frame of a client without mask")), // section 5.1
                (true, false) => return Err(protocol("a masked frame of a server")),
                _ => {}
            }
            if first & 0x08 != 0 && usize::from(length) > CONTROL_MAX {
                return Err(protocol("a control frame of more than 125 bytes")); // section 5.5
            }
        }
        let of_length = match length {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        if usize::from(self.head_len) == 2 + of_length {
            self.judge_length(length)?;
        }
        let of_mask = if self.masked { 4 } else { 0 };
        let need = 2 + of_length + of_mask;
        if of_mask > 0
            && usize::from(self.head_len) == need
            && let Some(mask) = self.head.get(2 + of_length..need).and_then(|mask| mask.try_into().ok())
        {
            self.mask = mask;
        }
        Ok(need)
    }

    /// Section 5.2 and 5.4.
    fn judge_first(&self, first: u8) -> Result<(), Violation> {
        if first & RESERVED != 0 {
            return Err(protocol("a reserved bit is set and no extension was agreed on"));
        }
        let last = first & FIN != 0;
        match first & 0x0F {
            opcode::CONTINUATION if self.in_message => Ok(()),
            opcode::CONTINUATION => Err(protocol("a continuation of nothing")),
            // [MQTT-6.0.0-1]
            opcode::TEXT => Err(Violation { code: close::UNSUPPORTED, what: "a text frame" }),
            opcode::BINARY if !self.in_message => Ok(()),
            opcode::BINARY => Err(protocol("a new message within a message")),
            opcode::CLOSE | opcode::PING | opcode::PONG if last => Ok(()),
            opcode::CLOSE | opcode::PING | opcode::PONG => Err(protocol("a control frame in fragments")),
            _ => Err(protocol("a reserved opcode")),
        }
    }

    fn judge_length(&self, short: u8) -> Result<(), Violation> {
        let length = self.length();
        let minimal = match short {
            126 => length >= 126,
            127 => length > u64::from(u16::MAX),
            _ => true,
        };
        if !minimal {
            return Err(protocol("a length in more bytes than it needs"));
        }
        if length >> 63 != 0 {
            return Err(protocol("a length with its highest bit set"));
        }
        if length > self.max_frame {
            return Err(Violation { code: close::TOO_BIG, what: "a frame larger than is taken" });
        }
        Ok(())
    }

    /// The payload's length; its bytes have come.
    fn length(&self) -> u64 {
        let [_, second, a, b, c, d, e, f, g, h, ..] = self.head;
        match second & !MASKED {
            126 => u64::from(u16::from_be_bytes([a, b])),
            127 => u64::from_be_bytes([a, b, c, d, e, f, g, h]),
            short => u64::from(short),
        }
    }

    /// Takes what is there of the payload, unmasked.
    fn payload<'a>(&mut self, input: &mut &'a mut [u8]) -> &'a mut [u8] {
        let taken = usize::try_from(self.left).unwrap_or(usize::MAX).min(input.len());
        let (payload, rest) = std::mem::take(input).split_at_mut(taken);
        *input = rest;
        if self.masked {
            mask::apply(payload, self.mask, self.seen);
        }
        self.seen += payload.len() as u64;
        self.left -= payload.len() as u64;
        payload
    }

    /// Puts the payload of a control frame together.
    fn gather(&mut self, piece: &[u8], whole: bool) -> Option<Control> {
        match self.control.take() {
            None if whole => Some(Control::new(piece)),
            None => {
                self.control = Some(Box::new(Control::new(piece)));
                None
            }
            Some(mut begun) => {
                begun.append(piece);
                if whole {
                    return Some(*begun);
                }
                self.control = Some(begun);
                None
            }
        }
    }
}

fn event(opcode: u8, control: Control) -> Result<Event<'static>, Violation> {
    match opcode {
        opcode::PING => Ok(Event::Ping(control)),
        opcode::PONG => Ok(Event::Pong(control)),
        _ => closed(control.payload()),
    }
}

/// Section 5.5.1 and 7.4.
fn closed(payload: &[u8]) -> Result<Event<'static>, Violation> {
    let Some((code, reason)) = payload.split_first_chunk() else {
        return match payload {
            [] => Ok(Event::Close { code: None, reason: String::new() }),
            _ => Err(protocol("a close code of one byte")),
        };
    };
    let code = u16::from_be_bytes(*code);
    // 1004 has no meaning, 1005, 1006 and 1015 are never sent; 1012 to 1014 are in IANA's registry
    if !matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999) {
        return Err(protocol("a close code that is not to be sent"));
    }
    match std::str::from_utf8(reason) {
        Ok(reason) => Ok(Event::Close { code: Some(code), reason: reason.to_owned() }),
        Err(_) => Err(Violation { code: close::INVALID_DATA, what: "a close reason that is not UTF-8" }),
    }
}
