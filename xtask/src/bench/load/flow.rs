//! Messages from publishers to subscribers, inside windows or at a fixed rate, counted at both ends.
//!
//! Closed: each publisher has at most `window` messages that subscribers have not seen, and writes the next ones when a
//! quarter of that is free, so that it writes in batches. A broker that is never overrun has no reason to lose anything.
//! Open: each message has its time, and latency counts from there, whenever it was written.

use std::ops::Range;
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use super::super::process::now;
use super::crowd::{Crowd, Seen};
use super::usage::Watched;
use super::wire::{self, Form, Stamp};

/// Without an arrival for so long, windows are opened anew: what is lost must not end the load, only be told.
const STALL: Duration = Duration::from_millis(500);
/// After the end, silence that means that nothing more comes.
const SILENCE: Duration = Duration::from_secs(2);
/// Longest wait for what is under way at the end.
const DRAIN: Duration = Duration::from_secs(15);
/// Pause between two looks at sockets and schedule at a fixed rate.
const TICK: Duration = Duration::from_micros(50);
/// Unwritten bytes of a publisher at which it waits.
const UNWRITTEN: usize = 4 << 20;

/// Which topics a publisher uses.
#[derive(Clone, Copy, Debug)]
pub(super) enum Topics {
    /// Its own, always the same.
    Own,
    /// One of so many by chance: those of [`many_topic`].
    Many(usize),
}

/// The topic of publisher `number` where each has its own.
pub(super) fn own_topic(number: usize) -> String {
    format!("plant/{number}/temperature")
}

/// Topic `number` of many; [`many_filter`] of the same number is the one that it meets.
pub(super) fn many_topic(number: usize) -> String {
    if number % 10 == 8 { format!("w/v{number}/y") } else { format!("w/{number}/x/y") }
}

/// Six of ten are exact, the others have `+` in the middle, twice, at the begin, or end with `#`.
pub(super) fn many_filter(number: usize) -> String {
    match number % 10 {
        0..6 => format!("w/{number}/x/y"),
        6 => format!("w/{number}/+/y"),
        7 => format!("w/{number}/+/+"),
        8 => format!("+/v{number}/y"),
        _ => format!("w/{number}/#"),
    }
}

/// What a flow is made of.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) form: Form,
    pub(super) topics: Topics,
    /// Subscribers that get each message.
    pub(super) copies: u64,
    /// Whether a subscriber gets the messages of a publisher in their order: not where a group shares them.
    pub(super) ordered: bool,
    pub(super) window: i64,
    /// Messages of a publisher that wait for PUBACK.
    pub(super) inflight: u32,
    /// Of all publishers together, in messages per second; `None`: as fast as the windows allow.
    pub(super) rate: Option<f64>,
    pub(super) secs: f64,
}

#[derive(Debug, Default)]
struct Publisher {
    number: u32,
    packet_id: u16,
    /// Deliveries that have not arrived.
    outstanding: i64,
    unacknowledged: u32,
}

/// The state of a run.
struct Flow<'a> {
    plan: &'a Plan,
    publishers: Range<usize>,
    state: Vec<Publisher>,
    topics: Vec<String>,
    /// By subscriber and publisher: the next number that may come.
    next: Vec<Vec<u32>>,
    receivers: Range<usize>,
    sent: u64,
    acknowledged: u64,
    received: u64,
    out_of_order: u64,
    duplicates: u64,
    closed: u64,
    /// In microseconds.
    latencies: Vec<f32>,
    last: Duration,
    chance: u64,
}

