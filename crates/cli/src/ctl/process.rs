//! `tidegate ctl metrics`, `probes` and `openapi`: what the process says of itself.
//!
//! Must not know: which metrics there are.

use std::io::Write;

use api::client::RestClient;
use clap::Subcommand;
use serde::Serialize;

use super::table::{Cell, Row, Tone};
use super::{Failure, Screen};

/// What to do with metrics.
#[derive(Clone, Debug, Subcommand)]
pub enum MetricsVerb {
    /// List them with their values
    List {
        /// Only series that begin with this, such as tidegate_gateway
        #[arg(value_name = "PREFIX")]
        prefix: Option<String>,
    },
}

/// What to do with probes.
#[derive(Clone, Debug, Subcommand)]
pub enum ProbesVerb {
    /// List them: whether the process lives, and whether it serves; exit code 1 where it does not
    List,
}

/// What to do with the API's own document.
#[derive(Clone, Debug, Subcommand)]
pub enum OpenapiVerb {
    /// Print the OpenAPI document, which is JSON
    Show,
}

/// A line of the metrics.
#[derive(Debug, PartialEq, Serialize)]
struct Series<'a> {
    series: &'a str,
    value: &'a str,
}

impl Row for Series<'_> {
    const TITLES: &'static [&'static str] = &["SERIES", "VALUE"];

    fn cells(&self) -> Vec<Cell> {
        vec![Cell::text(self.series), Cell::number(&self.value)]
    }
}

/// An answer to a probe.
#[derive(Debug, Serialize)]
struct Probe {
    probe: &'static str,
    ok: bool,
    reasons: Vec<String>,
}

impl Row for Probe {
    const TITLES: &'static [&'static str] = &["PROBE", "STATE", "REASONS"];

    fn cells(&self) -> Vec<Cell> {
        let (state, tone) = if self.ok { ("ok", Tone::Good) } else { ("not ready", Tone::Bad) };
        let reasons = Some(self.reasons.join("; ")).filter(|reasons| !reasons.is_empty());
        vec![Cell::text(self.probe), Cell::text(state).tone(tone), Cell::maybe(reasons.as_deref())]
    }
}

pub(super) fn metrics<W: Write>(
    client: &RestClient,
    verb: &MetricsVerb,
    screen: &mut Screen<W>,
) -> Result<(), Failure> {
    let MetricsVerb::List { prefix } = verb;
    let text = client.metrics()?;
    let prefix = prefix.as_deref().unwrap_or("");
    screen.list([Ok(series(&text).filter(|one| one.series.starts_with(prefix)).collect())])
}

/// The samples of the text format: no comments; a label's value may have blanks, the sample's has none.
fn series(text: &str) -> impl Iterator<Item = Series<'_>> {
    let samples = text.lines().filter(|line| !line.starts_with('#'));
    samples
        .filter_map(|line| line.trim_end().rsplit_once(' '))
        .map(|(series, value)| Series { series, value })
}

pub(super) fn probes<W: Write>(client: &RestClient, screen: &mut Screen<W>) -> Result<(), Failure> {
    client.live()?;
    let reasons = client.not_ready()?;
    let ready = reasons.is_empty();
    let probes = vec![
        Probe { probe: "livez", ok: true, reasons: Vec::new() },
        Probe { probe: "readyz", ok: ready, reasons },
    ];
    screen.list([Ok(probes)])?;
    screen.out.flush()?;
    if ready { Ok(()) } else { Err(Failure::NotReady) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_told_from_comments_and_labels_from_values() {
        let text = "# HELP a what\n# TYPE a counter\na 1\nb{x=\"1 2\",y=\"# 3\"} 4.5\n\n";
        let found: Vec<_> = series(text).map(|one| (one.series, one.value)).collect();
        assert_eq!(found, [("a", "1"), ("b{x=\"1 2\",y=\"# 3\"}", "4.5")]);
    }
}
