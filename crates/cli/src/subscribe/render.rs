//! Messages to bytes of output, in the layout of mosquitto_sub.

use client::Received;
use jiff::Zoned;
use jiff::tz::TimeZone;
use runtime::clock::Clock;

use super::format::{Field, Format, Piece, Width};
use super::json;

/// How messages are printed.
#[derive(Clone, Debug)]
pub(super) enum Layout {
    /// The payload; an empty one prints nothing at all.
    Payload,
    /// `-v`
    TopicAndPayload,
    /// `-F`
    Format(Format),
}

impl Layout {
    /// Appends what is printed for a message.
    ///
    /// # Errors
    /// One sentence for standard error; the rest of the message is printed all the same.
    pub(super) fn print(
        &self,
        received: &Received,
        now: &Moment,
        newline: bool,
        out: &mut Vec<u8>,
    ) -> Result<(), String> {
        let message = &received.message;
        let mut result = Ok(());
        match self {
            Self::Payload | Self::TopicAndPayload if message.payload.is_empty() => {
                if newline && matches!(self, Self::TopicAndPayload) {
                    out.extend_from_slice(message.topic.as_bytes());
                    out.extend_from_slice(b" (null)\n");
                }
                return Ok(());
            }
            Self::Payload => out.extend_from_slice(&message.payload),
            Self::TopicAndPayload => {
                out.extend_from_slice(message.topic.as_bytes());
                out.push(b' ');
                out.extend_from_slice(&message.payload);
            }
            Self::Format(Format(pieces)) => {
                for piece in pieces {
                    let printed = print_piece(piece, received, now, out);
                    result = result.and(printed);
                }
            }
        }
        if newline {
            out.push(b'\n');
        }
        result
    }
}

fn print_piece(piece: &Piece, received: &Received, now: &Moment, out: &mut Vec<u8>) -> Result<(), String> {
    match piece {
        Piece::Text(text) => out.extend_from_slice(text),
        Piece::Time(letter) => out.extend_from_slice(now.strftime(*letter).as_bytes()),
        Piece::Nanoseconds => out.extend_from_slice(format!("{:09}", now.nanoseconds()).as_bytes()),
        Piece::Field(Field::Json(payload_is_json), _) => {
            let written = json::write(received, &now.json(), *payload_is_json, out);
            return written.map_err(|json::NotJson| {
                format!("Error: Message payload is not valid JSON on topic {}.", received.message.topic)
            });
        }
        Piece::Field(field, width) => print_field(*field, *width, received, now, out),
    }
    Ok(())
}

fn print_field(field: Field, width: Width, received: &Received, now: &Moment, out: &mut Vec<u8>) {
    let message = &received.message;
    let properties = &message.properties;
    let number = |value: Option<u64>| value.map(|value| value.to_string());
    match field {
        // The machine resolves aliases; what is left of one is its topic.
        Field::TopicAlias => digits(number(properties.topic_alias.map(u64::from)), width, out),
        Field::MessageExpiryInterval => {
            digits(number(properties.message_expiry_interval.map(u64::from)), width, out);
        }
        Field::PayloadFormatIndicator => {
            digits(number(properties.payload_format_indicator.map(u64::from)), width, out);
        }
        Field::SubscriptionIdentifier => {
            digits(number(properties.subscription_identifiers.first().copied().map(u64::from)), width, out);
        }
        Field::Length => digits(number(Some(message.payload.len() as u64)), width, out),
        Field::PacketId => {
            digits(number(Some(received.packet_id.map_or(0, |id| u64::from(id.get())))), width, out);
        }
        Field::ContentType => text(properties.content_type.as_deref().unwrap_or_default(), width, out),
        Field::ResponseTopic => {
            if let Some(topic) = &properties.response_topic {
                text(topic, width, out);
            }
        }
        Field::Topic => text(&message.topic, width, out),
        Field::IsoTime => text(&now.iso(), width, out),
        Field::CorrelationData => {
            out.extend_from_slice(properties.correlation_data.as_deref().unwrap_or_default());
        }
        Field::UserProperties => {
            let all: Vec<String> =
                properties.user_properties.iter().map(|(name, value)| format!("{name}:{value}")).collect();
            out.extend_from_slice(all.join(" ").as_bytes());
        }
        Field::QoS => out.push(b'0' + message.qos as u8),
        Field::Retain => out.push(if message.retain { b'1' } else { b'0' }),
        Field::UnixTime => out.extend_from_slice(now.unix().as_bytes()),
        Field::Payload => payload(&message.payload, None, width, out),
        Field::Hex(upper) => payload(&message.payload, Some(upper), width, out),
        // Printed by the caller.
        Field::Json(_) => {}
    }
}

