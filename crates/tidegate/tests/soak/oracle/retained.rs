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
///
/// It gets what is published from when it subscribed, in order, and somewhere among that what was kept, once. Where the flag
/// tells nothing apart, both readings of what came are followed until one of them is impossible.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct View {
    /// The message that was acknowledged before it subscribed.
    floor: u64,
    /// The last one that came as it was published, if what was kept is still to come.
    before: Option<u64>,
    /// The same if it has come; the lower one where it may have been either of two.
    after: Option<u64>,
}

impl View {
    /// A message came that was kept. `false`: it can't have been.
    fn kept(&mut self, seq: u64) -> bool {
        self.after = self.before.take().filter(|_| seq >= self.floor);
        self.after.is_some()
    }

    /// A message came as it was published. `false`: it can't have been.
    fn live(&mut self, seq: u64) -> bool {
        let next = |last: Option<u64>| last.filter(|last| seq > *last).map(|_| seq);
        (self.before, self.after) = (next(self.before), next(self.after));
        self.before.or(self.after).is_some()
    }

    /// A message came, kept or as it was published. `false`: it can't have been either.
    fn either(&mut self, seq: u64) -> bool {
        let (mut kept, mut live) = (*self, *self);
        let possible = [kept.kept(seq).then_some(kept), live.live(seq).then_some(live)];
        let after = possible.iter().flatten().filter_map(|view| view.after).min();
        let before = possible.iter().flatten().find_map(|view| view.before);
        (self.before, self.after) = (before, after);
        before.or(after).is_some()
    }
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
        let begin = |topic: &Topic| View { floor: topic.acknowledged, before: Some(0), after: None };
        self.topics.iter().map(begin).collect()
    }

    /// A message of a topic came to a connection, with the retain flag or not.
    ///
    /// A live message may be older than one that was acknowledged before the subscription: acknowledged means that it was given to
    /// the other workers, where it waits in order, and the specification says nothing of who subscribes meanwhile. A kept one
    /// may not be older [MQTT-3.3.1-5].
    pub(crate) fn received(
        view: &mut [View],
        topic: usize,
        seq: u64,
        flag: bool,
        asked: Asked,
    ) -> Result<(), String> {
        let Some(view) = view.get_mut(topic) else { return Err(format!("r/{topic} is nobody's")) };
        let (known, name) = (*view, Self::name(topic));
        if asked.retain_as_published && !flag {
            return Err(format!("{name} {seq} without the flag [MQTT-3.3.1-13]"));
        }
        if !asked.retain_as_published && asked.only_new && flag {
            return Err(format!("{name} keeps message {seq}, not asked for [MQTT-3.3.1-11]"));
        }
        let right = match (asked.retain_as_published, flag) {
            // the flag is there, whether it was kept or comes as it was published
            (true, _) if !asked.only_new => view.either(seq),
            (false, true) => view.kept(seq),
            _ => view.live(seq),
        };
        if right {
            return Ok(());
        }
        Err(format!(
            "{name} message {seq} with the flag {flag}, known before was {known:?} [MQTT-3.3.1-5] [MQTT-4.6.0-6]"
        ))
    }

    /// How many topics keep a message, when everything is acknowledged.
    pub(crate) fn kept(&self) -> usize {
        self.topics.iter().filter(|topic| topic.sent > topic.cleared).count()
    }

    /// Whether exactly the last messages are retained, when everything is acknowledged.
    pub(crate) fn check(&self, got: &BTreeMap<usize, u64>) -> Result<(), String> {
        for (number, topic) in self.topics.iter().enumerate() {
            let (name, found) = (Self::name(number), got.get(&number).copied());
            if topic.acknowledged < topic.sent {
                let Topic { sent, acknowledged, .. } = topic;
                return Err(format!("{name} was sent {sent} messages, {acknowledged} acknowledged"));
            }
            let expected = (topic.sent > topic.cleared).then_some(topic.sent);
            if found != expected {
                return Err(format!("{name} keeps {found:?} and not {expected:?}"));
            }
        }
        Ok(())
    }
}
