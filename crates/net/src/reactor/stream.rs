//! A TCP connection, and a listening socket, in a [`Reactor`].

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::task::{Context, Poll, ready};

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, Shutdown, SocketFlags};
use socket2::SockRef;

use super::readiness::Readiness;
use super::{Reactor, Registered};
use crate::dialer;

/// A connection. All its methods take `&self`: nothing of a stream is written twice at a time on one thread.
///
/// Before a read ask [`Stream::is_readable`], or wait: a read that would block costs a system call. What reads and writes
/// tell of the socket is noted.
pub struct Stream(Registered);

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stream").field("fd", &self.0.fd).field("known", &self.0.readiness()).finish()
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Stream {
    /// A connection that is made. The descriptor must not block, and must not have a duplicate.
    ///
    /// # Errors
    /// What epoll said.
    pub fn connected(reactor: &Reactor, fd: OwnedFd) -> io::Result<Self> {
        reactor.register(fd, false).map(Self)
    }

    /// As [`Stream::connected`], and reads what is there already: how much, 0 where nothing is. Done first, it spares the
    /// event for it. The end, or an error, is told by the next read.
    ///
    /// # Errors
    /// What epoll said.
    pub fn connected_reading(reactor: &Reactor, fd: OwnedFd, buffer: &mut [u8]) -> io::Result<(Self, usize)> {
        let got =
            retry(|| rustix::net::recv(&fd, &mut *buffer, RecvFlags::empty())).map_or(0, |(got, _)| got);
        Ok((Self::connected(reactor, fd)?, got))
    }

    /// A connection that is being made: it is made, or has failed, when it is writable. As [`Stream::connected`] otherwise.
    ///
    /// # Errors
    /// What epoll said.
    pub fn connecting(reactor: &Reactor, fd: OwnedFd) -> io::Result<Self> {
        reactor.register(fd, true).map(Self)
    }

    /// From now on [`Reactor::poll_turn`] gives this key for each event. What was told before is known already: look
    /// once by yourself. No task may wait for it then.
    pub fn deliver_to(&self, key: u32) {
        self.0.deliver_to(key);
    }

    /// Whether a read may give something: bytes, the end, or an error.
    pub fn is_readable(&self) -> bool {
        self.0.readiness().is_readable()
    }

    /// Whether a write may be taken.
    pub fn is_writable(&self) -> bool {
        self.0.readiness().is_writable()
    }

    /// Whether the peer's end has arrived; bytes may stand before it.
    pub fn has_ended(&self) -> bool {
        self.0.readiness().has_ended()
    }

    /// Whether all has been read and no more will come: the next read gives 0, without a system call.
    pub fn is_drained(&self) -> bool {
        self.0.readiness().is_drained()
    }

    /// [`Stream::is_readable`], waited for by the task of `cx`.
    pub fn poll_readable(&self, cx: &Context<'_>) -> Poll<()> {
        self.0.poll(cx, Readiness::is_readable)
    }

    /// [`Stream::is_writable`], waited for by the task of `cx`.
    pub fn poll_writable(&self, cx: &Context<'_>) -> Poll<()> {
        self.0.poll(cx, Readiness::is_writable)
    }

    /// Waits until a read may give something.
    pub async fn readable(&self) {
        poll_fn(|cx| self.poll_readable(cx)).await;
    }

    /// Waits until a write may be taken.
    pub async fn writable(&self) {
        poll_fn(|cx| self.poll_writable(cx)).await;
    }

    /// Reads without waiting; 0: the peer sends no more.
    ///
    /// # Errors
    /// `WouldBlock`; or what the network said.
    pub fn recv(&self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.is_drained() {
            return Ok(0);
        }
        match retry(|| rustix::net::recv(self, &mut *buffer, RecvFlags::empty())) {
            Ok((got, _)) => {
                self.0.learn(|known| known.read(buffer.len(), got));
                Ok(got)
            }
            Err(error) => {
                self.reading_failed(&error);
                Err(error)
            }
        }
    }

    /// Writes without waiting. `more`: what follows at once (more bytes, the end) may go out together with these.
    ///
    /// # Errors
    /// `WouldBlock`; or what the network said.
    pub fn send(&self, bytes: &[u8], more: bool) -> io::Result<usize> {
        let flags = if more { SendFlags::NOSIGNAL | SendFlags::MORE } else { SendFlags::NOSIGNAL };
        let took = match retry(|| rustix::net::send(self, bytes, flags)) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.write_blocked()?;
                return Err(error);
            }
            outcome => outcome?,
        };
        if took < bytes.len() {
            self.0.learn(|known| known.wrote(bytes.len(), took));
            self.0.watch_output()?;
        }
        Ok(took)
    }

    /// Adds at most `max` bytes (at least one is asked for) to the end of the buffer, once there are some: their number,
    /// 0 when the peer closed. Cancel safe.
    ///
    /// # Errors
    /// What the network said.
    pub async fn read_into(&self, buffer: &mut Vec<u8>, max: usize) -> io::Result<usize> {
        let start = buffer.len();
        loop {
            self.readable().await;
            buffer.resize(start + max.max(1), 0);
            let outcome = self.recv(buffer.get_mut(start..).unwrap_or_default());
            buffer.truncate(start + outcome.as_ref().map_or(0, |got| *got));
            match outcome {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                outcome => return outcome,
            }
        }
    }

    /// Writes all of it.
    ///
    /// # Errors
    /// What the network said.
    pub async fn write_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            self.writable().await;
            match self.send(bytes, false) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                outcome => bytes = bytes.get(outcome?..).unwrap_or_default(),
            }
        }
        Ok(())
    }

    /// Tells the peer that nothing more will come.
    ///
    /// # Errors
    /// When the connection is gone already.
    pub fn shutdown(&self) -> io::Result<()> {
        Ok(rustix::net::shutdown(self, Shutdown::Write)?)
    }

    /// For system calls that go past this type: such a read said "would block".
    pub fn read_blocked(&self) {
        self.0.learn(Readiness::read_blocked);
    }

    /// For system calls that go past this type: such a write said "would block".
    ///
    /// # Errors
    /// When epoll can't watch for room.
    pub fn write_blocked(&self) -> io::Result<()> {
        self.0.learn(Readiness::write_blocked);
        self.0.watch_output()
    }

    /// The error that waits on the socket, taken from it.
    ///
    /// # Errors
    /// When there is no such socket.
    pub fn take_error(&self) -> io::Result<Option<io::Error>> {
        SockRef::from(self).take_error()
    }

    /// Small packets leave at once, though those before are not acknowledged yet.
    ///
    /// # Errors
    /// When the connection is gone.
    pub fn set_no_delay(&self) -> io::Result<()> {
        SockRef::from(self).set_tcp_nodelay(true)
    }

    /// The kernel asks a peer that is silent for five minutes whether it is there.
    ///
    /// # Errors
    /// When the connection is gone.
    pub fn set_keep_alive(&self) -> io::Result<()> {
        dialer::keepalive(&SockRef::from(self))
    }

    /// Bytes that have arrived and were not read yet. To close then would reset the connection.
    ///
    /// # Errors
    /// When the connection is gone.
    pub fn unread(&self) -> io::Result<u64> {
        Ok(rustix::io::ioctl_fionread(self)?)
    }

    /// Our end's address.
    ///
    /// # Errors
    /// When the connection is gone.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(SocketAddr::try_from(rustix::net::getsockname(self)?)?)
    }

    fn reading_failed(&self, error: &io::Error) {
        if error.kind() == io::ErrorKind::WouldBlock {
            self.read_blocked();
        }
    }
}

