//! Shared subscriptions: each message goes to one member, and to some member at all [MQTT-4.8.2-4].

use std::collections::{BTreeSet, HashMap};

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

/// Who got a message: a reader, and how many of its connections had ended by then.
#[derive(Clone, Copy, Debug, Default)]
struct Holder {
    reader: u32,
    ended: u32,
    /// An earlier CONNECT of this reader may end its connection before it knows: nothing sure can be said.
    open: bool,
}

/// One stream, as a group has got it.
#[derive(Debug)]
struct Page {
    /// The first message that is surely the group's.
    from: u64,
    seen: Numbers,
    /// Who got each message last, from `from` on.
    holders: Vec<Holder>,
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
    /// Connections of each member that ended: what it had not acknowledged went to others.
    departures: HashMap<u32, u32>,
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
            departures: HashMap::new(),
        }
    }

    /// All members are there: messages from number `next` of this stream on are the group's.
    pub(crate) fn begin(&mut self, stream: usize, next: u64) {
        let seen = Numbers { low: next - 1, above: BTreeSet::new() };
        self.pages[stream].get_or_insert(Page { from: next, seen, holders: Vec::new() });
    }

    /// A member's connection ends, or it says good-bye.
    pub(crate) fn departed(&mut self, reader: usize) {
        *self.departures.entry(reader as u32).or_default() += 1;
    }

    /// A member got a message of a stream with this QoS; `again`: its publisher sent it more than once; `open`: the member's
    /// connection may be over before it knows.
    pub(crate) fn received(
        &mut self,
        reader: usize,
        (stream, seq): (usize, u64),
        qos: QoS,
        (dup, again, open): (bool, bool, bool),
    ) -> Result<News, String> {
        let Some(page) = self.pages[stream].as_mut().filter(|page| seq >= page.from) else {
            return Ok(News::Nothing);
        };
        let at = usize::try_from(seq - page.from).unwrap_or(usize::MAX);
        if at >= page.holders.len() {
            page.holders.resize(at + 1, Holder::default());
        }
        let ended = |reader: u32| self.departures.get(&reader).copied().unwrap_or(0);
        let reader = reader as u32;
        let before = std::mem::replace(&mut page.holders[at], Holder { reader, ended: ended(reader), open });
        if page.seen.add(seq) {
            return Ok(News::First);
        }
        // it goes to another member when the one that has it goes, and not before [MQTT-4.8.2-5]
        let gone = before.open || ended(before.reader) > before.ended;
        match qos.min(self.qos) {
            QoS::ExactlyOnce => Err(format!("twice for {} with QoS 2 [MQTT-4.3.3-10]", self.name)),
            QoS::AtMostOnce if !again => Err(format!("twice for {} with QoS 0", self.name)),
            QoS::AtLeastOnce if !dup && !again && !gone => {
                Err(format!("and to another member of {}, reader {}", self.name, before.reader))
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
