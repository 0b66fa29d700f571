//! What a person does wrong at the terminal: one clear sentence, every problem at once, exit code 1.

use std::net::TcpListener;
use std::path::Path;

use crate::harness::address::{API, GATE, MQTT, at, own};
use crate::harness::process::{run, text};
use crate::harness::server::tidegate;
use crate::harness::{Site, Tidegate};

/// A file with a problem in every section.
const MANY_PROBLEMS: &str = include_str!("bad_input/many_problems.toml");

/// Writes the file and runs `tidegate check` on it, in its folder.
fn check(content: &[u8]) -> (Option<i32>, String) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    std::fs::write(folder.path().join("tidegate.toml"), content).expect("written");
    let output = run(tidegate(&["check", "--config", "tidegate.toml"]).current_dir(folder.path()));
    assert_eq!(text(&output.stderr), "", "answers go to standard output");
    (output.status.code(), text(&output.stdout))
}

/// `tidegate run` fails with exit code 1 and one sentence.
#[track_caller]
fn fails_to_start(site: &Site, sentence: &str) {
    let output = run(&mut site.command());
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    let sentences: Vec<_> = said.lines().filter(|line| line.starts_with("tidegate: ")).collect();
    assert_eq!(sentences, [format!("tidegate: {sentence}")], "{said}");
}

#[test]
fn check_names_every_problem_at_once_with_file_line_key_value_and_what_is_allowed() {
    let (code, said) = check(MANY_PROBLEMS.as_bytes());
    assert_eq!(code, Some(1));
    insta::assert_snapshot!("every_problem_at_once", said);
}

#[test]
fn run_says_the_same_as_check() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    std::fs::write(folder.path().join("tidegate.toml"), MANY_PROBLEMS).expect("written");
    let output = run(tidegate(&["run", "--config", "tidegate.toml"]).current_dir(folder.path()));
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(text(&output.stderr), check(MANY_PROBLEMS.as_bytes()).1);
    // A mistake leaves nothing behind.
    assert_eq!(std::fs::read_dir(folder.path()).expect("a folder").count(), 1);
}

#[test]
fn check_says_that_a_good_file_is_right() {
    let (code, said) = check(b"[broker]\n");
    assert_eq!((code, said.as_str()), (Some(0), "tidegate.toml: ok\n"));
}

#[test]
fn a_file_that_is_no_toml_is_named_with_its_line() {
    let (code, said) = check(b"[broker]\nmax_inflight = \n");
    assert_eq!(code, Some(1));
    assert!(said.starts_with("tidegate.toml:2: "), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
    let (code, said) = check(b"\xff\xfe\x00");
    assert_eq!(code, Some(1));
    assert_eq!(said.lines().count(), 1, "{said}");
}

#[test]
fn an_unknown_upstream_is_named_beside_those_that_are_there() {
    let (code, said) = check(
        b"[gateway]\n[[gateway.listeners]]\nbind = \"127.0.0.1:1880\"\nupstream = \"broker\"\n\
          [[gateway.upstreams]]\nname = \"brokers\"\nservers = [ { address = \"127.0.0.1:1883\" } ]\n",
    );
    assert_eq!(code, Some(1));
    let line = "tidegate.toml:4: gateway.listeners[0].upstream: \"broker\": the name of an upstream; there is: \"brokers\"";
    assert_eq!(said.trim_end(), line);
}

#[test]
fn a_missing_file_is_one_sentence() {
    for command in ["run", "check"] {
        let output = run(&mut tidegate(&[command, "--config", "no-such-file.toml"]));
        let said = text(&output.stderr) + &text(&output.stdout);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert_eq!(said.lines().count(), 1, "{said}");
        assert!(said.contains("cannot read the configuration file no-such-file.toml"), "{said}");
    }
}

#[test]
fn a_port_in_use_is_one_sentence_for_every_role() {
    let mosquitto = at(own(), MQTT);
    let whole = || Site::new("node1").broker("", "").gateway("", "", &[("mq1", mosquitto)]);
    for port in [MQTT, GATE, API] {
        let site = whole();
        let _other = TcpListener::bind(at(site.address, port)).expect("an address of our own");
        let address = at(site.address, port);
        let sentence = format!(
            "cannot listen on {address}: the port is in use by another process; stop that process or choose another port"
        );
        fails_to_start(&site, &sentence);
    }
}

#[test]
fn an_address_of_another_machine_is_one_sentence() {
    let folder_of = |bind: &str| {
        let site = Site::new("node1");
        site.write(&format!("[broker]\n[[broker.listeners]]\nbind = \"{bind}\"\n"));
        site
    };
    // Documentation's own network: no machine has it.
    let site = folder_of("192.0.2.1:1883");
    let output = run(&mut tidegate(&["run", "--config", site.file().to_str().expect("text")]));
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stderr);
    let sentence = "tidegate: cannot listen on 192.0.2.1:1883: this machine has no such address";
    assert!(said.lines().any(|line| line == sentence), "{said}");
}

