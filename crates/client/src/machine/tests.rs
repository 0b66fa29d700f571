mod behaviour;
mod clauses;
mod loss;
mod peer;

use std::time::{Duration, Instant};

use mqtt::{QoS, Version};
use runtime::clock::Clock;

use super::*;
use peer::Peer;

/// Options on a clock that only the test moves.
fn options(version: Version) -> Options {
    let (clock, _) = Clock::manual();
    Options {
        version,
        clean_start: false,
        session_expiry_interval: version.is_v5().then_some(3600),
        clock,
        ..Options::new("model:1883", "client")
    }
}

/// A machine and its peer with a wire between them that carries nothing by itself.
struct World {
    machine: Machine<usize>,
    peer: Peer,
    now: Instant,
    /// What the application got, in order.
    delivered: Vec<String>,
    connected: Vec<Connected>,
    /// In order: token and outcome.
    published: Vec<(usize, Result<ReasonCode, PublishError>)>,
    subscribed: Vec<(usize, Result<Granted, RequestError>)>,
}

impl World {
    fn new(options: Options) -> Self {
        let version = options.version;
        let now = options.clock.now();
        Self {
            machine: Machine::new(options),
            peer: Peer::new(version),
            now,
            delivered: Vec::new(),
            connected: Vec::new(),
            published: Vec::new(),
            subscribed: Vec::new(),
        }
    }

    /// Opens a connection, cutting the one before.
    fn connect(&mut self) {
        self.machine.lost(None);
        self.peer.lost();
        self.machine.start(self.now, self.now + Duration::from_secs(10));
    }

    /// A world whose connection is up.
    fn connected(options: Options) -> Self {
        let mut world = Self::new(options);
        world.connect();
        world.settle();
        assert!(world.machine.is_connected());
        world
    }

    fn drain(&mut self) {
        while let Some(event) = self.machine.poll_event() {
            match event {
                Event::Connected(connected) => self.connected.push(connected),
                Event::Message(received) => {
                    self.delivered.push(String::from_utf8(received.message.payload.to_vec()).unwrap());
                }
            }
        }
        while let Some(completion) = self.machine.poll_completion() {
            match completion {
                Completion::Published(token, result) => self.published.push((token, result)),
                Completion::Subscribed(token, result) => self.subscribed.push((token, result)),
                Completion::Unsubscribed(..) => {}
            }
        }
    }

    /// Carries at most `budget` bytes, `chunk` at a time, turn by turn in both directions; what is left of the budget.
    fn carry(&mut self, mut budget: usize, chunk: usize) -> usize {
        loop {
            self.drain();
            let len = self.machine.output().len().min(chunk).min(budget);
            let up = self.machine.output()[..len].to_vec();
            self.machine.written(len, self.now);
            self.peer.receive(&up);
            budget -= len;
            let down: Vec<u8> = {
                let len = self.peer.output.len().min(chunk).min(budget);
                self.peer.output.drain(..len).collect()
            };
            budget -= down.len();
            self.machine.receive(&down, self.now);
            if up.is_empty() && down.is_empty() {
                self.drain();
                return budget;
            }
        }
    }

    fn settle(&mut self) {
        self.carry(usize::MAX, usize::MAX);
    }

    fn publish(&mut self, payload: &str, qos: QoS, token: usize) {
        self.machine.publish(Message::new("to/peer", payload.to_owned()).qos(qos), token);
    }

    fn advance(&mut self, by: Duration) {
        self.now += by;
    }
}
