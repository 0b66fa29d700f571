//! The OpenAPI document: made from the handlers, kept under test against the router and against `openapi.json`, so that
//! a change of the contract is seen in review.

use std::sync::LazyLock;

use utoipa::OpenApi;

use crate::{broker, gateway, process};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Tidegate",
        version = "1",
        description = "The REST API of a Tidegate process. Lists come in pages; errors are problem documents (RFC 9457)."
    ),
    paths(
        broker::list_clients,
        broker::kick_client_by_query,
        broker::show_client,
        broker::kick_client,
        broker::list_subscriptions,
        broker::list_nodes,
        gateway::list_connections,
        gateway::show_connection,
        gateway::list_listeners,
        gateway::list_upstreams,
        gateway::drain_server,
        gateway::enable_server,
        gateway::list_pins,
        gateway::set_pin_by_query,
        gateway::delete_pin_by_query,
        gateway::set_pin,
        gateway::delete_pin,
        process::list_events,
        process::reload_config,
        process::show_openapi,
        process::metrics,
        process::livez,
        process::readyz,
    ),
    tags(
        (name = "broker", description = "Clients, sessions, nodes; 404 where the process has no broker"),
        (name = "gateway", description = "Connections, listeners, upstreams, pins; 404 where the process has no gateway"),
        (name = "process", description = "The process as a whole"),
        (name = "probes", description = "For monitoring systems"),
    )
)]
struct Document;

/// The document as JSON.
pub(crate) fn document() -> &'static str {
    static TEXT: LazyLock<String> = LazyLock::new(|| {
        let mut text = serde_json::to_string_pretty(&Document::openapi()).unwrap_or_default();
        text.push('\n');
        text
    });
    &TEXT
}
