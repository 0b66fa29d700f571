//! What one client may do: the rules that can concern it, worked out once, and the decisions it asks for most, remembered.
//!
//! Pure. Must not know: files, sessions, what happens after a no.

use std::net::IpAddr;
use std::sync::Arc;

use mqtt::QoS;
use mqtt::filter::matches;

use crate::pattern::{Resolved, covers, overlap};
use crate::rules::{Actions, Rule, Rules};

/// Yes or no.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Permission {
    /// It may.
    Allow,
    /// It may not.
    Deny,
}

/// Who a client is, as far as rules ask.
#[derive(Clone, Copy, Debug)]
pub struct Client<'a> {
    /// Its client id, also when the server assigned it.
    pub clientid: &'a str,
    /// Its user name, if it gave one.
    pub username: Option<&'a str>,
    /// Its own address.
    pub ip: IpAddr,
    /// The name of the listener it came by, such as `tcp://127.0.0.1:1883`.
    pub listener: &'a str,
}

/// Decisions about PUBLISH that are remembered: a device publishes to few topics again and again.
const REMEMBERED: usize = 4;
/// Bytes of the longest topic that is remembered.
const REMEMBERED_TOPIC: usize = 256;

/// See the module.
#[derive(Debug)]
pub struct Policy {
    rules: Arc<Rules>,
    /// In the order of the file.
    applicable: Box<[Applicable]>,
    recent: [Option<Decision>; REMEMBERED],
    next: usize,
}

#[derive(Debug)]
struct Applicable {
    /// Its place in the file.
    rule: usize,
    /// Its patterns with placeholders, filled in for this client; those without stay in the rule.
    own: Box<[Resolved]>,
}

#[derive(Debug)]
struct Decision {
    topic: Box<str>,
    qos: QoS,
    retain: bool,
    permission: Permission,
}

impl Policy {
    pub(crate) fn new(rules: Arc<Rules>, client: &Client<'_>) -> Self {
        let mut applicable = Vec::new();
        for at in rules.candidates(client) {
            let Some(rule) = rules.rule(at).filter(|rule| rule.who.fits(client)) else { continue };
            let denies = rule.permission == Permission::Deny;
            let own: Box<[Resolved]> = rule
                .patterns
                .iter()
                .filter_map(|pattern| pattern.resolve(client.clientid, client.username, denies))
                .collect();
            if !own.is_empty() || !rule.fixed.is_empty() {
                applicable.push(Applicable { rule: at, own });
            }
        }
        Self { rules, applicable: applicable.into(), recent: [const { None }; REMEMBERED], next: 0 }
    }

    /// Whether it was made of these very rules.
    pub fn is_of(&self, rules: &Arc<Rules>) -> bool {
        Arc::ptr_eq(&self.rules, rules)
    }

    /// Whether the client may publish to a topic. Allocates nothing for the topics it published to last.
    pub fn publish(&mut self, topic: &str, qos: QoS, retain: bool) -> Permission {
        let known = self.recent.iter().flatten();
        if let Some(known) =
            known.into_iter().find(|d| d.qos == qos && d.retain == retain && *d.topic == *topic)
        {
            return known.permission;
        }
        let permission = self.judge(
            |rule| rule.actions.publish && rule.qos.contains(qos) && rule.retain.is_none_or(|r| r == retain),
            |pattern, _| if pattern.exact { *pattern.text == *topic } else { matches(&pattern.text, topic) },
        );
        if topic.len() <= REMEMBERED_TOPIC
            && let Some(slot) = self.recent.get_mut(self.next)
        {
            *slot = Some(Decision { topic: topic.into(), qos, retain, permission });
            self.next = (self.next + 1) % REMEMBERED;
        }
        permission
    }

    /// Whether the client may subscribe to a filter, which comes without `$share/group/`. A rule allows what it covers whole; a
    /// rule denies whatever it shares a topic with.
    pub fn subscribe(&self, filter: &str, qos: QoS) -> Permission {
        self.judge(
            |rule| rule.actions.subscribe && rule.qos.contains(qos),
            |pattern, permission| match permission {
                _ if pattern.exact => *pattern.text == *filter,
                Permission::Allow => covers(&pattern.text, filter),
                Permission::Deny => overlap(&pattern.text, filter),
            },
        )
    }

    /// The first rule that fits decides.
    fn judge(
        &self,
        concerns: impl Fn(&Rule) -> bool,
        fits: impl Fn(&Resolved, Permission) -> bool,
    ) -> Permission {
        for applicable in &self.applicable {
            let Some(rule) = self.rules.rule(applicable.rule).filter(|rule| concerns(rule)) else { continue };
            let mut patterns = rule.fixed.iter().chain(&applicable.own);
            if patterns.any(|pattern| fits(pattern, rule.permission)) {
                return rule.permission;
            }
        }
        self.rules.no_match()
    }
}

impl Actions {
    pub(crate) const ALL: Self = Self { publish: true, subscribe: true };
    pub(crate) const PUBLISH: Self = Self { publish: true, subscribe: false };
    pub(crate) const SUBSCRIBE: Self = Self { publish: false, subscribe: true };
}
