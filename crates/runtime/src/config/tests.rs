use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use proptest::prelude::*;

use super::*;

const MINUTE: Duration = Duration::from_secs(60);

fn document(text: &str) -> Document {
    Document::parse(Path::new("t.toml"), text).unwrap_or_else(|problems| panic!("{problems}\nin\n{text}"))
}

/// The lines of the problems, without the file's name.
fn lines(problems: &Problems) -> Vec<String> {
    problems.to_string().lines().map(|line| line.strip_prefix("t.toml:").unwrap().to_owned()).collect()
}

/// Reads with a schema that must find something wrong.
fn refused<T: std::fmt::Debug>(text: &str, schema: impl FnOnce(&mut Table<'_>) -> T) -> Vec<String> {
    lines(&document(text).read(schema).unwrap_err())
}

/// Reads with a schema that must find all right.
fn accepted<T>(text: &str, schema: impl FnOnce(&mut Table<'_>) -> T) -> T {
    document(text).read(schema).unwrap_or_else(|problems| panic!("{problems}\nin\n{text}"))
}

/// A getter gives these values for these texts, and exactly one problem with these words for those.
fn table<T: PartialEq + std::fmt::Debug>(
    get: impl Fn(&mut Table<'_>) -> Option<T>,
    right: &[(&str, T)],
    wrong: &[&str],
    allowed: &str,
) {
    assert_eq!(accepted("", &get), None, "an absent key gives nothing");
    for (written, expected) in right {
        assert_eq!(accepted(&format!("k = {written}"), &get).as_ref(), Some(expected), "{written}");
    }
    for written in wrong {
        let shown = match written.chars().next() {
            Some('[') => "an array",
            Some('{') => "a table",
            _ => written,
        };
        assert_eq!(refused(&format!("\n\nk = {written}"), &get), [format!("3: k: {shown}: {allowed}")]);
    }
}

#[test]
fn string() {
    table(
        |t| t.string("k"),
        &[
            ("\"\"", String::new()),
            ("'a\\b'", "a\\b".to_owned()),
            ("\"\\u00e4\"", "ä".to_owned()),
            ("'''\na'''", "a".to_owned()),
        ],
        &["1", "true", "1.5", "2026-01-01", "[\"a\"]", "{ a = 1 }"],
        "a string",
    );
}

#[test]
fn bool() {
    table(
        |t| t.bool("k"),
        &[("true", true), ("false", false)],
        &["\"true\"", "1", "[]", "{}"],
        "true or false",
    );
}

#[test]
fn integer() {
    table(
        |t| t.integer("k", -5..=65_535),
        &[
            ("-5", -5),
            ("65535", 65_535),
            ("0", 0),
            ("1_000", 1_000),
            ("0xff", 255),
            ("+7", 7),
            ("0b11", 3),
            ("0o17", 15),
        ],
        &["-6", "65536", "1.0", "\"1\"", "true", "99999999999999999999999", "0x", "inf", "[1]", "{ a = 1 }"],
        "an integer from -5 to 65535",
    );
    table(
        |t| t.integer("k", i64::MIN..=i64::MAX),
        &[("-9223372036854775808", i64::MIN), ("9223372036854775807", i64::MAX)],
        &["9223372036854775808"],
        "an integer from -9223372036854775808 to 9223372036854775807",
    );
}

#[test]
fn duration() {
    table(
        |t| t.duration("k", Duration::from_millis(500)..=MINUTE),
        &[("\"500ms\"", MINUTE / 120), ("\"1m\"", MINUTE), ("\"10s\"", MINUTE / 6)],
        &[
            "\"499ms\"",
            "\"61s\"",
            "\"0s\"",
            "10",
            "\"10\"",
            "\"\"",
            "\"10 s\"",
            "\"ten\"",
            "true",
            "[\"1s\"]",
        ],
        "a duration from \"500ms\" to \"1m\", a number with the unit ms, s, m, h or d",
    );
}

#[test]
fn size() {
    table(
        |t| t.size("k", 512..=10_000_000),
        &[("\"512B\"", 512), ("\"64KiB\"", 65_536), ("\"10MB\"", 10_000_000)],
        &["\"511B\"", "\"10MiB\"", "1024", "\"1k\"", "\"\"", "[]"],
        "a size from \"512B\" to \"10MB\", a number with the unit B, KB, KiB, MB, MiB, GB or GiB",
    );
}

#[test]
fn rate() {
    table(
        |t| t.rate("k"),
        &[("\"2000/s\"", 2000.0), ("\"30/m\"", 0.5), ("\"7200/h\"", 2.0)],
        &["\"0/s\"", "2000", "\"2000\"", "\"2000/d\"", "\"-1/s\"", "[]"],
        "a rate such as \"2000/s\", \"10/m\" or \"1/h\", a number from 1 to 4294967295 with a unit",
    );
}

#[test]
fn choice_suggests_what_was_meant() {
    let get = |t: &mut Table<'_>| t.choice("k", &[("tcp", 1), ("tls", 2), ("websocket", 3)]);
    table(
        get,
        &[("\"tcp\"", 1), ("\"websocket\"", 3)],
        &["\"\"", "\"udp-like\"", "1", "[\"tcp\"]"],
        "one of \"tcp\", \"tls\", \"websocket\"",
    );
    assert_eq!(
        refused("k = \"websoket\"", get),
        ["1: k: \"websoket\": one of \"tcp\", \"tls\", \"websocket\"; did you mean \"websocket\"?"]
    );
}

#[test]
fn socket_addr() {
    let addr = |text: &str| text.parse::<SocketAddr>().unwrap();
    table(
        |t| t.socket_addr("k"),
        &[("\"127.0.0.1:1883\"", addr("127.0.0.1:1883")), ("\"[::]:0\"", addr("[::]:0"))],
        &[
            "\"127.0.0.1\"",
            "\":1883\"",
            "\"localhost:1883\"",
            "\"::1:1883\"",
            "\"1.2.3.4:65536\"",
            "1883",
            "[]",
        ],
        "an address with a port such as \"127.0.0.1:1883\" or \"[::]:1883\"",
    );
}

#[test]
fn lists_name_the_wrong_element_and_its_line() {
    let networks = |t: &mut Table<'_>| t.networks("k");
    assert_eq!(accepted("", networks), None);
    assert_eq!(accepted("k = []", networks), Some(vec![]));
    assert_eq!(
        accepted("k = [\"10.0.0.0/8\", \"::1\"]", networks),
        Some(vec!["10.0.0.0/8".parse().unwrap(), "::1".parse().unwrap()])
    );
    assert_eq!(
        refused("k = [\n  \"10.0.0.0/8\",\n  \"10.0.0.0/33\",\n  7,\n]", networks),
        [
            "3: k[1]: \"10.0.0.0/33\": a network such as \"10.0.0.0/8\" or \"fd00::/8\", or one address",
            "4: k[2]: 7: a network such as \"10.0.0.0/8\" or \"fd00::/8\", or one address",
        ]
    );
    assert_eq!(
        refused("k = \"10.0.0.0/8\"", networks),
        ["1: k: \"10.0.0.0/8\": an array of networks such as [\"10.0.0.0/8\", \"::1\"]"]
    );

    let addresses = |t: &mut Table<'_>| t.ip_list("k");
    assert_eq!(accepted("k = [\"10.0.0.5\"]", addresses), Some(vec![IpAddr::from([10, 0, 0, 5])]));
    assert_eq!(
        refused("k = [\"10.0.0.5/8\"]", addresses),
        ["1: k[0]: \"10.0.0.5/8\": an IP address such as \"10.0.0.5\" or \"::1\""]
    );

    let strings = |t: &mut Table<'_>| t.strings("k");
    assert_eq!(accepted("k = [\"a\", \"b\"]", strings), Some(vec!["a".to_owned(), "b".to_owned()]));
    assert_eq!(
        refused("k = [\"a\", [\"b\"], {c = 1}]", strings),
        ["1: k[1]: an array: a string", "1: k[2]: a table: a string"]
    );
    assert_eq!(refused("k = \"a\"", strings), ["1: k: \"a\": an array of strings"]);
}

#[test]
fn paths_start_from_the_folder_of_the_file() {
    let read = |file: &str, text: &str| {
        Document::parse(Path::new(file), text).unwrap().read(|t| t.path("k")).unwrap().unwrap()
    };
    assert_eq!(read("/etc/tidegate/t.toml", "k = \"tls/a.pem\""), Path::new("/etc/tidegate/tls/a.pem"));
    assert_eq!(read("/etc/tidegate/t.toml", "k = \"/a.pem\""), Path::new("/a.pem"));
    assert_eq!(read("conf/t.toml", "k = \"a.pem\""), Path::new("conf/a.pem"));
    assert_eq!(read("t.toml", "k = \"a.pem\""), Path::new("a.pem"));
    assert_eq!(refused("k = \"\"", |t| t.path("k")), ["1: k: \"\": a path"]);
    assert_eq!(refused("k = 1", |t| t.path("k")), ["1: k: 1: a path"]);
}

#[test]
fn a_secret_is_plain_or_in_a_file_or_in_the_environment() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("key"), "s3cret\r\n").unwrap();
    let read =
        |text: &str| Document::parse(&folder.path().join("t.toml"), text).unwrap().read(|t| t.secret("k"));
    assert_eq!(read("").unwrap(), None);
    assert_eq!(read("k = \"plain\"").unwrap().as_deref(), Some("plain"));
    assert_eq!(read("k = { file = \"key\" }").unwrap().as_deref(), Some("s3cret"));
    assert_eq!(read("[k]\nfile = \"key\"").unwrap().as_deref(), Some("s3cret"));
    // Any variable that every test run has.
    let (name, value) = std::env::vars().find(|(_, value)| !value.is_empty()).expect("an environment");
    assert_eq!(read(&format!("k = {{ env = {name:?} }}")).unwrap(), Some(value));

    std::fs::write(folder.path().join("big"), vec![b'x'; 65 * 1024]).unwrap();
    std::fs::write(folder.path().join("binary"), [0xFF, 0xFE]).unwrap();
    for (text, expected) in [
        ("k = { file = \"nothing\" }", "k.file: \"nothing\": a readable file: "),
        ("k = { file = \"big\" }", "k.file: \"big\": a readable file: longer than 64 KiB"),
        ("k = { file = \"binary\" }", "k.file: \"binary\": a readable file: "),
        (
            "k = { env = \"TIDEGATE_TEST_NOT_SET\" }",
            "k.env: \"TIDEGATE_TEST_NOT_SET\": the name of an environment variable that is set and is UTF-8",
        ),
    ] {
        let problems = read(text).unwrap_err();
        assert_eq!(problems.len(), 1, "{problems}");
        assert!(problems.to_string().contains(expected), "{problems}");
    }
}

/// Every way to get a secret wrong, and the secret itself in none of the problems.
#[test]
fn no_problem_shows_a_secret() {
    let both = "***: a string, { file = \"path\" } or { env = \"NAME\" }";
    for (text, expected) in [
        ("password = 31415", vec![format!("1: password: {both}")]),
        ("password = [\"31415\"]", vec![format!("1: password: {both}")]),
        ("password = {}", vec![format!("1: password: {both}")]),
        ("password = { file = \"a\", env = \"b\" }", vec![format!("1: password: {both}")]),
        ("password = { file = 31415 }", vec!["1: password.file: 31415: a path".to_owned()]),
        (
            "password = { plain = \"31415\" }",
            vec![
                format!("1: password: {both}"),
                "1: password.plain: ***: unknown key; allowed: env, file".to_owned(),
            ],
        ),
        (
            "password = { file = \"a\", value = \"31415\" }",
            vec!["1: password.value: ***: unknown key; allowed: env, file".to_owned()],
        ),
        ("pasword = \"31415\"", vec!["1: pasword: ***: unknown key, did you mean password?".to_owned()]),
        ("pasword = 31415", vec!["1: pasword: ***: unknown key, did you mean password?".to_owned()]),
        ("token = \"31415\"", vec!["1: token: ***: unknown key; allowed: password".to_owned()]),
        ("[x]\npassword = \"31415\"", vec!["1: x: a table: unknown key; allowed: password".to_owned()]),
    ] {
        let found = refused(text, |t| t.secret("password"));
        assert_eq!(found, expected, "{text}");
    }
    // A problem of meaning with a secret, and a syntax error on its line.
    let weak = refused("password = \"31415\"", |t| {
        t.secret("password");
        t.problem("password", "at least 8 characters");
    });
    assert_eq!(weak, ["1: password: ***: at least 8 characters"]);
    let debug = format!("{:?}", document("password = \"31415\""));
    assert!(!debug.contains("31415"), "{debug}");
    let broken = Document::parse(Path::new("t.toml"), "password = \"31415").unwrap_err();
    assert!(!broken.to_string().contains("31415"), "{broken}");
}

#[test]
fn all_problems_come_at_once_in_the_order_of_the_file() {
    let text = "\
[broker]
allow_anonymous = \"yes\"

[[broker.listeners]]
bind = \"0.0.0.0:1883\"
transport = \"tpc\"

[[broker.listeners]]
bind = \"everywhere\"
max_conections = 5
accept_rate = \"2000\"
";
    let found = refused(text, |root| {
        root.table("broker", |broker| {
            let listeners = broker.tables("listeners", |listener, _| {
                listener.rate("accept_rate");
                listener.integer("max_connections", 1..=10);
                listener.choice("transport", &[("tcp", ()), ("tls", ())]);
                listener.socket_addr("bind")
            });
            assert_eq!(listeners, [Some(SocketAddr::from(([0, 0, 0, 0], 1883))), None]);
            broker.bool("allow_anonymous")
        })
    });
    assert_eq!(
        found,
        [
            "2: broker.allow_anonymous: \"yes\": true or false",
            "6: broker.listeners[0].transport: \"tpc\": one of \"tcp\", \"tls\"; did you mean \"tcp\"?",
            "9: broker.listeners[1].bind: \"everywhere\": an address with a port such as \"127.0.0.1:1883\" or \"[::]:1883\"",
            "10: broker.listeners[1].max_conections: 5: unknown key, did you mean max_connections?",
            "11: broker.listeners[1].accept_rate: \"2000\": a rate such as \"2000/s\", \"10/m\" or \"1/h\", a number from 1 to 4294967295 with a unit",
        ]
    );
}

#[test]
fn a_key_as_other_programs_call_it_is_told_what_it_is_called_here() {
    let found = refused("port = 1883\nhost = \"a\"\n", |t| {
        t.called_elsewhere(&[("port", "bind")]);
        t.string("bind");
        t.has("name");
    });
    assert_eq!(
        found,
        ["1: port: 1883: unknown key, did you mean bind?", "2: host: ***: unknown key; allowed: bind, name"]
    );
}

#[test]
fn unknown_keys_are_found_at_every_depth() {
    let found = refused("a = 1\n[b]\nc.d = 2\n[[e]]\nf = 3\n[g.h]\n", |root| {
        root.table("b", |b| b.table("c", |c| c.has("x")));
        root.tables("e", |e, _| e.has("y"));
        root.table("g", |_| ());
    });
    assert_eq!(
        found,
        [
            "1: a: 1: unknown key, did you mean b?",
            "3: b.c.d: 2: unknown key, did you mean x?",
            "5: e[0].f: 3: unknown key, did you mean y?",
            "6: g.h: a table: unknown key; allowed: none",
        ]
    );
}

#[test]
fn arrays_of_tables_may_be_inline() {
    let names = |root: &mut Table<'_>| {
        root.tables("servers", |server, index| (index, server.key_path().to_owned(), server.string("name")))
    };
    let expected = [
        (0, "servers[0]".to_owned(), Some("a".to_owned())),
        (1, "servers[1]".to_owned(), Some("b".to_owned())),
    ];
    assert_eq!(accepted("[[servers]]\nname = \"a\"\n[[servers]]\nname = \"b\"", names), expected);
    assert_eq!(accepted("servers = [ { name = \"a\" }, { name = \"b\" } ]", names), expected);
    assert_eq!(accepted("", names), []);
    assert_eq!(
        refused("servers = [ { name = 1 },\n 2 ]", names),
        ["1: servers[0].name: 1: a string", "2: servers[1]: 2: a table"]
    );
    assert_eq!(
        refused("servers = { name = \"a\" }", names),
        ["1: servers: a table: an array of tables: [[servers]]"]
    );
    assert_eq!(refused("servers = 7", names), ["1: servers: 7: an array of tables: [[servers]]"]);
}

