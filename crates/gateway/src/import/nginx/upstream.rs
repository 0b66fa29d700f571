//! `upstream { ... }`: servers and how one is chosen.
//!
//! Must not know: listeners.

use std::time::Duration;

use super::super::model::{Maybe, Said, Server, Upstream, note};
use super::super::{Effect, ImportError, Note, syntax};
use super::parse::Directive;
use super::values::{self, Target};
use super::{Stream, words};

/// What nginx hashes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key {
    /// `$mqtt_preread_clientid`.
    ClientId,
    /// `$mqtt_preread_username`.
    Username,
    /// The device's address.
    Source,
    /// The address in the PROXY header.
    ProxySource,
}

/// An upstream as far as its own block tells.
pub(super) struct Read {
    pub(super) upstream: Upstream,
    /// The key, where one decides. It may be empty in nginx for reasons that stand elsewhere.
    pub(super) key: Option<Key>,
    /// Whether the key is nginx's own reading of CONNECT, which `mqtt_preread on` switches on.
    pub(super) prereads: bool,
}

/// Translates a block.
///
/// # Errors
/// nginx would refuse it.
pub(super) fn translate(directive: &Directive, stream: &Stream<'_>) -> Result<Read, ImportError> {
    let name = directive.argument(1)?.to_owned();
    let mut read =
        Read { upstream: Upstream::new(directive.place.clone(), name), key: None, prereads: false };
    let mut servers = 0;
    // nginx asks the method that stands before a server, not the one behind it
    let mut backups = true;
    for inner in directive.block.iter().flatten() {
        match inner.name() {
            "server" => {
                servers += 1;
                if !backups && inner.arguments().iter().any(|parameter| parameter == "backup") {
                    let why = "balancing method does not support parameter \"backup\"";
                    return Err(syntax(&inner.place, why));
                }
                server(inner, &mut read.upstream)?;
            }
            "hash" => {
                backups = false;
                hash(inner, stream, &mut read)?;
            }
            "least_conn" => {
                backups = true;
                read.upstream.balance = Said::written("least_connections");
            }
            "least_time" => {
                backups = true;
                read.upstream.balance = Said::written("least_connections");
                known(inner, &mut read.upstream.notes)?;
            }
            "random" => {
                backups = false;
                random(inner, &mut read.upstream);
            }
            "queue" => queue(inner, &mut read.upstream)?,
            _ => known(inner, &mut read.upstream.notes)?,
        }
    }
    if servers == 0 && !directive.block.iter().flatten().any(|inner| inner.name() == "state") {
        let name = directive.argument(1)?;
        return Err(syntax(&directive.place, format!("no servers are inside upstream \"{name}\"")));
    }
    let shared = directive.block.iter().flatten().any(|inner| inner.name() == "zone");
    if !shared && read.upstream.servers.iter().any(|server| server.max_conns.is_some()) {
        let why = "without zone each of nginx's workers counts for itself; here all connections of a server count together";
        let what = format!("max_conns of {}", read.upstream.name);
        read.upstream.notes.push(note(&directive.place, what, Effect::Differs, why));
    }
    if let [server] = &mut *read.upstream.servers {
        // for nginx a server without others never fails
        server.max_fails = Some(Said::because(0, "the only server is never taken out, as in nginx"));
        (server.fail_timeout, server.slow_start) = (None, None);
    }
    Ok(read)
}

/// An upstream of one address, for a `proxy_pass` that names no upstream.
///
/// # Errors
/// The address is none.
pub(super) fn literal(directive: &Directive, text: &str) -> Result<Read, ImportError> {
    let mut upstream = Upstream::new(directive.place.clone(), text.to_owned());
    if let Some(address) = address(directive, text, &mut upstream)? {
        let mut server = Server::new(directive.place.clone(), address);
        server.max_fails = Some(Said::because(0, "the only server is never taken out, as in nginx"));
        upstream.servers.push(server);
    }
    Ok(Read { upstream, key: None, prereads: false })
}

