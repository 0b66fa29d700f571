//! QoS 1 and 2 (4.3): what is on its way and not yet acknowledged, in both directions.
//!
//! Must not know: what a message is, how it is sent, when. Nothing here takes time; connections and timeouts
//! belong to the endpoint. Both halves belong to the session and outlive connections (4.1).

mod inbound;
mod outbound;
mod window;

pub use inbound::{Inbound, Qos2, ReceiveMaximumExceeded};
pub use outbound::{InFlight, Outbound, Pubrec, RestoreError};