#[test]
fn dotted_keys_sections_and_inline_tables_are_the_same() {
    let read = |root: &mut Table<'_>| {
        root.table("a", |a| {
            (a.key_path().to_owned(), a.table("b", |b| (b.key_path().to_owned(), b.integer("c", 0..=9))))
        })
    };
    let expected = Some(("a".to_owned(), Some(("a.b".to_owned(), Some(1)))));
    for text in [
        "a.b.c = 1",
        "[a]\nb.c = 1",
        "[a.b]\nc = 1",
        "a = { b = { c = 1 } }",
        "a = { b.c = 1 }",
        "[a]\n[a.b]\nc = 1",
    ] {
        assert_eq!(accepted(text, read), expected, "{text}");
    }
    assert_eq!(refused("a = 1", read), ["1: a: 1: a table"]);
    assert_eq!(refused("[[a]]\n", read), ["1: a: an array: a table"]);
    assert_eq!(refused("[a]\n\nb.c = 10", read), ["3: a.b.c: 10: an integer from 0 to 9"]);
}

#[test]
fn problems_of_meaning_stand_at_the_value_or_at_the_table() {
    let found = refused(
        "x = 1\n[[listeners]]\nupstream = \"borkers\"\n\n[[listeners]]\nnames = [\"a\",\n\"b\"]\n",
        |root| {
            root.integer("x", 0..=1);
            root.require("y", "a number");
            root.require("x", "never said");
            root.tables("listeners", |listener, _| match listener.string("upstream") {
                Some(_) => listener.problem("upstream", "the name of an upstream: brokers"),
                None => {
                    listener.require("upstream", "the name of an upstream");
                    listener.strings("names");
                    listener.element_problem("names", 1, "another name");
                    listener.element_problem("names", 2, "three names");
                }
            });
        },
    );
    assert_eq!(
        found,
        [
            "1: y: (missing): a number",
            "3: listeners[0].upstream: \"borkers\": the name of an upstream: brokers",
            "5: listeners[1].upstream: (missing): the name of an upstream",
            "6: listeners[1].names: an array: three names",
            "7: listeners[1].names[1]: \"b\": another name",
        ]
    );
}

