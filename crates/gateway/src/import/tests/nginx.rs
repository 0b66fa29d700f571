//! nginx: what is carried over, what is not and how it is told.

use super::*;

/// What README's tour imports.
const EXAMPLE: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/nginx.conf"));

/// The configuration of the article that this product begins with.
const SNIPPET: &str = "stream {
    mqtt_preread on;
    upstream emqx_backend {
        zone tcp_servers 64k;
        hash $mqtt_preread_clientid consistent;
        server 10.0.0.172:1883;
        server 10.0.0.174:1883;
    }
    server {
        listen 1880;
        status_zone tcp_server;
        proxy_pass emqx_backend;
        proxy_buffer_size 4k;
        proxy_protocol on;
    }
}
";

const SNIPPET_TOML: &str = r#"# From nginx.conf, by `tidegate import nginx`.

[gateway]

# nginx.conf:10
# nginx.conf:11: status_zone tcp_server: not needed: every listener and server is counted; a section [admin] shows the numbers
# nginx.conf:13: proxy_buffer_size 4k: not needed: while nothing moves, a connection holds no buffer; there is none to size
[[gateway.listeners]]
bind = "0.0.0.0:1880"
upstream = "emqx_backend"
preread_timeout = "30s"         # nginx's default
on_not_mqtt = "round_robin"     # nginx passes on what is not MQTT, too
idle_timeout = "10m"            # nginx's default
half_closed_timeout = "1s"      # nginx closes both sides when one of them closes

# nginx.conf:3
# nginx.conf:4: zone tcp_servers 64k: not needed: all workers know the same of every server
[[gateway.upstreams]]
name = "emqx_backend"
balance = "client_id"
hash = "ketama"
proxy_protocol = "v1"
connect_timeout = "1m"          # nginx's default
tries = 2                       # nginx tries every server once
servers = [
  { address = "10.0.0.172:1883" },
  { address = "10.0.0.174:1883" },
]
"#;

/// A stream with these lines in its server, in front of two servers. The server's block begins in line 4.
fn server(lines: &str) -> String {
    format!(
        "stream {{\nmqtt_preread on;\nupstream b {{ server 10.9.0.1:1; server 10.9.0.2:1; }}\nserver {{\n{lines}\nproxy_pass b;\n}}\n}}\n"
    )
}

/// A stream with these lines in its upstream, which begins in line 3.
fn upstream(lines: &str) -> String {
    format!(
        "stream {{\nmqtt_preread on;\nupstream b {{\n{lines}\n}}\nserver {{ listen 127.0.0.1:1880; proxy_pass b; }}\n}}\n"
    )
}

#[test]
fn the_missions_snippet_as_it_stands_gives_the_same_service() {
    let imported = import_nginx(SNIPPET);
    assert_eq!(imported.toml, SNIPPET_TOML);
    assert!(imported.is_faithful(), "{:#?}", imported.notes);
    assert_eq!((imported.listeners, imported.upstreams), (1, 1));
}

#[test]
fn the_inside_of_a_stream_block_is_enough() {
    let inside = SNIPPET.strip_prefix("stream {\n").unwrap().strip_suffix("}\n").unwrap();
    let (whole, part) = (import_nginx(SNIPPET), import_nginx(inside));
    let keys = |toml: &str| toml.lines().filter(|line| !line.starts_with('#')).collect::<Vec<_>>().join("\n");
    assert_eq!(keys(&whole.toml), keys(&part.toml));
}

#[test]
fn of_a_whole_configuration_the_stream_is_carried_over_and_the_rest_is_named() {
    let text = format!(
        "user nginx;\nworker_processes auto;\nload_module modules/ngx_stream_module.so;\nevents {{ worker_connections 1024; }}\n\
         http {{\n  include mime.types;\n  content_by_lua_block {{ ngx.say('}}') -- }} \n }}\n  server {{ listen 80; location / {{ return 200 \"}}\"; }} }}\n}}\n\
         wonders on;\n{SNIPPET}"
    );
    let imported = import_nginx(&text);
    assert_eq!(imported.listeners, 1);
    imported.notes_that(1, "user", Effect::Same, "nginx's own process");
    imported.notes_that(2, "worker_processes", Effect::Same, "[node]");
    imported.notes_that(5, "http", Effect::LeftOut, "HTTP is not carried over");
    imported.notes_that(11, "wonders on", Effect::LeftOut, "not known here");
    assert_eq!(imported.notes.iter().filter(|note| note.effect != Effect::Same).count(), 2);
}

