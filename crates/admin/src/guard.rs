//! What every request passes before its handler, and every answer on its way back.
//!
//! The Host header is checked where the connection came in on loopback: a web page whose name resolves to 127.0.0.1
//! (DNS rebinding) reaches the port, but not with our name. The Origin header is checked where something is to be
//! changed: a web page may send a POST anywhere without asking. Panics, slow handlers and large bodies end here too.

use std::net::{IpAddr, SocketAddr};
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use axum::body::to_bytes;
use axum::extract::Request;
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Version, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt;
use serde::de::DeserializeOwned;

use crate::refusal::Refusal;

/// The largest body, in bytes.
pub(crate) const MAX_BODY: usize = 1 << 20;

/// Longest wait for a whole body.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// Longest wait for a handler's answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// The address of this side of the connection; the server sets it on every request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LocalAddress(pub(crate) SocketAddr);

/// The middleware around all routes, the fallbacks included.
pub(crate) async fn guard(request: Request, next: Next) -> Response {
    let mut answer = match admit(&request) {
        Ok(()) => answer_of(request, next).await,
        Err(refusal) => refusal.into_response(),
    };
    let headers = answer.headers_mut();
    for (name, value) in COMMON_HEADERS {
        headers.insert(name, value);
    }
    answer
}

/// Nothing here may be kept by a cache or taken for something else by a browser.
const COMMON_HEADERS: [(HeaderName, HeaderValue); 2] = [
    (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
];

async fn answer_of(request: Request, next: Next) -> Response {
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let handler = AssertUnwindSafe(next.run(request)).catch_unwind();
    match tokio::time::timeout(ANSWER_TIMEOUT, handler).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(panic)) => {
            let panic = panic_text(&*panic);
            tracing::error!(%method, path, panic, "a request of the admin API panicked");
            Refusal::internal().into_response()
        }
        Err(_) => {
            tracing::error!(%method, path, "a request of the admin API had no answer in time");
            Refusal::no_answer().into_response()
        }
    }
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no text")
}

/// Everything that can be judged from the head of the request.
fn admit(request: &Request) -> Result<(), Refusal> {
    let host = named_host(request)?;
    let on_loopback =
        request.extensions().get::<LocalAddress>().is_none_or(|LocalAddress(at)| is_loopback(at.ip()));
    if let Some(host) = &host
        && on_loopback
        && !is_own_name(host.host())
    {
        return Err(Refusal::foreign_host(host.as_str()));
    }
    if !request.method().is_safe() {
        check_origin(request.headers(), host.as_ref())?;
    }
    let length = request.headers().get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok());
    if length.and_then(|length| length.parse().ok()).is_some_and(|length: usize| length > MAX_BODY) {
        return Err(Refusal::too_large(MAX_BODY));
    }
    Ok(())
}

/// The host that the request is for: of the request target in absolute form, else of the one Host header
/// (RFC 9112 3.2). HTTP/1.0 knows requests without one.
fn named_host(request: &Request) -> Result<Option<Authority>, Refusal> {
    let mut headers = request.headers().get_all(header::HOST).iter();
    let header = match (headers.next(), headers.next()) {
        (None, _) if request.version() <= Version::HTTP_10 => None,
        (None, _) => return Err(Refusal::host("The Host header is missing (RFC 9112 3.2).")),
        (Some(_), Some(_)) => return Err(Refusal::host("There are several Host headers (RFC 9112 3.2).")),
        (Some(host), None) => {
            let host =
                host.to_str().ok().filter(|host| !host.contains('@')).and_then(|host| host.parse().ok());
            Some(host.ok_or_else(|| Refusal::host("The Host header names no host (RFC 9112 3.2)."))?)
        }
    };
    match request.uri().authority() {
        Some(target) if target.as_str().contains('@') => Err(Refusal::host("The target names a user.")),
        Some(target) => Ok(Some(target.clone())),
        None => Ok(header),
    }
}

fn is_loopback(ip: IpAddr) -> bool {
    ip.to_canonical().is_loopback()
}

/// Names that no other machine can have: `localhost` and loopback addresses.
fn is_own_name(host: &str) -> bool {
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    bare.eq_ignore_ascii_case("localhost") || bare.parse().is_ok_and(is_loopback)
}

/// A browser names the page's origin with every request that changes something; programs name none.
fn check_origin(headers: &HeaderMap, host: Option<&Authority>) -> Result<(), Refusal> {
    let mut origins = headers.get_all(header::ORIGIN).iter();
    let Some(origin) = origins.next() else { return Ok(()) };
    let own = origin.to_str().ok().and_then(|origin| origin.split_once("://")).and_then(|(_, site)| {
        let site: Authority = site.parse().ok()?;
        Some(host?.as_str().eq_ignore_ascii_case(site.as_str()))
    });
    if own == Some(true) && origins.next().is_none() { Ok(()) } else { Err(Refusal::foreign_origin()) }
}

/// The body as `T`.
pub(crate) async fn json_body<T: DeserializeOwned>(request: Request) -> Result<T, Refusal> {
    let kind = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let kind = kind.and_then(|kind| kind.split(';').next()).map(str::trim);
    if !kind.is_some_and(|kind| kind.eq_ignore_ascii_case("application/json")) {
        return Err(Refusal::media_type());
    }
    let body = to_bytes(request.into_body(), MAX_BODY);
    let body = match tokio::time::timeout(BODY_TIMEOUT, body).await {
        Ok(Ok(body)) => body,
        Ok(Err(error)) if is_length_limit(&error) => return Err(Refusal::too_large(MAX_BODY)),
        Ok(Err(error)) => return Err(Refusal::body(error.to_string())),
        Err(_) => return Err(Refusal::body_late()),
    };
    serde_json::from_slice(&body).map_err(|error| Refusal::body(error.to_string()))
}

/// Whether the limit of `to_bytes` is somewhere among the error's causes.
fn is_length_limit(error: &axum::Error) -> bool {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if error.is::<http_body_util::LengthLimitError>() {
            return true;
        }
        cause = error.source();
    }
    false
}
