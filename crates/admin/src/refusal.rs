//! Every way in which a request is refused, each with its own problem type.
//!
//! The type's last part is a contract: scripts and `api::client` compare it.

use ::api::gateway::UpstreamError;
use ::api::problem::Problem;
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};

/// A refused request.
#[derive(Debug)]
pub(crate) struct Refusal(Box<Problem>);

impl Refusal {
    fn new(status: StatusCode, kind: &str, title: &str, detail: impl Into<String>) -> Self {
        Self(Box::new(Problem {
            kind: format!("/problems/{kind}"),
            title: title.to_owned(),
            status: status.as_u16(),
            detail: Some(detail.into()),
            errors: Vec::new(),
        }))
    }

    fn with_errors(mut self, errors: Vec<String>) -> Self {
        self.0.errors = errors;
        self
    }

    /// No route has this path.
    pub(crate) fn no_route(path: &str) -> Self {
        let detail = format!("{path}: nothing is here; GET /api/v1/openapi.json lists what is.");
        Self::new(StatusCode::NOT_FOUND, "no-such-route", "No such route", detail)
    }

    /// The path has a route, but not with this method. The `Allow` header is the router's.
    pub(crate) fn method(method: &Method, path: &str) -> Self {
        let detail =
            format!("{path} does not answer {method}; the Allow header names the methods it answers.");
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed", "Method not allowed", detail)
    }

    /// The role does not run in this process.
    pub(crate) fn no_role(role: &str) -> Self {
        let title = format!("This process has no {role}");
        let detail = format!("This process has no {role}; its configuration has no [{role}] section.");
        Self::new(StatusCode::NOT_FOUND, &format!("no-{role}"), &title, detail)
    }

    /// A query parameter that cannot be used.
    pub(crate) fn query(parameter: &str, given: &str, allowed: &str) -> Self {
        let detail = format!("parameter {}: {}: {allowed}", shown(parameter), shown(given));
        Self::new(StatusCode::BAD_REQUEST, "bad-query", "Bad query parameter", detail)
    }

    /// A query parameter that has to be there.
    pub(crate) fn missing(parameter: &str) -> Self {
        let detail = format!("parameter `{parameter}` is missing");
        Self::new(StatusCode::BAD_REQUEST, "bad-query", "Bad query parameter", detail)
    }

    /// A path whose percent-encoding is no UTF-8.
    pub(crate) fn path(fault: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad-path", "Bad path", fault)
    }

    /// A body that cannot be read.
    pub(crate) fn body(fault: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad-body", "Bad body", fault)
    }

