//! What was published, what was subscribed to, what arrived: and whether that is MQTT.
//!
//! It knows what clients know, not what the broker does. Where a client cannot know (a SUBSCRIBE whose SUBACK was lost), both
//! outcomes are right: a message *may* arrive as soon as a subscription was asked for, and *must* only once it was confirmed.

use std::collections::{BTreeMap, BTreeSet};

use mqtt::QoS;
use mqtt::filter::matches;
use mqtt::packet::{Publish, SubscriptionOptions};

use super::shared_book::{SharedBook, group_of};
use super::world::Link;

/// Number of a message, which is its payload's first eight bytes.
pub(super) type MessageId = u64;

pub(super) struct Sent {
    pub(super) publisher: usize,
    pub(super) topic: String,
    pub(super) qos: QoS,
    /// Number among those of this publisher, topic and QoS.
    seq: u64,
    /// When, in events of the book.
    at: u64,
    /// Which connection of the publisher first sent it.
    connection: u32,
    /// How often it was sent.
    pub(super) sends: u32,
    pub(super) acked: bool,
}

pub(super) struct Subscribed {
    pub(super) options: SubscriptionOptions,
    pub(super) identifier: u32,
    /// When its SUBACK came, in events of the book.
    confirmed: Option<u64>,
    /// UNSUBSCRIBE is under way.
    ending: bool,
}

#[derive(Default)]
pub(super) struct Subscriber {
    pub(super) subscriptions: BTreeMap<String, Subscribed>,
    /// Those that ended, and when: what was buffered may still come (3.10.4).
    former: Vec<(u64, String, Subscribed)>,
    expected: BTreeSet<MessageId>,
    /// How often each came without DUP, at QoS 0 and above it: a subscription that raises the QoS while a message is on its way may
    /// bring it a second time.
    received: BTreeMap<(MessageId, bool), u32>,
    exactly_once: BTreeSet<MessageId>,
    order: BTreeMap<(usize, String, QoS, QoS, u32), u64>,
    /// It has a session that the broker must keep.
    pub(super) kept: bool,
}

/// See the module.
#[derive(Default)]
pub(super) struct Book {
    sent: BTreeMap<MessageId, Sent>,
    pub(super) subscribers: Vec<Subscriber>,
    /// Topics of retained messages: what may be kept now. `None`: nothing.
    retained: BTreeMap<String, Vec<Option<MessageId>>>,
    seqs: BTreeMap<(usize, String, QoS), u64>,
    now: u64,
    next: MessageId,
    /// The broker died so often: what was sent since the last checkpoint may come again.
    pub(super) crashes: u32,
    pub(super) delivered: u64,
    pub(super) expected: u64,
    pub(super) shared: SharedBook,
}

impl Book {
    /// A new message of `publisher`; its number.
    pub(super) fn publish(
        &mut self,
        publisher: usize,
        connection: u32,
        topic: &str,
        qos: QoS,
        retain: Option<bool>,
    ) -> MessageId {
        self.now += 1;
        self.next += 1;
        let id = self.next;
        let seq = self.seqs.entry((publisher, topic.to_owned(), qos)).or_insert(0);
        *seq += 1;
        let seq = *seq;
        if let Some(clears) = retain {
            self.retained.entry(topic.to_owned()).or_insert_with(|| vec![None]).push((!clears).then_some(id));
        } else if qos > QoS::AtMostOnce {
            for (index, subscriber) in self.subscribers.iter_mut().enumerate() {
                if subscriber.kept && subscriber.wants_surely(topic, index == publisher) {
                    subscriber.expected.insert(id);
                }
            }
        }
        if let Some(group) = group_of(topic) {
            let sure =
                |s: &Subscriber| s.kept && s.subscriptions.get(group).is_some_and(|s| s.is_sure(false));
            let members = (0..).zip(&self.subscribers).filter(|(_, s)| sure(s)).map(|(who, _)| who).collect();
            self.shared.publish(id, topic, qos, members);
        }
        let sent = Sent {
            publisher,
            topic: topic.to_owned(),
            qos,
            seq,
            at: self.now,
            connection,
            sends: 1,
            acked: false,
        };
        self.sent.insert(id, sent);
        id
    }

    pub(super) fn sent_again(&mut self, id: MessageId) {
        self.sent.get_mut(&id).unwrap().sends += 1;
    }

    /// PUBACK or PUBCOMP came.
    pub(super) fn acked(&mut self, id: MessageId) {
        let sent = self.sent.get_mut(&id).unwrap();
        sent.acked = true;
        if let Some(candidates) = self.retained.get_mut(&sent.topic) {
            // what was published before it can no longer be what is kept
            let at = candidates.iter().rposition(|c| *c == Some(id));
            if let Some(at) = at {
                candidates.drain(..at);
            }
        }
    }

