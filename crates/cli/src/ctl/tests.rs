mod coverage;

use std::collections::VecDeque;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};
use std::thread;

use clap::Parser;

use super::*;

#[derive(Debug, Parser)]
struct Cli {
    #[command(flatten)]
    args: Args,
}

/// An API that answers what it was told, one answer a request, and remembers the requests.
struct Api {
    base: String,
    seen: Arc<Mutex<Vec<String>>>,
}

impl Api {
    fn new(answers: impl IntoIterator<Item = (u16, Value)>) -> Self {
        let mut answers: VecDeque<(u16, Value)> = answers.into_iter().collect();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let seen = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&seen);
        thread::spawn(move || {
            while let Some((status, body)) = answers.pop_front() {
                let (stream, _) = listener.accept().unwrap();
                let mut reader = BufReader::new(stream);
                let request = read_request(&mut reader);
                log.lock().unwrap().push(request);
                let kind = if status < 400 { "application/json" } else { "application/problem+json" };
                let body = if body.is_null() { String::new() } else { body.to_string() };
                let length = body.len();
                write!(
                    reader.get_mut(),
                    "HTTP/1.1 {status} X\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
                )
                .unwrap();
            }
        });
        Self { base, seen }
    }

    /// Runs a command line; what it printed, and what came of it.
    fn ctl(&self, line: &[&str]) -> (String, Result<(), Failure>) {
        let words = ["ctl", "--api", &self.base].into_iter().chain(line.iter().copied());
        let args = Cli::try_parse_from(words).unwrap().args;
        let mut screen = Screen { out: Vec::new(), json: args.json, colour: false };
        let done = execute(&args, &mut screen);
        (String::from_utf8(screen.out).unwrap(), done)
    }

    fn good(&self, line: &[&str]) -> String {
        let (printed, done) = self.ctl(line);
        done.unwrap();
        printed
    }

    fn bad(&self, line: &[&str]) -> String {
        let (printed, done) = self.ctl(line);
        assert_eq!(printed, "");
        done.unwrap_err().to_string()
    }

    fn seen(&self) -> Vec<String> {
        self.seen.lock().unwrap().clone()
    }
}

