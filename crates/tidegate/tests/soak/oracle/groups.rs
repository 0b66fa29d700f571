//! Shared subscriptions: each message goes to one member, and to some member at all [MQTT-4.8.2-4].

use std::collections::BTreeSet;

use mqtt::QoS;

/// Numbers that were seen: all up to one, and some above.
#[derive(Debug, Default)]
struct Numbers {
    low: u64,
    above: BTreeSet<u64>,
}

impl Numbers {
    /// Adds a number; `false`: it was there.
    fn add(&mut self, number: u64) -> bool {
        if number <= self.low || !self.above.insert(number) {
            return false;
        }
        while self.above.remove(&(self.low + 1)) {
            self.low += 1;
        }
        true
    }
}

/// One stream, as a group has got it.
#[derive(Debug)]
struct Page {
    /// The first message that is surely the group's.
    from: u64,
    seen: Numbers,
}

/// A group.
#[derive(Debug)]
pub(crate) struct Group {
    /// `$share/{ShareName}/{filter}`.
    pub(crate) name: String,
    /// The filter alone.
    pub(crate) filter: String,
    /// Its members have sessions that last: it loses nothing.
    pub(crate) durable: bool,
    /// At what QoS its members subscribed.
    pub(crate) qos: QoS,
    pages: Vec<Option<Page>>,
    /// Connections of members that ended: what they had not acknowledged went to others.
    departures: u64,
}

/// What a message was to its group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum News {
    /// The first time.
    First,
    /// Nothing that counts: again, or of before the group was there.
    Nothing,
}

impl Group {
    pub(crate) fn new(name: &str, filter: &str, durable: bool, qos: QoS, streams: usize) -> Self {
        Self {
            name: format!("$share/{name}/{filter}"),
            filter: filter.to_owned(),
            durable,
            qos,
            pages: (0..streams).map(|_| None).collect(),
            departures: 0,
        }
    }

    /// All members are there: messages from number `next` of this stream on are the group's.
    pub(crate) fn begin(&mut self, stream: usize, next: u64) {
        let seen = Numbers { low: next - 1, above: BTreeSet::new() };
        self.pages[stream].get_or_insert(Page { from: next, seen });
    }

    /// A member's connection ended.
    pub(crate) fn departed(&mut self) {
        self.departures += 1;
    }

    /// A member got a message of a stream with this QoS; `again`: its publisher sent it more than once.
    pub(crate) fn received(
        &mut self,
        stream: usize,
        seq: u64,
        qos: QoS,
        dup: bool,
        again: bool,
    ) -> Result<News, String> {
        let Some(page) = self.pages[stream].as_mut().filter(|page| seq >= page.from) else {
            return Ok(News::Nothing);
        };
        if page.seen.add(seq) {
            return Ok(News::First);
        }
        match qos.min(self.qos) {
            QoS::ExactlyOnce => Err(format!("twice for {} with QoS 2 [MQTT-4.3.3-10]", self.name)),
            QoS::AtMostOnce if !again => Err(format!("twice for {} with QoS 0", self.name)),
            QoS::AtLeastOnce if !dup && !again && self.departures == 0 => {
                Err(format!("as to another member of {}", self.name))
            }
            _ => Ok(News::Nothing),
        }
    }

    /// Messages of a stream up to `last` that nobody got and that are not `unsure`.
    pub(crate) fn missing(&self, stream: usize, last: u64, unsure: &BTreeSet<u64>) -> Vec<u64> {
        let Some(page) = &self.pages[stream] else { return Vec::new() };
        let seen = &page.seen;
        (seen.low + 1..=last).filter(|seq| !seen.above.contains(seq) && !unsure.contains(seq)).collect()
    }

    /// Whether a message of a stream has come.
    pub(crate) fn has(&self, stream: usize, seq: u64) -> bool {
        let page = self.pages[stream].as_ref();
        page.is_some_and(|page| seq <= page.seen.low || page.seen.above.contains(&seq))
    }

    /// Whether it is to get a stream.
    pub(crate) fn reads(&self, stream: usize) -> bool {
        self.pages[stream].is_some()
    }
}
