//! A group against members and a log that do anything: each message is in one place, and none is lost.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use mqtt::QoS;
use proptest::prelude::*;

use super::*;
use crate::router::{Address, Presence};

const SHARDS: u16 = 2;

#[derive(Clone, Debug)]
enum Op {
    /// A frame; which of its messages are the group's.
    Append(u16, Vec<bool>),
    Come(u64, u16),
    Leave(u64),
    /// A member gets the next message that is on its way.
    Deliver,
    /// A member acknowledges what it has first or last.
    Ack(u64, bool),
    Full(u64),
    Room(u64),
    Small(u64, bool),
    /// What was read arrives.
    Read,
    Checkpoint,
    Crash,
    /// The log forgets what nobody needs.
    Trim,
}

fn op() -> impl Strategy<Value = Op> {
    let who = 1..5u64;
    prop_oneof![
        8 => (0..SHARDS, prop::collection::vec(any::<bool>(), 1..4)).prop_map(|(s, m)| Op::Append(s, m)),
        4 => (who.clone(), 0..2u16).prop_map(|(m, w)| Op::Come(m, w)),
        3 => who.clone().prop_map(Op::Leave),
        8 => Just(Op::Deliver),
        6 => (who.clone(), any::<bool>()).prop_map(|(m, f)| Op::Ack(m, f)),
        1 => who.clone().prop_map(Op::Full),
        2 => who.clone().prop_map(Op::Room),
        1 => (who, any::<bool>()).prop_map(|(m, s)| Op::Small(m, s)),
        6 => Just(Op::Read),
        1 => Just(Op::Checkpoint),
        1 => Just(Op::Crash),
        1 => Just(Op::Trim),
    ]
}

type Place = (Shard, Pos);

struct Peer {
    member: Member,
    full: bool,
    small: bool,
    owes_room: bool,
    has: Vec<Place>,
}

struct Rig {
    state: GroupState,
    /// By shard: which messages of each frame are the group's. Sequences begin with 1.
    log: Vec<Vec<Vec<bool>>>,
    /// Frames that are gone.
    trimmed: Vec<u64>,
    peers: BTreeMap<u64, Peer>,
    /// On their way to a member.
    mail: Vec<(Holder, Place)>,
    /// Asked for and not yet answered.
    reads: Vec<(Shard, Pos)>,
    done: BTreeSet<Place>,
    dropped: BTreeSet<Place>,
    stored: StoredGroup,
    /// Done or dropped when the record was written; what came later may come again after a crash.
    again: bool,
}

impl Rig {
    fn new() -> Self {
        let tails = vec![Pos::START; usize::from(SHARDS)];
        let state = GroupState::live_at("$share/g/a", &tails);
        let stored = StoredGroup { cursors: tails.into(), returned: Vec::new() };
        Self {
            state,
            log: vec![Vec::new(); usize::from(SHARDS)],
            trimmed: vec![0; usize::from(SHARDS)],
            peers: BTreeMap::new(),
            mail: Vec::new(),
            reads: Vec::new(),
            done: BTreeSet::new(),
            dropped: BTreeSet::new(),
            stored,
            again: false,
        }
    }

    fn tail(&self, shard: Shard) -> Pos {
        match self.log[usize::from(shard.0)].len() as u64 {
            0 => Pos::START,
            seq => Pos::end_of(seq),
        }
    }

    fn tails(&self) -> Vec<Pos> {
        (0..SHARDS).map(|s| self.tail(Shard(s))).collect()
    }

    fn members(&self) -> Vec<Member> {
        self.peers.values().map(|p| p.member.clone()).collect()
    }

    /// What the home does with a message.
    fn deal(&mut self, shard: Shard, pos: Pos, tail: Pos) -> bool {
        let members = self.members();
        if let Some(m) = members.iter().find(|m| self.state.is_able(m, shard, pos)) {
            let place = (shard, pos);
            assert!(self.again || !self.done.contains(&place), "{place:?} is dealt again");
            assert!(!self.mail.iter().any(|(_, p)| *p == place), "{place:?} is under way to another");
            assert!(!self.peers.values().any(|p| p.has.contains(&place)), "{place:?} is with another");
            self.state.dealt(shard, pos, Holder::of(m));
            self.mail.push((Holder::of(m), place));
            return true;
        }
        if !members.is_empty() && members.iter().all(|m| self.state.refuses(m, shard, pos)) {
            self.state.dropped(shard, pos);
            self.dropped.insert((shard, pos));
            return true;
        }
        self.state.waits(shard, pos, tail);
        false
    }

