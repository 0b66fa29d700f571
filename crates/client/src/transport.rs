//! The byte stream under a connection; TCP today, and the place where TLS and WebSocket join it.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use net::dialer::{Dialer, resolve};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// An open byte stream to the broker.
#[derive(Debug)]
pub(crate) enum Transport {
    /// Plain TCP.
    Tcp(TcpStream),
}

impl Transport {
    /// Connects to the first address of `server` (`host:port`) that accepts, from `bind` if there is one. The addresses
    /// share the time, so that one which never answers does not take it all.
    ///
    /// # Errors
    /// The name does not resolve, or the last address's error.
    pub(crate) async fn connect(server: &str, bind: Option<IpAddr>, timeout: Duration) -> io::Result<Self> {
        let addresses = resolve(server).await?;
        let share = timeout / u32::try_from(addresses.len()).unwrap_or(u32::MAX).max(1);
        let dialer = Dialer::new(bind.into_iter().collect(), share);
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        for address in addresses {
            match dialer.connect(address).await {
                Ok(stream) => return Ok(Self::Tcp(stream)),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// Our own address and port.
    pub(crate) fn local_address(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(stream) => stream.local_addr().ok(),
        }
    }
}

impl AsyncRead for Transport {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Transport {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}
