//! `$delayed/{seconds}/{topic}`: messages that are published later, as with EMQX.
//!
//! A message is a record `default/d/<when, number>` until it is due, and its acknowledgement says that the record is written.
//! In memory is only when each is due. Worker 0 reads what is due, publishes it with its QoS, its RETAIN flag and its properties, and
//! removes the record when the log and the retained store have what they are to keep: a crash in between publishes it
//! once more, under the same id for the log.
//!
//! The Message Expiry Interval begins when the message is published, as that of a will does (3.1.3.2.4).

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use engine::{EngineError, Op, Reply, Write};
use mqtt::ReasonCode;
use mqtt::packet::Publish;

use crate::connection::{AckRef, ConnId};
use crate::message::{NEVER, View, expiry_of};
use crate::metrics::Drop;
use crate::publish::Distributed;
use crate::record::{self, Reader};
use crate::worker::{Waiting, Worker, reason_of};

/// What the topic of such a message begins with.
const PREFIX: &str = "$delayed/";
/// Seconds: the longest delay, 49 days, as EMQX has it.
const LONGEST: u64 = 4_294_967;
/// Messages that are read and published at the same time: a crowd that is due in one second holds up nobody.
const AT_ONCE: usize = 256;

/// The topic of a delayed message, taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Delayed<'a> {
    /// Seconds from now up to [`LONGEST`], above it seconds since 1970.
    when: u64,
    /// Where it is published.
    pub(crate) topic: &'a str,
}

/// What a topic says of a delay; `None`: nothing.
pub(crate) fn parse(topic: &str) -> Option<Result<Delayed<'_>, Malformed>> {
    let rest = topic.strip_prefix(PREFIX)?;
    let parsed = rest.split_once('/').and_then(|(when, topic)| {
        // no sign, as `parse` would take it
        let digits = !when.is_empty() && when.bytes().all(|b| b.is_ascii_digit());
        let when = if digits { when.parse().ok()? } else { return None };
        let useful = when > 0 && !topic.is_empty() && !topic.starts_with(PREFIX);
        useful.then_some(Delayed { when, topic })
    });
    Some(parsed.ok_or(Malformed))
}

/// Where a message goes in the end: what rules about topics are asked about.
pub(crate) fn target(topic: &str) -> &str {
    match parse(topic) {
        Some(Ok(delayed)) => delayed.topic,
        _ => topic,
    }
}

/// The prefix is there, and what follows is no delay and a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Malformed;

impl Delayed<'_> {
    /// When it is due, in Unix milliseconds; `None`: too far away, or a time of the past.
    pub(crate) fn due(self, unix_ms: u64) -> Option<u64> {
        let latest = unix_ms.saturating_add(LONGEST * 1_000);
        if self.when <= LONGEST {
            return Some(unix_ms.saturating_add(self.when * 1_000));
        }
        self.when.checked_mul(1_000).filter(|due| (unix_ms..=latest).contains(due))
    }
}

/// When which message is due, over all workers.
pub(crate) struct Schedule {
    /// Due (Unix milliseconds), number. Those that are being published are not in it.
    waiting: Mutex<BTreeSet<(u64, u64)>>,
    /// Records that exist or are being written.
    count: AtomicUsize,
    next_number: AtomicU64,
}

impl Schedule {
    /// `first_number`: above those of every earlier process.
    pub(crate) fn new(first_number: u64) -> Self {
        Self {
            waiting: Mutex::default(),
            count: AtomicUsize::new(0),
            next_number: AtomicU64::new(first_number),
        }
    }

    /// How many messages there are.
    pub(crate) fn len(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// A message is about to be written: its number.
    fn begin(&self) -> u64 {
        self.count.fetch_add(1, Ordering::Relaxed);
        self.next_number.fetch_add(1, Ordering::Relaxed)
    }

    /// A message that was begun is written.
    fn written(&self, due: u64, number: u64) {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).insert((due, number));
    }

