//! The log on standard error: lines for people or JSON for machines, with a level that a reload can change.

use std::fmt;
use std::io::{self, IsTerminal};

use tracing_subscriber::filter::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::reload;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry};

use crate::config::Table;

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// Lines for people.
    #[default]
    Text,
    /// One JSON object for each line.
    Json,
}

/// The section `[log]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TelemetryConfig {
    /// `format = "text" | "json"`.
    pub format: Format,
    /// `level = "info"`, or a filter such as `"info,gateway=debug"`.
    pub filter: String,
}

impl Default for TelemetryConfig {
    fn default() -> Self {
        Self { format: Format::Text, filter: "info".to_owned() }
    }
}

impl TelemetryConfig {
    /// Reads the section: `log.table("log", TelemetryConfig::read)`.
    pub fn read(table: &mut Table<'_>) -> Self {
        let default = Self::default();
        let formats = [("text", Format::Text), ("json", Format::Json)];
        let format = table.choice("format", &formats).unwrap_or(default.format);
        let filter = table.string("level").unwrap_or(default.filter);
        if check(&filter).is_err() {
            table.problem("level", ALLOWED);
        }
        Self { format, filter }
    }
}

/// Why the log could not be set up or changed.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The filter can't be read.
    #[error("log level {0:?}: {ALLOWED}")]
    Filter(String),
    /// [`init`] was called before in this process.
    #[error("the log is set up already")]
    Twice,
}

/// The log in force. Keep it to change the level at a reload.
pub struct Telemetry {
    filter: reload::Handle<EnvFilter, Registry>,
}

impl fmt::Debug for Telemetry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Telemetry").finish_non_exhaustive()
    }
}

impl Telemetry {
    /// Changes the level or filter while the process runs. (The format stays until a restart.)
    ///
    /// # Errors
    /// When the filter can't be read; the old one stays.
    pub fn set_filter(&self, filter: &str) -> Result<(), TelemetryError> {
        let parsed = parse(filter)?;
        self.filter.reload(parsed).map_err(|_| TelemetryError::Twice)
    }
}

/// Sets the process's log up: standard error, times in UTC, colours only on a terminal.
///
/// # Errors
/// When the filter can't be read, or when the log was set up before.
pub fn init(config: &TelemetryConfig) -> Result<Telemetry, TelemetryError> {
    let (filter, handle) = reload::Layer::new(parse(&config.filter)?);
    let lines = tracing_subscriber::fmt::layer().with_writer(io::stderr);
    let lines = match config.format {
        Format::Text => lines.with_ansi(io::stderr().is_terminal()).boxed(),
        Format::Json => lines.json().flatten_event(true).boxed(),
    };
    tracing_subscriber::registry().with(filter).with(lines).try_init().map_err(|_| TelemetryError::Twice)?;
    Ok(Telemetry { filter: handle })
}

const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
const ALLOWED: &str = "one of \"off\", \"error\", \"warn\", \"info\", \"debug\", \"trace\", or with other levels for modules, such as \"info,gateway=debug\"";

/// A level, or levels with modules, in a comma list. Stricter than the filter's own parser, to which a misspelled
/// level is a module's name: it would silence everything else.
fn check(filter: &str) -> Result<(), TelemetryError> {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b':' | b'-');
    let right = filter.split(',').all(|part| match part.split_once('=') {
        None => LEVELS.contains(&part),
        Some((module, level)) => !module.is_empty() && module.bytes().all(word) && LEVELS.contains(&level),
    });
    if right { Ok(()) } else { Err(TelemetryError::Filter(filter.to_owned())) }
}

fn parse(filter: &str) -> Result<EnvFilter, TelemetryError> {
    check(filter)?;
    EnvFilter::builder().parse(filter).map_err(|_| TelemetryError::Filter(filter.to_owned()))
}

#[cfg(test)]
mod tests;
