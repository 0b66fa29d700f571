//! Keywords that are not carried over: what the service is without them, and why.
//!
//! Must not know: how the others are carried over ([`super::frontend`], [`super::backend`]).

use super::super::Effect::{self, Differs, LeftOut, Same};
use super::super::Note;
use super::super::model::note;
use super::parse::Line;

const HTTP: &str = "it means nothing in TCP mode";
const LOGGED: &str = "the end of every connection is logged; [log] says how";
const PROCESS: &str = "it is about HAProxy's own process";
const CHECKS: &str =
    "active checks are not in this version; max_fails takes a server out after connections that failed";
const MEASURED: &str = "every listener and server is counted; a section [admin] shows the numbers";
const SOCKET: &str = "the system's values are used for sockets";

/// Keywords of proxies that are carried over.
const CARRIED: &[&str] = &[
    "acl",
    "balance",
    "bind",
    "default-server",
    "default_backend",
    "disabled",
    "enabled",
    "hash-balance-factor",
    "hash-type",
    "maxconn",
    "mode",
    "no",
    "option",
    "rate-limit",
    "retries",
    "server",
    "server-template",
    "source",
    "stick",
    "stick-table",
    "tcp-request",
    "timeout",
    "use_backend",
];

/// What becomes of a section of another kind.
pub(super) fn of_section(kind: &str) -> (Effect, &'static str) {
    match kind {
        "peers" => {
            (Same, "where the hash decides, every gateway has the same answer, and there is nothing to tell")
        }
        "resolvers" => (Same, "the system looks names up, every ten seconds"),
        "userlist" | "http-errors" | "cache" | "fcgi-app" => (Same, HTTP),
        "ring" | "log-forward" | "log-profile" | "traces" => (Same, LOGGED),
        "mailers" => (LeftOut, "nobody is written to; events are in the log and in the API"),
        "crt-store" | "acme" => (LeftOut, "TLS is not in this version"),
        _ => (LeftOut, "programs are not started"),
    }
}

/// What becomes of a line of `global`.
pub(super) fn of_global(line: &Line) -> Option<Note> {
    let keyword = line.words.first().map_or("", String::as_str);
    let (effect, why) = match keyword {
        "log" | "log-tag" | "log-send-hostname" => (Same, LOGGED),
        "stats" => (Same, MEASURED),
        "lua-load" | "lua-load-per-thread" => (LeftOut, "scripts are not in this version"),
        "maxconnrate" | "maxsessrate" => (LeftOut, "a rate is bounded for each listener: accept_rate"),
        _ => (Same, PROCESS),
    };
    Some(note(&line.place, line.text(), effect, why))
}

/// What becomes of a line of a proxy or of its defaults. `None`: it is carried over.
pub(super) fn of_proxy(line: &Line) -> Option<Note> {
    let keyword = line.words.first().map_or("", String::as_str);
    let (effect, why) = match keyword {
        "option" => return option(line, 1),
        "no" if line.words.get(1).is_some_and(|word| word == "option") => return None,
        "timeout" => match line.words.get(1).map_or("", String::as_str) {
            "connect" | "client" | "server" | "queue" | "tunnel" | "client-fin" | "server-fin" => {
                return None;
            }
            "check" => (Same, "it is about checks, which are named with the servers"),
            _ => (Same, HTTP),
        },
        _ if CARRIED.contains(&keyword) => return None,
        "log" | "log-format" | "log-format-sd" | "log-tag" | "unique-id-format" | "error-log-format" => {
            (Same, LOGGED)
        }
        "description" | "id" | "bind-process" | "guid" => (Same, PROCESS),
        "stats" | "monitor" | "monitor-uri" | "monitor-fail" | "monitor-net" => (Same, MEASURED),
        "fullconn" => (Same, "max_conns of a server does not grow with the load"),
        "backlog" => (Same, SOCKET),
        "http-request"
        | "http-response"
        | "http-after-response"
        | "http-check"
        | "http-reuse"
        | "http-error"
        | "http-send-name-header"
        | "errorfile"
        | "errorfiles"
        | "errorloc"
        | "errorloc302"
        | "errorloc303"
        | "redirect"
        | "cookie"
        | "capture"
        | "compression"
        | "max-keep-alive-queue"
        | "retry-on"
        | "unique-id-header"
        | "rspadd"
        | "reqadd" => (Same, HTTP),
        "tcp-check" | "external-check" => (LeftOut, CHECKS),
        "load-server-state-from-file" | "server-state-file-name" => (Same, PROCESS),
        "email-alert" => (LeftOut, "nobody is written to; events are in the log and in the API"),
        "dispatch" | "use-server" => {
            (LeftOut, "a connection always goes to a server of the upstream's choice")
        }
        "tcp-response" => (LeftOut, "what servers answer is not looked at"),
        "filter" | "declare" | "force-persist" | "ignore-persist" | "persist" => {
            (LeftOut, "it is not in this version")
        }
        _ => (LeftOut, "not known here"),
    };
    Some(note(&line.place, line.text(), effect, why))
}

