//! `backend`, and that half of `listen`: servers and how one is chosen.
//!
//! Must not know: binds, who may connect.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::super::model::{Said, Server, Upstream, note};
use super::super::{Effect, ImportError, Note, syntax};
use super::parse::Line;
use super::values::{self, Host};
use super::{Proxy, words};

/// Connections that wait where HAProxy has no bound.
const QUEUE: u64 = 10_000;
const MINUTE: Duration = Duration::from_secs(60);

/// What an expression takes of a connection.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Key {
    ClientId,
    Username,
    Source,
}

/// Translates a backend. `port` is the one that devices connect to, if there is only one: servers without a port of their own
/// have it.
///
/// # Errors
/// HAProxy would refuse it.
pub(super) fn translate(proxy: &Proxy<'_>, port: Option<u16>) -> Result<Upstream, ImportError> {
    let mut upstream = Upstream::new(proxy.place.clone(), proxy.name.clone());
    upstream.notes.extend(proxy.own().filter_map(words::of_proxy).filter(|_| proxy.kind == "backend"));
    balance(proxy, &mut upstream)?;
    stick(proxy, &mut upstream)?;
    let mut settings = Settings::default();
    let mut default = Vec::new();
    for line in &proxy.lines {
        if line.is("default-server") {
            default.extend_from_slice(line.rest(1));
        } else if line.is("server") || line.is("server-template") {
            server(line, &default, port, &mut settings, &mut upstream)?;
        }
    }
    proxy_header(&settings, &mut upstream);
    if settings.backups > 1 && proxy.last(&["option", "allbackups"]).is_none() {
        let why = "HAProxy uses one backup at a time here, Tidegate all of them alike";
        upstream.notes.push(note(&proxy.place, format!("backups of {}", proxy.name), Effect::Differs, why));
    }
    upstream.connect_timeout = Some(match proxy.timeout("connect")? {
        Some(time) => Said::written(time),
        None => Said::because(MINUTE, "HAProxy waits as long as the system does"),
    });
    if upstream.servers.iter().any(|server| server.max_conns.is_some()) {
        upstream.queue = Some(match settings.queue {
            Some(most) => Said::written(most),
            None => Said::because(QUEUE, "HAProxy's queue has no bound"),
        });
        let wait = proxy.timeout("queue")?.map(Said::written);
        let connect = proxy.timeout("connect")?.unwrap_or(MINUTE);
        upstream.queue_timeout = Some(wait.unwrap_or_else(|| Said::because(connect, "as timeout connect")));
        if upstream.hashes() || upstream.pins.is_some() {
            let why = "HAProxy lets a device wait for the server it belongs to; here the next one that has room takes it, \
                       and it waits when there is none";
            upstream.notes.push(note(
                &proxy.place,
                format!("maxconn of servers of {}", proxy.name),
                Effect::Differs,
                why,
            ));
        }
    }
    tries(proxy, &mut upstream)?;
    sources(proxy, &mut upstream);
    Ok(upstream)
}

