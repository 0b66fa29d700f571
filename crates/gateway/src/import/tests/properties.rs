//! Whatever a configuration says, what comes out of it is one that the gateway takes.

use proptest::prelude::*;
use proptest::sample::select;

use super::*;

fn lines(line: impl Strategy<Value = String>, most: usize) -> impl Strategy<Value = String> {
    prop::collection::vec(line, 0..most).prop_map(|lines| lines.join("\n"))
}

/// A directive of an nginx server, right or wrong or unknown.
fn nginx_directive() -> impl Strategy<Value = String> {
    let fixed = select(vec![
        "proxy_protocol on;",
        "proxy_next_upstream off;",
        "mqtt_preread on;",
        "proxy_half_close on;",
        "allow 10.0.0.0/8;",
        "deny all;",
        "allow ::/0;",
        "set_real_ip_from 10.0.0.0/8;",
        "set_real_ip_from lb.example;",
        "status_zone x;",
        "limit_conn zone 5;",
        "proxy_bind 10.0.0.1;",
        "proxy_bind 0.0.0.0;",
        "proxy_bind $split;",
        "ssl_preread on;",
        "upsync_interval 1s;",
        "access_log off;",
        "proxy_upload_rate 1k;",
        "health_check;",
    ])
    .prop_map(str::to_owned);
    let timed = (
        select(vec![
            "proxy_timeout",
            "proxy_connect_timeout",
            "preread_timeout",
            "proxy_next_upstream_timeout",
        ]),
        0_u64..10_000_000,
        select(vec!["ms", "s", "m", "h", "d", ""]),
    )
        .prop_map(|(name, number, unit)| format!("{name} {number}{unit};"));
    let counted = (select(vec!["proxy_next_upstream_tries", "preread_buffer_size"]), 0_u64..10_000_000)
        .prop_map(|(name, number)| format!("{name} {number};"));
    prop_oneof![fixed, timed, counted]
}

fn nginx_upstream(name: usize) -> impl Strategy<Value = String> {
    let method = select(vec![
        "",
        "least_conn;",
        "random;",
        "random two;",
        "least_time first_byte;",
        "hash $mqtt_preread_clientid consistent;",
        "hash $remote_addr;",
        "hash $binary_remote_addr consistent;",
        "hash $x$y;",
        "hash $mqtt_preread_username;",
        "queue 5;",
        "queue 0 timeout=9d;",
    ]);
    let address = prop_oneof![
        (0_u8..6, 1_u16..6).prop_map(|(host, port)| format!("10.0.0.{host}:{port}")),
        (1_880_u16..1_886).prop_map(|port| format!("127.0.0.1:{port}")),
        select(vec!["[::1]:1883", "broker.example:1883", "unix:/run/x"]).prop_map(str::to_owned),
    ];
    let parameter = prop_oneof![
        (select(vec!["weight", "max_fails", "max_conns"]), 1_u64..100_000)
            .prop_map(|(k, v)| format!("{k}={v}")),
        (select(vec!["fail_timeout", "slow_start"]), 0_u64..1_000_000).prop_map(|(k, v)| format!("{k}={v}s")),
        select(vec!["backup", "down", "resolve"]).prop_map(str::to_owned),
    ];
    let server = (address, prop::collection::vec(parameter, 0..4))
        .prop_map(|(address, parameters)| format!("server {address} {};", parameters.join(" ")));
    (method, prop::collection::vec(server, 1..8))
        .prop_map(move |(method, servers)| format!("upstream u{name} {{ {method}\n{} }}", servers.join("\n")))
}

fn nginx_config() -> impl Strategy<Value = String> {
    let listen = (
        select(vec!["", "*:", "127.0.0.1:", "[::]:", "10.0.0.1:"]),
        1_880_u16..1_886,
        select(vec!["", "proxy_protocol", "reuseport", "ssl", "udp", "ipv6only=off", "so_keepalive=on"]),
    )
        .prop_map(|(host, port, parameter)| format!("listen {host}{port} {parameter};"));
    let target = select(vec!["u0", "u1", "u2", "10.0.0.7:1883", "$x", "unix:/run/y"]);
    let server = (prop::collection::vec(listen, 1..4), target, lines(nginx_directive(), 8)).prop_map(
        |(listens, target, directives)| {
            format!("server {{ {} proxy_pass {target};\n{directives} }}", listens.join(" "))
        },
    );
    let head =
        "limit_conn_zone $remote_addr zone=zone:1m;\nsplit_clients $x $split { 1% 10.0.0.1; * 10.0.0.2; }";
    (lines(nginx_directive(), 4), nginx_upstream(0), nginx_upstream(1), nginx_upstream(2), lines(server, 5))
        .prop_map(move |(stream, a, b, c, servers)| {
            format!("stream {{ {head}\n{stream}\n{a}\n{b}\n{c}\n{servers} }}")
        })
}

