//! The socket: accepts, bounds, and at the end lets go.
//!
//! At most [`Limits::connections`] are open; at that bound further ones wait in the kernel's backlog until one closes, and
//! every open one closes by itself when it is idle, sends its head too slowly or does not read its answer.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use runtime::lifecycle::Shutdown;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;
use tower::Layer;
use tower::util::MapRequestLayer;

use crate::guard::LocalAddress;
use crate::stall::Stall;
use crate::{AdminConfig, Roles, routes};

/// Bounds of the server.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Connections at a time.
    pub(crate) connections: usize,
    /// For the head of a request; an idle connection waits as long for the next one.
    pub(crate) head: Duration,
    /// For a peer that does not read its answer.
    pub(crate) write: Duration,
    /// For the requests that are under way when the process stops.
    pub(crate) drain: Duration,
    /// Bytes of a request's head, and of the read buffer.
    pub(crate) head_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 256,
            head: Duration::from_secs(30),
            write: Duration::from_secs(30),
            drain: Duration::from_secs(5),
            // A client id of 65,535 bytes, percent-encoded, does not fit a request target (65,534 bytes); one of
            // 21,000 does, and the rest of the head beside it.
            head_bytes: 128 << 10,
        }
    }
}

/// A running server.
#[derive(Debug)]
pub struct Handle {
    /// Where it listens: with the port that it got, where 0 was asked for.
    pub local_addr: SocketAddr,
    task: JoinHandle<()>,
}

impl Handle {
    /// Waits until the server has let go after the shutdown: requests under way get at most five seconds.
    pub async fn finished(self) {
        // An error would be a panic of the accept loop, which has ended then too.
        let _ = self.task.await;
    }
}

/// Binds the address and serves on the tokio runtime that this is called in, until `shutdown`.
///
/// # Errors
/// The address cannot be bound (in one sentence that names it), or there is no tokio runtime here.
pub fn serve(config: AdminConfig, roles: Roles, shutdown: Shutdown) -> io::Result<Handle> {
    start(config.bind, roles, shutdown, Limits::default())
}

pub(crate) fn start(
    bind: SocketAddr,
    roles: Roles,
    shutdown: Shutdown,
    limits: Limits,
) -> io::Result<Handle> {
    let runtime = tokio::runtime::Handle::try_current().map_err(io::Error::other)?;
    let listener = bound(bind)?;
    let local_addr = listener.local_addr()?;
    let task = runtime.spawn(accept(listener, routes::router(roles), shutdown, limits));
    tracing::info!(bind = %local_addr, "the admin API listens");
    Ok(Handle { local_addr, task })
}

/// `net` owns the question whose socket it is: a new one, or one that the service manager passed.
fn bound(bind: SocketAddr) -> io::Result<TcpListener> {
    let group =
        net::listener::bind_group(bind, 1).map_err(|error| io::Error::new(error.error.kind(), error))?;
    let listener = group.into_iter().next().ok_or_else(|| io::Error::other("no listener was bound"))?;
    TcpListener::from_std(listener)
}

async fn accept(listener: TcpListener, router: Router, shutdown: Shutdown, limits: Limits) {
    let slots = Arc::new(Semaphore::new(limits.connections));
    let mut open = JoinSet::new();
    loop {
        let next = tokio::select! {
            () = shutdown.wait() => break,
            next = next_connection(&listener, &slots) => next,
        };
        match next {
            Ok((stream, slot)) => {
                let (router, shutdown) = (router.clone(), shutdown.clone());
                open.spawn(async move {
                    if let Ok(local) = stream.local_addr() {
                        serve_connection(stream, local, router, shutdown, limits).await;
                    }
                    drop(slot);
                });
            }
            Err(error) => {
                tracing::error!(%error, "the admin API accepts no more connections");
                break;
            }
        }
        // Those that have ended leave the set here, so that it holds no more than the slots and one round.
        while open.try_join_next().is_some() {}
    }
    drop(listener);
    shutdown.wait().await;
    let drained = async { while open.join_next().await.is_some() {} };
    if timeout(limits.drain, drained).await.is_err() {
        open.shutdown().await;
    }
}

/// The next connection once there is a slot for it. An error: the listener is broken for good.
async fn next_connection(
    listener: &TcpListener,
    slots: &Arc<Semaphore>,
) -> io::Result<(TcpStream, OwnedSemaphorePermit)> {
    let slot = Arc::clone(slots).acquire_owned().await.map_err(io::Error::other)?;
    let on_pause = |error: &io::Error| tracing::warn!(%error, "the admin API cannot accept a connection now");
    let (stream, _) = net::listener::accept(listener, on_pause).await?;
    Ok((stream, slot))
}

/// The server on one connection that is open already, whatever it is made of, until it ends. `local` stands for the address
/// that the peer connected to.
pub async fn serve_stream(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    local: SocketAddr,
    roles: Roles,
    shutdown: Shutdown,
) {
    serve_connection(stream, local, routes::router(roles), shutdown, Limits::default()).await;
}

async fn serve_connection(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    local: SocketAddr,
    router: Router,
    shutdown: Shutdown,
    limits: Limits,
) {
    let service = MapRequestLayer::new(move |mut request: hyper::Request<Incoming>| {
        request.extensions_mut().insert(LocalAddress(local));
        request.map(Body::new)
    })
    .layer(router);
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head)
        .max_buf_size(limits.head_bytes)
        .serve_connection(TokioIo::new(Stall::new(stream, limits.write)), TowerToHyperService::new(service));
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = &mut connection => ended,
        () = shutdown.wait() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection of the admin API ended early");
    }
}
