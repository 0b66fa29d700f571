//! `frontend`, and that half of `listen`: listeners, and which backend they lead to.
//!
//! Must not know: servers.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use super::super::model::{Listener, Maybe, Model, Said, Upstream, note};
use super::super::{Effect, ImportError, Note, syntax};
use super::parse::Line;
use super::rules::{self, Rules};
use super::{Proxy, backend, values, words};

/// Most listeners of one section.
const MAX_PORTS: usize = 256;
/// What becomes of those above `maxconn`.
const ABOVE: &str = "HAProxy lets those above it wait to be accepted; here they are closed at once";

/// Translates a frontend, and its backend if no other has led to it before.
///
/// # Errors
/// HAProxy would refuse it.
pub(super) fn translate(
    proxy: &Proxy<'_>,
    proxies: &[Proxy<'_>],
    max_connections: Option<u64>,
    made: &mut HashMap<String, usize>,
    model: &mut Model,
) -> Result<(), ImportError> {
    let mut notes: Vec<_> = proxy.own().filter_map(words::of_proxy).collect();
    let mut binds = Vec::new();
    for line in proxy.lines.iter().filter(|line| line.is("bind")) {
        bind(line, &mut binds, &mut notes)?;
    }
    let backend = if proxy.kind == "listen" { Some(proxy) } else { choose(proxy, proxies, &mut notes)? };
    let (Some(backend), false) = (backend, binds.is_empty()) else {
        if binds.is_empty() {
            notes.push(note(
                &proxy.place,
                format!("{} {}", proxy.kind, proxy.name),
                Effect::LeftOut,
                "no bind is left",
            ));
        }
        model.notes.append(&mut notes);
        return Ok(());
    };
    let port = match &*binds {
        [one] => Some(one.address.port()),
        _ => None,
    };
    let upstream = match made.get(&backend.name) {
        Some(index) => *index,
        None => {
            let index = model.upstreams.len();
            model.upstreams.push(backend::translate(backend, port)?);
            made.insert(backend.name.clone(), index);
            index
        }
    };
    let Rules { access, before_header, per_address, expect_proxy, inspect, mqtt_only, notes: mut more } =
        rules::read(proxy)?;
    notes.append(&mut more);
    let rule = model.upstreams.get(upstream).map_or("round_robin", Upstream::rule_without_key);
    let idle = idle(proxy, backend)?;
    let half = half_closed(proxy, backend)?;
    let mut add = |what: &str, effect, why: &str| notes.push(note(&proxy.place, what, effect, why));
    if before_header && !access.is_empty() && binds.iter().any(|bind| bind.accept_proxy) {
        let why = "HAProxy asks for the balancer's address there; here it is the device's, which is in the PROXY header";
        add("tcp-request connection", Effect::Differs, why);
    }
    let (most, rate) = (bound(proxy, max_connections, &mut notes)?, rate(proxy, &mut notes)?);
    for bind in binds {
        let mut listener = Listener::new(bind.place, bind.address, upstream);
        listener.proxies = proxies_of(bind.accept_proxy, expect_proxy.clone());
        listener.access.clone_from(&access);
        listener.max_connections = bind.max_connections.or_else(|| most.clone());
        listener.max_connections_per_address.clone_from(&per_address);
        listener.accept_rate.clone_from(&rate);
        listener.preread_timeout.clone_from(&inspect);
        listener.idle_timeout.clone_from(&idle);
        listener.half_closed_timeout.clone_from(&half);
        listener.on_not_mqtt = Some(if mqtt_only {
            Said::written("reject")
        } else {
            Said::because(rule, "HAProxy passes on what is not MQTT, too")
        });
        listener.notes.append(&mut notes);
        model.listeners.push(listener);
    }
    Ok(())
}

fn proxies_of(
    accept_proxy: bool,
    expected: Option<Vec<runtime::config::IpNet>>,
) -> Maybe<Vec<runtime::config::IpNet>> {
    match (accept_proxy, expected) {
        (true, _) => {
            Some(Said::because(rules::everyone(), "everyone, as in HAProxy: better name your balancers"))
        }
        (false, Some(networks)) => Some(Said::written(networks)),
        (false, None) => None,
    }
}

/// The backend that a frontend leads to.
fn choose<'a, 'b>(
    proxy: &Proxy<'a>,
    proxies: &'b [Proxy<'a>],
    notes: &mut Vec<Note>,
) -> Result<Option<&'b Proxy<'a>>, ImportError> {
    let mut chosen = None;
    for line in proxy.lines.iter().filter(|line| line.is("use_backend")) {
        if line.words.len() == 2 && chosen.is_none() {
            chosen = Some(*line);
        } else {
            let why = "a listener leads to one upstream, whatever the condition";
            notes.push(note(&line.place, line.text(), Effect::LeftOut, why));
        }
    }
    let line = chosen.or_else(|| proxy.last(&["default_backend"]));
    let Some(line) = line else {
        let why = "it leads to no backend";
        notes.push(note(&proxy.place, format!("frontend {}", proxy.name), Effect::LeftOut, why));
        return Ok(None);
    };
    let name = line.word(1)?;
    let found = proxies.iter().find(|other| other.name == name && other.kind != "frontend");
    if found.is_none() {
        let why = "there is no such backend in TCP mode";
        notes.push(note(&line.place, line.text(), Effect::LeftOut, why));
    }
    Ok(found)
}

