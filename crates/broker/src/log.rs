//! The worker's side of the log: frames that gather while one append for each shard is under way, and how far the tail has
//! come.
//!
//! One outstanding append for each (worker, shard): what comes meanwhile gathers into the next frame, so a repetition
//! can't overtake. A released QoS 2 message is a frame of its own, under the id that was made at its PUBREC.
//!
//! Must not know: connections (an [`AckRef`] is only carried), clients, engines.

use std::collections::VecDeque;

use bytes::Bytes;
use engine::{DedupeId, Pos, Shard};

use crate::connection::AckRef;
use crate::message::View;
use crate::record;
use crate::router::GroupId;

/// A frame is closed when it has grown to this many bytes.
const FRAME_BYTES: usize = 64 * 1024;

/// A frame on its way into the log.
pub(crate) struct Frame {
    bytes: Vec<u8>,
    messages: usize,
    pub(crate) acks: Vec<AckRef>,
    id: u128,
    /// Nothing more may be added.
    sealed: bool,
}

#[derive(Default)]
struct Appender {
    queue: VecDeque<Frame>,
    outstanding: Option<Vec<AckRef>>,
}

/// See the module.
pub(crate) struct Log {
    appenders: Vec<Appender>,
    tails: Vec<Pos>,
    backlog: usize,
}

impl Log {
    pub(crate) fn new(tails: Vec<Pos>) -> Self {
        Self { appenders: tails.iter().map(|_| Appender::default()).collect(), tails, backlog: 0 }
    }

    /// Puts a message into the frame that gathers, with the groups that are to read it there. `false`: it cannot be encoded.
    #[allow(clippy::too_many_arguments)] // what one message brings
    pub(crate) fn append(
        &mut self,
        shard: Shard,
        view: View<'_>,
        marks: &[GroupId],
        ack: Option<AckRef>,
        dedupe: Option<u128>,
        new_id: impl FnOnce() -> u128,
    ) -> bool {
        let Some(appender) = self.appenders.get_mut(usize::from(shard.0)) else { return false };
        let open = appender.queue.back().is_some_and(|f| {
            dedupe.is_none() && !f.sealed && f.bytes.len() < FRAME_BYTES && f.messages < Pos::MAX_INDEX
        });
        if !open {
            let id = dedupe.unwrap_or_else(new_id);
            appender.queue.push_back(Frame {
                bytes: record::begin(),
                messages: 0,
                acks: Vec::new(),
                id,
                sealed: dedupe.is_some(),
            });
        }
        let Some(frame) = appender.queue.back_mut() else { return false };
        let before = frame.bytes.len();
        if !record::put_marked(view, marks, &mut frame.bytes) {
            if frame.messages == 0 {
                appender.queue.pop_back();
            }
            return false;
        }
        self.backlog += frame.bytes.len() - before;
        frame.messages += 1;
        frame.acks.extend(ack);
        true
    }

    /// The next frame to submit for each shard that has none under way.
    pub(crate) fn ready(&mut self) -> Vec<(Shard, Bytes, DedupeId)> {
        let mut out = Vec::new();
        for (index, appender) in self.appenders.iter_mut().enumerate() {
            if appender.outstanding.is_some() {
                continue;
            }
            if let Some(frame) = appender.queue.pop_front() {
                appender.outstanding = Some(frame.acks);
                self.backlog -= frame.bytes.len() - 1;
                let shard = Shard(u16::try_from(index).unwrap_or(u16::MAX));
                // without the room for more: the log keeps it for long, and is bounded by its bytes
                let bytes = Bytes::from(frame.bytes.into_boxed_slice());
                out.push((shard, bytes, DedupeId(frame.id)));
            }
        }
        out
    }

    /// The frame under way is in the log (or never will be): who is to be told.
    pub(crate) fn finished(&mut self, shard: Shard) -> Vec<AckRef> {
        self.appenders.get_mut(usize::from(shard.0)).and_then(|a| a.outstanding.take()).unwrap_or_default()
    }

    /// Bytes that wait to be submitted.
    pub(crate) const fn backlog(&self) -> usize {
        self.backlog
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.appenders.iter().all(|a| a.outstanding.is_none() && a.queue.is_empty())
    }

    /// Up to where the tail has been handed to this worker.
    pub(crate) fn tails(&self) -> &[Pos] {
        &self.tails
    }

    pub(crate) fn set_tail(&mut self, shard: Shard, pos: Pos) {
        if let Some(tail) = self.tails.get_mut(usize::from(shard.0)) {
            *tail = pos;
        }
    }
}

#[cfg(test)]
mod tests {
    use mqtt::QoS;
    use mqtt::packet::Publish;

    use super::*;
    use crate::message::{NEVER, NOBODY};
    use crate::record::Reader;

    fn append(log: &mut Log, payload: &[u8], dedupe: Option<u128>, next: &mut u128) {
        let publish = Publish {
            dup: false,
            qos: QoS::AtMostOnce,
            retain: false,
            topic: "t".into(),
            packet_id: None,
            properties: Default::default(),
            payload: payload.to_vec().into(),
        };
        *next += 1;
        let id = *next;
        let view = View { publisher: NOBODY, expires_at: NEVER, publish: &publish, plain: None };
        assert!(log.append(Shard(0), view, &[], None, dedupe, || id));
    }

    fn payloads(frame: &[u8]) -> Vec<Vec<u8>> {
        let mut reader = Reader::versioned(frame).unwrap();
        let mut out = Vec::new();
        while !reader.is_empty() {
            out.push(reader.message().unwrap().publish.payload.to_vec());
        }
        out
    }

    #[test]
    fn one_append_is_under_way_and_the_rest_gathers() {
        let mut log = Log::new(vec![Pos::START]);
        let mut n = 0;
        append(&mut log, b"1", None, &mut n);
        let first = log.ready();
        assert_eq!(payloads(&first[0].1), [b"1"]);
        append(&mut log, b"2", None, &mut n);
        append(&mut log, b"3", None, &mut n);
        assert!(log.ready().is_empty(), "a second append must wait for the first");
        log.finished(Shard(0));
        assert_eq!(payloads(&log.ready()[0].1), [b"2", b"3"]);
        log.finished(Shard(0));
        assert!(log.is_idle());
        assert_eq!(log.backlog(), 0);
    }

    #[test]
    fn a_release_is_a_frame_of_its_own_in_its_place() {
        let mut log = Log::new(vec![Pos::START]);
        let mut n = 0;
        append(&mut log, b"1", None, &mut n);
        append(&mut log, b"2", Some(77), &mut n);
        append(&mut log, b"3", None, &mut n);
        let mut seen = Vec::new();
        for _ in 0..3 {
            let frames = log.ready();
            seen.push((payloads(&frames[0].1), frames[0].2.0));
            log.finished(Shard(0));
        }
        assert_eq!(seen[0].0, [b"1"]);
        assert_eq!(seen[1], (vec![b"2".to_vec()], 77));
        assert_eq!(seen[2].0, [b"3"]);
    }

    #[test]
    fn a_frame_is_closed_at_its_size() {
        let mut log = Log::new(vec![Pos::START]);
        let mut n = 0;
        for _ in 0..3 {
            append(&mut log, &vec![0; FRAME_BYTES / 2], None, &mut n);
        }
        assert_eq!(payloads(&log.ready()[0].1).len(), 2);
        log.finished(Shard(0));
        assert_eq!(payloads(&log.ready()[0].1).len(), 1);
    }
}
