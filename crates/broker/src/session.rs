//! What a client's session is while the client is connected: the state that outlives a connection, on one worker.
//!
//! An offline durable session has no value of this type: it is only records and positions (`session_store`).
//! Must not know: sockets, engines, other sessions.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use engine::{LogFrame, Pos, Shard};
use mqtt::inflight::{InFlight as Flight, Inbound, Outbound};
use mqtt::packet::SubscriptionOptions;
use mqtt::{PacketId, QoS, ReasonCode};

use crate::deliver::Form;
use crate::kept::Kept;
use crate::message::Message;
use crate::queue::Queue;
use crate::retained::Resume;
use crate::router::SessionKey;
use crate::share::{Dealt, Sharing, Source};
use crate::subscriptions::Subscriptions;

/// Where an unacknowledged message can be found again if the connection breaks.
#[derive(Clone, Debug)]
pub(crate) enum InFlight {
    /// The session ends with its connection: nowhere.
    Transient,
    /// In the log.
    Logged { shard: Shard, pos: Pos },
    /// A retained message that was sent because of a SUBSCRIBE: it is in no log, so the session keeps it.
    Kept(Box<Found>),
    /// Sent in the place of a group of shared subscriptions.
    Dealt(Box<Dealt>),
}

impl InFlight {
    /// Its place in the log, if it has one.
    pub(crate) fn place(&self) -> Option<(Shard, Pos)> {
        match self {
            Self::Logged { shard, pos } => Some((*shard, *pos)),
            Self::Dealt(dealt) => match dealt.from {
                Source::Log { shard, pos } => Some((shard, pos)),
                Source::Memory(_) => None,
            },
            Self::Transient | Self::Kept(_) => None,
        }
    }
}

/// A retained message that was found for a SUBSCRIBE.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    pub(crate) kept: Kept,
    /// The number of the store's last change when it was found.
    pub(crate) change: u64,
    /// The lower of the message's and the subscription's.
    pub(crate) qos: QoS,
    /// The Subscription Identifier it is sent with; 0: none.
    pub(crate) identifier: u32,
}

impl Found {
    /// How it is sent.
    pub(crate) fn form(&self) -> Form<'_> {
        let identifiers = std::slice::from_ref(&self.identifier);
        Form {
            qos: self.qos,
            retain: true,
            identifiers: if self.identifier == 0 { &[] } else { identifiers },
        }
    }
}

/// A subscription as the session knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Subscription {
    pub(crate) options: SubscriptionOptions,
    /// 0: none.
    pub(crate) identifier: u32,
    /// No other session has this filter (`exclusive`).
    pub(crate) exclusive: bool,
    /// For each shard the position after which the filter applies, where the session was behind when it subscribed:
    /// a replay must not deliver what is older than the subscription. Of a shared subscription: where its group begins, if it
    /// has no record of its own.
    pub(crate) starts: Option<Box<[Pos]>>,
}

/// How far a durable session has come in one shard.
#[derive(Default)]
pub(crate) struct Cursor {
    /// Everything up to here has been sent, or did not match.
    pub(crate) at: Pos,
    /// The session is where the worker's tail is: frames are given to it as they come. Otherwise it is catching up and
    /// live frames are ignored for it.
    pub(crate) live: bool,
    /// A read of the log is under way.
    pub(crate) reading: bool,
    /// Frames that were read and not yet gone through; bounded by one read.
    pub(crate) ahead: VecDeque<LogFrame>,
}

/// A QoS 2 message of a durable session between PUBREC and PUBREL.
pub(crate) struct Incoming {
    pub(crate) message: Arc<Message>,
    /// Made at PUBREC, stored, never made again: the release is appended under this id however often it is repeated.
    pub(crate) dedupe: u128,
}

/// The QoS 2 messages of a durable session between PUBREC and PUBREL. Empty: no heap.
#[derive(Default)]
#[expect(clippy::box_collection, reason = "nearly no session has one: one word instead of three")]
pub(crate) struct AwaitPubrel(Option<Box<BTreeMap<PacketId, Incoming>>>);

