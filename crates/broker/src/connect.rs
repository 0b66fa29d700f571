//! The journey of a CONNECT: judge it, own its client id, find or make its session, write what must be remembered, answer.

use std::sync::Arc;
use std::time::Duration;

use engine::{EngineError, Key, Op, Pos, Reply, Write};
use mqtt::inflight::{InFlight as Flight, Inbound, Outbound};
use mqtt::packet::{Connack, ConnackProperties, Connect, Packet, Publish, Will};
use mqtt::{PacketId, QoS, ReasonCode, Version};
use runtime::events::Event;

use crate::caller::Caller;
use crate::connection::{ConnId, Connecting, End, PendingWill, Phase, Told};
use crate::message::{View, expiry_of};
use crate::publish::is_as_it_says;
use crate::record;
use crate::registry::Owner;
use crate::router::{Address, Receiver};
use crate::session::{Cursor, Resuming, Session, Windows};
use crate::session_store::{self, About, Offline, SessionRecord, StoredFlight, Taken};
use crate::shared::Mail;
use crate::topic_alias::Outgoing;
use crate::topic_template::Who;
use crate::worker::{Waiting, Worker};

/// Records of a stored session that are read at once.
const LOAD_PAGE: usize = 1_024;

impl Worker {
    pub(crate) fn on_connect(&mut self, id: ConnId, mut connect: Connect<'_>) {
        let most_aliases = self.config.max_topic_aliases_out;
        let Some(conn) = self.conn_mut(id) else { return };
        conn.version = connect.version;
        let asked = &connect.properties;
        conn.max_packet = asked.maximum_packet_size.unwrap_or(u32::MAX);
        conn.problem_information = asked.request_problem_information.unwrap_or(true);
        // [MQTT-3.1.2-26], [MQTT-3.1.2-27]
        let most_aliases = asked.topic_alias_maximum.unwrap_or(0).min(most_aliases);
        if let Some(aliases) = Outgoing::new(most_aliases) {
            conn.extras_mut().aliases_out = Some(Box::new(aliases));
        }
        if self.refuse_late(id, &connect) {
            return;
        }
        self.rewrite_topic_of_will(&mut connect);
        if let Err((reason, why)) = self.judge(&connect) {
            self.refuse(id, Caller::of(&connect), reason, why);
            return;
        }
        self.authenticate(id, connect);
    }

    /// A client is who it says it is: it claims its client id, unless its will may not be.
    pub(crate) fn admit(&mut self, id: ConnId, mut connect: Connect<'_>) {
        let assigned = connect.client_id.is_empty();
        let client_id: Arc<str> =
            if assigned { assigned_client_id().into() } else { Arc::from(&*connect.client_id) };
        if let Some(will) = &connect.will
            && !self.may_leave(id, &client_id, connect.username.as_deref(), will)
        {
            let why = "the rules do not allow the topic of the will";
            let caller = Caller { client_id: Some(client_id), ..Caller::of(&connect) };
            self.refuse(id, caller, ReasonCode::NotAuthorized, why);
            return;
        }
        let expiry = self.expiry_of(&connect);
        let server_keep_alive = self.server_keep_alive(&connect);
        connect.keep_alive = server_keep_alive.unwrap_or(connect.keep_alive);
        let claiming = Connecting {
            connect: connect.into_owned(),
            client_id: Arc::clone(&client_id),
            assigned,
            expiry,
            server_keep_alive,
            stored: None,
            records: Vec::new(),
            session: None,
            withdrawn: Vec::new(),
            session_present: false,
            ended: None,
        };
        let owner = self.owner(id);
        let Some(conn) = self.conn_mut(id) else { return };
        conn.phase = Phase::Claiming(Box::new(claiming));
        let peer = conn.origin.peer;
        match self.shared.registry.claim(&client_id, owner) {
            None => self.after_its_mail(id, owner),
            Some(before) if before.worker == self.id => self.release(before, owner, peer),
            Some(before) => {
                let mail = Mail::Release { owner: before, by: owner, new_peer: peer };
                // bounded by the connections that are being opened: one for each
                if self.shared.mailboxes[usize::from(before.worker)].force(mail).is_err() {
                    self.released(id);
                }
            }
        }
    }

