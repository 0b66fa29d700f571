//! A thin, blocking client of the REST API.
//!
//! For command line tools: one call, one answer, one sentence where there is none. It asks the server it was given
//! and no other: no proxies from the environment, no redirects. Must not know: how answers are shown.

mod error;

use std::time::Duration;

use serde::de::DeserializeOwned;
use ureq::http::{Method, Request, Response, Uri, header};
use ureq::{Agent, Body};

use crate::broker::{Client, ClientQuery, Subscription};
use crate::gateway::{Connection, ConnectionQuery, Listener, Pin, Server, Upstream};
use crate::node::{EventRecord, Node, Reloaded};
use crate::page::{Page, PageQuery};
use crate::problem::Problem;
use crate::rest::{ConnectionDetail, MAX_LIMIT, PREFIX, PinTarget, encode, fits_path};

pub use error::ClientError;

/// Where the API is when nobody says otherwise.
pub const DEFAULT_BASE: &str = "http://127.0.0.1:18083";

/// Longest wait for a TCP connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Longest wait for a whole answer; a reload may take its time.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(90);

/// The largest answer that is read, in bytes: a page of 10,000 rows is about 10 MB.
const MAX_ANSWER: u64 = 256 << 20;

/// A connection to one API.
#[derive(Clone, Debug)]
pub struct RestClient {
    base: String,
    agent: Agent,
}

impl RestClient {
    /// A client of the API at `base`, such as `http://127.0.0.1:18083`. Nothing is sent yet.
    ///
    /// # Errors
    /// `base` is no `http://` URL and no `HOST:PORT`.
    pub fn new(base: &str) -> Result<Self, ClientError> {
        let base = checked_base(base)?;
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .proxy(None)
            .timeout_connect(Some(CONNECT_TIMEOUT))
            .timeout_global(Some(ANSWER_TIMEOUT))
            .user_agent(concat!("tidegate/", env!("CARGO_PKG_VERSION")))
            .build();
        Ok(Self { base, agent: config.new_agent() })
    }

    /// Where this client asks.
    #[must_use]
    pub fn base(&self) -> &str {
        &self.base
    }

    /// `GET /clients`.
    ///
    /// # Errors
    /// See [`ClientError`]; so for all calls.
    pub fn clients(&self, query: &ClientQuery, page: &PageQuery) -> Result<Page<Client>, ClientError> {
        let path = Path::new(&["clients"])
            .query("clientid", query.clientid.as_deref())
            .query("username", query.username.as_deref())
            .query("conn_state", query.conn_state.as_deref())
            .page(page);
        self.get(&path)
    }

