//! One log line for each event: a message that never changes, and the variable parts as fields.
//!
//! Texts that a peer chose are written with their debug form, so that a line break in a client identifier can't
//! forge a line.

use tracing::{debug, error, info, warn};

use super::Event;

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
            info!(?clientid, username, proto_ver, %peer, %listener, clean_start, session_present, keep_alive,
                "client connected");
        }
        Event::ClientDisconnected { clientid, peer, reason, detail } => {
            info!(?clientid, %peer, %reason, ?detail, "client disconnected");
        }
        Event::ClientRefused { clientid, peer, reason, detail } => {
            warn!(clientid = clientid.as_deref(), %peer, %reason, ?detail, "client refused");
        }
        Event::SessionTakenOver { clientid, old_peer, new_peer } => {
            info!(?clientid, %old_peer, %new_peer, "session taken over");
        }
        Event::SessionExpired { clientid } => info!(?clientid, "session expired"),
        Event::MessageDropped { clientid, topic, rule, count } => {
            warn!(clientid = clientid.as_deref(), ?topic, %rule, count, "messages dropped");
        }
        Event::ProtocolViolation { clientid, peer, reason, clause, detail } => {
            let (clientid, clause) = (clientid.as_deref(), clause.as_deref());
            warn!(clientid, %peer, %reason, clause, ?detail, "protocol violation");
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
            debug!(?clientid, username, proto_ver, %peer, %listener, %upstream, %server, %chosen_by,
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
            debug!(?clientid, %peer, %upstream, %server, bytes_in, bytes_out, duration_ms, %reason,
                "gateway connection ended");
        }
        Event::GatewayRefused { peer, listener, reason } => {
            warn!(%peer, %listener, %reason, "gateway refused a connection");
        }
        Event::UpstreamFailed { upstream, server, error } => {
            warn!(%upstream, %server, ?error, "upstream server failed");
        }
        Event::ServerStateChanged { upstream, server, from, to } => {
            warn!(%upstream, %server, %from, %to, "upstream server changed its state");
        }
        _ => {}
    }
}

fn process(event: &Event) {
    match event {
        Event::ListenerStarted { listener, bind } => info!(%listener, %bind, "listener started"),
        Event::ListenerStopped { listener, bind, reason } => {
            info!(%listener, %bind, %reason, "listener stopped");
        }
        Event::ConfigReloaded { source, changes } => {
            info!(%source, ?changes, "configuration in force");
        }
        Event::ConfigRejected { problems } => {
            warn!(?problems, "configuration rejected, the old one stays in force");
        }
        Event::EngineTrouble { primitive, error } => error!(%primitive, ?error, "engine trouble"),
        _ => {}
    }
}