    /// A message is no more.
    fn ended(&self) {
        self.count.fetch_sub(1, Ordering::Relaxed);
    }

    /// A record that an earlier process has written.
    pub(crate) fn recovered(&self, due: u64, number: u64) {
        self.count.fetch_add(1, Ordering::Relaxed);
        self.written(due, number);
    }

    /// The next one that is due, in the order of their times; it waits no more.
    fn take_due(&self, unix_ms: u64) -> Option<(u64, u64)> {
        if self.len() == 0 {
            return None;
        }
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let first = waiting.first().copied().filter(|(due, _)| *due <= unix_ms)?;
        waiting.remove(&first);
        Some(first)
    }
}

/// A record that is being written.
pub(crate) struct Writing {
    due: u64,
    number: u64,
    pub(crate) ack: Option<AckRef>,
}

/// A message that is being published.
pub(crate) struct Publishing {
    due: u64,
    /// Operations of the engine that its record must outlive.
    waits: u8,
}

impl Worker {
    /// Keeps a message until it is due. `ack` waits for its record.
    pub(crate) fn delay(&mut self, view: View<'_>, delayed: Delayed<'_>, ack: Option<AckRef>) -> Distributed {
        let mut done = Distributed { matched: true, ..Distributed::default() };
        let now = self.now.unix_ms;
        // a time that has come between PUBLISH and PUBREL is now
        let due = delayed.due(now).unwrap_or(now);
        let publish = Publish {
            topic: Cow::Borrowed(delayed.topic),
            properties: view.publish.properties.clone(),
            payload: Cow::Borrowed(&view.publish.payload),
            ..*view.publish
        };
        let mut out = record::begin();
        out.extend_from_slice(&self.shared.new_dedupe().to_be_bytes());
        let kept = View { expires_at: NEVER, publish: &publish, plain: None, ..view };
        let guarantees = &self.shared.guarantees;
        if !record::put_message(kept, &mut out)
            || out.len() > guarantees.max_value
            || record::message_bound(&publish) > guarantees.max_frame
        {
            done.refused = Some(ReasonCode::PacketTooLarge);
            return done;
        }
        done.waits = u8::from(ack.is_some());
        let number = self.shared.delayed.begin();
        let writes = vec![Write::put(record::delayed_key(due, number), out)];
        self.submit(Op::Put { writes }, Waiting::Delayed(Writing { due, number, ack }));
        done
    }

    /// The record is written, or cannot be.
    pub(crate) fn delay_written(&mut self, writing: &Writing, error: Option<EngineError>) {
        match error {
            None => self.shared.delayed.written(writing.due, writing.number),
            Some(_) => self.shared.delayed.ended(),
        }
        match writing.ack {
            Some(ack) => self.ack_done(ack, error.map(reason_of)),
            None if error.is_some() => self.metrics.drop_message(Drop::Engine, 1),
            None => {}
        }
    }

    /// Begins to publish what is due, a few at a time; goes on as they end.
    pub(crate) fn publish_delayed(&mut self) {
        while self.delayed_under_way < AT_ONCE {
            let Some((due, number)) = self.shared.delayed.take_due(self.now.unix_ms) else { return };
            self.delayed_under_way += 1;
            self.submit(Op::Get { key: record::delayed_key(due, number) }, Waiting::DelayedDue(due, number));
        }
    }

    /// A message that is due has been read.
    pub(crate) fn delayed_read(&mut self, due: u64, number: u64, result: Result<Reply, EngineError>) {
        let found = match result {
            Ok(Reply::Got(found)) => found,
            _ => None,
        };
        let stored = found.as_ref().and_then(|found| {
            let mut reader = Reader::versioned(&found.value)?;
            Some((reader.u128()?, reader.message()?))
        });
        let Some((dedupe, stored)) = stored else {
            tracing::error!(due, number, "a delayed message cannot be read and is lost");
            self.metrics.drop_message(Drop::Engine, 1);
            self.forget_delayed(due, number);
            return;
        };
        let publish = &stored.publish;
        let view = View { expires_at: expiry_of(publish, self.now.unix_ms), ..stored.view() };
        let ack = AckRef { conn: ConnId::DELAYED, seq: number };
        let done = self.distribute(view, Some(ack), Some(dedupe));
        self.metrics.delayed_published.inc();
        if done.refused.is_some() {
            self.metrics.drop_message(Drop::Engine, 1);
        }
        if done.waits == 0 {
            self.forget_delayed(due, number);
        } else {
            self.delayed_publishing.insert(number, Publishing { due, waits: done.waits });
        }
    }

