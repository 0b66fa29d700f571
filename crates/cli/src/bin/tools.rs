//! `pub`, `sub`, `bench` and `simulate` as a program of their own, for this crate's tests: cargo builds it before them. Users get them from
//! `tidegate`.

use std::process::ExitCode;

use clap::Parser;

#[derive(Parser)]
enum Tool {
    #[command(name = "pub")]
    Publish(cli::publish::Args),
    #[command(name = "sub")]
    Subscribe(cli::subscribe::Args),
    Bench(cli::bench::Args),
    Simulate(cli::simulate::Args),
}

fn main() -> ExitCode {
    match Tool::parse() {
        Tool::Publish(args) => cli::publish::run(args),
        Tool::Subscribe(args) => cli::subscribe::run(args),
        Tool::Bench(args) => cli::bench::run(&args),
        Tool::Simulate(args) => cli::simulate::run(&args),
    }
}
