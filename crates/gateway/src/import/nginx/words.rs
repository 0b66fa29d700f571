//! Directives that are not carried over: what the service is without them, and why.
//!
//! Must not know: those that are carried over ([`super::server`], [`super::upstream`]).

use super::super::Effect;
use super::super::Effect::{Differs, LeftOut, Same};

const NOT_TLS: &str = "TLS is not in this version";
const NO_SCRIPTS: &str = "scripts are not in this version";
const NO_TLS_HERE: &str = "nothing uses TLS here";
const PROCESS: &str = "it is about nginx's own process";
const TABLES: &str = "it is about the size of nginx's own tables";
const MEASURED: &str = "every listener and server is counted; a section [admin] shows the numbers";
const LOGGED: &str = "the end of every connection is logged; [log] says how";
const VARIABLE: &str = "it sets a variable; where something depends on it, that is noted there";
const SOCKET: &str = "the system's values are used for sockets";

/// What stands in `stream` or its `server` under names that people type: what a misspelt one is compared with.
pub(super) const STREAM: &[&str] = &[
    "access_log",
    "allow",
    "deny",
    "error_log",
    "geo",
    "health_check",
    "include",
    "js_import",
    "js_preread",
    "js_set",
    "limit_conn",
    "limit_conn_log_level",
    "limit_conn_zone",
    "listen",
    "log_format",
    "map",
    "match",
    "mqtt",
    "mqtt_preread",
    "mqtt_set_connect",
    "pass",
    "preread_buffer_size",
    "preread_timeout",
    "proxy_bind",
    "proxy_buffer_size",
    "proxy_connect_timeout",
    "proxy_download_rate",
    "proxy_half_close",
    "proxy_next_upstream",
    "proxy_next_upstream_timeout",
    "proxy_next_upstream_tries",
    "proxy_pass",
    "proxy_protocol",
    "proxy_protocol_timeout",
    "proxy_requests",
    "proxy_responses",
    "proxy_session_drop",
    "proxy_socket_keepalive",
    "proxy_ssl",
    "proxy_timeout",
    "proxy_upload_rate",
    "resolver",
    "resolver_timeout",
    "return",
    "server",
    "server_name",
    "set",
    "set_real_ip_from",
    "split_clients",
    "ssl_certificate",
    "ssl_certificate_key",
    "ssl_ciphers",
    "ssl_preread",
    "ssl_protocols",
    "ssl_verify_client",
    "status_zone",
    "tcp_nodelay",
    "upstream",
];

/// The same for `upstream`.
pub(super) const UPSTREAM: &[&str] = &[
    "hash",
    "include",
    "least_conn",
    "least_time",
    "queue",
    "random",
    "resolver",
    "resolver_timeout",
    "server",
    "state",
    "zone",
];

/// How directives of modules begin that are not nginx's own.
const OTHER_MODULES: &[&str] = &[
    "acme_",
    "app_protect",
    "check",
    "consistent_hash",
    "dynamic",
    "dyups",
    "echo",
    "f5_",
    "geoip2",
    "jdomain",
    "lua_",
    "modsecurity",
    "more_",
    "nchan",
    "opentracing",
    "otel",
    "perl",
    "server_traffic_status",
    "stream_server_traffic_status",
    "sysguard",
    "upstream_",
    "upsync",
    "vhost_traffic_status",
    "waf",
    "websockify",
];

/// What becomes of a directive of somebody else's module: nginx may know it, if it was built so.
pub(super) fn of_other_modules(name: &str) -> Option<(Effect, &'static str)> {
    let theirs = OTHER_MODULES.iter().any(|begins| name.starts_with(begins)) || name.contains("_by_lua");
    theirs.then_some((LeftOut, "it belongs to a module that is not nginx's own"))
}

/// What becomes of a directive outside of `stream`.
pub(super) fn of_main(name: &str) -> Option<(Effect, &'static str)> {
    Some(match name {
        "http" => (LeftOut, "HTTP is not carried over; only stream { } is"),
        "mail" => (LeftOut, "mail is not carried over; only stream { } is"),
        "mgmt"
        | "user"
        | "pid"
        | "daemon"
        | "master_process"
        | "env"
        | "lock_file"
        | "load_module"
        | "pcre_jit"
        | "debug_points"
        | "thread_pool"
        | "timer_resolution"
        | "working_directory"
        | "ssl_engine"
        | "ssl_object_cache_inheritable"
        | "google_perftools_profiles" => (Same, PROCESS),
        "events" => {
            (Same, "it is about nginx's own process; max_connections of a listener bounds connections here")
        }
        "error_log" => (Same, "[log] says what is logged"),
        _ if name.starts_with("worker_") => (Same, "[node] has workers; they share all listeners"),
        _ if name.starts_with("quic") => (LeftOut, "QUIC is not in this version"),
        _ => return None,
    })
}

