//! The model as TOML, with its notes as comments where they belong.
//!
//! Must not know: where the model comes from.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::time::Duration;

use runtime::config::{duration_text, size_text};

use super::model::{Listener, Maybe, Model, Said, Server, Upstream};
use super::{Effect, Note, printable};

/// Prints `[gateway]`.
pub(super) fn toml(program: &str, file: &str, model: &Model) -> String {
    let mut out = Printer(String::new());
    out.comment(&format!("From {file}, by `tidegate import {program}`."));
    out.notes(&model.notes);
    out.0.push_str("\n[gateway]\n");
    for listener in &model.listeners {
        out.listener(listener, model);
    }
    for upstream in &model.upstreams {
        out.upstream(upstream);
    }
    out.0
}

struct Printer(String);

impl Printer {
    fn comment(&mut self, text: &str) {
        let _ = writeln!(self.0, "# {}", printable(text));
    }

    /// Those that matter first.
    fn notes(&mut self, notes: &[Note]) {
        for effect in [Effect::LeftOut, Effect::Differs, Effect::Same] {
            for note in notes.iter().filter(|note| note.effect == effect) {
                let _ = writeln!(self.0, "# {note}");
            }
        }
    }

    fn key(&mut self, key: &str, value: &str, why: &str) {
        if why.is_empty() {
            let _ = writeln!(self.0, "{key} = {value}");
        } else {
            let _ = writeln!(self.0, "{:<30}  # {}", format!("{key} = {value}"), printable(why));
        }
    }

    fn said<T>(&mut self, key: &str, said: &Maybe<T>, show: impl Fn(&T) -> String) {
        if let Some(Said { value, why }) = said {
            self.key(key, &show(value), why);
        }
    }

    fn listener(&mut self, listener: &Listener, model: &Model) {
        self.0.push('\n');
        self.comment(&listener.place.to_string());
        self.notes(&listener.notes);
        self.0.push_str("[[gateway.listeners]]\n");
        self.key("bind", &string(&listener.bind.to_string()), "");
        let upstream = model.upstreams.get(listener.upstream).map_or("", |upstream| &upstream.name);
        self.key("upstream", &string(upstream), "");
        if let Some(proxies) = &listener.proxies {
            self.key("proxy_protocol", "true", "");
            let list: Vec<_> = proxies.value.iter().map(|network| string(&network.to_string())).collect();
            self.key("trusted_proxies", &format!("[{}]", list.join(", ")), proxies.why);
        }
        if !listener.access.is_empty() {
            self.0.push_str("access = [\n");
            for (allowed, network) in &listener.access {
                let verb = if *allowed { "allow" } else { "deny" };
                let network = network.map_or("all".to_owned(), |network| network.to_string());
                let _ = writeln!(self.0, "  {{ {verb} = {} }},", string(&network));
            }
            self.0.push_str("]\n");
        }
        self.said("max_connections", &listener.max_connections, number);
        self.said("max_connections_per_address", &listener.max_connections_per_address, number);
        self.said("accept_rate", &listener.accept_rate, |rate| format!("\"{rate}/s\""));
        self.said("preread_timeout", &listener.preread_timeout, time);
        self.said("preread_size", &listener.preread_size, |size| string(&size_text(*size)));
        self.said("on_not_mqtt", &listener.on_not_mqtt, word);
        self.said("idle_timeout", &listener.idle_timeout, time);
        self.said("half_closed_timeout", &listener.half_closed_timeout, time);
    }

    fn upstream(&mut self, upstream: &Upstream) {
        self.0.push('\n');
        self.comment(&upstream.place.to_string());
        self.notes(&upstream.notes);
        self.0.push_str("[[gateway.upstreams]]\n");
        self.key("name", &string(&upstream.name), "");
        self.key("balance", &word(&upstream.balance.value), upstream.balance.why);
        self.said("hash", &upstream.hash, word);
        self.said("hash_balance_factor", &upstream.hash_balance_factor, |percent| {
            format!("{}.{:02}", percent / 100, percent % 100)
        });
        self.said("queue", &upstream.queue, number);
        self.said("queue_timeout", &upstream.queue_timeout, time);
        self.said("proxy_protocol", &upstream.proxy_protocol, word);
        if !upstream.source_addresses.is_empty() {
            let list: Vec<_> =
                upstream.source_addresses.iter().map(IpAddr::to_string).map(|text| string(&text)).collect();
            self.key("source_addresses", &format!("[{}]", list.join(", ")), "");
        }
        self.said("connect_timeout", &upstream.connect_timeout, time);
        if let Some(Said { value: Some(tries), why }) = &upstream.tries {
            self.key("tries", &tries.to_string(), why);
        }
        self.said("tries_timeout", &upstream.tries_timeout, time);
        self.said("pins", &upstream.pins, word);
        self.said("max_pins", &upstream.max_pins, number);
        self.0.push_str("servers = [\n");
        for server in &upstream.servers {
            self.server(server);
        }
        self.0.push_str("]\n");
    }

    fn server(&mut self, server: &Server) {
        let mut keys = Vec::new();
        let mut why = "";
        if let Some(name) = &server.name {
            keys.push(format!("name = {}", string(name)));
        }
        keys.push(format!("address = {}", string(&server.address)));
        if server.weight != 1 {
            keys.push(format!("weight = {}", server.weight));
        }
        let mut add = |key: &str, value: Option<String>, reason: &'static str| {
            if let Some(value) = value {
                keys.push(format!("{key} = {value}"));
                why = if why.is_empty() { reason } else { why };
            }
        };
        let why_of = |said: &Maybe<u64>| said.as_ref().map_or("", |said| said.why);
        let of = |said: &Maybe<u64>| said.as_ref().map(|said| number(&said.value));
        let time_of = |said: &Maybe<Duration>| said.as_ref().map(|said| time(&said.value));
        add("max_fails", of(&server.max_fails), why_of(&server.max_fails));
        add("fail_timeout", time_of(&server.fail_timeout), "");
        add("max_conns", of(&server.max_conns), why_of(&server.max_conns));
        add("slow_start", time_of(&server.slow_start), "");
        add("backup", server.backup.then(|| "true".to_owned()), "");
        add("down", server.down.then(|| "true".to_owned()), "");
        let _ = write!(self.0, "  {{ {} }},", keys.join(", "));
        self.0.push_str(&if why.is_empty() { "\n".to_owned() } else { format!("   # {}\n", printable(why)) });
    }
}

fn number(value: &u64) -> String {
    value.to_string()
}

fn time(value: &Duration) -> String {
    string(&duration_text(*value))
}

/// One of the configuration's own words.
fn word(value: &&'static str) -> String {
    string(value)
}

/// A basic string of TOML.
fn string(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for character in text.chars() {
        match character {
            '"' | '\\' => out.extend(['\\', character]),
            _ if character.is_control() => {
                let _ = write!(out, "\\U{:08X}", u32::from(character));
            }
            _ => out.push(character),
        }
    }
    out.push('"');
    out
}