#[test]
fn nginxs_keys_are_ours() {
    for (hash, balance, kind) in [
        ("hash $mqtt_preread_clientid consistent;", "client_id", "ketama"),
        ("hash ${mqtt_preread_clientid};", "client_id", "modulo"),
        ("hash $mqtt_preread_username consistent;", "username", "ketama"),
        ("hash $remote_addr;", "source_ip", "modulo"),
        ("hash \"$remote_addr\" consistent;", "source_ip", "ketama"),
    ] {
        let imported = import_nginx(&upstream(&format!("{hash} server 10.9.0.1:1; server 10.9.0.2:1;")));
        imported.says(&[&format!("balance = \"{balance}\""), &format!("hash = \"{kind}\"")]);
        assert!(imported.is_faithful(), "{hash}: {:#?}", imported.notes);
    }
    for (hash, balance) in [
        ("hash $binary_remote_addr", "source_ip"),
        ("hash $remote_addr:$remote_port", "source_ip"),
        ("hash mqtt-$mqtt_preread_clientid consistent", "client_id"),
        ("hash $mqtt_preread_username$remote_addr", "username"),
        ("hash $ssl_preread_server_name consistent", "client_id"),
    ] {
        let imported = import_nginx(&upstream(&format!("{hash};\nserver 10.0.0.1:1; server 10.0.0.2:1;")));
        imported.says(&[&format!("balance = \"{balance}\"")]);
        imported.notes_that(4, hash, Effect::Differs, "once");
    }
}

#[test]
fn a_bound_that_each_of_nginxs_workers_keeps_for_itself_is_named() {
    let servers = "server 10.0.0.1:1 max_conns=9; server 10.0.0.2:1;";
    let imported =
        import_nginx(&format!("upstream b {{ {servers} }}\nserver {{ listen 1880; proxy_pass b; }}"));
    imported.notes_that(1, "max_conns of b", Effect::Differs, "count together");
    let text = format!("upstream b {{ zone b 64k; {servers} }}\nserver {{ listen 1880; proxy_pass b; }}");
    assert!(import_nginx(&text).is_faithful());
}

#[test]
fn a_key_that_nginx_finds_empty_takes_turns() {
    let text = upstream("hash $mqtt_preread_clientid consistent;\nserver 10.0.0.1:1; server 10.0.0.2:1;");
    let imported = import_nginx(&text.replace("mqtt_preread on;", ""));
    imported.says(&["balance = \"round_robin\""]);
    assert!(imported.toml.contains("mqtt_preread is not on"), "{}", imported.toml);
    imported.says_nothing_of(&["hash"]);
    let imported =
        import_nginx(&upstream("hash $proxy_protocol_addr;\nserver 10.0.0.1:1; server 10.0.0.2:1;"));
    imported.says(&["balance = \"round_robin\""]);
}

#[test]
fn a_client_id_from_a_script_is_the_client_id() {
    let text = "js_import mqtt.js;\njs_set $mqtt_client_id mqtt.setClientId;\nupstream b { hash $mqtt_client_id consistent;\n\
                server 10.0.0.1:1; server 10.0.0.2:1; }\nserver { listen 1880; js_preread mqtt.getClientId; proxy_pass b; }";
    let imported = import_nginx(text);
    imported.says(&["balance = \"client_id\"", "hash = \"ketama\""]);
    imported.notes_that(3, "hash $mqtt_client_id consistent", Effect::Differs, "taken for the client id");
    imported.notes_that(5, "js_preread mqtt.getClientId", Effect::LeftOut, "scripts");
}

#[test]
fn methods_without_a_key_are_ours() {
    for (method, balance, rule) in [
        ("", "round_robin", "round_robin"),
        ("least_conn;", "least_connections", "least_connections"),
        ("random;", "random", "least_connections"),
        ("random two;", "random_two", "least_connections"),
        ("random two least_conn;", "random_two", "least_connections"),
    ] {
        let imported = import_nginx(&upstream(&format!("{method} server 10.0.0.1:1; server 10.0.0.2:1;")));
        imported.says(&[&format!("balance = \"{balance}\""), &format!("on_not_mqtt = \"{rule}\"")]);
        assert!(imported.is_faithful(), "{method}: {:#?}", imported.notes);
    }
    let imported = import_nginx(&upstream("least_time connect;\nserver 10.0.0.1:1; server 10.0.0.2:1;"));
    imported.says(&["balance = \"least_connections\""]);
    imported.notes_that(4, "least_time connect", Effect::Differs, "not timed");
    let imported =
        import_nginx(&upstream("random two least_time=connect;\nserver 10.0.0.1:1; server 10.0.0.2:1;"));
    imported.says(&["balance = \"random_two\""]);
    imported.notes_that(4, "random two least_time=connect", Effect::Differs, "fewer connections");
}

