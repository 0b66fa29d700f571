//! The Prometheus text format 0.0.4, grouped by metric.

use std::collections::BTreeMap;
use std::fmt::Write;

/// What a metric is: its name and meaning, declared once as a constant of its role.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Desc {
    /// The full name with the base unit, `tidegate_broker_received_bytes_total`.
    pub name: &'static str,
    /// One sentence for people.
    pub help: &'static str,
    /// Counter or gauge.
    pub kind: Kind,
    /// The labels' names in the order in which values are given.
    pub labels: &'static [&'static str],
}

impl Desc {
    /// A counter.
    pub const fn counter(name: &'static str, help: &'static str, labels: &'static [&'static str]) -> Self {
        Self { name, help, kind: Kind::Counter, labels }
    }

    /// A gauge.
    pub const fn gauge(name: &'static str, help: &'static str, labels: &'static [&'static str]) -> Self {
        Self { name, help, kind: Kind::Gauge, labels }
    }
}

/// The kinds of metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows while the process lives.
    Counter,
    /// Goes up and down.
    Gauge,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
        }
    }
}

/// A text in the making: samples in any order, metrics grouped and sorted at the end.
#[derive(Debug, Default)]
pub struct Exposition {
    groups: BTreeMap<&'static str, Group>,
}

#[derive(Debug)]
struct Group {
    desc: Desc,
    /// The labels as written between braces, to the value.
    samples: BTreeMap<String, f64>,
}

impl Exposition {
    /// An empty text.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a sample. Samples with equal labels are added up, so every worker may report its own share. A label
    /// without a value is written empty; a value without a label is left out (a test of the role should notice).
    pub fn sample(&mut self, desc: &Desc, values: &[&str], number: f64) {
        debug_assert_eq!(desc.labels.len(), values.len(), "{} wants {:?}", desc.name, desc.labels);
        let mut labels = String::new();
        for (index, label) in desc.labels.iter().enumerate() {
            if index > 0 {
                labels.push(',');
            }
            labels.push_str(label);
            labels.push_str("=\"");
            escape(values.get(index).copied().unwrap_or_default(), true, &mut labels);
            labels.push('"');
        }
        let group =
            self.groups.entry(desc.name).or_insert_with(|| Group { desc: *desc, samples: BTreeMap::new() });
        *group.samples.entry(labels).or_insert(0.0) += number;
    }

    /// The text.
    pub fn finish(self) -> String {
        let mut out = String::new();
        for (name, group) in self.groups {
            out.push_str("# HELP ");
            out.push_str(name);
            out.push(' ');
            escape(group.desc.help, false, &mut out);
            // Writing to a String can't fail.
            let _ = writeln!(out, "\n# TYPE {name} {}", group.desc.kind.name());
            for (labels, number) in group.samples {
                out.push_str(name);
                if !labels.is_empty() {
                    let _ = write!(out, "{{{labels}}}");
                }
                out.push(' ');
                write_number(number, &mut out);
                out.push('\n');
            }
        }
        out
    }
}

fn write_number(number: f64, out: &mut String) {
    if number.is_nan() {
        out.push_str("NaN");
    } else if number.is_infinite() {
        out.push_str(if number > 0.0 { "+Inf" } else { "-Inf" });
    } else {
        let _ = write!(out, "{number}");
    }
}

/// Escapes what the format reserves: the backslash and the line feed, and in label values the quotation mark.
fn escape(text: &str, quotes: bool, out: &mut String) {
    for character in text.chars() {
        match character {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '"' if quotes => out.push_str("\\\""),
            other => out.push(other),
        }
    }
}