impl AwaitPubrel {
    pub(crate) fn insert(&mut self, id: PacketId, incoming: Incoming) {
        self.0.get_or_insert_default().insert(id, incoming);
    }

    pub(crate) fn remove(&mut self, id: PacketId) -> Option<Incoming> {
        let map = self.0.as_mut()?;
        let removed = map.remove(&id);
        if map.is_empty() {
            self.0 = None;
        }
        removed
    }

    pub(crate) fn ids(&self) -> impl Iterator<Item = PacketId> {
        self.0.iter().flat_map(|map| map.keys().copied())
    }
}

/// What a session still has to fetch before its unacknowledged messages can be sent again.
#[derive(Default)]
pub(crate) struct Resuming {
    /// Reads under way.
    pub(crate) reads: usize,
    /// Frames that unacknowledged messages lie in.
    pub(crate) frames: BTreeMap<(Shard, u64), LogFrame>,
    /// How many may be under way to this connection: it may allow fewer than the one before it did.
    pub(crate) window: usize,
    /// What has not been sent again yet, in order; `None` until everything is read.
    pub(crate) waiting: Option<VecDeque<Flight<InFlight>>>,
}

/// Retained messages that a new subscription asks for.
pub(crate) struct Search {
    pub(crate) filter: Box<str>,
    pub(crate) qos: QoS,
    /// 0: none.
    pub(crate) identifier: u32,
    /// Messages of the session itself are left out.
    pub(crate) no_local: bool,
    /// Changes of the store after this one are not looked for: whoever subscribed before them got them live.
    pub(crate) until: u64,
    /// Where the store is to be looked through next; `None`: from its beginning.
    pub(crate) resume: Option<Resume>,
}

/// What waits until the client takes more.
#[derive(Default)]
pub(crate) struct Backlog {
    /// Messages of a session that ends with its connection.
    pub(crate) queue: Queue,
    /// Retained messages that were found for a SUBSCRIBE; bounded by one piece of a search.
    pub(crate) retained: VecDeque<Found>,
    /// Searches of the retained store that are not finished; one for each filter at most.
    pub(crate) searches: VecDeque<Search>,
}

impl Backlog {
    fn is_empty(&self) -> bool {
        self.queue.is_empty() && self.retained.is_empty() && self.searches.is_empty()
    }
}

/// A session of a connected client.
pub(crate) struct Session {
    pub(crate) key: SessionKey,
    pub(crate) client_id: Arc<str>,
    /// Seconds the session outlives the connection; 0: it ends with it.
    pub(crate) expiry: u32,
    /// Whether it was opened with an expiry: such a session has records, positions and log delivery.
    pub(crate) durable: bool,
    /// Unix milliseconds.
    pub(crate) created_at: u64,
    pub(crate) subscriptions: Subscriptions,
    pub(crate) outbound: Outbound<InFlight>,
    pub(crate) inbound: Inbound,
    /// What waits for room; an idle session has none.
    pub(crate) backlog: Option<Box<Backlog>>,
    /// Durable: one for each shard. Transient: empty.
    pub(crate) cursors: Box<[Cursor]>,
    /// The shard that is asked first when there is room: each in its turn, or a busy one would starve the others.
    pub(crate) first_shard: u16,
    pub(crate) incoming: AwaitPubrel,
    pub(crate) resuming: Option<Box<Resuming>>,
    /// It has, or had on this connection, shared subscriptions.
    pub(crate) sharing: Option<Box<Sharing>>,
    /// Messages dropped for it.
    pub(crate) dropped: u64,
    /// Something changed since the last checkpoint.
    pub(crate) dirty: bool,
}

