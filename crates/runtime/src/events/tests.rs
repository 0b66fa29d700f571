use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use serde_json::json;

use super::catalogue::MAX_TEXT;
use super::*;

fn expired(clientid: &str) -> Event {
    Event::SessionExpired { clientid: clientid.into() }
}

fn peer() -> SocketAddr {
    "192.0.2.1:40000".parse().unwrap()
}

/// One of each, in the order of the catalogue.
fn one_of_each() -> Vec<Event> {
    let text = |text: &str| -> Text { text.into() };
    let (clientid, username) = (text("dev1"), Some(text("ann")));
    let (upstream, server, listener) = (text("brokers"), text("emqx1"), text("tcp"));
    let bind = "127.0.0.1:1883".parse().unwrap();
    vec![
        Event::ClientConnected {
            clientid: clientid.clone(),
            username: username.clone(),
            proto_ver: 5,
            peer: peer(),
            listener: listener.clone(),
            clean_start: true,
            session_present: false,
            keep_alive: 60,
        },
        Event::ClientDisconnected {
            clientid: clientid.clone(),
            peer: peer(),
            reason: text("normal"),
            detail: text(""),
        },
        Event::ClientRefused {
            clientid: None,
            username: None,
            peer: peer(),
            reason: text("banned"),
            detail: text(""),
        },
        Event::SessionTakenOver { clientid: clientid.clone(), old_peer: peer(), new_peer: peer() },
        expired("dev1"),
        Event::MessageDropped { clientid: None, topic: text("a/b"), rule: text("queue_full"), count: 3 },
        Event::RequestRefused {
            clientid: clientid.clone(),
            action: text("subscribe"),
            topic: text("a/#"),
            reason: text("max_subscriptions"),
            detail: text("the session has as many subscriptions as it may have"),
            count: 1,
        },
        Event::ProtocolViolation {
            clientid: Some(clientid.clone()),
            peer: peer(),
            reason: text("malformed_packet"),
            clause: Some(text("MQTT-3.1.2-3")),
            detail: text("the reserved flag is set"),
        },
        Event::AccessDenied {
            clientid: clientid.clone(),
            username: username.clone(),
            peer: peer(),
            action: text("publish"),
            topic: text("a/b"),
            count: 1,
        },
        Event::ClientThrottled {
            clientid: Some(clientid.clone()),
            peer: peer(),
            limit: text("messages_rate"),
            count: 1,
        },
        Event::GatewayConnected {
            clientid: clientid.clone(),
            username,
            proto_ver: 4,
            peer: peer(),
            listener: listener.clone(),
            upstream: upstream.clone(),
            server: server.clone(),
            chosen_by: text("client_id"),
        },
        Event::GatewayDisconnected {
            clientid,
            peer: peer(),
            upstream: upstream.clone(),
            server: server.clone(),
            bytes_in: 1,
            bytes_out: 2,
            duration_ms: 3,
            reason: text("client_closed"),
        },
        Event::GatewayRefused {
            clientid: None,
            peer: peer(),
            listener: listener.clone(),
            reason: text("no_server"),
        },
        Event::UpstreamFailed { upstream: upstream.clone(), server: server.clone(), error: text("refused") },
        Event::ServerStateChanged { upstream, server, from: text("up"), to: text("down") },
        Event::ListenerStarted { listener: listener.clone(), bind },
        Event::ListenerStopped { listener, bind, reason: text("shutdown") },
        Event::ConfigReloaded {
            source: text("signal"),
            changes: vec![text("listener added")],
            restart_needed: Vec::new(),
        },
        Event::ConfigRejected { problems: vec![text("f:1: a: b: c")] },
        Event::EngineTrouble { primitive: text("log"), error: text("disk full") },
    ]
}

#[test]
fn a_record_is_numbered_and_dated() {
    let (clock, hand) = Clock::manual();
    let events = Events::new(clock.clone(), 10);
    let start = clock.unix_millis();
    assert_eq!(events.emit(expired("a")), 1);
    hand.advance(Duration::from_secs(2));
    assert_eq!(events.emit(expired("b")), 2);
    let all = events.since(0, 10);
    assert_eq!(
        all.iter().map(|record| (record.seq, record.at_unix_ms)).collect::<Vec<_>>(),
        [(1, start), (2, start + 2000)]
    );
    assert_eq!(events.last_seq(), 2);
}

