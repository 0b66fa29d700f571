//! What a session does as a member: takes what it is dealt, or refuses at once; gives back what it has not acknowledged when
//! its connection goes.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use engine::{Pos, Shard};
use mqtt::QoS;
use mqtt::inflight::InFlight as Flight;
use smallvec::SmallVec;

use super::{Dealt, NotTaken, Sharing, Source, Tried, is_shared};
use crate::connection::ConnId;
use crate::deliver::Form;
use crate::message::{Left, Message, View};
use crate::queue::{Bound, Waiting};
use crate::router::{Address, Group, Member, Presence, Receiver, Subscription};
use crate::session::{InFlight, Session};
use crate::worker::Worker;

/// Where a message is that is being dealt.
pub(super) enum Place<'a> {
    /// Here; owned where it has to wait.
    Memory(&'a mut Option<Arc<Message>>),
    /// In the log: whoever has no room now gets another one later.
    #[expect(dead_code, reason = "the next commit")]
    Log { shard: Shard, pos: Pos },
}

impl Session {
    /// What is told of this session to those who choose.
    pub(crate) fn presence(&mut self, window: u16) -> Presence {
        let sharing = self.sharing.get_or_insert_with(Box::<Sharing>::default);
        Presence { window, load: Arc::clone(&sharing.load) }
    }

    /// Tells how much it has to do, if anybody asks.
    pub(crate) fn tell_load(&self) {
        if let Some(sharing) = &self.sharing {
            let load = self.outbound.len() + self.waiting();
            sharing.load.store(u32::try_from(load).unwrap_or(u32::MAX), Ordering::Relaxed);
        }
    }

    fn shared_filters(&self) -> Vec<Box<str>> {
        self.subscriptions.filters().filter(|f| is_shared(f)).map(Into::into).collect()
    }
}

impl Worker {
    /// Gives a message to a member of this worker.
    pub(super) fn take_dealt(
        &mut self,
        group: &Arc<Group>,
        member: &Member,
        view: View<'_>,
        place: Place<'_>,
    ) -> Result<(), NotTaken> {
        let max_outbound = self.config.max_outbound_bytes;
        let bound = Bound { messages: self.config.max_queued_messages, bytes: self.config.max_queued_bytes };
        let left = view.left(self.now.unix_ms);
        let identifiers: SmallVec<[u32; 1]> =
            Some(member.identifier).filter(|&i| i != 0).into_iter().collect();
        let form = Form {
            qos: member.qos.min(view.publish.qos),
            retain: member.retain_as_published && view.publish.retain,
            identifiers: &identifiers,
        };
        let slot = member.address.slot;
        let conn = self.conns.get_mut(slot as usize).filter(|c| c.is_connected() && !c.closing);
        let Some(conn) = conn else { return Err(NotTaken::Gone) };
        let id = ConnId { slot, generation: conn.generation };
        let full = conn.unsent() >= max_outbound;
        let Some(session) = conn.session.as_mut().filter(|s| s.key == member.session) else {
            return Err(NotTaken::Gone);
        };
        if left == Left::Expired {
            return Err(NotTaken::Expired);
        }
        if form.qos == QoS::AtMostOnce {
            if full {
                conn.stalled = true;
                return Err(NotTaken::Full);
            }
            return self.put_dealt(id, view, left, &form, None);
        }
        if full || session.resuming.is_some() || session.is_queueing() || session.outbound.quota() == 0 {
            conn.stalled |= full;
            let Place::Memory(owned) = place else { return Err(NotTaken::Full) };
            let waiting = Waiting {
                message: Arc::clone(owned.get_or_insert_with(|| view.to_message())),
                qos: form.qos,
                retain: form.retain,
                identifiers,
                group: Some(Arc::clone(group)),
            };
            let taken = session.backlog().queue.push(waiting, bound);
            session.tell_load();
            return if taken { Ok(()) } else { Err(NotTaken::Full) };
        }
        let from = match place {
            Place::Memory(owned) => {
                Source::Memory(Arc::clone(owned.get_or_insert_with(|| view.to_message())))
            }
            Place::Log { shard, pos } => Source::Log { shard, pos },
        };
        self.put_dealt(id, view, left, &form, Some(Dealt { group: Arc::clone(group), from }))
    }

