//! Who takes part, by the seed: publishers, readers of every kind, those who are both, groups, writers of retained messages,
//! crowds that come and go.

use std::time::Instant;

use fastrand::Rng;
use mqtt::{QoS, Version};

use crate::client::{Client, Habits, Task};
use crate::oracle::book::{Book, Wish};
use crate::oracle::letter::Lengths;
use crate::oracle::retained::Shelf;

/// Publishers whose messages are logged, because durable readers want them.
const LOGGED: usize = 16;
/// Publishers whose messages are not.
const DIRECT: usize = 24;
/// Publishers for groups.
const FOR_GROUPS: usize = 6;
/// Topics of each publisher, each with QoS 0, 1 and 2.
const TOPICS: usize = 2;
/// Publishers of what expires, and what expires after how many seconds: before a client is back, or never in a cycle.
const EXPIRING: usize = 3;
const EXPIRIES: [u32; 3] = [1, 2, 600];
/// Readers of it, half of them with sessions that last.
const HASTY: usize = 8;
/// Publishers for strict readers, who publish so little that nobody who reads has to be slow.
const SURE: usize = 3;
/// Those readers, half of them with sessions that last.
const STRICT: usize = 8;
/// Clients that publish to each other, and mostly do not want their own messages.
const TALKERS: usize = 6;
const DURABLE_READERS: usize = 40;
const TRANSIENT_READERS: usize = 60;
const MEMBERS: usize = 4;
/// Clients that do little but come and go.
const CROWD: usize = 24;
const WRITERS: usize = 4;
const LOOKERS: usize = 8;
const RETAINED: usize = 64;

const QOS: [QoS; 3] = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce];
/// Share name, filter, whether sessions last, the QoS that members ask for.
const GROUPS: [(&str, &str, bool, QoS); 5] = [
    ("hasty", "x/#", true, QoS::AtLeastOnce),
    ("lasting", "g/#", true, QoS::AtLeastOnce),
    ("exact", "g/#", true, QoS::ExactlyOnce),
    ("passing", "t/+/0", false, QoS::AtLeastOnce),
    ("careless", "t/#", false, QoS::AtMostOnce),
];

/// Everybody, and what is known of them before they begin.
pub(crate) struct Crew {
    pub(crate) book: Book,
    pub(crate) shelf: Shelf,
    pub(crate) clients: Vec<Client>,
    pub(crate) absent: Vec<usize>,
}

