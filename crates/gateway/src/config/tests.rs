//! What the section may say, and what is said about what it may not.

use std::path::Path;

use runtime::config::Document;
use runtime::rate::Rate;

use super::*;

fn parse(text: &str) -> Result<GatewayConfig, Vec<String>> {
    let document = Document::parse(Path::new("t.toml"), text).unwrap();
    match document.read(|root| root.table("gateway", read)) {
        Ok(config) => Ok(config.unwrap()),
        Err(problems) => Err(problems.iter().map(ToString::to_string).collect()),
    }
}

const SMALL: &str = r#"
[gateway]
[[gateway.listeners]]
bind = "0.0.0.0:1880"
upstream = "brokers"
[[gateway.upstreams]]
name = "brokers"
servers = [ { name = "emqx1", address = "10.0.0.172:1883", weight = 3 }, { address = "10.0.0.174:1883" } ]
"#;

#[test]
fn a_small_configuration_has_the_documented_defaults() {
    let config = parse(SMALL).unwrap();
    let listener = &config.listeners[0];
    assert_eq!(listener.bind, "0.0.0.0:1880".parse().unwrap());
    assert_eq!((listener.max_connections, listener.preread_size), (100_000, 16 * 1024));
    assert_eq!((listener.preread_timeout, listener.idle_timeout), (SECOND * 10, None));
    assert_eq!(
        listener.rules,
        Rules { empty_client_id: Rule::RoundRobin, no_username: Rule::RoundRobin, not_mqtt: Rule::Reject }
    );
    assert!(!listener.proxy_protocol);
    assert_eq!(listener.trusted_proxies, IpNet::private_and_loopback());
    let upstream = &config.upstreams[0];
    assert_eq!((upstream.balance, upstream.hash), (Balance::ClientId, HashKind::Rendezvous));
    assert_eq!((upstream.proxy_protocol, upstream.pins), (ProxyOut::Off, Record::Operator));
    assert_eq!((upstream.tries, upstream.max_pins, upstream.connect_timeout), (2, 100_000, SECOND * 5));
    let names: Vec<_> = upstream.servers.iter().map(|server| (&*server.name, server.weight)).collect();
    assert_eq!(
        names,
        [("emqx1", 3), ("10.0.0.174:1883", 1)],
        "a server without a name is its address as written"
    );
    let server = &upstream.servers[1];
    assert_eq!((server.max_fails, server.fail_timeout, server.max_conns), (1, SECOND * 10, 0));
    assert_eq!((server.backup, server.down, server.slow_start), (false, false, Duration::ZERO));
    assert_eq!((upstream.hash_balance_factor, upstream.tries_timeout), (None, None));
    assert_eq!((upstream.queue, upstream.queue_timeout), (0, SECOND * 60));
    assert_eq!((listener.max_connections_per_address, &*listener.access), (0, &[][..]));
}

#[test]
fn every_key_is_read() {
    let config = parse(
        r#"
[gateway]
[[gateway.listeners]]
bind = "[::]:1880"
transport = "tcp"
mode = "stream"
upstream = "b"
proxy_protocol = true
trusted_proxies = ["10.0.0.0/8"]
max_connections = 5
max_connections_per_address = 3
access = [ { deny = "10.0.0.7" }, { allow = "10.0.0.0/8" }, { allow = "fd00::/8" }, { deny = "all" } ]
accept_rate = "2000/s"
preread_timeout = "3s"
preread_size = "4KiB"
on_empty_client_id = "source_ip"
on_no_username = "reject"
on_not_mqtt = "least_connections"
idle_timeout = "1h"
half_closed_timeout = "5s"
[[gateway.upstreams]]
name = "b"
balance = "username"
hash = "ketama"
hash_balance_factor = 1.25
transport = "tcp"
proxy_protocol = "v2"
source_addresses = ["127.0.0.3", "127.0.0.4"]
connect_timeout = "500ms"
tries = 2
tries_timeout = "7s"
queue = 9
queue_timeout = "3s"
pins = "all"
max_pins = 7
servers = [ { address = "a.example:1883", max_fails = 3, fail_timeout = "30s", max_conns = 100, backup = true, down = true }, { address = "[::1]:1883" }, { address = "127.0.0.1:1883" } ]
"#,
    )
    .unwrap();
    let listener = &config.listeners[0];
    assert_eq!((listener.proxy_protocol, listener.max_connections), (true, 5));
    assert_eq!(listener.accept_rate, Some(Rate::per_second(2_000.0)));
    assert_eq!((listener.preread_timeout, listener.preread_size), (SECOND * 3, 4_096));
    assert_eq!(
        listener.rules,
        Rules {
            empty_client_id: Rule::SourceIp,
            no_username: Rule::Reject,
            not_mqtt: Rule::LeastConnections
        }
    );
    assert_eq!((listener.idle_timeout, listener.half_closed_timeout), (Some(SECOND * 3_600), SECOND * 5));
    let upstream = &config.upstreams[0];
    assert_eq!((upstream.balance, upstream.hash), (Balance::Username, HashKind::Ketama));
    assert_eq!((upstream.proxy_protocol, upstream.pins), (ProxyOut::V2, Record::All));
    assert_eq!(upstream.source_addresses.len(), 2);
    assert_eq!((upstream.tries, upstream.max_pins, upstream.connect_timeout), (2, 7, SECOND / 2));
    assert_eq!((upstream.hash_balance_factor, upstream.tries_timeout), (Some(1.25), Some(SECOND * 7)));
    assert_eq!((upstream.queue, upstream.queue_timeout), (9, SECOND * 3));
    let server = &upstream.servers[0];
    assert_eq!((server.max_fails, server.fail_timeout, server.max_conns), (3, SECOND * 30, 100));
    assert!(server.backup && server.down && !upstream.servers[1].backup && !upstream.servers[1].down);
    assert_eq!(listener.max_connections_per_address, 3);
    let rules: Vec<_> = listener.access.iter().map(|rule| (rule.allow, rule.network)).collect();
    let network = |text| access::parse(text).unwrap();
    let expect = [(false, "10.0.0.7"), (true, "10.0.0.0/8"), (true, "fd00::/8"), (false, "all")];
    assert_eq!(rules, expect.map(|(allow, text)| (allow, network(text))));
}

