//! Messages that came behind each other and differ in nothing but their payloads, taken together: judged once, looked up once, and
//! copied to each receiver as one block of bytes.
//!
//! Nobody can tell it from one by one: such messages are of QoS 0, so nothing is said of them, and whatever would treat two of them
//! differently (a bound on what a client may send, a receiver whose buffer is full) sends them the way that [`crate::publish`] has for each.

use mqtt::QoS;
use mqtt::codec::run::Run;

use crate::connection::ConnId;
use crate::delayed;
use crate::deliver::Form;
use crate::handover::Handover;
use crate::message::{Left, NEVER, View};
use crate::router::{Hit, SessionKey};
use crate::worker::Worker;

impl Worker {
    /// Takes all messages of a run. `false`: nothing has been done, and they must be taken one by one.
    pub(crate) fn take_run(&mut self, id: ConnId, run: &Run<'_>) -> bool {
        let publish = run.first().to_publish();
        let Some(conn) = self.conn(id) else { return false };
        let Some(publisher) = conn.session.as_ref().map(|session| session.key) else { return false };
        // what is counted one by one, or becomes something else, or is refused and told of
        let alike = conn.throttle().is_none()
            && self.rewriter.is_empty()
            && delayed::parse(&publish.topic).is_none()
            && self.judge_publish(&publish).is_none()
            && (self.config.access.rules.is_none() || self.may_publish(id, &publish));
        if !alike {
            return false;
        }
        let routes = self.lookup(&publish.topic);
        if !routes.groups.is_empty() {
            // each message is another member's
            return false;
        }
        let count = run.count() as u64;
        self.metrics.packets_received.add(count);
        self.metrics.received[QoS::AtMostOnce as usize].add(count);
        self.metrics.payload_received.add(run.payload() as u64);
        if let Some(conn) = self.conn_mut(id) {
            conn.recv_msg += count;
        }
        let here = self.id;
        if let Some(part) = routes.workers.iter().find(|part| part.worker == here) {
            self.give_run_to_all(&part.hits, publisher, run);
        }
        let elsewhere = || routes.workers.iter().map(|part| part.worker).filter(|&worker| worker != here);
        if Handover::takes(run) {
            elsewhere().for_each(|worker| self.pass_run_on(usize::from(worker), publisher, run));
        } else if elsewhere().next().is_some() {
            one_by_one(run, publisher, |view| {
                let mut owned = None;
                elsewhere().for_each(|worker| self.pass_on(usize::from(worker), view, &mut owned));
            });
        }
        true
    }

    /// Delivers a run that was published elsewhere.
    pub(crate) fn deliver_run(&mut self, publisher: SessionKey, run: &Run<'_>) {
        let routes = self.lookup(run.first().topic());
        if let Some(part) = routes.workers.iter().find(|part| part.worker == self.id) {
            self.give_run_to_all(&part.hits, publisher, run);
        }
    }

    fn give_run_to_all(&mut self, hits: &[Hit], publisher: SessionKey, run: &Run<'_>) {
        for hit in hits {
            if !self.give_run(hit, publisher, run) {
                let hit = std::slice::from_ref(hit);
                one_by_one(run, publisher, |view| self.deliver_hits(view, hit, &mut None));
            }
        }
    }

    fn pass_run_on(&mut self, to: usize, publisher: SessionKey, run: &Run<'_>) {
        self.outgoing[to].push_run(publisher, run);
        self.handed(to);
    }

    /// Copies a run to a receiver that takes all of it as it is. `false`: it does not, and nothing has been done.
    fn give_run(&mut self, hit: &Hit, publisher: SessionKey, run: &Run<'_>) -> bool {
        let Some((_, _, identifiers)) = hit.form(publisher) else { return true };
        let most = self.config.max_outbound_bytes;
        let Some(conn) = self.conns.get_mut(hit.slot as usize) else { return false };
        let hop =
            Form { qos: QoS::AtMostOnce, retain: false, identifiers }.hop(conn.version, Left::AsSent, None);
        let len = run.as_bytes().len();
        let takes_it = run.is_copied(&hop)
            && conn.is_connected()
            && conn.unsent() + len <= most
            && run.largest() <= conn.max_packet as usize
            && !conn.has_aliases_out()
            && conn.session.as_ref().is_some_and(|session| session.key == hit.session);
        if !takes_it {
            return false;
        }
        let Some(out) = conn.outbox(&mut self.buffers, len) else { return false };
        out.extend_from_slice(run.as_bytes());
        let count = run.count() as u64;
        conn.send_msg += count;
        self.metrics.packets_sent.add(count);
        self.metrics.sent[QoS::AtMostOnce as usize].add(count);
        self.metrics.payload_sent.add(run.payload() as u64);
        if !std::mem::replace(&mut conn.dirty, true) {
            self.dirty.push(hit.slot);
            self.wake_flush();
        }
        true
    }
}

fn one_by_one(run: &Run<'_>, publisher: SessionKey, mut each: impl FnMut(View<'_>)) {
    for plain in run.packets() {
        let publish = plain.to_publish();
        each(View { publisher, expires_at: NEVER, publish: &publish, plain: Some(&plain) });
    }
}
