//! HAProxy: what is carried over, what is not and how it is told.

use super::*;
use crate::access::Network;

const FLEET: &str = "global
    log stdout format raw local0
    maxconn 5000

defaults
    mode tcp
    option tcplog
    timeout connect 5s
    timeout client 1m
    timeout server 2m

frontend mqtt
    bind *:1880 accept-proxy
    maxconn 1000
    default_backend brokers

backend brokers
    balance leastconn
    option redispatch
    server emqx1 10.0.0.172:1883 check send-proxy-v2 weight 2
    server emqx2 10.0.0.174:1883 check send-proxy-v2 backup
";

const FLEET_TOML: &str = r#"# From haproxy.cfg, by `tidegate import haproxy`.
# haproxy.cfg:2: log stdout format raw local0: not needed: the end of every connection is logged; [log] says how
# haproxy.cfg:7: option tcplog: not needed: the end of every connection is logged; [log] says how

[gateway]

# haproxy.cfg:13
# haproxy.cfg:14: maxconn 1000: differs: HAProxy lets those above it wait to be accepted; here they are closed at once
# haproxy.cfg:13: bind ... accept-proxy: not needed: HAProxy believes a PROXY header of everyone; so does this listener: write down who may send one
[[gateway.listeners]]
bind = "0.0.0.0:1880"
upstream = "brokers"
proxy_protocol = true
trusted_proxies = ["0.0.0.0/0", "::/0"]  # everyone, as in HAProxy: better name your balancers
max_connections = 1000
on_not_mqtt = "least_connections"  # HAProxy passes on what is not MQTT, too
idle_timeout = "1m"             # the shorter of timeout client and timeout server

# haproxy.cfg:17
# haproxy.cfg:20: server ... check: differs: active checks are not in this version; max_fails takes a server out after connections that failed
# haproxy.cfg:21: server ... check: differs: active checks are not in this version; max_fails takes a server out after connections that failed
[[gateway.upstreams]]
name = "brokers"
balance = "least_connections"
proxy_protocol = "v2"
connect_timeout = "5s"
tries = 2                       # retries with option redispatch: each try is of another server
servers = [
  { name = "emqx1", address = "10.0.0.172:1883", weight = 2 },
  { name = "emqx2", address = "10.0.0.174:1883", backup = true },
]
"#;

/// A `listen` that begins in line 1, with these lines from line 2 on, then a bind and two servers.
fn listen(lines: &str) -> String {
    format!("listen mqtt\n{lines}\nbind 127.0.0.1:1880\nserver a 10.0.0.1:1883\nserver b 10.0.0.2:1883\n")
}

#[test]
fn a_frontend_and_its_backend_become_a_listener_and_its_upstream() {
    let imported = import_haproxy(FLEET);
    assert_eq!(imported.toml, FLEET_TOML);
    assert_eq!((imported.listeners, imported.upstreams), (1, 1));
    assert!(!imported.is_faithful());
}

#[test]
fn a_listen_is_both() {
    let imported = import_haproxy(&listen(""));
    imported.says(&[
        "bind = \"127.0.0.1:1880\"",
        "upstream = \"mqtt\"",
        "balance = \"round_robin\"",
        "tries = 1",
    ]);
    assert!(imported.toml.contains("max_fails = 0 },   # without check"), "{}", imported.toml);
    assert!(imported.is_faithful(), "{:#?}", imported.notes);
}

#[test]
fn every_balance_has_its_place() {
    let client = "req.payload(0,0),mqtt_field_value(connect,client_identifier)";
    for (balance, ours, effect) in [
        ("roundrobin", "round_robin", None),
        ("static-rr", "round_robin", None),
        ("leastconn", "least_connections", None),
        ("random", "random_two", None),
        ("random(2)", "random_two", None),
        ("random(1)", "random", None),
        ("source", "source_ip", Some("once")),
        (&format!("hash {client}"), "client_id", Some("once")),
        ("hash req.payload(0,0),mqtt_field_value(connect,username)", "username", Some("once")),
        ("hash src", "source_ip", Some("once")),
        ("hash req.len", "client_id", Some("the client id is taken")),
        ("first", "least_connections", Some("fewest")),
        ("rdp-cookie", "round_robin", Some("turn")),
    ] {
        let imported = import_haproxy(&listen(&format!("balance {balance}")));
        imported.says(&[&format!("balance = \"{ours}\"")]);
        match effect {
            None => assert!(imported.is_faithful(), "{balance}: {:#?}", imported.notes),
            Some(why) => imported.notes_that(2, &format!("balance {balance}"), Effect::Differs, why),
        }
    }
}

