//! The gateway's routes.

use std::sync::Arc;

use ::api::gateway::{
    Connection, ConnectionQuery, GatewayAdmin, Listener, Pin, Server, Upstream, UpstreamError,
};
use ::api::page::Page;
use ::api::problem::Problem;
use ::api::rest::{ConnectionDetail, MAX_OTHERS, PinTarget};
use axum::Json;
use axum::extract::{FromRequestParts, Request};
use axum::http::request::Parts;
use axum::http::{StatusCode, Uri};

use crate::Roles;
use crate::guard::json_body;
use crate::page::{Order, cut};
use crate::query::Query;
use crate::refusal::Refusal;
use crate::routes::Segments;

/// The gateway of this process.
pub(crate) struct Gateway(Arc<dyn GatewayAdmin>);

impl FromRequestParts<Roles> for Gateway {
    type Rejection = Refusal;

    async fn from_request_parts(_: &mut Parts, roles: &Roles) -> Result<Self, Refusal> {
        roles.gateway.clone().map(Self).ok_or_else(|| Refusal::no_role("gateway"))
    }
}

/// Lists connections by ascending client id (bytewise); with `clientid` those of that client, newest first.
#[utoipa::path(
    get, path = "/api/v1/gateway/connections", tag = "gateway", operation_id = "list_connections",
    params(
        ("limit" = Option<u16>, Query, description = "Rows of a page; 100 where nothing is said", minimum = 1, maximum = 10000),
        ("cursor" = Option<String>, Query, description = "`meta.cursor` of the page before"),
        ("clientid" = Option<String>, Query, description = "Exactly this client id: also the empty one"),
        ("server" = Option<String>, Query, description = "Only those to this server, by its name or address"),
        ("upstream" = Option<String>, Query, description = "Only those through this upstream"),
    ),
    responses(
        (status = 200, description = "A page of connections", body = Page<Connection>),
        (status = 400, description = "A bad parameter", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "This process has no gateway", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn list_connections(
    Gateway(gateway): Gateway,
    uri: Uri,
) -> Result<Json<Page<Connection>>, Refusal> {
    let query = Query::read(&uri, &["limit", "cursor", "clientid", "server", "upstream"])?;
    let page = query.page()?;
    let wanted = ConnectionQuery { server: query.text("server"), upstream: query.text("upstream") };
    let Some(clientid) = query.text("clientid") else {
        return Ok(Json(gateway.connections(wanted, page).await));
    };
    let mut rows = gateway.connection(clientid).await;
    rows.retain(|row| {
        wanted.server.as_ref().is_none_or(|server| row.server == *server || row.server_address == *server)
            && wanted.upstream.as_ref().is_none_or(|upstream| row.upstream == *upstream)
    });
    Ok(Json(cut(rows, &page, Order::Descending, |row| format!("{} {}", row.connected_at, row.id))))
}

/// Shows a client's newest connection, and the others that it has.
#[utoipa::path(
    get, path = "/api/v1/gateway/connections/{clientid}", tag = "gateway", operation_id = "show_connection",
    params(("clientid" = String, Path, description = "Percent-encoded client id")),
    responses(
        (status = 200, description = "The newest connection of the client", body = ConnectionDetail),
        (status = 404, description = "No connection of this client, or no gateway", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn show_connection(
    Gateway(gateway): Gateway,
    Segments(clientid): Segments<String>,
    uri: Uri,
) -> Result<Json<ConnectionDetail>, Refusal> {
    Query::read(&uri, &[])?;
    let mut rows = gateway.connection(clientid.clone()).await.into_iter();
    let newest = rows.next().ok_or_else(|| Refusal::no_connection(&clientid))?;
    Ok(Json(ConnectionDetail { newest, others: rows.take(MAX_OTHERS).collect() }))
}

/// Lists the gateway's listeners with what they count, by ascending name.
#[utoipa::path(
    get, path = "/api/v1/gateway/listeners", tag = "gateway", operation_id = "list_gateway_listeners",
    params(
        ("limit" = Option<u16>, Query, description = "Rows of a page; 100 where nothing is said", minimum = 1, maximum = 10000),
        ("cursor" = Option<String>, Query, description = "`meta.cursor` of the page before"),
    ),
    responses(
        (status = 200, description = "A page of listeners", body = Page<Listener>),
        (status = 400, description = "A bad parameter", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "This process has no gateway", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn list_listeners(
    Gateway(gateway): Gateway,
    uri: Uri,
) -> Result<Json<Page<Listener>>, Refusal> {
    let page = Query::read(&uri, &["limit", "cursor"])?.page()?;
    Ok(Json(cut(gateway.listeners(), &page, Order::Ascending, |listener| listener.name.clone())))
}

/// Lists the upstreams with their servers, by ascending name.
#[utoipa::path(
    get, path = "/api/v1/upstreams", tag = "gateway", operation_id = "list_upstreams",
    params(
        ("limit" = Option<u16>, Query, description = "Rows of a page; 100 where nothing is said", minimum = 1, maximum = 10000),
        ("cursor" = Option<String>, Query, description = "`meta.cursor` of the page before"),
    ),
    responses(
        (status = 200, description = "A page of upstreams", body = Page<Upstream>),
        (status = 400, description = "A bad parameter", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "This process has no gateway", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn list_upstreams(
    Gateway(gateway): Gateway,
    uri: Uri,
) -> Result<Json<Page<Upstream>>, Refusal> {
    let page = Query::read(&uri, &["limit", "cursor"])?.page()?;
    Ok(Json(cut(gateway.upstreams(), &page, Order::Ascending, |upstream| upstream.name.clone())))
}

/// Gives a server no new connections from now on; those it has stay.
#[utoipa::path(
    post, path = "/api/v1/upstreams/{name}/servers/{server}/drain", tag = "gateway", operation_id = "drain_server",
    params(
        ("name" = String, Path, description = "The upstream"),
        ("server" = String, Path, description = "The server's name, or its percent-encoded address"),
    ),
    responses(
        (status = 200, description = "The server as it is now", body = Server),
        (status = 404, description = "No such upstream or server, or no gateway", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn drain_server(
    Gateway(gateway): Gateway,
    Segments((upstream, server)): Segments<(String, String)>,
    uri: Uri,
) -> Result<Json<Server>, Refusal> {
    Query::read(&uri, &[])?;
    let now = gateway.drain(&upstream, &server);
    now.map(Json).map_err(|error| Refusal::upstream(error, &upstream, &server))
}

/// Takes a server back.
#[utoipa::path(
    post, path = "/api/v1/upstreams/{name}/servers/{server}/enable", tag = "gateway", operation_id = "enable_server",
    params(
        ("name" = String, Path, description = "The upstream"),
        ("server" = String, Path, description = "The server's name, or its percent-encoded address"),
    ),
    responses(
        (status = 200, description = "The server as it is now", body = Server),
        (status = 404, description = "No such upstream or server, or no gateway", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn enable_server(
    Gateway(gateway): Gateway,
    Segments((upstream, server)): Segments<(String, String)>,
    uri: Uri,
) -> Result<Json<Server>, Refusal> {
    Query::read(&uri, &[])?;
    let now = gateway.enable(&upstream, &server);
    now.map(Json).map_err(|error| Refusal::upstream(error, &upstream, &server))
}

/// Lists the pins of an upstream by ascending key (bytewise).
#[utoipa::path(
    get, path = "/api/v1/upstreams/{name}/pins", tag = "gateway", operation_id = "list_pins",
    params(
        ("name" = String, Path, description = "The upstream"),
        ("limit" = Option<u16>, Query, description = "Rows of a page; 100 where nothing is said", minimum = 1, maximum = 10000),
        ("cursor" = Option<String>, Query, description = "`meta.cursor` of the page before"),
    ),
    responses(
        (status = 200, description = "A page of pins", body = Page<Pin>),
        (status = 400, description = "A bad parameter", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "No such upstream, or no gateway", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn list_pins(
    Gateway(gateway): Gateway,
    Segments(upstream): Segments<String>,
    uri: Uri,
) -> Result<Json<Page<Pin>>, Refusal> {
    let page = Query::read(&uri, &["limit", "cursor"])?.page()?;
    gateway.pins(&upstream, page).map(Json).map_err(|error| Refusal::upstream(error, &upstream, ""))
}

/// Keeps a device on a server from its next connection on.
#[utoipa::path(
    put, path = "/api/v1/upstreams/{name}/pins/{key}", tag = "gateway", operation_id = "set_pin",
    params(
        ("name" = String, Path, description = "The upstream"),
        ("key" = String, Path, description = "The percent-encoded balancing key: a client id where the upstream balances by it"),
    ),
    request_body = PinTarget,
    responses(
        (status = 200, description = "The pin as it is now", body = Pin),
        (status = 400, description = "A bad body", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "No such upstream, or no gateway", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "The table of pins is full", body = Problem, content_type = "application/problem+json"),
        (status = 413, description = "The body is too large", body = Problem, content_type = "application/problem+json"),
        (status = 415, description = "The body is not JSON", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "The upstream has no such server", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn set_pin(
    Gateway(gateway): Gateway,
    Segments((upstream, key)): Segments<(String, String)>,
    request: Request,
) -> Result<Json<Pin>, Refusal> {
    Query::read(request.uri(), &[])?;
    pin(&*gateway, &upstream, &key, request).await
}

/// Keeps a device on a server: for keys that cannot stand in a path.
#[utoipa::path(
    put, path = "/api/v1/upstreams/{name}/pins", tag = "gateway", operation_id = "set_pin_by_query",
    params(
        ("name" = String, Path, description = "The upstream"),
        ("key" = String, Query, description = "The balancing key: also `.` and `..`"),
    ),
    request_body = PinTarget,
    responses(
        (status = 200, description = "The pin as it is now", body = Pin),
        (status = 400, description = "A bad parameter or body", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "No such upstream, or no gateway", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "The table of pins is full", body = Problem, content_type = "application/problem+json"),
        (status = 413, description = "The body is too large", body = Problem, content_type = "application/problem+json"),
        (status = 415, description = "The body is not JSON", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "The upstream has no such server", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn set_pin_by_query(
    Gateway(gateway): Gateway,
    Segments(upstream): Segments<String>,
    request: Request,
) -> Result<Json<Pin>, Refusal> {
    let query = Query::read(request.uri(), &["key"])?;
    let key = query.text("key").ok_or_else(|| Refusal::missing("key"))?;
    pin(&*gateway, &upstream, &key, request).await
}

async fn pin(
    gateway: &dyn GatewayAdmin,
    upstream: &str,
    key: &str,
    request: Request,
) -> Result<Json<Pin>, Refusal> {
    let PinTarget { server } = json_body(request).await?;
    gateway.pin(upstream, key, &server).map(Json).map_err(|error| match error {
        UpstreamError::NoServer => Refusal::pin_target(upstream, &server),
        other => Refusal::upstream(other, upstream, &server),
    })
}

/// Forgets a pin.
#[utoipa::path(
    delete, path = "/api/v1/upstreams/{name}/pins/{key}", tag = "gateway", operation_id = "delete_pin",
    params(
        ("name" = String, Path, description = "The upstream"),
        ("key" = String, Path, description = "The percent-encoded balancing key"),
    ),
    responses(
        (status = 204, description = "The pin is gone"),
        (status = 404, description = "No such upstream or pin, or no gateway", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn delete_pin(
    Gateway(gateway): Gateway,
    Segments((upstream, key)): Segments<(String, String)>,
    uri: Uri,
) -> Result<StatusCode, Refusal> {
    Query::read(&uri, &[])?;
    unpin(&*gateway, &upstream, &key)
}

/// Forgets a pin: for keys that cannot stand in a path.
#[utoipa::path(
    delete, path = "/api/v1/upstreams/{name}/pins", tag = "gateway", operation_id = "delete_pin_by_query",
    params(
        ("name" = String, Path, description = "The upstream"),
        ("key" = String, Query, description = "The balancing key: also `.` and `..`"),
    ),
    responses(
        (status = 204, description = "The pin is gone"),
        (status = 400, description = "`key` is missing", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "No such upstream or pin, or no gateway", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn delete_pin_by_query(
    Gateway(gateway): Gateway,
    Segments(upstream): Segments<String>,
    uri: Uri,
) -> Result<StatusCode, Refusal> {
    let query = Query::read(&uri, &["key"])?;
    let key = query.text("key").ok_or_else(|| Refusal::missing("key"))?;
    unpin(&*gateway, &upstream, &key)
}

fn unpin(gateway: &dyn GatewayAdmin, upstream: &str, key: &str) -> Result<StatusCode, Refusal> {
    match gateway.unpin(upstream, key) {
        Ok(true) => Ok(StatusCode::NO_CONTENT),
        Ok(false) => Err(Refusal::no_pin(upstream, key)),
        Err(error) => Err(Refusal::upstream(error, upstream, "")),
    }
}
