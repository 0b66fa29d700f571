//! Topics that mean more than their name, as EMQX's and Mosquitto's users know them, with the clients they use.

use serde_json::json;

use crate::harness::mosquitto::{client, publish, subscribe};
use crate::harness::process::{run, text};
use crate::harness::server::tidegate;
use crate::harness::{Paho, Process, Site, Tidegate, eventually};

/// Topic aliases of mosquitto_pub and paho become topics; the repeated topics that `tidegate sub` gets come by alias and are
/// told as what they are.
#[test]
fn topic_aliases_are_understood_and_given() {
    let broker = Tidegate::broker("node1");
    let to = broker.mqtt();
    let mut command = tidegate(&["sub"]);
    let (host, port) = (to.ip().to_string(), to.port().to_string());
    command.args(["-h", &host, "-p", &port, "-d", "-D", "connect", "topic-alias-maximum", "4"]);
    let ours = Process::start("tidegate sub", command.args(["-t", "fleet/#", "-C", "6", "-F", "%t %p"]));
    eventually("a subscription", || (broker.metric("tidegate_broker_subscriptions") >= 1.0).then_some(()));
    let theirs = subscribe(to, &["-t", "fleet/#", "-C", "6", "-F", "%t %p"]);
    publish(to, &["-V", "5", "-t", "fleet/1", "-m", "0", "-D", "publish", "topic-alias", "3"]);
    let mut paho = Paho::connected(to, "paho", 5);
    let alias = json!({"properties": {"TopicAlias": 1}});
    paho.publish("fleet/1", "1", 1, &alias);
    for (payload, qos) in [("2", 1), ("3", 2), ("4", 1), ("5", 1)] {
        paho.publish("", payload, qos, &alias);
    }
    for process in [&ours, &theirs] {
        for payload in 0..6 {
            process.out.line_with(&[&format!("fleet/1 {payload}")]);
        }
    }
}

#[test]
fn a_delayed_message_of_an_old_client_comes_later() {
    let broker = Tidegate::broker("node1");
    let sub = subscribe(broker.mqtt(), &["-V", "mqttv31", "-t", "#", "-C", "2", "-F", "%t %p"]);
    let id = "an-identifier-of-more-than-23-characters";
    publish(broker.mqtt(), &["-V", "mqttv31", "-i", id, "-q", "2", "-t", "$delayed/1/door", "-m", "later"]);
    publish(broker.mqtt(), &["-V", "mqttv31", "-q", "1", "-t", "door", "-m", "now"]);
    sub.out.line_with(&["door later"]);
    let lines = sub.out.to_end();
    let told: Vec<&String> = lines.iter().filter(|line| line.starts_with("door ")).collect();
    assert_eq!(told, ["door now", "door later"]);
}

#[test]
fn an_exclusive_filter_has_one_holder() {
    let broker = Tidegate::broker("node1");
    let mut first = Paho::connected(broker.mqtt(), "first", 5);
    let mut second = Paho::connected(broker.mqtt(), "second", 5);
    assert_eq!(first.subscribe("$exclusive/job", 1), 1);
    assert_eq!(second.subscribe("$exclusive/job", 1), 0x97);
    publish(broker.mqtt(), &["-t", "job", "-m", "mine", "-q", "1"]);
    assert_eq!(first.message().payload, "mine");
    first.unsubscribe("$exclusive/job");
    assert_eq!(second.subscribe("$exclusive/job", 1), 1);
}

#[test]
fn the_system_topics_are_there_at_once() {
    let broker = Tidegate::broker("node1");
    for (topic, value) in [
        ("$SYS/broker/version", concat!("tidegate version ", env!("CARGO_PKG_VERSION"))),
        ("$SYS/broker/clients/connected", "1"),
        ("$SYS/brokers", "node1"),
    ] {
        let output = run(&mut client("mosquitto_sub", broker.mqtt(), &["-t", topic, "-C", "1", "-W", "10"]));
        assert_eq!(text(&output.stdout).trim(), value, "{topic}");
    }
}

/// Rewriting and automatic subscriptions, from the configuration file to the client.
#[test]
fn topics_are_rewritten_and_subscribed_to_as_configured() {
    let more = "topic_rewrite = [{ action = \"publish\", source = \"x/#\", regex = '^x/(\\d+)$', target = \"c/$1\" }]\n\
                auto_subscribe = [{ topic = \"c/${clientid}\", qos = 1 }]";
    let broker = Site::new("node1").broker(more, "").start();
    let mut paho = Paho::connected(broker.mqtt(), "7", 5);
    publish(broker.mqtt(), &["-t", "x/7", "-m", "for you", "-q", "1"]);
    let message = paho.message();
    assert_eq!((message.topic.as_str(), message.payload.as_str(), message.qos), ("c/7", "for you", 1));
}
