//! The way of a client from SYN to ready, and its end.

use std::io;

use mqtt::codec::encode::encode;
use mqtt::inflight::Outbound;
use mqtt::packet::{Connack, Packet, Suback, Subscribe, SubscribeFilter, SubscriptionOptions};
use mqtt::{PacketId, QoS};

use super::generator::{Generator, Link, Role, Stage};
use super::schedule::Schedule;
use super::traffic::{Publisher, Subscriber};
use super::wire::Wire;

/// How long a client may take from SYN to ready, nanoseconds.
const PATIENCE: u64 = 20_000_000_000;

/// A stable name for what the network said.
pub(crate) fn reason(error: &io::Error) -> String {
    use io::ErrorKind::{
        AddrNotAvailable, ConnectionRefused, ConnectionReset, HostUnreachable, InvalidData,
        NetworkUnreachable, TimedOut,
    };
    match error.kind() {
        ConnectionRefused => "refused",
        ConnectionReset => "reset",
        TimedOut => "timed_out",
        AddrNotAvailable => "no_port_or_address",
        HostUnreachable | NetworkUnreachable => "unreachable",
        InvalidData => "protocol",
        io::ErrorKind::Unsupported => "websocket_refused",
        // EMFILE and ENFILE: the limit of this process or of the machine.
        _ if matches!(error.raw_os_error(), Some(23 | 24)) => "no_descriptor",
        io::ErrorKind::BrokenPipe => "closed",
        _ => return format!("{:?}", error.kind()).to_lowercase(),
    }
    .to_owned()
}

impl Generator {
    /// Begins the connections whose time has come.
    pub(super) fn dial(&mut self, now: u64) {
        if let Some(dials) = &mut self.dials {
            let all = self.job.clients.len();
            while self.dials_due < all && dials.pop_due(now).is_some() {
                self.dials_due += 1;
            }
        } else {
            self.dials_due = self.job.clients.len();
        }
        while self.may_dial() {
            self.begin_connection(now);
        }
    }

    /// Whether a connection may begin now.
    pub(super) fn may_dial(&self) -> bool {
        self.links.len() < self.dials_due && self.under_way < self.job.at_once
    }

    /// When the next connection is due, if that is a matter of time.
    pub(super) fn next_dial(&self) -> Option<u64> {
        let left = self.dials_due < self.job.clients.len();
        self.dials.as_ref().filter(|_| left).and_then(Schedule::next)
    }

    fn begin_connection(&mut self, now: u64) {
        let index = self.links.len();
        let Some(&(number, role)) = self.job.clients.get(index) else { return };
        let intended = match &self.dials {
            Some(dials) => dials.intended(self.job.thread as u64, index as u64),
            None => now,
        };
        let place = match (role, &self.job.traffic) {
            (Role::Publisher(number), Some(traffic)) => {
                self.publishers.push(Publisher::new(index, number, traffic, self.job.target.version));
                self.publishers.len() - 1
            }
            (Role::Subscriber(number), Some(traffic)) => {
                self.subscribers.push(Subscriber::new(number, &traffic.plan));
                self.subscribers.len() - 1
            }
            _ => 0,
        };
        let connections = &mut self.outcome.connections;
        connections.late.add(now.saturating_sub(intended));
        let begun = connections.span.get_or_insert(intended..now);
        begun.start = begun.start.min(intended);
        let (from, to) = (self.job.target.source(number), self.job.target.server(number));
        let websocket = self.job.target.websocket.then(|| to.to_string());
        let opened = Wire::open(from, to, websocket.as_deref(), self.poll_registry(), mio::Token(index));
        let (wire, error) = match opened {
            Ok(wire) => (Some(wire), None),
            Err(error) => (None, Some(error)),
        };
        let stage = Stage::Dialing;
        self.links.push(Link::new(wire, stage, role, place, intended));
        self.under_way += 1;
        self.waiting.push_back((index, now));
        if let Some(error) = error {
            self.over(index, &reason(&error));
        }
    }

    /// TCP is there, or will never be.
    pub(super) fn opened(&mut self, index: usize) {
        let now = self.now();
        let Some(link) = self.links.get_mut(index) else { return };
        let Some(wire) = &mut link.wire else { return };
        match wire.is_connected() {
            Ok(false) => return,
            Ok(true) => {}
            Err(error) => return self.over(index, &reason(&error)),
        }
        self.outcome.connections.tcp.add(now.saturating_sub(link.intended));
        link.stage = Stage::Connecting;
        let (number, role) = self.job.clients.get(index).copied().unwrap_or((0, Role::Idle));
        let packet = Packet::Connect(Box::new(self.job.target.connect(number, role)));
        if let Err(error) = encode(&packet, self.job.target.version, &mut wire.out) {
            // The flags were checked with a client id of the same length.
            return self.over(index, &format!("options: {error}"));
        }
        self.mark(index);
    }