    fn judge(&self, connect: &Connect<'_>) -> Result<(), (ReasonCode, &'static str)> {
        if connect.client_id.is_empty() {
            if connect.version == Version::V31 {
                return Err((ReasonCode::ClientIdentifierNotValid, "version 3.1 needs a client identifier"));
            }
            if connect.version == Version::V311 && !connect.clean_start {
                // v3 [MQTT-3.1.3-8]
                return Err((
                    ReasonCode::ClientIdentifierNotValid,
                    "an empty client identifier needs clean session",
                ));
            }
        }
        if connect.client_id.len() > self.config.limits.max_clientid_length {
            return Err((
                ReasonCode::ClientIdentifierNotValid,
                "the client identifier is longer than max_clientid_length",
            ));
        }
        if connect.properties.authentication_method.is_some() {
            return Err((ReasonCode::BadAuthenticationMethod, "no authentication method is offered"));
        }
        if connect.version < Version::V5 && self.keep_alive_is_too_long(connect) {
            // it cannot be told to use another [MQTT-3.1.2-21]; Mosquitto answers the same
            return Err((ReasonCode::ClientIdentifierNotValid, "the keep alive is above max_keep_alive"));
        }
        match &connect.will {
            Some(will) => self.judge_will(will),
            None => Ok(()),
        }
    }

    fn rewrite_topic_of_will(&mut self, connect: &mut Connect<'_>) {
        let who = Who { client_id: &connect.client_id, username: connect.username.as_deref() };
        if let Some(will) = &mut connect.will
            && let Some(topic) = self.rewrite_will(&will.topic, who)
        {
            will.topic = topic.into();
        }
    }

    fn judge_will(&self, will: &Will<'_>) -> Result<(), (ReasonCode, &'static str)> {
        let config = &self.config;
        if will.topic.starts_with('$') {
            Err((ReasonCode::TopicNameInvalid, "a will may not go to a topic that begins with $"))
        } else if will.topic.bytes().filter(|&b| b == b'/').count() >= config.max_topic_levels {
            Err((ReasonCode::TopicNameInvalid, "the topic of the will has too many levels"))
        } else if will.qos > config.maximum_qos {
            // [MQTT-3.2.2-12]
            Err((ReasonCode::QosNotSupported, "the QoS of the will is above Maximum QoS"))
        } else if will.retain && !config.retain_available {
            // [MQTT-3.2.2-13]
            Err((ReasonCode::RetainNotSupported, "retained messages are not available"))
        } else if config.check_payload_format
            && !is_as_it_says(will.properties.payload_format_indicator, &will.payload)
        {
            Err((
                ReasonCode::PayloadFormatInvalid,
                "the will is not UTF-8 though its format indicator says so",
            ))
        } else {
            Ok(())
        }
    }

    fn keep_alive_is_too_long(&self, connect: &Connect<'_>) -> bool {
        self.config.max_keep_alive.is_some_and(|most| connect.keep_alive == 0 || connect.keep_alive > most)
    }

    /// The keep alive in force instead of the client's, for a version that can be told [MQTT-3.1.2-21].
    fn server_keep_alive(&self, connect: &Connect<'_>) -> Option<u16> {
        if !connect.version.is_v5() {
            return None;
        }
        let above = self.keep_alive_is_too_long(connect).then_some(self.config.max_keep_alive).flatten();
        self.config.server_keep_alive.or(above)
    }

    /// How long the session outlives its connection, in seconds; 0: it ends with it.
    fn expiry_of(&self, connect: &Connect<'_>) -> u32 {
        let asked = if connect.version.is_v5() {
            connect.properties.session_expiry_interval.unwrap_or(0)
        } else if connect.clean_start {
            0
        } else {
            // before version 5 a session has no end [v3 MQTT-3.1.2-4]
            u32::MAX
        };
        asked.min(self.config.max_session_expiry)
    }