#[test]
fn every_parameter_of_a_server_is_carried_over() {
    let imported = import_nginx(&upstream(
        "zone b 64k; queue 100 timeout=5s;
         server 10.0.0.1:1883 weight=5 max_fails=3 fail_timeout=1m30s max_conns=1000 slow_start=30s;
         server 10.0.0.2:1883 max_conns=0 slow_start=0 down;
         server [::1]:1883 backup;",
    ));
    imported.says(&[
        "queue = 100",
        "queue_timeout = \"5s\"",
        "{ address = \"10.0.0.1:1883\", weight = 5, max_fails = 3, fail_timeout = \"1m30s\", max_conns = 1000, \
         slow_start = \"30s\" },",
        "{ address = \"10.0.0.2:1883\", down = true },",
        "{ address = \"[::1]:1883\", backup = true },",
    ]);
    assert!(imported.is_faithful(), "{:#?}", imported.notes);
    let imported = import_nginx(&upstream("queue 7;\nserver 10.0.0.2:1; server 10.0.0.3:1;"));
    imported.says(&["queue_timeout = \"1m\""]);
}

#[test]
fn an_only_server_is_never_taken_out() {
    for text in [
        upstream("server 10.0.0.1:1883 max_fails=3 fail_timeout=1m;"),
        "server { listen 1880; proxy_pass 10.0.0.1:1883; }".to_owned(),
    ] {
        let imported = import_nginx(&text);
        assert!(imported.toml.contains("max_fails = 0 },   # the only server"), "{}", imported.toml);
    }
}

#[test]
fn servers_that_are_no_addresses_are_named() {
    let imported = import_nginx(&upstream(
        "server 10.0.0.1:1;\nserver unix:/run/mqtt;\nserver broker.example:1883 resolve;\nserver x.example:1 service=mqtt;",
    ));
    imported.says(&["{ address = \"10.0.0.1:1\" },", "{ address = \"broker.example:1883\" },"]);
    imported.notes_that(5, "server unix:/run/mqtt", Effect::LeftOut, "Unix sockets");
    imported.notes_that(6, "server broker.example:1883 resolve", Effect::Differs, "one server");
    imported.notes_that(7, "server x.example:1 service=mqtt", Effect::LeftOut, "SRV");
}

#[test]
fn a_server_without_an_upstream_gets_one() {
    let imported = import_nginx("server { listen 1880; proxy_pass 10.0.0.1:1883; }");
    imported.says(&["upstream = \"10.0.0.1:1883\"", "name = \"10.0.0.1:1883\"", "balance = \"round_robin\""]);
    assert!(imported.is_faithful(), "{:#?}", imported.notes);
}

#[test]
fn a_server_is_where_it_listens() {
    let imported = import_nginx(&server(
        "listen 1880 so_keepalive=on reuseport backlog=511;\nlisten [::]:1880;\nlisten 10.0.0.9:2000-2002 proxy_protocol;\n\
         listen [::]:1990 ipv6only=off;",
    ));
    imported.says(&[
        "bind = \"0.0.0.0:1880\"",
        "bind = \"[::]:1880\"",
        "bind = \"10.0.0.9:2000\"",
        "bind = \"10.0.0.9:2001\"",
        "bind = \"10.0.0.9:2002\"",
        "bind = \"[::]:1990\"",
        "bind = \"0.0.0.0:1990\"",
    ]);
    assert_eq!((imported.listeners, imported.upstreams), (7, 1));
    imported.notes_that(5, "listen ... reuseport", Effect::Same, "own listening socket");
    let with_header = imported.toml.lines().filter(|line| *line == "proxy_protocol = true").count();
    assert_eq!(with_header, 3);
}