/// See the module.
pub(crate) fn hire(rng: &mut Rng, now: Instant) -> Crew {
    let mut crew =
        Crew { book: Book::default(), shelf: Shelf::new(RETAINED), clients: Vec::new(), absent: Vec::new() };
    let publishers: Vec<_> = [("d", LOGGED), ("t", DIRECT), ("g", FOR_GROUPS)]
        .into_iter()
        .flat_map(|(kind, count)| (0..count).map(move |number| (kind, number)))
        .map(|(kind, number)| (kind, streams(&mut crew.book, rng, kind, number)))
        .collect();
    let mut crowd = Vec::new();
    for number in 0..CROWD {
        let topic = format!("c/{number}");
        crowd.push(crew.book.add_stream(&topic, QoS::AtLeastOnce, Lengths::Small, false));
    }
    let expiring: Vec<_> = (0..EXPIRING).map(|number| expiring(&mut crew.book, number)).collect();
    let sure: Vec<_> = (0..SURE).map(|number| sure(&mut crew.book, number)).collect();
    let talks: Vec<_> = (0..TALKERS).map(|number| streams(&mut crew.book, rng, "e", number)).collect();
    for (kind, streams) in publishers {
        let durable = rng.bool();
        let habits = Habits {
            life: rng.bool().then_some((200, 8000)),
            naps: (rng.u32(0..4) == 0).then_some((4000, 1500)),
            ..publishers_habits(rng, durable)
        };
        let window = rng.usize(1..=24);
        crew.add_publisher(rng, kind, habits, Task { streams, window, ..Task::default() }, now);
    }
    for streams in expiring {
        // before version 5 nothing expires
        let habits = Habits { version: Version::V5, ..publishers_habits(rng, true) };
        let task = Task { streams, window: 8, paced: true, ..Task::default() };
        crew.add_publisher(rng, "x", habits, task, now);
    }
    for streams in sure {
        let durable = rng.bool();
        let habits = Habits { life: rng.bool().then_some((200, 8000)), ..publishers_habits(rng, durable) };
        let task = Task { streams, window: 8, paced: true, ..Task::default() };
        crew.add_publisher(rng, "sure", habits, task, now);
    }
    for streams in talks {
        crew.add_talker(rng, streams, now);
    }
    for number in 0..DURABLE_READERS {
        let wishes = wishes(rng, "d", LOGGED, number < 2);
        crew.add_reader(rng, true, wishes, now);
    }
    for number in 0..TRANSIENT_READERS {
        let (kind, count) = if number % 3 == 0 { ("d", LOGGED) } else { ("t", DIRECT) };
        let wishes = wishes(rng, kind, count, number < 4);
        crew.add_reader(rng, false, wishes, now);
    }
    for number in 0..HASTY {
        let wishes = wishes(rng, "x", EXPIRING, number < 2);
        crew.add_reader(rng, number % 2 == 0, wishes, now);
    }
    for number in 0..STRICT {
        crew.add_strict(rng, number, now);
    }
    crew.add_groups(rng, now);
    crew.add_watchers(rng, now);
    for stream in crowd {
        let habits = Habits {
            fickle: true,
            life: Some((0, 300)),
            away: (0, 200),
            will: rng.bool(),
            ..habits(rng, false)
        };
        crew.add("crowd", habits, Task { streams: vec![stream], window: 2, ..Task::default() }, now);
    }
    crew
}

/// The streams of one publisher.
fn streams(book: &mut Book, rng: &mut Rng, kind: &str, number: usize) -> Vec<usize> {
    let mut streams = Vec::new();
    for topic in 0..TOPICS {
        let lengths = match rng.u32(0..16) {
            0 => Lengths::Large,
            1..7 => Lengths::Mixed,
            _ => Lengths::Small,
        };
        for qos in QOS {
            let name = format!("{kind}/{number}/{topic}");
            streams.push(book.add_stream(&name, qos, lengths, kind != "t"));
        }
    }
    if kind == "d" && number.is_multiple_of(4) {
        let qos = QOS[1 + number / 4 % 2];
        streams.push(book.add_stream(&format!("d/{number}/empty"), qos, Lengths::Empty, true));
    }
    streams
}

/// Streams of what expires: each time with each QoS. They lie in the log, but are too few to fill it: readers may be behind.
fn expiring(book: &mut Book, number: usize) -> Vec<usize> {
    let mut streams = Vec::new();
    for (topic, seconds) in EXPIRIES.into_iter().enumerate() {
        for qos in QOS {
            let stream = book.add_stream(&format!("x/{number}/{topic}"), qos, Lengths::Small, false);
            book.streams[stream].expires = Some(seconds);
            streams.push(stream);
        }
    }
    streams
}

/// Streams that are too slow for any excuse. They lie in the log, but are too few to fill it.
fn sure(book: &mut Book, number: usize) -> Vec<usize> {
    let streams = (0..TOPICS).flat_map(|topic| QOS.map(|qos| (topic, qos)));
    let lengths = [Lengths::Small, Lengths::Mixed];
    streams
        .map(|(topic, qos)| book.add_stream(&format!("s/{number}/{topic}"), qos, lengths[topic], false))
        .collect()
}