/// One address of `bind`.
struct Bind {
    place: super::super::Place,
    address: SocketAddr,
    accept_proxy: bool,
    max_connections: Maybe<u64>,
}

fn bind(line: &Line, binds: &mut Vec<Bind>, notes: &mut Vec<Note>) -> Result<(), ImportError> {
    let (mut accept_proxy, mut out, mut both) = (false, None, false);
    let mut max_connections = None;
    let mut words = line.rest(2).iter();
    while let Some(word) = words.next() {
        match word.as_str() {
            "accept-proxy" => accept_proxy = true,
            "ssl" => out = Some("TLS is not in this version, so this listener is left out"),
            "v4v6" => both = true,
            "v6only" => {}
            "maxconn" => {
                let text = words.next().ok_or_else(|| line.refuse(""))?;
                let most = text.parse().map_err(|_| line.refuse(text))?;
                max_connections = Some(Said::written(most)).filter(|most| most.value > 0);
                notes.push(note(&line.place, format!("bind ... maxconn {text}"), Effect::Differs, ABOVE));
            }
            // TLS's own parameters say nothing more once `ssl` is named
            _ if out.is_some() => {}
            _ => {
                let (effect, why, arguments) = words::of_bind(word).ok_or_else(|| {
                    syntax(&line.place, format!("\"{word}\" is no parameter of bind known here"))
                })?;
                for _ in 0..arguments {
                    words.next();
                }
                notes.push(note(&line.place, format!("bind ... {word}"), effect, why));
            }
        }
    }
    // without `ssl` files of certificates would be refused by HAProxy as well
    let mut out = out.map(str::to_owned);
    if out.is_none() {
        for part in line.word(1)?.split(',') {
            match values::listen(part, MAX_PORTS) {
                Ok(addresses) if binds.len() + addresses.len() <= MAX_PORTS => {
                    for address in addresses {
                        let any = SocketAddr::from(([0, 0, 0, 0], address.port()));
                        let also = both && address.is_ipv6() && address.ip().is_unspecified();
                        for address in std::iter::once(address).chain(also.then_some(any)) {
                            let (place, max_connections) = (line.place.clone(), max_connections.clone());
                            binds.push(Bind { place, address, accept_proxy, max_connections });
                        }
                    }
                }
                Ok(_) => out = Some(format!("more than {MAX_PORTS} listeners of one section")),
                Err(why) => out = Some(why.to_owned()),
            }
        }
    }
    if let Some(why) = out {
        notes.push(note(&line.place, line.text(), Effect::LeftOut, why));
    }
    if accept_proxy && !binds.is_empty() {
        let why =
            "HAProxy believes a PROXY header of everyone; so does this listener: write down who may send one";
        notes.push(note(&line.place, "bind ... accept-proxy", Effect::Same, why));
    }
    Ok(())
}

/// `timeout tunnel`, or the shorter of those of the two sides.
fn idle(proxy: &Proxy<'_>, backend: &Proxy<'_>) -> Result<Maybe<Duration>, ImportError> {
    if let Some(tunnel) = backend.timeout("tunnel")?.or(proxy.timeout("tunnel")?) {
        return Ok(not_zero(tunnel, "timeout tunnel"));
    }
    let sides = [proxy.timeout("client")?, backend.timeout("server")?];
    let least = sides.into_iter().flatten().filter(|time| !time.is_zero()).min();
    Ok(least.map(|time| Said::because(time, "the shorter of timeout client and timeout server")))
}

fn half_closed(proxy: &Proxy<'_>, backend: &Proxy<'_>) -> Result<Maybe<Duration>, ImportError> {
    let sides = [proxy.timeout("client-fin")?, backend.timeout("server-fin")?];
    Ok(sides.into_iter().flatten().max().and_then(|time| not_zero(time, "timeout client-fin, server-fin")))
}

fn not_zero(time: Duration, why: &'static str) -> Maybe<Duration> {
    (!time.is_zero()).then(|| Said::because(time, why))
}

/// Connections at a time.
fn bound(proxy: &Proxy<'_>, global: Option<u64>, notes: &mut Vec<Note>) -> Result<Maybe<u64>, ImportError> {
    if let Some(line) = proxy.last(&["maxconn"]) {
        let text = line.word(1)?;
        let most = text.parse().map_err(|_| line.refuse(text))?;
        // 0: that of global
        if most > 0 {
            notes.push(note(&line.place, line.text(), Effect::Differs, ABOVE));
            return Ok(Some(Said::written(most)));
        }
    }
    let Some(most) = global.filter(|most| *most > 0) else { return Ok(None) };
    notes.push(note(&proxy.place, "maxconn of global", Effect::Differs, ABOVE));
    Ok(Some(Said::because(most, "maxconn of global")))
}

fn rate(proxy: &Proxy<'_>, notes: &mut Vec<Note>) -> Result<Maybe<u64>, ImportError> {
    let Some(line) = proxy.last(&["rate-limit", "sessions"]) else { return Ok(None) };
    let text = line.word(2)?;
    let rate: u64 = text.parse().map_err(|_| line.refuse(text))?;
    if rate == 0 {
        return Ok(None);
    }
    let why = "HAProxy accepts those above it later; here their CONNECT is refused: connection rate exceeded";
    notes.push(note(&line.place, line.text(), Effect::Differs, why));
    Ok(Some(Said::written(rate)))
}
