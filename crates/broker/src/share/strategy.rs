//! Which member of a group gets a message: a pure function of who is there, of the message, and of who got the last one.
//!
//! Must not know: workers, connections, the log.

use crate::router::{Member, SessionKey};

/// How a group deals its messages; the names are those of EMQX.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Strategy {
    /// One after the other. Each worker has a round of its own.
    #[default]
    RoundRobin,
    /// Any, by chance.
    Random,
    /// The same until it goes: whose session is the oldest, so that all workers stick to the same one.
    Sticky,
    /// Whoever has the fewest messages under way or waiting.
    LeastInflight,
    /// The same for all messages of a publisher's client identifier, as long as the members are the same.
    HashClientid,
    /// The same for all messages of a topic, as long as the members are the same.
    HashTopic,
}

impl Strategy {
    /// By the names of the configuration.
    pub const NAMES: [(&'static str, Self); 6] = [
        ("round_robin", Self::RoundRobin),
        ("random", Self::Random),
        ("sticky", Self::Sticky),
        ("least_inflight", Self::LeastInflight),
        ("hash_clientid", Self::HashClientid),
        ("hash_topic", Self::HashTopic),
    ];
}

/// What a choice may depend on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked<'a> {
    pub(crate) strategy: Strategy,
    /// The publisher's session; its client identifier is in the key's last bits.
    pub(crate) publisher: SessionKey,
    pub(crate) topic: &'a str,
    /// A random number.
    pub(crate) dice: u64,
}

/// Who was chosen before, for one group.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Picker {
    last: Option<SessionKey>,
    stuck: Option<SessionKey>,
}

impl Picker {
    /// Chooses one of `members` (ascending by session) that is `able`; `None`: none is.
    ///
    /// A member that a hash or stickiness asks for and that is not able is replaced for this message only.
    pub(crate) fn choose<'m>(
        &mut self,
        asked: Asked<'_>,
        members: &'m [Member],
        able: impl Fn(&Member) -> bool,
    ) -> Option<&'m Member> {
        let chosen = match asked.strategy {
            Strategy::RoundRobin => self.next(members, able, asked.dice),
            Strategy::Random => {
                let count = members.iter().filter(|m| able(m)).count() as u64;
                let at = asked.dice.checked_rem(count).and_then(|at| usize::try_from(at).ok())?;
                members.iter().filter(|m| able(m)).nth(at)
            }
            Strategy::Sticky => self.stuck(members, able),
            Strategy::LeastInflight => {
                let load = |m: &Member| m.presence.load.load(std::sync::atomic::Ordering::Relaxed);
                let least = members.iter().filter(|m| able(m)).map(load).min()?;
                // equals take turns
                self.next(members, |m| able(m) && load(m) <= least, asked.dice)
            }
            // the session of a client identifier may change, its part of the key does not
            Strategy::HashClientid => highest(members, able, asked.publisher.client_hash()),
            Strategy::HashTopic => highest(members, able, xxhash_rust::xxh3::xxh3_64(asked.topic.as_bytes())),
        }?;
        self.last = Some(chosen.session);
        Some(chosen)
    }

    /// The one after the last; where there is no last, any, so that workers do not begin with the same one.
    fn next<'m>(
        &self,
        members: &'m [Member],
        able: impl Fn(&Member) -> bool,
        dice: u64,
    ) -> Option<&'m Member> {
        let first = match self.last {
            Some(last) => members.partition_point(|m| m.session <= last),
            None => dice.checked_rem(members.len() as u64).and_then(|at| usize::try_from(at).ok())?,
        };
        let (before, after) = members.split_at_checked(first)?;
        after.iter().chain(before).find(|m| able(m))
    }

    fn stuck<'m>(&mut self, members: &'m [Member], able: impl Fn(&Member) -> bool) -> Option<&'m Member> {
        if let Some(stuck) = self.stuck
            && let Ok(at) = members.binary_search_by_key(&stuck, |m| m.session)
        {
            return members.get(at).filter(|m| able(m)).or_else(|| highest(members, able, stuck.0));
        }
        let chosen = members.iter().find(|m| able(m))?;
        self.stuck = Some(chosen.session);
        Some(chosen)
    }
}

