//! The journey of a SUBSCRIBE: judge each filter, write a durable session's subscriptions, make the routes, answer, then send
//! what is retained.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, PoisonError};

use engine::{EngineError, Expect, Op, Pos, Reply, Write};
use mqtt::filter::{Filter, FilterError};
use mqtt::packet::{
    Packet, ReasonProperties, RetainHandling, Suback, Subscribe, SubscriptionOptions, Unsuback, Unsubscribe,
};
use mqtt::{PacketId, QoS, ReasonCode};

use crate::config::BrokerConfig;
use crate::connection::ConnId;
use crate::exclusive;
use crate::message::Left;
use crate::record::{self, Reader};
use crate::refusal::Refusal;
use crate::router;
use crate::session::{Found, Search, Subscription};
use crate::session_store;
use crate::share::is_shared;
use crate::system_topics::is_system;
use crate::worker::{Waiting, Worker, reason_of};

/// The answer to a SUBSCRIBE that waits until its subscriptions are written.
pub(crate) struct Granted {
    /// `None`: nobody asked, nobody is answered.
    packet_id: Option<PacketId>,
    reasons: Vec<ReasonCode>,
    /// The Reason String: why the first filter that was refused was.
    why: &'static str,
    wanted: Vec<Wanted>,
}

struct Wanted {
    /// Without `$exclusive/`.
    filter: Box<str>,
    exclusive: bool,
    options: SubscriptionOptions,
    identifier: u32,
}

/// Retained messages that a new subscription asks for.
pub(crate) struct RetainedFor {
    filter: Box<str>,
    qos: QoS,
    identifier: u32,
    no_local: bool,
}

/// Retained messages that one piece of a search gives at most.
const SEARCH_FOUND: usize = 64;
/// Topics that one piece of a search looks at.
const SEARCH_STEPS: usize = 2_000;

impl Worker {
    pub(crate) fn on_subscribe(&mut self, id: ConnId, subscribe: &Subscribe<'_>) {
        if let Err((reason, clause, detail)) = self.judge_subscribe(id, subscribe) {
            self.violation(id, reason, clause, detail);
            return;
        }
        let rewritten = self.rewrite_subscribe(id, subscribe);
        let subscribe = rewritten.as_ref().unwrap_or(subscribe);
        self.grant(id, subscribe, Some(subscribe.packet_id));
    }

