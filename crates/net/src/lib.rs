//! Listeners, dialers, PROXY protocol: everything that touches a socket before bytes mean anything.