#[test]
fn hashes_are_consistent_and_bounded_where_they_were() {
    let imported = import_haproxy(&listen("balance source\nhash-type consistent\nhash-balance-factor 150"));
    imported.says(&["hash_balance_factor = 1.50"]);
    imported.notes_that(3, "hash-type consistent", Effect::Same, "consistent");
    let imported = import_haproxy(&listen("balance roundrobin\nhash-balance-factor 150"));
    imported.says_nothing_of(&["hash_balance_factor"]);
}

#[test]
fn a_stick_table_is_pins_or_a_hash() {
    let on_client = "stick on req.payload(0,0),mqtt_field_value(connect,client_identifier)";
    let table = "stick-table type string len 32 size 100k expire 30m";
    let imported = import_haproxy(&listen(&format!("{table}\n{on_client}\nbalance leastconn")));
    imported.says(&["balance = \"least_connections\"", "pins = \"all\"", "max_pins = 102400"]);
    imported.notes_that(3, on_client, Effect::Differs, "does not expire");
    let imported = import_haproxy(&listen(&format!("{table} peers others\n{on_client}")));
    imported.notes_that(2, &format!("{table} peers others"), Effect::LeftOut, "other gateways");
    let imported = import_haproxy(&listen("stick-table type ip size 1m\nstick on src"));
    imported.says(&["balance = \"source_ip\""]);
    imported.says_nothing_of(&["pins", "max_pins"]);
}

#[test]
fn every_parameter_of_a_server_is_carried_over_or_named() {
    let imported = import_haproxy(
        "listen mqtt\nbind :1880\ntimeout queue 3s\ndefault-server check maxconn 100 slowstart 30s\n\
         server a 10.0.0.1:1883 weight 0\nserver b 10.0.0.2:1883 disabled no-check inter 2s fall 3\n\
         server c [::1]:1883 observe layer4 error-limit 4 maxqueue 50\nserver d 10.0.0.4:1883 backup on-marked-down shutdown-sessions\n\
         server e 10.0.0.5:1883 ssl verify none",
    );
    imported.says(&[
        "{ name = \"a\", address = \"10.0.0.1:1883\", max_conns = 100, slow_start = \"30s\", down = true },",
        "{ name = \"c\", address = \"[::1]:1883\", max_fails = 4, max_conns = 100, slow_start = \"30s\" },",
        "{ name = \"d\", address = \"10.0.0.4:1883\", max_conns = 100, slow_start = \"30s\", backup = true },",
        "queue = 50",
        "queue_timeout = \"3s\"",
    ]);
    assert!(imported.toml.contains("max_fails = 0, max_conns = 100, slow_start = \"30s\", down = true"));
    imported.notes_that(8, "server ... on-marked-down", Effect::LeftOut, "stay until they end");
    imported.notes_that(9, "server e 10.0.0.5:1883 ssl verify none", Effect::LeftOut, "TLS");
    assert!(read_haproxy("listen m\nbind :1880\nserver a 10.0.0.1:1883 colour red").is_err());
    assert!(read_haproxy("listen m\nbind :1880\nserver a 10.0.0.1:1883 weight").is_err());
}

