//! `server { ... }`: listeners, and how they reach their upstream.
//!
//! What nginx says for a `server` and we say for an upstream (PROXY header, time-outs, tries, source addresses) goes to the
//! upstream; where two servers say different things of the same one, it becomes two. Must not know: TOML.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use runtime::config::IpNet;

use super::super::model::{Listener, Maybe, Model, Said, Upstream, note};
use super::super::{Effect, ImportError, Note, Place, syntax};
use super::parse::Directive;
use super::upstream::{self, Key, Read};
use super::values::{self, Listen, MAX_PORTS};
use super::{Stream, words};

const NGINX: &str = "nginx's default";
const SECOND: Duration = Duration::from_secs(1);

/// Directives that are carried over; each is read where it belongs.
const CARRIED: &[&str] = &[
    "server",
    "upstream",
    "listen",
    "proxy_pass",
    "proxy_protocol",
    "proxy_connect_timeout",
    "proxy_timeout",
    "proxy_next_upstream",
    "proxy_next_upstream_tries",
    "proxy_next_upstream_timeout",
    "proxy_bind",
    "proxy_half_close",
    "proxy_ssl",
    "preread_timeout",
    "preread_buffer_size",
    "set_real_ip_from",
    "allow",
    "deny",
    "limit_conn",
    "limit_conn_zone",
    "mqtt_preread",
    "include",
];

/// Translates every server of the stream.
///
/// # Errors
/// nginx would refuse it.
pub(super) fn translate<'a>(stream: &Stream<'a>, model: &mut Model) -> Result<(), ImportError> {
    for directive in stream.directives.iter().filter(|directive| !CARRIED.contains(&directive.name())) {
        model.notes.push(unknown(directive, stream)?);
    }
    let mut builder = Builder {
        stream,
        model,
        variants: Vec::new(),
        used: HashSet::new(),
        zones: HashMap::new(),
        bound: HashMap::new(),
    };
    for directive in &stream.directives {
        if directive.name() == "server" {
            builder.server(directive)?;
        }
    }
    for directive in &stream.directives {
        if directive.name() == "upstream" && !builder.used.contains(directive.argument(1)?) {
            // what nginx would refuse in it is refused here, too
            upstream::translate(directive, stream)?;
            let why = "no server { } passes connections to it";
            builder.model.notes.push(note(&directive.place, directive.text(), Effect::Same, why));
        }
    }
    Ok(())
}

/// What is said of a directive that is not carried over.
///
/// # Errors
/// No module of nginx knows it.
fn unknown(directive: &Directive, stream: &Stream<'_>) -> Result<Note, ImportError> {
    let name = directive.name();
    let known = words::of_stream(name, stream.tls, stream.proxy_tls);
    let known = known.or_else(|| words::of_other_modules(name));
    let (effect, why) = known.ok_or_else(|| directive.unknown(words::STREAM))?;
    Ok(note(&directive.place, directive.text(), effect, why))
}

struct Builder<'s, 'a, 'm> {
    stream: &'s Stream<'a>,
    model: &'m mut Model,
    /// Indices of upstreams that were made, with what they were made from.
    variants: Vec<(String, usize)>,
    used: HashSet<String>,
    /// The server that was the first to count in a zone of `limit_conn`.
    zones: HashMap<String, Place>,
    /// Addresses that are listened on: the place of their server, and whether that has a name.
    bound: HashMap<SocketAddr, (Place, bool)>,
}

