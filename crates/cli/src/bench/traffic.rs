//! What goes over the connections: messages out, messages in, and the books of both.

use std::ops::Range;
use std::sync::atomic::Ordering;

use mqtt::codec::encode::{self, PublishTemplate};
use mqtt::inflight::{Inbound, Outbound, Pubrec, Qos2};
use mqtt::packet::{Ack, Publish, PublishProperties};
use mqtt::{QoS, ReasonCode, Version};

use super::flow::{Flow, Room};
use super::generator::{Generator, Role, Stage, Traffic};
use super::outcome::Got;
use super::plan::Plan;
use super::schedule::Schedule;
use super::sequence::{Arrival, Sequence, Share};
use super::stamp::{self, Stamp};

/// Bytes that may wait in front of a socket before its publisher counts as held back.
const SOCKET_ROOM: usize = 256 * 1024;

/// Messages of one publisher in one turn.
const BURST: u64 = 512;

/// After so long without an arrival the window is given up, nanoseconds.
const STALL: u64 = 500_000_000;

/// After the end of the sending, what was due may still go out for so long, nanoseconds.
const GRACE: u64 = 1_000_000_000;

/// A publisher.
pub(super) struct Publisher {
    link: usize,
    pub(super) number: u32,
    pub(super) flow: Flow,
    /// With the intended time of each message.
    pub(super) outbound: Outbound<u64>,
    template: PublishTemplate,
    size: usize,
    queued: bool,
    pub(super) gone: bool,
    pub(super) refused: u64,
    /// Copies that arrived when we looked last, those given up, and when they became more.
    arrived: u64,
    given_up: u64,
    progressed: u64,
}

impl Publisher {
    pub(super) fn new(link: usize, number: u32, traffic: &Traffic, version: Version) -> Self {
        let plan = &traffic.plan;
        let flow = match traffic.rate {
            Some(_) => Flow::open(),
            None => {
                let publishers = u64::from(plan.publishers);
                let limit = traffic.count.map_or(u64::MAX, |count| {
                    count / publishers + u64::from(u64::from(number) < count % publishers)
                });
                let inflight =
                    if traffic.qos == QoS::AtMostOnce { u64::MAX } else { traffic.inflight.into() };
                Flow::closed(limit, traffic.window, plan.fan(), inflight)
            }
        };
        let payload = vec![b'x'; traffic.size];
        let (topic, properties) = (plan.topic(number), PublishProperties::default());
        let template =
            PublishTemplate::new(version, traffic.qos, false, traffic.retain, &topic, &properties, &payload);
        // The plan's topics are checked, and sizes are far below the protocol's.
        let template = template.unwrap_or_else(|error| unreachable!("a checked topic: {error}"));
        Self {
            link,
            number,
            flow,
            outbound: Outbound::new(traffic.inflight),
            template,
            size: traffic.size,
            queued: false,
            gone: false,
            refused: 0,
            arrived: 0,
            given_up: 0,
            progressed: 0,
        }
    }
}

/// A subscriber.
pub(super) struct Subscriber {
    pub(super) publishers: Range<u32>,
    pub(super) got: Got,
    inbound: Inbound,
    /// SUBACK came, so that messages are owed.
    pub(super) was_ready: bool,
}

impl Subscriber {
    pub(super) fn new(number: u32, plan: &Plan) -> Self {
        let publishers = plan.heard_by(number);
        let got = match plan.share {
            None => Got::Everything(vec![Sequence::default(); publishers.len()]),
            Some(_) => Got::Share(vec![Share::default(); publishers.len()]),
        };
        Self { publishers, got, inbound: Inbound::new(u16::MAX), was_ready: false }
    }
}

impl Generator {
    /// The run begins: its times are known now.
    pub(super) fn begin(&mut self) {
        let start = self.shared.start();
        let Some(traffic) = self.job.traffic.clone() else {
            self.sending = Some(start..start);
            return;
        };
        let nanos = |duration: std::time::Duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        let measured = start + nanos(traffic.warmup);
        let end = measured.saturating_add(nanos(traffic.duration));
        self.measured = measured..end;
        self.sending = Some(start..end);
        if let Some(rate) = traffic.rate {
            let whole = ((end - start) as f64 * rate / 1e9).ceil() as u64;
            let own = self.publishers.iter().map(|publisher| publisher.number.into()).collect();
            let count = traffic.count.unwrap_or(u64::MAX).min(whole);
            self.turns = Some(Schedule::new(rate, traffic.plan.publishers.into(), own, start, count));
        }
        for place in 0..self.publishers.len() {
            self.wake(place);
        }
    }