    fn pump(&mut self) {
        for shard in self.state.turns() {
            loop {
                match self.state.next(shard, self.tail(shard)) {
                    Next::Nothing => break,
                    Next::Read(after) => {
                        self.reads.push((shard, after));
                        break;
                    }
                    Next::Frame => {
                        let frame = self.state.frame(shard).unwrap();
                        let marks = self.log[usize::from(shard.0)][frame.seq as usize - 1].clone();
                        let wanted = (0u16..).zip(marks).filter(|(_, mark)| *mark);
                        let mut goes_on = true;
                        for (index, _) in wanted {
                            let pos = Pos::new(frame.seq, index);
                            if self.state.wants(shard, pos, false) && !self.deal(shard, pos, self.tail(shard))
                            {
                                goes_on = false;
                                break;
                            }
                        }
                        if !goes_on {
                            break;
                        }
                        assert_eq!(self.state.passed(shard), 0, "what came back is in its frame");
                    }
                }
            }
        }
    }

    fn leave(&mut self, who: u64) {
        if let Some(peer) = self.peers.remove(&who) {
            self.state.gave_back(Holder::of(&peer.member), &peer.has);
            self.pump();
        }
    }

    fn deliver(&mut self) {
        if self.mail.is_empty() {
            return;
        }
        let (to, (shard, pos)) = self.mail.remove(0);
        let peer = self.peers.get_mut(&to.session.0).filter(|p| Holder::of(&p.member) == to);
        let why = match peer {
            None => NotTaken::Gone,
            Some(peer) if peer.full => {
                peer.owes_room = true;
                NotTaken::Full
            }
            Some(peer) if peer.small => NotTaken::TooLarge,
            Some(peer) => {
                peer.has.push((shard, pos));
                let window = usize::from(peer.member.presence.window);
                assert!(peer.has.len() <= window, "more than the window");
                return;
            }
        };
        assert!(self.state.refused(shard, pos, to, why));
        self.pump();
    }

    fn ack(&mut self, who: u64, first: bool) {
        let Some(peer) = self.peers.get_mut(&who).filter(|p| !p.has.is_empty()) else { return };
        let place = peer.has.remove(if first { 0 } else { peer.has.len() - 1 });
        let by = Holder::of(&peer.member);
        self.done.insert(place);
        assert!(self.state.done(place.0, place.1, by));
        assert!(!self.state.done(place.0, place.1, by), "only once");
        self.pump();
    }

    fn read(&mut self) {
        if self.reads.is_empty() {
            return;
        }
        let (shard, after) = self.reads.remove(0);
        let trimmed = self.trimmed[usize::from(shard.0)];
        if after.seq() < trimmed {
            let lost = self.state.truncated(shard, Pos::end_of(trimmed));
            assert_eq!(lost, 0, "a message was lost that was still needed");
        } else {
            let frames = self.log[usize::from(shard.0)].len() as u64;
            let frame = |seq| LogFrame { seq, bytes: Bytes::new() };
            let found: Vec<LogFrame> = (after.seq() + 1..=frames).take(2).map(frame).collect();
            let lost = self.state.read(shard, found, self.tail(shard));
            assert_eq!(lost, 0);
        }
        self.pump();
    }

    fn crash(&mut self) {
        self.state = GroupState::restored("$share/g/a".into(), &self.stored.clone(), usize::from(SHARDS));
        (self.peers, self.mail, self.reads) = Default::default();
        self.again = true;
    }

