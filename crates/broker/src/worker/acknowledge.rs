//! Acknowledgements in the order of the packets they answer [MQTT-4.6.0-2], [MQTT-4.6.0-3]: some wait for the engine, and those
//! behind them wait with them.
//!
//! Must not know: what is acknowledged.

use std::sync::Arc;

use mqtt::codec::encode;
use mqtt::{PacketId, ReasonCode};

use super::Worker;
use crate::connection::{AckKind, AckRef, ConnId, PendingAck};
use crate::metrics::Drop;

impl Worker {
    /// The name of the next acknowledgement of the connection.
    pub(crate) fn next_ack(&self, id: ConnId) -> AckRef {
        let seq = self.conn(id).map_or(0, |c| c.acks_first + c.acks.len() as u64);
        AckRef { conn: id, seq }
    }

    /// Sends an acknowledgement as soon as all before it are sent and nothing is left to wait for.
    pub(crate) fn acknowledge(&mut self, id: ConnId, ack: PendingAck) {
        let Some(conn) = self.conn_mut(id) else { return };
        if ack.waits == 0 && conn.acks.is_empty() {
            self.write_ack(id, ack.kind, ack.packet_id, ack.reason);
            return;
        }
        conn.acks.push_back(ack);
        self.flush_acks(id);
    }

    fn write_ack(&mut self, id: ConnId, kind: AckKind, packet_id: PacketId, reason: ReasonCode) {
        let Some(conn) = self.conn_mut(id) else { return };
        let version = conn.version;
        if let Some(session) = &mut conn.session {
            match kind {
                AckKind::Puback => session.inbound.qos1_end(),
                AckKind::Pubrec if reason.is_error() => {
                    session.inbound.release(packet_id);
                    session.incoming.remove(&packet_id);
                }
                AckKind::Pubrec | AckKind::Pubcomp => {}
            }
        }
        if reason.is_error() && !version.is_v5() {
            // before version 5 there is no way to say no: no acknowledgement, and the door is closed
            if kind != AckKind::Pubcomp {
                self.violation(id, reason, "4.3.2", "the message could not be taken");
                return;
            }
        }
        self.write(id, |out| match kind {
            AckKind::Puback => encode::puback(version, packet_id, reason, out),
            AckKind::Pubrec => encode::pubrec(version, packet_id, reason, out),
            AckKind::Pubcomp => encode::pubcomp(version, packet_id, reason, out),
        });
    }

    /// One of the operations an acknowledgement waits for is done.
    pub(crate) fn ack_done(&mut self, ack: AckRef, failed: Option<ReasonCode>) {
        let metrics = Arc::clone(&self.metrics);
        let Some(conn) = self.conn_mut(ack.conn) else { return };
        let Some(index) = ack.seq.checked_sub(conn.acks_first) else { return };
        let Some(pending) = usize::try_from(index).ok().and_then(|i| conn.acks.get_mut(i)) else { return };
        pending.waits = pending.waits.saturating_sub(1);
        match failed {
            // PUBREC has promised the message: there is nothing left to refuse
            Some(_) if pending.kind == AckKind::Pubcomp => metrics.drop_message(Drop::Engine, 1),
            Some(reason) => pending.reason = reason,
            None => {}
        }
        if pending.waits == 0 && pending.then_forget {
            pending.then_forget = false;
            pending.waits = 1;
            let packet_id = pending.packet_id;
            self.forget_incoming(ack, packet_id);
            return;
        }
        self.flush_acks(ack.conn);
    }

    fn flush_acks(&mut self, id: ConnId) {
        let mut sent = false;
        while let Some(conn) = self.conn_mut(id) {
            let Some(ack) = conn.acks.pop_front_if(|ack| ack.waits == 0) else { break };
            conn.acks_first += 1;
            sent = true;
            self.write_ack(id, ack.kind, ack.packet_id, ack.reason);
        }
        if sent {
            if self.conn(id).is_some_and(|c| c.acks.is_empty()) {
                if let Some(conn) = self.conn_mut(id) {
                    conn.acks = std::collections::VecDeque::new();
                }
                self.go_on_leaving(id);
            }
            self.unpause(id);
        }
    }
}