    /// Answers a CONNECT with a failure and ends its connection; `caller` as far as it is known.
    pub(crate) fn refuse(&mut self, id: ConnId, caller: Caller, reason: ReasonCode, why: &'static str) {
        let mut connack =
            Connack { session_present: false, reason, properties: ConnackProperties::default() };
        connack.properties.reason_string = Some(why.into());
        if !self.send(id, &Packet::Connack(Box::new(connack.clone()))) {
            // without the explanation it may fit; otherwise the closed door is the answer
            connack.properties.reason_string = None;
            let _ = self.send(id, &Packet::Connack(Box::new(connack)));
        }
        let end = End::Refused(reason, why);
        self.tell_refused(id, caller, &end);
        self.end(id, end);
    }

    /// Nobody has the client id. What its last connection published on another worker may still be in this one's mailbox, and
    /// must not be overtaken by what the new one publishes here [MQTT-4.6.0-6]: it goes on behind it.
    fn after_its_mail(&mut self, id: ConnId, owner: Owner) {
        let mailboxes = &self.shared.mailboxes;
        if mailboxes.len() == 1
            || mailboxes[usize::from(self.id)].force(Mail::Released { to: owner }).is_err()
        {
            self.released(id);
        }
    }

    /// The owner before has let go of the client id, or there was none.
    pub(crate) fn released(&mut self, id: ConnId) {
        let Some(claiming) = self.claiming(id) else { return };
        let (client_id, clean_start) = (Arc::clone(&claiming.client_id), claiming.connect.clean_start);
        let owner = self.owner(id);
        let first = usize::from(self.id) * self.tails().len();
        let taken = self.shared.store.take(&client_id, owner, |stored| {
            // from here on this worker answers for the positions the session still needs
            for (shard, floor) in stored.floors.iter().enumerate() {
                if let Some(cell) = self.shared.floors.get(first + shard) {
                    cell.fetch_min(floor.0, std::sync::atomic::Ordering::AcqRel);
                }
            }
        });
        let mut stored = match taken {
            Taken::Session(stored) => stored,
            Taken::Nothing => {
                self.open_session(id, Vec::new());
                return;
            }
            Taken::Wait => return,
        };
        if clean_start {
            // [MQTT-3.1.2-4]: the old session ends here, and with it the wait of its will
            if let Some((_, will)) = stored.will.take() {
                self.publish_will(&will);
            }
            self.forget_routes(&stored);
            self.open_session(id, stored.removal());
            return;
        }
        // back in time: the will is not sent [MQTT-3.1.3-9]
        stored.will = None;
        if let Some(claiming) = self.claiming(id) {
            claiming.stored = Some(Box::new(stored));
        }
        self.load(id, &client_id, None);
    }

    pub(crate) fn forget_routes(&self, stored: &Offline) {
        for filter in stored.filters() {
            self.shared.router.unsubscribe(filter, stored.key);
        }
        self.shared.exclusive.release_all(stored.key);
    }

    fn load(&mut self, id: ConnId, client_id: &str, after: Option<Key>) {
        let prefix = record::session_below(client_id);
        self.submit(Op::Scan { prefix, after, limit: LOAD_PAGE }, Waiting::Load(id));
    }

    /// A page of the stored session's records has come.
    pub(crate) fn loaded(&mut self, id: ConnId, result: Result<Reply, EngineError>) {
        let Some(claiming) = self.claiming(id) else { return };
        let (records, more) = match result {
            Ok(Reply::Scanned { records, more }) => (records, more),
            other => {
                self.cannot_open(id, other.err());
                return;
            }
        };
        claiming.records.extend(records);
        let client_id = Arc::clone(&claiming.client_id);
        if more {
            let after = claiming.records.last().map(|r| r.key.clone());
            self.load(id, &client_id, after);
            return;
        }
        let records = std::mem::take(&mut claiming.records);
        match self.restore(id, &records) {
            Some(mut session) => {
                let withdrawn = self.withdraw_from_another_user(id, &mut session);
                let removal = withdrawn
                    .iter()
                    .map(|filter| Write::delete(record::subscription_key(&client_id, filter)))
                    .collect();
                if let Some(claiming) = self.claiming(id) {
                    claiming.session = Some(Box::new(session));
                    claiming.withdrawn = withdrawn;
                    claiming.session_present = true;
                }
                self.write_opening(id, removal);
            }
            None => {
                tracing::error!(client_id = &*client_id, "a stored session is damaged and begins anew");
                let removal = match self.claiming(id).and_then(|c| c.stored.take()) {
                    Some(stored) => {
                        self.forget_routes(&stored);
                        stored.removal()
                    }
                    None => Vec::new(),
                };
                self.open_session(id, removal);
            }
        }
    }

