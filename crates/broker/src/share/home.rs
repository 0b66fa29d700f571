//! The home worker of a group with durable members: reads the log for it, chooses, deals, and hears what became of it.
//!
//! The state is `group`'s; here is what it takes from the log, the router and the other workers. A group has a state here from the
//! first message on that was logged for it, until its last member's session ends or all is done and no member is
//! durable any more.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use engine::{EngineError, LogFrame, Op, Pos, Reply, Shard, Write};
use mqtt::QoS;

use super::group::{GroupState, Holder, Next, StoredGroup};
use super::member::Place;
use super::{Deal, NotTaken, Share, ShareMail, Tried};
use crate::message::{Left, View};
use crate::metrics::Drop;
use crate::record::{self, Reader, Stored};
use crate::router::{GroupId, GroupRoute, Member, Routes};
use crate::worker::{Waiting, Worker};

/// Bytes of frames that a group which catches up reads at once.
const READ_BYTES: usize = 256 * 1024;

impl Worker {
    /// Groups that an earlier process left: those that live here wait for their members.
    pub(crate) fn adopt_groups(&mut self, groups: &[(Box<str>, StoredGroup)]) {
        for (name, stored) in groups {
            let id = crate::router::Group::of(name).id;
            if self.home_of(id) == self.id {
                let state = GroupState::restored(name.clone(), stored, self.tails().len());
                self.share.homes.insert(id, state);
            }
        }
    }

    /// A message at the end of the log that groups are to read.
    pub(crate) fn offer_groups(&mut self, shard: Shard, pos: Pos, stored: &Stored<'_>) {
        for id in stored.marks() {
            if self.home_of(id) != self.id {
                continue;
            }
            if !self.share.homes.contains_key(&id) {
                let routes = self.lookup(&stored.publish.topic);
                let Some(route) = route_of(&routes, id) else { continue };
                // it lies behind everything that this worker was given: nothing of the group was missed
                let state = GroupState::live_at(&route.group.name, self.tails());
                self.share.homes.insert(id, state);
            }
            if self.share.homes.get(&id).is_some_and(|g| g.wants(shard, pos, true)) {
                self.deal(id, shard, pos, stored.view());
            }
        }
    }

    /// Deals one message of a group; `false`: it has to wait.
    fn deal(&mut self, id: GroupId, shard: Shard, pos: Pos, view: View<'_>) -> bool {
        let routes = self.lookup(&view.publish.topic);
        let Some(route) = route_of(&routes, id) else {
            // its last member has gone
            self.give_up(id, shard, pos, view, None);
            return true;
        };
        if view.left(self.now.unix_ms) == Left::Expired {
            self.give_up(id, shard, pos, view, Some(NotTaken::Expired));
            return true;
        }
        while let Some(member) = self.choose_for(route, shard, pos, view) {
            let by = Holder::of(member);
            let Some(state) = self.share.homes.get_mut(&id) else { return true };
            state.dealt(shard, pos, by);
            if member.address.worker != self.id {
                member.presence.load.fetch_add(1, Ordering::Relaxed);
                let (group, message) = (Arc::clone(&route.group), view.to_message());
                let deal = Deal { group, member: member.clone(), message, tried: Tried::new() };
                self.share_mail(
                    member.address.worker,
                    ShareMail::Logged { deal: Box::new(deal), shard, pos },
                );
                return true;
            }
            let taken = self.take_dealt(&route.group, member, view, Place::Log { shard, pos });
            let Some(state) = self.share.homes.get_mut(&id) else { return true };
            match taken {
                Ok(()) if member.qos.min(view.publish.qos) == QoS::AtMostOnce => {
                    state.done(shard, pos, by);
                    return true;
                }
                Ok(()) => return true,
                Err(why) => drop(state.refused(shard, pos, by, why)),
            }
        }
        let tail = self.tails().get(usize::from(shard.0)).copied().unwrap_or_default();
        let Some(state) = self.share.homes.get_mut(&id) else { return true };
        let nobody = route.members.is_empty();
        if !nobody && route.members.iter().all(|m| state.refuses(m, shard, pos)) {
            self.give_up(id, shard, pos, view, Some(NotTaken::TooLarge));
            return true;
        }
        state.waits(shard, pos, tail);
        false
    }