    /// Whether our publishers will send nothing more.
    pub(super) fn has_finished(&self) -> bool {
        let Some(sending) = &self.sending else { return false };
        let now = self.now();
        if self.publishers.is_empty() || now >= sending.end.saturating_add(GRACE) {
            return true;
        }
        let over = now >= sending.end || self.turns.as_ref().is_some_and(|turns| turns.next().is_none());
        let idle = |publisher: &Publisher| publisher.gone || publisher.flow.backlog() == 0;
        match self.turns {
            Some(_) => over && self.publishers.iter().all(idle),
            None => over || self.publishers.iter().all(idle),
        }
    }

    pub(super) fn wake(&mut self, place: usize) {
        if let Some(publisher) = self.publishers.get_mut(place)
            && !publisher.queued
        {
            publisher.queued = true;
            self.woken.push(place);
        }
    }

    /// The socket of a link took everything.
    pub(super) fn has_room(&mut self, index: usize) {
        let Some(link) = self.links.get(index) else { return };
        if let (Role::Publisher(_), place) = (link.role, link.place)
            && self.publishers.get(place).is_some_and(|publisher| publisher.flow.backlog() > 0)
        {
            self.wake(place);
        }
    }

    /// Lets publishers send what is due and what the server has room for.
    pub(super) fn send_due(&mut self, now: u64) {
        let Some(sending) = self.sending.clone() else { return };
        if now < sending.start {
            return;
        }
        if let Some(mut turns) = self.turns.take() {
            while let Some(place) = turns.pop_due(now.min(sending.end - 1)) {
                if let Some(publisher) = self.publishers.get_mut(place) {
                    publisher.flow.fall_due();
                }
                self.wake(place);
            }
            self.turns = Some(turns);
        }
        let end = if self.turns.is_some() { sending.end.saturating_add(GRACE) } else { sending.end };
        if now >= end {
            self.woken.clear();
            return;
        }
        for place in std::mem::take(&mut self.woken) {
            if let Some(publisher) = self.publishers.get_mut(place) {
                publisher.queued = false;
            }
            self.send(place, now);
        }
    }

    /// Lets one publisher send.
    fn send(&mut self, place: usize, now: u64) {
        let Some(traffic) = &self.job.traffic else { return };
        let Some(publisher) = self.publishers.get_mut(place) else { return };
        let Some(link) = self.links.get_mut(publisher.link) else { return };
        let Some(wire) = link.wire.as_mut().filter(|_| link.stage == Stage::Ready) else { return };
        if let Some(delivered) = self.shared.delivered.get(publisher.number as usize) {
            // Said before it is looked, so that what arrives in between is told.
            delivered.wanted.store(true, Ordering::SeqCst);
            let copies = delivered.copies.load(Ordering::SeqCst);
            if copies > publisher.arrived {
                publisher.arrived = copies;
                publisher.progressed = now;
            }
            publisher.flow.set_arrived(copies + publisher.given_up);
        }
        let waiting = wire.backlog();
        let len = publisher.template.len();
        let socket =
            if waiting == 0 { (SOCKET_ROOM / len).max(1) } else { SOCKET_ROOM.saturating_sub(waiting) / len };
        let unacknowledged = match traffic.qos {
            QoS::AtMostOnce => u64::MAX,
            _ => publisher.outbound.quota() as u64,
        };
        let room = Room { socket: socket as u64, unacknowledged };
        let allowed = publisher.flow.allowance(room, now);
        let count = allowed.min(BURST);
        let measured = self.measured.contains(&now);
        for _ in 0..count {
            let sequence = publisher.flow.sent();
            let intended = match &self.turns {
                Some(turns) => turns.intended(publisher.number.into(), sequence),
                None => now,
            };
            let id = publisher.outbound.begin(traffic.qos, intended);
            publisher.template.write(id, &mut wire.out);
            let payload = wire.out.len() - publisher.size;
            let stamp = Stamp { run: traffic.plan.run, publisher: publisher.number, sequence, intended };
            stamp.write(wire.out.get_mut(payload..).unwrap_or_default());
            self.outcome.messages.own_lateness.add(publisher.flow.own_lateness(intended, now));
            publisher.flow.send();
        }
        if count == 0 {
            return;
        }
        self.totals.sent += count;
        self.totals.unacknowledged += if traffic.qos == QoS::AtMostOnce { 0 } else { count };
        self.outcome.messages.sent_in_time += if measured { count } else { 0 };
        let link = publisher.link;
        if count < allowed {
            self.wake(place);
        }
        self.mark(link);
    }

