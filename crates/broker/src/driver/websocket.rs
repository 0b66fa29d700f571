//! Connections of listeners that speak WebSocket: the opening handshake, then frames around what the worker reads and writes.
//!
//! The worker knows nothing of it: bytes of MQTT come out of binary frames here and go into them here, wherever they are
//! cut [MQTT-6.0.0-2]. What WebSocket adds to a connection is in one box beside its socket.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use mqtt::ReasonCode;
use net::forwarded::client_address;
use net::proxy_protocol::TrustedProxies;
use net::read::read_into;
use net::ws::{Accepted, Decoder, Encoder, Event, Handshake, Refusal, Side, Violation, close};
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::spawn_local;

use super::{Arrival, Connection, Local, Socket};
use crate::config::WebSocketConfig;
use crate::connection::{ConnId, End, Farewell, Origin, Via};
use crate::metrics::Handshake as Outcome;
use crate::worker::Worker;

/// Bytes of MQTT that are taken out of frames while the worker takes none, so that pings behind them are answered.
const READ_AHEAD: usize = 16 * 1024;
/// Bytes of a request read at once.
const REQUEST_CHUNK: usize = 2 * 1024;
/// How long a refused peer may take to read why, and how many bytes of it are read away meanwhile.
const REFUSAL_LINGER: Duration = Duration::from_secs(2);
const REFUSAL_DRAIN: usize = 64 * 1024;

/// What WebSocket adds to a connection.
pub(super) struct Frames {
    pub(super) incoming: Incoming,
    outgoing: Encoder,
}

/// Takes frames apart for one connection.
pub(super) struct Incoming {
    decoder: Decoder,
    /// Bytes of MQTT that came while the worker took none; at most [`READ_AHEAD`].
    ahead: Vec<u8>,
    /// The peer closed behind them.
    ended: bool,
}

impl Incoming {
    fn new(max_frame: u64) -> Self {
        Self { decoder: Decoder::new(Side::Server, max_frame), ahead: Vec::new(), ended: false }
    }

    /// Bytes that may be read although the worker takes none.
    pub(super) fn room(&self) -> usize {
        if self.ended { 0 } else { READ_AHEAD.saturating_sub(self.ahead.len()) }
    }

    /// Gives the worker, which takes bytes again, what was read meanwhile. `false`: nothing was.
    pub(super) fn hand_over(&mut self, worker: &mut Worker, id: ConnId) -> bool {
        if self.ahead.is_empty() {
            return false;
        }
        worker.received(id, &std::mem::take(&mut self.ahead));
        true
    }

    /// The peer closed. `true`: that counts when the worker has got what waits.
    pub(super) fn ends(&mut self) -> bool {
        self.ended = true;
        !self.ahead.is_empty()
    }

    pub(super) fn has_ended(&self) -> bool {
        self.ended
    }
}

impl Frames {
    fn new(max_frame: u64) -> Box<Self> {
        Box::new(Self { incoming: Incoming::new(max_frame), outgoing: Encoder::default() })
    }

    /// Takes bytes off the socket. Answers of our own are written at the end of the turn.
    pub(super) fn received(&mut self, worker: &mut Worker, id: ConnId, mut bytes: &mut [u8]) {
        let Self { incoming, outgoing } = self;
        let direct = incoming.ahead.is_empty() && worker.wants_read(id);
        loop {
            match incoming.decoder.next(&mut bytes) {
                Ok(None) => return,
                Ok(Some(Event::Data(data))) if direct => worker.received(id, data),
                Ok(Some(Event::Data(data))) => incoming.ahead.extend_from_slice(data),
                Ok(Some(Event::Ping(ping))) => {
                    outgoing.pong(ping);
                    worker.mark_dirty(id.slot);
                }
                Ok(Some(Event::Pong(_))) => {}
                Ok(Some(Event::Close { code, .. })) => {
                    // a good-bye of the transport is none of MQTT: the will is published
                    outgoing.close(code);
                    worker.mark_dirty(id.slot);
                    return worker.end(id, End::Lost("closed by the client"));
                }
                Err(violation) => {
                    outgoing.close(Some(violation.code));
                    worker.mark_dirty(id.slot);
                    return worker.end(id, broken(violation));
                }
            }
        }
    }
}

fn broken(violation: Violation) -> End {
    let reason = match violation.code {
        close::TOO_BIG => ReasonCode::PacketTooLarge,
        _ => ReasonCode::ProtocolError,
    };
    let clause = if violation.code == close::UNSUPPORTED { "MQTT-6.0.0-1" } else { "RFC 6455" };
    End::Violation { reason, clause, detail: violation.what }
}

