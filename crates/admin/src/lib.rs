//! The HTTP server: REST, OpenAPI document, metrics, probes.
//!
//! It turns requests into calls of the traits of `api` and their answers into JSON; what goes wrong becomes a problem
//! document (RFC 9457), without exception. It runs on the control runtime and may be slow: nothing on the way of a
//! message waits for it. Must not know: brokers, gateways, MQTT.

mod broker;
pub mod config;
mod gateway;
mod guard;
mod openapi;
mod page;
mod process;
mod query;
mod refusal;
mod routes;
mod server;
mod stall;

use std::sync::Arc;

use ::api::broker::BrokerAdmin;
use ::api::gateway::GatewayAdmin;
use ::api::node::ProcessAdmin;

pub use config::AdminConfig;
pub use server::{Handle, serve, serve_stream};

/// Whom the server asks. A role that does not run in this process is `None`; its routes then say so.
#[derive(Clone)]
pub struct Roles {
    /// The process as a whole.
    pub process: Arc<dyn ProcessAdmin>,
    /// The broker.
    pub broker: Option<Arc<dyn BrokerAdmin>>,
    /// The gateway.
    pub gateway: Option<Arc<dyn GatewayAdmin>>,
}

#[cfg(test)]
mod tests;