#[test]
fn at_the_bound_the_oldest_is_overwritten_and_still_counted() {
    let events = Events::new(Clock::manual().0, 3);
    for n in 0..10 {
        events.emit(expired(&n.to_string()));
    }
    let ids = |records: Vec<Record>| {
        records.into_iter().map(|record| record.event.clientid().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(ids(events.recent(|_| true, 100)), ["9", "8", "7"]);
    assert_eq!(ids(events.recent(|_| true, 2)), ["9", "8"]);
    assert_eq!(ids(events.recent(|record| record.event.clientid() == Some("7"), 1)), ["7"]);
    assert_eq!(
        events.counts().iter().find(|(name, _)| *name == "session_expired"),
        Some(&("session_expired", 10))
    );
    // A reader that was too slow sees the gap in the numbers.
    assert_eq!(events.since(2, 100).first().map(|record| record.seq), Some(8));
    assert_eq!(ids(events.since(8, 1)), ["8"]);
    assert_eq!(events.since(10, 100), []);
    assert_eq!(events.since(u64::MAX, 100), []);
}

#[test]
fn a_memory_for_nothing_still_keeps_one() {
    let events = Events::new(Clock::manual().0, 0);
    events.emit(expired("a"));
    events.emit(expired("b"));
    assert_eq!(events.recent(|_| true, 10).len(), 1);
}

#[test]
fn every_type_has_its_name_its_place_and_its_count() {
    let all = one_of_each();
    assert_eq!(all.len(), EventType::ALL.len(), "one_of_each must grow with the catalogue");
    let events = Events::new(Clock::manual().0, 100);
    for (index, (event, event_type)) in all.into_iter().zip(EventType::ALL).enumerate() {
        assert_eq!(event.event_type(), event_type);
        assert_eq!(event_type as usize, index);
        assert_eq!(serde_json::to_value(&event).unwrap()["type"], event_type.name());
        events.emit(event);
    }
    let expected: Vec<_> = EventType::ALL.iter().map(|event_type| (event_type.name(), 1)).collect();
    assert_eq!(events.counts(), expected);
}

#[test]
fn json_has_the_fields_beside_number_and_type() {
    let (clock, _) = Clock::manual();
    let events = Events::new(clock, 10);
    let violation = |event: &Event| event.event_type() == EventType::ProtocolViolation;
    events.emit(one_of_each().into_iter().find(violation).unwrap());
    let record = events.recent(|_| true, 1).remove(0);
    assert_eq!(
        serde_json::to_value(&record).unwrap(),
        json!({
            "seq": 1, "at_unix_ms": 1_767_225_600_000u64, "type": "protocol_violation", "clientid": "dev1",
            "peer": "192.0.2.1:40000", "reason": "malformed_packet", "clause": "MQTT-3.1.2-3",
            "detail": "the reserved flag is set"
        })
    );
}

/// Collects log lines.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Lines {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn log_of(event: Event) -> String {
    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_max_level(tracing::Level::DEBUG);
    let subscriber = subscriber.with_writer(move || writer.clone()).finish();
    tracing::subscriber::with_default(subscriber, || {
        Events::new(Clock::manual().0, 1).emit(event);
    });
    lines.text()
}

#[test]
fn every_event_is_one_line_of_the_log() {
    for event in one_of_each() {
        let name = event.event_type().name();
        let text = log_of(event);
        assert_eq!(text.lines().count(), 1, "{name}: {text}");
    }
}

#[test]
fn a_client_identifier_can_not_forge_a_log_line() {
    let text = log_of(expired("dev1\n2026-01-01 INFO all is well"));
    assert_eq!(text.lines().count(), 1, "{text}");
    let text = log_of(Event::MessageDropped {
        clientid: Some("a\nb".into()),
        topic: "t\nu".into(),
        rule: "queue_full".into(),
        count: 1,
    });
    assert_eq!(text.lines().count(), 1, "{text}");
}

#[test]
fn json_has_texts_as_they_are_and_the_role_as_the_target() {
    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber = tracing_subscriber::fmt().json().flatten_event(true);
    let subscriber = subscriber.with_writer(move || writer.clone()).finish();
    tracing::subscriber::with_default(subscriber, || {
        Events::new(Clock::manual().0, 1).emit(expired("dev\"1"));
    });
    let line: serde_json::Value = serde_json::from_str(&lines.text()).unwrap();
    assert_eq!((&line["clientid"], &line["target"]), (&json!("dev\"1"), &json!("broker::events")));
}

#[test]
fn a_connection_that_closes_without_a_word_is_no_warning() {
    let refused = |reason: &str| {
        let peer = "10.0.0.1:50000".parse().unwrap();
        let (clientid, listener) = (Some("car".into()), "tcp://0.0.0.0:1880".into());
        log_of(Event::GatewayRefused { clientid, peer, listener, reason: reason.into() })
    };
    assert!(refused("closed_early").contains("DEBUG"));
    let warned = refused("servers_failed");
    assert!(warned.contains(" WARN ") && warned.contains("clientid=\"car\""), "{warned}");
}

#[test]
fn what_needs_a_restart_is_a_warning_that_names_it() {
    let reloaded = |restart_needed: &[&str]| {
        log_of(Event::ConfigReloaded {
            source: "signal".into(),
            changes: Vec::new(),
            restart_needed: restart_needed.iter().map(|key| Text::from(*key)).collect(),
        })
    };
    assert!(reloaded(&[]).contains(" INFO "));
    let warned = reloaded(&["node.workers changes with the next start"]);
    assert!(warned.contains(" WARN ") && warned.contains("node.workers"), "{warned}");
}

#[test]
fn violations_are_warnings_and_connects_are_not() {
    let mut all = one_of_each();
    assert!(log_of(all.swap_remove(6)).contains(" WARN "));
    assert!(log_of(all.swap_remove(0)).contains(" INFO "));
}

/// Ten thousand client identifiers of 64 KiB would be 640 MiB.
#[test]
fn long_texts_of_peers_are_cut_at_a_character() {
    let events = Events::new(Clock::manual().0, 10);
    let long: Text = "ä".repeat(30_000).into();
    for mut event in one_of_each() {
        match &mut event {
            Event::ClientConnected { clientid, username, .. }
            | Event::GatewayConnected { clientid, username, .. } => {
                (*clientid, *username) = (Text::clone(&long), Some(Text::clone(&long)));
            }
            Event::AccessDenied { clientid, username, topic, .. } => {
                (*clientid, *username) = (Text::clone(&long), Some(Text::clone(&long)));
                *topic = Text::clone(&long);
            }
            Event::MessageDropped { clientid, topic, .. } => {
                (*clientid, *topic) = (Some(Text::clone(&long)), Text::clone(&long));
            }
            Event::ClientRefused { clientid, username, .. } => {
                (*clientid, *username) = (Some(Text::clone(&long)), Some(Text::clone(&long)));
            }
            Event::ClientThrottled { clientid, .. }
            | Event::GatewayRefused { clientid, .. }
            | Event::ProtocolViolation { clientid, .. } => {
                *clientid = Some(Text::clone(&long));
            }
            Event::ClientDisconnected { clientid, .. }
            | Event::SessionTakenOver { clientid, .. }
            | Event::SessionExpired { clientid }
            | Event::GatewayDisconnected { clientid, .. } => *clientid = Text::clone(&long),
            _ => continue,
        }
        events.emit(event);
        let kept = events.recent(|_| true, 1).remove(0);
        let id = kept.event.clientid().unwrap();
        assert!(id.len() <= MAX_TEXT && id.starts_with("ää") && id.ends_with("ä…"), "{}", id.len());
        assert!(serde_json::to_string(&kept).unwrap().len() < 3 * MAX_TEXT + 512);
    }
    assert_eq!(events.last_seq(), 12);
}
