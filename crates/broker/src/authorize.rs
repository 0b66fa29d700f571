//! What a client may publish and subscribe to, asked of the rules file where there is one.
//!
//! A client's policy is worked out when it is first asked for and again when the rules have changed: a reload holds for
//! whoever is connected. Subscriptions that were granted before stay; the next SUBSCRIBE is judged anew. They were granted to a
//! user: another one that comes with the same client id keeps those it may have itself.

use std::sync::Arc;

use access::{Client, Permission, Policy, Rules};
use mqtt::filter::Filter;
use mqtt::packet::{Publish, Subscribe, Will};
use runtime::events::Event;

use crate::config::DenyAction;
use crate::connection::{Conn, ConnId, End};
use crate::delayed;
use crate::exclusive;
use crate::refusal::Refusal;
use crate::session::Session;
use crate::worker::Worker;

/// Whom the rules are asked about.
struct Identity<'a> {
    clientid: &'a str,
    username: Option<&'a str>,
}

impl Conn {
    /// What this connection may do by these rules.
    fn policy_by(&mut self, rules: &Arc<Rules>, who: &Identity<'_>) -> &mut Policy {
        let (ip, door) = (self.origin.peer.ip(), Arc::clone(&self.origin.door));
        let make = || {
            let Identity { clientid, username } = *who;
            rules.policy(&Client { clientid, username, ip, listener: &door.name })
        };
        match &mut self.extras_mut().policy {
            Some(known) => {
                if !known.is_of(rules) {
                    **known = make();
                }
                known
            }
            none => none.insert(Box::new(make())),
        }
    }
}

/// Asks something of the policy of a connected client.
fn ask<T>(conn: &mut Conn, rules: &Arc<Rules>, question: impl FnOnce(&mut Policy) -> T) -> Option<T> {
    let client_id = Arc::clone(&conn.session.as_ref()?.client_id);
    let username = conn.about.as_ref().and_then(|about| about.username.clone());
    let who = Identity { clientid: &client_id, username: username.as_deref() };
    Some(question(conn.policy_by(rules, &who)))
}

impl Worker {
    /// Whether a client may publish this.
    pub(crate) fn may_publish(&mut self, id: ConnId, publish: &Publish<'_>) -> bool {
        let Some(rules) = &self.config.access.rules else { return true };
        let Some(conn) = self.conns.get_mut(id.slot as usize).filter(|c| c.generation == id.generation)
        else {
            return false;
        };
        // a message that is published later must not go where it may not go now
        let topic = delayed::target(&publish.topic);
        let asked = |policy: &mut Policy| policy.publish(topic, publish.qos, publish.retain);
        // nearly always the policy is there: then nothing is counted up or down for the names
        let permission = match conn.policy_mut() {
            Some(known) if known.is_of(rules) => Some(asked(known)),
            _ => ask(conn, rules, asked),
        };
        permission == Some(Permission::Allow)
    }

    /// For each filter of a SUBSCRIBE whether the client may have it; `None`: all of them.
    pub(crate) fn may_subscribe(&mut self, id: ConnId, subscribe: &Subscribe<'_>) -> Option<Vec<bool>> {
        let rules = Arc::clone(self.config.access.rules.as_ref()?);
        let mut allowed = Vec::with_capacity(subscribe.filters.len());
        for wanted in &subscribe.filters {
            // what is no filter has an answer of its own
            let filter = exclusive::path(&wanted.filter).unwrap_or(&wanted.filter);
            let permission = match Filter::parse(filter) {
                Ok(filter) => {
                    let (path, qos) = (filter.path(), wanted.options.qos);
                    let conn = self.conn_mut(id)?;
                    ask(conn, &rules, |policy| policy.subscribe(path, qos)).unwrap_or(Permission::Deny)
                }
                Err(_) => Permission::Allow,
            };
            allowed.push(permission == Permission::Allow);
        }
        Some(allowed)
    }