    /// A window whose messages do not arrive is given up: they are lost, and the run goes on.
    pub(super) fn give_up_windows(&mut self, now: u64) {
        if self.shared.delivered.is_empty() || self.sending.as_ref().is_none_or(|sending| now < sending.start)
        {
            return;
        }
        for place in 0..self.publishers.len() {
            let Some(publisher) = self.publishers.get_mut(place) else { break };
            let copies = self
                .shared
                .delivered
                .get(publisher.number as usize)
                .map_or(0, |delivered| delivered.copies.load(Ordering::SeqCst));
            if copies > publisher.arrived || publisher.flow.under_way() == 0 || publisher.flow.backlog() == 0
            {
                publisher.arrived = copies;
                publisher.progressed = now;
                publisher.flow.set_arrived(copies + publisher.given_up);
            } else if now.saturating_sub(publisher.progressed) > STALL && !publisher.gone {
                publisher.given_up += publisher.flow.under_way();
                publisher.progressed = now;
                self.outcome.messages.stalls += 1;
            }
            self.wake(place);
        }
    }

    /// Tells the publishers, on whatever thread, how far their messages got.
    pub(super) fn tell_publishers(&mut self) {
        for number in std::mem::take(&mut self.touched) {
            let Some(fresh) = self.fresh.get_mut(number as usize).map(std::mem::take) else { continue };
            let Some(delivered) = self.shared.delivered.get(number as usize) else { continue };
            delivered.copies.fetch_add(fresh, Ordering::SeqCst);
            if delivered.wanted.swap(false, Ordering::SeqCst) {
                let thread = number as usize % self.job.threads;
                if thread == self.job.thread {
                    self.wake(number as usize / self.job.threads);
                } else {
                    self.shared.wake(thread);
                }
            }
        }
    }

    /// Another thread has received: our publishers look whose messages these were.
    pub(super) fn look_again(&mut self) {
        for place in 0..self.publishers.len() {
            let Some(publisher) = self.publishers.get(place) else { break };
            let delivered = self.shared.delivered.get(publisher.number as usize);
            if delivered.is_some_and(|delivered| delivered.copies.load(Ordering::SeqCst) > publisher.arrived)
            {
                self.wake(place);
            }
        }
    }

    /// A message came.
    pub(super) fn arrived(&mut self, index: usize, publish: &Publish<'_>, now: u64) {
        let version = self.job.target.version;
        let Some(link) = self.links.get_mut(index) else { return };
        let (Role::Subscriber(_), place) = (link.role, link.place) else {
            self.outcome.messages.foreign += 1;
            return;
        };
        let Some(subscriber) = self.subscribers.get_mut(place) else { return };
        let mut repeated = false;
        if let (Some(id), Some(wire)) = (publish.packet_id, &mut link.wire) {
            match publish.qos {
                QoS::AtMostOnce => {}
                QoS::AtLeastOnce => encode::puback(version, id, ReasonCode::Success, &mut wire.out),
                QoS::ExactlyOnce => {
                    repeated = subscriber.inbound.publish_qos2(id) == Qos2::Duplicate;
                    encode::pubrec(version, id, ReasonCode::Success, &mut wire.out);
                }
            }
            self.mark(index);
        }
        let Some(subscriber) = self.subscribers.get_mut(place) else { return };
        let messages = &mut self.outcome.messages;
        let run = self.job.traffic.as_ref().map_or(0, |traffic| traffic.plan.run);
        let stamp = Stamp::read(&publish.payload)
            .filter(|stamp| stamp.run == run && subscriber.publishers.contains(&stamp.publisher));
        let Some(stamp) = stamp else {
            messages.foreign += 1;
            return;
        };
        if repeated {
            // The same packet again, as QoS 2 allows until it is released.
            return;
        }
        let at = (stamp.publisher - subscriber.publishers.start) as usize;
        let arrival = match &mut subscriber.got {
            Got::Everything(sequences) => {
                sequences.get_mut(at).map(|sequence| sequence.arrived(stamp.sequence))
            }
            Got::Share(shares) => shares.get_mut(at).map(|share| match share.arrived(stamp.sequence) {
                true => Arrival::InOrder,
                false => Arrival::Duplicate,
            }),
        };
        messages.received += 1;
        self.totals.received += 1;
        match arrival {
            Some(Arrival::Duplicate) | None => {
                messages.duplicates += 1;
                return;
            }
            Some(Arrival::Late) => messages.late += 1,
            Some(Arrival::InOrder) => {}
        }
        self.totals.distinct += 1;
        if self.measured.contains(&now) {
            messages.received_in_time += 1;
            messages.last_arrival = now;
        }
        if self.measured.contains(&stamp.intended) {
            messages.latency.add(now.saturating_sub(stamp.intended));
        }
        if let Some(fresh) = self.fresh.get_mut(stamp.publisher as usize) {
            if *fresh == 0 {
                self.touched.push(stamp.publisher);
            }
            *fresh += 1;
        }
    }

