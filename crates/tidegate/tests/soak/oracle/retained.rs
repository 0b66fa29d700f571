//! What is retained: each topic has one writer, so the last acknowledged message, or one sent after it, is the retained one.

use std::collections::BTreeMap;

/// One topic.
#[derive(Clone, Copy, Debug, Default)]
struct Topic {
    sent: u64,
    acknowledged: u64,
    /// The last one sent that had no payload.
    cleared: u64,
}

/// What one connection knows of one topic.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct View {
    /// The message that was acknowledged before it subscribed.
    floor: u64,
    /// The last one that came as it was published.
    live: u64,
}

/// What the subscription asks for.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Asked {
    pub(crate) retain_as_published: bool,
    /// No retained messages.
    pub(crate) only_new: bool,
}

/// See the module.
pub(crate) struct Shelf {
    topics: Vec<Topic>,
}

impl Shelf {
    pub(crate) fn new(topics: usize) -> Self {
        Self { topics: vec![Topic::default(); topics] }
    }

    /// The name of a topic.
    pub(crate) fn name(topic: usize) -> String {
        format!("r/{topic}")
    }

    pub(crate) fn len(&self) -> usize {
        self.topics.len()
    }

    /// The number of the next message to a topic, which clears it or not.
    pub(crate) fn send(&mut self, topic: usize, clears: bool) -> u64 {
        let topic = &mut self.topics[topic];
        topic.sent += 1;
        if clears {
            topic.cleared = topic.sent;
        }
        topic.sent
    }

    pub(crate) fn acknowledged(&mut self, topic: usize, seq: u64) {
        let topic = &mut self.topics[topic];
        topic.acknowledged = topic.acknowledged.max(seq);
    }

    /// What a connection that subscribes now must see of each topic.
    pub(crate) fn view(&self) -> Vec<View> {
        self.topics.iter().map(|topic| View { floor: topic.acknowledged, live: 0 }).collect()
    }

    /// A message of a topic came to a connection, with the retain flag or not.
    pub(crate) fn received(
        view: &mut [View],
        topic: usize,
        seq: u64,
        flag: bool,
        asked: Asked,
    ) -> Result<(), String> {
        let Some(view) = view.get_mut(topic) else { return Ok(()) };
        if asked.retain_as_published {
            // the flag is there, whether it was kept or comes as it was published; what was acknowledged before it subscribed
            // may still be on its way from another worker, in order
            let right = flag && (seq >= view.floor || seq > view.live);
            view.live = if seq < view.floor { seq } else { view.live };
            let name = Self::name(topic);
            return if right {
                Ok(())
            } else {
                Err(format!("{name} {seq} with the flag {flag} [MQTT-3.3.1-13]"))
            };
        }
        let kept = flag;
        if kept && asked.only_new {
            return Err(format!("{} keeps message {seq}, not asked for [MQTT-3.3.1-11]", Self::name(topic)));
        }
        if kept && seq < view.floor {
            let (name, floor) = (Self::name(topic), view.floor);
            return Err(format!("{name} keeps message {seq} after {floor} was acknowledged [MQTT-3.3.1-5]"));
        }
        if !kept && seq <= view.live {
            return Err(format!(
                "{} gave message {seq} after {} [MQTT-4.6.0-6]",
                Self::name(topic),
                view.live
            ));
        }
        if !kept {
            view.live = seq;
        }
        Ok(())
    }

    /// How many topics keep a message, when everything is acknowledged.
    pub(crate) fn kept(&self) -> usize {
        self.topics.iter().filter(|topic| topic.sent > topic.cleared).count()
    }

    /// Whether exactly the last messages are retained, when everything is acknowledged.
    pub(crate) fn check(&self, got: &BTreeMap<usize, u64>) -> Result<(), String> {
        for (number, topic) in self.topics.iter().enumerate() {
            let expected = (topic.sent > topic.cleared).then_some(topic.sent);
            let found = got.get(&number).copied();
            // what was sent and never acknowledged may be the last or not
            let open = topic.acknowledged < topic.sent && found.is_none_or(|seq| seq >= topic.acknowledged);
            if found != expected && !open {
                return Err(format!("{} keeps {found:?} and not {expected:?}", Self::name(number)));
            }
        }
        Ok(())
    }
}