    /// Judges each filter, as what it has been rewritten to, and makes the subscriptions that are granted.
    pub(crate) fn grant(&mut self, id: ConnId, subscribe: &Subscribe<'_>, packet_id: Option<PacketId>) {
        let config = Arc::clone(&self.config);
        let shared = Arc::clone(&self.shared);
        // what the operator subscribes a client to needs no rule
        let allowed = packet_id.and_then(|_| self.may_subscribe(id, subscribe));
        if self.sends_subscriber_away(id, subscribe, allowed.as_deref()) {
            return;
        }
        let Some(session) = self.conn(id).and_then(|c| c.session.as_ref()) else { return };
        let mut granted = Granted { packet_id, reasons: Vec::new(), why: "", wanted: Vec::new() };
        let mut refused: Vec<(&str, Refusal)> = Vec::new();
        let mut count = session.subscriptions.len();
        // places in `wanted`: a packet has room for a quarter of a million filters
        let mut places: HashMap<&str, usize> = HashMap::new();
        for (index, wanted) in subscribe.filters.iter().enumerate() {
            let denied = allowed.as_ref().is_some_and(|a| a.get(index) != Some(&true));
            let options =
                SubscriptionOptions { qos: wanted.options.qos.min(config.maximum_qos), ..wanted.options };
            let exclusive = exclusive::path(&wanted.filter);
            let filter = exclusive.unwrap_or(&wanted.filter);
            let claim = || exclusive.is_none() || shared.exclusive.claim(filter, session.key);
            let reason = match judge(filter, exclusive.is_some(), &config) {
                Err(Judged::Rule(rule)) => {
                    refused.push((&wanted.filter, rule));
                    rule.reason()
                }
                Err(Judged::Reason(reason)) => reason,
                Ok(()) if denied => {
                    refused.push((&wanted.filter, Refusal::SubscribeDenied));
                    Refusal::SubscribeDenied.reason()
                }
                Ok(()) => {
                    let place = places.get(filter).copied();
                    let new = place.is_none() && session.subscriptions.get(filter).is_none();
                    let full = new && count >= config.max_subscriptions;
                    if full || !claim() {
                        let rule = if full { Refusal::Subscriptions } else { Refusal::Exclusive };
                        refused.push((&wanted.filter, rule));
                        rule.reason()
                    } else {
                        count += usize::from(new);
                        match place.and_then(|place| granted.wanted.get_mut(place)) {
                            // named twice: the later one replaces the earlier
                            Some(earlier) => {
                                earlier.options = options;
                                earlier.exclusive = exclusive.is_some();
                            }
                            None => {
                                places.insert(filter, granted.wanted.len());
                                granted.wanted.push(Wanted {
                                    filter: filter.into(),
                                    exclusive: exclusive.is_some(),
                                    options,
                                    identifier: subscribe.subscription_identifier.unwrap_or(0),
                                });
                            }
                        }
                        granted_qos(options.qos)
                    }
                }
            };
            granted.reasons.push(reason);
        }
        let durable = session.durable_now();
        granted.why = refused.first().map_or("", |(_, rule)| rule.why());
        for (filter, rule) in refused {
            self.refused(id, filter, rule);
        }
        if !durable || granted.wanted.is_empty() {
            self.subscribed(id, granted, None);
            return;
        }
        let (starts, tails) = (self.starts(id), Box::<[Pos]>::from(self.tails()));
        let Some(session) = self.conn(id).and_then(|c| c.session.as_ref()) else { return };
        let writes = granted
            .wanted
            .iter()
            .map(|w| {
                // a subscription that is replaced goes on where it was, also after the next connect
                let starts = match session.subscriptions.get(&w.filter) {
                    Some(before) => before.starts,
                    // where its group begins, should the process die before that is written
                    None if is_shared(&w.filter) => Some(tails.clone()),
                    None => starts.clone(),
                };
                let (options, identifier, exclusive) = (w.options, w.identifier, w.exclusive);
                let subscription = Subscription { options, identifier, exclusive, starts };
                session_store::subscription_write(&session.client_id, &w.filter, &subscription)
            })
            .collect();
        if let Some(conn) = self.conn_mut(id) {
            conn.busy = true;
        }
        self.submit(Op::Put { writes }, Waiting::Subscribed(id, Box::new(granted)));
    }

    /// What CONNACK said is not available here; who was told and asks for it all the same broke the specification.
    fn judge_subscribe(
        &self,
        id: ConnId,
        subscribe: &Subscribe<'_>,
    ) -> Result<(), (ReasonCode, &'static str, &'static str)> {
        // before version 5 nobody is told: the filters are answered one by one
        let Some(told) = self.conn(id).filter(|c| c.version.is_v5()).map(|c| c.told) else { return Ok(()) };
        if subscribe.subscription_identifier.is_some() && !told.identifiers {
            let reason = ReasonCode::SubscriptionIdentifiersNotSupported;
            return Err((reason, "3.2.2.3.12", "Subscription Identifiers are not available"));
        }
        let wildcard = |filter: &str| {
            Filter::parse(exclusive::path(filter).unwrap_or(filter)).is_ok_and(|f| f.has_wildcards())
        };
        if !told.wildcards && subscribe.filters.iter().any(|wanted| wildcard(&wanted.filter)) {
            let reason = ReasonCode::WildcardSubscriptionsNotSupported;
            return Err((reason, "3.2.2.3.11", "wildcards are not available in subscriptions"));
        }
        Ok(())
    }

    /// From where a new filter applies, where the session is behind the tail.
    fn starts(&self, id: ConnId) -> Option<Box<[Pos]>> {
        let session = self.conn(id)?.session.as_ref()?;
        session.cursors.iter().any(|c| !c.live).then(|| self.tails().into())
    }

