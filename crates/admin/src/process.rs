//! The routes of the process as a whole: events, reload, metrics, probes, the OpenAPI document.

use ::api::node::{EventRecord, Reloaded};
use ::api::page::{Page, PageMeta};
use ::api::problem::Problem;
use ::api::rest::DEFAULT_LIMIT;
use axum::Json;
use axum::extract::State;
use axum::http::{Uri, header};
use axum::response::IntoResponse;

use runtime::events::EventType;

use crate::Roles;
use crate::openapi;
use crate::query::Query;
use crate::refusal::Refusal;

/// Lists the newest events after `since`, oldest first. The list goes on at the `seq` of its last row, given as `since`;
/// `meta.cursor` is always `null`.
#[utoipa::path(
    get, path = "/api/v1/events", tag = "process", operation_id = "list_events",
    params(
        ("since" = Option<u64>, Query, description = "Only events with a greater `seq`"),
        ("type" = Option<String>, Query, description = "Only events of this type, such as `client_connected`"),
        ("limit" = Option<u16>, Query, description = "At most so many, the newest ones; 100 where nothing is said", minimum = 1, maximum = 10000),
    ),
    responses(
        (status = 200, description = "Events", body = Page<EventRecord>),
        (status = 400, description = "A bad parameter", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn list_events(
    State(roles): State<Roles>,
    uri: Uri,
) -> Result<Json<Page<EventRecord>>, Refusal> {
    let query = Query::read(&uri, &["since", "type", "limit"])?;
    let since = query.number("since", 0, u64::MAX)?;
    let limit = query.limit()?.unwrap_or(DEFAULT_LIMIT);
    let kind = query.choice("type", &EventType::ALL.map(EventType::name))?;
    let data = roles.process.events(since, kind, limit);
    Ok(Json(Page { data, meta: PageMeta::default() }))
}

/// Reads the configuration again and takes it over, or says every reason why not.
///
/// In a task of its own: whoever asked may hang up, a reload that has begun is carried out.
#[utoipa::path(
    post, path = "/api/v1/config/reload", tag = "process", operation_id = "reload_config",
    responses(
        (status = 200, description = "The configuration is in force", body = Reloaded),
        (status = 422, description = "The configuration was refused and nothing has changed; `errors` has every problem", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn reload_config(State(roles): State<Roles>, uri: Uri) -> Result<Json<Reloaded>, Refusal> {
    Query::read(&uri, &[])?;
    let task = tokio::spawn(async move { roles.process.reload().await });
    match task.await {
        Ok(Ok(reloaded)) => Ok(Json(reloaded)),
        Ok(Err(errors)) => Err(Refusal::config(errors)),
        Err(_) => Err(Refusal::internal()),
    }
}

/// Shows this document.
#[utoipa::path(
    get, path = "/api/v1/openapi.json", tag = "process", operation_id = "show_openapi",
    responses((status = 200, description = "This document", content_type = "application/json")),
)]
pub(crate) async fn show_openapi() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], openapi::document())
}

/// Shows the metrics in Prometheus' text format 0.0.4.
#[utoipa::path(
    get, path = "/metrics", tag = "probes", operation_id = "metrics",
    responses((status = 200, description = "Metrics", body = String, content_type = "text/plain")),
)]
pub(crate) async fn metrics(State(roles): State<Roles>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], roles.process.metrics())
}

/// Answers as long as the process can answer at all.
#[utoipa::path(
    get, path = "/livez", tag = "probes", operation_id = "livez",
    responses((status = 200, description = "The process lives", body = String, content_type = "text/plain")),
)]
pub(crate) async fn livez() -> &'static str {
    "ok\n"
}

/// Says whether the process serves: every listener is bound, it is not draining, its engine is there.
#[utoipa::path(
    get, path = "/readyz", tag = "probes", operation_id = "readyz",
    responses(
        (status = 200, description = "It serves", body = String, content_type = "text/plain"),
        (status = 503, description = "It does not; `errors` has the reasons", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn readyz(State(roles): State<Roles>) -> Result<&'static str, Refusal> {
    let reasons = roles.process.not_ready();
    if reasons.is_empty() { Ok("ok\n") } else { Err(Refusal::not_ready(reasons)) }
}
