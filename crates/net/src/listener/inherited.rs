//! Listening sockets that the service manager opened for us, sd_listen_fds(3).
//!
//! They are taken once, at the first question, and kept for the life of the process: a reload that drops a
//! listener and a later one that wants it again find it still there.
#![allow(unsafe_code)] // a descriptor's number comes from the environment; only we can say that it is ours

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd};
use std::sync::OnceLock;

use socket2::{SockRef, Type};

/// The passed listener of that address, if there is one.
pub(super) fn find(addr: SocketAddr) -> io::Result<Option<&'static TcpListener>> {
    static PASSED: OnceLock<Result<Vec<(SocketAddr, TcpListener)>, String>> = OnceLock::new();
    // The error is kept as its text: every listener of the process must hear of it.
    match PASSED.get_or_init(|| take().map_err(|error| error.to_string())) {
        Ok(passed) => Ok(passed.iter().find(|(bound, _)| *bound == addr).map(|(_, listener)| listener)),
        Err(error) => Err(io::Error::other(format!("sockets passed by the service manager: {error}"))),
    }
}

/// Takes over what is listed in `LISTEN_FDS`. What is no TCP listener is left alone, with a warning.
fn take() -> io::Result<Vec<(SocketAddr, TcpListener)>> {
    let mut passed = Vec::new();
    for number in sd_notify::listen_fds()? {
        // SAFETY: the descriptor is open, sd_notify has just set a flag on it, and it stays open
        // while it is borrowed: nobody but this function knows that it is there.
        let borrowed = unsafe { BorrowedFd::borrow_raw(number) };
        let Some(bound) = tcp_listener(&borrowed) else {
            tracing::warn!(fd = number, "a passed descriptor is no TCP listener and is left alone");
            continue;
        };
        // SAFETY: the descriptor is open, and it is ours alone: LISTEN_PID names this process, the protocol gives
        // it the descriptors from 3 on, and this function runs once (OnceLock) and is the only one that takes them.
        let fd = unsafe { OwnedFd::from_raw_fd(number) };
        SockRef::from(&fd).set_nonblocking(true)?;
        super::configure(&fd)?;
        passed.push((bound, TcpListener::from(fd)));
    }
    Ok(passed)
}

/// The address of a TCP listener; nothing for any other descriptor.
fn tcp_listener(fd: &BorrowedFd<'_>) -> Option<SocketAddr> {
    let socket = SockRef::from(fd);
    let stream = socket.r#type().ok()? == Type::STREAM;
    if stream && socket.is_listener().ok()? { socket.local_addr().ok()?.as_socket() } else { None }
}
