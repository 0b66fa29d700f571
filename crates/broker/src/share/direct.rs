//! Directly to a member: QoS 0, and groups whose members all end with their connections.
//!
//! A message that no member takes is dropped, counted and told; one that a member has taken and not acknowledged goes to
//! another when the member's connection goes.

use std::sync::Arc;

use mqtt::QoS;
use runtime::events::Text;

use super::member::Place;
use super::{Deal, NotTaken, ShareMail, Tried};
use crate::message::{Message, View};
use crate::metrics::Drop;
use crate::router::{Group, GroupRoute, Routes};
use crate::worker::Worker;

impl Worker {
    /// Gives a message to one member of each group that it matches, except to those that read it from the log. Whether any
    /// group wants it.
    pub(crate) fn share_out(
        &mut self,
        routes: &Routes,
        view: View<'_>,
        owned: &mut Option<Arc<Message>>,
    ) -> bool {
        let mut matched = false;
        for route in &routes.groups {
            let logged = route.durable && view.publish.qos > QoS::AtMostOnce;
            matched |= logged || !route.members.is_empty();
            if !logged && !route.members.is_empty() {
                self.deal_directly(route, view, owned, Tried::new());
            }
        }
        matched
    }

    /// Chooses until somebody takes it.
    fn deal_directly(
        &mut self,
        route: &GroupRoute,
        view: View<'_>,
        owned: &mut Option<Arc<Message>>,
        mut tried: Tried,
    ) {
        let mut why = NotTaken::Gone;
        loop {
            let able = |m: &crate::router::Member| !tried.contains(&m.session);
            let Some(member) = self.pick(&route.group, &route.members, view, able) else { break };
            if member.address.worker != self.id {
                // its worker sets what is right when it comes
                member.presence.load.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                let message = Arc::clone(owned.get_or_insert_with(|| view.to_message()));
                let group = Arc::clone(&route.group);
                let deal = Deal { group, member: member.clone(), message, tried };
                self.share_mail(member.address.worker, ShareMail::Direct(Box::new(deal)));
                return;
            }
            match self.take_dealt(&route.group, member, view, Place::Memory(owned)) {
                Ok(()) => return,
                Err(refusal) => why = refusal,
            }
            if why == NotTaken::Expired {
                break;
            }
            tried.push(member.session);
        }
        self.not_dealt(&view.publish.topic, view.publish.qos, why);
    }

    /// A message that another worker chose a member of this one for.
    pub(super) fn on_direct(&mut self, deal: Deal) {
        let Deal { group, member, message, mut tried } = deal;
        let refused =
            self.take_dealt(&group, &member, message.view(), Place::Memory(&mut Some(Arc::clone(&message))));
        if let Err(why) = refused {
            tried.push(member.session);
            self.deal_again(&group, &message, why, tried);
        }
    }

    /// Looks for another member for a message that one has given back or not taken.
    pub(super) fn deal_again(&mut self, group: &Group, message: &Arc<Message>, why: NotTaken, tried: Tried) {
        let view = message.view();
        let routes = self.lookup(&view.publish.topic);
        let route = routes.groups.iter().find(|r| r.group.id == group.id);
        let left = route.is_some_and(|r| r.members.iter().any(|m| !tried.contains(&m.session)));
        match route.filter(|_| left && why != NotTaken::Expired) {
            Some(route) => self.deal_directly(route, view, &mut Some(Arc::clone(message)), tried),
            None => self.not_dealt(&view.publish.topic, view.publish.qos, why),
        }
    }

    /// No member has taken a message: counts it, and tells the first and then each time their number doubles.
    pub(super) fn not_dealt(&mut self, topic: &str, qos: QoS, why: NotTaken) {
        let rule = match why {
            NotTaken::Gone => Drop::NoMember,
            NotTaken::Full if qos == QoS::AtMostOnce => Drop::OutboundFull,
            NotTaken::Full => Drop::QueueFull,
            NotTaken::TooLarge => Drop::TooLarge,
            NotTaken::Expired => Drop::Expired,
        };
        self.metrics.drop_message(rule, 1);
        self.share.lost += 1;
        if self.share.lost.is_power_of_two() {
            let count = self.share.lost;
            self.tell_dropped(None, &Text::from(topic), rule.name(), count);
        }
    }
}
