//! Outgoing connections, past the limit of 28,000 ports per pair of addresses.
//!
//! A connection is known by its two addresses and ports. From one source address to one server the kernel has
//! about 28,000 ports (`ip_local_port_range`); more source addresses multiply that. To choose a source address one
//! binds, and a plain bind takes a port for every destination at once, so that 28,000 would be the limit for all
//! servers together: `IP_BIND_ADDRESS_NO_PORT` leaves the port to connect(2), which knows the destination.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::net::TcpStream;

use crate::listener;
#[cfg(target_os = "linux")]
use crate::reactor::{Reactor, Stream};

mod sockopt;

/// Opens connections, from each of its source addresses in turn. May be shared by all workers.
#[derive(Debug)]
pub struct Dialer {
    source_addresses: Vec<IpAddr>,
    connect_timeout: Duration,
    turn: AtomicUsize,
}

impl Clone for Dialer {
    fn clone(&self) -> Self {
        Self::new(self.source_addresses.clone(), self.connect_timeout)
    }
}

impl Dialer {
    /// Without source addresses the kernel chooses one. The timeout is for one whole [`Dialer::connect`].
    pub fn new(source_addresses: Vec<IpAddr>, connect_timeout: Duration) -> Self {
        Self { source_addresses, connect_timeout, turn: AtomicUsize::new(0) }
    }

    /// Connects, with no delay and keep-alive. When the ports of a source address to this server are used up, or it is
    /// not this machine's, the next address has its turn, each once.
    ///
    /// # Errors
    /// `TimedOut` after the timeout; `InvalidInput` when there are source addresses but none of the server's
    /// family; `AddrNotAvailable` when no source address is this machine's and has a port left; or what the network said.
    pub async fn connect(&self, addr: SocketAddr) -> io::Result<TcpStream> {
        self.connect_sending(addr, &[]).await.map(|(stream, _)| stream)
    }

    /// As [`Dialer::connect`], and sends the first bytes as soon as the connection takes them: to a server nearby that is
    /// at once, and a wake-up and two system calls are spared. Gives back how many of them were sent, perhaps none.
    ///
    /// # Errors
    /// As [`Dialer::connect`].
    pub async fn connect_sending(&self, addr: SocketAddr, first: &[u8]) -> io::Result<(TcpStream, usize)> {
        let attempt = async { connect_in_turn(self.sources_for(addr)?, addr, first, open).await };
        match tokio::time::timeout(self.connect_timeout, attempt).await {
            Ok(outcome) => outcome,
            Err(_) => Err(timed_out(self.connect_timeout)),
        }
    }

    /// As [`Dialer::connect_sending`], for a connection in a [`Reactor`]. Between connecting and sending it returns to
    /// its caller once, as if it had to wait: who begins many connections in a row and goes on with them afterwards
    /// sends their first bytes in a row, and a server on this machine wakes up once for all of them. One that takes the bytes
    /// then costs no timer and no event. The timeout is for each source address that is tried.
    ///
    /// No option is set: [`Stream::set_no_delay`] and [`Stream::set_keep_alive`] are its caller's, who knows whether it will
    /// live long enough to need them.
    ///
    /// # Errors
    /// As [`Dialer::connect`].
    #[cfg(target_os = "linux")]
    pub async fn connect_in(
        &self,
        reactor: &Reactor,
        addr: SocketAddr,
        first: &[u8],
    ) -> io::Result<(Stream, usize)> {
        let (mut sources, mut last) = (self.sources_for(addr)?, None);
        let start = |socket: &Socket| start(socket, addr, !first.is_empty());
        while let Some((socket, source)) = begin_next(&mut sources, addr, open, start, &mut last)? {
            once_around().await;
            match self.go_on_in(reactor, socket, first).await {
                Err(error) if unusable(&error) => last = Some(told(&error, NO_PORT, source, addr)),
                outcome => return outcome,
            }
        }
        Err(last.unwrap_or_else(|| io::ErrorKind::AddrNotAvailable.into()))
    }

