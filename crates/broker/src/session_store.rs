//! Durable sessions as records of the register, and the index of those whose client is away.
//!
//! A session is `default/s/<client id>/rec` (expiry, cursors, unacknowledged packet ids), one `sub/<filter>` for each
//! subscription and one `in/<packet id>` for each QoS 2 message between PUBREC and PUBREL. Whoever
//! [takes](SessionStore::take) an offline session is the only one who may use its records.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use engine::{Pos, Shard, Write};
use hashbrown::HashMap;
use mqtt::inflight::InFlight as Flight;
use mqtt::{PacketId, QoS};

use crate::connection::{Door, Origin, Via};
use crate::kept::Kept;
use crate::message::{Message, NEVER};
use crate::record::{self, Reader};
use crate::registry::Owner;
use crate::router::{Group, SessionKey};
use crate::session::{Found, InFlight, Incoming, Session, Subscription};
use crate::share::{Dealt, Source};
use crate::subscriptions::Subscriptions;

/// What the admin interface tells of a client; it outlives the connection in the session's record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct About {
    pub(crate) username: Option<Arc<str>>,
    /// 3, 4 or 5.
    pub(crate) proto_ver: u8,
    pub(crate) clean_start: bool,
    pub(crate) session_present: bool,
    pub(crate) keep_alive: u16,
    /// Unix milliseconds.
    pub(crate) connected_at: u64,
}

/// A session whose client is away.
pub(crate) struct Offline {
    pub(crate) key: SessionKey,
    pub(crate) client_id: Arc<str>,
    pub(crate) about: About,
    pub(crate) origin: Box<Origin>,
    pub(crate) created_at: u64,
    pub(crate) disconnected_at: u64,
    /// Seconds.
    pub(crate) expiry: u32,
    /// Unix milliseconds; [`NEVER`].
    pub(crate) expires_at: u64,
    /// A will that waits for its delay: when (Unix milliseconds) and what.
    pub(crate) will: Option<(u64, Arc<Message>)>,
    /// From which position it needs each shard of the log.
    pub(crate) floors: Box<[Pos]>,
    pub(crate) subscriptions: Subscriptions,
    pub(crate) incoming: Vec<PacketId>,
    pub(crate) inflight: usize,
    pub(crate) dropped: u64,
}

impl Offline {
    /// The writes that remove the session and its will.
    pub(crate) fn removal(&self) -> Vec<Write> {
        removal(&self.client_id, self.filters(), self.incoming.iter().copied())
    }

    pub(crate) fn filters(&self) -> impl Iterator<Item = &str> {
        self.subscriptions.filters()
    }
}

/// The writes that remove a session and its will from the register.
pub(crate) fn removal<'a>(
    client_id: &str,
    filters: impl Iterator<Item = &'a str>,
    incoming: impl Iterator<Item = PacketId>,
) -> Vec<Write> {
    let mut writes =
        vec![Write::delete(record::session_key(client_id)), Write::delete(record::will_key(client_id))];
    writes.extend(filters.map(|f| Write::delete(record::subscription_key(client_id, f))));
    writes.extend(incoming.map(|id| Write::delete(record::incoming_key(client_id, id))));
    writes
}

/// What became due.
pub(crate) enum Due {
    /// The session's expiry interval is over [MQTT-3.1.2-23]; it is no longer in the store.
    Expired(Offline),
    /// The will's delay is over [MQTT-3.1.3-9].
    Will(Arc<str>, Arc<Message>),
}

#[derive(Default)]
struct Inner {
    by_client: HashMap<Arc<str>, Offline>,
    /// Expiries and will delays, earliest first.
    due: BTreeSet<(u64, Arc<str>)>,
    /// Client ids whose records are being removed on behalf of nobody: how many writes are under way, and who waits for them.
    held: HashMap<Arc<str>, (usize, Option<Owner>)>,
}

impl Inner {
    fn hold(&mut self, client_id: &Arc<str>) {
        self.held.entry(Arc::clone(client_id)).or_insert((0, None)).0 += 1;
    }

