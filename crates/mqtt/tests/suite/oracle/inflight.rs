//! Both halves of QoS 1 and 2 against the plainest bookkeeping: a list.

use mqtt::inflight::{InFlight, Inbound, Outbound, Pubrec, Qos2, RestoreError};
use mqtt::{PacketId, QoS, ReasonCode};

/// Something that happens to a session.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Op {
    /// We send.
    Begin(QoS),
    /// The peer acknowledges; refers to the n-th exchange in flight, or is an identifier that may not exist.
    Puback(Which),
    Pubrec(Which, bool),
    Pubcomp(Which),
    /// A new connection with another Receive Maximum.
    Limit(u16),
    /// The session is stored and loaded.
    Reload,
    /// An exchange of a stored session.
    Restore(u16, QoS, bool),
    /// The peer sends.
    Received(u16, QoS),
    /// We acknowledge a QoS 1 message of the peer.
    Acknowledged,
    /// The peer releases.
    Release(Which),
}

/// An identifier.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Which {
    /// That of the n-th exchange, counted around.
    Nth(u8),
    /// This one.
    Id(u16),
}

impl Which {
    fn of(self, ids: impl Iterator<Item = PacketId>) -> PacketId {
        let ids: Vec<PacketId> = ids.collect();
        match self {
            Self::Nth(n) if !ids.is_empty() => ids[usize::from(n) % ids.len()],
            Self::Nth(n) => PacketId::new(u16::from(n) + 1).expect("not 0"),
            Self::Id(id) => PacketId::new(id.max(1)).expect("not 0"),
        }
    }
}

/// Operations from bytes, for the fuzzer.
pub(crate) fn parse(bytes: &[u8]) -> Vec<Op> {
    let mut ops = Vec::new();
    for chunk in bytes.chunks_exact(3) {
        let number = u16::from_be_bytes([chunk[1], chunk[2]]);
        let which = if chunk[0] & 0x80 == 0 { Which::Nth(chunk[1]) } else { Which::Id(number) };
        let qos = if chunk[0] & 0x40 == 0 { QoS::AtLeastOnce } else { QoS::ExactlyOnce };
        let flag = chunk[0] & 0x20 != 0;
        ops.push(match chunk[0] & 0x0F {
            0..=3 => Op::Begin(qos),
            4 => Op::Puback(which),
            5 => Op::Pubrec(which, flag),
            6 => Op::Pubcomp(which),
            7 => Op::Limit(number),
            8 => Op::Reload,
            9 => Op::Restore(number, qos, flag),
            10 | 11 => Op::Received(number, qos),
            12 => Op::Acknowledged,
            13 => Op::Release(which),
            14 => Op::Begin(QoS::AtMostOnce),
            _ => Op::Received(number, QoS::AtMostOnce),
        });
    }
    ops
}

/// An exchange of ours: its identifier, its QoS, its message until that is given back.
#[derive(Clone, Debug, PartialEq)]
struct Sent {
    id: PacketId,
    qos: QoS,
    item: Option<usize>,
}

/// The list.
struct Model {
    sent: Vec<Sent>,
    last: u16,
    limit: u16,
    received: Vec<PacketId>,
    /// How many of those, from the front, are of a connection before this one.
    carried: usize,
    unacknowledged: usize,
    granted: u16,
}

/// Does all of `ops` to the crate and to the list; panics where they differ.
pub(crate) fn check(ops: &[Op], limit: u16) {
    let mut outbound = Outbound::new(limit);
    let mut inbound = Inbound::new(limit);
    let mut model = Model {
        sent: Vec::new(),
        last: 0,
        limit,
        received: Vec::new(),
        carried: 0,
        unacknowledged: 0,
        granted: limit,
    };
    for (item, &op) in ops.iter().enumerate() {
        match op {
            Op::Begin(_) | Op::Puback(_) | Op::Pubrec(..) | Op::Pubcomp(_) | Op::Restore(..) => {
                model.outbound(op, item, &mut outbound);
            }
            Op::Limit(limit) => {
                outbound.set_receive_maximum(limit);
                inbound.reconnect(limit);
                (model.limit, model.granted, model.unacknowledged) = (limit, limit, 0);
                model.carried = model.received.len();
            }
            Op::Reload => {
                outbound = reload(&outbound, model.limit);
                // Where to go on is not part of a session: behind the last one restored.
                model.last = model.sent.last().map_or(0, |sent| sent.id.get());
                let mut loaded = Inbound::new(model.granted);
                assert!(inbound.iter().all(|id| loaded.restore(id)));
                (inbound, model.unacknowledged) = (loaded, 0);
                model.carried = model.received.len();
            }
            Op::Received(..) | Op::Acknowledged | Op::Release(_) => model.inbound(op, &mut inbound),
        }
        model.compare(&outbound, &inbound);
    }
}

/// Stores a session and loads it.
fn reload(outbound: &Outbound<usize>, limit: u16) -> Outbound<usize> {
    let mut loaded = Outbound::new(limit);
    for exchange in outbound.iter() {
        let owned = match exchange {
            InFlight::Publish { id, qos, item } => InFlight::Publish { id, qos, item: *item },
            InFlight::Pubrel { id } => InFlight::Pubrel { id },
        };
        loaded.restore(owned).expect("a session does not contradict itself");
    }
    loaded
}

impl Model {
    fn position(&self, id: PacketId) -> Option<usize> {
        self.sent.iter().position(|sent| sent.id == id)
    }

