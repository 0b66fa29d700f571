//! Who may connect and what they may do, with the tools and files of Mosquitto's users.

use std::path::{Path, PathBuf};
use std::process::Command;

use mqtt::{QoS, ReasonCode, Version};
use rustix::process::Signal;

use crate::harness::address::own;
use crate::harness::device::message;
use crate::harness::process::{run, run_with, text};
use crate::harness::server::tidegate;
use crate::harness::{Device, Mosquitto, Site, Tidegate, device};

/// `name:hash` as mosquitto_passwd writes it.
fn mosquitto_passwd(file: &Path, arguments: &[&str], name: &str, password: &str) {
    let create: &[&str] = if file.exists() { &[] } else { &["-c"] };
    let mut command = Command::new("mosquitto_passwd");
    let output = run(command.args(create).args(arguments).arg("-b").arg(file).args([name, password]));
    assert!(output.status.success(), "{}", text(&output.stderr));
}

/// A line as `tidegate ctl users hash` writes it.
fn users_hash(arguments: &[&str], password: &str) -> String {
    let all = [&["ctl", "users", "hash"], arguments].concat();
    let output = run_with(&mut tidegate(&all), password.as_bytes());
    assert!(output.status.success(), "{}", text(&output.stderr));
    text(&output.stdout)
}

/// Its exit code: that of CONNACK, if the broker refuses.
fn mosquitto_pub(to: std::net::SocketAddr, arguments: &[&str]) -> Option<i32> {
    let mut command = Command::new("mosquitto_pub");
    command.args(["-h", &to.ip().to_string(), "-p", &to.port().to_string(), "-t", "t", "-m", "x", "-q", "1"]);
    run(command.args(arguments)).status.code()
}

fn site(name: &str) -> (Site, PathBuf) {
    let site = Site::new(name);
    let folder = site.file().parent().expect("a folder").to_owned();
    (site, folder)
}

#[test]
fn a_password_file_of_mosquitto_opens_the_same_doors_here() {
    let (site, folder) = site("node1");
    let users = folder.join("users.txt");
    mosquitto_passwd(&users, &[], "alice", "secret one");
    mosquitto_passwd(&users, &["-H", "sha512"], "bob", "secret two");
    let process = site.broker("allow_anonymous = false\npassword_file = \"users.txt\"", "").start();
    let to = process.mqtt();
    for (name, right) in [("alice", "secret one"), ("bob", "secret two")] {
        for version in ["mqttv31", "mqttv311", "mqttv5"] {
            let log_in = |password| mosquitto_pub(to, &["-V", version, "-u", name, "-P", password]);
            assert_eq!(log_in(right), Some(0), "{name} {version}");
            let refused = if version == "mqttv5" { 0x86 } else { 4 };
            assert_eq!(log_in("wrong"), Some(refused), "{name} {version}");
        }
    }
    assert_eq!(mosquitto_pub(to, &["-u", "carol", "-P", "secret one"]), Some(4), "a name that is not in it");
    assert_eq!(mosquitto_pub(to, &[]), Some(5), "no name");
    assert_eq!(mosquitto_pub(to, &["-V", "mqttv5"]), Some(0x87), "no name");
    assert_eq!(process.metric("tidegate_broker_authentications_total{result=\"accepted\"}"), 6.0);
    assert_eq!(process.metric("tidegate_broker_authentications_total{result=\"refused\"}"), 9.0);
    assert_eq!(process.metric("tidegate_broker_password_cache_hits_total"), 4.0);
    let names = ["alice", "bob", "carol"];
    for name in names {
        process.event("client_refused", |event| {
            event["reason"] == "bad_user_name_or_password" && event["username"] == name
        });
    }
    assert_eq!(process.process.err.count(&["client refused", "username=\"carol\""]), 1);
    assert_eq!(process.process.err.count(&["secret one"]), 0);
}

#[test]
fn lines_made_here_open_doors_of_mosquitto_and_of_ours() {
    let (site, folder) = site("node1");
    let pbkdf2 =
        users_hash(&["--username", "alice", "--algorithm", "pbkdf2", "--iterations", "1000"], "one\n");
    assert!(pbkdf2.starts_with("alice:$7$1000$"), "{pbkdf2}");
    let argon2 = users_hash(&["--username", "bob"], "two");
    assert!(argon2.starts_with("bob:$argon2id$v=19$m=19456,t=2,p=1$"), "{argon2}");
    std::fs::write(folder.join("users.txt"), format!("{pbkdf2}{argon2}")).expect("written");
    let process = site.broker("allow_anonymous = false\npassword_file = \"users.txt\"", "").start();
    for (name, password) in [("alice", "one"), ("bob", "two")] {
        assert_eq!(mosquitto_pub(process.mqtt(), &["-u", name, "-P", password]), Some(0), "{name}");
        assert_eq!(mosquitto_pub(process.mqtt(), &["-u", name, "-P", "x"]), Some(4), "{name}");
    }

    let theirs = folder.join("mosquitto.txt");
    std::fs::write(&theirs, pbkdf2).expect("written");
    let mosquitto = Mosquitto::start_with(own(), &format!("password_file {}\n", theirs.display()));
    assert_eq!(mosquitto_pub(mosquitto.mqtt(), &["-u", "alice", "-P", "one"]), Some(0));
    assert_eq!(mosquitto_pub(mosquitto.mqtt(), &["-u", "alice", "-P", "x"]), Some(5), "as Mosquitto refuses");
}

