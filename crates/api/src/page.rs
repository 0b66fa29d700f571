//! Lists come in pages: `{"data": [...], "meta": {"cursor": ...}}` with `limit` and `cursor` in the query.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Which page of a list is wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PageQuery {
    /// Rows, 1 to 10,000; 100 where nothing is said.
    pub limit: Option<usize>,
    /// From the `meta` of the page before; opaque.
    pub cursor: Option<String>,
}

/// A page.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Page<T> {
    /// The rows.
    pub data: Vec<T>,
    /// Where to go on.
    pub meta: PageMeta,
}

/// Where to go on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PageMeta {
    /// Goes into the query for the next page; `null` on the last one.
    pub cursor: Option<String>,
}