/// What all servers of an upstream have to say together.
#[derive(Default)]
struct Settings {
    /// The PROXY header of each, with its line.
    headers: Vec<(super::super::Place, Option<&'static str>)>,
    backups: usize,
    /// The sum of `maxqueue`.
    queue: Option<u64>,
}

fn balance(proxy: &Proxy<'_>, upstream: &mut Upstream) -> Result<(), ImportError> {
    let Some(line) = proxy.last(&["balance"]) else { return Ok(()) };
    let mut add = |effect, why: &str| upstream.notes.push(note(&line.place, line.text(), effect, why));
    let word = line.word(1)?;
    let (name, argument) = word.split_once('(').unwrap_or((word, ""));
    let expression = line.rest(2).concat();
    let once = "each keeps a server of its own, and most get another one than with HAProxy, once";
    let balance = match name {
        "roundrobin" | "static-rr" => "round_robin",
        "leastconn" => "least_connections",
        "random" if argument.trim_end_matches(')') == "1" => "random",
        "random" => "random_two",
        "source" => {
            add(Effect::Differs, &format!("HAProxy hashes addresses in its own way: {once}"));
            "source_ip"
        }
        "hash" => match key(&expression) {
            Some(key) => {
                add(Effect::Differs, &format!("HAProxy hashes in its own way: {once}"));
                match key {
                    Key::ClientId => "client_id",
                    Key::Username => "username",
                    Key::Source => "source_ip",
                }
            }
            None => {
                add(
                    Effect::Differs,
                    &format!(
                        "the key can be the client id, the user name or the address; the client id is taken: {once}"
                    ),
                );
                "client_id"
            }
        },
        "first" => {
            add(
                Effect::Differs,
                "servers are not filled one after the other; the one with the fewest connections is taken",
            );
            "least_connections"
        }
        "rdp-cookie" | "uri" | "url_param" | "hdr" => {
            add(Effect::Differs, "it is no way to choose for MQTT; each server has its turn");
            "round_robin"
        }
        _ => return Err(line.refuse(word)),
    };
    upstream.balance = Said::written(balance);
    let consistent = proxy.last(&["hash-type"]);
    if let (Some(line), true) = (consistent, upstream.hashes()) {
        let why = "the hash is always consistent: a server that goes moves its own devices and no other";
        let effect = if line.words.get(1).is_some_and(|kind| kind == "consistent") {
            Effect::Same
        } else {
            Effect::Differs
        };
        upstream.notes.push(note(&line.place, line.text(), effect, why));
    }
    if let Some(line) = proxy.last(&["hash-balance-factor"]) {
        let text = line.word(1)?;
        let percent: u64 = text.parse().map_err(|_| line.refuse(text))?;
        upstream.hash_balance_factor = (percent > 0).then(|| Said::written(percent));
    }
    Ok(())
}

/// What an expression takes, whatever its spaces.
fn key(expression: &str) -> Option<Key> {
    let text: String = expression.chars().filter(|c| !c.is_whitespace() && *c != '\'' && *c != '"').collect();
    if text.contains("mqtt_field_value(connect,client_identifier)") {
        Some(Key::ClientId)
    } else if text.contains("mqtt_field_value(connect,username)") {
        Some(Key::Username)
    } else if text == "src" || text.starts_with("src,") {
        Some(Key::Source)
    } else {
        None
    }
}

/// `stick`: a table of where each key was sent.
fn stick(proxy: &Proxy<'_>, upstream: &mut Upstream) -> Result<(), ImportError> {
    let is_rule = |line: &&&Line| line.is("stick");
    for line in proxy.lines.iter().filter(is_rule) {
        let expression: String =
            line.rest(2).iter().take_while(|word| *word != "table" && *word != "if").cloned().collect();
        let mut add = |effect, why: &str| upstream.notes.push(note(&line.place, line.text(), effect, why));
        match key(&expression) {
            _ if line.words.get(1).is_some_and(|word| word == "store-response") => {
                add(Effect::LeftOut, "what servers answer is not looked at");
            }
            Some(Key::ClientId) if matches!(upstream.balance.value, "source_ip" | "username") => {
                add(Effect::Differs, "the client id decides, by its hash, and not what is balanced by");
                upstream.balance = Said::because("client_id", "stick on the client id");
            }
            Some(Key::ClientId) if upstream.balance.value != "client_id" => {
                upstream.pins =
                    Some(Said::because("all", "as the stick table: once chosen, the server stays"));
                add(
                    Effect::Differs,
                    "a pin does not expire; when there is no room the one that was unused longest goes",
                );
            }
            Some(Key::ClientId) => add(Effect::Same, "the hash of the client id keeps a device where it is"),
            Some(Key::Username) => {
                upstream.balance = Said::because("username", "stick on the user name");
                add(Effect::Differs, "the hash of the user name keeps its clients together, without a table");
            }
            Some(Key::Source) => {
                upstream.balance = Said::because("source_ip", "stick on src");
                add(Effect::Differs, "the hash of the address keeps its devices together, without a table");
            }
            None => add(Effect::LeftOut, "stickiness can be by client id, user name or address"),
        }
    }
    let Some(line) = proxy.last(&["stick-table"]) else { return Ok(()) };
    let size = line.words.iter().skip_while(|word| *word != "size").nth(1);
    if let (Some(text), true) = (size, upstream.pins.is_some()) {
        upstream.max_pins = Some(Said::written(values::size(text).ok_or_else(|| line.refuse(text))?));
    }
    let (effect, why) = if upstream.pins.is_some() && line.words.iter().any(|word| word == "peers") {
        (
            Effect::LeftOut,
            "pins are not told to other gateways; balance = \"client_id\" gives all of them one answer",
        )
    } else {
        (Effect::Same, "pins and hashes stand for it")
    };
    upstream.notes.push(note(&line.place, line.text(), effect, why));
    Ok(())
}

/// The parameters of a server, with those of `default-server` before them.
fn server(
    line: &Line,
    default: &[String],
    port: Option<u16>,
    settings: &mut Settings,
    upstream: &mut Upstream,
) -> Result<(), ImportError> {
    let template = line.is("server-template");
    let (name, text) = (line.word(1)?, line.word(if template { 3 } else { 2 })?);
    let mut add = |what: &str, effect, why: &str| upstream.notes.push(note(&line.place, what, effect, why));
    let Some(address) = address(text, port) else {
        add(&line.text(), Effect::LeftOut, "only servers with an address or a name and a port are connected");
        return Ok(());
    };
    if template {
        add(&line.text(), Effect::Differs, "the name is one server here, looked up every ten seconds");
    }
    let mut server = Server::new(line.place.clone(), address);
    server.name = Some(name.to_owned());
    let own = line.rest(if template { 4 } else { 3 });
    let read = parameters(line, default.iter().chain(own), &mut server, &mut upstream.notes)?;
    if read.tls {
        upstream.notes.push(note(
            &line.place,
            line.text(),
            Effect::LeftOut,
            "TLS to servers is not in this version",
        ));
        return Ok(());
    }
    server.max_fails = match (read.checked, read.observed) {
        (true, None) => None,
        (true, Some(limit)) => Some(Said::written(limit)),
        (false, _) => Some(Said::because(0, "without check HAProxy takes no server out")),
    };
    settings.backups += usize::from(server.backup);
    settings.headers.push((line.place.clone(), read.header));
    settings.queue = match (settings.queue, read.queue) {
        (sum, Some(most)) => Some(sum.unwrap_or(0).saturating_add(most)),
        (sum, None) => sum,
    };
    upstream.servers.push(server);
    Ok(())
}

/// What of a server's parameters is not the server's alone.
#[derive(Default)]
struct Parameters {
    tls: bool,
    checked: bool,
    /// `observe layer4` with its `error-limit`.
    observed: Option<u64>,
    header: Option<&'static str>,
    queue: Option<u64>,
}

fn parameters<'w>(
    line: &Line,
    mut words: impl Iterator<Item = &'w String>,
    server: &mut Server,
    notes: &mut Vec<Note>,
) -> Result<Parameters, ImportError> {
    let mut read = Parameters::default();
    let mut limit = 10;
    while let Some(word) = words.next() {
        let needs = || syntax(&line.place, format!("\"{word}\" needs an argument"));
        let mut argument = || words.next().ok_or_else(needs);
        let number = |text: &String| text.parse::<u64>().map_err(|_| line.refuse(text));
        match word.as_str() {
            "weight" => {
                let weight = number(argument()?)?;
                // a weight of 0 takes no new devices
                server.down |= weight == 0;
                server.weight = weight.max(1);
            }
            "maxconn" => server.max_conns = Some(number(argument()?)?).filter(|n| *n > 0).map(Said::written),
            "maxqueue" => read.queue = Some(number(argument()?)?).filter(|n| *n > 0),
            "slowstart" => {
                let text = argument()?;
                server.slow_start = Some(Said::written(values::time(text).ok_or_else(|| line.refuse(text))?));
            }
            "backup" => server.backup = true,
            "no-backup" => server.backup = false,
            "disabled" => server.down = true,
            "enabled" => server.down = false,
            "send-proxy" => read.header = Some("v1"),
            "send-proxy-v2" | "send-proxy-v2-ssl" | "send-proxy-v2-ssl-cn" => read.header = Some("v2"),
            "no-send-proxy" | "no-send-proxy-v2" => read.header = None,
            "ssl" => read.tls = true,
            "no-ssl" => read.tls = false,
            "observe" => {
                if argument()? == "layer4" {
                    read.observed = Some(limit);
                }
            }
            "error-limit" => {
                limit = number(argument()?)?;
                read.observed = read.observed.map(|_| limit);
            }
            "source" => {
                let text = argument()?;
                let why = "source addresses are those of the whole upstream";
                notes.push(note(&line.place, format!("source {text}"), Effect::LeftOut, why));
            }
            other => {
                let (effect, why, arguments) = words::of_server(other).ok_or_else(|| {
                    syntax(&line.place, format!("\"{other}\" is no parameter of a server known here"))
                })?;
                read.checked |= other == "check";
                read.checked &= other != "no-check";
                for _ in 0..arguments {
                    argument()?;
                }
                notes.push(note(&line.place, format!("server ... {other}"), effect, why));
            }
        }
    }
    Ok(read)
}