fn option(line: &Line, at: usize) -> Option<Note> {
    let (effect, why) = match line.words.get(at).map_or("", String::as_str) {
        "redispatch" | "allbackups" => return None,
        "tcplog"
        | "httplog"
        | "dontlognull"
        | "dontlog-normal"
        | "logasap"
        | "log-health-checks"
        | "log-separate-errors"
        | "httpslog" => (Same, LOGGED),
        "tcpka"
        | "clitcpka"
        | "srvtcpka"
        | "splice-auto"
        | "splice-request"
        | "splice-response"
        | "nolinger"
        | "tcp-smart-accept"
        | "tcp-smart-connect"
        | "idle-close-on-response" => (Same, SOCKET),
        "socket-stats" | "contstats" | "checkcache" => (Same, MEASURED),
        "abortonclose" => (Same, "a device that goes while it waits is let go of"),
        "tcp-check" | "httpchk" | "external-check" | "mysql-check" | "pgsql-check" | "redis-check"
        | "smtpchk" | "ldap-check" | "ssl-hello-chk" | "spop-check" => (LeftOut, CHECKS),
        "transparent" | "persist" => {
            (LeftOut, "a connection always goes to a server of the upstream's choice")
        }
        "prefer-last-server" => (Same, HTTP),
        name if name.starts_with("http") || name.starts_with("forward") || name.starts_with("originalto") => {
            (Same, HTTP)
        }
        _ => (LeftOut, "not known here"),
    };
    Some(note(&line.place, line.text(), effect, why))
}

/// What becomes of a parameter of `bind`, and how many arguments it takes. `None`: not known.
pub(super) fn of_bind(parameter: &str) -> Option<(Effect, &'static str, usize)> {
    Some(match parameter {
        "backlog" | "mss" | "tcp-ut" | "interface" | "namespace" | "proto" | "severity-output" => {
            (Same, SOCKET, 1)
        }
        "defer-accept" | "tfo" => (Same, SOCKET, 0),
        "name" | "id" | "nice" | "process" | "thread" | "shards" | "level" | "uid" | "gid" | "user"
        | "group" | "mode" | "guid-prefix" => (Same, PROCESS, 1),
        "transparent" => (LeftOut, "it listens on addresses of this machine only", 0),
        "accept-netscaler-cip" => (LeftOut, "the header of NetScaler is not read; the PROXY protocol is", 1),
        _ => return None,
    })
}

/// What becomes of a parameter of `server`, and how many arguments it takes. `None`: not known.
pub(super) fn of_server(parameter: &str) -> Option<(Effect, &'static str, usize)> {
    Some(match parameter {
        "check" => (Differs, CHECKS, 0),
        "agent-check" | "check-ssl" | "check-send-proxy" | "no-check" | "no-agent-check" => {
            (Same, "it is about checks", 0)
        }
        "inter" | "fastinter" | "downinter" | "rise" | "fall" | "port" | "addr" | "check-proto"
        | "check-sni" | "check-alpn" | "check-via-socks4" | "agent-port" | "agent-inter" | "agent-addr"
        | "agent-send" | "on-marked-up" => (Same, "it is about checks", 1),
        "on-error" => (Same, "failures of connections count for max_fails", 1),
        "on-marked-down" => {
            (LeftOut, "connections to a server that is taken out stay until they end by themselves", 1)
        }
        "id" | "cookie" | "init-addr" | "resolvers" | "resolve-opts" | "resolve-prefer" | "resolve-net"
        | "pool-max-conn" | "pool-low-conn" | "pool-purge-delay" | "max-reuse" | "namespace" | "proto"
        | "tcp-ut" | "ws" | "log-proto" | "guid" | "idle-ping" => {
            (Same, "the same without it in TCP mode", 1)
        }
        "track" => (LeftOut, "servers do not share their state with others", 1),
        "redir" => (Same, HTTP, 1),
        "disabled-on" | "non-stick" => (LeftOut, "it is not in this version", 0),
        "minconn" => (LeftOut, "max_conns does not grow with the load", 1),
        "socks4" => (LeftOut, "servers are connected directly", 1),
        "proxy-v2-options" | "set-proxy-v2-tlv-fmt" => (LeftOut, "the PROXY header has its usual fields", 1),
        "tfo" => (Same, SOCKET, 0),
        "shard" | "weight-type" | "hash-key" => (Same, "the hash sees the server's name", 1),
        "ca-file" | "crt" | "sni" | "verify" | "verifyhost" | "alpn" | "npn" | "ciphers" | "ciphersuites"
        | "crl-file" | "ssl-min-ver" | "ssl-max-ver" | "curves" | "sigalgs" => {
            (Same, "nothing uses TLS here", 1)
        }
        "no-ssl" | "no-check-ssl" | "no-verifyhost" | "allow-0rtt" | "force-tlsv12" | "force-tlsv13"
        | "no-sslv3" | "no-tlsv10" | "no-tlsv11" | "no-tls-tickets" | "ssl-reuse" | "no-ssl-reuse" => {
            (Same, "nothing uses TLS here", 0)
        }
        _ => return None,
    })
}