#[test]
fn a_hash_needs_a_password_and_a_name_that_a_line_can_hold() {
    let refused = |arguments: &[&str], input: &str| {
        let all = [&["ctl", "users", "hash"], arguments].concat();
        let output = run_with(&mut tidegate(&all), input.as_bytes());
        (output.status.code(), text(&output.stderr))
    };
    let (code, said) = refused(&[], "\n");
    assert_eq!((code, said.as_str()), (Some(1), "tidegate ctl: cannot take the password: it is empty\n"));
    assert_eq!(refused(&["--username", "a:b"], "x").0, Some(2));
    assert_eq!(refused(&["--password", "x"], "x").0, Some(2), "never in the command line");
}

/// Rules by user name, as an EMQX or Mosquitto user would write them.
const RULES: &str = r#"
[[rules]]
permission = "allow"
username = "operator"
topics = ["vehicles/#"]
[[rules]]
permission = "allow"
clientid = { regex = "^car[0-9]+$" }
topics = ["vehicles/${clientid}/#"]
"#;

#[test]
fn devices_reach_their_own_topics_only() {
    let (site, folder) = site("node1");
    std::fs::write(folder.join("acl.toml"), RULES).expect("written");
    let users = folder.join("users.txt");
    mosquitto_passwd(&users, &[], "operator", "secret");
    let process = site.broker("password_file = \"users.txt\"\nacl_file = \"acl.toml\"", "").start();
    let to = process.mqtt();
    let mut operator = device::connect(Version::V5, "desk");
    (operator.username, operator.password) = (Some("operator".into()), Some(b"secret".as_slice().into()));
    let mut operator = Device::connect(to, &operator);
    operator.subscribe("$share/desks/vehicles/#", QoS::AtLeastOnce);

    let mut car = Device::connect(to, &device::connect(Version::V5, "car7"));
    let publish = |car: &mut Device, topic: &str| car.publish(message(topic, topic, QoS::AtLeastOnce));
    assert_eq!(publish(&mut car, "vehicles/car8/speed"), ReasonCode::NotAuthorized);
    assert_eq!(publish(&mut car, "elsewhere"), ReasonCode::NotAuthorized);
    assert_eq!(publish(&mut car, "vehicles/car7/speed"), ReasonCode::Success);
    assert_eq!(device::payload(&operator.message()), "vehicles/car7/speed");
    let suback = car.subscribe_with("vehicles/+/speed", Default::default(), None);
    assert_eq!(suback.reasons, [ReasonCode::NotAuthorized]);
    let denied = process.event("access_denied", |event| event["action"] == "publish");
    assert_eq!((&denied["clientid"], &denied["topic"]), (&"car7".into(), &"vehicles/car8/speed".into()));
    assert_eq!(
        process.metric("tidegate_broker_requests_refused_total{action=\"publish\",rule=\"acl\"}"),
        2.0
    );
    assert_eq!(
        process.metric("tidegate_broker_requests_refused_total{action=\"subscribe\",rule=\"acl\"}"),
        1.0
    );

    // a client id is what a device says it is: it must not be a filter
    let mut sly = Device::connect(to, &device::connect(Version::V5, "car1/#"));
    assert_eq!(publish(&mut sly, "vehicles/car1/speed"), ReasonCode::NotAuthorized);

    // Mosquitto's own client of 3.1.1 is told by 0x80, and its message goes nowhere
    let mut sub = Command::new("mosquitto_sub");
    sub.args([
        "-h",
        &to.ip().to_string(),
        "-p",
        &to.port().to_string(),
        "-i",
        "car9",
        "-t",
        "vehicles/#",
        "-C",
        "1",
    ]);
    let output = run(&mut sub);
    assert!(text(&output.stderr).contains("denied") || !output.status.success(), "{output:?}");
    let mut old = Device::connect(to, &device::connect(Version::V311, "car9"));
    assert_eq!(publish(&mut old, "vehicles/car8/speed"), ReasonCode::Success, "acknowledged and gone");
    operator.nothing_more();
}