/// Filters that overlap more often than not; `all`: everything of this kind.
fn wishes(rng: &mut Rng, kind: &str, publishers: usize, all: bool) -> Vec<Wish> {
    let count = rng.usize(1..=3);
    let mut wishes: Vec<Wish> = Vec::new();
    if all {
        wishes.push(Wish::new(&format!("{kind}/#"), QOS[rng.usize(1..3)]));
    }
    let publisher = rng.usize(0..publishers);
    for _ in 0..count {
        let topic = rng.usize(0..TOPICS);
        let filter = match rng.u32(0..20) {
            0..9 => format!("{kind}/{publisher}/{topic}"),
            9..14 => format!("{kind}/{publisher}/+"),
            14..18 => format!("{kind}/{publisher}/#"),
            18 => format!("{kind}/+/{topic}"),
            _ => format!("{kind}/{}/{topic}", rng.usize(0..publishers)),
        };
        if wishes.iter().all(|other| other.filter != filter) {
            wishes.push(Wish::new(&filter, QOS[[0, 1, 1, 1, 1, 2, 2, 2][rng.usize(0..8)]]));
        }
    }
    wishes
}

/// What only version 5 can wish. Identifiers that differ need a SUBSCRIBE for each, and so a time in which nobody publishes:
/// sessions that last begin in one.
fn embellish(rng: &mut Rng, habits: &Habits, wishes: &mut [Wish]) {
    if !habits.version.is_v5() {
        return;
    }
    let (with, apart) = (rng.bool(), habits.durable);
    for (number, wish) in wishes.iter_mut().enumerate() {
        wish.retain_as_published = rng.bool();
        let number = if apart { number as u32 + 1 } else { 268_435_455 };
        wish.identifier = (with && (!apart || rng.u32(0..4) > 0)).then_some(number);
    }
}

/// The habits of those who publish.
fn publishers_habits(rng: &mut Rng, durable: bool) -> Habits {
    Habits { uses_aliases: rng.bool(), ..habits(rng, durable) }
}

/// What differs from client to client whatever it is for.
fn habits(rng: &mut Rng, durable: bool) -> Habits {
    let version = if rng.u32(0..5) < 3 { Version::V5 } else { Version::V311 };
    Habits {
        version,
        durable,
        fickle: false,
        life: None,
        away: (0, 1000),
        naps: None,
        lazy: (rng.u32(0..4) == 0).then(|| rng.u64(1..40)),
        receive_buffer: (rng.u32(0..4) == 0).then(|| rng.usize(2..32) * 1024),
        receive_maximum: if rng.bool() { rng.u16(1..=8) } else { rng.u16(9..=200) },
        alias_maximum: if rng.bool() { rng.u16(1..=6) } else { 0 },
        largest: None,
        web: rng.u32(0..5) == 0,
        uses_aliases: false,
        will: rng.u32(0..3) == 0,
    }
}

impl Crew {
    fn add(&mut self, kind: &str, habits: Habits, task: Task, now: Instant) {
        let number = self.clients.len();
        self.clients.push(Client::new(number, kind, habits, task, now));
    }

    /// Adds one who publishes; what of it has properties is chosen here.
    fn add_publisher(&mut self, rng: &mut Rng, kind: &str, habits: Habits, task: Task, now: Instant) {
        for stream in &task.streams {
            let stream = &mut self.book.streams[*stream];
            stream.trimmed = habits.version.is_v5() && stream.lengths != Lengths::Empty && rng.bool();
        }
        self.add(kind, habits, task, now);
    }

    fn add_reader(&mut self, rng: &mut Rng, durable: bool, mut wishes: Vec<Wish>, now: Instant) {
        let habits = Habits {
            life: (rng.u32(0..5) < 3).then_some((100, 6000)),
            naps: (rng.u32(0..3) == 0).then_some((3000, 2500)),
            ..habits(rng, durable)
        };
        let small = habits.version.is_v5() && rng.u32(0..4) == 0;
        let largest = small.then(|| rng.u32(400..40_000));
        let habits = Habits { largest, ..habits };
        embellish(rng, &habits, &mut wishes);
        let reader = self.book.add_reader(durable, &wishes);
        if let Some(largest) = largest {
            self.book.takes_at_most(reader, largest as usize);
        }
        let task = Task { reader: Some(reader), wishes, ..Task::default() };
        self.add(if durable { "durable" } else { "transient" }, habits, task, now);
    }