impl<'a> Builder<'_, 'a, '_> {
    fn server(&mut self, server: &'a Directive) -> Result<(), ImportError> {
        let mut notes = Vec::new();
        for directive in server.block.iter().flatten() {
            if !CARRIED.contains(&directive.name()) {
                notes.push(unknown(directive, self.stream)?);
            }
        }
        let binds = self.binds(server, &mut notes)?;
        self.once(server, &binds)?;
        let proxied = binds.iter().any(|bind| bind.proxy_protocol);
        let target = self.target(server, &mut notes)?;
        let (Some(read), false) = (target, binds.is_empty()) else {
            self.model.notes.append(&mut notes);
            return Ok(());
        };
        let upstream = self.upstream(server, read, proxied, &mut notes)?;
        let access = self.access(server, &mut notes)?;
        let per_address = self.limit_conn(server, proxied, &mut notes)?;
        let rule = self.model.upstreams.get(upstream).map_or("round_robin", Upstream::rule_without_key);
        for bind in binds {
            let mut listener = Listener::new(bind.place.clone(), bind.address, upstream);
            self.proxies(server, &bind, &mut listener)?;
            listener.access.clone_from(&access);
            listener.max_connections_per_address.clone_from(&per_address);
            listener.preread_timeout = Some(self.time(server, "preread_timeout", SECOND * 30)?);
            listener.preread_size = self.preread_size(server)?;
            listener.idle_timeout = Some(self.time(server, "proxy_timeout", SECOND * 600)?);
            let half =
                self.stream.effective(server, "proxy_half_close").is_some_and(|d| d.is(d.name(), "on"));
            listener.half_closed_timeout = Some(if half {
                Said::because(SECOND * 600, "proxy_half_close on")
            } else {
                Said::because(SECOND, "nginx closes both sides when one of them closes")
            });
            listener.on_not_mqtt = Some(Said::because(rule, "nginx passes on what is not MQTT, too"));
            // all listeners of a block have its notes; they stand in the file once
            listener.notes.append(&mut notes);
            self.model.listeners.push(listener);
        }
        Ok(())
    }

    fn time(
        &self,
        server: &'a Directive,
        name: &str,
        default: Duration,
    ) -> Result<Said<Duration>, ImportError> {
        let Some(directive) = self.stream.effective(server, name) else {
            return Ok(Said::because(default, NGINX));
        };
        let text = directive.argument(1)?;
        Ok(Said::written(values::time(text).ok_or_else(|| directive.refuse(text))?))
    }

    /// nginx's default is ours.
    fn preread_size(&self, server: &'a Directive) -> Result<Maybe<u64>, ImportError> {
        let Some(directive) = self.stream.effective(server, "preread_buffer_size") else { return Ok(None) };
        let text = directive.argument(1)?;
        Ok(Some(Said::written(values::size(text).ok_or_else(|| directive.refuse(text))?)))
    }

    /// Where it listens.
    fn binds(&self, server: &'a Directive, notes: &mut Vec<Note>) -> Result<Vec<Bind>, ImportError> {
        let mut binds: Vec<Bind> = Vec::new();
        let mut any = false;
        for directive in server.block.iter().flatten().filter(|directive| directive.name() == "listen") {
            any = true;
            let found = bind(directive, notes)?;
            if binds.len() + found.len() > MAX_PORTS {
                let why = format!("more than {MAX_PORTS} listeners of one server {{ }}");
                notes.push(note(&directive.place, directive.text(), Effect::LeftOut, why));
            } else {
                binds.extend(found);
            }
        }
        if !any {
            return Err(syntax(&server.place, "no \"listen\" is defined for server"));
        }
        Ok(binds)
    }

    /// An address is listened on once. Since 1.25.5 servers of one address may differ in their names; without names
    /// the second would never be reached.
    fn once(&mut self, server: &'a Directive, binds: &[Bind]) -> Result<(), ImportError> {
        let named = server.block.iter().flatten().any(|directive| directive.name() == "server_name");
        for bind in binds.iter().filter(|bind| !bind.implied) {
            let here = (server.place.clone(), named);
            let Some((place, other_named)) = self.bound.insert(bind.address, here) else { continue };
            if place == server.place || !(named || other_named) {
                let why = format!("duplicate \"{}\" address and port pair", bind.address);
                return Err(syntax(&bind.place, why));
            }
        }
        Ok(())
    }

    /// What `proxy_pass` names.
    fn target(&mut self, server: &'a Directive, notes: &mut Vec<Note>) -> Result<Option<Read>, ImportError> {
        let inner = server.block.iter().flatten();
        let Some(directive) = inner.clone().find(|directive| directive.name() == "proxy_pass") else {
            let else_where = |d: &&Directive| matches!(d.name(), "return" | "pass" | "js_access");
            let why = match inner.clone().find(else_where) {
                Some(other) => format!("it does not pass connections to a server, but has {}", other.name()),
                None => "it has no proxy_pass".to_owned(),
            };
            notes.push(note(&server.place, "server", Effect::LeftOut, why));
            return Ok(None);
        };
        let name = directive.argument(1)?;
        if name.contains('$') {
            let why = "the upstream depends on a variable; a listener leads to one upstream here";
            notes.push(note(&directive.place, directive.text(), Effect::LeftOut, why));
            return Ok(None);
        }
        if let Some(tls) = self.stream.effective(server, "proxy_ssl").filter(|d| d.is("proxy_ssl", "on")) {
            let why = "TLS to servers is not in this version, so this server { } is left out";
            notes.push(note(&tls.place, tls.text(), Effect::LeftOut, why));
            return Ok(None);
        }
        match self.stream.upstreams.get(name) {
            Some(block) => {
                self.used.insert(name.to_owned());
                Ok(Some(upstream::translate(block, self.stream)?))
            }
            None => Ok(Some(upstream::literal(directive, name)?)),
        }
    }