fn pad(count: usize, byte: u8, out: &mut Vec<u8>) {
    out.resize(out.len() + count, byte);
}

/// A number; an absent one is as wide as a present one.
fn digits(number: Option<String>, width: Width, out: &mut Vec<u8>) {
    let number = number.unwrap_or_default();
    let missing = width.least.saturating_sub(number.len());
    if width.left {
        out.extend_from_slice(number.as_bytes());
        pad(missing, b' ', out);
    } else {
        pad(missing, if width.zeros { b'0' } else { b' ' }, out);
        out.extend_from_slice(number.as_bytes());
    }
}

/// A string: cut at its greatest width, padded to its smallest; both count bytes.
fn text(text: &str, width: Width, out: &mut Vec<u8>) {
    let bytes = text.as_bytes();
    let shown = bytes.get(..width.most.unwrap_or(bytes.len())).unwrap_or(bytes);
    let missing = width.least.saturating_sub(shown.len());
    if !width.left {
        pad(missing, b' ', out);
    }
    out.extend_from_slice(shown);
    if width.left {
        pad(missing, b' ', out);
    }
}

/// The payload, raw or in hex. With a width it is cut to the width first, and for hex to half of what remains:
/// that is what mosquitto_sub does, and scripts with fixed columns rely on it.
fn payload(payload: &[u8], hex: Option<bool>, width: Width, out: &mut Vec<u8>) {
    let (mut shown, mut missing) = (payload.len(), 0);
    if width.least > 0 {
        shown = shown.min(width.least);
        if hex.is_some() {
            shown /= 2;
        }
        missing = width.least - shown * if hex.is_some() { 2 } else { 1 };
    }
    let shown = payload.get(..shown).unwrap_or(payload);
    if !width.left {
        pad(missing, if width.zeros { b'0' } else { b' ' }, out);
    }
    match hex {
        None => out.extend_from_slice(shown),
        Some(upper) => {
            let letters = if upper { b"0123456789ABCDEF" } else { b"0123456789abcdef" };
            let letter = |nibble: u8| letters.get(usize::from(nibble)).copied().unwrap_or(b'?');
            out.extend(shown.iter().flat_map(|byte| [letter(byte >> 4), letter(byte & 15)]));
        }
    }
    if width.left {
        pad(missing, b' ', out);
    }
}

/// The wall clock with a resolution below the milliseconds that [`Clock`] gives: its monotonic time since an anchor.
#[derive(Debug)]
pub(super) struct WallClock {
    clock: Clock,
    anchor: (std::time::Instant, u64),
    zone: TimeZone,
}

impl WallClock {
    pub(super) fn new(clock: Clock) -> Self {
        Self { anchor: (clock.now(), clock.unix_millis()), clock, zone: TimeZone::system() }
    }

    pub(super) fn now(&mut self) -> Moment {
        let elapsed = self.clock.now().saturating_duration_since(self.anchor.0).as_nanos();
        let mut nanos = u128::from(self.anchor.1) * 1_000_000 + elapsed;
        let millis = self.clock.unix_millis();
        // Somebody set the clock, or the two drifted apart: the wall wins.
        if (nanos / 1_000_000).abs_diff(u128::from(millis)) > 20 {
            self.anchor = (self.clock.now(), millis);
            nanos = u128::from(millis) * 1_000_000;
        }
        let timestamp =
            i128::try_from(nanos).ok().and_then(|nanos| jiff::Timestamp::from_nanosecond(nanos).ok());
        Moment(timestamp.unwrap_or(jiff::Timestamp::MAX).to_zoned(self.zone.clone()))
    }
}

/// When a message came, in the local time zone.
#[derive(Clone, Debug)]
pub(super) struct Moment(Zoned);

impl Moment {
    fn format(&self, format: &str) -> String {
        jiff::fmt::strtime::format(format, &self.0).unwrap_or_default()
    }