#[test]
fn a_second_process_on_the_same_data_is_refused_and_the_first_goes_on() {
    let first = Tidegate::broker("node1");
    let data = Path::new(&first.file()).parent().expect("a folder").join("tidegate-data");
    let second = Site::new("node2");
    let bind = second.mqtt();
    let node = format!("data_dir = \"{}\"\n", data.display());
    let sections = format!("[broker]\n[[broker.listeners]]\nbind = \"{bind}\"\n");
    let content = second.text(&sections).replace("workers = 2\n", &format!("workers = 2\n{node}"));
    std::fs::write(second.file(), content).expect("written");
    let output = run(&mut tidegate(&["run", "--config", second.file().to_str().expect("text")]));
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    let sentences: Vec<_> = said.lines().filter(|line| line.starts_with("tidegate: ")).collect();
    assert_eq!(sentences.len(), 1, "{said}");
    let (folder, id) = (data.display(), first.process.id());
    assert!(sentences[0].contains(&format!("{folder} is in use by process {id}")), "{said}");
    assert_eq!(crate::harness::http::get(first.api(), "/readyz").status, 200);
}

#[test]
fn a_data_folder_that_is_a_file_is_one_sentence() {
    let site = Site::new("node1").broker("", "");
    std::fs::write(site.file().with_file_name("tidegate-data"), "in the way").expect("written");
    let output = run(&mut site.command());
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert_eq!(said.lines().filter(|line| line.starts_with("tidegate: ")).count(), 1, "{said}");
    assert!(said.contains("tidegate-data"), "{said}");
}

#[test]
fn without_a_file_there_are_a_broker_and_its_api_on_this_machine_or_a_sentence_that_says_why_not() {
    use crate::harness::{DEADLINE, Process, eventually, http, wait::within};
    let home = tempfile::tempdir().expect("a temporary folder");
    let broker = std::net::SocketAddr::from(([127, 0, 0, 1], 1883));
    let api = std::net::SocketAddr::from(([127, 0, 0, 1], 18083));
    // Those two ports belong to the machine: whoever works on it may have something there.
    let free = |address| TcpListener::bind(address).is_ok();
    let taken: Vec<_> = [broker, api].into_iter().filter(|address| !free(*address)).collect();
    let mut process = Process::start("tidegate without a file", tidegate(&[]).env("HOME", home.path()));
    if let Some(taken) = taken.first() {
        assert_eq!(process.end().code(), Some(1));
        process.err.line_with(&["tidegate: cannot listen on", &taken.to_string()]);
        return;
    }
    within(DEADLINE, || http::try_ask(api, "GET", "/readyz", &[], "").filter(|answer| answer.status == 200))
        .expect("ready");
    crate::harness::mosquitto::publish(broker, &["-t", "hello", "-m", "world", "-r"]);
    let output = run(&mut tidegate(&["ctl", "nodes", "list"]));
    assert!(output.status.success(), "the API's default address is that of ctl");
    eventually("its data", || home.path().join(".local/state/tidegate").exists().then_some(()));
    process.signal(rustix::process::Signal::INT);
    assert!(process.end().success());
}

#[test]
fn a_mistake_on_the_command_line_is_exit_code_2() {
    for arguments in [&["check"][..], &["no-such-command"], &["run", "--no-such-flag"], &["ctl", "clients"]] {
        let output = run(&mut tidegate(arguments));
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(!output.stderr.is_empty());
    }
}

#[test]
fn ctl_says_in_one_sentence_that_nobody_answers() {
    let nobody = at(own(), API);
    let output = run(&mut tidegate(&["ctl", "--api", &format!("http://{nobody}"), "clients", "list"]));
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stderr);
    assert!(
        said.lines().count() == 1 && said.contains(&format!("nothing listens at http://{nobody}")),
        "{said}"
    );
}
