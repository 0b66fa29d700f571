//! Shared subscriptions (4.8.2): of a group of sessions one gets each message.
//!
//! Two ways lead to a member. **Directly**: at QoS 0, and while no member of the group outlives its connection, the worker
//! that has the message chooses a member that is connected and gives it to it (`direct`). **Through the log**: QoS 1 and 2 of a
//! group with a durable member are appended with the group's mark; the group has a home worker, is a reader of the log there
//! as a session is, and deals what it reads (`home`, with the state in `group`). Which way a message goes is decided once, by
//! who published it, and stands in the log: a group that changes meanwhile gets nothing twice.
//!
//! `member` is what a session does with messages that it was dealt, and how it gives them back when its connection goes.
//! `strategy` chooses.

mod direct;
pub(crate) mod group;
mod home;
mod member;
pub(crate) mod strategy;

use std::sync::Arc;
use std::sync::atomic::AtomicU32;

use engine::{Pos, Shard};
use hashbrown::HashMap;
use smallvec::SmallVec;

use crate::message::{Message, View};
use crate::router::{Group, GroupId, Member, SessionKey};
use crate::worker::Worker;
use group::{GroupState, Holder};
use strategy::{Asked, Picker};

/// What the filter of a shared subscription begins with [MQTT-4.8.2-1].
pub(crate) const SHARE: &str = "$share/";

/// Rounds of mail to itself that a worker goes through in one turn.
const ROUNDS: usize = 8;

/// A message that a member got in its group's place, and has not acknowledged.
#[derive(Clone, Debug)]
pub(crate) struct Dealt {
    pub(crate) group: Arc<Group>,
    pub(crate) from: Source,
}

/// Where a dealt message can be found again.
#[derive(Clone, Debug)]
pub(crate) enum Source {
    /// It went directly.
    Memory(Arc<Message>),
    /// In the log, from which its group reads.
    Log { shard: Shard, pos: Pos },
}

/// What a session with shared subscriptions has more than others.
#[derive(Debug, Default)]
pub(crate) struct Sharing {
    /// See [`crate::router::Presence::load`].
    pub(crate) load: Arc<AtomicU32>,
    /// Groups that are to be told when there is room again; each once.
    pub(crate) refused: Vec<GroupId>,
}

/// Why a member does not take a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotTaken {
    /// It is not connected any more.
    Gone,
    /// Its window, its queue or its outbound buffer is full.
    Full,
    /// Larger than its Maximum Packet Size [MQTT-3.1.2-24].
    TooLarge,
    /// Nobody gets it any more [MQTT-3.3.2-5].
    Expired,
}

/// Members that have refused a message.
pub(crate) type Tried = SmallVec<[SessionKey; 2]>;

/// A message for one member.
pub(crate) struct Deal {
    pub(crate) group: Arc<Group>,
    pub(crate) member: Member,
    pub(crate) message: Arc<Message>,
    /// Who has refused it before.
    pub(crate) tried: Tried,
}

/// What workers have for each other because of groups.
pub(crate) enum ShareMail {
    /// A message that goes directly.
    Direct(Box<Deal>),
    /// A message of the log, from the group's home; it is told what does not stay.
    Logged { deal: Box<Deal>, shard: Shard, pos: Pos },
    /// The member does not take it.
    NotTaken { id: GroupId, shard: Shard, pos: Pos, by: Holder, why: NotTaken },
    /// The member has acknowledged it, or answers for it from now on.
    Done { id: GroupId, shard: Shard, pos: Pos, by: Holder },
    /// The member's connection has gone.
    GaveBack { id: GroupId, by: Holder, messages: Vec<(Shard, Pos)> },
    /// The member came, or has room again.
    Room { id: GroupId, who: Holder },
}

/// A worker's part of shared subscriptions.
pub(crate) struct Share {
    /// Who was chosen last, for each group that this worker deals to.
    pickers: HashMap<GroupId, Picker>,
    /// Groups that read the log here.
    homes: HashMap<GroupId, GroupState>,
    rng: fastrand::Rng,
    /// Messages that no member took.
    lost: u64,
}