    /// `GET /clients/{clientid}`; `None`: there is no such client.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn client(&self, clientid: &str) -> Result<Option<Client>, ClientError> {
        if fits_path(clientid) {
            return absent(self.get(&Path::new(&["clients", clientid])), "client-not-found");
        }
        let query = ClientQuery { clientid: Some(clientid.to_owned()), ..ClientQuery::default() };
        Ok(self.clients(&query, &PageQuery::default())?.data.into_iter().next())
    }

    /// `DELETE /clients/{clientid}`; `false`: there is no such client.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn kick(&self, clientid: &str) -> Result<bool, ClientError> {
        let path = Path::new(&["clients"]).name("clientid", clientid);
        Ok(absent(self.send(Method::DELETE, &path, None), "client-not-found")?.is_some())
    }

    /// `GET /clients/{clientid}/subscriptions`, all of them; `None`: there is no such client.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn subscriptions(&self, clientid: &str) -> Result<Option<Vec<Subscription>>, ClientError> {
        let mut all = Vec::new();
        for page in self.pages(|client, page| {
            client.get::<Page<Subscription>>(&Path::new(&["clients", clientid, "subscriptions"]).page(page))
        }) {
            match absent(page, "client-not-found")? {
                Some(rows) => all.extend(rows),
                None => return Ok(None),
            }
        }
        Ok(Some(all))
    }

    /// `GET /nodes`, in the largest page there is: a cluster has fewer.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn nodes(&self) -> Result<Page<Node>, ClientError> {
        self.get(&Path::new(&["nodes"]).page(&largest_page()))
    }

    /// `GET /gateway/connections`; with a client id only those of that client.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn connections(
        &self,
        clientid: Option<&str>,
        query: &ConnectionQuery,
        page: &PageQuery,
    ) -> Result<Page<Connection>, ClientError> {
        let path = Path::new(&["gateway", "connections"])
            .query("clientid", clientid)
            .query("server", query.server.as_deref())
            .query("upstream", query.upstream.as_deref())
            .page(page);
        self.get(&path)
    }

    /// `GET /gateway/connections/{clientid}`; `None`: the client has no connection here.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn connection(&self, clientid: &str) -> Result<Option<ConnectionDetail>, ClientError> {
        if fits_path(clientid) {
            return absent(
                self.get(&Path::new(&["gateway", "connections", clientid])),
                "connection-not-found",
            );
        }
        let page = PageQuery { limit: Some(crate::rest::MAX_OTHERS), cursor: None };
        let rows = self.connections(Some(clientid), &ConnectionQuery::default(), &page)?.data;
        let mut rows = rows.into_iter();
        Ok(rows.next().map(|newest| ConnectionDetail { newest, others: rows.collect() }))
    }

    /// `GET /gateway/listeners`, in the largest page there is: a configuration has fewer.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn listeners(&self) -> Result<Page<Listener>, ClientError> {
        self.get(&Path::new(&["gateway", "listeners"]).page(&largest_page()))
    }

    /// `GET /upstreams`, in the largest page there is: a configuration has fewer.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn upstreams(&self) -> Result<Page<Upstream>, ClientError> {
        self.get(&Path::new(&["upstreams"]).page(&largest_page()))
    }

    /// `POST /upstreams/{name}/servers/{server}/drain`: the server as it is now.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn drain(&self, upstream: &str, server: &str) -> Result<Server, ClientError> {
        self.post(&Path::new(&["upstreams", upstream, "servers", server, "drain"]))
    }

    /// `POST /upstreams/{name}/servers/{server}/enable`: the server as it is now.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn enable(&self, upstream: &str, server: &str) -> Result<Server, ClientError> {
        self.post(&Path::new(&["upstreams", upstream, "servers", server, "enable"]))
    }

    /// `GET /upstreams/{name}/pins`.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn pins(&self, upstream: &str, page: &PageQuery) -> Result<Page<Pin>, ClientError> {
        self.get(&Path::new(&["upstreams", upstream, "pins"]).page(page))
    }

    /// `PUT /upstreams/{name}/pins/{key}`: the pin as it is now.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn pin(&self, upstream: &str, key: &str, server: &str) -> Result<Pin, ClientError> {
        let path = Path::new(&["upstreams", upstream, "pins"]).name("key", key);
        let target = PinTarget { server: server.to_owned() };
        let body = serde_json::to_vec(&target).map_err(|error| self.transport(error.to_string()))?;
        self.send(Method::PUT, &path, Some(body)).and_then(|answer| self.parsed(&answer))
    }

    /// `DELETE /upstreams/{name}/pins/{key}`; `false`: there was none.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn unpin(&self, upstream: &str, key: &str) -> Result<bool, ClientError> {
        let path = Path::new(&["upstreams", upstream, "pins"]).name("key", key);
        Ok(absent(self.send(Method::DELETE, &path, None), "pin-not-found")?.is_some())
    }

    /// `GET /events`: the newest `limit` events after `since`, oldest first.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn events(
        &self,
        since: Option<u64>,
        kind: Option<&str>,
        limit: usize,
    ) -> Result<Page<EventRecord>, ClientError> {
        let path = Path::new(&["events"])
            .query("since", since.map(|seq| seq.to_string()).as_deref())
            .query("type", kind)
            .query("limit", Some(&limit.to_string()));
        self.get(&path)
    }

    /// `POST /config/reload`.
    ///
    /// # Errors
    /// See [`ClientError`]; a configuration that was refused is a [`ClientError::Problem`] with all `errors`.
    pub fn reload(&self) -> Result<Reloaded, ClientError> {
        self.post(&Path::new(&["config", "reload"]))
    }

    /// `GET /openapi.json`.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn openapi(&self) -> Result<serde_json::Value, ClientError> {
        self.get(&Path::new(&["openapi.json"]))
    }

    /// `GET /metrics`, in Prometheus' text format.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn metrics(&self) -> Result<String, ClientError> {
        let body = self.send(Method::GET, &Path::outside("/metrics"), None)?;
        String::from_utf8(body).map_err(|_| ClientError::NotThisApi {
            base: self.base.clone(),
            what: "metrics that are no text".to_owned(),
        })
    }

    /// `GET /livez`.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn live(&self) -> Result<(), ClientError> {
        self.send(Method::GET, &Path::outside("/livez"), None).map(drop)
    }

    /// `GET /readyz`: why it is not ready; nothing where it is.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn not_ready(&self) -> Result<Vec<String>, ClientError> {
        match self.send(Method::GET, &Path::outside("/readyz"), None) {
            Ok(_) => Ok(Vec::new()),
            Err(ClientError::Problem(problem)) if problem.status == 503 => {
                Ok(if problem.errors.is_empty() { vec![problem.title] } else { problem.errors })
            }
            Err(error) => Err(error),
        }
    }

    /// The pages of a list from the first to the last: `fetch` asks for one of them.
    ///
    /// A server that hands out the same cursor twice ends the list with an error, so that it has an end.
    pub fn pages<T, F>(&self, fetch: F) -> Pages<'_, F>
    where
        F: FnMut(&Self, &PageQuery) -> Result<Page<T>, ClientError>,
    {
        Pages { client: self, fetch, next: Some(PageQuery { limit: Some(PAGE_ROWS), cursor: None }) }
    }

    fn get<T: DeserializeOwned>(&self, path: &Path) -> Result<T, ClientError> {
        self.send(Method::GET, path, None).and_then(|answer| self.parsed(&answer))
    }

    fn post<T: DeserializeOwned>(&self, path: &Path) -> Result<T, ClientError> {
        self.send(Method::POST, path, Some(Vec::new())).and_then(|answer| self.parsed(&answer))
    }

    /// Sends a request; the body of a 2xx answer.
    fn send(&self, method: Method, path: &Path, body: Option<Vec<u8>>) -> Result<Vec<u8>, ClientError> {
        let url = format!("{}{}", self.base, path.text);
        let request = Request::builder()
            .method(method)
            .uri(url)
            .header(header::ACCEPT, "application/json, application/problem+json");
        let answer = match body {
            Some(body) => request
                .header(header::CONTENT_TYPE, "application/json")
                .body(body)
                .map_err(ureq::Error::from)
                .and_then(|request| self.agent.run(request)),
            None => request.body(()).map_err(ureq::Error::from).and_then(|request| self.agent.run(request)),
        };
        self.accepted(answer.map_err(|error| ClientError::from_ureq(error, &self.base))?)
    }

    /// The body of a good answer; a problem document as an error.
    fn accepted(&self, mut answer: Response<Body>) -> Result<Vec<u8>, ClientError> {
        let status = answer.status();
        let kind = answer.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let is_problem = kind.is_some_and(|kind| kind.starts_with("application/problem+json"));
        let body = answer
            .body_mut()
            .with_config()
            .limit(MAX_ANSWER)
            .read_to_vec()
            .map_err(|error| ClientError::from_ureq(error, &self.base))?;
        if status.is_success() {
            return Ok(body);
        }
        match serde_json::from_slice::<Problem>(&body) {
            Ok(problem) if is_problem => Err(ClientError::Problem(Box::new(problem))),
            _ => Err(ClientError::NotThisApi {
                base: self.base.clone(),
                what: format!("HTTP status {status}"),
            }),
        }
    }

    fn parsed<T: DeserializeOwned>(&self, body: &[u8]) -> Result<T, ClientError> {
        serde_json::from_slice(body).map_err(|error| ClientError::NotThisApi {
            base: self.base.clone(),
            what: format!("a body that cannot be read: {error}"),
        })
    }

    fn transport(&self, cause: String) -> ClientError {
        ClientError::Transport { base: self.base.clone(), cause }
    }
}