    fn remove(&mut self, client_id: &str) -> Option<Offline> {
        let offline = self.by_client.remove(client_id)?;
        self.due.remove(&(offline.expires_at, Arc::clone(&offline.client_id)));
        if let Some((at, _)) = &offline.will {
            let entry = (*at, Arc::clone(&offline.client_id));
            self.due.remove(&entry);
        }
        Some(offline)
    }
}

/// What a client that comes finds.
pub(crate) enum Taken {
    /// Its session: from now on it is the caller's.
    Session(Offline),
    /// None.
    Nothing,
    /// Records of its client id are still being removed, by another worker perhaps: the caller will be told.
    Wait,
}

/// The index of offline sessions of this process.
pub(crate) struct SessionStore(Mutex<Inner>);

impl SessionStore {
    pub(crate) fn new() -> Self {
        Self(Mutex::default())
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A client has gone and its session waits.
    pub(crate) fn insert(&self, offline: Offline) {
        let mut inner = self.lock();
        let id = Arc::clone(&offline.client_id);
        for at in [Some(offline.expires_at).filter(|&at| at != NEVER), offline.will.as_ref().map(|w| w.0)]
            .into_iter()
            .flatten()
        {
            inner.due.insert((at, Arc::clone(&id)));
        }
        inner.by_client.insert(id, offline);
    }

    /// The client is back. `seen` is given its session before anybody can find that it is no longer here.
    pub(crate) fn take(&self, client_id: &str, who: Owner, seen: impl FnOnce(&Offline)) -> Taken {
        let mut inner = self.lock();
        if let Some((_, waiter)) = inner.held.get_mut(client_id) {
            // one at most: whoever claims the id after it waits for it in turn
            *waiter = Some(who);
            return Taken::Wait;
        }
        if let Some(offline) = inner.by_client.get(client_id) {
            seen(offline);
        }
        inner.remove(client_id).map_or(Taken::Nothing, Taken::Session)
    }

    /// The session is to be removed: its client id is held until [`Self::release`].
    pub(crate) fn take_to_remove(&self, client_id: &str) -> Option<Offline> {
        let mut inner = self.lock();
        let offline = inner.remove(client_id)?;
        inner.hold(&offline.client_id);
        Some(offline)
    }

    /// No client gets this id until a write that removes its records has been [released](Self::release): a late removal would
    /// take the records of the next session.
    pub(crate) fn hold(&self, client_id: &Arc<str>) {
        self.lock().hold(client_id);
    }

    /// Such a write is done: who waited for the last one of the id.
    pub(crate) fn release(&self, client_id: &str) -> Option<Owner> {
        let mut inner = self.lock();
        let (writes, _) = inner.held.get_mut(client_id)?;
        *writes -= 1;
        if *writes > 0 {
            return None;
        }
        inner.held.remove(client_id).and_then(|(_, waiter)| waiter)
    }

    /// Everything that is due at `unix_ms`, at most `limit`. Each one's client id is held until [`Self::release`].
    pub(crate) fn due(&self, unix_ms: u64, limit: usize) -> Vec<Due> {
        let mut inner = self.lock();
        let mut out = Vec::new();
        while out.len() < limit {
            let Some((at, id)) = inner.due.first().cloned().filter(|(at, _)| *at <= unix_ms) else { break };
            inner.due.pop_first();
            let Some(offline) = inner.by_client.get_mut(&id) else { continue };
            if let Some((due, will)) = offline.will.take() {
                if due <= unix_ms {
                    out.push(Due::Will(Arc::clone(&id), will));
                } else {
                    offline.will = Some((due, will));
                }
            }
            if offline.expires_at <= unix_ms
                && let Some(mut offline) = inner.by_client.remove(&id)
            {
                if let Some((due, will)) = offline.will.take() {
                    // the session ends first: so does the wait of its will [MQTT-3.1.2-10]
                    inner.due.remove(&(due, Arc::clone(&id)));
                    out.push(Due::Will(Arc::clone(&id), will));
                }
                if at != offline.expires_at {
                    inner.due.remove(&(offline.expires_at, Arc::clone(&id)));
                }
                out.push(Due::Expired(offline));
            }
        }
        for due in &out {
            match due {
                Due::Will(client_id, _) => inner.hold(client_id),
                Due::Expired(offline) => inner.hold(&offline.client_id),
            }
        }
        out
    }

    pub(crate) fn len(&self) -> usize {
        self.lock().by_client.len()
    }

    /// The position from which some offline session needs the log of `shard`.
    pub(crate) fn floor(&self, shard: usize) -> Pos {
        let inner = self.lock();
        inner.by_client.values().filter_map(|o| o.floors.get(shard).copied()).min().unwrap_or(Pos(u64::MAX))
    }

    /// Looks at one session.
    pub(crate) fn with<T>(&self, client_id: &str, look: impl FnOnce(&Offline) -> T) -> Option<T> {
        self.lock().by_client.get(client_id).map(look)
    }

    /// Looks at every session.
    pub(crate) fn for_each(&self, mut look: impl FnMut(&Offline)) {
        self.lock().by_client.values().for_each(&mut look);
    }
}

/// An unacknowledged packet of a stored session.
#[derive(Clone, Debug)]
pub(crate) enum StoredFlight {
    Publish { id: PacketId, qos: QoS, item: InFlight },
    Pubrel { id: PacketId },
}

/// The `rec` record, read back.
pub(crate) struct SessionRecord {
    pub(crate) key: SessionKey,
    pub(crate) expiry: u32,
    pub(crate) created_at: u64,
    pub(crate) disconnected_at: u64,
    pub(crate) about: About,
    pub(crate) origin: Origin,
    pub(crate) cursors: Box<[Pos]>,
    pub(crate) flights: Vec<StoredFlight>,
    pub(crate) dropped: u64,
}

/// Writes the `rec` record of a session as it is now.
pub(crate) fn encode(
    session: &Session,
    about: &About,
    origin: &Origin,
    disconnected_at: u64,
    tails: &[Pos],
) -> Vec<u8> {
    let mut out = record::begin();
    out.extend_from_slice(&session.key.0.to_be_bytes());
    out.extend_from_slice(&session.expiry.to_be_bytes());
    out.extend_from_slice(&session.created_at.to_be_bytes());
    out.extend_from_slice(&disconnected_at.to_be_bytes());
    out.extend_from_slice(&session.dropped.to_be_bytes());
    put_about(about, origin, &mut out);
    let cursors: Vec<Pos> = session
        .cursors
        .iter()
        .zip(tails)
        .map(|(cursor, &tail)| if cursor.live { cursor.at.max(tail) } else { cursor.at })
        .collect();
    record::put_positions(&cursors, &mut out);
    let flights: Vec<_> = session.outbound.iter().filter(|flight| !comes_from_its_group(flight)).collect();
    out.extend_from_slice(&u32::try_from(flights.len()).unwrap_or(u32::MAX).to_be_bytes());
    for flight in flights {
        match flight {
            mqtt::inflight::InFlight::Pubrel { id } => {
                out.push(0);
                out.extend_from_slice(&id.get().to_be_bytes());
            }
            mqtt::inflight::InFlight::Publish { id, qos, item } => {
                out.push(1);
                out.extend_from_slice(&id.get().to_be_bytes());
                out.push(qos as u8);
                match item {
                    InFlight::Transient => out.push(0),
                    InFlight::Dealt(dealt) => put_dealt(dealt, &mut out),
                    InFlight::Logged { shard, pos } => {
                        out.push(1);
                        out.extend_from_slice(&shard.0.to_be_bytes());
                        out.extend_from_slice(&pos.0.to_be_bytes());
                    }
                    InFlight::Kept(found) => {
                        out.push(2);
                        out.extend_from_slice(&found.identifier.to_be_bytes());
                        if !found.kept.message().is_some_and(|m| record::put_message(m.view(), &mut out)) {
                            // what was decoded once encodes again; if ever not, it is forgotten as a transient one is
                            out.truncate(out.len() - 5);
                            out.push(0);
                        }
                    }
                }
            }
        }
    }
    out
}

/// What a group has dealt at QoS 1 is the group's: it deals it again, whoever comes first.
fn comes_from_its_group(flight: &Flight<&InFlight>) -> bool {
    matches!(flight, Flight::Publish { qos: QoS::AtLeastOnce, item: InFlight::Dealt(_), .. })
}

fn put_dealt(dealt: &Dealt, out: &mut Vec<u8>) {
    let start = out.len();
    match &dealt.from {
        Source::Log { shard, pos } => {
            out.push(3);
            out.extend_from_slice(&shard.0.to_be_bytes());
            out.extend_from_slice(&pos.0.to_be_bytes());
        }
        Source::Memory(message) => {
            out.push(4);
            if !record::put_message(message.view(), out) {
                out.truncate(start);
                out.push(0);
                return;
            }
        }
    }
    record::put_bytes(dealt.group.name.as_bytes(), out);
}

fn dealt(from: Source, r: &mut Reader<'_>) -> Option<InFlight> {
    let group = Group::of(r.text()?);
    Some(InFlight::Dealt(Box::new(Dealt { group, from })))
}

fn put_about(about: &About, origin: &Origin, out: &mut Vec<u8>) {
    let text = |t: Option<String>, out: &mut Vec<u8>| {
        out.push(u8::from(t.is_some()));
        record::put_bytes(t.unwrap_or_default().as_bytes(), out);
    };
    text(about.username.as_deref().map(str::to_owned), out);
    text(Some(origin.peer.to_string()), out);
    text(origin.via.as_ref().map(|v| v.address.to_string()), out);
    text(origin.via.as_ref().and_then(|v| v.unique_id.as_deref()).map(str::to_owned), out);
    text(Some(origin.door.name.to_string()), out);
    out.extend_from_slice(&[about.proto_ver, u8::from(about.clean_start)]);
    out.extend_from_slice(&about.keep_alive.to_be_bytes());
    out.extend_from_slice(&about.connected_at.to_be_bytes());
}

fn about(r: &mut Reader<'_>) -> Option<(About, Origin)> {
    let text = |r: &mut Reader<'_>| -> Option<Option<String>> {
        let there = r.u8()? != 0;
        let text = r.text()?;
        Some(there.then(|| text.to_owned()))
    };
    let username = text(r)?.map(Arc::from);
    let peer = text(r)??.parse().ok()?;
    let via = match text(r)? {
        Some(via) => Some(via.parse().ok()?),
        None => None,
    };
    let unique_id = text(r)?.map(String::into_boxed_str);
    let door = Door::named(&text(r)??);
    // whether anonymous clients are let in is asked of the listener they come back to
    let via = via.map(|address| Box::new(Via { address, unique_id }));
    let origin = Origin { peer, via, door };
    let about = About {
        username,
        proto_ver: r.u8()?,
        clean_start: r.u8()? != 0,
        session_present: true,
        keep_alive: r.u16()?,
        connected_at: r.u64()?,
    };
    Some((about, origin))
}