impl Share {
    pub(crate) fn new(worker: u16, seed: u64) -> Self {
        Self {
            pickers: HashMap::new(),
            homes: HashMap::new(),
            rng: fastrand::Rng::with_seed(seed ^ u64::from(worker)),
            lost: 0,
        }
    }
}

impl ShareMail {
    /// Bytes that wait with it; a message counts for each of its receivers.
    pub(crate) fn weight(&self) -> usize {
        let more = match self {
            Self::Direct(deal) | Self::Logged { deal, .. } => {
                size_of::<Deal>() + size_of::<Message>() + deal.message.weight()
            }
            Self::GaveBack { messages, .. } => size_of_val(&**messages),
            Self::NotTaken { .. } | Self::Done { .. } | Self::Room { .. } => 0,
        };
        size_of::<Self>() + more
    }
}

impl Worker {
    /// Sends at the end of the turn, or when it is much; to this worker too.
    fn share_mail(&mut self, to: u16, mail: ShareMail) {
        let own = to == self.id;
        let to = usize::from(to);
        let Some(outgoing) = self.outgoing.get_mut(to) else { return };
        outgoing.push_mail(mail);
        if !own && outgoing.is_large() {
            self.hand_over(to);
        }
        self.wake_flush();
    }

    /// Mail of other workers.
    pub(crate) fn share_mails(&mut self, mails: Vec<ShareMail>) {
        for mail in mails {
            match mail {
                ShareMail::Direct(deal) => self.on_direct(*deal),
                ShareMail::Logged { deal, shard, pos } => self.on_logged(&deal, shard, pos),
                ShareMail::NotTaken { id, shard, pos, by, why } => self.not_taken(id, shard, pos, by, why),
                ShareMail::Done { id, shard, pos, by } => self.dealt_done(id, shard, pos, by),
                ShareMail::GaveBack { id, by, messages } => self.gave_back(id, by, &messages),
                ShareMail::Room { id, who } => self.member_has_room(id, who),
            }
        }
    }

    /// Mail of this worker to itself: not in the middle of what caused it.
    pub(crate) fn own_share_mail(&mut self) {
        let own = usize::from(self.id);
        for _ in 0..ROUNDS {
            let Some(mut batch) = self.outgoing.get_mut(own).filter(|o| !o.is_empty()).map(std::mem::take)
            else {
                return;
            };
            self.share_mails(batch.take_mails());
        }
        self.wake_flush();
    }

    /// About once a minute: forgets groups that are no more.
    pub(crate) fn sweep_groups(&mut self) {
        let router = &self.shared.router;
        self.share.pickers.retain(|&id, _| router.has_group(id));
    }

    /// Chooses a member for a message by the group's strategy.
    fn pick<'m>(
        &mut self,
        group: &Group,
        members: &'m [Member],
        view: View<'_>,
        able: impl Fn(&Member) -> bool,
    ) -> Option<&'m Member> {
        let asked = self.asked(group, view);
        self.share.pickers.entry(group.id).or_default().choose(asked, members, able)
    }
}

impl Worker {
    fn asked<'v>(&mut self, group: &Group, view: View<'v>) -> Asked<'v> {
        Asked {
            strategy: self.config.strategy_of(group.share()),
            publisher: view.publisher,
            topic: &view.publish.topic,
            dice: self.share.rng.u64(..),
        }
    }

    /// The worker that a group reads the log on.
    fn home_of(&self, id: GroupId) -> u16 {
        let workers = self.shared.mailboxes.len().max(1) as u64;
        u16::try_from(id.0 % workers).unwrap_or(0)
    }
}

/// Whether a filter is that of a shared subscription.
pub(crate) fn is_shared(filter: &str) -> bool {
    filter.starts_with(SHARE)
}
