//! What a connected client may ask and does not get: one table of the rules, with the Reason Code and the words for each.
//!
//! A refusal is an answer (PUBACK, PUBREC, SUBACK, or silence at QoS 0) and the connection goes on; what ends it is a
//! violation. Each is counted by its rule and told as an event, at a client's first and then whenever their number has doubled.
//!
//! Must not know: who may do what, how an answer is encoded.

use std::sync::Arc;

use mqtt::ReasonCode;
use runtime::events::Event;

use crate::connection::ConnId;
use crate::worker::Worker;

/// The rule; the label `rule` of `tidegate_broker_requests_refused_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub(crate) enum Refusal {
    /// PUBLISH to a topic that only the broker writes.
    SystemTopic = 0,
    /// PUBLISH to a topic with more levels than `max_topic_levels`.
    TopicLevels,
    /// A payload that is not the UTF-8 it says it is, with `check_payload_format`.
    PayloadFormat,
    /// PUBLISH to a topic that the rules file does not allow the client.
    PublishDenied,
    /// SUBSCRIBE to a filter that the rules file does not allow the client.
    SubscribeDenied,
    /// PUBLISH to `$delayed/` with what is no delay and a topic.
    DelayedTopic,
    /// PUBLISH to `$delayed/` when `max_delayed_messages` wait.
    DelayedQuota,
    /// SUBSCRIBE with what is no topic filter.
    FilterInvalid,
    /// SUBSCRIBE to a filter with more levels than `max_topic_levels`.
    FilterLevels,
    /// SUBSCRIBE beyond `max_subscriptions`.
    Subscriptions,
    /// SUBSCRIBE to an exclusive filter that another session has.
    Exclusive,
    /// SUBSCRIBE to an exclusive filter where `exclusive_subscription` is off.
    ExclusiveOff,
    /// SUBSCRIBE of a version that cannot read CONNACK, with a wildcard, where `wildcard_subscription_available` is off.
    Wildcard,
}

impl Refusal {
    pub(crate) const ALL: [Self; 13] = [
        Self::SystemTopic,
        Self::TopicLevels,
        Self::PayloadFormat,
        Self::PublishDenied,
        Self::SubscribeDenied,
        Self::DelayedTopic,
        Self::DelayedQuota,
        Self::FilterInvalid,
        Self::FilterLevels,
        Self::Subscriptions,
        Self::Exclusive,
        Self::ExclusiveOff,
        Self::Wildcard,
    ];

    /// The word for metrics and events.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::SystemTopic => "system_topic",
            Self::TopicLevels => "topic_levels",
            Self::PayloadFormat => "payload_format",
            Self::PublishDenied | Self::SubscribeDenied => "acl",
            Self::DelayedTopic => "delayed_topic",
            Self::DelayedQuota => "max_delayed_messages",
            Self::FilterInvalid => "filter_invalid",
            Self::FilterLevels => "filter_levels",
            Self::Subscriptions => "max_subscriptions",
            Self::Exclusive => "exclusive",
            Self::ExclusiveOff => "exclusive_off",
            Self::Wildcard => "wildcard",
        }
    }

    /// What an MQTT 5 client is told.
    pub(crate) const fn reason(self) -> ReasonCode {
        match self {
            Self::SystemTopic | Self::PublishDenied | Self::SubscribeDenied => ReasonCode::NotAuthorized,
            Self::TopicLevels | Self::DelayedTopic => ReasonCode::TopicNameInvalid,
            Self::PayloadFormat => ReasonCode::PayloadFormatInvalid,
            Self::FilterInvalid | Self::FilterLevels | Self::ExclusiveOff => ReasonCode::TopicFilterInvalid,
            Self::DelayedQuota | Self::Subscriptions | Self::Exclusive => ReasonCode::QuotaExceeded,
            Self::Wildcard => ReasonCode::WildcardSubscriptionsNotSupported,
        }
    }

    /// The Reason String, where the client wants one [MQTT-3.1.2-29].
    pub(crate) const fn why(self) -> &'static str {
        match self {
            Self::SystemTopic => "only the broker publishes below $SYS/",
            Self::TopicLevels => "the topic has too many levels",
            Self::PayloadFormat => "the payload is not UTF-8 though its format indicator says so",
            Self::PublishDenied => "the rules do not allow this client to publish to the topic",
            Self::SubscribeDenied => "the rules do not allow this client to subscribe to the filter",
            Self::DelayedTopic => "behind $delayed/ come 1 to 4294967 seconds, a slash and a topic",
            Self::DelayedQuota => "as many messages are delayed as may be",
            Self::FilterInvalid => "not a topic filter",
            Self::FilterLevels => "the topic filter has too many levels",
            Self::Subscriptions => "the session has as many subscriptions as it may have",
            Self::Exclusive => "another session has this exclusive subscription",
            Self::ExclusiveOff => "exclusive subscriptions are not available here",
            Self::Wildcard => "wildcards are not available here",
        }
    }

    /// `publish` or `subscribe`.
    pub(crate) const fn action(self) -> &'static str {
        match self {
            Self::SystemTopic
            | Self::TopicLevels
            | Self::PayloadFormat
            | Self::PublishDenied
            | Self::DelayedTopic
            | Self::DelayedQuota => "publish",
            Self::SubscribeDenied
            | Self::FilterInvalid
            | Self::FilterLevels
            | Self::Subscriptions
            | Self::Exclusive
            | Self::ExclusiveOff
            | Self::Wildcard => "subscribe",
        }
    }
}

impl Worker {
    /// Counts a refusal and tells of it.
    pub(crate) fn refused(&mut self, id: ConnId, topic: &str, rule: Refusal) {
        self.metrics.refused_requests[rule as usize].inc();
        let Some(conn) = self.conn_mut(id) else { return };
        let refusals = &mut conn.extras_mut().refusals;
        *refusals = refusals.saturating_add(1);
        let count = *refusals;
        if !count.is_power_of_two() {
            return;
        }
        let Some(session) = &conn.session else { return };
        let clientid = Arc::clone(&session.client_id);
        if matches!(rule, Refusal::PublishDenied | Refusal::SubscribeDenied) {
            let username = conn.about.as_ref().and_then(|about| about.username.clone());
            self.tell_denied(id, &clientid, username.as_deref(), rule.action(), topic, u64::from(count));
            return;
        }
        self.shared.events.emit(Event::RequestRefused {
            clientid,
            action: rule.action().into(),
            topic: topic.into(),
            reason: rule.name().into(),
            detail: rule.why().into(),
            count: u64::from(count),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rule_stands_at_its_place_and_is_an_error() {
        for (at, rule) in Refusal::ALL.into_iter().enumerate() {
            assert_eq!(rule as usize, at);
            assert!(rule.reason().is_error(), "{}", rule.name());
        }
    }
}