    /// The upstream with what this server says of it: one that is there already, or a new one.
    fn upstream(
        &mut self,
        server: &'a Directive,
        read: Read,
        proxied: bool,
        notes: &mut Vec<Note>,
    ) -> Result<usize, ImportError> {
        let Read { mut upstream, key, prereads } = read;
        let preread = self.stream.effective(server, "mqtt_preread").is_some_and(|d| d.is(d.name(), "on"));
        let nothing = match key {
            _ if prereads && !preread => {
                Some("mqtt_preread is not on, so nginx's key is empty and it takes turns")
            }
            Some(Key::ProxySource) if !proxied => {
                Some("no listen has proxy_protocol, so nginx's key is empty and it takes turns")
            }
            _ => None,
        };
        if let Some(why) = nothing {
            (upstream.balance, upstream.hash) = (Said::because("round_robin", why), None);
        }
        if key == Some(Key::Source)
            && proxied
            && self.stream.all_effective(server, "set_real_ip_from").is_empty()
        {
            let why = "nginx hashes the address of the balancer in front here (there is no set_real_ip_from); \
                       Tidegate hashes the device's address, which is in the PROXY header";
            notes.push(note(&upstream.place, format!("hash of {}", upstream.name), Effect::Differs, why));
        }
        if self.stream.effective(server, "proxy_protocol").is_some_and(|d| d.is(d.name(), "on")) {
            upstream.proxy_protocol = Some(Said::written("v1"));
        }
        upstream.connect_timeout = Some(self.time(server, "proxy_connect_timeout", SECOND * 60)?);
        self.tries(server, &mut upstream)?;
        self.sources(server, &mut upstream, notes)?;
        let base = upstream.name.clone();
        let same = self.variants.iter().find(|(name, index)| {
            *name == base && self.model.upstreams.get(*index).is_some_and(|other| alike(other, &upstream))
        });
        if let Some((_, index)) = same {
            return Ok(*index);
        }
        if self.variants.iter().any(|(name, _)| *name == base) {
            upstream.notes.clear();
            let why = "this server { } says other things of its upstream than those before: it gets one of its own, \
                       with connections and failures counted apart";
            upstream.notes.push(note(&server.place, format!("proxy_pass {base}"), Effect::Differs, why));
        }
        let index = self.model.upstreams.len();
        self.variants.push((base, index));
        self.model.upstreams.push(upstream);
        Ok(index)
    }

    fn tries(&self, server: &'a Directive, upstream: &mut Upstream) -> Result<(), ImportError> {
        let off = self.stream.effective(server, "proxy_next_upstream").is_some_and(|d| d.is(d.name(), "off"));
        if off {
            upstream.tries = Some(Said::because(Some(1), "proxy_next_upstream off"));
            return Ok(());
        }
        upstream.tries = Some(Said::because(None, "nginx tries every server once"));
        if let Some(directive) = self.stream.effective(server, "proxy_next_upstream_tries") {
            let text = directive.argument(1)?;
            let tries = values::number(text).ok_or_else(|| directive.refuse(text))?;
            if tries > 0 {
                upstream.tries = Some(Said::written(Some(tries)));
            }
        }
        let time = self.time(server, "proxy_next_upstream_timeout", Duration::ZERO)?;
        upstream.tries_timeout = (!time.value.is_zero()).then_some(time);
        Ok(())
    }

