//! Types and traits of the admin and control interfaces, and a thin client of the REST API.
//!
//! Roles implement the traits, `admin` serves them over HTTP, `cli` reads the types back: none of them imports
//! another. Field names are those the field uses (`clientid`, `proto_ver`, `connected_at` ...); they are a contract
//! with other people's scripts. Must not know: HTTP servers, roles, sockets of its own (the client uses `ureq`).

pub mod broker;
pub mod client;
pub mod gateway;
pub mod node;
pub mod page;
pub mod problem;
pub mod rest;

use std::future::Future;
use std::pin::Pin;

/// What the traits' methods return: a future that may cross threads.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;