impl Socket {
    /// Writes what waits, in frames, until nothing is left or the socket takes no more. `false`: it is blocked or broken.
    pub(super) fn try_write_frames(&mut self, worker: &mut Worker, slot: u32) -> bool {
        let stream = &self.stream;
        let written =
            write(
                worker,
                slot,
                self.frames.as_mut().map(|frames| &mut frames.outgoing),
                |bytes| match stream.try_write_vectored(bytes) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => Poll::Pending,
                    result => Poll::Ready(result),
                },
            );
        self.blocked = written.is_pending();
        self.broken = matches!(written, Poll::Ready(Err(_)));
        matches!(written, Poll::Ready(Ok(())))
    }

    /// Goes on writing where the kernel's buffer was full.
    pub(super) fn write_frames(
        &mut self,
        worker: &mut Worker,
        slot: u32,
        cx: &mut Context<'_>,
    ) -> io::Result<()> {
        let stream = &mut self.stream;
        let poll = |bytes: &[IoSlice<'_>]| Pin::new(&mut *stream).poll_write_vectored(cx, bytes);
        let written = write(worker, slot, self.frames.as_mut().map(|frames| &mut frames.outgoing), poll);
        self.blocked = written.is_pending();
        match written {
            Poll::Ready(result) => result,
            Poll::Pending => Ok(()),
        }
    }

    /// Writes the last frame. Over plain TCP there is none.
    pub(super) fn say_goodbye(
        &mut self,
        worker: &mut Worker,
        slot: u32,
        farewell: Option<Farewell>,
        cx: &mut Context<'_>,
    ) -> Poll<()> {
        if let Some(frames) = &mut self.frames {
            frames.outgoing.close(Some(match farewell {
                None | Some(Farewell::Normal) => close::NORMAL,
                Some(Farewell::GoingAway) => close::GOING_AWAY,
                Some(Farewell::Violation) => close::PROTOCOL_ERROR,
                Some(Farewell::TooLarge) => close::TOO_BIG,
                Some(Farewell::Policy) => close::POLICY,
            }));
            // a broken socket is seen by who reads it
            let _ = self.write_frames(worker, slot, cx);
            if self.blocked {
                return Poll::Pending;
            }
        }
        Poll::Ready(())
    }
}