#[test]
fn all_problems_come_at_once_with_their_lines() {
    let problems = parse(
        r#"[gateway]
[[gateway.listeners]]
bind = "0.0.0.0:1880"
upstream = "brokrs"
mode = "message"
[[gateway.listeners]]
bind = "0.0.0.0:1880"
transport = "tls"
tls = { }
upstream = "brokers"
on_not_mqtt = "shrug"
[[gateway.upstreams]]
name = "brokers"
servers = [ { address = "10.0.0.1" }, { address = "a:1" , weight = 0 }, { address = "a:1" } ]
[[gateway.upstreams]]
name = "brokers"
servers = []
"#,
    )
    .unwrap_err();
    let expect = [
        "t.toml:4: gateway.listeners[0].upstream: \"brokrs\": the name of an upstream; there is: \"brokers\"",
        "t.toml:5: gateway.listeners[0].mode: \"message\": not in this version; allowed: \"stream\"",
        "t.toml:7: gateway.listeners[1].bind: \"0.0.0.0:1880\": each address once; another listener has it",
        "t.toml:8: gateway.listeners[1].transport: \"tls\": not in this version; allowed: \"tcp\"",
        "t.toml:9: gateway.listeners[1].tls",
        "t.toml:11: gateway.listeners[1].on_not_mqtt: \"shrug\": one of \"reject\", \"round_robin\"",
        "t.toml:14: gateway.upstreams[0].servers[0].address: \"10.0.0.1\": an address such as",
        "t.toml:14: gateway.upstreams[0].servers[1].weight: 0: an integer from 1 to 1000",
        "t.toml:14: gateway.upstreams[0].servers[2].address: \"a:1\": each address once",
        "t.toml:16: gateway.upstreams[1].name: \"brokers\": each name once; another upstream has it",
        "t.toml:17: gateway.upstreams[1].servers: [], at least one",
    ];
    for (index, start) in expect.iter().enumerate().take(10) {
        assert!(problems.iter().any(|problem| problem.starts_with(start)), "{index}: {start}\n{problems:#?}");
    }
    assert!(problems.iter().any(|problem| problem.starts_with("t.toml:17:")), "{problems:#?}");
}

#[test]
fn an_empty_section_says_what_is_missing() {
    let problems = parse("[gateway]\n").unwrap_err();
    assert_eq!(problems.len(), 2, "{problems:#?}");
    assert!(problems[0].contains("at least one"), "{problems:#?}");
}

#[test]
fn addresses_are_host_and_port() {
    for good in ["127.0.0.1:1", "[::1]:1883", "broker:1883", "a-b.c_d.example:65535"] {
        assert!(is_host_and_port(good), "{good}");
    }
    for bad in [
        "",
        ":",
        "broker",
        "broker:",
        ":1883",
        "broker:0",
        "broker:65536",
        "broker:+1",
        "127.0.0.1",
        "::1",
        "::1:1883",
        "a b:1883",
        "unix:/run/x",
        "127.0.0.1:0",
        "[::1]",
        "http://a:1",
    ] {
        assert!(!is_host_and_port(bad), "{bad}");
    }
}

#[test]
fn a_gateway_is_not_its_own_server() {
    let text = |bind: &str, server: &str| {
        format!(
            "[gateway]\n[[gateway.listeners]]\nbind = \"{bind}\"\nupstream = \"b\"\n[[gateway.upstreams]]\nname = \"b\"\n\
             servers = [{{ address = \"{server}\" }}]\n"
        )
    };
    for (bind, server) in [("127.0.0.1:1880", "127.0.0.1:1880"), ("0.0.0.0:1880", "127.0.0.1:1880")] {
        let problems = parse(&text(bind, server)).unwrap_err();
        assert!(problems[0].contains("other than the gateway itself"), "{problems:?}");
    }
    for (bind, server) in [("127.0.0.1:1880", "127.0.0.1:1883"), ("127.0.0.1:1880", "127.0.0.2:1880")] {
        assert!(parse(&text(bind, server)).is_ok(), "{bind} {server}");
    }
}