#[test]
fn a_missing_key_of_an_inline_table_stands_at_its_line() {
    let found = refused("servers = [\n { name = \"a\" },\n { },\n]", |root| {
        root.tables("servers", |server, _| {
            server.string("name");
            server.require("name", "a name");
        });
    });
    assert_eq!(found, ["3: servers[1].name: (missing): a name"]);
}

#[test]
fn a_missing_key_of_a_section_stands_at_its_header() {
    let found = refused("x = 1\n\n[a.b]\n\n[c]\nd.e = 1\n", |root| {
        root.integer("x", 0..=1);
        root.table("a", |a| a.table("b", |b| b.require("k", "something")));
        root.table("c", |c| {
            c.table("d", |d| {
                d.integer("e", 0..=1);
                d.require("k", "something");
            });
            c.require("k", "something");
        });
    });
    assert_eq!(
        found,
        ["3: a.b.k: (missing): something", "5: c.k: (missing): something", "6: c.d.k: (missing): something"]
    );
}

#[test]
fn one_problem_is_one_line_whatever_the_file_holds() {
    let text =
        format!("\"a\\nb\" = 1\n\"\" = 2\nk = \"\"\"x\n\ty\u{1b}\"\"\"\nlong = '{}'\n", "é".repeat(200))
            .replace('\u{1b}', "");
    let found = refused(&text, |root| {
        root.integer("k", 0..=1);
        root.integer("long", 0..=1);
    });
    assert_eq!(
        found,
        [
            "1: \"a\\nb\": 1: unknown key; allowed: k, long".to_owned(),
            "2: \"\": 2: unknown key, did you mean k?".to_owned(),
            "3: k: \"\"\"x\\n\\ty\"\"\": an integer from 0 to 1".to_owned(),
            format!("5: long: '{}...: an integer from 0 to 1", "é".repeat(59)),
        ]
    );
}

