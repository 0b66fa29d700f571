//! The worker's operations in the engine: submitted with tokens, repeated where that is allowed, answered to whoever waits.
//!
//! Must not know: what a session or a message is.

use std::rc::Rc;

use engine::{Arrival, EngineError, Expect, Op, Pos, Reply, Token, Write};

use super::unsettled::Standing;
use super::{BUSY_PATIENCE, InEngine, RETRY_AFTER, Waiting, Worker, reason_of, token_index};
use crate::connection::{AckKind, AckRef, ConnId, Phase};

impl Worker {
    /// Submits an operation at the end of the turn.
    pub(crate) fn submit(&mut self, op: Op, waiting: Waiting) {
        self.enqueue(op, waiting);
        self.wake_flush();
    }

    fn enqueue(&mut self, op: Op, waiting: Waiting) {
        let token = self.in_engine.insert(InEngine {
            op: op.clone(),
            waiting,
            busy_since: None,
            perhaps_done: false,
        }) as Token;
        if let Op::Put { writes } = &op {
            // a write with a condition replaces nothing that it has not seen
            for write in writes.iter().filter(|w| w.expect == Expect::Any) {
                self.unsettled.submitted(&write.key, token);
            }
        }
        self.ops.push((token, op));
    }

    /// Submits an operation again, as far as that is still wanted: not over a later write that took effect, and not beside one
    /// whose outcome is open.
    pub(super) fn repeat(&mut self, token: Token) {
        let Some(entry) = self.in_engine.get_mut(token_index(token)) else { return };
        if let Op::Put { writes } = &mut entry.op {
            let unsettled = &self.unsettled;
            let standing = |w: &Write| match w.expect {
                Expect::Any => unsettled.standing(&w.key, token),
                _ => Standing::Last,
            };
            if writes.iter().any(|w| standing(w) == Standing::Behind) {
                self.retries.push((self.now.instant + RETRY_AFTER, token));
                return;
            }
            writes.retain(|w| standing(w) != Standing::Replaced);
            if writes.is_empty() {
                self.done(token, Ok(Reply::Written(Vec::new())));
                return;
            }
        }
        self.ops.push((token, entry.op.clone()));
        self.metrics.engine_retries.inc();
    }

    /// Submits an operation now: before anything that follows in this process looks at its effect.
    pub(crate) fn submit_now(&mut self, op: Op, waiting: Waiting) {
        self.enqueue(op, waiting);
        self.shared.engine.submit(self.port, std::mem::take(&mut self.ops));
    }

    /// The turn has something to hand over at its end.
    pub(crate) fn wake_flush(&mut self) {
        if !self.turn_wanted {
            self.turn_wanted = true;
            if let Some(waker) = &self.flush_waker {
                waker.wake_by_ref();
            }
        }
    }

    pub(super) fn arrival(&mut self, arrival: Arrival) {
        match arrival {
            Arrival::Done { token, result } => self.done(token, result),
            Arrival::Frames { shard, frames } => self.on_frames(shard, &frames),
            Arrival::Truncated { shard, first } => self.on_truncated(shard, first),
            Arrival::Changed { .. }
            | Arrival::WatchReady { .. }
            | Arrival::Lane { .. }
            | Arrival::LaneGap { .. }
            | Arrival::LeaseLost { .. } => {
                // a worker neither watches nor holds leases; lanes carry nothing while there is one node
            }
        }
    }

