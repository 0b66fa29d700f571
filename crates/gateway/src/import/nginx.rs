//! nginx: the `stream` part of its configuration.
//!
//! * [`parse`]: text to directives, with everything that is included.
//! * [`values`]: times, sizes, addresses as nginx writes them.
//! * [`words`]: directives that are not carried over, and why.
//! * [`upstream`], [`server`]: the two blocks that make a gateway.
//!
//! Must not know: TOML; what `[gateway]` allows ([`super::model`] fits it).

mod parse;
mod server;
mod upstream;
mod values;
mod words;

use std::collections::HashMap;

use self::parse::Directive;
use super::model::{Model, note};
use super::{Effect, ImportError, Include, syntax};

/// Reads a configuration.
pub(super) fn read(file: &str, text: &str, include: &mut Include<'_>) -> Result<Model, ImportError> {
    let mut model = Model::default();
    let directives = parse::load(file, text, include, &mut model.notes)?;
    let stream = stream(&directives, &mut model);
    server::translate(&Stream::new(&stream)?, &mut model)?;
    Ok(model)
}

/// What stands in `stream { ... }`, or everything where the file is the inside of one.
fn stream<'a>(directives: &'a [Directive], model: &mut Model) -> Vec<&'a Directive> {
    let main = |directive: &&Directive| matches!(directive.name(), "stream" | "http" | "mail" | "events");
    let inside = |directive: &&Directive| matches!(directive.name(), "server" | "upstream");
    if !directives.iter().any(|directive| main(&directive)) && directives.iter().any(|d| inside(&d)) {
        return directives.iter().collect();
    }
    let mut stream = Vec::new();
    for directive in directives {
        if directive.name() == "stream" {
            stream.extend(directive.block.iter().flatten());
        } else if let Some((effect, why)) = words::of_main(directive.name()) {
            model.notes.push(note(&directive.place, directive.name(), effect, why));
        } else {
            let why = "not known here; it stands outside of stream { }";
            model.notes.push(note(&directive.place, directive.text(), Effect::LeftOut, why));
        }
    }
    stream
}

/// The `stream` block, looked through once.
struct Stream<'a> {
    directives: Vec<&'a Directive>,
    upstreams: HashMap<&'a str, &'a Directive>,
    /// The directives that give variables their values, by the variable's name without `$`.
    variables: HashMap<&'a str, &'a Directive>,
    /// Keys of `limit_conn_zone`, by the zone's name.
    zones: HashMap<&'a str, &'a str>,
    /// Whether any listener has TLS; where none has, directives about it mean nothing.
    tls: bool,
    /// Whether any connection to a server has TLS.
    proxy_tls: bool,
}

impl<'a> Stream<'a> {
    fn new(directives: &[&'a Directive]) -> Result<Self, ImportError> {
        let mut stream = Self {
            directives: directives.to_vec(),
            upstreams: HashMap::new(),
            variables: HashMap::new(),
            zones: HashMap::new(),
            tls: false,
            proxy_tls: false,
        };
        for directive in directives {
            let words = &directive.words;
            match directive.name() {
                "upstream" => {
                    let name = directive.argument(1)?;
                    if stream.upstreams.insert(name, directive).is_some() {
                        return Err(syntax(&directive.place, format!("duplicate upstream \"{name}\"")));
                    }
                }
                "map" | "geo" | "split_clients" | "js_set" | "js_var" | "set" => {
                    // geo's first argument may be an address to look at; what it sets comes last
                    let sets = if directive.name().starts_with("js_") || directive.name() == "set" {
                        words.get(1)
                    } else {
                        words.last()
                    };
                    if let Some(name) = sets.and_then(|word| word.strip_prefix('$')) {
                        stream.variables.insert(name, directive);
                    }
                }
                "limit_conn_zone" => {
                    let zone = words.iter().find_map(|word| word.strip_prefix("zone="));
                    let zone = zone.map(|zone| zone.split_once(':').map_or(zone, |(name, _)| name));
                    if let (Some(key), Some(zone)) = (words.get(1), zone) {
                        stream.zones.insert(zone, key);
                    }
                }
                _ => {}
            }
            let servers = directive.block.iter().flatten().chain([*directive]);
            for inner in servers {
                stream.tls |= inner.name() == "listen" && inner.words.iter().any(|word| word == "ssl");
                stream.proxy_tls |= inner.is("proxy_ssl", "on");
            }
        }
        Ok(stream)
    }

    /// The directive that holds in a server: its own, or the stream's.
    fn effective(&self, server: &'a Directive, name: &str) -> Option<&'a Directive> {
        self.all_effective(server, name).into_iter().next_back()
    }

    /// The same for directives that may be there several times: the server's own replace all of the stream's.
    fn all_effective(&self, server: &'a Directive, name: &str) -> Vec<&'a Directive> {
        let own: Vec<_> =
            server.block.iter().flatten().filter(|directive| directive.name() == name).collect();
        if own.is_empty() {
            self.directives.iter().copied().filter(|directive| directive.name() == name).collect()
        } else {
            own
        }
    }
}
