//! Who publishes where and who hears it, before anything is connected. Pure.

use std::ops::Range;

/// How publishers and subscribers meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// Each publisher has a topic and a subscriber of its own.
    Pairs,
    /// All publishers share one topic, which everybody hears.
    FanOut,
    /// Each publisher has a topic of its own, and every subscriber hears all of them.
    FanIn,
}

/// The whole run.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) shape: Shape,
    pub(super) publishers: u32,
    pub(super) subscribers: u32,
    /// The subscribers share the messages as one group of this name.
    pub(super) share: Option<String>,
    /// A topic, with `%i` for the publisher's number and `%r` for the run.
    pub(super) topic: String,
    /// Tells this run from others.
    pub(super) run: u32,
}

/// Pairs of a subscriber and a publisher it hears; beyond, the bookkeeping would take the memory of the machine.
const MOST_PAIRS: u64 = 20_000_000;

impl Plan {
    /// What is wrong with the flags, in one sentence.
    pub(super) fn check(&self) -> Result<(), String> {
        let pairs =
            (0..self.subscribers).map(|subscriber| self.heard_by(subscriber).len() as u64).sum::<u64>();
        if pairs > MOST_PAIRS {
            return Err(format!(
                "{} publishers heard by {} subscribers are {pairs} pairs to keep books of; at most {MOST_PAIRS}",
                self.publishers, self.subscribers
            ));
        }
        let levels = self.topic.split('/').filter(|level| *level == "%i").count();
        let anywhere = self.topic.matches("%i").count();
        match self.shape {
            Shape::Pairs if self.publishers > 1 && anywhere == 0 => {
                Err(format!("-t {}: %i is needed, so that each pair has a topic of its own", self.topic))
            }
            Shape::FanIn if levels != 1 || anywhere != 1 => Err(format!(
                "-t {}: %i is needed once, as a level of its own: subscribers put + there",
                self.topic
            )),
            _ => self.names(),
        }
    }

    fn names(&self) -> Result<(), String> {
        let (topic, filter) = (self.topic(0), self.filter(0));
        mqtt::topic::validate(&topic).map_err(|error| format!("-t {topic}: {error}"))?;
        mqtt::filter::Filter::parse(&filter).map(drop).map_err(|error| format!("{filter}: {error}"))
    }

    fn named(&self, number: &str) -> String {
        self.topic.replace("%r", &format!("{:08x}", self.run)).replace("%i", number)
    }

    /// Where a publisher publishes.
    pub(super) fn topic(&self, publisher: u32) -> String {
        match self.shape {
            Shape::FanOut => self.named("0"),
            Shape::Pairs | Shape::FanIn => self.named(&publisher.to_string()),
        }
    }

    /// What a subscriber subscribes to.
    pub(super) fn filter(&self, subscriber: u32) -> String {
        let filter = match self.shape {
            Shape::Pairs => self.named(&subscriber.to_string()),
            Shape::FanOut => self.named("0"),
            Shape::FanIn => self.named("+"),
        };
        match &self.share {
            Some(group) => format!("$share/{group}/{filter}"),
            None => filter,
        }
    }

    /// The publishers that a subscriber hears.
    pub(super) fn heard_by(&self, subscriber: u32) -> Range<u32> {
        match self.shape {
            Shape::Pairs => subscriber..subscriber + 1,
            Shape::FanOut | Shape::FanIn => 0..self.publishers,
        }
    }

    /// Copies of each message that arrive, over all subscribers.
    pub(super) fn fan(&self) -> u64 {
        match (self.shape, &self.share) {
            (Shape::Pairs, _) | (_, Some(_)) => 1,
            (Shape::FanOut | Shape::FanIn, None) => u64::from(self.subscribers),
        }
    }

    /// The publishers of one of so many threads, ascending. Both ends of a pair are on the same thread.
    pub(super) fn publishers_of(&self, thread: usize, threads: usize) -> impl Iterator<Item = u32> + use<> {
        (thread as u32..self.publishers).step_by(threads)
    }

    /// The subscribers of one of so many threads, ascending.
    pub(super) fn subscribers_of(&self, thread: usize, threads: usize) -> impl Iterator<Item = u32> + use<> {
        (thread as u32..self.subscribers).step_by(threads)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(shape: Shape, publishers: u32, subscribers: u32) -> Plan {
        let topic = "tidegate/bench/%r/%i".to_owned();
        Plan { shape, publishers, subscribers, share: None, topic, run: 0xAB }
    }

    /// Every topic against every filter, as a broker would match them.
    #[test]
    fn what_is_heard_is_what_the_filters_match() {
        for shape in [Shape::Pairs, Shape::FanOut, Shape::FanIn] {
            let publishers = 5;
            let subscribers = if shape == Shape::Pairs { 5 } else { 3 };
            let plan = plan(shape, publishers, subscribers);
            plan.check().unwrap();
            for publisher in 0..publishers {
                let mut copies = 0;
                for subscriber in 0..subscribers {
                    let hears = mqtt::filter::matches(&plan.filter(subscriber), &plan.topic(publisher));
                    assert_eq!(hears, plan.heard_by(subscriber).contains(&publisher), "{shape:?}");
                    copies += u64::from(hears);
                }
                assert_eq!(copies, plan.fan(), "{shape:?}");
            }
        }
    }

    #[test]
    fn a_shared_group_gets_each_message_once() {
        let plan = Plan { share: Some("g".to_owned()), ..plan(Shape::FanIn, 7, 3) };
        plan.check().unwrap();
        assert_eq!((plan.filter(2).as_str(), plan.fan()), ("$share/g/tidegate/bench/000000ab/+", 1));
    }

    #[test]
    fn threads_share_out_everybody_once() {
        let plan = plan(Shape::FanIn, 11, 4);
        let mut all: Vec<u32> = (0..3).flat_map(|thread| plan.publishers_of(thread, 3)).collect();
        all.sort_unstable();
        assert_eq!(all, (0..11).collect::<Vec<_>>());
        let subscribers: usize = (0..3).map(|thread| plan.subscribers_of(thread, 3).count()).sum();
        assert_eq!(subscribers, 4);
    }

    #[test]
    fn a_topic_that_cannot_serve_the_shape_is_told() {
        let with = |shape, topic: &str| Plan { topic: topic.to_owned(), ..plan(shape, 2, 2) }.check();
        assert!(with(Shape::Pairs, "a/b").is_err());
        assert!(with(Shape::Pairs, "a/b%i").is_ok());
        assert!(with(Shape::FanIn, "a/b%i").is_err());
        assert!(with(Shape::FanIn, "%i/%i").is_err());
        assert!(with(Shape::FanIn, "a/%i/up").is_ok());
        assert!(with(Shape::FanOut, "a").is_ok());
        assert!(with(Shape::FanOut, "a/#").is_err());
        let huge = plan(Shape::FanOut, 10_000, 10_000).check().unwrap_err();
        assert!(huge.contains("pairs"), "{huge}");
    }
}