    pub(super) fn done(&mut self, token: Token, result: Result<Reply, EngineError>) {
        if let Err(error) = result
            && let EngineError::Unavailable | EngineError::Unknown | EngineError::Busy | EngineError::Full =
                error
            && self.in_engine.contains(token_index(token))
            && !self.gives_up(token, error)
        {
            self.retries.push((self.now.instant + RETRY_AFTER, token));
            return;
        }
        let Some(entry) = self.in_engine.try_remove(token_index(token)) else { return };
        if let Op::Put { writes } = &entry.op {
            for write in writes.iter().filter(|w| w.expect == Expect::Any) {
                match result {
                    Ok(_) => self.unsettled.took_effect(&write.key, token),
                    Err(_) => self.unsettled.refused(&write.key, token),
                }
            }
        }
        if let Err(error) = &result
            && !matches!(error, EngineError::Truncated { .. } | EngineError::Conflict { .. })
        {
            tracing::warn!(%error, "the engine refused an operation");
        }
        match entry.waiting {
            Waiting::Ack(ack) => self.ack_done(ack, result.err().map(reason_of)),
            Waiting::Append(shard) => self.appended(shard, result),
            Waiting::Load(id) => self.loaded(id, result),
            Waiting::Resume(id, shard) => self.resume_frame(id, shard, result),
            Waiting::Opened(id) => self.opened(id, result.err()),
            Waiting::Closed(id) if result.is_err() => self.not_written_back(id),
            Waiting::Closed(id) => self.left(id),
            Waiting::Subscribed(id, granted) => self.subscribed(id, *granted, result.err()),
            Waiting::Unsubscribed(id, packet_id, reasons) => self.unsubscribed(id, packet_id, reasons),
            Waiting::Retained(id, wanted) => self.send_retained(id, wanted),
            Waiting::Replay(id, shard) => self.replayed(id, shard, result),
            Waiting::Group(id, shard) => self.group_read(id, shard, result),
            Waiting::Expired => self.remove_expired(result),
            Waiting::Removed(client_id) => {
                if let Some(owner) = self.shared.store.release(&client_id) {
                    self.tell_released(owner);
                }
            }
            Waiting::Delayed(writing) => self.delay_written(&writing, result.err()),
            Waiting::DelayedDue(due, number) => self.delayed_read(due, number, result),
            Waiting::DelayedGone => self.delayed_gone(),
            Waiting::Nobody(_) => {}
        }
    }

    /// Whether an operation is not worth repeating: a full register or disk says so to whoever can be told.
    fn gives_up(&mut self, token: Token, error: EngineError) -> bool {
        let now = self.now.instant;
        let Some(entry) = self.in_engine.get_mut(token_index(token)) else { return true };
        entry.perhaps_done |= error == EngineError::Unknown;
        if !matches!(error, EngineError::Busy | EngineError::Full) || entry.perhaps_done {
            entry.busy_since = None;
            return false;
        }
        let since = *entry.busy_since.get_or_insert(now);
        let patient = now.saturating_duration_since(since) < BUSY_PATIENCE;
        match &entry.waiting {
            Waiting::Ack(ack) => {
                let ack = *ack;
                self.may_refuse(ack)
            }
            Waiting::Delayed(writing) => {
                let ack = writing.ack;
                ack.is_none_or(|ack| self.may_refuse(ack))
            }
            Waiting::Nobody("retain") => true,
            Waiting::Opened(_) | Waiting::Subscribed(..) | Waiting::Nobody("checkpoint") => !patient,
            Waiting::Closed(id) => {
                let id = *id;
                // the second time it only deletes, which needs no room
                let writes_back = self.conn(id).is_some_and(
                    |c| matches!(&c.phase, Phase::Leaving(leaving) if leaving.offline.is_some()),
                );
                writes_back && !patient
            }
            _ => false,
        }
    }

    /// A PUBCOMP cannot refuse (3.7.2.1): PUBREC has taken the message, and its record must go before the packet id is free.
    fn may_refuse(&self, ack: AckRef) -> bool {
        if ack.conn == ConnId::DELAYED {
            // it was taken long ago
            return false;
        }
        let Some(conn) = self.conn(ack.conn) else { return true };
        let index = ack.seq.checked_sub(conn.acks_first).and_then(|i| usize::try_from(i).ok());
        index.and_then(|i| conn.acks.get(i)).is_none_or(|a| a.kind != AckKind::Pubcomp)
    }

    /// Position up to which this worker has been given every frame, for each shard.
    pub(crate) fn tails(&self) -> &[Pos] {
        self.log.tails()
    }

    pub(crate) fn lookup(&mut self, topic: &str) -> Rc<crate::router::Routes> {
        self.routes.lookup(&self.shared.router, topic)
    }
}
