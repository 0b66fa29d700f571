//! Topic names (4.7): what a message may be published to.

use crate::ReasonCode;

/// The longest topic name or topic filter, in bytes of UTF-8 [MQTT-4.7.3-3].
pub const MAX_LEN: usize = 65_535;

/// Why a string is not a topic name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TopicError {
    /// At least one character is needed.
    #[error("the topic name is empty [MQTT-4.7.3-1]")]
    Empty,
    /// More than [`MAX_LEN`] bytes.
    #[error("the topic name is longer than 65535 bytes [MQTT-4.7.3-3]")]
    TooLong,
    /// `#` or `+`.
    #[error("the topic name contains a wildcard [MQTT-4.7.0-1]")]
    Wildcard,
    /// U+0000.
    #[error("the topic name contains U+0000 [MQTT-4.7.3-2]")]
    Null,
}

impl TopicError {
    /// What to answer to a peer that used such a name.
    pub const fn reason(self) -> ReasonCode {
        match self {
            Self::Null => ReasonCode::MalformedPacket,
            Self::Empty | Self::TooLong | Self::Wildcard => ReasonCode::TopicNameInvalid,
        }
    }
}

/// Whether a message may be published to `topic`: not empty [MQTT-4.7.3-1], at most 65,535 bytes [MQTT-4.7.3-3],
/// no wildcards [MQTT-4.7.0-1], no U+0000 [MQTT-4.7.3-2].
///
/// # Errors
/// The first rule that it breaks, in that order.
pub fn validate(topic: &str) -> Result<(), TopicError> {
    if topic.is_empty() {
        return Err(TopicError::Empty);
    }
    if topic.len() > MAX_LEN {
        return Err(TopicError::TooLong);
    }
    // Without an early exit the compiler looks at sixteen bytes at once; this runs for every PUBLISH.
    let forbidden = topic.bytes().fold(false, |seen, byte| seen | matches!(byte, 0 | b'#' | b'+'));
    if !forbidden {
        return Ok(());
    }
    match topic.bytes().find(|byte| matches!(byte, 0 | b'#' | b'+')) {
        Some(0) => Err(TopicError::Null),
        _ => Err(TopicError::Wildcard),
    }
}

/// Whether the server keeps the topic for itself: it begins with `$`, so wildcards at the front of a filter do not
/// match it [MQTT-4.7.2-1].
pub fn is_reserved(topic: &str) -> bool {
    topic.as_bytes().first() == Some(&b'$')
}
