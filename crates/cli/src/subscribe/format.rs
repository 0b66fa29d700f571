//! The output format of `-F`, taken apart. The letters are those of mosquitto_sub.

/// One piece of a format.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Piece {
    /// As it stands.
    Text(Vec<u8>),
    /// `%`: something of the message.
    Field(Field, Width),
    /// `@`: strftime with this character.
    Time(char),
    /// `@N`
    Nanoseconds,
}

/// What a `%` letter stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Field {
    TopicAlias,
    ContentType,
    CorrelationData,
    MessageExpiryInterval,
    PayloadFormatIndicator,
    IsoTime,
    /// JSON with the payload as a string, or (`true`) as JSON.
    Json(bool),
    Length,
    PacketId,
    UserProperties,
    Payload,
    QoS,
    ResponseTopic,
    Retain,
    SubscriptionIdentifier,
    Topic,
    UnixTime,
    /// Hex, or (`true`) HEX.
    Hex(bool),
}

/// The optional part between `%` and the letter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Width {
    /// `-`: to the left.
    pub(super) left: bool,
    /// `0`: zeros instead of blanks.
    pub(super) zeros: bool,
    /// At least.
    pub(super) least: usize,
    /// At most.
    pub(super) most: Option<usize>,
}

/// A field is not made wider than this, so that a slip of the finger does not fill the memory.
const WIDEST: usize = 1_000_000;

/// A format.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Format(pub(super) Vec<Piece>);

impl Format {
    /// # Errors
    /// The first sequence that means nothing.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let mut pieces = Pieces(Vec::new());
        let mut rest = text.chars().peekable();
        while let Some(letter) = rest.next() {
            match letter {
                '%' => {
                    let width = width(&mut rest)?;
                    match rest.next().ok_or("incomplete format specifier")? {
                        '%' => pieces.text('%'),
                        letter => {
                            let field = field(letter)
                                .ok_or_else(|| format!("invalid format specifier '{letter}'"))?;
                            pieces.0.push(Piece::Field(field, width));
                        }
                    }
                }
                '@' => match rest.next().ok_or("incomplete format specifier")? {
                    '@' => pieces.text('@'),
                    'N' => pieces.0.push(Piece::Nanoseconds),
                    letter => pieces.0.push(Piece::Time(letter)),
                },
                '\\' => pieces.text(escaped(rest.next().ok_or("incomplete escape specifier")?)?),
                letter => pieces.text(letter),
            }
        }
        Ok(Self(pieces.0))
    }
}

/// Pieces with adjacent text joined.
struct Pieces(Vec<Piece>);

impl Pieces {
    fn text(&mut self, letter: char) {
        let mut buffer = [0; 4];
        let bytes = letter.encode_utf8(&mut buffer).as_bytes();
        match self.0.last_mut() {
            Some(Piece::Text(text)) => text.extend_from_slice(bytes),
            _ => self.0.push(Piece::Text(bytes.to_vec())),
        }
    }
}

fn width(rest: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Result<Width, String> {
    let mut width = Width::default();
    while let Some(flag) = rest.next_if(|letter| matches!(letter, '-' | '0')) {
        width.left |= flag == '-';
        width.zeros |= flag == '0';
    }
    width.least = digits(rest)?.unwrap_or(0);
    if rest.next_if_eq(&'.').is_some() {
        width.most = Some(digits(rest)?.unwrap_or(0));
    }
    Ok(width)
}

fn digits(rest: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Result<Option<usize>, String> {
    let mut number = None;
    while let Some(digit) = rest.next_if(char::is_ascii_digit) {
        let value = number.unwrap_or(0_usize) * 10 + digit.to_digit(10).unwrap_or(0) as usize;
        if value > WIDEST {
            return Err(format!("a width above {WIDEST}"));
        }
        number = Some(value);
    }
    Ok(number)
}

fn field(letter: char) -> Option<Field> {
    Some(match letter {
        'A' => Field::TopicAlias,
        'C' => Field::ContentType,
        'D' => Field::CorrelationData,
        'E' => Field::MessageExpiryInterval,
        'F' => Field::PayloadFormatIndicator,
        'I' => Field::IsoTime,
        'j' => Field::Json(false),
        'J' => Field::Json(true),
        'l' => Field::Length,
        'm' => Field::PacketId,
        'P' => Field::UserProperties,
        'p' => Field::Payload,
        'q' => Field::QoS,
        'R' => Field::ResponseTopic,
        'r' => Field::Retain,
        'S' => Field::SubscriptionIdentifier,
        't' => Field::Topic,
        'U' => Field::UnixTime,
        'x' => Field::Hex(false),
        'X' => Field::Hex(true),
        _ => return None,
    })
}

fn escaped(letter: char) -> Result<char, String> {
    Ok(match letter {
        '\\' => '\\',
        '0' => '\0',
        'a' => '\u{7}',
        'e' => '\u{1b}',
        'n' => '\n',
        'r' => '\r',
        't' => '\t',
        'v' => '\u{b}',
        _ => return Err(format!("invalid escape specifier '{letter}'")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Vec<Piece> {
        Format::parse(text).unwrap().0
    }

    #[test]
    fn a_format_is_taken_apart() {
        let width = Width { left: true, zeros: true, least: 12, most: Some(3) };
        assert_eq!(
            parse("a%%\\n%-012.3t@Y@@@N%p"),
            [
                Piece::Text(b"a%\n".to_vec()),
                Piece::Field(Field::Topic, width),
                Piece::Time('Y'),
                Piece::Text(b"@".to_vec()),
                Piece::Nanoseconds,
                Piece::Field(Field::Payload, Width::default()),
            ]
        );
    }

    #[test]
    fn a_wrong_format_is_told() {
        for (text, told) in [
            ("a%", "incomplete format"),
            ("a%10", "incomplete format"),
            ("a@", "incomplete format"),
            ("a\\", "incomplete escape"),
            ("%z", "'z'"),
            ("\\q", "'q'"),
            ("%99999999999999999999t", "width"),
        ] {
            let error = Format::parse(text).unwrap_err();
            assert!(error.contains(told), "{text}: {error}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_does_harm(text in ".{0,40}") {
            let _ = Format::parse(&text);
        }
    }
}
