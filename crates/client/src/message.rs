//! What goes to the broker and what comes back, owned.

use std::net::SocketAddr;

use bytes::Bytes;
use mqtt::packet::{
    ConnackProperties, PublishProperties, RetainHandling, SubscribeFilter, SubscriptionOptions,
};
use mqtt::{PacketId, QoS, ReasonCode};

/// An application message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// A topic name.
    pub topic: String,
    /// The payload.
    pub payload: Bytes,
    /// Quality of service.
    pub qos: QoS,
    /// To send: keep it. Received: it was kept (or, with Retain As Published, it was sent so).
    pub retain: bool,
    /// Version 5; ignored before.
    pub properties: PublishProperties<'static>,
}

impl Message {
    /// A message at QoS 0, not retained, without properties.
    pub fn new(topic: impl Into<String>, payload: impl Into<Bytes>) -> Self {
        Self {
            topic: topic.into(),
            payload: payload.into(),
            qos: QoS::AtMostOnce,
            retain: false,
            properties: PublishProperties::default(),
        }
    }

    /// The same at another quality of service.
    #[must_use]
    pub fn qos(mut self, qos: QoS) -> Self {
        self.qos = qos;
        self
    }

    /// The same, to be kept as the topic's retained message.
    #[must_use]
    pub fn retained(mut self) -> Self {
        self.retain = true;
        self
    }
}

/// A message that came from the broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received {
    /// The message; a topic alias is already resolved.
    pub message: Message,
    /// The broker says that it may have sent it before.
    pub dup: bool,
    /// QoS 1 and 2.
    pub packet_id: Option<PacketId>,
}

/// What the broker said to our CONNECT.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connected {
    /// It goes on with a session from before: subscriptions are still there.
    pub session_present: bool,
    /// Version 5.
    pub properties: ConnackProperties<'static>,
    /// 1 for the first connection of this client, then counting up.
    pub connection: u64,
    /// Our own address and port; the machine, which has no socket, leaves it out.
    pub local_address: Option<SocketAddr>,
}

/// A topic filter with its options.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscription {
    /// The filter, with `$share/group/` in front if it is shared.
    pub filter: String,
    /// Its options; before version 5 only the QoS exists.
    pub options: SubscriptionOptions,
}

impl Subscription {
    /// A filter with a maximum quality of service and the default options.
    pub fn new(filter: impl Into<String>, qos: QoS) -> Self {
        let options = SubscriptionOptions {
            qos,
            no_local: false,
            retain_as_published: false,
            retain_handling: RetainHandling::Send,
        };
        Self { filter: filter.into(), options }
    }

    pub(crate) fn into_packet(self) -> SubscribeFilter<'static> {
        SubscribeFilter { filter: self.filter.into(), options: self.options }
    }
}

/// The broker's answer to SUBSCRIBE.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Granted {
    /// Of the SUBSCRIBE.
    pub packet_id: PacketId,
    /// One for each filter, in order: the granted QoS, or why not (0x80 and above).
    pub reasons: Vec<ReasonCode>,
    /// Version 5: for people.
    pub reason_string: Option<String>,
}

/// The broker's answer to UNSUBSCRIBE.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unsubscribed {
    /// Of the UNSUBSCRIBE.
    pub packet_id: PacketId,
    /// One for each filter, in order. Before version 5 the broker gives none, and each reads as success.
    pub reasons: Vec<ReasonCode>,
    /// Version 5: for people.
    pub reason_string: Option<String>,
}