#[test]
fn what_is_no_tcp_listener_is_named_and_not_served() {
    for (listen, why) in [
        ("listen 8883 ssl", "TLS"),
        ("listen 1880 udp", "UDP"),
        ("listen 14567 quic", "QUIC"),
        ("listen unix:/run/gateway", "Unix"),
        ("listen localhost:1880", "write the address"),
        ("listen 1000-3000", "256 ports"),
    ] {
        let imported = import_nginx(&server(&format!("listen 1881;\n{listen};\nssl_certificate x.pem;")));
        assert_eq!(imported.listeners, 1, "{listen}");
        imported.notes_that(6, listen, Effect::LeftOut, why);
        let tls = if listen.ends_with("ssl") { Effect::LeftOut } else { Effect::Same };
        imported.notes_that(7, "ssl_certificate x.pem", tls, "TLS");
        let ImportError::Nothing { notes } = read_nginx(&server(&format!("{listen};"))).unwrap_err() else {
            panic!("{listen}: something comes out")
        };
        noted(&notes, 5, listen, Effect::LeftOut, why);
    }
}

#[test]
fn a_server_that_has_no_single_upstream_is_named() {
    for (lines, line, what, why) in [
        ("proxy_pass $backend;", 3, "proxy_pass $backend", "variable"),
        ("proxy_pass 10.0.0.1:8883;\nproxy_ssl on;", 4, "proxy_ssl on", "TLS to servers"),
        ("return $time_iso8601;", 2, "server", "has return"),
        ("", 2, "server", "no proxy_pass"),
    ] {
        let text = format!(
            "server {{ listen 1881; proxy_pass 10.0.0.1:1883; }}\nserver {{ listen 1880;\n{lines}\n}}\n\
             map $x $backend {{ default a; }}"
        );
        let imported = import_nginx(&text);
        assert_eq!(imported.listeners, 1, "{lines}");
        imported.notes_that(line, what, Effect::LeftOut, why);
    }
}

#[test]
fn time_outs_and_tries_are_nginxs() {
    let imported = import_nginx(&server(
        "listen 1880;\nproxy_timeout 1h;\nproxy_connect_timeout 3;\nproxy_next_upstream_tries 1;\nproxy_next_upstream_timeout 10s;\n\
         preread_timeout 5s;\npreread_buffer_size 4k;\nproxy_half_close on;",
    ));
    imported.says(&[
        "idle_timeout = \"1h\"",
        "connect_timeout = \"3s\"",
        "tries = 1",
        "tries_timeout = \"10s\"",
        "preread_timeout = \"5s\"",
        "preread_size = \"4KiB\"",
        "half_closed_timeout = \"10m\"",
    ]);
    let imported = import_nginx(&server("listen 1880;\nproxy_next_upstream off;"));
    imported.says(&["tries = 1"]);
    let imported = import_nginx(&server("listen 1880;\nproxy_timeout 30d;"));
    imported.says(&["idle_timeout = \"7d\""]);
    imported.notes_that(5, "idle_timeout", Effect::Differs, "30d is out of range; it becomes 7d");
}

#[test]
fn a_server_inherits_from_the_stream_what_it_does_not_say() {
    let text =
        "stream { proxy_timeout 5m; proxy_connect_timeout 1s; allow 10.0.0.0/8; deny all; proxy_protocol on;
                upstream b { server 10.0.0.1:1; server 10.0.0.2:1; }
                server { listen 1880; proxy_pass b; }
                server { listen 1881; proxy_pass b; proxy_timeout 6m; deny 192.168.0.1; } }";
    let imported = import_nginx(text);
    let part = |bind: &str| {
        let from = imported.toml.find(bind).unwrap();
        imported.toml[from..].split("\n\n").next().unwrap().to_owned()
    };
    let (first, second) = (part("0.0.0.0:1880"), part("0.0.0.0:1881"));
    assert!(first.contains("idle_timeout = \"5m\"") && second.contains("idle_timeout = \"6m\""));
    assert!(first.contains("  { allow = \"10.0.0.0/8\" },\n  { deny = \"all\" },\n]"), "{first}");
    assert!(second.contains("access = [\n  { deny = \"192.168.0.1/32\" },\n]"), "{second}");
    imported.says(&["connect_timeout = \"1s\"", "proxy_protocol = \"v1\""]);
    assert_eq!(imported.upstreams, 1);
}