/// Reads a `rec` record; `None`: damaged.
pub(crate) fn decode(bytes: &[u8]) -> Option<SessionRecord> {
    let mut r = Reader::versioned(bytes)?;
    let key = SessionKey(r.u64()?);
    let expiry = r.u32()?;
    let created_at = r.u64()?;
    let disconnected_at = r.u64()?;
    let dropped = r.u64()?;
    let (about, origin) = about(&mut r)?;
    let cursors = record::positions(&mut r)?;
    let count = r.u32()?;
    let mut flights = Vec::new();
    for _ in 0..count {
        let publish = r.u8()? == 1;
        let id = PacketId::new(r.u16()?)?;
        if !publish {
            flights.push(StoredFlight::Pubrel { id });
            continue;
        }
        let qos = QoS::from_u8(r.u8()?)?;
        let item = match r.u8()? {
            0 => InFlight::Transient,
            1 => InFlight::Logged { shard: Shard(r.u16()?), pos: Pos(r.u64()?) },
            2 => {
                let identifier = r.u32()?;
                let kept = Kept::of(r.message()?.view())?;
                InFlight::Kept(Box::new(Found { kept, change: 0, qos, identifier }))
            }
            3 => {
                let from = Source::Log { shard: Shard(r.u16()?), pos: Pos(r.u64()?) };
                dealt(from, &mut r)?
            }
            4 => {
                let from = Source::Memory(r.message()?.view().to_message());
                dealt(from, &mut r)?
            }
            _ => return None,
        };
        flights.push(StoredFlight::Publish { id, qos, item });
    }
    Some(SessionRecord { key, expiry, created_at, disconnected_at, about, origin, cursors, flights, dropped })
}

