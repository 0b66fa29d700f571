//! The broker's routes.

use std::sync::Arc;

use ::api::broker::{BrokerAdmin, Client, ClientQuery, Subscription};
use ::api::node::Node;
use ::api::page::Page;
use ::api::problem::Problem;
use axum::Json;
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{StatusCode, Uri};

use crate::Roles;
use crate::page::{Order, cut};
use crate::query::Query;
use crate::refusal::Refusal;
use crate::routes::Segments;

/// The broker of this process.
pub(crate) struct Broker(Arc<dyn BrokerAdmin>);

impl FromRequestParts<Roles> for Broker {
    type Rejection = Refusal;

    async fn from_request_parts(_: &mut Parts, roles: &Roles) -> Result<Self, Refusal> {
        roles.broker.clone().map(Self).ok_or_else(|| Refusal::no_role("broker"))
    }
}

/// Lists clients by ascending client id (bytewise).
#[utoipa::path(
    get, path = "/api/v1/clients", tag = "broker", operation_id = "list_clients",
    params(
        ("limit" = Option<u16>, Query, description = "Rows of a page; 100 where nothing is said", minimum = 1, maximum = 10000),
        ("cursor" = Option<String>, Query, description = "`meta.cursor` of the page before"),
        ("clientid" = Option<String>, Query, description = "Exactly this client id"),
        ("username" = Option<String>, Query, description = "Exactly this user name"),
        ("conn_state" = Option<String>, Query, description = "`connected` or `disconnected`"),
    ),
    responses(
        (status = 200, description = "A page of clients", body = Page<Client>),
        (status = 400, description = "A bad parameter", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "This process has no broker", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn list_clients(Broker(broker): Broker, uri: Uri) -> Result<Json<Page<Client>>, Refusal> {
    let query = Query::read(&uri, &["limit", "cursor", "clientid", "username", "conn_state"])?;
    let wanted = ClientQuery {
        clientid: query.text("clientid"),
        username: query.text("username"),
        conn_state: query.choice("conn_state", &["connected", "disconnected"])?,
    };
    Ok(Json(broker.clients(wanted, query.page()?).await))
}

/// Shows one client.
#[utoipa::path(
    get, path = "/api/v1/clients/{clientid}", tag = "broker", operation_id = "show_client",
    params(("clientid" = String, Path, description = "Percent-encoded client id")),
    responses(
        (status = 200, description = "The client", body = Client),
        (status = 404, description = "No such client, or no broker", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn show_client(
    Broker(broker): Broker,
    Segments(clientid): Segments<String>,
    uri: Uri,
) -> Result<Json<Client>, Refusal> {
    Query::read(&uri, &[])?;
    let client = broker.client(clientid.clone()).await;
    client.map(Json).ok_or_else(|| Refusal::no_client(&clientid))
}

/// Ends a client's connection and its session.
#[utoipa::path(
    delete, path = "/api/v1/clients/{clientid}", tag = "broker", operation_id = "kick_client",
    params(("clientid" = String, Path, description = "Percent-encoded client id")),
    responses(
        (status = 204, description = "Both have ended"),
        (status = 404, description = "No such client, or no broker", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn kick_client(
    Broker(broker): Broker,
    Segments(clientid): Segments<String>,
    uri: Uri,
) -> Result<StatusCode, Refusal> {
    Query::read(&uri, &[])?;
    kick(broker, clientid).await
}

/// Ends a client's connection and its session: for client ids that cannot stand in a path.
#[utoipa::path(
    delete, path = "/api/v1/clients", tag = "broker", operation_id = "kick_client_by_query",
    params(("clientid" = String, Query, description = "The client id: also the empty one, `.` and `..`")),
    responses(
        (status = 204, description = "Both have ended"),
        (status = 400, description = "`clientid` is missing", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "No such client, or no broker", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn kick_client_by_query(Broker(broker): Broker, uri: Uri) -> Result<StatusCode, Refusal> {
    let query = Query::read(&uri, &["clientid"])?;
    let clientid = query.text("clientid").ok_or_else(|| Refusal::missing("clientid"))?;
    kick(broker, clientid).await
}

/// In a task of its own: whoever asked may hang up, a kick that has begun is carried out.
async fn kick(broker: Arc<dyn BrokerAdmin>, clientid: String) -> Result<StatusCode, Refusal> {
    let id = clientid.clone();
    let task = tokio::spawn(async move { broker.kick(id).await });
    match task.await {
        Ok(true) => Ok(StatusCode::NO_CONTENT),
        Ok(false) => Err(Refusal::no_client(&clientid)),
        Err(_) => Err(Refusal::internal()),
    }
}

/// Lists a client's subscriptions by ascending topic filter (bytewise).
#[utoipa::path(
    get, path = "/api/v1/clients/{clientid}/subscriptions", tag = "broker", operation_id = "list_subscriptions",
    params(
        ("clientid" = String, Path, description = "Percent-encoded client id"),
        ("limit" = Option<u16>, Query, description = "Rows of a page; 100 where nothing is said", minimum = 1, maximum = 10000),
        ("cursor" = Option<String>, Query, description = "`meta.cursor` of the page before"),
    ),
    responses(
        (status = 200, description = "A page of subscriptions", body = Page<Subscription>),
        (status = 400, description = "A bad parameter", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "No such client, or no broker", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn list_subscriptions(
    Broker(broker): Broker,
    Segments(clientid): Segments<String>,
    uri: Uri,
) -> Result<Json<Page<Subscription>>, Refusal> {
    let page = Query::read(&uri, &["limit", "cursor"])?.page()?;
    match broker.subscriptions(clientid.clone()).await {
        Some(rows) => Ok(Json(cut(rows, &page, Order::Ascending, |row| row.topic.clone()))),
        None => Err(Refusal::no_client(&clientid)),
    }
}

/// Lists the cluster's nodes by ascending name.
#[utoipa::path(
    get, path = "/api/v1/nodes", tag = "broker", operation_id = "list_nodes",
    params(
        ("limit" = Option<u16>, Query, description = "Rows of a page; 100 where nothing is said", minimum = 1, maximum = 10000),
        ("cursor" = Option<String>, Query, description = "`meta.cursor` of the page before"),
    ),
    responses(
        (status = 200, description = "A page of nodes", body = Page<Node>),
        (status = 400, description = "A bad parameter", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "This process has no broker", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn list_nodes(Broker(broker): Broker, uri: Uri) -> Result<Json<Page<Node>>, Refusal> {
    let page = Query::read(&uri, &["limit", "cursor"])?.page()?;
    let nodes = vec![broker.node().await];
    Ok(Json(cut(nodes, &page, Order::Ascending, |node| node.node.clone())))
}