#[test]
fn servers_that_treat_their_upstream_differently_get_one_each() {
    let text = "upstream b { server 10.0.0.1:1; server 10.0.0.2:1; }
                server { listen 1880; proxy_pass b; }
                server { listen 1881; proxy_pass b; proxy_protocol on; }
                server { listen 1882; proxy_pass b; proxy_timeout 5m; }";
    let imported = import_nginx(text);
    imported.says(&["name = \"b\"", "name = \"b-2\"", "upstream = \"b-2\"", "proxy_protocol = \"v1\""]);
    assert_eq!((imported.listeners, imported.upstreams), (3, 2));
    imported.notes_that(3, "proxy_pass b", Effect::Differs, "counted apart");
}

#[test]
fn the_proxy_header_is_believed_from_those_that_nginx_believes() {
    let imported = import_nginx(&server(
        "listen 1880 proxy_protocol;\nset_real_ip_from 10.0.0.0/8;\nset_real_ip_from 192.168.1.1;\nset_real_ip_from lb.example;",
    ));
    imported.says(&["proxy_protocol = true", "trusted_proxies = [\"10.0.0.0/8\", \"192.168.1.1/32\"]"]);
    imported.notes_that(8, "set_real_ip_from lb.example", Effect::LeftOut, "not names");
    let imported = import_nginx(&server("listen 1880 proxy_protocol;"));
    imported.says(&["trusted_proxies = [\"0.0.0.0/0\", \"::/0\"]"]);
    imported.notes_that(5, "listen ... proxy_protocol", Effect::Differs, "who may send one");
    let imported = import_nginx(&server("listen 1880;\nset_real_ip_from 10.0.0.0/8;"));
    imported.says_nothing_of(&["trusted_proxies"]);
    imported.notes_that(6, "set_real_ip_from 10.0.0.0/8", Effect::Same, "means nothing");
}

#[test]
fn connections_of_an_address_are_bounded_by_the_smallest_limit() {
    let zones =
        "limit_conn_zone $binary_remote_addr zone=address:10m;\nlimit_conn_zone $server_port zone=port:1m;\n";
    let with = |lines: &str| {
        format!("{zones}{}", server(lines).strip_prefix("stream {\n").unwrap().strip_suffix("}\n").unwrap())
    };
    let imported = import_nginx(&with(
        "listen 1880;\nlimit_conn address 10;\nlimit_conn port 99;\nlimit_conn address 5;",
    ));
    imported.says(&["max_connections_per_address = 5"]);
    imported.notes_that(8, "limit_conn port 99", Effect::LeftOut, "no other key");
    let imported = import_nginx(&with("listen 1880;\nlimit_conn address 10;\nlimit_conn_dry_run on;"));
    imported.says_nothing_of(&["max_connections_per_address"]);
    imported.notes_that(7, "limit_conn address 10", Effect::Same, "dry_run");
    assert!(read_nginx(&with("listen 1880;\nlimit_conn nowhere 10;")).is_err());
    let two = format!(
        "{zones}limit_conn address 3;\nserver {{ listen 1; proxy_pass 10.0.0.1:1; }}\nserver {{ listen 2; proxy_pass 10.0.0.1:1; }}"
    );
    let imported = import_nginx(&two);
    imported.says(&["max_connections_per_address = 3"]);
    imported.notes_that(3, "limit_conn address 3", Effect::Differs, "each listener counts");
}

#[test]
fn connections_come_from_the_addresses_that_nginx_binds() {
    let imported = import_nginx(&server("listen 1880;\nproxy_bind 10.0.0.7;"));
    imported.says(&["source_addresses = [\"10.0.0.7\"]"]);
    let split = "split_clients $remote_addr$remote_port $source {\n 50% 10.0.0.7;\n * 10.0.0.8;\n}\n\
                 server { listen 1880; proxy_pass 10.0.0.1:1; proxy_bind $source; }";
    import_nginx(split).says(&["source_addresses = [\"10.0.0.7\", \"10.0.0.8\"]"]);
    let imported = import_nginx(&server("listen 1880;\nproxy_bind $remote_addr transparent;"));
    imported.says_nothing_of(&["source_addresses"]);
    imported.notes_that(6, "proxy_bind $remote_addr transparent", Effect::LeftOut, "own address");
    let imported = import_nginx(&server("listen 1880;\nproxy_bind off;"));
    imported.says_nothing_of(&["source_addresses"]);
}