    fn outbound(&mut self, op: Op, item: usize, outbound: &mut Outbound<usize>) {
        let ids = || outbound_ids(outbound);
        match op {
            Op::Begin(qos) => {
                let id = outbound.begin(qos, item);
                assert_eq!(id, self.begin(qos, item));
            }
            Op::Puback(which) => {
                let id = which.of(ids().into_iter());
                let at = self.position(id).filter(|&at| self.sent[at].qos == QoS::AtLeastOnce);
                assert_eq!(outbound.puback(id), at.and_then(|at| self.sent.remove(at).item));
            }
            Op::Pubrec(which, refused) => {
                let id = which.of(ids().into_iter());
                let reason = if refused { ReasonCode::QuotaExceeded } else { ReasonCode::Success };
                assert_eq!(outbound.pubrec(id, reason), self.pubrec(id, refused));
            }
            Op::Pubcomp(which) => {
                let id = which.of(ids().into_iter());
                let at = self.position(id).filter(|&at| self.sent[at].item.is_none());
                assert_eq!(outbound.pubcomp(id), at.map(|at| self.sent.remove(at)).is_some());
            }
            Op::Restore(id, qos, released) => self.restore(id, qos, released, item, outbound),
            _ => {}
        }
    }

    fn begin(&mut self, qos: QoS, item: usize) -> Option<PacketId> {
        if qos == QoS::AtMostOnce || self.sent.len() >= usize::from(self.limit) {
            return None;
        }
        let mut id = self.last;
        for _ in 0..65_535 {
            id = if id == 65_535 { 1 } else { id + 1 };
            let candidate = PacketId::new(id).expect("not 0");
            if self.position(candidate).is_none() {
                self.last = id;
                self.sent.push(Sent { id: candidate, qos, item: Some(item) });
                return Some(candidate);
            }
        }
        None
    }

    fn pubrec(&mut self, id: PacketId, refused: bool) -> Pubrec<usize> {
        let Some(at) = self.position(id).filter(|&at| self.sent[at].qos == QoS::ExactlyOnce) else {
            return Pubrec::Unknown;
        };
        match self.sent[at].item {
            None => Pubrec::Release(None),
            Some(item) if refused => {
                self.sent.remove(at);
                Pubrec::Ended(item)
            }
            Some(item) => {
                self.sent[at].item = None;
                Pubrec::Release(Some(item))
            }
        }
    }

    fn restore(&mut self, id: u16, qos: QoS, released: bool, item: usize, outbound: &mut Outbound<usize>) {
        let id = PacketId::new(id.max(1)).expect("not 0");
        let released = released && qos == QoS::ExactlyOnce;
        let exchange = if released { InFlight::Pubrel { id } } else { InFlight::Publish { id, qos, item } };
        let expected = match self.position(id) {
            Some(_) => Err(RestoreError::Duplicate(id)),
            None => {
                self.sent.push(Sent { id, qos, item: (!released).then_some(item) });
                self.last = id.get();
                Ok(())
            }
        };
        assert_eq!(outbound.restore(exchange), expected);
    }

    fn inbound(&mut self, op: Op, inbound: &mut Inbound) {
        match op {
            Op::Received(id, qos) => {
                let id = PacketId::new(id.max(1)).expect("not 0");
                let known = qos == QoS::ExactlyOnce && self.received.contains(&id);
                match qos {
                    QoS::AtMostOnce => {}
                    QoS::AtLeastOnce => self.unacknowledged += 1,
                    QoS::ExactlyOnce if known => {}
                    QoS::ExactlyOnce => self.received.push(id),
                }
                let exceeded = qos != QoS::AtMostOnce
                    && self.received.len() - self.carried + self.unacknowledged > usize::from(self.granted);
                let news = if known { Qos2::Duplicate } else { Qos2::New };
                assert_eq!(inbound.publish(qos, id).ok(), (!exceeded).then_some(news));
            }
            Op::Acknowledged => {
                inbound.qos1_end();
                self.unacknowledged = self.unacknowledged.saturating_sub(1);
            }
            Op::Release(which) => {
                let id = which.of(inbound.iter());
                let at = self.received.iter().position(|other| *other == id);
                self.carried -= usize::from(at.is_some_and(|at| at < self.carried));
                assert_eq!(inbound.release(id), at.map(|at| self.received.remove(at)).is_some());
            }
            _ => {}
        }
    }

    fn compare(&self, outbound: &Outbound<usize>, inbound: &Inbound) {
        assert_eq!(outbound.len(), self.sent.len());
        assert_eq!(outbound.is_empty(), self.sent.is_empty());
        assert_eq!(outbound.quota(), usize::from(self.limit).saturating_sub(self.sent.len()));
        let expected = self.sent.iter().map(|sent| match &sent.item {
            Some(item) => InFlight::Publish { id: sent.id, qos: sent.qos, item },
            None => InFlight::Pubrel { id: sent.id },
        });
        assert!(outbound.iter().eq(expected));
        assert_eq!((inbound.len(), inbound.is_empty()), (self.received.len(), self.received.is_empty()));
        assert!(inbound.iter().eq(self.received.iter().copied()));
        assert_eq!(
            inbound.exceeds(),
            self.received.len() - self.carried + self.unacknowledged > usize::from(self.granted)
        );
    }
}

fn outbound_ids(outbound: &Outbound<usize>) -> Vec<PacketId> {
    outbound
        .iter()
        .map(|exchange| match exchange {
            InFlight::Publish { id, .. } | InFlight::Pubrel { id } => id,
        })
        .collect()
}
