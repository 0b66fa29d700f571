//! Nodes, and what can be asked of the process as a whole.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::Answer;

/// A node of the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Node {
    /// Its name.
    pub node: String,
    /// `running` or `stopping`.
    pub node_status: String,
    /// The program's version.
    pub version: String,
    /// Milliseconds since it started.
    pub uptime: u64,
    /// Clients connected to it.
    pub connections: u64,
    /// Sessions it keeps, connected ones included.
    pub sessions: u64,
    /// Subscriptions.
    pub subscriptions: u64,
    /// Retained messages.
    pub retained: u64,
    /// The engine's kind.
    pub engine: String,
    /// Whether what the engine acknowledged outlives the process.
    pub durable: bool,
}

/// An event as the API shows it: the catalogue is that of the `runtime` crate, fields flattened beside `type`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct EventRecord {
    /// Counts up by one with each event of this process; a gap means that the ring was overrun.
    pub seq: u64,
    /// RFC 3339.
    pub at: String,
    /// The event: `type` and its fields.
    #[schema(value_type = Object)]
    pub event: serde_json::Value,
}

/// What came of a reload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Reloaded {
    /// What was changed, one sentence each; empty: the file said what was already so.
    pub changes: Vec<String>,
    /// What the file changes but only a restart can carry out, one sentence each.
    pub restart_needed: Vec<String>,
}

/// The process as a whole.
pub trait ProcessAdmin: Send + Sync + 'static {
    /// Reads the configuration again; on `Err` every problem, and nothing has changed.
    fn reload(&self) -> Answer<'_, Result<Reloaded, Vec<String>>>;
    /// The newest events after `since` (a sequence number), oldest first, at most `limit`; `kind` is an event type.
    fn events(&self, since: Option<u64>, kind: Option<String>, limit: usize) -> Vec<EventRecord>;
    /// Why the process is not ready, or nothing.
    fn not_ready(&self) -> Vec<String>;
    /// The metrics in Prometheus' text format.
    fn metrics(&self) -> String;
}