    /// The server's answer to CONNECT.
    pub(super) fn connack(&mut self, index: usize, connack: &Connack<'_>, now: u64) {
        if connack.reason.is_error() {
            return self.over(index, &format!("connack_{}", connack.reason.name()));
        }
        let Some(link) = self.links.get_mut(index) else { return };
        self.outcome.connections.latency.add(now.saturating_sub(link.intended));
        let seconds = connack.properties.server_keep_alive.unwrap_or(self.job.target.keep_alive);
        link.keep_alive = u64::from(seconds) * 1_000_000_000;
        let role = link.role;
        match (role, self.job.traffic.clone()) {
            (Role::Publisher(_), Some(traffic)) => {
                let most = connack.properties.maximum_qos.unwrap_or(QoS::ExactlyOnce);
                if traffic.qos > most {
                    return self.over(index, "connack_maximum_qos");
                }
                let theirs = connack.properties.receive_maximum.unwrap_or(u16::MAX);
                if let Some(publisher) = self.publishers.get_mut(link.place) {
                    let inflight = traffic.inflight.min(theirs);
                    publisher.outbound = Outbound::new(inflight);
                    if traffic.qos > QoS::AtMostOnce {
                        publisher.flow.limit_inflight(inflight.into());
                    }
                }
                self.ready(index, now);
            }
            (Role::Subscriber(number), Some(traffic)) => {
                link.stage = Stage::Subscribing;
                let options = SubscriptionOptions { qos: traffic.qos, ..SubscriptionOptions::default() };
                let filter = SubscribeFilter { filter: traffic.plan.filter(number).into(), options };
                let packet = Packet::Subscribe(Subscribe {
                    packet_id: PacketId::MIN,
                    subscription_identifier: None,
                    user_properties: Vec::new(),
                    filters: vec![filter],
                });
                if let Some(wire) = &mut link.wire
                    && let Err(error) = encode(&packet, self.job.target.version, &mut wire.out)
                {
                    return self.over(index, &format!("options: {error}"));
                }
                self.mark(index);
            }
            _ => self.ready(index, now),
        }
    }

    /// The server's answer to SUBSCRIBE.
    pub(super) fn suback(&mut self, index: usize, suback: &Suback<'_>, now: u64) {
        let Some(reason) = suback.reasons.first() else { return self.over(index, "protocol_empty_suback") };
        if reason.is_error() {
            return self.over(index, &format!("suback_{}", reason.name()));
        }
        let wanted = self.job.traffic.as_ref().map_or(0, |traffic| traffic.qos as u8);
        if reason.value() < wanted {
            return self.over(index, &format!("suback_{}_only", reason.name()));
        }
        let place = self.links.get(index).map_or(0, |link| link.place);
        if let Some(subscriber) = self.subscribers.get_mut(place) {
            subscriber.was_ready = true;
        }
        self.ready(index, now);
    }

    fn ready(&mut self, index: usize, now: u64) {
        let Some(link) = self.links.get_mut(index) else { return };
        link.stage = Stage::Ready;
        self.under_way -= 1;
        self.totals.ready += 1;
        let connections = &mut self.outcome.connections;
        connections.ready += 1;
        if let Some(span) = &mut connections.span {
            span.end = span.end.max(now);
        }
    }

    /// The connection is over: before the client was ready that is a failure, later a loss.
    pub(super) fn over(&mut self, index: usize, reason: &str) {
        let Some(link) = self.links.get_mut(index) else { return };
        let before = std::mem::replace(&mut link.stage, Stage::Over);
        link.wire = None;
        let (role, place) = (link.role, link.place);
        let connections = &mut self.outcome.connections;
        match before {
            Stage::Over => return,
            Stage::Ready => {
                self.totals.lost += 1;
                self.totals.ready -= 1;
                *connections.lost.entry(reason.to_owned()).or_default() += 1;
            }
            Stage::Dialing | Stage::Connecting | Stage::Subscribing => {
                self.under_way -= 1;
                self.totals.failed += 1;
                *connections.failures.entry(reason.to_owned()).or_default() += 1;
                connections.failed_publishers += u64::from(matches!(role, Role::Publisher(_)));
                connections.failed_subscribers += u64::from(matches!(role, Role::Subscriber(_)));
            }
        }
        if let (Role::Publisher(_), Some(publisher)) = (role, self.publishers.get_mut(place)) {
            publisher.gone = true;
            self.totals.unacknowledged -= publisher.outbound.len() as u64;
        }
    }

    /// Ends connections that took too long to become ready.
    pub(super) fn give_up_waiting(&mut self, now: u64) {
        while let Some(&(index, began)) = self.waiting.front() {
            let waits =
                self.links.get(index).is_some_and(|link| !matches!(link.stage, Stage::Ready | Stage::Over));
            if waits && now.saturating_sub(began) < PATIENCE {
                break;
            }
            self.waiting.pop_front();
            if waits {
                self.over(index, "timed_out");
            }
        }
    }
}
