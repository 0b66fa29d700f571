//! Messages through the broker with clients that others wrote: paho-mqtt, mosquitto_pub and mosquitto_sub.

use mqtt::codec::encode::encode;
use mqtt::packet::Packet;
use mqtt::{QoS, Version};
use serde_json::json;

use crate::harness::mosquitto::{publish, publish_input, subscribe};
use crate::harness::{Device, Paho, Tidegate, device};

/// A burst larger than `max_outbound_bytes` for clients of both workers, at QoS 0: whoever reads gets all of it, wherever the
/// kernel has put it.
#[test]
fn clients_that_read_lose_nothing_of_a_burst_on_any_worker() {
    const MESSAGES: usize = 500;
    let broker = Tidegate::broker("node1");
    let mut readers: Vec<Device> = (0..8)
        .map(|n| {
            let hello = device::connect(Version::V311, &format!("reader-{n}"));
            let mut reader = Device::connect(broker.mqtt(), &hello);
            reader.subscribe("burst", QoS::AtMostOnce);
            reader
        })
        .collect();
    let mut sender = Device::connect(broker.mqtt(), &device::connect(Version::V311, "sender"));
    let message = device::message("burst", &"x".repeat(4_096), QoS::AtMostOnce);
    let mut burst = Vec::new();
    for _ in 0..MESSAGES {
        encode(&Packet::Publish(message.clone()), Version::V311, &mut burst).expect("a packet");
    }
    std::thread::scope(|threads| {
        for reader in &mut readers {
            threads.spawn(|| (0..MESSAGES).for_each(|_| drop(reader.message())));
        }
        sender.send_bytes(&burst);
    });
    assert_eq!(broker.metric("tidegate_broker_messages_dropped_total{rule=\"outbound_full\"}"), 0.0);
}

/// Every pair of publisher's and subscriber's version, every QoS on both sides.
fn all_qos_between(publisher: u8, subscriber: u8) {
    let broker = Tidegate::broker("node1");
    let mut sender = Paho::connected(broker.mqtt(), "sender", publisher);
    let mut receiver = Paho::connected(broker.mqtt(), "receiver", subscriber);
    for granted in 0..=2 {
        let filter = format!("lab/{granted}/+");
        assert_eq!(receiver.subscribe(&filter, granted), u64::from(granted));
        for sent in 0..=2 {
            let (topic, payload) = (format!("lab/{granted}/{sent}"), format!("räum {granted} {sent}"));
            sender.publish(&topic, &payload, sent, &json!({}));
            let message = receiver.message();
            assert_eq!((message.topic, message.payload), (topic, payload));
            // The lower of the two [MQTT-3.8.4-8].
            assert_eq!((message.qos, message.retain), (sent.min(granted), false));
        }
    }
    sender.disconnect();
    receiver.disconnect();
}

#[test]
fn paho_3_1_to_paho_5_at_every_qos() {
    all_qos_between(3, 5);
}

/// [v3 MQTT-7.0.0-2]
#[test]
fn paho_3_1_1_to_paho_3_1_1_at_every_qos() {
    all_qos_between(4, 4);
}

#[test]
fn paho_5_to_paho_3_1_1_at_every_qos() {
    all_qos_between(5, 4);
}

#[test]
fn what_a_publisher_says_about_a_message_arrives_with_it() {
    let broker = Tidegate::broker("node1");
    let mut receiver = Paho::connected(broker.mqtt(), "receiver", 5);
    receiver.subscribe("ask/#", 1);
    let mut sender = Paho::connected(broker.mqtt(), "sender", 5);
    // Unaltered and in their order: [MQTT-3.3.2-4], [MQTT-3.3.2-15], [MQTT-3.3.2-16], [MQTT-3.3.2-17], [MQTT-3.3.2-18],
    // [MQTT-3.3.2-20].
    let properties = json!({
        "PayloadFormatIndicator": 1, "ContentType": "text/plain", "ResponseTopic": "answer/7",
        "CorrelationData": "42", "UserProperty": [["a", "1"], ["b", "2"], ["a", "3"]],
    });
    sender.publish("ask/time", "now?", 1, &json!({"properties": properties}));
    assert_eq!(receiver.message().properties, properties);
}

