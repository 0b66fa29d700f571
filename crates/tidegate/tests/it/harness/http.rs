//! HTTP as `curl` would: any path, any header, the status as it is.

use std::net::SocketAddr;

use serde_json::Value;
use ureq::Agent;

use super::wait::DEADLINE;

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) kind: String,
    pub(crate) body: String,
}

impl Answer {
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// Asks; `None` while nobody answers.
pub(crate) fn try_ask(
    api: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Option<Answer> {
    let agent: Agent = Agent::config_builder()
        .http_status_as_error(false)
        .proxy(None)
        .timeout_global(Some(DEADLINE))
        .build()
        .into();
    let mut request = ureq::http::Request::builder().method(method).uri(format!("http://{api}{path}"));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let mut answer = agent.run(request.body(body.to_owned()).expect("a request")).ok()?;
    let kind = answer.headers().get("content-type").map(|kind| kind.to_str().expect("text").to_owned());
    let body = answer.body_mut().read_to_string().ok()?;
    Some(Answer { status: answer.status().as_u16(), kind: kind.unwrap_or_default(), body })
}

/// Asks.
#[track_caller]
pub(crate) fn ask(api: SocketAddr, method: &str, path: &str) -> Answer {
    try_ask(api, method, path, &[], "").unwrap_or_else(|| panic!("{method} {path}: no answer from {api}"))
}

/// GET.
#[track_caller]
pub(crate) fn get(api: SocketAddr, path: &str) -> Answer {
    ask(api, "GET", path)
}
