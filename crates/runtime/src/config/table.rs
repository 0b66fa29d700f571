//! The typed getters.

use std::cell::RefCell;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use super::ip_net::IpNet;
use super::problem::{Problem, Problems};
use super::tree::{Entry, Node, Value};
use super::{Source, suggest, units};

/// Files with secrets are small; a wrong path must not fill the memory.
const SECRET_FILE_BYTES: u64 = 64 * 1024;
/// What stands for a secret's value in problems.
const HIDDEN: &str = "***";
/// What stands for the value of a key that is not there.
const MISSING: &str = "(missing)";

/// A table of the file on its walk. Getters give the value, or nothing when the key is absent or wrong; what is
/// wrong is recorded. A role chooses its default with `unwrap_or`.
///
/// A key that any getter or [`Table::has`] asked for is known; all others are problems at the end of the walk.
#[derive(Debug)]
pub struct Table<'a> {
    source: &'a Source,
    problems: &'a RefCell<Vec<Problem>>,
    path: String,
    node: &'a Node,
    known: Vec<Known>,
    /// What keys are called elsewhere, and what here.
    elsewhere: &'static [(&'static str, &'static str)],
}

#[derive(Debug)]
struct Known {
    key: String,
    secret: bool,
}

impl<'a> Table<'a> {
    /// Runs a schema on a table and reports the keys that it did not ask for.
    pub(super) fn walk<T>(
        source: &'a Source,
        problems: &'a RefCell<Vec<Problem>>,
        path: String,
        node: &'a Node,
        schema: impl FnOnce(&mut Table<'_>) -> T,
    ) -> T {
        let mut table = Table { source, problems, path, node, known: Vec::new(), elsewhere: &[] };
        let value = schema(&mut table);
        table.report_unknown();
        value
    }

    /// The dotted path of this table, such as `gateway.upstreams[0]`; empty for the root.
    pub fn key_path(&self) -> &str {
        &self.path
    }

    /// What keys of this table are called in other programs, each with the key that is meant: who writes one by habit is told the
    /// other. Without this, only names that are spelled alike are.
    pub fn called_elsewhere(&mut self, names: &'static [(&'static str, &'static str)]) {
        self.elsewhere = names;
    }

    /// Whether the key is there, right or wrong.
    pub fn has(&mut self, key: &str) -> bool {
        self.know(key, false);
        self.node.entry(key).is_some()
    }

    /// A string.
    pub fn string(&mut self, key: &str) -> Option<String> {
        self.get(key, "a string", |node| match &node.value {
            Value::String(string) => Some(string.clone()),
            _ => None,
        })
    }

    /// `true` or `false`.
    pub fn bool(&mut self, key: &str) -> Option<bool> {
        self.get(key, "true or false", |node| match node.value {
            Value::Bool(value) => Some(value),
            _ => None,
        })
    }

    /// A whole number within a range.
    pub fn integer(&mut self, key: &str, allowed: RangeInclusive<i64>) -> Option<i64> {
        let text = format!("an integer from {} to {}", allowed.start(), allowed.end());
        self.get(key, &text, |node| match node.value {
            Value::Integer(value) => value.filter(|value| allowed.contains(value)),
            _ => None,
        })
    }

    /// A number within a range, with a fraction or without: `1.25`, `2`.
    pub fn number(&mut self, key: &str, allowed: RangeInclusive<f64>) -> Option<f64> {
        let text = format!("a number from {} to {}", allowed.start(), allowed.end());
        self.get(key, &text, |node| match node.value {
            Value::Integer(_) | Value::Float => {
                let number: f64 = node.written.as_deref()?.replace('_', "").parse().ok()?;
                allowed.contains(&number).then_some(number)
            }
            _ => None,
        })
    }

    /// A duration such as `"10s"` or `"1m30s"`, within a range.
    pub fn duration(&mut self, key: &str, allowed: RangeInclusive<Duration>) -> Option<Duration> {
        let text = format!(
            "a duration from \"{}\" to \"{}\", a number with the unit ms, s, m, h or d",
            units::duration_text(*allowed.start()),
            units::duration_text(*allowed.end()),
        );
        self.parsed(key, &text, |text| units::parse_duration(text).filter(|value| allowed.contains(value)))
    }

    /// A size in bytes such as `"64KiB"` or `"10MB"`, within a range.
    pub fn size(&mut self, key: &str, allowed: RangeInclusive<u64>) -> Option<u64> {
        let text = format!(
            "a size from \"{}\" to \"{}\", a number with the unit B, KB, KiB, MB, MiB, GB or GiB",
            units::size_text(*allowed.start()),
            units::size_text(*allowed.end()),
        );
        self.parsed(key, &text, |text| units::parse_size(text).filter(|value| allowed.contains(value)))
    }

    /// A rate such as `"2000/s"` or `"10/m"`, as a number per second above zero.
    pub fn rate(&mut self, key: &str) -> Option<f64> {
        let text =
            "a rate such as \"2000/s\", \"10/m\" or \"1/h\", a number from 1 to 4294967295 with a unit";
        self.parsed(key, text, units::parse_rate)
    }

    /// A rate of bytes such as `"1MiB/s"`, as bytes per second above zero.
    pub fn byte_rate(&mut self, key: &str) -> Option<u64> {
        let text = "a rate of bytes such as \"64KiB/s\" or \"1MB/s\", a size from 1B on in each second";
        self.parsed(key, text, |text| units::parse_size(text.strip_suffix("/s")?).filter(|bytes| *bytes > 0))
    }

    /// One of a few names.
    pub fn choice<T: Clone>(&mut self, key: &str, choices: &[(&str, T)]) -> Option<T> {
        let quoted: Vec<String> = choices.iter().map(|(name, _)| format!("\"{name}\"")).collect();
        let mut text = format!("one of {}", quoted.join(", "));
        if let Some(Value::String(written)) = self.node.entry(key).map(|entry| &entry.node.value)
            && let Some(near) = suggest::nearest(written, choices.iter().map(|(name, _)| *name))
        {
            text = format!("{text}; did you mean \"{near}\"?");
        }
        self.parsed(key, &text, |written| {
            choices.iter().find(|(name, _)| *name == written).map(|(_, value)| value.clone())
        })
    }

    /// A choice of the contract of which this version has some: the `later` ones are told apart from a misspelling.
    pub fn choice_so_far<T: Clone>(&mut self, key: &str, choices: &[(&str, T)], later: &[&str]) -> Option<T> {
        if let Some(Value::String(written)) = self.node.entry(key).map(|entry| &entry.node.value)
            && later.contains(&written.as_str())
        {
            let quoted: Vec<String> = choices.iter().map(|(name, _)| format!("\"{name}\"")).collect();
            self.problem(key, format!("not in this version; allowed: {}", quoted.join(", ")));
            return None;
        }
        self.choice(key, choices)
    }

    /// A choice of the contract of which this version has one: the others are told apart from a misspelling.
    pub fn only(&mut self, key: &str, here: &str, later: &[&str]) {
        let Some(value) = self.string(key) else { return };
        if later.contains(&value.as_str()) {
            self.problem(key, format!("not in this version; allowed: \"{here}\""));
        } else if value != here {
            self.problem(key, format!("\"{here}\""));
        }
    }

    /// A key of the contract that this version does not carry out: never taken in silence.
    pub fn not_in_this_version(&mut self, key: &str) {
        // not by `has`, which would offer the key to whoever misspells another
        if self.node.entry(key).is_some() {
            self.problem(key, "not in this version; leave it out");
        }
    }

    /// An address with a port, such as `"127.0.0.1:1883"` or `"[::1]:1883"`.
    pub fn socket_addr(&mut self, key: &str) -> Option<SocketAddr> {
        let text = "an address with a port such as \"127.0.0.1:1883\" or \"[::]:1883\"";
        self.parsed(key, text, |written| written.parse().ok())
    }

    /// An array of strings. A wrong element is a problem of its own and is left out.
    pub fn strings(&mut self, key: &str) -> Option<Vec<String>> {
        self.elements(key, "an array of strings", "a string", |written| Some(written.to_owned()))
    }

    /// One string, or an array of strings: what most lists of one are written as.
    pub fn string_or_strings(&mut self, key: &str) -> Option<Vec<String>> {
        match self.node.entry(key).map(|entry| &entry.node.value) {
            Some(Value::Array(_)) => self.strings(key),
            _ => self
                .get(key, "a string or an array of strings", |node| match &node.value {
                    Value::String(string) => Some(string.clone()),
                    _ => None,
                })
                .map(|one| vec![one]),
        }
    }

    /// Whether the value of a key is a table, for keys that may be something else too.
    pub fn is_table(&mut self, key: &str) -> bool {
        self.know(key, false);
        self.node.entry(key).is_some_and(|entry| matches!(entry.node.value, Value::Table(_)))
    }

    /// One whole number within a range, or an array of them. A wrong element is a problem of its own and is left out.
    pub fn integer_or_integers(&mut self, key: &str, allowed: RangeInclusive<i64>) -> Option<Vec<i64>> {
        self.know(key, false);
        let entry = self.node.entry(key)?;
        let Value::Array(nodes) = &entry.node.value else {
            return self.integer(key, allowed).map(|one| vec![one]);
        };
        let mut values = Vec::with_capacity(nodes.len());
        for (index, node) in nodes.iter().enumerate() {
            match node.value {
                Value::Integer(Some(value)) if allowed.contains(&value) => values.push(value),
                _ => {
                    let text = format!("an integer from {} to {}", allowed.start(), allowed.end());
                    self.report_at(node.at, format!("{}[{index}]", self.join(key)), node.shown(), &text);
                }
            }
        }
        Some(values)
    }

    /// An array of networks such as `["10.0.0.0/8", "::1"]`.
    pub fn networks(&mut self, key: &str) -> Option<Vec<IpNet>> {
        let element = "a network such as \"10.0.0.0/8\" or \"fd00::/8\", or one address";
        self.elements(key, "an array of networks such as [\"10.0.0.0/8\", \"::1\"]", element, |written| {
            IpNet::from_str(written).ok()
        })
    }

    /// An array of addresses such as `["10.0.0.5", "::1"]`.
    pub fn ip_list(&mut self, key: &str) -> Option<Vec<IpAddr>> {
        let element = "an IP address such as \"10.0.0.5\" or \"::1\"";
        self.elements(key, "an array of IP addresses such as [\"10.0.0.5\"]", element, |written| {
            written.parse().ok()
        })
    }

    /// A path; a relative one starts from the folder of the file. Nothing is opened.
    pub fn path(&mut self, key: &str) -> Option<PathBuf> {
        let folder = self.source.folder();
        self.get(key, "a path", |node| match &node.value {
            Value::String(written) if !written.is_empty() => Some(folder.join(written)),
            _ => None,
        })
    }

    /// A secret: a plain string, `{ file = "path" }` or `{ env = "NAME" }`. The end of the file's line is not part
    /// of the secret. Its value appears in no problem.
    pub fn secret(&mut self, key: &str) -> Option<String> {
        self.know(key, true);
        let allowed = "a string, { file = \"path\" } or { env = \"NAME\" }";
        let entry = self.node.entry(key)?;
        match &entry.node.value {
            Value::String(plain) => Some(plain.clone()),
            Value::Table(_) => {
                let path = self.join(key);
                Table::walk(self.source, self.problems, path, &entry.node, |table| {
                    table.secret_source(allowed)
                })
            }
            _ => {
                self.report(entry, HIDDEN.to_owned(), allowed);
                None
            }
        }
    }

    fn secret_source(&mut self, allowed: &str) -> Option<String> {
        match (self.path("file"), self.string("env"), self.node.entries().len()) {
            (Some(path), None, 1) => match read_secret_file(&path) {
                Ok(secret) => Some(secret),
                Err(error) => {
                    self.problem("file", format!("a readable file: {error}"));
                    None
                }
            },
            (None, Some(name), 1) => {
                let value = std::env::var(&name).ok();
                if value.is_none() {
                    self.problem("env", "the name of an environment variable that is set and is UTF-8");
                }
                value
            }
            _ => {
                let node = self.node;
                if !self.has("file") && !self.has("env") || self.has("file") && self.has("env") {
                    self.report_at(node.at, self.path.clone(), HIDDEN.to_owned(), allowed);
                }
                None
            }
        }
    }

    /// A sub-table, walked with its own schema; nothing when it is absent.
    pub fn table<T>(&mut self, key: &str, schema: impl FnOnce(&mut Table<'_>) -> T) -> Option<T> {
        self.know(key, false);
        let entry = self.node.entry(key)?;
        let Value::Table(_) = entry.node.value else {
            self.report(entry, entry.node.shown(), "a table");
            return None;
        };
        Some(Table::walk(self.source, self.problems, self.join(key), &entry.node, schema))
    }

    /// An array of tables, `[[key]]` or `key = [{ ... }, { ... }]`; empty when it is absent. What is no table is a
    /// problem and is left out.
    pub fn tables<T>(&mut self, key: &str, mut schema: impl FnMut(&mut Table<'_>, usize) -> T) -> Vec<T> {
        self.know(key, false);
        let Some(entry) = self.node.entry(key) else { return Vec::new() };
        let Value::Array(nodes) = &entry.node.value else {
            self.report(entry, entry.node.shown(), &format!("an array of tables: [[{}]]", self.join(key)));
            return Vec::new();
        };
        let mut values = Vec::with_capacity(nodes.len());
        for (index, node) in nodes.iter().enumerate() {
            let path = format!("{}[{index}]", self.join(key));
            if let Value::Table(_) = node.value {
                let walk = |table: &mut Table<'_>| schema(table, index);
                values.push(Table::walk(self.source, self.problems, path, node, walk));
            } else {
                self.report_at(node.at, path, node.shown(), "a table");
            }
        }
        values
    }

    /// Records a problem of meaning with the value of a key, such as a name that nothing has. Without the key it
    /// stands at the table's line with `(missing)` as its value.
    pub fn problem(&mut self, key: &str, allowed: impl Into<String>) {
        let allowed = allowed.into();
        self.know(key, false);
        let secret = self.known.iter().any(|known| known.key == key && known.secret);
        match self.node.entry(key) {
            Some(entry) if secret => self.report(entry, HIDDEN.to_owned(), &allowed),
            Some(entry) => self.report(entry, entry.node.shown(), &allowed),
            None => self.report_at(self.node.at, self.join(key), MISSING.to_owned(), &allowed),
        }
    }

    /// Records a problem of meaning with one element of an array, such as the name in `listeners[2]`.
    pub fn element_problem(&mut self, key: &str, index: usize, allowed: impl Into<String>) {
        self.know(key, false);
        let element = match self.node.entry(key).map(|entry| &entry.node.value) {
            Some(Value::Array(nodes)) => nodes.get(index),
            _ => None,
        };
        match element {
            Some(node) => {
                self.report_at(
                    node.at,
                    format!("{}[{index}]", self.join(key)),
                    node.shown(),
                    &allowed.into(),
                );
            }
            None => self.problem(key, allowed),
        }
    }

    /// Records what is wrong in another file that a key of this one names. It is told behind what is wrong here.
    pub fn adopt(&mut self, problems: Problems) {
        self.problems.borrow_mut().extend(problems);
    }

    /// Records a problem when the key is absent. `allowed` says what should be there.
    pub fn require(&mut self, key: &str, allowed: impl Into<String>) {
        if !self.has(key) {
            self.problem(key, allowed);
        }
    }

    fn parsed<T>(&mut self, key: &str, allowed: &str, parse: impl FnOnce(&str) -> Option<T>) -> Option<T> {
        self.get(key, allowed, |node| match &node.value {
            Value::String(written) => parse(written),
            _ => None,
        })
    }

    fn get<T>(&mut self, key: &str, allowed: &str, read: impl FnOnce(&Node) -> Option<T>) -> Option<T> {
        self.know(key, false);
        let entry = self.node.entry(key)?;
        let value = read(&entry.node);
        if value.is_none() {
            self.report(entry, entry.node.shown(), allowed);
        }
        value
    }

    fn elements<T>(
        &mut self,
        key: &str,
        allowed: &str,
        allowed_element: &str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Option<Vec<T>> {
        self.know(key, false);
        let entry = self.node.entry(key)?;
        let Value::Array(nodes) = &entry.node.value else {
            self.report(entry, entry.node.shown(), allowed);
            return None;
        };
        let mut values = Vec::with_capacity(nodes.len());
        for (index, node) in nodes.iter().enumerate() {
            let value = match &node.value {
                Value::String(written) => parse(written),
                _ => None,
            };
            match value {
                Some(value) => values.push(value),
                None => {
                    let path = format!("{}[{index}]", self.join(key));
                    self.report_at(node.at, path, node.shown(), allowed_element);
                }
            }
        }
        Some(values)
    }

    fn know(&mut self, key: &str, secret: bool) {
        match self.known.iter_mut().find(|known| known.key == key) {
            Some(known) => known.secret |= secret,
            None => self.known.push(Known { key: key.to_owned(), secret }),
        }
    }

    fn join(&self, key: &str) -> String {
        let key = written_key(key);
        if self.path.is_empty() { key } else { format!("{}.{key}", self.path) }
    }

    fn report(&self, entry: &Entry, value: String, allowed: &str) {
        // The key's line is the value's too: TOML has no line break between them.
        self.report_at(entry.at, self.join(&entry.key), value, allowed);
    }

    fn report_at(&self, at: usize, key: String, value: String, allowed: &str) {
        let (file, line) = (self.source.file.clone(), self.source.line(at));
        self.problems.borrow_mut().push(Problem { file, line, key, value, allowed: allowed.to_owned() });
    }

    fn report_unknown(&self) {
        let unknown =
            self.node.entries().iter().filter(|entry| !self.known.iter().any(|known| known.key == entry.key));
        for entry in unknown {
            let habit = self.elsewhere.iter().find(|(name, _)| *name == entry.key).map(|(_, key)| *key);
            let near = habit
                .or_else(|| suggest::nearest(&entry.key, self.known.iter().map(|known| known.key.as_str())));
            let near_secret = self.known.iter().any(|known| known.secret && Some(known.key.as_str()) == near);
            // A misspelled key may hold a secret, so texts under unknown keys are not shown.
            let value = match entry.node.value {
                _ if near_secret => HIDDEN.to_owned(),
                Value::String(_) => HIDDEN.to_owned(),
                _ => entry.node.shown(),
            };
            let allowed = match near {
                // some tables have fifty keys: they would hide the one that is meant
                Some(near) => format!("unknown key, did you mean {near}?"),
                None => {
                    let mut names: Vec<&str> = self.known.iter().map(|known| known.key.as_str()).collect();
                    names.sort_unstable();
                    let names = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
                    format!("unknown key; allowed: {names}")
                }
            };
            self.report_at(entry.at, self.join(&entry.key), value, &allowed);
        }
    }
}

/// A key as it would be written in a dotted path: quoted when it is not bare, so that one problem is one line.
fn written_key(key: &str) -> String {
    let bare = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    if !key.is_empty() && key.bytes().all(bare) { key.to_owned() } else { format!("{key:?}") }
}

/// The file's text without the end of its last line.
fn read_secret_file(path: &Path) -> std::io::Result<String> {
    use std::io::{Error, ErrorKind, Read};
    let mut text = String::new();
    std::fs::File::open(path)?.take(SECRET_FILE_BYTES + 1).read_to_string(&mut text)?;
    if text.len() as u64 > SECRET_FILE_BYTES {
        return Err(Error::new(ErrorKind::FileTooLarge, "longer than 64 KiB"));
    }
    let end = text.trim_end_matches(['\n', '\r']).len();
    text.truncate(end);
    Ok(text)
}
