//! What a broker reads from its engine before it serves: the end of the log, the sessions that wait, the wills that were owed,
//! the retained messages. With the memory engine there is nothing; the code is the same for all.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, Mutex, PoisonError, Weak};
use std::time::Duration;

use engine::{Arrival, Change, Engine, EngineError, Inbox, Key, Op, Port, Pos, Record, Reply, Shard};
use hashbrown::HashMap;
use mqtt::{PacketId, QoS};

use crate::kept::Kept;
use crate::message::{Message, NEVER};
use crate::record::{self, Reader};
use crate::router::{Receiver, Subscription};
use crate::session_store::{self, Offline, StoredFlight};
use crate::share::group::StoredGroup;
use crate::share::is_shared;
use crate::shared::Shared;
use crate::subscriptions::Subscriptions;

/// How long the engine may take for one answer at start.
const DEADLINE: Duration = Duration::from_secs(30);
const PAGE: usize = 4_096;

/// The control side's port: answers for [`recover`], and from then on the feed of the retained replica.
pub(crate) struct ControlInbox {
    shared: Weak<Shared>,
    answers: Mutex<Vec<Arrival>>,
    arrived: Condvar,
}

impl Inbox for ControlInbox {
    fn deliver(&self, batch: Vec<Arrival>) {
        for arrival in batch {
            match arrival {
                Arrival::Changed { changes, .. } => {
                    if let Some(shared) = self.shared.upgrade() {
                        apply_retained(&shared, changes);
                    }
                }
                Arrival::Done { .. } | Arrival::WatchReady { .. } => {
                    // bounded: one operation at a time, and only while the broker starts
                    self.answers.lock().unwrap_or_else(PoisonError::into_inner).push(arrival);
                    self.arrived.notify_all();
                }
                Arrival::Frames { .. }
                | Arrival::Truncated { .. }
                | Arrival::Lane { .. }
                | Arrival::LaneGap { .. }
                | Arrival::LeaseLost { .. } => {}
            }
        }
    }
}

fn apply_retained(shared: &Shared, changes: Vec<Change>) {
    let mut retained = shared.retained.write().unwrap_or_else(PoisonError::into_inner);
    for change in changes {
        let Ok(topic) = String::from_utf8(change.key.last_part()) else { continue };
        let bytes = |kept: Option<Kept>| kept.map_or(0, |kept| kept.payload_len());
        match change.value {
            None => {
                shared.retained_bytes.fetch_sub(bytes(retained.remove(&topic)), Ordering::Relaxed);
            }
            Some(value) => match Kept::read(&topic, value) {
                Some(kept) => {
                    let more = kept.payload_len();
                    let before = bytes(retained.insert(kept));
                    shared.retained_bytes.fetch_add(more.wrapping_sub(before), Ordering::Relaxed);
                }
                None => tracing::error!(topic, "a retained message is damaged"),
            },
        }
    }
}

impl ControlInbox {
    pub(crate) fn new(shared: &Arc<Shared>) -> Arc<Self> {
        Arc::new(Self { shared: Arc::downgrade(shared), answers: Mutex::default(), arrived: Condvar::new() })
    }

    fn wait(&self) -> Result<Arrival, EngineError> {
        let answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut answers, _) = self
            .arrived
            .wait_timeout_while(answers, DEADLINE, |a| a.is_empty())
            .unwrap_or_else(PoisonError::into_inner);
        if answers.is_empty() { Err(EngineError::Unavailable) } else { Ok(answers.remove(0)) }
    }

    fn ask(&self, engine: &dyn Engine, port: Port, op: Op) -> Result<Reply, EngineError> {
        engine.submit(port, vec![(0, op)]);
        match self.wait()? {
            Arrival::Done { result, .. } => result,
            _ => Err(EngineError::Unknown),
        }
    }

    fn scan(&self, engine: &dyn Engine, port: Port, prefix: &Key) -> Result<Vec<Record>, EngineError> {
        let mut all: Vec<Record> = Vec::new();
        loop {
            let after = all.last().map(|r| r.key.clone());
            match self.ask(engine, port, Op::Scan { prefix: prefix.clone(), after, limit: PAGE })? {
                Reply::Scanned { records, more } => {
                    all.extend(records);
                    if !more {
                        return Ok(all);
                    }
                }
                _ => return Err(EngineError::Unknown),
            }
        }
    }
}

