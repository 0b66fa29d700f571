//! Who may connect: `acl` and `tcp-request` in the forms that a list of networks can say.
//!
//! Must not know: binds, servers.

use std::collections::HashMap;
use std::time::Duration;

use runtime::config::IpNet;

use super::super::model::{Maybe, Said, note};
use super::super::{Effect, ImportError, Note, syntax};
use super::parse::Line;
use super::{Proxy, values};

/// What the rules of a frontend come to.
#[derive(Default)]
pub(super) struct Rules {
    /// In order; those that none has are let in.
    pub(super) access: Vec<(bool, Option<IpNet>)>,
    /// Whether any of them asks for the address before a PROXY header is read.
    pub(super) before_header: bool,
    pub(super) per_address: Maybe<u64>,
    /// `tcp-request connection expect-proxy`, from these.
    pub(super) expect_proxy: Option<Vec<IpNet>>,
    pub(super) inspect: Maybe<Duration>,
    /// What is no MQTT is refused.
    pub(super) mqtt_only: bool,
    pub(super) notes: Vec<Note>,
}

/// One thing that a condition asks.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Test {
    /// The device's address is in one of these.
    Source(Vec<IpNet>),
    /// The device's address has more than so many connections.
    Above(u64),
    /// The first bytes are MQTT.
    IsMqtt,
}

/// Reads the rules of a frontend.
///
/// # Errors
/// HAProxy would refuse them.
pub(super) fn read(proxy: &Proxy<'_>) -> Result<Rules, ImportError> {
    let mut rules = Rules::default();
    counted_somewhere(proxy)?;
    let mut acls: HashMap<&str, Option<Test>> = HashMap::new();
    for line in proxy.lines.iter().copied().filter(|line| line.is("acl")) {
        let test = test(line.rest(2));
        // several lines of a name are one list
        let name = line.word(1)?;
        let merged = match (acls.remove(name), test) {
            (Some(Some(Test::Source(mut all))), Some(Test::Source(more))) => {
                all.extend(more);
                Some(Test::Source(all))
            }
            (None, test) => test,
            _ => None,
        };
        acls.insert(name, merged);
    }
    // where those begin whom a "reject unless" lets pass; they have to pass what follows, too
    let mut closed = None;
    for line in proxy.lines.iter().copied().filter(|line| line.is("tcp-request")) {
        if let Err(why) = rule(line, &acls, &mut rules, &mut closed)? {
            rules.notes.push(note(&line.place, line.text(), Effect::LeftOut, why));
        }
    }
    if closed.is_some() {
        rules.access.push((false, None));
    }
    Ok(rules)
}

/// What is counted for an address is counted in the table of this proxy where none is named: it needs one.
fn counted_somewhere(proxy: &Proxy<'_>) -> Result<(), ImportError> {
    if proxy.lines.iter().any(|line| line.is("stick-table")) {
        return Ok(());
    }
    let missing = |line: &Line, by: &str| {
        let name = &proxy.name;
        syntax(
            &line.place,
            format!(
                "unable to find table '{name}' referenced by {by} in proxy '{name}': it has no stick-table"
            ),
        )
    };
    for line in proxy.lines.iter().copied() {
        let fetches: Vec<&String> = if line.is("acl") {
            line.words.get(2).into_iter().collect()
        } else if line.is("tcp-request") {
            if let Some(track) = line.words.get(2).filter(|word| word.starts_with("track-sc"))
                && !line.words.iter().any(|word| word == "table")
            {
                return Err(missing(line, track));
            }
            let behind =
                line.words.windows(2).filter(|words| words.first().is_some_and(|word| word.ends_with('{')));
            behind.filter_map(|words| words.get(1)).collect()
        } else {
            continue;
        };
        let counts = |fetch: &&&String| COUNTED.iter().any(|counted| fetch.starts_with(counted));
        if let Some(fetch) = fetches.iter().find(counts).filter(|fetch| !fetch.contains('(')) {
            return Err(missing(line, fetch));
        }
    }
    Ok(())
}

/// How fetches begin that ask a table about the device's address.
const COUNTED: &[&str] = &[
    "src_bytes_",
    "src_clr_gpc",
    "src_conn_",
    "src_get_gp",
    "src_gpc",
    "src_http_",
    "src_inc_gpc",
    "src_kbytes_",
    "src_sess_",
    "src_updt_conn_cnt",
];

/// One line of `tcp-request`. The inner error: why it is left out.
fn rule(
    line: &Line,
    acls: &HashMap<&str, Option<Test>>,
    rules: &mut Rules,
    closed: &mut Option<usize>,
) -> Result<Result<(), &'static str>, ImportError> {
    let (when, action) = (line.word(1)?, line.words.get(2).map_or("", String::as_str));
    if when == "inspect-delay" {
        let text = line.word(2)?;
        rules.inspect = Some(Said::written(values::time(text).ok_or_else(|| line.refuse(text))?));
        return Ok(Ok(()));
    }
    let mut same = |why: &str| rules.notes.push(note(&line.place, line.text(), Effect::Same, why));
    if action.starts_with("track-sc") {
        let by_source = line.words.get(3).is_some_and(|key| key == "src");
        if by_source {
            same("connections are counted for each address");
        }
        return Ok(if by_source { Ok(()) } else { Err("connections are counted for each address only") });
    }
    let condition = line.words.iter().position(|word| word == "if" || word == "unless");
    let tests = condition.map(|at| tests(line.rest(at + 1), acls));
    let unless = condition.is_some_and(|at| line.words.get(at).is_some_and(|word| word == "unless"));
    Ok(match (when, action, tests) {
        ("content", "accept", _) => {
            same("CONNECT is waited for in any case");
            Ok(())
        }
        ("content", "reject", Some(Some(tests))) => match (&*tests, unless) {
            ([(false, Test::IsMqtt)], true) | ([(true, Test::IsMqtt)], false) => {
                rules.mqtt_only = true;
                Ok(())
            }
            _ => Err("of what a device sends only whether it is MQTT can be asked"),
        },
        ("connection" | "session", "expect-proxy", tests) => expect_proxy(tests, unless, rules),
        ("connection" | "session", "accept", None) => {
            // what follows is never asked, here and there
            rules.access.push((true, None));
            Ok(())
        }
        ("connection" | "session", "reject", None) => {
            closed.get_or_insert(rules.access.len());
            Ok(())
        }
        ("connection" | "session", "accept" | "reject", Some(Some(tests))) => {
            rules.before_header |= when == "connection";
            verdict(action == "accept", &tests, unless, rules, closed)
        }
        _ => Err("only lists of addresses, connections for each address and \"is it MQTT\" can be asked"),
    })
}

