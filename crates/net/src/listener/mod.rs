//! Listening sockets: bound for every worker, or taken over from the service manager.
//!
//! Each worker has a listener of its own on the same address (`SO_REUSEPORT`), so that the kernel spreads
//! connections and no worker hands sockets to another. That option would let a second process join in silence, so
//! the address is bound once without it first. Who owns a descriptor is decided here and nowhere else.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsFd;
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::net::TcpStream;

mod inherited;

/// Connections that may wait to be accepted, per worker. The kernel cuts it to `net.core.somaxconn`.
pub const DEFAULT_BACKLOG: i32 = 4096;
/// How long an acceptor rests when the process or the machine has no descriptor or memory left.
pub const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// When the kernel starts to ask a silent peer whether it is there: beyond most MQTT keep-alives, so that it
/// costs nothing where the protocol does the work, and finds the dead where keep-alive is 0.
pub(crate) const KEEPALIVE_IDLE: Duration = Duration::from_secs(300);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);
const KEEPALIVE_PROBES: u32 = 4;

/// Where to listen. An IPv6 address listens for IPv6 only, `[::]` too: `0.0.0.0` stands beside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bind {
    /// Port 0 asks the kernel for a free one.
    pub addr: SocketAddr,
    /// Connections that may wait to be accepted, per worker.
    pub backlog: i32,
}

/// Why an address can't be listened on, as a sentence for the one who chose it.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {addr}: {}", reason(error, addr))]
pub struct ListenError {
    /// The address.
    pub addr: SocketAddr,
    /// What the system said.
    #[source]
    pub error: io::Error,
}

fn reason(error: &io::Error, addr: &SocketAddr) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            "the port is in use by another process; stop that process or choose another port".to_owned()
        }
        io::ErrorKind::AddrNotAvailable => "this machine has no such address".to_owned(),
        io::ErrorKind::PermissionDenied if addr.port() != 0 && addr.port() < 1024 => {
            "ports below 1024 need root or the capability CAP_NET_BIND_SERVICE".to_owned()
        }
        _ => error.to_string(),
    }
}

/// Whether the address can be listened on now by us alone: binds it once without `SO_REUSEPORT` and lets go.
///
/// # Errors
/// What stands against it.
pub fn check_free(addr: SocketAddr) -> Result<(), ListenError> {
    open(addr, false).map(drop).map_err(|error| ListenError { addr, error })
}

/// `count` listeners (at least one) on one address, one for each worker. See [`Bind::group`].
///
/// # Errors
/// What stands against it; then none is left open.
pub fn bind_group(addr: SocketAddr, count: usize) -> Result<Vec<TcpListener>, ListenError> {
    Bind::new(addr).group(count)
}

impl Bind {
    /// That address with the usual backlog.
    pub fn new(addr: SocketAddr) -> Self {
        Self { addr, backlog: DEFAULT_BACKLOG }
    }

    /// `count` listeners (at least one), nonblocking, in the order of the workers. With port 0 all share the port
    /// that the kernel chose for the first.
    ///
    /// When the service manager passed a listening socket of this very address (`LISTEN_FDS`), all of them are
    /// duplicates of it and nothing is bound: it stays open, with its backlog, until the process ends.
    ///
    /// # Errors
    /// What stands against it; then none is left open.
    pub fn group(&self, count: usize) -> Result<Vec<TcpListener>, ListenError> {
        self.try_group(count.max(1)).map_err(|error| ListenError { addr: self.addr, error })
    }

    fn try_group(&self, count: usize) -> io::Result<Vec<TcpListener>> {
        if let Some(passed) = inherited::find(self.addr)? {
            return (0..count).map(|_| passed.try_clone()).collect();
        }
        // With port 0 the kernel chooses a port that nobody has, so there is nothing to check.
        if self.addr.port() != 0 {
            drop(open(self.addr, false)?);
        }
        let first = open(self.addr, true)?;
        let addr = first.local_addr()?.as_socket().unwrap_or(self.addr);
        let mut sockets = vec![first];
        for _ in 1..count {
            sockets.push(open(addr, true)?);
        }
        // Only when all are bound: a group must not serve in part and then fail.
        sockets.into_iter().map(|socket| socket.listen(self.backlog).map(|()| socket.into())).collect()
    }
}

