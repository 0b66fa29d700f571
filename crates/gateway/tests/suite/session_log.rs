//! The session log in a file, and what is known of a listener.

use std::path::Path;

use api::gateway::GatewayAdmin;
use runtime::clock::Clock;

use crate::harness::{
    Broker, DEADLINE, Running, config, device, device_from, eventually, expect_end, hello, parse, soon,
};

fn logged(path: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

fn with_log(text: &str, log: &str) -> String {
    text.replacen("[gateway]\n", &format!("[gateway]\nsession_log = {log}\n"), 1)
}

#[tokio::test]
async fn a_connection_is_one_line_in_the_file_and_a_reload_opens_the_file_anew() {
    let (broker, folder) = (Broker::start().await, tempfile::tempdir().unwrap());
    let path = folder.path().join("gateway.log");
    let listener = "access = [{ deny = \"127.0.2.1\" }]";
    let text = |format: &str| {
        let log = format!("{{ file = \"{}\", format = \"{format}\" }}", path.display());
        with_log(&config(listener, "", &[broker.address]), &log)
    };
    let running = Running::start(&text("text"));
    let visit = async |id: &str| {
        let hello = hello(id).username("fleet").bytes();
        let client = device(running.address(), &hello).await;
        drop(broker.accept_with(&hello).await);
        drop(client);
    };
    visit("car 1").await;
    let lines = eventually(|| Some(logged(&path)).filter(|lines| !lines.is_empty())).await;
    assert!(
        lines[0].contains(" session id=") && lines[0].contains(" clientid=\"car 1\" username=fleet "),
        "{lines:?}"
    );
    assert!(lines[0].contains(" chosen_by=hash ") && lines[0].ends_with("_closed"), "{lines:?}");
    let mut denied = device_from("127.0.2.1", running.address(), b"").await;
    expect_end(&mut denied, b"").await;
    let lines = eventually(|| Some(logged(&path)).filter(|lines| lines.len() == 2)).await;
    assert!(
        lines[1].contains(" refused peer=127.0.2.1:") && lines[1].ends_with(" reason=access_denied"),
        "{lines:?}"
    );

    // It was moved away: the next reload, though nothing changed, makes a new one.
    std::fs::rename(&path, folder.path().join("gateway.log.1")).unwrap();
    assert!(running.gateway.apply(parse(&text("text"))).unwrap().is_empty());
    visit("car 2").await;
    let lines = eventually(|| Some(logged(&path)).filter(|lines| !lines.is_empty())).await;
    assert!(lines[0].contains("car 2") && lines.len() == 1, "{lines:?}");
    assert_eq!(logged(&folder.path().join("gateway.log.1")).len(), 2);

    let changes = running.gateway.apply(parse(&text("json"))).unwrap();
    assert_eq!(changes, [format!("session log: {} as json", path.display())]);
    visit("car 3").await;
    // What was handed over is in the file when a stop is over.
    soon(running.gateway.stop(Clock::system().now() + DEADLINE)).await;
    let lines = logged(&path);
    assert!(
        lines.len() == 2
            && lines[1].starts_with("{\"time\":\"")
            && lines[1].contains("\"clientid\":\"car 3\"")
    );
}

#[tokio::test]
async fn a_file_that_cannot_be_written_is_told_before_anything_changes() {
    let broker = Broker::start().await;
    let text = config("", "", &[broker.address]);
    let running = Running::start(&text);
    let bad = with_log(&text, "{ file = \"/no/such/folder/g.log\" }");
    let error = running.gateway.apply(parse(&bad)).unwrap_err().to_string();
    assert!(error.starts_with("the session log /no/such/folder/g.log: "), "{error}");
    running.gateway.apply(parse(&with_log(&text, "\"off\""))).unwrap();
    let _client = device(running.address(), &hello("car").bytes()).await;
    broker.accept().await;
}

#[tokio::test]
async fn a_listener_tells_what_it_counted() {
    let broker = Broker::start().await;
    let listener =
        "access = [{ deny = \"127.0.2.1\" }]\nmax_connections = 7\nmax_connections_per_address = 5";
    let running = Running::start(&config(listener, "", &[broker.address]));
    let mut denied = device_from("127.0.2.1", running.address(), b"").await;
    expect_end(&mut denied, b"").await;
    let _client = device(running.address(), &hello("car").bytes()).await;
    let _server = broker.accept_with(&hello("car").bytes()).await;
    let row = eventually(|| running.gateway.listeners().pop().filter(|row| row.served_total == 1)).await;
    assert_eq!((&*row.name, &*row.upstream), (&*format!("tcp://{}", running.address()), "brokers"));
    assert_eq!((row.connections, row.max_connections, row.max_connections_per_address), (1, 7, 5));
    assert_eq!((row.accepted_total, row.refused_total, row.access_rules), (2, 1, 1));
    assert_eq!(row.refused, [("access_denied".to_owned(), 1)].into());
    assert_eq!(row.chosen_by, [("hash".to_owned(), 1)].into());
    assert!(row.ended.is_empty());
}
