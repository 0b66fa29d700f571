//! The properties of a PUBLISH, where mostly there are none.

use std::fmt;
use std::ops::{Deref, DerefMut};

use super::PublishProperties;

/// Reads like [`PublishProperties`]. Without any it is one empty pointer, so that a message that has none is not
/// two hundred bytes larger for those that have.
///
/// Writing to one ([`DerefMut`]) makes room on the heap: ask before, where there is mostly nothing to write.
#[derive(Clone, Default)]
pub struct Properties<'a>(Option<Box<PublishProperties<'a>>>);

static NONE: PublishProperties<'static> = PublishProperties::NONE;

impl<'a> Properties<'a> {
    /// Whether there certainly are none; asks nothing of the heap.
    pub const fn is_none(&self) -> bool {
        self.0.is_none()
    }

    pub(super) fn map<'b>(
        self,
        f: impl FnOnce(PublishProperties<'a>) -> PublishProperties<'b>,
    ) -> Properties<'b> {
        Properties(self.0.map(|properties| Box::new(f(*properties))))
    }
}

impl<'a> From<PublishProperties<'a>> for Properties<'a> {
    fn from(properties: PublishProperties<'a>) -> Self {
        Self((properties != PublishProperties::NONE).then(|| Box::new(properties)))
    }
}

impl<'a> From<Properties<'a>> for PublishProperties<'a> {
    fn from(properties: Properties<'a>) -> Self {
        properties.0.map_or(Self::NONE, |properties| *properties)
    }
}

impl<'a> Deref for Properties<'a> {
    type Target = PublishProperties<'a>;

    fn deref(&self) -> &Self::Target {
        self.0.as_deref().unwrap_or(&NONE)
    }
}

impl DerefMut for Properties<'_> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        self.0.get_or_insert_default()
    }
}

/// Properties that are all absent are none, on the heap or not.
impl PartialEq for Properties<'_> {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for Properties<'_> {}

impl fmt::Debug for Properties<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_without_properties_is_small() {
        assert_eq!(size_of::<Properties<'_>>(), 8);
        assert!(size_of::<crate::packet::Publish<'_>>() <= 64);
        assert!(Properties::from(PublishProperties::default()).is_none());
    }

    #[test]
    fn what_was_written_and_taken_back_is_none() {
        let mut properties =
            Properties::from(PublishProperties { topic_alias: Some(7), ..Default::default() });
        assert_ne!(properties, Properties::default());
        properties.topic_alias = None;
        assert_eq!(properties, Properties::default());
    }
}
