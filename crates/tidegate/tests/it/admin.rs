//! The REST API of a real process: every route, the OpenAPI document, metrics, and who is kept out.

use std::collections::{BTreeMap, BTreeSet};

use mqtt::packet::{Connect, ConnectProperties};
use mqtt::{QoS, Version};
use serde_json::{Value, json};

use crate::harness::fleet::{mosquittos, servers};
use crate::harness::http::{ask, get, try_ask};
use crate::harness::{Device, Site, Tidegate, device};

/// A process with both roles: a connected client and one that is away at the broker, a device through the gateway.
fn whole() -> (Tidegate, Vec<crate::harness::Mosquitto>, Vec<Device>) {
    let mosquittos = mosquittos(1);
    let process = Site::new("node1").broker("", "").gateway("", "", &servers(&mosquittos)).start();
    let keeping = Connect {
        clean_start: false,
        properties: ConnectProperties { session_expiry_interval: Some(600), ..Default::default() },
        ..device::connect(Version::V5, "away")
    };
    let mut away = Device::connect(process.mqtt(), &keeping);
    away.subscribe("orders/#", QoS::AtLeastOnce);
    away.goodbye();
    let mut here = Device::connect(process.mqtt(), &device::connect(Version::V5, "a/b"));
    here.subscribe("state/+", QoS::ExactlyOnce);
    let through = Device::connect(process.gate(), &device::connect(Version::V311, "a/b"));
    process.connection("a/b");
    (process, mosquittos, vec![here, through])
}

/// Every route with a request that succeeds and its status.
const ROUTES: &[(&str, &str, &str, u16)] = &[
    ("GET", "/api/v1/clients", "/api/v1/clients?conn_state=disconnected", 200),
    ("GET", "/api/v1/clients/{clientid}", "/api/v1/clients/a%2Fb", 200),
    ("GET", "/api/v1/clients/{clientid}/subscriptions", "/api/v1/clients/a%2Fb/subscriptions", 200),
    ("DELETE", "/api/v1/clients/{clientid}", "/api/v1/clients/a%2Fb", 204),
    ("DELETE", "/api/v1/clients", "/api/v1/clients?clientid=away", 204),
    ("GET", "/api/v1/nodes", "/api/v1/nodes", 200),
    ("GET", "/api/v1/gateway/connections", "/api/v1/gateway/connections?server=mq1", 200),
    ("GET", "/api/v1/gateway/connections/{clientid}", "/api/v1/gateway/connections/a%2Fb", 200),
    ("GET", "/api/v1/gateway/listeners", "/api/v1/gateway/listeners", 200),
    ("GET", "/api/v1/upstreams", "/api/v1/upstreams", 200),
    (
        "POST",
        "/api/v1/upstreams/{name}/servers/{server}/drain",
        "/api/v1/upstreams/brokers/servers/mq1/drain",
        200,
    ),
    (
        "POST",
        "/api/v1/upstreams/{name}/servers/{server}/enable",
        "/api/v1/upstreams/brokers/servers/mq1/enable",
        200,
    ),
    ("PUT", "/api/v1/upstreams/{name}/pins/{key}", "/api/v1/upstreams/brokers/pins/car%2F7", 200),
    ("PUT", "/api/v1/upstreams/{name}/pins", "/api/v1/upstreams/brokers/pins?key=..", 200),
    ("GET", "/api/v1/upstreams/{name}/pins", "/api/v1/upstreams/brokers/pins", 200),
    ("DELETE", "/api/v1/upstreams/{name}/pins/{key}", "/api/v1/upstreams/brokers/pins/car%2F7", 204),
    ("DELETE", "/api/v1/upstreams/{name}/pins", "/api/v1/upstreams/brokers/pins?key=..", 204),
    ("GET", "/api/v1/events", "/api/v1/events?type=client_connected&limit=1", 200),
    ("POST", "/api/v1/config/reload", "/api/v1/config/reload", 200),
    ("GET", "/api/v1/openapi.json", "/api/v1/openapi.json", 200),
    ("GET", "/metrics", "/metrics", 200),
    ("GET", "/livez", "/livez", 200),
    ("GET", "/readyz", "/readyz", 200),
];

#[test]
fn every_route_of_the_openapi_document_answers() {
    let (process, _mosquittos, _devices) = whole();
    let document = get(process.api(), "/api/v1/openapi.json").json();
    let mut listed = BTreeSet::new();
    for (path, methods) in document["paths"].as_object().expect("paths") {
        for method in methods.as_object().expect("methods").keys() {
            listed.insert((method.to_uppercase(), path.clone()));
        }
    }
    let asked: BTreeSet<_> =
        ROUTES.iter().map(|(method, route, ..)| ((*method).to_owned(), (*route).to_owned())).collect();
    assert_eq!(asked, listed, "this test asks every route");
    for (method, route, path, status) in ROUTES {
        let (headers, body) = match *method {
            "PUT" => (&[("content-type", "application/json")][..], "{\"server\": \"mq1\"}"),
            _ => (&[][..], ""),
        };
        let answer = try_ask(process.api(), method, path, headers, body).expect("an answer");
        assert_eq!(answer.status, *status, "{method} {path}: {answer:?}");
        let described = &document["paths"][route][method.to_lowercase()]["responses"];
        assert!(described.get(status.to_string()).is_some(), "{method} {route}: {status} in {described}");
        if *status == 200 && route.starts_with("/api") {
            assert_eq!(answer.kind, "application/json", "{method} {path}");
            answer.json();
        }
    }
}