/// A listening socket.
pub struct Acceptor(Registered);

impl fmt::Debug for Acceptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Acceptor").field("fd", &self.0.fd).finish_non_exhaustive()
    }
}

impl Acceptor {
    /// The listener must not block. It may have duplicates.
    ///
    /// # Errors
    /// What epoll said.
    pub fn new(reactor: &Reactor, listener: TcpListener) -> io::Result<Self> {
        reactor.register(listener.into(), false).map(Self)
    }

    /// The next connection, in no reactor yet: it does not block and ends with an exec.
    ///
    /// # Errors
    /// What accept(2) said; see [`after_error`](crate::listener::after_error).
    pub fn poll_accept(&self, cx: &Context<'_>) -> Poll<io::Result<(OwnedFd, SocketAddr)>> {
        loop {
            ready!(self.0.poll(cx, Readiness::is_readable));
            let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
            match retry(|| rustix::net::acceptfrom_with(&self.0, flags)) {
                Ok((fd, from)) => {
                    let from = from.ok_or(Errno::PROTO).and_then(SocketAddr::try_from);
                    return Poll::Ready(Ok((fd, from?)));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.0.learn(Readiness::read_blocked);
                }
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl Drop for Acceptor {
    fn drop(&mut self) {
        self.0.forget();
    }
}

/// A signal is no error.
fn retry<T>(mut call: impl FnMut() -> rustix::io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(Errno::INTR) => {}
            outcome => return Ok(outcome?),
        }
    }
}