/// What recovery found.
pub(crate) struct Recovered {
    /// The end of each shard: where the workers' tails begin.
    pub(crate) tails: Vec<Pos>,
    /// Wills of clients that have no session to wait with: the process died before it could publish them. Their client ids are
    /// held until they are published and forgotten.
    pub(crate) wills: Vec<(Arc<str>, Arc<Message>)>,
    /// Groups of shared subscriptions that read the log, and how far they have.
    pub(crate) groups: Vec<(Box<str>, StoredGroup)>,
}

/// Reads everything; blocks until it is there.
pub(crate) fn recover(shared: &Arc<Shared>, unix_ms: u64) -> Result<Recovered, EngineError> {
    let engine = Arc::clone(&shared.engine);
    let inbox = ControlInbox::new(shared);
    let port = engine.attach(Arc::clone(&inbox) as Arc<dyn Inbox>);
    let mut tails = Vec::new();
    for shard in 0..shared.guarantees.shards {
        match inbox.ask(&*engine, port, Op::Head { shard: Shard(shard) })? {
            Reply::Head(pos) => tails.push(pos),
            _ => return Err(EngineError::Unknown),
        }
    }
    engine.watch(port, record::retained_prefix());
    if !matches!(inbox.wait()?, Arrival::WatchReady { .. }) {
        return Err(EngineError::Unknown);
    }
    for found in inbox.scan(&*engine, port, &record::delayed_prefix())? {
        match record::delayed_of(&found.key) {
            Some((due, number)) => shared.delayed.recovered(due, number),
            None => tracing::error!(key = ?found.key, "the key of a delayed message is damaged"),
        }
    }
    let mut wills: HashMap<String, (u32, Arc<Message>)> = HashMap::new();
    for found in inbox.scan(&*engine, port, &record::will_prefix())? {
        let will = Reader::versioned(&found.value)
            .and_then(|mut r| Some((r.u32()?, r.message()?.view().to_message())));
        if let (Ok(client_id), Some(will)) = (String::from_utf8(found.key.last_part()), will) {
            wills.insert(client_id, will);
        }
    }
    let mut groups: HashMap<Box<str>, StoredGroup> = HashMap::new();
    for found in inbox.scan(&*engine, port, &record::group_prefix())? {
        match (String::from_utf8(found.key.last_part()), StoredGroup::decode(&found.value)) {
            (Ok(name), Some(stored)) => drop(groups.insert(name.into(), stored)),
            _ => tracing::error!(key = ?found.key, "a stored group of a shared subscription is damaged"),
        }
    }
    let mut begun: HashMap<Box<str>, StoredGroup> = HashMap::new();
    for mut offline in sessions(&inbox.scan(&*engine, port, &record::session_prefix())?) {
        offline.will = wills
            .remove(&*offline.client_id)
            .map(|(delay, message)| (unix_ms.saturating_add(u64::from(delay) * 1000), message));
        for (filter, s) in offline.subscriptions.iter() {
            if is_shared(filter) && s.options.qos > QoS::AtMostOnce && !groups.contains_key(filter) {
                begin_group(&mut begun, filter, s.starts.as_deref().unwrap_or(&tails));
            }
        }
        shared.store.insert(adopt(shared, offline));
    }
    groups.extend(begun);
    let wills: Vec<(Arc<str>, Arc<Message>)> =
        wills.into_iter().map(|(client_id, (_, message))| (client_id.into(), message)).collect();
    for (client_id, _) in &wills {
        shared.store.hold(client_id);
    }
    Ok(Recovered { tails, wills, groups: groups.into_iter().collect() })
}

