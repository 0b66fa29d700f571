//! What the routes answer when all is well.

use std::sync::Arc;

use axum::body::Body;
use axum::http::Request;
use serde_json::{Value, json};
use tokio::sync::Notify;

use super::fakes::{FakeProcess, bare, roles};
use super::{ask, run, send};
use crate::routes::router;

const ODD: [&str; 9] = ["a/b", "100%", "räum", "a b", "?x=1", "#", "+", "a%2Fb", "\u{1f6f0}"];

fn ids(list: &Value) -> Vec<String> {
    let rows = list["data"].as_array().unwrap();
    rows.iter().map(|row| row["clientid"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn clients_come_in_pages_that_the_cursor_joins() {
    run(async {
        let router = router(roles(&["c", "a", "b"]));
        let first = ask(&router, "GET", "/api/v1/clients?limit=2").await.json();
        assert_eq!(ids(&first), ["a", "b"]);
        let cursor = first["meta"]["cursor"].as_str().unwrap();
        let second = ask(&router, "GET", &format!("/api/v1/clients?limit=2&cursor={cursor}")).await.json();
        assert_eq!(ids(&second), ["c"]);
        assert_eq!(second["meta"], json!({"cursor": null}));
    });
}

#[test]
fn clients_are_filtered_by_id_user_and_state() {
    run(async {
        let router = router(roles(&["a", "off-b", "c/d"]));
        for (query, expected) in [
            ("clientid=c%2Fd", vec!["c/d"]),
            ("clientid=nobody", vec![]),
            ("username=user-a", vec!["a"]),
            ("conn_state=connected", vec!["a", "c/d"]),
            ("conn_state=disconnected", vec!["off-b"]),
            ("conn_state=disconnected&username=user-a", vec![]),
        ] {
            let list = ask(&router, "GET", &format!("/api/v1/clients?{query}")).await.json();
            assert_eq!(ids(&list), expected, "{query}");
        }
    });
}

#[test]
fn odd_client_ids_are_found_shown_and_kicked() {
    run(async {
        let router = router(roles(&ODD));
        for id in ODD {
            let path = format!("/api/v1/clients/{}", ::api::rest::encode(id));
            let client = ask(&router, "GET", &path).await;
            assert_eq!(client.json()["clientid"], id);
            assert_eq!(client.header("content-type"), "application/json");
            let subscriptions = ask(&router, "GET", &format!("{path}/subscriptions")).await.json();
            assert_eq!(ids(&subscriptions), [id, id, id]);
            let kicked = ask(&router, "DELETE", &path).await;
            assert_eq!((kicked.status.as_u16(), kicked.body.as_str()), (204, ""), "{id}");
            ask(&router, "GET", &path).await.problem(404, "client-not-found");
        }
    });
}

#[test]
fn client_ids_that_no_path_can_hold_go_into_the_query() {
    run(async {
        let router = router(roles(&["", ".", ".."]));
        for id in ["", ".", ".."] {
            let path = format!("/api/v1/clients?clientid={id}");
            assert_eq!(ids(&ask(&router, "GET", &path).await.json()), [id]);
            assert_eq!(ask(&router, "DELETE", &path).await.status, 204);
            assert_eq!(ids(&ask(&router, "GET", &path).await.json()), Vec::<String>::new());
            ask(&router, "DELETE", &path).await.problem(404, "client-not-found");
        }
    });
}

#[test]
fn subscriptions_come_in_pages() {
    run(async {
        let router = router(roles(&["a"]));
        let first = ask(&router, "GET", "/api/v1/clients/a/subscriptions?limit=2").await.json();
        assert_eq!(first["data"][1]["topic"], "b/+");
        let path = "/api/v1/clients/a/subscriptions?limit=2&cursor=b%2F%2B";
        let second = ask(&router, "GET", path).await.json();
        assert_eq!(second["data"].as_array().unwrap().len(), 1);
        assert_eq!(second["data"][0]["topic"], "c");
        assert_eq!(second["meta"]["cursor"], Value::Null);
    });
}

#[test]
fn nodes_and_upstreams_are_lists() {
    run(async {
        let router = router(roles(&[]));
        let nodes = ask(&router, "GET", "/api/v1/nodes").await.json();
        assert_eq!(nodes["data"][0]["node"], "node1");
        let listeners = ask(&router, "GET", "/api/v1/gateway/listeners?limit=1").await.json();
        assert_eq!(listeners["data"][0]["name"], "tcp://127.0.0.1:1880");
        assert_eq!(listeners["data"][0]["refused"]["access_denied"], 2);
        assert_ne!(listeners["meta"]["cursor"], Value::Null);
        let upstreams = ask(&router, "GET", "/api/v1/upstreams?limit=5").await.json();
        assert_eq!(upstreams["data"][0]["servers"][1]["name"], "10.0.0.2:1883");
        assert_eq!(upstreams["meta"]["cursor"], Value::Null);
    });
}

#[test]
fn a_connection_is_shown_with_the_others_of_its_client_newest_first() {
    run(async {
        let router = router(roles(&[]));
        let single = ask(&router, "GET", "/api/v1/gateway/connections/x").await.json();
        assert_eq!(single["server"], "a");
        assert!(single.get("others").is_none(), "{single}");
        let double = ask(&router, "GET", "/api/v1/gateway/connections/twice").await.json();
        assert_eq!((&double["id"], &double["others"][0]["id"]), (&json!("c5"), &json!("c4")));
    });
}

#[test]
fn connections_are_filtered_by_server_upstream_and_client() {
    run(async {
        let router = router(roles(&[]));
        for (query, expected) in [
            ("", vec!["c1", "c2", "c3", "c4", "c5", "c6"]),
            ("?server=a", vec!["c2", "c4", "c6"]),
            ("?upstream=other", vec![]),
            ("?clientid=", vec!["c3", "c2", "c1"]),
            ("?clientid=&server=10.0.0.2%3A1883", vec!["c3", "c1"]),
            ("?clientid=&server=10.0.0.1%3A1883", vec!["c2"]),
            ("?clientid=twice&upstream=brokers", vec!["c5", "c4"]),
            ("?clientid=twice&upstream=other", vec![]),
        ] {
            let list = ask(&router, "GET", &format!("/api/v1/gateway/connections{query}")).await.json();
            let rows = list["data"].as_array().unwrap().iter();
            let ids: Vec<&str> = rows.map(|row| row["id"].as_str().unwrap()).collect();
            assert_eq!(ids, expected, "{query}");
        }
    });
}

#[test]
fn the_connections_of_one_client_come_in_pages_newest_first() {
    run(async {
        let router = router(roles(&[]));
        let first = ask(&router, "GET", "/api/v1/gateway/connections?clientid=&limit=2").await.json();
        assert_eq!((&first["data"][0]["id"], &first["data"][1]["id"]), (&json!("c3"), &json!("c2")));
        let cursor = ::api::rest::encode(first["meta"]["cursor"].as_str().unwrap());
        let path = format!("/api/v1/gateway/connections?clientid=&limit=2&cursor={cursor}");
        let second = ask(&router, "GET", &path).await.json();
        assert_eq!(second["data"].as_array().unwrap().len(), 1);
        assert_eq!(second["data"][0]["id"], "c1");
        assert_eq!(second["meta"]["cursor"], Value::Null);
    });
}

#[test]
fn a_server_is_drained_and_enabled_by_name_or_address() {
    run(async {
        let router = router(roles(&[]));
        for server in ["a", "10.0.0.2%3A1883"] {
            let base = format!("/api/v1/upstreams/brokers/servers/{server}");
            assert_eq!(ask(&router, "POST", &format!("{base}/drain")).await.json()["state"], "draining");
            assert_eq!(ask(&router, "POST", &format!("{base}/enable")).await.json()["state"], "up");
        }
    });
}

fn put(target: &str, body: &str) -> Request<Body> {
    let request = Request::builder().method("PUT").uri(target).header("host", "localhost");
    request
        .header("content-type", "application/json; charset=utf-8")
        .body(Body::from(body.to_owned()))
        .unwrap()
}

#[test]
fn pins_are_set_listed_and_deleted() {
    run(async {
        let router = router(roles(&[]));
        let target = r#"{"server": "a"}"#;
        let pin = send(&router, put("/api/v1/upstreams/brokers/pins/car%2F7", target)).await.json();
        assert_eq!(pin, json!({"key": "car/7", "server": "a", "origin": "operator"}));
        let pin = send(&router, put("/api/v1/upstreams/brokers/pins?key=..", target)).await.json();
        assert_eq!(pin["key"], "..");
        send(&router, put("/api/v1/upstreams/brokers/pins/third", target)).await.problem(409, "pins-full");
        let list = ask(&router, "GET", "/api/v1/upstreams/brokers/pins").await.json();
        assert_eq!(list["data"].as_array().unwrap().len(), 2);
        assert_eq!(ask(&router, "DELETE", "/api/v1/upstreams/brokers/pins/car%2F7").await.status, 204);
        assert_eq!(ask(&router, "DELETE", "/api/v1/upstreams/brokers/pins?key=..").await.status, 204);
        ask(&router, "DELETE", "/api/v1/upstreams/brokers/pins?key=..").await.problem(404, "pin-not-found");
        let list = ask(&router, "GET", "/api/v1/upstreams/brokers/pins").await.json();
        assert_eq!(list["data"], json!([]));
    });
}

#[test]
fn events_are_the_newest_after_since() {
    run(async {
        let router = router(bare());
        let list =
            ask(&router, "GET", "/api/v1/events?since=1&limit=2&type=client_disconnected").await.json();
        let rows = list["data"].as_array().unwrap();
        assert_eq!(rows.iter().map(|row| row["seq"].as_u64().unwrap()).collect::<Vec<_>>(), [4, 5]);
        assert_eq!(rows[0]["event"]["type"], "client_disconnected");
    });
}

#[test]
fn a_reload_says_what_changed_or_every_reason_why_not() {
    run(async {
        let good = router(bare());
        let done = ask(&good, "POST", "/api/v1/config/reload").await.json();
        assert_eq!(done, json!({"changes": ["a server was added"], "restart_needed": []}));
        let mut roles = bare();
        let errors = vec!["t.toml:1: a: x".to_owned(), "t.toml:9: b: y".to_owned()];
        roles.process = Arc::new(FakeProcess { reload_errors: errors.clone(), ..FakeProcess::default() });
        let refused = ask(&router(roles), "POST", "/api/v1/config/reload").await;
        refused.problem(422, "config-refused");
        assert_eq!(refused.json()["errors"], json!(errors));
    });
}

#[test]
fn a_reload_goes_on_when_the_one_who_asked_hangs_up() {
    run(async {
        let (begun, may_end) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let gate = Some((Arc::clone(&begun), Arc::clone(&may_end)));
        let process = Arc::new(FakeProcess { reload_gate: gate, ..FakeProcess::default() });
        let mut roles = bare();
        roles.process = Arc::clone(&process) as _;
        let router = router(roles);
        tokio::select! {
            answer = ask(&router, "POST", "/api/v1/config/reload") => panic!("{answer:?}"),
            () = begun.notified() => {}
        }
        may_end.notify_one();
        let deadline = tokio::time::timeout(std::time::Duration::from_secs(10), async {
            while *process.reloads.lock().unwrap() == 0 {
                tokio::task::yield_now().await;
            }
        });
        deadline.await.expect("the reload was dropped with its request");
    });
}

#[test]
fn probes_say_whether_the_process_lives_and_serves() {
    run(async {
        let mut roles = bare();
        let ready = router(roles.clone());
        assert_eq!(ask(&ready, "GET", "/livez").await.body, "ok\n");
        assert_eq!(ask(&ready, "GET", "/readyz").await.status, 200);
        let reasons = vec!["listener tcp://127.0.0.1:1883".to_owned(), "engine".to_owned()];
        roles.process = Arc::new(FakeProcess { not_ready: reasons.clone(), ..FakeProcess::default() });
        let starting = router(roles);
        assert_eq!(ask(&starting, "GET", "/livez").await.status, 200);
        let answer = ask(&starting, "GET", "/readyz").await;
        assert_eq!(answer.problem(503, "not-ready"), "listener tcp://127.0.0.1:1883; engine");
        assert_eq!(answer.json()["errors"], json!(reasons));
    });
}

#[test]
fn metrics_have_the_content_type_of_prometheus() {
    run(async {
        let answer = ask(&router(bare()), "GET", "/metrics?name=ignored").await;
        assert_eq!(answer.header("content-type"), "text/plain; version=0.0.4; charset=utf-8");
        assert!(answer.body.contains("tidegate_x_total 1\n"));
    });
}

#[test]
fn a_head_request_has_the_status_of_the_get() {
    run(async {
        let router = router(roles(&["a"]));
        let head = ask(&router, "HEAD", "/api/v1/clients/a").await;
        assert_eq!((head.status.as_u16(), head.body.as_str()), (200, ""));
        assert_eq!(ask(&router, "HEAD", "/api/v1/clients/b").await.status, 404);
    });
}