/// What becomes of a directive of `stream` or of its `server`. `None`: it is carried over, or not known.
pub(super) fn of_stream(name: &str, tls: bool, proxy_tls: bool) -> Option<(Effect, &'static str)> {
    Some(match name {
        "status_zone" | "zone_sync" | "zone_sync_server" => (Same, MEASURED),
        "access_log" | "log_format" | "open_log_file_cache" => (Same, LOGGED),
        "error_log" => (Same, "[log] says what is logged"),
        "proxy_buffer_size" | "proxy_downstream_buffer" | "proxy_upstream_buffer" => {
            (Same, "while nothing moves, a connection holds no buffer; there is none to size")
        }
        "tcp_nodelay" => (Same, "small packets are never held back"),
        "proxy_socket_keepalive" => (Same, "connections to servers have it always"),
        "limit_conn_log_level" => (Same, "refused connections are counted and logged by [log]"),
        "proxy_protocol_timeout" => (Same, "preread_timeout holds for the PROXY header, too"),
        "resolver" | "resolver_timeout" => (Same, "the system looks names up"),
        "mqtt" | "mqtt_buffers" | "mqtt_rewrite_buffer_size" => {
            (Same, "CONNECT is read without it; only mqtt_set_connect would change one")
        }
        "mqtt_set_connect" => (LeftOut, "rewriting of CONNECT is not in this version"),
        "map" | "geo" | "split_clients" | "set" | "keyval" | "keyval_zone" | "geoip_country" | "num_map"
        | "geoip_city" | "geoip_org" | "geoip_proxy" | "geoip2" | "js_set" | "js_var" | "js_import"
        | "js_include" | "js_path" => (Same, VARIABLE),
        "js_access" | "js_filter" | "js_preread" | "js_periodic" => (LeftOut, NO_SCRIPTS),
        "health_check" | "health_check_timeout" | "match" => (
            LeftOut,
            "active checks are not in this version; max_fails takes a server out after connections that failed",
        ),
        "proxy_upload_rate" | "proxy_download_rate" => {
            (LeftOut, "a rate for each connection is not in this version")
        }
        "proxy_session_drop" => {
            (LeftOut, "connections to a server that is taken out stay until they end by themselves")
        }
        "proxy_responses" | "proxy_requests" => (Same, "it is about UDP"),
        "return" | "pass" => (LeftOut, "a connection always goes to an upstream"),
        "limit_conn_dry_run" => (Same, "noted with limit_conn"),
        "ssl_preread" => (LeftOut, "the server name in a TLS handshake is not looked at"),
        "server_name" => (LeftOut, "one address leads to one upstream, whatever name a TLS handshake has"),
        "allow_proxy" | "zone_sync_buffers" => (Same, PROCESS),
        _ if name.starts_with("js_") => (Same, "it is about scripts"),
        _ if name.starts_with("zone_sync") => (Same, "the hash gives every gateway the same answer"),
        _ if name.starts_with("proxy_ssl") && proxy_tls => (LeftOut, NOT_TLS),
        _ if name.starts_with("proxy_ssl") => (Same, NO_TLS_HERE),
        _ if name.starts_with("ssl_") && tls => (LeftOut, NOT_TLS),
        _ if name.starts_with("ssl_") => (Same, NO_TLS_HERE),
        _ if name.contains("_hash_") => (Same, TABLES),
        _ if name.contains("_by_lua") || name.starts_with("lua_") => (LeftOut, NO_SCRIPTS),
        _ => return None,
    })
}

/// What becomes of a directive of `upstream`. `None`: it is carried over, or not known.
pub(super) fn of_upstream(name: &str) -> Option<(Effect, &'static str)> {
    Some(match name {
        "zone" => (Same, "all workers know the same of every server"),
        "status_zone" => (Same, MEASURED),
        "resolver" | "resolver_timeout" => (Same, "the system looks names up"),
        "state" => {
            (LeftOut, "a list of servers that nginx keeps in a file of its own is not read; write them out")
        }
        "keepalive" | "keepalive_requests" | "keepalive_time" | "keepalive_timeout" | "ntlm" => {
            (Same, "a device has a connection of its own")
        }
        "ip_hash" | "sticky" | "sticky_cookie_insert" => {
            (LeftOut, "it belongs to http, nginx refuses it in stream")
        }
        "least_time" => (Differs, "answers are not timed: the server with the fewest connections is taken"),
        _ => return None,
    })
}

/// What becomes of a parameter of `listen`. `None`: it is carried over, or not known.
pub(super) fn of_listen(parameter: &str) -> Option<(Effect, &'static str)> {
    let name = parameter.split_once('=').map_or(parameter, |(name, _)| name);
    Some(match name {
        "reuseport" => (Same, "each worker has its own listening socket already"),
        "backlog" | "rcvbuf" | "sndbuf" | "fastopen" | "deferred" | "accept_filter" | "setfib"
        | "multipath" => (Same, SOCKET),
        "so_keepalive" => (Same, "MQTT's keep alive and idle_timeout find devices that are gone"),
        "bind" | "default_server" => (Same, "every listener has its own socket"),
        _ => return None,
    })
}