/// Rows that [`RestClient::pages`] asks for at a time.
const PAGE_ROWS: usize = 1000;

fn largest_page() -> PageQuery {
    PageQuery { limit: Some(MAX_LIMIT), cursor: None }
}

/// The pages of a list: see [`RestClient::pages`].
#[derive(Debug)]
pub struct Pages<'a, F> {
    client: &'a RestClient,
    fetch: F,
    next: Option<PageQuery>,
}

impl<T, F> Iterator for Pages<'_, F>
where
    F: FnMut(&RestClient, &PageQuery) -> Result<Page<T>, ClientError>,
{
    type Item = Result<Vec<T>, ClientError>;

    fn next(&mut self) -> Option<Self::Item> {
        let query = self.next.take()?;
        let page = match (self.fetch)(self.client, &query) {
            Ok(page) => page,
            Err(error) => return Some(Err(error)),
        };
        if let Some(cursor) = page.meta.cursor {
            if query.cursor.as_ref() == Some(&cursor) {
                let cause = "the server gave the same cursor twice".to_owned();
                return Some(Err(self.client.transport(cause)));
            }
            self.next = Some(PageQuery { cursor: Some(cursor), ..query });
        }
        Some(Ok(page.data))
    }
}

/// A path below the API's prefix, with its query.
struct Path {
    text: String,
    has_query: bool,
}