    fn sources(
        &self,
        server: &'a Directive,
        upstream: &mut Upstream,
        notes: &mut Vec<Note>,
    ) -> Result<(), ImportError> {
        let Some(directive) = self.stream.effective(server, "proxy_bind") else { return Ok(()) };
        let text = directive.argument(1)?;
        let mut out = |why: &str| notes.push(note(&directive.place, directive.text(), Effect::LeftOut, why));
        if directive.words.iter().any(|word| word == "transparent") {
            out(
                "connecting from the device's own address is not in this version; proxy_protocol tells it to servers",
            );
        } else if let Some(name) = text.strip_prefix('$') {
            // the known way to more than 28,000 connections to a server: split_clients over local addresses
            let split =
                self.stream.variables.get(name).filter(|directive| directive.name() == "split_clients");
            let addresses: Option<Vec<IpAddr>> = split.map(|directive| {
                let values = directive.block.iter().flatten().filter_map(|part| part.words.get(1));
                values.filter_map(|address| address.parse().ok()).collect()
            });
            match addresses.filter(|addresses| !addresses.is_empty()) {
                Some(addresses) => upstream.source_addresses = addresses,
                None => out("source addresses are a list here; this one depends on a variable"),
            }
        } else if text != "off" {
            let address =
                text.parse::<IpAddr>().or_else(|_| text.parse::<SocketAddr>().map(|address| address.ip()));
            upstream.source_addresses.push(address.map_err(|_| directive.refuse(text))?);
        }
        Ok(())
    }

    /// `allow` and `deny`, in their order.
    fn access(
        &self,
        server: &'a Directive,
        notes: &mut Vec<Note>,
    ) -> Result<Vec<(bool, Option<IpNet>)>, ImportError> {
        let is_rule = |directive: &&Directive| matches!(directive.name(), "allow" | "deny");
        let mut rules: Vec<_> = server.block.iter().flatten().filter(is_rule).collect();
        if rules.is_empty() {
            rules = self.stream.directives.iter().copied().filter(is_rule).collect();
        }
        let mut access = Vec::new();
        for directive in rules {
            let network = match directive.argument(1)? {
                "all" => None,
                "unix:" => {
                    let why = "there are no listeners on Unix sockets";
                    notes.push(note(&directive.place, directive.text(), Effect::Same, why));
                    continue;
                }
                text => {
                    let invalid = || syntax(&directive.place, format!("invalid parameter \"{text}\""));
                    Some(text.parse::<IpNet>().map_err(|_| invalid())?)
                }
            };
            access.push((directive.name() == "allow", network));
        }
        Ok(access)
    }

    /// Connections of one address, from all `limit_conn` whose key is the address.
    fn limit_conn(
        &mut self,
        server: &'a Directive,
        proxied: bool,
        notes: &mut Vec<Note>,
    ) -> Result<Maybe<u64>, ImportError> {
        let mut least = None;
        let dry = self.stream.effective(server, "limit_conn_dry_run").is_some_and(|d| d.is(d.name(), "on"));
        for directive in self.stream.all_effective(server, "limit_conn") {
            let (zone, text) = (directive.argument(1)?, directive.argument(2)?);
            let limit = values::number(text).filter(|n| *n > 0).ok_or_else(|| directive.refuse(text))?;
            let mut add =
                |effect, why: &str| notes.push(note(&directive.place, directive.text(), effect, why));
            let Some(key) = self.stream.zones.get(zone) else {
                return Err(syntax(&directive.place, format!("zero size shared memory zone \"{zone}\"")));
            };
            let key = key.trim_start_matches('$').trim_matches(['{', '}']);
            if dry {
                add(Effect::Same, "limit_conn_dry_run is on: nginx refuses nobody either");
            } else if matches!(key, "remote_addr" | "binary_remote_addr")
                || (proxied && key == "proxy_protocol_addr")
            {
                least = Some(least.map_or(limit, |other: u64| other.min(limit)));
                let first = self.zones.entry(zone.to_owned()).or_insert_with(|| server.place.clone());
                if *first != server.place {
                    add(
                        Effect::Differs,
                        "nginx counts for all servers of the zone together; here each listener counts",
                    );
                }
            } else {
                add(
                    Effect::LeftOut,
                    "connections are counted for each address and for each listener, by no other key",
                );
            }
        }
        Ok(least.map(Said::written))
    }