/// The writes for one `sub/<filter>` record.
pub(crate) fn subscription_write(client_id: &str, filter: &str, subscription: &Subscription) -> Write {
    let mut out = record::begin();
    record::put_options(subscription.options, &mut out);
    out.extend_from_slice(&subscription.identifier.to_be_bytes());
    out.push(u8::from(subscription.exclusive));
    record::put_positions(subscription.starts.as_deref().unwrap_or_default(), &mut out);
    Write::put(record::subscription_key(client_id, filter), out)
}

/// Reads a `sub/<filter>` record.
pub(crate) fn subscription(bytes: &[u8]) -> Option<Subscription> {
    let mut r = Reader::versioned(bytes)?;
    let options = record::options(&mut r)?;
    let identifier = r.u32()?;
    let exclusive = r.u8()? != 0;
    let starts = record::positions(&mut r)?;
    Some(Subscription { options, identifier, exclusive, starts: (!starts.is_empty()).then_some(starts) })
}

/// The write for one `in/<packet id>` record.
pub(crate) fn incoming_write(client_id: &str, id: PacketId, incoming: &Incoming) -> Option<Write> {
    let mut out = record::begin();
    out.extend_from_slice(&incoming.dedupe.to_be_bytes());
    record::put_message(incoming.message.view(), &mut out)
        .then(|| Write::put(record::incoming_key(client_id, id), out))
}

