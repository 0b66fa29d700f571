//! What one thread found out, and all of them joined. Pure.

use std::collections::BTreeMap;
use std::ops::Range;

use super::latency::Times;
use super::sequence::{Sequence, Share};

/// Counts by reason, by stable names such as `refused` or `connack_not_authorized`.
pub(crate) type Reasons = BTreeMap<String, u64>;

/// What came of the connections.
#[derive(Clone, Debug, Default)]
pub(super) struct Connections {
    /// Clients that there should be.
    pub(super) asked: u64,
    /// Clients that became ready.
    pub(super) ready: u64,
    /// Clients that did not, by reason.
    pub(super) failures: Reasons,
    /// How many of these were to publish, and how many to subscribe.
    pub(super) failed_publishers: u64,
    pub(super) failed_subscribers: u64,
    /// Clients that were ready and whose connection then ended, by reason.
    pub(super) lost: Reasons,
    /// From the time a connection was to begin to its CONNACK.
    pub(super) latency: Times,
    /// From the time a connection was to begin until TCP was there.
    pub(super) tcp: Times,
    /// How late connections began.
    pub(super) late: Times,
    /// When the first began and when the last became ready, nanoseconds since the epoch.
    pub(super) span: Option<Range<u64>>,
}

/// What became of the messages of one publisher.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Published {
    pub(super) sent: u64,
    /// In an open loop: due and never sent, though the connection was there to the end.
    pub(super) unsent: u64,
    /// Sent with QoS 1 or 2 and not acknowledged in the end.
    pub(super) unacknowledged: u64,
    /// Acknowledged with a failure (version 5).
    pub(super) refused: u64,
}

/// What came of the messages.
#[derive(Clone, Debug, Default)]
pub(super) struct Messages {
    pub(super) published: BTreeMap<u32, Published>,
    /// Subscribers that were ready, by number, and what they got of each publisher they hear.
    pub(super) heard: Vec<Heard>,
    /// Messages sent and received within the measured time.
    pub(super) sent_in_time: u64,
    pub(super) received_in_time: u64,
    /// Everything received, each copy.
    pub(super) received: u64,
    /// Copies that had come before: repeated by the broker.
    pub(super) duplicates: u64,
    /// Messages after which an older one came.
    pub(super) late: u64,
    /// Messages of others on our topics.
    pub(super) foreign: u64,
    /// From the intended time to the subscriber.
    pub(super) latency: Times,
    /// From the intended time to PUBACK or PUBREC.
    pub(super) acknowledged: Times,
    /// How late messages were sent, by our own fault.
    pub(super) own_lateness: Times,
    /// How often a window was given up because nothing arrived.
    pub(super) stalls: u64,
    /// When the last message arrived within the measured time, nanoseconds since the epoch.
    pub(super) last_arrival: u64,
}

/// What one subscriber got.
#[derive(Clone, Debug)]
pub(super) struct Heard {
    /// The publishers it hears.
    pub(super) publishers: Range<u32>,
    pub(super) got: Got,
}

/// By publisher, from the first it hears on.
#[derive(Clone, Debug)]
pub(super) enum Got {
    /// All of it should have come.
    Everything(Vec<Sequence>),
    /// Others of its group got the rest.
    Share(Vec<Share>),
}

/// One thread's, or all threads' together.
#[derive(Clone, Debug, Default)]
pub(super) struct Outcome {
    pub(super) connections: Connections,
    pub(super) messages: Messages,
    /// The time that was measured, nanoseconds since the epoch; the same in all threads.
    pub(super) measured: Range<u64>,
    /// The share of its time that the busiest thread worked, 0 to 1.
    pub(super) busy: f64,
}

impl Outcome {
    /// Adds another thread's.
    pub(super) fn join(&mut self, other: Self) {
        let (ours, theirs) = (&mut self.connections, other.connections);
        ours.asked += theirs.asked;
        ours.ready += theirs.ready;
        add(&mut ours.failures, theirs.failures);
        ours.failed_publishers += theirs.failed_publishers;
        ours.failed_subscribers += theirs.failed_subscribers;
        add(&mut ours.lost, theirs.lost);
        ours.latency.join(&theirs.latency);
        ours.tcp.join(&theirs.tcp);
        ours.late.join(&theirs.late);
        ours.span = match (ours.span.take(), theirs.span) {
            (Some(ours), Some(theirs)) => Some(ours.start.min(theirs.start)..ours.end.max(theirs.end)),
            (ours, theirs) => ours.or(theirs),
        };
        let (ours, theirs) = (&mut self.messages, other.messages);
        ours.published.extend(theirs.published);
        ours.heard.extend(theirs.heard);
        ours.sent_in_time += theirs.sent_in_time;
        ours.received_in_time += theirs.received_in_time;
        ours.received += theirs.received;
        ours.duplicates += theirs.duplicates;
        ours.late += theirs.late;
        ours.foreign += theirs.foreign;
        ours.latency.join(&theirs.latency);
        ours.acknowledged.join(&theirs.acknowledged);
        ours.own_lateness.join(&theirs.own_lateness);
        ours.stalls += theirs.stalls;
        ours.last_arrival = ours.last_arrival.max(theirs.last_arrival);
        self.measured =
            self.measured.start.max(other.measured.start)..self.measured.end.max(other.measured.end);
        self.busy = self.busy.max(other.busy);
    }
}

