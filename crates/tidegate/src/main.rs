//! One binary: configuration to roles, wiring, subcommands.
fn main() {}
