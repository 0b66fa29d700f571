//! `pub` and `sub` beside mosquitto_pub and mosquitto_sub at one and the same Mosquitto: same output, same exit codes.

#![allow(clippy::unwrap_used)] // in a test a panic is the answer

#[path = "../../client/tests/mosquitto/mod.rs"]
mod mosquitto;

use std::io::Write;
use std::process::{Command, Output, Stdio};

use mosquitto::{Mosquitto, free_port};

/// The tools as a program.
const OURS: &str = env!("CARGO_BIN_EXE_tools");

fn run(mut command: Command, stdin: &[u8]) -> Output {
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // A tool that does not read its input closes the pipe.
    let _ = child.stdin.take().unwrap().write_all(stdin);
    child.wait_with_output().unwrap()
}

fn tidegate(tool: &str, port: u16, args: &[&str], stdin: &[u8]) -> Output {
    let mut command = Command::new(OURS);
    command.arg(tool).args(["-h", "127.0.0.1", "-p", &port.to_string()]).args(args);
    run(command, stdin)
}

fn original(tool: &str, port: u16, args: &[&str], stdin: &[u8]) -> Output {
    let mut command = Command::new(format!("mosquitto_{tool}"));
    command.args(["-h", "127.0.0.1", "-p", &port.to_string()]).args(args);
    run(command, stdin)
}

/// Runs both and compares what they print and how they end.
fn same(tool: &str, port: u16, args: &[&str]) -> Output {
    let (ours, theirs) = (tidegate(tool, port, args, b""), original(tool, port, args, b""));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert_eq!(text(&ours.stdout), text(&theirs.stdout), "{tool} {args:?}: {}", text(&ours.stderr));
    assert_eq!(ours.stdout, theirs.stdout, "{tool} {args:?}");
    assert_eq!(ours.status.code(), theirs.status.code(), "{tool} {args:?}: {}", text(&ours.stderr));
    ours
}

/// Keeps a message at the broker, so that every subscriber gets the same.
fn keep(broker: &Mosquitto, topic: &str, payload: &[u8], more: &[&str]) {
    let args = [&["-t", topic, "-r", "-s", "-q", "1"], more].concat();
    assert!(original("pub", broker.port, &args, payload).status.success());
}

#[test]
fn payloads_come_out_byte_by_byte() {
    let broker = Mosquitto::start();
    let all: Vec<u8> = (0..=255).collect();
    for (index, payload) in
        [&b"text"[..], b"", b"\n", b"\0", &all, "é\u{1F600}".as_bytes()].iter().enumerate()
    {
        let topic = format!("p/{index}");
        if payload.is_empty() {
            continue;
        }
        keep(&broker, &topic, payload, &[]);
        for flags in [&["-C", "1"][..], &["-C", "1", "-v"], &["-C", "1", "-N"], &["-C", "1", "-N", "-v"]] {
            let args = [&["-t", &topic, "-V", "5"], flags].concat();
            assert!(same("sub", broker.port, &args).stdout.len() >= payload.len());
        }
    }
}

#[test]
fn formats_come_out_the_same() {
    let broker = Mosquitto::start();
    let properties = [
        "-V",
        "5",
        "-D",
        "publish",
        "user-property",
        "a",
        "b",
        "-D",
        "publish",
        "user-property",
        "a",
        "c",
        "-D",
        "publish",
        "content-type",
        "text",
        "-D",
        "publish",
        "response-topic",
        "answers",
        "-D",
        "publish",
        "correlation-data",
        "c d",
        "-D",
        "publish",
        "payload-format-indicator",
        "1",
    ];
    keep(&broker, "topic/a", b"payload", &properties);
    let formats = [
        "|%t|%20t|%-20t|%.3t|%10.3t|%-10.3t|%05t|%p|%20p|%-20p|%3p|%.2p|%020p|",
        "|%x|%X|%020x|%20X|%-20x|%2x|%3x|%-03x|",
        "|%l|%5l|%05l|%-5l|%-05l|%m|%5m|%05m|%q|%5q|%r|%3r|%%|\\\\|\\n|\\t|\\e|\\a|\\v|\\r|@@|",
        "|%A|%5A|%05A|%C|%9C|%-9C|%.2C|%D|%5D|%E|%5E|%05E|%F|%5F|%05F|%P|%R|%9R|%.1R|%S|%5S|",
        "@Y-@m-@d",
        "\\0",
    ];
    for format in formats {
        for version in ["5", "311"] {
            for qos in ["0", "1"] {
                same(
                    "sub",
                    broker.port,
                    &["-t", "topic/a", "-C", "1", "-V", version, "-q", qos, "-F", format],
                );
            }
        }
    }
}

/// The output without the value of `tst`.
fn without_time(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let (start, rest) = text.split_once("\"tst\":\"").unwrap();
    let (time, end) = rest.split_once('"').unwrap();
    assert_eq!(time.len(), "2026-11-22T09:04:18.411418Z+0000".len());
    format!("{start}{end}")
}

