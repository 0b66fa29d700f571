//! An asynchronous MQTT client for the command line, the demo, bridges and tests: 3.1, 3.1.1 and 5.0.
//!
//! * [`machine`]: the protocol as a pure state machine; bytes, commands and `now` in, bytes, events and a deadline out.
//! * [`Client`], [`EventStream`]: the machine on a tokio task, with its socket, its queues and its reconnects.
//! * [`Options`]: everything that can be chosen.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use client::{Client, Event, Message, Options};
//! let (client, mut events) = Client::connect(Options::new("127.0.0.1:1883", "vehicle-007")).await?;
//! client.subscribe([client::Subscription::new("fleet/vehicle-007/command", mqtt::QoS::AtLeastOnce)]).await?;
//! client.publish(Message::new("fleet/vehicle-007/state", "awake")).await?;
//! while let Some(event) = events.next().await {
//!     if let Event::Message(received) = event {
//!         println!("{}: {} bytes", received.message.topic, received.message.payload.len());
//!     }
//! }
//! # Ok(()) }
//! ```
//!
//! This crate must not know: brokers, gateways, configuration files, standard output.

mod backoff;
mod driver;
mod error;
mod handle;
pub mod machine;
mod message;
mod options;
mod transport;

pub use backoff::{Backoff, Reconnect};
pub use error::{ConnectError, Disconnected, PublishError, RequestError};
pub use handle::{Client, Delivery, Event, EventStream};
pub use machine::{Goodbye, SubscribeRequest, UnsubscribeRequest};
pub use message::{Connected, Granted, Message, Received, Subscription, Unsubscribed};
pub use options::{Options, Password, Will};
