//! Streams and who reads them: whether each message came as often, and in the order, that its QoS promises.
//!
//! A stream is what one publisher sends to one topic with one QoS: inside it the order is promised [MQTT-4.6.0-6], so what a
//! reader has is a number, and what it misses below that number was lost. What a publisher gave up before it was acknowledged
//! is `unsure`: it may come or not. A reader that ends with its connection may lose what its bounds do not hold; that is
//! counted and compared with what the broker says it dropped. A durable one may lose nothing.

use std::collections::{BTreeSet, HashMap, VecDeque};

use mqtt::QoS;
use mqtt::filter::matches;

use super::groups::{Group, News};
use super::letter::Lengths;

/// What one publisher sends to one topic with one QoS.
#[derive(Debug)]
pub(crate) struct Stream {
    pub(crate) topic: String,
    pub(crate) qos: QoS,
    pub(crate) lengths: Lengths,
    /// Durable readers want it: its messages are in the log, which has a bound.
    pub(crate) logged: bool,
    /// The number of the next message.
    next: u64,
    unsure: BTreeSet<u64>,
    again: BTreeSet<u64>,
    /// Durable readers and groups that wait for each message.
    awaited_by: Vec<Party>,
}

/// Who waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Party {
    Reader(usize),
    Group(usize),
}

/// How a reader has read a stream.
#[derive(Debug)]
struct Page {
    /// The first message that is surely for it.
    from: u64,
    /// The last one that came; 0: none.
    last: u64,
    /// Below `last`, and never came.
    missing: BTreeSet<u64>,
    /// Below `last`, given up by their publisher, and not here yet.
    skipped: BTreeSet<u64>,
    /// The lower of the stream's and the subscription's.
    qos: QoS,
    /// Messages without payload.
    empties: u64,
}

/// A subscriber without its groups.
#[derive(Debug, Default)]
pub(crate) struct Reader {
    durable: bool,
    filters: Vec<(String, QoS)>,
    pages: Vec<Option<Page>>,
    behind: Behind,
}

/// Messages that a party waits for, by the epoch they were sent in.
#[derive(Debug, Default)]
struct Behind {
    first: u32,
    counts: VecDeque<u32>,
}

impl Behind {
    fn sent(&mut self, epoch: u32) {
        if self.counts.is_empty() {
            self.first = epoch;
        }
        let at = epoch.saturating_sub(self.first) as usize;
        while self.counts.len() <= at {
            self.counts.push_back(0);
        }
        self.counts[at] += 1;
    }

    fn settled(&mut self, epoch: u32) {
        let at = epoch.checked_sub(self.first).and_then(|at| self.counts.get_mut(at as usize));
        if let Some(count) = at {
            *count = count.saturating_sub(1);
        }
        while self.counts.front() == Some(&0) {
            self.counts.pop_front();
            self.first += 1;
        }
    }

    /// The oldest epoch of which something is still to come.
    fn oldest(&self) -> Option<u32> {
        self.counts.front().map(|_| self.first)
    }
}

/// What came to whom.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arrival {
    pub(crate) qos: QoS,
    pub(crate) dup: bool,
    /// The group in whose place the reader got it.
    pub(crate) group: Option<usize>,
}

/// See the module.
#[derive(Default)]
pub(crate) struct Book {
    pub(crate) streams: Vec<Stream>,
    readers: Vec<Reader>,
    pub(crate) groups: Vec<Group>,
    /// What each durable group waits for.
    groups_behind: Vec<Behind>,
    empties: HashMap<String, usize>,
    /// Messages that arrived, by QoS.
    pub(crate) delivered: [u64; 3],
    /// Messages that were sent, by QoS.
    pub(crate) sent: [u64; 3],
    /// Deliveries that readers without a session missed, at QoS 0 and above.
    lost: [u64; 2],
}