#[test]
fn a_client_and_a_connection_have_the_fields_that_scripts_rely_on() {
    let (process, _mosquittos, devices) = whole();
    let client = get(process.api(), "/api/v1/clients/a%2Fb").json();
    let peer = devices[0].local().to_string();
    let expected = json!({
        "clientid": "a/b", "username": null, "node": "node1", "connected": true, "proto_name": "MQTT", "proto_ver": 5,
        "peer": peer, "clean_start": true, "session_present": false, "keepalive": 60, "expiry_interval": 0,
        "subscriptions_cnt": 1, "inflight_cnt": 0, "mqueue_len": 0, "mqueue_dropped": 0,
    });
    for (name, value) in expected.as_object().expect("an object") {
        assert_eq!(client[name], *value, "{name} in {client}");
    }
    let away = get(process.api(), "/api/v1/clients/away").json();
    assert_eq!((&away["connected"], &away["expiry_interval"]), (&false.into(), &600.into()));
    assert!(away["disconnected_at"].is_string(), "{away}");
    let connection = get(process.api(), "/api/v1/gateway/connections/a%2Fb").json();
    let expected = json!({
        "clientid": "a/b", "username": null, "proto_ver": 4, "peer": devices[1].local().to_string(),
        "upstream": "brokers", "server": "mq1", "chosen_by": "hash",
    });
    for (name, value) in expected.as_object().expect("an object") {
        assert_eq!(connection[name], *value, "{name} in {connection}");
    }
    let subscription = get(process.api(), "/api/v1/clients/a%2Fb/subscriptions").json();
    assert_eq!(
        subscription["data"],
        json!([{"clientid": "a/b", "topic": "state/+", "qos": 2, "nl": 0, "rap": 0, "rh": 0, "node": "node1"}])
    );
    let node = &get(process.api(), "/api/v1/nodes").json()["data"][0];
    assert_eq!(
        (&node["node"], &node["connections"], &node["sessions"]),
        (&"node1".into(), &1.into(), &2.into())
    );
}

#[test]
fn long_lists_come_in_pages_that_hold_everybody_once() {
    let broker = Tidegate::broker("node1");
    let held: Vec<_> = (0..25)
        .map(|number| Device::connect(broker.mqtt(), &device::connect(Version::V5, &format!("c{number:02}"))))
        .collect();
    let mut path = "/api/v1/clients?limit=10".to_owned();
    let mut pages = Vec::new();
    loop {
        let page = get(broker.api(), &path).json();
        let rows: Vec<String> = page["data"]
            .as_array()
            .expect("rows")
            .iter()
            .map(|row| row["clientid"].as_str().expect("an id").to_owned())
            .collect();
        pages.push(rows);
        let Value::String(cursor) = &page["meta"]["cursor"] else { break };
        path = format!("/api/v1/clients?limit=10&cursor={cursor}");
    }
    assert_eq!(pages.iter().map(Vec::len).collect::<Vec<_>>(), [10, 10, 5]);
    let all: Vec<_> = (0..25).map(|number| format!("c{number:02}")).collect();
    assert_eq!(pages.concat(), all, "by client id");
    drop(held);
}

#[test]
fn what_is_wrong_is_a_problem_document() {
    let (process, _mosquittos, _devices) = whole();
    let only_broker = Tidegate::broker("node2");
    let broker_only = only_broker.api();
    let process = process.api();
    for (api, method, path, status, kind) in [
        (process, "GET", "/api/v1/clients/nobody", 404, "client-not-found"),
        (process, "GET", "/api/v1/gateway/connections/nobody", 404, "connection-not-found"),
        (process, "POST", "/api/v1/upstreams/nothing/servers/mq1/drain", 404, "upstream-not-found"),
        (process, "POST", "/api/v1/upstreams/brokers/servers/nobody/drain", 404, "server-not-found"),
        (process, "DELETE", "/api/v1/upstreams/brokers/pins/nobody", 404, "pin-not-found"),
        (process, "GET", "/api/v1/clients?limit=0", 400, "bad-query"),
        (process, "GET", "/api/v1/clients?limmit=1", 400, "bad-query"),
        (process, "GET", "/api/v1/events?type=nothing", 400, "bad-query"),
        (process, "GET", "/api/v2/clients", 404, "no-such-route"),
        (process, "POST", "/api/v1/nodes", 405, "method-not-allowed"),
        (broker_only, "GET", "/api/v1/upstreams", 404, "no-gateway"),
        (broker_only, "GET", "/api/v1/gateway/connections", 404, "no-gateway"),
    ] {
        let answer = ask(api, method, path);
        assert_eq!(
            (answer.status, answer.kind.as_str()),
            (status, "application/problem+json"),
            "{method} {path}"
        );
        let problem = answer.json();
        assert_eq!(problem["type"], format!("/problems/{kind}"), "{method} {path}");
        assert_eq!(problem["status"], status);
        assert!(problem["title"].is_string() && problem["detail"].is_string(), "{problem}");
    }
}