    #[cfg(target_os = "linux")]
    async fn go_on_in(&self, reactor: &Reactor, socket: Socket, first: &[u8]) -> io::Result<(Stream, usize)> {
        let sent = send_first(&socket, first)?;
        if sent > 0 {
            return Ok((Stream::connected(reactor, socket.into())?, sent));
        }
        let stream = Stream::connecting(reactor, socket.into())?;
        // boxed: on this machine nobody waits, and every connection that is begun would carry the timer
        let writable = Box::pin(tokio::time::timeout(self.connect_timeout, stream.writable()));
        if writable.await.is_err() {
            return Err(timed_out(self.connect_timeout));
        }
        match stream.take_error()? {
            Some(error) => Err(error),
            None => Ok((stream, 0)),
        }
    }

    /// The source addresses to try for this server, in order; the first moves on with every call.
    fn sources_for(&self, addr: SocketAddr) -> io::Result<Sources<'_>> {
        if self.source_addresses.is_empty() {
            return Ok(Sources { addresses: &[], v4: addr.is_ipv4(), next: 0, left: 1 });
        }
        let fitting = self.source_addresses.iter().filter(|source| source.is_ipv4() == addr.is_ipv4());
        let count = fitting.count();
        if count == 0 {
            let error = format!("no source address has the address family of {addr}");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, error));
        }
        let next = self.turn.fetch_add(1, Ordering::Relaxed) % count;
        Ok(Sources { addresses: &self.source_addresses, v4: addr.is_ipv4(), next, left: count })
    }
}

/// Source addresses of one family, each once, from one of them on; `None` where the kernel is to choose.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Sources<'a> {
    addresses: &'a [IpAddr],
    v4: bool,
    /// Among those of the family.
    next: usize,
    left: usize,
}

impl Iterator for Sources<'_> {
    type Item = Option<IpAddr>;

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        if self.addresses.is_empty() {
            return Some(None);
        }
        let mut fitting = self.addresses.iter().filter(|source| source.is_ipv4() == self.v4).cycle();
        let source = fitting.nth(self.next)?;
        self.next += 1;
        Some(Some(*source))
    }
}

/// Whether this source can't be used: the kernel says `EADDRNOTAVAIL` at bind(2) where the address is not this
/// machine's, and at connect(2) where no port is left between it and the server.
fn unusable(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::AddrNotAvailable | io::ErrorKind::AddrInUse)
}

/// The same error in a sentence that says which address it is about.
fn told(error: &io::Error, what: &str, source: Option<IpAddr>, addr: SocketAddr) -> io::Error {
    let from = source.map(|source| format!(" from {source}")).unwrap_or_default();
    io::Error::new(error.kind(), format!("cannot connect{from} to {addr}: {what}"))
}

const NO_SUCH_ADDRESS: &str = "this machine has no such source address";
const NO_PORT: &str = "no local port is left for this pair of addresses; more source addresses have more";

fn timed_out(after: Duration) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, format!("no connection after {} ms", after.as_millis()))
}

/// Connects from the first of the sources that is this machine's and has a port left.
async fn connect_in_turn(
    mut sources: impl Iterator<Item = Option<IpAddr>>,
    addr: SocketAddr,
    first: &[u8],
    open: impl Fn(Option<IpAddr>, SocketAddr) -> io::Result<Socket>,
) -> io::Result<(TcpStream, usize)> {
    let mut last = None;
    let start = |socket: &Socket| {
        configure(socket)?;
        start(socket, addr, !first.is_empty())
    };
    while let Some((socket, source)) = begin_next(&mut sources, addr, &open, start, &mut last)? {
        match go_on(socket, first).await {
            Err(error) if unusable(&error) => last = Some(told(&error, NO_PORT, source, addr)),
            outcome => return outcome,
        }
    }
    Err(last.unwrap_or_else(|| io::ErrorKind::AddrNotAvailable.into()))
}

/// Begins to connect from the next source that can be used; notes why those before could not. `None`: none is left.
fn begin_next(
    sources: &mut impl Iterator<Item = Option<IpAddr>>,
    addr: SocketAddr,
    open: impl Fn(Option<IpAddr>, SocketAddr) -> io::Result<Socket>,
    start: impl Fn(&Socket) -> io::Result<()>,
    last: &mut Option<io::Error>,
) -> io::Result<Option<(Socket, Option<IpAddr>)>> {
    for source in sources {
        let (error, what) = match open(source, addr) {
            Ok(socket) => match start(&socket) {
                Ok(()) => return Ok(Some((socket, source))),
                Err(error) => (error, NO_PORT),
            },
            Err(error) => (error, NO_SUCH_ADDRESS),
        };
        if !unusable(&error) {
            return Err(error);
        }
        *last = Some(told(&error, what, source, addr));
    }
    Ok(None)
}