    fn apply(&mut self, op: &Op) {
        match op {
            Op::Append(shard, marks) => {
                let (shard, before) = (Shard(*shard), self.tail(Shard(*shard)));
                self.log[usize::from(shard.0)].push(marks.clone());
                let seq = self.log[usize::from(shard.0)].len() as u64;
                for (index, _) in (0u16..).zip(marks).filter(|(_, mark)| **mark) {
                    let pos = Pos::new(seq, index);
                    if self.state.wants(shard, pos, true) {
                        self.deal(shard, pos, before);
                    }
                }
                // the worker's tail is moved when the frame has been gone through
                self.pump();
            }
            Op::Come(who, worker) => {
                self.leave(*who);
                let member = Member {
                    session: SessionKey(*who),
                    address: Address { worker: *worker, slot: 0 },
                    qos: QoS::AtLeastOnce,
                    retain_as_published: false,
                    identifier: 0,
                    presence: Presence { window: 2, ..Presence::default() },
                };
                self.state.has_room(Holder::of(&member));
                let peer = Peer { member, full: false, small: false, owes_room: false, has: Vec::new() };
                self.peers.insert(*who, peer);
                self.pump();
            }
            Op::Leave(who) => self.leave(*who),
            Op::Deliver => self.deliver(),
            Op::Ack(who, first) => self.ack(*who, *first),
            Op::Full(who) => self.peers.get_mut(who).into_iter().for_each(|p| p.full = true),
            Op::Room(who) => {
                if let Some(peer) = self.peers.get_mut(who) {
                    peer.full = false;
                    if std::mem::take(&mut peer.owes_room) {
                        let who = Holder::of(&peer.member);
                        self.state.has_room(who);
                        self.pump();
                    }
                }
            }
            Op::Small(who, small) => self.peers.get_mut(who).into_iter().for_each(|p| p.small = *small),
            Op::Read => self.read(),
            Op::Checkpoint => {
                self.stored = StoredGroup::decode(&self.state.encode(&self.tails())).unwrap();
            }
            Op::Crash => self.crash(),
            Op::Trim => {
                // a crash goes back to the record: what it needs stays, too
                let stored = GroupState::restored("x".into(), &self.stored, usize::from(SHARDS));
                for shard in 0..usize::from(SHARDS) {
                    let tail = self.tail(Shard(shard as u16));
                    let floor = self.state.floor(shard, tail).min(stored.floor(shard, tail));
                    self.trimmed[shard] = self.trimmed[shard].max(floor.seq().saturating_sub(1));
                }
            }
        }
        let members = self.members();
        self.state.connected(&members);
    }

    /// Everybody is here and takes everything: nothing may be left.
    fn finish(&mut self) {
        for who in 1..3 {
            self.apply(&Op::Come(who, 0));
        }
        for who in 1..5 {
            self.apply(&Op::Small(who, false));
            self.apply(&Op::Room(who));
        }
        for _ in 0..10_000 {
            self.read();
            self.deliver();
            (1..5).for_each(|who| self.ack(who, true));
            if self.reads.is_empty() && self.mail.is_empty() && self.state.is_settled() {
                break;
            }
        }
        assert!(self.state.is_settled(), "the group does not come to rest");
        for (shard, frames) in (0u16..).zip(&self.log) {
            for (seq, marks) in (1u64..).zip(frames) {
                for (index, _) in (0u16..).zip(marks).filter(|(_, mark)| **mark) {
                    let place = (Shard(shard), Pos::new(seq, index));
                    assert!(self.done.contains(&place) || self.dropped.contains(&place), "{place:?} is lost");
                }
            }
        }
        for shard in 0..usize::from(SHARDS) {
            let tail = self.tail(Shard(shard as u16));
            assert_eq!(self.state.floor(shard, tail), tail, "nothing holds the log");
        }
    }
}

proptest! {
    /// Exactly one member has a message at any time, whoever comes, goes, refuses or acknowledges; in the end each was acknowledged.
    #[test]
    fn every_message_is_with_one_member_and_none_is_lost(ops in prop::collection::vec(op(), 1..200)) {
        let mut rig = Rig::new();
        ops.iter().for_each(|op| rig.apply(op));
        rig.finish();
    }

    #[test]
    fn a_damaged_record_is_refused(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
        let _ = StoredGroup::decode(&bytes);
    }
}

#[test]
fn a_record_cut_anywhere_is_not_believed() {
    let mut rig = Rig::new();
    for op in [Op::Come(1, 0), Op::Append(0, vec![true, true, true]), Op::Append(1, vec![true])] {
        rig.apply(&op);
    }
    let bytes = rig.state.encode(&rig.tails());
    let stored = StoredGroup::decode(&bytes).unwrap();
    assert_eq!(stored.returned.len(), 4, "what is out comes back after a crash");
    for cut in 0..bytes.len() {
        assert!(StoredGroup::decode(&bytes[..cut]).is_none(), "cut at {cut}");
    }
}