#[test]
fn addresses_take_the_listeners_port_and_the_environment() {
    let imported = import_haproxy(
        "listen m\nbind :1880\nserver a 10.0.0.1\nserver b 10.0.0.2:+3\nserver c \"${HOST}:$PORT\"",
    );
    imported.says(&["bind = \"0.0.0.0:1880\""]);
    for address in ["10.0.0.1:1880", "10.0.0.2:1883", "10.0.0.1:1883"] {
        assert!(imported.toml.contains(&format!("address = \"{address}\"")), "{address}: {}", imported.toml);
    }
    let imported = import_haproxy(
        "listen m\nbind :1880-1882,:::1890\nserver a 10.0.0.1\nserver b unix@/run/b\nserver c 10.0.0.3:1883",
    );
    assert_eq!(imported.listeners, 4);
    imported.notes_that(3, "server a 10.0.0.1", Effect::LeftOut, "a port");
    imported.notes_that(4, "server b unix@/run/b", Effect::LeftOut, "an address or a name");
    let error = read_haproxy("listen m\nbind :1880\nserver a \"$NOWHERE\":1").unwrap_err();
    assert_eq!(
        error.to_string(),
        "haproxy.cfg:3: the variable NOWHERE is not in the environment of this import"
    );
}

#[test]
fn the_header_is_that_of_most_servers() {
    let text = "listen m\nbind :1880\nserver a 10.0.0.1:1 send-proxy\nserver b 10.0.0.2:1 send-proxy\nserver c 10.0.0.3:1";
    let imported = import_haproxy(text);
    imported.says(&["proxy_protocol = \"v1\""]);
    imported.notes_that(5, "server ... send-proxy", Effect::Differs, "here v1, and this one wants none");
}

#[test]
fn who_may_connect_is_a_list_in_the_same_order() {
    let allow = |imported: &Imported| {
        let config = judge(imported).unwrap();
        let mut text = String::new();
        for rule in &config.listeners[0].access {
            let network = match rule.network {
                Network::All => "all".to_owned(),
                Network::Net(network) => network.to_string(),
            };
            text.push_str(&format!("{}{network} ", if rule.allow { '+' } else { '-' }));
        }
        text.trim_end().to_owned()
    };
    for (rules, expected) in [
        ("tcp-request connection reject if { src 10.1.0.0/16 10.2.0.0/16 }", "-10.1.0.0/16 -10.2.0.0/16"),
        (
            "acl bad src 10.1.0.0/16\nacl bad src 10.2.0.0/16\ntcp-request connection reject if bad",
            "-10.1.0.0/16 -10.2.0.0/16",
        ),
        (
            "tcp-request connection accept if { src 10.1.1.1 }\ntcp-request connection reject if { src 10.1.0.0/16 }",
            "+10.1.1.1/32 -10.1.0.0/16",
        ),
        ("acl ours src 10.0.0.0/8\ntcp-request connection reject if !ours", "+10.0.0.0/8 -all"),
        ("tcp-request connection reject unless { src 10.0.0.0/8 }", "+10.0.0.0/8 -all"),
        (
            "tcp-request connection accept if { src 10.9.9.9 }\ntcp-request connection reject unless { src 10.0.0.0/8 }\n\
             tcp-request connection reject if { src 10.9.0.0/16 }",
            "+10.9.9.9/32 -10.9.0.0/16 +10.0.0.0/8 -all",
        ),
        (
            "acl a src 10.1.0.0/16\nacl b src 10.2.0.0/16\ntcp-request connection reject if a || b",
            "-10.1.0.0/16 -10.2.0.0/16",
        ),
        (
            "tcp-request connection accept if { src 10.1.1.1 }\ntcp-request connection reject",
            "+10.1.1.1/32 -all",
        ),
    ] {
        let imported = import_haproxy(&listen(rules));
        assert_eq!(allow(&imported), expected, "{rules}");
        assert!(imported.is_faithful(), "{rules}: {:#?}", imported.notes);
    }
    for rule in [
        "tcp-request connection reject if { src 10.0.0.1 } { dst_port 1880 }",
        "tcp-request connection reject if { src -f /etc/list }",
        "tcp-request connection reject if { nbsrv lt 1 }",
        "tcp-request content reject if { req.len 0 }",
    ] {
        import_haproxy(&listen(rule)).notes_that(2, rule, Effect::LeftOut, "");
    }
}

