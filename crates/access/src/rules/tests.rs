use proptest::prelude::*;

use super::*;
use Permission::{Allow, Deny};

const CAR: Client<'static> = Client {
    clientid: "car1",
    username: Some("ann"),
    ip: std::net::IpAddr::V4(std::net::Ipv4Addr::new(10, 1, 2, 3)),
    listener: "tcp://0.0.0.0:1883",
};

fn rules(text: &str) -> Arc<Rules> {
    Arc::new(Rules::parse("acl.toml".as_ref(), text).unwrap_or_else(|problems| panic!("{problems}")))
}

/// A rule that allows everything under these conditions; whether it is about the client.
fn about(conditions: &str, client: Client<'_>) -> bool {
    let text = format!("[[rules]]\npermission = \"allow\"\ntopics = \"#\"\n{conditions}");
    rules(&text).policy(&client).publish("x", QoS::AtMostOnce, false) == Allow
}

#[test]
fn the_first_rule_that_fits_decides() {
    let rules = rules(
        r##"
        [[rules]]
        permission = "deny"
        topics = ["a/b"]
        [[rules]]
        permission = "allow"
        topics = ["a/#"]
        [[rules]]
        permission = "deny"
        topics = ["#"]
        "##,
    );
    let mut policy = rules.policy(&CAR);
    for (topic, expected) in [("a/b", Deny), ("a/c", Allow), ("a", Allow), ("b", Deny)] {
        for _ in 0..2 {
            assert_eq!(
                policy.publish(topic, QoS::AtMostOnce, false),
                expected,
                "{topic}, also when it is remembered"
            );
        }
    }
    assert_eq!(rules.len(), 3);
}

#[test]
fn what_no_rule_fits_is_denied_unless_the_file_says_otherwise() {
    let mut policy = rules("").policy(&CAR);
    assert_eq!(
        (policy.publish("a", QoS::AtMostOnce, false), policy.subscribe("a", QoS::AtMostOnce)),
        (Deny, Deny)
    );
    let mut policy = rules("no_match = \"allow\"").policy(&CAR);
    assert_eq!(
        (policy.publish("a", QoS::AtMostOnce, false), policy.subscribe("a", QoS::AtMostOnce)),
        (Allow, Allow)
    );
}

#[test]
fn conditions_are_about_who_a_client_is() {
    for (conditions, fits) in [
        ("", true),
        ("username = \"ann\"", true),
        ("username = [\"bob\", \"ann\"]", true),
        ("username = \"bob\"", false),
        ("username = { regex = \"^a\" }", true),
        ("username = { regex = \"^n\" }", false),
        ("clientid = \"car1\"", true),
        ("clientid = [\"car2\"]", false),
        ("clientid = { regex = \"^car[0-9]+$\" }", true),
        ("clientid = { regex = \"r1\" }", true),
        ("ip = \"10.0.0.0/8\"", true),
        ("ip = [\"192.168.0.0/16\", \"10.1.2.3\"]", true),
        ("ip = \"192.168.0.0/16\"", false),
        ("listener = \"0.0.0.0:1883\"", true),
        ("listener = \"tcp://0.0.0.0:1883\"", true),
        ("listener = [\"127.0.0.1:1883\"]", false),
        ("username = \"ann\"\nclientid = \"car1\"\nip = \"10.1.2.3\"\nlistener = \"0.0.0.0:1883\"", true),
        ("username = \"ann\"\nclientid = \"car2\"", false),
        ("username = \"bob\"\nclientid = \"car1\"", false),
    ] {
        assert_eq!(about(conditions, CAR), fits, "{conditions}");
    }
    let nameless = Client { username: None, ..CAR };
    assert!(!about("username = { regex = \"\" }", nameless), "it has no name that could fit");
    assert!(about("clientid = \"car1\"", nameless));
}

#[test]
fn actions_qos_and_retain_narrow_a_rule() {
    let text = |more: &str| format!("[[rules]]\npermission = \"allow\"\ntopics = \"a\"\n{more}\n");
    let asked = |more: &str| {
        let mut policy = rules(&text(more)).policy(&CAR);
        [
            policy.publish("a", QoS::AtMostOnce, false),
            policy.publish("a", QoS::AtLeastOnce, true),
            policy.subscribe("a", QoS::AtLeastOnce),
        ]
        .map(|permission| permission == Allow)
    };
    assert_eq!(asked(""), [true, true, true]);
    assert_eq!(asked("action = \"all\""), [true, true, true]);
    assert_eq!(asked("action = \"publish\""), [true, true, false]);
    assert_eq!(asked("action = \"subscribe\""), [false, false, true]);
    assert_eq!(asked("qos = 1"), [false, true, true]);
    assert_eq!(asked("qos = [0, 2]"), [true, false, false]);
    assert_eq!(asked("action = \"publish\"\nretain = false"), [true, false, false]);
    assert_eq!(asked("action = \"publish\"\nretain = true"), [false, true, false]);
}

#[test]
fn a_subscription_is_allowed_by_a_rule_that_covers_it_whole() {
    let text = "[[rules]]\npermission = \"allow\"\ntopics = [\"v/${clientid}/#\", \"eq all/#\", \"s/+/x\"]\n";
    let rules = rules(text);
    let policy = rules.policy(&CAR);
    for (filter, expected) in [
        ("v/car1/#", Allow),
        ("v/car1", Allow),
        ("v/car1/+/speed", Allow),
        ("v/+/speed", Deny),
        ("v/#", Deny),
        ("#", Deny),
        ("all/#", Allow),
        ("all/x", Deny),
        ("s/+/x", Allow),
        ("s/1/x", Allow),
        ("s/#", Deny),
        ("$SYS/#", Deny),
    ] {
        assert_eq!(policy.subscribe(filter, QoS::AtMostOnce), expected, "{filter}");
    }
}