/// Notes a directive that is not carried over.
///
/// # Errors
/// No module of nginx knows it.
fn known(directive: &Directive, notes: &mut Vec<Note>) -> Result<(), ImportError> {
    let name = directive.name();
    let known = words::of_upstream(name).or_else(|| words::of_other_modules(name));
    let (effect, why) = known.ok_or_else(|| directive.unknown(words::UPSTREAM))?;
    notes.push(note(&directive.place, directive.text(), effect, why));
    Ok(())
}

fn address(
    directive: &Directive,
    text: &str,
    upstream: &mut Upstream,
) -> Result<Option<String>, ImportError> {
    let mut add =
        |effect, why: &str| upstream.notes.push(note(&directive.place, directive.text(), effect, why));
    match values::target(text) {
        Ok(Target::Address(address)) => Ok(Some(address)),
        Ok(Target::Name(name)) => {
            let why = "nginx looks a name up when it starts and balances over all its addresses; here it is one \
                       server, looked up every ten seconds";
            add(Effect::Differs, why);
            Ok(Some(name))
        }
        Ok(Target::Unix) => {
            add(Effect::LeftOut, "servers on Unix sockets are not in this version");
            Ok(None)
        }
        Err(problem) => Err(syntax(&directive.place, format!("{problem} in \"{text}\""))),
    }
}

fn server(directive: &Directive, upstream: &mut Upstream) -> Result<(), ImportError> {
    let text = directive.argument(1)?;
    let Some(address) = address(directive, text, upstream)? else { return Ok(()) };
    let mut server = Server::new(directive.place.clone(), address);
    for parameter in directive.arguments().iter().skip(1) {
        let wrong = || syntax(&directive.place, format!("invalid parameter \"{parameter}\""));
        let number = |value: &str| values::number(value).ok_or_else(wrong);
        let time = |value: &str| values::time(value).ok_or_else(wrong);
        match parameter.split_once('=').unwrap_or((parameter, "")) {
            ("weight", value) => {
                server.weight = number(value)?;
                if server.weight == 0 {
                    return Err(wrong());
                }
            }
            ("max_fails", value) => server.max_fails = Some(Said::written(number(value)?)),
            ("fail_timeout", value) => server.fail_timeout = Some(Said::written(time(value)?)),
            ("max_conns", value) => server.max_conns = not_zero(number(value)?),
            ("slow_start", value) => {
                server.slow_start = not_zero_time(time(value)?);
            }
            ("backup", "") => server.backup = true,
            ("down", "") => server.down = true,
            ("resolve", "") => {
                let why = "here a name is looked up every ten seconds, and it is one server";
                upstream.notes.push(note(&directive.place, "resolve", Effect::Differs, why));
            }
            ("service", _) => {
                let why = "SRV records are not in this version";
                upstream.notes.push(note(&directive.place, directive.text(), Effect::LeftOut, why));
                return Ok(());
            }
            ("route" | "drain", _) => {
                let why = "it belongs to http, nginx refuses it in stream";
                upstream.notes.push(note(&directive.place, parameter.clone(), Effect::LeftOut, why));
            }
            _ => return Err(wrong()),
        }
    }
    upstream.servers.push(server);
    Ok(())
}

/// nginx's 0 is "no bound".
fn not_zero(value: u64) -> Maybe<u64> {
    (value > 0).then(|| Said::written(value))
}

fn not_zero_time(value: Duration) -> Maybe<Duration> {
    (!value.is_zero()).then(|| Said::written(value))
}

