//! Files of the user: whatever stands in them, there is an answer, and each problem has a line of the file.

use std::path::Path;
use std::sync::Arc;

use access::{Client, Rules, Users};
use gateway::import;
use mqtt::QoS;
use runtime::config::Problems;

// the binary's own module: the whole file with every role's section
#[allow(dead_code, unreachable_pub)] // the program uses more of it
#[path = "../../crates/tidegate/src/config.rs"]
mod config;

fn file() -> &'static Path {
    Path::new("/nowhere/tidegate.toml")
}

/// Each problem is one line that names a line of the file, or something wrong with a file that it names.
fn check_problems(problems: &Problems, text: &str) {
    let lines = text.split('\n').count();
    let mut some = false;
    for problem in problems.iter() {
        some = true;
        let line = problem.to_string();
        assert!(!line.contains(['\n', '\r']), "{line:?}");
        if problem.file == file() {
            assert!((1..=lines).contains(&problem.line), "{problem} in a file of {lines} lines");
            assert!(line.starts_with(&format!("/nowhere/tidegate.toml:{}: ", problem.line)), "{line:?}");
        }
    }
    assert!(some, "a refusal without a reason");
}

/// The whole configuration.
pub(crate) fn check_config(text: &str) {
    match config::parse(file(), text) {
        Ok(read) => assert_eq!(config::parse(file(), text).ok(), Some(read), "it says the same again"),
        Err(problems) => check_problems(&problems, text),
    }
}

/// A configuration of another balancer: what comes of it is right.
pub(crate) fn check_import(text: &str) {
    // a file of its own, once, and one that is not there
    let mut left = 1;
    let mut include = |pattern: &str| {
        if left == 0 || pattern.len() > 8 {
            return Err("there is none".to_owned());
        }
        left -= 1;
        Ok(vec![("included.conf".to_owned(), "server 10.0.0.9:1883 weight=2;".to_owned())])
    };
    let environment = |name: &str| (name.len() < 5).then(|| "10.0.0.8".to_owned());
    for imported in
        [import::nginx("a.conf", text, &mut include), import::haproxy("a.cfg", text, &environment)]
    {
        match imported {
            Ok(imported) => {
                assert!(imported.listeners > 0);
                if let Err(problems) = config::parse(file(), &imported.toml) {
                    panic!("{problems}\n{}", imported.toml);
                }
                for note in &imported.notes {
                    assert!(!note.to_string().contains(['\n', '\r']), "{note:?}");
                }
            }
            Err(error) => assert!(!error.to_string().contains(['\n', '\r']), "{error:?}"),
        }
    }
}

/// A password file. Hashes are not compared: that is meant to be slow.
pub(crate) fn check_users(text: &str) {
    match Users::parse(file(), text) {
        Ok(users) => assert!(users.len() <= text.lines().count()),
        Err(problems) => check_problems(&problems, text),
    }
}

/// A rules file and what it says of one client.
pub(crate) fn check_rules(text: &str) {
    let mut parts = text.splitn(5, '\n');
    let mut part = || parts.next().unwrap_or_default();
    let (clientid, username, topic, filter, text) = (part(), part(), part(), part(), part());
    let rules = match Rules::parse(file(), text) {
        Ok(rules) => Arc::new(rules),
        Err(problems) => return check_problems(&problems, text),
    };
    let client = Client {
        clientid,
        username: Some(username).filter(|name| !name.is_empty()),
        ip: [127, 0, 0, 1].into(),
        listener: "tcp://127.0.0.1:1883",
    };
    let mut policy = rules.policy(&client);
    for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
        for retain in [false, true] {
            let first = policy.publish(topic, qos, retain);
            assert_eq!(policy.publish(topic, qos, retain), first, "what is remembered is what was decided");
            assert_eq!(rules.policy(&client).publish(topic, qos, retain), first, "memory changes nothing");
        }
        let granted = policy.subscribe(filter, qos);
        assert_eq!(rules.policy(&client).subscribe(filter, qos), granted);
        if rules.is_empty() {
            assert_eq!(granted, policy.publish(topic, qos, false), "no_match decides all");
        }
    }
}