    /// The session as its records tell it.
    fn restore(&mut self, id: ConnId, records: &[engine::Record]) -> Option<Session> {
        let windows = self.windows(id)?;
        let claiming = self.claiming(id)?;
        let client_id = Arc::clone(&claiming.client_id);
        let expiry = claiming.expiry;
        let head = record::session_key(&client_id);
        let rec: SessionRecord = session_store::decode(&records.iter().find(|r| r.key == head)?.value)?;
        let tails = self.tails().to_vec();
        let mut session = Session::new(rec.key, client_id, expiry, rec.created_at, windows, &tails);
        session.durable = true;
        session.dropped = rec.dropped;
        session.outbound = Outbound::new(windows.send);
        session.resuming =
            Some(Box::new(Resuming { window: usize::from(windows.send), ..Resuming::default() }));
        session.inbound = Inbound::new(windows.receive);
        session.cursors = rec
            .cursors
            .iter()
            .map(|&at| Cursor { at, ..Cursor::default() })
            .chain(std::iter::repeat_with(Cursor::default))
            .take(tails.len())
            .collect();
        for flight in rec.flights {
            let flight = match flight {
                StoredFlight::Pubrel { id } => Flight::Pubrel { id },
                StoredFlight::Publish { id, qos, item } => Flight::Publish { id, qos, item },
            };
            session.outbound.restore(flight).ok()?;
        }
        let below = record::session_below(&session.client_id);
        for r in records {
            let rest = r.key.as_bytes().get(below.as_bytes().len()..)?;
            if rest.starts_with(b"sub/") {
                let filter = String::from_utf8(r.key.last_part()).ok()?;
                let subscription = session_store::subscription(&r.value)?;
                session.subscriptions.insert(filter.into(), subscription);
            } else if rest.starts_with(b"in/") {
                let bytes: [u8; 2] = r.key.last_part().try_into().ok()?;
                let packet_id = PacketId::new(u16::from_be_bytes(bytes))?;
                let incoming = session_store::incoming(&r.value)?;
                session.inbound.restore(packet_id);
                session.incoming.insert(packet_id, incoming);
            }
        }
        Some(session)
    }

    fn windows(&self, id: ConnId) -> Option<Windows> {
        let conn = self.conn(id)?;
        let Phase::Claiming(claiming) = &conn.phase else { return None };
        let asked = claiming.connect.properties.receive_maximum.unwrap_or(u16::MAX);
        Some(Windows {
            send: asked.min(self.config.max_inflight),
            receive: if conn.version.is_v5() { self.config.receive_maximum } else { u16::MAX },
        })
    }

    /// A new session.
    fn open_session(&mut self, id: ConnId, removal: Vec<Write>) {
        let Some(windows) = self.windows(id) else { return };
        let now = self.now.unix_ms;
        let tails = self.tails().to_vec();
        let shared = Arc::clone(&self.shared);
        let Some(claiming) = self.claiming(id) else { return };
        let key = shared.new_key(&claiming.client_id);
        let session =
            Session::new(key, Arc::clone(&claiming.client_id), claiming.expiry, now, windows, &tails);
        claiming.session = Some(Box::new(session));
        self.write_opening(id, removal);
    }