async fn go_on(socket: Socket, first: &[u8]) -> io::Result<(TcpStream, usize)> {
    let sent = send_first(&socket, first)?;
    let stream = TcpStream::from_std(socket.into())?;
    if sent == 0 {
        stream.writable().await?;
        if let Some(error) = stream.take_error()? {
            return Err(error);
        }
    }
    Ok((stream, sent))
}

/// Begins to connect a socket that does not block.
fn start(socket: &Socket, addr: SocketAddr, sends: bool) -> io::Result<()> {
    #[cfg(target_os = "linux")]
    if sends {
        // The last step of the handshake then travels with the first bytes: one packet, and one wake-up of the
        // server, for two.
        socket.set_tcp_quickack(false)?;
    }
    #[cfg(not(target_os = "linux"))]
    let _ = sends;
    match socket.connect(&addr.into()) {
        Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => Err(error),
        _ => Ok(()),
    }
}

/// How many of the first bytes a connection takes that may not be made yet: on this machine the handshake is over by then.
fn send_first(socket: &Socket, first: &[u8]) -> io::Result<usize> {
    if first.is_empty() {
        return Ok(0);
    }
    match socket.send(first) {
        Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::NotConnected) => {
            Ok(0)
        }
        outcome => outcome,
    }
}

/// Waits for nothing, once.
#[cfg(target_os = "linux")]
async fn once_around() {
    let mut returned = false;
    std::future::poll_fn(|cx| {
        if std::mem::replace(&mut returned, true) {
            return std::task::Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        std::task::Poll::Pending
    })
    .await;
}

/// Begins a connection without waiting, for a program that polls its sockets itself: the socket does not block, and once
/// it is writable it is connected, or `take_error` says why not.
///
/// # Errors
/// `AddrNotAvailable` when the source address is not this machine's or has no port left to this server; or what the
/// kernel said at once.
pub fn begin(source: Option<IpAddr>, addr: SocketAddr) -> io::Result<std::net::TcpStream> {
    let explained = |error: io::Error, what| match unusable(&error) {
        true => told(&error, what, source, addr),
        false => error,
    };
    let socket = open(source, addr).map_err(|error| explained(error, NO_SUCH_ADDRESS))?;
    configure(&socket)?;
    match socket.connect(&addr.into()) {
        Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => Err(explained(error, NO_PORT)),
        _ => Ok(socket.into()),
    }
}

/// No delay for small packets, and a keep-alive that finds a dead server. The interval and the number of probes are the
/// system's: each option is a system call for each connection, and here none can be inherited.
fn configure(socket: &Socket) -> io::Result<()> {
    socket.set_tcp_nodelay(true)?;
    keepalive(&SockRef::from(socket))
}

/// See [`configure`].
pub(crate) fn keepalive(socket: &SockRef<'_>) -> io::Result<()> {
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(listener::KEEPALIVE_IDLE))
}

/// A socket for a connection to `addr`, bound to its source address but to no port.
fn open(source: Option<IpAddr>, addr: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    if let Some(source) = source {
        sockopt::bind_address_no_port(&socket)?;
        socket.bind(&SocketAddr::new(source, 0).into())?;
    }
    Ok(socket)
}

/// The addresses of `"host:port"` or `"address:port"`, each once, in the resolver's order; never empty.
///
/// # Errors
/// When the text has no port, or the name has no address.
pub async fn resolve(host_port: &str) -> io::Result<Vec<SocketAddr>> {
    let mut addresses: Vec<SocketAddr> = Vec::new();
    for address in tokio::net::lookup_host(host_port).await? {
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    if addresses.is_empty() {
        return Err(io::Error::new(io::ErrorKind::NotFound, format!("{host_port} has no address")));
    }
    Ok(addresses)
}

#[cfg(test)]
mod tests;
