//! What a session does as a member: takes what it is dealt, or refuses at once; gives back what it has not acknowledged when
//! its connection goes.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use engine::{Pos, Shard};
use hashbrown::HashMap;
use mqtt::QoS;
use mqtt::inflight::InFlight as Flight;
use smallvec::SmallVec;

use super::group::Holder;
use super::{Deal, Dealt, NotTaken, ShareMail, Sharing, Source, Tried, is_shared};
use crate::connection::ConnId;
use crate::deliver::Form;
use crate::message::{Left, Message, View};
use crate::queue::Waiting;
use crate::router::{Address, Group, GroupId, Member, Presence, Receiver, SessionKey, Subscription};
use crate::session::{InFlight, Session};
use crate::worker::Worker;

/// Where a message is that is being dealt.
pub(super) enum Place<'a> {
    /// Here; owned where it has to wait.
    Memory(&'a mut Option<Arc<Message>>),
    /// In the log: whoever has no room now gets another one later.
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

    /// The group waits until there is room.
    fn owes_room(&mut self, group: GroupId) {
        let refused = &mut self.sharing.get_or_insert_default().refused;
        if !refused.contains(&group) {
            refused.push(group);
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
        if session.subscriptions.get(&group.name).is_none() {
            // it has unsubscribed since it was chosen [MQTT-3.10.4-2]
            return Err(NotTaken::Gone);
        }
        if left == Left::Expired {
            return Err(NotTaken::Expired);
        }
        if form.qos == QoS::AtMostOnce {
            if full {
                conn.stalled = true;
                if matches!(place, Place::Log { .. }) {
                    session.owes_room(group.id);
                }
                return Err(NotTaken::Full);
            }
            return self.put_dealt(id, view, left, &form, None);
        }
        if full || session.resuming.is_some() || session.is_queueing() || session.outbound.quota() == 0 {
            conn.stalled |= full;
            let Place::Memory(owned) = place else {
                session.owes_room(group.id);
                return Err(NotTaken::Full);
            };
            let waiting = Waiting {
                message: Arc::clone(owned.get_or_insert_with(|| view.to_message())),
                qos: form.qos,
                retain: form.retain,
                identifiers,
                group: Some(Arc::clone(group)),
            };
            let taken = self.enqueue_message(id, waiting);
            if let Some(session) = self.conn_mut(id).and_then(|c| c.session.as_mut()) {
                session.tell_load();
            }
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
        let presence = session.presence(window.min(session.outbound.receive_maximum()));
        let new = self.shared.router.join(filter, receiver, subscription, presence);
        self.tell_home(receiver.session, Group::of(filter).id);
        new
    }

    /// Tells a group's home that this member can be dealt messages.
    fn tell_home(&mut self, session: SessionKey, id: GroupId) {
        let who = Holder { session, worker: self.id };
        self.share_mail(self.home_of(id), ShareMail::Room { id, who });
    }

    /// Tells the groups that had to be refused that there is room again, if there is.
    pub(crate) fn say_room(&mut self, id: ConnId) {
        let Some(session) = self.conn_mut(id).and_then(|c| c.session.as_mut()) else { return };
        let (key, room) = (session.key, session.outbound.quota() > 0);
        let Some(sharing) = session.sharing.as_mut().filter(|s| room && !s.refused.is_empty()) else {
            return;
        };
        for group in std::mem::take(&mut sharing.refused) {
            self.tell_home(key, group);
        }
    }

    /// A message from a group's home.
    pub(super) fn on_logged(&mut self, deal: &Deal, shard: Shard, pos: Pos) {
        let Deal { group, member, message, .. } = deal;
        let by = Holder { session: member.session, worker: self.id };
        let (id, home) = (group.id, self.home_of(group.id));
        match self.take_dealt(group, member, message.view(), Place::Log { shard, pos }) {
            Ok(()) if member.qos.min(message.publish.qos) == QoS::AtMostOnce => {
                self.share_mail(home, ShareMail::Done { id, shard, pos, by });
            }
            Ok(()) => {}
            Err(why) => {
                self.share_mail(home, ShareMail::NotTaken { id, shard, pos, by, why });
                if why == NotTaken::Gone && self.has_come_back(id, member) {
                    // it was for the connection before: what the new one said may be behind this now
                    self.tell_home(member.session, id);
                }
            }
        }
    }

    /// Whether the session of a member has another connection here than the one that was chosen. The same one refuses again: it is
    /// not connected yet, and says so when it is, or it unsubscribes.
    fn has_come_back(&self, id: GroupId, chosen: &Member) -> bool {
        let back = |m: &Member| {
            m.session == chosen.session
                && m.address.worker == self.id
                && m.address.slot != chosen.address.slot
        };
        self.shared.router.group(id).is_some_and(|r| r.members.iter().any(back))
    }

    /// A message is acknowledged: its group learns of it.
    pub(crate) fn finished(&mut self, id: ConnId, item: &InFlight) {
        let InFlight::Dealt(dealt) = item else { return };
        let Some(session) = self.conn(id).and_then(|c| c.session.as_ref()).map(|s| s.key) else { return };
        self.answered_for(session, dealt);
    }

    fn answered_for(&mut self, session: SessionKey, dealt: &Dealt) {
        if let Source::Log { shard, pos } = dealt.from {
            let (id, by) = (dealt.group.id, Holder { session, worker: self.id });
            self.share_mail(self.home_of(id), ShareMail::Done { id, shard, pos, by });
        }
    }

    /// A session is written back, or at its end: QoS 2 that was begun is its own from now on, and nobody else's
    /// [MQTT-4.8.2-4], [MQTT-4.8.2-5].
    pub(crate) fn keeps_what_was_begun(&mut self, session: &Session) {
        for flight in session.outbound.iter() {
            if let Flight::Publish { item: InFlight::Dealt(dealt), .. } = flight {
                self.answered_for(session.key, dealt);
            }
        }
    }

    /// A session is connected here: those who choose learn of it.
    pub(crate) fn appear(&mut self, id: ConnId) {
        let address = Address { worker: self.id, slot: id.slot };
        let shared = Arc::clone(&self.shared);
        let window = self.config.max_inflight;
        let Some(session) = self.conn_mut(id).and_then(|c| c.session.as_mut()) else { return };
        let (key, window) = (session.key, window.min(session.outbound.receive_maximum()));
        for filter in session.shared_filters() {
            let Some(session) = self.conn_mut(id).and_then(|c| c.session.as_mut()) else { return };
            shared.router.appear(&filter, key, address, session.presence(window));
            self.tell_home(key, Group::of(&filter).id);
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
        let mut logged: HashMap<GroupId, Vec<(Shard, Pos)>> = HashMap::new();
        for packet_id in begun {
            if let Some(InFlight::Dealt(dealt)) = session.outbound.puback(packet_id) {
                match dealt.from {
                    Source::Memory(message) => back.push((dealt.group, message)),
                    Source::Log { shard, pos } => {
                        logged.entry(dealt.group.id).or_default().push((shard, pos));
                    }
                }
            }
        }
        if let Some(backlog) = &mut session.backlog {
            back.extend(backlog.queue.take_dealt());
        }
        session.settle_backlog();
        for (id, messages) in logged {
            let by = Holder { session: key, worker: self.id };
            self.share_mail(self.home_of(id), ShareMail::GaveBack { id, by, messages });
        }
        for (group, message) in back {
            self.metrics.shared_redelivered.inc();
            let tried: Tried = [key].into_iter().collect();
            self.deal_again(&group, &message, NotTaken::Gone, tried);
        }
    }
}