    /// The subscriptions are written, if they had to be: makes the routes and answers.
    pub(crate) fn subscribed(&mut self, id: ConnId, mut granted: Granted, error: Option<EngineError>) {
        let (starts, tails) = (self.starts(id), Box::<[Pos]>::from(self.tails()));
        let Some(receiver) = self.receiver(id) else { return };
        if let Some(error) = error {
            for reason in granted.reasons.iter_mut().filter(|r| !r.is_error()) {
                // SUBACK has no word for a record that is too large [MQTT-3.9.3-2]
                *reason = match reason_of(error) {
                    ReasonCode::PacketTooLarge => ReasonCode::QuotaExceeded,
                    reason => reason,
                };
            }
            for wanted in std::mem::take(&mut granted.wanted) {
                let Some(session) = self.conn(id).and_then(|c| c.session.as_ref()) else { return };
                if !session.subscriptions.get(&wanted.filter).is_some_and(|s| s.exclusive) {
                    self.shared.exclusive.release(&wanted.filter, session.key);
                }
            }
        }
        let mut retained = Vec::new();
        for wanted in granted.wanted {
            let subscription = router::Subscription {
                qos: wanted.options.qos,
                no_local: wanted.options.no_local,
                retain_as_published: wanted.options.retain_as_published,
                identifier: wanted.identifier,
            };
            let shared = is_shared(&wanted.filter);
            let new = if shared {
                self.join_group(id, &wanted.filter, receiver, subscription)
            } else {
                self.shared.router.subscribe(&wanted.filter, receiver, subscription)
            };
            // [MQTT-3.3.1-9], [MQTT-3.3.1-10], [MQTT-3.3.1-11]; never for a shared subscription (3.8.3.1)
            let send = !shared
                && match wanted.options.retain_handling {
                    RetainHandling::Send => true,
                    RetainHandling::SendIfNew => new,
                    RetainHandling::DoNotSend => false,
                };
            if send {
                retained.push(RetainedFor {
                    filter: wanted.filter.clone(),
                    qos: wanted.options.qos,
                    identifier: wanted.identifier,
                    no_local: wanted.options.no_local,
                });
            }
            if !wanted.exclusive {
                // one that was exclusive is replaced
                self.shared.exclusive.release(&wanted.filter, receiver.session);
            }
            let Some(session) = self.conn_mut(id).and_then(|c| c.session.as_mut()) else { return };
            let kept = session.subscriptions.get(&wanted.filter).and_then(|s| s.starts);
            let subscription = Subscription {
                options: wanted.options,
                identifier: wanted.identifier,
                exclusive: wanted.exclusive,
                // a subscription that is replaced goes on where it was
                starts: match new {
                    true if shared => Some(tails.clone()),
                    true => starts.clone(),
                    false => kept,
                },
            };
            session.subscriptions.insert(wanted.filter, subscription);
        }
        if let Some(packet_id) = granted.packet_id {
            self.suback(id, packet_id, granted.reasons, granted.why);
        }
        if !retained.is_empty() {
            // behind the barrier the replica has everything that was acknowledged before this SUBSCRIBE
            self.submit(Op::Barrier { prefix: record::retained_prefix() }, Waiting::Retained(id, retained));
        }
        self.go_on_after_write(id);
    }

    fn suback(&mut self, id: ConnId, packet_id: PacketId, reasons: Vec<ReasonCode>, why: &'static str) {
        let explains = self.conn(id).is_some_and(|c| c.version.is_v5() && c.problem_information);
        // [MQTT-3.1.2-29]
        let reason_string = (explains && !why.is_empty()).then(|| why.into());
        let properties = ReasonProperties { reason_string, user_properties: Vec::new() };
        let mut suback = Suback { packet_id, properties, reasons };
        if !self.send(id, &Packet::Suback(suback.clone())) {
            // without the explanation it may fit [MQTT-3.9.2-1]
            suback.properties.reason_string = None;
            self.answer(id, &Packet::Suback(suback));
        }
    }

    fn go_on_after_write(&mut self, id: ConnId) {
        if let Some(conn) = self.conn_mut(id)
            && std::mem::take(&mut conn.busy)
        {
            // its connection may be over: the session is written back with what has changed
            self.go_on_leaving(id);
            self.unpause(id);
        }
    }

