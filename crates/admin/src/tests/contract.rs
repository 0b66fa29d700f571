//! The OpenAPI document says what the router does, and both say what was committed.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::Value;

use super::fakes::roles;
use super::{ask, run};
use crate::openapi::document;
use crate::routes::{router, table};

const METHODS: [&str; 6] = ["GET", "PUT", "POST", "DELETE", "PATCH", "OPTIONS"];

#[test]
fn the_document_is_the_committed_one() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("openapi.json");
    if std::env::var_os("UPDATE_SNAPSHOTS").is_some() {
        std::fs::write(&file, document()).unwrap();
    }
    let committed = std::fs::read_to_string(&file).unwrap_or_default();
    let differs = document().lines().zip(committed.lines()).position(|(ours, theirs)| ours != theirs);
    assert!(
        document() == committed,
        "the OpenAPI document changed (first at line {}); look at it as other people's scripts do, then run this \
         test with UPDATE_SNAPSHOTS=1",
        differs.map_or(0, |line| line + 1)
    );
}

#[test]
fn the_document_has_every_route_and_no_other() {
    let document: Value = serde_json::from_str(document()).unwrap();
    let documented: BTreeSet<&str> =
        document["paths"].as_object().unwrap().keys().map(String::as_str).collect();
    let routed: BTreeSet<&str> = table().into_iter().map(|(path, _)| path).collect();
    assert_eq!(documented, routed);
}

#[test]
fn every_route_answers_the_documented_methods_and_no_other() {
    let document: Value = serde_json::from_str(document()).unwrap();
    run(async {
        for (path, operations) in document["paths"].as_object().unwrap() {
            let target = path.replace(['{', '}'], "");
            for method in METHODS {
                let answer = ask(&router(roles(&[])), method, &target).await;
                let documented = operations.get(method.to_lowercase()).is_some();
                assert_eq!(answer.status != 405, documented, "{method} {path}: {answer:?}");
            }
        }
    });
}

#[test]
fn every_parameter_of_a_path_is_documented() {
    let document: Value = serde_json::from_str(document()).unwrap();
    for (path, operations) in document["paths"].as_object().unwrap() {
        let in_path: BTreeSet<&str> =
            path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}')).collect();
        for (method, operation) in operations.as_object().unwrap() {
            let parameters = operation["parameters"].as_array().into_iter().flatten();
            let named: BTreeSet<&str> = parameters
                .filter(|parameter| parameter["in"] == "path")
                .map(|parameter| parameter["name"].as_str().unwrap())
                .collect();
            assert_eq!(in_path, named, "{method} {path}");
        }
    }
}

#[test]
fn every_documented_query_parameter_is_understood() {
    let document: Value = serde_json::from_str(document()).unwrap();
    run(async {
        for (path, operations) in document["paths"].as_object().unwrap() {
            for (method, operation) in operations.as_object().unwrap() {
                for parameter in operation["parameters"].as_array().into_iter().flatten() {
                    if parameter["in"] != "query" {
                        continue;
                    }
                    let name = parameter["name"].as_str().unwrap();
                    let target = format!("{}?{name}=1", path.replace(['{', '}'], ""));
                    let answer = ask(&router(roles(&[])), &method.to_uppercase(), &target).await;
                    assert!(!answer.body.contains("unknown parameter"), "{method} {target}: {answer:?}");
                }
            }
        }
    });
}

#[test]
fn the_document_is_served() {
    run(async {
        let answer = ask(&router(roles(&[])), "GET", "/api/v1/openapi.json").await;
        assert_eq!(answer.header("content-type"), "application/json");
        assert_eq!(answer.body, document());
    });
}
