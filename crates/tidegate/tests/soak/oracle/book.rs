//! Streams and who reads them: whether each message came as often, and in the order, that its QoS promises.
//!
//! A stream is what one publisher sends to one topic with one QoS: inside it the order is promised [MQTT-4.6.0-6], so what a
//! reader has is a number, and what it misses below that number was lost. What a publisher gave up before it was acknowledged
//! is `unsure`: it may come or not. A reader that ends with its connection may lose what its bounds do not hold; that is
//! counted and compared with what the broker says it dropped. A durable one may lose nothing but what was too old or too large
//! for it. A strict one may lose nothing at all, and has a second account, of every message by its number, that knows no excuses.

use std::collections::{BTreeSet, HashMap, VecDeque};

use mqtt::QoS;
use mqtt::filter::matches;

use super::groups::{Group, News};
use super::letter::{Lengths, length};
use super::trimmings;

/// Epochs in a second.
pub(crate) const SECOND: u32 = 50;
/// Epochs by which the broker may think that it is later than it is: it looks at the clock once in a turn.
const EARLY: u32 = 10;

/// What a reader asks for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wish {
    pub(crate) filter: String,
    pub(crate) qos: QoS,
    /// Version 5: not its own messages.
    pub(crate) no_local: bool,
    /// Version 5: forwarded messages keep their retain flag.
    pub(crate) retain_as_published: bool,
    /// Version 5: no retained messages.
    pub(crate) only_new: bool,
    /// Version 5: the Subscription Identifier.
    pub(crate) identifier: Option<u32>,
}

impl Wish {
    pub(crate) fn new(filter: &str, qos: QoS) -> Self {
        Self { filter: filter.to_owned(), qos, ..Self::default() }
    }
}

/// What one publisher sends to one topic with one QoS.
#[derive(Debug)]
pub(crate) struct Stream {
    pub(crate) topic: String,
    pub(crate) qos: QoS,
    pub(crate) lengths: Lengths,
    /// Durable readers want it: its messages are in the log, which has a bound.
    pub(crate) logged: bool,
    /// Its messages have properties.
    pub(crate) trimmed: bool,
    /// Seconds after which a message may be missing.
    pub(crate) expires: Option<u32>,
    /// The epochs in which they were sent, where they expire.
    sent_in: Vec<u32>,
    /// The number of the next message.
    next: u64,
    unsure: BTreeSet<u64>,
    again: BTreeSet<u64>,
    /// Durable readers and groups that wait for each message.
    awaited_by: Vec<Party>,
}

impl Stream {
    /// A message may be missing by now, because it was too old.
    fn is_old(&self, seq: u64, now: u32) -> bool {
        let sent = usize::try_from(seq).ok().and_then(|seq| self.sent_in.get(seq.checked_sub(1)?));
        self.expires.zip(sent).is_some_and(|(seconds, sent)| now + EARLY >= sent + seconds * SECOND)
    }

    /// What came says rightly how long it may still be kept [MQTT-3.3.2-6].
    fn check_interval(&self, epoch: u32, now: u32, interval: Option<u32>) -> Result<(), String> {
        let right = match (self.expires, interval) {
            (None, None) => true,
            (Some(most), Some(left)) => {
                let waited = (now.saturating_sub(epoch) + EARLY) / SECOND + 1;
                left <= most && left + waited >= most
            }
            _ => false,
        };
        if right {
            Ok(())
        } else {
            Err(format!("it expires in {interval:?} s, sent with {:?}", self.expires))
        }
    }

    /// Whether it is small enough for whoever takes so many bytes in a packet; `None`: nobody says how many it is packed in.
    fn fits(&self, stream: usize, seq: u64, takes: Option<usize>) -> Option<bool> {
        let Some(takes) = takes else { return Some(true) };
        let payload = length(self.lengths, u16::try_from(stream).unwrap_or(u16::MAX), seq);
        let around = self.topic.len() + 64 + if self.trimmed { trimmings::MOST } else { 0 };
        match () {
            () if payload + around <= takes => Some(true),
            () if payload > takes => Some(false),
            () => None,
        }
    }
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
    /// The identifiers of all its subscriptions that match, in order.
    identifiers: Vec<u32>,
}

impl Page {
    fn new(from: u64, qos: QoS, identifiers: Vec<u32>) -> Self {
        let (missing, skipped) = (BTreeSet::new(), BTreeSet::new());
        Self { from, last: 0, missing, skipped, qos, empties: 0, identifiers }
    }
}