#[test]
fn json_comes_out_the_same() {
    let broker = Mosquitto::start();
    let properties =
        ["-V", "5", "-D", "publish", "user-property", "a", "b\"", "-D", "publish", "content-type", "text"];
    let payloads = [
        &b"plain"[..],
        b"{\"b\": 1.0, \"a\":[1,2 ,  true,null, \"x\\u00e9\\\"\"], \"b\": {}}",
        b"\"\\\n\t\x01\xff\xe9",
        b"-12.5",
    ];
    for (index, payload) in payloads.iter().enumerate() {
        let topic = format!("j/\"{index}");
        keep(&broker, &topic, payload, &properties);
        for format in ["%j", "%J"] {
            for version in ["5", "311"] {
                let args = ["-t", &topic, "-C", "1", "-V", version, "-q", "1", "-F", format];
                let (ours, theirs) =
                    (tidegate("sub", broker.port, &args, b""), original("sub", broker.port, &args, b""));
                if theirs.stdout == b"\n" {
                    // Not JSON: both say so on standard error and print an empty line.
                    assert_eq!(ours.stdout, theirs.stdout);
                    assert_eq!(ours.stderr, theirs.stderr);
                } else {
                    assert_eq!(without_time(&ours), without_time(&theirs));
                }
            }
        }
    }
}

#[test]
fn messages_are_left_out_and_counted_the_same() {
    let broker = Mosquitto::start();
    for topic in ["f/a", "f/b", "f/c/d"] {
        keep(&broker, topic, topic.as_bytes(), &[]);
    }
    for args in [
        &["-t", "f/#", "-C", "2", "-v"][..],
        &["-t", "f/#", "-T", "f/a", "-C", "2", "-v"],
        &["-t", "f/#", "-T", "f/+", "-C", "1", "-v"],
        &["-t", "f/a", "-t", "f/b", "-C", "2", "-v"],
        &["-t", "f/#", "-R", "-W", "1", "-v"],
        &["-t", "f/#", "--retained-only", "-W", "1", "-v"],
        &["-t", "f/#", "--retain-as-published", "-V", "5", "-C", "3", "-F", "%t %r"],
        &["-t", "f/#", "-E"],
        &["-t", "f/#", "-U", "f/#", "-E", "-i", "unsubscriber"],
        &["-t", "nothing", "-W", "1"],
    ] {
        same("sub", broker.port, args);
    }
}

#[test]
fn retained_messages_are_removed_but_for_those_left_out() {
    let broker = Mosquitto::start();
    for topic in ["r/a", "r/b", "r/c"] {
        keep(&broker, topic, b"x", &[]);
    }
    let args = ["-t", "r/#", "-T", "r/b", "--remove-retained", "-C", "2", "-v"];
    assert_eq!(tidegate("sub", broker.port, &args, b"").stdout, b"r/a x\nr/c x\n");
    assert_eq!(original("sub", broker.port, &["-t", "r/#", "-W", "1", "-v"], b"").stdout, b"r/b x\n");
}

#[test]
fn exit_codes_are_the_same() {
    let broker = Mosquitto::start_with("allow_anonymous false\n");
    let nobody = free_port();
    for (tool, args) in [("pub", &["-t", "a", "-m", "b"][..]), ("sub", &["-t", "a"])] {
        for version in ["31", "311", "5"] {
            same(tool, broker.port, &[args, &["-V", version]].concat());
        }
        same(tool, nobody, args);
        same(tool, nobody, &[args, &["--quiet"]].concat());
    }
    for (tool, args) in [
        ("pub", &["-t", "a/#", "-m", "b"][..]),
        ("pub", &["-t", "a", "-m", "b", "-c"]),
        ("pub", &["-t", "a", "-f", "/does/not/exist"]),
        ("sub", &["-t", "a/#/b"]),
        ("sub", &["-t", "a", "-T", "a+"]),
        ("sub", &["-t", "a", "-F", "%z"]),
        ("sub", &["-t", "a", "-c"]),
    ] {
        same(tool, nobody, args);
    }
}

/// What a subscriber of Mosquitto sees of a message.
const SEEN: &str = "%t|%p|%q|%r|%C|%P|%D|%R|%F";