#[test]
fn a_web_page_can_not_reach_in() {
    let broker = Tidegate::broker("node1");
    let status = |method: &str, headers: &[(&str, &str)]| {
        try_ask(broker.api(), method, "/api/v1/clients?clientid=x", headers, "").expect("an answer").status
    };
    assert_eq!(status("GET", &[("host", "attacker.example")]), 421);
    assert_eq!(status("GET", &[("host", "localhost:18083")]), 200);
    assert_eq!(status("DELETE", &[("origin", "http://attacker.example")]), 403);
    assert_eq!(status("DELETE", &[]), 404);
}

#[test]
fn events_tell_what_happened_in_order_and_can_be_followed_by_their_number() {
    let broker = Tidegate::broker("node1");
    let connect = Connect { username: Some("ann".into()), ..device::connect(Version::V311, "dev 1") };
    Device::connect(broker.mqtt(), &connect).goodbye();
    broker.event("client_disconnected", |_| true);
    let page = get(broker.api(), "/api/v1/events").json();
    let rows = page["data"].as_array().expect("rows");
    let kinds: Vec<_> = rows.iter().map(|row| row["event"]["type"].as_str().expect("a type")).collect();
    assert_eq!(kinds, ["listener_started", "config_reloaded", "client_connected", "client_disconnected"]);
    let numbers: Vec<_> = rows.iter().map(|row| row["seq"].as_u64().expect("a number")).collect();
    assert_eq!(numbers, [1, 2, 3, 4]);
    let connected = &rows[2]["event"];
    assert_eq!((&connected["username"], &connected["proto_ver"]), (&"ann".into(), &4.into()));
    let later = get(broker.api(), "/api/v1/events?since=3").json();
    assert_eq!(later["data"].as_array().map(Vec::len), Some(1));
    let ctl = broker.ctl(&["events", "list", "--type", "client_connected"]);
    assert!(ctl.contains("client_connected") && ctl.contains("dev 1"), "{ctl}");
}

#[test]
fn the_metrics_of_a_process_with_both_roles_have_these_names() {
    let (process, _mosquittos, _devices) = whole();
    let text = get(process.api(), "/metrics").body;
    let mut described = BTreeMap::new();
    for line in text.lines() {
        if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
            described.insert(name, (kind, BTreeSet::new()));
        }
    }
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let (series, value) = line.rsplit_once(' ').expect("a value");
        value.parse::<f64>().unwrap_or_else(|error| panic!("{error}: {line}"));
        let (name, labels) = series.split_once('{').unwrap_or((series, ""));
        let base =
            ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name);
        let (_, keys) = described.get_mut(base).unwrap_or_else(|| panic!("no TYPE: {line}"));
        let mut rest = labels;
        while let Some((key, after)) = rest.split_once("=\"") {
            keys.insert(key.trim_start_matches(',').to_owned());
            rest = after.split_once('"').expect("a quoted value").1;
        }
    }
    let lines: Vec<_> = described
        .iter()
        .map(|(name, (kind, keys))| {
            let keys: Vec<_> = keys.iter().map(String::as_str).collect();
            format!("{name} {kind} {{{}}}", keys.join(","))
        })
        .collect();
    for (name, (kind, _)) in &described {
        assert_eq!(name.ends_with("_total"), *kind == "counter", "{name} is a {kind}");
    }
    insta::assert_snapshot!("metrics", lines.join("\n"));
}

#[test]
fn ctl_follows_events_and_takes_the_apis_address_from_the_environment() {
    let broker = Tidegate::broker("node1");
    let mut command = crate::harness::server::tidegate(&["ctl", "events", "list", "--follow"]);
    command.env("TIDEGATE_API", format!("http://{}", broker.api()));
    let mut following = crate::harness::Process::start("tidegate ctl", &mut command);
    following.out.line_with(&["listener_started"]);
    Device::connect(broker.mqtt(), &device::connect(Version::V5, "newcomer")).goodbye();
    following.out.line_with(&["client_disconnected", "newcomer"]);
    following.signal(rustix::process::Signal::INT);
    following.end();
}
