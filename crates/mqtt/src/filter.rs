//! Topic filters (4.7), shared subscriptions (4.8.2) and matching.
//!
//! Must not know: who subscribed. The broker's tree of subscriptions obeys the same rules; [`matches()`] is the
//! definition of them.

use crate::{ReasonCode, topic};

/// What a shared subscription's filter begins with [MQTT-4.8.2-1].
const SHARE: &str = "$share/";

/// Why a string is not a topic filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    /// At least one character is needed, also behind `$share/group/`.
    #[error("the topic filter is empty [MQTT-4.7.3-1]")]
    Empty,
    /// More than 65,535 bytes.
    #[error("the topic filter is longer than 65535 bytes [MQTT-4.7.3-3]")]
    TooLong,
    /// U+0000.
    #[error("the topic filter contains U+0000 [MQTT-4.7.3-2]")]
    Null,
    /// `#` that is not a whole level, or not the last one.
    #[error("the multi-level wildcard is not the whole last level [MQTT-4.7.1-1]")]
    MultiLevelWildcard,
    /// `+` that is not a whole level.
    #[error("the single-level wildcard is not a whole level [MQTT-4.7.1-2]")]
    SingleLevelWildcard,
    /// `$share//...`: nobody shares.
    #[error("the share name is empty [MQTT-4.8.2-1]")]
    ShareNameEmpty,
    /// A wildcard in the share name.
    #[error("the share name contains a wildcard [MQTT-4.8.2-2]")]
    ShareNameWildcard,
    /// `$share/group` with nothing behind it.
    #[error("the share name is not followed by a slash and a topic filter [MQTT-4.8.2-2]")]
    ShareWithoutFilter,
}

impl FilterError {
    /// What to answer to a peer that used such a filter.
    pub const fn reason(self) -> ReasonCode {
        match self {
            Self::Null => ReasonCode::MalformedPacket,
            _ => ReasonCode::TopicFilterInvalid,
        }
    }
}

/// A valid topic filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Filter<'a> {
    full: &'a str,
    share: Option<&'a str>,
    path: &'a str,
    wildcards: bool,
}

impl<'a> Filter<'a> {
    /// Checks a filter as it stands in SUBSCRIBE.
    ///
    /// # Errors
    /// The rule that it breaks.
    pub fn parse(full: &'a str) -> Result<Self, FilterError> {
        if full.is_empty() {
            return Err(FilterError::Empty);
        }
        if full.len() > topic::MAX_LEN {
            return Err(FilterError::TooLong);
        }
        if full.as_bytes().contains(&0) {
            return Err(FilterError::Null);
        }
        let (share, path) = match full.strip_prefix(SHARE) {
            None => (None, full),
            Some(rest) => {
                let (name, path) = split_share(rest)?;
                (Some(name), path)
            }
        };
        let wildcards = validate_path(path)?;
        Ok(Self { full, share, path, wildcards })
    }

    /// The filter as it was given.
    pub const fn as_str(&self) -> &'a str {
        self.full
    }

    /// The share name, if it is a shared subscription.
    pub const fn share(&self) -> Option<&'a str> {
        self.share
    }

    /// The filter that topics are matched against: without `$share/group/`.
    pub const fn path(&self) -> &'a str {
        self.path
    }

    /// Whether [`Self::path`] has wildcards; without any it matches exactly the topic of the same name.
    pub const fn has_wildcards(&self) -> bool {
        self.wildcards
    }

    /// Whether a message published to `topic` belongs to this filter.
    pub fn matches(&self, topic: &str) -> bool {
        matches(self.path, topic)
    }
}

/// Takes `group/path` apart [MQTT-4.8.2-1], [MQTT-4.8.2-2].
fn split_share(rest: &str) -> Result<(&str, &str), FilterError> {
    let (name, path) = rest.split_once('/').ok_or(FilterError::ShareWithoutFilter)?;
    if name.is_empty() {
        return Err(FilterError::ShareNameEmpty);
    }
    if name.contains(['+', '#']) {
        return Err(FilterError::ShareNameWildcard);
    }
    if path.is_empty() {
        return Err(FilterError::ShareWithoutFilter);
    }
    Ok((name, path))
}

/// Checks the wildcards of a filter and tells whether there are any.
fn validate_path(path: &str) -> Result<bool, FilterError> {
    if !path.contains(['+', '#']) {
        return Ok(false);
    }
    let mut levels = path.split('/').peekable();
    while let Some(level) = levels.next() {
        // [MQTT-4.7.1-1] `#` is a level of its own, and the last one.
        if level.contains('#') && (level != "#" || levels.peek().is_some()) {
            return Err(FilterError::MultiLevelWildcard);
        }
        // [MQTT-4.7.1-2] `+` is a level of its own.
        if level.contains('+') && level != "+" {
            return Err(FilterError::SingleLevelWildcard);
        }
    }
    Ok(true)
}

/// Whether a message published to `topic` belongs to a valid filter (without `$share/group/`).
///
/// Levels are compared byte by byte, without normalisation [MQTT-4.7.3-4]. `a/#` matches `a` (4.7.1.2), and
/// a filter that begins with a wildcard matches no topic that begins with `$` [MQTT-4.7.2-1].
pub fn matches(filter_path: &str, topic: &str) -> bool {
    if topic::is_reserved(topic) && filter_path.starts_with(['+', '#']) {
        return false;
    }
    let mut filter = filter_path.split('/');
    let mut names = topic.split('/');
    loop {
        match (filter.next(), names.next()) {
            (Some("#"), _) | (None, None) => return true,
            (Some(level), Some(name)) if level == "+" || level == name => {}
            _ => return false,
        }
    }
}
