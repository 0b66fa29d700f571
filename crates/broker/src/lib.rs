//! The MQTT broker: sessions, routing, retained, delivery, takeover.
//!
//! [`Broker::start`] puts a `worker` on every worker thread of the process, between the sockets (`driver`) and an
//! engine. Everything that must be remembered goes through the engine's four primitives; what is MQTT about it is
//! written here, once.
//!
//! Must not know: HTTP, the gateway, which engine it has.

mod admin;
mod authenticate;
mod authorize;
pub mod auto_subscribe;
#[cfg(feature = "bench")]
pub mod bench;
mod buffers;
mod caller;
pub mod config;
mod connect;
mod connection;
mod delayed;
mod deliver;
mod disconnect;
mod door;
mod driver;
mod exclusive;
mod handover;
mod kept;
mod log;
mod message;
mod metrics;
#[cfg(test)]
mod model;
mod publish;
mod queue;
mod record;
mod recovery;
mod refusal;
mod registry;
mod replay;
mod retained;
mod router;
mod run;
mod session;
mod session_store;
mod share;
mod shared;
#[cfg(test)]
mod sim;
mod start;
mod subscribe;
mod subscriptions;
mod system_topics;
#[cfg(test)]
mod tests;
mod throttle;
mod topic_alias;
pub mod topic_rewrite;
pub mod topic_template;
mod under_way;
mod worker;

pub use start::{Broker, Context, StartError};
