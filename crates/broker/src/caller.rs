//! Who asks to come in, as far as it is known: for events about those who do not.
//!
//! Must not know: why somebody is refused; passwords.

use std::sync::Arc;

use mqtt::packet::Connect;

/// See the module. Nothing is known before the CONNECT was read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Caller {
    /// `None` too while it is to be assigned.
    pub(crate) client_id: Option<Arc<str>>,
    pub(crate) username: Option<Arc<str>>,
}

impl Caller {
    pub(crate) fn of(connect: &Connect<'_>) -> Self {
        Self {
            client_id: Some(&*connect.client_id).filter(|id| !id.is_empty()).map(Arc::from),
            username: connect.username.as_deref().map(Arc::from),
        }
    }
}