    /// A message that clears what is retained was acknowledged.
    pub(super) fn cleared(&mut self, id: MessageId) {
        let topic = self.sent[&id].topic.clone();
        self.sent.get_mut(&id).unwrap().acked = true;
        // several clearing messages look alike: only the last one of a run without others is sure
        if let Some(candidates) = self.retained.get_mut(&topic)
            && candidates.iter().filter(|c| c.is_none()).count() == 1
            && let Some(at) = candidates.iter().position(Option::is_none)
        {
            candidates.drain(..at);
        }
    }

    pub(super) fn subscribing(&mut self, who: usize, filter: &str, options: SubscriptionOptions, id: u32) {
        self.now += 1;
        let subscription = Subscribed { options, identifier: id, confirmed: None, ending: false };
        let known = self.subscribers[who].subscriptions.entry(filter.to_owned()).or_insert(subscription);
        // asked for again after an UNSUBSCRIBE whose answer was lost: sure only when this one is answered
        known.ending = false;
    }

    pub(super) fn subscribed(&mut self, who: usize, filter: &str, granted: bool) {
        self.now += 1;
        let now = self.now;
        if let Some(s) = self.subscribers[who].subscriptions.get_mut(filter)
            && granted
        {
            s.confirmed.get_or_insert(now);
        }
    }

    pub(super) fn unsubscribing(&mut self, who: usize, filter: &str) {
        self.shared.ended(who, Some(filter), &self.sent);
        let subscriber = &mut self.subscribers[who];
        if let Some(s) = subscriber.subscriptions.get_mut(filter) {
            (s.ending, s.confirmed) = (true, None);
        }
        let (sent, subscriptions) = (&self.sent, &subscriber.subscriptions);
        subscriber.expected.retain(|id| {
            let message = &sent[id];
            subscriptions.iter().any(|(f, s)| {
                s.is_sure(message.publisher == who)
                    && matches(f, &message.topic)
                    && s.confirmed.is_some_and(|at| at < message.at)
            })
        });
    }

    pub(super) fn unsubscribed(&mut self, who: usize, filter: &str) {
        if self.subscribers[who].subscriptions.get(filter).is_some_and(|s| s.ending) {
            self.now += 1;
            let now = self.now;
            let subscriber = &mut self.subscribers[who];
            let ended = subscriber.subscriptions.remove(filter);
            subscriber.former.extend(ended.map(|s| (now, filter.to_owned(), s)));
        }
    }

    /// The broker has begun a new session for this client.
    pub(super) fn session_is_new(&mut self, who: usize) {
        self.shared.ended(who, None, &self.sent);
        self.subscribers[who] = Subscriber::default();
    }

    /// Whether the session still is, nobody can know.
    pub(super) fn session_is_uncertain(&mut self, who: usize) {
        self.shared.ended(who, None, &self.sent);
        let subscriber = &mut self.subscribers[who];
        subscriber.kept = false;
        subscriber.expected.clear();
        for s in subscriber.subscriptions.values_mut() {
            s.confirmed = None;
        }
    }

    /// A PUBLISH arrived that is not one of an exchange that goes on.
    pub(super) fn received(
        &mut self,
        who: usize,
        link: Link,
        publish: &Publish<'_>,
        v5: bool,
        alive: impl Fn(Link) -> bool,
    ) -> Result<(), String> {
        let Some(id) = publish.payload.get(..8).map(|b| u64::from_be_bytes(b.try_into().unwrap())) else {
            return if publish.topic.starts_with("w/") || publish.topic.starts_with("r/") {
                Ok(())
            } else {
                Err(format!("a message nobody sent on {}", publish.topic))
            };
        };
        let Some(message) = self.sent.get(&id) else { return Err(format!("unknown message {id}")) };
        self.delivered += 1;
        if message.topic != *publish.topic {
            return Err(format!("message {id} went to {} and not to {}", publish.topic, message.topic));
        }
        let subscriber = &mut self.subscribers[who];
        if group_of(&message.topic).is_some() {
            return self.shared.received(id, message, who, link, publish, subscriber, self.crashes, alive);
        }
        // what is retained outlives the session that published it, by which the broker knows its own
        let own = message.publisher == who && !message.topic.starts_with("r/");
        let may: Vec<&Subscribed> =
            subscriber
                .subscriptions
                .iter()
                .filter(|(f, s)| matches(f, &message.topic) && !(own && s.options.no_local))
                .map(|(_, s)| s)
                .chain(subscriber.former.iter().filter_map(|(ended, f, s)| {
                    (message.at < *ended && matches(f, &message.topic)).then_some(s)
                }))
                .collect();
        let Some(best) = may.iter().map(|s| s.options.qos).max() else {
            return Err(format!("message {id} on {} is not subscribed to", message.topic));
        };
        if publish.qos > best.min(message.qos) {
            return Err(format!("message {id} came with QoS {:?}, granted {best:?}", publish.qos));
        }
        if message.topic.starts_with("r/") {
            // copies of the retained one come beside the live one
            return Ok(());
        }
        let sure = may.iter().all(|s| !s.ending && s.confirmed.is_some_and(|at| at < message.at));
        if v5 && sure {
            let mut wanted: Vec<u32> = may.iter().map(|s| s.identifier).filter(|&i| i != 0).collect();
            let mut got = publish.properties.read().subscription_identifiers.to_vec();
            wanted.sort_unstable();
            got.sort_unstable();
            if wanted != got {
                return Err(format!("message {id}: identifiers {got:?}, not {wanted:?} [MQTT-3.3.4-4]"));
            }
            if publish.qos != best.min(message.qos) {
                return Err(format!("message {id} came with QoS {:?} below {best:?}", publish.qos));
            }
        }
        subscriber.count(id, message, publish, sure, self.crashes)
    }

