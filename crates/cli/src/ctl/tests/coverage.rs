//! Everything that the API can do, a command can do.

use std::collections::BTreeSet;

use super::*;

/// The document that the server gives out; `admin` has a test that it is true.
const DOCUMENT: &str = include_str!("../../../../admin/openapi.json");

/// A command for every operation. A new operation needs a line here, and a command.
const COMMANDS: &[&[&str]] = &[
    &["clients", "list"],
    &["clients", "show", "pump"],
    &["clients", "kick", "pump"],
    // "." cannot stand in a path
    &["clients", "kick", "."],
    &["clients", "subscriptions", "pump"],
    &["connections", "list"],
    &["connections", "show", "pump"],
    &["listeners", "list"],
    &["listeners", "show", "tcp://0.0.0.0:1880"],
    &["upstreams", "list"],
    &["upstreams", "show", "brokers"],
    &["upstreams", "drain", "brokers", "emqx1"],
    &["upstreams", "enable", "brokers", "emqx1"],
    &["pins", "list", "brokers"],
    &["pins", "set", "brokers", "pump", "emqx1"],
    &["pins", "set", "brokers", ".", "emqx1"],
    &["pins", "delete", "brokers", "pump"],
    &["pins", "delete", "brokers", "."],
    &["nodes", "list"],
    &["events", "list"],
    &["config", "reload"],
    &["metrics", "list"],
    &["probes", "list"],
    &["openapi", "show"],
];

/// Whether a path is one of a template such as `/clients/{clientid}`.
fn is_of(path: &str, template: &str) -> bool {
    let (path, template): (Vec<_>, Vec<_>) = (path.split('/').collect(), template.split('/').collect());
    let fits = |(part, template): (&&str, &&str)| {
        part == template || (template.starts_with('{') && !part.is_empty())
    };
    path.len() == template.len() && path.iter().zip(&template).all(fits)
}

#[test]
fn every_operation_of_the_api_has_a_command() {
    let document: Value = serde_json::from_str(DOCUMENT).unwrap();
    let paths = document["paths"].as_object().unwrap();
    let operations: BTreeSet<(String, String)> = paths
        .iter()
        .flat_map(|(path, methods)| {
            let methods = methods.as_object().unwrap().keys();
            methods.map(|method| (method.to_uppercase(), path.clone()))
        })
        .collect();
    let mut done = BTreeSet::new();
    for command in COMMANDS {
        // what comes back does not matter; `probes` asks twice
        let api = Api::new([problem(404, "no-route", ""), problem(404, "no-route", "")]);
        let _ = api.ctl(command);
        let probes = Api::new([(200, Value::Null), problem(404, "no-route", "")]);
        let _ = probes.ctl(command);
        let seen = [api.seen(), probes.seen()].concat();
        assert!(!seen.is_empty(), "{command:?} asks nobody");
        for request in seen {
            let (method, path) = request.split_once(' ').unwrap();
            let path = path.split([' ', '?']).next().unwrap();
            let operation =
                operations.iter().filter(|(other, template)| other == method && is_of(path, template));
            // the most exact template: /pins/{key} is not what /pins/x is, if that is there, too
            let exact = operation.min_by_key(|(_, template)| template.matches('{').count());
            let operation =
                exact.unwrap_or_else(|| panic!("{command:?}: {request} is no operation of the API"));
            done.insert(operation.clone());
        }
    }
    let left: Vec<_> = operations.difference(&done).collect();
    assert!(left.is_empty(), "no `tidegate ctl` command does {left:#?}");
}

#[test]
fn metrics_are_rows_and_probes_tell_by_their_exit_code() {
    let text = "# TYPE a counter\na 1\nb{x=\"1\"} 2\n";
    let printed = Api::new([(200, json!(text))]).ctl(&["metrics", "list", "b"]).0;
    // the little server of these tests speaks JSON only: the text is one string there
    assert!(printed.starts_with("SERIES"), "{printed}");
    let down = (
        503,
        json!({"type": "/problems/not-ready", "title": "Not ready", "status": 503,
                            "detail": "d", "errors": ["the engine is away"]}),
    );
    let (printed, done) = Api::new([(200, json!("ok")), down]).ctl(&["probes", "list"]);
    assert!(printed.contains("the engine is away"), "{printed}");
    assert!(matches!(done, Err(Failure::NotReady)));
    let (printed, done) =
        Api::new([(200, json!("ok")), (200, json!("ok"))]).ctl(&["probes", "list", "--json"]);
    assert!(done.is_ok() && printed.contains(r#""probe":"readyz","ok":true"#), "{printed}");
}

#[test]
fn an_upstream_that_is_not_there_is_told() {
    let upstream = json!({"name": "brokers", "balance": "client_id", "servers": [server("emqx1", "up")]});
    let shown = Api::new([page(json!([upstream]), None)]).ctl(&["upstreams", "show", "gone"]);
    assert!(shown.1.is_err());
}