impl Book {
    /// Adds a stream; its number.
    pub(crate) fn add_stream(&mut self, topic: &str, qos: QoS, lengths: Lengths, logged: bool) -> usize {
        let stream = self.streams.len();
        if lengths == Lengths::Empty {
            self.empties.insert(topic.to_owned(), stream);
        }
        self.streams.push(Stream {
            topic: topic.to_owned(),
            qos,
            lengths,
            logged,
            next: 1,
            unsure: BTreeSet::new(),
            again: BTreeSet::new(),
            awaited_by: Vec::new(),
        });
        stream
    }

    /// Adds a reader; its number. All streams are there.
    pub(crate) fn add_reader(&mut self, durable: bool, filters: &[(String, QoS)]) -> usize {
        let pages = self.streams.iter().map(|_| None).collect();
        self.readers.push(Reader { durable, filters: filters.to_vec(), pages, behind: Behind::default() });
        self.readers.len() - 1
    }

    /// Adds a group; its number. All streams are there.
    pub(crate) fn add_group(&mut self, name: &str, filter: &str, durable: bool, qos: QoS) -> usize {
        self.groups.push(Group::new(name, filter, durable, qos, self.streams.len()));
        self.groups_behind.push(Behind::default());
        self.groups.len() - 1
    }

    /// A message of a stream is sent for the first time; its number.
    pub(crate) fn send(&mut self, stream: usize, epoch: u32) -> u64 {
        let s = &mut self.streams[stream];
        let seq = s.next;
        s.next += 1;
        self.sent[s.qos as usize] += 1;
        if s.lengths != Lengths::Empty {
            for party in &s.awaited_by {
                match *party {
                    Party::Reader(reader) => self.readers[reader].behind.sent(epoch),
                    Party::Group(group) => self.groups_behind[group].sent(epoch),
                }
            }
        }
        seq
    }

    /// A message is sent once more on a new connection.
    pub(crate) fn send_again(&mut self, stream: usize, seq: u64) {
        self.streams[stream].again.insert(seq);
    }

    /// A message will not be sent again and was not acknowledged.
    pub(crate) fn give_up(&mut self, stream: usize, seq: u64, epoch: u32) {
        let s = &mut self.streams[stream];
        s.unsure.insert(seq);
        if s.lengths == Lengths::Empty {
            return;
        }
        for party in &s.awaited_by {
            match *party {
                Party::Reader(reader) => {
                    let reader = &mut self.readers[reader];
                    if reader.pages[stream].as_ref().is_none_or(|page| page.last < seq) {
                        reader.behind.settled(epoch);
                    }
                }
                Party::Group(group) if !self.groups[group].has(stream, seq) => {
                    self.groups_behind[group].settled(epoch);
                }
                Party::Group(_) => {}
            }
        }
    }

    /// SUBACK came to a reader: what is sent from now on is for it.
    pub(crate) fn subscribed(&mut self, reader: usize) {
        let r = &mut self.readers[reader];
        for (stream, s) in self.streams.iter_mut().enumerate() {
            let granted =
                r.filters.iter().filter(|(filter, _)| matches(filter, &s.topic)).map(|(_, qos)| *qos);
            let Some(qos) = granted.max().map(|qos| qos.min(s.qos)) else { continue };
            if r.pages[stream].is_none() {
                let (missing, skipped) = (BTreeSet::new(), BTreeSet::new());
                r.pages[stream] = Some(Page { from: s.next, last: 0, missing, skipped, qos, empties: 0 });
                if r.durable && qos > QoS::AtMostOnce {
                    s.awaited_by.push(Party::Reader(reader));
                }
            }
        }
    }

    /// All members of a group have their SUBACK.
    pub(crate) fn group_subscribed(&mut self, group: usize) {
        let g = &mut self.groups[group];
        for (stream, s) in self.streams.iter_mut().enumerate() {
            if matches(&g.filter, &s.topic) && s.lengths != Lengths::Empty && !g.reads(stream) {
                g.begin(stream, s.next);
                if g.durable && s.qos.min(g.qos) > QoS::AtMostOnce {
                    s.awaited_by.push(Party::Group(group));
                }
            }
        }
    }

    /// The session of a reader ended: it begins anew.
    pub(crate) fn session_ended(&mut self, reader: usize) {
        self.readers[reader].pages.iter_mut().for_each(|page| *page = None);
    }