/// A subscriber without its groups.
#[derive(Debug, Default)]
pub(crate) struct Reader {
    durable: bool,
    /// How often each message of each stream came, for a strict one.
    ledger: Option<HashMap<usize, Vec<u8>>>,
    wishes: Vec<Wish>,
    /// Streams that it publishes itself.
    own: Vec<usize>,
    /// The bytes of the largest packet that it takes.
    takes: Option<usize>,
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

impl Reader {
    /// It is promised every message of this QoS. A strict one that ends with its connection stays, and is never slow.
    fn is_promised(&self, qos: QoS) -> bool {
        if self.durable { qos > QoS::AtMostOnce } else { self.ledger.is_some() }
    }

    /// Nothing is an excuse if it does not get this message.
    fn must_have(&self, s: &Stream, stream: usize, seq: u64) -> bool {
        s.expires.is_none() && s.fits(stream, seq, self.takes) == Some(true)
    }
}

impl Reader {
    /// A message came, whatever it is.
    fn count(&mut self, stream: usize, seq: u64) {
        let Some(ledger) = &mut self.ledger else { return };
        let counts = ledger.entry(stream).or_default();
        let at = usize::try_from(seq).unwrap_or(usize::MAX);
        // what nobody sent is found elsewhere
        if at <= counts.len() + (1 << 20) {
            counts.resize(counts.len().max(at + 1), 0);
            counts[at] = counts[at].saturating_add(1);
        }
    }

    /// What a strict one got too seldom or too often.
    fn unbalanced(&self, stream: usize, s: &Stream) -> Option<String> {
        let (ledger, page) = (self.ledger.as_ref()?, self.pages[stream].as_ref()?);
        if s.lengths == Lengths::Empty || !self.is_promised(page.qos) {
            return None;
        }
        let counts = ledger.get(&stream).map_or(&[][..], Vec::as_slice);
        (page.from..s.next).find_map(|seq| {
            let count = usize::try_from(seq).ok().and_then(|at| counts.get(at)).copied().unwrap_or(0);
            let again =
                page.qos == QoS::AtLeastOnce || (page.qos == QoS::AtMostOnce && s.again.contains(&seq));
            let wrong = (count == 0 && !s.unsure.contains(&seq)) || (count > 1 && !again);
            wrong.then(|| format!("message {seq} of {} {:?} {count} times", s.topic, page.qos))
        })
    }

    /// A message of one of its streams.
    fn got(
        &mut self,
        s: &Stream,
        (stream, seq, epoch): (usize, u64, u32),
        arrival: Arrival<'_>,
        lost: &mut Losses,
    ) -> Result<(), String> {
        let must_have = self.must_have(s, stream, seq);
        self.count(stream, seq);
        let promised = self.pages[stream].as_ref().is_some_and(|page| self.is_promised(page.qos));
        let Some(page) = &mut self.pages[stream] else {
            let own = if self.own.contains(&stream) { ", its own [MQTT-3.8.3-3]" } else { "" };
            return Err(format!("without a subscription{own}"));
        };
        let (wrong, granted) = (arrival.qos, page.qos);
        if wrong > granted || (wrong < granted && seq >= page.from) {
            return Err(format!("with {wrong:?}, granted {granted:?} [MQTT-3.8.4-8]"));
        }
        if seq < page.from {
            return Ok(());
        }
        if arrival.identifiers != page.identifiers {
            let (got, due) = (arrival.identifiers, &page.identifiers);
            return Err(format!(
                "with the identifiers {got:?}, its subscriptions have {due:?} [MQTT-3.3.4-3]"
            ));
        }
        let kind = usize::from(page.qos > QoS::AtMostOnce);
        if seq > page.last {
            let open = page.from.max(page.last + 1)..seq;
            page.last = seq;
            let gone = gap(page, open, s, stream, (self.takes, arrival.now), lost);
            if promised {
                if let Some(first) = gone.first() {
                    let count = gone.len();
                    return Err(format!(
                        "and {first} ({count} in all) did not: lost, or in the wrong order [MQTT-4.6.0-6]"
                    ));
                }
                if must_have && !s.unsure.contains(&seq) {
                    self.behind.settled(epoch);
                }
            }
            lost.dropped[kind] += gone.len() as u64;
            page.missing.extend(gone);
            return Ok(());
        }
        let again = s.again.contains(&seq);
        if page.missing.remove(&seq) {
            lost.dropped[kind] -= 1;
            // dropped for this reader, sent again by its publisher
            return if again { Ok(()) } else { Err("after a later one [MQTT-4.6.0-6]".to_owned()) };
        }
        if page.skipped.remove(&seq) {
            // its publisher had gone: nothing is promised between its connections
            return Ok(());
        }
        match page.qos {
            QoS::AtMostOnce if !again => Err("twice with QoS 0".to_owned()),
            QoS::AtLeastOnce if !again && !arrival.dup => Err("twice, without DUP".to_owned()),
            QoS::ExactlyOnce => Err("twice with QoS 2 [MQTT-4.3.3-10]".to_owned()),
            _ => Ok(()),
        }
    }
}

/// Messages that did not come where later ones did: given up, too old, too large; what is left is given back.
fn gap(
    page: &mut Page,
    open: std::ops::Range<u64>,
    s: &Stream,
    stream: usize,
    (takes, now): (Option<usize>, u32),
    lost: &mut Losses,
) -> Vec<u64> {
    let mut gone = Vec::new();
    for seq in open {
        match s.fits(stream, seq, takes) {
            _ if s.unsure.contains(&seq) => drop(page.skipped.insert(seq)),
            Some(false) => lost.large += 1,
            None => drop(page.skipped.insert(seq)),
            Some(true) if s.is_old(seq, now) => lost.old += 1,
            Some(true) => gone.push(seq),
        }
    }
    gone
}

/// What came to whom.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arrival<'a> {
    pub(crate) qos: QoS,
    pub(crate) dup: bool,
    /// The group in whose place the reader got it.
    pub(crate) group: Option<usize>,
    /// The reader's connection may be over before it knows.
    pub(crate) open: bool,
    /// The epoch that is now.
    pub(crate) now: u32,
    /// Its Subscription Identifiers, in order.
    pub(crate) identifiers: &'a [u32],
}