    /// Whether a client that connects may have its will published.
    pub(crate) fn may_leave(
        &mut self,
        id: ConnId,
        client_id: &str,
        username: Option<&str>,
        will: &Will<'_>,
    ) -> bool {
        let Some(rules) = self.config.access.rules.clone() else { return true };
        let Some(conn) = self.conn_mut(id) else { return false };
        let policy = conn.policy_by(&rules, &Identity { clientid: client_id, username });
        if policy.publish(&will.topic, will.qos, will.retain) == Permission::Allow {
            return true;
        }
        self.tell_denied(id, client_id, username, "will", &will.topic, 1);
        false
    }

    /// A session that another user began: its filters that this one may not have, which it has no more. What was under way goes
    /// too, if there are any: it may be theirs. Otherwise it would be enough to know a client id to read on in its place.
    pub(crate) fn withdraw_from_another_user(&mut self, id: ConnId, session: &mut Session) -> Vec<Box<str>> {
        let Some(rules) = self.config.access.rules.clone() else { return Vec::new() };
        let Some(claiming) = self.claiming(id) else { return Vec::new() };
        let username = claiming.connect.username.as_deref().map(Arc::<str>::from);
        let before = claiming.stored.as_ref().and_then(|stored| stored.about.username.clone());
        if username == before {
            return Vec::new();
        }
        let Some(conn) = self.conn_mut(id) else { return Vec::new() };
        let who = Identity { clientid: &session.client_id, username: username.as_deref() };
        let policy = conn.policy_by(&rules, &who);
        let denied = |filter: &str, qos| {
            Filter::parse(filter).is_ok_and(|f| policy.subscribe(f.path(), qos) == Permission::Deny)
        };
        let subscriptions = session.subscriptions.iter();
        let withdrawn: Vec<Box<str>> = subscriptions
            .filter(|(filter, s)| denied(filter, s.options.qos))
            .map(|(filter, _)| filter.into())
            .collect();
        for filter in &withdrawn {
            session.subscriptions.remove(filter);
        }
        if let Some(first) = withdrawn.first() {
            session.abandon_all();
            let count = withdrawn.len() as u64;
            self.tell_denied(id, &session.client_id, username.as_deref(), "subscribe", first, count);
        }
        withdrawn
    }

    /// Ends the connection of a client that did what it may not, where such clients are sent away.
    pub(crate) fn sends_away(&mut self, id: ConnId, rule: Refusal) -> bool {
        let denied = matches!(rule, Refusal::PublishDenied | Refusal::SubscribeDenied);
        let away = denied && self.config.access.deny_action == DenyAction::Disconnect;
        if away {
            self.end(id, End::Denied);
        }
        away
    }

    /// The same for the first filter of a SUBSCRIBE that was not `allowed`.
    pub(crate) fn sends_subscriber_away(
        &mut self,
        id: ConnId,
        subscribe: &Subscribe<'_>,
        allowed: Option<&[bool]>,
    ) -> bool {
        if self.config.access.deny_action != DenyAction::Disconnect {
            return false;
        }
        let Some(first) = allowed.and_then(|allowed| allowed.iter().position(|allowed| !allowed)) else {
            return false;
        };
        let filter = subscribe.filters.get(first).map_or("", |wanted| &*wanted.filter);
        self.refused(id, filter, Refusal::SubscribeDenied);
        self.sends_away(id, Refusal::SubscribeDenied)
    }

    /// Tells of a denial; for whom it is the `count`th refusal.
    pub(crate) fn tell_denied(
        &self,
        id: ConnId,
        client_id: &str,
        username: Option<&str>,
        action: &str,
        topic: &str,
        count: u64,
    ) {
        let Some(conn) = self.conn(id) else { return };
        self.shared.events.emit(Event::AccessDenied {
            clientid: client_id.into(),
            username: username.map(Into::into),
            peer: conn.origin.peer,
            action: action.into(),
            topic: topic.into(),
            count,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Otherwise a rule that denies would not be asked for what comes later.
    #[test]
    fn a_message_that_is_to_come_later_is_judged_by_where_it_goes() {
        assert_eq!(delayed::target("$delayed/5/secret/x"), "secret/x");
        for topic in ["$delayed/5", "$delayed/5/", "$delayed/soon/x", "a/$delayed/5/x", "a"] {
            assert_eq!(delayed::target(topic), topic);
        }
    }
}
