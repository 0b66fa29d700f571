//! Topic Aliases of one connection (3.3.2.3.4): those its client gave, and those it was given.
//!
//! Both are bounded by the maxima of CONNECT and CONNACK, and a connection that uses none has neither. An alias means something
//! on its own connection only: nothing here is kept with the session.
//!
//! Must not know: packets, connections, configuration.

use std::num::NonZeroU16;
use std::rc::Rc;

use mqtt::codec::encode::Alias;
use xxhash_rust::xxh3::xxh3_64;

/// What a client means by its aliases.
#[derive(Default)]
pub(crate) struct Incoming {
    /// By alias, less one. As long as the highest alias in use.
    topics: Vec<Option<Rc<str>>>,
}

impl Incoming {
    /// The client says what `alias` stands for from now on [MQTT-3.3.2-10]. The caller has compared it with the maximum.
    pub(crate) fn learn(&mut self, alias: NonZeroU16, topic: &str) {
        let at = usize::from(alias.get()) - 1;
        if self.topics.len() <= at {
            self.topics.resize(at + 1, None);
        }
        if let Some(place) = self.topics.get_mut(at)
            && place.as_deref() != Some(topic)
        {
            *place = Some(topic.into());
        }
    }

    /// What it stands for; `None`: the client has not said.
    pub(crate) fn topic(&self, alias: NonZeroU16) -> Option<Rc<str>> {
        self.topics.get(usize::from(alias.get()) - 1).cloned().flatten()
    }
}

/// Bytes of the longest topic that gets an alias: what a connection holds is bounded by this and the number of aliases.
const LONGEST_TOPIC: usize = 1_024;
/// A topic that is not longer than the property is not worth one.
const SHORTEST_TOPIC: usize = 4;

/// What a client was told.
///
/// A topic gets an alias when it comes for the second time: topics that come once, as those of a wildcard over a fleet, cost a
/// number each and no memory. When all aliases are given, the one that was not used since the hand last passed gets a new meaning
/// (second chance).
pub(crate) struct Outgoing {
    /// By alias, less one.
    given: Vec<Given>,
    most: u16,
    /// Where the search for an alias to take back goes on.
    hand: usize,
    /// Hashes of the topics that came last and have none; as many as there are aliases.
    seen: Box<[u64]>,
    next_seen: usize,
}

struct Given {
    topic: Box<str>,
    hash: u64,
    used: bool,
}

/// What to do for a topic; [`Outgoing::told`] when the packet is on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Choice {
    pub(crate) alias: Alias,
    hash: u64,
}

impl Outgoing {
    /// For a client that takes aliases up to `most`; none for 0 [MQTT-3.1.2-27].
    pub(crate) fn new(most: u16) -> Option<Self> {
        (most > 0).then(|| Self {
            given: Vec::new(),
            most,
            hand: 0,
            seen: vec![0; usize::from(most)].into(),
            next_seen: 0,
        })
    }

    /// The alias for a message to `topic`, if it has one or is to get one.
    pub(crate) fn choose(&mut self, topic: &str) -> Option<Choice> {
        if !(SHORTEST_TOPIC..=LONGEST_TOPIC).contains(&topic.len()) {
            return None;
        }
        // 0 marks an empty place
        let hash = xxh3_64(topic.as_bytes()) | 1;
        if let Some(at) = self.given.iter().position(|g| g.hash == hash && *g.topic == *topic) {
            if let Some(given) = self.given.get_mut(at) {
                given.used = true;
            }
            return Some(Choice { alias: Alias::Known(number(at)?), hash });
        }
        if let Some(place) = self.seen.iter_mut().find(|seen| **seen == hash) {
            *place = 0;
            return Some(Choice { alias: Alias::Introduced(number(self.place())?), hash });
        }
        if let Some(place) = self.seen.get_mut(self.next_seen) {
            *place = hash;
        }
        self.next_seen = (self.next_seen + 1) % self.seen.len();
        None
    }

    /// The packet of such a choice has been written: the client knows the alias now.
    pub(crate) fn told(&mut self, choice: Choice, topic: &str) {
        let Alias::Introduced(alias) = choice.alias else { return };
        let given = Given { topic: topic.into(), hash: choice.hash, used: false };
        match self.given.get_mut(usize::from(alias.get()) - 1) {
            Some(place) => *place = given,
            None => self.given.push(given),
        }
    }