    /// A reader came back to its session: QoS 0 was not kept for it (4.1).
    pub(crate) fn came_back(&mut self, reader: usize) {
        let r = &mut self.readers[reader];
        for (page, s) in r.pages.iter_mut().zip(&self.streams) {
            if let Some(page) = page.as_mut().filter(|page| page.qos == QoS::AtMostOnce) {
                (page.from, page.last) = (s.next, 0);
                page.missing.clear();
                page.skipped.clear();
            }
        }
    }

    /// Which stream a message without payload is of.
    pub(crate) fn empty_stream(&self, topic: &str) -> Option<usize> {
        self.empties.get(topic).copied()
    }

    /// A message without payload came.
    pub(crate) fn received_empty(&mut self, reader: usize, stream: usize, qos: QoS) -> Result<(), String> {
        self.delivered[qos as usize] += 1;
        let Some(page) = &mut self.readers[reader].pages[stream] else {
            return Err(format!("reader {reader} got {} and never asked for it", self.streams[stream].topic));
        };
        if qos > page.qos {
            return Err(format!("reader {reader} got {} with {qos:?}", self.streams[stream].topic));
        }
        page.empties += 1;
        Ok(())
    }

    /// A letter came to a reader, as its first copy on this exchange of packets.
    pub(crate) fn received(
        &mut self,
        reader: usize,
        (stream, seq, epoch): (usize, u64, u32),
        topic: &str,
        arrival: Arrival,
    ) -> Result<(), String> {
        self.delivered[arrival.qos as usize] += 1;
        let Some(s) = self.streams.get(stream) else { return Err(format!("stream {stream} is nobody's")) };
        let what =
            || format!("message {seq} of stream {stream} ({} {:?}) to reader {reader}", s.topic, s.qos);
        if s.topic != topic {
            return Err(format!("{} came with the topic {topic}", what()));
        }
        if seq >= s.next {
            return Err(format!("{} was not sent yet", what()));
        }
        let again = s.again.contains(&seq);
        if let Some(group) = arrival.group {
            let news = self.groups[group].received(stream, seq, s.qos, arrival.dup, again);
            if news.map_err(|why| format!("{}: {why}", what()))? == News::First && !s.unsure.contains(&seq) {
                self.groups_behind[group].settled(epoch);
            }
            return Ok(());
        }
        let r = &mut self.readers[reader];
        let Some(page) = &mut r.pages[stream] else {
            return Err(format!("{} without a subscription", what()));
        };
        if arrival.qos > page.qos {
            return Err(format!(
                "{} came with {:?}, granted {:?} [MQTT-3.8.4-8]",
                what(),
                arrival.qos,
                page.qos
            ));
        }
        if seq < page.from {
            return Ok(());
        }
        if arrival.qos != page.qos {
            return Err(format!("{} came with {:?}, not {:?} [MQTT-3.8.4-8]", what(), arrival.qos, page.qos));
        }
        if seq > page.last {
            let (unsure, lost): (Vec<u64>, Vec<u64>) =
                (page.from.max(page.last + 1)..seq).partition(|seq| s.unsure.contains(seq));
            page.skipped.extend(unsure);
            if r.durable && page.qos > QoS::AtMostOnce {
                if let Some(first) = lost.first() {
                    return Err(format!(
                        "{} came, and {first} ({} in all) did not: lost, or in the wrong order [MQTT-4.6.0-6]",
                        what(),
                        lost.len()
                    ));
                }
                if !s.unsure.contains(&seq) {
                    r.behind.settled(epoch);
                }
            }
            self.lost[usize::from(page.qos > QoS::AtMostOnce)] += lost.len() as u64;
            page.missing.extend(lost);
            page.last = seq;
            return Ok(());
        }
        if page.missing.remove(&seq) {
            self.lost[usize::from(page.qos > QoS::AtMostOnce)] -= 1;
            // dropped for this reader, sent again by its publisher
            return if again {
                Ok(())
            } else {
                Err(format!("{} came after a later one [MQTT-4.6.0-6]", what()))
            };
        }
        if page.skipped.remove(&seq) {
            // its publisher had gone: nothing is promised between its connections
            return Ok(());
        }
        match page.qos {
            QoS::AtMostOnce if !again => Err(format!("{} came twice with QoS 0", what())),
            QoS::AtLeastOnce if !again && !arrival.dup => Err(format!("{} came twice, without DUP", what())),
            QoS::ExactlyOnce => Err(format!("{} came twice with QoS 2 [MQTT-4.3.3-10]", what())),
            _ => Ok(()),
        }
    }