#[test]
fn limits_and_waits_are_carried_over() {
    let imported = import_haproxy(&listen(
        "timeout tunnel 1h\ntimeout client-fin 30s\ntcp-request inspect-delay 7s\n\
         stick-table type ip size 1m store conn_cur\n\
         tcp-request connection track-sc0 src\ntcp-request connection reject if { src_conn_cur gt 20 }\n\
         tcp-request content reject unless { req.payload(0,0),mqtt_is_valid }\nsource 10.0.0.9\nretries 4\noption redispatch 2",
    ));
    imported.says(&[
        "idle_timeout = \"1h\"",
        "half_closed_timeout = \"30s\"",
        "preread_timeout = \"7s\"",
        "max_connections_per_address = 20",
        "on_not_mqtt = \"reject\"",
        "source_addresses = [\"10.0.0.9\"]",
        "tries = 2",
    ]);
    assert!(imported.is_faithful(), "{:#?}", imported.notes);
    let imported =
        import_haproxy(&listen("tcp-request connection expect-proxy layer4 if { src 10.0.0.0/8 }"));
    imported.says(&["proxy_protocol = true", "trusted_proxies = [\"10.0.0.0/8\"]"]);
}

#[test]
fn what_is_counted_without_a_table_is_refused_as_haproxy_does() {
    for line in [
        "tcp-request connection reject if { src_conn_cur gt 20 }",
        "tcp-request connection reject if !{ src_conn_rate lt 20 }",
        "acl fast src_conn_rate gt 20",
        "tcp-request connection track-sc0 src",
    ] {
        let Err(ImportError::Syntax { place, problem }) = read_haproxy(&listen(line)) else {
            panic!("{line} is taken")
        };
        assert_eq!(place.line, 2, "{line}");
        assert!(problem.starts_with("unable to find table '"), "{problem}");
    }
    let elsewhere = "acl fast src_conn_rate(counts) gt 20\ntcp-request connection track-sc0 src table counts";
    assert!(read_haproxy(&listen(elsewhere)).is_ok());
}

#[test]
fn what_haproxy_lets_wait_and_the_gateway_does_not_is_named() {
    let above = "closed at once";
    let imported = import_haproxy(&listen("maxconn 30\nrate-limit sessions 500"));
    imported.says(&["max_connections = 30", "accept_rate = \"500/s\""]);
    imported.notes_that(2, "maxconn 30", Effect::Differs, above);
    imported.notes_that(3, "rate-limit sessions 500", Effect::Differs, "connection rate exceeded");
    let imported = import_haproxy(
        "global\nmaxconn 40\nlisten m\nbind :1880 maxconn 20\nbind :1881\nmaxconn 0\nserver a 10.0.0.1:1",
    );
    imported.says(&["max_connections = 20", "max_connections = 40"]);
    imported.notes_that(4, "bind ... maxconn 20", Effect::Differs, above);
    imported.notes_that(3, "maxconn of global", Effect::Differs, above);
    let limited = |balance: &str| {
        import_haproxy(&format!("listen m\nbind :1880\nbalance {balance}\nserver a 10.0.0.1:1 maxconn 9"))
    };
    let what = "maxconn of servers of m";
    limited("source").notes_that(1, what, Effect::Differs, "the server it belongs to");
    assert!(limited("leastconn").is_faithful());
}

#[test]
fn other_protocols_and_other_sections_are_named() {
    let imported = import_haproxy(
        "defaults\nmode http\nfrontend web\nbind :80\ndefault_backend web\nbackend web\nserver w 10.0.0.1:80\n\
         peers p\npeer a 10.0.0.1:1\nresolvers r\nlisten off\ndisabled\nbind :1\n\
         listen mqtt\nmode tcp\nbind :1880\nbind :8883 ssl crt /etc/x.pem\nserver a 10.0.0.1:1883\nuse_backend web if { dst_port 1 }\nnonsense yes",
    );
    assert_eq!(imported.listeners, 1);
    imported.notes_that(3, "frontend web", Effect::LeftOut, "mode is http");
    imported.notes_that(8, "peers p", Effect::Same, "the same answer");
    imported.notes_that(11, "listen off", Effect::Same, "disabled");
    imported.notes_that(17, "bind :8883 ssl crt /etc/x.pem", Effect::LeftOut, "TLS");
    imported.notes_that(20, "nonsense yes", Effect::LeftOut, "not known here");
    let ImportError::Nothing { notes } = read_haproxy("frontend f\nbind :1880\n").unwrap_err() else {
        panic!("nothing")
    };
    noted(&notes, 1, "frontend f", Effect::LeftOut, "no backend");
}