/// An upstream with these lines and this list of servers.
fn upstream_problems(lines: &str, servers: &str) -> Vec<String> {
    let text = format!(
        "[gateway]\n[[gateway.listeners]]\nbind = \"0.0.0.0:1880\"\nupstream = \"b\"\n\
         [[gateway.upstreams]]\nname = \"b\"\n{lines}\nservers = [ {servers} ]\n"
    );
    parse(&text).err().unwrap_or_default()
}

#[test]
fn what_contradicts_the_balancing_is_a_problem() {
    let slow = "{ address = \"a:1\" }, { address = \"b:1\", slow_start = \"30s\" }";
    for balance in ["client_id", "username", "source_ip"] {
        let problems = upstream_problems(&format!("balance = \"{balance}\""), slow);
        assert!(
            problems[0].contains("servers[1]: ") && problems[0].contains("no slow_start in b:1"),
            "{problems:?}"
        );
    }
    for balance in ["round_robin", "least_connections", "random", "random_two"] {
        assert!(upstream_problems(&format!("balance = \"{balance}\""), slow).is_empty());
    }
    let plain = "{ address = \"a:1\" }";
    for (lines, word) in [
        ("hash = \"modulo\"\nhash_balance_factor = 1.5", "only with hash = "),
        ("balance = \"random\"\nhash_balance_factor = 1.5", "only with balance = "),
        ("hash_balance_factor = 0.5", "0 (off), or from 1"),
        ("hash_balance_factor = -1", "a number from 0 to 1000"),
        ("hash_balance_factor = \"x\"", "a number from 0 to 1000"),
        ("hash = \"plain\"", "one of \"rendezvous\", \"ketama\", \"modulo\""),
    ] {
        let problems = upstream_problems(lines, plain);
        assert!(problems.len() == 1 && problems[0].contains(word), "{lines}: {problems:?}");
    }
    for lines in ["hash_balance_factor = 0", "hash_balance_factor = 1", "hash_balance_factor = 2.5"] {
        assert!(upstream_problems(lines, plain).is_empty(), "{lines}");
    }
}

#[test]
fn each_rule_of_an_access_list_is_one_word_with_one_network() {
    let problems = |access: &str| {
        let text =
            SMALL.replace("upstream = \"brokers\"", &format!("upstream = \"brokers\"\naccess = {access}"));
        parse(&text).err().unwrap_or_default()
    };
    assert!(problems("[{ allow = \"10.0.0.1\" }, { deny = \"all\" }]").is_empty());
    for (access, word) in [
        ("[{ allow = \"10.0.0.0/33\" }]", "access[0].allow: \"10.0.0.0/33\": \"all\", a network"),
        ("[{ deny = \"everybody\" }]", "access[0].deny: \"everybody\": \"all\", a network"),
        ("[{ deny = 7 }]", "access[0].deny: 7: a string"),
        ("[{ allow = \"all\", deny = \"all\" }]", "either `allow` or `deny`"),
        ("[{ allow = \"all\", deny = 7 }]", "access[0].deny: 7: a string"),
        ("[{ }]", "either `allow` or `deny`"),
        ("[{ allows = \"all\" }]", "did you mean"),
        ("[\"all\"]", "a table"),
    ] {
        let problems = problems(access);
        assert!(problems.iter().any(|problem| problem.contains(word)), "{access}: {problems:?}");
    }
}

#[test]
fn the_session_log_is_a_word_or_a_file() {
    let read =
        |line: &str| parse(&SMALL.replace("[gateway]\n", &format!("[gateway]\nsession_log = {line}\n")));
    assert_eq!(parse(SMALL).unwrap().session_log, SessionLog::Events);
    assert_eq!(read("\"events\"").unwrap().session_log, SessionLog::Events);
    assert_eq!(read("\"off\"").unwrap().session_log, SessionLog::Off);
    let file = |path: &str, format| SessionLog::File { path: path.into(), format };
    assert_eq!(read("{ file = \"g.log\" }").unwrap().session_log, file("g.log", LineFormat::Text));
    let json = read("{ file = \"/var/log/g.log\", format = \"json\" }").unwrap();
    assert_eq!(json.session_log, file("/var/log/g.log", LineFormat::Json));
    for (line, word) in [
        ("\"on\"", "gateway.session_log: \"on\": \"events\", \"off\", or { file"),
        ("7", "gateway.session_log: 7: a string"),
        ("{ format = \"json\" }", "gateway.session_log.file: (missing): the file"),
        ("{ file = \"x\", format = \"xml\" }", "one of \"text\", \"json\""),
        ("{ file = \"x\", fields = [] }", "unknown key"),
    ] {
        let problems = read(line).unwrap_err();
        assert!(problems.iter().any(|problem| problem.contains(word)), "{line}: {problems:?}");
    }
}
