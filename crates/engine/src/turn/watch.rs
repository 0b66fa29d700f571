//! Watches: snapshot in pieces, then changes; and the barriers that wait for them.
//!
//! A snapshot is walked in the order of keys, a piece in each turn, so that a large one delays nobody. A change
//! to a key the walk has passed is given at once; a change before it will be met by the walk.

use super::outbox::Outbox;
use super::register::{RECORD_COST, Register};
use super::tail::PIECE;
use crate::{Arrival, Change, Key, Port, Record, Reply, Rev, Token, WatchId};

/// How far the snapshot of a watch is.
#[derive(Clone, Debug)]
enum Walk {
    /// All keys up to this one were given.
    At(Option<Key>),
    /// Done; only changes follow.
    Ready,
}

/// One watch.
#[derive(Clone, Debug)]
struct Watch {
    id: WatchId,
    port: Port,
    prefix: Key,
    walk: Walk,
    changes: Vec<Change>,
    cost: usize,
}

/// A barrier that has not been answered.
#[derive(Clone, Debug)]
struct Barrier {
    port: Port,
    token: Token,
    rev: Rev,
    /// Watches that were still at their snapshot.
    waits_for: Vec<WatchId>,
}

/// All watches of the process.
#[derive(Clone, Debug, Default)]
pub(crate) struct Watches {
    watches: Vec<Watch>,
    barriers: Vec<Barrier>,
}

impl Watches {
    pub(crate) fn add(&mut self, port: Port, id: WatchId, prefix: Key) {
        self.watches.push(Watch { id, port, prefix, walk: Walk::At(None), changes: Vec::new(), cost: 0 });
    }

    /// Takes a change to whoever watches it.
    pub(crate) fn note(&mut self, change: &Change, out: &mut Outbox) {
        for watch in &mut self.watches {
            let passed = match &watch.walk {
                Walk::At(Some(last)) => change.key <= *last,
                Walk::At(None) => false,
                Walk::Ready => true,
            };
            if passed && change.key.starts_with(&watch.prefix) {
                watch.push(change.clone(), out);
            }
        }
    }

    /// A barrier is answered in the next turn at the earliest: all changes of this one have been given by then.
    pub(crate) fn barrier(&mut self, port: Port, token: Token, prefix: &Key, rev: Rev) {
        let waits_for = self
            .watches
            .iter()
            .filter(|w| matches!(w.walk, Walk::At(_)))
            .filter(|w| w.prefix.starts_with(prefix) || prefix.starts_with(&w.prefix))
            .map(|w| w.id)
            .collect();
        self.barriers.push(Barrier { port, token, rev, waits_for });
    }

    /// Begins a turn: answers the barriers whose watchers have been given everything.
    pub(crate) fn answer_barriers(&mut self, out: &mut Outbox) {
        let watches = &self.watches;
        let ready = |id: &WatchId| watches.iter().all(|w| w.id != *id || matches!(w.walk, Walk::Ready));
        for barrier in self.barriers.extract_if(.., |b| b.waits_for.iter().all(ready)) {
            out.answer(barrier.port, barrier.token, Ok(Reply::Passed(barrier.rev)));
        }
    }

    /// Ends a turn: gives each watch its changes and the next piece of its snapshot. Whether something is left.
    pub(crate) fn feed(&mut self, register: &Register, out: &mut Outbox) -> bool {
        let mut left = false;
        for watch in &mut self.watches {
            watch.walk_on(register, out);
            watch.flush(out);
            left |= matches!(watch.walk, Walk::At(_));
        }
        left
    }

    /// Whether a barrier waits for an answer.
    pub(crate) fn has_barriers(&self) -> bool {
        !self.barriers.is_empty()
    }
}

impl Watch {
    fn push(&mut self, change: Change, out: &mut Outbox) {
        let cost = RECORD_COST + change.key.as_bytes().len() + change.value.as_ref().map_or(0, |v| v.len());
        if self.cost + cost > PIECE {
            self.flush(out);
        }
        self.cost += cost;
        self.changes.push(change);
    }

    fn flush(&mut self, out: &mut Outbox) {
        if !self.changes.is_empty() {
            self.cost = 0;
            let changes = std::mem::take(&mut self.changes);
            out.push(self.port, Arrival::Changed { watch: self.id, changes });
        }
    }

    fn walk_on(&mut self, register: &Register, out: &mut Outbox) {
        let Walk::At(last) = &mut self.walk else { return };
        let mut last = last.take();
        let prefix = self.prefix.clone();
        let mut given = 0;
        let from = last.clone();
        for Record { key, value, rev } in register.range(&prefix, from.as_ref()) {
            if given >= PIECE {
                self.walk = Walk::At(last);
                return;
            }
            given += RECORD_COST + key.as_bytes().len() + value.len();
            last = Some(key.clone());
            self.push(Change { key, value: Some(value), rev }, out);
        }
        self.walk = Walk::Ready;
        self.flush(out);
        out.push(self.port, Arrival::WatchReady { watch: self.id });
    }
}
