//! Acknowledgements in the order of the packets they answer [MQTT-4.6.0-2], [MQTT-4.6.0-3]: some wait for the engine, and those
//! behind them wait with them.
//!
//! Must not know: what is acknowledged.

use std::sync::Arc;

use mqtt::ReasonCode;
use mqtt::codec::encode;
use mqtt::packet::{Ack, Packet, ReasonProperties};

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
            self.write_ack(id, &ack);
            return;
        }
        conn.acks.push_back(ack);
        self.flush_acks(id);
    }

    fn write_ack(&mut self, id: ConnId, ack: &PendingAck) {
        let PendingAck { kind, packet_id, reason, why, .. } = *ack;
        let Some(conn) = self.conn_mut(id) else { return };
        let version = conn.version;
        if let Some(session) = &mut conn.session {
            match kind {
                AckKind::Puback => session.inbound.qos1_end(),
                AckKind::Pubrec if reason.is_error() => {
                    session.inbound.release(packet_id);
                    session.incoming.remove(packet_id);
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
        if reason == ReasonCode::PacketTooLarge {
            // larger than the engine takes: a reason that only DISCONNECT can carry [MQTT-3.4.2-1], [MQTT-3.5.2-1]
            self.violation(id, reason, "4.13.2", "the message is larger than the engine takes");
            return;
        }
        if !why.is_empty() && self.explain_ack(id, ack) {
            return;
        }
        self.write(id, |out| match kind {
            AckKind::Puback => encode::puback(version, packet_id, reason, out),
            AckKind::Pubrec => encode::pubrec(version, packet_id, reason, out),
            AckKind::Pubcomp => encode::pubcomp(version, packet_id, reason, out),
        });
    }

    /// Sends a refusal with its Reason String; `false`: the client does not want one [MQTT-3.1.2-29], or it would make the packet
    /// too large [MQTT-3.4.2-2], [MQTT-3.5.2-2].
    fn explain_ack(&mut self, id: ConnId, ack: &PendingAck) -> bool {
        if !self.conn(id).is_some_and(|c| c.version.is_v5() && c.problem_information) {
            return false;
        }
        let properties =
            ReasonProperties { reason_string: Some(ack.why.into()), user_properties: Vec::new() };
        let packet = Ack { packet_id: ack.packet_id, reason: ack.reason, properties };
        match ack.kind {
            AckKind::Puback => self.send(id, &Packet::Puback(packet)),
            AckKind::Pubrec => self.send(id, &Packet::Pubrec(packet)),
            AckKind::Pubcomp => false,
        }
    }

    /// One of the operations an acknowledgement waits for is done.
    pub(crate) fn ack_done(&mut self, ack: AckRef, failed: Option<ReasonCode>) {
        if ack.conn == ConnId::DELAYED {
            self.delayed_step(ack.seq, failed.is_some());
            return;
        }
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
            self.write_ack(id, &ack);
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