    /// The next free alias, or the one that has not been used for longest; less one.
    fn place(&mut self) -> usize {
        if self.given.len() < usize::from(self.most) {
            return self.given.len();
        }
        // once around at most: every place that is passed is not used any more
        loop {
            let at = self.hand;
            self.hand = (self.hand + 1) % self.given.len();
            match self.given.get_mut(at) {
                Some(given) if given.used => given.used = false,
                _ => return at,
            }
        }
    }
}

fn number(at: usize) -> Option<NonZeroU16> {
    NonZeroU16::new(u16::try_from(at + 1).ok()?)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    fn alias(n: u16) -> NonZeroU16 {
        NonZeroU16::new(n).unwrap()
    }

    #[test]
    fn an_alias_means_what_was_said_last() {
        let mut incoming = Incoming::default();
        assert_eq!(incoming.topic(alias(3)), None);
        incoming.learn(alias(3), "a");
        assert_eq!(incoming.topic(alias(3)).as_deref(), Some("a"));
        assert_eq!(incoming.topic(alias(2)), None);
        incoming.learn(alias(3), "b");
        assert_eq!(incoming.topic(alias(3)).as_deref(), Some("b"));
    }

    #[test]
    fn a_client_that_takes_no_aliases_gets_none() {
        assert!(Outgoing::new(0).is_none());
    }

    #[test]
    fn a_topic_gets_its_alias_when_it_is_repeated() {
        let mut out = Outgoing::new(2).unwrap();
        assert_eq!(out.choose("topic/1"), None);
        let second = out.choose("topic/1").unwrap();
        assert_eq!(second.alias, Alias::Introduced(alias(1)));
        out.told(second, "topic/1");
        assert_eq!(out.choose("topic/1").unwrap().alias, Alias::Known(alias(1)));
    }

    /// A packet that was too large for the client told it nothing.
    #[test]
    fn an_alias_that_was_not_told_is_not_used() {
        let mut out = Outgoing::new(2).unwrap();
        out.choose("topic/1");
        assert_eq!(out.choose("topic/1").unwrap().alias, Alias::Introduced(alias(1)));
        assert_eq!(out.choose("topic/1"), None);
        assert_eq!(out.choose("topic/1").unwrap().alias, Alias::Introduced(alias(1)));
    }

    #[test]
    fn a_topic_in_use_keeps_its_alias_when_others_come() {
        let mut out = Outgoing::new(2).unwrap();
        let mut send = |topic: &str| {
            let choice = out.choose(topic)?;
            out.told(choice, topic);
            Some(choice.alias)
        };
        for topic in ["in use", "in use", "rare", "rare"] {
            send(topic);
        }
        send("in use");
        send("new topic");
        assert_eq!(send("new topic"), Some(Alias::Introduced(alias(2))));
        assert_eq!(send("in use"), Some(Alias::Known(alias(1))));
    }

    #[test]
    fn topics_too_short_or_too_long_get_none() {
        let mut out = Outgoing::new(2).unwrap();
        for topic in ["abc", &"x".repeat(LONGEST_TOPIC + 1)] {
            assert_eq!((out.choose(topic), out.choose(topic)), (None, None));
        }
        let longest = "x".repeat(LONGEST_TOPIC);
        for topic in ["abcd", &longest] {
            assert_eq!(out.choose(topic), None);
            assert!(out.choose(topic).is_some());
        }
    }

    proptest! {
        /// A client that believes what it is told always finds the topic that was meant.
        #[test]
        fn who_follows_the_aliases_gets_every_topic(
            most in 1u16..5, topics in proptest::collection::vec((0u8..9, any::<bool>()), 0..200),
        ) {
            let mut out = Outgoing::new(most).unwrap();
            let mut client: HashMap<u16, String> = HashMap::new();
            for (n, written) in topics {
                let topic = format!("topic/{n}");
                let Some(choice) = out.choose(&topic) else { continue };
                prop_assert!(choice.alias.number().get() <= most);
                if !written {
                    continue;
                }
                out.told(choice, &topic);
                match choice.alias {
                    Alias::Introduced(alias) => {
                        client.insert(alias.get(), topic);
                    }
                    Alias::Known(alias) => prop_assert_eq!(client.get(&alias.get()), Some(&topic)),
                }
            }
        }
    }
}