    fn choose_for<'r>(
        &mut self,
        route: &'r GroupRoute,
        shard: Shard,
        pos: Pos,
        view: View<'_>,
    ) -> Option<&'r Member> {
        let asked = self.asked(&route.group, view);
        let Share { pickers, homes, .. } = &mut self.share;
        let state = homes.get(&route.group.id)?;
        let picker = pickers.entry(route.group.id).or_default();
        picker.choose(asked, &route.members, |m| state.is_able(m, shard, pos))
    }

    /// A message that nobody gets; counted where that is news.
    fn give_up(&mut self, id: GroupId, shard: Shard, pos: Pos, view: View<'_>, why: Option<NotTaken>) {
        if let Some(state) = self.share.homes.get_mut(&id) {
            state.dropped(shard, pos);
        }
        if let Some(why) = why {
            self.not_dealt(&view.publish.topic, view.publish.qos, why);
        }
    }

    /// Moves a group on where it is behind or has messages that came back.
    fn pump_group(&mut self, id: GroupId) {
        let Some(state) = self.share.homes.get_mut(&id) else { return };
        for shard in state.turns() {
            let tail = self.tails().get(usize::from(shard.0)).copied().unwrap_or_default();
            while let Some(state) = self.share.homes.get_mut(&id) {
                match state.next(shard, tail) {
                    Next::Nothing => break,
                    Next::Read(after) => {
                        let read = Op::Read { shard, after, max_bytes: READ_BYTES };
                        self.submit(read, Waiting::Group(id, shard));
                        break;
                    }
                    Next::Frame => {
                        let Some(frame) = state.frame(shard) else { break };
                        if !self.deal_frame(id, shard, &frame) {
                            break;
                        }
                        let lost = self.share.homes.get_mut(&id).map_or(0, |s| s.passed(shard));
                        self.lost_by_group(id, lost);
                    }
                }
            }
        }
    }

    /// Deals what a frame has for a group; `false`: the next message has to wait.
    fn deal_frame(&mut self, id: GroupId, shard: Shard, frame: &LogFrame) -> bool {
        let Some(mut reader) = Reader::versioned(&frame.bytes) else { return true };
        let mut index = 0u16;
        while !reader.is_empty() {
            let pos = Pos::new(frame.seq, index);
            index = index.saturating_add(1);
            let Some(stored) = reader.message() else { return true };
            let wanted = stored.marks().any(|mark| mark == id)
                && self.share.homes.get(&id).is_some_and(|g| g.wants(shard, pos, false));
            if wanted && !self.deal(id, shard, pos, stored.view()) {
                return false;
            }
        }
        true
    }

    /// What a group has read.
    pub(crate) fn group_read(&mut self, id: GroupId, shard: Shard, result: Result<Reply, EngineError>) {
        let tail = self.tails().get(usize::from(shard.0)).copied().unwrap_or_default();
        let Some(state) = self.share.homes.get_mut(&id) else { return };
        let lost = match result {
            Ok(Reply::Frames(frames)) => state.read(shard, frames, tail),
            Err(EngineError::Truncated { first }) => state.truncated(shard, first),
            Ok(_) | Err(_) => {
                state.not_read(shard);
                return;
            }
        };
        self.lost_by_group(id, lost);
        self.pump_group(id);
    }

    fn lost_by_group(&self, id: GroupId, lost: usize) {
        if lost > 0 {
            self.metrics.drop_message(Drop::LogTrimmed, lost as u64);
            let name = self.share.homes.get(&id).map_or("", |s| &*s.name);
            self.tell_dropped(None, name, Drop::LogTrimmed.name(), lost as u64);
        }
    }

    pub(super) fn not_taken(&mut self, id: GroupId, shard: Shard, pos: Pos, by: Holder, why: NotTaken) {
        let Some(state) = self.share.homes.get_mut(&id) else { return };
        if state.refused(shard, pos, by, why) {
            self.pump_group(id);
        }
    }

    pub(super) fn dealt_done(&mut self, id: GroupId, shard: Shard, pos: Pos, by: Holder) {
        let Some(state) = self.share.homes.get_mut(&id) else { return };
        if state.done(shard, pos, by) {
            self.pump_group(id);
        }
    }

    pub(super) fn gave_back(&mut self, id: GroupId, by: Holder, messages: &[(Shard, Pos)]) {
        let Some(state) = self.share.homes.get_mut(&id) else { return };
        let back = state.gave_back(by, messages);
        self.metrics.shared_redelivered.add(back as u64);
        self.pump_group(id);
    }

    pub(super) fn member_has_room(&mut self, id: GroupId, who: Holder) {
        let Some(state) = self.share.homes.get_mut(&id) else { return };
        state.has_room(who);
        self.pump_group(id);
    }

    /// About once a second: lets go of groups that have ended.
    pub(crate) fn tend_groups(&mut self) {
        let shared = Arc::clone(&self.shared);
        let mut ended = Vec::new();
        for (id, state) in &mut self.share.homes {
            match shared.router.group(*id) {
                Some(route) => {
                    state.connected(&route.members);
                    if !route.durable && state.is_settled() {
                        ended.push(*id);
                    }
                }
                None => ended.push(*id),
            }
        }
        for id in ended {
            if let Some(state) = self.share.homes.remove(&id) {
                let writes = vec![Write::delete(record::group_key(&state.name))];
                self.submit(Op::Put { writes }, Waiting::Nobody("group"));
            }
        }
    }

    /// Writes how far the groups have come: after a crash what follows is dealt again.
    pub(crate) fn checkpoint_groups(&mut self) {
        let tails = self.tails().to_vec();
        let most = self.shared.guarantees.max_value;
        let mut writes = Vec::new();
        for state in self.share.homes.values_mut().filter(|s| s.dirty) {
            state.dirty = false;
            let record = state.encode(&tails);
            if record.len() <= most {
                writes.push(Write::put(record::group_key(&state.name), record));
            }
        }
        for write in writes {
            self.submit(Op::Put { writes: vec![write] }, Waiting::Nobody("checkpoint"));
        }
    }

    /// The position from which groups that live here need a shard of the log.
    pub(crate) fn groups_floor(&self, shard: usize, tail: Pos) -> Pos {
        self.share.homes.values().map(|s| s.floor(shard, tail)).min().unwrap_or(Pos(u64::MAX))
    }
}

fn route_of(routes: &Rc<Routes>, id: GroupId) -> Option<&GroupRoute> {
    routes.groups.iter().find(|r| r.group.id == id)
}
