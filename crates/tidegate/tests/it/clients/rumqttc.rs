//! rumqttc, the client of most programs in Rust: a thread with a runtime of its own, which speaks the words of the other drivers.
//!
//! Its modules for 3.1.1 and 5 have the same names for different types, hence two of everything.

use std::sync::mpsc::{SyncSender, sync_channel};

use serde_json::{Value, json};
use tokio::sync::mpsc::{Receiver, channel};

use crate::harness::Driver;

/// Bytes of a packet that it may send and take; its own default is 10 KiB.
const PACKET: u32 = 1 << 20;
/// Commands and events that wait: more than a scenario has; whoever finds no room waits.
const QUEUE: usize = 10_000;
/// Requests that wait for its event loop.
const REQUESTS: usize = 100;

/// A client that is not connected yet. `protocol` is 4 or 5.
pub(super) fn client(name: &str, clientid: &str, protocol: u8, clean: bool) -> Driver {
    let (commands, receiver) = channel(QUEUE);
    let (sender, events) = sync_channel(QUEUE);
    let clientid = clientid.to_owned();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        // Its end drops the runtime and with it the socket: the client dies without a word.
        runtime.block_on(async {
            match protocol {
                4 => four::lead(receiver, sender, &clientid, clean).await,
                5 => five::lead(receiver, sender, &clientid, clean).await,
                other => panic!("rumqttc does not know protocol {other}"),
            }
        });
    });
    Driver::thread(name, commands, events)
}

/// The receiver may be gone: the test has seen enough.
fn tell(to: &SyncSender<Value>, event: Value) {
    let _ = to.send(event);
}

fn text<'a>(command: &'a Value, name: &str) -> &'a str {
    command[name].as_str().unwrap_or_default()
}

fn port(command: &Value) -> u16 {
    u16::try_from(command["port"].as_u64().expect("a port")).expect("a port")
}

mod four {
    use rumqttc::{
        AsyncClient, Event, EventLoop, LastWill, MqttOptions, Outgoing, Packet, QoS, SubscribeReasonCode, qos,
    };

    use super::*;

    fn level(command: &Value) -> QoS {
        qos(command["qos"].as_u64().unwrap_or(0) as u8).expect("0, 1 or 2")
    }

    pub(super) async fn lead(
        mut commands: Receiver<Value>,
        events: SyncSender<Value>,
        clientid: &str,
        clean: bool,
    ) {
        let mut connected = None;
        while let Some(command) = commands.recv().await {
            if command["do"] == "connect" {
                let mut options = MqttOptions::new(clientid, text(&command, "host"), port(&command));
                options.set_clean_session(clean).set_max_packet_size(PACKET as usize, PACKET as usize);
                let will = &command["will"];
                if will.is_object() {
                    let payload = text(will, "payload");
                    options.set_last_will(LastWill::new(text(will, "topic"), payload, level(will), false));
                }
                let (client, event_loop) = AsyncClient::new(options, REQUESTS);
                tokio::spawn(watch(event_loop, events.clone()));
                connected = Some(client);
                continue;
            }
            let client = connected.as_ref().expect("it was connected");
            let asked = match text(&command, "do") {
                "subscribe" => client.subscribe(text(&command, "filter"), level(&command)).await,
                "unsubscribe" => client.unsubscribe(text(&command, "filter")).await,
                "publish" => {
                    let (topic, payload) = (text(&command, "topic"), text(&command, "payload").to_owned());
                    client.publish(topic, level(&command), command["retain"] == true, payload).await
                }
                "disconnect" => client.disconnect().await,
                other => panic!("no command: {other}"),
            };
            asked.expect("the event loop takes requests");
        }
    }

    async fn watch(mut event_loop: EventLoop, events: SyncSender<Value>) {
        loop {
            let event = match event_loop.poll().await {
                Ok(Event::Incoming(Packet::ConnAck(connack))) => {
                    json!({"event": "connected", "reason": connack.code as u8, "session_present": connack.session_present})
                }
                Ok(Event::Incoming(Packet::SubAck(suback))) => {
                    let reason = |code: &SubscribeReasonCode| match code {
                        SubscribeReasonCode::Success(qos) => *qos as u8,
                        SubscribeReasonCode::Failure => 0x80,
                    };
                    json!({"event": "subscribed", "reasons": suback.return_codes.iter().map(reason).collect::<Vec<_>>()})
                }
                Ok(Event::Incoming(Packet::UnsubAck(_))) => json!({"event": "unsubscribed"}),
                Ok(Event::Incoming(Packet::PubAck(_) | Packet::PubComp(_)))
                | Ok(Event::Outgoing(Outgoing::Publish(0))) => json!({"event": "published", "reason": 0}),
                Ok(Event::Incoming(Packet::Publish(publish))) => json!({
                    "event": "message",
                    "topic": publish.topic,
                    "payload": String::from_utf8_lossy(&publish.payload),
                    "qos": publish.qos as u8,
                    "retain": publish.retain,
                }),
                Ok(_) => continue,
                Err(error) => {
                    return tell(&events, json!({"event": "disconnected", "why": error.to_string()}));
                }
            };
            tell(&events, event);
        }
    }
}

mod five {
    use rumqttc::Outgoing;
    use rumqttc::v5::mqttbytes::v5::{
        LastWill, Packet, PubAckReason, Publish, PublishProperties, SubscribeProperties, SubscribeReasonCode,
    };
    use rumqttc::v5::mqttbytes::{QoS, qos};
    use rumqttc::v5::{AsyncClient, Event, EventLoop, MqttOptions};

