//! A retained message: the bytes of its record in the register, and nothing beside them.
//!
//! A broker keeps a great many of them and looks at few. So the replica has no copy: it shares the allocation that the engine
//! handed out, finds topic, publisher and expiry where they lie in it, and takes the packet apart when it is delivered.
//!
//! Must not know: the store it is kept in, who asks for it.

use engine::Value;

use crate::message::View;
use crate::record::{self, Head, Reader, Stored};
use crate::retained::Named;

/// A record that was found to hold a message. A clone shares the bytes.
#[derive(Clone, Debug)]
pub(crate) struct Kept(Value);

impl Kept {
    /// The message of a record for `topic`; `None`: the record is damaged, or tells of another topic.
    pub(crate) fn read(topic: &str, record: Value) -> Option<Self> {
        let mut reader = Reader::versioned(&record)?;
        let whole = reader.message()?.publish.topic == topic && reader.is_empty();
        whole.then_some(Self(record))
    }

    /// A message as its record would be; `None`: it cannot be encoded.
    pub(crate) fn of(view: View<'_>) -> Option<Self> {
        let mut out = record::begin();
        record::put_message(view, &mut out).then(|| Self(out.into()))
    }

    /// What is known without decoding: of every message there is, since [`Self::message`] is.
    pub(crate) fn head(&self) -> Option<Head<'_>> {
        Head::of(&self.0)
    }

    /// The message. It was there when this was made, and bytes do not change: `None` is told as damage, and happens never.
    pub(crate) fn message(&self) -> Option<Stored<'_>> {
        let message = Reader::versioned(&self.0).and_then(|mut reader| reader.message());
        if message.is_none() {
            tracing::error!(topic = %self.topic().escape_ascii(), "a retained message is damaged");
        }
        message
    }

    /// Bytes of the payload.
    pub(crate) fn payload_len(&self) -> u64 {
        self.message().map_or(0, |message| message.publish.payload.len() as u64)
    }

    /// Whether this is the other one, not just the like of it: what replaced a message is another.
    pub(crate) fn is(&self, other: &Self) -> bool {
        self.0.is(&other.0)
    }
}

impl Named for Kept {
    fn topic(&self) -> &[u8] {
        self.head().map_or(&[], |head| head.topic)
    }
}

/// A hundred thousand retained messages are as many of these.
const _: () = assert!(size_of::<Kept>() == size_of::<usize>());

#[cfg(test)]
mod tests {
    use mqtt::QoS;
    use mqtt::packet::{Publish, PublishProperties};

    use super::*;
    use crate::router::SessionKey;

    fn publish(content_type: Option<&'static str>) -> Publish<'static> {
        Publish {
            dup: false,
            qos: QoS::ExactlyOnce,
            retain: true,
            topic: "plant/7/state".into(),
            packet_id: mqtt::PacketId::new(1),
            properties: PublishProperties {
                content_type: content_type.map(Into::into),
                ..Default::default()
            }
            .into(),
            payload: b"on".as_slice().into(),
        }
    }

    fn kept(publish: &Publish<'_>) -> Kept {
        Kept::of(View { publisher: SessionKey(5), expires_at: 77, publish, plain: None }).unwrap()
    }

    #[test]
    fn what_is_kept_is_the_message_and_shares_the_bytes_of_its_record() {
        for content_type in [None, Some("text/plain")] {
            let publish = publish(content_type);
            let Kept(record) = kept(&publish);
            let kept = Kept::read("plant/7/state", record.clone()).unwrap();
            assert_eq!(kept.0.as_ptr(), record.as_ptr());
            assert_eq!(kept.clone().0.as_ptr(), record.as_ptr());
            let head = kept.head().unwrap();
            assert_eq!((head.publisher, head.expires_at), (SessionKey(5), 77));
            assert_eq!((head.qos, head.topic), (QoS::ExactlyOnce, b"plant/7/state".as_slice()));
            assert_eq!(kept.message().unwrap().publish, publish);
            assert_eq!((kept.topic(), kept.payload_len()), (b"plant/7/state".as_slice(), 2));
        }
    }

    #[test]
    fn a_message_is_itself_and_not_an_equal_one() {
        let (one, other) = (kept(&publish(None)), kept(&publish(None)));
        assert!(one.is(&one.clone()));
        assert!(!one.is(&other));
    }

    #[test]
    fn a_record_that_is_cut_or_longer_or_of_another_topic_is_refused() {
        let Kept(record) = kept(&publish(Some("text/plain")));
        for cut in 0..record.len() {
            assert!(Kept::read("plant/7/state", record[..cut].into()).is_none(), "cut at {cut}");
        }
        assert!(Kept::read("plant/7/state", [&*record, b"x"].concat().into()).is_none());
        assert!(Kept::read("plant/8/state", record.clone()).is_none());
        let newer: Vec<u8> = record.iter().enumerate().map(|(at, &b)| if at == 0 { 2 } else { b }).collect();
        assert!(Kept::read("plant/7/state", newer.into()).is_none());
    }
}