/// `METHOD path body`.
fn read_request(reader: &mut impl BufRead) -> String {
    let mut first = String::new();
    reader.read_line(&mut first).unwrap();
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        match line.trim().split_once(':') {
            Some((name, value)) if name.eq_ignore_ascii_case("content-length") => {
                length = value.trim().parse().unwrap();
            }
            Some(_) => {}
            None => break,
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    let body = String::from_utf8(body).unwrap();
    format!("{} {body}", first.trim_end().trim_end_matches(" HTTP/1.1")).trim_end().to_owned()
}

fn page(data: Value, cursor: Option<&str>) -> (u16, Value) {
    let mut page = json!({"data": null, "meta": {"cursor": cursor}});
    page["data"] = data;
    (200, page)
}

fn problem(status: u16, kind: &str, detail: &str) -> (u16, Value) {
    let kind = format!("/problems/{kind}");
    (status, json!({"type": kind, "title": "T", "status": status, "detail": detail}))
}

fn client(id: &str) -> Value {
    json!({
        "clientid": id, "username": null, "node": "node1", "connected": true, "proto_name": "MQTT", "proto_ver": 4,
        "peer": "10.0.0.1:50000", "listener": "tcp://127.0.0.1:1883", "clean_start": true, "session_present": false,
        "keepalive": 60, "expiry_interval": 0, "connected_at": "2026-11-22T08:30:00.000Z",
        "created_at": "2026-11-22T08:30:00.000Z", "subscriptions_cnt": 2, "inflight_cnt": 0, "mqueue_len": 0,
        "mqueue_dropped": 0, "recv_msg": 0, "send_msg": 0, "recv_oct": 0, "send_oct": 0
    })
}

fn connection(id: &str, clientid: &str) -> Value {
    json!({
        "id": id, "clientid": clientid, "username": "u", "proto_ver": 5, "peer": "10.0.0.1:50000",
        "listener": "tcp://127.0.0.1:1880", "upstream": "brokers", "server": "emqx1",
        "server_address": "10.0.0.172:1883", "local_address": "10.0.0.9:40000", "chosen_by": "hash",
        "connected_at": "2026-11-22T08:30:00.000Z", "bytes_in": 2048, "bytes_out": 3
    })
}

fn server(name: &str, state: &str) -> Value {
    json!({
        "name": name, "address": "10.0.0.172:1883", "weight": 1, "state": state, "connections": 3,
        "connections_total": 9, "fails": 0, "bytes_in": 0, "bytes_out": 0
    })
}

fn event(seq: u64, kind: &str) -> Value {
    let fields = json!({"type": kind, "clientid": "car 7", "username": null, "detail": ""});
    json!({"seq": seq, "at": "2026-11-22T08:30:00.000Z", "event": fields})
}

#[test]
fn clients_are_listed_over_all_pages() {
    let api =
        Api::new([page(json!([client("a"), client("bb")]), Some("bb")), page(json!([client("c")]), None)]);
    let table = api.good(&["clients", "list", "--conn-state", "connected"]);
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(lines.len(), 4, "{table}");
    assert!(lines[0].starts_with("CLIENTID  USERNAME  MQTT   STATE      PEER"), "{table}");
    assert!(lines[3].starts_with("c         -         3.1.1  connected  10.0.0.1:50000  node1"), "{table}");
    assert_eq!(
        api.seen(),
        [
            "GET /api/v1/clients?conn_state=connected&limit=1000",
            "GET /api/v1/clients?conn_state=connected&limit=1000&cursor=bb",
        ]
    );
}

#[test]
fn a_list_as_json_has_the_shape_of_the_api_and_all_rows() {
    let api = Api::new([
        page(json!([client("a")]), Some("a")),
        page(json!([client("b")]), None),
        page(json!([]), None),
    ]);
    let list: Value = serde_json::from_str(&api.good(&["clients", "list", "--json"])).unwrap();
    assert_eq!(list, json!({"data": [client("a"), client("b")], "meta": {"cursor": null}}));
    assert_eq!(api.good(&["--json", "clients", "list"]), "{\"data\":[],\"meta\":{\"cursor\":null}}\n");
}

#[test]
fn a_client_is_shown_field_by_field() {
    let api = Api::new([(200, client("a/b")), (200, client("a/b"))]);
    let shown = api.good(&["clients", "show", "a/b"]);
    assert!(shown.starts_with("clientid           a/b\nusername           -\n"), "{shown}");
    let json: Value = serde_json::from_str(&api.good(&["clients", "show", "a/b", "--json"])).unwrap();
    assert_eq!(json, client("a/b"));
    assert_eq!(api.seen()[0], "GET /api/v1/clients/a%2Fb");
}

#[test]
fn ids_that_look_like_flags_are_ids() {
    let api = Api::new([(200, client("-x")), (204, Value::Null)]);
    api.good(&["clients", "show", "-x"]);
    assert_eq!(api.good(&["clients", "kick", "--", "--json"]), "kicked \"--json\"\n");
    assert_eq!(api.seen(), ["GET /api/v1/clients/-x", "DELETE /api/v1/clients/--json"]);
}

#[test]
fn what_is_not_there_is_an_error() {
    let api = Api::new([
        problem(404, "client-not-found", "x"),
        problem(404, "client-not-found", "x"),
        problem(404, "connection-not-found", "x"),
        problem(404, "pin-not-found", "x"),
        problem(404, "no-broker", "This process has no broker."),
    ]);
    assert_eq!(api.bad(&["clients", "show", "a\u{1b}b"]), "there is no client \"a\\u{1b}b\"");
    assert_eq!(api.bad(&["clients", "kick", "b"]), "there is no client \"b\"");
    assert_eq!(api.bad(&["connections", "show", "c"]), "there is no connection of the client \"c\"");
    assert_eq!(api.bad(&["pins", "delete", "u", "k"]), "there is no pin for \"k\"");
    assert_eq!(api.bad(&["clients", "list", "--json"]), "This process has no broker.");
}

#[test]
fn subscriptions_are_listed() {
    let row =
        json!({"clientid": "a", "topic": "car/+/speed", "qos": 1, "nl": 0, "rap": 0, "rh": 0, "node": "n"});
    let api = Api::new([page(json!([row]), None)]);
    let table = api.good(&["clients", "subscriptions", "a"]);
    assert_eq!(table, "TOPIC        QOS  NL  RAP  RH  SUBID\ncar/+/speed    1   0    0   0  -\n");
}

#[test]
fn connections_are_listed_and_shown_with_their_older_ones() {
    let mut detail = connection("c2", "car");
    detail["others"] = json!([connection("c1", "car")]);
    let api =
        Api::new([page(json!([connection("c1", "")]), None), (200, detail.clone()), (200, detail.clone())]);
    let table = api.good(&["connections", "list", "--server", "emqx1"]);
    assert!(table.lines().nth(1).unwrap().starts_with("\"\"        u"), "{table}");
    assert!(table.ends_with("2.0 KiB  3 B\n"), "{table}");
    let shown = api.good(&["connections", "show", "car"]);
    assert!(shown.starts_with("id              c2\n"), "{shown}");
    assert!(shown.contains("\nOlder connections of this client:\nCLIENTID"), "{shown}");
    let json: Value = serde_json::from_str(&api.good(&["connections", "show", "car", "--json"])).unwrap();
    assert_eq!(json, detail);
    assert_eq!(api.seen()[0], "GET /api/v1/gateway/connections?server=emqx1&limit=1000");
}

#[test]
fn upstreams_are_listed_with_a_line_a_server() {
    let upstream = json!({
        "name": "brokers", "balance": "client_id", "hash": "rendezvous", "pins": 0,
        "servers": [server("emqx1", "up"), server("emqx2", "down")]
    });
    let api = Api::new([page(json!([upstream]), None)]);
    let table = api.good(&["upstreams", "list"]);
    assert_eq!(api.seen(), ["GET /api/v1/upstreams?limit=10000"], "all of them");
    let words: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(words.len(), 3, "{table}");
    assert_eq!(words[2][..5], ["brokers", "emqx2", "10.0.0.172:1883", "1", "down"]);
}

#[test]
fn a_server_is_drained_and_enabled() {
    let api = Api::new([(200, server("emqx1", "draining")), (200, server("emqx1", "up"))]);
    assert!(api.good(&["upstreams", "drain", "brokers", "10.0.0.172:1883"]).contains(" draining "));
    let json: Value =
        serde_json::from_str(&api.good(&["upstreams", "enable", "brokers", "emqx1", "--json"])).unwrap();
    assert_eq!(json["state"], "up");
    assert_eq!(
        api.seen(),
        [
            "POST /api/v1/upstreams/brokers/servers/10.0.0.172%3A1883/drain",
            "POST /api/v1/upstreams/brokers/servers/emqx1/enable",
        ]
    );
}

#[test]
fn pins_are_set_listed_and_deleted() {
    let pin = json!({"key": "car/7", "server": "emqx1", "origin": "operator"});
    let api = Api::new([(200, pin.clone()), page(json!([pin]), None), (204, Value::Null)]);
    let table = "KEY    SERVER  ORIGIN\ncar/7  emqx1   operator\n";
    assert_eq!(api.good(&["pins", "set", "brokers", "car/7", "emqx1"]), table);
    assert_eq!(api.good(&["pins", "list", "brokers"]), table);
    assert_eq!(api.good(&["pins", "delete", "brokers", "car/7"]), "deleted the pin for \"car/7\"\n");
    assert_eq!(api.seen()[0], r#"PUT /api/v1/upstreams/brokers/pins/car%2F7 {"server":"emqx1"}"#);
    assert_eq!(api.seen()[2], "DELETE /api/v1/upstreams/brokers/pins/car%2F7");
}

#[test]
fn nodes_are_listed() {
    let node = json!({
        "node": "node1", "node_status": "running", "version": "0.1.0", "uptime": 61_000, "connections": 1,
        "sessions": 2, "subscriptions": 3, "retained": 4, "engine": "memory", "durable": false
    });
    let api = Api::new([page(json!([node]), None)]);
    let table = api.good(&["nodes", "list"]);
    let row: Vec<&str> = table.lines().nth(1).unwrap().split_whitespace().collect();
    assert_eq!(row, ["node1", "running", "0.1.0", "1m", "1s", "1", "2", "3", "4", "memory", "no"]);
}

#[test]
fn events_are_lines_with_what_they_say() {
    let api = Api::new([page(json!([event(3, "client_connected")]), None), page(json!([]), None)]);
    let lines = api.good(&["events", "list", "--type", "client_connected", "--since", "2", "--limit", "5"]);
    assert_eq!(lines, "3 2026-11-22T08:30:00.000Z client_connected clientid=\"car 7\"\n");
    assert_eq!(api.seen()[0], "GET /api/v1/events?since=2&type=client_connected&limit=5");
    assert_eq!(api.good(&["events", "list", "--json"]), "{\"data\":[],\"meta\":{\"cursor\":null}}\n");
}

/// Follows for `rounds` questions; what was printed and what was noted.
fn followed(api: &Api, json: bool, rounds: usize) -> (String, String) {
    let client = RestClient::new(&api.base).unwrap();
    let mut screen = Screen { out: Vec::new(), json, colour: false };
    let mut notes = Vec::new();
    let mut left = rounds;
    let mut pause = || {
        left -= 1;
        left > 0
    };
    let asked = events::Asked { kind: None, since: None, limit: 2 };
    events::follow(&client, asked, &mut screen, &mut notes, &mut pause).unwrap();
    (String::from_utf8(screen.out).unwrap(), String::from_utf8(notes).unwrap())
}

#[test]
fn following_goes_on_where_it_was_and_tells_what_was_lost() {
    let api = Api::new([
        page(json!([event(6, "a"), event(7, "b")]), None),
        page(json!([event(8, "c")]), None),
        page(json!([event(12, "d")]), None),
    ]);
    let (printed, notes) = followed(&api, false, 3);
    let seqs: Vec<&str> = printed.lines().map(|line| line.split(' ').next().unwrap()).collect();
    assert_eq!(seqs, ["6", "7", "8", "12"]);
    assert_eq!(notes, "tidegate ctl: 3 events were overwritten before they could be read\n");
    assert_eq!(
        api.seen(),
        [
            "/api/v1/events?limit=2",
            "/api/v1/events?since=7&limit=10000",
            "/api/v1/events?since=8&limit=10000"
        ]
        .map(|path| format!("GET {path}"))
    );
}

#[test]
fn following_notices_that_the_process_began_again() {
    let api = Api::new([
        page(json!([event(900, "a")]), None),
        page(json!([]), None),
        page(json!([event(2, "z")]), None),
        page(json!([event(1, "y"), event(2, "z")]), None),
    ]);
    let (printed, notes) = followed(&api, true, 2);
    let seqs: Vec<Value> =
        printed.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["seq"].clone()).collect();
    assert_eq!(seqs, [900, 1, 2]);
    assert_eq!(notes, "tidegate ctl: the process has restarted\n");
}

#[test]
fn following_a_silent_process_waits_for_its_first_event() {
    let api = Api::new([page(json!([]), None), page(json!([]), None), page(json!([event(1, "a")]), None)]);
    let (printed, notes) = followed(&api, false, 3);
    assert!(printed.starts_with("1 "), "{printed}");
    assert_eq!(notes, "");
}

#[test]
fn a_reload_is_told_change_by_change_or_fault_by_fault() {
    let mut refused = problem(422, "config-refused", "The configuration was refused.");
    refused.1["errors"] = json!(["t.toml:1: a: x", "t.toml:2: b: \u{1b}y"]);
    let api = Api::new([
        (200, json!({"changes": ["server added"], "restart_needed": ["bind"]})),
        (200, json!({"changes": [], "restart_needed": []})),
        refused,
    ]);
    assert_eq!(api.good(&["config", "reload"]), "changed: server added\nneeds a restart: bind\n");
    assert_eq!(api.good(&["config", "reload"]), "nothing to change\n");
    let told = api.bad(&["config", "reload"]);
    assert_eq!(told, "The configuration was refused.\n  t.toml:1: a: x\n  t.toml:2: b: \\u{1b}y");
}

#[test]
fn exit_codes_tell_a_mistake_of_the_user_from_an_error() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let unused = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let code = |api: &str| {
        let words = ["ctl", "--api", api, "nodes", "list"];
        format!("{:?}", run(&Cli::try_parse_from(words).unwrap().args))
    };
    assert_eq!(code(&unused), format!("{:?}", ExitCode::FAILURE));
    assert_eq!(code("https://localhost"), format!("{:?}", ExitCode::from(2)));
    let usage = Cli::try_parse_from(["ctl", "clients", "lst"]).unwrap_err();
    assert_eq!(usage.exit_code(), 2);
}

#[test]
fn the_command_line_is_sound() {
    use clap::CommandFactory;
    Cli::command().debug_assert();
}