    /// Begins to send the retained messages that new subscriptions match.
    pub(crate) fn send_retained(&mut self, id: ConnId, wanted: Vec<RetainedFor>) {
        if wanted.iter().any(|w| is_system(&w.filter)) {
            self.refresh_system_topics();
        }
        let until = self.shared.retained.read().unwrap_or_else(PoisonError::into_inner).changes();
        let Some(session) = self.conn_mut(id).and_then(|c| c.session.as_mut()) else { return };
        // one search for each filter: a SUBSCRIBE that is repeated begins it anew
        let searches = &mut session.backlog().searches;
        if !searches.is_empty() {
            let again: HashSet<&str> = wanted.iter().map(|w| &*w.filter).collect();
            searches.retain(|s| !again.contains(&*s.filter));
        }
        searches.extend(wanted.into_iter().map(|wanted| Search {
            // numbers of the broker are new whenever they are looked at
            until: if is_system(&wanted.filter) { u64::MAX } else { until },
            filter: wanted.filter,
            qos: wanted.qos,
            identifier: wanted.identifier,
            no_local: wanted.no_local,
            resume: None,
        }));
        self.pump(id);
    }

    /// Looks for the next retained messages a session asked for: a few at a time, so that neither a large store nor a
    /// slow client holds up a worker or fills memory. `false`: nothing was found yet, the search goes on next turn.
    pub(crate) fn search_retained(&mut self, id: ConnId) -> bool {
        let now = self.now.unix_ms;
        let shared = Arc::clone(&self.shared);
        let Some(session) = self.conn_mut(id).and_then(|c| c.session.as_mut()) else { return true };
        let key = session.key;
        let Some(backlog) = session.backlog.as_mut() else { return true };
        let Some(search) = backlog.searches.front_mut() else { return true };
        {
            let store = if is_system(&search.filter) { &shared.system.tree } else { &shared.retained };
            let retained = store.read().unwrap_or_else(PoisonError::into_inner);
            let change = retained.changes();
            let mut matching = Vec::with_capacity(SEARCH_FOUND);
            search.resume = retained.scan(
                &search.filter,
                search.resume.take(),
                search.until,
                SEARCH_FOUND,
                SEARCH_STEPS,
                &mut matching,
            );
            for kept in matching {
                let Some(head) = kept.head() else { continue };
                // [MQTT-3.8.3-3]: its own are not for it, also when they were kept
                let own = search.no_local && head.publisher == key;
                if own || head.is_over(now) {
                    continue;
                }
                let (qos, identifier) = (search.qos.min(head.qos), search.identifier);
                backlog.retained.push_back(Found { kept: kept.clone(), change, qos, identifier });
            }
        }
        if search.resume.is_none() {
            backlog.searches.pop_front();
        }
        !backlog.retained.is_empty() || backlog.searches.is_empty()
    }

    pub(crate) fn on_unsubscribe(&mut self, id: ConnId, unsubscribe: &Unsubscribe<'_>) {
        let rewritten = self.rewrite_unsubscribe(id, unsubscribe);
        let unsubscribe = rewritten.as_ref().unwrap_or(unsubscribe);
        let router = Arc::clone(&self.shared);
        let Some(session) = self.conn_mut(id).and_then(|c| c.session.as_mut()) else { return };
        let durable = session.durable_now();
        let mut reasons = Vec::with_capacity(unsubscribe.filters.len());
        let mut writes: Vec<Write> = Vec::new();
        for filter in &unsubscribe.filters {
            let exclusive = exclusive::path(filter);
            let filter = exclusive.unwrap_or(filter);
            if Filter::parse(filter).is_err() {
                reasons.push(ReasonCode::TopicFilterInvalid);
                continue;
            }
            // [MQTT-3.10.4-1]: character by character, so with the prefix or without it
            let same = |s: Subscription| s.exclusive == exclusive.is_some();
            let known = session.subscriptions.get(filter).is_some_and(same);
            if known {
                session.subscriptions.remove(filter);
                router.exclusive.release(filter, session.key);
                router.router.unsubscribe(filter, session.key);
                writes.push(Write::delete(record::subscription_key(&session.client_id, filter)));
            }
            reasons.push(if known { ReasonCode::Success } else { ReasonCode::NoSubscriptionExisted });
        }
        if let Some(backlog) = &mut session.backlog
            && !backlog.searches.is_empty()
        {
            let ended = unsubscribe.filters.iter().map(|f| exclusive::path(f).unwrap_or(f));
            let ended: HashSet<&str> = ended.filter(|f| session.subscriptions.get(f).is_none()).collect();
            backlog.searches.retain(|s| !ended.contains(&*s.filter));
        }
        if !durable || writes.is_empty() {
            self.unsubscribed(id, unsubscribe.packet_id, reasons);
            return;
        }
        if let Some(conn) = self.conn_mut(id) {
            conn.busy = true;
        }
        self.submit(Op::Put { writes }, Waiting::Unsubscribed(id, unsubscribe.packet_id, reasons));
    }