    /// Adds one who must get everything, once where that is promised: messages never expire before the cycle ends and are never
    /// too large. Half of them die and come back to their sessions; the others have none, stay, and read as fast as they can.
    fn add_strict(&mut self, rng: &mut Rng, number: usize, now: Instant) {
        let durable = number.is_multiple_of(2);
        let habits = Habits {
            life: durable.then_some((100, 6000)),
            naps: durable.then_some((3000, 2500)),
            ..habits(rng, durable)
        };
        let habits = match durable {
            true => habits,
            false => Habits { lazy: None, receive_buffer: None, receive_maximum: 200, ..habits },
        };
        let mut wishes = vec![Wish::new("s/#", QOS[1 + number / 2 % 2])];
        if rng.bool() {
            wishes.push(Wish::new(&format!("s/{}/+", rng.usize(0..SURE)), QoS::ExactlyOnce));
        }
        if rng.bool() {
            wishes.push(Wish::new(&format!("x/+/{}", EXPIRIES.len() - 1), QoS::ExactlyOnce));
        }
        embellish(rng, &habits, &mut wishes);
        let reader = self.book.add_reader(durable, &wishes);
        self.book.is_strict(reader);
        self.add("strict", habits, Task { reader: Some(reader), wishes, ..Task::default() }, now);
    }

    /// Adds one who reads what it and others like it publish. Those that could stop the others by being slow have no naps.
    fn add_talker(&mut self, rng: &mut Rng, streams: Vec<usize>, now: Instant) {
        let durable = rng.bool();
        let habits = Habits { life: rng.bool().then_some((300, 6000)), ..publishers_habits(rng, durable) };
        let mut wishes = wishes(rng, "e", TALKERS, true);
        embellish(rng, &habits, &mut wishes);
        for wish in &mut wishes {
            wish.no_local = habits.version.is_v5() && rng.u32(0..4) > 0;
        }
        let reader = self.book.add_reader(durable, &wishes);
        self.book.publishes(reader, &streams);
        let task = Task { reader: Some(reader), wishes, streams, window: 8, ..Task::default() };
        self.add_publisher(rng, "talker", habits, task, now);
    }

    fn add_groups(&mut self, rng: &mut Rng, now: Instant) {
        for (name, filter, durable, qos) in GROUPS {
            let group = self.book.add_group(name, filter, durable, qos);
            self.absent.push(MEMBERS);
            for member in 0..MEMBERS {
                let reader = self.book.add_reader(durable, &[]);
                let habits = Habits {
                    // one stays: what its group gets has somewhere to go
                    life: (member > 0).then_some((300, 6000)),
                    naps: (member == 2).then_some((3000, 1500)),
                    ..habits(rng, durable)
                };
                let mut wishes = vec![Wish::new(&format!("$share/{name}/{filter}"), qos)];
                embellish(rng, &habits, &mut wishes);
                let task = Task { reader: Some(reader), wishes, group: Some(group), ..Task::default() };
                self.add(name, habits, task, now);
            }
        }
    }

    /// Those who write and look at retained messages, and who waits for wills.
    fn add_watchers(&mut self, rng: &mut Rng, now: Instant) {
        let watcher = Task { wishes: vec![Wish::new("w/#", QoS::AtLeastOnce)], ..Task::default() };
        let habits_of_watcher = Habits { will: false, lazy: None, receive_buffer: None, ..habits(rng, true) };
        self.add("watcher", habits_of_watcher, watcher, now);
        for writer in 0..WRITERS {
            let shelf = (0..RETAINED).filter(|topic| topic % WRITERS == writer).collect();
            let habits = habits(rng, false);
            self.add("writer", habits, Task { shelf, window: 4, ..Task::default() }, now);
        }
        for _ in 0..LOOKERS {
            let habits = Habits { life: Some((20, 1000)), ..habits(rng, false) };
            let mut wishes = vec![Wish::new("r/#", QOS[rng.usize(0..2)])];
            embellish(rng, &habits, &mut wishes);
            wishes[0].only_new = habits.version.is_v5() && rng.u32(0..4) == 0;
            self.add("looker", habits, Task { looks: true, wishes, ..Task::default() }, now);
        }
    }
}