#[test]
fn directives_that_are_not_carried_over_are_named_with_line_and_reason() {
    for (directive, effect, why) in [
        ("access_log /var/log/nginx/mqtt.log basic", Effect::Same, "logged"),
        ("proxy_upload_rate 1k", Effect::LeftOut, "rate"),
        ("health_check interval=5s", Effect::LeftOut, "active checks"),
        ("mqtt_set_connect clientid $ssl_client_serial", Effect::LeftOut, "rewriting"),
        ("ssl_preread on", Effect::LeftOut, "TLS handshake"),
        ("upsync 127.0.0.1:8500/v1/kv", Effect::LeftOut, "not nginx's own"),
        ("preread_by_lua_block", Effect::LeftOut, "scripts"),
    ] {
        let end = if directive.ends_with("_block") { " { }" } else { ";" };
        let imported = import_nginx(&server(&format!("listen 1880;\n{directive}{end}")));
        imported.notes_that(6, directive, effect, why);
        assert_eq!(imported.is_faithful(), effect == Effect::Same, "{directive}");
    }
}

/// What is said of a configuration that nginx refuses.
#[track_caller]
fn refused(text: &str) -> String {
    match read_nginx(text) {
        Err(ImportError::Syntax { place, problem }) => format!("{}: {problem}", place.line),
        other => panic!("{text}: {other:?}"),
    }
}

#[test]
fn a_backup_beside_a_method_that_has_none_is_refused() {
    let why = "balancing method does not support parameter \"backup\"";
    for method in ["hash $remote_addr consistent", "random two"] {
        let text = upstream(&format!("{method};\nserver 10.0.0.1:1;\nserver 10.0.0.2:1 backup;"));
        assert_eq!(refused(&text), format!("6: {why}"));
    }
    // nginx looks at the method that stands before the server
    import_nginx(&upstream("server 10.0.0.1:1;\nserver 10.0.0.2:1 backup;\nhash $remote_addr;"));
    import_nginx(&upstream("least_conn;\nserver 10.0.0.1:1;\nserver 10.0.0.2:1 backup;"));
}

#[test]
fn a_directive_that_no_module_has_is_refused_with_the_one_that_was_meant() {
    let text = server("listen 1880;\nproxy_timeouts 5s;");
    assert_eq!(refused(&text), "6: unknown directive \"proxy_timeouts\"; did you mean \"proxy_timeout\"?");
    let text = upstream("server 10.0.0.1:1;\nleast_con;");
    assert_eq!(refused(&text), "5: unknown directive \"least_con\"; did you mean \"least_conn\"?");
    let text = "stream {\nwonders on;\nserver { listen 1880; proxy_pass 10.0.0.1:1; }\n}";
    assert_eq!(refused(text), "2: unknown directive \"wonders\"");
}

#[test]
fn an_address_that_is_listened_on_twice_is_refused() {
    let twice = "listen 1880;\nlisten *:1880;";
    assert_eq!(refused(&server(twice)), "6: duplicate \"0.0.0.0:1880\" address and port pair");
    let two = "server { listen 127.0.0.1:1880; proxy_pass 10.0.0.1:1; }\n\
               server { listen 127.0.0.1:1880; proxy_pass 10.0.0.2:1; }";
    assert_eq!(refused(two), "2: duplicate \"127.0.0.1:1880\" address and port pair");
    import_nginx(&server("listen 1880;\nlisten 127.0.0.1:1880;\nlisten 1880 udp;"));
}

