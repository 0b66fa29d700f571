//! The book's page of shared subscriptions: whether each message of a group went to one member, and to some member at all.
//!
//! One group for each topic, so that a copy tells which group it came from. Clients only know what reaches them; that a member's
//! connection is over, which is what allows another copy, is asked of the broker.

use std::collections::{BTreeMap, BTreeSet};

use mqtt::QoS;
use mqtt::packet::Publish;

use super::book::{MessageId, Sent, Subscriber};
use super::world::Link;

/// Groups. All members of the first are granted QoS 1, of the second QoS 1 or 2, of the third any.
pub(super) const GROUPS: [&str; 3] = ["$share/g/s/0", "$share/g/s/1", "$share/h/s/2"];

/// The group of a topic.
pub(super) fn group_of(topic: &str) -> Option<&'static str> {
    GROUPS.into_iter().find(|group| group.ends_with(topic) && topic.starts_with("s/"))
}

/// The QoS that a member of a group asks for; `n`: any number.
pub(super) fn qos_of(group: &str, n: u64, most: QoS) -> Option<QoS> {
    let least = GROUPS.iter().position(|g| *g == group)?;
    let qos = match least {
        0 => 1,
        1 => 1 + n % 2,
        _ => n % 3,
    };
    Some(QoS::from_u8(u8::try_from(qos).unwrap()).unwrap().min(most))
}

/// Whether a message must reach some member if a durable one wants it: QoS 2 that was begun is lost with its member
/// [MQTT-4.8.2-5], and what goes out at QoS 0 is lost with its connection.
fn must_arrive(topic: &str, qos: QoS) -> bool {
    (qos == QoS::AtLeastOnce && topic != "s/2") || (qos == QoS::ExactlyOnce && topic == "s/0")
}

struct Copy {
    who: usize,
    link: Link,
    qos: QoS,
}

#[derive(Default)]
pub(super) struct SharedBook {
    /// Durable members that wanted a message when it was published, and still have their sessions and subscriptions.
    wanted: BTreeMap<MessageId, BTreeSet<usize>>,
    copies: BTreeMap<MessageId, Vec<Copy>>,
    pub(super) checked: u64,
    /// Copies that went to a second member.
    pub(super) again: u64,
}

impl SharedBook {
    pub(super) fn publish(&mut self, id: MessageId, topic: &str, qos: QoS, members: BTreeSet<usize>) {
        if must_arrive(topic, qos) && !members.is_empty() {
            self.wanted.insert(id, members);
        }
    }

    /// A client is no member any more, of one group or (`None`) of any.
    pub(super) fn ended(&mut self, who: usize, group: Option<&str>, sent: &BTreeMap<MessageId, Sent>) {
        self.wanted.retain(|id, members| {
            if group.is_none() || sent.get(id).is_some_and(|s| group_of(&s.topic) == group) {
                members.remove(&who);
            }
            !members.is_empty()
        });
    }

    /// A copy came. `alive`: whether the broker still serves a link.
    #[allow(clippy::too_many_arguments)] // one copy
    pub(super) fn received(
        &mut self,
        id: MessageId,
        message: &Sent,
        who: usize,
        link: Link,
        publish: &Publish<'_>,
        subscriber: &Subscriber,
        crashes: u32,
        alive: impl Fn(Link) -> bool,
    ) -> Result<(), String> {
        let group = group_of(&message.topic).unwrap();
        let now = subscriber.subscriptions.get(group);
        let Some(best) = now.or_else(|| subscriber.former_of(group, message)) else {
            return Err(format!("message {id} of a group it is no member of"));
        };
        if publish.qos > best.options.qos.min(message.qos) {
            return Err(format!("message {id} came with QoS {:?} above {:?}", publish.qos, best.options.qos));
        }
        let copies = self.copies.entry(id).or_default();
        // a crash repeats what was not written; a publisher that repeats QoS 1 makes two messages of it
        let once = crashes == 0 && (message.sends == 1 || message.qos == QoS::ExactlyOnce);
        // what is read from a connection that is over may have been sent before the other copies were
        if once && !publish.dup && alive(link) {
            for copy in copies.iter() {
                if alive(copy.link) {
                    return Err(format!(
                        "message {id} on {} with {:?} went to client {} as {:?} and to {who} as {:?} (4.8.2)",
                        message.topic, message.qos, copy.who, copy.qos, publish.qos
                    ));
                }
                if copy.qos == QoS::ExactlyOnce {
                    return Err(format!(
                        "message {id} was begun with QoS 2 and went on to {who} [MQTT-4.8.2-5]"
                    ));
                }
            }
        }
        self.again += u64::from(copies.iter().any(|c| c.who != who));
        copies.push(Copy { who, link, qos: publish.qos });
        Ok(())
    }

    /// Called when nothing is under way any more.
    pub(super) fn check(&mut self, sent: &BTreeMap<MessageId, Sent>) -> Result<(), String> {
        for (id, members) in &self.wanted {
            let message = &sent[id];
            if !message.acked {
                continue;
            }
            self.checked += 1;
            if !self.copies.contains_key(id) {
                return Err(format!(
                    "message {id} on {} with {:?} reached no member, durable ones are {members:?}",
                    message.topic, message.qos
                ));
            }
        }
        Ok(())
    }
}