    /// A body of another media type.
    pub(crate) fn media_type() -> Self {
        let detail = "The body has to be application/json, and the Content-Type header has to say so.";
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "media-type", "Unsupported media type", detail)
    }

    /// A body larger than `limit` bytes.
    pub(crate) fn too_large(limit: usize) -> Self {
        let detail = format!("The body may have at most {limit} bytes.");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "body-too-large", "Body too large", detail)
    }

    /// The body did not come in time.
    pub(crate) fn body_late() -> Self {
        let detail = "The body did not come in time.";
        Self::new(StatusCode::REQUEST_TIMEOUT, "body-late", "Request time-out", detail)
    }

    /// No Host header, several, or one that is no host.
    pub(crate) fn host(fault: &str) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad-host", "Bad Host header", fault)
    }

    /// On loopback the Host header names something else: a web page that has its own name point here.
    pub(crate) fn foreign_host(host: &str) -> Self {
        let detail = format!(
            "This address is answered as localhost, 127.0.0.1 or [::1], not as {}: a Host header with \
             another name is how a web page reaches into this machine.",
            shown(host)
        );
        Self::new(StatusCode::MISDIRECTED_REQUEST, "foreign-host", "Foreign Host header", detail)
    }

    /// A web page of another origin wants to change something.
    pub(crate) fn foreign_origin() -> Self {
        let detail = "The Origin header names another site than the Host header; only this API's own pages may \
                      change something.";
        Self::new(StatusCode::FORBIDDEN, "foreign-origin", "Foreign origin", detail)
    }

    /// No client of that id.
    pub(crate) fn no_client(clientid: &str) -> Self {
        let detail = format!("There is no client {}.", shown(clientid));
        Self::new(StatusCode::NOT_FOUND, "client-not-found", "Client not found", detail)
    }

    /// No connection of that client.
    pub(crate) fn no_connection(clientid: &str) -> Self {
        let detail = format!("The client {} has no connection through this gateway.", shown(clientid));
        Self::new(StatusCode::NOT_FOUND, "connection-not-found", "Connection not found", detail)
    }

    /// No pin of that key.
    pub(crate) fn no_pin(upstream: &str, key: &str) -> Self {
        let detail = format!("The upstream {} has no pin for {}.", shown(upstream), shown(key));
        Self::new(StatusCode::NOT_FOUND, "pin-not-found", "Pin not found", detail)
    }

    /// A change of an upstream that the gateway did not make; `server` stands in the path.
    pub(crate) fn upstream(error: UpstreamError, upstream: &str, server: &str) -> Self {
        match error {
            UpstreamError::NoUpstream => {
                let detail = format!("There is no upstream {}.", shown(upstream));
                Self::new(StatusCode::NOT_FOUND, "upstream-not-found", "Upstream not found", detail)
            }
            UpstreamError::NoServer => {
                let detail = format!("The upstream {} has no server {}.", shown(upstream), shown(server));
                Self::new(StatusCode::NOT_FOUND, "server-not-found", "Server not found", detail)
            }
            UpstreamError::PinsFull => {
                let detail = format!("The upstream {} can hold no more pins; delete some.", shown(upstream));
                Self::new(StatusCode::CONFLICT, "pins-full", "Table of pins is full", detail)
            }
        }
    }

    /// The path is right, but the body names a server that the upstream has not.
    pub(crate) fn pin_target(upstream: &str, server: &str) -> Self {
        let detail = format!("The upstream {} has no server {}.", shown(upstream), shown(server));
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "unknown-server", "Unknown server", detail)
    }

    /// A configuration that was not taken over.
    pub(crate) fn config(errors: Vec<String>) -> Self {
        let detail = "The configuration was refused; nothing has changed.";
        let status = StatusCode::UNPROCESSABLE_ENTITY;
        Self::new(status, "config-refused", "Configuration refused", detail).with_errors(errors)
    }

    /// The process does not serve yet, or no more.
    pub(crate) fn not_ready(reasons: Vec<String>) -> Self {
        let status = StatusCode::SERVICE_UNAVAILABLE;
        Self::new(status, "not-ready", "Not ready", reasons.join("; ")).with_errors(reasons)
    }

    /// The role that was asked did not answer.
    pub(crate) fn no_answer() -> Self {
        let detail = "The part of the process that was asked did not answer in time.";
        Self::new(StatusCode::GATEWAY_TIMEOUT, "no-answer", "No answer in time", detail)
    }

    /// A defect of ours.
    pub(crate) fn internal() -> Self {
        let detail = "A defect in the program ended this request; the log has the details.";
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "Internal error", detail)
    }
}

/// What a peer wrote, quoted, without control characters and not longer than a line.
fn shown(text: &str) -> String {
    const LONGEST: usize = 200;
    let mut quoted = format!("{:?}", text.chars().take(LONGEST).collect::<String>());
    if text.chars().nth(LONGEST).is_some() {
        quoted.push_str("...");
    }
    quoted
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.0.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let body = serde_json::to_vec(&self.0).unwrap_or_default();
        let kind = HeaderValue::from_static("application/problem+json");
        (status, [(header::CONTENT_TYPE, kind)], body).into_response()
    }
}
