//! The property section of a PUBLISH as it lies in the buffer: judged in place, and forwarded without being taken apart.
//!
//! [`is_forwarded`] accepts sections of properties that a server "MUST send ... unaltered" to the receivers [MQTT-3.3.2-4],
//! [MQTT-3.3.2-15], [MQTT-3.3.2-16], [MQTT-3.3.2-17], [MQTT-3.3.2-20], and Message Expiry Interval, whose value is patched
//! [MQTT-3.3.2-6]. What belongs to one hop (Topic Alias, Subscription Identifier), what is unknown and what is not right is left to
//! [`super::properties`], which also has the words for what is wrong.
//!
//! Must not know: packets, receivers.

use super::properties;
use crate::packet::PublishProperties;
use crate::property::Property;
use crate::topic;

const PAYLOAD_FORMAT_INDICATOR: u8 = Property::PayloadFormatIndicator.id();
const MESSAGE_EXPIRY_INTERVAL: u8 = Property::MessageExpiryInterval.id();
const CONTENT_TYPE: u8 = Property::ContentType.id();
const RESPONSE_TOPIC: u8 = Property::ResponseTopic.id();
const CORRELATION_DATA: u8 = Property::CorrelationData.id();
const USER_PROPERTY: u8 = Property::UserProperty.id();

/// Bytes of the value of Message Expiry Interval.
const EXPIRY_BYTES: usize = 4;

/// Whether a section, without its length, may be forwarded as it is: exactly if [`properties::publish`] would accept it and each
/// property is one of those that are forwarded. Allocates nothing.
pub(super) fn is_forwarded(section: &[u8]) -> bool {
    judge(section).is_some()
}

fn judge(section: &[u8]) -> Option<()> {
    let mut rest = section;
    let mut seen = 0_u16;
    while let Some((&id, value)) = rest.split_first() {
        if id == USER_PROPERTY {
            rest = skip_text(skip_text(value)?)?;
            continue;
        }
        rest = match id {
            PAYLOAD_FORMAT_INDICATOR => {
                let (&indicator, rest) = value.split_first()?;
                (indicator <= 1).then_some(rest)?
            }
            MESSAGE_EXPIRY_INTERVAL => value.get(EXPIRY_BYTES..)?,
            CONTENT_TYPE => skip_text(value)?,
            RESPONSE_TOPIC => {
                let (name, rest) = binary(value)?;
                topic::validate(std::str::from_utf8(name).ok()?).ok()?;
                rest
            }
            CORRELATION_DATA => binary(value)?.1,
            _ => return None,
        };
        // all of these are below 16
        let bit = 1 << (id & 15);
        if seen & bit != 0 {
            return None;
        }
        seen |= bit;
    }
    Some(())
}

fn binary(input: &[u8]) -> Option<(&[u8], &[u8])> {
    let (len, behind) = input.split_first_chunk()?;
    behind.split_at_checked(usize::from(u16::from_be_bytes(*len)))
}

/// What follows a UTF-8 Encoded String (1.5.4) that is one.
#[inline]
fn skip_text(input: &[u8]) -> Option<&[u8]> {
    let (text, rest) = binary(input)?;
    (is_ascii(text) || is_text(text)).then_some(rest)
}

fn is_text(bytes: &[u8]) -> bool {
    !bytes.contains(&0) && std::str::from_utf8(bytes).is_ok()
}

/// Whether all bytes are certainly ASCII other than U+0000, as nearly all names and values are. Eight at once; `false` may be wrong.
#[inline]
fn is_ascii(bytes: &[u8]) -> bool {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = 0x80 * ONES;
    // the highest bit of a byte shows that it was 0 (less 1, it has wrapped) or is not ASCII
    let odd = |word: u64| word | word.wrapping_sub(ONES);
    let (words, rest) = bytes.as_chunks::<8>();
    let mut seen = words.iter().fold(0, |seen, word| seen | odd(u64::from_le_bytes(*word)));
    match bytes.last_chunk::<8>() {
        Some(last) => seen |= odd(u64::from_le_bytes(*last)),
        None => {
            let word = rest.iter().fold(ONES, |word, &byte| word << 8 | u64::from(byte));
            seen |= odd(word);
        }
    }
    seen & HIGH == 0
}

/// The properties of a section that [`is_forwarded`] has accepted.
pub(crate) fn read(section: &[u8]) -> PublishProperties<'_> {
    let read = properties::forwarded(section);
    debug_assert!(read.is_ok(), "it has been judged");
    read.unwrap_or_default()
}

/// The value of a property that comes at most once, with what follows it.
fn find(section: &[u8], wanted: u8) -> Option<&[u8]> {
    let mut rest = section;
    while let Some((&id, value)) = rest.split_first() {
        if id == wanted {
            return Some(value);
        }
        rest = match id {
            USER_PROPERTY => binary(binary(value)?.1)?.1,
            PAYLOAD_FORMAT_INDICATOR => value.get(1..)?,
            MESSAGE_EXPIRY_INTERVAL => value.get(EXPIRY_BYTES..)?,
            _ => binary(value)?.1,
        };
    }
    None
}