fn haproxy_line() -> impl Strategy<Value = String> {
    let fixed = select(vec![
        "balance roundrobin",
        "balance leastconn",
        "balance source",
        "balance random(1)",
        "balance first",
        "balance hash req.payload(0,0),mqtt_field_value(connect,client_identifier)",
        "hash-type consistent",
        "hash-balance-factor 150",
        "hash-balance-factor 1",
        "option redispatch",
        "option redispatch 2",
        "option allbackups",
        "option tcplog",
        "no option redispatch",
        "stick on src",
        "made up",
        "source 10.0.0.1",
        "source 0.0.0.0 usesrc clientip",
        "stick on req.payload(0,0),mqtt_field_value(connect,client_identifier)",
        "stick-table type string size 100m peers p",
        "tcp-request connection reject if { src 10.0.0.0/8 }",
        "tcp-request connection reject unless { src 10.0.0.0/8 }",
        "tcp-request connection accept if { src 10.1.0.0/16 }",
        "tcp-request connection accept",
        "tcp-request connection reject",
        "tcp-request connection reject if { src_conn_cur ge 1 }",
        "tcp-request content reject unless { mqtt_is_valid }",
        "tcp-request connection expect-proxy layer4",
        "default-server check maxconn 5",
        "default-server send-proxy",
    ])
    .prop_map(str::to_owned);
    let timed = (
        select(vec![
            "timeout connect",
            "timeout client",
            "timeout server",
            "timeout tunnel",
            "timeout queue",
            "timeout client-fin",
            "tcp-request inspect-delay",
        ]),
        0_u64..100_000_000,
        select(vec!["us", "ms", "s", "m", ""]),
    )
        .prop_map(|(name, number, unit)| format!("{name} {number}{unit}"));
    let counted = (select(vec!["maxconn", "retries", "rate-limit sessions"]), 0_u64..20_000_000)
        .prop_map(|(name, number)| format!("{name} {number}"));
    let bind = (
        select(vec!["", "*", "127.0.0.1", "[::]"]),
        1_880_u16..1_886,
        select(vec!["", "accept-proxy", "ssl", "v4v6"]),
    )
        .prop_map(|(host, port, parameter)| format!("bind {host}:{port} {parameter}"));
    let parameter = prop_oneof![
        (select(vec!["maxconn", "maxqueue", "error-limit", "weight"]), 0_u64..20_000_000)
            .prop_map(|(k, v)| format!("{k} {v}")),
        select(vec![
            "check",
            "backup",
            "disabled",
            "send-proxy",
            "send-proxy-v2",
            "slowstart 9d",
            "observe layer4",
            "inter 2s"
        ])
        .prop_map(str::to_owned),
    ];
    let server =
        (select(vec!["a", "b", "10.0.0.1:1"]), 0_u8..4, 1_u16..4, prop::collection::vec(parameter, 0..4))
            .prop_map(|(name, host, port, parameters)| {
                format!("server {name} 10.0.0.{host}:{port} {}", parameters.join(" "))
            });
    prop_oneof![2 => fixed, 1 => timed, 1 => counted, 1 => bind, 3 => server]
}

fn haproxy_config() -> impl Strategy<Value = String> {
    (lines(haproxy_line(), 3), lines(haproxy_line(), 12), lines(haproxy_line(), 12), lines(haproxy_line(), 12)).prop_map(
        |(defaults, one, front, back)| {
            // weights of HAProxy end at 256, names are unique: what comes out has to be right without either
            format!(
                "defaults\n{defaults}\nlisten one\nbind :1880\nserver s 10.0.0.1:1\n{one}\nfrontend f\nbind :1881\n{front}\n\
                 default_backend back\nbackend back\nserver s 10.0.0.1:1\n{back}"
            )
        },
    )
}

/// Something comes out that the gateway takes, or it is told why not; what is not carried over is told with its line.
fn comes_out_right(imported: Result<Imported, ImportError>, text: &str) -> Result<(), TestCaseError> {
    match imported {
        Ok(imported) => {
            let problems = judge(&imported).err();
            prop_assert_eq!(problems, None, "{}\n----\n{}", text, imported.toml);
            let count = u32::try_from(text.lines().count()).unwrap();
            prop_assert!(imported.notes.iter().all(|note| (1..=count).contains(&note.place.line)));
            for note in &imported.notes {
                let comment = format!("# {note}\n");
                prop_assert!(imported.toml.contains(&comment), "{comment} is not in\n{}", imported.toml);
            }
        }
        Err(ImportError::Nothing { notes }) => prop_assert!(!notes.is_empty(), "{}", text),
        Err(ImportError::Syntax { place, problem }) => {
            prop_assert!(place.line > 0 && !problem.is_empty(), "{}", text);
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn what_comes_out_of_nginx_is_what_the_gateway_takes(text in nginx_config()) {
        comes_out_right(read_nginx(&text), &text)?;
    }

    #[test]
    fn what_comes_out_of_haproxy_is_what_the_gateway_takes(text in haproxy_config()) {
        comes_out_right(read_haproxy(&text), &text)?;
    }

    #[test]
    fn no_configuration_is_too_strange(text in "(stream|server|upstream|listen|frontend|backend|bind|[a-z0-9:;{} \\n\"'$\\\\]){0,40}") {
        let (_, _) = (read_nginx(&text), read_haproxy(&text));
    }
}
