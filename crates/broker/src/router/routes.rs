//! From matching subscriptions to one hit for each session.

use mqtt::QoS;
use smallvec::SmallVec;

use super::receivers::Entry;
use super::{Hit, Own, Routes, WorkerRoutes};

/// Merges what matched. `lists` is how many ascending runs `entries` is made of.
pub(super) fn merge(entries: &mut [Entry], lists: usize) -> Routes {
    if let [only] = entries {
        return of_one(only);
    }
    if lists > 1 {
        // Stable sort: it recognises the runs, so this is a merge.
        entries.sort_by_key(Entry::session);
    }
    let mut routes = Routes::default();
    let mut left = entries.len();
    for of_session in entries.chunk_by(|a, b| a.session() == b.session()) {
        let most = left;
        left -= of_session.len();
        routes.durable |= of_session.iter().any(|e| e.durable() && e.qos() != QoS::AtMostOnce);
        // While a session moves, some of its subscriptions may show the old place and some the new:
        // there is still one copy only.
        let Some(address) = of_session.iter().rev().find_map(Entry::address) else { continue };
        let hit = hit(of_session, address.slot);
        match routes.workers.binary_search_by_key(&address.worker, |w| w.worker) {
            Ok(at) => routes.workers[at].hits.push(hit),
            Err(at) => {
                // the first may have all that are left; where there are more, they share. What is too much is given back below
                let mut hits = SmallVec::with_capacity(most.div_ceil(routes.workers.len() + 1));
                hits.push(hit);
                routes.workers.insert(at, WorkerRoutes { worker: address.worker, hits });
            }
        }
    }
    for worker in &mut routes.workers {
        worker.hits.shrink_to_fit();
    }
    routes
}

/// The same for one subscription, which is what most topics match.
fn of_one(only: &Entry) -> Routes {
    let durable = only.durable() && only.qos() != QoS::AtMostOnce;
    let Some(address) = only.address() else { return Routes { durable, ..Routes::default() } };
    let hits = SmallVec::from_buf([hit(std::slice::from_ref(only), address.slot)]);
    let workers = SmallVec::from_buf([WorkerRoutes { worker: address.worker, hits }]);
    Routes { workers, durable, groups: Vec::new(), marks: Box::default() }
}

/// One copy for all subscriptions of a session that match: the highest QoS [MQTT-3.3.4-2] and every
/// identifier [MQTT-3.3.4-3] [MQTT-3.3.4-4]; one that was given twice is sent twice (§3.3.4).
fn hit(of_session: &[Entry], slot: u32) -> Hit {
    if let [only] = of_session {
        return Hit {
            session: only.session(),
            slot,
            durable: only.durable(),
            qos: only.qos(),
            retain_as_published: only.retain_as_published(),
            identifiers: Some(only.identifier).filter(|&identifier| identifier != 0).into_iter().collect(),
            own: if only.no_local() { Own::Never } else { Own::Same },
        };
    }
    let (qos, retain_as_published, identifiers) = combine(of_session.iter());
    let own = if of_session.iter().all(|e| !e.no_local()) {
        Own::Same
    } else if of_session.iter().all(Entry::no_local) {
        Own::Never
    } else {
        // [MQTT-3.8.3-3] No Local silences one subscription, not the session.
        let reduced = combine(of_session.iter().filter(|e| !e.no_local()));
        if reduced == (qos, retain_as_published, identifiers.clone()) {
            Own::Same
        } else {
            Own::Reduced(Box::new(reduced))
        }
    };
    Hit {
        session: of_session[0].session(),
        slot,
        durable: of_session.iter().any(Entry::durable),
        qos,
        retain_as_published,
        identifiers,
        own,
    }
}

fn combine<'e>(entries: impl Iterator<Item = &'e Entry>) -> (QoS, bool, SmallVec<[u32; 1]>) {
    let (mut qos, mut retain_as_published) = (QoS::AtMostOnce, false);
    let mut identifiers = SmallVec::new();
    for entry in entries {
        qos = qos.max(entry.qos());
        retain_as_published |= entry.retain_as_published();
        if entry.identifier != 0 {
            identifiers.push(entry.identifier);
        }
    }
    identifiers.sort_unstable();
    (qos, retain_as_published, identifiers)
}
