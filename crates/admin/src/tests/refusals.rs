//! What bad requests get: a problem document each.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::body::Body;
use axum::http::Request;
use axum::http::request::Builder;

use super::fakes::{FakeProcess, bare, roles};
use super::{Answer, ask, run, send};
use crate::guard::{LocalAddress, MAX_BODY};
use crate::routes::router;

#[test]
fn a_role_that_does_not_run_here_is_named() {
    run(async {
        let router = router(bare());
        for path in ["/clients", "/clients/a", "/clients/a/subscriptions", "/nodes"] {
            let detail = ask(&router, "GET", &format!("/api/v1{path}")).await.problem(404, "no-broker");
            assert!(detail.contains("This process has no broker"), "{detail}");
        }
        for path in [
            "/gateway/connections",
            "/gateway/connections/a",
            "/gateway/listeners",
            "/upstreams",
            "/upstreams/u/pins",
        ] {
            let detail = ask(&router, "GET", &format!("/api/v1{path}")).await.problem(404, "no-gateway");
            assert!(detail.contains("This process has no gateway"), "{detail}");
        }
    });
}

#[test]
fn an_unknown_path_and_a_wrong_method_are_problems_too() {
    run(async {
        let router = router(roles(&[]));
        for path in ["/", "/api/v1", "/api/v1/", "/api/v1/clients/", "/api/v2/clients", "/api/v1/clients/a/b"]
        {
            let detail = ask(&router, "GET", path).await.problem(404, "no-such-route");
            assert!(detail.starts_with(path), "{detail}");
        }
        let answer = ask(&router, "POST", "/api/v1/clients/a").await;
        answer.problem(405, "method-not-allowed");
        let allow: Vec<&str> = answer.header("allow").split(',').collect();
        assert_eq!(allow, ["GET", "HEAD", "DELETE"]);
        ask(&router, "BREW", "/api/v1/config/reload").await.problem(405, "method-not-allowed");
        ask(&router, "GET", "/api/v1/config/reload").await.problem(405, "method-not-allowed");
    });
}

#[test]
fn a_bad_parameter_is_named_with_what_is_allowed() {
    run(async {
        let router = router(roles(&["a"]));
        for (target, parameter, allowed) in [
            ("/clients?limit=0", "limit", "from 1 to 10000"),
            ("/clients?limit=10001", "limit", "from 1 to 10000"),
            ("/clients?conn_state=idle", "conn_state", "connected, disconnected"),
            ("/clients?client_id=a", "client_id", "clientid"),
            ("/clients/a?x=1", "\"x\"", "no parameters"),
            ("/clients/a/subscriptions?limit=x", "limit", "from 1 to 10000"),
            ("/gateway/connections?srv=a", "srv", "server"),
            ("/upstreams?limit=-1", "limit", "from 1 to 10000"),
            ("/events?since=yesterday", "since", "whole number"),
            ("/events?type=client_conected", "type", "client_connected, client_disconnected"),
            ("/nodes?cursor=%ff", "cursor", "UTF-8"),
        ] {
            let detail = ask(&router, "GET", &format!("/api/v1{target}")).await.problem(400, "bad-query");
            assert!(detail.contains(parameter) && detail.contains(allowed), "{target}: {detail}");
        }
        ask(&router, "DELETE", "/api/v1/clients").await.problem(400, "bad-query");
        ask(&router, "PUT", "/api/v1/upstreams/brokers/pins").await.problem(400, "bad-query");
    });
}

#[test]
fn a_path_that_is_no_utf_8_is_told() {
    run(async {
        ask(&router(roles(&[])), "GET", "/api/v1/clients/%ff").await.problem(400, "bad-path");
    });
}

#[test]
fn what_is_not_there_is_named() {
    run(async {
        let router = router(roles(&[]));
        ask(&router, "GET", "/api/v1/clients/a/subscriptions").await.problem(404, "client-not-found");
        ask(&router, "GET", "/api/v1/gateway/connections/nobody").await.problem(404, "connection-not-found");
        ask(&router, "POST", "/api/v1/upstreams/u/servers/a/drain").await.problem(404, "upstream-not-found");
        let path = "/api/v1/upstreams/brokers/servers/zz/enable";
        let detail = ask(&router, "POST", path).await.problem(404, "server-not-found");
        assert!(detail.contains("\"brokers\"") && detail.contains("\"zz\""), "{detail}");
        ask(&router, "GET", "/api/v1/upstreams/u/pins").await.problem(404, "upstream-not-found");
        ask(&router, "DELETE", "/api/v1/upstreams/u/pins/k").await.problem(404, "upstream-not-found");
    });
}

#[test]
fn control_characters_of_a_client_id_do_not_reach_the_sentence() {
    run(async {
        let path = format!("/api/v1/clients/%1b%5b2J{}", "x".repeat(1000));
        let detail = ask(&router(roles(&[])), "GET", &path).await.problem(404, "client-not-found");
        assert!(!detail.contains('\u{1b}') && detail.len() < 300, "{detail:?}");
    });
}

async fn put(kind: Option<&str>, body: Vec<u8>) -> Answer {
    let request =
        Request::builder().method("PUT").uri("/api/v1/upstreams/brokers/pins/k").header("host", "[::1]");
    let request = match kind {
        Some(kind) => request.header("content-type", kind),
        None => request,
    };
    send(&router(roles(&[])), request.body(Body::from(body)).unwrap()).await
}