    /// Whether everything arrived that had to: called when nothing is under way any more.
    pub(super) fn check_arrived(&mut self) -> Result<(), String> {
        for (who, subscriber) in self.subscribers.iter().enumerate() {
            for id in &subscriber.expected {
                let message = &self.sent[id];
                self.expected += 1;
                if message.acked && !subscriber.has(*id) {
                    return Err(format!(
                        "client {who} lost message {id} of client {} on {} with {:?}",
                        message.publisher, message.topic, message.qos
                    ));
                }
            }
        }
        self.shared.check(&self.sent)
    }

    /// Whether these are the retained messages: called when nothing is under way any more.
    pub(super) fn check_retained(&self, got: &BTreeMap<String, MessageId>) -> Result<(), String> {
        for (topic, candidates) in &self.retained {
            let kept = got.get(topic).copied();
            if !candidates.contains(&kept) {
                return Err(format!("{topic} keeps {kept:?} and not one of {candidates:?}"));
            }
        }
        match got.keys().find(|t| !self.retained.contains_key(*t)) {
            Some(topic) => Err(format!("{topic} was never retained")),
            None => Ok(()),
        }
    }
}

impl Subscribed {
    fn is_sure(&self, own: bool) -> bool {
        self.confirmed.is_some()
            && !self.ending
            && self.options.qos > QoS::AtMostOnce
            && !(own && self.options.no_local)
    }
}

impl Subscriber {
    /// A subscription to this filter that ended after the message was sent.
    pub(super) fn former_of(&self, filter: &str, message: &Sent) -> Option<&Subscribed> {
        self.former.iter().find(|(ended, f, _)| f == filter && message.at < *ended).map(|(_, _, s)| s)
    }

    fn wants_surely(&self, topic: &str, own: bool) -> bool {
        self.subscriptions.iter().any(|(f, s)| s.is_sure(own) && matches(f, topic))
    }

    fn has(&self, id: MessageId) -> bool {
        self.received.contains_key(&(id, true)) || self.received.contains_key(&(id, false))
    }

    fn count(
        &mut self,
        id: MessageId,
        message: &Sent,
        publish: &Publish<'_>,
        sure: bool,
        crashes: u32,
    ) -> Result<(), String> {
        let first = !self.has(id);
        let logged = publish.qos > QoS::AtMostOnce;
        if sure && self.received.contains_key(&(id, !logged)) {
            return Err(format!("message {id} came with and without QoS 0"));
        }
        let count = self.received.entry((id, logged)).or_insert(0);
        *count += u32::from(!publish.dup);
        let allowed = if message.qos == QoS::AtLeastOnce { message.sends } else { 1 };
        if *count > allowed * (1 + crashes) {
            return Err(format!(
                "message {id} came {count} times, sent {} times, {} {:?} as {:?} id {:?}",
                message.sends, message.topic, message.qos, publish.qos, publish.packet_id
            ));
        }
        if publish.qos == QoS::ExactlyOnce && !self.exactly_once.insert(id) && crashes == 0 {
            return Err(format!("message {id} came twice with QoS 2 [MQTT-4.3.3-10]"));
        }
        // nothing promises an order between connections of a publisher, except through the log: elsewhere a copy may be dropped
        // and the one that is sent again come after later ones
        let ordered = self.kept && logged;
        if first && sure && (ordered || message.sends == 1) {
            let connection = if ordered { 0 } else { message.connection };
            let key = (message.publisher, message.topic.clone(), message.qos, publish.qos, connection);
            let last = self.order.insert(key, message.seq);
            if last.is_some_and(|last| last > message.seq) {
                return Err(format!(
                    "message {id} ({} on {}) came after a later one [MQTT-4.6.0-6]",
                    message.publisher, message.topic
                ));
            }
        }
        Ok(())
    }
}