/// Deliveries that did not happen to readers without a session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Losses {
    /// Dropped for want of room, at QoS 0 and above.
    pub(crate) dropped: [u64; 2],
    /// Perhaps too old, to whomever.
    pub(crate) old: u64,
    /// Larger than whoever takes, to whomever.
    pub(crate) large: u64,
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
    /// Deliveries that were missed.
    lost: Losses,
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
            trimmed: false,
            expires: None,
            sent_in: Vec::new(),
            next: 1,
            unsure: BTreeSet::new(),
            again: BTreeSet::new(),
            awaited_by: Vec::new(),
        });
        stream
    }

    /// Adds a reader; its number. All streams are there.
    pub(crate) fn add_reader(&mut self, durable: bool, wishes: &[Wish]) -> usize {
        let pages = self.streams.iter().map(|_| None).collect();
        self.readers.push(Reader { durable, wishes: wishes.to_vec(), pages, ..Reader::default() });
        self.readers.len() - 1
    }

    /// A reader is strict: no message is too old or too large for it, and if it has no session that lasts, it stays and is never
    /// slow.
    pub(crate) fn is_strict(&mut self, reader: usize) {
        self.readers[reader].ledger = Some(HashMap::new());
    }

    /// A reader takes no larger packet.
    pub(crate) fn takes_at_most(&mut self, reader: usize, bytes: usize) {
        self.readers[reader].takes = Some(bytes);
    }

    /// A reader publishes these streams itself.
    pub(crate) fn publishes(&mut self, reader: usize, streams: &[usize]) {
        self.readers[reader].own = streams.to_vec();
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
        if s.expires.is_some() {
            s.sent_in.push(epoch);
        } else if s.lengths != Lengths::Empty {
            let s = &self.streams[stream];
            for party in &s.awaited_by {
                match *party {
                    Party::Reader(reader) if !self.readers[reader].must_have(s, stream, seq) => {}
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
        if s.lengths == Lengths::Empty || s.expires.is_some() {
            return;
        }
        let s = &self.streams[stream];
        for party in &s.awaited_by {
            match *party {
                Party::Reader(reader) => {
                    let reader = &mut self.readers[reader];
                    let must = reader.must_have(s, stream, seq);
                    if must && reader.pages[stream].as_ref().is_none_or(|page| page.last < seq) {
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
            let own = r.own.contains(&stream);
            let wanted = |wish: &&Wish| matches(&wish.filter, &s.topic) && !(own && wish.no_local);
            let granted: Vec<&Wish> = r.wishes.iter().filter(wanted).collect();
            let Some(qos) = granted.iter().map(|wish| wish.qos.min(s.qos)).max() else { continue };
            if r.pages[stream].is_none() {
                let mut identifiers: Vec<u32> = granted.iter().filter_map(|wish| wish.identifier).collect();
                identifiers.sort_unstable();
                r.pages[stream] = Some(Page::new(s.next, qos, identifiers));
                if r.is_promised(qos) {
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
        arrival: Arrival<'_>,
    ) -> Result<(), String> {
        self.delivered[arrival.qos as usize] += 1;
        let Some(s) = self.streams.get(stream) else { return Err(format!("stream {stream} is nobody's")) };
        let judged = if s.topic != topic {
            Err(format!("with the topic {topic}"))
        } else if seq >= s.next {
            Err("before it was sent".to_owned())
        } else if let Some(group) = arrival.group {
            let again = s.again.contains(&seq);
            let signs = (arrival.dup, again, arrival.open);
            let news = self.groups[group].received(reader, (stream, seq), s.qos, signs);
            news.map(|news| {
                if news == News::First && !s.unsure.contains(&seq) && s.expires.is_none() {
                    self.groups_behind[group].settled(epoch);
                }
            })
        } else {
            self.readers[reader].got(s, (stream, seq, epoch), arrival, &mut self.lost)
        };
        judged.map_err(|why| {
            format!(
                "message {seq} of stream {stream} ({} {:?}) came to reader {reader} {why}",
                s.topic, s.qos
            )
        })
    }

    /// Whether it was still worth to be delivered for so long; see [`Stream::check_interval`].
    pub(crate) fn check_interval(
        &self,
        (stream, epoch): (usize, u32),
        now: u32,
        interval: Option<u32>,
    ) -> Result<(), String> {
        self.streams.get(stream).map_or(Ok(()), |s| s.check_interval(epoch, now, interval))
    }

    /// The epoch of the oldest message that a durable reader still waits for.
    pub(crate) fn oldest_awaited(&self) -> Option<u32> {
        let all = self.readers.iter().map(|reader| &reader.behind).chain(&self.groups_behind);
        all.filter_map(Behind::oldest).min()
    }

    /// What somebody with a lasting session still has to get, if anything.
    pub(crate) fn incomplete(&self, now: u32) -> Option<String> {
        self.streams.iter().enumerate().find_map(|(stream, s)| {
            s.awaited_by.iter().find_map(|party| match *party {
                Party::Reader(reader) => self.unread(reader, stream, s, now),
                Party::Group(group) => self.not_dealt(group, stream, s, now),
            })
        })
    }

    fn unread(&self, reader: usize, stream: usize, s: &Stream, now: u32) -> Option<String> {
        let r = &self.readers[reader];
        let page = r.pages[stream].as_ref()?;
        if s.lengths == Lengths::Empty {
            let due = (s.next - page.from) - s.unsure.range(page.from..).count() as u64;
            let text = format!("reader {reader} got {} of {due} messages of {}", page.empties, s.topic);
            return (page.empties < due).then_some(text);
        }
        let must = |seq: &u64| {
            !s.unsure.contains(seq) && !s.is_old(*seq, now) && s.fits(stream, *seq, r.takes) == Some(true)
        };
        let open = (page.from.max(page.last + 1)..s.next).find(must)?;
        Some(format!(
            "reader {reader} has {} of stream {stream} ({} {:?}) and waits for {open} of {}",
            page.last,
            s.topic,
            s.qos,
            s.next - 1
        ))
    }

    fn not_dealt(&self, group: usize, stream: usize, s: &Stream, now: u32) -> Option<String> {
        let g = &self.groups[group];
        let mut missing = g.missing(stream, s.next - 1, &s.unsure);
        missing.retain(|seq| !s.is_old(*seq, now));
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

    /// What a strict reader got too seldom or too often, when nothing more is to come.
    pub(crate) fn unbalanced(&self) -> Option<String> {
        self.readers.iter().enumerate().find_map(|(reader, r)| {
            let what = self.streams.iter().enumerate().find_map(|(stream, s)| r.unbalanced(stream, s));
            what.map(|what| format!("reader {reader}, who is strict, got {what}"))
        })
    }

    /// Deliveries that did not happen, when everybody is connected and nothing more is to come.
    pub(crate) fn losses(&self, now: u32) -> Losses {
        let mut lost = self.lost;
        for reader in &self.readers {
            for (stream, (page, s)) in reader.pages.iter().zip(&self.streams).enumerate() {
                let Some(page) = page.as_ref().filter(|_| s.lengths != Lengths::Empty) else { continue };
                for seq in page.from.max(page.last + 1)..s.next {
                    match s.fits(stream, seq, reader.takes) {
                        _ if s.unsure.contains(&seq) => {}
                        Some(false) => lost.large += 1,
                        None => {}
                        Some(true) if s.is_old(seq, now) => lost.old += 1,
                        Some(true) => lost.dropped[usize::from(page.qos > QoS::AtMostOnce)] += 1,
                    }
                }
            }
        }
        for group in &self.groups {
            for (stream, s) in self.streams.iter().enumerate() {
                // what a member was given at QoS 0 goes with its connection, and nobody counts it
                if s.qos.min(group.qos) > QoS::AtMostOnce {
                    let missing = group.missing(stream, s.next - 1, &s.unsure);
                    let old = missing.iter().filter(|seq| s.is_old(**seq, now)).count();
                    lost.old += old as u64;
                    lost.dropped[1] += (missing.len() - old) as u64;
                }
            }
        }
        lost
    }
}