impl Path {
    fn new(segments: &[&str]) -> Self {
        let mut text = PREFIX.to_owned();
        for segment in segments {
            text.push('/');
            text.push_str(&encode(segment));
        }
        Self { text, has_query: false }
    }

    /// A path that is not below the API's prefix.
    fn outside(path: &str) -> Self {
        Self { text: path.to_owned(), has_query: false }
    }

    /// The last segment where `value` can be one, else a query parameter.
    fn name(mut self, key: &str, value: &str) -> Self {
        if !fits_path(value) {
            return self.query(key, Some(value));
        }
        self.text.push('/');
        self.text.push_str(&encode(value));
        self
    }

    fn query(mut self, key: &str, value: Option<&str>) -> Self {
        if let Some(value) = value {
            self.text.push(if self.has_query { '&' } else { '?' });
            self.has_query = true;
            self.text.push_str(key);
            self.text.push('=');
            self.text.push_str(&encode(value));
        }
        self
    }

    fn page(self, page: &PageQuery) -> Self {
        self.query("limit", page.limit.map(|rows| rows.to_string()).as_deref())
            .query("cursor", page.cursor.as_deref())
    }
}

/// The base URL without its last `/`. `HOST:PORT` alone means `http://`: nothing else is spoken.
fn checked_base(given: &str) -> Result<String, ClientError> {
    let refuse = |why: &'static str| ClientError::BaseUrl { given: given.to_owned(), why };
    let whole = if given.contains("://") { given.to_owned() } else { format!("http://{given}") };
    let uri: Uri = whole.parse().map_err(|_| refuse("not a URL; one looks like http://127.0.0.1:18083"))?;
    match uri.scheme_str() {
        Some("http") => {}
        Some("https") => return Err(refuse("https is not spoken here; use http:// on a trusted path")),
        _ => return Err(refuse("it must begin with http://")),
    }
    if uri.query().is_some() {
        return Err(refuse("it must have no query"));
    }
    if uri.host().is_none_or(str::is_empty) {
        return Err(refuse("it names no host"));
    }
    Ok(whole.trim_end_matches('/').to_owned())
}

/// A 404 with the problem `kind` is no error but an answer: there is none. Any other 404 (no such role, no such
/// route) stays an error.
fn absent<T>(answer: Result<T, ClientError>, kind: &str) -> Result<Option<T>, ClientError> {
    match answer {
        Ok(value) => Ok(Some(value)),
        Err(ClientError::Problem(problem)) if problem.kind.strip_prefix("/problems/") == Some(kind) => {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests;
