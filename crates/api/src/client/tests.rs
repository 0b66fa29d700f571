use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::thread;

use super::*;

/// Answers each of `answers` to one request after another; gives back the request lines and bodies it saw.
fn server(
    answers: Vec<(u16, &'static str, String)>,
) -> (RestClient, thread::JoinHandle<Vec<(String, String)>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let base = format!("http://{}/", listener.local_addr().unwrap());
    let seen = thread::spawn(move || {
        answers
            .into_iter()
            .map(|(status, kind, body)| {
                let (stream, _) = listener.accept().unwrap();
                let mut reader = BufReader::new(stream);
                let mut first = String::new();
                reader.read_line(&mut first).unwrap();
                let mut length = 0;
                loop {
                    let mut line = String::new();
                    reader.read_line(&mut line).unwrap();
                    if line.trim().is_empty() {
                        break;
                    }
                    let (name, value) = line.split_once(':').unwrap();
                    if name.eq_ignore_ascii_case("content-length") {
                        length = value.trim().parse().unwrap();
                    }
                }
                let mut sent = vec![0; length];
                reader.read_exact(&mut sent).unwrap();
                let answer = format!(
                    "HTTP/1.1 {status} X\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
                    body.len()
                );
                reader.get_mut().write_all(answer.as_bytes()).unwrap();
                let line = first.trim_end().trim_end_matches(" HTTP/1.1").to_owned();
                (line, String::from_utf8(sent).unwrap())
            })
            .collect()
    });
    (RestClient::new(&base).unwrap(), seen)
}

const JSON: &str = "application/json";
const PROBLEM: &str = "application/problem+json";

fn problem(kind: &str, errors: &[&str]) -> String {
    let problem = Problem {
        kind: format!("/problems/{kind}"),
        title: "A title".into(),
        status: 404,
        detail: Some("A detail.".into()),
        errors: errors.iter().map(|&fault| fault.to_owned()).collect(),
    };
    serde_json::to_string(&problem).unwrap()
}

fn pin_page(keys: &[&str], cursor: Option<&str>) -> String {
    let data = keys
        .iter()
        .map(|&key| Pin { key: key.into(), server: "a".into(), origin: "operator".into() })
        .collect();
    let page = Page { data, meta: crate::page::PageMeta { cursor: cursor.map(str::to_owned) } };
    serde_json::to_string(&page).unwrap()
}

#[test]
fn odd_client_ids_reach_the_server_whole() {
    let (client, seen) = server(vec![
        (404, PROBLEM, problem("client-not-found", &[])),
        (204, JSON, String::new()),
        (204, JSON, String::new()),
        (404, PROBLEM, problem("connection-not-found", &[])),
    ]);
    assert_eq!(client.client("a/b%ü").unwrap(), None);
    assert!(client.kick("c d").unwrap());
    assert!(client.kick("..").unwrap());
    assert_eq!(client.connection("x?y").unwrap(), None);
    let lines: Vec<String> = seen.join().unwrap().into_iter().map(|(line, _)| line).collect();
    assert_eq!(
        lines,
        [
            "GET /api/v1/clients/a%2Fb%25%C3%BC",
            "DELETE /api/v1/clients/c%20d",
            "DELETE /api/v1/clients?clientid=..",
            "GET /api/v1/gateway/connections/x%3Fy",
        ]
    );
}

#[test]
fn a_list_is_followed_to_its_last_page() {
    let (client, seen) =
        server(vec![(200, JSON, pin_page(&["a", "b"], Some("b&"))), (200, JSON, pin_page(&["c"], None))]);
    let pages: Result<Vec<Vec<Pin>>, _> =
        client.pages(|client, page| client.pins("brokers 1", page)).collect();
    let keys: Vec<String> = pages.unwrap().into_iter().flatten().map(|pin| pin.key).collect();
    assert_eq!(keys, ["a", "b", "c"]);
    let lines: Vec<String> = seen.join().unwrap().into_iter().map(|(line, _)| line).collect();
    assert_eq!(
        lines,
        [
            "GET /api/v1/upstreams/brokers%201/pins?limit=1000",
            "GET /api/v1/upstreams/brokers%201/pins?limit=1000&cursor=b%26",
        ]
    );
}

#[test]
fn a_cursor_that_repeats_ends_the_list_with_an_error() {
    let (client, seen) = server(vec![
        (200, JSON, pin_page(&["a"], Some("same"))),
        (200, JSON, pin_page(&["a"], Some("same"))),
    ]);
    let pages: Vec<Result<Vec<Pin>, _>> = client.pages(|client, page| client.pins("u", page)).collect();
    assert_eq!(pages.len(), 2);
    assert!(pages[1].as_ref().unwrap_err().to_string().contains("same cursor twice"));
    seen.join().unwrap();
}

#[test]
fn a_pin_is_sent_as_a_body() {
    let pin = Pin { key: "k".into(), server: "s".into(), origin: "operator".into() };
    let (client, seen) = server(vec![(200, JSON, serde_json::to_string(&pin).unwrap())]);
    assert_eq!(client.pin("u", "k", "s").unwrap(), pin);
    let expected = ("PUT /api/v1/upstreams/u/pins/k".to_owned(), r#"{"server":"s"}"#.to_owned());
    assert_eq!(seen.join().unwrap(), [expected]);
}

#[test]
fn a_problem_is_told_with_all_its_faults() {
    let (client, seen) =
        server(vec![(422, PROBLEM, problem("config-refused", &["a.toml:1: x", "a.toml:2: y"]))]);
    let error = client.reload().unwrap_err();
    assert_eq!(error.to_string(), "A detail.\n  a.toml:1: x\n  a.toml:2: y");
    assert_eq!(seen.join().unwrap()[0].0, "POST /api/v1/config/reload");
}

#[test]
fn a_missing_role_is_an_error_and_not_an_absent_client() {
    let (client, seen) = server(vec![(404, PROBLEM, problem("no-broker", &[]))]);
    assert!(matches!(client.client("a"), Err(ClientError::Problem(_))));
    seen.join().unwrap();
}

#[test]
fn another_web_server_is_recognised() {
    let (client, seen) =
        server(vec![(200, "text/html", "<html>".into()), (502, "text/html", "<html>".into())]);
    assert!(client.nodes().unwrap_err().to_string().contains("is not this API"));
    let error = client.nodes().unwrap_err().to_string();
    assert!(error.contains("is not this API") && error.contains("502"), "{error}");
    seen.join().unwrap();
}

#[test]
fn nothing_listening_is_one_clear_sentence() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let error = RestClient::new(&base).unwrap().nodes().unwrap_err();
    assert!(matches!(error, ClientError::NotListening { .. }), "{error:?}");
    assert!(error.to_string().starts_with(&format!("nothing listens at {base}:")), "{error}");
}

#[test]
fn a_base_that_is_no_http_url_is_refused_before_anything_is_sent() {
    for base in ["", "localhost?b=c", "https://localhost", "ftp://x", "http://", "http://a?b=c", "http://a b"]
    {
        let error = RestClient::new(base).unwrap_err();
        assert!(matches!(error, ClientError::BaseUrl { .. }), "{base:?}: {error}");
    }
    for (base, whole) in [
        ("http://[::1]:9/", "http://[::1]:9"),
        ("127.0.0.1:21080", "http://127.0.0.1:21080"),
        ("localhost:18083/", "http://localhost:18083"),
    ] {
        assert_eq!(RestClient::new(base).unwrap().base(), whole);
    }
}