#[test]
fn syntax_errors_are_problems_with_line_and_column() {
    let found = |text: &str| lines(&Document::parse(Path::new("t.toml"), text).unwrap_err());
    for (text, start) in [
        ("a = ", "1: (syntax): column 5: "),
        ("ok = 1\n[a\n", "2: (syntax): column "),
        ("\n\nä = = 1", "3: (syntax): column "),
        ("a = 1\na = 2", "2: a: column 1: duplicate key"),
        ("[a]\nb = 1\n[a]\n", "3: a: column 2: duplicate key"),
        ("a = \"x", "1: (syntax): column "),
    ] {
        let found = found(text);
        assert!(found[0].starts_with(start), "{text:?}: {found:?}");
        assert!(found.iter().all(|line| !line.ends_with(": ")), "{found:?}");
    }
    let two = found("a = \nb = 1\nc = \n");
    assert!(two.len() >= 2 && two[0].starts_with("1:") && two[1].starts_with("3:"), "{two:?}");
}

#[test]
fn deep_nesting_is_a_problem_and_not_a_crash() {
    for text in [
        "a = ".to_owned() + &"[".repeat(100_000),
        "a = ".to_owned() + &"{a=".repeat(100_000),
        "[".to_owned() + &"a.".repeat(100_000) + "a]",
    ] {
        assert!(Document::parse(Path::new("t.toml"), &text).is_err());
    }
}

