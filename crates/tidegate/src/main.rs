//! One binary: configuration to roles, wiring, subcommands, demo.

mod config;
mod demo;
mod import;
mod manual;
mod memory;
mod process;
mod run;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

/// The access layer for fleets of devices: an MQTT broker and the load balancer in front of it
#[derive(Debug, Parser)]
#[command(name = "tidegate", version, max_term_width = 100)]
struct Cli {
    /// The configuration file; without one: a broker with its API on this machine
    #[arg(short = 'c', long, value_name = "FILE", global = false)]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the roles of a configuration file in the foreground (the same as no command at all)
    Run {
        /// The configuration file; without one: a broker with its API on this machine
        #[arg(short = 'c', long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
    /// Check a configuration file: every problem with its file, line, key and what is allowed
    Check {
        /// The configuration file
        #[arg(short = 'c', long, value_name = "FILE")]
        config: PathBuf,
    },
    /// Show it: two brokers, the gateway before them, and a fleet of vehicles that loses its network and comes back
    Demo(demo::Args),
    /// Publish messages, with the flags of mosquitto_pub
    Pub(cli::publish::Args),
    /// Subscribe and print messages, with the flags of mosquitto_sub
    Sub(cli::subscribe::Args),
    /// Put load on a broker or a gateway of any make, and measure
    Bench(cli::bench::Args),
    /// Drive a fleet of vehicles from a scenario: they publish, obey, lose the network and come back
    Simulate(cli::simulate::Args),
    /// Look at a running process and steer it, through its REST API
    Ctl(cli::ctl::Args),
    Import(import::Args),
    Completion(manual::CompletionArgs),
    Man(manual::ManArgs),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match cli.command {
        None => run::run(cli.config),
        Some(Command::Run { config }) => run::run(config.or(cli.config)),
        Some(Command::Check { config }) => check(&config),
        Some(Command::Demo(args)) => demo::run(args),
        Some(Command::Pub(args)) => cli::publish::run(args),
        Some(Command::Sub(args)) => cli::subscribe::run(args),
        Some(Command::Bench(args)) => cli::bench::run(&args),
        Some(Command::Simulate(args)) => cli::simulate::run(&args),
        Some(Command::Ctl(args)) => cli::ctl::run(&args),
        Some(Command::Import(args)) => import::run(&args),
        Some(Command::Completion(args)) => manual::completion(&args, Cli::command()),
        Some(Command::Man(args)) => manual::man(&args, Cli::command()),
    }
}

fn check(file: &std::path::Path) -> ExitCode {
    match config::load(Some(file)) {
        Ok(config) => {
            let closed = config.broker.and_then(|broker| broker.closed_doors());
            let mut text =
                closed.map_or_else(String::new, |closed| format!("{}: warning: {closed}\n", file.display()));
            text.push_str(&format!("{}: ok\n", file.display()));
            cli::answer::say(&text, ExitCode::SUCCESS)
        }
        Err(error) => cli::answer::say(&(error.lines().join("\n") + "\n"), ExitCode::FAILURE),
    }
}