#[test]
fn a_retained_message_waits_for_its_subscribers_until_it_is_cleared() {
    let broker = Tidegate::broker("node1");
    let at = broker.mqtt();
    publish(at, &["-t", "plant/1/limits", "-m", "90", "-r", "-q", "1"]);
    publish(at, &["-t", "plant/2/limits", "-m", "70", "-r", "-q", "1", "-V", "5"]);
    publish(at, &["-t", "plant/1/limits", "-m", "95", "-r", "-q", "1"]);

    let both = subscribe(at, &["-t", "plant/+/limits", "-C", "2", "-F", "%t %p %r", "-V", "5"]);
    // They come with the subscription [MQTT-3.3.1-9] and are marked (3.3.1.3).
    both.out.line_with(&["plant/1/limits 95 1"]);
    both.out.line_with(&["plant/2/limits 70 1"]);
    assert_eq!(broker.metric("tidegate_broker_retained_messages"), 2.0);

    // An empty payload takes it away [MQTT-3.3.1-6].
    publish(at, &["-t", "plant/1/limits", "-n", "-r", "-q", "1"]);
    let mut late = Paho::connected(at, "late", 4);
    late.subscribe("plant/#", 1);
    assert_eq!(late.message().topic, "plant/2/limits");
    publish(at, &["-t", "plant/3/limits", "-m", "60", "-r", "-q", "1"]);
    let live = late.message();
    // One that arrives while it is subscribed is not marked [MQTT-3.3.1-12].
    assert_eq!((live.topic.as_str(), live.retain), ("plant/3/limits", false));
    assert_eq!(broker.rest.nodes().expect("an answer").data[0].retained, 2);
}

/// [v3 MQTT-4.7.2-1]
#[test]
fn wildcards_match_as_specified_and_never_topics_that_begin_with_a_dollar() {
    let broker = Tidegate::broker("node1");
    let mut all = Device::connect(broker.mqtt(), &device::connect(Version::V5, "all"));
    let mut plus = Device::connect(broker.mqtt(), &device::connect(Version::V5, "plus"));
    let mut exact = Device::connect(broker.mqtt(), &device::connect(Version::V311, "dollar"));
    all.subscribe("#", QoS::AtMostOnce);
    plus.subscribe("+/monitor/+", QoS::AtMostOnce);
    exact.subscribe("$vendor/monitor/#", QoS::AtMostOnce);
    let mut sender = Device::connect(broker.mqtt(), &device::connect(Version::V311, "sender"));
    let one = QoS::AtLeastOnce;
    for topic in ["$vendor/monitor/clients", "a/monitor/b", "/monitor/", "a/monitor", "räum"] {
        sender.publish(device::message(topic, topic, one));
    }
    // No # and no + at the beginning matches $ [MQTT-4.7.2-1].
    for topic in ["a/monitor/b", "/monitor/", "a/monitor", "räum"] {
        assert_eq!(all.message().topic, topic);
    }
    all.nothing_more();
    for topic in ["a/monitor/b", "/monitor/"] {
        assert_eq!(plus.message().topic, topic);
    }
    plus.nothing_more();
    assert_eq!(exact.message().topic, "$vendor/monitor/clients");
    exact.nothing_more();
}

#[test]
fn ten_thousand_messages_arrive_once_and_in_order_at_every_qos() {
    let broker = Tidegate::broker("node1");
    let lines: String = (0..10_000).map(|number| format!("{number}\n")).collect();
    for qos in ["0", "1", "2"] {
        let topic = format!("stream/{qos}");
        let mut receiver = subscribe(broker.mqtt(), &["-t", &topic, "-q", qos, "-C", "10000", "-F", "%p"]);
        publish_input(broker.mqtt(), &["-t", &topic, "-q", qos, "-l"], lines.as_bytes());
        assert!(receiver.end().success());
        let said = receiver.out.to_end();
        let numbers = said.iter().filter_map(|line| line.parse::<u32>().ok());
        assert!(numbers.eq(0..10_000), "QoS {qos}");
    }
}

#[test]
fn a_large_payload_of_any_bytes_passes_unchanged() {
    let broker = Tidegate::broker("node1");
    let bytes: Vec<u8> = (0..900_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let mut receiver = Device::connect(broker.mqtt(), &device::connect(Version::V5, "receiver"));
    receiver.subscribe("firmware/+", QoS::ExactlyOnce);
    publish_input(broker.mqtt(), &["-t", "firmware/7", "-q", "2", "-s", "-V", "5"], &bytes);
    assert!(*receiver.message().payload == bytes);
}
