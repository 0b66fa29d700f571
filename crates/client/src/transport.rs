//! The byte stream under a connection: TCP, with or without WebSocket; the place where TLS joins it.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use net::dialer::{Dialer, resolve};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::options::Options;

mod websocket;

use websocket::WebSocket;

/// An open byte stream to the broker.
#[derive(Debug)]
pub(crate) enum Transport {
    /// Plain TCP.
    Tcp(TcpStream),
    /// WebSocket over TCP.
    WebSocket(Box<WebSocket>),
}

impl Transport {
    /// Connects to the first address of the server that accepts, from `bind` if there is one. The addresses
    /// share the time, so that one which never answers does not take it all.
    ///
    /// # Errors
    /// The name does not resolve, or the last address's error.
    pub(crate) async fn connect(options: &Options) -> io::Result<Self> {
        let stream = connect_tcp(&options.server, options.bind, options.connect_timeout).await?;
        match &options.websocket_path {
            None => Ok(Self::Tcp(stream)),
            Some(path) => {
                Ok(Self::WebSocket(Box::new(WebSocket::open(stream, &options.server, path).await?)))
            }
        }
    }

    /// Our own address and port.
    pub(crate) fn local_address(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(stream) => stream.local_addr().ok(),
            Self::WebSocket(socket) => socket.stream().local_addr().ok(),
        }
    }
}

async fn connect_tcp(server: &str, bind: Option<IpAddr>, timeout: Duration) -> io::Result<TcpStream> {
    let addresses = resolve(server).await?;
    let share = timeout / u32::try_from(addresses.len()).unwrap_or(u32::MAX).max(1);
    let dialer = Dialer::new(bind.into_iter().collect(), share);
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in addresses {
        match dialer.connect(address).await {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

impl AsyncRead for Transport {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::WebSocket(socket) => Pin::new(socket).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Transport {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::WebSocket(socket) => Pin::new(socket).poll_write(context, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_flush(context),
            Self::WebSocket(socket) => Pin::new(socket).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(context),
            Self::WebSocket(socket) => Pin::new(socket).poll_shutdown(context),
        }
    }
}