/// `host:port` as we write it.
fn address(text: &str, port: Option<u16>) -> Option<String> {
    let address = values::address(text)?;
    let port = match address.ports {
        "" => port?,
        // "+1000" is relative to the port that devices connect to
        text if text.starts_with('+') => port?.checked_add(text.get(1..)?.parse().ok()?)?,
        text if text.starts_with('-') => port?.checked_sub(text.get(1..)?.parse().ok()?)?,
        text => text.parse().ok().filter(|port| *port > 0)?,
    };
    let is_label = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    match address.host? {
        Host::Ip(ip) => Some(SocketAddr::new(ip, port).to_string()),
        Host::Name(name) if name.len() <= 253 && name.bytes().all(is_label) => Some(format!("{name}:{port}")),
        Host::Name(_) => None,
    }
}

/// The header is the upstream's: that of most servers; the others are named.
fn proxy_header(settings: &Settings, upstream: &mut Upstream) {
    let count = |header| settings.headers.iter().filter(|(_, other)| *other == header).count();
    let most = [None, Some("v1"), Some("v2")].into_iter().max_by_key(|header| count(*header)).flatten();
    for (place, header) in &settings.headers {
        if *header != most {
            let name = |header: Option<&str>| header.unwrap_or("none").to_owned();
            let why = format!(
                "all servers of an upstream get the same PROXY header: here {}, and this one wants {}; in an \
                 upstream of its own it gets that",
                name(most),
                name(*header)
            );
            upstream.notes.push(note(place, "server ... send-proxy", Effect::Differs, why));
        }
    }
    upstream.proxy_protocol = most.map(Said::written);
}