/// A bound socket that does not listen yet.
fn open(addr: SocketAddr, reuse_port: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    // A restart must not wait for the connections of the process before to leave TIME_WAIT.
    socket.set_reuse_address(true)?;
    if reuse_port {
        socket.set_reuse_port(true)?;
    }
    if addr.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    // accepted connections inherit these: five system calls fewer for each
    configure(&socket)?;
    socket.bind(&addr.into())?;
    Ok(socket)
}

/// Sets what every MQTT connection wants: no delay for small packets, and the kernel's keep-alive. On a listener it is for all
/// connections that will be accepted.
///
/// # Errors
/// When the connection is gone already.
pub fn configure(socket: &impl AsFd) -> io::Result<()> {
    let socket = SockRef::from(socket);
    socket.set_tcp_nodelay(true)?;
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE_IDLE)
        .with_interval(KEEPALIVE_INTERVAL)
        .with_retries(KEEPALIVE_PROBES);
    socket.set_tcp_keepalive(&keepalive)
}

/// Connections accepted from now on have no keep-alive of the kernel's: a timer that is started and stopped for each, though
/// most of a storm's end long before it. Whoever accepts turns it on for those that stay. How often it then asks, they
/// inherit all the same.
///
/// # Errors
/// What the system said.
pub fn accept_without_keepalive(listener: &TcpListener) -> io::Result<()> {
    SockRef::from(listener).set_keepalive(false)
}

/// What an acceptor does after an error of accept(2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AfterError {
    /// That one connection died while it waited: accept the next at once.
    Next,
    /// No descriptor or memory is left: count it and rest for [`ACCEPT_PAUSE`], or the loop would spin.
    Pause,
    /// The listener itself is broken.
    GiveUp,
}

/// Judges an error of accept(2).
pub fn after_error(error: &io::Error) -> AfterError {
    match error.raw_os_error() {
        Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM) => AfterError::Pause,
        // accept(2): errors of the new connection come back as accept's own and are to be treated as a retry.
        // EPERM is a firewall's no to this one.
        Some(
            libc::ECONNABORTED
            | libc::EINTR
            | libc::EAGAIN
            | libc::EPERM
            | libc::EPROTO
            | libc::ENOPROTOOPT
            | libc::EOPNOTSUPP
            | libc::ETIMEDOUT
            | libc::ENETDOWN
            | libc::ENETUNREACH
            | libc::EHOSTDOWN
            | libc::EHOSTUNREACH,
        ) => AfterError::Next,
        #[cfg(target_os = "linux")]
        Some(libc::ENONET) => AfterError::Next,
        _ => AfterError::GiveUp,
    }
}

/// The next connection; it has inherited what [`configure`] set on the listener. Connections that died while they waited are passed over; without
/// descriptors it rests for [`ACCEPT_PAUSE`] and calls `on_pause`, so that the role can count it.
///
/// Cancel safe: an accepted connection is never lost.
///
/// # Errors
/// Only when the listener is broken for good.
pub async fn accept(
    listener: &tokio::net::TcpListener,
    mut on_pause: impl FnMut(&io::Error),
) -> io::Result<(TcpStream, SocketAddr)> {
    loop {
        match listener.accept().await {
            Ok(accepted) => return Ok(accepted),
            Err(error) => match after_error(&error) {
                AfterError::Next => {}
                AfterError::Pause => {
                    on_pause(&error);
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
                AfterError::GiveUp => return Err(error),
            },
        }
    }
}

#[cfg(test)]
mod tests;
