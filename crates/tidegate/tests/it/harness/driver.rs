//! A client of another make that a test leads: it takes commands and tells what happened, one JSON object each.
//!
//! All makes speak the same words (those of `paho_client.py`), so that one scenario runs with each. A client in Python or
//! JavaScript is a process of its own; one in Rust is a thread.

use std::cell::Cell;
use std::io::Write;
use std::net::SocketAddr;
use std::process::{ChildStdin, Command, Stdio};
use std::sync::mpsc::Receiver;

use serde_json::{Value, json};

use super::process::Process;
use super::wait::DEADLINE;

/// A client.
pub(crate) struct Driver {
    name: String,
    /// Goes with every `connect`.
    identity: Value,
    backend: Backend,
}

enum Backend {
    Process {
        process: Process,
        input: ChildStdin,
        /// Lines already taken.
        read: Cell<usize>,
    },
    Thread {
        /// The client dies without a word when this is dropped.
        commands: tokio::sync::mpsc::Sender<Value>,
        events: Receiver<Value>,
    },
}

/// A message as the client gives it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Message {
    pub(crate) topic: String,
    pub(crate) payload: String,
    pub(crate) qos: u8,
    pub(crate) retain: bool,
    pub(crate) properties: Value,
}

impl Driver {
    /// Starts the program that is the client.
    #[track_caller]
    pub(crate) fn process(name: &str, command: &mut Command) -> Self {
        let mut process = Process::start_with(name, command.stdin(Stdio::piped()));
        let input = process.input();
        let backend = Backend::Process { process, input, read: Cell::new(0) };
        let driver = Self { name: name.to_owned(), identity: json!({}), backend };
        driver.wait("ready");
        driver
    }

    /// The client is a thread that reads the commands until there are no more.
    pub(crate) fn thread(
        name: &str,
        commands: tokio::sync::mpsc::Sender<Value>,
        events: Receiver<Value>,
    ) -> Self {
        let backend = Backend::Thread { commands, events };
        Self { name: name.to_owned(), identity: json!({}), backend }
    }

    /// Its next connection is another client's: for drivers that take their identity from `connect`.
    pub(crate) fn rename(&mut self, clientid: &str, clean: bool) {
        self.identity = json!({"client_id": clientid, "clean": clean});
    }

    /// Connects, with `keepalive`, `will` and `properties` where they are given; what CONNACK said.
    #[track_caller]
    pub(crate) fn connect(&mut self, to: SocketAddr, options: &Value) -> Value {
        let mut command =
            json!({"do": "connect", "host": to.ip().to_string(), "port": to.port(), "keepalive": 60});
        merge(&mut command, &self.identity);
        merge(&mut command, options);
        self.tell(&command);
        self.wait("connected")
    }

    /// Subscribes; what was granted.
    #[track_caller]
    pub(crate) fn subscribe(&mut self, filter: &str, qos: u8) -> u64 {
        self.subscribe_with(filter, qos, &json!({}))
    }

    /// The same with `properties`.
    #[track_caller]
    pub(crate) fn subscribe_with(&mut self, filter: &str, qos: u8, options: &Value) -> u64 {
        let mut command = json!({"do": "subscribe", "filter": filter, "qos": qos});
        merge(&mut command, options);
        self.tell(&command);
        self.wait("subscribed")["reasons"][0].as_u64().expect("a reason")
    }

    /// Gives a filter back and waits for the answer.
    #[track_caller]
    pub(crate) fn unsubscribe(&mut self, filter: &str) {
        self.tell(&json!({"do": "unsubscribe", "filter": filter}));
        self.wait("unsubscribed");
    }

    /// Publishes and waits until it is acknowledged; what was said of it.
    #[track_caller]
    pub(crate) fn publish(&mut self, topic: &str, payload: &str, qos: u8, options: &Value) -> Value {
        self.begin_publish(topic, payload, qos, options);
        self.wait("published")
    }

    /// Publishes; the event `published` follows.
    pub(crate) fn begin_publish(&mut self, topic: &str, payload: &str, qos: u8, options: &Value) {
        let mut command = json!({"do": "publish", "topic": topic, "payload": payload, "qos": qos});
        merge(&mut command, options);
        self.tell(&command);
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
            let event = self.event(name);
            if event["event"] == name {
                return event;
            }
            assert_ne!(event["event"], "error", "{event}");
            let expected =
                event["event"] == "disconnected" && name != "message" || event["event"] == "message";
            assert!(expected, "{}: {event} instead of {name}", self.name);
        }
    }

    #[track_caller]
    fn event(&self, name: &str) -> Value {
        match &self.backend {
            Backend::Process { process, read, .. } => {
                let what = format!("{}'s event {name}", self.name);
                let (number, line) = process.out.find(&what, read.get(), |_| true);
                read.set(number + 1);
                serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"))
            }
            Backend::Thread { events, .. } => match events.recv_timeout(DEADLINE) {
                Ok(event) => event,
                Err(error) => panic!("{}'s event {name}: {error}", self.name),
            },
        }
    }

    /// A client that dies without a word.
    pub(crate) fn kill(self) {
        match self.backend {
            Backend::Process { mut process, .. } => process.kill(),
            Backend::Thread { commands, .. } => drop(commands),
        }
    }

    fn tell(&mut self, command: &Value) {
        match &mut self.backend {
            Backend::Process { input, .. } => {
                writeln!(input, "{command}").expect("the client reads its commands");
            }
            Backend::Thread { commands, .. } => {
                commands.blocking_send(command.clone()).expect("the client reads its commands");
            }
        }
    }
}

fn merge(command: &mut Value, options: &Value) {
    for (name, value) in options.as_object().into_iter().flatten() {
        command[name] = value.clone();
    }
}