#[test]
fn without_a_file_every_default_is_in_force() {
    let document = Document::empty();
    assert!(!document.has("broker"));
    let read =
        document.read(|root| (root.table("broker", |_| ()), root.tables("x", |_, _| ()), root.string("y")));
    assert_eq!(read.unwrap(), (None, vec![], None));
    let problems = document.read(|root| root.require("node", "a section")).unwrap_err();
    assert_eq!(problems.to_string(), "(no file):1: node: (missing): a section");
}

#[test]
fn a_document_may_be_read_again_and_knows_its_sections() {
    let document = document("[broker]\n");
    assert!(document.has("broker") && !document.has("gateway"));
    assert!(document.read(|_| ()).is_err());
    assert!(document.read(|root| root.table("broker", |_| ())).is_ok());
}

#[test]
fn problems_can_be_walked() {
    let problems = document("a = 1\nb = 2").read(|_| ()).unwrap_err();
    assert_eq!(problems.len(), 2);
    assert_eq!(problems.iter().map(|problem| problem.line).collect::<Vec<_>>(), [1, 2]);
    assert_eq!((&problems).into_iter().count(), 2);
    let first = problems.into_iter().next().unwrap();
    assert_eq!((first.key.as_str(), first.value.as_str()), ("a", "1"));
    assert_eq!(first.file, Path::new("t.toml"));
}