    /// Whether a PROXY header is expected, and whose is believed.
    fn proxies(
        &self,
        server: &'a Directive,
        bind: &Bind,
        listener: &mut Listener,
    ) -> Result<(), ImportError> {
        let from = self.stream.all_effective(server, "set_real_ip_from");
        if !bind.proxy_protocol {
            for directive in from {
                let why = "it means nothing without proxy_protocol at listen";
                listener.notes.push(note(&directive.place, directive.text(), Effect::Same, why));
            }
            return Ok(());
        }
        let mut networks = Vec::new();
        let mut any = false;
        for directive in from {
            any = true;
            let text = directive.argument(1)?;
            let why = match text.parse::<IpNet>() {
                Ok(network) => {
                    networks.push(network);
                    continue;
                }
                Err(_) if text == "unix:" => "there are no listeners on Unix sockets",
                Err(_) if text.contains('/') => return Err(directive.refuse(text)),
                Err(_) => "trusted proxies are networks and addresses here, not names",
            };
            let effect = if text == "unix:" { Effect::Same } else { Effect::LeftOut };
            listener.notes.push(note(&directive.place, directive.text(), effect, why));
        }
        let (why, said) = if any {
            let why = "nginx reads a PROXY header from everyone and believes it from these; Tidegate expects one from \
                       these only, and takes other connections without one";
            (why, Said::written(networks))
        } else {
            let why = "nginx expects a PROXY header from everyone and uses the address in it only where a variable asks \
                       for it; Tidegate takes it as the device's address: write down who may send one";
            let everyone = ["0.0.0.0/0", "::/0"].iter().filter_map(|text| text.parse().ok()).collect();
            (why, Said::because(everyone, "everyone, as in nginx: better name your balancers"))
        };
        listener.notes.push(note(&bind.place, "listen ... proxy_protocol", Effect::Differs, why));
        listener.proxies = Some(said);
        Ok(())
    }
}

/// One address of `listen`.
struct Bind {
    place: Place,
    address: SocketAddr,
    proxy_protocol: bool,
    /// It is not written: `ipv6only=off` takes IPv4 along.
    implied: bool,
}

fn bind(directive: &Directive, notes: &mut Vec<Note>) -> Result<Vec<Bind>, ImportError> {
    let text = directive.argument(1)?;
    let place = &directive.place;
    let parsed = values::listen(text).map_err(|problem| syntax(place, format!("{problem} in \"{text}\"")))?;
    let (mut proxy_protocol, mut dual, mut out) = (false, false, None);
    for parameter in directive.arguments().iter().skip(1) {
        match parameter.as_str() {
            "proxy_protocol" => proxy_protocol = true,
            "ssl" => out = Some("TLS is not in this version, so this listener is left out"),
            "udp" => out = Some("UDP is not passed on: MQTT over TCP only"),
            "quic" => out = Some("QUIC is not in this version"),
            "ipv6only=off" => dual = true,
            "ipv6only=on" => {}
            _ => match words::of_listen(parameter) {
                Some((effect, why)) => {
                    notes.push(note(place, format!("listen ... {parameter}"), effect, why));
                }
                None => return Err(syntax(place, format!("invalid parameter \"{parameter}\""))),
            },
        }
    }
    let addresses = match parsed {
        _ if out.is_some() => Vec::new(),
        Listen::Addresses(addresses) => addresses,
        Listen::Name => {
            out = Some("a listener is bound to an address, not to a name: write the address");
            Vec::new()
        }
        Listen::Unix => {
            out = Some("listeners on Unix sockets are not in this version");
            Vec::new()
        }
        Listen::TooMany => {
            out = Some("more than 256 ports");
            Vec::new()
        }
    };
    if let Some(why) = out {
        notes.push(note(place, directive.text(), Effect::LeftOut, why));
    }
    let both = |address: SocketAddr| {
        let v4 = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), address.port());
        let also = dual && address.is_ipv6() && address.ip().is_unspecified();
        std::iter::once((address, false)).chain(also.then_some((v4, true)))
    };
    let bound = addresses.into_iter().flat_map(both);
    Ok(bound
        .map(|(address, implied)| Bind { place: place.clone(), address, proxy_protocol, implied })
        .collect())
}

/// Whether two upstreams of the same block need not be told apart.
fn alike(a: &Upstream, b: &Upstream) -> bool {
    a.balance == b.balance
        && a.hash == b.hash
        && a.proxy_protocol == b.proxy_protocol
        && a.connect_timeout.as_ref().map(|said| said.value)
            == b.connect_timeout.as_ref().map(|said| said.value)
        && a.tries.as_ref().map(|said| said.value) == b.tries.as_ref().map(|said| said.value)
        && a.tries_timeout == b.tries_timeout
        && a.source_addresses == b.source_addresses
}
