//! Four primitives for everything that must be remembered: lane, log, register, lease.