/// Otherwise `#` would bring what `secret/#` keeps away.
#[test]
fn a_subscription_is_denied_by_a_rule_that_shares_a_topic_with_it() {
    let rules = rules(
        "[[rules]]\npermission = \"deny\"\ntopics = [\"secret/#\", \"eq +/x\"]\n[[rules]]\npermission = \"allow\"\ntopics = \"#\"\n",
    );
    let policy = rules.policy(&CAR);
    for (filter, expected) in [
        ("secret/a", Deny),
        ("#", Deny),
        ("+/a", Deny),
        ("+/x", Deny),
        ("public/#", Allow),
        ("public/x", Allow),
    ] {
        assert_eq!(policy.subscribe(filter, QoS::AtMostOnce), expected, "{filter}");
    }
}

/// A client id is what a device says it is.
#[test]
fn a_client_id_that_is_a_filter_gets_nothing_of_others() {
    let text = "[[rules]]\npermission = \"allow\"\ntopics = [\"v/${clientid}/#\"]\n";
    let rules = rules(text);
    for clientid in ["+", "#", "+/#", "car1/x", ""] {
        let mut policy = rules.policy(&Client { clientid, ..CAR });
        assert_eq!(policy.publish("v/car1/x", QoS::AtMostOnce, false), Deny, "{clientid}");
        assert_eq!(policy.subscribe("v/+/#", QoS::AtMostOnce), Deny, "{clientid}");
        assert_eq!(policy.subscribe("v/#", QoS::AtMostOnce), Deny, "{clientid}");
    }
}

#[test]
fn every_problem_of_the_file_is_told_with_its_line() {
    let text = "no_match = \"perhaps\"\n[[rules]]\ntopics = [\"a/#/b\", \"ok\", \"${id}\"]\nusername = { regex = \"(\" }\n\
                [[rules]]\npermission = \"alow\"\nqos = 3\nip = \"home\"\ntopic = \"a\"\n\
                [[rules]]\npermission = \"allow\"\nretain = true\naction = \"all\"\ntopics = []\n";
    let problems = Rules::parse("acl.toml".as_ref(), text).unwrap_err();
    let told: Vec<String> = problems.iter().map(|p| format!("{} {}", p.line, p.key)).collect();
    assert_eq!(
        told,
        [
            "1 no_match",
            "2 rules[0].permission",
            "3 rules[0].topics[0]",
            "3 rules[0].topics[2]",
            "4 rules[0].username.regex",
            "5 rules[1].topics",
            "6 rules[1].permission",
            "7 rules[1].qos",
            "8 rules[1].ip",
            "9 rules[1].topic",
            "12 rules[2].retain",
            "14 rules[2].topics",
        ],
        "{problems}"
    );
}

#[test]
fn an_expression_that_would_grow_too_large_is_a_problem() {
    let text =
        "[[rules]]\npermission = \"allow\"\ntopics = \"#\"\nclientid = { regex = \"(a{1000}){1000}\" }\n";
    assert!(Rules::parse("acl.toml".as_ref(), text).is_err());
}

#[test]
fn a_rule_for_each_device_is_found_by_its_name() {
    let mut text = String::new();
    for n in 0..1_000 {
        text += &format!("[[rules]]\npermission = \"allow\"\nusername = \"u{n}\"\ntopics = \"t/{n}\"\n");
    }
    let rules = rules(&text);
    let client = Client { username: Some("u700"), ..CAR };
    assert_eq!(rules.candidates(&client), [700]);
    let mut policy = rules.policy(&client);
    assert_eq!(policy.publish("t/700", QoS::AtMostOnce, false), Allow);
    assert_eq!(policy.publish("t/1", QoS::AtMostOnce, false), Deny);
}

#[test]
fn files_are_equal_when_they_say_the_same() {
    assert_eq!(rules("no_match = \"allow\""), rules("no_match = \"allow\""));
    assert_ne!(rules("no_match = \"allow\""), rules(""));
    let one = rules("");
    assert!(one.policy(&CAR).is_of(&one) && !one.policy(&CAR).is_of(&rules("")));
}

proptest! {
    /// Oracle: the same policy without a memory, made anew for each question.
    #[test]
    fn remembered_decisions_are_those_that_would_be_made(
        asked in prop::collection::vec(("[ab](/[ab]){0,2}", 0..3u8, any::<bool>()), 1..40)
    ) {
        let rules = rules(
            "[[rules]]\npermission = \"deny\"\naction = \"publish\"\nqos = 2\ntopics = [\"a/+\"]\n\
             [[rules]]\npermission = \"allow\"\naction = \"publish\"\nretain = false\ntopics = [\"a/#\"]\n\
             [[rules]]\npermission = \"allow\"\nqos = [0, 1]\ntopics = [\"+/b\"]\n",
        );
        let mut policy = rules.policy(&CAR);
        for (topic, qos, retain) in asked {
            let qos = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce][usize::from(qos)];
            prop_assert_eq!(policy.publish(&topic, qos, retain), rules.policy(&CAR).publish(&topic, qos, retain));
        }
    }
}
