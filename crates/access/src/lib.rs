//! Who may connect, and what they may do: the decisions, without the broker that carries them out.
//!
//! [`Users`] is a password file, [`Verifier`] the threads that hash (milliseconds each, so never on a worker) with their
//! bounded queue and their short memory. [`Rules`] is a rules file for topics; a client's [`Policy`] is what of it can concern
//! that client, worked out once at its CONNECT, and asked for each PUBLISH and SUBSCRIBE.
//!
//! Must not know: sockets, connections, the broker, HTTP.

mod file_error;
mod hash;
mod pattern;
mod policy;
mod recent;
mod rules;
mod users;
mod verifier;

pub use file_error::FileError;
pub use hash::{Algorithm, HashError, PasswordHash};
pub use policy::{Client, Permission, Policy};
pub use rules::Rules;
pub use users::Users;
pub use verifier::{Busy, Limits, Request, Verifier};