/// Reads an `in/<packet id>` record.
pub(crate) fn incoming(bytes: &[u8]) -> Option<Incoming> {
    let mut r = Reader::versioned(bytes)?;
    let dedupe = r.u128()?;
    Some(Incoming { dedupe, message: r.message()?.view().to_message() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offline(id: &str, expires_at: u64, will_at: Option<u64>) -> Offline {
        let will = will_at.map(|at| {
            let publish = mqtt::packet::Publish {
                dup: false,
                qos: QoS::AtMostOnce,
                retain: false,
                topic: "will".into(),
                packet_id: None,
                properties: Default::default(),
                payload: b"".as_slice().into(),
            };
            (at, Arc::new(Message { publisher: SessionKey(1), expires_at: NEVER, publish }))
        });
        Offline {
            key: SessionKey(1),
            client_id: id.into(),
            about: About {
                username: Some("u".into()),
                proto_ver: 5,
                clean_start: false,
                session_present: true,
                keep_alive: 60,
                connected_at: 5,
            },
            origin: Box::new(Origin {
                peer: ([127, 0, 0, 1], 9).into(),
                via: Some(Box::new(Via { address: ([127, 0, 0, 2], 8).into(), unique_id: Some("x".into()) })),
                door: Door::named("tcp://l"),
            }),
            created_at: 0,
            disconnected_at: 0,
            expiry: 10,
            expires_at,
            will,
            floors: Box::default(),
            subscriptions: Subscriptions::default(),
            incoming: vec![],
            inflight: 0,
            dropped: 0,
        }
    }

    /// Nobody gets a client id while its records are being removed; the last of those who wait is told.
    #[test]
    fn a_client_id_is_held_until_its_records_are_gone() {
        let store = SessionStore::new();
        let [first, second] = [1, 2].map(|slot| Owner { worker: 0, slot, generation: 1 });
        store.insert(offline("a", 100, Some(50)));
        assert_eq!(store.due(200, 10).len(), 2);
        assert!(matches!(store.take("a", first, |_| ()), Taken::Wait));
        assert_eq!(store.release("a"), None);
        assert!(matches!(store.take("a", second, |_| ()), Taken::Wait));
        assert_eq!(store.release("a"), Some(second));
        assert!(matches!(store.take("a", second, |_| ()), Taken::Nothing));
    }

    /// [MQTT-3.1.2-23]
    /// [MQTT-4.1.0-2]
    #[test]
    fn a_session_expires_at_its_time_and_not_before() {
        let store = SessionStore::new();
        store.insert(offline("a", 1000, None));
        assert!(store.due(999, 10).is_empty());
        assert!(matches!(store.due(1000, 10).as_slice(), [Due::Expired(o)] if &*o.client_id == "a"));
        assert_eq!(store.len(), 0);
    }

    /// [MQTT-3.1.3-9]: published when the delay is over or the session ends, whichever is first.
    #[test]
    fn a_will_is_due_after_its_delay_or_with_the_end_of_its_session() {
        let store = SessionStore::new();
        store.insert(offline("a", 1000, Some(500)));
        assert!(matches!(store.due(500, 10).as_slice(), [Due::Will(..)]));
        assert!(matches!(store.due(1000, 10).as_slice(), [Due::Expired(_)]));
        store.insert(offline("b", 1000, Some(5000)));
        assert!(matches!(store.due(1000, 10).as_slice(), [Due::Will(..), Due::Expired(_)]));
        assert!(store.due(u64::MAX, 10).is_empty());
    }

    #[test]
    fn a_session_that_was_taken_is_never_due() {
        let store = SessionStore::new();
        store.insert(offline("a", 1000, Some(500)));
        let who = Owner { worker: 0, slot: 0, generation: 0 };
        assert!(matches!(store.take("a", who, |_| ()), Taken::Session(_)));
        assert!(matches!(store.take("a", who, |_| ()), Taken::Nothing));
        assert!(store.due(NEVER - 1, 10).is_empty());
    }

    #[test]
    fn a_session_comes_back_from_its_record() {
        let windows = crate::session::Windows { send: 10, receive: 10 };
        let mut session =
            Session::new(SessionKey(7), "car".into(), 60, 3, windows, &[Pos::new(4, 1), Pos::START]);
        let logged = InFlight::Logged { shard: Shard(1), pos: Pos::new(2, 3) };
        let id = session.outbound.begin(QoS::AtLeastOnce, logged).unwrap();
        let kept = offline("x", 0, Some(1)).will.unwrap().1;
        let found =
            Found { kept: Kept::of(kept.view()).unwrap(), change: 0, qos: QoS::ExactlyOnce, identifier: 9 };
        session.outbound.begin(QoS::ExactlyOnce, InFlight::Kept(Box::new(found))).unwrap();
        session.cursors[1].live = false;
        let waiting = offline("car", 0, None);
        let bytes = encode(&session, &waiting.about, &waiting.origin, 99, &[Pos::new(9, 9), Pos::new(9, 9)]);
        let back = decode(&bytes).unwrap();
        assert_eq!(
            (back.key, back.expiry, back.created_at, back.disconnected_at),
            (SessionKey(7), 60, 3, 99)
        );
        assert_eq!(&*back.cursors, &[Pos::new(9, 9), Pos::START]);
        assert_eq!((back.about, back.origin), (waiting.about, *waiting.origin));
        assert!(matches!(&back.flights[0],
            StoredFlight::Publish { id: i, qos: QoS::AtLeastOnce, item: InFlight::Logged { shard: Shard(1), pos } }
            if *i == id && *pos == Pos::new(2, 3)));
        assert!(matches!(&back.flights[1], StoredFlight::Publish { item: InFlight::Kept(found), .. }
                if found.identifier == 9 && found.kept.message().unwrap().publish.topic == "will"));
        for cut in 0..bytes.len() {
            assert!(decode(&bytes[..cut]).is_none(), "a record cut at {cut} was believed");
        }
    }
}