#[test]
fn what_nginx_refuses_is_refused_with_its_line() {
    for (text, line, why) in [
        (
            "upstream b { server 10.0.0.1; }\nserver { listen 1880; proxy_pass b; }",
            1,
            "no port in \"10.0.0.1\"",
        ),
        ("upstream b { }\nserver { listen 1880; proxy_pass b; }", 1, "no servers are inside upstream \"b\""),
        (
            "upstream b { server 10.0.0.1:1 weight=0; }\nserver { listen 1; proxy_pass b; }",
            1,
            "invalid parameter",
        ),
        (
            "upstream b { server 10.0.0.1:1 colour=red; }\nserver { listen 1; proxy_pass b; }",
            1,
            "invalid parameter",
        ),
        (
            "upstream b { server a:1; }\nupstream b { server a:1; }\nserver { listen 1; proxy_pass b; }",
            2,
            "duplicate",
        ),
        ("server { listen 1880; proxy_pass backend; }", 1, "no port in \"backend\""),
        ("server {\n listen 1880 loud; proxy_pass a:1; }", 2, "invalid parameter \"loud\""),
        ("server {\n listen 10.0.0.1; proxy_pass a:1; }", 2, "no port"),
        ("server {\n proxy_pass a:1; }", 1, "no \"listen\""),
        ("server { listen 1; proxy_pass a:1;\n proxy_timeout soon; }", 2, "invalid value \"soon\""),
        ("server { listen 1; proxy_pass a:1;\n allow 10.0.0.0/99; }", 2, "invalid parameter"),
        (
            "upstream b { hash $remote_addr constant; server a:1; }\nserver { listen 1; proxy_pass b; }",
            1,
            "constant",
        ),
        ("upstream\n{ server a:1; }\nserver { listen 1; proxy_pass b; }", 1, "invalid number of arguments"),
    ] {
        match read_nginx(text) {
            Err(ImportError::Syntax { place, problem }) => {
                assert_eq!(place.line, line, "{text}: {problem}");
                assert!(problem.contains(why), "{text}: {problem}");
            }
            other => panic!("{text}: {other:?}"),
        }
    }
}

#[test]
fn a_gateway_that_would_meet_itself_is_not_made() {
    let text = "server { listen 1880; proxy_pass 127.0.0.1:1881; }\nserver { listen 1881; proxy_pass 10.0.0.1:1883; }";
    let imported = import_nginx(text);
    assert_eq!((imported.listeners, imported.upstreams), (1, 1));
    imported.notes_that(1, "server 127.0.0.1:1881", Effect::LeftOut, "own listener");
    imported.notes_that(1, "listener 0.0.0.0:1880", Effect::LeftOut, "no server of 127.0.0.1:1881 is left");
}

#[test]
fn an_address_is_listened_on_once_and_a_server_is_there_once() {
    let text = "server { listen 1880; server_name a; proxy_pass 10.0.0.1:1; }\n\
                server { listen 1880; server_name b; proxy_pass 10.0.0.2:1; }";
    let imported = import_nginx(text);
    assert_eq!(imported.listeners, 1);
    imported.notes_that(2, "listener 0.0.0.0:1880", Effect::LeftOut, "another listener");
    let twice = "server 10.0.0.1:1 weight=2;\nserver 10.0.0.1:1 weight=3;\nserver 10.0.0.2:1;";
    let imported = import_nginx(&upstream(twice));
    imported.says(&["{ address = \"10.0.0.1:1\", weight = 5 },"]);
    imported.notes_that(5, "server 10.0.0.1:1", Effect::Differs, "one server with weight 5");
    let imported = import_nginx(&upstream(&format!("hash $mqtt_preread_clientid consistent;\n{twice}")));
    imported.says(&["{ address = \"10.0.0.1:1\", weight = 3 },"]);
}

#[test]
fn weights_that_are_too_great_shrink_alike() {
    let imported = import_nginx(&upstream(
        "server 10.0.0.1:1 weight=4000;\nserver 10.0.0.2:1 weight=2000;\nserver 10.0.0.3:1;",
    ));
    imported.says(&[
        "{ address = \"10.0.0.1:1\", weight = 1000 },",
        "{ address = \"10.0.0.2:1\", weight = 500 },",
        "{ address = \"10.0.0.3:1\" },",
    ]);
    imported.notes_that(3, "weights of b", Effect::Differs, "smaller alike");
}

#[test]
fn a_word_cannot_leave_its_comment_or_its_string() {
    let text = "upstream \"b\\\"\\n[[x]]\" { server 10.0.0.1:1; }\nserver { listen 1880; proxy_pass \"b\\\"\\n[[x]]\"; js_filter \"a\\nbind = 1\"; }";
    let imported = import_nginx(text);
    assert!(imported.toml.contains("js_filter a\\nbind = 1: left out"), "{}", imported.toml);
    imported.says(&["name = \"b\\\"[[x]]\""]);
    assert!(!imported.toml.lines().any(|line| line.starts_with("bind = 1") || line.starts_with("[[x")));
}

#[test]
fn the_example_of_the_readme_is_carried_over_whole() {
    let imported = import_nginx(EXAMPLE);
    imported.says(&["bind = \"127.0.0.1:1880\"", "hash = \"ketama\""]);
    assert!(imported.notes.iter().all(|note| note.effect == Effect::Same), "{:?}", imported.notes);
}
