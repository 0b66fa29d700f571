//! Over real sockets: bounds, time-outs, the end, and the client of `api`.

use std::sync::Arc;
use std::time::Duration;

use ::api::broker::ClientQuery;
use ::api::client::{ClientError, RestClient};
use ::api::gateway::ConnectionQuery;
use ::api::page::PageQuery;
use runtime::lifecycle::Shutdown;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::timeout;

use super::fakes::{FakeProcess, bare, roles};
use super::run;
use crate::server::{Handle, Limits, start};
use crate::{AdminConfig, Roles, serve};

/// No event of these tests takes longer unless it never comes.
const DEADLINE: Duration = Duration::from_secs(20);

fn begin(roles: Roles, limits: Limits) -> (Handle, Shutdown) {
    let shutdown = Shutdown::new();
    let handle = start("127.0.0.1:0".parse().unwrap(), roles, shutdown.clone(), limits).unwrap();
    (handle, shutdown)
}

async fn connect(handle: &Handle) -> TcpStream {
    TcpStream::connect(handle.local_addr).await.unwrap()
}

async fn read_all(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    timeout(DEADLINE, stream.read_to_end(&mut bytes))
        .await
        .expect("the server keeps the connection")
        .unwrap();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Reads up to the end of a head, and what came with it.
async fn read_head(stream: &mut TcpStream) -> String {
    let mut text = String::new();
    while !text.contains("\r\n\r\n") {
        let mut chunk = [0; 1024];
        let count = timeout(DEADLINE, stream.read(&mut chunk)).await.expect("no answer").unwrap();
        assert!(count > 0, "closed after {text:?}");
        text.push_str(&String::from_utf8_lossy(&chunk[..count]));
    }
    text
}

const LIVEZ: &[u8] = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n";

#[test]
fn a_request_that_is_no_http_or_from_a_rebound_name_is_refused() {
    run(async {
        let (handle, _shutdown) = begin(bare(), Limits::default());
        let mut stream = connect(&handle).await;
        stream.write_all(b"\x10\x0c\x00\x04MQTT\x04\x02\x00\x3c\x00\x00").await.unwrap();
        stream.shutdown().await.unwrap();
        read_all(&mut stream).await;
        let mut stream = connect(&handle).await;
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: evil.example\r\n\r\n").await.unwrap();
        let head = read_head(&mut stream).await;
        assert!(head.starts_with("HTTP/1.1 421 "), "{head}");
        assert!(head.contains("application/problem+json"), "{head}");
    });
}

#[test]
fn an_idle_connection_and_a_slow_head_are_closed() {
    run(async {
        let limits = Limits { head: Duration::from_millis(50), ..Limits::default() };
        let (handle, _shutdown) = begin(bare(), limits);
        let mut silent = connect(&handle).await;
        let mut slow = connect(&handle).await;
        slow.write_all(b"GET /livez HT").await.unwrap();
        let mut idle = connect(&handle).await;
        idle.write_all(LIVEZ).await.unwrap();
        assert!(read_head(&mut idle).await.starts_with("HTTP/1.1 200 "));
        for stream in [&mut silent, &mut slow, &mut idle] {
            assert!(!read_all(stream).await.contains("HTTP/1.1 200 "));
        }
    });
}

#[test]
fn at_the_bound_a_connection_waits_until_another_one_closes() {
    run(async {
        let (handle, _shutdown) = begin(bare(), Limits { connections: 1, ..Limits::default() });
        let mut first = connect(&handle).await;
        first.write_all(LIVEZ).await.unwrap();
        read_head(&mut first).await;
        let mut second = connect(&handle).await;
        second.write_all(LIVEZ).await.unwrap();
        // The first one is still served, the second one has had its request in longer and no answer.
        first.write_all(LIVEZ).await.unwrap();
        read_head(&mut first).await;
        let mut byte = [0];
        let early = second.try_read(&mut byte);
        assert_eq!(early.unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
        drop(first);
        assert!(read_head(&mut second).await.starts_with("HTTP/1.1 200 "));
    });
}

#[test]
fn a_peer_that_does_not_read_its_answer_loses_its_place() {
    run(async {
        let mut roles = bare();
        let metrics = Some("x".repeat(32 << 20));
        roles.process = Arc::new(FakeProcess { metrics, ..FakeProcess::default() });
        let limits = Limits { connections: 1, write: Duration::from_millis(50), ..Limits::default() };
        let (handle, _shutdown) = begin(roles, limits);
        let mut deaf = connect(&handle).await;
        deaf.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
        let mut next = connect(&handle).await;
        next.write_all(LIVEZ).await.unwrap();
        assert!(read_head(&mut next).await.starts_with("HTTP/1.1 200 "));
    });
}

#[test]
fn a_shutdown_lets_the_request_under_way_end() {
    run(async {
        let (begun, may_end) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let gate = Some((Arc::clone(&begun), Arc::clone(&may_end)));
        let mut roles = bare();
        roles.process = Arc::new(FakeProcess { reload_gate: gate, ..FakeProcess::default() });
        let (handle, shutdown) = begin(roles, Limits { drain: DEADLINE, ..Limits::default() });
        let mut idle = connect(&handle).await;
        idle.write_all(LIVEZ).await.unwrap();
        read_head(&mut idle).await;
        let mut busy = connect(&handle).await;
        busy.write_all(b"POST /api/v1/config/reload HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
        begun.notified().await;
        shutdown.begin("test");
        read_all(&mut idle).await;
        may_end.notify_one();
        assert!(read_all(&mut busy).await.starts_with("HTTP/1.1 200 "));
        let addr = handle.local_addr;
        timeout(DEADLINE, handle.finished()).await.unwrap();
        assert!(TcpStream::connect(addr).await.is_err());
    });
}

#[test]
fn a_shutdown_does_not_wait_for_a_request_that_never_ends() {
    run(async {
        let gate = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let begun = Arc::clone(&gate.0);
        let mut roles = bare();
        roles.process = Arc::new(FakeProcess { reload_gate: Some(gate), ..FakeProcess::default() });
        let (handle, shutdown) =
            begin(roles, Limits { drain: Duration::from_millis(50), ..Limits::default() });
        let mut stuck = connect(&handle).await;
        stuck.write_all(b"POST /api/v1/config/reload HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
        begun.notified().await;
        shutdown.begin("test");
        timeout(DEADLINE, handle.finished()).await.unwrap();
    });
}

#[test]
fn a_port_in_use_is_one_clear_sentence() {
    run(async {
        let (handle, shutdown) = begin(bare(), Limits::default());
        let config = AdminConfig { bind: handle.local_addr };
        let error = serve(config, bare(), shutdown).unwrap_err();
        let expected =
            format!("cannot listen on {}: the port is in use by another process", handle.local_addr);
        assert!(error.to_string().starts_with(&expected), "{error}");
        assert_eq!(error.kind(), std::io::ErrorKind::AddrInUse);
    });
}

#[test]
fn without_a_tokio_runtime_serving_is_an_error_and_no_panic() {
    let error = serve(AdminConfig::default(), bare(), Shutdown::new()).unwrap_err();
    assert!(error.to_string().contains("runtime"), "{error}");
}

/// Runs the blocking client against a server.
fn with_client(roles: Roles, test: impl FnOnce(RestClient) + Send + 'static) {
    run(async {
        let (handle, _shutdown) = begin(roles, Limits::default());
        let client = RestClient::new(&format!("http://{}", handle.local_addr)).unwrap();
        tokio::task::spawn_blocking(move || test(client)).await.unwrap();
    });
}

#[test]
fn the_client_reads_every_route_of_the_broker() {
    let ids: Vec<String> = (0..2500).map(|n| format!("car {n}/ü%")).collect();
    let mut ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    ids.extend(["", ".", ".."]);
    with_client(roles(&ids), |client| {
        let query = ClientQuery::default();
        let rows: Result<Vec<_>, _> = client.pages(|client, page| client.clients(&query, page)).collect();
        let rows: Vec<_> = rows.unwrap().concat();
        assert_eq!(rows.len(), 2503);
        assert!(rows.is_sorted_by(|a, b| a.clientid < b.clientid));
        for id in ["car 7/ü%", "", ".", ".."] {
            assert_eq!(client.client(id).unwrap().unwrap().clientid, id);
            assert!(client.kick(id).unwrap(), "{id:?}");
            assert!(!client.kick(id).unwrap(), "{id:?}");
            assert_eq!(client.client(id).unwrap(), None, "{id:?}");
        }
        assert_eq!(client.subscriptions("car 8/ü%").unwrap().unwrap().len(), 3);
        assert_eq!(client.subscriptions("nobody").unwrap(), None);
        assert_eq!(client.nodes().unwrap().data[0].node, "node1");
    });
}

#[test]
fn the_client_reads_every_route_of_the_gateway() {
    with_client(roles(&[]), |client| {
        let query = ConnectionQuery { server: Some("a".into()), upstream: None };
        assert_eq!(client.connections(None, &query, &PageQuery::default()).unwrap().data.len(), 3);
        let twice = client.connection("twice").unwrap().unwrap();
        assert_eq!((twice.newest.id.as_str(), twice.others.len()), ("c5", 1));
        let unnamed = client.connection("").unwrap().unwrap();
        assert_eq!((unnamed.newest.id.as_str(), unnamed.others.len()), ("c3", 2));
        assert_eq!(client.connection("nobody").unwrap(), None);
        assert_eq!(client.upstreams().unwrap().data[0].name, "brokers");
        assert_eq!(client.drain("brokers", "10.0.0.2:1883").unwrap().state, "draining");
        assert_eq!(client.enable("brokers", "a").unwrap().state, "up");
        for key in ["car/7", ".."] {
            assert_eq!(client.pin("brokers", key, "a").unwrap().key, key);
        }
        assert_eq!(client.pins("brokers", &PageQuery::default()).unwrap().data.len(), 2);
        assert!(client.unpin("brokers", "..").unwrap());
        assert!(!client.unpin("brokers", "..").unwrap());
        let error = client.drain("brokers", "zz").unwrap_err();
        assert_eq!(error.to_string(), "The upstream \"brokers\" has no server \"zz\".");
    });
}

#[test]
fn the_client_reads_every_route_of_the_process() {
    with_client(bare(), |client| {
        let events = client.events(Some(2), Some("client_connected"), 2).unwrap().data;
        assert_eq!(events.iter().map(|event| event.seq).collect::<Vec<_>>(), [4, 5]);
        assert_eq!(client.reload().unwrap().changes.len(), 1);
        assert!(matches!(client.client("a"), Err(ClientError::Problem(_))), "no broker is no absent client");
    });
}