#[test]
fn a_reload_takes_new_users_and_a_bad_file_changes_nothing() {
    let (site, folder) = site("node1");
    let users = folder.join("users.txt");
    mosquitto_passwd(&users, &[], "alice", "one");
    let section = "allow_anonymous = false\npassword_file = \"users.txt\"";
    let process: Tidegate = site.broker(section, "").start();
    let to = process.mqtt();
    let log_in = |name, password| mosquitto_pub(to, &["-u", name, "-P", password]);
    assert_eq!((log_in("alice", "one"), log_in("bob", "two")), (Some(0), Some(4)));

    let good = std::fs::read_to_string(&users).expect("a file");
    std::fs::write(&users, format!("{good}bob:two\ncarol\n")).expect("written");
    match process.rest.reload() {
        Err(error) => {
            let told = format!("{error:?}");
            assert!(
                told.contains("users.txt:2: bob: ***: ") && told.contains("users.txt:3: (line): ***"),
                "{told}"
            );
            assert!(!told.contains("two"), "{told}");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!((log_in("alice", "one"), log_in("bob", "two")), (Some(0), Some(4)), "as before");

    std::fs::write(&users, good).expect("written");
    mosquitto_passwd(&users, &[], "bob", "two");
    process.process.signal(Signal::HUP);
    let event = process.event("config_reloaded", |event| event["source"] == "signal");
    assert!(event["changes"].to_string().contains("the password file has 2 users"), "{event}");
    assert_eq!((log_in("alice", "one"), log_in("bob", "two")), (Some(0), Some(0)));
}

#[test]
fn check_tells_the_problems_of_all_files_at_once() {
    let (site, folder) = site("node1");
    std::fs::write(folder.join("users.txt"), "alice:secret\n").expect("written");
    std::fs::write(folder.join("acl.toml"), "[[rules]]\npermission = \"alow\"\ntopics = [\"a/#/b\"]\n")
        .expect("written");
    site.write("[broker]\npassword_file = \"users.txt\"\nacl_file = \"acl.toml\"\nmax_inflight = 0\n");
    let output = run(tidegate(&["check", "--config", "tidegate.toml"]).current_dir(&folder));
    let said = text(&output.stdout);
    let places: Vec<&str> = said.lines().filter_map(|line| line.split(": ").next()).collect();
    assert_eq!(places, ["tidegate.toml:9", "acl.toml:2", "acl.toml:3", "users.txt:1"], "{said}");
    assert!(!said.contains("secret"), "{said}");
}

#[test]
fn a_file_that_is_not_there_is_told_with_the_line_that_names_it() {
    let (site, folder) = site("node1");
    site.write("[broker]\npassword_file = \"nope.txt\"\nacl_file = \"nope.toml\"\n");
    let output = run(tidegate(&["check", "--config", "tidegate.toml"]).current_dir(&folder));
    let said = text(&output.stdout);
    let begins = [
        "tidegate.toml:7: broker.password_file: \"nope.txt\": a readable file: No such file",
        "tidegate.toml:8: broker.acl_file: \"nope.toml\": a readable file: No such file",
    ];
    assert_eq!(said.lines().count(), begins.len(), "{said}");
    for (line, begin) in said.lines().zip(begins) {
        assert!(line.starts_with(begin), "{said}");
    }
}

#[test]
fn a_listener_that_lets_nobody_in_is_told_at_check_and_at_start() {
    let (site, _folder) = site("node1");
    let process = site.broker("", "allow_anonymous = false").start();
    let sentence = format!("nobody can connect at {}", process.mqtt());
    process.process.err.line_with(&["WARN", &sentence]);
    let output = run(&mut tidegate(&["check", "--config", &process.file()]));
    let said = text(&output.stdout);
    assert!(output.status.success() && said.contains("warning: nobody can connect at"), "{said}");
    let mut device = Device::dial(process.mqtt());
    assert_eq!(device.hello(&device::connect(Version::V5, "c")).reason, ReasonCode::NotAuthorized);
}

#[test]
fn the_reference_of_rules_is_right() {
    let (site, folder) = site("node1");
    let reference = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/acl.toml");
    std::fs::copy(reference, folder.join("acl.toml")).expect("copied");
    let process = site.broker("acl_file = \"acl.toml\"", "").start();
    let mut vehicle = Device::connect(process.mqtt(), &device::connect(Version::V5, "vehicle-1"));
    for (topic, reason) in [
        ("vehicles/vehicle-1/speed", ReasonCode::NoMatchingSubscribers),
        ("vehicles/vehicle-2/speed", ReasonCode::NotAuthorized),
        ("internal/a", ReasonCode::NotAuthorized),
    ] {
        assert_eq!(vehicle.publish(message(topic, "", QoS::AtLeastOnce)), reason, "{topic}");
    }
    for (filter, reason) in [
        ("broadcast/+", ReasonCode::Success),
        ("fleet/#", ReasonCode::Success),
        ("fleet/1", ReasonCode::NotAuthorized),
        ("#", ReasonCode::NotAuthorized),
    ] {
        assert_eq!(vehicle.subscribe_with(filter, Default::default(), None).reasons, [reason], "{filter}");
    }
}
