//! paho-mqtt, the client that most people's scripts are written with. Each one is a Python process that takes commands
//! and tells what happened, one JSON object a line.

use std::cell::Cell;
use std::io::Write;
use std::net::SocketAddr;
use std::process::{ChildStdin, Command, Stdio};

use serde_json::{Value, json};

use super::process::Process;

const SCRIPT: &str = include_str!("paho_client.py");

/// A client.
pub(crate) struct Paho {
    process: Process,
    input: ChildStdin,
    /// Lines already taken.
    read: Cell<usize>,
}

/// A message as paho gives it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Message {
    pub(crate) topic: String,
    pub(crate) payload: String,
    pub(crate) qos: u8,
    pub(crate) retain: bool,
    pub(crate) properties: Value,
}

impl Paho {
    /// A client that is not connected yet. `protocol` is 3, 4 or 5.
    #[track_caller]
    pub(crate) fn new(clientid: &str, protocol: u8, clean: bool) -> Self {
        Self::over("tcp", clientid, protocol, clean)
    }

    /// The same over `tcp` or `websockets`, at the path `/mqtt`.
    #[track_caller]
    pub(crate) fn over(transport: &str, clientid: &str, protocol: u8, clean: bool) -> Self {
        let mut command = Command::new("python3");
        let (protocol, clean) = (protocol.to_string(), clean.to_string());
        command.args(["-u", "-c", SCRIPT, clientid, &protocol, &clean, transport]);
        let mut process = Process::start_with(&format!("paho {clientid}"), command.stdin(Stdio::piped()));
        let input = process.input();
        let paho = Self { process, input, read: Cell::new(0) };
        paho.wait("ready");
        paho
    }

    /// A connected client with clean start.
    #[track_caller]
    pub(crate) fn connected(to: SocketAddr, clientid: &str, protocol: u8) -> Self {
        let mut paho = Self::new(clientid, protocol, true);
        let connected = paho.connect(to, &json!({}));
        assert_eq!(connected["reason"], 0, "{connected}");
        paho
    }

    /// Connects, with `keepalive`, `will` and `properties` where they are given; what CONNACK said.
    #[track_caller]
    pub(crate) fn connect(&mut self, to: SocketAddr, options: &Value) -> Value {
        let mut command =
            json!({"do": "connect", "host": to.ip().to_string(), "port": to.port(), "keepalive": 60});
        for (name, value) in options.as_object().into_iter().flatten() {
            command[name] = value.clone();
        }
        self.tell(&command);
        self.wait("connected")
    }

    /// Subscribes; what was granted.
    #[track_caller]
    pub(crate) fn subscribe(&mut self, filter: &str, qos: u8) -> u64 {
        self.tell(&json!({"do": "subscribe", "filter": filter, "qos": qos}));
        self.wait("subscribed")["reasons"][0].as_u64().expect("a reason")
    }

    /// Gives a filter back and waits for the answer.
    #[track_caller]
    pub(crate) fn unsubscribe(&mut self, filter: &str) {
        self.tell(&json!({"do": "unsubscribe", "filter": filter}));
        self.wait("unsubscribed");
    }

    /// Publishes and waits until it is acknowledged.
    #[track_caller]
    pub(crate) fn publish(&mut self, topic: &str, payload: &str, qos: u8, options: &Value) {
        let mut command = json!({"do": "publish", "topic": topic, "payload": payload, "qos": qos});
        for (name, value) in options.as_object().into_iter().flatten() {
            command[name] = value.clone();
        }
        self.tell(&command);
        self.wait("published");
    }

    /// The next message.
    #[track_caller]
    pub(crate) fn message(&mut self) -> Message {
        let event = self.wait("message");
        Message {
            topic: event["topic"].as_str().expect("a topic").to_owned(),
            payload: event["payload"].as_str().expect("a payload").to_owned(),
            qos: u8::try_from(event["qos"].as_u64().expect("a QoS")).expect("small"),
            retain: event["retain"].as_bool().expect("a flag"),
            properties: event["properties"].clone(),
        }
    }

    /// Says good-bye.
    #[track_caller]
    pub(crate) fn disconnect(&mut self) {
        self.tell(&json!({"do": "disconnect"}));
        self.wait("disconnected");
    }

    /// The next event of that name; messages that came before it are passed over, another end is not.
    #[track_caller]
    pub(crate) fn wait(&self, name: &str) -> Value {
        loop {
            let (number, line) =
                self.process.out.find(&format!("paho's event {name}"), self.read.get(), |_| true);
            let event: Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
            self.read.set(number + 1);
            if event["event"] == name {
                return event;
            }
            assert_ne!(event["event"], "error", "{event}");
            let expected =
                event["event"] == "disconnected" && name != "message" || event["event"] == "message";
            assert!(expected, "{event} instead of {name}");
        }
    }

    /// A client that dies without a word.
    pub(crate) fn kill(mut self) {
        self.process.kill();
    }

    fn tell(&mut self, command: &Value) {
        writeln!(self.input, "{command}").expect("paho reads its commands");
    }
}