/// HAProxy tries again with the same server, and with another one when told to.
fn tries(proxy: &Proxy<'_>, upstream: &mut Upstream) -> Result<(), ImportError> {
    let retries = match proxy.last(&["retries"]) {
        Some(line) => {
            let text = line.word(1)?;
            text.parse::<u64>().map_err(|_| line.refuse(text))?
        }
        None => 3,
    };
    upstream.tries = Some(match proxy.last(&["option", "redispatch"]) {
        None => Said::because(
            Some(1),
            "without option redispatch a connection stays with the server it was given",
        ),
        Some(line) => {
            let every: i64 =
                line.words.get(2).map_or(Ok(-1), |text| text.parse().map_err(|_| line.refuse(text)))?;
            let others = match u64::try_from(every) {
                Ok(every) if every > 0 => retries / every,
                // counted from the last one
                _ => retries.min(1),
            };
            Said::because(
                Some(others.saturating_add(1)),
                "retries with option redispatch: each try is of another server",
            )
        }
    });
    Ok(())
}

fn sources(proxy: &Proxy<'_>, upstream: &mut Upstream) {
    let Some(line) = proxy.last(&["source"]) else { return };
    let host = line.words.get(1).and_then(|text| values::address(text)).and_then(|address| address.host);
    // an address of IPv6 alone has its last part taken for a port
    let whole = line.words.get(1).and_then(|text| text.parse::<IpAddr>().ok());
    match (whole, host) {
        (Some(ip), _) | (None, Some(Host::Ip(ip))) if line.words.len() == 2 => {
            upstream.source_addresses.push(ip);
        }
        _ => {
            let why = "source addresses are addresses of this machine; devices' own addresses go into the PROXY header";
            upstream.notes.push(note(&line.place, line.text(), Effect::LeftOut, why));
        }
    }
}