fn hash(directive: &Directive, stream: &Stream<'_>, read: &mut Read) -> Result<(), ImportError> {
    let text = directive.argument(1)?;
    let consistent = match directive.words.get(2).map(String::as_str) {
        None => false,
        Some("consistent") => true,
        Some(other) => return Err(syntax(&directive.place, format!("invalid parameter \"{other}\""))),
    };
    let upstream = &mut read.upstream;
    let mut add =
        |effect, why: &str| upstream.notes.push(note(&directive.place, directive.text(), effect, why));
    let (key, prereads) = match plain_variable(text) {
        Some("mqtt_preread_clientid") => (Key::ClientId, true),
        Some("mqtt_preread_username") => (Key::Username, true),
        Some("remote_addr") => (Key::Source, false),
        Some("proxy_protocol_addr") => (Key::ProxySource, false),
        Some("binary_remote_addr") => {
            let why = "here the address is hashed as text, not as bytes: each address stays on one server, and most \
                       get another one than with nginx, once";
            add(Effect::Differs, why);
            (Key::Source, false)
        }
        other => {
            let scripted = other.and_then(|name| stream.variables.get(name).map(|sets| (name, sets)));
            match scripted {
                Some((name, sets)) if sets.name().starts_with("js_") && names_a_client(name) => {
                    let why = "taken for the client id, which its script finds in CONNECT; if the script makes \
                               something else of it, devices get another server than with nginx, once";
                    add(Effect::Differs, why);
                    (Key::ClientId, false)
                }
                _ => {
                    let (key, word) = nearest(text);
                    let why = format!(
                        "the key can be the client id, the user name or the address, alone; {word} is taken, so most \
                         devices get another server than with nginx, once"
                    );
                    add(Effect::Differs, &why);
                    (key, false)
                }
            }
        }
    };
    upstream.balance = Said::written(match key {
        Key::ClientId => "client_id",
        Key::Username => "username",
        Key::Source | Key::ProxySource => "source_ip",
    });
    upstream.hash = Some(Said::written(if consistent { "ketama" } else { "modulo" }));
    (read.key, read.prereads) = (Some(key), prereads);
    Ok(())
}

/// `$name` or `${name}` and nothing else.
fn plain_variable(text: &str) -> Option<&str> {
    let name = text.strip_prefix('$')?;
    let name = name.strip_prefix('{').map_or(Some(name), |name| name.strip_suffix('}'))?;
    let fine = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    fine.then_some(name)
}

fn names_a_client(variable: &str) -> bool {
    let name = variable.to_ascii_lowercase();
    name.contains("client") || name.contains("mqtt")
}

/// The one of our keys that comes nearest to a key of several variables.
fn nearest(text: &str) -> (Key, &'static str) {
    if !text.contains("mqtt_preread_clientid") && text.contains("mqtt_preread_username") {
        return (Key::Username, "the user name");
    }
    let address = text.contains("remote_addr") || text.contains("proxy_protocol_addr");
    if address && !text.contains("mqtt_preread_clientid") {
        return (Key::Source, "the address");
    }
    (Key::ClientId, "the client id")
}

fn random(directive: &Directive, upstream: &mut Upstream) {
    let two = directive.words.get(1).is_some_and(|word| word == "two");
    upstream.balance = Said::written(if two { "random_two" } else { "random" });
    if let Some(method) = directive.words.get(2).filter(|method| *method != "least_conn") {
        let why =
            format!("{method}: answers are not timed; of the two the one with fewer connections is taken");
        upstream.notes.push(note(&directive.place, directive.text(), Effect::Differs, why));
    }
}

fn queue(directive: &Directive, upstream: &mut Upstream) -> Result<(), ImportError> {
    let length = directive.argument(1)?;
    upstream.queue = not_zero(values::number(length).ok_or_else(|| directive.refuse(length))?);
    let written = directive.words.iter().find_map(|word| word.strip_prefix("timeout="));
    let time = written.map(|text| values::time(text).ok_or_else(|| directive.refuse(text))).transpose()?;
    upstream.queue_timeout = Some(match time {
        Some(time) => Said::written(time),
        None => Said::because(Duration::from_secs(60), "nginx's default"),
    });
    Ok(())
}