impl Session {
    pub(crate) fn new(
        key: SessionKey,
        client_id: Arc<str>,
        expiry: u32,
        created_at: u64,
        windows: Windows,
        tails: &[Pos],
    ) -> Self {
        let durable = expiry > 0;
        let cursors = if durable {
            tails.iter().map(|&at| Cursor { at, live: true, ..Cursor::default() }).collect()
        } else {
            Box::default()
        };
        Self {
            key,
            client_id,
            expiry,
            durable,
            created_at,
            subscriptions: Subscriptions::default(),
            outbound: Outbound::new(windows.send),
            inbound: Inbound::new(windows.receive),
            backlog: None,
            cursors,
            first_shard: 0,
            incoming: AwaitPubrel::default(),
            resuming: None,
            sharing: None,
            dropped: 0,
            dirty: false,
        }
    }

    /// The backlog, to add to it.
    pub(crate) fn backlog(&mut self) -> &mut Backlog {
        self.backlog.get_or_insert_default()
    }

    /// Gives the backlog's memory back when nothing waits any more.
    pub(crate) fn settle_backlog(&mut self) {
        if self.backlog.as_ref().is_some_and(|b| b.is_empty()) {
            self.backlog = None;
        }
    }

    /// Whether nothing waits for room in its window: it ends with its connection, has nothing queued, and is in no group.
    pub(crate) fn is_caught_up(&self) -> bool {
        self.backlog.is_none() && self.cursors.is_empty() && self.sharing.is_none() && self.resuming.is_none()
    }

    /// Whether messages wait in memory: new ones must go behind them.
    pub(crate) fn is_queueing(&self) -> bool {
        self.backlog.as_ref().is_some_and(|b| !b.queue.is_empty())
    }

    /// Messages that wait in memory.
    pub(crate) fn waiting(&self) -> usize {
        self.backlog.as_ref().map_or(0, |b| b.queue.len() + b.retained.len())
    }

    /// Gives the session no frames any more: where it is live, it has come as far as the worker's tails.
    pub(crate) fn stop_at(&mut self, tails: &[Pos]) {
        for (cursor, &tail) in self.cursors.iter_mut().zip(tails) {
            if std::mem::take(&mut cursor.live) {
                cursor.at = cursor.at.max(tail);
            }
        }
    }

    /// Forgets what was sent and not acknowledged, but for what is only to be completed (PUBREL).
    pub(crate) fn abandon_all(&mut self) {
        let publishes = self.outbound.iter().filter_map(|flight| match flight {
            Flight::Publish { id, qos, .. } => Some((id, qos)),
            Flight::Pubrel { .. } => None,
        });
        for (id, qos) in publishes.collect::<Vec<_>>() {
            if qos == QoS::AtLeastOnce {
                self.outbound.puback(id);
            } else {
                self.outbound.pubrec(id, ReasonCode::UnspecifiedError);
            }
        }
    }

    /// The position from which the log is needed in `shard`: nothing before it will be read for this session.
    pub(crate) fn floor(&self, shard: usize, tail: Pos) -> Pos {
        let Some(cursor) = self.cursors.get(shard) else { return Pos(u64::MAX) };
        let at = if cursor.live { cursor.at.max(tail) } else { cursor.at };
        self.outbound
            .iter()
            .filter_map(|f| match f {
                Flight::Publish { item, .. } => item.place(),
                Flight::Pubrel { .. } => None,
            })
            .filter_map(|(s, pos)| (usize::from(s.0) == shard).then_some(pos))
            .fold(at, Pos::min)
    }
}

/// How many unacknowledged QoS 1 and 2 messages may be under way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Windows {
    /// To the client: its Receive Maximum and our `max_inflight`, whichever is lower.
    pub(crate) send: u16,
    /// From the client: the Receive Maximum we told it (65,535 for versions that cannot be told).
    pub(crate) receive: u16,
}

impl Session {
    /// Whether it still outlives its connection: an expiry of 0 in DISCONNECT, or a resume with 0, ends that.
    pub(crate) const fn durable_now(&self) -> bool {
        self.durable && self.expiry > 0
    }
}