    /// Writes what must outlive a crash from now on: the session, if it is durable, and the will.
    fn write_opening(&mut self, id: ConnId, mut writes: Vec<Write>) {
        let now = self.now.unix_ms;
        let tails = self.tails().to_vec();
        let Some(conn) = self.conn_mut(id) else { return };
        let Phase::Claiming(claiming) = &mut conn.phase else { return };
        let Some(session) = &claiming.session else { return };
        let connect = &claiming.connect;
        let about = About {
            username: connect.username.as_deref().map(Arc::from),
            proto_ver: connect.version.level(),
            clean_start: connect.clean_start,
            session_present: claiming.session_present,
            keep_alive: connect.keep_alive,
            connected_at: now,
        };
        let client_id = Arc::clone(&claiming.client_id);
        let drop_session = claiming.session_present && !session.durable_now();
        if session.durable_now() {
            replace(
                &mut writes,
                Write::put(
                    record::session_key(&client_id),
                    session_store::encode(session, &about, &conn.origin, now, &tails),
                ),
            );
        }
        let had_stored_will = claiming.stored.is_some();
        let key = session.key;
        let will = connect.will.as_ref().map(|will| pending_will(will, key, now));
        match &will {
            Some(will) => {
                let mut out = record::begin();
                out.extend_from_slice(&will.delay.to_be_bytes());
                if record::put_message(will.message.view(), &mut out) {
                    replace(&mut writes, Write::put(record::will_key(&client_id), out));
                }
            }
            None if had_stored_will => replace(&mut writes, Write::delete(record::will_key(&client_id))),
            None => {}
        }
        if drop_session {
            // resumed with an expiry of 0: it lives on in this connection only
            writes.push(Write::delete(record::session_key(&client_id)));
            writes.extend(
                session
                    .subscriptions
                    .filters()
                    .map(|f| Write::delete(record::subscription_key(&client_id, f))),
            );
            writes.extend(session.incoming.ids().map(|i| Write::delete(record::incoming_key(&client_id, i))));
        }
        conn.about = Some(about);
        conn.will = will.map(Box::new);
        if writes.is_empty() {
            self.opened(id, None);
        } else {
            self.submit(Op::Put { writes }, Waiting::Opened(id));
        }
    }

    fn cannot_open(&mut self, id: ConnId, error: Option<EngineError>) {
        // give back what was taken: the session waits on
        let stored = self.claiming(id).and_then(|c| c.stored.take());
        if let Some(stored) = stored {
            self.shared.store.insert(*stored);
        }
        if matches!(error, Some(EngineError::Busy | EngineError::Full)) {
            self.finish_refused(id, ReasonCode::QuotaExceeded, "there is no room for one more session");
        } else {
            self.finish_refused(
                id,
                ReasonCode::ServerUnavailable,
                "the session could not be read or written",
            );
        }
    }

    /// Everything is written: answers.
    pub(crate) fn opened(&mut self, id: ConnId, error: Option<EngineError>) {
        if error.is_some() {
            self.cannot_open(id, error);
            return;
        }
        let worker = self.id;
        let shared = Arc::clone(&self.shared);
        let told = Told::of(&self.config);
        let Some(conn) = self.conn_mut(id) else { return };
        let Phase::Claiming(_) = &conn.phase else { return };
        let Phase::Claiming(mut claiming) = std::mem::replace(&mut conn.phase, Phase::Connected) else {
            return;
        };
        let Connecting { connect, client_id, session, withdrawn, session_present, ended, .. } =
            &mut *claiming;
        let (session, session_present) = (session.take(), *session_present);
        let durable = session.as_ref().is_some_and(|s| s.durable);
        conn.session = session;
        conn.told = told;
        conn.keep_alive_ms = u32::from(connect.keep_alive) * 1_500;
        if session_present && let Some(session) = &conn.session {
            let filters = session.subscriptions.filters();
            let address = Some(Address { worker, slot: id.slot });
            shared.router.relocate(filters, session.key, address);
            for filter in &*withdrawn {
                shared.router.unsubscribe(filter, session.key);
                shared.exclusive.release(filter, session.key);
            }
        }
        if session_present {
            self.appear(id);
        }
        self.durable_sessions += usize::from(durable);
        if let Some(ended) = ended.take() {
            // it broke, or another connection claimed the id, while this one was being opened
            self.end(id, ended);
            return;
        }
        let client_id = Arc::clone(client_id);
        let properties = self.connack_properties(&claiming);
        let connack = Connack { session_present, reason: ReasonCode::Success, properties };
        if !self.send(id, &Packet::Connack(Box::new(connack))) {
            let why = "CONNACK is larger than the client's Maximum Packet Size";
            let end = End::Refused(ReasonCode::PacketTooLarge, why);
            self.metrics.refused.inc();
            self.tell_refused(id, claiming.caller(), &end);
            self.end(id, end);
            return;
        }
        self.metrics.connects.inc();
        if let Some(conn) = self.conn_mut(id) {
            conn.greeted = true;
        }
        self.tell_connected(id, &client_id);
        self.publish_client_event(id, None);
        self.auto_subscribe(id);
        let keep_alive = self.conn(id).map_or(0, |c| c.keep_alive_ms);
        let keep_alive = Duration::from_millis(u64::from(keep_alive));
        // the timer for CONNECT is still armed: where it comes first, it goes on as that for keep alive
        if !keep_alive.is_zero() && keep_alive < self.config.connect_timeout {
            self.arm(id, self.now.instant + keep_alive);
        }
        if session_present {
            self.begin_resume(id);
        }
        self.unpause(id);
    }