#[test]
fn a_body_has_to_be_json_of_the_right_shape() {
    run(async {
        let good = br#"{"server": "a"}"#.to_vec();
        assert_eq!(put(Some("application/json"), good.clone()).await.status, 200);
        put(None, good.clone()).await.problem(415, "media-type");
        put(Some("text/plain"), good).await.problem(415, "media-type");
        for body in ["", "{", "[]", r#"{"server": 1}"#, r#"{"server": "a", "ttl": 5}"#, "\u{0}"] {
            put(Some("application/json"), body.into()).await.problem(400, "bad-body");
        }
        let body = br#"{"server": "zz"}"#.to_vec();
        put(Some("application/json"), body).await.problem(422, "unknown-server");
    });
}

#[test]
fn a_body_may_have_one_mebibyte_and_not_a_byte_more() {
    run(async {
        let mut body = br#"{"server": "a"}"#.to_vec();
        body.resize(MAX_BODY, b' ');
        assert_eq!(put(Some("application/json"), body.clone()).await.status, 200);
        body.push(b' ');
        put(Some("application/json"), body).await.problem(413, "body-too-large");
        let told = Request::builder().method("POST").uri("/api/v1/config/reload").header("host", "localhost");
        let told = told.header("content-length", MAX_BODY + 1).body(Body::empty()).unwrap();
        send(&router(roles(&[])), told).await.problem(413, "body-too-large");
    });
}

#[test]
fn a_panic_becomes_a_problem_and_harms_no_other_request() {
    run(async {
        let mut roles = bare();
        roles.process = Arc::new(FakeProcess { panics: true, ..FakeProcess::default() });
        let router = router(roles);
        let detail = ask(&router, "GET", "/readyz").await.problem(500, "internal");
        assert!(!detail.contains("fake"), "the text of the panic stays in the log: {detail}");
        assert_eq!(ask(&router, "GET", "/livez").await.status, 200);
    });
}

fn livez() -> Builder {
    Request::builder().uri("/livez")
}

async fn status(request: Builder, at: Option<&str>) -> Answer {
    let mut request = request.body(Body::empty()).unwrap();
    if let Some(at) = at {
        request.extensions_mut().insert(LocalAddress(at.parse::<SocketAddr>().unwrap()));
    }
    send(&router(bare()), request).await
}

#[test]
fn on_loopback_a_foreign_host_header_is_refused() {
    run(async {
        for at in [None, Some("127.0.0.1:18083"), Some("[::1]:18083"), Some("[::ffff:127.0.0.1]:18083")] {
            for host in [
                "evil.example",
                "evil.example:18083",
                "127.0.0.1.evil.example",
                "10.0.0.1:18083",
                "localhost.evil",
            ] {
                status(livez().header("host", host), at).await.problem(421, "foreign-host");
            }
            for host in
                ["localhost", "LOCALHOST:18083", "127.0.0.1", "127.0.0.1:1", "[::1]:18083", "127.9.9.9"]
            {
                assert_eq!(status(livez().header("host", host), at).await.status, 200, "{host} at {at:?}");
            }
        }
    });
}

#[test]
fn the_request_target_outweighs_the_host_header() {
    run(async {
        let request = Request::builder().uri("http://evil.example/livez").header("host", "localhost");
        status(request, None).await.problem(421, "foreign-host");
        let request = Request::builder().uri("http://localhost/livez").header("host", "evil.example");
        assert_eq!(status(request, None).await.status, 200);
    });
}

#[test]
fn away_from_loopback_any_host_header_is_taken() {
    run(async {
        let answer = status(livez().header("host", "tidegate.example"), Some("10.0.0.1:18083")).await;
        assert_eq!(answer.status, 200);
    });
}

#[test]
fn a_missing_doubled_or_broken_host_header_is_refused() {
    run(async {
        status(livez(), None).await.problem(400, "bad-host");
        status(livez().header("host", "localhost").header("host", "localhost"), None)
            .await
            .problem(400, "bad-host");
        for host in ["", "a b", "http://localhost", "evil.example@127.0.0.1"] {
            status(livez().header("host", host), None).await.problem(400, "bad-host");
        }
        let old = livez().version(axum::http::Version::HTTP_10);
        assert_eq!(status(old, None).await.status, 200);
    });
}

#[test]
fn a_page_of_another_origin_can_change_nothing() {
    run(async {
        let post = || {
            Request::builder().method("POST").uri("/api/v1/config/reload").header("host", "localhost:18083")
        };
        for origin in ["http://evil.example", "null", "http://localhost:3000", "http://127.0.0.1:18083", ""] {
            status(post().header("origin", origin), None).await.problem(403, "foreign-origin");
        }
        assert_eq!(status(post().header("origin", "http://localhost:18083"), None).await.status, 200);
        assert_eq!(status(post(), None).await.status, 200);
        let read = livez().header("host", "localhost:18083").header("origin", "http://evil.example");
        assert_eq!(status(read, None).await.status, 200);
    });
}

#[test]
fn no_answer_may_be_kept_or_taken_for_something_else() {
    run(async {
        let router = router(bare());
        for path in ["/livez", "/nowhere", "/metrics"] {
            let answer = ask(&router, "GET", path).await;
            assert_eq!(answer.header("cache-control"), "no-store");
            assert_eq!(answer.header("x-content-type-options"), "nosniff");
            assert_eq!(answer.header("access-control-allow-origin"), "");
        }
    });
}
