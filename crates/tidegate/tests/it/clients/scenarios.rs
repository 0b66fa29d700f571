//! What every client must be able to do with the broker.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::process::Command;

use serde_json::{Value, json};

use super::rumqttc;
use crate::harness::address::{MQTT_2, at};
use crate::harness::{Driver, Paho, Site, Tidegate};

const GMQTT: &str = include_str!("../harness/gmqtt_client.py");
const MQTTJS: &str = include_str!("../harness/mqttjs_client.js");

/// Messages of one burst: less than the broker's Receive Maximum, so that clients that do not look at it pass.
const BURST: usize = 20;

/// Who made the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Make {
    Paho,
    /// Makes identifiers up by itself, tells no Reason Codes of PUBACK and PUBCOMP, speaks over TCP only.
    Gmqtt,
    /// Gathers User Properties of one name.
    MqttJs,
    /// Over TCP only: with its WebSocket come a second tungstenite and a TLS that we don't build with. It does not know 3.1.
    Rumqttc,
}

/// One make in one version over one transport, and a broker for it.
pub(super) struct Stage {
    make: Make,
    protocol: u8,
    transport: &'static str,
    broker: Tidegate,
    /// Processes whose client has said good-bye, for the next one: Node.js takes its time to start.
    idle: RefCell<Vec<Driver>>,
}

impl Stage {
    /// `protocol` is 3, 4 or 5, `transport` is `tcp` or `websockets`.
    pub(super) fn new(make: Make, protocol: u8, transport: &'static str) -> Self {
        let site = Site::new("node1");
        let ws = at(site.address, MQTT_2);
        let section = format!("\n[[broker.listeners]]\nbind = \"{ws}\"\ntransport = \"ws\"");
        let broker = site.broker("", &section).start();
        Self { make, protocol, transport, broker, idle: RefCell::default() }
    }

    /// Every scenario that the client has a part in.
    pub(super) fn play(&self) {
        self.messages_arrive_once_in_order_at_every_qos();
        self.retained_messages_wait();
        self.a_session_is_resumed();
        self.a_will_is_published();
        self.messages_are_shared();
        self.a_takeover_is_told();
        self.an_identifier_is_assigned();
        if self.protocol == 5 {
            self.properties_arrive_as_they_were_sent();
            self.aliases_stand_for_topics();
            self.reasons_are_told();
        }
    }

    fn to(&self) -> SocketAddr {
        if self.transport == "tcp" { self.broker.mqtt() } else { at(self.broker.site.address, MQTT_2) }
    }

    /// A client that is not connected yet.
    #[track_caller]
    fn client(&self, clientid: &str, clean: bool) -> Driver {
        let name = format!("{:?} {clientid}", self.make);
        let (protocol, clean_word) = (self.protocol.to_string(), clean.to_string());
        let arguments = [clientid, &protocol, &clean_word, self.transport];
        match self.make {
            Make::Paho => Paho::over(self.transport, clientid, self.protocol, clean),
            Make::Gmqtt => {
                Driver::process(&name, Command::new("python3").args(["-u", "-c", GMQTT]).args(arguments))
            }
            Make::MqttJs => {
                let mut client = self.idle.borrow_mut().pop().unwrap_or_else(|| {
                    let mut node = Command::new("node-with-mqtt");
                    Driver::process("MqttJs", node.args(["-e", MQTTJS, "--", &protocol, self.transport]))
                });
                client.rename(clientid, clean);
                client
            }
            Make::Rumqttc => rumqttc::client(&name, clientid, self.protocol, clean),
        }
    }

    /// A connected client whose session ends with it.
    #[track_caller]
    fn join(&self, clientid: &str) -> Driver {
        let mut client = self.client(clientid, true);
        let connected = client.connect(self.to(), &json!({}));
        assert_eq!(connected["reason"], 0, "{connected}");
        assert_eq!(connected["session_present"], false, "{connected}");
        client
    }

    /// The client says good-bye.
    #[track_caller]
    fn leave(&self, mut client: Driver) {
        client.disconnect();
        if self.make == Make::MqttJs {
            self.idle.borrow_mut().push(client);
        }
    }