    /// The epoch of the oldest message that a durable reader still waits for.
    pub(crate) fn oldest_awaited(&self) -> Option<u32> {
        let all = self.readers.iter().map(|reader| &reader.behind).chain(&self.groups_behind);
        all.filter_map(Behind::oldest).min()
    }

    /// What somebody with a lasting session still has to get, if anything.
    pub(crate) fn incomplete(&self) -> Option<String> {
        self.streams.iter().enumerate().find_map(|(stream, s)| {
            s.awaited_by.iter().find_map(|party| match *party {
                Party::Reader(reader) => self.unread(reader, stream, s),
                Party::Group(group) => self.not_dealt(group, stream, s),
            })
        })
    }

    fn unread(&self, reader: usize, stream: usize, s: &Stream) -> Option<String> {
        let page = self.readers[reader].pages[stream].as_ref()?;
        if s.lengths == Lengths::Empty {
            let due = (s.next - page.from) - s.unsure.range(page.from..).count() as u64;
            let text = format!("reader {reader} got {} of {due} messages of {}", page.empties, s.topic);
            return (page.empties < due).then_some(text);
        }
        let open = (page.from.max(page.last + 1)..s.next).find(|seq| !s.unsure.contains(seq))?;
        Some(format!(
            "reader {reader} has {} of stream {stream} ({} {:?}) and waits for {open} of {}",
            page.last,
            s.topic,
            s.qos,
            s.next - 1
        ))
    }

    fn not_dealt(&self, group: usize, stream: usize, s: &Stream) -> Option<String> {
        let g = &self.groups[group];
        let missing = g.missing(stream, s.next - 1, &s.unsure);
        let must = g.durable && s.qos.min(g.qos) > QoS::AtMostOnce;
        let first = missing.first().filter(|_| must)?;
        Some(format!("{} waits for {} messages of {}, first {first}", g.name, missing.len(), s.topic))
    }

    /// Messages without payload that came more than once with QoS 2.
    pub(crate) fn too_many_empties(&self) -> Option<String> {
        self.readers.iter().enumerate().find_map(|(reader, r)| {
            r.pages.iter().zip(&self.streams).find_map(|(page, s)| {
                let page = page.as_ref().filter(|page| page.qos == QoS::ExactlyOnce)?;
                let text = || format!("reader {reader} got {} messages of {}", page.empties, s.topic);
                (r.durable && page.empties > s.next - page.from).then(text)
            })
        })
    }

    /// Deliveries that were lost at QoS 0 and above, when everybody is connected and nothing more is to come.
    pub(crate) fn losses(&self) -> [u64; 2] {
        let mut lost = self.lost;
        for reader in &self.readers {
            for (page, s) in reader.pages.iter().zip(&self.streams) {
                let Some(page) = page.as_ref().filter(|_| s.lengths != Lengths::Empty) else { continue };
                let open =
                    (page.from.max(page.last + 1)..s.next).filter(|seq| !s.unsure.contains(seq)).count();
                lost[usize::from(page.qos > QoS::AtMostOnce)] += open as u64;
            }
        }
        for group in &self.groups {
            for (stream, s) in self.streams.iter().enumerate() {
                // what a member was given at QoS 0 goes with its connection, and nobody counts it
                if s.qos.min(group.qos) > QoS::AtMostOnce {
                    lost[1] += group.missing(stream, s.next - 1, &s.unsure).len() as u64;
                }
            }
        }
        lost
    }
}