    pub(crate) fn unsubscribed(&mut self, id: ConnId, packet_id: PacketId, reasons: Vec<ReasonCode>) {
        let unsuback = Unsuback { packet_id, properties: ReasonProperties::default(), reasons };
        self.answer(id, &Packet::Unsuback(unsuback));
        self.go_on_after_write(id);
    }

    /// Forgets retained messages whose expiry interval is over.
    pub(crate) fn sweep_retained(&mut self) {
        let now = self.now.unix_ms;
        let mut expired = Vec::new();
        {
            let mut retained = self.shared.retained.write().unwrap_or_else(PoisonError::into_inner);
            retained.retain(|kept| {
                let Some(over) = kept.head().filter(|head| head.is_over(now)) else { return true };
                let bytes = kept.payload_len();
                self.shared.retained_bytes.fetch_sub(bytes, std::sync::atomic::Ordering::Relaxed);
                expired.push(record::retained_key(over.topic));
                false
            });
        }
        for key in expired {
            self.submit(Op::Get { key }, Waiting::Expired);
        }
    }

    /// Removes the record of a retained message that has expired, unless another has taken its place meanwhile.
    pub(crate) fn remove_expired(&mut self, result: Result<Reply, EngineError>) {
        let Ok(Reply::Got(Some(found))) = result else { return };
        let now = self.now.unix_ms;
        let expired = Reader::versioned(&found.value)
            .and_then(|mut r| Some(r.message()?.view().left(now) == Left::Expired))
            .unwrap_or(false);
        if expired {
            let write = Write { expect: Expect::Rev(found.rev), ..Write::delete(found.key) };
            self.submit(Op::Put { writes: vec![write] }, Waiting::Nobody("expiry"));
        }
    }
}

/// Why a filter is refused.
enum Judged {
    Rule(Refusal),
    Reason(ReasonCode),
}

fn judge(filter: &str, exclusive: bool, config: &BrokerConfig) -> Result<(), Judged> {
    if exclusive && !config.exclusive_subscription {
        return Err(Judged::Rule(Refusal::ExclusiveOff));
    }
    if exclusive && (exclusive::path(filter).is_some() || is_shared(filter)) {
        return Err(Judged::Rule(Refusal::FilterInvalid));
    }
    let parsed = Filter::parse(filter).map_err(|_: FilterError| Judged::Rule(Refusal::FilterInvalid))?;
    // [MQTT-4.8.2-1], [MQTT-4.8.2-2]
    if parsed.share().is_some() && !config.shared_subscription_available {
        return Err(Judged::Reason(ReasonCode::SharedSubscriptionsNotSupported));
    }
    if parsed.path().bytes().filter(|&b| b == b'/').count() >= config.max_topic_levels {
        return Err(Judged::Rule(Refusal::FilterLevels));
    }
    if parsed.has_wildcards() && !config.wildcard_subscription_available {
        return Err(Judged::Rule(Refusal::Wildcard));
    }
    Ok(())
}

const fn granted_qos(qos: QoS) -> ReasonCode {
    match qos {
        QoS::AtMostOnce => ReasonCode::Success,
        QoS::AtLeastOnce => ReasonCode::GrantedQos1,
        QoS::ExactlyOnce => ReasonCode::GrantedQos2,
    }
}