/// Runs the plan. `receivers` are clients whose messages count; others of the crowd may hear and are not counted.
pub(super) fn run(
    crowd: &mut Crowd,
    plan: &Plan,
    publishers: Range<usize>,
    receivers: Range<usize>,
    server: Watched,
) -> Result<Value, String> {
    let count = publishers.len();
    let mut flow = Flow {
        plan,
        publishers,
        state: (0..count).map(|_| Publisher::default()).collect(),
        topics: (0..count).map(own_topic).collect(),
        next: if plan.ordered { vec![vec![0; count]; receivers.len()] } else { Vec::new() },
        receivers,
        sent: 0,
        acknowledged: 0,
        received: 0,
        out_of_order: 0,
        duplicates: 0,
        closed: 0,
        latencies: Vec::new(),
        last: Duration::ZERO,
        chance: 0x9e37_79b9_7f4a_7c15,
    };
    server.forget_peak()?;
    let (cpu, memory) = (server.cpu_secs()?, server.memory()?);
    let begin = now();
    crowd.begin = begin;
    let secs = Duration::from_secs_f64(plan.secs);
    let mut within = 0;
    let mut paced = 0;
    loop {
        let at = begin.elapsed();
        if at < secs {
            within = flow.received;
            match plan.rate {
                Some(rate) => flow.send_due(crowd, rate, at, &mut paced),
                None => flow.refill(crowd, at),
            }
        } else if flow.is_done() || at - flow.last.max(secs) > SILENCE || at > secs + DRAIN {
            break;
        }
        let limit = if plan.rate.is_some() && at < secs {
            thread::sleep(TICK); // sleep: the poll waits for whole milliseconds, the schedule does not
            Duration::ZERO
        } else {
            Duration::from_millis(20)
        };
        crowd.turn(limit, &mut |crowd, client, seen| flow.seen(crowd, client, seen))?;
    }
    let cpu = server.cpu_secs()? - cpu;
    let growth = server.peak()?.saturating_sub(memory);
    Ok(flow.answer(cpu, within as f64 / plan.secs, growth))
}

