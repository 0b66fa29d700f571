//! HAProxy: `frontend`, `backend` and `listen` in TCP mode, with their `defaults`.
//!
//! * [`parse`]: text to sections of lines.
//! * [`values`]: times and addresses as HAProxy writes them.
//! * [`words`]: keywords that are not carried over, and why.
//! * [`rules`]: who may connect.
//! * [`backend`], [`frontend`]: the two halves of a gateway.
//!
//! Must not know: TOML; what `[gateway]` allows ([`super::model`] fits it).

mod backend;
mod frontend;
mod parse;
mod rules;
mod values;
mod words;

use std::collections::HashMap;

use self::parse::{Line, Section};
use super::model::{Model, note};
use super::{Effect, Environment, ImportError};

/// Reads a configuration.
pub(super) fn read(file: &str, text: &str, environment: &Environment<'_>) -> Result<Model, ImportError> {
    let mut model = Model::default();
    let sections = parse::parse(file, text, environment, &mut model.notes)?;
    let mut config = Config { proxies: Vec::new(), max_connections: None, made: HashMap::new() };
    config.sort(&sections, &mut model)?;
    for proxy in config.proxies.iter().filter(|proxy| proxy.kind == "frontend" || proxy.kind == "listen") {
        frontend::translate(proxy, &config.proxies, config.max_connections, &mut config.made, &mut model)?;
    }
    for proxy in config.proxies.iter().filter(|proxy| proxy.kind == "backend") {
        if !config.made.contains_key(&proxy.name) {
            let why = "no frontend that is carried over leads to it";
            model.notes.push(note(&proxy.place, format!("backend {}", proxy.name), Effect::Same, why));
        }
    }
    Ok(model)
}

/// What of a configuration makes a gateway.
struct Config<'a> {
    proxies: Vec<Proxy<'a>>,
    /// `maxconn` of `global`.
    max_connections: Option<u64>,
    /// Upstreams that were made, by their backends.
    made: HashMap<String, usize>,
}

/// A `frontend`, `backend` or `listen` in TCP mode.
struct Proxy<'a> {
    place: super::Place,
    kind: &'a str,
    name: String,
    /// Those of its `defaults`, then its own.
    lines: Vec<&'a Line>,
    /// How many of them are of its `defaults`.
    inherited: usize,
}

impl<'a> Proxy<'a> {
    /// The last line that begins with these words; a `no` in front of it takes it away.
    fn last(&self, words: &[&str]) -> Option<&'a Line> {
        let begins =
            |line: &&&'a Line| line.begins(words) || (line.is("no") && line.rest(1).starts_with_words(words));
        self.lines.iter().rev().find(begins).copied().filter(|line| !line.is("no"))
    }

    /// Its own lines; what is inherited is noted where it stands.
    fn own(&self) -> impl Iterator<Item = &'a Line> + use<'a, '_> {
        self.lines.iter().copied().skip(self.inherited)
    }

    /// A time-out; HAProxy counts in milliseconds where no unit stands.
    fn timeout(&self, name: &str) -> Result<Option<std::time::Duration>, ImportError> {
        let Some(line) = self.last(&["timeout", name]) else { return Ok(None) };
        let text = line.word(2)?;
        Ok(Some(values::time(text).ok_or_else(|| line.refuse(text))?))
    }
}

trait StartsWithWords {
    fn starts_with_words(&self, words: &[&str]) -> bool;
}

impl StartsWithWords for [String] {
    fn starts_with_words(&self, words: &[&str]) -> bool {
        self.len() >= words.len() && self.iter().zip(words).all(|(word, other)| word == other)
    }
}

impl<'a> Config<'a> {
    /// Finds the proxies and their defaults, and notes everything else.
    fn sort(&mut self, sections: &'a [Section], model: &mut Model) -> Result<(), ImportError> {
        let mut defaults: Vec<&'a Line> = Vec::new();
        let mut named: HashMap<&'a str, Vec<&'a Line>> = HashMap::new();
        for section in sections {
            match section.kind() {
                "global" => self.global(section, model)?,
                "defaults" => {
                    // a named section may build on another one
                    let mut lines =
                        section.from().and_then(|from| named.get(from).cloned()).unwrap_or_default();
                    lines.extend(&section.lines);
                    if let Some(name) = section.name() {
                        named.insert(name, lines.clone());
                    }
                    defaults = lines;
                    let mode = defaults.iter().rev().find(|line| line.is("mode"));
                    for line in &section.lines {
                        // what holds for HTTP alone says nothing about TCP
                        if mode.is_none_or(|mode| mode.word(1).is_ok_and(|mode| mode == "tcp")) {
                            model.notes.extend(words::of_proxy(line));
                        }
                    }
                }
                kind @ ("frontend" | "backend" | "listen") => {
                    let from = section.from().and_then(|from| named.get(from));
                    let inherited = from.unwrap_or(&defaults);
                    self.proxy(section, kind, inherited, model)?;
                }
                kind => {
                    let (effect, why) = words::of_section(kind);
                    model.notes.push(note(&section.head.place, section.head.text(), effect, why));
                }
            }
        }
        Ok(())
    }

    fn global(&mut self, section: &'a Section, model: &mut Model) -> Result<(), ImportError> {
        for line in &section.lines {
            if line.is("maxconn") {
                let text = line.word(1)?;
                self.max_connections = Some(text.parse().map_err(|_| line.refuse(text))?);
            } else {
                model.notes.extend(words::of_global(line));
            }
        }
        Ok(())
    }

    fn proxy(
        &mut self,
        section: &'a Section,
        kind: &'a str,
        inherited: &[&'a Line],
        model: &mut Model,
    ) -> Result<(), ImportError> {
        let name = section.head.word(1)?.to_owned();
        let mut lines = inherited.to_vec();
        lines.extend(&section.lines);
        let place = section.head.place.clone();
        let proxy = Proxy { place, kind, name, lines, inherited: inherited.len() };
        let mut leave = |effect, why: &str| {
            model.notes.push(note(&proxy.place, format!("{kind} {}", proxy.name), effect, why));
        };
        let mode = proxy.last(&["mode"]).map_or(Ok("tcp"), |line| line.word(1))?;
        if proxy.own().any(|line| line.is("disabled")) {
            leave(Effect::Same, "it is disabled");
        } else if mode == "tcp" {
            self.proxies.push(proxy);
        } else {
            leave(Effect::LeftOut, &format!("its mode is {mode}; only TCP is carried over"));
        }
        Ok(())
    }
}