/// The Payload Format Indicator of a section that [`is_forwarded`] has accepted.
pub(crate) fn payload_format_indicator(section: &[u8]) -> Option<bool> {
    find(section, PAYLOAD_FORMAT_INDICATOR)?.first().map(|&indicator| indicator == 1)
}

/// The Message Expiry Interval of a section that [`is_forwarded`] has accepted.
pub(crate) fn message_expiry_interval(section: &[u8]) -> Option<u32> {
    find(section, MESSAGE_EXPIRY_INTERVAL)?.first_chunk().map(|value| u32::from_be_bytes(*value))
}

/// Where the value of Message Expiry Interval lies in a section that [`is_forwarded`] has accepted.
pub(super) fn expiry_at(section: &[u8]) -> Option<usize> {
    find(section, MESSAGE_EXPIRY_INTERVAL).map(|value| section.len() - value.len())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// One property, right or nearly.
    fn property() -> impl Strategy<Value = Vec<u8>> {
        let text = || prop_oneof![4 => "[a-z/]{0,20}", 1 => ".{0,9}", 1 => Just("a\0b".to_owned())];
        let binary = |bytes: Vec<u8>| [&(bytes.len() as u16).to_be_bytes()[..], &bytes].concat();
        let of = |id: Property, value: Vec<u8>| [&[id.id()][..], &value].concat();
        prop_oneof![
            (0_u8..3).prop_map(move |value| of(Property::PayloadFormatIndicator, vec![value])),
            any::<u32>().prop_map(move |v| of(Property::MessageExpiryInterval, v.to_be_bytes().to_vec())),
            text().prop_map(move |v| of(Property::ContentType, binary(v.into_bytes()))),
            text().prop_map(move |v| of(Property::ResponseTopic, binary(v.into_bytes()))),
            prop::collection::vec(any::<u8>(), 0..20).prop_map(move |v| of(Property::ContentType, binary(v))),
            prop::collection::vec(any::<u8>(), 0..20)
                .prop_map(move |v| of(Property::CorrelationData, binary(v))),
            (text(), text()).prop_map(move |(name, value)| {
                of(Property::UserProperty, [binary(name.into_bytes()), binary(value.into_bytes())].concat())
            }),
            Just(of(Property::TopicAlias, vec![0, 1])),
            Just(of(Property::SubscriptionIdentifier, vec![1])),
        ]
    }

    /// A section whose last property may be cut.
    fn sections() -> impl Strategy<Value = Vec<u8>> {
        (prop::collection::vec(property(), 0..6), prop_oneof![4 => Just(0), 1 => 0_usize..4]).prop_map(
            |(properties, cut)| {
                let mut section = properties.concat();
                section.truncate(section.len().saturating_sub(cut));
                section
            },
        )
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        /// [MQTT-3.3.2-4], [MQTT-3.3.2-15], [MQTT-3.3.2-16], [MQTT-3.3.2-17], [MQTT-3.3.2-18], [MQTT-3.3.2-20]
        #[test]
        fn what_is_forwarded_as_it_is_is_what_the_decoder_accepts(section in sections()) {
            let read = properties::forwarded(&section);
            let whole = read
                .as_ref()
                .ok()
                .filter(|p| p.topic_alias.is_none() && p.subscription_identifiers.is_empty());
            prop_assert_eq!(is_forwarded(&section), whole.is_some());
            if let Some(whole) = whole {
                prop_assert_eq!(&super::read(&section), whole);
                prop_assert_eq!(payload_format_indicator(&section), whole.payload_format_indicator);
                prop_assert_eq!(message_expiry_interval(&section), whole.message_expiry_interval);
                let value = expiry_at(&section).map(|at| u32::from_be_bytes(section[at..at + EXPIRY_BYTES].try_into().unwrap()));
                prop_assert_eq!(value, whole.message_expiry_interval);
            }
        }

        #[test]
        fn bytes_that_count_as_ascii_are(bytes in prop_oneof!["[a-c]{0,20}".prop_map(String::into_bytes), any::<Vec<u8>>()]) {
            let ascii = bytes.iter().all(|byte| (1..0x80).contains(byte));
            prop_assert!(ascii || !is_ascii(&bytes));
            prop_assert_eq!(is_ascii(&bytes) || is_text(&bytes), ascii || is_text(&bytes));
        }
    }

    /// Of the bytes of names and values none is taken for odd, at any place and in any length.
    #[test]
    fn ascii_is_not_looked_at_twice() {
        for len in 0..20 {
            for byte in 1..0x80 {
                assert!(is_ascii(&vec![byte; len]), "{byte} {len}");
            }
            for (at, odd) in (0..len).flat_map(|at| [(at, 0), (at, 0x80), (at, 0xFF)]) {
                let mut bytes = vec![b'a'; len];
                bytes[at] = odd;
                assert!(!is_ascii(&bytes), "{odd} at {at} of {len}");
            }
        }
    }
}