/// Asks every getter about a key, so that any value meets every reader.
fn ask_everything(table: &mut Table<'_>, key: &str, depth: usize) {
    table.has(key);
    table.string(key);
    table.bool(key);
    table.integer(key, 0..=10);
    table.duration(key, Duration::ZERO..=MINUTE);
    table.size(key, 0..=10);
    table.rate(key);
    table.choice(key, &[("a", ()), ("b", ())]);
    table.socket_addr(key);
    table.strings(key);
    table.networks(key);
    table.ip_list(key);
    table.path(key);
    table.secret(key);
    table.require(key, "it");
    table.problem(key, "more");
    table.element_problem(key, 0, "more");
    if depth > 0 {
        table.table(key, |inner| ask_everything(inner, key, depth - 1));
        table.tables(key, |inner, _| ask_everything(inner, key, depth - 1));
    }
}

fn every_problem_is_a_line(problems: &Problems, text: &str) -> Result<(), TestCaseError> {
    let count = text.bytes().filter(|byte| *byte == b'\n').count() + 1;
    prop_assert!(problems.iter().all(|problem| (1..=count).contains(&problem.line)));
    prop_assert_eq!(problems.to_string().lines().count(), problems.len());
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn no_text_makes_it_panic(text in "\\PC{0,60}|[a-c\\[\\]{}=.,\"'\n\r#0-9 +-]{0,80}|(\\PC|\n|\r|\t|\0){0,60}") {
        match Document::parse(Path::new("t.toml"), &text) {
            Ok(document) => {
                if let Err(problems) = document.read(|root| ask_everything(root, "a", 3)) {
                    every_problem_is_a_line(&problems, &text)?;
                }
            }
            Err(problems) => every_problem_is_a_line(&problems, &text)?,
        }
    }

    /// Whatever is written under a key, right TOML is either taken or refused at its own line.
    #[test]
    fn any_value_is_taken_or_refused_at_its_line(
        before in 0usize..5,
        value in "-?(0|[1-9][0-9]{0,24})|true|\"[a-z0-9/.:]{0,12}\"|\\[(\"[a-z0-9.:/]{0,6}\", ?){0,3}\\]|\\{ ?a = [0-9] ?\\}",
    ) {
        let text = format!("{}a = {value}\n", "\n".repeat(before));
        let document = document(&text);
        let problems = document.read(|root| ask_everything(root, "a", 2)).unwrap_err();
        for problem in &problems {
            prop_assert_eq!(problem.line, before + 1, "{}", problem);
            prop_assert!(problem.key.starts_with('a'));
        }
    }
}

