//! `tidegate pub` and `tidegate sub` beside mosquitto_pub and mosquitto_sub: the same flags, the same bytes, the same
//! exit codes, on our broker and on Mosquitto.

use std::net::SocketAddr;
use std::process::{Command, Output, Stdio};

use crate::harness::address::{MQTT, at, own};
use crate::harness::mosquitto::{client, publish, publish_input, subscribe};
use crate::harness::process::{run, run_with, text};
use crate::harness::server::tidegate;
use crate::harness::{Mosquitto, Process, Tidegate, eventually};

/// Ours, with the same arguments as [`client`].
fn ours(verb: &str, to: SocketAddr, arguments: &[&str]) -> Command {
    let mut command = tidegate(&[verb]);
    command.args(["-h", &to.ip().to_string(), "-p", &to.port().to_string()]).args(arguments);
    command
}

/// Starts both subscribers with the same arguments, publishes once both have subscribed, and compares everything.
#[track_caller]
fn subscribers_agree(
    broker: &Tidegate,
    filters: f64,
    arguments: &[&str],
    publish: impl FnOnce(SocketAddr),
) -> Output {
    let at = broker.mqtt();
    // those of the run before may still be on their way out
    let subscriptions = || broker.metric("tidegate_broker_subscriptions");
    eventually("nobody is left", || (subscriptions() == 0.0).then_some(()));
    let theirs = client("mosquitto_sub", at, arguments);
    let running =
        [theirs, ours("sub", at, arguments)].map(|mut command| std::thread::spawn(move || run(&mut command)));
    eventually("both have subscribed, or ended", || {
        (subscriptions() >= 2.0 * filters || running.iter().all(std::thread::JoinHandle::is_finished))
            .then_some(())
    });
    publish(at);
    let [theirs, ours] = running.map(|running| running.join().expect("an end"));
    assert_eq!(
        String::from_utf8_lossy(&ours.stdout),
        String::from_utf8_lossy(&theirs.stdout),
        "{arguments:?}\n{}",
        String::from_utf8_lossy(&ours.stderr)
    );
    assert_eq!(ours.stdout, theirs.stdout, "{arguments:?}");
    assert_eq!(ours.status.code(), theirs.status.code(), "{arguments:?}");
    ours
}

/// Four messages: text, nothing, bytes that are no text, and text again. All of one QoS: mosquitto_sub shows a message of
/// QoS 2 not before its PUBREL, so one of QoS 1 can overtake it there.
fn four_messages(to: SocketAddr, qos: &str) {
    publish(to, &["-t", "a/b", "-m", "räum 1", "-q", qos]);
    publish(to, &["-t", "a/b", "-n", "-q", qos]);
    publish_input(to, &["-t", "a/c d", "-s", "-q", qos], b"\x00\x01\xff line\nnext\t");
    publish(to, &["-t", "a", "-m", "{\"v\": 1}", "-q", qos]);
}

#[test]
fn sub_prints_the_same_bytes_in_every_format() {
    let broker = Tidegate::broker("node1");
    let base = ["-t", "a/#", "-q", "2", "-C", "4"];
    for (qos, format) in [
        ("1", &[][..]),
        ("1", &["-v"]),
        ("2", &["-v"]),
        ("1", &["-N"]),
        ("1", &["-N", "-v"]),
        ("1", &["-F", "%t|%q|%r|%l|%x|%X|%p|%%|@@"]),
        ("2", &["-F", "%q %r %t"]),
        ("1", &["-F", "\\t%p\\\\\\n%t\\0end"]),
        ("1", &["-F", "%p %m"]),
        ("1", &["-V", "5", "-F", "%t %p %A %C %D %E %F %P %R %S."]),
        ("1", &["-V", "31", "-v"]),
    ] {
        subscribers_agree(&broker, 1.0, &[&base, format].concat(), |to| four_messages(to, qos));
    }
}

#[test]
fn sub_prints_the_same_properties_of_messages() {
    let broker = Tidegate::broker("node1");
    let arguments = ["-t", "p/#", "-V", "5", "-C", "1", "-q", "1", "-F", "%A|%C|%D|%E|%F|%P|%R|%S|%p"];
    subscribers_agree(&broker, 1.0, &arguments, |to| {
        let properties = [
            "-D publish content-type text/plain",
            "-D publish response-topic answers/7",
            "-D publish correlation-data 42",
            "-D publish payload-format-indicator 1",
            "-D publish user-property a 1",
            "-D publish user-property b 2",
        ];
        let flags: Vec<_> = properties.iter().flat_map(|flag| flag.split(' ')).collect();
        publish(to, &[&["-t", "p/1", "-m", "x", "-q", "1", "-V", "5"], &flags[..]].concat());
    });
}

