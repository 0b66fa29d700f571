//! Which path leads to which handler.

use axum::Router;
use axum::extract::{FromRequestParts, Path, Request};
use axum::http::request::Parts;
use axum::middleware::from_fn;
use axum::routing::{MethodRouter, delete, get, post, put};
use serde::de::DeserializeOwned;

use crate::refusal::Refusal;
use crate::{Roles, broker, gateway, guard, process};

/// Every path with its methods. The tests compare it with the OpenAPI document.
pub(crate) fn table() -> Vec<(&'static str, MethodRouter<Roles>)> {
    vec![
        ("/api/v1/clients", get(broker::list_clients).delete(broker::kick_client_by_query)),
        ("/api/v1/clients/{clientid}", get(broker::show_client).delete(broker::kick_client)),
        ("/api/v1/clients/{clientid}/subscriptions", get(broker::list_subscriptions)),
        ("/api/v1/nodes", get(broker::list_nodes)),
        ("/api/v1/gateway/connections", get(gateway::list_connections)),
        ("/api/v1/gateway/connections/{clientid}", get(gateway::show_connection)),
        ("/api/v1/gateway/listeners", get(gateway::list_listeners)),
        ("/api/v1/upstreams", get(gateway::list_upstreams)),
        ("/api/v1/upstreams/{name}/servers/{server}/drain", post(gateway::drain_server)),
        ("/api/v1/upstreams/{name}/servers/{server}/enable", post(gateway::enable_server)),
        (
            "/api/v1/upstreams/{name}/pins",
            get(gateway::list_pins).put(gateway::set_pin_by_query).delete(gateway::delete_pin_by_query),
        ),
        ("/api/v1/upstreams/{name}/pins/{key}", put(gateway::set_pin).merge(delete(gateway::delete_pin))),
        ("/api/v1/events", get(process::list_events)),
        ("/api/v1/config/reload", post(process::reload_config)),
        ("/api/v1/openapi.json", get(process::show_openapi)),
        ("/metrics", get(process::metrics)),
        ("/livez", get(process::livez)),
        ("/readyz", get(process::readyz)),
    ]
}

/// The whole server as one service, behind its guard.
pub(crate) fn router(roles: Roles) -> Router {
    table()
        .into_iter()
        .fold(Router::new(), |router, (path, methods)| router.route(path, methods))
        .fallback(async |request: Request| Refusal::no_route(request.uri().path()))
        .method_not_allowed_fallback(async |request: Request| {
            Refusal::method(request.method(), request.uri().path())
        })
        .with_state(roles)
        .layer(from_fn(guard::guard))
}

/// The variable segments of the path, percent-decoded.
pub(crate) struct Segments<T>(pub(crate) T);

impl<T, S> FromRequestParts<S> for Segments<T>
where
    T: DeserializeOwned + Send,
    S: Send + Sync,
{
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        match Path::<T>::from_request_parts(parts, state).await {
            Ok(Path(segments)) => Ok(Self(segments)),
            Err(rejection) => Err(Refusal::path(rejection.body_text())),
        }
    }
}