    /// One of the operations that the record of a message must outlive has ended.
    pub(crate) fn delayed_step(&mut self, number: u64, failed: bool) {
        if failed {
            self.metrics.drop_message(Drop::Engine, 1);
        }
        let Some(publishing) = self.delayed_publishing.get_mut(&number) else { return };
        publishing.waits = publishing.waits.saturating_sub(1);
        if publishing.waits == 0 {
            let due = publishing.due;
            self.delayed_publishing.remove(&number);
            self.forget_delayed(due, number);
        }
    }

    fn forget_delayed(&mut self, due: u64, number: u64) {
        let writes = vec![Write::delete(record::delayed_key(due, number))];
        self.submit(Op::Put { writes }, Waiting::DelayedGone);
    }

    /// The record of a message that was published is gone.
    pub(crate) fn delayed_gone(&mut self) {
        self.shared.delayed.ended();
        self.delayed_under_way = self.delayed_under_way.saturating_sub(1);
        self.publish_delayed();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: u64 = 1_800_000_000_000;

    fn due(topic: &str) -> Option<(u64, &str)> {
        let delayed = parse(topic)?.ok()?;
        Some((delayed.due(NOW)?, delayed.topic))
    }

    #[test]
    fn seconds_count_from_now() {
        assert_eq!(due("$delayed/1/a/b"), Some((NOW + 1_000, "a/b")));
        assert_eq!(due("$delayed/4294967//"), Some((NOW + 4_294_967_000, "/")));
    }

    /// As with EMQX: a number above the longest delay is a time.
    #[test]
    fn a_larger_number_is_a_time_that_is_not_too_far_away() {
        assert_eq!(due("$delayed/1800000010/a"), Some((NOW + 10_000, "a")));
        let latest = NOW / 1_000 + LONGEST;
        assert_eq!(due(&format!("$delayed/{latest}/a")).map(|d| d.0), Some(NOW + LONGEST * 1_000));
        for never in [4_294_968, NOW / 1_000 - 1, latest + 1, u64::MAX] {
            assert_eq!(due(&format!("$delayed/{never}/a")), None, "{never}");
        }
    }

    #[test]
    fn what_is_no_delay_is_malformed() {
        for bad in [
            "$delayed/",
            "$delayed/5",
            "$delayed/5/",
            "$delayed//a",
            "$delayed/0/a",
            "$delayed/-1/a",
            "$delayed/+1/a",
            "$delayed/1s/a",
            "$delayed/99999999999999999999/a",
            "$delayed/5/$delayed/5/a",
        ] {
            assert_eq!(parse(bad), Some(Err(Malformed)), "{bad}");
        }
        assert_eq!(parse("delayed/5/a"), None);
        assert_eq!(parse("$delayed"), None);
    }

    proptest! {
        #[test]
        fn messages_are_taken_in_the_order_of_their_times(times in proptest::collection::vec(0u64..50, 0..40), now in 0u64..60) {
            let schedule = Schedule::new(1);
            let mut expected = Vec::new();
            for due in times {
                let number = schedule.begin();
                schedule.written(due, number);
                expected.push((due, number));
            }
            prop_assert_eq!(schedule.len(), expected.len());
            expected.retain(|(due, _)| *due <= now);
            expected.sort_unstable();
            let taken: Vec<_> = std::iter::from_fn(|| schedule.take_due(now)).collect();
            prop_assert_eq!(taken, expected);
        }
    }
}