    /// Writes a dealt message; with `dealt` at QoS 1 or 2, under a packet id, for which there is room.
    fn put_dealt(
        &mut self,
        id: ConnId,
        view: View<'_>,
        left: Left,
        form: &Form<'_>,
        dealt: Option<Dealt>,
    ) -> Result<(), NotTaken> {
        let mut packet_id = None;
        if let Some(dealt) = dealt {
            let Some(session) = self.conn_mut(id).and_then(|c| c.session.as_mut()) else {
                return Err(NotTaken::Gone);
            };
            packet_id = session.outbound.begin(form.qos, InFlight::Dealt(Box::new(dealt)));
            if packet_id.is_none() {
                return Err(NotTaken::Full);
            }
            session.dirty = true;
        }
        let written = self.put_quietly(id, view, left, form, packet_id);
        if let Some(packet_id) = packet_id.filter(|_| !written) {
            self.abandon(id, packet_id, form.qos);
        }
        if let Some(session) = self.conn(id).and_then(|c| c.session.as_ref()) {
            session.tell_load();
        }
        if !written {
            return Err(NotTaken::TooLarge);
        }
        self.metrics.shared_dealt.inc();
        Ok(())
    }

    /// Sends a dealt message that waited in the session's queue.
    pub(crate) fn put_waiting(&mut self, id: ConnId, group: &Arc<Group>, next: &Waiting) {
        let view = next.message.view();
        let left = view.left(self.now.unix_ms);
        let form = Form { qos: next.qos, retain: next.retain, identifiers: &next.identifiers };
        let refused = if left == Left::Expired {
            Err(NotTaken::Expired)
        } else {
            let from = Source::Memory(Arc::clone(&next.message));
            self.put_dealt(id, view, left, &form, Some(Dealt { group: Arc::clone(group), from }))
        };
        if let Err(why) = refused {
            let tried = self.conn(id).and_then(|c| c.session.as_ref()).map(|s| s.key);
            self.deal_again(group, &next.message, why, tried.into_iter().collect());
        }
    }

    /// A session subscribes to a group; true when it was no member.
    pub(crate) fn join_group(
        &mut self,
        id: ConnId,
        filter: &str,
        receiver: Receiver,
        subscription: Subscription,
    ) -> bool {
        let window = self.config.max_inflight;
        let Some(session) = self.conn_mut(id).and_then(|c| c.session.as_mut()) else { return false };
        let presence = session.presence(window);
        self.shared.router.join(filter, receiver, subscription, presence)
    }

    /// A session is connected here: those who choose learn of it.
    pub(crate) fn appear(&mut self, id: ConnId) {
        let address = Address { worker: self.id, slot: id.slot };
        let shared = Arc::clone(&self.shared);
        let window = self.config.max_inflight;
        let Some(session) = self.conn_mut(id).and_then(|c| c.session.as_mut()) else { return };
        for filter in session.shared_filters() {
            let presence = session.presence(window);
            shared.router.appear(&filter, session.key, address, presence);
        }
    }

    /// The connection of a session goes: nobody chooses it any more, and what it has not acknowledged at QoS 1, or not yet
    /// been sent, is for another member. QoS 2 that was begun stays with it [MQTT-4.8.2-4], [MQTT-4.8.2-5].
    pub(crate) fn leave_groups(&mut self, id: ConnId) {
        let shared = Arc::clone(&self.shared);
        let Some(session) = self.conn_mut(id).and_then(|c| c.session.as_mut()) else { return };
        if session.sharing.is_none() {
            return;
        }
        let key = session.key;
        let filters = session.shared_filters();
        shared.router.relocate(filters.iter().map(|f| &**f), key, None);
        let begun: Vec<_> = session
            .outbound
            .iter()
            .filter_map(|flight| match flight {
                Flight::Publish { id, qos: QoS::AtLeastOnce, item: InFlight::Dealt(_) } => Some(id),
                _ => None,
            })
            .collect();
        let mut back = Vec::new();
        for packet_id in begun {
            if let Some(InFlight::Dealt(dealt)) = session.outbound.puback(packet_id) {
                match dealt.from {
                    Source::Memory(message) => back.push((dealt.group, message)),
                    Source::Log { .. } => {}
                }
            }
        }
        if let Some(backlog) = &mut session.backlog {
            back.extend(backlog.queue.take_dealt());
        }
        session.settle_backlog();
        for (group, message) in back {
            self.metrics.shared_redelivered.inc();
            let tried: Tried = [key].into_iter().collect();
            self.deal_again(&group, &message, NotTaken::Gone, tried);
        }
    }
}