#[test]
fn every_source_of_messages_publishes_the_same() {
    let broker = Mosquitto::start_with("allow_anonymous true\nqueue_qos0_messages true\n");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("payload");
    std::fs::write(&file, b"from\na file\xff").unwrap();
    let file = file.to_str().unwrap();
    let properties = [
        "-V",
        "5",
        "-m",
        "x",
        "-D",
        "publish",
        "user-property",
        "a",
        "b",
        "-D",
        "publish",
        "content-type",
        "text",
        "-D",
        "PUBLISH",
        "response-topic",
        "answers",
        "-D",
        "publish",
        "correlation-data",
        "c",
    ];
    let url = format!("mqtt://127.0.0.1:{}/s/t", broker.port);
    let cases: [(&[&str], &[u8]); 9] = [
        (&["-t", "s/t", "-m", "text"], b""),
        (&["-t", "s/t", "-m", "-5"], b""),
        (&["-t", "s/t", "-f", file], b""),
        (&["-t", "s/t", "-s"], b"all\nof\nit\n"),
        (&["-t", "s/t", "-l"], b"one\n\ntwo\r\nthree"),
        (&["-t", "s/t", "-m", "again", "--repeat", "3"], b""),
        (&["-t", "s/t", "-m", "later", "--repeat", "2", "--repeat-delay", "0.05"], b""),
        (&properties, b""),
        (&["-L", &url, "-m", "by url"], b""),
    ];
    for (args, stdin) in cases {
        for qos in ["0", "1", "2"] {
            let mut seen = Vec::new();
            for publisher in [tidegate, original] {
                let args = match args.contains(&"-t") || args.contains(&"-L") {
                    true => [args, &["-q", qos]].concat(),
                    false => [args, &["-q", qos, "-t", "s/t"]].concat(),
                };
                seen.push(observed(&broker, || {
                    let output = publisher("pub", broker.port, &args, stdin);
                    let told = String::from_utf8_lossy(&output.stderr).into_owned();
                    assert!(output.status.success(), "{args:?}: {told}");
                }));
            }
            assert_eq!(seen[0], seen[1], "{args:?}");
            assert!(!seen[0].is_empty());
        }
    }
}

/// What Mosquitto's own subscriber prints for what `publish` does. A session that waits at the broker collects it, so
/// there is nothing to race with.
fn observed(broker: &Mosquitto, publish: impl FnOnce()) -> String {
    let session = ["-i", "observer", "-c", "-q", "2", "-t", "s/t", "-t", "end", "-V", "5"];
    assert!(original("sub", broker.port, &[&session[..], &["-E"]].concat(), b"").status.success());
    publish();
    assert!(original("pub", broker.port, &["-t", "end", "-m", "end", "-q", "2"], b"").status.success());
    let mut command = Command::new("mosquitto_sub");
    command.args(["-h", "127.0.0.1", "-p", &broker.port.to_string()]).args(session).args(["-F", SEEN]);
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(child.stdout.take().unwrap()));
    let mut seen = String::new();
    loop {
        let line = String::from_utf8_lossy(lines.next().unwrap().unwrap_or_default().as_bytes()).into_owned();
        if line.starts_with("end|") {
            break;
        }
        seen.push_str(&line);
        seen.push('\n');
    }
    child.kill().unwrap();
    child.wait().unwrap();
    seen
}

#[test]
fn what_needs_another_transport_is_told_in_one_sentence() {
    for flags in [
        &["--cafile", "x"][..],
        &["--insecure"],
        &["--psk", "ff", "--psk-identity", "me"],
        &["--proxy", "socks5h://x"],
        &["--unix", "/x"],
        &["-S"],
        &["-L", "mqtts://h/t"],
    ] {
        let output = tidegate("pub", 1, &[&["-t", "a", "-m", "b"], flags].concat(), b"");
        let told = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1));
        assert_eq!(told.lines().count(), 1, "{told}");
        assert!(told.starts_with("Error: "), "{told}");
    }
}

#[test]
fn a_refused_message_is_a_warning() {
    let folder = tempfile::tempdir().unwrap();
    let acl = folder.path().join("acl");
    std::fs::write(&acl, "topic readwrite allowed\n").unwrap();
    let broker = Mosquitto::start_with(&format!("allow_anonymous true\nacl_file {}\n", acl.display()));
    for qos in ["1", "2"] {
        let ours = same("pub", broker.port, &["-t", "forbidden", "-m", "x", "-V", "5", "-q", qos]);
        assert_eq!(String::from_utf8(ours.stderr).unwrap(), "Warning: Publish 1 failed: Not authorized.\n");
    }
}

#[test]
fn a_will_is_published_when_the_tool_is_killed() {
    let broker = Mosquitto::start();
    let mut watcher = Command::new(OURS)
        .args(["sub", "-h", "127.0.0.1", "-p", &broker.port.to_string(), "-t", "will", "-C", "1", "-d"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    wait_for_line(watcher.stderr.take().unwrap(), "subscribed");
    let mut mortal = Command::new(OURS)
        .args(["sub", "-h", "127.0.0.1", "-p", &broker.port.to_string(), "-t", "x", "-d"])
        .args(["--will-topic", "will", "--will-payload", "gone", "--will-qos", "1"])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    wait_for_line(mortal.stderr.take().unwrap(), "subscribed");
    mortal.kill().unwrap();
    mortal.wait().unwrap();
    let output = watcher.wait_with_output().unwrap();
    assert_eq!(output.stdout, b"gone\n");
}

fn wait_for_line(stderr: impl std::io::Read + Send + 'static, word: &str) {
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(stderr));
    assert!(
        lines.by_ref().map_while(Result::ok).any(|line| line.contains(word)),
        "the tool ended without {word}"
    );
    // The rest is read too, so that the tool never writes into a closed pipe.
    std::thread::spawn(move || lines.for_each(drop));
}