    fn publisher_of(&mut self, index: usize) -> Option<(usize, &mut Publisher)> {
        let link = self.links.get(index)?;
        let (Role::Publisher(_), place) = (link.role, link.place) else { return None };
        self.publishers.get_mut(place).map(|publisher| (place, publisher))
    }

    pub(super) fn puback(&mut self, index: usize, ack: &Ack<'_>, now: u64) {
        let Some((place, publisher)) = self.publisher_of(index) else { return };
        match publisher.outbound.puback(ack.packet_id) {
            Some(intended) => {
                publisher.refused += u64::from(ack.reason.is_error());
                self.acknowledged(intended, now);
                self.totals.unacknowledged -= 1;
                self.wake(place);
            }
            None => self.over(index, "protocol_unknown_packet_id"),
        }
    }

    pub(super) fn pubrec(&mut self, index: usize, ack: &Ack<'_>, now: u64) {
        let version = self.job.target.version;
        let Some((place, publisher)) = self.publisher_of(index) else { return };
        match publisher.outbound.pubrec(ack.packet_id, ack.reason) {
            Pubrec::Release(intended) => {
                if let Some(intended) = intended {
                    self.acknowledged(intended, now);
                }
                if let Some(wire) = self.links.get_mut(index).and_then(|link| link.wire.as_mut()) {
                    encode::pubrel(version, ack.packet_id, ReasonCode::Success, &mut wire.out);
                }
                self.mark(index);
            }
            Pubrec::Ended(intended) => {
                publisher.refused += 1;
                self.acknowledged(intended, now);
                self.totals.unacknowledged -= 1;
                self.wake(place);
            }
            Pubrec::Unknown => self.over(index, "protocol_unknown_packet_id"),
        }
    }

    pub(super) fn pubcomp(&mut self, index: usize, ack: &Ack<'_>) {
        let Some((place, publisher)) = self.publisher_of(index) else { return };
        if publisher.outbound.pubcomp(ack.packet_id) {
            self.totals.unacknowledged -= 1;
            self.wake(place);
        } else {
            self.over(index, "protocol_unknown_packet_id");
        }
    }

    pub(super) fn pubrel(&mut self, index: usize, ack: &Ack<'_>) {
        let version = self.job.target.version;
        let Some(link) = self.links.get_mut(index) else { return };
        if let (Role::Subscriber(_), Some(subscriber)) = (link.role, self.subscribers.get_mut(link.place)) {
            subscriber.inbound.release(ack.packet_id);
        }
        if let Some(wire) = &mut link.wire {
            encode::pubcomp(version, ack.packet_id, ReasonCode::Success, &mut wire.out);
        }
        self.mark(index);
    }

    fn acknowledged(&mut self, intended: u64, now: u64) {
        if self.measured.contains(&intended) {
            self.outcome.messages.acknowledged.add(now.saturating_sub(intended));
        }
    }
}

/// The smallest payload of a run.
pub(super) const SMALLEST: usize = stamp::LEN;
