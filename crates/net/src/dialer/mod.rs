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

use socket2::{Domain, Protocol, Socket, TcpKeepalive, Type};
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
        self.in_time(async { connect_in_turn(self.sources_for(addr)?, addr, first, open, finish).await })
            .await
    }

    /// As [`Dialer::connect_sending`], for a connection in a [`Reactor`]. One that takes the bytes at once costs no wait.
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
        let finish = async |socket, sent| finish_in(reactor, socket, sent).await;
        self.in_time(async { connect_in_turn(self.sources_for(addr)?, addr, first, open, finish).await })
            .await
    }

    async fn in_time<T>(&self, attempt: impl Future<Output = io::Result<T>>) -> io::Result<T> {
        match tokio::time::timeout(self.connect_timeout, attempt).await {
            Ok(outcome) => outcome,
            Err(_) => {
                let waited = self.connect_timeout.as_millis();
                Err(io::Error::new(io::ErrorKind::TimedOut, format!("no connection after {waited} ms")))
            }
        }
    }

    /// The source addresses to try for this server, in order; the first moves on with every call.
    fn sources_for(&self, addr: SocketAddr) -> io::Result<Vec<Option<IpAddr>>> {
        if self.source_addresses.is_empty() {
            return Ok(vec![None]);
        }
        let same_family = |source: &&IpAddr| source.is_ipv4() == addr.is_ipv4();
        let mut sources: Vec<_> =
            self.source_addresses.iter().filter(same_family).copied().map(Some).collect();
        if sources.is_empty() {
            let error = format!("no source address has the address family of {addr}");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, error));
        }
        let turn = self.turn.fetch_add(1, Ordering::Relaxed) % sources.len();
        sources.rotate_left(turn);
        Ok(sources)
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

/// Connects from the first of the sources that is this machine's and has a port left. `finish` waits for the
/// connection, if it did not take the first bytes yet.
async fn connect_in_turn<S>(
    sources: Vec<Option<IpAddr>>,
    addr: SocketAddr,
    first: &[u8],
    open: impl Fn(Option<IpAddr>, SocketAddr) -> io::Result<Socket>,
    finish: impl AsyncFn(Socket, usize) -> io::Result<S>,
) -> io::Result<(S, usize)> {
    let mut last = None;
    for source in sources {
        let socket = match open(source, addr) {
            Ok(socket) => socket,
            Err(error) if unusable(&error) => {
                last = Some(told(&error, NO_SUCH_ADDRESS, source, addr));
                continue;
            }
            Err(error) => return Err(error),
        };
        let connected = match start(&socket, addr, first) {
            Ok(sent) => finish(socket, sent).await.map(|connected| (connected, sent)),
            Err(error) => Err(error),
        };
        match connected {
            Ok(connected) => return Ok(connected),
            Err(error) if unusable(&error) => last = Some(told(&error, NO_PORT, source, addr)),
            Err(error) => return Err(error),
        }
    }
    Err(last.unwrap_or_else(|| io::ErrorKind::AddrNotAvailable.into()))
}

/// Begins to connect a socket that does not block, and gives back how many of the first bytes it took: on this machine
/// the handshake is over by then.
fn start(socket: &Socket, addr: SocketAddr, first: &[u8]) -> io::Result<usize> {
    configure(socket)?;
    #[cfg(target_os = "linux")]
    if !first.is_empty() {
        // The last step of the handshake then travels with the first bytes: one packet, and one wake-up of the
        // server, for two.
        socket.set_tcp_quickack(false)?;
    }
    match socket.connect(&addr.into()) {
        Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => return Err(error),
        _ if first.is_empty() => return Ok(0),
        _ => {}
    }
    match socket.send(first) {
        Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::NotConnected) => {
            Ok(0)
        }
        outcome => outcome,
    }
}

async fn finish(socket: Socket, sent: usize) -> io::Result<TcpStream> {
    let stream = TcpStream::from_std(socket.into())?;
    if sent == 0 {
        stream.writable().await?;
        if let Some(error) = stream.take_error()? {
            return Err(error);
        }
    }
    Ok(stream)
}

#[cfg(target_os = "linux")]
async fn finish_in(reactor: &Reactor, socket: Socket, sent: usize) -> io::Result<Stream> {
    if sent > 0 {
        return Stream::connected(reactor, socket.into());
    }
    let stream = Stream::connecting(reactor, socket.into())?;
    stream.writable().await;
    match stream.take_error()? {
        Some(error) => Err(error),
        None => Ok(stream),
    }
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
