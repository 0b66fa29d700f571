//! The properties of a PUBLISH, where mostly there are none.

use std::borrow::Cow;
use std::fmt;

use super::PublishProperties;
use crate::codec::section;

/// [`PublishProperties`], in the form in which they came: none at all, a section of bytes that has been judged and is copied to its
/// receivers as it is, or taken apart. What they say is asked by [`Self::read`], whatever the form; all forms of the same are equal.
#[derive(Clone, Default)]
pub struct Properties<'a>(Form<'a>);

#[derive(Clone, Default)]
enum Form<'a> {
    /// A message that has none is not two hundred bytes larger for those that have.
    #[default]
    None,
    /// What `section::is_forwarded` accepted; not empty.
    Raw(Cow<'a, [u8]>),
    Apart(Box<PublishProperties<'a>>),
}

static NONE: PublishProperties<'static> = PublishProperties::NONE;

impl<'a> Properties<'a> {
    /// A section, without its length, that `section::is_forwarded` has accepted.
    #[inline]
    pub(crate) const fn judged(bytes: &'a [u8]) -> Self {
        Self(if bytes.is_empty() { Form::None } else { Form::Raw(Cow::Borrowed(bytes)) })
    }

    /// What a packet that was taken apart had.
    pub(crate) fn apart(properties: Option<Box<PublishProperties<'a>>>) -> Self {
        Self(properties.map_or(Form::None, Form::Apart))
    }

    /// Whether there certainly are none; asks nothing of the heap.
    #[inline]
    pub const fn is_none(&self) -> bool {
        matches!(self.0, Form::None)
    }

    /// The property section as it came and as it goes to every receiver of version 5, without its length; empty for none.
    /// `None`: they have been taken apart.
    #[inline]
    pub fn as_bytes(&self) -> Option<&[u8]> {
        match &self.0 {
            Form::None => Some(&[]),
            Form::Raw(bytes) => Some(bytes),
            Form::Apart(_) => None,
        }
    }

    /// What they say. Takes a section apart, which allocates for User Properties: who asks for one value on the way of every message
    /// has a method of its own below.
    pub fn read(&self) -> Cow<'_, PublishProperties<'_>> {
        match &self.0 {
            Form::None => Cow::Borrowed(&NONE),
            Form::Raw(bytes) => Cow::Owned(section::read(bytes)),
            Form::Apart(properties) => Cow::Borrowed(properties),
        }
    }

    /// Changes them. Takes a section apart and makes room on the heap: ask before, where there is mostly nothing to change.
    pub fn edit<R>(&mut self, change: impl FnOnce(&mut PublishProperties<'a>) -> R) -> R {
        let mut properties = match std::mem::take(&mut self.0) {
            Form::Apart(properties) => properties,
            other => Box::new(Self(other).into()),
        };
        let changed = change(&mut properties);
        self.0 = Form::Apart(properties);
        changed
    }

    /// [`PublishProperties::payload_format_indicator`]; allocates nothing.
    #[inline]
    pub fn payload_format_indicator(&self) -> Option<bool> {
        match &self.0 {
            Form::None => None,
            Form::Raw(bytes) => section::payload_format_indicator(bytes),
            Form::Apart(properties) => properties.payload_format_indicator,
        }
    }

    /// [`PublishProperties::message_expiry_interval`]; allocates nothing.
    #[inline]
    pub fn message_expiry_interval(&self) -> Option<u32> {
        match &self.0 {
            Form::None => None,
            Form::Raw(bytes) => section::message_expiry_interval(bytes),
            Form::Apart(properties) => properties.message_expiry_interval,
        }
    }

    /// [`PublishProperties::topic_alias`]; allocates nothing.
    #[inline]
    pub fn topic_alias(&self) -> Option<u16> {
        match &self.0 {
            // a section with one is never copied: it means something on its own connection only
            Form::None | Form::Raw(_) => None,
            Form::Apart(properties) => properties.topic_alias,
        }
    }

    /// The same properties with their own memory.
    pub fn into_owned(self) -> Properties<'static> {
        Properties(match self.0 {
            Form::None => Form::None,
            Form::Raw(bytes) => Form::Raw(Cow::Owned(bytes.into_owned())),
            Form::Apart(properties) => Form::Apart(Box::new(properties.into_owned())),
        })
    }
}

impl<'a> From<PublishProperties<'a>> for Properties<'a> {
    fn from(properties: PublishProperties<'a>) -> Self {
        let none = properties == PublishProperties::NONE;
        Self(if none { Form::None } else { Form::Apart(Box::new(properties)) })
    }
}

impl<'a> From<Properties<'a>> for PublishProperties<'a> {
    fn from(properties: Properties<'a>) -> Self {
        match properties.0 {
            Form::None => Self::NONE,
            Form::Raw(Cow::Borrowed(bytes)) => section::read(bytes),
            Form::Raw(Cow::Owned(bytes)) => section::read(&bytes).into_owned(),
            Form::Apart(properties) => *properties,
        }
    }
}

/// Properties that are all absent are none, and a section is what it says.
impl PartialEq for Properties<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.read() == other.read()
    }
}

impl Eq for Properties<'_> {}

impl fmt::Debug for Properties<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.read().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_without_properties_is_small() {
        assert_eq!(size_of::<Properties<'_>>(), 24);
        assert!(size_of::<crate::packet::Publish<'_>>() <= 80);
        assert!(Properties::from(PublishProperties::default()).is_none());
        assert!(Properties::judged(&[]).is_none());
    }

    #[test]
    fn what_was_written_and_taken_back_is_none() {
        let mut properties =
            Properties::from(PublishProperties { topic_alias: Some(7), ..Default::default() });
        assert_ne!(properties, Properties::default());
        properties.edit(|p| p.topic_alias = None);
        assert_eq!(properties, Properties::default());
    }

    /// A content type and a user property.
    const SECTION: &[u8] = b"\x03\0\x01c\x26\0\x01k\0\x01v";

    #[test]
    fn a_section_says_the_same_in_every_form() {
        let apart = PublishProperties {
            content_type: Some("c".into()),
            user_properties: vec![("k".into(), "v".into())],
            ..Default::default()
        };
        let raw = Properties::judged(SECTION);
        assert_eq!(raw.as_bytes(), Some(SECTION));
        assert_eq!(*raw.read(), apart);
        let owned = raw.clone().into_owned();
        assert_eq!(owned.as_bytes(), Some(SECTION));
        assert_eq!(owned, Properties::from(apart.clone()));
        assert_eq!(PublishProperties::from(raw.clone()), apart);
        assert_eq!(PublishProperties::from(owned), apart);
        let mut changed = raw;
        changed.edit(|p| p.content_type = None);
        assert_eq!(changed.as_bytes(), None);
        assert_eq!(*changed.read(), PublishProperties { content_type: None, ..apart });
    }
}
