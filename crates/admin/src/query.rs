//! The query string, read strictly: a parameter that is misspelt is told, not ignored.

use ::api::page::PageQuery;
use ::api::rest::MAX_LIMIT;
use axum::http::Uri;
use percent_encoding::percent_decode_str;

use crate::refusal::Refusal;

/// The parameters of a request, each at most once, all of them known to the route.
#[derive(Debug)]
pub(crate) struct Query(Vec<(String, String)>);

impl Query {
    /// Reads the query of `uri`; `known` are the parameters of the route.
    pub(crate) fn read(uri: &Uri, known: &[&str]) -> Result<Self, Refusal> {
        let mut read: Vec<(String, String)> = Vec::new();
        for pair in uri.query().unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (key, value) = (decoded(key, key)?, decoded(key, value)?);
            if !known.contains(&key.as_str()) {
                let allowed = match known {
                    [] => "this route takes no parameters".to_owned(),
                    known => format!("unknown parameter; allowed: {}", known.join(", ")),
                };
                return Err(Refusal::query(&key, &value, &allowed));
            }
            if read.iter().any(|(before, _)| *before == key) {
                return Err(Refusal::query(&key, &value, "given twice"));
            }
            read.push((key, value));
        }
        Ok(Self(read))
    }

    /// A parameter as it is.
    pub(crate) fn text(&self, key: &str) -> Option<String> {
        self.0.iter().find(|(name, _)| name == key).map(|(_, value)| value.clone())
    }

    /// A parameter that has to be one of `allowed`.
    pub(crate) fn choice(&self, key: &str, allowed: &[&str]) -> Result<Option<String>, Refusal> {
        match self.text(key) {
            Some(value) if !allowed.contains(&value.as_str()) => {
                Err(Refusal::query(key, &value, &format!("allowed: {}", allowed.join(", "))))
            }
            other => Ok(other),
        }
    }

    /// A parameter that has to be a whole number from `least` to `most`.
    pub(crate) fn number(&self, key: &str, least: u64, most: u64) -> Result<Option<u64>, Refusal> {
        let Some(value) = self.text(key) else { return Ok(None) };
        let number = value.parse().ok().filter(|number| (least..=most).contains(number));
        match number {
            Some(number) => Ok(Some(number)),
            None => {
                Err(Refusal::query(key, &value, &format!("a whole number from {least} to {most} is allowed")))
            }
        }
    }

    /// `limit`.
    pub(crate) fn limit(&self) -> Result<Option<usize>, Refusal> {
        let most = u64::try_from(MAX_LIMIT).unwrap_or(u64::MAX);
        Ok(self.number("limit", 1, most)?.and_then(|rows| usize::try_from(rows).ok()))
    }

    /// `limit` and `cursor`.
    pub(crate) fn page(&self) -> Result<PageQuery, Refusal> {
        Ok(PageQuery { limit: self.limit()?, cursor: self.text("cursor") })
    }
}

/// `application/x-www-form-urlencoded`, as browsers and HTTP libraries write queries: `+` is a space.
fn decoded(key: &str, text: &str) -> Result<String, Refusal> {
    let spaced = text.replace('+', " ");
    match percent_decode_str(&spaced).decode_utf8() {
        Ok(decoded) => Ok(decoded.into_owned()),
        Err(_) => Err(Refusal::query(key, text, "the percent-encoding has to be of UTF-8")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(query: &str, known: &[&str]) -> Result<Query, String> {
        let uri: Uri = format!("/x?{query}").parse().unwrap();
        Query::read(&uri, known).map_err(|refusal| format!("{refusal:?}"))
    }

    #[test]
    fn parameters_are_decoded() {
        let query = read("clientid=a%2Fb+c%2Bd%C3%BC&limit=7&username=", &["clientid", "limit", "username"]);
        let query = query.unwrap();
        assert_eq!(query.text("clientid").unwrap(), "a/b c+dü");
        assert_eq!(query.text("username").unwrap(), "");
        assert_eq!(query.limit().unwrap(), Some(7));
        assert_eq!(query.text("cursor"), None);
    }

    #[test]
    fn a_misspelt_doubled_or_broken_parameter_is_told() {
        for (query, told) in [
            ("limt=1", "unknown parameter; allowed: limit"),
            ("limit=1&limit=2", "given twice"),
            ("limit=%ff", "UTF-8"),
            ("%ff=1", "UTF-8"),
        ] {
            let refusal = read(query, &["limit"]).unwrap_err();
            assert!(refusal.contains(told), "{query}: {refusal}");
        }
        assert!(read("a=1", &[]).unwrap_err().contains("takes no parameters"));
        assert!(read("", &[]).is_ok());
        assert!(read("&&", &[]).is_ok());
    }

    #[test]
    fn a_limit_outside_its_range_is_told_with_the_range() {
        for limit in ["0", "10001", "-1", "1.5", "x", "", "99999999999999999999"] {
            let refusal = read(&format!("limit={limit}"), &["limit"]).unwrap().limit().unwrap_err();
            assert!(format!("{refusal:?}").contains("from 1 to 10000"), "{limit}: {refusal:?}");
        }
        assert_eq!(read("limit=10000", &["limit"]).unwrap().limit().unwrap(), Some(10_000));
    }
}