    use super::*;

    fn level(command: &Value) -> QoS {
        qos(command["qos"].as_u64().unwrap_or(0) as u8).expect("0, 1 or 2")
    }

    fn number(properties: &Value, name: &str) -> Option<u32> {
        properties[name].as_u64().and_then(|n| u32::try_from(n).ok())
    }

    pub(super) async fn lead(
        mut commands: Receiver<Value>,
        events: SyncSender<Value>,
        clientid: &str,
        clean: bool,
    ) {
        let mut connected = None;
        while let Some(command) = commands.recv().await {
            let properties = &command["properties"];
            if command["do"] == "connect" {
                let mut options = MqttOptions::new(clientid, text(&command, "host"), port(&command));
                options.set_clean_start(clean).set_max_packet_size(Some(PACKET));
                options.set_session_expiry_interval(number(properties, "SessionExpiryInterval"));
                let will = &command["will"];
                if will.is_object() {
                    let payload = text(will, "payload");
                    let will = LastWill::new(text(will, "topic"), payload, level(will), false, None);
                    options.set_last_will(will);
                }
                let (client, event_loop) = AsyncClient::new(options, REQUESTS);
                tokio::spawn(watch(event_loop, events.clone()));
                connected = Some(client);
                continue;
            }
            let client = connected.as_ref().expect("it was connected");
            let asked = match text(&command, "do") {
                "subscribe" => {
                    let id = number(properties, "SubscriptionIdentifier").map(|id| id as usize);
                    let with = SubscribeProperties { id, user_properties: Vec::new() };
                    client.subscribe_with_properties(text(&command, "filter"), level(&command), with).await
                }
                "unsubscribe" => client.unsubscribe(text(&command, "filter")).await,
                "publish" => {
                    let (topic, payload) = (text(&command, "topic"), text(&command, "payload").to_owned());
                    let (retain, with) = (command["retain"] == true, made(properties));
                    client.publish_with_properties(topic, level(&command), retain, payload, with).await
                }
                "disconnect" => client.disconnect().await,
                other => panic!("no command: {other}"),
            };
            asked.expect("the event loop takes requests");
        }
    }

    fn made(properties: &Value) -> PublishProperties {
        let word = |name: &str| properties[name].as_str().map(str::to_owned);
        let user = properties["UserProperty"].as_array().into_iter().flatten();
        PublishProperties {
            message_expiry_interval: number(properties, "MessageExpiryInterval"),
            topic_alias: number(properties, "TopicAlias").and_then(|alias| u16::try_from(alias).ok()),
            response_topic: word("ResponseTopic"),
            correlation_data: word("CorrelationData").map(Into::into),
            content_type: word("ContentType"),
            user_properties: user
                .map(|pair| {
                    let at = |n: usize| pair[n].as_str().unwrap_or_default().to_owned();
                    (at(0), at(1))
                })
                .collect(),
            ..PublishProperties::default()
        }
    }

    fn plain(publish: &Publish) -> Value {
        let Some(p) = &publish.properties else { return json!({}) };
        json!({
            "MessageExpiryInterval": p.message_expiry_interval,
            "ResponseTopic": p.response_topic,
            "CorrelationData": p.correlation_data.as_deref().map(String::from_utf8_lossy),
            "ContentType": p.content_type,
            "UserProperty": p.user_properties,
            "SubscriptionIdentifier": p.subscription_identifiers,
        })
    }

    async fn watch(mut event_loop: EventLoop, events: SyncSender<Value>) {
        loop {
            let event = match event_loop.poll().await {
                Ok(Event::Incoming(Packet::ConnAck(connack))) => {
                    let assigned = connack.properties.and_then(|p| p.assigned_client_identifier);
                    json!({
                        "event": "connected",
                        "reason": connack.code as u8,
                        "session_present": connack.session_present,
                        "properties": { "AssignedClientIdentifier": assigned },
                    })
                }
                Ok(Event::Incoming(Packet::SubAck(suback))) => {
                    let reason = |code: &SubscribeReasonCode| match code {
                        SubscribeReasonCode::Success(qos) => *qos as u8,
                        _ => 0x80,
                    };
                    json!({"event": "subscribed", "reasons": suback.return_codes.iter().map(reason).collect::<Vec<_>>()})
                }
                Ok(Event::Incoming(Packet::UnsubAck(_))) => json!({"event": "unsubscribed"}),
                Ok(Event::Incoming(Packet::PubAck(puback))) => {
                    let reason = match puback.reason {
                        PubAckReason::Success => 0,
                        PubAckReason::NoMatchingSubscribers => 0x10,
                        PubAckReason::NotAuthorized => 0x87,
                        _ => 0x80,
                    };
                    json!({"event": "published", "reason": reason})
                }
                Ok(Event::Incoming(Packet::PubComp(_)) | Event::Outgoing(Outgoing::Publish(0))) => {
                    json!({"event": "published", "reason": 0})
                }
                Ok(Event::Incoming(Packet::Publish(publish))) => json!({
                    "event": "message",
                    "topic": String::from_utf8_lossy(&publish.topic),
                    "payload": String::from_utf8_lossy(&publish.payload),
                    "qos": publish.qos as u8,
                    "retain": publish.retain,
                    "properties": plain(&publish),
                }),
                Ok(_) => continue,
                Err(error) => {
                    return tell(&events, json!({"event": "disconnected", "why": error.to_string()}));
                }
            };
            tell(&events, event);
        }
    }
}