fn expect_proxy(
    tests: Option<Option<Vec<(bool, Test)>>>,
    unless: bool,
    rules: &mut Rules,
) -> Result<(), &'static str> {
    match tests {
        None => rules.expect_proxy = Some(everyone()),
        Some(Some(tests)) if !unless => {
            let sources =
                sources(&tests).ok_or("a PROXY header is expected from networks, or from everyone")?;
            rules.expect_proxy.get_or_insert_default().extend(sources);
        }
        Some(_) => return Err("a PROXY header is expected from networks, or from everyone"),
    }
    Ok(())
}

/// Every address of both families.
pub(super) fn everyone() -> Vec<IpNet> {
    ["0.0.0.0/0", "::/0"].iter().filter_map(|text| text.parse().ok()).collect()
}

/// The networks of a condition that asks for nothing else.
fn sources(tests: &[(bool, Test)]) -> Option<Vec<IpNet>> {
    let mut all = Vec::new();
    for (negated, test) in tests {
        match test {
            Test::Source(networks) if !negated => all.extend(networks),
            _ => return None,
        }
    }
    Some(all)
}

/// `accept` and `reject` with a condition.
fn verdict(
    accept: bool,
    tests: &[(bool, Test)],
    unless: bool,
    rules: &mut Rules,
    closed: &mut Option<usize>,
) -> Result<(), &'static str> {
    if let ([(false, Test::Above(most))], false, false) = (tests, accept, unless) {
        rules.per_address = Some(Said::written(*most));
        return Ok(());
    }
    // "unless a" and "if !a" are the same
    let negated = match tests {
        [(true, test)] => sources(&[(false, test.clone())]).map(|networks| (networks, !unless)),
        _ => sources(tests).map(|networks| (networks, unless)),
    };
    let (networks, negated) = negated.ok_or("only networks can be asked for, one list at a time")?;
    match (accept, negated, *closed) {
        (_, false, None) => rules.access.extend(networks.into_iter().map(|network| (accept, Some(network)))),
        (false, false, Some(at)) => {
            // before those who pass, after all that was decided earlier
            let denied = networks.into_iter().map(|network| (false, Some(network)));
            rules.access.splice(at..at, denied);
        }
        (false, true, None) => {
            *closed = Some(rules.access.len());
            rules.access.extend(networks.into_iter().map(|network| (true, Some(network))));
        }
        _ => return Err("together with the rules before it, a list of networks cannot say it"),
    }
    Ok(())
}

/// A condition: tests of which one has to hold, each with whether it is negated. `None`: it says something else.
fn tests(words: &[String], acls: &HashMap<&str, Option<Test>>) -> Option<Vec<(bool, Test)>> {
    let mut out = Vec::new();
    let mut rest = words.iter().map(String::as_str).peekable();
    loop {
        let mut negated = false;
        let mut word = rest.next()?;
        while let Some(after) = word.strip_prefix('!') {
            negated = !negated;
            word = if after.is_empty() { rest.next()? } else { after };
        }
        let found = if word == "{" {
            let inside: Vec<_> = rest.by_ref().take_while(|word| *word != "}").map(str::to_owned).collect();
            test(&inside)?
        } else {
            acls.get(word).cloned().flatten()?
        };
        out.push((negated, found));
        match rest.next() {
            None => return Some(out),
            Some("||" | "or") => {}
            // two that have to hold together
            Some(_) => return None,
        }
    }
}

/// What an ACL asks.
fn test(words: &[String]) -> Option<Test> {
    let (fetch, values) = words.split_first()?;
    let name = fetch.split(['(', ',']).next().unwrap_or(fetch);
    if fetch.contains("mqtt_is_valid") {
        return Some(Test::IsMqtt);
    }
    match name {
        "src" if fetch == "src" => {
            let values = values.iter().skip_while(|value| *value == "-m" || *value == "ip" || *value == "--");
            let networks: Option<Vec<_>> = values.map(|value| value.parse().ok()).collect();
            networks.filter(|networks| !networks.is_empty()).map(Test::Source)
        }
        "src_conn_cur" | "sc0_conn_cur" | "sc1_conn_cur" | "sc2_conn_cur" | "sc_conn_cur" => {
            let [operator, number] = values else { return None };
            let number: u64 = number.parse().ok()?;
            match operator.as_str() {
                "gt" => Some(Test::Above(number)),
                "ge" => Some(Test::Above(number.saturating_sub(1))),
                _ => None,
            }
        }
        _ => None,
    }
}