    /// A connected client whose session is kept, and whether there was one.
    #[track_caller]
    fn resume(&self, clientid: &str) -> (Driver, bool) {
        let mut client = self.client(clientid, false);
        let properties = if self.protocol == 5 { json!({"SessionExpiryInterval": 300}) } else { json!({}) };
        let connected = client.connect(self.to(), &json!({"properties": properties}));
        assert_eq!(connected["reason"], 0, "{connected}");
        (client, connected["session_present"] == true)
    }

    fn messages_arrive_once_in_order_at_every_qos(&self) {
        let mut sub = self.join("sub");
        let mut publisher = self.join("pub");
        for qos in 0..=2 {
            assert_eq!(sub.subscribe(&format!("order/{qos}/+"), qos), u64::from(qos));
            for n in 0..BURST {
                publisher.begin_publish(&format!("order/{qos}/x"), &n.to_string(), qos, &json!({}));
            }
            for n in 0..BURST {
                publisher.wait("published");
                let message = sub.message();
                assert_eq!((message.payload, message.qos, message.retain), (n.to_string(), qos, false));
            }
        }
        let large = "x".repeat(200_000);
        publisher.publish("order/1/x", &large, 1, &json!({}));
        assert_eq!(sub.message().payload.len(), large.len());
        // what comes after UNSUBACK would be this message, not the next one
        sub.unsubscribe("order/1/+");
        publisher.publish("order/1/x", "unwanted", 1, &json!({}));
        publisher.publish("order/2/x", "wanted", 2, &json!({}));
        assert_eq!(sub.message().payload, "wanted");
        self.leave(sub);
        self.leave(publisher);
    }

    fn retained_messages_wait(&self) {
        let mut publisher = self.join("pub");
        publisher.publish("kept", "still here", 1, &json!({"retain": true}));
        let mut sub = self.join("sub");
        sub.subscribe("kept", 1);
        let message = sub.message();
        assert_eq!((&*message.payload, message.retain), ("still here", true));
        publisher.publish("kept", "", 1, &json!({"retain": true}));
        let message = sub.message();
        assert_eq!((&*message.payload, message.retain), ("", false));
        self.leave(sub);
        let mut late = self.join("late");
        late.subscribe("kept", 1);
        publisher.publish("kept", "live", 0, &json!({}));
        assert_eq!(late.message().payload, "live");
        self.leave(late);
        self.leave(publisher);
    }

    fn a_session_is_resumed(&self) {
        let (mut sub, present) = self.resume("lasting");
        assert!(!present);
        sub.subscribe("away/#", 2);
        self.leave(sub);
        let mut publisher = self.join("pub");
        for n in 0..BURST {
            // first all of QoS 1, then all of QoS 2, which paho hands over when it is released
            let qos = if n < BURST / 2 { 1 } else { 2 };
            publisher.publish("away/x", &n.to_string(), qos, &json!({}));
        }
        self.leave(publisher);
        let (mut sub, present) = self.resume("lasting");
        // version 3.1 has no Session Present
        assert_eq!(present, self.protocol > 3);
        for n in 0..BURST {
            assert_eq!(sub.message().payload, n.to_string());
        }
        self.leave(sub);
    }

    fn a_will_is_published(&self) {
        let mut watcher = self.join("watcher");
        watcher.subscribe("gone/+", 1);
        let will = |topic| json!({"will": {"topic": topic, "payload": "gone", "qos": 1, "retain": false}});
        let mut polite = self.client("polite", true);
        polite.connect(self.to(), &will("gone/polite"));
        self.leave(polite);
        let mut doomed = self.client("doomed", true);
        doomed.connect(self.to(), &will("gone/doomed"));
        doomed.kill();
        let message = watcher.message();
        assert_eq!((&*message.topic, &*message.payload), ("gone/doomed", "gone"));
        self.leave(watcher);
    }

    fn messages_are_shared(&self) {
        let mut members = [self.join("member-1"), self.join("member-2")];
        for member in &mut members {
            member.subscribe("$share/crew/work", 1);
            member.subscribe("over", 1);
        }
        let mut publisher = self.join("pub");
        for n in 0..BURST {
            publisher.publish("work", &n.to_string(), 1, &json!({}));
        }
        publisher.publish("over", "over", 1, &json!({}));
        let mut got = Vec::new();
        for mut member in members {
            loop {
                let message = member.message();
                if message.topic == "over" {
                    break;
                }
                got.push(message.payload.parse::<usize>().expect("a number"));
            }
            self.leave(member);
        }
        self.leave(publisher);
        got.sort_unstable();
        assert_eq!(got, (0..BURST).collect::<Vec<_>>());
    }