    fn strftime(&self, letter: char) -> String {
        match letter {
            // As the locale "C" has them.
            'c' => self.format("%a %b %e %H:%M:%S %Y"),
            'x' => self.format("%m/%d/%y"),
            'X' => self.format("%H:%M:%S"),
            'r' => self.format("%I:%M:%S %p"),
            letter => self.format(&format!("%{letter}")),
        }
    }

    fn nanoseconds(&self) -> i32 {
        self.0.subsec_nanosecond()
    }

    fn iso(&self) -> String {
        self.format("%Y-%m-%dT%H:%M:%S%z")
    }

    fn json(&self) -> String {
        let (start, micros, zone) =
            (self.format("%Y-%m-%dT%H:%M:%S"), self.nanoseconds() / 1000, self.format("%z"));
        // Both the letter and the offset: that is how mosquitto_sub writes it.
        format!("{start}.{micros:06}Z{zone}")
    }

    fn unix(&self) -> String {
        format!("{}.{:09}", self.0.timestamp().as_second(), self.nanoseconds())
    }
}

#[cfg(test)]
mod tests {
    use client::Message;
    use std::time::Duration;

    use super::*;

    fn printed(format: &str, payload: &str) -> String {
        let received =
            Received { message: Message::new("topic/a", payload.to_owned()), dup: false, packet_id: None };
        let (clock, hand) = Clock::manual();
        let mut wall = WallClock { zone: TimeZone::UTC, ..WallClock::new(clock) };
        hand.advance(Duration::from_nanos(1_002_003));
        let mut out = Vec::new();
        let layout = Layout::Format(Format::parse(format).unwrap());
        layout.print(&received, &wall.now(), false, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn widths_pad_and_cut_as_in_mosquitto_sub() {
        // Each line as mosquitto_sub 2.0.11 printed it.
        for (format, expected) in [
            (
                "|%20t|%-20t|%.3t|%10.3t|%-10.3t|%05t|",
                "|             topic/a|topic/a             |top|       top|top       |topic/a|",
            ),
            (
                "|%20p|%-20p|%3p|%03p|%.2p|%020p|",
                "|             payload|payload             |pay|pay|payload|0000000000000payload|",
            ),
            (
                "|%x|%X|%020x|%-20x|%2x|%3x|",
                "|7061796c6f6164|7061796C6F6164|00000000000000706179|706179              |70| 70|",
            ),
            ("|%l|%5l|%05l|%-5l|%5m|%5q|", "|7|    7|00007|7    |    0|0|"),
            ("|%A|%5A|%05A|%5C|%5D|%05E|%5F|%5R|%5S|%P|", "||     |00000|     ||00000|     ||     ||"),
        ] {
            assert_eq!(printed(format, "payload"), expected, "{format}");
        }
        assert_eq!(printed("|%5x|%p|%5p|%05x|", ""), "|     ||     |00000|");
    }

    #[test]
    fn times_come_from_the_clock_with_nanoseconds() {
        assert_eq!(printed("%U", ""), "1767225600.001002003");
        assert_eq!(printed("%I", ""), "2026-01-01T00:00:00+0000");
        assert_eq!(printed("@Y @j @N @s @@", ""), "2026 001 001002003 1767225600 @");
        assert_eq!(printed("@c|@x|@X|@r", ""), "Thu Jan  1 00:00:00 2026|01/01/26|00:00:00|12:00:00 AM");
        assert!(
            printed("%j", "x")
                .starts_with(r#"{"tst":"2026-01-01T00:00:00.001002Z+0000","topic":"topic/a","qos":0"#)
        );
    }

    #[test]
    fn an_empty_payload_prints_nothing_or_null() {
        let received = Received { message: Message::new("t", ""), dup: false, packet_id: None };
        let now = WallClock::new(Clock::manual().0).now();
        for (layout, newline, expected) in [
            (Layout::Payload, true, ""),
            (Layout::TopicAndPayload, true, "t (null)\n"),
            (Layout::TopicAndPayload, false, ""),
        ] {
            let mut out = Vec::new();
            layout.print(&received, &now, newline, &mut out).unwrap();
            assert_eq!(out, expected.as_bytes());
        }
    }
}
