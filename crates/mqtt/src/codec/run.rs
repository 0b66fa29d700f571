//! PUBLISH packets that lie behind each other and differ in nothing but their payloads: what a publisher sends most.
//!
//! Where a receiver gets such packets as they came, they are one block of bytes for it. Only the simplest are told here: QoS 0, not
//! retained, no properties. What does not belong to a run is looked at by [`super::plain`] as ever; a property test compares the two.

use super::plain::{Hop, PlainPublish};
use super::varint;
use crate::QoS;

/// Two or more such packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run<'a> {
    first: PlainPublish<'a>,
    /// All packets.
    bytes: &'a [u8],
    count: usize,
    payload: usize,
    largest: usize,
}

impl<'a> PlainPublish<'a> {
    /// This packet, which lies at the front of `input`, and those behind it that belong to one run; `None`: none does. None of them
    /// is larger than `max_packet_size` bytes.
    #[inline]
    pub fn run(&self, input: &'a [u8], max_packet_size: u32) -> Option<Run<'a>> {
        let simple = self.qos == QoS::AtMostOnce && !self.retain && self.section.is_empty();
        let rest = input.get(self.bytes.len()..)?;
        if !simple || rest.first() != self.bytes.first() {
            return None;
        }
        let most = max_packet_size as usize;
        self.next(rest, most).is_some().then(|| self.gather(input, most))
    }

    #[inline(never)]
    fn gather(&self, input: &'a [u8], most: usize) -> Run<'a> {
        let around = self.bytes.len() - self.payload.len() - self.head;
        let mut end = self.bytes.len();
        let (mut count, mut payload, mut largest) = (1, self.payload.len(), end);
        while let Some((head, len)) = input.get(end..).and_then(|rest| self.next(rest, most)) {
            end += len;
            count += 1;
            payload += len - head - around;
            largest = largest.max(len);
        }
        let bytes = input.get(..end).unwrap_or_default();
        Run { first: *self, bytes, count, payload, largest }
    }

    /// The bytes of the fixed header and of the whole packet at the front of `input`, if it is of the same run.
    #[inline]
    fn next(&self, input: &[u8], most: usize) -> Option<(usize, usize)> {
        let own = self.bytes.len() - self.payload.len();
        let topic = self.bytes.get(self.head..own)?;
        // nearly always it is as long
        if input.get(..self.head) == self.bytes.get(..self.head) {
            let same = input.get(..self.bytes.len())?.get(self.head..)?.starts_with(topic);
            return same.then_some((self.head, self.bytes.len()));
        }
        if input.first() != self.bytes.first() {
            return None;
        }
        let varint::Read::Value(remaining, bytes) = varint::read(input.get(1..)?) else { return None };
        let head = 1 + bytes;
        let len = head + remaining as usize;
        let packet = input.get(..len).filter(|_| len <= most && bytes == varint::len(remaining))?;
        // the topic, and that there are no properties
        packet.get(head..)?.starts_with(topic).then_some((head, len))
    }
}

impl<'a> Run<'a> {
    /// The first packet, which says all about the others but what their payloads are.
    pub const fn first(&self) -> &PlainPublish<'a> {
        &self.first
    }

    /// All packets, as they were read.
    pub const fn as_bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// How many packets: at least 2.
    pub const fn count(&self) -> usize {
        self.count
    }

    /// Bytes of all payloads.
    pub const fn payload(&self) -> usize {
        self.payload
    }

    /// Bytes of the largest packet.
    pub const fn largest(&self) -> usize {
        self.largest
    }

    /// Whether such a receiver gets the packets as they are.
    #[inline]
    pub fn is_copied(&self, hop: &Hop<'_>) -> bool {
        self.first.is_copied(hop) && !hop.retain
    }

    /// The packets one by one.
    pub fn packets(&self) -> impl Iterator<Item = PlainPublish<'a>> {
        let first = self.first;
        let around = first.bytes.len() - first.payload.len() - first.head;
        let mut rest = self.bytes;
        std::iter::from_fn(move || {
            let (head, len) = first.next(rest, usize::MAX)?;
            let (bytes, behind) = rest.split_at_checked(len)?;
            rest = behind;
            let payload = bytes.get(head + around..)?;
            Some(PlainPublish { bytes, head, payload, ..first })
        })
    }
}