impl Flow<'_> {
    fn is_done(&self) -> bool {
        let acknowledged = self.plan.form.qos == 0 || self.acknowledged >= self.sent;
        self.received >= self.sent * self.plan.copies && acknowledged
    }

    fn refill(&mut self, crowd: &mut Crowd, at: Duration) {
        if at.saturating_sub(self.last) > STALL {
            self.last = at;
            self.state.iter_mut().for_each(|publisher| publisher.outstanding = 0);
        }
        let copies = self.plan.copies as i64;
        for place in 0..self.state.len() {
            let unwritten = crowd.unwritten(self.publishers.start + place);
            let publisher = &self.state[place];
            let mut room = self.plan.window - publisher.outstanding / copies;
            if self.plan.form.qos > 0 {
                room = room.min(i64::from(self.plan.inflight.saturating_sub(publisher.unacknowledged)));
            }
            let whole = if self.plan.form.qos > 0 {
                self.plan.window.min(i64::from(self.plan.inflight))
            } else {
                self.plan.window
            };
            if room * 4 >= whole && unwritten < UNWRITTEN {
                let nanos = crowd.nanos();
                (0..room).for_each(|_| self.send(crowd, place, nanos));
            }
        }
    }

    /// Sends what is due; `paced` counts it.
    fn send_due(&mut self, crowd: &mut Crowd, rate: f64, at: Duration, paced: &mut u64) {
        while *paced as f64 / rate <= at.as_secs_f64() {
            let due = (*paced as f64 / rate * 1e9) as u64;
            let place = (*paced % self.state.len() as u64) as usize;
            self.send(crowd, place, due);
            *paced += 1;
        }
    }

    fn send(&mut self, crowd: &mut Crowd, place: usize, nanos: u64) {
        let (client, number) = (self.publishers.start + place, self.state[place].number);
        let stamp = Stamp { publisher: place as u32, number, nanos };
        let publisher = &mut self.state[place];
        publisher.number = number.wrapping_add(1);
        publisher.outstanding += self.plan.copies as i64;
        publisher.packet_id = publisher.packet_id.checked_add(1).unwrap_or(1);
        publisher.unacknowledged += u32::from(self.plan.form.qos > 0);
        let packet_id = publisher.packet_id;
        self.sent += 1;
        match self.plan.topics {
            Topics::Own => crowd.publish(client, &self.plan.form, &self.topics[place], packet_id, &stamp),
            Topics::Many(count) => {
                let topic = many_topic((self.random() % count as u64) as usize);
                crowd.publish(client, &self.plan.form, &topic, packet_id, &stamp);
            }
        }
    }

    /// xorshift64: which topic comes next need not be hard to guess.
    fn random(&mut self) -> u64 {
        self.chance ^= self.chance << 13;
        self.chance ^= self.chance >> 7;
        self.chance ^= self.chance << 17;
        self.chance
    }

    fn seen(&mut self, crowd: &mut Crowd, client: usize, seen: Seen<'_>) -> Result<(), String> {
        match seen {
            Seen::Closed => self.closed += 1,
            Seen::Packet(first, body) if first & 0xf0 == wire::PUBLISH => {
                let arrival = wire::arrival(first, body, crowd.version()).ok_or("a PUBLISH cut short")?;
                if let Some(id) = arrival.packet_id {
                    crowd.send(client, &wire::puback(id));
                }
                if let (true, Some(stamp)) = (self.receivers.contains(&client), arrival.stamp) {
                    let nanos = crowd.nanos();
                    self.arrived(client - self.receivers.start, &stamp, nanos);
                }
            }
            Seen::Packet(wire::PUBACK, _) => {
                let place = client.wrapping_sub(self.publishers.start);
                if let Some(publisher) = self.state.get_mut(place) {
                    publisher.unacknowledged = publisher.unacknowledged.saturating_sub(1);
                    self.acknowledged += 1;
                }
            }
            Seen::Packet(..) => {}
        }
        Ok(())
    }

    fn arrived(&mut self, receiver: usize, stamp: &Stamp, nanos: u64) {
        self.received += 1;
        self.last = Duration::from_nanos(nanos);
        let place = stamp.publisher as usize;
        if let Some(publisher) = self.state.get_mut(place) {
            publisher.outstanding -= 1;
        }
        if let Some(next) = self.next.get_mut(receiver).and_then(|next| next.get_mut(place)) {
            // What was lost leaves a gap and is counted by the sum; the same or an older one is not a loss.
            self.duplicates += u64::from(stamp.number + 1 == *next);
            self.out_of_order += u64::from(stamp.number + 1 < *next);
            *next = stamp.number.wrapping_add(1).max(*next);
        }
        self.latencies.push(nanos.saturating_sub(stamp.nanos) as f32 / 1e3);
    }

    /// The same fields as `mqload` has.
    fn answer(mut self, cpu: f64, per_second: f64, growth: u64) -> Value {
        self.latencies.sort_unstable_by(f32::total_cmp);
        let quantile = |share: f64| {
            let at = (self.latencies.len() as f64 * share) as usize;
            self.latencies.get(at.min(self.latencies.len().saturating_sub(1))).copied()
        };
        let received = self.received.max(1) as f64;
        let expected = self.sent * self.plan.copies;
        json!({
            "sent": self.sent, "expected": expected, "delivered": self.received,
            "lost": expected.saturating_sub(self.received),
            "unacknowledged": if self.plan.form.qos == 0 { 0 } else { self.sent.saturating_sub(self.acknowledged) },
            "dups": self.duplicates + self.received.saturating_sub(expected), "order_viol": self.out_of_order,
            "disconnects": self.closed, "delivered_per_s": per_second,
            "cpu_s": cpu, "cpu_s_per_M": cpu / received * 1e6,
            "cpu_s_per_GiB": cpu / (received * self.plan.form.size as f64) * f64::from(1 << 30),
            "p50_us": quantile(0.5), "p99_us": quantile(0.99), "p999_us": quantile(0.999),
            "peak_growth_mib": growth as f64 / f64::from(1 << 20),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_of_many_meets_its_own_filter_and_no_other() {
        let matches = |filter: &str, topic: &str| {
            let (mut filter, mut topic) = (filter.split('/'), topic.split('/'));
            loop {
                match (filter.next(), topic.next()) {
                    (Some("#"), _) | (None, None) => return true,
                    (Some("+"), Some(_)) => {}
                    (Some(wanted), Some(level)) if wanted == level => {}
                    _ => return false,
                }
            }
        };
        for topic in 0..100 {
            let met: Vec<_> =
                (0..100).filter(|&filter| matches(&many_filter(filter), &many_topic(topic))).collect();
            assert_eq!(met, [topic]);
        }
    }
}
