//! Subscriptions that every client gets when it connects, whether it asks for them or not: for devices that only publish and
//! have answers to take.
//!
//! They are made behind CONNACK as if the client had sent a SUBSCRIBE, without a SUBACK, and belong to its session as any other: a
//! client may give them back until it connects again. What a rule of the broker forbids is refused and counted as usual.

use mqtt::PacketId;
use mqtt::filter::Filter;
use mqtt::packet::{Subscribe, SubscribeFilter, SubscriptionOptions};

use crate::connection::ConnId;
use crate::topic_template::{Template, Who};
use crate::worker::Worker;

/// One entry of `auto_subscribe`.
#[derive(Clone, Debug, PartialEq)]
pub struct AutoSubscription {
    /// May have places for the client.
    pub(crate) topic: Template,
    /// As in SUBSCRIBE.
    pub(crate) options: SubscriptionOptions,
}

impl AutoSubscription {
    /// Reads the topic; any value that may fill a place makes as good a filter as the one that is tried here.
    ///
    /// # Errors
    /// What is allowed instead.
    pub(crate) fn new(topic: &str, options: SubscriptionOptions) -> Result<Self, String> {
        if topic.split('/').any(|level| matches!(level, "%c" | "%u")) {
            // taken as text everybody would get a topic that nobody writes to
            return Err("use ${clientid}/${username} for Mosquitto's %c/%u".to_owned());
        }
        let template = Template::parse(topic, 0).map_err(|error| error.to_string())?;
        let example = template.fill(Who { client_id: "x", username: Some("x") }, |_| None);
        let example = example.unwrap_or_default();
        let filter = Filter::parse(&example).map_err(|error| format!("a topic filter: {error}"))?;
        if filter.share().is_some() && options.no_local {
            return Err("no_local is not for shared subscriptions [MQTT-3.8.3-4]".to_owned());
        }
        Ok(Self { topic: template, options })
    }
}

/// The SUBSCRIBE that stands for `subscriptions`; those that cannot be filled for this client are left out.
pub(crate) fn request(subscriptions: &[AutoSubscription], who: Who<'_>) -> Option<Subscribe<'static>> {
    let filters: Vec<_> = subscriptions
        .iter()
        .filter_map(|s| {
            let filter = s.topic.fill(who, |_| None)?;
            Some(SubscribeFilter { filter: filter.into(), options: s.options })
        })
        .collect();
    (!filters.is_empty()).then(|| Subscribe {
        // nobody is answered
        packet_id: PacketId::MIN,
        subscription_identifier: None,
        user_properties: Vec::new(),
        filters,
    })
}

impl Worker {
    /// Makes the subscriptions that a client gets when it connects.
    pub(crate) fn auto_subscribe(&mut self, id: ConnId) {
        if self.config.auto_subscribe.is_empty() {
            return;
        }
        let Some(conn) = self.conn(id) else { return };
        let Some(session) = &conn.session else { return };
        let username = conn.about.as_ref().and_then(|about| about.username.as_deref());
        let who = Who { client_id: &session.client_id, username };
        if let Some(subscribe) = request(&self.config.auto_subscribe, who) {
            self.grant(id, &subscribe, None);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_gets_what_can_be_filled_for_it() {
        let options = SubscriptionOptions::default();
        let list: Vec<_> =
            ["c/${clientid}", "u/${username}/#"].map(|t| AutoSubscription::new(t, options).unwrap()).into();
        let filters = |who| -> Vec<String> {
            let request = request(&list, who).map(|r| r.filters).unwrap_or_default();
            request.into_iter().map(|f| f.filter.into_owned()).collect()
        };
        assert_eq!(filters(Who { client_id: "a", username: Some("b") }), ["c/a", "u/b/#"]);
        assert_eq!(filters(Who { client_id: "a", username: None }), ["c/a"]);
        assert_eq!(filters(Who { client_id: "#", username: None }), [""; 0]);
    }

    #[test]
    fn what_is_no_filter_is_told() {
        for bad in ["", "a/#/b", "${client}", "c/%c", "%u/a"] {
            assert!(AutoSubscription::new(bad, SubscriptionOptions::default()).is_err(), "{bad}");
        }
        assert!(AutoSubscription::new("load/%cpu", SubscriptionOptions::default()).is_ok());
        let options = SubscriptionOptions { no_local: true, ..Default::default() };
        assert!(AutoSubscription::new("$share/g/a", options).is_err());
        assert!(AutoSubscription::new("$share/g/a", SubscriptionOptions::default()).is_ok());
    }
}