/// Writes frames as long as `write` takes them.
fn write(
    worker: &mut Worker,
    slot: u32,
    frames: Option<&mut Encoder>,
    mut write: impl FnMut(&[IoSlice<'_>]) -> Poll<io::Result<usize>>,
) -> Poll<io::Result<()>> {
    let Some(frames) = frames else { return Poll::Ready(Ok(())) };
    loop {
        let unsent = worker.unsent(slot);
        let (front, count) = frames.next(unsent);
        let payload = unsent.get(..count).unwrap_or_default();
        if front.is_empty() && payload.is_empty() {
            return Poll::Ready(Ok(()));
        }
        match ready!(write(&[IoSlice::new(front), IoSlice::new(payload)])) {
            Ok(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
            Ok(count) => {
                let of_mqtt = frames.written(count);
                if of_mqtt > 0 {
                    worker.written(slot, of_mqtt);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Poll::Ready(Err(error)),
        }
    }
}

/// Why there is no WebSocket.
enum Failure {
    Refused(Refusal),
    /// The peer went away or the network failed; whether anything came before.
    Closed {
        silent: bool,
    },
}

/// The opening handshake, then MQTT. The time until CONNECT counts from `since` on.
pub(super) async fn open(
    local: Rc<Local>,
    mut arrival: Arrival,
    first: Vec<u8>,
    since: Instant,
    config: &WebSocketConfig,
    trusted: &TrustedProxies,
) {
    let (connect_timeout, max_packet) = local.with(|w| (w.config.connect_timeout, w.config.max_packet_size));
    let deadline = since + connect_timeout;
    let peer = arrival.origin.peer;
    let shaken = tokio::time::timeout_at(deadline.into(), shake(&mut arrival.stream, first, config)).await;
    let (accepted, mut rest) = match shaken {
        Ok(Ok(shaken)) => shaken,
        Ok(Err(Failure::Refused(refusal))) => {
            local.with(|w| {
                w.metrics.handshakes[Outcome::Refused as usize].inc();
                w.turn_away(peer, "websocket_handshake", &refusal.to_string());
            });
            refuse(arrival.stream, refusal).await;
            return;
        }
        Ok(Err(Failure::Closed { silent })) => {
            local.with(|w| {
                w.metrics.handshakes[Outcome::Closed as usize].inc();
                if silent {
                    // a health check that connects and goes is no news
                    w.metrics.accepted.inc();
                    w.metrics.refused.inc();
                } else {
                    w.turn_away(peer, "websocket_handshake", "closed by the client");
                }
            });
            return;
        }
        Err(_) => {
            local.with(|w| {
                w.metrics.handshakes[Outcome::TimedOut as usize].inc();
                w.turn_away(peer, "connect_timeout", "the WebSocket handshake was not finished");
            });
            return;
        }
    };
    local.with(|w| w.metrics.handshakes[Outcome::Accepted as usize].inc());
    if !forward(&mut arrival.origin, &accepted, trusted) {
        local.with(|w| w.metrics.forwarded_ignored.inc());
    }
    let id = local.open(arrival, Some(Frames::new(config.max_frame(max_packet))));
    local.with(|w| {
        w.arm(id, deadline);
        if let Some(conn) = w.conn_mut(id) {
            // also whoever said good-bye by MQTT waits for the Close
            conn.linger = true;
        }
    });
    if !rest.is_empty()
        && let Some(Some(Socket { frames: Some(frames), .. })) =
            local.sockets.borrow_mut().get_mut(id.slot as usize)
    {
        local.with(|w| frames.received(w, id, &mut rest));
    }
    spawn_local(Connection { local, id });
}

/// Reads the request and answers it; what came behind it.
async fn shake(
    stream: &mut TcpStream,
    first: Vec<u8>,
    config: &WebSocketConfig,
) -> Result<(Accepted, Vec<u8>), Failure> {
    let wanted = [&config.proxy_address_header, &config.proxy_port_header];
    let wanted: Vec<&str> = wanted.into_iter().flatten().map(String::as_str).collect();
    let mut handshake = Handshake::new(&config.rules, &wanted);
    let mut silent = first.is_empty();
    let mut input = first;
    loop {
        if let Some(accepted) = handshake.receive(&input).map_err(Failure::Refused)? {
            let behind = input.len().saturating_sub(accepted.rest);
            input.drain(..behind);
            let written = stream.write_all(accepted.answer.as_bytes()).await;
            return written.map(|()| (accepted, input)).map_err(|_| Failure::Closed { silent: false });
        }
        input.clear();
        match read_into(stream, &mut input, REQUEST_CHUNK).await {
            Ok(0) | Err(_) => return Err(Failure::Closed { silent }),
            Ok(_) => silent = false,
        }
    }
}

/// Takes the client's address from the fields of the request, if a trusted proxy sent it. `false`: it must be there and is
/// not, or says nothing.
fn forward(origin: &mut Origin, accepted: &Accepted, trusted: &TrustedProxies) -> bool {
    let mut fields = accepted.headers.iter();
    let Some(address) = fields.next().filter(|_| trusted.allows(origin.peer.ip())) else { return true };
    let Some(value) = &address.value else { return false };
    let Ok(mut client) = client_address(&address.name, value, origin.peer, trusted) else { return false };
    if client == origin.peer {
        return true;
    }
    if client.port() == 0
        && let Some(port) = fields.next().and_then(|field| field.value.as_deref()?.trim().parse().ok())
    {
        client.set_port(port);
    }
    if origin.via.is_none() {
        origin.via = Some(Box::new(Via { address: origin.peer, unique_id: None }));
    }
    origin.peer = client;
    true
}

/// Says why, and closes so that it can be read.
async fn refuse(mut stream: TcpStream, refusal: Refusal) {
    let farewell = async {
        stream.write_all(refusal.answer().as_bytes()).await?;
        poll_fn(|cx| Pin::new(&mut stream).poll_shutdown(cx)).await?;
        let mut sink = Vec::new();
        let mut drained = 0;
        while drained < REFUSAL_DRAIN {
            sink.clear();
            match read_into(&stream, &mut sink, REQUEST_CHUNK).await? {
                0 => break,
                count => drained += count,
            }
        }
        io::Result::Ok(())
    };
    // whether it was read or not, the door closes
    let _ = tokio::time::timeout(REFUSAL_LINGER, farewell).await;
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicUsize;

    use net::ws::{HeaderValue, frame};
    use tokio::io::AsyncReadExt;
    use tokio::net::TcpListener;

    use super::super::Permit;
    use super::*;
    use crate::config::BrokerConfig;
    use crate::connection::Door;
    use crate::sim::world::World;

    fn forwarded(peer: &str, address: Option<&str>, port: Option<&str>) -> (bool, String, Option<String>) {
        let field = |name: &str, value: Option<&str>| HeaderValue {
            name: name.to_owned(),
            value: value.map(str::to_owned),
        };
        let accepted = Accepted {
            answer: String::new(),
            subprotocol: None,
            rest: 0,
            headers: vec![field("X-Forwarded-For", address), field("X-Forwarded-Port", port)],
        };
        let mut origin =
            Origin { peer: peer.parse().unwrap(), via: None, door: Door::named("ws://127.0.0.1:8083") };
        let told = forward(&mut origin, &accepted, &TrustedProxies::default());
        (told, origin.peer.to_string(), origin.via.map(|via| via.address.to_string()))
    }

    #[test]
    fn the_clients_address_comes_from_trusted_proxies_only() {
        let via = Some("10.0.0.1:99".to_owned());
        let client = |text: &str| text.to_owned();
        let proxy = "10.0.0.1:99";
        assert_eq!(
            forwarded(proxy, Some("192.0.2.1"), Some("4711")),
            (true, client("192.0.2.1:4711"), via.clone())
        );
        assert_eq!(
            forwarded(proxy, Some("192.0.2.1:5"), Some("4711")),
            (true, client("192.0.2.1:5"), via.clone())
        );
        assert_eq!(forwarded(proxy, Some("192.0.2.1"), Some("70000")), (true, client("192.0.2.1:0"), via));
        // garbage, or nothing: the proxy itself, and it is counted
        assert_eq!(forwarded(proxy, Some("me"), None), (false, client(proxy), None));
        assert_eq!(forwarded(proxy, None, Some("4711")), (false, client(proxy), None));
        // a stranger may say what it likes
        let stranger = "203.0.113.9:99";
        assert_eq!(forwarded(stranger, Some("192.0.2.1"), Some("1")), (true, client(stranger), None));
        assert_eq!(forwarded(stranger, Some("garbage"), None), (true, client(stranger), None));
    }

    fn masked(write: impl FnOnce(&[u8], Option<[u8; 4]>, &mut Vec<u8>), payload: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        write(payload, Some([1, 2, 3, 4]), &mut out);
        out
    }

    /// The worker takes no packets: pings are answered all the same, what lies before them is kept in its order, and so is
    /// the end behind it.
    async fn paused(closes: bool) {
        let (worker, mailbox, clock) = World::new(1, 1, BrokerConfig::default()).take_worker();
        let local = Local::new(worker, clock);
        local.start(mailbox);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (stream, peer) = listener.accept().await.unwrap();
        let origin = Origin { peer, via: None, door: Door::named("ws://test") };
        let permit = Permit(Arc::new(AtomicUsize::new(1)));
        let arrival = Arrival { stream, origin, late: false, permit };
        let id = local.open(arrival, Some(Frames::new(1 << 20)));
        local.with(|w| {
            let conn = w.conn_mut(id).unwrap();
            (conn.linger, conn.busy) = (true, true);
        });
        spawn_local(Connection { local: Rc::clone(&local), id });
        // a packet that must not be the first
        let bytes = [masked(frame::binary, &[0xC0, 0]), masked(frame::ping, b"1")].concat();
        client.write_all(&bytes).await.unwrap();
        let mut answer = [0; 3];
        client.read_exact(&mut answer).await.unwrap();
        assert_eq!(answer, *b"\x8A\x011");
        assert_eq!(local.with(|w| w.conn(id).unwrap().recv_oct), 0, "it waits outside of the worker");
        if closes {
            client.shutdown().await.unwrap();
        }
        local.with(|w| {
            w.conn_mut(id).unwrap().busy = false;
            w.unpause(id);
        });
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).await.unwrap();
        // [MQTT-3.1.0-1]
        assert_eq!(answer, b"\x88\x02\x03\xEA");
        let gone = local.with(|w| w.metrics.violations.get());
        assert_eq!(gone, 1, "the packet was seen");
    }

    #[test]
    fn pings_are_answered_while_the_worker_takes_no_packets() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        for closes in [false, true] {
            let limited = async { tokio::time::timeout(Duration::from_secs(20), paused(closes)).await };
            tokio::task::LocalSet::new().block_on(&runtime, limited).expect("in time");
        }
    }

    #[test]
    fn what_is_read_ahead_has_a_bound() {
        let mut frames = Incoming::new(1 << 20);
        assert_eq!(frames.room(), READ_AHEAD);
        frames.ahead = vec![0; READ_AHEAD - 1];
        assert_eq!(frames.room(), 1);
        frames.ahead.push(0);
        assert_eq!(frames.room(), 0);
        // behind the end there is nothing
        frames.ahead.clear();
        assert!(!frames.ends());
        assert_eq!(frames.room(), 0);
    }

    #[test]
    fn an_idle_websocket_keeps_little() {
        assert!(size_of::<Frames>() <= 200, "{}", size_of::<Frames>());
    }
}