/// Rendezvous hashing: a member that comes or goes moves its own share only.
fn highest(members: &[Member], able: impl Fn(&Member) -> bool, seed: u64) -> Option<&Member> {
    let weight = |m: &&Member| xxhash_rust::xxh3::xxh3_64_with_seed(&m.session.0.to_le_bytes(), seed);
    members.iter().filter(|m| able(m)).max_by_key(weight)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::atomic::Ordering;

    use mqtt::QoS;

    use super::*;
    use crate::router::{Address, Presence};

    fn members(sessions: &[u64]) -> Vec<Member> {
        let member = |&session: &u64| Member {
            session: SessionKey(session),
            address: Address { worker: 0, slot: 0 },
            qos: QoS::AtLeastOnce,
            retain_as_published: false,
            identifier: 0,
            presence: Presence::default(),
        };
        sessions.iter().map(member).collect()
    }

    fn asked(strategy: Strategy, topic: &str, publisher: u64, dice: u64) -> Asked<'_> {
        Asked { strategy, publisher: SessionKey(publisher), topic, dice }
    }

    fn all() -> impl Iterator<Item = Strategy> {
        Strategy::NAMES.into_iter().map(|(_, strategy)| strategy)
    }

    #[test]
    fn nobody_is_chosen_where_nobody_is_able() {
        for strategy in all() {
            let mut picker = Picker::default();
            assert_eq!(picker.choose(asked(strategy, "t", 1, 5), &[], |_| true), None);
            assert_eq!(picker.choose(asked(strategy, "t", 1, 5), &members(&[1, 2]), |_| false), None);
        }
    }

    #[test]
    fn only_who_is_able_is_chosen() {
        let m = members(&[1, 2, 3, 4]);
        for strategy in all() {
            let mut picker = Picker::default();
            for dice in 0..50 {
                let able = SessionKey(dice % 4 + 1);
                let topic = dice.to_string();
                let chosen = picker.choose(asked(strategy, &topic, dice, dice), &m, |m| m.session == able);
                assert_eq!(chosen.map(|m| m.session), Some(able), "{strategy:?}");
            }
        }
    }

    #[test]
    fn round_robin_gives_each_its_turn_also_when_members_come_and_go() {
        let mut picker = Picker::default();
        let mut take = |sessions: &[u64]| {
            picker
                .choose(asked(Strategy::RoundRobin, "t", 0, 0), &members(sessions), |_| true)
                .unwrap()
                .session
                .0
        };
        assert_eq!([take(&[1, 3, 5]), take(&[1, 3, 5]), take(&[1, 3, 5]), take(&[1, 3, 5])], [1, 3, 5, 1]);
        assert_eq!(take(&[1, 2, 5]), 2);
        assert_eq!(take(&[1, 5]), 5);
        assert_eq!(take(&[3]), 3);
    }

    #[test]
    fn random_reaches_everybody() {
        let m = members(&[1, 2, 3]);
        let mut counts = BTreeMap::new();
        let mut rng = fastrand::Rng::with_seed(7);
        for _ in 0..3_000 {
            let chosen = Picker::default().choose(asked(Strategy::Random, "t", 0, rng.u64(..)), &m, |_| true);
            *counts.entry(chosen.unwrap().session).or_insert(0) += 1;
        }
        assert!(counts.len() == 3 && counts.values().all(|&n| n > 800), "{counts:?}");
    }

    #[test]
    fn sticky_stays_until_the_member_goes_and_comes_back_from_one_that_had_no_room() {
        let mut picker = Picker::default();
        let mut take = |sessions: &[u64], full: u64, dice| {
            let m = members(sessions);
            let able = |m: &Member| m.session.0 != full;
            picker.choose(asked(Strategy::Sticky, "t", 0, dice), &m, able).unwrap().session.0
        };
        // the oldest session that is there
        assert_eq!(take(&[2, 3], 0, 1), 2);
        assert!((0..20).all(|dice| take(&[1, 2, 3], 0, dice) == 2));
        assert_ne!(take(&[1, 2, 3], 2, 0), 2);
        assert_eq!(take(&[1, 2, 3], 0, 0), 2);
        let next = take(&[1, 3], 0, 0);
        assert_eq!(next, 1);
        assert_eq!(take(&[1, 2, 3], 0, 2), 1);
    }

    #[test]
    fn least_inflight_takes_the_least_and_equals_take_turns() {
        let m = members(&[1, 2, 3]);
        let mut picker = Picker::default();
        let mut take =
            || picker.choose(asked(Strategy::LeastInflight, "t", 0, 0), &m, |_| true).unwrap().session.0;
        m[0].presence.load.store(2, Ordering::Relaxed);
        assert_eq!([take(), take(), take()], [2, 3, 2]);
        m[1].presence.load.store(3, Ordering::Relaxed);
        m[2].presence.load.store(3, Ordering::Relaxed);
        assert_eq!([take(), take()], [1, 1]);
    }

    #[test]
    fn a_hash_keeps_its_member_when_others_go() {
        let before = members(&[1, 2, 3, 4, 5]);
        let after = members(&[1, 2, 3, 5]);
        let mut moved = 0;
        for n in 0..500u64 {
            let topic = format!("t/{n}");
            for strategy in [Strategy::HashTopic, Strategy::HashClientid] {
                let take = |m: &[Member], dice| {
                    // the counter part of the key does not matter, the client's part does
                    let key = SessionKey::new(n + dice, &topic);
                    let topic = if strategy == Strategy::HashTopic { topic.as_str() } else { "other" };
                    let asked = Asked { strategy, publisher: key, topic, dice };
                    Picker::default().choose(asked, m, |_| true).unwrap().session.0
                };
                let first = take(&before, 0);
                assert_eq!(take(&before, 99), first);
                if first == 4 {
                    moved += 1;
                } else {
                    assert_eq!(take(&after, 3), first);
                }
            }
        }
        assert!((100..300).contains(&moved), "{moved} of 1000 belonged to one of five");
    }
}