/// A group that was never written: it begins where the first of its durable members subscribed.
fn begin_group(groups: &mut HashMap<Box<str>, StoredGroup>, name: &str, starts: &[Pos]) {
    match groups.get_mut(name) {
        Some(group) => group.cursors.iter_mut().zip(starts).for_each(|(at, &start)| *at = start.min(*at)),
        None => {
            let stored = StoredGroup { cursors: starts.into(), returned: Vec::new() };
            groups.insert(name.into(), stored);
        }
    }
}

/// Makes the routes of a session that waits.
fn adopt(shared: &Shared, offline: Offline) -> Offline {
    let receiver = Receiver { session: offline.key, address: None, durable: true };
    for (filter, s) in offline.subscriptions.iter() {
        if s.exclusive {
            shared.exclusive.claim(filter, offline.key);
        }
        shared.router.subscribe(
            filter,
            receiver,
            Subscription {
                qos: s.options.qos,
                no_local: s.options.no_local,
                retain_as_published: s.options.retain_as_published,
                identifier: s.identifier,
            },
        );
    }
    offline
}

/// Sessions from the records below `default/s/`.
fn sessions(records: &[Record]) -> Vec<Offline> {
    let prefix = record::session_prefix();
    let mut found: HashMap<Vec<u8>, Offline> = HashMap::new();
    let mut rest: HashMap<Vec<u8>, Vec<&Record>> = HashMap::new();
    for r in records {
        let Some(path) = r.key.as_bytes().get(prefix.as_bytes().len()..) else { continue };
        let Some(at) = path.iter().position(|&b| b == b'/') else { continue };
        let owner = path[..at].to_vec();
        if &path[at + 1..] != b"rec" {
            rest.entry(owner).or_default().push(r);
            continue;
        }
        // the owner's part is escaped as all parts are
        let client_id = String::from_utf8(Key::from_bytes(&owner).last_part());
        let (Ok(client_id), Some(rec)) = (client_id, session_store::decode(&r.value)) else {
            tracing::error!(key = ?r.key, "a stored session is damaged and is left out");
            continue;
        };
        let expires_at = match rec.expiry {
            u32::MAX => NEVER,
            seconds => rec.disconnected_at.saturating_add(u64::from(seconds) * 1000),
        };
        let mut floors = rec.cursors;
        for flight in &rec.flights {
            if let StoredFlight::Publish { item, .. } = flight
                && let Some((shard, pos)) = item.place()
                && let Some(floor) = floors.get_mut(usize::from(shard.0))
            {
                *floor = (*floor).min(pos);
            }
        }
        let offline = Offline {
            key: rec.key,
            client_id: client_id.into(),
            about: rec.about,
            origin: Box::new(rec.origin),
            created_at: rec.created_at,
            disconnected_at: rec.disconnected_at,
            expiry: rec.expiry,
            expires_at,
            will: None,
            floors,
            subscriptions: Subscriptions::default(),
            incoming: Vec::new(),
            inflight: rec.flights.len(),
            dropped: rec.dropped,
        };
        found.insert(owner, offline);
    }
    for (owner, records) in rest {
        let Some(session) = found.get_mut(&owner) else { continue };
        for r in records {
            let path = &r.key.as_bytes()[prefix.as_bytes().len() + owner.len() + 1..];
            if path.starts_with(b"sub/") {
                if let (Ok(filter), Some(subscription)) =
                    (String::from_utf8(r.key.last_part()), session_store::subscription(&r.value))
                {
                    session.subscriptions.insert(filter.into(), subscription);
                }
            } else if path.starts_with(b"in/")
                && let Ok(bytes) = <[u8; 2]>::try_from(r.key.last_part())
                && let Some(id) = PacketId::new(u16::from_be_bytes(bytes))
            {
                session.incoming.push(id);
            }
        }
    }
    found.into_values().collect()
}
