//! One log line for each event: a message that never changes, and the variable parts as fields.
//!
//! Texts that a peer chose are given as strings: the text format quotes and escapes them, so that a line break in a
//! client identifier can't forge a line, and JSON has them as they are. The target is the role that an event is
//! about, so that a level such as `gateway=debug` is also for its events.

use tracing::{debug, error, info, warn};

use super::Event;

const BROKER: &str = "broker::events";
const GATEWAY: &str = "gateway::events";
/// Of the process, or of any of its roles.
const PROCESS: &str = "tidegate::events";

/// Writes the line: `info` for what is normal, `warn` for what a peer or a server did wrong, `error` for what
/// this process can't do.
pub(super) fn write(event: &Event) {
    match event {
        Event::ClientConnected { .. }
        | Event::ClientDisconnected { .. }
        | Event::ClientRefused { .. }
        | Event::SessionTakenOver { .. }
        | Event::SessionExpired { .. }
        | Event::MessageDropped { .. }
        | Event::RequestRefused { .. }
        | Event::AccessDenied { .. }
        | Event::ClientThrottled { .. }
        | Event::ProtocolViolation { .. } => client(event),
        Event::GatewayConnected { .. }
        | Event::GatewayDisconnected { .. }
        | Event::GatewayRefused { .. }
        | Event::UpstreamFailed { .. }
        | Event::ServerStateChanged { .. } => gateway(event),
        Event::ListenerStarted { .. }
        | Event::ListenerStopped { .. }
        | Event::ConfigReloaded { .. }
        | Event::ConfigRejected { .. }
        | Event::EngineTrouble { .. } => process(event),
    }
}

fn client(event: &Event) {
    match event {
        Event::ClientConnected {
            clientid,
            username,
            proto_ver,
            peer,
            listener,
            clean_start,
            session_present,
            keep_alive,
        } => {
            let username = username.as_deref();
            info!(target: BROKER, clientid = &**clientid, username, proto_ver, %peer, %listener, clean_start, session_present, keep_alive,
                "client connected");
        }
        Event::ClientDisconnected { clientid, peer, reason, detail } => {
            info!(target: BROKER, clientid = &**clientid, %peer, %reason, detail = &**detail, "client disconnected");
        }
        Event::ClientRefused { clientid, username, peer, reason, detail } => {
            let (clientid, username) = (clientid.as_deref(), username.as_deref());
            warn!(target: BROKER, clientid, username, %peer, %reason, detail = &**detail, "client refused");
        }
        Event::SessionTakenOver { clientid, old_peer, new_peer } => {
            info!(target: BROKER, clientid = &**clientid, %old_peer, %new_peer, "session taken over");
        }
        Event::SessionExpired { clientid } => {
            info!(target: BROKER, clientid = &**clientid, "session expired");
        }
        Event::MessageDropped { clientid, topic, rule, count } => {
            warn!(target: BROKER, clientid = clientid.as_deref(), topic = &**topic, %rule, count, "messages dropped");
        }
        Event::RequestRefused { clientid, action, topic, reason, detail, count } => {
            warn!(target: BROKER, clientid = &**clientid, %action, topic = &**topic, %reason, detail = &**detail, count,
                "request refused");
        }
        Event::ClientThrottled { clientid, peer, limit, count } => {
            warn!(target: BROKER, clientid = clientid.as_deref(), %peer, %limit, count, "client throttled");
        }
        Event::AccessDenied { clientid, username, peer, action, topic, count } => {
            let username = username.as_deref();
            warn!(target: BROKER, clientid = &**clientid, username, %peer, %action, topic = &**topic, count, "access denied");
        }
        Event::ProtocolViolation { clientid, peer, reason, clause, detail } => {
            let (clientid, clause) = (clientid.as_deref(), clause.as_deref());
            warn!(target: PROCESS, clientid, %peer, %reason, clause, detail = &**detail, "protocol violation");
        }
        _ => {}
    }
}

fn gateway(event: &Event) {
    match event {
        Event::GatewayConnected {
            clientid,
            username,
            proto_ver,
            peer,
            listener,
            upstream,
            server,
            chosen_by,
        } => {
            // a connection is one line at its end: the gateway's session log
            let username = username.as_deref();
            debug!(target: GATEWAY, clientid = &**clientid, username, proto_ver, %peer, %listener, %upstream, %server, %chosen_by,
                "gateway connected a client");
        }
        Event::GatewayDisconnected {
            clientid,
            peer,
            upstream,
            server,
            bytes_in,
            bytes_out,
            duration_ms,
            reason,
        } => {
            debug!(target: GATEWAY, clientid = &**clientid, %peer, %upstream, %server, bytes_in, bytes_out, duration_ms, %reason,
                "gateway connection ended");
        }
        // What a balancer's health check does every other second: it must not fill the log.
        Event::GatewayRefused { clientid, peer, listener, reason } if **reason == *"closed_early" => {
            debug!(target: GATEWAY, clientid = clientid.as_deref(), %peer, %listener, %reason, "gateway refused a connection");
        }
        Event::GatewayRefused { clientid, peer, listener, reason } => {
            warn!(target: GATEWAY, clientid = clientid.as_deref(), %peer, %listener, %reason, "gateway refused a connection");
        }
        Event::UpstreamFailed { upstream, server, error } => {
            warn!(target: GATEWAY, %upstream, %server, error = &**error, "upstream server failed");
        }
        Event::ServerStateChanged { upstream, server, from, to } => {
            warn!(target: GATEWAY, %upstream, %server, %from, %to, "upstream server changed its state");
        }
        _ => {}
    }
}

fn process(event: &Event) {
    match event {
        Event::ListenerStarted { listener, bind } => {
            info!(target: PROCESS, %listener, %bind, "listener started");
        }
        Event::ListenerStopped { listener, bind, reason } => {
            info!(target: PROCESS, %listener, %bind, %reason, "listener stopped");
        }
        Event::ConfigReloaded { source, changes, restart_needed } if restart_needed.is_empty() => {
            info!(target: PROCESS, %source, ?changes, "configuration in force");
        }
        Event::ConfigReloaded { source, changes, restart_needed } => {
            warn!(target: PROCESS, %source, ?changes, ?restart_needed, "configuration in force, but for what needs a restart");
        }
        Event::ConfigRejected { problems } => {
            warn!(target: PROCESS, ?problems, "configuration rejected, the old one stays in force");
        }
        Event::EngineTrouble { primitive, error } => {
            error!(target: PROCESS, %primitive, error = &**error, "engine trouble");
        }
        _ => {}
    }
}