#[test]
fn sub_selects_the_same_messages() {
    let broker = Tidegate::broker("node1");
    for topic in ["r/1", "r/2", "r/skip"] {
        publish(broker.mqtt(), &["-t", topic, "-m", "kept", "-r", "-q", "1"]);
    }
    let live = |to| publish(to, &["-t", "r/live", "-m", "now", "-q", "1"]);
    for arguments in [
        &["-t", "r/1", "-t", "r/2", "-t", "r/live", "-C", "3", "-v"][..],
        &["-t", "r/live", "-R", "-C", "1", "-v"],
        &["-t", "r/+", "-R", "-C", "1", "-v"],
        &["-t", "r/1", "-t", "r/live", "--retained-only", "-v"],
        &["-t", "r/live", "-t", "r/skip", "-T", "r/skip", "-C", "1", "-v"],
    ] {
        let filters = arguments.iter().filter(|argument| **argument == "-t").count();
        // All retained messages of one filter come before what is published now; how they are ordered is free.
        subscribers_agree(&broker, filters as f64, arguments, live);
    }
}

#[test]
fn sub_ends_with_the_same_exit_codes() {
    let broker = Tidegate::broker("node1");
    let nothing = |_| {};
    // Timed out: 27.
    let timed = subscribers_agree(&broker, 1.0, &["-t", "silence", "-W", "1"], nothing);
    assert_eq!(timed.status.code(), Some(27));
    // Subscribed and gone.
    let gone = subscribers_agree(&broker, 1.0, &["-t", "silence", "-E"], nothing);
    assert_eq!(gone.status.code(), Some(0));
    let nobody = at(own(), MQTT);
    fail_alike("sub", nobody, &["-t", "x"], 1);
    // Mistakes in the command line: 2 where the flag itself can't be read, as everywhere in our program.
    fail_alike("sub", nobody, &["-t", "a/#/b"], 1);
    fail_alike("sub", nobody, &[], 1);
    fail_alike("sub", nobody, &["-t", "x", "-c"], 1);
    fail_alike("sub", nobody, &["-t", "x", "-q", "3"], 2);
}

/// Both fail; theirs with 1, ours with `code` and a sentence.
#[track_caller]
fn fail_alike(verb: &str, to: SocketAddr, arguments: &[&str], code: i32) {
    let theirs = run(&mut client(&format!("mosquitto_{verb}"), to, arguments));
    let ours = run(&mut ours(verb, to, arguments));
    assert_eq!(theirs.status.code(), Some(1), "{arguments:?}");
    assert_eq!(ours.status.code(), Some(code), "{arguments:?}: {}", text(&ours.stderr));
    assert!(!ours.stderr.is_empty(), "{arguments:?}: a sentence says why");
}

/// What arrives of each publisher's messages, as mosquitto_sub shows them.
#[track_caller]
fn publishers_agree(to: SocketAddr, count: usize, arguments: &[&str], input: &[u8]) {
    let seen = |mut command: Command| {
        let format = "%t|%q|%r|%l|%x|%A|%C|%D|%E|%F|%P|%R|%S";
        let count = count.to_string();
        let mut watcher = subscribe(to, &["-t", "w/#", "-q", "2", "-V", "5", "-C", &count, "-F", format]);
        let output = run_with(&mut command, input);
        assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
        assert!(watcher.end().success());
        let lines = watcher.out.to_end();
        lines.into_iter().filter(|line| line.starts_with("w/")).collect::<Vec<_>>()
    };
    let theirs = seen(client("mosquitto_pub", to, arguments));
    let ours = seen(ours("pub", to, arguments));
    assert_eq!(ours, theirs, "{arguments:?}");
    assert_eq!(ours.len(), count, "{arguments:?}");
}

