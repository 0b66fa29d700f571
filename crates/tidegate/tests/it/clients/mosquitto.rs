//! mosquitto_pub and mosquitto_sub, the clients of shell scripts.

use crate::harness::mosquitto::{publish, publish_input, subscribe};
use crate::harness::{Site, Tidegate};

const BURST: usize = 20;

fn broker() -> Tidegate {
    Site::new("node1").broker("", "").start()
}

/// Every scenario that the two programs have a part in, in one version: `31`, `311` or `5`.
fn play(version: &str) {
    let broker = broker();
    messages_arrive_once_in_order_at_every_qos(&broker, version);
    retained_messages_wait(&broker, version);
    a_session_is_resumed(&broker, version);
    a_will_is_published(&broker, version);
    messages_are_shared(&broker, version);
    if version == "5" {
        properties_arrive_as_they_were_sent(&broker);
    }
}

fn messages_arrive_once_in_order_at_every_qos(broker: &Tidegate, version: &str) {
    let lines: String = (0..BURST).map(|n| format!("{n}\n")).collect();
    for qos in ["0", "1", "2"] {
        let count = BURST.to_string();
        let sub = subscribe(
            broker.mqtt(),
            &["-V", version, "-t", "order/+", "-q", qos, "-C", &count, "-F", "got %q %p"],
        );
        publish_input(broker.mqtt(), &["-V", version, "-t", "order/x", "-q", qos, "-l"], lines.as_bytes());
        let all = sub.out.to_end();
        let got: Vec<_> = all.iter().filter(|line| line.starts_with("got ")).cloned().collect();
        assert_eq!(got, (0..BURST).map(|n| format!("got {qos} {n}")).collect::<Vec<_>>());
    }
}

fn retained_messages_wait(broker: &Tidegate, version: &str) {
    publish(broker.mqtt(), &["-V", version, "-t", "kept", "-m", "still here", "-q", "1", "-r"]);
    let sub = subscribe(broker.mqtt(), &["-V", version, "-t", "kept", "-C", "2", "-F", "got %r %p"]);
    sub.out.line_with(&["got 1 still here"]);
    publish(broker.mqtt(), &["-V", version, "-t", "kept", "-n", "-q", "1", "-r"]);
    sub.out.line_with(&["got 0 "]);
}

fn a_session_is_resumed(broker: &Tidegate, version: &str) {
    let keep: &[&str] = if version == "5" { &["-x", "300"] } else { &[] };
    let lasting = ["-V", version, "-i", "lasting", "-c", "-t", "away/#", "-q", "2"];
    let mut sub = subscribe(broker.mqtt(), &[&lasting[..], keep, &["-E"]].concat());
    sub.end();
    let lines: String = (0..BURST).map(|n| format!("{n}\n")).collect();
    publish_input(broker.mqtt(), &["-V", version, "-t", "away/x", "-q", "2", "-l"], lines.as_bytes());
    let count = BURST.to_string();
    let sub = subscribe(broker.mqtt(), &[&lasting[..], keep, &["-C", &count, "-F", "got %p"]].concat());
    let all = sub.out.to_end();
    let got: Vec<_> = all.iter().filter(|line| line.starts_with("got ")).cloned().collect();
    assert_eq!(got, (0..BURST).map(|n| format!("got {n}")).collect::<Vec<_>>());
    let mut end = subscribe(broker.mqtt(), &["-V", version, "-i", "lasting", "-t", "away/#", "-E"]);
    end.end();
}

fn a_will_is_published(broker: &Tidegate, version: &str) {
    let watcher = subscribe(broker.mqtt(), &["-V", version, "-t", "gone", "-C", "1", "-F", "got %p"]);
    let mut doomed = subscribe(
        broker.mqtt(),
        &["-V", version, "-t", "x", "--will-topic", "gone", "--will-payload", "farewell", "--will-qos", "1"],
    );
    doomed.kill();
    watcher.out.line_with(&["got farewell"]);
}

fn messages_are_shared(broker: &Tidegate, version: &str) {
    let members = ["one", "two"].map(|id| {
        subscribe(
            broker.mqtt(),
            &["-V", version, "-i", id, "-t", "$share/crew/work", "-q", "1", "-F", "got %p"],
        )
    });
    let lines: String = (0..BURST).map(|n| format!("{n}\n")).collect();
    publish_input(broker.mqtt(), &["-V", version, "-t", "work", "-q", "1", "-l"], lines.as_bytes());
    let count = || members.iter().map(|member| member.out.count(&["got "])).sum::<usize>();
    crate::harness::eventually("the shared messages", || (count() >= BURST).then_some(()));
    assert_eq!(count(), BURST);
}

fn properties_arrive_as_they_were_sent(broker: &Tidegate) {
    let sub = subscribe(
        broker.mqtt(),
        &[
            "-V",
            "5",
            "-t",
            "told",
            "-C",
            "1",
            "-F",
            "got %C|%R|%D|%P|%E|%p",
            "-D",
            "subscribe",
            "user-property",
            "s",
            "t",
        ],
    );
    let property = |name: &'static str, value: &'static str| ["-D", "publish", name, value];
    let arguments = [
        &["-V", "5", "-t", "told", "-m", "question", "-q", "1"][..],
        &property("content-type", "text/plain"),
        &property("response-topic", "answers/here"),
        &property("correlation-data", "request-9"),
        &["-D", "publish", "user-property", "b", "1", "-D", "publish", "user-property", "a", "2"],
        &["-D", "publish", "user-property", "b", "3"],
        &property("message-expiry-interval", "60"),
    ]
    .concat();
    publish(broker.mqtt(), &arguments);
    let line = sub.out.line_with(&["got text/plain|answers/here|request-9|"]);
    assert!(line.contains("b:1 a:2 b:3"), "{line}");
    assert!(line.ends_with("|question"), "{line}");
}

#[test]
fn mosquitto_clients_3_1() {
    play("31");
}

#[test]
fn mosquitto_clients_3_1_1() {
    play("311");
}

#[test]
fn mosquitto_clients_5() {
    play("5");
}