#[test]
fn a_list_of_one_may_be_written_without_brackets() {
    let text = "one = \"a\"\nmany = [\"a\", \"b\"]\nqos = 1\nlevels = [0, 2]\nwrong = 5\nodd = [1, 7, \"x\"]\ntable = {}\n";
    let document = Document::parse(Path::new("t.toml"), text).unwrap();
    let problems = document
        .read(|root| {
            assert_eq!(root.string_or_strings("one"), Some(vec!["a".to_owned()]));
            assert_eq!(root.string_or_strings("many").map(|many| many.len()), Some(2));
            assert_eq!(root.string_or_strings("none"), None);
            assert_eq!(root.integer_or_integers("qos", 0..=2), Some(vec![1]));
            assert_eq!(root.integer_or_integers("levels", 0..=2), Some(vec![0, 2]));
            assert_eq!(root.string_or_strings("wrong"), None);
            assert_eq!(root.integer_or_integers("odd", 0..=2), Some(vec![1]));
            assert!(root.is_table("table") && !root.is_table("one") && !root.is_table("nothing"));
        })
        .unwrap_err();
    let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
    assert_eq!(
        lines,
        [
            "t.toml:5: wrong: 5: a string or an array of strings",
            "t.toml:6: odd[1]: 7: an integer from 0 to 2",
            "t.toml:6: odd[2]: \"x\": an integer from 0 to 2",
        ]
    );
}

#[test]
fn problems_of_a_file_that_is_named_come_behind_those_of_the_file_that_names_it() {
    let document = Document::parse(Path::new("t.toml"), "list = \"other\"\n\nport = 0\n").unwrap();
    let other = |line| Problem {
        file: "other".into(),
        line,
        key: "k".to_owned(),
        value: "v".to_owned(),
        allowed: "a".to_owned(),
    };
    let problems = document
        .read(|root| {
            root.string("list");
            root.adopt(Problems::of(vec![other(2), other(1)]).unwrap());
            root.integer("port", 1..=65535);
        })
        .unwrap_err();
    let places: Vec<_> = problems.iter().map(|p| (p.file.display().to_string(), p.line)).collect();
    assert_eq!(places, [("t.toml".to_owned(), 3), ("other".to_owned(), 1), ("other".to_owned(), 2)]);
}
