//! What a message carries beside its payload: properties that follow from its stream and number, as its length does, so that
//! whoever gets it knows what they must be [MQTT-3.3.2-15] [MQTT-3.3.2-17] [MQTT-3.3.2-18] [MQTT-3.3.2-20].

use std::borrow::Cow;

use mqtt::packet::PublishProperties;

use super::letter::mix;

/// More bytes than the properties of any message take.
pub(crate) const MOST: usize = 512;

/// The properties of a message, without those that are of a connection or of time.
pub(crate) fn trimmings(stream: u16, seq: u64) -> PublishProperties<'static> {
    let dice = mix(u64::from(stream) << 44 ^ seq ^ 0x7472_696d);
    let has = |bit: u32| dice >> bit & 1 == 1;
    let number = |shift: u32, most: u64| usize::try_from(dice >> shift & most).unwrap_or(0);
    let mut properties = PublishProperties::default();
    for user in 0..number(0, 3) {
        // names repeat
        let (name, value) = (format!("k{}", user & 1), "v".repeat(number(8 + user as u32, 63)));
        properties.user_properties.push((Cow::Owned(name), Cow::Owned(value)));
    }
    properties.content_type = has(20).then(|| Cow::Owned(format!("application/x-soak; stream={stream}")));
    properties.correlation_data = has(21).then(|| Cow::Owned(seq.to_be_bytes().repeat(number(32, 15))));
    properties.response_topic = has(22).then(|| Cow::Owned(format!("answers/{stream}/{}", seq % 7)));
    // a letter is no text
    properties.payload_format_indicator = has(23).then_some(false);
    properties
}

/// Whether a message came with the properties it was sent with; `had`: it was sent with some. An error: it did not.
pub(crate) fn check(came: &PublishProperties<'_>, stream: u16, seq: u64, had: bool) -> Result<(), String> {
    let sent = if had { trimmings(stream, seq) } else { PublishProperties::default() };
    let same = came.payload_format_indicator == sent.payload_format_indicator
        && came.response_topic == sent.response_topic
        && came.correlation_data == sent.correlation_data
        && came.user_properties == sent.user_properties
        && came.content_type == sent.content_type;
    if same { Ok(()) } else { Err(format!("it came with {came:?} and was sent with {sent:?}")) }
}
