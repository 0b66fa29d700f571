//! Pages of lists that a role answers as a whole, because they are short.

use ::api::page::{Page, PageMeta, PageQuery};
use ::api::rest::DEFAULT_LIMIT;

/// Which way the keys of a list go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// The smallest first.
    Ascending,
    /// The greatest first.
    Descending,
}

/// The page of `rows` after the cursor, which is the key of the last row before it. Keys are unique; rows come and go
/// between two pages and no other row is lost or doubled by that.
pub(crate) fn cut<T>(
    mut rows: Vec<T>,
    query: &PageQuery,
    order: Order,
    key: impl Fn(&T) -> String,
) -> Page<T> {
    rows.sort_by_cached_key(&key);
    if order == Order::Descending {
        rows.reverse();
    }
    if let Some(cursor) = &query.cursor {
        rows.retain(|row| match order {
            Order::Ascending => key(row) > *cursor,
            Order::Descending => key(row) < *cursor,
        });
    }
    let limit = query.limit.unwrap_or(DEFAULT_LIMIT);
    let more = rows.len() > limit;
    rows.truncate(limit);
    let cursor = rows.last().filter(|_| more).map(key);
    Page { data: rows, meta: PageMeta { cursor } }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn walk(rows: &[&str], limit: usize, order: Order) -> Vec<Vec<String>> {
        let mut pages = Vec::new();
        let mut query = PageQuery { limit: Some(limit), cursor: None };
        loop {
            let rows = rows.iter().map(|&row| row.to_owned()).collect();
            let page = cut(rows, &query, order, String::clone);
            pages.push(page.data);
            match page.meta.cursor {
                Some(cursor) => query.cursor = Some(cursor),
                None => return pages,
            }
        }
    }

    #[test]
    fn pages_cover_the_list_once_in_order() {
        let rows = ["c", "a", "e", "b", "d"];
        assert_eq!(walk(&rows, 2, Order::Ascending), [vec!["a", "b"], vec!["c", "d"], vec!["e"]]);
        assert_eq!(walk(&rows, 2, Order::Descending), [vec!["e", "d"], vec!["c", "b"], vec!["a"]]);
    }

    #[test]
    fn a_full_last_page_has_no_cursor() {
        assert_eq!(walk(&["a", "b"], 2, Order::Ascending).len(), 1);
        assert_eq!(walk(&[], 2, Order::Ascending), [Vec::<String>::new()]);
    }

    #[test]
    fn a_cursor_whose_row_has_gone_still_shows_where_to_go_on() {
        let query = PageQuery { limit: None, cursor: Some("b".into()) };
        let page = cut(vec!["a".to_owned(), "c".to_owned()], &query, Order::Ascending, String::clone);
        assert_eq!(page.data, ["c"]);
    }
}