    /// What the client is told of this broker (3.2.2.3).
    fn connack_properties(&self, claiming: &Connecting) -> ConnackProperties<'static> {
        let Connecting { connect, client_id, assigned, expiry, .. } = claiming;
        if !connect.version.is_v5() {
            return ConnackProperties::default();
        }
        let config = &self.config;
        let asked = &connect.properties;
        let wants_response = asked.request_response_information.unwrap_or(false);
        ConnackProperties {
            session_expiry_interval: (asked.session_expiry_interval.unwrap_or(0) != *expiry)
                .then_some(*expiry),
            receive_maximum: Some(config.receive_maximum),
            // it is 2 where nothing is said [MQTT-3.2.2-9]
            maximum_qos: Some(config.maximum_qos).filter(|&qos| qos < QoS::ExactlyOnce),
            retain_available: (!config.retain_available).then_some(false),
            maximum_packet_size: Some(config.max_packet_size),
            assigned_client_identifier: assigned.then(|| client_id.to_string().into()),
            topic_alias_maximum: Some(config.topic_alias_maximum).filter(|&most| most > 0),
            wildcard_subscription_available: (!config.wildcard_subscription_available).then_some(false),
            subscription_identifiers_available: (!config.subscription_identifiers_available).then_some(false),
            shared_subscription_available: Some(self.config.shared_subscription_available),
            server_keep_alive: claiming.server_keep_alive,
            // [MQTT-3.1.2-28]
            response_information: config
                .response_information
                .as_deref()
                .filter(|_| wants_response)
                .map(|text| text.to_owned().into()),
            ..Default::default()
        }
    }

    fn tell_connected(&self, id: ConnId, client_id: &Arc<str>) {
        let Some(conn) = self.conn(id) else { return };
        let Some(about) = &conn.about else { return };
        self.shared.events.emit(Event::ClientConnected {
            clientid: Arc::clone(client_id),
            username: about.username.clone(),
            proto_ver: about.proto_ver,
            peer: conn.origin.peer,
            listener: Arc::clone(&conn.origin.door.name),
            clean_start: about.clean_start,
            session_present: about.session_present,
            keep_alive: about.keep_alive,
        });
    }

    /// Fetches what unacknowledged messages need before they can be sent again [MQTT-4.4.0-1].
    fn begin_resume(&mut self, id: ConnId) {
        let Some(session) = self.conn(id).and_then(|c| c.session.as_ref()) else { return };
        let mut frames: Vec<_> = session
            .outbound
            .iter()
            .filter_map(|f| match f {
                Flight::Publish { item, .. } => item.place().map(|(shard, pos)| (shard, pos.seq())),
                Flight::Pubrel { .. } => None,
            })
            .collect();
        frames.sort_unstable();
        frames.dedup();
        let reads = frames.len();
        if let Some(session) = self.conn_mut(id).and_then(|c| c.session.as_mut()) {
            session.resuming.get_or_insert_default().reads = reads;
        }
        for (shard, seq) in frames {
            let after = Pos::end_of(seq.saturating_sub(1));
            self.submit(Op::Read { shard, after, max_bytes: 1 }, Waiting::Resume(id, shard));
        }
        if reads == 0 {
            self.resend(id);
        }
    }

    pub(crate) fn claiming(&mut self, id: ConnId) -> Option<&mut Connecting> {
        match self.conn_mut(id).map(|c| &mut c.phase) {
            Some(Phase::Claiming(claiming)) => Some(claiming),
            _ => None,
        }
    }

    /// A CONNECT that owned its client id is refused: the id is free again.
    fn finish_refused(&mut self, id: ConnId, reason: ReasonCode, why: &'static str) {
        let Some(claiming) = self.claiming(id) else { return };
        let client_id = Arc::clone(&claiming.client_id);
        let caller = claiming.caller();
        let Some(conn) = self.conn_mut(id) else { return };
        conn.phase = Phase::Connect;
        // taken first: a connection whose socket is closed is gone once it is refused
        let waiter = conn.take_waiter();
        self.refuse(id, caller, reason, why);
        let owner = self.owner(id);
        self.shared.registry.release(&client_id, owner);
        if let Some((by, _)) = waiter {
            self.tell_released(by);
        }
    }

    /// Makes `Receiver`s for the subscriptions of this connection's session.
    pub(crate) fn receiver(&self, id: ConnId) -> Option<Receiver> {
        let session = self.conn(id)?.session.as_ref()?;
        Some(Receiver {
            session: session.key,
            address: Some(Address { worker: self.id, slot: id.slot }),
            durable: session.durable,
        })
    }

    /// Another connection, `by`, claims the client id of `owner`, which is on this worker.
    pub(crate) fn release(&mut self, owner: Owner, by: Owner, new_peer: std::net::SocketAddr) {
        let id = ConnId { slot: owner.slot, generation: owner.generation };
        let Some(conn) = self
            .conn_mut(id)
            .filter(|c| !matches!(c.phase, Phase::Connect | Phase::Authenticating(_) | Phase::Over))
        else {
            self.tell_released(by);
            return;
        };
        conn.extras_mut().waiter = Some(Box::new((by, new_peer)));
        self.end(id, End::TakenOver);
    }

    pub(crate) fn tell_released(&mut self, to: Owner) {
        if to.worker == self.id {
            self.released(ConnId { slot: to.slot, generation: to.generation });
        } else {
            // bounded by the connections that are being opened: one for each
            let _ = self.shared.mailboxes[usize::from(to.worker)].force(Mail::Released { to });
        }
    }

    pub(crate) fn tell_waiter(&mut self, id: ConnId) {
        if let Some(waiter) = self.conn_mut(id).and_then(|c| c.take_waiter()) {
            self.tell_released(waiter.0);
        }
    }
}

/// A key is written at most once in a batch: the later write wins.
fn replace(writes: &mut Vec<Write>, write: Write) {
    writes.retain(|w| w.key != write.key);
    writes.push(write);
}

fn pending_will(will: &Will<'static>, publisher: crate::router::SessionKey, unix_ms: u64) -> PendingWill {
    let publish = Publish {
        dup: false,
        qos: will.qos,
        retain: will.retain,
        topic: will.topic.clone(),
        packet_id: None,
        properties: will.properties.clone().into(),
        payload: will.payload.clone(),
    };
    let view = View { publisher, expires_at: expiry_of(&publish, unix_ms), publish: &publish, plain: None };
    PendingWill { message: view.to_message(), delay: will.delay_interval.unwrap_or(0) }
}

/// An id for a client that gave none: unguessable enough that nobody hits it by accident.
fn assigned_client_id() -> String {
    format!("tidegate-{:016x}", fastrand::u64(..))
}
