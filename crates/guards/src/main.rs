//! What `cargo xtask guards` counts the instructions of: one row of the hot path for each run of this program.
//!
//! `guards --list` names the rows; `guards ROW` prepares one, does its operation some times and prints how many times that was.
//! It runs under callgrind, which collects inside of [`meter::counted`] only: neither the start of the process nor the
//! preparation is in a number. `counts.toml` beside `src` has the numbers that were recorded. Must not know: valgrind, limits.

#![allow(clippy::print_stdout, reason = "the number of operations is what this program is asked for")]

mod choose;
mod clients;
mod decode;
mod deliver;
mod encode;
mod matching;
mod meter;
mod packets;
mod preread;
mod retained;
mod session;

use std::process::ExitCode;

use meter::Row;

/// Every row, in the order of a message's way.
fn rows() -> impl Iterator<Item = &'static Row> {
    [
        decode::ROWS,
        encode::ROWS,
        matching::MATCH_ROWS,
        matching::ROUTE_ROWS,
        deliver::ROWS,
        session::ROWS,
        retained::ROWS,
        preread::ROWS,
        choose::ROWS,
    ]
    .into_iter()
    .flatten()
}

fn main() -> ExitCode {
    let wish = std::env::args().nth(1).unwrap_or_default();
    if wish == "--list" {
        for row in rows() {
            println!("{}", row.name);
        }
        return ExitCode::SUCCESS;
    }
    match rows().find(|row| row.name == wish) {
        Some(row) => {
            println!("{}", (row.run)());
            ExitCode::SUCCESS
        }
        None => {
            eprintln!("{wish:?} is no row; `guards --list` names them");
            ExitCode::FAILURE
        }
    }
}