fn add(ours: &mut Reasons, theirs: Reasons) {
    for (reason, count) in theirs {
        *ours.entry(reason).or_default() += count;
    }
}

/// Copies that should have come, and what came of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Balance {
    /// Copies of all messages that were sent and not refused, at all subscribers that were ready.
    pub(super) expected: u64,
    /// Those of them that never came.
    pub(super) lost: u64,
    /// Lost ones that may be excused: their publisher never got an acknowledgement.
    pub(super) unowed: u64,
    /// Copies of one message that came to several members of a group.
    pub(super) shared_twice: u64,
    /// Pairs of a publisher that sent and a subscriber (or group) that hears it.
    pub(super) pairs: u64,
    /// Those of them between which not one message went.
    pub(super) silent: u64,
}

impl Messages {
    /// Compares what was sent with what came.
    pub(super) fn balance(&self) -> Balance {
        let mut balance = Balance::default();
        let mut group: BTreeMap<u32, Share> = BTreeMap::new();
        let mut count = |publisher: u32, distinct: u64| {
            let published = self.published.get(&publisher).copied().unwrap_or_default();
            let expected = published.sent - published.refused;
            let lost = expected.saturating_sub(distinct);
            balance.expected += expected;
            balance.lost += lost;
            balance.unowed += lost.min(published.unacknowledged);
            balance.pairs += u64::from(expected > 0);
            balance.silent += u64::from(expected > 0 && distinct == 0);
        };
        let mut twice = 0;
        for heard in &self.heard {
            match &heard.got {
                Got::Everything(sequences) => {
                    for (publisher, sequence) in heard.publishers.clone().zip(sequences) {
                        count(publisher, sequence.distinct());
                    }
                }
                Got::Share(shares) => {
                    for (publisher, share) in heard.publishers.clone().zip(shares) {
                        twice += group.entry(publisher).or_default().join(share);
                    }
                }
            }
        }
        for (publisher, share) in group {
            count(publisher, share.distinct());
        }
        balance.shared_twice = twice;
        balance
    }

    /// A sum over all publishers.
    pub(super) fn total(&self, of: impl Fn(&Published) -> u64) -> u64 {
        self.published.values().map(of).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::sequence::Arrival;

    fn sequence(numbers: impl IntoIterator<Item = u64>) -> Sequence {
        let mut sequence = Sequence::default();
        numbers.into_iter().for_each(|number| assert_ne!(sequence.arrived(number), Arrival::Duplicate));
        sequence
    }

    fn sent(sent: u64) -> Published {
        Published { sent, ..Published::default() }
    }

    #[test]
    fn everybody_is_owed_every_message_of_those_it_hears() {
        let published = BTreeMap::from([(0, sent(10)), (1, Published { refused: 1, ..sent(4) })]);
        let by_two = |got| Heard { publishers: 0..2, got: Got::Everything(got) };
        let heard =
            vec![by_two(vec![sequence(0..10), sequence(0..3)]), by_two(vec![sequence(0..7), sequence([])])];
        let messages = Messages { published, heard, ..Messages::default() };
        let expected = Balance { expected: 26, lost: 6, pairs: 4, silent: 1, ..Balance::default() };
        assert_eq!(messages.balance(), expected);
    }

    #[test]
    fn without_an_acknowledgement_nothing_is_owed() {
        let published = BTreeMap::from([(0, Published { unacknowledged: 2, ..sent(10) })]);
        let heard = vec![Heard { publishers: 0..1, got: Got::Everything(vec![sequence(0..7)]) }];
        let messages = Messages { published, heard, ..Messages::default() };
        assert_eq!(
            messages.balance(),
            Balance { expected: 10, lost: 3, unowed: 2, pairs: 1, ..Balance::default() }
        );
    }

    #[test]
    fn a_group_is_owed_every_message_once() {
        let share = |numbers: &[u64]| {
            let mut share = Share::default();
            numbers.iter().for_each(|number| assert!(share.arrived(*number)));
            Heard { publishers: 3..4, got: Got::Share(vec![share]) }
        };
        let published = BTreeMap::from([(3, sent(6))]);
        let heard = vec![share(&[0, 2, 4]), share(&[1, 2])];
        let messages = Messages { published, heard, ..Messages::default() };
        assert_eq!(
            messages.balance(),
            Balance { expected: 6, lost: 2, shared_twice: 1, pairs: 1, ..Balance::default() }
        );
    }
}