    fn a_takeover_is_told(&self) {
        let before = self.join("twin");
        let mut after = self.join("twin");
        let end = before.wait("disconnected");
        // rumqttc 0.25 waits for properties behind the Reason Code, which a DISCONNECT may leave out (3.14.2.2.1)
        if self.protocol == 5 && self.make != Make::Rumqttc {
            // [MQTT-3.1.4-3]
            assert_eq!(end["reason"], 0x8E, "{end}");
        }
        assert_eq!(after.subscribe("anything", 1), 1);
        self.leave(after);
    }

    fn an_identifier_is_assigned(&self) {
        if self.make == Make::Gmqtt || self.protocol == 3 {
            return;
        }
        let mut nobody = self.client("", true);
        let connected = nobody.connect(self.to(), &json!({}));
        assert_eq!(connected["reason"], 0, "{connected}");
        if self.protocol == 5 {
            let assigned = connected["properties"]["AssignedClientIdentifier"].as_str();
            assert!(assigned.is_some_and(|id| !id.is_empty()), "{connected}");
        }
        self.leave(nobody);
    }

    fn properties_arrive_as_they_were_sent(&self) {
        let mut sub = self.join("sub");
        sub.subscribe_with("told/#", 1, &json!({"properties": {"SubscriptionIdentifier": 7}}));
        sub.subscribe_with("told/+", 1, &json!({"properties": {"SubscriptionIdentifier": 1_000}}));
        let user = match self.make {
            Make::MqttJs => json!([["b", "1"], ["a", "2"], ["c", "3"]]),
            _ => json!([["b", "1"], ["a", "2"], ["b", "3"]]),
        };
        let mut sent = json!({
            "ContentType": "text/plain",
            "ResponseTopic": "answers/here",
            "CorrelationData": "request-9",
            "UserProperty": user,
        });
        let mut publisher = self.join("pub");
        sent["MessageExpiryInterval"] = json!(60);
        publisher.publish("told/x", "question", 1, &json!({"properties": sent}));
        let message = sub.message();
        let got = &message.properties;
        for name in ["ContentType", "ResponseTopic", "CorrelationData", "UserProperty"] {
            assert_eq!(got[name], sent[name], "{got}");
        }
        let left = got["MessageExpiryInterval"].as_u64().expect("what is left");
        assert!((50..=60).contains(&left), "{left}");
        let mut identifiers: Vec<_> = got["SubscriptionIdentifier"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_u64)
            .collect();
        identifiers.sort_unstable();
        assert_eq!(identifiers, [7, 1_000], "{got}");
        self.leave(sub);
        self.leave(publisher);
    }

    fn aliases_stand_for_topics(&self) {
        let mut publisher = self.join("pub");
        let mut sub = self.client("sub", true);
        // paho and rumqttc hand on the empty topic of an alias as it comes: they get none
        let takes_aliases = matches!(self.make, Make::Gmqtt | Make::MqttJs);
        let properties = if takes_aliases { json!({"TopicAliasMaximum": 5}) } else { json!({}) };
        sub.connect(self.to(), &json!({"properties": properties}));
        sub.subscribe("a/long/topic/with/an/alias", 1);
        let alias = json!({"properties": {"TopicAlias": 1}});
        for n in 0..4 {
            // MQTT.js leaves the topic out by itself
            let topic = if n == 0 || self.make == Make::MqttJs { "a/long/topic/with/an/alias" } else { "" };
            publisher.publish(topic, &n.to_string(), 1, &alias);
            let message = sub.message();
            assert_eq!((&*message.topic, message.payload), ("a/long/topic/with/an/alias", n.to_string()));
        }
        self.leave(sub);
        self.leave(publisher);
    }

    fn reasons_are_told(&self) {
        let mut publisher = self.join("pub");
        let nobody = publisher.publish("nobody/listens", "x", 1, &json!({}));
        let refused = publisher.publish("$SYS/broker/x", "x", 1, &json!({}));
        if self.make != Make::Gmqtt {
            assert_eq!(nobody["reason"], 0x10, "{nobody}");
            assert_eq!(refused["reason"], 0x87, "{refused}");
        }
        self.leave(publisher);
    }
}
