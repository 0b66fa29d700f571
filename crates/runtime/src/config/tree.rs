//! The parsed file as plain owned values that know where they stood.

use std::fmt;
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue};

use super::Source;
use super::problem::Problem;

/// Longer values are shortened in problems.
const SHOWN_CHARACTERS: usize = 60;

/// A value and its place. Its debug form shows no value, because any may be a secret.
pub(super) struct Node {
    /// The offset of its first byte.
    pub(super) at: usize,
    /// The value as written, for problems; `None` for tables and arrays, whose parts may be secrets.
    pub(super) written: Option<String>,
    pub(super) value: Value,
}

pub(super) enum Value {
    String(String),
    /// `None` when it does not fit: then it is in no range either.
    Integer(Option<i64>),
    Float,
    Bool(bool),
    Datetime,
    Array(Vec<Node>),
    Table(Vec<Entry>),
}

/// A key of a table with its value.
pub(super) struct Entry {
    pub(super) key: String,
    /// The offset of the key's first byte.
    pub(super) at: usize,
    pub(super) node: Node,
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node").field("at", &self.at).finish_non_exhaustive()
    }
}

impl Node {
    pub(super) fn empty_table() -> Self {
        Self { at: 0, written: None, value: Value::Table(Vec::new()) }
    }

    pub(super) fn entries(&self) -> &[Entry] {
        match &self.value {
            Value::Table(entries) => entries,
            _ => &[],
        }
    }

    pub(super) fn entry(&self, key: &str) -> Option<&Entry> {
        self.entries().iter().find(|entry| entry.key == key)
    }

    /// How a problem shows the value.
    pub(super) fn shown(&self) -> String {
        match (&self.written, &self.value) {
            (Some(written), _) => shorten(written),
            (None, Value::Array(_)) => "an array".to_owned(),
            (None, _) => "a table".to_owned(),
        }
    }
}

/// One line of at most [`SHOWN_CHARACTERS`] characters, whatever the text holds.
fn shorten(text: &str) -> String {
    let mut shown = String::new();
    for (count, character) in text.chars().enumerate() {
        if count == SHOWN_CHARACTERS {
            shown.push_str("...");
            break;
        }
        if character.is_control() {
            shown.extend(character.escape_default());
        } else {
            shown.push(character);
        }
    }
    shown
}

/// A place where the text is not TOML.
#[derive(Debug)]
pub(super) struct SyntaxError {
    message: String,
    span: Range<usize>,
}

impl SyntaxError {
    pub(super) fn into_problem(self, source: &Source, text: &str) -> Problem {
        let line = source.line(self.span.start);
        let line_start = source.lines.get(line - 1).copied().unwrap_or(0);
        let column = text.get(line_start..self.span.start).map_or(1, |before| before.chars().count() + 1);
        // The parser's message may have several lines; the text itself is not quoted, it may be a secret.
        let message = self.message.lines().map(str::trim).collect::<Vec<_>>().join(", ");
        // What a duplicate names is a key and not a value, so it may be shown.
        let duplicate = message.starts_with("duplicate key").then(|| text.get(self.span)).flatten();
        Problem {
            file: source.file.clone(),
            line,
            key: duplicate.map_or_else(|| "(syntax)".to_owned(), shorten),
            value: format!("column {column}"),
            allowed: message,
        }
    }
}

/// Parses a whole file. Errors come in the order of the text, each place once.
pub(super) fn parse(text: &str) -> Result<Node, Vec<SyntaxError>> {
    let (root, errors) = DeTable::parse_recoverable(text);
    if errors.is_empty() {
        return Ok(Node { at: 0, written: None, value: table(text, root.get_ref()) });
    }
    let mut errors: Vec<SyntaxError> = errors
        .iter()
        .map(|error| SyntaxError { message: error.message().to_owned(), span: error.span().unwrap_or(0..0) })
        .collect();
    errors.sort_by_key(|error| error.span.start);
    errors.dedup_by_key(|error| error.span.start);
    Err(errors)
}

fn table(text: &str, table: &DeTable<'_>) -> Value {
    let mut entries: Vec<Entry> = table
        .iter()
        .map(|(key, value)| Entry {
            key: key.get_ref().clone().into_owned(),
            at: key.span().start,
            node: node(text, value),
        })
        .collect();
    // The parser sorts keys by name; problems should come in the order of the file.
    entries.sort_by_key(|entry| entry.at);
    Value::Table(entries)
}

fn array(text: &str, array: &DeArray<'_>) -> Value {
    Value::Array(array.iter().map(|value| node(text, value)).collect())
}

fn node(text: &str, spanned: &Spanned<DeValue<'_>>) -> Node {
    let value = match spanned.get_ref() {
        DeValue::String(string) => Value::String(string.clone().into_owned()),
        DeValue::Integer(integer) => {
            Value::Integer(i64::from_str_radix(integer.as_str(), integer.radix()).ok())
        }
        DeValue::Float(_) => Value::Float,
        DeValue::Boolean(boolean) => Value::Bool(*boolean),
        DeValue::Datetime(_) => Value::Datetime,
        DeValue::Array(values) => array(text, values),
        DeValue::Table(values) => table(text, values),
    };
    let scalar = !matches!(value, Value::Array(_) | Value::Table(_));
    let written = scalar.then(|| text.get(spanned.span()).unwrap_or_default().to_owned());
    Node { at: spanned.span().start, written, value }
}