fn publishers_agree_at(to: SocketAddr) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("payload");
    std::fs::write(&file, b"from\x00 a\nfile\xff").expect("written");
    let file = file.to_str().expect("text");
    let properties =
        ["-D", "publish", "content-type", "text/csv", "-D", "publish", "user-property", "a", "1"];
    for (count, arguments, input) in [
        (1, &["-t", "w/1", "-m", "räum"][..], &b""[..]),
        (1, &["-t", "w/1", "-m", "x", "-q", "1", "-V", "5"], b""),
        (1, &["-t", "w/1", "-m", "x", "-q", "2", "-V", "31"], b""),
        (1, &["-t", "w/1", "-n", "-q", "1"], b""),
        (1, &["-t", "w/f", "-f", file, "-q", "1"], b""),
        (1, &["-t", "w/s", "-s", "-q", "2"], b"all of it\nwith lines\n"),
        (3, &["-t", "w/l", "-l", "-q", "1"], b"one\ntwo\nthree\n"),
        (3, &["-t", "w/l", "-l", "-q", "2"], b"one\n\nno end"),
        (3, &["-t", "w/r", "-m", "again", "--repeat", "3", "-q", "1"], b""),
        (1, &[&["-t", "w/p", "-m", "x", "-q", "1", "-V", "5"], &properties[..]].concat(), b""),
    ] {
        publishers_agree(to, count, arguments, input);
    }
}

/// [v3 MQTT-7.0.0-2]
#[test]
fn pub_sends_the_same_messages_to_our_broker() {
    let broker = Tidegate::broker("node1");
    publishers_agree_at(broker.mqtt());
}

#[test]
fn pub_sends_the_same_messages_to_mosquitto() {
    let mosquitto = Mosquitto::start();
    publishers_agree_at(mosquitto.mqtt());
}

#[test]
fn pub_ends_with_the_same_exit_codes() {
    let nobody = at(own(), MQTT);
    for arguments in [
        &["-t", "x", "-m", "y"][..],
        &["-m", "y"],
        &["-t", "x"],
        &["-t", "a/+", "-m", "y"],
        &["-t", "x", "-f", "no such file"],
    ] {
        fail_alike("pub", nobody, arguments, 1);
    }
}

#[test]
fn a_refusal_is_said_with_the_brokers_reason() {
    let broker = crate::harness::Site::new("node1").broker("", "allow_anonymous = false").start();
    for version in ["311", "5"] {
        for (verb, arguments) in
            [("pub", &["-t", "x", "-m", "y", "-V", version][..]), ("sub", &["-t", "x", "-V", version])]
        {
            let theirs = run(&mut client(&format!("mosquitto_{verb}"), broker.mqtt(), arguments));
            let ours = run(&mut ours(verb, broker.mqtt(), arguments));
            assert_ne!(ours.status.code(), Some(0));
            assert_eq!(ours.status.code(), theirs.status.code(), "{verb} {version}");
            let said = text(&ours.stderr).to_lowercase();
            assert!(said.contains("not authori"), "{verb} {version}: {said}");
        }
    }
}

#[test]
fn the_will_of_a_killed_sub_is_published() {
    let broker = Tidegate::broker("node1");
    let watcher = subscribe(broker.mqtt(), &["-t", "state/+", "-q", "1", "-C", "1", "-F", "%t %p"]);
    let mut victim = Process::start(
        "tidegate sub",
        ours(
            "sub",
            broker.mqtt(),
            &[
                "-t",
                "x",
                "-i",
                "victim",
                "--will-topic",
                "state/victim",
                "--will-payload",
                "lost",
                "--will-qos",
                "1",
            ],
        )
        .stdin(Stdio::null()),
    );
    broker.client_when("victim", |client| client.subscriptions_cnt == 1);
    victim.kill();
    watcher.out.line_with(&["state/victim lost"]);
}

#[test]
fn sub_keeps_its_session_and_ends_cleanly_by_a_signal() {
    let broker = Tidegate::broker("node1");
    let arguments = ["-t", "orders/#", "-q", "1", "-i", "keeper", "-c", "-v"];
    let mut first = Process::start("tidegate sub", &mut ours("sub", broker.mqtt(), &arguments));
    broker.client_when("keeper", |client| client.subscriptions_cnt == 1);
    publish(broker.mqtt(), &["-t", "orders/1", "-m", "now", "-q", "1"]);
    // Line by line, also into a pipe: whoever reads it waits for it.
    first.out.line_with(&["orders/1 now"]);
    first.signal(rustix::process::Signal::INT);
    first.end();
    let left = broker.event("client_disconnected", |event| event["clientid"] == "keeper");
    assert_eq!(left["reason"], "normal");
    publish(broker.mqtt(), &["-t", "orders/2", "-m", "later", "-q", "1"]);
    let again = run(&mut ours("sub", broker.mqtt(), &[&arguments[..], &["-C", "1"]].concat()));
    assert_eq!((text(&again.stdout).as_str(), again.status.code()), ("orders/2 later\n", Some(0)));
}
